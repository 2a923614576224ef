//! DTR §Canceling an Ongoing Authentication Process and IETF DTR §Cancellation: the application no longer wants the
//! outcome.

use std::borrow::Cow;

use serde_json::Value;

use super::revoke::Revocation;
use super::{AssertionAudience, Client};
use crate::dialect::{Cancellation, Dialect};
use crate::endpoint::{Answer, EndpointRequest};
use crate::error::{Document, Error, Misuse};
use crate::pending::PendingAuthentication;
use crate::provider::ProviderMetadata;

/// The longest answer in bytes. Only its status is used.
const CANCELLATION_RESPONSE_LIMIT: usize = 64 * 1024;

/// The result of [`Client::cancel`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The OP accepted the cancellation request.
    Accepted,
    /// The OP does not know of the cancellation: no cancellation endpoint is configured or, in the [IETF
    /// dialect](crate::Dialect::Ietf), the OP's metadata does not say that a deferral code can be revoked.
    /// [CIBA](crate::Dialect::Ciba) defines no cancellation.
    LocallyOnly,
}

impl Client {
    /// Tells the OP that the outcome is no longer wanted (DTR §Authentication Cancellation Request; IETF DTR
    /// §Cancellation).
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

    /// Whether this client can tell the OP of a cancellation, as far as that is known without a request. The dialect of
    /// a request that has not been answered yet is unknown.
    pub(crate) fn may_tell_of_cancellation(&self, pending: Option<&PendingAuthentication>) -> bool {
        let may_tell = |dialect: Dialect| match dialect.protocol().cancellation() {
            Cancellation::Undefined => false,
            Cancellation::AtEndpoint => self.0.cancellation_endpoint.is_some(),
            Cancellation::ByRevocation { token_type } => {
                self.0.provider.known_metadata().is_none_or(|metadata| revokes(&metadata, token_type))
            }
        };
        match pending {
            Some(pending) => may_tell(pending.dialect()),
            None => Dialect::ALL.into_iter().any(may_tell),
        }
    }

    /// Tells the OP in the way of the dialect that `pending` belongs to.
    pub(crate) async fn request_cancellation(&self, pending: &PendingAuthentication) -> Result<Cancelled, Error> {
        let told = match pending.0.dialect.protocol().cancellation() {
            Cancellation::Undefined => Ok(Cancelled::LocallyOnly),
            Cancellation::AtEndpoint => self.cancel_at_endpoint(pending).await,
            Cancellation::ByRevocation { token_type } => self.cancel_by_revocation(pending, token_type).await,
        };
        told.map_err(|error| error.in_step("cancelling"))
    }

    /// DTR §Authentication Cancellation Request.
    async fn cancel_at_endpoint(&self, pending: &PendingAuthentication) -> Result<Cancelled, Error> {
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
        let identifier = (pending.0.dialect.protocol().identifier(), Cow::Borrowed(pending.0.identifier.expose()));
        let request = || EndpointRequest {
            url,
            document: Document::CancellationResponse,
            form: vec![identifier.clone()],
            client,
            assertion_audience,
            dpop: pending.0.dpop_key.as_ref(),
            access_token: None,
            trace_parent: None,
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
        match told.await {
            // An empty answer is not a JSON document, and the draft requires no body.
            Ok(Answer::Success { .. } | Answer::Unusable { status: 200..=204, .. }) => Ok(Cancelled::Accepted),
            Ok(Answer::Error(answer)) => Err(Error::new(answer.response).with_retry_after(answer.retry_after)),
            Ok(Answer::Unusable { violation, retry_after, .. }) => {
                Err(Error::new(violation).with_retry_after(retry_after))
            }
            Err(failure) => Err(failure.error),
        }
    }

    /// IETF DTR §Cancellation. A server without support answers 200 and does nothing, so the metadata has to list the
    /// type.
    async fn cancel_by_revocation(
        &self,
        pending: &PendingAuthentication,
        token_type: &'static str,
    ) -> Result<Cancelled, Error> {
        let metadata = self.0.provider.metadata().await?;
        if !revokes(&metadata, token_type) {
            return Ok(Cancelled::LocallyOnly);
        }
        let client = self.identity_at(&metadata)?;
        let revocation = Revocation {
            url: self.endpoints(&metadata, client).revocation()?,
            client,
            assertion_audience: self.assertion_audience(&metadata),
            dpop_key: pending.0.dpop_key.as_ref(),
            timeout: self.0.options.request_timeout,
        };
        let token = Cow::Borrowed(pending.0.identifier.expose());
        revocation.send(&self.0.endpoints, vec![("token", token), ("token_type_hint", token_type.into())]).await?;
        Ok(Cancelled::Accepted)
    }
}

/// Whether the OP has a revocation endpoint that accepts this type of token.
fn revokes(metadata: &ProviderMetadata, token_type: &str) -> bool {
    if metadata.revocation_endpoint().is_none() {
        return false;
    }
    let listed = metadata.extra("revocation_endpoint_token_type_values_supported").and_then(Value::as_array);
    listed.is_some_and(|listed| listed.iter().any(|listed| listed == token_type))
}

fn status(answer: &Answer) -> Option<u16> {
    match answer {
        Answer::Success { .. } => Some(200),
        Answer::Error(answer) => answer.response.status(),
        Answer::Unusable { status, .. } => Some(*status),
    }
}
