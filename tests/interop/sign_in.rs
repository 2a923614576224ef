//! Discovery, authorization, ID Tokens, UserInfo and DPoP.

use std::time::Duration;

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::{ErrorKind, ResponseType, SigningAlgorithm};
use serde_json::json;

use crate::node::Provider;
use crate::op::Op;
use crate::support::{chain, client_of, registration, world, world_at};

pub(crate) async fn a_user_signs_in(op: &impl Op) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let authentication = world.sign_in().await;
    assert_eq!(authentication.claims().issuer(), world.site.issuer);
    assert_eq!(authentication.claims().audience(), [world.client_id.as_str()]);
    let userinfo = world.client.userinfo(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(userinfo.subject(), authentication.claims().subject());
    assert_eq!(userinfo.claim("email"), Some(&json!("jane@example.com")));
    assert_eq!(userinfo.claim("name"), Some(&json!("Jane Doe")));
}

pub(crate) async fn a_user_who_declines_is_the_ops_answer<O: Op>(op: &O) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let error = world.decline().await;
    assert_eq!(error.error_response().unwrap().code(), O::DECLINED);
}

pub(crate) async fn tokens_are_bound_to_a_key(op: &impl Op) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let authentication = world.sign_in().await;
    assert!(authentication.is_sender_constrained());
    let key = authentication.dpop_key().unwrap().thumbprint();
    let token = authentication.access_token().unwrap();
    let answer = world.client.introspect(token, None).await.unwrap();
    assert_eq!(answer.confirmation().unwrap()["jkt"], json!(key));
    assert!(world.client.userinfo(&authentication).await.is_ok());
}

pub(crate) async fn id_tokens_by_every_algorithm_are_verified<O: Op>(op: &O) {
    for name in O::ABILITIES.id_tokens {
        let algorithm = SigningAlgorithm::from_name(name).unwrap();
        let registered = json!({ "id_token_signed_response_alg": name });
        let pinned = world_at(op, registered, |client| {
            client.algorithms(ClientAlgorithms::new().id_token_signed_response_alg(algorithm))
        })
        .await;
        let Some(world) = pinned else { return };
        assert_eq!(world.sign_in().await.id_token().algorithm(), algorithm);
    }
}

pub(crate) async fn userinfo_is_read_plain_and_signed<O: Op>(op: &O) {
    let signed = O::ABILITIES.userinfo.iter().copied().map(Some);
    for signed in std::iter::once(None).chain(signed) {
        let registered = signed.map_or(json!({}), |name| json!({ "userinfo_signed_response_alg": name }));
        let demanding = world_at(op, registered, |client| match signed.and_then(SigningAlgorithm::from_name) {
            Some(algorithm) => client.algorithms(ClientAlgorithms::new().userinfo_signed_response_alg(algorithm)),
            None => client,
        });
        let Some(world) = demanding.await else { return };
        let authentication = world.sign_in().await;
        let userinfo = world.client.userinfo(&authentication).await;
        let userinfo = userinfo.unwrap_or_else(|error| panic!("{signed:?}: {}", chain(&error)));
        assert_eq!(userinfo.subject(), authentication.claims().subject(), "{signed:?}");
        assert_eq!(userinfo.claim("email"), Some(&json!("jane@example.com")), "{signed:?}");
    }
}

pub(crate) async fn the_time_of_the_login_is_known_where_it_is_asked_for(op: &impl Op) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let request = world.client.authorize().max_age(Duration::from_secs(600));
    let signed_in = world.sign_in_by(request).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(signed_in.claims().auth_time().is_some());
}

/// The client has only the keys from before the rotation.
pub(crate) async fn keys_are_replaced_while_users_are_on_their_way(op: &impl Op) {
    let Some(mut world) = world_at(op, json!({}), |client| client).await else { return };
    for _ in 0..3 {
        world.sign_in().await;
        let (url, session) = world.client.authorize().start().await.unwrap();
        let back = world.visit(url).await;
        op.rotate_keys(&mut world).await;
        let signed_in = world.client.authorization_response(&back, session).await;
        assert!(signed_in.is_ok(), "{}", chain(&signed_in.unwrap_err()));
    }
}

#[tokio::test]
async fn the_metadata_is_read() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let metadata = world.client.provider_metadata().await.unwrap();
    assert_eq!(metadata.issuer(), world.site.issuer);
    assert!(metadata.supports_response_type("code"));
    assert!(metadata.authorization_response_iss_parameter_supported());
    assert!(metadata.introspection_endpoint().is_some() && metadata.revocation_endpoint().is_some());
    assert!(metadata.pushed_authorization_request_endpoint().is_some());
    assert!(metadata.dpop_signing_alg_values_supported().iter().any(|name| name == "ES256"));
}

#[tokio::test]
async fn an_op_without_the_deferred_flow_is_reported_at_discovery() {
    let Some(op) = Provider::start(json!({ "clients": [registration()] })) else { return };
    let error = client_of(&op.site).response_type(ResponseType::DeferredCode).discover().await.unwrap_err();
    let ErrorKind::Configuration(ConfigurationProblem::NotAdvertised { member, value }) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((*member, value.as_str()), ("response_types_supported", "deferred_code"));
}

#[tokio::test]
async fn every_request_succeeds_if_the_op_requires_nonces() {
    let Some(world) = world(json!({ "requireNonce": true }), registration(), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    assert!(authentication.is_sender_constrained());
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}
