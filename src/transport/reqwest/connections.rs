//! Replaces the reqwest client from time to time, so that no connection is used for ever.
//!
//! reqwest cannot drop a single connection. A new client has no connections, resolves names again and reads the trusted
//! roots again. Requests in flight finish on their connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::reqwest::Client;

use crate::clock::{Clock, SystemClock};
use crate::error::Error;

/// No new request uses an older connection, so that changed names are resolved again.
const LONGEST_LIFE: Duration = Duration::from_secs(300);

pub(super) type Build = dyn Fn() -> Result<Client, Error> + Send + Sync;

/// The client whose connections new requests use.
pub(super) struct Connections {
    build: Arc<Build>,
    clock: Arc<dyn Clock>,
    current: Mutex<Current>,
    /// Locked while the next client is built.
    renewal: tokio::sync::Mutex<()>,
}

struct Current {
    client: Client,
    generation: u64,
    built_at: Duration,
    /// A request on one of its connections timed out.
    retired: bool,
}

/// A client and its number.
pub(super) struct Leased {
    pub(super) client: Client,
    generation: u64,
}

impl Connections {
    /// Builds the first client.
    ///
    /// # Errors
    ///
    /// Those of `build`.
    pub(super) fn new(build: impl Fn() -> Result<Client, Error> + Send + Sync + 'static) -> Result<Self, Error> {
        // Connections age in the machine's time, whichever clock the protocol uses.
        Self::with_clock(Arc::new(build), Arc::new(SystemClock))
    }

    fn with_clock(build: Arc<Build>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let current = Current { client: build()?, generation: 0, built_at: clock.monotonic(), retired: false };
        Ok(Self { build, clock, current: Mutex::new(current), renewal: tokio::sync::Mutex::new(()) })
    }

    /// The client for the next request.
    pub(super) async fn lease(&self) -> Leased {
        let (leased, retired) = {
            let current = self.current();
            let aged = self.clock.monotonic().saturating_sub(current.built_at) >= LONGEST_LIFE;
            if !aged && !current.retired {
                return current.lease();
            }
            (current.lease(), current.retired)
        };
        let _renewal = if retired {
            self.renewal.lock().await
        } else {
            match self.renewal.try_lock() {
                Ok(renewal) => renewal,
                // Its age alone is not a reason to wait.
                Err(_) => return leased,
            }
        };
        if self.current().generation == leased.generation {
            self.renew().await;
        }
        self.current().lease()
    }

    /// Stops using the connections of this client for further requests, because a request on one of them timed out. If
    /// many requests time out together, the first one counts.
    pub(super) fn retire(&self, generation: u64) {
        let mut current = self.current();
        current.retired |= current.generation == generation;
    }

    /// Building takes milliseconds, and much longer with the TLS library of the system.
    async fn renew(&self) {
        let build = self.build.clone();
        let built = tokio::task::spawn_blocking(move || build()).await;
        let mut current = self.current();
        current.built_at = self.clock.monotonic();
        match built {
            Ok(Ok(client)) => {
                current.client = client;
                current.generation += 1;
                current.retired = false;
            }
            // The next request tries again, or a later one if only the age is the reason.
            Ok(Err(error)) => tracing::error!(%error, "the HTTP client cannot be rebuilt; the old one stays in use"),
            Err(error) => tracing::error!(%error, "the HTTP client cannot be rebuilt; the old one stays in use"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn lease(&self) -> Leased {
        Leased { client: self.client.clone(), generation: self.generation }
    }
}

impl Leased {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::time::SystemTime;

    use futures_core::future::BoxFuture;

    use super::*;
    use crate::error::ConfigurationProblem;

    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    /// Connections that count how often their client is built, with the clock that they go by.
    fn counted() -> (Connections, Arc<Seconds>, Arc<AtomicUsize>) {
        let (clock, built) = (Arc::new(Seconds::default()), Arc::new(AtomicUsize::new(0)));
        let counter = built.clone();
        let build = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Client::new())
        };
        (Connections::with_clock(Arc::new(build), clock.clone()).unwrap(), clock, built)
    }

    #[tokio::test]
    async fn an_http_client_is_replaced_after_five_minutes() {
        let (connections, clock, built) = counted();
        for (seconds, expected) in [(0, 1), (299, 1), (300, 2), (599, 2), (600, 3)] {
            clock.0.store(seconds, Ordering::Relaxed);
            connections.lease().await;
            assert_eq!(built.load(Ordering::Relaxed), expected, "{seconds}");
        }
    }

    #[tokio::test]
    async fn concurrent_timeouts_replace_their_http_client_once() {
        let (connections, _, built) = counted();
        let mut leased = Vec::new();
        for _ in 0..64 {
            leased.push(connections.lease().await);
        }
        for one in &leased {
            connections.retire(one.generation());
            connections.lease().await;
        }
        assert_eq!(built.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn the_old_http_client_stays_if_no_new_one_can_be_built() {
        let (clock, tries) = (Arc::new(Seconds::default()), AtomicUsize::new(0));
        let build = move || match tries.fetch_add(1, Ordering::Relaxed) {
            1 => Err(Error::new(ConfigurationProblem::HttpClient)),
            _ => Ok(Client::new()),
        };
        let connections = Connections::with_clock(Arc::new(build), clock).unwrap();
        connections.retire(connections.lease().await.generation());
        assert_eq!(connections.lease().await.generation(), 0);
        assert_eq!(connections.lease().await.generation(), 1);
    }
}
