//! One call's use of a connection.

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::problem;
use crate::store::{StoreError, StoreProblem};

/// A parameter of a statement. Its type is told, so that a statement needs no preparation.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How long the database keeps a transaction, and with it the locks on rows, for a replica that has vanished.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL lock_timeout = '10s'";

/// A connection on loan. It goes back to the pool by [`commit`](Self::commit) or [`finish`](Self::finish) only;
/// otherwise, after an error or when the call is dropped in the middle, it is closed, and the database rolls back.
pub(super) struct Session<'a> {
    connection: Option<Object>,
    /// The quoted name of the schema and a dot.
    schema: &'a str,
    prepares: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(connection: Object, schema: &'a str, prepares: bool) -> Self {
        Self { connection: Some(connection), schema, prepares }
    }

    /// Begins a transaction. Each of its statements sees what others have committed before it.
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        self.batch(BEGIN).await
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.batch("COMMIT").await?;
        self.finish();
        Ok(())
    }

    /// Gives the connection back after a statement that was a transaction by itself.
    pub(super) fn finish(mut self) {
        self.connection = None;
    }

    /// Runs statements that have no parameters and give no rows.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), StoreError> {
        let connection = self.connection.as_ref().ok_or_else(closed)?;
        connection.batch_execute(sql).await.map_err(|error| problem::of_database(&error))
    }

    /// Runs one statement. In it, `@.` stands for the schema.
    pub(super) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection.as_ref().ok_or_else(closed)?;
        let sql = sql.replace("@.", self.schema);
        let run = async {
            if !self.prepares {
                return connection.query_typed(&sql, parameters).await;
            }
            let (values, types): (Vec<_>, Vec<_>) = parameters.iter().cloned().unzip();
            let statement = connection.prepare_typed_cached(&sql, &types).await?;
            connection.query(&statement, &values).await
        };
        run.await.map_err(|error| problem::of_database(&error))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
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
