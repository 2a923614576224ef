//! The example's real programs: the OP with its pages, and the application, which can be killed.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use openid_deferred::{Clock as _, SystemClock};
use tempfile::TempDir;

/// The maximum wait; everything here takes a few seconds at most unless it hangs.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);
const MOMENT: std::time::Duration = std::time::Duration::from_millis(50);

/// How the application learns of decisions.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    /// It polls every second.
    Polls,
    /// The OP pings, and the application polls by itself only every two minutes: too late for any test.
    Pings,
    /// It polls every second. The OP speaks the IETF draft, and requires the user once more.
    Ietf,
}

/// An OP and an application, on loopback ports of their own.
pub struct Services {
    op: Child,
    said_by_op: Lines<BufReader<ChildStdout>>,
    app: Child,
    arguments: Vec<String>,
    pub app_url: String,
    pub op_url: String,
    _data: TempDir,
}

impl Services {
    pub async fn start(mode: Mode) -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = address.expect("a port is free");
        let app_url = format!("http://{address}");
        let mut command = example();
        command.args(["op", "--app", &app_url]);
        match mode {
            Mode::Polls => command.args(["--interval", "1"]),
            Mode::Ietf => command.args(["--ietf", "--interval", "1"]),
            Mode::Pings => command.args(["--pings", "--interval", "120"]),
        };
        let mut op = command.stdout(Stdio::piped()).spawn().expect("the OP starts");
        let mut said_by_op = BufReader::new(op.stdout.take().expect("it is a pipe")).lines();
        let mut said = |name: &str| {
            let line = said_by_op.next().and_then(Result::ok).expect("the OP says where it is");
            line.strip_prefix(name).expect("in this order").trim().to_owned()
        };
        let (issuer, cancellation, op_url) = (said("issuer"), said("cancellation"), said("pages"));

        let data = tempfile::tempdir().expect("there is room for a folder");
        let mut arguments = vec!["run".to_owned(), "--listen".to_owned(), address.to_string()];
        arguments.extend(["--issuer".to_owned(), issuer, "--cancellation-endpoint".to_owned(), cancellation]);
        arguments.extend(["--data".to_owned(), data.path().display().to_string()]);
        arguments.extend((mode == Mode::Pings).then(|| "--pings".to_owned()));
        let app = application(&arguments);
        let services = Self { op, said_by_op, app, arguments, app_url, op_url, _data: data };
        services.until_it_serves().await;
        services
    }

    /// SIGKILL: the application has no chance to save anything.
    pub fn kill_application(&mut self) {
        self.app.kill().expect("it was running");
        self.app.wait().expect("it was killed");
    }

    /// Starts it again on the same files.
    pub async fn restart_application(&mut self) {
        self.app = application(&self.arguments);
        self.until_it_serves().await;
    }

    /// Ends the OP, which then reports whether any request has broken a rule.
    pub fn assert_clean(&mut self) {
        let status = Command::new("kill").args(["-TERM", &self.op.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "the OP was running");
        let noted: Vec<_> = self.said_by_op.by_ref().map_while(Result::ok).collect();
        assert!(noted.is_empty(), "{noted:#?}");
    }

    async fn until_it_serves(&self) {
        let client = http_client();
        eventually("the application serves its start page", async || {
            client.get(&self.app_url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in [&mut self.app, &mut self.op] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Looks repeatedly until there is a result, or panics after the deadline.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let end = SystemClock.monotonic() + DEADLINE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(SystemClock.monotonic() < end, "in vain: {what}");
        SystemClock.sleep(MOMENT).await;
    }
}

/// An HTTP client that is not a browser.
pub fn http_client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE);
    builder.build().expect("there is a client")
}

fn application(arguments: &[String]) -> Child {
    let mut command = example();
    command.args(arguments).env("OPENID_DEFERRED_CLIENT_SECRET", "a secret of the demo application");
    command.spawn().expect("the application starts")
}

/// The command. `cargo test` builds the examples beside the folder of the tests.
fn example() -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/web_app");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    let mut command = Command::new(path);
    // Its output is for people who watch the demonstration.
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}
