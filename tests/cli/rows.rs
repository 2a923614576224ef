//! The commands about sign-ins.

use serde_json::json;

use crate::world::{Place, World};

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_those_of_the_library() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        world.users(3).await;
        let run = world.place.run(&["stats", "--json"]);
        world.assert_no_secrets(&run);
        let partition = world.poller.stats().await.unwrap()[0].rows.partition.0;
        let expected = json!([{
            "partition": partition, "exchanging": 0, "waiting": 3, "answered": 0, "decided": 0, "acknowledged": 0,
            "overdue": null, "undelivered": null,
        }]);
        assert_eq!(run.json(), expected);
        let text = world.place.run(&["stats"]).stdout;
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("CLIENT") && lines[0].contains("  WAITING  "), "{text}");
        assert!(lines[1].starts_with(&partition.to_string()) && lines.len() == 2, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_is_cancelled_and_forgotten_beside_a_running_poller() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        let ids = world.users(2).await;
        let (place, id) = (&world.place, ids[0].to_string());

        let run = place.run(&["cancel", &id, "--json"]);
        world.assert_no_secrets(&run);
        assert_eq!(run.json(), json!({ "id": id, "result": "noted" }));
        assert!(world.poller.status(ids[0]).await.unwrap().unwrap().is_cancelled());
        assert!(!world.poller.status(ids[1]).await.unwrap().unwrap().is_cancelled());

        let run = place.run(&["forget", &id, "--json"]);
        world.assert_no_secrets(&run);
        assert_eq!(run.json()["id"], json!(id));
        assert!(world.poller.status(ids[0]).await.unwrap().is_none());
        assert!(world.poller.status(ids[1]).await.unwrap().is_some());

        for command in ["cancel", "forget"] {
            let run = place.run(&[command, &id]);
            let text = run.failed(1);
            assert!(text.contains(&id) && text.contains("what to do: "), "{text}");
        }
    }
}
