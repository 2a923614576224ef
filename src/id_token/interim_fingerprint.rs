//! By what an interim ID Token is recognised if it comes back as the final one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jose::{CompactJws, sha256};
use crate::json::Object;

/// Hashes of an interim ID Token and of its `jti`. They are kept for as long as the process lives, whether the token was
/// verified, rejected or cannot be verified yet: its claims may be unverified by the OP, so it must never become the final
/// one. The token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterimFingerprint {
    /// Of the token as it came, and of the signed token inside where it came encrypted.
    #[serde(rename = "t")]
    tokens: Vec<String>,
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

impl InterimFingerprint {
    /// Of a token as it came.
    pub(crate) fn new(token: &str) -> Self {
        Self { tokens: vec![hash_of_token(token)], jti: jti_of_token(token).as_ref().and_then(hash_of_jti) }
    }

    /// Takes in what was inside of its encryption.
    pub(crate) fn add_decrypted(&mut self, token: &str) {
        let hash = hash_of_token(token);
        if !self.tokens.contains(&hash) {
            self.tokens.push(hash);
            self.jti = jti_of_token(token).as_ref().and_then(hash_of_jti);
        }
    }

    /// Whether this is that token, as it came or decrypted.
    pub(crate) fn is_of(&self, token: &str) -> bool {
        self.tokens.contains(&hash_of_token(token))
    }

    /// Whether that token had this `jti`.
    pub(super) fn has_jti(&self, jti: Option<&Value>) -> bool {
        self.jti.is_some() && self.jti == jti.and_then(hash_of_jti)
    }
}

/// Of all that is authenticated. The rest is left out because there can be more than one signature over the same claims:
/// whoever has an ECDSA signature can write a second one.
fn hash_of_token(token: &str) -> String {
    let authenticated = token.rsplit_once('.').map_or(token, |(authenticated, _)| authenticated);
    URL_SAFE_NO_PAD.encode(sha256(authenticated.as_bytes()))
}

/// Nothing is verified: what a rejected token calls itself counts too.
fn jti_of_token(token: &str) -> Option<Value> {
    Object::parse(CompactJws::parse(token).ok()?.payload()).ok()?.members().get("jti").cloned()
}

/// RFC 7519 §4.1.7: a string. Numbers occur. Anything else, and an empty string, identifies no token.
fn hash_of_jti(jti: &Value) -> Option<String> {
    let text = match jti {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(URL_SAFE_NO_PAD.encode(sha256(text.as_bytes())))
}
