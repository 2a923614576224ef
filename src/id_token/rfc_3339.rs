//! Times of ISO 8601 in the form `YYYY-MM-DDThh:mm[:ss]TZD`, with a fraction of the second perhaps (RFC 3339 §5.6).

use std::time::SystemTime;

use crate::clock::from_unix_seconds;

const DAY: u64 = 86_400;

/// `None` for anything else, and for times before 1970.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    // A longer text has a fraction finer than any clock.
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    let (date, rest) = text.split_once(['T', 't'])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at_checked(zone_at)?;
    let (hour, minute, second) = match time.matches(':').count() {
        1 => numbers(time, ':', [2, 2]).map(|[hour, minute]| (hour, minute, 0))?,
        _ => {
            let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
            if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            numbers(whole, ':', [2, 2, 2]).map(|[hour, minute, second]| (hour, minute, second))?
        }
    };
    let month_length = match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is as good as the one before.
    if year < 1970 || day == 0 || day > month_length || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days =
        (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum::<u64>() + days_before(year, month) + day - 1;
    let local = days * DAY + hour * 3_600 + minute * 60 + second.min(59);
    let seconds = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => local,
        ("+", offset) => local.checked_sub(offset_seconds(offset)?)?,
        ("-", offset) => local + offset_seconds(offset)?,
        _ => return None,
    };
    Some(from_unix_seconds(seconds))
}

/// Days of the year before its month.
fn days_before(year: u64, month: u64) -> u64 {
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30];
    lengths.into_iter().zip(1..month).map(|(length, _)| length).sum()
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// `hh:mm`, and the basic form `hhmm`.
fn offset_seconds(text: &str) -> Option<u64> {
    let [hours, minutes] = match text.split_at_checked(2)? {
        (hours, minutes) if minutes.len() == 2 => [number(hours, 2)?, number(minutes, 2)?],
        _ => numbers(text, ':', [2, 2])?,
    };
    (hours <= 23 && minutes <= 59).then_some(hours * 3_600 + minutes * 60)
}

fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (place, digits) in numbers.iter_mut().zip(digits) {
        *place = number(parts.next()?, digits)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let fits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}
