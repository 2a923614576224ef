//! The program: `sign-in-application` serves, and `sign-in-application health` asks a running one whether it is well.

use std::process::ExitCode;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusBuilder;
use sign_in_application::settings::Settings;
use sign_in_application::{Application, health};
use tokio::net::TcpListener;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> ExitCode {
    let ran = match std::env::args().nth(1).as_deref() {
        None => serve().await,
        Some("health") => health::ask().await,
        Some(other) => Err(anyhow::anyhow!("there is no command {other}; there is only health")),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> anyhow::Result<()> {
    let filter: Targets = std::env::var("RUST_LOG").as_deref().unwrap_or("info").parse().context("in RUST_LOG")?;
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(filter).init();
    let settings = Settings::from_env()?;
    if let Some(address) = settings.metrics_listen {
        // Keep this port inside: it is not for browsers. Install it before the poller starts.
        let exporter = PrometheusBuilder::new().with_http_listener(address);
        exporter.install().with_context(|| format!("cannot serve metrics at {address}"))?;
    }
    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", settings.listen))?;
    let application = Application::start(&settings, settings.client().build()?).await?;
    tracing::info!(address = %settings.listen, "ready");
    application.serve(listener, stopped()).await
}

/// Returns after Ctrl-C or SIGTERM, with which service managers and containers stop a program.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
