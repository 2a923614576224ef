//! Logout: of the user who asks for it here, and of sessions that the OP ends.
//!
//! - **The user logs out here.** End the session of your application, then send the browser to the URL of
//!   [`Client::end_session`](crate::Client::end_session), which ends the session at the OP (OpenID Connect RP-Initiated
//!   Logout 1.0). When the browser comes back to the
//!   [`post_logout_redirect_uri`](crate::ClientBuilder::post_logout_redirect_uri),
//!   [`Client::end_session_response`](crate::Client::end_session_response) checks the `state` with the [`LogoutSession`].
//! - **The OP ends a session.** It posts a logout token to the registered
//!   [`backchannel_logout_uri`](crate::registration::RegistrationRequest::backchannel_logout_uri) (OpenID Connect
//!   Back-Channel Logout 1.0). Serve a [`Receiver`] there, with any web framework. The [`LogoutToken`] says whose
//!   sessions to end. [`Client::logout_token`](crate::Client::logout_token) only verifies a token.
//!
//! With the feature `axum`, `SignInRouter::logout` adds the routes for both.

pub use crate::client::{EndSessionRequest, LogoutSession, LogoutToken};

mod receiver;
mod used_tokens;

pub use receiver::{BODY_LIMIT, BODY_TIMEOUT, Receiver, SessionsEnded};
