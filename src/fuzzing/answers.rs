//! Answers of the other endpoints, and the headers of all answers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value;
use url::Url;

use super::world::{
    ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, Site, World, answers, authentication_json, check_debug, check_error,
    check_time, dpop_key, keyring, run, sealed,
};
use crate::client::{Authentication, ClientAlgorithms};
use crate::clock::from_unix_seconds;
use crate::endpoint::{
    Answer, ClientAuthentication, ClientIdentity, EndpointRequest, Endpoints, Presentation, ResourceRequest,
    stated_error,
};
use crate::error::Document;
use crate::jose::SigningAlgorithm;
use crate::keyring::Purpose;
use crate::secret::Secret;

const DAY: Duration = Duration::from_secs(86_400);

/// Answers with their headers: `Retry-After`, `WWW-Authenticate`, `DPoP-Nonce`, `Date`. The first byte selects an
/// endpoint of the OP or a protected resource.
pub fn response_headers(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let world = World::new(Site::new(answers(rest)));
    let endpoints = Endpoints::new(world.site.clone(), world.clock.clone(), world.random.clone());
    let url = Url::parse("https://op.example/token").unwrap();
    // Twice, because the first answers leave a nonce and a clock offset.
    for _ in 0..2 {
        let before = world.site.requests();
        if choice & 1 == 0 {
            post(&endpoints, &url);
        } else {
            resource(&endpoints, &url);
        }
        assert!(world.site.requests() - before <= 3, "one challenge of each kind is answered");
    }
    check_proofs(&world);
}

fn post(endpoints: &Endpoints, url: &Url) {
    let client = ClientIdentity {
        client_id: CLIENT_ID.to_owned(),
        authentication: ClientAuthentication::client_secret_basic(CLIENT_SECRET),
        certificate: None,
    };
    let key = dpop_key();
    let request = EndpointRequest {
        url,
        document: Document::TokenResponse,
        form: vec![("grant_type", "x".into())],
        client: &client,
        assertion_audience: Some("https://op.example"),
        dpop: Some(&key),
        access_token: None,
        trace_parent: None,
        timeout: DAY,
        body_limit: 1 << 20,
    };
    match run(endpoints.post(request)) {
        Ok(answer) => {
            check_debug_of(&answer);
            let retry_after = match &answer {
                Answer::Success { retry_after, .. } | Answer::Unusable { retry_after, .. } => *retry_after,
                Answer::Error(error) => {
                    let code = error.response.code();
                    assert!(
                        !code.is_empty() && code.len() <= 64 && code.bytes().all(|byte| (0x20..0x7f).contains(&byte))
                    );
                    if let Some(description) = error.response.description() {
                        assert!(description.chars().count() <= 1_000 && !description.chars().any(char::is_control));
                    }
                    error.retry_after
                }
            };
            assert!(retry_after.is_none_or(|wait| wait <= DAY), "{retry_after:?}");
        }
        Err(failure) => check_error(&failure.error),
    }
}

fn resource(endpoints: &Endpoints, url: &Url) {
    let (key, token) = (dpop_key(), Secret::new(ACCESS_TOKEN));
    let request = ResourceRequest {
        method: Method::GET,
        url,
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
        access_token: &token,
        presentation: Presentation::Dpop(&key),
        document: Document::UserInfo,
        timeout: DAY,
        body_limit: 1 << 20,
    };
    let Ok(response) = run(endpoints.resource(request)) else { return };
    if let Some(error) = stated_error(response.status, &response.headers) {
        assert!(response.status.is_client_error());
        assert!(error.code().len() <= 64 && error.scope().is_none_or(|scope| (1..=1_000).contains(&scope.len())));
    }
}

/// The code of an error may appear in logs, whatever it is. Nothing else of an answer may.
fn check_debug_of(answer: &Answer) {
    if !matches!(answer, Answer::Error(_)) {
        check_debug(answer);
    }
}

/// Proofs carry only well-formed nonces that a server sent, and times within a day of ours.
fn check_proofs(world: &World) {
    for request in world.site.seen.lock().unwrap().iter() {
        let proof = request.headers["dpop"].to_str().unwrap();
        let claims = URL_SAFE_NO_PAD.decode(proof.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let issued_at = from_unix_seconds(claims["iat"].as_u64().unwrap());
        let apart = issued_at.duration_since(world.now()).unwrap_or_else(|behind| behind.duration());
        assert!(apart <= DAY + Duration::from_secs(1), "{apart:?}");
        if let Some(nonce) = claims.get("nonce") {
            let nonce = nonce.as_str().unwrap();
            let well_formed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
            assert!((1..=4_096).contains(&nonce.len()) && nonce.bytes().all(well_formed), "{nonce:?}");
        }
    }
}

/// The first byte selects the client's registration. The rest is the answer of the UserInfo endpoint.
pub fn userinfo(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let world = World::new(Site::new(answers(rest)));
    let mut builder = world.with_secret();
    let is_signed = choice & 1 != 0;
    if is_signed {
        builder = builder.algorithms(ClientAlgorithms::new().userinfo_signed_response_alg(SigningAlgorithm::Hs256));
    }
    for key in super::encrypted_token::decryption_keys().iter().take(if choice & 2 != 0 { 6 } else { 0 }) {
        builder = builder.decryption_key(key.clone());
    }
    let client = World::client(builder);
    let bytes = sealed(Purpose::Authentication, &[], authentication_json().to_string().as_bytes());
    let authentication = Authentication::open(&keyring(), &bytes).unwrap();
    match run(client.userinfo(&authentication)) {
        Ok(userinfo) => {
            assert_eq!(userinfo.subject(), "user-1");
            assert_eq!(userinfo.claim("sub").and_then(Value::as_str), Some("user-1"));
            assert!(world.site.last_status().is_some_and(|status| matches!(status.as_u16(), 200..=203)));
            let _ = format!("{userinfo:?}");
            if is_signed {
                // Only the genuine token is signed.
                assert_eq!(userinfo.claim("nonce").and_then(Value::as_str), Some(super::world::NONCE));
            }
        }
        Err(error) => check_error(&error),
    }
    assert!(world.site.requests() <= 3);
}

/// The input is the answer of the introspection endpoint.
pub fn introspection(input: &[u8]) {
    let world = World::new(Site::new(answers(input)));
    let client = World::client(world.with_secret());
    match run(client.introspect(&Secret::new(ACCESS_TOKEN), None)) {
        Ok(answer) => {
            assert!(answer.is_active() || answer.as_json().is_empty());
            for time in [answer.expires_at(), answer.issued_at(), answer.not_before()].into_iter().flatten() {
                check_time(time);
            }
            let _ = (answer.audience(), answer.confirmation(), answer.scope(), format!("{answer:?}"));
        }
        Err(error) => check_error(&error),
    }
    assert_eq!(world.site.requests(), 1);
}

/// The input is the answer of the pushed authorization request endpoint.
pub fn pushed_request(input: &[u8]) {
    let world = World::new(Site::new(answers(input)));
    let client = World::client(world.with_secret().pushed_authorization_requests());
    match run(client.authorize().start()) {
        Ok((url, session)) => {
            check_debug(&session);
            let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
            assert_eq!(names, ["client_id", "request_uri"], "nothing else goes through the browser");
            assert!(url.as_str().starts_with("https://op.example/authorize?") && url.as_str().len() <= 8_000);
            let expires_at = session.url_expires_at().unwrap();
            assert!(expires_at > world.now() && expires_at <= world.now() + Duration::from_secs(3_600));
            assert!(world.site.last_status().is_some_and(|status| matches!(status.as_u16(), 200..=203)));
        }
        Err(error) => check_error(&error),
    }
    assert!((1..=3).contains(&world.site.requests()));
}
