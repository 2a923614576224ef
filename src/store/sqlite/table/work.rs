//! Insertions, pings, and settling and claiming work.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{body_of_claimed, cancellation_in, id_in, lookup_in, numbers, partition_in, state_in};
use crate::store::column::{key_number, limit, micros};
use crate::store::sqlite::moment::Moment;
use crate::store::{
    Claim, Claimed, Fingerprint, Insertion, Lane, NewProcess, Next, Ping, Pinged, ProcessId, Settled, Settlement,
    State, Work,
};

pub(in crate::store::sqlite) fn insert(
    connection: &Connection,
    now: Moment,
    process: &NewProcess,
) -> rusqlite::Result<Insertion> {
    match existing(connection, process)? {
        Some(existing) if existing != process.id => return Ok(Insertion::Exists(existing)),
        Some(_) => return Ok(Insertion::Inserted { now: now.wall() }),
        None => {}
    }
    let due_at = now.plus(process.due_in);
    let mut add = connection.prepare_cached(
        "INSERT INTO process (id, partition, state, session, lookup, due_at, leased_until, not_before, interval,
                              schedule, format, key, first_key)
         VALUES (:id, :partition, :state, :session, :lookup, :due_at, :leased_until, :not_before, :interval,
                 :schedule, :format, :key, :key)",
    )?;
    let slot = add.insert(named_params! {
        ":id": process.id.to_bytes(),
        ":partition": process.partition.0,
        ":state": process.state as u8,
        ":session": process.sessions.first().map(|session| session.0),
        ":lookup": process.lookups.first().map(|lookup| lookup.0),
        ":due_at": due_at,
        ":leased_until": (process.state == State::Exchanging).then_some(due_at),
        ":not_before": process.ping_in.map(|wait| now.plus(wait)),
        ":interval": micros(process.interval),
        ":schedule": process.schedule,
        ":format": process.body.format,
        ":key": key_number(process.body.key),
    })?;
    let mut add_body = connection.prepare_cached("INSERT INTO sealed (slot, body) VALUES (?, ?)")?;
    add_body.execute(params![slot, process.body.bytes])?;
    Ok(Insertion::Inserted { now: now.wall() })
}

fn existing(connection: &Connection, process: &NewProcess) -> rusqlite::Result<Option<ProcessId>> {
    let mut with_session = connection.prepare_cached("SELECT id FROM process WHERE session = ?")?;
    for session in &process.sessions {
        if let Some(id) = with_session.query_row([session.0], |row| id_in(row, "id")).optional()? {
            return Ok(Some(id));
        }
    }
    if let Some(id) = with_lookup(connection, &process.lookups)? {
        return Ok(Some(id));
    }
    let mut with_id = connection.prepare_cached("SELECT id FROM process WHERE id = ?")?;
    with_id.query_row([process.id.to_bytes()], |row| id_in(row, "id")).optional()
}

fn with_lookup(connection: &Connection, lookups: &[Fingerprint]) -> rusqlite::Result<Option<ProcessId>> {
    let mut with_lookup = connection.prepare_cached("SELECT id FROM process WHERE lookup = ? ORDER BY id LIMIT 1")?;
    for lookup in lookups {
        if let Some(id) = with_lookup.query_row([lookup.0], |row| id_in(row, "id")).optional()? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

pub(in crate::store::sqlite) fn work(
    connection: &Connection,
    now: Moment,
    settlements: &[Settlement],
    claim: Option<&Claim>,
) -> rusqlite::Result<Work> {
    let mut work =
        Work { now: now.wall(), settled: Vec::with_capacity(settlements.len()), claimed: vec![], next_in: None };
    for settlement in settlements {
        work.settled.push(settle(connection, now, settlement)?);
    }
    if let Some(claim) = claim {
        let keys = numbers(&claim.keys);
        for lane in &claim.lanes {
            claim_lane(connection, now, claim, *lane, &keys, &mut work.claimed)?;
        }
        // After all claims, for they move the rows that come next.
        for lane in &claim.lanes {
            let next = next_in_lane(connection, now, claim.format, *lane, &keys)?;
            work.next_in = [work.next_in, next].into_iter().flatten().min();
        }
    }
    Ok(work)
}

fn settle(connection: &Connection, now: Moment, settlement: &Settlement) -> rusqlite::Result<Settled> {
    let (state, provisional) = match settlement.next {
        Next::Waiting => (State::Waiting, false),
        Next::Answered => (State::Answered, false),
        Next::Decided { provisional } => (State::Decided, provisional),
        Next::Ended => (State::Acknowledged, false),
    };
    let mut update = connection.prepare_cached(
        "UPDATE process SET
             state = :state,
             provisional = :provisional,
             leased_until = NULL,
             schedule = :schedule,
             interval = :interval,
             attempts = CASE WHEN state = :state THEN attempts ELSE 0 END,
             epoch = epoch + (:epoch IS NULL),
             not_before = :not_before,
             due_at = CASE WHEN :state = 1 AND pinged_at IS NOT NULL AND :not_before IS NOT NULL
                           THEN min(:due_at, :not_before) ELSE :due_at END,
             lookup = coalesce(:lookup, lookup),
             format = coalesce(:format, format),
             key = coalesce(:key, key),
             revision = revision + (:format IS NOT NULL),
             cancellation = CASE WHEN :told AND cancellation = 1 THEN 2 ELSE cancellation END
         WHERE id = :id
           AND (:lookup IS NULL OR lookup IS NULL)
           AND CASE WHEN :epoch IS NULL THEN state <= 1 OR (state = 3 AND provisional)
                    ELSE state <= 2 AND epoch = :epoch END
         RETURNING slot",
    )?;
    let values = named_params! {
        ":id": settlement.id.to_bytes(),
        ":state": state as u8,
        ":provisional": provisional,
        ":schedule": settlement.schedule,
        ":interval": micros(settlement.interval),
        ":epoch": settlement.epoch,
        ":not_before": settlement.ping_in.map(|wait| now.plus(wait)),
        ":due_at": now.plus(settlement.due_in),
        ":lookup": settlement.lookup.map(|lookup| lookup.0),
        ":format": settlement.body.as_ref().map(|body| body.format),
        ":key": settlement.body.as_ref().map(|body| key_number(body.key)),
        ":told": settlement.cancellation_told,
    };
    let Some(slot) = update.query_row(values, |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(Settled::Stale);
    };
    if state == State::Acknowledged {
        connection.prepare_cached("DELETE FROM sealed WHERE slot = ?")?.execute([slot])?;
    } else if let Some(body) = &settlement.body {
        let mut replace = connection.prepare_cached("UPDATE sealed SET body = ? WHERE slot = ?")?;
        replace.execute(params![body.bytes, slot])?;
    }
    Ok(Settled::Done)
}

fn claim_lane(
    connection: &Connection,
    now: Moment,
    claim: &Claim,
    lane: Lane,
    keys: &str,
    claimed: &mut Vec<Claimed>,
) -> rusqlite::Result<()> {
    let mut due = connection.prepare_cached(
        "SELECT slot, id, partition, state, leased_until, pinged_at, epoch, attempts, cancellation, schedule, format, key,
                body
         FROM process JOIN sealed USING (slot)
         WHERE partition = :partition AND state <= 2 AND due_at <= :now
           AND format <= :format AND key IN (SELECT value FROM json_each(:keys))
         ORDER BY due_at LIMIT :limit",
    )?;
    let values = named_params! {
        ":partition": lane.partition.0,
        ":now": now.0,
        ":format": claim.format,
        ":keys": keys,
        ":limit": limit(lane.limit),
    };
    let rows: Vec<_> =
        due.query_map(values, |row| Ok((row.get::<_, i64>("slot")?, claimed_in(row)?)))?.collect::<Result<_, _>>()?;
    let leased_until = now.plus(claim.lease);
    let mut lease = connection.prepare_cached(
        "UPDATE process SET leased_until = :leased_until, due_at = :leased_until + interval, epoch = epoch + 1,
                            attempts = :attempts, pinged_at = NULL
         WHERE slot = :slot",
    )?;
    for (slot, row) in rows {
        lease.execute(named_params! { ":leased_until": leased_until, ":attempts": row.attempts, ":slot": slot })?;
        claimed.push(row);
    }
    Ok(())
}

/// A row as it is once it has been claimed.
fn claimed_in(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        id: id_in(row, "id")?,
        partition: partition_in(row)?,
        state: state_in(row)?,
        epoch: row.get::<_, i64>("epoch")? + 1,
        orphaned: row.get::<_, Option<i64>>("leased_until")?.is_some(),
        pinged: row.get::<_, Option<i64>>("pinged_at")?.is_some(),
        attempts: row.get::<_, u32>("attempts")?.saturating_add(1),
        cancellation: cancellation_in(row)?,
        schedule: row.get("schedule")?,
        body: body_of_claimed(row)?,
    })
}

fn next_in_lane(
    connection: &Connection,
    now: Moment,
    format: u8,
    lane: Lane,
    keys: &str,
) -> rusqlite::Result<Option<Duration>> {
    let mut next = connection.prepare_cached(
        "SELECT due_at FROM process
         WHERE partition = :partition AND state <= 2
           AND format <= :format AND key IN (SELECT value FROM json_each(:keys))
         ORDER BY due_at LIMIT 1",
    )?;
    let values = named_params! { ":partition": lane.partition.0, ":format": format, ":keys": keys };
    let due_at = next.query_row(values, |row| row.get(0)).optional()?;
    Ok(due_at.map(|due_at| now.until(due_at)))
}

pub(in crate::store::sqlite) fn ping(connection: &Connection, now: Moment, ping: &Ping) -> rusqlite::Result<Pinged> {
    let id = match ping.id {
        Some(id) => Some(id),
        None => with_lookup(connection, &ping.lookups)?,
    };
    let Some(id) = id else { return Ok(Pinged::NotFound) };
    let mut find = connection.prepare_cached("SELECT state, lookup FROM process WHERE id = ?")?;
    let found = find.query_row([id.to_bytes()], |row| Ok((state_in(row)?, lookup_in(row)?))).optional()?;
    match found {
        None => return Ok(Pinged::NotFound),
        Some((_, Some(lookup))) if !ping.lookups.contains(&lookup) => return Ok(Pinged::Foreign),
        Some((state, _)) if state > State::Waiting => return Ok(Pinged::Ended(id)),
        Some(_) => {}
    }
    let mut note = connection.prepare_cached(
        "UPDATE process SET
             pinged_at = :now,
             due_at = CASE WHEN leased_until IS NULL AND not_before IS NOT NULL
                           THEN min(due_at, max(:now, not_before)) ELSE due_at END
         WHERE id = :id",
    )?;
    note.execute(named_params! { ":now": now.0, ":id": id.to_bytes() })?;
    Ok(Pinged::Noted(id))
}
