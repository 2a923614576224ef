//! Request objects (RFC 9101), responses as JWTs (JARM) and the FAPI profile, as the provider judges and makes them.

use http::Method;
use openid_deferred::testing::{Fault, IdTokenForgery, RequestRule, TestClient};
use serde_json::{Value, json};
use url::Url;

use crate::rp::{Key, REDIRECT, Rp, rp};

const LOCAL: [(&str, &str); 1] = [("client_id", "signer")];

/// A client whose requests must be signed with the key of its DPoP proofs.
fn signer() -> Rp {
    let key = Key::generate();
    let jwk = serde_json::json!({ "keys": [key.jwk()] });
    let registered = TestClient::public("signer")
        .redirect_uri(REDIRECT)
        .signing_algorithm("ES256")
        .jwks(&jwk)
        .require_signed_request_object();
    let rp = rp(|op| op.client(registered));
    Rp { key, ..rp }
}

/// The claims of a valid request object.
fn claims(rp: &Rp, jti: &str) -> Value {
    let url = Url::parse(&rp.authorization_url(&LOCAL)).unwrap();
    let mut claims: serde_json::Map<String, Value> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), json!(value))).collect();
    let now = rp.now();
    for (name, value) in [
        ("iss", json!("signer")),
        ("aud", json!(rp.op.issuer())),
        ("iat", json!(now)),
        ("nbf", json!(now)),
        ("exp", json!(now + 300)),
        ("jti", json!(jti)),
    ] {
        claims.insert(name.to_owned(), value);
    }
    Value::Object(claims)
}

fn header() -> Value {
    json!({ "alg": "ES256", "typ": "oauth-authz-req+jwt" })
}

fn url(rp: &Rp, object: &str) -> String {
    let mut url = Url::parse(&format!("{}/authorize", rp.op.issuer())).unwrap();
    url.query_pairs_mut().extend_pairs([("client_id", "signer"), ("request", object)]);
    url.into()
}

async fn status(rp: &mut Rp, url: &str) -> u16 {
    rp.send(Method::GET, url, &[], String::new()).await.status.as_u16()
}

#[tokio::test]
async fn a_request_object_by_the_clients_key_is_accepted() {
    let rp = signer();
    let object = rp.key.sign(&header(), &claims(&rp, "1"));
    let back = rp.op.visit(url(&rp, &object));
    assert!(back.parameter("deferred_code").is_some(), "{:?}", back.parameters());
    assert_eq!(back.parameter("state"), Some("the-state"));
    let mut several = claims(&rp, "2");
    several["aud"] = json!([rp.op.issuer(), "https://other.test"]);
    let object = rp.key.sign(&header(), &several);
    assert!(rp.op.visit(url(&rp, &object)).parameter("deferred_code").is_some());
    rp.op.assert_clean();
}

#[tokio::test]
async fn an_invalid_request_object_is_refused_and_recorded_as_a_violation() {
    let mut rp = signer();
    let now = rp.now();
    let cases = [
        ("iss", Some(json!("app"))),
        ("client_id", Some(json!("app"))),
        ("aud", Some(json!("https://other.test"))),
        ("aud", Some(json!(["https://other.test"]))),
        ("aud", None),
        ("nbf", None),
        ("nbf", Some(json!(now + 60))),
        ("nbf", Some(json!(now - 3_700))),
        ("exp", None),
        ("exp", Some(json!(now + 3_700))),
        ("jti", None),
        ("sub", Some(json!("signer"))),
        ("request_uri", Some(json!("urn:x"))),
    ];
    for (number, (name, value)) in cases.into_iter().enumerate() {
        let mut claims = claims(&rp, &number.to_string());
        match &value {
            Some(value) => claims[name] = value.clone(),
            None => drop(claims.as_object_mut().unwrap().shift_remove(name)),
        }
        let url = url(&rp, &rp.key.sign(&header(), &claims));
        assert_eq!(status(&mut rp, &url).await, 400, "{name} {value:?}");
        assert_eq!(rp.broken_rules(), [RequestRule::RequestObjectInvalid], "{name} {value:?}");
        rp.op.forgive();
    }
    let good = claims(&rp, "good");
    for object in [
        Key::generate().sign(&header(), &good),
        rp.key.sign(&json!({ "alg": "ES256" }), &good),
        rp.key.sign(&json!({ "alg": "ES256", "typ": "JWT" }), &good),
        rp.key.sign(&json!({ "alg": "none", "typ": "oauth-authz-req+jwt" }), &good),
        rp.key.sign(&json!({ "alg": "HS256", "typ": "oauth-authz-req+jwt" }), &good),
        "junk".to_owned(),
    ] {
        let url = url(&rp, &object);
        assert_eq!(status(&mut rp, &url).await, 400, "{object}");
        assert_eq!(rp.broken_rules(), [RequestRule::RequestObjectInvalid], "{object}");
        rp.op.forgive();
    }
}

#[tokio::test]
async fn an_expired_request_object_is_refused_without_a_violation() {
    let mut rp = signer();
    let url = url(&rp, &rp.key.sign(&header(), &claims(&rp, "1")));
    rp.clock.advance(std::time::Duration::from_secs(301));
    assert_eq!(status(&mut rp, &url).await, 400);
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_repeated_request_object_or_one_with_other_parameters_is_a_violation() {
    let mut rp = signer();
    let object = rp.key.sign(&header(), &claims(&rp, "1"));
    let beside = format!("{}&scope=openid", url(&rp, &object));
    assert!(rp.op.visit(&beside).parameter("deferred_code").is_some(), "what stands beside it is not read");
    assert_eq!(rp.broken_rules(), [RequestRule::ParameterBesideRequest]);
    rp.op.forgive();
    assert_eq!(status(&mut rp, &beside).await, 400);
    assert_eq!(rp.broken_rules(), [RequestRule::RequestObjectReplayed]);
}

#[tokio::test]
async fn an_unsigned_request_of_a_client_that_must_sign_is_refused() {
    let rp = signer();
    let back = rp.op.visit(rp.authorization_url(&LOCAL));
    assert_eq!(back.parameter("error"), Some("invalid_request"));
    assert_eq!(rp.broken_rules(), [RequestRule::NotSigned]);
}

#[tokio::test]
async fn a_pushed_request_object_is_checked_when_it_is_pushed() {
    let mut rp = signer();
    // `post` is the client that does not sign.
    let push = async |rp: &mut Rp, object: &str| {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("client_id", "signer"), ("request", object)])
            .finish();
        let url = format!("{}/par", rp.op.issuer());
        let response = rp.send(Method::POST, &url, &[], body).await;
        (response.status.as_u16(), serde_json::from_slice::<Value>(&response.body).unwrap())
    };
    let object = Key::generate().sign(&header(), &claims(&rp, "1"));
    let (status, response) = push(&mut rp, &object).await;
    assert_eq!((status, &response["error"]), (400, &json!("invalid_request_object")));
    rp.op.forgive();
    let object = rp.key.sign(&header(), &claims(&rp, "2"));
    let (status, response) = push(&mut rp, &object).await;
    assert_eq!(status, 201, "{response}");
    let mut url = Url::parse(&format!("{}/authorize", rp.op.issuer())).unwrap();
    let request_uri = response["request_uri"].as_str().unwrap();
    url.query_pairs_mut().extend_pairs([("client_id", "signer"), ("request_uri", request_uri)]);
    assert!(rp.op.visit(url).parameter("deferred_code").is_some());
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_requested_response_jwt_is_signed_by_the_published_key() {
    let mut rp = rp(|op| op);
    for mode in ["query.jwt", "form_post.jwt", "jwt"] {
        let back = rp.op.visit(rp.authorization_url(&[("response_mode", mode)]));
        assert_eq!(back.parameters().len(), 1, "{mode}");
        let claims = rp.verified(&json!(back.parameter("response").unwrap())).await;
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(rp.op.issuer()), &json!("app")));
        assert_eq!((&claims["state"], claims["deferred_code"].is_string()), (&json!("the-state"), true));
        assert_eq!(claims["exp"], rp.now() + 600);
    }
    // The short form means the fragment if the response type has several values.
    let either = [("response_mode", "jwt"), ("response_type", "deferred_code code")];
    let back = rp.op.visit(rp.authorization_url(&either));
    assert_eq!(rp.verified(&json!(back.parameter("response").unwrap())).await["error"], "invalid_request");
    rp.op.forgive();

    rp.op.misbehave(Fault::jwt_response(IdTokenForgery::raw("spoilt")));
    let back = rp.op.visit(rp.authorization_url(&[("response_mode", "query.jwt")]));
    assert_eq!(back.parameters(), [("response".to_owned(), "spoilt".to_owned())]);
    assert_eq!(rp.op.faults_left(), 0);
}

#[tokio::test]
async fn under_the_fapi_profile_the_metadata_lists_only_what_it_permits() {
    let mut rp = rp(|op| op.fapi2());
    let url = format!("{}/.well-known/openid-configuration", rp.op.issuer());
    let metadata = rp.send(Method::GET, &url, &[], String::new()).await;
    let metadata: Value = serde_json::from_slice(&metadata.body).unwrap();
    for (name, listed) in metadata.as_object().unwrap() {
        let Some(listed) = listed.as_array().filter(|_| name.contains("signing_alg")) else { continue };
        assert!(listed.iter().all(|alg| ["PS256", "ES256", "EdDSA"].iter().any(|good| alg == good)), "{name}");
    }
    assert_eq!(metadata["token_endpoint_auth_methods_supported"], json!(["private_key_jwt"]));
    assert_eq!(metadata["require_pushed_authorization_requests"], true);
}
