//! RFC 7009: giving back tokens.

use std::borrow::Cow;
use std::time::Duration;

use url::Url;

use super::Client;
use super::authentication::Authentication;
use super::token_response::tokens_to_revoke;
use crate::dpop::DpopKey;
use crate::endpoint::{Answer, ClientIdentity, EndpointRequest};
use crate::error::{ConfigurationProblem, Document, Error};
use crate::secret::Secret;

/// Somebody waits for the error that comes after this.
const QUIET_TIMEOUT: Duration = Duration::from_secs(5);
/// Nothing is read from the answer.
const REVOCATION_RESPONSE_LIMIT: usize = 64 * 1024;
const STEP: &str = "revoking a token";

/// What kind of token is revoked or asked about, so that the OP finds it sooner (RFC 7009 §2.1, RFC 7662 §2.1).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTypeHint {
    /// `access_token`.
    AccessToken,
    /// `refresh_token`.
    RefreshToken,
}

impl TokenTypeHint {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }
}

impl Client {
    /// Revokes the tokens of a sign-in, the refresh token first, because many OPs revoke the access tokens that came of
    /// it along with it: for when the user signs out for good. It can be repeated, and does nothing where there are no
    /// tokens.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, authentication: openid_deferred::Authentication)
    /// # -> Result<(), openid_deferred::Error> {
    /// client.revoke(&authentication).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`revoke_token`](Self::revoke_token), for the first token that could not be revoked; the other one is tried all
    /// the same. [`Misuse`](crate::ErrorKind::Misuse) for an authentication of another client.
    pub async fn revoke(&self, authentication: &Authentication) -> Result<(), Error> {
        let tokens = authentication.body();
        self.check_ownership(&tokens.issuer, &tokens.client_id)?;
        let key = tokens.dpop_key.as_ref();
        let mut revoked = Ok(());
        for (token, hint) in
            [(&tokens.refresh_token, TokenTypeHint::RefreshToken), (&tokens.access_token, TokenTypeHint::AccessToken)]
        {
            if let Some(token) = token {
                revoked = revoked.and(self.request_revocation(token, Some(hint), key).await);
            }
        }
        revoked
    }

    /// Revokes one token (RFC 7009). The OP says the same whether it knew the token or not, so this can be repeated.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) where the OP has no revocation endpoint;
    /// [`ErrorResponse`](crate::ErrorKind::ErrorResponse) where it refused, such as `unsupported_token_type` for a kind
    /// of token that it does not revoke; otherwise it may not have been done, and
    /// [`is_transient`](Error::is_transient) says whether to try again.
    pub async fn revoke_token(
        &self,
        token: &Secret,
        hint: impl Into<Option<TokenTypeHint>> + Send,
    ) -> Result<(), Error> {
        self.request_revocation(token, hint.into(), None).await
    }

    async fn request_revocation(
        &self,
        token: &Secret,
        hint: Option<TokenTypeHint>,
        dpop_key: Option<&DpopKey>,
    ) -> Result<(), Error> {
        let revoked = async {
            let metadata = self.0.provider.metadata().await?;
            let client = self.identity_at(&metadata)?;
            let url = self.endpoints(&metadata, client).revocation();
            let url = url.ok_or(ConfigurationProblem::NoEndpoint("revocation_endpoint"))?;
            self.send_revocation(url, client, token, hint, dpop_key, self.0.options.request_timeout).await
        };
        revoked.await.map_err(|error: Error| error.in_step(STEP))
    }

    /// Revokes the tokens of a response that is not believed, as far as the OP lets them be: they must not lie around
    /// because we refused to use them. Nobody waits for the result, so failures are logged only.
    pub(super) async fn revoke_quietly(&self, token_response: &[u8], dpop_key: Option<&DpopKey>) {
        let tokens = tokens_to_revoke(token_response);
        if tokens.is_empty() {
            return;
        }
        let Ok(metadata) = self.0.provider.metadata().await else { return };
        let Ok(client) = self.identity_at(&metadata) else { return };
        let Some(url) = self.endpoints(&metadata, client).revocation() else { return };
        let timeout = QUIET_TIMEOUT.min(self.0.options.request_timeout);
        for (token, hint) in &tokens {
            match self.send_revocation(url, client, token, Some(*hint), dpop_key, timeout).await {
                Ok(()) => tracing::debug!(token = hint.as_str(), "a token was revoked"),
                Err(error) => tracing::warn!(token = hint.as_str(), %error, "a token could not be revoked"),
            }
        }
    }

    async fn send_revocation(
        &self,
        url: &Url,
        client: &ClientIdentity,
        token: &Secret,
        hint: Option<TokenTypeHint>,
        dpop: Option<&DpopKey>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let request = EndpointRequest {
            url,
            document: Document::RevocationResponse,
            form: token_form(token, hint),
            client,
            dpop,
            access_token: None,
            timeout,
            body_limit: REVOCATION_RESPONSE_LIMIT,
        };
        match self.0.endpoints.post(request).await {
            // RFC 7009 §2.2: "The content of the response body is ignored by the client as all necessary information is
            // conveyed in the response code."
            Ok(Answer::Success { .. } | Answer::Unusable { status: 200 | 204, .. }) => Ok(()),
            Ok(Answer::Error(answer)) => Err(Error::new(answer.response).with_retry_after(answer.retry_after)),
            Ok(Answer::Unusable { violation, retry_after, .. }) => {
                Err(Error::new(violation).with_retry_after(retry_after))
            }
            Err(failure) => Err(failure.error),
        }
    }
}

/// The parameters of RFC 7009 §2.1 and RFC 7662 §2.1.
pub(super) fn token_form(token: &Secret, hint: Option<TokenTypeHint>) -> Vec<(&'static str, Cow<'_, str>)> {
    let mut form = vec![("token", Cow::Borrowed(token.expose()))];
    form.extend(hint.map(|hint| ("token_type_hint", hint.as_str().into())));
    form
}
