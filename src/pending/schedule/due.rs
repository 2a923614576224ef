//! Points in time that survive a restart.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, saturating_add};
use crate::sealed;

/// A point in time to wait for. It is kept on the wall clock, which survives a restart, and within one program also on
/// the monotonic clock, which does not jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Due {
    #[serde(rename = "at", with = "sealed::milliseconds")]
    pub(super) wall: SystemTime,
    /// The length of the wait at its beginning. A wall clock that is set back cannot make the rest longer than this.
    #[serde(rename = "of", with = "sealed::duration_milliseconds")]
    pub(super) wait: Duration,
    #[serde(skip)]
    pub(super) monotonic: Option<Duration>,
}

impl Due {
    pub(super) fn after(wait: Duration, from: Moment) -> Self {
        let at = from.plus(wait);
        Self { wall: at.wall, wait, monotonic: Some(at.monotonic) }
    }

    pub(super) fn remaining(&self, now: Moment) -> Duration {
        match self.monotonic {
            Some(at) => at.saturating_sub(now.monotonic),
            None => self.wall.duration_since(now.wall).unwrap_or(Duration::ZERO).min(self.wait),
        }
    }

    /// The same wait, shortened to this length.
    pub(super) fn at_most(self, wait: Duration) -> Self {
        let excess = self.wait.saturating_sub(wait);
        Self {
            wall: self.wall.checked_sub(excess).unwrap_or(SystemTime::UNIX_EPOCH),
            wait: self.wait.min(wait),
            monotonic: self.monotonic.map(|at| at.saturating_sub(excess)),
        }
    }

    /// The same point in time by a wall clock that shows `to` where it used to show `from`.
    pub(super) fn moved(self, from: SystemTime, to: SystemTime) -> Self {
        Self { wall: moved(self.wall, from, to), ..self }
    }

    /// After a restart: continues on this process's monotonic clock.
    pub(super) fn anchor(&mut self, now: Moment) {
        if self.monotonic.is_none() {
            self.monotonic = Some(now.monotonic.saturating_add(self.remaining(now)));
        }
    }
}

/// The same point in time by a wall clock that shows `to` where it used to show `from`.
pub(super) fn moved(time: SystemTime, from: SystemTime, to: SystemTime) -> SystemTime {
    match to.duration_since(from) {
        Ok(ahead) => saturating_add(time, ahead),
        Err(behind) => time.checked_sub(behind.duration()).unwrap_or(SystemTime::UNIX_EPOCH),
    }
}
