//! `Retry-After` (RFC 9110 §10.2.3).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::clock_offset;

/// The longest accepted time. A server may send a date in another century.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The requested waiting time, in seconds or until a date, at most a day. Anything else is ignored.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        // The date is in the server's time, so it is compared with the server's `Date`.
        let now = clock_offset::date(headers).unwrap_or(now);
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LIMIT))
}

#[cfg(test)]
mod tests {
    use http::header::DATE;

    use super::*;
    use crate::clock::from_unix_seconds;

    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    const NOW: u64 = 784_111_777;

    fn read(value: &str) -> Option<u64> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers, from_unix_seconds(NOW)).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_honoured_up_to_a_day() {
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 120 "), Some(120));
        assert_eq!(read("86401"), Some(86_400));
        assert_eq!(read("99999999999999999999999999"), Some(86_400));
    }

    #[test]
    fn a_date_is_honoured_up_to_a_day() {
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Fri, 06 Nov 2099 08:49:37 GMT"), Some(86_400));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
    }

    #[test]
    fn a_date_is_relative_to_the_servers_clock() {
        let headers = HeaderMap::from_iter([
            (DATE, "Sun, 06 Nov 1994 09:49:37 GMT".parse().unwrap()),
            (RETRY_AFTER, "Sun, 06 Nov 1994 09:50:37 GMT".parse().unwrap()),
        ]);
        assert_eq!(retry_after(&headers, from_unix_seconds(NOW)), Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_malformed_retry_after_is_ignored() {
        for value in ["", "soon", "-5", "+5", "1.5", "5s", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), from_unix_seconds(NOW)), None);
    }
}
