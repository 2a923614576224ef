//! Registration and its management (RFC 7591, RFC 7592), with tokens that are replaced at every update.

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::registration::{
    DifferenceEffect, Registrar, RegistrarBuilder, Registration, RegistrationRefusal, RegistrationRequest,
};
use openid_deferred::{ErrorKind, ResponseType, SigningAlgorithm, SigningKey};
use serde_json::json;

use crate::browser::certificate;
use crate::node::Provider;
use crate::op::{Op, Site};
use crate::support::{REDIRECT_URI, World, chain};

const INITIAL_ACCESS_TOKEN: &str = "let-me-in";

/// The provider with registration enabled, or `None` if it cannot run here.
fn office() -> Option<Provider> {
    Provider::start(json!({
        "clients": [],
        "features": {
            "registration": { "enabled": true, "initialAccessToken": INITIAL_ACCESS_TOKEN },
            "registrationManagement": { "enabled": true, "rotateRegistrationAccessToken": true },
        },
    }))
}

pub(crate) fn registrar(site: &Site) -> RegistrarBuilder {
    let authority = certificate(&site.authority.certificate_pem());
    Registrar::builder(&site.issuer).configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]))
}

fn permitted(op: &Provider) -> Registrar {
    registrar(&op.site).initial_access_token(INITIAL_ACCESS_TOKEN).build().expect("the settings are right")
}

/// The provider does not support the deferred flow.
fn request() -> RegistrationRequest {
    RegistrationRequest::new(REDIRECT_URI)
        .response_types([ResponseType::Code])
        .grant_type("refresh_token")
        .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
        .client_name("Example")
        .client_name_in("ja", "例")
        .contacts(["ops@rp.test"])
}

/// The provider has names in one language only. Its answer omits the others.
fn assert_as_asked(registration: &Registration) {
    let differences = registration.differences();
    let named: Vec<_> = differences.iter().map(|found| (found.member(), found.effect())).collect();
    assert_eq!(named, [("client_name#ja", DifferenceEffect::Harmless)]);
}

pub(crate) async fn registered(registrar: &Registrar, request: RegistrationRequest) -> Registration {
    registrar.register(request).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// Signs a user in with a client as it was registered.
pub(crate) async fn signs_in(site: &Site, registration: &Registration, key: Option<SigningKey>) {
    let authority = certificate(&site.authority.certificate_pem());
    let client = registration.client().unwrap_or_else(|error| panic!("{}", chain(&error)));
    let client = client.configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]));
    let client = key.into_iter().fold(client, |client, key| client.signing_key(key));
    let world = World::of(site, client).await;
    let authentication = world.sign_in().await;
    assert!(authentication.refresh_token().is_some());
}

/// The OP may answer with additional members.
pub(crate) async fn a_client_registers_itself_and_manages_its_registration(op: &impl Op) {
    let Some(site) = op.site().await else { return };
    let registrar = registrar(&site);
    let registrar = match op.initial_access_token().await {
        Some(token) => registrar.initial_access_token(token),
        None => registrar,
    };
    let registrar = registrar.build().expect("the settings are right");
    let request = RegistrationRequest::new(REDIRECT_URI)
        .response_types([ResponseType::Code])
        .grant_type("refresh_token")
        .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
        // Some OPs treat a client that names no method as one without a secret.
        .token_endpoint_auth_method("client_secret_basic")
        .client_name("Example");
    let mut registration = registered(&registrar, request).await;
    let harmful = |registration: &Registration| {
        let mut found = registration.differences();
        found.retain(|difference| difference.effect() != DifferenceEffect::Harmless);
        found
    };
    assert!(harmful(&registration).is_empty(), "{:?}", harmful(&registration));
    op.consent(registration.client_id()).await;
    signs_in(&site, &registration, None).await;

    registrar.read(&mut registration).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let renamed = registration.metadata().to_request().client_name("Renamed");
    registrar.update(&mut registration, renamed).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(registration.metadata().client_name(), Some("Renamed"));
    signs_in(&site, &registration, None).await;

    registrar.delete(&registration).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let error = registrar.read(&mut registration).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken), "{}", chain(&error));
}

#[tokio::test]
async fn a_client_registers_itself_and_signs_users_in() {
    let Some(op) = office() else { return };
    let registration = registered(&permitted(&op), request()).await;
    assert_as_asked(&registration);
    assert!(registration.client_secret().is_some());
    assert_eq!(registration.client_secret_expires_at(), None);
    signs_in(&op.site, &registration, None).await;
}

#[tokio::test]
async fn a_client_registers_its_key_and_the_requirements_that_the_provider_enforces() {
    let Some(op) = office() else { return };
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let request = request()
        .private_key_jwt(&key)
        .dpop_bound_access_tokens()
        .require_pushed_authorization_requests()
        .default_max_age(std::time::Duration::from_secs(3_600))
        .require_auth_time();
    let registration = registered(&permitted(&op), request).await;
    assert_as_asked(&registration);
    assert_eq!(registration.client_secret(), None);
    signs_in(&op.site, &registration, Some(key)).await;
}

#[tokio::test]
async fn a_registration_is_read_updated_and_deleted_while_its_token_is_replaced() {
    let Some(op) = office() else { return };
    let registrar = permitted(&op);
    let mut registration = registered(&registrar, request()).await;
    let outdated = registration.clone();
    let token = |registration: &Registration| registration.registration_access_token().cloned().expect("there is one");

    registrar.read(&mut registration).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_as_asked(&registration);

    let renamed = registration.metadata().to_request().client_name("Renamed").without("contacts");
    registrar.update(&mut registration, renamed).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(registration.metadata().client_name(), Some("Renamed"));
    assert!(registration.metadata().contacts().is_empty());
    assert_ne!(token(&registration), token(&outdated));
    assert!(registration.differences().is_empty(), "{:?}", registration.differences());

    let error = registrar.read(&mut outdated.clone()).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken), "{}", chain(&error));

    signs_in(&op.site, &registration, None).await;
    registrar.delete(&registration).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let error = registrar.read(&mut registration).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken), "{}", chain(&error));
}

#[tokio::test]
async fn a_refused_registration_has_a_typed_reason() {
    let Some(op) = office() else { return };
    let stranger = registrar(&op.site).build().unwrap();
    let error = stranger.register(request()).await.unwrap_err();
    assert!(RegistrationRefusal::of(&error).is_some() || error.error_response().is_some(), "{}", chain(&error));

    let registrar = permitted(&op);
    for (request, refusal) in [
        (
            request().redirect_uri("http://rp.test/callback").member("application_type", "native"),
            RegistrationRefusal::InvalidRedirectUri,
        ),
        (request().member("subject_type", "unheard of"), RegistrationRefusal::InvalidClientMetadata),
        (RegistrationRequest::new(REDIRECT_URI), RegistrationRefusal::InvalidClientMetadata),
    ] {
        let error = registrar.register(request).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ErrorResponse(_)), "{}", chain(&error));
        assert_eq!(RegistrationRefusal::of(&error), Some(refusal), "{}", chain(&error));
    }
}
