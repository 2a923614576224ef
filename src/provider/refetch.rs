//! Fetches documents of the OP again because of a JWT that does not match them.
//!
//! A document is final evidence about a JWT only if it was fetched after the receipt of the JWT. Anybody who sends JWTs
//! can cause fetches, but their number is limited: JWTs through browsers and JWTs from the OP itself are counted
//! separately, and a JWT that arrives too early for a fetch waits for the next one.

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

/// The tolerated difference between the clocks of two machines, or of one clock before and after it was set. By the
/// wall clock, a document must be newer by this time than a token that another machine or an earlier process received.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// When to retry for a JWT whose patience ended during a fetch.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The way in which a JWT arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// From an endpoint of the OP.
    Back,
    /// Through the browser, or as a request to the application, so that any party may have created it.
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
    /// Later changes are not in the document.
    as_of: Moment,
    /// The number of the fetch in the order of their starts, because clocks may be too coarse.
    number: u64,
}

impl FetchedAt {
    /// The same for a response from a cache between the client and the OP (RFC 9111 §5.1).
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
    /// The latest started fetch.
    after_fetch: u64,
}

/// The fetches of one document that JWTs cause.
#[derive(Default)]
pub(super) struct Refetching {
    /// Locked by the caller that decides whether to fetch, until its fetch ends.
    permit: tokio::sync::Mutex<()>,
    counts: Arc<Mutex<ByChannel>>,
}

/// The number of fetches that JWTs caused, by their origin.
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
    /// Another version of a document than `seen`: the one that another caller fetched meanwhile, or else a new one.
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
        let _permit = self.permit.lock().await;
        cached.landed().await;
        let is_another = |latest: &Dated<T>| latest.fetched.number != seen.fetched.number;
        if let Some(latest) = cached.latest().filter(is_another) {
            return Ok(latest);
        }
        if let Some(failure) = cached.recent_failure() {
            return Err(NotNewer::Failed(failure));
        }
        // Counted before the request is sent, so that dropped callers count too.
        let before = self.count(channel, cached.now())?;
        let counted = || {
            let (counts, fetching) = (self.counts.clone(), fetch());
            async move {
                let fetched = fetching.await;
                if fetched.is_err() {
                    // Failures have pauses of their own, which must not add up with these.
                    *lock(&counts).of(channel) = before;
                }
                fetched
            }
        };
        cached.fetch(counted).await.map_err(NotNewer::Failed)
    }

    /// Counts a fetch, if it is not too early for one. Returns the count before it.
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

    /// Whether a document was fetched after the receipt of a JWT, so that it is final evidence.
    ///
    /// A fetch that started after the verification is late enough. The time of receipt is a wall clock time, perhaps of
    /// another machine or from before the clock was set. So by the wall clock a document must be newer by some minutes.
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
    /// Makes an attempt to judge a JWT, and further attempts that can end within `patience`. An attempt that takes
    /// longer ends with `too_late`. Without patience there is one attempt without a timeout.
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
            // The fetch continues for later callers.
            () = clock.sleep(patience) => Err(too_late().with_retry_after(Some(RETRY_AFTER))),
        }
    }
}
