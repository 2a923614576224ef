//! A provider, a clock, a store and a poller that belong together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Request};
use openid_deferred::poller::{AcceptedSignIn, Event, Events, Outcomes, PollerBuilder};
use openid_deferred::store::{MemoryStore, ProcessId};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, RecordedRequest, SeededRandom, TestClient, TestClock, TestProvider, TestProviderBuilder,
    TestUser,
};
use openid_deferred::{
    AuthorizationSession, Client, ClientAuthentication, ClientBuilder, Clock, Delivery, Error, Keyring, Poller,
    SealingKey,
};

pub const CLIENT_ID: &str = "the-app";
pub const CLIENT_SECRET: &str = "the app's secret: 100% +/?&";
pub const REDIRECT_URI: &str = "https://rp.test/callback";
pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3600);

/// A relying party and its provider in one program, on a clock that advances by itself while all tasks sleep.
pub struct World {
    pub op: TestProvider,
    pub clock: TestClock,
    pub client: Client,
    pub store: Arc<MemoryStore>,
    pub poller: Poller,
}

/// A provider that decides after one poll, with an interval of 5 s, and a poller with a confidential client.
pub async fn world() -> World {
    world_with(|op| op, |client| client, |poller| poller).await
}

/// The same with other settings of the provider.
pub async fn world_of(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    world_with(op, |client| client, |poller| poller).await
}

/// The same with other settings of the provider, the client and the poller.
pub async fn world_with(
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
    poller: impl FnOnce(PollerBuilder) -> PollerBuilder,
) -> World {
    let clock = TestClock::automatic();
    let op = op(provider(&clock)).start().expect("a provider in process starts");
    let client = client(client_of(&op, &clock)).build().expect("the settings work");
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let builder = poller(poller_of(&store, &clock, 3)).client(client.clone());
    let poller = builder.start().await.expect("the poller starts");
    World { op, clock, client, store, poller }
}

/// An in-process provider, before it starts.
pub fn provider(clock: &TestClock) -> TestProviderBuilder {
    TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(1)))
        .client(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI))
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

/// A poller on `store`, before it starts.
pub fn poller_of(store: &Arc<MemoryStore>, clock: &TestClock, seed: u64) -> PollerBuilder {
    Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone())).random(Arc::new(SeededRandom::new(seed)))
}

pub fn keyring() -> Keyring {
    Keyring::new(SealingKey::generate(&SeededRandom::new(7)).expect("a key"))
}

impl World {
    /// Sends the user to the OP and back. Returns the query string and the session.
    pub async fn user_returns(&self) -> (String, AuthorizationSession) {
        let (url, session) = self.client.authorize().context("context").start().await.expect("the request can be made");
        (self.op.visit(url).query(), session)
    }

    /// Passes a user's return to the poller.
    pub async fn accept(&self) -> Result<AcceptedSignIn, Error> {
        let (query, session) = self.user_returns().await;
        self.poller.authorization_response(&query, session).await
    }

    /// Starts a sign-in that waits for its outcome.
    pub async fn waiting(&self) -> ProcessId {
        match self.accept().await {
            Ok(AcceptedSignIn::Deferred(id)) => id,
            other => panic!("expected a deferral, got {other:?}"),
        }
    }

    /// The next outcome of a new stream.
    pub async fn outcome(&self) -> Delivery {
        next(&mut self.poller.outcomes()).await
    }

    /// Stops the poller as a power failure does, and starts another one on the same store.
    pub async fn restart(&mut self) {
        self.poller.shutdown(Duration::ZERO).await;
        self.poller = self.replica(4).await;
    }

    /// Starts another poller on the same store.
    pub async fn replica(&self, seed: u64) -> Poller {
        let random = Arc::new(SeededRandom::new(1_000 + seed));
        let client = client_of(&self.op, &self.clock).random(random).build().expect("the settings work");
        poller_of(&self.store, &self.clock, seed).client(client).start().await.expect("the poller starts")
    }

    pub async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
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

/// A request to the Deferred Client Notification Endpoint.
pub fn ping_request(method: Method, headers: &HeaderMap, body: impl Into<String>) -> Request<String> {
    let mut request = Request::new(body.into());
    *request.method_mut() = method;
    *request.headers_mut() = headers.clone();
    request
}

pub async fn next(outcomes: &mut Outcomes) -> Delivery {
    outcomes.next().await.expect("the poller runs")
}

/// The next event that has already happened.
pub fn happened(events: &mut Events) -> Option<Event> {
    tokio::task::unconstrained(events.next()).now_or_never().flatten()
}
