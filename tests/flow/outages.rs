//! Temporary failures: outages of the OP and of the network, and the client's own mistakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;
use openid_deferred::error::Rule;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, NoncePolicy, SeededRandom, TestClock};
use openid_deferred::{Clock as _, Random, WaitEvent};

use crate::support::{
    DAY, HOUR, World, assert_approved, client_of, decided_after, provider, undecided, world, world_on_a_cable,
    world_with,
};
/// Asserts that a sign-in survives a day with this fault in all polls. The OP decides during that day.
async fn is_survived_for_a_day(fault: Fault) {
    let world = decided_after(HOUR).await;
    let mut pending = world.pending().await;
    world.op.misbehave(fault.always());
    let mut troubles = 0;
    let waiting = world.client.wait(&mut pending).on_event(|_, event| {
        if let WaitEvent::TransientError { error } = event {
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
    // The pauses double from 5 s to an hour, and then stay at an hour.
    assert!((30..=40).contains(&troubles), "{troubles}");
    assert_eq!(world.polls().len(), troubles + 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_sign_in_survives_a_broken_proxy_for_a_day() {
    is_survived_for_a_day(Fault::status(Endpoint::Poll, 502)).await;
}

#[tokio::test]
async fn a_sign_in_survives_an_overloaded_op() {
    is_survived_for_a_day(Fault::status(Endpoint::Poll, 503)).await;
    is_survived_for_a_day(Fault::error_with_status(Endpoint::Poll, 429, "too_many_requests")).await;
}

#[tokio::test]
async fn a_sign_in_survives_connection_resets_for_a_day() {
    is_survived_for_a_day(Fault::reset(Endpoint::Poll)).await;
}

#[tokio::test]
async fn a_sign_in_survives_timeouts_for_a_day() {
    is_survived_for_a_day(Fault::stall(Endpoint::Poll)).await;
}

#[tokio::test]
async fn a_sign_in_survives_html_with_status_200_for_a_day() {
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "text/html", "<html>please log in</html>")).await;
}

#[tokio::test]
async fn a_sign_in_survives_truncated_json_for_a_day() {
    let half = r#"{"access_token":"abc","id_tok"#;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "application/json", half)).await;
    let half = r#"{"error":"authorization_pe"#;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 400, "application/json", half)).await;
}

#[tokio::test]
async fn a_sign_in_survives_json_that_is_not_a_token_response() {
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "application/json", r#"{"status":"ok"}"#)).await;
}

#[tokio::test]
async fn a_sign_in_survives_redirects_which_are_never_followed() {
    is_survived_for_a_day(Fault::redirect(Endpoint::Poll, "https://op.test/elsewhere")).await;
}

#[tokio::test]
async fn a_sign_in_survives_status_404_and_201_and_empty_bodies() {
    is_survived_for_a_day(Fault::status(Endpoint::Poll, 404)).await;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 202, "", "")).await;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 201, "application/json", "{}")).await;
    is_survived_for_a_day(Fault::response(Endpoint::Poll, 200, "application/json", "")).await;
}

#[tokio::test]
async fn a_sign_in_survives_server_errors_and_unknown_error_codes() {
    for code in ["server_error", "temporarily_unavailable", "interaction_required_by_committee"] {
        is_survived_for_a_day(Fault::error(Endpoint::Poll, code)).await;
    }
}

#[tokio::test]
async fn terminal_error_codes_of_a_gateway_end_no_sign_in() {
    for (status, code) in [
        (404, "invalid_request"),
        (429, "invalid_request"),
        (500, "invalid_request"),
        (502, "access_denied"),
        (503, "invalid_grant"),
        (504, "expired_token"),
    ] {
        is_survived_for_a_day(Fault::error_with_status(Endpoint::Poll, status, code)).await;
    }
}

#[tokio::test]
async fn a_sign_in_survives_huge_endless_and_compressed_bodies() {
    is_survived_for_a_day(Fault::huge_body(Endpoint::Poll, 2 * 1024 * 1024)).await;
    is_survived_for_a_day(Fault::gzip_bomb(Endpoint::Poll, 20 * 1024 * 1024)).await;
    is_survived_for_a_day(Fault::endless_body(Endpoint::Poll)).await;
}

#[tokio::test]
async fn a_sign_in_survives_an_op_that_refuses_connections_for_a_day() {
    let (world, cable) = world_on_a_cable(|op| op.decisions(DecisionPolicy::after(HOUR))).await;
    let mut pending = world.pending().await;
    cable.unplug();
    let recovery = async {
        world.clock.sleep(DAY).await;
        cable.plug_in();
    };
    let (outcome, ()) = tokio::join!(world.wait(&mut pending), recovery);
    assert_approved(&outcome);
    assert_eq!(world.polls().len(), 1);
}

/// A source of randomness that can fail.
#[derive(Debug)]
struct Well {
    source: SeededRandom,
    dry: AtomicBool,
}

impl Random for Well {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), openid_deferred::Error> {
        match self.dry.load(Ordering::Relaxed) {
            true => Err(openid_deferred::Error::randomness("the well is dry")),
            false => self.source.fill(bytes),
        }
    }
}

#[tokio::test]
async fn polling_backs_off_while_the_source_of_randomness_fails() {
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
        troubles += usize::from(matches!(event, WaitEvent::TransientError { .. }));
        assert!(troubles < 100, "it is hammered");
    });
    let (outcome, ()) = tokio::join!(waiting.into_future(), recovery);
    assert_approved(&outcome.unwrap());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_second_nonce_challenge_is_a_transient_error() {
    let world = world_with(|op| op.dpop_nonces(NoncePolicy::Required), |client| client).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::forget_nonces(Endpoint::Poll).times(2));
    let error = world.poll_when_due(&mut pending).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::SecondNonceChallenge));
    assert!(error.is_transient());
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();
}

// `Retry-After`.

/// The pause between the first poll, which has this fault, and the second one.
async fn pause_after(fault: Fault) -> f64 {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(fault);
    for _ in 0..2 {
        // The first poll has the fault; the result of the second does not matter.
        let _ = world.poll_when_due(&mut pending).await;
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
    // The test's clock starts at midnight, and the first poll is sent after five seconds.
    let pause = pause_after(unavailable(503, "Thu, 01 Jan 2026 00:10:00 GMT")).await;
    assert!((593.0..=595.0).contains(&pause), "{pause}");
}

#[tokio::test]
async fn a_short_or_malformed_retry_after_has_no_effect() {
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

// The client's own mistake.

#[tokio::test]
async fn a_client_error_is_returned_and_the_sign_in_stays_pending() {
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
        // The administrator has corrected the registration.
        assert_approved(&world.wait(&mut pending).await);
        assert!(world.gaps().iter().all(|gap| *gap >= 5.0), "{:?}", world.gaps());
        world.op.assert_clean();
    }
}
