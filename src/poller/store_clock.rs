//! The time of the store's clock between two calls.

use std::time::{Duration, SystemTime};

use crate::clock::{Clock, Moment, saturating_add};

/// A reading of the store's clock, extrapolated by this machine's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreClock {
    now: SystemTime,
    at: Duration,
}

impl StoreClock {
    /// The store answered `now` to a call that began at `at` on the monotonic clock.
    pub(super) fn new(now: SystemTime, at: Duration) -> Self {
        Self { now, at }
    }

    /// The time of the store's clock when it executed the call.
    pub(super) fn reading(&self) -> SystemTime {
        self.now
    }

    /// The drift between the two clocks since an earlier reading.
    pub(super) fn drift_to(&self, later: &Self) -> Duration {
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
