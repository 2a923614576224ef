//! DTR §Getting the Authentication Result.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use http::HeaderValue;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, NoncePolicy, SeededRandom, TestClock};
use openid_deferred::{
    Clock as _, ErrorKind, HttpClient, HttpError, HttpRequest, HttpResponse, Misuse, Outcome, PendingAuthentication,
    Poll, Random, Rule, TransportProblem, WaitEvent,
};

use crate::support::{World, client_of, provider, world, world_with};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A provider that decides when the test says so.
async fn undecided() -> World {
    world_with(|op| op.decisions(DecisionPolicy::scripted()), |client| client).await
}

/// A provider that decides so long after the exchange.
async fn decided_after(time: Duration) -> World {
    world_with(|op| op.decisions(DecisionPolicy::after(time)), |client| client).await
}

async fn wait(world: &World, pending: &mut PendingAuthentication) -> Outcome {
    world.client.wait(pending).await.expect("waiting ends with an outcome")
}

/// Runs `future` for at most this long on the world's clock, then drops it.
async fn dropped_after<T>(world: &World, time: Duration, future: impl IntoFuture<Output = T>) {
    tokio::select! {
        biased;
        _ = future.into_future() => panic!("it ended before it could be dropped"),
        () = world.clock.sleep(time) => {}
    }
}

/// Polls once, when the next poll is due.
async fn poll_when_due(world: &World, pending: &mut PendingAuthentication) -> Result<Poll, openid_deferred::Error> {
    match world.client.poll(pending).await {
        Ok(Poll::NotDue { due_in }) => {
            world.clock.sleep(due_in).await;
            world.client.poll(pending).await
        }
        polled => panic!("a poll was due at once: {polled:?}"),
    }
}

#[track_caller]
fn assert_approved(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
}

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
async fn a_poll_before_the_interval_has_passed_sends_nothing() {
    let world = world().await;
    let mut pending = world.pending().await;
    for _ in 0..3 {
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::NotDue { .. })));
    }
    assert_eq!(pending.due_at(), world.clock.now() + due_in(&world, &mut pending).await);
    assert!(world.polls().is_empty());
}

async fn due_in(world: &World, pending: &mut PendingAuthentication) -> Duration {
    let Ok(Poll::NotDue { due_in }) = world.client.poll(pending).await else { panic!("the poll is due") };
    due_in
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
async fn what_the_op_says_while_pending_is_progress() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    let process = world.op.last_process();
    process.progress("Waiting for the post office.\u{202e}\n");
    assert!(matches!(poll_when_due(&world, &mut pending).await, Ok(Poll::Pending)));
    assert_eq!(pending.progress(), Some("Waiting for the post office."));
    process.progress("Almost done.");
    process.slow_down_next();
    assert!(matches!(poll_when_due(&world, &mut pending).await, Ok(Poll::SlowDown)));
    assert_eq!(pending.progress(), Some("Almost done."));
    world.op.misbehave(Fault::error(Endpoint::Poll, "temporarily_unavailable"));
    poll_when_due(&world, &mut pending).await.unwrap_err();
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

// The OP says that it is over.

/// The outcome after this error, and that nothing is asked after it.
async fn ended_by(code: &str) -> Outcome {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::error(Endpoint::Poll, code));
    let outcome = wait(&world, &mut pending).await;
    assert!(pending.has_ended());
    let error = world.client.poll(&mut pending).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NothingToPoll));
    assert_eq!(world.polls().len(), 1);
    outcome
}

#[tokio::test]
async fn access_denied_is_a_denial_with_its_reason_and_stops_for_good() {
    let Outcome::Denied(denial) = ended_by("access_denied").await else { panic!("not denied") };
    assert_eq!(denial.description(), Some("as the test wanted it"));
}

#[tokio::test]
async fn expired_token_is_a_confirmed_expiry_and_stops_for_good() {
    let Outcome::Expired(expiry) = ended_by("expired_token").await else { panic!("not expired") };
    assert!(expiry.is_confirmed());
}

#[tokio::test]
async fn invalid_grant_and_invalid_request_stop_for_good_and_are_no_denial() {
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

// Trouble passes.

/// The OP's polls go wrong like this for a day, during which it decides; then it is well again.
async fn is_survived_for_a_day(fault: Fault) {
    let world = decided_after(HOUR).await;
    let mut pending = world.pending().await;
    world.op.misbehave(fault.always());
    let mut troubles = 0;
    let waiting = world.client.wait(&mut pending).on_event(|_, event| {
        if let WaitEvent::Trouble(error) = event {
            assert!(error.is_transient(), "{error:?}");
            troubles += 1;
        }
    });
    let recovery = async {
        world.clock.sleep(DAY).await;
        world.op.behave();
    };
    let (outcome, ()) = tokio::join!(waiting.into_future(), recovery);
    assert_approved(&outcome.unwrap());
    // Doubling from 5 s to an hour, then hourly.
    assert!((30..=40).contains(&troubles), "{troubles}");
    assert_eq!(world.polls().len(), troubles + 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_op_behind_a_broken_proxy_for_a_day_is_survived() {
    is_survived_for_a_day(Fault::status(Endpoint::Poll, 502)).await;
}

#[tokio::test]
async fn an_overloaded_op_is_survived() {
    is_survived_for_a_day(Fault::status(Endpoint::Poll, 503)).await;
    is_survived_for_a_day(Fault::error_with_status(Endpoint::Poll, 429, "too_many_requests")).await;
}

#[tokio::test]
async fn connections_that_are_reset_for_a_day_are_survived() {
    is_survived_for_a_day(Fault::reset(Endpoint::Poll)).await;
}

#[tokio::test]
async fn polls_that_time_out_for_a_day_are_survived() {
    is_survived_for_a_day(Fault::stall(Endpoint::Poll)).await;
}

#[tokio::test]
async fn html_with_status_200_for_a_day_is_survived() {
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "text/html", "<html>please log in</html>")).await;
}

#[tokio::test]
async fn truncated_json_for_a_day_is_survived() {
    let half = r#"{"access_token":"abc","id_tok"#;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "application/json", half)).await;
    let half = r#"{"error":"authorization_pe"#;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 400, "application/json", half)).await;
}

#[tokio::test]
async fn json_with_status_200_that_is_no_token_response_is_survived() {
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "application/json", r#"{"status":"ok"}"#)).await;
}

#[tokio::test]
async fn redirects_are_survived_and_never_followed() {
    is_survived_for_a_day(Fault::redirect(Endpoint::Poll, "https://op.test/elsewhere")).await;
}

#[tokio::test]
async fn a_404_201_or_empty_body_is_survived() {
    is_survived_for_a_day(Fault::status(Endpoint::Poll, 404)).await;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 201, "application/json", "{}")).await;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "application/json", "")).await;
}

#[tokio::test]
async fn server_error_temporarily_unavailable_and_unknown_errors_are_survived() {
    for code in ["server_error", "temporarily_unavailable", "interaction_required_by_committee"] {
        is_survived_for_a_day(Fault::error(Endpoint::Poll, code)).await;
    }
}

#[tokio::test]
async fn terminal_errors_made_up_by_a_gateway_end_nothing() {
    for status in [404, 429, 500, 502, 503] {
        is_survived_for_a_day(Fault::error_with_status(Endpoint::Poll, status, "invalid_request")).await;
    }
}

#[tokio::test]
async fn bodies_that_are_huge_endless_or_bombs_are_survived() {
    is_survived_for_a_day(Fault::huge_body(Endpoint::Poll, 2 * 1024 * 1024)).await;
    is_survived_for_a_day(Fault::gzip_bomb(Endpoint::Poll, 20 * 1024 * 1024)).await;
    is_survived_for_a_day(Fault::endless_body(Endpoint::Poll)).await;
}

/// A network that can be unplugged: no connection comes about.
#[derive(Debug)]
struct Cable {
    network: Arc<dyn HttpClient>,
    unplugged: AtomicBool,
}

impl HttpClient for Cable {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        match self.unplugged.load(Ordering::Relaxed) {
            true => Box::pin(async { Err(HttpError::not_sent(TransportProblem::Connect)) }),
            false => self.network.send(request),
        }
    }
}

#[tokio::test]
async fn an_op_that_nobody_can_connect_to_for_a_day_is_survived() {
    let clock = TestClock::automatic();
    let op = provider(&clock).decisions(DecisionPolicy::after(HOUR)).start().unwrap();
    let cable = Arc::new(Cable { network: op.http_client(), unplugged: AtomicBool::new(false) });
    let client = client_of(&op, &clock).http_client(cable.clone()).discover().await.unwrap();
    let world = World { op, clock, client };
    let mut pending = world.pending().await;
    cable.unplugged.store(true, Ordering::Relaxed);
    let recovery = async {
        world.clock.sleep(DAY).await;
        cable.unplugged.store(false, Ordering::Relaxed);
    };
    let (outcome, ()) = tokio::join!(wait(&world, &mut pending), recovery);
    assert_approved(&outcome);
    assert_eq!(world.polls().len(), 1);
}

/// A source of randomness that can dry up.
#[derive(Debug)]
struct Well {
    source: SeededRandom,
    dry: AtomicBool,
}

impl Random for Well {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), openid_deferred::Error> {
        match self.dry.load(Ordering::Relaxed) {
            // Any error will do: applications cannot make one of `ErrorKind::Randomness`.
            true => Err(TransportProblem::Refused.into()),
            false => self.source.fill(bytes),
        }
    }
}

#[tokio::test]
async fn a_source_of_randomness_that_fails_for_a_while_is_waited_for_and_not_hammered() {
    let clock = TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    let well = Arc::new(Well { source: SeededRandom::new(2), dry: AtomicBool::new(false) });
    let client = client_of(&op, &clock).random(well.clone()).discover().await.unwrap();
    let world = World { op, clock, client };
    let mut pending = world.pending().await;
    well.dry.store(true, Ordering::Relaxed);
    let recovery = async {
        world.clock.sleep(HOUR).await;
        well.dry.store(false, Ordering::Relaxed);
    };
    let mut troubles = 0;
    let waiting = world.client.wait(&mut pending).on_event(|_, event| {
        troubles += usize::from(matches!(event, WaitEvent::Trouble(_)));
        assert!(troubles < 100, "it is hammered");
    });
    let (outcome, ()) = tokio::join!(waiting.into_future(), recovery);
    assert_approved(&outcome.unwrap());
    world.op.assert_clean();
}

// Retry-After.

/// How long after the first poll, which this fault strikes, the second one comes.
async fn pause_after(fault: Fault) -> f64 {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(fault);
    for _ in 0..2 {
        // The first one is the fault's; what comes of the second does not matter.
        let _ = poll_when_due(&world, &mut pending).await;
    }
    world.op.assert_clean();
    world.gaps()[1]
}

fn unavailable(status: u16, retry_after: &str) -> Fault {
    Fault::status(Endpoint::Poll, status).header("Retry-After", retry_after)
}

#[tokio::test]
async fn retry_after_in_seconds_is_honoured_with_503_and_429() {
    for status in [503, 429] {
        let pause = pause_after(unavailable(status, "120")).await;
        assert!((120.0..121.0).contains(&pause), "{pause}");
    }
}

#[tokio::test]
async fn retry_after_as_a_date_is_honoured() {
    // The test's clock starts at midnight, and the first poll goes out after five seconds.
    let pause = pause_after(unavailable(503, "Thu, 01 Jan 2026 00:10:00 GMT")).await;
    assert!((593.0..=595.0).contains(&pause), "{pause}");
}

#[tokio::test]
async fn retry_after_that_is_shorter_than_the_interval_or_junk_changes_nothing() {
    for value in ["0", "1", "soon", "-5", "1.5", "Thu, 99 Jan 2026 00:10:00 GMT", ""] {
        let pause = pause_after(unavailable(503, value)).await;
        assert!((5.0..=5.5).contains(&pause), "{value}: {pause}");
    }
}

#[tokio::test]
async fn retry_after_that_is_years_away_is_capped_at_a_day() {
    for value in ["999999999", "99999999999999999999999999", "Thu, 01 Jan 2099 00:00:00 GMT"] {
        let pause = pause_after(unavailable(503, value)).await;
        assert!((86_400.0..=86_401.0).contains(&pause), "{value}: {pause}");
    }
}

#[tokio::test]
async fn retry_after_beside_authorization_pending_is_honoured() {
    let pause = pause_after(Fault::edit_headers(Endpoint::Poll, |headers| {
        headers.insert("retry-after", HeaderValue::from_static("40"));
    }))
    .await;
    assert!((40.0..41.0).contains(&pause), "{pause}");
}

// Our own mistake.

#[tokio::test]
async fn our_own_mistake_in_mid_process_is_an_error_and_the_process_lives() {
    for (status, code) in [
        (401, "invalid_client"),
        (400, "unauthorized_client"),
        (400, "unsupported_grant_type"),
        (400, "invalid_scope"),
        (400, "invalid_dpop_proof"),
    ] {
        let world = world().await;
        let mut pending = world.pending().await;
        world.op.misbehave(Fault::error_with_status(Endpoint::Poll, status, code));
        let error = world.client.wait(&mut pending).await.unwrap_err();
        assert_eq!(error.error_response().unwrap().code(), code);
        assert!(!error.is_transient() && !pending.has_ended());
        // Its administrator has put the registration right.
        assert_approved(&wait(&world, &mut pending).await);
        assert!(world.gaps().iter().all(|gap| *gap >= 5.0), "{:?}", world.gaps());
        world.op.assert_clean();
    }
}

// The end of the time.

#[tokio::test]
async fn the_final_poll_goes_out_five_seconds_before_the_end() {
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
    let (outcome, ()) = tokio::join!(wait(&world, &mut pending), recovery);
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
async fn an_op_that_says_expired_token_after_the_end_is_believed_and_not_asked_again() {
    let world =
        world_with(|op| op.expires_in(seconds(12)).decisions(DecisionPolicy::scripted()), |client| client).await;
    let Outcome::Expired(expiry) = world.outcome().await else { panic!("not expired") };
    assert!(expiry.is_confirmed());
    assert_eq!(world.polls().last().unwrap().error().as_deref(), Some("expired_token"));
    world.op.assert_clean();
}

#[tokio::test]
async fn after_the_end_at_most_one_poll_is_made_even_if_the_op_stays_undecided() {
    let world =
        world_with(|op| op.expires_in(seconds(60)).decisions(DecisionPolicy::scripted()), |client| client).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::error(Endpoint::Poll, "authorization_pending").always());
    let Outcome::Expired(expiry) = wait(&world, &mut pending).await else { panic!("not expired") };
    assert!(!expiry.is_confirmed());
    let exchange = world.op.requests_to(Endpoint::Exchange)[0].arrived;
    let late = world.polls().iter().filter(|poll| poll.arrived >= exchange + seconds(60)).count();
    assert_eq!(late, 1);
}

#[tokio::test]
async fn a_process_found_long_after_its_end_is_asked_once_and_may_have_been_approved() {
    let world = undecided().await;
    // The OP keeps its decision for longer than it had promised.
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("expires_in".into(), 3_600.into());
    }));
    let mut pending = world.pending().await;
    world.op.last_process().approve();
    world.clock.advance(DAY * 2);
    assert_approved(&wait(&world, &mut pending).await);
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn a_process_found_long_after_its_end_whose_op_answers_expired_token_is_expired() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.clock.advance(DAY * 60);
    let Outcome::Expired(expiry) = wait(&world, &mut pending).await else { panic!("not expired") };
    assert!(expiry.is_confirmed());
    assert_eq!(world.polls().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_process_found_long_after_its_end_is_asked_only_once_whatever_comes_back() {
    for fault in [Fault::error(Endpoint::Poll, "authorization_pending"), Fault::error(Endpoint::Poll, "server_error")] {
        let world = undecided().await;
        let mut pending = world.pending().await;
        world.clock.advance(DAY * 60);
        world.op.misbehave(fault.always());
        let Outcome::Expired(expiry) = wait(&world, &mut pending).await else { panic!("not expired") };
        assert!(!expiry.is_confirmed());
        assert_eq!(world.polls().len(), 1);
    }
}

#[tokio::test]
async fn a_process_without_expires_in_is_waited_for_for_ten_years() {
    let world = world_with(
        |op| op.interval(DAY * 30).no_expiry().decisions(DecisionPolicy::after(DAY * 3_652)),
        |client| client,
    )
    .await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

// Dropping and losing.

#[tokio::test]
async fn dropping_the_wait_in_its_sleep_loses_nothing_and_keeps_the_interval() {
    let world = world().await;
    let mut pending = world.pending().await;
    let started = world.clock.monotonic();
    dropped_after(&world, seconds(3), world.client.wait(&mut pending)).await;
    assert_eq!(world.clock.monotonic() - started, seconds(3), "dropping is prompt");
    assert!(world.polls().is_empty() && !pending.has_ended());
    assert_approved(&wait(&world, &mut pending).await);
    assert!((5.0..=5.5).contains(&world.gaps()[0]), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn dropping_the_wait_in_mid_request_is_prompt_and_keeps_the_interval() {
    let world = world().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll));
    let started = world.clock.monotonic();
    dropped_after(&world, seconds(7), world.client.wait(&mut pending)).await;
    assert_eq!(world.clock.monotonic() - started, seconds(7), "dropping is prompt");
    assert_eq!(world.polls().len(), 1);
    assert_approved(&wait(&world, &mut pending).await);
    assert!(world.gaps()[1] >= 5.0, "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn invalid_grant_after_a_poll_that_was_dropped_in_mid_request_is_an_unknown_outcome() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll));
    dropped_after(&world, seconds(7), world.client.wait(&mut pending)).await;
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    let outcome = wait(&world, &mut pending).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}

#[tokio::test]
async fn an_open_process_shows_that_a_dropped_poll_lost_nothing() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll));
    dropped_after(&world, seconds(7), world.client.wait(&mut pending)).await;
    assert!(matches!(poll_when_due(&world, &mut pending).await, Ok(Poll::Pending)));
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    assert!(matches!(wait(&world, &mut pending).await, Outcome::Failed(_)));
}

/// The success of the first poll is lost like this.
async fn lost(fault: Fault, next: Option<&str>) -> Outcome {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    let mut pending = world.pending().await;
    world.op.misbehave(fault.after_success());
    if let Some(code) = next {
        world.op.misbehave(Fault::error(Endpoint::Poll, code).skip(1));
    }
    let outcome = wait(&world, &mut pending).await;
    assert!(world.op.last_process().is_redeemed());
    assert_eq!(world.polls().len(), 2);
    outcome
}

#[tokio::test]
async fn a_success_that_was_lost_on_its_way_followed_by_invalid_grant_is_an_unknown_outcome() {
    for fault in [
        Fault::reset(Endpoint::Poll),
        Fault::cut_body(Endpoint::Poll),
        Fault::stall(Endpoint::Poll),
        Fault::truncated_json(Endpoint::Poll),
        Fault::status(Endpoint::Poll, 502),
        Fault::redirect(Endpoint::Poll, "https://op.test/elsewhere"),
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
async fn a_success_that_was_lost_behind_a_gateway_which_answers_in_json_is_an_unknown_outcome() {
    for (status, code) in [(504, "gateway_timeout"), (502, "bad_gateway"), (500, "server_error"), (408, "timeout")] {
        let outcome = lost(Fault::error_with_status(Endpoint::Poll, status, code), None).await;
        assert!(matches!(outcome, Outcome::Unknown), "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_success_that_was_lost_on_its_way_followed_by_expired_token_is_an_unknown_outcome() {
    let outcome = lost(Fault::reset(Endpoint::Poll), Some("expired_token")).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}

#[tokio::test]
async fn a_refused_connection_loses_nothing_so_invalid_grant_after_it_is_no_doubt() {
    let clock = TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    let cable = Arc::new(Cable { network: op.http_client(), unplugged: AtomicBool::new(false) });
    let client = client_of(&op, &clock).http_client(cable.clone()).discover().await.unwrap();
    let world = World { op, clock, client };
    let mut pending = world.pending().await;
    cable.unplugged.store(true, Ordering::Relaxed);
    poll_when_due(&world, &mut pending).await.unwrap_err();
    cable.unplugged.store(false, Ordering::Relaxed);
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    assert!(matches!(wait(&world, &mut pending).await, Outcome::Failed(_)));
}

// Long polling.

#[tokio::test]
async fn an_answer_that_is_held_is_one_poll_and_the_interval_runs_from_its_end() {
    let world =
        world_with(|op| op.long_polling(seconds(60)).decisions(DecisionPolicy::after(seconds(200))), |client| client)
            .await;
    let mut pending = world.pending().await;
    let started = world.clock.monotonic();
    assert_approved(&wait(&world, &mut pending).await);
    assert_eq!((world.clock.monotonic() - started).as_secs(), 200, "the decision arrives when it is made");
    let gaps = world.gaps();
    assert_eq!(gaps.len(), 4);
    assert!(gaps[1..].iter().all(|gap| (65.0..=65.5).contains(gap)), "{gaps:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn an_answer_that_is_held_for_longer_than_the_poll_timeout_is_survived() {
    let world = world_with(
        |op| op.long_polling(seconds(300)).decisions(DecisionPolicy::after(seconds(1_000))),
        |client| client.poll_timeout(seconds(30)),
    )
    .await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

// Calls that cannot be right.

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
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::ForeignValue));
    assert!(world.polls().is_empty());
}

#[tokio::test]
async fn a_second_nonce_challenge_is_trouble_and_passes() {
    let world = world_with(|op| op.dpop_nonces(NoncePolicy::Required), |client| client).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::forget_nonces(Endpoint::Poll).times(2));
    let error = poll_when_due(&world, &mut pending).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::SecondNonceChallenge));
    assert!(error.is_transient());
    assert_approved(&wait(&world, &mut pending).await);
    world.op.assert_clean();
}
