//! Tests of the stores that keep their rows in databases, for the contract and for what happens to databases: several
//! handles, other programs, locks, crashes, cut connections.
//!
//! The tests of PostgreSQL need a server: `scripts/postgres run cargo test --all-features` starts one for them.

mod clock;
mod erasing;
mod moving;
mod notifications;
mod outages;
mod plans;
mod postgres;
mod processes;
mod proxy;
#[path = "../shared/server.rs"]
mod server;
mod sqlite;
#[path = "../shared/timed.rs"]
mod timed;
mod tls;

use std::time::Duration;

use openid_deferred::store::{Claim, ClaimQuota, Fingerprint, NewProcess, Partition, ProcessId, SealedBody, State};

const PARTITION: Partition = Partition(7);
const KEY: [u8; 4] = [0xff, 0, 1, 2];

/// A waiting sign-in that is due.
fn waiting(number: u32) -> NewProcess {
    let body = SealedBody::new(1, KEY, vec![0x55; 1000]);
    with(NewProcess::new(id(number), PARTITION, State::Waiting, body), |row| {
        row.sessions = vec![fingerprint(number)];
        row.lookups = vec![fingerprint(number)];
        row.interval = Duration::from_secs(3600);
        row.schedule = "schedule".to_owned();
    })
}

/// The value after a change.
fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

fn id(number: u32) -> ProcessId {
    let mut bytes = [0x80; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ProcessId::from_bytes(bytes)
}

fn fingerprint(number: u32) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Fingerprint(bytes)
}

fn claim(limit: usize) -> Claim {
    with(Claim::new(vec![ClaimQuota::new(PARTITION, limit, limit)], 1, vec![KEY]), |claim| {
        claim.limit = limit;
        claim.lease = Duration::from_secs(300);
    })
}
