//! Form and header.

use super::*;

#[test]
fn a_good_token_is_accepted() {
    Case::good().is_accepted();
}

#[test]
fn malformed_tokens_are_refused() {
    let case = Case::good();
    for text in ["", "abc", "a.b.c", "..", "e30.e30.", "ey.ey.ey"] {
        assert_eq!(case.verify_token(text).unwrap_err().rule(), Rule::IdTokenMalformed, "{text:?}");
    }
}

#[test]
fn a_payload_that_is_not_a_json_object_is_malformed() {
    let case = Case::good();
    for payload in ["", "[]", "null", "\"text\"", "{", "{}{}", "\u{0}"] {
        assert_eq!(case.verify_token(&case.token_of(payload)).unwrap_err().rule(), Rule::IdTokenMalformed);
    }
}

#[test]
fn a_header_without_alg_is_malformed() {
    Case::with_header(json!({"typ": "JWT"})).breaks(Rule::IdTokenMalformed);
}

#[test]
fn alg_none_is_refused_in_every_spelling_even_without_a_signature() {
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let case = Case::with_header(json!({"alg": name}));
        case.breaks(Rule::IdTokenAlgorithm);
        let token = case.token();
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(case.verify_token(&unsigned).unwrap_err().rule(), Rule::IdTokenAlgorithm, "{name}");
    }
}

#[test]
fn an_algorithm_that_the_client_does_not_accept_is_refused() {
    let case = Case { algorithms: vec![SigningAlgorithm::Rs256], ..Case::good() };
    case.breaks(Rule::IdTokenAlgorithm);
}

#[test]
fn a_critical_header_parameter_is_refused() {
    Case::with_header(json!({"alg": "ES256", "crit": ["exp"], "exp": 1})).breaks(Rule::IdTokenHeader);
    Case::with_header(json!({"alg": "ES256", "b64": false, "crit": ["b64"]})).breaks(Rule::IdTokenHeader);
}

#[test]
fn a_token_of_another_type_is_refused() {
    for typ in ["at+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "JWE"] {
        Case::with_header(json!({"alg": "ES256", "typ": typ})).breaks(Rule::IdTokenHeader);
    }
    for cty in ["JWT", "application/json"] {
        Case::with_header(json!({"alg": "ES256", "cty": cty})).breaks(Rule::IdTokenHeader);
    }
    for typ in ["JWT", "jwt", "application/jwt", "JOSE", ""] {
        Case::with_header(json!({"alg": "ES256", "typ": typ})).is_accepted();
    }
    Case::with_header(json!({"alg": "ES256", "cty": ""})).is_accepted();
}

#[test]
fn a_key_in_the_header_is_not_used() {
    let attacker = crate::jose::SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let other = test_keys::ASYMMETRIC.map(test_keys::public_jwk);
    let case = Case::with_header(json!({"alg": "ES256", "jwk": attacker.public_jwk(), "jku": "https://evil.example"}));
    case.is_accepted();
    let without = KeySet::parse(json!({"keys": [other[0]]}).to_string().as_bytes()).unwrap();
    let violation = case.expecting(|e| verify_final(&case.token(), &without, e)).unwrap_err();
    assert_eq!(violation.rule(), Rule::IdTokenNoKey);
}

#[test]
fn the_header_names_the_key_to_fetch() {
    let case = Case::with_header(json!({"alg": "ES256", "kid": "key-1"}));
    assert_eq!(header(&case.token()).unwrap(), (SigningAlgorithm::Es256, Some("key-1".to_owned())));
    assert_eq!(header(&Case::good().token()).unwrap(), (SigningAlgorithm::Es256, None));
    assert_eq!(header(&Case::with_header(json!({"alg": "none"})).token()).unwrap_err().rule(), Rule::IdTokenAlgorithm);
}
