//! The use of a JWK (RFC 7517 §4.2 and §4.3). A key has one use. If a decryption key also signed, or the reverse, an
//! attacker could use one protocol as an oracle against the other.

use serde_json::{Map, Value};

use super::jwk;

/// The purpose that a key is used for.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyUse {
    Sign,
    Verify,
    Encrypt,
    Decrypt,
}

impl KeyUse {
    /// Checks that `use` and `key_ops` of the JWK, if they are set, allow this. The error states the reason.
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
