//! Answers that arrive after the caller has gone away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, TestClock};
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use openid_deferred::{Clock as _, Delivery, Outcome, PendingAuthentication, SignIn};

use crate::support::{HOUR, SECOND, World, client_of, poller_of, provider, world, world_of};

/// A sign-in that the client handles without the poller. Its first poll, which brings the success, is in flight, and
/// the future of that poll was dropped.
async fn with_a_poll_under_way(world: &World) -> PendingAuthentication {
    let (query, session) = world.user_returns().await;
    let Ok(SignIn::Deferred(mut pending)) = world.client.authorization_response(&query, session).await else {
        panic!("it was not deferred")
    };
    world.op.misbehave(Fault::delay(Endpoint::Poll, 10 * SECOND));
    world.sleep(6 * SECOND).await;
    tokio::select! {
        biased;
        polled = world.client.poll(&mut pending) => panic!("it ended before it could be dropped: {polled:?}"),
        () = world.sleep(SECOND) => {}
    }
    assert_eq!(world.polls().len(), 1);
    pending
}

#[tokio::test]
async fn a_process_is_tracked_with_the_success_that_a_dropped_poll_brings() {
    for absence in [Duration::ZERO, HOUR] {
        let world = world_of(|op| op.decisions(DecisionPolicy::immediately())).await;
        let pending = with_a_poll_under_way(&world).await;
        world.sleep(absence).await;
        world.poller.track(&pending).await.unwrap();
        drop(pending);
        let delivery = world.outcome().await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        assert_eq!(world.polls().len(), 1);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_process_whose_dropped_poll_is_answered_with_pending_is_tracked_and_polled() {
    let world = world().await;
    let pending = with_a_poll_under_way(&world).await;
    world.poller.track(&pending).await.unwrap();
    drop(pending);
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.polls().len(), 2);
    world.op.assert_clean();
}

/// A network that holds the answer to the first poll.
#[derive(Debug)]
struct Holding {
    behind: Arc<dyn HttpClient>,
    clock: TestClock,
    time: Duration,
    has_held: AtomicBool,
}

/// The lease of a poll without a signer ends after three poll timeouts and the time to send it.
const LEASE: Duration = Duration::from_secs(3 * 90 + 5);

impl HttpClient for Holding {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let body = String::from_utf8_lossy(&request.body);
        let is_poll = body.contains("deferred_auth_id=");
        Box::pin(async move {
            let response = self.behind.send(request).await;
            if is_poll && !self.has_held.swap(true, Ordering::Relaxed) {
                self.clock.sleep(self.time).await;
            }
            response
        })
    }
}

async fn world_behind_a_network_that_holds_an_answer_for(time: Duration) -> World {
    let clock = TestClock::automatic();
    let op = provider(&clock).decisions(DecisionPolicy::immediately()).start().unwrap();
    let network = Holding { behind: op.http_client(), clock: clock.clone(), time, has_held: AtomicBool::new(false) };
    let client = client_of(&op, &clock).http_client(Arc::new(network)).build().unwrap();
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let poller = poller_of(&store, &clock, 3).client(client.clone()).start().await.unwrap();
    World { op, clock, client, store, poller }
}

#[tokio::test]
async fn a_success_read_after_a_suspend_is_validated_by_its_time_of_receipt() {
    let world = world_behind_a_network_that_holds_an_answer_for(60 * SECOND).await;
    world.waiting().await;
    while world.polls().is_empty() {
        world.sleep(SECOND).await;
    }
    world.clock.suspend(24 * HOUR);
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.polls().len(), 1);
}

/// A delivered `Unknown` that is not acknowledged, and the delivery that follows when the success arrives this late.
async fn unknown_and_its_replacement(late: Duration) -> [Delivery; 2] {
    let world = world_behind_a_network_that_holds_an_answer_for(LEASE + late).await;
    world.waiting().await;
    let unknown = world.outcome().await;
    assert!(matches!(unknown.outcome(), Outcome::Unknown), "{unknown:?}");
    let replacement = world.outcome().await;
    assert_eq!(replacement.id(), unknown.id());
    [unknown, replacement]
}

#[tokio::test]
async fn a_late_success_replaces_an_unknown_outcome_that_was_not_acknowledged() {
    let [unknown, replacement] = unknown_and_its_replacement(60 * SECOND).await;
    assert!(matches!(replacement.outcome(), Outcome::Approved(_)), "{replacement:?}");
    unknown.acknowledge().await.unwrap();
    replacement.acknowledge().await.unwrap();
}

#[tokio::test]
async fn a_late_success_whose_id_token_has_expired_replaces_an_unknown_outcome_as_invalid() {
    let [_unknown, replacement] = unknown_and_its_replacement(500 * SECOND).await;
    assert!(matches!(replacement.outcome(), Outcome::Invalid(_)), "{replacement:?}");
}

#[tokio::test]
async fn a_success_received_after_the_lease_of_its_poll_is_stored() {
    let world = world_behind_a_network_that_holds_an_answer_for(LEASE + SECOND).await;
    world.waiting().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.polls().len(), 1);
    world.op.assert_clean();
}
