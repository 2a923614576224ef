//! Moving due times: after an outage and after a jump of the clock.

use std::time::Duration;

use rusqlite::{Connection, Row, named_params, params};

use super::{SET_ASIDE, id_in, state_in};
use crate::store::column::limit;
use crate::store::rules::{Run, Times};
use crate::store::sqlite::moment::{Moment, column, since_1970};
use crate::store::{ClockJump, CorrectionProgress, CorrectionStep, Partition, ProcessId};

/// A row with the columns that determine its due time.
struct Timed {
    slot: i64,
    id: ProcessId,
    times: Times,
}

/// The columns that [`timed_in`] reads.
const TIMED: &str = "process.slot AS slot, id, state, coalesce(lease.due_at, process.due_at) AS due_at, leased_until,
    not_before, expires_at, interval";

fn timed_in(row: &Row<'_>) -> rusqlite::Result<Timed> {
    let optional = |name| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(name)?.map(since_1970));
    let times = Times {
        state: state_in(row)?,
        due_at: since_1970(row.get("due_at")?),
        leased_until: optional("leased_until")?,
        not_before: optional("not_before")?,
        expires_at: optional("expires_at")?,
        interval: since_1970(row.get("interval")?),
    };
    Ok(Timed { slot: row.get("slot")?, id: id_in(row, "id")?, times })
}

pub(in crate::store::sqlite) fn spread(
    connection: &Connection,
    now: Moment,
    partition: Partition,
    overdue_for: Duration,
    most: usize,
) -> rusqlite::Result<usize> {
    let mut find = connection.prepare_cached(&format!(
        "SELECT {TIMED} FROM process LEFT JOIN lease USING (slot)
         WHERE process.partition = :partition AND state <= 2 AND state = 1 AND process.due_at <= :latest AND spread = 0
           AND leased_until IS NULL
         ORDER BY process.due_at LIMIT :limit + 0"
    ))?;
    let latest = column(now.since_1970().saturating_sub(overdue_for));
    let values = named_params! { ":partition": partition.0, ":latest": latest, ":limit": limit(most) };
    let rows: Vec<_> = find.query_map(values, timed_in)?.collect::<rusqlite::Result<_>>()?;
    let mut mark = connection.prepare_cached("UPDATE process SET due_at = ?, spread = 1 WHERE slot = ?")?;
    for Timed { slot, id, mut times } in rows.iter().map(|row| Timed { times: row.times, ..*row }) {
        times.spread(id, now.since_1970());
        mark.execute(params![column(times.due_at), slot])?;
    }
    Ok(rows.len())
}

pub(super) fn is_running(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT under_way FROM clamp_run")?.query_row([], |row| row.get(0))
}

/// See [`Work::corrected`](crate::store::Work::corrected).
pub(super) fn corrected(connection: &Connection) -> rusqlite::Result<ClockJump> {
    let mut find = connection.prepare_cached("SELECT corrected FROM clamp_run")?;
    find.query_row([], |row| row.get(0).map(ClockJump))
}

pub(in crate::store::sqlite) fn correct_due_times(
    connection: &Connection,
    now: Moment,
    step: &CorrectionStep,
) -> rusqlite::Result<CorrectionProgress> {
    let mut find = connection.prepare_cached("SELECT under_way, up_to, jump, corrected FROM clamp_run")?;
    let run = find.query_row([], |row| {
        let up_to: Vec<u8> = row.get(1)?;
        let up_to = up_to.try_into().ok().map(ProcessId::from_bytes);
        let (jump, corrected) = (ClockJump(row.get(2)?), ClockJump(row.get(3)?));
        Ok(Run { is_running: row.get(0)?, up_to, jump, corrected })
    })?;
    let run = match run.begin_step(step) {
        Ok(run) => run,
        Err(nothing_to_do) => return Ok(nothing_to_do),
    };
    let most = step.limit.max(1);
    let rows = rows_after(connection, run.up_to, most)?;
    for row in &rows {
        correct_row(connection, now, step.longest, run.jump, row)?;
    }
    let (run, progress) = run.end_step(step, rows.last().filter(|_| rows.len() == most).map(|row| row.id));
    let keep = "UPDATE clamp_run SET under_way = ?, up_to = ?, jump = ?, corrected = ?";
    let up_to = run.up_to.map_or_else(Vec::new, |id| id.to_bytes().to_vec());
    connection.prepare_cached(keep)?.execute(params![run.is_running, up_to, run.jump.0, run.corrected.0])?;
    Ok(progress)
}

fn rows_after(connection: &Connection, after: Option<ProcessId>, most: usize) -> rusqlite::Result<Vec<Timed>> {
    let mut find = connection.prepare_cached(&format!(
        "SELECT {TIMED} FROM process LEFT JOIN lease USING (slot)
         WHERE id > coalesce(:after, x'') ORDER BY id LIMIT :limit + 0"
    ))?;
    let values = named_params! { ":after": after.map(ProcessId::to_bytes), ":limit": limit(most) };
    find.query_map(values, timed_in)?.collect()
}

fn correct_row(
    connection: &Connection,
    now: Moment,
    longest: Duration,
    jump: ClockJump,
    row: &Timed,
) -> rusqlite::Result<()> {
    let mut times = row.times;
    times.correct(row.id, longest, jump, now.since_1970());
    if times == row.times || row.times.due_at == since_1970(SET_ASIDE) {
        return Ok(());
    }
    let due_at = column(times.due_at);
    if let Some(leased_until) = times.leased_until {
        let mut renew = connection.prepare_cached("UPDATE lease SET leased_until = ?, due_at = ? WHERE slot = ?")?;
        renew.execute(params![column(leased_until), due_at, row.slot])?;
        let mut limit_ping = connection.prepare_cached("UPDATE process SET not_before = ? WHERE slot = ?")?;
        return limit_ping.execute(params![times.not_before.map(column), row.slot]).map(drop);
    }
    let mut put = connection.prepare_cached("UPDATE process SET due_at = ?, not_before = ? WHERE slot = ?")?;
    put.execute(params![due_at, times.not_before.map(column), row.slot]).map(drop)
}
