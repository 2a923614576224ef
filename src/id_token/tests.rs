use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::clock::from_unix_seconds;
use crate::error::{Document, Violation};
use crate::jose::{KeySet, test_keys};

const ISSUER: &str = "https://op.example";
const CLIENT: &str = "the-client";
const NONCE: &str = "the-nonce";
const ACCESS_TOKEN: &str = "the-access-token";
const HMAC_SECRET: &str = "a client secret of more than sixty-four characters, which all of the HMACs accept";
/// When the request was sent and when the response came, a day later.
const SENT: u64 = 1_800_000_000;
const RECEIVED: u64 = SENT + 86_400;
const LEEWAY: u64 = 60;

/// One token under test: what is signed, and what it is held against.
struct Case {
    algorithm: SigningAlgorithm,
    header: Value,
    claims: Value,
    algorithms: Vec<SigningAlgorithm>,
    trusted: Vec<String>,
    hmac_secret: Option<Secret>,
    nonce: Option<&'static str>,
    max_age: Option<Duration>,
    require_auth_time: bool,
    essential_acr: Vec<String>,
    access_token: Option<Secret>,
    code: Option<Secret>,
    interim_subject: Option<&'static str>,
    received_at: u64,
}

impl Case {
    /// A token that everything is right with.
    fn good() -> Self {
        Self {
            algorithm: SigningAlgorithm::Es256,
            header: json!({"alg": "ES256"}),
            claims: json!({
                "iss": ISSUER, "sub": "user-1", "aud": CLIENT, "iat": RECEIVED - 10, "exp": RECEIVED + 300,
                "nonce": NONCE,
            }),
            algorithms: test_keys::ASYMMETRIC.to_vec(),
            trusted: Vec::new(),
            hmac_secret: None,
            nonce: Some(NONCE),
            max_age: None,
            require_auth_time: false,
            essential_acr: Vec::new(),
            access_token: Some(Secret::new(ACCESS_TOKEN)),
            code: None,
            interim_subject: None,
            received_at: RECEIVED,
        }
    }

    fn with(name: &str, value: impl Into<Value>) -> Self {
        let mut case = Self::good();
        case.claims[name] = value.into();
        case
    }

    fn without(name: &str) -> Self {
        let mut case = Self::good();
        case.claims.as_object_mut().unwrap().remove(name);
        case
    }

    fn signed_with(algorithm: SigningAlgorithm) -> Self {
        Self { algorithm, header: json!({"alg": algorithm.as_str()}), ..Self::good() }
    }

    fn with_header(header: Value) -> Self {
        Self { header, ..Self::good() }
    }

    fn token(&self) -> String {
        self.token_of(&self.claims.to_string())
    }

    fn token_of(&self, claims: &str) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let message = format!("{}.{}", encode(self.header.to_string().as_bytes()), encode(claims.as_bytes()));
        format!("{message}.{}", encode(&test_keys::sign(self.algorithm, message.as_bytes())))
    }

    fn expecting<T>(&self, judge: impl FnOnce(&Expectations<'_>) -> T) -> T {
        judge(&Expectations {
            issuer: ISSUER,
            client_id: CLIENT,
            trusted_audiences: &self.trusted,
            algorithms: &self.algorithms,
            hmac_secret: self.hmac_secret.as_ref(),
            nonce: self.nonce,
            max_age: self.max_age.map(|max_age| (max_age, from_unix_seconds(SENT))),
            require_auth_time: self.require_auth_time,
            essential_acr: &self.essential_acr,
            access_token: self.access_token.as_ref(),
            code: self.code.as_ref(),
            leeway: Duration::from_secs(LEEWAY),
            received_at: from_unix_seconds(self.received_at),
            interim_subject: self.interim_subject,
        })
    }

    fn verify(&self) -> Result<IdToken, Violation> {
        self.verify_token(&self.token())
    }

    fn verify_token(&self, token: &str) -> Result<IdToken, Violation> {
        self.expecting(|e| verify_final(token, keys(), e))
    }

    fn verify_interim(&self) -> Result<InterimIdToken, Violation> {
        self.expecting(|e| verify_interim(&self.token(), InterimMember::InterimIdToken, keys(), e))
    }

    fn is_accepted(&self) {
        self.verify().unwrap();
        self.verify_interim().unwrap();
    }

    /// As final and as interim.
    fn breaks(&self, rule: Rule) {
        assert_eq!(self.verify().unwrap_err().rule(), rule);
        assert_eq!(self.verify_interim().unwrap_err().rule(), rule);
    }

    fn breaks_as_final_only(&self, rule: Rule) {
        assert_eq!(self.verify().unwrap_err().rule(), rule);
        self.verify_interim().unwrap();
    }
}

fn keys() -> &'static KeySet {
    static KEYS: OnceLock<KeySet> = OnceLock::new();
    KEYS.get_or_init(|| KeySet::from_json(&json!({"keys": test_keys::ASYMMETRIC.map(test_keys::public_jwk)})).unwrap())
}

fn hmac_token(secret: &[u8], claims: &Value) -> String {
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(json!({"alg": "HS256"}).to_string()), encode(claims.to_string()));
    let signature = crate::jose::hmac_sha256(secret, &[message.as_bytes()]);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn half_hash(algorithm: SigningAlgorithm, text: &str) -> String {
    let hash = crate::jose::hash(algorithm.hash(), text.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2])
}

// Form and header

#[test]
fn a_good_token_is_accepted() {
    Case::good().is_accepted();
}

#[test]
fn what_is_not_a_token_is_malformed() {
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
fn an_encrypted_token_is_reported_as_such() {
    assert_eq!(Case::good().verify_token("a.b.c.d.e").unwrap_err().rule(), Rule::IdTokenEncrypted);
    assert_eq!(header("a.b.c.d.e").unwrap_err().rule(), Rule::IdTokenEncrypted);
}

#[test]
fn a_header_without_alg_is_malformed() {
    Case::with_header(json!({"typ": "JWT"})).breaks(Rule::IdTokenMalformed);
}

#[test]
fn alg_none_is_refused_in_every_spelling_even_where_nothing_is_signed() {
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
    for typ in ["at+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "JWE", ""] {
        Case::with_header(json!({"alg": "ES256", "typ": typ})).breaks(Rule::IdTokenHeader);
    }
    for cty in ["JWT", "application/json", ""] {
        Case::with_header(json!({"alg": "ES256", "cty": cty})).breaks(Rule::IdTokenHeader);
    }
    for typ in ["JWT", "jwt", "application/jwt", "JOSE"] {
        Case::with_header(json!({"alg": "ES256", "typ": typ})).is_accepted();
    }
}

#[test]
fn a_key_in_the_header_is_not_used() {
    let attacker = crate::jose::SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let other = test_keys::ASYMMETRIC.map(test_keys::public_jwk);
    let case = Case::with_header(json!({"alg": "ES256", "jwk": attacker.public_jwk(), "jku": "https://evil.example"}));
    case.is_accepted();
    let without = KeySet::from_json(&json!({"keys": [other[0]]})).unwrap();
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

// Signature and keys

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
fn a_kid_that_no_key_has_is_no_key() {
    let case = Case::with_header(json!({"alg": "ES256", "kid": "other"}));
    let mut jwk = test_keys::public_jwk(SigningAlgorithm::Es256);
    jwk.insert("kid".into(), "this".into());
    let keys = KeySet::from_json(&json!({"keys": [jwk]})).unwrap();
    let violation = case.expecting(|e| verify_final(&case.token(), &keys, e)).unwrap_err();
    assert_eq!(violation.rule(), Rule::IdTokenNoKey);
}

#[test]
fn a_key_set_without_kid_verifies_a_token_with_one() {
    Case::with_header(json!({"alg": "ES256", "kid": "anything"})).is_accepted();
}

#[test]
fn every_key_that_fits_is_tried_where_the_token_has_no_kid() {
    let other = crate::jose::SigningKey::generate(SigningAlgorithm::Es256).unwrap().public_jwk();
    let own = test_keys::public_jwk(SigningAlgorithm::Es256);
    let case = Case::good();
    for set in [[&other, &own], [&own, &other]] {
        let keys = KeySet::from_json(&json!({"keys": set})).unwrap();
        case.expecting(|e| verify_final(&case.token(), &keys, e)).unwrap();
    }
    let wrong = KeySet::from_json(&json!({"keys": [other, other]})).unwrap();
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
fn an_hmac_is_accepted_where_it_is_listed_and_the_secret_is_long_enough() {
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

// Claims

#[test]
fn another_issuer_is_refused_down_to_the_last_character() {
    for issuer in ["https://evil.example", "https://op.example/", "https://OP.example", "http://op.example", "", "op"] {
        Case::with("iss", issuer).breaks(Rule::IdTokenIssuer);
    }
    Case::with("iss", json!([ISSUER])).breaks(Rule::IdTokenIssuer);
    Case::without("iss").breaks(Rule::IdTokenIssuer);
}

#[test]
fn an_audience_without_this_client_is_refused() {
    for audience in [json!("other"), json!(["other"]), json!([]), json!(""), json!(5), json!([5]), json!(null)] {
        Case::with("aud", audience).breaks(Rule::IdTokenAudience);
    }
    Case::without("aud").breaks(Rule::IdTokenAudience);
}

#[test]
fn a_further_audience_is_refused_unless_it_is_trusted() {
    let mut case = Case::with("aud", json!([CLIENT, "api"]));
    case.claims["azp"] = CLIENT.into();
    case.breaks(Rule::IdTokenAudience);
    case.trusted = vec!["api".to_owned()];
    case.is_accepted();
    case.claims["aud"] = json!([CLIENT, "api", "other"]);
    case.breaks(Rule::IdTokenAudience);
}

#[test]
fn azp_is_required_beside_several_audiences() {
    let mut case = Case::with("aud", json!([CLIENT, "api"]));
    case.trusted = vec!["api".to_owned()];
    case.breaks(Rule::IdTokenAuthorizedParty);
    Case::with("aud", json!([CLIENT, CLIENT])).is_accepted();
}

#[test]
fn azp_of_another_client_is_refused() {
    Case::with("azp", "other").breaks(Rule::IdTokenAuthorizedParty);
    Case::with("azp", 5).breaks(Rule::IdTokenAuthorizedParty);
    Case::with("azp", CLIENT).is_accepted();
}

#[test]
fn a_token_is_judged_by_the_time_of_its_receipt() {
    let case = Case::with("exp", RECEIVED + 1);
    case.is_accepted();
    // Kept for a month until the keys could be fetched, it is still good: only the time of receipt counts.
    Case { received_at: RECEIVED + 30 * 86_400, ..case }.breaks(Rule::IdTokenExpired);
}

#[test]
fn an_expired_token_is_refused_after_the_leeway() {
    Case::with("exp", RECEIVED - LEEWAY + 1).is_accepted();
    Case::with("exp", RECEIVED - LEEWAY).breaks(Rule::IdTokenExpired);
    Case::with("exp", 0).breaks(Rule::IdTokenExpired);
    Case::with("exp", -1).breaks(Rule::IdTokenExpired);
}

#[test]
fn a_token_without_exp_is_refused() {
    Case::without("exp").breaks(Rule::IdTokenExpired);
    Case::with("exp", json!(null)).breaks(Rule::IdTokenExpired);
    Case::with("exp", true).breaks(Rule::IdTokenExpired);
}

#[test]
fn times_beyond_every_calendar_are_refused_instead_of_panicking() {
    for time in [json!(1e300), json!(-1e300), json!(u64::MAX), json!(i64::MIN), json!("tomorrow"), json!("")] {
        Case::with("exp", time.clone()).breaks(Rule::IdTokenClaims);
        Case::with("iat", time.clone()).breaks(Rule::IdTokenClaims);
        Case::with("auth_time", time).breaks(Rule::IdTokenClaims);
    }
}

#[test]
fn a_token_without_iat_is_refused() {
    Case::without("iat").breaks(Rule::IdTokenIssuedAt);
    Case::with("iat", json!({})).breaks(Rule::IdTokenIssuedAt);
}

#[test]
fn a_token_from_the_future_is_refused_after_the_leeway() {
    Case::with("iat", RECEIVED + LEEWAY).is_accepted();
    Case::with("iat", RECEIVED + LEEWAY + 1).breaks(Rule::IdTokenIssuedAt);
    Case::with("iat", RECEIVED + 365 * 86_400).breaks(Rule::IdTokenIssuedAt);
}

#[test]
fn a_token_that_is_not_valid_yet_is_refused_after_the_leeway() {
    Case::with("nbf", RECEIVED + LEEWAY).is_accepted();
    Case::with("nbf", RECEIVED + LEEWAY + 1).breaks(Rule::IdTokenNotBefore);
    Case::with("nbf", 1e300).breaks(Rule::IdTokenNotBefore);
    Case::with("nbf", "now").breaks(Rule::IdTokenNotBefore);
}

#[test]
fn a_missing_or_wrong_nonce_is_refused() {
    Case::with("nonce", "other").breaks(Rule::IdTokenNonce);
    Case::with("nonce", "").breaks(Rule::IdTokenNonce);
    Case::with("nonce", json!(null)).breaks(Rule::IdTokenNonce);
    Case::with("nonce", 5).breaks(Rule::IdTokenNonce);
    Case::without("nonce").breaks(Rule::IdTokenNonce);
}

#[test]
fn without_a_request_no_nonce_is_expected_and_no_interim_token_believed() {
    let case = Case { nonce: None, ..Case::without("nonce") };
    case.verify().unwrap();
    assert_eq!(case.verify_interim().unwrap_err().rule(), Rule::IdTokenNonce);
}

#[test]
fn a_subject_has_1_to_255_characters() {
    Case::without("sub").breaks(Rule::IdTokenSubject);
    Case::with("sub", "").breaks(Rule::IdTokenSubject);
    Case::with("sub", 5).breaks(Rule::IdTokenSubject);
    Case::with("sub", "s".repeat(256)).breaks(Rule::IdTokenSubject);
    Case::with("sub", "s".repeat(255)).is_accepted();
    Case::with("sub", "ü".repeat(255)).is_accepted();
}

#[test]
fn at_hash_is_checked_where_it_is_there() {
    for algorithm in test_keys::ASYMMETRIC {
        let mut case = Case::signed_with(algorithm);
        case.claims["at_hash"] = half_hash(algorithm, ACCESS_TOKEN).into();
        case.is_accepted();
        case.claims["at_hash"] = half_hash(algorithm, "another token").into();
        case.breaks(Rule::IdTokenAccessTokenHash);
    }
    Case::with("at_hash", "").breaks(Rule::IdTokenAccessTokenHash);
    Case::with("at_hash", 5).breaks(Rule::IdTokenAccessTokenHash);
    Case { access_token: None, ..Case::with("at_hash", "about nothing") }.is_accepted();
}

#[test]
fn at_hash_gives_the_value_of_the_specification() {
    // OpenID Connect Core 1.0 §A.3, RS256.
    let case = Case {
        access_token: Some(Secret::new("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y")),
        ..Case::with("at_hash", "77QmUPtjPfzWtF2AnpK9RQ")
    };
    case.is_accepted();
}

#[test]
fn c_hash_is_checked_where_it_is_there() {
    let mut case = Case::with("c_hash", half_hash(SigningAlgorithm::Es256, "the-code"));
    case.is_accepted();
    case.code = Some(Secret::new("the-code"));
    case.is_accepted();
    case.code = Some(Secret::new("another"));
    case.breaks(Rule::IdTokenCodeHash);
}

#[test]
fn an_acr_that_was_essential_is_required_of_the_final_token_only() {
    let essential = || vec!["urn:gold".to_owned(), "urn:silver".to_owned()];
    for acr in [json!(null), json!("urn:bronze"), json!(""), json!("urn:gol")] {
        Case { essential_acr: essential(), ..Case::with("acr", acr) }.breaks_as_final_only(Rule::IdTokenAcr);
    }
    Case { essential_acr: essential(), ..Case::good() }.breaks_as_final_only(Rule::IdTokenAcr);
    Case { essential_acr: essential(), ..Case::with("acr", "urn:silver") }.is_accepted();
}

#[test]
fn max_age_counts_from_the_request_and_not_from_the_receipt() {
    let with_age =
        |auth_time: u64| Case { max_age: Some(Duration::from_secs(300)), ..Case::with("auth_time", auth_time) };
    with_age(SENT - 300 - LEEWAY).is_accepted();
    with_age(SENT - 300 - LEEWAY - 1).breaks_as_final_only(Rule::IdTokenAuthTime);
    with_age(SENT + 40).is_accepted();
    with_age(RECEIVED + LEEWAY).is_accepted();
    with_age(RECEIVED + LEEWAY + 1).breaks_as_final_only(Rule::IdTokenAuthTime);
}

#[test]
fn auth_time_is_required_under_max_age_and_where_it_was_essential() {
    Case { max_age: Some(Duration::MAX), ..Case::good() }.breaks_as_final_only(Rule::IdTokenAuthTime);
    Case { require_auth_time: true, ..Case::good() }.breaks_as_final_only(Rule::IdTokenAuthTime);
    Case { require_auth_time: true, ..Case::with("auth_time", 1) }.is_accepted();
    Case { max_age: Some(Duration::MAX), ..Case::with("auth_time", 1) }.is_accepted();
}

#[test]
fn a_final_subject_that_differs_from_the_interim_one_is_refused() {
    let case = Case { interim_subject: Some("user-1"), ..Case::good() };
    case.is_accepted();
    Case { interim_subject: Some("user-2"), ..Case::good() }.breaks_as_final_only(Rule::SubjectChanged);
}

#[test]
fn a_repeated_claim_is_refused_whether_registered_or_not() {
    let case = Case::good();
    let claims = case.claims.to_string();
    for repeated in
        [r#""sub":"user-2""#, r#""aud":"other""#, r#""\u0073ub":"user-2""#, r#""x":1,"x":2"#, r#""x":{"y":1,"y":2}"#]
    {
        let claims = format!("{},{repeated}}}", claims.strip_suffix('}').unwrap());
        assert_eq!(case.verify_token(&case.token_of(&claims)).unwrap_err().rule(), Rule::IdTokenClaims, "{repeated}");
    }
}

#[test]
fn a_standard_claim_of_the_wrong_type_is_refused() {
    Case::with("email_verified", "perhaps").breaks(Rule::IdTokenClaims);
    Case::with("name", 5).breaks(Rule::IdTokenClaims);
    Case::with("address", "Main Street 1").breaks(Rule::IdTokenClaims);
    Case::with("updated_at", json!([])).breaks(Rule::IdTokenClaims);
}

#[test]
fn a_claim_of_null_counts_as_absent() {
    for name in ["name", "email", "email_verified", "address", "updated_at", "acr", "amr", "azp", "at_hash", "nbf"] {
        let case = Case::with(name, json!(null));
        case.is_accepted();
        let token = case.verify().unwrap();
        let claims = token.claims();
        assert_eq!((claims.name(), claims.email(), claims.email_verified(), claims.acr()), (None, None, None, None));
        assert!(claims.address().is_none() && claims.updated_at().is_none());
    }
}

#[test]
fn a_violation_names_the_document_and_the_claim() {
    let violation = Case::without("exp").verify().unwrap_err();
    assert_eq!((violation.document(), violation.member()), (Some(Document::IdToken), Some("exp")));
}

// What comes out

fn rich() -> Case {
    let mut case = Case::good();
    let more = json!({
        "aud": CLIENT, "auth_time": SENT, "acr": "urn:gold", "amr": ["pwd", "otp"], "azp": CLIENT,
        "name": "Jane Doe", "given_name": "Jane", "family_name": "Doe", "middle_name": "M", "nickname": "JD",
        "preferred_username": "j.doe", "profile": "https://a.example/p", "picture": "https://a.example/i",
        "website": "https://a.example", "email": "jane@a.example", "email_verified": "true", "gender": "female",
        "birthdate": "0000-10-31", "zoneinfo": "Europe/Paris", "locale": "en-US", "phone_number": "+1 555",
        "phone_number_verified": false, "updated_at": "2027-01-15T08:00:00Z", "name#ja": "ジェーン",
        "address": {
            "formatted": "F", "street_address": "S", "locality": "L", "region": "R", "postal_code": "P", "country": "C",
        },
        "custom": {"level": 3},
    });
    case.claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    case
}

#[test]
fn the_standard_claims_are_typed() {
    let token = rich().verify().unwrap();
    let claims = token.claims();
    assert_eq!((claims.issuer(), claims.subject(), claims.audience()), (ISSUER, "user-1", vec![CLIENT]));
    assert_eq!(claims.issued_at(), from_unix_seconds(RECEIVED - 10));
    assert_eq!(claims.expires_at(), from_unix_seconds(RECEIVED + 300));
    assert_eq!(claims.auth_time(), Some(from_unix_seconds(SENT)));
    assert_eq!((claims.acr(), claims.amr(), claims.azp()), (Some("urn:gold"), vec!["pwd", "otp"], Some(CLIENT)));
    assert_eq!((claims.name(), claims.given_name()), (Some("Jane Doe"), Some("Jane")));
    assert_eq!((claims.family_name(), claims.middle_name()), (Some("Doe"), Some("M")));
    assert_eq!((claims.nickname(), claims.preferred_username()), (Some("JD"), Some("j.doe")));
    assert_eq!((claims.profile(), claims.picture()), (Some("https://a.example/p"), Some("https://a.example/i")));
    assert_eq!((claims.website(), claims.email()), (Some("https://a.example"), Some("jane@a.example")));
    assert_eq!((claims.email_verified(), claims.phone_number_verified()), (Some(true), Some(false)));
    assert_eq!((claims.gender(), claims.birthdate()), (Some("female"), Some("0000-10-31")));
    assert_eq!((claims.zoneinfo(), claims.locale()), (Some("Europe/Paris"), Some("en-US")));
    assert_eq!(claims.phone_number(), Some("+1 555"));
    assert_eq!(claims.updated_at(), Some(from_unix_seconds(1_800_000_000)));
    let address = claims.address().unwrap();
    assert_eq!((address.formatted(), address.street_address()), (Some("F"), Some("S")));
    assert_eq!((address.locality(), address.region()), (Some("L"), Some("R")));
    assert_eq!((address.postal_code(), address.country()), (Some("P"), Some("C")));
}

#[test]
fn all_other_claims_are_there_as_json_and_as_a_type_of_the_application() {
    #[derive(serde::Deserialize)]
    struct Own {
        custom: Custom,
    }
    #[derive(serde::Deserialize)]
    struct Custom {
        level: u32,
    }
    let token = rich().verify().unwrap();
    let claims = token.claims();
    assert_eq!(claims.get("name#ja"), Some(&json!("ジェーン")));
    assert_eq!(claims.as_json()["custom"], json!({"level": 3}));
    assert_eq!(claims.deserialize::<Own>().unwrap().custom.level, 3);
    assert_eq!(claims.get("nonce"), None);
    let error = claims.deserialize::<Vec<String>>().unwrap_err();
    assert_eq!(error.rule(), Some(Rule::IdTokenClaims));
    let shown = format!("{error:?} {error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(!shown.contains("Jane"));
}

#[test]
fn debug_output_has_no_personal_data_and_no_token() {
    let case = rich();
    let (token, interim) = (case.verify().unwrap(), case.verify_interim().unwrap());
    let address = token.claims().address().unwrap();
    let shown = format!("{token:?} {token:#?} {interim:?} {address:?} {:?}", InterimState::Verified(interim.clone()));
    for hidden in ["Jane", "user-1", "ey", "urn:gold", NONCE, "Europe", "\"S\""] {
        assert!(!shown.contains(hidden), "{hidden}: {shown}");
    }
    assert!(shown.contains("given_name"));
}

#[test]
fn the_raw_token_of_a_final_one_is_there_for_a_hint() {
    let case = Case::good();
    let raw = case.token();
    assert_eq!(case.verify_token(&raw).unwrap().token().expose(), raw);
}

#[test]
fn a_verified_token_comes_back_from_storage_without_being_verified_again() {
    let token = rich().verify().unwrap();
    let stored = serde_json::to_vec(&token.to_stored()).unwrap();
    let back = IdToken::from_stored(&serde_json::from_slice(&stored).unwrap()).unwrap();
    assert_eq!(back.token(), token.token());
    assert_eq!(back.algorithm(), token.algorithm());
    assert_eq!(back.claims().as_json(), token.claims().as_json());
    assert_eq!(back.claims().times(), token.claims().times());
}

#[test]
fn what_cannot_have_been_stored_does_not_come_back() {
    let mut stored = serde_json::to_value(Case::good().verify().unwrap().to_stored()).unwrap();
    for token in ["", "a.b.c", "e30.e30.e30"] {
        stored["token"] = token.into();
        assert!(IdToken::from_stored(&serde_json::from_value(stored.clone()).unwrap()).is_err());
    }
}

#[test]
fn each_of_the_four_states_comes_back_from_storage() {
    let round = |state: &InterimState| {
        let stored = serde_json::to_vec(&state.to_stored()).unwrap();
        InterimState::from_stored(serde_json::from_slice(&stored).unwrap())
    };
    assert!(matches!(round(&InterimState::Absent), InterimState::Absent));
    assert!(matches!(round(&InterimState::NotYetVerifiable), InterimState::NotYetVerifiable));
    let rejected = InterimState::Rejected(Rule::IdTokenNonce);
    assert!(matches!(round(&rejected), InterimState::Rejected(Rule::IdTokenNonce)));
    assert!(rejected.verified().is_none());
    let verified = InterimState::Verified(rich().verify_interim().unwrap());
    let back = round(&verified);
    let (before, after) = (verified.verified().unwrap(), back.verified().unwrap());
    assert_eq!(after.claims().as_json(), before.claims().as_json());
    assert_eq!(after.claims().updated_at(), before.claims().updated_at());
    assert_eq!(after.member(), "interim_id_token");
}

#[test]
fn a_rule_of_a_newer_version_still_counts_as_rejected() {
    let state = InterimState::from_stored(StoredInterim::Rejected("a_rule_of_tomorrow".to_owned()));
    assert!(matches!(state, InterimState::Rejected(_)));
}

#[test]
fn the_raw_token_of_an_interim_one_is_not_stored() {
    let case = Case::good();
    let state = InterimState::Verified(case.verify_interim().unwrap());
    let stored = serde_json::to_string(&state.to_stored()).unwrap();
    assert!(!stored.contains(case.token().rsplit_once('.').unwrap().1));
}

// Hostile input

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

fn any_claim() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "iss",
            "sub",
            "aud",
            "exp",
            "iat",
            "nbf",
            "nonce",
            "azp",
            "at_hash",
            "c_hash",
            "acr",
            "amr",
            "auth_time",
            "name",
            "name#de",
            "name#",
            "email",
            "email_verified",
            "gender",
            "birthdate",
            "birthday",
            "locale",
            "address",
            "updated_at",
            "jti",
            "sid",
        ])
        .prop_map(str::to_owned),
        ".{0,10}",
    ]
}

proptest! {
    #[test]
    fn a_signed_token_with_arbitrary_claims_never_panics(
        changes in proptest::collection::vec((any_claim(), any_json()), 0..6),
    ) {
        let mut case = Case { require_auth_time: true, ..Case::good() };
        case.claims.as_object_mut().unwrap().extend(changes);
        if let Ok(token) = case.verify() {
            let claims = token.claims();
            prop_assert_eq!(claims.issuer(), ISSUER);
            prop_assert!(!claims.subject().is_empty());
            prop_assert!(claims.audience().contains(&CLIENT));
            let _ = (claims.updated_at(), claims.auth_time(), claims.expires_at(), format!("{token:?}"));
        }
        let _ = case.verify_interim();
    }

    #[test]
    fn an_arbitrary_header_never_panics(changes in proptest::collection::vec(("(alg|kid|typ|cty|crit|b64|.{0,4})", any_json()), 0..4)) {
        let mut case = Case::good();
        case.header.as_object_mut().unwrap().extend(changes);
        let _ = (case.verify(), header(&case.token()));
    }

    #[test]
    fn arbitrary_text_never_panics_and_never_verifies(text in ".{0,80}") {
        prop_assert!(Case::good().verify_token(&text).is_err());
        let _ = header(&text);
    }

    #[test]
    fn a_token_with_one_character_changed_never_verifies(position: prop::sample::Index, replacement in "[A-Za-z0-9_.-]") {
        let token = Case::good().token();
        let position = position.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(position..=position, &replacement);
        prop_assume!(changed != token);
        prop_assert!(Case::good().verify_token(&changed).is_err());
    }
}
