//! Replicas of the application: started, killed, shut down and started again.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::ping::Receiver;
use openid_deferred::poller::{Limits, Outcomes};
use openid_deferred::testing::SeededRandom;
use openid_deferred::{Backoff, Client, ClientAuthentication, Delivery, DpopMode, Error, Poller};

use crate::life::{Life, ReplicaClock, mortal};
use crate::network::Network;
use crate::op::{CANCELLATION_ENDPOINT, CLIENT_ID, ISSUER, REDIRECT_URI};
use crate::store::SimulatedStore;
use crate::world::{HOUR, World, spawn};

const MINUTE: Duration = Duration::from_secs(60);

/// A running replica, as its users reach it.
#[derive(Clone)]
pub struct Replica {
    pub life: Arc<Life>,
    pub clock: Arc<ReplicaClock>,
    pub client: Client,
    pub poller: Poller,
    pub receiver: Receiver,
    /// One process from elsewhere is taken over at a time, so that it is known whose row it is.
    pub tracks: Arc<tokio::sync::Mutex<()>>,
}

/// Keeps one replica running, with a new machine whenever the old one is gone.
pub async fn keep_running(world: Arc<World>, slot: usize) {
    let chance = &world.chance;
    world.sleep(chance.up_to(MINUTE)).await;
    loop {
        let life = world.new_life();
        let started = tokio::select! {
            biased;
            () = life.ended() => None,
            started = start(&world, &life, slot == 0) => started.ok(),
        };
        if let Some(replica) = started {
            world.slots()[slot] = Some(replica.clone());
            for _ in 0..chance.pick(&[1, 1, 2]) {
                spawn(mortal(life.clone(), take_outcomes(world.clone(), replica.clone())));
            }
            serve(&world, &replica).await;
            world.slots()[slot] = None;
        }
        world.kill(&life);
        world.sleep(chance.between(Duration::from_millis(100), 10 * MINUTE)).await;
    }
}

/// Until it dies or is shut down for a new release.
async fn serve(world: &World, replica: &Replica) {
    let chance = &world.chance;
    let release = chance.between(MINUTE, world.horizon * 4);
    tokio::select! {
        biased;
        () = replica.life.ended() => return,
        () = world.sleep(release) => {}
    }
    if world.now() >= world.weather.calm_at {
        return replica.life.ended().await;
    }
    let grace = chance.pick(&[Duration::ZERO, Duration::from_secs(1), MINUTE]);
    tokio::select! {
        biased;
        () = replica.life.ended() => {}
        () = replica.poller.shutdown(grace) => {}
    }
}

/// The first one polls; others may leave that to it.
async fn start(world: &Arc<World>, life: &Arc<Life>, is_first: bool) -> Result<Replica, Error> {
    let chance = &world.chance;
    let skew = world.weather.skew;
    let ahead = chance.below(2 * skew as usize + 1) as i64 - skew;
    let clock = ReplicaClock::new(world.clock.clone(), life.clone(), chance.up_to(1000 * HOUR), ahead);
    let clock = Arc::new(clock);
    let random = || Arc::new(SeededRandom::new(chance.word()));
    let network = Arc::new(Network { world: world.clone(), life: life.clone() });
    let mut client = Client::builder(ISSUER, CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_post("a secret of the client"))
        .redirect_uri(REDIRECT_URI)
        .cancellation_endpoint(CANCELLATION_ENDPOINT)
        .http_client(network)
        .clock(clock.clone())
        .random(random());
    if !world.dpop {
        client = client.dpop(DpopMode::Off);
    }
    if world.weather.jumps > 0 {
        client = client.leeway(24 * HOUR).session_lifetime(24 * HOUR);
    }
    if chance.odds(0.3) {
        client = client.backoff(Backoff::Growing { up_to: chance.pick(&[MINUTE, HOUR, 24 * HOUR]) });
    }
    let client = client.build()?;
    let mut limits = Limits::new().in_flight(chance.pick(&[1, 4, 64]));
    if chance.odds(0.2) {
        limits = limits.ceiling(chance.pick(&[1, 7, 50]), Duration::from_secs(1));
    }
    let store = SimulatedStore { world: world.clone(), life: life.clone() };
    let builder = Poller::builder(store, world.keyring.clone())
        .client(client.clone())
        .clock(clock.clone())
        .random(random())
        .limits(limits)
        .prefetch(chance.pick(&[1, 3, 64]))
        .receives_pings();
    let poller = if is_first || chance.odds(0.7) { builder.start().await? } else { builder.connect().await? };
    let receiver = Receiver::new(poller.clone());
    Ok(Replica { life: life.clone(), clock, client, poller, receiver, tracks: Arc::default() })
}

/// The application's side: takes outcomes, and is not always good at it.
async fn take_outcomes(world: Arc<World>, replica: Replica) {
    let mut outcomes = replica.poller.outcomes();
    loop {
        if world.strikes(0.05) {
            // Somebody who changes his mind.
            outcomes = replica.poller.outcomes();
        }
        let Some(delivery) = next(&world, &mut outcomes).await else { return };
        {
            let op = world.op();
            world.oracle().delivered(world.now(), &replica.life, &delivery, &op);
        }
        let dealt_with = deal_with(world.clone(), replica.clone(), delivery);
        if world.chance.odds(0.5) {
            dealt_with.await;
        } else {
            spawn(mortal(replica.life.clone(), dealt_with));
        }
    }
}

/// The next outcome, by a future that may be dropped before it comes.
async fn next(world: &World, outcomes: &mut Outcomes) -> Option<Delivery> {
    while world.strikes(0.2) {
        tokio::select! {
            biased;
            next = outcomes.next() => return next,
            () = world.sleep(world.chance.between(Duration::from_millis(1), MINUTE)) => {}
        }
    }
    outcomes.next().await
}

async fn deal_with(world: Arc<World>, replica: Replica, delivery: Delivery) {
    let id = delivery.id();
    deal_well_or_badly(&world, &replica, delivery).await;
    world.oracle().put_down(&replica.life, id);
}

async fn deal_well_or_badly(world: &World, replica: &Replica, delivery: Delivery) {
    let chance = &world.chance;
    if world.now() >= world.weather.calm_at {
        return acknowledge(world, &delivery, u32::MAX).await;
    }
    match chance.below(10) {
        0 => drop(delivery),
        1 => {
            world.oracle().put_down(&replica.life, delivery.id());
            // It comes again, whatever comes of this.
            let _ = delivery.retry_after(chance.between(Duration::from_millis(1), HOUR)).await;
        }
        2 => {
            world.sleep(chance.between(Duration::from_secs(1), HOUR)).await;
            acknowledge(world, &delivery, 3).await;
        }
        3 if world.weather.crash > 0.0 => world.kill(&replica.life),
        4 => {
            acknowledge(world, &delivery, 3).await;
            world.sleep(chance.up_to(HOUR)).await;
            acknowledge(world, &delivery, 3).await;
        }
        _ => acknowledge(world, &delivery, 5).await,
    }
}

async fn acknowledge(world: &World, delivery: &Delivery, attempts: u32) {
    for _ in 0..attempts {
        if delivery.acknowledge().await.is_ok() {
            return;
        }
        world.sleep(world.chance.between(Duration::from_millis(100), MINUTE)).await;
    }
}
