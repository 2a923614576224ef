//! What the program says about sign-ins that do not go on although an operator acts on them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openid_deferred::store::{Imported, Partition, ProcessId, State, StoredRow};
use openid_deferred::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::tool::Run;
use crate::world::Place;

const HOUR: Duration = Duration::from_secs(3600);
const KEY: &str = "07070707";

/// A row that waits for the OP, without a poller.
async fn waiting(place: &Place, number: u8, change: impl FnOnce(&mut StoredRow)) -> String {
    let id = ProcessId::from_bytes([number; 16]);
    let mut row = StoredRow::new(id, Partition(7), State::Waiting, SystemClock.now() - HOUR);
    row.due_at = Some(SystemClock.now() + HOUR);
    (row.key, row.first_key, row.format, row.body) = ([7; 4], [7; 4], 1, Some(b"sealed".to_vec()));
    change(&mut row);
    assert!(matches!(place.store.import(vec![row]).await.unwrap()[..], [Imported::Added]));
    id.to_string()
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// The schedule of a sign-in whose OP has sent `Retry-After: 86400`.
fn held(row: &mut StoredRow) {
    let at = SystemClock.now() + 24 * HOUR;
    let until = format!(r#"{{"at":{},"of":86400000}}"#, millis(at));
    row.schedule = format!(r#"{{"int":60000,"sent":0,"recv":0,"trb":1,"due":{until},"nb":{until}}}"#);
    row.due_at = Some(at);
}

fn refused(row: &mut StoredRow) {
    let at = millis(SystemClock.now()) / 1000;
    row.schedule = format!(r#"{{"trb":1,"lt":{{"k":"error_response","s":401,"c":"invalid_client","t":{at}}}}}"#);
}

fn set_aside(row: &mut StoredRow) {
    (row.due_at, row.body) = (None, None);
    // A time at which an operator could make it due.
    row.not_before = Some(SystemClock.now() - HOUR);
}

/// The document on standard output of a command that ended with this code.
fn answer(run: &Run, code: i32) -> Value {
    assert_eq!(run.code, code, "{} {}", run.stdout, run.stderr);
    run.document()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_promises_that_a_stuck_sign_in_goes_on() {
    for place in Place::both().await {
        let overdue = waiting(&place, 1, |row| row.due_at = Some(SystemClock.now() - HOUR)).await;
        let refused = waiting(&place, 2, refused).await;
        let held = waiting(&place, 3, held).await;
        let free = waiting(&place, 4, |_| {}).await;
        let cases = [
            (&overdue, json!("overdue"), "no replica takes it"),
            (&refused, json!("client_refused"), "the OP refuses its client"),
            (&held, json!("retry_after"), "Retry-After of the OP forbids polls, and ends in 24h"),
            (&free, Value::Null, ""),
        ];
        for (id, stuck, why) in cases {
            for command in ["poll-now", "requeue", "cancel"] {
                assert_eq!(answer(&place.run(&[command, id, "--json"]), 0)["stuck"], stuck, "{command}");
                let text = place.run(&[command, id]).stdout;
                let mut lines = text.lines();
                let first = lines.next().unwrap();
                assert!(first.starts_with(id.as_str()), "{text}");
                let promises = ["next free replica", "next poll", "without intervention"];
                let is_promised = promises.iter().any(|promise| first.contains(promise));
                match lines.next() {
                    Some(second) => assert!(!why.is_empty() && second.contains(why) && !is_promised, "{text}"),
                    None => assert!(why.is_empty() && (is_promised || command == "poll-now"), "{text}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_without_its_data_stays_set_aside_and_the_command_fails() {
    for place in Place::both().await {
        let id = waiting(&place, 1, set_aside).await;
        for command in ["poll-now", "requeue"] {
            let run = place.run(&[command, &id, "--json"]);
            assert_eq!(answer(&run, 1), json!({ "id": id, "result": "no_body", "stuck": "set_aside" }), "{command}");
            let text = place.run(&[command, &id]);
            assert!(text.code == 1 && text.stdout.contains("\nIt stays as it is: its sealed data"), "{}", text.stdout);
        }
        let shown = place.run(&["show", &id, "--json"]).json();
        assert_eq!((&shown["due_at"], &shown["attempts"]), (&Value::Null, &json!(0)));
        let cancelled = answer(&place.run(&["cancel", &id, "--json"]), 0);
        assert_eq!(cancelled, json!({ "id": id, "result": "requested", "stuck": "set_aside" }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_retry_after_holds_for_a_day_is_listed_and_reported() {
    for place in Place::both().await {
        let id = waiting(&place, 1, held).await;
        let page = place.tool(&["list", "--stuck", "--json"]).run().document();
        assert_eq!((&page["sign_ins"][0]["id"], &page["sign_ins"][0]["stuck"]), (&json!(id), &json!("retry_after")));
        let findings = place.run(&["check", "--json"]).document();
        let held = findings.as_array().unwrap().iter().find(|found| found["severity"] == "warning");
        let text = held.unwrap_or_else(|| panic!("{findings}"))["text"].as_str().unwrap();
        assert!(text.contains("1 sign-in of the client number 7") && text.contains("1440 minutes"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_program_says_that_it_did_not_compare_any() {
    for place in Place::both().await {
        let id = waiting(&place, 1, |_| {}).await;
        let note = "keys were not compared";
        for command in [&["list", "--stuck"][..], &["check"]] {
            let (without, with) = (place.run(command), place.tool(command).key_file(&place.key_file()).run());
            assert!(without.stderr.contains(note) && without.stderr.contains("--key-file"), "{}", without.stderr);
            assert_eq!(with.stderr, "");
        }
        assert_eq!((place.run(&["list", "--stuck"]).code, &*place.run(&["list"]).stderr), (0, ""));
        // The commands that change a sign-in compare it too.
        let run = place.tool(&["poll-now", &id]).key_file(&place.key_file()).run();
        assert!(run.stdout.contains(&format!("the given keys do not include its key {KEY}")), "{}", run.stdout);
        let run = place.tool(&["cancel", &id, "--json"]).key_file(&place.key_file()).run();
        assert_eq!(run.json()["stuck"], "key_missing");
    }
}
