//! DTR §Getting the Authentication Result.

use openid_deferred::error::Misuse;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Clock as _, ErrorKind, Outcome, Poll, WaitEvent};

use crate::support::{DAY, HOUR, assert_approved, seconds, undecided, world, world_with};

#[tokio::test]
async fn a_deferred_sign_in_ends_with_verified_claims() {
    let world = world().await;
    let Outcome::Approved(authentication) = world.outcome().await else { panic!("not approved") };
    assert_eq!(authentication.claims().subject(), "user-1");
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert!(authentication.is_sender_constrained());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_poll_carries_the_grant_type_and_the_deferred_auth_id_and_nothing_else() {
    let world = world_with(|op| op, |client| client.notification_token("for pings")).await;
    let mut pending = world.pending().await;
    assert_approved(&world.wait(&mut pending).await);
    for poll in world.polls() {
        let names: Vec<_> = poll.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["grant_type", "deferred_auth_id"]);
        assert_eq!(poll.parameter("grant_type"), Some("urn:openid:params:grant-type:deferred"));
        assert_eq!(poll.parameter("deferred_auth_id"), Some(pending.identifier().expose()));
    }
}

#[tokio::test]
async fn unknown_members_of_the_final_response_are_kept() {
    let world = world().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, |members| {
        members.insert("surprise".into(), serde_json::json!({ "deep": [1, null] }));
    }));
    let Outcome::Approved(authentication) = world.outcome().await else { panic!("not approved") };
    assert_eq!(authentication.extra("surprise"), Some(&serde_json::json!({ "deep": [1, null] })));
    assert_eq!(authentication.extra("access_token"), None);
}

#[tokio::test]
async fn a_poll_before_the_interval_has_passed_sends_nothing() {
    let world = world().await;
    let mut pending = world.pending().await;
    for _ in 0..3 {
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::NotDue { .. })));
    }
    let Ok(Poll::NotDue { due_in }) = world.client.poll(&mut pending).await else { panic!("the poll is due") };
    assert_eq!(pending.due_at(), world.clock.now() + due_in);
    assert!(world.polls().is_empty());
}

#[tokio::test]
async fn polls_keep_the_interval_for_three_weeks() {
    let world =
        world_with(|op| op.interval(HOUR).no_expiry().decisions(DecisionPolicy::after(DAY * 21)), |client| client)
            .await;
    assert_approved(&world.outcome().await);
    assert!(world.gaps().iter().all(|gap| (3_600.0..=3_630.0).contains(gap)));
    assert!(world.polls().len() > 21 * 86_400 / 3_630);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_description_of_a_pending_answer_is_the_progress() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    let process = world.op.last_process();
    process.progress("Waiting for the post office.\u{202e}\n");
    assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::Pending)));
    assert_eq!(pending.progress(), Some("Waiting for the post office."));
    process.progress("Almost done.");
    process.slow_down_next();
    assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::SlowDown)));
    assert_eq!(pending.progress(), Some("Almost done."));
    world.op.misbehave(Fault::error(Endpoint::Poll, "temporarily_unavailable"));
    world.poll_when_due(&mut pending).await.unwrap_err();
    assert_eq!(pending.progress(), Some("Almost done."), "what describes an error is no progress");
}

#[tokio::test]
async fn every_slow_down_adds_five_seconds_to_all_later_polls() {
    let world = world_with(|op| op.decisions(DecisionPolicy::after_polls(2)), |client| client).await;
    let mut pending = world.pending().await;
    let process = world.op.last_process();
    process.slow_down_next();
    let mut slow_downs = 0;
    let waiting = world.client.wait(&mut pending).on_event(|_, event| {
        if matches!(event, WaitEvent::SlowDown) {
            slow_downs += 1;
            if slow_downs < 3 {
                process.slow_down_next();
            }
        }
    });
    assert_approved(&waiting.await.unwrap());
    let least = [5.0, 10.0, 15.0, 20.0, 20.0, 20.0];
    let gaps = world.gaps();
    assert_eq!(gaps.len(), least.len());
    assert!(gaps.iter().zip(least).all(|(gap, least)| (least..=least * 1.1).contains(gap)), "{gaps:?}");
    world.op.assert_clean();
}

// Errors with which the OP ends the sign-in.

/// Returns the outcome after this error, and asserts that no request follows.
async fn ended_by(code: &str) -> Outcome {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::error(Endpoint::Poll, code));
    let outcome = world.wait(&mut pending).await;
    assert!(pending.has_ended());
    let error = world.client.poll(&mut pending).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NothingToPoll));
    assert_eq!(world.polls().len(), 1);
    outcome
}

#[tokio::test]
async fn access_denied_is_a_denial_with_its_reason_and_ends_polling() {
    let Outcome::Denied(denial) = ended_by("access_denied").await else { panic!("not denied") };
    assert_eq!(denial.description(), Some("as the test wanted it"));
}

#[tokio::test]
async fn expired_token_is_a_confirmed_expiry_and_ends_polling() {
    let Outcome::Expired(expiry) = ended_by("expired_token").await else { panic!("not expired") };
    assert!(expiry.is_confirmed());
}

#[tokio::test]
async fn invalid_grant_and_invalid_request_end_polling_and_are_not_denials() {
    for code in ["invalid_grant", "invalid_request"] {
        let Outcome::Failed(response) = ended_by(code).await else { panic!("not failed") };
        assert_eq!((response.code(), response.status()), (code, Some(400)));
    }
}

#[tokio::test]
async fn a_denial_by_the_reviewer_is_a_denial() {
    let world = world_with(|op| op.decisions(DecisionPolicy::after_polls(2).deny()), |client| client).await;
    assert!(matches!(world.outcome().await, Outcome::Denied(_)));
    assert_eq!(world.polls().len(), 3);
    world.op.assert_clean();
}

// Expiration.

#[tokio::test]
async fn the_final_poll_is_sent_five_seconds_before_the_end() {
    let world = world_with(
        |op| op.interval(seconds(60)).expires_in(seconds(100)).decisions(DecisionPolicy::after(seconds(94))),
        |client| client,
    )
    .await;
    assert_approved(&world.outcome().await);
    let gaps = world.gaps();
    assert_eq!(gaps.len(), 2);
    assert!((94.9..=95.1).contains(&(gaps[0] + gaps[1])), "{gaps:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn the_final_poll_is_made_in_spite_of_backoff() {
    let world = world_with(|op| op.expires_in(seconds(2_000)).decisions(DecisionPolicy::scripted()), |c| c).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::reset(Endpoint::Poll).always());
    let recovery = async {
        world.clock.sleep(seconds(1_900)).await;
        world.op.behave();
        world.op.last_process().approve();
    };
    let (outcome, ()) = tokio::join!(world.wait(&mut pending), recovery);
    assert_approved(&outcome);
    let last: f64 = world.gaps().iter().sum();
    assert!((1_994.9..=1_995.1).contains(&last), "{last}");
}

#[tokio::test]
async fn the_final_poll_can_be_turned_off_or_moved() {
    for (margin, expected) in [(None, None), (Some(seconds(20)), Some(80.0))] {
        let world = world_with(
            |op| op.interval(seconds(60)).expires_in(seconds(100)).decisions(DecisionPolicy::scripted()),
            |client| client.final_poll_margin(margin),
        )
        .await;
        assert!(matches!(world.outcome().await, Outcome::Expired(_)));
        let gaps = world.gaps();
        let second = gaps[0] + gaps[1];
        match expected {
            Some(expected) => assert!((expected..expected + 0.1).contains(&second), "{gaps:?}"),
            None => assert!(second >= 120.0, "{gaps:?}"),
        }
    }
}

#[tokio::test]
async fn expired_token_after_the_end_is_final() {
    let world =
        world_with(|op| op.expires_in(seconds(12)).decisions(DecisionPolicy::scripted()), |client| client).await;
    let Outcome::Expired(expiry) = world.outcome().await else { panic!("not expired") };
    assert!(expiry.is_confirmed());
    assert_eq!(world.polls().last().unwrap().error().as_deref(), Some("expired_token"));
    world.op.assert_clean();
}

#[tokio::test]
async fn polling_continues_at_the_interval_if_the_op_has_not_decided_after_the_end() {
    let world =
        world_with(|op| op.decisions(DecisionPolicy::scripted()), |client| client.final_poll_margin(None)).await;
    // The OP takes longer than it had announced.
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("expires_in".into(), 60.into());
    }));
    let mut pending = world.pending().await;
    let decision = async {
        world.clock.sleep(HOUR).await;
        world.op.last_process().approve();
    };
    let (outcome, ()) = tokio::join!(world.wait(&mut pending), decision);
    assert_approved(&outcome);
    let gaps = world.gaps();
    assert!(gaps.len() > 600, "{} polls in an hour", gaps.len());
    assert!(gaps.iter().all(|gap| (5.0..5.6).contains(gap)), "{gaps:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_wall_clock_that_is_set_forward_by_an_hour_ends_no_process() {
    for decides_after in [60, 700] {
        let world = undecided().await;
        world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
            members.insert("expires_in".into(), 600.into());
        }));
        let mut pending = world.pending().await;
        let decision = async {
            world.clock.sleep(seconds(12)).await;
            world.clock.jump_wall_forward(HOUR);
            world.clock.sleep(seconds(decides_after)).await;
            world.op.last_process().approve();
        };
        let (outcome, ()) = tokio::join!(world.wait(&mut pending), decision);
        assert_approved(&outcome);
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_while_the_op_is_down_ends_no_process() {
    let world = undecided().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("expires_in".into(), 7_200.into());
    }));
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).always());
    let recovery = async {
        world.clock.sleep(seconds(12)).await;
        world.clock.jump_wall_forward(HOUR * 3);
        world.clock.sleep(HOUR).await;
        world.op.behave();
        world.op.last_process().approve();
    };
    let (outcome, ()) = tokio::join!(world.wait(&mut pending), recovery);
    assert_approved(&outcome);
}

#[tokio::test]
async fn a_process_opened_long_after_its_end_is_polled_once_and_may_be_approved() {
    let world = undecided().await;
    // The OP keeps its decision for longer than it had announced.
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("expires_in".into(), 3_600.into());
    }));
    let mut pending = world.pending().await;
    world.op.last_process().approve();
    world.clock.advance(DAY * 2);
    assert_approved(&world.wait(&mut pending).await);
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn a_process_opened_long_after_its_end_expires_if_the_op_answers_expired_token() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.clock.advance(DAY * 60);
    let Outcome::Expired(expiry) = world.wait(&mut pending).await else { panic!("not expired") };
    assert!(expiry.is_confirmed());
    assert_eq!(world.polls().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_process_opened_long_after_its_end_is_polled_only_once_if_the_op_does_not_answer() {
    for code in ["temporarily_unavailable", "server_error"] {
        let fault = Fault::error(Endpoint::Poll, code);
        let world = undecided().await;
        let mut pending = world.pending().await;
        world.clock.advance(DAY * 60);
        world.op.misbehave(fault.always());
        let Outcome::Expired(expiry) = world.wait(&mut pending).await else { panic!("not expired") };
        assert!(!expiry.is_confirmed());
        assert_eq!(world.polls().len(), 1);
    }
}

#[tokio::test]
async fn a_process_without_expires_in_can_be_pending_for_ten_years() {
    let world = world_with(
        |op| op.interval(DAY * 30).no_expiry().decisions(DecisionPolicy::after(DAY * 3_652)),
        |client| client,
    )
    .await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

// Long polling.

#[tokio::test]
async fn a_long_poll_is_one_poll_and_the_interval_begins_at_its_answer() {
    let world =
        world_with(|op| op.long_polling(seconds(60)).decisions(DecisionPolicy::after(seconds(180))), |client| client)
            .await;
    let mut pending = world.pending().await;
    let started = world.clock.monotonic();
    assert_approved(&world.wait(&mut pending).await);
    assert_eq!((world.clock.monotonic() - started).as_secs(), 180, "the decision arrives when it is made");
    let gaps = world.gaps();
    assert_eq!(gaps.len(), 3);
    assert!(gaps[1..].iter().all(|gap| (65.0..=65.5).contains(gap)), "{gaps:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn polling_continues_after_a_long_poll_that_exceeds_the_poll_timeout() {
    let world = world_with(
        |op| op.long_polling(seconds(300)).decisions(DecisionPolicy::after(seconds(1_000))),
        |client| client.poll_timeout(seconds(30)),
    )
    .await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

// Invalid calls.

#[tokio::test]
async fn a_process_of_another_client_is_refused_before_any_request() {
    let world = world().await;
    let mut pending = world.pending().await;
    let foreign = openid_deferred::Client::builder(world.op.issuer(), "another-app")
        .redirect_uri("https://rp.test/callback")
        .http_client(world.op.http_client())
        .build()
        .unwrap();
    let error = foreign.poll(&mut pending).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
    assert!(world.polls().is_empty());
}
