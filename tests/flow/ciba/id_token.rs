//! The ID Token (CIBA §10.1.1): without a nonce, and otherwise as in every sign-in.

use openid_deferred::ciba::UserHint;
use openid_deferred::error::Rule;
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery};
use openid_deferred::{Authentication, Outcome, PendingAuthentication};
use serde_json::json;

use super::{ciba, ciba_with};
use crate::support::{assert_approved, broken_rule, keyring, seconds};

#[tokio::test]
async fn no_nonce_is_expected() {
    let world = ciba(|op| op).await;
    let Outcome::Approved(authentication) = world.wait(&mut world.asked().await).await else { panic!("not approved") };
    let token = authentication.id_token().token().expose().to_owned();
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
    assert!(!String::from_utf8(payload).unwrap().contains("nonce"));
    world.op.assert_clean();
}

#[tokio::test]
async fn all_other_id_token_checks_are_made() {
    for (forgery, rule) in [
        (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::foreign_key(), Rule::IdTokenSignature),
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (claim("iss", json!("https://evil.test")), Rule::IdTokenIssuer),
        (claim("aud", json!("somebody-else")), Rule::IdTokenAudience),
        (claim("exp", json!(1)), Rule::IdTokenExpired),
        (claim("iat", json!(u32::MAX)), Rule::IdTokenIssuedAt),
        (claim("sub", json!("")), Rule::IdTokenSubject),
        (claim("at_hash", json!("AAAA")), Rule::IdTokenAccessTokenHash),
    ] {
        let world = ciba(|op| op).await;
        let mut pending = world.asked().await;
        world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
        assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(rule));
        world.op.assert_clean();
    }
}

fn claim(name: &'static str, value: serde_json::Value) -> IdTokenForgery {
    IdTokenForgery::claims(move |claims| drop(claims.insert(name.to_owned(), value.clone())))
}

/// A hint in another form does not tell the client who the user is.
#[tokio::test]
async fn an_approval_by_another_user_than_the_hinted_one_is_refused() {
    let world = ciba(|op| op).await;
    let Outcome::Approved(earlier) = world.wait(&mut world.asked().await).await else { panic!("not approved") };
    let ask = |hint| world.client.backchannel_authentication(hint);
    let keyring = keyring();
    for (hint, forgery, rule) in [
        (UserHint::id_token_hint(&earlier), None, None),
        (UserHint::id_token_hint(&earlier), Some("user-2"), Some(Rule::HintedSubject)),
        (UserHint::login_hint("user-1"), Some("user-2"), None),
    ] {
        let mut pending = ask(hint).send().await.unwrap();
        if let Some(subject) = forgery {
            world.op.misbehave(Fault::id_token(Endpoint::Poll, claim("sub", json!(subject))));
        }
        // The wait goes on in another process.
        pending = PendingAuthentication::open(&keyring, &pending.seal(&keyring).unwrap()).unwrap();
        let outcome = world.wait(&mut pending).await;
        assert_eq!(broken_rule(&outcome), rule, "{outcome:?}");
        assert!(rule.is_some() || matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_registered_default_max_age_is_enforced() {
    let world = ciba_with(|op| op, |client| client.default_max_age(seconds(60))).await;
    assert_approved(&world.wait(&mut world.asked().await).await);
    let mut pending = world.asked().await;
    let without = IdTokenForgery::claims(|claims| drop(claims.shift_remove("auth_time")));
    world.op.misbehave(Fault::id_token(Endpoint::Poll, without));
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::IdTokenAuthTime));
}

#[tokio::test]
async fn a_response_without_an_id_token_is_invalid() {
    let world = ciba(|op| op).await;
    let mut pending = world.asked().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, |body| drop(body.shift_remove("id_token"))));
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::NoIdToken));
}

#[tokio::test]
async fn the_tokens_are_refreshed_and_kept_like_those_of_other_sign_ins() {
    let world = ciba(|op| op).await;
    let Outcome::Approved(authentication) = world.wait(&mut world.asked().await).await else { panic!("not approved") };
    let keyring = keyring();
    let sealed = authentication.seal(&keyring).unwrap();
    let mut authentication = Authentication::open(&keyring, &sealed).unwrap();
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    world.op.assert_clean();
}
