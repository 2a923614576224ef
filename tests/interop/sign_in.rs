//! Discovery, authorization, ID Tokens, UserInfo and DPoP.

use openid_deferred::{ConfigurationProblem, ErrorKind, ResponseType, SigningAlgorithm};
use serde_json::json;

use crate::provider::Provider;
use crate::support::{CLIENT_ID, client_of, registration, with, world};

#[tokio::test]
async fn the_metadata_is_read() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let metadata = world.client.provider_metadata().await.unwrap();
    assert_eq!(metadata.issuer(), world.op.issuer);
    assert!(metadata.supports_response_type("code"));
    assert!(metadata.authorization_response_iss_parameter_supported());
    assert!(metadata.introspection_endpoint().is_some() && metadata.revocation_endpoint().is_some());
    assert!(metadata.pushed_authorization_request_endpoint().is_some());
    assert!(metadata.dpop_signing_alg_values_supported().iter().any(|name| name == "ES256"));
}

#[tokio::test]
async fn an_op_without_the_deferred_flow_is_told_apart_at_discovery() {
    let Some(op) = Provider::start(json!({ "clients": [registration()] })) else { return };
    let error = client_of(&op).response_type(ResponseType::DeferredCode).discover().await.unwrap_err();
    let ErrorKind::Configuration(ConfigurationProblem::NotAdvertised { member, value }) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((*member, value.as_str()), ("response_types_supported", "deferred_code"));
}

#[tokio::test]
async fn a_user_signs_in_with_tokens_bound_to_a_key() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let authentication = world.sign_in().await;
    assert_eq!(authentication.claims().subject(), "user-1");
    assert_eq!(authentication.claims().issuer(), world.op.issuer);
    assert_eq!(authentication.claims().audience(), [CLIENT_ID]);
    assert!(authentication.is_sender_constrained());
}

#[tokio::test]
async fn id_tokens_by_every_algorithm_are_verified() {
    for name in ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"] {
        let algorithm = SigningAlgorithm::from_name(name).unwrap();
        let registered = with(registration(), json!({ "id_token_signed_response_alg": name }));
        let pinned = world(json!({}), registered, |client| client.id_token_signed_response_alg(algorithm)).await;
        let Some(world) = pinned else { return };
        assert_eq!(world.sign_in().await.id_token().algorithm(), algorithm);
    }
}

#[tokio::test]
async fn every_request_gets_by_where_nonces_are_required() {
    let Some(world) = world(json!({ "requireNonce": true }), registration(), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    assert!(authentication.is_sender_constrained());
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn a_user_who_declines_is_the_ops_answer() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let error = world.try_to_sign_in(Some("declines")).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "access_denied");
}

#[tokio::test]
async fn userinfo_is_read_plain_and_signed() {
    for signed in [None, Some("ES256"), Some("RS256"), Some("EdDSA")] {
        let registered = match signed {
            Some(name) => with(registration(), json!({ "userinfo_signed_response_alg": name })),
            None => registration(),
        };
        let Some(world) = world(json!({}), registered, |client| client).await else { return };
        let userinfo = world.client.userinfo(&world.sign_in().await).await.unwrap();
        assert_eq!(userinfo.subject(), "user-1");
        assert_eq!(userinfo.claim("email"), Some(&json!("jane@example.com")));
    }
}
