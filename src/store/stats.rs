//! Statistics of the rows of a store.

use std::time::Duration;

use super::row::Partition;

/// The number of rows that need a key. There is one value for each pair of a key and a format.
///
/// Serialized, the key has eight hexadecimal digits.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct KeyStats {
    /// The key.
    #[serde(rename = "key_id", serialize_with = "hexadecimal")]
    pub key: [u8; 4],
    /// The format of the bodies.
    pub format: u8,
    /// Rows with a body of this format that was sealed with the key.
    pub bodies: u64,
    /// Rows in `Exchanging` or `Waiting` whose `first_key` it is. Their fingerprints and the tokens
    /// of their pings can only be verified with it.
    pub waiting: u64,
}

/// Statistics of the rows of a partition.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStats {
    /// The partition.
    pub partition: Partition,
    /// Rows in [`Exchanging`](super::State::Exchanging).
    pub exchanging: u64,
    /// Rows in [`Waiting`](super::State::Waiting).
    pub waiting: u64,
    /// Rows in [`Answered`](super::State::Answered).
    pub answered: u64,
    /// Rows in [`Decided`](super::State::Decided).
    pub decided: u64,
    /// Rows in [`Acknowledged`](super::State::Acknowledged).
    pub acknowledged: u64,
    /// Rows that were [set aside](super::Store#a-row), because their bodies are missing. They count in their states
    /// too.
    pub set_aside: u64,
    /// How long the oldest row in `Exchanging`, `Waiting` or `Answered` has been due and not leased.
    #[serde(serialize_with = "whole_seconds")]
    pub overdue: Option<Duration>,
    /// How long ago the oldest unacknowledged outcome was decided, whether or not it is claimed.
    #[serde(serialize_with = "whole_seconds")]
    pub undelivered: Option<Duration>,
}

fn hexadecimal<S: serde::Serializer>(key: &[u8; 4], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:08x}", u32::from_be_bytes(*key)))
}

/// Serializes a duration as whole seconds.
pub(crate) fn whole_seconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&duration.map(|duration| duration.as_secs()), serializer)
}

impl PartitionStats {
    /// Returns the statistics of a partition without rows.
    pub fn empty(partition: Partition) -> Self {
        Self {
            partition,
            exchanging: 0,
            waiting: 0,
            answered: 0,
            decided: 0,
            acknowledged: 0,
            set_aside: 0,
            overdue: None,
            undelivered: None,
        }
    }

    /// Adds the statistics of other rows of the partition.
    #[cfg(feature = "postgres")]
    pub(super) fn add(&mut self, other: &Self) {
        self.exchanging += other.exchanging;
        self.waiting += other.waiting;
        self.answered += other.answered;
        self.decided += other.decided;
        self.acknowledged += other.acknowledged;
        self.set_aside += other.set_aside;
        self.overdue = self.overdue.max(other.overdue);
        self.undelivered = self.undelivered.max(other.undelivered);
    }

    /// Returns the number of rows whose outcome is not decided.
    pub fn open(&self) -> u64 {
        self.exchanging + self.waiting + self.answered
    }
}
