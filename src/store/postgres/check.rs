//! Checks of a database before a deployment.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::migration::{self, TableVersion};
use super::session::{Session, value};
use super::tls::Distance;
use crate::clock::{Clock as _, SystemClock};
use crate::store::{Finding, StoreError};

/// The difference between the clocks of the database and of this machine that is reported.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);
/// The difference that is wrong: half of the default leeway for times in tokens.
const CLOCKS_DISAGREE: Duration = Duration::from_secs(30);
/// The age of another transaction that is reported.
const LONG_TRANSACTION: Duration = Duration::from_secs(600);

const FACTS: &str = "
SELECT clock_timestamp() AS now,
       current_setting('server_version') AS server,
       current_setting('server_version_num')::integer >= 120000 AS is_supported,
       current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on' AS is_durable,
       current_setting('autovacuum') = 'on' AS vacuums,
       current_setting('max_connections')::integer AS most,
       (SELECT count(*)::integer FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
       (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8 FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS oldest,
       (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls";

const TABLES_WITHOUT_PRIVILEGES: &str = "
SELECT count(*)::integer AS missing FROM pg_class
WHERE relnamespace = to_regnamespace($1::text) AND relkind = 'r' AND relname <> 'schema_version'
  AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
           AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))";

impl PostgresStore {
    /// Checks the database before a deployment: the version of the tables and the privileges on them, settings of
    /// the server that can lose data or slow polls down, the difference between its clock and this machine's clock,
    /// TLS, the number of connections, and long transactions. It changes nothing, and works before
    /// [`migrate`](Self::migrate).
    ///
    /// [`poller::check`](crate::poller::check) checks the rows and their keys.
    ///
    /// # Errors
    ///
    /// Those of any call. A problem that was found is not an error.
    pub async fn check(&self) -> Result<Vec<Finding>, StoreError> {
        self.bounded(async move {
            let session = self.transaction().await?;
            let before = SystemClock.now();
            let rows = session.query(FACTS, &[]).await?;
            let after = SystemClock.now();
            let mut findings = Vec::new();
            if let Some(row) = rows.first() {
                findings = of_server(row)?;
                findings.push(of_clock(value(row, "now")?, before, after));
                let (is_encrypted, distance) = self.connections.protection();
                findings.push(of_tls(is_encrypted, distance, value(row, "tls")?));
            }
            let version = migration::table_version(&session, &self.schema).await?;
            findings.push(of_schema(version));
            if version != TableVersion::Missing {
                findings.push(privileges(&session, &self.schema).await?);
            }
            session.commit().await?;
            Ok(findings)
        })
        .await
    }
}

fn of_server(row: &Row) -> Result<Vec<Finding>, StoreError> {
    let server: String = value(row, "server")?;
    let mut findings = vec![match value(row, "is_supported")? {
        true => Finding::fine("server", format!("PostgreSQL {server}")),
        false => Finding::wrong("server", format!("PostgreSQL {server} is too old"), "upgrade to version 12 or newer"),
    }];
    findings.push(match value(row, "is_durable")? {
        true => Finding::fine("durability", "committed changes survive a crash of the server"),
        false => Finding::wrong(
            "durability",
            "fsync or full_page_writes is off, so a crash of the server can lose or damage sign-ins",
            "turn both on in postgresql.conf and reload the server",
        ),
    });
    if !value::<bool>(row, "vacuums")? {
        findings.push(Finding::warning(
            "vacuum",
            "autovacuum is off, so the tables grow and polls become slow",
            "turn autovacuum on, or run VACUUM ANALYZE on the tables every few minutes",
        ));
    }
    let (used, most): (i32, i32) = (value(row, "used")?, value(row, "most")?);
    let text = format!("{used} of {most} connections are in use");
    findings.push(match used >= most / 5 * 4 {
        true => Finding::warning(
            "connections",
            text,
            "lower the pool size or the number of replicas, or raise max_connections",
        ),
        false => Finding::fine("connections", text),
    });
    let oldest: Option<f64> = value(row, "oldest")?;
    let oldest = oldest.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
    if oldest >= LONG_TRANSACTION {
        findings.push(Finding::warning(
            "transactions",
            format!("another transaction has been open for {} minutes, so the tables grow", oldest.as_secs() / 60),
            "find it in pg_stat_activity by its xact_start, and end it unless it is a backup",
        ));
    }
    Ok(findings)
}

/// Compares the clocks. The database read its own between the two times.
fn of_clock(database: SystemTime, before: SystemTime, after: SystemTime) -> Finding {
    let ahead = database.duration_since(after).unwrap_or_default();
    let behind = before.duration_since(database).unwrap_or_default();
    let (difference, direction) = if behind > ahead { (behind, "behind") } else { (ahead, "ahead of") };
    let text = format!("the database's clock is {:.1} s {direction} this machine's", difference.as_secs_f64());
    let advice = "check the time service of the database's machine and of this machine";
    if difference >= CLOCKS_DISAGREE {
        Finding::wrong("clock", text, advice)
    } else if difference >= CLOCKS_DIFFER {
        Finding::warning("clock", text, advice)
    } else {
        Finding::fine("clock", "the database's clock agrees with this machine's")
    }
}

/// `version` is that of the connection as the server sees it.
fn of_tls(is_encrypted: bool, distance: Distance, version: Option<String>) -> Finding {
    match (is_encrypted, distance) {
        (true, _) => Finding::fine("tls", format!("the connection uses {}", version.as_deref().unwrap_or("TLS"))),
        (false, Distance::Socket) => Finding::fine("tls", "the connection is a Unix socket, which needs no TLS"),
        (false, Distance::ThisMachine) => Finding::fine("tls", "the connection stays on this machine, without TLS"),
        (false, Distance::Network) => Finding::wrong(
            "tls",
            "the connection crosses the network without TLS",
            "remove sslmode=disable from the connection string, and enable TLS on the server",
        ),
    }
}

fn of_schema(version: TableVersion) -> Finding {
    let known = migration::VERSION;
    let migrate = "run `openid-deferred migrate`, or schema.sql with a role that may create tables";
    match version {
        TableVersion::Missing => Finding::wrong("schema", "the tables do not exist", migrate),
        TableVersion::Found(found) if found < known => Finding::wrong(
            "schema",
            format!("the tables have version {found}, and this release needs {known}"),
            migrate,
        ),
        TableVersion::Found(found) if found > known => Finding::fine(
            "schema",
            format!("the tables have version {found} of a newer release, which this one can use"),
        ),
        TableVersion::Found(found) => Finding::fine("schema", format!("the tables have version {found}")),
        TableVersion::TooNew(found) => Finding::wrong(
            "schema",
            format!("the tables have version {found} of a newer release, and this one knows {known}"),
            "deploy the newer release",
        ),
    }
}

async fn privileges(session: &Session<'_>, schema: &str) -> Result<Finding, StoreError> {
    let rows = session.query(TABLES_WITHOUT_PRIVILEGES, &[(&schema.trim_end_matches('.'), Type::TEXT)]).await?;
    let missing: i32 = rows.first().map_or(Ok(0), |row| value(row, "missing"))?;
    Ok(match missing {
        0 => Finding::fine("privileges", "this role may read and write all tables"),
        missing => Finding::wrong(
            "privileges",
            format!("this role may not read and write {missing} of the tables"),
            "GRANT it USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on all tables in it",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Severity;

    #[test]
    fn clocks_are_compared_by_the_smallest_difference_that_the_times_allow() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let severity = |database, before, after| of_clock(at(database), at(before), at(after)).severity;
        // A slow answer alone is no difference.
        assert_eq!(severity(1_000, 1_000, 1_060), Severity::Fine);
        assert_eq!(severity(1_060, 1_000, 1_060), Severity::Fine);
        assert_eq!(severity(1_003, 1_000, 1_000), Severity::Warning);
        assert_eq!(severity(997, 1_000, 1_000), Severity::Warning);
        assert_eq!(severity(1_030, 1_000, 1_000), Severity::Wrong);
        assert!(of_clock(at(900), at(1_000), at(1_000)).text.contains("100.0 s behind this machine's"));
    }

    #[test]
    fn only_a_network_needs_tls() {
        let severity = |is_encrypted, distance| of_tls(is_encrypted, distance, None).severity;
        assert_eq!(severity(false, Distance::Network), Severity::Wrong);
        assert_eq!(severity(true, Distance::Network), Severity::Fine);
        assert_eq!(severity(false, Distance::ThisMachine), Severity::Fine);
        assert_eq!(severity(false, Distance::Socket), Severity::Fine);
    }

    #[test]
    fn tables_are_usable_unless_they_are_missing_old_or_too_new() {
        let severity = |version| of_schema(version).severity;
        assert_eq!(severity(TableVersion::Missing), Severity::Wrong);
        assert_eq!(severity(TableVersion::Found(migration::VERSION - 1)), Severity::Wrong);
        assert_eq!(severity(TableVersion::Found(migration::VERSION)), Severity::Fine);
        assert_eq!(severity(TableVersion::Found(migration::VERSION + 1)), Severity::Fine);
        assert_eq!(severity(TableVersion::TooNew(migration::VERSION + 1)), Severity::Wrong);
    }
}
