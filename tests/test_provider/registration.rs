//! Clients that register themselves, with hand-written requests.

use std::time::Duration;

use http::{HeaderValue, Method};
use openid_deferred::testing::{Endpoint, RequestRule};
use serde_json::{Value, json};

use crate::rp::{DEFERRED, Rp, request, rp};

async fn call(rp: &Rp, method: Method, url: &str, token: Option<&str>, body: Value) -> (u16, Value) {
    let headers: Vec<_> = token.into_iter().map(|token| ("authorization", format!("Bearer {token}"))).collect();
    let has_body = !body.is_null();
    let mut request = request(method, url, &headers, if has_body { body.to_string() } else { String::new() });
    if has_body {
        request.headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    let network = rp.op.http_client();
    let response = network.send(request).await.expect("an answer");
    (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or_default())
}

fn metadata() -> Value {
    json!({
        "redirect_uris": ["https://rp.test/callback"],
        "response_types": ["deferred_code"],
        "grant_types": [DEFERRED],
        "deferred_client_notification_endpoint": "https://rp.test/ping",
        "unknown": [1, 2],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut metadata = metadata();
    metadata[name] = value;
    metadata
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_else(|| panic!("{name} is missing: {answer}"))
}

#[tokio::test]
async fn a_client_is_registered_read_replaced_and_deleted() {
    let rp = rp(|op| op.registration());
    let endpoint = format!("{}/register", rp.op.issuer());
    let (status, answer) = call(&rp, Method::POST, &endpoint, None, metadata()).await;
    assert_eq!(status, 201);
    assert_eq!((&answer["unknown"], &answer["client_secret_expires_at"]), (&json!([1, 2]), &json!(0)));
    assert_eq!(answer["token_endpoint_auth_method"], "client_secret_basic");
    let (place, id) = (text(&answer, "registration_client_uri").to_owned(), text(&answer, "client_id").to_owned());
    let first = text(&answer, "registration_access_token").to_owned();

    let (status, answer) = call(&rp, Method::GET, &place, Some(&first), Value::Null).await;
    let second = text(&answer, "registration_access_token").to_owned();
    assert_eq!((status, first == second), (200, false));

    let mut update = with("client_name", json!("Renamed"));
    update["client_id"] = json!(id);
    let (status, answer) = call(&rp, Method::PUT, &place, Some(&second), update).await;
    assert_eq!((status, text(&answer, "client_name")), (200, "Renamed"));
    assert_eq!(rp.op.registered(&id).unwrap()["client_name"], "Renamed");
    let third = text(&answer, "registration_access_token").to_owned();
    assert!(rp.broken_rules().is_empty());

    let (status, _) = call(&rp, Method::GET, &place, Some(&second), Value::Null).await;
    assert_eq!((status, rp.broken_rules()), (401, vec![RequestRule::RegistrationAccessTokenReplaced]));
    rp.op.forgive();
    let (status, _) = call(&rp, Method::DELETE, &place, Some(&third), Value::Null).await;
    assert_eq!((status, rp.op.registered(&id)), (204, None));
    let (status, _) = call(&rp, Method::GET, &place, Some(&third), Value::Null).await;
    assert_eq!((status, rp.broken_rules()), (401, vec![]), "a client that is gone is not a mistake");
}

#[tokio::test]
async fn invalid_client_metadata_is_refused_and_recorded_as_a_violation() {
    let rp = rp(|op| op.registration());
    let endpoint = format!("{}/register", rp.op.issuer());
    let private = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] });
    for (body, error) in [
        (with("redirect_uris", json!([])), "invalid_redirect_uri"),
        (with("redirect_uris", json!(["https://rp.test/#a"])), "invalid_redirect_uri"),
        (with("deferred_client_notification_endpoint", json!("http://rp.test/ping")), "invalid_client_metadata"),
        (with("jwks", private), "invalid_client_metadata"),
        (with("token_endpoint_auth_method", json!("shouting")), "invalid_client_metadata"),
        (with("token_endpoint_auth_method", json!("private_key_jwt")), "invalid_client_metadata"),
        (with("response_types", json!(["token"])), "invalid_client_metadata"),
        (with("grant_types", json!(["authorization_code"])), "invalid_client_metadata"),
        (json!([]), "invalid_client_metadata"),
    ] {
        let (status, answer) = call(&rp, Method::POST, &endpoint, None, body.clone()).await;
        assert_eq!((status, text(&answer, "error")), (400, error), "{body}");
        assert_eq!(rp.broken_rules(), [RequestRule::ClientMetadata], "{body}");
        rp.op.forgive();
    }
    let both = with("jwks", json!({ "keys": [] }));
    let mut both = both.as_object().unwrap().clone();
    both.insert("jwks_uri".to_owned(), json!("https://rp.test/jwks"));
    assert_eq!(call(&rp, Method::POST, &endpoint, None, Value::Object(both)).await.0, 400);
    assert_eq!(rp.broken_rules(), [RequestRule::ClientMetadata]);
    rp.op.forgive();
    assert_eq!(call(&rp, Method::GET, &endpoint, None, Value::Null).await.0, 405);
    assert_eq!(rp.broken_rules(), [RequestRule::WrongMethod]);
}

#[tokio::test]
async fn an_update_must_name_the_client_and_may_not_name_what_the_provider_issues() {
    let rp = rp(|op| op.without_registration_rotation());
    let endpoint = format!("{}/register", rp.op.issuer());
    let (_, answer) = call(&rp, Method::POST, &endpoint, None, metadata()).await;
    let (place, token) = (text(&answer, "registration_client_uri"), text(&answer, "registration_access_token"));
    let id = text(&answer, "client_id");
    let update = |members: Value| {
        let mut update = metadata();
        update.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        update
    };
    for body in [
        update(json!({})),
        update(json!({ "client_id": "somebody else" })),
        update(json!({ "client_id": id, "client_secret": "guessed" })),
        update(json!({ "client_id": id, "registration_access_token": token })),
        update(json!({ "client_id": id, "client_id_issued_at": 0 })),
    ] {
        let (status, _) = call(&rp, Method::PUT, place, Some(token), body.clone()).await;
        assert_eq!((status, rp.broken_rules()), (400, vec![RequestRule::ClientMetadata]), "{body}");
        rp.op.forgive();
    }
    let good = update(json!({ "client_id": id, "client_secret": answer["client_secret"] }));
    assert_eq!(call(&rp, Method::PUT, place, Some(token), good).await.0, 200);
    assert_eq!(call(&rp, Method::GET, place, Some("guessed"), Value::Null).await.0, 401);
    assert_eq!(rp.broken_rules(), [RequestRule::RegistrationAccessToken]);
    assert_eq!(rp.op.requests_to(Endpoint::ClientConfiguration).len(), 7);
}

#[tokio::test]
async fn an_expired_secret_is_refused_and_recorded_as_a_violation() {
    let rp = rp(|op| op.client_secrets_expire_after(Duration::from_secs(60)));
    let endpoint = format!("{}/register", rp.op.issuer());
    let (_, answer) = call(&rp, Method::POST, &endpoint, None, metadata()).await;
    let expiry = answer["client_secret_expires_at"].as_u64().unwrap();
    assert_eq!(expiry, answer["client_id_issued_at"].as_u64().unwrap() + 60);
    let authorization = crate::rp::basic(text(&answer, "client_id"), text(&answer, "client_secret"));
    let network = rp.op.http_client();
    let introspect = async || {
        let url = format!("{}/introspect", rp.op.issuer());
        let headers = [("authorization", authorization.clone())];
        network.send(request(Method::POST, &url, &headers, "token=t".to_owned())).await.unwrap().status
    };
    assert_eq!(introspect().await, 200);
    rp.clock.advance(Duration::from_secs(61));
    assert_eq!(introspect().await, 401);
    assert_eq!(rp.broken_rules(), [RequestRule::ClientSecretExpired]);
}

#[tokio::test]
async fn without_registration_there_is_no_such_endpoint() {
    let rp = rp(|op| op);
    let (status, _) = call(&rp, Method::POST, &format!("{}/register", rp.op.issuer()), None, metadata()).await;
    assert_eq!((status, rp.broken_rules()), (404, vec![RequestRule::UnknownEndpoint]));
}
