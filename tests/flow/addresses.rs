//! Which addresses an OP's metadata may make the client connect to (RFC 9728 §7.7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openid_deferred::error::{ConfigurationProblem, Rule, TransportProblem};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, TestClient, TestClock, TestProvider, TestProviderBuilder, TestUser,
};
use openid_deferred::transport::PublicAddresses;
use openid_deferred::{Client, ClientAuthentication, ClientBuilder, Error, ErrorKind, Outcome, ProviderMetadata};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::{Value, json};

use crate::support::{CLIENT_ID, CLIENT_SECRET, DAY, REDIRECT_URI, World, client_of, provider, world, world_with};

/// Every member of the metadata that holds a URL to which a user or a request is sent.
const ENDPOINTS: [&str; 9] = [
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
    "pushed_authorization_request_endpoint",
    "end_session_endpoint",
    "registration_endpoint",
];

/// The endpoints with an alias (RFC 8705 §5) that this client would call.
const ALIASES: [&str; 5] = [
    "token_endpoint",
    "userinfo_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
    "pushed_authorization_request_endpoint",
];

const PRIVATE: [&str; 5] = [
    "https://169.254.169.254/latest/meta-data",
    "https://0x7f.1/x",
    "https://[::ffff:10.0.0.1]/x",
    "https://localhost./x",
    "https://[64:ff9b::a00:1]:8443/x",
];

/// Discovers metadata with one member changed.
async fn discovered(
    name: &'static str,
    value: Value,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> (TestProvider, Result<Client, Error>) {
    let clock = TestClock::automatic();
    let op = provider(&clock).metadata(move |members| drop(members.insert(name.to_owned(), value.clone())));
    let op = op.start().expect("a provider in process starts");
    let client = client(client_of(&op, &clock)).discover().await;
    (op, client)
}

#[track_caller]
fn is_private_endpoint(error: &Error, member: &str) {
    let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
    assert_eq!((violation.rule(), violation.member()), (Rule::PrivateEndpoint, Some(member)));
    assert!(!error.is_transient());
    assert!(error.to_string().contains(member), "{error}");
    assert!(error.advice().contains("`allow_private_addresses`"), "{}", error.advice());
}

#[track_caller]
fn is_private_setting(error: &Error, setting: &'static str) {
    let expected = ConfigurationProblem::PrivateAddress { name: setting };
    assert_eq!(*error.kind(), ErrorKind::Configuration(expected));
    assert!(error.advice().contains("`refuse_private_addresses`"), "{}", error.advice());
}

#[tokio::test]
async fn endpoints_at_private_addresses_are_refused_and_not_called() {
    for name in ENDPOINTS {
        for url in PRIVATE {
            let (op, client) = discovered(name, json!(url), |client| client).await;
            match client {
                Err(error) => is_private_endpoint(&error, name),
                Ok(client) => {
                    assert!(!NEEDED.contains(&name), "{name} {url}");
                    // It counts as missing, and a call that needs it says why.
                    let metadata = client.provider_metadata().await.unwrap();
                    assert!(!endpoints(&metadata).iter().any(|endpoint| endpoint.as_str() == url), "{name} {url}");
                    if let Some(error) = refused_call(&client, name).await {
                        is_private_endpoint(&error, name);
                    }
                }
            }
            let fetched = [Endpoint::Metadata, Endpoint::Keys];
            assert!(op.requests().iter().all(|request| fetched.contains(&request.endpoint)), "{name} {url}");
        }
    }
}

#[tokio::test]
async fn mtls_aliases_at_private_addresses_are_ignored() {
    for name in ALIASES.into_iter().chain(["surprise_endpoint"]) {
        let aliases = json!({ name: "https://10.0.0.1/x" });
        let (_, client) = discovered("mtls_endpoint_aliases", aliases, |client| client).await;
        let metadata = client.unwrap().provider_metadata().await.unwrap();
        assert!(metadata.mtls_endpoint_aliases().is_empty(), "{name}");
    }
}

/// The endpoints that discovery calls, or that every client needs.
const NEEDED: [&str; 3] = ["authorization_endpoint", "token_endpoint", "jwks_uri"];

fn endpoints(metadata: &ProviderMetadata) -> Vec<&url::Url> {
    let optional = [
        metadata.jwks_uri(),
        metadata.userinfo_endpoint(),
        metadata.revocation_endpoint(),
        metadata.introspection_endpoint(),
        metadata.pushed_authorization_request_endpoint(),
        metadata.end_session_endpoint(),
        metadata.registration_endpoint(),
    ];
    let required = [metadata.authorization_endpoint().unwrap(), metadata.token_endpoint()];
    optional.into_iter().flatten().chain(required).collect()
}

/// Makes a call that would go to this endpoint, and returns its error.
async fn refused_call(client: &Client, name: &str) -> Option<Error> {
    let token = "a token".into();
    match name {
        "revocation_endpoint" => client.revoke_token(&token, None).await.err(),
        "introspection_endpoint" => client.introspect(&token, None).await.err(),
        "pushed_authorization_request_endpoint" => client.authorize().pushed().start().await.err(),
        _ => None,
    }
}

#[tokio::test]
async fn an_application_can_allow_endpoints_at_private_addresses_but_not_plain_http() {
    let allow = |client: ClientBuilder| client.allow_private_addresses();
    for url in PRIVATE {
        let (_, client) = discovered("userinfo_endpoint", json!(url), allow).await;
        let metadata = client.unwrap().provider_metadata().await.unwrap();
        assert_eq!(metadata.userinfo_endpoint().map(|url| url.path()), Some(url::Url::parse(url).unwrap().path()));
    }
    let (_, client) = discovered("token_endpoint", json!("http://10.0.0.1/token"), allow).await;
    assert_eq!(client.unwrap_err().rule(), Some(Rule::InsecureEndpoint));
}

#[tokio::test]
async fn public_addresses_and_names_need_no_setting() {
    for url in ["https://93.184.216.34/x", "https://[2606:4700:4700::1111]/x", "https://op.corp.internal/x"] {
        for strict in [false, true] {
            let refuse = |client: ClientBuilder| if strict { client.refuse_private_addresses() } else { client };
            let (_, client) = discovered("userinfo_endpoint", json!(url), refuse).await;
            let metadata = client.unwrap().provider_metadata().await.unwrap();
            assert!(metadata.userinfo_endpoint().is_some(), "{url}");
        }
    }
}

#[tokio::test]
async fn an_op_at_a_private_address_that_the_application_named_works_and_stays_at_its_host() {
    let clock = TestClock::automatic();
    let on_private_host = |op: TestProviderBuilder| op.host("10.0.0.5");
    let world = world_with(on_private_host, |client| client).await;
    assert_eq!(world.op.issuer(), "https://10.0.0.5");
    assert!(matches!(world.outcome().await, Outcome::Approved(_)));
    world.op.assert_clean();

    // Endpoints for certificates may be on another port of the same host. Another host may belong to another party.
    for (alias, fits) in [("https://10.0.0.5:8443/token", true), ("https://10.0.0.6/token", false)] {
        let op = on_private_host(provider(&clock)).metadata(move |members| {
            members.insert("mtls_endpoint_aliases".into(), json!({ "token_endpoint": alias }));
        });
        let client = client_of(&op.start().unwrap(), &clock).discover().await.unwrap();
        let metadata = client.provider_metadata().await.unwrap();
        assert_eq!(metadata.mtls_endpoint_aliases().contains_key("token_endpoint"), fits, "{alias}");
    }
}

#[tokio::test]
async fn newer_metadata_with_private_addresses_is_refused_and_the_old_metadata_is_used() {
    let clock = TestClock::automatic();
    let hostile = Arc::new(AtomicBool::new(false));
    let turns = hostile.clone();
    let op = provider(&clock)
        .metadata(move |members| {
            if turns.load(Ordering::Relaxed) {
                members.insert("token_endpoint".into(), json!("https://169.254.169.254/token"));
            }
        })
        .start()
        .unwrap();
    let client = client_of(&op, &clock).discover().await.unwrap();
    let world = World { op, clock, client };
    let mut pending = world.pending().await;
    hostile.store(true, Ordering::Relaxed);
    world.clock.advance(DAY);
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert!(world.op.requests_to(Endpoint::Metadata).len() >= 2, "it was asked for again");
    let metadata = world.client.provider_metadata().await.unwrap();
    assert_eq!(metadata.token_endpoint().host_str(), Some("op.test"));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_application_can_refuse_private_addresses_in_its_own_settings() {
    let builder =
        |issuer: &str| Client::builder(issuer, CLIENT_ID).redirect_uri(REDIRECT_URI).refuse_private_addresses();
    for issuer in ["https://10.0.0.5", "https://localhost:8443", "https://[::ffff:7f00:1]"] {
        is_private_setting(&builder(issuer).build().unwrap_err(), "issuer");
    }
    let cancelling = builder("https://op.test").cancellation_endpoint("https://192.168.1.1/cancel");
    is_private_setting(&cancelling.build().unwrap_err(), "cancellation_endpoint");
    assert!(builder("https://10.0.0.5").allow_private_addresses().build().is_ok(), "the later setting counts");

    let world = world_with(|op| op, |client| client.refuse_private_addresses()).await;
    let authentication = world.approved().await;
    let request = http::Request::get("https://169.254.169.254/latest").body(Default::default()).unwrap();
    let error = world.client.resource(&authentication, request).await.unwrap_err();
    is_private_setting(&error, "request");
}

#[tokio::test]
async fn addresses_in_the_applications_settings_may_be_private_unless_refused() {
    let world = world().await;
    let authentication = world.approved().await;
    let request = http::Request::get("https://10.0.0.7/accounts").body(Default::default()).unwrap();
    let error = world.client.resource(&authentication, request).await.unwrap_err();
    // No host exists in the network of this test.
    assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Connect));
    let client = Client::builder("https://op.test", CLIENT_ID).redirect_uri(REDIRECT_URI);
    assert!(client.cancellation_endpoint("https://10.0.0.7/cancel").build().is_ok());
}

/// A name server of an attacker who tries to reach the application's network.
struct LeadsInside;

impl Resolve for LeadsInside {
    fn resolve(&self, _: Name) -> Resolving {
        let inside = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        Box::pin(async move { Ok(Box::new([inside].into_iter()) as Addrs) })
    }
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_gets_no_connection_if_those_are_refused() {
    let op = TestProvider::builder().https().start().unwrap();
    let port = url::Url::parse(op.issuer()).unwrap().port().unwrap();
    let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap().as_bytes()).unwrap();
    let client = Client::builder(format!("https://op.example:{port}"), CLIENT_ID).redirect_uri(REDIRECT_URI);
    let refusing = client.refuse_private_addresses().configure_http(move |http| {
        let resolver = PublicAddresses::among(Arc::new(LeadsInside));
        http.dns_resolver(resolver).tls_certs_only([authority.clone()])
    });
    let error = refusing.discover().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::PrivateAddress));
    assert!(error.is_transient(), "what a name means can be put right");
    assert!(error.advice().contains("`refuse_private_addresses`"));
    assert!(op.requests().is_empty());
}

#[tokio::test]
async fn an_application_that_refuses_private_addresses_can_be_tested_on_this_machine() {
    let clock = TestClock::automatic();
    let op = provider_on_loopback(&clock);
    let client = Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
        .redirect_uri(REDIRECT_URI)
        .clock(Arc::new(clock.clone()))
        .refuse_private_addresses();
    let client = client.allow_insecure_loopback().discover().await.unwrap();
    let world = World { op, clock, client };
    assert!(matches!(world.outcome().await, Outcome::Approved(_)));
    world.op.assert_clean();
}

fn provider_on_loopback(clock: &TestClock) -> TestProvider {
    let client = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI);
    let op = TestProvider::builder().clock(Arc::new(clock.clone())).client(client).user(TestUser::new("user-1"));
    op.decisions(DecisionPolicy::after_polls(1)).start().expect("a loopback socket can be opened")
}
