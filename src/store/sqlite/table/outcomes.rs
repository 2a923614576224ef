//! Claiming, holding and acknowledging outcomes.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::{body_of_claimed, cancellation_in, id_in, partition_in, state_in, with_keys};
use crate::store::column::limit;
use crate::store::sqlite::moment::Moment;
use crate::store::{Acknowledged, Acknowledgement, ClaimedOutcome, HeldOutcome, OutcomeClaim, Outcomes, State};

pub(in crate::store::sqlite) fn claim_outcomes(
    connection: &Connection,
    now: Moment,
    claim: &OutcomeClaim,
) -> rusqlite::Result<Outcomes> {
    let mut due = connection.prepare_cached(&with_keys(
        "SELECT slot, id, partition, epoch, attempts, provisional, cancellation, format, key, body
         FROM process JOIN sealed USING (slot)
         WHERE state = 3 AND due_at <= :now AND format <= :format AND key IN (:keys)
         ORDER BY due_at LIMIT :limit + 0",
        &claim.keys,
    ))?;
    let values = named_params! {
        ":now": now.0,
        ":format": claim.format,
        ":limit": limit(claim.limit),
    };
    let rows = due.query_map(values, |row| Ok((row.get::<_, i64>("slot")?, claimed_in(row)?)))?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    let mut hold = connection.prepare_cached(
        "UPDATE process SET due_at = :due_at, epoch = epoch + 1, attempts = :attempts WHERE slot = :slot",
    )?;
    let due_at = now.plus(claim.lease);
    let mut claimed = Vec::with_capacity(rows.len());
    for (slot, row) in rows {
        hold.execute(named_params! { ":due_at": due_at, ":attempts": row.attempts, ":slot": slot })?;
        claimed.push(row);
    }
    let mut next = connection.prepare_cached(&with_keys(
        "SELECT due_at FROM process
         WHERE state = 3 AND format <= :format AND key IN (:keys)
         ORDER BY due_at LIMIT 1",
        &claim.keys,
    ))?;
    let values = named_params! { ":format": claim.format };
    let due_at = next.query_row(values, |row| row.get(0)).optional()?;
    Ok(Outcomes { claimed, next_in: due_at.map(|due_at| now.until(due_at)) })
}

/// A row as it is once it has been claimed.
fn claimed_in(row: &Row<'_>) -> rusqlite::Result<ClaimedOutcome> {
    Ok(ClaimedOutcome {
        held: HeldOutcome { id: id_in(row, "id")?, epoch: row.get::<_, i64>("epoch")? + 1 },
        partition: partition_in(row)?,
        attempts: row.get::<_, u32>("attempts")?.saturating_add(1),
        provisional: row.get("provisional")?,
        cancellation: cancellation_in(row)?,
        body: body_of_claimed(row)?,
    })
}

pub(in crate::store::sqlite) fn hold(
    connection: &Connection,
    now: Moment,
    held: &[HeldOutcome],
    due_in: Duration,
) -> rusqlite::Result<Vec<bool>> {
    let mut hold = connection
        .prepare_cached("UPDATE process SET due_at = :due_at WHERE id = :id AND state = 3 AND epoch = :epoch")?;
    let due_at = now.plus(due_in);
    let hold_one = |held: &HeldOutcome| {
        let values = named_params! { ":due_at": due_at, ":id": held.id.to_bytes(), ":epoch": held.epoch };
        Ok(hold.execute(values)? > 0)
    };
    held.iter().map(hold_one).collect()
}

pub(in crate::store::sqlite) fn acknowledge(
    connection: &Connection,
    now: Moment,
    acknowledgements: &[Acknowledgement],
) -> rusqlite::Result<Vec<Acknowledged>> {
    acknowledgements.iter().map(|acknowledgement| acknowledge_one(connection, now, acknowledgement)).collect()
}

fn acknowledge_one(
    connection: &Connection,
    now: Moment,
    acknowledgement: &Acknowledgement,
) -> rusqlite::Result<Acknowledged> {
    let mut find = connection.prepare_cached("SELECT slot, state, provisional FROM process WHERE id = ?")?;
    let found = find
        .query_row([acknowledgement.id.to_bytes()], |row| {
            Ok((row.get::<_, i64>("slot")?, state_in(row)?, row.get::<_, bool>("provisional")?))
        })
        .optional()?;
    let slot = match found {
        None | Some((_, State::Acknowledged, _)) => return Ok(Acknowledged::Already),
        Some((slot, State::Decided, provisional)) if provisional == acknowledgement.provisional => slot,
        Some(_) => return Ok(Acknowledged::Replaced),
    };
    let mut end = connection
        .prepare_cached("UPDATE process SET state = 4, provisional = 0, due_at = :purge_at WHERE slot = :slot")?;
    end.execute(named_params! { ":purge_at": now.plus(acknowledgement.keep), ":slot": slot })?;
    connection.prepare_cached("DELETE FROM sealed WHERE slot = ?")?.execute([slot])?;
    Ok(Acknowledged::Done)
}
