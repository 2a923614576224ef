//! Genuine answers with an unusual status or format.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery, TestClient, TestClock};
use openid_deferred::{ClientAuthentication, Clock as _, Error, Outcome, Signer, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};

use crate::support::{CLIENT_ID, HOUR, REDIRECT_URI, SECOND, World, client_of, poller_of, provider, world_of};

#[tokio::test]
async fn an_unusual_final_answer_is_stored_and_validated_later() {
    for fault in [
        Fault::byte_order_mark(Endpoint::Poll),
        Fault::success_status(Endpoint::Poll, 202),
        Fault::edit_json(Endpoint::Poll, |members| drop(members.insert("error".into(), json!("")))),
    ] {
        let name = format!("{fault:?}");
        let mut world = world_of(|op| op.decisions(DecisionPolicy::immediately())).await;
        world.waiting().await;
        world.op.misbehave(fault);
        world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
        world.sleep(60 * SECOND).await;
        world.restart().await;
        world.op.behave();
        world.sleep(2 * HOUR).await;
        let delivery = world.outcome().await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{name}: {delivery:?}");
        assert_eq!(world.polls().len(), 1, "{name}");
        world.op.assert_clean();
    }
}

/// A stored answer has a few levels more than the answer itself, and must still be readable.
#[tokio::test]
async fn a_deeply_nested_answer_does_not_prevent_an_outcome() {
    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!([]), |inner, _| json!([inner]))
    }
    for levels in [90, 120, 122, 124, 126] {
        let in_answer = Fault::edit_json(Endpoint::Poll, move |members| {
            members.insert("extension".into(), nested(levels));
        });
        let in_interim = IdTokenForgery::claims(move |claims| drop(claims.insert("extension".into(), nested(levels))));
        for fault in [in_answer, Fault::id_token(Endpoint::Exchange, in_interim)] {
            let name = format!("{levels} {fault:?}");
            let world = world_of(|op| op.decisions(DecisionPolicy::after_polls(1))).await;
            world.op.misbehave(fault);
            let id = world.waiting().await;
            let delivery = tokio::select! {
                biased;
                delivery = world.outcome() => delivery,
                () = world.sleep(HOUR) => panic!("{name}: no outcome"),
            };
            assert_eq!(delivery.id(), id, "{name}");
            assert!(levels > 90 || matches!(delivery.outcome(), Outcome::Approved(_)), "{name}: {delivery:?}");
        }
    }
}

#[tokio::test]
async fn tokens_beside_a_denial_are_revoked_and_the_denial_counts() {
    let world = world_of(|op| op.decisions(DecisionPolicy::immediately())).await;
    world.waiting().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, |members| {
        members.insert("error".into(), json!("access_denied"));
    }));
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Denied(_)), "{delivery:?}");
    world.sleep(SECOND).await;
    assert_eq!((world.polls().len(), world.op.requests_to(Endpoint::Revocation).len()), (1, 2));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_denial_counts_with_every_status_that_gateways_do_not_send() {
    for status in [200, 403, 404, 429] {
        let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
        world.waiting().await;
        world.op.misbehave(Fault::error_with_status(Endpoint::Poll, status, "access_denied"));
        let delivery = world.outcome().await;
        assert!(matches!(delivery.outcome(), Outcome::Denied(_)), "{status}: {delivery:?}");
    }
    let world = world_of(|op| op).await;
    world.waiting().await;
    world.op.misbehave(Fault::error_with_status(Endpoint::Poll, 502, "access_denied"));
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
}

#[tokio::test]
async fn a_user_whose_exchange_was_refused_can_reload() {
    let world = world_of(|op| op).await;
    let (query, session) = world.user_returns().await;
    let sealed = session.seal(&crate::support::keyring()).unwrap();
    let session = || openid_deferred::AuthorizationSession::open(&crate::support::keyring(), &sealed).unwrap();
    world.op.misbehave(Fault::status(Endpoint::Exchange, 429));
    let error = world.poller.authorization_response(&query, session()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let _ = world.poller.authorization_response(&query, session()).await.unwrap();
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
    world.op.assert_clean();
}

/// A slow key management service that counts its requests.
#[derive(Debug)]
struct SlowSigner(SigningKey, TestClock, Duration, Arc<AtomicUsize>);

impl Signer for SlowSigner {
    fn algorithm(&self) -> SigningAlgorithm {
        self.0.algorithm()
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        Box::pin(async move {
            self.3.fetch_add(1, Ordering::Relaxed);
            self.1.sleep(self.2).await;
            self.0.sign(message).await
        })
    }
}

/// A client whose signatures take this long, and the number of signatures that it has begun.
async fn slow_world(signature: Duration) -> (World, Arc<AtomicUsize>) {
    let clock = TestClock::automatic();
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let jwk = serde_json::to_string(&key.public_jwk()).unwrap();
    let registered = TestClient::private_key_jwt(CLIENT_ID, &jwk).redirect_uri(REDIRECT_URI);
    let op = provider(&clock).client(registered).decisions(DecisionPolicy::immediately()).start().unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let signer = SlowSigner(key, clock.clone(), signature, begun.clone());
    let client = client_of(&op, &clock)
        .authentication(ClientAuthentication::private_key_jwt(signer))
        .request_timeout(30 * SECOND)
        .poll_timeout(30 * SECOND)
        .build()
        .unwrap();
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let poller = poller_of(&store, &clock, 3).client(client.clone()).start().await.unwrap();
    (World { op, clock, client, store, poller }, begun)
}

#[tokio::test]
async fn a_lease_covers_a_slow_signer_a_nonce_challenge_and_a_long_poll() {
    let (world, _) = slow_world(29 * SECOND).await;
    world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, 29 * SECOND).times(2));
    world.op.misbehave(Fault::error(Endpoint::Poll, "use_dpop_nonce").header("DPoP-Nonce", "n1"));
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.polls().len(), 2, "the challenge and the answer");
}

#[tokio::test]
async fn a_poll_whose_assertion_was_signed_during_a_suspend_is_not_sent() {
    let (world, begun) = slow_world(3 * SECOND).await;
    world.waiting().await;
    let before = begun.load(Ordering::Relaxed);
    while begun.load(Ordering::Relaxed) == before {
        world.sleep(SECOND / 2).await;
    }
    assert_eq!(world.polls().len(), 0, "its assertion is being signed");
    // Its lease ends, and another replica may claim the row.
    world.clock.suspend(HOUR);
    let resumed_at = world.clock.monotonic();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    let [poll] = &world.polls()[..] else { panic!("one poll: {:?}", world.polls()) };
    assert!(poll.arrived >= resumed_at + 3 * SECOND, "the row is claimed again, and its assertion is signed anew");
    world.op.assert_clean();
}
