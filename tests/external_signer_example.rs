//! Runs the example `external_signer` as its user would.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_client_signs_in_with_a_key_held_by_another_process() {
    let run = Command::new(example()).output().expect("the example starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stderr}");
    assert!(
        stdout.contains("authenticates with private_key_jwt") && stdout.contains("Signed in: Jane Doe"),
        "{stdout}"
    );
    assert!(
        stdout.contains("\"crv\":\"P-256\"") && !stdout.contains("\"d\":"),
        "the public half, and no more: {stdout}"
    );
}

/// The path of the example. `cargo test` builds the examples beside the folder of the tests.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/external_signer");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    path
}
