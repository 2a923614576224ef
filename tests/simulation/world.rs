//! One simulated world: a provider, a network, a store, some replicas and users, and everything that happens to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use openid_deferred::Clock;
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{SeededRandom, TestClock};
use openid_deferred::{Keyring, SealingKey};

use crate::chance::Chance;
use crate::faults::{Faults, Part, Worlds};
use crate::life::{Life, Signal, Suspend};
use crate::op::{Decision, Op, Plan};
use crate::oracle::{Counts, Oracle};
use crate::replica::Replica;
use crate::{replica, users};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);
/// Everything has ended this long after the last trouble, and three times the length of the world. Backoff, circuit breakers and
/// repeated deliveries each take an hour at most, many times over, and some clients back off for a day.
const END: Duration = Duration::from_secs(3 * 86_400);
/// More calls to the store at one moment indicate an endless loop.
const MOST_CALLS_AT_ONCE: u64 = 20_000;

/// The seeds of two random streams of one world.
const OF_RARE: u64 = 0x5ca1_ab1e;
/// The time for which the store's clock has been running, so that it can be set back.
const AGE_OF_STORE: Duration = Duration::from_secs(400 * 86_400);

/// The clock of the store's machine, which may be set. A store depends on it as on the wall clock of a database.
#[derive(Debug)]
struct StoreTime {
    base: TestClock,
    /// In milliseconds.
    ahead: Arc<AtomicI64>,
}

impl Clock for StoreTime {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        let (time, ahead) = (self.base.monotonic() + AGE_OF_STORE, self.ahead.load(Ordering::Relaxed));
        let offset = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { time - offset } else { time + offset }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.base.sleep(duration)
    }
}

pub struct World {
    /// Made once: when each replica derived its keys itself, that took a third of the time of a seed.
    pub keyring: Keyring,
    pub clock: TestClock,
    pub chance: Chance,
    pub faults: Faults,
    pub memory: Arc<MemoryStore>,
    /// Something in the store may have changed.
    pub changes: Signal,
    pub dpop: bool,
    /// All users come at about the same time.
    pub rushes: bool,
    store_ahead: Arc<AtomicI64>,
    pub horizon: Duration,
    pub replicas: usize,
    op: Mutex<Op>,
    oracle: Mutex<Oracle>,
    slots: Mutex<Vec<Option<Replica>>>,
    lives: AtomicU64,
    calls: Mutex<(Duration, u64)>,
    /// The sign-in from elsewhere that each replica is tracking.
    pub tracking: Mutex<BTreeMap<u32, usize>>,
}

impl World {
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    pub fn op(&self) -> MutexGuard<'_, Op> {
        self.op.lock().unwrap()
    }

    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap()
    }

    pub fn slots(&self) -> MutexGuard<'_, Vec<Option<Replica>>> {
        self.slots.lock().unwrap()
    }

    pub fn new_life(&self) -> Arc<Life> {
        Life::new(self.lives.fetch_add(1, Ordering::Relaxed) as u32)
    }

    /// Whether trouble with this probability occurs now.
    pub fn strikes(&self, probability: f64) -> bool {
        probability > 0.0 && self.now() < self.faults.calm_at && self.chance.odds(probability)
    }

    pub fn is_out(&self, part: Part) -> bool {
        let now = self.now();
        now < self.faults.calm_at
            && self.faults.outages.iter().any(|outage| outage.of == part && outage.from <= now && now < outage.to)
    }

    pub fn kill(&self, life: &Arc<Life>) {
        if life.is_alive() {
            life.stop();
            self.oracle().died(self.now(), life);
        }
    }

    /// A machine may lose its power at every interaction with the outside.
    pub async fn may_crash(&self, life: &Arc<Life>) {
        if self.strikes(self.faults.crash) {
            self.kill(life);
            std::future::pending::<()>().await;
        }
    }

    /// The number of clients, each with an OP of its own.
    pub fn clients(&self) -> usize {
        1 + self.faults.rare.more_clients
    }

    /// Any running replica, or `None` if all are down.
    pub fn some_replica(&self) -> Option<Replica> {
        let slots = self.slots();
        let running: Vec<_> = slots.iter().flatten().filter(|replica| replica.life.is_running()).collect();
        (!running.is_empty()).then(|| running[self.chance.below(running.len())].clone())
    }

    /// Counts a call, so that a busy loop is found.
    pub fn called(&self) {
        let now = self.now();
        let mut calls = self.calls.lock().unwrap();
        *calls = if calls.0 == now { (now, calls.1 + 1) } else { (now, 1) };
        if calls.1 == MOST_CALLS_AT_ONCE {
            self.oracle().must(now, false, || "a loop never ends".to_owned());
            // An endless loop cannot be stopped in another way.
            panic!("a loop never ends");
        }
    }

    pub fn tracking(&self, replica: u32) -> Option<usize> {
        self.tracking.lock().unwrap().get(&replica).copied()
    }

    fn new(seed: u64, worlds: &Worlds, traced: bool) -> Self {
        let (chance, rare) = (Chance::new(seed), Chance::new(seed ^ OF_RARE));
        let clock = TestClock::new();
        let horizon = chance.between(Duration::from_secs(600), 3 * DAY);
        let faults = Faults::drawn(&chance, &rare, worlds, horizon);
        let mut oracle = Oracle::default();
        oracle.is_traced = traced;
        oracle.keys_away = faults.keys_away();
        let mut op = Op::new(seed);
        op.forgets_cancelled = chance.odds(0.3);
        op.nonce = chance.odds(0.5).then(|| "nonce-0".to_owned());
        let replicas = chance.pick(&[1, 2, 2, 3]);
        let store_ahead = Arc::new(AtomicI64::new(0));
        let store_time = StoreTime { base: clock.clone(), ahead: store_ahead.clone() };
        let keyring = Keyring::new(SealingKey::generate(&SeededRandom::new(seed ^ 7)).expect("a key"));
        Self {
            keyring,
            memory: Arc::new(MemoryStore::with_clock(Arc::new(store_time))),
            store_ahead,
            rushes: faults.rare.crowd.is_some() && rare.odds(0.5),
            changes: Signal::default(),
            clock,
            faults,
            dpop: chance.odds(0.8),
            horizon,
            replicas,
            op: Mutex::new(op),
            oracle: Mutex::new(oracle),
            slots: Mutex::new((0..replicas).map(|_| None).collect()),
            lives: AtomicU64::new(0),
            calls: Mutex::default(),
            tracking: Mutex::default(),
            chance,
        }
    }

    /// The delay in this world that needs no fault. Replicas that are not notified query the store at intervals, and
    /// each sign-in may wait in the queue of a replica that does one thing at a time.
    fn leisure(&self, users: usize) -> Duration {
        let faults = &self.faults;
        let check_interval = if faults.store_tells { Duration::ZERO } else { faults.check_interval };
        let one_by_one = faults.latency * 4 + faults.store_latency * 4;
        let all = u32::try_from(users).unwrap_or(u32::MAX);
        // In a crowd sign-ins do not wait in a queue, but each row still costs its time.
        let in_line = if faults.rare.crowd.is_some() { 8 } else { all };
        check_interval + one_by_one * in_line + faults.rare.row_cost * 2 * all
    }

    /// Draws the OP's plan for the next user.
    pub fn plan(&self) -> Plan {
        let chance = &self.chance;
        let expires = chance.odds(0.6);
        let is_crowded = self.faults.rare.crowd.is_some();
        let shortest = (self.horizon / if is_crowded { 20 } else { 60 }).max(Duration::from_secs(1));
        let mut interval = chance.between(shortest, (self.horizon / 4).min(HOUR).max(shortest));
        let mut decides_after = chance.up_to(self.horizon);
        if chance.odds(0.2) && !is_crowded {
            interval = chance.between(Duration::from_secs(1), Duration::from_secs(10));
            decides_after = decides_after.min(interval * 40);
        }
        let expires_in = expires.then(|| whole(chance.between(interval, self.horizon * 2)));
        let decisions = [Decision::Approve, Decision::Approve, Decision::Approve, Decision::Deny, Decision::Grant];
        let decision = match chance.below(12) {
            0 => Decision::Request,
            1 | 2 if expires && interval >= shortest => Decision::Never,
            _ => chance.pick(&decisions),
        };
        Plan {
            // Without an interval of the OP, the default fits sign-ins of weeks.
            interval: (self.horizon >= HOUR * 6 || chance.odds(0.9)).then(|| whole(interval)),
            expires_in,
            decision,
            decides_after,
            forged: chance.odds(0.1),
            interim: chance.odds(0.3),
            slow_downs: if chance.odds(0.3) { chance.below(4) as u32 } else { 0 },
            pings: chance.odds(0.5),
        }
    }
}

fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs().max(1))
}

/// The result of a world.
pub struct Report {
    pub counts: Counts,
    pub digest: u64,
    pub violation: Option<String>,
}

/// Runs the world of a seed to its end.
pub fn run(seed: u64, worlds: &Worlds, traced: bool) -> Report {
    let world = Arc::new(World::new(seed, worlds, traced));
    let clock = world.clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Time passes when all tasks are idle.
        .on_thread_park(move || {
            let _ = clock.advance_to_next_timer();
        })
        .build()
        .expect("a runtime");
    crate::PANICS.set(0);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(history(world.clone()))));
    drop(runtime);
    let now = world.now();
    let mut oracle = world.oracle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let panics = crate::PANICS.get();
    oracle.must(now, ran.is_ok() && panics == 0, || format!("{panics} tasks panicked"));
    world.slots.lock().map(|mut slots| slots.clear()).ok();
    let counts = std::mem::take(&mut oracle.counts);
    Report { counts, digest: oracle.digest, violation: oracle.violation.take() }
}

async fn history(world: Arc<World>) {
    world.oracle().say(world.now(), || format!("{:?}", world.faults));
    for slot in 0..world.replicas {
        spawn(replica::keep_running(world.clone(), slot));
    }
    spawn(administration(world.clone()));
    spawn(set_store_clock(world.clone()));
    spawn(suspend_replicas(world.clone()));
    let users = 1 + world.chance.below(12);
    let users = world.faults.rare.crowd.unwrap_or(users);
    world.oracle().quiet.leisure = world.leisure(users);
    for label in 0..users {
        let plan = world.plan();
        let client = if world.clients() > 1 { world.chance.below(world.clients()) } else { 0 };
        world.oracle().expects(plan.clone(), client);
        world.op().expect(plan.clone(), client);
        spawn(users::sign_in(world.clone(), label, plan));
    }
    let end = world.faults.calm_at + world.horizon * 3 + END;
    let step = (world.horizon / 50).max(Duration::from_secs(60));
    let mut quiet = 0;
    while world.now() < end && quiet < 3 && world.oracle().violation.is_none() {
        world.sleep(step).await;
        world.oracle().check_lateness(world.now());
        let all_came = world.now() > world.horizon + HOUR && world.now() > world.faults.calm_at;
        let finished = all_came && world.oracle().is_finished();
        quiet = if finished { quiet + 1 } else { 0 };
    }
    world.oracle().finish(world.now());
}

/// Rotates keys, changes nonces and sets clocks.
async fn administration(world: Arc<World>) {
    let mut turn = 0_u64;
    loop {
        world.sleep(world.chance.between(Duration::from_secs(10), world.horizon / 3)).await;
        if world.now() > world.faults.calm_at {
            return;
        }
        turn += 1;
        match world.chance.below(3) {
            0 => world.op().rotate_keys(),
            1 => {
                let mut op = world.op();
                op.nonce = op.nonce.is_some().then(|| format!("nonce-{turn}"));
            }
            _ => {
                let reach = world.faults.jumps.max(world.faults.skew);
                let ahead = world.chance.below(2 * reach as usize + 1) as i64 - reach;
                if let Some(replica) = world.some_replica() {
                    replica.clock.set_ahead(ahead);
                    world.oracle().clock_set(world.now(), &replica.life, ahead);
                }
            }
        }
    }
}

/// Sets the clock of the store's machine.
async fn set_store_clock(world: Arc<World>) {
    for &(at, by) in &world.faults.rare.store_clock {
        let at = at.min(world.faults.calm_at);
        world.sleep(at.saturating_sub(world.now())).await;
        world.store_ahead.fetch_add(by, Ordering::Relaxed);
        world.oracle().store_clock_set(world.now(), by);
    }
}

/// Suspends machines and stops operating-system processes for seconds or hours.
async fn suspend_replicas(world: Arc<World>) {
    let Some(pause) = world.faults.rare.suspends_every else { return };
    loop {
        world.sleep(world.chance.up_to(pause * 2) + Duration::from_secs(1)).await;
        if world.now() >= world.faults.calm_at {
            return;
        }
        if let Some(replica) = world.some_replica() {
            suspend(&world, &replica.life);
        }
    }
}

/// Suspends a machine or stops an operating-system process now, and continues it later.
pub fn suspend(world: &Arc<World>, life: &Arc<Life>) {
    let (now, chance) = (world.now(), &world.chance);
    let longest = (world.horizon / 4).min(6 * HOUR).min(world.faults.calm_at.saturating_sub(now));
    let time = chance.between(Duration::from_secs(1), longest);
    life.suspend(chance.pick(&[Suspend::Machine, Suspend::Process]), now);
    world.oracle().suspended(now, life);
    let (world, life) = (world.clone(), life.clone());
    spawn(async move {
        world.sleep(time).await;
        if life.is_alive() {
            world.oracle().goes_on(world.now(), &life);
            life.go_on(world.now());
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "the runtime of the world owns its tasks, and ends with it")]
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
