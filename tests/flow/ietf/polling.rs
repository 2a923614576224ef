//! Answers to polls.

use openid_deferred::compatibility::PollCredential;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, TestClient, TestProviderBuilder};
use openid_deferred::{ClientAuthentication, Clock as _, IssuedTokens, Outcome, PendingAuthentication, Poll};

use super::{ietf, issued, undecided};
use crate::support::{CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, assert_approved, keyring, reopened, seconds, world_with};

#[tokio::test]
async fn the_interval_of_the_first_answer_applies_to_the_whole_wait() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(3)).interval(seconds(7))).await;
    let mut pending = world.pending_grant().await;
    let began = world.token_requests()[0].arrived;
    issued(world.wait(&mut pending).await);
    let times: Vec<_> = std::iter::once(began).chain(world.polls().iter().map(|poll| poll.arrived)).collect();
    for pair in times.windows(2) {
        let gap = (pair[1] - pair[0]).as_secs_f64();
        assert!((7.0..=8.0).contains(&gap), "{gap}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn slow_down_adds_five_seconds_permanently() {
    let world = undecided().await;
    let mut pending = world.pending_grant().await;
    world.op.last_process().slow_down_next();
    for _ in 0..3 {
        world.clock.sleep(seconds(11)).await;
        let _ = world.client.poll(&mut pending).await.unwrap();
    }
    assert_eq!(world.op.last_process().interval(), seconds(10));
    world.op.last_process().approve();
    issued(world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn terminal_codes_end_the_wait() {
    for (end, expected) in [("deny", "Denied"), ("expire", "Expired")] {
        let world = undecided().await;
        let mut pending = world.pending_grant().await;
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
async fn the_success_is_single_use() {
    let world = ietf(|op| op.decisions(DecisionPolicy::immediately())).await;
    let pending = world.pending_grant().await;
    let keyring = keyring();
    let sealed = pending.seal(&keyring).unwrap();
    let mut first = PendingAuthentication::open(&keyring, &sealed).unwrap();
    issued(world.wait(&mut first).await);
    let mut second = PendingAuthentication::open(&keyring, &sealed).unwrap();
    let outcome = world.wait(&mut second).await;
    assert!(matches!(&outcome, Outcome::Failed(response) if response.code() == "invalid_grant"), "{outcome:?}");
}

#[tokio::test]
async fn pending_answers_that_repeat_code_and_interval_are_tolerated() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(3)).repeats_members()).await;
    let mut pending = world.pending_grant().await;
    issued(world.wait(&mut pending).await);
    assert_eq!(world.polls().len(), 4);
    world.op.assert_clean();
}

#[tokio::test]
async fn progress_is_the_description_of_pending_answers() {
    let world = undecided().await;
    let mut pending = world.pending_grant().await;
    world.op.last_process().progress("step 2 of 3");
    world.clock.sleep(seconds(6)).await;
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    assert_eq!(pending.progress(), Some("step 2 of 3"));
}

#[tokio::test]
async fn a_wait_survives_a_restart() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let keyring = keyring();
    let mut pending = reopened(world.pending_grant().await, &keyring);
    let tokens = issued(world.wait(&mut pending).await);
    let sealed = tokens.seal(&keyring).unwrap();
    let again = IssuedTokens::open(&keyring, &sealed).unwrap();
    assert_eq!(again.access_token(), tokens.access_token());
    assert_eq!(world.op.requests_to(Endpoint::ClientCredentials).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn polls_present_no_access_token_because_there_is_none_yet() {
    let op = |op: TestProviderBuilder| {
        op.ietf().client(TestClient::secret_post(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI))
    };
    let world = world_with(op, |client| {
        let client = client.authentication(ClientAuthentication::client_secret_post(CLIENT_SECRET));
        client.poll_credential(PollCredential::AccessToken)
    });
    let world = world.await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_lost_answer_ends_as_unknown() {
    let world = ietf(|op| op.decisions(DecisionPolicy::immediately())).await;
    let mut pending = world.pending_grant().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 502).after_processing());
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Unknown), "{outcome:?}");
}
