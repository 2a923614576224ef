//! Runs the example `bank_teller` as its user would.

use std::path::PathBuf;
use std::process::Command;

fn run(argument: &str) -> String {
    let run = Command::new(example()).arg(argument).output().expect("the example starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stderr}");
    assert!(!stdout.contains("s3cret") && !stderr.contains("s3cret"));
    stdout.into_owned()
}

#[test]
fn a_teller_sees_the_customers_decision() {
    for (argument, last) in [
        ("--approve", "teller: change of address, account 12345678: confirmed by Jane Doe"),
        ("--deny", "teller: change of address, account 12345678: the customer refused"),
    ] {
        let stdout = run(argument);
        let expected = [
            "teller: ask the customer of account 12345687",
            "teller: there is no such customer",
            "teller: ask the customer of account 12345678",
            "teller: please confirm on your phone; it shows the code W4SCT",
            "phone:  Counter 3: change of address, W4SCT",
            last,
        ];
        assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
    }
}

/// The path of the example. `cargo test` builds the examples beside the folder of the tests.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/bank_teller");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    path
}
