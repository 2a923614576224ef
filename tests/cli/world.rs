//! Stores with a running poller and pending sign-ins.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::{PostgresStore, ProcessId, SqliteStore, Store};
use openid_deferred::testing::{DecisionPolicy, Endpoint, TestClient, TestProvider, TestUser};
use openid_deferred::{Client, ClientAuthentication, Keyring, Poller, SealingKey, SystemRandom};
use tempfile::TempDir;

use crate::tool::{Run, Tool};

/// The reference of users unless a test gives another.
const REFERENCE: &str = "account 4711";
const CALLBACK: &str = "https://rp.test/callback";
const CLIENT_SECRET: &str = "a-secret-that-nobody-may-print";

/// A store that the program can be pointed at.
pub struct Place {
    pub folder: TempDir,
    /// For OPENID_DEFERRED_STORE.
    pub name: String,
    pub schema: String,
    pub store: Arc<dyn Store>,
    key: SealingKey,
}

impl Place {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pending.db");
        let store = Arc::new(SqliteStore::open(&path).await.unwrap());
        Self::new(folder, format!("sqlite:{}", path.display()), String::new(), store)
    }

    pub async fn postgres() -> Self {
        let (url, schema) = (database(), new_schema());
        let store = PostgresStore::builder(&url).schema(&schema).connect().await.unwrap();
        store.migrate().await.unwrap();
        Self::new(tempfile::tempdir().unwrap(), url, schema, Arc::new(store))
    }

    /// One of each kind.
    pub async fn both() -> [Self; 2] {
        [Self::sqlite().await, Self::postgres().await]
    }

    fn new(folder: TempDir, name: String, schema: String, store: Arc<dyn Store>) -> Self {
        let place = Self { folder, name, schema, store, key: SealingKey::generate(&SystemRandom).unwrap() };
        std::fs::write(place.key_file(), place.key.to_base64().expose()).unwrap();
        place
    }

    /// The file with the key that sealed the rows.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("sealing.key")
    }

    pub fn key_id(&self) -> String {
        self.key.key_id()
    }

    /// Another key in a file.
    pub fn other_key(&self) -> (PathBuf, SealingKey) {
        let (path, key) = (self.folder.path().join("other.key"), SealingKey::generate(&SystemRandom).unwrap());
        std::fs::write(&path, key.to_base64().expose()).unwrap();
        (path, key)
    }

    pub fn tool(&self, arguments: &[&str]) -> Tool {
        let tool = Tool::new(arguments).store(&self.name);
        if self.schema.is_empty() { tool } else { tool.args(&["--schema", &self.schema]) }
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        self.tool(arguments).run()
    }
}

pub fn database() -> String {
    let advice = "run scripts/test, or scripts/postgres run cargo test --all-features";
    env::var("DATABASE_URL").unwrap_or_else(|_| panic!("the tests of PostgreSQL need DATABASE_URL: {advice}"))
}

/// The name of a schema that no other test uses.
pub fn new_schema() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("cli {} {}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A poller that runs while the program does, and its OP.
pub struct World {
    pub place: Place,
    pub op: TestProvider,
    pub poller: Poller,
    client: Client,
}

impl World {
    /// The poller has the key of the place and `others`.
    pub async fn new(place: Place, others: Vec<SealingKey>) -> Self {
        let op = TestProvider::builder()
            .in_process()
            .client(TestClient::secret_basic("the-app", CLIENT_SECRET).redirect_uri(CALLBACK))
            .user(TestUser::new("jane"))
            .interval(Duration::from_secs(3600))
            .decisions(DecisionPolicy::scripted())
            .start()
            .unwrap();
        let client = Client::builder(op.issuer(), "the-app")
            .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
            .redirect_uri(CALLBACK)
            .http_client(op.http_client())
            .build()
            .unwrap();
        let keyring = Keyring::new(SealingKey::from_file(place.key_file()).unwrap());
        let keyring = others.into_iter().fold(keyring, Keyring::also_opens);
        let builder = Poller::builder(place.store.clone(), keyring).client(client.clone());
        let poller = builder.start().await.unwrap();
        Self { place, op, poller, client }
    }

    /// Waits until the poller has recorded the name of its client.
    async fn is_named(&self) {
        let operations = self.poller.operations();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while operations.stats().await.unwrap().iter().any(|stats| stats.issuer.is_none()) {
            assert!(tokio::time::Instant::now() < deadline, "the poller does not record the name of its client");
        }
    }

    /// Users who sign in and wait.
    pub async fn users(&self, count: usize) -> Vec<ProcessId> {
        self.users_of(&vec![REFERENCE; count]).await
    }

    /// One user for each of these references.
    pub async fn users_of(&self, references: &[&str]) -> Vec<ProcessId> {
        let mut ids = Vec::new();
        for reference in references {
            let request = self.client.authorize().context("order 4711").reference(*reference);
            let (url, session) = request.start().await.unwrap();
            match self.poller.authorization_response(&self.op.visit(url).query(), session).await.unwrap() {
                AcceptedSignIn::Deferred(id) => ids.push(id),
                other => panic!("{other:?}"),
            }
        }
        self.is_named().await;
        ids
    }

    /// Nothing secret was printed.
    pub fn assert_no_secrets(&self, run: &Run) {
        let key = std::fs::read_to_string(self.place.key_file()).unwrap();
        let mut secrets = [CLIENT_SECRET, key.trim(), "order 4711", REFERENCE].map(str::to_owned).to_vec();
        secrets.extend(password(&self.place.name));
        for exchange in self.op.requests_to(Endpoint::Exchange) {
            secrets.push(exchange.parameter("deferred_code").or(exchange.parameter("code")).unwrap().to_owned());
            secrets.push(exchange.response_json()["deferred_auth_id"].as_str().unwrap().to_owned());
        }
        for secret in secrets {
            assert!(!run.stdout.contains(&secret), "{secret} is in {}", run.stdout);
            assert!(!run.stderr.contains(&secret), "{secret} is in {}", run.stderr);
        }
    }
}

/// The password in the URL of a database.
pub fn password(url: &str) -> Option<String> {
    url::Url::parse(url).ok()?.password().map(str::to_owned)
}
