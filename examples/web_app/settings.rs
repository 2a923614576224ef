//! The settings of the application, and what is made of them.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::{Client, ClientAuthentication, Keyring, SealingKey, SigningAlgorithm, SystemRandom};

/// The environment variable with the client's secret at the OP.
pub const SECRET_VARIABLE: &str = "OPENID_DEFERRED_CLIENT_SECRET";

#[derive(clap::Args)]
pub struct Settings {
    /// The issuer of the OP.
    #[arg(long)]
    issuer: String,
    /// The client identifier at the OP. Its secret comes from OPENID_DEFERRED_CLIENT_SECRET.
    #[arg(long, default_value = "fairwater")]
    client_id: String,
    /// The cancellation endpoint of the OP, which no metadata contains.
    #[arg(long)]
    cancellation_endpoint: Option<String>,
    /// The address at which pages are served.
    #[arg(long)]
    pub listen: SocketAddr,
    /// A folder for the two databases and the key.
    #[arg(long, default_value = ".")]
    pub data: PathBuf,
    /// Let the OP notify the application of decisions at /deferred/ping, in addition to polling.
    #[arg(long)]
    pub pings: bool,
}

impl Settings {
    /// The key that seals cookies and pending sign-ins. In production it is stored with the other secrets. Here it is
    /// generated if it is missing.
    pub fn keyring(&self) -> anyhow::Result<Keyring> {
        let path = self.data.join("sealing.key");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = SealingKey::generate(&SystemRandom)?.to_base64();
                let mut options = OpenOptions::new();
                options.write(true).create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let mut file = options.open(&path).with_context(|| format!("cannot make {}", path.display()))?;
                file.write_all(key.expose().as_bytes())?;
                file.sync_all()?;
                key.expose().to_owned()
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Keyring::new(SealingKey::from_base64(&text).with_context(|| format!("in {}", path.display()))?))
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        let mut builder = Client::builder(&self.issuer, &self.client_id)
            .redirect_uri(format!("http://{}/callback", self.listen))
            .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
            .request_timeout(Duration::from_secs(10))
            // The demonstration's OP uses plain HTTP on this machine. Omit this everywhere else.
            .allow_insecure_loopback();
        if let Ok(secret) = std::env::var(SECRET_VARIABLE) {
            builder = builder.authentication(ClientAuthentication::client_secret_basic(secret));
        }
        if let Some(endpoint) = &self.cancellation_endpoint {
            builder = builder.cancellation_endpoint(endpoint);
        }
        Ok(builder.build()?)
    }
}
