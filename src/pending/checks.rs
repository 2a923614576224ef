//! The requirements of the authorization request for the final ID Token.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The requirements, kept from the authorization request until the final ID Token arrives, perhaps weeks later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checks {
    /// `None` if the request had none.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<String>,
    /// When the user was redirected, or named to the OP; `max_age` counts from here.
    #[serde(rename = "t", with = "crate::sealed::seconds")]
    pub(crate) requested_at: SystemTime,
    /// In seconds.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_age: Option<u64>,
    #[serde(rename = "a", default, skip_serializing_if = "is_false")]
    pub(crate) require_auth_time: bool,
    /// Whether an `acr` is required, with any value.
    #[serde(rename = "ra", default, skip_serializing_if = "is_false")]
    pub(crate) require_acr: bool,
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) essential_acr: Vec<String>,
    /// The user whom the application named by an ID Token (`id_token_hint`).
    #[serde(rename = "sub", default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
}

impl Checks {
    /// The requirements for the ID Token of a refresh. There are none, because a refresh does not answer an
    /// authentication request.
    pub(crate) fn of_a_refresh(at: SystemTime) -> Self {
        Self {
            nonce: None,
            requested_at: at,
            max_age: None,
            require_auth_time: false,
            require_acr: false,
            essential_acr: Vec::new(),
            subject: None,
        }
    }

    /// `max_age` with the time that it counts from, for the verifier.
    pub(crate) fn max_age(&self) -> Option<(Duration, SystemTime)> {
        self.max_age.map(|seconds| (Duration::from_secs(seconds), self.requested_at))
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}
