//! The answer to a refresh, which the OP may send only once.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::unix_seconds;
use crate::dpop::DpopKey;
use crate::pending::validation_pause;
use crate::sealed;

/// The unparsed answer to a refresh, with the key that its tokens are bound to.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Refreshed {
    #[serde(rename = "b", with = "sealed::secret_bytes")]
    pub(super) body: Zeroizing<Vec<u8>>,
    #[serde(rename = "t", with = "sealed::seconds")]
    pub(super) received_at: SystemTime,
    #[serde(rename = "key", with = "sealed::dpop_key", default, skip_serializing_if = "Option::is_none")]
    pub(super) dpop_key: Option<DpopKey>,
    /// The number of failed attempts to validate it. Attempts that follow each other faster than [`validation_pause`]
    /// count as one.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub(super) attempts: u32,
    /// The time from which the next failed attempt counts, in seconds since 1970.
    #[serde(rename = "c", default, skip_serializing_if = "is_zero")]
    counts_from: u64,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Refreshed {
    pub(super) fn new(body: Zeroizing<Vec<u8>>, received_at: SystemTime, dpop_key: Option<DpopKey>) -> Self {
        Self { body, received_at, dpop_key, attempts: 0, counts_from: 0 }
    }

    /// Counts a failed attempt. A caller that tries again at once must not use up the attempts for a long outage.
    pub(super) fn count_failure(&mut self, now: SystemTime, retry_after: Option<Duration>) {
        let now = unix_seconds(now);
        if now >= self.counts_from {
            let pause = validation_pause(self.attempts, retry_after).max(Duration::from_secs(1));
            self.attempts = self.attempts.saturating_add(1);
            self.counts_from = now.saturating_add(pause.as_secs());
        }
    }
}
