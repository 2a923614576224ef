//! Runs the example `quickstart` as its user would: a program with environment variables, a browser that follows the
//! redirect, claims on stdout, and a reason on stderr when it fails.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider, TestProviderBuilder, TestUser};
use serde_json::Value;

/// The maximum wait; everything here takes a few seconds at most unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_confidential_client_signs_in_at_a_real_provider() {
    let port = free_port();
    let op = provider(TestClient::secret_basic("the-app", "s3cret/+ %"), port, |op| op);
    let run = Quickstart::start(&op, port, Some("s3cret/+ %"));
    let (status, stdout, stderr) = run.after_visit();
    assert!(status, "{stderr}");
    let claims: Value = serde_json::from_str(&stdout).expect("stdout is one JSON object");
    assert_eq!((claims["sub"].as_str(), claims["name"].as_str()), (Some("user-7"), Some("Jane Doe")));
    op.assert_clean();
}

#[test]
fn a_public_client_signs_in_without_a_secret() {
    let port = free_port();
    let op = provider(TestClient::public("the-app"), port, |op| op);
    let (status, stdout, stderr) = Quickstart::start(&op, port, None).after_visit();
    assert!(status, "{stderr}");
    assert!(stdout.contains("\"sub\":\"user-7\""), "{stdout}");
    op.assert_clean();
}

#[test]
fn a_provider_that_requires_client_secret_post_gets_the_secret_in_the_body() {
    let port = free_port();
    let op = provider(TestClient::secret_post("the-app", "s3cret"), port, |op| {
        op.metadata(|metadata| {
            metadata.insert("token_endpoint_auth_methods_supported".into(), serde_json::json!(["client_secret_post"]));
        })
    });
    let (status, _, stderr) = Quickstart::start(&op, port, Some("s3cret")).after_visit();
    assert!(status, "{stderr}");
    op.assert_clean();
}

#[test]
fn a_denial_ends_with_a_reason_and_no_claims() {
    let port = free_port();
    let op = provider(TestClient::public("the-app"), port, |op| op.decisions(DecisionPolicy::after_polls(1).deny()));
    let (status, stdout, stderr) = Quickstart::start(&op, port, None).after_visit();
    assert!(!status);
    assert_eq!(stdout, "");
    assert!(stderr.contains("denied"), "{stderr}");
}

#[test]
fn a_wrong_secret_ends_with_the_providers_error() {
    let port = free_port();
    let op = provider(TestClient::secret_basic("the-app", "right"), port, |op| op);
    let (status, stdout, stderr) = Quickstart::start(&op, port, Some("wrong")).after_visit();
    assert!(!status);
    assert_eq!(stdout, "");
    assert!(stderr.contains("invalid_client"), "{stderr}");
    assert!(!stderr.contains("wrong"), "the secret is not repeated: {stderr}");
}

#[test]
fn an_issuer_without_a_client_identifier_says_what_to_set() {
    let output = command().env("OPENID_DEFERRED_ISSUER", "https://op.example").output().expect("the example runs");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("OPENID_DEFERRED_CLIENT_ID"), "{stderr}");
}

#[test]
fn a_misspelt_variable_does_not_start_the_demonstration() {
    let output = command().env("OPENID_DEFERRED_ISSUR", "https://op.example").output().expect("the example runs");
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("OPENID_DEFERRED_ISSUER is not set"));
}

#[test]
fn a_stray_request_to_the_redirect_uri_does_not_end_the_sign_in() {
    let port = free_port();
    let op = provider(TestClient::public("the-app"), port, |op| op);
    let mut run = Quickstart::start(&op, port, None);
    let url = run.url();
    for stray in ["", "?error=access_denied&state=forged", "?deferred_code=x&state=forged"] {
        assert_eq!(visit(&format!("http://127.0.0.1:{port}/cb{stray}")), 400);
    }
    assert_eq!(visit(&url), 200);
    let (status, stdout, stderr) = run.ended();
    assert!(status, "{stderr}");
    assert!(stdout.contains("user-7"), "{stdout}");
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    let output = command()
        .env("OPENID_DEFERRED_ISSUER", "http://op.example")
        .env("OPENID_DEFERRED_CLIENT_ID", "the-app")
        .args(["--redirect-port", "0"])
        .output()
        .expect("the example runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("https"));
}

fn provider(
    client: TestClient,
    port: u16,
    configure: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
) -> TestProvider {
    let op = TestProvider::builder()
        .client(client.redirect_uri(&format!("http://127.0.0.1:{port}/cb")))
        .user(TestUser::new("user-7").claim("name", "Jane Doe"))
        .interval(Duration::from_secs(1))
        .decisions(DecisionPolicy::after_polls(1));
    configure(op).start().expect("the provider starts")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// Builds the command. `cargo test` builds the examples beside the folder of the tests.
fn command() -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/quickstart");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    let mut command = Command::new(path);
    for name in ["OPENID_DEFERRED_ISSUER", "OPENID_DEFERRED_CLIENT_ID", "OPENID_DEFERRED_CLIENT_SECRET"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Visits a page as a browser that follows redirects, and returns the last status.
fn visit(url: &str) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let browser = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a browser");
        browser.get(url).send().await.expect("the page loads").status().as_u16()
    })
}

/// A running example. It is killed if the test fails.
struct Quickstart {
    child: Child,
    stderr: mpsc::Receiver<String>,
    seen: String,
}

impl Quickstart {
    fn start(op: &TestProvider, port: u16, secret: Option<&str>) -> Self {
        let mut command = command();
        command.env("OPENID_DEFERRED_ISSUER", op.issuer()).env("OPENID_DEFERRED_CLIENT_ID", "the-app");
        if let Some(secret) = secret {
            command.env("OPENID_DEFERRED_CLIENT_SECRET", secret);
        }
        command.args(["--redirect-port", &port.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let pipe = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let (sender, stderr) = mpsc::channel();
        std::thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, stderr, seen: String::new() }
    }

    /// Returns the URL that it prints.
    fn url(&mut self) -> String {
        loop {
            match self.stderr.recv_timeout(DEADLINE) {
                Ok(line) if line.starts_with("http") => break line,
                Ok(line) => self.seen.push_str(&format!("{line}\n")),
                Err(_) => panic!("no URL came: {}", self.seen),
            }
        }
    }

    /// Visits the URL that it prints, and waits until it ends.
    fn after_visit(mut self) -> (bool, String, String) {
        let url = self.url();
        assert_eq!(visit(&url), 200);
        self.ended()
    }

    /// Returns whether it succeeded, stdout and stderr.
    fn ended(mut self) -> (bool, String, String) {
        // The pipe ends when the program has ended.
        while let Ok(line) = self.stderr.recv_timeout(DEADLINE) {
            self.seen.push_str(&format!("{line}\n"));
        }
        let mut stdout = String::new();
        self.child.stdout.take().expect("stdout is a pipe").read_to_string(&mut stdout).expect("stdout is text");
        let status = self.child.wait().expect("it ends");
        (status.success(), stdout, self.seen.clone())
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
