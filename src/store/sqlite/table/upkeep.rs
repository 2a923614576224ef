//! Reading rows, cancellation, erasure, sealing again, statistics.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{SET_ASIDE, body_in, cancellation_in, id_in, key_in, partition_in, state_in};
use crate::store::column::{key_number, limit};
use crate::store::sqlite::moment::Moment;
use crate::store::{Cancellation, KeyStats, Partition, PartitionStats, Process, ProcessId, Reseal};

pub(in crate::store::sqlite) fn load(
    connection: &Connection,
    now: Moment,
    id: ProcessId,
) -> rusqlite::Result<Option<Process>> {
    let mut find = connection.prepare_cached("SELECT * FROM current LEFT JOIN sealed USING (slot) WHERE id = ?")?;
    find.query_row([id.to_bytes()], |row| process_in(row, now)).optional()
}

fn process_in(row: &Row<'_>, now: Moment) -> rusqlite::Result<Process> {
    let leased_until: Option<i64> = row.get("leased_until")?;
    Ok(Process {
        id: id_in(row, "id")?,
        partition: partition_in(row)?,
        state: state_in(row)?,
        epoch: row.get("epoch")?,
        provisional: row.get("provisional")?,
        cancellation: cancellation_in(row)?,
        due_in: now.until(row.get("due_at")?),
        leased: leased_until.is_some_and(|until| until > now.0),
        schedule: row.get("schedule")?,
        body: body_in(row)?,
        revision: row.get("revision")?,
    })
}

pub(in crate::store::sqlite) fn cancel(
    connection: &Connection,
    id: ProcessId,
    to: Cancellation,
) -> rusqlite::Result<Option<Cancellation>> {
    let mut cancel = connection.prepare_cached(
        "UPDATE process SET cancellation = CASE WHEN state <= 1 THEN max(cancellation, :to) ELSE cancellation END
         WHERE id = :id RETURNING cancellation",
    )?;
    cancel.query_row(named_params! { ":to": to as u8, ":id": id.to_bytes() }, cancellation_in).optional()
}

/// The body is erased with the row.
pub(in crate::store::sqlite) fn forget(connection: &Connection, id: ProcessId) -> rusqlite::Result<bool> {
    let mut forget = connection.prepare_cached("DELETE FROM process WHERE id = ?")?;
    Ok(forget.execute([id.to_bytes()])? > 0)
}

pub(in crate::store::sqlite) fn purge(connection: &Connection, now: Moment, most: usize) -> rusqlite::Result<usize> {
    let mut purge = connection.prepare_cached(
        "DELETE FROM process WHERE slot IN
             (SELECT slot FROM process WHERE state = 4 AND due_at <= :now ORDER BY due_at LIMIT :limit + 0)",
    )?;
    purge.execute(named_params! { ":now": now.0, ":limit": limit(most) })
}

pub(in crate::store::sqlite) fn not_sealed_with(
    connection: &Connection,
    now: Moment,
    key: [u8; 4],
    after: Option<ProcessId>,
    most: usize,
) -> rusqlite::Result<Vec<Process>> {
    let mut find = connection.prepare_cached(
        "SELECT * FROM current JOIN sealed USING (slot)
         WHERE key <> :key AND id > coalesce(:after, x'') ORDER BY id LIMIT :limit + 0",
    )?;
    let values = named_params! {
        ":key": key_number(key),
        ":after": after.map(ProcessId::to_bytes),
        ":limit": limit(most),
    };
    find.query_map(values, |row| process_in(row, now))?.collect()
}

pub(in crate::store::sqlite) fn reseal(connection: &Connection, reseals: &[Reseal]) -> rusqlite::Result<Vec<bool>> {
    let mut mark = connection.prepare_cached(
        "UPDATE process SET format = :format, key = :key, revision = revision + 1
         WHERE id = :id AND revision = :revision AND state <> 4 RETURNING slot",
    )?;
    let mut replace = connection.prepare_cached("UPDATE sealed SET body = ? WHERE slot = ?")?;
    let reseal_one = |reseal: &Reseal| {
        let values = named_params! {
            ":format": reseal.body.format,
            ":key": key_number(reseal.body.key),
            ":id": reseal.id.to_bytes(),
            ":revision": reseal.revision,
        };
        match mark.query_row(values, |row| row.get::<_, i64>(0)).optional()? {
            Some(slot) => Ok(replace.execute(params![reseal.body.bytes, slot])? > 0),
            None => Ok(false),
        }
    };
    reseals.iter().map(reseal_one).collect()
}

pub(in crate::store::sqlite) fn keys(connection: &Connection) -> rusqlite::Result<Vec<KeyStats>> {
    let mut count = connection.prepare_cached(
        "SELECT key, sum(bodies), sum(waiting), format FROM (
             SELECT key, format, 1 AS bodies, 0 AS waiting FROM process JOIN sealed USING (slot)
             UNION ALL SELECT first_key, format, 0, 1 FROM process WHERE state <= 1
         ) GROUP BY key, format",
    )?;
    let keys = count.query_map([], |row| {
        let count = |column| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0));
        Ok(KeyStats { key: key_in(row)?, format: row.get(3)?, bodies: count(1)?, waiting: count(2)? })
    })?;
    keys.collect()
}

pub(in crate::store::sqlite) fn stats(connection: &Connection, now: Moment) -> rusqlite::Result<Vec<PartitionStats>> {
    let mut count = connection.prepare_cached(
        "SELECT partition,
                count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1),
                count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3),
                count(*) FILTER (WHERE state = 4),
                min(due_at) FILTER (WHERE state <= 2 AND (leased_until IS NULL OR leased_until <= :now)),
                (SELECT min(coalesce(decided_at, due_at)) FROM process AS outcome
                 WHERE outcome.partition = current.partition AND state = 3),
                count(*) FILTER (WHERE state <= 3 AND due_at = :aside)
         FROM current GROUP BY partition",
    )?;
    let stats = count.query_map(named_params! { ":now": now.0, ":aside": SET_ASIDE }, |row| {
        let count = |column| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0));
        let age =
            |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.and_then(|then| now.since(then)));
        Ok(PartitionStats {
            partition: Partition(row.get(0)?),
            exchanging: count(1)?,
            waiting: count(2)?,
            answered: count(3)?,
            decided: count(4)?,
            acknowledged: count(5)?,
            set_aside: count(8)?,
            overdue: age(6)?,
            undelivered: age(7)?,
        })
    })?;
    stats.collect()
}
