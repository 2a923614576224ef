//! Genuine answers with an unusual status or format, and answers that only look like them.

use openid_deferred::error::Rule;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Clock as _, ErrorKind, Outcome, Poll};
use serde_json::{Value, json};

use crate::support::{World, assert_approved, keyring, reopened, seconds, undecided, world, world_with};

const STATUSES: [u16; 9] = [200, 202, 400, 401, 403, 404, 428, 429, 500];

/// A provider that has decided before the first poll.
async fn decided() -> World {
    world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await
}

/// The outcome after a first poll like this. If it ended nothing, a second poll gets an `invalid_grant`.
async fn outcome_after(fault: Fault) -> (Outcome, usize) {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(fault);
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"));
    let outcome = world.wait(&mut pending).await;
    (outcome, world.polls().len())
}

#[tokio::test]
async fn authorization_pending_counts_with_any_http_status() {
    for status in STATUSES.into_iter().chain([502, 503, 504]) {
        let world = undecided().await;
        let mut pending = world.pending().await;
        world.op.misbehave(Fault::error_with_status(Endpoint::Poll, status, "authorization_pending"));
        let polled = world.poll_when_due(&mut pending).await;
        assert!(matches!(polled, Ok(Poll::Pending)), "{status}: {polled:?}");
        world.op.misbehave(Fault::error_with_status(Endpoint::Poll, status, "slow_down"));
        let polled = world.poll_when_due(&mut pending).await;
        assert!(matches!(polled, Ok(Poll::SlowDown)), "{status}: {polled:?}");
        world.op.last_process().approve();
        assert_approved(&world.wait(&mut pending).await);
        assert!(world.gaps()[1] < 5.6 && world.gaps()[2] >= 10.0, "{status}: {:?}", world.gaps());
    }
}

#[tokio::test]
async fn terminal_codes_end_a_sign_in_with_any_http_status() {
    for status in STATUSES {
        let (outcome, polls) = outcome_after(Fault::error_with_status(Endpoint::Poll, status, "access_denied")).await;
        assert!(matches!(outcome, Outcome::Denied(_)), "{status}: {outcome:?}");
        assert_eq!(polls, 1);
        let (outcome, _) = outcome_after(Fault::error_with_status(Endpoint::Poll, status, "expired_token")).await;
        assert!(matches!(outcome, Outcome::Expired(expiry) if expiry.is_confirmed()), "{status}: {outcome:?}");
        let (outcome, polls) = outcome_after(Fault::error_with_status(Endpoint::Poll, status, "invalid_grant")).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{status}: {outcome:?}");
        assert_eq!(polls, 1);
    }
}

#[tokio::test]
async fn an_html_refusal_of_a_poll_does_not_count_as_a_lost_answer() {
    let pages = [401, 403, 404, 405, 410, 413, 421, 429, 431].map(|status| Fault::status(Endpoint::Poll, status));
    let others = [
        Fault::redirect(Endpoint::Poll, "https://op.test/elsewhere"),
        Fault::error_with_status(Endpoint::Poll, 404, "invalid_request"),
        Fault::error_with_status(Endpoint::Poll, 429, "Too Many Requests"),
        Fault::error(Endpoint::Poll, "use_dpop_nonce"),
        Fault::error(Endpoint::Poll, "use_dpop_nonce").header("DPoP-Nonce", "a").header("DPoP-Nonce", "b"),
    ];
    for fault in pages.into_iter().chain(others) {
        let name = format!("{fault:?}");
        let (outcome, polls) = outcome_after(fault).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{name}: {outcome:?}");
        assert_eq!(polls, 2, "{name}");
    }
}

#[tokio::test]
async fn an_incomplete_answer_or_one_without_a_code_may_have_been_lost() {
    for (status, body) in [(400, r#"{"error":"authorization_pe"#), (400, ""), (422, "<html>"), (200, "{}"), (500, "")] {
        let fault = Fault::response(Endpoint::Poll, status, "application/json", body);
        let (outcome, polls) = outcome_after(fault).await;
        assert!(matches!(outcome, Outcome::Unknown), "{status} {body}: {outcome:?}");
        assert_eq!(polls, 2, "{status} {body}");
    }
}

#[tokio::test]
async fn a_gateway_timeout_may_have_lost_the_answer_with_any_body() {
    for status in [408, 502, 503, 504, 524] {
        for code in ["access_denied", "invalid_grant", "invalid_client", "use_dpop_nonce", "gateway_timeout"] {
            let (outcome, polls) = outcome_after(Fault::error_with_status(Endpoint::Poll, status, code)).await;
            assert!(matches!(outcome, Outcome::Unknown), "{status} {code}: {outcome:?}");
            assert_eq!(polls, 2, "{status} {code}");
        }
    }
}

#[tokio::test]
async fn an_unanswerable_nonce_challenge_to_a_poll_is_transient() {
    let world = decided().await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::error(Endpoint::Poll, "use_dpop_nonce"));
    let error = world.poll_when_due(&mut pending).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::NonceMissing), true));
    assert_approved(&world.wait(&mut pending).await);
}

/// Every format in which a complete success has been seen.
fn wrappings(endpoint: Endpoint) -> Vec<Fault> {
    let with = |name: &'static str, value: Value| {
        Fault::edit_json(endpoint, move |members| {
            members.insert(name.to_owned(), value.clone());
        })
    };
    let labelled = |media_type: &'static str| {
        Fault::edit_headers(endpoint, move |headers| {
            headers.insert("content-type", http::HeaderValue::from_static(media_type));
        })
    };
    vec![
        Fault::success_status(endpoint, 201),
        Fault::success_status(endpoint, 202),
        Fault::success_status(endpoint, 203),
        Fault::byte_order_mark(endpoint),
        with("error", json!(null)),
        with("error", json!("")),
        with("error", json!(false)),
        labelled("text/json"),
        labelled("text/html"),
        Fault::edit_headers(endpoint, |headers| drop(headers.remove("content-type"))),
    ]
}

#[tokio::test]
async fn a_final_response_is_accepted_with_any_status_media_type_or_byte_order_mark() {
    for fault in wrappings(Endpoint::Poll) {
        let world = decided().await;
        let mut pending = world.pending().await;
        let name = format!("{fault:?}");
        world.op.misbehave(fault);
        let outcome = world.wait(&mut pending).await;
        assert!(matches!(outcome, Outcome::Approved(_)), "{name}: {outcome:?}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_final_answer_with_a_byte_order_mark_is_read_after_a_restart() {
    let world = decided().await;
    let mut pending = world.pending().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::byte_order_mark(Endpoint::Poll));
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let error = world.poll_when_due(&mut pending).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let mut pending = reopened(pending, &keyring());
    world.op.behave();
    world.clock.sleep(seconds(3_600)).await;
    assert_approved(&world.wait(&mut pending).await);
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn a_refresh_response_is_accepted_with_any_status_and_media_type() {
    for fault in wrappings(Endpoint::Refresh) {
        let world = world().await;
        let mut authentication = world.approved().await;
        let name = format!("{fault:?}");
        world.op.misbehave(fault);
        world.client.refresh(&mut authentication).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn userinfo_and_introspection_are_accepted_with_any_status_and_media_type() {
    for (of_userinfo, of_introspection) in
        wrappings(Endpoint::UserInfo).into_iter().zip(wrappings(Endpoint::Introspection))
    {
        let world = world().await;
        let authentication = world.approved().await;
        let name = format!("{of_userinfo:?}");
        world.op.misbehave(of_userinfo);
        world.op.misbehave(of_introspection);
        let userinfo = world.client.userinfo(&authentication).await;
        assert_eq!(userinfo.map(|userinfo| userinfo.subject().to_owned()).ok().as_deref(), Some("user-1"), "{name}");
        let introspected = world.client.introspect(authentication.access_token().unwrap(), None).await;
        assert!(introspected.is_ok_and(|answer| answer.is_active()), "{name}");
    }
}

#[tokio::test]
async fn the_answer_to_a_pushed_request_is_accepted_with_any_status_and_media_type() {
    for fault in wrappings(Endpoint::PushedAuthorization)
        .into_iter()
        .chain([Fault::success_status(Endpoint::PushedAuthorization, 200)])
    {
        let world = world_with(|op| op.require_pushed_authorization_requests(), |client| client).await;
        let name = format!("{fault:?}");
        world.op.misbehave(fault);
        let started = world.client.authorize().start().await;
        assert!(started.is_ok(), "{name}: {started:?}");
        world.op.assert_clean();
    }
}

fn tokens_with(endpoint: Endpoint, code: &'static str) -> Fault {
    Fault::edit_json(endpoint, move |members| {
        members.insert("error".into(), json!(code));
    })
}

#[tokio::test]
async fn tokens_beside_a_terminal_error_are_revoked() {
    for (code, is) in [
        ("access_denied", (|outcome| matches!(outcome, Outcome::Denied(_))) as fn(&Outcome) -> bool),
        ("expired_token", |outcome| matches!(outcome, Outcome::Expired(_))),
        ("invalid_grant", |outcome| matches!(outcome, Outcome::Failed(_))),
        ("invalid_request", |outcome| matches!(outcome, Outcome::Failed(_))),
    ] {
        let world = decided().await;
        let mut pending = world.pending().await;
        world.op.misbehave(tokens_with(Endpoint::Poll, code));
        let outcome = world.wait(&mut pending).await;
        assert!(is(&outcome) && pending.has_ended(), "{code}: {outcome:?}");
        assert_eq!(world.polls().len(), 1, "nothing is asked after the end");
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2, "{code}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn tokens_beside_another_error_are_not_used_and_the_next_answer_counts() {
    for code in ["authorization_pending", "slow_down", "server_error", "invalid_client", "a_warning"] {
        let world = decided().await;
        let mut pending = world.pending().await;
        world.op.misbehave(tokens_with(Endpoint::Poll, code));
        let error = world.poll_when_due(&mut pending).await.unwrap_err();
        assert_eq!((error.rule(), error.is_transient()), (Some(Rule::ErrorResponseWithSuccessStatus), true), "{code}");
        // This provider has already sent its success, and a genuine one may have done so too.
        let outcome = world.wait(&mut pending).await;
        assert!(matches!(outcome, Outcome::Unknown), "{code}: {outcome:?}");
        assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
    }
}

#[tokio::test]
async fn a_refresh_response_with_tokens_and_an_error_is_refused() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.op.misbehave(tokens_with(Endpoint::Refresh, "invalid_grant"));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_grant"));
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);

    let mut authentication = world.approved().await;
    world.op.misbehave(tokens_with(Endpoint::Refresh, "a_warning"));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (&ErrorKind::OutcomeUnknown, true));
}

#[tokio::test]
async fn an_unanswerable_nonce_challenge_to_a_refresh_is_transient() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.op.misbehave(Fault::error(Endpoint::Refresh, "use_dpop_nonce"));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::NonceMissing), true));
    world.client.refresh(&mut authentication).await.unwrap();
}
