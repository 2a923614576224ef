//! The file of outcomes, with one line of JSON each.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use openid_deferred::{Delivery, Outcome};
use serde_json::{Value, json};

/// A file that several workers can append to.
pub struct Journal(File);

impl Journal {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| format!("cannot open {}", path.display()))?))
    }

    /// Writes one line. When it returns, the line is on the disk.
    pub fn write(&self, delivery: &Delivery) -> anyhow::Result<()> {
        // The whole line is one write, so that the lines of several workers do not mix.
        (&self.0).write_all(line(delivery).as_bytes())?;
        self.0.sync_data().context("the line cannot be written")
    }
}

fn line(delivery: &Delivery) -> String {
    let (outcome, detail) = describe(delivery.outcome());
    let line = json!({
        "id": delivery.id().to_string(),
        "context": String::from_utf8_lossy(delivery.context()),
        "outcome": outcome,
        "detail": detail,
        "attempt": delivery.attempt(),
    });
    format!("{line}\n")
}

/// What a real application does with each outcome depends on it, but it must handle all of them.
fn describe(outcome: &Outcome) -> (&'static str, Value) {
    match outcome {
        Outcome::Approved(authentication) => ("approved", authentication.claims().subject().into()),
        Outcome::Issued(tokens) => ("issued", tokens.authorization_details().cloned().unwrap_or_default()),
        Outcome::Denied(denial) => ("denied", denial.description().into()),
        Outcome::Expired(_) => ("expired", Value::Null),
        Outcome::Failed(response) => ("failed", response.to_string().into()),
        Outcome::Invalid(violation) => ("invalid", violation.to_string().into()),
        Outcome::Unknown => ("unknown", Value::Null),
        Outcome::Cancelled => ("cancelled", Value::Null),
        _ => ("other", Value::Null),
    }
}
