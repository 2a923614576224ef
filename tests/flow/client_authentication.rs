//! The method that authenticates the client: named and listed, or chosen from those that the OP lists.

use std::sync::Arc;

use openid_deferred::compatibility::PollCredential;
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::testing::{Endpoint, RequestRule, TestClient, TestClock, TestProvider, TestProviderBuilder};
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, DpopMode, Error, ErrorKind, Outcome, SignIn, SigningAlgorithm,
    SigningKey,
};
use serde_json::{Value, json};

use crate::steps::claims_of;
use crate::support::{CLIENT_ID, REDIRECT_URI, World, client_of, provider};

/// Long enough for every HMAC.
const SECRET: &str = "a client secret of sixty-four bytes, which is enough for HS512 !";

const METHODS: &str = "token_endpoint_auth_methods_supported";
const ALGORITHMS: &str = "token_endpoint_auth_signing_alg_values_supported";

/// A provider with one client that lists these methods and algorithms. For an empty list it lists none at all.
fn op_listing(
    registered: TestClient,
    methods: &'static [&'static str],
    algorithms: &'static [&'static str],
) -> (TestProvider, TestClock) {
    op_with(registered, move |op| {
        op.metadata(move |members| {
            for (name, values) in [(METHODS, methods), (ALGORITHMS, algorithms)] {
                match values {
                    [] => drop(members.remove(name)),
                    values => drop(members.insert(name.into(), json!(values))),
                }
            }
        })
    })
}

fn op_with(
    registered: TestClient,
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
) -> (TestProvider, TestClock) {
    let clock = TestClock::automatic();
    let op = op(provider(&clock)).client(registered.redirect_uri(REDIRECT_URI)).start().unwrap();
    (op, clock)
}

fn bare(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    Client::builder(op.issuer(), CLIENT_ID)
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
}

fn key() -> (SigningKey, TestClient) {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let registered = TestClient::private_key_jwt(CLIENT_ID, &serde_json::to_string(&key.public_jwk()).unwrap());
    (key, registered)
}

#[track_caller]
fn problem(result: Result<Client, Error>) -> ConfigurationProblem {
    match result.unwrap_err().kind() {
        ErrorKind::Configuration(problem) => problem.clone(),
        other => panic!("{other:?}"),
    }
}

fn unlisted(member: &'static str, value: &str) -> ConfigurationProblem {
    ConfigurationProblem::NotAdvertised { member, value: value.to_owned() }
}

#[track_caller]
fn assert_setting(problem: &ConfigurationProblem, expected: &str) {
    assert!(matches!(problem, ConfigurationProblem::Setting { setting, .. } if *setting == expected), "{problem:?}");
}

async fn signs_in(op: TestProvider, clock: TestClock, client: Client) -> World {
    let world = World { op, clock, client };
    assert!(matches!(world.outcome().await, Outcome::Approved(_)));
    world.op.assert_clean();
    world
}

fn assertion_header(world: &World) -> Value {
    let assertion = world.exchanges()[0].parameter("client_assertion").expect("an assertion was sent").to_owned();
    let header = assertion.split('.').next().unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn client_secret_jwt_signs_with_the_first_hmac_that_the_op_lists() {
    let cases: [(&[&str], &str); 4] = [
        (&[], "HS256"),
        (&["RS256", "HS512", "HS256"], "HS256"),
        (&["HS512", "HS384"], "HS384"),
        (&["HS512"], "HS512"),
    ];
    for (listed, expected) in cases {
        let (op, clock) = op_listing(TestClient::secret_jwt(CLIENT_ID, SECRET), &["client_secret_jwt"], listed);
        let named = ClientAuthentication::client_secret_jwt(SECRET);
        let client = bare(&op, &clock).authentication(named).discover().await.unwrap();
        let world = signs_in(op, clock, client).await;
        assert_eq!(assertion_header(&world), json!({ "alg": expected }));
    }
}

#[tokio::test]
async fn client_secret_jwt_does_not_send_the_secret() {
    let (op, clock) = op_with(TestClient::secret_jwt(CLIENT_ID, SECRET), |op| op);
    let named = ClientAuthentication::client_secret_jwt(SECRET);
    let client = bare(&op, &clock).authentication(named).discover().await.unwrap();
    let world = signs_in(op, clock, client).await;
    let exchange = &world.exchanges()[0];
    let claims = claims_of(exchange.parameter("client_assertion").unwrap());
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(CLIENT_ID), &json!(CLIENT_ID)));
    assert_eq!(claims["aud"], json!(world.op.issuer()));
    assert_eq!((exchange.parameter("client_secret"), exchange.header("authorization")), (None, None));
}

#[tokio::test]
async fn the_algorithm_of_client_secret_jwt_can_be_the_registered_one() {
    let (op, clock) = op_with(TestClient::secret_jwt(CLIENT_ID, SECRET), |op| op);
    let named = ClientAuthentication::client_secret_jwt_with(SECRET, SigningAlgorithm::Hs384);
    let client = bare(&op, &clock).authentication(named).discover().await.unwrap();
    let world = signs_in(op, clock, client).await;
    assert_eq!(assertion_header(&world)["alg"], "HS384");
}

#[tokio::test]
async fn a_secret_that_is_too_short_for_client_secret_jwt_is_refused() {
    let (op, clock) = op_listing(TestClient::secret_jwt(CLIENT_ID, SECRET), &["client_secret_jwt"], &["HS512"]);
    // A secret that is too short for every HMAC is found without the OP.
    let short = ClientAuthentication::client_secret_jwt(&SECRET[..31]);
    assert_setting(&problem(bare(&op, &clock).authentication(short).build()), "authentication");
    assert!(op.requests().is_empty());
    // This one is too short for the only algorithm that the OP lists.
    let short = ClientAuthentication::client_secret_jwt(&SECRET[..32]);
    assert_setting(&problem(bare(&op, &clock).authentication(short).discover().await), "authentication");
}

#[tokio::test]
async fn client_secret_jwt_with_a_wrong_secret_is_refused_and_the_grant_remains_usable() {
    let (op, clock) = op_with(TestClient::secret_jwt(CLIENT_ID, SECRET), |op| op);
    let wrong = ClientAuthentication::client_secret_jwt("another secret of more than thirty-two bytes");
    let client = bare(&op, &clock).authentication(wrong).discover().await.unwrap();
    let world = World { op, clock, client };
    let mut grant = world.grant().await;
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_client"));
    assert!(!grant.is_spent());
    assert_eq!(world.op.violations()[0].rule, RequestRule::AssertionInvalid);
}

#[tokio::test]
async fn a_named_method_that_the_op_does_not_list_is_refused_at_discovery() {
    let methods = [
        (ClientAuthentication::client_secret_basic(SECRET), "client_secret_basic"),
        (ClientAuthentication::client_secret_post(SECRET), "client_secret_post"),
        (ClientAuthentication::client_secret_jwt(SECRET), "client_secret_jwt"),
        (ClientAuthentication::private_key_jwt(key().0), "private_key_jwt"),
    ];
    for (named, name) in methods {
        let (op, clock) = op_listing(TestClient::public(CLIENT_ID), &["tls_client_auth"], &[]);
        let refused = bare(&op, &clock).authentication(named.clone()).discover().await;
        assert_eq!(problem(refused), unlisted(METHODS, name));
        // The override still works.
        let client = bare(&op, &clock).authentication(named).allow_unadvertised().discover().await.unwrap();
        assert_eq!(client.authentication_method(), Some(name));
        op.assert_clean();
    }
}

#[tokio::test]
async fn a_public_client_works_if_the_op_does_not_list_none() {
    for listed in [&["private_key_jwt"][..], &[]] {
        let (op, clock) = op_listing(TestClient::public(CLIENT_ID), listed, &[]);
        let client = bare(&op, &clock).discover().await.unwrap();
        assert_eq!(client.authentication_method(), Some("none"));
        signs_in(op, clock, client).await;
    }
}

#[tokio::test]
async fn an_op_that_lists_no_methods_has_client_secret_basic() {
    let registered = || TestClient::secret_basic(CLIENT_ID, SECRET);
    let (op, clock) = op_listing(registered(), &[], &[]);
    let post = ClientAuthentication::client_secret_post(SECRET);
    assert_eq!(
        problem(bare(&op, &clock).authentication(post).discover().await),
        unlisted(METHODS, "client_secret_post")
    );
    let client = bare(&op, &clock).client_secret(SECRET).discover().await.unwrap();
    assert_eq!(client.authentication_method(), Some("client_secret_basic"));
    signs_in(op, clock, client).await;
}

#[tokio::test]
async fn an_assertion_algorithm_that_the_op_does_not_list_is_refused_at_discovery() {
    let (signer, registered) = key();
    let (op, clock) = op_listing(registered, &["private_key_jwt"], &["PS256", "RS256"]);
    let named = ClientAuthentication::private_key_jwt(signer);
    assert_eq!(problem(bare(&op, &clock).authentication(named).discover().await), unlisted(ALGORITHMS, "ES256"));
    let named = ClientAuthentication::client_secret_jwt(SECRET);
    let (op, clock) = op_listing(TestClient::secret_jwt(CLIENT_ID, SECRET), &["client_secret_jwt"], &["RS256"]);
    let refused = problem(bare(&op, &clock).authentication(named).discover().await);
    assert_eq!(refused, unlisted(ALGORITHMS, "HS256` or `HS384` or `HS512"));
}

#[tokio::test]
async fn the_strongest_method_that_the_op_and_the_credentials_support_is_used() {
    const ALL: &[&str] = &["client_secret_post", "client_secret_basic", "private_key_jwt", "client_secret_jwt", "none"];
    let (signer, by_key) = key();
    let (op, clock) = op_listing(by_key, ALL, &["ES256", "HS256"]);
    let client = bare(&op, &clock).client_secret(SECRET).signing_key(signer).discover().await.unwrap();
    assert_eq!(client.authentication_method(), Some("private_key_jwt"));
    signs_in(op, clock, client).await;

    let cases: [(TestClient, &'static [&'static str], &str); 3] = [
        (TestClient::secret_jwt(CLIENT_ID, SECRET), ALL, "client_secret_jwt"),
        (TestClient::secret_basic(CLIENT_ID, SECRET), &ALL[..3], "client_secret_basic"),
        (TestClient::secret_post(CLIENT_ID, SECRET), &ALL[..1], "client_secret_post"),
    ];
    for (registered, methods, expected) in cases {
        let (op, clock) = op_listing(registered, methods, &["ES256", "HS256"]);
        let client = bare(&op, &clock).client_secret(SECRET).discover().await.unwrap();
        assert_eq!(client.authentication_method(), Some(expected));
        signs_in(op, clock, client).await;
    }
}

#[tokio::test]
async fn credentials_for_which_the_op_lists_nothing_are_refused() {
    let (op, clock) = op_listing(TestClient::public(CLIENT_ID), &["private_key_jwt", "none"], &[]);
    let refused = problem(bare(&op, &clock).client_secret("short").discover().await);
    assert_eq!(refused, unlisted(METHODS, "client_secret_basic` or `client_secret_post"));
    // Without credentials the client is a public one.
    let client = bare(&op, &clock).discover().await.unwrap();
    assert_eq!(client.authentication_method(), Some("none"));
    signs_in(op, clock, client).await;
}

#[tokio::test]
async fn a_client_built_while_the_op_was_unreachable_chooses_its_method_at_first_use() {
    let (op, clock) = op_with(TestClient::secret_jwt(CLIENT_ID, SECRET), |op| op);
    let client = bare(&op, &clock).client_secret(SECRET).build().unwrap();
    assert_eq!(client.authentication_method(), None);
    assert!(op.requests().is_empty());
    let world = signs_in(op, clock, client).await;
    assert_eq!(world.client.authentication_method(), Some("client_secret_jwt"));
    assert_eq!(world.client.clone().authentication_method(), Some("client_secret_jwt"));

    // A method that was named needs no choice.
    let client = client_of(&world.op, &world.clock).build().unwrap();
    assert_eq!(client.authentication_method(), Some("client_secret_basic"));
}

#[tokio::test]
async fn a_client_without_a_usable_method_does_not_redirect_the_user() {
    let (op, clock) = op_listing(TestClient::public(CLIENT_ID), &["private_key_jwt"], &[]);
    let client = bare(&op, &clock).client_secret("short").build().unwrap();
    let error = client.authorize().start().await.unwrap_err();
    let expected = unlisted(METHODS, "client_secret_basic` or `client_secret_post");
    assert_eq!(*error.kind(), ErrorKind::Configuration(expected));
}

#[tokio::test]
async fn a_chosen_method_stays_if_the_op_lists_others_later() {
    let (op, clock) = op_with(TestClient::secret_basic(CLIENT_ID, SECRET), |op| {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        op.metadata(move |members| {
            let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            let listed = if first { "client_secret_basic" } else { "client_secret_post" };
            members.insert(METHODS.into(), json!([listed]));
        })
    });
    let client = bare(&op, &clock).client_secret(SECRET).discover().await.unwrap();
    openid_deferred::Clock::sleep(&clock, std::time::Duration::from_secs(2 * 86_400)).await;
    let world = signs_in(op, clock, client).await;
    assert!(world.op.requests_to(Endpoint::Metadata).len() > 1, "the metadata was fetched again");
    assert_eq!(world.client.authentication_method(), Some("client_secret_basic"));
}

#[tokio::test]
async fn credentials_in_addition_to_those_of_a_named_method_are_refused() {
    let (op, clock) = op_with(TestClient::public(CLIENT_ID), |op| op);
    let named = || bare(&op, &clock).authentication(ClientAuthentication::client_secret_basic(SECRET));
    assert_setting(&problem(named().signing_key(key().0).build()), "signing_key");
    // A secret beside a key is for ID Tokens.
    let by_key = bare(&op, &clock).authentication(ClientAuthentication::private_key_jwt(key().0));
    assert!(
        by_key
            .client_secret(SECRET)
            .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Hs256))
            .build()
            .is_ok()
    );
}

#[tokio::test]
async fn polls_with_an_access_token_exclude_a_chosen_basic_as_well() {
    let (op, clock) = op_with(TestClient::secret_basic(CLIENT_ID, "short"), |op| op.early_access_token());
    let polls_by_token = bare(&op, &clock).client_secret("short").poll_credential(PollCredential::AccessToken);
    assert_setting(&problem(polls_by_token.discover().await), "poll_credential");
    let without_dpop = bare(&op, &clock).poll_credential(PollCredential::AccessToken).dpop(DpopMode::Off);
    assert_setting(&problem(without_dpop.build()), "poll_credential");
}

#[tokio::test]
async fn a_secret_that_is_replaced_is_used_by_every_method_at_the_next_request() {
    const NEW: &str = "another client secret of sixty-four bytes, enough for HS512 too!";
    type Method = fn(&'static str) -> ClientAuthentication;
    type Registered = fn(&str, &str) -> TestClient;
    let methods: [(Method, Registered); 3] = [
        (|secret| ClientAuthentication::client_secret_basic(secret), TestClient::secret_basic),
        (|secret| ClientAuthentication::client_secret_post(secret), TestClient::secret_post),
        (|secret| ClientAuthentication::client_secret_jwt(secret), TestClient::secret_jwt),
    ];
    for (method, registered) in methods {
        let (op, clock) = op_with(registered(CLIENT_ID, SECRET), |op| op);
        let client = bare(&op, &clock).authentication(method(SECRET)).discover().await.unwrap();
        let clone = client.clone();
        op.register(registered(CLIENT_ID, NEW).redirect_uri(REDIRECT_URI));
        client.replace_client_secret(NEW).unwrap();
        let (url, session) = clone.authorize().start().await.unwrap();
        assert!(matches!(clone.authorization_response(&op.visit(url).query(), session).await, Ok(SignIn::Deferred(_))));
        op.assert_clean();
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_does_not_replace_the_old_one() {
    let (op, clock) = op_with(TestClient::secret_jwt(CLIENT_ID, SECRET), |op| op);
    let client = bare(&op, &clock).authentication(ClientAuthentication::client_secret_jwt(SECRET)).discover().await;
    let client = client.unwrap();
    let error = client.replace_client_secret("too short").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("too short\""), "the secret is not printed");
    let (url, session) = client.authorize().start().await.unwrap();
    assert!(matches!(client.authorization_response(&op.visit(url).query(), session).await, Ok(SignIn::Deferred(_))));

    let (key, registered) = key();
    let (op, clock) = op_with(registered, |op| op);
    let client = bare(&op, &clock).authentication(ClientAuthentication::private_key_jwt(key)).build().unwrap();
    let error = client.replace_client_secret(SECRET).unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::Configuration(ConfigurationProblem::Setting {
            setting: "client_secret",
            problem: "this client does not authenticate with a secret",
        })
    );
}
