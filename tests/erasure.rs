//! Checks that this program's memory contains no secrets after everything that held them was dropped.
//!
//! The secrets pass through all code that they pass through in an application, except the network below `HttpClient`:
//! TLS and HTTP libraries copy what they send into buffers of their own. This file has only one test, so that the
//! search sees no other test's memory.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use openid_deferred::poller::{self, Event};
use openid_deferred::store::{MemoryStore, Store as _};
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use openid_deferred::{
    Client, ClientAuthentication, Grant, Keyring, PendingAuthentication, Poller, SignIn, SigningKey, TokenAnswer,
};
use zeroize::Zeroizing;

const MASK: u8 = 0x5a;
const CLIENT_ID: &str = "my-client";

/// How often the text of a secret is repeated. A long secret occupies blocks of memory that few other values reuse. If
/// a part is reused, the text remains in the rest.
const REPEATED: usize = 100;
/// The repetitions in `interaction_uri`, which is at most 2,048 characters long.
const URI_REPEATED: usize = 60;
/// The repetitions of the client secret. It is longer than any other value.
const SECRET_REPEATED: usize = 700;

/// Text that is in memory only in masked form, except where this test reveals it.
struct Masked(Vec<u8>);

impl Masked {
    /// Text that no program contains by chance.
    fn new(seed: u32) -> Self {
        let mut state = seed;
        let letters = (0..30).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (b'a' + (state >> 24) as u8 % 26) ^ MASK
        });
        Self(letters.collect())
    }

    fn shown(&self, times: usize) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(times * self.0.len()));
        (0..times).for_each(|_| text.extend(self.0.iter().map(|byte| char::from(byte ^ MASK))));
        text
    }
}

/// Returns the secrets that this program's writable memory contains.
fn found<'a>(secrets: &[(&'a str, &Masked)]) -> BTreeSet<&'a str> {
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut found = BTreeSet::new();
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut columns = line.split(' ');
        let (range, rights) = (columns.next().unwrap(), columns.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut bytes = Zeroizing::new(vec![0; (end - start) as usize]);
        memory.seek(SeekFrom::Start(start)).unwrap();
        // Guard pages and pages that have been unmapped since cannot be read.
        if memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        for (at, first) in bytes.iter().enumerate() {
            for (name, Masked(masked)) in secrets.iter().filter(|(_, secret)| secret.0[0] == first ^ MASK) {
                let here = bytes[at..].iter().map(|byte| byte ^ MASK).take(masked.len());
                if here.eq(masked.iter().copied()) {
                    found.insert(*name);
                }
            }
        }
    }
    found
}

/// An OP that is called without a network. Its answers are erased when they are dropped.
#[derive(Debug)]
struct Op {
    id: Masked,
    access_token: Masked,
    interim: Masked,
    claims: Masked,
    basic: Masked,
    subject: Masked,
    deferral_code: Masked,
    interaction: Masked,
    exchanges: AtomicUsize,
}

impl std::fmt::Debug for Masked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("masked")
    }
}

const METADATA: &str = r#"{
    "issuer": "https://op.example",
    "authorization_endpoint": "https://op.example/authorize",
    "token_endpoint": "https://op.example/token",
    "jwks_uri": "https://op.example/keys",
    "response_types_supported": ["deferred_code"],
    "grant_types_supported": ["urn:openid:params:grant-type:deferred"]
}"#;

impl Op {
    fn new(basic: Masked) -> Self {
        let [id, access_token, interim, claims, subject, deferral_code, interaction] =
            [3, 4, 5, 6, 7, 8, 9].map(Masked::new);
        let exchanges = AtomicUsize::new(0);
        Self { id, access_token, interim, claims, basic, subject, deferral_code, interaction, exchanges }
    }
}

impl HttpClient for Op {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            let (status, body) = match request.url.path() {
                "/token" if find(&request.body, b"token-exchange") => {
                    drop(request);
                    (StatusCode::BAD_REQUEST, self.deferral())
                }
                "/token" => {
                    assert!(request.headers.contains_key("authorization") && !request.body.is_empty());
                    drop(request);
                    self.exchanges.fetch_add(1, Ordering::Relaxed);
                    let left = found(&[("the client secret in a Basic header", &self.basic)]);
                    assert!(left.is_empty(), "{left:?} is still in memory when the request has been dropped");
                    let mut answer = joined(&[
                        r#"{"deferred_auth_id":""#,
                        &self.id.shown(REPEATED),
                        r#"","id_token":""#,
                        &self.interim.shown(REPEATED),
                        r#".x","interim_id_token":"e30."#,
                        // Claims that no parser copies.
                        &encoded(&joined(&["{", &self.claims.shown(REPEATED)])),
                        r#".x","access_token":""#,
                        &self.access_token.shown(REPEATED),
                        r#"","expires_in":86400,"interval":60}"#,
                    ]);
                    (StatusCode::OK, Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *answer).into_bytes())))
                }
                _ => (StatusCode::OK, Bytes::from_static(METADATA.as_bytes())),
            };
            let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/json".parse().unwrap())]);
            Ok(HttpResponse { status, headers, body })
        })
    }
}

impl Op {
    /// The answer to a token request that is deferred, in the IETF dialect.
    fn deferral(&self) -> Bytes {
        let mut answer = joined(&[
            r#"{"error":"interaction_required","interaction_uri":"https://op.example/"#,
            &self.interaction.shown(URI_REPEATED),
            r#"","deferral_code":""#,
            &self.deferral_code.shown(REPEATED),
            r#"","expires_in":86400,"interval":60}"#,
        ]);
        Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *answer).into_bytes()))
    }
}

fn find(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

fn joined(pieces: &[&str]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
    pieces.iter().for_each(|piece| text.push_str(piece));
    text
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(text))
}

#[tokio::test]
async fn no_secret_is_left_in_memory_after_its_owners_are_dropped() {
    let [secret, code] = [1, 2].map(Masked::new);
    // The text repeats in base64 too, because three of its bytes become four characters.
    let basic = {
        let pair = joined(&[CLIENT_ID, ":", &secret.shown(SECRET_REPEATED)]);
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        Masked(encoded.bytes().skip(40).take(40).map(|byte| byte ^ MASK).collect())
    };
    let op = Arc::new(Op::new(basic));
    let keyring = Keyring::ephemeral().unwrap();

    let client = Client::builder("https://op.example", CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(std::mem::take(&mut *secret.shown(SECRET_REPEATED))))
        .redirect_uri("https://rp.example/callback")
        .http_client(op.clone())
        .build()
        .unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let query = joined(&["deferred_code=", &code.shown(REPEATED), "&state=", &state]);
    let SignIn::Deferred(pending) = client.authorization_response(&query, session).await.unwrap() else {
        panic!("a deferral was expected")
    };
    // Both are rejected, because there are two of them. Only hashes are kept.
    let rejected = [("an interim ID Token", &op.interim), ("the claims of an interim ID Token", &op.claims)];
    assert_eq!(found(&rejected), BTreeSet::new(), "is still in memory");
    let sealed = pending.seal(&keyring).unwrap();
    let opened = PendingAuthentication::open(&keyring, &sealed).unwrap();
    assert_eq!(op.exchanges.load(Ordering::Relaxed), 1);

    token_requests(&client, &op, &keyring).await;

    let (jwk_key, jwk) = private_jwk();
    let signing_key = SigningKey::from_jwk(&jwk).unwrap();

    let secrets = [
        ("the client secret", &secret),
        ("the deferred code", &code),
        ("deferred_auth_id", &op.id),
        ("the access token", &op.access_token),
        ("a private key as a JWK", &jwk_key),
        ("the client secret in a Basic header", &op.basic),
    ];
    // Checks that the search finds secrets that are in memory. The header has been sent and erased by now.
    assert_eq!(found(&secrets), BTreeSet::from_iter(secrets[..5].iter().map(|(name, _)| *name)));
    drop((client, query, pending, opened, signing_key, jwk));
    assert_eq!(found(&secrets), BTreeSet::new(), "is still in memory");
}

/// Token requests of the IETF dialect: with a pending value that the application stores, and with a poller that forgets
/// the request.
async fn token_requests(client: &Client, op: &Op, keyring: &Keyring) {
    let secrets = [
        ("the subject token", &op.subject),
        ("deferral_code", &op.deferral_code),
        ("interaction_uri", &op.interaction),
    ];
    let grant = || {
        let subject = std::mem::take(&mut *op.subject.shown(REPEATED));
        Grant::token_exchange(subject, "urn:ietf:params:oauth:token-type:access_token")
    };
    let TokenAnswer::Deferred(pending) = client.token_request(grant()).send().await.unwrap() else {
        panic!("a deferral was expected")
    };
    let opened = PendingAuthentication::open(keyring, &pending.seal(keyring).unwrap()).unwrap();
    assert!(opened.interaction_uri().is_some());
    assert_eq!(found(&secrets), BTreeSet::from(["deferral_code", "interaction_uri"]), "the subject token is erased");
    drop((pending, opened));
    assert_eq!(found(&secrets), BTreeSet::new(), "is still in memory");

    let store = Arc::new(MemoryStore::new());
    let poller = Poller::builder(store.clone(), keyring.clone()).client(client.clone()).start().await.unwrap();
    let mut events = poller.events();
    let accepted = poller.request_tokens(client.token_request(grant())).await.unwrap();
    let poller::AcceptedTokenRequest::Deferred(id) = accepted else { panic!("a deferral was expected") };
    let status = poller.status(id).await.unwrap().unwrap();
    assert!(status.interaction_uri().is_some());
    while !matches!(events.next().await, Some(Event::InteractionRequired { .. })) {}
    assert_eq!(found(&secrets), BTreeSet::from(["interaction_uri"]), "the code is sealed");
    drop((status, events));
    assert!(poller.forget(id).await.unwrap());
    assert!(poller.status(id).await.unwrap().is_none() && store.load(id).await.unwrap().is_none());
    assert_eq!(found(&secrets), BTreeSet::new(), "is still in memory");
    poller.shutdown(Duration::from_secs(1)).await;
}

/// The key of RFC 8037 §A.1, and its private part in base64url.
fn private_jwk() -> (Masked, Zeroizing<String>) {
    // It is masked by hand, because the text of a constant would be in memory.
    let masked = Masked(MASKED_KEY.to_vec());
    let start = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":""#;
    let jwk = joined(&[start, &masked.shown(1), "\"}"]);
    (masked, jwk)
}

const MASKED_KEY: [u8; 43] = [
    52, 13, 29, 34, 52, 63, 5, 99, 13, 55, 25, 108, 50, 31, 40, 106, 49, 47, 45, 41, 34, 31, 8, 16, 34, 13, 54, 109,
    23, 55, 49, 0, 57, 30, 47, 41, 27, 34, 35, 47, 60, 104, 27,
];
