//! A store in a PostgreSQL database.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::Pool;
use futures_core::future::BoxFuture;
use openssl::ssl::SslConnector;
use tokio_postgres::Config;

use super::changes::Changes;
use super::rules::Held;
use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, Clamp, Clamped, HeldOutcome, Insertion, KeyStats,
    NewProcess, OutcomeClaim, Outcomes, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Reseal,
    Settlement, Store, StoreError, Work,
};
use crate::clock::{Clock as _, SystemClock};

mod claim;
mod clamp;
mod connection;
mod migration;
mod outcomes;
mod problem;
mod row;
mod session;
mod upkeep;
mod work;

use problem::Refusal;
use session::Session;

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
/// # Connections
///
/// The connection string is libpq's, as a URL or as pairs of keys and values. Without `sslmode` TLS is required for
/// hosts other than this machine, and the server's certificate has to be good for the host's name;
/// [`tls`](PostgresStoreBuilder::tls) brings other certificate authorities or a client certificate. `sslmode=disable`
/// is obeyed.
///
/// Each call is one transaction on one connection of a pool. Connections that have failed, and those whose call was
/// dropped in the middle, are closed. Nothing depends on the state of a session, so a pooler such as PgBouncer may
/// stand in between and assign a server to each transaction; switch
/// [prepared statements](PostgresStoreBuilder::prepared_statements) off for those that cannot follow them.
///
/// What was answered has reached the disk: a role or database with `synchronous_commit=off` is refused. With other
/// settings of the server, such as `fsync=off` or an asynchronous standby that takes over, it is the server that may
/// forget.
///
/// # Concurrency
///
/// Claims pass over the rows that another replica is claiming (`SKIP LOCKED`), and all of them go by the database's
/// clock. Changes made through this value are told at once by [`changed`](Store::changed); those of other replicas are
/// seen by [looking](PostgresStoreBuilder::look_every).
pub struct PostgresStore {
    pool: Pool,
    /// The quoted name of the schema and a dot.
    schema: String,
    prepares: bool,
    look_every: Duration,
    timeout: Duration,
    changes: Changes,
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
    /// `None` if the connection string is not one.
    config: Option<Config>,
    schema: String,
    tls: Option<SslConnector>,
    pool_size: usize,
    prepares: bool,
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
            config: url.parse().ok(),
            schema: "openid_deferred".to_owned(),
            tls: None,
            pool_size: 8,
            prepares: true,
            look_every: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        }
    }

    /// Makes the schema and its tables, or brings them up to date. Where they are, it does nothing and needs no right to
    /// change them. Replicas may call it at the same time.
    ///
    /// # Errors
    ///
    /// As of any call. [`Unusable`](super::StoreProblem::Unusable) where the role may not make tables.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.bounded(async {
            let session = self.session().await?;
            session.begin().await?;
            migration::migrate(&session, &self.schema).await?;
            session.commit().await
        })
        .await
    }

    async fn session(&self) -> Result<Session<'_>, StoreError> {
        Ok(Session::new(connection::take(&self.pool).await?, &self.schema, self.prepares))
    }

    /// A session in a transaction.
    async fn transaction(&self) -> Result<Session<'_>, StoreError> {
        let session = self.session().await?;
        session.begin().await?;
        Ok(session)
    }

    /// Gives a call up when the database does not answer, as behind a firewall that has forgotten the connection.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            result = call => result,
            () = SystemClock.sleep(self.timeout) => Err(problem::no_answer_within(self.timeout)),
        }
    }

    /// Runs a call after which somebody may have something to do. It may have happened although the call has failed.
    async fn bounded_and_tell<T>(
        &self,
        changed: impl Fn(Option<&T>) -> Changed,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = self.bounded(call).await;
        self.changes.tell(changed(result.as_ref().ok()));
        result
    }
}

impl PostgresStoreBuilder {
    /// The schema that the tables are in. `openid_deferred` unless told.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// The TLS to use: certificate authorities, client certificate. The system's authorities unless told.
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

    /// How often to look for what other replicas have changed. Every second unless told.
    pub fn look_every(mut self, period: Duration) -> Self {
        self.look_every = period;
        self
    }

    /// How long a call may take, waiting for a connection included. 30 s unless told.
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
        let config = self.config.ok_or(Refusal::ConnectionString)?;
        if self.schema.is_empty() || self.schema.contains('\0') {
            return Err(Refusal::SchemaName.into());
        }
        let store = PostgresStore {
            pool: connection::pool(config, self.tls, self.pool_size, self.timeout)?,
            schema: format!("\"{}\".", self.schema.replace('"', "\"\"")),
            prepares: self.prepares,
            look_every: self.look_every,
            timeout: self.timeout,
            changes: Changes::new(),
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
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
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
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let keys = upkeep::keys(&session).await?;
            session.finish();
            Ok(keys)
        }))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
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
