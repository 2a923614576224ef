//! What survives a restart, and what nobody gets to see.

use std::error::Error as _;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, IdTokenForgery, InterimToken, SeededRandom, TestClock,
};
use openid_deferred::{
    Authentication, AuthorizationSession, Clock as _, ErrorKind, InterimState, Keyring, Misuse, Outcome,
    PendingAuthentication, Poll, Rule, SealingKey, SignIn, SystemRandom,
};
use serde_json::Value;

use crate::support::{CLIENT_SECRET, World, client_of, provider, world, world_with};

pub(crate) fn keyring() -> Keyring {
    Keyring::new(key())
}

fn key() -> SealingKey {
    SealingKey::generate(&SystemRandom).expect("the system has randomness")
}

/// The application starts again: all that it has is what it sealed.
fn restarted(world: World, seed: u64) -> World {
    let client = client_of(&world.op, &world.clock).random(Arc::new(SeededRandom::new(seed))).build().unwrap();
    World { client, ..world }
}

fn reopened(pending: PendingAuthentication, keyring: &Keyring) -> PendingAuthentication {
    PendingAuthentication::open(keyring, &pending.seal(keyring).unwrap()).unwrap()
}

async fn wait(world: &World, pending: &mut PendingAuthentication) -> Outcome {
    world.client.wait(pending).await.expect("waiting ends with an outcome")
}

async fn polled(world: &World, pending: &mut PendingAuthentication) -> Poll {
    if let Ok(Poll::NotDue { due_in }) = world.client.poll(pending).await {
        world.clock.sleep(due_in).await;
    }
    world.client.poll(pending).await.unwrap()
}

#[tokio::test]
async fn a_process_that_is_sealed_and_opened_after_every_step_ends_as_if_nothing_had_happened() {
    let mut world = world_with(|op| op.decisions(DecisionPolicy::after_polls(4)), |client| client).await;
    let keyring = keyring();
    let (url, session) = world.client.authorize().start().await.unwrap();
    let sealed = session.seal(&keyring).unwrap();
    let query = world.op.visit(url).query();
    world = restarted(world, 10);
    let session = AuthorizationSession::open(&keyring, &sealed).unwrap();
    let SignIn::Deferred(mut pending) = world.client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    for seed in 11..15 {
        pending = reopened(pending, &keyring);
        world = restarted(world, seed);
        assert!(matches!(polled(&world, &mut pending).await, Poll::Pending));
    }
    pending = reopened(pending, &keyring);
    let Poll::Finished(Outcome::Approved(authentication)) = polled(&world, &mut pending).await else {
        panic!("not approved")
    };
    let authentication = Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap();
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert_eq!(restarted(world, 20).client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn a_restart_in_the_middle_of_an_interval_does_not_bring_the_poll_forward() {
    let mut world = world().await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    for seed in 10..13 {
        world.clock.sleep(Duration::from_secs(1)).await;
        pending = reopened(pending, &keyring);
        world = restarted(world, seed);
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::NotDue { .. })));
    }
    assert!(matches!(wait(&world, &mut pending).await, Outcome::Approved(_)));
    assert!((5.0..=5.6).contains(&world.gaps()[0]), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_slow_down_survives_a_restart() {
    let world = world_with(|op| op.decisions(DecisionPolicy::after_polls(1)), |client| client).await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.op.last_process().slow_down_next();
    assert!(matches!(polled(&world, &mut pending).await, Poll::SlowDown));
    let world = restarted(world, 10);
    let mut pending = reopened(pending, &keyring);
    assert!(matches!(wait(&world, &mut pending).await, Outcome::Approved(_)));
    assert!(world.gaps()[1..].iter().all(|gap| *gap >= 10.0), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn retry_after_and_backoff_survive_a_restart() {
    let world = world().await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "900"));
    world.clock.sleep(Duration::from_secs(6)).await;
    world.client.poll(&mut pending).await.unwrap_err();
    let world = restarted(world, 10);
    let mut pending = reopened(pending, &keyring);
    assert!(matches!(wait(&world, &mut pending).await, Outcome::Approved(_)));
    assert!(world.gaps()[1] >= 900.0, "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_crash_in_mid_request_survives_as_doubt() {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll).after_success());
    tokio::select! {
        biased;
        outcome = std::future::IntoFuture::into_future(world.client.wait(&mut pending)) => panic!("{outcome:?}"),
        () = world.clock.sleep(Duration::from_secs(7)) => {}
    }
    let mut pending = reopened(pending, &keyring);
    let outcome = wait(&restarted(world, 10), &mut pending).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}

#[tokio::test]
async fn progress_interim_claims_and_tokens_survive_a_restart() {
    let world = world_with(
        |op| op.interim_claim("given_name", "Jane").early_access_token().decisions(DecisionPolicy::scripted()),
        |client| client.notification_token("a notification token"),
    )
    .await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.op.last_process().progress("Half of it is done.");
    assert!(matches!(polled(&world, &mut pending).await, Poll::Pending));
    let facts = |pending: &PendingAuthentication| {
        (
            pending.progress().map(str::to_owned),
            pending.interim().verified().and_then(|token| token.claims().given_name().map(str::to_owned)),
            pending.access_token().map(|token| token.expose().to_owned()),
            pending.notification_token().map(|token| token.expose().to_owned()),
            pending.deferred_auth_id().expose().to_owned(),
            pending.dpop_key().map(|key| key.thumbprint().to_owned()),
            pending.expires_at(),
        )
    };
    let before = facts(&pending);
    assert_eq!(before.0.as_deref(), Some("Half of it is done."));
    assert!(before.1.is_some() && before.2.is_some() && before.3.is_some());
    assert_eq!(before, facts(&reopened(pending, &keyring)));
}

#[tokio::test]
async fn the_rejection_of_an_interim_token_survives_a_restart() {
    let world = world().await;
    world.op.misbehave(Fault::id_token(Endpoint::Exchange, IdTokenForgery::broken_signature()));
    let pending = reopened(world.pending().await, &keyring());
    assert!(matches!(pending.interim(), InterimState::Rejected(Rule::IdTokenSignature)));
}

/// A process whose success response came in while the OP's keys were out of reach, sealed.
async fn answered_without_keys(keyring: &Keyring) -> (World, Vec<u8>) {
    let clock = TestClock::automatic();
    let op = provider(&clock).decisions(DecisionPolicy::immediately()).start().unwrap();
    let client = client_of(&op, &clock).build().unwrap();
    op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let world = World { op, clock, client };
    let mut pending = world.pending().await;
    world.clock.sleep(Duration::from_secs(6)).await;
    let error = world.client.poll(&mut pending).await.unwrap_err();
    assert!(error.is_transient() && !pending.has_ended(), "{error:?}");
    let sealed = pending.seal(keyring).unwrap();
    (world, sealed)
}

#[tokio::test]
async fn a_success_response_that_cannot_be_validated_yet_survives_a_restart() {
    let keyring = keyring();
    let (world, sealed) = answered_without_keys(&keyring).await;
    let world = restarted(world, 10);
    let mut pending = PendingAuthentication::open(&keyring, &sealed).unwrap();
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    world.clock.sleep(Duration::from_secs(3_600)).await;
    world.client.poll(&mut pending).await.unwrap_err();
    world.op.behave();
    world.clock.sleep(Duration::from_secs(3_600)).await;
    assert!(matches!(wait(&world, &mut pending).await, Outcome::Approved(_)));
    assert_eq!(world.polls().len(), 1, "it is never asked for again");
    world.op.assert_clean();
}

#[tokio::test]
async fn while_a_success_response_cannot_be_validated_the_next_try_has_a_time_ahead() {
    let keyring = keyring();
    let (world, sealed) = answered_without_keys(&keyring).await;
    let mut pending = PendingAuthentication::open(&keyring, &sealed).unwrap();
    let (mut tries, started) = (0, world.clock.now());
    // A job system that calls when a poll is due.
    while world.clock.now() < started + Duration::from_secs(3_600) {
        assert!(pending.due_at() > world.clock.now());
        let until_due = pending.due_at().duration_since(world.clock.now()).unwrap();
        world.clock.sleep(until_due).await;
        world.client.poll(&mut pending).await.unwrap_err();
        tries += 1;
    }
    assert!((5..=30).contains(&tries), "{tries}");
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn an_ended_process_stays_ended() {
    let world = world().await;
    let mut pending = world.pending().await;
    let _ = wait(&world, &mut pending).await;
    let mut pending = reopened(pending, &keyring());
    let error = world.client.poll(&mut pending).await.unwrap_err();
    assert!(pending.has_ended());
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NothingToPoll));
}

#[tokio::test]
async fn what_an_older_key_sealed_opens_with_the_newer_keyring_and_no_other_opens_it() {
    let world = world().await;
    let (old, older) = (key().to_base64(), keyring());
    let old_ring = Keyring::new(SealingKey::from_base64(old.expose()).unwrap());
    let pending = world.pending().await;
    let sealed = pending.seal(&old_ring).unwrap();
    let rotated = keyring().also_opens(SealingKey::from_base64(old.expose()).unwrap());
    let mut pending = PendingAuthentication::open(&rotated, &sealed).unwrap();
    assert!(matches!(wait(&world, &mut pending).await, Outcome::Approved(_)));
    let error = PendingAuthentication::open(&older, &sealed).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Sealed);
    // What the new keyring seals needs the new key.
    let error = PendingAuthentication::open(&old_ring, &pending.seal(&rotated).unwrap()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Sealed);
}

#[tokio::test]
async fn a_sealed_value_that_was_altered_or_is_of_another_kind_does_not_open() {
    let world = world().await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    let sealed = pending.seal(&keyring).unwrap();
    for position in [0, 1, 5, 17, sealed.len() / 2, sealed.len() - 1] {
        let mut altered = sealed.clone();
        altered[position] ^= 1;
        assert_eq!(*PendingAuthentication::open(&keyring, &altered).unwrap_err().kind(), ErrorKind::Sealed);
    }
    for length in [0, 1, 16, 33, sealed.len() - 1] {
        assert!(PendingAuthentication::open(&keyring, &sealed[..length]).is_err());
    }
    assert!(Authentication::open(&keyring, &sealed).is_err());
    let Outcome::Approved(authentication) = wait(&world, &mut pending).await else { panic!("not approved") };
    assert!(PendingAuthentication::open(&keyring, &authentication.seal(&keyring).unwrap()).is_err());
}

#[tokio::test]
async fn sealed_values_show_nothing_and_never_repeat() {
    let world = world().await;
    let keyring = keyring();
    let pending = world.pending().await;
    let (one, other) = (pending.seal(&keyring).unwrap(), pending.seal(&keyring).unwrap());
    assert_ne!(one, other);
    let id = pending.deferred_auth_id().expose().as_bytes();
    assert!(!one.windows(id.len()).any(|window| window == id));
}

// Secrets.

/// Everything that was said in confidence, as it went over the wire.
fn secrets(world: &World) -> Vec<String> {
    const PARAMETERS: [&str; 8] = [
        "state",
        "nonce",
        "code_verifier",
        "deferred_code",
        "deferred_auth_id",
        "deferred_notification_token",
        "token",
        "client_secret",
    ];
    const MEMBERS: [&str; 6] =
        ["access_token", "refresh_token", "id_token", "interim_id_token", "deferred_auth_id", "error_description"];
    let mut secrets = vec![CLIENT_SECRET.to_owned(), "Jane Doe".to_owned()];
    for request in world.op.requests() {
        secrets.extend(PARAMETERS.iter().filter_map(|name| request.parameter(name)).map(str::to_owned));
        secrets.extend(request.header("authorization").and_then(|value| Some(value.split_once(' ')?.1.to_owned())));
        secrets.extend(request.header("dpop").map(str::to_owned));
        let response = request.response_json();
        secrets.extend(MEMBERS.iter().filter_map(|name| response.get(name)?.as_str()).map(str::to_owned));
    }
    secrets.retain(|secret| secret.len() > 4);
    secrets.sort_unstable();
    secrets.dedup();
    secrets
}

/// What `{:?}` and `{:#?}` show, together.
fn shown(values: &[&dyn Debug]) -> String {
    values.iter().map(|value| format!("{value:?}\n{value:#?}\n")).collect()
}

#[track_caller]
fn assert_silent(world: &World, shown: &str) {
    let secrets = secrets(world);
    assert!(secrets.len() > 10, "there are secrets to look for");
    for secret in secrets {
        assert!(!shown.contains(&secret), "{secret} is shown in:\n{shown}");
    }
}

#[tokio::test]
async fn no_value_of_a_whole_flow_shows_a_secret_or_a_claim() {
    let world = world_with(
        |op| op.early_access_token().interim_token(InterimToken::Both),
        |client| client.notification_token("a notification token"),
    )
    .await;
    let request = world.client.authorize();
    let mut text = shown(&[&world.client, &request]);
    let (url, session) = request.start().await.unwrap();
    text += &shown(&[&session]);
    let query = world.op.visit(url).query();
    let mut grant = world.client.check_authorization_response(&query, session).unwrap();
    text += &shown(&[&grant]);
    let sign_in = world.client.exchange(&mut grant).await.unwrap();
    text += &shown(&[&sign_in, &grant]);
    let SignIn::Deferred(mut pending) = sign_in else { panic!("not deferred") };
    world.op.last_process().progress("a secret of the reviewer's");
    text += &shown(&[&pending.interim(), &pending.dpop_key(), &pending.deferred_auth_id(), &pending.access_token()]);
    text += &shown(&[&polled(&world, &mut pending).await, &pending]);
    let mut events = String::new();
    let wait = world.client.wait(&mut pending);
    text += &shown(&[&wait]);
    let outcome = wait.on_event(|pending, event| events += &shown(&[&pending, &event])).await.unwrap();
    text += &shown(&[&outcome, &pending]);
    let Outcome::Approved(authentication) = outcome else { panic!("not approved") };
    let userinfo = world.client.userinfo(&authentication).await.unwrap();
    text += &shown(&[
        &authentication,
        &authentication.claims(),
        &authentication.id_token(),
        &authentication.access_token(),
        &authentication.refresh_token(),
        &authentication.dpop_key(),
        &userinfo,
    ]);
    assert_silent(&world, &(text + &events));
}

#[tokio::test]
async fn no_error_or_unhappy_outcome_shows_a_secret() {
    let world = world().await;
    let mut text = String::new();
    let echo = |world: &World| {
        let said = world.polls().last().map(|poll| String::from_utf8_lossy(&poll.body).into_owned());
        Value::from(said.unwrap_or_default() + CLIENT_SECRET)
    };
    for fault in [
        Fault::status(Endpoint::Poll, 502),
        Fault::reset(Endpoint::Poll),
        Fault::error_with_status(Endpoint::Poll, 401, "invalid_client"),
        Fault::response(Endpoint::Poll, 200, "application/json", format!("{{\"{CLIENT_SECRET}\": {CLIENT_SECRET}")),
        Fault::response(Endpoint::Poll, 400, "application/json", format!("{{\"error\": \"{CLIENT_SECRET}\" x")),
        Fault::response(
            Endpoint::Poll,
            400,
            "application/json",
            serde_json::json!({"error": "server_error", "error_description": echo(&world)}).to_string(),
        ),
    ] {
        let mut pending = world.pending().await;
        world.op.misbehave(fault);
        world.clock.sleep(Duration::from_secs(6)).await;
        let error = world.client.poll(&mut pending).await.unwrap_err();
        text += &shown(&[&error, &pending]);
        let mut layer: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = layer {
            text += &format!("{error}\n");
            layer = error.source();
        }
        assert!(
            error.to_string().starts_with("polling: ") && error.source().is_none_or(|source| source.source().is_none())
        );
    }
    for (fault, code) in [
        (Some(Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature())), None),
        (None, Some("access_denied")),
        (None, Some("invalid_grant")),
        (None, Some("expired_token")),
    ] {
        let mut pending = world.pending().await;
        world.op.misbehave(fault.unwrap_or_else(|| Fault::error(Endpoint::Poll, code.unwrap())));
        let outcome = wait(&world, &mut pending).await;
        assert!(!matches!(outcome, Outcome::Approved(_)));
        text += &shown(&[&outcome, &pending]);
    }
    assert_silent(&world, &text);
}
