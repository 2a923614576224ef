//! `deferred_code code`: the OP chooses.

use super::*;

async fn sign_in(world: &World) -> Result<SignIn, Error> {
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let (url, session) = started(request).await;
    world.client.authorization_response(&world.op.visit(url).query(), session).await
}

async fn answering_at_once() -> World {
    world_with(|op| op.answer_with_code(), |client| client).await
}

#[tokio::test]
async fn a_code_signs_the_user_in_at_once() {
    let world = answering_at_once().await;
    let SignIn::Complete(authentication) = sign_in(&world).await.unwrap() else { panic!("not complete") };
    assert_eq!(authentication.claims().subject(), "user-1");
    assert!(authentication.is_sender_constrained());
    let request = &world.op.requests_to(Endpoint::Code)[0];
    assert_eq!(request.parameter("grant_type"), Some("authorization_code"));
    assert_eq!(request.parameter("redirect_uri"), Some(REDIRECT_URI));
    assert!(request.parameter("code_verifier").is_some());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_deferred_code_defers() {
    let world = world().await;
    assert!(matches!(sign_in(&world).await.unwrap(), SignIn::Deferred(_)));
    world.op.assert_clean();
}

#[tokio::test]
async fn the_id_token_of_an_ordinary_code_is_fully_validated() {
    let world = answering_at_once().await;
    let wrong = |name: &'static str, value: serde_json::Value| {
        IdTokenForgery::claims(move |claims| {
            claims.insert(name.into(), value.clone());
        })
    };
    for (forgery, rule) in [
        (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::hmac_with_public_key(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (wrong("iss", json!("https://evil.test")), Rule::IdTokenIssuer),
        (wrong("aud", json!("another-app")), Rule::IdTokenAudience),
        (wrong("nonce", json!("another")), Rule::IdTokenNonce),
        (wrong("exp", json!(1)), Rule::IdTokenExpired),
        (wrong("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), Rule::IdTokenAccessTokenHash),
        (wrong("sub", json!("")), Rule::IdTokenSubject),
    ] {
        world.op.misbehave(Fault::id_token(Endpoint::Code, forgery));
        let error = sign_in(&world).await.unwrap_err();
        assert_eq!(error.rule(), Some(rule));
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn tokens_that_came_with_an_invalid_id_token_are_revoked() {
    let world = answering_at_once().await;
    world.op.misbehave(Fault::id_token(Endpoint::Code, IdTokenForgery::broken_signature()));
    let error = sign_in(&world).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::IdTokenSignature));
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    world.op.assert_clean();
}
