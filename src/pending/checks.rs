//! What was asked for when the user was sent out, and what the final ID Token is therefore judged by.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Kept from the authorization request until the final ID Token has come, which may be weeks later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checks {
    #[serde(rename = "n")]
    pub(crate) nonce: String,
    /// When the user was sent out; `max_age` counts from here.
    #[serde(rename = "t", with = "super::schedule::seconds")]
    pub(crate) requested_at: SystemTime,
    /// In seconds.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_age: Option<u64>,
    #[serde(rename = "a", default, skip_serializing_if = "is_false")]
    pub(crate) require_auth_time: bool,
    /// Whether an `acr` has to be there, whichever it is.
    #[serde(rename = "ra", default, skip_serializing_if = "is_false")]
    pub(crate) require_acr: bool,
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) essential_acr: Vec<String>,
}

impl Checks {
    /// A refresh answers no authentication request, so nothing was asked for.
    pub(crate) fn of_a_refresh(at: SystemTime) -> Self {
        Self {
            nonce: String::new(),
            requested_at: at,
            max_age: None,
            require_auth_time: false,
            require_acr: false,
            essential_acr: Vec::new(),
        }
    }

    /// `max_age` with the time that it counts from, as the verifier takes them.
    pub(crate) fn max_age(&self) -> Option<(Duration, SystemTime)> {
        self.max_age.map(|seconds| (Duration::from_secs(seconds), self.requested_at))
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}
