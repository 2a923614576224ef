//! What comes out, and what is stored.

use super::*;

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
    assert_eq!(claims.malformed().count(), 0);
    let names: Vec<_> = claims.in_languages("name").collect();
    assert_eq!(names, [(None, "Jane Doe"), (Some("ja"), "ジェーン")]);
}

#[test]
fn other_claims_are_available_as_json_and_as_a_type_of_the_application() {
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
fn the_raw_final_token_is_available_as_a_hint() {
    let case = Case::good();
    let raw = case.token();
    assert_eq!(case.verify_token(&raw).unwrap().token().expose(), raw);
}

#[test]
fn a_verified_token_is_restored_without_another_verification() {
    let token = rich().verify().unwrap();
    let stored = serde_json::to_vec(&token.to_stored()).unwrap();
    let back = IdToken::from_stored(&serde_json::from_slice(&stored).unwrap()).unwrap();
    assert_eq!(back.token(), token.token());
    assert_eq!(back.algorithm(), token.algorithm());
    assert_eq!(back.claims().as_json(), token.claims().as_json());
    assert_eq!(back.claims().times(), token.claims().times());
}

#[test]
fn an_impossible_stored_value_is_refused() {
    let mut stored = serde_json::to_value(Case::good().verify().unwrap().to_stored()).unwrap();
    for token in ["", "a.b.c", "e30.e30.e30"] {
        stored["token"] = token.into();
        assert!(IdToken::from_stored(&serde_json::from_value(stored.clone()).unwrap()).is_err());
    }
}

#[test]
fn each_of_the_four_states_is_restored() {
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
fn the_raw_interim_token_is_not_stored() {
    let case = Case::good();
    let state = InterimState::Verified(case.verify_interim().unwrap());
    let stored = serde_json::to_string(&state.to_stored()).unwrap();
    assert!(!stored.contains(case.token().rsplit_once('.').unwrap().1));
}
