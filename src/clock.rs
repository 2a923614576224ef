//! The source of time: everything in this crate that reads the time or sleeps uses a [`Clock`].

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_core::future::BoxFuture;

/// A source of time for the crate, which also sleeps.
///
/// Applications use [`SystemClock`], the default. Tests use a simulated clock, such as that of the feature `testing`,
/// in which weeks pass in a moment.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the time of the wall clock, which tokens and DPoP proofs are checked against, and which survives a
    /// restart. It may jump.
    fn now(&self) -> SystemTime;

    /// Returns the time since an arbitrary origin that does not change while this process runs.
    ///
    /// It never goes backwards, and does not follow corrections of the wall clock. It should include the time for which
    /// the machine is suspended, because a [`Poller`](crate::Poller) uses it to decide whether a lease is still valid,
    /// and other machines keep running meanwhile.
    fn monotonic(&self) -> Duration;

    /// Completes after `duration` has passed while the machine was running. If it was suspended meanwhile, this may be
    /// later than by the monotonic clock. Dropping the future cancels the sleep.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock, with tokio's timer for sleeping.
///
/// On Linux, Android and Apple's systems its monotonic clock continues while the machine is suspended
/// (`CLOCK_BOOTTIME`; on Apple's systems `CLOCK_MONOTONIC`). Elsewhere it is [`std::time::Instant`], which stops during
/// a suspend on some systems. On such a system a poll may be sent after a suspend although another replica has taken
/// over its row. Do not suspend machines that poll on these systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the only use of the system's clocks")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        static ORIGIN: OnceLock<Duration> = OnceLock::new();
        let now = since_boot();
        now.saturating_sub(*ORIGIN.get_or_init(|| now))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the only use of the system's clocks")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The time since the machine was booted, including suspends.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn since_boot() -> Duration {
    #[cfg(target_vendor = "apple")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    #[cfg(not(target_vendor = "apple"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    Duration::try_from(rustix::time::clock_gettime(CLOCK)).unwrap_or(Duration::ZERO)
}

/// The time since the first call of this function.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
#[expect(clippy::disallowed_methods, reason = "this is the only use of the system's clocks")]
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

    /// Returns the moment `duration` earlier, or the earliest one that the clocks can represent.
    pub(crate) fn minus(self, duration: Duration) -> Self {
        let wall = self.wall.checked_sub(duration).unwrap_or(UNIX_EPOCH);
        Self { wall, monotonic: self.monotonic.saturating_sub(duration) }
    }

    /// Returns the moment `duration` later. The wall clock ends at the end of the year 9999.
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self { wall: saturating_add(self.wall, duration), monotonic: self.monotonic.saturating_add(duration) }
    }
}

/// The end of the year 9999: the last time that can be used in tokens and proofs without an overflow.
const FAR_FUTURE: Duration = Duration::from_secs(253_402_300_799);

/// Returns `time + duration`, limited to the end of the year 9999 instead of panicking.
pub(crate) fn saturating_add(time: SystemTime, duration: Duration) -> SystemTime {
    let far_future = UNIX_EPOCH + FAR_FUTURE;
    time.checked_add(duration).map_or(far_future, |sum| sum.min(far_future))
}

/// Returns the whole seconds since 1970; zero for earlier times.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The inverse of [`unix_seconds`], limited to the end of the year 9999.
pub(crate) fn from_unix_seconds(seconds: u64) -> SystemTime {
    saturating_add(UNIX_EPOCH, Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_duration_saturates_instead_of_panicking() {
        assert_eq!(unix_seconds(saturating_add(UNIX_EPOCH, Duration::MAX)), FAR_FUTURE.as_secs());
        assert_eq!(unix_seconds(from_unix_seconds(u64::MAX)), FAR_FUTURE.as_secs());
    }

    /// The first number in `/proc/uptime` includes suspends, in hundredths of a second.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_monotonic_clock_advances_during_a_suspend() {
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
