//! Rich authorization requests (RFC 9396).

use openid_deferred::{Authentication, Outcome};
use serde_json::Value;

use super::*;
use crate::support::keyring;

fn details() -> Value {
    json!([
        { "type": "account_information", "actions": ["list_accounts"] },
        { "type": "payment_initiation", "instructedAmount": { "currency": "EUR", "amount": "123.50" } },
    ])
}

async fn approved(world: &World) -> Authentication {
    let (url, session) = started(world.client.authorize().authorization_details(details())).await;
    let query = world.op.visit(url).query();
    let signed_in = world.client.authorization_response(&query, session).await;
    let Ok(SignIn::Deferred(mut pending)) = signed_in else { panic!("{signed_in:?}") };
    match world.wait(&mut pending).await {
        Outcome::Approved(authentication) => authentication,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn granted_authorization_details_come_with_the_tokens_and_survive_sealing() {
    let world = world().await;
    let authentication = approved(&world).await;
    assert_eq!(authentication.authorization_details(), Some(&details()));
    let keyring = keyring();
    let reopened = Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap();
    assert_eq!(reopened.authorization_details(), Some(&details()));
    world.op.assert_clean();
}

#[tokio::test]
async fn the_granted_authorization_details_count_and_not_the_requested_ones() {
    let world = world().await;
    let granted = json!([{ "type": "account_information", "accounts": ["DE02"] }]);
    let enriched = granted.clone();
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, move |members| {
        members.insert("authorization_details".into(), enriched.clone());
    }));
    assert_eq!(approved(&world).await.authorization_details(), Some(&granted));
}

#[tokio::test]
async fn invalid_authorization_details_in_the_response_do_not_fail_the_sign_in() {
    let world = world().await;
    for value in [None, Some(json!("all")), Some(json!({ "type": "payment" })), Some(json!(null))] {
        world.op.misbehave(Fault::edit_json(Endpoint::Poll, move |members| {
            members.remove("authorization_details");
            members.extend(value.clone().map(|value| ("authorization_details".to_owned(), value)));
        }));
        assert_eq!(approved(&world).await.authorization_details(), None);
    }
}

#[tokio::test]
async fn refused_authorization_details_are_the_ops_error() {
    let world = world().await;
    let error = refusal(&world, |response| {
        remove(response, "deferred_code");
        replace(response, "error", "invalid_authorization_details");
    })
    .await;
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_authorization_details"));
}

#[tokio::test]
async fn the_provider_refuses_malformed_authorization_details() {
    let world = world().await;
    for wrong in ["{}", "[]", "[1]", r#"[{"type":1}]"#, "no json"] {
        let (mut url, _) = started(world.client.authorize()).await;
        url.query_pairs_mut().append_pair("authorization_details", wrong);
        let back = world.op.visit(url);
        assert_eq!(back.parameter("error"), Some("invalid_authorization_details"), "{wrong}");
        assert_eq!(world.op.violations().pop().map(|violation| violation.rule), Some(RequestRule::InvalidParameter));
    }
}
