//! DTR §Deferred Code Exchange Request, its response, and the code flow's token response.

mod client_authentication;
mod nonces;
mod request;
mod response;
mod times;
mod tokens;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::compatibility::AssertionAudience;
use openid_deferred::error::{Document, Misuse, Rule, TransportProblem};
use openid_deferred::testing::{
    Endpoint, Fault, IdTokenForgery, InterimToken, NoncePolicy, RequestRule, TestClient, TestProviderBuilder,
};
use openid_deferred::tokens::GrantedScope;
use openid_deferred::{
    Authentication, AuthorizationGrant, ClientAuthentication, ClientBuilder, Clock as _, DpopMode, Error, ErrorKind,
    InterimState, Outcome, PendingAuthentication, SignIn, Signer, SigningAlgorithm, SigningKey,
};
use serde_json::{Map, Value, json};

use crate::steps::{RefusingNetwork, cause, claims_of};
use crate::support::{CLIENT_ID, REDIRECT_URI, World, client_of, keyring, world, world_with};

async fn op_with(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    world_with(op, |client| client).await
}

async fn client_with(client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    world_with(|op| op, client).await
}

/// The result of an exchange whose response was changed in transit.
async fn answered_with(
    world: &World,
    edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
) -> Result<PendingAuthentication, Error> {
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, edit));
    match world.sign_in().await? {
        SignIn::Deferred(pending) => Ok(pending),
        other => panic!("the answer was not final: {other:?}"),
    }
}

fn set(members: &mut Map<String, Value>, name: &str, value: Value) {
    members.insert(name.to_owned(), value);
}

/// Asserts that this fault spends the code, that nothing is sent again, and that the outcome is unknown.
async fn lost(fault: Fault) -> (World, Error) {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.misbehave(fault);
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    assert_eq!(error.step(), Some("exchanging the code"));
    assert!(grant.is_spent() && !error.is_transient());

    let again = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*again.kind(), ErrorKind::Misuse(Misuse::GrantAlreadyUsed));
    let calls = world.op.requests().iter().filter(|request| request.endpoint >= Endpoint::Token).count();
    assert_eq!(calls, 1, "the code went out once, and nothing else did");
    world.op.assert_clean();
    (world, error)
}

async fn code_flow(world: &World) -> Result<SignIn, Error> {
    let request = world.client.authorize().response_type(openid_deferred::ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await?;
    world.client.authorization_response(&world.op.visit(url).query(), session).await
}
