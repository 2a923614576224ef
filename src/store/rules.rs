//! The arithmetic that stores share: how due times move after an outage and after a jump of the clock.

use std::time::Duration;

use super::{ClockJump, CorrectionProgress, CorrectionStep, Noticed, ProcessId, State};

/// A postponed poll is due at the latest this long before the row expires.
const BEFORE_THE_END: Duration = Duration::from_secs(5);
/// A postponed poll is due at the earliest after this time.
const SOON: Duration = Duration::from_secs(1);

/// The columns that determine the due time of a row. Moments count from an origin that the store chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) state: State,
    pub(super) due_at: Duration,
    pub(super) leased_until: Option<Duration>,
    pub(super) not_before: Option<Duration>,
    pub(super) expires_at: Option<Duration>,
    pub(super) interval: Duration,
}

impl Times {
    /// See [`Store::spread`](super::Store::spread).
    pub(super) fn spread(&mut self, id: ProcessId, now: Duration) {
        let life = self.expires_at.map(|at| at.saturating_sub(now).saturating_sub(BEFORE_THE_END));
        let longest = life.map_or(self.interval, |life| life.min(self.interval));
        if !longest.is_zero() {
            self.due_at = now.saturating_add(share(id, longest));
        }
    }

    /// See [`Store::correct_due_times`](super::Store::correct_due_times).
    pub(super) fn correct(&mut self, id: ProcessId, longest: Duration, jump: ClockJump, now: Duration) {
        if self.state == State::Acknowledged {
            return;
        }
        let moved = |at: Duration| at.saturating_add(jump.forward());
        let lease_end = now.saturating_add(longest);
        let interval = self.interval.saturating_add(share(id, self.interval));
        let latest = lease_end.saturating_add(interval);
        if let Some(until) = self.leased_until {
            (self.leased_until, self.due_at) = (Some(moved(until).min(lease_end)), moved(self.due_at).min(latest));
        } else if self.due_at > latest {
            self.due_at = latest;
        } else if self.state == State::Waiting && self.due_at < now.saturating_add(self.interval) {
            let mut due_at = moved(self.due_at).min(now.saturating_add(interval));
            if let Some(expires_at) = self.expires_at.filter(|at| *at > now) {
                due_at = due_at.min(expires_at.saturating_sub(BEFORE_THE_END).max(now.saturating_add(SOON)));
            }
            self.due_at = self.due_at.max(due_at);
        }
        let due_at = self.due_at;
        self.not_before = self.not_before.map(|at| if moved(at) > now { moved(at).min(due_at) } else { at });
    }
}

/// When a claimed row is due again if its holder dies.
///
/// Its poll may have been sent until the end of the lease, so the interval counts from there. But the row is polled
/// before it expires.
pub(super) fn due_if_orphaned(leased_until: Duration, interval: Duration, expires_at: Option<Duration>) -> Duration {
    let before_the_end = expires_at.map_or(Duration::MAX, |at| at.saturating_sub(BEFORE_THE_END));
    leased_until.saturating_add(interval).min(before_the_end).max(leased_until)
}

/// The share of an interval that the first bytes of an identifier determine.
fn share(id: ProcessId, interval: Duration) -> Duration {
    let [a, b, c, d, ..] = id.to_bytes();
    let nanos = (interval.as_nanos() * u128::from(u32::from_be_bytes([a, b, c, d]))) >> 32;
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    Duration::new(u64::try_from(seconds).unwrap_or(u64::MAX), u32::try_from(rest).unwrap_or(0))
}

/// A run of correcting due times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Run {
    /// Whether it has not finished.
    pub(super) is_running: bool,
    /// The last row that it has processed.
    pub(super) up_to: Option<ProcessId>,
    /// The jump that it corrects.
    pub(super) jump: ClockJump,
    /// The sum of the jumps of all runs, this one included.
    pub(super) corrected: ClockJump,
}

impl Run {
    /// Returns the run that the caller works on, as it is before the step; an error if there is nothing to do.
    pub(super) fn begin_step(self, step: &CorrectionStep) -> Result<Self, CorrectionProgress> {
        match (self.is_running, self.is_new(step)) {
            (true, _) => Ok(self),
            (false, Some(Noticed { jump, corrected })) => {
                Ok(Self { is_running: true, up_to: None, jump, corrected: corrected.plus(jump) })
            }
            (false, None) => Err(CorrectionProgress::Done),
        }
    }

    /// Records a step. `up_to` is its last row if more rows may follow.
    pub(super) fn end_step(self, step: &CorrectionStep, up_to: Option<ProcessId>) -> (Self, CorrectionProgress) {
        let run = Self { is_running: up_to.is_some(), up_to, ..self };
        // A jump that the caller noticed during an earlier run needs a run of its own.
        let is_done = !run.is_running && run.is_new(step).is_none();
        (run, if is_done { CorrectionProgress::Done } else { CorrectionProgress::More })
    }

    /// The jump that the caller noticed, if no run has started for it.
    fn is_new(&self, step: &CorrectionStep) -> Option<Noticed> {
        step.noticed.filter(|noticed| noticed.corrected == self.corrected && noticed.jump != ClockJump::default())
    }
}

/// Why the claim on an outcome gets another end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its holder keeps it.
    Extended,
    /// Its holder gives it up.
    Released,
}

/// The result of holding an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It is due sooner than before.
    Sooner,
    Later,
    NoLonger,
}

/// How many items to take of each list if `limit` of them are taken by round robin: one of each, then the next of each.
/// Lists from which nothing is taken are omitted.
#[cfg(any(feature = "sqlite", feature = "postgres", test))]
pub(super) fn fair_shares<T>(available: Vec<(T, usize)>, limit: usize) -> Vec<(T, usize)> {
    let mut left = limit;
    let mut share = 0;
    let rest = |share: usize| available.iter().filter(move |(_, count)| *count > share).count();
    // Complete rounds.
    while left >= rest(share).max(1) && rest(share) > 0 {
        left -= rest(share);
        share += 1;
    }
    let mut shares = Vec::new();
    for (item, count) in available {
        let mut most = count.min(share);
        if count > share && left > 0 {
            (most, left) = (most + 1, left - 1);
        }
        if most > 0 {
            shares.push((item, most));
        }
    }
    shares
}

/// Merges lists by round robin: the first item of each, then the second of each, and so on.
#[cfg(any(feature = "sqlite", feature = "postgres", test))]
pub(super) fn round_robin<T>(all: Vec<Vec<T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
    let mut merged = Vec::new();
    while !all.is_empty() {
        all.retain_mut(|items| items.next().map(|item| merged.push(item)).is_some());
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump(seconds: i64) -> ClockJump {
        ClockJump(seconds * 1_000_000)
    }

    fn noticed(jump: ClockJump, corrected: ClockJump) -> CorrectionStep {
        CorrectionStep { noticed: Some(Noticed { jump, corrected }), longest: Duration::from_secs(900), limit: 1 }
    }

    #[test]
    fn a_jump_during_a_run_gets_a_run_of_its_own_with_its_own_size() {
        let id = ProcessId::from_bytes([1; 16]);
        let first = noticed(jump(6), jump(0));
        let (run, progress) = Run::default().begin_step(&first).unwrap().end_step(&first, Some(id));
        assert_eq!((run.jump, run.corrected, progress), (jump(6), jump(6), CorrectionProgress::More));
        let second = noticed(jump(7), jump(6));
        let (run, progress) = run.begin_step(&second).unwrap().end_step(&second, None);
        assert_eq!(
            (run.jump, progress),
            (jump(6), CorrectionProgress::More),
            "the first one ends, and the second one is to begin"
        );
        let run = run.begin_step(&second).unwrap();
        assert_eq!((run.jump, run.corrected, run.up_to), (jump(7), jump(13), None));
        let (run, progress) = run.end_step(&second, None);
        assert_eq!((run.is_running, progress), (false, CorrectionProgress::Done));
        // Other callers that noticed one of them are too late.
        for late in [first, second] {
            assert_eq!(run.begin_step(&late), Err(CorrectionProgress::Done));
        }
    }

    #[test]
    fn a_limit_is_shared_by_round_robin() {
        let shares = |limit| fair_shares(vec![('a', 5), ('b', 1), ('c', 0), ('d', 9)], limit);
        assert_eq!(shares(0), []);
        assert_eq!(shares(2), [('a', 1), ('b', 1)]);
        assert_eq!(shares(6), [('a', 3), ('b', 1), ('d', 2)]);
        assert_eq!(shares(99), [('a', 5), ('b', 1), ('d', 9)]);
        assert_eq!(round_robin(vec![vec![1, 4], vec![2], vec![3, 5, 6]]), [1, 2, 3, 4, 5, 6]);
    }
}
