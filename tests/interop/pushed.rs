//! Pushed authorization requests (RFC 9126) and `response_mode=form_post`.

use openid_deferred::{ClientAuthentication, ResponseMode, SigningAlgorithm, SigningKey};
use serde_json::json;

use crate::op::Op;
use crate::support::{chain, key_set, registration, world, world_at};

pub(crate) async fn requests_are_pushed_where_the_client_wants_it(op: &impl Op) {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let registered = json!({
        "jwks": key_set(key.public_jwk()),
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "require_pushed_authorization_requests": true,
    });
    let authentication = ClientAuthentication::private_key_jwt(key);
    let pushing =
        world_at(op, registered, |client| client.authentication(authentication).pushed_authorization_requests());
    let Some(world) = pushing.await else { return };
    let (url, _) = world.client.authorize().start().await.unwrap();
    assert!(url.query_pairs().any(|(name, _)| name == "request_uri"));
    assert!(world.sign_in().await.access_token().is_some());
}

pub(crate) async fn a_user_returns_by_form_post<O: Op>(op: &O) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let request = world.client.authorize().response_mode(ResponseMode::FormPost);
    world.sign_in_by(request).await.unwrap_or_else(|error| panic!("{}", chain(&error)));

    let error = world.decline_by(world.client.authorize().response_mode(ResponseMode::FormPost)).await;
    assert_eq!(error.error_response().unwrap().code(), O::DECLINED);
}

#[tokio::test]
async fn requests_are_pushed_if_the_op_requires_it() {
    for nonces in [false, true] {
        let settings = json!({ "requirePushedAuthorizationRequests": true, "requireNonce": nonces });
        let Some(world) = world(settings, registration(), |client| client).await else { return };
        assert!(world.client.provider_metadata().await.unwrap().require_pushed_authorization_requests());
        let (url, _) = world.client.authorize().start().await.unwrap();
        assert!(url.query_pairs().any(|(name, _)| name == "request_uri"));
        assert!(world.sign_in().await.is_sender_constrained());
    }
}
