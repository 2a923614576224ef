//! Against an OP made of a map from URLs to responses, on a clock that the test moves.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::error::{ConfigurationProblem, ErrorKind, TransportProblem};
use crate::jose::{KeySet, SigningAlgorithm, test_keys};
use crate::random::SystemRandom;
use crate::transport::{HttpClient, HttpError, HttpRequest};

mod fetches;
mod left_out_keys;

const METADATA: &str = "https://op.example/.well-known/openid-configuration";
const KEYS: &str = "https://op.example/keys";
const PERMITS: usize = 100;

#[derive(Debug, Default)]
struct ManualClock(Mutex<Duration>);

impl ManualClock {
    fn advance(&self, seconds: u64) {
        self.advance_by(Duration::from_secs(seconds));
    }

    fn advance_by(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[derive(Debug)]
struct Site {
    pages: Mutex<BTreeMap<String, (u16, HeaderMap, Bytes)>>,
    visits: Mutex<Vec<String>>,
    /// A request is answered as soon as it gets a permit.
    permits: Semaphore,
}

impl HttpClient for Site {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            self.visits.lock().unwrap().push(request.url.to_string());
            let _permit = self.permits.acquire().await.unwrap();
            let (status, headers, body) = match self.pages.lock().unwrap().get(request.url.as_str()) {
                None => return Err(HttpError::not_sent(TransportProblem::Connect)),
                Some(page) => page.clone(),
            };
            Ok(HttpResponse { status: StatusCode::from_u16(status).unwrap(), headers, body })
        })
    }
}

struct Op {
    site: Arc<Site>,
    clock: Arc<ManualClock>,
    provider: Provider,
}

impl Op {
    fn new(issuer: &str) -> Self {
        let site =
            Arc::new(Site { pages: Mutex::default(), visits: Mutex::default(), permits: Semaphore::new(PERMITS) });
        let clock = Arc::new(ManualClock::default());
        let endpoints = Arc::new(Endpoints::new(site.clone(), clock.clone(), Arc::new(SystemRandom)));
        let (urls, clients_clock) = (UrlPolicy::default(), clock.clone());
        let issuer = Issuer::new(issuer, urls).unwrap();
        Self { provider: Provider::new(issuer, endpoints, urls, clients_clock), site, clock }
    }

    /// An OP that works.
    fn working() -> Self {
        let op = Self::new("https://op.example");
        op.serve(METADATA, &metadata());
        op.serve_keys(&["k1"]);
        op
    }

    fn page(&self, url: &str, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let page = (status, headers.collect(), Bytes::copy_from_slice(body.as_bytes()));
        self.site.pages.lock().unwrap().insert(url.to_owned(), page);
    }

    fn serve(&self, url: &str, document: &Value) {
        self.page(url, 200, &[("content-type", "application/json")], &document.to_string());
    }

    fn serve_keys(&self, kids: &[&str]) {
        self.serve(KEYS, &key_set(kids));
    }

    fn gone(&self, url: &str) {
        self.site.pages.lock().unwrap().remove(url);
    }

    /// Lets the fetches that nobody waits for come to their ends.
    async fn settle(&self) {
        self.provider.metadata.landed().await;
        self.provider.keys.landed().await;
    }

    fn visits(&self, url: &str) -> usize {
        self.site.visits.lock().unwrap().iter().filter(|visited| *visited == url).count()
    }

    /// Holds back every answer until [`open`](Self::open).
    fn close(&self) {
        assert_eq!(self.site.permits.forget_permits(PERMITS), PERMITS);
    }

    fn open(&self) {
        self.site.permits.add_permits(PERMITS);
    }

    /// Verifies a JWT that only the key with this `kid` verifies.
    async fn verify(&self, kid: &str, channel: Channel) -> Result<Result<(), Rule>, Error> {
        self.verify_received(kid, channel, self.clock.now()).await
    }

    async fn verify_received(
        &self,
        kid: &str,
        channel: Channel,
        received_at: SystemTime,
    ) -> Result<Result<(), Rule>, Error> {
        let jwt = SignedJwt {
            algorithm: SigningAlgorithm::Es256,
            secret: None,
            received_at,
            channel,
            patience: Duration::ZERO,
        };
        let verified = self.provider.verify(&jwt, |keys| match has(keys, kid) {
            true => Ok(()),
            false => Err(Violation::new(Rule::IdTokenSignature)),
        });
        Ok(verified.await?.map_err(|violation| violation.rule()))
    }
}

fn metadata() -> Value {
    json!({
        "issuer": "https://op.example",
        "authorization_endpoint": "https://op.example/authorize",
        "token_endpoint": "https://op.example/token",
        "jwks_uri": KEYS,
        "response_types_supported": ["code", "code deferred_code", "deferred_code"],
        "grant_types_supported": ["authorization_code", "urn:openid:params:grant-type:deferred"],
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut metadata = metadata();
    metadata[member] = value;
    metadata
}

fn key_set(kids: &[&str]) -> Value {
    let key = |kid: &&str| {
        let mut key = test_keys::public_jwk(SigningAlgorithm::Es256);
        key.insert("kid".to_owned(), (*kid).into());
        key
    };
    json!({ "keys": kids.iter().map(key).collect::<Vec<_>>() })
}

fn has(keys: &KeySet, kid: &str) -> bool {
    keys.has(Some(kid), SigningAlgorithm::Es256)
}

async fn broken_rule(document: &Value) -> (Rule, Option<&'static str>) {
    let op = Op::working();
    op.serve(METADATA, document);
    match op.provider.metadata().await.unwrap_err().kind() {
        ErrorKind::Protocol(violation) => {
            assert_eq!(violation.document(), Some(Document::Metadata));
            (violation.rule(), violation.member())
        }
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn metadata_is_found_in_the_suffix_form_first() {
    let op = Op::working();
    let metadata = op.provider.metadata().await.unwrap();
    assert_eq!(metadata.issuer(), "https://op.example");
    assert_eq!(metadata.token_endpoint().as_str(), "https://op.example/token");
    assert_eq!(*op.site.visits.lock().unwrap(), [METADATA]);
}

#[tokio::test]
async fn an_issuer_with_a_path_is_found_in_either_infix_form() {
    for place in ["oauth-authorization-server", "openid-configuration"] {
        let op = Op::new("https://op.example/t1");
        for url in op.provider.source.issuer.metadata_urls() {
            op.page(url.as_str(), 404, &[], "");
        }
        op.serve(
            &format!("https://op.example/.well-known/{place}/t1"),
            &with("issuer", json!("https://op.example/t1")),
        );
        assert_eq!(op.provider.metadata().await.unwrap().issuer(), "https://op.example/t1");
    }
}

#[tokio::test]
async fn an_answer_without_the_document_leads_to_the_other_forms() {
    for status in [400, 401, 403, 404, 405, 410] {
        let op = Op::new("https://op.example/t1");
        op.page("https://op.example/t1/.well-known/openid-configuration", status, &[], "");
        let document = with("issuer", json!("https://op.example/t1"));
        op.serve("https://op.example/.well-known/oauth-authorization-server/t1", &document);
        assert_eq!(op.provider.metadata().await.unwrap().issuer(), "https://op.example/t1", "{status}");
    }
}

#[tokio::test]
async fn a_server_error_does_not_lead_to_the_other_forms() {
    for status in [408, 429, 500, 503] {
        let op = Op::new("https://op.example/t1");
        op.page("https://op.example/t1/.well-known/openid-configuration", status, &[], "");
        op.provider.metadata().await.unwrap_err();
        assert_eq!(op.site.visits.lock().unwrap().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn another_issuer_is_an_error_and_nothing_further_is_called() {
    for issuer in ["https://evil.example", "https://op.example/", "https://OP.example"] {
        let op = Op::working();
        op.serve(METADATA, &with("issuer", json!(issuer)));
        assert_eq!(op.provider.keys().await.unwrap_err().rule(), Some(Rule::IssuerMismatch));
        assert_eq!(*op.site.visits.lock().unwrap(), [METADATA]);
    }
}

#[tokio::test]
async fn malformed_metadata_is_named_with_the_position_of_the_error() {
    let html = ("content-type", "text/html");
    let json = ("content-type", "application/json; charset=utf-8");
    for (status, content_type, body, rule, position) in [
        (302, html, "", Rule::UnexpectedRedirect, None),
        (500, html, "<html>", Rule::UnexpectedStatus, None),
        (200, html, "<html>", Rule::UnexpectedContentType, None),
        (200, json, "[]", Rule::MalformedJson, Some((1, 0))),
        (200, json, "{\n\"issuer\": x}", Rule::MalformedJson, Some((2, 11))),
        (200, json, r#"{"issuer":"https://op.example","issuer":"https://evil.example"}"#, Rule::RepeatedMember, None),
    ] {
        let op = Op::working();
        op.page(METADATA, status, &[content_type], body);
        op.page("https://op.example/.well-known/oauth-authorization-server", 404, &[], "");
        let error = op.provider.metadata().await.unwrap_err();
        let ErrorKind::Protocol(violation) = error.kind() else { unreachable!("{error:?}") };
        assert_eq!(
            (violation.rule(), violation.position().map(|at| (at.line, at.column))),
            (rule, position),
            "{violation}"
        );
        assert_eq!(violation.document(), Some(Document::Metadata));
    }
}

#[tokio::test]
async fn an_endpoint_that_every_client_needs_is_refused_if_it_is_not_https() {
    let member = "token_endpoint";
    for url in ["http://op.example/x", "http://127.0.0.1/x", "ftp://op.example/x", "https://user@op.example/x"] {
        let (rule, at) = broken_rule(&with(member, json!(url))).await;
        assert_eq!((rule, at), (Rule::InsecureEndpoint, Some(member)), "{url}");
    }
}

#[tokio::test]
async fn a_required_member_must_be_present_and_of_its_type() {
    for member in ["issuer", "token_endpoint"] {
        let mut document = metadata();
        document.as_object_mut().unwrap().remove(member);
        assert_eq!(broken_rule(&document).await, (Rule::MissingMember, Some(member)));
        assert_eq!(broken_rule(&with(member, json!(7))).await, (Rule::InvalidMember, Some(member)));
    }
    for (member, value) in [
        ("token_endpoint", json!("token")),
        ("token_endpoint", json!("https://op.example/token#fragment")),
        ("authorization_response_iss_parameter_supported", json!("perhaps")),
    ] {
        assert_eq!(broken_rule(&with(member, value)).await, (Rule::InvalidMember, Some(member)));
    }
}

#[tokio::test]
async fn an_optional_member_may_have_a_wrong_type() {
    let op = Op::working();
    let mut document = with("scopes_supported", json!("openid"));
    document["acr_values_supported"] = json!(["a", 7, "b"]);
    document["response_modes_supported"] = json!({});
    document["mtls_endpoint_aliases"] = json!([]);
    document["userinfo_endpoint"] = Value::Null;
    for (member, odd) in [
        ("revocation_endpoint", json!("")),
        ("introspection_endpoint", json!("/introspect")),
        ("registration_endpoint", json!(7)),
        ("end_session_endpoint", json!("http://op.example/logout")),
        ("tls_client_certificate_bound_access_tokens", json!("yes")),
        ("request_parameter_supported", json!({})),
    ] {
        document[member] = odd;
    }
    document["x_op_example"] = json!({"a": 1});
    op.serve(METADATA, &document);
    let metadata = op.provider.metadata().await.unwrap();
    assert_eq!(metadata.scopes_supported(), [""; 0]);
    assert_eq!(metadata.acr_values_supported(), ["a", "b"]);
    assert_eq!(metadata.response_modes_supported(), ["query", "fragment"]);
    assert!(metadata.mtls_endpoint_aliases().is_empty());
    assert_eq!(metadata.userinfo_endpoint(), None);
    assert_eq!((metadata.revocation_endpoint(), metadata.end_session_endpoint()), (None, None));
    assert_eq!(metadata.request_parameter_supported(), None);
    let endpoints = metadata.endpoints();
    let member = |endpoint: Result<&Url, Error>| match endpoint.unwrap_err().kind() {
        ErrorKind::Protocol(violation) => (violation.rule(), violation.member()),
        other => unreachable!("{other:?}"),
    };
    assert_eq!(member(endpoints.revocation()), (Rule::InvalidMember, Some("revocation_endpoint")));
    assert_eq!(member(endpoints.introspection()), (Rule::InvalidMember, Some("introspection_endpoint")));
    assert_eq!(member(endpoints.registration()), (Rule::InvalidMember, Some("registration_endpoint")));
    assert_eq!(metadata.extra("x_op_example"), Some(&json!({"a": 1})));
}

#[tokio::test]
async fn a_feature_that_is_not_advertised_is_a_configuration_problem() {
    const GRANT: &str = "urn:openid:params:grant-type:deferred";
    let check = async |response_types: Value, grants: Value, response_type, strict| {
        let op = Op::working();
        let mut document = with("response_types_supported", response_types);
        document["grant_types_supported"] = grants;
        op.serve(METADATA, &document);
        let metadata = op.provider.metadata().await.unwrap();
        if strict {
            check_response_type(&metadata, response_type)?;
        }
        check_support(&metadata, response_type, &[GRANT])
    };
    let missing = |member, value: &str| Err(ConfigurationProblem::NotAdvertised { member, value: value.to_owned() });
    let (listed, grants) = (json!(["code  deferred_code"]), json!([GRANT]));
    assert_eq!(check(listed.clone(), grants.clone(), "deferred_code code", true).await, Ok(()));
    assert_eq!(check(listed.clone(), grants.clone(), "deferred_code", false).await, Ok(()), "a warning");
    let member = "response_types_supported";
    assert_eq!(check(listed.clone(), grants.clone(), "deferred_code", true).await, missing(member, "deferred_code"));
    assert_eq!(check(json!(["code"]), grants, "deferred_code", false).await, missing(member, "deferred_code"));
    for grants in [json!(["authorization_code"]), Value::Null] {
        assert_eq!(
            check(listed.clone(), grants, "deferred_code", false).await,
            missing("grant_types_supported", GRANT)
        );
    }
}

#[tokio::test]
async fn old_metadata_is_fetched_again_and_endpoints_may_change() {
    let op = Op::working();
    op.provider.metadata().await.unwrap();
    op.serve(METADATA, &with("token_endpoint", json!("https://op.example/v2/token")));
    op.clock.advance(3_599);
    assert_eq!(op.provider.metadata().await.unwrap().token_endpoint().path(), "/token");
    op.clock.advance(1);
    assert_eq!(op.provider.metadata().await.unwrap().token_endpoint().path(), "/token", "nobody waits");
    op.settle().await;
    assert_eq!(op.provider.metadata().await.unwrap().token_endpoint().path(), "/v2/token");
    assert_eq!(op.visits(METADATA), 2);
}

#[tokio::test]
async fn old_metadata_is_kept_if_the_new_one_is_unavailable_or_has_another_issuer() {
    let op = Op::working();
    op.provider.metadata().await.unwrap();
    op.clock.advance(100 * 24 * 60 * 60);
    op.gone(METADATA);
    assert_eq!(op.provider.metadata().await.unwrap().issuer(), "https://op.example");
    op.settle().await;
    op.clock.advance(60);
    op.serve(METADATA, &with("issuer", json!("https://evil.example")));
    for _ in 0..2 {
        assert_eq!(op.provider.metadata().await.unwrap().issuer(), "https://op.example");
        op.settle().await;
    }
    assert_eq!(op.visits(METADATA), 3);
}

#[tokio::test]
async fn a_failure_is_cached_for_a_second_and_longer_after_repeated_failures() {
    let op = Op::new("https://op.example");
    let unreachable = ErrorKind::Transport(TransportProblem::Connect);
    for pause in [1, 2, 4, 4] {
        let asked = op.visits(METADATA);
        let error = op.provider.metadata().await.unwrap_err();
        assert_eq!(*error.kind(), unreachable);
        assert_eq!(op.visits(METADATA), asked + 1);
        let wait = error.retry_after().unwrap();
        let longest = Duration::from_secs(pause);
        assert!(wait <= longest && wait >= longest * 3 / 4, "{wait:?}");
        op.clock.advance_by(wait - Duration::from_millis(1));
        let again = op.provider.metadata().await.unwrap_err();
        assert_eq!((again.kind(), again.retry_after()), (&unreachable, Some(Duration::from_millis(1))));
        op.clock.advance_by(Duration::from_millis(1));
        assert_eq!(op.visits(METADATA), asked + 1);
    }
    op.serve(METADATA, &metadata());
    op.provider.metadata().await.unwrap();
    assert_eq!(op.visits(METADATA), 5);
}

#[tokio::test]
async fn an_unusable_alias_is_an_error_only_if_it_would_be_called() {
    let op = Op::working();
    let aliases = json!({"token_endpoint": "/token", "userinfo_endpoint": null, "revocation_endpoint": "https://mtls.op.example/r"});
    op.serve(METADATA, &with("mtls_endpoint_aliases", aliases));
    let metadata = op.provider.metadata().await.unwrap();
    assert!(metadata.endpoints().token().is_ok());
    let error = metadata.mtls_endpoints().token().unwrap_err();
    let ErrorKind::Protocol(violation) = error.kind() else { unreachable!("{error:?}") };
    assert_eq!(violation.member(), Some("mtls_endpoint_aliases.token_endpoint"));
    assert_eq!(metadata.mtls_endpoints().revocation().unwrap().host_str(), Some("mtls.op.example"));
}

#[tokio::test]
async fn metadata_is_fetched_again_if_its_jwks_uri_has_no_keys() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    op.page(KEYS, 404, &[], "");
    op.serve("https://op.example/v2/keys", &key_set(&["k2"]));
    op.serve(METADATA, &with("jwks_uri", json!("https://op.example/v2/keys")));
    op.clock.advance(60);
    op.verify("k2", Channel::Back).await.unwrap_err();
    op.clock.advance(61);
    assert!(has(&op.provider.keys().await.unwrap(), "k2"));
}

#[tokio::test]
async fn keys_are_fetched_from_the_current_jwks_uri() {
    let op = Op::working();
    assert!(has(&op.provider.keys().await.unwrap(), "k1"));
    assert_eq!(op.visits(KEYS), 1);
    op.provider.keys().await.unwrap();
    assert_eq!(op.visits(KEYS), 1, "they are kept");

    op.serve("https://op.example/v2/keys", &key_set(&["k2"]));
    op.page(KEYS, 200, &[("cache-control", "max-age=86400")], &key_set(&["k1"]).to_string());
    op.clock.advance(3_600);
    op.provider.keys().await.unwrap();
    op.serve(METADATA, &with("jwks_uri", json!("https://op.example/v2/keys")));
    op.clock.advance(3_600);
    op.provider.keys().await.unwrap();
    op.settle().await;
    assert!(has(&op.provider.keys().await.unwrap(), "k2"), "fresh keys of the old place do not count");
}

#[tokio::test]
async fn old_keys_are_used_for_a_day_if_they_cannot_be_fetched_again() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    op.gone(KEYS);
    op.clock.advance(24 * 60 * 60 - 1);
    assert!(has(&op.provider.keys().await.unwrap(), "k1"));
    op.clock.advance(31);
    let error = op.provider.keys().await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::KeysUnavailable));
    assert!(error.is_transient() && error.source().is_some());
    op.clock.advance(30);
    op.serve_keys(&["k1"]);
    op.provider.keys().await.unwrap();
}

#[tokio::test]
async fn a_malformed_key_set_is_unavailable_and_the_reason_is_in_the_source() {
    let op = Op::working();
    op.serve(KEYS, &json!({}));
    let error = op.provider.keys().await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::KeysUnavailable));
    assert_eq!(error.source().unwrap().downcast_ref::<Error>().unwrap().rule(), Some(Rule::MissingMember));
}

#[tokio::test]
async fn a_fetched_set_without_usable_keys_is_not_reported_as_unavailable() {
    for keys in [json!([]), json!(vec![json!({}); 101])] {
        let op = Op::working();
        op.serve(KEYS, &json!({ "keys": keys }));
        let error = op.provider.keys().await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::NoUsableKey));
        assert!(error.is_transient() && error.retry_after().is_some());
    }
}

#[tokio::test]
async fn a_missing_key_causes_a_fetch_at_once() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    op.serve_keys(&["k1", "k2"]);
    op.clock.advance(1);
    assert_eq!(op.verify("k2", Channel::Back).await.unwrap(), Ok(()));
    assert_eq!(op.verify("k1", Channel::Back).await.unwrap(), Ok(()));
    assert_eq!(op.visits(KEYS), 2);
}

#[tokio::test]
async fn a_token_is_refused_only_with_keys_fetched_after_its_receipt() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    op.clock.advance(1);
    assert_eq!(op.verify("k2", Channel::Back).await.unwrap(), Err(Rule::IdTokenSignature));
    assert_eq!(op.visits(KEYS), 2);
    // A token that comes a moment later is not judged by them, nor are the keys fetched again so soon.
    op.clock.advance_by(Duration::from_millis(100));
    let error = op.verify("k2", Channel::Back).await.unwrap_err();
    assert_eq!((error.rule(), error.retry_after()), (Some(Rule::KeysOutdated), Some(Duration::from_millis(900))));
    assert!(error.is_transient() && error.source().is_some());
    op.clock.advance_by(Duration::from_millis(900));
    op.serve_keys(&["k2"]);
    assert_eq!(op.verify("k2", Channel::Back).await.unwrap(), Ok(()));
    assert_eq!(op.visits(KEYS), 3);
}

#[tokio::test]
async fn an_old_token_is_verified_with_keys_fetched_minutes_after_its_receipt() {
    let op = Op::working();
    op.clock.advance(10_000);
    op.provider.keys().await.unwrap();
    let fetched_at = op.clock.now();
    op.clock.advance(1);
    let minutes = |minutes: u64| fetched_at - Duration::from_secs(minutes * 60);
    // The clock of the machine that received it may be wrong by as much.
    assert_eq!(op.verify_received("k2", Channel::Back, minutes(5)).await.unwrap(), Err(Rule::IdTokenSignature));
    assert_eq!(op.visits(KEYS), 1);
    assert_eq!(op.verify_received("k2", Channel::Back, minutes(4)).await.unwrap(), Err(Rule::IdTokenSignature));
    assert_eq!(op.visits(KEYS), 2, "keys that are only a little newer are fetched again");
}

#[tokio::test]
async fn many_tokens_with_unknown_keys_cause_nine_fetches_a_minute_and_none_is_refused_with_older_keys() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    let mut judged = 0;
    for _ in 0..6_000 {
        op.clock.advance_by(Duration::from_millis(100));
        let fetched = op.visits(KEYS);
        match op.verify("u", Channel::Front).await {
            Ok(verified) => {
                assert_eq!((verified, op.visits(KEYS)), (Err(Rule::IdTokenSignature), fetched + 1));
                judged += 1;
            }
            Err(error) => assert_eq!((error.rule(), op.visits(KEYS)), (Some(Rule::KeysOutdated), fetched)),
        }
    }
    assert!((80..=90).contains(&judged), "{judged} fetches in ten minutes");
    assert_eq!(op.verify("k1", Channel::Front).await.unwrap(), Ok(()), "known keys are not affected");
}

#[tokio::test]
async fn key_fetches_for_browser_responses_do_not_delay_fetches_for_op_responses() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    for _ in 0..100 {
        op.clock.advance(1);
        let _ = op.verify("u", Channel::Front).await;
    }
    op.clock.advance(1);
    assert!(op.verify("u", Channel::Front).await.is_err(), "it is too early for one more");
    op.serve_keys(&["k2"]);
    assert_eq!(op.verify("k2", Channel::Back).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_fetch_begun_before_a_token_was_received_does_not_refuse_it() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    op.close();
    let later = async {
        while op.visits(KEYS) < 2 {
            tokio::task::yield_now().await;
        }
        let opened = async { op.open() };
        tokio::join!(biased; op.verify("u", Channel::Back), op.verify("k1", Channel::Back), opened)
    };
    let (a, (b, c, ())) = tokio::join!(biased; op.verify("u", Channel::Back), later);
    assert_eq!((a.unwrap(), c.unwrap()), (Err(Rule::IdTokenSignature), Ok(())));
    assert_eq!(b.unwrap_err().rule(), Some(Rule::KeysOutdated), "it came after that fetch had begun");
    assert_eq!(op.visits(KEYS), 2);
}

#[tokio::test]
async fn unavailable_keys_refuse_no_token_and_are_fetched_again_within_seconds() {
    let op = Op::working();
    op.provider.keys().await.unwrap();
    op.gone(KEYS);
    for _ in 0..20 {
        op.clock.advance(4);
        let error = op.verify("k2", Channel::Back).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::KeysUnavailable));
        assert!(error.retry_after().unwrap() <= Duration::from_secs(4));
    }
    assert_eq!(op.visits(KEYS), 21);
    assert_eq!(op.verify("k1", Channel::Back).await.unwrap(), Ok(()));
    op.serve_keys(&["k2"]);
    op.clock.advance(4);
    assert_eq!(op.verify("k2", Channel::Back).await.unwrap(), Ok(()), "the outage left no other pause behind");
}

#[tokio::test]
async fn the_age_header_counts_for_cached_keys() {
    let op = Op::working();
    op.clock.advance(10_000);
    let aged = |age: &str| {
        let headers = [("content-type", "application/json"), ("age", age)];
        op.page(KEYS, 200, &headers, &key_set(&["k1"]).to_string());
    };
    aged("3600");
    let error = op.verify("u", Channel::Back).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::KeysOutdated));
    assert_eq!(op.visits(KEYS), 2, "it was tried once more");
    aged("junk");
    op.clock.advance(1);
    assert_eq!(op.verify("u", Channel::Back).await.unwrap(), Err(Rule::IdTokenSignature));
}

#[tokio::test]
async fn documents_can_be_requested_on_any_thread() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let op = Op::working();
    assert!(assert_send(op.verify("k1", Channel::Back)).await.is_ok());
    assert!(assert_send(op.provider.keys()).await.is_ok());
}
