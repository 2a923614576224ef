//! The settings of a worker, and what is made of them.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use openid_deferred::ciba::DeliveryMode;
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::store::{PostgresStore, SqliteStore, Store};
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, Dialect, Keyring, SealingKey, SigningAlgorithm, SystemRandom,
};

/// The environment variable with the key that seals stored values.
const KEY_VARIABLE: &str = "OPENID_DEFERRED_KEY";
/// The environment variable with the client's secret at the OP.
const SECRET_VARIABLE: &str = "OPENID_DEFERRED_CLIENT_SECRET";

#[derive(clap::Args)]
pub struct Settings {
    /// The issuer of the OP.
    #[arg(long)]
    issuer: String,
    /// The client identifier at the OP. Its secret comes from OPENID_DEFERRED_CLIENT_SECRET.
    #[arg(long, default_value = "worker")]
    client_id: String,
    /// Another client at the same OP, with the same secret, which speaks the IETF dialect. Its users begin at
    /// /ietf/start, and it requests tokens of its own.
    #[arg(long)]
    ietf_client_id: Option<String>,
    /// A third client at the same OP, with the same secret, which has users asked on their phones (CIBA, ping mode). A
    /// request begins with a POST to /ciba/ask.
    #[arg(long)]
    ciba_client_id: Option<String>,
    /// The algorithm of ID Tokens that was registered at the OP.
    #[arg(long, default_value = "RS256")]
    id_token_alg: String,
    /// The store: a file for SQLite, or postgres://….
    #[arg(long, default_value = "pending.db")]
    store: String,
    /// The schema in PostgreSQL.
    #[arg(long, default_value = "openid_deferred")]
    schema: String,
    /// A file with the sealing key in base64, if it is not in OPENID_DEFERRED_KEY. If it is missing, it is generated,
    /// which is only suitable for a demonstration.
    #[arg(long, default_value = "pending.key")]
    key_file: PathBuf,
    /// The file that outcomes are appended to, one line of JSON each.
    #[arg(long, default_value = "outcomes.jsonl")]
    pub outcomes: PathBuf,
    /// The address for users and pings. Without it the worker only polls and delivers.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Leave polling and the delivery of outcomes to other workers.
    #[arg(long, requires = "listen")]
    pub serve_only: bool,
    /// The longest time of one request to the OP, in seconds.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    /// A PEM file with the only certificate authorities that are trusted for the OP's certificate. Without it, those of
    /// this machine are trusted.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// The time after which other workers deliver the outcomes of a worker that died, in seconds.
    #[arg(long, default_value_t = 300)]
    pub delivery_lease: u64,
}

/// The clients of a worker.
pub struct Clients {
    pub main: Client,
    pub ietf: Option<Client>,
    pub ciba: Option<Client>,
}

impl Clients {
    pub fn all(&self) -> impl Iterator<Item = &Client> {
        std::iter::once(&self.main).chain(&self.ietf).chain(&self.ciba)
    }
}

impl Settings {
    /// The sealing key. All replicas need the same key, so in production it is stored with the other secrets.
    pub fn keyring(&self) -> anyhow::Result<Keyring> {
        if std::env::var_os(KEY_VARIABLE).is_some() {
            return Ok(Keyring::new(SealingKey::from_env(KEY_VARIABLE)?));
        }
        let file = self.key_file.display();
        let text = match fs::read_to_string(&self.key_file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => self.new_key_file()?,
            Err(error) => return Err(error).with_context(|| format!("cannot read {file}")),
        };
        Ok(Keyring::new(SealingKey::from_base64(&text).with_context(|| format!("in {file}"))?))
    }

    fn new_key_file(&self) -> anyhow::Result<String> {
        let key = SealingKey::generate(&SystemRandom)?.to_base64();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file =
            options.open(&self.key_file).with_context(|| format!("cannot make {}", self.key_file.display()))?;
        file.write_all(key.expose().as_bytes())?;
        file.sync_all()?;
        Ok(key.expose().to_owned())
    }

    pub async fn open_store(&self) -> anyhow::Result<Arc<dyn Store>> {
        if self.store.starts_with("postgres://") || self.store.starts_with("postgresql://") {
            let store = PostgresStore::builder(&self.store).schema(&self.schema).connect().await;
            let store = store.context("cannot use the database")?;
            // Replicas may do this concurrently. If workers may not create tables, run `PostgresStore::SCHEMA`
            // separately.
            store.migrate().await.context("cannot make the tables")?;
            return Ok(Arc::new(store));
        }
        let store = SqliteStore::open(&self.store).await;
        Ok(Arc::new(store.with_context(|| format!("cannot use {}", self.store))?))
    }

    pub fn clients(&self) -> anyhow::Result<Clients> {
        let ietf = self.ietf_client_id.as_ref().map(|client_id| {
            let client = self.client(client_id)?.dialect(Dialect::Ietf);
            Ok::<_, anyhow::Error>(client.build()?)
        });
        let ciba = self.ciba_client_id.as_ref().map(|client_id| {
            let client = self.client(client_id)?.backchannel_token_delivery_mode(DeliveryMode::Ping);
            Ok::<_, anyhow::Error>(client.build()?)
        });
        Ok(Clients { main: self.client(&self.client_id)?.build()?, ietf: ietf.transpose()?, ciba: ciba.transpose()? })
    }

    fn client(&self, client_id: &str) -> anyhow::Result<ClientBuilder> {
        let Some(algorithm) = SigningAlgorithm::from_name(&self.id_token_alg) else {
            bail!("{} is no algorithm for ID Tokens", self.id_token_alg);
        };
        let timeout = Duration::from_secs(self.timeout);
        let mut builder = Client::builder(&self.issuer, client_id)
            .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(algorithm))
            .request_timeout(timeout)
            .poll_timeout(timeout)
            // The demonstration's OP uses plain HTTP on this machine. Omit this everywhere else.
            .allow_insecure_loopback();
        if let Ok(secret) = std::env::var(SECRET_VARIABLE) {
            builder = builder.authentication(ClientAuthentication::client_secret_basic(secret));
        }
        if let Some(file) = &self.ca_file {
            let pem = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem);
            let authorities = authorities.with_context(|| format!("no certificates in {}", file.display()))?;
            builder = builder.configure_http(move |http| http.tls_certs_only(authorities.clone()));
        }
        // A service that only polls sends no users to the OP, but each client has the redirect URI that is registered.
        let host = self.listen.map_or("127.0.0.1".to_owned(), |address| address.to_string());
        Ok(builder.redirect_uri(format!("http://{host}/callback")))
    }
}
