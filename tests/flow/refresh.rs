//! RFC 6749 §6, RFC 9449 §5 and OpenID Connect Core 1.0 §12: new tokens for a user who signed in before.

use openid_deferred::error::{Misuse, Rule, TransportProblem};
use openid_deferred::testing::{
    Endpoint, Fault, IdTokenForgery, NoncePolicy, RequestRule, TestClient, TestProviderBuilder,
};
use openid_deferred::{Authentication, ClientAuthentication, ClientBuilder, Clock as _, DpopMode, Error, ErrorKind};
use serde_json::{Value, json};

use crate::support::{CLIENT_ID, HOUR, REDIRECT_URI, World, keyring, seconds, world, world_on_a_cable, world_with};

fn copy(authentication: &Authentication) -> Authentication {
    let keyring = keyring();
    Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap()
}

fn tokens(authentication: &Authentication) -> (String, String) {
    let text = |token: Option<&openid_deferred::Secret>| token.expect("the token is there").expose().to_owned();
    (text(authentication.access_token()), text(authentication.refresh_token()))
}

/// A client that does not authenticate.
async fn public_world(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    let registered = TestClient::public(CLIENT_ID).redirect_uri(REDIRECT_URI).signing_algorithm("ES256");
    world_with(|builder| op(builder.client(registered)), |client| client.authentication(ClientAuthentication::none()))
        .await
}

async fn refreshed_after(fault: Fault) -> (World, Authentication, Error) {
    let world = world().await;
    let mut authentication = world.approved().await;
    let before = tokens(&authentication);
    world.op.misbehave(fault);
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(world.op.faults_left(), 0, "the fault struck");
    assert_eq!(tokens(&authentication), before, "the tokens are the old ones");
    assert_eq!(error.step(), Some("refreshing the tokens"));
    (world, authentication, error)
}

#[tokio::test]
async fn a_refresh_brings_new_tokens_bound_to_the_same_key() {
    for world in [world().await, public_world(|op| op).await] {
        let mut authentication = world.approved().await;
        let (before, key) = (tokens(&authentication), authentication.dpop_key().unwrap().thumbprint().to_owned());
        world.clock.sleep(HOUR).await;
        world.client.refresh(&mut authentication).await.unwrap();
        let after = tokens(&authentication);
        assert!(before.0 != after.0 && before.1 != after.1, "both tokens are new");
        assert_eq!(authentication.dpop_key().unwrap().thumbprint(), key);
        assert!(authentication.is_sender_constrained());
        assert_eq!(authentication.access_token_expires_at(), Some(authentication.received_at() + HOUR));
        assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
        let request = &world.op.requests_to(Endpoint::Refresh)[0];
        assert_eq!(request.parameter("grant_type"), Some("refresh_token"));
        assert_eq!(request.parameter("refresh_token"), Some(before.1.as_str()));
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_refreshed_authentication_survives_sealing_and_refreshes_again() {
    let world = world().await;
    let mut authentication = world.approved().await;
    for _ in 0..3 {
        world.client.refresh(&mut authentication).await.unwrap();
        let opened = copy(&authentication);
        assert_eq!(tokens(&opened), tokens(&authentication));
        assert_eq!(opened.refreshed_id_token().unwrap().token(), authentication.refreshed_id_token().unwrap().token());
        authentication = opened;
        world.clock.sleep(HOUR).await;
    }
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 3);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_refresh_token_stays_if_the_response_omits_it() {
    let world = world_with(|op| op.without_refresh_rotation(), |client| client).await;
    let mut authentication = world.approved().await;
    let before = tokens(&authentication);
    for _ in 0..2 {
        world.client.refresh(&mut authentication).await.unwrap();
    }
    assert_eq!(tokens(&authentication).1, before.1);
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 2, "each call brings new tokens");
    world.op.assert_clean();
}

#[tokio::test]
async fn members_that_the_refresh_response_omits_stay() {
    let world = world().await;
    let mut authentication = world.approved().await;
    let scope = authentication.scope().unwrap().to_owned();
    world.op.misbehave(Fault::edit_json(Endpoint::Refresh, |members| {
        members.retain(|name, _| matches!(name.as_str(), "access_token" | "token_type"));
    }));
    let before = tokens(&authentication);
    world.client.refresh(&mut authentication).await.unwrap();
    assert_ne!(tokens(&authentication).0, before.0);
    assert_eq!((tokens(&authentication).1, authentication.scope()), (before.1, Some(scope.as_str())));
    assert_eq!(authentication.access_token_expires_at(), None);
    assert!(authentication.refreshed_id_token().is_none());
}

#[tokio::test]
async fn a_nonce_challenge_to_a_refresh_is_answered_once() {
    let world = world_with(|op| op.dpop_nonces(NoncePolicy::RotateEveryRequest), |client| client).await;
    let mut authentication = world.approved().await;
    world.op.rotate_nonces();
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_second_challenge_to_a_refresh_is_transient_and_the_refresh_token_is_kept() {
    let world = world_with(|op| op.dpop_nonces(NoncePolicy::Required), |client| client).await;
    let mut authentication = world.approved().await;
    world.op.misbehave(Fault::forget_nonces(Endpoint::Refresh).times(2));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::SecondNonceChallenge), true));
    world.client.refresh(&mut authentication).await.unwrap();
    world.op.assert_clean();
}

#[tokio::test]
async fn a_wrong_clock_costs_a_refresh_one_more_request() {
    let world = world_with(
        |op| op.clock_offset(-300).decisions(openid_deferred::testing::DecisionPolicy::immediately()),
        |client| client.leeway(seconds(310)),
    )
    .await;
    let mut authentication = world.approved().await;
    // A replica whose clock has not been corrected yet.
    let restarted = world.restarted_with(7, |client| client.leeway(seconds(310)));
    restarted.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(restarted.op.requests_to(Endpoint::Refresh).len(), 2);
    restarted.op.assert_clean();
}

#[tokio::test]
async fn the_leeway_applies_to_the_id_token_of_a_refresh() {
    for (ahead, accepted) in [(59, true), (120, false)] {
        let world = world().await;
        let mut authentication = world.approved().await;
        let iat = move |claims: &mut serde_json::Map<String, Value>| {
            let iat = claims["iat"].as_u64().unwrap();
            claims.insert("iat".into(), json!(iat + ahead));
        };
        world.op.misbehave(Fault::id_token(Endpoint::Refresh, IdTokenForgery::claims(iat)));
        let refreshed = world.client.refresh(&mut authentication).await;
        let expected = (!accepted).then_some(Rule::IdTokenIssuedAt);
        assert_eq!(refreshed.err().and_then(|error| error.rule()), expected);
    }
}

#[tokio::test]
async fn the_id_token_of_a_refresh_is_kept_in_addition_to_the_one_of_the_sign_in() {
    let world = world().await;
    let mut authentication = world.approved().await;
    let original = authentication.id_token().token().clone();
    world.clock.sleep(HOUR).await;
    world.op.misbehave(Fault::id_token(
        Endpoint::Refresh,
        IdTokenForgery::claims(|claims| {
            claims.insert("name".into(), json!("Jane Smith"));
        }),
    ));
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(*authentication.id_token().token(), original);
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert_eq!(authentication.refreshed_id_token().unwrap().claims().name(), Some("Jane Smith"));
}

#[tokio::test]
async fn an_id_token_that_contradicts_the_sign_in_is_refused_and_its_tokens_are_revoked() {
    for (claim, value) in [
        ("sub", json!("user-2")),
        ("aud", json!([CLIENT_ID, "another"])),
        ("auth_time", json!(1)),
        ("nonce", json!("another")),
        ("azp", json!(CLIENT_ID)),
    ] {
        let (world, _, error) = refreshed_after(Fault::id_token(
            Endpoint::Refresh,
            IdTokenForgery::claims(move |claims| {
                claims.insert(claim.into(), value.clone());
                if claim == "aud" {
                    claims.insert("azp".into(), json!(CLIENT_ID));
                }
            }),
        ))
        .await;
        // An unknown audience is refused before it is compared.
        let expected = if claim == "aud" { Rule::IdTokenAudience } else { Rule::RefreshedIdToken };
        assert_eq!(error.rule(), Some(expected), "{claim}");
        assert!(!error.is_transient(), "{claim}");
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2, "{claim}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_new_trusted_audience_in_a_refresh_contradicts_the_sign_in() {
    let world = world_with(|op| op, |client| client.trusted_audiences(["another"])).await;
    let mut authentication = world.approved().await;
    world.op.misbehave(Fault::id_token(
        Endpoint::Refresh,
        IdTokenForgery::claims(|claims| {
            claims.insert("aud".into(), json!([CLIENT_ID, "another"]));
            claims.insert("azp".into(), json!(CLIENT_ID));
        }),
    ));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
    assert_eq!((violation.rule(), violation.member()), (Rule::RefreshedIdToken, Some("aud")));
}

#[tokio::test]
async fn an_id_token_of_a_refresh_may_repeat_the_nonce_and_omit_auth_time() {
    let world = world().await;
    let mut authentication = world.approved().await;
    let nonce = world.op.last_process().authorization_parameter("nonce").unwrap();
    world.op.misbehave(Fault::id_token(
        Endpoint::Refresh,
        IdTokenForgery::claims(move |claims| {
            claims.insert("nonce".into(), json!(nonce));
            claims.remove("auth_time");
        }),
    ));
    world.client.refresh(&mut authentication).await.unwrap();
    world.client.refresh(&mut authentication).await.unwrap();
    world.op.assert_clean();
}

#[tokio::test]
async fn the_id_token_of_a_refresh_gets_every_check() {
    let claim = |name: &'static str, value: Value| {
        IdTokenForgery::claims(move |claims| {
            claims.insert(name.into(), value.clone());
        })
    };
    for (forgery, rule) in [
        (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (claim("iss", json!("https://evil.test")), Rule::IdTokenIssuer),
        (claim("aud", json!("another-app")), Rule::IdTokenAudience),
        (claim("exp", json!(1)), Rule::IdTokenExpired),
        (claim("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), Rule::IdTokenAccessTokenHash),
    ] {
        let (_, _, error) = refreshed_after(Fault::id_token(Endpoint::Refresh, forgery)).await;
        assert_eq!((error.rule(), error.is_transient()), (Some(rule), false));
    }
}

#[tokio::test]
async fn a_malformed_refresh_response_is_refused() {
    for (member, value, rule) in [
        ("access_token", Value::Null, Rule::NoAccessToken),
        ("token_type", json!("mac"), Rule::UnknownTokenType),
        ("id_token", json!(7), Rule::NoIdToken),
        ("id_token", json!("a.b.c"), Rule::IdTokenMalformed),
    ] {
        let edit = Fault::edit_json(Endpoint::Refresh, move |members| {
            members.insert(member.into(), value.clone());
        });
        let (_, _, error) = refreshed_after(edit).await;
        assert_eq!((error.rule(), error.is_transient()), (Some(rule), false), "{member}");
    }
}

#[tokio::test]
async fn a_refused_refresh_token_is_the_ops_answer() {
    let (world, mut authentication, error) = refreshed_after(Fault::error(Endpoint::Refresh, "invalid_grant")).await;
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
    assert!(!error.is_transient());
    world.client.refresh(&mut authentication).await.unwrap();
}

#[tokio::test]
async fn a_request_to_an_overloaded_or_unreachable_op_can_be_repeated() {
    for (fault, unknown) in [
        (Fault::status(Endpoint::Refresh, 503).header("Retry-After", "120"), true),
        (Fault::status(Endpoint::Refresh, 429), false),
        (Fault::status(Endpoint::Refresh, 404), false),
        (Fault::redirect(Endpoint::Refresh, "https://op.test/elsewhere"), false),
        (Fault::error_with_status(Endpoint::Refresh, 503, "temporarily_unavailable"), true),
        (Fault::error_with_status(Endpoint::Refresh, 504, "invalid_grant"), true),
        (Fault::status(Endpoint::Refresh, 502), true),
        (Fault::status(Endpoint::Refresh, 504), true),
        (Fault::reset(Endpoint::Refresh), true),
        (Fault::stall(Endpoint::Refresh), true),
        (Fault::truncated_json(Endpoint::Refresh), true),
        (Fault::cut_body(Endpoint::Refresh), true),
        (Fault::endless_body(Endpoint::Refresh), true),
    ] {
        let name = format!("{fault:?}");
        let (_, _, error) = refreshed_after(fault).await;
        assert_eq!(*error.kind() == ErrorKind::OutcomeUnknown, unknown, "{name}: {error:?}");
        assert!(error.is_transient(), "{name}: {error:?}");
        if name.contains("503") && !name.contains("temporarily") {
            assert_eq!(error.retry_after(), Some(seconds(120)), "{name}");
        }
    }
}

#[tokio::test]
async fn a_lost_refresh_answer_is_an_unknown_outcome_and_the_call_can_be_repeated() {
    let (world, mut authentication, error) = refreshed_after(Fault::reset(Endpoint::Refresh).after_processing()).await;
    assert_eq!((error.kind(), error.is_transient()), (&ErrorKind::OutcomeUnknown, true));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
    assert_eq!(world.op.violations()[0].rule, RequestRule::RefreshTokenReplayed);
    world.op.forgive();
}

#[tokio::test]
async fn a_refresh_without_a_connection_sends_nothing() {
    let (world, cable) = world_on_a_cable(|op| op).await;
    let mut authentication = world.approved().await;
    cable.unplug();
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Connect));
    assert!(error.is_transient());
    cable.plug_in();
    world.client.refresh(&mut authentication).await.unwrap();
    world.op.assert_clean();
}

#[tokio::test]
async fn concurrent_refreshes_of_the_same_tokens_share_one_request() {
    let world = world().await;
    let mut first = world.approved().await;
    let (mut second, mut third) = (copy(&first), copy(&first));
    world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(3)));
    let (one, two, three) = tokio::join!(
        world.client.refresh(&mut first),
        world.client.refresh(&mut second),
        world.client.refresh(&mut third)
    );
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
    assert_eq!(tokens(&first), tokens(&second));
    assert_eq!(tokens(&first), tokens(&third));
    world.op.assert_clean();
}

#[tokio::test]
async fn concurrent_refreshes_of_the_same_tokens_share_an_error() {
    let world = world().await;
    let mut first = world.approved().await;
    let mut second = copy(&first);
    world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(3)));
    world.op.misbehave(Fault::error(Endpoint::Refresh, "invalid_grant").after_processing());
    let (one, two) = tokio::join!(world.client.refresh(&mut first), world.client.refresh(&mut second));
    for refused in [one, two] {
        assert_eq!(refused.unwrap_err().error_response().unwrap().code(), "invalid_grant");
    }
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
}

#[tokio::test]
async fn a_copy_that_is_refreshed_within_a_minute_gets_the_answer_that_replaced_its_tokens() {
    let world = world().await;
    let mut first = world.approved().await;
    let (mut late, mut too_late) = (copy(&first), copy(&first));
    world.client.refresh(&mut first).await.unwrap();
    world.clock.sleep(seconds(50)).await;
    world.client.refresh(&mut late).await.unwrap();
    assert_eq!(tokens(&late), tokens(&first));
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
    world.op.assert_clean();
    world.clock.sleep(seconds(20)).await;
    let error = world.client.refresh(&mut too_late).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
    world.op.forgive();
}

#[tokio::test]
async fn the_next_caller_gets_the_answer_to_a_dropped_refresh() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(5)));
    tokio::select! {
        biased;
        _ = world.client.refresh(&mut authentication) => panic!("it ended before it could be dropped"),
        () = world.clock.sleep(seconds(1)) => {}
    }
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_refresh_response_that_arrives_while_keys_are_unavailable_is_kept_and_validated_later() {
    let world = world().await;
    let authentication = world.approved().await;
    let before = tokens(&authentication);
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let mut restarted = copy(&authentication);
    let error = world.client.refresh(&mut restarted).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(tokens(&restarted), before);
    let mut restarted = copy(&restarted);
    world.op.behave();
    world.clock.sleep(HOUR).await;
    world.client.refresh(&mut restarted).await.unwrap();
    assert_ne!(tokens(&restarted), before);
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1, "it was not asked for again");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_kept_refresh_response_survives_a_short_outage_of_the_keys_a_day_later() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.clock.sleep(26 * HOUR).await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    assert!(world.client.refresh(&mut authentication).await.unwrap_err().is_transient());
    // The application is idle for a day. Then the keys are unavailable again, for one call.
    world.clock.sleep(25 * HOUR).await;
    let mut authentication = copy(&authentication);
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::KeysUnavailable), true));
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty(), "the new tokens live");
    world.op.behave();
    world.clock.sleep(HOUR).await;
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1, "it was not asked for again");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_kept_refresh_response_is_dropped_after_a_day_and_two_hundred_calls() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let mut calls = 0;
    let error = loop {
        let error = world.client.refresh(&mut authentication).await.unwrap_err();
        calls += 1;
        if !error.is_transient() || calls > 1_000 {
            break error;
        }
        // The stored copy keeps the count too.
        authentication = copy(&authentication);
        world.clock.sleep(HOUR / 4).await;
    };
    assert_eq!((calls, error.rule(), error.is_transient()), (200, Some(Rule::KeysUnavailable), false));
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2, "both new tokens were given back");
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
}

#[tokio::test]
async fn a_confidential_client_can_refresh_with_a_new_key_and_a_public_one_cannot() {
    let world = world().await;
    let mut authentication = world.approved().await;
    let old = authentication.dpop_key().unwrap().thumbprint().to_owned();
    world.client.refresh_with_new_key(&mut authentication).await.unwrap();
    assert_ne!(authentication.dpop_key().unwrap().thumbprint(), old);
    assert!(authentication.is_sender_constrained());
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    world.op.assert_clean();

    let world = public_world(|op| op).await;
    let mut authentication = world.approved().await;
    let error = world.client.refresh_with_new_key(&mut authentication).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
    assert!(world.op.requests_to(Endpoint::Refresh).is_empty());
}

fn key_of(authentication: &Authentication) -> String {
    authentication.dpop_key().expect("the tokens are bound").thumbprint().to_owned()
}

#[tokio::test]
async fn refresh_with_new_key_during_a_plain_refresh_still_binds_a_new_key() {
    for rotates in [true, false] {
        let settings = |op: TestProviderBuilder| if rotates { op } else { op.without_refresh_rotation() };
        let world = world_with(settings, |client| client).await;
        let mut first = world.approved().await;
        let mut second = copy(&first);
        let old = key_of(&first);
        world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(3)));
        let (one, two) = tokio::join!(world.client.refresh(&mut first), world.client.refresh_with_new_key(&mut second));
        one.unwrap();
        two.unwrap();
        assert_eq!(key_of(&first), old);
        assert_ne!(key_of(&second), old, "it asked for a new key");
        assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 2);
        assert_eq!(world.client.userinfo(&second).await.unwrap().subject(), "user-1");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_late_copy_that_asks_for_a_new_key_gets_one() {
    let world = world().await;
    let mut first = world.approved().await;
    let mut late = copy(&first);
    let old = key_of(&first);
    world.client.refresh(&mut first).await.unwrap();
    world.client.refresh_with_new_key(&mut late).await.unwrap();
    assert_ne!(key_of(&late), old);
    world.op.assert_clean();
}

#[tokio::test]
async fn concurrent_refreshes_with_a_new_key_share_the_key() {
    let world = world().await;
    let mut first = world.approved().await;
    let mut second = copy(&first);
    let old = key_of(&first);
    world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(3)));
    let (one, two) =
        tokio::join!(world.client.refresh_with_new_key(&mut first), world.client.refresh_with_new_key(&mut second));
    one.unwrap();
    two.unwrap();
    assert_eq!(key_of(&first), key_of(&second));
    assert_ne!(key_of(&first), old);
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn refresh_with_new_key_after_a_stored_answer_still_binds_a_new_key() {
    let world = world().await;
    let mut authentication = world.approved().await;
    let old = key_of(&authentication);
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    assert!(world.client.refresh(&mut authentication).await.unwrap_err().is_transient());
    world.op.behave();
    world.clock.sleep(HOUR).await;
    world.client.refresh_with_new_key(&mut authentication).await.unwrap();
    assert_ne!(key_of(&authentication), old);
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_failed_refresh_with_a_new_key_keeps_the_tokens_of_the_previous_refresh() {
    let world = world().await;
    let mut first = world.approved().await;
    let mut second = copy(&first);
    world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(3)));
    world.op.misbehave(Fault::status(Endpoint::Refresh, 429).skip(1));
    let (one, two) = tokio::join!(world.client.refresh(&mut first), world.client.refresh_with_new_key(&mut second));
    one.unwrap();
    assert!(two.unwrap_err().is_transient());
    assert_eq!(tokens(&second), tokens(&first), "they are the newest that there are");
    world.client.refresh_with_new_key(&mut second).await.unwrap();
    world.op.assert_clean();
}

/// Drops a refresh that takes longer than this.
async fn refresh_dropped_after(world: &World, time: std::time::Duration, authentication: &mut Authentication) {
    tokio::select! {
        biased;
        _ = world.client.refresh(authentication) => panic!("it ended before it could be dropped"),
        () = world.clock.sleep(time) => {}
    }
}

#[tokio::test]
async fn the_failure_of_a_dropped_refresh_is_not_returned_to_the_next_caller() {
    for code in ["invalid_client", "temporarily_unavailable"] {
        let world = world().await;
        let mut authentication = world.approved().await;
        world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(5)));
        world.op.misbehave(Fault::error(Endpoint::Refresh, code));
        refresh_dropped_after(&world, seconds(1), &mut authentication).await;
        world.clock.sleep(seconds(60)).await;
        assert_eq!(world.op.faults_left(), 0, "the refresh failed meanwhile");
        world.client.refresh(&mut authentication).await.unwrap();
        assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 2, "{code}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn the_next_caller_gets_the_unknown_outcome_of_a_dropped_refresh() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(5)));
    world.op.misbehave(Fault::reset(Endpoint::Refresh).after_processing());
    refresh_dropped_after(&world, seconds(1), &mut authentication).await;
    world.clock.sleep(seconds(60)).await;
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn calls_in_a_tight_loop_do_not_exhaust_the_attempts_of_a_kept_answer() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    for _ in 0..300 {
        assert!(world.client.refresh(&mut authentication).await.unwrap_err().is_transient());
    }
    // The application is idle for a day. Then the keys are unavailable again, for one call.
    world.clock.sleep(25 * HOUR).await;
    let mut authentication = copy(&authentication);
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty(), "the new tokens live");
    world.op.behave();
    world.clock.sleep(HOUR).await;
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1, "it was not asked for again");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_refresh_without_dpop_sends_no_proof_and_gives_bearer_tokens() {
    let world = world_with(|op| op, |client| client.dpop(DpopMode::Off)).await;
    let mut authentication = world.approved().await;
    world.client.refresh(&mut authentication).await.unwrap();
    assert!(!authentication.is_sender_constrained());
    assert!(world.op.requests_to(Endpoint::Refresh)[0].header("dpop").is_none());
    let error = world.client.refresh_with_new_key(&mut authentication).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn unbound_tokens_of_a_refresh_are_marked_or_dropped_as_configured() {
    let unbound = || {
        Fault::edit_json(Endpoint::Refresh, |members| {
            members.insert("token_type".into(), json!("Bearer"));
        })
    };
    let world = world().await;
    let mut authentication = world.approved().await;
    world.op.misbehave(unbound());
    world.client.refresh(&mut authentication).await.unwrap();
    assert!(!authentication.is_sender_constrained() && authentication.access_token().is_some());

    let world = world_with(|op| op, ClientBuilder::drop_unbound_tokens).await;
    let mut authentication = world.approved().await;
    world.op.misbehave(unbound());
    world.client.refresh(&mut authentication).await.unwrap();
    assert!(authentication.access_token().is_none() && authentication.refresh_token().is_none());
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
}

#[tokio::test]
async fn without_a_refresh_token_nothing_is_sent() {
    let world = world_with(|op| op.without_refresh_tokens(), |client| client).await;
    let mut authentication = world.approved().await;
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NoRefreshToken));
    assert!(world.op.requests_to(Endpoint::Refresh).is_empty());
}

#[tokio::test]
async fn the_tokens_of_another_client_are_not_sent() {
    let (mine, other) = (world().await, world_with(|op| op.path("/other"), |client| client).await);
    let mut authentication = other.approved().await;
    let error = mine.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
    assert!(mine.op.requests_to(Endpoint::Refresh).is_empty());
}
