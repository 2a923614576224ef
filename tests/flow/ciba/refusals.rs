//! Errors of the authentication request (CIBA §13).

use openid_deferred::ErrorKind;
use openid_deferred::ciba::{AuthenticationRefusal, UserHint};
use openid_deferred::testing::{Endpoint, Fault, TestUser};

use super::{ciba, undecided};
use crate::support::{assert_approved, seconds};
use openid_deferred::Clock as _;

#[tokio::test]
async fn every_refusal_of_a_request_is_a_typed_value() {
    use AuthenticationRefusal as R;
    let world = undecided().await;
    for (code, status, refusal) in [
        ("invalid_request", 400, R::InvalidRequest),
        ("invalid_scope", 400, R::InvalidScope),
        ("expired_login_hint_token", 400, R::ExpiredLoginHintToken),
        ("unknown_user_id", 400, R::UnknownUser),
        ("unauthorized_client", 400, R::UnauthorizedClient),
        ("missing_user_code", 400, R::MissingUserCode),
        ("invalid_user_code", 400, R::InvalidUserCode),
        ("invalid_binding_message", 400, R::InvalidBindingMessage),
        ("invalid_client", 401, R::InvalidClient),
        ("access_denied", 403, R::Denied),
    ] {
        world.op.misbehave(Fault::error_with_status(Endpoint::BackchannelAuthentication, status, code));
        let request = world.client.backchannel_authentication(UserHint::login_hint("user-1"));
        let error = request.send().await.unwrap_err();
        assert_eq!(AuthenticationRefusal::of(&error), Some(refusal), "{error:?}");
        assert_eq!(error.step(), Some("requesting the authentication of a user"));
        assert!(!error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn a_transient_error_is_not_a_refusal() {
    let world = undecided().await;
    for (status, code) in [(503, "temporarily_unavailable"), (400, "temporarily_unavailable"), (500, "server_error")] {
        world.op.misbehave(Fault::error_with_status(Endpoint::BackchannelAuthentication, status, code));
        let request = world.client.backchannel_authentication(UserHint::login_hint("user-1"));
        let error = request.send().await.unwrap_err();
        assert_eq!(AuthenticationRefusal::of(&error), None, "{error:?}");
        // With another status than 400 a gateway may have answered, and the OP may ask the user.
        assert_eq!(error.is_transient(), status == 400, "{error:?}");
        assert_eq!(error.kind() == &ErrorKind::OutcomeUnknown, status != 400, "{error:?}");
    }
}

#[tokio::test]
async fn an_unknown_user_is_refused_and_a_known_one_is_asked() {
    let world = ciba(|op| op.login_hint("alice", TestUser::new("sub-of-alice"))).await;
    let ask = |hint: &str| world.client.backchannel_authentication(UserHint::login_hint(hint)).send();
    let error = ask("nobody").await.unwrap_err();
    assert_eq!(AuthenticationRefusal::of(&error), Some(AuthenticationRefusal::UnknownUser));
    let mut pending = ask("alice").await.unwrap();
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_missing_user_code_and_a_wrong_one_are_different_refusals() {
    let world = ciba(|op| op.user_code("1234")).await;
    let ask = || world.client.backchannel_authentication(UserHint::login_hint("user-1"));
    let refusal = |error| AuthenticationRefusal::of(&error);
    assert_eq!(refusal(ask().send().await.unwrap_err()), Some(AuthenticationRefusal::MissingUserCode));
    let wrong = ask().user_code("4321").send().await.unwrap_err();
    assert_eq!(refusal(wrong), Some(AuthenticationRefusal::InvalidUserCode));
    assert_approved(&world.wait(&mut ask().user_code("1234").send().await.unwrap()).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_hint_token_expires() {
    let world = ciba(|op| op).await;
    let token = world.op.login_hint_token();
    world.clock.sleep(seconds(301)).await;
    let request = world.client.backchannel_authentication(UserHint::login_hint_token(token));
    let error = request.send().await.unwrap_err();
    assert_eq!(AuthenticationRefusal::of(&error), Some(AuthenticationRefusal::ExpiredLoginHintToken));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_message_that_no_device_can_show_is_refused_by_the_op() {
    let world = ciba(|op| op).await;
    let request = world.client.backchannel_authentication(UserHint::login_hint("user-1"));
    let error = request.binding_message("long ".repeat(100)).send().await.unwrap_err();
    assert_eq!(AuthenticationRefusal::of(&error), Some(AuthenticationRefusal::InvalidBindingMessage));
    world.op.assert_clean();
}
