//! A store in a PostgreSQL database.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::changes::Changes;
use super::rules::Held;
use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, Clamp, Clamped, HeldOutcome, Insertion, KeyStats,
    NewProcess, OutcomeClaim, Outcomes, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Reseal,
    Settlement, Store, StoreError, Work,
};
use crate::clock::{Clock as _, SystemClock};

mod builder;
mod cancel;
mod claim;
mod clamp;
mod connection;
mod conninfo;
mod due_bounds;
mod migration;
mod notifications;
mod outcomes;
mod problem;
mod row;
mod scan;
mod session;
mod settings;
mod tls;
mod upkeep;
mod work;

pub use builder::PostgresStoreBuilder;
use connection::Connections;
use due_bounds::DueBounds;
use notifications::Notifications;
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
/// so that the application's role needs not. Bodies in them are sealed; identifiers and schedules are not.
///
/// Where a later release only adds to the tables, replicas of two releases work side by side. **Version 3 does more**:
/// stop all replicas of releases that know version 1 or 2 before it is made, for their statements fail afterwards, and the
/// answer to a poll that is under way could not be stored. The change is refused while rows are leased. With millions of
/// rows it takes minutes. A release refuses to [`migrate`](Self::migrate) tables whose version is too new for it.
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
///
/// # Long transactions
///
/// While a transaction of the database is open, such as a backup, nothing that is newer can be cleared away. Claims do not
/// walk over what has been left there: a store remembers for each partition before which time nothing is due. A row that
/// is due earlier all the same is one that was committed more than two seconds after its call had read the clock, one that
/// was changed by hand, or one that was just sealed again under a key that the claim can open. Every second a claim looks
/// at everything, and finds it. Where that takes longer than ten milliseconds, such looks come as seldom as they take a
/// hundredth of the time, and at least every ten minutes. The first claim of a replica is one of them.
pub struct PostgresStore {
    connections: Connections,
    /// The SQL that begins a transaction.
    begin: String,
    /// The quoted name of the schema and a dot.
    schema: String,
    prepares: bool,
    look_every: Duration,
    timeout: Duration,
    changes: Changes,
    notifications: Option<Notifications>,
    due_bounds: DueBounds,
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
        PostgresStoreBuilder::new(url)
    }

    /// Makes the schema and its tables, or brings them up to date. Where they are, it does nothing and needs no right to
    /// change them. Replicas may call it at the same time.
    ///
    /// # Errors
    ///
    /// As of any call. [`Unusable`](super::StoreProblem::Unusable) where the role may not make tables, and where a newer
    /// release has changed them so that this one cannot use them.
    /// [`Unavailable`](super::StoreProblem::Unavailable) where another replica's migration, or a transaction that uses the
    /// tables, has kept it waiting for half of the [timeout](PostgresStoreBuilder::timeout), and where the tables have
    /// version 1 or 2 and replicas of an older release are at work: stop those. Then call it again. It has no
    /// limit of time otherwise, for an index of a large table takes long.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let connection = self.bounded(self.connections.take()).await?;
        let begin = session::begin_migration(self.timeout);
        let session = Session::new(&self.connections, connection, &self.schema, self.prepares, &begin).in_transaction();
        migration::migrate(&session, &self.schema).await?;
        session.commit().await
    }

    async fn session(&self) -> Result<Session<'_>, StoreError> {
        let connection = self.connections.take().await?;
        Ok(Session::new(&self.connections, connection, &self.schema, self.prepares, &self.begin))
    }

    /// A session in a transaction.
    async fn transaction(&self) -> Result<Session<'_>, StoreError> {
        Ok(self.session().await?.in_transaction())
    }

    /// Gives a call up when the database does not answer, as behind a firewall that has forgotten the connection. A
    /// server that is there would have answered before, for its own limits are shorter.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let generation = self.connections.generation();
        let mut call = pin!(call);
        tokio::select! {
            biased;
            result = &mut call => result,
            () = SystemClock.sleep(self.timeout) => {
                // Before the call is dropped.
                self.connections.discard(generation);
                Err(problem::no_answer_within(self.timeout))
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
            let (work, found) = work::work(&session, &self.due_bounds, &settlements, claim.as_ref()).await?;
            session.commit().await?;
            if let (Some(claim), Some(found)) = (&claim, found) {
                self.due_bounds.learn(claim, &found);
            }
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
            let (outcomes, found) = outcomes::claim_outcomes(&session, &self.due_bounds, &claim).await?;
            session.commit().await?;
            self.due_bounds.learn_of_outcomes(&found);
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
            self.due_bounds.forget();
            Ok(spread)
        }))
    }

    fn sealed_otherwise(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        Box::pin(self.all_sealed_otherwise(key, after, limit))
    }

    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.transaction().await?;
            let resealed = upkeep::reseal(&session, &reseals).await?;
            session.commit().await?;
            // Rows that nobody here could open may be due for long.
            self.due_bounds.forget();
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
            self.due_bounds.forget();
            Ok(clamped)
        }))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        Box::pin(self.all_keys())
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        Box::pin(self.all_stats())
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
