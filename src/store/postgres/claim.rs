//! Claiming work, and finding when more is due.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::due_bounds::Times;
use super::problem::Refusal;
use super::row::{
    DUE_AT, attempts_in, body_in, bytes_of, cancellation_in, id_in, numbers_of, partition_in, state_in, until,
};
use super::session::{Session, value};
use crate::store::column::{limit, micros};
use crate::store::{Claim, ClaimQuota, Claimed, ClockJump, NextDue, ProcessId, State, StoreError};

/// How long to wait for other replicas that are claiming the same rows.
const OTHERS_CLAIM: Duration = Duration::from_millis(20);

/// The rows that a claim has taken.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) claimed: Vec<Claimed>,
    pub(super) set_aside: Vec<ProcessId>,
}

pub(super) async fn claim(session: &Session<'_>, claim: &Claim, since: &Times) -> Result<Claims, StoreError> {
    let wanted = claim.quotas.iter().map(|quota| quota.polls.saturating_add(quota.verifications));
    let quotas = columns(claim, since);
    match wanted.fold(0, usize::saturating_add) {
        0 => Ok(Claims::default()),
        wanted if wanted <= claim.limit => claim_quotas(session, claim, &quotas).await,
        _ => {
            let shares = shares(session, claim, &quotas).await?;
            if shares.partitions.is_empty() {
                Ok(Claims::default())
            } else {
                claim_quotas(session, claim, &shares).await
            }
        }
    }
}

/// Where the scan starts. A bound that is later than the clock is ignored, because the clock was set back.
const BOUNDS: &str = "
           CASE WHEN polls_since <= (SELECT now FROM clock) THEN polls_since ELSE '-infinity' END AS polls_since,
           CASE WHEN verifications_since <= (SELECT now FROM clock) THEN verifications_since ELSE '-infinity' END
               AS verifications_since";

/// Inserts the parts that statements have in common.
fn complete(statement: &str) -> String {
    statement.replace(":bounds", BOUNDS).replace(":due_at", DUE_AT)
}

/// Reduces the quotas if their sum exceeds the limit. It locks nothing, so that the rows left to other replicas stay
/// free.
const SHARES: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
quota AS MATERIALIZED (
    SELECT partition, place, LEAST(polls, $6::bigint) AS polls, LEAST(verifications, $6::bigint) AS verifications,
           :bounds
    FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $7::timestamptz[], $8::timestamptz[]) WITH ORDINALITY
         AS quota (partition, polls, verifications, polls_since, verifications_since, place)
),
due AS (
    SELECT place, false AS is_poll, found.due_at FROM quota CROSS JOIN LATERAL (
        SELECT due_at FROM @.process AS process
        WHERE process.partition = quota.partition AND state IN (0, 2)
          AND due_at BETWEEN quota.verifications_since AND (SELECT now FROM clock)
          AND :due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.verifications
    ) AS found
    UNION ALL
    SELECT place, true AS is_poll, found.due_at FROM quota CROSS JOIN LATERAL (
        SELECT due_at FROM @.process AS process
        WHERE process.partition = quota.partition AND state = 1
          AND due_at BETWEEN quota.polls_since AND (SELECT now FROM clock)
          AND :due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.polls
    ) AS found
)
SELECT place, count(*) FILTER (WHERE is_poll) AS polls, count(*) FILTER (WHERE NOT is_poll) AS verifications
FROM (SELECT place, is_poll FROM due ORDER BY is_poll, due_at LIMIT $6::bigint) AS first GROUP BY place";

/// Reduces the quotas so that together they are within the limit: the earliest rows of all partitions come first.
async fn shares(session: &Session<'_>, claim: &Claim, quotas: &Columns) -> Result<Columns, StoreError> {
    let rows = session
        .query(
            &complete(SHARES),
            &[
                (&quotas.partitions, Type::INT8_ARRAY),
                (&quotas.polls, Type::INT8_ARRAY),
                (&quotas.verifications, Type::INT8_ARRAY),
                (&i16::from(claim.format), Type::INT2),
                (&numbers_of(&claim.keys), Type::INT8_ARRAY),
                (&limit(claim.limit), Type::INT8),
                (&quotas.polls_since, Type::TIMESTAMPTZ_ARRAY),
                (&quotas.verifications_since, Type::TIMESTAMPTZ_ARRAY),
            ],
        )
        .await?;
    let mut shares = Columns::default();
    for row in &rows {
        let place = usize::try_from(value::<i64>(row, "place")?).unwrap_or(0).saturating_sub(1);
        shares.partitions.push(*quotas.partitions.get(place).ok_or(Refusal::Row("place"))?);
        shares.polls.push(value(row, "polls")?);
        shares.verifications.push(value(row, "verifications")?);
        shares.polls_since.push(quotas.polls_since.get(place).copied().flatten());
        shares.verifications_since.push(quotas.verifications_since.get(place).copied().flatten());
    }
    Ok(shares)
}

/// Quotas as arrays.
#[derive(Default)]
struct Columns {
    partitions: Vec<i64>,
    polls: Vec<i64>,
    verifications: Vec<i64>,
    polls_since: Vec<Option<SystemTime>>,
    verifications_since: Vec<Option<SystemTime>>,
}

fn columns(claim: &Claim, since: &Times) -> Columns {
    Columns {
        partitions: claim.quotas.iter().map(|quota| quota.partition.0).collect(),
        polls: claim.quotas.iter().map(|quota| limit(quota.polls)).collect(),
        verifications: claim.quotas.iter().map(|quota| limit(quota.verifications)).collect(),
        polls_since: since.polls.clone(),
        verifications_since: since.verifications.clone(),
    }
}

/// The claim changes no indexed column, so it adds no entry to any index. Until the row is settled, its entry in the
/// index by due time stays where it is, and the lease hides the row.
///
/// The rows to update are passed as an array. The planner cannot estimate the size of `due`, so a join with it would
/// scan the whole table.
const CLAIM: &str = "
WITH clock AS MATERIALIZED (
    SELECT @.clock() AS now, NOT EXISTS (SELECT 1 FROM @.clamp_run WHERE under_way) AS claims
),
quota AS MATERIALIZED (
    SELECT partition, polls, verifications,
           :bounds
    FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $7::timestamptz[], $8::timestamptz[])
         AS quota (partition, polls, verifications, polls_since, verifications_since)
    WHERE (SELECT claims FROM clock)
),
verification AS MATERIALIZED (
    SELECT found.* FROM quota CROSS JOIN LATERAL (
        SELECT id, due_at, lease_ends_at IS NOT NULL AS orphaned, pinged_at IS NOT NULL AS pinged
        FROM @.process AS process
        WHERE process.partition = quota.partition AND state IN (0, 2)
          AND due_at BETWEEN quota.verifications_since AND (SELECT now FROM clock)
          AND :due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.verifications FOR UPDATE SKIP LOCKED
    ) AS found
),
poll AS MATERIALIZED (
    SELECT found.* FROM quota CROSS JOIN LATERAL (
        SELECT id, due_at, lease_ends_at IS NOT NULL AS orphaned, pinged_at IS NOT NULL AS pinged
        FROM @.process AS process
        WHERE process.partition = quota.partition AND state = 1
          AND due_at BETWEEN quota.polls_since AND (SELECT now FROM clock)
          AND :due_at <= (SELECT now FROM clock)
          AND format <= $4::smallint AND key = ANY($5::bigint[])
        ORDER BY due_at LIMIT quota.polls FOR UPDATE SKIP LOCKED
    ) AS found
),
due AS MATERIALIZED (
    SELECT *, false AS is_poll FROM verification UNION ALL SELECT *, true AS is_poll FROM poll
),
claimed AS (
    UPDATE @.process AS process SET
        lease_ends_at = now + $6::bigint * interval '1 microsecond',
        epoch = epoch + 1,
        attempts = attempts + 1,
        not_before = CASE WHEN pinged_at IS NULL THEN not_before END,
        pinged_at = NULL
    FROM clock WHERE process.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING process.id, partition, state, epoch, attempts, cancellation, schedule, format, key
)
SELECT claimed.*, due.orphaned, due.pinged FROM claimed JOIN due USING (id) ORDER BY is_poll, partition, due.due_at";

async fn claim_quotas(session: &Session<'_>, claim: &Claim, quotas: &Columns) -> Result<Claims, StoreError> {
    let rows = session
        .query(
            &complete(CLAIM),
            &[
                (&quotas.partitions, Type::INT8_ARRAY),
                (&quotas.polls, Type::INT8_ARRAY),
                (&quotas.verifications, Type::INT8_ARRAY),
                (&i16::from(claim.format), Type::INT2),
                (&numbers_of(&claim.keys), Type::INT8_ARRAY),
                (&micros(claim.lease), Type::INT8),
                (&quotas.polls_since, Type::TIMESTAMPTZ_ARRAY),
                (&quotas.verifications_since, Type::TIMESTAMPTZ_ARRAY),
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

/// Sets rows without a body aside, so that they do not become due again. This transaction has locked them.
pub(super) async fn set_aside(session: &Session<'_>, ids: &[ProcessId]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE @.process SET due_at = 'infinity', lease_ends_at = NULL WHERE id = ANY($1::bytea[])";
    session.query(sql, &[(&bytes_of(ids.iter().copied()), Type::BYTEA_ARRAY)]).await.map(drop)
}

/// When to claim again.
pub(super) struct Next {
    pub(super) now: SystemTime,
    pub(super) due: Vec<NextDue>,
    /// The earliest due times, including those of rows that other replicas have claimed.
    pub(super) earliest: Times,
    pub(super) correcting: bool,
    pub(super) corrected: ClockJump,
}

/// When the next row of one kind is due: the first row without a lease, or a leased row whose lease and interval end
/// earlier. Leased rows are before `now` in the index, and there are only as many as are being processed.
const NEXT_OF_KIND: &str = "(
    SELECT first_at,
           CASE WHEN free_at <= now THEN free_at ELSE LEAST(free_at, (
               SELECT min(:due_at) FROM @.process AS process
               WHERE process.partition = quota.partition AND :kind AND due_at BETWEEN :since AND now
                 AND lease_ends_at IS NOT NULL AND format <= $2::smallint AND key = ANY($3::bigint[])
           )) END AS due_at
    FROM (SELECT
        (SELECT due_at FROM @.process AS process
         WHERE process.partition = quota.partition AND :kind AND due_at >= :since
           AND format <= $2::smallint AND key = ANY($3::bigint[])
         ORDER BY due_at LIMIT 1) AS first_at,
        (SELECT due_at FROM @.process AS process
         WHERE process.partition = quota.partition AND :kind AND due_at >= :since
           AND (lease_ends_at IS NULL OR due_at > now) AND format <= $2::smallint AND key = ANY($3::bigint[])
         ORDER BY due_at LIMIT 1) AS free_at
    ) AS earliest
)";

const NEXT: &str = "
WITH clock AS MATERIALIZED (
    SELECT @.clock() AS now, under_way AS correcting, corrected FROM @.clamp_run
)
SELECT now, correcting, corrected, place,
       NULLIF(poll.first_at, 'infinity') AS poll_first_at, NULLIF(poll.due_at, 'infinity') AS poll_due_at,
       NULLIF(verification.first_at, 'infinity') AS verification_first_at,
       NULLIF(verification.due_at, 'infinity') AS verification_due_at
FROM clock
LEFT JOIN UNNEST($1::bigint[], $4::timestamptz[], $5::timestamptz[]) WITH ORDINALITY
          AS quota (partition, polls_since, verifications_since, place) ON true
LEFT JOIN LATERAL :polls AS poll ON true
LEFT JOIN LATERAL :verifications AS verification ON true
ORDER BY place";

fn next_statement() -> String {
    let of_kind = |kind, since: &str| {
        let since = format!("(CASE WHEN {since} <= now THEN {since} ELSE '-infinity' END)");
        NEXT_OF_KIND.replace(":kind", kind).replace(":since", &since).replace(":due_at", DUE_AT)
    };
    let polls = of_kind("state = 1", "quota.polls_since");
    let verifications = of_kind("state IN (0, 2)", "quota.verifications_since");
    NEXT.replace(":polls", &polls).replace(":verifications", &verifications)
}

pub(super) async fn next(
    session: &Session<'_>,
    claim: Option<(&Claim, &Times)>,
    claimed: &[Claimed],
) -> Result<Next, StoreError> {
    let quotas = claim.map_or_else(Columns::default, |(claim, since)| columns(claim, since));
    let rows = session
        .query(
            &next_statement(),
            &[
                (&quotas.partitions, Type::INT8_ARRAY),
                (&claim.map_or(0, |(claim, _)| i16::from(claim.format)), Type::INT2),
                (&claim.map_or_else(Vec::new, |(claim, _)| numbers_of(&claim.keys)), Type::INT8_ARRAY),
                (&quotas.polls_since, Type::TIMESTAMPTZ_ARRAY),
                (&quotas.verifications_since, Type::TIMESTAMPTZ_ARRAY),
            ],
        )
        .await?;
    let row = rows.first().ok_or(Refusal::Row("next"))?;
    // A run that began after the claim does not affect the claim.
    let correcting = value::<bool>(row, "correcting")? && claim.is_some() && claimed.is_empty();
    let (now, corrected) = (value(row, "now")?, ClockJump(value(row, "corrected")?));
    let mut next = Next { now, due: Vec::new(), earliest: Times::default(), correcting, corrected };
    if let Some((claim, _)) = claim {
        for (row, quota) in rows.iter().zip(&claim.quotas) {
            next.due.push(due_in(row, next.now, claim, quota, claimed)?);
            next.earliest.polls.push(value(row, "poll_first_at")?);
            next.earliest.verifications.push(value(row, "verification_first_at")?);
        }
    }
    Ok(next)
}

fn due_in(
    row: &Row,
    now: SystemTime,
    claim: &Claim,
    quota: &ClaimQuota,
    claimed: &[Claimed],
) -> Result<NextDue, StoreError> {
    let count = |polls: bool| {
        let of_quota = claimed.iter().filter(|one| one.partition == quota.partition);
        of_quota.filter(|one| (one.state == State::Waiting) == polls).count()
    };
    let next = |column, polls, most| {
        let next_in = until(row, column, now)?;
        // The remaining quota matters only if something is due now.
        let is_due = next_in.is_some_and(|next_in| next_in.is_zero());
        let has_room = is_due && claimed.len() < claim.limit && count(polls) < most;
        Ok::<_, StoreError>(if has_room { next_in.map(unless_others_claim) } else { next_in })
    };
    Ok(NextDue {
        polls_in: next("poll_due_at", true, quota.polls)?,
        verifications_in: next("verification_due_at", false, quota.verifications)?,
    })
}

/// If rows are due although the claim could have taken more, other replicas are claiming them: wait for a moment.
pub(super) fn unless_others_claim(next_in: Duration) -> Duration {
    if next_in.is_zero() { OTHERS_CLAIM } else { next_in }
}
