//! The OP's key set (RFC 7517 §5).

use std::fmt;

use serde_json::{Map, Value};

use super::algorithm::SigningAlgorithm;
use super::compact::CompactJws;
use super::jwe::{EncryptionKey, KeyManagementAlgorithm};
use super::jwk::LeftOut;
use super::verification_key::VerificationKey;
use crate::error::{Document, Error, Rule, Violation};
use crate::json::Object;
use crate::secret::Secret;

/// The most keys of a set that are used.
const KEY_LIMIT: usize = 100;
/// The most keys that are examined, because most of them may be of other kinds.
const LISTED_LIMIT: usize = 1_000;

/// The keys of an OP that can verify signatures, and those that requests can be encrypted for.
pub(crate) struct KeySet {
    keys: Vec<VerificationKey>,
    encryption: Vec<EncryptionKey>,
}

/// Why a key set does not verify a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotVerified {
    /// No key of the set can have made the signature.
    NoKey,
    /// The keys that can have made the signature did not make it.
    Signature,
}

impl KeySet {
    /// Reads a key set. Keys that cannot be used are skipped and reported to `left_out`, because an OP may publish keys
    /// for other purposes and of new kinds (RFC 7517 §5). If a set has more keys than the limit, the first ones are
    /// used.
    ///
    /// # Errors
    ///
    /// [`Rule::MalformedJson`], [`Rule::RepeatedMember`], [`Rule::MissingMember`] and [`Rule::InvalidMember`] if it is
    /// not a key set. [`Rule::NoUsableKey`] if no key can verify signatures, with a [`LeftOut`] as source if there is
    /// one.
    pub(crate) fn read(body: &[u8], mut left_out: impl FnMut(LeftOut)) -> Result<Self, Error> {
        let violation = |rule| Violation::new(rule).in_document(Document::KeySet);
        let object = Object::document(body, Document::KeySet)?;
        if object.is_repeated(&["keys"]) {
            return Err(violation(Rule::RepeatedMember).at_member("keys").into());
        }
        let listed = object.members().get("keys").filter(|keys| !keys.is_null());
        let listed = listed.ok_or_else(|| violation(Rule::MissingMember).at_member("keys"))?;
        let listed = listed.as_array().ok_or_else(|| violation(Rule::InvalidMember).at_member("keys"))?;
        let (mut set, mut first_left_out) = (Self::empty(), None);
        for (number, listed_key) in listed.iter().enumerate() {
            if set.keys.len() + set.encryption.len() >= KEY_LIMIT || number >= LISTED_LIMIT {
                let reason = format!("{} more keys follow the ones that are used", listed.len() - number);
                left_out(LeftOut { key_id: None, reason });
                break;
            }
            let added = match object.contradicts_itself(&["keys", &number.to_string()]) {
                true => Err("a member is repeated with another value".to_owned()),
                false => set.add(listed_key),
            };
            if let Err(reason) = added {
                let one = LeftOut::new(listed_key.as_object().unwrap_or(&Map::new()), reason);
                first_left_out.get_or_insert_with(|| one.clone());
                left_out(one);
            }
        }
        if set.keys.is_empty() {
            let error = Error::from(violation(Rule::NoUsableKey));
            return Err(match first_left_out {
                Some(reason) => error.with_source(reason),
                None => error,
            });
        }
        Ok(set)
    }

    /// Like [`read`](Self::read), without a report of skipped keys.
    #[cfg(any(fuzzing, test, feature = "testing"))]
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Error> {
        Self::read(body, |_| ())
    }

    /// Adds a key for the purposes that it can be used for.
    fn add(&mut self, key: &Value) -> Result<(), String> {
        let jwk = key.as_object().ok_or("it is not a JSON object")?;
        match (VerificationKey::from_jwk(jwk), EncryptionKey::from_jwk(jwk)) {
            (Ok(key), _) => self.keys.push(key),
            (Err(_), Ok(key)) => self.encryption.push(key),
            (Err(_), Err(reason)) if jwk.get("use").is_some_and(|purpose| purpose == "enc") => return Err(reason),
            (Err(reason), Err(_)) => return Err(reason),
        }
        Ok(())
    }

    /// A set without keys, for clients whose tokens are authenticated with the client secret.
    pub(crate) fn empty() -> Self {
        Self { keys: Vec::new(), encryption: Vec::new() }
    }

    /// A set with the client secret as its only key, for HMACs.
    pub(crate) fn of_secret(secret: &Secret) -> Self {
        let key = VerificationKey::from_secret(secret.expose().as_bytes().to_vec());
        Self { keys: vec![key], encryption: Vec::new() }
    }

    /// The keys that can have made a signature: those of the right kind with the token's `kid`, if it has one. If no
    /// key has that `kid`, the keys without one are candidates.
    pub(crate) fn candidates(&self, algorithm: SigningAlgorithm, kid: Option<&str>) -> Vec<&VerificationKey> {
        let fitting = || self.keys.iter().filter(|key| key.supports(algorithm));
        let Some(kid) = kid else {
            return fitting().collect();
        };
        let named: Vec<_> = fitting().filter(|key| key.kid() == Some(kid)).collect();
        if named.is_empty() { fitting().filter(|key| key.kid().is_none()).collect() } else { named }
    }

    /// Verifies a signed token.
    pub(crate) fn verify(&self, jws: &CompactJws<'_>, algorithm: SigningAlgorithm) -> Result<(), NotVerified> {
        let candidates = self.candidates(algorithm, jws.header().kid.as_deref());
        let verifies = |key: &&VerificationKey| key.verify(algorithm, jws.signing_input(), jws.signature());
        match candidates.iter().any(verifies) {
            true => Ok(()),
            false if candidates.is_empty() => Err(NotVerified::NoKey),
            false => Err(NotVerified::Signature),
        }
    }

    /// The first key that supports encryption with this algorithm.
    pub(crate) fn encryption_key(&self, algorithm: KeyManagementAlgorithm) -> Option<&EncryptionKey> {
        self.encryption.iter().find(|key| key.supports(algorithm))
    }

    #[cfg(any(test, feature = "testing"))]
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
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
    fn one_malformed_key_does_not_invalidate_the_set() {
        let good = jwk(SigningAlgorithm::Es256, Some("good"));
        let keys =
            [json!({"kid": 5}), json!(null), json!({"kty": 7}), json!({"kty": "EC", "crv": "P-256"}), json!([]), good];
        let keys = set(&keys);
        assert_eq!(keys.len(), 1);
        assert!(keys.has(Some("good"), SigningAlgorithm::Es256));
    }

    #[test]
    fn a_malformed_key_set_is_refused_with_the_reason() {
        assert_eq!(rule("<html>"), Rule::MalformedJson);
        assert_eq!(rule(""), Rule::MalformedJson);
        assert_eq!(rule("[]"), Rule::MalformedJson);
        assert_eq!(rule(r#"{"keys":null}"#), Rule::MissingMember);
        assert_eq!(rule("{}"), Rule::MissingMember);
        assert_eq!(rule(r#"{"keys":{}}"#), Rule::InvalidMember);
        assert_eq!(rule(r#"{"keys":[]}"#), Rule::NoUsableKey);
        assert_eq!(rule(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#), Rule::NoUsableKey);
    }

    /// The skipped keys, in the order of the set.
    fn left_out(keys: &[Value]) -> Vec<String> {
        let mut all = Vec::new();
        let _ = KeySet::read(json!({ "keys": keys }).to_string().as_bytes(), |one| all.push(one.to_string()));
        all
    }

    #[test]
    fn a_hundred_keys_are_used_and_further_ones_are_ignored_and_counted() {
        let key = |number: usize| jwk(SigningAlgorithm::EdDsa, Some(&format!("k{number}")));
        let keys: Vec<_> = (0..150).map(key).collect();
        let used = set(&keys);
        assert_eq!(used.len(), 100);
        assert!(used.has(Some("k99"), SigningAlgorithm::EdDsa) && !used.has(Some("k100"), SigningAlgorithm::EdDsa));
        assert!(left_out(&keys[..100]).is_empty());
        let [counted] = &left_out(&keys)[..] else { panic!("one line") };
        assert!(counted.contains("50 more"), "{counted}");
        // Unusable keys do not count towards the limit.
        let mut mixed = vec![json!({"kty": "oct"}); 500];
        mixed.extend(keys);
        assert_eq!(set(&mixed).len(), 100);
    }

    #[test]
    fn left_out_keys_are_reported_with_kid_and_reason() {
        for (key, kid, reason) in [
            (json!(7), "without `kid`", "not a JSON object"),
            (json!({"kid": "a"}), "\"a\"", "no `kty`"),
            (json!({"kid": "a", "kty": "AKP"}), "\"a\"", "`kty` is not supported"),
            (json!({"kid": "a", "kty": "EC", "crv": "P-224"}), "\"a\"", "`crv`"),
            (json!({"kid": "a", "kty": "EC", "crv": "P-256", "x": "AAAA"}), "\"a\"", "no `y`"),
            (json!({"kid": "a", "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}), "\"a\"", "not a point"),
            (json!({"kid": "a", "kty": "RSA", "n": "AQAB", "e": "AQAB"}), "\"a\"", "`n`"),
            (json!({"kid": "a", "kty": "RSA", "use": "enc", "alg": "RSA1_5"}), "\"a\"", "`alg`"),
            (json!({"kid": "a", "kty": "RSA", "use": "tls"}), "\"a\"", "`use`"),
            (json!({"kid": "a", "kty": "RSA", "key_ops": ["sign"]}), "\"a\"", "`key_ops`"),
            (json!({"kid": 5, "kty": "RSA", "n": "AQAB"}), "without `kid`", "`n`"),
        ] {
            let [told] = &left_out(std::slice::from_ref(&key))[..] else { panic!("{key}") };
            assert!(told.contains(kid) && told.contains(reason), "{key}: {told}");
            assert!(!told.contains("AQAB") && !told.contains("AAAA"), "{told}");
        }
        let encryption = json!({"kty": "OKP", "crv": "X25519", "use": "enc", "x": URL_SAFE_NO_PAD.encode([9; 32])});
        assert!(left_out(&[encryption, jwk(SigningAlgorithm::Es256, None)]).is_empty(), "both are of use");
    }

    #[test]
    fn a_set_without_usable_keys_reports_why_the_first_one_was_left_out() {
        let error = KeySet::parse(br#"{"keys":[{"kid":"a","kty":"AKP"},{"kty":"oct"}]}"#).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.rule() == Some(Rule::NoUsableKey) && source.contains("\"a\""), "{source}");
    }

    #[test]
    fn only_the_contradictory_key_is_left_out() {
        let good = jwk(SigningAlgorithm::Es256, Some("good")).to_string();
        let torn = good.replacen('{', r#"{"kid":"other","#, 1);
        let twice = good.replacen('{', r#"{"kid":"good","#, 1);
        let mut told = Vec::new();
        let body = format!(r#"{{"keys":[{torn},{twice}]}}"#);
        assert_eq!(KeySet::read(body.as_bytes(), |one| told.push(one.to_string())).unwrap().len(), 1);
        assert!(told.len() == 1 && told[0].contains("repeated"), "{told:?}");
        assert_eq!(rule(&format!(r#"{{"keys":[],"keys":[{good}]}}"#)), Rule::RepeatedMember);
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
    fn a_key_without_kid_is_a_candidate_only_if_no_key_has_the_kid() {
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
