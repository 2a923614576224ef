//! Insertions, pings, and settling and claiming work.

use std::time::Duration;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, ToSql, named_params, params};

use super::{cancellation_at, id_in, key_at, lookup_in, state_at, state_in, with_keys};
use crate::store::column::{key_number, limit, micros};
use crate::store::sqlite::moment::Moment;
use crate::store::{
    Cancellation, Claim, Claimed, Fingerprint, Insertion, Lane, NewProcess, Next, Partition, Ping, Pinged, ProcessId,
    SealedBody, Settled, Settlement, State, Work,
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
        "INSERT INTO process (id, partition, state, session, lookup, due_at, not_before, interval, schedule, format, key,
                              first_key)
         VALUES (:id, :partition, :state, :session, :lookup, :due_at, :not_before, :interval, :schedule, :format, :key,
                 :key)",
    )?;
    let slot = add.insert(named_params! {
        ":id": process.id.to_bytes(),
        ":partition": process.partition.0,
        ":state": process.state as u8,
        ":session": process.sessions.first().map(|session| session.0),
        ":lookup": process.lookups.first().map(|lookup| lookup.0),
        ":due_at": due_at,
        ":not_before": process.ping_in.map(|wait| now.plus(wait)),
        ":interval": micros(process.interval),
        ":schedule": process.schedule,
        ":format": process.body.format,
        ":key": key_number(process.body.key),
    })?;
    let mut add_body = connection.prepare_cached("INSERT INTO sealed (slot, body) VALUES (?, ?)")?;
    add_body.execute(params![slot, process.body.bytes])?;
    if process.state == State::Exchanging {
        connection.prepare_cached(LEASE)?.execute(params![slot, process.partition.0, due_at, due_at, 0, 0])?;
    }
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
    if !settlements.is_empty() {
        let mut settling = Settling::new(connection, now)?;
        for settlement in settlements {
            work.settled.push(settling.settle(settlement)?);
        }
    }
    if let Some(claim) = claim {
        for lane in &claim.lanes {
            claim_lane(connection, now, claim, *lane, &mut work.claimed)?;
        }
        // After all claims, for they move the rows that come next.
        for lane in &claim.lanes {
            let next = next_in_lane(connection, now, claim, *lane)?;
            work.next_in = [work.next_in, next].into_iter().flatten().min();
        }
    }
    Ok(work)
}

/// What a claim writes; see `schema.sql`.
const LEASE: &str =
    "REPLACE INTO lease (slot, partition, leased_until, due_at, epoch, attempts) VALUES (?, ?, ?, ?, ?, ?)";

/// What a settlement has to know of its row.
struct Found {
    slot: i64,
    state: State,
    provisional: bool,
    has_lookup: bool,
    pinged: bool,
    cancellation: Cancellation,
    leased: bool,
    epoch: i64,
    attempts: u32,
}

impl Found {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let claimed: Option<i64> = row.get(6)?;
        Ok(Self {
            slot: row.get(0)?,
            state: state_at(row, 1)?,
            provisional: row.get(2)?,
            has_lookup: row.get(3)?,
            pinged: row.get(4)?,
            cancellation: cancellation_at(row, 5)?,
            leased: claimed.is_some(),
            epoch: claimed.map_or_else(|| row.get(7), Ok)?,
            attempts: row.get(8)?,
        })
    }

    fn takes(&self, settlement: &Settlement) -> bool {
        let fits = match settlement.epoch {
            Some(epoch) => self.state <= State::Answered && self.epoch == epoch,
            None => self.state <= State::Waiting || (self.state == State::Decided && self.provisional),
        };
        fits && !(settlement.lookup.is_some() && self.has_lookup)
    }
}

/// The statements that every settlement needs, taken out of the cache once for all of them.
struct Settling<'c> {
    connection: &'c Connection,
    now: Moment,
    find: CachedStatement<'c>,
    reschedule: CachedStatement<'c>,
    release: CachedStatement<'c>,
}

impl<'c> Settling<'c> {
    fn new(connection: &'c Connection, now: Moment) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            now,
            find: connection.prepare_cached(
                "SELECT slot, state, provisional, lookup IS NOT NULL, pinged_at IS NOT NULL, cancellation, lease.epoch,
                        process.epoch, coalesce(lease.attempts, process.attempts)
                 FROM process LEFT JOIN lease USING (slot) WHERE id = ?",
            )?,
            // Most answers of an OP change nothing else, and the indexes on what does not stand here are left alone.
            reschedule: connection.prepare_cached(
                "UPDATE process SET due_at = ?, not_before = ?, schedule = ?, interval = ?, epoch = ?, attempts = ?
                 WHERE slot = ?",
            )?,
            release: connection.prepare_cached("DELETE FROM lease WHERE slot = ?")?,
        })
    }

    fn settle(&mut self, settlement: &Settlement) -> rusqlite::Result<Settled> {
        let found = self.find.query_row([settlement.id.to_bytes()], Found::of).optional()?;
        let Some(found) = found.filter(|found| found.takes(settlement)) else { return Ok(Settled::Stale) };
        let (state, provisional) = match settlement.next {
            Next::Waiting => (State::Waiting, false),
            Next::Answered => (State::Answered, false),
            Next::Decided { provisional } => (State::Decided, provisional),
            Next::Ended => (State::Acknowledged, false),
        };
        let not_before = settlement.ping_in.map(|wait| self.now.plus(wait));
        let due_at = self.now.plus(settlement.due_in);
        let due_at = match not_before {
            Some(not_before) if state == State::Waiting && found.pinged => due_at.min(not_before),
            _ => due_at,
        };
        self.reschedule.execute(params![
            due_at,
            not_before,
            settlement.schedule,
            micros(settlement.interval),
            found.epoch + i64::from(settlement.epoch.is_none()),
            if state == found.state { found.attempts } else { 0 },
            found.slot,
        ])?;
        if found.leased {
            self.release.execute([found.slot])?;
        }
        if (state, provisional) != (found.state, found.provisional) {
            self.change("state = ?, provisional = ?", params![state as u8, provisional, found.slot])?;
        }
        if let Some(lookup) = settlement.lookup {
            self.change("lookup = ?", params![lookup.0, found.slot])?;
        }
        if settlement.cancellation_told && found.cancellation == Cancellation::Requested {
            self.change("cancellation = ?", params![Cancellation::Told as u8, found.slot])?;
        }
        if let Some(body) = &settlement.body {
            let label = params![body.format, key_number(body.key), found.slot];
            self.change("format = ?, key = ?, revision = revision + 1", label)?;
            let mut replace = self.connection.prepare_cached("UPDATE sealed SET body = ? WHERE slot = ?")?;
            replace.execute(params![body.bytes, found.slot])?;
        }
        if state == State::Acknowledged {
            self.connection.prepare_cached("DELETE FROM sealed WHERE slot = ?")?.execute([found.slot])?;
        }
        Ok(Settled::Done)
    }

    /// Changes columns that few settlements change. The last of the values is the slot.
    fn change(&self, columns: &str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        let sql = format!("UPDATE process SET {columns} WHERE slot = ?");
        self.connection.prepare_cached(&sql)?.execute(values).map(drop)
    }
}

/// A row that a claim can take.
struct Due {
    slot: i64,
    due_at: i64,
    interval: i64,
    row: Claimed,
}

fn claim_lane(
    connection: &Connection,
    now: Moment,
    claim: &Claim,
    lane: Lane,
    claimed: &mut Vec<Claimed>,
) -> rusqlite::Result<()> {
    let values = named_params! {
        ":partition": lane.partition.0,
        ":now": now.0,
        ":format": claim.format,
        ":limit": limit(lane.limit),
    };
    let mut free = connection.prepare_cached(&with_keys(
        "SELECT slot, id, state, pinged_at IS NOT NULL, cancellation, schedule, format, key, body, interval, due_at, epoch,
                attempts, 0
         FROM process JOIN sealed USING (slot)
         WHERE partition = :partition AND state <= 2 AND due_at <= :now
           AND format <= :format AND key IN (:keys)
           AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.slot = process.slot)
         ORDER BY due_at LIMIT :limit + 0",
        &claim.keys,
    ))?;
    let mut due: Vec<_> =
        free.query_map(values, |row| due_in(row, lane.partition))?.collect::<rusqlite::Result<_>>()?;
    let mut orphaned = connection.prepare_cached(&with_keys(
        "SELECT slot, id, state, pinged_at IS NOT NULL, cancellation, schedule, format, key, body, interval, lease.due_at,
                lease.epoch, lease.attempts, 1
         FROM lease JOIN process USING (slot) JOIN sealed USING (slot)
         WHERE lease.partition = :partition AND lease.due_at <= :now
           AND format <= :format AND key IN (:keys)
         ORDER BY lease.due_at LIMIT :limit + 0",
        &claim.keys,
    ))?;
    let free = due.len();
    for row in orphaned.query_map(values, |row| due_in(row, lane.partition))? {
        due.push(row?);
    }
    if due.len() > free {
        due.sort_by_key(|row| row.due_at);
        due.truncate(lane.limit);
    }
    let leased_until = now.plus(claim.lease);
    let mut lease = connection.prepare_cached(LEASE)?;
    let mut take_ping = connection.prepare_cached("UPDATE process SET pinged_at = NULL WHERE slot = ?")?;
    for Due { slot, interval, row, .. } in due {
        let due_at = leased_until.saturating_add(interval);
        lease.execute(params![slot, lane.partition.0, leased_until, due_at, row.epoch, row.attempts])?;
        if row.pinged {
            take_ping.execute([slot])?;
        }
        claimed.push(row);
    }
    Ok(())
}

/// A row as it is once it has been claimed. Columns are known by their places here: rows come by the thousand, and names are
/// looked up each time.
fn due_in(row: &Row<'_>, partition: Partition) -> rusqlite::Result<Due> {
    let claimed = Claimed {
        id: ProcessId::from_bytes(row.get(1)?),
        partition,
        state: state_at(row, 2)?,
        epoch: row.get::<_, i64>(11)? + 1,
        orphaned: row.get(13)?,
        pinged: row.get(3)?,
        attempts: row.get::<_, u32>(12)?.saturating_add(1),
        cancellation: cancellation_at(row, 4)?,
        schedule: row.get(5)?,
        body: SealedBody { format: row.get(6)?, key: key_at(row, 7)?, bytes: row.get(8)? },
    };
    Ok(Due { slot: row.get(0)?, due_at: row.get(10)?, interval: row.get(9)?, row: claimed })
}

fn next_in_lane(connection: &Connection, now: Moment, claim: &Claim, lane: Lane) -> rusqlite::Result<Option<Duration>> {
    let values = named_params! { ":partition": lane.partition.0, ":format": claim.format };
    let mut free = connection.prepare_cached(&with_keys(
        "SELECT due_at FROM process
         WHERE partition = :partition AND state <= 2
           AND format <= :format AND key IN (:keys)
           AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.slot = process.slot)
         ORDER BY due_at LIMIT 1",
        &claim.keys,
    ))?;
    let free: Option<i64> = free.query_row(values, |row| row.get(0)).optional()?;
    let mut leased = connection.prepare_cached(&with_keys(
        "SELECT min(lease.due_at) FROM lease JOIN process USING (slot)
         WHERE lease.partition = :partition AND format <= :format AND key IN (:keys)",
        &claim.keys,
    ))?;
    let leased: Option<i64> = leased.query_row(values, |row| row.get(0))?;
    Ok([free, leased].into_iter().flatten().min().map(|due_at| now.until(due_at)))
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
             due_at = CASE WHEN not_before IS NOT NULL AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.slot = process.slot)
                           THEN min(due_at, max(:now, not_before)) ELSE due_at END
         WHERE id = :id",
    )?;
    note.execute(named_params! { ":now": now.0, ":id": id.to_bytes() })?;
    Ok(Pinged::Noted(id))
}
