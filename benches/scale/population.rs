//! Stores with many pending sign-ins. Each user signed in, and was tracked, through the public interface.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use openid_deferred::store::{MemoryStore, PostgresStore, SqliteStore, Store};
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, Clock as _, Keyring, PendingAuthentication, Poller, SealingKey,
    SignIn, SystemClock,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::Failed;
use crate::clock::{BenchClock, PREPARED, SignInClock, WithoutJitter};
use crate::op::{Op, signed_in};

/// A store of pending sign-ins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoreKind {
    Memory,
    Sqlite,
    Postgres,
}

/// A number of sign-ins, and the interval at which each is polled.
#[derive(Debug, Clone)]
pub(crate) struct Population {
    pub(crate) store: StoreKind,
    pub(crate) pending: usize,
    pub(crate) interval: Duration,
    /// The number of clients of the OP that the pending sign-ins belong to.
    pub(crate) clients: usize,
    /// The address of the OP. It is sealed into every sign-in.
    pub(crate) address: String,
    /// The schema in the database.
    pub(crate) schema: String,
    /// The folder of prepared files.
    pub(crate) data: PathBuf,
}

/// The number of tasks that sign users in, one after the other, so that they share commits. Each has a clock of its own.
const TASKS: usize = 256;

impl Population {
    /// A file with all sign-ins. It is made once; runs use copies.
    pub(crate) fn prepared_file(&self) -> PathBuf {
        let name = format!("{}-of-{}-at-{}s.sqlite", self.pending, self.clients, self.interval.as_secs());
        self.data.join(name)
    }

    /// Fills a new store, and waits until its rows have reached their final place.
    pub(crate) async fn prepare(&self) -> Result<(), Failed> {
        let clock = Arc::new(BenchClock::default());
        match self.store {
            StoreKind::Memory => {}
            StoreKind::Sqlite => {
                fs::create_dir_all(&self.data)?;
                let unfinished = self.data.join("unfinished.sqlite");
                remove(&unfinished)?;
                let builder = SqliteStore::builder(&unfinished).clock(clock.clone());
                self.fill(Arc::new(builder.open().await?), &clock).await?;
                // Writes the write-ahead log into the file, because the file is copied without it.
                let connection = rusqlite::Connection::open(&unfinished)?;
                connection.busy_timeout(Duration::from_secs(60))?;
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                drop(connection);
                fs::rename(&unfinished, self.prepared_file())?;
            }
            StoreKind::Postgres => {
                let store = PostgresStore::builder(&database_url()?).schema(&self.schema).connect().await?;
                store.migrate().await?;
                let stands = BenchClock::wall(PREPARED).duration_since(UNIX_EPOCH)?.as_secs();
                self.set_database_clock(&format!("pg_catalog.to_timestamp({stands})")).await?;
                self.fill(Arc::new(store), &clock).await?;
                // The server would do this by itself sooner or later.
                for table in ["process", "sealed"] {
                    execute(&format!("VACUUM (ANALYZE) \"{}\".{table}", self.schema)).await?;
                }
            }
        }
        Ok(())
    }

    /// The store with its sign-ins, for a poller on this clock.
    pub(crate) async fn open(&self, clock: &Arc<BenchClock>, file: &Path) -> Result<Arc<dyn Store>, Failed> {
        Ok(match self.store {
            StoreKind::Memory => Arc::new(MemoryStore::with_clock(clock.clone())),
            StoreKind::Sqlite => Arc::new(SqliteStore::builder(file).clock(clock.clone()).open().await?),
            StoreKind::Postgres => {
                Arc::new(PostgresStore::builder(&database_url()?).schema(&self.schema).connect().await?)
            }
        })
    }

    /// Starts the database's clock at the time that `clock` shows.
    pub(crate) async fn release_database_clock(&self, clock: &BenchClock) -> Result<(), Failed> {
        if self.store == StoreKind::Postgres {
            let behind = SystemClock.now().duration_since(clock.now())?.as_micros();
            let expression = format!("pg_catalog.clock_timestamp() - interval ''{behind} microseconds''");
            self.set_database_clock(&expression).await?;
        }
        Ok(())
    }

    /// The store takes the time from a function in the database that may be replaced.
    async fn set_database_clock(&self, expression: &str) -> Result<(), Failed> {
        let statement = format!(
            "CREATE OR REPLACE FUNCTION \"{}\".clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT {expression}'",
            self.schema
        );
        execute(&statement).await
    }

    /// Removes what a run has used.
    pub(crate) async fn clear(&self) -> Result<(), Failed> {
        match self.store {
            StoreKind::Postgres => execute(&format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.schema)).await,
            StoreKind::Memory | StoreKind::Sqlite => Ok(()),
        }
    }

    /// Signs all users in and tracks them.
    pub(crate) async fn fill(&self, store: Arc<dyn Store>, clock: &Arc<BenchClock>) -> Result<(), Failed> {
        let op = Arc::new(Op::new(&self.address, clock.clone(), 0, self.interval));
        let clients = self.clients(clock, Some(op.clone()))?;
        let builder = Poller::builder(store, keyring()?).clock(clock.clone());
        let poller = clients.iter().fold(builder, |builder, client| builder.client(client.clone())).connect().await?;
        let bar = ProgressBar::new(self.pending as u64);
        let style = "{msg:10} {wide_bar} {human_pos} of {human_len}, {elapsed}, {eta} to go";
        bar.set_style(ProgressStyle::with_template(style)?);
        bar.set_message("signing in");
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (first, poller, bar, population) = (clients[0].clone(), poller.clone(), bar.clone(), self.clone());
            tasks.spawn(async move {
                let (clock, mut clients) = (Arc::new(SignInClock::default()), BTreeMap::new());
                for number in (task..population.pending).step_by(TASKS) {
                    clock.set(signed_in(number, population.pending, population.interval));
                    let client = match clients.entry(number % population.clients) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(vacant) => {
                            let builder = population.builder(*vacant.key()).clock(clock.clone());
                            vacant.insert(builder.share_connections(&first).build()?)
                        }
                    };
                    poller.track(&sign_in(client, number).await?).await?;
                    bar.inc(1);
                }
                Ok::<_, Failed>(())
            });
        }
        while let Some(joined) = tasks.join_next().await {
            joined??;
        }
        bar.finish_and_clear();
        poller.shutdown(Duration::ZERO).await;
        Ok(())
    }

    /// The clients. They reach the OP over HTTP unless they get one here, and share connections.
    pub(crate) fn clients(&self, clock: &Arc<BenchClock>, op: Option<Arc<Op>>) -> Result<Vec<Client>, Failed> {
        let mut clients: Vec<Client> = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            let builder = self.builder(number).clock(clock.clone());
            let builder = match (clients.first(), &op) {
                (Some(first), _) => builder.share_connections(first),
                (None, Some(op)) => builder.http_client(op.clone()),
                (None, None) => builder.configure_http(|http| http.no_proxy()),
            };
            clients.push(builder.build()?);
        }
        Ok(clients)
    }

    /// The client with this number, without a clock and connections.
    fn builder(&self, number: usize) -> ClientBuilder {
        Client::builder(format!("http://{}", self.address), format!("bench-{number}"))
            .authentication(ClientAuthentication::client_secret_basic("a secret of some length"))
            .redirect_uri("https://rp.example/callback")
            .allow_insecure_loopback()
            .random(Arc::new(WithoutJitter))
    }
}

/// Sends one user to the OP and back.
async fn sign_in(client: &Client, number: usize) -> Result<PendingAuthentication, Failed> {
    let (_, session) = client.authorize().start().await?;
    let query = {
        let mut query = form_urlencoded::Serializer::new(String::new());
        // As long as an identifier that cannot be guessed.
        query.append_pair("deferred_code", &format!("{number:022}")).append_pair("state", session.state().expose());
        query.append_pair("iss", client.issuer()).finish()
    };
    match client.authorization_response(&query, session).await? {
        SignIn::Deferred(pending) => Ok(pending),
        other => Err(format!("not deferred: {other:?}").into()),
    }
}

/// The same key in all runs, because they share files.
pub(crate) fn keyring() -> Result<Keyring, Failed> {
    Ok(Keyring::new(SealingKey::from_bytes(std::array::from_fn(|index| index as u8))?))
}

pub(crate) fn has_database() -> bool {
    database_url().is_ok()
}

pub(crate) fn database_url() -> Result<String, Failed> {
    std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL names no database: scripts/postgres run ...".into())
}

/// A transaction that sees the present state of the database for as long as this value lives, as a backup does.
pub(crate) struct Snapshot {
    _client: tokio_postgres::Client,
    _connection: JoinSet<()>,
}

impl Snapshot {
    pub(crate) async fn take() -> Result<Self, Failed> {
        let (client, connection) = tokio_postgres::connect(&database_url()?, tokio_postgres::NoTls).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_catalog.pg_class").await?;
        Ok(Self { _client: client, _connection: driver })
    }
}

pub(crate) async fn execute(statement: &str) -> Result<(), Failed> {
    let (client, connection) = tokio_postgres::connect(&database_url()?, tokio_postgres::NoTls).await?;
    let execute = async {
        let executed = client.batch_execute(statement).await;
        drop(client);
        executed
    };
    let (executed, connection) = tokio::join!(execute, connection);
    Ok(executed.and(connection)?)
}

/// Makes a copy of a prepared file for a run. The prepared file must be closed.
pub(crate) fn copy(prepared: &Path) -> Result<PathBuf, Failed> {
    let used = prepared.with_file_name("used.sqlite");
    remove(&used)?;
    fs::copy(prepared, &used)?;
    Ok(used)
}

pub(crate) fn remove(file: &Path) -> Result<(), Failed> {
    for path in [file.to_owned(), companion(file, "wal"), companion(file, "shm")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn companion(file: &Path, kind: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!("-{kind}"));
    name.into()
}
