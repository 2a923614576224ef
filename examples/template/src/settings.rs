//! The settings, all from environment variables. `.env.example` describes them.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::{Context, bail};
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::{Client, ClientAuthentication, ClientBuilder, Keyring, SealingKey, SigningAlgorithm};
use url::Url;

/// Where data is kept.
#[derive(Clone)]
pub enum Place {
    /// Two SQLite files in this folder, for one machine.
    Folder(PathBuf),
    /// A PostgreSQL database, for any number of replicas. The URL may contain a password.
    Postgres(String),
}

pub struct Settings {
    /// The address of this server. A proxy with HTTPS in front forwards to it.
    pub listen: SocketAddr,
    /// The address at which metrics are served, if they are.
    pub metrics_listen: Option<SocketAddr>,
    /// The address of the application in browsers. Plain HTTP is only possible in development, on this machine.
    pub public_url: Url,
    pub place: Place,
    /// The key that seals cookies and pending sign-ins.
    pub keyring: Keyring,
    pub issuer: String,
    pub client_id: String,
    pub authentication: ClientAuthentication,
    /// The algorithm of ID Tokens that is registered at the OP.
    pub id_token_algorithm: SigningAlgorithm,
    /// Whether the OP notifies the application at `/deferred/ping`.
    pub pings: bool,
}

impl Settings {
    pub fn from_env() -> anyhow::Result<Self> {
        let key = required("SEALING_KEY")?;
        let algorithm = variable("OP_ID_TOKEN_ALG")?.unwrap_or("RS256".to_owned());
        Ok(Self {
            listen: parsed("LISTEN")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
            metrics_listen: parsed("METRICS_LISTEN")?,
            public_url: parsed("PUBLIC_URL")?.context("set PUBLIC_URL")?,
            place: place()?,
            keyring: Keyring::new(SealingKey::from_base64(&key).context("in SEALING_KEY")?),
            issuer: required("OP_ISSUER")?,
            client_id: required("OP_CLIENT_ID")?,
            authentication: ClientAuthentication::client_secret_basic(required("OP_CLIENT_SECRET")?),
            id_token_algorithm: SigningAlgorithm::from_name(&algorithm)
                .with_context(|| format!("OP_ID_TOKEN_ALG is {algorithm}, which is no algorithm for ID Tokens"))?,
            pings: parsed("PINGS")?.unwrap_or(false),
        })
    }

    /// The client of the OP. Change its settings to those that you have registered.
    pub fn client(&self) -> ClientBuilder {
        let client = Client::builder(&self.issuer, &self.client_id)
            .authentication(self.authentication.clone())
            .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(self.id_token_algorithm))
            .redirect_uri(format!("{}/callback", self.origin()));
        // In development the OP may be on this machine too, without HTTPS.
        if self.is_insecure() { client.allow_insecure_loopback() } else { client }
    }

    /// The origin of the application, such as `https://rp.example`.
    pub fn origin(&self) -> String {
        self.public_url.origin().ascii_serialization()
    }

    /// Whether the application is in development, and served without HTTPS on this machine. The routes of a sign-in refuse
    /// plain HTTP at any other address.
    pub fn is_insecure(&self) -> bool {
        self.public_url.scheme() == "http"
    }
}

fn place() -> anyhow::Result<Place> {
    match variable("DATABASE_URL")? {
        None => {
            let folder = PathBuf::from(variable("DATA_FOLDER")?.unwrap_or("data".to_owned()));
            // The files have personal data.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
            Ok(Place::Folder(folder))
        }
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Place::Postgres(url)),
        // The text may contain a password.
        Some(_) => bail!("DATABASE_URL must begin with postgres://; without it, SQLite is used in DATA_FOLDER"),
    }
}

/// A variable, or the file that the variable with `_FILE` at its end names: a secret of Docker or Kubernetes.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let file = format!("{name}_FILE");
    match (set(name), set(&file)) {
        (Some(_), Some(_)) => bail!("{name} and {file} are both set; remove one"),
        (None, Some(path)) => {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}, which {file} names"))?;
            Ok(Some(text.trim_end().to_owned()))
        }
        (value, None) => Ok(value),
    }
}

fn required(name: &str) -> anyhow::Result<String> {
    variable(name)?.with_context(|| format!("set {name} or {name}_FILE"))
}

fn parsed<T: std::str::FromStr>(name: &str) -> anyhow::Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    variable(name)?.map(|value| value.parse()).transpose().with_context(|| format!("in {name}"))
}
