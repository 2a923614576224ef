//! The durable poller as a service: users return to it, it polls for hours or weeks, and writes outcomes into a file.
//!
//! `scripts/demo worker` runs `worker demo`: an OpenID Provider with twenty users, and a worker beside it. Kill the
//! worker with `kill -9` as often as you like; it is started again, and no outcome is lost or comes twice.
//!
//! The parts can also be run one by one, several workers on one store included:
//!
//! ```sh
//! worker op --app http://127.0.0.1:8080 --users 20   # says how to start workers, and sends users to them
//! worker run … --listen 127.0.0.1:8080               # takes users and pings, polls, delivers
//! worker run …                                       # one more on the same store
//! ```

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use openid_deferred::{Delivery, Poller};

#[path = "worker/demo.rs"]
mod demo;
#[path = "worker/journal.rs"]
mod journal;
#[path = "worker/live.rs"]
mod live;
#[path = "worker/settings.rs"]
mod settings;
#[path = "worker/stop.rs"]
mod stop;
#[path = "worker/web.rs"]
mod web;

use journal::Journal;
use settings::Settings;

/// How long polls that are under way may take to finish when the worker is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// When an outcome comes again that could not be written down.
const AFTER_A_FULL_DISK: Duration = Duration::from_secs(30);

/// A worker. Everything that an application does is here and in `web.rs`.
async fn run(settings: Settings) -> anyhow::Result<()> {
    // 1. A store, and the key that everything in it is sealed with. All replicas have the same two.
    let keyring = settings.keyring()?;
    let store = settings.open_store().await?;

    // 2. A client of the OP. Nothing is asked of the OP here, so the worker starts while the OP is down.
    let client = settings.client()?;

    // 3. The poller. `start` also polls; `connect` is for replicas that leave that to others.
    let mut builder = Poller::builder(store, keyring.clone())
        .client(client.clone())
        .delivery_lease(Duration::from_secs(settings.delivery_lease));
    if settings.listen.is_some() {
        builder = builder.receives_pings();
    }
    let poller = match settings.serve_only {
        true => builder.connect().await?,
        false => builder.start().await?,
    };

    // 4. Users and pings come in, outcomes go out, until somebody says stop. Then nothing new is begun, what is under
    //    way may finish, and the stream of outcomes ends.
    let door = web::Door::open(settings.listen, &client, &poller, keyring).await?;
    eprintln!("worker {} is ready", std::process::id());
    let until_stopped = async {
        let served = tokio::select! {
            served = door.serve() => served,
            stopped = stop::requested() => stopped,
            () = live::show(&poller) => Ok(()),
        };
        poller.shutdown(GRACE).await;
        served
    };
    let delivered = async {
        match settings.serve_only {
            true => Ok(()),
            false => deliver(&poller, &Journal::open(&settings.outcomes)?).await,
        }
    };
    tokio::try_join!(until_stopped, delivered)?;
    Ok(())
}

/// Deals with outcomes. Each comes until it is acknowledged, so what is done with it must bear to be done twice: here a
/// second line with the same `id` is written, which a reader of the file can tell.
async fn deliver(poller: &Poller, journal: &Journal) -> anyhow::Result<()> {
    let mut outcomes = poller.outcomes();
    while let Some(delivery) = outcomes.next().await {
        // First do what is to be done, down to the disk, and then acknowledge. The other way round a crash between the
        // two would lose the outcome.
        if let Err(error) = tokio::task::block_in_place(|| journal.write(&delivery)) {
            eprintln!("an outcome could not be written: {error:#}");
            postpone(delivery).await;
            continue;
        }
        // If this is not noted, the outcome comes again when the delivery is dropped.
        if let Err(error) = delivery.acknowledge().await {
            eprintln!("an outcome could not be acknowledged: {error}");
        }
    }
    Ok(())
}

async fn postpone(delivery: Delivery) {
    // Without this it would come again as well, only at a time that we have not chosen.
    if let Err(error) = delivery.retry_after(AFTER_A_FULL_DISK).await {
        eprintln!("an outcome could not be postponed: {error}");
    }
}

/// Waits for the outcomes of many sign-ins through restarts, crashes and deployments.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an OP, its users and a worker that may be killed.
    Demo(demo::DemoSettings),
    /// Run only an OP whose users come to an application.
    Op(demo::OpSettings),
    /// Run only a worker.
    Run(Box<Settings>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ran = match Arguments::parse().command {
        Command::Demo(settings) => demo::demo(settings).await.context("the demonstration failed"),
        Command::Op(settings) => demo::op(settings).await.context("the OP failed"),
        Command::Run(settings) => run(*settings).await.context("the worker failed"),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
