//! Telling an OP that an outcome is no longer wanted. It never holds up a poll.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Poller;
use super::event::Event;
use super::job::Job;
use super::record::{Record, Stage};
use super::shared::{Shared, Tenant, store_error};
use crate::client::Cancelled;
use crate::clock::Moment;
use crate::error::{Error, Misuse};
use crate::pending::{CANCELLATION_PAUSE, PendingAuthentication, Schedule};
use crate::store::{Cancellation, ProcessId, State};

/// How many requests to cancel are under way for one client at a time. An endpoint that hangs holds each of them for as
/// long as a request may take.
const CANCELLATIONS: usize = 16;

/// The requests to cancel of one client.
pub(super) struct Cancellations {
    permits: Arc<Semaphore>,
    /// The requests of [`Poller::cancel`], for as long as the next one has to wait.
    requested: Mutex<BTreeMap<ProcessId, Requested>>,
}

/// A request of [`Poller::cancel`].
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
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Notes a request of [`Poller::cancel`], unless there was one a short time ago or too many are under way.
    fn begin(&self, id: ProcessId, now: Duration) -> Option<OwnedSemaphorePermit> {
        let mut requested = self.requested();
        requested.retain(|_, request| now.saturating_sub(request.sent_at) < CANCELLATION_PAUSE);
        if requested.contains_key(&id) {
            return None;
        }
        let permit = self.permit()?;
        requested.insert(id, Requested { sent_at: now, is_scheduled: false });
        Some(permit)
    }

    /// How long ago [`Poller::cancel`] sent a request that the schedule does not know of.
    fn take_request(&self, id: ProcessId, now: Duration) -> Option<Duration> {
        let mut requested = self.requested();
        let request = requested.get_mut(&id).filter(|request| !request.is_scheduled)?;
        request.is_scheduled = true;
        Some(now.saturating_sub(request.sent_at))
    }

    fn requested(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Requested>> {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Poller {
    /// Tells the OP that the outcome of a process is no longer wanted (DTR §Canceling an Ongoing Authentication
    /// Process).
    ///
    /// The wish is stored first, so it is not lost. If the OP cannot be told now, it is told again beside the polls: a
    /// minute later, and then after pauses that grow to an hour. A second call within a minute sends nothing. Polls do
    /// not wait for it. The process goes on until the OP ends it, and its outcome is delivered: as a rule
    /// [`Cancelled`](crate::Outcome::Cancelled).
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownProcess`], [`Misuse::UnknownClient`], [`Store`](crate::ErrorKind::Store).
    pub async fn cancel(&self, id: ProcessId) -> Result<Cancelled, Error> {
        let shared = self.shared();
        let Some(row) = shared.store.load(id).await.map_err(store_error)? else {
            return Err(Misuse::UnknownProcess.into());
        };
        let tenant = shared.tenant(row.partition);
        let told_by = tenant.as_ref().filter(|tenant| tenant.client.has_cancellation_endpoint());
        // Noted before the wish is stored, so that no poll that sees the wish sends a request too.
        let permit = told_by
            .filter(|_| row.state == State::Waiting)
            .and_then(|tenant| tenant.cancellations.begin(id, shared.clock.monotonic()));
        let flagged = shared.store.cancel(id, Cancellation::Requested).await.map_err(store_error)?;
        match flagged {
            None => return Err(Misuse::UnknownProcess.into()),
            Some(Cancellation::None) => return Ok(Cancelled::TooLate),
            _ if tenant.is_none() => return Err(Misuse::UnknownClient.into()),
            _ if told_by.is_none() => return Ok(Cancelled::LocallyOnly),
            Some(Cancellation::Told) => return Ok(Cancelled::Told),
            Some(Cancellation::Requested) => {}
        }
        let (Some(_permit), Some(tenant), Some(body)) = (permit, &tenant, row.body) else {
            return Ok(Cancelled::Noted);
        };
        let Stage::Process(pending) = Record::open(&shared.keyring, id, &body)?.stage else {
            return Ok(Cancelled::Noted);
        };
        match tenant.client.request_cancellation(&pending).await {
            Ok(cancelled) => {
                shared.store.cancel(id, Cancellation::Told).await.map_err(store_error)?;
                Ok(cancelled)
            }
            Err(error) => {
                shared.tell(Event::Trouble { id, error: Arc::new(error) });
                Ok(Cancelled::Noted)
            }
        }
    }
}

impl Job {
    /// Sends a request to cancel beside the poll, if it is time for one.
    pub(super) fn request_cancellation(
        &self,
        pending: &PendingAuthentication,
        schedule: &mut Schedule,
        now: Moment,
    ) -> Result<(), Error> {
        let (id, cancellations) = (self.claimed.id, &self.tenant.cancellations);
        if let Some(ago) = cancellations.take_request(id, self.shared.clock.monotonic()) {
            schedule.cancellation_sent(now.minus(ago));
        }
        if !schedule.may_cancel(now) {
            return Ok(());
        }
        let Some(permit) = cancellations.permit() else { return Ok(()) };
        let (shared, tenant, pending) = (self.shared.clone(), self.tenant.clone(), pending.duplicate()?);
        let is_sent = self.shared.run(Box::pin(async move {
            cancel(&shared, &tenant, id, &pending).await;
            drop(permit);
        }));
        if is_sent {
            schedule.cancellation_sent(now);
        }
        Ok(())
    }
}

/// Tells the OP, and notes that it knows. If that fails, a later poll tries again.
async fn cancel(shared: &Shared, tenant: &Tenant, id: ProcessId, pending: &PendingAuthentication) {
    if let Err(error) = tenant.client.request_cancellation(pending).await {
        // An OP that refuses the request itself will do so every time.
        let is_refusal = error
            .error_response()
            .is_some_and(|response| matches!(response.code(), "invalid_request" | "invalid_grant"));
        shared.tell(Event::Trouble { id, error: Arc::new(error) });
        if !is_refusal {
            return;
        }
    }
    if let Err(error) = shared.store.cancel(id, Cancellation::Told).await {
        tracing::warn!(process = %id, error = %error, "the result of a cancellation request could not be stored; the request may be repeated");
    }
}
