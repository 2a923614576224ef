//! Reading rows, cancellation, erasure, sealing again, statistics.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::row::{body_in, bytes_of, cancellation_in, format_in, id_in, key_in, partition_in, rounds, state_in, until};
use super::session::{Session, value};
use crate::store::column::{key_number, limit};
use crate::store::{Cancellation, KeyStats, PartitionStats, Process, ProcessId, Reseal, State, StoreError};

const LOAD: &str = "
SELECT id, partition, state, epoch, provisional, cancellation, due_at, schedule, format, key, revision, body, clock.now,
       leased_until IS NOT NULL AND leased_until > clock.now AS leased
FROM @.process AS process LEFT JOIN @.sealed AS sealed USING (id), (SELECT @.clock() AS now OFFSET 0) AS clock
WHERE id = $1::bytea";

pub(super) async fn load(session: &Session<'_>, id: ProcessId) -> Result<Option<Process>, StoreError> {
    let rows = session.query(LOAD, &[(&id.to_bytes().as_slice(), Type::BYTEA)]).await?;
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

/// The body goes with the row.
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

const SEALED_OTHERWISE: &str = "
SELECT id, partition, state, epoch, provisional, cancellation, due_at, schedule, format, key, revision, body, clock.now,
       leased_until IS NOT NULL AND leased_until > clock.now AS leased
FROM @.process AS process JOIN @.sealed AS sealed USING (id), (SELECT @.clock() AS now OFFSET 0) AS clock
WHERE key <> $1::bigint AND id > $2::bytea ORDER BY id LIMIT $3::bigint";

pub(super) async fn sealed_otherwise(
    session: &Session<'_>,
    key: [u8; 4],
    after: Option<ProcessId>,
    most: usize,
) -> Result<Vec<Process>, StoreError> {
    // Less than every identifier.
    let after = after.map_or_else(Vec::new, |id| id.to_bytes().to_vec());
    let rows = session
        .query(SEALED_OTHERWISE, &[(&key_number(key), Type::INT8), (&after, Type::BYTEA), (&limit(most), Type::INT8)])
        .await?;
    rows.iter().map(process_in).collect()
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

/// The caller has begun a transaction.
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

const KEYS: &str = "
SELECT key, format, sum(bodies)::bigint AS bodies, sum(waiting)::bigint AS waiting FROM (
    SELECT key, format, 1 AS bodies, 0 AS waiting FROM @.process JOIN @.sealed USING (id)
    UNION ALL SELECT first_key, format, 0, 1 FROM @.process WHERE state <= 1
) AS uses GROUP BY key, format";

pub(super) async fn keys(session: &Session<'_>) -> Result<Vec<KeyStats>, StoreError> {
    let stats_in = |row: &Row| {
        let count = |column| value::<i64>(row, column).map(|count| u64::try_from(count).unwrap_or(0));
        Ok(KeyStats {
            key: key_in(row)?,
            format: format_in(row)?,
            bodies: count("bodies")?,
            waiting: count("waiting")?,
        })
    };
    session.query(KEYS, &[]).await?.iter().map(stats_in).collect()
}

const STATS: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now)
SELECT partition, (SELECT now FROM clock) AS now,
       ARRAY[count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
             count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4)] AS states,
       min(due_at) FILTER (WHERE state <= 2
                             AND (leased_until IS NULL OR leased_until <= (SELECT now FROM clock))) AS work_due_at,
       min(COALESCE(decided_at, due_at)) FILTER (WHERE state = 3) AS decided_at
FROM @.process GROUP BY partition";

pub(super) async fn stats(session: &Session<'_>) -> Result<Vec<PartitionStats>, StoreError> {
    let rows = session.query(STATS, &[]).await?;
    rows.iter().map(stats_in).collect()
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
        overdue: since("work_due_at")?,
        undelivered: since("decided_at")?,
    })
}
