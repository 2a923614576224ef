//! What docs/operations/moving.md tells operators to do: backup, restore, upgrade, and moving to another database.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::operations::{Filter, ImportReport, Operations, TransferError, WaitsFor};
use openid_deferred::store::{
    Acceptance, Acknowledgement, Cancellation, ClientNote, KnownClient, Next, OutcomeClaim, Partition, Ping,
    PostgresStore, Settlement, SqliteStore, State, Store,
};
use rusqlite::Connection;

use crate::postgres::{Schema, url};
use crate::{KEY, PARTITION, claim, fingerprint, id, waiting, with};

const HOUR: Duration = Duration::from_secs(3600);

const ISSUER: &str = "https://op.test";

/// Leaves sign-ins in every state, of a client with a name.
async fn populate(store: &dyn Store) {
    store.note_clients(vec![ClientNote::new(PARTITION, ISSUER, "the-app")]).await.unwrap();
    for number in 1..=6 {
        store.insert(with(waiting(number), |row| row.references = vec![fingerprint(77)])).await.unwrap();
    }
    let claimed = store.settle_and_claim(vec![], Some(claim(6))).await.unwrap().claimed;
    let settle = |number: u32, next| {
        let epoch = claimed.iter().find(|claimed| claimed.id == id(number)).unwrap().epoch;
        with(Settlement::new(id(number), next), |settlement| {
            (settlement.epoch, settlement.interval) = (Some(epoch), HOUR);
            settlement.schedule = r#"{"trb":2,"lt":{"k":"network","c":"connect","t":1700000000}}"#.to_owned();
        })
    };
    // The first keeps its lease.
    let settlements = vec![
        settle(2, Next::Answered),
        settle(3, Next::Decided { provisional: true }),
        settle(4, Next::Decided { provisional: false }),
        settle(5, Next::Decided { provisional: false }),
        with(settle(6, Next::Waiting), |settlement| {
            (settlement.due_in, settlement.ping_in, settlement.expires_in) = (3 * HOUR, Some(HOUR), Some(9 * HOUR));
        }),
    ];
    store.settle_and_claim(settlements, None).await.unwrap();
    let outcomes = OutcomeClaim::new(1, HOUR, 1, vec![KEY]);
    let held = store.claim_outcomes(outcomes).await.unwrap().claimed.remove(0).held.id;
    store.acknowledge(vec![Acknowledgement::new(id(5), HOUR)]).await.unwrap();
    assert!([3, 4, 5].map(id).contains(&held));
    store.ping(Ping::new(Some(id(6)), vec![fingerprint(6)])).await.unwrap();
    store.cancel(id(6), Cancellation::Requested).await.unwrap();
    let exchanging = |row: &mut openid_deferred::store::NewProcess| {
        (row.state, row.due_in, row.lookups) = (State::Exchanging, HOUR, vec![]);
    };
    store.insert(with(waiting(7), exchanging)).await.unwrap();
}

async fn exported(store: &Arc<impl Store + 'static>) -> String {
    let mut file = Vec::new();
    Operations::new(store.clone()).export(&mut file, |_| {}).await.unwrap();
    String::from_utf8(file).unwrap()
}

async fn imported(store: &Arc<impl Store + 'static>, file: &str) -> Result<ImportReport, TransferError> {
    Operations::new(store.clone()).import(file.as_bytes(), |_| {}).await
}

#[tokio::test]
async fn sign_ins_move_unchanged_from_sqlite_to_postgres_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let old = Arc::new(SqliteStore::open(folder.path().join("old.sqlite")).await.unwrap());
    populate(&*old).await;
    let file = exported(&old).await;
    assert_eq!(file.lines().count(), 9);

    let schema = Schema::new().await;
    let new = Arc::new(schema.store().await);
    let cut_off: String = file.lines().take(5).flat_map(|line| [line, "\n"]).collect();
    let problem = imported(&new, &cut_off).await.unwrap_err();
    assert!(problem.to_string().contains("the file is incomplete"), "{problem}");
    let report = imported(&new, &file).await.unwrap();
    assert_eq!((report.added + report.present, report.conflicts), (7, 0));
    assert_eq!(exported(&new).await, file, "every column of every row");
    assert_eq!(imported(&new, &file).await.unwrap().present, 7);

    let claimed = new.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed;
    assert_eq!(claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [id(2)], "only the verification is due");
    let last = Arc::new(SqliteStore::open(folder.path().join("new.sqlite")).await.unwrap());
    let file = exported(&new).await;
    assert_eq!(imported(&last, &file).await.unwrap().added, 7);
    assert_eq!(exported(&last).await, file);
    assert!(last.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.is_empty(), "its lease has moved too");
    let found = Operations::new(last.clone()).list(Filter::new().partition(PARTITION)).await.unwrap();
    assert_eq!(found.sign_ins.len(), 7);
    assert!(found.sign_ins.iter().all(|sign_in| sign_in.client_id.as_deref() == Some("the-app")), "{found:?}");
}

/// The contract lets other stores leave this out.
#[tokio::test]
async fn a_released_outcome_differs_from_a_held_one() {
    let folder = tempfile::tempdir().unwrap();
    let schema = Schema::new().await;
    let file: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path().join("deferred.sqlite")).await.unwrap());
    let database: Arc<dyn Store> = Arc::new(schema.store().await);
    for store in [file, database] {
        populate(&*store).await;
        let operations = Operations::new(store.clone());
        let shown = async || {
            let all = operations.list(Filter::new().state(State::Decided)).await.unwrap().sign_ins;
            let mut shown: Vec<_> = all.iter().map(|sign_in| (sign_in.waits_for, sign_in.deliveries)).collect();
            shown.sort_by_key(|(_, deliveries)| *deliveries);
            shown
        };
        assert_eq!(shown().await.last(), Some(&(WaitsFor::Acknowledgement, 1)));
        let held = store.claim_outcomes(OutcomeClaim::new(9, HOUR, 1, vec![KEY])).await.unwrap().claimed;
        let held: Vec<_> = held.iter().map(|outcome| outcome.held).collect();
        assert!(!held.is_empty() && shown().await.iter().all(|shown| shown.0 == WaitsFor::Acknowledgement));
        assert!(store.release_outcomes(held.clone(), HOUR).await.unwrap().iter().all(|is_held| *is_held));
        let waiting = shown().await.iter().filter(|shown| **shown == (WaitsFor::Redelivery, 1)).count();
        assert_eq!(waiting, held.len());
        store.extend_outcomes(held, 2 * HOUR).await.unwrap();
        assert!(shown().await.iter().all(|shown| shown.0 == WaitsFor::Acknowledgement), "it was extended since");
    }
}

/// A program of PostgreSQL.
pub fn program(name: &str) -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<_> = folders.map(|folder| folder.path().join("bin").join(name)).collect();
    installed.sort();
    installed.into_iter().rev().find(|path| path.exists()).unwrap_or_else(|| Path::new(name).to_owned())
}

fn run(program: &Path, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_dump_of_postgres_restores_every_sign_in() {
    let schema = Schema::new().await;
    let store = Arc::new(schema.store().await);
    populate(&*store).await;
    let before = exported(&store).await;
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("deferred.dump");
    let (dump, pattern, url) = (dump.to_str().unwrap(), format!("--schema={}", schema.quoted()), url());
    run(&program("pg_dump"), &["--format=custom", &pattern, "--file", dump, &url]);
    // The disaster.
    schema.execute(&format!("DROP SCHEMA {} CASCADE", schema.quoted())).await;
    assert!(store.load(id(1)).await.is_err());
    run(&program("pg_restore"), &["--exit-on-error", &format!("--dbname={url}"), dump]);
    assert_eq!(exported(&store).await, before);
    store.migrate().await.unwrap();
    assert_eq!(store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.len(), 1);
}

/// A file with the tables of this version, as the release of that time made it.
fn file_of_an_older_schema(path: &Path, version: usize) -> Connection {
    const STEPS: [&str; 3] = [
        include_str!("../../src/store/sqlite/schema.sql"),
        include_str!("../../src/store/sqlite/schema_2.sql"),
        include_str!("../../src/store/sqlite/schema_3.sql"),
    ];
    let file = Connection::open(path).unwrap();
    file.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
    STEPS[..version].iter().for_each(|step| file.execute_batch(step).unwrap());
    file.pragma_update(None, "application_id", 0x4f49_4464).unwrap();
    file.pragma_update(None, "user_version", version as i64).unwrap();
    file
}

#[tokio::test]
async fn a_file_of_the_previous_schema_is_upgraded_while_an_older_release_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deferred.sqlite");
    let older = file_of_an_older_schema(&path, 2);
    // A statement of that release.
    let insert = "INSERT INTO process (id, partition, state, session, lookup, due_at, not_before, interval, expires_at,
                                       schedule, format, key, first_key)
                  VALUES (?, 7, 1, NULL, NULL, 0, NULL, 1, NULL, '{\"recv\":60}', 1, 4278190338, 4278190338)";
    let add = |number| {
        older.execute(insert, [id(number).to_bytes()]).unwrap();
        older.execute("INSERT INTO sealed (slot, body) VALUES (last_insert_rowid(), x'00')", []).unwrap();
    };
    add(1);
    let store = SqliteStore::open(&path).await.unwrap();
    add(2);
    store.insert(waiting(3)).await.unwrap();
    let page = store.list(openid_deferred::store::Listing::new(9)).await.unwrap();
    let started: Vec<_> = page.rows.iter().map(|row| row.started_at.is_some()).collect();
    assert_eq!(started, [false, false, true]);
    let view = "SELECT id, state, started_at IS NULL, trouble IS NULL, is_set_aside FROM sign_ins ORDER BY id LIMIT 1";
    let (shown, state, unknown, fine, aside): (String, String, bool, bool, bool) =
        older.query_row(view, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))).unwrap();
    assert_eq!((&*shown, &*state), ("00000001808080808080808080808080", "waiting"));
    assert_eq!((unknown, fine, aside), (true, true, false));
    let name: (Option<String>, i64) =
        older.query_row("SELECT issuer, count(*) FROM sign_ins", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(name, (None, 3));
    assert_eq!(store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.len(), 3);
}

#[tokio::test]
async fn a_file_with_the_view_of_the_previous_schema_is_upgraded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deferred.sqlite");
    let older = file_of_an_older_schema(&path, 3);
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    store.note_clients(vec![ClientNote::new(PARTITION, ISSUER, "the-app")]).await.unwrap();
    let row = "SELECT issuer || ' ' || client_id FROM sign_ins WHERE client_refused_at IS NULL";
    assert_eq!(older.query_row(row, [], |row| row.get::<_, String>(0)).unwrap(), "https://op.test the-app");
    // The older release does not read the new table.
    let version: i64 = older.query_row("SELECT max(oldest) FROM compatibility", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}

#[tokio::test]
async fn tables_of_version_4_are_upgraded_beside_replicas_and_queries_of_the_view() {
    let schema = Schema::new().await;
    schema.execute(&format!("CREATE SCHEMA {}", schema.quoted())).await;
    schema.execute(include_str!("../../src/store/postgres/schema.sql")).await;
    schema.execute(include_str!("schema_4.sql")).await;
    let store = PostgresStore::builder(&url()).schema(&schema.name).connect().await.unwrap();
    // Without the new table, everything but the names works.
    store.insert(waiting(1)).await.unwrap();
    assert!(store.note_clients(vec![ClientNote::new(PARTITION, ISSUER, "the-app")]).await.is_err());
    let listed = Operations::new(Arc::new(store)).list(Filter::new()).await.unwrap();
    assert_eq!((listed.sign_ins.len(), &listed.sign_ins[0].client_id), (1, &None));

    let store = PostgresStore::builder(&url()).schema(&schema.name).connect().await.unwrap();
    // A replica is claiming, and its transaction is open.
    schema.execute("BEGIN; UPDATE process SET epoch = epoch + 1").await;
    store.migrate().await.unwrap();
    schema.execute("COMMIT").await;
    store.note_clients(vec![ClientNote::new(PARTITION, ISSUER, "the-app")]).await.unwrap();
    let known = store.known_clients(vec![PARTITION]).await.unwrap();
    assert_eq!(known, [KnownClient::new(PARTITION, ISSUER, "the-app")]);
    let view = format!("SELECT issuer || ' ' || client_id FROM {}.sign_ins", schema.quoted());
    assert_eq!(schema.admin.query_one(&view, &[]).await.unwrap().get::<_, String>(0), "https://op.test the-app");
    store.migrate().await.unwrap();
    schema.execute(PostgresStore::SCHEMA).await;
    assert_eq!(store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.len(), 1);
}

#[tokio::test]
async fn replicas_that_start_together_note_the_same_clients() {
    let schema = Schema::new().await;
    let store = schema.store().await;
    let note = |number| ClientNote::new(Partition(number), ISSUER, "the-app").acceptance(Acceptance::Refused);
    let forward: Vec<_> = (0..200).map(note).collect();
    let backward: Vec<_> = (0..200).rev().map(note).collect();
    let calls =
        (0..20).map(|round| store.note_clients(if round % 2 == 0 { forward.clone() } else { backward.clone() }));
    for noted in futures_util::future::join_all(calls).await {
        noted.unwrap();
    }
    let all = (0..200).map(Partition).collect();
    assert_eq!(store.known_clients(all).await.unwrap().len(), 200);
}

#[tokio::test]
async fn tables_of_version_3_are_upgraded_while_replicas_use_them() {
    let schema = Schema::new().await;
    schema.execute(&format!("CREATE SCHEMA {}", schema.quoted())).await;
    schema.execute(include_str!("../../src/store/postgres/schema.sql")).await;
    // Statements of a release that knows version 3.
    let insert = |number: u32| {
        let id: String = id(number).to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "INSERT INTO process (id, partition, state, due_at, poll_interval, schedule, format, key)
             VALUES ('\\x{id}', 7, 1, now(), '1 h', '{{\"recv\":60}}', 1, 4278190338);
             INSERT INTO origin (id, first_key) VALUES ('\\x{id}', 4278190338);
             INSERT INTO sealed (id, body) VALUES ('\\x{id}', 'body')"
        )
    };
    schema.execute(&insert(1)).await;
    // A replica is claiming, and its transaction is open.
    schema.execute("BEGIN; UPDATE process SET epoch = epoch + 1").await;
    let store = PostgresStore::builder(&url()).schema(&schema.name).connect().await.unwrap();
    store.migrate().await.unwrap();
    schema.execute("COMMIT").await;
    schema.execute(&insert(2)).await;
    store.insert(waiting(3)).await.unwrap();
    store.migrate().await.unwrap();
    let page = store.list(openid_deferred::store::Listing::new(9)).await.unwrap();
    let started: Vec<_> = page.rows.iter().map(|row| row.started_at.is_some()).collect();
    assert_eq!(started, [false, false, true]);
    assert_eq!(store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.len(), 3);
    schema.execute(PostgresStore::SCHEMA).await;
}

#[tokio::test]
async fn the_view_for_operators_has_the_same_columns_in_both_databases() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deferred.sqlite");
    let file = SqliteStore::open(&path).await.unwrap();
    let schema = Schema::new().await;
    let database = schema.store().await;
    populate(&file).await;
    populate(&database).await;
    let connection = Connection::open(&path).unwrap();
    let view = connection.prepare("SELECT * FROM sign_ins").unwrap();
    let in_file: Vec<String> = view.column_names().into_iter().map(str::to_owned).collect();
    let view = schema.admin.prepare(&format!("SELECT * FROM {}.sign_ins", schema.quoted())).await.unwrap();
    let in_database: Vec<String> = view.columns().iter().map(|column| column.name().to_owned()).collect();
    assert_eq!(in_file, in_database);
    let name = "SELECT issuer || ' ' || client_id FROM sign_ins LIMIT 1";
    assert_eq!(connection.query_row(name, [], |row| row.get::<_, String>(0)).unwrap(), "https://op.test the-app");
    let guide = include_str!("../../docs/operations/database.md");
    for column in &in_file {
        assert!(guide.contains(&format!("| `{column}` |")), "the guide does not explain {column}");
    }
    let troubled = "SELECT state || ' ' || trouble || ' ' || trouble_code || ' ' || troubles || ' ' || cancellation
                    FROM :sign_ins WHERE troubles > 0 AND state = 'waiting'";
    let from_file: String =
        connection.query_row(&troubled.replace(":sign_ins", "sign_ins"), [], |row| row.get(0)).unwrap();
    assert_eq!(from_file, "waiting network connect 2 requested");
    let sql = troubled.replace(":sign_ins", &format!("{}.sign_ins", schema.quoted()));
    assert_eq!(schema.admin.query_one(&sql, &[]).await.unwrap().get::<_, String>(0), from_file);
    let count = format!(
        "SELECT count(*) FROM {}.sign_ins WHERE started_at IS NOT NULL AND due_at IS NOT NULL",
        schema.quoted()
    );
    assert_eq!(schema.admin.query_one(&count, &[]).await.unwrap().get::<_, i64>(0), 7);
    let shown = format!("SELECT id FROM {}.sign_ins ORDER BY started_at LIMIT 1", schema.quoted());
    let shown: String = schema.admin.query_one(&shown, &[]).await.unwrap().get(0);
    assert_eq!(shown, id(1).to_string(), "it is the identifier that applications see");
}
