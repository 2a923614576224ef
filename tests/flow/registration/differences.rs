//! Differences between what an OP registers and what it was asked to register.

use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, KeyManagementAlgorithm};
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::registration::{DifferenceEffect, RegistrationRequest};
use openid_deferred::testing::Endpoint;
use openid_deferred::{ErrorKind, ResponseType, SigningAlgorithm, SigningKey};
use serde_json::{Map, Value, json};

use super::{office_with, request};
use crate::support::{REDIRECT_URI, assert_approved};

const BYE: &str = "https://rp.test/bye";
const LOGOUT: &str = "https://rp.test/backchannel-logout";

/// Registers at an OP that changes the request. Returns the differences and whether a client can be built.
async fn registered(
    request: RegistrationRequest,
    edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
) -> (Vec<(String, DifferenceEffect)>, Result<(), String>) {
    let office = office_with(|op| op.registers(edit));
    let registration = office.register(request).await;
    let differences = registration.differences();
    let client = registration.client().map(drop).map_err(|error| match error.kind() {
        ErrorKind::Configuration(ConfigurationProblem::Registered { member, .. }) => member.clone(),
        other => panic!("{other:?}"),
    });
    office.op.assert_clean();
    (differences.iter().map(|found| (found.member().to_owned(), found.effect())).collect(), client)
}

fn set(name: &'static str, value: Value) -> impl Fn(&mut Map<String, Value>) + Send + Sync + 'static {
    move |members| {
        members.insert(name.to_owned(), value.clone());
    }
}

#[tokio::test]
async fn a_difference_that_breaks_the_flow_makes_no_client() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let with_key = || request().private_key_jwt(&key);
    let other = SigningKey::generate(SigningAlgorithm::Es256).unwrap().public_jwk();
    for (request, member, value) in [
        (request(), "grant_types", json!(["authorization_code"])),
        (request(), "response_types", json!(["code"])),
        (request(), "redirect_uris", json!(["https://elsewhere.test/"])),
        (request().scope(["openid", "profile"]), "scope", json!("profile")),
        (
            request().token_endpoint_auth_method("client_secret_basic"),
            "token_endpoint_auth_method",
            json!("client_secret_post"),
        ),
        (with_key(), "token_endpoint_auth_method", json!("client_secret_basic")),
        (with_key(), "token_endpoint_auth_signing_alg", json!("RS256")),
        (with_key(), "jwks", json!({ "keys": [other] })),
        (request(), "id_token_signed_response_alg", json!("HS256")),
        (
            request().algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256)),
            "id_token_signed_response_alg",
            json!("HS256"),
        ),
    ] {
        let (differences, client) = registered(request, set(member, value.clone())).await;
        assert_eq!(differences, [(member.to_owned(), DifferenceEffect::Breaks)], "{value}");
        assert_eq!(client, Err(member.to_owned()));
    }
    let dropped = |members: &mut Map<String, Value>| {
        members.remove("grant_types");
    };
    let (_, client) = registered(request(), dropped).await;
    assert_eq!(client, Err("grant_types".to_owned()), "the default is `authorization_code` alone");
}

#[tokio::test]
async fn a_difference_that_reduces_security_is_reported() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let encrypted = || {
        request()
            .decryption_key(&key)
            .algorithms(ClientAlgorithms::new().id_token_encrypted_response(KeyManagementAlgorithm::EcdhEs))
    };
    for (request, member, value) in [
        (request().grant_type("refresh_token"), "grant_types", json!(["urn:openid:params:grant-type:deferred"])),
        (request(), "redirect_uris", json!([REDIRECT_URI, "https://elsewhere.test/"])),
        (request().dpop_bound_access_tokens(), "dpop_bound_access_tokens", json!(false)),
        (request().require_pushed_authorization_requests(), "require_pushed_authorization_requests", Value::Null),
        (encrypted(), "id_token_encrypted_response_alg", Value::Null),
        (
            request().deferred_client_notification_endpoint("https://rp.test/ping"),
            "deferred_client_notification_endpoint",
            Value::Null,
        ),
        (request().subject_type(openid_deferred::registration::SubjectType::Pairwise), "subject_type", json!("public")),
        (request().require_auth_time(), "require_auth_time", Value::Null),
        (request().post_logout_redirect_uris([BYE]), "post_logout_redirect_uris", json!(["https://rp.test/other"])),
        (request().backchannel_logout_uri(LOGOUT), "backchannel_logout_uri", Value::Null),
        (
            request().backchannel_logout_uri(LOGOUT).backchannel_logout_session_required(),
            "backchannel_logout_session_required",
            json!(false),
        ),
    ] {
        let (differences, client) = registered(request, set(member, value)).await;
        assert_eq!(differences, [(member.to_owned(), DifferenceEffect::Weakens)]);
        assert_eq!(client, Ok(()), "{member}");
    }
}

#[tokio::test]
async fn a_harmless_difference_is_reported() {
    for (request, member, value) in [
        (request().client_name("Example"), "client_name", json!("EXAMPLE")),
        (request().client_name_in("de", "Beispiel"), "client_name#de", Value::Null),
        (request().scope(["openid", "profile", "email"]), "scope", json!("openid")),
        (
            request().algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256)),
            "id_token_signed_response_alg",
            json!("PS256"),
        ),
        (request(), "require_pushed_authorization_requests", json!(true)),
        (request(), "dpop_bound_access_tokens", json!(true)),
        (
            request().post_logout_redirect_uris([BYE]),
            "post_logout_redirect_uris",
            json!([BYE, "https://rp.test/other"]),
        ),
    ] {
        let (differences, client) = registered(request, set(member, value)).await;
        assert_eq!(differences, [(member.to_owned(), DifferenceEffect::Harmless)]);
        assert_eq!(client, Ok(()), "{member}");
    }
}

#[tokio::test]
async fn equivalent_metadata_is_not_a_difference() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let request = request()
        .response_types([ResponseType::DeferredCodeOrCode])
        .grant_type("refresh_token")
        .redirect_uri("https://rp.test/other")
        .scope(["openid", "profile"])
        .private_key_jwt(&key)
        .member("tls_client_certificate_bound_access_tokens", false);
    let edit = |members: &mut Map<String, Value>| {
        members.insert("response_types".to_owned(), json!(["code deferred_code"]));
        members.insert("scope".to_owned(), json!("profile openid"));
        for name in ["redirect_uris", "grant_types"] {
            members[name].as_array_mut().unwrap().reverse();
        }
        members["jwks"]["keys"][0]["alg"] = json!("ES256");
        members["jwks"]["keys"][0].as_object_mut().unwrap().shift_remove("use");
        members.remove("tls_client_certificate_bound_access_tokens");
    };
    assert_eq!(registered(request, edit).await, (Vec::new(), Ok(())));
}

#[tokio::test]
async fn the_worst_difference_comes_first_and_says_what_it_means() {
    let office = office_with(|op| {
        op.registers(|members| {
            members.insert("client_name".to_owned(), json!("EXAMPLE"));
            members.insert("dpop_bound_access_tokens".to_owned(), json!(false));
            members.insert("grant_types".to_owned(), json!(["authorization_code"]));
        })
    });
    let registration = office.register(request().client_name("Example").dpop_bound_access_tokens()).await;
    let differences = registration.differences();
    let effects: Vec<_> = differences.iter().map(|found| found.effect()).collect();
    assert_eq!(effects, [DifferenceEffect::Breaks, DifferenceEffect::Weakens, DifferenceEffect::Harmless]);
    assert_eq!(differences[0].requested(), Some(&json!(["urn:openid:params:grant-type:deferred"])));
    assert_eq!(differences[0].registered(), Some(&json!(["authorization_code"])));
    assert_eq!(differences[0].to_string(), "`grant_types`: the deferred grant is missing, and the client cannot poll");
    let error = registration.client().unwrap_err();
    assert!(error.to_string().contains("`grant_types`") && error.to_string().contains("deferred grant"), "{error}");
    assert!(error.advice().contains("update the registration"));
}

#[tokio::test]
async fn an_application_can_use_a_client_despite_reported_differences() {
    let office = office_with(|op| op);
    let stripped = openid_deferred::testing::Fault::edit_json(Endpoint::Registration, |members| {
        for name in ["grant_types", "response_types", "redirect_uris"] {
            members.remove(name);
        }
    });
    office.op.misbehave(stripped);
    let registration = office.register(request()).await;
    assert!(registration.client().is_err());
    let client = office.at_the_op(registration.client_despite_differences().unwrap()).discover().await.unwrap();
    assert_approved(&office.outcome(&client).await.unwrap());
    office.op.assert_clean();
}
