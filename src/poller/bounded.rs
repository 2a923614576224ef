//! A store whose calls have a time limit, in case a disk or a driver hangs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;

use crate::clock::Clock;
use crate::store::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClientNote, CorrectionProgress, CorrectionStep,
    Erased, HeldOutcome, Imported, Insertion, KeyStats, KnownClient, Listing, NewProcess, OutcomeBatch, OutcomeClaim,
    Page, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Requeued, Reseal, Settlement, Store, StoreError,
    StoreProblem, StoredRow, Work,
};

/// The time after which a call counts as failed and is dropped.
///
/// The store may still execute it. The lease of a claim expires by itself, and all other calls can be repeated.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for calls that read all rows, of which there may be millions.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// The store of the application, with a time limit for each call.
pub(super) struct BoundedStore {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl BoundedStore {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }
}

/// Returns the answer to a call, or an error if the call takes longer than `limit`.
pub(super) async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    call: BoxFuture<'_, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::select! {
        biased;
        answer = call => answer,
        () = clock.sleep(limit) => {
            let seconds = limit.as_secs();
            let why = format!("the store did not answer a call within {seconds} s; check whether its disk or its server hangs");
            Err(StoreError::new(StoreProblem::Unavailable).with_source(why))
        }
    }
}

macro_rules! bound {
    ($($limit:ident: $method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {$(
        fn $method(&self, $($name: $type),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            Box::pin(async move { within(&*self.clock, $limit, self.store.$method($($name),*)).await })
        }
    )*};
}

impl Store for BoundedStore {
    bound! {
        CALL_TIMEOUT: insert(process: NewProcess) -> Insertion;
        CALL_TIMEOUT: settle_and_claim(settlements: Vec<Settlement>, claim: Option<Claim>) -> Work;
        CALL_TIMEOUT: load(id: ProcessId) -> Option<Process>;
        CALL_TIMEOUT: ping(ping: Ping) -> Pinged;
        CALL_TIMEOUT: cancel(id: ProcessId, to: Cancellation) -> Option<Cancellation>;
        CALL_TIMEOUT: claim_outcomes(claim: OutcomeClaim) -> OutcomeBatch;
        CALL_TIMEOUT: extend_outcomes(held: Vec<HeldOutcome>, due_in: Duration) -> Vec<bool>;
        CALL_TIMEOUT: release_outcomes(held: Vec<HeldOutcome>, due_in: Duration) -> Vec<bool>;
        CALL_TIMEOUT: acknowledge(acknowledgements: Vec<Acknowledgement>) -> Vec<Acknowledged>;
        CALL_TIMEOUT: forget(id: ProcessId) -> bool;
        CALL_TIMEOUT: purge(limit: usize) -> usize;
        CALL_TIMEOUT: expire_outcomes(decided_for: Duration, keep: Duration, limit: usize) -> Vec<ProcessId>;
        CALL_TIMEOUT: spread(partition: Partition, overdue_for: Duration, limit: usize) -> usize;
        CALL_TIMEOUT: correct_due_times(step: CorrectionStep) -> CorrectionProgress;
        COUNT_TIMEOUT: not_sealed_with(key: [u8; 4], after: Option<ProcessId>, limit: usize) -> Vec<Process>;
        CALL_TIMEOUT: reseal(reseals: Vec<Reseal>) -> Vec<bool>;
        COUNT_TIMEOUT: keys() -> Vec<KeyStats>;
        COUNT_TIMEOUT: stats() -> Vec<PartitionStats>;
        CALL_TIMEOUT: note_clients(clients: Vec<ClientNote>) -> ();
        CALL_TIMEOUT: known_clients(partitions: Vec<Partition>) -> Vec<KnownClient>;
        CALL_TIMEOUT: list(listing: Listing) -> Page;
        CALL_TIMEOUT: bring_forward(id: ProcessId) -> Pinged;
        CALL_TIMEOUT: requeue(id: ProcessId) -> Requeued;
        CALL_TIMEOUT: erase(id: ProcessId) -> Erased;
        CALL_TIMEOUT: scrub() -> bool;
        CALL_TIMEOUT: export(after: Option<ProcessId>, limit: usize) -> Vec<StoredRow>;
        CALL_TIMEOUT: import(rows: Vec<StoredRow>) -> Vec<Imported>;
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.store.changed()
    }

    fn check_interval(&self) -> Duration {
        self.store.check_interval()
    }

    fn is_ephemeral(&self) -> bool {
        self.store.is_ephemeral()
    }
}

impl fmt::Debug for BoundedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(formatter)
    }
}
