//! What the OP's metadata must say (CIBA §4), and what a client must be.

use openid_deferred::ciba::{DeliveryMode, UserHint};
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::testing::{TestClient, TestClock, TestProvider};
use openid_deferred::{Client, ClientAuthentication, ClientBuilder, Dialect, Error, ErrorKind, ResponseType};
use serde_json::json;
use std::sync::Arc;

use crate::support::{CLIENT_ID, CLIENT_SECRET, assert_approved, client_of, provider};

/// A client without sign-ins in a browser.
fn teller(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
        .without_redirect_uri()
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
}

async fn discovered(
    edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>) + Send + Sync + 'static,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, Error> {
    let clock = TestClock::automatic();
    let op = provider(&clock).ciba().metadata(edit).start().unwrap();
    client(teller(&op, &clock)).discover().await
}

#[tokio::test]
async fn each_ciba_member_of_the_metadata_has_a_method() {
    let clock = TestClock::automatic();
    let op = provider(&clock).ciba().user_code("1234").start().unwrap();
    let metadata = teller(&op, &clock).build().unwrap().provider_metadata().await.unwrap();
    assert!(metadata.backchannel_authentication_endpoint().unwrap().path().ends_with("/bc-authorize"));
    assert_eq!(metadata.backchannel_token_delivery_modes_supported(), ["poll", "ping"]);
    assert!(metadata.backchannel_user_code_parameter_supported());
    let algorithms = metadata.backchannel_authentication_request_signing_alg_values_supported();
    assert!(algorithms.iter().any(|algorithm| algorithm == "ES256"));
}

#[tokio::test]
async fn push_mode_is_a_typed_error_at_discovery() {
    let push = |client: ClientBuilder| client.backchannel_token_delivery_mode(DeliveryMode::Push);
    let error = discovered(|_| {}, push).await.unwrap_err();
    assert!(error.to_string().contains("push mode is not supported"), "{error}");
    assert_eq!(error.step(), Some("discovering the OP"));
    // Without discovery the request is refused.
    let clock = TestClock::automatic();
    let op = provider(&clock).ciba().start().unwrap();
    let client = push(teller(&op, &clock)).build().unwrap();
    let request = client.backchannel_authentication(UserHint::login_hint("user-1"));
    assert!(request.send().await.unwrap_err().to_string().contains("push mode"));
}

#[tokio::test]
async fn discovery_names_the_missing_feature_of_the_op() {
    let poll = |client: ClientBuilder| client.backchannel_token_delivery_mode(DeliveryMode::Poll);
    let ping = |client: ClientBuilder| client.backchannel_token_delivery_mode(DeliveryMode::Ping);
    let error = discovered(|members| drop(members.shift_remove("backchannel_authentication_endpoint")), poll).await;
    let missing = ConfigurationProblem::NoEndpoint("backchannel_authentication_endpoint");
    assert_eq!(error.unwrap_err().kind(), &ErrorKind::Configuration(missing));
    let only_poll = |members: &mut serde_json::Map<_, _>| {
        members.insert("backchannel_token_delivery_modes_supported".to_owned(), json!(["poll"]));
    };
    let error = discovered(only_poll, ping).await.unwrap_err();
    assert!(error.to_string().contains("backchannel_token_delivery_modes_supported"), "{error}");
    discovered(only_poll, poll).await.unwrap();
    let no_grant = |members: &mut serde_json::Map<_, _>| {
        members.insert("grant_types_supported".to_owned(), json!(["authorization_code"]));
    };
    let error = discovered(no_grant, poll).await.unwrap_err();
    assert!(error.to_string().contains("urn:openid:params:grant-type:ciba"), "{error}");
    discovered(no_grant, |client| poll(client).allow_unadvertised()).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_is_not_secure_is_not_called() {
    let edit = |members: &mut serde_json::Map<_, _>| {
        members.insert("backchannel_authentication_endpoint".to_owned(), json!("http://op.test/bc-authorize"));
    };
    let poll = |client: ClientBuilder| client.backchannel_token_delivery_mode(DeliveryMode::Poll);
    let error = discovered(edit, poll).await.unwrap_err();
    assert_eq!(error.rule(), Some(openid_deferred::error::Rule::InsecureEndpoint), "{error}");
}

#[tokio::test]
async fn the_client_must_be_confidential() {
    let clock = TestClock::automatic();
    let op = provider(&clock).ciba().client(TestClient::public("public")).start().unwrap();
    let client = Client::builder(op.issuer(), "public")
        .without_redirect_uri()
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
        .discover()
        .await
        .unwrap();
    let error = client.backchannel_authentication(UserHint::login_hint("user-1")).send().await.unwrap_err();
    assert!(error.to_string().contains("must be confidential"), "{error}");
    op.assert_clean();
}

#[tokio::test]
async fn a_client_without_a_browser_needs_no_redirect_uri() {
    let clock = TestClock::automatic();
    let op = provider(&clock).ciba().start().unwrap();
    let client = teller(&op, &clock).backchannel_token_delivery_mode(DeliveryMode::Poll).discover().await.unwrap();
    let mut pending = client.backchannel_authentication(UserHint::login_hint("user-1")).send().await.unwrap();
    assert_approved(&client.wait(&mut pending).await.unwrap());
    op.assert_clean();
}

#[tokio::test]
async fn ciba_does_not_change_the_dialect_of_sign_ins_in_a_browser() {
    let clock = TestClock::automatic();
    let op = provider(&clock).ciba().start().unwrap();
    let client = client_of(&op, &clock).discover().await.unwrap();
    assert_eq!(client.dialect().await.unwrap(), Dialect::OpenId);
    let error = client_of(&op, &clock).dialect(Dialect::Ciba).build().unwrap_err();
    assert!(error.to_string().contains("backchannel_authentication"), "{error}");
    // An OP with CIBA and without deferred sign-ins.
    let op = provider(&clock)
        .ciba()
        .metadata(|members| drop(members.insert("response_types_supported".to_owned(), json!(["code"]))))
        .start()
        .unwrap();
    let client = client_of(&op, &clock).response_type(ResponseType::Code).discover().await.unwrap();
    let mut pending = client.backchannel_authentication(UserHint::login_hint("user-1")).send().await.unwrap();
    assert_approved(&client.wait(&mut pending).await.unwrap());
    op.assert_clean();
}
