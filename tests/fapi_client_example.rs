//! Runs the example `fapi_client` as its user would.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_client_signs_in_under_the_fapi_rules_and_shows_nothing_to_the_browser() {
    let run = Command::new(example()).output().expect("the example starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stderr}");
    for line in [
        "  with client_id",
        "  with request_uri",
        "it comes back with response, a JWT of 5 parts",
        "signed in: 248289761001; the tokens are bound to a key: true",
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "{line:?} is not in {stdout}");
    }
    assert!(stdout.contains("`client_secret`: under FAPI, clients authenticate with"), "{stdout}");
    assert!(stdout.contains("\"use\":\"enc\"") && !stdout.contains("\"d\":"), "public halves and no more: {stdout}");
}

/// The path of the example. `cargo test` builds the examples beside the folder of the tests.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/fapi_client");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    path
}
