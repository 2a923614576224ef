//! Transactions on SQLite and PostgreSQL, for the application's own tables.
//!
//! Both understand the same SQL here. Parameters are `$1`, `$2` and so on; number them in the order in which they appear,
//! because SQLite counts them by that order. Choose one database for your application and delete the other half.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{Manager, Pool, Runtime};
use openssl::ssl::{SslConnector, SslMethod};
use postgres_openssl::MakeTlsConnector;
use rusqlite::Connection;
use tokio_postgres::types::{ToSql, Type};

use crate::settings::Place;

/// The longest time to wait for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serializes the creation of tables. `IF NOT EXISTS` alone does not: two replicas that start together on an empty
/// database can both find no table, and the second one fails. The number is any that the application uses for nothing
/// else.
const CREATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7236411520049)::text";

/// A parameter of a statement.
#[derive(Debug, Clone)]
pub enum Value {
    Text(Option<String>),
    Integer(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

/// One statement of a transaction. Its columns, if it returns any, are text.
pub type Statement = (&'static str, Vec<Value>);

/// The columns of a row.
pub type Row = Vec<Option<String>>;

/// The application's own database. Clones share it.
#[derive(Clone)]
pub enum Database {
    Sqlite(Arc<Mutex<Connection>>),
    Postgres(Pool),
}

impl Database {
    pub async fn open(place: &Place) -> anyhow::Result<Self> {
        match place {
            Place::Folder(folder) => open_sqlite(&folder.join("application.db")),
            Place::Postgres(url) => open_postgres(url),
        }
    }

    /// Creates the tables that do not exist, in one transaction. Replicas may start together.
    pub async fn create<const N: usize>(&self, tables: [&'static str; N]) -> anyhow::Result<()> {
        let lock = match self {
            // A transaction on SQLite locks the database.
            Self::Sqlite(_) => None,
            Self::Postgres(_) => Some(CREATION_LOCK),
        };
        let statements = lock.into_iter().chain(tables).map(|sql| (sql, Vec::new()));
        self.transaction(statements.collect()).await?;
        Ok(())
    }

    /// Runs the statements in one transaction: all of them or none. Returns the rows of the last one. When it returns, the
    /// changes are on the disk.
    pub async fn transaction(&self, statements: Vec<Statement>) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Sqlite(connection) => {
                let connection = connection.clone();
                let work =
                    move || run_on_sqlite(&mut connection.lock().unwrap_or_else(PoisonError::into_inner), &statements);
                Ok(tokio::task::spawn_blocking(work).await??)
            }
            Self::Postgres(pool) => run_on_postgres(pool, &statements).await,
        }
    }
}

fn open_sqlite(path: &Path) -> anyhow::Result<Database> {
    let connection = Connection::open(path).with_context(|| format!("cannot use {}", path.display()))?;
    // An outcome is acknowledged when it is on the disk, so commits must be synchronous.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    connection.busy_timeout(PATIENCE)?;
    Ok(Database::Sqlite(Arc::new(Mutex::new(connection))))
}

fn run_on_sqlite(connection: &mut Connection, statements: &[Statement]) -> rusqlite::Result<Vec<Row>> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut rows = Vec::new();
    for (sql, values) in statements {
        let mut statement = transaction.prepare(sql)?;
        let columns = statement.column_count();
        let values = values.iter().map(|value| match value {
            Value::Text(text) => rusqlite::types::Value::from(text.clone()),
            Value::Integer(integer) => rusqlite::types::Value::from(*integer),
        });
        let found = statement.query_map(rusqlite::params_from_iter(values), |row| {
            (0..columns).map(|column| row.get(column)).collect()
        })?;
        rows = found.collect::<Result<_, _>>()?;
    }
    transaction.commit()?;
    Ok(rows)
}

/// Certificates are verified with the authorities of this machine; `SSL_CERT_FILE` names others. Use
/// `sslmode=require` in the URL outside of this machine.
fn open_postgres(url: &str) -> anyhow::Result<Database> {
    // An error could contain the URL with its password.
    let config: tokio_postgres::Config = url.parse().ok().context("DATABASE_URL is no URL of PostgreSQL")?;
    let tls = MakeTlsConnector::new(SslConnector::builder(SslMethod::tls())?.build());
    let pool = Pool::builder(Manager::new(config, tls)).max_size(8).runtime(Runtime::Tokio1);
    let pool = pool.wait_timeout(Some(PATIENCE)).create_timeout(Some(PATIENCE)).recycle_timeout(Some(PATIENCE));
    Ok(Database::Postgres(pool.build()?))
}

/// Prepares nothing, so that it also works behind PgBouncer.
async fn run_on_postgres(pool: &Pool, statements: &[Statement]) -> anyhow::Result<Vec<Row>> {
    let mut connection = pool.get().await?;
    let transaction = connection.transaction().await?;
    let mut rows = Vec::new();
    for (sql, values) in statements {
        let values: Vec<(&(dyn ToSql + Sync), Type)> = values.iter().map(typed).collect();
        let found = transaction.query_typed(sql, &values).await?;
        let read = |row: &tokio_postgres::Row| (0..row.len()).map(|column| row.try_get(column)).collect();
        rows = found.iter().map(read).collect::<Result<_, _>>()?;
    }
    transaction.commit().await?;
    Ok(rows)
}

fn typed(value: &Value) -> (&(dyn ToSql + Sync), Type) {
    match value {
        Value::Text(text) => (text, Type::TEXT),
        Value::Integer(integer) => (integer, Type::INT8),
    }
}
