//! Other programs: this test binary again, running the same test with a role in its environment.

use std::env;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const FILE: &str = "OPENID_DEFERRED_TEST_FILE";

/// The file to work on, if [`Other::start`] started this program.
pub(crate) fn role() -> Option<PathBuf> {
    env::var_os(FILE).map(PathBuf::from)
}

/// Sends a line to the program that started this one.
pub(crate) fn say(line: &str) {
    println!("said {line}");
}

/// Another program at work.
pub(crate) struct Other {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Other {
    /// Starts this binary with only `test`, which sees its [`role`].
    pub(crate) fn start(test: &str, file: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--nocapture", "--exact", test])
            .env(FILE, file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, output }
    }

    /// The next line that it sends, or `None` once it has ended.
    pub(crate) fn hears(&mut self) -> Option<String> {
        let mut lines = self.output.by_ref().map(Result::unwrap);
        lines.find_map(|line| line.split_once("said ").map(|(_, said)| said.to_owned()))
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
