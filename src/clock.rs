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
    /// not follow corrections of the wall clock. It should count the time for which the machine is suspended: a
    /// [`Poller`](crate::Poller) tells by it whether a lease still holds, and other machines go on meanwhile.
    fn monotonic(&self) -> Duration;

    /// Completes once `duration` has passed while the machine was running. Where it was suspended meanwhile this may be
    /// later than on the monotonic clock. Dropping the future cancels the sleep.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock, with tokio's timer for sleeping.
///
/// On Linux, Android and Apple's systems its monotonic clock goes on while the machine is suspended (`CLOCK_BOOTTIME`; on
/// Apple's systems `CLOCK_MONOTONIC`). Elsewhere it is [`std::time::Instant`], which on some systems stands still then.
/// On such a system a poll may leave after a suspend although another replica has taken over its row: do not suspend
/// machines there that poll.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where time enters the crate")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        static ORIGIN: OnceLock<Duration> = OnceLock::new();
        let now = since_boot();
        now.saturating_sub(*ORIGIN.get_or_init(|| now))
    }

    #[expect(clippy::disallowed_methods, reason = "this is where time enters the crate")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The time for which the machine has been up, suspended or not.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn since_boot() -> Duration {
    #[cfg(target_vendor = "apple")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    #[cfg(not(target_vendor = "apple"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    Duration::try_from(rustix::time::clock_gettime(CLOCK)).unwrap_or(Duration::ZERO)
}

/// The time since this was first called.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
#[expect(clippy::disallowed_methods, reason = "this is where time enters the crate")]
fn since_boot() -> Duration {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    ORIGIN.get_or_init(std::time::Instant::now).elapsed()
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

    /// This moment, `duration` earlier, or as early as the clocks go.
    pub(crate) fn minus(self, duration: Duration) -> Self {
        let wall = self.wall.checked_sub(duration).unwrap_or(UNIX_EPOCH);
        Self { wall, monotonic: self.monotonic.saturating_sub(duration) }
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

    /// The first line of `/proc/uptime` counts suspends too, in hundredths of a second.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_monotonic_clock_is_the_one_that_goes_on_in_a_suspend() {
        let uptime = || -> f64 {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let before = uptime();
        let clock = since_boot().as_secs_f64();
        assert!((before - 0.011..=uptime() + 0.011).contains(&clock), "{clock} s, but {before} s in /proc/uptime");
        let first = SystemClock.monotonic();
        assert!(SystemClock.monotonic() >= first);
    }

    #[test]
    fn times_before_1970_count_as_zero() {
        assert_eq!(unix_seconds(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
