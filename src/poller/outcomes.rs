//! The stream of outcomes: claims them for the application and delivers them.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_core::future::BoxFuture;
use tokio::sync::oneshot;

use super::delivery::Delivery;
use super::handle::Poller;
use super::record::FORMAT;
use super::shared::{Shared, until_changed};
use crate::store::{ClaimedOutcome, HeldOutcome, OutcomeBatch as Claim, OutcomeClaim, Partition, StoreError};

/// The pause after a failed store operation.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer of the store is fresh. An application may begin to poll a [`Stream`] and poll it again much
/// later.
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

    /// Renews the claim on the first outcome. If an earlier holder has acknowledged the outcome meanwhile, the renewal
    /// shows that, and the outcome is not delivered.
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
        && let Err(error) = shared.store.release_outcomes(claims, Duration::ZERO).await
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
