//! Waiting for a request to stop.

use anyhow::Context;

/// Returns after Ctrl-C, or when the machine's service manager stops the program (SIGTERM).
pub async fn requested() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?;
        tokio::select! {
            _ = terminated.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted.context("Ctrl-C cannot be listened for"),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context("Ctrl-C cannot be listened for")
}
