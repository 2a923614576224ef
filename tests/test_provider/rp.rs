//! A hand-written relying party, with OpenSSL in place of the provider's aws-lc.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use openid_deferred::Clock;
use openid_deferred::error::Document;
use openid_deferred::testing::{RequestRule, TestClient, TestClock, TestProvider, TestProviderBuilder, jwk_thumbprint};
use openid_deferred::transport::{HttpClient, HttpRequest, HttpResponse};
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use openssl::sha::sha256;
use serde_json::{Value, json};
use url::Url;

pub(crate) const REDIRECT: &str = "https://rp.test/callback";
pub(crate) const DEFERRED: &str = "urn:openid:params:grant-type:deferred";
pub(crate) const IETF: &str = "urn:ietf:params:oauth:grant-type:deferred";
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// A DPoP key by OpenSSL; the provider verifies with aws-lc.
pub(crate) struct Key(EcKey<Private>);

impl Key {
    pub(crate) fn generate() -> Self {
        Self(EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap())
    }

    pub(crate) fn jwk(&self) -> Value {
        let mut context = BigNumContext::new().unwrap();
        let (mut x, mut y) = (openssl::bn::BigNum::new().unwrap(), openssl::bn::BigNum::new().unwrap());
        self.0.public_key().affine_coordinates(self.0.group(), &mut x, &mut y, &mut context).unwrap();
        let coordinate = |number: openssl::bn::BigNum| URL_SAFE_NO_PAD.encode(number.to_vec_padded(32).unwrap());
        json!({ "kty": "EC", "crv": "P-256", "x": coordinate(x), "y": coordinate(y) })
    }

    pub(crate) fn thumbprint(&self) -> String {
        jwk_thumbprint(&self.jwk().to_string()).unwrap()
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", segment(header), segment(claims));
        let signature = EcdsaSig::sign(&sha256(message.as_bytes()), &self.0).unwrap();
        let mut raw = signature.r().to_vec_padded(32).unwrap();
        raw.extend(signature.s().to_vec_padded(32).unwrap());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(raw))
    }
}

/// A relying party that does what each test tells it.
pub(crate) struct Rp {
    pub(crate) op: TestProvider,
    pub(crate) http: Arc<dyn HttpClient>,
    pub(crate) clock: TestClock,
    pub(crate) key: Key,
    pub(crate) nonce: Option<String>,
    pub(crate) basic: Option<(&'static str, &'static str)>,
    pub(crate) proofs: usize,
}

pub(crate) fn provider(clock: &TestClock) -> TestProviderBuilder {
    TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .client(TestClient::public("app").redirect_uri(REDIRECT).signing_algorithm("ES256"))
        .client(TestClient::secret_basic("server", "s3cret: %+").redirect_uri(REDIRECT).signing_algorithm("ES256"))
}

pub(crate) fn rp(configure: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> Rp {
    let clock = TestClock::new();
    let op = configure(provider(&clock)).start().unwrap();
    let http = op.http_client();
    Rp { op, http, clock, key: Key::generate(), nonce: None, basic: None, proofs: 0 }
}

/// The same for a provider that speaks the IETF draft.
pub(crate) fn ietf(configure: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> Rp {
    rp(|op| configure(op.ietf()))
}

impl Rp {
    pub(crate) fn now(&self) -> u64 {
        self.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    pub(crate) fn authorization_url(&self, changes: &[(&str, &str)]) -> String {
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

    pub(crate) fn deferred_code(&self) -> String {
        self.op.visit(self.authorization_url(&[])).parameter("deferred_code").unwrap().to_owned()
    }

    pub(crate) fn proof(&mut self, method: &str, url: &str, access_token: Option<&str>) -> String {
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

    pub(crate) async fn send(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(&str, String)],
        body: String,
    ) -> HttpResponse {
        let request = request(method, url, headers, body);
        self.http.send(request).await.unwrap()
    }

    /// Sends a token request with a valid proof.
    pub(crate) async fn token(&mut self, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/token", self.op.issuer());
        let proof = self.proof("POST", &url, None);
        self.post(&url, form, &[("dpop", proof)]).await
    }

    pub(crate) async fn post(&mut self, url: &str, form: &[(&str, &str)], headers: &[(&str, String)]) -> (u16, Value) {
        let response = self.post_raw(url, form, headers).await;
        (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or_default())
    }

    pub(crate) async fn post_raw(
        &mut self,
        url: &str,
        form: &[(&str, &str)],
        headers: &[(&str, String)],
    ) -> HttpResponse {
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

    pub(crate) async fn exchange(&mut self, code: &str) -> (u16, Value) {
        self.token(&[("grant_type", DEFERRED), ("deferred_code", code), ("code_verifier", VERIFIER)]).await
    }

    /// Signs in until the `deferred_auth_id` is known.
    pub(crate) async fn started(&mut self) -> String {
        let code = self.deferred_code();
        let (status, response) = self.exchange(&code).await;
        assert_eq!(status, 200, "{response}");
        response["deferred_auth_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn poll(&mut self, id: &str) -> (u16, Value) {
        self.token(&[("grant_type", DEFERRED), ("deferred_auth_id", id)]).await
    }

    /// Waits for the interval, then polls.
    pub(crate) async fn poll_in_time(&mut self, id: &str) -> (u16, Value) {
        self.clock.advance(self.op.process(id).interval());
        self.poll(id).await
    }

    /// From now on it is the confidential client.
    pub(crate) fn authenticate(&mut self) {
        self.basic = Some(("server", "s3cret: %+"));
    }

    /// The code of an ordinary authorization request with these changes.
    pub(crate) fn code(&self, changes: &[(&str, &str)]) -> String {
        let changes = [&[("response_type", "code")], changes].concat();
        self.op.visit(self.authorization_url(&changes)).parameter("code").unwrap().to_owned()
    }

    /// Sends an ordinary code with further parameters.
    pub(crate) async fn redeem(&mut self, code: &str, further: &[(&str, &str)]) -> (u16, Value) {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        self.token(&[&form, further].concat()).await
    }

    /// Sends a JWT as a grant with further parameters.
    pub(crate) async fn bearer(&mut self, assertion: &str, further: &[(&str, &str)]) -> (u16, Value) {
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion)];
        self.token(&[&form, further].concat()).await
    }

    /// Signs in by the IETF draft until the deferral code is known.
    pub(crate) async fn deferred(&mut self) -> String {
        let code = self.code(&[]);
        let (status, response) = self.redeem(&code, &[("completion_mode", "deferred")]).await;
        assert_eq!(status, 400, "{response}");
        response["deferral_code"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn poll_code(&mut self, code: &str) -> (u16, Value) {
        self.token(&[("grant_type", IETF), ("deferral_code", code)]).await
    }

    /// Waits for the interval, then polls.
    pub(crate) async fn poll_code_in_time(&mut self, code: &str) -> (u16, Value) {
        self.clock.advance(self.op.process(code).interval());
        self.poll_code(code).await
    }

    /// Revokes a deferral code with further parameters and a valid proof.
    pub(crate) async fn revoke_code(&mut self, code: &str, further: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/revoke", self.op.issuer());
        let proof = self.proof("POST", &url, None);
        self.post(&url, &[&[("token", code)], further].concat(), &[("dpop", proof)]).await
    }

    /// The claims of a token. Its signature is verified with the published keys by OpenSSL.
    pub(crate) async fn verified(&mut self, token: &Value) -> Value {
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

    pub(crate) fn broken_rules(&self) -> Vec<RequestRule> {
        self.op.violations().into_iter().map(|violation| violation.rule).collect()
    }
}

pub(crate) fn request(method: Method, url: &str, headers: &[(&str, String)], body: String) -> HttpRequest {
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
        client_certificate: None,
    }
}

pub(crate) fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}
