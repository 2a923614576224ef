//! The settings of a store, and the connection to its database.

use std::fmt;
use std::time::Duration;

use openssl::ssl::SslConnector;

use super::connection::{Connections, Limits};
use super::due_bounds::DueBounds;
use super::notifications::Notifications;
use super::problem::Refusal;
use super::settings::Settings;
use super::{PostgresStore, session};
use crate::store::StoreError;
use crate::store::changes::Changes;

/// The default time limit of a call, including the wait for a connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of a [`PostgresStore`]. Start with [`PostgresStore::builder`] and finish with [`connect`](Self::connect).
///
/// ```no_run
/// use openid_deferred::store::PostgresStore;
///
/// # async fn connect() -> Result<(), openid_deferred::store::StoreError> {
/// let store = PostgresStore::builder("postgres:///app?host=/run/pgbouncer")
///     .schema("sign_in")
///     .without_prepared_statements()
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct PostgresStoreBuilder {
    settings: Result<Settings, Refusal>,
    schema: String,
    tls: Option<SslConnector>,
    pool_size: usize,
    prepares: bool,
    cancels: bool,
    notifies: bool,
    check_interval: Duration,
    timeout: Duration,
}

impl PostgresStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            settings: Settings::parse(url),
            schema: "openid_deferred".to_owned(),
            tls: None,
            pool_size: 8,
            prepares: true,
            cancels: true,
            notifies: false,
            check_interval: Duration::from_secs(1),
            timeout: TIMEOUT,
        }
    }

    /// Sets the schema of the tables; `openid_deferred` by default.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Sets the TLS configuration: certificate authorities and client certificate. By default the connection string
    /// determines it.
    ///
    /// With this setting the connection string must not contain `sslrootcert`, `sslcert` or `sslkey`. `sslmode` still
    /// determines whether TLS is used, and with `verify-ca` the server's name is not checked.
    pub fn tls(mut self, connector: SslConnector) -> Self {
        self.tls = Some(connector);
        self
    }

    /// Sets the maximum number of connections; 8 by default.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections;
        self
    }

    /// Sends each statement with its text. By default statements are prepared once for each connection, so that the
    /// database need not plan them again.
    ///
    /// Use it behind a pooler that assigns a server to each transaction and cannot track prepared statements, such as
    /// PgBouncer before 1.21.
    pub fn without_prepared_statements(mut self) -> Self {
        self.prepares = false;
        self
    }

    /// Does not cancel a statement whose call is dropped or times out. By default it is cancelled.
    ///
    /// The connection is then not used again until the statement has ended, which takes at most three quarters of the
    /// [timeout](Self::timeout). Use it behind a pooler that cancel requests can crash, such as PgBouncer 1.18 to 1.20.
    pub fn without_cancel_requests(mut self) -> Self {
        self.cancels = false;
        self
    }

    /// Sets how often to check for changes by other replicas; every second by default.
    pub fn check_interval(mut self, period: Duration) -> Self {
        self.check_interval = period;
        self
    }

    /// Lets replicas notify each other at once of pings and outcomes, with `LISTEN` and `NOTIFY`. Without this setting
    /// they do not.
    ///
    /// It needs one more connection for each replica, and does not work through a pooler that assigns a server to each
    /// transaction. Nothing depends on the notifications, because the [periodic checks](Self::check_interval) continue at
    /// the same rate and find any change that was not notified.
    pub fn notifications(mut self) -> Self {
        self.notifies = true;
        self
    }

    /// Sets the time limit of a call, including the wait for a connection; 10 s by default.
    ///
    /// The database's limits for locks and statements, and the limit for a new connection, are fractions of it.
    /// Statistics and the rotation of keys read the tables in steps of thousands of rows, each of which counts as a
    /// call.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects to the database. Call [`PostgresStore::migrate`] next.
    ///
    /// # Errors
    ///
    /// See [`PostgresStore::connect`].
    pub async fn connect(self) -> Result<PostgresStore, StoreError> {
        let settings = self.settings?;
        if self.schema.is_empty() || self.schema.contains('\0') {
            return Err(Refusal::SchemaName.into());
        }
        let limits = Limits { call: self.timeout, pool_size: self.pool_size, cancels: self.cancels };
        let connections = Connections::new(settings, self.tls, limits)?;
        let changes = Changes::new();
        let start = || Notifications::start(connections.pool(), &self.schema, changes.clone());
        let store = PostgresStore {
            notifications: self.notifies.then(start),
            connections,
            begin: if self.prepares { session::begin_prepared } else { session::begin }(self.timeout),
            schema: format!("\"{}\".", self.schema.replace('"', "\"\"")),
            prepares: self.prepares,
            check_interval: self.check_interval,
            timeout: self.timeout,
            changes,
            due_bounds: DueBounds::default(),
        };
        store.bounded(store.session()).await?.finish();
        Ok(store)
    }
}

impl fmt::Debug for PostgresStoreBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresStoreBuilder").field("schema", &self.schema).finish_non_exhaustive()
    }
}
