//! A store in a PostgreSQL database.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use deadpool::managed::Object;
use futures_core::future::BoxFuture;

use super::changes::Changes;
use super::rules::{Held, Hold};
use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClientNote, CorrectionProgress, CorrectionStep,
    Erased, HeldOutcome, Imported, Insertion, KeyStats, KnownClient, Listing, NewProcess, OutcomeBatch, OutcomeClaim,
    Page, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Requeued, Reseal, Settlement, Store, StoreError,
    StoredRow, Work,
};
use crate::clock::{Clock as _, SystemClock};

mod builder;
mod cancel;
mod check;
mod claim;
mod clients;
mod connection;
mod conninfo;
mod due_bounds;
mod due_times;
mod migration;
mod notifications;
mod operators;
mod outcomes;
mod problem;
mod row;
mod scan;
mod session;
mod settings;
mod tls;
mod transfer;
mod upkeep;
mod work;

pub use builder::PostgresStoreBuilder;
use connection::{Connections, Manager};
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
/// The tables have a schema of their own, `openid_deferred` [by default](PostgresStoreBuilder::schema). Either call
/// [`migrate`](Self::migrate) at each start, or run [`SCHEMA`](Self::SCHEMA) separately with a role that may create
/// tables, so that the application's role need not. Bodies are sealed; identifiers, schedules and the names of clients
/// are not.
///
/// If a later release only adds to the tables, replicas of two releases work side by side, as with versions 4 and 5,
/// whose migration takes a moment. **Version 3 is an exception**: before the migration, stop all replicas of releases
/// that know only version 1 or 2. Their statements fail afterwards, and the answer to a poll in flight could not be
/// stored. The migration is refused while rows are leased. With millions of rows it takes minutes.
/// [`migrate`](Self::migrate) refuses tables whose version is too new for the release.
///
/// # The connection string
///
/// It has libpq's format: a URL, or pairs of keys and values. Unknown parameters, and parameters of libpq that are not
/// supported, are errors. Environment variables and the files in `~/.postgresql` are not read. It may name several
/// hosts, such as those of a cluster: the first host that accepts writes is used (with `target_session_attrs=any`, the
/// first one that answers). After a failure the hosts are tried again.
///
/// | `sslmode` | for a host other than this machine |
/// |---|---|
/// | not set, `verify-full` | TLS; the certificate must be from a trusted authority and valid for the host's name |
/// | `verify-ca` with `sslrootcert` | the same for any name; refused without a file |
/// | `require` | `verify-ca` if `sslrootcert` names a file, as in libpq; otherwise `verify-full` |
/// | `allow`, `prefer` | `verify-full`, because otherwise an attacker on the network could disable TLS |
/// | `disable` | no TLS |
///
/// Connections to this machine (`localhost` and loopback addresses) do not use TLS unless `require`, `verify-ca`,
/// `verify-full` or a file requests it. Unix sockets never use TLS. The trusted authorities are those in the file
/// `sslrootcert`, those of the system (`sslrootcert=system`, or not set), or those of the connector passed to
/// [`tls`](PostgresStoreBuilder::tls). `sslcert` and `sslkey` are the files of a client certificate; `sslpassword`
/// decrypts the key. Files are read for each new connection, so that they can be replaced while replicas run.
/// `sslnegotiation=direct` is for PostgreSQL 17 and newer.
///
/// # Connections
///
/// Each call is one transaction on one connection of a pool. A connection is closed if it failed, or if the future of
/// its call was dropped. Nothing depends on the state of a session, so a pooler such as PgBouncer may assign a server
/// to each transaction. Turn [prepared statements off](PostgresStoreBuilder::without_prepared_statements) for poolers that
/// cannot track them.
///
/// A call that takes longer than the [timeout](PostgresStoreBuilder::timeout) fails. The database's own limits are
/// shorter: half of that time for a lock, and three quarters for a statement. If a call is dropped while its statement
/// runs, the statement is cancelled, unless [that is turned off](PostgresStoreBuilder::without_cancel_requests).
///
/// If the database stops answering, a call fails after the timeout, or after half of it if the operating system detects
/// it (`tcp_user_timeout`). Then all connections are closed, and the next call opens a new one. Each address of each
/// host has `connect_timeout` seconds to accept a connection. By default the hosts share half of the timeout, with at
/// least two seconds for each. With the default settings and two hosts, failover takes 12.5 s in all.
///
/// Calls are answered after their changes have reached the disk: a role or database with `synchronous_commit=off` is
/// refused. Other settings of the server can still lose committed data, such as `fsync=off` or a failover to an
/// asynchronous standby.
///
/// # Concurrency
///
/// Claims skip the rows that another replica is claiming (`SKIP LOCKED`). All claims use the database's clock.
/// [`changed`](Store::changed) reports changes made through this value at once. The changes of other replicas are found
/// by [polling the store](PostgresStoreBuilder::check_interval), or at once with
/// [notifications](PostgresStoreBuilder::notifications).
///
/// # Long transactions
///
/// While a long transaction of the database is open, such as a backup, PostgreSQL cannot remove index entries that
/// became dead after it began. To avoid scanning them, the store remembers for each partition a time before which
/// nothing is due.
///
/// A row can still be due before that time: if it was committed more than two seconds after its call had read the
/// clock, changed by hand, or just sealed again with a key that the claim can open. A full scan once a second finds
/// such rows. If a scan takes longer than ten milliseconds, scans become so rare that they take a hundredth of the
/// time, but happen at least every ten minutes. The first claim of a replica is a full scan.
pub struct PostgresStore {
    connections: Connections,
    /// The SQL to begin a transaction.
    begin: String,
    /// The quoted name of the schema, with a dot at the end.
    schema: String,
    prepares: bool,
    check_interval: Duration,
    timeout: Duration,
    changes: Changes,
    notifications: Option<Notifications>,
    due_bounds: DueBounds,
}

impl PostgresStore {
    /// The SQL that creates the tables, to be run separately: with `psql` and the schema in the search path. Its first
    /// lines explain how. Running it again changes nothing.
    pub const SCHEMA: &'static str = concat!(
        include_str!("postgres/schema.sql"),
        include_str!("postgres/schema_4.sql"),
        include_str!("postgres/schema_5.sql")
    );

    /// Connects to the database. Call [`migrate`](Self::migrate) next.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreProblem::Unavailable) if the database cannot be reached;
    /// [`Unusable`](super::StoreProblem::Unusable) if the connection string is invalid, or the database rejects the
    /// login or commits asynchronously.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).connect().await
    }

    /// Returns a builder, for settings other than the defaults.
    pub fn builder(url: &str) -> PostgresStoreBuilder {
        PostgresStoreBuilder::new(url)
    }

    /// Creates the schema and its tables, or brings them up to date.
    ///
    /// If they are up to date, it does nothing and needs no privilege to change them. Replicas may call it at the same
    /// time.
    ///
    /// # Errors
    ///
    /// Those of any call, and
    ///
    /// - [`Unusable`](super::StoreProblem::Unusable) if the role may not create tables, or a newer release has changed
    ///   the tables so that this release cannot use them;
    /// - [`Unavailable`](super::StoreProblem::Unavailable) if it waited for half of the
    ///   [timeout](PostgresStoreBuilder::timeout) for the migration of another replica or for a transaction that uses
    ///   the tables. Call it again.
    /// - [`Unavailable`](super::StoreProblem::Unavailable) if the tables have version 1 or 2 and replicas of an older
    ///   release are running. Stop them, and call it again.
    ///
    /// Once it has its locks, no timeout applies, because creating an index of a large table takes long.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let connection = self.bounded(self.connections.take()).await?;
        let begin = session::begin_migration(self.timeout);
        let session = self.session_on(connection, &begin).in_transaction();
        migration::migrate(&session, &self.schema).await?;
        session.commit().await
    }

    async fn session(&self) -> Result<Session<'_>, StoreError> {
        let connection = self.connections.take().await?;
        Ok(self.session_on(connection, &self.begin))
    }

    fn session_on<'a>(&'a self, connection: Object<Manager>, begin: &'a str) -> Session<'a> {
        let session = Session::new(&self.connections, connection, &self.schema, begin);
        if self.prepares { session } else { session.without_prepared_statements() }
    }

    /// Takes a session for one transaction.
    async fn transaction(&self) -> Result<Session<'_>, StoreError> {
        Ok(self.session().await?.in_transaction())
    }

    /// Ends a call with an error if the database does not answer, for example because a firewall has dropped the
    /// connection. A reachable server would have answered earlier, because its own limits are shorter.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let generation = self.connections.generation();
        let mut call = pin!(call);
        tokio::select! {
            biased;
            result = &mut call => result,
            () = SystemClock.sleep(self.timeout) => {
                // This must happen before the call is dropped.
                self.connections.discard(generation);
                Err(problem::no_answer_within(self.timeout))
            }
        }
    }

    /// Runs a call and notifies waiters of its changes. They may have happened even if the call failed.
    async fn bounded_and_notify<T>(
        &self,
        changed: impl Fn(Option<&T>) -> Changed,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = self.bounded(call).await;
        let changed = changed(result.as_ref().ok());
        self.changes.notify(changed);
        // Other replicas poll the store often enough for rows that become due later.
        self.announce(Changed { work: false, ..changed });
        result
    }

    async fn hold(&self, held: Vec<HeldOutcome>, due_in: Duration, hold: Hold) -> Result<Vec<bool>, StoreError> {
        let changed = |holds: Option<&Vec<Held>>| Changed {
            work: false,
            outcomes: holds.is_none_or(|holds| holds.contains(&Held::Sooner)),
        };
        let call = async {
            let session = self.session().await?;
            let holds = outcomes::hold(&session, &held, due_in, hold).await?;
            session.finish();
            Ok(holds)
        };
        let holds = self.bounded_and_notify(changed, call).await?;
        Ok(holds.into_iter().map(|hold| hold != Held::NoLonger).collect())
    }

    /// Notifies other replicas.
    fn announce(&self, changed: Changed) {
        if let Some(notifications) = &self.notifications {
            notifications.announce(changed);
        }
    }
}

impl Store for PostgresStore {
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>> {
        Box::pin(self.bounded_and_notify(|_| Changed::WORK, async move {
            let session = self.transaction().await?;
            let began = SystemClock.monotonic();
            let insertion = work::insert(&session, &process).await?;
            session.commit().await?;
            self.due_bounds.wrote(SystemClock.monotonic().saturating_sub(began));
            Ok(insertion)
        }))
    }

    fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<Claim>,
    ) -> BoxFuture<'_, Result<Work, StoreError>> {
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
        Box::pin(self.bounded_and_notify(move |_| changed, call))
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
        Box::pin(self.bounded_and_notify(|_| Changed::WORK, async move {
            let session = self.session().await?;
            let began = SystemClock.monotonic();
            let pinged = work::ping(&session, &ping).await?;
            session.finish();
            self.due_bounds.wrote(SystemClock.monotonic().saturating_sub(began));
            if matches!(pinged, Pinged::Recorded { .. }) {
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

    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<OutcomeBatch, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.transaction().await?;
            let (outcomes, found) = outcomes::claim_outcomes(&session, &self.due_bounds, &claim).await?;
            session.commit().await?;
            self.due_bounds.learn_of_outcomes(&found);
            Ok(outcomes)
        }))
    }

    fn extend_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.hold(held, due_in, Hold::Extended))
    }

    fn release_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.hold(held, due_in, Hold::Released))
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

    fn expire_outcomes(
        &self,
        decided_for: Duration,
        keep: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ProcessId>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let expired = outcomes::expire(&session, decided_for, keep, limit).await?;
            session.finish();
            Ok(expired)
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
            let spread = due_times::spread(&session, partition, overdue_for, limit).await?;
            session.finish();
            self.due_bounds.forget();
            Ok(spread)
        }))
    }

    fn not_sealed_with(
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
            // Rows that could not be opened here may have been due for a long time.
            self.due_bounds.forget();
            Ok(resealed)
        }))
    }

    fn correct_due_times(&self, step: CorrectionStep) -> BoxFuture<'_, Result<CorrectionProgress, StoreError>> {
        let changed = |progress: Option<&CorrectionProgress>| match progress {
            Some(CorrectionProgress::Done) => Changed::ALL,
            _ => Changed::NOTHING,
        };
        Box::pin(self.bounded_and_notify(changed, async move {
            let session = self.transaction().await?;
            let progress = due_times::correct_due_times(&session, &step).await?;
            session.commit().await?;
            self.due_bounds.forget();
            Ok(progress)
        }))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        Box::pin(self.all_keys())
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        Box::pin(self.all_stats())
    }

    fn note_clients(&self, clients: Vec<ClientNote>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            clients::note(&session, &clients).await?;
            session.finish();
            Ok(())
        }))
    }

    fn known_clients(&self, partitions: Vec<Partition>) -> BoxFuture<'_, Result<Vec<KnownClient>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let known = clients::known(&session, &partitions).await?;
            session.finish();
            Ok(known)
        }))
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let page = operators::list(&session, &listing).await?;
            session.finish();
            Ok(page)
        }))
    }

    fn bring_forward(&self, id: ProcessId) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        Box::pin(self.bounded_and_notify(|_| Changed::WORK, async move {
            let session = self.session().await?;
            let pinged = operators::bring_forward(&session, id).await?;
            session.finish();
            self.announce(Changed::WORK);
            Ok(pinged)
        }))
    }

    fn requeue(&self, id: ProcessId) -> BoxFuture<'_, Result<Requeued, StoreError>> {
        let changed = |requeued: Option<&Requeued>| requeued.map_or(Changed::ALL, |requeued| requeued.changed());
        Box::pin(self.bounded_and_notify(changed, async move {
            let session = self.session().await?;
            let requeued = operators::requeue(&session, id).await?;
            session.finish();
            self.due_bounds.forget();
            Ok(requeued)
        }))
    }

    fn erase(&self, id: ProcessId) -> BoxFuture<'_, Result<Erased, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.transaction().await?;
            let erased = operators::erase(&session, id).await?;
            session.commit().await?;
            Ok(erased)
        }))
    }

    fn export(&self, after: Option<ProcessId>, limit: usize) -> BoxFuture<'_, Result<Vec<StoredRow>, StoreError>> {
        Box::pin(self.bounded(async move {
            let session = self.session().await?;
            let rows = transfer::export(&session, after, limit).await?;
            session.finish();
            Ok(rows)
        }))
    }

    fn import(&self, rows: Vec<StoredRow>) -> BoxFuture<'_, Result<Vec<Imported>, StoreError>> {
        Box::pin(self.bounded_and_notify(|_| Changed::ALL, async move {
            let session = self.transaction().await?;
            let imported = transfer::import(&session, &rows).await?;
            session.commit().await?;
            // The rows may have been due for a long time.
            self.due_bounds.forget();
            Ok(imported)
        }))
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.changes.next()
    }

    fn check_interval(&self) -> Duration {
        self.check_interval
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresStore").field("schema", &self.schema).finish_non_exhaustive()
    }
}
