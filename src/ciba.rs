//! Backchannel authentication (OpenID Connect Client-Initiated Backchannel Authentication Flow Core 1.0, CIBA): the
//! application names a user, and the OP asks them on another device.
//!
//! [`Client::backchannel_authentication`](crate::Client::backchannel_authentication) starts a request for the user of a
//! [`UserHint`]. [`AuthenticationRequest::send`] returns a [`PendingAuthentication`](crate::PendingAuthentication), and
//! [`Poller::request_authentication`](crate::Poller::request_authentication) the id of a stored one. From there on
//! everything is as in a sign-in that began in a browser: polls, pings, outcomes. If the OP refuses the request,
//! [`AuthenticationRefusal`] says why.
//!
//! [`ClientBuilder::backchannel_token_delivery_mode`](crate::ClientBuilder::backchannel_token_delivery_mode) sets the
//! registered [`DeliveryMode`].

pub use crate::client::{AuthenticationRefusal, AuthenticationRequest, DeliveryMode, UserHint};
