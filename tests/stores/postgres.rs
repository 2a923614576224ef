//! `PostgresStore`.

use std::collections::BTreeSet;
use std::env;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::future::join_all;
use openid_deferred::store::{
    Acknowledged, Acknowledgement, Claimed, CorrectionProgress, CorrectionStep, Fingerprint, Insertion, Next,
    OutcomeClaim, Ping, Pinged, PostgresStore, PostgresStoreBuilder, ProcessId, SealedBody, Settled, Settlement, Store,
    StoreError, StoreProblem, contract,
};
use openid_deferred::{Clock as _, SystemClock};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::{claim, fingerprint, id, waiting, with};

pub fn url() -> String {
    url_in("DATABASE_URL")
}

pub fn url_in(variable: &str) -> String {
    let advice = "run scripts/test, or scripts/postgres run cargo test --all-features";
    env::var(variable).unwrap_or_else(|_| panic!("the tests of PostgreSQL need {variable}: {advice}"))
}

/// The URL with one more parameter.
fn url_with(parameter: &str) -> String {
    let url = url();
    format!("{url}{}{parameter}", if url.contains('?') { '&' } else { '?' })
}

/// A schema of its own for each test.
pub struct Schema {
    pub name: String,
    /// A connection that is not the store's.
    pub admin: Client,
    connection: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Schema {
    pub async fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("Test \"{}\" {count}", std::process::id());
        let (admin, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
        let schema = Self { name, admin, connection: JoinSet::from_iter([connection]) };
        schema.admin.batch_execute(&format!("DROP SCHEMA IF EXISTS {} CASCADE", schema.quoted())).await.unwrap();
        schema
    }

    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.name.replace('"', "\"\""))
    }

    pub fn builder(&self) -> PostgresStoreBuilder {
        PostgresStore::builder(&url()).schema(&self.name)
    }

    pub async fn store(&self) -> PostgresStore {
        let store = self.builder().connect().await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    /// The connection without the schema.
    pub fn admin_only(self) -> (Client, JoinSet<Result<(), tokio_postgres::Error>>) {
        (self.admin, self.connection)
    }

    /// Runs SQL with the schema in the search path.
    pub async fn execute(&self, sql: &str) {
        self.admin.batch_execute(&format!("SET search_path TO {}; {sql}", self.quoted())).await.unwrap();
    }
}

/// Two replicas on one schema, with a clock that can be set forward.
#[derive(Clone)]
struct InDatabase {
    schema: Arc<Schema>,
    stores: [Arc<PostgresStore>; 2],
    next: Arc<AtomicUsize>,
}

impl InDatabase {
    async fn new(prepared_statements: bool, url: &str) -> Self {
        let schema = Schema::new().await;
        let builder = PostgresStore::builder(url).schema(&schema.name);
        let builder = if prepared_statements { builder } else { builder.without_prepared_statements() };
        let stores = [builder.clone().connect().await.unwrap(), builder.connect().await.unwrap()].map(Arc::new);
        stores[0].migrate().await.unwrap();
        let clock = format!(
            "CREATE TABLE ahead (ahead interval);
             CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS $$ SELECT clock_timestamp() + ahead FROM {}.ahead $$",
            schema.quoted()
        );
        schema.execute(&clock).await;
        Self { schema: Arc::new(schema), stores, next: Arc::default() }
    }

    /// The same store without rows, as if it were new.
    async fn emptied(&self) -> Self {
        let empty = "TRUNCATE process, origin, sealed, reference, ahead; INSERT INTO ahead VALUES ('0');
                     UPDATE clamp_run SET under_way = false, up_to = '', jump = 0, corrected = 0";
        self.schema.execute(empty).await;
        // The stores learn the time of the database's clock, which has just been set back.
        for store in &self.stores {
            let step = CorrectionStep::new(Duration::ZERO, 1);
            assert_eq!(store.correct_due_times(step).await.unwrap(), CorrectionProgress::Done);
        }
        self.clone()
    }
}

impl contract::Subject for InDatabase {
    fn store(&self) -> Arc<dyn Store> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.stores[next % self.stores.len()].clone()
    }

    fn lose_body(&self, id: ProcessId) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let id: String = id.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            self.schema.execute(&format!("DELETE FROM sealed WHERE id = '\\x{id}'")).await;
            true
        })
    }

    fn advance(&self, duration: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let microseconds = duration.as_micros();
            self.schema.execute(&format!("UPDATE ahead SET ahead = ahead + interval '{microseconds} us'")).await;
        })
    }
}

#[tokio::test]
async fn the_store_fulfils_its_contract() {
    let database = InDatabase::new(true, &url()).await;
    contract::check(async || database.emptied().await).await;
}

#[tokio::test]
async fn the_store_fulfils_its_contract_without_prepared_statements() {
    let database = InDatabase::new(false, &url()).await;
    contract::check(async || database.emptied().await).await;
}

/// A pooler that gives each transaction another server connection and does not support prepared statements.
#[tokio::test]
async fn the_store_fulfils_its_contract_behind_pgbouncer() {
    let database = InDatabase::new(false, &url_in("PGBOUNCER_URL")).await;
    contract::check(async || database.emptied().await).await;
}

pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, StoreError>, problem: StoreProblem, why: &str) {
    let error = result.unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains(why), "{source}");
    assert_eq!(error.problem(), problem, "{source}");
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_does_not_contain_it() {
    let right = url();
    let (start, end) = right.rsplit_once('@').expect("DATABASE_URL is a URL with a password");
    let (user, _) = start.rsplit_once(':').unwrap();
    let connected = PostgresStore::connect(&format!("{user}:not-the-password@{end}")).await;
    let shown = format!("{connected:?} {}", connected.as_ref().unwrap_err());
    assert!(!shown.contains("not-the-password"), "{shown}");
    assert_refused(connected, StoreProblem::Unusable, "password authentication failed");
}

#[tokio::test]
async fn a_broken_connection_string_is_an_error_that_says_where_and_does_not_contain_the_password() {
    for (url, why) in [
        ("nonsense-word", "cannot be parsed"),
        ("postgres://user:w%rd@host/", "cannot be parsed"),
        ("postgres://user:pass/word@host/", "port in the connection string"),
        ("postgres://user:pass?word@host/", "cannot be parsed"),
        ("host=db password=word sslmode=verify", "sslmode in the connection string"),
        ("host=db password=word sslmode=verify-full sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("host=db password=word sslmode=verify-full sslcrl=x", "sslcrl"),
        ("postgres://user:word@host:port/", "port in the connection string"),
        ("postgres://user:word@/", "host in the connection string"),
    ] {
        let connected = PostgresStore::connect(url).await;
        assert!(!format!("{connected:?} {:?}", PostgresStore::builder(url)).contains("word"));
        assert_refused(connected, StoreProblem::Unusable, why);
    }
}

#[tokio::test]
async fn an_unreachable_server_is_a_transient_error() {
    let connected = PostgresStore::connect("postgres://test@127.0.0.1:1/test").await;
    assert_refused(connected, StoreProblem::Unavailable, "error connecting to server");
}

#[tokio::test]
async fn tls_is_required_for_other_machines_unless_the_connection_string_says_otherwise() {
    // 127.0.0.1 under a name that is not obviously this machine's.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let first_request = async |url: String| {
        let connect = async { PostgresStore::connect(&url).await.unwrap_err() };
        let serve = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = [0; 8];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut request).await.unwrap();
            request[4..].to_vec()
        };
        tokio::join!(connect, serve).1
    };
    let hostaddr = "hostaddr=127.0.0.1";
    let tls = 80_877_103_u32.to_be_bytes();
    let version_3 = [0, 3, 0, 0];
    let plain = format!("host=db.example {hostaddr} port={port} user=test dbname=test");
    assert_eq!(first_request(plain.clone()).await, tls);
    assert_eq!(first_request(format!("{plain} sslmode=disable")).await, version_3);
    assert_eq!(first_request(format!("postgres://test@127.0.0.1:{port}/test")).await, version_3);
}

#[tokio::test]
async fn asynchronous_commit_is_refused() {
    let connected = PostgresStore::connect(&url_with("options=-csynchronous_commit%3Doff")).await;
    assert_refused(connected, StoreProblem::Unusable, "synchronous_commit is off");
    // A setting that changes later is noticed by the next connection.
    let schema = Schema::new().await;
    let role = format!("asynchronous_{}", std::process::id());
    schema.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'secret'")).await;
    let rest = url().rsplit_once('@').unwrap().1.to_owned();
    let url = format!("postgres://{role}:secret@{rest}");
    let store = PostgresStore::builder(&url).schema(&schema.name).pool_size(2).connect().await.unwrap();
    schema.execute(&format!("ALTER ROLE {role} SET synchronous_commit = off")).await;
    let results = join_all((0..8).map(|_| store.migrate())).await;
    assert!(results.into_iter().filter_map(Result::err).any(|error| error.problem() == StoreProblem::Unusable));
    schema.execute(&format!("DROP OWNED BY {role} CASCADE")).await;
}

#[tokio::test]
async fn concurrent_replicas_create_the_tables_once() {
    let schema = Schema::new().await;
    let store = schema.builder().connect().await.unwrap();
    assert_refused(store.insert(waiting(1)).await, StoreProblem::Unusable, "run PostgresStore::migrate");
    join_all((0..4).map(|_| store.migrate())).await.into_iter().for_each(Result::unwrap);
    store.insert(waiting(1)).await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.load(id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn the_published_sql_can_be_run_separately_and_the_application_needs_only_access_to_rows() {
    let schema = Schema::new().await;
    let (role, quoted) = (format!("application_{}", std::process::id()), schema.quoted());
    schema.execute(&format!("CREATE SCHEMA {quoted}")).await;
    for _ in 0..2 {
        schema.execute(PostgresStore::SCHEMA).await;
    }
    let grant = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA {quoted} TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {quoted} TO {role}"
    );
    schema.execute(&grant).await;
    let rest = url().rsplit_once('@').unwrap().1.to_owned();
    let url = format!("postgres://{role}:secret@{rest}");
    let store = PostgresStore::builder(&url).schema(&schema.name).connect().await.unwrap();
    store.migrate().await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    assert_eq!(store.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed.len(), 1);
    assert!(store.forget(id(1)).await.unwrap());
    let elsewhere = PostgresStore::builder(&url).schema("elsewhere").connect().await.unwrap();
    assert_refused(elsewhere.migrate().await, StoreProblem::Unusable, "permission denied");
}

/// The tables of the first release, with rows that it left.
#[tokio::test]
async fn tables_of_an_older_version_are_upgraded_and_older_releases_fail() {
    let schema = Schema::new().await;
    schema.execute(&format!("CREATE SCHEMA {}", schema.quoted())).await;
    schema.execute(include_str!("schema_1.sql")).await;
    let rows = "
        INSERT INTO process (id, partition, state, session, lookup, due_at, leased_until, poll_interval, epoch, schedule,
                             format, key, first_key)
        VALUES (decode('00000001808080808080808080808080', 'hex'), 7, 1, decode(repeat('01', 32), 'hex'),
                decode(repeat('02', 32), 'hex'), now() - interval '1 s', now() - interval '1 h', '1 h', 5, 'old', 1,
                4278190338, 4278190338),
               (decode('00000002808080808080808080808080', 'hex'), 7, 0, decode(repeat('03', 32), 'hex'), NULL,
                now() + interval '1 h', now() + interval '1 h', '0', 0, '', 1, 4278190338, 4278190338);
        INSERT INTO sealed SELECT id, 'body' FROM process";
    schema.execute(rows).await;
    let store = schema.builder().connect().await.unwrap();
    assert_refused(store.migrate().await, StoreProblem::Unavailable, "stop all of them");
    // Its replica has stopped, and its lease has expired.
    schema.execute("UPDATE process SET leased_until = now() - interval '1 s' WHERE state = 0").await;
    store.migrate().await.unwrap();
    schema.execute(PostgresStore::SCHEMA).await;
    store.migrate().await.unwrap();
    let claimed = store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.remove(0);
    assert_eq!((claimed.id, claimed.epoch, claimed.orphaned, &*claimed.schedule), (id(1), 6, true, "old"));
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.len(), stats[0].exchanging, stats[0].waiting), (1, 1, 1));
    let ping = Ping::new(None, vec![Fingerprint([2; 32])]);
    assert_eq!(store.ping(ping).await.unwrap(), Pinged::Recorded { id: id(1), partition: crate::PARTITION });
    let same_session = with(waiting(3), |row| row.sessions = vec![Fingerprint([3; 32])]);
    assert_eq!(store.insert(same_session).await.unwrap(), Insertion::Exists(id(2)));
    // The exchange of the second one was in flight.
    let answered = with(settlement(2, 0, "answered"), |answered| {
        answered.epoch = None;
        answered.lookup = Some(fingerprint(2));
    });
    let twice = store.settle_and_claim(vec![answered.clone(), answered], None).await.unwrap();
    assert_eq!(twice.settled, [Settled::Done, Settled::Stale]);

    let old = "UPDATE process SET leased_until = NULL";
    let refused = schema.admin.batch_execute(old).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("leased_until"), "{refused}");
    schema.execute("INSERT INTO schema_version (version, oldest) VALUES (99, 6)").await;
    assert_refused(store.migrate().await, StoreProblem::Unusable, "newer release");
    schema.execute("UPDATE schema_version SET oldest = 5 WHERE version = 99").await;
    store.migrate().await.unwrap();
}

/// A store whose connection can be distinguished from others.
pub async fn store_of(schema: &Schema, application: &str) -> PostgresStore {
    let url = url_with(&format!("application_name={application}"));
    PostgresStore::builder(&url).schema(&schema.name).pool_size(1).connect().await.unwrap()
}

/// Waits until the connections of a dropped store have ended. The server's statistics include their work then.
pub async fn until_ended(admin: &Client, application: &str) {
    let deadline = SystemClock.monotonic() + Duration::from_secs(60);
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let connections: i64 = admin.query_one(sql, &[&application]).await.unwrap().get(0);
        if connections == 0 {
            return;
        }
        assert!(SystemClock.monotonic() < deadline, "{connections} connections do not end");
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_claim_updates_no_index() {
    let schema = Schema::new().await;
    schema.store().await;
    let store = store_of(&schema, &format!("hot_{}", std::process::id())).await;
    for number in 0..100 {
        store.insert(waiting(number)).await.unwrap();
    }
    assert_eq!(store.settle_and_claim(vec![], Some(claim(4))).await.unwrap().claimed.len(), 4);
    drop(store);
    until_ended(&schema.admin, &format!("hot_{}", std::process::id())).await;
    let sql = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 'process'";
    let row = schema.admin.query_one(sql, &[&schema.name]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (4, 4), "there is room in the page of each");
}

/// The number of entries that were read in indexes by due time.
async fn entries_read(admin: &Client, schema: &str) -> i64 {
    let sql = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
               WHERE schemaname = $1 AND indexrelname IN ('process_poll', 'process_work', 'process_verification')";
    admin.query_one(sql, &[&schema]).await.unwrap().get::<_, Option<i64>>(0).unwrap()
}

#[tokio::test]
async fn claims_do_not_scan_dead_rows_kept_by_a_long_transaction() {
    let database = InDatabase::new(true, &url()).await.emptied().await;
    let (schema, application) = (&database.schema, format!("walk_{}", std::process::id()));
    // One connection has the transaction open, and another one queries.
    let looking = Schema::new().await.admin_only();
    let store = store_of(schema, &application).await;
    for number in 0..100 {
        store.insert(waiting(number)).await.unwrap();
    }
    schema.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM process").await;
    for round in 1..=30 {
        let claimed = store.settle_and_claim(vec![], Some(claim(100))).await.unwrap().claimed;
        assert_eq!(claimed.len(), 100);
        let due_in = Duration::from_secs(if round < 30 { 0 } else { 3_600 });
        let asked = |claimed: &Claimed| {
            with(Settlement::new(claimed.id, Next::Waiting), |asked| {
                asked.epoch = Some(claimed.epoch);
                asked.due_in = due_in;
                asked.schedule = "asked".to_owned();
            })
        };
        store.settle_and_claim(claimed.iter().map(asked).collect(), None).await.unwrap();
    }
    drop(store);
    until_ended(&looking.0, &application).await;
    let later = format!("UPDATE {}.ahead SET ahead = ahead + interval '5 min'", schema.quoted());
    looking.0.batch_execute(&later).await.unwrap();

    let before = entries_read(&looking.0, &schema.name).await;
    let store = store_of(schema, &application).await;
    for _ in 0..200 {
        let work = store.settle_and_claim(vec![], Some(claim(100))).await.unwrap();
        assert!(work.claimed.is_empty() && work.due[0].polls_in > Some(Duration::from_secs(60)));
    }
    drop(store);
    until_ended(&looking.0, &application).await;
    let read = entries_read(&looking.0, &schema.name).await - before;
    schema.execute("COMMIT").await;
    // The first claim has to read everything, and after that at most one claim in each second.
    assert!((3_000..400_000).contains(&read), "200 claims with nothing due have read {read} entries");
}

#[tokio::test]
async fn a_replica_claims_at_once_the_rows_that_another_one_makes_due() {
    let database = InDatabase::new(true, &url()).await.emptied().await;
    let [one, other] = &database.stores;
    let claim_one = async || {
        let claimed = one.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed;
        assert_eq!(claimed.len(), 1);
        claimed[0].clone()
    };
    let nothing_due = async || assert!(one.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.is_empty());
    let ahead =
        async |by: &str| database.schema.execute(&format!("UPDATE ahead SET ahead = ahead + interval '{by}'")).await;
    let hour = Duration::from_secs(3_600);

    nothing_due().await;
    other.insert(waiting(1)).await.unwrap();
    let claimed = claim_one().await;
    nothing_due().await;
    let asked = with(settlement(1, 1, "asked"), |asked| {
        asked.due_in = hour;
        asked.ping_in = Some(Duration::ZERO);
        asked.body = None;
    });
    other.settle_and_claim(vec![asked], None).await.unwrap();
    nothing_due().await;
    let ping = Ping::new(Some(claimed.id), vec![fingerprint(1)]);
    other.ping(ping).await.unwrap();
    assert!(claim_one().await.pinged);
    // The row is given back.
    other.settle_and_claim(vec![settlement(1, 2, "not asked")], None).await.unwrap();
    claim_one().await;
    // Its holder has died, and the interval has passed.
    ahead("1 day").await;
    assert!(claim_one().await.orphaned);
    other.settle_and_claim(vec![with(settlement(1, 4, "asked"), |asked| asked.due_in = hour)], None).await.unwrap();
    nothing_due().await;
    // The clock is set back, and then corrected.
    ahead("-2 day").await;
    other.insert(waiting(2)).await.unwrap();
    assert_eq!(claim_one().await.id, id(2));
    ahead("2 day 2 h").await;
    assert_eq!(one.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.len(), 2);
}

/// A call that has read the clock and commits an hour later cannot be produced here, but a row that is changed by hand
/// can.
#[tokio::test]
async fn a_row_that_becomes_due_in_the_past_is_found_within_seconds() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    store.insert(with(waiting(1), |row| row.due_in = Duration::from_secs(3_600))).await.unwrap();
    assert!(store.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed.is_empty());
    schema.execute("UPDATE process SET due_at = now() - interval '1 h'").await;
    let deadline = SystemClock.monotonic() + Duration::from_secs(60);
    while store.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed.is_empty() {
        assert!(
            SystemClock.monotonic() < deadline,
            "full looks take milliseconds here, so they come every second or two"
        );
        SystemClock.sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_claims_never_return_the_same_row() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    join_all((0..1000).map(|number| store.insert(waiting(number)))).await.into_iter().for_each(|inserted| {
        inserted.unwrap();
    });
    let mut claimers = JoinSet::new();
    for _ in 0..4 {
        let store = schema.builder().connect().await.unwrap();
        claimers.spawn(async move {
            let mut claimed = Vec::new();
            loop {
                let work = store.settle_and_claim(vec![], Some(claim(7))).await.unwrap();
                if work.claimed.is_empty() && work.due[0].polls_in > Some(Duration::from_secs(1)) {
                    return claimed;
                }
                claimed.extend(work.claimed.iter().map(|claimed| claimed.id));
            }
        });
    }
    let claimed = claimers.join_all().await.concat();
    assert_eq!(claimed.len(), 1000);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 1000);
}

#[tokio::test]
async fn a_claim_skips_rows_locked_by_another_claim_and_is_not_repeated_at_once() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    for number in 1..=2 {
        store.insert(waiting(number)).await.unwrap();
    }
    schema.execute("BEGIN; SELECT id FROM process WHERE get_byte(id, 3) = 1 FOR UPDATE").await;
    let work = store.settle_and_claim(vec![], Some(claim(5))).await.unwrap();
    assert_eq!(work.claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(work.due[0].polls_in, Some(Duration::from_millis(20)));
    schema.execute("COMMIT").await;
    assert_eq!(store.settle_and_claim(vec![], Some(claim(5))).await.unwrap().claimed[0].id, id(1));
}

/// A settlement with a body that matches its schedule.
fn settlement(number: u32, epoch: i64, text: &str) -> Settlement {
    with(Settlement::new(id(number), Next::Waiting), |settlement| {
        settlement.epoch = Some(epoch);
        settlement.schedule = text.to_owned();
        settlement.body = Some(SealedBody::new(1, crate::KEY, text.into()));
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_never_returns_an_older_body_than_its_row() {
    let schema = Schema::new().await;
    let store = Arc::new(schema.store().await);
    let first = with(waiting(1), |first| {
        first.schedule = "0".to_owned();
        first.body.bytes = b"0".to_vec();
    });
    store.insert(first).await.unwrap();
    let replicas = (0..3).map(|_| {
        let store = store.clone();
        async move {
            let mut claims = 0;
            let mut settlements = Vec::new();
            for _ in 0..300 {
                let work = store.settle_and_claim(std::mem::take(&mut settlements), Some(claim(1))).await.unwrap();
                assert!(work.settled.iter().all(|settled| *settled == Settled::Done));
                for claimed in work.claimed {
                    assert_eq!(claimed.body.bytes, claimed.schedule.as_bytes());
                    assert!(!claimed.orphaned);
                    settlements.push(settlement(1, claimed.epoch, &claimed.epoch.to_string()));
                    claims += 1;
                }
                // Given back without claiming, so that another worker may claim it.
                store.settle_and_claim(std::mem::take(&mut settlements), None).await.unwrap();
            }
            claims
        }
    });
    let claims: Vec<i32> = JoinSet::from_iter(replicas).join_all().await;
    assert!(claims.iter().filter(|claims| **claims > 0).count() > 1, "{claims:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_name_the_same_rows_in_opposite_orders_do_not_deadlock() {
    let schema = Schema::new().await;
    let store = Arc::new(schema.store().await);
    for number in 0..20 {
        store.insert(waiting(number)).await.unwrap();
    }
    let claimed = store.settle_and_claim(vec![], Some(claim(20))).await.unwrap().claimed;
    let decided = claimed.iter().map(|claimed| {
        with(Settlement::new(claimed.id, Next::Decided { provisional: false }), |decided| {
            decided.epoch = Some(claimed.epoch);
        })
    });
    store.settle_and_claim(decided.collect(), None).await.unwrap();
    let outcomes = OutcomeClaim::new(20, Duration::from_secs(60), 1, vec![crate::KEY]);
    let held: Vec<_> =
        store.claim_outcomes(outcomes).await.unwrap().claimed.iter().map(|claimed| claimed.held).collect();
    let replicas = [held.clone(), held.iter().rev().copied().collect::<Vec<_>>()].map(|held| {
        let store = store.clone();
        async move {
            for _ in 0..50 {
                assert_eq!(store.extend_outcomes(held.clone(), Duration::from_secs(60)).await.unwrap(), vec![true; 20]);
            }
        }
    });
    JoinSet::from_iter(replicas).join_all().await;
    let acknowledge = |held: Vec<_>| {
        let acknowledgement =
            |held: openid_deferred::store::HeldOutcome| Acknowledgement::new(held.id, Duration::from_secs(60));
        store.acknowledge(held.into_iter().map(acknowledgement).collect())
    };
    let (first, second) = tokio::join!(acknowledge(held.clone()), acknowledge(held.iter().rev().copied().collect()));
    let done = [first.unwrap(), second.unwrap()].concat();
    assert_eq!(done.iter().filter(|acknowledged| **acknowledged == Acknowledged::Done).count(), 20);
    assert_eq!(done.iter().filter(|acknowledged| **acknowledged == Acknowledged::Already).count(), 20);
}

#[tokio::test]
async fn one_session_is_inserted_once_by_two_replicas_with_different_keys() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    for number in 0..30 {
        let (one, other) = (fingerprint(number), fingerprint(1000 + number));
        let under = |number, sessions| {
            store.insert(with(waiting(number), |row| {
                row.sessions = sessions;
                row.lookups = vec![];
            }))
        };
        let (first, second) =
            tokio::join!(under(2 * number, vec![one, other]), under(2 * number + 1, vec![other, one]));
        let inserted = [first.unwrap(), second.unwrap()];
        let count = inserted.iter().filter(|insertion| matches!(insertion, Insertion::Inserted { .. })).count();
        assert_eq!(count, 1, "{inserted:?}");
    }
}

#[tokio::test]
async fn a_call_times_out_if_the_database_does_not_answer_and_later_ones_succeed() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    let store = schema.builder().timeout(Duration::from_secs(4)).pool_size(1).connect().await.unwrap();
    let ping = || store.ping(Ping::new(Some(id(1)), vec![fingerprint(1)]));
    schema.execute("BEGIN; LOCK TABLE process").await;
    assert_refused(ping().await, StoreProblem::Unavailable, "55P03");
    schema.execute("COMMIT").await;
    let answered = loop {
        // A slow machine may take longer to reconnect.
        match ping().await {
            Ok(pinged) => break pinged,
            Err(error) => assert_eq!(error.problem(), StoreProblem::Unavailable),
        }
    };
    assert_eq!(answered, Pinged::Recorded { id: id(1), partition: crate::PARTITION });
}

#[tokio::test]
async fn committed_changes_survive_lost_connections() {
    let schema = Schema::new().await;
    schema.store().await;
    let name = format!("cut {}", schema.name);
    let url = url_with(&format!("application_name={}", name.replace(' ', "%20").replace('"', "%22")));
    let store = PostgresStore::builder(&url).schema(&schema.name).pool_size(4).connect().await.unwrap();
    let failures = AtomicUsize::new(0);
    let insert_all = join_all((0..8_u32).map(|task| {
        let (store, failures) = (&store, &failures);
        async move {
            for number in 0..50 {
                let process = waiting(task * 100 + number);
                loop {
                    match store.insert(process.clone()).await {
                        Ok(insertion) => {
                            // Although an earlier attempt may have succeeded and its answer may have been lost.
                            assert!(matches!(insertion, Insertion::Inserted { .. }));
                            break;
                        }
                        Err(error) => {
                            assert_eq!(error.problem(), StoreProblem::Unavailable, "{error:?}");
                            failures.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        }
    }));
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
    let keep_cutting = async {
        loop {
            // Cuts until enough calls have failed.
            schema.admin.query(cut, &[&name]).await.unwrap();
            if failures.load(Ordering::Relaxed) >= 20 {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = insert_all => {}
        () = keep_cutting => {}
    }
    assert!(failures.load(Ordering::Relaxed) > 0);
    assert_eq!(store.stats().await.unwrap()[0].waiting, 400);
}

#[tokio::test]
async fn changes_by_the_same_store_are_notified_at_once_and_others_are_polled_for() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    let changed = store.changed();
    store.insert(waiting(1)).await.unwrap();
    changed.await;
    assert_eq!(store.check_interval(), Duration::from_secs(1));
}
