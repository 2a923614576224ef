//! `export`, `import` and `backup`.

use std::time::Duration;

use openid_deferred::store::{SqliteStore, Store as _};
use serde_json::json;

use crate::world::{Place, World};

#[tokio::test(flavor = "multi_thread")]
async fn rows_move_to_another_database_and_an_import_can_be_repeated() {
    for (from, to) in
        [(Place::sqlite().await, Place::postgres().await), (Place::postgres().await, Place::sqlite().await)]
    {
        let world = World::new(from, Vec::new()).await;
        world.users(3).await;
        world.poller.shutdown(Duration::from_secs(10)).await;
        let from = &world.place;
        let path = from.folder.path().join("rows.jsonl");
        let file = path.to_str().unwrap();

        let run = from.run(&["export", file, "--json"]);
        world.assert_no_secrets(&run);
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert_eq!(run.json(), json!({ "rows": 3, "bytes": bytes }));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(from.run(&["export", file]).failed(1).contains(file), "no file is overwritten");

        let run = to.run(&["import", file, "--json"]);
        let expected = |added, present| json!({ "added": added, "present": present, "conflicts": 0, "conflicting": [], "bytes": bytes });
        assert_eq!(run.json(), expected(3, 0));
        assert_eq!(to.run(&["import", file, "--json"]).json(), expected(0, 3));
        assert_eq!(to.run(&["stats", "--json"]).json()[0]["waiting"], json!(3));

        // Half a file, and no file.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.lines().next().unwrap()).unwrap();
        let run = to.run(&["import", file]);
        assert!(run.failed(1).contains("line 1 of the file"), "{}", run.stderr);
        let run = to.run(&["import", "/nowhere/rows.jsonl"]);
        assert!(run.failed(1).contains("/nowhere/rows.jsonl"), "{}", run.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_a_running_poller_has_every_row() {
    let world = World::new(Place::sqlite().await, Vec::new()).await;
    world.users(3).await;
    let path = world.place.folder.path().join("backup.db");
    let file = path.to_str().unwrap();
    let run = world.place.run(&["backup", file, "--json"]);
    world.assert_no_secrets(&run);
    assert_eq!(run.json(), json!({ "rows": 3, "bytes": std::fs::metadata(&path).unwrap().len() }));
    assert_eq!(SqliteStore::open(&path).await.unwrap().stats().await.unwrap()[0].waiting, 3);
    assert!(world.place.run(&["backup", file]).failed(1).contains("backup.db"), "no file is overwritten");

    let run = Place::postgres().await.run(&["backup", "/nowhere/backup.db"]);
    assert!(run.failed(2).contains("pg_dump"), "{}", run.stderr);
}
