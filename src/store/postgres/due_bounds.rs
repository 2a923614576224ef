//! Lower bounds of due times: where to begin to look for what is due.
//!
//! A row that is settled leaves an entry in the index by due time, and the entry stays for as long as a transaction of
//! the database is older, such as a backup. A claim would walk over all of them. So a store remembers for each partition
//! that nothing is due before a certain time, and looks from there on.
//!
//! **Why that hides nothing.** Each call gives a row a due time that is not earlier than the database's clock at that
//! moment, or leaves it as it is. So a bound holds for every row that is committed within [`MARGIN`] after its call read
//! the clock, by any replica. A bound that is later than the clock is ignored, because the clock was set back; what is
//! found then lowers the bound too. Full looks find the rest: rows that were committed later, changed by hand, or sealed
//! again under a key that is known here. They come every second if they are fast. Otherwise they are so rare that they
//! take a hundredth of the time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::{Clock as _, SystemClock};
use crate::store::{Claim, OutcomeClaim, Partition};

/// A transaction may commit so long after it has read the clock.
const MARGIN: Duration = Duration::from_secs(2);
/// A full look is followed by another one after this many times as long as it took.
const FULL_LOOK_FACTOR: u32 = 100;
/// The same, at least.
const SHORTEST_FULL_LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The same, at most; and how long a full look that has failed is put off.
const LONGEST_FULL_LOOK_PAUSE: Duration = Duration::from_secs(600);

/// What is looked for.
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
    /// When the next full look is due, on the monotonic clock.
    full_look_at: Duration,
}

/// Which rows a claim can take.
type Readable = (u8, Vec<[u8; 4]>);

#[derive(Debug, Default)]
struct State {
    /// For claims that can take these rows.
    readable: Option<Readable>,
    bounds: BTreeMap<Kind, Bound>,
    /// Counts how often they were forgotten.
    generation: u64,
}

/// What a store remembers of the due times in its database.
#[derive(Debug, Default)]
pub(super) struct DueBounds(Mutex<State>);

/// A time for each quota of a claim.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) polls: Vec<Option<SystemTime>>,
    pub(super) verifications: Vec<Option<SystemTime>>,
}

/// A look for what is due.
#[derive(Debug)]
pub(super) struct Look<T> {
    /// Where it begins; `None` for a full look.
    pub(super) since: T,
    generation: u64,
    /// On the monotonic clock.
    began: Duration,
}

/// What a look has found.
#[derive(Debug)]
pub(super) struct Found<T> {
    look: Look<T>,
    took: Duration,
    /// The earliest due times, of rows that others have claimed as well.
    earliest: T,
    /// What the database's clock showed.
    said: SystemTime,
}

impl<T> Look<T> {
    pub(super) fn found(self, earliest: T, said: SystemTime) -> Found<T> {
        Found { took: SystemClock.monotonic().saturating_sub(self.began), look: self, earliest, said }
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

    /// Learns from a look. Its transaction has been committed: otherwise rows may stand where they stood before.
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

    /// The next looks are full ones. For calls that move due times of many rows, or make rows readable.
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

    /// Forgets everything where the caller can take other rows than the caller before.
    fn is_for(&mut self, readable: Readable) {
        if self.readable.as_ref() != Some(&readable) {
            self.forget();
            self.readable = Some(readable);
        }
    }

    /// Where a look begins.
    fn since(&mut self, kind: Kind, now: Duration) -> Option<SystemTime> {
        let bound = self.bounds.get_mut(&kind)?;
        if now < bound.full_look_at {
            return Some(bound.at);
        }
        // Should it fail because it takes too long, others go on by the bound.
        bound.full_look_at = now.saturating_add(LONGEST_FULL_LOOK_PAUSE);
        None
    }

    fn learn<T>(&mut self, kind: Kind, found: &Found<T>, since: Option<SystemTime>, earliest: Option<SystemTime>) {
        let Some(at) = earliest.unwrap_or(found.said).min(found.said).checked_sub(MARGIN) else { return };
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

    fn found(look: Look<Times>, first: Option<u64>, said: u64) -> Found<Times> {
        let earliest = Times { polls: vec![first.map(at)], verifications: vec![None] };
        // However slow the machine is that runs the test.
        Found { took: Duration::from_secs(1), ..look.found(earliest, at(said)) }
    }

    /// Where the polls of the one partition begin, after a look that found the earliest at `first`.
    fn after_look(bounds: &DueBounds, first: Option<u64>, said: u64) -> Option<SystemTime> {
        bounds.learn(&claim(), &found(bounds.look(&claim()), first, said));
        bounds.look(&claim()).since.polls[0]
    }

    #[test]
    fn a_bound_lies_before_what_is_there_and_before_what_may_still_be_committed() {
        let bounds = DueBounds::default();
        assert_eq!(bounds.look(&claim()).since.polls, [None]);
        assert_eq!(after_look(&bounds, None, 500), Some(at(498)));
        assert_eq!(after_look(&bounds, Some(2_000), 500), Some(at(498)));
        assert_eq!(after_look(&bounds, Some(450), 500), Some(at(448)), "it goes back with what is there");
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
        assert_eq!(bounds.state().since(kind, next), Some(at(498)), "nobody joins in");
        assert_eq!(full_look_at(), next + LONGEST_FULL_LOOK_PAUSE);
    }
}
