//! Rows with all of their columns, for moving them to another store.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::claim::LEASE;
use super::{SET_ASIDE, cancellation_in, id_in, key_at, key_in, lookup_in, partition_in, state_in};
use crate::clock::saturating_add;
use crate::store::column::{key_number, limit, micros};
use crate::store::sqlite::moment::{column, since_1970};
use crate::store::{Fingerprint, Imported, ProcessId, StoredRow};

pub(in crate::store::sqlite) fn export(
    connection: &Connection,
    after: Option<ProcessId>,
    most: usize,
) -> rusqlite::Result<Vec<StoredRow>> {
    let mut find = connection.prepare_cached(
        "SELECT process.id AS id, process.partition AS partition, state, session, lookup, reference.reference AS reference,
                started_at, coalesce(lease.due_at, process.due_at) AS due_at, leased_until, not_before, pinged_at,
                interval, expires_at, spread, decided_at, coalesce(lease.epoch, process.epoch) AS epoch,
                coalesce(lease.attempts, process.attempts) AS attempts, provisional, cancellation, schedule, first_key,
                key, format, revision, body
         FROM process LEFT JOIN lease USING (slot) LEFT JOIN reference USING (slot) LEFT JOIN sealed USING (slot)
         WHERE process.id > coalesce(:after, x'') ORDER BY process.id LIMIT :limit + 0",
    )?;
    let values = named_params! { ":after": after.map(ProcessId::to_bytes), ":limit": limit(most) };
    find.query_map(values, stored_in)?.collect()
}

fn stored_in(row: &Row<'_>) -> rusqlite::Result<StoredRow> {
    let time = |column| {
        let at: Option<i64> = row.get(column)?;
        Ok::<_, rusqlite::Error>(at.map(|at| saturating_add(UNIX_EPOCH, since_1970(at))))
    };
    let fingerprint = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<_>>(column)?.map(Fingerprint));
    let due_at = if row.get::<_, i64>("due_at")? == SET_ASIDE { None } else { time("due_at")? };
    Ok(StoredRow {
        id: id_in(row, "id")?,
        partition: partition_in(row)?,
        state: state_in(row)?,
        session: fingerprint("session")?,
        lookup: lookup_in(row)?,
        reference: fingerprint("reference")?,
        started_at: time("started_at")?,
        due_at,
        leased_until: time("leased_until")?,
        not_before: time("not_before")?,
        pinged_at: time("pinged_at")?,
        interval: since_1970(row.get("interval")?),
        expires_at: time("expires_at")?,
        spread: row.get("spread")?,
        decided_at: time("decided_at")?,
        epoch: row.get("epoch")?,
        attempts: row.get("attempts")?,
        provisional: row.get("provisional")?,
        cancellation: cancellation_in(row)?,
        schedule: row.get("schedule")?,
        first_key: key_at(row, "first_key")?,
        key: key_in(row)?,
        format: row.get("format")?,
        revision: row.get("revision")?,
        body: row.get("body")?,
    })
}

pub(in crate::store::sqlite) fn import(connection: &Connection, rows: &[StoredRow]) -> rusqlite::Result<Vec<Imported>> {
    rows.iter().map(|row| import_one(connection, row)).collect()
}

fn import_one(connection: &Connection, row: &StoredRow) -> rusqlite::Result<Imported> {
    let mut present = connection.prepare_cached("SELECT 1 FROM process WHERE id = ?")?;
    if present.exists([row.id.to_bytes()])? {
        return Ok(Imported::Present);
    }
    if let Some(session) = row.session {
        let mut with_session = connection.prepare_cached("SELECT id FROM process WHERE session = ?")?;
        if let Some(other) = with_session.query_row([session.0], |row| id_in(row, "id")).optional()? {
            return Ok(Imported::Conflict(other));
        }
    }
    let slot = add(connection, row)?;
    if let Some(reference) = row.reference {
        let mut name = connection.prepare_cached("INSERT INTO reference (slot, reference) VALUES (?, ?)")?;
        name.execute(params![slot, reference.0])?;
    }
    if let Some(body) = &row.body {
        connection.prepare_cached("INSERT INTO sealed (slot, body) VALUES (?, ?)")?.execute(params![slot, body])?;
    }
    if let Some(leased_until) = row.leased_until {
        let values = params![slot, row.partition.0, at(leased_until), due_at(row), row.epoch, row.attempts];
        connection.prepare_cached(LEASE)?.execute(values)?;
    }
    Ok(Imported::Added)
}

fn add(connection: &Connection, row: &StoredRow) -> rusqlite::Result<i64> {
    let mut add = connection.prepare_cached(
        "INSERT INTO process (id, partition, state, session, lookup, started_at, due_at, not_before, pinged_at, interval,
                              expires_at, spread, decided_at, epoch, attempts, provisional, cancellation, schedule,
                              first_key, key, format, revision)
         VALUES (:id, :partition, :state, :session, :lookup, :started_at, :due_at, :not_before, :pinged_at, :interval,
                 :expires_at, :spread, :decided_at, :epoch, :attempts, :provisional, :cancellation, :schedule,
                 :first_key, :key, :format, :revision)",
    )?;
    add.insert(named_params! {
        ":id": row.id.to_bytes(),
        ":partition": row.partition.0,
        ":state": row.state as u8,
        ":session": row.session.map(|session| session.0),
        ":lookup": row.lookup.map(|lookup| lookup.0),
        ":started_at": row.started_at.map(at),
        ":due_at": due_at(row),
        ":not_before": row.not_before.map(at),
        ":pinged_at": row.pinged_at.map(at),
        ":interval": micros(row.interval),
        ":expires_at": row.expires_at.map(at),
        ":spread": row.spread,
        ":decided_at": row.decided_at.map(at),
        ":epoch": row.epoch,
        ":attempts": row.attempts,
        ":provisional": row.provisional,
        ":cancellation": row.cancellation as u8,
        ":schedule": row.schedule,
        ":first_key": key_number(row.first_key),
        ":key": key_number(row.key),
        ":format": row.format,
        ":revision": row.revision,
    })
}

fn at(time: SystemTime) -> i64 {
    column(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn due_at(row: &StoredRow) -> i64 {
    row.due_at.map_or(SET_ASIDE, at)
}
