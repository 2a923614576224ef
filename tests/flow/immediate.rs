//! Final tokens that come without waiting, and requests that must neither delay nor lose a successful exchange.

use std::time::Duration;

use openid_deferred::error::{ConfigurationProblem, Misuse, Rule};
use openid_deferred::testing::{Endpoint, Fault};
use openid_deferred::{Clock as _, ErrorKind, InterimState, ResponseType, SignIn};
use serde_json::json;

use crate::support::{World, world, world_with};

/// A user whom the OP authenticates at once, with a code that has not been exchanged.
async fn grant_of_an_immediate_answer() -> (World, openid_deferred::AuthorizationGrant) {
    let world = world_with(|op| op.answer_with_code(), |client| client).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let (url, mut session) = request.start().await.unwrap();
    let query = world.op.visit(url).query();
    let grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    (world, grant)
}

#[tokio::test]
async fn final_tokens_that_arrive_while_keys_are_unavailable_are_kept_and_not_requested_again() {
    let (world, mut grant) = grant_of_an_immediate_answer().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::KeysUnavailable));
    assert!(error.is_transient());

    world.op.behave();
    world.clock.advance(Duration::from_secs(3_600));
    assert!(matches!(world.client.exchange(&mut grant).await.unwrap(), SignIn::Complete(_)));
    assert_eq!(world.op.requests_to(Endpoint::Code).len(), 1);

    let again = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(again.kind(), &ErrorKind::Misuse(Misuse::GrantAlreadyUsed));
    world.op.assert_clean();
}

#[tokio::test]
async fn the_next_call_returns_the_answer_to_a_dropped_exchange_of_an_ordinary_code() {
    let (world, mut grant) = grant_of_an_immediate_answer().await;
    world.op.misbehave(Fault::delay(Endpoint::Code, Duration::from_secs(10)));
    tokio::select! {
        biased;
        _ = world.client.exchange(&mut grant) => panic!("it ended before it could be dropped"),
        () = world.clock.sleep(Duration::from_secs(1)) => {}
    }
    world.clock.sleep(Duration::from_secs(600)).await;
    let signed_in = world.client.exchange(&mut grant).await;
    assert!(matches!(signed_in, Ok(SignIn::Complete(_))), "{signed_in:?}");
    assert_eq!(world.op.requests_to(Endpoint::Code).len(), 1);
    world.op.assert_clean();
}

/// Drops an exchange before the OP has answered.
async fn exchange_dropped(world: &World, grant: &mut openid_deferred::AuthorizationGrant) {
    tokio::select! {
        biased;
        _ = world.client.exchange(grant) => panic!("it ended before it could be dropped"),
        () = world.clock.sleep(Duration::from_secs(1)) => {}
    }
}

#[tokio::test]
async fn final_tokens_that_arrive_after_their_grant_was_dropped_are_revoked() {
    for dropped_after in [Duration::ZERO, Duration::from_secs(600)] {
        let (world, mut grant) = grant_of_an_immediate_answer().await;
        world.op.misbehave(Fault::delay(Endpoint::Code, Duration::from_secs(10)));
        exchange_dropped(&world, &mut grant).await;
        world.clock.sleep(dropped_after).await;
        drop(grant);
        world.clock.sleep(Duration::from_secs(60)).await;
        let revoked: Vec<_> = world.op.requests_to(Endpoint::Revocation);
        let hints: Vec<_> = revoked.iter().filter_map(|request| request.parameter("token_type_hint")).collect();
        assert_eq!(hints, ["refresh_token", "access_token"], "{dropped_after:?}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn final_tokens_that_could_not_be_validated_are_revoked_when_their_grant_is_dropped() {
    let (world, mut grant) = grant_of_an_immediate_answer().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    assert!(world.client.exchange(&mut grant).await.unwrap_err().is_transient());
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
    drop(grant);
    world.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn returned_tokens_are_not_revoked_when_their_grant_is_dropped() {
    let (world, mut grant) = grant_of_an_immediate_answer().await;
    let SignIn::Complete(authentication) = world.client.exchange(&mut grant).await.unwrap() else {
        panic!("it was answered at once")
    };
    drop(grant);
    world.clock.sleep(Duration::from_secs(60)).await;
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    world.op.assert_clean();
}

#[tokio::test]
async fn an_early_access_token_is_not_revoked_when_its_grant_is_dropped() {
    let world = world_with(|op| op.early_access_token(), |client| client).await;
    let (query, mut session) = world.user_returns().await;
    let mut grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    world.op.misbehave(Fault::delay(Endpoint::Exchange, Duration::from_secs(10)));
    exchange_dropped(&world, &mut grant).await;
    drop(grant);
    world.clock.sleep(Duration::from_secs(60)).await;
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn slow_keys_do_not_delay_an_exchange_that_has_succeeded() {
    let world = world().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::stall(Endpoint::Keys));
    let pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    let exchange = world.op.requests_to(Endpoint::Exchange)[0].at;
    let passed = openid_deferred::Clock::now(&world.clock).duration_since(exchange).unwrap();
    assert!(passed <= Duration::from_secs(3), "{passed:?}");
}

#[tokio::test]
async fn tokens_in_an_invalid_exchange_response_are_revoked() {
    let world = world_with(|op| op.early_access_token(), |client| client).await;
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("deferred_auth_id".into(), json!(7));
    }));
    assert_eq!(world.sign_in().await.unwrap_err().rule(), Some(Rule::InvalidMember));
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 1);
}

#[tokio::test]
async fn json_parameters_of_a_wrong_type_are_refused() {
    let world = world().await;
    for request in [
        world.client.authorize().claims(json!(["acr"])),
        world.client.authorize().authorization_details(json!({"type": "payment"})),
        world.client.authorize().authorization_details(json!([{"amount": 1}])),
        world.client.authorize().authorization_details(json!(["payment"])),
        world.client.authorize().authorization_details(json!([])),
    ] {
        let error = request.start().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration(ConfigurationProblem::Setting { .. })), "{error}");
    }
}
