//! RFC 7009: giving back tokens that must not be used.

use std::borrow::Cow;
use std::time::Duration;

use super::Client;
use super::token_response::tokens_to_revoke;
use crate::dpop::DpopKey;
use crate::endpoint::{Answer, EndpointRequest};
use crate::error::Document;

/// Somebody waits for the error that comes after this.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Nothing is read from the answer.
const REVOCATION_RESPONSE_LIMIT: usize = 64 * 1024;

impl Client {
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
        for (token, hint) in &tokens {
            let request = EndpointRequest {
                url,
                document: Document::RevocationResponse,
                form: vec![("token", Cow::Borrowed(token.expose())), ("token_type_hint", Cow::Borrowed(*hint))],
                client,
                dpop: dpop_key,
                access_token: None,
                timeout: REVOCATION_TIMEOUT.min(self.0.options.request_timeout),
                body_limit: REVOCATION_RESPONSE_LIMIT,
            };
            // RFC 7009 §2.2: the answer is an empty 200, which is no JSON document.
            match self.0.endpoints.post(request).await {
                Ok(Answer::Success { .. } | Answer::Unusable { status: 200, .. }) => {
                    tracing::debug!(token = hint, "a token was revoked");
                }
                Ok(_) => tracing::warn!(token = hint, "the OP did not revoke a token"),
                Err(failure) => tracing::warn!(token = hint, error = %failure.error, "a token could not be revoked"),
            }
        }
    }
}
