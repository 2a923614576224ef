//! The calls for operators: listing, releasing, erasing with a proof.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::problem::Refusal;
use super::row::{
    DUE_AT, attempts_in, bytes_of, bytes_of_all, cancellation_in, format_in, id_in, key_in, partition_in, state_in,
    until,
};
use super::session::{Parameter, Session, value};
use super::upkeep;
use crate::store::column::{limit, micros};
use crate::store::listing::{Look, ROWS_PER_SCAN, page};
use crate::store::{Among, Erased, Listing, Page, Pinged, Place, ProcessId, Requeued, RowOverview, State, StoreError};

/// The longest time that a row can be overdue. A longer one would be out of PostgreSQL's range.
const LONGEST_OVERDUE: Duration = Duration::from_secs(365_000 * 86_400);

/// The rest of each row is looked up one by one; see `KEYS` in [`upkeep`].
const LOOK: &str = "
WITH RECURSIVE clock AS MATERIALIZED (SELECT @.clock() AS now),
:before
step AS MATERIALIZED (:step)
SELECT step.id, partition, state, provisional, cancellation, origin.started_at, expires_at, decided_at,
       NULLIF(:due_at, 'infinity') AS due_at, NULLIF(lease_ends_at, '-infinity') AS leased_until, not_before, pinged_at,
       epoch, attempts, schedule, format, key, body.found IS NOT NULL AS has_body, place, clock.now
FROM clock LEFT JOIN step ON true
LEFT JOIN LATERAL (SELECT started_at FROM @.origin AS origin WHERE origin.id = step.id OFFSET 0) AS origin ON true
LEFT JOIN LATERAL (SELECT true AS found FROM @.sealed AS sealed WHERE sealed.id = step.id OFFSET 0) AS body ON true
ORDER BY place, step.id";

const ALL: &str = "
    SELECT 0::bigint AS place, process.* FROM @.process AS process WHERE id > $1::bytea ORDER BY id LIMIT $2::bigint";

const WITH_IDS: &str = "
    SELECT 0::bigint AS place, process.* FROM @.process AS process
    WHERE id = ANY($3::bytea[]) AND id > $1::bytea ORDER BY id LIMIT $2::bigint";

const NAMED: &str = "
named AS MATERIALIZED (
    SELECT DISTINCT id FROM @.reference WHERE reference = ANY($3::bytea[]) AND id > $1::bytea
    ORDER BY id LIMIT $2::bigint
),";

const WITH_REFERENCES: &str = "
    SELECT 0::bigint AS place, process.* FROM named
    CROSS JOIN LATERAL (SELECT * FROM @.process AS process WHERE process.id = named.id OFFSET 0) AS process";

/// All partitions with rows of a kind.
const PARTITIONS: &str = "
listed AS (
    (SELECT partition FROM @.process WHERE :kind ORDER BY partition LIMIT 1)
    UNION ALL
    SELECT (SELECT partition FROM @.process AS process WHERE :kind AND process.partition > listed.partition
            ORDER BY partition LIMIT 1)
    FROM listed WHERE listed.partition IS NOT NULL
),
bounds AS MATERIALIZED (
    SELECT timestamptz 'epoch' + $3::bigint * interval '1 microsecond' AS since,
           now - $4::bigint * interval '1 microsecond' AS latest
    FROM clock
),";

/// Rows of a kind that are due, in the order of due times, claimed or not.
const DUE: &str = "
    SELECT (extract(epoch FROM found.due_at) * 1000000)::bigint AS place, found.*
    FROM listed CROSS JOIN LATERAL (
        SELECT process.* FROM @.process AS process
        WHERE process.partition = listed.partition AND :kind
          AND due_at BETWEEN (SELECT since FROM bounds) AND (SELECT latest FROM bounds)
          AND (due_at, id) > ((SELECT since FROM bounds), $1::bytea)
        ORDER BY due_at, id LIMIT $2::bigint
    ) AS found
    WHERE listed.partition IS NOT NULL AND ($5::bigint IS NULL OR listed.partition = $5::bigint)
    ORDER BY found.due_at, found.id LIMIT $2::bigint";

/// The kinds of rows that become due, with the states of each. The conditions are those of the indexes.
const KINDS: [(&str, &[State]); 3] = [
    ("state IN (0, 2)", &[State::Exchanging, State::Answered]),
    ("state = 1", &[State::Waiting]),
    ("state = 3", &[State::Decided]),
];

pub(super) async fn list(session: &Session<'_>, listing: &Listing) -> Result<Page, StoreError> {
    let most = limit(ROWS_PER_SCAN.max(listing.limit));
    let after = listing.after.map_or_else(Vec::new, |after| after.id.to_bytes().to_vec());
    let mut parameters: Vec<Parameter<'_>> = vec![(&after, Type::BYTEA), (&most, Type::INT8)];
    let (before, step, wanted) = match (&listing.among, listing.overdue_for) {
        (Among::All, Some(overdue_for)) => return list_due(session, listing, overdue_for).await,
        (Among::All, None) => ("", ALL, None),
        (Among::Ids(ids), _) => ("", WITH_IDS, Some(bytes_of(ids.iter().copied()))),
        (Among::References(references), _) => {
            let references = bytes_of_all(references).into_iter().map(<[u8]>::to_vec).collect();
            (NAMED, WITH_REFERENCES, Some(references))
        }
    };
    if let Some(wanted) = &wanted {
        parameters.push((wanted, Type::BYTEA_ARRAY));
    }
    let (look, now) = look(session, before, step, &parameters, ROWS_PER_SCAN.max(listing.limit)).await?;
    Ok(page(listing, vec![look], now))
}

async fn list_due(session: &Session<'_>, listing: &Listing, overdue_for: Duration) -> Result<Page, StoreError> {
    let most = listing.limit.clamp(1, ROWS_PER_SCAN);
    let after = listing.after.map_or_else(Vec::new, |after| after.id.to_bytes().to_vec());
    let since = listing.after.map_or(0, |after| after.order);
    let partition = listing.partition.map(|partition| partition.0);
    let (mut looks, mut read_at) = (Vec::new(), SystemTime::UNIX_EPOCH);
    for (kind, states) in KINDS {
        if !listing.states.is_empty() && !states.iter().any(|state| listing.states.contains(state)) {
            continue;
        }
        let (before, step) = (PARTITIONS.replace(":kind", kind), DUE.replace(":kind", kind));
        let parameters: [Parameter<'_>; 5] = [
            (&after, Type::BYTEA),
            (&limit(most), Type::INT8),
            (&since, Type::INT8),
            (&micros(overdue_for.min(LONGEST_OVERDUE)), Type::INT8),
            (&partition, Type::INT8),
        ];
        let (look, now) = look(session, &before, &step, &parameters, most).await?;
        looks.push(look);
        read_at = now;
    }
    if looks.is_empty() {
        let rows = session.query("SELECT @.clock() AS now", &[]).await?;
        read_at = value(rows.first().ok_or(Refusal::Row("now"))?, "now")?;
    }
    Ok(page(listing, looks, read_at))
}

/// Reads the rows of a step, which had this limit, and the database's time.
async fn look(
    session: &Session<'_>,
    before: &str,
    step: &str,
    parameters: &[Parameter<'_>],
    most: usize,
) -> Result<(Look, SystemTime), StoreError> {
    let sql = LOOK.replace(":before", before).replace(":step", step).replace(":due_at", DUE_AT);
    let found = session.query(&sql, parameters).await?;
    let now = value(found.first().ok_or(Refusal::Row("now"))?, "now")?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        // Without any row there is one with the time only.
        if value::<Option<&[u8]>>(row, "id")?.is_some() {
            rows.push(overview_in(row)?);
        }
    }
    Ok((Look::limited(rows, most), now))
}

fn overview_in(row: &Row) -> Result<RowOverview, StoreError> {
    let id = id_in(row)?;
    Ok(RowOverview {
        id,
        place: Place { order: value(row, "place")?, id },
        partition: partition_in(row)?,
        state: state_in(row)?,
        provisional: value(row, "provisional")?,
        cancellation: cancellation_in(row)?,
        started_at: value(row, "started_at")?,
        expires_at: value(row, "expires_at")?,
        decided_at: value(row, "decided_at")?,
        due_at: value(row, "due_at")?,
        leased_until: value(row, "leased_until")?,
        not_before: value(row, "not_before")?,
        pinged_at: value(row, "pinged_at")?,
        epoch: value(row, "epoch")?,
        attempts: attempts_in(row)?,
        schedule: value(row, "schedule")?,
        format: format_in(row)?,
        key: key_in(row)?,
        has_body: value(row, "has_body")?,
    })
}

const BRING_FORWARD: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
target AS MATERIALIZED (SELECT id, state, partition FROM @.process WHERE id = $1::bytea FOR UPDATE),
brought AS (
    UPDATE @.process AS process SET pinged_at = now, due_at = LEAST(due_at, GREATEST(now, not_before + poll_interval))
    FROM target, clock
    WHERE process.id = target.id AND process.state <= 1 AND lease_ends_at IS NULL AND not_before IS NOT NULL
)
SELECT id, state, partition FROM target";

pub(super) async fn bring_forward(session: &Session<'_>, id: ProcessId) -> Result<Pinged, StoreError> {
    let rows = session.query(BRING_FORWARD, &[(&id.to_bytes().as_slice(), Type::BYTEA)]).await?;
    let Some(row) = rows.first() else { return Ok(Pinged::NotFound) };
    match state_in(row)? > State::Waiting {
        true => Ok(Pinged::Ended(id)),
        false => Ok(Pinged::Recorded { id, partition: partition_in(row)? }),
    }
}

const REQUEUE: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
target AS MATERIALIZED (
    SELECT id, state, partition, due_at, lease_ends_at,
           EXISTS (SELECT 1 FROM @.sealed AS sealed WHERE sealed.id = process.id) AS has_body
    FROM @.process AS process WHERE id = $1::bytea FOR UPDATE
),
judged AS MATERIALIZED (
    SELECT target.*, now, state <= 2 AND lease_ends_at IS NOT NULL AND lease_ends_at > now AS leased,
           CASE WHEN state = 4 OR NOT has_body THEN false
                WHEN state <= 1 AND lease_ends_at > now THEN false
                WHEN state = 2 AND lease_ends_at > now THEN true
                WHEN state = 3 AND due_at > now THEN true
                ELSE due_at = 'infinity' END AS releases
    FROM target, clock
),
released AS (
    UPDATE @.process AS process SET due_at = now, lease_ends_at = NULL, epoch = epoch + 1
    FROM judged WHERE process.id = judged.id AND releases
)
SELECT state, partition, has_body, releases, CASE WHEN leased THEN lease_ends_at END AS leased_until, now FROM judged";

pub(super) async fn requeue(session: &Session<'_>, id: ProcessId) -> Result<Requeued, StoreError> {
    let rows = session.query(REQUEUE, &[(&id.to_bytes().as_slice(), Type::BYTEA)]).await?;
    let Some(row) = rows.first() else { return Ok(Requeued::NotFound) };
    let (state, lease) = (state_in(row)?, until(row, "leased_until", value(row, "now")?)?);
    Ok(match (state, lease) {
        (State::Acknowledged, _) => Requeued::NotFound,
        _ if !value::<bool>(row, "has_body")? => Requeued::NoBody,
        _ if value(row, "releases")? => Requeued::Done { partition: partition_in(row)?, state },
        (_, Some(ends_in)) => Requeued::InUse { ends_in },
        (_, None) => Requeued::Free,
    })
}

const ENTRIES: &str = "
SELECT (SELECT count(*) FROM @.process WHERE id = $1::bytea) + (SELECT count(*) FROM @.origin WHERE id = $1::bytea)
     + (SELECT count(*) FROM @.sealed WHERE id = $1::bytea) + (SELECT count(*) FROM @.reference WHERE id = $1::bytea)
       AS entries";

/// Must be called in a transaction.
pub(super) async fn erase(session: &Session<'_>, id: ProcessId) -> Result<Erased, StoreError> {
    let entries = async || {
        let rows = session.query(ENTRIES, &[(&id.to_bytes().as_slice(), Type::BYTEA)]).await?;
        let entries: i64 = value(rows.first().ok_or(Refusal::Row("entries"))?, "entries")?;
        Ok::<_, StoreError>(u64::try_from(entries).unwrap_or(0))
    };
    let erased = entries().await?;
    upkeep::forget(session, id).await?;
    Ok(Erased { erased, left: entries().await? })
}
