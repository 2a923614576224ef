//! How long a success response that cannot be validated yet is kept, and how often validation is retried.
//!
//! The OP gives the response only once. A key of the OP or a decryption key is missing, and either may become
//! available.

use std::time::Duration;

/// How long it is kept.
const VALIDATION_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// The minimum number of attempts, which take some hours, because the application may have been down for part of the
/// time.
const VALIDATION_TRIES: u32 = 200;
/// The number of attempts at the pace at which the OP's keys are fetched again, because a user may be waiting.
const QUICK_TRIES: u32 = 100;
/// The shortest pause at that pace.
const SHORTEST_VALIDATION_PAUSE: Duration = Duration::from_millis(250);
/// The pause after the first failed attempt without a `retry_after`; it doubles up to the next constant.
const VALIDATION_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_VALIDATION_PAUSE: Duration = Duration::from_secs(600);

/// The pause after a failed attempt, given the number of earlier ones. `retry_after` comes from the error.
pub(crate) fn validation_pause(failed_before: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = |times: u32| VALIDATION_PAUSE.saturating_mul(1 << times.min(20)).min(LONGEST_VALIDATION_PAUSE);
    match retry_after {
        Some(wait) if failed_before < QUICK_TRIES => wait.max(SHORTEST_VALIDATION_PAUSE),
        // The pauses continue from those of the quick attempts.
        Some(wait) => wait.max(doubled(failed_before - QUICK_TRIES + 3)),
        None => doubled(failed_before),
    }
}

/// Whether validation is abandoned after this number of attempts.
pub(crate) fn is_given_up(waited: Duration, tries: u32) -> bool {
    waited >= VALIDATION_PATIENCE && tries >= VALIDATION_TRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn early_retries_follow_the_fetches_of_keys_and_later_pauses_grow_to_ten_minutes() {
        for tries in 0..QUICK_TRIES {
            assert_eq!(validation_pause(tries, Some(seconds(4))), seconds(4));
        }
        assert_eq!(validation_pause(0, Some(Duration::ZERO)), SHORTEST_VALIDATION_PAUSE);
        let later: Vec<_> =
            (0..8).map(|more| validation_pause(QUICK_TRIES + more, Some(seconds(20))).as_secs()).collect();
        assert_eq!(later, [20, 20, 32, 64, 128, 256, 512, 600]);
        assert_eq!(validation_pause(u32::MAX, Some(seconds(700))), seconds(700));
    }

    #[test]
    fn without_a_hint_the_pauses_double_from_a_second_to_ten_minutes() {
        let pauses: Vec<_> = (0..11).map(|tries| validation_pause(tries, None).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        assert_eq!(validation_pause(u32::MAX, None), seconds(600));
    }

    #[test]
    fn a_validation_is_given_up_only_after_a_day_and_two_hundred_attempts() {
        assert!(is_given_up(VALIDATION_PATIENCE, VALIDATION_TRIES));
        assert!(!is_given_up(VALIDATION_PATIENCE * 30, VALIDATION_TRIES - 1));
        assert!(!is_given_up(VALIDATION_PATIENCE - seconds(1), u32::MAX));
    }
}
