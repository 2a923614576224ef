//! What a JWK says about its use (RFC 7517 §4.2 and §4.3). A key has one: a decryption key that signs, or the reverse,
//! lends each protocol's oracle to the other.

use serde_json::{Map, Value};

/// What a key is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyUse {
    Sign,
    Verify,
    Encrypt,
    Decrypt,
}

impl KeyUse {
    /// Whether `use` and `key_ops` of the JWK, where they are there, allow this; `None` where they are malformed.
    pub(super) fn is_allowed_by(self, jwk: &Map<String, Value>) -> Option<bool> {
        let (purpose, operations): (_, &[&str]) = match self {
            Self::Sign => ("sig", &["sign"]),
            Self::Verify => ("sig", &["verify"]),
            Self::Encrypt => ("enc", &["encrypt", "wrapKey", "deriveKey", "deriveBits"]),
            Self::Decrypt => ("enc", &["decrypt", "unwrapKey", "deriveKey", "deriveBits"]),
        };
        let by_use = match jwk.get("use") {
            None => true,
            Some(listed) => listed.as_str()? == purpose,
        };
        let by_operations = match jwk.get("key_ops") {
            None => true,
            Some(listed) => listed.as_array()?.iter().filter_map(Value::as_str).any(|one| operations.contains(&one)),
        };
        Some(by_use && by_operations)
    }
}
