//! The crate's own HTTP client against a provider behind real sockets, over HTTPS and over plain HTTP on loopback.
//!
//! Time is simulated here too; only the timeouts of requests are real, and short.
#![expect(clippy::disallowed_methods, reason = "a transfer that is not cut off has to fail the test, in real time")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::error::{ConfigurationProblem, Document, Rule, TransportProblem};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, NoncePolicy, TestClient, TestClock, TestProvider, TestProviderBuilder, TestUser,
};
use openid_deferred::transport::ClientCertificate;
use openid_deferred::{Client, ClientAuthentication, ClientBuilder, DpopMode, Error, ErrorKind, Outcome, SignIn};
use serde_json::json;

use crate::steps::cause;
use crate::support::{CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World};

/// Nothing in these tests takes longer, even on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// The timeout for requests that are never answered.
const SHORT: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scheme {
    Http,
    Https,
}

const BOTH: [Scheme; 2] = [Scheme::Http, Scheme::Https];

fn provider(scheme: Scheme, clock: &TestClock) -> TestProviderBuilder {
    let builder = TestProvider::builder()
        .clock(Arc::new(clock.clone()))
        .client(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI))
        .user(TestUser::new("user-1"))
        .decisions(DecisionPolicy::after_polls(1));
    if scheme == Scheme::Https { builder.https() } else { builder }
}

/// A client with only the permissions that the provider's scheme needs.
fn client_of(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    let builder = Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
        .redirect_uri(REDIRECT_URI)
        .clock(Arc::new(clock.clone()));
    match op.ca_certificate_pem() {
        None => builder.allow_insecure_loopback(),
        Some(pem) => {
            let authority = reqwest::Certificate::from_pem(pem.as_bytes()).expect("the provider's CA");
            builder.configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]))
        }
    }
}

async fn world_with(
    scheme: Scheme,
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let clock = TestClock::automatic();
    let op = op(provider(scheme, &clock)).start().expect("a loopback socket can be opened");
    let client = client(client_of(&op, &clock)).discover().await.expect("discovery succeeds");
    World { op, clock, client }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("this ends long before the deadline")
}

/// Asserts that the exchange ends in time, the code is spent, and it was sent once.
async fn lost(world: &World, fault: Fault) -> Error {
    let mut grant = world.grant().await;
    let before = world.exchanges().len();
    world.op.misbehave(fault);
    let error = in_time(world.client.exchange(&mut grant)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    assert!(grant.is_spent());
    assert_eq!(world.exchanges().len(), before + 1);
    error
}

#[tokio::test]
async fn a_sign_in_works_over_https_and_over_plain_loopback() {
    for scheme in BOTH {
        let world = world_with(scheme, |op| op.dpop_nonces(NoncePolicy::RotateEveryRequest), |client| client).await;
        let Outcome::Approved(authentication) = in_time(world.outcome()).await else { panic!("not approved") };
        assert_eq!(authentication.claims().subject(), "user-1");
        assert!(authentication.is_sender_constrained());
        assert_eq!(in_time(world.client.userinfo(&authentication)).await.unwrap().subject(), "user-1");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn plain_http_is_refused_unless_it_was_allowed() {
    let clock = TestClock::automatic();
    let op = provider(Scheme::Http, &clock).start().unwrap();
    let error = Client::builder(op.issuer(), CLIENT_ID).build().unwrap_err();
    let insecure = ConfigurationProblem::InsecureUrl { name: "issuer" };
    assert_eq!(*error.kind(), ErrorKind::Configuration(insecure));
    assert!(op.requests().is_empty());
}

#[tokio::test]
async fn metadata_of_an_https_op_cannot_name_plain_http_endpoints() {
    let clock = TestClock::automatic();
    let plain = provider(Scheme::Http, &clock).start().unwrap();
    let token_endpoint = format!("{}/token", plain.issuer());
    let op = provider(Scheme::Https, &clock)
        .metadata(move |members| drop(members.insert("token_endpoint".into(), json!(token_endpoint))))
        .start()
        .unwrap();
    let error = in_time(client_of(&op, &clock).discover()).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::InsecureEndpoint));
    assert!(plain.requests().is_empty());
}

#[tokio::test]
async fn an_op_with_an_untrusted_certificate_gets_no_request() {
    let clock = TestClock::automatic();
    let op = provider(Scheme::Https, &clock).start().unwrap();
    let stranger = provider(Scheme::Https, &clock).start().unwrap();
    let authority = reqwest::Certificate::from_pem(stranger.ca_certificate_pem().unwrap().as_bytes()).unwrap();
    let client = Client::builder(op.issuer(), CLIENT_ID).redirect_uri(REDIRECT_URI).configure_http(move |http| {
        http.no_proxy()
            .tls_certs_only([authority.clone()])
            .tls_danger_accept_invalid_certs(true)
            .tls_danger_accept_invalid_hostnames(true)
    });
    let error = in_time(client.discover()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Connect));
    assert!(op.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for scheme in BOTH {
        let world = world_with(scheme, |op| op, |client| client).await;
        let fault = Fault::redirect(Endpoint::Exchange, &world.op.resource());
        world.op.misbehave(fault);
        let error = in_time(world.sign_in()).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::UnexpectedRedirect));
        assert!(world.op.requests_to(Endpoint::Resource).is_empty());
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_whatever_the_caller_configures() {
    let clock = TestClock::automatic();
    let op = provider(Scheme::Https, &clock).start().unwrap();
    let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap().as_bytes()).unwrap();
    let configured = client_of(&op, &clock).configure_http(move |http| {
        http.no_proxy()
            .tls_certs_only([authority.clone()])
            .redirect(reqwest::redirect::Policy::limited(10))
            .https_only(false)
    });
    let client = in_time(configured.discover()).await.unwrap();
    let world = World { op, clock, client };
    let fault = Fault::redirect(Endpoint::Exchange, &world.op.resource());
    world.op.misbehave(fault);
    let error = in_time(world.sign_in()).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::UnexpectedRedirect));
    assert!(world.op.requests_to(Endpoint::Resource).is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_metadata_redirect_is_not_followed() {
    let clock = TestClock::automatic();
    let op = provider(Scheme::Https, &clock).start().unwrap();
    op.misbehave(Fault::redirect(Endpoint::Metadata, &op.resource()));
    let error = in_time(client_of(&op, &clock).discover()).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::UnexpectedRedirect));
    assert!(op.requests_to(Endpoint::Resource).is_empty());
}

#[tokio::test]
async fn bodies_that_are_huge_or_never_end_or_inflate_without_end_are_cut_off() {
    for scheme in BOTH {
        let world = world_with(scheme, |op| op, |client| client).await;
        for fault in [
            Fault::huge_body(Endpoint::Exchange, 50_000_000),
            Fault::endless_body(Endpoint::Exchange),
            Fault::gzip_bomb(Endpoint::Exchange, 2_000_000),
        ] {
            let error = lost(&world, fault).await;
            let too_large = TransportProblem::BodyTooLarge(Document::ExchangeResponse);
            assert_eq!(*cause(&error).kind(), ErrorKind::Transport(too_large));
        }
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn metadata_that_never_ends_is_cut_off() {
    let clock = TestClock::automatic();
    let op = provider(Scheme::Https, &clock).start().unwrap();
    op.misbehave(Fault::endless_body(Endpoint::Metadata));
    let error = in_time(client_of(&op, &clock).discover()).await.unwrap_err();
    let too_large = TransportProblem::BodyTooLarge(Document::Metadata);
    assert_eq!(*error.kind(), ErrorKind::Transport(too_large));
}

#[tokio::test]
async fn an_unanswered_exchange_ends_at_its_timeout() {
    for scheme in BOTH {
        let world = world_with(scheme, |op| op, |client| client.request_timeout(SHORT)).await;
        let error = lost(&world, Fault::stall(Endpoint::Exchange)).await;
        assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Timeout));
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn an_exchange_whose_connection_breaks_may_have_reached_the_op() {
    for scheme in BOTH {
        let world = world_with(scheme, |op| op, |client| client).await;
        for fault in [
            Fault::reset(Endpoint::Exchange),
            Fault::reset(Endpoint::Exchange).after_processing(),
            Fault::cut_body(Endpoint::Exchange),
        ] {
            let error = lost(&world, fault).await;
            assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Broken));
        }
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn polls_survive_resets_and_silence() {
    for scheme in BOTH {
        let world = world_with(scheme, |op| op, |client| client.poll_timeout(SHORT)).await;
        world.op.misbehave(Fault::reset(Endpoint::Poll));
        world.op.misbehave(Fault::stall(Endpoint::Poll).skip(1));
        assert!(matches!(in_time(world.outcome()).await, Outcome::Approved(_)));
        assert_eq!(world.op.faults_left(), 0);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn the_answer_to_a_dropped_refresh_is_kept_beyond_the_timeout_of_its_request() {
    let world = world_with(Scheme::Http, |op| op, |client| client.request_timeout(SHORT * 4)).await;
    let Outcome::Approved(mut authentication) = in_time(world.outcome()).await else { panic!("not approved") };
    // The answer waits while the clock is held.
    let hold = world.clock.hold();
    world.op.misbehave(Fault::delay(Endpoint::Refresh, Duration::from_secs(1)).after_processing());
    let arrival = async {
        while world.op.requests_to(Endpoint::Refresh).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        refreshed = world.client.refresh(&mut authentication) => panic!("it was not dropped: {refreshed:?}"),
        () = in_time(arrival) => {}
    }
    drop(hold);
    tokio::time::sleep(SHORT * 5).await;
    in_time(world.client.refresh(&mut authentication)).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
    world.op.assert_clean();
}

/// A client that reaches the provider at another address, for faults on the way to it. DPoP is off, because a proof
/// contains the address that the client knows.
async fn behind(address: SocketAddr, client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    let metadata = move |members: &mut serde_json::Map<String, serde_json::Value>| {
        members.insert("token_endpoint".into(), json!(format!("http://{address}/token")));
    };
    world_with(Scheme::Http, |op| op.metadata(metadata), |builder| client(builder.dpop(DpopMode::Off))).await
}

#[tokio::test]
async fn a_grant_remains_usable_after_refused_connections() {
    // Bound, so that no other socket gets the port, and not listening, so that connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let world = behind(socket.local_addr().unwrap(), |client| client).await;
    let mut grant = world.grant().await;
    let error = in_time(world.client.exchange(&mut grant)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Connect));
    assert!(!grant.is_spent());
    world.assert_nothing_sent();

    let listener = socket.listen(1).unwrap();
    let op = world.op.issuer().trim_start_matches("http://").to_owned();
    let forwarding = async {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(op).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        std::future::pending().await
    };
    let signed_in = tokio::select! {
        signed_in = in_time(world.client.exchange(&mut grant)) => signed_in,
        () = forwarding => unreachable!(),
    };
    assert!(matches!(signed_in, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn the_timeout_covers_the_body_as_well() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let world = behind(listener.local_addr().unwrap(), |client| client.request_timeout(SHORT)).await;
    let (gone, waits) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
        stream.write_all(format!("{head}{{\"deferred_auth_id\":\"a").as_bytes()).unwrap();
        // Sends nothing more, with the connection open.
        let _ = waits.recv();
    });
    let mut grant = world.grant().await;
    let error = in_time(world.client.exchange(&mut grant)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Timeout));
    assert!(grant.is_spent());
    drop(gone);
    server.join().unwrap();
}

mod shared {
    use super::*;

    fn problem(built: Result<Client, Error>) -> String {
        let error = built.expect_err("these settings contradict each other");
        let kind = error.kind();
        assert!(
            matches!(
                kind,
                ErrorKind::Configuration(ConfigurationProblem::Setting { setting: "share_connections", .. })
            ),
            "{kind:?}"
        );
        error.to_string()
    }

    fn bare(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
        Client::builder(op.issuer(), CLIENT_ID)
            .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
            .redirect_uri(REDIRECT_URI)
            .clock(Arc::new(clock.clone()))
    }

    /// Only the connections of the first client trust the provider's authority.
    #[tokio::test]
    async fn a_client_can_share_the_connections_of_another_client() {
        let clock = TestClock::automatic();
        let op = provider(Scheme::Https, &clock).start().expect("the provider starts");
        let first = client_of(&op, &clock).build().expect("the first client");
        let alone = bare(&op, &clock).configure_http(reqwest::ClientBuilder::no_proxy).discover().await;
        assert!(alone.is_err(), "the provider's authority is a private one");
        let client = bare(&op, &clock).share_connections(&first).discover().await.expect("discovery succeeds");
        let world = World { op, clock, client };
        assert!(matches!(world.outcome().await, Outcome::Approved(_)));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn settings_that_shared_connections_cannot_follow_are_refused() {
        let clock = TestClock::automatic();
        let op = provider(Scheme::Https, &clock).start().expect("the provider starts");
        let first = client_of(&op, &clock).build().expect("the first client");
        let sharing = || bare(&op, &clock).share_connections(&first);
        assert!(problem(sharing().configure_http(|http| http).build()).contains("`configure_http`"));
        assert!(problem(sharing().http_client(op.http_client()).build()).contains("`http_client`"));
        assert!(problem(sharing().allow_insecure_loopback().build()).contains("`allow_insecure_loopback`"));
        assert!(problem(sharing().allow_private_addresses().build()).contains("`allow_private_addresses`"));
        let files = op.client_certificate("rp.example");
        let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).expect("a certificate");
        let bound = sharing().certificate_bound_access_tokens().client_certificate(certificate);
        assert!(problem(bound.build()).contains("certificate"));
        sharing().build().expect("nothing contradicts");
    }
}
