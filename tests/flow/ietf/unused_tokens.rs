//! Tokens where there should be none: they are not used, and they are revoked.

use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{ErrorKind, Grant, Outcome, SignIn};
use serde_json::json;

use super::{ietf, issued};
use crate::steps::proven_key;
use crate::support::{World, assert_approved};

const BESIDE: [&str; 2] = ["a refresh token beside an error", "an access token beside an error"];

/// Adds tokens to the next answer of an endpoint.
fn tokens_beside(endpoint: Endpoint) -> Fault {
    Fault::edit_any_json(endpoint, |members| {
        members.insert("refresh_token".into(), json!(BESIDE[0]));
        members.insert("access_token".into(), json!(BESIDE[1]));
        members.insert("token_type".into(), json!("DPoP"));
    })
}

/// The tokens that were revoked with a proof by this key.
fn revoked(world: &World, key: &str) -> Vec<String> {
    let requests = world.op.requests_to(Endpoint::Revocation);
    assert!(requests.iter().all(|request| proven_key(request).as_deref() == Some(key)));
    requests.iter().filter_map(|request| request.parameter("token").map(str::to_owned)).collect()
}

#[tokio::test]
async fn tokens_beside_a_deferral_are_revoked_and_the_deferral_counts() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(1))).await;
    world.op.misbehave(tokens_beside(Endpoint::ClientCredentials));
    let tokens = issued(world.wait(&mut world.pending_grant().await).await);
    assert_eq!(revoked(&world, tokens.dpop_key().unwrap().thumbprint()), BESIDE);

    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(1))).await;
    world.op.misbehave(tokens_beside(Endpoint::Code));
    let Ok(SignIn::Deferred(mut pending)) = world.sign_in().await else { panic!("not deferred") };
    assert!(pending.access_token().is_none());
    assert_approved(&world.wait(&mut pending).await);
    assert_eq!(revoked(&world, pending.dpop_key().unwrap().thumbprint()), BESIDE);
    world.op.assert_clean();
}

#[tokio::test]
async fn tokens_beside_a_pending_answer_are_revoked_and_polling_continues() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let mut pending = world.pending_grant().await;
    world.op.misbehave(tokens_beside(Endpoint::Poll));
    let tokens = issued(world.wait(&mut pending).await);
    assert_eq!(revoked(&world, tokens.dpop_key().unwrap().thumbprint()), BESIDE);
    assert_eq!(world.polls().len(), 3);
    let request = http::Request::get(world.op.resource()).body(Default::default()).unwrap();
    assert_eq!(world.client.resource(&tokens, request).await.unwrap().status(), 200);
    world.op.assert_clean();
}

#[tokio::test]
async fn tokens_in_a_contradictory_poll_answer_are_revoked_and_the_next_answer_counts() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(1))).await;
    let mut pending = world.pending_grant().await;
    let body = json!({ "error": "authorization_pending", "refresh_token": BESIDE[0], "access_token": BESIDE[1] });
    world.op.misbehave(Fault::response(Endpoint::Poll, 200, "application/json", body.to_string()));
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Issued(_)), "{outcome:?}");
    assert_eq!(revoked(&world, pending.dpop_key().unwrap().thumbprint()), BESIDE);
}

#[tokio::test]
async fn tokens_in_a_contradictory_first_answer_are_revoked() {
    for code in ["authorization_pending", "warning"] {
        let world = ietf(|op| op).await;
        let body =
            json!({ "error": code, "deferral_code": "c", "refresh_token": BESIDE[0], "access_token": BESIDE[1] });
        world.op.misbehave(Fault::response(Endpoint::ClientCredentials, 200, "application/json", body.to_string()));
        let error = world.client.token_request(Grant::client_credentials()).send().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        tokio::task::yield_now().await;
        let request = &world.op.requests_to(Endpoint::ClientCredentials)[0];
        assert_eq!(revoked(&world, &proven_key(request).unwrap()), BESIDE);
    }
}
