//! A store that is out of reach, or whose clock jumps.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_core::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use openid_deferred::ping::Receiver;
use openid_deferred::poller::Event;
use openid_deferred::store::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, Clamp, Clamped, HeldOutcome, Insertion, KeyStats,
    MemoryStore, NewProcess, OutcomeClaim, Outcomes, Partition, PartitionStats, Pinged, Process, ProcessId, Reseal,
    Settlement, Store, StoreError, StoreProblem, Work,
};
use openid_deferred::testing::{DecisionPolicy, Endpoint, SeededRandom, TestClock, TestProvider};
use openid_deferred::{Accepted, AuthorizationSession, Client, ErrorKind, Outcome, Poller};

use crate::support::{HOUR, SECOND, client_of, keyring, next, ping_request, provider};

/// A store that the test can take out of reach, and whose clock it can move.
#[derive(Debug, Clone)]
struct Troubled(Arc<Trouble>);

#[derive(Debug)]
struct Trouble {
    store: MemoryStore,
    is_down: AtomicBool,
    ahead: AtomicU64,
    calls: Mutex<Vec<&'static str>>,
}

impl Troubled {
    fn on(clock: &TestClock) -> Self {
        Self(Arc::new(Trouble {
            store: MemoryStore::with_clock(Arc::new(clock.clone())),
            is_down: AtomicBool::new(false),
            ahead: AtomicU64::new(0),
            calls: Mutex::default(),
        }))
    }

    fn fails(&self, call: &'static str) -> Result<(), StoreError> {
        self.0.calls.lock().unwrap().push(call);
        match self.0.is_down.load(Ordering::Relaxed) {
            true => Err(StoreError::new(StoreProblem::Unavailable)),
            false => Ok(()),
        }
    }

    fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }
}

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {$(
        fn $method(&self, $($name: $type),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            Box::pin(async move {
                self.fails(stringify!($method))?;
                self.0.store.$method($($name),*).await
            })
        }
    )*};
}

impl Store for Troubled {
    forward! {
        insert(process: NewProcess) -> Insertion;
        load(id: ProcessId) -> Option<Process>;
        ping(ping: openid_deferred::store::Ping) -> Pinged;
        cancel(id: ProcessId, to: Cancellation) -> Option<Cancellation>;
        claim_outcomes(claim: OutcomeClaim) -> Outcomes;
        hold_outcomes(held: Vec<HeldOutcome>, due_in: Duration) -> Vec<bool>;
        acknowledge(acknowledgements: Vec<Acknowledgement>) -> Vec<Acknowledged>;
        forget(id: ProcessId) -> bool;
        purge(limit: usize) -> usize;
        spread(partition: Partition, overdue_for: Duration, limit: usize) -> usize;
        clamp_due_times(clamp: Clamp) -> Clamped;
        sealed_otherwise(key: [u8; 4], after: Option<ProcessId>, limit: usize) -> Vec<Process>;
        reseal(reseals: Vec<Reseal>) -> Vec<bool>;
        keys() -> Vec<KeyStats>;
        stats() -> Vec<PartitionStats>;
    }

    fn work(&self, settlements: Vec<Settlement>, claim: Option<Claim>) -> BoxFuture<'_, Result<Work, StoreError>> {
        Box::pin(async move {
            self.fails("work")?;
            let mut work = self.0.store.work(settlements, claim).await?;
            work.now += Duration::from_secs(self.0.ahead.load(Ordering::Relaxed));
            Ok(work)
        })
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        self.0.store.changed()
    }

    fn look_every(&self) -> Duration {
        10 * SECOND
    }
}

struct World {
    op: TestProvider,
    clock: TestClock,
    client: Client,
    store: Troubled,
    poller: Poller,
}

async fn world(decisions: DecisionPolicy) -> World {
    let clock = TestClock::automatic();
    let op = provider(&clock).decisions(decisions).start().unwrap();
    let client = client_of(&op, &clock).build().unwrap();
    let store = Troubled::on(&clock);
    let builder = Poller::builder(store.clone(), keyring()).receives_pings().client(client.clone());
    let (seconds, random) = (Arc::new(clock.clone()), Arc::new(SeededRandom::new(3)));
    let poller = builder.clock(seconds).random(random).start().await.unwrap();
    World { op, clock, client, store, poller }
}

impl World {
    async fn user_returns(&self) -> (String, AuthorizationSession) {
        let (url, session) = self.client.authorize().start().await.unwrap();
        (self.op.visit(url).query(), session)
    }

    async fn waiting(&self) -> ProcessId {
        let (query, session) = self.user_returns().await;
        match self.poller.authorization_response(&query, session).await {
            Ok(Accepted::Deferred(id)) => id,
            other => panic!("expected a deferral, got {other:?}"),
        }
    }

    async fn sleep(&self, duration: Duration) {
        openid_deferred::Clock::sleep(&self.clock, duration).await;
    }
}

#[tokio::test]
async fn a_store_that_is_down_before_the_exchange_leaves_the_code_unspent() {
    let world = world(DecisionPolicy::immediately()).await;
    let (query, session) = world.user_returns().await;
    let sealed = session.seal(&keyring()).unwrap();
    world.store.set_down(true);
    let error = world.poller.authorization_response(&query, session).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (&ErrorKind::Store, true));
    assert!(world.op.requests_to(Endpoint::Exchange).is_empty());
    world.store.set_down(false);
    let session = AuthorizationSession::open(&keyring(), &sealed).unwrap();
    assert!(world.poller.authorization_response(&query, session).await.is_ok());
    world.op.assert_clean();
}

#[tokio::test]
async fn an_outage_of_the_store_asks_nothing_and_loses_nobody() {
    let world = world(DecisionPolicy::after_polls(3)).await;
    for _ in 0..10 {
        world.waiting().await;
    }
    world.sleep(7 * SECOND).await;
    let polls = world.op.requests_to(Endpoint::Poll).len();
    world.store.set_down(true);
    world.sleep(3 * HOUR).await;
    assert!(world.op.requests_to(Endpoint::Poll).len() <= 2 * polls, "only what was under way was finished");
    world.store.set_down(false);
    let mut outcomes = world.poller.outcomes();
    for _ in 0..10 {
        let delivery = next(&mut outcomes).await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn an_outage_between_an_answer_and_its_settlement_loses_no_success() {
    let world = world(DecisionPolicy::immediately()).await;
    world.waiting().await;
    world.op.misbehave(openid_deferred::testing::Fault::delay(Endpoint::Poll, 2 * SECOND).after_processing());
    while world.op.requests_to(Endpoint::Poll).is_empty() {
        world.sleep(SECOND).await;
    }
    world.store.set_down(true);
    // Longer than the lease: by then somebody else may have taken the row over.
    world.sleep(2 * HOUR).await;
    world.store.set_down(false);
    let delivery = next(&mut world.poller.outcomes()).await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.op.requests_to(Endpoint::Poll).len(), 1);
}

#[tokio::test]
async fn the_receiver_says_503_while_the_store_is_down_and_refuses_forgeries_without_it() {
    let world = world(DecisionPolicy::scripted()).await;
    world.waiting().await;
    let process = world.op.last_process();
    let (token, id) = (process.notification_token().unwrap(), process.deferred_auth_id().unwrap());
    let receiver = Receiver::new(world.poller.clone());
    let body = format!("{{\"deferred_auth_id\":\"{id}\"}}");
    let receive = async |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        receiver.receive(ping_request(Method::POST, &headers, &*body)).await.status()
    };
    world.store.set_down(true);
    assert_eq!(receive(&token).await, StatusCode::SERVICE_UNAVAILABLE);
    world.store.set_down(false);
    world.store.0.calls.lock().unwrap().clear();
    let mut forged = token.clone();
    forged.replace_range(90..91, if &token[90..91] == "A" { "B" } else { "A" });
    assert_eq!(receive(&forged).await, StatusCode::UNAUTHORIZED);
    assert!(world.store.0.calls.lock().unwrap().is_empty(), "a forged token dies before the store hears of it");
    assert_eq!(receive(&token).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_jump_of_the_stores_clock_is_told_and_asks_nobody_early() {
    let world = world(DecisionPolicy::scripted()).await;
    world.waiting().await;
    let mut events = world.poller.events();
    world.sleep(7 * SECOND).await;
    world.store.0.ahead.store(3_600, Ordering::Relaxed);
    world.sleep(HOUR).await;
    let mut jumps = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::ClockJumped { by } = event {
            jumps.push(by.as_secs());
        }
    }
    assert_eq!(jumps, [3_600]);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_keyring_that_ends_with_the_process_is_refused_for_a_store_that_does_not() {
    let world = world(DecisionPolicy::scripted()).await;
    let ephemeral = openid_deferred::Keyring::ephemeral().unwrap();
    let error = Poller::builder(world.store.clone(), ephemeral.clone()).start().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
    assert!(Poller::builder(MemoryStore::new(), ephemeral).start().await.is_ok());
}

#[tokio::test]
async fn a_store_that_is_gone_is_not_counted_again_and_again_without_a_pause() {
    let clock = TestClock::new();
    let store = Troubled::on(&clock);
    let _poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock)).start().await.unwrap();
    store.set_down(true);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let counts = store.0.calls.lock().unwrap().iter().filter(|call| **call == "stats").count();
    assert_eq!(counts, 1);
}
