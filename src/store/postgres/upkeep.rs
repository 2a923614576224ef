//! Reading rows, cancellation, erasure, sealing again, statistics.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::problem::Refusal;
use super::row::{
    DUE_AT, body_in, bytes_of, cancellation_in, format_in, id_in, key_in, partition_in, rounds, state_in, until,
};
use super::session::{Session, value};
use crate::store::column::{key_number, limit};
use crate::store::{Cancellation, KeyStats, PartitionStats, Process, ProcessId, Reseal, State, StoreError};

const LOAD: &str = "
SELECT id, partition, state, epoch, provisional, cancellation,
       :due_at AS due_at, schedule,
           format, key, revision, body, clock.now,
       lease_ends_at IS NOT NULL AND lease_ends_at > clock.now AS leased
FROM @.process AS process LEFT JOIN @.sealed AS sealed USING (id), (SELECT @.clock() AS now OFFSET 0) AS clock
WHERE id = $1::bytea";

pub(super) async fn load(session: &Session<'_>, id: ProcessId) -> Result<Option<Process>, StoreError> {
    let rows = session.query(&LOAD.replace(":due_at", DUE_AT), &[(&id.to_bytes().as_slice(), Type::BYTEA)]).await?;
    rows.first().map(process_in).transpose()
}

fn process_in(row: &Row) -> Result<Process, StoreError> {
    let body: Option<Vec<u8>> = value(row, "body")?;
    Ok(Process {
        id: id_in(row)?,
        partition: partition_in(row)?,
        state: state_in(row)?,
        epoch: value(row, "epoch")?,
        provisional: value(row, "provisional")?,
        cancellation: cancellation_in(row)?,
        due_in: until(row, "due_at", value(row, "now")?)?.unwrap_or_default(),
        leased: value(row, "leased")?,
        schedule: value(row, "schedule")?,
        body: body.map(|bytes| body_in(row, bytes)).transpose()?,
        revision: value(row, "revision")?,
    })
}

const CANCEL: &str = "
UPDATE @.process SET cancellation = CASE WHEN state <= 1 THEN GREATEST(cancellation, $2::smallint) ELSE cancellation END
WHERE id = $1::bytea RETURNING cancellation";

pub(super) async fn cancel(
    session: &Session<'_>,
    id: ProcessId,
    to: Cancellation,
) -> Result<Option<Cancellation>, StoreError> {
    let id = id.to_bytes();
    let rows = session.query(CANCEL, &[(&id.as_slice(), Type::BYTEA), (&(to as i16), Type::INT2)]).await?;
    rows.first().map(cancellation_in).transpose()
}

/// The body is erased with the row.
pub(super) async fn forget(session: &Session<'_>, id: ProcessId) -> Result<bool, StoreError> {
    let sql = "DELETE FROM @.process WHERE id = $1::bytea RETURNING id";
    Ok(!session.query(sql, &[(&id.to_bytes().as_slice(), Type::BYTEA)]).await?.is_empty())
}

const PURGE: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
old AS MATERIALIZED (
    SELECT id FROM @.process WHERE state = 4 AND due_at <= (SELECT now FROM clock)
    ORDER BY due_at LIMIT $1::bigint FOR UPDATE SKIP LOCKED
)
DELETE FROM @.process AS process USING old WHERE process.id = old.id RETURNING process.id";

pub(super) async fn purge(session: &Session<'_>, most: usize) -> Result<usize, StoreError> {
    Ok(session.query(PURGE, &[(&limit(most), Type::INT8)]).await?.len())
}

/// The number of rows that one statement reads of a whole table, in the order of their identifiers. A single statement
/// over all rows would prevent the database from vacuuming rows that changed since it began.
const STEP: usize = 20_000;

/// The last row of a step; `None` for the last step.
pub(super) type End = Option<ProcessId>;

/// The bytes of an identifier, or a value that is less than every identifier.
fn bytes_before(id: Option<ProcessId>) -> Vec<u8> {
    id.map_or_else(Vec::new, |id| id.to_bytes().to_vec())
}

/// Reads the last row of a step from the column `step_end`.
fn end_in(row: &Row) -> Result<End, StoreError> {
    let Some(bytes) = value::<Option<&[u8]>>(row, "step_end")? else { return Ok(None) };
    Ok(Some(bytes.try_into().map(ProcessId::from_bytes).map_err(|_| Refusal::Row("id"))?))
}

const SEALED_OTHERWISE: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
step AS MATERIALIZED (SELECT id FROM @.process WHERE id > $2::bytea ORDER BY id LIMIT $4::bigint),
step_end AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) FROM step) = $4::bigint
                THEN (SELECT id FROM step ORDER BY id DESC LIMIT 1) END AS id
)
SELECT found.*, (SELECT now FROM clock) AS now, (SELECT id FROM step_end) AS step_end
FROM step_end LEFT JOIN LATERAL (
    SELECT process.id, partition, state, epoch, provisional, cancellation,
           :due_at AS due_at, schedule,
           format, key, revision, body,
           lease_ends_at IS NOT NULL AND lease_ends_at > (SELECT now FROM clock) AS leased
    FROM @.process AS process JOIN @.sealed AS sealed USING (id)
    WHERE key <> $1::bigint AND process.id > $2::bytea AND (step_end.id IS NULL OR process.id <= step_end.id)
    ORDER BY process.id LIMIT $3::bigint
) AS found ON true";

/// Executes one step. Returns the rows found and the end of the step.
pub(super) async fn not_sealed_with(
    session: &Session<'_>,
    key: [u8; 4],
    after: Option<ProcessId>,
    most: usize,
) -> Result<(Vec<Process>, End), StoreError> {
    let after = bytes_before(after);
    let parameters = [
        (&key_number(key) as _, Type::INT8),
        (&after as _, Type::BYTEA),
        (&limit(most) as _, Type::INT8),
        (&limit(STEP) as _, Type::INT8),
    ];
    let rows = session.query(&SEALED_OTHERWISE.replace(":due_at", DUE_AT), &parameters).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        if value::<Option<&[u8]>>(row, "id")?.is_some() {
            found.push(process_in(row)?);
        }
    }
    Ok((found, rows.first().map_or(Ok(None), end_in)?))
}

const RESEAL: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM UNNEST($1::bytea[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bytea[])
                  AS input (id, revision, format, key, body)
),
locked AS MATERIALIZED (SELECT id FROM @.process WHERE id = ANY($1::bytea[]) ORDER BY id FOR UPDATE),
marked AS (
    UPDATE @.process AS process SET format = input.format, key = input.key, revision = process.revision + 1
    FROM input JOIN locked USING (id)
    WHERE process.id = input.id AND process.revision = input.revision AND process.state <> 4
    RETURNING process.id
),
replaced AS (
    UPDATE @.sealed AS sealed SET body = input.body FROM marked JOIN input USING (id) WHERE sealed.id = input.id
)
SELECT id FROM marked";

/// Must be called in a transaction.
pub(super) async fn reseal(session: &Session<'_>, reseals: &[Reseal]) -> Result<Vec<bool>, StoreError> {
    let mut resealed = vec![false; reseals.len()];
    for round in rounds(reseals, |reseal| reseal.id) {
        let all = || round.iter().map(|(_, reseal)| *reseal);
        let rows = session
            .query(
                RESEAL,
                &[
                    (&bytes_of(all().map(|reseal| reseal.id)), Type::BYTEA_ARRAY),
                    (&all().map(|reseal| reseal.revision).collect::<Vec<_>>(), Type::INT8_ARRAY),
                    (&all().map(|reseal| i16::from(reseal.body.format)).collect::<Vec<_>>(), Type::INT2_ARRAY),
                    (&all().map(|reseal| key_number(reseal.body.key)).collect::<Vec<_>>(), Type::INT8_ARRAY),
                    (&all().map(|reseal| reseal.body.bytes.as_slice()).collect::<Vec<_>>(), Type::BYTEA_ARRAY),
                ],
            )
            .await?;
        let done = rows.iter().map(id_in).collect::<Result<Vec<_>, _>>()?;
        for (place, reseal) in &round {
            if let Some(resealed) = resealed.get_mut(*place) {
                *resealed = done.contains(&reseal.id);
            }
        }
    }
    Ok(resealed)
}

/// The subqueries look up rows one by one. The planner cannot estimate the size of `step`, so a join would scan all
/// bodies.
const KEYS: &str = "
WITH step AS MATERIALIZED (
    SELECT id, key, format, state FROM @.process WHERE id > $1::bytea ORDER BY id LIMIT $2::bigint
),
step_end AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) FROM step) = $2::bigint
                THEN (SELECT id FROM step ORDER BY id DESC LIMIT 1) END AS id
)
SELECT key, format, sum(bodies)::bigint AS bodies, sum(waiting)::bigint AS waiting,
       (SELECT id FROM step_end) AS step_end
FROM (
    SELECT key, format, 1 AS bodies, 0 AS waiting
    FROM step CROSS JOIN LATERAL (SELECT 1 FROM @.sealed AS sealed WHERE sealed.id = step.id OFFSET 0) AS body
    UNION ALL
    SELECT origin.first_key, format, 0, 1
    FROM step
    CROSS JOIN LATERAL (SELECT first_key FROM @.origin AS origin WHERE origin.id = step.id OFFSET 0) AS origin
    WHERE state <= 1
    UNION ALL
    -- Returns the end of the step even if the step counts nothing.
    SELECT NULL, NULL, 0, 0 FROM step_end
) AS uses GROUP BY key, format";

/// Executes one step. Returns the counts and the end of the step.
pub(super) async fn keys(session: &Session<'_>, after: Option<ProcessId>) -> Result<(Vec<KeyStats>, End), StoreError> {
    let rows = session.query(KEYS, &[(&bytes_before(after), Type::BYTEA), (&limit(STEP), Type::INT8)]).await?;
    let mut counted = Vec::with_capacity(rows.len());
    for row in &rows {
        if value::<Option<i64>>(row, "key")?.is_some() {
            let count = |column| value::<i64>(row, column).map(|count| u64::try_from(count).unwrap_or(0));
            let (key, format) = (key_in(row)?, format_in(row)?);
            counted.push(KeyStats { key, format, bodies: count("bodies")?, waiting: count("waiting")? });
        }
    }
    Ok((counted, rows.first().map_or(Ok(None), end_in)?))
}

const STATS: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
step AS MATERIALIZED (
    SELECT id, partition, state, :due_at AS due_at, lease_ends_at,
           COALESCE(decided_at, due_at) AS decided_at
    FROM @.process WHERE id > $1::bytea ORDER BY id LIMIT $2::bigint
)
SELECT partition, (SELECT now FROM clock) AS now,
       ARRAY[count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
             count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4)] AS states,
       count(*) FILTER (WHERE state <= 3 AND due_at = 'infinity') AS set_aside,
       min(due_at) FILTER (WHERE state <= 2
                             AND (lease_ends_at IS NULL OR lease_ends_at <= (SELECT now FROM clock))) AS work_due_at,
       min(decided_at) FILTER (WHERE state = 3) AS decided_at,
       CASE WHEN (SELECT count(*) FROM step) = $2::bigint THEN (SELECT id FROM step ORDER BY id DESC LIMIT 1) END
           AS step_end
FROM step GROUP BY partition";

/// Executes one step. Returns the counts and the end of the step.
pub(super) async fn stats(
    session: &Session<'_>,
    after: Option<ProcessId>,
) -> Result<(Vec<PartitionStats>, End), StoreError> {
    let rows = session
        .query(&STATS.replace(":due_at", DUE_AT), &[(&bytes_before(after), Type::BYTEA), (&limit(STEP), Type::INT8)])
        .await?;
    let counted = rows.iter().map(stats_in).collect::<Result<_, _>>()?;
    Ok((counted, rows.first().map_or(Ok(None), end_in)?))
}

fn stats_in(row: &Row) -> Result<PartitionStats, StoreError> {
    let now: SystemTime = value(row, "now")?;
    let since = |column| {
        let then: Option<SystemTime> = value(row, column)?;
        Ok::<_, StoreError>(then.and_then(|then| now.duration_since(then).ok()))
    };
    let counts: Vec<i64> = value(row, "states")?;
    let count = |state: State| counts.get(state as usize).and_then(|count| u64::try_from(*count).ok()).unwrap_or(0);
    Ok(PartitionStats {
        partition: partition_in(row)?,
        exchanging: count(State::Exchanging),
        waiting: count(State::Waiting),
        answered: count(State::Answered),
        decided: count(State::Decided),
        acknowledged: count(State::Acknowledged),
        set_aside: u64::try_from(value::<i64>(row, "set_aside")?).unwrap_or(0),
        overdue: since("work_due_at")?,
        undelivered: since("decided_at")?,
    })
}
