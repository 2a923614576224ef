//! CIBA in the durable poller.

use std::sync::{Arc, Mutex};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use openid_deferred::ciba::{AuthenticationRefusal, AuthenticationRequest, DeliveryMode, UserHint};
use openid_deferred::error::Misuse;
use openid_deferred::ping::Receiver;
use openid_deferred::poller::{AcceptedSignIn, CancellationStatus};
use openid_deferred::store::ProcessId;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, Ping, PingForgery, TestClient, TestProviderBuilder};
use openid_deferred::{Clock as _, ErrorKind, Outcome};
use tokio::task::JoinSet;

use crate::support::{
    CLIENT_ID, CLIENT_SECRET, HOUR, SECOND, World, client_of, next, ping_request, world_of, world_with,
};

/// A provider that decides when the test says so.
async fn undecided() -> World {
    ciba(|op| op.decisions(DecisionPolicy::scripted())).await
}

async fn ciba(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    world_of(|builder| op(builder.ciba())).await
}

impl World {
    fn ask(&self) -> AuthenticationRequest<'_> {
        self.client.backchannel_authentication(UserHint::login_hint("user-1")).context("order 4711")
    }

    async fn asked(&self) -> ProcessId {
        deferred(self.poller.request_authentication(self.ask()).await.expect("the OP asks the user"))
    }

    fn asks(&self) -> usize {
        self.op.requests_to(Endpoint::BackchannelAuthentication).len()
    }
}

#[track_caller]
fn deferred(sign_in: AcceptedSignIn) -> ProcessId {
    match sign_in {
        AcceptedSignIn::Deferred(id) => id,
        other => panic!("expected a deferral, got {other:?}"),
    }
}

#[tokio::test]
async fn a_backchannel_sign_in_is_polled_and_delivered_with_its_context() {
    let world = ciba(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let id = world.asked().await;
    let delivery = world.outcome().await;
    assert_eq!((delivery.id(), delivery.context()), (id, b"order 4711".as_slice()));
    match delivery.outcome() {
        Outcome::Approved(authentication) => assert!(authentication.is_sender_constrained()),
        other => panic!("{other:?}"),
    }
    delivery.acknowledge().await.unwrap();
    assert_eq!(world.polls().len(), 3);
    world.op.assert_clean();
}

#[tokio::test]
async fn backchannel_sign_ins_survive_restarts() {
    let mut world = undecided().await;
    let id = world.asked().await;
    world.sleep(12 * SECOND).await;
    world.restart().await;
    world.op.last_process().approve();
    let delivery = world.outcome().await;
    assert_eq!(delivery.id(), id);
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.asks(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn all_dialects_share_one_store() {
    let op = |op: TestProviderBuilder| op.both_dialects().ciba().decisions(DecisionPolicy::scripted());
    let world = world_with(op, |client| client, |poller| poller).await;
    let ids = [world.waiting().await, world.asked().await];
    world.op.processes().iter().for_each(|process| process.approve());
    let mut outcomes = world.poller.outcomes();
    let mut delivered = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut outcomes).await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        delivered.push(delivery.id());
        delivery.acknowledge().await.unwrap();
    }
    assert!(ids.iter().all(|id| delivered.contains(id)));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_process_started_by_a_stateless_client_is_tracked() {
    let world = ciba(|op| op.decisions(DecisionPolicy::after_polls(1))).await;
    let pending = world.ask().send().await.unwrap();
    let id = world.poller.track(&pending).await.unwrap();
    let delivery = world.outcome().await;
    assert_eq!((delivery.id(), delivery.context()), (id, b"order 4711".as_slice()));
    world.op.assert_clean();
}

/// A world in ping mode, whose pings wait until the test delivers them.
async fn pinged() -> (World, Arc<Mutex<Vec<Ping>>>, Receiver) {
    let pings: Arc<Mutex<Vec<Ping>>> = Arc::default();
    let sent = pings.clone();
    let world = world_with(
        |op| {
            op.ciba()
                .client(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).ping_mode())
                .interval(HOUR)
                .decisions(DecisionPolicy::scripted())
                .on_ping(move |ping| {
                    sent.lock().unwrap().push(ping.clone());
                    204
                })
        },
        |client| client.backchannel_token_delivery_mode(DeliveryMode::Ping),
        |poller| poller.receives_pings(),
    )
    .await;
    let receiver = Receiver::new(world.poller.clone());
    (world, pings, receiver)
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
async fn a_ping_brings_the_poll_forward_and_is_answered_with_204() {
    let (world, pings, receiver) = pinged().await;
    world.asked().await;
    world.sleep(10 * SECOND).await;
    let approved = world.clock.monotonic();
    world.op.last_process().approve();
    let ping = pings.lock().unwrap().pop().expect("a ping was sent");
    assert_eq!(ping.body, format!(r#"{{"auth_req_id":"{}"}}"#, world.op.last_process().auth_req_id().unwrap()));
    assert_eq!(deliver(&receiver, &ping).await, StatusCode::NO_CONTENT);
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(world.clock.monotonic() - approved < 10 * SECOND);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_forged_ping_is_refused() {
    let (world, pings, receiver) = pinged().await;
    world.asked().await;
    for forgery in [
        PingForgery::NoBearer,
        PingForgery::Bearer("a".repeat(103)),
        PingForgery::DeferredAuthId("another-identifier".to_owned()),
    ] {
        world.op.last_process().send_ping(forgery);
        let ping = pings.lock().unwrap().pop().expect("a ping was sent");
        assert_eq!(deliver(&receiver, &ping).await, StatusCode::UNAUTHORIZED);
    }
    world.sleep(10 * SECOND).await;
    assert!(world.polls().is_empty());
}

#[tokio::test]
async fn poll_mode_sends_no_notification_token() {
    let world = world_with(|op| op.ciba(), |client| client, |poller| poller.receives_pings()).await;
    world.asked().await;
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_refused_request_leaves_no_row_and_releases_its_key() {
    let world = ciba(|op| op.user_code("1234").decisions(DecisionPolicy::scripted())).await;
    let ask = || world.ask().idempotency_key("order 4711");
    for (request, refusal) in [
        (ask(), AuthenticationRefusal::MissingUserCode),
        (ask().user_code("4321"), AuthenticationRefusal::InvalidUserCode),
    ] {
        let error = world.poller.request_authentication(request).await.unwrap_err();
        assert_eq!(AuthenticationRefusal::of(&error), Some(refusal), "{error:?}");
        assert!(world.poller.stats().await.unwrap().is_empty(), "its row is gone");
    }
    deferred(world.poller.request_authentication(ask().user_code("1234")).await.unwrap());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_request_with_a_key_asks_the_user_once_however_often_it_is_repeated() {
    let mut world = undecided().await;
    let client = world.client.clone();
    let ask = |key: &str| client.backchannel_authentication(UserHint::login_hint("user-1")).idempotency_key(key);
    let first = deferred(world.poller.request_authentication(ask("order 1")).await.unwrap());
    world.restart().await;
    assert_eq!(deferred(world.poller.request_authentication(ask("order 1")).await.unwrap()), first);
    assert_eq!(world.asks(), 1);
    assert_ne!(deferred(world.poller.request_authentication(ask("order 2")).await.unwrap()), first);
    world.op.processes()[0].approve();
    let delivery = world.outcome().await;
    assert_eq!(delivery.id(), first);
    delivery.acknowledge().await.unwrap();
    let late = world.poller.request_authentication(ask("order 1")).await.unwrap();
    assert!(matches!(late, AcceptedSignIn::Ended(id) if id == first), "{late:?}");
    assert_eq!(world.asks(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_replica_that_dies_during_the_request_leaves_an_unknown_outcome() {
    let mut world = undecided().await;
    world.op.misbehave(Fault::stall(Endpoint::BackchannelAuthentication));
    let (poller, client) = (world.poller.clone(), world.client.clone());
    let mut asking = JoinSet::new();
    asking.spawn(async move {
        let request = client.backchannel_authentication(UserHint::login_hint("user-1")).context("order 4711");
        poller.request_authentication(request).await
    });
    world.sleep(SECOND).await;
    world.restart().await;
    asking.join_next().await.unwrap().unwrap().unwrap_err();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
    assert_eq!((delivery.context(), world.asks()), (b"order 4711".as_slice(), 1));
}

#[tokio::test]
async fn a_cancellation_is_local() {
    let world = undecided().await;
    let id = world.asked().await;
    assert_eq!(world.poller.cancel(id).await.unwrap(), CancellationStatus::LocallyOnly);
    world.op.last_process().deny();
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
    let request = client.backchannel_authentication(UserHint::login_hint("user-1"));
    let error = other.request_authentication(request).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Misuse(Misuse::UnknownClient));
    assert_eq!(world.asks(), 0);
}

#[tokio::test]
async fn many_users_are_asked_concurrently() {
    let world = ciba(|op| op.decisions(DecisionPolicy::after_polls(1))).await;
    let mut asking = JoinSet::new();
    for number in 0..80_u32 {
        let (poller, client) = (world.poller.clone(), world.client.clone());
        asking.spawn(async move {
            let request = client.backchannel_authentication(UserHint::login_hint(format!("user {number}")));
            let sign_in = poller.request_authentication(request.context(number.to_be_bytes())).await;
            deferred(sign_in.expect("the OP asks the user"))
        });
    }
    let mut waiting: std::collections::BTreeSet<_> = asking.join_all().await.into_iter().collect();
    assert_eq!(waiting.len(), 80);
    let mut outcomes = world.poller.outcomes();
    while !waiting.is_empty() {
        let delivery = next(&mut outcomes).await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        assert!(waiting.remove(&delivery.id()));
        delivery.acknowledge().await.unwrap();
    }
    world.op.assert_clean();
}
