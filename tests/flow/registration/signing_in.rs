//! From a registration to a user who is signed in.

use std::time::Duration;

use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, KeyManagementAlgorithm};
use openid_deferred::error::{ConfigurationProblem, Rule};
use openid_deferred::registration::{CertificateSubject, RegistrationRequest};
use openid_deferred::testing::{Endpoint, Fault, RequestRule, TestCertificate};
use openid_deferred::transport::ClientCertificate;
use openid_deferred::{
    ClientAuthentication, Dialect, ErrorKind, Grant, Outcome, ResponseMode, ResponseType, SignIn, SigningAlgorithm,
    SigningKey, TokenAnswer,
};

use super::{office, office_with, request};
use crate::id_token::{moved, without};
use crate::support::{REDIRECT_URI, assert_approved, broken_rule};

#[tokio::test]
async fn a_client_with_each_kind_of_secret_signs_users_in_as_it_was_registered() {
    for method in ["client_secret_basic", "client_secret_post", "client_secret_jwt", "none"] {
        let office = office();
        let registration = office.register(request().token_endpoint_auth_method(method)).await;
        let client = office.client_of(&registration).unwrap().discover().await.unwrap();
        assert_eq!(client.authentication_method(), Some(method));
        assert_eq!(client.client_id(), registration.client_id());
        assert_approved(&office.outcome(&client).await.unwrap());
        office.op.assert_clean();
    }
}

#[tokio::test]
async fn a_client_of_the_ietf_dialect_speaks_it_as_it_was_registered() {
    let office = office_with(|op| op.both_dialects());
    let asked = request().dialect(Dialect::Ietf).grant_type("client_credentials");
    assert_eq!(asked.metadata().response_types(), ["code"]);
    let grants = ["urn:ietf:params:oauth:grant-type:deferred", "authorization_code", "client_credentials"];
    assert_eq!(asked.metadata().grant_types(), grants);
    let registration = office.register(asked).await;
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    assert_eq!(client.dialect().await.unwrap(), Dialect::Ietf);
    assert_approved(&office.outcome(&client).await.unwrap());
    let answer = client.token_request(Grant::client_credentials()).send().await.unwrap();
    let TokenAnswer::Deferred(mut pending) = answer else { panic!("{answer:?}") };
    assert!(matches!(client.wait(&mut pending).await.unwrap(), Outcome::Issued(_)));
    // An update keeps the dialect.
    let update = registration.metadata().to_request().response_types([ResponseType::DeferredCodeOrCode]);
    assert_eq!((update.metadata().response_types(), update.metadata().grant_types()), (vec!["code"], grants.into()));
    office.op.assert_clean();
}

#[tokio::test]
async fn a_client_with_a_key_signs_users_in_as_it_was_registered() {
    let office = office();
    let signing = || SigningKey::from_jwk(SIGNING_KEY).unwrap();
    let encryption = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEsA256Kw).unwrap();
    let asked = request()
        .private_key_jwt(&signing())
        .decryption_key(&encryption)
        .algorithms(
            ClientAlgorithms::new()
                .id_token_signed_response_alg(SigningAlgorithm::Ps256)
                .id_token_encrypted_response(KeyManagementAlgorithm::EcdhEsA256Kw)
                .userinfo_signed_response_alg(SigningAlgorithm::Ps256),
        )
        .grant_type("refresh_token")
        .require_pushed_authorization_requests()
        .dpop_bound_access_tokens();
    let registration = office.register(asked).await;
    let keys = registration.metadata().jwks().unwrap()["keys"].as_array().unwrap().clone();
    assert_eq!(keys.iter().map(|key| key["use"].as_str().unwrap()).collect::<Vec<_>>(), ["sig", "enc"]);

    let builder = office.client_of(&registration).unwrap().signing_key(signing()).decryption_key(encryption);
    let client = builder.discover().await.unwrap();
    let Outcome::Approved(mut authentication) = office.outcome(&client).await.unwrap() else { panic!("not approved") };
    assert_eq!(authentication.id_token().algorithm(), SigningAlgorithm::Ps256);
    client.userinfo(&authentication).await.unwrap();
    client.refresh(&mut authentication).await.unwrap();
    assert_eq!(office.op.requests_to(Endpoint::PushedAuthorization).len(), 1);
    office.op.assert_clean();
}

#[tokio::test]
async fn signed_requests_and_responses_are_made_as_they_were_registered() {
    let office = office();
    let signing = || SigningKey::from_jwk(SIGNING_KEY).unwrap();
    let encryption = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let asked =
        request().private_key_jwt(&signing()).decryption_key(&encryption).require_signed_request_object().algorithms(
            ClientAlgorithms::new()
                .authorization_signed_response_alg(SigningAlgorithm::Ps256)
                .authorization_encrypted_response(KeyManagementAlgorithm::EcdhEs),
        );
    let registration = office.register(asked).await;
    let builder = office.client_of(&registration).unwrap().signing_key(signing()).decryption_key(encryption);
    let client = builder.response_mode(ResponseMode::QueryJwt).discover().await.unwrap();

    let (url, session) = client.authorize().start().await.unwrap();
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert!(names.contains(&"request".to_owned()), "{names:?}");
    let query = office.op.visit(url).query();
    assert!(query.starts_with("response="), "{query}");
    let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    assert_approved(&client.wait(&mut pending).await.unwrap());
    office.op.assert_clean();
}

#[tokio::test]
async fn a_response_by_another_algorithm_than_the_registered_one_is_refused() {
    let office = office();
    let asked =
        request().algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Ps256));
    let registration = office.register(asked).await;
    let builder = office.client_of(&registration).unwrap().response_mode(ResponseMode::QueryJwt);
    let client = builder
        .algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Es256))
        .build()
        .unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let query = office.op.visit(url).query();
    let error = client.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::JwtResponseAlgorithm));
}

/// Signs a user in with the client of a registration. The `auth_time` of the final ID Token has this age, or is
/// missing.
async fn aged(asked: RegistrationRequest, age: Option<i64>, max_age: Option<Duration>) -> Outcome {
    let office = office();
    let client = office.client_of(&office.register(asked).await).unwrap().discover().await.unwrap();
    let request = client.authorize();
    let request = match max_age {
        Some(max_age) => request.max_age(max_age),
        None => request,
    };
    let (url, session) = request.start().await.unwrap();
    let query = office.op.visit(url).query();
    office.op.misbehave(Fault::id_token(
        Endpoint::Poll,
        match age {
            Some(age) => moved("auth_time", -age),
            None => without("auth_time"),
        },
    ));
    let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    client.wait(&mut pending).await.unwrap()
}

#[tokio::test]
async fn a_registered_default_max_age_applies_to_requests_without_max_age() {
    let registered = || request().default_max_age(Duration::from_secs(300));
    for (age, max_age, accepted) in [
        (Some(200), None, true),
        (Some(400), None, false),
        (None, None, false),
        // The request overrides the registration, in both directions.
        (Some(400), Some(Duration::from_secs(3_600)), true),
        (Some(200), Some(Duration::from_secs(10)), false),
    ] {
        let outcome = aged(registered(), age, max_age).await;
        assert_eq!(broken_rule(&outcome), (!accepted).then_some(Rule::IdTokenAuthTime), "{age:?} {max_age:?}");
    }
}

#[tokio::test]
async fn a_registered_require_auth_time_requires_auth_time_in_the_final_token() {
    for (age, accepted) in [(Some(1_000_000), true), (None, false)] {
        let outcome = aged(request().require_auth_time(), age, None).await;
        assert_eq!(broken_rule(&outcome), (!accepted).then_some(Rule::IdTokenAuthTime), "{age:?}");
    }
    assert_eq!(broken_rule(&aged(request(), None, None).await), None);
}

#[tokio::test]
async fn a_missing_or_different_key_is_an_error_before_anything_is_sent() {
    let office = office();
    let registration = office.register(request().private_key_jwt(&SigningKey::from_jwk(SIGNING_KEY).unwrap())).await;
    let client = || office.client_of(&registration).unwrap();
    let other = SigningKey::generate(SigningAlgorithm::EdDsa).unwrap();
    for (builder, named) in [
        (client(), "signing_key"),
        (client().signing_key(other), "signing_key"),
        (client().authentication(ClientAuthentication::none()), "authentication"),
    ] {
        let error = builder.build().unwrap_err();
        let ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!(*setting, named);
    }
    let same = SigningKey::from_jwk(SIGNING_KEY).unwrap();
    assert!(client().authentication(ClientAuthentication::private_key_jwt(same)).build().is_ok());
}

#[tokio::test]
async fn a_client_with_a_certificate_signs_users_in_as_it_was_registered() {
    let office = office_with(|op| op.mutual_tls());
    let registered = office.op.client_certificate("client.rp.test");
    let self_signed = TestCertificate::self_signed("the-app");
    let by_name = request()
        .tls_client_auth(CertificateSubject::DnsName("client.rp.test".to_owned()))
        .tls_client_certificate_bound_access_tokens();
    let der = self_signed.certificate_pem().lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let by_itself =
        request().jwks(serde_json::json!({ "keys": [{ "kty": "EC", "x5c": [der] }] })).self_signed_tls_client_auth();
    for (request, files) in [(by_name, registered), (by_itself, self_signed)] {
        let registration = office.register(request).await;
        let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap();
        let without = office.client_of(&registration).unwrap().build().unwrap_err();
        assert!(without.to_string().contains("client_certificate"), "{without}");
        let client = office.client_of(&registration).unwrap().client_certificate(certificate);
        let client = client.discover().await.unwrap();
        let Outcome::Approved(authentication) = office.outcome(&client).await.unwrap() else { panic!("not approved") };
        assert!(authentication.is_sender_constrained());
    }
    office.op.assert_clean();
}

#[tokio::test]
async fn the_client_uses_the_first_registered_response_type_and_redirect_uri() {
    let office = office();
    let asked = request()
        .redirect_uri("https://rp.test/other")
        .response_types([ResponseType::DeferredCodeOrCode, ResponseType::Code]);
    let registration = office.register(asked).await;
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let parameter = |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    assert_eq!(parameter("response_type"), "deferred_code code");
    assert_eq!(session.redirect_uri(), REDIRECT_URI);
}

#[tokio::test]
async fn the_test_provider_lets_a_client_do_only_what_it_is_registered_for() {
    let office = office();
    let registration = office.register(request()).await;
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    let request = client.authorize().response_type(ResponseType::Code);
    let (url, _) = request.start().await.unwrap();
    assert!(office.op.visit(url).query().contains("error=unauthorized_client"));
    assert_eq!(office.op.violations()[0].rule, RequestRule::NotRegisteredForThis);
}

#[tokio::test]
async fn a_registrar_with_a_certificate_presents_it_at_the_alias() {
    let office = office_with(|op| op.mutual_tls().mtls_endpoint_aliases());
    let files = office.op.client_certificate("client.rp.test");
    let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap();
    let registrar = openid_deferred::registration::Registrar::builder(office.op.issuer())
        .initial_access_token(super::INITIAL_ACCESS_TOKEN)
        .client_certificate(certificate)
        .http_client(office.op.http_client())
        .build()
        .unwrap();
    let mut registration = registrar.register(request()).await.unwrap();
    registrar.read(&mut registration).await.unwrap();
    let requests = [Endpoint::Registration, Endpoint::ClientConfiguration].map(|place| office.op.requests_to(place));
    assert!(requests.iter().flatten().all(|request| request.client_certificate.is_some()));
    assert!(requests[0][0].url.starts_with("https://mtls."), "{}", requests[0][0].url);
    office.op.assert_clean();
}

const SIGNING_KEY: &str = r#"{"kty":"EC","crv":"P-256","alg":"ES256","kid":"rp-1",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

#[tokio::test]
async fn a_user_logs_out_to_the_first_registered_uri_and_id_tokens_name_the_session() {
    let office = office();
    let asked = request()
        .post_logout_redirect_uris(["https://rp.test/bye", "https://rp.test/other"])
        .backchannel_logout_uri("https://rp.test/backchannel-logout");
    let registration = office.register(asked).await;
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    let Outcome::Approved(user) = office.outcome(&client).await.unwrap() else { panic!("approved") };
    let process = office.op.last_process();
    assert_eq!(user.claims().sid(), Some(process.sid().as_str()));
    let (url, session) = client.end_session().of(&user).start().await.unwrap();
    let back = office.op.visit_end_session(url).unwrap();
    assert_eq!(back.redirect_uri(), "https://rp.test/bye");
    client.end_session_response(&back.query(), &session.unwrap()).unwrap();
    assert_eq!(client.logout_token(&process.logout_token()).await.unwrap().sid(), user.claims().sid());
    office.op.assert_clean();
}
