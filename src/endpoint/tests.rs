//! Against a scripted HTTP client: what is sent, how often, and how answers are read.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_core::future::BoxFuture;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::ErrorAnswer;
use super::*;
use crate::error::{ErrorKind, TransportProblem, Verdict};
use crate::jose::{Signer, SigningAlgorithm, SigningKey};
use crate::random::SystemRandom;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
const NOW: u64 = 784_111_777;

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[derive(Debug, Default)]
struct Script {
    responses: Mutex<VecDeque<Result<HttpResponse, HttpError>>>,
    requests: Mutex<Vec<HttpRequest>>,
}

impl HttpClient for Script {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        self.requests.lock().unwrap().push(request);
        let response = self.responses.lock().unwrap().pop_front().expect("one more request than was expected");
        Box::pin(std::future::ready(response))
    }
}

struct Op {
    script: Arc<Script>,
    endpoints: Endpoints,
    url: Url,
    key: DpopKey,
    client: ClientIdentity,
}

impl Op {
    fn answering(responses: impl IntoIterator<Item = Result<HttpResponse, HttpError>>) -> Self {
        let script = Arc::new(Script { responses: Mutex::new(responses.into_iter().collect()), ..Script::default() });
        Self {
            endpoints: Endpoints::new(script.clone(), Arc::new(StoppedClock), Arc::new(SystemRandom)),
            script,
            url: Url::parse("https://op.example/token").unwrap(),
            key: DpopKey::generate(SigningAlgorithm::Es256).unwrap(),
            client: client(ClientAuthentication::none()),
        }
    }

    fn then(&self, responses: impl IntoIterator<Item = Result<HttpResponse, HttpError>>) {
        self.script.responses.lock().unwrap().extend(responses);
    }

    fn authenticating(self, authentication: ClientAuthentication) -> Self {
        Self { client: client(authentication), ..self }
    }

    fn request(&self) -> EndpointRequest<'_> {
        EndpointRequest {
            url: &self.url,
            document: Document::TokenResponse,
            form: vec![("grant_type", "urn:x".into()), ("deferred_auth_id", "a b&c".into())],
            client: &self.client,
            assertion_audience: Some("https://op.example"),
            dpop: Some(&self.key),
            access_token: None,
            trace_parent: None,
            timeout: Duration::from_secs(90),
            body_limit: 1_000_000,
        }
    }

    async fn post(&self) -> Answer {
        self.endpoints.post(self.request()).await.unwrap()
    }

    async fn call(&self, token: &Secret) -> HttpResponse {
        let url = Url::parse("https://op.example/userinfo").unwrap();
        let request = ResourceRequest {
            method: Method::GET,
            url: &url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            access_token: token,
            presentation: Presentation::Dpop(&self.key),
            document: Document::UserInfo,
            timeout: Duration::from_secs(10),
            body_limit: 1_000,
        };
        self.endpoints.resource(request).await.unwrap()
    }

    fn sent(&self) -> usize {
        self.script.requests.lock().unwrap().len()
    }

    fn header(&self, index: usize, name: &str) -> Option<String> {
        let requests = self.script.requests.lock().unwrap();
        requests[index].headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    fn form(&self, index: usize) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.script.requests.lock().unwrap()[index].body).into_owned().collect()
    }

    fn form_value(&self, index: usize, name: &str) -> Option<String> {
        self.form(index).into_iter().find(|(present, _)| present == name).map(|(_, value)| value)
    }

    /// The claims of the proof in the request at `index`.
    fn proof(&self, index: usize) -> Value {
        claims(&self.header(index, "dpop").unwrap())
    }
}

fn client(authentication: ClientAuthentication) -> ClientIdentity {
    ClientIdentity { client_id: "my client:1".to_owned(), authentication, certificate: None }
}

fn claims(jwt: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Result<HttpResponse, HttpError> {
    let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    let (status, body) = (StatusCode::from_u16(status).unwrap(), Bytes::copy_from_slice(body.as_bytes()));
    Ok(HttpResponse { status, headers: headers.collect(), body })
}

const AS_JSON: (&str, &str) = ("content-type", "application/json");

fn success() -> Result<HttpResponse, HttpError> {
    answer(200, &[AS_JSON], "{}")
}

fn error(code: &str) -> Result<HttpResponse, HttpError> {
    answer(400, &[AS_JSON], &json!({ "error": code }).to_string())
}

fn challenge(nonce: &str) -> Result<HttpResponse, HttpError> {
    answer(400, &[AS_JSON, ("dpop-nonce", nonce)], r#"{"error":"use_dpop_nonce"}"#)
}

fn header_challenge(nonce: &str) -> Result<HttpResponse, HttpError> {
    answer(401, &[("www-authenticate", r#"DPoP error="use_dpop_nonce""#), ("dpop-nonce", nonce)], "")
}

fn unusable(answer: Answer) -> Violation {
    match answer {
        Answer::Unusable { violation, status, .. } => {
            assert_eq!(violation.status(), Some(status));
            assert_eq!(violation.document(), Some(Document::TokenResponse));
            violation
        }
        other => unreachable!("{other:?}"),
    }
}

fn stated(answer: Answer) -> ErrorAnswer {
    match answer {
        Answer::Error(answer) => answer,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_carries_its_form_a_proof_and_what_it_accepts() {
    let op = Op::answering([success()]);
    assert!(matches!(op.post().await, Answer::Success { body, .. } if *body == b"{}"));
    assert_eq!(op.header(0, "accept").as_deref(), Some("application/json"));
    assert_eq!(op.header(0, "content-type").as_deref(), Some("application/x-www-form-urlencoded"));
    assert_eq!(op.form_value(0, "deferred_auth_id").as_deref(), Some("a b&c"));
    assert_eq!(op.form_value(0, "client_id").as_deref(), Some("my client:1"));
    let proof = op.proof(0);
    assert_eq!((&proof["htm"], &proof["htu"]), (&json!("POST"), &json!("https://op.example/token")));
    assert_eq!(proof["iat"], json!(NOW));
    assert!(proof.get("nonce").is_none() && proof.get("ath").is_none());
    assert!(op.script.requests.lock().unwrap()[0].headers["dpop"].is_sensitive());
}

#[tokio::test]
async fn without_a_key_there_is_no_proof_and_a_challenge_is_the_answer() {
    let op = Op::answering([challenge("n1")]);
    let answer = op.endpoints.post(EndpointRequest { dpop: None, ..op.request() }).await.unwrap();
    assert_eq!(stated(answer).response.code(), "use_dpop_nonce");
    assert_eq!(op.header(0, "dpop"), None);
}

#[tokio::test]
async fn a_challenge_is_answered_once_with_the_new_nonce_a_new_jti_and_a_new_assertion() {
    for challenge in [challenge("n1"), header_challenge("n1")] {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let op = Op::answering([challenge, success()]).authenticating(ClientAuthentication::private_key_jwt(key));
        assert!(matches!(op.post().await, Answer::Success { .. }));
        assert_eq!(op.sent(), 2);
        assert_eq!(op.proof(0).get("nonce"), None);
        assert_eq!(op.proof(1)["nonce"], json!("n1"));
        assert_ne!(op.proof(0)["jti"], op.proof(1)["jti"]);
        let assertion = |index| claims(&op.form_value(index, "client_assertion").unwrap());
        assert_ne!(assertion(0)["jti"], assertion(1)["jti"]);
        assert_eq!(op.form_value(1, "deferred_auth_id"), op.form_value(0, "deferred_auth_id"));
    }
}

#[tokio::test]
async fn a_second_challenge_is_not_answered() {
    let op = Op::answering([challenge("n1"), challenge("n2")]);
    assert_eq!(unusable(op.post().await).rule(), Rule::SecondNonceChallenge);
    assert_eq!(op.sent(), 2);
    op.then([success()]);
    op.post().await;
    assert_eq!(op.proof(2)["nonce"], json!("n2"), "the nonce of the refusal is kept all the same");
}

#[tokio::test]
async fn a_challenge_without_a_usable_nonce_is_not_answered() {
    let long = "n".repeat(4_097);
    for nonce in [
        &[AS_JSON][..],
        &[AS_JSON, ("dpop-nonce", "a b")],
        &[AS_JSON, ("dpop-nonce", &long)],
        &[AS_JSON, ("dpop-nonce", "a"), ("dpop-nonce", "b")],
    ] {
        let op = Op::answering([answer(400, nonce, r#"{"error":"use_dpop_nonce"}"#)]);
        let answer = op.post().await;
        assert!(matches!(answer, Answer::Unusable { verdict: Verdict::NotProcessed, .. }), "{answer:?}");
        let violation = unusable(answer);
        assert_eq!((violation.rule(), violation.is_transient()), (Rule::NonceMissing, true));
        assert_eq!(op.sent(), 1);
    }
}

#[tokio::test]
async fn a_nonce_of_four_kilobytes_or_one_that_a_proxy_has_repeated_is_used() {
    let long = "n".repeat(4_096);
    for (headers, nonce) in [
        (&[AS_JSON, ("dpop-nonce", &long)][..], long.as_str()),
        (&[AS_JSON, ("dpop-nonce", "twice"), ("dpop-nonce", "twice")], "twice"),
    ] {
        let op = Op::answering([answer(400, headers, r#"{"error":"use_dpop_nonce"}"#), success()]);
        assert!(matches!(op.post().await, Answer::Success { .. }));
        assert_eq!(op.proof(1)["nonce"], json!(nonce));
    }
}

#[tokio::test]
async fn behind_a_gateway_no_request_is_repeated_whatever_code_it_writes() {
    let date = ("date", "Sun, 06 Nov 1994 09:49:37 GMT");
    for (status, code) in [(504, "use_dpop_nonce"), (502, "invalid_dpop_proof"), (503, "unauthorized_client")] {
        let headers = [AS_JSON, ("dpop-nonce", "n1"), date];
        let op = Op::answering([answer(status, &headers, &json!({ "error": code }).to_string())]);
        assert_eq!(stated(op.post().await).response.verdict(), Verdict::MayBeLost, "{status} {code}");
        assert_eq!(op.sent(), 1);
    }
}

#[tokio::test]
async fn nonces_are_taken_from_every_response() {
    let op = Op::answering([
        answer(200, &[AS_JSON, ("dpop-nonce", "from-success")], "{}"),
        answer(400, &[AS_JSON, ("dpop-nonce", "from-error")], r#"{"error":"authorization_pending"}"#),
        answer(502, &[("dpop-nonce", "from-trouble")], "<html>"),
        success(),
    ]);
    for _ in 0..4 {
        op.post().await;
    }
    let nonces: Vec<_> = (1..4).map(|index| op.proof(index)["nonce"].clone()).collect();
    assert_eq!(nonces, ["from-success", "from-error", "from-trouble"]);
}

#[tokio::test]
async fn nonces_of_authorization_and_resource_server_are_kept_apart() {
    let op = Op::answering([
        answer(200, &[AS_JSON, ("dpop-nonce", "as")], "{}"),
        header_challenge("rs"),
        answer(200, &[], ""),
        success(),
    ]);
    let token = Secret::from("token");
    op.post().await;
    assert_eq!(op.call(&token).await.status, StatusCode::OK);
    op.post().await;
    assert_eq!(op.proof(1).get("nonce"), None);
    assert_eq!(op.proof(2)["nonce"], json!("rs"));
    assert_eq!(op.proof(3)["nonce"], json!("as"));
}

#[tokio::test]
async fn a_resource_request_has_token_and_ath_and_a_second_challenge_is_returned() {
    let op = Op::answering([header_challenge("n1"), header_challenge("n2")]);
    assert_eq!(op.call(&Secret::from("token")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(op.sent(), 2);
    assert_eq!(op.header(1, "authorization").as_deref(), Some("DPoP token"));
    assert!(op.proof(1)["ath"].is_string());
    assert_ne!(op.proof(0)["jti"], op.proof(1)["jti"]);
}

#[tokio::test]
async fn a_bearer_token_goes_without_a_proof() {
    let op = Op::answering([header_challenge("n1")]);
    let headers = HeaderMap::from_iter([(DPOP, "of the caller".parse().unwrap())]);
    let request = ResourceRequest {
        method: Method::GET,
        url: &op.url,
        headers,
        body: Bytes::new(),
        access_token: &Secret::from("token"),
        presentation: Presentation::Bearer,
        document: Document::Resource,
        timeout: Duration::from_secs(10),
        body_limit: 1_000,
    };
    assert_eq!(op.endpoints.resource(request).await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(op.header(0, "authorization").as_deref(), Some("Bearer token"));
    assert_eq!(op.header(0, "dpop"), None);
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_refused_before_anything_is_sent() {
    let op = Op::answering([]);
    let token = Secret::from("to\nken");
    let request = EndpointRequest { access_token: Some(&token), ..op.request() };
    let failure = op.endpoints.post(request).await.unwrap_err();
    assert!(!failure.may_have_been_sent);
    assert!(!format!("{failure:?}").contains("ken\""));
}

#[tokio::test]
async fn an_access_token_is_in_the_header_and_the_body_authenticates_the_client() {
    let op = Op::answering([success()]).authenticating(ClientAuthentication::client_secret_post("s"));
    let token = Secret::from("token");
    op.endpoints.post(EndpointRequest { access_token: Some(&token), ..op.request() }).await.unwrap();
    assert_eq!(op.header(0, "authorization").as_deref(), Some("DPoP token"));
    assert!(op.proof(0)["ath"].is_string());
    assert_eq!(op.form_value(0, "client_secret").as_deref(), Some("s"));
}

#[tokio::test]
async fn a_proof_refused_for_its_time_is_repeated_once_with_the_ops_time() {
    let refused = |date| answer(400, &[AS_JSON, ("date", date)], r#"{"error":"invalid_dpop_proof"}"#);
    let op = Op::answering([refused("Sun, 06 Nov 1994 09:49:37 GMT"), success()]);
    assert!(matches!(op.post().await, Answer::Success { .. }));
    assert_eq!(op.proof(1)["iat"], json!(NOW + 3_600));

    let op = Op::answering([refused("Sun, 06 Nov 1994 08:49:40 GMT")]);
    assert_eq!(stated(op.post().await).response.code(), "invalid_dpop_proof");

    let op = Op::answering([refused("Sun, 06 Nov 1994 09:49:37 GMT"), refused("Sun, 06 Nov 1994 10:49:37 GMT")]);
    assert_eq!(stated(op.post().await).response.code(), "invalid_dpop_proof");
    assert_eq!(op.sent(), 2);

    let op = Op::answering([error("invalid_dpop_proof")]);
    assert_eq!(stated(op.post().await).response.code(), "invalid_dpop_proof");
}

#[tokio::test]
async fn a_nonce_challenge_and_a_wrong_clock_are_both_handled() {
    let date = ("date", "Sun, 06 Nov 1994 09:49:37 GMT");
    let op = Op::answering([
        challenge("n1"),
        answer(400, &[AS_JSON, date], r#"{"error":"invalid_dpop_proof"}"#),
        challenge("n2"),
    ]);
    assert_eq!(unusable(op.post().await).rule(), Rule::SecondNonceChallenge);
    assert_eq!(op.proof(2)["nonce"], json!("n1"));
    assert_eq!(op.proof(2)["iat"], json!(NOW + 3_600));
}

#[tokio::test]
async fn the_last_request_decides_whether_the_form_may_have_been_sent() {
    let not_sent = || Err(HttpError::not_sent(TransportProblem::Connect));
    let op = Op::answering([challenge("n1"), not_sent()]);
    assert!(!op.endpoints.post(op.request()).await.unwrap_err().may_have_been_sent);
    let op = Op::answering([challenge("n1"), Err(HttpError::maybe_sent(TransportProblem::Timeout))]);
    assert!(op.endpoints.post(op.request()).await.unwrap_err().may_have_been_sent);
}

#[tokio::test]
async fn an_unusable_answer_names_the_violated_rule() {
    let html = ("content-type", "text/html");
    for (response, rule, member) in [
        (answer(204, &[], ""), Rule::UnexpectedStatus, None),
        (answer(206, &[AS_JSON], "{}"), Rule::UnexpectedStatus, None),
        (answer(202, &[AS_JSON], ""), Rule::MalformedJson, None),
        (answer(302, &[("location", "/login")], ""), Rule::UnexpectedRedirect, None),
        (answer(307, &[AS_JSON], r#"{"error":"invalid_grant"}"#), Rule::UnexpectedRedirect, None),
        (answer(200, &[html], "<html>"), Rule::UnexpectedContentType, None),
        (answer(200, &[], ""), Rule::UnexpectedContentType, None),
        (answer(200, &[html], r#"{"access_token":"#), Rule::MalformedJson, None),
        (answer(200, &[AS_JSON], ""), Rule::MalformedJson, None),
        (answer(200, &[AS_JSON], "[null,null]"), Rule::MalformedJson, None),
        (answer(200, &[AS_JSON], r#"{"access_token":"#), Rule::MalformedJson, None),
        (answer(200, &[AS_JSON], r#"{"error":7,"access_token":"a"}"#), Rule::InvalidMember, Some("error")),
        (answer(200, &[AS_JSON], "\u{feff}\u{feff}{}"), Rule::MalformedJson, None),
        (answer(400, &[AS_JSON], r#"{"error":""}"#), Rule::MissingMember, Some("error")),
        (answer(400, &[AS_JSON], r#"{"error":"invalid_gr"#), Rule::MalformedJson, None),
        (
            answer(400, &[AS_JSON], r#"{"error":"slow_down","error":"access_denied"}"#),
            Rule::RepeatedMember,
            Some("error"),
        ),
        (answer(400, &[AS_JSON], r#"["access_denied",null]"#), Rule::MalformedJson, None),
        (answer(400, &[AS_JSON], r#"{"error":7}"#), Rule::InvalidMember, Some("error")),
        (answer(400, &[AS_JSON], r#"{"error":{"code":"access_denied"}}"#), Rule::InvalidMember, Some("error")),
        (answer(400, &[AS_JSON], r#"{"message":"no"}"#), Rule::MissingMember, Some("error")),
        (answer(400, &[], ""), Rule::UnexpectedStatus, None),
        (answer(404, &[html], "<html>"), Rule::UnexpectedStatus, None),
        (answer(502, &[html], "<html>"), Rule::UnexpectedStatus, None),
    ] {
        let violation = unusable(Op::answering([response]).post().await);
        assert_eq!((violation.rule(), violation.member()), (rule, member), "{violation}");
    }
}

#[tokio::test]
async fn a_complete_success_is_accepted_under_any_media_type() {
    for headers in [&[][..], &[("content-type", "text/plain")]] {
        let answered = Op::answering([answer(200, headers, r#" {"access_token":"a"}"#)]).post().await;
        assert!(matches!(answered, Answer::Success { .. }), "{answered:?}");
    }
}

#[tokio::test]
async fn a_complete_success_is_accepted_with_any_status_media_type_or_byte_order_mark() {
    for status in [200, 201, 202, 203] {
        for (before, error) in [
            ("", ""),
            ("\u{feff}", ""),
            (" ", r#","error":null"#),
            ("\u{feff}\r\n", r#","error":"""#),
            ("", r#","error":[]"#),
        ] {
            let tokens = format!(r#"{{"access_token":"a"{error}}}"#);
            let answered = Op::answering([answer(status, &[AS_JSON], &format!("{before}{tokens}"))]).post().await;
            let Answer::Success { body, .. } = answered else { panic!("{status} {before:?} {error}: {answered:?}") };
            // Later readers, in this release or an older one, must find JSON.
            let read: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(read["access_token"], "a");
        }
    }
}

#[tokio::test]
async fn a_terminal_error_beside_tokens_counts_and_any_other_error_is_a_contradiction() {
    for token in ["access_token", "id_token", "refresh_token", "deferred_auth_id"] {
        let with = |code: &str| answer(200, &[AS_JSON], &json!({ "error": code, token: "secret" }).to_string());
        for code in ["access_denied", "expired_token", "invalid_grant", "invalid_request"] {
            let ended = stated(Op::answering([with(code)]).post().await);
            assert_eq!(ended.response.code(), code);
            assert!(ended.tokens().is_some() && !format!("{ended:?}").contains("secret"));
        }
        for code in
            ["authorization_pending", "slow_down", "invalid_client", "use_dpop_nonce", "server_error", "warning"]
        {
            let op = Op::answering([with(code)]);
            let answered = op.post().await;
            assert!(matches!(answered, Answer::Unusable { verdict: Verdict::MayBeLost, .. }), "{code}: {answered:?}");
            assert_eq!(unusable(answered).rule(), Rule::ErrorResponseWithSuccessStatus);
            assert_eq!(op.sent(), 1);
        }
    }
    let empty = r#"{"error":"authorization_pending","access_token":null,"id_token":""}"#;
    let pending = stated(Op::answering([answer(200, &[AS_JSON], empty)]).post().await);
    assert!(pending.tokens().is_none(), "members without a value are no tokens");
}

#[tokio::test]
async fn the_body_of_a_revocation_is_not_read() {
    for (status, body) in [(200, r#"{"error":"invalid_request"}"#), (204, ""), (202, "<html>")] {
        let op = Op::answering([answer(status, &[], body)]);
        let request = EndpointRequest { document: Document::RevocationResponse, ..op.request() };
        assert!(matches!(op.endpoints.post(request).await, Ok(Answer::Success { .. })), "{status}");
    }
}

#[tokio::test]
async fn an_error_is_read_at_any_status_but_a_redirect() {
    for status in [200, 201, 202, 400, 401, 403, 404, 428, 429, 500, 503] {
        let response = answer(status, &[AS_JSON], r#"{"error":"access_denied","error_description":"no"}"#);
        let error = stated(Op::answering([response]).post().await);
        assert_eq!((error.response.code(), error.response.status()), ("access_denied", Some(status)));
        assert_eq!(error.response.description(), Some("no"));
    }
    let untyped = answer(400, &[("content-type", "text/plain")], r#" {"error":"access_denied"}"#);
    assert_eq!(stated(Op::answering([untyped]).post().await).response.code(), "access_denied");
    let in_header = answer(401, &[("www-authenticate", r#"DPoP error="invalid_token""#)], "");
    assert_eq!(stated(Op::answering([in_header]).post().await).response.code(), "invalid_token");
}

#[tokio::test]
async fn retry_after_is_read_from_every_kind_of_answer() {
    let after = ("retry-after", "120");
    let minutes = Some(Duration::from_secs(120));
    let op = Op::answering([
        answer(200, &[AS_JSON, after], "{}"),
        answer(400, &[AS_JSON, after], r#"{"error":"authorization_pending"}"#),
        answer(503, &[after], ""),
    ]);
    assert!(matches!(op.post().await, Answer::Success { retry_after, .. } if retry_after == minutes));
    assert_eq!(stated(op.post().await).retry_after, minutes);
    assert!(matches!(op.post().await, Answer::Unusable { retry_after, .. } if retry_after == minutes));
}

#[tokio::test]
async fn a_basic_secret_is_form_encoded_first() {
    let op = Op::answering([success()]).authenticating(ClientAuthentication::client_secret_basic("a:b%c+d e/ü"));
    op.post().await;
    let header = op.header(0, "authorization").unwrap();
    let decoded = STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
    assert_eq!(String::from_utf8(decoded).unwrap(), "my+client%3A1:a%3Ab%25c%2Bd+e%2F%C3%BC");
    assert!(op.script.requests.lock().unwrap()[0].headers["authorization"].is_sensitive());
    assert_eq!(op.form_value(0, "client_id"), None, "one way to authenticate in one request (RFC 6749 §2.3)");
    assert_eq!(op.form_value(0, "client_secret"), None);
}

#[tokio::test]
async fn a_client_assertion_names_the_issuer_alone_as_its_audience() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let op = Op::answering([success()]).authenticating(ClientAuthentication::private_key_jwt(key));
    op.post().await;
    assert_eq!(
        op.form_value(0, "client_assertion_type").as_deref(),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    let claims = claims(&op.form_value(0, "client_assertion").unwrap());
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("my client:1"), &json!("my client:1")));
    assert_eq!(claims["aud"], json!("https://op.example"));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW), &json!(NOW + 60)));
    assert_eq!(op.header(0, "authorization"), None);
}

#[tokio::test]
async fn each_request_has_a_jti_of_its_own() {
    let op = Op::answering((0..50).map(|_| success()));
    for _ in 0..50 {
        op.post().await;
    }
    let ids: BTreeSet<_> = (0..50).map(|index| op.proof(index)["jti"].to_string()).collect();
    assert_eq!(ids.len(), 50);
}

#[derive(Debug)]
struct SilentSigner;

impl Signer for SilentSigner {
    fn algorithm(&self) -> SigningAlgorithm {
        SigningAlgorithm::Es256
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    fn sign<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_signer_that_never_answers_ends_the_request_before_it_is_sent() {
    let op = Op::answering([]).authenticating(ClientAuthentication::private_key_jwt(SilentSigner));
    let failure = op.endpoints.post(op.request()).await.unwrap_err();
    assert!(!failure.may_have_been_sent && failure.error.is_transient());
    assert_eq!(*failure.error.kind(), ErrorKind::Signer);
}

#[tokio::test]
async fn neither_debug_output_nor_an_error_shows_a_secret() {
    let op = Op::answering([answer(200, &[AS_JSON], r#"{"access_token":"secret-at"}"#)])
        .authenticating(ClientAuthentication::client_secret_post("secret-cs"));
    let answer = op.post().await;
    let shown = format!("{answer:?} {:?} {:?} {:?}", op.client, op.endpoints, op.script.requests.lock().unwrap());
    assert!(!shown.contains("secret-"), "{shown}");
}

#[tokio::test]
async fn requests_can_be_made_on_any_thread() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let op = Op::answering([success()]);
    assert!(assert_send(op.endpoints.post(op.request())).await.is_ok());
}
