//! RFC 7009: revokes tokens.

use std::borrow::Cow;
use std::time::Duration;

use url::Url;

use super::Client;
use super::granted::Granted;
use super::token_holder::{HeldTokens, Sealed as _, TokenHolder};
use crate::dpop::DpopKey;
use crate::endpoint::{Answer, ClientIdentity, EndpointRequest, Endpoints};
use crate::error::{Document, Error};
use crate::json::Object;
use crate::secret::Secret;
use serde_json::Value;

/// A short timeout, because the caller waits for the error that is returned after the revocation.
const QUIET_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer in bytes. Its content is not used.
const REVOCATION_RESPONSE_LIMIT: usize = 64 * 1024;
const STEP: &str = "revoking a token";

/// The kind of token that is revoked or introspected, so that the OP finds it faster (RFC 7009 §2.1, RFC 7662 §2.1).
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
    /// Revokes the tokens of a sign-in, for a user who signs out for good, or those of a grant without a user, which are
    /// no longer needed. It can be repeated, and does nothing if there are no tokens.
    ///
    /// The requests are bound to the DPoP key of the tokens. The refresh token is first, because many OPs then also
    /// revoke the access tokens that it produced.
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
    /// The errors of [`revoke_token`](Self::revoke_token), for the first token that could not be revoked. The other one
    /// is tried anyway. [`Misuse`](crate::ErrorKind::Misuse) for tokens of another client.
    pub async fn revoke(&self, tokens: &impl TokenHolder) -> Result<(), Error> {
        let tokens = tokens.tokens();
        self.check_ownership(tokens.issuer, tokens.client_id)?;
        let mut revoked = Ok(());
        for (token, hint) in tokens.to_revoke() {
            revoked = revoked.and(self.request_revocation(token, Some(hint), tokens.dpop_key).await);
        }
        revoked
    }

    /// Revokes one token (RFC 7009). The OP's answer does not depend on whether it knew the token, so this can be
    /// repeated.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](crate::ErrorKind::Configuration) if the OP has no revocation endpoint.
    /// - [`ErrorResponse`](crate::ErrorKind::ErrorResponse) if the OP refused, such as `unsupported_token_type` for a
    ///   kind of token that it does not revoke.
    ///
    /// After any other error the token may not be revoked. [`is_transient`](Error::is_transient) states whether to try
    /// again.
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
            let url = self.endpoints(&metadata, client).revocation()?;
            let timeout = self.0.options.request_timeout;
            let (assertion_audience, form) = (self.assertion_audience(&metadata), token_form(token, hint));
            let revocation = Revocation { url, client, assertion_audience, dpop_key, timeout };
            revocation.send(&self.0.endpoints, form).await
        };
        revoked.await.map_err(|error: Error| error.in_step(STEP))
    }

    /// Revokes the tokens of a refused response, as far as the OP allows, so that no unused token stays valid. Failures
    /// are only logged, because no caller needs the result.
    pub(crate) async fn revoke_quietly(&self, token_response: &[u8], dpop_key: Option<&DpopKey>) {
        self.revoke_each_quietly(&tokens_to_revoke(token_response), dpop_key).await;
    }

    /// Revokes the tokens of a grant that no caller is left to receive.
    pub(crate) async fn revoke_granted(&self, granted: &Granted) {
        let tokens = match granted {
            Granted::SignedIn(authentication) => authentication.tokens(),
            Granted::Issued(tokens) => tokens.tokens(),
        };
        let each: Vec<_> = tokens.to_revoke().map(|(token, hint)| (token.clone(), hint)).collect();
        self.revoke_each_quietly(&each, tokens.dpop_key).await;
    }

    async fn revoke_each_quietly(&self, tokens: &[(Secret, TokenTypeHint)], dpop_key: Option<&DpopKey>) {
        if tokens.is_empty() {
            return;
        }
        let Ok(metadata) = self.0.provider.metadata().await else { return };
        let Ok(client) = self.identity_at(&metadata) else { return };
        let Ok(url) = self.endpoints(&metadata, client).revocation() else { return };
        let timeout = self.0.options.request_timeout;
        let assertion_audience = self.assertion_audience(&metadata);
        Revocation { url, client, assertion_audience, dpop_key, timeout }.send_quietly(&self.0.endpoints, tokens).await;
    }
}

impl<'a> HeldTokens<'a> {
    /// The tokens in the order in which they are revoked. The refresh token is first, because many OPs then also revoke
    /// the access tokens that it produced.
    fn to_revoke(&self) -> impl Iterator<Item = (&'a Secret, TokenTypeHint)> + use<'a> {
        let refresh_token = self.refresh_token.map(|token| (token, TokenTypeHint::RefreshToken));
        let access_token = self.access_token.map(|token| (token, TokenTypeHint::AccessToken));
        refresh_token.into_iter().chain(access_token)
    }
}

/// Where and how tokens are revoked.
pub(super) struct Revocation<'a> {
    pub(super) url: &'a Url,
    pub(super) client: &'a ClientIdentity,
    pub(super) assertion_audience: Option<&'a str>,
    pub(super) dpop_key: Option<&'a DpopKey>,
    pub(super) timeout: Duration,
}

impl Revocation<'_> {
    /// Revokes tokens with a short timeout. Failures are logged, not returned.
    pub(super) async fn send_quietly(mut self, endpoints: &Endpoints, tokens: &[(Secret, TokenTypeHint)]) {
        self.timeout = self.timeout.min(QUIET_TIMEOUT);
        for (token, hint) in tokens {
            match self.send(endpoints, token_form(token, Some(*hint))).await {
                Ok(()) => tracing::debug!(token = hint.as_str(), "a token was revoked"),
                Err(error) => tracing::warn!(token = hint.as_str(), %error, "a token could not be revoked"),
            }
        }
    }

    pub(super) async fn send(
        &self,
        endpoints: &Endpoints,
        form: Vec<(&'static str, Cow<'_, str>)>,
    ) -> Result<(), Error> {
        let request = EndpointRequest {
            url: self.url,
            document: Document::RevocationResponse,
            form,
            client: self.client,
            assertion_audience: self.assertion_audience,
            dpop: self.dpop_key,
            access_token: None,
            trace_parent: None,
            timeout: self.timeout,
            body_limit: REVOCATION_RESPONSE_LIMIT,
        };
        match endpoints.post(request).await {
            Ok(Answer::Success { .. }) => Ok(()),
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

/// The access token and refresh token of a refused response, to be revoked.
pub(super) fn tokens_to_revoke(body: &[u8]) -> Vec<(Secret, TokenTypeHint)> {
    let Ok(response) = Object::document(body, Document::TokenResponse) else {
        return Vec::new();
    };
    let token = |kind: TokenTypeHint| match response.members().get(kind.as_str()) {
        Some(Value::String(token)) if !token.is_empty() => Some((Secret::new(token.as_str()), kind)),
        _ => None,
    };
    // The refresh token is first, because many OPs revoke the access token with it.
    [token(TokenTypeHint::RefreshToken), token(TokenTypeHint::AccessToken)].into_iter().flatten().collect()
}
