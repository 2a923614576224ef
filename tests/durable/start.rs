//! Starting, running without polling, and stopping.

use std::sync::Arc;

use openid_deferred::error::{ConfigurationProblem, Misuse};
use openid_deferred::poller::Limits;
use openid_deferred::store::{ProcessId, Reseal, SealedBody, Store as _, StoreError, StoreProblem};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, SeededRandom, TestProvider};
use openid_deferred::{AuthorizationSession, Client, ErrorKind, Keyring, Outcome, Poller, SealingKey, SignIn, poller};

use crate::support::{HOUR, SECOND, World, client_of, keyring, poller_of, provider, world, world_of, world_with};

#[tokio::test]
async fn a_wrong_keyring_is_one_clear_error_at_start() {
    let world = world().await;
    world.waiting().await;
    let wrong = Keyring::new(SealingKey::generate(&SeededRandom::new(99)).unwrap());
    let error = Poller::builder(world.store.clone(), wrong).start().await.unwrap_err();
    assert!(error.to_string().contains("keyring"), "{error}");
    let rotated = Keyring::new(SealingKey::generate(&SeededRandom::new(99)).unwrap())
        .also_opens(SealingKey::generate(&SeededRandom::new(7)).unwrap());
    assert!(Poller::builder(world.store.clone(), rotated).start().await.is_ok());
}

#[tokio::test]
async fn a_rolled_back_release_starts_on_rows_that_only_the_newer_one_can_read() {
    let world = world_of(|op| op.interval(HOUR)).await;
    for _ in 0..20 {
        world.waiting().await;
    }
    world.poller.shutdown(SECOND).await;
    let hardly_any_key = [0; 4];
    for row in world.store.not_sealed_with(hardly_any_key, None, 17).await.unwrap() {
        let body = row.body.unwrap();
        let reseal = Reseal::new(row.id, row.revision, SealedBody::new(200, body.key, body.bytes));
        assert_eq!(world.store.reseal(vec![reseal]).await.unwrap(), [true]);
    }
    let rolled_back = world.replica(5).await;
    let mut outcomes = rolled_back.outcomes();
    for _ in 0..3 {
        let delivery = outcomes.next().await.unwrap();
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    let wrong = Keyring::new(SealingKey::generate(&SeededRandom::new(99)).unwrap());
    let error = Poller::builder(world.store.clone(), wrong).start().await.unwrap_err();
    assert!(error.to_string().contains("keyring"), "a newer format does not hide a wrong key: {error}");
}

#[tokio::test]
async fn a_rotation_reseals_everything_and_the_old_key_can_be_removed() {
    let world = world_of(|op| op.interval(HOUR)).await;
    for _ in 0..3 {
        world.waiting().await;
    }
    world.poller.shutdown(SECOND).await;
    let key = |seed| SealingKey::generate(&SeededRandom::new(seed)).unwrap();
    let start = async |keyring| {
        let client = world.client.clone();
        let builder = Poller::builder(world.store.clone(), keyring).clock(Arc::new(world.clock.clone()));
        builder.random(Arc::new(SeededRandom::new(12))).client(client).start().await
    };
    let rotating = start(Keyring::new(key(99)).also_opens(key(7))).await.unwrap();
    let rotation = rotating.rotate().await.unwrap();
    assert_eq!((rotation.resealed, rotation.changed_meanwhile, rotation.unreadable), (3, 0, 0));
    let [new, old] = &rotation.keys[..] else { panic!("{:?}", rotation.keys) };
    assert_eq!((new.is_primary, new.is_known, new.sealed, new.waiting), (true, true, 3, 0));
    assert_eq!((old.is_primary, old.is_known, old.sealed, old.waiting), (false, true, 0, 3));
    assert!(old.is_needed(), "the OP holds notification tokens that were made under it");
    let again = rotating.rotate().await.unwrap();
    assert_eq!((again.resealed, &again.keys), (0, &rotation.keys));
    rotating.shutdown(SECOND).await;
    let rotated = start(Keyring::new(key(99))).await.unwrap();
    let mut outcomes = rotated.outcomes();
    for _ in 0..3 {
        let delivery = outcomes.next().await.unwrap();
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    let keys = rotated.rotate().await.unwrap().keys;
    assert!(matches!(&keys[..], [only] if only.is_primary), "nothing needs the old key: {keys:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_poller_starts_while_an_op_is_down() {
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    op.misbehave(Fault::status(Endpoint::Metadata, 503).always());
    let store = Arc::new(openid_deferred::store::MemoryStore::with_clock(Arc::new(clock.clone())));
    let client = client_of(&op, &clock).build().unwrap();
    let poller = poller_of(&store, &clock, 3).client(client).start().await.unwrap();
    assert!(poller.status(ProcessId::from_bytes([1; 16])).await.unwrap().is_none());
}

#[tokio::test]
async fn a_replica_without_polling_sends_no_poll() {
    let world = world().await;
    world.poller.shutdown(SECOND).await;
    let serving = poller_of(&world.store, &world.clock, 8).client(world.client.clone()).connect().await.unwrap();
    let (query, session) = world.user_returns().await;
    let poller::AcceptedSignIn::Deferred(id) = serving.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    world.sleep(HOUR).await;
    assert!(world.polls().is_empty());
    let _polling = world.replica(9).await;
    let delivery = serving.outcomes().next().await.unwrap();
    assert_eq!(delivery.id(), id);
}

#[tokio::test]
async fn a_client_can_be_added_while_the_poller_runs_and_only_once() {
    let world = world().await;
    let id = world.waiting().await;
    let late = poller_of(&world.store, &world.clock, 8).start().await.unwrap();
    world.poller.shutdown(SECOND).await;
    world.sleep(HOUR).await;
    assert!(world.polls().is_empty());
    let stats = late.stats().await.unwrap();
    assert!(stats[0].client_id.is_none() && stats[0].rows.overdue.is_some(), "{stats:?}");
    late.add_client(world.client.clone()).unwrap();
    let mut outcomes = late.outcomes();
    let delivery = outcomes.next().await.unwrap();
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)));
    assert_eq!(delivery.id(), id);
    assert!(matches!(late.add_client(world.client.clone()).unwrap_err().kind(), ErrorKind::Configuration(_)));
}

#[tokio::test]
async fn a_session_of_an_unknown_client_is_refused_before_anything_is_sent() {
    let world = world_of(|op| op).await;
    let (query, session) = world.user_returns().await;
    let other = poller_of(&world.store, &world.clock, 8).start().await.unwrap();
    let error = other.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(error.kind(), &Misuse::UnknownClient.into());
    assert!(world.op.requests_to(Endpoint::Exchange).is_empty());
}

#[tokio::test]
async fn after_the_shutdown_nothing_is_accepted_and_streams_end() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    world.poller.shutdown(SECOND).await;
    let error = world.poller.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(error.kind(), &Misuse::ShutDown.into());
    assert!(error.is_transient(), "the cookie is still good at another replica");
    assert!(world.poller.outcomes().next().await.is_none());
}

#[tokio::test]
async fn an_exchange_interrupted_by_a_shutdown_after_the_code_was_sent_has_an_unknown_outcome() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::immediately())).await;
    world.op.misbehave(Fault::stall(Endpoint::Exchange).after_processing());
    let (query, session) = world.user_returns().await;
    let stopped = async {
        world.sleep(2 * SECOND).await;
        assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1, "the code was sent");
        world.poller.shutdown(5 * SECOND).await;
    };
    let (told, ()) = tokio::join!(world.poller.authorization_response(&query, session), stopped);
    let error = told.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (&ErrorKind::OutcomeUnknown, false));
    world.restart().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
}

#[tokio::test]
async fn a_user_who_waits_for_a_slot_when_the_poller_stops_can_use_another_replica() {
    let limits = Limits::new().exchanges(1);
    let mut world = world_with(|op| op, |client| client, |poller| poller.limits(limits)).await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, 10 * SECOND));
    let (query, session) = world.user_returns().await;
    let cookie = session.seal(&keyring()).unwrap();
    let second = async {
        world.sleep(SECOND).await;
        world.poller.authorization_response(&query, session).await
    };
    let stopped = async {
        world.sleep(2 * SECOND).await;
        world.poller.shutdown(20 * SECOND).await;
    };
    let (first, second, ()) = tokio::join!(world.accept(), second, stopped);
    assert!(matches!(first, Ok(poller::AcceptedSignIn::Deferred(_))), "its exchange had begun");
    let error = second.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (&Misuse::ShutDown.into(), true));
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1, "the second code was not sent");
    // The same cookie arrives at the replica that was started next.
    world.restart().await;
    let session = AuthorizationSession::open(&keyring(), &cookie).unwrap();
    let told = world.poller.authorization_response(&query, session).await;
    assert!(matches!(told, Ok(poller::AcceptedSignIn::Deferred(_))), "{told:?}");
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 2);
    world.op.assert_clean();
}

#[test]
fn an_error_of_a_store_says_whether_it_is_transient() {
    let error = StoreError::new(StoreProblem::Unavailable).with_source("connection refused");
    assert_eq!((error.to_string().as_str(), error.problem()), ("the store is unavailable", StoreProblem::Unavailable));
    assert!(std::error::Error::source(&error).is_some());
}

/// A second OP whose client has the same redirect URI as the first one's.
fn neighbour(world: &World, sends_iss: bool) -> (TestProvider, Client) {
    let op = provider(&world.clock).host("neighbour.test");
    let op = if sends_iss { op } else { op.without_iss() }.start().unwrap();
    let client = client_of(&op, &world.clock).build().unwrap();
    (op, client)
}

#[tokio::test]
async fn ops_without_iss_need_separate_redirect_uris() {
    let world = world().await;
    let (op, client) = neighbour(&world, false);
    client.provider_metadata().await.unwrap();
    let error = world.poller.add_client(client).unwrap_err();
    let shared =
        ConfigurationProblem::SharedRedirectUri { issuer: world.op.issuer().to_owned(), other: op.issuer().to_owned() };
    assert_eq!(error.kind(), &ErrorKind::Configuration(shared));
    let client = client_of(&op, &world.clock).redirect_uri("https://rp.test/callback/neighbour").build().unwrap();
    client.provider_metadata().await.unwrap();
    world.poller.add_client(client).unwrap();
    let (_, named) = neighbour(&world, true);
    assert!(world.poller.add_client(named).is_err(), "the first neighbour has this issuer");
}

#[tokio::test]
async fn ops_without_iss_need_redirect_uris_whose_paths_do_not_end_alike() {
    let world = world().await;
    let (op, _) = neighbour(&world, false);
    for (redirect_uri, is_confused) in [
        ("https://rp.test/a/callback", true),
        ("https://rp.test/callback?op=neighbour", true),
        ("https://rp.test/", true),
        ("https://neighbour.rp.test/callback", false),
    ] {
        let client = client_of(&op, &world.clock).redirect_uri(redirect_uri).build().unwrap();
        client.provider_metadata().await.unwrap();
        match world.poller.add_client(client) {
            Ok(()) => assert!(!is_confused, "{redirect_uri}"),
            Err(error) => {
                let problem = error.kind();
                let refused =
                    matches!(problem, ErrorKind::Configuration(ConfigurationProblem::SharedRedirectUri { .. }));
                assert!(is_confused && refused, "{redirect_uri}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn response_jwts_replace_iss_in_the_check_of_redirect_uris() {
    let world = world().await;
    let op = provider(&world.clock).host("jwt.test").without_iss().start().unwrap();
    let client = client_of(&op, &world.clock).response_mode(openid_deferred::ResponseMode::QueryJwt).build().unwrap();
    client.provider_metadata().await.unwrap();
    world.poller.add_client(client.clone()).unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let query = op.visit(url).query();
    let accepted = world.poller.authorization_response(&query, session).await;
    assert!(matches!(accepted, Ok(poller::AcceptedSignIn::Deferred(_))), "{accepted:?}");
}

#[tokio::test]
async fn a_response_that_could_be_from_another_op_is_refused_before_its_code_is_sent() {
    let world = world().await;
    let (op, client) = neighbour(&world, false);
    // At this time the poller could not know the second client.
    world.poller.add_client(client.clone()).unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let query = op.visit(url).query();
    let error = world.poller.authorization_response(&query, session).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Configuration(ConfigurationProblem::SharedRedirectUri { .. })),
        "{error:?}"
    );
    assert!(op.requests_to(Endpoint::Exchange).is_empty());
    // The OP that sends its `iss` is as safe as before.
    assert!(matches!(world.accept().await, Ok(poller::AcceptedSignIn::Deferred(_))));
}

#[tokio::test]
async fn nothing_is_tracked_after_the_shutdown() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    let SignIn::Deferred(pending) = world.client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    world.poller.shutdown(SECOND).await;
    let error = world.poller.track(&pending).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Misuse(Misuse::ShutDown));
}

#[tokio::test]
async fn events_and_changes_end_with_the_poller_although_a_handle_exists() {
    let world = world().await;
    let id = world.waiting().await;
    let handle = world.poller.clone();
    let (mut events, mut changes) = (handle.events(), openid_deferred::axum::Changes::of(&handle, id));
    world.poller.shutdown(SECOND).await;
    assert!(!changes.changed().await);
    while events.next().await.is_some() {}
    assert!(handle.events().next().await.is_none());
}
