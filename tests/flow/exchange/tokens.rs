//! Token responses of ordinary codes.

use super::*;

async fn answered_with(
    edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
) -> (World, Result<SignIn, Error>) {
    let world = op_with(|op| op.answer_with_code()).await;
    world.op.misbehave(Fault::edit_json(Endpoint::Code, edit));
    let result = code_flow(&world).await;
    (world, result)
}

async fn refused(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Rule {
    let (world, result) = answered_with(edit).await;
    let error = result.unwrap_err();
    assert!(!world.op.requests_to(Endpoint::Revocation).is_empty(), "what came with it is given back");
    error.rule().unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test]
async fn the_case_of_token_type_does_not_matter() {
    for name in ["dpop", "DPOP", "DpOp"] {
        let (_, result) = answered_with(move |members| set(members, "token_type", json!(name))).await;
        let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
        assert!(authentication.is_sender_constrained(), "{name}");
    }
    let (_, result) = answered_with(|members| set(members, "token_type", json!("BEARER"))).await;
    let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
    assert!(!authentication.is_sender_constrained() && authentication.access_token().is_some());
}

#[tokio::test]
async fn unbound_tokens_can_be_dropped_and_the_identity_kept() {
    let world = world_with(|op| op.answer_with_code(), |client| client.drop_unbound_tokens()).await;
    world.op.misbehave(Fault::edit_json(Endpoint::Code, |members| set(members, "token_type", json!("Bearer"))));
    let Ok(SignIn::Complete(authentication)) = code_flow(&world).await else { panic!("not complete") };
    assert_eq!(authentication.claims().subject(), "user-1");
    assert!(authentication.access_token().is_none() && authentication.refresh_token().is_none());
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
}

#[tokio::test]
async fn expires_in_scope_and_refresh_token_may_be_absent_or_empty() {
    let (_, result) = answered_with(|members| {
        set(members, "scope", json!(""));
        set(members, "expires_in", json!("never"));
        members.remove("refresh_token");
    })
    .await;
    let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
    assert_eq!((authentication.scope(), authentication.access_token_expires_at()), (None, None));
    assert_eq!(authentication.granted_scope(), GrantedScope::Unknown, "an empty text is not everything");
    assert!(authentication.refresh_token().is_none());

    let (_, result) = answered_with(|members| {
        members.remove("scope");
        members.remove("expires_in");
    })
    .await;
    let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
    assert_eq!((authentication.scope(), authentication.access_token_expires_at()), (None, None));
    assert_eq!(authentication.granted_scope(), GrantedScope::AsRequested);
}

#[tokio::test]
async fn a_scope_in_an_array_is_read_and_an_empty_one_does_not_grant_everything() {
    for (scope, expected) in [
        (json!(["openid", "profile"]), GrantedScope::Listed("openid profile")),
        (json!("openid profile"), GrantedScope::Listed("openid profile")),
        (json!([]), GrantedScope::Unknown),
        (json!(["openid", 7]), GrantedScope::Unknown),
        (json!(7), GrantedScope::Unknown),
        (Value::Null, GrantedScope::AsRequested),
    ] {
        let given = scope.clone();
        let (_, result) = answered_with(move |members| set(members, "scope", given.clone())).await;
        let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
        let keyring = keyring();
        let sealed = authentication.seal(&keyring).unwrap();
        let authentication = Authentication::open(&keyring, &sealed).unwrap();
        assert_eq!(authentication.granted_scope(), expected, "{scope}");
        let listed = if let GrantedScope::Listed(scope) = expected { Some(scope) } else { None };
        assert_eq!(authentication.scope(), listed, "{scope}");
    }
}

#[tokio::test]
async fn a_dpop_token_without_a_proof_is_reported_and_never_used_as_a_bearer_token() {
    let world = world_with(|op| op.answer_with_code(), |client| client.dpop(DpopMode::Off)).await;
    world.op.misbehave(Fault::edit_json(Endpoint::Code, |members| set(members, "token_type", json!("dpop"))));
    let Ok(SignIn::Complete(mut authentication)) = code_flow(&world).await else { panic!("not complete") };
    assert_eq!(authentication.claims().subject(), "user-1", "the identity is good");
    assert_eq!((authentication.token_type(), authentication.is_sender_constrained()), (Some("DPoP"), false));
    assert!(authentication.access_token().is_some() && authentication.dpop_key().is_none());

    let no_key = ErrorKind::Misuse(Misuse::NoDpopKey);
    assert_eq!(*world.client.userinfo(&authentication).await.unwrap_err().kind(), no_key);
    let request = http::Request::get(format!("{}/resource", world.op.issuer())).body(Default::default()).unwrap();
    assert_eq!(*world.client.resource(&authentication, request).await.unwrap_err().kind(), no_key);
    assert!(world.op.requests_to(Endpoint::UserInfo).is_empty() && world.op.requests_to(Endpoint::Resource).is_empty());

    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(authentication.token_type(), Some("Bearer"), "and a refresh may put it right");
    world.client.userinfo(&authentication).await.unwrap();
}

#[tokio::test]
async fn an_answer_without_id_token_is_refused() {
    assert_eq!(refused(|members| drop(members.remove("id_token"))).await, Rule::NoIdToken);
    assert_eq!(refused(|members| set(members, "id_token", json!(""))).await, Rule::NoIdToken);
    assert_eq!(refused(|members| set(members, "id_token", json!({ "sub": "user-1" }))).await, Rule::NoIdToken);
}

#[tokio::test]
async fn an_access_token_of_an_unknown_type_is_left_out() {
    let world = op_with(|op| op.answer_with_code()).await;
    world.op.misbehave(Fault::edit_json(Endpoint::Code, |members| set(members, "token_type", json!("N_A"))));
    let Ok(SignIn::Complete(authentication)) = code_flow(&world).await else { panic!("not complete") };
    assert_eq!(authentication.claims().subject(), "user-1");
    assert!(authentication.access_token().is_none());
    let userinfo = world.client.userinfo(&authentication).await;
    assert_eq!(*userinfo.unwrap_err().kind(), ErrorKind::Misuse(Misuse::NoAccessToken));
}

#[tokio::test]
async fn an_ordinary_code_that_may_be_spent_is_never_sent_again() {
    let world = op_with(|op| op.answer_with_code()).await;
    world.op.misbehave(Fault::reset(Endpoint::Code).after_processing());
    let error = code_flow(&world).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(world.op.requests_to(Endpoint::Code).len(), 1);
}
