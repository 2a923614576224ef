//! An application whose users sign in at an OpenID Provider (OP) that may take days to decide.
//!
//! | file | what it has |
//! |---|---|
//! | `settings.rs` | the environment variables, and the client of the OP |
//! | `web.rs` | the pages, and what the application does in the routes of a sign-in |
//! | `outcomes.rs` | what the application does with a decision of the OP |
//! | `session.rs` | who is signed in |
//! | `tables.rs` | the application's own tables |
//! | `database.rs` | transactions on SQLite and PostgreSQL |
//! | `health.rs` | the answer to `/health`, and the question |

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use openid_deferred::store::{PostgresStore, SqliteStore, Store};
use openid_deferred::{Client, Poller};
use tokio::net::TcpListener;

pub mod database;
pub mod health;
pub mod outcomes;
mod session;
pub mod settings;
pub mod tables;
mod web;

use database::Database;
use settings::{Place, Settings};
use tables::Tables;

/// The longest time for requests and polls in flight to finish when the application is told to stop. Together they must
/// be shorter than what your service manager allows: 90 s with systemd, 30 s with Kubernetes, 10 s with Docker.
const GRACE: Duration = Duration::from_secs(4);

/// The running application.
pub struct Application {
    poller: Poller,
    tables: Tables,
    router: axum::Router,
}

impl Application {
    /// Opens the databases and starts to poll. It sends nothing to the OP, so it starts while the OP is down.
    pub async fn start(settings: &Settings, client: Client) -> anyhow::Result<Self> {
        let store = open_store(&settings.place).await.context("the store of pending sign-ins")?;
        let database = Database::open(&settings.place).await.context("the application's own database")?;
        let tables = Tables::create(database).await.context("the application's own tables")?;
        let mut builder = Poller::builder(store, settings.keyring.clone()).client(client.clone());
        if settings.pings {
            builder = builder.receives_pings();
        }
        let poller = builder.start().await?;
        let router = web::router(settings, client, poller.clone(), tables.clone())?;
        Ok(Self { poller, tables, router })
    }

    /// Serves pages and stores outcomes until `stopped` returns. Then it takes no new requests, and finishes what is under
    /// way.
    pub async fn serve(
        self,
        listener: TcpListener,
        stopped: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let Self { poller, tables, router } = self;
        let outcomes = tokio::spawn(outcomes::take(poller.clone(), tables));
        let (stopping, is_stopping) = tokio::sync::oneshot::channel();
        let server = axum::serve(listener, router).with_graceful_shutdown(async {
            stopped.await;
            let _ = stopping.send(());
        });
        let grace_is_over = async {
            let _ = is_stopping.await;
            tokio::time::sleep(GRACE).await;
        };
        let served = tokio::select! {
            served = server.into_future() => served.context("pages cannot be served"),
            // Streams of events may be open for minutes. Browsers connect again.
            () = grace_is_over => Ok(()),
        };
        // This also ends the stream of outcomes. What it had in hand is delivered again after the next start.
        poller.shutdown(GRACE).await;
        outcomes.await?;
        served
    }
}

/// Pending sign-ins are in a file or a schema of their own, which only the library changes.
async fn open_store(place: &Place) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match place {
        Place::Folder(folder) => Arc::new(SqliteStore::open(folder.join("pending.db")).await?),
        Place::Postgres(url) => {
            let store = PostgresStore::connect(url).await?;
            // If the application may not create tables, run `PostgresStore::SCHEMA` in your deployment.
            store.migrate().await?;
            Arc::new(store)
        }
    })
}
