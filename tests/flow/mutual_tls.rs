//! Client certificates (RFC 8705): as authentication, at endpoint aliases, with tokens bound to them, and renewed.

use std::sync::Arc;

use openid_deferred::compatibility::PollCredential;
use openid_deferred::error::{ConfigurationProblem, TransportProblem};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, RecordedRequest, RequestRule, TestCertificate, TestClient, TestClock,
    TestProvider, TestProviderBuilder, TestUser,
};
use openid_deferred::transport::ClientCertificate;
use openid_deferred::{
    Authentication, Cancelled, Client, ClientAuthentication, ClientBuilder, DpopMode, Error, ErrorKind, Outcome,
    ResponseType, SignIn, SigningAlgorithm, SigningKey,
};
use serde_json::json;

use crate::support::{CLIENT_ID, REDIRECT_URI, World, assert_approved, client_of, provider};

const NAME: &str = "client.rp.test";

fn handle(files: &TestCertificate) -> ClientCertificate {
    ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).expect("they belong together")
}

fn der(files: &TestCertificate) -> Vec<u8> {
    handle(files).current().certificates_der().next().expect("there is one").to_vec()
}

/// A provider that asks for certificates, before the first request of a client.
fn op_with(
    registered: TestClient,
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
) -> (TestProvider, TestClock) {
    let clock = TestClock::automatic();
    let builder = provider(&clock).mutual_tls().client(registered.redirect_uri(REDIRECT_URI));
    (op(builder).start().unwrap(), clock)
}

fn bare(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    Client::builder(op.issuer(), CLIENT_ID)
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
}

/// A client with `tls_client_auth`, and the handle of its certificate.
async fn by_authority(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> (World, ClientCertificate) {
    let (op, clock) = op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), op);
    let certificate = handle(&op.client_certificate(NAME));
    let client = bare(&op, &clock).client_certificate(certificate.clone()).discover().await.unwrap();
    (World { op, clock, client }, certificate)
}

/// The same with tokens that are bound to the certificate.
async fn bound(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> (World, ClientCertificate) {
    let registered = TestClient::tls_client_auth(CLIENT_ID, NAME).certificate_bound_access_tokens();
    let (op, clock) = op_with(registered, op);
    let certificate = handle(&op.client_certificate(NAME));
    let client = bare(&op, &clock).client_certificate(certificate.clone()).certificate_bound_access_tokens();
    let client = client.cancellation_endpoint(op.cancellation_endpoint()).discover().await.unwrap();
    (World { op, clock, client }, certificate)
}

#[track_caller]
fn problem(result: Result<Client, Error>) -> ConfigurationProblem {
    match result.unwrap_err().kind() {
        ErrorKind::Configuration(problem) => problem.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_setting(problem: &ConfigurationProblem, expected: &str) {
    assert!(matches!(problem, ConfigurationProblem::Setting { setting, .. } if *setting == expected), "{problem:?}");
}

fn unlisted(member: &'static str, value: &str) -> ConfigurationProblem {
    ConfigurationProblem::NotAdvertised { member, value: value.to_owned() }
}

impl World {
    /// The requests with a client certificate, and those without.
    fn requests_with_certificate(&self) -> (Vec<RecordedRequest>, Vec<RecordedRequest>) {
        self.op.requests().into_iter().partition(|request| request.client_certificate.is_some())
    }
}

mod authentication {
    use super::*;

    #[tokio::test]
    async fn a_certificate_by_an_authority_authenticates_every_request_to_the_op() {
        let (world, _) = by_authority(|op| op.require_pushed_authorization_requests()).await;
        assert_eq!(world.client.authentication_method(), Some("tls_client_auth"));
        assert_approved(&world.outcome().await);
        for request in [Endpoint::PushedAuthorization, Endpoint::Exchange, Endpoint::Poll]
            .map(|endpoint| world.op.requests_to(endpoint).remove(0))
        {
            assert_eq!(request.parameter("client_id"), Some(CLIENT_ID));
            assert_eq!((request.parameter("client_assertion"), request.parameter("client_secret")), (None, None));
            assert!(request.client_certificate.is_some());
        }
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn public_documents_are_fetched_without_a_certificate() {
        let (world, _) = by_authority(|op| op).await;
        assert_approved(&world.outcome().await);
        let (with, without) = world.requests_with_certificate();
        assert!(without.iter().all(|request| request.endpoint < Endpoint::Token), "{without:?}");
        assert!(with.iter().all(|request| request.endpoint > Endpoint::Token), "{with:?}");
    }

    #[tokio::test]
    async fn a_registered_self_signed_certificate_authenticates_the_client() {
        let files = TestCertificate::self_signed(NAME);
        let (op, clock) = op_with(TestClient::self_signed_tls_client_auth(CLIENT_ID, &files), |op| op);
        let client = bare(&op, &clock).client_certificate(handle(&files)).discover().await.unwrap();
        assert_eq!(client.authentication_method(), Some("self_signed_tls_client_auth"));
        let world = World { op, clock, client };
        assert_approved(&world.outcome().await);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_named_method_with_a_certificate_works_as_well() {
        let (op, clock) = op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), |op| op);
        let certificate = handle(&op.client_certificate(NAME));
        let named = ClientAuthentication::tls_client_auth(certificate);
        let client = bare(&op, &clock).authentication(named).discover().await.unwrap();
        let world = World { op, clock, client };
        assert_approved(&world.outcome().await);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_certificate_is_preferred_to_a_key_and_a_secret_if_the_op_lists_it() {
        for (listed, expected) in [
            (&["private_key_jwt", "tls_client_auth", "client_secret_basic"][..], "tls_client_auth"),
            (&["private_key_jwt", "self_signed_tls_client_auth"], "private_key_jwt"),
            (&["client_secret_basic"], "client_secret_basic"),
        ] {
            let (op, clock) = op_with(TestClient::public(CLIENT_ID), |op| {
                op.metadata(move |members| {
                    members.insert("token_endpoint_auth_methods_supported".into(), json!(listed));
                })
            });
            let client = bare(&op, &clock)
                .client_secret("secret")
                .signing_key(SigningKey::generate(SigningAlgorithm::Es256).unwrap())
                .client_certificate(handle(&op.client_certificate(NAME)));
            assert_eq!(client.discover().await.unwrap().authentication_method(), Some(expected));
        }
    }

    #[tokio::test]
    async fn a_method_with_a_certificate_that_the_op_does_not_list_is_refused_at_discovery() {
        let clock = TestClock::automatic();
        let op = provider(&clock).client(TestClient::public(CLIENT_ID)).start().unwrap();
        let certificate = handle(&op.client_certificate(NAME));
        let methods = "token_endpoint_auth_methods_supported";
        for (named, name) in [
            (ClientAuthentication::tls_client_auth(certificate.clone()), "tls_client_auth"),
            (ClientAuthentication::self_signed_tls_client_auth(certificate.clone()), "self_signed_tls_client_auth"),
        ] {
            let refused = problem(bare(&op, &clock).authentication(named).discover().await);
            assert_eq!(refused, unlisted(methods, name));
        }
        let refused = problem(bare(&op, &clock).client_certificate(certificate).discover().await);
        assert_eq!(refused, unlisted(methods, "tls_client_auth"));
    }

    #[tokio::test]
    async fn a_certificate_that_the_op_does_not_know_leaves_the_grant_usable() {
        let (world, certificate) = by_authority(|op| op).await;
        let mut grant = world.grant().await;
        let strangers = [
            world.op.client_certificate("somebody.else.test"),
            world.op.expired_client_certificate(NAME),
            TestCertificate::self_signed(NAME),
        ];
        for stranger in strangers {
            certificate.replace(stranger.certificate_pem(), stranger.key_pem()).unwrap();
            let error = world.client.exchange(&mut grant).await.unwrap_err();
            assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_client"));
            assert!(!grant.is_spent());
        }
        assert!(world.op.violations().iter().all(|violation| violation.rule == RequestRule::ClientAuthentication));
        world.op.forgive();
        let renewed = world.op.client_certificate(NAME);
        certificate.replace(renewed.certificate_pem(), renewed.key_pem()).unwrap();
        assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_certificate_without_a_use_is_refused() {
        let (op, clock) = op_with(TestClient::public(CLIENT_ID), |op| op);
        let certificate = || handle(&op.client_certificate(NAME));
        let named = bare(&op, &clock).authentication(ClientAuthentication::client_secret_basic("secret"));
        assert_setting(&problem(named.client_certificate(certificate()).build()), "client_certificate");
        let named = bare(&op, &clock).authentication(ClientAuthentication::tls_client_auth(certificate()));
        assert_setting(&problem(named.client_certificate(certificate()).build()), "client_certificate");
    }
}

mod network {
    use super::*;
    use futures_core::future::BoxFuture;
    use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};

    /// An application's own network without support for certificates.
    #[derive(Debug)]
    struct Plain(Arc<dyn HttpClient>);

    impl HttpClient for Plain {
        fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
            self.0.send(request)
        }
    }

    #[tokio::test]
    async fn a_network_that_presents_no_certificates_is_refused_for_a_client_that_has_one() {
        let (op, clock) = op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), |op| op);
        let plain = Arc::new(Plain(op.http_client()));
        let client = bare(&op, &clock).client_certificate(handle(&op.client_certificate(NAME)));
        assert_setting(&problem(client.http_client(plain.clone()).build()), "http_client");
        assert!(bare(&op, &clock).http_client(plain).build().is_ok());
    }
}

mod renewal {
    use super::*;

    #[tokio::test]
    async fn a_certificate_is_renewed_while_a_sign_in_is_pending() {
        let (world, certificate) = by_authority(|op| op.decisions(DecisionPolicy::scripted())).await;
        let mut pending = world.pending().await;
        let _ = world.poll_when_due(&mut pending).await.unwrap();
        let before = certificate.current();
        let renewed = world.op.client_certificate(NAME);
        certificate.replace(renewed.certificate_pem(), renewed.key_pem()).unwrap();
        assert_ne!(certificate.current(), before);
        world.op.last_process().approve();
        assert_approved(&world.wait(&mut pending).await);
        let presented: Vec<_> = world.polls().iter().map(|poll| poll.client_certificate.clone().unwrap()).collect();
        assert_eq!(presented[0], before.certificates_der().next().unwrap());
        assert_eq!(presented[1], der(&renewed));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_self_signed_certificate_is_renewed_when_the_op_knows_both() {
        let (old, new) = (TestCertificate::self_signed(NAME), TestCertificate::self_signed(NAME));
        let registered = TestClient::self_signed_tls_client_auth(CLIENT_ID, &old).further_certificate(&new);
        let (op, clock) = op_with(registered, |op| op);
        let certificate = handle(&old);
        let client = bare(&op, &clock).client_certificate(certificate.clone()).discover().await.unwrap();
        let world = World { op, clock, client };
        let mut pending = world.pending().await;
        certificate.replace(new.certificate_pem(), new.key_pem()).unwrap();
        assert_approved(&world.wait(&mut pending).await);
        world.op.assert_clean();
    }

    #[test]
    fn an_unusable_renewal_keeps_the_previous_certificate() {
        let (one, other) = (TestCertificate::self_signed(NAME), TestCertificate::self_signed(NAME));
        let certificate = handle(&one);
        let before = certificate.current();
        for (chain, key) in [(other.certificate_pem(), one.key_pem()), ("", one.key_pem()), (one.key_pem(), "")] {
            let error = certificate.replace(chain, key).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Configuration(ConfigurationProblem::Certificate(_))), "{error}");
        }
        assert_eq!(certificate.current(), before);
    }
}

mod aliases {
    use super::*;

    #[tokio::test]
    async fn endpoints_are_called_at_their_mtls_aliases() {
        let (world, _) = bound(|op| op.mtls_endpoint_aliases().require_pushed_authorization_requests()).await;
        let authentication = world.approved().await;
        world.client.userinfo(&authentication).await.unwrap();
        let (with, without) = world.requests_with_certificate();
        assert!(with.len() >= 4);
        assert!(with.iter().all(|request| request.url.starts_with("https://mtls.op.test/")), "{with:?}");
        assert!(without.iter().all(|request| request.url.starts_with("https://op.test/")), "{without:?}");
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn each_endpoint_uses_its_own_alias_if_there_is_one() {
        let aliases = |op: TestProviderBuilder| {
            op.mtls_endpoint_aliases().require_pushed_authorization_requests().metadata(|members| {
                let aliases = members["mtls_endpoint_aliases"].as_object_mut().unwrap();
                aliases.retain(|name, _| name == "token_endpoint");
            })
        };
        let (world, _) = by_authority(aliases).await;
        assert_approved(&world.outcome().await);
        assert!(world.exchanges()[0].url.starts_with("https://mtls.op.test/"));
        assert!(world.polls().iter().all(|poll| poll.url.starts_with("https://mtls.op.test/")));
        assert!(world.op.requests_to(Endpoint::PushedAuthorization)[0].url.starts_with("https://op.test/"));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_uses_no_alias() {
        let clock = TestClock::automatic();
        let op = provider(&clock).mtls_endpoint_aliases().require_pushed_authorization_requests().start().unwrap();
        let client = client_of(&op, &clock).discover().await.unwrap();
        let world = World { op, clock, client };
        let authentication = world.approved().await;
        world.client.userinfo(&authentication).await.unwrap();
        assert!(world.op.requests().iter().all(|request| request.url.starts_with("https://op.test/")));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn rejected_tokens_are_revoked_at_the_alias() {
        let (world, _) = by_authority(|op| op.mtls_endpoint_aliases().early_access_token()).await;
        world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
            members.insert("deferred_auth_id".into(), json!(7));
        }));
        assert!(world.sign_in().await.is_err());
        let revocations = world.op.requests_to(Endpoint::Revocation);
        assert!(revocations[0].url.starts_with("https://mtls.op.test/"));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn userinfo_for_a_dpop_bound_token_is_requested_without_the_certificate() {
        let (world, _) = by_authority(|op| op.mtls_endpoint_aliases()).await;
        let authentication = world.approved().await;
        world.client.userinfo(&authentication).await.unwrap();
        let request = &world.op.requests_to(Endpoint::UserInfo)[0];
        assert!(request.url.starts_with("https://op.test/") && request.client_certificate.is_none());
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_alias_that_is_not_https_is_refused() {
        let (op, clock) = op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), |op| {
            op.metadata(|members| {
                let aliases = json!({ "token_endpoint": "http://mtls.op.test/token" });
                members.insert("mtls_endpoint_aliases".into(), aliases);
            })
        });
        let client = bare(&op, &clock).client_certificate(handle(&op.client_certificate(NAME)));
        assert_eq!(client.discover().await.unwrap_err().rule(), Some(openid_deferred::error::Rule::InsecureEndpoint));
    }
}

mod bound_tokens {
    use super::*;

    #[tokio::test]
    async fn certificate_bound_tokens_need_no_dpop_in_any_request() {
        let (world, _) = bound(|op| op).await;
        let (url, session) = world.client.authorize().pushed().start().await.unwrap();
        let query = world.op.visit(url).query();
        let signed_in = world.client.authorization_response(&query, session).await;
        let Ok(SignIn::Deferred(mut pending)) = signed_in else { panic!("{signed_in:?}") };
        assert!(pending.dpop_key().is_none());
        let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
        assert!(authentication.is_sender_constrained() && authentication.dpop_key().is_none());
        world.client.userinfo(&authentication).await.unwrap();
        let request = http::Request::get(world.op.resource()).body(Default::default()).unwrap();
        assert_eq!(world.client.resource(&authentication, request).await.unwrap().status(), 200);

        let (with, without) = world.requests_with_certificate();
        assert!(without.iter().all(|request| request.endpoint < Endpoint::Token));
        assert!(with.iter().all(|request| request.header("dpop").is_none() && request.parameter("dpop_jkt").is_none()));
        for endpoint in [Endpoint::UserInfo, Endpoint::Resource] {
            let request = with.iter().find(|request| request.endpoint == endpoint).unwrap();
            assert!(request.header("authorization").is_some_and(|header| header.starts_with("Bearer ")));
        }
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_client_with_a_key_can_have_its_tokens_bound_to_a_certificate() {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let registered = TestClient::private_key_jwt(CLIENT_ID, &serde_json::to_string(&key.public_jwk()).unwrap());
        let (op, clock) = op_with(registered.certificate_bound_access_tokens(), |op| op.mtls_endpoint_aliases());
        let client = bare(&op, &clock)
            .authentication(ClientAuthentication::private_key_jwt(key))
            .client_certificate(handle(&op.client_certificate(NAME)))
            .certificate_bound_access_tokens()
            .discover()
            .await
            .unwrap();
        let world = World { op, clock, client };
        let authentication = world.approved().await;
        world.client.userinfo(&authentication).await.unwrap();
        let exchange = &world.exchanges()[0];
        assert!(exchange.client_certificate.is_some() && exchange.parameter("client_assertion").is_some());
        assert!(exchange.url.starts_with("https://mtls.op.test/"));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn bound_tokens_are_refused_with_another_certificate() {
        let (world, certificate) = bound(|op| op).await;
        let authentication = world.approved().await;
        let renewed = world.op.client_certificate(NAME);
        certificate.replace(renewed.certificate_pem(), renewed.key_pem()).unwrap();
        assert!(world.client.userinfo(&authentication).await.is_err());
        assert_eq!(world.op.violations()[0].rule, RequestRule::CertificateChanged);
    }

    #[tokio::test]
    async fn certificate_bound_tokens_stay_bound_after_sealing_and_need_the_certificate() {
        let (world, _) = bound(|op| op).await;
        let keyring = crate::support::keyring();
        let sealed = world.approved().await.seal(&keyring).unwrap();
        let authentication = Authentication::open(&keyring, &sealed).unwrap();
        assert!(authentication.is_sender_constrained());
        world.client.userinfo(&authentication).await.unwrap();
        let without = bare(&world.op, &world.clock).build().unwrap();
        let error = without.userinfo(&authentication).await.unwrap_err();
        let ErrorKind::Configuration(problem) = error.kind() else { panic!("{error:?}") };
        assert_setting(problem, "client_certificate");
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn bound_tokens_are_refreshed_introspected_and_revoked_with_the_certificate() {
        for op in [|op: TestProviderBuilder| op, TestProviderBuilder::mtls_endpoint_aliases] {
            let (world, _) = bound(op).await;
            let mut authentication = world.approved().await;
            world.client.refresh(&mut authentication).await.unwrap();
            assert!(authentication.is_sender_constrained() && authentication.dpop_key().is_none());
            world.client.userinfo(&authentication).await.unwrap();
            let token = authentication.access_token().unwrap();
            let answer = world.client.introspect(token, None).await.unwrap();
            assert!(answer.confirmation().unwrap().contains_key("x5t#S256"));
            let error = world.client.refresh_with_new_key(&mut authentication).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Configuration(_)), "{error:?}");
            world.client.revoke(&authentication).await.unwrap();
            let (with, _) = world.requests_with_certificate();
            for endpoint in [Endpoint::Refresh, Endpoint::Introspection, Endpoint::Revocation] {
                let request = with.iter().find(|request| request.endpoint == endpoint).unwrap();
                assert!(request.header("dpop").is_none(), "{endpoint}");
            }
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn certificate_bound_tokens_are_kept_under_drop_unbound_tokens() {
        let registered = TestClient::tls_client_auth(CLIENT_ID, NAME).certificate_bound_access_tokens();
        let (op, clock) = op_with(registered, |op| op);
        let client = bare(&op, &clock)
            .client_certificate(handle(&op.client_certificate(NAME)))
            .certificate_bound_access_tokens()
            .drop_unbound_tokens();
        let world = World { client: client.discover().await.unwrap(), op, clock };
        assert!(world.approved().await.access_token().is_some());
    }

    #[tokio::test]
    async fn a_process_is_cancelled_with_the_certificate() {
        let (world, _) = bound(|op| op.decisions(DecisionPolicy::scripted())).await;
        let mut pending = world.pending().await;
        assert_eq!(world.client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
        assert!(world.op.requests_to(Endpoint::Cancellation)[0].client_certificate.is_some());
        assert!(matches!(world.wait(&mut pending).await, Outcome::Cancelled));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn the_code_flow_issues_certificate_bound_tokens() {
        let (world, _) = bound(|op| op.answer_with_code()).await;
        let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
        let (url, session) = request.start().await.unwrap();
        let signed_in = world.client.authorization_response(&world.op.visit(url).query(), session).await;
        let Ok(SignIn::Complete(authentication)) = signed_in else { panic!("{signed_in:?}") };
        assert!(authentication.is_sender_constrained());
        world.client.userinfo(&authentication).await.unwrap();
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn certificate_bound_tokens_and_dpop_together_are_refused_at_discovery() {
        let (op, clock) = op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), |op| op);
        let with = || bare(&op, &clock).client_certificate(handle(&op.client_certificate(NAME)));
        let key = openid_deferred::DpopKey::generate(SigningAlgorithm::Es256).unwrap();
        for mode in [DpopMode::PerProcess, DpopMode::Shared(key)] {
            let both = with().certificate_bound_access_tokens().dpop(mode);
            assert_setting(&problem(both.discover().await), "dpop");
        }
        assert!(with().certificate_bound_access_tokens().dpop(DpopMode::Off).discover().await.is_ok());
        let by_token = with().certificate_bound_access_tokens().poll_credential(PollCredential::AccessToken);
        assert_setting(&problem(by_token.build()), "poll_credential");
        let without = bare(&op, &clock).certificate_bound_access_tokens();
        assert_setting(&problem(without.build()), "certificate_bound_access_tokens");
    }

    #[tokio::test]
    async fn an_op_that_binds_no_tokens_to_certificates_is_refused_at_discovery() {
        let (op, clock) = op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), |op| {
            op.metadata(|members| drop(members.remove("tls_client_certificate_bound_access_tokens")))
        });
        let client = || {
            bare(&op, &clock).client_certificate(handle(&op.client_certificate(NAME))).certificate_bound_access_tokens()
        };
        let refused = problem(client().discover().await);
        assert_eq!(refused, unlisted("tls_client_certificate_bound_access_tokens", "true"));
        assert!(client().allow_unadvertised().discover().await.is_ok());
    }
}

/// The same over real connections, with each of the TLS libraries.
mod connections {
    use super::*;

    const LIBRARIES: [fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder; 2] =
        [reqwest::ClientBuilder::tls_backend_rustls, reqwest::ClientBuilder::tls_backend_native];

    fn op_with(
        registered: TestClient,
        op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    ) -> (TestProvider, TestClock) {
        let clock = TestClock::automatic();
        let builder = TestProvider::builder()
            .https()
            .mutual_tls()
            .clock(Arc::new(clock.clone()))
            .client(registered.redirect_uri(REDIRECT_URI))
            .user(TestUser::new("user-1"))
            .decisions(DecisionPolicy::after_polls(1));
        (op(builder).start().expect("a loopback socket can be opened"), clock)
    }

    fn client_of(
        op: &TestProvider,
        clock: &TestClock,
        library: fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> ClientBuilder {
        let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap().as_bytes()).unwrap();
        Client::builder(op.issuer(), CLIENT_ID)
            .redirect_uri(REDIRECT_URI)
            .clock(Arc::new(clock.clone()))
            .configure_http(move |http| library(http.no_proxy()).tls_certs_only([authority.clone()]))
    }

    #[tokio::test]
    async fn both_tls_libraries_present_the_certificate_and_its_renewal() {
        for library in LIBRARIES {
            let (op, clock) = op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), |op| op.mtls_endpoint_aliases());
            let certificate = handle(&op.client_certificate(NAME));
            let client = client_of(&op, &clock, library).client_certificate(certificate.clone());
            let world = World { client: client.discover().await.unwrap(), op, clock };
            let mut pending = world.pending().await;
            let renewed = world.op.client_certificate(NAME);
            certificate.replace(renewed.certificate_pem(), renewed.key_pem()).unwrap();
            assert_approved(&world.wait(&mut pending).await);
            let last = world.polls().pop().unwrap();
            assert_eq!(last.client_certificate.as_deref(), Some(&der(&renewed)[..]));
            assert_ne!(world.exchanges()[0].client_certificate, last.client_certificate);
            let alias =
                &world.client.provider_metadata().await.unwrap().mtls_endpoint_aliases()["token_endpoint"].clone();
            assert_eq!(last.url, alias.as_str());
            let (_, without) = world.requests_with_certificate();
            assert!(without.iter().all(|request| request.endpoint < Endpoint::Token));
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn tokens_bound_to_the_certificate_work_over_real_connections() {
        for library in LIBRARIES {
            let files = TestCertificate::self_signed(NAME);
            let registered =
                TestClient::self_signed_tls_client_auth(CLIENT_ID, &files).certificate_bound_access_tokens();
            let (op, clock) = op_with(registered, |op| op);
            let client = client_of(&op, &clock, library).client_certificate(handle(&files));
            let client = client.certificate_bound_access_tokens().discover().await.unwrap();
            let world = World { client, op, clock };
            let authentication = world.approved().await;
            assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_connects_to_an_op_that_requests_one() {
        for library in LIBRARIES {
            let (op, clock) = op_with(TestClient::public(CLIENT_ID), |op| op);
            let client = client_of(&op, &clock, library).discover().await.unwrap();
            let world = World { client, op, clock };
            assert_approved(&world.outcome().await);
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn a_request_that_needs_a_certificate_is_not_sent_over_plain_http() {
        let clock = TestClock::automatic();
        let op = TestProvider::builder()
            .clock(Arc::new(clock.clone()))
            .client(TestClient::public(CLIENT_ID))
            .metadata(|members| {
                members.insert("token_endpoint_auth_methods_supported".into(), json!(["tls_client_auth"]));
            })
            .start()
            .unwrap();
        let client = Client::builder(op.issuer(), CLIENT_ID)
            .redirect_uri(REDIRECT_URI)
            .clock(Arc::new(clock.clone()))
            .allow_insecure_loopback()
            .client_certificate(handle(&op.client_certificate(NAME)))
            .discover()
            .await
            .unwrap();
        let world = World { client, op, clock };
        let mut grant = world.grant().await;
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Refused));
        assert!(!grant.is_spent());
        world.assert_nothing_sent();
    }

    /// Over HTTP/2 the order is not fixed: the alert may arrive before or after the request is sent on its stream.
    #[tokio::test]
    async fn a_certificate_that_tls_refuses_leaves_the_grant_usable() {
        for library in LIBRARIES {
            let (op, clock) =
                op_with(TestClient::tls_client_auth(CLIENT_ID, NAME), |op| op.require_client_certificates());
            let certificate = handle(&op.client_certificate(NAME));
            let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap().as_bytes()).unwrap();
            let client = client_of(&op, &clock, library)
                .client_certificate(certificate.clone())
                .configure_http(move |http| library(http.no_proxy()).tls_certs_only([authority.clone()]).http1_only());
            let world = World { client: client.discover().await.unwrap(), op, clock };
            let mut grant = world.grant().await;
            for stranger in [world.op.expired_client_certificate(NAME), TestCertificate::self_signed(NAME)] {
                certificate.replace(stranger.certificate_pem(), stranger.key_pem()).unwrap();
                let error = world.client.exchange(&mut grant).await.unwrap_err();
                assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Broken), "{error:?}");
                assert!(!grant.is_spent());
                world.assert_nothing_sent();
            }
            let renewed = world.op.client_certificate(NAME);
            certificate.replace(renewed.certificate_pem(), renewed.key_pem()).unwrap();
            assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
            world.op.assert_clean();
        }
    }
}
