//! `key generate`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use openid_deferred::{SealingKey, SystemRandom};
use serde_json::json;

use crate::Health;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Args)]
pub(crate) struct Generate {
    /// Write the key to a new file that only this user can read, and print its identifier. Without this option the key
    /// itself is printed: send it straight to where secrets are kept.
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
}

impl Generate {
    pub(crate) fn run(self, output: &mut Output) -> Result<Health, Failure> {
        let key = SealingKey::generate(&SystemRandom).map_err(|error| Failure::library("cannot make a key", &error))?;
        let (key_id, secret) = (key.key_id(), key.to_base64());
        match self.output {
            Some(path) => {
                write(&path, secret.expose()).map_err(|error| {
                    Failure::new(format!("cannot write {}", path.display()))
                        .because(&error)
                        .advise("name a file that does not exist, in a folder that exists")
                })?;
                let text = || format!("the key {key_id} is in {}", path.display());
                output.print(&json!({ "key_id": key_id, "path": path }), text)?;
            }
            None => {
                output.print(&json!({ "key_id": key_id, "key": secret.expose() }), || secret.expose().to_owned())?
            }
        }
        Ok(Health::Well)
    }
}

fn write(path: &Path, key: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{key}")?;
    file.sync_all()
}
