//! DTR §Authentication Request and §Authentication Request Acknowledgment Validation.

mod details;
mod either_code;
mod request;
mod response;
mod session;

use std::time::Duration;

use openid_deferred::error::{ConfigurationProblem, Misuse, Rule, SessionProblem};
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, RequestRule, TestClient};
use openid_deferred::{
    AuthorizationRequest, AuthorizationSession, Error, ErrorKind, Keyring, ResponseMode, ResponseType, SealingKey,
    SignIn,
};
use serde_json::json;
use url::Url;

use crate::steps::parameters;
use crate::support::{CLIENT_ID, REDIRECT_URI, World, client_of, world, world_with};

async fn started(request: AuthorizationRequest<'_>) -> (Url, AuthorizationSession) {
    request.start().await.expect("the request can be made")
}

/// The client's error for a response that was changed in transit. It must not have sent anything.
async fn refusal(world: &World, edit: impl Fn(&mut Vec<(String, String)>) + Send + Sync + 'static) -> Error {
    world.op.misbehave(Fault::authorization_response(edit));
    let error = world.sign_in().await.expect_err("such a response is refused");
    world.assert_nothing_sent();
    error
}

fn replace(parameters: &mut Vec<(String, String)>, name: &str, value: &str) {
    remove(parameters, name);
    parameters.push((name.to_owned(), value.to_owned()));
}

fn remove(parameters: &mut Vec<(String, String)>, name: &str) {
    parameters.retain(|(existing, _)| existing != name);
}
