//! The answer to a code.

use std::mem;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::Client;
use crate::clock::Moment;
use crate::dialect;
use crate::dpop::DpopKey;
use crate::error::Error;
use crate::task::Task;

/// The result of sending a code.
pub(super) struct CodeAnswer {
    /// A successful response.
    pub(super) response: Result<CodeResponse, Error>,
    /// Whether the OP may have used the code up.
    pub(super) spent: bool,
    pub(super) sent_at: SystemTime,
    pub(super) answered_at: Moment,
}

/// A token response, and the time of its receipt, by which it is validated.
pub(super) struct Received {
    pub(super) response: CodeResponse,
    pub(super) at: SystemTime,
}

/// The body of a successful response to a code. The OP sends it only once, and only the grant of this code can take it.
/// If it is dropped with final tokens, they are therefore revoked, as far as the OP allows.
///
/// The answers to polls and refreshes are not revoked when they are dropped. An application with a stored copy of the
/// pending sign-in, or of the old tokens, can still ask for them. Also, many OPs revoke all tokens of a sign-in
/// together with one of them.
pub(super) struct CodeResponse {
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Whether it defers the tokens by its form. Its members have not been read.
    pub(super) is_deferral: bool,
    pub(super) client: Client,
    pub(super) dpop_key: Option<DpopKey>,
}

impl CodeResponse {
    /// Takes the body. The caller is responsible for its tokens from here on.
    pub(super) fn take(mut self) -> Zeroizing<Vec<u8>> {
        mem::take(&mut self.body)
    }
}

impl Drop for CodeResponse {
    fn drop(&mut self) {
        let body = mem::take(&mut self.body);
        // The OP may still need an early access token that comes with a deferral.
        if body.is_empty() || dialect::is_deferral(&body) {
            return;
        }
        let (client, dpop_key) = (self.client.clone(), self.dpop_key.take());
        tracing::debug!(
            issuer = client.issuer(),
            client_id = client.client_id(),
            "the call that exchanged a code was dropped before it returned; the tokens are revoked"
        );
        drop(Task::spawn(async move { client.revoke_quietly(&body, dpop_key.as_ref()).await }));
    }
}
