//! The IETF dialect in the durable poller.

use openid_deferred::error::Misuse;
use openid_deferred::ping::Receiver;
use openid_deferred::poller::{AcceptedSignIn, AcceptedTokenRequest, CancellationStatus, Event};
use openid_deferred::store::{ProcessId, State};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, Ping, TestProviderBuilder};
use openid_deferred::{Clock as _, Delivery, ErrorKind, Grant, Outcome};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{CLIENT_ID, HOUR, SECOND, World, client_of, happened, next, ping_request, world_of, world_with};

/// A provider of this dialect that decides when the test says so.
async fn undecided() -> World {
    ietf(|op| op.decisions(DecisionPolicy::scripted())).await
}

async fn ietf(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    world_of(|builder| op(builder.ietf())).await
}

impl World {
    /// Requests the client's own tokens.
    async fn request_tokens(&self) -> AcceptedTokenRequest {
        let request = self.client.token_request(Grant::client_credentials()).context("order 4711");
        self.poller.request_tokens(request).await.expect("the OP answers")
    }

    async fn waiting_grant(&self) -> ProcessId {
        match self.request_tokens().await {
            AcceptedTokenRequest::Deferred(id) => id,
            other => panic!("expected a deferral, got {other:?}"),
        }
    }
}

#[track_caller]
fn assert_issued(delivery: &Delivery) {
    assert!(matches!(delivery.outcome(), Outcome::Issued(_)), "{delivery:?}");
}

#[tokio::test]
async fn a_deferred_grant_is_polled_and_delivered_with_its_context() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let id = world.waiting_grant().await;
    let delivery = world.outcome().await;
    assert_eq!((delivery.id(), delivery.context()), (id, b"order 4711".as_slice()));
    match delivery.outcome() {
        Outcome::Issued(tokens) => assert!(tokens.is_sender_constrained() && tokens.context() == b"order 4711"),
        other => panic!("{other:?}"),
    }
    delivery.acknowledge().await.unwrap();
    assert_eq!(world.polls().len(), 3);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_sign_in_is_polled_and_delivered() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let id = world.waiting().await;
    let delivery = world.outcome().await;
    assert_eq!(delivery.id(), id);
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn an_immediate_answer_is_returned_and_nothing_is_delivered() {
    let world = ietf(|op| op.answers_at_once()).await;
    assert!(matches!(world.request_tokens().await, AcceptedTokenRequest::Complete(_)));
    assert!(matches!(world.accept().await, Ok(AcceptedSignIn::Complete(_))));
    let stats = &world.poller.stats().await.unwrap()[0];
    assert_eq!((stats.rows.waiting, stats.rows.undelivered), (0, None));
    world.op.assert_clean();
}

#[tokio::test]
async fn pending_grants_survive_restarts() {
    let mut world = undecided().await;
    let id = world.waiting_grant().await;
    world.sleep(12 * SECOND).await;
    world.restart().await;
    world.op.last_process().approve();
    let delivery = world.outcome().await;
    assert_eq!(delivery.id(), id);
    assert_issued(&delivery);
    world.op.assert_clean();
}

#[tokio::test]
async fn both_dialects_share_one_store() {
    let world = world_with(|op| op.both_dialects().decisions(DecisionPolicy::scripted()), |c| c, |p| p).await;
    let (sign_in, grant) = (world.waiting().await, world.waiting_grant().await);
    let processes = world.op.processes();
    assert!(processes[0].deferred_auth_id().is_some() && processes[1].deferral_code().is_some());
    processes.iter().for_each(|process| process.approve());
    let mut outcomes = world.poller.outcomes();
    for _ in 0..2 {
        let delivery = next(&mut outcomes).await;
        match delivery.outcome() {
            Outcome::Approved(_) => assert_eq!(delivery.id(), sign_in),
            Outcome::Issued(_) => assert_eq!(delivery.id(), grant),
            other => panic!("{other:?}"),
        }
        delivery.acknowledge().await.unwrap();
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn the_interaction_uri_is_in_the_status_and_in_an_event() {
    let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
    let mut events = world.poller.events();
    let id = world.waiting_grant().await;
    let process = world.op.last_process();
    let first = process.interaction_uri().unwrap();
    let status = |world: &World| {
        let poller = world.poller.clone();
        async move { poller.status(id).await.unwrap().unwrap().interaction_uri().map(|uri| uri.expose().to_owned()) }
    };
    assert_eq!(status(&world).await.as_ref(), Some(&first));
    process.require_interaction();
    let second = process.interaction_uri().unwrap();
    world.sleep(6 * SECOND).await;
    assert_eq!(status(&world).await.as_ref(), Some(&second));
    world.op.open_interaction(&second);
    world.sleep(6 * SECOND).await;
    assert_eq!(status(&world).await, None, "the URI works once");

    let mut shown = Vec::new();
    while let Some(event) = happened(&mut events) {
        assert!(!format!("{event:?}").contains("/interact/"), "{event:?}");
        match event {
            Event::InteractionRequired { id: of, uri } => {
                assert_eq!(of, id);
                shown.push(uri.expose().to_owned());
            }
            Event::InteractionBegun { .. } => shown.push("begun".to_owned()),
            _ => {}
        }
    }
    assert_eq!(shown, [first, second, "begun".to_owned()]);
    process.approve();
    assert_issued(&world.outcome().await);
    world.op.assert_clean();
}

/// A world whose callbacks wait until the test delivers them.
async fn notified(receives: bool) -> (World, Arc<Mutex<Vec<Ping>>>) {
    let pings: Arc<Mutex<Vec<Ping>>> = Arc::default();
    let sent = pings.clone();
    let world = world_with(
        |op| {
            op.ietf().interval(HOUR).decisions(DecisionPolicy::scripted()).on_ping(move |ping| {
                sent.lock().unwrap().push(ping.clone());
                204
            })
        },
        |client| client,
        |poller| if receives { poller.receives_pings() } else { poller },
    )
    .await;
    (world, pings)
}

async fn deliver(receiver: &Receiver, ping: &Ping) -> StatusCode {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    if let Some(bearer) = &ping.bearer {
        headers.insert(AUTHORIZATION, format!("Bearer {bearer}").parse().unwrap());
    }
    receiver.receive(ping_request(Method::POST, &headers, &*ping.body)).await.status()
}

#[tokio::test]
async fn a_callback_with_the_token_of_the_request_brings_the_poll_forward() {
    let (world, pings) = notified(true).await;
    world.waiting_grant().await;
    let token = world.op.last_process().notification_token().expect("the poller makes one for each request");
    assert!(token.len() >= 22, "at least 128 bits");
    world.sleep(10 * SECOND).await;
    let approved = world.clock.monotonic();
    world.op.last_process().approve();
    let ping = pings.lock().unwrap().pop().expect("a callback was sent");
    assert_eq!(ping.bearer.as_ref(), Some(&token));
    let receiver = Receiver::new(world.poller.clone());
    assert_eq!(deliver(&receiver, &ping).await, StatusCode::NO_CONTENT);
    assert_issued(&world.outcome().await);
    assert!(world.clock.monotonic() - approved < 10 * SECOND);
    let mut stripped = ping.clone();
    stripped.bearer = None;
    assert_eq!(deliver(&receiver, &stripped).await, StatusCode::UNAUTHORIZED);
    world.op.assert_clean();
}

#[tokio::test]
async fn callbacks_without_a_token_cause_at_most_one_poll_per_interval() {
    let (world, pings) = notified(false).await;
    world.waiting_grant().await;
    assert!(world.op.last_process().notification_token().is_none());
    let receiver = Receiver::unauthenticated(world.poller.clone(), world.op.issuer(), CLIENT_ID).unwrap();
    world.op.last_process().approve();
    let ping = pings.lock().unwrap().pop().expect("a callback was sent");
    assert!(ping.bearer.is_none());
    // Somebody repeats it.
    for _ in 0..20 {
        world.sleep(2 * SECOND).await;
        assert_eq!(deliver(&receiver, &ping).await, StatusCode::NO_CONTENT);
    }
    assert_issued(&world.outcome().await);
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn repeated_callbacks_without_a_token_do_not_multiply_the_polls_of_a_pending_request() {
    let (world, _) = notified(false).await;
    world.waiting_grant().await;
    let code = world.op.last_process().deferral_code().unwrap();
    let receiver = Receiver::unauthenticated(world.poller.clone(), world.op.issuer(), CLIENT_ID).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    world.op.misbehave(Fault::error(Endpoint::Poll, "authorization_pending").always());
    for _ in 0..200 {
        world.sleep(15 * SECOND).await;
        let body = format!(r#"{{"deferral_code":"{code}"}}"#);
        let answer = receiver.receive(ping_request(Method::POST, &headers, body)).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
    // 50 minutes: one poll that was brought forward.
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn a_cancellation_revokes_the_code_if_the_server_supports_it() {
    for supported in [true, false] {
        let world = ietf(|op| {
            let op = op.decisions(DecisionPolicy::scripted());
            if supported { op } else { op.without_deferral_code_revocation() }
        })
        .await;
        let id = world.waiting_grant().await;
        let expected = if supported { CancellationStatus::Accepted } else { CancellationStatus::LocallyOnly };
        assert_eq!(world.poller.cancel(id).await.unwrap(), expected);
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), usize::from(supported));
        if !supported {
            world.op.last_process().deny();
        }
        let delivery = world.outcome().await;
        assert!(matches!(delivery.outcome(), Outcome::Cancelled), "{delivery:?}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_cancellation_that_fails_is_repeated() {
    let world = undecided().await;
    let id = world.waiting_grant().await;
    world.op.misbehave(Fault::status(Endpoint::Revocation, 503).times(2));
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Requested);
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Cancelled), "{delivery:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_request_of_a_client_that_the_poller_lacks_is_not_sent() {
    let world = undecided().await;
    let other = world.replica(9).await;
    other.remove_client(world.op.issuer(), CLIENT_ID).unwrap();
    let client = client_of(&world.op, &world.clock).build().unwrap();
    let error = other.request_tokens(client.token_request(Grant::client_credentials())).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Misuse(Misuse::UnknownClient));
    assert!(world.op.requests_to(Endpoint::ClientCredentials).is_empty());
}

#[tokio::test]
async fn a_refused_request_is_the_ops_error_and_leaves_no_row() {
    let world = undecided().await;
    world.op.misbehave(Fault::error(Endpoint::ClientCredentials, "invalid_scope"));
    let request = world.client.token_request(Grant::client_credentials());
    let error = world.poller.request_tokens(request).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_scope");
    let stats = &world.poller.stats().await.unwrap()[0];
    assert_eq!((stats.rows.waiting, stats.rows.undelivered), (0, None));
}

#[tokio::test]
async fn a_request_with_a_key_is_sent_once_however_often_it_is_repeated() {
    let mut world = undecided().await;
    let client = world.client.clone();
    let request = |key: &str| client.token_request(Grant::client_credentials()).idempotency_key(key);
    let AcceptedTokenRequest::Deferred(first) = world.poller.request_tokens(request("order 1")).await.unwrap() else {
        panic!("the OP defers")
    };
    world.restart().await;
    let again = world.poller.request_tokens(request("order 1")).await.unwrap();
    assert!(matches!(again, AcceptedTokenRequest::Deferred(id) if id == first), "{again:?}");
    assert_eq!(world.op.requests_to(Endpoint::ClientCredentials).len(), 1);
    let other = world.poller.request_tokens(request("order 2")).await.unwrap();
    assert!(matches!(other, AcceptedTokenRequest::Deferred(id) if id != first), "{other:?}");
    world.op.processes()[0].approve();
    let delivery = world.outcome().await;
    assert_eq!(delivery.id(), first);
    delivery.acknowledge().await.unwrap();
    let late = world.poller.request_tokens(request("order 1")).await.unwrap();
    assert!(matches!(late, AcceptedTokenRequest::Ended(id) if id == first), "{late:?}");
    assert_eq!(world.op.requests_to(Endpoint::ClientCredentials).len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_request_with_a_key_that_did_not_reach_the_op_can_be_repeated() {
    let world = undecided().await;
    let request = || world.client.token_request(Grant::client_credentials()).idempotency_key("order 1");
    world.op.misbehave(Fault::error_with_status(Endpoint::ClientCredentials, 401, "invalid_client"));
    world.poller.request_tokens(request()).await.unwrap_err();
    assert!(matches!(world.poller.request_tokens(request()).await.unwrap(), AcceptedTokenRequest::Deferred(_)));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_replica_that_dies_during_the_request_leaves_an_unknown_outcome() {
    let mut world = undecided().await;
    world.op.misbehave(Fault::stall(Endpoint::ClientCredentials));
    let poller = world.poller.clone();
    let client = world.client.clone();
    let mut sent = JoinSet::new();
    sent.spawn(async move {
        poller.request_tokens(client.token_request(Grant::client_credentials()).context("order 4711")).await
    });
    while world.op.requests_to(Endpoint::ClientCredentials).is_empty() {
        world.sleep(Duration::from_millis(10)).await;
    }
    world.restart().await;
    let error = sent.join_next().await.expect("it was spawned").unwrap().unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::OutcomeUnknown);
    assert!(error.to_string().contains("requesting tokens"), "{error}");
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
    assert_eq!(delivery.context(), b"order 4711");
}

#[tokio::test]
async fn the_interaction_uri_is_not_in_the_status_while_the_answer_is_verified() {
    let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
    let id = world.waiting().await;
    assert!(world.poller.status(id).await.unwrap().unwrap().interaction_uri().is_some());
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    world.op.last_process().approve();
    world.sleep(20 * SECOND).await;
    let status = world.poller.status(id).await.unwrap().unwrap();
    assert_eq!(status.state(), State::Answered);
    assert!(status.interaction_uri().is_none(), "the OP has decided");
}

#[tokio::test]
async fn a_repeated_cancellation_reports_again_that_it_is_local() {
    // Each dialect in turn is the one whose cancellations the OP cannot be told of.
    let world = world_with(
        |op| op.both_dialects().without_deferral_code_revocation().decisions(DecisionPolicy::scripted()),
        |client| client.cancellation_endpoint("https://op.test/cancel"),
        |p| p,
    )
    .await;
    let grant = world.waiting_grant().await;
    assert_eq!(world.poller.cancel(grant).await.unwrap(), CancellationStatus::LocallyOnly);
    assert_eq!(world.poller.cancel(grant).await.unwrap(), CancellationStatus::LocallyOnly);

    let world = world_with(|op| op.both_dialects().decisions(DecisionPolicy::scripted()), |c| c, |p| p).await;
    let sign_in = world.waiting().await;
    assert_eq!(world.poller.cancel(sign_in).await.unwrap(), CancellationStatus::LocallyOnly);
    assert_eq!(world.poller.cancel(sign_in).await.unwrap(), CancellationStatus::LocallyOnly);
}

#[tokio::test]
async fn the_status_is_current_when_an_interaction_event_is_emitted() {
    let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
    let id = world.waiting_grant().await;
    let mut events = world.poller.events();
    let process = world.op.last_process();
    process.require_interaction();
    let second = process.interaction_uri().unwrap();
    loop {
        if let Event::InteractionRequired { uri, .. } = events.next().await.expect("the poller runs") {
            assert_eq!(uri.expose(), second);
            let status = world.poller.status(id).await.unwrap().unwrap();
            assert_eq!(status.interaction_uri().map(|uri| uri.expose()), Some(&*second));
            break;
        }
    }
    world.op.open_interaction(&second);
    let mut events = world.poller.events();
    loop {
        if let Event::Pending { .. } = events.next().await.expect("the poller runs") {
            let status = world.poller.status(id).await.unwrap().unwrap();
            assert!(status.interaction_uri().is_none(), "the page read the status again and shows a dead link");
            break;
        }
    }
}

#[tokio::test]
async fn tokens_of_a_dropped_token_request_are_revoked() {
    let world = ietf(|op| op.answers_at_once()).await;
    world.op.misbehave(Fault::delay(Endpoint::ClientCredentials, 2 * SECOND));
    tokio::select! {
        biased;
        answer = world.request_tokens() => panic!("it was to take longer: {answer:?}"),
        () = world.sleep(SECOND) => {}
    }
    world.sleep(20 * SECOND).await;
    let stats = &world.poller.stats().await.unwrap()[0];
    assert_eq!(stats.rows.undelivered, None);
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 1, "nobody can use these tokens");
    world.op.assert_clean();
}

#[tokio::test]
async fn an_op_that_refuses_to_revoke_codes_is_asked_once() {
    let world = ietf(|op| op.interval(HOUR / 6).decisions(DecisionPolicy::scripted())).await;
    let id = world.waiting_grant().await;
    world.op.misbehave(Fault::error(Endpoint::Revocation, "unsupported_token_type").always());
    world.poller.cancel(id).await.unwrap();
    world.sleep(3 * HOUR).await;
    let asked = world.op.requests_to(Endpoint::Revocation).len();
    assert!(asked <= 2, "{asked} requests that the OP has to refuse");
}

#[tokio::test]
async fn tokens_beside_pending_answers_are_revoked_and_polling_continues() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    for endpoint in [Endpoint::ClientCredentials, Endpoint::Poll] {
        world.op.misbehave(Fault::edit_any_json(endpoint, |members| {
            members.insert("access_token".into(), json!("a token beside an error"));
        }));
    }
    world.waiting_grant().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Issued(_)), "{delivery:?}");
    world.sleep(SECOND).await;
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    world.op.assert_clean();
}
