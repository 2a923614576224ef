//! Polling across restarts, crashes and replicas.

use std::time::Duration;

use openid_deferred::poller::{Event, Limits};
use openid_deferred::store::State;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Backoff, ClientBuilder, Clock, Outcome};

use crate::support::{HOUR, SECOND, happened, next, world, world_of, world_with};

/// Whether all requests were at least `seconds` apart.
fn spaced(gaps: &[f64], seconds: f64) -> bool {
    gaps.iter().all(|gap| *gap >= seconds)
}

#[tokio::test]
async fn a_restart_during_an_interval_sends_no_early_poll() {
    let mut world = world_of(|op| op.interval(60 * SECOND)).await;
    world.waiting().await;
    world.sleep(30 * SECOND).await;
    world.restart().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert!(spaced(&world.gaps(), 60.0), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn several_replicas_never_poll_one_sign_in_concurrently() {
    let world = world_of(|op| op.decisions(DecisionPolicy::after_polls(20))).await;
    let replicas = [world.replica(11).await, world.replica(12).await];
    world.op.misbehave(Fault::delay(Endpoint::Poll, 3 * SECOND).times(10));
    for _ in 0..5 {
        world.waiting().await;
    }
    let mut outcomes = replicas[0].outcomes();
    for _ in 0..5 {
        next(&mut outcomes).await.acknowledge().await.unwrap();
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn slow_down_survives_a_restart() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::after_polls(4))).await;
    world.waiting().await;
    world.op.last_process().slow_down_next();
    world.sleep(7 * SECOND).await;
    assert_eq!(world.polls().len(), 1);
    world.restart().await;
    world.outcome().await.acknowledge().await.unwrap();
    assert!(spaced(&world.gaps()[1..], 10.0), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_sign_in_whose_replica_died_during_a_poll_with_a_success_is_unknown() {
    let mut world = world().await;
    world.waiting().await;
    // The OP approves and issues the tokens, but the answer arrives after the machine has stopped.
    world.op.last_process().approve();
    world.op.misbehave(Fault::delay(Endpoint::Poll, 10 * SECOND).after_success());
    world.sleep(8 * SECOND).await;
    assert!(world.op.last_process().is_redeemed());
    world.restart().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
    assert!(spaced(&world.gaps(), 5.0));
}

#[tokio::test]
async fn a_replica_that_dies_during_a_poll_before_the_decision_loses_nothing() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::after_polls(3))).await;
    world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, 10 * SECOND).after_processing());
    world.sleep(8 * SECOND).await;
    world.restart().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
}

#[tokio::test]
async fn a_success_whose_answer_is_lost_is_unknown_and_never_a_denial() {
    let world = world().await;
    world.waiting().await;
    world.op.misbehave(Fault::reset(Endpoint::Poll).after_success());
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
    delivery.acknowledge().await.unwrap();
}

#[tokio::test]
async fn no_sign_in_is_lost_when_the_op_is_down_for_a_day() {
    let world = world().await;
    for _ in 0..20 {
        world.waiting().await;
    }
    world.op.misbehave(Fault::status(Endpoint::Poll, 502).always());
    world.sleep(24 * HOUR).await;
    world.op.behave();
    let mut outcomes = world.poller.outcomes();
    for _ in 0..20 {
        let delivery = next(&mut outcomes).await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    assert!(world.polls().len() < 20 * 40, "{} polls in a day of trouble", world.polls().len());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_success_is_kept_in_the_store_while_keys_are_unavailable() {
    let mut world = world().await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let id = world.waiting().await;
    world.sleep(HOUR / 2).await;
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Answered);
    world.restart().await;
    world.sleep(HOUR / 2).await;
    world.op.behave();
    let polls = world.polls().len();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.polls().len(), polls, "it was never asked for again");
    world.op.assert_clean();
}

#[tokio::test]
async fn an_outcome_is_delivered_within_seconds_after_the_keys_are_available() {
    for length in [1, 3, 10, 60, 240] {
        let world = world().await;
        world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
        let id = world.waiting().await;
        while world.poller.status(id).await.unwrap().unwrap().state() != State::Answered {
            world.sleep(SECOND / 4).await;
        }
        world.sleep(length * SECOND).await;
        world.op.behave();
        let back = world.clock.monotonic();
        let delivery = world.outcome().await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        let delay = world.clock.monotonic() - back;
        assert!(delay <= 5 * SECOND, "{delay:?} after an outage of {length} s");
    }
}

#[tokio::test]
async fn a_success_stored_while_no_poller_ran_gets_all_its_attempts() {
    let mut world = world().await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let id = world.waiting().await;
    world.sleep(HOUR / 2).await;
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Answered);
    world.poller.shutdown(SECOND).await;
    world.sleep(30 * HOUR).await;
    world.op.behave();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).times(3));
    world.restart().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
}

#[tokio::test]
async fn polls_in_flight_of_a_client_do_not_exceed_its_limit() {
    let world = world_with(|op| op, |client| client, |poller| poller.limits(Limits::new().in_flight(7))).await;
    for _ in 0..50 {
        world.waiting().await;
    }
    world.op.misbehave(Fault::delay(Endpoint::Poll, SECOND).always());
    let watch = async {
        let mut most = 0;
        loop {
            most = most.max(world.poller.stats().await.unwrap()[0].in_flight);
            if world.polls().len() >= 100 {
                return most;
            }
            world.sleep(SECOND / 4).await;
        }
    };
    assert_eq!(watch.await, 7);
    world.op.assert_clean();
}

#[tokio::test]
async fn polls_do_not_exceed_the_rate_limit_of_a_client() {
    let limits = Limits::new().rate(20, 10 * SECOND);
    let world = world_with(|op| op, |client| client, |poller| poller.limits(limits)).await;
    for _ in 0..100 {
        world.waiting().await;
    }
    let mut outcomes = world.poller.outcomes();
    for _ in 0..100 {
        next(&mut outcomes).await.acknowledge().await.unwrap();
    }
    let times: Vec<_> = world.polls().iter().map(|poll| poll.arrived).collect();
    for (index, start) in times.iter().enumerate() {
        let within = times[index..].iter().take_while(|time| **time < *start + 10 * SECOND).count();
        assert!(within <= 20, "{within} within 10 s");
    }
    let took = *times.last().unwrap() - times[0];
    assert!(took < 12 * times.len() as u32 / 20 * SECOND, "nine tenths of the rate are used: {took:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_growing_backoff_survives_a_restart() {
    let up_to = 640 * SECOND;
    let mut world = world_with(
        |op| op.decisions(DecisionPolicy::scripted()).no_expiry(),
        |client| client.backoff(Backoff::Growing { up_to }),
        |poller| poller,
    )
    .await;
    world.waiting().await;
    world.sleep(700 * SECOND).await;
    let client = world.client.clone();
    world.poller.shutdown(Duration::ZERO).await;
    let builder = crate::support::poller_of(&world.store, &world.clock, 9).client(client);
    world.poller = builder.start().await.unwrap();
    world.sleep(HOUR).await;
    let rounded: Vec<_> = world.gaps().iter().take(9).map(|gap| gap.log2().floor()).collect();
    assert_eq!(rounded, [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.0], "5, 10, 20 .. 640 s: {:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_sign_in_expires_if_the_op_does_not_answer_for_the_configured_time() {
    let patience = |client: ClientBuilder| client.give_up_after(24 * HOUR);
    let world = world_with(|op| op.no_expiry(), patience, |poller| poller).await;
    world.waiting().await;
    world.op.misbehave(Fault::error(Endpoint::Poll, "temporarily_unavailable").always());
    let began = world.clock.monotonic();
    let delivery = world.outcome().await;
    let Outcome::Expired(expiry) = delivery.outcome() else { panic!("{delivery:?}") };
    assert!(!expiry.is_confirmed());
    assert!((24 * HOUR..26 * HOUR).contains(&(world.clock.monotonic() - began)));
}

#[tokio::test]
async fn an_unknown_error_code_is_reported_and_does_not_end_the_sign_in() {
    let world = world().await;
    let mut events = world.poller.events();
    let id = world.waiting().await;
    world.op.misbehave(Fault::error(Endpoint::Poll, "committee_in_recess"));
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
    let told = std::iter::from_fn(|| happened(&mut events)).find_map(|event| match event {
        Event::UnknownError { id, code } => Some((id, code.to_string())),
        _ => None,
    });
    assert_eq!(told, Some((id, "committee_in_recess".to_owned())));
}

#[tokio::test]
async fn an_op_that_does_not_answer_for_ninety_days_is_reported_once_and_still_polled() {
    let world = world_of(|op| op.no_expiry().interval(6 * HOUR)).await;
    let mut events = world.poller.events();
    let id = world.waiting().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 502).always());
    world.sleep(100 * 24 * HOUR).await;
    let silences: Vec<_> = std::iter::from_fn(|| happened(&mut events))
        .filter_map(|event| match event {
            Event::Stale { id, silence } => Some((id, silence.as_secs() / 86_400)),
            _ => None,
        })
        .collect();
    assert_eq!(silences, [(id, 90)]);
    world.op.behave();
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
}

#[tokio::test]
async fn progress_is_in_the_status() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    let id = world.waiting().await;
    world.op.last_process().progress("step 2 of 3");
    world.sleep(12 * SECOND).await;
    world.restart().await;
    let status = world.poller.status(id).await.unwrap().unwrap();
    assert_eq!((status.state(), status.progress()), (State::Waiting, Some("step 2 of 3")));
    assert!(status.due_in().is_some_and(|due_in| due_in <= 6 * SECOND));
}

#[tokio::test]
async fn a_process_past_its_end_is_polled_once_and_then_expires() {
    let mut world = world_of(|op| op.expires_in(HOUR).decisions(DecisionPolicy::scripted())).await;
    world.waiting().await;
    world.poller.shutdown(Duration::ZERO).await;
    world.sleep(10 * HOUR).await;
    let polls = world.polls().len();
    world.restart().await;
    let delivery = world.outcome().await;
    let Outcome::Expired(expiry) = delivery.outcome() else { panic!("{delivery:?}") };
    assert!(expiry.is_confirmed());
    assert_eq!(world.polls().len(), polls + 1);
}

#[tokio::test]
async fn a_graceful_shutdown_waits_for_polls_in_flight() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::immediately())).await;
    let id = world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, 10 * SECOND).after_processing());
    world.sleep(7 * SECOND).await;
    assert_eq!(world.polls().len(), 1);
    let before = world.clock.monotonic();
    world.poller.shutdown(60 * SECOND).await;
    assert!(world.clock.monotonic() - before < 11 * SECOND);
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Answered);
    world.restart().await;
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
}

#[tokio::test]
async fn a_forgotten_sign_in_is_neither_polled_nor_delivered() {
    let world = world().await;
    let id = world.waiting().await;
    assert!(world.poller.forget(id).await.unwrap());
    let mut outcomes = world.poller.outcomes();
    tokio::select! {
        biased;
        delivery = outcomes.next() => panic!("{delivery:?}"),
        () = world.sleep(HOUR) => {}
    }
    assert!(world.polls().is_empty());
    assert!(world.poller.status(id).await.unwrap().is_none());
}

#[tokio::test]
async fn polling_continues_if_the_op_has_not_decided_although_the_clock_shows_the_end() {
    let world = world_with(
        |op| op.decisions(DecisionPolicy::scripted()),
        |client| client.final_poll_margin(None),
        |poller| poller,
    )
    .await;
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("expires_in".into(), 600.into());
    }));
    world.waiting().await;
    world.sleep(12 * SECOND).await;
    world.clock.jump_wall_forward(HOUR);
    world.sleep(HOUR).await;
    world.op.last_process().approve();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert!(world.polls().len() > 600, "{} polls in an hour", world.polls().len());
}

#[tokio::test]
async fn ten_polls_a_second_cost_about_one_store_call_each() {
    let world = crate::faulty_store::world_with(
        |op| op.no_expiry().decisions(DecisionPolicy::scripted()),
        |client| client.final_poll_margin(None),
    )
    .await;
    for _ in 0..50 {
        world.waiting().await;
        world.sleep(SECOND / 10).await;
    }
    world.op.misbehave(Fault::delay(Endpoint::Poll, SECOND / 50).always());
    world.sleep(60 * SECOND).await;
    let polls = world.polls();
    world.store.forget_calls();
    world.sleep(600 * SECOND).await;
    let (polls, works) = (world.polls() - polls, world.store.works());
    assert!(polls > 5_000, "{polls}");
    let claims: Vec<_> = works.iter().map(|work| work.claimed).collect();
    assert!(works.len() * 10 <= polls * 13, "{} calls for {polls} polls; {:?}", works.len(), &claims[..60]);
    let others = world.store.calls() - world.store.count("work");
    assert!(others < 700, "{others} other calls in ten minutes");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_single_sign_in_costs_at_most_three_store_calls_for_each_poll() {
    let world =
        crate::faulty_store::world_with(|op| op.no_expiry().decisions(DecisionPolicy::scripted()), |client| client)
            .await;
    world.waiting().await;
    world.sleep(60 * SECOND).await;
    let polls = world.polls();
    world.store.forget_calls();
    world.sleep(600 * SECOND).await;
    let (polls, works) = (world.polls() - polls, world.store.works().len());
    // One more call every ten seconds, to see what other replicas have done.
    assert!(polls > 100 && works <= 2 * polls + 61, "{works} calls for {polls} polls");
}
