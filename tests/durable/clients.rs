//! Clients that are added, changed and removed while the poller runs, and many clients at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::error::Misuse;
use openid_deferred::poller::{AcceptedSignIn, Event};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, SeededRandom, TestClient, TestClock, TestProvider};
use openid_deferred::{Client, ClientAuthentication, ErrorKind, Outcome, Poller};

use crate::faulty_store::{self, FaultyStore};
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, HOUR, REDIRECT_URI, SECOND, World, client_of, happened, keyring, next, poller_of,
    provider, world_of,
};

const NEW_SECRET: &str = "the secret of after";

/// Gives the client another secret at the OP.
fn change_secret(world: &World) {
    world.op.register(TestClient::secret_basic(CLIENT_ID, NEW_SECRET).redirect_uri(REDIRECT_URI));
}

fn client_with_new_secret(world: &World) -> Client {
    let builder = client_of(&world.op, &world.clock).random(Arc::new(SeededRandom::new(77)));
    builder.authentication(ClientAuthentication::client_secret_basic(NEW_SECRET)).build().unwrap()
}

#[tokio::test]
async fn a_client_whose_secret_has_changed_is_replaced_without_a_restart() {
    let world = world_of(|op| op.decisions(DecisionPolicy::after_polls(3))).await;
    for _ in 0..3 {
        world.waiting().await;
    }
    change_secret(&world);
    world.sleep(10 * SECOND).await;
    assert!(world.poller.stats().await.unwrap()[0].is_refused);
    let mut events = world.poller.events();
    world.poller.replace_client(client_with_new_secret(&world)).unwrap();
    assert!(matches!(happened(&mut events), Some(Event::ClientAccepted { .. })));
    let before = world.polls().len();
    let mut outcomes = world.poller.outcomes();
    for _ in 0..3 {
        assert!(matches!(next(&mut outcomes).await.outcome(), Outcome::Approved(_)));
    }
    assert!(world.polls()[before..].iter().all(|poll| poll.response_json()["error"] != "invalid_client"));
    // Users who return now are signed in with the new secret too.
    let accepted = world.accept().await;
    assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
}

#[tokio::test]
async fn a_secret_is_replaced_in_all_clones_of_a_client_while_the_poller_uses_one() {
    let world = world_of(|op| op.decisions(DecisionPolicy::after_polls(3))).await;
    world.waiting().await;
    change_secret(&world);
    while !world.poller.stats().await.unwrap()[0].is_refused {
        world.sleep(SECOND).await;
    }
    world.client.replace_client_secret(NEW_SECRET).unwrap();
    world.poller.resume(world.op.issuer(), CLIENT_ID).unwrap();
    let before = world.polls().len();
    world.sleep(10 * SECOND).await;
    assert!(!world.poller.stats().await.unwrap()[0].is_refused);
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(world.polls()[before..].iter().all(|poll| poll.response_json()["error"] != "invalid_client"));
    let accepted = world.accept().await;
    assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
}

#[tokio::test]
async fn the_refusal_of_a_poll_with_the_previous_secret_does_not_trip_the_breaker() {
    let world = world_of(|op| op).await;
    world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, 20 * SECOND));
    while world.polls().is_empty() {
        world.sleep(SECOND).await;
    }
    change_secret(&world);
    world.poller.replace_client(client_with_new_secret(&world)).unwrap();
    let mut events = world.poller.events();
    assert!(matches!(world.outcome().await.outcome(), Outcome::Approved(_)));
    assert_eq!(world.polls()[0].response_json()["error"], "invalid_client");
    while let Some(event) = happened(&mut events) {
        assert!(!matches!(event, Event::ClientRefused { .. } | Event::ClientAccepted { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn replace_client_needs_an_existing_client_and_a_distinct_redirect_uri() {
    let world = world_of(|op| op).await;
    let op = provider(&world.clock).host("neighbour.test").without_iss().start().unwrap();
    let stranger = client_of(&op, &world.clock).redirect_uri("https://rp.test/neighbour").build().unwrap();
    let error = world.poller.replace_client(stranger.clone()).unwrap_err();
    assert_eq!(error.kind(), &Misuse::UnknownClient.into());
    stranger.provider_metadata().await.unwrap();
    world.poller.add_client(stranger).unwrap();
    let confused = client_of(&op, &world.clock).build().unwrap();
    confused.provider_metadata().await.unwrap();
    let error = world.poller.replace_client(confused).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
    assert!(world.poller.resume(op.issuer(), CLIENT_ID).is_ok(), "the former one is still there");
}

#[tokio::test]
async fn the_processes_of_a_client_that_was_removed_wait_until_it_is_added_again() {
    let world = world_of(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let id = world.waiting().await;
    let mut events = world.poller.events();
    world.poller.remove_client(world.op.issuer(), CLIENT_ID).unwrap();
    let polls = world.polls().len();
    world.sleep(30 * HOUR).await;
    assert_eq!(world.polls().len(), polls);
    let mut unknown = Vec::new();
    while let Some(event) = happened(&mut events) {
        if let Event::UnknownClient { clients, processes } = event {
            unknown.push((clients, processes));
        }
    }
    assert!((29..=31).contains(&unknown.len()) && unknown.iter().all(|each| *each == (1, 1)), "{unknown:?}");
    let error = world.poller.remove_client(world.op.issuer(), CLIENT_ID).unwrap_err();
    assert_eq!(error.kind(), &Misuse::UnknownClient.into());
    assert_eq!(world.accept().await.unwrap_err().kind(), &Misuse::UnknownClient.into());
    world.poller.add_client(world.client.clone()).unwrap();
    let delivery = world.outcome().await;
    assert_eq!(delivery.id(), id);
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
}

#[tokio::test]
async fn outcomes_that_are_decided_are_delivered_after_their_client_was_removed() {
    let world = world_of(|op| op).await;
    let id = world.waiting().await;
    while world.poller.stats().await.unwrap()[0].rows.decided == 0 {
        world.sleep(SECOND).await;
    }
    world.poller.remove_client(world.op.issuer(), CLIENT_ID).unwrap();
    assert_eq!(world.outcome().await.id(), id);
}

/// This many clients, each with another issuer.
fn clients(op: &TestProvider, clock: &TestClock, count: usize) -> Vec<Client> {
    let client = |number: usize| {
        let builder = Client::builder(format!("https://op-{number}.test"), CLIENT_ID);
        let builder = builder.authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET));
        let builder = builder.redirect_uri(REDIRECT_URI).http_client(op.http_client()).clock(Arc::new(clock.clone()));
        builder.build().unwrap()
    };
    (0..count).map(client).collect()
}

#[tokio::test]
async fn adding_ten_thousand_clients_does_not_call_the_store_for_each() {
    let clock = TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    let store = FaultyStore::on(&clock);
    let builder = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone()));
    let poller = builder.random(Arc::new(SeededRandom::new(3))).start().await.unwrap();
    openid_deferred::Clock::sleep(&clock, SECOND).await;
    store.forget_calls();
    for client in clients(&op, &clock, 10_000) {
        poller.add_client(client).unwrap();
    }
    openid_deferred::Clock::sleep(&clock, SECOND).await;
    let calls = store.calls();
    // One call to the store covers many clients.
    assert!(calls <= 200, "{calls} calls");
}

#[tokio::test]
async fn many_outcomes_of_one_client_do_not_delay_those_of_another() {
    let clock = TestClock::automatic();
    let ops = ["flood.test", "single.test"].map(|host| provider(&clock).host(host).start().unwrap());
    let clients = [&ops[0], &ops[1]].map(|op| client_of(op, &clock).build().unwrap());
    let store = Arc::new(openid_deferred::store::MemoryStore::with_clock(Arc::new(clock.clone())));
    let builder = poller_of(&store, &clock, 3).client(clients[0].clone()).client(clients[1].clone()).prefetch(4);
    let poller = builder.start().await.unwrap();
    let sign_in = async |number: usize| {
        let (url, session) = clients[number].authorize().start().await.unwrap();
        match poller.authorization_response(&ops[number].visit(url).query(), session).await {
            Ok(AcceptedSignIn::Deferred(id)) => id,
            other => panic!("{other:?}"),
        }
    };
    for _ in 0..100 {
        sign_in(0).await;
    }
    let decided = async || -> u64 { poller.stats().await.unwrap().iter().map(|client| client.rows.decided).sum() };
    while decided().await < 100 {
        openid_deferred::Clock::sleep(&clock, SECOND).await;
    }
    let single = sign_in(1).await;
    while decided().await < 101 {
        openid_deferred::Clock::sleep(&clock, SECOND).await;
    }
    let mut outcomes = poller.outcomes();
    let mut order = BTreeMap::new();
    for place in 0..101 {
        let delivery = next(&mut outcomes).await;
        order.insert(delivery.id(), place);
        delivery.acknowledge().await.unwrap();
    }
    assert!(order[&single] < 8, "it was the {}th of 101", order[&single]);
}

#[tokio::test]
async fn a_client_that_is_removed_while_its_rows_are_claimed_loses_no_outcome() {
    let world = faulty_store::world_with(
        |op| op.interval(60 * SECOND).expires_in(150 * SECOND).decisions(DecisionPolicy::scripted()),
        |client| client,
    )
    .await;
    let id = world.waiting().await;
    let due_in = world.poller.status(id).await.unwrap().unwrap().due_in().unwrap();
    world.sleep(due_in - SECOND / 2).await;
    world.store.set_delay(4 * SECOND, Duration::ZERO);
    // The call that claims the row takes four seconds, and the client is removed in the middle of it.
    world.sleep(SECOND / 2 + 3 * SECOND).await;
    assert_eq!(world.polls(), 0);
    world.poller.remove_client(world.op.issuer(), CLIENT_ID).unwrap();
    world.store.set_delay(Duration::ZERO, Duration::ZERO);
    world.sleep(HOUR).await;
    world.poller.add_client(world.client.clone()).unwrap();
    let delivery = next(&mut world.poller.outcomes()).await;
    // Nothing was lost, so the outcome is not unknown.
    assert!(matches!(delivery.outcome(), Outcome::Expired(_)), "{delivery:?}");
}
