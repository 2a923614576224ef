//! `check`

use openid_deferred::poller;
use openid_deferred::store::{Finding, Severity};

use crate::Health;
use crate::failure::Failure;
use crate::keys::{OptionalKeys, warn_of_no_keys};
use crate::location::Opened;
use crate::output::{Output, table};

pub(crate) async fn run(opened: &Opened, keys: OptionalKeys, output: &mut Output) -> Result<Health, Failure> {
    let keyring = keys.keyring()?;
    let findings = opened.check().await;
    let mut findings = findings.map_err(|error| Failure::store("cannot check the store", &error))?;
    // Rows cannot be read without tables.
    let has_tables = findings.iter().all(|found| found.subject != "schema" || found.severity < Severity::Wrong);
    if has_tables {
        let rows = poller::check(&*opened.store(), keyring.as_ref()).await;
        findings.extend(rows.map_err(|error| Failure::library("cannot check the rows", &error))?);
    }
    output.print(&findings, || text(&findings))?;
    if keyring.is_none() && has_tables {
        warn_of_no_keys();
    }
    let is_wrong = findings.iter().any(|found| found.severity == Severity::Wrong);
    Ok(if is_wrong { Health::Unwell } else { Health::Well })
}

/// One line for each finding, and one more with what to do about it.
fn text(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for found in findings {
        let severity = match found.severity {
            Severity::Wrong => "WRONG",
            Severity::Warning => "warning",
            _ => "ok",
        };
        rows.push(vec![severity.to_owned(), found.subject.to_owned(), found.text.clone()]);
        rows.extend(found.advice.map(|advice| vec![String::new(), String::new(), format!("-> {advice}")]));
    }
    table(&rows)
}
