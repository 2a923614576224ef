//! What an operator sees of a running poller's store, and does with it.

use std::time::Duration;

use openid_deferred::operations::{
    Cancel, Filter, Forgotten, Operations, PollNow, Requeue, Stuck, TroubleKind, WaitsFor,
};
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::{ProcessId, State, Store as _};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, SeededRandom};
use openid_deferred::{Clock as _, Keyring, Outcome, SealingKey};

use crate::support::{CLIENT_ID, HOUR, SECOND, World, keyring, next, poller_of, world_of, world_with};

/// A world whose OP has not decided.
async fn undecided() -> World {
    world_of(|op| op.decisions(DecisionPolicy::scripted()).interval(60 * SECOND)).await
}

#[tokio::test]
async fn an_operator_sees_why_a_sign_in_waits_and_the_next_answer_clears_the_error() {
    let world = undecided().await;
    let started_at = world.clock.now();
    let id = world.waiting().await;
    let operations = Operations::new(world.store.clone());
    world.sleep(90 * SECOND).await;
    let healthy = operations.show(id).await.unwrap().unwrap();
    assert_eq!((healthy.state, healthy.waits_for, healthy.stuck), (State::Waiting, WaitsFor::NextPoll, None));
    assert!(healthy.started_at.unwrap().duration_since(started_at).unwrap() < SECOND);
    assert!(healthy.last_answer_at.is_some() && healthy.trouble.is_none() && healthy.expires_at.is_some());
    assert!(healthy.due_at.unwrap() > world.clock.now());

    world.op.misbehave(Fault::status(Endpoint::Poll, 502).times(5));
    let stuck = async || operations.list(Filter::new().stuck()).await.unwrap().sign_ins;
    while stuck().await.is_empty() {
        world.sleep(60 * SECOND).await;
    }
    let failing = stuck().await.remove(0);
    assert_eq!((failing.id, failing.stuck, failing.troubles), (id, Some(Stuck::Troubled), 5));
    let trouble = failing.trouble.unwrap();
    assert_eq!((trouble.kind, trouble.status), (TroubleKind::Rule, Some(502)));
    assert!(trouble.at > started_at && failing.last_answer_at == healthy.last_answer_at);

    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_client").times(1));
    while operations.show(id).await.unwrap().unwrap().troubles < 6 {
        world.sleep(60 * SECOND).await;
    }
    let trouble = operations.show(id).await.unwrap().unwrap().trouble.unwrap();
    assert_eq!((trouble.kind, trouble.code.as_deref()), (TroubleKind::ErrorResponse, Some("invalid_client")));

    while operations.show(id).await.unwrap().unwrap().troubles > 0 {
        world.sleep(60 * SECOND).await;
    }
    let recovered = operations.show(id).await.unwrap().unwrap();
    assert!(recovered.trouble.is_none() && recovered.last_answer_at > healthy.last_answer_at);
    assert!(stuck().await.is_empty());
}

#[tokio::test]
async fn all_sign_ins_with_a_reference_are_found_and_erased() {
    let world = undecided().await;
    let sign_in = async |reference: Option<&str>| {
        let request = world.client.authorize();
        let request = reference.map_or_else(|| world.client.authorize(), |reference| request.reference(reference));
        let (url, session) = request.start().await.unwrap();
        let session =
            openid_deferred::AuthorizationSession::open(&keyring(), &session.seal(&keyring()).unwrap()).unwrap();
        match world.poller.authorization_response(&world.op.visit(url).query(), session).await {
            Ok(AcceptedSignIn::Deferred(id)) => id,
            other => panic!("expected a deferral, got {other:?}"),
        }
    };
    let mut ids = [sign_in(Some("account 1")).await, sign_in(Some("account 1")).await];
    let others = [sign_in(Some("account 12")).await, sign_in(None).await];
    ids.sort_unstable();
    let find = async |reference| {
        let found = world.poller.find(reference, Filter::new()).await.unwrap();
        assert_eq!(found.next, None);
        found.sign_ins.iter().map(|sign_in| sign_in.id).collect::<Vec<ProcessId>>()
    };
    assert_eq!(find("account 1").await, ids);
    assert!(find("account 2").await.is_empty());
    let first = world.poller.find("account 1", Filter::new().limit(1)).await.unwrap();
    let rest = world.poller.find("account 1", Filter::new().limit(1).after(first.next.unwrap())).await.unwrap();
    assert_eq!((first.sign_ins[0].id, rest.sign_ins[0].id), (ids[0], ids[1]));

    // A new primary key does not hide what began under the old one.
    let newer = Keyring::new(SealingKey::generate(&SeededRandom::new(8)).unwrap())
        .also_opens(SealingKey::generate(&SeededRandom::new(7)).unwrap());
    let other = openid_deferred::Poller::builder(world.store.clone(), newer).connect().await.unwrap();
    assert_eq!(other.find("account 1", Filter::new()).await.unwrap().sign_ins.len(), 2);

    for id in ids {
        let forgotten = world.poller.operations().forget(id).await.unwrap();
        assert!(forgotten.erased > 0 && forgotten.is_complete(), "{forgotten:?}");
    }
    assert!(find("account 1").await.is_empty());
    let left = world.poller.operations().list(Filter::new()).await.unwrap().sign_ins;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|sign_in| others.contains(&sign_in.id)));
    let again: Forgotten = world.poller.operations().forget(ids[0]).await.unwrap();
    assert_eq!((again.erased, again.left), (0, 0));
}

#[tokio::test]
async fn a_reference_that_is_empty_or_too_long_is_refused() {
    let world = undecided().await;
    for reference in [String::new(), "x".repeat(129)] {
        let error = world.client.authorize().reference(reference).start().await.unwrap_err();
        assert!(error.to_string().contains("invalid configuration"), "{error}");
    }
    assert!(world.client.authorize().reference("x".repeat(128)).start().await.is_ok());
}

#[tokio::test]
async fn a_poll_that_is_brought_forward_is_not_before_the_interval() {
    let world = undecided().await;
    let id = world.waiting().await;
    // The backoff makes the next polls rare.
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).always());
    world.sleep(2 * HOUR).await;
    let polls = world.polls().len();
    let operations = world.poller.operations();
    let due_in = match operations.poll_now(id).await.unwrap() {
        PollNow::Scheduled { due_in } => due_in,
        other => panic!("it waits: {other:?}"),
    };
    assert!(due_in <= 60 * SECOND, "{due_in:?}");
    world.sleep(due_in + 5 * SECOND).await;
    assert_eq!(world.polls().len(), polls + 1);
    assert!(world.gaps().iter().all(|gap| *gap >= 59.9), "{:?}", world.gaps());
    assert_eq!(operations.poll_now(ProcessId::from_bytes([9; 16])).await.unwrap(), PollNow::NotFound);
}

#[tokio::test]
async fn a_sign_in_that_retry_after_holds_is_stuck_until_it_is_polled_again() {
    let world = undecided().await;
    let id = world.waiting().await;
    let operations = world.poller.operations();
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "7200"));
    let stuck = async || operations.list(Filter::new().stuck()).await.unwrap().sign_ins;
    while world.polls().is_empty() || stuck().await.is_empty() {
        world.sleep(10 * SECOND).await;
    }
    let held = stuck().await.remove(0);
    assert_eq!((held.id, held.stuck), (id, Some(Stuck::RetryAfter)));
    assert!(held.retry_at.unwrap().duration_since(world.clock.now()).unwrap() > HOUR);
    let polled = operations.poll_now(id).await.unwrap();
    assert!(matches!(polled, PollNow::Scheduled { due_in } if due_in > HOUR), "{polled:?}");
    while world.polls().len() == 1 {
        world.sleep(60 * SECOND).await;
    }
    assert!(stuck().await.is_empty());
}

#[tokio::test]
async fn an_outcome_whose_consumer_hangs_is_delivered_again_at_once() {
    let world = world_of(|op| op).await;
    let id = world.waiting().await;
    let hangs = world.outcome().await;
    let operations = world.poller.operations();
    let held = operations.show(id).await.unwrap().unwrap();
    assert_eq!((held.state, held.waits_for), (State::Decided, WaitsFor::Acknowledgement));
    assert_eq!(operations.poll_now(id).await.unwrap(), PollNow::TooLate);
    assert_eq!(operations.cancel(id).await.unwrap(), Cancel::TooLate);

    let other = world.replica(4).await;
    let asked_at = world.clock.now();
    assert_eq!(operations.requeue(id).await.unwrap(), Requeue::Done { state: State::Decided });
    let again = next(&mut other.outcomes()).await;
    assert!(matches!(again.outcome(), Outcome::Approved(_)) && again.id() == id);
    assert!(world.clock.now().duration_since(asked_at).unwrap() < 60 * SECOND, "it did not wait for the lease");
    again.acknowledge().await.unwrap();
    let done = operations.show(id).await.unwrap().unwrap();
    assert_eq!((done.state, done.waits_for, done.stuck), (State::Acknowledged, WaitsFor::Nothing, None));
    assert_eq!(operations.requeue(id).await.unwrap(), Requeue::NotFound);
    drop(hangs);
}

#[tokio::test]
async fn a_cancellation_by_an_operator_reaches_the_op_with_the_next_poll() {
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = crate::support::provider(&clock).decisions(DecisionPolicy::scripted()).start().unwrap();
    let endpoint = op.cancellation_endpoint();
    let client = crate::support::client_of(&op, &clock).cancellation_endpoint(endpoint).build().unwrap();
    let store =
        std::sync::Arc::new(openid_deferred::store::MemoryStore::with_clock(std::sync::Arc::new(clock.clone())));
    let poller = poller_of(&store, &clock, 3).client(client.clone()).start().await.unwrap();
    let world = World { op, clock, client, store, poller };
    let id = world.waiting().await;
    let operations = Operations::new(world.store.clone());
    assert_eq!(operations.cancel(id).await.unwrap(), Cancel::Requested);
    assert!(!world.op.last_process().is_cancelled(), "this handle has no client");
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Cancelled), "{delivery:?}");
    assert_eq!(operations.cancel(ProcessId::from_bytes([9; 16])).await.unwrap(), Cancel::NotFound);
}

#[tokio::test]
async fn late_sign_ins_are_listed_by_client_and_nothing_listed_is_a_secret() {
    let world = world_with(|op| op.decisions(DecisionPolicy::scripted()), |client| client, |poller| poller).await;
    let id = world.waiting().await;
    world.poller.remove_client(world.op.issuer(), CLIENT_ID).unwrap();
    world.sleep(HOUR).await;
    let operations = world.poller.operations();
    let late = Filter::new().overdue_for(Duration::from_secs(1800)).client(world.op.issuer(), CLIENT_ID);
    let found = operations.list(late).await.unwrap().sign_ins;
    assert_eq!((found.len(), found[0].id, found[0].stuck), (1, id, Some(Stuck::Overdue)));
    assert_eq!(found[0].waits_for, WaitsFor::Claim);
    let of_other = Filter::new().overdue_for(SECOND).client(world.op.issuer(), "another-app");
    assert!(operations.list(of_other).await.unwrap().sign_ins.is_empty());
    let secret = world.op.last_process().deferred_auth_id().unwrap();
    let shown = format!("{found:?}{}", serde_json::to_string(&found).unwrap());
    assert!(!shown.contains(&secret) && !shown.contains("context"), "{shown}");
    let row = world.store.load(id).await.unwrap().unwrap();
    assert!(!row.schedule.contains(&secret));
    let stats = serde_json::to_value(operations.stats().await.unwrap()).unwrap();
    assert_eq!((&stats[0]["waiting"], &stats[0]["partition"]), (&1.into(), &found[0].client.0.to_string().into()));
    let keys = serde_json::to_value(operations.keys().await.unwrap()).unwrap();
    assert_eq!((&keys[0]["bodies"], keys[0]["key_id"].as_str()), (&1.into(), Some(found[0].key_id.as_str())));
}
