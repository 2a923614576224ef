//! What the check of a store found.

use serde::Serialize;

/// One result of a check: of a store by `SqliteStore::check` or `PostgresStore::check`, or of its rows by
/// [`poller::check`](crate::poller::check).
///
/// It serializes as an object with the members `subject`, `severity`, `text` and `advice`. No member contains a secret.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked, in one or two words: `schema`, `clock`, `keys`.
    pub subject: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// What to do; `None` if nothing needs to be done.
    pub advice: Option<&'static str>,
}

/// How grave a [`Finding`] is. It serializes in lower case.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing needs to be done.
    Fine,
    /// Sign-ins work, but something should be looked at.
    Warning,
    /// Sign-ins fail or could be lost.
    Wrong,
}

impl Finding {
    /// Nothing needs to be done.
    pub(crate) fn fine(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, severity: Severity::Fine, text: text.into(), advice: None }
    }

    /// Something should be looked at.
    pub(crate) fn warning(subject: &'static str, text: impl Into<String>, advice: &'static str) -> Self {
        Self { subject, severity: Severity::Warning, text: text.into(), advice: Some(advice) }
    }

    /// Sign-ins fail or could be lost.
    pub(crate) fn wrong(subject: &'static str, text: impl Into<String>, advice: &'static str) -> Self {
        Self { subject, severity: Severity::Wrong, text: text.into(), advice: Some(advice) }
    }
}
