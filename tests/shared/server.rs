//! A PostgreSQL server that a test controls.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A server for this test only, under `scripts/postgres control`. It is removed however the test ends, because its
/// standard input ends too.
pub struct Server {
    pub url: String,
    control: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Server {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres");
        let mut control = Command::new(script)
            .arg("control")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script can be run");
        let orders = control.stdin.take();
        let mut answers = BufReader::new(control.stdout.take().expect("it is piped")).lines();
        let url = answers.next().expect("the server starts").expect("it is text");
        Self { url, control, orders, answers }
    }

    /// Returns once the order has been carried out.
    pub fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("it is there until the end");
        writeln!(orders, "{order}").expect("the server reads it");
        let answer = self.answers.next().expect("it is obeyed").expect("it is text");
        assert_eq!(answer, "done", "{order}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.control.wait();
    }
}
