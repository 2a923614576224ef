//! OpenID Connect Discovery 1.0 §4, RFC 8414 §3, and DTR §Authorization Server Metadata.

use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::{ConfigurationProblem, Document, Rule, TransportProblem};
use openid_deferred::testing::{DiscoveryForm, Endpoint, Fault, TestClock, TestProvider, TestProviderBuilder};
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use openid_deferred::{Client, ClientBuilder, Error, ErrorKind, Outcome, SigningAlgorithm};
use serde_json::{Map, Value, json};

use crate::support::{CLIENT_ID, REDIRECT_URI, client_of, provider, world, world_with};

/// A provider before the first request of a client.
fn op_with(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> (TestProvider, TestClock) {
    let clock = TestClock::automatic();
    (op(provider(&clock)).start().expect("a provider in process starts"), clock)
}

async fn discovered(op: &TestProvider, clock: &TestClock) -> Result<Client, Error> {
    client_of(op, clock).discover().await
}

/// The error of discovery for metadata that was changed. Only the metadata may have been requested.
async fn refusal(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Error {
    let (op, clock) = op_with(|op| op.metadata(edit));
    let error = discovered(&op, &clock).await.expect_err("such metadata is refused");
    assert!(op.requests().iter().all(|request| request.endpoint == Endpoint::Metadata));
    op.assert_clean();
    error
}

/// The error of discovery if one document cannot be fetched.
async fn failure(fault: Fault) -> Error {
    let (op, clock) = op_with(|op| op);
    op.misbehave(fault);
    let error = discovered(&op, &clock).await.expect_err("such a document is refused");
    assert_eq!(error.step(), Some("discovering the OP"));
    op.assert_clean();
    error
}

fn set(members: &mut Map<String, Value>, name: &str, value: Value) {
    members.insert(name.to_owned(), value);
}

#[track_caller]
fn problem(error: &Error) -> &ConfigurationProblem {
    match error.kind() {
        ErrorKind::Configuration(problem) => problem,
        other => panic!("{other:?}"),
    }
}

/// The violation that an error is, or that is its source.
#[track_caller]
fn violation(error: &Error) -> (Rule, Option<Document>) {
    match error.kind() {
        ErrorKind::Protocol(violation) if violation.rule() == Rule::KeysUnavailable => violation_below(error),
        ErrorKind::Protocol(violation) => (violation.rule(), violation.document()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn violation_below(error: &Error) -> (Rule, Option<Document>) {
    violation(crate::steps::cause(error))
}

mod issuer {
    use super::*;

    #[tokio::test]
    async fn metadata_of_another_issuer_is_refused_and_nothing_further_is_called() {
        for issuer in ["https://evil.test", "https://op.test/", "https://OP.test", "https://op.test:443", ""] {
            let error = refusal(move |members| set(members, "issuer", json!(issuer))).await;
            assert_eq!(error.rule(), Some(Rule::IssuerMismatch), "{issuer}");
        }
    }

    #[tokio::test]
    async fn metadata_without_an_issuer_is_refused() {
        let error = refusal(|members| drop(members.remove("issuer"))).await;
        assert_eq!(violation(&error), (Rule::MissingMember, Some(Document::Metadata)));
        let error = refusal(|members| set(members, "issuer", json!(["https://op.test"]))).await;
        assert_eq!(violation(&error), (Rule::InvalidMember, Some(Document::Metadata)));
    }

    #[tokio::test]
    async fn an_issuer_with_a_trailing_slash_is_another_issuer() {
        let (op, clock) = op_with(|op| op);
        let client = Client::builder(format!("{}/", op.issuer()), CLIENT_ID)
            .redirect_uri(REDIRECT_URI)
            .http_client(op.http_client())
            .clock(Arc::new(clock.clone()));
        assert_eq!(client.discover().await.unwrap_err().rule(), Some(Rule::IssuerMismatch));
        assert_eq!(op.requests().len(), 1);
    }

    #[tokio::test]
    async fn an_issuer_with_a_path_is_found_in_every_form() {
        for form in [DiscoveryForm::OpenId, DiscoveryForm::OAuth, DiscoveryForm::OpenIdInfix] {
            let world = world_with(|op| op.path("/tenant/7").discovery(form), |client| client).await;
            assert!(matches!(world.outcome().await, Outcome::Approved(_)), "{form:?}");
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn an_issuer_without_a_path_is_found_in_both_forms() {
        for form in [DiscoveryForm::OpenId, DiscoveryForm::OAuth] {
            let world = world_with(|op| op.discovery(form), |client| client).await;
            assert_eq!(world.client.provider_metadata().await.unwrap().issuer(), world.op.issuer());
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn a_missing_document_is_fetched_from_the_other_locations() {
        for status in [400, 401, 403, 404, 405, 410] {
            let (op, clock) = op_with(|op| op.path("/tenant"));
            op.misbehave(Fault::status(Endpoint::Metadata, status));
            discovered(&op, &clock).await.unwrap_err();
            assert_eq!(op.requests().len(), 3, "{status}");
        }
        for status in [408, 429, 500, 503] {
            let (op, clock) = op_with(|op| op.path("/tenant"));
            op.misbehave(Fault::status(Endpoint::Metadata, status));
            discovered(&op, &clock).await.unwrap_err();
            assert_eq!(op.requests().len(), 1, "{status}");
        }
    }

    /// A network in which the first location of an OP's metadata answers like this. The second one has the metadata.
    #[derive(Debug)]
    struct FirstPlace {
        op: Arc<dyn HttpClient>,
        status: u16,
        media_type: &'static str,
    }

    impl HttpClient for FirstPlace {
        fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
            if request.url.path() != "/.well-known/openid-configuration" {
                return self.op.send(request);
            }
            let status = http::StatusCode::from_u16(self.status).unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert("content-type", self.media_type.parse().unwrap());
            headers.insert("location", "https://op.test/login".parse().unwrap());
            Box::pin(async move { Ok(HttpResponse { status, headers, body: "<!doctype html>".into() }) })
        }
    }

    #[tokio::test]
    async fn html_or_a_redirect_at_one_metadata_url_leads_to_the_other() {
        for (status, rule) in
            [(200, Rule::UnexpectedContentType), (302, Rule::UnexpectedRedirect), (307, Rule::UnexpectedRedirect)]
        {
            let (op, clock) = op_with(|op| op.discovery(DiscoveryForm::OAuth));
            let network = || Arc::new(FirstPlace { op: op.http_client(), status, media_type: "text/html" });
            client_of(&op, &clock).http_client(network()).discover().await.unwrap();
            op.assert_clean();
            // If neither location has the metadata, the error is about the first one.
            op.misbehave(Fault::status(Endpoint::Metadata, 404));
            let error = client_of(&op, &clock).http_client(network()).discover().await.unwrap_err();
            assert_eq!(error.rule(), Some(rule), "{status}");
            assert_eq!(op.faults_left(), 0);
        }
    }

    #[tokio::test]
    async fn an_invalid_issuer_is_refused_without_a_request() {
        for issuer in ["", "op.test", "https://op.test?tenant=1", "https://op.test#x", "https://user@op.test"] {
            let error = Client::builder(issuer, CLIENT_ID).build().unwrap_err();
            assert!(matches!(problem(&error), ConfigurationProblem::Setting { setting: "issuer", .. }), "{issuer}");
        }
    }

    #[tokio::test]
    async fn plain_http_is_refused_without_a_request() {
        for issuer in ["http://op.test", "http://127.0.0.1:8080"] {
            let error = Client::builder(issuer, CLIENT_ID).build().unwrap_err();
            assert_eq!(*problem(&error), ConfigurationProblem::InsecureUrl { name: "issuer" });
        }
        let error = Client::builder("http://op.test", CLIENT_ID).allow_insecure_loopback().build().unwrap_err();
        assert_eq!(*problem(&error), ConfigurationProblem::InsecureUrl { name: "issuer" });
    }
}

mod documents {
    use super::*;

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        for endpoint in [Endpoint::Metadata, Endpoint::Keys] {
            for status in [301, 302, 303, 307, 308] {
                let (op, clock) = op_with(|op| op);
                op.misbehave(Fault::status(endpoint, status).header("Location", "https://op.test/resource"));
                let error = discovered(&op, &clock).await.unwrap_err();
                assert_eq!(violation(&error).0, Rule::UnexpectedRedirect);
                assert!(op.requests_to(Endpoint::Resource).is_empty());
            }
        }
    }

    #[tokio::test]
    async fn a_document_that_is_not_a_json_object_is_refused_by_name() {
        for body in ["", "[]", "null", "\"https://op.test\"", "{\"issuer\":", "{}{}"] {
            let error = failure(Fault::response(Endpoint::Metadata, 200, "application/json", body)).await;
            assert_eq!(violation(&error), (Rule::MalformedJson, Some(Document::Metadata)), "{body}");
        }
        for body in ["", "[]", "null", "7", "{\"keys\":[}", "{\"keys\":", "{}{}"] {
            let error = failure(Fault::response(Endpoint::Keys, 200, "application/json", body)).await;
            assert_eq!(violation(&error), (Rule::MalformedJson, Some(Document::KeySet)), "{body}");
        }
        let error = failure(Fault::response(Endpoint::Keys, 200, "application/json", "{\"keys\":{}}")).await;
        assert_eq!(violation(&error), (Rule::InvalidMember, Some(Document::KeySet)));
    }

    #[tokio::test]
    async fn malformed_json_is_reported_with_its_position() {
        let body = "{\n  \"issuer\": \"https://op.test\",,\n}";
        let error = failure(Fault::response(Endpoint::Metadata, 200, "application/json", body)).await;
        let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
        let position = violation.position().unwrap();
        assert_eq!((position.line, position.column), (2, 31));
    }

    #[tokio::test]
    async fn an_html_page_is_refused() {
        let error = failure(Fault::status(Endpoint::Metadata, 200)).await;
        assert_eq!(violation(&error), (Rule::UnexpectedContentType, Some(Document::Metadata)));
        let error = failure(Fault::status(Endpoint::Keys, 200)).await;
        assert_eq!(violation(&error).1, Some(Document::KeySet));
    }

    #[tokio::test]
    async fn a_status_other_than_200_is_refused() {
        for (endpoint, document) in [(Endpoint::Metadata, Document::Metadata), (Endpoint::Keys, Document::KeySet)] {
            for status in [201, 204, 400, 500, 503] {
                let error = failure(Fault::response(endpoint, status, "application/json", "{}")).await;
                assert_eq!(violation(&error), (Rule::UnexpectedStatus, Some(document)), "{status}");
                assert!(error.is_transient());
            }
        }
    }

    #[tokio::test]
    async fn a_compressed_or_plain_body_over_the_limit_is_refused() {
        for fault in [
            Fault::huge_body(Endpoint::Metadata, 4_000_000),
            Fault::gzip_bomb(Endpoint::Metadata, 2_000_000),
            Fault::endless_body(Endpoint::Metadata),
        ] {
            let error = failure(fault).await;
            let too_large = TransportProblem::BodyTooLarge(Document::Metadata);
            assert_eq!(*error.kind(), ErrorKind::Transport(too_large));
        }
        let error = failure(Fault::gzip_bomb(Endpoint::Keys, 2_000_000)).await;
        assert_eq!(error.rule(), Some(Rule::KeysUnavailable));
        let too_large = TransportProblem::BodyTooLarge(Document::KeySet);
        assert_eq!(*crate::steps::cause(&error).kind(), ErrorKind::Transport(too_large));
    }

    #[tokio::test]
    async fn discovery_of_an_op_that_never_answers_ends_with_a_timeout() {
        let error = failure(Fault::stall(Endpoint::Metadata)).await;
        assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Timeout));
        assert!(error.is_transient());
    }

    #[tokio::test]
    async fn a_member_repeated_with_different_values_is_refused() {
        let body = r#"{"issuer":"https://other.test","issuer":"https://op.test"}"#;
        let error = failure(Fault::response(Endpoint::Metadata, 200, "application/json", body)).await;
        assert_eq!(violation(&error), (Rule::RepeatedMember, Some(Document::Metadata)));
    }

    #[tokio::test]
    async fn a_key_set_without_a_usable_key_is_refused() {
        let body = r#"{"keys":[{"kty":"XYZ"},{},7]}"#;
        let error = failure(Fault::response(Endpoint::Keys, 200, "application/json", body)).await;
        assert_eq!(violation(&error).0, Rule::NoUsableKey);
    }
}

mod members {
    use super::*;

    #[tokio::test]
    async fn an_insecure_endpoint_is_refused() {
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            for url in ["http://op.test/x", "http://127.0.0.1/x", "ftp://op.test/x", "https://user:pw@op.test/x"] {
                let error = refusal(move |members| set(members, name, json!(url))).await;
                let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
                assert_eq!((violation.rule(), violation.member()), (Rule::InsecureEndpoint, Some(name)), "{url}");
            }
        }
    }

    #[tokio::test]
    async fn an_invalid_endpoint_fails_only_the_calls_that_need_it() {
        for (url, rule) in [
            (json!(""), Rule::InvalidMember),
            (json!("/x"), Rule::InvalidMember),
            (json!(7), Rule::InvalidMember),
            (json!("http://op.test/x"), Rule::InsecureEndpoint),
            (json!("https://10.0.0.1/x"), Rule::PrivateEndpoint),
        ] {
            let edit = move |members: &mut Map<String, Value>| {
                for name in
                    ["userinfo_endpoint", "revocation_endpoint", "end_session_endpoint", "registration_endpoint"]
                {
                    set(members, name, url.clone());
                }
                set(members, "pushed_authorization_request_endpoint", url.clone());
                set(members, "request_parameter_supported", json!("maybe"));
            };
            let world = world_with(|op| op.metadata(edit), |client| client).await;
            let Outcome::Approved(authentication) = world.outcome().await else { panic!("not approved") };
            let broken = |error: Error| match error.kind() {
                ErrorKind::Protocol(violation) => (violation.rule(), violation.member()),
                other => panic!("{other:?}"),
            };
            let error = world.client.userinfo(&authentication).await.unwrap_err();
            assert_eq!(broken(error), (rule, Some("userinfo_endpoint")));
            let error = world.client.authorize().pushed().start().await.unwrap_err();
            assert_eq!(broken(error), (rule, Some("pushed_authorization_request_endpoint")));
            let pushing = client_of(&world.op, &world.clock).pushed_authorization_requests();
            assert_eq!(broken(pushing.discover().await.unwrap_err()).0, rule);
            assert_eq!(world.client.provider_metadata().await.unwrap().end_session_endpoint(), None);
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn a_missing_required_endpoint_is_refused() {
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            for value in [None, Some(Value::Null)] {
                let error = refusal(move |members| {
                    members.remove(name);
                    members.extend(value.clone().map(|value| (name.to_owned(), value)));
                })
                .await;
                let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
                assert_eq!((violation.rule(), violation.member()), (Rule::MissingMember, Some(name)));
            }
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_a_url_is_refused() {
        for value in
            [json!("/token"), json!(""), json!(7), json!(["https://op.test/token"]), json!("https://op.test/#x")]
        {
            let error = refusal(move |members| set(members, "token_endpoint", value.clone())).await;
            let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
            assert_eq!((violation.rule(), violation.member()), (Rule::InvalidMember, Some("token_endpoint")));
        }
    }

    #[tokio::test]
    async fn optional_endpoints_may_be_missing_and_unknown_members_are_ignored() {
        let world = world_with(
            |op| {
                op.metadata(|members| {
                    for name in ["userinfo_endpoint", "revocation_endpoint", "scopes_supported"] {
                        members.remove(name);
                    }
                    set(members, "claims_supported", json!({ "not": "a list" }));
                    set(members, "surprise", json!([[[]]]));
                })
            },
            |client| client,
        )
        .await;
        assert!(matches!(world.outcome().await, Outcome::Approved(_)));
        let metadata = world.client.provider_metadata().await.unwrap();
        assert_eq!(metadata.extra("surprise"), Some(&json!([[[]]])));
    }

    #[tokio::test]
    async fn aliases_for_certificates_are_not_used_without_one() {
        let world = world_with(
            |op| {
                op.metadata(|members| {
                    let aliases = json!({ "token_endpoint": "https://mtls.op.test/token" });
                    set(members, "mtls_endpoint_aliases", aliases);
                })
            },
            |client| client,
        )
        .await;
        assert!(matches!(world.outcome().await, Outcome::Approved(_)));
        assert!(world.exchanges().iter().all(|request| request.url == "https://op.test/token"));
        let metadata = world.client.provider_metadata().await.unwrap();
        assert!(metadata.mtls_endpoint_aliases().contains_key("token_endpoint"));
        world.op.assert_clean();
    }
}

mod advertised {
    use super::*;

    fn not_advertised(member: &'static str, value: &str) -> ConfigurationProblem {
        ConfigurationProblem::NotAdvertised { member, value: value.to_owned() }
    }

    async fn accepted(
        edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
        client: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) {
        let world = world_with(|op| op.metadata(edit), client).await;
        assert!(matches!(world.outcome().await, Outcome::Approved(_)));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_op_without_the_response_type_is_refused() {
        for listed in [Some(json!(["code", "code id_token"])), Some(json!([])), None] {
            let error = refusal(move |members| {
                members.remove("response_types_supported");
                members.extend(listed.clone().map(|listed| ("response_types_supported".to_owned(), listed)));
            })
            .await;
            assert_eq!(*problem(&error), not_advertised("response_types_supported", "deferred_code"));
        }
    }

    #[tokio::test]
    async fn an_op_without_the_deferred_grant_is_refused() {
        for listed in [Some(json!(["authorization_code"])), Some(json!([])), None] {
            let error = refusal(move |members| {
                members.remove("grant_types_supported");
                members.extend(listed.clone().map(|listed| ("grant_types_supported".to_owned(), listed)));
            })
            .await;
            let grant = "urn:openid:params:grant-type:deferred";
            assert_eq!(*problem(&error), not_advertised("grant_types_supported", grant));
        }
    }

    #[tokio::test]
    async fn an_op_that_does_not_advertise_the_flow_can_be_used_by_setting() {
        let edit = |members: &mut Map<String, Value>| {
            members.remove("response_types_supported");
            members.remove("grant_types_supported");
        };
        accepted(edit, |client| client.allow_unadvertised()).await;
    }

    #[tokio::test]
    async fn the_order_of_response_type_values_does_not_matter() {
        accepted(|members| set(members, "response_types_supported", json!(["code deferred_code"])), |client| client)
            .await;
    }

    #[tokio::test]
    async fn an_unlisted_response_type_combination_is_a_warning_unless_strict() {
        let other = |members: &mut Map<String, Value>| {
            set(members, "response_types_supported", json!(["deferred_code code"]));
        };
        accepted(other, |client| client).await;
        let (op, clock) = op_with(|op| op.metadata(other));
        let error = client_of(&op, &clock).strict_response_types().discover().await.unwrap_err();
        assert_eq!(*problem(&error), not_advertised("response_types_supported", "deferred_code"));
    }

    #[tokio::test]
    async fn the_first_of_our_dpop_algorithms_that_the_op_lists_is_used() {
        for (listed, chosen) in [
            (json!(["PS256", "EdDSA"]), SigningAlgorithm::EdDsa),
            (json!(["RS256", "PS256"]), SigningAlgorithm::Ps256),
            (json!(["PS256", "ES256"]), SigningAlgorithm::Es256),
            (json!([]), SigningAlgorithm::Es256),
        ] {
            let edit = move |members: &mut Map<String, Value>| {
                set(members, "dpop_signing_alg_values_supported", listed.clone())
            };
            let world = world_with(|op| op.metadata(edit), |client| client).await;
            let pending = world.pending().await;
            assert_eq!(pending.dpop_key().map(|key| key.algorithm()), Some(chosen));
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn an_op_without_an_acceptable_id_token_algorithm_is_refused_at_discovery() {
        const MEMBER: &str = "id_token_signing_alg_values_supported";
        for listed in [json!(["HS256"]), json!(["none"]), json!(["Ed448"]), json!([]), json!(["HS256", "none", "XY"])] {
            let edit = move |members: &mut Map<String, Value>| set(members, MEMBER, listed.clone());
            let error = refusal(edit.clone()).await;
            let ConfigurationProblem::NotAdvertised { member, .. } = problem(&error) else { panic!("{error:?}") };
            assert_eq!(*member, MEMBER);
            assert!(error.to_string().contains("`allow_unadvertised()`"), "{error}");

            // A client that was built while the OP was unavailable notices before it sends a user out.
            let (op, clock) = op_with(|op| op.metadata(edit));
            let error = client_of(&op, &clock).build().unwrap().authorize().start().await.unwrap_err();
            assert!(matches!(problem(&error), ConfigurationProblem::NotAdvertised { member: MEMBER, .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_configured_id_token_algorithm_must_be_listed_if_the_op_lists_any() {
        const MEMBER: &str = "id_token_signing_alg_values_supported";
        let es256 = |client: ClientBuilder| {
            client.algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
        };
        for listed in [json!(["RS256"]), json!([]), json!(["HS256"])] {
            let edit = move |members: &mut Map<String, Value>| set(members, MEMBER, listed.clone());
            let (op, clock) = op_with(|op| op.metadata(edit.clone()));
            let error = es256(client_of(&op, &clock)).discover().await.unwrap_err();
            assert_eq!(*problem(&error), not_advertised(MEMBER, "ES256"));
            accepted(edit, |client| es256(client).allow_unadvertised()).await;
        }
        accepted(|members| drop(members.remove(MEMBER)), es256).await;
        accepted(|members| set(members, MEMBER, json!(["RS256", "ES256"])), es256).await;
    }

    #[tokio::test]
    async fn every_list_of_algorithms_can_be_overridden_as_its_error_says() {
        for member in [
            "token_endpoint_auth_methods_supported",
            "dpop_signing_alg_values_supported",
            "id_token_signing_alg_values_supported",
        ] {
            let edit = move |members: &mut Map<String, Value>| set(members, member, json!(["XY"]));
            let error = refusal(edit).await;
            let ConfigurationProblem::NotAdvertised { member: named, .. } = problem(&error) else {
                panic!("{error:?}")
            };
            assert_eq!(*named, member);
            let (op, clock) = op_with(|op| op.metadata(edit));
            client_of(&op, &clock).allow_unadvertised().discover().await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_op_with_none_of_our_dpop_algorithms_is_refused_unless_dpop_is_off() {
        let edit = |members: &mut Map<String, Value>| {
            set(members, "dpop_signing_alg_values_supported", json!(["ES512"]));
        };
        let error = refusal(edit).await;
        let ConfigurationProblem::NotAdvertised { member, .. } = problem(&error) else { panic!("{error:?}") };
        assert_eq!(*member, "dpop_signing_alg_values_supported");
        accepted(edit, |client| client.dpop(openid_deferred::DpopMode::Off)).await;
    }
}

mod when {
    use super::*;

    #[tokio::test]
    async fn building_a_client_sends_no_request_and_the_first_use_discovers() {
        let (op, clock) = op_with(|op| op);
        let client = client_of(&op, &clock).build().unwrap();
        assert!(op.requests().is_empty());
        let _ = client.authorize().start().await.unwrap();
        assert_eq!(op.requests_to(Endpoint::Metadata).len(), 1);
        op.assert_clean();
    }

    #[tokio::test]
    async fn an_application_starts_while_the_op_is_down_and_works_once_it_is_up() {
        let (op, clock) = op_with(|op| op);
        op.misbehave(Fault::status(Endpoint::Metadata, 503).always());
        let client = client_of(&op, &clock).build().unwrap();
        let error = client.authorize().start().await.unwrap_err();
        assert!(error.is_transient());
        op.behave();
        clock.advance(Duration::from_secs(60));
        assert!(client.authorize().start().await.is_ok());
        op.assert_clean();
    }

    #[tokio::test]
    async fn metadata_is_fetched_again_if_the_token_endpoint_has_moved_and_at_most_once_a_minute() {
        let fetched = |op: &TestProvider| op.requests_to(Endpoint::Metadata).len();
        for fault in [
            Fault::status(Endpoint::Poll, 404),
            Fault::status(Endpoint::Poll, 405),
            Fault::status(Endpoint::Poll, 410),
            Fault::status(Endpoint::Poll, 307).header("Location", "https://op.test/new/token"),
        ] {
            let world = world().await;
            let mut pending = world.pending().await;
            world.clock.advance(Duration::from_secs(60));
            world.op.misbehave(fault);
            world.client.poll(&mut pending).await.unwrap_err();
            assert_eq!(fetched(&world.op), 1);
            assert!(matches!(world.client.wait(&mut pending).await.unwrap(), Outcome::Approved(_)));
            assert_eq!(fetched(&world.op), 2);
        }

        let (world, cable) = crate::support::world_on_a_cable(|op| op).await;
        let mut pending = world.pending().await;
        world.clock.advance(Duration::from_secs(60));
        cable.unplug();
        world.client.poll(&mut pending).await.unwrap_err();
        cable.plug_in();
        assert!(matches!(world.client.wait(&mut pending).await.unwrap(), Outcome::Approved(_)));
        assert_eq!(fetched(&world.op), 2);
    }

    #[tokio::test]
    async fn metadata_with_a_wrong_token_endpoint_is_fetched_at_most_once_a_minute() {
        let world = world().await;
        world.op.misbehave(Fault::status(Endpoint::PushedAuthorization, 404).always());
        let before = world.op.requests_to(Endpoint::Metadata).len();
        for _ in 0..60 {
            world.client.authorize().pushed().start().await.unwrap_err();
            world.clock.advance(Duration::from_secs(5));
        }
        let fetched = world.op.requests_to(Endpoint::Metadata).len() - before;
        assert!((4..=5).contains(&fetched), "{fetched} times in five minutes");
    }

    #[tokio::test]
    async fn fresh_metadata_is_not_fetched_again() {
        let world = world().await;
        for _ in 0..3 {
            let _ = world.pending().await;
        }
        assert_eq!(world.op.requests_to(Endpoint::Metadata).len(), 1);
        assert_eq!(world.op.requests_to(Endpoint::Keys).len(), 1);
    }

    #[tokio::test]
    async fn a_feature_that_the_op_no_longer_advertises_ends_no_sign_in() {
        let world = world().await;
        world.op.misbehave(
            Fault::edit_json(Endpoint::Metadata, |members| {
                members.remove("response_types_supported");
                members.remove("grant_types_supported");
            })
            .always(),
        );
        world.clock.advance(Duration::from_secs(2 * 3_600));
        assert!(matches!(world.outcome().await, Outcome::Approved(_)));
        assert!(world.op.requests_to(Endpoint::Metadata).len() > 1);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn hostile_newer_metadata_is_refused_and_the_old_metadata_is_used() {
        let world = world().await;
        world.op.misbehave(
            Fault::edit_json(Endpoint::Metadata, |members| {
                set(members, "issuer", json!("https://evil.test"));
                set(members, "token_endpoint", json!("https://evil.test/token"));
            })
            .always(),
        );
        world.clock.advance(Duration::from_secs(2 * 3_600));
        assert!(matches!(world.outcome().await, Outcome::Approved(_)));
        assert!(world.op.requests_to(Endpoint::Metadata).len() > 1);
        world.op.assert_clean();
    }
}

mod settings {
    use super::*;

    fn setting(builder: ClientBuilder) -> &'static str {
        let error = builder.build().unwrap_err();
        match problem(&error) {
            ConfigurationProblem::Setting { setting, .. } => setting,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn settings_that_cannot_work_are_refused_when_building() {
        use openid_deferred::compatibility::PollCredential;
        use openid_deferred::{ClientAuthentication, DpopMode};
        let builder = || Client::builder("https://op.test", CLIENT_ID);
        assert_eq!(setting(Client::builder("https://op.test", "")), "client_id");
        assert_eq!(setting(builder().redirect_uri("callback")), "redirect_uri");
        assert_eq!(setting(builder().redirect_uri("https://rp.test/#x")), "redirect_uri");
        let by_token = || builder().poll_credential(PollCredential::AccessToken);
        let basic = ClientAuthentication::client_secret_basic("s3cret");
        assert_eq!(setting(by_token().authentication(basic)), "poll_credential");
        assert_eq!(setting(by_token().dpop(DpopMode::Off)), "poll_credential");
        let hmac =
            || builder().algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Hs256));
        assert_eq!(setting(hmac()), "id_token_signed_response_alg");
        let short = ClientAuthentication::client_secret_basic("31 bytes are one too few for it");
        assert_eq!(setting(hmac().authentication(short)), "id_token_signed_response_alg");
    }

    #[tokio::test]
    async fn an_op_whose_tokens_use_the_client_secret_needs_no_keys() {
        let listed = json!(["RS256", "ES256", "HS256"]);
        let (op, clock) = op_with(|op| {
            op.metadata(move |members| set(members, "id_token_signing_alg_values_supported", listed.clone()))
        });
        let no_keys = || Fault::response(Endpoint::Keys, 200, "application/json", r#"{"keys":[]}"#).always();
        op.misbehave(no_keys());
        let secret = openid_deferred::ClientAuthentication::client_secret_basic("s".repeat(32));
        let client = || client_of(&op, &clock).authentication(secret.clone());
        assert!(
            client()
                .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Hs256))
                .discover()
                .await
                .is_ok()
        );
        assert!(client().discover().await.is_err());
    }

    #[tokio::test]
    async fn a_client_needs_a_redirect_uri() {
        let (op, clock) = op_with(|op| op);
        let builder =
            || Client::builder(op.issuer(), CLIENT_ID).http_client(op.http_client()).clock(Arc::new(clock.clone()));
        for error in [builder().build().unwrap_err(), builder().discover().await.unwrap_err()] {
            assert!(matches!(problem(&error), ConfigurationProblem::Setting { setting: "redirect_uri", .. }));
        }
        assert!(op.requests().is_empty());
    }
}
