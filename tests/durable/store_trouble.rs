//! A store that is unavailable, slow or broken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use openid_deferred::ping::Receiver;
use openid_deferred::poller::{AcceptedSignIn, AcceptedTokenRequest, Event, Events, Limits};
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, PingForgery, TestClient, TestClock};
use openid_deferred::{
    AuthorizationSession, ClientAuthentication, Clock as _, Error, ErrorKind, Grant, Outcome, Poller, Signer,
    SigningAlgorithm, SigningKey,
};

use crate::faulty_store::{FaultyStore, World, poller_on, world, world_with};
use crate::pings::deliver;
use crate::support::{
    CLIENT_ID, HOUR, REDIRECT_URI, SECOND, client_of, happened, keyring, next, ping_request, provider,
};

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
async fn no_poll_is_sent_and_no_sign_in_is_lost_during_an_outage_of_the_store() {
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
    world.op.misbehave(Fault::delay(Endpoint::Poll, 2 * SECOND).after_processing());
    while world.op.requests_to(Endpoint::Poll).is_empty() {
        world.sleep(SECOND).await;
    }
    world.store.set_down(true);
    // Longer than the lease: another replica may have claimed the row by then.
    world.sleep(2 * HOUR).await;
    world.store.set_down(false);
    let delivery = next(&mut world.poller.outcomes()).await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.op.requests_to(Endpoint::Poll).len(), 1);
}

#[tokio::test]
async fn the_ping_receiver_answers_503_while_the_store_is_down_and_still_refuses_forgeries() {
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
    world.store.forget_calls();
    let mut forged = token.clone();
    forged.replace_range(90..91, if &token[90..91] == "A" { "B" } else { "A" });
    assert_eq!(receive(&forged).await, StatusCode::UNAUTHORIZED);
    assert_eq!(world.store.calls(), 0, "a forged token dies before the store hears of it");
    assert_eq!(receive(&token).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_jump_of_the_stores_clock_is_reported_and_advances_no_poll() {
    let world = world(DecisionPolicy::scripted()).await;
    world.waiting().await;
    let mut events = world.poller.events();
    world.sleep(7 * SECOND).await;
    world.store.jump_forward(HOUR);
    world.sleep(HOUR).await;
    let mut jumps = Vec::new();
    while let Some(event) = happened(&mut events) {
        if let Event::ClockJumped { by } = event {
            jumps.push(by.as_secs());
        }
    }
    assert_eq!(jumps, [3_600]);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_ephemeral_keyring_is_refused_for_a_persistent_store() {
    let world = world(DecisionPolicy::scripted()).await;
    let ephemeral = openid_deferred::Keyring::ephemeral().unwrap();
    let error = Poller::builder(world.store.clone(), ephemeral.clone()).start().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
    assert!(Poller::builder(MemoryStore::new(), ephemeral).start().await.is_ok());
}

#[tokio::test]
async fn counting_the_rows_of_an_unavailable_store_is_retried_with_pauses() {
    let clock = TestClock::new();
    let store = FaultyStore::on(&clock);
    let _poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock)).start().await.unwrap();
    store.set_down(true);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.count("stats"), 2, "once to spread what is overdue, and once to look for rows of unknown clients");
}

#[tokio::test]
async fn a_store_that_needs_six_seconds_for_a_call_does_not_stop_the_polls() {
    let world = world(DecisionPolicy::after_polls(3)).await;
    for _ in 0..20 {
        world.waiting().await;
    }
    world.store.set_delay(6 * SECOND, Duration::ZERO);
    world.approvals(20, 10 * 60 * SECOND).await;
    world.op.assert_clean();
}

#[tokio::test]
async fn a_ping_is_used_up_when_the_store_is_too_slow_for_its_poll() {
    let (sender, pings) = std::sync::mpsc::channel();
    let world = world_with(
        |op| {
            op.interval(HOUR).decisions(DecisionPolicy::scripted()).on_ping(move |ping| {
                sender.send(ping.clone()).unwrap();
                204
            })
        },
        |client| client,
    )
    .await;
    world.waiting().await;
    let receiver = Receiver::new(world.poller.clone());
    let ping = async || {
        world.op.last_process().send_ping(PingForgery::Genuine);
        assert_eq!(deliver(&receiver, &pings.recv().unwrap()).await, StatusCode::NO_CONTENT);
    };
    world.sleep(60 * SECOND).await;
    world.store.set_delay(6 * SECOND, Duration::ZERO);
    ping().await;
    world.sleep(6 * SECOND + SECOND / 2).await;
    assert_eq!(world.polls(), 0, "it was claimed too slowly and is given back");
    world.store.set_delay(Duration::ZERO, Duration::ZERO);
    world.sleep(600 * SECOND).await;
    assert_eq!(world.polls(), 1);
    ping().await;
    world.sleep(60 * SECOND).await;
    assert_eq!(world.polls(), 1, "one ping counts in an interval");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_store_that_is_slow_for_many_rows_gets_smaller_claims() {
    let decisions = DecisionPolicy::after(HOUR / 2);
    let mut world = world_with(|op| op.interval(60 * SECOND).decisions(decisions), |client| client).await;
    world.poller.shutdown(Duration::ZERO).await;
    let limits = Limits::new().in_flight(500);
    let builder = poller_on(&world.store, &world.clock, 5).limits(limits).client(world.client.clone());
    world.poller = builder.start().await.unwrap();
    for _ in 0..300 {
        world.waiting().await;
    }
    world.store.set_delay(Duration::ZERO, SECOND / 10);
    world.sleep(300 * SECOND).await;
    let polls = world.polls();
    world.store.forget_calls();
    world.sleep(900 * SECOND).await;
    let works = world.store.works();
    assert!(works.iter().all(|work| work.settled + work.claimed <= 64), "{works:?}");
    let polls = world.polls() - polls;
    assert!(polls >= 300 * 10, "{polls} polls in 15 min");
    world.store.set_delay(Duration::ZERO, Duration::ZERO);
    world.approvals(300, HOUR).await;
    world.op.assert_clean();
}

#[tokio::test]
async fn a_shutdown_ends_within_its_grace_period_with_a_slow_store() {
    let world = world(DecisionPolicy::scripted()).await;
    for _ in 0..5 {
        world.waiting().await;
    }
    world.sleep(4 * SECOND).await;
    world.store.set_delay(HOUR, Duration::ZERO);
    world.sleep(2 * SECOND).await;
    let before = world.clock.monotonic();
    world.poller.shutdown(SECOND).await;
    let took = world.clock.monotonic() - before;
    assert!(took <= 2 * SECOND, "{took:?}");
}

#[tokio::test]
async fn a_shutdown_retries_storing_answers_of_the_op_for_one_more_second() {
    let mut world = world(DecisionPolicy::immediately()).await;
    world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, 5 * SECOND).after_processing());
    world.sleep(9 * SECOND).await;
    assert_eq!(world.polls(), 1);
    // The answer arrives within the grace period, and its settlement needs longer.
    world.store.set_delay(3 * SECOND, Duration::ZERO);
    world.poller.shutdown(2 * SECOND).await;
    world.store.set_delay(Duration::ZERO, Duration::ZERO);
    world.sleep(HOUR).await;
    world.poller = world.replica(9).await;
    world.approvals(1, HOUR).await;
    assert_eq!(world.polls(), 1, "it was never asked for again");
}

#[tokio::test]
async fn a_panic_of_the_store_is_reported_and_polling_continues() {
    let world = world(DecisionPolicy::after_polls(3)).await;
    let mut events = world.poller.events();
    for _ in 0..5 {
        world.waiting().await;
    }
    world.sleep(7 * SECOND).await;
    world.store.panic_next(10);
    world.approvals(5, HOUR).await;
    assert_eq!(world.store.panics_left(), 0);
    let panics = std::iter::from_fn(|| happened(&mut events))
        .filter(|event| matches!(event, Event::Panicked { id: None }))
        .count();
    assert_eq!(panics, 10);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_engine_that_panics_restarts_after_a_pause() {
    let world = world(DecisionPolicy::after_polls(2)).await;
    let mut events = world.poller.events();
    world.store.panic_in_changed(3);
    for _ in 0..3 {
        world.waiting().await;
    }
    world.sleep(60 * SECOND).await;
    assert_eq!(world.store.panics_left(), 0);
    let panics = std::iter::from_fn(|| happened(&mut events))
        .filter(|event| matches!(event, Event::Panicked { id: None }))
        .count();
    assert_eq!(panics, 3);
    world.approvals(3, HOUR).await;
    world.op.assert_clean();
}

#[tokio::test]
async fn an_answer_of_the_op_is_stored_after_panics_of_the_store() {
    let world = world(DecisionPolicy::immediately()).await;
    world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, 2 * SECOND).after_processing());
    while world.polls() == 0 {
        world.sleep(SECOND / 2).await;
    }
    world.store.panic_next(5);
    world.approvals(1, HOUR).await;
    assert_eq!(world.polls(), 1, "it was never asked for again");
}

#[tokio::test]
async fn the_answer_to_an_exchange_is_stored_after_panics_of_the_store() {
    let world = world(DecisionPolicy::immediately()).await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, 4 * SECOND));
    let (id, ()) = tokio::join!(world.waiting(), async {
        world.sleep(2 * SECOND).await;
        world.store.panic_next(3);
    });
    assert_eq!(world.store.panics_left(), 0);
    let delivery = next(&mut world.poller.outcomes()).await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(delivery.id(), id);
}

/// A key management service with an intermittent fault.
#[derive(Debug)]
struct FaultySigner(SigningKey, Arc<AtomicUsize>);

impl Signer for FaultySigner {
    fn algorithm(&self) -> SigningAlgorithm {
        self.0.algorithm()
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        let panics = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(panics.is_err(), "the signer has a mistake");
        self.0.sign(message)
    }
}

#[tokio::test]
async fn a_signer_that_panics_costs_one_poll_and_ends_no_sign_in() {
    let clock = TestClock::automatic();
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let jwk = serde_json::to_string(&key.public_jwk()).unwrap();
    let registered = TestClient::private_key_jwt(CLIENT_ID, &jwk).redirect_uri(REDIRECT_URI);
    let op = provider(&clock).client(registered).decisions(DecisionPolicy::after_polls(3)).start().unwrap();
    let panics = Arc::new(AtomicUsize::new(0));
    let signer = FaultySigner(key, panics.clone());
    let client = client_of(&op, &clock).authentication(ClientAuthentication::private_key_jwt(signer)).build().unwrap();
    let store = FaultyStore::on(&clock);
    let poller = poller_on(&store, &clock, 3).client(client.clone()).start().await.unwrap();
    let mut events = poller.events();
    let world = World { op, clock, client, store, poller };
    for _ in 0..5 {
        world.waiting().await;
    }
    panics.store(2, Ordering::Relaxed);
    world.approvals(5, HOUR).await;
    let panicked: BTreeSet<_> = std::iter::from_fn(|| happened(&mut events))
        .filter_map(|event| match event {
            Event::Panicked { id } => Some(id.expect("it was a poll")),
            _ => None,
        })
        .collect();
    assert_eq!(panicked.len(), 2);
}

#[tokio::test]
async fn overdue_polls_are_spread_over_the_remaining_lifetime_of_each_process() {
    const PROCESSES: usize = 300;
    let mut world = world_with(
        |op| op.interval(HOUR / 2).expires_in(2 * HOUR).decisions(DecisionPolicy::after(HOUR)),
        |client| client,
    )
    .await;
    for _ in 0..PROCESSES {
        world.waiting().await;
    }
    let began = world.clock.monotonic();
    world.sleep(HOUR / 6).await;
    world.store.set_down(true);
    world.sleep(began + 110 * 60 * SECOND - world.clock.monotonic()).await;
    world.store.set_down(false);
    for seed in 20..23 {
        world.sleep(60 * SECOND).await;
        world.poller.shutdown(SECOND).await;
        world.poller = world.replica(seed).await;
    }
    world.approvals(PROCESSES, HOUR).await;
    let arrived: Vec<_> = world.op.requests_to(Endpoint::Poll).iter().map(|poll| poll.arrived).collect();
    let busiest = arrived.iter().map(|at| arrived.iter().filter(|other| (*at..*at + SECOND).contains(*other)).count());
    assert!(busiest.max().unwrap() < 100, "they are spread");
    world.op.assert_clean();
}

#[tokio::test]
async fn overdue_polls_are_spread_without_counts_if_the_store_counts_too_slowly() {
    let mut world =
        world_with(|op| op.interval(HOUR / 6).no_expiry().decisions(DecisionPolicy::scripted()), |client| client).await;
    world.waiting().await;
    world.poller.shutdown(Duration::ZERO).await;
    world.sleep(HOUR).await;
    for method in ["stats", "keys"] {
        world.store.delay(method, Duration::from_millis(22_500));
        world.store.fail(method);
    }
    world.store.forget_calls();
    world.poller = world.replica(7).await;
    world.sleep(HOUR).await;
    let [stats, keys, spread] = ["stats", "keys", "spread"].map(|method| world.store.take_calls(method));
    assert!(stats <= 4 && keys <= 3, "{stats} counts of rows and {keys} of keys in an hour, each of 22.5 s");
    assert!(spread > 0, "what the outage left overdue is spread");
}

#[tokio::test]
async fn a_store_that_fails_is_reported_once_a_minute() {
    let world = world(DecisionPolicy::scripted()).await;
    world.waiting().await;
    let mut events = world.poller.events();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut outcomes = world.poller.outcomes();
        streams.spawn(async move { while outcomes.next().await.is_some() {} });
    }
    world.sleep(60 * SECOND).await;
    world.store.set_down(true);
    world.sleep(HOUR).await;
    let reported =
        std::iter::from_fn(|| happened(&mut events)).filter(|event| matches!(event, Event::StoreFailed { .. })).count();
    assert!((30..=61).contains(&reported), "{reported} times in an hour");
}

#[tokio::test]
async fn a_correction_of_due_times_that_fails_is_reported() {
    let world = world(DecisionPolicy::scripted()).await;
    world.waiting().await;
    world.sleep(10 * 60 * SECOND).await;
    let mut events = world.poller.events();
    world.store.fail("correct_due_times");
    world.store.jump_forward(HOUR);
    world.sleep(HOUR).await;
    let told: Vec<_> = std::iter::from_fn(|| happened(&mut events)).collect();
    assert!(told.iter().any(|event| matches!(event, Event::ClockJumped { .. })), "{told:?}");
    let troubles = told.iter().filter(|event| matches!(event, Event::StoreFailed { .. })).count();
    assert!((30..=61).contains(&troubles), "{troubles} times in an hour, in which nothing is polled");
}

/// How often the store was reported to fail since this was last asked.
fn store_troubles(events: &mut Events) -> usize {
    std::iter::from_fn(|| happened(events)).filter(|event| matches!(event, Event::StoreFailed { .. })).count()
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_reported_within_a_minute_and_polls_resume_when_it_does() {
    let world = world(DecisionPolicy::after_polls(3)).await;
    for _ in 0..10 {
        world.waiting().await;
    }
    world.sleep(7 * SECOND).await;
    let mut events = world.poller.events();
    world.store.set_hanging(true);
    // What is due next is due within five seconds.
    world.sleep(66 * SECOND).await;
    assert_eq!(store_troubles(&mut events), 1);
    let polls = world.polls();
    for _ in 0..20 {
        world.sleep(HOUR).await;
        let reported = store_troubles(&mut events);
        assert!((10..=61).contains(&reported), "{reported} times in an hour");
    }
    assert!(world.polls() <= polls + 10, "only what was under way was finished");
    // All calls that were given up take effect now, their claims too.
    world.store.set_hanging(false);
    world.approvals(10, HOUR).await;
    world.op.assert_clean();
}

#[tokio::test]
async fn a_replica_without_polling_and_a_stream_of_outcomes_report_a_store_that_never_answers() {
    let world = world(DecisionPolicy::immediately()).await;
    world.poller.shutdown(SECOND).await;
    let serving = poller_on(&world.store, &world.clock, 8).client(world.client.clone()).connect().await.unwrap();
    let (query, session) = world.user_returns().await;
    let mut events = serving.events();
    let mut outcomes = serving.outcomes();
    world.store.set_hanging(true);
    let began = world.clock.monotonic();
    let (told, status, ()) = tokio::join!(
        serving.authorization_response(&query, session),
        serving.status(openid_deferred::store::ProcessId::from_bytes([1; 16])),
        async {
            tokio::select! {
                biased;
                delivery = outcomes.next() => panic!("{delivery:?}"),
                () = world.sleep(70 * SECOND) => {}
            }
        }
    );
    for error in [told.unwrap_err(), status.unwrap_err()] {
        assert_eq!((error.kind(), error.is_transient()), (&ErrorKind::Store, true));
    }
    assert!(world.clock.monotonic() - began <= 70 * SECOND);
    assert!(world.op.requests_to(Endpoint::Exchange).is_empty());
    assert_eq!(store_troubles(&mut events), 1);
}

#[tokio::test]
async fn starting_on_a_store_that_never_answers_fails_after_a_minute() {
    let world = world(DecisionPolicy::immediately()).await;
    world.store.set_hanging(true);
    let began = world.clock.monotonic();
    let builder = poller_on(&world.store, &world.clock, 8);
    let started = tokio::select! {
        biased;
        started = builder.start() => started,
        () = world.sleep(HOUR) => panic!("it hangs with the store"),
    };
    assert_eq!(started.unwrap_err().kind(), &ErrorKind::Store);
    assert!(world.clock.monotonic() - began <= 61 * SECOND);
}

/// A user returns, and the store goes down after the code was sent.
async fn user_whose_store_goes_down(world: &World, hangs: bool) -> (Result<AcceptedSignIn, Error>, Duration) {
    let (query, session) = world.user_returns().await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, 4 * SECOND));
    let began = world.clock.monotonic();
    let told = async {
        let told = world.poller.authorization_response(&query, session).await;
        (told, world.clock.monotonic() - began)
    };
    let outage = async {
        world.sleep(2 * SECOND).await;
        assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1, "the code was sent");
        if hangs { world.store.set_hanging(true) } else { world.store.set_down(true) }
    };
    tokio::select! {
        biased;
        (told, ()) = async { tokio::join!(told, outage) } => told,
        () = world.sleep(8 * HOUR) => panic!("the user waits for the whole outage of the store"),
    }
}

#[tokio::test]
async fn a_user_does_not_wait_while_the_answer_to_the_exchange_cannot_be_stored() {
    for hangs in [false, true] {
        let world = world(DecisionPolicy::after_polls(2)).await;
        let (told, took) = user_whose_store_goes_down(&world, hangs).await;
        let Ok(AcceptedSignIn::Deferred(id)) = told else { panic!("{told:?}") };
        assert!(took <= 15 * SECOND, "{took:?}");
        world.sleep(8 * HOUR).await;
        world.store.set_down(false);
        world.store.set_hanging(false);
        let delivery = next(&mut world.poller.outcomes()).await;
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        assert_eq!(delivery.id(), id);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn an_exchange_answer_lost_with_its_replica_is_an_unknown_outcome() {
    let mut world = world(DecisionPolicy::after_polls(2)).await;
    let (told, _) = user_whose_store_goes_down(&world, false).await;
    let Ok(AcceptedSignIn::Deferred(id)) = told else { panic!("{told:?}") };
    world.poller.shutdown(Duration::ZERO).await;
    world.store.set_down(false);
    world.poller = world.replica(9).await;
    let delivery = next(&mut world.poller.outcomes()).await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
    assert_eq!(delivery.id(), id);
}

#[tokio::test]
async fn after_an_outage_of_the_store_a_failed_exchange_is_stored_and_not_delivered() {
    let world = world(DecisionPolicy::after_polls(2)).await;
    world.op.misbehave(Fault::error(Endpoint::Exchange, "invalid_grant"));
    let (told, took) = user_whose_store_goes_down(&world, false).await;
    assert!(told.unwrap_err().error_response().is_some());
    assert!(took <= 7 * SECOND, "{took:?}");
    world.sleep(5 * 60 * SECOND).await;
    world.store.set_down(false);
    let mut outcomes = world.poller.outcomes();
    tokio::select! {
        biased;
        delivery = outcomes.next() => panic!("{delivery:?}"),
        () = world.sleep(2 * HOUR) => {}
    }
}

/// This replica knows that nothing is to be delivered, however long the store is unavailable.
#[tokio::test]
async fn after_a_long_outage_of_the_store_a_request_that_ended_before_it_is_not_delivered() {
    let refused = |status, code| Fault::error_with_status(Endpoint::ClientCredentials, status, code);
    for (fault, name) in [
        (None, "answered at once"),
        (Some(refused(400, "invalid_scope")), "refused"),
        (Some(refused(401, "invalid_client")), "not processed"),
    ] {
        let world = world_with(|op| op.ietf().answers_at_once(), |client| client).await;
        fault.clone().into_iter().for_each(|fault| world.op.misbehave(fault));
        world.op.misbehave(Fault::delay(Endpoint::ClientCredentials, 4 * SECOND));
        let began = world.clock.monotonic();
        let request = world.client.token_request(Grant::client_credentials()).idempotency_key("order 4711");
        let told = async {
            let told = world.poller.request_tokens(request).await;
            (told, world.clock.monotonic() - began)
        };
        let outage = async {
            world.sleep(2 * SECOND).await;
            world.store.set_down(true);
        };
        let ((told, took), ()) = tokio::join!(told, outage);
        assert_eq!(told.is_err(), fault.is_some(), "{name}: {told:?}");
        assert!(took <= 7 * SECOND, "{name}: {took:?}");
        world.sleep(8 * HOUR).await;
        world.store.set_down(false);
        let mut outcomes = world.poller.outcomes();
        tokio::select! {
            biased;
            delivery = outcomes.next() => panic!("{name}: {delivery:?}"),
            () = world.sleep(2 * HOUR) => {}
        }
        world.op.behave();
        let request = world.client.token_request(Grant::client_credentials()).idempotency_key("order 4711");
        let again = world.poller.request_tokens(request).await.unwrap();
        match name {
            "not processed" => assert!(matches!(again, AcceptedTokenRequest::Complete(_)), "{name}: {again:?}"),
            _ => assert!(matches!(again, AcceptedTokenRequest::Ended(_)), "{name}: {again:?}"),
        }
    }
}
