//! The state of the periodic checks.

use std::time::Duration;

/// The state that is kept between two rounds of checks.
#[derive(Debug, Default)]
pub(super) struct WatchMemory {
    /// When the keys of the rows are counted next, on the monotonic clock.
    pub(super) keys_at: Duration,
    /// When the rows of each client are counted next.
    pub(super) stats_at: Duration,
}
