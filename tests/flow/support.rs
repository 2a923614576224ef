//! A provider, a clock and a client that belong together.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::testing::{
    DecisionPolicy, Endpoint, RecordedRequest, SeededRandom, TestClient, TestClock, TestProvider, TestProviderBuilder,
    TestUser,
};
use openid_deferred::{
    AuthorizationSession, Client, ClientAuthentication, ClientBuilder, Error, Outcome, PendingAuthentication, SignIn,
};

pub const CLIENT_ID: &str = "the-app";
pub const CLIENT_SECRET: &str = "the app's secret: 100% +/?&";
pub const REDIRECT_URI: &str = "https://rp.test/callback";

/// A relying party and its provider, in one process, on a clock that runs by itself while everybody sleeps.
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

/// A provider in process, before it starts.
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
    /// Sends the user out and back: the query string with its session.
    pub async fn user_returns(&self) -> (String, AuthorizationSession) {
        let (url, session) = self.client.authorize().start().await.expect("the request can be made");
        (self.op.visit(url).query(), session)
    }

    /// Signs a user in up to what the exchange gives.
    pub async fn sign_in(&self) -> Result<SignIn, Error> {
        let (query, session) = self.user_returns().await;
        self.client.authorization_response(&query, session).await
    }

    /// A process that waits for its outcome.
    pub async fn pending(&self) -> PendingAuthentication {
        match self.sign_in().await {
            Ok(SignIn::Deferred(pending)) => pending,
            other => panic!("expected a deferral, got {other:?}"),
        }
    }

    /// The outcome of a process that is waited for from its exchange on.
    pub async fn outcome(&self) -> Outcome {
        self.client.wait(&mut self.pending().await).await.expect("waiting ends with an outcome")
    }

    pub fn polls(&self) -> Vec<RecordedRequest> {
        self.op.requests_to(Endpoint::Poll)
    }

    /// How far apart polls arrived, from the exchange on, in seconds.
    pub fn gaps(&self) -> Vec<f64> {
        let exchange = self.op.requests_to(Endpoint::Exchange).last().expect("there was an exchange").arrived;
        let times: Vec<_> = std::iter::once(exchange).chain(self.polls().iter().map(|poll| poll.arrived)).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}
