//! Creating the tables.

use tokio_postgres::types::Type;

use super::PostgresStore;
use super::problem::Refusal;
use super::session::{Session, value};
use crate::store::StoreError;

/// The version that [`PostgresStore::SCHEMA`] creates.
pub(super) const VERSION: i32 = 5;

/// The steps that only add to the tables, each with the version that it creates. Replicas of releases that know the
/// version before may run, so a step must not wait for more than one table.
const ADDITIONS: [(i32, &str); 2] = [(4, include_str!("schema_4.sql")), (5, include_str!("schema_5.sql"))];

/// "OIDdefer": the lock that serializes the migrations of replicas.
const LOCK: i64 = 0x4f49_4464_6566_6572;

/// Must be called in a transaction. `schema` is the quoted name with a dot at the end.
pub(super) async fn migrate(session: &Session<'_>, schema: &str) -> Result<(), StoreError> {
    session.query("SELECT pg_advisory_xact_lock($1::bigint)", &[(&LOCK, Type::INT8)]).await?;
    let found = version(session, schema).await?;
    if let Some(version) = found.filter(|version| *version >= VERSION) {
        return check_newer(session, version).await;
    }
    let schema = schema.trim_end_matches('.');
    if let Some(found) = found.filter(|found| ADDITIONS.first().is_some_and(|(first, _)| *found >= first - 1)) {
        session.batch(&format!("SET LOCAL search_path TO {schema}")).await?;
        for (_, step) in ADDITIONS.iter().filter(|(version, _)| *version > found) {
            session.batch(step).await?;
        }
        return Ok(());
    }
    let exists = "SELECT to_regnamespace($1::text) IS NOT NULL AS found";
    let rows = session.query(exists, &[(&schema, Type::TEXT)]).await?;
    // `IF NOT EXISTS` would require the privilege to create schemas even if the schema exists.
    if !rows.first().map_or(Ok(false), |row| value(row, "found"))? {
        session.batch(&format!("CREATE SCHEMA {schema}")).await?;
    }
    session.batch(&format!("SET LOCAL search_path TO {schema}")).await?;
    session.batch(PostgresStore::SCHEMA).await
}

async fn version(session: &Session<'_>, schema: &str) -> Result<Option<i32>, StoreError> {
    let table = format!("{schema}schema_version");
    let exists = "SELECT to_regclass($1::text) IS NOT NULL AS found";
    let rows = session.query(exists, &[(&table, Type::TEXT)]).await?;
    if !rows.first().map_or(Ok(false), |row| value(row, "found"))? {
        return Ok(None);
    }
    let rows = session.query("SELECT max(version) AS version FROM @.schema_version", &[]).await?;
    rows.first().map_or(Ok(None), |row| value(row, "version"))
}

/// Checks that tables of this version or a newer one can be used.
async fn check_newer(session: &Session<'_>, found: i32) -> Result<(), StoreError> {
    match is_too_new(session).await? {
        true => Err(Refusal::Newer { found, known: VERSION }.into()),
        false => Ok(()),
    }
}

/// Whether a newer release has changed the tables so that this one cannot use them.
async fn is_too_new(session: &Session<'_>) -> Result<bool, StoreError> {
    let rows = session.query("SELECT max(oldest) AS oldest FROM @.schema_version", &[]).await?;
    let oldest: Option<i32> = rows.first().map_or(Ok(None), |row| value(row, "oldest"))?;
    Ok(oldest.is_some_and(|oldest| oldest > VERSION))
}

/// What the tables say about their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableVersion {
    /// There are none.
    Missing,
    /// This release can use them if the version is not older than [`VERSION`].
    Found(i32),
    /// A newer release has changed them.
    TooNew(i32),
}

/// Reads the version. `schema` is the quoted name with a dot at the end.
pub(super) async fn table_version(session: &Session<'_>, schema: &str) -> Result<TableVersion, StoreError> {
    Ok(match version(session, schema).await? {
        None => TableVersion::Missing,
        Some(found) if found >= VERSION && is_too_new(session).await? => TableVersion::TooNew(found),
        Some(found) => TableVersion::Found(found),
    })
}
