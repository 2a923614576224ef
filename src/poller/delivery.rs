//! Outcomes on their way to the application, until it acknowledges them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::event::Event;
use super::measure;
use super::record::{FORMAT, Record, Stage};
use super::shared::{Shared, store_error, until_changed};
use crate::client::Outcome;
use crate::error::Error;
use crate::secret::Secret;
use crate::store::{
    Acknowledgement, Cancellation, ClaimedOutcome, HeldOutcome, OutcomeClaim, Outcomes as Claim, Partition, ProcessId,
    StoreError,
};

/// How soon an outcome comes again that was dropped without being acknowledged; it doubles with every attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How soon a store that failed is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The outcomes of a poller, from [`Poller::outcomes`](super::Poller::outcomes).
///
/// There can be several, in one process and in many: they compete, and each outcome goes to one of them at a time.
pub struct Outcomes {
    shared: Arc<Shared>,
    buffer: VecDeque<ClaimedOutcome>,
    /// Calls to the store outlive a `next` that is dropped.
    claiming: Option<BoxFuture<'static, Result<Claim, StoreError>>>,
    holding: Option<BoxFuture<'static, Result<Vec<bool>, StoreError>>>,
    /// The first of the buffer was claimed or held just now.
    is_fresh: bool,
    /// Whose the last claimed outcome was: the next claim begins with the partition after it.
    after: Option<Partition>,
}

impl Outcomes {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, buffer: VecDeque::new(), claiming: None, holding: None, is_fresh: false, after: None }
    }

    /// The next outcome: waits until there is one, and gives `None` once the poller has been shut down. Store trouble
    /// is waited out; [`events`](super::Poller::events) tell of it. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Delivery> {
        let shared = self.shared.clone();
        let mut stop = shared.stop.subscribe();
        loop {
            if stop.borrow_and_update().is_some() {
                return None;
            }
            tokio::select! {
                biased;
                _ = stop.changed() => return None,
                delivery = self.step() => if let Some(delivery) = delivery {
                    return Some(delivery);
                }
            }
        }
    }

    async fn step(&mut self) -> Option<Delivery> {
        if self.buffer.is_empty() {
            self.claim().await;
        } else if !self.is_fresh && !self.still_holds_first().await {
            return None;
        }
        self.is_fresh = false;
        let claimed = self.buffer.pop_front()?;
        let (held, id) = (claimed.held, claimed.held.id);
        let delivery = Delivery::open(self.shared.clone(), claimed);
        if delivery.is_none() {
            // The next one to come along may be able to; this one has to be looked after by somebody.
            tracing::error!(process = %id, "an outcome cannot be opened; it is left alone");
            self.shared.let_go(held);
            self.shared.tell(Event::Unreadable { id });
        }
        delivery
    }

    /// Claims what is due, or waits until something may be.
    async fn claim(&mut self) {
        let shared = self.shared.clone();
        // What a claim says that was begun by an earlier call, which was dropped, may be old.
        let is_old = self.claiming.is_some();
        let changed = shared.store.changed();
        let after = self.after;
        let claiming = self.claiming.get_or_insert_with(|| {
            let shared = shared.clone();
            Box::pin(async move {
                let claim = OutcomeClaim {
                    limit: shared.settings.prefetch,
                    after,
                    lease: shared.settings.delivery_lease,
                    format: FORMAT,
                    keys: shared.keyring.ids(),
                };
                shared.store.claim_outcomes(claim).await
            })
        });
        let claimed = claiming.await;
        self.claiming = None;
        for id in claimed.iter().flat_map(|claim| &claim.set_aside) {
            tracing::error!(process = %id, "the body of an outcome is missing from the store; it is put aside");
            shared.tell(Event::Unreadable { id: *id });
        }
        let wait = match claimed {
            Ok(claim) if !claim.claimed.is_empty() => {
                self.after = claim.claimed.last().map(|claimed| claimed.partition);
                shared.held().extend(claim.claimed.iter().map(|claimed| (claimed.held.id, claimed.held)));
                self.buffer.extend(claim.claimed);
                self.is_fresh = true;
                return;
            }
            Ok(_) if is_old => return,
            Ok(claim) => claim.next_in.unwrap_or(Duration::MAX).min(shared.store.look_every()),
            Err(error) => {
                let error = store_error(error);
                tracing::error!(error = %error, "no outcomes can be taken from the store");
                shared.tell(Event::StoreTrouble { error: Arc::new(error) });
                STORE_PAUSE
            }
        };
        tokio::select! {
            biased;
            () = until_changed(&shared, changed, |changed| changed.outcomes) => {}
            () = shared.clock.sleep(wait) => {}
        }
    }

    /// No delivery starts after its acknowledgement, which may have come from somebody who had it before.
    async fn still_holds_first(&mut self) -> bool {
        let Some(first) = self.buffer.front().map(|claimed| claimed.held) else { return false };
        let shared = self.shared.clone();
        let holding = self.holding.get_or_insert_with(|| {
            Box::pin(async move { shared.store.hold_outcomes(vec![first], shared.settings.delivery_lease).await })
        });
        let held = holding.await;
        self.holding = None;
        match held {
            Ok(held) if held.first() == Some(&true) => true,
            Ok(_) => {
                self.buffer.pop_front();
                self.shared.let_go(first);
                false
            }
            Err(_) => {
                self.shared.clock.sleep(STORE_PAUSE).await;
                false
            }
        }
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        let held: Vec<_> = self.buffer.drain(..).map(|claimed| claimed.held).collect();
        for held in held {
            release(&self.shared, held, Duration::ZERO);
        }
    }
}

impl fmt::Debug for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outcomes").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

/// An outcome, to be dealt with and then [acknowledged](Self::acknowledge).
///
/// While it lives nobody else gets it. Dropped without an acknowledgement it comes again after 30 seconds, later with
/// each attempt; so it does when this process dies, after the lease (five minutes unless set). Deal with it in a way
/// that may happen twice, or remember [`id`](Self::id) together with what was done.
#[must_use = "an outcome that is not acknowledged is delivered again"]
pub struct Delivery {
    shared: Arc<Shared>,
    held: HeldOutcome,
    attempt: u32,
    provisional: bool,
    outcome: Outcome,
    context: Vec<u8>,
    rejected: Option<Secret>,
    is_settled: AtomicBool,
}

impl Delivery {
    fn open(shared: Arc<Shared>, claimed: ClaimedOutcome) -> Option<Self> {
        let record = Record::open(&shared.keyring, claimed.held.id, &claimed.body).ok()?;
        let Stage::Outcome(stored) = record.stage else { return None };
        let mut outcome = Outcome::from(stored);
        if let Outcome::Approved(authentication) = outcome {
            outcome = Outcome::Approved(authentication.with_context(record.context.clone()));
        }
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
            rejected: record.rejected,
            is_settled: AtomicBool::new(false),
        })
    }

    /// Whose outcome it is.
    pub fn id(&self) -> ProcessId {
        self.held.id
    }

    /// How the process ended.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What the application gave to [`context`](crate::AuthorizationRequest::context) when the user was sent out: it is the
    /// outcome of that, whichever page the user has come back to.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// For [`Outcome::Invalid`]: the OP's response as it came, for whoever finds out with the OP what is wrong with it.
    /// It is erased with the acknowledgement. Nobody may be signed in by it, its tokens were revoked as far as the OP
    /// lets them be, and it must not get into logs.
    pub fn rejected_response(&self) -> Option<&Secret> {
        self.rejected.as_ref()
    }

    /// How often it has been delivered, this time included.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Notes that the outcome has been dealt with: it is erased, and does not come again, unless the OP's
    /// success came in after an outcome that said it was unknown. It can be called again.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store): it is not noted. Call again, or let it be delivered again.
    pub async fn acknowledge(&self) -> Result<(), Error> {
        let keep = self.shared.settings.keep_tombstones;
        let acknowledgement = Acknowledgement { id: self.held.id, provisional: self.provisional, keep };
        let acknowledged = self.shared.store.acknowledge(vec![acknowledgement]).await;
        acknowledged.map_err(|error| store_error(error).in_step("acknowledging an outcome"))?;
        self.is_settled.store(true, Ordering::Relaxed);
        self.shared.let_go(self.held);
        measure::acknowledged();
        self.shared.tell(Event::Acknowledged { id: self.held.id });
        Ok(())
    }

    /// Lets it be delivered again after this time.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store): it comes again all the same, when the lease has run out.
    pub async fn retry_after(self, time: Duration) -> Result<(), Error> {
        self.is_settled.store(true, Ordering::Relaxed);
        self.shared.let_go(self.held);
        let held = self.shared.store.hold_outcomes(vec![self.held], time).await;
        held.map(drop).map_err(|error| store_error(error).in_step("postponing an outcome"))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.is_settled.load(Ordering::Relaxed) {
            return;
        }
        tracing::warn!(process = %self.held.id, "an outcome was not acknowledged; it will be delivered again");
        let doublings = self.attempt.saturating_sub(1).min(16);
        release(&self.shared, self.held, FIRST_PAUSE.saturating_mul(1_u32 << doublings).min(LONGEST_PAUSE));
    }
}

/// Lets go of an outcome. If the engine is gone, its claim runs out by itself.
fn release(shared: &Arc<Shared>, held: HeldOutcome, due_in: Duration) {
    shared.let_go(held);
    let store = shared.store.clone();
    shared.run(Box::pin(async move {
        if let Err(error) = store.hold_outcomes(vec![held], due_in).await {
            tracing::warn!(error = %error, "an outcome could not be released; its claim runs out by itself");
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
