//! Genuine and forged Ping Callbacks.

use std::fmt;
use std::sync::Arc;

use url::Url;

/// One Ping Callback as it is sent (DTR §Ping Callback; IETF DTR §Callback Notification).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// The destination: the client's Deferred Client Notification Endpoint, if it has one.
    pub url: Option<Url>,
    /// The `deferred_auth_id` of the sign-in; in the IETF dialect, the `deferral_code`.
    pub deferred_auth_id: String,
    /// The bearer token in `Authorization`, without the scheme: the `deferred_notification_token` of the exchange, or
    /// the `client_notification_token` of the IETF dialect.
    pub bearer: Option<String>,
    /// The JSON body.
    pub body: String,
}

/// A ping and the client's answer.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentPing {
    /// The ping.
    pub ping: Ping,
    /// The status of the answer. `None` while there is none, or if the client could not be reached.
    pub status: Option<u16>,
}

/// The forgery in a ping of [`TestProcess::send_ping`](super::TestProcess::send_ping).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PingForgery {
    /// No forgery: the genuine ping, sent again.
    Genuine,
    /// No `Authorization` header.
    NoBearer,
    /// This bearer token instead.
    Bearer(String),
    /// The right bearer token, but this `deferred_auth_id`, or `deferral_code` in the IETF dialect.
    DeferredAuthId(String),
    /// This body instead.
    Body(String),
}

#[derive(Clone)]
pub(super) struct PingHook(pub(super) Arc<dyn Fn(&Ping) -> u16 + Send + Sync>);

impl fmt::Debug for PingHook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PingHook")
    }
}
