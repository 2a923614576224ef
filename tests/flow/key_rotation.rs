//! Keys that rotate under an unchanged or missing `kid`, and attackers who sign JWTs with keys of their own.

use std::future::IntoFuture as _;

use openid_deferred::error::Rule;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery, TestClient};
use openid_deferred::{Clock as _, ErrorKind, InterimState, ResponseMode, SignIn};
use serde_json::json;

use crate::support::{CLIENT_ID, CLIENT_SECRET, DAY, REDIRECT_URI, World, broken_rule, seconds, world_with};

/// A world whose OP uses no `kid` in its key set or its JWTs. Responses come as JWTs if `jarm`.
async fn nameless(jarm: bool) -> World {
    let registered = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("ES256")
        .signed_userinfo();
    let mode = if jarm { ResponseMode::QueryJwt } else { ResponseMode::Query };
    let world = world_with(|op| op.client(registered), |client| client.response_mode(mode)).await;
    hide_names(&world);
    // The new client has nothing cached from the time when the keys had names.
    world.restarted_with(7, |client| client.response_mode(mode))
}

fn hide_names(world: &World) {
    let without_kid = || IdTokenForgery::header(|header| drop(header.shift_remove("kid")));
    world.op.misbehave(
        Fault::edit_json(Endpoint::Keys, |members| {
            for key in members["keys"].as_array_mut().unwrap() {
                key.as_object_mut().unwrap().shift_remove("kid");
            }
        })
        .always(),
    );
    world.op.misbehave(Fault::jwt_response(without_kid()).always());
    world.op.misbehave(Fault::id_token(Endpoint::Exchange, without_kid()).always());
    world.op.misbehave(Fault::id_token(Endpoint::Poll, without_kid()).always());
}

/// An attacker sends an authorization response that is signed with a key of their own.
async fn stranger(world: &World) -> openid_deferred::Error {
    world.op.behave();
    world.op.misbehave(Fault::jwt_response(IdTokenForgery::foreign_key()));
    let (url, mut session) = world.client.authorize().start().await.unwrap();
    let query = world.op.visit(url).query();
    let refused = world.client.check_authorization_response(&query, &mut session).await.unwrap_err();
    assert_eq!(world.op.faults_left(), 0, "the response was forged");
    hide_names(world);
    refused
}

#[tokio::test]
async fn a_final_token_is_verified_if_the_key_rotates_right_after_a_fetch() {
    let world = nameless(true).await;
    let mut pending = world.pending().await;
    // The poll that brings the tokens is sent in five seconds.
    world.clock.sleep(seconds(4)).await;
    assert_eq!(stranger(&world).await.rule(), Some(Rule::JwtResponseSignature));
    world.op.replace_keys();
    assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
}

#[tokio::test]
async fn two_key_rotations_in_a_minute_end_no_sign_in() {
    let world = nameless(false).await;
    for _ in 0..3 {
        let mut pending = world.pending().await;
        world.op.replace_keys();
        assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
    }
}

#[tokio::test]
async fn a_response_jwt_with_a_just_rotated_key_is_verified_after_a_forged_one() {
    let world = nameless(true).await;
    for _ in 0..4 {
        let refused = stranger(&world).await.rule();
        assert!(matches!(refused, Some(Rule::JwtResponseSignature | Rule::KeysOutdated)), "{refused:?}");
        world.op.replace_keys();
        let (query, mut session) = world.user_returns().await;
        let mut checked = world.client.check_authorization_response(&query, &mut session).await;
        if let Err(error) = &checked {
            assert!(error.is_transient() && !session.is_spent(), "{error}");
            world.clock.sleep(error.retry_after().unwrap()).await;
            checked = world.client.check_authorization_response(&query, &mut session).await;
        }
        assert!(checked.is_ok(), "{checked:?}");
    }
}

#[tokio::test]
async fn forged_tokens_cause_a_bounded_number_of_key_fetches_and_delay_no_final_token() {
    let world = nameless(true).await;
    let mut pending = world.pending().await;
    let before = world.op.requests_to(Endpoint::Keys).len();
    let began = world.clock.monotonic();
    let mut refused = 0;
    while world.clock.monotonic() - began < seconds(600) {
        refused += 1;
        let error = stranger(&world).await;
        assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
        world.clock.sleep(seconds(1)).await;
    }
    let fetches = world.op.requests_to(Endpoint::Keys).len() - before;
    assert!(refused >= 80 && fetches <= 100, "{fetches} fetches for {refused} forged responses");
    world.op.replace_keys();
    let came = world.clock.monotonic();
    assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
    assert!(world.clock.monotonic() - came <= seconds(10));
}

#[tokio::test]
async fn forged_tokens_do_not_delay_users_after_a_key_rotation() {
    let world = world_with(|op| op, |client| client.response_mode(ResponseMode::QueryJwt)).await;
    for _ in 0..5 {
        for _ in 0..12 {
            world.op.misbehave(Fault::jwt_response(IdTokenForgery::foreign_key()));
            let (query, mut session) = world.user_returns().await;
            let refused = world.client.check_authorization_response(&query, &mut session).await.unwrap_err();
            assert_eq!(refused.rule(), Some(Rule::JwtResponseSignature));
        }
        world.op.replace_keys();
        let came = world.clock.monotonic();
        for _ in 0..3 {
            let (query, mut session) = world.user_returns().await;
            let checked = world.client.check_authorization_response(&query, &mut session).await;
            assert!(checked.is_ok(), "{checked:?}");
        }
        assert!(world.clock.monotonic() - came <= seconds(8), "they wait inside of the call");
    }
}

#[tokio::test]
async fn an_interim_token_is_verified_if_the_key_rotates_right_after_a_fetch() {
    let world = nameless(false).await;
    // The keys were fetched for another sign-in.
    let _ = world.pending().await;
    world.op.replace_keys();
    let pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::Verified(_)), "{:?}", pending.interim());
}

#[tokio::test]
async fn signed_userinfo_is_verified_if_the_key_rotates_and_keeps_its_kid() {
    let world = nameless(false).await;
    let authentication = world.approved().await;
    world.op.replace_keys();
    world.op.behave();
    // The new key has the name of the old one.
    let renamed = Fault::edit_json(Endpoint::Keys, |members| {
        for key in members["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().shift_remove("kid");
        }
    });
    world.op.misbehave(renamed.always());
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn a_bad_signature_is_invalid_soon_while_forged_tokens_cause_key_fetches() {
    let world = nameless(true).await;
    let mut pending = world.pending().await;
    world.clock.sleep(seconds(4)).await;
    let _ = stranger(&world).await;
    world.op.behave();
    world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature()));
    let came = world.clock.monotonic();
    let outcome = tokio::select! {
        outcome = world.client.wait(&mut pending).into_future() => outcome.unwrap(),
        () = world.clock.sleep(DAY) => panic!("it is tried for ever"),
    };
    assert_eq!(broken_rule(&outcome), Some(Rule::IdTokenSignature));
    assert!(world.clock.monotonic() - came <= seconds(70));
}

#[tokio::test]
async fn the_age_header_counts_for_a_cached_key_set() {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    world.op.misbehave(
        Fault::edit_headers(Endpoint::Keys, |headers| drop(headers.insert("age", "600".parse().unwrap()))).always(),
    );
    world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature()).always());
    let mut pending = world.pending().await;
    let error = world.poll_when_due(&mut pending).await.unwrap_err();
    assert!(error.is_transient() && error.rule() == Some(Rule::KeysOutdated), "{error:?}");
    world.op.behave();
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::IdTokenSignature));
}

#[tokio::test]
async fn a_null_kid_counts_as_absent() {
    let world = nameless(true).await;
    world.op.behave();
    let null = || IdTokenForgery::header(|header| drop(header.insert("kid".into(), json!(null))));
    world.op.misbehave(Fault::jwt_response(null()));
    world.op.misbehave(Fault::id_token(Endpoint::Exchange, null()));
    world.op.misbehave(Fault::id_token(Endpoint::Poll, null()));
    let signed_in = world.sign_in().await;
    let Ok(SignIn::Deferred(mut pending)) = signed_in else { panic!("{signed_in:?}") };
    assert!(matches!(pending.interim(), InterimState::Verified(_)), "{:?}", pending.interim());
    assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
    assert_eq!(world.op.faults_left(), 0);
}
