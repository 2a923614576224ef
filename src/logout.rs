//! Logout: of the user who asks for it here, and of sessions that the OP ends.
//!
//! - **The user logs out here.** End the session of your application, then send the browser to the URL of
//!   [`Client::end_session`](crate::Client::end_session), which ends the session at the OP (OpenID Connect RP-Initiated
//!   Logout 1.0). When the browser comes back to the
//!   [`post_logout_redirect_uri`](crate::ClientBuilder::post_logout_redirect_uri),
//!   [`Client::end_session_response`](crate::Client::end_session_response) checks the `state` with the [`LogoutSession`].
//! - **The OP ends a session.** It posts a logout token to the registered
//!   [`backchannel_logout_uri`](crate::registration::RegistrationRequest::backchannel_logout_uri) (OpenID Connect
//!   Back-Channel Logout 1.0). [`Client::logout_token`](crate::Client::logout_token) verifies it, and the
//!   [`LogoutToken`] says whose sessions to end.
//!
//! With the feature `axum`, `SignInRouter::logout` adds the routes for both.

pub use crate::client::{EndSessionRequest, LogoutSession, LogoutToken};
