//! Lower bounds of due times: where a scan for due rows starts.
//!
//! A settled row leaves a dead entry in the index by due time. PostgreSQL cannot remove it while an older transaction
//! of the database is open, such as a backup, and a claim would scan all of these entries. So the store remembers for
//! each partition a time before which nothing is due, and scans from there.
//!
//! **Why that hides no row.** A call either sets a due time that is not earlier than the database's clock, or does not
//! change it. So a bound holds for every row that any replica commits within [`MARGIN`] after its call read the clock.
//! A bound that is later than the clock is ignored, because the clock was set back; the result of that scan also lowers
//! the bound. Full scans find the remaining rows: those that were committed later, changed by hand, or sealed again
//! with a key that is known here. A full scan happens every second if it is fast. Otherwise full scans are so rare that
//! they take a hundredth of the time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::{Clock as _, SystemClock};
use crate::store::{Claim, OutcomeClaim, Partition};

/// A transaction may commit this long after it has read the clock.
const MARGIN: Duration = Duration::from_secs(2);
/// The pause after a full scan is this many times as long as the scan took.
const FULL_LOOK_FACTOR: u32 = 100;
/// The minimum of that pause.
const SHORTEST_FULL_LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The maximum of that pause, and the pause after a full scan that failed.
const LONGEST_FULL_LOOK_PAUSE: Duration = Duration::from_secs(600);

/// What a scan searches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Polls(Partition),
    Verifications(Partition),
    Outcomes,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    /// Nothing is due before this.
    at: SystemTime,
    /// When the next full scan is due, on the monotonic clock.
    full_look_at: Duration,
}

/// The format and the keys of the rows that a claim can open.
type Readable = (u8, Vec<[u8; 4]>);

#[derive(Debug, Default)]
struct State {
    /// The bounds apply to claims that can open these rows.
    readable: Option<Readable>,
    bounds: BTreeMap<Kind, Bound>,
    /// The number of times that the bounds were forgotten.
    generation: u64,
}

/// The lower bounds of the due times in a database, as known to a store.
#[derive(Debug, Default)]
pub(super) struct DueBounds(Mutex<State>);

/// A time for each quota of a claim.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) polls: Vec<Option<SystemTime>>,
    pub(super) verifications: Vec<Option<SystemTime>>,
}

/// A scan for due rows.
#[derive(Debug)]
pub(super) struct Look<T> {
    /// Where it starts; `None` for a full scan.
    pub(super) since: T,
    generation: u64,
    /// On the monotonic clock.
    began: Duration,
}

/// The result of a scan.
#[derive(Debug)]
pub(super) struct Found<T> {
    look: Look<T>,
    took: Duration,
    /// The earliest due times, including those of rows that other replicas have claimed.
    earliest: T,
    /// The time of the database's clock.
    now: SystemTime,
}

impl<T> Look<T> {
    pub(super) fn found(self, earliest: T, now: SystemTime) -> Found<T> {
        Found { took: SystemClock.monotonic().saturating_sub(self.began), look: self, earliest, now }
    }
}

impl DueBounds {
    pub(super) fn look(&self, claim: &Claim) -> Look<Times> {
        self.look_with(claim.format, &claim.keys, |state, now| {
            let mut of = |kind: fn(Partition) -> Kind| {
                claim.quotas.iter().map(|quota| state.since(kind(quota.partition), now)).collect()
            };
            Times { polls: of(Kind::Polls), verifications: of(Kind::Verifications) }
        })
    }

    pub(super) fn look_for_outcomes(&self, claim: &OutcomeClaim) -> Look<Option<SystemTime>> {
        self.look_with(claim.format, &claim.keys, |state, now| state.since(Kind::Outcomes, now))
    }

    fn look_with<T>(&self, format: u8, keys: &[[u8; 4]], since: impl FnOnce(&mut State, Duration) -> T) -> Look<T> {
        let mut state = self.state();
        state.is_for((format, keys.to_vec()));
        let began = SystemClock.monotonic();
        Look { since: since(&mut state, began), generation: state.generation, began }
    }

    /// Updates the bounds from a scan. Call it after the commit, because without the commit the due times have not
    /// changed.
    pub(super) fn learn(&self, claim: &Claim, found: &Found<Times>) {
        let mut state = self.state();
        if state.generation != found.look.generation {
            return;
        }
        for (place, quota) in claim.quotas.iter().enumerate() {
            let at = |times: &[Option<SystemTime>]| times.get(place).copied().flatten();
            let (since, earliest) = (&found.look.since, &found.earliest);
            state.learn(Kind::Polls(quota.partition), found, at(&since.polls), at(&earliest.polls));
            state.learn(
                Kind::Verifications(quota.partition),
                found,
                at(&since.verifications),
                at(&earliest.verifications),
            );
        }
    }

    pub(super) fn learn_of_outcomes(&self, found: &Found<Option<SystemTime>>) {
        let mut state = self.state();
        if state.generation == found.look.generation {
            state.learn(Kind::Outcomes, found, found.look.since, found.earliest);
        }
    }

    /// Makes the next scans full ones. For calls that move the due times of many rows, or make rows readable.
    pub(super) fn forget(&self) {
        self.state().forget();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self) {
        self.bounds.clear();
        self.generation += 1;
    }

    /// Forgets everything if the caller can open other rows than the previous caller.
    fn is_for(&mut self, readable: Readable) {
        if self.readable.as_ref() != Some(&readable) {
            self.forget();
            self.readable = Some(readable);
        }
    }

    /// Returns where a scan starts.
    fn since(&mut self, kind: Kind, now: Duration) -> Option<SystemTime> {
        let bound = self.bounds.get_mut(&kind)?;
        if now < bound.full_look_at {
            return Some(bound.at);
        }
        // If the full scan takes too long and fails, other claims continue with the bound.
        bound.full_look_at = now.saturating_add(LONGEST_FULL_LOOK_PAUSE);
        None
    }

    fn learn<T>(&mut self, kind: Kind, found: &Found<T>, since: Option<SystemTime>, earliest: Option<SystemTime>) {
        let Some(at) = earliest.unwrap_or(found.now).min(found.now).checked_sub(MARGIN) else { return };
        match (since, self.bounds.get_mut(&kind)) {
            (None, _) => {
                let pause = found.took.saturating_mul(FULL_LOOK_FACTOR);
                let pause = pause.clamp(SHORTEST_FULL_LOOK_PAUSE, LONGEST_FULL_LOOK_PAUSE);
                let full_look_at = found.look.began.saturating_add(found.took).saturating_add(pause);
                self.bounds.insert(kind, Bound { at, full_look_at });
            }
            (Some(_), Some(bound)) => bound.at = at,
            (Some(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ClaimQuota;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn claim() -> Claim {
        let quotas = vec![ClaimQuota { partition: Partition(1), polls: 1, verifications: 1 }];
        Claim { quotas, limit: 1, lease: Duration::ZERO, format: 1, keys: vec![[1; 4]] }
    }

    fn found(look: Look<Times>, first: Option<u64>, now: u64) -> Found<Times> {
        let earliest = Times { polls: vec![first.map(at)], verifications: vec![None] };
        // Independent of the speed of the machine that runs the test.
        Found { took: Duration::from_secs(1), ..look.found(earliest, at(now)) }
    }

    /// Where the scan for polls of the one partition starts, after a scan that found the earliest due time at `first`.
    fn after_look(bounds: &DueBounds, first: Option<u64>, now: u64) -> Option<SystemTime> {
        bounds.learn(&claim(), &found(bounds.look(&claim()), first, now));
        bounds.look(&claim()).since.polls[0]
    }

    #[test]
    fn a_bound_lies_before_what_is_there_and_before_what_may_still_be_committed() {
        let bounds = DueBounds::default();
        assert_eq!(bounds.look(&claim()).since.polls, [None]);
        assert_eq!(after_look(&bounds, None, 500), Some(at(498)));
        assert_eq!(after_look(&bounds, Some(2_000), 500), Some(at(498)));
        assert_eq!(after_look(&bounds, Some(450), 500), Some(at(448)), "the bound follows an earlier row");
    }

    #[test]
    fn a_bound_follows_a_clock_that_is_set_back_and_counts_for_the_same_keys_alone() {
        let bounds = DueBounds::default();
        assert_eq!(after_look(&bounds, None, 500), Some(at(498)));
        assert_eq!(after_look(&bounds, None, 100), Some(at(98)));
        assert_eq!(bounds.look(&Claim { keys: vec![[2; 4]], ..claim() }).since.polls, [None]);
        assert_eq!(bounds.look(&claim()).since.polls, [None]);
    }

    #[test]
    fn a_look_that_began_before_bounds_were_forgotten_says_nothing() {
        let bounds = DueBounds::default();
        let look = bounds.look(&claim());
        bounds.forget();
        bounds.learn(&claim(), &found(look, None, 501));
        assert_eq!(bounds.look(&claim()).since.polls, [None]);
        assert_eq!(after_look(&bounds, None, 500), Some(at(498)));
    }

    #[test]
    fn full_looks_take_a_hundredth_of_the_time_and_one_that_fails_does_not_stop_claims() {
        let bounds = DueBounds::default();
        after_look(&bounds, None, 500);
        let kind = Kind::Polls(Partition(1));
        let full_look_at = || bounds.state().bounds[&kind].full_look_at;
        let next = full_look_at();
        let pause = next.saturating_sub(SystemClock.monotonic());
        assert!(pause > Duration::from_secs(50) && pause <= Duration::from_secs(101), "{pause:?}");
        assert_eq!(bounds.state().since(kind, next), None);
        assert_eq!(bounds.state().since(kind, next), Some(at(498)), "other claims do not scan everything too");
        assert_eq!(full_look_at(), next + LONGEST_FULL_LOOK_PAUSE);
    }
}
