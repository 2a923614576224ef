//! The programs of OPs, which end with the tests.
#![expect(clippy::disallowed_methods, reason = "processes start in real time")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::browser::http;

/// The maximum start time of an OP on a busy machine.
const START: Duration = Duration::from_secs(240);

/// A program that ends when its standard input is closed: when this is dropped, or when the tests end.
pub(crate) struct Process {
    name: &'static str,
    input: Option<ChildStdin>,
    output: Option<BufReader<std::process::ChildStdout>>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program that reads its settings as a line of JSON, prints its address in another line, and ends with
    /// its input.
    pub(crate) fn start(name: &'static str, command: &mut Command, settings: &Value) -> (Self, Value) {
        let mut process = Self::spawn(name, command.stdout(Stdio::piped()));
        process.output = process.child.stdout.take().map(BufReader::new);
        let said = process.ask(settings);
        (process, said)
    }

    /// Starts a program without that protocol.
    pub(crate) fn guarded(name: &'static str, program: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("bash");
        command.arg(source("guard.sh")).arg(program);
        configure(&mut command);
        Self::spawn(name, &mut command)
    }

    /// Starts the program. Output that is not part of the protocol goes to a file.
    fn spawn(name: &'static str, command: &mut Command) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = folder("logs").join(format!("{name}-{}-{number}.log", std::process::id()));
        let file = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        if command.get_program() == "bash" {
            command.stdout(file.try_clone().expect("a file has two handles"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name, input: child.stdin.take(), output: None, log, child }
    }

    /// Sends a line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &Value) -> Value {
        let sent = self.input.as_mut().is_some_and(|input| writeln!(input, "{line}").is_ok());
        let mut answer = String::new();
        let read = self.output.as_mut().map(|output| output.read_line(&mut answer));
        if !sent || !matches!(read, Some(Ok(1..))) {
            panic!("{} has ended: {}", self.name, self.log());
        }
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{} said {answer}: {error}", self.name))
    }

    /// Waits until a request to this URL succeeds.
    pub(crate) async fn wait_for(&mut self, url: &str, authority: &str) {
        let http = http(authority);
        let deadline = Instant::now() + START;
        loop {
            let last = match http.get(url).send().await {
                Ok(response) if response.status().is_success() => return,
                Ok(response) => response.status().to_string(),
                Err(error) => format!("{error:?}"),
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} has ended with {status}: {}", self.name, self.log());
            }
            assert!(Instant::now() < deadline, "{} is not ready, {url}: {last}: {}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The end of its output.
    pub(crate) fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(20_000)..]).into_owned();
        format!("the end of {}: {text}", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let ended = self.child.wait();
        if std::thread::panicking() {
            println!("{} has ended ({ended:?}); {}", self.name, self.log());
        }
    }
}

/// A file of this test.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// A folder for files that an OP of this run needs.
pub(crate) fn folder(name: &str) -> PathBuf {
    // The folder for temporary files is in the target folder.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop").join(name);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// A file for an OP of this run, in a folder of its own.
pub(crate) fn file(folder_name: &str, name: &str, content: &str) -> PathBuf {
    let path = folder(&format!("{folder_name}-{}", std::process::id())).join(name);
    fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// A free port, below those that the system assigns to connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..10_000)
        .find_map(|_| {
            let number = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = u16::try_from(20_000 + number % 12_000).ok()?;
            TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
        })
        .expect("a port is free")
}

#[test]
fn a_guarded_program_ends_with_all_its_child_processes() {
    let script = file("guard", "program.sh", "sleep 1000 & echo $$ $! >&2; wait");
    let process = Process::guarded("guard", Path::new("bash"), |command| {
        command.arg(&script);
    });
    let deadline = Instant::now() + START;
    let started = loop {
        let log = fs::read_to_string(&process.log).unwrap();
        if log.ends_with('\n') {
            break log.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        }
        assert!(Instant::now() < deadline, "the program has not started");
        std::thread::yield_now();
    };
    let alive = || {
        let status = Command::new("kill").arg("-0").args(&started).stderr(Stdio::null()).status();
        status.unwrap().success()
    };
    assert!(started.len() == 2 && alive());
    drop(process);
    while alive() {
        assert!(Instant::now() < deadline, "{started:?} are still there");
        std::thread::yield_now();
    }
}
