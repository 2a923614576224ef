//! The requests to cancel of one client, and how many there may be at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pending::CANCELLATION_PAUSE;
use crate::store::ProcessId;

/// How many requests to cancel are under way for one client at a time. An endpoint that hangs holds each of them for as
/// long as a request may take.
const CANCELLATIONS: usize = 16;

/// The requests to cancel of one client.
pub(super) struct Cancellations {
    permits: Arc<Semaphore>,
    /// The requests of [`Poller::cancel`](super::Poller::cancel), for as long as the next one has to wait.
    requested: Mutex<BTreeMap<ProcessId, Requested>>,
}

/// A request of [`Poller::cancel`](super::Poller::cancel).
struct Requested {
    sent_at: Duration,
    /// Whether the schedule of the row knows of it.
    is_scheduled: bool,
}

impl Default for Cancellations {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(CANCELLATIONS)), requested: Mutex::default() }
    }
}

impl Cancellations {
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Notes a request of [`Poller::cancel`](super::Poller::cancel), unless there was one a short time ago or too many are under way.
    pub(super) fn begin(&self, id: ProcessId, now: Duration) -> Option<OwnedSemaphorePermit> {
        let mut requested = self.requested();
        requested.retain(|_, request| now.saturating_sub(request.sent_at) < CANCELLATION_PAUSE);
        if requested.contains_key(&id) {
            return None;
        }
        let permit = self.permit()?;
        requested.insert(id, Requested { sent_at: now, is_scheduled: false });
        Some(permit)
    }

    /// How long ago [`Poller::cancel`](super::Poller::cancel) sent a request that the schedule does not know of.
    pub(super) fn take_request(&self, id: ProcessId, now: Duration) -> Option<Duration> {
        let mut requested = self.requested();
        let request = requested.get_mut(&id).filter(|request| !request.is_scheduled)?;
        request.is_scheduled = true;
        Some(now.saturating_sub(request.sent_at))
    }

    fn requested(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Requested>> {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
