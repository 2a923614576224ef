//! The IETF dialect (draft-ietf-oauth-deferred-token-response): what the draft demands of a client.
//! docs/specification/ietf.md names the test of each row.

mod binding;
mod cancellation;
mod grants;
mod interaction;
mod polling;
mod sign_in;
mod tokens;
mod unused_tokens;

use std::sync::Arc;

use openid_deferred::testing::{
    DecisionPolicy, Endpoint, RecordedRequest, SeededRandom, TestClient, TestClock, TestProvider, TestProviderBuilder,
};
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, Grant, IssuedTokens, Outcome, PendingAuthentication, TokenAnswer,
};

use crate::support::{CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, provider, world_with};

/// A provider that speaks only this dialect and decides when the test says so.
async fn undecided() -> World {
    ietf(|op| op.decisions(DecisionPolicy::scripted())).await
}

/// A provider that speaks only this dialect, with other settings.
async fn ietf(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    world_with(|builder| op(builder.ietf()), |client| client).await
}

/// A client without users at a provider that has neither an authorization endpoint nor keys.
async fn demo(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    let clock = TestClock::automatic();
    let op = op(provider(&clock).like_the_demo()).start().expect("a provider in process starts");
    let client = service(&op, &clock).discover().await.expect("discovery succeeds");
    World { op, clock, client }
}

/// A client that signs no users in.
fn service(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
        .without_redirect_uri()
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(2)))
}

/// A public client in the provider and in the program.
fn public(op: TestProviderBuilder) -> TestProviderBuilder {
    op.client(TestClient::public("public").redirect_uri(REDIRECT_URI))
}

impl World {
    /// A deferred request for the client's own tokens.
    async fn pending_grant(&self) -> PendingAuthentication {
        deferred(self.client.token_request(Grant::client_credentials()).send().await.expect("the OP answers"))
    }

    /// The token requests that are not polls.
    fn token_requests(&self) -> Vec<RecordedRequest> {
        let all = self.op.requests_to(Endpoint::Token).into_iter();
        all.filter(|request| request.endpoint != Endpoint::Poll).collect()
    }
}

#[track_caller]
fn deferred(answer: TokenAnswer) -> PendingAuthentication {
    match answer {
        TokenAnswer::Deferred(pending) => pending,
        other => panic!("expected a deferral, got {other:?}"),
    }
}

#[track_caller]
fn complete(answer: TokenAnswer) -> IssuedTokens {
    match answer {
        TokenAnswer::Complete(tokens) => tokens,
        other => panic!("expected tokens, got {other:?}"),
    }
}

#[track_caller]
fn issued(outcome: Outcome) -> IssuedTokens {
    match outcome {
        Outcome::Issued(tokens) => tokens,
        other => panic!("expected tokens, got {other:?}"),
    }
}
