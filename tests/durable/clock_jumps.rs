//! A store whose clock jumps, and machines that are suspended.

use std::time::Duration;

use openid_deferred::poller::{Event, Events};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, TestProviderBuilder};
use openid_deferred::{Clock as _, DpopMode, Outcome};

use crate::faulty_store::{World, world_with};
use crate::support::{HOUR, SECOND, happened, world_of};

const PROCESSES: usize = 200;
const INTERVAL: Duration = Duration::from_secs(600);

async fn waiting_world() -> World {
    let world =
        world_with(|op| op.interval(INTERVAL).no_expiry().decisions(DecisionPolicy::scripted()), |client| client).await;
    for _ in 0..PROCESSES {
        world.waiting().await;
        world.sleep(SECOND).await;
    }
    world
}

fn jumps(events: &mut Events) -> usize {
    std::iter::from_fn(|| happened(events)).filter(|event| matches!(event, Event::ClockJumped { .. })).count()
}

/// The number of sign-ins that were polled after that time.
fn polled_since(world: &World, since: Duration) -> usize {
    let polls = world.op.requests_to(Endpoint::Poll);
    let late = polls.iter().filter(|poll| poll.arrived > since);
    let ids: std::collections::BTreeSet<_> = late.filter_map(|poll| poll.parameter("deferred_auth_id")).collect();
    ids.len()
}

#[tokio::test]
async fn a_jump_forward_advances_no_poll_and_is_corrected_once() {
    let world = waiting_world().await;
    let replica = world.replica(11).await;
    let mut events = world.poller.events();
    world.sleep(INTERVAL / 2).await;
    world.store.forget_calls();
    world.store.jump_forward(HOUR);
    let since = world.clock.monotonic();
    world.sleep(3 * INTERVAL).await;
    world.op.assert_clean();
    assert_eq!(polled_since(&world, since), PROCESSES, "all sign-ins are polled again");
    assert_eq!(jumps(&mut events), 1);
    let steps = world.store.count("correct_due_times");
    assert!((1..=8).contains(&steps), "{steps} steps for one jump");
    replica.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_jump_back_delays_no_poll() {
    let world = waiting_world().await;
    world.sleep(INTERVAL / 2).await;
    world.store.jump_back(24 * HOUR);
    let since = world.clock.monotonic();
    world.sleep(4 * INTERVAL).await;
    world.op.assert_clean();
    assert_eq!(polled_since(&world, since), PROCESSES);
}

#[tokio::test]
async fn small_jumps_every_half_hour_delay_no_poll_by_more_than_their_size() {
    for (jump, replicas) in [(6 * SECOND, 0), (40 * SECOND, 2)] {
        let op = |op: TestProviderBuilder| op.interval(HOUR).no_expiry().decisions(DecisionPolicy::scripted());
        let world = world_with(op, |client| client).await;
        let mut others = Vec::new();
        for seed in 0..replicas {
            others.push(world.replica(21 + seed).await);
        }
        for _ in 0..20 {
            world.waiting().await;
            world.sleep(60 * SECOND).await;
        }
        let since = world.clock.monotonic();
        for _ in 0..48 {
            world.store.jump_forward(jump);
            world.sleep(HOUR / 2).await;
        }
        for _ in 0..48 {
            world.store.jump_back(jump);
            world.sleep(HOUR / 2).await;
        }
        let polls = world.op.requests_to(Endpoint::Poll).into_iter().filter(|poll| poll.arrived > since).count();
        assert!(polls >= 20 * 44, "{polls} polls of 20 sign-ins in 48 hours, with jumps of {jump:?}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_single_row_whose_claim_shows_each_small_jump_is_polled() {
    let op = |op: TestProviderBuilder| op.interval(HOUR).no_expiry().decisions(DecisionPolicy::scripted());
    let world = world_with(op, |client| client).await;
    // The poller looks only when something is due, so each claim is the first to see the jumps since the last one.
    world.store.set_check_interval(100 * HOUR);
    world.waiting().await;
    for _ in 0..48 {
        world.store.jump_forward(6 * SECOND);
        world.sleep(HOUR / 2).await;
    }
    assert!(world.polls() >= 22, "{} polls in 24 hours", world.polls());
    world.op.assert_clean();
}

#[tokio::test]
async fn small_jumps_during_a_correction_of_due_times_add_up() {
    let world = waiting_world().await;
    let replica = world.replica(11).await;
    world.sleep(INTERVAL / 2).await;
    // Each step takes a while, and the clock jumps again meanwhile.
    world.store.delay("correct_due_times", 3 * SECOND);
    let since = world.clock.monotonic();
    for _ in 0..20 {
        world.store.jump_forward(20 * SECOND);
        world.sleep(2 * SECOND).await;
    }
    world.sleep(2 * INTERVAL).await;
    world.op.assert_clean();
    assert_eq!(polled_since(&world, since), PROCESSES);
    replica.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_jump_forward_shortens_no_retry_after() {
    for jump in [200 * SECOND, 2 * HOUR] {
        let world = world_with(|op| op.no_expiry().decisions(DecisionPolicy::scripted()), |client| client).await;
        world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "2400"));
        world.waiting().await;
        world.sleep(60 * SECOND).await;
        assert_eq!(world.polls(), 1);
        world.store.jump_forward(jump);
        world.sleep(2 * HOUR).await;
        let polls = world.op.requests_to(Endpoint::Poll);
        let pause = polls[1].arrived - polls[0].arrived;
        assert!(pause >= 2_400 * SECOND && polls.len() > 100, "a jump of {jump:?}: {} polls, {pause:?}", polls.len());
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_poll_in_flight_during_a_suspend_settles_its_row_although_the_lease_expired() {
    let world = without_dpop().await;
    world.waiting().await;
    world.op.last_process().deny();
    world.op.misbehave(Fault::delay(Endpoint::Poll, 60 * SECOND));
    while world.polls().is_empty() {
        world.sleep(SECOND).await;
    }
    // Another sign-in is due, so that the store is asked for due rows.
    world.waiting().await;
    world.clock.suspend(HOUR);
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Denied(_)), "{delivery:?}");
    let polls = world.polls();
    let of_first =
        polls.iter().filter(|poll| poll.parameter("deferred_auth_id") == polls[0].parameter("deferred_auth_id"));
    assert_eq!(of_first.count(), 1);
    world.op.assert_clean();
}

/// A request is not repeated with a nonce if the lease of its row has ended meanwhile.
#[tokio::test]
async fn a_nonce_challenge_received_after_a_suspend_is_not_answered() {
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, 60 * SECOND));
    world.op.misbehave(Fault::error(Endpoint::Poll, "use_dpop_nonce").header("DPoP-Nonce", "n1"));
    while world.polls().is_empty() {
        world.sleep(SECOND).await;
    }
    world.clock.suspend(HOUR);
    world.sleep(61 * SECOND).await;
    let polls: Vec<_> = world.polls().iter().map(|poll| poll.arrived).collect();
    // A repeated request would arrive with the challenge, an hour and a minute after the first one.
    assert!(polls.len() == 1 || polls[1] - polls[0] > HOUR + 61 * SECOND, "{polls:?}");
}

async fn without_dpop() -> crate::support::World {
    let op = |op: TestProviderBuilder| op.without_dpop().decisions(DecisionPolicy::scripted());
    crate::support::world_with(op, |client| client.dpop(DpopMode::Off), |poller| poller).await
}

#[tokio::test]
async fn a_poll_that_was_about_to_be_sent_before_a_suspend_is_not_sent_after_it() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    world.waiting().await;
    world.sleep(2 * SECOND).await;
    world.restart().await;
    // The new client must fetch the metadata before its first poll.
    let before = world.op.requests_to(Endpoint::Metadata).len();
    world.op.misbehave(Fault::delay(Endpoint::Metadata, 4 * SECOND));
    while world.op.requests_to(Endpoint::Metadata).len() == before {
        world.sleep(SECOND / 4).await;
    }
    assert_eq!(world.polls().len(), 0, "it is about to leave");
    world.clock.suspend(HOUR);
    // Its lease has ended by then, and another replica takes the row over. Its request is in flight for a minute.
    world.op.misbehave(Fault::delay(Endpoint::Poll, 60 * SECOND));
    let other = world.replica(12).await;
    world.sleep(2 * SECOND).await;
    assert_eq!(world.polls().len(), 1);
    world.sleep(50 * SECOND).await;
    assert_eq!(world.polls().len(), 1, "the poll from before the suspend did not leave");
    world.sleep(60 * SECOND).await;
    world.op.assert_clean();
    other.shutdown(Duration::ZERO).await;
}
