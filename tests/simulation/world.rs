//! One simulated world: a provider, a network, a store, some replicas and users, and everything that befalls them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openid_deferred::Clock as _;
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{SeededRandom, TestClock};
use openid_deferred::{Keyring, SealingKey};

use crate::chance::Chance;
use crate::life::{Life, Signal};
use crate::op::{Decision, Op, Plan};
use crate::oracle::{Counts, Oracle};
use crate::replica::Replica;
use crate::{replica, users};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);
/// More calls to the store in one instant can only be a loop that never ends.
const MOST_CALLS_AT_ONCE: u64 = 20_000;

/// What kind of trouble there is, drawn once for each seed.
pub struct Weather {
    pub crash: f64,
    pub wire_fault: f64,
    pub store_fault: f64,
    pub garbage: f64,
    pub slow: f64,
    pub latency: Duration,
    pub store_latency: Duration,
    pub outages: Vec<Outage>,
    /// By how much wall clocks are wrong, in milliseconds.
    pub skew: i64,
    /// How far they jump.
    pub jumps: i64,
    /// From here on nothing fails any more.
    pub calm_at: Duration,
    /// Whether the store tells replicas of each other's changes.
    pub store_tells: bool,
    pub look_every: Duration,
}

impl Weather {
    fn keys_away(&self) -> Vec<Range<Duration>> {
        let hides_keys = |outage: &&Outage| matches!(outage.of, Part::Op | Part::Keys) && outage.from < self.calm_at;
        let mut away: Vec<_> =
            self.outages.iter().filter(hides_keys).map(|of| of.from..of.to.min(self.calm_at)).collect();
        away.sort_by_key(|outage| outage.start);
        away
    }
}

pub struct Outage {
    pub of: Part,
    pub from: Duration,
    pub to: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Op,
    Keys,
    Store,
    /// Some replicas are cut off from the store.
    Line,
    /// The OP refuses the client's credentials.
    Registration,
    /// The OP's nonces change with every request.
    Nonces,
}

pub struct World {
    /// Made once: deriving its keys took a third of the time of a seed when each replica did it for itself.
    pub keyring: Keyring,
    pub clock: TestClock,
    pub chance: Chance,
    pub weather: Weather,
    pub memory: Arc<MemoryStore>,
    /// Something in the store may have changed.
    pub changes: Signal,
    pub dpop: bool,
    pub horizon: Duration,
    pub replicas: usize,
    op: Mutex<Op>,
    oracle: Mutex<Oracle>,
    slots: Mutex<Vec<Option<Replica>>>,
    lives: AtomicU64,
    calls: Mutex<(Duration, u64)>,
    /// Which process a replica is taking over from elsewhere.
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

    /// Whether trouble of this probability strikes now.
    pub fn strikes(&self, probability: f64) -> bool {
        probability > 0.0 && self.now() < self.weather.calm_at && self.chance.odds(probability)
    }

    pub fn is_out(&self, part: Part) -> bool {
        let now = self.now();
        now < self.weather.calm_at
            && self.weather.outages.iter().any(|outage| outage.of == part && outage.from <= now && now < outage.to)
    }

    pub fn kill(&self, life: &Arc<Life>) {
        if life.is_alive() {
            life.stop();
            self.oracle().died(self.now(), life);
        }
    }

    /// At every seam a machine may lose its power.
    pub async fn may_crash(&self, life: &Arc<Life>) {
        if self.strikes(self.weather.crash) {
            self.kill(life);
            std::future::pending::<()>().await;
        }
    }

    /// A running replica, whichever; `None` if all are down.
    pub fn some_replica(&self) -> Option<Replica> {
        let slots = self.slots();
        let running: Vec<_> = slots.iter().flatten().filter(|replica| replica.life.is_alive()).collect();
        (!running.is_empty()).then(|| running[self.chance.below(running.len())].clone())
    }

    /// Counts a call, so that a busy loop is found.
    pub fn called(&self) {
        let now = self.now();
        let mut calls = self.calls.lock().unwrap();
        *calls = if calls.0 == now { (now, calls.1 + 1) } else { (now, 1) };
        if calls.1 == MOST_CALLS_AT_ONCE {
            self.oracle().must(now, false, || "a loop never ends".to_owned());
            // Whoever loops cannot be stopped otherwise.
            panic!("a loop never ends");
        }
    }

    pub fn tracking(&self, replica: u32) -> Option<usize> {
        self.tracking.lock().unwrap().get(&replica).copied()
    }

    fn new(seed: u64, traced: bool) -> Self {
        let chance = Chance::new(seed);
        let clock = TestClock::new();
        let horizon = chance.between(Duration::from_secs(600), 3 * DAY);
        let weather = weather(&chance, horizon);
        let mut oracle = Oracle::default();
        oracle.trace = traced.then(Vec::new);
        oracle.keys_away = weather.keys_away();
        let mut op = Op::new();
        op.forgets_cancelled = chance.odds(0.3);
        op.nonce = chance.odds(0.5).then(|| "nonce-0".to_owned());
        let replicas = chance.pick(&[1, 2, 2, 3]);
        let keyring = Keyring::new(SealingKey::generate(&SeededRandom::new(seed ^ 7)).expect("a key"));
        Self {
            keyring,
            memory: Arc::new(MemoryStore::with_clock(Arc::new(clock.clone()))),
            changes: Signal::default(),
            clock,
            weather,
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

    /// What the OP does with the next user.
    pub fn plan(&self) -> Plan {
        let chance = &self.chance;
        let expires = chance.odds(0.6);
        let shortest = (self.horizon / 60).max(Duration::from_secs(1));
        let mut interval = chance.between(shortest, (self.horizon / 4).min(HOUR).max(shortest));
        let mut decides_after = chance.up_to(self.horizon);
        if chance.odds(0.2) {
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
            // Where the OP names none, the default is for weeks.
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

fn weather(chance: &Chance, horizon: Duration) -> Weather {
    let rate = |values: &[f64]| chance.pick(values);
    let mut outages = Vec::new();
    for of in [Part::Op, Part::Keys, Part::Store, Part::Line, Part::Registration, Part::Nonces] {
        for _ in 0..chance.pick(&[0, 0, 0, 1, 2]) {
            let from = chance.up_to(horizon);
            let longest = match of {
                // Alone it does not take an answer's keys away for the day after which it is given up.
                Part::Keys => 18 * HOUR,
                // Beyond every lease it is only one more failed try after the other.
                Part::Store | Part::Line => chance.pick(&[6 * HOUR, 6 * HOUR, 6 * HOUR, 2 * DAY]),
                _ => 2 * DAY,
            };
            outages.push(Outage { of, from, to: from + chance.between(Duration::from_secs(1), longest.min(horizon)) });
        }
    }
    let big_jumps = chance.odds(0.15);
    Weather {
        crash: rate(&[0.0, 0.0, 0.001, 0.004, 0.015]),
        wire_fault: rate(&[0.0, 0.01, 0.05, 0.3]),
        store_fault: rate(&[0.0, 0.0, 0.01, 0.1, 0.4]),
        garbage: rate(&[0.0, 0.01, 0.1]),
        slow: rate(&[0.0, 0.01, 0.1]),
        latency: chance.pick(&[Duration::ZERO, Duration::from_millis(80), Duration::from_secs(3)]),
        store_latency: chance.pick(&[
            Duration::ZERO,
            Duration::ZERO,
            Duration::from_millis(20),
            Duration::from_secs(1),
        ]),
        outages,
        skew: rate(&[0.0, 1.0, 1.0]) as i64 * 10_000,
        jumps: if big_jumps { 6 * 3_600_000 } else { 0 },
        calm_at: horizon + chance.up_to(horizon),
        store_tells: chance.odds(0.6),
        look_every: chance.between(Duration::from_secs(1), Duration::from_secs(60)).max(horizon / 500),
    }
}

/// What a world came to.
pub struct Report {
    pub counts: Counts,
    pub digest: u64,
    pub trace: Vec<String>,
    pub violation: Option<String>,
}

/// Lets the world of a seed run to its end.
pub fn run(seed: u64, traced: bool) -> Report {
    let world = Arc::new(World::new(seed, traced));
    let clock = world.clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Time passes when nobody has anything left to do.
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
    Report {
        counts,
        digest: oracle.digest,
        trace: oracle.trace.take().unwrap_or_default(),
        violation: oracle.violation.take(),
    }
}

async fn history(world: Arc<World>) {
    for slot in 0..world.replicas {
        spawn(replica::keep_running(world.clone(), slot));
    }
    spawn(administration(world.clone()));
    let users = 1 + world.chance.below(12);
    for label in 0..users {
        let plan = world.plan();
        world.oracle().expects(plan.clone());
        world.op().expect(plan.clone());
        spawn(users::sign_in(world.clone(), label, plan));
    }
    // Backoff, gates and deliveries that come again each take an hour at most, many times over.
    let end = world.weather.calm_at + world.horizon * 3 + 3 * DAY;
    let step = (world.horizon / 50).max(Duration::from_secs(60));
    let mut quiet = 0;
    while world.now() < end && quiet < 3 && world.oracle().violation.is_none() {
        world.sleep(step).await;
        let all_came = world.now() > world.horizon + HOUR && world.now() > world.weather.calm_at;
        let finished = all_came && world.oracle().is_finished();
        quiet = if finished { quiet + 1 } else { 0 };
    }
    world.oracle().finish(world.now());
}

/// Keys rotate, nonces change, clocks are set.
async fn administration(world: Arc<World>) {
    let mut turn = 0_u64;
    loop {
        world.sleep(world.chance.between(Duration::from_secs(10), world.horizon / 3)).await;
        if world.now() > world.weather.calm_at {
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
                let reach = world.weather.jumps.max(world.weather.skew);
                let ahead = world.chance.below(2 * reach as usize + 1) as i64 - reach;
                if let Some(replica) = world.some_replica() {
                    replica.clock.set_ahead(ahead);
                    world.oracle().clock_set(world.now(), &replica.life, ahead);
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the runtime of the world owns its tasks, and ends with it")]
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
