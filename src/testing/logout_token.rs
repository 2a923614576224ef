//! Logout tokens that were sent, and the sessions that they name.

use serde_json::Value;
use url::Url;

use super::keys;

/// A logout token that was sent to a client, and the client's answer.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentLogoutToken {
    /// The client's `backchannel_logout_uri`.
    pub url: Url,
    /// The token.
    pub token: String,
    /// The status of the answer. `None` if the client could not be reached.
    pub status: Option<u16>,
    /// The body of the answer.
    pub body: String,
    /// The `Cache-Control` of the answer.
    pub cache_control: Option<String>,
}

impl SentLogoutToken {
    /// The `error_description` of the answer, if there is one.
    pub fn error_description(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        Some(body.get("error_description")?.as_str()?.to_owned())
    }
}

/// The session of a sign-in.
pub(super) fn sid(issuer: &str, process: usize) -> String {
    keys::sha256(format!("session {process} at {issuer}").as_bytes())
}
