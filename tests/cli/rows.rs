//! The commands about sign-ins.

use std::time::Duration;

use openid_deferred::operations::Filter;
use openid_deferred::store::{ClientNote, Partition};
use serde_json::{Value, json};

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
            "issuer": world.op.issuer(), "client_id": "the-app", "is_refused": false,
            "partition": partition.to_string(), "exchanging": 0, "waiting": 3, "answered": 0, "decided": 0, "acknowledged": 0,
            "set_aside": 0, "overdue": null, "undelivered": null,
        }]);
        assert_eq!(run.json(), expected);
        let text = world.place.run(&["stats"]).stdout;
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("CLIENT") && lines[0].contains("  WAITING  "), "{text}");
        assert!(lines[1].starts_with(&partition.to_string()) && lines.len() == 2, "{text}");
        let cells: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(cells[1..4], [world.op.issuer(), "the-app", "no"], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_from_a_configuration_are_printed_without_control_characters_and_cut_off() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        let id = world.users(1).await[0].to_string();
        world.poller.shutdown(Duration::ZERO).await;
        let shown = world.place.run(&["show", &id, "--json"]).json();
        let partition = Partition(shown["client"].as_str().unwrap().parse().unwrap());
        // Another poller noted another name first.
        let other = Place::sqlite().await;
        let note = ClientNote::new(partition, "https://op.test/\u{1b}[2J", &"x".repeat(500));
        other.store.note_clients(vec![note]).await.unwrap();
        let file = world.place.folder.path().join("rows");
        world.place.run(&["export", file.to_str().unwrap()]);
        other.run(&["import", file.to_str().unwrap()]);
        for command in [&["list"][..], &["stats"], &["show", &id]] {
            let text = other.run(command).stdout;
            assert!(text.contains("https://op.test/\u{fffd}[2J") && !text.contains('\u{1b}'), "{text}");
            assert!(text.contains("x…") && !text.contains(&"x".repeat(61)), "{text}");
        }
    }
}

/// The identifiers on a page.
fn ids(page: &Value) -> Vec<&str> {
    page["sign_ins"].as_array().unwrap().iter().map(|sign_in| sign_in["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_are_listed_by_pages_and_filters() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        world.users(3).await;
        let list = |arguments: &[&str]| {
            let run = world.place.tool(&["list", "--json"]).args(arguments).run();
            world.assert_no_secrets(&run);
            run.json()
        };
        let all = list(&[]);
        let of_library = world.poller.operations().list(Filter::new()).await.unwrap();
        assert_eq!(all, serde_json::to_value(of_library).unwrap());
        assert_eq!((ids(&all).len(), &all["next"]), (3, &Value::Null));

        let first = list(&["--limit", "2"]);
        let second = list(&["--limit", "2", "--after", first["next"].as_str().unwrap()]);
        assert_eq!([ids(&first), ids(&second)].concat(), ids(&all));

        let client = [world.op.issuer(), "the-app"];
        let count = |arguments: &[&str]| ids(&list(arguments)).len();
        assert_eq!(count(&["--client", client[0], client[1]]), 3);
        assert_eq!(count(&["--client", client[0], "another-app"]), 0);
        assert_eq!(count(&["--state", "waiting", "--state", "decided"]), 3);
        assert_eq!(count(&["--state", "decided"]), 0);
        assert_eq!(count(&["--older-than", "0s"]), 3);
        assert_eq!(count(&["--older-than", "1h"]), 0);
        assert_eq!(count(&["--overdue-for", "10m"]), 0);
        assert!(ids(&world.place.run(&["list", "--json", "--stuck"]).document()).is_empty());
        let key_id = world.place.key_id();
        assert_eq!(count(&["--key", &key_id]), 3);
        assert_eq!(count(&["--key", "00000000"]), 0);
        assert_eq!(count(&["--key", "00000000", "--key", &key_id]), 3);

        let text = world.place.run(&["list", "--limit", "1"]).stdout;
        assert!(text.starts_with("ID ") && text.contains("next_poll") && text.contains("\nmore: --after "), "{text}");
        assert_eq!(world.place.run(&["list", "--stuck"]).stdout, "no sign-ins\n");
        for wrong in [
            ["--key", "nonsense"],
            ["--older-than", "1.5h"],
            ["--state", "pending"],
            ["--after", "nonsense"],
            ["--client", "one"],
        ] {
            let run = world.place.tool(&["list"]).args(&wrong).run();
            assert!(run.failed(2).contains(wrong[0]), "{}", run.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_ins_of_one_person_are_found_by_the_reference_of_the_application() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        let all = world.users_of(&["account 7", "account 8", "account 7"]).await;
        let place = &world.place;
        let list = || place.tool(&["list", "--json"]).key_file(&place.key_file());
        let mut of_seven = [all[0].to_string(), all[2].to_string()];
        of_seven.sort_unstable();

        let run = list().args(&["--reference", "account 7"]).run();
        world.assert_no_secrets(&run);
        let page = run.json();
        let mut found = ids(&page);
        found.sort_unstable();
        assert_eq!(found, of_seven);
        let input = place.folder.path().join("reference");
        std::fs::write(&input, "account 8\n").unwrap();
        let run = list().args(&["--reference", "-"]).stdin(&input).run();
        assert_eq!(ids(&run.json()), [all[1].to_string()]);
        assert!(ids(&list().args(&["--reference", "account 9"]).run().json()).is_empty());

        // Another key finds nothing, and says so.
        let (other, _) = place.other_key();
        let run = place.tool(&["list", "--reference", "account 7"]).key_file(&other).run();
        assert!(run.failed(1).contains("cannot open any row of the store"), "{}", run.stderr);
        assert!(place.run(&["list", "--reference", "account 7"]).failed(1).contains("SEALING_KEY"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sign_in_is_shown_polled_and_requeued() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        let id = world.users(1).await[0];
        let (place, text) = (&world.place, id.to_string());

        let run = place.run(&["show", &text, "--json"]);
        world.assert_no_secrets(&run);
        let of_library = world.poller.operations().show(id).await.unwrap().unwrap();
        assert_eq!(run.json(), serde_json::to_value(of_library).unwrap());
        let run = place.run(&["show", &text]);
        world.assert_no_secrets(&run);
        let parts = ["waiting", "next_poll", "expires", &place.key_id(), world.op.issuer(), "the-app"];
        for part in parts.into_iter().chain(["poll interval", "60m", "deliveries"]) {
            assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
        }

        // The OP's interval is an hour, and the last request was just now.
        let run = place.run(&["poll-now", &text, "--json"]);
        world.assert_no_secrets(&run);
        let answer = run.json();
        assert_eq!((&answer["id"], &answer["result"]), (&json!(text), &json!("scheduled")));
        assert!(answer["due_in_seconds"].as_u64().is_some(), "{answer}");
        assert!(place.run(&["poll-now", &text]).stdout.starts_with(&text));

        let run = place.run(&["requeue", &text, "--json"]);
        world.assert_no_secrets(&run);
        assert_eq!(run.json()["id"], json!(text));
        assert!(["free", "in_use"].contains(&run.json()["result"].as_str().unwrap()), "{}", run.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_that_need_a_key_that_is_not_given_are_stuck() {
    for place in Place::both().await {
        let world = World::new(place, Vec::new()).await;
        let id = world.users(2).await[0].to_string();
        let place = &world.place;
        let (other, _) = place.other_key();
        let stuck = |key| ids(&place.tool(&["list", "--stuck", "--json"]).key_file(key).run().json()).len();
        assert_eq!((stuck(&place.key_file()), stuck(&other)), (0, 2));
        let of_show = |key| place.tool(&["show", &id, "--json"]).key_file(key).run().json()["stuck"].clone();
        assert_eq!((of_show(&place.key_file()), of_show(&other)), (Value::Null, json!("key_missing")));
        let text = place.tool(&["list"]).key_file(&other).run();
        world.assert_no_secrets(&text);
        assert!(text.stdout.contains("  key_missing  ") && text.stdout.contains(&place.key_id()), "{}", text.stdout);
        // The variable of the guide works as well.
        let key = std::fs::read_to_string(&other).unwrap();
        let run = place.tool(&["show", &id]).env("SEALING_KEY", &key).run();
        assert!(run.stdout.contains("key_missing"), "{}", run.stdout);
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
        assert_eq!(run.json(), json!({ "id": id, "result": "requested", "stuck": null }));
        assert!(world.poller.status(ids[0]).await.unwrap().unwrap().is_cancelled());
        assert!(!world.poller.status(ids[1]).await.unwrap().unwrap().is_cancelled());

        let run = place.run(&["forget", &id, "--json"]);
        world.assert_no_secrets(&run);
        let forgotten = run.json();
        assert_eq!((&forgotten["id"], &forgotten["left"]), (&json!(id), &json!(0)));
        assert!(forgotten["erased"].as_u64().unwrap() >= 2, "{forgotten}");
        assert!(world.poller.status(ids[0]).await.unwrap().is_none());
        assert!(world.poller.status(ids[1]).await.unwrap().is_some());

        for command in ["show", "poll-now", "requeue", "cancel", "forget"] {
            let run = place.run(&[command, &id]);
            let text = run.failed(1);
            assert!(text.contains(&id) && text.contains("what to do: "), "{text}");
        }
    }
}
