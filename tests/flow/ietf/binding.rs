//! Which clients must bind their requests to a key.

use std::sync::Arc;

use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, TestClient, TestClock};
use openid_deferred::{Client, ClientAuthentication, DpopMode, ErrorKind, Grant, ResponseMode, ResponseType, SignIn};

use super::{complete, ietf, issued, public, service};
use crate::support::{CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, assert_approved, client_of, provider, world_with};

#[tokio::test]
async fn a_public_client_without_dpop_is_refused_at_discovery() {
    let clock = TestClock::automatic();
    let op = public(provider(&clock)).ietf().start().unwrap();
    let client = |dpop| {
        Client::builder(op.issuer(), "public")
            .authentication(ClientAuthentication::none())
            .redirect_uri(REDIRECT_URI)
            .dpop(dpop)
            .http_client(op.http_client())
            .clock(Arc::new(clock.clone()))
    };
    let error = client(DpopMode::Off).discover().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)) && error.to_string().contains("dpop"), "{error}");
    let client = client(DpopMode::PerProcess).discover().await.unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let answer = client.authorization_response(&op.visit(url).query(), session).await;
    assert!(matches!(answer, Ok(SignIn::Deferred(_))));
    op.assert_clean();
}

#[tokio::test]
async fn a_public_client_without_dpop_is_accepted_in_the_openid_dialect() {
    let clock = TestClock::automatic();
    let op = public(provider(&clock)).start().unwrap();
    let client = Client::builder(op.issuer(), "public")
        .authentication(ClientAuthentication::none())
        .redirect_uri(REDIRECT_URI)
        .dpop(DpopMode::Off)
        .http_client(op.http_client());
    assert!(client.discover().await.is_ok());
}

#[tokio::test]
async fn a_client_with_a_secret_may_omit_dpop() {
    let world =
        world_with(|op| op.ietf().decisions(DecisionPolicy::after_polls(1)), |client| client.dpop(DpopMode::Off)).await;
    let tokens = issued(world.wait(&mut world.pending_grant().await).await);
    assert!(!tokens.is_sender_constrained() && tokens.dpop_key().is_none());
    world.op.assert_clean();
}

#[tokio::test]
async fn each_token_request_has_its_own_key_and_uses_it_in_all_its_polls() {
    let world = ietf(|op| op).await;
    let (first, second) = (world.pending_grant().await, world.pending_grant().await);
    let thumbprint =
        |pending: &openid_deferred::PendingAuthentication| pending.dpop_key().unwrap().thumbprint().to_owned();
    assert_ne!(thumbprint(&first), thumbprint(&second));
    for mut pending in [first, second] {
        let expected = thumbprint(&pending);
        let tokens = issued(world.wait(&mut pending).await);
        assert_eq!(tokens.dpop_key().unwrap().thumbprint(), expected);
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn client_credentials_need_a_confidential_client() {
    let clock = TestClock::automatic();
    let op = public(provider(&clock)).ietf().start().unwrap();
    let client = Client::builder(op.issuer(), "public")
        .authentication(ClientAuthentication::none())
        .without_redirect_uri()
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()));
    let client = client.discover().await.unwrap();
    let error = client.token_request(Grant::client_credentials()).send().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error}");
    op.assert_clean();
}

#[tokio::test]
async fn a_bearer_token_in_answer_to_a_proof_is_delivered_as_unbound() {
    let world = ietf(|op| op.answers_at_once()).await;
    world.op.misbehave(Fault::edit_json(Endpoint::ClientCredentials, |body| {
        body.insert("token_type".into(), "Bearer".into());
    }));
    let tokens = complete(world.client.token_request(Grant::client_credentials()).send().await.unwrap());
    assert_eq!((tokens.token_type(), tokens.is_sender_constrained()), (Some("Bearer"), false));
}

#[tokio::test]
async fn a_token_that_is_not_bound_can_be_refused() {
    let clock = TestClock::automatic();
    let op = provider(&clock).ietf().answers_at_once().start().unwrap();
    let client = service(&op, &clock).dpop(DpopMode::Off).discover().await.unwrap();
    complete(client.token_request(Grant::client_credentials()).send().await.unwrap());
    let client = service(&op, &clock).dpop(DpopMode::Off).drop_unbound_tokens().discover().await.unwrap();
    let error = client.token_request(Grant::client_credentials()).send().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_notification_token_for_all_requests_is_refused_at_discovery() {
    let clock = TestClock::automatic();
    let (ietf, openid) = (provider(&clock).ietf().start().unwrap(), provider(&clock).start().unwrap());
    for client in [client_of(&ietf, &clock), service(&ietf, &clock)] {
        let error = client.notification_token("a token").discover().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error}");
        assert!(error.to_string().contains("notification_token"), "{error}");
    }
    assert!(client_of(&openid, &clock).notification_token("a token").discover().await.is_ok());
}

#[tokio::test]
async fn a_response_jwt_may_use_the_shorthand_mode_in_this_dialect() {
    let world = world_with(
        |op| {
            let client = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
                .redirect_uri(REDIRECT_URI)
                .signing_algorithm("ES256")
                .authorization_signed_response_alg("ES256");
            op.ietf().client(client).decisions(DecisionPolicy::after_polls(1))
        },
        |client| client.response_type(ResponseType::DeferredCodeOrCode).response_mode(ResponseMode::Jwt),
    )
    .await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}
