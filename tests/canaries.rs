//! Nothing shows a secret: whole flows and every failure with tracing at its loudest, and a search through all that was
//! logged, formatted and stored for everything that was said in confidence.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::{self, Debug, Write as _};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use openid_deferred::ping::Receiver;
use openid_deferred::store::{MemoryStore, SealedBody, Store};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, IdTokenForgery, InterimToken, NoncePolicy, RecordedRequest, SeededRandom,
    TestCertificate, TestClient, TestClock, TestProvider, TestProviderBuilder, TestUser,
};
use openid_deferred::{
    Accepted, Authentication, AuthorizationSession, Client, ClientAuthentication, ClientBuilder, ClientCertificate,
    Clock as _, Error, ErrorResponse, HttpClient, HttpError, HttpRequest, HttpResponse, Keyring, Outcome, Poll, Poller,
    SealingKey, SignIn, SigningAlgorithm, SigningKey, TokenTypeHint, TransportProblem,
};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::symm::{Cipher, decrypt_aead};
use serde_json::{Value, json};

const CLIENT_ID: &str = "the-app";
const CLIENT_SECRET: &str = "canary of the client's secret: 100% +/?&";
const REDIRECT_URI: &str = "https://rp.test/callback";
const SEALING_KEY: [u8; 32] = *b"canary:the keyring's sealing key";
const CLAIM: &str = "Canary of a claim";
const PROGRESS: &str = "canary of the reviewer's progress";
const CONTEXT: &str = "canary of the application's context";
/// What is shorter occurs by chance; each form of it has more letters than are looked for first.
const LEAST: usize = 10;
const START: usize = 8;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn nothing_that_is_logged_formatted_or_stored_shows_a_secret_of_a_flow_that_succeeds() {
    let (log, _guard) = Log::start();
    for world in [basic(&log), by_key(&log), by_secret_jwt(&log), by_certificate(&log)] {
        world.sign_in_and_wait().await;
        assert!(log.text.lock().unwrap().contains(" DEBUG openid_deferred"), "tracing is on");
        world.assert_nothing_shows();
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_libraries_below_log_all_that_they_do() {
    log::set_logger(&LibraryLog).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let (log, _guard) = Log::start();
    let clock = TestClock::new();
    let op = TestProvider::builder()
        .https()
        .clock(Arc::new(clock.clone()))
        .client(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI))
        .user(TestUser::new("canary-of-a-subject").claim("name", CLAIM))
        .dpop_nonces(NoncePolicy::Required)
        .decisions(DecisionPolicy::immediately())
        .start()
        .unwrap();
    let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap().as_bytes()).unwrap();
    let client = Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
        .redirect_uri(REDIRECT_URI)
        .clock(Arc::new(clock.clone()))
        .configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]).connection_verbose(true))
        .build()
        .unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let query = op.visit(url).query();
    let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    clock.advance(10 * SECOND);
    let polled = client.poll(&mut pending).await.unwrap();
    assert!(matches!(polled, Poll::Finished(Outcome::Approved(_))), "{polled:?}");

    let store = Arc::new(MemoryStore::new());
    let world = World { op, clock, client, store, echo: Arc::default(), log, secrets: Mutex::default() };
    let libraries = LIBRARY_LOG.lock().unwrap().clone();
    assert!(libraries.contains("reqwest") || libraries.contains("hyper"), "the libraries log: {libraries}");
    world.assert_no_canary(libraries.as_bytes(), "what libraries log");
    world.assert_nothing_shows();
}

#[tokio::test]
async fn nothing_shows_a_secret_when_polls_fail() {
    let (log, _guard) = Log::start();
    for fault in faults(Endpoint::Poll) {
        let world = basic(&log);
        world.op.misbehave(fault);
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_exchange_fails() {
    let (log, _guard) = Log::start();
    for fault in faults(Endpoint::Exchange) {
        let world = basic(&log);
        world.op.misbehave(fault);
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_when_a_refresh_an_introspection_or_a_revocation_fails() {
    let (log, _guard) = Log::start();
    for endpoint in [Endpoint::Refresh, Endpoint::Introspection, Endpoint::Revocation, Endpoint::Resource] {
        for fault in faults(endpoint) {
            let world = basic(&log);
            world.op.misbehave(fault);
            world.sign_in_and_wait().await;
            world.assert_nothing_shows();
        }
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_metadata_or_the_keys_fail() {
    let (log, _guard) = Log::start();
    for endpoint in [Endpoint::Metadata, Endpoint::Keys] {
        for fault in [Fault::status(endpoint, 503), Fault::reset(endpoint), Fault::truncated_json(endpoint)] {
            let world = basic(&log);
            world.op.misbehave(fault.times(2));
            world.sign_in_and_wait().await;
            world.assert_nothing_shows();
        }
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_op_repeats_in_its_answers_whatever_it_was_told() {
    let (log, _guard) = Log::start();
    for echo in Echo::ALL {
        let world = basic(&log);
        *world.echo.lock().unwrap() = Some(echo);
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_when_a_token_is_forged() {
    let (log, _guard) = Log::start();
    for forgery in [
        IdTokenForgery::algorithm_none(),
        IdTokenForgery::hmac_with_public_key(),
        IdTokenForgery::foreign_key(),
        IdTokenForgery::broken_signature(),
        IdTokenForgery::claims(|claims| drop(claims.remove("nonce"))),
        IdTokenForgery::claims(|claims| drop(claims.insert("iss".into(), json!("https://other.test")))),
        IdTokenForgery::claims(|claims| drop(claims.insert("exp".into(), json!(1)))),
        IdTokenForgery::claims(|claims| drop(claims.insert("email_verified".into(), json!({"a": CLAIM})))),
        IdTokenForgery::raw("canary.of.garbage"),
    ] {
        let world = basic(&log);
        world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_users_return_is_wrong() {
    let (log, _guard) = Log::start();
    let world = basic(&log);
    for spoil in [
        (|query: &str| query.replace("state=", "state=x")) as fn(&str) -> String,
        |query| format!("{query}&state=again"),
        |query| format!("{query}&code=canary-of-a-second-code"),
        |query| format!("{query}&error=access_denied&error_description=canary-of-a-description"),
        |query| format!("{query}&access_token=canary-of-an-access-token"),
        |query| query.replace("deferred_code=", "no_code="),
        |query| query.replace("deferred_code=", "deferred_code=%00"),
    ] {
        let (query, session) = world.user_returns().await;
        let query = spoil(&query);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !matches!(&*name, "iss" | "error") {
                world.secret(value.as_bytes());
            }
        }
        let failed = world.poller().await.authorization_response(&query, session, CONTEXT).await;
        world.show_result(&failed);
    }
    world.assert_nothing_shows();
}

#[tokio::test]
async fn nothing_shows_a_secret_when_sealed_values_are_opened_with_another_key() {
    let (log, _guard) = Log::start();
    let world = basic(&log);
    let poller = world.poller().await;
    let (_, session) = world.user_returns().await;
    let sealed = session.seal(&keyring()).unwrap();
    world.secret(&sealed);
    let other = Keyring::new(SealingKey::from_bytes(*b"canary:the sealing key of others").unwrap());
    world.show_result(&AuthorizationSession::open(&other, &sealed));
    world.show_result(&SealingKey::from_base64("Y2FuYXJ5IG9mIGEga2V5IHRoYXQgaXMgdG9vIHNob3J0"));
    world.secret("Y2FuYXJ5IG9mIGEga2V5IHRoYXQgaXMgdG9vIHNob3J0");
    world.show_result(&SigningKey::from_pem(SigningAlgorithm::Es256, "-----BEGIN PRIVATE KEY-----\ncanary", None));
    world.sign_in().await;
    world.show_result(&Poller::builder(world.store.clone(), other).start().await);
    drop(poller);
    world.assert_nothing_shows();
}

#[test]
fn a_canary_is_found_in_whatever_form_it_is_shown() {
    let canary = b"canary of the test: \xff+/?&";
    let secrets = [canary.to_vec(), b"another canary".to_vec()];
    let found = |text: &[u8]| self::canary(&secrets, text).is_some_and(|(secret, _)| secret == canary);
    for front in ["", "x", "xy"] {
        for text in [
            STANDARD.encode([front.as_bytes(), canary, b"yz"].concat()),
            URL_SAFE_NO_PAD.encode([front.as_bytes(), canary, b"yz"].concat()),
        ] {
            assert!(found(text.as_bytes()), "{text}");
        }
    }
    assert!(found(&[b"raw: ".as_slice(), canary].concat()));
    assert!(found(format!("{:?}", canary).as_bytes()));
    assert!(found(form_urlencoded::byte_serialize(canary).collect::<String>().as_bytes()));
    assert!(found(canary.iter().map(|byte| format!("{byte:02X}")).collect::<String>().as_bytes()));
    assert!(!found(b"canary of another test"));
}

/// What can go wrong at an endpoint, on the way there and back.
fn faults(endpoint: Endpoint) -> Vec<Fault> {
    let codes = ["access_denied", "expired_token", "invalid_grant", "invalid_request", "invalid_client", "slow_down"];
    let mut faults: Vec<_> = codes.iter().map(|code| Fault::error(endpoint, code)).collect();
    faults.extend([
        Fault::error(endpoint, "unknown_error_of_the_op"),
        Fault::status(endpoint, 502),
        Fault::status(endpoint, 204),
        Fault::redirect(endpoint, "https://elsewhere.test/?canary=of-a-redirect"),
        Fault::reset(endpoint),
        Fault::reset(endpoint).after_processing(),
        Fault::stall(endpoint).after_processing(),
        Fault::cut_body(endpoint).after_processing(),
        Fault::truncated_json(endpoint).after_processing(),
        Fault::gzip_bomb(endpoint, 64 << 20),
        Fault::forget_nonces(endpoint).times(2),
        Fault::edit_any_json(endpoint, |body| {
            body.insert("access_token".into(), json!(["canary", CLIENT_SECRET]));
            body.insert("token_type".into(), json!(CLIENT_SECRET));
            body.insert("deferred_auth_id".into(), json!({"canary": CLIENT_SECRET}));
        }),
        Fault::edit_headers(endpoint, |headers| {
            headers.insert("content-type", HeaderValue::from_static("text/canary of the client's secret"));
        }),
    ]);
    faults
}

/// A provider and an application whose every seam is shown.
struct World {
    op: TestProvider,
    clock: TestClock,
    client: Client,
    store: Arc<MemoryStore>,
    echo: Arc<Mutex<Option<Echo>>>,
    log: Log,
    secrets: Mutex<Vec<Vec<u8>>>,
}

fn basic(log: &Log) -> World {
    let client = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET);
    world(log, client, ClientAuthentication::client_secret_basic(CLIENT_SECRET), |client| client)
}

fn by_key(log: &Log) -> World {
    let pair = rcgen::KeyPair::generate().unwrap();
    let pem = pair.serialize_pem();
    let key = SigningKey::from_pem(SigningAlgorithm::Es256, &pem, Some("the-key".to_owned())).unwrap();
    log.show(&key);
    let public = Value::Object(key.public_jwk()).to_string();
    let client = TestClient::private_key_jwt(CLIENT_ID, &public);
    let world = world(log, client, ClientAuthentication::private_key_jwt(key), |client| client);
    world.secret_pem(&pem);
    world
}

fn by_secret_jwt(log: &Log) -> World {
    let client = TestClient::secret_jwt(CLIENT_ID, CLIENT_SECRET);
    world(log, client, ClientAuthentication::client_secret_jwt(CLIENT_SECRET), |client| {
        client.pushed_authorization_requests()
    })
}

fn by_certificate(log: &Log) -> World {
    let files = TestCertificate::self_signed("client.rp.test");
    let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap();
    log.show(&files);
    log.show(&certificate);
    log.show(&ClientCertificate::from_pem(files.certificate_pem(), files.certificate_pem()).unwrap_err());
    let registered = TestClient::self_signed_tls_client_auth(CLIENT_ID, &files);
    let authentication = ClientAuthentication::self_signed_tls_client_auth(certificate.clone());
    let world = world(log, registered, authentication, |client| client);
    world.secret_pem(files.key_pem());
    world.secret_pem(certificate.current().private_key_pem().expose());
    world
}

fn world(
    log: &Log,
    registered: TestClient,
    authentication: ClientAuthentication,
    configure: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let clock = TestClock::automatic();
    let op = provider(&clock).client(registered.redirect_uri(REDIRECT_URI)).start().unwrap();
    let echo = Arc::default();
    let shown = ShownNetwork { inner: op.http_client(), log: log.clone(), echo: Arc::clone(&echo) };
    log.show(&authentication);
    let builder = Client::builder(op.issuer(), CLIENT_ID)
        .authentication(authentication)
        .redirect_uri(REDIRECT_URI)
        .cancellation_endpoint(op.cancellation_endpoint())
        .http_client(Arc::new(shown))
        .clock(Arc::new(clock.clone()));
    let builder = configure(builder);
    log.show(&builder);
    let client = builder.build().unwrap();
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    World { op, clock, client, store, echo, log: log.clone(), secrets: Mutex::default() }
}

fn provider(clock: &TestClock) -> TestProviderBuilder {
    TestProvider::builder()
        .in_process()
        .mutual_tls()
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(1)))
        .user(TestUser::new("canary-of-a-subject").claim("name", CLAIM))
        .early_access_token()
        .interim_token(InterimToken::Both)
        .dpop_nonces(NoncePolicy::Required)
        .interval(5 * SECOND)
        .expires_in(10 * HOUR)
        .decisions(DecisionPolicy::after_polls(2))
}

fn keyring() -> Keyring {
    Keyring::new(SealingKey::from_bytes(SEALING_KEY).unwrap())
}

impl World {
    async fn poller(&self) -> Poller {
        let builder = Poller::builder(self.store.clone(), keyring())
            .client(self.client.clone())
            .clock(Arc::new(self.clock.clone()))
            .receives_pings();
        self.log.show(&builder);
        let poller = builder.start().await.unwrap();
        self.log.show(&poller);
        poller
    }

    async fn user_returns(&self) -> (String, AuthorizationSession) {
        loop {
            let request = self.client.authorize().scopes(["offline_access"]);
            self.log.show(&request);
            match request.start().await {
                Ok((url, session)) => {
                    self.log.show(&session);
                    let sealed = session.seal(&keyring()).unwrap();
                    self.secret(&sealed);
                    self.open_private_key(&URL_SAFE_NO_PAD.decode(&sealed).unwrap(), b"authorization session", &[]);
                    return (self.op.visit(url).query(), session);
                }
                Err(error) => {
                    self.log.show_error(&error);
                    self.clock.sleep(31 * SECOND).await;
                }
            }
        }
    }

    /// Up to where the OP takes its time, or refuses.
    async fn sign_in(&self) -> (Poller, Option<openid_deferred::store::ProcessId>) {
        let poller = self.poller().await;
        let (query, session) = self.user_returns().await;
        let accepted = poller.authorization_response(&query, session, CONTEXT).await;
        self.show_result(&accepted);
        self.search_rows().await;
        let id = match accepted {
            Ok(Accepted::Deferred(id)) => Some(id),
            _ => None,
        };
        (poller, id)
    }

    async fn sign_in_and_wait(&self) {
        let (poller, id) = self.sign_in().await;
        let mut events = poller.events();
        let Some(id) = id else { return };
        self.op.last_process().progress(PROGRESS);
        self.ping(&poller).await;
        let mut outcomes = poller.outcomes();
        for attempt in 1..=2 {
            self.clock.sleep(6 * SECOND).await;
            self.show_result(&poller.status(id).await);
            self.show_result(&poller.stats().await);
            let delivery = tokio::select! {
                biased;
                delivery = outcomes.next() => delivery.expect("the poller runs"),
                () = self.clock.sleep(48 * HOUR) => panic!("no outcome: {:?}", poller.status(id).await),
            };
            self.log.show(&delivery);
            self.log.show(&outcomes);
            self.show_outcome(delivery.outcome()).await;
            self.search_rows().await;
            if attempt == 2 {
                self.show_result(&delivery.acknowledge().await);
            }
        }
        while let Ok(event) = events.try_recv() {
            self.log.show(&event);
            if let openid_deferred::poller::Event::Trouble { error, .. } = &event {
                self.log.show_error(error);
            }
        }
        self.show_result(&poller.cancel(id).await);
        poller.shutdown(SECOND).await;
    }

    async fn show_outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Approved(authentication) => {
                self.log.show(authentication.claims());
                self.log.show(authentication.id_token());
                self.log.show(&(authentication.access_token(), authentication.refresh_token()));
                self.log.show(&authentication.dpop_key());
                self.show_result(&self.client.userinfo(authentication).await);
                let sealed = authentication.seal(&keyring()).unwrap();
                self.assert_no_canary(&sealed, "a sealed authentication");
                self.show_what_comes_after(Authentication::open(&keyring(), &sealed).unwrap()).await;
            }
            Outcome::Invalid(violation) => self.log.show_text(&violation.to_string()),
            Outcome::Failed(response) => self.log.show_text(&response.to_string()),
            _ => {}
        }
    }

    /// New tokens, what the OP says about them, a call with them, and their end.
    async fn show_what_comes_after(&self, mut authentication: Authentication) {
        self.show_result(&self.client.refresh(&mut authentication).await);
        self.log.show(&authentication);
        self.log.show(&authentication.refreshed_id_token());
        if let Some(token) = authentication.access_token() {
            self.show_result(&self.client.introspect(token, TokenTypeHint::AccessToken).await);
        }
        let request = http::Request::get(self.op.resource()).body(Bytes::new()).unwrap();
        match self.client.resource(&authentication, request).await {
            Ok(response) => self.log.show(&response.extensions().get::<ErrorResponse>()),
            Err(error) => self.log.show_error(&error),
        }
        self.show_result(&self.client.revoke(&authentication).await);
        self.show_result(&self.client.userinfo(&authentication).await);
        self.show_result(&self.client.refresh(&mut authentication).await);
        let sealed = authentication.seal(&keyring()).unwrap();
        self.assert_no_canary(&sealed, "a sealed authentication after a refresh");
    }

    /// Genuine and forged pings.
    async fn ping(&self, poller: &Poller) {
        let receiver = Receiver::new(poller.clone());
        self.log.show(&receiver);
        let process = self.op.last_process();
        let (Some(token), Some(id)) = (process.notification_token(), process.deferred_auth_id()) else { return };
        let body = json!({"deferred_auth_id": id}).to_string();
        let upper = token.to_ascii_uppercase();
        self.secret(&upper);
        for (token, body) in
            [(&token, body.as_str()), (&upper, &body), (&token, &id), (&token, "{\"deferred_auth_id\": 1")]
        {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            let status: StatusCode = receiver.receive(&Method::POST, &headers, body.as_bytes()).await;
            self.log.show(&status);
        }
    }

    fn show_result<T: Debug>(&self, result: &Result<T, Error>) {
        self.log.show(result);
        if let Err(error) = result {
            self.log.show_error(error);
        }
    }

    fn secret(&self, secret: impl AsRef<[u8]>) {
        self.secrets.lock().unwrap().push(secret.as_ref().to_vec());
    }

    /// Every line of a private key.
    fn secret_pem(&self, pem: &str) {
        pem.lines().filter(|line| !line.starts_with('-')).for_each(|line| self.secret(line));
    }

    /// Looks into the rows, and, with the key, into what they hide.
    async fn search_rows(&self) {
        let rows = self.store.sealed_otherwise([0; 4], None, usize::MAX).await.unwrap();
        for row in rows {
            self.log.show(&row);
            let SealedBody { bytes, .. } = row.body.expect("only rows with bodies are asked for");
            self.assert_no_canary(&bytes, "the body of a row");
            self.assert_no_canary(row.schedule.as_bytes(), "the schedule of a row");
            self.open_private_key(&bytes, b"process", &row.id.to_bytes());
        }
    }

    /// What a sealed value holds, by this test's own reading of the format; the DPoP key in it is a secret like others.
    fn open_private_key(&self, sealed: &[u8], purpose: &[u8], context: &[u8]) {
        let hmac = |parts: &[&[u8]]| {
            let key = PKey::hmac(&SEALING_KEY).unwrap();
            let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
            parts.iter().for_each(|part| signer.update(part).unwrap());
            signer.sign_to_vec().unwrap()
        };
        let key = hmac(&[b"seal ", purpose]);
        let associated = [&[1], purpose, &(context.len() as u64).to_be_bytes(), context].concat();
        let (envelope, rest) = sealed.split_at(17);
        let (ciphertext, tag) = rest.split_at(rest.len() - 16);
        let plain = decrypt_aead(Cipher::aes_256_gcm(), &key, Some(&envelope[5..]), &associated, ciphertext, tag);
        let plain = String::from_utf8(plain.expect("it was sealed with this key")).unwrap();
        let (mut rest, mut found) = (plain.as_str(), 0);
        while let Some(at) = rest.find("\"key\":\"") {
            rest = &rest[at + 7..];
            let text = rest.split('"').next().unwrap();
            self.secret(text);
            // An algorithm byte, then the private scalar.
            self.secret(&URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD.decode(text)).unwrap()[1..33]);
            found += 1;
        }
        let is_outcome = plain.contains("\"o\":") || plain.contains("\"x\"");
        assert!(found > 0 || is_outcome, "the DPoP key is in it");
    }

    /// Everything that was said in confidence.
    fn all_secrets(&self) -> Vec<Vec<u8>> {
        let texts = [CLIENT_SECRET, CLAIM, PROGRESS, CONTEXT, "canary-of-a-subject"];
        let mut secrets: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).to_vec();
        secrets.push(SEALING_KEY.to_vec());
        secrets.extend(self.secrets.lock().unwrap().iter().cloned());
        secrets.extend(self.op.requests().iter().flat_map(said_in_confidence).map(String::into_bytes));
        secrets.retain(|secret| secret.len() >= LEAST);
        secrets.sort_unstable();
        secrets.dedup();
        secrets
    }

    #[track_caller]
    fn assert_no_canary(&self, bytes: &[u8], place: &str) {
        assert_no_canary(&self.all_secrets(), bytes, place);
    }

    #[track_caller]
    fn assert_nothing_shows(&self) {
        let shown = self.log.take();
        assert!(!shown.is_empty(), "something was shown");
        assert!(self.all_secrets().len() >= 10, "there are secrets to look for");
        self.assert_no_canary(shown.as_bytes(), "what was shown");
    }
}

/// Panics where one of the secrets stands in `bytes`, in whatever form.
#[track_caller]
fn assert_no_canary(secrets: &[Vec<u8>], bytes: &[u8], place: &str) {
    if let Some((secret, at)) = canary(secrets, bytes) {
        let around = String::from_utf8_lossy(&bytes[at.saturating_sub(300)..(at + 300).min(bytes.len())]);
        panic!("{:?} is in {place}: …{around}…", String::from_utf8_lossy(secret));
    }
}

/// The first secret that is found, and where.
fn canary<'a>(secrets: &'a [Vec<u8>], bytes: &[u8]) -> Option<(&'a [u8], usize)> {
    // By their first letters, so that one pass over much text is enough.
    struct Wanted<'a> {
        secret: &'a [u8],
        form: Vec<u8>,
    }
    let mut wanted: HashMap<[u8; START], Vec<Wanted<'_>>> = HashMap::new();
    for secret in secrets {
        for form in forms(secret) {
            let start = *form.first_chunk().expect("secrets are longer");
            wanted.entry(start).or_default().push(Wanted { secret, form });
        }
    }
    let mut starts = bytes.windows(START).enumerate();
    starts.find_map(|(at, start)| {
        let mut candidates = wanted.get(start)?.iter();
        candidates.find(|wanted| bytes[at..].starts_with(&wanted.form)).map(|wanted| (wanted.secret, at))
    })
}

/// The forms in which a secret would be recognised.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| -> String {
        secret.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let mut forms = vec![
        secret.to_vec(),
        hex(false).into_bytes(),
        hex(true).into_bytes(),
        form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes(),
        // As `Debug` has bytes, and as JSON has text.
        secret.iter().take(12).map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes(),
        secret.escape_ascii().to_string().into_bytes(),
    ];
    // Base64 looks different at each offset; its first and last letters depend on the neighbours.
    for (offset, skip) in [(0, 0), (1, 2), (2, 3)] {
        let encoded = URL_SAFE_NO_PAD.encode([&vec![0; offset], secret].concat());
        let inner = &encoded[skip..encoded.len() - 2];
        forms.push(inner.as_bytes().to_vec());
        forms.push(inner.replace('-', "+").replace('_', "/").into_bytes());
    }
    forms
}

/// The parameters, headers and members of one exchange with the OP that nobody else may see.
fn said_in_confidence(request: &RecordedRequest) -> Vec<String> {
    const PARAMETERS: [&str; 13] = [
        "state",
        "nonce",
        "code_verifier",
        "deferred_code",
        "code",
        "deferred_auth_id",
        "deferred_notification_token",
        "token",
        "refresh_token",
        "client_secret",
        "client_assertion",
        "access_token",
        "request_uri",
    ];
    const MEMBERS: [&str; 7] = [
        "access_token",
        "refresh_token",
        "id_token",
        "interim_id_token",
        "deferred_auth_id",
        "error_description",
        "request_uri",
    ];
    let mut said: Vec<String> =
        PARAMETERS.iter().filter_map(|name| request.parameter(name)).map(str::to_owned).collect();
    said.extend(request.header("authorization").and_then(|value| Some(value.split_once(' ')?.1.to_owned())));
    said.extend(request.header("dpop").map(str::to_owned));
    let response = request.response_json();
    said.extend(MEMBERS.iter().filter_map(|name| response.get(name)?.as_str()).map(str::to_owned));
    // What a JWT says is as secret as the whole.
    let parts: Vec<_> = said.iter().flat_map(|text| text.split('.').map(str::to_owned)).collect();
    said.extend(parts);
    said
}

/// Repeats what it was told where an answer has room for it.
#[derive(Debug, Clone, Copy)]
enum Echo {
    Description,
    BrokenJson,
    Page,
    Location,
    Headers,
    ContentType,
    IdToken,
    Members,
}

impl Echo {
    const ALL: [Self; 8] = [
        Self::Description,
        Self::BrokenJson,
        Self::Page,
        Self::Location,
        Self::Headers,
        Self::ContentType,
        Self::IdToken,
        Self::Members,
    ];

    fn answer(self, told: &str) -> HttpResponse {
        let short: String = told.chars().filter(char::is_ascii_graphic).take(200).collect();
        let (mut status, mut kind, mut body) = (400, "application/json".to_owned(), String::new());
        let mut headers = HeaderMap::new();
        let header = HeaderValue::try_from(&short).unwrap();
        match self {
            Self::Description => body = json!({"error": "server_error", "error_description": told}).to_string(),
            Self::BrokenJson => body = format!("{{\"error\": \"server_error\", \"{told}\": {told}"),
            Self::Page => (status, kind, body) = (502, "text/html".to_owned(), format!("<p>{told}")),
            Self::Location => {
                status = 302;
                headers.insert("location", header);
            }
            Self::Headers => {
                status = 503;
                headers.insert("retry-after", header.clone());
                headers.insert("www-authenticate", header.clone());
                headers.insert("date", header);
            }
            Self::ContentType => kind = format!("application/{short}"),
            Self::IdToken => {
                status = 200;
                let token = format!("{0}.{0}.{0}", URL_SAFE_NO_PAD.encode(told));
                body = json!({"access_token": told, "token_type": "DPoP", "id_token": token}).to_string();
            }
            Self::Members => {
                status = 200;
                body = json!({"access_token": 1, "id_token": {told: told}, told: told, "token_type": told}).to_string();
            }
        }
        headers.insert("content-type", HeaderValue::try_from(kind).unwrap());
        HttpResponse { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from(body) }
    }
}

/// Shows what goes through this seam, and lets an echo answer the first three polls.
struct ShownNetwork {
    inner: Arc<dyn HttpClient>,
    log: Log,
    echo: Arc<Mutex<Option<Echo>>>,
}

impl HttpClient for ShownNetwork {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            self.log.show(&request);
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let is_poll = body.contains("deferred_auth_id=") && request.url.path() == "/token";
            let told = format!("{body} {:?}", request.headers.get("authorization").map(HeaderValue::as_bytes));
            let answered = self.inner.send(request).await;
            self.log.show(&answered);
            let echo = self.echo.lock().unwrap().filter(|_| is_poll);
            if let (Some(echo), Ok(_)) = (echo, &answered) {
                let told =
                    format!("{told} {}", form_urlencoded::parse(body.as_bytes()).map(|(_, v)| v).collect::<String>());
                let answer = echo.answer(&told);
                self.log.show(&answer);
                self.log.show(&HttpError::maybe_sent(TransportProblem::Broken));
                if self.log.echoed() > 3 {
                    *self.echo.lock().unwrap() = None;
                }
                return Ok(answer);
            }
            answered
        })
    }

    fn presents_client_certificates(&self) -> bool {
        self.inner.presents_client_certificates()
    }
}

impl Debug for ShownNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ShownNetwork")
    }
}

/// What libraries say by `log` instead of `tracing`. There is one for the whole process.
struct LibraryLog;

static LIBRARY_LOG: Mutex<String> = Mutex::new(String::new());

impl log::Log for LibraryLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(LIBRARY_LOG.lock().unwrap(), "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

/// Everything that somebody could get to see.
#[derive(Clone, Default)]
struct Log {
    text: Arc<Mutex<String>>,
    echoes: Arc<AtomicU32>,
}

impl Log {
    /// Until the guard is dropped it takes in everything that is traced on this thread.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn show_text(&self, text: &str) {
        self.text.lock().unwrap().push_str(text);
    }

    fn show(&self, value: &dyn Debug) {
        writeln!(self.text.lock().unwrap(), "{value:?}\n{value:#?}").unwrap();
    }

    /// With everything that it comes from.
    fn show_error(&self, error: &Error) {
        self.show(error);
        let mut layer: Option<&dyn StdError> = Some(error);
        while let Some(error) = layer {
            writeln!(self.text.lock().unwrap(), "{error}\n{error:?}\n{error:#?}").unwrap();
            layer = error.source();
        }
    }

    fn take(&self) -> String {
        std::mem::take(&mut self.text.lock().unwrap())
    }

    fn echoed(&self) -> u32 {
        self.echoes.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.show_text(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
