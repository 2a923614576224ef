//! Grants without a user.

use openid_deferred::error::{Misuse, Rule};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, NoncePolicy};
use openid_deferred::tokens::GrantedScope;
use openid_deferred::{ErrorKind, Grant};
use serde_json::json;

use super::{complete, deferred, demo, ietf, issued, undecided};
use crate::support::{client_of, world, world_with};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

#[tokio::test]
async fn every_grant_is_answered_at_once_or_deferred() {
    for at_once in [true, false] {
        let world = ietf(|op| if at_once { op.answers_at_once() } else { op }).await;
        let grants = [
            (Grant::client_credentials(), Endpoint::ClientCredentials),
            (Grant::token_exchange(world.op.subject_token("user-1"), ACCESS_TOKEN), Endpoint::TokenExchange),
            (Grant::jwt_bearer(world.op.assertion("user-1")), Endpoint::JwtBearer),
        ];
        for (grant, endpoint) in grants {
            let answer = world.client.token_request(grant).scopes(["read", "write"]).send().await.unwrap();
            let tokens = match at_once {
                true => complete(answer),
                false => issued(world.wait(&mut deferred(answer)).await),
            };
            assert_eq!(tokens.granted_scope(), GrantedScope::Listed("read write"));
            assert!(tokens.is_sender_constrained() && tokens.dpop_key().is_some());
            assert_eq!(tokens.token_type(), Some("DPoP"));
            let expected = (endpoint == Endpoint::TokenExchange).then_some(ACCESS_TOKEN);
            assert_eq!(tokens.issued_token_type(), expected);
            let request = &world.op.requests_to(endpoint)[0];
            assert_eq!(request.parameter("completion_mode"), Some("deferred"));
        }
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn the_notification_token_of_openid_sign_ins_is_not_sent_with_a_grant_without_a_user() {
    let world = world_with(
        |op| op.both_dialects().decisions(DecisionPolicy::after_polls(1)),
        |client| client.notification_token("one token for all sign-ins"),
    )
    .await;
    issued(world.wait(&mut world.pending_grant().await).await);
    let request = &world.op.requests_to(Endpoint::ClientCredentials)[0];
    assert_eq!(request.parameter("client_notification_token"), None);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_deferral_with_status_200_and_without_an_error_code_is_accepted() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(1))).await;
    let body = |process: &openid_deferred::testing::TestProcess| {
        json!({ "deferral_code": process.deferral_code().unwrap(), "interval": 5, "expires_in": 600 }).to_string()
    };
    // The code of an earlier request, which its client has forgotten.
    drop(world.pending_grant().await);
    let process = world.op.last_process();
    let fault = Fault::response(Endpoint::ClientCredentials, 200, "application/json", body(&process));
    world.op.misbehave(fault);
    let pending = world.pending_grant().await;
    assert_eq!(Some(pending.identifier().expose()), process.deferral_code().as_deref());
}

#[tokio::test]
async fn a_request_that_does_not_opt_in_is_answered_at_once() {
    let world = ietf(|op| op).await;
    let request = world.client.token_request(Grant::client_credentials()).without_deferral();
    complete(request.send().await.unwrap());
    assert_eq!(world.op.requests_to(Endpoint::ClientCredentials)[0].parameter("completion_mode"), None);
    world.op.assert_clean();
}

#[tokio::test]
async fn details_and_resources_reach_the_op_and_come_back() {
    let world = ietf(|op| op.defers_above(100)).await;
    let payment = |amount: u64| json!([{ "type": "payment", "instructedAmount": { "amount": amount } }]);
    let request = |amount| {
        let request = world.client.token_request(Grant::client_credentials()).authorization_details(payment(amount));
        request.resource("https://api.example/a").resource("https://api.example/b").context("order 4711")
    };
    let small = complete(request(100).send().await.unwrap());
    let large = issued(world.wait(&mut deferred(request(101).send().await.unwrap())).await);
    for (tokens, amount) in [(&small, 100), (&large, 101)] {
        assert_eq!(tokens.authorization_details(), Some(&payment(amount)));
        assert_eq!(tokens.context(), b"order 4711");
    }
    assert_eq!(
        world.op.requests_to(Endpoint::ClientCredentials)[0].parameter("resource"),
        Some("https://api.example/a")
    );
    world.op.assert_clean();
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_is_exchanged_with_a_proof_by_that_key() {
    let world = ietf(|op| op.allow_dpop_key_reuse()).await;
    let first = issued(world.wait(&mut world.pending_grant().await).await);
    let key = first.dpop_key().unwrap().clone();
    let grant = Grant::token_exchange(first.access_token().clone(), ACCESS_TOKEN);
    let request = world.client.token_request(grant).dpop_key(key.clone());
    let second = issued(world.wait(&mut deferred(request.send().await.unwrap())).await);
    assert_eq!(second.dpop_key().unwrap().thumbprint(), key.thumbprint());
    assert!(second.is_sender_constrained());
    world.op.assert_clean();
}

#[tokio::test]
async fn the_tokens_call_an_api_with_their_key() {
    let world = ietf(|op| op).await;
    let tokens = issued(world.wait(&mut world.pending_grant().await).await);
    let request = http::Request::get(world.op.resource()).body(Default::default()).unwrap();
    assert_eq!(world.client.resource(&tokens, request).await.unwrap().status(), 200);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_op_without_users_needs_neither_an_authorization_endpoint_nor_keys() {
    let world = demo(|op| op.defers_above(100).decisions(DecisionPolicy::after_polls(1))).await;
    complete(world.client.token_request(Grant::client_credentials()).send().await.unwrap());
    let details = json!([{ "type": "payment", "instructedAmount": { "amount": "250" } }]);
    let request = world.client.token_request(Grant::client_credentials()).authorization_details(details);
    let mut pending = deferred(request.send().await.unwrap());
    issued(world.wait(&mut pending).await);
    assert!(world.op.requests_to(Endpoint::Keys).is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_client_without_a_redirect_uri_starts_no_sign_in() {
    let world = demo(|op| op).await;
    let error = world.client.authorize().start().await.unwrap_err();
    assert!(error.to_string().contains("redirect_uri"), "{error}");
}

#[tokio::test]
async fn a_redirect_uri_and_its_absence_exclude_each_other() {
    let world = world().await;
    let error = client_of(&world.op, &world.clock).without_redirect_uri().build().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error}");
}

#[tokio::test]
async fn token_requests_work_at_an_op_of_the_openid_dialect() {
    // It does not know the parameter, and refuses the grant.
    let world = world_with(|op| op, |client| client).await;
    let error = world.client.token_request(Grant::client_credentials()).send().await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "unsupported_grant_type", "{error}");
}

#[tokio::test]
async fn parameters_that_the_crate_sets_cannot_be_added() {
    let world = ietf(|op| op).await;
    for name in [
        "grant_type",
        "completion_mode",
        "client_notification_token",
        "scope",
        "client_secret",
        "deferral_code",
        "actor_token",
        "requested_token_type",
    ] {
        let error =
            world.client.token_request(Grant::client_credentials()).parameter(name, "x").send().await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Misuse(Misuse::ReservedParameter(name.to_owned())));
    }
    let request = world.client.token_request(Grant::client_credentials()).context([0; 257]);
    assert!(matches!(request.send().await.unwrap_err().kind(), ErrorKind::Misuse(Misuse::ContextTooLong { .. })));
    let request = world.client.token_request(Grant::client_credentials()).authorization_details(json!([{}]));
    assert!(matches!(request.send().await.unwrap_err().kind(), ErrorKind::Configuration(_)));
    assert!(world.op.requests_to(Endpoint::ClientCredentials).is_empty());
}

#[tokio::test]
async fn an_issued_token_that_is_no_access_token_is_kept_but_not_sent_to_apis() {
    let world = ietf(|op| op.answers_at_once()).await;
    world.op.misbehave(Fault::edit_json(Endpoint::TokenExchange, |body| {
        body.insert("token_type".into(), "N_A".into());
        body.insert("issued_token_type".into(), "urn:ietf:params:oauth:token-type:saml2".into());
    }));
    let grant = Grant::token_exchange(world.op.subject_token("user-1"), ACCESS_TOKEN);
    let tokens = complete(world.client.token_request(grant).send().await.unwrap());
    assert_eq!((tokens.token_type(), tokens.is_sender_constrained()), (None, false));
    assert_eq!(tokens.issued_token_type(), Some("urn:ietf:params:oauth:token-type:saml2"));
    let request = http::Request::get(world.op.resource()).body(Default::default()).unwrap();
    let error = world.client.resource(&tokens, request).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Misuse(Misuse::NoAccessToken));
}

#[tokio::test]
async fn a_response_without_a_usable_token_is_refused() {
    for (member, value, rule) in [
        ("access_token", json!(null), Rule::NoAccessToken),
        ("access_token", json!(7), Rule::NoAccessToken),
        ("token_type", json!("mac"), Rule::UnknownTokenType),
        ("token_type", json!(null), Rule::UnknownTokenType),
    ] {
        let world = ietf(|op| op.answers_at_once()).await;
        let edited = value.clone();
        world.op.misbehave(Fault::edit_json(Endpoint::ClientCredentials, move |body| {
            body.insert(member.into(), edited.clone());
        }));
        let error = world.client.token_request(Grant::client_credentials()).send().await.unwrap_err();
        assert_eq!(error.rule(), Some(rule), "{member} {value}");
    }
}

#[tokio::test]
async fn an_unrequested_id_token_is_not_available() {
    let world = ietf(|op| op.answers_at_once()).await;
    world.op.misbehave(Fault::edit_json(Endpoint::ClientCredentials, |body| {
        body.insert("id_token".into(), "a.b.c".into());
        body.insert("x_op".into(), 7.into());
    }));
    let tokens = complete(world.client.token_request(Grant::client_credentials()).send().await.unwrap());
    assert_eq!((tokens.extra("id_token"), tokens.extra("x_op")), (None, Some(&json!(7))));
}

#[tokio::test]
async fn two_nonce_challenges_in_a_row_end_no_grant_and_reuse_no_assertion() {
    let world = ietf(|op| op.dpop_nonces(NoncePolicy::Required)).await;
    let grants = [
        (Grant::client_credentials(), Endpoint::ClientCredentials),
        (Grant::jwt_bearer(world.op.assertion("user-1")), Endpoint::JwtBearer),
    ];
    for (grant, endpoint) in grants {
        world.op.misbehave(Fault::forget_nonces(endpoint).times(2));
        issued(world.wait(&mut deferred(world.client.token_request(grant).send().await.unwrap())).await);
        assert_eq!((world.op.requests_to(endpoint).len(), world.op.faults_left()), (3, 0));
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_refused_grant_is_the_ops_error() {
    let world = ietf(|op| op).await;
    let grant = Grant::jwt_bearer("not a jwt");
    let error = world.client.token_request(grant).send().await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
    assert!(error.to_string().contains("requesting tokens"), "{error}");
}

#[tokio::test]
async fn nothing_about_a_token_request_is_printed() {
    let world = undecided().await;
    let assertion = world.op.assertion("user-1");
    let request = world.client.token_request(Grant::jwt_bearer(assertion.as_str())).context("c0ntext");
    assert!(!format!("{request:?}").contains(&assertion));
    let pending = deferred(request.send().await.unwrap());
    let shown = format!("{pending:?} {:?}", pending.identifier());
    assert!(!shown.contains(world.op.last_process().deferral_code().unwrap().as_str()) && !shown.contains("c0ntext"));
}
