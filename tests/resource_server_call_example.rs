//! Runs the example `resource_server_call` as its user would.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn an_application_calls_an_api_and_refreshes_its_tokens_when_they_have_expired() {
    let run = Command::new(example()).output().expect("the example starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stderr}");
    let begin =
        ["with the tokens as they are: 200", "with the tokens as they are: invalid_token", "with new ones: 200"];
    assert!(stdout.lines().zip(begin).all(|(line, begin)| line.starts_with(begin)), "{stdout}");
    assert!(stdout.contains("\"body\":\"a payment\"") && stdout.contains("the token is good for"), "{stdout}");
}

/// The path of the example. `cargo test` builds the examples beside the folder of the tests.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/resource_server_call");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    path
}
