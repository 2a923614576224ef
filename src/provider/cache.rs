//! A document that is fetched on demand, by one task at a time.
//!
//! The task is independent of its callers: if a caller is dropped, the fetch continues, the next caller does not repeat
//! it, and its result is recorded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;
use tokio::sync::Semaphore;

use super::backoff::Failures;
use crate::clock::Clock;
use crate::error::{Document, Error, TransportProblem};
use crate::random::{self, Random};
use crate::task::{self, Task};

const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// A value that is younger than this is not fetched again because it may be outdated.
const SUSPECT_COOLDOWN: Duration = Duration::from_secs(60);
/// How long a caller waits for a newer value if the old one is usable but may be outdated.
pub(super) const NEWER_PATIENCE: Duration = Duration::from_secs(3);
const SHORTEST_LIFETIME: Duration = Duration::from_secs(5 * 60);
pub(super) const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The time between two warnings that a document could not be fetched again.
const WARNING_PAUSE: Duration = Duration::from_secs(60 * 60);

pub(super) struct Cached<T> {
    about: Arc<About>,
    /// How long a value is used that cannot be fetched again. `None` means without limit.
    serves: Option<Duration>,
    state: Arc<Mutex<State<T>>>,
}

/// The document, and the clock and randomness of the pauses after failed fetches.
pub(super) struct About {
    pub(super) issuer: String,
    pub(super) document: Document,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
}

struct State<T> {
    kept: Option<Kept<T>>,
    failure: Option<Failed>,
    /// The running fetch. The semaphore has no permits, and is closed when the fetch ends.
    flight: Option<Arc<Semaphore>>,
    /// The time of the last logged warning.
    warned_at: Option<Duration>,
}

struct Kept<T> {
    value: T,
    fetched_at: Duration,
    lifetime: Duration,
    /// Whether the value may be outdated.
    is_suspect: bool,
}

/// The last failure, which the next callers get, so that an unavailable OP does not get a request from each of them.
struct Failed {
    failures: Failures,
    error: Error,
}

/// A fetched document and its freshness.
pub(super) struct Fetched<T> {
    pub(super) value: T,
    pub(super) lifetime: Duration,
}

/// The result for a caller.
enum Step<T> {
    Settled(Result<T, Error>),
    Flight(Flight),
}

/// A running fetch.
enum Flight {
    /// Whether this caller started it.
    Own(Task<()>),
    Others(Arc<Semaphore>),
}

impl Flight {
    /// Waits for its end.
    async fn landed(&mut self) {
        match self {
            Self::Own(task) => task.finish().await,
            // The error is the end: there are no permits.
            Self::Others(ended) => drop(ended.acquire().await),
        }
    }
}

/// Clears the running fetch when it ends in any way, including the end of its runtime.
struct Landing<T> {
    state: Weak<Mutex<State<T>>>,
    /// Closing it wakes those who wait in the order in which they came. A `watch` wakes them in a random one.
    ended: Arc<Semaphore>,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            lock(&state).flight = None;
        }
        self.ended.close();
    }
}

impl<T: Clone + Send + 'static> Cached<T> {
    pub(super) fn new(about: About, serves: Option<Duration>) -> Self {
        let state = State { kept: None, failure: None, flight: None, warned_at: None };
        Self { about: Arc::new(about), serves, state: Arc::new(Mutex::new(state)) }
    }

    /// The value while it is fresh and `current`; otherwise the result of `fetch`.
    ///
    /// If an old value is usable, it is returned if the new one does not arrive within `patience` or cannot be fetched.
    /// For a value that may be outdated, the patience is at least [`NEWER_PATIENCE`]. `fetch` is dropped without a poll
    /// if it is not needed.
    pub(super) async fn get<F>(
        &self,
        patience: Duration,
        current: impl Fn(&T) -> bool,
        fetch: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Fetched<T>, Error>> + Send + 'static,
    {
        loop {
            let patience = if self.is_suspect() { patience.max(NEWER_PATIENCE) } else { patience };
            let mut flight = match self.step(&current, &fetch) {
                Step::Settled(result) => return result,
                Step::Flight(flight) => flight,
            };
            let Some(old) = self.latest() else {
                flight.landed().await;
                continue;
            };
            match (&flight, task::can_spawn()) {
                (_, true) if patience.is_zero() => {}
                (_, true) => tokio::select! {
                    biased;
                    () = flight.landed() => {}
                    () = self.about.clock.sleep(patience) => {}
                },
                // The fetch continues only while this caller polls it.
                (Flight::Own(_), false) => flight.landed().await,
                (Flight::Others(_), false) => {}
            }
            return Ok(self.latest().unwrap_or(old));
        }
    }

    /// A value newer than the one cached at the time of the call, fetched now or by the running fetch. The error states
    /// when to try again.
    pub(super) async fn fetch<F>(&self, fetch: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Fetched<T>, Error>> + Send + 'static,
    {
        if let Step::Flight(mut flight) = self.step(|_| false, &fetch) {
            flight.landed().await;
        }
        match self.recent_failure() {
            Some(failure) => Err(failure),
            // Without either, its runtime was shut down.
            None => self.latest().ok_or_else(|| TransportProblem::Broken.into()),
        }
    }

    /// Waits for the end of the running fetch, if there is one.
    pub(super) async fn landed(&self) {
        let flight = self.state().flight.clone();
        if let Some(ended) = flight {
            Flight::Others(ended).landed().await;
        }
    }

    /// Decides what to do, and starts a fetch if necessary.
    fn step<F>(&self, current: impl Fn(&T) -> bool, fetch: impl Fn() -> F) -> Step<T>
    where
        F: Future<Output = Result<Fetched<T>, Error>> + Send + 'static,
    {
        let landing = {
            let mut state = self.state();
            let now = self.about.clock.monotonic();
            if let Some(fresh) = state.kept.as_ref().filter(|kept| kept.is_fresh(now) && current(&kept.value)) {
                return Step::Settled(Ok(fresh.value.clone()));
            }
            if let Some(flight) = &state.flight {
                return Step::Flight(Flight::Others(flight.clone()));
            }
            if let Some(failure) = state.recent_failure(now) {
                return Step::Settled(state.latest(now, self.serves).ok_or(failure));
            }
            let ended = Arc::new(Semaphore::new(0));
            state.flight = Some(ended.clone());
            Landing { state: Arc::downgrade(&self.state), ended }
        };
        let (about, serves) = (self.about.clone(), self.serves);
        // The age counts from the request, because later changes are not in the response.
        let asked_at = about.clock.monotonic();
        let fetched = fetch();
        Step::Flight(Flight::Own(Task::spawn(async move {
            let fetched = fetched.await;
            if let Some(state) = landing.state.upgrade() {
                record(&about, serves, &state, asked_at, fetched);
            }
        })))
    }

    /// Stores a value as if it had just been fetched.
    #[cfg(any(fuzzing, test))]
    pub(super) fn put(&self, fetched: Fetched<T>) {
        record(&self.about, self.serves, &self.state, self.about.clock.monotonic(), Ok(fetched));
    }

    /// Marks the value as possibly outdated, so that it is fetched again before its next use, unless it was fetched a
    /// moment ago.
    pub(super) fn mark_suspect(&self) {
        let now = self.about.clock.monotonic();
        if let Some(kept) = self.state().kept.as_mut().filter(|kept| kept.age(now) >= SUSPECT_COOLDOWN) {
            kept.lifetime = Duration::ZERO;
            kept.is_suspect = true;
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.about.clock.monotonic()
    }

    fn is_suspect(&self) -> bool {
        self.state().kept.as_ref().is_some_and(|kept| kept.is_suspect)
    }

    /// The last fetched value, while it may be used.
    pub(super) fn latest(&self) -> Option<T> {
        self.state().latest(self.about.clock.monotonic(), self.serves)
    }

    /// The last failure, while it is too early to fetch again.
    pub(super) fn recent_failure(&self) -> Option<Error> {
        self.state().recent_failure(self.about.clock.monotonic())
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records the result of a fetch.
fn record<T: Clone>(
    about: &About,
    serves: Option<Duration>,
    state: &Mutex<State<T>>,
    asked_at: Duration,
    fetched: Result<Fetched<T>, Error>,
) {
    let now = about.clock.monotonic();
    let mut state = lock(state);
    let error = match fetched {
        Ok(Fetched { value, lifetime }) => {
            state.kept = Some(Kept { value, fetched_at: asked_at, lifetime, is_suspect: false });
            state.failure = None;
            state.warned_at = None;
            return;
        }
        Err(error) => error,
    };
    let chance = random::bytes(&*about.random).map_or(0, u8::from_be_bytes);
    let failures = Failures::after(state.failure.as_ref().map(|failed| failed.failures), now, chance);
    if let Some(kept) = &mut state.kept {
        kept.is_suspect = false;
    }
    let serves = serves.is_none_or(|limit| state.kept.as_ref().is_some_and(|kept| kept.age(now) < limit));
    let age = state.kept.as_ref().filter(|_| serves).map(|kept| kept.age(now));
    if let Some(age) = age {
        let (issuer, document) = (about.issuer.as_str(), about.document);
        // Whole seconds keep the log lines short.
        let age = Duration::from_secs(age.as_secs());
        let is_quiet = state.warned_at.is_none_or(|at| now.saturating_sub(at) >= WARNING_PAUSE);
        if is_quiet {
            state.warned_at = Some(now);
            tracing::warn!(issuer, %error, "{document} could not be fetched again; the copy from {age:?} ago stays in use");
        } else {
            tracing::debug!(issuer, %error, "{document} could not be fetched again; the copy from {age:?} ago stays in use");
        }
    }
    state.failure = Some(Failed { failures, error });
}

impl<T: Clone> State<T> {
    fn latest(&self, now: Duration, serves: Option<Duration>) -> Option<T> {
        let serves = |kept: &&Kept<T>| serves.is_none_or(|limit| kept.age(now) < limit);
        self.kept.as_ref().filter(serves).map(|kept| kept.value.clone())
    }

    fn recent_failure(&self, now: Duration) -> Option<Error> {
        let failed = self.failure.as_ref()?;
        let pause = failed.failures.pause(now);
        (!pause.is_zero()).then(|| failed.error.to_shared().with_retry_after(Some(pause)))
    }
}

impl<T> Kept<T> {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.fetched_at)
    }

    fn is_fresh(&self, now: Duration) -> bool {
        self.age(now) < self.lifetime
    }
}

/// How long a response is fresh (RFC 9111 §5.2.2), within bounds.
pub(super) fn lifetime(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut lifetime = LIFETIME;
    for directive in values.flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return SHORTEST_LIFETIME,
            "max-age" => {
                let seconds = value.trim().trim_matches('"');
                if !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit()) {
                    lifetime = Duration::from_secs(seconds.parse().unwrap_or(u64::MAX));
                }
            }
            _ => {}
        }
    }
    lifetime.clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_is_followed_within_bounds() {
        let minutes = |values: &[&str]| {
            let headers = values.iter().map(|value| (CACHE_CONTROL, value.parse().unwrap())).collect();
            lifetime(&headers).as_secs() / 60
        };
        assert_eq!(minutes(&[]), 60);
        assert_eq!(minutes(&["public, Max-Age=600, must-revalidate"]), 10);
        assert_eq!(minutes(&["public", "max-age=\"600\""]), 10);
        assert_eq!(minutes(&["max-age=0"]), 5);
        assert_eq!(minutes(&["no-store, max-age=600"]), 5);
        assert_eq!(minutes(&["max-age=31536000"]), 24 * 60);
        assert_eq!(minutes(&["max-age=99999999999999999999999"]), 24 * 60);
        for junk in ["max-age=-1", "max-age", "max-age=soon", "=", "s-maxage=600"] {
            assert_eq!(minutes(&[junk]), 60, "{junk}");
        }
    }
}
