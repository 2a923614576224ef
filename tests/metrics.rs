//! Checks what a recorder of the `metrics` facade and a subscriber of `tracing` receive from a poller.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use openid_deferred::ciba::{DeliveryMode, UserHint};
use openid_deferred::ping::Receiver;
use openid_deferred::poller::{AcceptedSignIn, AcceptedTokenRequest};
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, TestClient, TestClock, TestProvider, TestProviderBuilder, TestUser,
};
use openid_deferred::{Client, ClientAuthentication, Clock as _, ErrorKind, Grant, Keyring, Outcome, Poller};

const CALLBACK: &str = "https://rp.test/callback";

/// `tracing` remembers for all threads whether a call site has a subscriber, so tests with subscribers run one at a
/// time.
static RECORDER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A provider, and a poller with a client of it.
async fn world(of: fn(TestProviderBuilder) -> TestProviderBuilder) -> (TestClock, TestProvider, Client, Poller) {
    let clock = TestClock::automatic();
    let op = of(TestProvider::builder())
        .in_process()
        .clock(Arc::new(clock.clone()))
        .client(TestClient::secret_basic("the-app", "secret").redirect_uri(CALLBACK))
        .user(TestUser::new("jane"))
        .interval(Duration::from_secs(60))
        .decisions(DecisionPolicy::after_polls(2))
        .start()
        .unwrap();
    let client = Client::builder(op.issuer(), "the-app")
        .authentication(ClientAuthentication::client_secret_basic("secret"))
        .redirect_uri(CALLBACK)
        .http_client(op.http_client())
        .backchannel_token_delivery_mode(DeliveryMode::Poll)
        .clock(Arc::new(clock.clone()))
        .build()
        .unwrap();
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    let builder = Poller::builder(store, Keyring::ephemeral().unwrap()).clock(Arc::new(clock.clone()));
    let poller = builder.client(client.clone()).receives_pings().start().await.unwrap();
    (clock, op, client, poller)
}

/// A sign-in with an outage in it, a ping that is none, and an acknowledged outcome.
async fn sign_in() -> TestProvider {
    let (clock, op, client, poller) = world(|op| op).await;
    let (url, session) = client.authorize().start().await.unwrap();
    op.misbehave(Fault::status(Endpoint::Poll, 502));
    let accepted = poller.authorization_response(&op.visit(url).query(), session).await.unwrap();
    assert!(matches!(accepted, AcceptedSignIn::Deferred(_)));
    Receiver::new(poller.clone()).receive(http::Request::get("/").body(String::new()).unwrap()).await;
    let delivery = poller.outcomes().next().await.unwrap();
    delivery.acknowledge().await.unwrap();
    // The rows are counted once a minute.
    clock.sleep(Duration::from_secs(120)).await;
    poller.shutdown(Duration::from_secs(60)).await;
    op
}

#[tokio::test]
async fn a_metrics_recorder_gets_polls_exchanges_outcomes_pings_and_refusals() {
    let _recorder = RECORDER.lock().await;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let op = sign_in().await;

    let counted = counted(&snapshotter, &op);
    let counted: Vec<_> = counted.iter().map(|((name, special), value)| (&**name, &**special, *value)).collect();
    let expected = [
        ("acknowledged_total", "", 1.0),
        ("client_refused", "", 0.0),
        ("exchanges_total", "deferred", 1.0),
        ("lateness_seconds", "", 4.0),
        ("op_unreachable", "", 0.0),
        ("outcomes_total", "approved", 1.0),
        ("overdue_seconds", "", 0.0),
        ("paused", "", 0.0),
        ("pings_total", "405", 1.0),
        ("poll_seconds", "", 4.0),
        ("polls_in_flight", "", 0.0),
        ("polls_total", "pending", 2.0),
        ("polls_total", "success", 1.0),
        ("polls_total", "transient_error", 1.0),
        ("set_aside_rows", "", 0.0),
        ("sign_ins", "answered", 0.0),
        ("sign_ins", "decided", 0.0),
        ("sign_ins", "exchanging", 0.0),
        ("sign_ins", "waiting", 0.0),
        ("undelivered_seconds", "", 0.0),
        ("unknown_client_rows", "", 0.0),
        ("unreadable_rows", "missing_key", 0.0),
        ("unreadable_rows", "newer_format", 0.0),
    ];
    assert_eq!(counted, expected);
}

/// What was recorded, by name and by the label that is not about the client.
fn counted(snapshotter: &Snapshotter, op: &TestProvider) -> BTreeMap<(String, String), f64> {
    let mut counted = BTreeMap::new();
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        let labels: BTreeMap<_, _> = key.key().labels().map(|label| (label.key(), label.value())).collect();
        if let (Some(issuer), Some(client_id)) = (labels.get("issuer"), labels.get("client_id")) {
            assert_eq!((*issuer, *client_id), (op.issuer(), "the-app"));
        }
        assert!(description.is_some(), "{} is described", key.key().name());
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        let special = ["answer", "result", "outcome", "status", "reason", "alert", "state"]
            .into_iter()
            .find_map(|name| labels.get(name));
        let name = key.key().name().strip_prefix("openid_deferred_").expect("all names begin like that").to_owned();
        counted.insert((name, special.copied().unwrap_or_default().to_owned()), value);
    }
    counted
}

/// What was counted of requests, polls and outcomes.
fn requests_and_outcomes(snapshotter: &Snapshotter, op: &TestProvider) -> BTreeMap<(String, String), f64> {
    let mut counted = counted(snapshotter, op);
    counted.retain(|(name, _), _| ["exchanges_total", "outcomes_total", "polls_total"].contains(&&**name));
    counted
}

#[tokio::test]
async fn a_metrics_recorder_gets_token_requests_and_issued_tokens() {
    let _recorder = RECORDER.lock().await;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (_, op, client, poller) = world(TestProviderBuilder::ietf).await;
    let request = || client.token_request(Grant::client_credentials());

    assert!(matches!(poller.request_tokens(request()).await, Ok(AcceptedTokenRequest::Deferred(_))));
    let delivery = poller.outcomes().next().await.unwrap();
    assert!(matches!(delivery.outcome(), Outcome::Issued(_)), "{delivery:?}");
    delivery.acknowledge().await.unwrap();
    assert!(matches!(poller.request_tokens(request().without_deferral()).await, Ok(AcceptedTokenRequest::Complete(_))));
    op.misbehave(Fault::error(Endpoint::ClientCredentials, "invalid_scope"));
    assert!(poller.request_tokens(request()).await.unwrap_err().error_response().is_some());
    op.misbehave(Fault::cut_body(Endpoint::ClientCredentials).after_processing());
    let unknown = poller.request_tokens(request()).await.unwrap_err();
    assert_eq!(unknown.kind(), &ErrorKind::OutcomeUnknown);
    poller.shutdown(Duration::from_secs(60)).await;

    let counted = requests_and_outcomes(&snapshotter, &op);
    let expected = [
        ("exchanges_total", "complete", 1.0),
        ("exchanges_total", "deferred", 1.0),
        ("exchanges_total", "refused", 1.0),
        ("exchanges_total", "unknown", 1.0),
        ("outcomes_total", "issued", 1.0),
        ("polls_total", "pending", 2.0),
        ("polls_total", "success", 1.0),
    ];
    assert_eq!(counted, BTreeMap::from(expected.map(|(name, label, value)| ((name.into(), label.into()), value))));
    op.assert_clean();
}

#[tokio::test]
async fn a_metrics_recorder_gets_authentication_requests_and_their_refusals() {
    let _recorder = RECORDER.lock().await;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (_, op, client, poller) = world(|op| op.ciba().login_hint("jane", TestUser::new("jane"))).await;
    let request = |hint: &str| client.backchannel_authentication(UserHint::login_hint(hint));

    assert!(poller.request_authentication(request("nobody")).await.unwrap_err().error_response().is_some());
    assert!(matches!(poller.request_authentication(request("jane")).await, Ok(AcceptedSignIn::Deferred(_))));
    let delivery = poller.outcomes().next().await.unwrap();
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    delivery.acknowledge().await.unwrap();
    op.misbehave(Fault::cut_body(Endpoint::BackchannelAuthentication).after_processing());
    let unknown = poller.request_authentication(request("jane")).await.unwrap_err();
    assert_eq!(unknown.kind(), &ErrorKind::OutcomeUnknown);
    poller.shutdown(Duration::from_secs(60)).await;

    let counted = requests_and_outcomes(&snapshotter, &op);
    let expected = [
        ("exchanges_total", "deferred", 1.0),
        ("exchanges_total", "refused", 1.0),
        ("exchanges_total", "unknown", 1.0),
        ("outcomes_total", "approved", 1.0),
        ("polls_total", "pending", 2.0),
        ("polls_total", "success", 1.0),
    ];
    assert_eq!(counted, BTreeMap::from(expected.map(|(name, label, value)| ((name.into(), label.into()), value))));
    op.assert_clean();
}

#[tokio::test]
async fn a_metrics_recorder_gets_the_number_and_the_age_of_waiting_sign_ins() {
    let _recorder = RECORDER.lock().await;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (clock, op, client, poller) = world(|op| op).await;
    let begin = || async {
        let (url, session) = client.authorize().start().await.unwrap();
        let accepted = poller.authorization_response(&op.visit(url).query(), session).await.unwrap();
        assert!(matches!(accepted, AcceptedSignIn::Deferred(_)));
    };
    begin().await;
    // Two polls decide it, and nobody takes the outcome.
    clock.sleep(Duration::from_secs(600)).await;
    // The OP refuses the client, so the others stay due.
    op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client").times(100));
    begin().await;
    begin().await;
    clock.sleep(Duration::from_secs(1_200)).await;

    let counted = counted(&snapshotter, &op);
    let gauge = |name: &str, special: &str| counted[&(name.to_owned(), special.to_owned())];
    assert_eq!((gauge("sign_ins", "waiting"), gauge("sign_ins", "decided")), (2.0, 1.0));
    assert_eq!((gauge("sign_ins", "exchanging"), gauge("sign_ins", "answered")), (0.0, 0.0));
    assert!((300.0..=1_200.0).contains(&gauge("overdue_seconds", "")), "{counted:?}");
    assert!((1_200.0..=1_800.0).contains(&gauge("undelivered_seconds", "")), "{counted:?}");

    // A client that is gone has no rows.
    poller.remove_client(op.issuer(), "the-app").unwrap();
    let counted = self::counted(&snapshotter, &op);
    let gauge = |name: &str, special: &str| counted[&(name.to_owned(), special.to_owned())];
    assert_eq!((gauge("sign_ins", "waiting"), gauge("overdue_seconds", "")), (0.0, 0.0));
}

#[tokio::test]
async fn a_client_that_is_removed_while_its_poll_is_in_flight_leaves_no_gauge_of_a_refused_client() {
    let _recorder = RECORDER.lock().await;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (clock, op, client, poller) = world(|op| op).await;
    let (url, session) = client.authorize().start().await.unwrap();
    op.misbehave(Fault::delay(Endpoint::Poll, Duration::from_secs(20)));
    op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client"));
    let accepted = poller.authorization_response(&op.visit(url).query(), session).await.unwrap();
    assert!(matches!(accepted, AcceptedSignIn::Deferred(_)));
    while op.requests_to(Endpoint::Poll).is_empty() {
        clock.sleep(Duration::from_secs(1)).await;
    }
    poller.remove_client(op.issuer(), "the-app").unwrap();
    clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(op.requests_to(Endpoint::Poll)[0].error().as_deref(), Some("invalid_client"));
    let gauges = snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| match value {
        DebugValue::Gauge(value) => Some((key.key().name().to_owned(), value.into_inner())),
        _ => None,
    });
    let closed: Vec<_> = gauges.filter(|(name, _)| name == "openid_deferred_client_refused").collect();
    assert_eq!(closed, [("openid_deferred_client_refused".to_owned(), 0.0)]);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn spans_name_the_process_the_client_and_the_result() {
    let _recorder = RECORDER.lock().await;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let op = sign_in().await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let closed: Vec<_> = text.lines().filter(|line| line.contains(": close ")).collect();
    let with = |parts: &[&str]| closed.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    let issuer = format!("issuer=\"{}\"", op.issuer());
    assert_eq!(
        with(&["openid_deferred.exchange{process=", &issuer, "client_id=\"the-app\"", "result=\"deferred\""]),
        1
    );
    assert_eq!(with(&["openid_deferred.process{process=", &issuer, "state=Waiting", "answer=\"pending\""]), 2);
    assert_eq!(with(&["openid_deferred.process{process=", "answer=\"transient_error\""]), 1);
    assert_eq!(with(&["openid_deferred.process{process=", "state=Answered", "outcome=\"approved\""]), 1);
    let request =
        "openid_deferred.request{otel.kind=\"client\" http.request.method=\"POST\" server.address=\"op.test\"";
    assert!(with(&[request, "http.response.status_code=502"]) >= 1, "{text}");
    let processes: BTreeSet<_> =
        closed.iter().filter_map(|line| line.split_once("{process=")?.1.split_once(' ')).map(|(id, _)| id).collect();
    assert_eq!(processes.len(), 1, "one process has one name: {processes:?}");
}
