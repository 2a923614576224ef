//! A store in a PostgreSQL database.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures_core::future::BoxFuture;
use openssl::ssl::SslConnector;

use super::changes::Changes;
use super::rules::Held;
use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, Clamp, Clamped, HeldOutcome, Insertion, KeyStats,
    NewProcess, OutcomeClaim, Outcomes, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Reseal,
    Settlement, Store, StoreError, Work,
};
use crate::clock::{Clock as _, SystemClock};

mod cancel;
mod claim;
mod clamp;
mod connection;
mod conninfo;
mod migration;
mod notifications;
mod outcomes;
mod problem;
mod row;
mod session;
mod settings;
mod tls;
mod upkeep;
mod work;

use connection::{Connections, Limits};
use notifications::Notifications;
use problem::Refusal;
use session::Session;
use settings::Settings;

/// How long a call may take, waiting for a connection included, unless the builder is told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many times as long a call may take that reads whole tables.
const SCAN: u32 = 3;

/// A [`Store`] in a PostgreSQL database (12 or newer), shared by any number of replicas.
///
/// ```no_run
/// use std::sync::Arc;
/// use openid_deferred::store::{PostgresStore, Store};
///
/// # async fn connect() -> Result<(), openid_deferred::store::StoreError> {
/// let store = PostgresStore::connect("postgres://app:secret@db.example.com/app").await?;
/// store.migrate().await?;
/// let store: Arc<dyn Store> = Arc::new(store);
/// # Ok(())
/// # }
/// ```
///
/// # Tables
///
/// They live in a schema of their own, `openid_deferred` unless [told](PostgresStoreBuilder::schema). Either call
/// [`migrate`](Self::migrate) at each start, or run [`SCHEMA`](Self::SCHEMA) apart with a role that may create tables,
/// so that the application's role needs not. Changes of later releases only add to the tables: replicas of two releases
/// work side by side. Bodies in them are sealed; identifiers and schedules are not.
///
/// # The connection string
///
/// It is libpq's, as a URL or as pairs of keys and values. A parameter of libpq that is not supported is an error, and so
/// is one that is unknown; environment variables and the files in `~/.postgresql` are not read. Several hosts may be named,
/// as those of a cluster: the first one that takes writes is used (`target_session_attrs=any`: the first one that
/// answers), and after a failure they are asked again.
///
/// | `sslmode` | of a host that is not this machine |
/// |---|---|
/// | not named, `verify-full` | TLS; the certificate has to come from a trusted authority and to be good for the host's name |
/// | `verify-ca` with `sslrootcert` | the same with any name; without a file it is refused |
/// | `require` | `verify-ca` where `sslrootcert` names a file, as in libpq; `verify-full` where it does not |
/// | `allow`, `prefer` | `verify-full`: an attacker on the way could decide against TLS otherwise |
/// | `disable` | no TLS |
///
/// This machine (`localhost` and loopback addresses) is reached without TLS unless `require`, `verify-ca`, `verify-full` or
/// a file asks for it, and Unix sockets always are. The authorities are those of the file `sslrootcert`, the system's
/// (`sslrootcert=system`, or none named), or those of the connector given to [`tls`](PostgresStoreBuilder::tls).
/// `sslcert` and `sslkey` are the files of a client certificate, `sslpassword` opens the key. Files are read for each
/// new connection, so that they can be replaced while replicas run. `sslnegotiation=direct` is for PostgreSQL 17 and
/// newer.
///
/// # Connections
///
/// Each call is one transaction on one connection of a pool. Connections that have failed, and those whose call was
/// dropped in the middle, are closed. Nothing depends on the state of a session, so a pooler such as PgBouncer may
/// stand in between and assign a server to each transaction; switch
/// [prepared statements](PostgresStoreBuilder::prepared_statements) off for those that cannot follow them.
///
/// A call that takes longer than the [timeout](PostgresStoreBuilder::timeout) is given up. The database hears of it
/// beforehand: it waits for half of that time for a lock and works on one statement for three quarters of it. When a call
/// is dropped while its statement runs, the statement is [cancelled](PostgresStoreBuilder::cancel_requests).
///
/// When the database has vanished without a word, a call fails after the timeout, or after half of it where the network
/// tells (`tcp_user_timeout`). Then all connections are closed, and the next call makes a new one. Each host, or each
/// address that its name has, is given `connect_timeout` seconds to accept a connection; unless it is named, half of the timeout is
/// shared among the hosts, with at least two seconds for each. With the default settings and two hosts that is 12.5 s in all.
///
/// What was answered has reached the disk: a role or database with `synchronous_commit=off` is refused. With other
/// settings of the server, such as `fsync=off` or an asynchronous standby that takes over, it is the server that may
/// forget.
///
/// # Concurrency
///
/// Claims pass over the rows that another replica is claiming (`SKIP LOCKED`), and all of them go by the database's
/// clock. Changes made through this value are told at once by [`changed`](Store::changed); those of other replicas are
/// seen by [looking](PostgresStoreBuilder::look_every), or at once with
/// [notifications](PostgresStoreBuilder::notifications).
pub struct PostgresStore {
    connections: Connections,
    /// The SQL that begins a transaction.
    begin: String,
    /// The same for one that reads whole tables.
    begin_scan: String,
    /// The quoted name of the schema and a dot.
    schema: String,
    prepares: bool,
    look_every: Duration,
    timeout: Duration,
    changes: Changes,
    notifications: Option<Notifications>,
}

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

impl PostgresStore {
    /// The SQL that makes the tables, for running it apart: `psql` with the schema in the search path. It says more at
    /// its beginning. Running it again changes nothing.
    pub const SCHEMA: &'static str = include_str!("postgres/schema.sql");

    /// Connects to the database. [`migrate`](Self::migrate) comes next.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreProblem::Unavailable) where the database cannot be reached,
    /// [`Unusable`](super::StoreProblem::Unusable) where the connection string is not one, the database does not let us
    /// in, or commits asynchronously.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).connect().await
    }

    /// The same with other settings than the usual ones.
    pub fn builder(url: &str) -> PostgresStoreBuilder {
        PostgresStoreBuilder {
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

    /// Makes the schema and its tables, or brings them up to date. Where they are, it does nothing and needs no right to
    /// change them. Replicas may call it at the same time.
    ///
    /// # Errors
    ///
    /// As of any call. [`Unusable`](super::StoreProblem::Unusable) where the role may not make tables.
    /// [`Unavailable`](super::StoreProblem::Unavailable) where another replica's migration, or a transaction that uses the
    /// tables, has kept it waiting for half of the [timeout](PostgresStoreBuilder::timeout): call it again. It has no
    /// limit of time otherwise, for an index of a large table takes long.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let connection = self.bounded(self.connections.take()).await?;
        let begin = session::begin_migration(self.timeout);
        let session = Session::new(&self.connections, connection, &self.schema, self.prepares, &begin).in_transaction();
        migration::migrate(&session, &self.schema).await?;
        session.commit().await
    }

    async fn session(&self) -> Result<Session<'_>, StoreError> {
        self.session_with(&self.begin).await
    }

    /// For reading whole tables within [`bounded_scan`](Self::bounded_scan).
    async fn scan_session(&self) -> Result<Session<'_>, StoreError> {
        self.session_with(&self.begin_scan).await
    }

    async fn session_with<'a>(&'a self, begin: &'a str) -> Result<Session<'a>, StoreError> {
        let connection = self.connections.take().await?;
        Ok(Session::new(&self.connections, connection, &self.schema, self.prepares, begin))
    }

    /// A session in a transaction.
    async fn transaction(&self) -> Result<Session<'_>, StoreError> {
        Ok(self.session().await?.in_transaction())
    }

    /// Gives a call up when the database does not answer, as behind a firewall that has forgotten the connection. A
    /// server that is there would have answered before, for its own limits are shorter.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.bounded_by(self.timeout, call).await
    }

    /// The same for a call that reads whole tables.
    async fn bounded_scan<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.bounded_by(self.timeout.saturating_mul(SCAN), call).await
    }

    async fn bounded_by<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let generation = self.connections.generation();
        let mut call = pin!(call);
        tokio::select! {
            biased;
            result = &mut call => result,
            () = SystemClock.sleep(limit) => {
                // Before the call is dropped.
                self.connections.discard(generation);
                Err(problem::no_answer_within(limit))
            }
        }
    }

    /// Runs a call after which somebody may have something to do. It may have happened although the call has failed.
    async fn bounded_and_tell<T>(
        &self,
        changed: impl Fn(Option<&T>) -> Changed,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = self.bounded(call).await;
        let changed = changed(result.as_ref().ok());
        self.changes.tell(changed);
        // Other replicas look often enough for what becomes due in a while.
        self.announce(Changed { work: false, ..changed });
        result
    }

    /// Tells other replicas.
    fn announce(&self, changed: Changed) {
        if let Some(notifications) = &self.notifications {
            notifications.announce(changed);
        }
    }
}

impl PostgresStoreBuilder {
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

    /// How long a call may take, waiting for a connection included. 10 s unless told, and three times as
    /// long for those that read whole tables (statistics and the rotation of keys). What the database may spend on a
    /// lock or a statement, and what a new connection may take, are fractions of it.
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
            begin_scan: session::begin(self.timeout.saturating_mul(SCAN)),
            schema: format!("\"{}\".", self.schema.replace('"', "\"\"")),
            prepares: self.prepares,
            look_every: self.look_every,
            timeout: self.timeout,
            changes,
        };
        store.bounded(store.session()).await?.finish();
        Ok(store)
    }
}

impl Store for PostgresStore {
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>> {
        Box::pin(self.bounded_and_tell(|_| Changed::WORK, async move {
            let session = self.transaction().await?;
            let insertion = work::insert(&session, &process).await?;
            session.commit().await?;
            Ok(insertion)
        }))
    }

    fn work(&self, settlements: Vec<Settlement>, claim: Option<Claim>) -> BoxFuture<'_, Result<Work, StoreError>> {
        let changed = Changed::after(&settlements, claim.as_ref());
        let call = async move {
            let session = self.transaction().await?;
            let work = work::work(&session, &settlements, claim.as_ref()).await?;
            session.commit().await?;
            Ok(work)
        };
        Box::pin(self.bounded_and_tell(move |_| changed, call))
    }

    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let process = upkeep::load(&session, id).await?;
            session.finish();
            Ok(process)
        }))
    }

    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        Box::pin(self.bounded_and_tell(|_| Changed::WORK, async move {
            let session = self.session().await?;
            let pinged = work::ping(&session, &ping).await?;
            session.finish();
            if matches!(pinged, Pinged::Noted { .. }) {
                self.announce(Changed::WORK);
            }
            Ok(pinged)
        }))
    }

    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let cancellation = upkeep::cancel(&session, id, to).await?;
            session.finish();
            Ok(cancellation)
        }))
    }

    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<Outcomes, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.transaction().await?;
            let outcomes = outcomes::claim_outcomes(&session, &claim).await?;
            session.commit().await?;
            Ok(outcomes)
        }))
    }

    fn hold_outcomes(&self, held: Vec<HeldOutcome>, due_in: Duration) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        let changed = |holds: Option<&Vec<Held>>| Changed {
            work: false,
            outcomes: holds.is_none_or(|holds| holds.contains(&Held::Sooner)),
        };
        let call = async move {
            let session = self.session().await?;
            let holds = outcomes::hold(&session, &held, due_in).await?;
            session.finish();
            Ok(holds)
        };
        Box::pin(async move {
            let holds = self.bounded_and_tell(changed, call).await?;
            Ok(holds.into_iter().map(|hold| hold != Held::NoLonger).collect())
        })
    }

    fn acknowledge(
        &self,
        acknowledgements: Vec<Acknowledgement>,
    ) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.transaction().await?;
            let acknowledged = outcomes::acknowledge(&session, &acknowledgements).await?;
            session.commit().await?;
            Ok(acknowledged)
        }))
    }

    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let forgotten = upkeep::forget(&session, id).await?;
            session.finish();
            Ok(forgotten)
        }))
    }

    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let purged = upkeep::purge(&session, limit).await?;
            session.finish();
            Ok(purged)
        }))
    }

    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let spread = clamp::spread(&session, partition, overdue_for, limit).await?;
            session.finish();
            Ok(spread)
        }))
    }

    fn sealed_otherwise(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        Box::pin(self.bounded_scan(async move {
            let session = self.scan_session().await?;
            let processes = upkeep::sealed_otherwise(&session, key, after, limit).await?;
            session.finish();
            Ok(processes)
        }))
    }

    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.transaction().await?;
            let resealed = upkeep::reseal(&session, &reseals).await?;
            session.commit().await?;
            Ok(resealed)
        }))
    }

    fn clamp_due_times(&self, clamp: Clamp) -> BoxFuture<'_, Result<Clamped, StoreError>> {
        let changed = |clamped: Option<&Clamped>| match clamped {
            Some(Clamped::Done) => Changed::ALL,
            _ => Changed::NOTHING,
        };
        Box::pin(self.bounded_and_tell(changed, async move {
            let session = self.transaction().await?;
            let clamped = clamp::clamp_due_times(&session, &clamp).await?;
            session.commit().await?;
            Ok(clamped)
        }))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        Box::pin(self.bounded_scan(async move {
            let session = self.scan_session().await?;
            let keys = upkeep::keys(&session).await?;
            session.finish();
            Ok(keys)
        }))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        Box::pin(self.bounded_scan(async move {
            let session = self.scan_session().await?;
            let stats = upkeep::stats(&session).await?;
            session.finish();
            Ok(stats)
        }))
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.changes.next()
    }

    fn look_every(&self) -> Duration {
        self.look_every
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresStore").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl fmt::Debug for PostgresStoreBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresStoreBuilder").field("schema", &self.schema).finish_non_exhaustive()
    }
}
