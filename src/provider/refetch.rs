//! Documents of the OP that are fetched again because a JWT does not fit them.
//!
//! What a document says about a JWT is the last word only if the document was fetched after the JWT had been received.
//! Anybody who sends JWTs can cause fetches, but only so many: what comes through the browser and what comes from the OP
//! itself are counted apart, and a JWT that comes too early for a fetch waits for the next one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::AGE;

use super::backoff::{BROWSER_REFETCH_COOLDOWN, REFETCH_COOLDOWN, Refetches};
use super::cache::{self, Cached, Fetched};
use super::{Provider, Source};
use crate::clock::Moment;
use crate::error::Error;

/// By how much the clocks of two machines may differ, and one clock from itself after it was set. By so much the wall
/// clock has to show that a document is newer than a token that another machine or an earlier process received.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// When to ask again about a JWT for which the time ran out while a document was fetched.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Through whose hands a JWT came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The OP's own, from one of its endpoints.
    Back,
    /// The browser's, so that anybody can have made it.
    Front,
}

impl Channel {
    /// The longest pause between two fetches that JWTs cause.
    fn longest_pause(self) -> Duration {
        match self {
            Self::Back => REFETCH_COOLDOWN,
            Self::Front => BROWSER_REFETCH_COOLDOWN,
        }
    }
}

/// A document with the time of its fetch.
#[derive(Clone)]
pub(super) struct Dated<T> {
    pub(super) value: T,
    pub(super) fetched: FetchedAt,
}

/// When a document was fetched.
#[derive(Clone, Copy)]
pub(super) struct FetchedAt {
    /// What the OP changed after this moment is not in the document.
    as_of: Moment,
    /// The place in the order in which fetches began, which clocks may be too coarse to show.
    number: u64,
}

impl FetchedAt {
    /// The same for a response that a cache between us and the OP has kept for some time (RFC 9111 §5.1).
    pub(super) fn out_of_a_cache(self, headers: &HeaderMap) -> Self {
        let seconds = headers.get(AGE).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let age = Duration::from_secs(seconds.unwrap_or_default()).min(cache::LONGEST_LIFETIME);
        let as_of = Moment {
            wall: self.as_of.wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            monotonic: self.as_of.monotonic.saturating_sub(age),
        };
        Self { as_of, ..self }
    }
}

/// When the verification of a JWT began.
#[derive(Clone, Copy)]
pub(super) struct Began {
    at: Duration,
    /// The fetch that had begun last.
    after_fetch: u64,
}

/// The fetches of one document that JWTs cause.
#[derive(Default)]
pub(super) struct Refetching {
    /// Held by the caller that decides whether to fetch, and for as long as it waits for what it has decided.
    turn: tokio::sync::Mutex<()>,
    counts: Arc<Mutex<ByChannel>>,
}

/// How many fetches JWTs have caused, by where the JWTs came from.
#[derive(Debug, Default)]
struct ByChannel {
    back: Refetches,
    front: Refetches,
}

impl ByChannel {
    fn of(&mut self, channel: Channel) -> &mut Refetches {
        match channel {
            Channel::Back => &mut self.back,
            Channel::Front => &mut self.front,
        }
    }
}

impl Refetching {
    /// Another version of a document than `seen`: the one that somebody else has fetched meanwhile, or else a new one.
    pub(super) async fn newer<T, F>(
        &self,
        cached: &Cached<Dated<T>>,
        seen: &Dated<T>,
        channel: Channel,
        fetch: impl Fn() -> F,
    ) -> Result<Dated<T>, NotNewer>
    where
        T: Clone + Send + 'static,
        F: Future<Output = Result<Fetched<Dated<T>>, Error>> + Send + 'static,
    {
        let _turn = self.turn.lock().await;
        cached.landed().await;
        let is_another = |latest: &Dated<T>| latest.fetched.number != seen.fetched.number;
        if let Some(latest) = cached.latest().filter(is_another) {
            return Ok(latest);
        }
        if let Some(failure) = cached.recent_failure() {
            return Err(NotNewer::Failed(failure));
        }
        // Counted before the request leaves: a caller that goes away in the middle has caused it too.
        let before = self.count(channel, cached.now())?;
        let counted = || {
            let (counts, fetching) = (self.counts.clone(), fetch());
            async move {
                let fetched = fetching.await;
                if fetched.is_err() {
                    // Failures have pauses of their own, which an outage must not make longer.
                    *lock(&counts).of(channel) = before;
                }
                fetched
            }
        };
        cached.fetch(counted).await.map_err(NotNewer::Failed)
    }

    /// Counts a fetch, if it is not too early for one. Gives the count before it.
    fn count(&self, channel: Channel, now: Duration) -> Result<Refetches, NotNewer> {
        let mut counts = lock(&self.counts);
        let count = counts.of(channel);
        match count.pause(now) {
            Duration::ZERO => Ok(std::mem::replace(count, count.and_one(now, channel.longest_pause()))),
            pause => Err(NotNewer::TooEarly(pause)),
        }
    }
}

fn lock(counts: &Mutex<ByChannel>) -> MutexGuard<'_, ByChannel> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why there is no newer document.
pub(super) enum NotNewer {
    /// The next fetch is allowed after this time.
    TooEarly(Duration),
    Failed(Error),
}

impl Source {
    /// The verification of a JWT begins.
    fn begin(&self) -> Began {
        Began { at: self.clock.monotonic(), after_fetch: self.fetches.load(Ordering::Relaxed) }
    }

    /// The fetch of a document begins.
    pub(super) fn fetch_begins(&self) -> FetchedAt {
        let as_of = Moment::of(&*self.clock);
        FetchedAt { as_of, number: self.fetches.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Whether a document was fetched after a JWT had been received, so that what it says about the JWT is the last word.
    ///
    /// The verification began after the JWT had been received, so a fetch that began later still is one. The time of
    /// receipt is one of the wall clock, of another machine perhaps or from before it was set; so a document that is newer
    /// than that has to be so by some minutes, whichever way they are compared.
    pub(super) fn is_newer(&self, document: FetchedAt, received_at: SystemTime, began: Began) -> bool {
        let FetchedAt { as_of, number } = document;
        if number > began.after_fetch && as_of.monotonic >= began.at {
            return true;
        }
        let now = Moment::of(&*self.clock);
        let age = now.wall.duration_since(received_at).unwrap_or_default();
        let received = now.monotonic.saturating_sub(age).saturating_add(CLOCK_TOLERANCE);
        let after = as_of.wall.duration_since(received_at).unwrap_or_default();
        as_of.monotonic >= received && after >= CLOCK_TOLERANCE
    }
}

impl Provider {
    /// Makes an attempt to decide about a JWT, and further ones for as long as they can end within `patience`. An attempt
    /// that takes longer ends with `too_late`. Without patience there is one attempt, which takes as long as it takes.
    pub(super) async fn within_patience<R, F: Future<Output = Result<R, Error>>>(
        &self,
        patience: Duration,
        attempt: impl Fn(Began) -> F,
        too_late: impl FnOnce() -> Error,
    ) -> Result<R, Error> {
        let (began, clock) = (self.source.begin(), &self.source.clock);
        if patience.is_zero() {
            return attempt(began).await;
        }
        let until = began.at.saturating_add(patience);
        let attempts = async {
            loop {
                let error = match attempt(began).await {
                    Ok(decided) => return Ok(decided),
                    Err(error) => error,
                };
                match error.retry_after().filter(|_| error.is_transient()) {
                    Some(wait) if clock.monotonic().saturating_add(wait) <= until => clock.sleep(wait).await,
                    _ => return Err(error),
                }
            }
        };
        tokio::select! {
            biased;
            decided = attempts => decided,
            // The fetch goes on, for those who ask again.
            () = clock.sleep(patience) => Err(too_late().with_retry_after(Some(RETRY_AFTER))),
        }
    }
}
