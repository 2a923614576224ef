//! Sign-ins: the hint, the opt-in, and both answers to the code.

use std::sync::Arc;

use openid_deferred::error::Rule;
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, IdTokenForgery, SeededRandom, TestClient, TestClock, TestProviderBuilder,
};
use openid_deferred::{
    ClientAuthentication, Dialect, ErrorKind, Outcome, ResponseType, SignIn, SigningAlgorithm, SigningKey,
};

use super::{ietf, undecided};
use crate::steps::{claims_of, parameters};
use crate::support::{CLIENT_ID, REDIRECT_URI, assert_approved, client_of, provider, world_with};

#[tokio::test]
async fn the_hint_is_in_the_url_and_the_opt_in_in_the_token_request_but_not_in_polls() {
    let world = ietf(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
    let outcome = world.outcome().await;
    assert_approved(&outcome);

    let authorization = &world.op.requests_to(Endpoint::Authorization)[0];
    assert_eq!(authorization.parameter("response_type"), Some("code"));
    assert_eq!(authorization.parameter("completion_mode"), Some("deferred"));
    let code = &world.op.requests_to(Endpoint::Code)[0];
    assert_eq!(code.parameter("grant_type"), Some("authorization_code"));
    assert_eq!(code.parameter("completion_mode"), Some("deferred"));
    assert!(code.parameter("code_verifier").is_some(), "PKCE goes with the code");
    assert_eq!(world.polls().len(), 3);
    for poll in world.polls() {
        assert_eq!(poll.parameter("grant_type"), Some("urn:ietf:params:oauth:grant-type:deferred"));
        assert_eq!(poll.parameter("deferral_code"), world.op.last_process().deferral_code().as_deref());
        assert!(poll.parameter("completion_mode").is_none() && poll.parameter("code_verifier").is_none());
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn the_hint_is_in_a_pushed_request() {
    let world = undecided().await;
    let (url, session) = world.client.authorize().pushed().start().await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::PushedAuthorization)[0].parameter("completion_mode"), Some("deferred"));
    let query = world.op.visit(url).query();
    assert!(matches!(world.client.authorization_response(&query, session).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn the_hint_is_in_a_request_object() {
    let key = Arc::new(SigningKey::generate(SigningAlgorithm::Es256).unwrap());
    let registered = TestClient::private_key_jwt(CLIENT_ID, &serde_json::to_string(&key.public_jwk()).unwrap())
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("ES256");
    let world = world_with(
        |op| op.ietf().client(registered).require_signed_request_object(),
        |client| client.authentication(ClientAuthentication::private_key_jwt(key)),
    )
    .await;
    let (url, session) = world.client.authorize().start().await.unwrap();
    assert_eq!(claims_of(&parameters(&url, "request").pop().unwrap())["completion_mode"], "deferred");
    let query = world.op.visit(url).query();
    assert!(matches!(world.client.authorization_response(&query, session).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn without_the_hint_only_the_token_request_opts_in() {
    let world =
        world_with(|op| op.ietf().decisions(DecisionPolicy::scripted()), |client| client.without_deferral_hint()).await;
    let pending = world.pending().await;
    assert_eq!(pending.dialect(), Dialect::Ietf);
    assert_eq!(world.op.requests_to(Endpoint::Authorization)[0].parameter("completion_mode"), None);
    assert_eq!(world.op.requests_to(Endpoint::Code)[0].parameter("completion_mode"), Some("deferred"));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_immediate_answer_signs_the_user_in() {
    let world = ietf(|op| op.answers_at_once()).await;
    match world.sign_in().await {
        Ok(SignIn::Complete(authentication)) => assert_eq!(authentication.claims().subject(), "user-1"),
        other => panic!("expected tokens, got {other:?}"),
    }
    assert!(world.polls().is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_client_of_the_plain_code_flow_does_not_opt_in() {
    let world = world_with(|op| op.ietf(), |client| client.response_type(ResponseType::Code)).await;
    assert!(matches!(world.sign_in().await, Ok(SignIn::Complete(_))));
    for endpoint in [Endpoint::Authorization, Endpoint::Code] {
        assert_eq!(world.op.requests_to(endpoint)[0].parameter("completion_mode"), None);
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn the_metadata_chooses_the_dialect_and_a_setting_overrides_it() {
    let clock = TestClock::automatic();
    let openid = provider(&clock).start().unwrap();
    let ietf = provider(&clock).ietf().start().unwrap();
    let both = provider(&clock).both_dialects().start().unwrap();
    let mut seed = 10;
    for (op, set, expected) in [
        (&openid, None, Dialect::OpenId),
        (&ietf, None, Dialect::Ietf),
        (&both, None, Dialect::OpenId),
        (&both, Some(Dialect::Ietf), Dialect::Ietf),
    ] {
        seed += 1;
        let client = client_of(op, &clock).random(Arc::new(SeededRandom::new(seed)));
        let client = set.into_iter().fold(client, |client, dialect| client.dialect(dialect));
        let client = client.discover().await.unwrap();
        assert_eq!(client.dialect().await.unwrap(), expected);
        let (url, session) = client.authorize().start().await.unwrap();
        let pending = match client.authorization_response(&op.visit(url).query(), session).await {
            Ok(SignIn::Deferred(pending)) => pending,
            other => panic!("expected a deferral, got {other:?}"),
        };
        assert_eq!(pending.dialect(), expected);
        op.assert_clean();
    }
}

#[tokio::test]
async fn an_op_that_does_not_advertise_the_dialect_is_used_by_setting() {
    let silent = |op: TestProviderBuilder| {
        op.ietf()
            .metadata(|metadata| drop(metadata.remove("deferred_token_response_supported")))
            .decisions(DecisionPolicy::after_polls(1))
    };
    let clock = TestClock::automatic();
    let op = silent(provider(&clock)).start().unwrap();
    let error = client_of(&op, &clock).discover().await.unwrap_err();
    assert!(error.to_string().contains("`deferred_code`"), "{error}");

    let world = world_with(silent, |client| client.dialect(Dialect::Ietf)).await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_deferral_without_a_deferral_code_is_an_error_and_the_authorization_code_is_spent() {
    let world = ietf(|op| op).await;
    let (query, mut session) = world.user_returns().await;
    let mut grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    world.op.misbehave(Fault::edit_any_json(Endpoint::Code, |body| drop(body.remove("deferral_code"))));
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::NoDeferralCode), "{error}");
    assert!(grant.is_spent() && !error.is_transient());
}

#[tokio::test]
async fn an_id_token_of_a_deferred_sign_in_is_checked_like_any_other() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    world.op.last_process().approve();
    let forgery = IdTokenForgery::claims(|claims| drop(claims.insert("nonce".into(), "another".into())));
    world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Invalid(violation) if violation.rule().code() == "id_token_nonce"));
}

#[tokio::test]
async fn a_client_with_users_needs_an_authorization_endpoint() {
    let clock = TestClock::automatic();
    let op = provider(&clock).like_the_demo().start().unwrap();
    let error = client_of(&op, &clock).discover().await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Protocol(violation) if violation.member() == Some("authorization_endpoint"))
    );
}
