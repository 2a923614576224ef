//! The durable poller as a service: it accepts returning users, polls for hours or weeks, and writes outcomes to a
//! file.
//!
//! `scripts/demo worker` runs `worker demo`: an OpenID Provider with twenty users, and a worker. Kill the worker with
//! `kill -9` as often as you like. It is started again, and no outcome is lost.
//!
//! Each part can also be run alone, including several workers on one store:
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

/// The longest time for polls in flight to finish when the worker is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The pause before an outcome is delivered again that could not be written.
const AFTER_A_FULL_DISK: Duration = Duration::from_secs(30);

/// A worker. Everything that an application does is here and in `web.rs`.
async fn run(settings: Settings) -> anyhow::Result<()> {
    // 1. A store, and the key that seals everything in it. All replicas share both.
    let keyring = settings.keyring()?;
    let store = settings.open_store().await?;

    // 2. The clients of the OP. They send no request here, so the worker starts while the OP is down.
    let clients = settings.clients()?;

    // 3. The poller. `start` also polls; `connect` is for replicas that leave polling to others.
    let mut builder =
        clients.all().fold(Poller::builder(store, keyring.clone()), |builder, client| builder.client(client.clone()));
    builder = builder.delivery_lease(Duration::from_secs(settings.delivery_lease));
    if settings.listen.is_some() {
        builder = builder.receives_pings();
    }
    let poller = match settings.serve_only {
        true => builder.connect().await?,
        false => builder.start().await?,
    };

    // 4. Accept users and pings, and deliver outcomes, until the program is told to stop. Then start nothing new, let
    //    work in progress finish, and end the stream of outcomes.
    let server = web::WebServer::open(settings.listen, clients, &poller, keyring).await?;
    eprintln!("worker {} is ready", std::process::id());
    let until_stopped = async {
        let served = tokio::select! {
            served = server.serve() => served,
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

/// Handles outcomes. Each is delivered until it is acknowledged, so handling it twice must do no harm. Here it writes a
/// second line with the same `id`, which a reader of the file can detect.
async fn deliver(poller: &Poller, journal: &Journal) -> anyhow::Result<()> {
    let mut outcomes = poller.outcomes();
    while let Some(delivery) = outcomes.next().await {
        // First do the work, including the write to disk, and then acknowledge. In the reverse order, a crash between
        // the two would lose the outcome.
        if let Err(error) = tokio::task::block_in_place(|| journal.write(&delivery)) {
            eprintln!("an outcome could not be written: {error:#}");
            postpone(delivery).await;
            continue;
        }
        // If this fails, the outcome is delivered again after the delivery is dropped.
        if let Err(error) = delivery.acknowledge().await {
            eprintln!("an outcome could not be acknowledged: {error}");
        }
    }
    Ok(())
}

async fn postpone(delivery: Delivery) {
    // Without this it would be delivered again as well, but at a time that we do not choose.
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
    /// Run an OP, its users, and a worker that may be killed.
    Demo(demo::DemoSettings),
    /// Run only an OP with its users, who use an existing application.
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
