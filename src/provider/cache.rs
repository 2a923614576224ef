//! A document that is fetched when it is needed, by one caller at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;

use super::backoff::Failures;
use crate::clock::Clock;
use crate::error::Error;
use crate::random::{self, Random};

const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// A value that is younger than this is not fetched again because of a doubt.
const DOUBT_COOLDOWN: Duration = Duration::from_secs(60);
const SHORTEST_LIFETIME: Duration = Duration::from_secs(5 * 60);
pub(super) const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) struct Cached<T> {
    /// How long a value serves that cannot be fetched again. `None`: for ever.
    serves: Option<Duration>,
    state: Mutex<State<T>>,
    /// Held while fetching. A caller that goes away in the middle releases it, and the next one fetches.
    flight: tokio::sync::Mutex<()>,
}

struct State<T> {
    kept: Option<Kept<T>>,
    failure: Option<Failed>,
}

struct Kept<T> {
    value: T,
    fetched_at: Duration,
    lifetime: Duration,
}

/// The last failure, which answers for the next callers, so that an OP that is down is not asked by everyone at once.
struct Failed {
    failures: Failures,
    error: Error,
}

/// What the pauses after failed fetches are made of.
#[derive(Clone, Copy)]
pub(super) struct Backoff<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) random: &'a dyn Random,
}

/// A document that was fetched, and for how long it is fresh.
pub(super) struct Fetched<T> {
    pub(super) value: T,
    pub(super) lifetime: Duration,
}

impl<T: Clone> Cached<T> {
    pub(super) fn new(serves: Option<Duration>) -> Self {
        let state = Mutex::new(State { kept: None, failure: None });
        Self { serves, state, flight: tokio::sync::Mutex::new(()) }
    }

    /// The value while it is fresh and `current`; otherwise what `fetch` brings. While that is under way, and when it
    /// fails, the old value serves. `fetch` is dropped unpolled where it is not needed.
    pub(super) async fn get(
        &self,
        backoff: Backoff<'_>,
        current: impl Fn(&T) -> bool,
        fetch: impl Future<Output = Result<Fetched<T>, Error>>,
    ) -> Result<T, Error> {
        let clock = backoff.clock;
        if let Some(fresh) = self.fresh(clock, &current) {
            return Ok(fresh);
        }
        let _flight = match (self.flight.try_lock(), self.latest(clock)) {
            (Ok(flight), _) => flight,
            (Err(_), Some(old)) => return Ok(old),
            (Err(_), None) => self.flight.lock().await,
        };
        // Whoever fetched while we waited did it for us as well.
        if let Some(fresh) = self.fresh(clock, &current) {
            return Ok(fresh);
        }
        if let Some(failure) = self.recent_failure(clock) {
            return self.latest(clock).ok_or(failure);
        }
        match (self.fetch(backoff, fetch).await, self.latest(clock)) {
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "a document of the OP could not be fetched again; the old one serves");
                Ok(old)
            }
            (fetched, _) => fetched,
        }
    }

    /// Fetches at once. The caller holds [`flight`](Self::flight). The error says when to try again.
    pub(super) async fn fetch(
        &self,
        backoff: Backoff<'_>,
        fetch: impl Future<Output = Result<Fetched<T>, Error>>,
    ) -> Result<T, Error> {
        let Backoff { clock, random } = backoff;
        // The age counts from the request: what the OP changes while it answers is not in the answer.
        let asked_at = clock.monotonic();
        let fetched = fetch.await;
        let mut state = self.state();
        match fetched {
            Ok(Fetched { value, lifetime }) => {
                state.kept = Some(Kept { value: value.clone(), fetched_at: asked_at, lifetime });
                state.failure = None;
                Ok(value)
            }
            Err(error) => {
                let now = clock.monotonic();
                let chance = random::bytes(random).map_or(0, u8::from_be_bytes);
                let failures = Failures::after(state.failure.as_ref().map(|failed| failed.failures), now, chance);
                state.failure = Some(Failed { failures, error: error.to_shared() });
                Err(error.with_retry_after(Some(failures.pause(now))))
            }
        }
    }

    /// Lets the value be fetched again before it serves the next time, unless that was done a moment ago: something
    /// suggests that it is no longer true.
    pub(super) fn doubt(&self, clock: &dyn Clock) {
        if let Some(kept) = self.state().kept.as_mut().filter(|kept| kept.age(clock) >= DOUBT_COOLDOWN) {
            kept.lifetime = Duration::ZERO;
        }
    }

    pub(super) async fn flight(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.flight.lock().await
    }

    /// What was fetched last, as long as it serves.
    pub(super) fn latest(&self, clock: &dyn Clock) -> Option<T> {
        let serves = |kept: &&Kept<T>| self.serves.is_none_or(|limit| kept.age(clock) < limit);
        self.state().kept.as_ref().filter(serves).map(|kept| kept.value.clone())
    }

    fn fresh(&self, clock: &dyn Clock, current: impl Fn(&T) -> bool) -> Option<T> {
        let state = self.state();
        let fresh = state.kept.as_ref().filter(|kept| kept.age(clock) < kept.lifetime && current(&kept.value));
        fresh.map(|kept| kept.value.clone())
    }

    /// The last failure, while it is too early to fetch again.
    pub(super) fn recent_failure(&self, clock: &dyn Clock) -> Option<Error> {
        let now = clock.monotonic();
        let state = self.state();
        let failed = state.failure.as_ref()?;
        let pause = failed.failures.pause(now);
        (!pause.is_zero()).then(|| failed.error.to_shared().with_retry_after(Some(pause)))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Kept<T> {
    fn age(&self, clock: &dyn Clock) -> Duration {
        clock.monotonic().saturating_sub(self.fetched_at)
    }
}

/// How long a response is fresh (RFC 9111 §5.2.2), within bounds: the OP is neither asked all the time nor forgotten.
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
    fn what_the_op_says_about_caching_counts_within_bounds() {
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
