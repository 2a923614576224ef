//! Claiming work, and when more is due.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::problem::Refusal;
use super::row::{attempts_in, body_in, bytes_of, cancellation_in, id_in, numbers_of, partition_in, state_in, until};
use super::session::{Session, value};
use crate::store::column::{limit, micros};
use crate::store::{Claim, ClaimQuota, Claimed, NextDue, ProcessId, State, StoreError};

/// How long to leave rows to others that are claiming them.
const OTHERS_CLAIM: Duration = Duration::from_millis(20);

/// What a claim has taken.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) claimed: Vec<Claimed>,
    pub(super) set_aside: Vec<ProcessId>,
}

pub(super) async fn claim(session: &Session<'_>, claim: &Claim) -> Result<Claims, StoreError> {
    let wanted = claim.quotas.iter().map(|quota| quota.polls.saturating_add(quota.verifications));
    match wanted.fold(0, usize::saturating_add) {
        0 => Ok(Claims::default()),
        wanted if wanted <= claim.limit => claim_quotas(session, claim, &claim.quotas).await,
        _ => {
            let shares = shares(session, claim).await?;
            if shares.is_empty() { Ok(Claims::default()) } else { claim_quotas(session, claim, &shares).await }
        }
    }
}

/// Where the quotas come to more than the limit. It locks nothing, so that what is left to others stays free.
const SHARES: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
quota AS MATERIALIZED (
    SELECT partition, place, LEAST(polls, $6::bigint) AS polls, LEAST(verifications, $6::bigint) AS verifications
    FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
         AS quota (partition, polls, verifications, place)
),
due AS (
    SELECT place, false AS is_poll, found.due_at FROM quota CROSS JOIN LATERAL (
        SELECT due_at FROM @.process AS process
        WHERE process.partition = quota.partition AND state IN (0, 2) AND due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.verifications
    ) AS found
    UNION ALL
    SELECT place, true AS is_poll, found.due_at FROM quota CROSS JOIN LATERAL (
        SELECT due_at FROM @.process AS process
        WHERE process.partition = quota.partition AND state <= 2 AND state = 1 AND due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.polls
    ) AS found
)
SELECT place, count(*) FILTER (WHERE is_poll) AS polls, count(*) FILTER (WHERE NOT is_poll) AS verifications
FROM (SELECT place, is_poll FROM due ORDER BY is_poll, due_at LIMIT $6::bigint) AS first GROUP BY place";

/// The quotas, so much smaller that together they are within the limit: the earliest rows of all partitions come first.
async fn shares(session: &Session<'_>, claim: &Claim) -> Result<Vec<ClaimQuota>, StoreError> {
    let Columns { partitions, polls, verifications } = columns(&claim.quotas);
    let rows = session
        .query(
            SHARES,
            &[
                (&partitions, Type::INT8_ARRAY),
                (&polls, Type::INT8_ARRAY),
                (&verifications, Type::INT8_ARRAY),
                (&i16::from(claim.format), Type::INT2),
                (&numbers_of(&claim.keys), Type::INT8_ARRAY),
                (&limit(claim.limit), Type::INT8),
            ],
        )
        .await?;
    let mut shares = Vec::with_capacity(rows.len());
    for row in &rows {
        let number = |column| value::<i64>(row, column).map(|number| usize::try_from(number).unwrap_or(0));
        let quota = claim.quotas.get(number("place")?.saturating_sub(1)).ok_or(Refusal::Row("place"))?;
        let (polls, verifications) = (number("polls")?, number("verifications")?);
        shares.push(ClaimQuota { partition: quota.partition, polls, verifications });
    }
    Ok(shares)
}

/// Quotas as arrays.
struct Columns {
    partitions: Vec<i64>,
    polls: Vec<i64>,
    verifications: Vec<i64>,
}

fn columns(quotas: &[ClaimQuota]) -> Columns {
    Columns {
        partitions: quotas.iter().map(|quota| quota.partition.0).collect(),
        polls: quotas.iter().map(|quota| limit(quota.polls)).collect(),
        verifications: quotas.iter().map(|quota| limit(quota.verifications)).collect(),
    }
}

/// An array names the rows to update: joined with `due`, whose size nobody can guess, they would be looked for in all of
/// the table.
const CLAIM: &str = "
WITH clock AS MATERIALIZED (
    SELECT @.clock() AS now, NOT EXISTS (SELECT 1 FROM @.clamp_run WHERE under_way) AS claims
),
quota AS MATERIALIZED (
    SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS quota (partition, polls, verifications)
    WHERE (SELECT claims FROM clock)
),
verification AS MATERIALIZED (
    SELECT found.* FROM quota CROSS JOIN LATERAL (
        SELECT id, due_at, leased_until IS NOT NULL AS orphaned, pinged_at IS NOT NULL AS pinged
        FROM @.process AS process
        WHERE process.partition = quota.partition AND state IN (0, 2) AND due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.verifications FOR UPDATE SKIP LOCKED
    ) AS found
),
poll AS MATERIALIZED (
    SELECT found.* FROM quota CROSS JOIN LATERAL (
        SELECT id, due_at, leased_until IS NOT NULL AS orphaned, pinged_at IS NOT NULL AS pinged
        FROM @.process AS process
        WHERE process.partition = quota.partition AND state <= 2 AND state = 1 AND due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.polls FOR UPDATE SKIP LOCKED
    ) AS found
),
due AS MATERIALIZED (
    SELECT *, false AS is_poll FROM verification UNION ALL SELECT *, true AS is_poll FROM poll
),
claimed AS (
    UPDATE @.process AS process SET
        leased_until = now + $6::bigint * interval '1 microsecond',
        due_at = now + $6::bigint * interval '1 microsecond' + poll_interval,
        epoch = epoch + 1,
        attempts = attempts + 1,
        not_before = CASE WHEN pinged_at IS NULL THEN not_before END,
        pinged_at = NULL
    FROM clock WHERE process.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING process.id, partition, state, epoch, attempts, cancellation, schedule, format, key
)
SELECT claimed.*, due.orphaned, due.pinged FROM claimed JOIN due USING (id) ORDER BY is_poll, partition, due.due_at";

async fn claim_quotas(session: &Session<'_>, claim: &Claim, quotas: &[ClaimQuota]) -> Result<Claims, StoreError> {
    let Columns { partitions, polls, verifications } = columns(quotas);
    let rows = session
        .query(
            CLAIM,
            &[
                (&partitions, Type::INT8_ARRAY),
                (&polls, Type::INT8_ARRAY),
                (&verifications, Type::INT8_ARRAY),
                (&i16::from(claim.format), Type::INT2),
                (&numbers_of(&claim.keys), Type::INT8_ARRAY),
                (&micros(claim.lease), Type::INT8),
            ],
        )
        .await?;
    let mut bodies = bodies(session, rows.iter().map(id_in).collect::<Result<_, _>>()?).await?;
    let mut claims = Claims::default();
    for row in &rows {
        let id = id_in(row)?;
        match bodies.remove(&id) {
            Some(body) => claims.claimed.push(claimed_in(row, id, body)?),
            None => claims.set_aside.push(id),
        }
    }
    set_aside(session, &claims.set_aside).await?;
    Ok(claims)
}

fn claimed_in(row: &Row, id: ProcessId, body: Vec<u8>) -> Result<Claimed, StoreError> {
    Ok(Claimed {
        id,
        partition: partition_in(row)?,
        state: state_in(row)?,
        epoch: value(row, "epoch")?,
        orphaned: value(row, "orphaned")?,
        pinged: value(row, "pinged")?,
        attempts: attempts_in(row)?,
        cancellation: cancellation_in(row)?,
        schedule: value(row, "schedule")?,
        body: body_in(row, body)?,
    })
}

/// The bodies of rows that this transaction has locked.
pub(super) async fn bodies(
    session: &Session<'_>,
    ids: Vec<ProcessId>,
) -> Result<BTreeMap<ProcessId, Vec<u8>>, StoreError> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = "SELECT id, body FROM @.sealed WHERE id = ANY($1::bytea[])";
    let rows = session.query(sql, &[(&bytes_of(ids), Type::BYTEA_ARRAY)]).await?;
    rows.iter().map(|row| Ok((id_in(row)?, value(row, "body")?))).collect()
}

/// Rows without a body, which this transaction has locked, are not due again by themselves.
pub(super) async fn set_aside(session: &Session<'_>, ids: &[ProcessId]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE @.process SET due_at = 'infinity', leased_until = NULL WHERE id = ANY($1::bytea[])";
    session.query(sql, &[(&bytes_of(ids.iter().copied()), Type::BYTEA_ARRAY)]).await.map(drop)
}

/// When to come again.
pub(super) struct Next {
    pub(super) now: SystemTime,
    pub(super) due: Vec<NextDue>,
    pub(super) clamping: bool,
}

const NEXT: &str = "
WITH clock AS MATERIALIZED (
    SELECT @.clock() AS now, EXISTS (SELECT 1 FROM @.clamp_run WHERE under_way) AS clamping
)
SELECT now, clamping, place,
       NULLIF((SELECT due_at FROM @.process AS process
               WHERE process.partition = quota.partition AND state <= 2 AND state = 1
                 AND format <= $2::smallint AND key = ANY($3::bigint[])
               ORDER BY due_at LIMIT 1), 'infinity') AS poll_due_at,
       NULLIF((SELECT due_at FROM @.process AS process
               WHERE process.partition = quota.partition AND state IN (0, 2)
                 AND format <= $2::smallint AND key = ANY($3::bigint[])
               ORDER BY due_at LIMIT 1), 'infinity') AS verification_due_at
FROM clock LEFT JOIN UNNEST($1::bigint[]) WITH ORDINALITY AS quota (partition, place) ON true
ORDER BY place";

pub(super) async fn next(
    session: &Session<'_>,
    claim: Option<&Claim>,
    claimed: &[Claimed],
) -> Result<Next, StoreError> {
    let partitions: Vec<_> = claim.iter().flat_map(|claim| &claim.quotas).map(|quota| quota.partition.0).collect();
    let rows = session
        .query(
            NEXT,
            &[
                (&partitions, Type::INT8_ARRAY),
                (&claim.map_or(0, |claim| i16::from(claim.format)), Type::INT2),
                (&claim.map_or_else(Vec::new, |claim| numbers_of(&claim.keys)), Type::INT8_ARRAY),
            ],
        )
        .await?;
    let row = rows.first().ok_or(Refusal::Row("next"))?;
    let (now, clamping) = (value(row, "now")?, value::<bool>(row, "clamping")?);
    let mut due = Vec::with_capacity(partitions.len());
    if let Some(claim) = claim {
        let within_limit = claimed.len() < claim.limit;
        for (row, quota) in rows.iter().zip(&claim.quotas) {
            let count = |polls: bool| {
                let of_quota = claimed.iter().filter(|one| one.partition == quota.partition);
                of_quota.filter(|one| (one.state == State::Waiting) == polls).count()
            };
            let next = |column, polls, most| {
                let next_in = until(row, column, now)?;
                // Only what is due now makes a difference.
                let is_due = next_in.is_some_and(|next_in| next_in.is_zero());
                let has_room = is_due && within_limit && count(polls) < most;
                Ok::<_, StoreError>(unless_others_claim(next_in, has_room))
            };
            due.push(NextDue {
                polls_in: next("poll_due_at", true, quota.polls)?,
                verifications_in: next("verification_due_at", false, quota.verifications)?,
            });
        }
    }
    // A run that began after the claim lets the claim count.
    Ok(Next { now, due, clamping: clamping && claim.is_some() && claimed.is_empty() })
}

/// If rows are due although the claim had room for more, others are claiming them: leave them to it for a moment.
pub(super) fn unless_others_claim(next_in: Option<Duration>, has_room: bool) -> Option<Duration> {
    next_in.map(|next_in| if has_room && next_in.is_zero() { OTHERS_CLAIM } else { next_in })
}
