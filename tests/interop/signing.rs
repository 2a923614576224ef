//! Signed and encrypted authorization requests (RFC 9101) and responses (JARM), and both under the rules of FAPI 2.0.

use std::sync::Arc;

use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, Encryption};
use openid_deferred::{ClientAuthentication, ClientBuilder, ErrorKind, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};

use crate::op::Op;
use crate::support::{World, chain, key_set, registration, with, world, world_at};

fn signing_key(algorithm: SigningAlgorithm) -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(algorithm).unwrap())
}

/// The registration of a client with this key.
fn registered(key: &SigningKey, more: Value) -> Value {
    let members = json!({
        "jwks": key_set(key.public_jwk()),
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": key.public_jwk()["alg"],
    });
    with(members, more)
}

/// A client that authenticates with the key.
async fn signing_world_at(
    op: &impl Op,
    key: &Arc<SigningKey>,
    more: Value,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Option<World> {
    let authentication = ClientAuthentication::private_key_jwt(key.clone());
    world_at(op, registered(key, more), |builder| client(builder.authentication(authentication))).await
}

/// The same at the Node.js provider with these settings.
async fn signing_world(
    settings: Value,
    key: &Arc<SigningKey>,
    more: Value,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Option<World> {
    let authentication = ClientAuthentication::private_key_jwt(key.clone());
    let members = with(registration(), registered(key, more));
    world(settings, members, |builder| client(builder.authentication(authentication))).await
}

pub(crate) async fn requests_are_signed_in_the_url_and_pushed_with_every_algorithm<O: Op>(op: &O) {
    for name in O::ABILITIES.requests {
        let key = signing_key(SigningAlgorithm::from_name(name).unwrap());
        let more = json!({ "request_object_signing_alg": name, "require_signed_request_object": true });
        let Some(world) = signing_world_at(op, &key, more, ClientBuilder::require_signed_request_object).await else {
            return;
        };
        let (url, _) = world.client.authorize().start().await.unwrap();
        let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names, ["client_id", "request"]);
        world.sign_in().await;
        let signed_in = world.sign_in_by(world.client.authorize().scopes(["profile"]).pushed()).await;
        assert!(signed_in.is_ok(), "{name}: {}", chain(&signed_in.unwrap_err()));
    }
}

pub(crate) async fn requests_are_encrypted_for_a_key_of_the_op<O: Op>(op: &O) {
    for (alg, enc) in O::ABILITIES.request_encryption.iter().copied() {
        let key = signing_key(SigningAlgorithm::Es256);
        let more = json!({
            "request_object_signing_alg": "ES256",
            "request_object_encryption_alg": alg.as_str(),
            "request_object_encryption_enc": enc.as_str(),
        });
        let encrypting = signing_world_at(op, &key, more, |client| {
            client.algorithms(ClientAlgorithms::new().request_object_encryption(Encryption::new(alg).content(enc)))
        });
        let Some(world) = encrypting.await else { return };
        let (url, _) = world.client.authorize().start().await.unwrap();
        let object = url.query_pairs().find(|(name, _)| name == "request").unwrap().1.into_owned();
        assert_eq!(object.matches('.').count(), 4);
        world.sign_in().await;
        let signed_in = world.sign_in_by(world.client.authorize().pushed()).await;
        assert!(signed_in.is_ok(), "{alg:?} {enc:?}: {}", chain(&signed_in.unwrap_err()));
    }
}

/// Every algorithm and every mode, but not every combination.
pub(crate) async fn responses_come_as_jwts_in_every_mode<O: Op>(op: &O) {
    let modes = O::ABILITIES.jwt_modes.iter().copied().cycle();
    for (name, mode) in O::ABILITIES.responses.iter().zip(modes) {
        let algorithm = SigningAlgorithm::from_name(name).unwrap();
        let members = json!({ "authorization_signed_response_alg": name });
        let asking = world_at(op, members, |client| {
            client.response_mode(mode).algorithms(ClientAlgorithms::new().authorization_signed_response_alg(algorithm))
        });
        let Some(world) = asking.await else { return };
        world.sign_in().await;
        // Errors come in a JWT too.
        let error = world.decline().await;
        let answer = error.error_response().unwrap_or_else(|| panic!("{name} {mode:?}: {}", chain(&error)));
        assert_eq!(answer.code(), O::DECLINED, "{name} {mode:?}");
    }
}

pub(crate) async fn responses_are_decrypted<O: Op>(op: &O) {
    let modes = O::ABILITIES.jwt_modes.iter().copied().cycle();
    for ((alg, enc), mode) in O::ABILITIES.response_encryption.iter().copied().zip(modes) {
        let key = DecryptionKey::generate(alg).unwrap();
        let members = json!({
            "jwks": key_set(key.public_jwk()),
            "authorization_signed_response_alg": "ES256",
            "authorization_encrypted_response_alg": alg.as_str(),
            "authorization_encrypted_response_enc": enc.as_str(),
        });
        let decrypting = world_at(op, members, |client| {
            client
                .response_mode(mode)
                .decryption_key(key)
                .algorithms(ClientAlgorithms::new().authorization_encrypted_response(Encryption::new(alg).content(enc)))
        });
        let Some(world) = decrypting.await else { return };
        let (url, session) = world.client.authorize().start().await.unwrap();
        let back = world.visit(url).await;
        let response = back.split_once('?').map_or(back.as_str(), |(_, query)| query);
        assert_eq!(world.client.cookie_name_for(response), Some(session.cookie_name()), "{alg:?}");
        let signed_in = world.client.authorization_response(&back, session).await;
        assert!(signed_in.is_ok(), "{alg:?} {enc:?}: {}", chain(&signed_in.unwrap_err()));
    }
}

/// The OP's own FAPI profile is off.
pub(crate) async fn a_client_under_the_fapi_rules_signs_in(op: &impl Op) {
    for algorithm in [SigningAlgorithm::Ps256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa] {
        let key = signing_key(algorithm);
        let more = json!({
            "require_pushed_authorization_requests": true,
            "dpop_bound_access_tokens": true,
            "id_token_signed_response_alg": algorithm.as_str(),
        });
        let Some(world) = signing_world_at(op, &key, more, ClientBuilder::fapi2).await else { return };
        let mut authentication = world.sign_in().await;
        assert!(authentication.is_sender_constrained(), "{algorithm:?}");
        world.client.refresh(&mut authentication).await.unwrap();
        let error = world.decline().await;
        assert_eq!(error.error_response().unwrap().code(), "access_denied");
    }
}

#[tokio::test]
async fn requests_are_signed_without_a_setting_if_the_op_requires_it() {
    let settings = json!({ "requireSignedRequestObject": true });
    let key = signing_key(SigningAlgorithm::Es256);
    let Some(world) = signing_world(settings, &key, json!({}), |client| client).await else { return };
    assert!(world.client.provider_metadata().await.unwrap().require_signed_request_object());
    assert_eq!(world.sign_in().await.claims().subject(), "user-1");
}

#[tokio::test]
async fn the_op_reads_the_parameters_of_a_signed_request() {
    let key = signing_key(SigningAlgorithm::Es256);
    let Some(world) = signing_world(json!({}), &key, json!({}), ClientBuilder::require_signed_request_object).await
    else {
        return;
    };
    let request = world
        .client
        .authorize()
        .scopes(["profile"])
        .max_age(std::time::Duration::from_secs(600))
        .claims(json!({ "id_token": { "auth_time": { "essential": true }, "name": null } }));
    let signed_in = world.sign_in_by(request).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    // The client would have refused an ID Token without it.
    assert!(signed_in.claims().auth_time().is_some());

    let error = world.decline().await;
    assert_eq!(error.error_response().unwrap().code(), "access_denied");
}

/// The provider's FAPI 2.0 profile, in which it refuses everything that the profile forbids.
fn fapi() -> Value {
    json!({
        "requirePushedAuthorizationRequests": true,
        "features": { "fapi": { "enabled": true, "profile": "2.0" } },
    })
}

#[tokio::test]
async fn a_client_under_the_fapi_rules_signs_in_at_an_op_with_the_fapi_profile() {
    for algorithm in [SigningAlgorithm::Ps256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa] {
        let key = signing_key(algorithm);
        let more = json!({ "require_pushed_authorization_requests": true, "dpop_bound_access_tokens": true });
        let Some(world) = signing_world(fapi(), &key, more, ClientBuilder::fapi2).await else { return };
        let mut authentication = world.sign_in().await;
        assert!(authentication.is_sender_constrained(), "{algorithm:?}");
        world.client.refresh(&mut authentication).await.unwrap();
        assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    }
}

#[tokio::test]
async fn signed_requests_and_responses_go_with_the_fapi_profile() {
    let key = signing_key(SigningAlgorithm::Ps256);
    let more = json!({
        "require_pushed_authorization_requests": true,
        "require_signed_request_object": true,
        "request_object_signing_alg": "PS256",
        "authorization_signed_response_alg": "PS256",
        "id_token_signed_response_alg": "PS256",
        "dpop_bound_access_tokens": true,
    });
    // The request object is sent twice if the provider asks for a nonce.
    let settings = with(fapi(), json!({ "requireNonce": true }));
    let signing = signing_world(settings, &key, more, |client| {
        client.fapi2_message_signing().algorithms(
            ClientAlgorithms::new()
                .id_token_signed_response_alg(SigningAlgorithm::Ps256)
                .authorization_signed_response_alg(SigningAlgorithm::Ps256),
        )
    });
    let Some(world) = signing.await else { return };
    assert!(world.sign_in().await.is_sender_constrained());
    let error = world.decline().await;
    assert!(matches!(error.kind(), ErrorKind::ErrorResponse(_)), "{}", chain(&error));
}
