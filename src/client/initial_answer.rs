//! The answer to an initial request.

use std::mem;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::Client;
use super::revoke::tokens_to_revoke;
use crate::clock::Moment;
use crate::dialect::{self, Dialect};
use crate::dpop::DpopKey;
use crate::error::Error;
use crate::task::Task;

/// The result of sending a grant.
pub(super) struct InitialAnswer {
    /// A success, or an error that defers the tokens.
    pub(super) response: Result<InitialResponse, Error>,
    /// Whether the OP may have used the grant up.
    pub(super) spent: bool,
    pub(super) sent_at: SystemTime,
    pub(super) answered_at: Moment,
}

/// A token response, and the time of its receipt, by which it is validated.
pub(super) struct Received {
    pub(super) response: InitialResponse,
    pub(super) at: SystemTime,
}

/// The body of an answer to a grant. The OP sends it only once, and only the request with this grant can take it. If it is
/// dropped with tokens, they are therefore revoked, as far as the OP allows. The exception is an early access token,
/// which the OP may still need.
///
/// The answers to polls and refreshes are not revoked when they are dropped. An application with a stored copy of the
/// pending sign-in, or of the old tokens, can still ask for them. Also, many OPs revoke all tokens of a sign-in
/// together with one of them.
pub(super) struct InitialResponse {
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Whether it defers the tokens by its form. Its members have not been read.
    pub(super) is_deferral: bool,
    pub(super) dialect: Dialect,
    pub(super) client: Client,
    pub(super) dpop_key: Option<DpopKey>,
}

impl InitialResponse {
    /// Takes the body. The caller is responsible for its tokens from here on.
    pub(super) fn take(mut self) -> Zeroizing<Vec<u8>> {
        mem::take(&mut self.body)
    }
}

impl Drop for InitialResponse {
    fn drop(&mut self) {
        let body = mem::take(&mut self.body);
        let may_be_early = self.dialect.protocol().has_early_access_token() && dialect::is_deferral(&body);
        if may_be_early || tokens_to_revoke(&body).is_empty() {
            return;
        }
        let (client, dpop_key) = (self.client.clone(), self.dpop_key.take());
        tracing::debug!(
            issuer = client.issuer(),
            client_id = client.client_id(),
            "tokens arrived after their caller had gone, or beside a deferral; they are revoked"
        );
        drop(Task::spawn(async move { client.revoke_quietly(&body, dpop_key.as_ref()).await }));
    }
}
