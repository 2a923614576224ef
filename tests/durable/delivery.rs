//! Outcomes until they are acknowledged.

use std::time::Duration;

use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery};
use openid_deferred::{Outcome, Rule};

use crate::support::{HOUR, SECOND, next, world, world_with};

#[tokio::test]
async fn an_outcome_that_is_dropped_comes_again_later_each_time() {
    let world = world().await;
    world.waiting().await;
    let mut outcomes = world.poller.outcomes();
    let mut pauses = Vec::new();
    let mut dropped = None;
    for attempt in 1..=4 {
        let delivery = next(&mut outcomes).await;
        assert_eq!(delivery.attempt(), attempt);
        let now = openid_deferred::Clock::monotonic(&world.clock);
        pauses.extend(dropped.map(|dropped: Duration| (now - dropped).as_secs()));
        drop(delivery);
        dropped = Some(now);
    }
    assert_eq!(pauses, [30, 60, 120]);
}

#[tokio::test]
async fn an_outcome_in_hand_is_nobody_elses_however_long_it_takes() {
    let world = world().await;
    world.waiting().await;
    let delivery = world.outcome().await;
    let replica = world.replica(5).await;
    let mut elsewhere = replica.outcomes();
    tokio::select! {
        biased;
        other = elsewhere.next() => panic!("{other:?}"),
        () = world.sleep(HOUR) => {}
    }
    delivery.retry_after(10 * SECOND).await.unwrap();
    assert_eq!(next(&mut elsewhere).await.attempt(), 2);
}

#[tokio::test]
async fn an_outcome_survives_the_process_that_had_it() {
    let mut world = world().await;
    let id = world.waiting().await;
    let delivery = world.outcome().await;
    world.restart().await;
    let again = world.outcome().await;
    assert_eq!((again.id(), again.attempt()), (id, 2));
    // The first one had been dealt with, as it turns out.
    delivery.acknowledge().await.unwrap();
    again.acknowledge().await.unwrap();
    let mut outcomes = world.poller.outcomes();
    tokio::select! {
        biased;
        other = outcomes.next() => panic!("{other:?}"),
        () = world.sleep(HOUR) => {}
    }
}

#[tokio::test]
async fn an_outcome_comes_back_from_the_dead_as_soon_as_was_set() {
    let world = world_with(|op| op, |client| client, |poller| poller.delivery_lease(20 * SECOND)).await;
    world.waiting().await;
    let delivery = world.outcome().await;
    let since = openid_deferred::Clock::monotonic(&world.clock);
    world.poller.shutdown(Duration::ZERO).await;
    let replica = world.replica(5).await;
    let again = next(&mut replica.outcomes()).await;
    let waited = openid_deferred::Clock::monotonic(&world.clock) - since;
    assert_eq!((again.id(), again.attempt()), (delivery.id(), 2));
    assert!(waited <= 20 * SECOND, "{waited:?}");
}

#[tokio::test]
async fn several_streams_share_the_outcomes_and_end_at_shutdown() {
    let world = world().await;
    for _ in 0..10 {
        world.waiting().await;
    }
    let (mut first, mut second) = (world.poller.outcomes(), world.poller.outcomes());
    let take = async |stream: &mut openid_deferred::poller::Outcomes| {
        let mut taken = 0;
        while let Some(delivery) = stream.next().await {
            assert!(matches!(delivery.outcome(), Outcome::Approved(_)));
            delivery.acknowledge().await.unwrap();
            taken += 1;
        }
        taken
    };
    let shutdown = async {
        world.sleep(HOUR).await;
        world.poller.shutdown(SECOND).await;
    };
    let (one, other, ()) = tokio::join!(take(&mut first), take(&mut second), shutdown);
    assert_eq!(one + other, 10);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_answer_that_is_not_valid_is_kept_for_whoever_looks_into_it_until_the_acknowledgement() {
    let mut world = world().await;
    let id = world.waiting().await;
    world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature()).after_success());
    let delivery = world.outcome().await;
    let Outcome::Invalid(violation) = delivery.outcome() else { panic!("{delivery:?}") };
    assert_eq!(violation.rule(), Rule::IdTokenSignature);
    let response = delivery.rejected_response().expect("the response is kept").expose().to_owned();
    let members: serde_json::Value = serde_json::from_str(&response).expect("as it came");
    assert!(members["id_token"].is_string());
    assert!(!format!("{delivery:?}").contains(members["id_token"].as_str().unwrap()));
    world.restart().await;
    let again = world.outcome().await;
    assert_eq!(again.rejected_response().unwrap().expose(), response);
    again.acknowledge().await.unwrap();
    assert_eq!(
        world.poller.status(id).await.unwrap().unwrap().phase(),
        openid_deferred::poller::ProcessPhase::Acknowledged
    );
}

#[tokio::test]
async fn an_approved_outcome_has_no_rejected_response() {
    let world = world().await;
    world.waiting().await;
    assert!(world.outcome().await.rejected_response().is_none());
}
