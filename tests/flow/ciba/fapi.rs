//! The rules of FAPI-CIBA.

use openid_deferred::error::ConfigurationProblem;
use openid_deferred::testing::{Endpoint, Fault, TestClient, TestProvider, TestProviderBuilder};
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, DpopMode, Error, ErrorKind, Outcome, SigningAlgorithm, SigningKey,
};

use super::with_key;
use crate::support::World;

async fn fapi(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    with_key(
        SigningAlgorithm::Es256,
        |builder, client| op(builder.fapi_ciba().client(client)),
        |client| client.fapi_ciba(),
    )
    .await
}

#[tokio::test]
async fn requests_are_signed_and_tokens_are_bound() {
    let world = fapi(|op| op).await;
    let mut pending = world.asked().await;
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert!(authentication.is_sender_constrained());
    assert!(world.asks()[0].parameter("request").is_some());
    world.op.assert_clean();
}

#[tokio::test]
async fn tokens_that_are_not_bound_are_dropped() {
    let world = fapi(|op| op).await;
    let mut pending = world.asked().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, |body| {
        if let Some(kind) = body.get_mut("token_type") {
            *kind = "Bearer".into();
        }
    }));
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert!(authentication.access_token().is_none());
}

fn builder() -> ClientBuilder {
    Client::builder("https://op.test", "teller").without_redirect_uri().fapi_ciba()
}

#[track_caller]
fn forbidden(client: Result<Client, Error>) -> &'static str {
    match client.unwrap_err().kind() {
        ErrorKind::Configuration(ConfigurationProblem::Fapi { setting, .. }) => setting,
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_that_contradict_the_rules_are_refused() {
    let key = || SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    assert_eq!(forbidden(builder().build()), "authentication");
    assert_eq!(forbidden(builder().client_secret("secret").build()), "client_secret");
    let secret = ClientAuthentication::client_secret_basic("secret");
    assert_eq!(forbidden(builder().authentication(secret).build()), "authentication");
    assert_eq!(forbidden(builder().signing_key(key()).dpop(DpopMode::Off).build()), "dpop");
    let weak = SigningKey::generate(SigningAlgorithm::Rs256).unwrap();
    assert_eq!(forbidden(builder().signing_key(weak).build()), "signing_key");
    builder().signing_key(key()).build().unwrap();
}

#[tokio::test]
async fn an_op_that_cannot_bind_tokens_is_refused() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let jwk = serde_json::to_string(&key.public_jwk()).unwrap();
    let registered = TestClient::private_key_jwt("teller", &jwk).signing_algorithm("ES256");
    let op = TestProvider::builder().in_process().fapi_ciba().without_dpop();
    let op = op.client(registered).start().unwrap();
    let client = Client::builder(op.issuer(), "teller").without_redirect_uri().fapi_ciba().signing_key(key);
    let error = client.http_client(op.http_client()).discover().await.unwrap_err();
    let expected =
        ConfigurationProblem::FapiNotAdvertised { member: "dpop_signing_alg_values_supported", value: "ES256" };
    assert_eq!(error.kind(), &ErrorKind::Configuration(expected));
}
