//! The cancellation requests of one client, and their maximum number at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pending::CANCELLATION_PAUSE;
use crate::store::ProcessId;

/// The maximum number of cancellation requests of one client in flight. An endpoint that hangs holds each of them until
/// the request times out.
const CANCELLATIONS: usize = 16;

/// The cancellation requests of one client.
pub(super) struct Cancellations {
    permits: Arc<Semaphore>,
    /// The requests of [`Poller::cancel`](super::Poller::cancel), kept until the next one may be sent.
    requested: Mutex<BTreeMap<ProcessId, Requested>>,
}

/// A request of [`Poller::cancel`](super::Poller::cancel).
struct Requested {
    sent_at: Duration,
    /// Whether the schedule of the row takes it into account.
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

    /// Records a request of [`Poller::cancel`](super::Poller::cancel), unless one was sent a short time ago or too many
    /// are in flight.
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

    /// How long ago [`Poller::cancel`](super::Poller::cancel) sent a request that the schedule does not take into
    /// account yet.
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
