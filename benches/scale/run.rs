//! One measurement, in a program of its own, so that its memory and CPU time are those of one poller.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use openid_deferred::poller::Limits;
use openid_deferred::{Clock as _, Poller, SystemClock};
use serde::{Deserialize, Serialize};

use crate::Failed;
use crate::clock::BenchClock;
use crate::machine;
use crate::op::{Op, Punctuality};
use crate::population::{self, Population, Snapshot, StoreKind};

/// How the OP is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// The OP is another program, behind kept connections over the loopback interface.
    Http,
    /// The OP answers within an `HttpClient`. Keys and proofs are still made.
    InProcess,
}

/// What is measured once all users wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) transport: Transport,
    /// The time between the first poll and the measurement.
    pub(crate) settles: Duration,
    /// The length of the measurement. If it is zero, the run ends with the first poll.
    pub(crate) lasts: Duration,
    /// The length of the outage before the start.
    pub(crate) outage: Duration,
    /// Whether a transaction in the database stays open for the whole run, so that no row can be vacuumed.
    pub(crate) snapshot: bool,
    pub(crate) in_flight: usize,
}

/// The results of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) store: StoreKind,
    pub(crate) transport: Transport,
    pub(crate) pending: usize,
    pub(crate) interval_s: u64,
    pub(crate) outage_s: u64,
    #[serde(default = "one")]
    pub(crate) clients: usize,
    #[serde(default)]
    pub(crate) snapshot: bool,
    pub(crate) in_flight: usize,
    /// The time that it took to sign all users in, if this program did it.
    pub(crate) signed_in_s: f64,
    /// Physical memory before the sign-ins, after them, and its maximum during polling.
    pub(crate) empty_mb: f64,
    pub(crate) waiting_mb: f64,
    pub(crate) polling_mb: f64,
    /// The time from `start()` to the arrival of the first poll.
    pub(crate) first_poll_ms: f64,
    pub(crate) counted_s: f64,
    pub(crate) cpu_micros_per_poll: f64,
    pub(crate) punctuality: Punctuality,
    pub(crate) load_average: String,
}

/// The value for results from before it could be set.
fn one() -> usize {
    1
}

impl Measured {
    pub(crate) fn polls_per_second(&self) -> f64 {
        self.punctuality.polls as f64 / self.counted_s.max(f64::MIN_POSITIVE)
    }

    /// The memory of one more pending sign-in, in bytes.
    pub(crate) fn bytes_each(&self) -> f64 {
        (self.waiting_mb - self.empty_mb).max(0.0) * 1e6 / self.pending as f64
    }
}

const FIRST_POLL_WITHIN: Duration = Duration::from_secs(600);
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Does a whole run. The caller removes the file that was used.
pub(crate) async fn run(population: &Population, plan: Plan, file: &std::path::Path) -> Result<Measured, Failed> {
    let clock = Arc::new(BenchClock::default());
    let empty_mb = memory()?;
    let began = SystemClock.monotonic();
    let store = population.open(&clock, file).await?;
    if population.store == StoreKind::Memory {
        population.fill(store.clone(), &clock).await?;
    }
    let signed_in_s = (SystemClock.monotonic() - began).as_secs_f64();
    let waiting_mb = memory()?;

    let mut op = Provider::begin(population, plan.transport, &clock)?;
    op.release(plan.outage)?;
    clock.release(plan.outage);
    population.release_database_clock(&clock).await?;
    let clients = population.clients(&clock, op.in_process())?;
    let _snapshot = if plan.snapshot { Some(Snapshot::take().await?) } else { None };
    let started = clock.monotonic();
    let builder = Poller::builder(store, population::keyring()?).clock(clock.clone());
    let builder = clients.into_iter().fold(builder, openid_deferred::poller::PollerBuilder::client);
    let poller = builder.limits(Limits::new().in_flight(plan.in_flight)).start().await?;
    let mut polling_mb = memory()?;
    let first = first_poll(&op, &clock, &mut polling_mb).await?;

    let settled = clock.monotonic() + plan.settles;
    while !plan.lasts.is_zero() && clock.monotonic() < settled {
        polling_mb = memory()?.max(polling_mb);
        clock.sleep(CHECK_INTERVAL).await;
    }
    op.reset().await?;
    let (from, cpu) = (clock.monotonic(), machine::cpu_time(std::process::id())?);
    while clock.monotonic() < from + plan.lasts {
        polling_mb = memory()?.max(polling_mb);
        clock.sleep(CHECK_INTERVAL).await;
    }
    let cpu = machine::cpu_time(std::process::id())?.saturating_sub(cpu);
    let punctuality = op.punctuality().await?;
    let counted = clock.monotonic() - from;
    poller.shutdown(Duration::ZERO).await;
    Ok(Measured {
        store: population.store,
        transport: plan.transport,
        pending: population.pending,
        interval_s: population.interval.as_secs(),
        outage_s: plan.outage.as_secs(),
        clients: population.clients,
        snapshot: plan.snapshot,
        in_flight: plan.in_flight,
        signed_in_s,
        empty_mb,
        waiting_mb,
        polling_mb,
        first_poll_ms: first.saturating_sub(started).as_secs_f64() * 1e3,
        counted_s: counted.as_secs_f64(),
        cpu_micros_per_poll: cpu.as_secs_f64() * 1e6 / punctuality.polls.max(1) as f64,
        punctuality,
        load_average: machine::load(),
    })
}

/// Waits for the first poll, and returns its time.
async fn first_poll(op: &Provider, clock: &BenchClock, polling_mb: &mut f64) -> Result<Duration, Failed> {
    let started = clock.monotonic();
    loop {
        if let Some(first) = op.punctuality().await?.first {
            return Ok(first);
        }
        if clock.monotonic() - started > FIRST_POLL_WITHIN {
            return Err("no sign-in is polled".into());
        }
        *polling_mb = memory()?.max(*polling_mb);
        clock.sleep(Duration::from_millis(20)).await;
    }
}

/// The OP, in either place.
enum Provider {
    InProcess(Arc<Op>),
    Http { process: Child, output: BufReader<std::process::ChildStdout>, http: reqwest::Client, url: String },
}

impl Provider {
    fn begin(population: &Population, transport: Transport, clock: &Arc<BenchClock>) -> Result<Self, Failed> {
        let Population { address, pending, interval, .. } = population;
        if transport == Transport::InProcess {
            let op = Op::new(address, clock.clone(), *pending, *interval);
            return Ok(Self::InProcess(Arc::new(op)));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["op", "--address", address, "--pending", &pending.to_string()]);
        command.args(["--interval", &interval.as_secs().to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut provider = Self::Http { process, output, http, url: format!("http://{address}") };
        provider.expect("ready")?;
        Ok(provider)
    }

    /// Starts the OP's clock before this program's, so that no poll seems early that is not.
    fn release(&mut self, late: Duration) -> Result<(), Failed> {
        if let Self::Http { process, .. } = self {
            writeln!(process.stdin.as_mut().ok_or("no input")?, "{}", late.as_secs())?;
            self.expect("released")?;
        }
        Ok(())
    }

    fn expect(&mut self, word: &str) -> Result<(), Failed> {
        let Self::Http { output, .. } = self else { return Ok(()) };
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.trim() == word { Ok(()) } else { Err("the OP could not be started; is its address taken?".into()) }
    }

    fn in_process(&self) -> Option<Arc<Op>> {
        match self {
            Self::InProcess(op) => Some(op.clone()),
            Self::Http { .. } => None,
        }
    }

    async fn punctuality(&self) -> Result<Punctuality, Failed> {
        match self {
            Self::InProcess(op) => Ok(op.punctuality()),
            Self::Http { http, url, .. } => {
                let report = http.get(format!("{url}/report")).send().await?.bytes().await?;
                Ok(serde_json::from_slice(&report)?)
            }
        }
    }

    async fn reset(&self) -> Result<(), Failed> {
        match self {
            Self::InProcess(op) => op.reset(),
            Self::Http { http, url, .. } => {
                http.post(format!("{url}/reset")).send().await?.error_for_status()?;
            }
        }
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Self::Http { process, .. } = self {
            // It holds nothing that has to be saved.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The physical memory of this program, in megabytes of 10⁶ bytes.
fn memory() -> Result<f64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}
