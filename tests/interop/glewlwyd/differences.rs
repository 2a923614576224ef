//! Scenarios in which it differs from other OPs.

use std::time::Duration;

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::Rule;
use openid_deferred::registration::RegistrationRequest;
use openid_deferred::{ClientAuthentication, ClientBuilder, ResponseMode, ResponseType, SigningAlgorithm};
use serde_json::json;

use super::{Glewlwyd, OP};
use crate::certificates::Identity;
use crate::mutual_tls;
use crate::op::Op as _;
use crate::registration;
use crate::support::{REDIRECT_URI, chain, world_at};

#[tokio::test]
async fn every_request_succeeds_if_the_op_requires_nonces() {
    let op = Glewlwyd { nonces: true, ..OP };
    let Some(world) = world_at(&op, json!({}), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    assert!(authentication.is_sender_constrained());
    world.client.userinfo(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    world.client.refresh(&mut authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    world.client.userinfo(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
}

/// It does not revoke tokens for a client that does not authenticate.
#[tokio::test]
async fn a_public_client_signs_in_and_refreshes() {
    let op = OP;
    let registered = json!({ "token_endpoint_auth_method": "none" });
    let client = |client: ClientBuilder| client.authentication(ClientAuthentication::none());
    let Some(world) = world_at(&op, registered, client).await else { return };
    let mut authentication = world.sign_in().await;
    world.client.refresh(&mut authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(world.client.revoke(&authentication).await.is_err());
}

/// It gives no reason for refusing a token.
#[tokio::test]
async fn revoked_tokens_are_refused_without_a_reason() {
    let op = OP;
    let Some(world) = world_at(&op, json!({}), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    world.client.revoke(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let token = authentication.access_token().unwrap().clone();
    assert!(!world.client.introspect(&token, None).await.unwrap().is_active());
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::UnexpectedStatus), "{}", chain(&error));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert!(error.error_response().is_none(), "{}", chain(&error));
}

/// It encodes `iss` twice there, and RFC 9207 §2.4 requires a comparison without decoding.
#[tokio::test]
async fn a_form_post_is_refused() {
    let op = OP;
    let Some(world) = world_at(&op, json!({}), |client| client).await else { return };
    let request = world.client.authorize().response_mode(ResponseMode::FormPost);
    let error = world.sign_in_by(request).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::IssMismatch), "{}", chain(&error));
}

/// Its `auth_time` is 0.
#[tokio::test]
async fn an_id_token_without_the_requested_auth_time_is_refused() {
    let op = OP;
    let Some(world) = world_at(&op, json!({}), |client| client).await else { return };
    let request = world.client.authorize().max_age(Duration::from_secs(600));
    let error = world.sign_in_by(request).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::IdTokenAuthTime), "{}", chain(&error));
}

/// Its metadata does not say that it binds tokens to a certificate, and it binds them to every certificate that is
/// presented.
#[tokio::test]
async fn a_certificate_of_the_authority_authenticates_the_client_and_binds_its_tokens() {
    let op = OP;
    let Some(site) = op.site().await else { return };
    let identity = Identity::host("client.test", Some(&site.authority));
    let registered = json!({
        "token_endpoint_auth_method": "tls_client_auth",
        "tls_client_auth_subject_dn": "CN=client.test",
    });
    for certificate_bound in [false, true] {
        let authentication = ClientAuthentication::tls_client_auth(identity.client_certificate());
        let world = world_at(&op, registered.clone(), |client| {
            let client = client.authentication(authentication);
            match certificate_bound {
                true => client.certificate_bound_access_tokens().allow_unadvertised(),
                false => client,
            }
        });
        let Some(world) = world.await else { return };
        mutual_tls::works(&world, certificate_bound.then(|| identity.thumbprint())).await;
    }
}

#[tokio::test]
async fn a_client_registers_itself_and_manages_its_registration() {
    let op = OP;
    let Some(site) = op.site().await else { return };
    let registrar = registration::registrar(&site).build().unwrap();
    let request = RegistrationRequest::new(REDIRECT_URI)
        .response_types([ResponseType::Code])
        .grant_type("refresh_token")
        .token_endpoint_auth_method("client_secret_basic")
        .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256));
    let mut registered = registration::registered(&registrar, request.clone().client_name("Example")).await;
    op.consent(registered.client_id()).await;
    registration::signs_in(&site, &registered, None).await;

    registrar.read(&mut registered).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    // Sends the request instead of the OP's last answer, which it would refuse.
    let renamed = request.client_name("Renamed");
    registrar.update(&mut registered, renamed).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(registered.metadata().client_name(), Some("Renamed"));
    registration::signs_in(&site, &registered, None).await;

    registrar.delete(&registered).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(registrar.read(&mut registered).await.is_err());
}
