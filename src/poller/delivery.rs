//! An outcome in the hands of the application, until it acknowledges the outcome.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::event::Event;
use super::measure;
use super::record::{Record, Stage};
use super::shared::Shared;
use crate::client::Outcome;
use crate::error::Error;
use crate::secret::Secret;
use crate::store::{Acknowledgement, Cancellation, ClaimedOutcome, HeldOutcome, ProcessId};
use crate::trace_parent::TraceParent;

/// An outcome. Handle it and then [acknowledge](Self::acknowledge) it.
///
/// While it exists, no other stream gets it, for an hour at most (see
/// [`longest_delivery`](super::PollerBuilder::longest_delivery)). After that it is delivered again, and
/// [`Event::DeliveryOverdue`] names it. If it is dropped without an acknowledgement, it is delivered again after 30
/// seconds. The pause doubles each time that the same program drops it, up to an hour. If the program dies, it is
/// delivered again when the lease expires (five minutes by default).
///
/// Handle outcomes idempotently, for example by storing [`id`](Self::id) together with the result. A repeated outcome
/// changes nothing, with one exception: a stored [`Unknown`](Outcome::Unknown) or [`Failed`](Outcome::Failed) may be
/// followed by a late success, which replaces it: [`Approved`](Outcome::Approved), [`Issued`](Outcome::Issued), or
/// [`Invalid`](Outcome::Invalid) if it breaks a rule.
#[must_use = "an outcome that is not acknowledged is delivered again"]
pub struct Delivery {
    shared: Arc<Shared>,
    held: HeldOutcome,
    attempt: u32,
    provisional: bool,
    outcome: Outcome,
    context: Vec<u8>,
    trace_parent: Option<TraceParent>,
    rejected: Option<Secret>,
    is_settled: AtomicBool,
}

impl Delivery {
    pub(super) fn open(shared: Arc<Shared>, claimed: ClaimedOutcome) -> Option<Self> {
        let record = Record::open(&shared.keyring, claimed.held.id, &claimed.body).ok()?;
        let Stage::Outcome(stored) = record.stage else { return None };
        let mut outcome = match Outcome::from(stored) {
            Outcome::Approved(authentication) => Outcome::Approved(authentication.with_context(record.context.clone())),
            Outcome::Issued(tokens) => Outcome::Issued(tokens.with_context(record.context.clone())),
            outcome => outcome,
        };
        if claimed.cancellation != Cancellation::None {
            outcome = outcome.after_cancellation();
        }
        Some(Self {
            shared,
            held: claimed.held,
            attempt: claimed.attempts,
            provisional: claimed.provisional,
            outcome,
            context: record.context.to_vec(),
            trace_parent: record.trace_parent,
            rejected: record.rejected,
            is_settled: AtomicBool::new(false),
        })
    }

    /// The identifier of the sign-in.
    pub fn id(&self) -> ProcessId {
        self.held.id
    }

    /// How the sign-in ended.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The value that the application passed to [`context`](crate::AuthorizationRequest::context): what the sign-in is
    /// for, whichever page the user returned to.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// The [trace](crate::AuthorizationRequest::trace_parent) that the sign-in belongs to, as the value of a header
    /// `traceparent`, to continue it in the handling of the outcome.
    pub fn trace_parent(&self) -> Option<&str> {
        self.trace_parent.as_ref().map(TraceParent::as_str)
    }

    /// For [`Outcome::Invalid`]: the OP's response as received, for an analysis with the OP. The acknowledgement erases
    /// it. Do not use it to sign in a user, and do not log it. Its tokens were revoked as far as the OP allows.
    pub fn rejected_response(&self) -> Option<&Secret> {
        self.rejected.as_ref()
    }

    /// The number of claims for delivery, including this one. It includes claims that ended before the delivery, such
    /// as those of a dropped stream.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Records that the outcome was handled. It is erased and not delivered again. If a late success of the OP has
    /// replaced this outcome before the call, the new outcome is delivered. It can be called again.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store) if it could not be recorded. Call again, or let it be delivered again.
    pub async fn acknowledge(&self) -> Result<(), Error> {
        let keep = self.shared.settings.keep_tombstones;
        let acknowledgement = Acknowledgement { id: self.held.id, provisional: self.provisional, keep };
        let acknowledged = self.shared.store.acknowledge(vec![acknowledgement]).await;
        acknowledged.map_err(|error| Error::from(error).in_step("acknowledging an outcome"))?;
        self.is_settled.store(true, Ordering::Relaxed);
        self.shared.holdings().acknowledged(self.held);
        measure::acknowledged();
        self.shared.emit(Event::Acknowledged { id: self.held.id });
        Ok(())
    }

    /// Releases it for another delivery after this time.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store). The outcome is still delivered again when the lease expires.
    pub async fn retry_after(self, time: Duration) -> Result<(), Error> {
        self.is_settled.store(true, Ordering::Relaxed);
        self.shared.holdings().release(self.held);
        let held = self.shared.store.release_outcomes(vec![self.held], time).await;
        held.map(drop).map_err(|error| Error::from(error).in_step("postponing an outcome"))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.is_settled.load(Ordering::Relaxed) {
            return;
        }
        tracing::warn!(process = %self.held.id, "an outcome was not acknowledged; it will be delivered again");
        let pause = self.shared.holdings().drop_delivery(self.held, self.shared.clock.monotonic());
        release(&self.shared, self.held, pause);
    }
}

/// Releases an outcome. If the engine has ended, the claim expires instead.
fn release(shared: &Arc<Shared>, held: HeldOutcome, due_in: Duration) {
    let store = shared.store.clone();
    shared.run(Box::pin(async move {
        if let Err(error) = store.release_outcomes(vec![held], due_in).await {
            tracing::warn!(error = %error, "an outcome could not be released; its claim expires");
        }
    }));
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Delivery")
            .field("id", &self.held.id)
            .field("attempt", &self.attempt)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Renews the claims on the deliveries that the application holds.
    pub(super) async fn renew_deliveries(self: Arc<Self>) {
        self.drop_overdue_deliveries();
        let claims = self.holdings().handed_out();
        if claims.is_empty() {
            return;
        }
        match self.store.extend_outcomes(claims.clone(), self.settings.delivery_lease).await {
            Ok(held) => {
                let lost = claims.into_iter().zip(held).filter(|(_, is_held)| !is_held);
                lost.for_each(|(claim, _)| self.holdings().release(claim));
            }
            Err(error) => self.store_failed(error, "the claims of deliveries are not renewed"),
        }
    }

    /// Stops renewing the claims on deliveries that the application has held for too long.
    pub(super) fn drop_overdue_deliveries(&self) {
        let overdue = self.holdings().overdue(self.settings.longest_delivery, self.clock.monotonic());
        for (id, held_for) in overdue {
            let seconds = held_for.as_secs();
            tracing::warn!(process = %id, seconds, "a delivery is held for too long; its outcome is delivered again");
            self.emit(Event::DeliveryOverdue { id, held_for });
        }
    }
}
