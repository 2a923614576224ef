//! RFC 7662: the OP's description of a token.

use openid_deferred::error::{ConfigurationProblem, Document, Rule, TransportProblem};
use openid_deferred::testing::{Endpoint, Fault, TestClient};
use openid_deferred::tokens::{Introspection, TokenTypeHint};
use openid_deferred::{Clock as _, Error, ErrorKind, Secret};
use serde_json::json;

use crate::support::{CLIENT_ID, HOUR, REDIRECT_URI, seconds, world, world_with};

async fn answered_with(fault: Fault) -> Result<Introspection, Error> {
    let world = world().await;
    world.op.misbehave(fault);
    let answer = world.client.introspect(&Secret::new("some token"), None).await;
    assert_eq!(world.op.faults_left(), 0, "the fault struck");
    answer
}

#[tokio::test]
async fn an_active_token_is_described() {
    let world = world().await;
    let authentication = world.approved().await;
    let token = authentication.access_token().unwrap();
    let answer = world.client.introspect(token, TokenTypeHint::AccessToken).await.unwrap();
    assert!(answer.is_active());
    assert_eq!((answer.client_id(), answer.subject()), (Some(CLIENT_ID), Some("user-1")));
    assert_eq!((answer.issuer(), answer.token_type()), (Some(world.op.issuer()), Some("DPoP")));
    assert_eq!(answer.scope(), authentication.scope());
    let bound_to = &answer.confirmation().unwrap()["jkt"];
    assert_eq!(*bound_to, json!(authentication.dpop_key().unwrap().thumbprint()));
    let left = answer.expires_at().unwrap().duration_since(authentication.received_at()).unwrap();
    assert!(left <= HOUR && left > HOUR - seconds(2), "{left:?}");
    let request = &world.op.requests_to(Endpoint::Introspection)[0];
    assert_eq!(request.parameter("token_type_hint"), Some("access_token"));
    assert!(request.header("authorization").unwrap().starts_with("Basic "));

    let refresh_token = authentication.refresh_token().unwrap();
    assert!(world.client.introspect(refresh_token, TokenTypeHint::RefreshToken).await.unwrap().is_active());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_token_that_is_unknown_expired_revoked_or_replaced_is_not_active() {
    let world = world().await;
    let mut authentication = world.approved().await;
    let [access, refresh] =
        [authentication.access_token(), authentication.refresh_token()].map(|token| token.unwrap().clone());
    world.client.refresh(&mut authentication).await.unwrap();
    let revoked = authentication.access_token().unwrap().clone();
    world.client.revoke_token(&revoked, None).await.unwrap();
    world.clock.sleep(2 * HOUR).await;
    for token in [&Secret::new("unknown"), &access, &refresh, &revoked] {
        let answer = world.client.introspect(token, None).await.unwrap();
        assert!(!answer.is_active() && answer.as_json().is_empty());
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_token_of_another_client_is_not_active() {
    let world = world_with(|op| op.client(TestClient::secret_basic("other", "secret")), |client| client).await;
    let authentication = world.approved().await;
    let other = openid_deferred::Client::builder(world.op.issuer(), "other")
        .redirect_uri(REDIRECT_URI)
        .authentication(openid_deferred::ClientAuthentication::client_secret_basic("secret"))
        .http_client(world.op.http_client())
        .build()
        .unwrap();
    assert!(!other.introspect(authentication.access_token().unwrap(), None).await.unwrap().is_active());
}

#[tokio::test]
async fn an_answer_that_is_no_introspection_response_is_refused() {
    for (body, rule) in [
        ("{}", Rule::MissingMember),
        (r#"{"active":"true"}"#, Rule::InvalidMember),
        (r#"{"active":true,"sub":"a","sub":"b"}"#, Rule::RepeatedMember),
        ("[true]", Rule::MalformedJson),
        (r#"{"active":true"#, Rule::MalformedJson),
    ] {
        let error = answered_with(Fault::response(Endpoint::Introspection, 200, "application/json", body)).await;
        let error = error.unwrap_err();
        let ErrorKind::Protocol(violation) = error.kind() else { panic!("{body}: {error:?}") };
        assert_eq!((violation.rule(), violation.document()), (rule, Some(Document::IntrospectionResponse)), "{body}");
    }
    let error = answered_with(Fault::status(Endpoint::Introspection, 200)).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::UnexpectedContentType));
}

#[tokio::test]
async fn a_refused_introspection_says_nothing_about_the_token() {
    for status in [200, 401] {
        let refused = Fault::error_with_status(Endpoint::Introspection, status, "invalid_client");
        let error = answered_with(refused).await.unwrap_err();
        assert_eq!(error.error_response().unwrap().code(), "invalid_client");
        assert_eq!(error.step(), Some("asking about a token"));
    }
}

#[tokio::test]
async fn network_errors_are_transient_and_bodies_are_bounded() {
    let fault = Fault::status(Endpoint::Introspection, 503).header("retry-after", "30");
    let error = answered_with(fault).await.unwrap_err();
    assert_eq!((error.is_transient(), error.retry_after()), (true, Some(seconds(30))));
    let too_large = TransportProblem::BodyTooLarge(Document::IntrospectionResponse);
    for (fault, problem) in [
        (Fault::reset(Endpoint::Introspection), TransportProblem::Broken),
        (Fault::stall(Endpoint::Introspection), TransportProblem::Timeout),
        (Fault::huge_body(Endpoint::Introspection, 300_000), too_large),
        (Fault::endless_body(Endpoint::Introspection), too_large),
    ] {
        assert_eq!(*answered_with(fault).await.unwrap_err().kind(), ErrorKind::Transport(problem));
    }
}

#[tokio::test]
async fn an_op_without_an_introspection_endpoint_is_a_typed_error() {
    let without = |members: &mut serde_json::Map<String, serde_json::Value>| {
        members.remove("introspection_endpoint");
    };
    let world = world_with(|op| op.metadata(without), |client| client).await;
    let error = world.client.introspect(&Secret::new("some token"), None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Configuration(ConfigurationProblem::NoEndpoint("introspection_endpoint")));
}
