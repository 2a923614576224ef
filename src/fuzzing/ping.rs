//! Ping Callbacks, through the receiver without a framework.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body, Frame};
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::world::{CLIENT_ID, Chance, DEFERRED_AUTH_ID, ISSUER, REDIRECT_URI, Site, World, keyring, run};
use crate::client::Client;
use crate::ping::{BODY_LIMIT, Receiver};
use crate::poller::Poller;
use crate::store::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, CorrectionProgress, CorrectionStep, Fingerprint,
    HeldOutcome, Insertion, KeyStats, NewProcess, OutcomeBatch, OutcomeClaim, Partition, PartitionStats, Ping, Pinged,
    Process, ProcessId, Reseal, Settlement, Store, StoreError, StoreProblem, Work,
};

const PROCESS: [u8; 16] = *b"the only process";

/// A line with the method, lines with headers, an empty line, and the body. In a header `%P` is replaced with the
/// genuine token of the sign-in, `%C` with one of another client, `%K` with one under another key. The lowest bit of
/// the first byte selects whether one token serves all sign-ins. The other bits are the length of the body's frames.
pub fn ping(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let receivers = &*RECEIVERS;
    let is_static = choice & 1 != 0;
    let receiver = if is_static { &receivers.with_static_token } else { &receivers.per_process };
    let end = rest.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + 2..]));
    let mut lines = head.split(|&byte| byte == b'\n');
    let method = Method::from_bytes(lines.next().unwrap_or_default()).unwrap_or(Method::POST);
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let value = receivers.with_tokens(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&value)) {
            headers.append(name, value);
        }
    }

    let _alone = receivers.alone.lock().unwrap_or_else(PoisonError::into_inner);
    receivers.pings.lock().unwrap().clear();
    let mut request =
        http::Request::new(Frames { left: Bytes::copy_from_slice(body), length: usize::from(choice >> 1) });
    (*request.method_mut(), *request.headers_mut()) = (method.clone(), headers.clone());
    let response = run(receiver.receive(request));
    let status = response.status().as_u16();
    let pings = std::mem::take(&mut *receivers.pings.lock().unwrap());

    let named = identifier(body);
    let is_genuine = receivers.is_genuine(&headers, is_static);
    assert!([204, 400, 401, 405, 413, 415].contains(&status), "{status}");
    assert!(pings.len() <= 1);
    match pings.first() {
        // The store is only called for a ping with a genuine token that names a sign-in.
        Some(ping) => {
            assert!(is_genuine && method == Method::POST && body.len() <= BODY_LIMIT);
            assert_eq!(ping.id, (!is_static).then(|| ProcessId::from_bytes(PROCESS)));
            let named = named.expect("the body names no sign-in");
            assert_eq!(status, if is_static || named == DEFERRED_AUTH_ID { 204 } else { 401 });
        }
        None => assert_ne!(status, 204),
    }
    assert_eq!(status == 405, method != Method::POST);
    assert_eq!(status == 405, response.headers().contains_key(ALLOW));
    assert_eq!(status == 401, response.headers().contains_key(WWW_AUTHENTICATE));
    assert!(is_genuine || [401, 405].contains(&status), "a sender without a token learned more than that: {status}");
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
    let announces = headers.contains_key(CONTENT_LENGTH);
    if method == Method::POST && is_json && !announces && body.len() <= BODY_LIMIT {
        let expected = match (is_genuine, identifier(body)) {
            (false, _) => 401,
            (true, None) => 400,
            (true, Some(named)) => {
                if is_static || named == DEFERRED_AUTH_ID {
                    204
                } else {
                    401
                }
            }
        };
        assert_eq!(status, expected, "{:?}", String::from_utf8_lossy(body));
    }
}

/// The body of a request, in frames.
struct Frames {
    left: Bytes,
    /// 0 for a single frame.
    length: usize,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = if self.length == 0 { self.left.len() } else { self.length.min(self.left.len()) };
        let data = self.left.split_to(length);
        Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
    }
}

/// A second implementation of the rule: one JSON object with a `deferred_auth_id`, a `deferral_code` or an `auth_req_id`
/// that is a string. Each may be repeated, and several may be there, with the same value. Other members are ignored, and so is a `null`.
fn identifier(body: &[u8]) -> Option<String> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let named = serde::Deserializer::deserialize_map(&mut reader, Named).ok()?;
    reader.end().ok()?;
    let mut found = Vec::new();
    for name in ["deferred_auth_id", "deferral_code", "auth_req_id"] {
        let values: Vec<_> = named.iter().filter(|(of, _)| of == name).map(|(_, value)| value).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            return None;
        }
        found.extend(values.first().filter(|value| !value.is_null()).copied());
    }
    match found.first()? {
        Value::String(id) if found.iter().all(|other| *other == id) => Some(id.clone()),
        _ => None,
    }
}

/// Reads every identifier of an object, by the name of its member.
struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut named = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            match &*name {
                "deferred_auth_id" | "deferral_code" | "auth_req_id" => {
                    let value = members.next_value()?;
                    named.push((name, value));
                }
                _ => _ = members.next_value::<Value>()?,
            }
        }
        Ok(named)
    }
}

/// The receivers, set up once.
struct Receivers {
    per_process: Receiver,
    with_static_token: Receiver,
    tokens: [(&'static [u8], String); 3],
    pings: Arc<Mutex<Vec<Ping>>>,
    alone: Mutex<()>,
    /// The runtime of the poller's own task, which is never run.
    _runtime: tokio::runtime::Runtime,
}

const STATIC_TOKEN: &str = "pl4nt-static-token";

static RECEIVERS: LazyLock<Receivers> = LazyLock::new(|| {
    let world = World::new(Site::default());
    let client = world.with_secret().build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pings = Arc::<Mutex<Vec<Ping>>>::default();
    let parts = [ISSUER, CLIENT_ID, DEFERRED_AUTH_ID].map(str::as_bytes);
    let genuine = keyring().fingerprints("deferred_auth_id", &parts).into_iter().map(Fingerprint).collect();
    let store = PingRecorder { pings: pings.clone(), genuine };
    let builder = Poller::builder(store, keyring()).client(client.clone()).clock(world.clock.clone());
    let poller = {
        let _entered = runtime.enter();
        run(builder.random(world.random.clone()).receives_pings().connect()).unwrap()
    };
    let token = |keyring: &crate::keyring::Keyring, client: &Client, process| {
        let numbered = client.partition();
        let token = keyring.notification_token(&Chance::default(), numbered, process, ISSUER, client.client_id());
        token.unwrap().expose().to_owned()
    };
    let stranger = Client::builder(ISSUER, "stranger").redirect_uri(REDIRECT_URI).http_client(world.site.clone());
    let stranger = stranger.build().unwrap();
    let other_key = crate::keyring::SealingKey::from_bytes(*b"another key, of nobody's concern").unwrap();
    Receivers {
        per_process: Receiver::new(poller.clone()),
        with_static_token: Receiver::with_static_token(poller, ISSUER, CLIENT_ID, STATIC_TOKEN).unwrap(),
        tokens: [
            (b"%P", token(&keyring(), &client, PROCESS)),
            (b"%C", token(&keyring(), &stranger, PROCESS)),
            (b"%K", token(&crate::keyring::Keyring::new(other_key), &client, PROCESS)),
        ],
        pings,
        alone: Mutex::new(()),
        _runtime: runtime,
    }
});

impl Receivers {
    fn with_tokens(&self, value: &[u8]) -> Vec<u8> {
        let mut written = value.to_vec();
        for (name, token) in &self.tokens {
            if let Some(at) = written.windows(name.len()).position(|bytes| bytes == *name) {
                written.splice(at..at + name.len(), token.bytes());
            }
        }
        written
    }

    /// A second implementation of RFC 6750 §2.1.
    fn is_genuine(&self, headers: &HeaderMap, is_static: bool) -> bool {
        let token = if is_static { STATIC_TOKEN } else { &self.tokens[0].1 };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let value = value.as_bytes();
        value.len() >= 7
            && value[..7].eq_ignore_ascii_case(b"Bearer ")
            && value[7..].iter().copied().skip_while(|&byte| byte == b' ').eq(token.bytes())
    }
}

/// A store that records pings.
#[derive(Debug)]
struct PingRecorder {
    pings: Arc<Mutex<Vec<Ping>>>,
    /// The fingerprints of its only sign-in.
    genuine: Vec<Fingerprint>,
}

impl PingRecorder {
    fn unused<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
        Box::pin(std::future::ready(Err(StoreError::new(StoreProblem::Unusable))))
    }
}

impl Store for PingRecorder {
    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        let pinged = match (ping.lookups == self.genuine, ping.id) {
            (true, id) => {
                Pinged::Recorded { id: id.unwrap_or(ProcessId::from_bytes(PROCESS)), partition: Partition(0) }
            }
            (false, Some(_)) => Pinged::Mismatch,
            (false, None) => Pinged::NotFound,
        };
        self.pings.lock().unwrap().push(ping);
        Box::pin(std::future::ready(Ok(pinged)))
    }

    fn not_sealed_with(
        &self,
        _: [u8; 4],
        _: Option<ProcessId>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn insert(&self, _: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>> {
        Self::unused()
    }

    fn settle_and_claim(&self, _: Vec<Settlement>, _: Option<Claim>) -> BoxFuture<'_, Result<Work, StoreError>> {
        Self::unused()
    }

    fn load(&self, _: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>> {
        Self::unused()
    }

    fn cancel(&self, _: ProcessId, _: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>> {
        Self::unused()
    }

    fn claim_outcomes(&self, _: OutcomeClaim) -> BoxFuture<'_, Result<OutcomeBatch, StoreError>> {
        Self::unused()
    }

    fn extend_outcomes(&self, _: Vec<HeldOutcome>, _: Duration) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Self::unused()
    }

    fn acknowledge(&self, _: Vec<Acknowledgement>) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>> {
        Self::unused()
    }

    fn forget(&self, _: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Self::unused()
    }

    fn purge(&self, _: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Self::unused()
    }

    fn expire_outcomes(&self, _: Duration, _: Duration, _: usize) -> BoxFuture<'_, Result<Vec<ProcessId>, StoreError>> {
        Self::unused()
    }

    fn spread(&self, _: Partition, _: Duration, _: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Self::unused()
    }

    fn correct_due_times(&self, _: CorrectionStep) -> BoxFuture<'_, Result<CorrectionProgress, StoreError>> {
        Self::unused()
    }

    fn reseal(&self, _: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Self::unused()
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        Self::unused()
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        Self::unused()
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        Box::pin(std::future::pending())
    }

    fn check_interval(&self) -> Duration {
        Duration::from_secs(60)
    }
}
