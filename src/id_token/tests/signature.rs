//! Signature and keys.

use super::*;

#[test]
fn a_token_of_every_algorithm_is_accepted() {
    for algorithm in test_keys::ASYMMETRIC {
        let case = Case::signed_with(algorithm);
        assert_eq!(case.verify().unwrap().algorithm(), algorithm);
        case.verify_interim().unwrap();
    }
}

#[test]
fn a_broken_signature_of_every_algorithm_is_refused() {
    for algorithm in test_keys::ASYMMETRIC {
        let case = Case::signed_with(algorithm);
        let token = case.token();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[7] ^= 1;
        for bad in [bytes.as_slice(), &bytes[1..], &[]] {
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(bad));
            assert_eq!(case.verify_token(&token).unwrap_err().rule(), Rule::IdTokenSignature, "{algorithm:?}");
        }
    }
}

#[test]
fn claims_that_were_changed_after_signing_are_refused() {
    let (one, other) = (Case::good().token(), Case::with("sub", "user-2").token());
    let payload = other.split('.').nth(1).unwrap();
    let mut parts: Vec<_> = one.split('.').collect();
    parts[1] = payload;
    assert_eq!(Case::good().verify_token(&parts.join(".")).unwrap_err().rule(), Rule::IdTokenSignature);
}

#[test]
fn a_token_whose_header_claims_another_algorithm_is_refused() {
    for (signed, claimed) in [("RS256", "PS256"), ("PS256", "RS256"), ("ES256", "ES256K"), ("ES256", "RS256")] {
        let case =
            Case { header: json!({"alg": claimed}), ..Case::signed_with(SigningAlgorithm::from_name(signed).unwrap()) };
        case.breaks(Rule::IdTokenSignature);
    }
}

#[test]
fn each_name_of_ed25519_is_accepted_only_if_it_is_listed() {
    use SigningAlgorithm::{Ed25519, EdDsa};
    let jwk = test_keys::public_jwk(EdDsa);
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    for (listed, used) in [(EdDsa, EdDsa), (Ed25519, Ed25519), (EdDsa, Ed25519), (Ed25519, EdDsa)] {
        let case = Case { algorithms: vec![listed], header: json!({"alg": used.as_str()}), ..Case::signed_with(EdDsa) };
        let verified = case.expecting(|e| verify_final(&case.token(), &keys, e));
        let expected = if listed == used { Ok(used) } else { Err(Rule::IdTokenAlgorithm) };
        assert_eq!(verified.map(|token| token.algorithm()).map_err(|violation| violation.rule()), expected);
    }
}

#[test]
fn a_kid_without_a_key_gives_no_key() {
    let case = Case::with_header(json!({"alg": "ES256", "kid": "other"}));
    let mut jwk = test_keys::public_jwk(SigningAlgorithm::Es256);
    jwk.insert("kid".into(), "this".into());
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    let violation = case.expecting(|e| verify_final(&case.token(), &keys, e)).unwrap_err();
    assert_eq!(violation.rule(), Rule::IdTokenNoKey);
}

#[test]
fn a_key_set_without_kid_verifies_a_token_with_one() {
    Case::with_header(json!({"alg": "ES256", "kid": "anything"})).is_accepted();
}

#[test]
fn every_suitable_key_is_tried_for_a_token_without_kid() {
    let other = crate::jose::SigningKey::generate(SigningAlgorithm::Es256).unwrap().public_jwk();
    let own = test_keys::public_jwk(SigningAlgorithm::Es256);
    let case = Case::good();
    for set in [[&other, &own], [&own, &other]] {
        let keys = KeySet::parse(json!({"keys": set}).to_string().as_bytes()).unwrap();
        case.expecting(|e| verify_final(&case.token(), &keys, e)).unwrap();
    }
    let wrong = KeySet::parse(json!({"keys": [other, other]}).to_string().as_bytes()).unwrap();
    let violation = case.expecting(|e| verify_final(&case.token(), &wrong, e)).unwrap_err();
    assert_eq!(violation.rule(), Rule::IdTokenSignature);
}

#[test]
fn hs256_keyed_with_the_public_key_is_refused() {
    let jwk = test_keys::public_jwk(SigningAlgorithm::Rs256);
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let text = Value::Object(jwk).to_string();
    for secret in [modulus.as_slice(), text.as_bytes()] {
        let token = hmac_token(secret, &Case::good().claims);
        assert_eq!(Case::good().verify_token(&token).unwrap_err().rule(), Rule::IdTokenAlgorithm);
        // Even a client that accepts HS256 checks it with its secret alone.
        let case = Case { hmac_secret: Some(Secret::new(HMAC_SECRET)), ..Case::good() };
        let case = Case { algorithms: vec![SigningAlgorithm::Hs256, SigningAlgorithm::Rs256], ..case };
        assert_eq!(case.verify_token(&token).unwrap_err().rule(), Rule::IdTokenSignature);
    }
}

#[test]
fn an_hmac_is_accepted_if_it_is_listed_and_the_secret_is_long_enough() {
    let token = hmac_token(HMAC_SECRET.as_bytes(), &Case::good().claims);
    let case = |algorithms: &[SigningAlgorithm], secret: Option<&str>| {
        Case { algorithms: algorithms.to_vec(), hmac_secret: secret.map(Secret::new), ..Case::good() }
            .verify_token(&token)
            .map(|token| token.algorithm())
            .map_err(|violation| violation.rule())
    };
    assert_eq!(case(&[SigningAlgorithm::Hs256], Some(HMAC_SECRET)), Ok(SigningAlgorithm::Hs256));
    assert_eq!(case(&[SigningAlgorithm::Rs256], Some(HMAC_SECRET)), Err(Rule::IdTokenAlgorithm));
    assert_eq!(case(&[SigningAlgorithm::Hs512], Some(HMAC_SECRET)), Err(Rule::IdTokenAlgorithm));
    assert_eq!(case(&[SigningAlgorithm::Hs256], None), Err(Rule::IdTokenAlgorithm));
    assert_eq!(case(&[SigningAlgorithm::Hs256], Some(&HMAC_SECRET[..31])), Err(Rule::IdTokenAlgorithm));
    assert_eq!(case(&[SigningAlgorithm::Hs256], Some(&HMAC_SECRET[..32])), Err(Rule::IdTokenSignature));
}

#[test]
fn a_short_secret_is_refused_although_it_signed_the_token() {
    let short = "only thirty-one characters long";
    assert_eq!(short.len(), 31);
    let case =
        Case { algorithms: vec![SigningAlgorithm::Hs256], hmac_secret: Some(Secret::new(short)), ..Case::good() };
    let token = hmac_token(short.as_bytes(), &case.claims);
    assert_eq!(case.verify_token(&token).unwrap_err().rule(), Rule::IdTokenAlgorithm);
}
