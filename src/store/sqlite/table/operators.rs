//! The calls for operators: listing, bringing forward, releasing, erasing with a proof.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, named_params};

use super::{SET_ASIDE, cancellation_in, id_in, key_in, partition_in, state_in};
use crate::clock::saturating_add;
use crate::store::column::{limit, micros};
use crate::store::listing::{Look, ROWS_PER_SCAN, page};
use crate::store::sqlite::moment::{Moment, since_1970};
use crate::store::{Among, Erased, Listing, Page, Partition, Pinged, Place, ProcessId, Requeued, RowOverview, State};

const COLUMNS: &str =
    "process.slot, process.id AS id, process.partition AS partition, state, provisional, cancellation,
    started_at, expires_at, decided_at, coalesce(lease.due_at, process.due_at) AS due_at, leased_until, not_before,
    pinged_at, coalesce(lease.epoch, process.epoch) AS epoch, coalesce(lease.attempts, process.attempts) AS attempts,
    schedule, format, key, EXISTS (SELECT 1 FROM sealed WHERE sealed.slot = process.slot) AS has_body";

const ALL: &str = "SELECT :columns, 0 AS place FROM process LEFT JOIN lease USING (slot)
    WHERE process.id > :after ORDER BY process.id LIMIT :limit + 0";

const WITH_ID: &str = "SELECT :columns, 0 AS place FROM process LEFT JOIN lease USING (slot) WHERE process.id = :id";

const WITH_REFERENCE: &str = "SELECT :columns, 0 AS place
    FROM reference JOIN process USING (slot) LEFT JOIN lease USING (slot)
    WHERE reference.reference = :reference AND process.id > :after ORDER BY process.id LIMIT :limit + 0";

/// Rows that are due at some time and of a partition, in the order of due times, claimed or not.
const DUE: &str = "SELECT :columns, process.due_at AS place FROM process LEFT JOIN lease USING (slot)
    WHERE process.partition = :partition AND :kind AND process.due_at BETWEEN :from AND :latest
      AND (process.due_at, process.id) > (:from, :after)
    ORDER BY process.due_at, process.id LIMIT :limit + 0";

/// All partitions with rows of a kind.
const PARTITIONS: &str = "WITH RECURSIVE of (partition) AS (
        SELECT min(partition) FROM process WHERE :kind
        UNION ALL
        SELECT (SELECT min(partition) FROM process WHERE :kind AND partition > of.partition)
        FROM of WHERE partition IS NOT NULL
    )
    SELECT partition FROM of WHERE partition IS NOT NULL";

/// The kinds of rows that become due, with the states of each. The conditions are those of the indexes.
const KINDS: [(&str, &[State]); 3] = [
    ("state IN (0, 2)", &[State::Exchanging, State::Answered]),
    ("state <= 2 AND state = 1", &[State::Waiting]),
    ("state = 3", &[State::Decided]),
];

pub(in crate::store::sqlite) fn list(
    connection: &Connection,
    now: Moment,
    listing: &Listing,
) -> rusqlite::Result<Page> {
    let looks = match (&listing.among, listing.overdue_for) {
        (Among::All, Some(overdue_for)) => scan_due(connection, now, listing, overdue_for)?,
        (Among::All, None) => {
            let most = ROWS_PER_SCAN.max(listing.limit);
            let rows = look(connection, ALL, named_params! { ":after": after(listing), ":limit": limit(most) })?;
            vec![Look::limited(rows, most)]
        }
        (Among::Ids(ids), _) => {
            let mut rows = Vec::new();
            for id in ids {
                rows.extend(look(connection, WITH_ID, named_params! { ":id": id.to_bytes() })?);
            }
            vec![of_ids(rows, listing)]
        }
        (Among::References(references), _) => {
            let most = ROWS_PER_SCAN.max(listing.limit);
            let mut looks = Vec::new();
            for reference in references {
                let values = named_params! {
                    ":reference": reference.0,
                    ":after": after(listing),
                    ":limit": limit(most),
                };
                looks.push(Look::limited(look(connection, WITH_REFERENCE, values)?, most));
            }
            looks
        }
    };
    Ok(page(listing, looks, now.wall()))
}

/// A value before which the listing must not look.
fn after(listing: &Listing) -> Vec<u8> {
    listing.after.map_or_else(Vec::new, |after| after.id.to_bytes().to_vec())
}

fn look(connection: &Connection, sql: &str, values: &[(&str, &dyn ToSql)]) -> rusqlite::Result<Vec<RowOverview>> {
    let mut find = connection.prepare_cached(&sql.replace(":columns", COLUMNS))?;
    find.query_map(values, overview_in)?.collect()
}

/// All the rows with some identifiers, each once.
fn of_ids(rows: Vec<RowOverview>, listing: &Listing) -> Look {
    let rows = rows.into_iter().filter(|row| listing.after.is_none_or(|after| after.id < row.id));
    let rows: BTreeMap<_, _> = rows.map(|row| (row.id, row)).collect();
    Look { rows: rows.into_values().collect(), end: None }
}

fn scan_due(
    connection: &Connection,
    now: Moment,
    listing: &Listing,
    overdue_for: Duration,
) -> rusqlite::Result<Vec<Look>> {
    let latest = now.0.saturating_sub(micros(overdue_for));
    let most = listing.limit.clamp(1, ROWS_PER_SCAN);
    let (from, after) = listing.after.map_or((i64::MIN, Vec::new()), |place| (place.order, after(listing)));
    let mut looks = Vec::new();
    for (kind, states) in KINDS {
        if !listing.states.is_empty() && !states.iter().any(|state| listing.states.contains(state)) {
            continue;
        }
        for partition in partitions(connection, kind, listing.partition)? {
            let values = named_params! {
                ":partition": partition,
                ":from": from,
                ":latest": latest,
                ":after": after,
                ":limit": limit(most),
            };
            let sql = DUE.replace(":kind", kind);
            looks.push(Look::limited(look(connection, &sql, values)?, most));
        }
    }
    Ok(looks)
}

fn partitions(connection: &Connection, kind: &str, only: Option<Partition>) -> rusqlite::Result<Vec<i64>> {
    if let Some(Partition(only)) = only {
        return Ok(vec![only]);
    }
    let mut find = connection.prepare_cached(&PARTITIONS.replace(":kind", kind))?;
    find.query_map([], |row| row.get(0))?.collect()
}

fn overview_in(row: &Row<'_>) -> rusqlite::Result<RowOverview> {
    let time = |column| {
        let at: Option<i64> = row.get(column)?;
        Ok::<_, rusqlite::Error>(at.map(|at| saturating_add(std::time::UNIX_EPOCH, since_1970(at))))
    };
    let due_at = if row.get::<_, i64>("due_at")? == SET_ASIDE { None } else { time("due_at")? };
    let id = id_in(row, "id")?;
    Ok(RowOverview {
        id,
        place: Place { order: row.get("place")?, id },
        partition: partition_in(row)?,
        state: state_in(row)?,
        provisional: row.get("provisional")?,
        cancellation: cancellation_in(row)?,
        started_at: time("started_at")?,
        expires_at: time("expires_at")?,
        decided_at: time("decided_at")?,
        due_at,
        leased_until: time("leased_until")?,
        not_before: time("not_before")?,
        pinged_at: time("pinged_at")?,
        epoch: row.get("epoch")?,
        attempts: row.get("attempts")?,
        schedule: row.get("schedule")?,
        format: row.get("format")?,
        key: key_in(row)?,
        has_body: row.get("has_body")?,
    })
}

pub(in crate::store::sqlite) fn bring_forward(
    connection: &Connection,
    now: Moment,
    id: ProcessId,
) -> rusqlite::Result<Pinged> {
    let mut find = connection.prepare_cached("SELECT slot, state, partition FROM process WHERE id = ?")?;
    let found =
        find.query_row([id.to_bytes()], |row| Ok((row.get::<_, i64>("slot")?, state_in(row)?, partition_in(row)?)));
    let (slot, partition) = match found.optional()? {
        None => return Ok(Pinged::NotFound),
        Some((_, state, _)) if state > State::Waiting => return Ok(Pinged::Ended(id)),
        Some((slot, _, partition)) => (slot, partition),
    };
    let mut bring = connection.prepare_cached(
        "UPDATE process SET pinged_at = :now, due_at = min(due_at, max(:now, not_before + interval))
         WHERE slot = :slot AND not_before IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.slot = process.slot)",
    )?;
    bring.execute(named_params! { ":now": now.0, ":slot": slot })?;
    Ok(Pinged::Recorded { id, partition })
}

pub(in crate::store::sqlite) fn requeue(
    connection: &Connection,
    now: Moment,
    id: ProcessId,
) -> rusqlite::Result<Requeued> {
    let mut find = connection.prepare_cached(&WITH_ID.replace(":columns", COLUMNS))?;
    let found = find.query_row(named_params! { ":id": id.to_bytes() }, |row| {
        let lease: Option<i64> = row.get("leased_until")?;
        let lease = lease.filter(|until| *until > now.0);
        let (slot, due_at): (i64, i64) = (row.get("slot")?, row.get("due_at")?);
        Ok((slot, state_in(row)?, partition_in(row)?, row.get::<_, bool>("has_body")?, lease, due_at))
    });
    let Some((slot, state, partition, has_body, lease, due_at)) = found.optional()? else {
        return Ok(Requeued::NotFound);
    };
    match (state, lease) {
        (State::Acknowledged, _) => return Ok(Requeued::NotFound),
        _ if !has_body => return Ok(Requeued::NoBody),
        (State::Exchanging | State::Waiting, Some(until)) => {
            return Ok(Requeued::InUse { ends_in: now.until(until) });
        }
        (State::Answered, Some(_)) => {}
        (State::Decided, _) if due_at > now.0 => {}
        _ if due_at == SET_ASIDE => {}
        _ => return Ok(Requeued::Free),
    }
    let mut release = connection.prepare_cached(
        "UPDATE process SET due_at = :now,
             epoch = 1 + coalesce((SELECT lease.epoch FROM lease WHERE lease.slot = process.slot), epoch),
             attempts = coalesce((SELECT lease.attempts FROM lease WHERE lease.slot = process.slot), attempts)
         WHERE slot = :slot",
    )?;
    release.execute(named_params! { ":now": now.0, ":slot": slot })?;
    connection.prepare_cached("DELETE FROM lease WHERE slot = ?")?.execute([slot])?;
    Ok(Requeued::Done { partition, state })
}

pub(in crate::store::sqlite) fn erase(connection: &Connection, id: ProcessId) -> rusqlite::Result<Erased> {
    let mut find = connection.prepare_cached("SELECT slot FROM process WHERE id = ?")?;
    let Some(slot) = find.query_row([id.to_bytes()], |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(Erased::default());
    };
    let entries = || {
        let mut count = connection.prepare_cached(
            "SELECT (SELECT count(*) FROM process WHERE slot = :slot) + (SELECT count(*) FROM sealed WHERE slot = :slot)
                  + (SELECT count(*) FROM lease WHERE slot = :slot) + (SELECT count(*) FROM reference WHERE slot = :slot)",
        )?;
        let count: i64 = count.query_row(named_params! { ":slot": slot }, |row| row.get(0))?;
        Ok::<_, rusqlite::Error>(u64::try_from(count).unwrap_or(0))
    };
    let erased = entries()?;
    super::upkeep::forget(connection, id)?;
    Ok(Erased { erased, left: entries()? })
}
