//! Claiming, holding and acknowledging outcomes.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::problem::Refusal;
use super::row::{
    attempts_in, body_in, bytes_of, cancellation_in, id_in, numbers_of, partition_in, rounds, state_in, until,
};
use super::session::{Session, value};
use super::work::{bodies, unless_others_claim};
use crate::store::column::{limit, micros};
use crate::store::{
    Acknowledged, Acknowledgement, ClaimedOutcome, HeldOutcome, OutcomeClaim, Outcomes, State, StoreError,
};

/// An array names the rows to update, as when [work](super::work) is claimed.
const CLAIM: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
due AS MATERIALIZED (
    SELECT id, due_at FROM @.process
    WHERE state = 3 AND due_at <= (SELECT now FROM clock) AND format <= $1::smallint AND key = ANY($2::bigint[])
    ORDER BY due_at LIMIT $3::bigint FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE @.process AS process SET
        due_at = now + $4::bigint * interval '1 microsecond',
        epoch = epoch + 1,
        attempts = attempts + 1
    FROM clock WHERE process.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING process.id, partition, epoch, attempts, provisional, cancellation, format, key
)
SELECT claimed.* FROM claimed JOIN due USING (id) ORDER BY due.due_at";

const NEXT: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now)
SELECT now, (
    SELECT due_at FROM @.process WHERE state = 3 AND format <= $1::smallint AND key = ANY($2::bigint[])
    ORDER BY due_at LIMIT 1
) AS due_at
FROM clock";

/// The caller has begun a transaction.
pub(super) async fn claim_outcomes(session: &Session<'_>, claim: &OutcomeClaim) -> Result<Outcomes, StoreError> {
    let (format, keys) = (i16::from(claim.format), numbers_of(&claim.keys));
    let rows = session
        .query(
            CLAIM,
            &[
                (&format, Type::INT2),
                (&keys, Type::INT8_ARRAY),
                (&limit(claim.limit), Type::INT8),
                (&micros(claim.lease), Type::INT8),
            ],
        )
        .await?;
    let mut bodies = bodies(session, rows.iter().map(id_in).collect::<Result<_, _>>()?).await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = id_in(row)?;
        claimed.push(ClaimedOutcome {
            held: HeldOutcome { id, epoch: value(row, "epoch")? },
            partition: partition_in(row)?,
            attempts: attempts_in(row)?,
            provisional: value(row, "provisional")?,
            cancellation: cancellation_in(row)?,
            body: body_in(row, bodies.remove(&id).ok_or(Refusal::Row("body"))?)?,
        });
    }
    let rows = session.query(NEXT, &[(&format, Type::INT2), (&keys, Type::INT8_ARRAY)]).await?;
    let row = rows.first().ok_or(Refusal::Row("next"))?;
    let next_in = until(row, "due_at", value(row, "now")?)?;
    let has_room = claimed.len() < claim.limit;
    Ok(Outcomes { claimed, next_in: unless_others_claim(next_in, has_room) })
}

const HOLD: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
input AS MATERIALIZED (SELECT * FROM UNNEST($1::bytea[], $2::bigint[]) AS input (id, epoch)),
locked AS MATERIALIZED (SELECT id FROM @.process WHERE id = ANY($1::bytea[]) ORDER BY id FOR UPDATE)
UPDATE @.process AS process SET due_at = now + $3::bigint * interval '1 microsecond'
FROM clock, input JOIN locked USING (id)
WHERE process.id = input.id AND process.state = 3 AND process.epoch = input.epoch
RETURNING process.id, process.epoch";

pub(super) async fn hold(
    session: &Session<'_>,
    held: &[HeldOutcome],
    due_in: Duration,
) -> Result<Vec<bool>, StoreError> {
    let rows = session
        .query(
            HOLD,
            &[
                (&bytes_of(held.iter().map(|held| held.id)), Type::BYTEA_ARRAY),
                (&held.iter().map(|held| held.epoch).collect::<Vec<_>>(), Type::INT8_ARRAY),
                (&micros(due_in), Type::INT8),
            ],
        )
        .await?;
    let holds = rows.iter().map(|row| Ok(HeldOutcome { id: id_in(row)?, epoch: value(row, "epoch")? }));
    let holds = holds.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(held.iter().map(|held| holds.contains(held)).collect())
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

/// The caller has begun a transaction.
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
