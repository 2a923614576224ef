//! Why a command failed: what failed, where, and what to do.

use std::error::Error as StdError;

use openid_deferred::Error;
use openid_deferred::store::{StoreError, StoreProblem};
use serde::Serialize;

/// Printed as text, or as a JSON document with these members.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    /// What failed, with its causes.
    pub(crate) error: String,
    /// What to do.
    pub(crate) advice: Option<String>,
    /// The exit code.
    #[serde(skip)]
    pub(crate) code: u8,
}

impl Failure {
    /// The command failed in this step.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { error: what.into(), advice: None, code: 1 }
    }

    /// The arguments are wrong.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { code: 2, ..Self::new(what) }
    }

    /// Adds an error with all of its sources.
    pub(crate) fn because(mut self, error: &dyn StdError) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some errors repeat their source.
            if !self.error.ends_with(&text) {
                self.error = format!("{}: {text}", self.error);
            }
            next = error.source();
        }
        self
    }

    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// A call to the store failed.
    pub(crate) fn store(what: impl Into<String>, error: &StoreError) -> Self {
        let failure = Self::new(what).because(error);
        if failure.error.contains("PostgresStore::migrate") {
            return failure.advise("create the tables with `openid-deferred migrate`, or name them with --schema");
        }
        match error.problem() {
            StoreProblem::Unavailable => failure.advise(
                "see whether the database runs, can be reached from this machine and is not locked; then repeat the command",
            ),
            _ => failure,
        }
    }

    /// A call of the library failed.
    pub(crate) fn library(what: impl Into<String>, error: &Error) -> Self {
        match error.source().and_then(|source| source.downcast_ref::<StoreError>()) {
            Some(source) => Self::store(what, source),
            None => Self::new(what).because(error),
        }
    }
}
