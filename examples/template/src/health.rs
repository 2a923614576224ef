//! `/health`, for load balancers and containers: 200 if the application can answer requests, and 503 if not.
//!
//! It asks only the database. While the OP is down the application is well: users wait, and the poller tries again.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::extract::State;
use axum::http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tables::Tables;

const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn answer(State(tables): State<Tables>) -> (StatusCode, &'static str) {
    match timeout(PATIENCE, tables.check()).await {
        Ok(Ok(())) => (StatusCode::OK, "well\n"),
        Ok(Err(error)) => {
            tracing::error!(error = format!("{error:#}"), "the database does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer in time\n"),
    }
}

/// Asks the application at the port of `LISTEN` on this machine, for images without a program that can.
pub async fn ask() -> anyhow::Result<()> {
    let listen: SocketAddr =
        std::env::var("LISTEN").ok().map(|listen| listen.parse()).transpose()?.unwrap_or(([127, 0, 0, 1], 8080).into());
    let status = timeout(PATIENCE * 2, status_at(([127, 0, 0, 1], listen.port()).into())).await;
    match status.context("there is no answer in time")?? {
        status if status.contains(" 200 ") => Ok(()),
        status => bail!("the answer is {status}"),
    }
}

/// The status line of the answer.
async fn status_at(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("nobody listens at {address}"))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}
