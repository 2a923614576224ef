//! Client metadata (CIBA §4).

use openid_deferred::ciba::{DeliveryMode, UserHint};
use openid_deferred::registration::{DifferenceEffect, RegistrationRequest};
use openid_deferred::{Dialect, ErrorKind, SigningAlgorithm, SigningKey};
use serde_json::json;

use crate::registration::{Office, office_with, request};
use crate::support::assert_approved;

const PING: &str = "https://rp.test/ciba/ping";

fn office() -> Office {
    office_with(|op| op.ciba())
}

#[tokio::test]
async fn a_client_without_a_browser_asks_for_users_as_it_was_registered() {
    let office = office();
    let asked = RegistrationRequest::backchannel(DeliveryMode::Poll);
    assert_eq!(asked.metadata().grant_types(), ["urn:openid:params:grant-type:ciba"]);
    assert!(asked.metadata().response_types().is_empty() && asked.metadata().redirect_uris().is_empty());
    let registration = office.register(asked).await;
    assert!(registration.differences().is_empty(), "{:?}", registration.differences());
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    let mut pending = client.backchannel_authentication(UserHint::login_hint("user-1")).send().await.unwrap();
    assert_approved(&client.wait(&mut pending).await.unwrap());
    office.op.assert_clean();
}

#[tokio::test]
async fn a_registered_algorithm_and_mode_are_used() {
    let office = office();
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let asked = RegistrationRequest::backchannel(DeliveryMode::Ping)
        .backchannel_client_notification_endpoint(PING)
        .backchannel_authentication_request_signing_alg(SigningAlgorithm::Es256)
        .backchannel_user_code_parameter()
        .private_key_jwt(&key);
    let registration = office.register(asked).await;
    let metadata = registration.metadata();
    assert_eq!(metadata.backchannel_token_delivery_mode(), Some("ping"));
    assert_eq!(metadata.backchannel_client_notification_endpoint(), Some(PING));
    assert_eq!(metadata.backchannel_authentication_request_signing_alg(), Some(SigningAlgorithm::Es256));
    assert!(metadata.backchannel_user_code_parameter());
    let client = office.client_of(&registration).unwrap().signing_key(key).discover().await.unwrap();
    let ask = || client.backchannel_authentication(UserHint::login_hint("user-1"));
    assert!(ask().send().await.unwrap_err().to_string().contains("notification_token"), "the mode is ping");
    let mut pending = ask().notification_token("a".repeat(43)).send().await.unwrap();
    assert!(office.op.last_process().notification_token().is_some());
    assert_approved(&client.wait(&mut pending).await.unwrap());
    office.op.assert_clean();
}

#[tokio::test]
async fn one_client_can_use_ciba_and_sign_ins_in_a_browser() {
    let office = office();
    let registration = office.register(request().backchannel_token_delivery_mode(DeliveryMode::Poll)).await;
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    assert_eq!(client.dialect().await.unwrap(), Dialect::OpenId);
    assert_approved(&office.outcome(&client).await.unwrap());
    let mut pending = client.backchannel_authentication(UserHint::login_hint("user-1")).send().await.unwrap();
    assert_approved(&client.wait(&mut pending).await.unwrap());
    office.op.assert_clean();
}

#[tokio::test]
async fn invalid_ciba_registrations_are_not_sent() {
    let office = office();
    for (asked, setting) in [
        (RegistrationRequest::backchannel(DeliveryMode::Push), "backchannel_token_delivery_mode"),
        (RegistrationRequest::backchannel(DeliveryMode::Ping), "backchannel_client_notification_endpoint"),
        (
            RegistrationRequest::backchannel(DeliveryMode::Ping)
                .backchannel_client_notification_endpoint("http://rp.test/ping"),
            "backchannel_client_notification_endpoint",
        ),
    ] {
        let error = office.registrar.register(asked).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error}");
        assert!(error.to_string().contains(setting), "{error}");
    }
}

#[tokio::test]
async fn an_op_that_registers_push_mode_breaks_the_client() {
    let edit = |members: &mut serde_json::Map<_, _>| {
        members.insert("backchannel_token_delivery_mode".to_owned(), json!("push"));
    };
    let office = office_with(|op| op.ciba().registers(edit));
    let registration = office.register(RegistrationRequest::backchannel(DeliveryMode::Poll)).await;
    let difference = &registration.differences()[0];
    assert_eq!(
        (difference.member(), difference.effect()),
        ("backchannel_token_delivery_mode", DifferenceEffect::Breaks)
    );
    // A client that is made all the same says so at discovery.
    let client = office.at_the_op(registration.client_despite_differences().unwrap());
    assert!(client.discover().await.unwrap_err().to_string().contains("push mode is not supported"));
}
