//! Hostile input.

use proptest::prelude::*;

use super::*;

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
            for name in claims.malformed() {
                prop_assert!(!claims.as_json()[name].is_null());
            }
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
