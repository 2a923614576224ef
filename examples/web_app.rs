//! A web application whose users wait for their OP, and an OP with its own pages: users upload a passport there, and a
//! reviewer decides.
//!
//! `scripts/demo web` runs `web_app demo`, which starts both and prints their URLs. Kill the application with `kill -9`
//! while a page is open. It is started again, and the page continues automatically.
//!
//! Each part can also be run alone:
//!
//! ```sh
//! web_app op --app http://127.0.0.1:8080    # says how to start the application
//! web_app run --listen 127.0.0.1:8080 …     # the application
//! ```
//!
//! The code that an application team would write is in `app.rs` (what it does in the routes of a sign-in, and its own
//! routes), `session.rs` (who is signed in), `ledger.rs` (its own tables), `ending.rs` (outcomes), `guard.rs` (headers) and
//! `pages.rs`. `openid_deferred::axum` does the rest.
//! Files that begin with `op` belong to the OP.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use openid_deferred::Poller;
use openid_deferred::axum::SignInCookies;
use openid_deferred::store::SqliteStore;
use tokio::net::TcpListener;

#[path = "web_app/app.rs"]
mod app;
#[path = "web_app/demo.rs"]
mod demo;
#[path = "web_app/ending.rs"]
mod ending;
#[path = "web_app/guard.rs"]
mod guard;
#[path = "web_app/ledger.rs"]
mod ledger;
#[path = "web_app/op.rs"]
mod op;
#[path = "web_app/op_desk.rs"]
mod op_desk;
#[path = "web_app/op_pages.rs"]
mod op_pages;
#[path = "web_app/op_user.rs"]
mod op_user;
#[path = "web_app/pages.rs"]
mod pages;
#[path = "web_app/session.rs"]
mod session;
#[path = "web_app/settings.rs"]
mod settings;
#[path = "web_app/shell.rs"]
mod shell;
#[path = "worker/stop.rs"]
mod stop;

use app::App;
use ledger::Ledger;
use settings::Settings;

/// The longest time for polls in flight to finish when the application is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The application.
async fn run(settings: Settings) -> anyhow::Result<()> {
    // 1. Pending sign-ins are in one file, the application's own data is in another. Both survive a restart.
    let keyring = settings.keyring()?;
    let store = SqliteStore::open(settings.data.join("pending.db")).await?;
    let ledger = Ledger::open(&settings.data.join("fairwater.db"))?;

    // 2. A client of the OP, and the poller that waits for its decisions.
    let client = settings.client()?;
    let mut builder = Poller::builder(store, keyring.clone())
        .client(client.clone())
        // Storing an outcome is fast. With a short lease, users need not wait long for one that was claimed before a
        // crash.
        .delivery_lease(Duration::from_secs(10));
    if settings.pings {
        builder = builder.receives_pings();
    }
    let poller = builder.start().await?;

    // 3. Serve pages and store outcomes until the program is told to stop.
    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", settings.listen))?;
    // The demonstration has no HTTPS. Omit `insecure_loopback` everywhere else.
    let cookies = SignInCookies::new(keyring).insecure_loopback();
    let origin = format!("http://{}", settings.listen);
    let app = App { client, poller: poller.clone(), cookies, ledger: ledger.clone(), origin: origin.clone() };
    let router = app.router(settings.pings)?;
    eprintln!("The application {} is ready at {origin}", std::process::id());
    let until_stopped = async {
        let served = tokio::select! {
            served = axum::serve(listener, router) => served.context("pages cannot be served"),
            stopped = stop::requested() => stopped,
        };
        poller.shutdown(GRACE).await;
        served
    };
    tokio::join!(until_stopped, ending::take(&poller, &ledger)).0
}

/// A web application with users who wait for their OP, and an OP with a reviewer's page.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the OP, and the application, which may be killed.
    Demo(demo::DemoSettings),
    /// Run only the OP.
    Op(op::OpSettings),
    /// Run only the application.
    Run(Settings),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ran = match Arguments::parse().command {
        Command::Demo(settings) => demo::demo(settings).await.context("the demonstration failed"),
        Command::Op(settings) => op::run(settings).await.context("the OP failed"),
        Command::Run(settings) => run(settings).await.context("the application failed"),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
