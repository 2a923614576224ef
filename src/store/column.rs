//! How databases store times and keys in integer columns.

use std::time::Duration;

/// Eight thousand years. A moment plus three of these still fits into 64 bits of microseconds and into PostgreSQL's
/// `timestamptz`, so no sum overflows.
const LONGEST: Duration = Duration::from_secs(8_000 * 31_556_952);

/// Converts to microseconds, rounded up so that nothing becomes due early.
pub(super) fn micros(duration: Duration) -> i64 {
    let micros = duration.min(LONGEST).as_nanos().div_ceil(1000);
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Converts the identifier of a key to a number.
pub(super) fn key_number(key: [u8; 4]) -> i64 {
    i64::from(u32::from_be_bytes(key))
}

/// Converts a number to the identifier of a key, if it is in range.
pub(super) fn key_of(number: i64) -> Option<[u8; 4]> {
    u32::try_from(number).ok().map(u32::to_be_bytes)
}

/// Converts a limit to the type that databases take.
pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_and_saturate_so_that_sums_fit() {
        assert_eq!(micros(Duration::from_nanos(1)), 1);
        assert_eq!(micros(Duration::from_micros(7)), 7);
        assert!(micros(Duration::MAX).checked_mul(30).is_some());
    }

    #[test]
    fn a_key_is_restored_from_its_number() {
        assert_eq!(key_of(key_number([0xff, 0, 1, 2])), Some([0xff, 0, 1, 2]));
        assert_eq!(key_of(-1), None);
    }
}
