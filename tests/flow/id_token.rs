//! OpenID Connect Core 1.0 §3.1.3.7, on the final ID Token.

use std::time::Duration;

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::{Document, Misuse, Rule};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery, TestClient};
use openid_deferred::{AuthorizationRequest, ErrorKind, Outcome, SignIn, SigningAlgorithm};
use serde_json::{Value, json};

use crate::support::{
    CLIENT_ID, CLIENT_SECRET, DAY, HOUR, REDIRECT_URI, World, broken_rule, keyring, reopened, world, world_with,
};
pub(crate) fn claim(name: &'static str, value: Value) -> IdTokenForgery {
    IdTokenForgery::claims(move |claims| {
        claims.insert(name.to_owned(), value.clone());
    })
}

pub(crate) fn without(name: &'static str) -> IdTokenForgery {
    IdTokenForgery::claims(move |claims| {
        claims.remove(name);
    })
}

pub(crate) fn header(name: &'static str, value: Value) -> IdTokenForgery {
    IdTokenForgery::header(move |header| {
        header.insert(name.to_owned(), value.clone());
    })
}

/// Moves a claim that is a time by this many seconds.
pub(crate) fn moved(name: &'static str, seconds: i64) -> IdTokenForgery {
    IdTokenForgery::claims(move |claims| {
        let time = claims[name].as_i64().expect("the claim is a time");
        claims.insert(name.to_owned(), json!(time + seconds));
    })
}

/// The outcome of a sign-in whose final ID Token is forged like this.
pub(crate) async fn ended_with(world: &World, forgery: IdTokenForgery) -> Outcome {
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
    let outcome = world.wait(&mut pending).await;
    assert_eq!(world.op.faults_left(), 0, "the token was forged");
    let polls = world.polls().len();
    let error = world.client.poll(&mut pending).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NothingToPoll));
    assert_eq!(world.polls().len(), polls, "it is never asked about again");
    outcome
}

/// Asserts that each of these final ID Tokens breaks the rule.
async fn all_break(rule: Rule, forgeries: impl IntoIterator<Item = IdTokenForgery>) {
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    for (number, forgery) in forgeries.into_iter().enumerate() {
        let Outcome::Invalid(violation) = ended_with(&world, forgery).await else { panic!("{number} is accepted") };
        assert_eq!((violation.rule(), violation.document()), (rule, Some(Document::IdToken)), "{number}");
    }
    world.op.assert_clean();
}

async fn breaks(rule: Rule, forgery: IdTokenForgery) {
    all_break(rule, [forgery]).await;
}

async fn is_accepted(forgery: IdTokenForgery) {
    let outcome = ended_with(&world().await, forgery).await;
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
}

// Algorithm, key and signature.

#[tokio::test]
async fn algorithm_none_is_refused() {
    breaks(Rule::IdTokenAlgorithm, IdTokenForgery::algorithm_none()).await;
}

#[tokio::test]
async fn hs256_keyed_with_the_public_key_is_refused() {
    breaks(Rule::IdTokenAlgorithm, IdTokenForgery::hmac_with_public_key()).await;
}

#[tokio::test]
async fn an_algorithm_that_is_missing_or_unknown_is_refused() {
    let missing = IdTokenForgery::header(|header| {
        header.remove("alg");
    });
    breaks(Rule::IdTokenMalformed, missing).await;
    breaks(Rule::IdTokenAlgorithm, header("alg", json!("XS256"))).await;
}

#[tokio::test]
async fn an_algorithm_other_than_the_registered_one_is_refused() {
    let world = world_with(
        |op| op,
        |client| client.algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Rs256)),
    )
    .await;
    let Outcome::Invalid(violation) = world.outcome().await else { panic!("ES256 is accepted") };
    assert_eq!(violation.rule(), Rule::IdTokenAlgorithm);
}

#[tokio::test]
async fn a_bad_signature_is_refused_for_every_algorithm() {
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
        let registered = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).signing_algorithm(algorithm);
        let world = world_with(|op| op.client(registered.redirect_uri(REDIRECT_URI)), |client| client).await;
        for forgery in [IdTokenForgery::broken_signature(), IdTokenForgery::foreign_key()] {
            let outcome = ended_with(&world, forgery).await;
            let Outcome::Invalid(violation) = outcome else { panic!("{algorithm}: {outcome:?}") };
            assert_eq!(violation.rule(), Rule::IdTokenSignature, "{algorithm}");
        }
        let outcome = world.outcome().await;
        assert!(matches!(outcome, Outcome::Approved(_)), "{algorithm}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_malformed_signed_token_is_refused() {
    let raw = ["", "a", "a.b", "a.b.c", "e30.e30.", "..", "a.b.c.d.e", "\u{0}"].map(IdTokenForgery::raw);
    let world = world_with(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    for (number, forgery) in raw.into_iter().enumerate() {
        let outcome = ended_with(&world, forgery).await;
        assert!(matches!(outcome, Outcome::Invalid(_)), "{number}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_forbidden_header_of_an_id_token_is_refused() {
    all_break(Rule::IdTokenHeader, [header("crit", json!(["exp"])), header("typ", json!("at+jwt"))]).await;
}

#[tokio::test]
async fn header_parameters_without_a_value_count_as_absent() {
    for name in ["crit", "b64", "typ", "cty", "kid"] {
        is_accepted(header(name, json!(null))).await;
    }
    for name in ["typ", "cty", "kid"] {
        is_accepted(header(name, json!(""))).await;
    }
    all_break(Rule::IdTokenHeader, [header("crit", json!("")), header("crit", json!([])), header("b64", json!(""))])
        .await;
}

// Claims.

#[tokio::test]
async fn claims_without_a_value_count_as_absent() {
    for name in ["azp", "at_hash", "nbf"] {
        is_accepted(claim(name, json!(null))).await;
    }
    for name in ["azp", "at_hash"] {
        is_accepted(claim(name, json!(""))).await;
    }
    all_break(Rule::IdTokenNonce, [claim("nonce", json!(null)), claim("nonce", json!(""))]).await;
}

#[tokio::test]
async fn an_iss_that_is_wrong_or_missing_is_refused() {
    let wrong = [json!("https://evil.test"), json!("https://op.test/"), json!(7)].map(|iss| claim("iss", iss));
    all_break(Rule::IdTokenIssuer, wrong).await;
    breaks(Rule::IdTokenIssuer, without("iss")).await;
}

#[tokio::test]
async fn an_aud_that_is_wrong_missing_or_untrusted_is_refused() {
    let wrong = [json!("another-app"), json!([]), json!([CLIENT_ID, "another-app"]), json!(7)];
    all_break(Rule::IdTokenAudience, wrong.map(|aud| claim("aud", aud))).await;
    breaks(Rule::IdTokenAudience, without("aud")).await;
}

#[tokio::test]
async fn an_azp_that_is_wrong_is_refused() {
    breaks(Rule::IdTokenAuthorizedParty, claim("azp", json!("another-app"))).await;
    is_accepted(claim("azp", json!(CLIENT_ID))).await;
}

#[tokio::test]
async fn several_audiences_need_trust_and_an_azp() {
    for (azp, accepted) in [(Some(CLIENT_ID), true), (Some("api"), false), (Some(""), false), (None, false)] {
        let world = world_with(|op| op, |client| client.trusted_audiences(["api"])).await;
        let forgery = IdTokenForgery::claims(move |claims| {
            claims.insert("aud".into(), json!([CLIENT_ID, "api"]));
            if let Some(azp) = azp {
                claims.insert("azp".into(), json!(azp));
            }
        });
        match ended_with(&world, forgery).await {
            Outcome::Approved(_) => assert!(accepted, "{azp:?}"),
            Outcome::Invalid(violation) => {
                assert_eq!((violation.rule(), accepted), (Rule::IdTokenAuthorizedParty, false), "{azp:?}");
            }
            outcome => panic!("{outcome:?}"),
        }
    }
}

#[tokio::test]
async fn an_exp_that_has_passed_or_is_missing_is_refused() {
    all_break(Rule::IdTokenExpired, [moved("exp", -700), without("exp")]).await;
    is_accepted(moved("exp", -650)).await;
}

#[tokio::test]
async fn an_iat_that_is_missing_or_in_the_future_is_refused() {
    all_break(Rule::IdTokenIssuedAt, [moved("iat", 70), moved("iat", 365 * 86_400), without("iat")]).await;
    is_accepted(moved("iat", 50)).await;
}

#[tokio::test]
async fn an_nbf_in_the_future_is_refused() {
    breaks(Rule::IdTokenNotBefore, claim("nbf", json!(4_000_000_000_u64))).await;
}

#[tokio::test]
async fn a_nonce_that_is_missing_or_wrong_is_refused() {
    all_break(Rule::IdTokenNonce, [without("nonce"), claim("nonce", json!("another")), claim("nonce", json!(7))]).await;
}

#[tokio::test]
async fn a_sub_that_is_missing_empty_or_too_long_is_refused() {
    let wrong = [json!(""), json!("a".repeat(256)), json!(7)].map(|sub| claim("sub", sub));
    all_break(Rule::IdTokenSubject, wrong).await;
    breaks(Rule::IdTokenSubject, without("sub")).await;
}

#[tokio::test]
async fn a_wrong_at_hash_is_refused_and_a_missing_one_is_accepted() {
    all_break(Rule::IdTokenAccessTokenHash, [claim("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"))]).await;
    is_accepted(without("at_hash")).await;
}

#[tokio::test]
async fn an_access_token_that_was_replaced_in_the_response_is_refused() {
    let world = world().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, |members| {
        members.insert("access_token".into(), json!("somebody-elses"));
    }));
    let Outcome::Invalid(violation) = world.outcome().await else { panic!("it is accepted") };
    assert_eq!(violation.rule(), Rule::IdTokenAccessTokenHash);
}

#[tokio::test]
async fn the_nonce_is_checked_after_a_restart() {
    let world = world().await;
    let mut pending = reopened(world.pending().await, &keyring());
    world.op.misbehave(Fault::id_token(Endpoint::Poll, claim("nonce", json!("another"))));
    let Outcome::Invalid(violation) = world.wait(&mut pending).await else { panic!("it is accepted") };
    assert_eq!(violation.rule(), Rule::IdTokenNonce);
}

// The token response around the ID Token.

/// The outcome of a final response with this edit to its members.
async fn response_with(edit: impl Fn(&mut serde_json::Map<String, Value>) + Send + Sync + 'static) -> Outcome {
    let world = world().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, edit));
    world.outcome().await
}

#[tokio::test]
async fn a_final_response_without_id_token_is_invalid() {
    let outcome = response_with(|members| drop(members.remove("id_token")));
    let Outcome::Invalid(violation) = outcome.await else { panic!("accepted without an ID Token") };
    assert_eq!((violation.rule(), violation.document()), (Rule::NoIdToken, Some(Document::TokenResponse)));
}

#[tokio::test]
async fn a_final_response_without_a_usable_access_token_still_says_who_the_user_is() {
    for (member, value) in [
        ("access_token", Value::Null),
        ("access_token", json!("")),
        ("token_type", Value::Null),
        ("token_type", json!("mac")),
        ("token_type", json!(7)),
    ] {
        let outcome = response_with(move |members| drop(members.insert(member.to_owned(), value.clone())));
        let Outcome::Approved(authentication) = outcome.await else { panic!("refused for {member}") };
        assert_eq!(authentication.claims().subject(), "user-1");
        assert!(authentication.access_token().is_none() && authentication.token_type().is_none());
        assert!(!authentication.is_sender_constrained());
    }
}

#[tokio::test]
async fn token_type_in_odd_case_and_a_response_without_expires_in_and_scope_are_accepted() {
    let outcome = response_with(|members| {
        members.insert("token_type".into(), json!("dPOP"));
        members.remove("expires_in");
        members.remove("scope");
    });
    let Outcome::Approved(authentication) = outcome.await else { panic!("not approved") };
    assert!(authentication.is_sender_constrained());
    assert_eq!((authentication.scope(), authentication.access_token_expires_at()), (None, None));
}

#[tokio::test]
async fn the_tokens_of_an_invalid_answer_are_revoked_and_not_returned() {
    let world = world().await;
    let outcome = ended_with(&world, IdTokenForgery::broken_signature()).await;
    let answer = world.polls().last().unwrap().response_json();
    let revocations = world.op.requests_to(Endpoint::Revocation);
    let revoked: Vec<_> = revocations.iter().map(|request| request.parameter("token").unwrap()).collect();
    assert_eq!(revoked, [answer["refresh_token"].as_str().unwrap(), answer["access_token"].as_str().unwrap()]);
    assert!(revocations.iter().all(|request| request.status == Some(200)));
    assert!(!format!("{outcome:?}").contains(revoked[0]));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_revocation_that_fails_does_not_change_the_outcome() {
    for fault in [Fault::status(Endpoint::Revocation, 503), Fault::reset(Endpoint::Revocation)] {
        let world = world().await;
        world.op.misbehave(fault.always());
        let mut pending = world.pending().await;
        world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::algorithm_none()));
        assert!(matches!(world.wait(&mut pending).await, Outcome::Invalid(_)));
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    }
}

// Parameters of the request.

async fn asked(world: &World, ask: impl FnOnce(AuthorizationRequest<'_>) -> AuthorizationRequest<'_>) -> Outcome {
    let (url, session) = ask(world.client.authorize()).start().await.unwrap();
    let query = world.op.visit(url).query();
    match world.client.authorization_response(&query, session).await {
        Ok(SignIn::Deferred(mut pending)) => world.wait(&mut pending).await,
        other => panic!("expected a deferral, got {other:?}"),
    }
}

/// A world in which three days pass between request and answer, and the final ID Token is forged.
async fn after_three_days(forgery: Option<IdTokenForgery>) -> World {
    let world = world_with(|op| op.interval(HOUR).decisions(DecisionPolicy::after(DAY * 3)), |client| client).await;
    if let Some(forgery) = forgery {
        world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
    }
    world
}

#[tokio::test]
async fn max_age_counts_from_the_request_however_many_days_the_answer_took() {
    for (moved_by, accepted) in [(0, true), (-100, true), (-170, false), (2 * 86_400, true), (4 * 86_400, false)] {
        let forgery = (moved_by != 0).then(|| moved("auth_time", moved_by));
        let world = after_three_days(forgery).await;
        let outcome = asked(&world, |request| request.max_age(Duration::from_secs(100))).await;
        assert_eq!(broken_rule(&outcome), (!accepted).then_some(Rule::IdTokenAuthTime), "{moved_by}");
    }
}

#[tokio::test]
async fn under_max_age_auth_time_is_required() {
    let world = after_three_days(Some(without("auth_time"))).await;
    let outcome = asked(&world, |request| request.max_age(HOUR)).await;
    assert_eq!(broken_rule(&outcome), Some(Rule::IdTokenAuthTime));
}

#[tokio::test]
async fn auth_time_is_required_only_if_it_was_requested_as_essential() {
    let essential = json!({ "id_token": { "auth_time": { "essential": true } } });
    let world = after_three_days(Some(without("auth_time"))).await;
    let outcome = asked(&world, |request| request.claims(essential)).await;
    assert_eq!(broken_rule(&outcome), Some(Rule::IdTokenAuthTime));
    let world = after_three_days(Some(without("auth_time"))).await;
    assert_eq!(broken_rule(&asked(&world, |request| request).await), None);
}

#[tokio::test]
async fn an_acr_that_is_not_among_the_essential_ones_is_refused() {
    let essential = json!({ "id_token": { "acr": { "essential": true, "values": ["loa3", "loa4"] } } });
    for (forgery, accepted) in [
        (None, true),
        (Some(claim("acr", json!("loa4"))), true),
        (Some(claim("acr", json!("loa2"))), false),
        (Some(without("acr")), false),
    ] {
        let world = world().await;
        if let Some(forgery) = forgery {
            world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
        }
        let outcome = asked(&world, |request| request.claims(essential.clone())).await;
        assert_eq!(broken_rule(&outcome), (!accepted).then_some(Rule::IdTokenAcr));
    }
}

#[tokio::test]
async fn an_essential_acr_without_values_is_required() {
    for essential in [
        json!({ "essential": true }),
        json!({ "essential": true, "values": [] }),
        json!({ "essential": true, "value": 3, "values": [3] }),
    ] {
        for (acr, accepted) in [
            (None, false),
            (Some(Value::Null), false),
            (Some(json!("")), false),
            (Some(json!(["loa3"])), false),
            (Some(json!("anything")), true),
        ] {
            let world = world().await;
            world.op.misbehave(Fault::id_token(
                Endpoint::Poll,
                acr.clone().map_or_else(|| without("acr"), |acr| claim("acr", acr)),
            ));
            let claims = json!({ "id_token": { "acr": essential } });
            let outcome = asked(&world, |request| request.claims(claims)).await;
            assert_eq!(broken_rule(&outcome), (!accepted).then_some(Rule::IdTokenAcr), "{essential} {acr:?}");
        }
    }
}

#[tokio::test]
async fn a_voluntary_acr_is_not_required() {
    let world = world().await;
    world.op.misbehave(Fault::id_token(Endpoint::Poll, claim("acr", json!("loa1"))));
    assert_eq!(broken_rule(&asked(&world, |request| request.acr_values(["loa3"])).await), None);
}
