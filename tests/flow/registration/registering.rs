//! RFC 7591 §3.

use std::time::Duration;

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::{ConfigurationProblem, Document, Misuse, Rule, TransportProblem};
use openid_deferred::registration::{ApplicationType, Registrar, RegistrationRefusal, RegistrationRequest};
use openid_deferred::testing::{Endpoint, Fault, RequestRule};
use openid_deferred::{ErrorKind, ResponseType, Secret, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};

use super::{INITIAL_ACCESS_TOKEN, Office, office, office_with, request};
use crate::support::{REDIRECT_URI, seconds};

const GRANT: &str = "urn:openid:params:grant-type:deferred";

#[tokio::test]
async fn a_registration_has_exactly_what_was_asked_for() {
    let office = office();
    let registration = office.register(request()).await;
    let sent = &office.op.requests_to(Endpoint::Registration)[0];
    assert_eq!((sent.method.as_str(), sent.status), ("POST", Some(201)));
    assert_eq!(sent.header("authorization"), Some("Bearer let-me-in"));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    let expected =
        json!({ "redirect_uris": [REDIRECT_URI], "grant_types": [GRANT], "response_types": ["deferred_code"] });
    assert_eq!(body, expected);
    assert!(!sent.headers.contains_key("dpop"));

    assert!(registration.client_secret().is_some() && registration.registration_access_token().is_some());
    assert_eq!(registration.client_secret_expires_at(), None);
    assert!(registration.client_id_issued_at().is_some());
    assert_eq!(registration.metadata().response_types(), ["deferred_code"]);
    assert_eq!(registration.metadata().token_endpoint_auth_method(), Some("client_secret_basic"));
    assert!(registration.differences().is_empty(), "{:?}", registration.differences());
    office.op.assert_clean();
}

#[tokio::test]
async fn the_complete_metadata_is_sent_and_returned() {
    let office = office_with(|op| op.software_statement("e30.e30.e30"));
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let request = request()
        .redirect_uri("https://rp.test/other")
        .response_types([ResponseType::DeferredCodeOrCode, ResponseType::DeferredCode])
        .grant_type("refresh_token")
        .private_key_jwt(&key)
        .application_type(ApplicationType::Web)
        .client_name("Example")
        .client_name_in("ja-Hira-JP", "例")
        .client_uri("https://rp.test/")
        .logo_uri("https://rp.test/logo.png")
        .policy_uri_in("de", "https://rp.test/datenschutz")
        .tos_uri("https://rp.test/terms")
        .contacts(["ops@rp.test"])
        .scope(["openid", "profile"])
        .algorithms(
            ClientAlgorithms::new()
                .id_token_signed_response_alg(SigningAlgorithm::Es256)
                .userinfo_signed_response_alg(SigningAlgorithm::Es256),
        )
        .dpop_bound_access_tokens()
        .require_pushed_authorization_requests()
        .require_auth_time()
        .default_max_age(Duration::from_secs(3_600))
        .default_acr_values(["high", "substantial"])
        .initiate_login_uri("https://rp.test/login")
        .post_logout_redirect_uris(["https://rp.test/bye"])
        .backchannel_logout_uri("https://rp.test/backchannel-logout")
        .backchannel_logout_session_required()
        .software_id("4NRB1-0XZABZI9E6-5SM3R")
        .software_version("2.0")
        .software_statement(&Secret::new("e30.e30.e30"))
        .deferred_client_notification_endpoint("https://rp.test/deferred/ping")
        .member("organization", json!({ "number": 7 }));
    let registration = office.register(request).await;
    let metadata = registration.metadata();
    assert_eq!(metadata.redirect_uris(), [REDIRECT_URI, "https://rp.test/other"]);
    assert_eq!(metadata.response_types(), ["deferred_code code", "deferred_code"]);
    assert_eq!(metadata.grant_types(), [GRANT, "authorization_code", "refresh_token"]);
    assert_eq!(metadata.token_endpoint_auth_method(), Some("private_key_jwt"));
    assert_eq!(metadata.token_endpoint_auth_signing_alg(), Some(SigningAlgorithm::Es256));
    assert_eq!(metadata.jwks().unwrap()["keys"][0]["use"], "sig");
    let names: Vec<_> = metadata.in_languages("client_name").collect();
    assert_eq!(names, [(None, "Example"), (Some("ja-Hira-JP"), "例")]);
    assert_eq!(metadata.default_max_age(), Some(Duration::from_secs(3_600)));
    assert_eq!(metadata.scope().unwrap(), ["openid", "profile"]);
    assert_eq!(metadata.deferred_client_notification_endpoint(), Some("https://rp.test/deferred/ping"));
    assert_eq!(metadata.post_logout_redirect_uris(), ["https://rp.test/bye"]);
    assert_eq!(metadata.backchannel_logout_uri(), Some("https://rp.test/backchannel-logout"));
    assert!(metadata.backchannel_logout_session_required());
    assert!(metadata.dpop_bound_access_tokens() && metadata.require_auth_time());
    assert_eq!(metadata.get("organization").unwrap()["number"], 7);
    assert_eq!(registration.client_secret(), None);
    assert!(registration.differences().is_empty(), "{:?}", registration.differences());
    office.op.assert_clean();
}

#[tokio::test]
async fn an_invalid_registration_request_is_refused_before_it_is_sent() {
    let office = office();
    let private = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "x", "y": "y", "d": "d" }] });
    let public = || json!({ "keys": [] });
    let notification = "deferred_client_notification_endpoint";
    for (request, setting) in [
        (RegistrationRequest::new("/callback"), "redirect_uri"),
        (request().redirect_uri("https://rp.test/#fragment"), "redirect_uri"),
        (request().without("redirect_uris"), "redirect_uri"),
        (request().deferred_client_notification_endpoint("http://rp.test/ping"), notification),
        (request().deferred_client_notification_endpoint("http://127.0.0.1/ping"), notification),
        (request().deferred_client_notification_endpoint("https://user@rp.test/ping"), notification),
        (request().deferred_client_notification_endpoint("ping"), notification),
        (request().backchannel_logout_uri("http://rp.test/logout"), "backchannel_logout_uri"),
        (request().backchannel_logout_uri("https://rp.test/#logout"), "backchannel_logout_uri"),
        (request().backchannel_logout_session_required(), "backchannel_logout_session_required"),
        (request().post_logout_redirect_uris(["https://rp.test/bye", "/bye"]), "post_logout_redirect_uri"),
        (request().post_logout_redirect_uris(["https://rp.test/#bye"]), "post_logout_redirect_uri"),
        (request().jwks_uri("http://rp.test/jwks"), "jwks_uri"),
        (request().initiate_login_uri("http://rp.test/"), "initiate_login_uri"),
        (request().logo_uri_in("de", "javascript:alert(1)"), "logo_uri"),
        (request().client_name_in("not a tag", "Example"), "language"),
        (request().jwks_uri("https://rp.test/jwks").jwks(public()), "jwks"),
        (request().jwks(private), "jwks"),
        (request().jwks(json!([])), "jwks"),
        (request().token_endpoint_auth_method("private_key_jwt"), "token_endpoint_auth_method"),
        (request().self_signed_tls_client_auth(), "token_endpoint_auth_method"),
        (request().token_endpoint_auth_method("tls_client_auth"), "tls_client_auth"),
        (request().member("id_token_encrypted_response_enc", "A256GCM"), "id_token_encrypted_response_enc"),
        (request().member("userinfo_encrypted_response_alg", "ECDH-ES"), "userinfo_encrypted_response_alg"),
        (request().member("grant_types", json!(["refresh_token"])), "grant_types"),
        (request().response_types([]), "response_types"),
        (request().dpop_bound_access_tokens().tls_client_certificate_bound_access_tokens(), "dpop_bound_access_tokens"),
        (
            request()
                .redirect_uri("https://other.test/")
                .subject_type(openid_deferred::registration::SubjectType::Pairwise),
            "sector_identifier_uri",
        ),
    ] {
        let error = office.registrar.register(request).await.unwrap_err();
        let ErrorKind::Configuration(ConfigurationProblem::Setting { setting: named, .. }) = error.kind() else {
            panic!("{setting}: {error:?}")
        };
        assert_eq!(*named, setting, "{error}");
        assert_eq!(error.step(), Some("registering the client"));
    }
    let error = office.registrar.register(request().member("client_secret", "mine")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::ReservedParameter("client_secret".to_owned())));
    assert!(office.op.requests().is_empty());
}

#[tokio::test]
async fn without_the_initial_access_token_no_client_is_registered() {
    let office = office();
    let stranger = |token: Option<&str>| {
        let builder = Registrar::builder(office.op.issuer()).http_client(office.op.http_client());
        token.into_iter().fold(builder, |builder, token| builder.initial_access_token(token)).build().unwrap()
    };
    for stranger in [stranger(None), stranger(Some("guessed"))] {
        let error = stranger.register(request()).await.unwrap_err();
        assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken), "{error:?}");
        assert!(!error.is_transient());
    }
    let rules: Vec<_> = office.op.violations().iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [RequestRule::InitialAccessToken; 2]);
}

#[tokio::test]
async fn refusals_of_the_op_are_typed() {
    let office = office();
    for (status, code, refusal) in [
        (400, "invalid_redirect_uri", Some(RegistrationRefusal::InvalidRedirectUri)),
        (400, "invalid_client_metadata", Some(RegistrationRefusal::InvalidClientMetadata)),
        (400, "invalid_software_statement", Some(RegistrationRefusal::InvalidSoftwareStatement)),
        (400, "unapproved_software_statement", Some(RegistrationRefusal::UnapprovedSoftwareStatement)),
        (401, "invalid_token", Some(RegistrationRefusal::AccessToken)),
        (403, "insufficient_scope", Some(RegistrationRefusal::NotPermitted)),
        (405, "invalid_request", Some(RegistrationRefusal::NotOffered)),
        (400, "something_else", None),
    ] {
        office.op.misbehave(Fault::error_with_status(Endpoint::Registration, status, code));
        let error = office.registrar.register(request()).await.unwrap_err();
        assert_eq!(RegistrationRefusal::of(&error), refusal, "{code}");
        assert_eq!(error.error_response().unwrap().code(), code);
    }
    office.op.misbehave(Fault::status(Endpoint::Registration, 401));
    let error = office.registrar.register(request()).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken));
    let unsigned = request().software_statement(&Secret::new("no JWT"));
    let error = office.registrar.register(unsigned).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::InvalidSoftwareStatement));
    let unknown = request().software_statement(&Secret::new("e30.e30.e30"));
    let error = office.registrar.register(unknown).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::UnapprovedSoftwareStatement));
    office.op.assert_clean();
}

#[tokio::test]
async fn an_op_without_a_registration_endpoint_is_a_typed_error() {
    let office = office_with(|op| {
        op.metadata(|members| {
            members.remove("registration_endpoint");
        })
    });
    let error = office.registrar.register(request()).await.unwrap_err();
    let problem = ConfigurationProblem::NoEndpoint("registration_endpoint");
    assert_eq!(*error.kind(), ErrorKind::Configuration(problem));
}

#[tokio::test]
async fn a_registration_whose_answer_is_lost_is_unknown_and_not_repeated() {
    for fault in [
        Fault::reset(Endpoint::Registration).after_processing(),
        Fault::stall(Endpoint::Registration),
        Fault::endless_body(Endpoint::Registration),
        Fault::huge_body(Endpoint::Registration, 300_000),
    ] {
        let office = office();
        office.op.misbehave(fault);
        let error = office.registrar.register(request()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        assert!(!error.is_transient() && std::error::Error::source(&error).is_some());
        assert_eq!(office.op.requests_to(Endpoint::Registration).len(), 1);
    }
    let nobody = Registrar::builder("https://nobody.test").http_client(office().op.http_client()).build().unwrap();
    let error = nobody.register(request()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Connect));
}

async fn answered(body: Value) -> Result<openid_deferred::registration::Registration, openid_deferred::Error> {
    let office = office();
    let body = body.to_string();
    office.op.misbehave(Fault::response(Endpoint::Registration, 201, "application/json", body));
    let answered = office.registrar.register(request()).await;
    assert_eq!(office.op.faults_left(), 0, "the fault struck");
    answered
}

#[tokio::test]
async fn a_malformed_registration_response_is_refused() {
    for (body, rule, member) in [
        (json!([]), Rule::MalformedJson, None),
        (json!({}), Rule::MissingMember, Some("client_id")),
        (json!({ "client_id": "" }), Rule::InvalidMember, Some("client_id")),
        (json!({ "client_id": 7 }), Rule::InvalidMember, Some("client_id")),
        (json!({ "client_id": "a\nb" }), Rule::InvalidMember, Some("client_id")),
        (json!({ "client_id": "a", "client_secret": "a\u{7}" }), Rule::InvalidMember, Some("client_secret")),
        (
            json!({ "client_id": "a", "registration_access_token": {} }),
            Rule::InvalidMember,
            Some("registration_access_token"),
        ),
    ] {
        let error = answered(body.clone()).await.unwrap_err();
        let ErrorKind::Protocol(violation) = error.kind() else { panic!("{body}: {error:?}") };
        assert_eq!((violation.rule(), violation.member()), (rule, member), "{body}");
        assert_eq!(violation.document(), Some(Document::ClientInformation));
        assert!(body == json!([]) || !error.is_transient());
    }
    let refused = answered(json!({ "error": "invalid_client_metadata", "client_id": "a" })).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&refused), Some(RegistrationRefusal::InvalidClientMetadata));
    let repeated = r#"{"client_id":"a","client_id":"b"}"#;
    let office = office();
    office.op.misbehave(Fault::response(Endpoint::Registration, 201, "application/json", repeated));
    assert_eq!(office.registrar.register(request()).await.unwrap_err().rule(), Some(Rule::RepeatedMember));
    let moved = Fault::status(Endpoint::Registration, 307).header("location", "https://elsewhere.test/register");
    office.op.misbehave(moved);
    assert_eq!(office.registrar.register(request()).await.unwrap_err().rule(), Some(Rule::UnexpectedRedirect));
}

#[tokio::test]
async fn a_registration_client_uri_that_is_not_https_is_refused() {
    for (uri, rule) in [
        ("http://op.test/register/a", Rule::InsecureEndpoint),
        ("http://127.0.0.1/register/a", Rule::InsecureEndpoint),
        ("https://user:pass@op.test/register/a", Rule::InsecureEndpoint),
        ("file:///etc/passwd", Rule::InsecureEndpoint),
        ("https://op.test/register/a#b", Rule::InvalidMember),
        ("/register/a", Rule::InvalidMember),
    ] {
        let body = json!({ "client_id": "a", "registration_client_uri": uri, "registration_access_token": "t" });
        let error = answered(body).await.unwrap_err();
        assert_eq!(error.rule(), Some(rule), "{uri}");
    }
}

#[tokio::test]
async fn an_unusual_registration_response_is_accepted_because_the_client_exists() {
    let office = office();
    let body = json!({
        "client_id": "a", "client_secret": "s", "client_secret_expires_at": "1893456000", "client_id_issued_at": 1.5,
        "error": "", "client_name": null, "redirect_uris": REDIRECT_URI, "registration_access_token": "t",
    });
    let odd = Fault::response(Endpoint::Registration, 202, "text/plain", format!("\u{feff}{body}"));
    office.op.misbehave(odd);
    let registration = office.register(request()).await;
    let expiry = std::time::UNIX_EPOCH + seconds(1_893_456_000);
    assert_eq!(registration.client_secret_expires_at(), Some(expiry));
    assert_eq!(registration.client_id_issued_at(), Some(std::time::UNIX_EPOCH + seconds(1)));
    assert!(registration.metadata().redirect_uris().is_empty() && registration.metadata().client_name().is_none());
    assert_eq!(registration.metadata().get("redirect_uris"), Some(&json!(REDIRECT_URI)));
    assert_eq!(registration.registration_client_uri(), None);
}

#[tokio::test]
async fn nothing_of_a_registration_shows_in_debug_output() {
    let office: Office = office();
    let registration = office.register(request().contacts(["jane@rp.test"]).client_name("Example")).await;
    let secrets = [
        registration.client_secret().unwrap().expose(),
        registration.registration_access_token().unwrap().expose(),
        INITIAL_ACCESS_TOKEN,
        "jane@rp.test",
    ];
    let differences = registration.differences();
    let shown = format!(
        "{registration:?} {registration:#?} {:?} {:?} {differences:?}",
        office.registrar,
        registration.metadata().to_request()
    );
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("contacts") && shown.contains(registration.client_id()));
}
