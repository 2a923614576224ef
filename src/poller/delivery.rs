//! Delivery of outcomes to the application, until it acknowledges them.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_core::future::BoxFuture;
use tokio::sync::oneshot;

use super::event::Event;
use super::handle::Poller;
use super::measure;
use super::record::{FORMAT, Record, Stage};
use super::shared::{Shared, until_changed};
use crate::client::Outcome;
use crate::error::Error;
use crate::secret::Secret;
use crate::store::{
    Acknowledgement, Cancellation, ClaimedOutcome, HeldOutcome, OutcomeBatch as Claim, OutcomeClaim, Partition,
    ProcessId, StoreError,
};
use crate::trace_parent::TraceParent;

/// The pause after a failed store operation.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer of the store is fresh. An application may begin to poll a [`Stream`] and poll it again much later.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The outcomes of a poller, from [`Poller::outcomes`](super::Poller::outcomes).
///
/// There can be several streams, in one process or in several. They compete, and each outcome goes to one of them at a
/// time. A stream takes up to [`prefetch`](super::PollerBuilder::prefetch) outcomes from the store at once. The
/// outcomes in its buffer are released when it is dropped, and when the poller is [shut down](super::Poller::shutdown).
/// They go to other streams when their [lease](super::PollerBuilder::delivery_lease) expires, so a consumer that hangs
/// delays other outcomes for at most one lease.
///
/// It is also a [`Stream`]. The poller runs for as long as a stream of its outcomes exists, unless it is
/// [shut down](super::Poller::shutdown).
pub struct Outcomes {
    /// A wait that was begun through [`Stream`].
    waiting: Option<BoxFuture<'static, Option<Delivery>>>,
    source: Arc<tokio::sync::Mutex<Source>>,
    /// Keeps the poller running.
    _poller: Poller,
}

impl Poller {
    /// Returns a stream of outcomes. Each outcome is delivered until it is acknowledged. Several streams share the
    /// outcomes. The poller runs for as long as the stream exists, unless it is [shut down](Self::shutdown).
    pub fn outcomes(&self) -> Outcomes {
        Outcomes::new(self.clone())
    }
}

impl Outcomes {
    fn new(poller: Poller) -> Self {
        let source = Arc::new(tokio::sync::Mutex::new(Source::new(poller.shared().clone())));
        Self { waiting: None, source, _poller: poller }
    }

    /// Waits for the next outcome. Returns `None` once the poller is shut down. After store errors it continues to
    /// wait; [`events`](super::Poller::events) report them. Dropping the future loses nothing.
    #[must_use = "an outcome that is dropped is delivered again"]
    pub async fn next(&mut self) -> Option<Delivery> {
        self.waiting = None;
        self.source.lock().await.next().await
    }
}

impl Stream for Outcomes {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let this = &mut *self;
        let waiting = this.waiting.get_or_insert_with(|| {
            let source = this.source.clone();
            Box::pin(async move { source.lock_owned().await.next().await })
        });
        let delivery = ready!(waiting.as_mut().poll(context));
        this.waiting = None;
        Poll::Ready(delivery)
    }
}

/// What a stream has claimed and not delivered.
struct Source {
    shared: Arc<Shared>,
    buffer: VecDeque<Buffered>,
    /// The claim in progress. The engine runs it, so that it survives a dropped `next`.
    claiming: Option<oneshot::Receiver<Result<Batch, StoreError>>>,
    /// The renewal in progress. The engine runs it, so that it does not keep a connection of the store if `next` is
    /// dropped.
    holding: Option<oneshot::Receiver<Held>>,
    /// Whether the first outcome in the buffer was claimed just now.
    is_fresh: bool,
    /// The partition of the last claimed outcome: the next claim starts after it.
    after: Option<Partition>,
    /// How many outcomes to claim at once: fewer if the application is slow, so that leases do not expire in the
    /// buffer.
    limit: usize,
    /// The number of outcomes of the last claim that have been delivered.
    delivered: usize,
    /// When the last claim began, on the monotonic clock.
    claimed_at: Duration,
}

/// The result of one claim.
struct Batch {
    claim: Claim,
    /// When it began, on the monotonic clock.
    began: Duration,
    /// When the store answered.
    answered: Duration,
}

/// The result of the renewal of a claim.
struct Held {
    answer: Result<Vec<bool>, StoreError>,
    /// The end of the lease if the renewal succeeded.
    until: Duration,
    /// When the store answered, on the monotonic clock.
    answered: Duration,
}

/// An outcome that was claimed and has not been delivered.
struct Buffered {
    claimed: ClaimedOutcome,
    until: Duration,
}

impl Source {
    fn new(shared: Arc<Shared>) -> Self {
        let limit = shared.settings.prefetch;
        let buffer = VecDeque::new();
        Self {
            shared,
            buffer,
            claiming: None,
            holding: None,
            is_fresh: false,
            limit,
            delivered: 0,
            claimed_at: Duration::ZERO,
            after: None,
        }
    }

    async fn next(&mut self) -> Option<Delivery> {
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
        self.drop_expired();
        if self.buffer.is_empty() {
            self.claim().await;
            if !self.is_fresh {
                // There is nothing, or an earlier call that was dropped made the claim. Other replicas may have the
                // outcome by now.
                return None;
            }
        } else if !self.is_fresh && !self.still_holds_first().await {
            return None;
        }
        self.is_fresh = false;
        // The machine may have been suspended since the store answered.
        self.drop_expired();
        let Buffered { claimed, .. } = self.buffer.pop_front()?;
        let (held, id) = (claimed.held, claimed.held.id);
        if !self.shared.holdings().hand_out(held, self.shared.clock.monotonic()) {
            // It was released by a shutdown.
            return None;
        }
        self.delivered = self.delivered.saturating_add(1);
        let delivery = Delivery::open(self.shared.clone(), claimed);
        if delivery.is_none() {
            // Another replica may be able to open it. This one needs an operator.
            self.shared.holdings().release(held);
            self.shared.unreadable(id, "an outcome cannot be opened and is not delivered by this replica", None);
        }
        delivery
    }

    /// Drops outcomes whose lease has expired in the buffer: other replicas may have them by now.
    fn drop_expired(&mut self) {
        let now = self.shared.clock.monotonic();
        let is_expired = |first: &Buffered| first.until <= now;
        if !self.buffer.front().is_some_and(is_expired) {
            return;
        }
        // The application handled this many during a lease, and may need twice as long for the next ones.
        self.limit = (self.delivered / 2).max(1);
        self.is_fresh = false;
        self.holding = None;
        let expired: Vec<_> = self.buffer.drain(..).map(|expired| expired.claimed.held).collect();
        tracing::debug!(outcomes = expired.len(), "the leases of outcomes expired before they could be delivered");
        self.shared.holdings().unbuffer(expired);
    }

    /// Puts the claimed outcomes into the buffer.
    fn take_in(&mut self, batch: Batch) {
        let (settings, began) = (&self.shared.settings, batch.began);
        let took = began.saturating_sub(self.claimed_at);
        if self.delivered >= self.limit && took < settings.delivery_lease / 4 {
            self.limit = self.limit.saturating_mul(2).min(settings.prefetch);
        }
        (self.delivered, self.claimed_at) = (0, began);
        self.after = batch.claim.claimed.last().map(|claimed| claimed.partition);
        let until = began.saturating_add(settings.delivery_lease);
        self.buffer.extend(batch.claim.claimed.into_iter().map(|claimed| Buffered { claimed, until }));
    }

    fn is_recent(&self, answered: Duration) -> bool {
        self.shared.clock.monotonic().saturating_sub(answered) <= FRESH_FOR
    }

    /// Claims due outcomes, or waits until some may be due.
    async fn claim(&mut self) {
        let shared = self.shared.clone();
        // The answer to a claim of an earlier call that was dropped may be outdated.
        let is_old = self.claiming.is_some();
        let changed = shared.store.changed();
        let (limit, after) = (self.limit, self.after);
        let claiming = self.claiming.get_or_insert_with(|| {
            let (sender, receiver) = oneshot::channel();
            shared.run(Box::pin(claim_for_stream(shared.clone(), limit, after, sender)));
            receiver
        });
        let claimed = claiming.await;
        self.claiming = None;
        let wait = match claimed {
            Ok(Ok(batch)) if !batch.claim.claimed.is_empty() => {
                self.is_fresh = !is_old && self.is_recent(batch.answered);
                self.take_in(batch);
                return;
            }
            Ok(Ok(_)) if is_old => return,
            Ok(Ok(Batch { claim, .. })) => claim.next_in.unwrap_or(Duration::MAX).min(shared.store.check_interval()),
            Ok(Err(error)) => {
                shared.store_failed(error, "no outcome is delivered until the store answers");
                STORE_PAUSE
            }
            // The engine ended before there was an answer.
            Err(_) => STORE_PAUSE,
        };
        tokio::select! {
            biased;
            () = until_changed(&shared, changed, |changed| changed.outcomes) => {}
            () = shared.clock.sleep(wait) => {}
        }
    }

    /// Renews the claim on the first outcome, so that an outcome is not delivered after its acknowledgement, which an
    /// earlier holder may have made.
    async fn still_holds_first(&mut self) -> bool {
        let Some(first) = self.buffer.front().map(|first| first.claimed.held) else { return false };
        let shared = self.shared.clone();
        let holding = self.holding.get_or_insert_with(|| {
            let (sender, receiver) = oneshot::channel();
            shared.run(Box::pin(hold_for_stream(shared.clone(), first, sender)));
            receiver
        });
        let held = holding.await;
        self.holding = None;
        let Ok(Held { answer, until, answered }) = held else {
            // The engine ended before the call.
            self.shared.clock.sleep(STORE_PAUSE).await;
            return false;
        };
        match answer {
            Ok(held) if held.first() == Some(&true) => {
                if let Some(first) = self.buffer.front_mut() {
                    first.until = until;
                }
                // Otherwise it is renewed again.
                self.is_recent(answered)
            }
            Ok(_) => {
                self.buffer.pop_front();
                self.shared.holdings().release(first);
                false
            }
            Err(error) => {
                self.shared.store_failed(error, "no outcome is delivered until the store answers");
                self.shared.clock.sleep(STORE_PAUSE).await;
                false
            }
        }
    }
}

/// Claims outcomes for a stream. If the stream was dropped or the poller has stopped, the outcomes are released.
async fn claim_for_stream(
    shared: Arc<Shared>,
    limit: usize,
    after: Option<Partition>,
    stream: oneshot::Sender<Result<Batch, StoreError>>,
) {
    if stream.is_closed() || shared.stop.borrow().is_some() {
        return;
    }
    let lease = shared.settings.delivery_lease;
    let began = shared.clock.monotonic();
    let claim = OutcomeClaim { limit, after, lease, format: FORMAT, keys: shared.keyring.ids() };
    let claimed = shared.store.claim_outcomes(claim).await.map(|claim| Batch {
        claim,
        began,
        answered: shared.clock.monotonic(),
    });
    for id in claimed.iter().flat_map(|batch| &batch.claim.set_aside) {
        shared.unreadable(*id, "the body of an outcome is missing from the store; the row is set aside", None);
    }
    let held = |batch: &Batch| batch.claim.claimed.iter().map(|claimed| claimed.held).collect::<Vec<_>>();
    let claims = claimed.as_ref().map(held).unwrap_or_default();
    if !shared.holdings().buffer(claims.iter().copied()) {
        give_back(&shared, claims).await;
    } else if stream.send(claimed).is_err() {
        let claims = shared.holdings().unbuffer(claims);
        give_back(&shared, claims).await;
    }
}

/// Renews the claim on an outcome that a stream is about to deliver.
async fn hold_for_stream(shared: Arc<Shared>, claim: HeldOutcome, stream: oneshot::Sender<Held>) {
    let lease = shared.settings.delivery_lease;
    let until = shared.clock.monotonic().saturating_add(lease);
    let answer = shared.store.extend_outcomes(vec![claim], lease).await;
    // If the stream was dropped, it has given the claim back.
    let _ = stream.send(Held { answer, until, answered: shared.clock.monotonic() });
}

/// Releases claims on outcomes that were not delivered, so that they are due again at once.
async fn give_back(shared: &Shared, claims: Vec<HeldOutcome>) {
    if !claims.is_empty()
        && let Err(error) = shared.store.extend_outcomes(claims, Duration::ZERO).await
    {
        tracing::warn!(error = %error, "outcomes could not be released; their claims expire");
    }
}

impl Shared {
    /// Releases the outcomes in the buffers of streams, at shutdown. After this call nothing is delivered.
    pub(super) async fn give_back_buffered(self: Arc<Self>) {
        let claims = self.holdings().close();
        give_back(&self, claims).await;
    }

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

impl Drop for Source {
    fn drop(&mut self) {
        let claims: Vec<_> = self.buffer.drain(..).map(|buffered| buffered.claimed.held).collect();
        if claims.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        // After a shutdown the engine has released them, or is about to.
        self.shared.run(Box::pin(async move {
            let claims = shared.holdings().unbuffer(claims);
            give_back(&shared, claims).await;
        }));
    }
}

impl fmt::Debug for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffered = self.source.try_lock().map(|source| source.buffer.len());
        formatter.debug_struct("Outcomes").field("buffered", &buffered.ok()).finish_non_exhaustive()
    }
}

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
    fn open(shared: Arc<Shared>, claimed: ClaimedOutcome) -> Option<Self> {
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
        let held = self.shared.store.extend_outcomes(vec![self.held], time).await;
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
        if let Err(error) = store.extend_outcomes(vec![held], due_in).await {
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
