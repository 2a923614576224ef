//! Settings of a store, and connecting to its database.

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

/// How long a call may take, waiting for a connection included, unless the builder is told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of a [`PostgresStore`], beginning with [`PostgresStore::builder`] and ending with
/// [`connect`](Self::connect).
///
/// ```no_run
/// use openid_deferred::store::PostgresStore;
///
/// # async fn connect() -> Result<(), openid_deferred::store::StoreError> {
/// let store = PostgresStore::builder("postgres:///app?host=/run/pgbouncer")
///     .schema("sign_in")
///     .prepared_statements(false)
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
    look_every: Duration,
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
            look_every: Duration::from_secs(1),
            timeout: TIMEOUT,
        }
    }

    /// The schema that the tables are in. `openid_deferred` unless told.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// The TLS to use: certificate authorities, client certificate. What the connection string says unless told. It
    /// excludes `sslrootcert`, `sslcert` and `sslkey` there; `sslmode` goes on to say whether TLS is used, and
    /// `verify-ca` that the server's name is not checked.
    pub fn tls(mut self, connector: SslConnector) -> Self {
        self.tls = Some(connector);
        self
    }

    /// How many connections to have at most. 8 unless told.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections;
        self
    }

    /// Whether statements are prepared once for each connection, which spares the database their planning. On unless
    /// told; to be switched off behind a pooler that gives a connection another server for each transaction and cannot
    /// follow prepared statements, such as PgBouncer before 1.21.
    pub fn prepared_statements(mut self, prepares: bool) -> Self {
        self.prepares = prepares;
        self
    }

    /// Whether a statement is cancelled when its call is dropped or given up. On unless told; otherwise its connection is
    /// not used again before the statement has come to its end, which takes three quarters of the
    /// [timeout](Self::timeout) at most. To be switched off behind a pooler that requests to cancel can crash, such as
    /// PgBouncer 1.18 to 1.20.
    pub fn cancel_requests(mut self, cancels: bool) -> Self {
        self.cancels = cancels;
        self
    }

    /// How often to look for what other replicas have changed. Every second unless told.
    pub fn look_every(mut self, period: Duration) -> Self {
        self.look_every = period;
        self
    }

    /// Whether replicas tell each other at once, by `LISTEN` and `NOTIFY`, of pings that bring polls forward and of
    /// outcomes. Off unless told: it takes one connection more for each replica, and notifications do not pass a pooler
    /// that assigns a server to each transaction. Nothing depends on them. What is not heard of is found by
    /// [looking](Self::look_every), which goes on at the same pace.
    pub fn notifications(mut self, notifies: bool) -> Self {
        self.notifies = notifies;
        self
    }

    /// How long a call may take, waiting for a connection included. 10 s unless told. What the database may spend on a lock
    /// or a statement, and what a new connection may take, are fractions of it. Statistics and the rotation of keys read
    /// tables in steps of some thousand rows, each of which is a call by itself.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects to the database. [`PostgresStore::migrate`] comes next.
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
            begin: session::begin(self.timeout),
            schema: format!("\"{}\".", self.schema.replace('"', "\"\"")),
            prepares: self.prepares,
            look_every: self.look_every,
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
