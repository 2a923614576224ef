//! DTR §Canceling an Ongoing Authentication Process: the application no longer wants the outcome.

use std::borrow::Cow;

use super::{AssertionAudience, Client};
use crate::endpoint::{Answer, EndpointRequest};
use crate::error::{Document, Error, Misuse};
use crate::pending::PendingAuthentication;

/// The longest answer in bytes. Only its status is used.
const CANCELLATION_RESPONSE_LIMIT: usize = 64 * 1024;

/// The result of [`Client::cancel`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The OP accepted the cancellation request.
    Told,
    /// No cancellation endpoint is configured, so the OP does not know of the cancellation.
    LocallyOnly,
}

impl Client {
    /// Tells the OP that the outcome is no longer wanted (DTR §Authentication Cancellation Request).
    ///
    /// `pending` is marked first, and keeps the mark after an error: seal it again, then repeat the call. This does not
    /// end the sign-in. Continue to poll until the OP ends it: its `access_denied` or `invalid_grant` then returns
    /// [`Outcome::Cancelled`](super::Outcome::Cancelled). An approval that crossed the cancellation is
    /// [`Approved`](super::Outcome::Approved), and
    /// [`is_after_cancellation`](super::Authentication::is_after_cancellation) is `true`.
    ///
    /// # Errors
    ///
    /// Returns an error if the OP was not reached or refused. If it [is transient](Error::is_transient), try again.
    /// [`Misuse`](crate::ErrorKind::Misuse) if the sign-in has ended or belongs to another client.
    pub async fn cancel(&self, pending: &mut PendingAuthentication) -> Result<Cancelled, Error> {
        self.check_ownership(&pending.0.issuer, &pending.0.client_id)?;
        if pending.has_ended() {
            return Err(Misuse::NothingToPoll.into());
        }
        pending.0.cancelled = true;
        self.request_cancellation(pending).await
    }

    pub(crate) fn has_cancellation_endpoint(&self) -> bool {
        self.0.cancellation_endpoint.is_some()
    }

    pub(crate) async fn request_cancellation(&self, pending: &PendingAuthentication) -> Result<Cancelled, Error> {
        let Some(url) = &self.0.cancellation_endpoint else { return Ok(Cancelled::LocallyOnly) };
        // If the client's authentication is settled, the metadata is not fetched: the endpoint is a setting.
        let metadata = match self.0.assertion_audience {
            AssertionAudience::Issuer | AssertionAudience::Endpoint => None,
            AssertionAudience::TokenEndpoint => Some(self.0.provider.metadata().await?),
        };
        let assertion_audience = match &metadata {
            Some(metadata) => self.assertion_audience(metadata),
            None => (self.0.assertion_audience == AssertionAudience::Issuer).then(|| self.issuer()),
        };
        let client = self.identity().await?;
        let request = || EndpointRequest {
            url,
            document: Document::CancellationResponse,
            form: vec![("deferred_auth_id", Cow::Borrowed(pending.0.deferred_auth_id.expose()))],
            client,
            assertion_audience,
            dpop: pending.0.dpop_key.as_ref(),
            access_token: None,
            timeout: self.0.options.request_timeout,
            body_limit: CANCELLATION_RESPONSE_LIMIT,
        };
        let told = async {
            let answer = self.0.endpoints.post(request()).await?;
            // The draft's text requires a form, but its example shows JSON, which has no place for client
            // authentication.
            if status(&answer) == Some(415) && !client.authentication.is_in_body() {
                return self.0.endpoints.post_json(request()).await;
            }
            Ok(answer)
        };
        let told = match told.await {
            // An empty answer is not a JSON document, and the draft requires no body.
            Ok(Answer::Success { .. } | Answer::Unusable { status: 200..=204, .. }) => Ok(Cancelled::Told),
            Ok(Answer::Error(answer)) => Err(Error::new(answer.response).with_retry_after(answer.retry_after)),
            Ok(Answer::Unusable { violation, retry_after, .. }) => {
                Err(Error::new(violation).with_retry_after(retry_after))
            }
            Err(failure) => Err(failure.error),
        };
        told.map_err(|error| error.in_step("cancelling"))
    }
}

fn status(answer: &Answer) -> Option<u16> {
    match answer {
        Answer::Success { .. } => Some(200),
        Answer::Error(answer) => answer.response.status(),
        Answer::Unusable { status, .. } => Some(*status),
    }
}
