//! Values that must never be shown.

use std::error::Error as _;
use std::fmt::Debug;

use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, InterimToken};
use openid_deferred::{Clock as _, Outcome, SignIn};
use serde_json::Value;

use crate::support::{CLIENT_SECRET, World, seconds, world, world_with};
/// All confidential values in the requests and responses.
fn secrets(world: &World) -> Vec<String> {
    const PARAMETERS: [&str; 8] = [
        "state",
        "nonce",
        "code_verifier",
        "deferred_code",
        "deferred_auth_id",
        "deferred_notification_token",
        "token",
        "client_secret",
    ];
    const MEMBERS: [&str; 6] =
        ["access_token", "refresh_token", "id_token", "interim_id_token", "deferred_auth_id", "error_description"];
    let mut secrets = vec![CLIENT_SECRET.to_owned(), "Jane Doe".to_owned()];
    for request in world.op.requests() {
        secrets.extend(PARAMETERS.iter().filter_map(|name| request.parameter(name)).map(str::to_owned));
        secrets.extend(request.header("authorization").and_then(|value| Some(value.split_once(' ')?.1.to_owned())));
        secrets.extend(request.header("dpop").map(str::to_owned));
        let response = request.response_json();
        secrets.extend(MEMBERS.iter().filter_map(|name| response.get(name)?.as_str()).map(str::to_owned));
    }
    secrets.retain(|secret| secret.len() > 4);
    secrets.sort_unstable();
    secrets.dedup();
    secrets
}

/// The output of `{:?}` and `{:#?}` together.
fn shown(values: &[&dyn Debug]) -> String {
    values.iter().map(|value| format!("{value:?}\n{value:#?}\n")).collect()
}

#[track_caller]
fn assert_silent(world: &World, shown: &str) {
    let secrets = secrets(world);
    assert!(secrets.len() > 10, "there are secrets to look for");
    for secret in secrets {
        assert!(!shown.contains(&secret), "{secret} is shown in:\n{shown}");
    }
}

#[tokio::test]
async fn no_value_of_a_whole_flow_shows_a_secret_or_a_claim() {
    let world = world_with(
        |op| op.early_access_token().interim_token(InterimToken::Both),
        |client| client.notification_token("a notification token"),
    )
    .await;
    let request = world.client.authorize();
    let mut text = shown(&[&world.client, &request]);
    let (url, mut session) = request.start().await.unwrap();
    text += &shown(&[&session]);
    let query = world.op.visit(url).query();
    let mut grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    text += &shown(&[&grant]);
    let sign_in = world.client.exchange(&mut grant).await.unwrap();
    text += &shown(&[&sign_in, &grant]);
    let SignIn::Deferred(mut pending) = sign_in else { panic!("not deferred") };
    world.op.last_process().progress("a secret of the reviewer's");
    text += &shown(&[&pending.interim(), &pending.dpop_key(), &pending.identifier(), &pending.access_token()]);
    text += &shown(&[&world.poll_when_due(&mut pending).await, &pending]);
    let mut events = String::new();
    let wait = world.client.wait(&mut pending);
    text += &shown(&[&wait]);
    let outcome = wait.on_event(|pending, event| events += &shown(&[&pending, &event])).await.unwrap();
    text += &shown(&[&outcome, &pending]);
    let Outcome::Approved(authentication) = outcome else { panic!("not approved") };
    let userinfo = world.client.userinfo(&authentication).await.unwrap();
    text += &shown(&[
        &authentication,
        &authentication.claims(),
        &authentication.id_token(),
        &authentication.access_token(),
        &authentication.refresh_token(),
        &authentication.dpop_key(),
        &userinfo,
    ]);
    assert_silent(&world, &(text + &events));
}

#[tokio::test]
async fn no_error_or_unsuccessful_outcome_shows_a_secret() {
    let world = world().await;
    let mut text = String::new();
    let echo = |world: &World| {
        let said = world.polls().last().map(|poll| String::from_utf8_lossy(&poll.body).into_owned());
        Value::from(said.unwrap_or_default() + CLIENT_SECRET)
    };
    for fault in [
        Fault::status(Endpoint::Poll, 502),
        Fault::reset(Endpoint::Poll),
        Fault::error_with_status(Endpoint::Poll, 401, "invalid_client"),
        Fault::response(Endpoint::Poll, 200, "application/json", format!("{{\"{CLIENT_SECRET}\": {CLIENT_SECRET}")),
        Fault::response(Endpoint::Poll, 400, "application/json", format!("{{\"error\": \"{CLIENT_SECRET}\" x")),
        Fault::response(
            Endpoint::Poll,
            400,
            "application/json",
            serde_json::json!({"error": "server_error", "error_description": echo(&world)}).to_string(),
        ),
    ] {
        let mut pending = world.pending().await;
        world.op.misbehave(fault);
        world.clock.sleep(seconds(6)).await;
        let error = world.client.poll(&mut pending).await.unwrap_err();
        text += &shown(&[&error, &pending]);
        let mut layer: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = layer {
            text += &format!("{error}\n");
            layer = error.source();
        }
        assert!(
            error.to_string().starts_with("polling: ") && error.source().is_none_or(|source| source.source().is_none())
        );
    }
    for (fault, code) in [
        (Some(Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature())), None),
        (None, Some("access_denied")),
        (None, Some("invalid_grant")),
        (None, Some("expired_token")),
    ] {
        let mut pending = world.pending().await;
        world.op.misbehave(fault.unwrap_or_else(|| Fault::error(Endpoint::Poll, code.unwrap())));
        let outcome = world.wait(&mut pending).await;
        assert!(!matches!(outcome, Outcome::Approved(_)));
        text += &shown(&[&outcome, &pending]);
    }
    assert_silent(&world, &text);
}
