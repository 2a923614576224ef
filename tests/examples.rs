//! Runs the short examples to their end and checks their output. The long examples have tests of their own:
//! `quickstart`, `agent_example`, `kill` for `worker`, `web` for `web_app`; `application_test` is itself a test.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_process_stored_in_a_file_is_waited_for() {
    let said = run("one_process");
    assert!(said.contains("not yet: a person is looking at the passport"), "{said}");
    assert!(said.ends_with("welcome, 248289761001\n"), "{said}");
}

#[test]
fn a_ping_is_received_without_axum() {
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

#[test]
fn one_trace_follows_a_user_from_the_login_to_the_outcome_across_a_restart() {
    let said = run("opentelemetry");
    let (before, after) = said.split_once("restarted\n").expect("it restarts");
    let names =
        |part: &str| part.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned()).collect::<Vec<_>>();
    for name in ["GET /login", "GET /callback", "openid_deferred.exchange", "openid_deferred.request"] {
        assert!(names(before).iter().any(|found| found == name), "{name} is missing: {said}");
    }
    for name in ["openid_deferred.process", "openid_deferred.request", "outcome"] {
        assert!(names(after).iter().any(|found| found == name), "{name} is missing: {said}");
    }
    let spans: Vec<Vec<_>> =
        said.lines().filter(|line| *line != "restarted").map(|line| line.splitn(4, ' ').collect()).collect();
    let login = spans.iter().find(|span| span[3] == "GET /login").unwrap();
    for span in &spans {
        assert_eq!(span[0], login[0], "{} has another trace: {said}", span[3]);
        let is_child = span[2] == login[1] || span[3] == "openid_deferred.request";
        assert!(span == login || is_child, "{} is no child of the login: {said}", span[3]);
    }
    let polled = spans.iter().any(|span| {
        let parent = spans.iter().find(|parent| parent[1] == span[2]);
        span[3] == "openid_deferred.request" && parent.is_some_and(|parent| parent[3] == "openid_deferred.process")
    });
    assert!(polled, "no request of a poll is in the trace: {said}");
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
