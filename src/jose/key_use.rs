//! What a JWK says about its use (RFC 7517 §4.2 and §4.3). A key has one: a decryption key that signs, or the reverse,
//! lends each protocol's oracle to the other.

use serde_json::{Map, Value};

use super::jwk;

/// What a key is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyUse {
    Sign,
    Verify,
    Encrypt,
    Decrypt,
}

impl KeyUse {
    /// Whether `use` and `key_ops` of the JWK, where they are set, allow this; otherwise why not.
    pub(super) fn check(self, jwk: &Map<String, Value>) -> Result<(), String> {
        let (purpose, operations): (_, &[&str]) = match self {
            Self::Sign => ("sig", &["sign"]),
            Self::Verify => ("sig", &["verify"]),
            Self::Encrypt => ("enc", &["encrypt", "wrapKey", "deriveKey", "deriveBits"]),
            Self::Decrypt => ("enc", &["decrypt", "unwrapKey", "deriveKey", "deriveBits"]),
        };
        if jwk::text(jwk, "use")?.is_some_and(|listed| listed != purpose) {
            return Err(format!("its `use` is not `{purpose}`"));
        }
        match jwk.get("key_ops") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Array(listed)) => {
                let is_listed = listed.iter().filter_map(Value::as_str).any(|one| operations.contains(&one));
                match is_listed || listed.is_empty() {
                    true => Ok(()),
                    false => Err(format!("its `key_ops` do not list `{}`", operations.join("` or `"))),
                }
            }
            Some(_) => Err("its `key_ops` are not an array".to_owned()),
        }
    }
}
