//! A model of an OpenID Provider: a small state machine by which the client's requests are judged. It shares no code
//! with the crate except the signatures of ID Tokens.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, StatusCode};
use openid_deferred::transport::{HttpRequest, HttpResponse};
use openid_deferred::{Signer as _, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};

use crate::chance::Chance;

/// The host of the first OP; the others are numbered.
const HOST: &str = "op.test";
pub const CLIENT_ID: &str = "the-client";
pub const REDIRECT_URI: &str = "https://rp.test/callback";
/// The type of deferral codes at a revocation endpoint.
const CODE_TYPE: &str = "urn:ietf:params:oauth:token-type:deferral-code";
/// The tolerance for the time of a DPoP proof, in seconds.
const PROOF_TOLERANCE: u64 = 300;

/// The protocol of an OP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenId,
    Ietf,
    /// The user is named by the client, and no browser is involved.
    Ciba,
}

/// The OP of this client. Each client has an OP of its own.
pub fn issuer(client: usize) -> String {
    format!("https://{}{HOST}", if client == 0 { String::new() } else { format!("{client}.") })
}

/// The client whose OP receives this request.
pub fn client_of(url: &url::Url) -> usize {
    let name = url.host_str().and_then(|host| host.strip_suffix(HOST)).expect("requests go to this OP only");
    if name.is_empty() { 0 } else { name.trim_end_matches('.').parse().expect("it is numbered") }
}

/// The OP's plan for one user.
#[derive(Debug, Clone)]
pub struct Plan {
    pub interval: Option<Duration>,
    pub expires_in: Option<Duration>,
    pub decision: Decision,
    pub decides_after: Duration,
    /// The final ID Token is invalid.
    pub forged: bool,
    pub interim: bool,
    /// The number of `slow_down` answers, although no poll is early.
    pub slow_downs: u32,
    pub pings: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Deny,
    Grant,
    Request,
    /// Only with `expires_in`.
    Never,
}

/// The content of an answer, for the observers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Exchanged,
    Pending,
    SlowDown,
    Success,
    Denied,
    Expired,
    InvalidGrant,
    InvalidRequest,
    /// `use_dpop_nonce`.
    Challenge,
    /// `invalid_dpop_proof` with the OP's time.
    WrongClock,
    /// `invalid_client`.
    Refused,
    /// A response that no token endpoint sends.
    Nonsense,
    /// Metadata, keys and other answers.
    Other,
}

impl Said {
    /// Whether no poll may follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Denied | Self::Expired | Self::InvalidGrant | Self::InvalidRequest)
    }
}

pub struct Reply {
    pub said: Said,
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub nonce: Option<String>,
    pub date: Option<SystemTime>,
    pub body: Vec<u8>,
    pub html: bool,
}

impl Reply {
    pub fn json(said: Said, status: u16, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { said, status, retry_after: None, nonce: None, date: None, body, html: false }
    }

    fn error(said: Said, code: &str) -> Self {
        let status = if said == Said::Refused { 401 } else { 400 };
        Self::json(said, status, &json!({"error": code, "error_description": "as you can see"}))
    }

    pub fn into_response(self) -> HttpResponse {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: String| headers.insert(name, value.parse().expect("a header"));
        set("content-type", if self.html { "text/html" } else { "application/json" }.to_owned());
        if let Some(wait) = self.retry_after {
            set("retry-after", wait.as_secs().to_string());
        }
        if let Some(nonce) = self.nonce {
            set("dpop-nonce", nonce);
        }
        if let Some(date) = self.date {
            set("date", httpdate::fmt_http_date(date));
        }
        let status = StatusCode::from_u16(self.status).expect("a status");
        HttpResponse { status, headers, body: Bytes::from(self.body) }
    }
}

/// One sign-in as the OP sees it.
pub struct Process {
    pub plan: Plan,
    pub client: usize,
    /// The `nonce` of the authentication request.
    nonce: String,
    pub auth_id: String,
    pub notification_token: Option<String>,
    pub exchanged_at: Option<SystemTime>,
    last_poll: Option<SystemTime>,
    slow_downs: u32,
    pub cancelled: bool,
    /// The success response was made, which happens once.
    pub served: bool,
}

pub struct Op {
    pub processes: Vec<Process>,
    codes: BTreeMap<String, usize>,
    auth_ids: BTreeMap<String, usize>,
    /// Changes while the OP runs; `None` if the OP requires no nonce.
    pub nonce: Option<String>,
    pub refuses_client: bool,
    pub current_key: usize,
    pub forgets_cancelled: bool,
    seed: u64,
}

/// The keys of all simulations. Making keys is slow, and their values do not matter.
fn keys() -> &'static [SigningKey] {
    static KEYS: OnceLock<Vec<SigningKey>> = OnceLock::new();
    KEYS.get_or_init(|| (0..4).map(|_| SigningKey::generate(SigningAlgorithm::Es256).expect("a key")).collect())
}

impl Op {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            processes: Vec::new(),
            codes: BTreeMap::new(),
            auth_ids: BTreeMap::new(),
            nonce: None,
            refuses_client: false,
            current_key: 0,
            forgets_cancelled: false,
        }
    }

    /// The protocol of the OP of this client. The OPs take turns. The first one speaks the OpenID dialect in one thousand
    /// of seeds, the IETF dialect in the next, and CIBA in the one after that.
    pub fn dialect(&self, client: usize) -> Dialect {
        match (self.seed / 1_000 + client as u64) % 3 {
            0 => Dialect::OpenId,
            1 => Dialect::Ietf,
            _ => Dialect::Ciba,
        }
    }

    fn is_ietf(&self, client: usize) -> bool {
        self.dialect(client) == Dialect::Ietf
    }

    /// The protocol of the OP of a sign-in.
    pub fn dialect_of(&self, label: usize) -> Dialect {
        self.dialect(self.processes[label].client)
    }

    /// The name of the identifier that the OP of a sign-in issues.
    pub fn identifier(&self, label: usize) -> &'static str {
        match self.dialect_of(label) {
            Dialect::OpenId => "deferred_auth_id",
            Dialect::Ietf => "deferral_code",
            Dialect::Ciba => "auth_req_id",
        }
    }

    /// Adds the plan for a user who will come.
    pub fn expect(&mut self, plan: Plan, client: usize) {
        self.processes.push(Process {
            plan,
            client,
            nonce: String::new(),
            auth_id: String::new(),
            notification_token: None,
            exchanged_at: None,
            last_poll: None,
            slow_downs: 0,
            cancelled: false,
            served: false,
        });
    }

    /// Handles a user at the authorization endpoint, and returns the query of the redirect.
    pub fn visit(&mut self, label: usize, parameters: &BTreeMap<String, String>, chance: &Chance) -> String {
        let code = format!("code-{label}-{:016x}", chance.word());
        let auth_id = format!("auth-{label}-{:016x}", chance.word());
        self.codes.insert(code.clone(), label);
        self.auth_ids.insert(auth_id.clone(), label);
        let is_ietf = self.is_ietf(self.processes[label].client);
        assert_eq!(parameters.get("completion_mode").map(String::as_str), is_ietf.then_some("deferred"));
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair(if is_ietf { "code" } else { "deferred_code" }, &code)
            .append_pair("state", &parameters["state"])
            .append_pair("iss", &issuer(self.processes[label].client))
            .finish();
        let process = &mut self.processes[label];
        process.nonce = parameters["nonce"].clone();
        process.auth_id = auth_id;
        query
    }

    pub fn label_of_code(&self, code: &str) -> Option<usize> {
        self.codes.get(code).copied()
    }

    pub fn label_of_auth_id(&self, auth_id: &str) -> Option<usize> {
        self.auth_ids.get(auth_id).copied()
    }

    pub fn handle(&mut self, request: &HttpRequest, now: SystemTime) -> Reply {
        match request.url.path() {
            "/.well-known/openid-configuration" => {
                let client = client_of(&request.url);
                Reply::json(Said::Other, 200, &metadata(&issuer(client), self.dialect(client)))
            }
            "/jwks" => Reply::json(Said::Other, 200, &self.key_set()),
            "/revoke" => Reply::json(Said::Other, 200, &json!({})),
            "/token" | "/cancel" | "/bc-authorize" => self.authenticated(request, now),
            _ => Reply { html: true, ..Reply::json(Said::Nonsense, 404, &json!(null)) },
        }
    }

    fn authenticated(&mut self, request: &HttpRequest, now: SystemTime) -> Reply {
        if self.refuses_client {
            return Reply::error(Said::Refused, "invalid_client");
        }
        if let Some(proof) = request.headers.get("dpop") {
            let proof = claims(proof.to_str().unwrap_or_default());
            if proof["iat"].as_u64().is_none_or(|issued| issued.abs_diff(unix(now)) > PROOF_TOLERANCE) {
                return Reply { date: Some(now), ..Reply::error(Said::WrongClock, "invalid_dpop_proof") };
            }
            if self.nonce.is_some() && proof["nonce"].as_str() != self.nonce.as_deref() {
                return Reply { nonce: self.nonce.clone(), ..Reply::error(Said::Challenge, "use_dpop_nonce") };
            }
        }
        let form: BTreeMap<_, _> = form_urlencoded::parse(&request.body).into_owned().collect();
        let mut reply = if request.url.path() == "/cancel" {
            self.cancel(&form)
        } else if request.url.path() == "/bc-authorize" {
            self.ask(&form, now)
        } else if let Some(code) = code(&form) {
            self.exchange(code, notification_token(&form), now)
        } else {
            assert!(!form.contains_key("completion_mode"), "a poll does not opt in");
            self.poll(identifier(&form).expect("a token request has a code or an identifier"), now)
        };
        reply.nonce = self.nonce.clone();
        reply
    }

    fn cancel(&mut self, form: &BTreeMap<String, String>) -> Reply {
        // At an OP of the IETF dialect it is the revocation endpoint, where tokens are revoked too.
        if let Some(&label) = identifier(form).and_then(|id| self.auth_ids.get(id)) {
            self.processes[label].cancelled = true;
        }
        Reply::json(Said::Other, 200, &json!({}))
    }

    /// Begins to ask the user whom the client names. A user may be asked only once.
    fn ask(&mut self, form: &BTreeMap<String, String>, now: SystemTime) -> Reply {
        let label = label_of_hint(form).expect("a request names its user");
        assert_eq!(form.get("scope").map(String::as_str), Some("openid"));
        assert!(self.processes[label].exchanged_at.is_none(), "user {label} is asked twice");
        let auth_id = format!("auth-{label}-{}", unix(now));
        self.auth_ids.insert(auth_id.clone(), label);
        self.processes[label].auth_id = auth_id;
        self.acknowledged(label, notification_token(form), now)
    }

    fn exchange(&mut self, code: &str, notification_token: Option<&String>, now: SystemTime) -> Reply {
        let Some(&label) = self.codes.get(code) else { return Reply::error(Said::InvalidGrant, "invalid_grant") };
        if self.processes[label].exchanged_at.is_some() {
            return Reply::error(Said::InvalidGrant, "invalid_grant");
        }
        self.acknowledged(label, notification_token, now)
    }

    /// The answer with the identifier. The time counts from here.
    fn acknowledged(&mut self, label: usize, notification_token: Option<&String>, now: SystemTime) -> Reply {
        let dialect = self.dialect_of(label);
        let has_interim = self.processes[label].plan.interim && dialect == Dialect::OpenId;
        let interim = has_interim.then(|| self.id_token(label, now, false));
        let name = self.identifier(label);
        let process = &mut self.processes[label];
        process.exchanged_at = Some(now);
        process.last_poll = Some(now);
        process.notification_token = notification_token.cloned();
        let mut body = json!({});
        body[name] = json!(process.auth_id);
        if let Some(interval) = process.plan.interval {
            body["interval"] = json!(interval.as_secs());
        }
        if let Some(lifetime) = process.plan.expires_in {
            body["expires_in"] = json!(lifetime.as_secs());
        }
        if let Some(token) = interim {
            body["interim_id_token"] = json!(token);
        }
        if dialect == Dialect::Ietf {
            body["error"] = json!("authorization_pending");
        }
        Reply::json(Said::Exchanged, if dialect == Dialect::Ietf { 400 } else { 200 }, &body)
    }

    /// A pending answer. In the IETF dialect there are several, and they alternate.
    fn pending(&self, label: usize, now: SystemTime) -> Reply {
        let process = &self.processes[label];
        if !self.is_ietf(process.client) {
            return Reply::error(Said::Pending, "authorization_pending");
        }
        let uri = format!("{}/interact/{}", issuer(process.client), unix(now) / 60);
        let body = match unix(now) % 4 {
            0 => json!({"error": "authorization_pending"}),
            1 => json!({"error": "authorization_pending", "deferral_code": process.auth_id, "interval": 1}),
            2 => json!({"error": "interaction_required", "interaction_uri": uri}),
            _ => json!({"error": "interaction_pending"}),
        };
        Reply::json(Said::Pending, 400, &body)
    }

    fn poll(&mut self, auth_id: &str, now: SystemTime) -> Reply {
        let Some(&label) = self.auth_ids.get(auth_id) else {
            return Reply::error(Said::InvalidGrant, "invalid_grant");
        };
        let forgets_cancelled = self.forgets_cancelled;
        let process = &mut self.processes[label];
        let exchanged_at = process.exchanged_at.expect("the identifier is unknown before");
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        if process.served {
            return Reply::error(Said::InvalidGrant, "invalid_grant");
        }
        if process.cancelled {
            return match forgets_cancelled {
                true => Reply::error(Said::InvalidGrant, "invalid_grant"),
                false => Reply::error(Said::Denied, "access_denied"),
            };
        }
        if process.plan.expires_in.is_some_and(|lifetime| since(exchanged_at) >= lifetime) {
            return Reply::error(Said::Expired, "expired_token");
        }
        if since(exchanged_at) >= process.plan.decides_after {
            match process.plan.decision {
                Decision::Approve => return self.success(label, now),
                Decision::Deny => return Reply::error(Said::Denied, "access_denied"),
                Decision::Grant => return Reply::error(Said::InvalidGrant, "invalid_grant"),
                Decision::Request => return Reply::error(Said::InvalidRequest, "invalid_request"),
                Decision::Never => {}
            }
        }
        let early = process.last_poll.is_some_and(|last| since(last) < Duration::from_millis(900));
        process.last_poll = Some(now);
        if early || (process.slow_downs < process.plan.slow_downs && unix(now).is_multiple_of(3)) {
            process.slow_downs += 1;
            return Reply::error(Said::SlowDown, "slow_down");
        }
        self.pending(label, now)
    }

    fn success(&mut self, label: usize, now: SystemTime) -> Reply {
        self.processes[label].served = true;
        let body = json!({
            "access_token": format!("access-{label}"),
            "token_type": "DPoP",
            "expires_in": 600,
            "id_token": self.id_token(label, now, true),
        });
        Reply::json(Said::Success, 200, &body)
    }

    fn id_token(&self, label: usize, now: SystemTime, last: bool) -> String {
        let process = &self.processes[label];
        let forged = process.plan.forged && last;
        let is_ciba = self.dialect_of(label) == Dialect::Ciba;
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": kid(self.current_key)});
        let mut claims = json!({
            "iss": issuer(process.client),
            "sub": format!("user-{label}"),
            "aud": CLIENT_ID,
            "iat": unix(now),
            "exp": unix(now) + 600,
        });
        match (is_ciba, forged) {
            (false, true) => claims["nonce"] = json!("of somebody else"),
            (false, false) => claims["nonce"] = json!(process.nonce),
            (true, true) => claims["aud"] = json!("somebody else"),
            (true, false) => {}
        }
        let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", segment(&header), segment(&claims));
        let signature = keys()[self.current_key].sign(message.as_bytes()).now_or_never();
        let signature = signature.expect("a key in memory signs at once").expect("it signs");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The current and all earlier keys: an OP publishes a key as long as its tokens live.
    fn key_set(&self) -> Value {
        let published = keys().iter().enumerate().take(self.current_key + 1);
        let keys: Vec<_> = published
            .map(|(number, key)| {
                let mut jwk = key.public_jwk();
                jwk.insert("kid".to_owned(), json!(kid(number)));
                jwk
            })
            .collect();
        json!({ "keys": keys })
    }

    pub fn rotate_keys(&mut self) {
        self.current_key = (self.current_key + 1).min(keys().len() - 1);
    }
}

fn kid(number: usize) -> String {
    format!("key-{number}")
}

/// The code of a token request.
pub fn code(form: &BTreeMap<String, String>) -> Option<&String> {
    form.get("deferred_code").or(form.get("code"))
}

/// The identifier of a poll or a cancellation.
pub fn identifier(form: &BTreeMap<String, String>) -> Option<&String> {
    let revoked = form.get("token").filter(|_| form.get("token_type_hint").is_some_and(|hint| hint == CODE_TYPE));
    form.get("deferred_auth_id").or(form.get("deferral_code")).or(form.get("auth_req_id")).or(revoked)
}

/// The user whom a backchannel authentication request names.
pub fn label_of_hint(form: &BTreeMap<String, String>) -> Option<usize> {
    form.get("login_hint")?.strip_prefix("user-")?.parse().ok()
}

/// The bearer token for callbacks in the request with a code.
pub fn notification_token(form: &BTreeMap<String, String>) -> Option<&String> {
    form.get("deferred_notification_token").or(form.get("client_notification_token"))
}

fn metadata(issuer: &str, dialect: Dialect) -> Value {
    let mut metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "response_types_supported": ["deferred_code"],
        "grant_types_supported": ["urn:openid:params:grant-type:deferred"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "dpop_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": true,
    });
    if dialect == Dialect::Ciba {
        metadata["response_types_supported"] = json!(["code"]);
        metadata["grant_types_supported"] = json!(["authorization_code", "urn:openid:params:grant-type:ciba"]);
        metadata["backchannel_authentication_endpoint"] = json!(format!("{issuer}/bc-authorize"));
        metadata["backchannel_token_delivery_modes_supported"] = json!(["ping"]);
    }
    if dialect == Dialect::Ietf {
        metadata["response_types_supported"] = json!(["code"]);
        metadata["grant_types_supported"] = json!(["authorization_code"]);
        metadata["deferred_token_response_supported"] = json!(true);
        metadata["revocation_endpoint"] = json!(format!("{issuer}/cancel"));
        metadata["revocation_endpoint_token_type_values_supported"] = json!([CODE_TYPE]);
    }
    metadata
}

/// The claims of a JWT, with any signature.
fn claims(token: &str) -> Value {
    let segment = token.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(segment).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
