//! The durable poller on simulated time: replicas, a store, clients and ping receivers, against a model of an OP.
//! Machines and networks fail in every way that a seed can select.
//!
//! - `SIMULATION_SECONDS=40`: the time for which seeds are tried;
//! - `SIMULATION_SEEDS=1000000`: their number, instead;
//! - `SIMULATION_FROM=1`: the first seed;
//! - `SIMULATION_GO_ON=1`: report every seed that breaks a rule instead of stopping at the first one;
//! - `SIMULATION_WORLDS=crowd,suspends`: only worlds with these kinds of trouble (`faults::Kind` has their names);
//!   `all`, the default, draws from all kinds, `none` from none;
//! - `SIMULATION_SEED=123 cargo test --all-features --test simulation -- one_seed`: only this seed, with a log of all
//!   events.

mod chance;
mod faults;
mod life;
mod network;
mod op;
mod oracle;
mod punctual;
mod replica;
mod store;
mod users;
mod watched;
mod world;

use std::cell::Cell;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use faults::Worlds;
use oracle::Counts;

/// The panic of a store's client in some worlds. Any other panic breaks a rule.
struct PlannedPanic;

thread_local! {
    /// Runtimes do not report a task that panics, so panics are counted here.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn the_poller_keeps_its_invariants_under_random_faults() {
    watch_for_panics();
    let first = setting("SIMULATION_FROM").unwrap_or(1);
    let seeds: Option<u64> = setting("SIMULATION_SEEDS");
    let worlds = worlds();
    let goes_on = setting::<u8>("SIMULATION_GO_ON").is_some();
    let budget = Duration::from_secs(setting("SIMULATION_SECONDS").unwrap_or(40));
    let started = now();
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let total = Mutex::new((0_u64, Counts::default()));
    let failures = Mutex::new(Vec::new());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let enough = match seeds {
                Some(seeds) => seed - first >= seeds,
                None => started.elapsed() >= budget,
            };
            if enough {
                break;
            }
            let report = world::run(seed, &worlds, false);
            if let Some(violation) = report.violation {
                println!("{seed}: {violation}");
                failed.store(!goes_on, Ordering::Relaxed);
                failures.lock().unwrap().push((seed, violation));
            }
            let mut total = total.lock().unwrap();
            total.0 += 1;
            add(&mut total.1, &report.counts);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    let (run, counts) = total.into_inner().unwrap();
    println!(
        "{run} seeds in {:.0} s: {} processes, {} requests ({} polls), {} deliveries, {} pings, {} crashes; {:?}",
        started.elapsed().as_secs_f64(),
        counts.processes,
        counts.requests,
        counts.polls,
        counts.deliveries,
        counts.pings,
        counts.crashes,
        counts.outcomes,
    );
    if let Some((seed, violation)) = failures.into_inner().unwrap().into_iter().min() {
        panic!("{violation}; SIMULATION_SEED={seed} cargo test --all-features --test simulation -- one_seed");
    }
}

#[test]
fn one_seed() {
    watch_for_panics();
    // The crate's own log appears between the events.
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().with_test_writer();
    log.init();
    let seed = setting("SIMULATION_SEED").unwrap_or(1);
    let report = world::run(seed, &worlds(), true);
    if let Some(violation) = report.violation {
        panic!("seed {seed}: {violation}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 4, 5, 6, 7, 8] {
        let (first, second) = (world::run(seed, &Worlds::All, false), world::run(seed, &Worlds::All, false));
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// The worlds that the environment selects.
fn worlds() -> Worlds {
    std::env::var("SIMULATION_WORLDS").map_or(Worlds::All, |names| Worlds::named(&names))
}

fn add(total: &mut Counts, more: &Counts) {
    total.processes += more.processes;
    total.requests += more.requests;
    total.polls += more.polls;
    total.deliveries += more.deliveries;
    total.crashes += more.crashes;
    total.pings += more.pings;
    for (outcome, count) in &more.outcomes {
        *total.outcomes.entry(outcome).or_default() += count;
    }
}

fn watch_for_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().is::<PlannedPanic>() {
            return;
        }
        PANICS.set(PANICS.get() + 1);
        before(panic);
    }));
}

#[expect(clippy::disallowed_methods, reason = "the budget is real time")]
fn now() -> Instant {
    Instant::now()
}
