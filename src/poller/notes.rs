//! Notes about clients in the store, for operators: their names, and which of them their OPs refuse.
//!
//! Nothing depends on the notes. A note that could not be stored is tried again a minute later.

use super::circuit_breaker::BreakerChange;
use super::reminders::Cause;
use super::shared::Shared;
use super::tenant::Tenant;
use crate::error::Error;
use crate::store::{Acceptance, StoreError};

/// The number of clients that one call of the store notes.
const BATCH: usize = 500;

impl Shared {
    /// Notes clients that are new, and those that their OPs still refuse.
    pub(super) async fn note_clients(&self) {
        let tenants: Vec<_> = self.tenants().values().cloned().collect();
        let pending: Vec<_> = tenants.iter().filter_map(|tenant| Some((tenant, tenant.pending_note()?))).collect();
        for batch in pending.chunks(BATCH) {
            let notes = batch.iter().map(|(_, note)| note.clone()).collect();
            match self.store.note_clients(notes).await {
                Ok(()) => batch.iter().for_each(|(tenant, _)| tenant.set_noted()),
                Err(error) => return self.not_noted(error),
            }
        }
    }

    /// Notes at once that an OP has begun to refuse a client, or accepts it again.
    pub(super) fn note_change(&self, tenant: &Tenant, change: &BreakerChange) {
        let acceptance = match change {
            BreakerChange::Trips { .. } => Acceptance::Refused,
            BreakerChange::Resets => Acceptance::Accepted,
            BreakerChange::Nothing | BreakerChange::ProbesAgain => return,
        };
        let (store, note) = (self.store.clone(), tenant.note(acceptance));
        self.run(Box::pin(async move {
            if let Err(error) = store.note_clients(vec![note]).await {
                let error = Error::from(error);
                tracing::debug!(error = %error, "whether the OP accepts a client could not be noted in the store");
            }
        }));
    }

    /// Not an alert: only the tools for operators depend on the names.
    fn not_noted(&self, error: StoreError) {
        if self.is_due(Cause::ClientNotes) {
            let error = Error::from(error);
            tracing::warn!(
                error = %error,
                "the names of clients could not be recorded in the store, where operators see them; this is tried again"
            );
        }
    }
}
