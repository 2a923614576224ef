//! A store in the memory of one process.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;

use super::changes::Changes;
use super::rules::{Held, Hold};
use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClientNote, CorrectionProgress, CorrectionStep,
    Erased, HeldOutcome, Imported, Insertion, KeyStats, KnownClient, Listing, NewProcess, OutcomeBatch, OutcomeClaim,
    Page, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Requeued, Reseal, Settlement, Store, StoreError,
    StoredRow, Work,
};
use crate::clock::{Clock, SystemClock, saturating_add};

use table::{Claims, Table};

mod row;
mod table;

/// A [`Store`] in memory, for tests and development, and the shortest complete example of the contract.
///
/// Its contents are lost when the process ends.
///
/// Share it among pollers by cloning its `Arc`.
///
/// ```
/// use std::sync::Arc;
/// use openid_deferred::store::{MemoryStore, Store};
///
/// let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
/// assert!(store.is_ephemeral());
/// ```
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    /// The wall clock at zero of the monotonic clock. Due times are on the monotonic clock, which does not jump.
    origin: SystemTime,
    table: Mutex<Table>,
    changes: Changes,
}

impl MemoryStore {
    /// Creates an empty store that uses the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// Creates an empty store that uses this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let origin = clock.now().checked_sub(clock.monotonic()).unwrap_or(SystemTime::UNIX_EPOCH);
        Self { clock, origin, table: Mutex::default(), changes: Changes::new() }
    }

    fn run<'a, T: Send>(
        &'a self,
        call: impl FnOnce(&mut Table, Duration) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move { Ok(call(&mut self.table(), self.clock.monotonic())) })
    }

    /// Runs a call that also returns what it has changed, and notifies the waiters.
    fn run_and_notify<'a, T: Send>(
        &'a self,
        call: impl FnOnce(&mut Table, Duration) -> (T, Changed) + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move {
            let (answer, changed) = call(&mut self.table(), self.clock.monotonic());
            self.changes.notify(changed);
            Ok(answer)
        })
    }

    fn hold(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
        hold: Hold,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.run_and_notify(move |table, now| {
            let holds: Vec<_> = held.iter().map(|held| table.hold(held, now, due_in, hold)).collect();
            let outcomes = holds.contains(&Held::Sooner);
            (holds.into_iter().map(|hold| hold != Held::NoLonger).collect(), Changed { work: false, outcomes })
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>> {
        let origin = self.origin;
        self.run_and_notify(move |table, now| match table.existing(&process) {
            Some(existing) if existing != process.id => (Insertion::Exists(existing), Changed::NOTHING),
            existing => {
                if existing.is_none() {
                    table.insert(process, now);
                }
                (Insertion::Inserted { now: saturating_add(origin, now) }, Changed::WORK)
            }
        })
    }

    fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<Claim>,
    ) -> BoxFuture<'_, Result<Work, StoreError>> {
        let origin = self.origin;
        self.run_and_notify(move |table, now| {
            let changed = Changed::after(&settlements, claim.as_ref());
            let settled = settlements.into_iter().map(|settlement| table.settle(settlement, now)).collect();
            let claims = claim.map_or_else(Default::default, |claim| table.claim(&claim, now));
            let Claims { claimed, due, set_aside, correcting } = claims;
            let (now, corrected) = (saturating_add(origin, now), table.corrected());
            (Work { now, settled, claimed, due, set_aside, correcting, corrected }, changed)
        })
    }

    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>> {
        self.run(move |table, now| table.load(id, now))
    }

    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        self.run_and_notify(move |table, now| (table.ping(&ping, now), Changed::WORK))
    }

    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>> {
        self.run(move |table, _| table.cancel(id, to))
    }

    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<OutcomeBatch, StoreError>> {
        self.run(move |table, now| table.claim_outcomes(&claim, now))
    }

    fn extend_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.hold(held, due_in, Hold::Extended)
    }

    fn release_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.hold(held, due_in, Hold::Released)
    }

    fn acknowledge(
        &self,
        acknowledgements: Vec<Acknowledgement>,
    ) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>> {
        self.run(move |table, now| {
            acknowledgements.iter().map(|acknowledgement| table.acknowledge(acknowledgement, now)).collect()
        })
    }

    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.run(move |table, _| table.remove(id))
    }

    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.run(move |table, now| table.purge(limit, now))
    }

    fn expire_outcomes(
        &self,
        decided_for: Duration,
        keep: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ProcessId>, StoreError>> {
        self.run(move |table, now| table.expire_outcomes(decided_for, keep, limit, now))
    }

    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.run(move |table, now| table.spread(partition, overdue_for, limit, now))
    }

    fn correct_due_times(&self, step: CorrectionStep) -> BoxFuture<'_, Result<CorrectionProgress, StoreError>> {
        self.run_and_notify(move |table, now| {
            let progress = table.correct_due_times(&step, now);
            (progress, if progress == CorrectionProgress::Done { Changed::ALL } else { Changed::NOTHING })
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        self.run(|table, _| table.keys())
    }

    fn not_sealed_with(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        self.run(move |table, now| table.not_sealed_with(key, after, limit, now))
    }

    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.run(move |table, _| reseals.into_iter().map(|reseal| table.reseal(reseal)).collect())
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        self.run(|table, now| table.stats(now))
    }

    fn note_clients(&self, clients: Vec<ClientNote>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.run(move |table, now| table.note_clients(clients, now))
    }

    fn known_clients(&self, partitions: Vec<Partition>) -> BoxFuture<'_, Result<Vec<KnownClient>, StoreError>> {
        self.run(move |table, now| table.known_clients(&partitions, now))
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, StoreError>> {
        let origin = self.origin;
        self.run(move |table, now| table.list(&listing, now, origin))
    }

    fn bring_forward(&self, id: ProcessId) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        self.run_and_notify(move |table, now| (table.bring_forward(id, now), Changed::WORK))
    }

    fn requeue(&self, id: ProcessId) -> BoxFuture<'_, Result<Requeued, StoreError>> {
        self.run_and_notify(move |table, now| {
            let requeued = table.requeue(id, now);
            (requeued, requeued.changed())
        })
    }

    fn erase(&self, id: ProcessId) -> BoxFuture<'_, Result<Erased, StoreError>> {
        self.run(move |table, _| table.erase(id))
    }

    fn scrub(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        // There is no log.
        Box::pin(std::future::ready(Ok(true)))
    }

    fn export(&self, after: Option<ProcessId>, limit: usize) -> BoxFuture<'_, Result<Vec<StoredRow>, StoreError>> {
        let origin = self.origin;
        self.run(move |table, _| table.export(after, limit, origin))
    }

    fn import(&self, rows: Vec<StoredRow>) -> BoxFuture<'_, Result<Vec<Imported>, StoreError>> {
        let origin = self.origin;
        self.run_and_notify(move |table, _| {
            (rows.into_iter().map(|row| table.import(row, origin)).collect(), Changed::ALL)
        })
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.changes.next()
    }

    fn check_interval(&self) -> Duration {
        // Only this process changes the rows, and it notifies of every change.
        Duration::from_secs(3600)
    }

    fn is_ephemeral(&self) -> bool {
        true
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryStore").field("rows", &self.table().len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::store::contract::{self, Subject};
    use crate::testing::TestClock;

    struct InMemory(TestClock, Arc<MemoryStore>);

    impl Subject for InMemory {
        fn store(&self) -> Arc<dyn Store> {
            self.1.clone()
        }

        fn advance(&self, duration: Duration) -> BoxFuture<'_, ()> {
            self.0.advance(duration);
            Box::pin(std::future::ready(()))
        }

        fn lose_body(&self, id: ProcessId) -> BoxFuture<'_, bool> {
            self.1.table().lose_body(id);
            Box::pin(std::future::ready(true))
        }
    }

    #[tokio::test]
    async fn the_store_fulfils_its_contract() {
        contract::check(async || {
            let clock = TestClock::new();
            InMemory(clock.clone(), Arc::new(MemoryStore::with_clock(Arc::new(clock))))
        })
        .await;
    }
}
