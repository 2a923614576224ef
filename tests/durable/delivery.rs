//! Outcomes are delivered until they are acknowledged.

use std::collections::BTreeSet;
use std::time::Duration;

use openid_deferred::error::Rule;
use openid_deferred::poller::{Event, PollerBuilder};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery};
use openid_deferred::{Clock as _, Outcome};

use crate::faulty_store;
use crate::support::{HOUR, SECOND, World, happened, next, world, world_with};

#[tokio::test]
async fn a_dropped_outcome_is_delivered_again_after_growing_pauses() {
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
async fn only_deliveries_received_by_the_application_lengthen_the_pause() {
    let world = world().await;
    decided(&world, 12).await;
    for _ in 0..10 {
        // A stream takes all of them in advance, and gives back those that nobody has seen.
        let mut outcomes = world.poller.outcomes();
        next(&mut outcomes).await.acknowledge().await.unwrap();
        drop(outcomes);
        world.sleep(SECOND).await;
    }
    let mut outcomes = world.poller.outcomes();
    let delivery = next(&mut outcomes).await;
    assert_eq!(delivery.attempt(), 11);
    let (id, dropped_at) = (delivery.id(), world.clock.monotonic());
    drop(delivery);
    while next(&mut outcomes).await.id() != id {}
    assert_eq!((world.clock.monotonic() - dropped_at).as_secs(), 30);
}

#[tokio::test]
async fn an_outcome_held_by_the_application_is_delivered_to_no_other_stream() {
    let world = world().await;
    world.waiting().await;
    let delivery = world.outcome().await;
    let replica = world.replica(5).await;
    let mut elsewhere = replica.outcomes();
    tokio::select! {
        biased;
        other = elsewhere.next() => panic!("{other:?}"),
        () = world.sleep(HOUR - 60 * SECOND) => {}
    }
    delivery.retry_after(10 * SECOND).await.unwrap();
    assert_eq!(next(&mut elsewhere).await.attempt(), 2);
}

#[tokio::test]
async fn an_outcome_held_for_too_long_is_reported_and_delivered_to_another_consumer() {
    let world = world().await;
    let id = world.waiting().await;
    let mut events = world.poller.events();
    let hung = world.outcome().await;
    let since = world.clock.monotonic();
    let replica = world.replica(5).await;
    let again = next(&mut replica.outcomes()).await;
    let waited = world.clock.monotonic() - since;
    assert_eq!((again.id(), again.attempt()), (id, 2));
    assert!(waited >= HOUR && waited <= HOUR + 600 * SECOND, "{waited:?}");
    let mut overdue = Vec::new();
    while let Some(event) = happened(&mut events) {
        if let Event::DeliveryOverdue { id, held_for } = event {
            overdue.push((id, held_for >= HOUR));
        }
    }
    assert_eq!(overdue, [(id, true)], "one event is enough");
    again.acknowledge().await.unwrap();
    hung.acknowledge().await.unwrap();
}

#[tokio::test]
async fn the_longest_time_of_a_delivery_is_a_setting() {
    let world = world_with(|op| op, |client| client, |poller| poller.longest_delivery(60 * SECOND)).await;
    let id = world.waiting().await;
    let hung = world.outcome().await;
    let since = world.clock.monotonic();
    let replica = world.replica(5).await;
    assert_eq!(next(&mut replica.outcomes()).await.id(), id);
    assert!(world.clock.monotonic() - since <= 600 * SECOND);
    drop(hung);
}

#[tokio::test]
async fn an_unacknowledged_outcome_is_kept_for_ever_or_for_the_configured_time() {
    const DAY: Duration = Duration::from_secs(86_400);
    for (kept, expires_after) in [(None, None), (Some(3 * DAY), Some(3 * DAY)), (Some(SECOND), Some(DAY))] {
        let keep = |poller: PollerBuilder| if let Some(time) = kept { poller.keep_outcomes(time) } else { poller };
        let world = world_with(|op| op, |client| client, keep).await;
        let id = world.waiting().await;
        let hung = world.outcome().await;
        let decided_at = world.clock.monotonic();
        let mut events = world.poller.events();
        let mut expired = Vec::new();
        while world.clock.monotonic() - decided_at < 5 * DAY {
            world.sleep(HOUR).await;
            while let Some(event) = happened(&mut events) {
                if let Event::OutcomeExpired { id } = event {
                    expired.push((id, (world.clock.monotonic() - decided_at).div_duration_f64(DAY).floor()));
                }
            }
        }
        let expected: Vec<_> =
            expires_after.iter().map(|time: &Duration| (id, time.div_duration_f64(DAY).floor())).collect();
        assert_eq!(expired, expected);
        let rows = world.poller.stats().await.unwrap()[0].rows;
        assert_eq!((rows.decided, rows.acknowledged), if kept.is_some() { (0, 1) } else { (1, 0) });
        // It was erased, so there is nothing to acknowledge; this is no error.
        hung.acknowledge().await.unwrap();
    }
}

/// Creates this many undelivered outcomes.
async fn decided(world: &World, count: usize) {
    for _ in 0..count {
        world.waiting().await;
    }
    while world.poller.stats().await.unwrap()[0].rows.decided < count as u64 {
        world.sleep(SECOND).await;
    }
}

#[tokio::test]
async fn a_graceful_shutdown_releases_prefetched_outcomes() {
    let world = world().await;
    decided(&world, 3).await;
    let mut outcomes = world.poller.outcomes();
    next(&mut outcomes).await.acknowledge().await.unwrap();
    world.poller.shutdown(SECOND).await;
    let since = world.clock.monotonic();
    let replica = world.replica(5).await;
    let mut elsewhere = replica.outcomes();
    for _ in 0..2 {
        next(&mut elsewhere).await.acknowledge().await.unwrap();
    }
    assert!(world.clock.monotonic() - since < SECOND, "{:?}", world.clock.monotonic() - since);
    assert!(outcomes.next().await.is_none());
}

/// A world with a slow store and an undelivered outcome.
async fn decided_in_a_slow_store() -> faulty_store::World {
    let world = faulty_store::world(DecisionPolicy::immediately()).await;
    world.waiting().await;
    while world.poller.stats().await.unwrap()[0].rows.decided == 0 {
        world.sleep(SECOND).await;
    }
    world
}

#[tokio::test]
async fn a_claim_in_flight_at_a_graceful_shutdown_is_released() {
    let world = decided_in_a_slow_store().await;
    world.store.delay("claim_outcomes", 2 * SECOND);
    let mut outcomes = world.poller.outcomes();
    tokio::select! {
        biased;
        other = outcomes.next() => panic!("{other:?}"),
        () = world.clock.sleep(SECOND) => {}
    }
    world.poller.shutdown(10 * SECOND).await;
    world.store.delay("claim_outcomes", Duration::ZERO);
    let since = world.clock.monotonic();
    next(&mut world.replica(4).await.outcomes()).await.acknowledge().await.unwrap();
    assert!(world.clock.monotonic() - since < SECOND, "{:?}", world.clock.monotonic() - since);
}

#[tokio::test]
async fn an_outcome_whose_claim_expired_in_a_suspend_is_not_delivered_after_its_acknowledgement() {
    let world = decided_in_a_slow_store().await;
    world.store.delay("claim_outcomes", 60 * SECOND);
    let mut outcomes = world.poller.outcomes();
    let mut first = std::pin::pin!(outcomes.next());
    tokio::select! {
        biased;
        other = &mut first => panic!("{other:?}"),
        () = world.clock.sleep(SECOND) => {}
    }
    world.store.delay("claim_outcomes", Duration::ZERO);
    world.clock.suspend(HOUR);
    next(&mut world.replica(4).await.outcomes()).await.acknowledge().await.unwrap();
    tokio::select! {
        biased;
        late = &mut first => panic!("it was acknowledged before: {late:?}"),
        () = world.clock.sleep(120 * SECOND) => {}
    }
}

#[tokio::test]
async fn a_dropped_stream_releases_its_prefetched_outcomes() {
    let world = world().await;
    decided(&world, 3).await;
    let mut outcomes = world.poller.outcomes();
    next(&mut outcomes).await.acknowledge().await.unwrap();
    drop(outcomes);
    let since = world.clock.monotonic();
    let mut outcomes = world.poller.outcomes();
    for _ in 0..2 {
        next(&mut outcomes).await.acknowledge().await.unwrap();
    }
    assert!(world.clock.monotonic() - since < SECOND);
}

#[tokio::test]
async fn a_consumer_that_hangs_delays_only_the_outcome_that_it_holds() {
    let world = world().await;
    decided(&world, 3).await;
    let mut outcomes = world.poller.outcomes();
    let hung = next(&mut outcomes).await;
    let replica = world.replica(5).await;
    let mut elsewhere = replica.outcomes();
    world.sleep(100 * SECOND).await;
    let undelivered = replica.stats().await.unwrap()[0].rows.undelivered;
    assert!(undelivered >= Some(100 * SECOND), "{undelivered:?}");
    // The lease of the outcomes that were claimed in advance, which is not renewed.
    let end = world.clock.monotonic() + 310 * SECOND;
    for _ in 0..2 {
        let delivery = tokio::select! {
            biased;
            delivery = elsewhere.next() => delivery.expect("the poller runs"),
            () = world.clock.sleep(end - world.clock.monotonic()) => panic!("the others wait for the one in hand"),
        };
        assert_ne!(delivery.id(), hung.id());
        delivery.acknowledge().await.unwrap();
    }
}

#[tokio::test]
async fn a_consumer_that_is_slow_gets_each_outcome_once() {
    const OUTCOMES: usize = 60;
    let world = world().await;
    decided(&world, OUTCOMES).await;
    let mut outcomes = world.poller.outcomes();
    let (mut ids, mut attempts) = (BTreeSet::new(), 0);
    for _ in 0..OUTCOMES {
        let delivery = next(&mut outcomes).await;
        // All of them together take longer than the lease of the outcomes that were claimed in advance.
        world.sleep(30 * SECOND).await;
        attempts = attempts.max(delivery.attempt());
        assert!(ids.insert(delivery.id()), "{} was delivered twice", delivery.id());
        delivery.acknowledge().await.unwrap();
    }
    assert!(attempts <= 2, "what cannot be delivered in time is not claimed again and again: {attempts} times");
}

#[tokio::test]
async fn an_outcome_is_delivered_again_if_its_consumer_dies() {
    let mut world = world().await;
    let id = world.waiting().await;
    let delivery = world.outcome().await;
    world.restart().await;
    let again = world.outcome().await;
    assert_eq!((again.id(), again.attempt()), (id, 2));
    // The consumer of the first delivery had handled it after all.
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
async fn outcomes_of_a_killed_process_are_delivered_after_the_configured_lease() {
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
async fn an_invalid_answer_is_kept_for_analysis_until_the_acknowledgement() {
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
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), openid_deferred::store::State::Acknowledged);
}

#[tokio::test]
async fn a_rejected_response_is_not_kept_if_the_setting_is_off() {
    let world = world_with(|op| op, |client| client, PollerBuilder::without_rejected_responses).await;
    world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature()).after_success());
    world.waiting().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Invalid(_)));
    assert!(delivery.rejected_response().is_none());
}

#[tokio::test]
async fn an_approved_outcome_has_no_rejected_response() {
    let world = world().await;
    world.waiting().await;
    assert!(world.outcome().await.rejected_response().is_none());
}

#[tokio::test]
async fn an_outcome_claimed_by_a_dropped_next_is_not_delivered_after_its_acknowledgement() {
    let world = world().await;
    decided(&world, 1).await;
    let mut first = world.poller.outcomes();
    // As in a `select!` whose other branch is ready.
    tokio::select! {
        biased;
        other = first.next() => panic!("{other:?}"),
        () = std::future::ready(()) => {}
    }
    // The consumer does something else for longer than the lease.
    world.sleep(400 * SECOND).await;
    let replica = world.replica(5).await;
    let delivery = next(&mut replica.outcomes()).await;
    assert_eq!(delivery.attempt(), 2);
    tokio::select! {
        biased;
        again = first.next() => panic!("two have it in hand: {again:?}"),
        () = world.sleep(100 * SECOND) => {}
    }
    delivery.acknowledge().await.unwrap();
    tokio::select! {
        biased;
        again = first.next() => panic!("delivered after its acknowledgement: {again:?}"),
        () = world.sleep(HOUR) => {}
    }
}

#[tokio::test]
async fn a_consumer_that_drops_next_and_hangs_leaves_no_store_call_in_flight() {
    let world = faulty_store::world(DecisionPolicy::immediately()).await;
    for _ in 0..3 {
        world.waiting().await;
    }
    while world.poller.stats().await.unwrap()[0].rows.decided < 3 {
        world.sleep(SECOND).await;
    }
    let mut outcomes = world.poller.outcomes();
    next(&mut outcomes).await.acknowledge().await.unwrap();
    world.store.delay("extend_outcomes", 2 * SECOND);
    // As in a `select!` whose other branch is ready.
    tokio::select! {
        biased;
        other = outcomes.next() => panic!("{other:?}"),
        () = world.clock.sleep(SECOND) => {}
    }
    world.sleep(60 * SECOND).await;
    assert_eq!(world.store.in_flight("extend_outcomes"), 0, "it would keep a connection of the store's pool");
    world.store.delay("extend_outcomes", Duration::ZERO);
    for _ in 0..2 {
        next(&mut outcomes).await.acknowledge().await.unwrap();
    }
    world.op.assert_clean();
}
