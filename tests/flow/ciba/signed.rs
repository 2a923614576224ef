//! Signed authentication requests (CIBA §7.1.1).

use openid_deferred::ciba::UserHint;
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::testing::Endpoint;
use openid_deferred::{ErrorKind, SigningAlgorithm};
use serde_json::{Value, json};

use super::{ciba, with_key};
use crate::support::{assert_approved, seconds};

fn payload(jwt: &str) -> Value {
    let part = jwt.split('.').nth(1).expect("a JWT has three parts");
    let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    serde_json::from_slice(&base64::Engine::decode(engine, part).expect("it is base64url")).expect("it is JSON")
}

#[tokio::test]
async fn a_signed_request_has_all_parameters_as_claims_and_no_other_parameters() {
    let world = with_key(
        SigningAlgorithm::Es256,
        |op, client| op.client(client.require_signed_backchannel_requests()),
        |client| client.signed_backchannel_authentication_requests(),
    )
    .await;
    let request = world.client.backchannel_authentication(UserHint::login_hint("user-1"));
    let request = request
        .binding_message("W4SCT")
        .requested_expiry(seconds(120))
        .authorization_details(json!([{ "type": "payment" }]))
        .resource("https://api.example/a")
        .resource("https://api.example/b");
    let mut pending = request.send().await.unwrap();
    assert_approved(&world.wait(&mut pending).await);
    let sent = &world.asks()[0];
    let mut names: Vec<_> = sent.parameters.iter().map(|(name, _)| name.as_str()).collect();
    names.retain(|name| !["client_id", "client_assertion", "client_assertion_type"].contains(name));
    assert_eq!(names, ["request"]);
    let claims = payload(sent.parameter("request").unwrap());
    for (name, value) in [
        ("iss", json!("the-app")),
        ("aud", json!(world.op.issuer())),
        ("scope", json!("openid")),
        ("login_hint", json!("user-1")),
        ("binding_message", json!("W4SCT")),
        ("requested_expiry", json!(120)),
        ("authorization_details", json!([{ "type": "payment" }])),
        ("resource", json!(["https://api.example/a", "https://api.example/b"])),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    for name in ["exp", "iat", "nbf", "jti"] {
        assert!(claims[name].is_u64() || claims[name].is_string(), "{name}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_single_request_can_be_signed() {
    let world = with_key(SigningAlgorithm::Es256, |op, client| op.client(client), |client| client).await;
    let ask = || world.client.backchannel_authentication(UserHint::login_hint("user-1"));
    assert_approved(&world.wait(&mut ask().signed().send().await.unwrap()).await);
    assert_approved(&world.wait(&mut ask().send().await.unwrap()).await);
    let signed: Vec<_> = world.asks().iter().map(|request| request.parameter("request").is_some()).collect();
    assert_eq!(signed, [true, false]);
    world.op.assert_clean();
}

#[tokio::test]
async fn jwt_claim_names_are_refused_as_parameters_of_a_signed_request() {
    let world = with_key(SigningAlgorithm::Es256, |op, client| op.client(client), |client| client).await;
    let request = world.client.backchannel_authentication(UserHint::login_hint("user-1")).signed();
    let error = request.parameter("sub", "user-1").send().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error}");
}

#[tokio::test]
async fn signing_needs_a_key_and_an_op_that_lists_its_algorithm() {
    let world = ciba(|op| op).await;
    let request = world.client.backchannel_authentication(UserHint::login_hint("user-1")).signed();
    let error = request.send().await.unwrap_err();
    assert!(error.to_string().contains("request_object_signing_key"), "{error}");

    const MEMBER: &str = "backchannel_authentication_request_signing_alg_values_supported";
    let world = with_key(
        SigningAlgorithm::Es256,
        |op, client| op.client(client).metadata(|members| drop(members.shift_remove(MEMBER))),
        |client| client,
    )
    .await;
    let request = world.client.backchannel_authentication(UserHint::login_hint("user-1")).signed();
    let expected = ConfigurationProblem::NotAdvertised { member: MEMBER, value: "ES256".to_owned() };
    assert_eq!(request.send().await.unwrap_err().kind(), &ErrorKind::Configuration(expected));
    assert!(world.op.requests_to(Endpoint::BackchannelAuthentication).is_empty());
}
