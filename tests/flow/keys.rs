//! The OP's keys: rotated, unknown, and unavailable when they are needed.

use std::time::{Duration, UNIX_EPOCH};

use openid_deferred::error::Rule;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery, TestClock, TestProvider};
use openid_deferred::{Clock as _, Outcome, WaitEvent};
use serde_json::json;

use crate::id_token::{ended_with, header};
use crate::support::{DAY, HOUR, World, broken_rule, client_of, provider, seconds, world, world_with};
#[tokio::test]
async fn keys_that_rotate_between_the_tokens_are_fetched_again_once() {
    for rotate in [TestProvider::rotate_keys, TestProvider::replace_keys] {
        let world = world().await;
        let mut pending = world.pending().await;
        assert_eq!(world.op.requests_to(Endpoint::Keys).len(), 1);
        world.clock.sleep(seconds(120)).await;
        rotate(&world.op);
        assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
        assert_eq!(world.op.requests_to(Endpoint::Keys).len(), 2);
    }
}

#[tokio::test]
async fn a_token_without_kid_is_verified_by_a_key_without_kid_and_after_a_rotation() {
    let world = world_with(|op| op, |client| client).await;
    let bare_key = Fault::edit_json(Endpoint::Keys, |members| {
        for key in members["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().remove("kid");
        }
    });
    let bare_token = IdTokenForgery::header(|header| {
        header.remove("kid");
    });
    world.op.misbehave(bare_key.always());
    world.op.misbehave(Fault::id_token(Endpoint::Token, bare_token).always());
    let client =
        client_of(&world.op, &world.clock).random(std::sync::Arc::new(openid_deferred::testing::SeededRandom::new(3)));
    let world = World { client: client.discover().await.unwrap(), ..world };
    assert_eq!(broken_rule(&world.outcome().await), None);
    world.clock.sleep(seconds(120)).await;
    world.op.replace_keys();
    assert_eq!(broken_rule(&world.outcome().await), None);
}

/// A client that knows the OP's metadata but has not fetched its keys yet.
pub(crate) async fn without_keys() -> World {
    let clock = TestClock::automatic();
    let op = provider(&clock).decisions(DecisionPolicy::scripted()).start().unwrap();
    let client = client_of(&op, &clock).build().unwrap();
    op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    World { op, clock, client }
}

/// Receives a final response while the keys are unavailable.
async fn answered_without_keys(until: Duration) -> (World, Outcome, usize) {
    let world = without_keys().await;
    let mut pending = world.pending().await;
    world.op.last_process().approve();
    let mut troubles = 0;
    let waiting = world
        .client
        .wait(&mut pending)
        .on_event(|_, event| troubles += usize::from(matches!(event, WaitEvent::TransientError { .. })));
    let recovery = async {
        world.clock.sleep(until).await;
        world.op.behave();
    };
    let (outcome, ()) = tokio::join!(waiting.into_future(), recovery);
    (world, outcome.unwrap(), troubles)
}

#[tokio::test]
async fn a_final_response_that_arrives_while_keys_are_unavailable_is_kept_and_validated_by_its_time_of_receipt() {
    let (world, outcome, _) = answered_without_keys(HOUR).await;
    let Outcome::Approved(authentication) = outcome else { panic!("{outcome:?}") };
    assert_eq!(world.polls().len(), 1, "it is never asked for again");
    let receipt = world.polls()[0].at.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(authentication.received_at().duration_since(UNIX_EPOCH).unwrap().as_secs(), receipt);
    assert!(authentication.claims().expires_at() < world.clock.now(), "the token has expired meanwhile");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_final_response_whose_keys_are_unavailable_for_days_ends_as_invalid() {
    let (world, outcome, attempts) = answered_without_keys(DAY * 3).await;
    assert_eq!(broken_rule(&outcome), Some(Rule::KeysUnavailable));
    assert_eq!(world.polls().len(), 1);
    assert!(attempts < 300, "{attempts}");
}

#[tokio::test]
async fn a_final_token_by_a_key_that_the_op_does_not_have_is_kept_for_a_day_and_then_invalid() {
    let world = world().await;
    let started = world.clock.monotonic();
    let outcome = ended_with(&world, header("kid", json!("nobody"))).await;
    assert_eq!(broken_rule(&outcome), Some(Rule::IdTokenNoKey));
    assert!(world.clock.monotonic() - started >= DAY);
    assert!(world.op.requests_to(Endpoint::Keys).len() < 300);
}

#[tokio::test]
async fn a_flood_of_unknown_kids_costs_one_fetch() {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    let mut processes = Vec::new();
    for _ in 0..20 {
        processes.push(world.pending().await);
    }
    world.op.misbehave(Fault::id_token(Endpoint::Poll, header("kid", json!("nobody"))).always());
    world.clock.sleep(seconds(30)).await;
    let before = world.op.requests_to(Endpoint::Keys).len();
    for pending in &mut processes {
        world.client.poll(pending).await.unwrap_err();
    }
    assert_eq!(world.polls().len(), 20);
    assert_eq!(world.op.requests_to(Endpoint::Keys).len(), before + 1);
}

#[tokio::test]
async fn old_keys_are_used_while_new_ones_cannot_be_fetched() {
    let world = world_with(|op| op.decisions(DecisionPolicy::after(HOUR * 5)), |client| client).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    world.op.misbehave(Fault::status(Endpoint::Metadata, 503).always());
    assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
}
