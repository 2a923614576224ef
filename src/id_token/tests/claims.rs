//! The rules for each claim.

use super::*;

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
fn azp_is_required_with_several_audiences() {
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
fn huge_times_are_compared_without_a_panic() {
    let with_age =
        |time: &Value| Case { max_age: Some(Duration::from_secs(300)), ..Case::with("auth_time", time.clone()) };
    for time in [json!(1e300), json!(u64::MAX)] {
        Case::with("exp", time.clone()).is_accepted();
        Case::with("iat", time.clone()).breaks(Rule::IdTokenIssuedAt);
        Case::with("nbf", time.clone()).breaks(Rule::IdTokenNotBefore);
        with_age(&time).breaks_as_final_only(Rule::IdTokenAuthTime);
    }
    for time in [json!(-1e300), json!(i64::MIN)] {
        Case::with("exp", time.clone()).breaks(Rule::IdTokenExpired);
        Case::with("iat", time.clone()).is_accepted();
        Case::with("nbf", time.clone()).is_accepted();
        with_age(&time).breaks_as_final_only(Rule::IdTokenAuthTime);
    }
}

#[test]
fn a_time_that_is_checked_is_a_number_and_never_a_text() {
    for time in ["2027-01-15T08:00:00Z", "1800000000", "1e9", "tomorrow", ""] {
        Case::with("exp", time).breaks(Rule::IdTokenExpired);
        Case::with("iat", time).breaks(Rule::IdTokenIssuedAt);
        Case::with("nbf", time).breaks(Rule::IdTokenNotBefore);
        Case { require_auth_time: true, ..Case::with("auth_time", time) }.breaks_as_final_only(Rule::IdTokenAuthTime);
        Case::with("auth_time", time).is_accepted();
    }
    let fraction = |seconds: u64| seconds as f64 + 0.5;
    let mut case = Case { require_auth_time: true, ..Case::with("auth_time", fraction(SENT)) };
    for (name, seconds) in [("exp", RECEIVED + 300), ("iat", RECEIVED - 10), ("nbf", RECEIVED - 10)] {
        case.claims[name] = fraction(seconds).into();
    }
    case.is_accepted();
    let token = case.verify().unwrap();
    assert_eq!(token.claims().expires_at(), from_unix_seconds(RECEIVED + 300));
    assert_eq!(token.claims().auth_time(), Some(from_unix_seconds(SENT)));
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
fn without_a_request_no_nonce_is_expected_and_no_interim_token_is_accepted() {
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
fn at_hash_is_checked_if_present() {
    for algorithm in test_keys::ASYMMETRIC {
        let mut case = Case::signed_with(algorithm);
        case.claims["at_hash"] = half_hash(algorithm, ACCESS_TOKEN).into();
        case.is_accepted();
        case.claims["at_hash"] = half_hash(algorithm, "another token").into();
        case.breaks(Rule::IdTokenAccessTokenHash);
    }
    for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Ed25519] {
        let mut case = Case::signed_with(algorithm);
        // Whose name has no hash function in it.
        case.claims["at_hash"] = half_hash(SigningAlgorithm::Es256, ACCESS_TOKEN).into();
        case.is_accepted();
        case.claims["at_hash"] = half_hash(SigningAlgorithm::Es384, ACCESS_TOKEN).into();
        case.breaks(Rule::IdTokenAccessTokenHash);
    }
    Case::with("at_hash", "").is_accepted();
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
fn c_hash_is_checked_if_present() {
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
    for acr in [json!(null), json!(""), json!(3), json!(["urn:gold"])] {
        Case { require_acr: true, ..Case::with("acr", acr) }.breaks_as_final_only(Rule::IdTokenAcr);
    }
    Case { require_acr: true, ..Case::good() }.breaks_as_final_only(Rule::IdTokenAcr);
    Case { require_acr: true, ..Case::with("acr", "urn:bronze") }.is_accepted();
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
fn auth_time_is_required_under_max_age_and_if_it_was_essential() {
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
fn a_final_subject_that_differs_from_the_hinted_one_is_refused() {
    Case { hinted_subject: Some("user-1"), ..Case::good() }.is_accepted();
    Case { hinted_subject: Some("user-2"), ..Case::good() }.breaks_as_final_only(Rule::HintedSubject);
}

#[test]
fn a_claim_repeated_with_another_value_is_refused_if_a_check_needs_it() {
    let case = Case::good();
    let claims = case.claims.to_string();
    let with = |repeated: &str| case.verify_token(&case.token_of(&format!("{{{repeated},{}", &claims[1..])));
    for (repeated, claim) in [
        (r#""sub":"user-2""#, "sub"),
        (r#""aud":"other""#, "aud"),
        (r#""\u0073ub":"user-2""#, "sub"),
        (r#""exp":1"#, "exp"),
    ] {
        let violation = with(repeated).unwrap_err();
        assert_eq!((violation.rule(), violation.member()), (Rule::RepeatedMember, Some(claim)), "{repeated}");
    }
    for repeated in [r#""x":1,"x":2"#, r#""x":{"y":1,"y":2}"#] {
        assert!(with(repeated).is_ok(), "{repeated}");
    }
}

#[test]
fn a_standard_claim_of_another_type_is_accepted_and_named() {
    for (name, value) in [
        ("email_verified", json!("perhaps")),
        ("email_verified", json!("True")),
        ("email_verified", json!(1)),
        ("name", json!(5)),
        ("name#ja", json!(5)),
        ("address", json!("Main Street 1")),
        ("address", json!({ "country": 49 })),
        ("updated_at", json!([])),
        ("updated_at", json!("2026-11-29")),
        ("amr", json!("pwd")),
        ("amr", json!(["pwd", 5])),
        ("auth_time", json!("2026-11-29T10:00:00Z")),
        ("acr", json!(3)),
        ("c_hash", json!(5)),
        ("jti", json!(5)),
    ] {
        let case = Case::with(name, value.clone());
        case.is_accepted();
        let token = case.verify().unwrap();
        assert_eq!(token.claims().get(name), Some(&value));
        assert_eq!(token.claims().malformed().collect::<Vec<_>>(), [name], "{value}");
    }
}

#[test]
fn a_hash_that_is_not_checked_may_have_any_type() {
    Case { access_token: None, ..Case::with("at_hash", 5) }.is_accepted();
    Case { code: Some(Secret::new("the-code")), ..Case::with("c_hash", 5) }.breaks(Rule::IdTokenCodeHash);
}

#[test]
fn a_null_claim_counts_as_absent() {
    for name in ["name", "email", "email_verified", "address", "updated_at", "acr", "amr", "azp", "at_hash", "nbf"] {
        let case = Case::with(name, json!(null));
        case.is_accepted();
        let token = case.verify().unwrap();
        let claims = token.claims();
        assert_eq!(claims.malformed().count(), 0);
        assert_eq!((claims.name(), claims.email(), claims.email_verified(), claims.acr()), (None, None, None, None));
        assert!(claims.address().is_none() && claims.updated_at().is_none());
    }
}

#[test]
fn a_violation_names_the_document_and_the_claim() {
    let violation = Case::without("exp").verify().unwrap_err();
    assert_eq!((violation.document(), violation.member()), (Some(Document::IdToken), Some("exp")));
}
