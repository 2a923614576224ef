//! Lower bounds of due times: where a scan for due rows starts.
//!
//! A settled row leaves a dead entry in the index by due time. PostgreSQL cannot remove it while an older transaction
//! of the database is open, such as a backup, and a claim would scan all of these entries. So the store remembers for
//! each partition a time before which nothing is due, and scans from there.
//!
//! **Why that hides no row for long.** A call either sets a due time that is not earlier than the database's clock, or
//! does not change it. A transaction that is not committed yet may have read the clock before the scan. Three scans
//! find its row:
//! - Most scans start [`NEAR_MARGIN`] before the earliest due time, because most transactions commit that soon.
//! - A far scan runs several times a second. It starts [`FAR_MARGIN`] before the earliest due time that the previous
//!   far scan found, so it finds each row that was committed within this time.
//! - Full scans find the remaining rows: those that were committed later, changed by hand, or sealed again with a key
//!   that is known here. A full scan happens every second if it is fast.
//!
//! Far and full scans read many dead entries while an old transaction is open. The slower they are, the rarer they are.
//! A bound that is later than the clock is ignored, because the clock was set back; the result of that scan also lowers
//! the bound.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::{Clock as _, SystemClock};
use crate::store::{Claim, OutcomeClaim, Partition};

/// Most transactions commit this soon after they have read the clock.
const NEAR_MARGIN: Duration = Duration::from_millis(50);
/// Nearly all transactions commit this soon after they have read the clock.
const FAR_MARGIN: Duration = Duration::from_secs(2);
/// The pause after a far scan is this many times as long as the scan took.
const FAR_SCAN_FACTOR: u32 = 20;
/// The minimum of that pause.
const SHORTEST_FAR_SCAN_PAUSE: Duration = Duration::from_millis(100);
/// The maximum of that pause, and the pause after a far scan that failed.
const LONGEST_FAR_SCAN_PAUSE: Duration = Duration::from_secs(2);
/// The pause after a full scan is this many times as long as the scan took.
const FULL_SCAN_FACTOR: u32 = 100;
/// The minimum of that pause.
const SHORTEST_FULL_SCAN_PAUSE: Duration = Duration::from_secs(1);
/// The maximum of that pause, and the pause after a full scan that failed.
const LONGEST_FULL_SCAN_PAUSE: Duration = Duration::from_secs(600);

/// What a scan searches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Polls(Partition),
    Verifications(Partition),
    Outcomes,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    /// Nothing is due before this, except the rows of transactions that take longer than [`NEAR_MARGIN`].
    near: SystemTime,
    /// The same with [`FAR_MARGIN`]. It is always before `near`.
    far: SystemTime,
    /// When the next far scan is due, on the monotonic clock.
    far_scan_at: Duration,
    /// When the next full scan is due, on the monotonic clock.
    full_scan_at: Duration,
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
pub(super) struct Scan<T> {
    /// Where it starts; `None` for a full scan.
    pub(super) since: T,
    generation: u64,
    /// On the monotonic clock.
    began: Duration,
}

/// The result of a scan.
#[derive(Debug)]
pub(super) struct Found<T> {
    scan: Scan<T>,
    took: Duration,
    /// The earliest due times, including those of rows that other replicas have claimed.
    earliest: T,
    /// The time of the database's clock.
    now: SystemTime,
}

impl<T> Scan<T> {
    pub(super) fn found(self, earliest: T, now: SystemTime) -> Found<T> {
        Found { took: SystemClock.monotonic().saturating_sub(self.began), scan: self, earliest, now }
    }
}

impl DueBounds {
    pub(super) fn scan(&self, claim: &Claim) -> Scan<Times> {
        self.scan_with(claim.format, &claim.keys, |state, now| {
            let mut of = |kind: fn(Partition) -> Kind| {
                claim.quotas.iter().map(|quota| state.since(kind(quota.partition), now)).collect()
            };
            Times { polls: of(Kind::Polls), verifications: of(Kind::Verifications) }
        })
    }

    pub(super) fn scan_for_outcomes(&self, claim: &OutcomeClaim) -> Scan<Option<SystemTime>> {
        self.scan_with(claim.format, &claim.keys, |state, now| state.since(Kind::Outcomes, now))
    }

    fn scan_with<T>(&self, format: u8, keys: &[[u8; 4]], since: impl FnOnce(&mut State, Duration) -> T) -> Scan<T> {
        let mut state = self.state();
        state.is_for((format, keys.to_vec()));
        let began = SystemClock.monotonic();
        Scan { since: since(&mut state, began), generation: state.generation, began }
    }

    /// Updates the bounds from a scan. Call it after the commit, because without the commit the due times have not
    /// changed.
    pub(super) fn learn(&self, claim: &Claim, found: &Found<Times>) {
        let mut state = self.state();
        if state.generation != found.scan.generation {
            return;
        }
        for (place, quota) in claim.quotas.iter().enumerate() {
            let at = |times: &[Option<SystemTime>]| times.get(place).copied().flatten();
            let (since, earliest) = (&found.scan.since, &found.earliest);
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
        if state.generation == found.scan.generation {
            state.learn(Kind::Outcomes, found, found.scan.since, found.earliest);
        }
    }

    /// Notes how long an insertion or a ping took. If a scan ran meanwhile, the row may lie before the near bound.
    pub(super) fn wrote(&self, took: Duration) {
        if took > NEAR_MARGIN {
            self.state().bounds.values_mut().for_each(|bound| bound.far_scan_at = Duration::ZERO);
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
        // If a far or full scan takes too long and fails, other claims continue with the nearer bound.
        if now >= bound.full_scan_at {
            bound.full_scan_at = now.saturating_add(LONGEST_FULL_SCAN_PAUSE);
            return None;
        }
        if now >= bound.far_scan_at {
            bound.far_scan_at = now.saturating_add(LONGEST_FAR_SCAN_PAUSE);
            return Some(bound.far);
        }
        Some(bound.near)
    }

    fn learn<T>(&mut self, kind: Kind, found: &Found<T>, since: Option<SystemTime>, earliest: Option<SystemTime>) {
        let at = earliest.unwrap_or(found.now).min(found.now);
        let (Some(near), Some(far)) = (at.checked_sub(NEAR_MARGIN), at.checked_sub(FAR_MARGIN)) else { return };
        let next = |factor, shortest, longest| {
            let pause = found.took.saturating_mul(factor).clamp(shortest, longest);
            found.scan.began.saturating_add(found.took).saturating_add(pause)
        };
        let far_scan_at = next(FAR_SCAN_FACTOR, SHORTEST_FAR_SCAN_PAUSE, LONGEST_FAR_SCAN_PAUSE);
        match (since, self.bounds.get_mut(&kind)) {
            (None, _) => {
                let full_scan_at = next(FULL_SCAN_FACTOR, SHORTEST_FULL_SCAN_PAUSE, LONGEST_FULL_SCAN_PAUSE);
                self.bounds.insert(kind, Bound { near, far, far_scan_at, full_scan_at });
            }
            // It scanned everything from the far bound on.
            (Some(since), Some(bound)) if since <= bound.far => {
                (bound.near, bound.far, bound.far_scan_at) = (near, far, far_scan_at);
            }
            (Some(_), Some(bound)) => (bound.near, bound.far) = (near, bound.far.min(far)),
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

    fn found(scan: Scan<Times>, first: Option<u64>, now: u64) -> Found<Times> {
        let earliest = Times { polls: vec![first.map(at)], verifications: vec![None] };
        // Independent of the speed of the machine that runs the test.
        Found { took: Duration::from_secs(1), ..scan.found(earliest, at(now)) }
    }

    /// Where the scan for polls of the one partition starts, after a scan that found the earliest due time at `first`.
    fn after_scan(bounds: &DueBounds, first: Option<u64>, now: u64) -> Option<SystemTime> {
        bounds.learn(&claim(), &found(bounds.scan(&claim()), first, now));
        bounds.scan(&claim()).since.polls[0]
    }

    #[test]
    fn most_scans_start_just_before_the_earliest_row_and_the_clock() {
        let bounds = DueBounds::default();
        assert_eq!(bounds.scan(&claim()).since.polls, [None]);
        assert_eq!(after_scan(&bounds, None, 500), Some(at(500) - NEAR_MARGIN));
        assert_eq!(after_scan(&bounds, Some(2_000), 500), Some(at(500) - NEAR_MARGIN));
        assert_eq!(
            after_scan(&bounds, Some(450), 500),
            Some(at(450) - NEAR_MARGIN),
            "the bound follows an earlier row"
        );
    }

    #[test]
    fn a_far_scan_starts_before_what_was_committed_since_the_previous_one() {
        let bounds = DueBounds::default();
        after_scan(&bounds, None, 500);
        let kind = Kind::Polls(Partition(1));
        // Near scans go on, and the far bound stays.
        assert_eq!(after_scan(&bounds, None, 510), Some(at(510) - NEAR_MARGIN));
        let far_scan_at = bounds.state().bounds[&kind].far_scan_at;
        assert_eq!(bounds.state().since(kind, far_scan_at), Some(at(500) - FAR_MARGIN));
        assert_eq!(bounds.state().since(kind, far_scan_at), Some(at(510) - NEAR_MARGIN), "other claims scan less");
        let far = Times { polls: vec![Some(at(500) - FAR_MARGIN)], verifications: vec![None] };
        bounds.learn(&claim(), &found(Scan { since: far, ..bounds.scan(&claim()) }, None, 520));
        assert_eq!(bounds.state().bounds[&kind].far, at(520) - FAR_MARGIN);
    }

    #[test]
    fn a_slow_insertion_or_ping_makes_the_next_scan_a_far_one() {
        let bounds = DueBounds::default();
        after_scan(&bounds, None, 500);
        bounds.wrote(NEAR_MARGIN);
        assert_eq!(bounds.scan(&claim()).since.polls, [Some(at(500) - NEAR_MARGIN)]);
        bounds.wrote(NEAR_MARGIN * 2);
        assert_eq!(bounds.scan(&claim()).since.polls, [Some(at(500) - FAR_MARGIN)]);
        assert_eq!(bounds.scan(&claim()).since.polls, [Some(at(500) - NEAR_MARGIN)]);
    }

    #[test]
    fn a_bound_follows_a_clock_that_is_set_back_and_counts_for_the_same_keys_alone() {
        let bounds = DueBounds::default();
        assert_eq!(after_scan(&bounds, None, 500), Some(at(500) - NEAR_MARGIN));
        assert_eq!(after_scan(&bounds, None, 100), Some(at(100) - NEAR_MARGIN));
        assert_eq!(bounds.state().bounds[&Kind::Polls(Partition(1))].far, at(100) - FAR_MARGIN);
        assert_eq!(bounds.scan(&Claim { keys: vec![[2; 4]], ..claim() }).since.polls, [None]);
        assert_eq!(bounds.scan(&claim()).since.polls, [None]);
    }

    #[test]
    fn a_search_result_from_before_a_reset_of_the_bounds_is_discarded() {
        let bounds = DueBounds::default();
        let scan = bounds.scan(&claim());
        bounds.forget();
        bounds.learn(&claim(), &found(scan, None, 501));
        assert_eq!(bounds.scan(&claim()).since.polls, [None]);
        assert_eq!(after_scan(&bounds, None, 500), Some(at(500) - NEAR_MARGIN));
    }

    #[test]
    fn full_scans_take_a_hundredth_of_the_time_and_a_failed_one_does_not_stop_claims() {
        let bounds = DueBounds::default();
        after_scan(&bounds, None, 500);
        let kind = Kind::Polls(Partition(1));
        let full_scan_at = || bounds.state().bounds[&kind].full_scan_at;
        let next = full_scan_at();
        let pause = next.saturating_sub(SystemClock.monotonic());
        assert!(pause > Duration::from_secs(50) && pause <= Duration::from_secs(101), "{pause:?}");
        assert_eq!(bounds.state().since(kind, next), None);
        let far = Some(at(500) - FAR_MARGIN);
        assert_eq!(bounds.state().since(kind, next), far, "other claims do not scan everything too");
        assert_eq!(full_scan_at(), next + LONGEST_FULL_SCAN_PAUSE);
    }
}
