//! Points in time as microseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, saturating_add};
use crate::store::column::micros;

/// The time at which a call is executed.
#[derive(Clone, Copy)]
pub(super) struct Moment(pub(super) i64);

impl Moment {
    /// Reads the clock, rounded down.
    pub(super) fn of(clock: &dyn Clock) -> Self {
        let since = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    pub(super) fn plus(self, duration: Duration) -> i64 {
        self.0.saturating_add(micros(duration))
    }

    /// The time until then; zero if it is past.
    pub(super) fn until(self, then: i64) -> Duration {
        Duration::from_micros(u64::try_from(then.saturating_sub(self.0)).unwrap_or(0))
    }

    /// The time since then; `None` if it is in the future.
    pub(super) fn since(self, then: i64) -> Option<Duration> {
        u64::try_from(self.0.saturating_sub(then)).ok().map(Duration::from_micros)
    }

    /// The time since 1970.
    pub(super) fn since_1970(self) -> Duration {
        since_1970(self.0)
    }

    pub(super) fn wall(self) -> SystemTime {
        saturating_add(UNIX_EPOCH, self.since_1970())
    }
}

/// Converts the value of a column to a time since 1970.
pub(super) fn since_1970(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Converts a time since 1970 to the value of a column, rounded up.
pub(super) fn column(since_1970: Duration) -> i64 {
    i64::try_from(since_1970.as_nanos().div_ceil(1000)).unwrap_or(i64::MAX)
}
