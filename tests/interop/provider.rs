//! `oidc-provider` as a process: installed once, started for each test.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::certificates::Identity;

/// Says what to do about tests that cannot run: `required` makes them fail.
const VARIABLE: &str = "OPENID_DEFERRED_INTEROP";
const OLDEST_NODE: u32 = 20;
/// What is copied to where npm installs the rest.
const FILES: [&str; 4] = ["package.json", "package-lock.json", ".npmrc", "provider.mjs"];

/// A provider that runs until this is dropped.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) authority: Identity,
    /// The provider ends with it.
    input: Option<ChildStdin>,
    /// What it has to say about requests that it refuses.
    log: Option<JoinHandle<String>>,
    process: Child,
}

impl Provider {
    /// Starts a provider with these settings, see `provider.mjs`; `None` where that cannot be done here.
    pub(crate) fn start(settings: Value) -> Option<Self> {
        Self::start_with(Identity::authority(), settings)
    }

    /// The same with an authority that has signed certificates of clients.
    pub(crate) fn start_with(authority: Identity, mut settings: Value) -> Option<Self> {
        let folder = installed()?;
        let host = Identity::host("localhost", Some(&authority));
        settings["tls"] = json!({
            "authority": authority.certificate_pem(),
            "certificate": host.certificate_pem(),
            "key": host.key_pem(),
        });
        let mut process = Command::new("node")
            .arg("provider.mjs")
            .current_dir(folder)
            .env("NODE_NO_WARNINGS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node starts");
        let mut input = process.stdin.take().expect("its input is a pipe");
        writeln!(input, "{settings}").expect("it reads its settings");
        let mut log = process.stderr.take().expect("its log is a pipe");
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).map_or_else(|error| error.to_string(), |_| text)
        });
        let output = process.stdout.take().expect("its output is a pipe");
        let mut provider = Self { issuer: String::new(), authority, input: Some(input), log: Some(log), process };
        let said = BufReader::new(output).lines().map_while(Result::ok).next();
        let said: Value = serde_json::from_str(&said.expect("the provider says where it is")).expect("as JSON");
        provider.issuer = said["issuer"].as_str().expect("the issuer is text").to_owned();
        Some(provider)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.input.take());
        let ended = self.process.wait();
        let log = self.log.take().map(JoinHandle::join);
        if std::thread::panicking() {
            println!("the provider has ended ({ended:?}) and said: {}", log.and_then(Result::ok).unwrap_or_default());
        }
    }
}

/// The folder in which the provider is installed.
fn installed() -> Option<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOLDER.get_or_init(install) {
        Ok(folder) => Some(folder),
        Err(problem) if env::var(VARIABLE).is_ok_and(|value| value == "required") => panic!("{problem}"),
        Err(problem) => {
            println!("not run: {problem}");
            None
        }
    }
}

/// Installs what the lockfile names, unless that has been done before.
fn install() -> Result<PathBuf, String> {
    check_node()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    // The folder for temporary files lies in the target folder.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    let stamp = folder.join("installed");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let lockfile = fs::read(source.join("package-lock.json")).expect("the lockfile is there");
    for file in FILES {
        fs::copy(source.join(file), folder.join(file)).map_err(|error| format!("{file}: {error}"))?;
    }
    if fs::read(&stamp).is_ok_and(|installed| installed == lockfile) {
        return Ok(folder);
    }
    let npm = Command::new("npm").args(["ci", "--omit=dev", "--prefer-offline"]).current_dir(&folder).output();
    let npm = npm.map_err(|error| format!("npm: {error}; on Debian: apt-get install npm"))?;
    if !npm.status.success() {
        return Err(format!("npm ci failed: {}", String::from_utf8_lossy(&npm.stderr)));
    }
    fs::write(&stamp, lockfile).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(folder)
}

fn check_node() -> Result<(), String> {
    let advice = format!("these tests need Node.js {OLDEST_NODE} or newer with npm: https://nodejs.org");
    let version = Command::new("node").arg("--version").output().map_err(|error| format!("node: {error}; {advice}"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST_NODE => Ok(()),
        _ => Err(format!("node {version} is too old; {advice}")),
    }
}
