//! The keyring. Keys come from files or environment variables, never from arguments.

use std::path::PathBuf;

use clap::Args;
use openid_deferred::{Error, Keyring, SealingKey};

use crate::failure::Failure;

/// The variable that the guide uses.
const VARIABLE: &str = "SEALING_KEY";

#[derive(Args)]
pub(crate) struct Keys {
    /// A file with a sealing key in base64. Repeat the option for each key; the first one seals, and the others open.
    #[arg(long = "key-file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The name of an environment variable with a sealing key in base64. Repeat the option for each key; the first one
    /// seals unless there is a --key-file, and the others open. Without either option it is SEALING_KEY.
    #[arg(long = "key-env", value_name = "VARIABLE")]
    variables: Vec<String>,
}

/// Keys that a command can do without.
#[derive(Args)]
pub(crate) struct OptionalKeys {
    #[command(flatten)]
    keys: Keys,
}

impl Keys {
    pub(crate) fn keyring(&self) -> Result<Keyring, Failure> {
        let standard = self.files.is_empty() && self.variables.is_empty();
        let variables = self.variables.iter().map(String::as_str).chain(standard.then_some(VARIABLE));
        let of_files = self.files.iter().map(SealingKey::from_file);
        let mut keys = of_files.chain(variables.map(SealingKey::from_env));
        let primary =
            keys.next().unwrap_or_else(|| SealingKey::from_env(VARIABLE)).map_err(|error| unusable(&error))?;
        keys.try_fold(Keyring::new(primary), |keyring, key| {
            Ok(keyring.also_opens(key.map_err(|error| unusable(&error))?))
        })
    }

    /// Returns the keyring if an option names a key, or the standard variable is set.
    pub(crate) fn given(&self) -> Result<Option<Keyring>, Failure> {
        let is_named = !self.files.is_empty() || !self.variables.is_empty() || std::env::var_os(VARIABLE).is_some();
        is_named.then(|| self.keyring()).transpose()
    }
}

/// Says that sign-ins were not compared with keys.
pub(crate) fn warn_of_no_keys() {
    eprintln!(
        "note: no keys were given, so keys were not compared: a sign-in whose key the replicas lack shows only as overdue; \
         give the keys of the replicas with --key-file or --key-env"
    );
}

impl OptionalKeys {
    pub(crate) fn keyring(&self) -> Result<Option<Keyring>, Failure> {
        self.keys.given()
    }
}

fn unusable(error: &Error) -> Failure {
    Failure::new("cannot read a sealing key")
        .because(error)
        .advise("name a file with --key-file or a variable with --key-env, with the key that the replicas have")
}
