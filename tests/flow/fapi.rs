//! The rules of FAPI 2.0 for clients, applied to this flow: what they turn on and what they forbid.

use std::sync::Arc;

use openid_deferred::compatibility::AssertionAudience;
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::{ConfigurationProblem, Rule};
use openid_deferred::testing::{
    Endpoint, Fault, RequestRule, TestClient, TestClock, TestProvider, TestProviderBuilder,
};
use openid_deferred::transport::ClientCertificate;
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, DpopMode, Error, ErrorKind, Outcome, ResponseMode, SigningAlgorithm,
    SigningKey,
};
use serde_json::{Map, Value, json};

use crate::steps::claims_of;
use crate::support::{CLIENT_ID, REDIRECT_URI, World, assert_approved, client_of, provider, world_with};

fn key(algorithm: SigningAlgorithm) -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(algorithm).expect("keys can be generated"))
}

fn registered(key: &SigningKey) -> TestClient {
    TestClient::private_key_jwt(CLIENT_ID, &serde_json::to_string(&key.public_jwk()).unwrap())
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("PS256")
}

/// An OP under the FAPI 2.0 rules, and a client that says so too.
async fn fapi_world(
    algorithm: SigningAlgorithm,
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let key = key(algorithm);
    let at_op = registered(&key);
    let authentication = ClientAuthentication::private_key_jwt(key);
    world_with(|builder| op(builder.client(at_op).fapi2()), |builder| client(builder.authentication(authentication)))
        .await
}

/// A client without an OP.
fn base() -> ClientBuilder {
    Client::builder("https://op.test", CLIENT_ID).redirect_uri(REDIRECT_URI)
}

fn with_key(algorithm: SigningAlgorithm) -> ClientBuilder {
    base().authentication(ClientAuthentication::private_key_jwt(key(algorithm)))
}

/// The setting that the rules forbid.
#[track_caller]
fn forbidden(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Configuration(ConfigurationProblem::Fapi { setting, .. }) => setting,
        other => panic!("{other:?}"),
    }
}

// Accepted settings.

#[tokio::test]
async fn a_client_under_the_security_profile_pushes_and_binds_without_further_settings() {
    for algorithm in [SigningAlgorithm::Ps256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa] {
        let world = fapi_world(algorithm, |op| op, ClientBuilder::fapi2).await;
        let pending = &mut world.pending().await;
        let Outcome::Approved(authentication) = world.wait(pending).await else { panic!("not approved") };
        assert!(authentication.is_sender_constrained());
        let pushed = &world.op.requests_to(Endpoint::PushedAuthorization)[0];
        assert_eq!(pushed.parameter("code_challenge_method"), Some("S256"));
        assert_eq!(claims_of(pushed.parameter("client_assertion").unwrap())["aud"], world.op.issuer());
        assert_eq!(authentication.id_token().algorithm(), SigningAlgorithm::Ps256);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn under_message_signing_the_request_is_signed_and_the_response_is_a_jwt() {
    let world = fapi_world(
        SigningAlgorithm::Ps256,
        TestProviderBuilder::require_signed_request_object,
        ClientBuilder::fapi2_message_signing,
    )
    .await;
    let (url, session) = world.client.authorize().scopes(["profile"]).start().await.unwrap();
    let pushed = &world.op.requests_to(Endpoint::PushedAuthorization)[0];
    let asked = claims_of(pushed.parameter("request").unwrap());
    assert_eq!((&asked["response_mode"], &asked["scope"]), (&json!("query.jwt"), &json!("openid profile")));
    assert_eq!(pushed.parameter("scope"), None);
    let back = world.op.visit(url);
    assert!(back.parameter("response").is_some());
    let signed_in = world.client.authorization_response(&back.query(), session).await.unwrap();
    let openid_deferred::SignIn::Deferred(mut pending) = signed_in else { panic!("{signed_in:?}") };
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn message_signing_works_if_the_op_lists_only_the_shorthand_response_mode() {
    let shorthand = |metadata: &mut Map<String, Value>| {
        metadata.insert("response_modes_supported".into(), json!(["jwt"]));
    };
    let world = fapi_world(
        SigningAlgorithm::Ps256,
        |op| op.require_signed_request_object().metadata(shorthand),
        ClientBuilder::fapi2_message_signing,
    )
    .await;
    let (url, session) = world.client.authorize().start().await.unwrap();
    let pushed = &world.op.requests_to(Endpoint::PushedAuthorization)[0];
    assert_eq!(claims_of(pushed.parameter("request").unwrap())["response_mode"], json!("jwt"));
    let back = world.op.visit(url);
    assert!(back.parameter("response").is_some());
    assert!(world.client.authorization_response(&back.query(), session).await.is_ok());
    world.op.assert_clean();
}

#[tokio::test]
async fn message_signing_works_with_form_post_and_with_a_separate_signing_key() {
    let clock = TestClock::automatic();
    let key = key(SigningAlgorithm::Es256);
    let op = provider(&clock).client(registered(&key)).fapi2().require_signed_request_object().start().unwrap();
    let client = unauthenticated(&op, &clock)
        .signing_key(key)
        .fapi2_message_signing()
        .response_mode(ResponseMode::FormPostJwt)
        .discover()
        .await
        .unwrap();
    assert_eq!(client.authentication_method(), Some("private_key_jwt"));
    let (url, session) = client.authorize().start().await.unwrap();
    let body = op.visit(url).form();
    assert!(client.authorization_response(&body, session).await.is_ok());
    op.assert_clean();
}

fn unauthenticated(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    Client::builder(op.issuer(), CLIENT_ID)
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
}

#[tokio::test]
async fn a_certificate_may_authenticate_the_client_and_bind_its_tokens() {
    let clock = TestClock::automatic();
    let at_op = TestClient::tls_client_auth(CLIENT_ID, "client.rp.test")
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("ES256")
        .certificate_bound_access_tokens();
    let op = provider(&clock).mutual_tls().client(at_op).fapi2().start().unwrap();
    let files = op.client_certificate("client.rp.test");
    let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap();
    let client = unauthenticated(&op, &clock)
        .client_certificate(certificate)
        .certificate_bound_access_tokens()
        .fapi2()
        .discover()
        .await
        .unwrap();
    let world = World { op, clock, client };
    let Outcome::Approved(authentication) = world.outcome().await else { panic!("not approved") };
    assert!(authentication.is_sender_constrained());
    world.op.assert_clean();
}

#[tokio::test]
async fn unbound_tokens_are_revoked() {
    let world = fapi_world(SigningAlgorithm::Es256, |op| op, ClientBuilder::fapi2).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, |members| {
        members.insert("token_type".into(), "Bearer".into());
    }));
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert!(authentication.access_token().is_none());
    assert!(!world.op.requests_to(Endpoint::Revocation).is_empty());
}

// Forbidden settings.

#[test]
fn settings_that_contradict_the_profile_are_refused_when_the_client_is_built() {
    use SigningAlgorithm as A;
    let good = || with_key(A::Es256);
    for (builder, setting) in [
        (good().without_pkce(), "without_pkce"),
        (good().dpop(DpopMode::Off), "dpop"),
        (good().assertion_audience(AssertionAudience::TokenEndpoint), "assertion_audience"),
        (good().allow_insecure_loopback(), "allow_insecure_loopback"),
        (good().redirect_uri("http://rp.test/callback"), "redirect_uri"),
        (base(), "authentication"),
        (base().authentication(ClientAuthentication::none()), "authentication"),
        (base().authentication(ClientAuthentication::client_secret_basic("x")), "authentication"),
        (base().authentication(ClientAuthentication::client_secret_post("x")), "authentication"),
        (base().authentication(ClientAuthentication::client_secret_jwt("x".repeat(32))), "authentication"),
        (base().client_secret("x"), "client_secret"),
        (base().client_secret("x").signing_key(key(A::Es256)), "client_secret"),
        (with_key(A::Rs256), "authentication"),
        (with_key(A::Es384), "authentication"),
        (base().signing_key(key(A::Es512)), "signing_key"),
        (good().request_object_signing_key(key(A::Rs256)), "request_object_signing_key"),
        (
            good().algorithms(ClientAlgorithms::new().id_token_signed_response_alg(A::Rs256)),
            "id_token_signed_response_alg",
        ),
        (
            good().algorithms(ClientAlgorithms::new().userinfo_signed_response_alg(A::Ps512)),
            "userinfo_signed_response_alg",
        ),
        (
            good().algorithms(ClientAlgorithms::new().authorization_signed_response_alg(A::Hs256)),
            "authorization_signed_response_alg",
        ),
    ] {
        assert!(builder.fapi2().build().is_err_and(|error| forbidden(&error) == setting), "{setting}");
    }
    for mode in [ResponseMode::Query, ResponseMode::FormPost] {
        assert!(good().response_mode(mode).fapi2().build().is_ok());
        let error = good().response_mode(mode).fapi2_message_signing().build().unwrap_err();
        assert_eq!(forbidden(&error), "response_mode");
    }
}

#[test]
fn the_order_of_the_settings_does_not_matter() {
    assert_eq!(
        forbidden(&with_key(SigningAlgorithm::Es256).fapi2().without_pkce().build().unwrap_err()),
        "without_pkce"
    );
    let signing = with_key(SigningAlgorithm::Es256).fapi2_message_signing().fapi2();
    let error = signing.response_mode(ResponseMode::Query).build().unwrap_err();
    assert_eq!(forbidden(&error), "response_mode", "the stricter of the two stays");
}

#[test]
fn a_certificate_signs_no_request_so_message_signing_needs_a_key() {
    let files = rcgen::generate_simple_self_signed(["client.rp.test".to_owned()]).unwrap();
    let certificate = ClientCertificate::from_pem(files.cert.pem(), files.signing_key.serialize_pem()).unwrap();
    let client = || base().client_certificate(certificate.clone());
    assert!(client().fapi2().build().is_ok());
    let error = client().fapi2_message_signing().build().unwrap_err();
    let expected = "require_signed_request_object";
    assert!(
        matches!(error.kind(), ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) if *setting == expected),
        "{error}"
    );
    let key = key(SigningAlgorithm::Es256);
    assert!(client().request_object_signing_key(key).fapi2_message_signing().build().is_ok());
}

#[tokio::test]
async fn a_single_request_cannot_override_the_profile() {
    let world = fapi_world(
        SigningAlgorithm::Es256,
        TestProviderBuilder::require_signed_request_object,
        ClientBuilder::fapi2_message_signing,
    )
    .await;
    let error = world.client.authorize().response_mode(ResponseMode::Query).start().await.unwrap_err();
    assert_eq!(forbidden(&error), "response_mode");
    let error = world.client.authorize().redirect_uri("http://rp.test/other").start().await.unwrap_err();
    assert_eq!(forbidden(&error), "redirect_uri");
    assert!(world.op.requests_to(Endpoint::PushedAuthorization).is_empty());
}

/// The error of a client under the rules at an OP with this metadata.
async fn discovered(
    edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, Error> {
    let key = key(SigningAlgorithm::Es256);
    let clock = TestClock::automatic();
    let op = provider(&clock).client(registered(&key)).fapi2().metadata(edit).start().unwrap();
    let client = client(client_of(&op, &clock).authentication(ClientAuthentication::private_key_jwt(key)));
    client.discover().await
}

#[tokio::test]
async fn an_op_that_does_not_support_the_profile_is_refused_at_discovery() {
    let without = |member: &'static str| async move {
        let edit = move |metadata: &mut Map<String, Value>| drop(metadata.shift_remove(member));
        // Even a client that accepts an OP which does not advertise the flow cannot bypass this.
        let error = discovered(edit, |client| client.fapi2().allow_unadvertised()).await.unwrap_err();
        match error.kind() {
            ErrorKind::Configuration(ConfigurationProblem::FapiNotAdvertised { member, .. }) => *member,
            ErrorKind::Configuration(ConfigurationProblem::NoEndpoint(member)) => *member,
            other => panic!("{other:?}"),
        }
    };
    for member in [
        "authorization_response_iss_parameter_supported",
        "code_challenge_methods_supported",
        "dpop_signing_alg_values_supported",
        "id_token_signing_alg_values_supported",
        "pushed_authorization_request_endpoint",
    ] {
        assert_eq!(without(member).await, member);
    }
}

#[tokio::test]
async fn an_op_that_signs_responses_need_not_support_the_iss_parameter() {
    let edit = |metadata: &mut Map<String, Value>| {
        metadata.shift_remove("authorization_response_iss_parameter_supported");
    };
    discovered(edit, ClientBuilder::fapi2_message_signing).await.unwrap();
    let plain = |metadata: &mut Map<String, Value>| {
        metadata.insert("response_modes_supported".into(), json!(["query"]));
    };
    let error = discovered(plain, ClientBuilder::fapi2_message_signing).await.unwrap_err();
    let ErrorKind::Configuration(ConfigurationProblem::NotAdvertised { member, .. }) = error.kind() else {
        panic!("{error}")
    };
    assert_eq!(*member, "response_modes_supported");
}

#[tokio::test]
async fn a_client_built_while_the_op_was_unreachable_checks_it_before_the_user_is_redirected() {
    let key = key(SigningAlgorithm::Es256);
    let clock = TestClock::automatic();
    let op = provider(&clock).client(registered(&key)).without_iss().start().unwrap();
    let client = client_of(&op, &clock).authentication(ClientAuthentication::private_key_jwt(key));
    let error = client.fapi2().build().unwrap().authorize().start().await.unwrap_err();
    let ErrorKind::Configuration(ConfigurationProblem::FapiNotAdvertised { member, .. }) = error.kind() else {
        panic!("{error}")
    };
    assert_eq!(*member, "authorization_response_iss_parameter_supported");
}

#[tokio::test]
async fn a_response_without_iss_is_refused() {
    let world = fapi_world(SigningAlgorithm::Es256, |op| op, ClientBuilder::fapi2).await;
    world.op.misbehave(Fault::authorization_response(|parameters| parameters.retain(|(name, _)| name != "iss")));
    assert_eq!(world.sign_in().await.unwrap_err().rule(), Some(Rule::IssMissing));
}

#[tokio::test]
async fn an_id_token_with_an_algorithm_outside_the_profile_is_refused_although_the_op_lists_it() {
    let key = key(SigningAlgorithm::Es256);
    let at_op = registered(&key).signing_algorithm("RS256");
    let authentication = ClientAuthentication::private_key_jwt(key);
    let world = world_with(
        |op| {
            op.client(at_op).fapi2().metadata(|metadata| {
                metadata.insert("id_token_signing_alg_values_supported".into(), json!(["RS256", "PS256"]));
            })
        },
        |client| client.authentication(authentication).fapi2(),
    )
    .await;
    assert_eq!(crate::support::broken_rule(&world.outcome().await), Some(Rule::IdTokenAlgorithm));
}

#[tokio::test]
async fn the_test_provider_refuses_clients_that_violate_the_profile() {
    // Without `fapi2` in the client's settings nothing is turned on.
    let clock = TestClock::automatic();
    let op = provider(&clock).fapi2().start().unwrap();
    let client = client_of(&op, &clock).allow_unadvertised().build().unwrap();
    let error = client.authorize().start().await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_client"));
    assert_eq!(op.violations()[0].rule, RequestRule::FapiAuthentication);

    let key = key(SigningAlgorithm::Rs256);
    let op = provider(&clock).client(registered(&key)).fapi2().start().unwrap();
    let authentication = ClientAuthentication::private_key_jwt(key);
    let client = client_of(&op, &clock).authentication(authentication).allow_unadvertised().build().unwrap();
    client.authorize().start().await.unwrap_err();
    assert_eq!(op.violations()[0].rule, RequestRule::FapiAlgorithm);

    let world = fapi_world(SigningAlgorithm::Es256, |op| op, |client| client.dpop(DpopMode::Off)).await;
    world.sign_in().await.unwrap_err();
    assert_eq!(world.op.violations()[0].rule, RequestRule::DpopMissing);
}
