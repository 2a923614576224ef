//! The interim ID Token that comes again as the final one.

use super::*;

fn seen(interim: &Case) -> Option<InterimFingerprint> {
    Some(InterimFingerprint::new(&interim.token()))
}

#[test]
fn the_interim_token_is_refused_as_the_final_one_whatever_its_signature_is() {
    let interim = Case::good();
    let seen = seen(&interim);
    let case = Case { interim_fingerprint: seen.clone(), ..Case::good() };
    let first = interim.token();
    case.breaks_as_final_only(Rule::InterimIdTokenAsFinal);
    // ECDSA signatures are random, so this is the same token under another one.
    let again = std::iter::repeat_with(|| interim.token()).find(|again| *again != first).unwrap();
    assert_eq!(case.verify_token(&again).unwrap_err().rule(), Rule::InterimIdTokenAsFinal);
    Case { interim_fingerprint: seen, ..Case::with("iat", RECEIVED) }.is_accepted();
}

#[test]
fn the_jti_of_the_interim_token_is_refused_in_the_final_one() {
    for (interim, last, refused) in [
        (json!("one"), json!("one"), true),
        (json!(7), json!(7), true),
        (json!("one"), json!("two"), false),
        (json!(""), json!(""), false),
        (json!(["one"]), json!(["one"]), false),
        (json!(null), json!(null), false),
    ] {
        let interim = Case::with("jti", interim);
        let mut case = Case { interim_fingerprint: seen(&interim), ..Case::with("iat", RECEIVED) };
        case.claims["jti"] = last.clone();
        match refused {
            true => {
                let violation = case.verify().unwrap_err();
                assert_eq!(
                    (violation.rule(), violation.member()),
                    (Rule::InterimIdTokenAsFinal, Some("jti")),
                    "{last}"
                );
            }
            false => case.is_accepted(),
        }
    }
}

#[test]
fn an_encrypted_token_is_recognised_encrypted_and_decrypted() {
    let interim = Case::with("jti", "one");
    let token = interim.token();
    let mut seen = InterimFingerprint::new("eyJ.a.b.c.tag");
    assert!(seen.is_of("eyJ.a.b.c.tag") && !seen.is_of(&token));
    for _ in 0..2 {
        seen.add(&token);
        assert!(seen.is_of("eyJ.a.b.c.tag") && seen.is_of(&token));
    }
    let mut other = Case { interim_fingerprint: Some(seen), ..Case::with("iat", RECEIVED) };
    other.claims["jti"] = "one".into();
    assert_eq!(other.verify().unwrap_err().rule(), Rule::InterimIdTokenAsFinal);
}

#[test]
fn without_a_fingerprint_the_claims_of_a_verified_interim_token_are_recognised() {
    let verified = Case::good().verify_interim().unwrap();
    let case = Case { interim_claims: Some(verified.claims().clone()), ..Case::good() };
    case.breaks_as_final_only(Rule::InterimIdTokenAsFinal);
    Case { interim_claims: Some(verified.claims().clone()), ..Case::with("iat", RECEIVED) }.is_accepted();
}

#[test]
fn a_fingerprint_contains_neither_the_token_nor_its_jti() {
    let seen = InterimFingerprint::new(&Case::with("jti", "a-jti-to-look-for").token());
    let stored = serde_json::to_string(&seen).unwrap();
    assert!(stored.len() < 150 && !stored.contains("a-jti-to-look-for"), "{stored}");
    assert_eq!(serde_json::from_str::<InterimFingerprint>(&stored).unwrap(), seen);
}

#[test]
fn a_malformed_token_has_a_fingerprint() {
    for text in ["", ".", "junk", "a.b.c", "e30.e30.e30"] {
        assert!(InterimFingerprint::new(text).is_of(text), "{text}");
        assert!(!InterimFingerprint::new(text).is_of("something.else"), "{text}");
    }
}
