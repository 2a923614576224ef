//! The kinds of trouble that a seed selects.

use std::ops::Range;
use std::time::Duration;

use crate::chance::Chance;
use crate::world::{DAY, HOUR, MINUTE};

/// The share of seeds with a kind of trouble of [`Rare`].
const RARE: f64 = 0.3;
/// The share of these with hundreds of users: one such seed takes as long as a hundred others.
const CROWDS: f64 = 0.03;
/// The share of these without other trouble, so that the cause of every failure is known.
const ALONE: f64 = 0.6;

/// The trouble of a world, drawn once for each seed.
#[derive(Debug)]
pub struct Faults {
    pub crash: f64,
    pub wire_fault: f64,
    pub store_fault: f64,
    pub garbage: f64,
    pub slow: f64,
    pub latency: Duration,
    pub store_latency: Duration,
    pub outages: Vec<Outage>,
    /// The error of wall clocks, in milliseconds.
    pub skew: i64,
    /// The size of their jumps.
    pub jumps: i64,
    /// The time from which nothing fails any more.
    pub calm_at: Duration,
    /// Whether the store notifies replicas of each other's changes.
    pub store_tells: bool,
    pub check_interval: Duration,
    pub rare: Rare,
}

/// Trouble in few seeds. It has a random stream of its own, so that the other seeds keep their behaviour.
#[derive(Debug, Default)]
pub struct Rare {
    /// The number of users, if it is higher than usual.
    pub crowd: Option<usize>,
    /// The number of further clients, each with an OP of its own.
    pub more_clients: usize,
    /// When the store's clock is set, and by how many milliseconds.
    pub store_clock: Vec<(Duration, i64)>,
    /// The time that each row adds to a call that settles or claims it.
    pub row_cost: Duration,
    /// The number of rows that one step of the correction of due times reads, if it is lower than usual.
    pub correction_step: Option<usize>,
    /// The probability that a replica dies between two steps.
    pub dies_correcting: f64,
    /// The client times out in every call that reads all rows of the store.
    pub is_huge: bool,
    /// The mean time between two suspensions of replicas.
    pub suspends_every: Option<Duration>,
    /// The probability that a consumer hangs with a delivery in hand, or takes no more.
    pub hung_consumers: f64,
    /// The probability that the store's client panics in a call of the engine.
    pub panics: f64,
    /// The longest `Retry-After`, instead of an hour.
    pub longest_retry_after: Option<Duration>,
}

/// The kinds of trouble of [`Rare`], with the names that `SIMULATION_WORLDS` accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Crowd,
    Clients,
    StoreClock,
    SlowStore,
    HangingStore,
    HangingEndpoints,
    Consumers,
    Suspends,
    Panics,
    RetryAfter,
    Refusal,
}

impl Kind {
    const ALL: [(&'static str, Self); 11] = [
        ("crowd", Self::Crowd),
        ("clients", Self::Clients),
        ("store-clock", Self::StoreClock),
        ("slow-store", Self::SlowStore),
        ("hanging-store", Self::HangingStore),
        ("hanging-endpoints", Self::HangingEndpoints),
        ("consumers", Self::Consumers),
        ("suspends", Self::Suspends),
        ("panics", Self::Panics),
        ("retry-after", Self::RetryAfter),
        ("refusal", Self::Refusal),
    ];

    fn named(name: &str) -> Self {
        let known = Self::ALL.iter().find(|(known, _)| *known == name);
        known.map(|(_, kind)| *kind).unwrap_or_else(|| panic!("there is no kind of world {name}"))
    }

    fn drawn(chance: &Chance) -> Vec<Self> {
        if !chance.odds(RARE) {
            return Vec::new();
        }
        // All but the first, which is a crowd.
        let from = &Self::ALL.map(|(_, kind)| kind)[1..];
        let mut kinds = vec![chance.pick(from)];
        if chance.odds(0.3) {
            kinds.push(chance.pick(from));
        }
        if chance.odds(CROWDS) {
            kinds.push(Self::Crowd);
        }
        kinds
    }
}

/// The worlds that `SIMULATION_WORLDS` selects.
pub enum Worlds {
    /// With kinds that are drawn from all of them.
    All,
    /// With these kinds of trouble.
    These(Vec<Kind>),
}

impl Worlds {
    /// Parses `all`, `none`, or names of kinds that are separated by commas.
    pub fn named(names: &str) -> Self {
        match names {
            "all" => Self::All,
            "none" => Self::These(Vec::new()),
            names => Self::These(names.split(',').map(Kind::named).collect()),
        }
    }

    fn drawn(&self, chance: &Chance) -> Vec<Kind> {
        match self {
            Self::All => Kind::drawn(chance),
            Self::These(kinds) => kinds.clone(),
        }
    }
}

#[derive(Debug)]
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
    /// Some replicas cannot reach the store.
    Line,
    /// The OP refuses the client's credentials.
    Registration,
    /// The OP's nonces change with every request.
    Nonces,
    /// The store accepts calls and does not answer.
    HangingStore,
    /// The same for an endpoint of the OP.
    HangingToken,
    HangingKeys,
    HangingCancellation,
    /// The OP or a gateway in front of it is overloaded and names a time to try again.
    Overloaded,
}

impl Faults {
    /// The periods in which the keys of the OP are unavailable, in order.
    pub fn keys_away(&self) -> Vec<Range<Duration>> {
        let hides_keys = |outage: &&Outage| {
            matches!(outage.of, Part::Op | Part::Keys | Part::HangingKeys) && outage.from < self.calm_at
        };
        let mut away: Vec<_> =
            self.outages.iter().filter(hides_keys).map(|of| of.from..of.to.min(self.calm_at)).collect();
        away.sort_by_key(|outage| outage.start);
        away
    }

    pub fn drawn(chance: &Chance, rare: &Chance, worlds: &Worlds, horizon: Duration) -> Self {
        let mut faults = usual(chance, horizon);
        let kinds = worlds.drawn(rare);
        if !kinds.is_empty() && rare.odds(ALONE) {
            faults.outages.clear();
            for rate in [
                &mut faults.crash,
                &mut faults.wire_fault,
                &mut faults.store_fault,
                &mut faults.garbage,
                &mut faults.slow,
            ] {
                *rate = 0.0;
            }
        }
        kinds.into_iter().for_each(|kind| faults.bring(kind, rare, horizon));
        faults
    }

    fn bring(&mut self, kind: Kind, chance: &Chance, horizon: Duration) {
        let rare = &mut self.rare;
        match kind {
            Kind::Crowd => {
                rare.crowd = Some(100 + chance.below(150));
                rare.more_clients = chance.pick(&[0, 3, 20]);
                self.latency = self.latency.min(Duration::from_millis(80));
                self.store_latency = self.store_latency.min(Duration::from_millis(20));
            }
            Kind::Clients => rare.more_clients = chance.between_numbers(1, 6),
            Kind::StoreClock => {
                for _ in 0..chance.pick(&[1, 1, 2, 4]) {
                    let by = chance.between(Duration::from_secs(90), 12 * HOUR).as_millis() as i64;
                    rare.store_clock.push((chance.up_to(horizon * 2), if chance.odds(0.6) { by } else { -by }));
                }
                rare.store_clock.sort_unstable();
                rare.is_huge = chance.odds(0.3);
                rare.correction_step = chance.pick(&[None, Some(1), Some(3)]);
                rare.dies_correcting = chance.pick(&[0.0, 0.2]);
            }
            Kind::SlowStore => {
                rare.row_cost = chance.pick(&[Duration::ZERO, Duration::from_millis(20), Duration::from_millis(300)]);
                rare.is_huge = chance.odds(0.5);
                self.store_latency =
                    chance.pick(&[Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2)]);
            }
            Kind::HangingStore => {
                for _ in 0..1 + chance.below(3) {
                    self.out(Part::HangingStore, chance, horizon, Duration::from_secs(20), 6 * HOUR);
                }
            }
            Kind::HangingEndpoints => {
                let part = chance.pick(&[Part::HangingToken, Part::HangingKeys, Part::HangingCancellation]);
                let longest = if part == Part::HangingKeys { 18 * HOUR } else { 2 * DAY };
                self.out(part, chance, horizon, MINUTE, longest);
            }
            Kind::Consumers => rare.hung_consumers = chance.pick(&[0.1, 0.5]),
            Kind::Suspends => rare.suspends_every = Some(chance.between(5 * MINUTE, horizon / 2)),
            Kind::Panics => rare.panics = chance.pick(&[0.001, 0.01]),
            Kind::RetryAfter => {
                rare.longest_retry_after = Some(chance.pick(&[6 * HOUR, DAY]));
                self.out(Part::Overloaded, chance, horizon, Duration::from_secs(1), 30 * MINUTE);
            }
            Kind::Refusal => {
                self.out(Part::Registration, chance, horizon, HOUR, DAY);
                self.out(Part::Keys, chance, horizon, MINUTE, 6 * HOUR);
            }
        }
    }

    fn out(&mut self, of: Part, chance: &Chance, horizon: Duration, shortest: Duration, longest: Duration) {
        let from = chance.up_to(horizon);
        self.outages.push(Outage { of, from, to: from + chance.between(shortest, longest.min(horizon)) });
    }
}

fn usual(chance: &Chance, horizon: Duration) -> Faults {
    let rate = |values: &[f64]| chance.pick(values);
    let mut outages = Vec::new();
    for of in [Part::Op, Part::Keys, Part::Store, Part::Line, Part::Registration, Part::Nonces] {
        for _ in 0..chance.pick(&[0, 0, 0, 1, 2]) {
            let from = chance.up_to(horizon);
            let longest = match of {
                // Such an outage alone is too short for an answer to be given up, which takes a day.
                Part::Keys => 18 * HOUR,
                // Beyond every lease, a longer outage only adds failed attempts.
                Part::Store | Part::Line => chance.pick(&[6 * HOUR, 6 * HOUR, 6 * HOUR, 2 * DAY]),
                _ => 2 * DAY,
            };
            outages.push(Outage { of, from, to: from + chance.between(Duration::from_secs(1), longest.min(horizon)) });
        }
    }
    let big_jumps = chance.odds(0.15);
    Faults {
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
        check_interval: chance.between(Duration::from_secs(1), Duration::from_secs(60)).max(horizon / 500),
        rare: Rare::default(),
    }
}
