//! What the store's clock shows between two calls.

use std::time::{Duration, SystemTime};

use crate::clock::{Clock, Moment, saturating_add};

/// The store's clock, carried on by this process's monotonic one.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreClock {
    now: SystemTime,
    at: Duration,
}

impl StoreClock {
    /// The store said `now` in answer to a call that began at `at` on the monotonic clock.
    pub(super) fn new(now: SystemTime, at: Duration) -> Self {
        Self { now, at }
    }

    /// What the store's clock showed when it carried the call out.
    pub(super) fn said(&self) -> SystemTime {
        self.now
    }

    /// By how much the two clocks have moved apart between two readings.
    pub(super) fn apart(&self, later: &Self) -> Duration {
        let expected = saturating_add(self.now, later.at.saturating_sub(self.at));
        match later.now.duration_since(expected) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        }
    }

    pub(super) fn moment(&self, clock: &dyn Clock) -> Moment {
        let monotonic = clock.monotonic();
        Moment { wall: self.now, monotonic: self.at }.plus(monotonic.saturating_sub(self.at))
    }
}
