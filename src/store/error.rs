//! The errors of stores.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// The error of a store operation. The error of the database is its [`source`](StdError::source).
#[derive(Debug)]
pub struct StoreError {
    problem: StoreProblem,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`StoreError`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreProblem {
    /// The store is unreachable, locked, overloaded or shutting down. The same call can succeed later, and is repeated.
    #[error("the store is unavailable")]
    Unavailable,
    /// The store is reachable, but cannot be used in its current state. It rejects the password or client certificate,
    /// or its own certificate is not trusted. Or its schema is missing or belongs to another release, it is not
    /// writable, or it contains data that this release cannot read. An operator must correct this; until then, calls
    /// are repeated.
    #[error("the store cannot be used in its current state")]
    Unusable,
    /// The store does not implement the operation. Only a store of your own can have this problem, and only with
    /// methods that have a default implementation.
    #[error("the store does not support this operation")]
    Unsupported,
}

impl StoreError {
    /// Creates an error of this kind.
    pub fn new(problem: StoreProblem) -> Self {
        Self { problem, source: None }
    }

    /// Adds the error of the layer below. Its text must not quote rows.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of error.
    pub fn problem(&self) -> StoreProblem {
        self.problem
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::new(ErrorKind::Store).with_source(error)
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
