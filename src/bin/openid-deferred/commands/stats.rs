//! `stats`

use openid_deferred::operations::ClientRows;

use crate::Health;
use crate::failure::Failure;
use crate::location::Opened;
use crate::output::{Output, name, rough, table};

pub(crate) async fn run(opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
    let stats = opened.operations().stats().await;
    let stats = stats.map_err(|error| Failure::library("cannot count the rows", &error))?;
    output.print(&stats, || text(&stats))?;
    Ok(Health::Well)
}

fn text(stats: &[ClientRows]) -> String {
    if stats.is_empty() {
        return "the store has no sign-ins".to_owned();
    }
    let headings = [
        "CLIENT",
        "ISSUER",
        "CLIENT ID",
        "REFUSED",
        "EXCHANGING",
        "WAITING",
        "ANSWERED",
        "UNDELIVERED",
        "TOMBSTONES",
        "SET ASIDE",
        "OVERDUE",
        "OLDEST UNDELIVERED",
    ];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    rows.extend(stats.iter().map(|ClientRows { issuer, client_id, is_refused, rows: stats, .. }| {
        vec![
            stats.partition.0.to_string(),
            name(issuer.as_deref()),
            name(client_id.as_deref()),
            if *is_refused { "yes" } else { "no" }.to_owned(),
            stats.exchanging.to_string(),
            stats.waiting.to_string(),
            stats.answered.to_string(),
            stats.decided.to_string(),
            stats.acknowledged.to_string(),
            stats.set_aside.to_string(),
            rough(stats.overdue),
            rough(stats.undelivered),
        ]
    }));
    table(&rows)
}
