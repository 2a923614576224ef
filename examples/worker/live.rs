//! One live line on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use openid_deferred::{Clock, Poller, SystemClock};

/// Shows what is pending, in flight and done, for ever. Where stderr is no terminal, nothing is shown.
pub async fn show(poller: &Poller) {
    let line = ProgressBar::new_spinner();
    if line.is_hidden() {
        std::future::pending::<()>().await;
    }
    line.set_style(ProgressStyle::with_template("{spinner:.cyan} {msg} [{elapsed}]").expect("a fixed template"));
    loop {
        line.set_message(match poller.stats().await {
            Ok(clients) => {
                let mut states = [0; 5];
                for client in &clients {
                    states.iter_mut().zip(client.rows.states).for_each(|(sum, rows)| *sum += rows);
                }
                let [exchanging, waiting, verifying, decided, done] = states;
                let in_flight: usize = clients.iter().map(|client| client.in_flight).sum();
                let pending = exchanging + waiting + verifying;
                format!("{pending} pending, {in_flight} in flight, {decided} to deliver, {done} done")
            }
            Err(error) => format!("the store is out of reach, nothing is lost: {error}"),
        });
        line.tick();
        SystemClock.sleep(Duration::from_millis(500)).await;
    }
}
