//! The example `worker` as programs, with a provider and users.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openid_deferred::store::{PostgresStore, SqliteStore, Store};
use openid_deferred::testing::{DecisionPolicy, NoncePolicy, TestClient, TestProcess, TestProvider, TestUser};
use openid_deferred::{Clock as _, SystemClock};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

/// The client that speaks the IETF dialect.
const IETF_CLIENT: &str = "worker-ietf";
/// The client that has users asked.
const CIBA_CLIENT: &str = "worker-ciba";
/// More users than any test has.
const USERS: u32 = 20_000;
const CLIENT_SECRET: &str = "the secret of a worker that dies a lot";

/// The timeout of a request to the OP, in seconds. A dead worker's claims expire after 14 s.
const TIMEOUT: &str = "3";
/// The seconds after which outcomes that a dead worker held are delivered again.
const DELIVERY_LEASE: &str = "3";
pub const MOMENT: Duration = Duration::from_millis(20);
/// The file with the certificate of the provider's authority.
const AUTHORITY: &str = "authority.pem";

/// The store that the workers share.
pub enum StoreOf {
    Sqlite,
    Postgres { url: String, schema: String },
}

impl StoreOf {
    pub fn sqlite() -> Self {
        Self::Sqlite
    }

    /// A schema of its own in the database that `scripts/postgres` has made.
    pub fn postgres() -> Self {
        Self::postgres_at(database_url())
    }

    pub fn postgres_at(url: String) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemClock.now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970").as_micros();
        Self::Postgres { url, schema: format!("kill_{now}_{count}") }
    }
}

/// The parts of the service.
pub struct Setting {
    pub store: StoreOf,
    /// Whether the provider is reached over TLS, and so over HTTP/2. It then requires DPoP nonces, too.
    pub https: bool,
    /// The interval between polls that the provider requires.
    pub interval: Duration,
}

impl Setting {
    /// Plain HTTP, and a second between polls.
    pub fn plain(store: StoreOf) -> Self {
        Self { store, https: false, interval: Duration::from_secs(1) }
    }
}

pub fn database_url() -> String {
    std::env::var("DATABASE_URL").expect(
        "the tests of PostgreSQL need DATABASE_URL: run scripts/test, or scripts/postgres run cargo test --all-features",
    )
}

/// Everything around the workers, and the only replica that takes users and pings.
pub struct Service {
    pub op: TestProvider,
    pub app: SocketAddr,
    folder: TempDir,
    store: StoreOf,
    pub browser: reqwest::Client,
    /// Only one user at a time is at the OP, so that their sign-in can be identified.
    pub user_at_op: Mutex<()>,
    visits: Mutex<BTreeMap<u32, Visit>>,
    front: Mutex<Worker>,
}

/// A user who has visited the provider and come back, or somebody whose order the application took.
#[derive(Clone)]
pub struct Visit {
    /// What the provider has of it. An order may not have arrived there.
    pub process: Option<TestProcess>,
    pub key: String,
    /// The application's response to them. 0 if it died instead.
    pub status: u16,
}

impl Visit {
    /// The identifier that its polls have.
    pub fn identifier(&self) -> Option<String> {
        let process = self.process.as_ref()?;
        process.deferred_auth_id().or(process.deferral_code()).or(process.auth_req_id())
    }

    /// Whether the tokens were issued, even if the answer did not arrive.
    pub fn is_redeemed(&self) -> bool {
        self.process.as_ref().is_some_and(TestProcess::is_redeemed)
    }
}

impl Service {
    pub async fn start(Setting { store, https, interval }: Setting) -> Arc<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let app = free.local_addr().expect("it is bound");
        drop(free);
        let client = |client_id| {
            TestClient::secret_basic(client_id, CLIENT_SECRET)
                .redirect_uri(&format!("http://{app}/callback"))
                .notification_endpoint(&format!("http://{app}/ping"))
                .signing_algorithm("ES256")
        };
        let op = TestProvider::builder().both_dialects().ciba().client(client("worker")).client(client(IETF_CLIENT));
        let op = op.client(client(CIBA_CLIENT).ping_mode());
        let op = (0..USERS)
            .map(|user| format!("user-{user}"))
            .fold(op, |op, user| op.login_hint(&user, TestUser::new(&user)));
        let op = op.interval(interval).decisions(DecisionPolicy::scripted());
        let op = if https { op.https().dpop_nonces(NoncePolicy::Required) } else { op };
        let op = op.start().expect("the provider starts");
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(authority) = op.ca_certificate_pem() {
            std::fs::write(folder.path().join(AUTHORITY), authority).expect("the folder takes it");
        }
        let browser = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let mut front = command(&op, &folder, &store);
        front.args(["--listen", &app.to_string(), "--serve-only"]);
        Arc::new(Self {
            front: Mutex::new(Worker::start(front)),
            op,
            app,
            folder,
            store,
            browser: browser.build().expect("a browser"),
            user_at_op: Mutex::default(),
            visits: Mutex::default(),
        })
    }

    /// Starts another worker that polls and delivers.
    pub fn worker(&self) -> Worker {
        Worker::start(command(&self.op, &self.folder, &self.store))
    }

    /// The replica that takes users.
    pub fn front(&self) -> MutexGuard<'_, Worker> {
        self.front.lock().unwrap()
    }

    /// Opens the store for the test itself.
    pub async fn open_store(&self) -> Arc<dyn Store> {
        match &self.store {
            StoreOf::Sqlite => Arc::new(SqliteStore::open(self.sqlite_file()).await.expect("the file opens")),
            StoreOf::Postgres { url, schema } => {
                let store = PostgresStore::builder(url).schema(schema).connect().await;
                let store = store.expect("the database is there");
                store.migrate().await.expect("the tables can be made");
                Arc::new(store)
            }
        }
    }

    /// Opens a transaction on PostgreSQL that keeps its snapshot until the returned value is dropped, as a backup does.
    /// Until then, no row version that an update replaces can be vacuumed.
    pub async fn hold_snapshot(&self) -> JoinSet<()> {
        let StoreOf::Postgres { url, schema } = &self.store else { panic!("only PostgreSQL keeps old rows") };
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the database is there");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        client
            .batch_execute(&format!("{begin}; SELECT count(*) FROM \"{schema}\".process"))
            .await
            .expect("it can be read");
        tasks.spawn(async move {
            // The transaction ends when its client is dropped.
            let _client = client;
            std::future::pending().await
        });
        tasks
    }

    pub fn sqlite_file(&self) -> PathBuf {
        self.folder.path().join("pending.db")
    }

    /// Every user who has come back so far.
    pub fn visits(&self) -> MutexGuard<'_, BTreeMap<u32, Visit>> {
        self.visits.lock().unwrap()
    }

    /// The lines that the workers have written.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("outcomes.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

fn command(op: &TestProvider, folder: &TempDir, store: &StoreOf) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test has a path");
    path.pop();
    path.pop();
    path.push("examples/worker");
    assert!(path.exists(), "build it with `cargo test --all-features` or `cargo build --examples`: {}", path.display());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let mut command = Command::new(path);
    command
        .args(["run", "--issuer", op.issuer(), "--id-token-alg", "ES256", "--timeout", TIMEOUT])
        .args(["--ietf-client-id", IETF_CLIENT, "--ciba-client-id", CIBA_CLIENT])
        .args(["--delivery-lease", DELIVERY_LEASE, "--outcomes", &file("outcomes.jsonl")])
        .env("OPENID_DEFERRED_CLIENT_SECRET", CLIENT_SECRET)
        .env("OPENID_DEFERRED_KEY", "CVh2hmGkm7dpPYHCxQeQWzB4jLYHG8xQbD3c3bqFUZc=")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    if op.ca_certificate_pem().is_some() {
        command.args(["--ca-file", &file(AUTHORITY)]);
    }
    match store {
        StoreOf::Sqlite => command.args(["--store", &file("pending.db")]),
        StoreOf::Postgres { url, schema } => command.args(["--store", url, "--schema", schema]),
    };
    command
}

/// A worker program. It does not outlive the test.
pub struct Worker {
    command: Command,
    child: Child,
}

impl Worker {
    fn start(mut command: Command) -> Self {
        let child = command.spawn().expect("the worker starts");
        Self { command, child }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        assert_eq!(self.child.try_wait().expect("it can be asked"), None, "a worker ended by itself");
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// Starts it again after a kill.
    pub fn start_again(&mut self) {
        self.child = self.command.spawn().expect("the worker starts");
    }

    /// SIGSTOP: it stops, without noticing, until [`Worker::go_on`].
    pub fn suspend(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
    }

    /// SIGTERM, as a service manager sends it. Returns whether the worker ended with success.
    pub async fn stop(mut self) -> bool {
        self.signal("TERM");
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                return status.success();
            }
            SystemClock.sleep(MOMENT).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
