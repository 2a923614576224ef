//! When a document of the OP may be fetched again: after a failure, and for a token that its keys do not verify.

use std::time::Duration;

/// The first pauses after a failure. They are short, because a user may be waiting for this document.
const FIRST_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// In a long outage a pause is this fraction of its duration so far, so that requests become rarer.
const PART_OF_OUTAGE: u32 = 100;
/// The longest pause, however long the outage lasts.
const LONGEST_FAILURE_PAUSE: Duration = Duration::from_secs(30);

/// The longest time between two fetches that tokens from the OP cause.
pub(super) const REFETCH_COOLDOWN: Duration = Duration::from_secs(60);
/// The same for tokens that come through browsers. An attacker can send many, so a user's call waits for the next
/// fetch; this time is shorter than the call's patience.
pub(super) const BROWSER_REFETCH_COOLDOWN: Duration = Duration::from_secs(7);
/// After this time without a fetch that a token caused, the intervals start over.
const QUIET: Duration = Duration::from_secs(5 * 60);

/// The consecutive failures of one document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failures {
    number: usize,
    since: Duration,
    until: Duration,
}

impl Failures {
    /// Records one more failure now, after the failures in `earlier`.
    ///
    /// `chance` shortens the pause by up to a quarter, so that replicas that failed together do not retry together.
    pub(super) fn after(earlier: Option<Self>, now: Duration, chance: u8) -> Self {
        let (number, since) = earlier.map_or((0, now), |earlier| (earlier.number + 1, earlier.since));
        let [.., last] = FIRST_PAUSES;
        let first = FIRST_PAUSES.get(number).copied().unwrap_or(last);
        let grown = (now.saturating_sub(since) / PART_OF_OUTAGE).min(LONGEST_FAILURE_PAUSE);
        let pause = first.max(grown);
        let pause = pause - pause / 4 * u32::from(chance) / u32::from(u8::MAX);
        Self { number, since, until: now.saturating_add(pause) }
    }

    /// The remaining pause.
    pub(super) fn pause(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }
}

/// The fetches that tokens from one source caused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refetches {
    /// The number of consecutive fetches.
    number: u32,
    last: Duration,
    until: Duration,
}

impl Refetches {
    /// Counts one now. The pause after it has a maximum.
    pub(super) fn and_one(self, now: Duration, longest_pause: Duration) -> Self {
        let is_quiet = now.saturating_sub(self.last) >= QUIET;
        let number = if is_quiet { 0 } else { self.number };
        let pause = Duration::from_secs(1).saturating_mul(1 << number.min(6)).min(longest_pause);
        Self { number: number.saturating_add(1), last: now, until: now.saturating_add(pause) }
    }

    /// The remaining time until a token may cause another fetch.
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
    fn retries_in_an_outage_come_after_1_2_and_4_seconds_and_then_rarely() {
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
    fn jitter_shortens_a_pause_by_a_quarter_at_most() {
        assert_eq!(Failures::after(None, seconds(7), u8::MAX).pause(seconds(7)), Duration::from_millis(750));
        let between = Failures::after(None, seconds(7), 100).pause(seconds(7));
        assert!(between > Duration::from_millis(750) && between < seconds(1), "{between:?}");
    }

    #[test]
    fn pauses_between_fetches_for_tokens_grow_until_a_quiet_period() {
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
