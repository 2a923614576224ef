//! The durable poller, with its callbacks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use futures_util::future::join_all;
use openid_deferred::ping::Receiver;
use openid_deferred::poller::{AcceptedSignIn, AcceptedTokenRequest, CancellationStatus};
use openid_deferred::store::{ProcessId, SqliteStore, State};
use openid_deferred::{Client, Delivery, Grant, Keyring, Outcome, Poller, SealingKey, Secret, SystemRandom, ping};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{PATIENCE, Strict};
use crate::certificates::Identity;
use crate::support::{chain, with};

/// A poller, and what it needs to be started again.
struct Durable {
    folder: tempfile::TempDir,
    keyring: Keyring,
    client: Client,
    receives_pings: bool,
}

impl Durable {
    fn new(client: Client) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            keyring: Keyring::new(SealingKey::generate(&SystemRandom).unwrap()),
            client,
            receives_pings: false,
        }
    }

    fn file(&self) -> impl AsRef<Path> {
        self.folder.path().join("deferred.sqlite")
    }

    async fn start(&self) -> Poller {
        let store = SqliteStore::open(self.file()).await.unwrap();
        let poller = Poller::builder(store, self.keyring.clone()).client(self.client.clone());
        let poller = if self.receives_pings { poller.receives_pings() } else { poller };
        poller.start().await.unwrap()
    }
}

/// Takes the next outcome.
async fn delivered(poller: &Poller) -> Delivery {
    let mut outcomes = poller.outcomes();
    let delivery = timeout(PATIENCE, outcomes.next()).await.expect("an outcome is delivered");
    let delivery = delivery.expect("the poller runs");
    delivery.acknowledge().await.unwrap();
    delivery
}

/// Requests a token whose issue is deferred.
async fn requested(poller: &Poller, client: &Client) -> ProcessId {
    let request = client.token_request(Grant::client_credentials()).scopes(["a"]).context("order 4711");
    match poller.request_tokens(request).await.unwrap_or_else(|error| panic!("{}", chain(&error))) {
        AcceptedTokenRequest::Deferred(id) => id,
        other => panic!("not deferred: {other:?}"),
    }
}

#[tokio::test]
async fn tokens_are_requested_and_delivered() {
    let settings = json!({ "script": ["authorization_pending", "slow_down", "approve"], "nonce_lifetime": 1 });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let durable = Durable::new(server.machine().await);
    let poller = durable.start().await;
    let id = requested(&poller, &durable.client).await;
    let delivery = delivered(&poller).await;
    assert_eq!((delivery.id(), delivery.context()), (id, &b"order 4711"[..]));
    let Outcome::Issued(tokens) = delivery.outcome() else { panic!("{:?}", delivery.outcome()) };
    assert!(tokens.is_sender_constrained());
    assert_eq!(server.answers(), ["authorization_pending", "slow_down", "success"]);
    server.is_satisfied();
}

/// Nonces are short-lived and shared by all requests, whose keys differ.
#[tokio::test]
async fn many_requests_are_pending_together() {
    const MANY: usize = 20;
    let settings = json!({ "script": ["authorization_pending", "authorization_pending"], "nonce_lifetime": 3 });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let durable = Durable::new(server.machine().await);
    let poller = durable.start().await;
    join_all((0..MANY).map(|_| requested(&poller, &durable.client))).await;
    let polled = |process: &Value| process["polls"].as_array().is_some_and(|polls| polls.len() >= 3);
    server.until("polled", |processes| processes.iter().all(polled)).await;
    (1..=MANY).for_each(|id| {
        server.tell(&json!({ "do": "decide", "id": id, "to": "approve" }));
    });
    for _ in 0..MANY {
        assert!(matches!(delivered(&poller).await.outcome(), Outcome::Issued(_)));
    }
    server.is_satisfied();
}

#[tokio::test]
async fn tokens_are_issued_at_once() {
    let Some(server) = Strict::start(json!({ "at_once": true }), json!({})) else { return };
    let durable = Durable::new(server.machine().await);
    let poller = durable.start().await;
    let request = durable.client.token_request(Grant::client_credentials());
    let answer = poller.request_tokens(request).await.unwrap();
    assert!(matches!(answer, AcceptedTokenRequest::Complete(_)), "{answer:?}");
    server.is_satisfied();
}

/// The poller ends twice while a sign-in is pending: once in order, and once without warning.
#[test]
fn a_sign_in_survives_restarts() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = json!({ "script": ["authorization_pending", "slow_down"] });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let first = runtime();
    let durable = first.block_on(async {
        let durable = Durable::new(server.client().await);
        let poller = durable.start().await;
        let (url, session) = durable.client.authorize().context("user 1").start().await.unwrap();
        let back = server.visit(url).await;
        let signed_in = poller.authorization_response(&back, session).await.unwrap();
        let AcceptedSignIn::Deferred(id) = signed_in else { panic!("{signed_in:?}") };
        server.polled(1).await;
        poller.shutdown(PATIENCE).await;
        let poller = durable.start().await;
        server.polled(2).await;
        slowed_down(&poller, id).await;
        drop(poller);
        durable
    });
    // With everything that still runs.
    drop(first);
    server.decide("approve");
    runtime().block_on(async {
        let poller = durable.start().await;
        let delivery = delivered(&poller).await;
        assert_eq!(delivery.context(), b"user 1");
        let Outcome::Approved(authentication) = delivery.outcome() else { panic!("{:?}", delivery.outcome()) };
        assert_eq!(authentication.claims().subject(), "user-1");
    });
    assert_eq!(server.answers(), ["authorization_pending", "slow_down", "success"]);
    server.is_satisfied();
}

/// Waits until the store has the answer `slow_down`, which adds five seconds to the interval (RFC 8628 §3.5).
async fn slowed_down(poller: &Poller, id: ProcessId) {
    // While the poll is in flight, the end of its lease is later.
    let slowed = Duration::from_secs(5)..Duration::from_secs(60);
    let stored = async {
        while !poller.status(id).await.unwrap().unwrap().due_in().is_some_and(|due_in| slowed.contains(&due_in)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, stored).await.expect("the next poll is later");
}

/// Waits until the status has a page for the user, or none.
async fn shown(poller: &Poller, id: ProcessId, wanted: bool) -> Option<Secret> {
    let search = async {
        loop {
            let status = poller.status(id).await.unwrap().unwrap();
            if status.interaction_uri().is_some() == wanted {
                return status.interaction_uri().cloned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, search).await.expect("the status follows the answers")
}

#[tokio::test]
async fn the_interaction_uri_is_in_the_status() {
    let Some(server) = Strict::start(json!({ "first": "interaction_required" }), json!({})) else { return };
    let durable = Durable::new(server.machine().await);
    let poller = durable.start().await;
    let id = requested(&poller, &durable.client).await;
    poller.shutdown(PATIENCE).await;
    let poller = durable.start().await;
    let first = shown(&poller, id, true).await.unwrap();
    server.open(first.expose()).await;
    server.answers_with("interaction_pending").await;
    shown(&poller, id, false).await;
    server.decide("interaction_required");
    let second = shown(&poller, id, true).await.unwrap();
    server.open(second.expose()).await;
    server.decide("approve");
    assert!(matches!(delivered(&poller).await.outcome(), Outcome::Issued(_)));
    server.is_satisfied();
}

#[tokio::test]
async fn denial_and_expiry_are_delivered() {
    for (last, is_expected) in [
        ("deny", (|outcome| matches!(outcome, Outcome::Denied(_))) as fn(&Outcome) -> bool),
        ("expire", |outcome| matches!(outcome, Outcome::Expired(_))),
    ] {
        let Some(server) = Strict::start(json!({ "script": [last] }), json!({})) else { return };
        let durable = Durable::new(server.machine().await);
        let poller = durable.start().await;
        let _ = requested(&poller, &durable.client).await;
        let delivery = delivered(&poller).await;
        assert!(is_expected(delivery.outcome()), "{last}: {:?}", delivery.outcome());
        server.is_satisfied();
    }
}

#[tokio::test]
async fn cancellation_reaches_the_server_if_it_is_supported() {
    for (supported, expected) in [(true, CancellationStatus::Accepted), (false, CancellationStatus::LocallyOnly)] {
        let Some(server) = Strict::start(json!({ "cancellation": supported }), json!({})) else { return };
        let durable = Durable::new(server.machine().await);
        let poller = durable.start().await;
        let id = requested(&poller, &durable.client).await;
        assert_eq!(poller.cancel(id).await.unwrap(), expected);
        server.decide("deny");
        assert!(matches!(delivered(&poller).await.outcome(), Outcome::Cancelled));
        server.is_satisfied();
    }
}

/// Connections over TLS.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tls {
    fn new(listener: TcpListener, host: &Identity) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(host.certificate_pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(host.key_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.listener.accept().await.expect("connections come");
        (self.acceptor.accept(stream).await.expect("the server trusts the certificate"), address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A server that polls would ask only after a minute, and a client with a notification endpoint. `run` ends the test.
async fn with_callbacks(token: bool, settings: Value, run: impl AsyncFnOnce(&Strict, &Durable, &Poller)) {
    let authority = Identity::authority();
    let host = Identity::host("localhost", Some(&authority));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}/deferred/ping", listener.local_addr().unwrap().port());
    let registered = json!({ "deferred_client_notification_endpoint": endpoint });
    let Some(server) = Strict::start_with(authority, with(json!({ "interval": 60 }), settings), registered) else {
        return;
    };
    let mut durable = Durable::new(server.machine().await);
    durable.receives_pings = token;
    let poller = durable.start().await;
    let receiver = match token {
        true => Receiver::new(poller.clone()),
        false => Receiver::unauthenticated(poller.clone(), &server.issuer, durable.client.client_id()).unwrap(),
    };
    let app: Router = Router::new().route("/deferred/ping", ping::axum::route(receiver));
    tokio::select! {
        served = axum::serve(Tls::new(listener, &host), app) => panic!("{served:?}"),
        () = run(&server, &durable, &poller) => {}
    }
    server.is_satisfied();
}

/// The statuses with which the callbacks of the first process were answered.
fn statuses(process: &Value) -> Vec<u64> {
    let callbacks = process["callbacks"].as_array().expect("it is a list");
    callbacks.iter().map(|callback| callback["status"].as_u64().expect("it is a status")).collect()
}

async fn answered(server: &Strict, expected: &[u64]) {
    server.until("answered", |processes| statuses(&processes[0]).len() >= expected.len()).await;
    assert_eq!(statuses(&server.processes()[0]), expected);
}

#[tokio::test]
async fn a_callback_with_or_without_a_token_brings_the_poll_forward() {
    for token in [true, false] {
        for to in ["approve", "deny"] {
            with_callbacks(token, json!({}), async |server, durable, poller| {
                let _ = requested(poller, &durable.client).await;
                assert_eq!(server.processes()[0]["notification_token"], json!(token));
                server.decide(to);
                let delivery = delivered(poller).await;
                match delivery.outcome() {
                    Outcome::Issued(_) => assert_eq!(to, "approve"),
                    Outcome::Denied(_) => assert_eq!(to, "deny"),
                    other => panic!("{other:?}"),
                }
                answered(server, &[204]).await;
                assert_eq!(server.answers().len(), 1, "the callback brought the poll forward");
            })
            .await;
        }
    }
}

/// The decision is there before the client knows the deferral code, so the callback follows at once.
#[tokio::test]
async fn a_callback_may_come_right_after_the_deferred_response() {
    for _ in 0..5 {
        with_callbacks(true, json!({ "immediately": "approve" }), async |server, durable, poller| {
            let _ = requested(poller, &durable.client).await;
            assert!(matches!(delivered(poller).await.outcome(), Outcome::Issued(_)));
            answered(server, &[204]).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_success_after_the_cancellation_is_suppressed() {
    let Some(server) = Strict::start(json!({ "interval": 3 }), json!({})) else { return };
    let durable = Durable::new(server.machine().await);
    let poller = durable.start().await;
    let id = requested(&poller, &durable.client).await;
    server.decide("approve");
    assert_eq!(poller.cancel(id).await.unwrap(), CancellationStatus::Accepted);
    assert!(matches!(delivered(&poller).await.outcome(), Outcome::Cancelled));
    server.is_satisfied();
}

/// A callback counts only with its token and its code, whatever else is in it.
#[tokio::test]
async fn wrong_callbacks_are_refused() {
    with_callbacks(true, json!({}), async |server, durable, poller| {
        let id = requested(poller, &durable.client).await;
        server.tell(&json!({ "do": "callback", "id": 1, "token": "wrong" }));
        answered(server, &[401]).await;
        server.tell(&json!({ "do": "callback", "id": 1, "code": "of another" }));
        answered(server, &[401, 401]).await;
        assert_eq!(server.answers().len(), 0, "it brings no poll");
        assert_eq!(poller.status(id).await.unwrap().unwrap().state(), State::Waiting);
        server.tell(&json!({ "do": "configure", "settings": { "callback_members": { "state": ["approved"] } } }));
        server.decide("approve");
        assert!(matches!(delivered(poller).await.outcome(), Outcome::Issued(_)));
        answered(server, &[401, 401, 204]).await;
    })
    .await;
}

#[tokio::test]
async fn the_server_sends_a_callback_after_a_cancellation() {
    with_callbacks(true, json!({}), async |server, durable, poller| {
        let id = requested(poller, &durable.client).await;
        assert_eq!(poller.cancel(id).await.unwrap(), CancellationStatus::Accepted);
        assert!(matches!(delivered(poller).await.outcome(), Outcome::Cancelled));
        server.until("called back", |processes| !statuses(&processes[0]).is_empty()).await;
    })
    .await;
}
