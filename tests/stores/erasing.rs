//! What is left of a person whose sign-ins were erased: the file, its log, backups and dumps are searched.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::operations::Operations;
use openid_deferred::store::{NewProcess, Next, SealedBody, Settlement, SqliteStore, Store};

use crate::moving::program;
use crate::postgres::{Schema, url};
use crate::{KEY, claim, fingerprint, id, waiting, with};

/// The person to erase is the sign-in with this number.
const PERSON: u32 = 0x7e57_ab1e;

/// Recognisable bytes: short ones, and some that need pages of their own.
fn bodies() -> [Vec<u8>; 3] {
    [(b"Jane Doe, first", 40), (b"Jane Doe, large", 2_000), (b"Jane Doe, small", 3)]
        .map(|(text, times): (&[u8; 15], usize)| text.repeat(times))
}

/// Everything in the store that is the person's.
fn traces() -> Vec<Vec<u8>> {
    let fingerprints = [PERSON, PERSON + 1, PERSON + 2].map(|number| fingerprint(number).0.to_vec());
    let schedule = b"schedule of Jane Doe".to_vec();
    bodies()
        .map(|body| body[..15].to_vec())
        .into_iter()
        .chain(fingerprints)
        .chain([schedule, id(PERSON).to_bytes().to_vec()])
        .collect()
}

fn person() -> NewProcess {
    with(waiting(PERSON), |row| {
        row.sessions = vec![fingerprint(PERSON)];
        row.lookups = vec![fingerprint(PERSON + 1)];
        row.references = vec![fingerprint(PERSON + 2)];
        row.schedule = "schedule of Jane Doe".to_owned();
        row.body = SealedBody::new(1, KEY, bodies()[0].clone());
    })
}

/// Takes the person's sign-in among others through its life, so that its body changes.
async fn live(store: &dyn Store) {
    for number in 1..=200 {
        store.insert(with(waiting(number), |row| row.due_in = Duration::from_secs(3600))).await.unwrap();
    }
    store.insert(person()).await.unwrap();
    for body in &bodies()[1..] {
        let claimed = store.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed.remove(0);
        let settlement = with(Settlement::new(claimed.id, Next::Waiting), |settlement| {
            settlement.epoch = Some(claimed.epoch);
            settlement.schedule = "schedule of Jane Doe".to_owned();
            settlement.body = Some(SealedBody::new(1, KEY, body.clone()));
        });
        store.settle_and_claim(vec![settlement], None).await.unwrap();
    }
    for number in 201..=400 {
        store.insert(with(waiting(number), |row| row.due_in = Duration::from_secs(3600))).await.unwrap();
    }
}

/// The traces that are in the bytes.
fn found(bytes: &[u8]) -> Vec<String> {
    let in_bytes = |trace: &Vec<u8>| bytes.windows(trace.len()).any(|part| part == trace);
    traces().iter().filter(|trace| in_bytes(trace)).map(|trace| String::from_utf8_lossy(trace).into_owned()).collect()
}

fn files_of(path: &Path) -> Vec<u8> {
    let companions = ["", "-wal"].map(|suffix| format!("{}{suffix}", path.display()));
    companions.iter().flat_map(|path| std::fs::read(path).unwrap_or_default()).collect()
}

#[tokio::test]
async fn no_data_of_an_erased_sign_in_is_left_in_the_files_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deferred.sqlite");
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    live(&*store).await;
    assert_eq!(found(&files_of(&path)).len(), traces().len(), "the search finds what is there");
    let before = folder.path().join("before");
    store.backup(&before).await.unwrap();
    assert!(!found(&std::fs::read(&before).unwrap()).is_empty(), "a backup from before keeps it");

    let forgotten = Operations::new(store.clone()).forget(id(PERSON)).await.unwrap();
    assert!(forgotten.is_complete() && forgotten.is_log_empty, "{forgotten:?}");
    assert_eq!(found(&files_of(&path)), Vec::<String>::new(), "in the file or its log");
    let after = folder.path().join("after");
    store.backup(&after).await.unwrap();
    assert_eq!(found(&std::fs::read(&after).unwrap()), Vec::<String>::new(), "in a backup");
    let mut export = Vec::new();
    Operations::new(store).export(&mut export, |_| {}).await.unwrap();
    assert!(!String::from_utf8(export).unwrap().contains(&id(PERSON).to_string()), "in an export");
}

#[tokio::test]
async fn no_data_of_an_erased_sign_in_is_left_in_a_dump_of_postgres() {
    let schema = Schema::new().await;
    let store = Arc::new(schema.store().await);
    live(&*store).await;
    let pattern = format!("--schema={}", schema.quoted());
    let dump = || {
        let output = Command::new(program("pg_dump")).args([&pattern, &url()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let left = |dump: &str| {
        let traces = traces().into_iter().map(hex).chain(["schedule of Jane Doe".to_owned()]);
        traces.filter(|trace| dump.contains(trace)).collect::<Vec<_>>()
    };
    assert!(left(&dump()).len() >= 5, "the search finds what is there");
    let forgotten = Operations::new(store).forget(id(PERSON)).await.unwrap();
    assert!(forgotten.is_complete() && !forgotten.is_log_empty, "the log of PostgreSQL is its own: {forgotten:?}");
    assert_eq!(left(&dump()), Vec::<String>::new());
}
