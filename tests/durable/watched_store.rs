//! A store that counts its calls and can be slow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::Clock as _;
use openid_deferred::store::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, Clamp, Clamped, HeldOutcome, Insertion, KeyStats,
    MemoryStore, NewProcess, OutcomeClaim, Outcomes, Partition, PartitionStats, Ping, Pinged, Process, ProcessId,
    Reseal, Settlement, Store, StoreError, Work,
};
use openid_deferred::testing::TestClock;

#[derive(Debug, Clone)]
pub struct WatchedStore(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    store: MemoryStore,
    clock: TestClock,
    calls: Mutex<BTreeMap<&'static str, usize>>,
    delays: Mutex<BTreeMap<&'static str, Duration>>,
}

impl WatchedStore {
    pub fn on(clock: &TestClock) -> Self {
        Self(Arc::new(Watched {
            store: MemoryStore::with_clock(Arc::new(clock.clone())),
            clock: clock.clone(),
            calls: Mutex::default(),
            delays: Mutex::default(),
        }))
    }

    /// How often this method was called since this was last asked.
    pub fn take_calls(&self, method: &str) -> usize {
        self.0.calls.lock().unwrap().remove(method).unwrap_or_default()
    }

    /// How often any method was called since this was last asked.
    pub fn take_all_calls(&self) -> usize {
        std::mem::take(&mut *self.0.calls.lock().unwrap()).values().sum()
    }

    /// From now on this method answers so much later than it has taken effect.
    pub fn delay(&self, method: &'static str, delay: Duration) {
        self.0.delays.lock().unwrap().insert(method, delay);
    }

    fn count(&self, method: &'static str) -> Option<Duration> {
        *self.0.calls.lock().unwrap().entry(method).or_default() += 1;
        self.0.delays.lock().unwrap().get(method).copied()
    }
}

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {$(
        fn $method(&self, $($name: $type),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            Box::pin(async move {
                let delay = self.count(stringify!($method));
                let answer = self.0.store.$method($($name),*).await;
                if let Some(delay) = delay {
                    self.0.clock.sleep(delay).await;
                }
                answer
            })
        }
    )*};
}

impl Store for WatchedStore {
    forward! {
        insert(process: NewProcess) -> Insertion;
        work(settlements: Vec<Settlement>, claim: Option<Claim>) -> Work;
        load(id: ProcessId) -> Option<Process>;
        ping(ping: Ping) -> Pinged;
        cancel(id: ProcessId, to: Cancellation) -> Option<Cancellation>;
        claim_outcomes(claim: OutcomeClaim) -> Outcomes;
        hold_outcomes(held: Vec<HeldOutcome>, due_in: Duration) -> Vec<bool>;
        acknowledge(acknowledgements: Vec<Acknowledgement>) -> Vec<Acknowledged>;
        forget(id: ProcessId) -> bool;
        purge(limit: usize) -> usize;
        spread(partition: Partition, overdue_for: Duration, limit: usize) -> usize;
        clamp_due_times(clamp: Clamp) -> Clamped;
        sealed_otherwise(key: [u8; 4], after: Option<ProcessId>, limit: usize) -> Vec<Process>;
        reseal(reseals: Vec<Reseal>) -> Vec<bool>;
        keys() -> Vec<KeyStats>;
        stats() -> Vec<PartitionStats>;
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.0.store.changed()
    }

    fn look_every(&self) -> Duration {
        self.0.store.look_every()
    }
}
