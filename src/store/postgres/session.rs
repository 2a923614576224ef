//! One call's use of a connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::Object;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Error, Row};

use super::connection::{Connections, Manager};
use super::problem;
use crate::store::{StoreError, StoreProblem};

/// A parameter of a statement. Its type is told, so that a statement needs no preparation.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Begins a transaction, each of whose statements sees what others have committed before it, and bounds what it may cost
/// the database. Settings of the session would not do: a pooler may give it to somebody else.
///
/// A call that waits for `call` hears of what keeps it waiting before it gives up: half of that time for a lock, three
/// quarters for a statement. The rest is for a replica that has vanished with locks on rows.
pub(super) fn begin(call: Duration) -> String {
    begin_with(call / 2, call / 4 * 3, call)
}

/// The same for the making of tables, which may take as long as it takes once it has its locks.
pub(super) fn begin_migration(call: Duration) -> String {
    begin_with(call / 2, Duration::ZERO, call)
}

fn begin_with(lock: Duration, statement: Duration, idle: Duration) -> String {
    // Zero is none at all.
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

/// A connection on loan. It goes back to the pool by [`commit`](Self::commit) or [`finish`](Self::finish) only;
/// otherwise, after an error or when the call is dropped in the middle, it is closed, and the database rolls back.
pub(super) struct Session<'a> {
    connections: &'a Connections,
    connection: Option<Object<Manager>>,
    /// The quoted name of the schema and a dot.
    schema: &'a str,
    prepares: bool,
    begin: &'a str,
    /// Whether each statement is a transaction by itself.
    is_single: bool,
    /// Whether the transaction has been begun.
    is_begun: AtomicBool,
    /// Whether the server has been asked something that it has not answered.
    is_waiting: AtomicBool,
}

impl<'a> Session<'a> {
    /// Each statement is a transaction by itself. `begin` begins it.
    pub(super) fn new(
        connections: &'a Connections,
        connection: Object<Manager>,
        schema: &'a str,
        prepares: bool,
        begin: &'a str,
    ) -> Self {
        let (is_begun, is_waiting) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            connections,
            connection: Some(connection),
            schema,
            prepares,
            begin,
            is_single: true,
            is_begun,
            is_waiting,
        }
    }

    /// All statements up to [`commit`](Self::commit) are one transaction.
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

    /// Gives the connection back after statements that were transactions by themselves.
    pub(super) fn finish(mut self) {
        self.connection = None;
    }

    /// Runs statements that have no parameters and give no rows.
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

    /// Runs one statement. In it, `@.` stands for the schema.
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

    /// What begins the transaction, unless it has been begun.
    fn begins(&self) -> Option<&'a str> {
        let is_due = self.is_single || !self.is_begun.swap(true, Ordering::Relaxed);
        is_due.then_some(self.begin)
    }

    /// Drives what waits for the server, and remembers when it is dropped meanwhile.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> T {
        self.is_waiting.store(true, Ordering::Relaxed);
        let done = work.await;
        self.is_waiting.store(false, Ordering::Relaxed);
        done
    }
}

/// Sends a statement together with what comes before and after it, without waiting for answers in between. They are
/// carried out in this order; after a failure the database rolls back what came before and does nothing more.
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
    // Each is sent when it is first polled, and they are first polled in this order.
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
