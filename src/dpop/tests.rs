use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use super::*;

fn decoded(segment: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(segment).unwrap()
}

fn json_of(segment: &str) -> Value {
    serde_json::from_slice(&decoded(segment)).unwrap()
}

/// Header and claims.
fn opened(proof: &str) -> (Value, Value) {
    let segments: Vec<_> = proof.split('.').collect();
    assert_eq!(segments.len(), 3);
    (json_of(segments[0]), json_of(segments[1]))
}

fn prove(key: &DpopKey, url: &str, nonce: Option<&str>, access_token: Option<&str>) -> String {
    let url = Url::parse(url).unwrap();
    let parts = ProofParts {
        method: &http::Method::POST,
        url: &url,
        issued_at: 1_763_723_112,
        id: "a jti",
        nonce,
        access_token,
    };
    key.proof(&parts).unwrap()
}

fn thumbprint_of(public: &crate::jose::PublicParts) -> String {
    URL_SAFE_NO_PAD.encode(sha256(jwk::canonical(public).as_bytes()))
}

#[test]
fn thumbprints_are_those_of_the_rfcs() {
    use crate::jose::PublicParts;
    let rfc_7638_section_3_1 = PublicParts::Rsa {
        n: decoded(concat!(
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZC",
            "iFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZg",
            "nYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIq",
            "bw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        )),
        e: decoded("AQAB"),
    };
    assert_eq!(thumbprint_of(&rfc_7638_section_3_1), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");

    let rfc_8037_appendix_a_3 = PublicParts::Ed25519 { x: decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") };
    assert_eq!(thumbprint_of(&rfc_8037_appendix_a_3), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");

    // The key of RFC 9449's proofs, and the `jkt` of its §6.1.
    let rfc_9449 = PublicParts::P256 {
        x: decoded("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"),
        y: decoded("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"),
    };
    assert_eq!(thumbprint_of(&rfc_9449), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
}

#[test]
fn the_header_names_type_algorithm_and_public_key_and_nothing_else() {
    for algorithm in ALGORITHMS {
        let key = DpopKey::generate(algorithm).unwrap();
        let (header, _) = opened(&prove(&key, "https://op.example/token", None, None));
        let public: Value = serde_json::from_str(key.public_jwk()).unwrap();
        assert_eq!(header, json!({ "typ": "dpop+jwt", "alg": algorithm.as_str(), "jwk": public }));
        let members: Vec<_> = public.as_object().unwrap().keys().map(String::as_str).collect();
        let expected: &[&str] = match algorithm {
            SigningAlgorithm::Es256 => &["crv", "kty", "x", "y"],
            SigningAlgorithm::EdDsa | SigningAlgorithm::Ed25519 => &["crv", "kty", "x"],
            _ => &["e", "kty", "n"],
        };
        assert_eq!(members, expected);
    }
}

#[test]
fn the_claims_describe_the_request() {
    let key = DpopKey::generate(SigningAlgorithm::Es256).unwrap();
    let (_, claims) = opened(&prove(&key, "https://op.example/token", None, None));
    let expected = json!({ "jti": "a jti", "htm": "POST", "htu": "https://op.example/token", "iat": 1_763_723_112 });
    assert_eq!(claims, expected);
}

#[test]
fn nonce_and_access_token_are_in_the_proof_if_present() {
    let key = DpopKey::generate(SigningAlgorithm::Es256).unwrap();
    // The access token and the `ath` of RFC 9449 §7.1.
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    let (_, claims) = opened(&prove(&key, "https://rs.example/", Some("a \"nonce\""), Some(token)));
    assert_eq!(claims["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
    assert_eq!(claims["nonce"], "a \"nonce\"");
}

#[test]
fn htu_has_no_query_fragment_or_user() {
    let key = DpopKey::generate(SigningAlgorithm::Es256).unwrap();
    for (url, target) in [
        ("https://op.example/token?tenant=7#part", "https://op.example/token"),
        ("https://OP.example:443/a%20b/../token", "https://op.example/token"),
        ("https://op.example:8443", "https://op.example:8443/"),
        ("https://user:password@op.example/token", "https://op.example/token"),
        ("http://[::1]:8080/token?", "http://[::1]:8080/token"),
    ] {
        let (_, claims) = opened(&prove(&key, url, None, None));
        assert_eq!(claims["htu"], target, "{url}");
    }
}

#[test]
fn a_restored_key_is_the_same_key() {
    for algorithm in ALGORITHMS {
        let key = DpopKey::generate(algorithm).unwrap();
        let restored = DpopKey::from_bytes(&key.to_bytes().unwrap()).unwrap();
        assert_eq!(restored.algorithm(), algorithm);
        assert_eq!(restored.thumbprint(), key.thumbprint());
        assert_eq!(restored.public_jwk(), key.public_jwk());
    }
}

#[test]
fn stored_keys_of_the_first_release_are_restored() {
    // RFC 8037 appendix A.1.
    let seed = decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let public = decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    for (code, algorithm) in [(2, SigningAlgorithm::EdDsa), (4, SigningAlgorithm::Ed25519)] {
        let key = DpopKey::from_bytes(&[&[code], seed.as_slice(), &public].concat()).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    // RFC 7517 appendix A.2.
    let scalar = decoded("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE");
    let x = decoded("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4");
    let y = decoded("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
    let key = DpopKey::from_bytes(&[vec![1], scalar, x, y].concat()).unwrap();
    assert_eq!(key.algorithm(), SigningAlgorithm::Es256);
    assert_eq!(key.thumbprint(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
}

#[test]
fn other_algorithms_are_refused() {
    for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Hs256] {
        let error = DpopKey::generate(algorithm).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration(ConfigurationProblem::Setting { .. })));
    }
}

#[test]
fn debug_output_is_the_thumbprint() {
    let key = DpopKey::generate(SigningAlgorithm::Es256).unwrap();
    assert_eq!(format!("{key:?}"), format!("DpopKey {{ thumbprint: {:?}, .. }}", key.thumbprint()));
}

#[test]
fn truncated_or_extended_stored_bytes_are_refused() {
    let bytes = DpopKey::generate(SigningAlgorithm::Es256).unwrap().to_bytes().unwrap();
    let longer = [bytes.as_slice(), &[0]].concat();
    for bytes in (0..bytes.len()).map(|length| &bytes[..length]).chain([longer.as_slice()]) {
        assert_eq!(*DpopKey::from_bytes(bytes).unwrap_err().kind(), ErrorKind::Sealed);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_not_restored_as_a_key(algorithm in 0_u8..6, key in proptest::collection::vec(any::<u8>(), 0..1_300)) {
        let bytes = [&[algorithm], key.as_slice()].concat();
        prop_assert!(matches!(DpopKey::from_bytes(&bytes), Err(error) if *error.kind() == ErrorKind::Sealed));
    }

    #[test]
    fn a_changed_byte_of_a_public_point_is_detected(position in 33_usize..97, flip in 1_u8..=255) {
        let mut bytes = DpopKey::generate(SigningAlgorithm::Es256).unwrap().to_bytes().unwrap();
        bytes[position] ^= flip;
        prop_assert!(matches!(DpopKey::from_bytes(&bytes), Err(error) if *error.kind() == ErrorKind::Sealed));
    }
}

/// Judged by a JOSE library that shares no code with this crate.
#[cfg(feature = "testing")]
mod independent {
    use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

    use super::*;

    fn verified(proof: &str, algorithm: Algorithm, jwk: &Jwk) -> Option<Value> {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        decode(proof, &DecodingKey::from_jwk(jwk).unwrap(), &validation).ok().map(|token| token.claims)
    }

    #[test]
    fn proofs_verify_with_the_key_in_their_header_alone() {
        for (algorithm, expected) in [
            (SigningAlgorithm::Es256, Algorithm::ES256),
            (SigningAlgorithm::EdDsa, Algorithm::EdDSA),
            (SigningAlgorithm::Ps256, Algorithm::PS256),
        ] {
            let key = DpopKey::generate(algorithm).unwrap();
            let restored = DpopKey::from_bytes(&key.to_bytes().unwrap()).unwrap();
            let proof = prove(&restored, "https://op.example/token", Some("nonce"), None);

            let header = decode_header(&proof).unwrap();
            assert_eq!(header.typ.as_deref(), Some("dpop+jwt"));
            assert_eq!(header.alg, expected);
            let jwk = header.jwk.unwrap();
            assert_eq!(jwk.thumbprint(ThumbprintHash::SHA256).unwrap(), key.thumbprint());
            assert_eq!(verified(&proof, expected, &jwk).unwrap()["nonce"], "nonce");

            let other = DpopKey::generate(algorithm).unwrap();
            let other: Jwk = serde_json::from_str(other.public_jwk()).unwrap();
            assert_eq!(verified(&proof, expected, &other), None);
        }
    }
}
