//! Real worker processes, killed with SIGKILL at random moments, and databases that are gone for a while. The provider
//! runs in the test, and its log says what really happened.

mod outage;
mod server;
mod service;
mod trial;
mod verdict;

use std::time::Duration;

use service::StoreOf;
use trial::Trial;

/// What `scripts/test` runs. `scripts/soak` asks for more.
fn trial(name: &'static str, store: StoreOf, workers: usize) -> Trial {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    Trial {
        name,
        store,
        workers,
        processes: number("SOAK_PROCESSES", 200) as u32,
        kills: number("SOAK_KILLS", 5) as usize,
        kills_front: number("SOAK_KILLS_FRONT", 0) == 1,
        seed: number("SOAK_SEED", 1),
        review: Duration::from_secs(number("SOAK_REVIEW", 14)),
        deadline: Duration::from_secs(number("SOAK_DEADLINE", 90)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_again_and_again_loses_no_outcome_in_sqlite() {
    trial("SQLite, 1 worker", StoreOf::sqlite(), 1).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_that_are_killed_again_and_again_lose_no_outcome_in_postgresql() {
    trial("PostgreSQL, 3 workers", StoreOf::postgres(), 3).run().await;
}
