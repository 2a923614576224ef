//! One request for all callers that refresh the same tokens.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::{Refreshed, Tokens, unknown};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, TransportProblem};
use crate::jose;
use crate::secret::Secret;
use crate::task::Task;

/// The time for which a copy of the old tokens still gets the answer that replaced them. Otherwise it would present a
/// refresh token that the OP considers stolen.
const KEPT_FOR_COPIES: Duration = Duration::from_secs(60);
/// The time after which a request whose callers were all dropped is forgotten.
const ABANDONED: Duration = Duration::from_secs(600);
/// The most answers that are remembered. Each has a few kilobytes.
const LANDED_LIMIT: usize = 1_000;
/// The most bytes of remembered answers: one answer may have a megabyte.
const LANDED_BYTES_LIMIT: usize = 8 * 1024 * 1024;

/// The refreshes that are in flight or have just ended, by the hash of the refresh token.
#[derive(Default)]
pub(in crate::client) struct Flights(Arc<Mutex<Entries>>);

type Entries = BTreeMap<[u8; 32], Entry>;

struct Entry {
    flight: Arc<Flight>,
    began: Duration,
    /// The end of the request, whether or not a caller still waits for it.
    end: Arc<OnceLock<End>>,
    /// When a caller took the answer.
    landed_at: Option<Duration>,
}

struct End {
    /// The size of the answer.
    bytes: usize,
    /// The request changed nothing, so a new request is better than this result.
    in_vain: bool,
}

impl End {
    fn of(result: &Result<Refreshed, Error>) -> Self {
        match result {
            Ok(answer) => Self { bytes: answer.body.len(), in_vain: false },
            // The refresh token may be used up, and the next caller must learn that.
            Err(error) => Self { bytes: 0, in_vain: *error.kind() != ErrorKind::OutcomeUnknown },
        }
    }
}

/// One request. It continues when a caller is dropped: a browser that disconnects must not cost the user the new
/// refresh token.
type Flight = Task<Result<Refreshed, Error>>;

impl Flights {
    /// The answer to the refresh with this token: from the request that is in flight or has just ended, or from a new
    /// one.
    pub(super) async fn join<F>(
        &self,
        clock: &dyn Clock,
        refresh_token: &Secret,
        begin: impl FnOnce(Secret) -> F + Send,
    ) -> Result<Refreshed, Error>
    where
        F: Future<Output = Result<Refreshed, Error>> + Send + 'static,
    {
        let name = jose::sha256(refresh_token.expose().as_bytes());
        let flight = {
            let mut entries = self.entries();
            let now = clock.monotonic();
            entries.retain(|_, entry| entry.is_wanted(now));
            let entry = entries.entry(name).or_insert_with(|| {
                let end = Arc::default();
                let work = self.counted(begin(refresh_token.clone()), &end);
                Entry { flight: Arc::new(Task::spawn(work)), began: now, end, landed_at: None }
            });
            entry.flight.clone()
        };
        let result = flight.inspect(to_shared).await;
        let is_kept = result.as_ref().is_ok_and(|answer| replaces(answer, refresh_token));
        self.landed(name, &flight, clock.monotonic(), is_kept);
        result
    }

    /// Wraps a request so that its answer counts towards the limits at once, because all of its callers may have been
    /// dropped.
    fn counted(
        &self,
        request: impl Future<Output = Result<Refreshed, Error>> + Send + 'static,
        end: &Arc<OnceLock<End>>,
    ) -> impl Future<Output = Result<Refreshed, Error>> + Send + 'static {
        let (entries, end): (Weak<Mutex<Entries>>, _) = (Arc::downgrade(&self.0), end.clone());
        async move {
            let result = request.await;
            end.get_or_init(|| End::of(&result));
            if let Some(entries) = entries.upgrade() {
                make_room(&mut entries.lock().unwrap_or_else(PoisonError::into_inner));
            }
            result
        }
    }

    /// Forgets a request, unless later callers need its answer.
    fn landed(&self, name: [u8; 32], flight: &Arc<Flight>, now: Duration, is_kept: bool) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&name).filter(|entry| Arc::ptr_eq(&entry.flight, flight)) else { return };
        if is_kept {
            entry.landed_at.get_or_insert(now);
        } else {
            entries.remove(&name);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the oldest answers beyond the limits. A caller that waits for one of them still gets it.
fn make_room(entries: &mut Entries) {
    let sizes = || entries.values().filter_map(Entry::bytes);
    let (mut answers, mut total) = (sizes().count(), sizes().sum::<usize>());
    while answers > LANDED_LIMIT || total > LANDED_BYTES_LIMIT {
        let ended = entries.iter().filter_map(|(name, entry)| Some((entry.age_key(), *name, entry.bytes()?)));
        let Some((_, name, bytes)) = ended.min() else { return };
        entries.remove(&name);
        (answers, total) = (answers - 1, total.saturating_sub(bytes));
    }
}

impl Entry {
    /// The size of the answer, once the request has ended.
    fn bytes(&self) -> Option<usize> {
        Some(self.end.get()?.bytes)
    }

    /// The value by which the oldest entry is found.
    fn age_key(&self) -> Duration {
        self.landed_at.unwrap_or(self.began)
    }

    fn is_wanted(&self, now: Duration) -> bool {
        match self.landed_at {
            Some(landed_at) => now.saturating_sub(landed_at) < KEPT_FOR_COPIES,
            None if Arc::strong_count(&self.flight) > 1 => true,
            None => self.end.get().is_none_or(|end| !end.in_vain) && now.saturating_sub(self.began) < ABANDONED,
        }
    }
}

fn to_shared(result: Option<&Result<Refreshed, Error>>) -> Result<Refreshed, Error> {
    match result {
        Some(Ok(refreshed)) => Ok(refreshed.clone()),
        Some(Err(error)) => Err(error.to_shared()),
        // The runtime that drove the request was shut down.
        None => Err(unknown(TransportProblem::Broken.into())),
    }
}

/// Whether the answer has a refresh token that replaces the old one. Otherwise the old one may be used again.
fn replaces(answer: &Refreshed, refresh_token: &Secret) -> bool {
    Tokens::parse_without_id_token(&answer.body)
        .is_ok_and(|tokens| tokens.refresh_token.is_some_and(|new| new != *refresh_token))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_core::future::BoxFuture;
    use zeroize::Zeroizing;

    use super::*;
    use crate::clock::from_unix_seconds;
    use crate::error::TransportProblem;

    #[derive(Debug, Default)]
    struct Stopped(AtomicU64);

    impl Clock for Stopped {
        fn now(&self) -> std::time::SystemTime {
            from_unix_seconds(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(pending())
        }
    }

    fn answer(refresh_token: &str) -> Refreshed {
        let body = format!(r#"{{"access_token":"a","token_type":"Bearer","refresh_token":"{refresh_token}"}}"#);
        Refreshed::new(Zeroizing::new(body.into_bytes()), from_unix_seconds(0), None)
    }

    async fn join(flights: &Flights, clock: &Stopped, token: &str, gives: Result<Refreshed, Error>) {
        let _ = flights.join(clock, &Secret::new(token), async |_| gives).await;
    }

    #[tokio::test]
    async fn only_an_answer_that_replaces_the_refresh_token_is_cached_and_for_a_minute() {
        let (flights, clock) = (Flights::default(), Stopped::default());
        join(&flights, &clock, "kept", Ok(answer("kept"))).await;
        join(&flights, &clock, "failed", Err(TransportProblem::Timeout.into())).await;
        assert_eq!(flights.entries().len(), 0);
        join(&flights, &clock, "old", Ok(answer("new"))).await;
        assert_eq!(flights.entries().len(), 1);
        clock.0.store(60, Ordering::Relaxed);
        join(&flights, &clock, "kept", Ok(answer("kept"))).await;
        assert_eq!(flights.entries().len(), 0);
    }

    #[tokio::test]
    async fn at_most_a_thousand_answers_are_cached_and_the_oldest_is_evicted() {
        let (flights, clock) = (Flights::default(), Stopped::default());
        for number in 0..=LANDED_LIMIT {
            clock.0.store(number as u64 / 100, Ordering::Relaxed);
            join(&flights, &clock, &format!("old {number}"), Ok(answer("new"))).await;
        }
        let entries = flights.entries();
        assert_eq!(entries.len(), LANDED_LIMIT);
        assert_eq!(entries.values().filter(|entry| entry.landed_at.is_some_and(|at| at.is_zero())).count(), 99);
    }

    #[tokio::test]
    async fn cached_answers_have_at_most_eight_megabytes_together() {
        let (flights, clock) = (Flights::default(), Stopped::default());
        for number in 0..20 {
            clock.0.store(number, Ordering::Relaxed);
            let mut large = answer("new");
            large.body.resize(1024 * 1024, b' ');
            join(&flights, &clock, &format!("old {number}"), Ok(large)).await;
        }
        let entries = flights.entries();
        let newest: Vec<_> = entries.values().map(|entry| entry.landed_at.unwrap().as_secs()).collect();
        assert_eq!((newest.len(), newest.iter().min()), (8, Some(&12)));
    }

    #[tokio::test]
    async fn answers_to_dropped_callers_count_towards_the_limits() {
        let (flights, clock) = (Flights::default(), Stopped::default());
        for number in 0..20 {
            clock.0.store(number, Ordering::Relaxed);
            let secret = Secret::new(format!("old {number}"));
            let mut abandoned = Box::pin(flights.join(&clock, &secret, async |_| {
                tokio::task::yield_now().await;
                let mut large = answer("new");
                large.body.resize(1024 * 1024, b' ');
                Ok(large)
            }));
            let polled = std::future::poll_fn(|context| std::task::Poll::Ready(abandoned.as_mut().poll(context)));
            assert!(polled.await.is_pending());
        }
        while flights.entries().values().any(|entry| entry.end.get().is_none()) {
            tokio::task::yield_now().await;
        }
        let entries = flights.entries();
        let newest: Vec<_> = entries.values().map(|entry| entry.began.as_secs()).collect();
        assert_eq!((newest.len(), newest.iter().min()), (8, Some(&12)));
    }

    #[tokio::test]
    async fn an_abandoned_request_is_forgotten_after_ten_minutes() {
        let (flights, clock) = (Flights::default(), Stopped::default());
        let secret = Secret::new("old");
        let waiting = flights.join(&clock, &secret, |_| pending());
        tokio::select! {
            biased;
            _ = waiting => panic!("nothing ever answers"),
            () = std::future::ready(()) => {}
        }
        for (seconds, left) in [(0, 1), (599, 1), (600, 0)] {
            clock.0.store(seconds, Ordering::Relaxed);
            join(&flights, &clock, "kept", Ok(answer("kept"))).await;
            assert_eq!(flights.entries().len(), left, "{seconds}");
        }
    }
}
