//! RFC 7592 §2.

use openid_deferred::error::{ConfigurationProblem, Misuse, Rule, TransportProblem};
use openid_deferred::registration::{Registrar, Registration, RegistrationRefusal};
use openid_deferred::testing::{Endpoint, Fault, RequestRule};
use openid_deferred::{Clock as _, ErrorKind, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};

use super::{Office, office, office_with, request};
use crate::support::{DAY, keyring};

fn token(registration: &Registration) -> String {
    registration.registration_access_token().expect("it can be managed").expose().to_owned()
}

#[tokio::test]
async fn reading_adopts_the_ops_changes_and_the_new_token() {
    let office = office();
    let mut registration = office.register(request().client_name("Example")).await;
    let first = token(&registration);
    office.op.misbehave(Fault::edit_json(Endpoint::ClientConfiguration, |members| {
        members.insert("client_name".to_owned(), json!("Renamed by the OP"));
    }));
    office.registrar.read(&mut registration).await.unwrap();
    let second = token(&registration);
    assert_ne!(first, second);
    assert_eq!(registration.metadata().client_name(), Some("Renamed by the OP"));
    assert_eq!(registration.requested().client_name(), Some("Example"));
    assert_eq!(registration.differences()[0].member(), "client_name");

    office.registrar.read(&mut registration).await.unwrap();
    assert_ne!(token(&registration), second);
    assert!(registration.differences().is_empty());
    let requests = office.op.requests_to(Endpoint::ClientConfiguration);
    let sent: Vec<_> = requests.iter().map(|request| request.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(sent, [format!("Bearer {first}"), format!("Bearer {second}")]);
    assert!(requests.iter().all(|request| request.method == http::Method::GET && request.body.is_empty()));
    office.op.assert_clean();
}

#[tokio::test]
async fn an_update_sends_everything_but_what_rfc_7592_forbids() {
    let office = office();
    let mut registration = office.register(request().client_name("Example").contacts(["ops@rp.test"])).await;
    let secret = registration.client_secret().unwrap().clone();
    let update = registration.metadata().to_request().client_name("Renamed").without("contacts");
    office.registrar.update(&mut registration, update).await.unwrap();
    let sent = &office.op.requests_to(Endpoint::ClientConfiguration)[0];
    assert_eq!((sent.method.as_str(), sent.header("content-type")), ("PUT", Some("application/json")));
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(body["client_id"], registration.client_id());
    assert_eq!(body["client_secret"], secret.expose());
    assert_eq!(body["client_name"], "Renamed");
    assert_eq!(body["token_endpoint_auth_method"], "client_secret_basic", "what the OP chose stays");
    for forbidden in
        ["registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at"]
    {
        assert!(body.get(forbidden).is_none(), "{forbidden}");
    }
    assert_eq!(registration.metadata().client_name(), Some("Renamed"));
    assert_eq!(registration.requested().client_name(), Some("Renamed"));
    assert!(registration.metadata().contacts().is_empty());
    assert!(registration.differences().is_empty());
    assert_eq!(registration.client_secret(), Some(&secret));
    office.op.assert_clean();
}

#[tokio::test]
async fn a_registration_survives_a_restart_with_the_newest_token() {
    let office = office();
    let mut registration = office.register(request()).await;
    let keyring = keyring();
    let old = registration.seal(&keyring).unwrap();
    office.registrar.read(&mut registration).await.unwrap();
    let stored = registration.seal(&keyring).unwrap();

    let mut reopened = Registration::open(&keyring, &stored).unwrap();
    assert_eq!(token(&reopened), token(&registration));
    assert_eq!(reopened.client_secret(), registration.client_secret());
    assert_eq!(reopened.metadata(), registration.metadata());
    assert_eq!(reopened.requested(), registration.requested());
    assert_eq!(reopened.registration_client_uri(), registration.registration_client_uri());
    office.registrar.read(&mut reopened).await.unwrap();
    office.op.assert_clean();

    let mut outdated = Registration::open(&keyring, &old).unwrap();
    let error = office.registrar.read(&mut outdated).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken));
    assert_eq!(office.op.violations()[0].rule, RequestRule::RegistrationAccessTokenReplaced);

    let mut altered = stored.clone();
    *altered.last_mut().unwrap() ^= 1;
    for sealed in [altered.as_slice(), b"", b"anything"] {
        assert_eq!(*Registration::open(&keyring, sealed).unwrap_err().kind(), ErrorKind::Sealed);
    }
    assert!(Registration::open(&super::super::support::keyring(), &stored).is_err());
}

#[tokio::test]
async fn a_secret_that_expires_is_renewed_by_reading() {
    let office = office_with(|op| op.client_secrets_expire_after(DAY));
    let mut registration = office.register(request()).await;
    let first = registration.client_secret().unwrap().clone();
    let expiry = registration.client_secret_expires_at().unwrap();
    assert!(office.client_of(&registration).unwrap().discover().await.is_ok());
    office.clock.sleep(2 * DAY).await;

    let error = office.client_of(&registration).unwrap().discover().await.unwrap_err();
    let ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!(*setting, "client_secret");

    office.registrar.read(&mut registration).await.unwrap();
    assert_ne!(registration.client_secret(), Some(&first));
    assert!(registration.client_secret_expires_at().unwrap() > expiry);
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    crate::support::assert_approved(&office.outcome(&client).await.unwrap());
    office.op.assert_clean();
}

#[tokio::test]
async fn a_secret_is_dropped_with_the_method_that_needed_it() {
    let office = office();
    let mut registration = office.register(request()).await;
    assert!(registration.client_secret().is_some());
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let with_key = registration.metadata().to_request().private_key_jwt(&key);
    office.registrar.update(&mut registration, with_key).await.unwrap();
    assert_eq!(registration.client_secret(), None);
    let renamed = registration.metadata().to_request().client_name("Renamed");
    office.registrar.update(&mut registration, renamed).await.unwrap();
    let client = office.client_of(&registration).unwrap().signing_key(key).discover().await.unwrap();
    crate::support::assert_approved(&office.outcome(&client).await.unwrap());

    let with_secret = registration.metadata().to_request().token_endpoint_auth_method("client_secret_post");
    let with_secret = with_secret.without("token_endpoint_auth_signing_alg");
    office.registrar.update(&mut registration, with_secret).await.unwrap();
    assert!(registration.client_secret().is_some());
    office.op.assert_clean();
}

#[tokio::test]
async fn members_that_the_response_omits_stay() {
    let office = office_with(|op| op.without_registration_rotation());
    let mut registration = office.register(request()).await;
    let before = registration.clone();
    office.op.misbehave(Fault::edit_json(Endpoint::ClientConfiguration, |members| {
        for name in
            ["client_secret", "client_secret_expires_at", "registration_access_token", "registration_client_uri"]
        {
            members.remove(name);
        }
    }));
    office.registrar.read(&mut registration).await.unwrap();
    assert_eq!(registration.client_secret(), before.client_secret());
    assert_eq!(registration.registration_access_token(), before.registration_access_token());
    assert_eq!(registration.registration_client_uri(), before.registration_client_uri());
    assert!(registration.client_id_issued_at().is_some());
}

#[tokio::test]
async fn a_forbidden_new_registration_client_uri_is_ignored_and_the_new_token_is_kept() {
    let office = office();
    let mut registration = office.register(request()).await;
    let (place, first) = (registration.registration_client_uri().cloned(), token(&registration));
    office.op.misbehave(Fault::edit_json(Endpoint::ClientConfiguration, |members| {
        members.insert("registration_client_uri".to_owned(), json!("http://169.254.169.254/latest"));
    }));
    office.registrar.read(&mut registration).await.unwrap();
    assert_eq!(registration.registration_client_uri(), place.as_ref());
    assert_ne!(token(&registration), first);
    office.registrar.read(&mut registration).await.unwrap();
    office.op.assert_clean();
}

#[tokio::test]
async fn an_error_leaves_the_registration_unchanged() {
    let edited = |name: &'static str, value: Value| {
        Fault::edit_json(Endpoint::ClientConfiguration, move |members| {
            members.insert(name.to_owned(), value.clone());
        })
    };
    for (fault, kind) in [
        (edited("client_id", json!("somebody else")), None),
        (edited("client_secret", json!({})), None),
        (Fault::truncated_json(Endpoint::ClientConfiguration), None),
        (Fault::redirect(Endpoint::ClientConfiguration, "https://elsewhere.test/"), None),
        (Fault::reset(Endpoint::ClientConfiguration), Some(TransportProblem::Broken)),
        (Fault::stall(Endpoint::ClientConfiguration), Some(TransportProblem::Timeout)),
    ] {
        let office = office_with(|op| op.without_registration_rotation());
        let mut registration = office.register(request().client_name("Example")).await;
        let before = (token(&registration), registration.requested().clone(), registration.metadata().clone());
        office.op.misbehave(fault);
        let update = registration.metadata().to_request().client_name("Renamed");
        let error = office.registrar.update(&mut registration, update).await.unwrap_err();
        match kind {
            Some(problem) => assert_eq!(*error.kind(), ErrorKind::Transport(problem)),
            None => assert!(error.rule().is_some(), "{error:?}"),
        }
        assert_eq!(error.step(), Some("updating the registration"));
        let after = (token(&registration), registration.requested().clone(), registration.metadata().clone());
        assert!(before == after);
        office.registrar.read(&mut registration).await.unwrap();
    }
    let office = office();
    let mut registration = office.register(request()).await;
    let wrong = registration.metadata().to_request().without("redirect_uris");
    assert!(office.registrar.update(&mut registration, wrong).await.is_err());
    assert!(office.op.requests_to(Endpoint::ClientConfiguration).is_empty());
    office.op.misbehave(edited("client_id", json!("somebody else")));
    assert_eq!(office.registrar.read(&mut registration).await.unwrap_err().rule(), Some(Rule::InvalidMember));
}

#[tokio::test]
async fn a_deleted_client_cannot_be_read() {
    let office = office();
    let registration = office.register(request()).await;
    let client = office.client_of(&registration).unwrap().discover().await.unwrap();
    office.registrar.delete(&registration).await.unwrap();
    let sent = office.op.requests_to(Endpoint::ClientConfiguration);
    assert_eq!((sent[0].method.as_str(), sent[0].status), ("DELETE", Some(204)));
    assert_eq!(office.op.registered(registration.client_id()), None);
    let error = client.introspect(&openid_deferred::Secret::new("some token"), None).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_client");
    office.op.forgive();

    // As after a deletion whose answer was lost.
    let error = office.registrar.delete(&registration).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken));
    office.op.assert_clean();
}

#[tokio::test]
async fn a_deletion_may_be_answered_with_an_empty_page_and_may_be_refused() {
    let office = office();
    let registration = office.register(request()).await;
    office.op.misbehave(Fault::response(Endpoint::ClientConfiguration, 200, "", ""));
    office.registrar.delete(&registration).await.unwrap();
    for (status, refusal) in [
        (405, Some(RegistrationRefusal::NotOffered)),
        (403, Some(RegistrationRefusal::NotPermitted)),
        (503, None),
        (302, None),
    ] {
        office.op.misbehave(Fault::status(Endpoint::ClientConfiguration, status));
        let error = office.registrar.delete(&registration).await.unwrap_err();
        assert_eq!(RegistrationRefusal::of(&error), refusal);
    }
    office.op.assert_clean();
}

#[tokio::test]
async fn a_client_that_the_op_has_forgotten_cannot_be_read() {
    let office = office();
    let mut registration = office.register(request()).await;
    office.op.unregister(registration.client_id());
    let error = office.registrar.read(&mut registration).await.unwrap_err();
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_registration_without_a_management_endpoint_or_of_another_op_is_not_managed() {
    let unmanaged = office_with(|op| op.without_registration_management());
    let mut registration = unmanaged.register(request()).await;
    let no_endpoint = ErrorKind::Configuration(ConfigurationProblem::NoEndpoint("registration_client_uri"));
    assert_eq!(*unmanaged.registrar.read(&mut registration).await.unwrap_err().kind(), no_endpoint);
    assert_eq!(*unmanaged.registrar.delete(&registration).await.unwrap_err().kind(), no_endpoint);

    let other: Office = office_with(|op| op.host("other.test"));
    let mut registration = office().register(request()).await;
    let error = other.registrar.read(&mut registration).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
    assert!(other.op.requests().is_empty());
}

#[tokio::test]
async fn a_stored_registration_client_uri_on_loopback_needs_the_permission_again() {
    let op = openid_deferred::testing::TestProvider::builder().registration().start().unwrap();
    let registrar = Registrar::builder(op.issuer()).allow_insecure_loopback().build().unwrap();
    let mut registration = registrar.register(request()).await.unwrap();
    registrar.read(&mut registration).await.unwrap();
    let strict = Registrar::builder(op.issuer()).build().unwrap_err();
    assert!(matches!(strict.kind(), ErrorKind::Configuration(ConfigurationProblem::InsecureUrl { .. })));
    op.assert_clean();
}
