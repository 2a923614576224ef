//! The environment of an input: a stopped clock, repeatable randomness, an OP that answers with the input, and an
//! application with recognisable secrets.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, ClientAlgorithms, ClientBuilder, DpopMode};
use crate::clock::{Clock, from_unix_seconds};
use crate::dpop::DpopKey;
use crate::endpoint::ClientAuthentication;
use crate::error::{Error, TransportProblem};
use crate::keyring::{Keyring, Purpose, SealingKey};
use crate::provider::ProviderMetadata;
use crate::random::Random;
use crate::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};

pub(super) const ISSUER: &str = "https://op.example";
pub(super) const CLIENT_ID: &str = "app";
pub(super) const REDIRECT_URI: &str = "https://rp.example/callback";
/// The initial time of the clock, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;

/// Every secret of the application contains this text. Inputs can contain it too, to mark text that must stay secret.
pub(super) const PLANT: &str = "pl4nt";
pub(super) const CLIENT_SECRET: &str = "pl4nt-client-secret-that-is-long-enough-for-an-hmac-of-512-bits-0123456789";
pub(super) const STATE: &str = "pl4nt-state";
pub(super) const NONCE: &str = "pl4nt-nonce";
pub(super) const CODE: &str = "pl4nt-code";
pub(super) const ACCESS_TOKEN: &str = "pl4nt-access-token";
pub(super) const DEFERRED_AUTH_ID: &str = "pl4nt-deferred-auth-id";

/// Keys and genuine tokens, generated once by another implementation.
pub(super) static FIXED: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("fixed.json")).expect("the fixed values are JSON"));

/// A text in [`FIXED`], by its JSON pointer.
pub(super) fn fixed(pointer: &str) -> &'static str {
    FIXED.pointer(pointer).and_then(Value::as_str).expect("the fixed values are complete")
}

pub(super) fn keyring() -> Keyring {
    static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
        Keyring::new(SealingKey::from_bytes(*b"no key of anybody but the fuzzer").expect("it is a key"))
    });
    KEYRING.clone()
}

pub(super) fn dpop_key() -> DpopKey {
    static KEY: LazyLock<DpopKey> =
        LazyLock::new(|| DpopKey::from_bytes(&dpop_key_bytes()).expect("the fixed key is a key"));
    KEY.clone()
}

fn dpop_key_bytes() -> Vec<u8> {
    let raw = URL_SAFE_NO_PAD.decode(fixed("/dpop_scalar_x_y")).expect("it is base64url");
    [&[1], raw.as_slice()].concat()
}

/// A genuine authorization session in its sealed form.
pub(super) fn session_json() -> Value {
    json!({
        "v": 1, "iss": ISSUER, "cid": CLIENT_ID, "uri": REDIRECT_URI, "rt": "d", "ir": false, "st": STATE,
        "ver": "pl4nt-verifier", "key": URL_SAFE_NO_PAD.encode(dpop_key_bytes()), "chk": { "n": NONCE, "t": NOW },
    })
}

/// A genuine pending sign-in in its sealed form, with an interval of one minute.
pub(super) fn pending_json() -> Value {
    json!({
        "v": 1, "iss": ISSUER, "cid": CLIENT_ID, "id": DEFERRED_AUTH_ID,
        "key": URL_SAFE_NO_PAD.encode(dpop_key_bytes()), "nt": "pl4nt-notification", "at": ACCESS_TOKEN,
        "chk": { "n": NONCE, "t": NOW - 600 }, "int": "Absent",
        "sch": {
            "int": 60_000, "sent": NOW - 61, "recv": NOW - 60, "exp": 86_400_000, "fin": 5_000,
            "due": { "at": NOW * 1_000, "of": 60_000 },
        },
    })
}

/// The same in the IETF dialect, for a request without a user who is needed now.
pub(super) fn pending_ietf_json() -> Value {
    let mut pending = pending_json();
    let members = pending.as_object_mut().expect("it is an object");
    members.remove("chk");
    members.remove("at");
    members.extend([
        ("v".to_owned(), json!(2)),
        ("dl".to_owned(), json!("ietf")),
        ("iu".to_owned(), json!("https://op.example/pl4nt-interaction")),
    ]);
    pending
}

/// The same for a user whom the client named (CIBA).
pub(super) fn pending_ciba_json() -> Value {
    let mut pending = pending_json();
    let members = pending.as_object_mut().expect("it is an object");
    members.remove("at");
    members.extend([
        ("v".to_owned(), json!(2)),
        ("dl".to_owned(), json!("ciba")),
        ("chk".to_owned(), json!({ "t": NOW - 600 })),
    ]);
    pending
}

/// A genuine result with its tokens in its sealed form.
pub(super) fn authentication_json() -> Value {
    json!({
        "v": 1, "iss": ISSUER, "cid": CLIENT_ID, "t": NOW, "tt": "d", "at": ACCESS_TOKEN, "rt": "pl4nt-refresh-token",
        "idt": {
            "token": fixed("/tokens/es256"),
            "times": { "issued_at": NOW - 10, "expires_at": NOW + 3_600, "auth_time": NOW - 600, "updated_at": null },
        },
        "key": URL_SAFE_NO_PAD.encode(dpop_key_bytes()),
    })
}

/// Seals a plaintext, genuine or not.
pub(super) fn sealed(purpose: Purpose, context: &[u8], plaintext: &[u8]) -> Vec<u8> {
    keyring().seal(&Chance::default(), purpose, context, plaintext).expect("sealing works")
}

/// The passed time in milliseconds. It only advances when a test moves it.
#[derive(Debug, Default)]
pub(super) struct StoppedClock(AtomicU64);

impl StoppedClock {
    pub(super) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> SystemTime {
        from_unix_seconds(NOW) + self.passed()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1_000) + self.passed()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        // Code here that races a sleep with something else prefers the latter. Pauses between attempts take no time.
        Box::pin(std::future::ready(()))
    }
}

/// The same numbers in each run.
#[derive(Debug, Default)]
pub(super) struct Chance(AtomicU64);

impl Random for Chance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let drawn = (drawn ^ (drawn >> 31)).to_be_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
        Ok(())
    }
}

/// One answer of the OP, or of a gateway.
#[derive(Debug, Clone)]
pub(super) enum Served {
    Response { status: StatusCode, headers: HeaderMap, body: Bytes },
    NotSent,
    Lost,
}

impl Served {
    pub(super) fn json(body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self::Response { status: StatusCode::OK, headers, body: body.into() }
    }

    /// Parses one answer: a line with the status and the media type, lines with headers, an empty line, the body. A
    /// status of `!` means a request that was not sent, `?` a request without an answer.
    fn read(text: &[u8]) -> Self {
        let end = text.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = end.map_or((text, &[][..]), |end| (&text[..end], &text[end + 2..]));
        let mut lines = head.split(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        match first.first() {
            Some(b'!') => return Self::NotSent,
            Some(b'?') => return Self::Lost,
            _ => {}
        }
        let (status, media_type) = first.split_at(first.len().min(3));
        let mut headers = HeaderMap::new();
        if let Ok(media_type) = HeaderValue::from_bytes(media_type.trim_ascii())
            && !media_type.is_empty()
        {
            headers.insert(CONTENT_TYPE, media_type);
        }
        for line in lines.take(100) {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let name = HeaderName::from_bytes(&line[..colon]);
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::OK);
        Self::Response { status, headers, body: with_tokens(body).into() }
    }
}

/// Parses answers that are separated by a line of `%%`.
pub(super) fn answers(input: &[u8]) -> VecDeque<Served> {
    const BETWEEN: &[u8] = b"\n%%\n";
    let (mut answers, mut rest) = (VecDeque::new(), input);
    while answers.len() < 16 {
        match rest.windows(BETWEEN.len()).position(|bytes| bytes == BETWEEN) {
            Some(end) => {
                answers.push_back(Served::read(&rest[..end]));
                rest = &rest[end + BETWEEN.len()..];
            }
            None => {
                answers.push_back(Served::read(rest));
                break;
            }
        }
    }
    answers
}

/// Replaces `%T` with the genuine final ID Token, which no mutation would find.
fn with_tokens(body: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.windows(2).position(|bytes| bytes == b"%T") {
        written.extend_from_slice(&rest[..at]);
        written.extend_from_slice(fixed("/tokens/hs256").as_bytes());
        rest = &rest[at + 2..];
    }
    written.extend_from_slice(rest);
    written
}

/// An OP that returns one answer after the other, whatever the request is. Named pages always have the same answer.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) pages: Vec<(&'static str, Served)>,
    pub(super) answers: Mutex<VecDeque<Served>>,
    /// The requests for other URLs than the pages.
    pub(super) seen: Mutex<Vec<HttpRequest>>,
    pub(super) last: Mutex<Option<Served>>,
}

impl Site {
    pub(super) fn new(answers: VecDeque<Served>) -> Self {
        Self {
            pages: vec![(METADATA_URL, Served::json(METADATA)), (KEYS_URL, Served::json(keys()))],
            answers: Mutex::new(answers),
            ..Self::default()
        }
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.answers.lock().unwrap().is_empty()
    }

    pub(super) fn last_status(&self) -> Option<StatusCode> {
        match &*self.last.lock().unwrap() {
            Some(Served::Response { status, .. }) => Some(*status),
            _ => None,
        }
    }
}

impl HttpClient for Site {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let page = self.pages.iter().find(|(url, _)| *url == request.url.as_str());
        let (limit, document) = (request.body_limit, request.document);
        let served = page.map(|(_, page)| page.clone()).unwrap_or_else(|| {
            self.seen.lock().unwrap().push(request);
            let served = self.answers.lock().unwrap().pop_front().unwrap_or(Served::NotSent);
            *self.last.lock().unwrap() = Some(served.clone());
            served
        });
        let sent = match served {
            Served::Response { body, .. } if body.len() > limit => {
                Err(HttpError::maybe_sent(TransportProblem::BodyTooLarge(document)))
            }
            Served::Response { status, headers, body } => Ok(HttpResponse { status, headers, body }),
            Served::NotSent => Err(HttpError::not_sent(TransportProblem::Connect)),
            Served::Lost => Err(HttpError::maybe_sent(TransportProblem::Timeout)),
        };
        Box::pin(std::future::ready(sent))
    }
}

pub(super) const METADATA_URL: &str = "https://op.example/.well-known/openid-configuration";
pub(super) const KEYS_URL: &str = "https://op.example/jwks";
pub(super) const METADATA: &str = r#"{
    "issuer": "https://op.example",
    "authorization_endpoint": "https://op.example/authorize",
    "token_endpoint": "https://op.example/token",
    "jwks_uri": "https://op.example/jwks",
    "userinfo_endpoint": "https://op.example/userinfo",
    "revocation_endpoint": "https://op.example/revoke",
    "introspection_endpoint": "https://op.example/introspect",
    "pushed_authorization_request_endpoint": "https://op.example/par",
    "backchannel_authentication_endpoint": "https://op.example/bc-authorize",
    "backchannel_token_delivery_modes_supported": ["poll", "ping"],
    "response_types_supported": ["code", "code deferred_code", "deferred_code"],
    "grant_types_supported": ["authorization_code", "urn:openid:params:grant-type:deferred", "urn:openid:params:grant-type:ciba"],
    "token_endpoint_auth_methods_supported": ["client_secret_basic"]
}"#;

/// The OP's genuine key set.
pub(super) fn keys() -> Bytes {
    static KEYS: LazyLock<Bytes> = LazyLock::new(|| FIXED["signing_keys"].to_string().into());
    KEYS.clone()
}

pub(super) struct World {
    pub(super) site: Arc<Site>,
    pub(super) clock: Arc<StoppedClock>,
    pub(super) random: Arc<Chance>,
}

impl World {
    pub(super) fn new(site: Site) -> Self {
        Self { site: Arc::new(site), clock: Arc::default(), random: Arc::default() }
    }

    /// A client of the OP, without credentials.
    pub(super) fn builder(&self) -> ClientBuilder {
        Client::builder(ISSUER, CLIENT_ID)
            .redirect_uri(REDIRECT_URI)
            .dpop(DpopMode::Shared(dpop_key()))
            .http_client(self.site.clone())
            .clock(self.clock.clone())
            .random(self.random.clone())
    }

    /// A client with a secret, which also authenticates the OP's ID Tokens: an HMAC is faster than a signature.
    pub(super) fn with_secret(&self) -> ClientBuilder {
        self.builder()
            .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
            .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(crate::jose::SigningAlgorithm::Hs256))
    }

    /// Builds a client that already has the genuine metadata.
    pub(super) fn client(builder: ClientBuilder) -> Client {
        static METADATA: LazyLock<ProviderMetadata> = LazyLock::new(|| {
            let client = World::new(Site::new(VecDeque::new())).builder().build().expect("the settings work");
            run(client.provider_metadata()).expect("the metadata are good")
        });
        let client = builder.build().expect("the settings work");
        client.provider().knows(METADATA.clone());
        client
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }
}

/// Runs a future to its end. No future here waits for anything else.
pub(super) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the future waits forever");
}

/// No error reveals a secret, and neither does its source. An error code is the only foreign text that may appear. It
/// is short and has only harmless characters.
pub(super) fn check_error(error: &Error) {
    assert!(error.retry_after().is_none_or(|wait| wait <= Duration::from_secs(86_400)), "{error:?}");
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut codes = Vec::new();
    let mut told = format!("{error:?} {error:#?}");
    while let Some(error) = next {
        told.push_str(&error.to_string());
        let response = error.downcast_ref::<Error>().and_then(Error::error_response);
        codes.extend(response.map(|response| response.code().to_owned()));
        next = error.source();
    }
    for code in codes {
        assert!(code.len() <= 64 && code.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{code:?}");
        told = told.replace(&code, "");
    }
    assert!(!told.contains(PLANT), "an error shows a secret: {told}");
}

/// The `Debug` output of a value may be logged, so it must not contain a secret.
pub(super) fn check_debug(value: &impl std::fmt::Debug) {
    let told = format!("{value:?}");
    assert!(!told.contains(PLANT), "`Debug` shows a secret: {told}");
}

/// Checks that a time is not later than the latest representable one.
pub(super) fn check_time(time: SystemTime) {
    assert!(time <= from_unix_seconds(u64::MAX), "{time:?}");
}
