//! The use of a connection by one call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::Object;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Error, Row};

use super::connection::{Connections, Manager};
use super::problem;
use crate::store::{StoreError, StoreProblem};

/// A parameter of a statement. Its type is given, so that a statement need not be prepared.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The SQL to begin a transaction with limits of time.
///
/// Each statement sees the transactions that were committed before it. The limits are set in the transaction, because a
/// pooler may give the session to another client.
///
/// The limits are half of `call` for a lock and three quarters for a statement, so that a call gets the database's
/// error before it times out. The limit for an idle transaction ends that of a replica that disappeared while it held
/// locks.
pub(super) fn begin(call: Duration) -> String {
    begin_with(call / 2, call / 4 * 3, call)
}

/// The same for prepared statements. The server plans each of them once and not for each call: a good plan does not
/// depend on the parameters, and planning took a quarter of the server's time for a claim.
pub(super) fn begin_prepared(call: Duration) -> String {
    begin(call) + "; SET LOCAL plan_cache_mode = force_generic_plan"
}

/// The same for a migration, whose statements have no limit of time once it has its locks.
pub(super) fn begin_migration(call: Duration) -> String {
    begin_with(call / 2, Duration::ZERO, call)
}

fn begin_with(lock: Duration, statement: Duration, idle: Duration) -> String {
    // Zero would mean no limit.
    let limit = |limit: Duration| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    let some = |some: Duration| limit(some).max(1);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
         SET LOCAL idle_in_transaction_session_timeout = {}",
        some(lock),
        if statement.is_zero() { 0 } else { some(statement) },
        some(idle),
    )
}

/// A borrowed connection. Only [`commit`](Self::commit) and [`finish`](Self::finish) return it to the pool. After an
/// error, or if the call is dropped, it is closed, and the database rolls back.
pub(super) struct Session<'a> {
    connections: &'a Connections,
    connection: Option<Object<Manager>>,
    /// The quoted name of the schema and a dot.
    schema: &'a str,
    prepares: bool,
    begin: &'a str,
    /// Whether each statement is a transaction of its own.
    is_single: bool,
    /// Whether the transaction has been begun.
    is_begun: AtomicBool,
    /// Whether a request to the server has not been answered.
    is_waiting: AtomicBool,
}

impl<'a> Session<'a> {
    /// Creates a session in which each statement is a transaction of its own. `begin` is the SQL that begins it.
    pub(super) fn new(
        connections: &'a Connections,
        connection: Object<Manager>,
        schema: &'a str,
        begin: &'a str,
    ) -> Self {
        let (is_begun, is_waiting) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            connections,
            connection: Some(connection),
            schema,
            prepares: true,
            begin,
            is_single: true,
            is_begun,
            is_waiting,
        }
    }

    /// Sends each statement with its text.
    pub(super) fn without_prepared_statements(mut self) -> Self {
        self.prepares = false;
        self
    }

    /// Makes all statements up to [`commit`](Self::commit) one transaction.
    pub(super) fn in_transaction(mut self) -> Self {
        self.is_single = false;
        self
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        if self.is_begun.load(Ordering::Relaxed) {
            self.batch("COMMIT").await?;
        }
        self.finish();
        Ok(())
    }

    /// Returns the connection after statements that were transactions of their own.
    pub(super) fn finish(mut self) {
        self.connection = None;
    }

    /// Runs statements without parameters and results.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), StoreError> {
        let connection = self.connection.as_ref().ok_or_else(closed)?;
        let client = connection.client();
        let run = async {
            match self.begins() {
                Some(begin) if self.is_single => client.batch_execute(&format!("{begin}; {sql}; COMMIT")).await,
                Some(begin) => client.batch_execute(&format!("{begin}; {sql}")).await,
                None => client.batch_execute(sql).await,
            }
        };
        self.watched(run).await.map_err(|error| self.connections.failed(connection, &error))
    }

    /// Runs one statement, in which `@.` stands for the schema.
    pub(super) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection.as_ref().ok_or_else(closed)?;
        let client = connection.client();
        let sql = sql.replace("@.", self.schema);
        let run = async {
            let mut begin = self.begins();
            let end = self.is_single.then_some("COMMIT");
            if !self.prepares {
                return in_one_go(self, begin, client.query_typed(&sql, parameters), end).await;
            }
            let (values, types): (Vec<_>, Vec<_>) = parameters.iter().cloned().unzip();
            let statement = match connection.prepared(&sql) {
                Some(statement) => statement,
                None => in_one_go(self, begin.take(), connection.prepare(&sql, &types), None).await?,
            };
            in_one_go(self, begin, client.query(&statement, &values), end).await
        };
        self.watched(run).await.map_err(|error| self.connections.failed(connection, &error))
    }

    /// The SQL to begin the transaction, unless it has begun.
    fn begins(&self) -> Option<&'a str> {
        let is_due = self.is_single || !self.is_begun.swap(true, Ordering::Relaxed);
        is_due.then_some(self.begin)
    }

    /// Awaits the server. If the future is dropped meanwhile, `is_waiting` stays set.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> T {
        self.is_waiting.store(true, Ordering::Relaxed);
        let done = work.await;
        self.is_waiting.store(false, Ordering::Relaxed);
        done
    }
}

/// Sends a statement together with the SQL before and after it, without waiting for answers in between. They are
/// executed in this order. After a failure the database rolls back the earlier ones and ignores the later ones.
async fn in_one_go<T>(
    session: &Session<'_>,
    before: Option<&str>,
    statement: impl Future<Output = Result<T, Error>>,
    after: Option<&str>,
) -> Result<T, Error> {
    let send = async |sql: Option<&str>| match (sql, &session.connection) {
        (Some(sql), Some(connection)) => connection.client().batch_execute(sql).await,
        _ => Ok(()),
    };
    // Each is sent when it is first polled, and `join!` polls them in this order.
    let (before, done, after) = tokio::join!(send(before), statement, send(after));
    before?;
    let done = done?;
    after?;
    Ok(done)
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            if self.is_waiting.load(Ordering::Relaxed) {
                self.connections.abandon(connection);
            } else {
                drop(Object::take(connection));
            }
        }
    }
}

fn closed() -> StoreError {
    StoreError::new(StoreProblem::Unavailable)
}

/// The value of a column.
pub(super) fn value<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| problem::of_database(&error))
}
