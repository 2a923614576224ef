//! Real workers that are killed with SIGKILL and suspended with SIGSTOP at random moments, and databases that are
//! unavailable for a while. The provider runs in the test, and its records show what really happened.

mod chance;
mod faults;
mod flow;
mod outage;
#[path = "../shared/server.rs"]
mod server;
mod service;
mod trial;
mod verdict;

use std::time::Duration;

use service::{Setting, StoreOf};
use trial::Trial;

/// The trials of `scripts/test`. `scripts/soak` runs longer ones.
fn trial(name: &'static str, setting: Setting, workers: usize) -> Trial {
    Trial {
        name,
        setting,
        workers,
        processes: number("SOAK_PROCESSES", 200) as u32,
        kills: number("SOAK_KILLS", 5) as usize,
        suspends: workers > 1,
        snapshot: false,
        kills_front: number("SOAK_KILLS_FRONT", 0) == 1,
        trouble_every: None,
        seed: number("SOAK_SEED", 1),
        review: Duration::from_secs(number("SOAK_REVIEW", 14)),
        deadline: Duration::from_secs(number("SOAK_DEADLINE", 150)),
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_repeatedly_loses_no_outcome_in_sqlite() {
    trial("SQLite, 1 worker", Setting::plain(StoreOf::sqlite()), 1).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_that_are_killed_repeatedly_lose_no_outcome_in_postgresql() {
    let trial = trial("PostgreSQL, 3 workers, a snapshot held open", Setting::plain(StoreOf::postgres()), 3);
    Trial { snapshot: true, ..trial }.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_in_a_storm_of_faults_lose_no_outcome_that_the_provider_still_has() {
    let interval = Duration::from_secs(number("SOAK_INTERVAL", 1));
    let setting = Setting { store: StoreOf::postgres(), https: true, interval };
    let trouble_every = Some(Duration::from_millis(number("SOAK_TROUBLE_MS", 300)));
    // After five failures in a row, polls pause for half a minute.
    let deadline = Duration::from_secs(number("SOAK_DEADLINE", 240));
    Trial { trouble_every, deadline, ..trial("PostgreSQL, 3 workers, TLS, faults", setting, 3) }.run().await;
}
