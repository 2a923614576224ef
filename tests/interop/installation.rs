//! The programs of the OPs, which `scripts/interop` installs.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Controls tests that cannot run: `required` makes them fail.
const VARIABLE: &str = "OPENID_DEFERRED_INTEROP";

/// The folder of an installed OP. If it cannot be installed, prints the reason and returns `None`.
pub(crate) fn installed(op: &'static str) -> Option<PathBuf> {
    static DONE: Mutex<BTreeMap<&str, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());
    let result = DONE.lock().expect("no test panics here").entry(op).or_insert_with(|| install(op)).clone();
    match result {
        Ok(folder) => Some(folder),
        Err(problem) if env::var(VARIABLE).is_ok_and(|value| value == "required") => panic!("{problem}"),
        Err(problem) => {
            println!("not run: {problem}");
            None
        }
    }
}

/// Runs the script, which does nothing if the OP is already installed.
fn install(op: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/interop");
    let output = Command::new("bash").arg(script).arg(op).env("CARGO_TARGET_DIR", target).output();
    let output = output.map_err(|error| format!("bash, which installs {op}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{op}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}
