//! Claims of unexpected types. Those that no check needs are passed on unchanged and end nothing (OpenID Connect Core
//! 1.0 §5.1).

use std::time::SystemTime;

use openid_deferred::error::{Document, Rule};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Authentication, Claims, Outcome};
use serde_json::{Value, json};

use crate::id_token::{claim, ended_with};
use crate::support::{World, keyring, world_with};

/// Claims that no check needs, with values of other types than the specification defines.
fn odd_claims() -> Vec<(&'static str, Value)> {
    vec![
        ("amr", json!("x")),
        ("amr", json!([1])),
        ("address", json!([])),
        ("address", json!("Main Street 1")),
        ("given_name", json!(["John"])),
        ("email_verified", json!("True")),
        ("email_verified", json!(1)),
        ("phone_number_verified", json!({})),
        ("updated_at", json!("")),
        ("updated_at", json!("2026-11-29T10:00:00")),
        ("updated_at", json!({})),
        ("phone_number", json!(4_712_345_678_u64)),
        ("picture", json!({ "data": { "url": "https://op.test/picture" } })),
        ("preferred_username#ja", json!(7)),
        ("gender", json!(false)),
        ("locale", json!({ "language": "en", "country": "US" })),
        ("birthdate", json!(1990)),
        ("zoneinfo", json!([])),
        ("email", json!(["jane@example.com"])),
        // Claims that were not requested.
        ("auth_time", json!("yesterday")),
        ("acr", json!(3)),
    ]
}

/// What the accessors return for the claims above.
#[derive(Debug, Default, PartialEq)]
struct Read {
    texts: [Option<String>; 8],
    flags: [Option<bool>; 2],
    times: [Option<SystemTime>; 2],
    amr: Vec<String>,
    has_address: bool,
}

fn read(claims: &Claims) -> Read {
    let texts = [
        claims.given_name(),
        claims.phone_number(),
        claims.picture(),
        claims.gender(),
        claims.locale(),
        claims.birthdate(),
        claims.zoneinfo(),
        claims.email(),
    ];
    Read {
        texts: texts.map(|text| text.map(str::to_owned)),
        flags: [claims.email_verified(), claims.phone_number_verified()],
        times: [claims.updated_at(), claims.auth_time().filter(|_| claims.get("auth_time").unwrap().is_string())],
        amr: claims.amr().into_iter().map(str::to_owned).collect(),
        has_address: claims.address().is_some(),
    }
}

fn reopened_authentication(authentication: &Authentication) -> Authentication {
    let keyring = keyring();
    Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap()
}

/// The OP decides at the first poll.
async fn prompt_world() -> World {
    world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await
}

#[tokio::test]
async fn a_claim_of_a_wrong_type_that_no_check_needs_ends_no_process() {
    let world = prompt_world().await;
    for (name, value) in odd_claims() {
        let outcome = ended_with(&world, claim(name, value.clone())).await;
        let Outcome::Approved(authentication) = outcome else { panic!("{name} {value}: {outcome:?}") };
        let claims = authentication.claims();
        assert_eq!(claims.get(name), Some(&value));
        assert_eq!(claims.malformed().collect::<Vec<_>>(), [name], "{value}");
        assert_eq!(read(claims), Read::default(), "{name} {value}");
        let kept = reopened_authentication(&authentication);
        assert_eq!(kept.claims().malformed().collect::<Vec<_>>(), [name], "{value}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_claim_in_another_language_is_a_claim_like_any_other() {
    let world = prompt_world().await;
    for name in ["preferred_username#ja", "name#de-CH", "profile#fr", "email#x", "locale#ja", "zoneinfo#en"] {
        let outcome = ended_with(&world, claim(name, json!("text"))).await;
        let Outcome::Approved(authentication) = outcome else { panic!("{name}: {outcome:?}") };
        let (base, tag) = name.split_once('#').unwrap();
        assert!(authentication.claims().in_languages(base).any(|found| found == (Some(tag), "text")));
        assert_eq!(authentication.claims().malformed().count(), 0);
    }
}

#[tokio::test]
async fn an_interim_or_refreshed_token_with_claims_of_wrong_types_is_accepted() {
    let world = prompt_world().await;
    for (name, value) in odd_claims() {
        let forged = |endpoint| world.op.misbehave(Fault::id_token(endpoint, claim(name, value.clone())));
        forged(Endpoint::Exchange);
        let mut pending = world.pending().await;
        let interim = pending.interim().verified().unwrap_or_else(|| panic!("{name} {value}: {:?}", pending.interim()));
        assert_eq!(interim.claims().get(name), Some(&value));
        let Outcome::Approved(mut authentication) = world.wait(&mut pending).await else { panic!("not approved") };
        forged(Endpoint::Refresh);
        let refreshed = world.client.refresh(&mut authentication).await;
        assert!(refreshed.is_ok(), "{name} {value}: {refreshed:?}");
        assert_eq!(authentication.refreshed_id_token().unwrap().claims().get(name), Some(&value));
    }
}

#[tokio::test]
async fn a_malformed_claim_that_a_check_needs_ends_the_process_and_is_named() {
    let text = "2033-05-18T03:33:20Z";
    let world = prompt_world().await;
    for (name, value, rule) in [
        ("iss", json!(["https://op.test"]), Rule::IdTokenIssuer),
        ("sub", json!(7), Rule::IdTokenSubject),
        ("aud", json!({}), Rule::IdTokenAudience),
        ("exp", json!(text), Rule::IdTokenExpired),
        ("exp", json!("2000000000"), Rule::IdTokenExpired),
        ("iat", json!("2001-09-09T01:46:40Z"), Rule::IdTokenIssuedAt),
        ("iat", json!("1000000000"), Rule::IdTokenIssuedAt),
        ("nbf", json!("2001-09-09T01:46:40Z"), Rule::IdTokenNotBefore),
        ("nonce", json!(7), Rule::IdTokenNonce),
        ("azp", json!(["the-app"]), Rule::IdTokenAuthorizedParty),
        ("at_hash", json!(7), Rule::IdTokenAccessTokenHash),
    ] {
        let Outcome::Invalid(violation) = ended_with(&world, claim(name, value.clone())).await else {
            panic!("{name} {value} is accepted")
        };
        let expected = (rule, Some(Document::IdToken), Some(name));
        assert_eq!((violation.rule(), violation.document(), violation.member()), expected, "{value}");
        assert!(violation.to_string().contains(&format!("`{name}`")), "{violation}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn userinfo_with_claims_of_wrong_types_is_returned() {
    let world = prompt_world().await;
    let authentication = world.approved().await;
    for (name, value) in odd_claims().into_iter().filter(|(name, _)| !["amr", "acr", "auth_time"].contains(name)) {
        let edit = value.clone();
        world.op.misbehave(Fault::edit_json(Endpoint::UserInfo, move |members| {
            members.insert(name.to_owned(), edit.clone());
        }));
        let userinfo = world.client.userinfo(&authentication).await.unwrap();
        assert_eq!(userinfo.claim(name), Some(&value));
        assert_eq!(userinfo.malformed().collect::<Vec<_>>(), [name], "{value}");
        let read = (userinfo.given_name(), userinfo.email(), userinfo.email_verified(), userinfo.updated_at());
        assert_eq!(read, (None, None, None, None), "{name} {value}");
        assert!(userinfo.address().is_none() && userinfo.picture().is_none());
    }
}

#[tokio::test]
async fn userinfo_reads_the_standard_claims() {
    let world = prompt_world().await;
    let authentication = world.approved().await;
    world.op.misbehave(Fault::edit_json(Endpoint::UserInfo, |members| {
        let claims = json!({
            "email": "jane@example.com", "email_verified": "true", "name#ja": "ジェーン", "name": "Jane",
            "updated_at": "2027-01-15T08:00:00.123Z", "address": { "country": "DE" }, "phone_number_verified": null,
        });
        members.extend(claims.as_object().unwrap().clone());
    }));
    let userinfo = world.client.userinfo(&authentication).await.unwrap();
    assert_eq!((userinfo.email(), userinfo.email_verified()), (Some("jane@example.com"), Some(true)));
    assert_eq!(userinfo.in_languages("name").collect::<Vec<_>>(), [(None, "Jane"), (Some("ja"), "ジェーン")]);
    let updated_at = userinfo.updated_at().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(updated_at.as_secs(), 1_800_000_000);
    assert_eq!(userinfo.address().unwrap().country(), Some("DE"));
    assert_eq!((userinfo.phone_number_verified(), userinfo.malformed().count()), (None, 0));
}

#[tokio::test]
async fn introspection_with_members_of_wrong_types_says_whether_the_token_is_active() {
    let world = prompt_world().await;
    let authentication = world.approved().await;
    for (name, value) in
        [("scope", json!(["openid"])), ("exp", json!("soon")), ("username", json!(7)), ("cnf", json!("x"))]
    {
        let edit = value.clone();
        world.op.misbehave(Fault::edit_json(Endpoint::Introspection, move |members| {
            members.insert(name.to_owned(), edit.clone());
        }));
        let answer = world.client.introspect(authentication.access_token().unwrap(), None).await.unwrap();
        assert!(answer.is_active(), "{name}");
        assert_eq!(answer.get(name), Some(&value));
        assert_eq!(answer.malformed().collect::<Vec<_>>(), [name]);
    }
}
