//! The cost of many pending sign-ins: memory, CPU time for each poll, and the lateness of polls. `scripts/bench` runs
//! it.
//!
//! Users sign in through the public interface, and a poller tracks them, with due times spread evenly over one
//! interval. Then another poller starts on the same store, in a program of its own. It polls an OP that answers at once
//! and verifies nothing. The OP measures the times. Each measurement is stored in `target/bench/scale.json`, from which
//! `plot` draws the images of docs/performance.md.
//!
//! ```sh
//! scripts/postgres run cargo bench --features sqlite,postgres,axum,testing --bench scale -- growth
//! cargo bench --features sqlite,postgres,axum,testing --bench scale -- --help
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::de::DeserializeOwned;

#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/op.rs"]
mod words;

mod clock;
mod op;
mod plot;
mod population;
mod results;
mod run;
mod store;

use clock::BenchClock;
use op::Op;
use population::{Population, StoreKind};
use results::Results;
use run::{Measured, Plan, Transport};

pub(crate) type Failed = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "What waiting costs when many wait.")]
struct Arguments {
    #[command(subcommand)]
    order: Order,
    /// The folder in which prepared files are kept for later runs.
    #[arg(long, global = true, default_value = "target/bench-data")]
    data: PathBuf,
    /// The file for the results.
    #[arg(long, global = true, default_value = "target/bench/scale.json")]
    results: PathBuf,
    /// Prepares all files again.
    #[arg(long, global = true)]
    fresh: bool,
    /// The address of the OP. It is part of what is prepared, so it must not change.
    #[arg(long, global = true, default_value = "127.83.67.65:18367")]
    address: String,
    /// The maximum number of polls in flight; the library's default is 64.
    #[arg(long, global = true, default_value_t = 64)]
    in_flight: usize,
    /// The number of clients of the OP that the pending sign-ins belong to.
    #[arg(long, global = true, default_value_t = 1)]
    clients: usize,
    /// Holds a transaction open in PostgreSQL while polls are counted, as a backup does.
    #[arg(long, global = true)]
    snapshot: bool,
    /// Cargo passes this to every benchmark.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Order {
    /// The same number of polls per second with more and more pending sign-ins, on each store.
    Growth {
        #[arg(long, value_delimiter = ',', default_value = "memory,sqlite,postgres")]
        stores: Vec<StoreKind>,
        #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
        sizes: Vec<usize>,
        /// Polls per second. With 1,000,000 sign-ins, 3,334 mean an interval of 300 s.
        #[arg(long, default_value_t = 1_000)]
        rate: usize,
        #[arg(long, default_value = "http")]
        transport: Transport,
        /// The memory of a pending sign-in in openid-client 6.8 under Node.js 20, without its DPoP key. 2,005 bytes
        /// were measured for the promise of a generic grant; benches/peers measures it again.
        #[arg(long, default_value_t = 2_005)]
        peer_bytes: usize,
        #[command(flatten)]
        time: Time,
    },
    /// One store with one number of sign-ins at one interval.
    Lateness {
        #[arg(long, default_value = "memory")]
        store: StoreKind,
        #[arg(long, default_value_t = 100_000)]
        pending: usize,
        /// In seconds.
        #[arg(long, default_value_t = 60)]
        interval: u64,
        #[arg(long, default_value = "in-process")]
        transport: Transport,
        #[command(flatten)]
        time: Time,
    },
    /// The time from `start()` to the first poll.
    Start {
        #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres")]
        stores: Vec<StoreKind>,
        #[arg(long, default_value_t = 100_000)]
        pending: usize,
        /// In seconds.
        #[arg(long, default_value_t = 300)]
        interval: u64,
        /// The length of an outage before the start, in seconds. After a minute or more, overdue polls are spread
        /// first.
        #[arg(long, default_value_t = 0)]
        outage: u64,
    },
    /// The highest rate at which 99 of 100 polls are sent within a second.
    Capacity {
        #[arg(long, default_value = "memory")]
        store: StoreKind,
        #[arg(long, default_value_t = 100_000)]
        pending: usize,
        #[arg(long, default_value = "in-process")]
        transport: Transport,
        #[command(flatten)]
        time: Time,
    },
    /// Claims and settlements of `PostgresStore` alone, among many rows that are all due.
    Store(store::Load),
    /// Draws the images of docs/performance.md from the results of `growth`.
    Plot {
        #[arg(long, default_value = "docs/images")]
        into: PathBuf,
    },
    #[command(hide = true)]
    Op {
        #[arg(long)]
        pending: usize,
        #[arg(long)]
        interval: u64,
    },
    #[command(hide = true)]
    Prepare(Subject),
    #[command(hide = true)]
    Run {
        #[command(flatten)]
        subject: Subject,
        #[arg(long)]
        file: PathBuf,
        #[arg(long)]
        transport: Transport,
        #[arg(long)]
        outage: u64,
        #[command(flatten)]
        time: Time,
    },
}

#[derive(Args, Clone, Copy)]
struct Time {
    /// The length of the measurement, in seconds.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// The time between the first poll and the measurement, in seconds.
    #[arg(long, default_value_t = 3)]
    settle: u64,
}

#[derive(Args)]
struct Subject {
    #[arg(long)]
    store: StoreKind,
    #[arg(long)]
    pending: usize,
    #[arg(long)]
    interval: u64,
    #[arg(long)]
    schema: String,
}

fn main() -> Result<(), Failed> {
    let mut arguments = Arguments::parse();
    // `cargo bench` runs in the package's folder, and so do the programs that this one starts.
    let order = std::mem::replace(&mut arguments.order, Order::Plot { into: PathBuf::new() });
    let threads = if matches!(order, Order::Op { .. }) { 1 } else { machine::processors_count() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(arguments.carry_out(order))
}

impl Arguments {
    async fn carry_out(&self, order: Order) -> Result<(), Failed> {
        match order {
            Order::Growth { stores, sizes, rate, transport, peer_bytes, time } => {
                let mut results = Results::new("growth", &self.results)?;
                for store in available(stores) {
                    for pending in &sizes {
                        let population = self.population(store, *pending, (pending / rate.max(1)).max(1) as u64);
                        results.add(self.measure(&population, self.plan(transport, time)).await?)?;
                    }
                }
                results.show();
                results.compare_memory(peer_bytes);
            }
            Order::Lateness { store, pending, interval, transport, time } => {
                let mut results = Results::new("lateness", &self.results)?;
                let population = self.population(store, pending, interval);
                results.add(self.measure(&population, self.plan(transport, time)).await?)?;
                results.show();
            }
            Order::Start { stores, pending, interval, outage } => {
                let mut results = Results::new("start", &self.results)?;
                for store in available(stores) {
                    let mut plan = self.plan(Transport::Http, Time { seconds: 0, settle: 0 });
                    plan.outage = Duration::from_secs(outage);
                    results.add(self.measure(&self.population(store, pending, interval), plan).await?)?;
                }
                results.show();
            }
            Order::Capacity { store, pending, transport, time } => {
                self.measure_capacity(store, pending, self.plan(transport, time)).await?;
            }
            Order::Store(load) => {
                store::measure(&format!("bench_store_{}", std::process::id()), load, self.snapshot).await?
            }
            Order::Plot { into } => plot::draw(&Results::new("growth", &self.results)?, &into)?,
            Order::Op { pending, interval } => {
                let clock = Arc::new(BenchClock::default());
                Op::new(&self.address, clock, pending, Duration::from_secs(interval)).serve().await?;
            }
            Order::Prepare(subject) => self.subject(&subject).prepare().await?,
            Order::Run { subject, file, transport, outage, time } => {
                let plan = Plan { outage: Duration::from_secs(outage), ..self.plan(transport, time) };
                let measured = run::run(&self.subject(&subject), plan, &file).await?;
                println!("{}", serde_json::to_string(&measured)?);
            }
        }
        Ok(())
    }

    /// Looks for the largest load at which polls are not late.
    async fn measure_capacity(&self, store: StoreKind, pending: usize, plan: Plan) -> Result<(), Failed> {
        let mut results = Results::new("capacity", &self.results)?;
        let hopeless = self.measure(&self.population(store, pending, 1), plan).await?;
        let most = hopeless.polls_per_second();
        results.add(hopeless)?;
        for share in [0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5] {
            let interval = (pending as f64 / (most * share)).ceil() as u64;
            let measured = self.measure(&self.population(store, pending, interval), plan).await?;
            let keeps_up = measured.punctuality.p99_ms <= 1_000.0;
            results.add(measured)?;
            if keeps_up {
                break;
            }
        }
        results.show();
        Ok(())
    }

    fn population(&self, store: StoreKind, pending: usize, interval: u64) -> Population {
        let schema = format!("bench_scale_{}", std::process::id());
        self.subject(&Subject { store, pending, interval, schema })
    }

    fn subject(&self, subject: &Subject) -> Population {
        Population {
            store: subject.store,
            pending: subject.pending,
            interval: Duration::from_secs(subject.interval),
            clients: self.clients.max(1),
            address: self.address.clone(),
            schema: subject.schema.clone(),
            data: self.data.clone(),
        }
    }

    fn plan(&self, transport: Transport, time: Time) -> Plan {
        Plan {
            transport,
            settles: Duration::from_secs(time.settle),
            lasts: Duration::from_secs(time.seconds),
            outage: Duration::ZERO,
            snapshot: self.snapshot,
            in_flight: self.in_flight,
        }
    }

    /// Prepares and measures, each in a program of its own.
    async fn measure(&self, population: &Population, plan: Plan) -> Result<Measured, Failed> {
        eprintln!(
            "{:?}: {} processes at {} s",
            population.store,
            results::grouped(population.pending as f64),
            population.interval.as_secs()
        );
        let prepared = population.prepared_file();
        let is_ready = population.store == StoreKind::Sqlite && prepared.exists() && !self.fresh;
        let file = if population.store == StoreKind::Memory {
            prepared
        } else {
            if !is_ready {
                population.clear().await?;
                self.child::<()>("prepare", population, &[])?;
            }
            if population.store == StoreKind::Sqlite { population::copy(&prepared)? } else { prepared }
        };
        let transport = clap::ValueEnum::to_possible_value(&plan.transport).ok_or("no name")?;
        let measured = self.child(
            "run",
            population,
            &[
                ("--file", &file.to_string_lossy()),
                ("--transport", transport.get_name()),
                ("--outage", &plan.outage.as_secs().to_string()),
                ("--seconds", &plan.lasts.as_secs().to_string()),
                ("--settle", &plan.settles.as_secs().to_string()),
            ],
        );
        if population.store == StoreKind::Sqlite {
            population::remove(&file)?;
        }
        population.clear().await?;
        measured
    }

    /// Has another program execute an order, and reads what it prints.
    fn child<T: DeserializeOwned>(
        &self,
        order: &str,
        population: &Population,
        options: &[(&str, &str)],
    ) -> Result<T, Failed> {
        let store = clap::ValueEnum::to_possible_value(&population.store).ok_or("no name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(order).args(["--store", store.get_name(), "--schema", &population.schema]);
        command.args(["--pending", &population.pending.to_string()]);
        command.args(["--interval", &population.interval.as_secs().to_string()]);
        command.args(["--in-flight", &self.in_flight.to_string(), "--address", &self.address]);
        command.args(["--clients", &population.clients.to_string()]);
        if self.snapshot {
            command.arg("--snapshot");
        }
        command.arg("--data").arg::<&Path>(&self.data);
        for (name, value) in options {
            command.args([name, value]);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{order}: {}", output.status).into());
        }
        // No output stands for `()`.
        let said = if output.stdout.is_empty() { b"null".as_slice() } else { &output.stdout };
        Ok(serde_json::from_slice(said)?)
    }
}

/// Without a database, its store cannot be measured.
fn available(stores: Vec<StoreKind>) -> Vec<StoreKind> {
    let (with, without): (Vec<_>, Vec<_>) =
        stores.into_iter().partition(|store| *store != StoreKind::Postgres || population::has_database());
    if !without.is_empty() {
        eprintln!("DATABASE_URL names no database, so PostgreSQL is left out: scripts/postgres run ...");
    }
    with
}
