//! The plans that PostgreSQL makes for the statements of a store.

use std::time::Duration;

use openid_deferred::store::{
    Acceptance, Acknowledgement, Among, Cancellation, ClientNote, HeldOutcome, Listing, Next, OutcomeClaim, Ping,
    PostgresStore, Settlement, Store as _,
};

use crate::postgres::{Schema, store_of, until_ended};
use crate::{KEY, PARTITION, claim, fingerprint, id, waiting, with};

const ROWS: i64 = 50_000;

/// Takes a sign-in through all calls of a poller, from its insertion to its end.
async fn all_calls(store: &PostgresStore, number: u32) {
    let id = id(number);
    store.insert(waiting(number)).await.unwrap();
    assert!(store.load(id).await.unwrap().is_some());
    store.ping(Ping::new(Some(id), vec![fingerprint(number)])).await.unwrap();
    store.cancel(id, Cancellation::Requested).await.unwrap();
    let mut claimed = store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed;
    claimed.extend(store.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed);
    assert!(claimed.iter().any(|claimed| claimed.id == id));
    let decided = |claimed: openid_deferred::store::Claimed| {
        with(Settlement::new(claimed.id, Next::Decided { provisional: false }), |settlement| {
            settlement.epoch = Some(claimed.epoch);
        })
    };
    store.settle_and_claim(claimed.into_iter().map(decided).collect(), Some(claim(1))).await.unwrap();
    let outcomes = OutcomeClaim::new(9, Duration::from_secs(300), 1, vec![KEY]);
    let held: Vec<_> = store.claim_outcomes(outcomes).await.unwrap().claimed.iter().map(|one| one.held).collect();
    assert!(held.iter().any(|held: &HeldOutcome| held.id == id));
    store.extend_outcomes(held.clone(), Duration::from_secs(300)).await.unwrap();
    store.release_outcomes(held.clone(), Duration::from_secs(300)).await.unwrap();
    let acknowledged = held.iter().map(|held| Acknowledgement::new(held.id, Duration::ZERO)).collect();
    store.acknowledge(acknowledged).await.unwrap();
    store.purge(9).await.unwrap();
    operators_calls(store, number).await;
}

/// What operators call, for a page in the middle of the tables.
async fn operators_calls(store: &PostgresStore, number: u32) {
    let id = id(1_000_000 + number);
    store.insert(with(waiting(1_000_000 + number), |row| row.references = vec![fingerprint(number)])).await.unwrap();
    let amongs = [Among::All, Among::Ids(vec![id]), Among::References(vec![fingerprint(number)])];
    for among in amongs {
        let listing = with(Listing::new(10), |listing| listing.among = among.clone());
        assert!(!store.list(listing).await.unwrap().rows.is_empty(), "{among:?}");
    }
    let overdue = with(Listing::new(10), |listing| listing.overdue_for = Some(Duration::ZERO));
    assert!(store.list(overdue).await.unwrap().rows.iter().any(|row| row.id == id));
    let note = ClientNote::new(PARTITION, "https://op.test", "the-app").acceptance(Acceptance::Refused);
    store.note_clients(vec![note]).await.unwrap();
    assert_eq!(store.known_clients(vec![PARTITION]).await.unwrap().len(), 1);
    store.bring_forward(id).await.unwrap();
    store.requeue(id).await.unwrap();
    assert_eq!(store.export(None, 10).await.unwrap().len().min(1), 1);
    assert_eq!(store.erase(id).await.unwrap().left, 0);
}

/// Inserts waiting rows and unclaimed outcomes, as the statements of the store write them.
async fn fill(schema: &Schema) {
    let fill = format!(
        "INSERT INTO process (id, partition, poll_interval, key, state, format, has_lookup, due_at, not_before, schedule)
         SELECT decode(md5(number::text), 'hex'), {}, '1 h', {}, CASE WHEN number % 2 = 0 THEN 1 ELSE 3 END, 1, true,
                clock() + interval '1 hour', clock(), 'schedule' FROM generate_series(1, {ROWS}) AS number;
         INSERT INTO origin (id, session, lookup, first_key)
         SELECT decode(md5(number::text), 'hex'), sha256(decode(md5(number::text), 'hex')),
                sha256('l' || decode(md5(number::text), 'hex')), 1 FROM generate_series(1, {ROWS}) AS number;
         INSERT INTO reference (id, reference)
         SELECT decode(md5(number::text), 'hex'), sha256(decode(md5(number::text), 'hex'))
         FROM generate_series(1, {ROWS}) AS number;
         INSERT INTO sealed (id, body)
         SELECT decode(md5(number::text), 'hex'), decode(md5(number::text), 'hex')
         FROM generate_series(1, {ROWS}) AS number;",
        PARTITION.0,
        u32::from_be_bytes(KEY),
    );
    schema.execute(&fill).await;
}

async fn rows_scanned(admin: &tokio_postgres::Client, schema: &str) -> i64 {
    let sql = "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables
               WHERE schemaname = $1 AND relname IN ('process', 'origin', 'sealed', 'reference')";
    admin.query_one(sql, &[&schema]).await.unwrap().get(0)
}

/// A plan is kept until the statistics of a table change, which autovacuum updates about once a minute while a table
/// grows.
#[tokio::test]
async fn a_plan_made_for_empty_tables_uses_indexes_when_the_tables_have_grown() {
    let schema = Schema::new().await;
    schema.store().await;
    for table in ["process", "origin", "sealed", "reference"] {
        schema.execute(&format!("ALTER TABLE {table} SET (autovacuum_enabled = false)")).await;
    }
    let application = format!("plans_{}", std::process::id());
    let store = store_of(&schema, &application).await;
    for number in 0..8 {
        all_calls(&store, number).await;
    }
    fill(&schema).await;
    schema.execute("ANALYZE process, origin, sealed, reference").await;
    let rounds = 8;
    for number in 0..rounds {
        all_calls(&store, 100 + number).await;
    }
    drop(store);
    until_ended(&schema.admin, &application).await;
    let scanned = rows_scanned(&schema.admin, &schema.name).await;
    // A statement that scans a table reads all of its rows in each round.
    assert!(scanned < ROWS, "{scanned} rows were read one by one");
}
