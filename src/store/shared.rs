//! Implements [`Store`] for a store behind an `Arc`.

use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClientNote, CorrectionProgress, CorrectionStep,
    Erased, HeldOutcome, Imported, Insertion, KeyStats, KnownClient, Listing, NewProcess, OutcomeBatch, OutcomeClaim,
    Page, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Requeued, Reseal, Settlement, Store, StoreError,
    StoredRow, Work,
};

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {$(
        fn $method(&self, $($name: $type),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            (**self).$method($($name),*)
        }
    )*};
}

impl<S: Store + ?Sized> Store for Arc<S> {
    forward! {
        insert(process: NewProcess) -> Insertion;
        settle_and_claim(settlements: Vec<Settlement>, claim: Option<Claim>) -> Work;
        load(id: ProcessId) -> Option<Process>;
        ping(ping: Ping) -> Pinged;
        cancel(id: ProcessId, to: Cancellation) -> Option<Cancellation>;
        claim_outcomes(claim: OutcomeClaim) -> OutcomeBatch;
        extend_outcomes(held: Vec<HeldOutcome>, due_in: Duration) -> Vec<bool>;
        release_outcomes(held: Vec<HeldOutcome>, due_in: Duration) -> Vec<bool>;
        acknowledge(acknowledgements: Vec<Acknowledgement>) -> Vec<Acknowledged>;
        forget(id: ProcessId) -> bool;
        purge(limit: usize) -> usize;
        expire_outcomes(decided_for: Duration, keep: Duration, limit: usize) -> Vec<ProcessId>;
        spread(partition: Partition, overdue_for: Duration, limit: usize) -> usize;
        correct_due_times(step: CorrectionStep) -> CorrectionProgress;
        not_sealed_with(key: [u8; 4], after: Option<ProcessId>, limit: usize) -> Vec<Process>;
        reseal(reseals: Vec<Reseal>) -> Vec<bool>;
        keys() -> Vec<KeyStats>;
        stats() -> Vec<PartitionStats>;
        note_clients(clients: Vec<ClientNote>) -> ();
        known_clients(partitions: Vec<Partition>) -> Vec<KnownClient>;
        list(listing: Listing) -> Page;
        bring_forward(id: ProcessId) -> Pinged;
        requeue(id: ProcessId) -> Requeued;
        erase(id: ProcessId) -> Erased;
        scrub() -> bool;
        export(after: Option<ProcessId>, limit: usize) -> Vec<StoredRow>;
        import(rows: Vec<StoredRow>) -> Vec<Imported>;
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        (**self).changed()
    }

    fn check_interval(&self) -> Duration {
        (**self).check_interval()
    }

    fn is_ephemeral(&self) -> bool {
        (**self).is_ephemeral()
    }
}
