//! Insertions, settlements and pings.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, ToSql, named_params, params};

use super::claim::{self, Claims, LEASE};
use super::{due_times, id_in, lookup_in, partition_in, state_at, state_in};
use crate::store::column::{key_number, micros};
use crate::store::sqlite::moment::Moment;
use crate::store::{
    Claim, Fingerprint, Insertion, NewProcess, Next, Ping, Pinged, ProcessId, Settled, Settlement, State, Work,
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
        "INSERT INTO process (id, partition, state, session, lookup, due_at, not_before, interval, expires_at, schedule,
                              format, key, first_key, started_at)
         VALUES (:id, :partition, :state, :session, :lookup, :due_at, :not_before, :interval, :expires_at, :schedule,
                 :format, :key, :key, :now)",
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
        ":expires_at": process.expires_in.map(|left| now.plus(left)),
        ":schedule": process.schedule,
        ":format": process.body.format,
        ":key": key_number(process.body.key),
        ":now": now.0,
    })?;
    if let Some(reference) = process.references.first() {
        let mut name = connection.prepare_cached("INSERT INTO reference (slot, reference) VALUES (?, ?)")?;
        name.execute(params![slot, reference.0])?;
    }
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
    let mut settled = Vec::with_capacity(settlements.len());
    if !settlements.is_empty() {
        let mut settling = Settling::new(connection, now)?;
        for settlement in settlements {
            settled.push(settling.settle(settlement)?);
        }
    }
    let claims = claim.map_or_else(|| Ok(Claims::default()), |claim| claim::claim(connection, now, claim))?;
    let Claims { claimed, due, set_aside, correcting } = claims;
    let corrected = due_times::corrected(connection)?;
    Ok(Work { now: now.wall(), settled, claimed, due, set_aside, correcting, corrected })
}

/// The columns of a row that its settlement needs.
struct Found {
    slot: i64,
    state: State,
    provisional: bool,
    has_lookup: bool,
    pinged: bool,
    leased: bool,
    epoch: i64,
    attempts: u32,
}

impl Found {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let claimed: Option<i64> = row.get(5)?;
        Ok(Self {
            slot: row.get(0)?,
            state: state_at(row, 1)?,
            provisional: row.get(2)?,
            has_lookup: row.get(3)?,
            pinged: row.get(4)?,
            leased: claimed.is_some(),
            epoch: claimed.map_or_else(|| row.get(6), Ok)?,
            attempts: row.get(7)?,
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

/// The statements that every settlement needs, taken from the cache once for all of them.
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
                "SELECT slot, state, provisional, lookup IS NOT NULL, pinged_at IS NOT NULL, lease.epoch, process.epoch,
                        coalesce(lease.attempts, process.attempts)
                 FROM process LEFT JOIN lease USING (slot) WHERE id = ?",
            )?,
            // Most answers of an OP change only these columns, so the indexes on other columns need no update.
            reschedule: connection.prepare_cached(
                "UPDATE process SET due_at = ?, not_before = ?, schedule = ?, interval = ?, expires_at = ?, spread = 0,
                     epoch = ?, attempts = ?
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
            settlement.expires_in.map(|left| self.now.plus(left)),
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
        if state == State::Decided {
            self.change("decided_at = ?", params![self.now.0, found.slot])?;
        }
        if let Some(lookup) = settlement.lookup {
            self.change("lookup = ?", params![lookup.0, found.slot])?;
        }
        if let Some(body) = &settlement.body {
            let label = params![body.format, key_number(body.key), found.slot];
            self.change("format = ?, key = ?, revision = revision + 1", label)?;
            // The old body may have been lost.
            let mut replace = self.connection.prepare_cached(
                "INSERT INTO sealed (slot, body) VALUES (?, ?) ON CONFLICT (slot) DO UPDATE SET body = excluded.body",
            )?;
            replace.execute(params![found.slot, body.bytes])?;
        }
        if state == State::Acknowledged {
            self.connection.prepare_cached("DELETE FROM sealed WHERE slot = ?")?.execute([found.slot])?;
        }
        Ok(Settled::Done)
    }

    /// Changes columns that few settlements change. The last value is the slot.
    fn change(&self, columns: &str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        let sql = format!("UPDATE process SET {columns} WHERE slot = ?");
        self.connection.prepare_cached(&sql)?.execute(values).map(drop)
    }
}

pub(in crate::store::sqlite) fn ping(connection: &Connection, now: Moment, ping: &Ping) -> rusqlite::Result<Pinged> {
    let id = match ping.id {
        Some(id) => Some(id),
        None => with_lookup(connection, &ping.lookups)?,
    };
    let Some(id) = id else { return Ok(Pinged::NotFound) };
    let mut find = connection.prepare_cached("SELECT slot, state, lookup, partition FROM process WHERE id = ?")?;
    let found = find
        .query_row([id.to_bytes()], |row| {
            Ok((row.get::<_, i64>("slot")?, state_in(row)?, lookup_in(row)?, partition_in(row)?))
        })
        .optional()?;
    let (slot, partition) = match found {
        None => return Ok(Pinged::NotFound),
        Some((_, _, Some(lookup), _)) if !ping.lookups.contains(&lookup) => return Ok(Pinged::Mismatch),
        Some((_, state, ..)) if state > State::Waiting => return Ok(Pinged::Ended(id)),
        Some((slot, _, _, partition)) => (slot, partition),
    };
    let mut note = connection.prepare_cached(
        "UPDATE process SET
             pinged_at = :now,
             due_at = CASE WHEN not_before IS NOT NULL AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.slot = process.slot)
                           THEN min(due_at, max(:now, not_before)) ELSE due_at END
         WHERE slot = :slot",
    )?;
    note.execute(named_params! { ":now": now.0, ":slot": slot })?;
    let mut bring_forward = connection.prepare_cached(
        "UPDATE lease SET due_at = min(lease.due_at, max(:now, not_before))
         FROM process
         WHERE process.slot = lease.slot AND lease.slot = :slot AND leased_until <= :now AND not_before IS NOT NULL",
    )?;
    bring_forward.execute(named_params! { ":now": now.0, ":slot": slot })?;
    Ok(Pinged::Recorded { id, partition })
}
