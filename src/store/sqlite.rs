//! A store in an SQLite file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use rusqlite::Connection;

use super::changes::Changes;
use super::rules::{Held, Hold};
use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClientNote, CorrectionProgress, CorrectionStep,
    Erased, HeldOutcome, Imported, Insertion, KeyStats, KnownClient, Listing, NewProcess, OutcomeBatch, OutcomeClaim,
    Page, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Requeued, Reseal, Settlement, Store, StoreError,
    StoredRow, Work,
};
use crate::clock::{Clock, SystemClock};

mod backup;
mod check;
mod file;
mod moment;
mod problem;
mod table;
mod thread;

pub use backup::Backup;
use moment::Moment;
use thread::{Role, Worker};

/// A [`Store`] in an SQLite file, for one machine. It needs no installation and no server.
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
/// If the file does not exist, it is created, readable for the current user only. While it is open, it has two
/// companion files, `-wal` and `-shm`. Back it up with [`backup`](Self::backup), because a copy of the file without its
/// companions lacks the latest changes, or even the tables. Bodies are sealed; identifiers, schedules and the names of
/// clients are not.
///
/// Calls are answered after their changes have reached the disk (`synchronous=FULL`). The file must be on a local file
/// system, because SQLite locks it through shared memory. On Linux, the common network file systems are refused. Files
/// of other applications, damaged files, and files with a schema that is too new for this release are refused too.
///
/// # Concurrency
///
/// One thread writes. It combines concurrent calls into one transaction, each in a savepoint, and answers them after
/// the commit. A second thread reads. Both end after the store is dropped; the drop does not wait for them. Several
/// stores, in one process or in many, can have the file open. [`changed`](Store::changed) reports the changes of other
/// stores within about 100 ms. Calls fail with [`Unavailable`](super::StoreProblem::Unavailable) when another process
/// locks the file for longer than the [`busy_timeout`](SqliteStoreBuilder::busy_timeout).
///
/// Due times are on the wall clock, so that they survive a restart.
pub struct SqliteStore {
    path: PathBuf,
    writer: Worker,
    reader: Worker,
    changes: Changes,
}

/// Settings of a [`SqliteStore`]. Start with [`SqliteStore::builder`] and finish with [`open`](Self::open).
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteStoreBuilder {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    busy_timeout: Duration,
}

impl SqliteStore {
    /// Opens the file, and creates it if it does not exist. Its directory must exist.
    ///
    /// # Errors
    ///
    /// [`Unusable`](super::StoreProblem::Unusable) if the file cannot be used for one of the reasons
    /// [above](Self#the-file) or because of its permissions; [`Unavailable`](super::StoreProblem::Unavailable) if
    /// another process locks it for too long or the disk is full.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder(path).open().await
    }

    /// Returns a builder, for settings other than the defaults.
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

    /// Runs a call and notifies the waiters of the changes that `changed` derives from its answer.
    async fn write_and_notify<T: Send + 'static>(
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

    async fn hold(&self, held: Vec<HeldOutcome>, due_in: Duration, hold: Hold) -> Result<Vec<bool>, StoreError> {
        let changed = |holds: &Vec<Held>| Changed { work: false, outcomes: holds.contains(&Held::Sooner) };
        let call = move |file: &Connection, now| table::hold(file, now, &held, due_in, hold);
        let holds = self.write_and_notify(changed, call).await?;
        Ok(holds.into_iter().map(|hold| hold != Held::NoLonger).collect())
    }
}

impl SqliteStoreBuilder {
    /// Sets the clock by which rows become due. All stores with this file must use the same time.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how long to wait for a lock that another process holds; 5 s by default.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Opens the file, and creates it if it does not exist.
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
        Box::pin(self.write_and_notify(|_| Changed::WORK, move |file, now| table::insert(file, now, &process)))
    }

    fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<Claim>,
    ) -> BoxFuture<'_, Result<Work, StoreError>> {
        let changed = Changed::after(&settlements, claim.as_ref());
        let call = move |file: &Connection, now| table::work(file, now, &settlements, claim.as_ref());
        Box::pin(self.write_and_notify(move |_| changed, call))
    }

    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>> {
        Box::pin(self.read(move |file, now| table::load(file, now, id)))
    }

    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        Box::pin(self.write_and_notify(|_| Changed::WORK, move |file, now| table::ping(file, now, &ping)))
    }

    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>> {
        Box::pin(self.write(move |file, _| table::cancel(file, id, to)))
    }

    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<OutcomeBatch, StoreError>> {
        Box::pin(self.write(move |file, now| table::claim_outcomes(file, now, &claim)))
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
        Box::pin(self.write(move |file, now| table::acknowledge(file, now, &acknowledgements)))
    }

    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.write(move |file, _| table::forget(file, id)))
    }

    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(self.write(move |file, now| table::purge(file, now, limit)))
    }

    fn expire_outcomes(
        &self,
        decided_for: Duration,
        keep: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ProcessId>, StoreError>> {
        Box::pin(self.write(move |file, now| table::expire_outcomes(file, now, decided_for, keep, limit)))
    }

    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(self.write(move |file, now| table::spread(file, now, partition, overdue_for, limit)))
    }

    fn not_sealed_with(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        Box::pin(self.read(move |file, now| table::not_sealed_with(file, now, key, after, limit)))
    }

    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.write(move |file, _| table::reseal(file, &reseals)))
    }

    fn correct_due_times(&self, step: CorrectionStep) -> BoxFuture<'_, Result<CorrectionProgress, StoreError>> {
        let changed = |progress: &CorrectionProgress| {
            if *progress == CorrectionProgress::Done { Changed::ALL } else { Changed::NOTHING }
        };
        Box::pin(self.write_and_notify(changed, move |file, now| table::correct_due_times(file, now, &step)))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        Box::pin(self.read(|file, _| table::keys(file)))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        Box::pin(self.read(table::stats))
    }

    fn note_clients(&self, clients: Vec<ClientNote>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write(move |file, now| table::note_clients(file, now, &clients)))
    }

    fn known_clients(&self, partitions: Vec<Partition>) -> BoxFuture<'_, Result<Vec<KnownClient>, StoreError>> {
        Box::pin(self.read(move |file, now| table::known_clients(file, now, &partitions)))
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.read(move |file, now| table::list(file, now, &listing)))
    }

    fn bring_forward(&self, id: ProcessId) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        Box::pin(self.write_and_notify(|_| Changed::WORK, move |file, now| table::bring_forward(file, now, id)))
    }

    fn requeue(&self, id: ProcessId) -> BoxFuture<'_, Result<Requeued, StoreError>> {
        let changed = |requeued: &Requeued| requeued.changed();
        Box::pin(self.write_and_notify(changed, move |file, now| table::requeue(file, now, id)))
    }

    fn erase(&self, id: ProcessId) -> BoxFuture<'_, Result<Erased, StoreError>> {
        Box::pin(self.write(move |file, _| table::erase(file, id)))
    }

    fn scrub(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        let path = self.path.clone();
        Box::pin(async move {
            let empty = tokio::task::spawn_blocking(move || file::empty_log(&path));
            empty.await.unwrap_or_else(|_| Err(problem::thread_has_ended()))
        })
    }

    fn export(&self, after: Option<ProcessId>, limit: usize) -> BoxFuture<'_, Result<Vec<StoredRow>, StoreError>> {
        Box::pin(self.read(move |file, _| table::export(file, after, limit)))
    }

    fn import(&self, rows: Vec<StoredRow>) -> BoxFuture<'_, Result<Vec<Imported>, StoreError>> {
        Box::pin(self.write_and_notify(|_| Changed::ALL, move |file, _| table::import(file, &rows)))
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.changes.next()
    }

    fn check_interval(&self) -> Duration {
        // Waiters are notified of all changes, but due times are on a wall clock that may jump.
        Duration::from_secs(5)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}
