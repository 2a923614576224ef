//! What a stored schedule says to an operator about the next request.

use std::time::{Duration, SystemTime};

use super::Schedule;

/// When the OP is asked next, and why not earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The interval between two polls.
    pub(crate) interval: Duration,
    /// The planned time between the last request and the next: the interval, or longer.
    pub(crate) wait: Duration,
    /// Until when `Retry-After` forbids polls.
    pub(crate) retry_at: Option<SystemTime>,
}

impl Plan {
    /// Reads the text of a row. `None` if it has no schedule that this release can read.
    pub(crate) fn read(schedule: &str, now: SystemTime) -> Option<Self> {
        let schedule: Schedule = serde_json::from_str(schedule).ok()?;
        Some(Self {
            interval: schedule.interval_at(now),
            wait: schedule.due.wait,
            retry_at: schedule.not_before.map(|not_before| not_before.wall),
        })
    }
}
