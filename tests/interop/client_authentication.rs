//! Every authentication method of clients.

use openid_deferred::{ClientAuthentication, ErrorKind, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};

use crate::node::Provider;
use crate::op::Op;
use crate::support::{CLIENT_ID, World, builder, chain, key_set, registration, with, world_at, world_with_secret};

/// Performs a sign-in and every later request that needs the client's authentication.
async fn works<O: Op>(op: &O, registered: Value, authentication: impl FnOnce(&str) -> ClientAuthentication) {
    let world = world_with_secret(op, registered, |client, secret| client.authentication(authentication(secret))).await;
    let Some(world) = world else { return };
    let method = world.client.authentication_method().unwrap();
    let mut authentication = world.sign_in().await;
    world.client.refresh(&mut authentication).await.unwrap_or_else(|error| panic!("{method}: {}", chain(&error)));
    if method != "none" && !O::ABILITIES.no_introspection_by.contains(&method) {
        let token = authentication.access_token().unwrap();
        assert!(world.client.introspect(token, None).await.unwrap().is_active(), "{method}");
    }
    world.client.revoke(&authentication).await.unwrap();
    assert!(world.client.userinfo(&authentication).await.is_err(), "{method}");
}

pub(crate) async fn a_public_client(op: &impl Op) {
    let registered = json!({ "token_endpoint_auth_method": "none", "application_type": "native" });
    works(op, registered, |_| ClientAuthentication::none()).await;
}

pub(crate) async fn client_secret_basic(op: &impl Op) {
    let registered = json!({ "token_endpoint_auth_method": "client_secret_basic" });
    works(op, registered, |secret| ClientAuthentication::client_secret_basic(secret)).await;
}

pub(crate) async fn client_secret_post(op: &impl Op) {
    let registered = json!({ "token_endpoint_auth_method": "client_secret_post" });
    works(op, registered, |secret| ClientAuthentication::client_secret_post(secret)).await;
}

pub(crate) async fn client_secret_jwt(op: &impl Op) {
    let registered = json!({ "token_endpoint_auth_method": "client_secret_jwt" });
    works(op, registered, |secret| ClientAuthentication::client_secret_jwt(secret)).await;
}

pub(crate) async fn private_key_jwt<O: Op>(op: &O) {
    for name in O::ABILITIES.assertions {
        let key = SigningKey::generate(SigningAlgorithm::from_name(name).unwrap()).unwrap();
        let registered = json!({
            "jwks": key_set(key.public_jwk()),
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": name,
        });
        works(op, registered, |_| ClientAuthentication::private_key_jwt(key)).await;
    }
}

pub(crate) async fn a_wrong_secret_is_refused(op: &impl Op) {
    let wrong = ClientAuthentication::client_secret_basic("wrong");
    let Some(world) = world_at(op, json!({}), |client| client.authentication(wrong)).await else { return };
    let error = world.sign_in_by(world.client.authorize()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ErrorResponse(_)), "{}", chain(&error));
    let code = error.error_response().unwrap().code();
    // RFC 6749 §5.2 defines `invalid_client` for this; some OPs send the other.
    assert!(matches!(code, "invalid_client" | "unauthorized_client"), "{}", chain(&error));
}

#[tokio::test]
async fn the_strongest_method_that_the_op_lists_is_chosen() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let registered = json!({
        "jwks": key_set(key.public_jwk()),
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
    });
    let Some(op) = Provider::start(json!({ "clients": [with(registration(), registered)] })) else { return };
    let client = builder(&op.site, CLIENT_ID).signing_key(key);
    let world = World::new(op, client).await;
    assert_eq!(world.client.authentication_method(), Some("private_key_jwt"));
    assert_eq!(world.sign_in().await.claims().subject(), "user-1");
}
