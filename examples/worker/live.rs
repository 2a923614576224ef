//! A live status line on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use openid_deferred::{Clock, Poller, SystemClock};

/// Shows what is pending, in flight and done. It never ends. If stderr is not a terminal, it shows nothing.
pub async fn show(poller: &Poller) {
    let line = ProgressBar::new_spinner();
    if line.is_hidden() {
        std::future::pending::<()>().await;
    }
    line.set_style(ProgressStyle::with_template("{spinner:.cyan} {msg} [{elapsed}]").expect("a fixed template"));
    loop {
        line.set_message(match poller.stats().await {
            Ok(clients) => {
                let pending: u64 = clients.iter().map(|client| client.rows.open()).sum();
                let decided: u64 = clients.iter().map(|client| client.rows.decided).sum();
                let done: u64 = clients.iter().map(|client| client.rows.acknowledged).sum();
                let in_flight: usize = clients.iter().map(|client| client.in_flight).sum();
                format!("{pending} pending, {in_flight} in flight, {decided} to deliver, {done} done")
            }
            Err(error) => format!("the store is unavailable, nothing is lost: {error}"),
        });
        line.tick();
        SystemClock.sleep(Duration::from_millis(500)).await;
    }
}
