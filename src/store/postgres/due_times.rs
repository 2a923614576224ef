//! Moving due times: after an outage and after a jump of the clock.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::row::{DUE_AT, id_in};
use super::session::{Session, value};
use crate::store::column::{limit, micros};
use crate::store::rules::Run;
use crate::store::{ClockJump, CorrectionProgress, CorrectionStep, Partition, ProcessId, StoreError};

/// The share of an interval that the identifier of a row determines.
const SHARE: &str = "((get_byte(process.id, 0) * 256.0 + get_byte(process.id, 1)) * 256.0 * 256.0
    + get_byte(process.id, 2) * 256.0 + get_byte(process.id, 3)) / 4294967296.0";

/// See [`Times::spread`](crate::store::rules::Times::spread).
const SPREAD: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
due AS MATERIALIZED (
    SELECT id FROM @.process
    WHERE partition = $1::bigint AND state = 1 AND lease_ends_at IS NULL AND NOT spread
      AND due_at <= (SELECT now FROM clock) - $2::bigint * interval '1 microsecond'
    ORDER BY due_at LIMIT $3::bigint
    FOR UPDATE SKIP LOCKED
),
spread AS (
    UPDATE @.process AS process SET
        spread = true,
        due_at = CASE WHEN expires_at <= now + interval '5 seconds' THEN due_at
                      ELSE now + (:share)::double precision
                                 * LEAST(poll_interval, expires_at - now - interval '5 seconds') END
    FROM clock WHERE process.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING 1
)
SELECT count(*) AS count FROM spread";

pub(super) async fn spread(
    session: &Session<'_>,
    partition: Partition,
    overdue_for: Duration,
    most: usize,
) -> Result<usize, StoreError> {
    let sql = SPREAD.replace(":share", SHARE);
    let parameters =
        [(&partition.0 as _, Type::INT8), (&micros(overdue_for) as _, Type::INT8), (&limit(most) as _, Type::INT8)];
    let rows = session.query(&sql, &parameters).await?;
    let count: i64 = rows.first().map_or(Ok(0), |row| value(row, "count"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

const BEGIN: &str = "SELECT under_way, up_to, jump, corrected FROM @.clamp_run FOR UPDATE SKIP LOCKED";

/// A step reads its rows without locks. Then it locks those that need a change, and checks them again.
const STEP: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
step AS MATERIALIZED (SELECT id FROM @.process WHERE id > $1::bytea ORDER BY id LIMIT $2::bigint),
wanted AS MATERIALIZED (
    SELECT process.id FROM @.process AS process, clock
    WHERE process.id = ANY(ARRAY(SELECT id FROM step)) AND state <> 4 AND due_at < 'infinity'
      AND (lease_ends_at <> (:lease_ends_at) OR (:is_due_at) <> (:due_at) OR not_before <> (:not_before))
),
locked AS MATERIALIZED (
    SELECT id FROM @.process WHERE id = ANY(ARRAY(SELECT id FROM wanted)) ORDER BY id FOR UPDATE
),
corrected AS (
    UPDATE @.process AS process SET
        lease_ends_at = CASE WHEN lease_ends_at IS NOT NULL THEN (:lease_ends_at) END,
        due_at = (:due_at),
        not_before = (:not_before)
    FROM clock
    WHERE process.id = ANY(ARRAY(SELECT id FROM locked)) AND state <> 4 AND due_at < 'infinity'
)
SELECT id, (SELECT count(*) FROM step) AS count FROM step ORDER BY id DESC LIMIT 1";

/// See [`Times::correct`](crate::store::rules::Times::correct).
const CORRECTED_LEASE: &str = "LEAST(lease_ends_at + :forward, now + :longest)";

const CORRECTED_DUE_AT: &str = "
    CASE WHEN lease_ends_at IS NOT NULL THEN LEAST((:is_due_at) + :forward, now + :longest + :interval)
         WHEN due_at > now + :longest + :interval THEN now + :longest + :interval
         WHEN state = 1 AND due_at < now + poll_interval THEN GREATEST(due_at, LEAST(
             due_at + :forward,
             now + :interval,
             CASE WHEN expires_at > now THEN GREATEST(expires_at - interval '5 seconds', now + interval '1 second') END
         ))
         ELSE due_at END";

const CORRECTED_NOT_BEFORE: &str = "
    CASE WHEN not_before + :forward > now THEN LEAST(not_before + :forward, (:due_at)) ELSE not_before END";

/// The SQL of a step.
fn step_statement() -> String {
    STEP.replace(":lease_ends_at", CORRECTED_LEASE)
        .replace(":not_before", CORRECTED_NOT_BEFORE)
        .replace(":due_at", CORRECTED_DUE_AT)
        .replace(":is_due_at", DUE_AT)
        .replace(":interval", "poll_interval * (1 + :share)::double precision")
        .replace(":share", &format!("({SHARE})"))
        .replace(":longest", "$3::bigint * interval '1 microsecond'")
        .replace(":forward", "$4::bigint * interval '1 microsecond'")
}

const END: &str = "
UPDATE @.clamp_run SET under_way = $1::boolean, up_to = $2::bytea, jump = $3::bigint, corrected = $4::bigint";

/// Must be called in a transaction.
pub(super) async fn correct_due_times(
    session: &Session<'_>,
    wanted: &CorrectionStep,
) -> Result<CorrectionProgress, StoreError> {
    let rows = session.query(BEGIN, &[]).await?;
    let Some(row) = rows.first() else { return Ok(CorrectionProgress::Busy) };
    let up_to: &[u8] = value(row, "up_to")?;
    let run = Run {
        is_running: value(row, "under_way")?,
        up_to: up_to.try_into().ok().map(ProcessId::from_bytes),
        jump: ClockJump(value(row, "jump")?),
        corrected: ClockJump(value(row, "corrected")?),
    };
    let run = match run.begin_step(wanted) {
        Ok(run) => run,
        Err(nothing_to_do) => return Ok(nothing_to_do),
    };
    let most = wanted.limit.max(1);
    let (last, count) = step(session, run, most, wanted.longest).await?;
    let (run, progress) = run.end_step(wanted, last.filter(|_| count >= most));
    let parameters = [
        (&run.is_running as _, Type::BOOL),
        (&bytes_before(run.up_to) as _, Type::BYTEA),
        (&run.jump.0 as _, Type::INT8),
        (&run.corrected.0 as _, Type::INT8),
    ];
    session.query(END, &parameters).await?;
    Ok(progress)
}

/// Processes the next rows, and returns the last of them and their number.
async fn step(
    session: &Session<'_>,
    run: Run,
    most: usize,
    longest: Duration,
) -> Result<(Option<ProcessId>, usize), StoreError> {
    let parameters = [
        (&bytes_before(run.up_to) as _, Type::BYTEA),
        (&limit(most) as _, Type::INT8),
        (&micros(longest) as _, Type::INT8),
        (&micros(run.jump.forward()) as _, Type::INT8),
    ];
    let rows = session.query(&step_statement(), &parameters).await?;
    let Some(row) = rows.first() else { return Ok((None, 0)) };
    Ok((Some(id_in(row)?), usize::try_from(value::<i64>(row, "count")?).unwrap_or(0)))
}

/// The bytes of an identifier, or a value that is less than every identifier.
fn bytes_before(id: Option<ProcessId>) -> Vec<u8> {
    id.map_or_else(Vec::new, |id| id.to_bytes().to_vec())
}
