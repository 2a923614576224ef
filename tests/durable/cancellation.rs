//! DTR §Canceling an Ongoing Authentication Process.

use openid_deferred::error::Misuse;
use openid_deferred::poller::CancellationStatus;
use openid_deferred::store::ProcessId;
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, TestClient, TestClock, TestProvider, TestProviderBuilder,
};
use openid_deferred::{Client, ClientAuthentication, ClientBuilder, Outcome, SignIn};

use tokio::task::JoinSet;

use crate::support::{
    CLIENT_SECRET, HOUR, REDIRECT_URI, SECOND, World, client_of, next, poller_of, provider, world_of,
};

/// A world whose client knows the cancellation endpoint.
async fn cancellable() -> World {
    cancellable_at(|op| op).await
}

async fn cancellable_at(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    let clock = TestClock::automatic();
    let op = op(provider(&clock).decisions(DecisionPolicy::scripted())).start().unwrap();
    let with_endpoint =
        |op: &TestProvider, client: ClientBuilder| client.cancellation_endpoint(op.cancellation_endpoint());
    let client = with_endpoint(&op, client_of(&op, &clock)).build().unwrap();
    let store =
        std::sync::Arc::new(openid_deferred::store::MemoryStore::with_clock(std::sync::Arc::new(clock.clone())));
    let poller = poller_of(&store, &clock, 3).client(client.clone()).start().await.unwrap();
    World { op, clock, client, store, poller }
}

#[tokio::test]
async fn a_cancelled_process_ends_as_cancelled_when_the_op_ends_it() {
    let world = cancellable().await;
    let id = world.waiting().await;
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Accepted);
    assert!(world.op.last_process().is_cancelled());
    let status = world.poller.status(id).await.unwrap().unwrap();
    assert!(status.is_cancelled() && !status.has_ended());
    assert_eq!(status.cancellation(), Some(CancellationStatus::Accepted));
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Cancelled), "{delivery:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_failed_cancellation_is_repeated_with_the_polls() {
    let world = cancellable().await;
    let id = world.waiting().await;
    world.op.misbehave(Fault::status(Endpoint::Cancellation, 503).times(2));
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Requested);
    assert_eq!(cancellation(&world, id).await, Some(CancellationStatus::Requested));
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Cancelled), "{delivery:?}");
    assert_eq!(world.op.requests_to(Endpoint::Cancellation).len(), 3);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_cancellation_endpoint_that_hangs_delays_no_poll_and_is_called_with_a_backoff() {
    let mut world = cancellable_at(|op| op.interval(30 * SECOND).no_expiry()).await;
    let ids = [world.waiting().await, world.waiting().await];
    world.op.misbehave(Fault::delay(Endpoint::Cancellation, HOUR).always());
    for id in ids {
        assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Requested);
        assert_eq!(
            world.poller.cancel(id).await.unwrap(),
            CancellationStatus::Requested,
            "a second request so soon is not sent"
        );
    }
    world.sleep(12 * HOUR).await;
    world.poller.shutdown(std::time::Duration::ZERO).await;
    world.poller = poller_of(&world.store, &world.clock, 4).client(world.client.clone()).start().await.unwrap();
    world.sleep(12 * HOUR).await;
    let polls = world.polls().len();
    assert!(polls >= 2 * 24 * 60, "{polls} polls in 24 h");
    for process in ids.iter().zip(0..).map(|(_, index)| world.op.processes().swap_remove(index)) {
        let id = process.deferred_auth_id().unwrap();
        let requests = world.op.requests_to(Endpoint::Cancellation);
        let sent: Vec<_> =
            requests.iter().filter(|request| request.parameter("deferred_auth_id") == Some(&id)).collect();
        let gaps: Vec<_> = sent.windows(2).map(|pair| (pair[1].arrived - pair[0].arrived).as_secs() / 60).collect();
        assert!((28..=32).contains(&sent.len()), "{} requests in 24 h", sent.len());
        assert_eq!(gaps[..8], [1, 2, 4, 8, 16, 32, 60, 60], "{gaps:?}");
    }
    world.op.behave();
    let mut outcomes = world.poller.outcomes();
    for _ in ids {
        let delivery = next(&mut outcomes).await;
        assert!(matches!(delivery.outcome(), Outcome::Cancelled), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_client_has_at_most_sixteen_cancellations_in_flight() {
    let world = cancellable_at(|op| op.interval(HOUR).no_expiry()).await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(world.waiting().await);
    }
    world.op.misbehave(Fault::delay(Endpoint::Cancellation, HOUR).always());
    let mut calls = JoinSet::new();
    for id in ids {
        let poller = world.poller.clone();
        calls.spawn(async move { poller.cancel(id).await.unwrap() });
    }
    while let Some(cancelled) = calls.join_next().await {
        assert_eq!(cancelled.unwrap(), CancellationStatus::Requested);
    }
    assert_eq!(world.op.requests_to(Endpoint::Cancellation).len(), 16);
    world.sleep(3 * HOUR).await;
    let arrived: Vec<_> = world.op.requests_to(Endpoint::Cancellation).iter().map(|request| request.arrived).collect();
    assert!(arrived.len() >= 48, "{}", arrived.len());
    // Each request is abandoned after 30 s.
    assert!(arrived.windows(17).all(|some| some[16] - some[0] >= 30 * SECOND), "{arrived:?}");
}

#[tokio::test]
async fn a_cancellation_without_an_endpoint_is_local() {
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    let id = world.waiting().await;
    assert_eq!(cancellation(&world, id).await, None);
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::LocallyOnly);
    assert_eq!(cancellation(&world, id).await, Some(CancellationStatus::LocallyOnly));
    // After the next poll there is nothing left to be told.
    world.sleep(60 * SECOND).await;
    assert_eq!(cancellation(&world, id).await, Some(CancellationStatus::LocallyOnly));
    world.op.last_process().deny();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Cancelled));
    assert_eq!(cancellation(&world, id).await, None, "the outcome counts");
    assert!(!world.poller.status(id).await.unwrap().unwrap().has_ended());
    delivery.acknowledge().await.unwrap();
    let status = world.poller.status(id).await.unwrap().unwrap();
    assert!(status.has_ended() && status.is_cancelled() && status.cancellation().is_none());
}

/// What a page can say of the cancellation.
async fn cancellation(world: &World, id: ProcessId) -> Option<CancellationStatus> {
    world.poller.status(id).await.unwrap().unwrap().cancellation()
}

#[tokio::test]
async fn an_approval_after_a_cancellation_is_delivered_and_marked() {
    let world = cancellable().await;
    let id = world.waiting().await;
    world.op.last_process().approve();
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Accepted);
    let delivery = world.outcome().await;
    let Outcome::Approved(authentication) = delivery.outcome() else { panic!("{delivery:?}") };
    assert!(authentication.is_after_cancellation() && delivery.outcome().approved().is_none());
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Accepted);
}

#[tokio::test]
async fn a_decided_process_cannot_be_cancelled_and_an_unknown_one_is_an_error() {
    let world = cancellable().await;
    let id = world.waiting().await;
    world.op.last_process().approve();
    world.sleep(20 * SECOND).await;
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::TooLate);
    let error = world.poller.cancel(ProcessId::from_bytes([9; 16])).await.unwrap_err();
    assert_eq!(error.kind(), &Misuse::UnknownProcess.into());
}

#[tokio::test]
async fn the_stateless_client_cancels_too_and_the_mark_survives_sealing() {
    let world = cancellable().await;
    let (query, session) = world.user_returns().await;
    let Ok(SignIn::Deferred(mut pending)) = world.client.authorization_response(&query, session).await else {
        panic!("not deferred")
    };
    world.op.misbehave(Fault::status(Endpoint::Cancellation, 503));
    assert!(world.client.cancel(&mut pending).await.unwrap_err().is_transient());
    let keyring = crate::support::keyring();
    let sealed = pending.seal(&keyring).unwrap();
    let mut pending = openid_deferred::PendingAuthentication::open(&keyring, &sealed).unwrap();
    assert!(pending.is_cancelled());
    assert_eq!(world.client.cancel(&mut pending).await.unwrap(), openid_deferred::Cancelled::Accepted);
    let outcome = world.client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Cancelled), "{outcome:?}");
    assert_eq!(world.client.cancel(&mut pending).await.unwrap_err().kind(), &Misuse::NothingToPoll.into());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_cancellation_endpoint_without_tls_is_refused() {
    let world = cancellable().await;
    let client = client_of(&world.op, &world.clock).cancellation_endpoint("http://op.test/cancel");
    assert!(client.build().is_err());
}

#[tokio::test]
async fn a_cancellation_is_sent_as_json_if_the_op_refuses_the_form() {
    let world = cancellable_at(|op| op.cancellation_in_json()).await;
    let id = world.waiting().await;
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Accepted);
    let requests = world.op.requests_to(Endpoint::Cancellation);
    let types: Vec<_> = requests.iter().map(|request| request.header("content-type").unwrap_or_default()).collect();
    assert_eq!(types, ["application/x-www-form-urlencoded", "application/json"]);
    assert!(matches!(world.outcome().await.outcome(), Outcome::Cancelled));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_client_that_authenticates_in_the_form_sends_no_json() {
    let clock = TestClock::automatic();
    let registered = TestClient::secret_post("poster", CLIENT_SECRET).redirect_uri(REDIRECT_URI);
    let op = provider(&clock).client(registered).decisions(DecisionPolicy::scripted()).cancellation_in_json();
    let op = op.start().unwrap();
    let client = Client::builder(op.issuer(), "poster")
        .authentication(ClientAuthentication::client_secret_post(CLIENT_SECRET))
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(std::sync::Arc::new(clock.clone()))
        .cancellation_endpoint(op.cancellation_endpoint())
        .build()
        .unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let query = op.visit(url).query();
    let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    let error = client.cancel(&mut pending).await.unwrap_err();
    assert_eq!(error.error_response().and_then(|response| response.status()), Some(415));
    assert_eq!(op.requests_to(Endpoint::Cancellation).len(), 1, "its secret is not sent in an undefined form");
    assert!(pending.is_cancelled());
}

#[tokio::test]
async fn a_cancellation_that_the_op_refuses_permanently_is_not_repeated() {
    let world = cancellable().await;
    let id = world.waiting().await;
    world.op.misbehave(Fault::error(Endpoint::Cancellation, "invalid_request").always());
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::Requested);
    world.sleep(HOUR).await;
    assert_eq!(world.op.requests_to(Endpoint::Cancellation).len(), 2, "once by the caller and once beside a poll");
    world.op.last_process().deny();
    assert!(matches!(world.outcome().await.outcome(), Outcome::Cancelled));
}
