//! OpenID Connect Core 1.0 §5.3.

use http::HeaderValue;
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::{ConfigurationProblem, Document, Misuse, Rule, TransportProblem};
use openid_deferred::testing::{Endpoint, Fault, NoncePolicy, TestClient, TestUser};
use openid_deferred::{ClientBuilder, Clock as _, Error, ErrorKind, Outcome, SigningAlgorithm, UserInfo};
use serde_json::json;

use crate::support::{CLIENT_ID, CLIENT_SECRET, HOUR, REDIRECT_URI, World, seconds, world, world_with};

/// UserInfo responses are signed.
async fn signing() -> World {
    let registered = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI);
    world_with(|op| op.client(registered.signing_algorithm("ES256").signed_userinfo()), |client| client).await
}

async fn answered_with(world: &World, fault: Fault) -> Result<UserInfo, Error> {
    let authentication = world.approved().await;
    world.op.misbehave(fault);
    let asked = world.client.userinfo(&authentication).await;
    assert_eq!(world.op.faults_left(), 0, "the fault struck");
    asked
}

async fn is_refused(fault: Fault, rule: Rule) {
    let error = answered_with(&world().await, fault).await.unwrap_err();
    let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
    assert_eq!((violation.rule(), violation.document()), (rule, Some(Document::UserInfo)));
}

#[tokio::test]
async fn userinfo_about_the_user_of_the_final_token_is_believed() {
    let world = world_with(|op| op.user(TestUser::new("user-1").claim("email", "jane@example.com")), |c| c).await;
    let userinfo = world.client.userinfo(&world.approved().await).await.unwrap();
    assert_eq!((userinfo.subject(), userinfo.claim("email")), ("user-1", Some(&json!("jane@example.com"))));
    #[derive(serde::Deserialize)]
    struct Mine {
        email: String,
    }
    assert_eq!(userinfo.deserialize::<Mine>().unwrap().email, "jane@example.com");
    world.op.assert_clean();
}

#[tokio::test]
async fn userinfo_about_another_user_is_refused() {
    for sub in [json!("user-2"), json!("USER-1"), json!(["user-1"]), json!(null), json!("")] {
        let fault = Fault::edit_json(Endpoint::UserInfo, move |members| {
            members.insert("sub".into(), sub.clone());
        });
        is_refused(fault, Rule::UserInfoSubject).await;
    }
}

#[tokio::test]
async fn userinfo_without_sub_is_refused() {
    let fault = Fault::edit_json(Endpoint::UserInfo, |members| {
        members.remove("sub");
    });
    is_refused(fault, Rule::UserInfoSubject).await;
}

#[tokio::test]
async fn userinfo_that_names_two_subjects_is_refused() {
    let body = r#"{"sub":"user-2","sub":"user-1"}"#;
    is_refused(Fault::response(Endpoint::UserInfo, 200, "application/json", body), Rule::RepeatedMember).await;
}

#[tokio::test]
async fn the_subject_of_userinfo_is_compared_with_the_final_subject_and_not_with_the_interim_one() {
    let world = world_with(|op| op, ClientBuilder::allow_changed_subject).await;
    let mut pending = world.pending().await;
    assert_eq!(pending.interim().verified().unwrap().claims().subject(), "user-1");
    world.op.last_process().change_subject("user-2");
    let Ok(Outcome::Approved(authentication)) = world.client.wait(&mut pending).await else { panic!("not approved") };
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-2");
    world.op.last_process().change_subject("user-1");
    assert_eq!(world.client.userinfo(&authentication).await.unwrap_err().rule(), Some(Rule::UserInfoSubject));
}

#[tokio::test]
async fn userinfo_that_is_no_json_is_refused() {
    is_refused(Fault::status(Endpoint::UserInfo, 200), Rule::UnexpectedContentType).await;
    is_refused(Fault::response(Endpoint::UserInfo, 200, "", "user-1"), Rule::UnexpectedContentType).await;
    for body in ["[]", "null", "", r#"{"sub":"user-1""#, "\"user-1\""] {
        is_refused(Fault::response(Endpoint::UserInfo, 200, "application/json", body), Rule::MalformedJson).await;
    }
}

#[tokio::test]
async fn userinfo_with_a_status_that_is_no_success_is_refused() {
    for status in [204, 206, 302, 401, 403, 404, 500, 503] {
        is_refused(Fault::status(Endpoint::UserInfo, status), Rule::UnexpectedStatus).await;
    }
}

#[tokio::test]
async fn the_challenge_of_a_refused_userinfo_request_is_the_error() {
    for (status, challenge, code, scope) in [
        (401, r#"DPoP error="invalid_token", error_description="it has expired""#, "invalid_token", None),
        (403, r#"Bearer error="insufficient_scope", scope="openid email""#, "insufficient_scope", Some("openid email")),
    ] {
        let fault = Fault::status(Endpoint::UserInfo, status).header("www-authenticate", challenge);
        let error = answered_with(&world().await, fault).await.unwrap_err();
        let response = error.error_response().unwrap();
        assert_eq!((response.code(), response.status(), response.scope()), (code, Some(status), scope));
        assert_eq!(response.description(), (status == 401).then_some("it has expired"));
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn an_expired_access_token_is_refused_and_a_refresh_helps() {
    let world = world().await;
    let mut authentication = world.approved().await;
    world.clock.sleep(2 * HOUR).await;
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_token");
    world.client.refresh(&mut authentication).await.unwrap();
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn a_proof_refused_for_its_time_is_repeated_once_with_the_ops_time() {
    let world = world_with(|op| op.clock_offset(300), |client| client.leeway(seconds(310))).await;
    let authentication = world.approved().await;
    // A replica whose clock has not been corrected yet.
    let world = world.restarted(7);
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
    assert_eq!(world.op.requests_to(Endpoint::UserInfo).len(), 2);
    world.client.userinfo(&authentication).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::UserInfo).len(), 3, "the difference is remembered");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_refused_access_token_is_not_a_transient_error() {
    let world = world().await;
    let error = answered_with(&world, Fault::error_with_status(Endpoint::UserInfo, 401, "invalid_token")).await;
    assert!(!error.unwrap_err().is_transient());
    let error = answered_with(&world, Fault::status(Endpoint::UserInfo, 503)).await;
    assert!(error.unwrap_err().is_transient());
}

#[tokio::test]
async fn unanswered_userinfo_is_a_transport_error() {
    for (fault, problem) in [
        (Fault::reset(Endpoint::UserInfo), TransportProblem::Broken),
        (Fault::stall(Endpoint::UserInfo), TransportProblem::Timeout),
        (Fault::endless_body(Endpoint::UserInfo), TransportProblem::BodyTooLarge(Document::UserInfo)),
    ] {
        let error = answered_with(&world().await, fault).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Transport(problem));
    }
}

#[tokio::test]
async fn signed_userinfo_is_verified() {
    let world = signing().await;
    let userinfo = world.client.userinfo(&world.approved().await).await.unwrap();
    assert_eq!((userinfo.subject(), userinfo.claim("name")), ("user-1", Some(&json!("Jane Doe"))));
    world.op.assert_clean();
}

#[tokio::test]
async fn signed_userinfo_that_does_not_verify_is_refused() {
    let world = signing().await;
    let authentication = world.approved().await;
    world.client.userinfo(&authentication).await.unwrap();
    let genuine = world.op.requests_to(Endpoint::UserInfo)[0].response_body.clone();
    let genuine = std::str::from_utf8(&genuine).unwrap().to_owned();
    let (message, signature) = genuine.rsplit_once('.').unwrap();
    let (_, payload) = message.split_once('.').unwrap();
    // {"alg":"none"} and {"alg":"HS256"}
    let forgeries = [
        format!("{message}."),
        format!("{message}.{}", signature.chars().rev().collect::<String>()),
        format!("eyJhbGciOiJub25lIn0.{payload}."),
        format!("eyJhbGciOiJIUzI1NiJ9.{payload}.{signature}"),
        "junk".to_owned(),
        String::new(),
    ];
    for forgery in forgeries {
        world.op.misbehave(Fault::response(Endpoint::UserInfo, 200, "application/jwt", forgery.clone()));
        let error = world.client.userinfo(&authentication).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::UserInfoSigned), "{forgery}");
    }
}

#[tokio::test]
async fn an_id_token_is_refused_as_signed_userinfo() {
    let stranger = TestClient::public("stranger").redirect_uri(REDIRECT_URI).signing_algorithm("ES256");
    let world = world_with(|op| op.client(stranger.signed_userinfo()), |client| client).await;
    let authentication = world.approved().await;
    let foreign = openid_deferred::Client::builder(world.op.issuer(), "stranger")
        .redirect_uri(REDIRECT_URI)
        .http_client(world.op.http_client())
        .clock(std::sync::Arc::new(world.clock.clone()))
        .discover()
        .await
        .unwrap();
    let other = World { op: world.op.clone(), clock: world.clock.clone(), client: foreign };
    other.client.userinfo(&other.approved().await).await.unwrap();
    let for_the_stranger = world.op.requests_to(Endpoint::UserInfo)[0].response_body.clone();
    world.op.misbehave(Fault::response(Endpoint::UserInfo, 200, "application/jwt", for_the_stranger));
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::UserInfoSigned));
}

#[tokio::test]
async fn signed_userinfo_after_a_rotation_of_keys_is_verified() {
    let world = signing().await;
    let authentication = world.approved().await;
    world.op.replace_keys();
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn a_challenge_at_the_userinfo_endpoint_is_answered_once() {
    let world = world_with(|op| op.dpop_nonces(NoncePolicy::Required), |client| client).await;
    let authentication = world.approved().await;
    world.client.userinfo(&authentication).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::UserInfo).len(), 2);
    world.op.misbehave(Fault::forget_nonces(Endpoint::UserInfo).times(2));
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::SecondNonceChallenge), true));
    assert_eq!(world.op.requests_to(Endpoint::UserInfo).len(), 4);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_challenge_without_a_nonce_at_the_userinfo_endpoint_is_transient() {
    let without_nonce = Fault::response(Endpoint::UserInfo, 401, "", "");
    let challenge = without_nonce.header("WWW-Authenticate", "DPoP error=\"use_dpop_nonce\"");
    let error = answered_with(&world().await, challenge).await.unwrap_err();
    assert_eq!((error.rule(), error.is_transient()), (Some(Rule::NonceMissing), true));
}

#[tokio::test]
async fn an_op_without_a_userinfo_endpoint_is_a_typed_error() {
    let without = |members: &mut serde_json::Map<String, serde_json::Value>| {
        members.remove("userinfo_endpoint");
    };
    let world = world_with(|op| op.metadata(without), |client| client).await;
    let error = world.client.userinfo(&world.approved().await).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Configuration(ConfigurationProblem::NoEndpoint("userinfo_endpoint")));
}

#[tokio::test]
async fn tokens_of_another_client_are_not_sent() {
    let (world, other) = (world().await, world_with(|op| op.path("/other"), |client| client).await);
    let error = world.client.userinfo(&other.approved().await).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
    assert!(world.op.requests_to(Endpoint::UserInfo).is_empty());
}

#[tokio::test]
async fn the_body_decides_the_format_of_userinfo_and_not_its_media_type() {
    let relabelled = |media_type: &'static str| {
        Fault::edit_headers(Endpoint::UserInfo, move |headers| {
            headers.insert("content-type", HeaderValue::from_static(media_type));
        })
    };
    for media_type in ["text/json", "text/plain", "application/jwt", "application/octet-stream"] {
        assert!(answered_with(&world().await, relabelled(media_type)).await.is_ok(), "{media_type}");
    }
    for media_type in ["application/json", "text/plain", "application/jose"] {
        assert!(answered_with(&signing().await, relabelled(media_type)).await.is_ok(), "{media_type}");
    }
    let untyped = || Fault::edit_headers(Endpoint::UserInfo, |headers| drop(headers.remove("content-type")));
    assert!(answered_with(&world().await, untyped()).await.is_ok());
    assert!(answered_with(&signing().await, untyped()).await.is_ok());
    // A registered signature is required regardless of the media type.
    let unsigned = Fault::response(Endpoint::UserInfo, 200, "application/jwt", r#"{"sub":"user-1"}"#);
    let demanding = world_with(
        |op| op,
        |client| client.algorithms(ClientAlgorithms::new().userinfo_signed_response_alg(SigningAlgorithm::Es256)),
    )
    .await;
    let error = answered_with(&demanding, unsigned).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::UserInfoUnsigned));
}

#[tokio::test]
async fn a_client_that_requires_a_jwt_accepts_no_other_media_type() {
    let asked_for = async |world: World| {
        let authentication = world.approved().await;
        let _ = world.client.userinfo(&authentication).await;
        world.op.requests_to(Endpoint::UserInfo)[0].header("accept").unwrap().to_owned()
    };
    assert_eq!(asked_for(world().await).await, "application/json, application/jwt");
    let demanding = world_with(
        |op| op,
        |client| client.algorithms(ClientAlgorithms::new().userinfo_signed_response_alg(SigningAlgorithm::Es256)),
    )
    .await;
    assert_eq!(asked_for(demanding).await, "application/jwt");
}

#[tokio::test]
async fn the_media_type_may_have_parameters_and_odd_case() {
    let fault = Fault::edit_headers(Endpoint::UserInfo, |headers| {
        headers.insert("content-type", HeaderValue::from_static("Application/JSON; charset=UTF-8"));
    });
    assert_eq!(answered_with(&world().await, fault).await.unwrap().subject(), "user-1");
}
