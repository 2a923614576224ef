//! Authorization responses as JWTs (JARM): a response that cannot be verified is neither stored nor sent.

use openid_deferred::error::Rule;
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery};
use openid_deferred::{AuthorizationSession, Outcome, ResponseMode};

use crate::support::{World, keyring, next, world_with};

async fn jwt_world() -> World {
    world_with(|op| op, |client| client.response_mode(ResponseMode::QueryJwt), |poller| poller).await
}

/// The user's return, and the session for each time that the browser sends its cookie.
async fn returned(world: &World) -> (String, impl Fn() -> AuthorizationSession) {
    let (query, session) = world.user_returns().await;
    let sealed = session.seal(&keyring()).unwrap();
    (query, move || AuthorizationSession::open(&keyring(), &sealed).unwrap())
}

#[tokio::test]
async fn a_signed_response_starts_a_process_and_a_repeated_one_names_it() {
    let world = jwt_world().await;
    let (query, session) = returned(&world).await;
    let first = world.poller.authorization_response(&query, session()).await;
    let Ok(AcceptedSignIn::Deferred(first)) = first else { panic!("{first:?}") };
    let second = world.poller.authorization_response(&query, session()).await;
    assert!(matches!(second, Ok(AcceptedSignIn::Deferred(second)) if second == first), "{second:?}");
    let delivery = next(&mut world.poller.outcomes()).await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_response_whose_key_is_unavailable_leaves_the_session_unspent_and_can_be_reloaded() {
    let world = jwt_world().await;
    let (query, session) = returned(&world).await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    for _ in 0..2 {
        let error = world.poller.authorization_response(&query, session()).await.unwrap_err();
        assert!(error.rule() == Some(Rule::KeysUnavailable) && error.is_transient(), "{error}");
    }
    assert!(world.op.requests_to(Endpoint::Token).is_empty(), "nothing was sent");
    world.op.behave();
    world.sleep(crate::support::SECOND * 60).await;
    let accepted = world.poller.authorization_response(&query, session()).await;
    assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_plain_or_forged_response_does_not_spend_the_session() {
    let world = jwt_world().await;
    world.op.misbehave(Fault::jwt_response(IdTokenForgery::foreign_key()));
    let (forged, _) = world.user_returns().await;
    let (query, session) = returned(&world).await;
    let plain = format!("deferred_code=x&state={}", session().state().expose());
    for (response, rule) in [(&plain, Rule::ResponseNotJwt), (&forged, Rule::StateMismatch)] {
        let error = world.poller.authorization_response(response, session()).await.unwrap_err();
        assert_eq!(error.rule(), Some(rule));
    }
    assert!(world.op.requests_to(Endpoint::Token).is_empty(), "nothing was sent");
    let accepted = world.poller.authorization_response(&query, session()).await;
    assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
}

#[tokio::test]
async fn a_late_response_sends_nothing_and_names_the_process_if_there_is_one() {
    let world = jwt_world().await;
    let (query, session) = returned(&world).await;
    let (late, late_session) = returned(&world).await;
    let first = world.poller.authorization_response(&query, session()).await;
    let Ok(AcceptedSignIn::Deferred(first)) = first else { panic!("{first:?}") };
    world.sleep(crate::support::SECOND * 700).await;
    // The user reloads the page after a quarter of an hour.
    let again = world.poller.authorization_response(&query, session()).await;
    assert!(matches!(again, Ok(AcceptedSignIn::Deferred(again)) if again == first), "{again:?}");
    let error = world.poller.authorization_response(&late, late_session()).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::JwtResponseExpired));
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1);
    // The refused response has no outcome.
    let mut outcomes = world.poller.outcomes();
    next(&mut outcomes).await.acknowledge().await.unwrap();
    tokio::select! {
        biased;
        delivery = next(&mut outcomes) => panic!("{delivery:?}"),
        () = world.sleep(crate::support::HOUR * 24) => {}
    }
    world.op.assert_clean();
}
