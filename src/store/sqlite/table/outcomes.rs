//! Claiming, holding and acknowledging outcomes.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{SET_ASIDE, body_in, cancellation_in, id_in, partition_in, state_in, with_keys};
use crate::store::column::limit;
use crate::store::rules::{Held, Hold, fair_shares, round_robin};
use crate::store::sqlite::moment::{Moment, column};
use crate::store::{
    Acknowledged, Acknowledgement, ClaimedOutcome, HeldOutcome, OutcomeBatch, OutcomeClaim, ProcessId, SealedBody,
    State,
};

/// The condition for outcomes that a claim can open.
const READABLE: &str = "format <= :format AND key IN (:keys)";

fn statement(sql: &str, claim: &OutcomeClaim) -> String {
    with_keys(&sql.replace(":readable", READABLE), &claim.keys)
}

pub(in crate::store::sqlite) fn claim_outcomes(
    connection: &Connection,
    now: Moment,
    claim: &OutcomeClaim,
) -> rusqlite::Result<OutcomeBatch> {
    let mut by_partition = Vec::new();
    for (partition, most) in shares(connection, now, claim)? {
        by_partition.push(due(connection, now, claim, partition, most)?);
    }
    let (mut claimed, mut set_aside) = (Vec::new(), Vec::new());
    let mut hold = connection.prepare_cached(
        "UPDATE process SET due_at = :due_at, epoch = epoch + 1, attempts = :attempts WHERE slot = :slot",
    )?;
    for Due { slot, row, has_body } in round_robin(by_partition) {
        let due_at = if has_body { now.plus(claim.lease) } else { SET_ASIDE };
        hold.execute(named_params! { ":due_at": due_at, ":attempts": row.attempts, ":slot": slot })?;
        match has_body {
            true => claimed.push(row),
            false => set_aside.push(row.held.id),
        }
    }
    let mut next = connection.prepare_cached(&statement(
        "SELECT due_at FROM process WHERE state = 3 AND :readable ORDER BY due_at LIMIT 1",
        claim,
    ))?;
    let due_at: Option<i64> = next.query_row(named_params! { ":format": claim.format }, |row| row.get(0)).optional()?;
    let next_in = due_at.filter(|due_at| *due_at != SET_ASIDE).map(|due_at| now.until(due_at));
    Ok(OutcomeBatch { claimed, set_aside, next_in })
}

/// How many outcomes to take of each partition, in round-robin order.
fn shares(connection: &Connection, now: Moment, claim: &OutcomeClaim) -> rusqlite::Result<Vec<(i64, usize)>> {
    let values = named_params! {
        ":now": now.0,
        ":format": claim.format,
        ":limit": limit(claim.limit.saturating_add(1)),
    };
    let mut find = connection.prepare_cached(&statement(
        "SELECT partition, count(*) FROM (
             SELECT partition FROM process WHERE state = 3 AND due_at <= :now AND :readable
             ORDER BY due_at LIMIT :limit + 0
         ) GROUP BY partition ORDER BY partition",
        claim,
    ))?;
    let counts = find.query_map(values, |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)))?;
    let mut counts: Vec<(i64, usize)> = counts.collect::<Result<_, _>>()?;
    if counts.iter().map(|(_, count)| count).sum::<usize>() > claim.limit {
        counts = partitions(connection, now, claim)?;
    }
    let first = counts.partition_point(|(partition, _)| claim.after.is_some_and(|after| *partition <= after.0));
    counts.rotate_left(first);
    Ok(fair_shares(counts, claim.limit))
}

/// All partitions with due outcomes, and how many there are, up to the limit for each.
fn partitions(connection: &Connection, now: Moment, claim: &OutcomeClaim) -> rusqlite::Result<Vec<(i64, usize)>> {
    let values = named_params! {
        ":now": now.0,
        ":format": claim.format,
        ":limit": limit(claim.limit),
    };
    let mut find = connection.prepare_cached(&statement(
        "WITH RECURSIVE of (partition) AS (
             SELECT min(partition) FROM process WHERE state = 3
             UNION ALL
             SELECT (SELECT min(partition) FROM process WHERE state = 3 AND partition > of.partition)
             FROM of WHERE partition IS NOT NULL
         )
         SELECT partition, (
             SELECT count(*) FROM (
                 SELECT 1 FROM process
                 WHERE process.partition = of.partition AND state = 3 AND due_at <= :now AND :readable
                 LIMIT :limit + 0
             )
         ) AS count FROM of WHERE partition IS NOT NULL AND count > 0 ORDER BY partition",
        claim,
    ))?;
    let counts = find.query_map(values, |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)))?;
    counts.collect()
}

/// An outcome that a claim can take.
struct Due {
    slot: i64,
    row: ClaimedOutcome,
    has_body: bool,
}

fn due(
    connection: &Connection,
    now: Moment,
    claim: &OutcomeClaim,
    partition: i64,
    most: usize,
) -> rusqlite::Result<Vec<Due>> {
    let values = named_params! {
        ":partition": partition,
        ":now": now.0,
        ":format": claim.format,
        ":limit": limit(most),
    };
    let mut find = connection.prepare_cached(&statement(
        "SELECT slot, id, partition, epoch, attempts, provisional, cancellation, format, key, body
         FROM process LEFT JOIN sealed USING (slot)
         WHERE partition = :partition AND state = 3 AND due_at <= :now AND :readable
         ORDER BY due_at LIMIT :limit + 0",
        claim,
    ))?;
    find.query_map(values, due_in)?.collect()
}

/// Reads a row as it is after the claim.
fn due_in(row: &Row<'_>) -> rusqlite::Result<Due> {
    let body = body_in(row)?;
    let has_body = body.is_some();
    let claimed = ClaimedOutcome {
        held: HeldOutcome { id: id_in(row, "id")?, epoch: row.get::<_, i64>("epoch")? + 1 },
        partition: partition_in(row)?,
        attempts: row.get::<_, u32>("attempts")?.saturating_add(1),
        provisional: row.get("provisional")?,
        cancellation: cancellation_in(row)?,
        body: body.unwrap_or_else(|| SealedBody { format: 0, key: [0; 4], bytes: Vec::new() }),
    };
    Ok(Due { slot: row.get("slot")?, row: claimed, has_body })
}

pub(in crate::store::sqlite) fn hold(
    connection: &Connection,
    now: Moment,
    held: &[HeldOutcome],
    due_in: Duration,
    hold: Hold,
) -> rusqlite::Result<Vec<Held>> {
    let mut find =
        connection.prepare_cached("SELECT slot, due_at FROM process WHERE id = ? AND state = 3 AND epoch = ?")?;
    let mut change = connection.prepare_cached(match hold {
        Hold::Extended => "UPDATE process SET due_at = ? WHERE slot = ?",
        Hold::Released => "UPDATE process SET due_at = ?1, not_before = ?1 WHERE slot = ?2",
    })?;
    let due_at = now.plus(due_in);
    let hold_one = |held: &HeldOutcome| {
        let slot_and_time = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let found = find.query_row(params![held.id.to_bytes(), held.epoch], slot_and_time).optional()?;
        let Some((slot, before)) = found else { return Ok(Held::NoLonger) };
        change.execute([due_at, slot])?;
        Ok(if due_at < before { Held::Sooner } else { Held::Later })
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

pub(in crate::store::sqlite) fn expire_outcomes(
    connection: &Connection,
    now: Moment,
    decided_for: Duration,
    keep: Duration,
    most: usize,
) -> rusqlite::Result<Vec<ProcessId>> {
    let mut find = connection.prepare_cached(
        "SELECT slot, id FROM process WHERE state = 3 AND decided_at <= :latest ORDER BY due_at LIMIT :limit + 0",
    )?;
    let latest = column(now.since_1970().saturating_sub(decided_for));
    let values = named_params! { ":latest": latest, ":limit": limit(most) };
    let found =
        find.query_map(values, |row| Ok((row.get(0)?, id_in(row, "id")?)))?.collect::<rusqlite::Result<Vec<_>>>()?;
    found.into_iter().map(|(slot, id)| end(connection, slot, now.plus(keep)).map(|()| id)).collect()
}

/// Turns an outcome into a tombstone, which `purge` deletes after `purge_at`.
fn end(connection: &Connection, slot: i64, purge_at: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE process SET state = 4, provisional = 0, due_at = :purge_at WHERE slot = :slot")?
        .execute(named_params! { ":purge_at": purge_at, ":slot": slot })?;
    connection.prepare_cached("DELETE FROM sealed WHERE slot = ?")?.execute([slot])?;
    Ok(())
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
    end(connection, slot, now.plus(acknowledgement.keep))?;
    Ok(Acknowledged::Done)
}
