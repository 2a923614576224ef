//! RFC 7591, RFC 7592 and OpenID Connect Dynamic Client Registration 1.0: clients that register themselves.

mod differences;
mod managing;
mod registering;
mod signing_in;

use std::sync::Arc;

use openid_deferred::registration::{Registrar, Registration, RegistrationRequest};
use openid_deferred::testing::{DecisionPolicy, SeededRandom, TestClock, TestProvider, TestProviderBuilder, TestUser};
use openid_deferred::{Client, ClientBuilder, Error, Outcome, SignIn};

use crate::support::REDIRECT_URI;

pub(crate) const INITIAL_ACCESS_TOKEN: &str = "let-me-in";

/// A provider at which clients register, and a registrar.
pub(crate) struct Office {
    pub(crate) op: TestProvider,
    pub(crate) clock: TestClock,
    pub(crate) registrar: Registrar,
}

pub(crate) fn office() -> Office {
    office_with(|op| op)
}

pub(crate) fn office_with(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> Office {
    let clock = TestClock::automatic();
    let builder = TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(3)))
        .user(TestUser::new("user-1").claim("name", "Jane Doe"))
        .decisions(DecisionPolicy::after_polls(1))
        .initial_access_token(INITIAL_ACCESS_TOKEN);
    let op = op(builder).start().expect("a provider in process starts");
    let registrar = Registrar::builder(op.issuer())
        .initial_access_token(INITIAL_ACCESS_TOKEN)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
        .build()
        .expect("the settings are right");
    Office { op, clock, registrar }
}

/// A request for a client of the deferred flow without further members.
pub(crate) fn request() -> RegistrationRequest {
    RegistrationRequest::new(REDIRECT_URI)
}

impl Office {
    pub(crate) async fn register(&self, request: RegistrationRequest) -> Registration {
        self.registrar.register(request).await.expect("the client is registered")
    }

    /// A client of the registration, before it is built.
    pub(crate) fn client_of(&self, registration: &Registration) -> Result<ClientBuilder, Error> {
        Ok(self.at_the_op(registration.client()?))
    }

    pub(crate) fn at_the_op(&self, client: ClientBuilder) -> ClientBuilder {
        client.http_client(self.op.http_client()).clock(Arc::new(self.clock.clone()))
    }

    /// Signs a user in and waits for the outcome.
    pub(crate) async fn outcome(&self, client: &Client) -> Result<Outcome, Error> {
        let (url, session) = client.authorize().start().await?;
        let query = self.op.visit(url).query();
        match client.authorization_response(&query, session).await? {
            SignIn::Deferred(mut pending) => client.wait(&mut pending).await,
            other => panic!("the OP did not defer: {other:?}"),
        }
    }
}
