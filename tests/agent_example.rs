//! Runs the example `agent` as its user would: a program that is killed and started again, an OP on a loopback port, and
//! a human who opens the link that the program prints.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use openid_deferred::testing::{Endpoint, Fault, RecordedRequest, TestClient, TestProvider};
use openid_deferred::{Clock as _, SealingKey, SystemClock, SystemRandom};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The maximum wait; everything here takes a few seconds at most unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);
const SECRET: &str = "s3cret/+ %";

#[test]
fn a_small_bill_is_paid_at_once_and_not_again_at_the_next_start() {
    let world = World::new();
    for expected in [vec!["INV-1 (40 EUR): paid"], vec![]] {
        let ended = world.start(&["INV-1=40"]).ended();
        assert!(ended.succeeded, "{ended:?}");
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected);
    }
    let details = json!({ "currency": "EUR", "amount": "40" });
    let payments = world.payments();
    assert_eq!(payments.len(), 1);
    assert_eq!(payments[0].header("idempotency-key"), Some("INV-1"));
    let paid: Value = serde_json::from_slice(&payments[0].body).expect("a payment is JSON");
    assert_eq!(paid["instructedAmount"], details);
    assert!(payments[0].header("authorization").is_some_and(|header| header.starts_with("DPoP ")));
    world.op.assert_clean();
}

#[test]
fn a_large_bill_survives_a_kill_and_is_paid_once_after_its_approval() {
    let world = World::new();
    let mut agent = world.start(&["INV-2=950"]);
    let link = agent.link();
    let mut said = agent.killed();
    // The bill and its process are in the agent's files.
    let mut agent = world.start(&[]);
    assert_eq!(agent.link(), link, "the same link is shown again");
    press("approve", &link);
    let ended = agent.ended();
    assert!(ended.succeeded, "{ended:?}");
    assert!(ended.stdout.ends_with("INV-2 (950 EUR): paid\n"), "{ended:?}");
    assert_eq!(world.op.requests_to(Endpoint::ClientCredentials).len(), 1);
    assert_eq!(world.payments().len(), 1);
    world.op.assert_clean();

    said.push_str(&ended.stdout);
    said.push_str(&ended.stderr);
    let code = world.op.last_process().deferral_code().expect("it was deferred");
    let token = world.payments()[0].header("authorization").expect("it has a token")[5..].to_owned();
    for secret in [SECRET, &world.key, &code, &token] {
        assert!(!said.contains(secret), "a secret is in the output: {said}");
    }
}

#[test]
fn a_bill_that_a_human_denies_is_not_paid() {
    let world = World::new();
    let mut agent = world.start(&["INV-3=101"]);
    press("deny", &agent.link());
    let ended = agent.ended();
    assert!(ended.succeeded, "{ended:?}");
    assert!(ended.stdout.ends_with("INV-3 (101 EUR): not paid, denied: the user denied\n"), "{ended:?}");
    assert!(world.payments().is_empty());
    world.op.assert_clean();
}

#[test]
fn an_agent_that_is_killed_while_it_pays_repeats_the_payment_with_the_same_key() {
    let world = World::new();
    world.op.misbehave(Fault::stall(Endpoint::Resource));
    let mut agent = world.start(&["INV-4=950"]);
    press("approve", &agent.link());
    wait_for("the payment is on its way", || !world.payments().is_empty());
    agent.killed();
    let ended = world.start(&[]).ended();
    assert!(ended.succeeded, "{ended:?}");
    let payments = world.payments();
    assert_eq!(payments.iter().map(|payment| payment.status).collect::<Vec<_>>(), [None, Some(200)]);
    assert!(payments.iter().all(|payment| payment.header("idempotency-key") == Some("INV-4")));
    assert_eq!(payments[0].body, payments[1].body);
}

#[test]
fn an_agent_that_is_killed_during_its_request_repeats_it() {
    let world = World::new();
    world.op.misbehave(Fault::stall(Endpoint::ClientCredentials));
    let agent = world.start(&["INV-5=950"]);
    wait_for("the request is on its way", || !world.op.requests_to(Endpoint::ClientCredentials).is_empty());
    agent.killed();
    let mut agent = world.start(&[]);
    press("approve", &agent.link());
    let ended = agent.ended();
    assert!(ended.succeeded, "{ended:?}");
    assert_eq!(world.payments().len(), 1);
}

#[test]
fn a_payment_that_fails_is_repeated() {
    let world = World::new();
    world.op.misbehave(Fault::status(Endpoint::Resource, 503).times(2));
    let mut agent = world.start(&["INV-6=40", "INV-7=950"]);
    press("approve", &agent.link());
    let ended = agent.ended();
    // A token that came at once is not stored, so the small bill is left to the next start.
    assert!(!ended.succeeded && ended.stderr.contains("some bills are still open"), "{ended:?}");
    assert!(ended.stdout.ends_with("INV-7 (950 EUR): paid\n"), "{ended:?}");
    let ended = world.start(&[]).ended();
    assert!(ended.succeeded, "{ended:?}");
    assert_eq!(ended.stdout, "INV-6 (40 EUR): paid\n");
    let keys: Vec<_> =
        world.payments().iter().map(|payment| payment.header("idempotency-key").map(str::to_owned)).collect();
    assert_eq!(keys.iter().flatten().collect::<Vec<_>>(), ["INV-6", "INV-7", "INV-7", "INV-6"]);
}

#[test]
fn the_demonstration_kills_the_agent_and_approves_by_itself() {
    let output = example().args(["demo", "--auto"]).output().expect("the example runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    let said: Vec<_> = stdout.lines().map(|line| line.split(" at http").next().unwrap_or_default()).collect();
    let expected = [
        "agent: INV-1 (40 EUR): paid",
        "agent: INV-2 (950 EUR): the OP tells the agent to wait for a human",
        "agent: INV-2 (950 EUR): a human must decide",
        "agent: INV-2 (950 EUR): a human must decide",
        "agent: INV-2 (950 EUR): paid",
        "The payments API has made the payment INV-1",
        "The payments API has made the payment INV-2",
    ];
    assert_eq!(said, expected);
    assert!(stderr.contains("`kill -9 "), "{stderr}");
}

/// An OP that defers amounts above 100, and the folder of an agent.
struct World {
    op: TestProvider,
    data: TempDir,
    key: String,
}

impl World {
    fn new() -> Self {
        let op = TestProvider::builder()
            .ietf()
            .defers_above(100)
            .requires_interaction()
            .interval(Duration::from_secs(1))
            .client(TestClient::secret_basic("the-agent", SECRET))
            .start()
            .expect("the provider starts");
        let data = tempfile::tempdir().expect("there is room for a folder");
        let key = SealingKey::generate(&SystemRandom).expect("there is randomness").to_base64().expose().to_owned();
        Self { op, data, key }
    }

    fn start(&self, bills: &[&str]) -> Agent {
        let mut command = example();
        command.args(["run", "--client-id", "the-agent", "--issuer", self.op.issuer()]);
        command.args(["--payments", &self.op.resource(), "--data"]).arg(self.data.path());
        command.args(bills.iter().flat_map(|bill| ["--pay", bill]));
        command.env("OPENID_DEFERRED_CLIENT_SECRET", SECRET).env("OPENID_DEFERRED_KEY", &self.key);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the example starts");
        let pipe = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Agent { child, lines, stdout: String::new() }
    }

    fn payments(&self) -> Vec<RecordedRequest> {
        self.op.requests_to(Endpoint::Resource)
    }
}

/// A running example. It is killed if the test fails.
struct Agent {
    child: Child,
    lines: mpsc::Receiver<String>,
    stdout: String,
}

#[derive(Debug)]
struct Ended {
    succeeded: bool,
    stdout: String,
    stderr: String,
}

impl Agent {
    /// The next line. The pipe ends with the program.
    fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => {
                self.stdout.push_str(&format!("{line}\n"));
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing more came: {}", self.stdout),
        }
    }

    /// Waits for the link that it prints.
    fn link(&mut self) -> String {
        loop {
            let line = self.line().unwrap_or_else(|| panic!("no link came: {}", self.stdout));
            if let Some((_, link)) = line.split_once("decide at ") {
                return link.to_owned();
            }
        }
    }

    /// Kills it with SIGKILL, and returns what it has said.
    fn killed(mut self) -> String {
        self.child.kill().expect("it was running");
        while self.line().is_some() {}
        std::mem::take(&mut self.stdout)
    }

    fn ended(mut self) -> Ended {
        while self.line().is_some() {}
        let mut stderr = String::new();
        self.child.stderr.take().expect("it is a pipe").read_to_string(&mut stderr).expect("it is text");
        let succeeded = self.child.wait().expect("it ends").success();
        Ended { succeeded, stdout: std::mem::take(&mut self.stdout), stderr }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the link, and sends the form of the page with this button, as a browser does.
fn press(decision: &str, link: &str) {
    block_on(async {
        let browser = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a browser");
        let page = browser.get(link).send().await.expect("the page loads").text().await.expect("it is text");
        assert!(page.contains("<form method=\"post\">") && page.contains("instructedAmount"), "{page}");
        assert!(page.contains(&format!("<button name=\"decision\" value=\"{decision}\">")), "{page}");
        let form = browser.post(link).header("content-type", "application/x-www-form-urlencoded");
        let answer = form.body(format!("decision={decision}")).send().await.expect("the form is sent");
        assert!(answer.status().is_success(), "{answer:?}");
    });
}

/// Looks repeatedly until it is so, or panics after the deadline.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    block_on(async {
        let end = SystemClock.monotonic() + DEADLINE;
        while !is_so() {
            assert!(SystemClock.monotonic() < end, "in vain: {what}");
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    });
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future);
}

/// The command. `cargo test` builds the examples beside the folder of the tests.
fn example() -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/agent");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}
