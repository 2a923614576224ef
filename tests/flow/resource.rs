//! RFC 9449 §7 and RFC 6750: calling protected resources with the tokens of an outcome.

use bytes::Bytes;
use http::{Method, Request};
use openid_deferred::error::{Misuse, TransportProblem};
use openid_deferred::testing::{Endpoint, Fault, NoncePolicy, TestProviderBuilder};
use openid_deferred::{Authentication, ErrorKind, ErrorResponse};
use serde_json::Value;

use crate::support::{World, world, world_with};

fn request(world: &World, method: Method, query: &str, body: &'static str) -> Request<Bytes> {
    let uri = format!("{}{query}", world.op.resource());
    Request::builder().method(method).uri(uri).body(Bytes::from_static(body.as_bytes())).unwrap()
}

async fn called(world: &World, authentication: &Authentication, request: Request<Bytes>) -> Value {
    let response = world.client.resource(authentication, request).await.unwrap();
    assert_eq!(response.status(), 200);
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn a_resource_request_is_sent_unchanged_with_token_and_proof() {
    let world = world().await;
    let authentication = world.approved().await;
    let answer = called(&world, &authentication, request(&world, Method::POST, "?from=2026&to=2027", "the body")).await;
    assert_eq!(
        answer,
        serde_json::json!({
            "method": "POST", "query": "from=2026&to=2027", "body": "the body", "sub": "user-1",
        })
    );
    let token = authentication.access_token().unwrap().expose();
    let sent = &world.op.requests_to(Endpoint::Resource)[0];
    assert_eq!(sent.header("authorization"), Some(format!("DPoP {token}").as_str()));
    // The provider checks `htu` without the query, `ath`, and the key.
    world.op.assert_clean();
}

#[tokio::test]
async fn headers_of_the_application_are_kept_and_its_credentials_replaced() {
    let world = world().await;
    let authentication = world.approved().await;
    let mut request = request(&world, Method::GET, "", "");
    request.headers_mut().insert("x-mine", "1".parse().unwrap());
    request.headers_mut().insert("authorization", "Bearer stale".parse().unwrap());
    request.headers_mut().append("dpop", "stale".parse().unwrap());
    called(&world, &authentication, request).await;
    let sent = &world.op.requests_to(Endpoint::Resource)[0];
    assert_eq!(sent.header("x-mine"), Some("1"));
    assert_eq!(
        (sent.headers.get_all("authorization").iter().count(), sent.headers.get_all("dpop").iter().count()),
        (1, 1)
    );
    world.op.assert_clean();
}

#[tokio::test]
async fn a_nonce_challenge_of_a_resource_is_answered_once_with_the_same_body() {
    let world = world_with(|op| op.dpop_nonces(NoncePolicy::Required), |client| client).await;
    let authentication = world.approved().await;
    let answer = called(&world, &authentication, request(&world, Method::PUT, "", "the body")).await;
    assert_eq!(answer["body"], "the body");
    assert_eq!(world.op.requests_to(Endpoint::Resource).len(), 2);
    called(&world, &authentication, request(&world, Method::GET, "", "")).await;
    assert_eq!(world.op.requests_to(Endpoint::Resource).len(), 3);
    world.op.assert_clean();
}

#[tokio::test]
async fn every_status_of_a_resource_is_returned_to_the_application() {
    let world = world().await;
    let authentication = world.approved().await;
    for status in [204, 302, 401, 404, 503] {
        world.op.misbehave(Fault::status(Endpoint::Resource, status));
        let response = world.client.resource(&authentication, request(&world, Method::GET, "", "")).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(world.op.requests_to(Endpoint::Resource).len(), 5, "nothing is repeated or followed");
}

#[tokio::test]
async fn the_challenge_of_a_refused_resource_request_is_in_the_extensions() {
    let world = world().await;
    let authentication = world.approved().await;
    let challenge = r#"DPoP error="insufficient_scope", scope="payments", error_description="not these""#;
    world.op.misbehave(Fault::status(Endpoint::Resource, 403).header("www-authenticate", challenge));
    let response = world.client.resource(&authentication, request(&world, Method::GET, "", "")).await.unwrap();
    let error = response.extensions().get::<ErrorResponse>().unwrap();
    assert_eq!((error.code(), error.scope(), error.status()), ("insufficient_scope", Some("payments"), Some(403)));
    assert_eq!(error.description(), Some("not these"));
    assert_eq!(response.status(), 403);

    for fault in [
        Fault::status(Endpoint::Resource, 401),
        Fault::status(Endpoint::Resource, 401).header("www-authenticate", "Basic error=\"invalid_token\""),
        Fault::status(Endpoint::Resource, 200).header("www-authenticate", challenge),
    ] {
        world.op.misbehave(fault);
        let response = world.client.resource(&authentication, request(&world, Method::GET, "", "")).await.unwrap();
        assert!(response.extensions().get::<ErrorResponse>().is_none());
    }
}

#[tokio::test]
async fn a_proof_refused_for_its_time_is_repeated_once_with_the_time_of_the_resource() {
    for (offset, requests) in [(300, 2), (-300, 2), (100_000, 1)] {
        let (world, authentication) = clocks_apart(offset).await;
        let response = world.client.resource(&authentication, request(&world, Method::PUT, "", "body")).await.unwrap();
        assert_eq!(response.status(), if requests == 2 { 200 } else { 401 }, "{offset}");
        assert_eq!(world.op.requests_to(Endpoint::Resource).len(), requests, "{offset}");
    }
}

/// A user who signed in before the clocks of client and provider diverged.
async fn clocks_apart(offset: i64) -> (World, Authentication) {
    let world = world().await;
    let authentication = world.approved().await;
    world.op.set_clock_offset(offset);
    (world, authentication)
}

#[tokio::test]
async fn a_bearer_token_is_sent_with_the_scheme_bearer() {
    let world = world_with(TestProviderBuilder::without_dpop, |client| client).await;
    let authentication = world.approved().await;
    called(&world, &authentication, request(&world, Method::GET, "", "")).await;
    let sent = &world.op.requests_to(Endpoint::Resource)[0];
    assert!(sent.header("authorization").unwrap().starts_with("Bearer ") && sent.header("dpop").is_none());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_url_that_is_not_absolute_or_not_https_is_refused_before_anything_is_sent() {
    let world = world().await;
    let authentication = world.approved().await;
    let relative = Request::get("/resource").body(Bytes::new()).unwrap();
    let error = world.client.resource(&authentication, relative).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
    let plain = Request::get("http://op.test/resource").body(Bytes::new()).unwrap();
    let error = world.client.resource(&authentication, plain).await.unwrap_err();
    assert!(!matches!(error.kind(), ErrorKind::Transport(TransportProblem::Connect)), "{error:?}");
    assert!(world.op.requests_to(Endpoint::Resource).is_empty());
}

#[tokio::test]
async fn tokens_of_another_client_are_not_sent() {
    let (world, other) = (world().await, world_with(|op| op.path("/other"), |client| client).await);
    let authentication = other.approved().await;
    let error = world.client.resource(&authentication, request(&world, Method::GET, "", "")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
}

#[tokio::test]
async fn a_body_over_the_limit_is_cut_off() {
    let world = world().await;
    let authentication = world.approved().await;
    for fault in [Fault::huge_body(Endpoint::Resource, 17 * 1024 * 1024), Fault::endless_body(Endpoint::Resource)] {
        world.op.misbehave(fault);
        let error = world.client.resource(&authentication, request(&world, Method::GET, "", "")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Transport(TransportProblem::BodyTooLarge(_))), "{error:?}");
    }
}
