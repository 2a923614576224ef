//! The OP sends a success only once: the outcome if that response was lost.

use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Clock as _, Outcome, Poll};

use crate::support::{
    HOUR, assert_approved, keyring, reopened, seconds, undecided, world, world_on_a_cable, world_with,
};

#[tokio::test]
async fn dropping_a_sleeping_wait_loses_nothing_and_keeps_the_interval() {
    let world = world().await;
    let mut pending = world.pending().await;
    let started = world.clock.monotonic();
    world.drop_wait_after(seconds(3), &mut pending).await;
    assert_eq!(world.clock.monotonic() - started, seconds(3), "dropping is prompt");
    assert!(world.polls().is_empty() && !pending.has_ended());
    assert_approved(&world.wait(&mut pending).await);
    assert!((5.0..=5.5).contains(&world.gaps()[0]), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn dropping_a_wait_during_a_request_is_prompt_and_keeps_the_interval() {
    let world = world().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll));
    let started = world.clock.monotonic();
    world.drop_wait_after(seconds(7), &mut pending).await;
    assert_eq!(world.clock.monotonic() - started, seconds(7), "dropping is prompt");
    assert_eq!(world.polls().len(), 1);
    assert_approved(&world.wait(&mut pending).await);
    assert!(world.gaps()[1] >= 5.0, "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_dropped_poll_continues_and_the_next_wait_gets_its_answer() {
    for absence in [seconds(0), seconds(5), HOUR] {
        let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
        let mut pending = world.pending().await;
        world.op.misbehave(Fault::delay(Endpoint::Poll, seconds(3)));
        world.drop_wait_after(seconds(6), &mut pending).await;
        assert_eq!(world.polls().len(), 1);
        world.clock.sleep(absence).await;
        assert_approved(&world.wait(&mut pending).await);
        assert_eq!(world.polls().len(), 1);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn the_next_poll_call_waits_for_a_request_in_flight_even_if_no_poll_is_due() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, seconds(30)));
    world.drop_wait_after(seconds(6), &mut pending).await;
    for _ in 0..3 {
        tokio::select! {
            biased;
            polled = world.client.poll(&mut pending) => panic!("it ended before it could be dropped: {polled:?}"),
            () = world.clock.sleep(seconds(2)) => {}
        }
    }
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    assert_eq!(world.polls().len(), 1);
    // The interval counts from the arrival of the answer.
    world.clock.sleep(seconds(2)).await;
    let Ok(Poll::NotDue { due_in }) = world.client.poll(&mut pending).await else { panic!("it is not due") };
    assert!(due_in <= seconds(4), "{due_in:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_terminal_answer_to_a_dropped_poll_ends_the_process() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, seconds(3)));
    world.op.last_process().deny();
    world.drop_wait_after(seconds(6), &mut pending).await;
    world.clock.sleep(HOUR).await;
    assert!(matches!(world.wait(&mut pending).await, Outcome::Denied(_)));
    assert_eq!(world.polls().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn invalid_grant_after_a_poll_interrupted_by_a_restart_is_an_unknown_outcome() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll));
    world.drop_wait_after(seconds(7), &mut pending).await;
    let mut pending = reopened(pending, &keyring());
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}

#[tokio::test]
async fn a_later_pending_answer_shows_that_an_interrupted_poll_lost_nothing() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll));
    world.drop_wait_after(seconds(7), &mut pending).await;
    let mut pending = reopened(pending, &keyring());
    // That request may be in flight for five minutes, and receive the success after this answer.
    assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::Pending)));
    world.clock.sleep(seconds(300)).await;
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    assert!(matches!(world.wait(&mut pending).await, Outcome::Failed(_)));
}

#[tokio::test]
async fn a_pending_answer_does_not_rule_out_a_lost_success_within_five_minutes_of_a_restart() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll));
    world.drop_wait_after(seconds(7), &mut pending).await;
    let mut pending = reopened(pending, &keyring());
    assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::Pending)));
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    assert!(matches!(world.wait(&mut pending).await, Outcome::Unknown));
}

/// Loses the success of the first poll like this, and returns the outcome.
async fn lost(fault: Fault, next: Option<&str>) -> Outcome {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    let mut pending = world.pending().await;
    world.op.misbehave(fault.after_success());
    if let Some(code) = next {
        world.op.misbehave(Fault::error(Endpoint::Poll, code).skip(1));
    }
    let outcome = world.wait(&mut pending).await;
    assert!(world.op.last_process().is_redeemed());
    assert_eq!(world.polls().len(), 2);
    outcome
}

#[tokio::test]
async fn invalid_grant_after_a_lost_success_is_an_unknown_outcome() {
    for fault in [
        Fault::reset(Endpoint::Poll),
        Fault::cut_body(Endpoint::Poll),
        Fault::stall(Endpoint::Poll),
        Fault::truncated_json(Endpoint::Poll),
        Fault::status(Endpoint::Poll, 502),
        Fault::response(Endpoint::Poll, 200, "text/html", "<html>please log in</html>"),
        Fault::response(Endpoint::Poll, 200, "application/json", "{}"),
        Fault::endless_body(Endpoint::Poll),
    ] {
        let name = format!("{fault:?}");
        let outcome = lost(fault, None).await;
        assert!(matches!(outcome, Outcome::Unknown), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_success_lost_behind_a_gateway_that_answers_in_json_is_an_unknown_outcome() {
    for (status, code) in [(504, "gateway_timeout"), (502, "bad_gateway"), (500, "server_error"), (408, "timeout")] {
        let outcome = lost(Fault::error_with_status(Endpoint::Poll, status, code), None).await;
        assert!(matches!(outcome, Outcome::Unknown), "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn expired_token_after_a_lost_success_is_an_unknown_outcome() {
    let outcome = lost(Fault::reset(Endpoint::Poll), Some("expired_token")).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}

#[tokio::test]
async fn invalid_grant_after_a_refused_connection_is_failed_and_not_unknown() {
    let (world, cable) = world_on_a_cable(|op| op).await;
    let mut pending = world.pending().await;
    cable.unplug();
    world.poll_when_due(&mut pending).await.unwrap_err();
    cable.plug_in();
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    assert!(matches!(world.wait(&mut pending).await, Outcome::Failed(_)));
}
