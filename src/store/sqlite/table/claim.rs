//! Claiming work.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{SET_ASIDE, cancellation_at, due_times, key_at, state_at, with_keys};
use crate::store::column::limit;
use crate::store::rules::due_if_orphaned;
use crate::store::sqlite::moment::{Moment, column, since_1970};
use crate::store::{Claim, ClaimQuota, Claimed, NextDue, Partition, ProcessId, SealedBody};

/// The answer to a claim.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) claimed: Vec<Claimed>,
    pub(super) due: Vec<NextDue>,
    pub(super) set_aside: Vec<ProcessId>,
    pub(super) correcting: bool,
}

/// The rows of a quota that are counted together.
#[derive(Clone, Copy)]
enum Kind {
    Verifications,
    Polls,
}

impl Kind {
    /// The condition that the index of each kind has. SQLite uses an index only if its condition occurs in the
    /// statement.
    fn condition(self) -> &'static str {
        match self {
            Self::Verifications => "state IN (0, 2)",
            Self::Polls => "state <= 2 AND state = 1",
        }
    }

    fn most_of(self, quota: &ClaimQuota) -> usize {
        match self {
            Self::Verifications => quota.verifications,
            Self::Polls => quota.polls,
        }
    }

    /// Inserts the condition and the keys.
    fn statement(self, sql: &str, claim: &Claim) -> String {
        with_keys(&sql.replace(":kind", self.condition()), &claim.keys)
    }
}

/// The due times of the rows that a claim can take, for sharing its limit.
const DUE_TIMES: &str = "
        SELECT coalesce(lease.due_at, process.due_at) AS due
         FROM process LEFT JOIN lease USING (slot)
         WHERE process.partition = :partition AND :kind AND process.due_at <= :now AND due <= :now
           AND format <= :format AND key IN (:keys)
         ORDER BY process.due_at LIMIT :limit + 0";

/// Rows that are due and not leased.
const FREE: &str = "
        SELECT slot, id, state, pinged_at IS NOT NULL, cancellation, schedule, format, key, body, interval, due_at, epoch,
                attempts, 0, expires_at
         FROM process LEFT JOIN sealed USING (slot)
         WHERE partition = :partition AND :kind AND due_at <= :now
           AND format <= :format AND key IN (:keys)
           AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.slot = process.slot)
         ORDER BY due_at LIMIT :limit + 0";

/// Due rows whose holders have died.
const ORPHANED: &str = "
        SELECT slot, id, state, pinged_at IS NOT NULL, cancellation, schedule, format, key, body, interval, lease.due_at,
                lease.epoch, lease.attempts, 1, expires_at
         FROM lease JOIN process USING (slot) LEFT JOIN sealed USING (slot)
         WHERE lease.partition = :partition AND :kind AND lease.due_at <= :now
           AND format <= :format AND key IN (:keys)
         ORDER BY lease.due_at LIMIT :limit + 0";

/// The due time of the next row that is not leased.
const NEXT_FREE: &str = "
        SELECT due_at FROM process
         WHERE partition = :partition AND :kind
           AND format <= :format AND key IN (:keys)
           AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.slot = process.slot)
         ORDER BY due_at LIMIT 1";

/// The due time of the next row that is leased.
const NEXT_LEASED: &str = "
        SELECT lease.due_at FROM lease JOIN process USING (slot)
         WHERE lease.partition = :partition AND :kind AND format <= :format AND key IN (:keys)
         ORDER BY lease.due_at LIMIT 1";

/// The statement by which a claim leases a row; see `schema.sql`.
pub(super) const LEASE: &str =
    "REPLACE INTO lease (slot, partition, leased_until, due_at, epoch, attempts) VALUES (?, ?, ?, ?, ?, ?)";

pub(super) fn claim(connection: &Connection, now: Moment, claim: &Claim) -> rusqlite::Result<Claims> {
    let mut claims = Claims { correcting: due_times::is_running(connection)?, ..Claims::default() };
    if !claims.correcting {
        let mut left = claim.limit;
        for kind in [Kind::Verifications, Kind::Polls] {
            for quota in shares(connection, now, claim, kind, left)? {
                left = left.saturating_sub(claim_of(connection, now, claim, kind, &quota, &mut claims)?);
            }
        }
    }
    // After all claims, because they change which rows come next.
    for quota in &claim.quotas {
        let next = |kind| next_in(connection, claim, kind, quota.partition);
        let until = |due_at: Option<i64>| due_at.map(|due_at| now.until(due_at));
        claims
            .due
            .push(NextDue { polls_in: until(next(Kind::Polls)?), verifications_in: until(next(Kind::Verifications)?) });
    }
    Ok(claims)
}

/// Reduces the quotas so that together they are within the limit: the earliest rows of all partitions come first.
fn shares(
    connection: &Connection,
    now: Moment,
    claim: &Claim,
    kind: Kind,
    left: usize,
) -> rusqlite::Result<Vec<ClaimQuota>> {
    let wanted = claim.quotas.iter().map(|quota| kind.most_of(quota)).fold(0, usize::saturating_add);
    if wanted <= left {
        return Ok(claim.quotas.clone());
    }
    let mut due = Vec::new();
    let mut find = connection.prepare_cached(&kind.statement(DUE_TIMES, claim))?;
    for (place, quota) in claim.quotas.iter().enumerate() {
        let values = named_params! {
            ":partition": quota.partition.0,
            ":now": now.0,
            ":format": claim.format,
            ":limit": limit(kind.most_of(quota).min(left)),
        };
        for due_at in find.query_map(values, |row| row.get::<_, i64>(0))? {
            due.push((due_at?, place));
        }
    }
    due.sort_unstable();
    let mut shares: Vec<_> =
        claim.quotas.iter().map(|quota| ClaimQuota { polls: 0, verifications: 0, ..*quota }).collect();
    for (_, place) in due.into_iter().take(left) {
        if let Some(share) = shares.get_mut(place) {
            (share.polls, share.verifications) = (share.polls + 1, share.verifications + 1);
        }
    }
    shares.retain(|share| share.polls > 0);
    Ok(shares)
}

/// A row that a claim can take.
struct Due {
    slot: i64,
    due_at: i64,
    interval: i64,
    expires_at: Option<i64>,
    row: Claimed,
    has_body: bool,
}

/// Claims the rows of one kind and partition, and returns how many it has taken or set aside.
fn claim_of(
    connection: &Connection,
    now: Moment,
    claim: &Claim,
    kind: Kind,
    quota: &ClaimQuota,
    claims: &mut Claims,
) -> rusqlite::Result<usize> {
    let most = kind.most_of(quota);
    let due = due(connection, now, claim, kind, quota.partition, most)?;
    let taken = due.len();
    let leased_until = now.plus(claim.lease);
    let mut lease = connection.prepare_cached(LEASE)?;
    let mut take_ping =
        connection.prepare_cached("UPDATE process SET pinged_at = NULL, not_before = NULL WHERE slot = ?")?;
    for Due { slot, interval, expires_at, row, has_body, .. } in due {
        if !has_body {
            set_aside(connection, slot, &row)?;
            claims.set_aside.push(row.id);
            continue;
        }
        let due_at = due_if_orphaned(since_1970(leased_until), since_1970(interval), expires_at.map(since_1970));
        let due_at = column(due_at);
        lease.execute(params![slot, quota.partition.0, leased_until, due_at, row.epoch, row.attempts])?;
        if row.pinged {
            take_ping.execute([slot])?;
        }
        claims.claimed.push(row);
    }
    Ok(taken)
}

/// The due rows of one kind and partition, earliest first.
fn due(
    connection: &Connection,
    now: Moment,
    claim: &Claim,
    kind: Kind,
    partition: Partition,
    most: usize,
) -> rusqlite::Result<Vec<Due>> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let values = named_params! {
        ":partition": partition.0,
        ":now": now.0,
        ":format": claim.format,
        ":limit": limit(most),
    };
    let mut free = connection.prepare_cached(&kind.statement(FREE, claim))?;
    let mut due: Vec<_> = free.query_map(values, |row| due_in(row, partition))?.collect::<rusqlite::Result<_>>()?;
    let mut orphaned = connection.prepare_cached(&kind.statement(ORPHANED, claim))?;
    let free = due.len();
    for row in orphaned.query_map(values, |row| due_in(row, partition))? {
        due.push(row?);
    }
    if due.len() > free {
        due.sort_by_key(|row| row.due_at);
        due.truncate(most);
    }
    Ok(due)
}

/// Reads a row as it is after the claim. Columns are read by index, because looking up names is slow for thousands of
/// rows.
fn due_in(row: &Row<'_>, partition: Partition) -> rusqlite::Result<Due> {
    let body: Option<Vec<u8>> = row.get(8)?;
    let has_body = body.is_some();
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
        body: SealedBody { format: row.get(6)?, key: key_at(row, 7)?, bytes: body.unwrap_or_default() },
    };
    Ok(Due {
        slot: row.get(0)?,
        due_at: row.get(10)?,
        interval: row.get(9)?,
        expires_at: row.get(14)?,
        row: claimed,
        has_body,
    })
}

/// Sets a row without a body aside: it does not become due again.
fn set_aside(connection: &Connection, slot: i64, row: &Claimed) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached("UPDATE process SET due_at = ?, epoch = ?, attempts = ? WHERE slot = ?")?;
    put.execute(params![SET_ASIDE, row.epoch, row.attempts, slot])?;
    connection.prepare_cached("DELETE FROM lease WHERE slot = ?")?.execute([slot]).map(drop)
}

/// The due time of the earliest row that the claim could take without its limits.
fn next_in(connection: &Connection, claim: &Claim, kind: Kind, partition: Partition) -> rusqlite::Result<Option<i64>> {
    let values = named_params! { ":partition": partition.0, ":format": claim.format };
    let mut free = connection.prepare_cached(&kind.statement(NEXT_FREE, claim))?;
    let free: Option<i64> = free.query_row(values, |row| row.get(0)).optional()?;
    let mut leased = connection.prepare_cached(&kind.statement(NEXT_LEASED, claim))?;
    let leased: Option<i64> = leased.query_row(values, |row| row.get(0)).optional()?;
    Ok([free, leased].into_iter().flatten().min().filter(|due_at| *due_at != SET_ASIDE))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    const STATEMENTS: [&str; 5] = [DUE_TIMES, FREE, ORPHANED, NEXT_FREE, NEXT_LEASED];
    const PARTITIONS: i64 = 400;

    fn file() -> Connection {
        let file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../schema.sql")).unwrap();
        file.execute_batch(include_str!("../schema_2.sql")).unwrap();
        file.execute_batch(include_str!("../schema_3.sql")).unwrap();
        file.set_prepared_statement_cache_capacity(64);
        file
    }

    fn claim_of_all() -> Claim {
        let quota = |partition| ClaimQuota { partition: Partition(partition), polls: 64, verifications: 16 };
        let quotas = (0..PARTITIONS).map(quota).collect();
        Claim { quotas, limit: 100, lease: std::time::Duration::from_secs(60), format: 1, keys: vec![[1; 4]] }
    }

    #[test]
    fn every_statement_finds_its_rows_by_an_index() {
        let file = file();
        for kind in [Kind::Verifications, Kind::Polls] {
            for sql in STATEMENTS {
                let explain = format!("EXPLAIN QUERY PLAN {}", kind.statement(sql, &claim_of_all()));
                let mut explain = file.prepare(&explain).unwrap();
                let plan: Vec<String> =
                    explain.raw_query().mapped(|row| row.get("detail")).collect::<Result<_, _>>().unwrap();
                assert!(plan.iter().all(|step| !step.starts_with("SCAN") && !step.contains("TEMP B-TREE")), "{plan:?}");
            }
        }
    }

    #[test]
    fn the_cost_of_a_claim_for_many_partitions_does_not_depend_on_the_leases_of_others() {
        let steps = |leases: i64| {
            let file = file();
            for slot in 1..=leases {
                let insert = "INSERT INTO process (slot, id, partition, state, due_at, interval, schedule, format, key, first_key)
                              VALUES (?, randomblob(16), -1, 1, 1, 1, '', 1, 16843009, 16843009)";
                file.execute(insert, [slot]).unwrap();
                file.execute("INSERT INTO lease VALUES (?, -1, 2000000, 2000000, 1, 1)", [slot]).unwrap();
            }
            let claims = claim(&file, Moment(1_000_000), &claim_of_all()).unwrap();
            assert!(claims.claimed.is_empty() && claims.due.len() == claim_of_all().quotas.len());
            let of = |kind: Kind, sql| {
                let statement = file.prepare_cached(&kind.statement(sql, &claim_of_all())).unwrap();
                i64::from(statement.get_status(StatementStatus::VmStep))
            };
            STATEMENTS.iter().map(|sql| of(Kind::Polls, sql) + of(Kind::Verifications, sql)).sum::<i64>()
        };
        assert!(steps(10) > 0);
        assert_eq!(steps(10), steps(1_000));
    }
}
