//! A provider, a clock and a client that belong together.

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::error::{Rule, TransportProblem};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, RecordedRequest, SeededRandom, TestClient, TestClock, TestProvider, TestProviderBuilder,
    TestUser,
};
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use openid_deferred::{
    Authentication, AuthorizationSession, Client, ClientAuthentication, ClientBuilder, Clock as _, Error, Keyring,
    Outcome, PendingAuthentication, Poll, SealingKey, SignIn, SystemRandom,
};

pub const CLIENT_ID: &str = "the-app";
pub const CLIENT_SECRET: &str = "the app's secret: 100% +/?&";
pub const REDIRECT_URI: &str = "https://rp.test/callback";

/// A relying party and its provider in one program, on a clock that advances by itself while all tasks sleep.
pub struct World {
    pub op: TestProvider,
    pub clock: TestClock,
    pub client: Client,
}

/// A provider that decides at once, with an interval of 5 s, and a confidential client.
pub async fn world() -> World {
    world_with(|op| op, |client| client).await
}

/// The same with other settings of the provider and the client.
pub async fn world_with(
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let clock = TestClock::automatic();
    let op = op(provider(&clock)).start().expect("a provider in process starts");
    let client = client(client_of(&op, &clock)).discover().await.expect("discovery succeeds");
    World { op, clock, client }
}

/// An in-process provider, before it starts.
pub fn provider(clock: &TestClock) -> TestProviderBuilder {
    TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(1)))
        .client(
            TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI).signing_algorithm("ES256"),
        )
        .user(TestUser::new("user-1").claim("name", "Jane Doe"))
        .interval(Duration::from_secs(5))
        .decisions(DecisionPolicy::after_polls(1))
}

/// A client of `op`, before it is built.
pub fn client_of(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(2)))
}

impl World {
    /// Sends the user to the OP and back. Returns the query string and the session.
    pub async fn user_returns(&self) -> (String, AuthorizationSession) {
        let (url, session) = self.client.authorize().start().await.expect("the request can be made");
        (self.op.visit(url).query(), session)
    }

    /// Signs a user in and exchanges the code.
    pub async fn sign_in(&self) -> Result<SignIn, Error> {
        let (query, session) = self.user_returns().await;
        self.client.authorization_response(&query, session).await
    }

    /// A sign-in that waits for its outcome.
    pub async fn pending(&self) -> PendingAuthentication {
        match self.sign_in().await {
            Ok(SignIn::Deferred(pending)) => pending,
            other => panic!("expected a deferral, got {other:?}"),
        }
    }

    /// Waits for the outcome of a new sign-in.
    pub async fn outcome(&self) -> Outcome {
        self.client.wait(&mut self.pending().await).await.expect("waiting ends with an outcome")
    }

    pub fn polls(&self) -> Vec<RecordedRequest> {
        self.op.requests_to(Endpoint::Poll)
    }

    /// The times between polls, starting at the exchange, in seconds.
    pub fn gaps(&self) -> Vec<f64> {
        let exchange = self.op.requests_to(Endpoint::Exchange).last().expect("there was an exchange").arrived;
        let times: Vec<_> = std::iter::once(exchange).chain(self.polls().iter().map(|poll| poll.arrived)).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A provider that decides when the test says so.
pub(crate) async fn undecided() -> World {
    world_with(|op| op.decisions(DecisionPolicy::scripted()), |client| client).await
}

/// A provider that decides this long after the exchange.
pub(crate) async fn decided_after(time: Duration) -> World {
    world_with(|op| op.decisions(DecisionPolicy::after(time)), |client| client).await
}

/// A new keyring.
pub(crate) fn keyring() -> Keyring {
    Keyring::new(SealingKey::generate(&SystemRandom).expect("the system has randomness"))
}

/// The sign-in as it is after a restart.
pub(crate) fn reopened(pending: PendingAuthentication, keyring: &Keyring) -> PendingAuthentication {
    let sealed = pending.seal(keyring).expect("a process can be sealed");
    PendingAuthentication::open(keyring, &sealed).expect("its own keyring opens it")
}

#[track_caller]
pub(crate) fn assert_approved(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
}

/// The rule that made an outcome invalid, or `None` if it is an approval.
#[track_caller]
pub(crate) fn broken_rule(outcome: &Outcome) -> Option<Rule> {
    match outcome {
        Outcome::Approved(_) => None,
        Outcome::Invalid(violation) => Some(violation.rule()),
        outcome => panic!("neither approved nor invalid: {outcome:?}"),
    }
}

/// A network that can be disconnected. No connection can be made then.
#[derive(Debug)]
pub(crate) struct Cable {
    network: Arc<dyn HttpClient>,
    unplugged: AtomicBool,
}

impl Cable {
    pub(crate) fn unplug(&self) {
        self.unplugged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn plug_in(&self) {
        self.unplugged.store(false, Ordering::Relaxed);
    }
}

impl HttpClient for Cable {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        match self.unplugged.load(Ordering::Relaxed) {
            true => Box::pin(async { Err(HttpError::not_sent(TransportProblem::Connect)) }),
            false => self.network.send(request),
        }
    }
}

/// A world whose network can be disconnected.
pub(crate) async fn world_on_a_cable(
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
) -> (World, Arc<Cable>) {
    let clock = TestClock::automatic();
    let op = op(provider(&clock)).start().expect("a provider in process starts");
    let cable = Arc::new(Cable { network: op.http_client(), unplugged: AtomicBool::new(false) });
    let client = client_of(&op, &clock).http_client(cable.clone()).discover().await.expect("discovery succeeds");
    (World { op, clock, client }, cable)
}

impl World {
    /// Waits for the outcome of a sign-in.
    pub(crate) async fn wait(&self, pending: &mut PendingAuthentication) -> Outcome {
        self.client.wait(pending).await.expect("waiting ends with an outcome")
    }

    /// Waits, and drops the future after this time, before it has completed.
    pub(crate) async fn drop_wait_after(&self, time: Duration, pending: &mut PendingAuthentication) {
        tokio::select! {
            biased;
            outcome = self.client.wait(pending).into_future() => panic!("it ended before it could be dropped: {outcome:?}"),
            () = self.clock.sleep(time) => {}
        }
    }

    /// Polls once, as soon as a poll is due.
    pub(crate) async fn poll_when_due(&self, pending: &mut PendingAuthentication) -> Result<Poll, Error> {
        match self.client.poll(pending).await {
            Ok(Poll::NotDue { due_in }) => {
                self.clock.sleep(due_in).await;
                self.client.poll(pending).await
            }
            polled => panic!("a poll was due at once: {polled:?}"),
        }
    }

    /// A successful sign-in.
    pub(crate) async fn approved(&self) -> Authentication {
        match self.outcome().await {
            Outcome::Approved(authentication) => authentication,
            outcome => panic!("not approved: {outcome:?}"),
        }
    }

    /// Restarts the application, with only what it has sealed.
    pub(crate) fn restarted(self, seed: u64) -> Self {
        self.restarted_with(seed, |client| client)
    }

    /// The same with other settings of the client.
    pub(crate) fn restarted_with(self, seed: u64, client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let client = client(client_of(&self.op, &self.clock).random(Arc::new(SeededRandom::new(seed))));
        Self { client: client.build().expect("the settings are right"), ..self }
    }
}
