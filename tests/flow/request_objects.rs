//! Signed and encrypted authorization requests (RFC 9101), in the URL and pushed.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use openid_deferred::encryption::{ClientAlgorithms, ContentEncryptionAlgorithm, Encryption, KeyManagementAlgorithm};
use openid_deferred::error::{ConfigurationProblem, Misuse, Rule};
use openid_deferred::testing::{Endpoint, NoncePolicy, RequestRule, TestClient, TestProviderBuilder};
use openid_deferred::{
    AuthorizationSession, Client, ClientAuthentication, ClientBuilder, Clock as _, Error, ErrorKind, ResponseType,
    Signer, SigningAlgorithm, SigningKey,
};
use serde_json::{Map, Value, json};
use url::Url;

use crate::steps::{claims_of, header_of, parameters};
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, assert_approved, client_of, provider, seconds, world, world_with,
};

fn signing_key(algorithm: SigningAlgorithm) -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(algorithm).expect("keys can be generated"))
}

/// The client as it is registered at the OP: with `private_key_jwt`.
fn registered(key: &SigningKey) -> TestClient {
    TestClient::private_key_jwt(CLIENT_ID, &serde_json::to_string(&key.public_jwk()).unwrap())
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("ES256")
}

/// A client that authenticates with a key of its own, and these settings of both sides.
async fn world_of(
    key: &Arc<SigningKey>,
    at_op: impl FnOnce(TestClient) -> TestClient,
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let authentication = ClientAuthentication::private_key_jwt(key.clone());
    world_with(
        |builder| op(builder.client(at_op(registered(key)))),
        |builder| client(builder.authentication(authentication)),
    )
    .await
}

/// An OP that accepts signed requests only, and says so.
async fn signing_world(client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    let key = signing_key(SigningAlgorithm::Es256);
    world_of(&key, |at_op| at_op, TestProviderBuilder::require_signed_request_object, client).await
}

async fn started(world: &World) -> (Url, AuthorizationSession) {
    world.client.authorize().start().await.unwrap()
}

fn names(url: &Url) -> Vec<String> {
    url.query_pairs().map(|(name, _)| name.into_owned()).collect()
}

/// The request object in a URL.
fn object(url: &Url) -> String {
    parameters(url, "request").pop().expect("the URL has a request object")
}

#[track_caller]
fn configuration(error: &Error) -> &ConfigurationProblem {
    match error.kind() {
        ErrorKind::Configuration(problem) => problem,
        other => panic!("{other:?}"),
    }
}

// Accepted requests.

#[tokio::test]
async fn requests_are_signed_without_a_setting_if_the_op_requires_it() {
    let world = signing_world(|client| client).await;
    let (url, session) = started(&world).await;
    assert_eq!(names(&url), ["client_id", "request"]);
    let object = object(&url);
    let header = header_of(&object);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("oauth-authz-req+jwt"), &json!("ES256")));
    let claims = claims_of(&object);
    assert_eq!(claims["iss"], CLIENT_ID);
    assert_eq!(claims["client_id"], CLIENT_ID);
    assert_eq!(claims["aud"], world.op.issuer());
    assert_eq!(claims["state"], session.state().expose());
    assert_eq!(claims["response_type"], "deferred_code");
    assert_eq!(claims["redirect_uri"], REDIRECT_URI);
    assert_eq!(claims["scope"], "openid");
    for name in ["nonce", "code_challenge", "code_challenge_method", "dpop_jkt", "jti"] {
        assert!(claims[name].is_string(), "{name}");
    }
    let now = world.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!((claims["iat"].as_u64(), claims["nbf"].as_u64()), (Some(now), Some(now)));
    assert_eq!(claims["exp"].as_u64(), Some(now + 600));
    assert!(claims.get("sub").is_none(), "with `sub` it could pass for a client assertion");
    assert_eq!(session.url_expires_at(), Some(world.clock.now() + seconds(600)));
    let query = world.op.visit(url).query();
    let _ = world.client.authorization_response(&query, session).await.unwrap();
    world.op.assert_clean();
}

#[tokio::test]
async fn signed_requests_sign_a_user_in_with_every_algorithm_that_the_op_has() {
    use SigningAlgorithm as A;
    for algorithm in [A::Es256, A::Es384, A::EdDsa, A::Ps256, A::Rs256] {
        let key = signing_key(algorithm);
        let world = world_of(&key, |at_op| at_op, |op| op, ClientBuilder::require_signed_request_object).await;
        assert_approved(&world.outcome().await);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_single_request_can_be_signed_and_others_are_not() {
    let key = signing_key(SigningAlgorithm::Es256);
    let world = world_of(&key, |at_op| at_op, |op| op, |client| client).await;
    let (url, _) = started(&world).await;
    assert!(parameters(&url, "request").is_empty());
    let (url, _) = world.client.authorize().signed().start().await.unwrap();
    assert_eq!(names(&url), ["client_id", "request"]);
    let _ = world.op.visit(url);
    world.op.assert_clean();
}

#[tokio::test]
async fn no_two_request_objects_share_their_jti() {
    let world = signing_world(|client| client).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let (url, _) = started(&world).await;
        assert!(seen.insert(claims_of(&object(&url))["jti"].to_string()));
        let _ = world.op.visit(url);
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_pushed_request_can_be_signed_and_has_nothing_beside_the_request_object() {
    let world = signing_world(ClientBuilder::pushed_authorization_requests).await;
    let (url, session) = started(&world).await;
    assert_eq!(names(&url), ["client_id", "request_uri"]);
    let pushed = &world.op.requests_to(Endpoint::PushedAuthorization)[0];
    let names: Vec<_> = pushed.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["client_id", "request", "client_assertion_type", "client_assertion"]);
    assert!(pushed.header("dpop").is_some(), "the key of the process proves itself here too");
    assert_eq!(session.url_expires_at(), Some(world.clock.now() + seconds(60)), "the reference expires first");
    let query = world.op.visit(url).query();
    let signed_in = world.client.authorization_response(&query, session).await.unwrap();
    let openid_deferred::SignIn::Deferred(mut pending) = signed_in else { panic!("{signed_in:?}") };
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_nonce_challenge_is_answered_with_the_same_request_object() {
    let key = signing_key(SigningAlgorithm::Es256);
    let nonces = |op: TestProviderBuilder| op.require_signed_request_object().dpop_nonces(NoncePolicy::Required);
    let world = world_of(&key, |at_op| at_op, nonces, ClientBuilder::pushed_authorization_requests).await;
    assert_approved(&world.outcome().await);
    let pushes = world.op.requests_to(Endpoint::PushedAuthorization);
    assert_eq!(pushes.iter().map(|push| push.status).collect::<Vec<_>>(), [Some(400), Some(201)]);
    // The OP did not look at it the first time, and the signer need not be asked twice.
    assert_eq!(pushes[0].parameter("request"), pushes[1].parameter("request"));
    assert_ne!(pushes[0].parameter("client_assertion"), pushes[1].parameter("client_assertion"));
    world.op.assert_clean();
}

#[tokio::test]
async fn every_parameter_is_in_the_request_object() {
    let world = signing_world(|client| client.response_type(ResponseType::DeferredCodeOrCode)).await;
    let claims = json!({ "id_token": { "acr": { "essential": true, "values": ["loa3"] } } });
    let details = json!([{ "type": "account", "actions": ["read"] }]);
    let request = world
        .client
        .authorize()
        .max_age(seconds(600))
        .claims(claims.clone())
        .authorization_details(details.clone())
        .resource("https://one.example")
        .resource("https://two.example")
        .prompt(["login"])
        .login_hint("jane")
        .parameter("purpose", "a \"boat\"");
    let (url, _) = request.start().await.unwrap();
    let sent = claims_of(&object(&url));
    assert_eq!(sent["response_mode"], "query");
    assert_eq!(sent["max_age"], 600);
    assert_eq!((&sent["claims"], &sent["authorization_details"]), (&claims, &details));
    assert_eq!(sent["resource"], json!(["https://one.example", "https://two.example"]));
    assert_eq!((&sent["prompt"], &sent["login_hint"]), (&json!("login"), &json!("jane")));
    assert_eq!(sent["purpose"], "a \"boat\"");
    let back = world.op.visit(url);
    assert!(back.parameter("deferred_code").is_some(), "{:?}", back.parameters());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_client_with_a_secret_signs_requests_with_a_separate_published_key() {
    let key = signing_key(SigningAlgorithm::Ps256);
    let at_op = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("ES256")
        .jwks(&json!({ "keys": [key.public_jwk()] }))
        .require_signed_request_object();
    let world = world_with(
        |op| op.client(at_op),
        |client| client.require_signed_request_object().request_object_signing_key(key.clone()),
    )
    .await;
    assert_approved(&world.outcome().await);
    let published = world.client.jwks();
    assert_eq!(published["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!((&published["keys"][0]["use"], &published["keys"][0]["alg"]), (&json!("sig"), &json!("PS256")));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_request_is_encrypted_with_every_combination_of_algorithms() {
    use ContentEncryptionAlgorithm as Enc;
    use KeyManagementAlgorithm as Alg;
    let key = signing_key(SigningAlgorithm::Es256);
    let encs = [Enc::A128Gcm, Enc::A192Gcm, Enc::A256Gcm, Enc::A128CbcHs256, Enc::A192CbcHs384, Enc::A256CbcHs512];
    for alg in [Alg::RsaOaep, Alg::RsaOaep256, Alg::EcdhEs, Alg::EcdhEsA128Kw, Alg::EcdhEsA192Kw, Alg::EcdhEsA256Kw] {
        for enc in encs {
            let world = world_of(
                &key,
                |at_op| at_op.encrypted_request_object(alg.as_str(), enc.as_str()),
                |op| op,
                |client| {
                    client.algorithms(
                        ClientAlgorithms::new().request_object_encryption(Encryption::new(alg).content(enc)),
                    )
                },
            )
            .await;
            let (url, session) = started(&world).await;
            let object = object(&url);
            assert_eq!(object.matches('.').count(), 4, "{alg:?} {enc:?}");
            assert!(!url.as_str().contains(session.state().expose()));
            let query = world.op.visit(url).query();
            let _ = world.client.authorization_response(&query, session).await.unwrap();
            world.op.assert_clean();
        }
    }
}

#[tokio::test]
async fn an_encrypted_request_can_be_pushed_and_has_the_registrations_default_content_encryption() {
    let key = signing_key(SigningAlgorithm::Es256);
    let world = world_of(
        &key,
        |at_op| at_op.encrypted_request_object("ECDH-ES+A128KW", "A128CBC-HS256"),
        |op| op,
        |client| {
            client
                .algorithms(ClientAlgorithms::new().request_object_encryption(KeyManagementAlgorithm::EcdhEsA128Kw))
                .pushed_authorization_requests()
        },
    )
    .await;
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

/// A key service that counts what it signs.
#[derive(Debug)]
struct KeyService(SigningKey, std::sync::atomic::AtomicUsize);

impl Signer for KeyService {
    fn algorithm(&self) -> SigningAlgorithm {
        self.0.algorithm()
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.sign(message).await
        })
    }
}

#[tokio::test]
async fn an_external_signer_signs_requests() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let at_op = registered(&key);
    let service = Arc::new(KeyService(key, 0.into()));
    let authentication = ClientAuthentication::private_key_jwt(service.clone());
    let world = world_with(
        |op| op.client(at_op),
        |client| client.authentication(authentication).require_signed_request_object(),
    )
    .await;
    let (url, _) = started(&world).await;
    assert_eq!(service.1.load(std::sync::atomic::Ordering::Relaxed), 1);
    let _ = world.op.visit(url);
    world.op.assert_clean();
}

// Errors.

/// A key service that does not answer, or that refuses.
#[derive(Debug)]
struct Broken {
    hangs: bool,
}

impl Signer for Broken {
    fn algorithm(&self) -> SigningAlgorithm {
        SigningAlgorithm::Es256
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    fn sign<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        Box::pin(async move {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            Err(Error::signer("the service said no"))
        })
    }
}

#[tokio::test]
async fn a_signer_that_fails_or_never_answers_is_a_transient_error() {
    for hangs in [true, false] {
        let world = world_with(
            |op| op,
            |client| client.request_object_signing_key(Broken { hangs }).require_signed_request_object(),
        )
        .await;
        let error = world.client.authorize().start().await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Signer, "{error}");
        assert!(error.is_transient());
        assert!(world.op.requests_to(Endpoint::PushedAuthorization).is_empty());
    }
}

#[tokio::test]
async fn signed_requests_without_a_key_are_refused_before_the_user_is_redirected() {
    let builder = |client: ClientBuilder| client.build().unwrap_err();
    let base = || Client::builder("https://op.test", CLIENT_ID).redirect_uri(REDIRECT_URI);
    for error in [
        builder(base().require_signed_request_object()),
        builder(base().client_secret(CLIENT_SECRET).require_signed_request_object()),
        builder(base().algorithms(ClientAlgorithms::new().request_object_encryption(KeyManagementAlgorithm::EcdhEs))),
    ] {
        let expected = "require_signed_request_object";
        assert!(
            matches!(configuration(&error), ConfigurationProblem::Setting { setting, .. } if *setting == expected),
            "{error}"
        );
    }

    // The OP requires them, which only its metadata says.
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = provider(&clock).require_signed_request_object().start().unwrap();
    let error = client_of(&op, &clock).discover().await.unwrap_err();
    assert!(matches!(
        configuration(&error),
        ConfigurationProblem::Setting { setting: "request_object_signing_key", .. }
    ));
}

/// The error of discovery at an OP with this metadata.
async fn discovered(
    edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, Error> {
    let key = signing_key(SigningAlgorithm::Es256);
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = provider(&clock).client(registered(&key)).metadata(edit).start().unwrap();
    let client = client(client_of(&op, &clock).authentication(ClientAuthentication::private_key_jwt(key)));
    client.require_signed_request_object().discover().await
}

#[tokio::test]
async fn an_op_that_does_not_support_the_signed_request_is_refused_at_discovery() {
    let unlisted = |edit: fn(&mut Map<String, Value>)| async move {
        match discovered(edit, |client| client).await.unwrap_err().kind() {
            ErrorKind::Configuration(ConfigurationProblem::NotAdvertised { member, value }) => (*member, value.clone()),
            other => panic!("{other:?}"),
        }
    };
    let algorithm = unlisted(|metadata| {
        metadata.insert("request_object_signing_alg_values_supported".into(), json!(["RS256", "none"]));
    });
    assert_eq!(algorithm.await, ("request_object_signing_alg_values_supported", "ES256".to_owned()));
    let parameter = unlisted(|metadata| {
        metadata.insert("request_parameter_supported".into(), json!(false));
    });
    assert_eq!(parameter.await, ("request_parameter_supported", "true".to_owned()));
    let silent = unlisted(|metadata| {
        metadata.shift_remove("request_parameter_supported");
        metadata.shift_remove("request_object_signing_alg_values_supported");
    });
    assert_eq!(silent.await, ("request_parameter_supported", "true".to_owned()));
}

#[tokio::test]
async fn an_op_that_lists_algorithms_or_supports_pushed_requests_need_not_list_the_request_parameter() {
    let unlisted = |metadata: &mut Map<String, Value>| drop(metadata.shift_remove("request_parameter_supported"));
    discovered(unlisted, |client| client).await.unwrap();
    let refused = |metadata: &mut Map<String, Value>| {
        metadata.insert("request_parameter_supported".into(), json!(false));
    };
    discovered(refused, ClientBuilder::pushed_authorization_requests).await.unwrap();
    discovered(refused, ClientBuilder::allow_unadvertised).await.unwrap();
}

#[tokio::test]
async fn metadata_with_a_malformed_boolean_requirement_is_refused() {
    for (member, value) in
        [("require_signed_request_object", json!("yes")), ("require_pushed_authorization_requests", json!(1))]
    {
        let edit = move |metadata: &mut Map<String, Value>| drop(metadata.insert(member.to_owned(), value.clone()));
        assert_eq!(discovered(edit, |client| client).await.unwrap_err().rule(), Some(Rule::InvalidMember), "{member}");
    }
}

#[tokio::test]
async fn an_op_without_a_key_for_encryption_is_refused_at_discovery() {
    let encrypting = |client: ClientBuilder| {
        client.algorithms(ClientAlgorithms::new().request_object_encryption(KeyManagementAlgorithm::RsaOaep256))
    };
    let error = discovered(|_| {}, encrypting).await.unwrap_err();
    assert_eq!(configuration(&error), &ConfigurationProblem::NoEncryptionKey("RSA-OAEP-256"));
    let unlisted = |metadata: &mut Map<String, Value>| {
        metadata.insert("request_object_encryption_alg_values_supported".into(), json!(["ECDH-ES"]));
    };
    let error = discovered(unlisted, encrypting).await.unwrap_err();
    let value = "RSA-OAEP-256".to_owned();
    let member = "request_object_encryption_alg_values_supported";
    assert_eq!(configuration(&error), &ConfigurationProblem::NotAdvertised { member, value });
}

#[tokio::test]
async fn a_signed_request_that_is_too_long_for_a_url_has_to_be_pushed() {
    let world = signing_world(|client| client).await;
    let long = "x".repeat(8_000);
    let error = world.client.authorize().login_hint(&long).start().await.unwrap_err();
    let ErrorKind::Misuse(Misuse::RequestTooLong { actual, limit: 8_000 }) = error.kind() else { panic!("{error}") };
    assert!(*actual > 8_000 && error.to_string().contains("push"), "{error}");
    let (url, _) = world.client.authorize().login_hint(&long).pushed().start().await.unwrap();
    assert_eq!(names(&url), ["client_id", "request_uri"]);
    let _ = world.op.visit(url);
    world.op.assert_clean();
}

#[tokio::test]
async fn parameters_named_like_jwt_claims_are_refused_in_a_signed_request() {
    let world = signing_world(|client| client).await;
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"] {
        let error = world.client.authorize().parameter(name, "x").start().await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Misuse(Misuse::ReservedParameter(name.to_owned())));
    }
}

#[tokio::test]
async fn the_op_refuses_an_unsigned_request_of_a_client_registered_for_signed_requests() {
    let key = signing_key(SigningAlgorithm::Es256);
    let world = world_of(&key, TestClient::require_signed_request_object, |op| op, |client| client).await;
    let error = world.sign_in().await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_request"));
    assert_eq!(world.op.violations()[0].rule, RequestRule::NotSigned);
}

#[tokio::test]
async fn the_op_refuses_a_pushed_request_signed_by_an_unknown_key() {
    let key = signing_key(SigningAlgorithm::Es256);
    let other = signing_key(SigningAlgorithm::Es256);
    let world = world_of(
        &key,
        |at_op| at_op,
        |op| op,
        |client| {
            client.require_signed_request_object().pushed_authorization_requests().request_object_signing_key(other)
        },
    )
    .await;
    let error = world.client.authorize().start().await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_request_object"));
    assert_eq!(world.op.violations()[0].rule, RequestRule::RequestObjectInvalid);
}

#[tokio::test]
async fn requests_are_not_signed_with_an_hmac() {
    #[derive(Debug)]
    struct Hmac;
    impl Signer for Hmac {
        fn algorithm(&self) -> SigningAlgorithm {
            SigningAlgorithm::Hs256
        }
        fn key_id(&self) -> Option<&str> {
            None
        }
        fn sign<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
            Box::pin(async { Ok(vec![0; 32]) })
        }
    }
    let client = Client::builder("https://op.test", CLIENT_ID).request_object_signing_key(Hmac);
    let error = client.require_signed_request_object().build().unwrap_err();
    assert!(matches!(
        configuration(&error),
        ConfigurationProblem::Setting { setting: "request_object_signing_key", .. }
    ));
}

#[tokio::test]
async fn the_ops_keys_are_fetched_again_if_the_encryption_key_is_missing() {
    use openid_deferred::testing::Fault;
    let key = signing_key(SigningAlgorithm::Es256);
    let clock = openid_deferred::testing::TestClock::automatic();
    let at_op = registered(&key).encrypted_request_object("ECDH-ES", "A256GCM");
    let op = provider(&clock).client(at_op).start().unwrap();
    op.misbehave(Fault::edit_json(Endpoint::Keys, |members| {
        let keys = members["keys"].as_array_mut().unwrap();
        keys.retain(|key| key["use"] != "enc");
    }));
    let client = client_of(&op, &clock)
        .authentication(ClientAuthentication::private_key_jwt(key))
        .algorithms(ClientAlgorithms::new().request_object_encryption(
            Encryption::new(KeyManagementAlgorithm::EcdhEs).content(ContentEncryptionAlgorithm::A256Gcm),
        ))
        .discover()
        .await
        .unwrap();
    assert_eq!(op.requests_to(Endpoint::Keys).len(), 2);
    let (url, _) = client.authorize().start().await.unwrap();
    let _ = op.visit(url);
    op.assert_clean();
}

#[tokio::test]
async fn requests_are_not_signed_by_default() {
    let world = world().await;
    let (url, session) = started(&world).await;
    assert!(parameters(&url, "request").is_empty());
    assert_eq!(session.url_expires_at(), None);
}
