//! Errors of SQLite and of the file, as errors of the contract.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::store::{StoreError, StoreProblem};

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0} is the database of another application")]
    Foreign(PathBuf),
    #[error("{path} has schema {found}, and this release knows schema {known}: a newer release has written it")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{0} is on a network file system ({1}), where SQLite's locks do not protect it")]
    Network(PathBuf, String),
    #[error("{0} does not support write-ahead logging, which needs a local file system with shared memory")]
    NoWriteAheadLog(PathBuf),
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    #[error("{0} exists already, and a backup overwrites nothing: choose another name")]
    Exists(PathBuf),
    #[error("{0:?} cannot be the name of a backup, because it is not UTF-8")]
    Name(PathBuf),
    #[error("the copy in {0} is damaged; check the disk and the store, and back it up again")]
    Damaged(PathBuf),
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        Self::new(StoreProblem::Unusable).with_source(refusal)
    }
}

/// Converts an error of the file system, before SQLite has opened the file.
pub(super) fn of_file(error: io::Error) -> StoreError {
    let is_passing = matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::StorageFull);
    let problem = if is_passing { StoreProblem::Unavailable } else { StoreProblem::Unusable };
    StoreError::new(problem).with_source(error)
}

/// Converts an error of SQLite. It may quote SQL and names of columns, but no values. One error can make many calls
/// fail.
pub(super) fn of_database(error: &rusqlite::Error) -> StoreError {
    let problem = match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::ConstraintViolation
            | ErrorCode::SchemaChanged,
        ) => StoreProblem::Unavailable,
        _ => StoreProblem::Unusable,
    };
    StoreError::new(problem).with_source(error.to_string())
}

/// The error of a call whose thread has ended.
pub(super) fn thread_has_ended() -> StoreError {
    StoreError::new(StoreProblem::Unavailable).with_source("the thread that serves the database has ended")
}

/// The error of a call if too many calls wait for the thread.
pub(super) fn too_many_calls() -> StoreError {
    StoreError::new(StoreProblem::Unavailable).with_source("too many calls wait for the database; its disk may hang")
}
