//! The state of the periodic checks.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::Partition;

/// The state that is kept between two rounds of checks.
#[derive(Debug, Default)]
pub(super) struct WatchMemory {
    /// When the keys of the rows are counted next, on the monotonic clock.
    pub(super) keys_at: Duration,
    /// When the rows of each client are counted next.
    pub(super) stats_at: Duration,
    /// When each cause was last reported.
    pub(super) reported: BTreeMap<Cause, Duration>,
}

/// A problem that is reported at most once an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    MissingKey([u8; 4]),
    NewerFormat(u8),
    UnknownClient(Partition),
}
