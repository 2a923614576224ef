//! Two replicas that crash again and again, at moments that a seed chooses, while the network loses answers.

use std::collections::BTreeSet;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use openid_deferred::ping::Receiver;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, SeededRandom};
use openid_deferred::{Outcome, Random};

use crate::support::{HOUR, SECOND, World, ping_request, poller_of, world_of};

const PROCESSES: usize = 25;

struct Dice(SeededRandom);

impl Dice {
    fn throw(&self, sides: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes) % sides
    }
}

#[tokio::test]
async fn every_process_ends_in_the_ops_decision_through_random_crashes() {
    for seed in 1..=6 {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let dice = Dice(SeededRandom::new(seed));
    let mut world = world_of(|op| op.decisions(DecisionPolicy::after_polls(12))).await;
    let mut other = world.replica(50).await;
    let mut waiting = BTreeSet::new();
    for _ in 0..PROCESSES {
        waiting.insert(world.waiting().await);
    }
    for round in 0..40 {
        world.sleep(Duration::from_millis(dice.throw(20_000))).await;
        world.op.misbehave(fault(&dice));
        match dice.throw(3) {
            0 => {
                other.shutdown(Duration::ZERO).await;
                other = world.replica(100 + round).await;
            }
            1 => {
                world.poller.shutdown(Duration::ZERO).await;
                world.poller = world.replica(200 + round).await;
            }
            _ => {}
        }
    }
    world.op.behave();
    collect(&world, waiting, seed).await;
    world.op.assert_clean();
}

fn fault(dice: &Dice) -> Fault {
    let some = 1 + dice.throw(4) as usize;
    match dice.throw(5) {
        0 => Fault::reset(Endpoint::Poll).after_processing().times(some),
        1 => Fault::reset(Endpoint::Poll).times(some),
        2 => Fault::status(Endpoint::Poll, 502).times(some),
        3 => Fault::delay(Endpoint::Poll, dice.throw(30) as u32 * SECOND).after_processing().times(some),
        _ => Fault::delay(Endpoint::Poll, dice.throw(30) as u32 * SECOND).times(some),
    }
}

async fn collect(world: &World, mut waiting: BTreeSet<openid_deferred::store::ProcessId>, seed: u64) {
    let collector = poller_of(&world.store, &world.clock, 900).connect().await.unwrap();
    let mut outcomes = collector.outcomes();
    let mut unknown = 0;
    while !waiting.is_empty() {
        let delivery = outcomes.next().await.unwrap();
        match delivery.outcome() {
            Outcome::Approved(_) => {}
            Outcome::Unknown => unknown += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        delivery.acknowledge().await.unwrap();
        assert!(waiting.remove(&delivery.id()), "seed {seed}: delivered again after its acknowledgement");
    }
    let polls = world.op.requests_to(Endpoint::Poll);
    let refused = polls.iter().filter(|poll| poll.error().as_deref() == Some("invalid_grant")).count();
    assert_eq!(unknown, refused, "seed {seed}: unknown only where the OP had given its answer away");
}

#[tokio::test]
async fn a_ping_advances_a_poll_whose_replica_died_when_its_lease_expires() {
    let mut world =
        crate::faulty_store::world_with(|op| op.interval(HOUR).decisions(DecisionPolicy::scripted()), |client| client)
            .await;
    world.waiting().await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, HOUR));
    world.sleep(HOUR + 200 * SECOND).await;
    assert_eq!(world.polls(), 1);
    world.restart().await;
    // The lease of 275 s ends.
    world.sleep(400 * SECOND).await;
    assert_eq!(world.polls(), 1);
    let process = world.op.last_process();
    process.approve();
    let (token, id) = (process.notification_token().unwrap(), process.deferred_auth_id().unwrap());
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    let ping = ping_request(Method::POST, &headers, format!("{{\"deferred_auth_id\":\"{id}\"}}"));
    assert_eq!(Receiver::new(world.poller.clone()).receive(ping).await.status(), StatusCode::NO_CONTENT);
    world.approvals(1, 5 * SECOND).await;
}
