//! Refresh, introspection and revocation.

use openid_deferred::tokens::TokenTypeHint;
use openid_deferred::{Authentication, Keyring, SealingKey, Secret, SystemRandom};
use serde_json::json;

use crate::op::Op;
use crate::support::{chain, client_of, registration, world, world_at};

/// The OP may or may not replace the refresh token.
pub(crate) async fn tokens_are_refreshed(op: &impl Op) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom).unwrap());
    for _ in 0..3 {
        let before = authentication.access_token().map(Secret::expose).unwrap().to_owned();
        let constrained = authentication.is_sender_constrained();
        world.client.refresh(&mut authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_ne!(authentication.access_token().map(Secret::expose), Some(before.as_str()));
        assert_eq!(authentication.is_sender_constrained(), constrained);
        let userinfo = world.client.userinfo(&authentication).await.unwrap();
        assert_eq!(userinfo.subject(), authentication.claims().subject());
        authentication = Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap();
    }
}

pub(crate) async fn tokens_are_described(op: &impl Op) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let authentication = world.sign_in().await;
    let token = authentication.access_token().unwrap();
    let answer = world.client.introspect(token, TokenTypeHint::AccessToken).await;
    let answer = answer.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(answer.is_active());
    assert_eq!(answer.client_id(), Some(world.client_id.as_str()));
    assert_eq!(answer.subject(), Some(authentication.claims().subject()));
    assert!(answer.expires_at() > answer.issued_at());
    let unknown = world.client.introspect(&Secret::new("unknown"), None).await.unwrap();
    assert!(!unknown.is_active());
}

pub(crate) async fn revoked_tokens_are_refused(op: &impl Op) {
    let Some(world) = world_at(op, json!({}), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    world.client.revoke(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let token = authentication.access_token().unwrap().clone();
    assert!(!world.client.introspect(&token, None).await.unwrap().is_active());
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    // zitadel answers with a status only.
    assert!(error.error_response().is_none_or(|answer| answer.code() == "invalid_token"), "{}", chain(&error));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant", "{}", chain(&error));
    world.client.revoke(&authentication).await.unwrap();
}

#[tokio::test]
async fn introspection_returns_the_issuer_and_the_key_of_a_token() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let authentication = world.sign_in().await;
    let answer = world.client.introspect(authentication.access_token().unwrap(), TokenTypeHint::AccessToken).await;
    let answer = answer.unwrap();
    assert_eq!((answer.issuer(), answer.token_type()), (Some(world.site.issuer.as_str()), Some("DPoP")));
    let key = authentication.dpop_key().unwrap().thumbprint();
    assert_eq!(answer.confirmation().unwrap()["jkt"], json!(key));
}

#[tokio::test]
async fn tokens_are_refreshed_and_the_refresh_token_is_replaced() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom).unwrap());
    for _ in 0..3 {
        let before = authentication.refresh_token().map(Secret::expose).unwrap().to_owned();
        world.client.refresh(&mut authentication).await.unwrap();
        assert_ne!(authentication.refresh_token().map(Secret::expose), Some(before.as_str()));
        assert!(authentication.is_sender_constrained());
        assert_eq!(authentication.refreshed_id_token().unwrap().claims().subject(), "user-1");
        assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
        authentication = Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_refresh_with_a_new_key_binds_the_tokens_to_it() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    let before = authentication.dpop_key().unwrap().thumbprint().to_owned();
    world.client.refresh_with_new_key(&mut authentication).await.unwrap();
    let key = authentication.dpop_key().unwrap().thumbprint().to_owned();
    assert_ne!(key, before);
    let token = authentication.access_token().unwrap();
    let answer = world.client.introspect(token, TokenTypeHint::AccessToken).await.unwrap();
    assert_eq!(answer.confirmation().unwrap()["jkt"], json!(key));
}

#[tokio::test]
async fn using_a_replaced_refresh_token_is_refused_and_revokes_its_successors() {
    let Some(world) = world(json!({}), registration(), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom).unwrap());
    let old = authentication.seal(&keyring).unwrap();
    world.client.refresh(&mut authentication).await.unwrap();
    // Another replica, which does not know of this one's refresh.
    let replica = client_of(&world.site).discover().await.unwrap();
    let mut stale = Authentication::open(&keyring, &old).unwrap();
    let error = replica.refresh(&mut stale).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
}
