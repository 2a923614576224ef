//! Errors of PostgreSQL and of the connection, as errors of the contract.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use deadpool::managed::{PoolError, TimeoutType};
use openssl::error::ErrorStack;
use tokio_postgres::Error;

use crate::store::{StoreError, StoreProblem};

/// Why a database is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refusal {
    // These errors do not repeat parts of the connection string, which may be the password.
    #[error("the connection string cannot be parsed: {0}; in a URL, write special characters as % and their code")]
    Syntax(&'static str),
    #[error("parameter number {0} of the connection string, in a URL counted after the ?, is not a parameter of libpq")]
    UnknownParameter(usize),
    #[error("the connection string has the parameter {0}, which is not supported")]
    Unsupported(&'static str),
    #[error("{0} in the connection string {1}")]
    Parameter(&'static str, &'static str),
    #[error("{0} in the connection string: {1}")]
    File(&'static str, String),
    #[error(
        "sslrootcert, sslcert and sslkey in the connection string and PostgresStoreBuilder::tls cannot be combined"
    )]
    TwoConnectors,
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("the pool cannot be set up: {0}")]
    Pool(String),
    #[error("the name of the schema is empty, or contains a zero byte")]
    SchemaName,
    #[error("synchronous_commit is off for this role or database, so committed changes might not survive a crash")]
    AsynchronousCommit,
    #[error(
        "the tables have version {found}, and this release knows version {known}: a newer release has changed them"
    )]
    Newer { found: i32, known: i32 },
    #[error("a row contains a value that this release cannot read: {0}")]
    Row(&'static str),
}

impl Refusal {
    pub(super) fn openssl(error: ErrorStack) -> Self {
        Self::Tls(error.to_string())
    }

    /// The error for a file that a parameter names and that cannot be used.
    pub(super) fn file(parameter: &'static str, path: &Path, why: impl fmt::Display) -> Self {
        Self::File(parameter, format!("{}: {why}", path.display()))
    }
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        Self::new(StoreProblem::Unusable).with_source(refusal)
    }
}

pub(super) fn of_pool(error: PoolError<StoreError>) -> StoreError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(TimeoutType::Wait) => unavailable("all connections of the pool are busy".to_owned()),
        other => unavailable(other.to_string()),
    }
}

pub(super) fn no_answer_within(timeout: Duration) -> StoreError {
    unavailable(format!("the database has not answered within {timeout:?}"))
}

pub(super) fn unavailable(why: String) -> StoreError {
    StoreError::new(StoreProblem::Unavailable).with_source(why)
}

/// Why the connection to a host failed.
pub(super) struct Failure {
    problem: StoreProblem,
    text: String,
    /// Whether the other hosts would fail in the same way.
    pub(super) is_of_all_hosts: bool,
}

impl Failure {
    pub(super) fn of(host: &str, error: &Error) -> Self {
        let (problem, text) = described(error);
        // The credentials are the same for all hosts. libpq does not try the others either.
        let is_of_all_hosts = error.code().is_some_and(|code| code.code().starts_with("28"));
        Self { problem, text: format!("{host}: {text}"), is_of_all_hosts }
    }

    /// A failure that may be temporary.
    pub(super) fn passing(host: &str, why: &str) -> Self {
        Self { problem: StoreProblem::Unavailable, text: why.to_owned(), is_of_all_hosts: false }.at(host)
    }

    pub(super) fn of_all_hosts(refusal: Refusal) -> Self {
        Self { problem: StoreProblem::Unusable, text: refusal.to_string(), is_of_all_hosts: true }
    }

    /// Adds the name of the host.
    pub(super) fn at(self, host: &str) -> Self {
        if host.is_empty() { self } else { Self { text: format!("{host}: {}", self.text), ..self } }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.problem).with_source(failure.text)
    }
}

/// The error if no host accepted the connection. If one of them may do so later, the database is unavailable.
pub(super) fn of_hosts(failures: Vec<Failure>) -> StoreError {
    let lasts = !failures.is_empty() && failures.iter().all(|failure| failure.problem == StoreProblem::Unusable);
    let problem = if lasts { StoreProblem::Unusable } else { StoreProblem::Unavailable };
    let texts: Vec<_> = failures.into_iter().map(|failure| failure.text).collect();
    StoreError::new(problem).with_source(texts.join("; "))
}

/// Converts an error of the database or of the connection to it.
pub(super) fn of_database(error: &Error) -> StoreError {
    let (problem, text) = described(error);
    StoreError::new(problem).with_source(text)
}

pub(super) fn text_of(error: &Error) -> String {
    described(error).1
}

/// Whether other connections to the same server will fail in the same way: the network has failed, or the server is
/// shutting down or no longer accepts writes.
pub(super) fn is_of_all_connections(error: &Error) -> bool {
    error.code().is_none_or(|code| matches!(code.code(), "25006" | "57P01" | "57P02" | "57P03"))
}

/// The details of a server's error quote rows, so they are omitted.
fn described(error: &Error) -> (StoreProblem, String) {
    let Some(database) = error.as_db_error() else { return of_the_way(error) };
    let code = database.code().code();
    (problem_of(code), format!("{code}: {}{}", database.message(), advice_on(code)))
}

fn problem_of(code: &str) -> StoreProblem {
    match code {
        // A server that accepts no writes, and transactions that were idle or took too long.
        "25006" | "25P03" | "25P04" => StoreProblem::Unavailable,
        _ => match code.get(..2) {
            // Connection errors, rolled back transactions, lack of resources, operator intervention, system errors,
            // locks, and unique keys that another transaction has just inserted.
            Some("08" | "40" | "53" | "57" | "58" | "55" | "23") => StoreProblem::Unavailable,
            _ => StoreProblem::Unusable,
        },
    }
}

fn advice_on(code: &str) -> &'static str {
    match code {
        "42P01" | "3F000" | "42883" | "42703" => "; run PostgresStore::migrate or schema.sql",
        "26000" | "42P05" => "; behind a connection pooler, disable prepared statements",
        "25006" => "; name all hosts of the cluster, and do not set target_session_attrs=any",
        "28P01" => "; put the role's current password into the connection string",
        "28000" => "; the server's pg_hba.conf does not allow this login from this host",
        "3D000" => "; specify the database as dbname, or at the end of the URL",
        "42501" => "; GRANT the role the privileges that schema.sql names, or run migrate as the tables' owner",
        "53300" => "; lower PostgresStoreBuilder::pool_size or the number of replicas, or raise the limit",
        _ => "",
    }
}

/// Describes a failure of the connection to the database.
fn of_the_way(error: &Error) -> (StoreProblem, String) {
    let mut text = error.to_string();
    // A password is missing, or the server requires an unknown authentication method. Only the text identifies these
    // errors.
    let lasts = ["invalid configuration", "authentication error"].contains(&&*text);
    let mut problem = if lasts { StoreProblem::Unusable } else { StoreProblem::Unavailable };
    let mut advice = "";
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        if let Some(tls) = error.downcast_ref::<ErrorStack>() {
            if is_untrusted(tls) {
                advice = "; set sslrootcert to the authority of the server's certificate";
            }
            if is_refusal(tls) {
                problem = StoreProblem::Unusable;
            }
        }
        if error.is::<Refusal>() {
            problem = StoreProblem::Unusable;
        }
        source = error.source();
    }
    (problem, format!("{text}{advice}"))
}

fn is_untrusted(tls: &ErrorStack) -> bool {
    tls.errors().iter().any(|error| error.reason() == Some("certificate verify failed"))
}

/// Whether one side rejected the other, rather than the network having failed.
fn is_refusal(tls: &ErrorStack) -> bool {
    is_untrusted(tls) || tls.errors().iter().any(|error| is_lasting_alert(error.reason_code()))
}

/// Whether the other side rejected certificates, versions or ciphers in an alert (RFC 8446 §6.2). Other alerts, such as
/// `internal_error`, come from servers that are starting or stopping, and from network failures.
fn is_lasting_alert(reason_code: i32) -> bool {
    // OpenSSL adds 1000 to the number of a received alert.
    matches!(reason_code.saturating_sub(1_000), 40..=49 | 70 | 71 | 109..=120)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transient_tls_alert_does_not_make_a_store_unusable() {
        // handshake_failure, bad_certificate, unknown_ca, protocol_version, certificate_required.
        assert!([40, 42, 48, 70, 116].into_iter().all(|alert| is_lasting_alert(1_000 + alert)));
        // close_notify, unexpected_message, bad_record_mac, internal_error.
        assert!(![0, 10, 20, 80].into_iter().any(|alert| is_lasting_alert(1_000 + alert)));
        // Reasons of this side have other numbers.
        assert!(!is_lasting_alert(48) && !is_lasting_alert(i32::MIN));
    }

    #[test]
    fn a_store_is_unavailable_and_not_unusable_while_one_host_may_recover() {
        let lasting = || Failure::of_all_hosts(Refusal::SchemaName).at("a:1");
        let problem = |failures| of_hosts(failures).problem();
        assert_eq!(problem(vec![lasting()]), StoreProblem::Unusable);
        assert_eq!(problem(vec![lasting(), Failure::passing("b:2", "gone")]), StoreProblem::Unavailable);
        assert_eq!(problem(vec![]), StoreProblem::Unavailable);
        let error = of_hosts(vec![lasting(), Failure::passing("b:2", "gone")]);
        assert!(error.source().is_some_and(|text| text.to_string().ends_with("; b:2: gone")));
    }
}
