//! Requests to an OP to cancel a sign-in. They never delay a poll.

use std::sync::Arc;

use super::event::Event;
use super::handle::Poller;
use super::job::Job;
use super::record::{Record, Stage};
use super::shared::Shared;
use super::status::CancellationStatus;
use super::tenant::Tenant;
use crate::client;
use crate::clock::Moment;
use crate::error::{Error, Misuse};
use crate::pending::{PendingAuthentication, Schedule};
use crate::store::{Cancellation, Process, ProcessId, State};

impl Poller {
    /// Tells the OP that the outcome of a sign-in is no longer wanted (DTR §Canceling an Ongoing Authentication
    /// Process; IETF DTR §Cancellation).
    ///
    /// The cancellation is stored first, so that it is not lost. If the request to the OP fails, it is repeated
    /// alongside the polls: a minute later, and then after pauses that grow to an hour. A second call within a minute
    /// sends nothing. Polls do not wait for the request. The sign-in continues until the OP ends it, and its outcome is
    /// delivered: normally [`Outcome::Cancelled`](crate::Outcome::Cancelled).
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownProcess`], [`Misuse::UnknownClient`], [`Store`](crate::ErrorKind::Store).
    pub async fn cancel(&self, id: ProcessId) -> Result<CancellationStatus, Error> {
        let shared = self.shared();
        let Some(row) = shared.store.load(id).await? else {
            return Err(Misuse::UnknownProcess.into());
        };
        let tenant = shared.tenant(row.partition);
        let record = row.body.as_ref().map(|body| Record::open(&shared.keyring, id, body));
        let pending = match &record {
            Some(Ok(Record { stage: Stage::Process(pending), .. })) => Some(pending),
            _ => None,
        };
        let told_by = tenant.as_ref().filter(|tenant| tenant.client.may_tell_of_cancellation(pending));
        // Recorded before the cancellation is stored, so that a poll that sees the cancellation does not send a second
        // request.
        let permit = told_by
            .filter(|_| row.state == State::Waiting)
            .and_then(|tenant| tenant.cancellations.begin(id, shared.clock.monotonic()));
        let flagged = shared.store.cancel(id, Cancellation::Requested).await?;
        match flagged {
            None => return Err(Misuse::UnknownProcess.into()),
            Some(Cancellation::None) => return Ok(CancellationStatus::TooLate),
            _ if tenant.is_none() => return Err(Misuse::UnknownClient.into()),
            _ if told_by.is_none() => return Ok(CancellationStatus::LocallyOnly),
            Some(Cancellation::Told) => return Ok(CancellationStatus::Accepted),
            Some(Cancellation::Requested) => {}
        }
        let (Some(_permit), Some(tenant), Some(record)) = (permit, &tenant, record) else {
            return Ok(CancellationStatus::Requested);
        };
        let Stage::Process(pending) = record?.stage else {
            return Ok(CancellationStatus::Requested);
        };
        match tenant.client.request_cancellation(&pending).await {
            Ok(cancelled) => {
                shared.store.cancel(id, Cancellation::Told).await?;
                Ok(match cancelled {
                    client::Cancelled::Accepted => CancellationStatus::Accepted,
                    client::Cancelled::LocallyOnly => CancellationStatus::LocallyOnly,
                })
            }
            Err(error) => {
                shared.emit(Event::TransientError { id, error: Arc::new(error) });
                Ok(CancellationStatus::Requested)
            }
        }
    }
}

impl Shared {
    /// What the OP knows of the cancellation of a row, as long as it has not decided.
    pub(super) fn cancellation_of(
        &self,
        row: &Process,
        pending: Option<&PendingAuthentication>,
    ) -> Option<CancellationStatus> {
        let is_open = matches!(row.state, State::Exchanging | State::Waiting);
        let cannot_tell = |tenant: Arc<Tenant>| !tenant.client.may_tell_of_cancellation(pending);
        match row.cancellation {
            Cancellation::None => None,
            _ if !is_open => None,
            // What cannot be told counts as told in the store.
            _ if self.tenant(row.partition).is_some_and(cannot_tell) => Some(CancellationStatus::LocallyOnly),
            Cancellation::Requested => Some(CancellationStatus::Requested),
            Cancellation::Told => Some(CancellationStatus::Accepted),
        }
    }
}

impl Job {
    /// Sends a cancellation request alongside the poll, if one is due.
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

/// Tells the OP, and records that it was told. If the request fails, a later poll tries again.
async fn cancel(shared: &Shared, tenant: &Tenant, id: ProcessId, pending: &PendingAuthentication) {
    if let Err(error) = tenant.client.request_cancellation(pending).await {
        // An OP that refuses the request itself would refuse every repetition.
        let is_refusal = error.error_response().is_some_and(|response| {
            matches!(response.code(), "invalid_request" | "invalid_grant" | "unsupported_token_type")
        });
        shared.emit(Event::TransientError { id, error: Arc::new(error) });
        if !is_refusal {
            return;
        }
    }
    if let Err(error) = shared.store.cancel(id, Cancellation::Told).await {
        tracing::warn!(process = %id, error = %error, "the result of a cancellation request could not be stored; the request may be repeated");
    }
}
