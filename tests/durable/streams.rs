//! Streams of outcomes and events, and pollers that are set up in unusual ways.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt};
use openid_deferred::poller::{Event, LimitedClient, Limits};
use openid_deferred::store::Store as _;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Client, Outcome};

use crate::documents::Log;
use crate::faulty_store;
use crate::support::{HOUR, SECOND, client_of, happened, next, poller_of, world, world_of};

#[tokio::test]
async fn a_poller_runs_while_a_stream_of_its_outcomes_exists() {
    let world = world().await;
    let id = world.waiting().await;
    world.poller.shutdown(Duration::ZERO).await;
    let builder = poller_of(&world.store, &world.clock, 9).client(world.client.clone());
    let mut outcomes = builder.start().await.unwrap().outcomes();
    let delivery = next(&mut outcomes).await;
    assert_eq!(delivery.id(), id);
    delivery.acknowledge().await.unwrap();
}

#[tokio::test]
async fn a_poller_stops_when_its_last_stream_of_outcomes_is_dropped() {
    let world = world().await;
    let poller = world.replica(9).await;
    let (mut events, outcomes) = (poller.events(), poller.outcomes());
    drop(poller);
    world.sleep(HOUR).await;
    assert!(happened(&mut events).is_none() && events.next().now_or_never().is_none(), "the stream keeps it running");
    drop(outcomes);
    assert!(events.next().await.is_none());
    assert!(events.next().await.is_none(), "it has ended for good");
}

#[tokio::test]
async fn outcomes_and_events_are_streams() {
    let world = world().await;
    let events = world.poller.events();
    for _ in 0..3 {
        world.waiting().await;
    }
    let deliveries: Vec<_> = world.poller.outcomes().take(3).collect().await;
    for delivery in &deliveries {
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)));
        delivery.acknowledge().await.unwrap();
    }
    let acknowledged = events.filter_map(async |event| match event {
        Event::Acknowledged { id } => Some(id),
        _ => None,
    });
    let ids: Vec<_> = deliveries.iter().map(openid_deferred::Delivery::id).collect();
    assert_eq!(acknowledged.take(3).collect::<Vec<_>>().await, ids);
}

#[tokio::test]
async fn a_stale_claim_of_a_stream_is_not_delivered_after_the_acknowledgement() {
    let world = faulty_store::world(DecisionPolicy::immediately()).await;
    world.waiting().await;
    let hung = next(&mut world.poller.outcomes()).await;
    // Its lease is no longer renewed, and runs out.
    world.sleep(2 * HOUR).await;
    world.store.delay("claim_outcomes", 5 * SECOND);
    let mut outcomes = world.poller.outcomes();
    assert!(StreamExt::next(&mut outcomes).now_or_never().is_none());
    // The claim is answered, and the application does something else.
    world.sleep(20 * SECOND).await;
    hung.acknowledge().await.unwrap();
    tokio::select! {
        biased;
        late = StreamExt::next(&mut outcomes) => panic!("it was acknowledged before: {late:?}"),
        () = world.sleep(HOUR) => {}
    }
}

#[tokio::test]
async fn a_client_may_have_limits_of_its_own() {
    let world = world_of(|op| op).await;
    world.poller.shutdown(SECOND).await;
    let limited = LimitedClient::new(world.client.clone(), Limits::new().in_flight(3));
    let builder = poller_of(&world.store, &world.clock, 9).limits(Limits::new().in_flight(7));
    let poller = builder.client(limited).start().await.unwrap();
    for _ in 0..20 {
        let (query, session) = world.user_returns().await;
        let _ = poller.authorization_response(&query, session).await.unwrap();
    }
    world.op.misbehave(Fault::delay(Endpoint::Poll, SECOND).always());
    let mut most = 0;
    while world.polls().len() < 40 {
        most = most.max(poller.stats().await.unwrap()[0].in_flight);
        world.sleep(SECOND / 4).await;
    }
    assert_eq!(most, 3);
}

#[tokio::test]
async fn outcomes_are_handled_until_the_application_has_stored_them_and_the_poller_stops() {
    let world = world().await;
    let ids = [world.waiting().await, world.waiting().await];
    let mut seen = Vec::new();
    let handling = world.poller.outcomes().handle_each(async |delivery| {
        seen.push((delivery.id(), delivery.attempt()));
        let user = delivery.outcome().approved().ok_or("not approved")?;
        assert_eq!(user.claims().subject(), "user-1");
        // The database of the application is unavailable once.
        if seen.len() == 1 { Err("database".into()) } else { Ok(()) }
    });
    let stopping = async {
        world.sleep(HOUR).await;
        world.poller.shutdown(SECOND).await;
    };
    tokio::join!(handling, stopping);
    // The first one failed and came again.
    let [first, ..] = seen[..] else { panic!("nothing was delivered") };
    let mut expected = ids.map(|id| (id, 1)).to_vec();
    expected.push((first.0, 2));
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    for id in ids {
        assert!(world.store.load(id).await.unwrap().unwrap().body.is_none(), "it is acknowledged");
    }
}

#[tokio::test]
async fn a_poller_without_clients_is_an_error() {
    let world = world().await;
    let (log, _guard) = Log::start();
    let poller = poller_of(&world.store, &world.clock, 9).start().await.unwrap();
    assert_eq!(log.lines("has no client").len(), 1);
    let client: Client = client_of(&world.op, &world.clock).build().unwrap();
    poller.add_client(client).unwrap();
    let _poller = world.replica(10).await;
    assert_eq!(log.lines("has no client").len(), 1, "a poller with a client does not");
}
