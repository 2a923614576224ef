//! OpenID Connect Core 1.0 §3.1: plain `code`, at OPs without the deferred flow.

use openid_deferred::error::{ConfigurationProblem, Rule};
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, TestClock, TestProvider, TestProviderBuilder};
use openid_deferred::{
    Authentication, AuthorizationSession, ClientBuilder, Error, ErrorKind, ResponseMode, ResponseType, SignIn,
};
use serde_json::json;

use crate::steps::parameters;
use crate::support::{World, client_of, keyring, provider, world, world_with};

/// The provider without the deferred flow in its metadata.
fn ordinary(op: TestProviderBuilder) -> TestProviderBuilder {
    op.metadata(|members| {
        members.insert("response_types_supported".into(), json!(["code"]));
        members.insert("grant_types_supported".into(), json!(["authorization_code", "refresh_token"]));
    })
}

fn with_code(client: ClientBuilder) -> ClientBuilder {
    client.response_type(ResponseType::Code)
}

async fn code_world() -> World {
    world_with(ordinary, with_code).await
}

async fn sign_in(world: &World) -> Result<Authentication, Error> {
    match world.sign_in().await? {
        SignIn::Complete(authentication) => Ok(authentication),
        other => panic!("expected tokens, got {other:?}"),
    }
}

#[tokio::test]
async fn an_op_without_the_deferred_flow_signs_the_user_in_at_once() {
    let world = code_world().await;
    let authentication = sign_in(&world).await.unwrap();
    assert_eq!(authentication.claims().subject(), "user-1");
    assert!(authentication.is_sender_constrained());
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    assert!(world.op.requests_to(Endpoint::Exchange).is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn the_request_asks_for_code_and_leaves_the_response_mode_at_its_default() {
    let world = code_world().await;
    let (url, _) = world.client.authorize().start().await.unwrap();
    assert_eq!(parameters(&url, "response_type"), ["code"]);
    assert!(parameters(&url, "response_mode").is_empty());
    assert_eq!(parameters(&url, "code_challenge_method"), ["S256"]);
    let (url, _) = world.client.authorize().response_mode(ResponseMode::FormPost).start().await.unwrap();
    assert_eq!(parameters(&url, "response_mode"), ["form_post"]);
}

#[tokio::test]
async fn one_request_can_use_the_response_type_code() {
    let world = world().await;
    let (url, session) = world.client.authorize().response_type(ResponseType::Code).start().await.unwrap();
    let keyring = keyring();
    let session = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    let query = world.op.visit(url).query();
    let signed_in = world.client.authorization_response(&query, session).await.unwrap();
    assert!(matches!(signed_in, SignIn::Complete(_)), "{signed_in:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn discovery_checks_only_what_the_client_uses() {
    for (listed, response_type, missing) in [
        (json!(["code"]), ResponseType::DeferredCode, Some("deferred_code")),
        (json!(["code"]), ResponseType::DeferredCodeOrCode, Some("deferred_code code")),
        (json!(["code"]), ResponseType::Code, None),
        (json!(["deferred_code"]), ResponseType::Code, Some("code")),
        (json!(["deferred_code code"]), ResponseType::Code, Some("code")),
    ] {
        let clock = TestClock::automatic();
        let op = provider(&clock).metadata(move |members| {
            members.insert("response_types_supported".into(), listed.clone());
        });
        let op = op.start().unwrap();
        let discovered = client_of(&op, &clock).response_type(response_type).discover().await;
        let refused = discovered.err().map(|error| error.kind().clone());
        let expected = missing.map(|value| not_advertised("response_types_supported", value));
        assert_eq!(refused, expected, "{response_type:?}");
    }
}

#[tokio::test]
async fn discovery_checks_the_grant_type_of_the_code_flow() {
    let clock = TestClock::automatic();
    let op: TestProvider = provider(&clock)
        .metadata(|members| {
            members.insert("grant_types_supported".into(), json!(["urn:openid:params:grant-type:deferred"]));
        })
        .start()
        .unwrap();
    let error = client_of(&op, &clock).response_type(ResponseType::Code).discover().await.unwrap_err();
    assert_eq!(*error.kind(), not_advertised("grant_types_supported", "authorization_code"));
}

fn not_advertised(member: &'static str, value: &str) -> ErrorKind {
    ErrorKind::Configuration(ConfigurationProblem::NotAdvertised { member, value: value.to_owned() })
}

#[tokio::test]
async fn a_deferred_code_that_was_not_requested_is_refused() {
    let world = code_world().await;
    world.op.misbehave(Fault::authorization_response(|parameters| {
        for (name, _) in parameters.iter_mut().filter(|(name, _)| name == "code") {
            *name = "deferred_code".to_owned();
        }
    }));
    assert_eq!(sign_in(&world).await.unwrap_err().rule(), Some(Rule::UnrequestedCode));
    assert!(world.op.requests_to(Endpoint::Token).is_empty());
}

#[tokio::test]
async fn a_response_without_a_code_is_refused() {
    let world = code_world().await;
    world.op.misbehave(Fault::authorization_response(|parameters| parameters.retain(|(name, _)| name != "code")));
    let error = sign_in(&world).await.unwrap_err();
    let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
    assert_eq!((violation.rule(), violation.member()), (Rule::NoCode, Some("code")));
}

#[tokio::test]
async fn the_id_token_of_the_code_flow_is_fully_validated() {
    let world = code_world().await;
    let claim = |name: &'static str, value: serde_json::Value| {
        IdTokenForgery::claims(move |claims| {
            claims.insert(name.into(), value.clone());
        })
    };
    for (forgery, rule) in [
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (claim("nonce", json!("another")), Rule::IdTokenNonce),
        (claim("c_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), Rule::IdTokenCodeHash),
        (claim("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), Rule::IdTokenAccessTokenHash),
    ] {
        world.op.misbehave(Fault::id_token(Endpoint::Code, forgery));
        assert_eq!(sign_in(&world).await.unwrap_err().rule(), Some(rule));
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_code_whose_answer_was_lost_is_never_sent_again() {
    let world = code_world().await;
    world.op.misbehave(Fault::reset(Endpoint::Code).after_processing());
    assert_eq!(*sign_in(&world).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(world.op.requests_to(Endpoint::Code).len(), 1);
    world.op.assert_clean();
}
