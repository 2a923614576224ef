//! The test provider, driven by a relying party written by hand: what it lets pass, what it refuses, what it notes.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use openid_deferred::testing::*;
use openid_deferred::{Clock, Document, HttpClient, HttpRequest, HttpResponse, TransportProblem};
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use openssl::sha::sha256;
use serde_json::{Value, json};
use url::Url;

const REDIRECT: &str = "https://rp.test/callback";
const DEFERRED: &str = "urn:openid:params:grant-type:deferred";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// A DPoP key by OpenSSL; the provider verifies with aws-lc.
struct Key(EcKey<Private>);

impl Key {
    fn generate() -> Self {
        Self(EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap())
    }

    fn jwk(&self) -> Value {
        let mut context = BigNumContext::new().unwrap();
        let (mut x, mut y) = (openssl::bn::BigNum::new().unwrap(), openssl::bn::BigNum::new().unwrap());
        self.0.public_key().affine_coordinates(self.0.group(), &mut x, &mut y, &mut context).unwrap();
        let coordinate = |number: openssl::bn::BigNum| URL_SAFE_NO_PAD.encode(number.to_vec_padded(32).unwrap());
        json!({ "kty": "EC", "crv": "P-256", "x": coordinate(x), "y": coordinate(y) })
    }

    fn thumbprint(&self) -> String {
        jwk_thumbprint(&self.jwk().to_string()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", segment(header), segment(claims));
        let signature = EcdsaSig::sign(&sha256(message.as_bytes()), &self.0).unwrap();
        let mut raw = signature.r().to_vec_padded(32).unwrap();
        raw.extend(signature.s().to_vec_padded(32).unwrap());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(raw))
    }
}

/// A relying party that does what each test tells it.
struct Rp {
    op: TestProvider,
    http: Arc<dyn HttpClient>,
    clock: TestClock,
    key: Key,
    nonce: Option<String>,
    basic: Option<(&'static str, &'static str)>,
    proofs: usize,
}

fn provider(clock: &TestClock) -> TestProviderBuilder {
    TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .client(TestClient::public("app").redirect_uri(REDIRECT).signing_algorithm("ES256"))
        .client(TestClient::secret_basic("server", "s3cret: %+").redirect_uri(REDIRECT).signing_algorithm("ES256"))
}

fn rp(configure: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> Rp {
    let clock = TestClock::new();
    let op = configure(provider(&clock)).start().unwrap();
    let http = op.http_client();
    Rp { op, http, clock, key: Key::generate(), nonce: None, basic: None, proofs: 0 }
}

impl Rp {
    fn now(&self) -> u64 {
        self.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    fn authorization_url(&self, changes: &[(&str, &str)]) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes()));
        let thumbprint = self.key.thumbprint();
        let mut url = Url::parse(&format!("{}/authorize", self.op.issuer())).unwrap();
        let defaults = [
            ("response_type", "deferred_code"),
            ("client_id", self.basic.map_or("app", |(id, _)| id)),
            ("redirect_uri", REDIRECT),
            ("scope", "openid"),
            ("state", "the-state"),
            ("nonce", "the-nonce"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("dpop_jkt", &thumbprint),
        ];
        for (name, value) in defaults {
            let value = changes.iter().find(|(changed, _)| *changed == name).map_or(value, |(_, value)| value);
            url.query_pairs_mut().append_pair(name, value);
        }
        for (name, value) in changes.iter().filter(|(name, _)| !defaults.iter().any(|(other, _)| other == name)) {
            url.query_pairs_mut().append_pair(name, value);
        }
        url.into()
    }

    fn deferred_code(&self) -> String {
        self.op.visit(self.authorization_url(&[])).parameter("deferred_code").unwrap().to_owned()
    }

    fn proof(&mut self, method: &str, url: &str, access_token: Option<&str>) -> String {
        self.proofs += 1;
        let mut claims = json!({ "jti": format!("jti-{}", self.proofs), "htm": method, "htu": url, "iat": self.now() });
        if let Some(nonce) = &self.nonce {
            claims["nonce"] = json!(nonce);
        }
        if let Some(token) = access_token {
            claims["ath"] = json!(URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())));
        }
        self.key.sign(&json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.jwk() }), &claims)
    }

    async fn send(&mut self, method: Method, url: &str, headers: &[(&str, String)], body: String) -> HttpResponse {
        let request = request(method, url, headers, body);
        self.http.send(request).await.unwrap()
    }

    /// A token request with a good proof.
    async fn token(&mut self, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/token", self.op.issuer());
        let proof = self.proof("POST", &url, None);
        self.post(&url, form, &[("dpop", proof)]).await
    }

    async fn post(&mut self, url: &str, form: &[(&str, &str)], headers: &[(&str, String)]) -> (u16, Value) {
        let response = self.post_raw(url, form, headers).await;
        (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or_default())
    }

    async fn post_raw(&mut self, url: &str, form: &[(&str, &str)], headers: &[(&str, String)]) -> HttpResponse {
        let mut form = form.to_vec();
        let mut headers = headers.to_vec();
        match self.basic {
            Some((id, secret)) => headers.push(("authorization", basic(id, secret))),
            None => form.push(("client_id", "app")),
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let response = self.send(Method::POST, url, &headers, body).await;
        if let Some(nonce) = response.headers.get("dpop-nonce") {
            self.nonce = Some(nonce.to_str().unwrap().to_owned());
        }
        response
    }

    async fn exchange(&mut self, code: &str) -> (u16, Value) {
        self.token(&[("grant_type", DEFERRED), ("deferred_code", code), ("code_verifier", VERIFIER)]).await
    }

    /// Signs in as far as the `deferred_auth_id`.
    async fn started(&mut self) -> String {
        let code = self.deferred_code();
        let (status, response) = self.exchange(&code).await;
        assert_eq!(status, 200, "{response}");
        response["deferred_auth_id"].as_str().unwrap().to_owned()
    }

    async fn poll(&mut self, id: &str) -> (u16, Value) {
        self.token(&[("grant_type", DEFERRED), ("deferred_auth_id", id)]).await
    }

    /// Waits for the interval, then polls.
    async fn poll_in_time(&mut self, id: &str) -> (u16, Value) {
        self.clock.advance(self.op.process(id).interval());
        self.poll(id).await
    }

    /// The claims of a token, after its signature was verified with the published keys by OpenSSL.
    async fn verified(&mut self, token: &Value) -> Value {
        let jwks = self.send(Method::GET, &format!("{}/jwks", self.op.issuer()), &[], String::new()).await;
        let jwks: Value = serde_json::from_slice(&jwks.body).unwrap();
        let header = josekit::jwt::decode_header(token.as_str().unwrap()).unwrap();
        let kid = header.claim("kid").unwrap();
        let jwk = jwks["keys"].as_array().unwrap().iter().find(|jwk| &jwk["kid"] == kid).unwrap();
        let jwk = josekit::jwk::Jwk::from_map(jwk.as_object().unwrap().clone()).unwrap();
        let verifier = josekit::jws::ES256.verifier_from_jwk(&jwk).unwrap();
        let (claims, _) = josekit::jwt::decode_with_verifier(token.as_str().unwrap(), &verifier).unwrap();
        Value::Object(claims.claims_set().clone())
    }

    fn broken_rules(&self) -> Vec<RequestRule> {
        self.op.violations().into_iter().map(|violation| violation.rule).collect()
    }
}

fn request(method: Method, url: &str, headers: &[(&str, String)], body: String) -> HttpRequest {
    let mut map = HeaderMap::new();
    if method == Method::POST {
        map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    HttpRequest {
        method,
        url: url.parse().unwrap(),
        headers: map,
        body: Bytes::from(body),
        timeout: Duration::from_secs(30),
        body_limit: 100_000,
        document: Document::TokenResponse,
    }
}

fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

#[tokio::test]
async fn a_client_that_keeps_all_rules_gets_its_tokens_and_leaves_no_violation() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::after_polls(2)).interim_claim("email_verified", false));
    let code = rp.deferred_code();
    let (_, exchange) = rp.exchange(&code).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap().to_owned();
    assert_eq!((&exchange["interval"], &exchange["expires_in"]), (&json!(5), &json!(1_814_400)));
    let interim = rp.verified(&exchange["interim_id_token"]).await;
    assert_eq!((&interim["nonce"], &interim["email_verified"]), (&json!("the-nonce"), &json!(false)));

    for _ in 0..2 {
        let (status, pending) = rp.poll_in_time(&id).await;
        assert_eq!((status, &pending["error"]), (400, &json!("authorization_pending")));
    }
    let (status, tokens) = rp.poll_in_time(&id).await;
    assert_eq!((status, &tokens["token_type"]), (200, &json!("DPoP")));
    let claims = rp.verified(&tokens["id_token"]).await;
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("https://op.test"), &json!("app")));
    let access_token = tokens["access_token"].as_str().unwrap();
    assert_eq!(claims["at_hash"], URL_SAFE_NO_PAD.encode(&sha256(access_token.as_bytes())[..16]));
    rp.op.assert_clean();

    let (status, after) = rp.poll_in_time(&id).await;
    assert_eq!((status, &after["error"]), (400, &json!("invalid_grant")));
    assert_eq!(rp.broken_rules(), [RequestRule::PolledAfterEnd]);
}

#[tokio::test]
async fn the_same_flow_runs_over_http_and_over_https() {
    for https in [false, true] {
        let builder = TestProvider::builder().client(TestClient::public("app").signing_algorithm("EdDSA"));
        let builder = builder.interval(Duration::from_secs(1)).require_pkce(false).path("/tenant");
        let op = if https { builder.https() } else { builder }.start().unwrap();
        let mut client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = op.ca_certificate_pem() {
            client = client.tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()]);
        }
        let client = client.build().unwrap();

        let metadata = client.get(format!("{}/.well-known/openid-configuration", op.issuer())).send().await.unwrap();
        assert_eq!(metadata.status(), 200);
        let metadata: Value = serde_json::from_slice(&metadata.bytes().await.unwrap()).unwrap();
        assert_eq!(metadata["issuer"], op.issuer());

        let mut url = Url::parse(metadata["authorization_endpoint"].as_str().unwrap()).unwrap();
        url.set_query(Some(
            "response_type=deferred_code&client_id=app&redirect_uri=https://rp.test/&scope=openid&state=1",
        ));
        let redirect = client.get(url).send().await.unwrap();
        assert_eq!(redirect.status(), 303);
        let target = Url::parse(redirect.headers()["location"].to_str().unwrap()).unwrap();
        let code = target.query_pairs().find(|(name, _)| name == "deferred_code").unwrap().1.into_owned();

        let form = |pairs: &[(&str, &str)]| {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            client
                .post(metadata["token_endpoint"].as_str().unwrap())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body)
                .send()
        };
        let exchange = form(&[("grant_type", DEFERRED), ("client_id", "app"), ("deferred_code", &code)]).await.unwrap();
        assert_eq!(exchange.status(), 200);
        let exchange: Value = serde_json::from_slice(&exchange.bytes().await.unwrap()).unwrap();
        let id = exchange["deferred_auth_id"].as_str().unwrap();
        op.process(id).send_ping(PingForgery::Genuine);
        tokio::time::sleep(Duration::from_millis(1_010)).await;
        let tokens = form(&[("grant_type", DEFERRED), ("client_id", "app"), ("deferred_auth_id", id)]).await.unwrap();
        assert_eq!(tokens.status(), 200);
        let tokens: Value = serde_json::from_slice(&tokens.bytes().await.unwrap()).unwrap();
        assert_eq!(tokens["token_type"], "Bearer");
        op.assert_clean();
    }
}

#[tokio::test]
async fn an_authorization_request_that_is_wrong_comes_back_as_an_error_with_state_and_iss() {
    let rp = rp(|op| op);
    let cases = [
        ("response_type", "token", "unsupported_response_type", RequestRule::WrongResponseType),
        ("scope", "profile", "invalid_scope", RequestRule::NoOpenidScope),
        ("code_challenge_method", "plain", "invalid_request", RequestRule::NoPkce),
        ("dpop_jkt", "short", "invalid_request", RequestRule::InvalidParameter),
        ("max_age", "-1", "invalid_request", RequestRule::InvalidParameter),
        ("claims", "{", "invalid_request", RequestRule::InvalidParameter),
    ];
    for (name, value, error, rule) in cases {
        let back = rp.op.visit(rp.authorization_url(&[(name, value)]));
        assert_eq!(back.parameter("error"), Some(error), "{name}");
        assert_eq!((back.parameter("state"), back.parameter("iss")), (Some("the-state"), Some(rp.op.issuer())));
        assert_eq!(rp.broken_rules(), [rule]);
        rp.op.forgive();
    }
}

#[test]
#[should_panic(expected = "the user sees an error page with status 400 Bad Request")]
fn a_redirect_uri_that_is_not_registered_is_never_redirected_to() {
    let rp = rp(|op| op);
    rp.op.visit(rp.authorization_url(&[("redirect_uri", "https://evil.test/")]));
}

#[tokio::test]
async fn form_post_gives_a_page_that_posts_itself() {
    let mut rp = rp(|op| op);
    let url = rp.authorization_url(&[("response_mode", "form_post"), ("state", "a\"<b>&c")]);
    let page = rp.send(Method::GET, &url, &[], String::new()).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("action=\"https://rp.test/callback\""));
    assert!(page.contains("name=\"state\" value=\"a&quot;&lt;b&gt;&amp;c\""));
}

#[tokio::test]
async fn deferred_code_code_can_be_answered_with_an_ordinary_code() {
    let mut rp = rp(TestProviderBuilder::answer_with_code);
    let back = rp.op.visit(rp.authorization_url(&[("response_type", "code deferred_code")]));
    let code = back.parameter("code").unwrap();
    assert_eq!(back.parameter("deferred_code"), None);
    let form =
        [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT), ("code_verifier", VERIFIER)];
    let (status, tokens) = rp.token(&form).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(rp.verified(&tokens["id_token"]).await["nonce"], "the-nonce");
    rp.op.assert_clean();
}

#[tokio::test]
async fn an_exchange_that_is_wrong_is_refused_and_leaves_the_code_unspent() {
    let mut rp = rp(|op| op);
    let code = rp.deferred_code();
    let other = URL_SAFE_NO_PAD.encode([7; 32]);
    let cases = [
        (vec![("deferred_code", "unknown")], "invalid_grant", RequestRule::UnknownCode),
        (vec![("deferred_code", &code), ("code_verifier", &other)], "invalid_grant", RequestRule::WrongVerifier),
        (vec![("deferred_code", &code)], "invalid_grant", RequestRule::WrongVerifier),
        (
            vec![("deferred_code", &code), ("redirect_uri", "https://rp.test/")],
            "invalid_grant",
            RequestRule::RedirectUriChanged,
        ),
        (vec![("deferred_code", &code), ("deferred_code", &code)], "invalid_request", RequestRule::RepeatedParameter),
        (vec![("deferred_code", &code), ("deferred_auth_id", "x")], "invalid_request", RequestRule::InvalidParameter),
    ];
    for (mut form, error, rule) in cases {
        form.push(("grant_type", DEFERRED));
        let (status, answer) = rp.token(&form).await;
        assert_eq!((status, &answer["error"]), (400, &json!(error)), "{rule:?}");
        assert_eq!(rp.broken_rules(), [rule]);
        rp.op.forgive();
    }
    assert_eq!(rp.exchange(&code).await.0, 200);
    let (_, again) = rp.exchange(&code).await;
    assert_eq!(again["error"], "invalid_grant");
    assert_eq!(rp.broken_rules(), [RequestRule::CodeReplayed]);
}

#[tokio::test]
async fn client_authentication_is_exactly_the_registered_one() {
    let mut rp = rp(|op| op);
    rp.basic = Some(("server", "s3cret: %+"));
    let id = rp.started().await;
    assert_eq!(rp.poll_in_time(&id).await.0, 200);
    rp.op.assert_clean();

    rp.basic = Some(("server", "wrong"));
    let url = format!("{}/token", rp.op.issuer());
    let form = [("grant_type", DEFERRED), ("deferred_code", "x")];
    let response = rp.post_raw(&url, &form, &[]).await;
    assert_eq!(response.status, 401);
    assert!(response.headers["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let (_, several) = rp.post(&url, &[form[0], form[1], ("client_secret", "s3cret: %+")], &[]).await;
    assert_eq!(several["error"], "invalid_request");
    rp.basic = None;
    let (status, answer) = rp.post(&url, &[form[0], form[1], ("client_id", "server")], &[]).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")), "`client_id` is there twice");
    let rules =
        [RequestRule::ClientAuthentication, RequestRule::SeveralAuthentications, RequestRule::RepeatedParameter];
    assert_eq!(rp.broken_rules(), rules);
}

#[tokio::test]
async fn a_client_assertion_holds_once_and_only_for_this_issuer() {
    let key = Key::generate();
    let client = TestClient::private_key_jwt("signer", &key.jwk().to_string()).redirect_uri(REDIRECT);
    let mut rp = rp(|op| op.client(client));
    let url = format!("{}/token", rp.op.issuer());
    let now = rp.now();
    let good = json!({ "iss": "signer", "sub": "signer", "aud": "https://op.test", "jti": "1", "exp": now + 60 });
    let mut send = async |claims: &Value, key: &Key| {
        let assertion = key.sign(&json!({ "alg": "ES256" }), claims);
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", DEFERRED)
            .append_pair("deferred_auth_id", "unknown")
            .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .append_pair("client_assertion", &assertion)
            .finish();
        let response = rp.send(Method::POST, &url, &[], body).await;
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        let rules = rp.broken_rules();
        rp.op.forgive();
        (answer["error"].as_str().unwrap().to_owned(), rules)
    };
    let invalid = ("invalid_client".to_owned(), vec![RequestRule::AssertionInvalid]);
    for (name, value) in [
        ("aud", json!(["https://op.test"])),
        ("aud", json!("https://op.test/token")),
        ("iss", json!("another")),
        ("exp", json!(now)),
        ("exp", json!(now + 86_400)),
        ("jti", Value::Null),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        assert_eq!(send(&claims, &key).await, invalid, "{name}");
    }
    assert_eq!(send(&good, &Key::generate()).await, invalid);
    assert_eq!(send(&good, &key).await, ("invalid_grant".to_owned(), vec![RequestRule::UnknownDeferredAuthId]));
    assert_eq!(send(&good, &key).await, ("invalid_client".to_owned(), vec![RequestRule::AssertionReplayed]));
}

#[tokio::test]
async fn a_dpop_proof_is_looked_at_from_every_side() {
    let mut rp = rp(|op| op);
    let id = rp.started().await;
    let url = format!("{}/token", rp.op.issuer());
    let jwk = rp.key.jwk();
    let mut private = jwk.clone();
    private["d"] = json!("AAAA");
    let (header, now) = (json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk }), rp.now());
    let claims = json!({ "jti": "fresh", "htm": "POST", "htu": url, "iat": now });
    let with = |value: &Value, name: &str, changed: Value| {
        let mut value = value.clone();
        value[name] = changed;
        value
    };
    let mut other = Key::generate();
    let mut cases = vec![
        (with(&header, "typ", json!("JWT")), claims.clone(), RequestRule::DpopInvalid),
        (with(&header, "alg", json!("none")), claims.clone(), RequestRule::DpopInvalid),
        (with(&header, "jwk", private), claims.clone(), RequestRule::DpopPrivateKey),
        (with(&header, "jwk", other.jwk()), claims.clone(), RequestRule::DpopInvalid),
    ];
    for (name, value) in
        [("htm", json!("GET")), ("htu", json!("https://op.test/")), ("jti", json!("")), ("ath", json!("AAAA"))]
    {
        cases.push((header.clone(), with(&claims, name, value), RequestRule::DpopInvalid));
    }
    cases.push((header.clone(), with(&claims, "jti", json!("jti-1")), RequestRule::DpopReplayed));
    for (header, claims, rule) in cases {
        rp.clock.advance(Duration::from_secs(5));
        let mut claims = claims;
        claims["iat"] = json!(rp.now());
        let proof = rp.key.sign(&header, &claims);
        let (status, answer) =
            rp.post(&url, &[("grant_type", DEFERRED), ("deferred_auth_id", &id)], &[("dpop", proof)]).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_dpop_proof")), "{rule:?} {claims}");
        assert_eq!(rp.broken_rules(), [rule], "{claims}");
        rp.op.forgive();
    }
    rp.clock.advance(Duration::from_secs(5));
    let (_, missing) = rp.post(&url, &[("grant_type", DEFERRED), ("deferred_auth_id", &id)], &[]).await;
    std::mem::swap(&mut rp.key, &mut other);
    rp.clock.advance(Duration::from_secs(5));
    let (_, changed) = rp.poll(&id).await;
    assert_eq!((&missing["error"], &changed["error"]), (&json!("invalid_dpop_proof"), &json!("invalid_dpop_proof")));
    assert_eq!(rp.broken_rules(), [RequestRule::DpopMissing, RequestRule::DpopKeyChanged]);
}

#[tokio::test]
async fn a_proof_by_a_wrong_clock_is_refused_without_blame_and_the_date_tells_the_time() {
    let mut rp = rp(|op| op.clock_offset(3_600));
    let code = rp.deferred_code();
    let (status, answer) = rp.exchange(&code).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_dpop_proof")));
    let date = rp.op.requests_to(Endpoint::Exchange)[0].response_headers["date"].to_str().unwrap().to_owned();
    assert_eq!(httpdate::parse_http_date(&date).unwrap(), rp.clock.now() + Duration::from_secs(3_600));
    rp.op.assert_clean();
}

#[tokio::test]
async fn nonces_are_asked_for_and_kept_apart_by_role() {
    let mut rp = rp(|op| op.dpop_nonces(NoncePolicy::Required));
    let code = rp.deferred_code();
    let (status, challenge) = rp.exchange(&code).await;
    assert_eq!((status, &challenge["error"]), (400, &json!("use_dpop_nonce")));
    let (_, exchange) = rp.exchange(&code).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap().to_owned();
    let (_, tokens) = rp.poll_in_time(&id).await;
    rp.op.assert_clean();

    let url = format!("{}/userinfo", rp.op.issuer());
    let token = tokens["access_token"].as_str().unwrap().to_owned();
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    let refused = rp.send(Method::GET, &url, &headers, String::new()).await;
    assert_eq!(refused.status, 401);
    assert!(refused.headers["www-authenticate"].to_str().unwrap().contains("use_dpop_nonce"));
    assert_eq!(rp.broken_rules(), [RequestRule::DpopNonceOfOtherRole]);
    rp.nonce = Some(refused.headers["dpop-nonce"].to_str().unwrap().to_owned());
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    assert_eq!(rp.send(Method::GET, &url, &headers, String::new()).await.status, 200);
}

#[tokio::test]
async fn a_nonce_that_rotates_with_every_response_is_good_for_one_request() {
    let mut rp = rp(|op| op.dpop_nonces(NoncePolicy::RotateEveryRequest).decisions(DecisionPolicy::scripted()));
    let code = rp.deferred_code();
    rp.exchange(&code).await;
    let (_, exchange) = rp.exchange(&code).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap().to_owned();
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "authorization_pending");
    rp.op.rotate_nonces();
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "use_dpop_nonce");
    assert_eq!(rp.poll(&id).await.1["error"], "authorization_pending", "the retry need not wait");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_poll_before_its_time_is_noted_and_slows_the_client_down_for_good() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.clock.advance(Duration::from_millis(4_999));
    assert_eq!(rp.poll(&id).await.1["error"], "slow_down");
    assert_eq!(rp.broken_rules(), [RequestRule::PolledTooEarly]);
    assert_eq!(rp.op.process(&id).interval(), Duration::from_secs(10));
    rp.op.forgive();
    rp.op.process(&id).slow_down_next();
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "slow_down");
    assert_eq!(rp.op.process(&id).interval(), Duration::from_secs(15));
    rp.op.assert_clean();
}

#[tokio::test]
async fn one_poll_after_a_ping_and_one_just_before_the_end_may_come_early() {
    let minute = Duration::from_secs(60);
    let mut rp =
        rp(|op| op.decisions(DecisionPolicy::scripted()).interval(minute).expires_in(2 * minute).on_ping(|_| 204));
    let id = rp.started().await;
    rp.op.process(&id).send_ping(PingForgery::Genuine);
    assert_eq!(rp.poll(&id).await.1["error"], "authorization_pending");
    rp.poll_in_time(&id).await;
    rp.clock.advance(Duration::from_secs(55));
    assert_eq!(rp.poll(&id).await.1["error"], "authorization_pending");
    rp.op.assert_clean();
    rp.poll(&id).await;
    assert_eq!(rp.broken_rules(), [RequestRule::PolledTooEarly]);
}

#[tokio::test]
async fn each_decision_has_its_answer() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    type Decide = fn(&TestProcess);
    let cases: [(Decide, &str); 2] = [(TestProcess::deny, "access_denied"), (TestProcess::expire, "expired_token")];
    for (decide, error) in cases {
        rp.key = Key::generate();
        let id = rp.started().await;
        rp.op.process(&id).progress("step 2 of 3");
        let (_, pending) = rp.poll_in_time(&id).await;
        assert_eq!(pending["error_description"], "step 2 of 3");
        decide(&rp.op.process(&id));
        assert_eq!(rp.poll_in_time(&id).await.1["error"], error);
    }
    rp.key = Key::generate();
    let id = rp.started().await;
    rp.op.process(&id).approve_with(json!({ "name": "John" }));
    let (_, tokens) = rp.poll_in_time(&id).await;
    assert_eq!(rp.verified(&tokens["id_token"]).await["name"], "John");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_process_that_nobody_collects_in_time_has_expired() {
    let mut rp = rp(|op| op.expires_in(Duration::from_secs(60)).decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.op.process(&id).approve();
    rp.clock.advance(Duration::from_secs(60));
    assert_eq!(rp.poll(&id).await.1["error"], "expired_token");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_long_poll_is_held_until_the_decision() {
    let clock = TestClock::automatic();
    let hour = Duration::from_secs(3_600);
    let op = provider(&clock).long_polling(2 * hour).decisions(DecisionPolicy::after(hour)).start().unwrap();
    let http = op.http_client();
    let mut rp = Rp { op, http, clock, key: Key::generate(), nonce: None, basic: None, proofs: 0 };
    let id = rp.started().await;
    rp.clock.sleep(Duration::from_secs(5)).await;
    let url = format!("{}/token", rp.op.issuer());
    let proof = rp.proof("POST", &url, None);
    let body = format!("grant_type={DEFERRED}&deferred_auth_id={id}&client_id=app");
    let patient = HttpRequest { timeout: 3 * hour, ..request(Method::POST, &url, &[("dpop", proof)], body) };
    let response = rp.http.send(patient).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(rp.clock.monotonic(), hour);
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_cancelled_process_is_denied_and_the_answer_is_the_same_for_an_unknown_one() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    let url = rp.op.cancellation_endpoint();
    let proof = rp.proof("POST", &url, None);
    assert_eq!(rp.post(&url, &[("deferred_auth_id", &id)], &[("dpop", proof)]).await.0, 200);
    assert!(rp.op.process(&id).is_cancelled());
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "access_denied");
    rp.op.assert_clean();
    assert_eq!(rp.post(&url, &[("deferred_auth_id", "unknown")], &[]).await.0, 200);
    assert_eq!(rp.broken_rules(), [RequestRule::UnknownDeferredAuthId]);
}

#[tokio::test]
async fn access_tokens_are_bound_refreshed_and_revoked() {
    let mut rp = rp(|op| op);
    let id = rp.started().await;
    let (_, tokens) = rp.poll_in_time(&id).await;
    let refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
    let (_, fresh) = rp.token(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await;
    let token = fresh["access_token"].as_str().unwrap().to_owned();
    let url = rp.op.resource();
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("PUT", &url, Some(&token)))];
    let echo = rp.send(Method::PUT, &format!("{url}?a=1"), &headers, "body".into()).await;
    let echo: Value = serde_json::from_slice(&echo.body).unwrap();
    assert_eq!((&echo["method"], &echo["query"], &echo["body"]), (&json!("PUT"), &json!("a=1"), &json!("body")));
    rp.op.assert_clean();

    let bearer = [("authorization", format!("Bearer {token}"))];
    assert_eq!(rp.send(Method::GET, &url, &bearer, String::new()).await.status, 401);
    let revoke = format!("{}/revoke", rp.op.issuer());
    assert_eq!(rp.post(&revoke, &[("token", &token)], &[]).await.0, 200);
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    assert_eq!(rp.send(Method::GET, &url, &headers, String::new()).await.status, 401);
    let (_, again) = rp.token(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await;
    assert_eq!(again["error"], "invalid_grant");
    let rules = [RequestRule::AccessTokenScheme, RequestRule::AccessTokenInvalid, RequestRule::UnknownRefreshToken];
    assert_eq!(rp.broken_rules(), rules);
}

#[tokio::test]
async fn an_early_access_token_can_authenticate_polls() {
    let mut rp = rp(|op| op.early_access_token().interim_token(InterimToken::IdToken));
    rp.basic = Some(("server", "s3cret: %+"));
    let code = rp.deferred_code();
    let (_, exchange) = rp.exchange(&code).await;
    assert!(exchange["id_token"].is_string() && exchange["interim_id_token"].is_null());
    let token = exchange["access_token"].as_str().unwrap().to_owned();
    rp.clock.advance(Duration::from_secs(5));
    let url = format!("{}/token", rp.op.issuer());
    let body = format!("grant_type={DEFERRED}&deferred_auth_id={}", exchange["deferred_auth_id"].as_str().unwrap());
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("POST", &url, Some(&token)))];
    assert_eq!(rp.send(Method::POST, &url, &headers, body).await.status, 200);
    rp.op.assert_clean();
}

#[tokio::test]
async fn keys_rotate_with_and_without_the_old_ones() {
    let mut rp = rp(|op| op);
    let kids = async |rp: &mut Rp| {
        let response = rp.send(Method::GET, "https://op.test/jwks", &[], String::new()).await;
        let keys: Value = serde_json::from_slice(&response.body).unwrap();
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kids(&mut rp).await, ["key-1"]);
    rp.op.rotate_keys(true);
    assert_eq!(kids(&mut rp).await, ["key-1", "key-2"]);
    rp.op.rotate_keys(false);
    assert_eq!(kids(&mut rp).await, ["key-3"]);
}
