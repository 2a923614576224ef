//! What the store knows of clients: their names, and which of them their OPs refuse.

use openid_deferred::operations::{Filter, Operations, Stuck, WaitsFor};
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::{State, Store};
use openid_deferred::testing::{Endpoint, Fault, SeededRandom, TestClient, TestClock};
use openid_deferred::{Keyring, Outcome, SealingKey};

use crate::faulty_store::{self, FaultyStore};
use crate::support::{CLIENT_ID, CLIENT_SECRET, HOUR, SECOND, client_of, next, provider, world, world_of};

/// What the store knows of the client of this OP.
async fn named(store: &dyn Store, issuer: &str) -> Option<(String, String)> {
    let rows = store.stats().await.unwrap();
    let partitions = rows.iter().map(|rows| rows.partition).collect();
    let known = store.known_clients(partitions).await.unwrap().into_iter().find(|client| client.issuer == issuer)?;
    Some((known.issuer, known.client_id))
}

#[tokio::test]
async fn the_names_of_clients_are_recorded_when_they_are_added() {
    let world = world().await;
    let id = world.waiting().await;
    world.sleep(SECOND).await;
    let operations = Operations::new(world.store.clone());
    let shown = operations.show(id).await.unwrap().unwrap();
    let expected = (Some(world.op.issuer()), Some(CLIENT_ID));
    assert_eq!((shown.issuer.as_deref(), shown.client_id.as_deref()), expected);
    let stats = operations.stats().await.unwrap();
    assert_eq!((stats[0].issuer.as_deref(), stats[0].client_id.as_deref()), expected);
    assert_eq!((stats[0].rows.partition, stats[0].is_refused), (shown.client, false));

    // Another one follows while the poller runs.
    let place = "https://rp.test/other";
    let registered = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(place);
    let other = provider(&world.clock).host("other.test").client(registered).start().unwrap();
    let client = client_of(&other, &world.clock).redirect_uri(place).build().unwrap();
    world.poller.add_client(client.clone()).unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let accepted = world.poller.authorization_response(&other.visit(url).query(), session).await.unwrap();
    assert!(matches!(accepted, AcceptedSignIn::Deferred(_)));
    world.sleep(61 * SECOND).await;
    let stats = operations.stats().await.unwrap();
    let of_other = stats.iter().find(|stats| stats.issuer.as_deref() == Some(other.issuer())).unwrap();
    assert_eq!(of_other.client_id.as_deref(), Some(CLIENT_ID));
    let partition = of_other.rows.partition;
    // A name stays when the client and its rows are gone.
    world.poller.remove_client(other.issuer(), CLIENT_ID).unwrap();
    operations.forget(id).await.unwrap();
    world.sleep(HOUR).await;
    assert_eq!(world.store.known_clients(vec![partition, shown.client]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_store_that_cannot_record_names_stops_no_poll_and_is_retried() {
    let clock = TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    let client = client_of(&op, &clock).build().unwrap();
    let store = FaultyStore::on(&clock);
    store.fail("note_clients");
    store.fail("known_clients");
    let poller = faulty_store::poller_on(&store, &clock, 3).client(client.clone()).start().await.unwrap();
    let world = faulty_store::World { op, clock, client, store, poller };
    let id = world.waiting().await;
    // Its outcome comes all the same.
    let delivery = world.poller.outcomes().next().await.unwrap();
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    let shown = world.poller.operations().show(id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.issuer), (State::Decided, None));
    assert!(world.store.count("note_clients") > 0);

    world.store.succeed("note_clients");
    world.store.succeed("known_clients");
    world.sleep(61 * SECOND).await;
    assert!(named(&world.store, world.op.issuer()).await.is_some());
    world.store.forget_calls();
    world.sleep(HOUR).await;
    assert_eq!(world.store.count("note_clients"), 0, "what is recorded is not recorded again");
}

#[tokio::test]
async fn sign_ins_of_a_refused_client_are_stuck_at_once_until_it_is_accepted() {
    let world = world_of(|op| op.interval(60 * SECOND)).await;
    let first = world.waiting().await;
    world.sleep(30 * SECOND).await;
    let second = world.waiting().await;
    let operations = Operations::new(world.store.clone());
    let stuck = async || {
        let mut stuck = operations.list(Filter::new().stuck()).await.unwrap().sign_ins;
        stuck.sort_by_key(|sign_in| sign_in.started_at);
        stuck.into_iter().map(|sign_in| (sign_in.id, sign_in.stuck.unwrap())).collect::<Vec<_>>()
    };
    world.op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client").always());
    assert!(stuck().await.is_empty());
    while world.polls().is_empty() {
        world.sleep(SECOND).await;
    }
    world.sleep(SECOND).await;
    let refused = [(first, Stuck::ClientRefused), (second, Stuck::ClientRefused)];
    assert_eq!(stuck().await, refused, "one was refused, and the other is not polled");
    assert!(operations.stats().await.unwrap()[0].is_refused);
    world.sleep(6 * HOUR).await;
    assert_eq!(stuck().await, refused, "pollers repeat the note");

    world.op.behave();
    world.poller.resume(world.op.issuer(), CLIENT_ID).unwrap();
    let mut outcomes = world.poller.outcomes();
    for _ in 0..2 {
        next(&mut outcomes).await.acknowledge().await.unwrap();
    }
    assert!(stuck().await.is_empty());
    assert!(!operations.stats().await.unwrap()[0].is_refused);
}

#[tokio::test]
async fn a_note_of_a_poller_that_has_stopped_does_not_last() {
    let world = world().await;
    let (id, other) = (world.waiting().await, world.waiting().await);
    world.op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client").always());
    world.sleep(60 * SECOND).await;
    world.poller.shutdown(SECOND).await;
    let operations = Operations::new(world.store.clone());
    let stuck = async |id| operations.show(id).await.unwrap().unwrap().stuck;
    assert_eq!((stuck(id).await, stuck(other).await), (Some(Stuck::ClientRefused), Some(Stuck::ClientRefused)));
    world.sleep(240 * SECOND).await;
    assert!(!operations.stats().await.unwrap()[0].is_refused);
    world.sleep(600 * SECOND).await;
    assert_eq!((stuck(id).await, stuck(other).await), (Some(Stuck::Overdue), Some(Stuck::Overdue)));
}

#[tokio::test]
async fn sign_ins_that_need_another_key_are_found_by_it() {
    let world = world_of(|op| op.interval(HOUR)).await;
    let id = world.waiting().await;
    let other = SealingKey::generate(&SeededRandom::new(99)).unwrap();
    let other_id = other.key_id();
    let operations = Operations::new(world.store.clone());
    let shown = operations.show(id).await.unwrap().unwrap();
    assert_eq!(shown.stuck, None, "no keys are given");
    let of_key = async |key_id: &str| operations.list(Filter::new().key_id(key_id)).await.unwrap().sign_ins.len();
    assert_eq!((of_key(&shown.key_id).await, of_key(&other_id).await, of_key("nonsense").await), (1, 0, 0));
    let both = Filter::new().key_id(&other_id).key_id(&shown.key_id);
    assert_eq!(operations.list(both).await.unwrap().sign_ins.len(), 1);

    let with_other = operations.clone().with_keyring(&Keyring::new(other));
    let stuck = with_other.list(Filter::new().stuck()).await.unwrap().sign_ins;
    assert_eq!((stuck.len(), stuck[0].stuck), (1, Some(Stuck::KeyMissing)));
    assert_eq!(world.poller.operations().show(id).await.unwrap().unwrap().stuck, None, "the poller has the key");
}

#[tokio::test]
async fn a_held_outcome_differs_from_one_that_was_released() {
    let world = world().await;
    let id = world.waiting().await;
    let operations = Operations::new(world.store.clone());
    let shown = async || {
        let shown = operations.show(id).await.unwrap().unwrap();
        (shown.waits_for, shown.deliveries)
    };
    let before = operations.show(id).await.unwrap().unwrap();
    assert_eq!((before.interval, before.wait.is_some(), before.deliveries), (Some(5 * SECOND), true, 0));
    let mut outcomes = world.poller.outcomes();
    let delivery = next(&mut outcomes).await;
    assert_eq!(shown().await, (WaitsFor::Acknowledgement, 1));
    world.sleep(1_000 * SECOND).await;
    assert_eq!(shown().await, (WaitsFor::Acknowledgement, 1), "its claim is renewed");
    delivery.retry_after(HOUR).await.unwrap();
    assert_eq!(shown().await, (WaitsFor::Redelivery, 1));
    let delivery = next(&mut outcomes).await;
    assert_eq!(shown().await, (WaitsFor::Acknowledgement, 2));
    drop(delivery);
    world.sleep(SECOND).await;
    assert_eq!(shown().await, (WaitsFor::Redelivery, 2));
    next(&mut outcomes).await.acknowledge().await.unwrap();
    assert_eq!(shown().await, (WaitsFor::Nothing, 3));
}
