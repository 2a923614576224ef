//! Replicas on PostgreSQL that notify each other of changes.
#![expect(clippy::disallowed_methods, reason = "servers and sockets are real, and so is time")]

use std::time::{Duration, Instant};

use openid_deferred::store::{
    Changed, HeldOutcome, Next, OutcomeClaim, Ping, Pinged, PostgresStore, SealedBody, Settlement, Store,
};

use crate::postgres::{Schema, url};
use crate::{KEY, PARTITION, claim, fingerprint, id, waiting, with};

/// The longest wait for an expected event.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for the next change that a replica reports.
async fn heard(changed: impl Future<Output = Changed>) -> Changed {
    tokio::time::timeout(PATIENCE, changed).await.expect("it hears of it")
}

/// Replicas that would not query the store by themselves, and that listen.
async fn replicas(schema: &Schema) -> [PostgresStore; 2] {
    schema.store().await;
    let config: tokio_postgres::Config = url().parse().unwrap();
    let (host, port) = ("127.0.0.1", config.get_ports()[0]);
    let (user, password) = (config.get_user().unwrap(), str::from_utf8(config.get_password().unwrap()).unwrap());
    let address = format!(
        "host={host} port={port} user={user} password={password} dbname={} application_name='{}'",
        config.get_dbname().unwrap(),
        schema.name
    );
    let replica = async || {
        let builder = PostgresStore::builder(&address).schema(&schema.name).check_interval(Duration::from_secs(3600));
        let store = builder.notifications().connect().await.unwrap();
        // When it begins to listen, it reports that anything may have changed.
        let begun = Instant::now();
        while listeners(schema).await == 0 {
            assert!(begun.elapsed() < PATIENCE);
        }
        store
    };
    [replica().await, replica().await]
}

async fn listeners(schema: &Schema) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND query LIKE '%pg_backend_pid%'";
    schema.admin.query_one(sql, &[&schema.name]).await.unwrap().get(0)
}

/// Pings until the other replica has received one, because it may not listen yet.
async fn until_a_ping_is_heard(from: &PostgresStore, to: &PostgresStore) {
    let begun = Instant::now();
    loop {
        let changed = to.changed();
        let pinged = from.ping(Ping::new(Some(id(1)), vec![fingerprint(1)])).await.unwrap();
        assert_eq!(pinged, Pinged::Recorded { id: id(1), partition: PARTITION });
        let short = Duration::from_millis(500);
        if tokio::time::timeout(short, changed).await.is_ok_and(|changed| changed == Changed::WORK) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn a_ping_and_an_outcome_at_one_replica_notify_the_other_one() {
    let schema = Schema::new().await;
    let [one, other] = replicas(&schema).await;
    one.insert(waiting(1)).await.unwrap();
    until_a_ping_is_heard(&one, &other).await;
    until_a_ping_is_heard(&other, &one).await;

    let claimed = one.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed;
    let changed = other.changed();
    let decided = with(Settlement::new(id(1), Next::Decided { provisional: false }), |decided| {
        decided.epoch = Some(claimed[0].epoch);
        decided.body = Some(SealedBody::new(1, KEY, b"body".to_vec()));
    });
    one.settle_and_claim(vec![decided], None).await.unwrap();
    assert_eq!(heard(changed).await, Changed::OUTCOMES);

    // A replica that gives an outcome back notifies the others.
    let outcomes = OutcomeClaim::new(1, Duration::from_secs(60), 1, vec![KEY]);
    let held: Vec<HeldOutcome> =
        one.claim_outcomes(outcomes).await.unwrap().claimed.iter().map(|claimed| claimed.held).collect();
    let changed = other.changed();
    assert_eq!(one.extend_outcomes(held, Duration::ZERO).await.unwrap(), [true]);
    assert_eq!(heard(changed).await, Changed::OUTCOMES);
}

#[tokio::test]
async fn a_lost_listening_connection_is_restored() {
    let schema = Schema::new().await;
    let [one, other] = replicas(&schema).await;
    one.insert(waiting(1)).await.unwrap();
    until_a_ping_is_heard(&one, &other).await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
    let mut changed = other.changed();
    schema.admin.query(cut, &[&schema.name]).await.unwrap();
    // Changes during the interruption are unknown. Before that it may report an earlier ping.
    while heard(changed).await != Changed::ALL {
        changed = other.changed();
    }
    // The pool's own connections were cut too.
    let begun = Instant::now();
    while one.load(id(1)).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
    until_a_ping_is_heard(&one, &other).await;
}
