//! RFC 7009: revoking tokens.

use openid_deferred::error::{ConfigurationProblem, Misuse, Rule, TransportProblem};
use openid_deferred::testing::{Endpoint, Fault};
use openid_deferred::tokens::TokenTypeHint;
use openid_deferred::{Error, ErrorKind, Secret};

use crate::support::{seconds, world, world_with};

async fn answered_with(fault: Fault) -> Result<(), Error> {
    let world = world().await;
    world.op.misbehave(fault);
    let revoked = world.client.revoke_token(&Secret::new("some token"), None).await;
    assert_eq!(world.op.faults_left(), 0, "the fault struck");
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 1, "nothing is repeated or followed");
    revoked
}

#[tokio::test]
async fn the_tokens_of_a_sign_in_are_revoked_the_refresh_token_first() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.client.revoke(&authentication).await.unwrap();
    let requests = world.op.requests_to(Endpoint::Revocation);
    let sent: Vec<_> =
        requests.iter().map(|request| (request.parameter("token_type_hint"), request.parameter("token"))).collect();
    assert_eq!(
        sent,
        [
            (Some("refresh_token"), authentication.refresh_token().map(Secret::expose)),
            (Some("access_token"), authentication.access_token().map(Secret::expose)),
        ]
    );
    world.op.assert_clean();

    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_token");
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
    world.op.forgive();
    world.client.revoke(&authentication).await.unwrap();
    world.op.assert_clean();
}

#[tokio::test]
async fn both_tokens_are_revoked_even_if_the_first_revocation_fails() {
    let world = world().await;
    let authentication = world.approved().await;
    world.op.misbehave(Fault::status(Endpoint::Revocation, 503));
    let error = world.client.revoke(&authentication).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_token");
}

#[tokio::test]
async fn one_token_is_revoked_with_the_hint_that_was_given() {
    let world = world().await;
    let authentication = world.approved().await;
    let token = authentication.access_token().unwrap();
    world.client.revoke_token(token, TokenTypeHint::AccessToken).await.unwrap();
    world.client.revoke_token(&Secret::new("unknown"), None).await.unwrap();
    let requests = world.op.requests_to(Endpoint::Revocation);
    assert_eq!(requests[0].parameter("token_type_hint"), Some("access_token"));
    assert_eq!(requests[1].parameter("token_type_hint"), None);
    assert!(requests.iter().all(|request| request.header("authorization").unwrap().starts_with("Basic ")));
    world.op.assert_clean();
}

#[tokio::test]
async fn status_200_confirms_a_revocation_with_any_body() {
    for (content_type, body) in [
        ("", ""),
        ("text/html", "<html>"),
        ("application/json", "{}"),
        ("application/json", "[1"),
        ("application/json", r#"{"error":"invalid_request"}"#),
    ] {
        answered_with(Fault::response(Endpoint::Revocation, 200, content_type, body)).await.unwrap();
    }
}

#[tokio::test]
async fn unsupported_token_type_is_the_ops_error() {
    let error = answered_with(Fault::error(Endpoint::Revocation, "unsupported_token_type")).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "unsupported_token_type");
    assert!(!error.is_transient());
    assert_eq!(error.step(), Some("revoking a token"));
}

#[tokio::test]
async fn a_request_to_an_overloaded_or_unreachable_op_can_be_repeated() {
    let fault = Fault::status(Endpoint::Revocation, 503).header("retry-after", "30");
    let error = answered_with(fault).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::UnexpectedStatus), true));
    assert_eq!(error.retry_after(), Some(seconds(30)));
    for (fault, problem) in [
        (Fault::reset(Endpoint::Revocation), TransportProblem::Broken),
        (Fault::stall(Endpoint::Revocation), TransportProblem::Timeout),
    ] {
        let error = answered_with(fault).await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (&ErrorKind::Transport(problem), true));
    }
}

#[tokio::test]
async fn other_answers_do_not_confirm_a_revocation() {
    let error = answered_with(Fault::redirect(Endpoint::Revocation, "https://op.test/elsewhere")).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::UnexpectedRedirect));
    let error = answered_with(Fault::status(Endpoint::Revocation, 403)).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::UnexpectedStatus), false));
    let refused = Fault::error_with_status(Endpoint::Revocation, 401, "invalid_client");
    assert_eq!(answered_with(refused).await.unwrap_err().error_response().unwrap().code(), "invalid_client");
}

#[tokio::test]
async fn an_op_without_a_revocation_endpoint_is_a_typed_error() {
    let without = |members: &mut serde_json::Map<String, serde_json::Value>| {
        members.remove("revocation_endpoint");
    };
    let world = world_with(|op| op.metadata(without), |client| client).await;
    let error = world.client.revoke_token(&Secret::new("some token"), None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Configuration(ConfigurationProblem::NoEndpoint("revocation_endpoint")));
}

#[tokio::test]
async fn the_tokens_of_another_client_are_not_sent() {
    let (mine, other) = (world().await, world_with(|op| op.path("/other"), |client| client).await);
    let error = mine.client.revoke(&other.approved().await).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
    assert!(mine.op.requests_to(Endpoint::Revocation).is_empty());
}
