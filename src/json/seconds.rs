//! Numbers of seconds in the answers of OPs.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Document, Rule, Violation};

/// How fractions are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// For an interval, a longer time is safe.
    Up,
    /// For a lifetime, a shorter time is safe.
    Down,
}

/// Reads a number of seconds in any form that OPs are known to send: integers, integral and fractional floats, and
/// strings of these. A value that is zero, negative or not a number counts as absent.
pub(crate) fn seconds(value: Option<&Value>, member: &'static str, rounding: Rounding) -> Option<Duration> {
    let read = match value? {
        Value::Number(number) => whole(number.as_u64(), number.as_f64(), rounding),
        Value::String(text) => whole(text.trim().parse().ok(), text.trim().parse().ok(), rounding),
        _ => None,
    };
    if read.is_none() {
        tracing::warn!(member, "the OP sent a time that is not a positive number of seconds; it counts as absent");
    }
    read
}

/// Refuses a value that is not a positive integer, for clients that are strict about times.
pub(crate) fn check_seconds(value: Option<&Value>, member: &'static str, document: Document) -> Result<(), Violation> {
    if value.is_some_and(|value| value.as_u64().is_none_or(|seconds| seconds == 0)) {
        return Err(Violation::new(Rule::InvalidMember).in_document(document).at_member(member));
    }
    Ok(())
}

fn whole(integer: Option<u64>, float: Option<f64>, rounding: Rounding) -> Option<Duration> {
    let seconds = match (integer, float, rounding) {
        (Some(seconds), _, _) => seconds,
        // The cast saturates, so 1e30 becomes the longest time. Infinity is only possible in a string.
        (None, Some(float), Rounding::Up) if float > 0.0 => float.ceil() as u64,
        (None, Some(float), Rounding::Down) if float > 0.0 => float.floor() as u64,
        _ => return None,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn interval(value: Value) -> Option<u64> {
        seconds(Some(&value), "interval", Rounding::Up).map(|duration| duration.as_secs())
    }

    fn lifetime(value: Value) -> Option<u64> {
        seconds(Some(&value), "expires_in", Rounding::Down).map(|duration| duration.as_secs())
    }

    #[test]
    fn numbers_and_numeric_strings_are_read_as_times() {
        for value in [json!(60), json!(60.0), json!("60"), json!(" 60 "), json!("60.0")] {
            assert_eq!((interval(value.clone()), lifetime(value.clone())), (Some(60), Some(60)), "{value}");
        }
    }

    #[test]
    fn a_fractional_interval_rounds_up_and_a_fractional_lifetime_down() {
        assert_eq!((interval(json!(5.2)), lifetime(json!(5.2))), (Some(6), Some(5)));
        assert_eq!((interval(json!(0.2)), lifetime(json!(0.2))), (Some(1), None));
    }

    #[test]
    fn huge_times_saturate() {
        assert_eq!(interval(json!(1e30)), Some(u64::MAX));
        assert_eq!(lifetime(json!(u64::MAX)), Some(u64::MAX));
        assert_eq!(lifetime(json!("99999999999999999999999")), Some(u64::MAX));
    }

    #[test]
    fn zero_negative_and_malformed_times_count_as_absent() {
        for value in [
            json!(0),
            json!(-5),
            json!(-0.5),
            json!("soon"),
            json!(""),
            json!("NaN"),
            json!([60]),
            json!({}),
            json!(true),
        ] {
            assert_eq!((interval(value.clone()), lifetime(value.clone())), (None, None), "{value}");
        }
    }

    #[test]
    fn strict_times_refuses_values_that_are_not_positive_integers() {
        for value in [json!("60"), json!(60.0), json!(0), json!(-1)] {
            assert!(check_seconds(Some(&value), "interval", Document::TokenResponse).is_err(), "{value}");
        }
        assert!(check_seconds(Some(&json!(60)), "interval", Document::TokenResponse).is_ok());
        assert!(check_seconds(None, "interval", Document::TokenResponse).is_ok());
    }
}
