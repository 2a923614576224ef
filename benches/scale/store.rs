//! What a claim and a settlement cost `PostgresStore` alone, without an OP, a client or cryptography, among many rows.
//!
//! The tables are filled on the server. All rows are due, so that each call finds a full batch: it settles the rows of
//! the call before and claims the next ones, as the poller does when it has much to do. A settled row goes to the end of
//! the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use openid_deferred::store::{
    Claim, ClaimQuota, Claimed, Next, Partition, PostgresStore, Settled, Settlement, Store as _,
};
use openid_deferred::{Clock as _, SystemClock};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::Failed;
use crate::population::{Snapshot, database_url, execute};
use crate::results::grouped;

const PARTITION: Partition = Partition(1);
const KEY: [u8; 4] = [0, 0, 0, 1];
/// As long as the schedule of a process that has been polled some times.
const SCHEDULE_BYTES: usize = 160;
/// A window of the rate, to see whether it falls.
const WINDOW: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Copy)]
pub(crate) struct Load {
    /// How many rows wait.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// How many seconds are measured.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many calls are under way at a time.
    #[arg(long, default_value_t = 2)]
    calls: usize,
    /// How many rows a call settles and claims.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[arg(long, default_value_t = 1_000)]
    body_bytes: usize,
}

/// Fills a schema, measures and takes the schema away.
pub(crate) async fn measure(schema: &str, load: Load, snapshot: bool) -> Result<(), Failed> {
    let store = PostgresStore::builder(&database_url()?).schema(schema).connect().await?;
    store.migrate().await?;
    eprintln!("filling {} rows", grouped(load.rows as f64));
    fill(schema, load).await?;
    let measured = async {
        let _snapshot = if snapshot { Some(Snapshot::take().await?) } else { None };
        claim_and_settle(Arc::new(store), load).await
    };
    let measured = measured.await;
    execute(&format!("DROP SCHEMA \"{schema}\" CASCADE")).await?;
    measured
}

/// Rows in random order of their due times, which all lie in the hour before now, and indexes as they are after years.
async fn fill(schema: &str, Load { rows, body_bytes, .. }: Load) -> Result<(), Failed> {
    let key = u32::from_be_bytes(KEY);
    let Partition(partition) = PARTITION;
    let schedule = "s".repeat(SCHEDULE_BYTES);
    let statements = [
        // The rows refer to each other by construction, and checking that takes longer than writing them.
        format!("SET search_path TO \"{schema}\"; SET session_replication_role TO replica"),
        format!(
            "INSERT INTO process (id, partition, poll_interval, key, state, format, has_lookup, due_at, not_before, schedule)
             SELECT decode(md5(number::text), 'hex'), {partition}, interval '300 seconds', {key}, 1, 1, true,
                    clock() - random() * interval '1 hour', clock() - interval '1 hour', '{schedule}'
             FROM generate_series(1, {rows}) AS number"
        ),
        format!(
            "INSERT INTO origin (id, session, lookup, first_key)
             SELECT id, sha256(id), sha256('l' || id), {key} FROM process"
        ),
        format!(
            "INSERT INTO sealed (id, body) SELECT id, decode(repeat(encode(id, 'hex'), {}), 'hex') FROM process",
            body_bytes.div_ceil(16)
        ),
        "VACUUM (ANALYZE) process, origin, sealed".to_owned(),
        "CHECKPOINT".to_owned(),
    ];
    let (client, connection) = tokio_postgres::connect(&database_url()?, NoTls).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    for statement in statements {
        client.batch_execute(&statement).await?;
    }
    Ok(())
}

/// What the server has counted since it started.
struct Log {
    bytes: i64,
    page_images: i64,
}

impl Log {
    async fn read() -> Result<Self, Failed> {
        let (client, connection) = tokio_postgres::connect(&database_url()?, NoTls).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let row = client.query_one("SELECT wal_bytes::bigint, wal_fpi FROM pg_catalog.pg_stat_wal", &[]).await?;
        Ok(Self { bytes: row.try_get(0)?, page_images: row.try_get(1)? })
    }
}

async fn claim_and_settle(store: Arc<PostgresStore>, load: Load) -> Result<(), Failed> {
    let settled = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let log = Log::read().await?;
    let mut tasks = JoinSet::new();
    for _ in 0..load.calls {
        tasks.spawn(keep_claiming(store.clone(), load, settled.clone(), over.clone()));
    }
    let began = SystemClock.monotonic();
    let (mut windows, mut before) = (Vec::new(), (began, 0));
    while SystemClock.monotonic() < began + Duration::from_secs(load.seconds) {
        let rest = began + Duration::from_secs(load.seconds) - SystemClock.monotonic();
        SystemClock.sleep(WINDOW.min(rest)).await;
        let now = (SystemClock.monotonic(), settled.load(Ordering::Relaxed));
        let rate = (now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64();
        eprintln!("{:>5} s: {} rows/s", (now.0 - began).as_secs(), grouped(rate));
        windows.push(rate);
        before = now;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(joined) = tasks.join_next().await {
        joined??;
    }
    let done = settled.load(Ordering::Relaxed);
    let seconds = (SystemClock.monotonic() - began).as_secs_f64();
    let after = Log::read().await?;
    println!(
        "| rows | calls | batch | seconds | claimed and settled per second | the least and the last of {} s | WAL bytes each | page images each |",
        WINDOW.as_secs()
    );
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| {} | {} | {} | {seconds:.0} | {} | {}, {} | {} | {:.2} |",
        grouped(load.rows as f64),
        load.calls,
        load.batch,
        grouped(done as f64 / seconds),
        grouped(windows.iter().copied().fold(f64::INFINITY, f64::min)),
        grouped(windows.last().copied().unwrap_or_default()),
        grouped((after.bytes - log.bytes) as f64 / done.max(1) as f64),
        (after.page_images - log.page_images) as f64 / done.max(1) as f64,
    );
    Ok(())
}

async fn keep_claiming(
    store: Arc<PostgresStore>,
    load: Load,
    settled: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> Result<(), Failed> {
    let mut settlements: Vec<Settlement> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let mut claim = Claim::new(vec![ClaimQuota::new(PARTITION, load.batch, load.batch)], 1, vec![KEY]);
        (claim.limit, claim.lease) = (load.batch, Duration::from_secs(300));
        let work = store.settle_and_claim(std::mem::take(&mut settlements), Some(claim)).await?;
        if work.claimed.is_empty() {
            return Err("no row is due: there are too few rows for so many calls".into());
        }
        let done = work.settled.iter().filter(|settled| **settled == Settled::Done).count();
        if done < work.settled.len() {
            return Err("a settlement came too late".into());
        }
        settled.fetch_add(done as u64, Ordering::Relaxed);
        settlements = work.claimed.iter().map(still_pending).collect();
    }
    Ok(())
}

/// What `authorization_pending` makes of a row, at the end of the queue.
fn still_pending(claimed: &Claimed) -> Settlement {
    let mut settlement = Settlement::new(claimed.id, Next::Waiting);
    settlement.epoch = Some(claimed.epoch);
    settlement.ping_in = Some(Duration::ZERO);
    settlement.interval = Duration::from_secs(300);
    settlement.schedule = format!("{:0>SCHEDULE_BYTES$}", claimed.epoch);
    settlement
}
