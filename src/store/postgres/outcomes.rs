//! Claiming, holding and acknowledging outcomes.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::claim::{bodies, set_aside, unless_others_claim};
use super::due_bounds::{DueBounds, Found};
use super::problem::Refusal;
use super::row::{
    attempts_in, body_in, bytes_of, cancellation_in, id_in, numbers_of, partition_in, rounds, state_in, until,
};
use super::session::{Session, value};
use crate::store::column::{limit, micros};
use crate::store::rules::{Held, Hold, fair_shares, round_robin};
use crate::store::{
    Acknowledged, Acknowledgement, ClaimedOutcome, HeldOutcome, OutcomeBatch, OutcomeClaim, ProcessId, State,
    StoreError,
};

/// The number of due outcomes of each partition, if there are not more than a claim takes.
const COUNT: &str = "
WITH clock AS MATERIALIZED (
    SELECT now, CASE WHEN $4::timestamptz <= now THEN $4::timestamptz ELSE '-infinity' END AS since
    FROM (SELECT @.clock() AS now OFFSET 0) AS reading
)
SELECT partition, count(*) AS count FROM (
    SELECT partition FROM @.process
    WHERE state = 3 AND due_at BETWEEN (SELECT since FROM clock) AND (SELECT now FROM clock)
      AND format <= $1::smallint AND key = ANY($2::bigint[])
    ORDER BY due_at LIMIT $3::bigint
) AS due GROUP BY partition ORDER BY partition";

/// The same if there are more: it steps from one partition to the next, and counts up to the limit in each.
const COUNT_ALL: &str = "
WITH RECURSIVE clock AS MATERIALIZED (
    SELECT now, CASE WHEN $4::timestamptz <= now THEN $4::timestamptz ELSE '-infinity' END AS since
    FROM (SELECT @.clock() AS now OFFSET 0) AS reading
),
listed AS (
    (SELECT partition FROM @.process WHERE state = 3 ORDER BY partition LIMIT 1)
    UNION ALL
    SELECT (SELECT partition FROM @.process AS process WHERE state = 3 AND process.partition > listed.partition
            ORDER BY partition LIMIT 1)
    FROM listed WHERE listed.partition IS NOT NULL
)
SELECT listed.partition, due.count FROM listed CROSS JOIN LATERAL (
    SELECT count(*) AS count FROM (
        SELECT 1 FROM @.process AS process
        WHERE process.partition = listed.partition AND state = 3
          AND due_at BETWEEN (SELECT since FROM clock) AND (SELECT now FROM clock)
          AND format <= $1::smallint AND key = ANY($2::bigint[])
        LIMIT $3::bigint
    ) AS present
) AS due
WHERE listed.partition IS NOT NULL AND due.count > 0 ORDER BY listed.partition";

/// The rows to update are passed as an array, as in claims of [work](super::claim).
const CLAIM: &str = "
WITH clock AS MATERIALIZED (
    SELECT now, CASE WHEN $6::timestamptz <= now THEN $6::timestamptz ELSE '-infinity' END AS since
    FROM (SELECT @.clock() AS now OFFSET 0) AS reading
),
due AS MATERIALIZED (
    SELECT found.id, found.due_at
    FROM UNNEST($3::bigint[], $4::bigint[]) AS share (partition, most)
    CROSS JOIN LATERAL (
        SELECT id, due_at FROM @.process AS process
        WHERE process.partition = share.partition AND state = 3
          AND due_at BETWEEN (SELECT since FROM clock) AND (SELECT now FROM clock)
          AND format <= $1::smallint AND key = ANY($2::bigint[])
        ORDER BY due_at LIMIT share.most FOR UPDATE SKIP LOCKED
    ) AS found
),
claimed AS (
    UPDATE @.process AS process SET
        due_at = now + $5::bigint * interval '1 microsecond',
        epoch = epoch + 1,
        attempts = attempts + 1
    FROM clock WHERE process.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING process.id, partition, epoch, attempts, provisional, cancellation, format, key
)
SELECT claimed.* FROM claimed JOIN due USING (id) ORDER BY due.due_at";

const NEXT: &str = "
WITH clock AS MATERIALIZED (
    SELECT now, CASE WHEN $3::timestamptz <= now THEN $3::timestamptz ELSE '-infinity' END AS since
    FROM (SELECT @.clock() AS now OFFSET 0) AS reading
)
SELECT now, NULLIF((
    SELECT due_at FROM @.process
    WHERE state = 3 AND due_at >= (SELECT since FROM clock)
      AND format <= $1::smallint AND key = ANY($2::bigint[])
    ORDER BY due_at LIMIT 1
), 'infinity') AS due_at
FROM clock";

/// Must be called in a transaction. Use the bounds that the claim has found only after the commit.
pub(super) async fn claim_outcomes(
    session: &Session<'_>,
    due_bounds: &DueBounds,
    claim: &OutcomeClaim,
) -> Result<(OutcomeBatch, Found<Option<SystemTime>>), StoreError> {
    let (format, keys) = (i16::from(claim.format), numbers_of(&claim.keys));
    let look = due_bounds.scan_for_outcomes(claim);
    let since = look.since;
    let shares = shares(session, claim, since).await?;
    let (claimed, set_aside) = claim_shares(session, claim, &shares, since).await?;
    let parameters = [(&format as _, Type::INT2), (&keys as _, Type::INT8_ARRAY), (&since as _, Type::TIMESTAMPTZ)];
    let rows = session.query(NEXT, &parameters).await?;
    let row = rows.first().ok_or(Refusal::Row("next"))?;
    let now = value(row, "now")?;
    let found = look.found(value(row, "due_at")?, now);
    let next_in = until(row, "due_at", now)?;
    let has_room = claimed.len() < claim.limit;
    let next_in = if has_room { next_in.map(unless_others_claim) } else { next_in };
    Ok((OutcomeBatch { claimed, set_aside, next_in }, found))
}

/// How many outcomes to take of each partition, in round-robin order.
async fn shares(
    session: &Session<'_>,
    claim: &OutcomeClaim,
    since: Option<SystemTime>,
) -> Result<Vec<(i64, usize)>, StoreError> {
    let (format, keys) = (i16::from(claim.format), numbers_of(&claim.keys));
    let count = async |sql, most: usize| {
        let parameters = [
            (&format as _, Type::INT2),
            (&keys as _, Type::INT8_ARRAY),
            (&limit(most) as _, Type::INT8),
            (&since as _, Type::TIMESTAMPTZ),
        ];
        let rows = session.query(sql, &parameters).await?;
        let count_in = |row: &Row| {
            let count = usize::try_from(value::<i64>(row, "count")?).unwrap_or(0);
            Ok((value(row, "partition")?, count))
        };
        rows.iter().map(count_in).collect::<Result<Vec<(i64, usize)>, StoreError>>()
    };
    let mut counts = count(COUNT, claim.limit.saturating_add(1)).await?;
    if counts.iter().map(|(_, count)| count).sum::<usize>() > claim.limit {
        counts = count(COUNT_ALL, claim.limit).await?;
    }
    let first = counts.partition_point(|(partition, _)| claim.after.is_some_and(|after| *partition <= after.0));
    counts.rotate_left(first);
    Ok(fair_shares(counts, claim.limit))
}

async fn claim_shares(
    session: &Session<'_>,
    claim: &OutcomeClaim,
    shares: &[(i64, usize)],
    since: Option<SystemTime>,
) -> Result<(Vec<ClaimedOutcome>, Vec<ProcessId>), StoreError> {
    if shares.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let (partitions, most): (Vec<_>, Vec<_>) =
        shares.iter().map(|(partition, most)| (*partition, limit(*most))).unzip();
    let rows = session
        .query(
            CLAIM,
            &[
                (&i16::from(claim.format), Type::INT2),
                (&numbers_of(&claim.keys), Type::INT8_ARRAY),
                (&partitions, Type::INT8_ARRAY),
                (&most, Type::INT8_ARRAY),
                (&micros(claim.lease), Type::INT8),
                (&since, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let mut bodies = bodies(session, rows.iter().map(id_in).collect::<Result<_, _>>()?).await?;
    let mut by_partition: Vec<Vec<ClaimedOutcome>> = partitions.iter().map(|_| Vec::new()).collect();
    let mut without_body = Vec::new();
    for row in &rows {
        let (id, partition) = (id_in(row)?, partition_in(row)?);
        let Some(body) = bodies.remove(&id) else {
            without_body.push(id);
            continue;
        };
        let claimed = ClaimedOutcome {
            held: HeldOutcome { id, epoch: value(row, "epoch")? },
            partition,
            attempts: attempts_in(row)?,
            provisional: value(row, "provisional")?,
            cancellation: cancellation_in(row)?,
            body: body_in(row, body)?,
        };
        let place = partitions.iter().position(|listed| *listed == partition.0);
        if let Some(of_partition) = place.and_then(|place| by_partition.get_mut(place)) {
            of_partition.push(claimed);
        }
    }
    set_aside(session, &without_body).await?;
    Ok((round_robin(by_partition), without_body))
}

const HOLD: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
input AS MATERIALIZED (SELECT * FROM UNNEST($1::bytea[], $2::bigint[]) AS input (id, epoch)),
locked AS MATERIALIZED (SELECT id, due_at FROM @.process WHERE id = ANY($1::bytea[]) ORDER BY id FOR UPDATE)
UPDATE @.process AS process SET due_at = now + $3::bigint * interval '1 microsecond':released
FROM clock, input JOIN locked USING (id)
WHERE process.id = input.id AND process.state = 3 AND process.epoch = input.epoch
RETURNING process.id, process.epoch, process.due_at < locked.due_at AS sooner";

pub(super) async fn hold(
    session: &Session<'_>,
    held: &[HeldOutcome],
    due_in: Duration,
    hold: Hold,
) -> Result<Vec<Held>, StoreError> {
    let released = match hold {
        Hold::Extended => "",
        Hold::Released => ", not_before = now + $3::bigint * interval '1 microsecond'",
    };
    let rows = session
        .query(
            &HOLD.replace(":released", released),
            &[
                (&bytes_of(held.iter().map(|held| held.id)), Type::BYTEA_ARRAY),
                (&held.iter().map(|held| held.epoch).collect::<Vec<_>>(), Type::INT8_ARRAY),
                (&micros(due_in), Type::INT8),
            ],
        )
        .await?;
    let hold_in = |row: &Row| {
        let hold = if value(row, "sooner")? { Held::Sooner } else { Held::Later };
        Ok(((id_in(row)?, value(row, "epoch")?), hold))
    };
    let holds = rows.iter().map(hold_in).collect::<Result<BTreeMap<(ProcessId, i64), Held>, StoreError>>()?;
    let hold_of = |held: &HeldOutcome| holds.get(&(held.id, held.epoch)).copied().unwrap_or(Held::NoLonger);
    Ok(held.iter().map(hold_of).collect())
}

const ACKNOWLEDGE: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
input AS MATERIALIZED (
    SELECT * FROM UNNEST($1::bytea[], $2::boolean[], $3::bigint[]) AS input (id, provisional, keep)
),
locked AS MATERIALIZED (
    SELECT id, state, provisional FROM @.process WHERE id = ANY($1::bytea[]) ORDER BY id FOR UPDATE
),
ended AS (
    UPDATE @.process AS process SET state = 4, provisional = false, due_at = now + keep * interval '1 microsecond'
    FROM clock, input JOIN locked USING (id)
    WHERE process.id = input.id AND process.state = 3 AND process.provisional = input.provisional
    RETURNING process.id
),
erased AS (DELETE FROM @.sealed AS sealed USING ended WHERE sealed.id = ended.id)
SELECT id, state, provisional FROM locked";

const EXPIRE: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
old AS MATERIALIZED (
    SELECT id FROM @.process
    WHERE state = 3 AND decided_at <= (SELECT now FROM clock) - $1::bigint * interval '1 microsecond'
    ORDER BY due_at LIMIT $3::bigint FOR UPDATE SKIP LOCKED
),
ended AS (
    UPDATE @.process AS process
    SET state = 4, provisional = false, due_at = now + $2::bigint * interval '1 microsecond'
    FROM clock, old WHERE process.id = old.id
    RETURNING process.id
),
erased AS (DELETE FROM @.sealed AS sealed USING ended WHERE sealed.id = ended.id)
SELECT id FROM ended";

/// Erases the bodies of old unacknowledged outcomes.
pub(super) async fn expire(
    session: &Session<'_>,
    decided_for: Duration,
    keep: Duration,
    most: usize,
) -> Result<Vec<ProcessId>, StoreError> {
    let parameters =
        [(&micros(decided_for) as _, Type::INT8), (&micros(keep) as _, Type::INT8), (&limit(most) as _, Type::INT8)];
    session.query(EXPIRE, &parameters).await?.iter().map(id_in).collect()
}

/// Must be called in a transaction.
pub(super) async fn acknowledge(
    session: &Session<'_>,
    acknowledgements: &[Acknowledgement],
) -> Result<Vec<Acknowledged>, StoreError> {
    let mut acknowledged = vec![Acknowledged::Already; acknowledgements.len()];
    for round in rounds(acknowledgements, |acknowledgement| acknowledgement.id) {
        let all = || round.iter().map(|(_, acknowledgement)| *acknowledgement);
        let rows = session
            .query(
                ACKNOWLEDGE,
                &[
                    (&bytes_of(all().map(|one| one.id)), Type::BYTEA_ARRAY),
                    (&all().map(|one| one.provisional).collect::<Vec<_>>(), Type::BOOL_ARRAY),
                    (&all().map(|one| micros(one.keep)).collect::<Vec<_>>(), Type::INT8_ARRAY),
                ],
            )
            .await?;
        for row in &rows {
            let (id, state, provisional) = (id_in(row)?, state_in(row)?, value::<bool>(row, "provisional")?);
            let Some((place, wanted)) = round.iter().find(|(_, wanted)| wanted.id == id) else { continue };
            let answer = match state {
                State::Acknowledged => Acknowledged::Already,
                State::Decided if provisional == wanted.provisional => Acknowledged::Done,
                _ => Acknowledged::Replaced,
            };
            if let Some(acknowledged) = acknowledged.get_mut(*place) {
                *acknowledged = answer;
            }
        }
    }
    Ok(acknowledged)
}
