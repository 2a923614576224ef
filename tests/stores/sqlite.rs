//! `SqliteStore`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::future::join_all;
use openid_deferred::store::{Insertion, ProcessId, SqliteStore, Store, StoreError, StoreProblem, contract};
use openid_deferred::testing::TestClock;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::processes::{self, Other};
use crate::{claim, id, waiting};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deferred.sqlite");
    (folder, path)
}

struct InFile {
    clock: TestClock,
    stores: [Arc<SqliteStore>; 2],
    next: std::sync::atomic::AtomicUsize,
    path: PathBuf,
    _folder: TempDir,
}

impl InFile {
    async fn new() -> Self {
        let (folder, path) = folder();
        let clock = TestClock::new();
        let open = async || Arc::new(SqliteStore::builder(&path).clock(Arc::new(clock.clone())).open().await.unwrap());
        let stores = [open().await, open().await];
        Self { clock, stores, next: 0.into(), path, _folder: folder }
    }
}

impl contract::Subject for InFile {
    /// Two handles on one file alternate, as two replicas do.
    fn store(&self) -> Arc<dyn Store> {
        let next = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.stores[next % self.stores.len()].clone()
    }

    fn advance(&self, duration: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(duration);
        Box::pin(std::future::ready(()))
    }

    fn lose_body(&self, id: ProcessId) -> BoxFuture<'_, bool> {
        let file = Connection::open(&self.path).unwrap();
        let sql = "DELETE FROM sealed WHERE slot = (SELECT slot FROM process WHERE id = ?)";
        Box::pin(std::future::ready(file.execute(sql, [id.to_bytes()]).unwrap() == 1))
    }
}

#[tokio::test]
async fn the_store_fulfils_its_contract() {
    contract::check(InFile::new).await;
}

#[tokio::test]
async fn rows_persist_when_the_file_is_reopened() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.load(id(1)).await.unwrap().unwrap().body.unwrap().bytes, vec![0x55; 1000]);
}

#[cfg(unix)]
#[tokio::test]
async fn only_this_user_can_read_the_database_files() {
    use std::os::unix::fs::PermissionsExt as _;

    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

fn assert_refused(opened: Result<SqliteStore, StoreError>, why: &str) {
    let error = opened.unwrap_err();
    assert_eq!(error.problem(), StoreProblem::Unusable);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(why), "{source}");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused_and_not_changed() {
    let (_folder, path) = folder();
    fs::write(&path, "Dear diary, ".repeat(1000)).unwrap();
    assert_refused(SqliteStore::open(&path).await, "not a database");
    assert_eq!(fs::read(&path).unwrap().len(), 12_000);
}

#[tokio::test]
async fn the_database_of_another_application_is_refused_and_not_changed() {
    let (_folder, path) = folder();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE invoice (number)").unwrap();
    let before = fs::read(&path).unwrap();
    assert_refused(SqliteStore::open(&path).await, "another application");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_refused_unless_its_schema_is_compatible() {
    let (_folder, path) = folder();
    SqliteStore::open(&path).await.unwrap().insert(waiting(1)).await.unwrap();
    let file = Connection::open(&path).unwrap();
    file.execute_batch("ALTER TABLE process ADD COLUMN what_comes INTEGER").unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed.len(), 1);
    drop(store);
    file.execute_batch("UPDATE compatibility SET oldest = 98").unwrap();
    assert_refused(SqliteStore::open(&path).await, "newer release");
    file.execute_batch("DROP TABLE compatibility").unwrap();
    assert_refused(SqliteStore::open(&path).await, "newer release");
}

/// A file that the first release made, with a row in each of its tables.
#[tokio::test]
async fn a_file_of_the_first_release_is_upgraded() {
    let (_folder, path) = folder();
    let file = Connection::open(&path).unwrap();
    file.execute_batch(include_str!("../../src/store/sqlite/schema.sql")).unwrap();
    file.pragma_update(None, "application_id", 0x4f49_4464).unwrap();
    file.pragma_update(None, "user_version", 1).unwrap();
    file.execute_batch(
        "INSERT INTO process (slot, id, partition, state, due_at, interval, schedule, format, key, first_key)
         VALUES (1, zeroblob(16), 7, 1, 1, 1000000, 'old', 1, 0xff000102, 0xff000102),
                (2, x'00000000000000000000000000000001', 7, 3, 1, 1000000, 'old', 1, 0xff000102, 0xff000102);
         INSERT INTO sealed VALUES (1, x'01'), (2, x'02');
         INSERT INTO lease VALUES (1, 7, 1, 1000001, 5, 2);",
    )
    .unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let claimed = store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.remove(0);
    assert_eq!((claimed.epoch, claimed.orphaned, &*claimed.schedule), (6, true, "old"));
    let stats = store.stats().await.unwrap().remove(0);
    assert_eq!((stats.waiting, stats.decided), (1, 1));
    assert!(stats.undelivered > Some(Duration::from_secs(1_000_000_000)), "since it was due, for want of better");
    // The first release can still write its rows.
    file.execute_batch(
        "INSERT INTO process (slot, id, partition, state, due_at, interval, schedule, format, key, first_key)
         VALUES (3, x'00000000000000000000000000000003', 7, 1, 1, 1000000, 'old', 1, 0xff000102, 0xff000102);
         INSERT INTO sealed VALUES (3, x'03');
         UPDATE process SET due_at = 2, not_before = 3, schedule = '', interval = 1, epoch = 1, attempts = 1 WHERE slot = 3;",
    )
    .unwrap();
    assert_eq!(store.settle_and_claim(vec![], Some(claim(9))).await.unwrap().claimed.len(), 1);
}

#[tokio::test]
async fn a_directory_and_a_file_in_a_missing_directory_are_refused() {
    let (folder, _) = folder();
    assert_refused(SqliteStore::open(folder.path()).await, "not a file");
    assert_refused(SqliteStore::open(folder.path().join("missing/deferred.sqlite")).await, "No such file");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_without_a_panic() {
    let (_folder, path) = folder();
    let checkpoint = || Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    checkpoint();
    let empty = fs::read(&path).unwrap().len();
    for number in 0..100 {
        store.insert(waiting(number)).await.unwrap();
    }
    checkpoint();
    // Everything after the pages of an empty file, which list the tables.
    let mut bytes = fs::read(&path).unwrap();
    bytes[empty..].fill(0xee);
    fs::write(&path, bytes).unwrap();
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.load(id(1)).await.unwrap_err().problem(), StoreProblem::Unusable);
    assert_eq!(store.settle_and_claim(vec![], Some(claim(1))).await.unwrap_err().problem(), StoreProblem::Unusable);
}

#[tokio::test]
async fn calls_fail_while_another_process_locks_the_file() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder(&path).busy_timeout(Duration::from_millis(10)).open().await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(store.insert(waiting(2)).await.unwrap_err().problem(), StoreProblem::Unavailable);
    assert!(store.load(id(1)).await.unwrap().is_some(), "reading goes on");
    other.execute_batch("COMMIT").unwrap();
    assert!(matches!(store.insert(waiting(2)).await.unwrap(), Insertion::Inserted { .. }));
    assert_eq!(store.settle_and_claim(vec![], Some(claim(10))).await.unwrap().claimed.len(), 2);
}

#[tokio::test]
async fn a_store_is_notified_of_changes_by_another_store() {
    let (_folder, path) = folder();
    let (first, second) = (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
    let changed = first.changed();
    second.insert(waiting(1)).await.unwrap();
    changed.await;
}

#[tokio::test]
async fn both_threads_end_with_the_store() {
    let (_folder, path) = folder();
    let clock = Arc::new(TestClock::new());
    let store = SqliteStore::builder(&path).clock(clock.clone()).open().await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    assert!(Arc::strong_count(&clock) > 2, "each thread has one");
    drop(store);
    while Arc::strong_count(&clock) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn several_stores_can_create_the_file_at_once() {
    for _ in 0..20 {
        let (_folder, path) = folder();
        let opened = join_all((0..4).map(|_| SqliteStore::open(&path))).await;
        for store in &opened {
            store.as_ref().unwrap().stats().await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_concurrent_tasks_are_all_served() {
    let (_folder, path) = folder();
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    let tasks = (0..64_u32).map(|task| {
        let store = store.clone();
        async move {
            for number in 0..20 {
                store.insert(waiting(task * 100 + number)).await.unwrap();
            }
        }
    });
    join_all(tasks).await;
    assert_eq!(store.stats().await.unwrap()[0].waiting, 64 * 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_two_threads_claim_different_rows() {
    let (_folder, path) = folder();
    let first = SqliteStore::open(&path).await.unwrap();
    let second = SqliteStore::open(&path).await.unwrap();
    for number in 0..200 {
        first.insert(waiting(number)).await.unwrap();
    }
    let claim_all = |store: SqliteStore| async move {
        let mut claimed = Vec::new();
        loop {
            let work = store.settle_and_claim(vec![], Some(claim(3))).await.unwrap();
            if work.claimed.is_empty() {
                return claimed;
            }
            claimed.extend(work.claimed.iter().map(|claimed| claimed.id));
        }
    };
    let (first, second) = tokio::join!(
        tokio::task::spawn_blocking(move || tokio::runtime::Handle::current().block_on(claim_all(first))),
        tokio::task::spawn_blocking(move || tokio::runtime::Handle::current().block_on(claim_all(second)))
    );
    let claimed = [first.unwrap(), second.unwrap()].concat();
    assert_eq!(claimed.len(), 200);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 200);
}

#[tokio::test]
async fn two_processes_claim_different_rows() {
    if let Some(path) = processes::role() {
        let store = SqliteStore::open(path).await.unwrap();
        loop {
            let work = store.settle_and_claim(vec![], Some(claim(3))).await.unwrap();
            if work.claimed.is_empty() {
                return;
            }
            work.claimed.iter().for_each(|claimed| processes::say(&claimed.id.to_string()));
        }
    }
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    join_all((0..500).map(|number| store.insert(waiting(number)))).await;
    let mut others = [(); 2].map(|()| Other::start("sqlite::two_processes_claim_different_rows", &path));
    let claimed: Vec<_> = others.iter_mut().flat_map(|other| std::iter::from_fn(|| other.hears())).collect();
    assert_eq!(claimed.len(), 500);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>().len(), 500);
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_answered() {
    if let Some(path) = processes::role() {
        let store = SqliteStore::open(path).await.unwrap();
        for group in 0.. {
            let numbers = group * 8..(group + 1) * 8;
            let inserted = join_all(numbers.clone().map(|number| store.insert(waiting(number)))).await;
            assert!(inserted.iter().all(Result::is_ok));
            numbers.for_each(|number| processes::say(&number.to_string()));
        }
    }
    let (_folder, path) = folder();
    let mut other = Other::start("sqlite::a_killed_process_loses_nothing_that_was_answered", &path);
    let mut answered: Vec<u32> = (0..400).map(|_| other.hears().unwrap().parse().unwrap()).collect();
    other.kill();
    answered.extend(std::iter::from_fn(|| other.hears()).filter_map(|line| line.parse::<u32>().ok()));
    let store = SqliteStore::open(&path).await.unwrap();
    // The last line may have been cut off in the middle of its number.
    answered.pop();
    for number in answered {
        assert!(store.load(id(number)).await.unwrap().is_some(), "{number}");
    }
    let check: String =
        Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_backup_beside_writers_is_complete_and_a_plain_copy_is_not() {
    let (folder, path) = folder();
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    for number in 1..=100 {
        store.insert(waiting(number)).await.unwrap();
    }
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let tables = Connection::open(&copy).unwrap().query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
    assert_eq!(tables, Ok(0), "everything is in the write-ahead log");

    let target = folder.path().join("backup");
    fs::write(folder.path().join("backup.partial"), "of a backup that was interrupted").unwrap();
    let writing = async {
        for number in 101..=300 {
            store.insert(waiting(number)).await.unwrap();
        }
    };
    let (backup, ()) = tokio::join!(store.backup(&target), writing);
    let backup = backup.unwrap();
    assert!((100..=300).contains(&backup.rows), "{backup:?}");
    assert_eq!(fs::metadata(&target).unwrap().len(), backup.bytes);
    assert!(!folder.path().join("backup.partial").exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = store.backup(&target).await.unwrap_err();
    assert!(std::error::Error::source(&again).unwrap().to_string().contains("exists already"), "{again:?}");

    // The disaster: the file and its companions are gone.
    drop(store);
    for name in ["deferred.sqlite", "deferred.sqlite-wal", "deferred.sqlite-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    fs::rename(&target, &path).unwrap();
    let restored = SqliteStore::open(&path).await.unwrap();
    assert_eq!(restored.load(id(100)).await.unwrap().unwrap().body.unwrap().bytes, vec![0x55; 1000]);
    assert_eq!(restored.settle_and_claim(vec![], Some(claim(1000))).await.unwrap().claimed.len() as u64, backup.rows);
}
