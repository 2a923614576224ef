//! Insertions, settlements and pings.

use tokio_postgres::types::Type;

use super::claim::{self, Claims};
use super::due_bounds::{DueBounds, Found, Times};
use super::problem::Refusal;
use super::row::{DUE_AT, bytes_of, bytes_of_all, id_in, lookup_in, partition_in, rounds, state_in};
use super::session::{Session, value};
use crate::store::column::{key_number, micros};
use crate::store::{
    Claim, Fingerprint, Insertion, NewProcess, Next, Ping, Pinged, ProcessId, Settled, Settlement, State, StoreError,
    Work,
};

/// Two insertions for the same session may have fingerprints under different keys, whose conflict no unique index
/// detects. They take these locks in the same order, so the second waits for the first.
const LOCK_NAMES: &str = "SELECT pg_advisory_xact_lock(name) FROM UNNEST($1::bigint[]) AS name";

const INSERT: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
found AS MATERIALIZED (
    SELECT id FROM (
        SELECT 1 AS rank, id FROM @.origin WHERE session = ANY($4::bytea[])
        UNION ALL SELECT 2, id FROM @.origin WHERE lookup = ANY($5::bytea[])
        UNION ALL SELECT 3, id FROM @.process WHERE id = $1::bytea
    ) AS candidate ORDER BY rank, id LIMIT 1
),
added AS (
    INSERT INTO @.process (id, partition, state, has_lookup, due_at, lease_ends_at, not_before, poll_interval, schedule,
                           format, key, expires_at)
    SELECT $1::bytea, $2::bigint, $3::smallint, ($5::bytea[])[1] IS NOT NULL,
           now + $6::bigint * interval '1 microsecond',
           CASE WHEN $3::smallint = 0 THEN now + $6::bigint * interval '1 microsecond' END,
           now + $7::bigint * interval '1 microsecond',
           $8::bigint * interval '1 microsecond',
           $9::text, $10::smallint, $11::bigint,
           now + $13::bigint * interval '1 microsecond'
    FROM clock WHERE NOT EXISTS (SELECT FROM found)
    RETURNING id
),
kept AS (
    INSERT INTO @.origin (id, session, lookup, first_key, started_at)
    SELECT id, ($4::bytea[])[1], ($5::bytea[])[1], $11::bigint, now FROM added, clock
),
named AS (
    INSERT INTO @.reference (id, reference)
    SELECT id, ($14::bytea[])[1] FROM added WHERE ($14::bytea[])[1] IS NOT NULL
),
body AS (INSERT INTO @.sealed (id, body) SELECT id, $12::bytea FROM added)
SELECT now, (SELECT id FROM found) AS id FROM clock";

pub(super) async fn insert(session: &Session<'_>, process: &NewProcess) -> Result<Insertion, StoreError> {
    let names = process.sessions.iter().chain(&process.lookups).map(|name| name.0.as_slice());
    let id = process.id.to_bytes();
    let mut names: Vec<_> = names.chain([id.as_slice()]).map(lock_number).collect();
    names.sort_unstable();
    names.dedup();
    session.query(LOCK_NAMES, &[(&names, Type::INT8_ARRAY)]).await?;
    let rows = session
        .query(
            INSERT,
            &[
                (&id.as_slice(), Type::BYTEA),
                (&process.partition.0, Type::INT8),
                (&(process.state as i16), Type::INT2),
                (&bytes_of_all(&process.sessions), Type::BYTEA_ARRAY),
                (&bytes_of_all(&process.lookups), Type::BYTEA_ARRAY),
                (&micros(process.due_in), Type::INT8),
                (&process.ping_in.map(micros), Type::INT8),
                (&micros(process.interval), Type::INT8),
                (&process.schedule, Type::TEXT),
                (&i16::from(process.body.format), Type::INT2),
                (&key_number(process.body.key), Type::INT8),
                (&process.body.bytes, Type::BYTEA),
                (&process.expires_in.map(micros), Type::INT8),
                (&bytes_of_all(&process.references), Type::BYTEA_ARRAY),
            ],
        )
        .await?;
    let row = rows.first().ok_or(Refusal::Row("insertion"))?;
    let found = value::<Option<&[u8]>>(row, "id")?.is_some().then(|| id_in(row)).transpose()?;
    Ok(match found {
        Some(existing) if existing != process.id => Insertion::Exists(existing),
        _ => Insertion::Inserted { now: value(row, "now")? },
    })
}

fn lock_number(name: &[u8]) -> i64 {
    name.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// Settles and claims. Must be called in a transaction, so that the claim sees the result of the settlements. Bodies
/// are read after the rows are locked, because a statement that waited for a lock may have read an old body. Use the
/// bounds that the claim has found only after the commit.
pub(super) async fn work(
    session: &Session<'_>,
    due_bounds: &DueBounds,
    settlements: &[Settlement],
    claim: Option<&Claim>,
) -> Result<(Work, Option<Found<Times>>), StoreError> {
    let mut settled = vec![Settled::Stale; settlements.len()];
    for round in rounds(settlements, |settlement| settlement.id) {
        let done = settle(session, &round).await?;
        for (place, settlement) in round {
            if let Some(settled) = settled.get_mut(place).filter(|_| done.contains(&settlement.id)) {
                *settled = Settled::Done;
            }
        }
    }
    let look = claim.map(|claim| (claim, due_bounds.scan(claim)));
    let claims = match &look {
        Some((claim, look)) => claim::claim(session, claim, &look.since).await?,
        None => Claims::default(),
    };
    let Claims { claimed, set_aside } = claims;
    let looking = look.as_ref().map(|(claim, look)| (*claim, &look.since));
    let claim::Next { now, due, earliest, correcting, corrected } = claim::next(session, looking, &claimed).await?;
    let found = look.map(|(_, look)| look.found(earliest, now));
    Ok((Work { now, settled, claimed, due, set_aside, correcting, corrected }, found))
}

const SETTLE: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
input AS MATERIALIZED (
    SELECT id, epoch, state, provisional, schedule, lookup, format, key, body, now,
           now + expires_in * interval '1 microsecond' AS expires_at,
           now + due_in * interval '1 microsecond' AS due_at,
           now + ping_in * interval '1 microsecond' AS not_before,
           poll_interval * interval '1 microsecond' AS poll_interval
    FROM clock, UNNEST($1::bytea[], $2::bigint[], $3::smallint[], $4::boolean[], $5::bigint[], $6::bigint[],
                       $7::bigint[], $8::text[], $9::bytea[], $10::smallint[], $11::bigint[], $12::bytea[],
                       $13::bigint[])
         AS input (id, epoch, state, provisional, due_in, ping_in, poll_interval, schedule, lookup, format, key, body,
                   expires_in)
),
locked AS MATERIALIZED (SELECT id FROM @.process WHERE id = ANY($1::bytea[]) ORDER BY id FOR UPDATE),
settled AS (
    UPDATE @.process AS process SET
        state = input.state,
        provisional = input.provisional,
        lease_ends_at = NULL,
        schedule = input.schedule,
        poll_interval = input.poll_interval,
        expires_at = input.expires_at,
        spread = false,
        decided_at = CASE WHEN input.state = 3 THEN input.now ELSE process.decided_at END,
        attempts = CASE WHEN process.state = input.state THEN process.attempts ELSE 0 END,
        epoch = process.epoch + CASE WHEN input.epoch IS NULL THEN 1 ELSE 0 END,
        not_before = input.not_before,
        due_at = CASE WHEN input.state = 1 AND process.pinged_at IS NOT NULL
                      THEN LEAST(input.due_at, input.not_before) ELSE input.due_at END,
        has_lookup = process.has_lookup OR input.lookup IS NOT NULL,
        format = COALESCE(input.format, process.format),
        key = COALESCE(input.key, process.key),
        revision = process.revision + CASE WHEN input.body IS NULL THEN 0 ELSE 1 END
    FROM input JOIN locked USING (id)
    WHERE process.id = input.id
      AND (input.lookup IS NULL OR NOT process.has_lookup)
      AND CASE WHEN input.epoch IS NULL THEN process.state <= 1 OR (process.state = 3 AND process.provisional)
               ELSE process.state <= 2 AND process.epoch = input.epoch END
    RETURNING process.id
),
named AS (
    UPDATE @.origin AS origin SET lookup = input.lookup FROM settled JOIN input USING (id)
    WHERE origin.id = input.id AND input.lookup IS NOT NULL
),
replaced AS (
    INSERT INTO @.sealed (id, body)
    SELECT id, input.body FROM settled JOIN input USING (id) WHERE input.body IS NOT NULL AND input.state <> 4
    ON CONFLICT (id) DO UPDATE SET body = excluded.body
),
erased AS (
    DELETE FROM @.sealed AS sealed USING settled JOIN input USING (id) WHERE sealed.id = input.id AND input.state = 4
)
SELECT id FROM settled";

/// Applies settlements of different rows, and returns the rows of those that applied.
async fn settle(session: &Session<'_>, round: &[(usize, &Settlement)]) -> Result<Vec<ProcessId>, StoreError> {
    let all = || round.iter().map(|(_, settlement)| *settlement);
    let (states, provisional): (Vec<_>, Vec<_>) = all().map(|settlement| outcome(settlement.next)).unzip();
    let bodies = || all().map(|settlement| settlement.body.as_ref());
    let formats: Vec<_> = bodies().map(|body| body.map(|body| i16::from(body.format))).collect();
    let keys: Vec<_> = bodies().map(|body| body.map(|body| key_number(body.key))).collect();
    let bodies: Vec<_> = bodies().map(|body| body.map(|body| body.bytes.as_slice())).collect();
    let lookups: Vec<_> = all().map(|settlement| settlement.lookup.map(|Fingerprint(bytes)| bytes.to_vec())).collect();
    let rows = session
        .query(
            SETTLE,
            &[
                (&bytes_of(all().map(|settlement| settlement.id)), Type::BYTEA_ARRAY),
                (&all().map(|settlement| settlement.epoch).collect::<Vec<_>>(), Type::INT8_ARRAY),
                (&states, Type::INT2_ARRAY),
                (&provisional, Type::BOOL_ARRAY),
                (&all().map(|settlement| micros(settlement.due_in)).collect::<Vec<_>>(), Type::INT8_ARRAY),
                (&all().map(|settlement| settlement.ping_in.map(micros)).collect::<Vec<_>>(), Type::INT8_ARRAY),
                (&all().map(|settlement| micros(settlement.interval)).collect::<Vec<_>>(), Type::INT8_ARRAY),
                (&all().map(|settlement| settlement.schedule.as_str()).collect::<Vec<_>>(), Type::TEXT_ARRAY),
                (&lookups, Type::BYTEA_ARRAY),
                (&formats, Type::INT2_ARRAY),
                (&keys, Type::INT8_ARRAY),
                (&bodies, Type::BYTEA_ARRAY),
                (&all().map(|settlement| settlement.expires_in.map(micros)).collect::<Vec<_>>(), Type::INT8_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(id_in).collect()
}

/// The state, and whether it is provisional.
fn outcome(next: Next) -> (i16, bool) {
    let (state, provisional) = match next {
        Next::Waiting => (State::Waiting, false),
        Next::Answered => (State::Answered, false),
        Next::Decided { provisional } => (State::Decided, provisional),
        Next::Ended => (State::Acknowledged, false),
    };
    (state as i16, provisional)
}

const PING: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
target AS MATERIALIZED (
    SELECT process.id, state, lookup, partition FROM @.process AS process JOIN @.origin AS origin USING (id)
    WHERE (:which) ORDER BY process.id LIMIT 1 FOR UPDATE OF process
),
noted AS (
    UPDATE @.process AS process SET
        pinged_at = now,
        due_at = CASE WHEN lease_ends_at > now OR not_before IS NULL THEN due_at
                      ELSE LEAST(:due_at, GREATEST(now, not_before)) END,
        -- From now on only the due time counts, and the row still counts as orphaned.
        lease_ends_at = CASE WHEN lease_ends_at <= now AND not_before IS NOT NULL THEN '-infinity' ELSE lease_ends_at END
    FROM target, clock
    WHERE process.id = target.id AND process.state <= 1
      AND (target.lookup IS NULL OR target.lookup = ANY($2::bytea[]))
)
SELECT id, state, lookup, partition FROM target";

pub(super) async fn ping(session: &Session<'_>, ping: &Ping) -> Result<Pinged, StoreError> {
    // A separate condition for each case, so that each can use an index.
    let which = match ping.id {
        Some(_) => "process.id = $1::bytea",
        None => "$1::bytea IS NULL AND lookup = ANY($2::bytea[])",
    };
    let id = ping.id.map(|id| id.to_bytes().to_vec());
    let sql = PING.replace(":which", which).replace(":due_at", DUE_AT);
    let rows = session.query(&sql, &[(&id, Type::BYTEA), (&bytes_of_all(&ping.lookups), Type::BYTEA_ARRAY)]).await?;
    let Some(row) = rows.first() else { return Ok(Pinged::NotFound) };
    let (id, state, lookup) = (id_in(row)?, state_in(row)?, lookup_in(row)?);
    Ok(match lookup {
        Some(lookup) if !ping.lookups.contains(&lookup) => Pinged::Mismatch,
        _ if state > State::Waiting => Pinged::Ended(id),
        _ => Pinged::Recorded { id, partition: partition_in(row)? },
    })
}
