//! Moments as microseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, saturating_add};
use crate::store::column::micros;

/// The time at which a call is carried out.
#[derive(Clone, Copy)]
pub(super) struct Moment(pub(super) i64);

impl Moment {
    /// The clock's, rounded down.
    pub(super) fn of(clock: &dyn Clock) -> Self {
        let since = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    pub(super) fn plus(self, duration: Duration) -> i64 {
        self.0.saturating_add(micros(duration))
    }

    /// How long until then; zero if it is past.
    pub(super) fn until(self, then: i64) -> Duration {
        Duration::from_micros(u64::try_from(then.saturating_sub(self.0)).unwrap_or(0))
    }

    /// How long since then; `None` if it is still to come.
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

/// What a column holds, as a time since 1970.
pub(super) fn since_1970(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A time since 1970 as a column holds it, rounded up.
pub(super) fn column(since_1970: Duration) -> i64 {
    i64::try_from(since_1970.as_nanos().div_ceil(1000)).unwrap_or(i64::MAX)
}
