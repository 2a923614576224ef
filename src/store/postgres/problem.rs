//! What PostgreSQL fails with, in the words of the contract.

use std::error::Error as StdError;
use std::time::Duration;

use deadpool_postgres::{PoolError, TimeoutType};
use openssl::error::ErrorStack;

use crate::store::{StoreError, StoreProblem};

/// Why a database is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    // What stands in it is not repeated, for it may be the password.
    #[error("the connection string cannot be parsed")]
    ConnectionString,
    #[error("the name of the schema is empty, or contains a zero byte")]
    SchemaName,
    #[error("synchronous_commit is off for this role or database, so what it confirms would not survive a crash")]
    AsynchronousCommit,
    #[error("a row holds what this release cannot read: {0}")]
    Row(&'static str),
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        Self::new(StoreProblem::Unusable).with_source(refusal)
    }
}

/// OpenSSL cannot be set up, or certificates cannot be read.
pub(super) fn of_tls(error: ErrorStack) -> StoreError {
    StoreError::new(StoreProblem::Unusable).with_source(error)
}

pub(super) fn of_pool(error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) => of_database(&error),
        PoolError::Timeout(TimeoutType::Wait) => unavailable("all connections of the pool are busy".to_owned()),
        other => unavailable(other.to_string()),
    }
}

pub(super) fn no_answer_within(timeout: Duration) -> StoreError {
    unavailable(format!("the database has not answered within {timeout:?}"))
}

fn unavailable(why: String) -> StoreError {
    StoreError::new(StoreProblem::Unavailable).with_source(why)
}

/// Whether it is not the wire that has failed: one side does not take the other for what it says.
fn is_refusal(tls: &ErrorStack) -> bool {
    tls.errors()
        .iter()
        .any(|error| error.reason() == Some("certificate verify failed") || is_lasting_alert(error.reason_code()))
}

/// Whether the other side has said in an alert (RFC 8446 §6.2) that certificates, versions or ciphers do not suit it.
/// Others, such as `internal_error`, come from servers that are starting or ending, and from broken wires.
fn is_lasting_alert(reason_code: i32) -> bool {
    // OpenSSL numbers the alerts that it receives from 1000 on.
    matches!(reason_code.saturating_sub(1_000), 40..=49 | 70 | 71 | 109..=120)
}

/// An error of the database or of the way to it. The details that a server adds quote rows, so they stay behind.
pub(super) fn of_database(error: &tokio_postgres::Error) -> StoreError {
    let Some(database) = error.as_db_error() else {
        let (mut text, mut problem) = (error.to_string(), StoreProblem::Unavailable);
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            if error.downcast_ref().is_some_and(is_refusal) {
                problem = StoreProblem::Unusable;
            }
            source = error.source();
        }
        return StoreError::new(problem).with_source(text);
    };
    let code = database.code().code();
    let hint = match code {
        "42P01" | "3F000" | "42883" | "42703" => "; run PostgresStore::migrate or schema.sql",
        "26000" | "42P05" => "; behind a pooler of connections, switch prepared statements off",
        _ => "",
    };
    let problem = match code.get(..2) {
        // Connections, rolled back transactions, resources, the operator, the system, locks, idle transactions, and
        // unique keys that another transaction has just taken.
        Some("08" | "40" | "53" | "57" | "58" | "55" | "23") => StoreProblem::Unavailable,
        _ if code == "25P03" => StoreProblem::Unavailable,
        _ => StoreProblem::Unusable,
    };
    StoreError::new(problem).with_source(format!("{code}: {}{hint}", database.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_that_passes_does_not_make_a_store_unusable() {
        // handshake_failure, bad_certificate, unknown_ca, protocol_version, certificate_required.
        assert!([40, 42, 48, 70, 116].into_iter().all(|alert| is_lasting_alert(1_000 + alert)));
        // close_notify, unexpected_message, bad_record_mac, internal_error.
        assert!(![0, 10, 20, 80].into_iter().any(|alert| is_lasting_alert(1_000 + alert)));
        // A reason of our own side, by whatever number.
        assert!(!is_lasting_alert(48) && !is_lasting_alert(i32::MIN));
    }
}
