//! The authentication request and its acknowledgement (CIBA §7.1 and §7.3).

use openid_deferred::ciba::{AuthenticationRequest, DeliveryMode, UserHint};
use openid_deferred::error::{ConfigurationProblem, Misuse, Rule};
use openid_deferred::testing::{Endpoint, Fault, SeededRandom, TestClient};
use openid_deferred::{
    Cancelled, Clock as _, Dialect, DpopMode, Error, ErrorKind, InterimState, Outcome, PendingAuthentication,
};
use serde_json::json;
use std::sync::Arc;

use super::{ciba, ciba_with, undecided};
use crate::support::{CLIENT_ID, CLIENT_SECRET, World, assert_approved, client_of, seconds};

fn request(world: &World) -> AuthenticationRequest<'_> {
    world.client.backchannel_authentication(UserHint::login_hint("user-1"))
}

#[track_caller]
fn setting(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) => setting,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_is_asked_and_signed_in() {
    let world = ciba(|op| op).await;
    let mut pending = world.asked().await;
    assert_eq!(pending.dialect(), Dialect::Ciba);
    assert_eq!(Some(pending.identifier().expose()), world.op.last_process().auth_req_id().as_deref());
    assert!(matches!(pending.interim(), InterimState::Absent) && pending.access_token().is_none());
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert_eq!(authentication.claims().subject(), "user-1");
    assert!(authentication.is_sender_constrained(), "the polls had a proof");
    world.op.assert_clean();
}

#[tokio::test]
async fn every_parameter_reaches_the_op() {
    let world = ciba(|op| op.user_code("1234")).await;
    let details = json!([{ "type": "payment" }]);
    let asked = request(&world)
        .scopes(["profile", "openid", "profile"])
        .acr_values(["gold", "silver"])
        .binding_message("W4SCT ü")
        .user_code("1234")
        .requested_expiry(seconds(120))
        .authorization_details(details.clone())
        .resource("https://api.example/a")
        .resource("https://api.example/b")
        .parameter("branch", "Berlin")
        .context("order 4711");
    let mut pending = asked.send().await.unwrap();
    let sent = &world.asks()[0];
    let details = details.to_string();
    for (name, value) in [
        ("scope", "openid profile"),
        ("login_hint", "user-1"),
        ("acr_values", "gold silver"),
        ("binding_message", "W4SCT ü"),
        ("user_code", "1234"),
        ("requested_expiry", "120"),
        ("authorization_details", &*details),
        ("resource", "https://api.example/a"),
        ("branch", "Berlin"),
    ] {
        assert_eq!(sent.parameter(name), Some(value), "{name}");
    }
    assert_eq!(sent.parameters.iter().filter(|(name, _)| name == "resource").count(), 2);
    for name in ["nonce", "redirect_uri", "response_type", "client_notification_token", "login_hint_token"] {
        assert_eq!(sent.parameter(name), None, "{name}");
    }
    assert_eq!(sent.header("dpop"), None, "the endpoint issues no tokens");
    let lifetime = pending.expires_at().unwrap().duration_since(world.clock.now()).unwrap();
    assert!((118..=120).contains(&lifetime.as_secs()), "{lifetime:?}");
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert_eq!(authentication.context(), b"order 4711");
    assert_eq!(authentication.claims().acr(), Some("gold"));
    assert!(authentication.authorization_details().is_some());
    world.op.assert_clean();
}

#[tokio::test]
async fn each_hint_is_sent_alone() {
    let world = ciba(|op| op).await;
    assert_approved(&world.wait(&mut world.asked().await).await);
    let Outcome::Approved(earlier) = world.wait(&mut world.asked().await).await else { panic!("not approved") };
    let hints = [
        ("login_hint", UserHint::login_hint("user-1")),
        ("login_hint_token", UserHint::login_hint_token(world.op.login_hint_token())),
        ("id_token_hint", UserHint::id_token_hint(&earlier)),
    ];
    for (name, hint) in hints {
        assert!(format!("{hint:?}").contains(name));
        let mut pending = world.client.backchannel_authentication(hint).send().await.unwrap();
        assert_approved(&world.wait(&mut pending).await);
        let sent = world.asks().pop().unwrap();
        let present = ["login_hint", "login_hint_token", "id_token_hint"].map(|name| sent.parameter(name).is_some());
        assert_eq!(present.iter().filter(|present| **present).count(), 1);
        assert!(sent.parameter(name).is_some());
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn an_id_token_of_another_client_is_refused_as_a_hint() {
    let (world, other) = (ciba(|op| op).await, ciba(|op| op.host("other.test")).await);
    let Outcome::Approved(foreign) = other.wait(&mut other.asked().await).await else { panic!("not approved") };
    let asked = world.client.backchannel_authentication(UserHint::id_token_hint(&foreign));
    assert_eq!(asked.send().await.unwrap_err().kind(), &ErrorKind::Misuse(Misuse::WrongClient));
    assert!(world.asks().is_empty());
}

#[tokio::test]
async fn invalid_parameters_are_refused_before_the_request_is_sent() {
    let world = ciba(|op| op.user_code("1234")).await;
    let cases: Vec<(&str, AuthenticationRequest<'_>)> = vec![
        ("login_hint", world.client.backchannel_authentication(UserHint::login_hint(""))),
        ("login_hint_token", world.client.backchannel_authentication(UserHint::login_hint_token(""))),
        ("binding_message", request(&world).binding_message("")),
        ("binding_message", request(&world).binding_message("two\nlines")),
        ("user_code", request(&world).user_code("")),
        ("requested_expiry", request(&world).requested_expiry(std::time::Duration::from_millis(999))),
        ("authorization_details", request(&world).authorization_details(json!({ "type": "payment" }))),
        // The client is in poll mode.
        ("notification_token", request(&world).notification_token("a".repeat(43))),
    ];
    for (name, asked) in cases {
        assert_eq!(setting(&asked.send().await.unwrap_err()), name);
    }
    for name in ["scope", "nonce", "request", "login_hint", "client_notification_token"] {
        let error = request(&world).parameter(name, "x").send().await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Misuse(Misuse::ReservedParameter(name.to_owned())));
    }
    let error = request(&world).context([0; 257]).send().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Misuse(Misuse::ContextTooLong { .. })), "{error}");
    assert!(world.asks().is_empty());
}

#[tokio::test]
async fn a_user_code_needs_an_op_that_supports_it() {
    let world = ciba(|op| op).await;
    let error = request(&world).user_code("1234").send().await.unwrap_err();
    let missing = "backchannel_user_code_parameter_supported";
    assert!(error.to_string().contains(missing), "{error}");
    assert!(world.asks().is_empty());
}

#[tokio::test]
async fn in_ping_mode_the_request_has_the_token_for_the_ping() {
    let op = |op: openid_deferred::testing::TestProviderBuilder| {
        op.client(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).ping_mode())
    };
    let world = ciba_with(op, |client| client.backchannel_token_delivery_mode(DeliveryMode::Ping)).await;
    assert_eq!(setting(&request(&world).send().await.unwrap_err()), "notification_token");
    for token in ["too-short".to_owned(), "a".repeat(1_025), "with a space, which no token has".to_owned()] {
        assert_eq!(setting(&request(&world).notification_token(token).send().await.unwrap_err()), "notification_token");
    }
    assert!(world.asks().is_empty());
    let token = "n0tifi-._~+/cation-t0ken==";
    let mut pending = request(&world).notification_token(token).send().await.unwrap();
    assert_eq!(world.asks()[0].parameter("client_notification_token"), Some(token));
    assert_eq!(pending.notification_token().map(|token| token.expose()), Some(token));
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();

    // One token for all requests of the client.
    let shared = client_of(&world.op, &world.clock)
        .backchannel_token_delivery_mode(DeliveryMode::Ping)
        .notification_token("a".repeat(43))
        .random(Arc::new(SeededRandom::new(5)))
        .discover()
        .await
        .unwrap();
    shared.backchannel_authentication(UserHint::login_hint("user-1")).send().await.unwrap();
    assert_eq!(world.asks()[1].parameter("client_notification_token"), Some(&*"a".repeat(43)));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_acknowledgement_without_its_identifier_is_refused() {
    let world = undecided().await;
    for (body, rule) in [
        (json!({ "expires_in": 120 }), Rule::NoAuthReqId),
        (json!({ "auth_req_id": 7, "expires_in": 120 }), Rule::InvalidMember),
        (json!({ "access_token": "a", "token_type": "Bearer", "id_token": "a.b.c" }), Rule::NoAuthReqId),
    ] {
        let fault = Fault::response(Endpoint::BackchannelAuthentication, 200, "application/json", body.to_string());
        world.op.misbehave(fault);
        let error = request(&world).send().await.unwrap_err();
        assert_eq!(error.rule(), Some(rule), "{body}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn without_an_interval_polls_are_five_seconds_apart() {
    let world = ciba(|op| op.no_interval()).await;
    assert_approved(&world.wait(&mut world.asked().await).await);
    let asked = world.asks()[0].arrived;
    let gap = (world.polls()[0].arrived - asked).as_secs_f64();
    assert!((5.0..=6.0).contains(&gap), "{gap}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_request_whose_acknowledgement_is_lost_is_not_repeated() {
    let world = undecided().await;
    for fault in [
        Fault::reset(Endpoint::BackchannelAuthentication).after_processing(),
        Fault::status(Endpoint::BackchannelAuthentication, 502).after_processing(),
        Fault::truncated_json(Endpoint::BackchannelAuthentication),
    ] {
        world.op.misbehave(fault);
        let before = world.asks().len();
        let error = request(&world).send().await.unwrap_err();
        assert!(error.kind() == &ErrorKind::OutcomeUnknown || error.rule() == Some(Rule::MalformedJson), "{error:?}");
        assert!(!error.is_transient(), "{error:?}");
        assert_eq!(world.asks().len(), before + 1, "the user is not asked twice");
    }
}

#[tokio::test]
async fn a_failed_connection_is_retried_and_one_request_is_sent() {
    let (world, cable) = crate::support::world_on_a_cable(|op| op.ciba()).await;
    cable.unplug();
    let error = request(&world).send().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Transport(_)) && error.is_transient(), "{error:?}");
    cable.plug_in();
    assert_approved(&world.wait(&mut world.asked().await).await);
    assert_eq!(world.asks().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn without_dpop_polls_have_no_proof_and_tokens_are_bearer_tokens() {
    let world = ciba_with(|op| op, |client| client.dpop(DpopMode::Off)).await;
    let mut pending: PendingAuthentication = world.asked().await;
    assert!(pending.dpop_key().is_none());
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert_eq!(authentication.token_type(), Some("Bearer"));
    assert!(world.polls().iter().all(|poll| poll.header("dpop").is_none()));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_cancellation_is_local_because_ciba_has_none() {
    let world = undecided().await;
    let mut pending = world.asked().await;
    assert_eq!(world.client.cancel(&mut pending).await.unwrap(), Cancelled::LocallyOnly);
    world.op.last_process().deny();
    assert!(matches!(world.wait(&mut pending).await, Outcome::Cancelled));
    world.op.assert_clean();
}

#[tokio::test]
async fn debug_output_names_neither_the_user_nor_the_code() {
    let world = ciba(|op| op).await;
    let asked = request(&world).binding_message("secret-message").user_code("secret-code");
    let shown = format!("{asked:?}");
    for secret in ["user-1", "secret-message", "secret-code"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
