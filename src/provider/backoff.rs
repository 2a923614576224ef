//! When a document of the OP may be fetched again: after a failure, and because of a token that its keys do not fit.

use std::time::Duration;

/// The first pauses after a failure: somebody may be looking at a page that waits for this document.
const FIRST_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// In a long outage a pause is this part of the time that the outage has lasted, so that the OP is asked less and less.
const PART_OF_OUTAGE: u32 = 100;
/// However long an outage lasts.
const LONGEST_FAILURE_PAUSE: Duration = Duration::from_secs(30);

/// Between two fetches that tokens from the OP cause, once they have begun to cause many.
pub(super) const REFETCH_COOLDOWN: Duration = Duration::from_secs(60);
/// The same for tokens that come through browsers. A stranger can send many, so a user waits for the next fetch inside of
/// the call: this is shorter than the calls wait.
pub(super) const BROWSER_REFETCH_COOLDOWN: Duration = Duration::from_secs(7);
/// After this long without a fetch that a token caused, the next ones may come quickly again.
const QUIET: Duration = Duration::from_secs(5 * 60);

/// The failures in a row of one document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failures {
    number: usize,
    since: Duration,
    until: Duration,
}

impl Failures {
    /// One more failure at this moment. Of all that failed before, `earlier` has the account.
    ///
    /// `chance` shortens the pause by up to a quarter, so that replicas that failed together do not come back together.
    pub(super) fn after(earlier: Option<Self>, now: Duration, chance: u8) -> Self {
        let (number, since) = earlier.map_or((0, now), |earlier| (earlier.number + 1, earlier.since));
        let [.., last] = FIRST_PAUSES;
        let first = FIRST_PAUSES.get(number).copied().unwrap_or(last);
        let grown = (now.saturating_sub(since) / PART_OF_OUTAGE).min(LONGEST_FAILURE_PAUSE);
        let pause = first.max(grown);
        let pause = pause - pause / 4 * u32::from(chance) / u32::from(u8::MAX);
        Self { number, since, until: now.saturating_add(pause) }
    }

    /// For how long nobody is to ask again.
    pub(super) fn pause(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }
}

/// The fetches that tokens from one source have caused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refetches {
    /// How many in a row.
    number: u32,
    last: Duration,
    until: Duration,
}

impl Refetches {
    /// Counts one at this moment. The pause after it has a longest length.
    pub(super) fn and_one(self, now: Duration, longest_pause: Duration) -> Self {
        let is_quiet = now.saturating_sub(self.last) >= QUIET;
        let number = if is_quiet { 0 } else { self.number };
        let pause = Duration::from_secs(1).saturating_mul(1 << number.min(6)).min(longest_pause);
        Self { number: number.saturating_add(1), last: now, until: now.saturating_add(pause) }
    }

    /// For how long no token is to cause another one.
    pub(super) fn pause(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_outage_is_looked_at_after_1_2_and_4_seconds_and_seldom_once_it_has_lasted() {
        let (mut now, mut failures, mut pauses) = (seconds(1_000), None, Vec::new());
        while now < seconds(12_000) {
            let failed = Failures::after(failures, now, 0);
            pauses.push(failed.pause(now));
            now += failed.pause(now);
            failures = Some(failed);
        }
        assert_eq!(pauses[..5], [seconds(1), seconds(2), seconds(4), seconds(4), seconds(4)]);
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&seconds(30)));
        assert!(pauses.len() < 600, "{}", pauses.len());
        assert!(pauses.iter().take(100).all(|pause| *pause <= seconds(5)));
    }

    #[test]
    fn chance_shortens_a_pause_by_a_quarter_at_most() {
        assert_eq!(Failures::after(None, seconds(7), u8::MAX).pause(seconds(7)), Duration::from_millis(750));
        let between = Failures::after(None, seconds(7), 100).pause(seconds(7));
        assert!(between > Duration::from_millis(750) && between < seconds(1), "{between:?}");
    }

    #[test]
    fn tokens_cause_a_fetch_at_once_and_then_ever_more_seldom_until_it_has_been_quiet() {
        for (longest, expected) in [
            (REFETCH_COOLDOWN, [1, 2, 4, 8, 16, 32, 60, 60, 60]),
            (BROWSER_REFETCH_COOLDOWN, [1, 2, 4, 7, 7, 7, 7, 7, 7]),
        ] {
            let (mut now, mut refetches, mut pauses) = (seconds(0), Refetches::default(), Vec::new());
            for _ in 0..9 {
                assert_eq!(refetches.pause(now), Duration::ZERO);
                refetches = refetches.and_one(now, longest);
                pauses.push(refetches.pause(now).as_secs());
                now += refetches.pause(now);
            }
            assert_eq!(pauses, expected);
            now += QUIET;
            assert_eq!(refetches.and_one(now, longest).pause(now), seconds(1));
        }
    }
}
