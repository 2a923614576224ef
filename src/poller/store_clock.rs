//! The time of the store's clock between two calls, and its jumps.

use std::time::{Duration, SystemTime};

use crate::clock::{Clock, Moment, saturating_add};
use crate::store::{ClockJump, Noticed};

/// The maximum correction of the store's clock that does not count as a jump.
const LARGEST_DRIFT: Duration = Duration::from_secs(5);
/// The precision of a reading of the store's clock. It is less precise if the answer takes longer.
const PRECISION: Duration = Duration::from_secs(1);

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

    /// The jump of the store's clock between two readings.
    fn jump_until(&self, later: &Self) -> ClockJump {
        let expected = saturating_add(self.now, later.at.saturating_sub(self.at));
        ClockJump::between(expected, later.now)
    }

    pub(super) fn moment(&self, clock: &dyn Clock) -> Moment {
        let monotonic = clock.monotonic();
        Moment { wall: self.now, monotonic: self.at }.plus(monotonic.saturating_sub(self.at))
    }
}

/// The jumps of the store's clock that this replica has noticed.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    last: Option<Seen>,
    /// The sum of the jumps for which no run of
    /// [`Store::correct_due_times`](crate::store::Store::correct_due_times) has started yet.
    debt: ClockJump,
    /// How much of the debt may be an error of measurement.
    slack: Duration,
    /// [`Work::corrected`](crate::store::Work::corrected) of the last answer.
    corrected: ClockJump,
}

/// The reading that the next one is compared with.
#[derive(Debug, Clone, Copy)]
struct Seen {
    clock: StoreClock,
    /// The time that the call took. The store read its clock at some moment during the call.
    uncertain: Duration,
}

impl ClockWatch {
    /// Processes the reading of a call that took so long. Returns the jump since the last reading, if there was one.
    pub(super) fn read(&mut self, clock: StoreClock, took: Duration, corrected: ClockJump) -> Option<ClockJump> {
        let jump = self.jump_until(clock, took);
        self.settle(jump, corrected);
        if jump.is_some() || self.last.is_none_or(|last| took <= last.uncertain.max(PRECISION)) {
            self.last = Some(Seen { clock, uncertain: took });
        }
        jump
    }

    /// The jump for which a run must be started.
    pub(super) fn uncorrected(&self) -> Option<Noticed> {
        let noticed = Noticed { jump: self.debt, corrected: self.corrected };
        (self.debt != ClockJump::default()).then_some(noticed)
    }

    /// The jump since the last reading, if there was one. The size of a jump forward is never underestimated.
    fn jump_until(&mut self, clock: StoreClock, took: Duration) -> Option<ClockJump> {
        let last = self.last?;
        let jump = last.clock.jump_until(&clock);
        if jump.size() <= LARGEST_DRIFT.saturating_add(took).saturating_add(last.uncertain) {
            return None;
        }
        self.slack = self.slack.max(last.uncertain.saturating_add(took));
        let uncertain = ClockJump(i64::try_from(last.uncertain.as_micros()).unwrap_or(i64::MAX));
        Some(if jump.0 > 0 { jump.plus(uncertain) } else { jump })
    }

    /// Adds a jump to the debt, and subtracts the jumps for which runs have started. Jumps that this replica has not
    /// noticed, because it started later, are not subtracted.
    fn settle(&mut self, jump: Option<ClockJump>, corrected: ClockJump) {
        let debt = self.debt.plus(jump.unwrap_or_default());
        let by = ClockJump(corrected.0.saturating_sub(self.corrected.0));
        let is_first = self.last.is_none();
        self.corrected = corrected;
        let left = ClockJump(debt.0.saturating_sub(by.0));
        let is_of_debt = !is_first && by.0.signum() == debt.0.signum();
        let is_settled = left.0.signum() != debt.0.signum() || left.size() <= PRECISION.saturating_add(self.slack);
        self.debt = match (is_of_debt, is_settled) {
            (false, _) => debt,
            (true, true) => ClockJump::default(),
            (true, false) => left,
        };
        if self.debt == ClockJump::default() {
            self.slack = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// A reading of a store's clock that is `ahead` seconds ahead, at a second of the monotonic clock.
    fn clock(second: u64, ahead: i64) -> StoreClock {
        let now = UNIX_EPOCH + Duration::from_secs((1_000_000 + i64::try_from(second).unwrap() + ahead).unsigned_abs());
        StoreClock::new(now, Duration::from_secs(second))
    }

    fn seconds(seconds: i64) -> ClockJump {
        ClockJump(seconds * 1_000_000)
    }

    fn read(watch: &mut ClockWatch, second: u64, ahead: i64, corrected: i64) -> (Option<ClockJump>, Option<ClockJump>) {
        let jump = watch.read(clock(second, ahead), Duration::ZERO, seconds(corrected));
        (jump, watch.uncorrected().map(|noticed| noticed.jump))
    }

    #[test]
    fn jumps_are_added_up_until_their_correction_starts() {
        let mut watch = ClockWatch::default();
        assert_eq!(read(&mut watch, 0, 0, 100), (None, None), "earlier corrections do not matter");
        assert_eq!(read(&mut watch, 10, 6, 100), (Some(seconds(6)), Some(seconds(6))));
        assert_eq!(read(&mut watch, 20, 6, 100), (None, Some(seconds(6))));
        assert_eq!(read(&mut watch, 30, 13, 106), (Some(seconds(7)), Some(seconds(7))), "the first one is corrected");
        assert_eq!(read(&mut watch, 40, 13, 113), (None, None));
        assert_eq!(read(&mut watch, 50, -3_587, 113), (Some(seconds(-3_600)), Some(seconds(-3_600))));
        assert_eq!(read(&mut watch, 60, -3_587, -3_487), (None, None));
    }

    #[test]
    fn a_jump_that_another_replica_corrects_is_not_corrected_again() {
        let mut watch = ClockWatch::default();
        read(&mut watch, 0, 0, 0);
        assert_eq!(read(&mut watch, 10, 600, 602), (Some(seconds(600)), None), "it has measured a little more");
        // The correction of another replica includes an earlier jump.
        assert_eq!(read(&mut watch, 20, 700, 602), (Some(seconds(100)), Some(seconds(100))));
        assert_eq!(read(&mut watch, 30, 700, 802), (None, None));
        // This correction is for a jump before this replica started.
        assert_eq!(read(&mut watch, 40, 700, 5_000), (None, None));
    }

    #[test]
    fn a_slow_answer_is_imprecise_and_a_jump_is_not_underestimated() {
        let mut watch = ClockWatch::default();
        let slow = Duration::from_secs(30);
        assert_eq!(watch.read(clock(0, 0), slow, seconds(0)), None);
        assert_eq!(watch.read(clock(40, 34), Duration::ZERO, seconds(0)), None);
        assert_eq!(watch.read(clock(50, 34 + 600), slow, seconds(0)), Some(seconds(600)));
        assert_eq!(watch.read(clock(90, 34 + 600 + 3_600), Duration::ZERO, seconds(600)), Some(seconds(3_630)));
    }
}
