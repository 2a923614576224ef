//! Ping Callbacks, genuine and forged.

use std::fmt;
use std::sync::Arc;

use url::Url;

/// One Ping Callback as it is sent (DTR §Ping Callback).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Where it goes: the client's Deferred Client Notification Endpoint, if it has one.
    pub url: Option<Url>,
    /// The process it is about.
    pub deferred_auth_id: String,
    /// The bearer token in `Authorization`, without the scheme: the `deferred_notification_token` of the exchange.
    pub bearer: Option<String>,
    /// The JSON body.
    pub body: String,
}

/// A ping and what the client answered.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentPing {
    /// The ping.
    pub ping: Ping,
    /// The status of the answer; `None` while there is none, or if the client could not be reached.
    pub status: Option<u16>,
}

/// What a ping by [`TestProcess::send_ping`](super::TestProcess::send_ping) has wrong.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PingForgery {
    /// Nothing: the genuine ping, sent once more.
    Genuine,
    /// No `Authorization` header.
    NoBearer,
    /// This bearer token instead.
    Bearer(String),
    /// The right bearer token, but this `deferred_auth_id`.
    DeferredAuthId(String),
    /// This body.
    Body(String),
}

#[derive(Clone)]
pub(super) struct PingHook(pub(super) Arc<dyn Fn(&Ping) -> u16 + Send + Sync>);

impl fmt::Debug for PingHook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PingHook")
    }
}
