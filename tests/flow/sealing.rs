//! State that survives a restart.

use std::future::IntoFuture as _;

use openid_deferred::error::{Misuse, Rule};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery};
use openid_deferred::{
    Authentication, AuthorizationSession, Clock as _, ErrorKind, InterimState, Keyring, Outcome, PendingAuthentication,
    Poll, SealingKey, SignIn, SystemRandom, WaitEvent,
};

use crate::keys::without_keys;
use crate::support::{HOUR, World, keyring, reopened, seconds, world, world_with};

fn key() -> SealingKey {
    SealingKey::generate(&SystemRandom).expect("the system has randomness")
}

#[tokio::test]
async fn sealing_and_opening_after_every_step_changes_no_result() {
    let mut world = world_with(|op| op.decisions(DecisionPolicy::after_polls(4)), |client| client).await;
    let keyring = keyring();
    let (url, session) = world.client.authorize().start().await.unwrap();
    let sealed = session.seal(&keyring).unwrap();
    let query = world.op.visit(url).query();
    world = world.restarted(10);
    let session = AuthorizationSession::open(&keyring, &sealed).unwrap();
    let SignIn::Deferred(mut pending) = world.client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    for seed in 11..15 {
        pending = reopened(pending, &keyring);
        world = world.restarted(seed);
        assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::Pending)));
    }
    pending = reopened(pending, &keyring);
    let Ok(Poll::Finished(Outcome::Approved(authentication))) = world.poll_when_due(&mut pending).await else {
        panic!("not approved")
    };
    let authentication = Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap();
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert_eq!(world.restarted(20).client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn a_restart_during_an_interval_does_not_advance_the_poll() {
    let mut world = world().await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    for seed in 10..13 {
        world.clock.sleep(seconds(1)).await;
        pending = reopened(pending, &keyring);
        world = world.restarted(seed);
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::NotDue { .. })));
    }
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert!((5.0..=5.6).contains(&world.gaps()[0]), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_slow_down_survives_a_restart() {
    let world = world_with(|op| op.decisions(DecisionPolicy::after_polls(1)), |client| client).await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.op.last_process().slow_down_next();
    assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::SlowDown)));
    let world = world.restarted(10);
    let mut pending = reopened(pending, &keyring);
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert!(world.gaps()[1..].iter().all(|gap| *gap >= 10.0), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn retry_after_and_backoff_survive_a_restart() {
    let world = world().await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "900"));
    world.clock.sleep(seconds(6)).await;
    world.client.poll(&mut pending).await.unwrap_err();
    let world = world.restarted(10);
    let mut pending = reopened(pending, &keyring);
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert!(world.gaps()[1] >= 900.0, "{:?}", world.gaps());
    world.op.assert_clean();
}

/// The state after a crash: the sign-in as the last `event` of this kind had it sealed.
async fn stored_at(
    world: &World,
    mut pending: PendingAuthentication,
    is_wanted: fn(&WaitEvent<'_>) -> bool,
) -> PendingAuthentication {
    let keyring = keyring();
    let mut stored = None;
    {
        let wait = world.client.wait(&mut pending).on_event(|pending, event| {
            if is_wanted(&event) {
                stored = Some(pending.seal(&keyring).expect("it seals"));
            }
        });
        tokio::select! {
            biased;
            outcome = wait.into_future() => panic!("it ended before the crash: {outcome:?}"),
            () = world.clock.sleep(seconds(7)) => {}
        }
    }
    PendingAuthentication::open(&keyring, &stored.expect("the event came")).expect("it opens")
}

#[tokio::test]
async fn a_process_stored_before_a_poll_shows_after_a_crash_that_an_answer_may_be_lost() {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    world.op.misbehave(Fault::stall(Endpoint::Poll).after_success());
    let pending = world.pending().await;
    let mut pending = stored_at(&world, pending, |event| matches!(event, WaitEvent::Asking)).await;
    let outcome = world.restarted(10).wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}

#[tokio::test]
async fn a_process_stored_with_its_success_is_approved_after_a_crash_without_another_poll() {
    let world = without_keys().await;
    let pending = world.pending().await;
    world.op.last_process().approve();
    let mut pending = stored_at(&world, pending, |event| matches!(event, WaitEvent::Answered)).await;
    world.op.behave();
    let world = world.restarted(10);
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn a_dropped_poll_is_recorded_as_possibly_lost_in_the_sealed_value() {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::stall(Endpoint::Poll).after_success());
    world.drop_wait_after(seconds(7), &mut pending).await;
    let mut pending = reopened(pending, &keyring);
    let outcome = world.restarted(10).wait(&mut pending).await;
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
    assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::Pending)));
    let facts = |pending: &PendingAuthentication| {
        (
            pending.progress().map(str::to_owned),
            pending.interim().verified().and_then(|token| token.claims().given_name().map(str::to_owned)),
            pending.access_token().map(|token| token.expose().to_owned()),
            pending.notification_token().map(|token| token.expose().to_owned()),
            pending.identifier().expose().to_owned(),
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

/// A sealed sign-in whose success response arrived while the OP's keys were unavailable.
async fn answered_without_keys(keyring: &Keyring) -> (World, Vec<u8>) {
    let world = without_keys().await;
    let mut pending = world.pending().await;
    world.op.last_process().approve();
    let error = world.poll_when_due(&mut pending).await.unwrap_err();
    assert!(error.is_transient() && !pending.has_ended(), "{error:?}");
    let sealed = pending.seal(keyring).unwrap();
    (world, sealed)
}

#[tokio::test]
async fn a_success_response_that_cannot_be_validated_yet_survives_a_restart() {
    let keyring = keyring();
    let (world, sealed) = answered_without_keys(&keyring).await;
    let world = world.restarted(10);
    let mut pending = PendingAuthentication::open(&keyring, &sealed).unwrap();
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    world.clock.sleep(HOUR).await;
    world.client.poll(&mut pending).await.unwrap_err();
    world.op.behave();
    world.clock.sleep(HOUR).await;
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert_eq!(world.polls().len(), 1, "it is never asked for again");
    world.op.assert_clean();
}

#[tokio::test]
async fn each_retry_of_the_validation_of_a_success_has_a_due_time_in_the_future() {
    let keyring = keyring();
    let (world, sealed) = answered_without_keys(&keyring).await;
    let mut pending = PendingAuthentication::open(&keyring, &sealed).unwrap();
    let (mut tries, started) = (0, world.clock.now());
    // A job system that calls when a poll is due.
    while world.clock.now() < started + HOUR {
        assert!(pending.due_at() > world.clock.now());
        let until_due = pending.due_at().duration_since(world.clock.now()).unwrap();
        world.clock.sleep(until_due).await;
        world.client.poll(&mut pending).await.unwrap_err();
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::NotDue { .. })));
        tries += 1;
    }
    assert!((5..=130).contains(&tries), "{tries}");
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn an_ended_process_stays_ended() {
    let world = world().await;
    let mut pending = world.pending().await;
    let _ = world.wait(&mut pending).await;
    let mut pending = reopened(pending, &keyring());
    let error = world.client.poll(&mut pending).await.unwrap_err();
    assert!(pending.has_ended());
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NothingToPoll));
}

#[tokio::test]
async fn only_a_keyring_with_the_sealing_key_opens_a_value() {
    let world = world().await;
    let (old, older) = (key().to_base64(), keyring());
    let old_ring = Keyring::new(SealingKey::from_base64(old.expose()).unwrap());
    let pending = world.pending().await;
    let sealed = pending.seal(&old_ring).unwrap();
    let rotated = keyring().also_opens(SealingKey::from_base64(old.expose()).unwrap());
    let mut pending = PendingAuthentication::open(&rotated, &sealed).unwrap();
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    let error = PendingAuthentication::open(&older, &sealed).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Sealed);
    // A value that the new keyring seals needs the new key.
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
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert!(PendingAuthentication::open(&keyring, &authentication.seal(&keyring).unwrap()).is_err());
}

#[tokio::test]
async fn sealed_values_show_nothing_and_never_repeat() {
    let world = world().await;
    let keyring = keyring();
    let pending = world.pending().await;
    let (one, other) = (pending.seal(&keyring).unwrap(), pending.seal(&keyring).unwrap());
    assert_ne!(one, other);
    let id = pending.identifier().expose().as_bytes();
    assert!(!one.windows(id.len()).any(|window| window == id));
}
