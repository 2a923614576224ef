//! Replicas of the application: started, killed, shut down and restarted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::ciba::DeliveryMode;
use openid_deferred::ping::Receiver;
use openid_deferred::poller::{Limits, Outcomes};
use openid_deferred::testing::SeededRandom;
use openid_deferred::{
    Backoff, Client, ClientAuthentication, Delivery, DpopMode, Error, Poller, Signer, SigningAlgorithm,
};

use crate::life::{Life, ReplicaClock, mortal};
use crate::network::Network;
use crate::op::{CLIENT_ID, REDIRECT_URI, issuer};
use crate::store::SimulatedStore;
use crate::world::{HOUR, MINUTE, World, spawn};

/// The longest time from the end of the grace period to the end of a shutdown, whatever the store and the OP do.
const LATE_SHUTDOWN: Duration = Duration::from_secs(5);
/// With this grace period, and a store that works, outcomes are given back.
const ENOUGH_GRACE: Duration = Duration::from_secs(30);

/// A running replica, as its users reach it.
#[derive(Clone)]
pub struct Replica {
    pub life: Arc<Life>,
    pub clock: Arc<ReplicaClock>,
    /// One for each OP.
    pub clients: Vec<Client>,
    pub poller: Poller,
    pub receiver: Receiver,
    /// Only one sign-in from elsewhere is tracked at a time, so that its row can be identified.
    pub tracks: Arc<tokio::sync::Mutex<()>>,
}

/// Keeps one replica running, with a new machine whenever the old one has died.
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
            // If consumers may hang, one of them never does.
            let consumers = chance.pick(&[1, 1, 2]) + u64::from(world.faults.rare.hung_consumers > 0.0);
            for number in 0..consumers {
                spawn(mortal(life.clone(), take_outcomes(world.clone(), replica.clone(), number)));
            }
            serve(&world, &replica).await;
            world.slots()[slot] = None;
        }
        world.kill(&life);
        world.sleep(chance.between(Duration::from_millis(100), 10 * MINUTE)).await;
    }
}

/// Runs until the replica dies or is shut down for a new release.
async fn serve(world: &World, replica: &Replica) {
    let chance = &world.chance;
    let release = chance.between(MINUTE, world.horizon * 4);
    tokio::select! {
        biased;
        () = replica.life.ended() => return,
        () = world.sleep(release) => {}
    }
    if world.now() >= world.faults.calm_at {
        return replica.life.ended().await;
    }
    // It may die within a second of going on.
    while replica.life.is_alive() && !replica.life.is_running() {
        world.sleep(Duration::from_secs(1)).await;
    }
    let grace = chance.pick(&[Duration::ZERO, Duration::from_secs(1), MINUTE]);
    let life = &replica.life;
    let (began, store_faults, suspends) = (world.now(), life.store_faults(), life.suspends());
    world.oracle().quiet.stops_polling(began, life.number);
    tokio::select! {
        biased;
        () = life.ended() => {}
        () = replica.poller.shutdown(grace) => {
            let (now, mut oracle) = (world.now(), world.oracle());
            let (took, slept) = (now - began, life.suspends() > suspends);
            oracle.must(now, slept || took <= grace + LATE_SHUTDOWN, || format!("shutdown({grace:?}) took {took:?}"));
            if grace >= ENOUGH_GRACE && life.store_faults() == store_faults {
                oracle.released(now, life);
            }
        }
    }
}

fn limits(world: &World) -> Limits {
    let chance = &world.chance;
    let in_flight = chance.pick(&[1, 4, 64]);
    let mut limits = Limits::new().in_flight(if world.faults.rare.crowd.is_some() { 64 } else { in_flight });
    if chance.odds(0.2) {
        let rate = chance.pick(&[1, 7, 50]);
        let rate = if world.faults.rare.crowd.is_some() { 50 } else { rate };
        limits = limits.rate(rate, Duration::from_secs(1));
    }
    limits
}

/// The first replica polls; others may leave that to it.
async fn start(world: &Arc<World>, life: &Arc<Life>, is_first: bool) -> Result<Replica, Error> {
    let chance = &world.chance;
    let skew = world.faults.skew;
    let ahead = chance.below(2 * skew as usize + 1) as i64 - skew;
    let clock = ReplicaClock::new(world.clock.clone(), life.clone(), chance.up_to(1000 * HOUR), ahead);
    let clock = Arc::new(clock);
    let random = || Arc::new(SeededRandom::new(chance.word()));
    let network = Arc::new(Network { world: world.clone(), life: life.clone() });
    let random_of_client = random();
    let backoff = chance.odds(0.3).then(|| Backoff::Growing { up_to: chance.pick(&[MINUTE, HOUR, 24 * HOUR]) });
    world.oracle().backs_off |= backoff.is_some();
    let client_of = |number: usize| {
        let issuer = issuer(number);
        let authentication = match world.faults.rare.panics > 0.0 {
            true => ClientAuthentication::private_key_jwt(PanickyKey { world: world.clone(), life: life.clone() }),
            false => ClientAuthentication::client_secret_post("a secret of the client"),
        };
        let mut client = Client::builder(&issuer, CLIENT_ID)
            .authentication(authentication)
            .redirect_uri(REDIRECT_URI)
            .cancellation_endpoint(format!("{issuer}/cancel"))
            .backchannel_token_delivery_mode(DeliveryMode::Ping)
            .http_client(network.clone())
            .clock(clock.clone())
            .random(random_of_client.clone());
        if !world.dpop {
            client = client.dpop(DpopMode::Off);
        }
        if world.faults.jumps > 0 {
            client = client.leeway(24 * HOUR).session_lifetime(24 * HOUR);
        }
        if let Some(backoff) = backoff {
            client = client.backoff(backoff);
        }
        client.build()
    };
    let clients = (0..world.clients()).map(client_of).collect::<Result<Vec<_>, _>>()?;
    let limits = limits(world);
    let store = SimulatedStore { world: world.clone(), life: life.clone() };
    let mut builder = Poller::builder(store, world.keyring.clone())
        .clock(clock.clone())
        .random(random())
        .limits(limits)
        .prefetch(chance.pick(&[1, 3, 64]))
        .receives_pings();
    for client in &clients {
        builder = builder.client(client.clone());
    }
    let polls = is_first || chance.odds(0.7);
    let poller = if polls { builder.start().await? } else { builder.connect().await? };
    if polls {
        world.oracle().quiet.starts_polling(world.now(), life.number);
    }
    let receiver = Receiver::new(poller.clone());
    Ok(Replica { life: life.clone(), clock, clients, poller, receiver, tracks: Arc::default() })
}

/// A key in a device whose driver panics now and then. The OP of this simulation verifies no signatures.
struct PanickyKey {
    world: Arc<World>,
    life: Arc<Life>,
}

impl Signer for PanickyKey {
    fn algorithm(&self) -> SigningAlgorithm {
        SigningAlgorithm::Es256
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    fn sign<'a>(&'a self, _message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        Box::pin(mortal(self.life.clone(), async {
            self.world.may_panic(&self.life, "key");
            Ok(vec![0; 64])
        }))
    }
}

impl fmt::Debug for PanickyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PanickyKey").finish_non_exhaustive()
    }
}

/// The application: it takes outcomes, and makes mistakes.
async fn take_outcomes(world: Arc<World>, replica: Replica, number: u64) {
    let mut outcomes = replica.poller.outcomes();
    loop {
        if world.strikes(0.05) {
            // The application replaces its stream of outcomes.
            outcomes = replica.poller.outcomes();
        }
        world.oracle().takes(world.now(), &replica.life, number);
        let delivery = next(&world, &mut outcomes).await;
        world.oracle().took(world.now(), &replica.life, number);
        let Some(delivery) = delivery else { return };
        {
            let op = world.op();
            world.oracle().delivered(world.now(), &replica.life, &delivery, &op);
        }
        if number > 0 && world.strikes(world.faults.rare.hung_consumers) {
            // It holds an outcome, or only those that the stream has claimed in advance.
            let _in_hand = match world.chance.odds(0.5) {
                true => Some(delivery),
                false => {
                    world.oracle().put_down(&replica.life, delivery.id());
                    drop(delivery);
                    None
                }
            };
            return std::future::pending().await;
        }
        let dealt_with = deal_with(world.clone(), replica.clone(), delivery);
        if world.chance.odds(0.5) {
            dealt_with.await;
        } else {
            spawn(mortal(replica.life.clone(), dealt_with));
        }
    }
}

/// The next outcome, by a future that may be dropped before the outcome comes.
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
    if world.now() >= world.faults.calm_at {
        return acknowledge(world, &delivery, u32::MAX).await;
    }
    match chance.below(10) {
        0 => drop(delivery),
        1 => {
            world.oracle().put_down(&replica.life, delivery.id());
            // It is delivered again, whatever this call returns.
            let _ = delivery.retry_after(chance.between(Duration::from_millis(1), HOUR)).await;
        }
        2 => {
            world.sleep(chance.between(Duration::from_secs(1), HOUR)).await;
            acknowledge(world, &delivery, 3).await;
        }
        3 if world.faults.crash > 0.0 => world.kill(&replica.life),
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
