//! The endpoints of the metadata and of the keys accept requests and never answer, while callers have deadlines of
//! their own.

use std::time::Duration;

use openid_deferred::Clock as _;
use openid_deferred::error::Rule;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};

use crate::support::{HOUR, World, assert_approved, seconds, undecided, world, world_with};

const DEADLINE: Duration = Duration::from_secs(10);

/// Returns `None` if the caller gives up.
async fn within<T>(world: &World, deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = world.clock.sleep(deadline) => None,
    }
}

fn stalled(endpoint: Endpoint) -> Fault {
    Fault::stall(endpoint).always()
}

#[tokio::test]
async fn polls_use_old_metadata_while_its_refresh_hangs() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.clock.sleep(2 * HOUR).await;
    let before = world.polls().len();
    world.op.misbehave(stalled(Endpoint::Metadata));
    for sent in 1..=20 {
        let began = world.clock.monotonic();
        let polled = within(&world, DEADLINE, world.client.poll(&mut pending)).await;
        assert!(matches!(polled, Some(Ok(_))), "{polled:?}");
        assert_eq!(world.clock.monotonic(), began, "it did not wait");
        assert_eq!(world.polls().len(), before + sent);
        world.clock.sleep(seconds(60)).await;
    }
    let fetches = world.op.requests_to(Endpoint::Metadata).len();
    assert!((3..=21).contains(&fetches), "{fetches} fetches");
}

#[tokio::test]
async fn sign_ins_start_with_old_metadata_while_its_refresh_hangs() {
    let world = world().await;
    world.clock.sleep(2 * HOUR).await;
    world.op.misbehave(stalled(Endpoint::Metadata));
    for _ in 0..6 {
        let started = within(&world, DEADLINE, world.client.authorize().start()).await;
        assert!(started.is_some_and(|started| started.is_ok()));
        world.clock.sleep(seconds(30)).await;
    }
}

#[tokio::test]
async fn the_final_poll_is_sent_in_time_while_the_refresh_of_metadata_hangs() {
    let op = |op: openid_deferred::testing::TestProviderBuilder| {
        op.decisions(DecisionPolicy::scripted()).interval(seconds(7200)).expires_in(seconds(4000))
    };
    let world = world_with(op, |client| client).await;
    let mut pending = world.pending().await;
    let began = world.clock.monotonic();
    world.clock.sleep(seconds(3000)).await;
    world.op.misbehave(stalled(Endpoint::Metadata));
    world.op.last_process().approve();
    assert_approved(&world.wait(&mut pending).await);
    let arrived = world.polls()[0].arrived - began;
    assert!((seconds(3994)..seconds(3996)).contains(&arrived), "{arrived:?}");
}

#[tokio::test]
async fn a_caller_with_a_deadline_gets_an_error_if_the_fetch_of_keys_hangs() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.clock.sleep(26 * HOUR).await;
    world.op.misbehave(stalled(Endpoint::Keys));
    for _ in 0..5 {
        let refreshed = within(&world, DEADLINE, world.client.refresh(&mut authentication)).await;
        let error = refreshed.expect("it ends within the deadline").unwrap_err();
        assert_eq!(error.rule(), Some(Rule::KeysUnavailable));
        assert!(error.is_transient() && error.retry_after().is_some());
    }
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1, "the answer is kept");
    world.op.behave();
    world.clock.sleep(seconds(60)).await;
    world.client.refresh(&mut authentication).await.unwrap();
}

#[tokio::test]
async fn dropped_callers_neither_stop_nor_repeat_a_fetch_of_keys() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.clock.sleep(26 * HOUR).await;
    world.op.misbehave(Fault::stall(Endpoint::Keys));
    let before = world.op.requests_to(Endpoint::Keys).len();
    for _ in 0..2 {
        let refreshed = within(&world, seconds(5), world.client.refresh(&mut authentication)).await;
        assert!(refreshed.is_none(), "{refreshed:?}");
        assert_eq!(world.op.requests_to(Endpoint::Keys).len(), before + 1);
    }
    world.clock.sleep(seconds(10)).await;
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::Keys).len(), before + 2);
}

#[tokio::test]
async fn old_keys_are_used_within_seconds_while_the_fetch_of_new_keys_hangs() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.clock.sleep(2 * HOUR).await;
    world.op.misbehave(stalled(Endpoint::Keys));
    world.op.misbehave(stalled(Endpoint::Metadata));
    let began = world.clock.monotonic();
    world.client.refresh(&mut authentication).await.unwrap();
    assert!(world.clock.monotonic() - began <= seconds(4));
}
