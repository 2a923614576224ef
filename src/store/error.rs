//! What a store can fail with.

use std::error::Error as StdError;
use std::fmt;

/// Why a store did not do what it was asked. The error of the database is its [`source`](StdError::source).
#[derive(Debug)]
pub struct StoreError {
    problem: StoreProblem,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`StoreError`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreProblem {
    /// It cannot be reached, is locked, overloaded or shutting down. The same call can succeed later, and is repeated.
    #[error("the store is out of reach")]
    Unavailable,
    /// It is reached but cannot be used as it is: it takes neither password nor certificate, or its own is not trusted;
    /// its schema is missing or of another release, it may not be written to, or it holds what this release cannot read.
    /// Somebody has to put that right; meanwhile calls are repeated.
    #[error("the store cannot be used as it is")]
    Unusable,
}

impl StoreError {
    /// An error of this kind.
    pub fn new(problem: StoreProblem) -> Self {
        Self { problem, source: None }
    }

    /// Adds the error of the layer below. It must not quote rows.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of trouble it is.
    pub fn problem(&self) -> StoreProblem {
        self.problem
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(formatter)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
