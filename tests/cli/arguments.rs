//! Arguments, stores that cannot be used, and readers that go away.

use std::fs;
use std::net::TcpListener;

use crate::tool::Tool;
use crate::world::{Place, database, new_schema, password};

#[test]
fn without_a_store_the_program_says_how_to_name_one() {
    let run = Tool::new(&["stats"]).run();
    let text = run.failed(2);
    assert!(text.contains("no store is named") && text.contains("OPENID_DEFERRED_STORE"), "{text}");
    let run = Tool::new(&["stats", "--json"]).run();
    let error: serde_json::Value = serde_json::from_str(run.failed(2)).unwrap();
    assert_eq!(error["error"], "no store is named");
    assert!(error["advice"].as_str().unwrap().contains("--store"), "{error}");
    // Arguments that clap refuses.
    assert!(Tool::new(&["stat"]).run().failed(2).contains("stats"));
    assert!(Tool::new(&["cancel", "nonsense"]).store("sqlite:x").run().failed(2).contains("nonsense"));
}

/// One in 64 identifiers begins with a hyphen.
#[test]
fn an_identifier_may_begin_with_a_hyphen() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("pending.db").display());
    Tool::new(&["migrate"]).store(&store).run();
    for arguments in [
        &["show", "-AAAAAAAAAAAAAAAAAAAAA"][..],
        &["show", "--json", "-AAAAAAAAAAAAAAAAAAAAA"],
        &["show", "-AAAAAAAAAAAAAAAAAAAAA", "--json"],
        &["show", "--", "-hAAAAAAAAAAAAAAAAAAAA"],
    ] {
        let run = Tool::new(arguments).store(&store).run();
        let text = run.failed(1);
        assert!(text.contains("no sign-in"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_store_that_cannot_be_parsed_is_not_printed() {
    for store in ["postgre://user:hunter2@db/app", "hunter2", "sqlite:"] {
        let run = Tool::new(&["stats"]).store(store).run();
        let text = run.failed(2);
        assert!(text.contains("OPENID_DEFERRED_STORE does not name a store") && !text.contains("hunter2"), "{text}");
        let run = Tool::new(&["stats", "--store", store]).run();
        let text = run.failed(2);
        assert!(text.contains("--store does not name a store") && !text.contains("hunter2"), "{text}");
    }
    let run = Tool::new(&["stats"]).store("postgres://user:hunter2@db:x/app").run();
    let text = run.failed(1);
    assert!(text.contains("cannot connect to the database") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_file_that_does_not_exist_is_not_created_except_by_migrate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pending.db");
    let store = format!("sqlite:{}", path.display());
    let run = Tool::new(&["stats"]).store(&store).run();
    let text = run.failed(1);
    assert!(text.contains(&*path.to_string_lossy()) && text.contains("openid-deferred migrate"), "{text}");
    assert!(!path.exists());
    assert_eq!(Tool::new(&["migrate", "--json"]).store(&store).run().json()["is_up_to_date"], true);
    assert_eq!(Tool::new(&["stats"]).store(&store).run().stdout, "the store has no sign-ins\n");
    // A file of another application.
    let notes = folder.path().join("notes.txt");
    fs::write(&notes, "some notes, which are no database at all").unwrap();
    let run = Tool::new(&["stats"]).store(&format!("sqlite:{}", notes.display())).run();
    assert!(run.failed(1).contains(&*notes.to_string_lossy()), "{}", run.stderr);
}

#[test]
fn a_database_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    // Nothing listens on this port any more.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = Tool::new(&["stats"]).store(&format!("postgres://user:hunter2@127.0.0.1:{port}/app")).run();
    let text = run.failed(1);
    assert!(text.contains("cannot connect") && text.contains("what to do: ") && !text.contains("hunter2"), "{text}");

    let url = database();
    let wrong = url.replace(&password(&url).unwrap(), "hunter2");
    let run = Tool::new(&["stats"]).store(&wrong).run();
    let text = run.failed(1);
    assert!(text.contains("28P01") && text.contains("password") && !text.contains("hunter2"), "{text}");

    // Tables that were not created yet.
    let schema = new_schema();
    let tool = |arguments: &[&str]| Tool::new(arguments).store(&url).args(&["--schema", &schema]);
    let run = tool(&["stats"]).run();
    assert!(run.failed(1).contains("openid-deferred migrate"), "{}", run.stderr);
    let check = tool(&["check", "--json"]).run();
    assert_eq!(check.code, 1);
    let findings = check.document();
    let schema_finding = findings.as_array().unwrap().iter().find(|found| found["subject"] == "schema").unwrap();
    assert_eq!(schema_finding["severity"], "wrong");
    assert_eq!(tool(&["migrate"]).run().stdout, "the tables are up to date\n");
    assert_eq!(tool(&["stats"]).run().stdout, "the store has no sign-ins\n");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_closed_pipe_is_not_an_error_and_a_full_disk_is_one() {
    let place = Place::sqlite().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = place.tool(&["check"]).key_file(&place.key_file()).run_into(writer);
    assert_eq!((run.code, &*run.stderr), (0, ""));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = place.tool(&["check"]).run_into(full);
    assert!(run.failed(1).contains("cannot write to standard output"), "{}", run.stderr);
}
