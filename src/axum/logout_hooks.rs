//! What the application decides about logouts.

use std::future::Future;

use ::axum::response::Response;
use http::HeaderMap;

use super::hooks::SignInHooks;
use super::visit::{Visit, redirect};
use crate::client::{EndSessionRequest, LogoutToken};
use crate::logout::SessionsEnded;

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
    /// not know them. With several replicas, return [`SessionsEnded::Already`] for a token that was used in another
    /// one.
    ///
    /// The future is dropped if the OP disconnects, and if it does not end in
    /// [time](super::SignInRouter::end_sessions_within). The token is then not used up.
    fn end_sessions(&self, token: &LogoutToken) -> impl Future<Output = SessionsEnded> + Send;
}
