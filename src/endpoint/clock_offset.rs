//! The clock offsets of servers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::DATE;
use url::Url;

use super::origin;
use crate::clock::saturating_add;

/// A smaller difference is not the reason for a refused proof.
const LEAST: Duration = Duration::from_secs(5);
/// A larger difference is ignored.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);
const ORIGINS_LIMIT: usize = 64;

/// The offsets because of which servers refused proofs. Each is used only for proofs and assertions to its origin;
/// nothing else uses the time of another machine.
#[derive(Default)]
pub(super) struct ClockOffsets(Mutex<BTreeMap<String, Offset>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offset {
    Ahead(Duration),
    Behind(Duration),
}

impl ClockOffsets {
    /// The server's time when the local clock shows `now`.
    pub(super) fn apply(&self, url: &Url, now: SystemTime) -> SystemTime {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).get(origin(url)) {
            None => now,
            Some(offset) => offset.apply(now),
        }
    }

    /// Takes the offset from a response that refused a proof. Returns whether the time of later proofs differs enough
    /// from the refused one for another attempt.
    pub(super) fn correct(&self, url: &Url, server_time: Option<SystemTime>, now: SystemTime) -> bool {
        let Some(server_time) = server_time else { return false };
        let offset = Offset::between(now, server_time);
        let mut offsets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let believed = offsets.get(origin(url)).map_or(now, |offset| offset.apply(now));
        if offset.size() > MOST || Offset::between(believed, server_time).size() < LEAST {
            return false;
        }
        if offset.size() < LEAST {
            // One of the clocks was corrected.
            offsets.remove(origin(url));
            return true;
        }
        if offsets.len() >= ORIGINS_LIMIT && !offsets.contains_key(origin(url)) {
            offsets.pop_first();
        }
        offsets.insert(origin(url).to_owned(), offset);
        true
    }
}

impl Offset {
    fn between(ours: SystemTime, theirs: SystemTime) -> Self {
        match theirs.duration_since(ours) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(behind) => Self::Behind(behind.duration()),
        }
    }

    fn apply(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Ahead(by) => saturating_add(now, by),
            Self::Behind(by) => now.checked_sub(by).unwrap_or(now),
        }
    }

    fn size(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }
}

/// The `Date` of a response (RFC 9110 §6.6.1).
pub(super) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_unix_seconds;

    const NOW: u64 = 1_800_000_000;

    fn corrected(offsets: &ClockOffsets, server: u64) -> bool {
        offsets.correct(&op(), Some(from_unix_seconds(server)), from_unix_seconds(NOW))
    }

    fn op() -> Url {
        Url::parse("https://op.example/token").unwrap()
    }

    #[test]
    fn a_difference_between_5_seconds_and_a_day_is_followed_in_both_directions() {
        for (server, followed) in [
            (NOW, false),
            (NOW + 4, false),
            (NOW - 4, false),
            (NOW + 5, true),
            (NOW - 5, true),
            (NOW + 86_400, true),
            (NOW + 86_401, false),
            (NOW - 86_401, false),
            (0, false),
        ] {
            let offsets = ClockOffsets::default();
            assert_eq!(corrected(&offsets, server), followed, "{server}");
            let expected = if followed { server } else { NOW };
            assert_eq!(offsets.apply(&op(), from_unix_seconds(NOW)), from_unix_seconds(expected));
        }
    }

    #[test]
    fn an_offset_is_for_its_origin_alone() {
        let offsets = ClockOffsets::default();
        assert!(corrected(&offsets, NOW + 3_600));
        let other = Url::parse("https://op.example:8443/token").unwrap();
        assert_eq!(offsets.apply(&other, from_unix_seconds(NOW)), from_unix_seconds(NOW));
    }

    #[test]
    fn a_proof_with_the_servers_time_is_not_corrected_again() {
        let offsets = ClockOffsets::default();
        assert!(corrected(&offsets, NOW + 3_600));
        assert!(!corrected(&offsets, NOW + 3_602));
    }

    #[test]
    fn an_offset_is_forgotten_when_the_clocks_agree_again() {
        let offsets = ClockOffsets::default();
        assert!(corrected(&offsets, NOW + 3_600));
        assert!(corrected(&offsets, NOW + 1));
        assert_eq!(offsets.apply(&op(), from_unix_seconds(NOW)), from_unix_seconds(NOW));
    }
}
