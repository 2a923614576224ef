//! Values that JSON's grammar allows and programs cannot represent: half of a UTF-16 surrogate pair (RFC 8259 §8.2),
//! and a number beyond all bounds (§6). They do no harm in members that no check needs.

use openid_deferred::error::{Document, Misuse, Rule, Violation};
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery};
use openid_deferred::{Error, ErrorKind, InterimState, Outcome, ResponseMode, SignIn};
use serde_json::{Value, json};

use crate::id_token::ended_with;
use crate::support::{World, assert_approved, broken_rule, client_of, keyring, reopened, world, world_with};

/// Adds members that no check needs. The name of one was cut in the middle of an emoji.
fn odd(json: &mut String) {
    json.insert_str(1, r#""nickname":"Jo \ud83d","x_\udc00":{"y":["\ud83d\ud83d\ude00"]},"x_number":-1e400,"#);
}

fn with(member: &'static str) -> impl Fn(&mut String) + Send + Sync + 'static {
    move |json| json.insert_str(1, &format!("{member},"))
}

/// Replaces the value of the member.
fn replaced(name: &'static str, value: &'static str) -> impl Fn(&mut String) + Send + Sync + 'static {
    move |json| {
        let mut members: serde_json::Map<String, Value> = serde_json::from_str(json).unwrap();
        members.remove(name).expect("the document has the member");
        *json = serde_json::to_string(&members).unwrap();
        json.insert_str(1, &format!(r#""{name}":{value},"#));
    }
}

fn violation(error: &Error) -> Violation {
    let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
    *violation
}

#[tokio::test]
async fn unneeded_members_with_lone_surrogates_are_accepted_in_every_document() {
    let world = world_with(|op| op, |client| client.response_mode(ResponseMode::QueryJwt)).await;
    for endpoint in [
        Endpoint::Metadata,
        Endpoint::Keys,
        Endpoint::Exchange,
        Endpoint::Poll,
        Endpoint::Refresh,
        Endpoint::Introspection,
        Endpoint::PushedAuthorization,
        Endpoint::UserInfo,
    ] {
        world.op.misbehave(Fault::edit_body(endpoint, odd).always());
    }
    world.op.misbehave(Fault::jwt_response(IdTokenForgery::claims_text(odd)).always());
    for endpoint in [Endpoint::Exchange, Endpoint::Poll, Endpoint::Refresh] {
        world.op.misbehave(Fault::id_token(endpoint, IdTokenForgery::claims_text(odd)).always());
    }
    let client = client_of(&world.op, &world.clock).response_mode(ResponseMode::QueryJwt).discover().await.unwrap();
    let world = World { client, ..world };
    let (url, session) = world.client.authorize().pushed().start().await.unwrap();
    let query = world.op.visit(url).query();
    let signed_in = world.client.authorization_response(&query, session).await;
    let Ok(SignIn::Deferred(pending)) = signed_in else { panic!("{signed_in:?}") };
    assert!(matches!(pending.interim(), InterimState::Verified(_)), "{:?}", pending.interim());
    let mut pending = reopened(pending, &keyring());
    let Outcome::Approved(mut authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert_eq!(authentication.claims().nickname(), Some("Jo \u{fffd}"));
    assert_eq!(authentication.claims().get("x_\u{fffd}"), Some(&json!({ "y": ["\u{fffd}😀"] })));
    assert_eq!(authentication.extra("x_number"), Some(&Value::Null));
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(authentication.refreshed_id_token().unwrap().claims().nickname(), Some("Jo \u{fffd}"));
    assert!(world.client.introspect(authentication.access_token().unwrap(), None).await.unwrap().is_active());
    let userinfo = world.client.userinfo(&authentication).await.unwrap();
    assert_eq!((userinfo.subject(), userinfo.as_json().get("nickname")), ("user-1", Some(&json!("Jo \u{fffd}"))));
}

#[tokio::test]
async fn a_needed_claim_with_a_lone_surrogate_makes_the_id_token_invalid() {
    for (name, value) in [
        ("sub", r#""user-1\ud83d""#),
        ("nonce", r#""\udfff""#),
        ("aud", r#"["app","\ud83d"]"#),
        ("exp", "1e400"),
        ("iat", "-1e400"),
    ] {
        let world = world().await;
        let outcome = ended_with(&world, IdTokenForgery::claims_text(replaced(name, value))).await;
        let Outcome::Invalid(violation) = outcome else { panic!("{name}: {outcome:?}") };
        assert_eq!((violation.rule(), violation.member()), (Rule::IdTokenMalformed, Some(name)));
    }
    let world = world().await;
    let twice = IdTokenForgery::claims_text(|claims| claims.insert_str(1, r#""sub":"user-1\ud83d","#));
    assert_eq!(broken_rule(&ended_with(&world, twice).await), Some(Rule::RepeatedMember));
}

#[tokio::test]
async fn a_needed_member_with_a_lone_surrogate_makes_a_token_response_invalid_and_its_tokens_are_revoked() {
    let world = world().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::edit_body(Endpoint::Poll, replaced("token_type", r#""DPoP\ud83d""#)).after_success());
    let Outcome::Invalid(violation) = world.wait(&mut pending).await else { panic!("it is accepted") };
    assert_eq!((violation.rule(), violation.member()), (Rule::MalformedJson, Some("token_type")));
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
}

#[tokio::test]
async fn an_identifier_with_a_lone_surrogate_is_refused_and_such_times_count_as_absent() {
    let world = world().await;
    world.op.misbehave(Fault::edit_body(Endpoint::Exchange, replaced("deferred_auth_id", r#""a\ud83d""#)));
    let found = violation(&world.sign_in().await.unwrap_err());
    assert_eq!((found.rule(), found.member()), (Rule::MalformedJson, Some("deferred_auth_id")));
    world.op.misbehave(Fault::edit_body(Endpoint::Exchange, replaced("expires_in", "1e400")));
    let mut pending = world.pending().await;
    assert_eq!(pending.expires_at(), None);
    assert_approved(&world.wait(&mut pending).await);
}

#[tokio::test]
async fn userinfo_whose_subject_has_a_lone_surrogate_is_refused() {
    let world = world().await;
    let authentication = world.approved().await;
    world.op.misbehave(Fault::edit_body(Endpoint::UserInfo, replaced("sub", r#""\ud83d""#)));
    let found = violation(&world.client.userinfo(&authentication).await.unwrap_err());
    assert_eq!((found.document(), found.member()), (Some(Document::UserInfo), Some("sub")));
}

#[tokio::test]
async fn malformed_json_with_lone_surrogates_is_refused() {
    for broken in [r#""x":"\ud83""#, r#""x":"\ud83d"#, r#""x":01e400"#, r#""x":1e400e"#, r#""x":"\ud83d",,"y":1"#] {
        let world = world().await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::edit_body(Endpoint::Exchange, with(broken)));
        assert!(world.client.exchange(&mut grant).await.is_err(), "{broken}");
        let again = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*again.kind(), ErrorKind::Misuse(Misuse::GrantAlreadyUsed), "{broken}");
    }
}
