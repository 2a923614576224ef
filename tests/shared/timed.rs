//! A store in a database, on a clock that jumps as soon as all tasks sleep. The clock stands still during a call that
//! runs on another thread or machine.

use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::store::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClientNote, CorrectionProgress, CorrectionStep,
    HeldOutcome, Insertion, KeyStats, NewProcess, OutcomeBatch, OutcomeClaim, Partition, PartitionStats, Ping, Pinged,
    Process, ProcessId, Reseal, Settlement, Store, StoreError, Work,
};
use openid_deferred::testing::TestClock;

/// Sets the database's clock to the test's time. It does nothing if the store reads the test's clock itself.
pub type SetClock = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

pub struct Timed {
    store: Arc<dyn Store>,
    clock: TestClock,
    set_clock: SetClock,
}

impl Timed {
    pub fn around(store: Arc<dyn Store>, clock: &TestClock, set_clock: SetClock) -> Arc<dyn Store> {
        Arc::new(Self { store, clock: clock.clone(), set_clock })
    }

    fn hold<'a, T: 'a>(&'a self, call: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, T> + Send + 'a) -> BoxFuture<'a, T> {
        Box::pin(async move {
            let _hold = self.clock.hold();
            (self.set_clock)().await;
            call(&*self.store).await
        })
    }
}

impl std::fmt::Debug for Timed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(formatter)
    }
}

impl Store for Timed {
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>> {
        self.hold(|store| store.insert(process))
    }

    fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<Claim>,
    ) -> BoxFuture<'_, Result<Work, StoreError>> {
        self.hold(|store| store.settle_and_claim(settlements, claim))
    }

    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>> {
        self.hold(move |store| store.load(id))
    }

    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        self.hold(|store| store.ping(ping))
    }

    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>> {
        self.hold(move |store| store.cancel(id, to))
    }

    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<OutcomeBatch, StoreError>> {
        self.hold(|store| store.claim_outcomes(claim))
    }

    fn extend_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.hold(move |store| store.extend_outcomes(held, due_in))
    }

    fn release_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.hold(move |store| store.release_outcomes(held, due_in))
    }

    fn acknowledge(
        &self,
        acknowledgements: Vec<Acknowledgement>,
    ) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>> {
        self.hold(|store| store.acknowledge(acknowledgements))
    }

    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.hold(move |store| store.forget(id))
    }

    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.hold(move |store| store.purge(limit))
    }

    fn expire_outcomes(
        &self,
        decided_for: Duration,
        keep: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ProcessId>, StoreError>> {
        self.hold(move |store| store.expire_outcomes(decided_for, keep, limit))
    }

    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.hold(move |store| store.spread(partition, overdue_for, limit))
    }

    fn not_sealed_with(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        self.hold(move |store| store.not_sealed_with(key, after, limit))
    }

    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.hold(|store| store.reseal(reseals))
    }

    fn correct_due_times(&self, step: CorrectionStep) -> BoxFuture<'_, Result<CorrectionProgress, StoreError>> {
        self.hold(move |store| store.correct_due_times(step))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        self.hold(|store| store.keys())
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        self.hold(|store| store.stats())
    }

    fn note_clients(&self, clients: Vec<ClientNote>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.hold(|store| store.note_clients(clients))
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.store.changed()
    }

    fn check_interval(&self) -> Duration {
        self.store.check_interval()
    }
}
