//! One run of the program.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program with its arguments, without the environment of the test.
pub struct Tool(Command);

/// What a run left.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Tool {
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openid-deferred"));
        command.env_clear().args(arguments).stdin(Stdio::null());
        Self(command)
    }

    pub fn store(self, store: &str) -> Self {
        self.env("OPENID_DEFERRED_STORE", store)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    pub fn key_file(mut self, path: &Path) -> Self {
        self.0.arg("--key-file").arg(path);
        self
    }

    /// With this file as standard input.
    pub fn stdin(mut self, path: &Path) -> Self {
        self.0.stdin(std::fs::File::open(path).expect("the file exists"));
        self
    }

    /// Runs it with this standard output.
    pub fn run_into(mut self, stdout: impl Into<Stdio>) -> Run {
        let child = self.0.stdout(stdout).stderr(Stdio::piped()).spawn().expect("the program starts");
        Run::of(child.wait_with_output().expect("the program ends"))
    }

    pub fn run(self) -> Run {
        self.run_into(Stdio::piped())
    }
}

impl Run {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints text");
        let code = output.status.code().expect("the program ends by itself");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The document on standard output, after a success.
    pub fn json(&self) -> Value {
        assert_eq!((self.code, &*self.stderr), (0, ""), "{}", self.stdout);
        self.document()
    }

    /// The document on standard output, whatever the exit code.
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", self.stdout))
    }

    /// The text on standard error, after a failure with this code.
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!((self.code, &*self.stdout), (code, ""), "{}", self.stderr);
        &self.stderr
    }
}
