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
    Acknowledged, Acknowledgement, Insertion, NewProcess, Next, OutcomeClaim, Ping, Pinged, PostgresStore,
    PostgresStoreBuilder, ProcessId, SealedBody, Settled, Settlement, Store, StoreError, StoreProblem, contract,
};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::{claim, fingerprint, id, waiting};

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
    _connection: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Schema {
    pub async fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("Test \"{}\" {count}", std::process::id());
        let (admin, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
        let schema = Self { name, admin, _connection: JoinSet::from_iter([connection]) };
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

    /// Runs SQL with the schema in the search path.
    pub async fn execute(&self, sql: &str) {
        self.admin.batch_execute(&format!("SET search_path TO {}; {sql}", self.quoted())).await.unwrap();
    }
}

/// Two replicas on one schema, with a clock that can be put forward.
#[derive(Clone)]
struct InDatabase {
    schema: Arc<Schema>,
    stores: [Arc<PostgresStore>; 2],
    turn: Arc<AtomicUsize>,
}

impl InDatabase {
    async fn new(prepared_statements: bool, url: &str) -> Self {
        let schema = Schema::new().await;
        let builder = PostgresStore::builder(url).schema(&schema.name).prepared_statements(prepared_statements);
        let stores = [builder.clone().connect().await.unwrap(), builder.connect().await.unwrap()].map(Arc::new);
        stores[0].migrate().await.unwrap();
        let clock = format!(
            "CREATE TABLE ahead (ahead interval);
             CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS $$ SELECT clock_timestamp() + ahead FROM {}.ahead $$",
            schema.quoted()
        );
        schema.execute(&clock).await;
        Self { schema: Arc::new(schema), stores, turn: Arc::default() }
    }

    /// The same without rows, as if it were new.
    async fn emptied(&self) -> Self {
        self.schema.execute("TRUNCATE process, sealed, ahead; INSERT INTO ahead VALUES ('0'); UPDATE clamp_run SET began_at = NULL, under_way = false, up_to = ''").await;
        self.clone()
    }
}

impl contract::Subject for InDatabase {
    fn store(&self) -> Arc<dyn Store> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.stores[turn % self.stores.len()].clone()
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
async fn it_keeps_the_contract() {
    let database = InDatabase::new(true, &url()).await;
    contract::check(async || database.emptied().await).await;
}

#[tokio::test]
async fn it_keeps_the_contract_without_prepared_statements() {
    let database = InDatabase::new(false, &url()).await;
    contract::check(async || database.emptied().await).await;
}

/// A pooler that gives each transaction another server connection and cannot follow prepared statements.
#[tokio::test]
async fn it_keeps_the_contract_behind_pgbouncer() {
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
async fn a_server_that_is_not_there_may_come_back() {
    let connected = PostgresStore::connect("postgres://test@127.0.0.1:1/test").await;
    assert_refused(connected, StoreProblem::Unavailable, "error connecting to server");
}

#[tokio::test]
async fn tls_is_required_for_other_machines_unless_the_connection_string_says_otherwise() {
    // 127.0.0.1 by a name that is not obviously this machine's.
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
    // A setting that comes later is noticed by the next connection.
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
async fn the_tables_are_made_once_however_many_replicas_start() {
    let schema = Schema::new().await;
    let store = schema.builder().connect().await.unwrap();
    assert_refused(store.insert(waiting(1)).await, StoreProblem::Unusable, "run PostgresStore::migrate");
    join_all((0..4).map(|_| store.migrate())).await.into_iter().for_each(Result::unwrap);
    store.insert(waiting(1)).await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.load(id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn the_published_sql_can_be_run_apart_and_the_application_needs_no_more_than_its_rows() {
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
    assert_eq!(store.work(vec![], Some(claim(1))).await.unwrap().claimed.len(), 1);
    assert!(store.forget(id(1)).await.unwrap());
    let elsewhere = PostgresStore::builder(&url).schema("elsewhere").connect().await.unwrap();
    assert_refused(elsewhere.migrate().await, StoreProblem::Unusable, "permission denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_claimers_never_get_the_same_row() {
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
                let work = store.work(vec![], Some(claim(7))).await.unwrap();
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
async fn a_claim_passes_over_what_another_one_is_taking_and_does_not_ask_again_at_once() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    for number in 1..=2 {
        store.insert(waiting(number)).await.unwrap();
    }
    schema.execute("BEGIN; SELECT id FROM process WHERE get_byte(id, 3) = 1 FOR UPDATE").await;
    let work = store.work(vec![], Some(claim(5))).await.unwrap();
    assert_eq!(work.claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(work.due[0].polls_in, Some(Duration::from_millis(20)));
    schema.execute("COMMIT").await;
    assert_eq!(store.work(vec![], Some(claim(5))).await.unwrap().claimed[0].id, id(1));
}

/// A settlement with a body that says the same as its schedule.
fn settlement(number: u32, epoch: i64, text: &str) -> Settlement {
    Settlement {
        id: id(number),
        epoch: Some(epoch),
        next: Next::Waiting,
        due_in: Duration::ZERO,
        ping_in: None,
        interval: Duration::ZERO,
        expires_in: None,
        schedule: text.to_owned(),
        lookup: None,
        body: Some(SealedBody { bytes: text.into(), ..waiting(number).body }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_never_sees_an_older_body_than_its_row() {
    let schema = Schema::new().await;
    let store = Arc::new(schema.store().await);
    let first = NewProcess { schedule: "0".to_owned(), ..waiting(1) };
    store
        .insert(NewProcess { body: SealedBody { bytes: b"0".to_vec(), ..first.body.clone() }, ..first })
        .await
        .unwrap();
    let replicas = (0..3).map(|_| {
        let store = store.clone();
        async move {
            let mut claims = 0;
            let mut settlements = Vec::new();
            for _ in 0..300 {
                let work = store.work(std::mem::take(&mut settlements), Some(claim(1))).await.unwrap();
                assert!(work.settled.iter().all(|settled| *settled == Settled::Done));
                for claimed in work.claimed {
                    assert_eq!(claimed.body.bytes, claimed.schedule.as_bytes());
                    assert!(!claimed.orphaned);
                    settlements.push(settlement(1, claimed.epoch, &claimed.epoch.to_string()));
                    claims += 1;
                }
                // Given back without claiming, so that somebody else may have it.
                store.work(std::mem::take(&mut settlements), None).await.unwrap();
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
    let claimed = store.work(vec![], Some(claim(20))).await.unwrap().claimed;
    let decided = claimed.iter().map(|claimed| Settlement {
        id: claimed.id,
        next: Next::Decided { provisional: false },
        ..settlement(0, claimed.epoch, "decided")
    });
    store.work(decided.collect(), None).await.unwrap();
    let outcomes =
        OutcomeClaim { limit: 20, after: None, lease: Duration::from_secs(60), format: 1, keys: vec![crate::KEY] };
    let held: Vec<_> =
        store.claim_outcomes(outcomes).await.unwrap().claimed.iter().map(|claimed| claimed.held).collect();
    let replicas = [held.clone(), held.iter().rev().copied().collect::<Vec<_>>()].map(|held| {
        let store = store.clone();
        async move {
            for _ in 0..50 {
                assert_eq!(store.hold_outcomes(held.clone(), Duration::from_secs(60)).await.unwrap(), vec![true; 20]);
            }
        }
    });
    JoinSet::from_iter(replicas).join_all().await;
    let acknowledge = |held: Vec<_>| {
        let acknowledgement = |held: openid_deferred::store::HeldOutcome| Acknowledgement {
            id: held.id,
            provisional: false,
            keep: Duration::from_secs(60),
        };
        store.acknowledge(held.into_iter().map(acknowledgement).collect())
    };
    let (first, second) = tokio::join!(acknowledge(held.clone()), acknowledge(held.iter().rev().copied().collect()));
    let done = [first.unwrap(), second.unwrap()].concat();
    assert_eq!(done.iter().filter(|acknowledged| **acknowledged == Acknowledged::Done).count(), 20);
    assert_eq!(done.iter().filter(|acknowledged| **acknowledged == Acknowledged::Already).count(), 20);
}

#[tokio::test]
async fn one_session_is_inserted_once_although_two_replicas_know_it_under_different_keys() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    for number in 0..30 {
        let (one, other) = (fingerprint(number), fingerprint(1000 + number));
        let under = |number, sessions| store.insert(NewProcess { sessions, lookups: vec![], ..waiting(number) });
        let (first, second) =
            tokio::join!(under(2 * number, vec![one, other]), under(2 * number + 1, vec![other, one]));
        let inserted = [first.unwrap(), second.unwrap()];
        let count = inserted.iter().filter(|insertion| matches!(insertion, Insertion::Inserted { .. })).count();
        assert_eq!(count, 1, "{inserted:?}");
    }
}

#[tokio::test]
async fn a_call_is_given_up_when_the_database_does_not_answer_and_later_ones_succeed() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    let store = schema.builder().timeout(Duration::from_secs(4)).pool_size(1).connect().await.unwrap();
    let ping = || store.ping(Ping { id: Some(id(1)), lookups: vec![fingerprint(1)] });
    schema.execute("BEGIN; LOCK TABLE process").await;
    assert_refused(ping().await, StoreProblem::Unavailable, "55P03");
    schema.execute("COMMIT").await;
    let answered = loop {
        // A slow machine may take longer to connect again.
        match ping().await {
            Ok(pinged) => break pinged,
            Err(error) => assert_eq!(error.problem(), StoreProblem::Unavailable),
        }
    };
    assert_eq!(answered, Pinged::Noted { id: id(1), partition: crate::PARTITION });
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_when_connections_are_cut() {
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
                            // Although an earlier attempt may have been carried out and its answer lost.
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
            // Until each of a few rounds has met somebody.
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
async fn changes_of_one_replica_are_told_at_once_and_those_of_others_are_looked_for() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    let changed = store.changed();
    store.insert(waiting(1)).await.unwrap();
    changed.await;
    assert_eq!(store.look_every(), Duration::from_secs(1));
}
