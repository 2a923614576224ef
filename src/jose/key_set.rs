//! The OP's key set (RFC 7517 §5).

use std::fmt;

use serde_json::Value;

use super::algorithm::SigningAlgorithm;
use super::jwe::{EncryptionKey, KeyManagementAlgorithm};
use super::verification_key::VerificationKey;
use crate::error::{Document, Error, Rule, Violation};
use crate::secret::Secret;

/// More keys than this are refused as a whole.
const KEY_LIMIT: usize = 100;

/// The keys of an OP that can verify signatures, and those that requests can be encrypted for.
pub(crate) struct KeySet {
    keys: Vec<VerificationKey>,
    encryption: Vec<EncryptionKey>,
}

impl KeySet {
    /// Reads a key set and leaves out every key that cannot be used: an OP may publish keys for other purposes and of
    /// kinds that do not exist yet (RFC 7517 §5).
    ///
    /// # Errors
    ///
    /// [`Rule::MalformedJson`], [`Rule::MissingMember`] and [`Rule::InvalidMember`] for what is not a key set,
    /// [`Rule::TooManyKeys`], and [`Rule::NoUsableKey`].
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Error> {
        let document: Value =
            serde_json::from_slice(body).map_err(|error| Violation::malformed_json(Document::KeySet, &error))?;
        Self::from_json(&document)
    }

    /// The reverse of [`to_json`](Self::to_json), by the rules of [`parse`](Self::parse).
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub(crate) fn from_json(document: &Value) -> Result<Self, Error> {
        let violation = |rule| Violation::new(rule).in_document(Document::KeySet);
        let keys = document
            .as_object()
            .ok_or_else(|| violation(Rule::InvalidMember))?
            .get("keys")
            .ok_or_else(|| violation(Rule::MissingMember).at_member("keys"))?
            .as_array()
            .ok_or_else(|| violation(Rule::InvalidMember).at_member("keys"))?;
        if keys.len() > KEY_LIMIT {
            return Err(violation(Rule::TooManyKeys).into());
        }
        let encryption = keys.iter().filter_map(|key| EncryptionKey::from_jwk(key.as_object()?)).collect();
        let keys: Vec<_> = keys.iter().filter_map(|key| VerificationKey::from_jwk(key.as_object()?)).collect();
        if keys.is_empty() {
            return Err(violation(Rule::NoUsableKey).into());
        }
        Ok(Self { keys, encryption })
    }

    /// A set without keys, for clients whose tokens are authenticated with the client secret.
    pub(crate) fn empty() -> Self {
        Self { keys: Vec::new(), encryption: Vec::new() }
    }

    /// The client secret as the one key, for what is authenticated with an HMAC.
    pub(crate) fn of_secret(secret: &Secret) -> Self {
        let key = VerificationKey::from_secret(secret.expose().as_bytes().to_vec());
        Self { keys: vec![key], encryption: Vec::new() }
    }

    /// The keys that may have made a signature: of the right kind, with this `kid` where the token has one. Where no
    /// key has that `kid`, those that have none are candidates.
    pub(crate) fn candidates(&self, algorithm: SigningAlgorithm, kid: Option<&str>) -> Vec<&VerificationKey> {
        let fitting = || self.keys.iter().filter(|key| key.supports(algorithm));
        let Some(kid) = kid else {
            return fitting().collect();
        };
        let named: Vec<_> = fitting().filter(|key| key.kid() == Some(kid)).collect();
        if named.is_empty() { fitting().filter(|key| key.kid().is_none()).collect() } else { named }
    }

    /// The first key that something can be encrypted for with this algorithm.
    pub(crate) fn encryption_key(&self, algorithm: KeyManagementAlgorithm) -> Option<&EncryptionKey> {
        self.encryption.iter().find(|key| key.supports(algorithm))
    }

    /// Whether any key may have made such a signature; otherwise it is time to fetch the keys again.
    pub(crate) fn has(&self, kid: Option<&str>, algorithm: SigningAlgorithm) -> bool {
        !self.candidates(algorithm, kid).is_empty()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.keys.len()
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::jose::test_keys;

    fn rule(body: &str) -> Rule {
        KeySet::parse(body.as_bytes()).unwrap_err().rule().unwrap()
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn jwk(algorithm: SigningAlgorithm, kid: Option<&str>) -> Value {
        let mut jwk = test_keys::public_jwk(algorithm);
        jwk.remove("alg");
        jwk.remove("kid");
        if let Some(kid) = kid {
            jwk.insert("kid".to_owned(), kid.into());
        }
        jwk.into()
    }

    #[test]
    fn one_bad_key_does_not_spoil_the_set() {
        let good = jwk(SigningAlgorithm::Es256, Some("good"));
        let keys =
            [json!({"kid": 5}), json!(null), json!({"kty": 7}), json!({"kty": "EC", "crv": "P-256"}), json!([]), good];
        let keys = set(&keys);
        assert_eq!(keys.len(), 1);
        assert!(keys.has(Some("good"), SigningAlgorithm::Es256));
    }

    #[test]
    fn what_is_not_a_key_set_is_refused_with_its_reason() {
        assert_eq!(rule("<html>"), Rule::MalformedJson);
        assert_eq!(rule(""), Rule::MalformedJson);
        assert_eq!(rule("[]"), Rule::InvalidMember);
        assert_eq!(rule("{}"), Rule::MissingMember);
        assert_eq!(rule(r#"{"keys":{}}"#), Rule::InvalidMember);
        assert_eq!(rule(r#"{"keys":[]}"#), Rule::NoUsableKey);
        assert_eq!(rule(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#), Rule::NoUsableKey);
    }

    #[test]
    fn a_hundred_keys_are_read_and_one_more_is_refused() {
        let key = jwk(SigningAlgorithm::EdDsa, Some("k"));
        assert_eq!(set(&vec![key.clone(); 100]).len(), 100);
        assert_eq!(rule(&json!({"keys": vec![key; 101]}).to_string()), Rule::TooManyKeys);
    }

    #[test]
    fn candidates_have_the_kind_of_the_algorithm_and_the_kid_of_the_token() {
        let keys = set(&[
            jwk(SigningAlgorithm::Es256, Some("a")),
            jwk(SigningAlgorithm::Es384, Some("a")),
            jwk(SigningAlgorithm::Rs256, Some("b")),
        ]);
        assert_eq!(keys.candidates(SigningAlgorithm::Es256, Some("a")).len(), 1);
        assert_eq!(keys.candidates(SigningAlgorithm::Es384, Some("a")).len(), 1);
        assert_eq!(keys.candidates(SigningAlgorithm::Es512, None).len(), 0);
        assert_eq!(keys.candidates(SigningAlgorithm::Ps512, None).len(), 1);
        assert!(!keys.has(Some("b"), SigningAlgorithm::Es256));
        assert!(!keys.has(Some("c"), SigningAlgorithm::Rs256));
        assert!(!keys.has(None, SigningAlgorithm::Hs256));
    }

    #[test]
    fn a_key_without_kid_is_a_candidate_only_where_no_key_has_the_kid() {
        let keys = set(&[jwk(SigningAlgorithm::Es256, None), jwk(SigningAlgorithm::Es256, Some("named"))]);
        let kids = |kid| -> Vec<_> {
            keys.candidates(SigningAlgorithm::Es256, kid).iter().map(|key| key.kid().map(str::to_owned)).collect()
        };
        assert_eq!(kids(Some("named")), [Some("named".to_owned())]);
        assert_eq!(kids(Some("other")), [None]);
        assert_eq!(kids(None).len(), 2);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            let _ = KeySet::parse(&body);
        }

        #[test]
        fn arbitrary_keys_never_panic(
            kty in "(RSA|EC|OKP|oct|)", crv in "(P-256|P-384|P-521|secp256k1|Ed25519|X25519|)",
            n in "[A-Za-z0-9_=-]{0,400}", e in "[A-Za-z0-9_-]{0,12}", x in "[A-Za-z0-9_-]{40,90}", y in "[A-Za-z0-9_-]{43}",
            alg in "(RS256|ES256|EdDSA|RSA-OAEP|)",
        ) {
            let mut key = json!({"kty": kty, "crv": crv, "n": n, "e": e, "x": x, "y": y});
            if !alg.is_empty() {
                key["alg"] = alg.into();
            }
            if let Ok(keys) = KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()) {
                for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa] {
                    for key in keys.candidates(algorithm, None) {
                        prop_assert!(!key.verify(algorithm, b"message", &[1; 64]));
                    }
                }
            }
        }
    }
}
