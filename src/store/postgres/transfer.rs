//! Rows with all of their columns, for moving them to another store.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::problem::Refusal;
use super::row::{DUE_AT, attempts_in, cancellation_in, format_in, id_in, key_in, lookup_in, partition_in, state_in};
use super::session::{Session, value};
use crate::store::column::{key_number, key_of, limit, micros};
use crate::store::{Fingerprint, Imported, ProcessId, StoreError, StoredRow};

/// A lease of `-infinity` belongs to a row that a ping has brought forward after its holder died.
const EXPORT: &str = "
WITH step AS MATERIALIZED (SELECT * FROM @.process WHERE id > $1::bytea ORDER BY id LIMIT $2::bigint)
SELECT step.id, partition, state, session, lookup, reference, started_at, NULLIF(:due_at, 'infinity') AS due_at,
       CASE WHEN lease_ends_at = '-infinity' THEN timestamptz 'epoch' ELSE lease_ends_at END AS leased_until, not_before,
       pinged_at, (extract(epoch FROM poll_interval) * 1000000)::bigint AS poll_interval, expires_at, spread, decided_at,
       epoch, attempts, provisional, cancellation, schedule, first_key, key, format, revision, body
FROM step
LEFT JOIN LATERAL (SELECT * FROM @.origin AS origin WHERE origin.id = step.id OFFSET 0) AS origin ON true
LEFT JOIN LATERAL (SELECT reference FROM @.reference AS named WHERE named.id = step.id OFFSET 0) AS named ON true
LEFT JOIN LATERAL (SELECT body FROM @.sealed AS sealed WHERE sealed.id = step.id OFFSET 0) AS sealed ON true
ORDER BY step.id";

pub(super) async fn export(
    session: &Session<'_>,
    after: Option<ProcessId>,
    most: usize,
) -> Result<Vec<StoredRow>, StoreError> {
    let after = after.map_or_else(Vec::new, |id| id.to_bytes().to_vec());
    let parameters = [(&after as _, Type::BYTEA), (&limit(most) as _, Type::INT8)];
    let rows = session.query(&EXPORT.replace(":due_at", DUE_AT), &parameters).await?;
    rows.iter().map(stored_in).collect()
}

fn stored_in(row: &Row) -> Result<StoredRow, StoreError> {
    let interval: i64 = value(row, "poll_interval")?;
    Ok(StoredRow {
        id: id_in(row)?,
        partition: partition_in(row)?,
        state: state_in(row)?,
        session: fingerprint_in(row, "session")?,
        lookup: lookup_in(row)?,
        reference: fingerprint_in(row, "reference")?,
        started_at: value(row, "started_at")?,
        due_at: value(row, "due_at")?,
        leased_until: value(row, "leased_until")?,
        not_before: value(row, "not_before")?,
        pinged_at: value(row, "pinged_at")?,
        interval: Duration::from_micros(u64::try_from(interval).unwrap_or(0)),
        expires_at: value(row, "expires_at")?,
        spread: value(row, "spread")?,
        decided_at: value(row, "decided_at")?,
        epoch: value(row, "epoch")?,
        attempts: attempts_in(row)?,
        provisional: value(row, "provisional")?,
        cancellation: cancellation_in(row)?,
        schedule: value(row, "schedule")?,
        first_key: key_of(value(row, "first_key")?).ok_or(Refusal::Row("first_key"))?,
        key: key_in(row)?,
        format: format_in(row)?,
        revision: value(row, "revision")?,
        body: value(row, "body")?,
    })
}

fn fingerprint_in(row: &Row, column: &'static str) -> Result<Option<Fingerprint>, StoreError> {
    let Some(bytes) = value::<Option<&[u8]>>(row, column)? else { return Ok(None) };
    Ok(Some(bytes.try_into().map(Fingerprint).map_err(|_| Refusal::Row(column))?))
}

/// The due time of a row is never before the end of its lease, so the row is stored like one whose lease ended before it
/// became due.
const IMPORT: &str = "
WITH present AS MATERIALIZED (SELECT id FROM @.process WHERE id = $1::bytea),
same_session AS MATERIALIZED (SELECT id FROM @.origin WHERE session = $4::bytea),
added AS (
    INSERT INTO @.process (id, partition, state, has_lookup, due_at, lease_ends_at, not_before, pinged_at, poll_interval,
                           expires_at, spread, decided_at, epoch, attempts, provisional, cancellation, schedule, key,
                           format, revision)
    SELECT $1::bytea, $2::bigint, $3::smallint, $5::bytea IS NOT NULL, COALESCE($8::timestamptz, 'infinity'),
           $9::timestamptz, $10::timestamptz, $11::timestamptz, $12::bigint * interval '1 microsecond',
           $13::timestamptz, $14::boolean, $15::timestamptz, $16::bigint, $17::bigint, $18::boolean, $19::smallint,
           $20::text, $22::bigint, $23::smallint, $24::bigint
    WHERE NOT EXISTS (SELECT FROM present) AND NOT EXISTS (SELECT FROM same_session)
    RETURNING id
),
kept AS (
    INSERT INTO @.origin (id, session, lookup, started_at, first_key)
    SELECT id, $4::bytea, $5::bytea, $7::timestamptz, $21::bigint FROM added
),
named AS (INSERT INTO @.reference (id, reference) SELECT id, $6::bytea FROM added WHERE $6::bytea IS NOT NULL),
body AS (INSERT INTO @.sealed (id, body) SELECT id, $25::bytea FROM added WHERE $25::bytea IS NOT NULL)
SELECT EXISTS (SELECT FROM present) AS is_present, (SELECT id FROM same_session) AS id";

/// Must be called in a transaction.
pub(super) async fn import(session: &Session<'_>, rows: &[StoredRow]) -> Result<Vec<Imported>, StoreError> {
    let mut imported = Vec::with_capacity(rows.len());
    for row in rows {
        imported.push(import_one(session, row).await?);
    }
    Ok(imported)
}

async fn import_one(session: &Session<'_>, row: &StoredRow) -> Result<Imported, StoreError> {
    let bytes = |fingerprint: Option<Fingerprint>| fingerprint.map(|Fingerprint(bytes)| bytes.to_vec());
    let answer = session
        .query(
            IMPORT,
            &[
                (&row.id.to_bytes().as_slice(), Type::BYTEA),
                (&row.partition.0, Type::INT8),
                (&(row.state as i16), Type::INT2),
                (&bytes(row.session), Type::BYTEA),
                (&bytes(row.lookup), Type::BYTEA),
                (&bytes(row.reference), Type::BYTEA),
                (&row.started_at, Type::TIMESTAMPTZ),
                (&row.due_at, Type::TIMESTAMPTZ),
                (&row.leased_until, Type::TIMESTAMPTZ),
                (&row.not_before, Type::TIMESTAMPTZ),
                (&row.pinged_at, Type::TIMESTAMPTZ),
                (&micros(row.interval), Type::INT8),
                (&row.expires_at, Type::TIMESTAMPTZ),
                (&row.spread, Type::BOOL),
                (&row.decided_at, Type::TIMESTAMPTZ),
                (&row.epoch, Type::INT8),
                (&i64::from(row.attempts), Type::INT8),
                (&row.provisional, Type::BOOL),
                (&(row.cancellation as i16), Type::INT2),
                (&row.schedule, Type::TEXT),
                (&key_number(row.first_key), Type::INT8),
                (&key_number(row.key), Type::INT8),
                (&i16::from(row.format), Type::INT2),
                (&row.revision, Type::INT8),
                (&row.body, Type::BYTEA),
            ],
        )
        .await?;
    let answer = answer.first().ok_or(Refusal::Row("import"))?;
    Ok(match value::<Option<&[u8]>>(answer, "id")? {
        _ if value(answer, "is_present")? => Imported::Present,
        Some(_) => Imported::Conflict(id_in(answer)?),
        None => Imported::Added,
    })
}
