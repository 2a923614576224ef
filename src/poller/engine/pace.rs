//! The size of a call to the store, and how long its answer may take.

use std::time::Duration;

/// A poll is sent within this time, counted from before the claim, or not at all. So a replica that was suspended does
/// not send a poll that another replica has taken over. With a slow store the time is longer.
pub(super) const SEND_WINDOW: Duration = Duration::from_secs(5);
/// The maximum of that time, however slow the store is.
pub(super) const LONGEST_SEND_WINDOW: Duration = Duration::from_secs(60);
/// How many rows one call settles and claims at first.
const FIRST_BATCH: usize = 128;
/// The minimum size of a call, however slow the store is.
const SMALLEST_BATCH: usize = 16;

/// The measured speed of the store.
#[derive(Debug)]
pub(super) struct Pace {
    batch: usize,
    most: usize,
    /// How long the slowest of the recent calls took.
    slowest: Duration,
}

impl Pace {
    /// Creates a pace whose calls settle and claim at most `most` rows.
    pub(super) fn new(most: usize) -> Self {
        Self { batch: FIRST_BATCH.min(most), most, slowest: Duration::ZERO }
    }

    /// The number of rows to settle and to claim in the next call.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// How long after the start of the next call a poll may be sent. The lease is longer by this time.
    pub(super) fn send_window(&self) -> Duration {
        self.slowest.saturating_mul(2).clamp(SEND_WINDOW, LONGEST_SEND_WINDOW)
    }

    /// Records how long a call took. If it took half of the usual window, the next calls are smaller.
    pub(super) fn took(&mut self, took: Duration) {
        if took > SEND_WINDOW / 2 {
            self.batch = (self.batch / 2).max(SMALLEST_BATCH.min(self.most));
        } else if took < SEND_WINDOW / 10 {
            self.batch = self.batch.saturating_mul(2).min(self.most);
        }
        self.slowest = took.max(self.slowest / 8 * 7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_store_that_is_slow_for_many_rows_gets_fewer_until_it_is_fast_enough() {
        let mut pace = Pace::new(1_024);
        let mut tooks = Vec::new();
        for _ in 0..100 {
            let took = pace.batch() as u32 * SECOND / 10;
            pace.took(took);
            tooks.push(took);
        }
        assert!(tooks[60..].iter().all(|took| *took <= 4 * SECOND), "{tooks:?}");
        assert!(tooks[60..].iter().all(|took| *took >= SECOND / 2), "{tooks:?}");
        for _ in 0..10 {
            pace.took(SECOND / 100);
        }
        assert_eq!(pace.batch(), 1_024);
    }

    #[test]
    fn a_store_that_takes_six_seconds_for_every_call_gets_a_longer_send_window() {
        let mut pace = Pace::new(1_024);
        assert_eq!(pace.send_window(), 5 * SECOND);
        for _ in 0..100 {
            pace.took(6 * SECOND);
            assert!(pace.send_window() > 6 * SECOND);
        }
        assert_eq!(pace.batch(), SMALLEST_BATCH);
        for _ in 0..40 {
            pace.took(SECOND / 100);
        }
        assert_eq!(pace.send_window(), 5 * SECOND);
    }

    #[test]
    fn a_poller_limited_to_one_poll_in_flight_claims_one_row() {
        let mut pace = Pace::new(1);
        pace.took(10 * SECOND);
        assert_eq!(pace.batch(), 1);
    }
}
