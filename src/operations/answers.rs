//! The answers to what an operator asked for. They serialize as objects with a member `result`.

use std::time::Duration;

use serde::Serialize;

use super::seconds;
use crate::store::{ProcessId, State};

/// The answer to [`Operations::poll_now`](super::Operations::poll_now).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum PollNow {
    /// The next poll is due after this time, the earliest one that the OP permits.
    /// [`Overview::stuck`](super::Overview::stuck) says whether a replica will send it.
    Scheduled {
        /// The time from now; zero if it is due at once.
        #[serde(rename = "due_in_seconds", serialize_with = "seconds")]
        due_in: Duration,
    },
    /// A replica has claimed it for a poll, which is in flight or was interrupted. The call changed nothing.
    InFlight,
    /// Its body is missing, or it was set aside, so replicas skip it. The call changed nothing. Restore the body and
    /// call [`Operations::requeue`](super::Operations::requeue), or forget the sign-in.
    NoBody,
    /// The OP has decided, so it is not polled any more.
    TooLate,
    /// The store does not have it.
    NotFound,
}

/// The answer to [`Operations::requeue`](super::Operations::requeue).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Requeue {
    /// It is due now.
    Done {
        /// Its state.
        state: State,
    },
    /// A request to the OP may be in flight. It is due again by itself.
    InUse {
        /// The time until its lease ends.
        #[serde(rename = "ends_in_seconds", serialize_with = "seconds")]
        ends_in: Duration,
    },
    /// Its body is missing: restore it from a backup, or forget the sign-in.
    NoBody,
    /// It is not claimed. It becomes due by itself.
    Free,
    /// The store does not have it, or its outcome was acknowledged.
    NotFound,
}

/// The answer to [`Operations::cancel`](super::Operations::cancel).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Cancel {
    /// It is marked. A replica tells the OP at the next poll, unless the sign-in is
    /// [stuck](super::Overview::stuck).
    Requested,
    /// The OP was told before, or cannot be told.
    Told,
    /// The OP has decided.
    TooLate,
    /// The store does not have it.
    NotFound,
}

/// The answer to [`Operations::forget`](super::Operations::forget).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// The sign-in.
    pub id: ProcessId,
    /// The number of entries that were erased, in all tables; zero if the store did not have it.
    pub erased: u64,
    /// The number of entries that a second look found; anything but zero is an error of the store.
    pub left: u64,
    /// Whether the log of the database was emptied too. Only SQLite can do that, unless another program is reading from
    /// the log; then forget it again. The log of PostgreSQL keeps changes until it is recycled and its archive is erased.
    pub is_log_empty: bool,
}

impl Forgotten {
    /// Whether nothing is left in the tables of the store.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }
}
