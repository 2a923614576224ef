//! Conditions that operators are told of unasked: each is reported soon, and repeated rarely.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::poller::{AcceptedSignIn, Event, Events};
use openid_deferred::store::{NewProcess, Partition, ProcessId, Reseal, SealedBody, State, Store};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, SeededRandom, TestClock};
use openid_deferred::{Keyring, Outcome, Poller, SealingKey};

use crate::faulty_store::FaultyStore;
use crate::support::{
    CLIENT_ID, HOUR, SECOND, World, client_of, happened, keyring, next, poller_of, provider, world_of,
};

const MINUTE: Duration = Duration::from_secs(60);

/// All picked events since the last call.
fn picked<T>(events: &mut Events, pick: impl Fn(Event) -> Option<T>) -> Vec<T> {
    let mut picked = Vec::new();
    loop {
        match happened(events) {
            Some(Event::Missed { events }) => panic!("{events} events were missed"),
            Some(event) => picked.extend(pick(event)),
            None => return picked,
        }
    }
}

/// How long an OP had given no answer, and the errors of the polls.
fn unreachable(event: Event) -> Option<(Duration, u64, String)> {
    match event {
        Event::OpUnreachable { client_id, silence, polls, cause, .. } => {
            assert_eq!(&*client_id, CLIENT_ID);
            Some((silence, polls, cause.to_string()))
        }
        _ => None,
    }
}

fn recovered(event: Event) -> Option<Duration> {
    match event {
        Event::OpRecovered { silence, .. } => Some(silence),
        _ => None,
    }
}

fn unknown_clients(event: Event) -> Option<(usize, u64)> {
    match event {
        Event::UnknownClient { clients, processes } => Some((clients, processes)),
        _ => None,
    }
}

fn missing_keys(event: Event) -> Option<(String, u64)> {
    match event {
        Event::MissingKey { key_id, rows } => Some((key_id.to_string(), rows)),
        _ => None,
    }
}

async fn unreachable_for(world: &World) -> Option<Duration> {
    world.poller.stats().await.unwrap()[0].unreachable_for
}

#[tokio::test]
async fn an_unreachable_op_is_reported_within_two_minutes_and_once_an_hour_until_it_answers() {
    for (fault, cause) in [
        (Fault::status(Endpoint::Poll, 503).always(), "503"),
        (Fault::reset(Endpoint::Poll).always(), "connection"),
        (Fault::error(Endpoint::Poll, "server_error").always(), "server_error"),
    ] {
        let world = world_of(|op| op.interval(10 * SECOND).decisions(DecisionPolicy::scripted())).await;
        for _ in 0..5 {
            world.waiting().await;
        }
        world.sleep(MINUTE).await;
        let mut events = world.poller.events();
        world.op.misbehave(fault);
        world.sleep(2 * MINUTE + 30 * SECOND).await;
        let reports = picked(&mut events, unreachable);
        let [(silence, polls, met)] = &reports[..] else { panic!("{cause}: {reports:?}") };
        assert!(*silence >= MINUTE && *silence <= 2 * MINUTE && *polls >= 3, "{cause}: {silence:?}, {polls} polls");
        assert!(met.contains(cause), "{met}");
        assert!(unreachable_for(&world).await >= Some(MINUTE));

        world.sleep(4 * HOUR).await;
        let reports = picked(&mut events, unreachable);
        assert!((3..=4).contains(&reports.len()), "once an hour: {reports:?}");

        world.op.behave();
        world.sleep(HOUR + 10 * MINUTE).await;
        let silences = picked(&mut events, recovered);
        assert!(matches!(&silences[..], [silence] if *silence >= 4 * HOUR), "{silences:?}");
        assert_eq!(unreachable_for(&world).await, None);
    }
}

#[tokio::test]
async fn short_outages_and_refusals_of_the_client_are_not_reported_as_unreachable() {
    let world = world_of(|op| op.interval(10 * SECOND).decisions(DecisionPolicy::scripted())).await;
    for _ in 0..5 {
        world.waiting().await;
    }
    let mut events = world.poller.events();
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).times(5));
    world.sleep(10 * MINUTE).await;
    world.op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client").always());
    world.sleep(10 * MINUTE).await;
    assert_eq!(picked(&mut events, unreachable), []);
}

#[tokio::test]
async fn an_op_whose_metadata_cannot_be_fetched_is_reported() {
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    for _ in 0..3 {
        world.waiting().await;
    }
    world.poller.shutdown(SECOND).await;
    world.op.misbehave(Fault::stall(Endpoint::Metadata).always());
    let replica = world.replica(5).await;
    let mut events = replica.events();
    world.sleep(5 * MINUTE).await;
    assert_eq!(picked(&mut events, unreachable).len(), 1);
}

#[tokio::test]
async fn an_op_without_pending_sign_ins_does_not_stay_unreachable() {
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    let id = world.waiting().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).always());
    world.sleep(10 * MINUTE).await;
    assert!(unreachable_for(&world).await.is_some());
    world.poller.forget(id).await.unwrap();
    world.sleep(2 * MINUTE).await;
    world.waiting().await;
    assert_eq!(unreachable_for(&world).await, None);
}

fn other_key() -> SealingKey {
    SealingKey::generate(&SeededRandom::new(99)).unwrap()
}

#[tokio::test]
async fn rows_whose_key_is_missing_are_reported_within_a_minute_and_once_an_hour() {
    let world = world_of(|op| op.interval(HOUR)).await;
    let builder = Poller::builder(world.store.clone(), Keyring::new(other_key()));
    let builder = builder.clock(Arc::new(world.clock.clone())).random(Arc::new(SeededRandom::new(12)));
    let lacking = builder.client(world.client.clone()).start().await.unwrap();
    let mut events = lacking.events();
    world.sleep(MINUTE).await;
    assert_eq!(picked(&mut events, missing_keys), []);
    for _ in 0..3 {
        world.waiting().await;
    }
    world.sleep(MINUTE + SECOND).await;
    let reports = picked(&mut events, missing_keys);
    assert!(matches!(&reports[..], [(key, 3)] if key.len() == 8), "{reports:?}");
    assert!(format!("{:?}", keyring()).contains(&reports[0].0), "{reports:?}");
    world.sleep(3 * HOUR).await;
    assert_eq!(picked(&mut events, missing_keys).len(), 3);
}

/// A row as another release may have written it.
fn row(number: u8, partition: i64, format: u8) -> NewProcess {
    let body = SealedBody::new(format, [1, 2, 3, 4], vec![0]);
    let mut row = NewProcess::new(ProcessId::from_bytes([number; 16]), Partition(partition), State::Waiting, body);
    row.interval = MINUTE;
    row
}

#[tokio::test]
async fn rows_that_only_a_newer_release_can_read_are_reported() {
    let world = world_of(|op| op).await;
    let mut events = world.poller.events();
    for number in 1..=2 {
        world.store.insert(row(number, 7, 200)).await.unwrap();
    }
    world.sleep(2 * HOUR + 10 * MINUTE).await;
    let reports = picked(&mut events, |event| match event {
        Event::NewerFormat { format, rows } => Some((format, rows)),
        _ => None,
    });
    assert_eq!(reports, [(200, 2); 3]);
}

#[tokio::test]
async fn an_unknown_error_code_is_reported_at_its_first_occurrence_and_once_an_hour() {
    let world = world_of(|op| op.interval(10 * SECOND).decisions(DecisionPolicy::scripted())).await;
    for _ in 0..10 {
        world.waiting().await;
    }
    let mut events = world.poller.events();
    let codes = |event| match event {
        Event::UnknownError { code, .. } => Some(code.to_string()),
        _ => None,
    };
    world.op.misbehave(Fault::error(Endpoint::Poll, "interaction_required_by_committee").always());
    world.sleep(MINUTE).await;
    assert_eq!(picked(&mut events, codes), ["interaction_required_by_committee"]);
    world.sleep(5 * HOUR).await;
    let reports = picked(&mut events, codes);
    assert!((3..=5).contains(&reports.len()), "{} times in five hours", reports.len());
    world.op.behave();
    world.op.misbehave(Fault::error(Endpoint::Poll, "committee_is_at_lunch").always());
    world.sleep(2 * HOUR).await;
    let reports = picked(&mut events, codes);
    assert!(reports.len() <= 3 && reports.iter().any(|code| code == "committee_is_at_lunch"), "{reports:?}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_reported_once_an_hour_and_not_after_each_lease() {
    let world = world_of(|op| op.interval(10 * SECOND).decisions(DecisionPolicy::scripted())).await;
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        ids.insert(world.waiting().await);
    }
    // Somebody has edited them.
    for id in &ids {
        let row = world.store.load(*id).await.unwrap().unwrap();
        let body = row.body.unwrap();
        let reseal = Reseal::new(*id, row.revision, SealedBody::new(body.format, body.key, vec![0; 64]));
        assert_eq!(world.store.reseal(vec![reseal]).await.unwrap(), [true]);
    }
    let mut events = world.poller.events();
    let unreadable = |event| match event {
        Event::Unreadable { id } => Some(id),
        _ => None,
    };
    world.sleep(MINUTE).await;
    assert_eq!(picked(&mut events, unreadable).into_iter().collect::<BTreeSet<_>>(), ids);
    world.sleep(4 * HOUR).await;
    let reports = picked(&mut events, unreadable).len();
    assert!((9..=12).contains(&reports), "{reports} reports of three rows in four hours");
}

#[tokio::test]
async fn rows_of_clients_that_appear_after_the_start_are_reported_within_a_minute_and_once_an_hour() {
    let world = world_of(|op| op.interval(HOUR)).await;
    let other = poller_of(&world.store, &world.clock, 8).start().await.unwrap();
    let mut events = other.events();
    world.sleep(MINUTE).await;
    for _ in 0..3 {
        world.waiting().await;
    }
    world.sleep(MINUTE + SECOND).await;
    assert_eq!(picked(&mut events, unknown_clients), [(1, 3)]);
    world.store.insert(row(1, 7, 1)).await.unwrap();
    world.sleep(MINUTE + SECOND).await;
    assert_eq!(picked(&mut events, unknown_clients), [(2, 4)], "another client is another cause");
    world.sleep(3 * HOUR).await;
    let reports = picked(&mut events, unknown_clients);
    assert!((2..=3).contains(&reports.len()), "one for all of them: {reports:?}");
    other.add_client(world.client.clone()).unwrap();
    world.sleep(2 * HOUR).await;
    let last = picked(&mut events, unknown_clients).pop();
    assert_eq!(last, Some((1, 1)));
}

#[tokio::test]
async fn a_store_that_counts_slowly_counts_rarely() {
    let clock = TestClock::automatic();
    let store = FaultyStore::on(&clock);
    let builder = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone()));
    let _poller = builder.random(Arc::new(SeededRandom::new(3))).start().await.unwrap();
    let sleep = async |time| openid_deferred::Clock::sleep(&clock, time).await;
    sleep(HOUR).await;
    let quick = store.take_calls("keys");
    assert!((58..=62).contains(&quick), "once a minute, not {quick} times an hour");
    store.delay("keys", 10 * SECOND);
    sleep(10 * HOUR).await;
    let slow = store.take_calls("keys");
    assert!((30..=40).contains(&slow), "a hundredth of the time, not {slow} times in ten hours");
    store.delay("keys", HOUR);
    sleep(100 * HOUR).await;
    let hung = store.take_calls("keys");
    assert!((40..=52).contains(&hung), "an hour's pause at most, not {hung} times");
}

#[tokio::test]
async fn a_stream_of_outcomes_calls_the_store_after_decisions_and_not_after_each_poll() {
    let clock = TestClock::automatic();
    let op = provider(&clock).decisions(DecisionPolicy::after_polls(20)).start().unwrap();
    let client = client_of(&op, &clock).build().unwrap();
    let store = FaultyStore::on(&clock);
    store.set_check_interval(HOUR);
    let builder = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone())).client(client.clone());
    let poller = builder.random(Arc::new(SeededRandom::new(3))).start().await.unwrap();
    for _ in 0..10 {
        let (url, session) = client.authorize().start().await.unwrap();
        let accepted = poller.authorization_response(&op.visit(url).query(), session).await;
        assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
    }
    let mut outcomes = poller.outcomes();
    let first = next(&mut outcomes).await;
    assert!(matches!(first.outcome(), Outcome::Approved(_)));
    let polls = op.requests_to(Endpoint::Poll).len();
    assert!(polls >= 190, "{polls} polls");
    let claims = store.take_calls("claim_outcomes");
    assert!(claims <= 5, "{claims} claims of outcomes for {polls} polls");
    first.acknowledge().await.unwrap();
    for _ in 1..10 {
        next(&mut outcomes).await.acknowledge().await.unwrap();
    }
    let claims = store.take_calls("claim_outcomes");
    assert!(claims <= 20, "{claims} claims for 9 outcomes");
}
