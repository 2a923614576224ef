//! Pushed authorization requests (RFC 9126), bound to the key of the sign-in (RFC 9449 §10.1).

use std::time::Duration;

use openid_deferred::error::{ConfigurationProblem, Document, Rule, TransportProblem};
use openid_deferred::testing::{
    Endpoint, Fault, NoncePolicy, RecordedRequest, RequestRule, TestClient, TestProviderBuilder,
};
use openid_deferred::{
    AuthorizationSession, ClientAuthentication, ClientBuilder, Clock as _, DpopMode, Error, ErrorKind, Outcome,
    ResponseMode, SignIn, SigningAlgorithm, SigningKey,
};
use serde_json::{Map, Value, json};
use url::Url;

use crate::steps::{claims_of, parameters};
use crate::support::{
    CLIENT_ID, REDIRECT_URI, World, assert_approved, client_of, keyring, provider, world, world_with,
};

async fn requiring(client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    world_with(TestProviderBuilder::require_pushed_authorization_requests, client).await
}

impl World {
    fn pushes(&self) -> Vec<RecordedRequest> {
        self.op.requests_to(Endpoint::PushedAuthorization)
    }

    async fn pushed(&self) -> Result<(Url, AuthorizationSession), Error> {
        self.client.authorize().pushed().start().await
    }
}

/// The client's error if pushing fails. A later sign-in must succeed.
async fn failure(fault: Fault) -> Error {
    let world = requiring(|client| client).await;
    world.op.misbehave(fault);
    let error = world.pushed().await.expect_err("this cannot be pushed");
    assert_eq!(error.step(), Some("starting the authorization request"));
    assert_eq!(world.pushes().len(), 1, "it went out once");
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
    error
}

async fn answered_with(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> (Rule, Option<&'static str>) {
    let error = failure(Fault::edit_json(Endpoint::PushedAuthorization, edit)).await;
    match error.kind() {
        ErrorKind::Protocol(violation) => {
            assert_eq!(violation.document(), Some(Document::PushedAuthorizationResponse));
            (violation.rule(), violation.member())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_are_pushed_without_a_setting_if_the_op_requires_it() {
    let world = requiring(|client| client).await;
    let (url, session) = world.client.authorize().scopes(["profile"]).start().await.unwrap();
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["client_id", "request_uri"]);
    let pushed = &world.pushes()[0];
    assert_eq!(pushed.parameter("scope"), Some("openid profile"));
    assert_eq!(pushed.parameter("state"), Some(session.state().expose()));
    assert!(pushed.header("authorization").is_some_and(|header| header.starts_with("Basic ")));
    let query = world.op.visit(url).query();
    let signed_in = world.client.authorization_response(&query, session).await;
    let Ok(SignIn::Deferred(mut pending)) = signed_in else { panic!("{signed_in:?}") };
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn requests_are_pushed_only_if_the_client_or_the_request_asks_for_it() {
    let world = world().await;
    assert_approved(&world.outcome().await);
    assert!(world.pushes().is_empty());
    let (url, _) = world.pushed().await.unwrap();
    let _ = world.op.visit(url);
    assert_eq!(world.pushes().len(), 1);

    let world = world_with(|op| op, ClientBuilder::pushed_authorization_requests).await;
    assert_approved(&world.outcome().await);
    assert_eq!(world.pushes().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_op_refuses_a_plain_request_of_a_client_registered_for_pushed_requests() {
    let registered = TestClient::secret_basic(CLIENT_ID, crate::support::CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .require_pushed_authorization_requests();
    let world = world_with(|op| op.client(registered), |client| client).await;
    let error = world.sign_in().await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_request"));
    assert_eq!(world.op.violations()[0].rule, RequestRule::NotPushed);
}

#[tokio::test]
async fn a_pushed_request_has_a_proof_by_the_key_of_dpop_jkt() {
    let world = requiring(|client| client).await;
    let mut pending = world.pending().await;
    let pushed = &world.pushes()[0];
    let proof = pushed.header("dpop").expect("there is a proof");
    let claims = claims_of(proof);
    assert_eq!((&claims["htm"], &claims["htu"]), (&json!("POST"), &json!(format!("{}/par", world.op.issuer()))));
    let thumbprint = pending.dpop_key().map(|key| key.thumbprint().to_owned());
    assert_eq!(pushed.parameter("dpop_jkt").map(str::to_owned), thumbprint);
    assert_eq!(world.op.last_process().dpop_key(), thumbprint);
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert!(authentication.is_sender_constrained());
    world.op.assert_clean();
}

#[tokio::test]
async fn without_dpop_a_pushed_request_has_no_proof() {
    let world = requiring(|client| client.dpop(DpopMode::Off)).await;
    assert_approved(&world.outcome().await);
    assert_eq!((world.pushes()[0].header("dpop"), world.pushes()[0].parameter("dpop_jkt")), (None, None));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_nonce_challenge_is_answered_once_with_a_new_proof_and_a_new_assertion() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let registered = TestClient::private_key_jwt(CLIENT_ID, &serde_json::to_string(&key.public_jwk()).unwrap());
    let world = world_with(
        |op| {
            op.client(registered.redirect_uri(REDIRECT_URI))
                .dpop_nonces(NoncePolicy::Required)
                .require_pushed_authorization_requests()
        },
        |client| client.authentication(ClientAuthentication::private_key_jwt(key)),
    )
    .await;
    assert_approved(&world.outcome().await);
    let pushes = world.pushes();
    assert_eq!(pushes.iter().map(|push| push.status).collect::<Vec<_>>(), [Some(400), Some(201)]);
    assert_eq!(pushes[0].error().as_deref(), Some("use_dpop_nonce"));
    let jti = |push: &RecordedRequest, header: bool| {
        let jwt = if header { push.header("dpop") } else { push.parameter("client_assertion") };
        claims_of(jwt.unwrap())["jti"].clone()
    };
    for header in [true, false] {
        assert_ne!(jti(&pushes[0], header), jti(&pushes[1], header));
    }
    assert_eq!(pushes[0].parameter("state"), pushes[1].parameter("state"));
    // The nonce works at the token endpoint as well.
    assert_eq!(world.exchanges().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_second_challenge_is_a_transient_error() {
    let world = requiring(|client| client).await;
    let challenge = || {
        Fault::response(Endpoint::PushedAuthorization, 400, "application/json", r#"{"error":"use_dpop_nonce"}"#)
            .header("DPoP-Nonce", "n")
    };
    world.op.misbehave(challenge().times(2));
    let error = world.pushed().await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::SecondNonceChallenge));
    assert!(error.is_transient());
    assert_eq!(world.pushes().len(), 2);
}

#[tokio::test]
async fn every_client_authentication_names_the_client_once() {
    const SECRET: &str = "a secret of at least thirty-two bytes";
    let cases = [
        (TestClient::public(CLIENT_ID), ClientAuthentication::none()),
        (TestClient::secret_basic(CLIENT_ID, SECRET), ClientAuthentication::client_secret_basic(SECRET)),
        (TestClient::secret_post(CLIENT_ID, SECRET), ClientAuthentication::client_secret_post(SECRET)),
        (TestClient::secret_jwt(CLIENT_ID, SECRET), ClientAuthentication::client_secret_jwt(SECRET)),
    ];
    for (registered, authentication) in cases {
        let world = world_with(
            |op| op.client(registered.redirect_uri(REDIRECT_URI)).require_pushed_authorization_requests(),
            |client| client.authentication(authentication),
        )
        .await;
        assert_approved(&world.outcome().await);
        let named = world.pushes()[0].parameters.iter().filter(|(name, _)| name == "client_id").count();
        assert_eq!(named, 1);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_pushed_request_has_every_parameter() {
    let world = requiring(|client| client).await;
    let details = json!([{ "type": "payment", "amount": "100 € & more" }]);
    let request = world
        .client
        .authorize()
        .response_mode(ResponseMode::FormPost)
        .resource("https://a.example/")
        .resource("https://b.example/")
        .authorization_details(details.clone())
        .parameter("tenant hint", "a=b&c");
    let (url, session) = request.start().await.unwrap();
    let form = world.op.visit(url).form();
    let process = world.op.last_process();
    assert_eq!(process.authorization_parameter("authorization_details"), Some(details.to_string()));
    assert_eq!(process.authorization_parameter("tenant hint").as_deref(), Some("a=b&c"));
    assert!(process.authorization_parameter("client_secret").is_none());
    assert!(matches!(world.client.authorization_response(&form, session).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_op_without_a_pushed_authorization_endpoint_is_a_typed_error_at_discovery() {
    let no_endpoint = ConfigurationProblem::NoEndpoint("pushed_authorization_request_endpoint");
    let clock = openid_deferred::testing::TestClock::automatic();
    let without =
        |op: TestProviderBuilder| op.metadata(|members| drop(members.remove("pushed_authorization_request_endpoint")));
    let op = without(provider(&clock)).require_pushed_authorization_requests().start().unwrap();
    let error = client_of(&op, &clock).discover().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Configuration(no_endpoint.clone()));
    let op = without(provider(&clock)).start().unwrap();
    let error = client_of(&op, &clock).pushed_authorization_requests().discover().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Configuration(no_endpoint.clone()));
    // A client that asks for it in some requests only notices in such a request.
    let client = client_of(&op, &clock).discover().await.unwrap();
    let error = client.authorize().pushed().start().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Configuration(no_endpoint));
}

#[tokio::test]
async fn an_error_of_the_op_is_an_error_with_its_code() {
    for (status, code) in [
        (400, "invalid_request"),
        (401, "invalid_client"),
        (400, "invalid_authorization_details"),
        (201, "invalid_request"),
    ] {
        let error = failure(Fault::error_with_status(Endpoint::PushedAuthorization, status, code)).await;
        let response = error.error_response().expect("the OP's error");
        assert_eq!((response.code(), response.status()), (code, Some(status)));
        assert!(!error.is_transient());
    }
    let busy = Fault::error_with_status(Endpoint::PushedAuthorization, 503, "temporarily_unavailable");
    let error = failure(busy.header("Retry-After", "7")).await;
    assert!(error.is_transient());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn an_invalid_answer_to_a_pushed_request_is_refused_with_its_rule() {
    const PAR: Endpoint = Endpoint::PushedAuthorization;
    let cases = [
        (Fault::redirect(PAR, "https://op.test/elsewhere"), Rule::UnexpectedRedirect),
        (Fault::status(PAR, 502), Rule::UnexpectedStatus),
        (Fault::response(PAR, 201, "text/html", "<html></html>"), Rule::UnexpectedContentType),
        (Fault::response(PAR, 201, "application/json", "{"), Rule::MalformedJson),
        (Fault::response(PAR, 201, "application/json", "[]"), Rule::MalformedJson),
        (Fault::response(PAR, 204, "", ""), Rule::UnexpectedStatus),
        (Fault::error(PAR, "use_dpop_nonce"), Rule::NonceMissing),
        (Fault::response(PAR, 201, "application/json", "{}"), Rule::MissingMember),
    ];
    for (fault, rule) in cases {
        let error = failure(fault).await;
        assert_eq!(error.rule(), Some(rule), "{error:?}");
    }
}

#[tokio::test]
async fn a_missing_or_invalid_request_uri_or_lifetime_is_refused() {
    let set = |name: &'static str, value: Value| {
        move |members: &mut Map<String, Value>| {
            members.insert(name.to_owned(), value.clone());
        }
    };
    let remove = |name: &'static str| move |members: &mut Map<String, Value>| drop(members.remove(name));
    assert_eq!(answered_with(remove("request_uri")).await, (Rule::MissingMember, Some("request_uri")));
    for value in [json!(""), json!(7), json!("no uri"), json!(format!("urn:x:{}", "a".repeat(5_000)))] {
        assert_eq!(answered_with(set("request_uri", value)).await, (Rule::InvalidMember, Some("request_uri")));
    }
    assert_eq!(answered_with(remove("expires_in")).await, (Rule::MissingMember, Some("expires_in")));
    for value in [json!(0), json!(-5), json!("soon"), json!(null)] {
        let (rule, member) = answered_with(set("expires_in", value)).await;
        assert!(matches!(rule, Rule::InvalidMember | Rule::MissingMember));
        assert_eq!(member, Some("expires_in"));
    }
}

#[tokio::test]
async fn a_lifetime_is_bounded_by_that_of_the_session() {
    let world = requiring(|client| client.session_lifetime(Duration::from_secs(600))).await;
    for (lifetime, expected) in [(json!(1e30), 600), (json!("90"), 90), (json!(60), 60)] {
        world.op.misbehave(Fault::edit_json(Endpoint::PushedAuthorization, move |members| {
            members.insert("expires_in".into(), lifetime.clone());
        }));
        let (_, session) = world.pushed().await.unwrap();
        let expires_at = session.url_expires_at().unwrap();
        let left = expires_at.duration_since(session.started_at()).unwrap().as_secs();
        assert!((expected - 1..=expected).contains(&left), "{left}");
        // Another instance knows the same about the URL.
        let keyring = keyring();
        let reopened = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
        assert_eq!(reopened.url_expires_at(), Some(expires_at));
    }
    let (_, session) = world_with(|op| op, |client| client).await.client.authorize().start().await.unwrap();
    assert_eq!(session.url_expires_at(), None);
}

#[tokio::test]
async fn a_request_uri_that_expired_on_the_way_is_refused() {
    let world = world_with(
        |op| op.require_pushed_authorization_requests().request_uri_lifetime(Duration::from_secs(5)),
        |client| client,
    )
    .await;
    let slow = Fault::delay(Endpoint::PushedAuthorization, Duration::from_secs(6)).after_processing();
    world.op.misbehave(slow);
    let error = world.pushed().await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::RequestUriExpired));
    assert!(error.is_transient());
    assert_approved(&world.outcome().await);
}

#[tokio::test]
async fn a_failed_push_can_be_repeated() {
    let cases = [
        (Fault::reset(Endpoint::PushedAuthorization), TransportProblem::Broken),
        (Fault::reset(Endpoint::PushedAuthorization).after_processing(), TransportProblem::Broken),
        (Fault::stall(Endpoint::PushedAuthorization), TransportProblem::Timeout),
        (
            Fault::endless_body(Endpoint::PushedAuthorization),
            TransportProblem::BodyTooLarge(Document::PushedAuthorizationResponse),
        ),
    ];
    for (fault, problem) in cases {
        let error = failure(fault).await;
        assert_eq!(*error.kind(), ErrorKind::Transport(problem));
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn an_expired_or_reused_request_uri_returns_the_ops_error() {
    let world = requiring(|client| client).await;
    let (url, session) = world.pushed().await.unwrap();
    world.clock.sleep(Duration::from_secs(61)).await;
    let query = world.op.visit(&url).query();
    let error = world.client.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_request_uri"));
    world.op.assert_clean();

    let (url, session) = world.pushed().await.unwrap();
    let _ = world.op.visit(&url);
    let query = world.op.visit(&url).query();
    let error = world.client.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_request_uri"));
    assert_eq!(world.op.violations()[0].rule, RequestRule::UnknownRequestUri);
    world.assert_no_exchange();
}

impl World {
    #[track_caller]
    fn assert_no_exchange(&self) {
        assert!(self.exchanges().is_empty());
    }
}

#[tokio::test]
async fn the_url_of_a_pushed_request_has_no_other_parameters_and_keeps_the_query_of_the_endpoint() {
    let world = world_with(
        |op| {
            op.require_pushed_authorization_requests().metadata(|members| {
                members.insert("authorization_endpoint".into(), json!("https://op.test/authorize?tenant=7"));
            })
        },
        |client| client,
    )
    .await;
    let (url, session) = world.client.authorize().login_hint("jane@example.com").start().await.unwrap();
    assert_eq!(parameters(&url, "tenant"), ["7"]);
    for hidden in ["jane", session.state().expose(), "openid", "code_challenge"] {
        assert!(!url.as_str().contains(hidden), "{hidden}");
    }
}
