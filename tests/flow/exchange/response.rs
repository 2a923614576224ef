//! DTR §Successful Deferred Code Exchange Response, and all its invalid forms.

use super::*;

#[tokio::test]
async fn an_answer_without_deferred_auth_id_is_refused_and_its_tokens_are_revoked() {
    let world = op_with(|op| op.early_access_token()).await;
    let error = answered_with(&world, |members| {
        members.remove("deferred_auth_id");
    })
    .await
    .unwrap_err();
    assert_eq!(error.rule(), Some(Rule::NoDeferredAuthId));
    let token = world.exchanges()[0].response_json()["access_token"].clone();
    let revocations = world.op.requests_to(Endpoint::Revocation);
    assert_eq!(revocations.len(), 1);
    assert_eq!(revocations[0].parameter("token").map(Value::from), Some(token));
    assert!(world.polls().is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_deferred_auth_id_that_is_not_a_string_is_refused_at_the_exchange() {
    let world = world().await;
    for value in [json!(""), json!(7), json!(["a"]), json!({}), json!(true)] {
        let error = answered_with(&world, move |members| set(members, "deferred_auth_id", value.clone())).await;
        assert_eq!(error.unwrap_err().rule(), Some(Rule::InvalidMember));
    }
    assert!(world.polls().is_empty());
}

#[tokio::test]
async fn an_immediate_final_answer_can_be_accepted() {
    let world = world_with(
        |op| op.early_access_token().interim_token(InterimToken::IdToken),
        |client| client.allow_immediate_answer(),
    )
    .await;
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.remove("deferred_auth_id");
    }));
    let Ok(SignIn::Complete(authentication)) = world.sign_in().await else { panic!("not complete") };
    assert_eq!(authentication.claims().subject(), "user-1");
    world.op.assert_clean();
}

#[tokio::test]
async fn an_immediate_final_answer_gets_every_check() {
    let world = world_with(
        |op| op.early_access_token().interim_token(InterimToken::IdToken),
        |client| client.allow_immediate_answer(),
    )
    .await;
    for (forgery, rule) in [
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (IdTokenForgery::claims(|claims| set(claims, "nonce", json!("another"))), Rule::IdTokenNonce),
    ] {
        world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
        let result = answered_with(&world, |members| {
            members.remove("deferred_auth_id");
        });
        assert_eq!(result.await.unwrap_err().rule(), Some(rule));
    }
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_answer_may_defer_if_an_immediate_one_is_accepted_too() {
    let world = client_with(|client| client.allow_immediate_answer()).await;
    let _ = world.pending().await;
}

#[tokio::test]
async fn the_interim_id_token_is_found_under_either_name() {
    for name in [InterimToken::IdToken, InterimToken::InterimIdToken, InterimToken::Both] {
        let world = op_with(|op| op.interim_token(name).interim_claim("email", "jane@example.com")).await;
        let pending = world.pending().await;
        let interim = pending.interim().verified().expect("a verified interim ID Token");
        assert_eq!((interim.claims().subject(), interim.claims().email()), ("user-1", Some("jane@example.com")));
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn two_different_interim_id_tokens_are_both_rejected_and_the_sign_in_continues() {
    let world = world().await;
    let pending = answered_with(&world, |members| set(members, "id_token", json!("a.b.c"))).await;
    let mut pending = pending.unwrap();
    assert!(matches!(pending.interim(), InterimState::Rejected(Rule::TwoInterimIdTokens)), "{:?}", pending.interim());
    assert!(matches!(world.client.wait(&mut pending).await, Ok(Outcome::Approved(_))));
}

#[tokio::test]
async fn an_interim_id_token_is_optional() {
    let world = op_with(|op| op.interim_token(InterimToken::Absent)).await;
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::Absent));
    assert!(matches!(world.client.wait(&mut pending).await, Ok(Outcome::Approved(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_rejected_interim_id_token_ends_no_sign_in() {
    let world = world().await;
    for (forgery, rule) in [
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::raw("junk"), Rule::IdTokenMalformed),
        (IdTokenForgery::claims(|claims| drop(claims.remove("nonce"))), Rule::IdTokenNonce),
    ] {
        world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
        let mut pending = world.pending().await;
        assert!(matches!(pending.interim(), InterimState::Rejected(found) if *found == rule), "{rule:?}");
        assert!(matches!(world.client.wait(&mut pending).await, Ok(Outcome::Approved(_))));
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn an_interim_id_token_can_be_verified_later_if_the_keys_were_unavailable() {
    let world = world().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503));
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    world.clock.advance(Duration::from_secs(120));
    world.client.verify_interim(&mut pending).await.unwrap();
    assert!(pending.interim().verified().is_some());
    world.op.assert_clean();
}

#[tokio::test]
async fn an_early_access_token_is_returned() {
    let world = op_with(|op| op.early_access_token()).await;
    let pending = world.pending().await;
    let token = world.exchanges()[0].response_json()["access_token"].clone();
    assert_eq!(pending.access_token().map(|token| json!(token.expose())), Some(token));
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let world = world().await;
    let pending = answered_with(&world, |members| set(members, "surprise", json!({ "deep": [1, null] }))).await;
    assert!(pending.is_ok());
}

#[tokio::test]
async fn the_media_type_may_have_parameters() {
    let world = world().await;
    world.op.misbehave(Fault::edit_headers(Endpoint::Exchange, |headers| {
        headers.insert("content-type", "Application/JSON ; charset=UTF-8".parse().unwrap());
    }));
    let _ = world.pending().await;
    world.op.assert_clean();
}

#[tokio::test]
async fn a_deferred_auth_id_is_opaque_and_is_sent_back_unchanged() {
    const ID: &str = "a b&c=%41+\u{fc}\u{0}\n\"";
    let world = world().await;
    let mut pending = answered_with(&world, |members| set(members, "deferred_auth_id", json!(ID))).await.unwrap();
    assert!(matches!(world.client.wait(&mut pending).await, Ok(Outcome::Failed(_))));
    assert_eq!(world.polls()[0].parameter("deferred_auth_id"), Some(ID));
}

#[tokio::test]
async fn a_json_object_nested_too_deep_is_refused() {
    let world = world().await;
    let body = format!("{{\"deferred_auth_id\":\"a\",\"x\":{}", "[".repeat(500_000));
    world.op.misbehave(Fault::response(Endpoint::Exchange, 200, "application/json", body));
    let error = world.sign_in().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson));
}
