//! A clock that stands still while sign-ins are prepared, and then runs at the speed of the machine's clock. So their
//! due times are spread evenly over one interval, however long the preparation takes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use openid_deferred::{Clock, Error, Random, SystemClock, SystemRandom};

/// The time at which it stands still: a day after its origin.
pub(crate) const PREPARED: Duration = Duration::from_secs(86_400);
/// Its origin, 2026-01-01T00:00:00Z.
const ORIGIN: Duration = Duration::from_secs(1_767_225_600);

#[derive(Debug, Default)]
pub(crate) struct BenchClock(OnceLock<(Instant, Duration)>);

impl BenchClock {
    /// Starts the clock, as if it had stood still for no longer than `late`.
    #[expect(clippy::disallowed_methods, reason = "the real clock is what is measured by")]
    pub(crate) fn release(&self, late: Duration) {
        self.0.get_or_init(|| (Instant::now(), late));
    }

    /// The wall-clock time that it shows at `monotonic`.
    pub(crate) fn wall(monotonic: Duration) -> SystemTime {
        UNIX_EPOCH + ORIGIN + monotonic
    }
}

impl Clock for BenchClock {
    fn now(&self) -> SystemTime {
        Self::wall(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        PREPARED + self.0.get().map_or(Duration::ZERO, |(start, late)| start.elapsed() + *late)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(duration)
    }
}

/// The clock of the clients that sign users in, one after the other. It shows the time of the current sign-in.
#[derive(Debug, Default)]
pub(crate) struct SignInClock(AtomicU64);

impl SignInClock {
    pub(crate) fn set(&self, monotonic: Duration) {
        self.0.store(u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for SignInClock {
    fn now(&self) -> SystemTime {
        BenchClock::wall(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(duration)
    }
}

/// Randomness without jitter, which is the only use of two random bytes. So the OP knows when each poll is due.
#[derive(Debug)]
pub(crate) struct WithoutJitter;

impl Random for WithoutJitter {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        if bytes.len() == 2 {
            bytes.fill(0);
            return Ok(());
        }
        SystemRandom.fill(bytes)
    }
}
