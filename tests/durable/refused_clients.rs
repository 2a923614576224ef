//! Failures that are not the user's fault do not end the user's sign-in.

use openid_deferred::ciba::UserHint;
use openid_deferred::poller::{Event, Limits};
use openid_deferred::store::State;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, RecordedRequest};
use openid_deferred::{Clock as _, Outcome};

use crate::support::{CLIENT_ID, HOUR, SECOND, happened, next, world, world_of, world_with};

#[tokio::test]
async fn a_refused_client_is_not_polled_and_its_sign_ins_wait() {
    let world = world().await;
    let mut events = world.poller.events();
    for _ in 0..10 {
        world.waiting().await;
    }
    world.op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client").always());
    world.sleep(24 * HOUR).await;
    let polls = world.polls().len();
    assert!((24..60).contains(&polls), "a probe an hour, not {polls} polls");
    let mut closed = 0;
    while let Some(event) = happened(&mut events) {
        closed += u32::from(matches!(event, Event::ClientRefused { .. }));
    }
    assert_eq!(closed, 1, "one alert is enough");
    assert!(world.poller.stats().await.unwrap()[0].is_refused);

    world.op.behave();
    world.poller.resume(world.op.issuer(), CLIENT_ID).unwrap();
    let mut outcomes = world.poller.outcomes();
    for _ in 0..10 {
        assert!(matches!(next(&mut outcomes).await.outcome(), Outcome::Approved(_)));
    }
}

#[tokio::test]
async fn a_refused_proof_or_scope_stops_polls_and_is_reported() {
    for code in ["invalid_dpop_proof", "invalid_scope"] {
        let world = world().await;
        let mut events = world.poller.events();
        for _ in 0..10 {
            world.waiting().await;
        }
        world.op.misbehave(Fault::error(Endpoint::Poll, code).always());
        world.sleep(24 * HOUR).await;
        let polls = world.polls().len();
        assert!((24..60).contains(&polls), "{code}: a probe an hour, not {polls} polls");
        let mut closed = Vec::new();
        while let Some(event) = happened(&mut events) {
            if let Event::ClientRefused { code, .. } = event {
                closed.push(code);
            }
        }
        assert_eq!(closed.iter().map(|code| &**code).collect::<Vec<_>>(), [code]);
        world.op.behave();
        world.poller.resume(world.op.issuer(), CLIENT_ID).unwrap();
        let mut outcomes = world.poller.outcomes();
        for _ in 0..10 {
            assert!(matches!(next(&mut outcomes).await.outcome(), Outcome::Approved(_)), "{code}");
        }
    }
}

#[tokio::test]
async fn polls_resume_when_a_probe_is_answered() {
    let world = world().await;
    world.waiting().await;
    world.op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client").times(3));
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(!world.poller.stats().await.unwrap()[0].is_refused);
    world.op.assert_clean();
}

#[tokio::test]
async fn invalid_request_for_every_process_trips_the_breaker_after_three() {
    let world = world_with(|op| op, |client| client, |poller| poller.limits(Limits::new().in_flight(1))).await;
    for _ in 0..10 {
        world.waiting().await;
    }
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_request").times(3));
    let mut outcomes = world.poller.outcomes();
    let (mut failed, mut approved) = (0, 0);
    for _ in 0..10 {
        let delivery = next(&mut outcomes).await;
        match delivery.outcome() {
            Outcome::Failed(_) => failed += 1,
            Outcome::Approved(_) => approved += 1,
            other => panic!("{other:?}"),
        }
        delivery.acknowledge().await.unwrap();
    }
    assert_eq!((failed, approved), (3, 7));
}

#[tokio::test]
async fn a_client_of_an_overloaded_op_pauses_for_five_minutes_and_then_sends_a_probe() {
    let world = world_with(|op| op, |client| client, |poller| poller.limits(Limits::new().in_flight(1))).await;
    for _ in 0..5 {
        world.waiting().await;
    }
    let mut events = world.poller.events();
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "600").times(2));
    world.sleep(290 * SECOND).await;
    assert_eq!(world.polls().len(), 1);
    let paused_for = world.poller.stats().await.unwrap()[0].paused_for.expect("it pauses");
    assert!(paused_for <= 30 * SECOND, "{paused_for:?}");
    world.sleep(300 * SECOND).await;
    assert_eq!(world.polls().len(), 2, "one probe");
    world.sleep(60 * SECOND).await;
    assert!(world.polls().len() > 5);
    assert_eq!(world.poller.stats().await.unwrap()[0].paused_for, None);
    let told: Vec<_> = std::iter::from_fn(|| happened(&mut events))
        .filter_map(|event| match event {
            Event::Paused { probe_in, retry_after, .. } => Some((probe_in.as_secs(), retry_after.as_secs())),
            Event::Resumed { .. } => Some((0, 0)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(300, 600), (0, 0)]);
    world.op.assert_clean();
}

#[tokio::test]
async fn repeated_pauses_of_a_second_are_reported_once_in_five_minutes() {
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    for _ in 0..5 {
        world.waiting().await;
    }
    let mut events = world.poller.events();
    let mut told = [0, 0];
    for _ in 0..300 {
        world.op.misbehave(Fault::status(Endpoint::Poll, 429).header("Retry-After", "1"));
        world.sleep(4 * SECOND).await;
        while let Some(event) = happened(&mut events) {
            told[0] += u32::from(matches!(event, Event::Paused { .. }));
            told[1] += u32::from(matches!(event, Event::Resumed { .. }));
        }
    }
    assert!((2..=5).contains(&told[0]) && told[1] <= told[0], "{told:?} in 20 minutes");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_retry_after_of_a_day_does_not_let_sign_ins_expire() {
    let world = world_with(
        |op| op.interval(60 * SECOND).expires_in(3 * HOUR).decisions(DecisionPolicy::after(HOUR)),
        |client| client,
        |poller| poller.limits(Limits::new().in_flight(1)),
    )
    .await;
    for _ in 0..20 {
        world.waiting().await;
    }
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "86400"));
    let mut outcomes = world.poller.outcomes();
    for _ in 0..20 {
        let delivery = next(&mut outcomes).await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    let (first, polls) = (world.polls()[0].clone(), world.polls());
    let of_first = |poll: &&RecordedRequest| poll.parameter("deferred_auth_id") == first.parameter("deferred_auth_id");
    let times: Vec<_> = polls.iter().filter(of_first).map(|poll| poll.arrived).collect();
    assert_eq!(times.len(), 2, "the value holds for the one that got it, until shortly before its end: {times:?}");
    assert!(times[1] - times[0] > 2 * HOUR);
    world.op.assert_clean();
}

/// A sign-in that ends without a request is not a probe.
#[tokio::test]
async fn a_paused_client_sends_its_probes_although_processes_end() {
    let world = world_of(|op| op.expires_in(300 * SECOND).decisions(DecisionPolicy::scripted())).await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "60").always());
    for _ in 0..5 {
        world.waiting().await;
        world.sleep(150 * SECOND).await;
    }
    let polls: Vec<_> = world.polls().iter().map(|poll| poll.arrived).collect();
    let pauses: Vec<_> = polls.windows(2).map(|polls| polls[1] - polls[0]).collect();
    assert!(pauses.len() > 10 && pauses.iter().all(|pause| *pause < 70 * SECOND), "{pauses:?}");
}

#[tokio::test]
async fn resuming_a_client_ends_its_pause() {
    let world = world_with(|op| op, |client| client, |poller| poller.limits(Limits::new().in_flight(1))).await;
    for _ in 0..5 {
        world.waiting().await;
    }
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "600"));
    world.sleep(60 * SECOND).await;
    assert_eq!(world.polls().len(), 1);
    world.poller.resume(world.op.issuer(), CLIENT_ID).unwrap();
    world.sleep(SECOND).await;
    assert_eq!(world.polls().len(), 5, "all but the one that was turned away");
    world.op.assert_clean();
}

#[tokio::test]
async fn stored_successes_are_verified_despite_a_refused_client_a_pause_and_a_rate_limit() {
    let limits = Limits::new().in_flight(1).rate(1, 60 * SECOND);
    for (fault, limits) in [
        (Fault::error_with_status(Endpoint::Poll, 401, "invalid_client"), Limits::new().in_flight(1)),
        (Fault::status(Endpoint::Poll, 503).header("Retry-After", "86400"), Limits::new().in_flight(1)),
        (Fault::status(Endpoint::Poll, 503), limits),
    ] {
        let world = world_with(|op| op, |client| client, |poller| poller.limits(limits)).await;
        world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(world.waiting().await);
        }
        for id in &ids {
            while world.poller.status(*id).await.unwrap().unwrap().state() != State::Answered {
                world.sleep(SECOND).await;
            }
        }
        world.op.behave();
        world.op.misbehave(fault.always());
        for _ in 0..5 {
            world.waiting().await;
        }
        world.sleep(20 * SECOND).await;
        let mut outcomes = world.poller.outcomes();
        for _ in 0..10 {
            let delivery = tokio::select! {
                biased;
                delivery = next(&mut outcomes) => delivery,
                () = world.sleep(11 * 60 * SECOND) => panic!("a success waits behind the polls"),
            };
            assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
            delivery.acknowledge().await.unwrap();
        }
    }
}

#[tokio::test]
async fn lost_answers_do_not_stop_polls_of_other_sign_ins() {
    const LOST: usize = 100;
    let world = world_of(|op| op.interval(60 * SECOND).no_expiry().decisions(DecisionPolicy::immediately())).await;
    for _ in 0..LOST {
        world.waiting().await;
    }
    // For some time a proxy drops the OP's answers, which are successes.
    world.op.misbehave(Fault::reset(Endpoint::Poll).after_processing().always());
    world.sleep(100 * SECOND).await;
    world.op.behave();
    let mut events = world.poller.events();
    let id = world.waiting().await;
    let since = world.clock.monotonic();
    let mut outcomes = world.poller.outcomes();
    let mut unknown = 0;
    loop {
        let delivery = next(&mut outcomes).await;
        delivery.acknowledge().await.unwrap();
        if delivery.id() == id {
            assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
            break;
        }
        assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
        unknown += 1;
    }
    assert!(unknown > LOST / 2, "the answers of {unknown} were lost");
    assert!(world.clock.monotonic() - since < 10 * 60 * SECOND, "a user who came later is not delayed");
    while let Some(event) = happened(&mut events) {
        assert!(!matches!(event, Event::ClientRefused { .. }), "{event:?}");
    }
}

/// An OP that forgets expired requests answers `invalid_grant` where others answer `expired_token`.
#[tokio::test]
async fn invalid_grant_for_expired_sign_ins_does_not_stop_polls_of_others() {
    let world = world_of(|op| op.ciba().expires_in(120 * SECOND).decisions(DecisionPolicy::scripted())).await;
    world.op.misbehave(Fault::edit_any_json(Endpoint::Poll, forgets_expired).always());
    let ask = || world.client.backchannel_authentication(UserHint::login_hint("user-1"));
    for _ in 0..20 {
        let _ = world.poller.request_authentication(ask()).await.expect("the OP asks the user");
    }
    let mut events = world.poller.events();
    world.sleep(300 * SECOND).await;
    let mut outcomes = world.poller.outcomes();
    for _ in 0..20 {
        let delivery = tokio::select! {
            biased;
            delivery = next(&mut outcomes) => delivery,
            () = world.sleep(60 * SECOND) => panic!("sign-ins that have expired wait for a probe"),
        };
        assert!(matches!(delivery.outcome(), Outcome::Failed(_)), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    let _ = world.poller.request_authentication(ask()).await.expect("the OP asks the user");
    world.op.last_process().approve();
    let delivery = next(&mut outcomes).await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    while let Some(event) = happened(&mut events) {
        assert!(!matches!(event, Event::ClientRefused { .. }), "{event:?}");
    }
}

fn forgets_expired(members: &mut serde_json::Map<String, serde_json::Value>) {
    if members.get("error").is_some_and(|code| code == "expired_token") {
        members.insert("error".into(), "invalid_grant".into());
    }
}

/// The OP refuses the client for a real reason, and sign-ins that expired meanwhile say nothing about it.
#[tokio::test]
async fn polls_resume_although_the_sign_ins_of_the_probes_have_expired() {
    let world = world_with(
        |op| op.ciba().expires_in(50 * SECOND).decisions(DecisionPolicy::scripted()),
        |client| client,
        |poller| poller.limits(Limits::new().in_flight(1)),
    )
    .await;
    let ask = || world.client.backchannel_authentication(UserHint::login_hint("user-1"));
    for _ in 0..20 {
        let _ = world.poller.request_authentication(ask()).await.expect("the OP asks the user");
    }
    // The OP has lost what it knew of the first three.
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant").times(3));
    world.op.misbehave(Fault::edit_any_json(Endpoint::Poll, forgets_expired).always());
    world.sleep(10 * SECOND).await;
    assert!(world.poller.stats().await.unwrap()[0].is_refused);
    // One user after the other comes, and confirms at once.
    let mut approved = 0;
    let mut outcomes = world.poller.outcomes();
    for _ in 0..10 {
        let _ = world.poller.request_authentication(ask()).await.expect("the OP asks the user");
        world.op.last_process().approve();
        let end = world.clock.monotonic() + 120 * SECOND;
        while world.clock.monotonic() < end {
            tokio::select! {
                biased;
                delivery = next(&mut outcomes) => {
                    approved += u32::from(matches!(delivery.outcome(), Outcome::Approved(_)));
                    delivery.acknowledge().await.unwrap();
                }
                () = world.sleep(end - world.clock.monotonic()) => {}
            }
        }
    }
    assert!(approved >= 9, "{approved} of 10 users were signed in");
    assert!(!world.poller.stats().await.unwrap()[0].is_refused);
}
