//! The storage of the rows: a file or a database that the test reads byte by byte.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use openid_deferred::Clock as _;
use openid_deferred::store::{PostgresStore, SqliteStore, Store};
use openid_deferred::testing::TestClock;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::show::Log;
use crate::timed::Timed;

/// The storage for the rows of one world.
pub enum Place {
    File { folder: TempDir },
    Database(Arc<Database>),
}

impl Place {
    pub fn file() -> Self {
        Self::File { folder: tempfile::tempdir().unwrap() }
    }

    pub async fn store(&self, clock: &TestClock, log: &Log) -> Arc<dyn Store> {
        match self {
            Self::File { .. } => {
                let builder = SqliteStore::builder(self.path()).clock(Arc::new(clock.clone()));
                let builder = builder.busy_timeout(Duration::from_millis(10));
                log.show(&builder);
                let store = builder.open().await.unwrap();
                log.show(&store);
                Timed::around(Arc::new(store), clock, Box::new(|| Box::pin(std::future::ready(()))))
            }
            Self::Database(database) => {
                let builder = PostgresStore::builder(&database.url).schema(&database.schema);
                let builder = builder.check_interval(Duration::from_secs(3600)).pool_size(2);
                log.show(&builder);
                let store = builder.connect().await.unwrap();
                log.show(&store);
                let (database, of_test) = (database.clone(), clock.clone());
                let set_clock = move || -> futures_core::future::BoxFuture<'static, ()> {
                    let (database, now) = (database.clone(), of_test.now());
                    Box::pin(async move {
                        let microseconds = now.duration_since(UNIX_EPOCH).unwrap().as_micros();
                        database.execute(&format!("UPDATE time SET microseconds = {microseconds}")).await;
                    })
                };
                Timed::around(Arc::new(store), clock, Box::new(set_clock))
            }
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::File { folder } => folder.path().join("pending.db"),
            Self::Database(_) => unreachable!("a database is no file"),
        }
    }

    /// All bytes that an attacker with access to the storage would find, with names.
    pub fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        match self {
            Self::File { folder } => {
                let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
                let files: Vec<_> =
                    files.map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect();
                assert!(files.iter().any(|(name, _)| name.ends_with("-wal")), "the log is searched too");
                files
            }
            Self::Database(database) => {
                let dump = database.dump();
                vec![("binary values of the dump".to_owned(), binary_values(&dump)), ("the dump".to_owned(), dump)]
            }
        }
    }

    /// Makes the store fail until [`mend`](Self::mend).
    pub async fn spoil(&self) -> Spoilt<'_> {
        match self {
            Self::File { .. } => {
                let other = rusqlite::Connection::open(self.path()).unwrap();
                other.execute_batch("BEGIN EXCLUSIVE").unwrap();
                Spoilt(self, Some(other))
            }
            Self::Database(database) => {
                database.execute("ALTER TABLE process RENAME TO elsewhere").await;
                Spoilt(self, None)
            }
        }
    }
}

/// A store that fails.
pub struct Spoilt<'a>(&'a Place, Option<rusqlite::Connection>);

impl Spoilt<'_> {
    pub async fn mend(self) {
        if let Place::Database(database) = self.0 {
            database.execute("ALTER TABLE elsewhere RENAME TO process").await;
        }
        drop(self.1);
    }
}

/// A schema of its own in the database that `scripts/postgres` has made. Its time is the test's.
pub struct Database {
    pub url: String,
    schema: String,
    admin: tokio_postgres::Client,
    _connection: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Database {
    pub async fn new() -> Arc<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let url = std::env::var("DATABASE_URL").expect(
            "the tests of PostgreSQL need DATABASE_URL: run scripts/test, or scripts/postgres run cargo test --all-features",
        );
        let schema = format!("canaries_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (admin, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let database = Self { url, schema, admin, _connection: JoinSet::from_iter([connection]) };
        let Self { admin, schema, .. } = &database;
        admin.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await.unwrap();
        let store = PostgresStore::builder(&database.url).schema(schema).connect().await.unwrap();
        store.migrate().await.unwrap();
        let clock = format!(
            "CREATE TABLE time (microseconds bigint);
             INSERT INTO time VALUES (0);
             CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS $$ SELECT 'epoch'::timestamptz + microseconds * interval '1 microsecond' FROM {schema}.time $$"
        );
        database.execute(&clock).await;
        Arc::new(database)
    }

    /// The password in the URL, which is a secret too.
    pub fn password(&self) -> Option<String> {
        url::Url::parse(&self.url).ok()?.password().map(str::to_owned)
    }

    /// Runs SQL with the schema in the search path.
    async fn execute(&self, sql: &str) {
        self.admin.batch_execute(&format!("SET search_path TO {}; {sql}", self.schema)).await.unwrap();
    }

    fn dump(&self) -> Vec<u8> {
        let dump = Command::new("pg_dump").args(["--dbname", &self.url, "--schema", &self.schema]).output();
        let dump = dump.expect("pg_dump is there");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        assert!(dump.stdout.windows(8).any(|word| word == b".sealed "), "the bodies are in it");
        dump.stdout
    }
}

/// Decodes the values that a dump shows as `\\x00ff`, because that form alone would hide text.
fn binary_values(dump: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(dump);
    let mut all = Vec::new();
    for value in text.split("\\x").skip(1) {
        let digits =
            value.bytes().take_while(u8::is_ascii_hexdigit).map(|digit| char::from(digit).to_digit(16).unwrap());
        let digits: Vec<_> = digits.collect();
        all.extend(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8));
        all.push(b'\n');
    }
    all
}
