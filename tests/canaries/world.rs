//! A provider and an application, with everything that crosses their interfaces recorded.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use openid_deferred::ciba::DeliveryMode;
use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, KeyManagementAlgorithm};
use openid_deferred::ping::Receiver;
use openid_deferred::poller::{AcceptedSignIn, Events};
use openid_deferred::store::{ProcessId, SealedBody, Store};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, IdTokenForgery, InterimToken, NoncePolicy, RecordedRequest, SeededRandom,
    TestCertificate, TestClient, TestClock, TestProvider, TestProviderBuilder, TestUser,
};
use openid_deferred::tokens::TokenTypeHint;
use openid_deferred::transport::ClientCertificate;
use openid_deferred::{
    Authentication, AuthorizationSession, Client, ClientAuthentication, ClientBuilder, Clock as _, Error,
    ErrorResponse, Keyring, Outcome, Poller, SealingKey, SigningAlgorithm, SigningKey,
};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::symm::{Cipher, decrypt_aead};
use serde_json::{Value, json};

use crate::place::{Database, Place};
use crate::search::{LEAST, assert_no_canary};
use crate::show::{Echo, Log, ShownNetwork};

pub const CLIENT_ID: &str = "the-app";
pub const CLIENT_SECRET: &str = "canary of the client's secret: 100% +/?&";
pub const REDIRECT_URI: &str = "https://rp.test/callback";
const SEALING_KEY: [u8; 32] = *b"canary:the keyring's sealing key";
pub const CLAIM: &str = "Canary of a claim";
const PROGRESS: &str = "canary of the reviewer's progress";
pub const CONTEXT: &str = "canary of the application's context";
pub const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A provider and an application, with everything that crosses their interfaces recorded.
pub struct World {
    pub op: TestProvider,
    pub clock: TestClock,
    pub client: Client,
    pub place: Place,
    pub store: Arc<dyn Store>,
    pub echo: Arc<Mutex<Option<Echo>>>,
    pub log: Log,
    pub secrets: Mutex<Vec<Vec<u8>>>,
}

/// The environment of a test's worlds: everything that they show goes into one log.
pub struct Ground {
    pub log: Log,
    is_database: bool,
    is_ietf: bool,
    is_ciba: bool,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Ground {
    /// Each world stores its rows in a file of its own.
    pub fn of_files() -> Self {
        let (log, guard) = Log::start();
        Self { log, is_database: false, is_ietf: false, is_ciba: false, _guard: guard }
    }

    /// Each world has a schema of its own in the database.
    pub fn of_database() -> Self {
        let (log, guard) = Log::start();
        Self { log, is_database: true, is_ietf: false, is_ciba: false, _guard: guard }
    }

    /// The providers of its worlds speak the IETF dialect, and require the user in everything that they defer.
    pub fn ietf(self) -> Self {
        Self { is_ietf: true, ..self }
    }

    /// The providers of its worlds also speak CIBA, in ping mode and with user codes.
    pub fn ciba(self) -> Self {
        Self { is_ciba: true, ..self }
    }

    /// Where the user's code is redeemed.
    pub fn exchange(&self) -> Endpoint {
        if self.is_ietf { Endpoint::Code } else { Endpoint::Exchange }
    }

    pub async fn basic(&self) -> World {
        let client = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET);
        self.world(client, ClientAuthentication::client_secret_basic(CLIENT_SECRET), |client| client).await
    }

    pub async fn by_key(&self) -> World {
        let pair = rcgen::KeyPair::generate().unwrap();
        let pem = pair.serialize_pem();
        let key = SigningKey::from_pem(SigningAlgorithm::Es256, &pem, Some("the-key".to_owned())).unwrap();
        self.log.show(&key);
        let public = Value::Object(key.public_jwk()).to_string();
        let client = TestClient::private_key_jwt(CLIENT_ID, &public);
        let world = self.world(client, ClientAuthentication::private_key_jwt(key), |client| client).await;
        world.secret_pem(&pem);
        world
    }

    /// Signed requests, and responses that are signed and encrypted, under the rules of FAPI 2.0.
    pub async fn by_signed_messages(&self) -> World {
        let pairs = [rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap()];
        let [signing, decryption] = pairs.map(|pair| pair.serialize_pem());
        let key = SigningKey::from_pem(SigningAlgorithm::Es256, &signing, None).unwrap();
        let alg = KeyManagementAlgorithm::EcdhEsA256Kw;
        let decryption_key = DecryptionKey::from_pem(alg, &decryption, None).unwrap();
        self.log.show(&decryption_key);
        let client = TestClient::private_key_jwt(CLIENT_ID, &Value::Object(key.public_jwk()).to_string())
            .jwks(&json!({ "keys": [decryption_key.public_jwk()] }))
            .signing_algorithm("ES256")
            .require_signed_request_object()
            .encrypted_authorization_response(alg.as_str(), "A256GCM");
        let signs = |client: ClientBuilder| {
            client
                .fapi2_message_signing()
                .decryption_key(decryption_key)
                .algorithms(ClientAlgorithms::new().authorization_encrypted_response(alg))
        };
        let world = self.world(client, ClientAuthentication::private_key_jwt(key), signs).await;
        world.secret_pem(&signing);
        world.secret_pem(&decryption);
        world
    }

    pub async fn by_secret_jwt(&self) -> World {
        let client = TestClient::secret_jwt(CLIENT_ID, CLIENT_SECRET);
        let pushes = |client: ClientBuilder| client.pushed_authorization_requests();
        self.world(client, ClientAuthentication::client_secret_jwt(CLIENT_SECRET), pushes).await
    }

    pub async fn by_certificate(&self) -> World {
        let files = TestCertificate::self_signed("client.rp.test");
        let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap();
        self.log.show(&files);
        self.log.show(&certificate);
        self.log.show(&ClientCertificate::from_pem(files.certificate_pem(), files.certificate_pem()).unwrap_err());
        let registered = TestClient::self_signed_tls_client_auth(CLIENT_ID, &files);
        let authentication = ClientAuthentication::self_signed_tls_client_auth(certificate.clone());
        let world = self.world(registered, authentication, |client| client).await;
        world.secret_pem(files.key_pem());
        world.secret_pem(certificate.current().private_key_pem().expose());
        world
    }

    async fn world(
        &self,
        registered: TestClient,
        authentication: ClientAuthentication,
        settings: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> World {
        let log = &self.log;
        let clock = TestClock::automatic();
        let registered = if self.is_ciba { registered.ping_mode() } else { registered };
        let op = provider(&clock).client(registered.redirect_uri(REDIRECT_URI));
        let op = if self.is_ciba { op.ciba().user_code("canary-of-a-user-code") } else { op };
        let op = if self.is_ietf { op.ietf().requires_interaction() } else { op }.start().unwrap();
        let echo = Arc::default();
        let shown = ShownNetwork { inner: op.http_client(), log: log.clone(), echo: Arc::clone(&echo) };
        log.show(&authentication);
        let builder = Client::builder(op.issuer(), CLIENT_ID)
            .authentication(authentication)
            .redirect_uri(REDIRECT_URI)
            .http_client(Arc::new(shown))
            .clock(Arc::new(clock.clone()));
        // The other dialect cancels by revocation.
        let builder = if self.is_ietf { builder } else { builder.cancellation_endpoint(op.cancellation_endpoint()) };
        let builder = match self.is_ciba {
            true => builder.backchannel_token_delivery_mode(DeliveryMode::Ping),
            false => builder,
        };
        let builder = settings(builder);
        log.show(&builder);
        let client = builder.build().unwrap();
        let place = if self.is_database { Place::Database(Database::new().await) } else { Place::file() };
        let store = place.store(&clock, log).await;
        let world = World { op, clock, client, place, store, echo, log: log.clone(), secrets: Mutex::default() };
        if let Place::Database(database) = &world.place {
            world.secret(database.password().unwrap_or_default());
        }
        world
    }
}

fn provider(clock: &TestClock) -> TestProviderBuilder {
    TestProvider::builder()
        .in_process()
        .mutual_tls()
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(1)))
        .user(TestUser::new("canary-of-a-subject").claim("name", CLAIM).claim("nickname", json!([CLAIM])))
        .early_access_token()
        .interim_token(InterimToken::Both)
        .dpop_nonces(NoncePolicy::Required)
        .interval(5 * SECOND)
        .expires_in(10 * HOUR)
        .decisions(DecisionPolicy::after_polls(2))
}

pub fn keyring() -> Keyring {
    Keyring::new(SealingKey::from_bytes(SEALING_KEY).unwrap())
}

impl World {
    pub async fn poller(&self) -> Poller {
        let builder = Poller::builder(self.store.clone(), keyring())
            .client(self.client.clone())
            .clock(Arc::new(self.clock.clone()))
            .receives_pings();
        self.log.show(&builder);
        let poller = builder.start().await.unwrap();
        self.log.show(&poller);
        poller
    }

    pub async fn user_returns(&self) -> (String, AuthorizationSession) {
        loop {
            let request = self.client.authorize().scopes(["offline_access"]).context(CONTEXT);
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

    /// Signs in until the OP defers or refuses.
    pub async fn sign_in(&self) -> (Poller, Option<ProcessId>) {
        let poller = self.poller().await;
        let (query, session) = self.user_returns().await;
        let accepted = poller.authorization_response(&query, session).await;
        self.show_result(&accepted);
        self.search_rows().await;
        let id = match accepted {
            Ok(AcceptedSignIn::Deferred(id)) => Some(id),
            _ => None,
        };
        (poller, id)
    }

    pub async fn sign_in_and_wait(&self) {
        let (poller, id) = self.sign_in().await;
        let events = poller.events();
        let Some(id) = id else { return };
        self.wait(poller, events, id).await;
    }

    /// Waits for the outcome of what was deferred, with the user who is required meanwhile.
    pub async fn wait(&self, poller: Poller, mut events: Events, id: ProcessId) {
        self.op.last_process().progress(PROGRESS);
        self.ping(&poller).await;
        self.user_decides(&poller, id).await;
        let mut outcomes = poller.outcomes();
        for attempt in 1..=2 {
            self.clock.sleep(6 * SECOND).await;
            self.show_status(&poller, id).await;
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
        while let Some(event) = tokio::task::unconstrained(events.next()).now_or_never().flatten() {
            self.log.show(&event);
            if let openid_deferred::poller::Event::TransientError { error, .. } = &event {
                self.log.show_error(error);
            }
        }
        self.show_result(&poller.cancel(id).await);
        poller.shutdown(SECOND).await;
    }

    pub async fn show_outcome(&self, outcome: &Outcome) {
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
            Outcome::Issued(tokens) => self.show_tokens(tokens).await,
            Outcome::Invalid(violation) => self.log.show_text(&violation.to_string()),
            Outcome::Failed(response) => self.log.show_text(&response.to_string()),
            _ => {}
        }
    }

    /// Shows a refresh, an introspection, a call with the tokens, and their revocation.
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
        self.show_logout(&authentication).await;
        self.show_result(&self.client.revoke(&authentication).await);
        self.show_result(&self.client.userinfo(&authentication).await);
        self.show_result(&self.client.refresh(&mut authentication).await);
        let sealed = authentication.seal(&keyring()).unwrap();
        self.assert_no_canary(&sealed, "a sealed authentication after a refresh");
    }

    /// Shows a logout here, and one that the OP tells of.
    async fn show_logout(&self, authentication: &Authentication) {
        let request = self.client.end_session().of(authentication).post_logout_redirect_uri("https://rp.test/bye");
        self.log.show(&request);
        match request.start().await {
            Err(error) => self.log.show_error(&error),
            Ok((url, session)) => {
                let session = session.expect("there is a URI");
                self.secret(session.state().expose());
                self.log.show(&session);
                self.assert_no_canary(session.seal(&keyring()).unwrap().as_bytes(), "a sealed logout");
                for response in [url.query().unwrap_or_default(), "state=canary-of-another-state"] {
                    self.show_result(&self.client.end_session_response(response, &session));
                }
            }
        }
        let process = self.op.last_process();
        self.secret(process.sid());
        for token in [process.logout_token(), process.forged_logout_token(IdTokenForgery::broken_signature())] {
            self.secret(&token);
            self.show_result(&self.client.logout_token(&token).await);
        }
    }

    /// Sends genuine and forged pings.
    pub async fn ping(&self, poller: &Poller) {
        let receiver = Receiver::new(poller.clone());
        self.log.show(&receiver);
        let process = self.op.last_process();
        let identifiers = [
            ("deferral_code", process.deferral_code()),
            ("auth_req_id", process.auth_req_id()),
            ("deferred_auth_id", process.deferred_auth_id()),
        ];
        let identifier = identifiers.into_iter().find_map(|(name, id)| Some((name, id?)));
        let (Some(token), Some((name, id))) = (process.notification_token(), identifier) else { return };
        let body = json!({name: id}).to_string();
        let cut = body.trim_end_matches('}');
        let upper = token.to_ascii_uppercase();
        self.secret(&upper);
        for (token, body) in [(&token, body.as_str()), (&upper, &body), (&token, &id), (&token, cut)] {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            let mut request = http::Request::post("/").body(body.to_owned()).unwrap();
            *request.headers_mut() = headers;
            self.log.show(&receiver.authenticate(request.method(), request.headers()));
            self.log.show(&receiver.receive(request).await);
        }
    }

    pub fn show_result<T: Debug>(&self, result: &Result<T, Error>) {
        self.log.show(result);
        if let Err(error) = result {
            self.log.show_error(error);
        }
    }

    pub fn secret(&self, secret: impl AsRef<[u8]>) {
        self.secrets.lock().unwrap().push(secret.as_ref().to_vec());
    }

    /// Adds every line of a private key to the secrets.
    pub fn secret_pem(&self, pem: &str) {
        pem.lines().filter(|line| !line.starts_with('-')).for_each(|line| self.secret(line));
    }

    /// Searches the rows and, with the key, their sealed content.
    pub async fn search_rows(&self) {
        let rows = self.store.not_sealed_with([0; 4], None, usize::MAX).await.unwrap();
        for row in rows {
            self.log.show(&row);
            let SealedBody { bytes, .. } = row.body.expect("only rows with bodies are asked for");
            self.assert_no_canary(&bytes, "the body of a row");
            self.assert_no_canary(row.schedule.as_bytes(), "the schedule of a row");
            self.open_private_key(&bytes, b"process", &row.id.to_bytes());
        }
        self.search_place();
    }

    /// Searches the stored bytes.
    #[track_caller]
    pub fn search_place(&self) {
        let secrets = self.all_secrets();
        for (name, bytes) in self.place.bytes() {
            assert_no_canary(&secrets, &bytes, &name);
        }
    }

    /// Opens a sealed value. The DPoP key in it is a secret too.
    pub fn open_private_key(&self, sealed: &[u8], purpose: &[u8], context: &[u8]) {
        let plain = opened(sealed, purpose, context);
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

    /// All confidential values.
    pub fn all_secrets(&self) -> Vec<Vec<u8>> {
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
    pub fn assert_no_canary(&self, bytes: &[u8], place: &str) {
        assert_no_canary(&self.all_secrets(), bytes, place);
    }

    #[track_caller]
    pub fn assert_nothing_shows(&self) {
        let shown = self.log.take();
        assert!(!shown.is_empty(), "something was shown");
        assert!(self.all_secrets().len() >= 10, "there are secrets to look for");
        self.assert_no_canary(shown.as_bytes(), "what was shown");
        self.search_place();
    }
}

/// Decodes a sealed value with this test's own implementation of the format.
pub fn opened(sealed: &[u8], purpose: &[u8], context: &[u8]) -> String {
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
    String::from_utf8(plain.expect("it was sealed with this key")).unwrap()
}

/// The parameters, headers and members of one exchange with the OP that no third party may see.
fn said_in_confidence(request: &RecordedRequest) -> Vec<String> {
    const PARAMETERS: [&str; 26] = [
        "request",
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
        "deferral_code",
        "client_notification_token",
        "subject_token",
        "actor_token",
        "assertion",
        "authorization_details",
        "auth_req_id",
        "login_hint",
        "login_hint_token",
        "id_token_hint",
        "binding_message",
        "user_code",
    ];
    const MEMBERS: [&str; 9] = [
        "access_token",
        "refresh_token",
        "id_token",
        "interim_id_token",
        "deferred_auth_id",
        "error_description",
        "request_uri",
        "deferral_code",
        "auth_req_id",
    ];
    let mut said: Vec<String> =
        PARAMETERS.iter().filter_map(|name| request.parameter(name)).map(str::to_owned).collect();
    said.extend(request.header("authorization").and_then(|value| Some(value.split_once(' ')?.1.to_owned())));
    said.extend(request.header("dpop").map(str::to_owned));
    let response = request.response_json();
    said.extend(MEMBERS.iter().filter_map(|name| response.get(name)?.as_str()).map(str::to_owned));
    // The content of a JWT is as secret as the whole.
    let parts: Vec<_> = said.iter().flat_map(|text| text.split('.').map(str::to_owned)).collect();
    said.extend(parts);
    // The last part of the URI is what makes it secret.
    if let Some(uri) = response["interaction_uri"].as_str() {
        said.extend([uri, uri.rsplit('/').next().unwrap_or_default()].map(str::to_owned));
    }
    said
}
