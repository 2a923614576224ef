//! Time as a seam: everything in this crate that asks for the time or sleeps does so through [`Clock`].

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_core::future::BoxFuture;

/// Where the crate takes the time from, and how it sleeps.
///
/// Applications use [`SystemClock`], which is the default. Tests bring a clock of their own, such as the one of the
/// feature `testing`, and live through weeks in a moment.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall clock: what tokens and DPoP proofs are judged by and what survives a restart. It may jump.
    fn now(&self) -> SystemTime;

    /// Time since an arbitrary origin that stays the same while this process lives. It never goes backwards and does
    /// not follow corrections of the wall clock.
    fn monotonic(&self) -> Duration;

    /// Completes once `duration` has passed on the monotonic clock. Dropping the future cancels the sleep.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock, with tokio's timer for sleeping.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where time enters the crate")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is where time enters the crate")]
    fn monotonic(&self) -> Duration {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        ORIGIN.get_or_init(std::time::Instant::now).elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is where time enters the crate")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// One reading of both clocks, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: SystemTime,
    pub(crate) monotonic: Duration,
}

impl Moment {
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// This moment and `duration` later. A duration beyond what the clocks can hold ends at the far future.
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self { wall: saturating_add(self.wall, duration), monotonic: self.monotonic.saturating_add(duration) }
    }
}

/// The last instant that dates in tokens and proofs can name without overflowing anything: the end of the year 9999.
const FAR_FUTURE: Duration = Duration::from_secs(253_402_300_799);

/// `time + duration`, ending at the end of the year 9999 instead of panicking.
pub(crate) fn saturating_add(time: SystemTime, duration: Duration) -> SystemTime {
    let far_future = UNIX_EPOCH + FAR_FUTURE;
    time.checked_add(duration).map_or(far_future, |sum| sum.min(far_future))
}

/// Whole seconds since 1970; zero for times before it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The reverse of [`unix_seconds`], ending at the end of the year 9999.
pub(crate) fn from_unix_seconds(seconds: u64) -> SystemTime {
    saturating_add(UNIX_EPOCH, Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_beyond_all_calendars_ends_in_the_far_future_instead_of_panicking() {
        assert_eq!(unix_seconds(saturating_add(UNIX_EPOCH, Duration::MAX)), FAR_FUTURE.as_secs());
        assert_eq!(unix_seconds(from_unix_seconds(u64::MAX)), FAR_FUTURE.as_secs());
    }

    #[test]
    fn times_before_1970_count_as_zero() {
        assert_eq!(unix_seconds(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
