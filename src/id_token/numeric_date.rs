//! Points in time as JWTs state them.

use serde_json::Value;

use crate::clock::{from_unix_seconds, unix_seconds};

/// RFC 7519 §2, NumericDate: "A JSON numeric value representing the number of seconds from 1970-01-01T00:00:00Z UTC
/// until the specified UTC date/time, ignoring leap seconds", with or without a fraction. Numbers before 1970 and after the
/// year 9999 count as those ends. `None` for anything else, such as a date as text.
pub(crate) fn numeric_date(value: &Value) -> Option<u64> {
    // Casting saturates: at zero for negative numbers.
    let seconds = value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds as u64))?;
    Some(unix_seconds(from_unix_seconds(seconds)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_numeric_date_is_a_number_of_seconds_and_nothing_else() {
        for (value, seconds) in [
            (json!(0), 0),
            (json!(1_800_000_000), 1_800_000_000),
            (json!(1_800_000_000.9), 1_800_000_000),
            (json!(1.8e9), 1_800_000_000),
            (json!(-1), 0),
            (json!(i64::MIN), 0),
            (json!(-0.5), 0),
            (json!(u64::MAX), 253_402_300_799),
            (json!(1e300), 253_402_300_799),
        ] {
            assert_eq!(numeric_date(&value), Some(seconds), "{value}");
        }
        for value in
            [json!("1800000000"), json!("2027-01-15T08:00:00Z"), json!(null), json!(true), json!([1]), json!({})]
        {
            assert_eq!(numeric_date(&value), None, "{value}");
        }
    }
}
