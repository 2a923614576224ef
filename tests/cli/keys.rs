//! `key generate`, `rotate` and `check`.

use openid_deferred::{SealingKey, poller};
use serde_json::{Value, json};

use crate::tool::Tool;
use crate::world::{Place, World};

#[test]
fn a_generated_key_is_a_key_that_only_its_owner_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.key");
    let text = path.to_str().unwrap();
    let made = Tool::new(&["key", "generate", "--json", "--output", text]).run().json();
    let key = SealingKey::from_file(&path).unwrap();
    assert_eq!(made, json!({ "key_id": key.key_id(), "path": text }));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A key is never overwritten.
    let run = Tool::new(&["key", "generate", "--output", text]).run();
    assert!(run.failed(1).contains(text), "{}", run.stderr);
    assert_eq!(SealingKey::from_file(&path).unwrap().key_id(), key.key_id());

    let printed = Tool::new(&["key", "generate"]).run();
    assert_eq!((printed.code, &*printed.stderr), (0, ""));
    let printed = SealingKey::from_base64(&printed.stdout).unwrap();
    assert_ne!(printed.key_id(), key.key_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_beside_a_running_poller() {
    for place in Place::both().await {
        let (new_file, new_key) = place.other_key();
        let new_id = new_key.key_id();
        let world = World::new(place, vec![new_key]).await;
        let ids = world.users(3).await;
        let (place, old_id) = (&world.place, world.place.key_id());

        let rotate = || place.tool(&["rotate", "--json"]).key_file(&new_file).key_file(&place.key_file());
        let run = rotate().run();
        world.assert_no_secrets(&run);
        let expected = json!({ "resealed": 3, "changed_meanwhile": 0, "unreadable": 0, "keys": [
            { "key_id": new_id, "is_known": true, "is_primary": true, "sealed": 3, "waiting": 0 },
            { "key_id": old_id, "is_known": true, "is_primary": false, "sealed": 0, "waiting": 3 },
        ] });
        assert_eq!(run.json(), expected);
        assert_eq!(rotate().run().json()["resealed"], 0);
        let run = place.tool(&["rotate"]).key_file(&new_file).key_file(&place.key_file()).run();
        assert!(
            run.stdout.starts_with("0 rows were sealed again\n") && run.stdout.contains("needed"),
            "{}",
            run.stdout
        );
        // The poller goes on.
        assert!(world.poller.status(ids[0]).await.unwrap().is_some());

        // The references were hashed with the old key, so the new one alone does not find them.
        let find = || place.tool(&["list", "--reference", "account 4711"]).key_file(&new_file);
        let run = find().run();
        assert_eq!((run.code, &*run.stdout), (1, "no sign-ins\n"));
        assert!(run.stderr.contains(&old_id) && run.stderr.contains("--key-file"), "{}", run.stderr);
        let run = find().key_file(&place.key_file()).run();
        assert_eq!((run.code, &*run.stderr), (0, ""));
        assert!(ids.iter().all(|id| run.stdout.contains(&id.to_string())), "{}", run.stdout);

        // With the old key alone nothing can be opened.
        let run = place.tool(&["rotate", "--json"]).key_file(&place.key_file()).run();
        assert_eq!((run.code, run.document()["unreadable"].clone()), (1, json!(3)));
        let run = place.tool(&["check", "--json"]).key_file(&place.key_file()).run();
        world.assert_no_secrets(&run);
        assert_eq!(run.code, 1);
        let wrong = found(&run.document(), "keys", "wrong");
        assert!(wrong["text"].as_str().unwrap().contains(&new_id), "{wrong}");
        assert!(wrong["advice"].as_str().unwrap().contains("add the key"), "{wrong}");
        world.op.assert_clean();
    }
}

/// The finding about a subject with this severity.
fn found(findings: &Value, subject: &str, severity: &str) -> Value {
    let mut all = findings.as_array().unwrap().iter();
    let found = all.find(|found| found["subject"] == subject && found["severity"] == severity);
    found.unwrap_or_else(|| panic!("no {severity} {subject} in {findings}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_a_sound_store_finds_nothing_wrong() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        world.users(2).await;
        let place = &world.place;
        let run = place.tool(&["check", "--json"]).key_file(&place.key_file()).run();
        world.assert_no_secrets(&run);
        let findings = run.document();
        let wrong: Vec<_> = findings.as_array().unwrap().iter().filter(|found| found["severity"] == "wrong").collect();
        // The databases of tests do not write to the disk.
        let is_expected = |found: &&Value| found["subject"] == "durability";
        assert!(wrong.iter().all(is_expected), "{wrong:?}");
        assert_eq!(run.code, i32::from(!wrong.is_empty()));
        for subject in ["schema", "clock", "keys", "polls", "deliveries"] {
            found(&findings, subject, "fine");
        }
        // The variable of the guide works as well.
        let key = std::fs::read_to_string(place.key_file()).unwrap();
        let text = place.tool(&["check"]).env("SEALING_KEY", &key).run();
        assert!(
            text.stdout.contains(&format!("the key {} seals, and 2 rows need it", place.key_id())),
            "{}",
            text.stdout
        );
        let text = place.run(&["check"]);
        assert!(text.stdout.contains("no keyring was given; the rows need these keys"), "{}", text.stdout);
        // The program prints what the library finds.
        let keyring = openid_deferred::Keyring::new(SealingKey::from_file(place.key_file()).unwrap());
        let of_rows = poller::check(&*place.store, Some(&keyring)).await.unwrap();
        let of_rows = serde_json::to_value(of_rows).unwrap();
        assert!(findings.as_array().unwrap().ends_with(of_rows.as_array().unwrap()), "{findings}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_named_and_not_printed() {
    let place = Place::sqlite().await;
    let missing = place.folder.path().join("missing.key");
    let run = place.tool(&["rotate"]).key_file(&missing).run();
    let text = run.failed(1);
    assert!(text.contains("missing.key") && text.contains("--key-file"), "{text}");
    let wrong = place.folder.path().join("wrong.key");
    std::fs::write(&wrong, "hunter2").unwrap();
    let run = place.tool(&["rotate"]).key_file(&wrong).run();
    let text = run.failed(1);
    assert!(text.contains("wrong.key") && text.contains("base64") && !text.contains("hunter2"), "{text}");
    let run = place.tool(&["rotate", "--key-env", "MY_KEY"]).env("MY_KEY", "hunter2").run();
    let text = run.failed(1);
    assert!(text.contains("MY_KEY") && !text.contains("hunter2"), "{text}");
    let run = place.run(&["rotate"]);
    assert!(run.failed(1).contains("SEALING_KEY"), "{}", run.stderr);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_can_read_is_reported() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::sqlite().await;
    let path = place.name.strip_prefix("sqlite:").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = place.run(&["check", "--json"]);
    let warning = found(&run.document(), "permissions", "warning");
    assert!(warning["text"].as_str().unwrap().contains("644"), "{warning}");
    assert!(place.run(&["check"]).stdout.contains("chmod 600"));
}
