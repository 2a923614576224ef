//! Every method by which a client authenticates.

use openid_deferred::{ClientAuthentication, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};

use crate::provider::Provider;
use crate::support::{CLIENT_SECRET, World, registration, unauthenticated_client_of, with, world};

/// A sign-in with everything that follows it and needs the client's authentication.
async fn works(registered: Value, authentication: ClientAuthentication) {
    let method = authentication.method();
    let registered = with(registration(), with(registered, json!({ "token_endpoint_auth_method": method })));
    let world = world(json!({}), registered, |client| client.authentication(authentication)).await;
    let Some(world) = world else { return };
    let mut authentication = world.sign_in().await;
    assert!(authentication.is_sender_constrained(), "{method}");
    world.client.refresh(&mut authentication).await.unwrap();
    if method != "none" {
        let token = authentication.access_token().unwrap();
        assert!(world.client.introspect(token, None).await.unwrap().is_active(), "{method}");
    }
    world.client.revoke(&authentication).await.unwrap();
    assert!(world.client.userinfo(&authentication).await.is_err(), "{method}");
}

#[tokio::test]
async fn a_public_client() {
    works(json!({ "application_type": "native" }), ClientAuthentication::none()).await;
}

#[tokio::test]
async fn client_secret_basic() {
    works(json!({}), ClientAuthentication::client_secret_basic(CLIENT_SECRET)).await;
}

#[tokio::test]
async fn client_secret_post() {
    works(json!({}), ClientAuthentication::client_secret_post(CLIENT_SECRET)).await;
}

#[tokio::test]
async fn client_secret_jwt() {
    works(json!({}), ClientAuthentication::client_secret_jwt(CLIENT_SECRET)).await;
}

#[tokio::test]
async fn the_best_method_that_the_op_lists_is_found() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let registered = json!({
        "jwks": { "keys": [key.public_jwk()] },
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
    });
    let Some(op) = Provider::start(json!({ "clients": [with(registration(), registered)] })) else { return };
    let client = unauthenticated_client_of(&op).signing_key(key).discover().await.unwrap();
    assert_eq!(client.authentication_method(), Some("private_key_jwt"));
    let world = World { op, client };
    assert_eq!(world.sign_in().await.claims().subject(), "user-1");
}

#[tokio::test]
async fn private_key_jwt() {
    for algorithm in
        [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Ps256, SigningAlgorithm::Rs256]
    {
        let key = SigningKey::generate(algorithm).unwrap();
        let registered = json!({
            "jwks": { "keys": [key.public_jwk()] },
            "token_endpoint_auth_signing_alg": algorithm.as_str(),
        });
        works(registered, ClientAuthentication::private_key_jwt(key)).await;
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let wrong = ClientAuthentication::client_secret_basic("wrong");
    let Some(world) = world(json!({}), registration(), |client| client.authentication(wrong)).await else { return };
    let error = world.try_to_sign_in(None).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_client");
}
