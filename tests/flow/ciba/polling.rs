//! The wait (CIBA §10.1 and §11).

use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, NoncePolicy};
use openid_deferred::{Clock as _, Outcome, PendingAuthentication, Poll};

use super::{ciba, undecided};
use crate::support::{assert_approved, keyring, reopened, seconds};

#[tokio::test]
async fn polls_have_the_grant_type_and_the_identifier() {
    let world = ciba(|op| op).await;
    assert_approved(&world.wait(&mut world.asked().await).await);
    let poll = &world.polls()[0];
    assert_eq!(poll.parameter("grant_type"), Some("urn:openid:params:grant-type:ciba"));
    assert_eq!(poll.parameter("auth_req_id"), world.op.last_process().auth_req_id().as_deref());
    assert!(poll.header("authorization").is_some() && poll.header("dpop").is_some());
    for name in ["scope", "login_hint", "client_notification_token"] {
        assert_eq!(poll.parameter(name), None, "{name}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn slow_down_adds_five_seconds_permanently() {
    let world = undecided().await;
    let mut pending = world.asked().await;
    world.op.last_process().slow_down_next();
    for _ in 0..3 {
        world.clock.sleep(seconds(11)).await;
        let _ = world.client.poll(&mut pending).await.unwrap();
    }
    assert_eq!(world.op.last_process().interval(), seconds(10));
    world.op.last_process().approve();
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn terminal_codes_end_the_wait() {
    for (end, expected) in [("deny", "Denied"), ("expire", "Expired")] {
        let world = undecided().await;
        let mut pending = world.asked().await;
        match end {
            "deny" => world.op.last_process().deny(),
            _ => world.op.last_process().expire(),
        }
        let outcome = world.wait(&mut pending).await;
        assert!(format!("{outcome:?}").starts_with(expected), "{outcome:?}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_redeemed_identifier_is_an_invalid_grant() {
    let world = ciba(|op| op.decisions(DecisionPolicy::immediately())).await;
    let keyring = keyring();
    let sealed = world.asked().await.seal(&keyring).unwrap();
    let mut first = PendingAuthentication::open(&keyring, &sealed).unwrap();
    assert_approved(&world.wait(&mut first).await);
    let mut second = PendingAuthentication::open(&keyring, &sealed).unwrap();
    let outcome = world.wait(&mut second).await;
    assert!(matches!(&outcome, Outcome::Failed(response) if response.code() == "invalid_grant"), "{outcome:?}");
}

#[tokio::test]
async fn the_op_may_hold_polls_until_the_user_has_decided() {
    let op = |op: openid_deferred::testing::TestProviderBuilder| {
        op.long_polling(seconds(30)).decisions(DecisionPolicy::after(seconds(80)))
    };
    let world = ciba(op).await;
    assert_approved(&world.wait(&mut world.asked().await).await);
    assert_eq!(world.polls().len(), 3, "each was held for 30 s, or until the decision");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_wait_survives_a_restart() {
    let world = ciba(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let keyring = keyring();
    let mut pending = world.asked().await;
    world.clock.sleep(seconds(6)).await;
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    let world = world.restarted(9);
    let mut pending = reopened(pending, &keyring);
    assert_approved(&world.wait(&mut pending).await);
    assert_eq!(world.asks().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn polls_use_nonces_and_keep_their_key() {
    let world = ciba(|op| op.dpop_nonces(NoncePolicy::RotateEveryRequest)).await;
    let mut pending = world.asked().await;
    assert_approved(&world.wait(&mut pending).await);
    let key = pending.dpop_key().map(|key| key.thumbprint().to_owned());
    assert_eq!(world.op.last_process().dpop_key(), key);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_sign_in_expires_after_the_lifetime_of_the_acknowledgement() {
    let world = ciba(|op| op.expires_in(seconds(120)).decisions(DecisionPolicy::scripted())).await;
    let mut pending = world.asked().await;
    let asked = world.asks()[0].arrived;
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Expired(expiry) if expiry.is_confirmed()), "{outcome:?}");
    let last = world.polls().last().unwrap().arrived - asked;
    assert!((119.0..=185.0).contains(&last.as_secs_f64()), "{last:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_lost_success_ends_as_unknown() {
    let world = ciba(|op| op.decisions(DecisionPolicy::immediately())).await;
    let mut pending = world.asked().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 502).after_processing());
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}
