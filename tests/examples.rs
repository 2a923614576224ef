//! Runs the short examples to their end and checks their output. The long examples have tests of their own:
//! `quickstart`, `agent_example`, `kill` for `worker`, `web` for `web_app`; `application_test` is itself a test.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn one_process_is_waited_for_out_of_a_file() {
    let said = run("one_process");
    assert!(said.contains("not yet: a person is looking at the passport"), "{said}");
    assert!(said.ends_with("welcome, 248289761001\n"), "{said}");
}

#[test]
fn a_ping_is_taken_without_axum() {
    assert_eq!(run("ping_without_axum"), "welcome, 248289761001, an hour before the next poll\n");
}

#[test]
fn a_client_registers_itself_is_used_and_deleted() {
    let said = run("register");
    let expected = [
        "registered for urn:openid:params:grant-type:deferred and refresh_token",
        "look at `dpop_bound_access_tokens`: the OP does not enforce it, so only the client ensures it",
        "welcome, 248289761001",
        "now called Example Bank & Sons",
        "deleted",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

/// Runs the example and returns its output. `cargo test` builds the examples beside the folder of the tests.
fn run(example: &str) -> String {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push(format!("examples/{example}"));
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    let output = Command::new(path).output().expect("the example runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it says something")
}
