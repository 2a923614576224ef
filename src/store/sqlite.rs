//! A store in a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use rusqlite::Connection;

use super::changes::Changes;
use super::rules::Held;
use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, Clamp, Clamped, HeldOutcome, Insertion, KeyStats,
    NewProcess, OutcomeClaim, Outcomes, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Reseal,
    Settlement, Store, StoreError, Work,
};
use crate::clock::{Clock, SystemClock};

mod file;
mod moment;
mod problem;
mod table;
mod thread;

use moment::Moment;
use thread::{Role, Worker};

/// A [`Store`] in a file, for one machine: nothing to install and nothing to run beside the application.
///
/// ```
/// use std::sync::Arc;
/// use openid_deferred::store::{SqliteStore, Store};
///
/// # async fn open(path: &std::path::Path) -> Result<(), openid_deferred::store::StoreError> {
/// let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path).await?);
/// assert!(!store.is_ephemeral());
/// assert!(store.stats().await?.is_empty());
/// # Ok(())
/// # }
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("deferred.sqlite");
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(open(&path)).unwrap();
/// ```
///
/// # The file
///
/// It is made if it is missing, readable for the present user alone, and gets two companions, `-wal` and `-shm`, while
/// it is open. Back it up with SQLite's own means, such as `VACUUM INTO`: a copy of the file without its companions is
/// not a copy of the data. Bodies in it are sealed; identifiers and schedules are not.
///
/// What was answered has reached the disk (`synchronous=FULL`). The file has to lie on a local file system, for SQLite
/// locks it through shared memory; on Linux the usual network file systems are refused. A file of another application,
/// a damaged one, and one that a newer release has extended are refused too.
///
/// # Concurrency
///
/// One thread writes. What many tasks ask of it at the same time goes into one transaction, each call in a savepoint,
/// and is answered after the commit. A second thread reads. Both end when the store is dropped, which does not wait
/// for them. Several stores, in one process or in many, may have the file open; what one of them changes is seen by
/// the [`changed`](Store::changed) of the others within about 100 ms. Calls fail with
/// [`Unavailable`](super::StoreProblem::Unavailable) when another process locks the file for longer than the
/// [`busy_timeout`](SqliteStoreBuilder::busy_timeout).
///
/// Due times are those of the wall clock, so that they outlive the process.
pub struct SqliteStore {
    path: PathBuf,
    writer: Worker,
    reader: Worker,
    changes: Changes,
}

/// Settings of a [`SqliteStore`], beginning with [`SqliteStore::builder`] and ending with [`open`](Self::open).
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteStoreBuilder {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    busy_timeout: Duration,
}

impl SqliteStore {
    /// Opens the file, and makes it if it is missing. Its folder has to exist.
    ///
    /// # Errors
    ///
    /// [`Unusable`](super::StoreProblem::Unusable) where the file cannot be used as it is, for the reasons given
    /// [above](Self#the-file) or for its permissions; [`Unavailable`](super::StoreProblem::Unavailable) where another
    /// process locks it for long or the disk is full.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder(path).open().await
    }

    /// The same with other settings than the usual ones.
    pub fn builder(path: impl AsRef<Path>) -> SqliteStoreBuilder {
        SqliteStoreBuilder {
            path: path.as_ref().to_owned(),
            clock: Arc::new(SystemClock),
            busy_timeout: Duration::from_secs(5),
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection, Moment) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.call(|_| Changed::NOTHING, call).await
    }

    /// The same for calls after which somebody may have something to do, which the answer tells.
    async fn write_and_tell<T: Send + 'static>(
        &self,
        changed: impl Fn(&T) -> Changed + Send + 'static,
        call: impl FnOnce(&Connection, Moment) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.call(changed, call).await
    }

    async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection, Moment) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader.call(|_| Changed::NOTHING, call).await
    }
}

impl SqliteStoreBuilder {
    /// The clock by which rows become due. All who share the file have to agree on it.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long to wait for a lock that another process holds. 5 s unless told.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Opens the file, and makes it if it is missing.
    ///
    /// # Errors
    ///
    /// See [`SqliteStore::open`].
    pub async fn open(self) -> Result<SqliteStore, StoreError> {
        let Self { path, clock, busy_timeout } = self;
        let changes = Changes::new();
        let start = |role| {
            Worker::start(role, clock.clone(), changes.clone(), {
                let path = path.clone();
                move || {
                    let path = file::prepare(&path)?;
                    match role {
                        Role::Writer => file::open_writer(&path, busy_timeout),
                        Role::Reader => file::open_reader(&path, busy_timeout),
                    }
                }
            })
        };
        let writer = start(Role::Writer).await?;
        let reader = start(Role::Reader).await?;
        Ok(SqliteStore { path, writer, reader, changes })
    }
}

impl Store for SqliteStore {
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>> {
        Box::pin(self.write_and_tell(|_| Changed::WORK, move |file, now| table::insert(file, now, &process)))
    }

    fn work(&self, settlements: Vec<Settlement>, claim: Option<Claim>) -> BoxFuture<'_, Result<Work, StoreError>> {
        let changed = Changed::after(&settlements, claim.as_ref());
        let call = move |file: &Connection, now| table::work(file, now, &settlements, claim.as_ref());
        Box::pin(self.write_and_tell(move |_| changed, call))
    }

    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>> {
        Box::pin(self.read(move |file, now| table::load(file, now, id)))
    }

    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        Box::pin(self.write_and_tell(|_| Changed::WORK, move |file, now| table::ping(file, now, &ping)))
    }

    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>> {
        Box::pin(self.write(move |file, _| table::cancel(file, id, to)))
    }

    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<Outcomes, StoreError>> {
        Box::pin(self.write(move |file, now| table::claim_outcomes(file, now, &claim)))
    }

    fn hold_outcomes(&self, held: Vec<HeldOutcome>, due_in: Duration) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        let changed = |holds: &Vec<Held>| Changed { work: false, outcomes: holds.contains(&Held::Sooner) };
        let call = self.write_and_tell(changed, move |file, now| table::hold(file, now, &held, due_in));
        Box::pin(async { Ok(call.await?.into_iter().map(|hold| hold != Held::NoLonger).collect()) })
    }

    fn acknowledge(
        &self,
        acknowledgements: Vec<Acknowledgement>,
    ) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>> {
        Box::pin(self.write(move |file, now| table::acknowledge(file, now, &acknowledgements)))
    }

    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.write(move |file, _| table::forget(file, id)))
    }

    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(self.write(move |file, now| table::purge(file, now, limit)))
    }

    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(self.write(move |file, now| table::spread(file, now, partition, overdue_for, limit)))
    }

    fn sealed_otherwise(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        Box::pin(self.read(move |file, now| table::sealed_otherwise(file, now, key, after, limit)))
    }

    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.write(move |file, _| table::reseal(file, &reseals)))
    }

    fn clamp_due_times(&self, clamp: Clamp) -> BoxFuture<'_, Result<Clamped, StoreError>> {
        let changed = |clamped: &Clamped| if *clamped == Clamped::Done { Changed::ALL } else { Changed::NOTHING };
        Box::pin(self.write_and_tell(changed, move |file, now| table::clamp_due_times(file, now, &clamp)))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        Box::pin(self.read(|file, _| table::keys(file)))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        Box::pin(self.read(table::stats))
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.changes.next()
    }

    fn look_every(&self) -> Duration {
        // All changes are told, but due times are those of a wall clock that may jump.
        Duration::from_secs(5)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}
