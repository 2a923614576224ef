//! What the application decides about logouts.

use std::future::Future;

use ::axum::response::Response;
use http::HeaderMap;

use super::hooks::SignInHooks;
use super::visit::{Visit, redirect};
use crate::client::{EndSessionRequest, LogoutToken};

/// What the application does in the routes that [`SignInRouter::logout`](super::SignInRouter::logout) adds.
pub trait LogoutHooks: SignInHooks {
    /// The user logs out in this browser. End the session of the application, and name the sign-in to the OP with
    /// [`EndSessionRequest::of`] or [`id_token_hint`](EndSessionRequest::id_token_hint). The headers become part of the
    /// answer, such as the `Set-Cookie` that deletes the application's cookie. Do not use
    /// [`session_data`](EndSessionRequest::session_data), in which the routes keep the path to return to.
    ///
    /// The browser is then sent to the OP. If the OP has no end-session endpoint or its metadata is unavailable, the
    /// user gets the answer of [`logged_out`](Self::logged_out) at once, and their session at the OP goes on.
    ///
    /// # Errors
    ///
    /// A response that is sent instead, for example because the store of the sessions is unavailable.
    fn log_out<'a>(
        &self,
        request: EndSessionRequest<'a>,
        visit: &Visit,
    ) -> impl Future<Output = Result<(EndSessionRequest<'a>, HeaderMap), Response>> + Send;

    /// The user has logged out. The default redirects to [`Visit::return_path`]: the checked `return_to` of the form, or
    /// `/`.
    fn logged_out(&self, visit: &Visit) -> impl Future<Output = Response> + Send {
        let response = redirect(visit.return_path());
        async move { response }
    }

    /// The OP has ended sessions. End those of the application that the [token](LogoutToken) names.
    ///
    /// The router remembers used tokens, but in memory: it forgets them when the program ends, and other replicas do
    /// not know them. With several replicas, insert [`LogoutToken::jti`] into a table with a unique index in the
    /// transaction that ends the sessions, and return [`SessionsEnded::Already`] if it is there. Delete it after
    /// [`LogoutToken::usable_until`].
    ///
    /// If the OP disconnects, the future may be dropped. The token is then not used up.
    fn end_sessions(&self, token: &LogoutToken) -> impl Future<Output = SessionsEnded> + Send;
}

/// What [`LogoutHooks::end_sessions`] did, and so the answer to the OP (OpenID Connect Back-Channel Logout 1.0 §2.8).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsEnded {
    /// The sessions are ended, or there were none: 200.
    Done,
    /// The token was used before, perhaps in another replica: 400 (§2.6, 8).
    Already,
    /// The sessions could not be ended, because a store is unavailable: 503, so that the OP may try again with the same
    /// token (§2.5). The specification has 400 here too, with which no OP could tell the two apart.
    Failed,
}
