//! Clients that authenticate with a certificate, and tokens that are bound to one (RFC 8705).

use openid_deferred::transport::ClientCertificate;
use openid_deferred::{ClientAuthentication, ErrorKind};
use serde_json::{Value, json};

use crate::certificates::Identity;
use crate::node::Provider;
use crate::op::Op;
use crate::support::{World, chain, client_of, registration, with, world_at};

/// A client with this authentication, at a provider with this authority.
async fn world(
    authority: Identity,
    registered: Value,
    authentication: ClientAuthentication,
    certificate_bound: bool,
) -> Option<World> {
    let method = json!({
        "token_endpoint_auth_method": authentication.method(),
        "tls_client_certificate_bound_access_tokens": certificate_bound,
    });
    let registered = with(registration(), with(registered, method));
    let op = Provider::start_with(authority, json!({ "clients": [registered] }))?;
    let mut client = client_of(&op.site).authentication(authentication);
    if certificate_bound {
        client = client.certificate_bound_access_tokens();
    }
    Some(World::new(op, client).await)
}

/// The certificate is identified by its subject, and the OP trusts the authority.
pub(crate) async fn a_certificate_of_the_authority_authenticates_the_client_and_binds_its_tokens(op: &impl Op) {
    let Some(site) = op.site().await else { return };
    for certificate_bound in [false, true] {
        let identity = Identity::host("client.test", Some(&site.authority));
        let registered = json!({
            "token_endpoint_auth_method": "tls_client_auth",
            "tls_client_auth_subject_dn": "CN=client.test",
            "tls_client_certificate_bound_access_tokens": certificate_bound,
        });
        let authentication = ClientAuthentication::tls_client_auth(identity.client_certificate());
        let world = world_at(op, registered, |client| {
            let client = client.authentication(authentication);
            if certificate_bound { client.certificate_bound_access_tokens() } else { client }
        });
        let Some(world) = world.await else { return };
        works(&world, certificate_bound.then(|| identity.thumbprint())).await;
    }
    let stranger = Identity::host("stranger.test", Some(&site.authority));
    let registered = json!({
        "token_endpoint_auth_method": "tls_client_auth",
        "tls_client_auth_subject_dn": "CN=client.test",
    });
    let authentication = ClientAuthentication::tls_client_auth(stranger.client_certificate());
    let Some(world) = world_at(op, registered, |client| client.authentication(authentication)).await else { return };
    let error = world.sign_in_by(world.client.authorize()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ErrorResponse(_)), "{}", chain(&error));
}

fn by_authority(authority: &Identity) -> (Identity, Value) {
    (Identity::host("client.test", Some(authority)), json!({ "tls_client_auth_san_dns": "client.test" }))
}

#[tokio::test]
async fn tls_client_auth() {
    for certificate_bound in [false, true] {
        let authority = Identity::authority();
        let (identity, registered) = by_authority(&authority);
        let authentication = ClientAuthentication::tls_client_auth(identity.client_certificate());
        let Some(world) = world(authority, registered, authentication, certificate_bound).await else { return };
        works(&world, certificate_bound.then(|| identity.thumbprint())).await;
    }
}

#[tokio::test]
async fn self_signed_tls_client_auth() {
    for certificate_bound in [false, true] {
        let identity = Identity::host("client.test", None);
        let registered = json!({ "jwks": { "keys": [identity.jwk()] } });
        let authentication = ClientAuthentication::self_signed_tls_client_auth(identity.client_certificate());
        let world = world(Identity::authority(), registered, authentication, certificate_bound).await;
        let Some(world) = world else { return };
        works(&world, certificate_bound.then(|| identity.thumbprint())).await;
    }
}

/// Performs a sign-in and all later requests. The tokens are bound to the certificate with this thumbprint, or to a
/// DPoP key.
pub(crate) async fn works(world: &World, thumbprint: Option<String>) {
    let mut authentication = world.sign_in().await;
    world.client.refresh(&mut authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(authentication.is_sender_constrained());
    assert_eq!(authentication.dpop_key().is_some(), thumbprint.is_none());
    let userinfo = world.client.userinfo(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(userinfo.subject(), authentication.claims().subject());
    let token = authentication.access_token().unwrap();
    let answer = world.client.introspect(token, None).await.unwrap();
    let bound_to = answer.confirmation().and_then(|confirmation| confirmation.get("x5t#S256"));
    // Some OPs bind a token although that was not registered.
    if thumbprint.is_some() {
        assert_eq!(bound_to, thumbprint.map(Value::from).as_ref());
    }
    world.client.revoke(&authentication).await.unwrap();
    assert!(world.client.userinfo(&authentication).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_presented_in_later_requests() {
    let authority = Identity::authority();
    let (identity, registered) = by_authority(&authority);
    let renewed = Identity::host("client.test", Some(&authority));
    let certificate: ClientCertificate = identity.client_certificate();
    let authentication = ClientAuthentication::tls_client_auth(certificate.clone());
    let Some(world) = world(authority, registered, authentication, true).await else { return };
    let mut signed_in = world.sign_in().await;
    certificate.replace(renewed.certificate_pem(), renewed.key_pem()).unwrap();
    world.client.refresh(&mut signed_in).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let answer = world.client.introspect(signed_in.access_token().unwrap(), None).await.unwrap();
    assert_eq!(answer.confirmation().unwrap()["x5t#S256"], json!(renewed.thumbprint()));
    assert_eq!(world.client.userinfo(&signed_in).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn a_certificate_of_another_client_is_refused() {
    let authority = Identity::authority();
    let (_, registered) = by_authority(&authority);
    let stranger = Identity::host("stranger.test", Some(&authority));
    let authentication = ClientAuthentication::tls_client_auth(stranger.client_certificate());
    let Some(world) = world(authority, registered, authentication, false).await else { return };
    let error = world.sign_in_by(world.client.authorize()).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_client");
}
