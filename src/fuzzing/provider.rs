//! Documents of the OP: its metadata and its keys.

use super::world::{
    FIXED, ISSUER, KEYS_URL, METADATA, METADATA_URL, STATE, Served, Site, World, answers, check_debug, check_error,
    fixed, keyring, run,
};
use crate::client::{Client, ClientAlgorithms};
use crate::dialect::ResponseType;
use crate::error::{ConfigurationProblem, Document, ErrorKind, Misuse};
use crate::jose::{CompactJws, KeySet, SigningAlgorithm};
use crate::json::Object;
use crate::provider::ProviderMetadata;

/// The first byte selects the client's settings. The rest are the answers to requests for the OP's metadata.
pub fn discovery(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let client = |world: &World| {
        let mut builder = world.builder().client_secret(super::world::CLIENT_SECRET);
        if choice & 1 != 0 {
            builder = builder.response_type(ResponseType::DeferredCodeOrCode).strict_response_types();
        }
        if choice & 2 != 0 {
            builder = builder.pushed_authorization_requests();
        }
        if choice & 4 != 0 {
            builder = builder.allow_unadvertised();
        }
        builder
    };
    let site = || {
        let mut site = Site::new(answers(rest));
        site.pages.retain(|(url, _)| *url == KEYS_URL);
        site
    };
    let world = World::new(site());
    let discovered = run(client(&world).discover());
    if let Err(error) = &discovered {
        check_error(error);
    }
    assert!(world.site.requests() <= 3, "two places for the metadata, and one for the keys");

    let world = World::new(site());
    let client = client(&world).build().unwrap();
    let published = run(client.provider_metadata());
    assert!(world.site.requests() <= 2, "an issuer without a path has two places");
    match published {
        Ok(metadata) => {
            check_metadata(&metadata);
            start(&client, &metadata);
        }
        Err(error) => {
            check_error(&error);
            assert!(discovered.is_err());
        }
    }
}

fn check_metadata(metadata: &ProviderMetadata) {
    check_debug(metadata);
    assert_eq!(metadata.issuer(), ISSUER);
    let optional = [
        metadata.userinfo_endpoint(),
        metadata.revocation_endpoint(),
        metadata.introspection_endpoint(),
        metadata.pushed_authorization_request_endpoint(),
        metadata.end_session_endpoint(),
        metadata.registration_endpoint(),
        metadata.jwks_uri(),
        metadata.authorization_endpoint(),
    ];
    let required = [metadata.token_endpoint()];
    let aliases = metadata.mtls_endpoint_aliases().values();
    for url in optional.into_iter().flatten().chain(required).chain(aliases) {
        assert!(url.scheme() == "https" && url.has_host() && url.fragment().is_none(), "{url}");
        assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    }
    metadata.supports_response_type("code deferred_code");
}

/// The browser is sent to the published endpoint, with our own request.
fn start(client: &Client, metadata: &ProviderMetadata) {
    match run(client.authorize().start()) {
        Ok((url, session)) => {
            check_debug(&session);
            let endpoint = metadata.authorization_endpoint().expect("a request was started");
            assert_eq!((url.host_str(), url.path(), url.scheme()), (endpoint.host_str(), endpoint.path(), "https"));
            let theirs = endpoint.query_pairs().count();
            let mut ours = url.query_pairs().skip(theirs);
            if session.url_expires_at().is_none() {
                let state = ours.find(|(name, _)| name == "state").map(|(_, value)| value.into_owned());
                assert_eq!(state.as_deref(), Some(session.state().expose()));
            }
            let sealed = session.seal(&keyring()).unwrap();
            assert!(crate::client::AuthorizationSession::open(&keyring(), &sealed).is_ok());
            assert_ne!(session.state().expose(), STATE);
        }
        Err(error) => {
            check_error(&error);
            assert!(!matches!(error.kind(), ErrorKind::Misuse(Misuse::SealedTooLarge { .. })));
            let endpoint = "pushed_authorization_request_endpoint";
            if *error.kind() == ErrorKind::Configuration(ConfigurationProblem::NoEndpoint(endpoint)) {
                assert!(metadata.pushed_authorization_request_endpoint().is_none());
            }
        }
    }
}

/// The input is the answer to requests for the OP's keys.
pub fn key_set(input: &[u8]) {
    let mut answers = answers(input);
    let site = Site { pages: vec![(METADATA_URL, Served::json(METADATA))], ..Site::default() };
    site.answers.lock().unwrap().append(&mut answers.clone());
    let world = World::new(site);
    let builder = world.builder().client_secret(super::world::CLIENT_SECRET);
    let algorithms = ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256);
    let discovered = run(builder.algorithms(algorithms).discover());
    assert!(world.site.requests() <= 1);
    let Some(Served::Response { status, body, .. }) = answers.pop_front() else { return };
    let parsed = KeySet::parse(&body);
    match (&parsed, discovered) {
        (Ok(_), discovered) => assert_eq!(discovered.is_ok(), status.as_u16() == 200),
        (Err(error), Err(discovered)) => {
            check_error(error);
            check_error(&discovered);
        }
        (Err(_), Ok(_)) => panic!("keys were found where there are none"),
    }
    if let Ok(keys) = &parsed {
        check_keys(keys, &body);
    }
}

fn check_keys(keys: &KeySet, body: &[u8]) {
    let _ = format!("{keys:?}");
    let document = Object::document(body, Document::KeySet).unwrap().members().clone();
    let published = |pointer: &str| {
        let x = FIXED.pointer(pointer).unwrap();
        let mut all = document["keys"].as_array().unwrap().iter();
        all.any(|key| key.get("x") == Some(x) || key.get("n") == Some(x))
    };
    for (token, algorithm, key) in [
        ("/tokens/es256", SigningAlgorithm::Es256, "/signing_keys/keys/0/x"),
        ("/tokens/eddsa", SigningAlgorithm::EdDsa, "/signing_keys/keys/1/x"),
        ("/tokens/rs256", SigningAlgorithm::Rs256, "/signing_keys/keys/2/n"),
        ("/tokens/ps256", SigningAlgorithm::Ps256, "/signing_keys/keys/2/n"),
    ] {
        let jws = CompactJws::parse(fixed(token)).ok().unwrap();
        let candidates = keys.candidates(algorithm, None);
        assert!(candidates.len() <= 100);
        for candidate in candidates.iter().take(4) {
            assert!(candidate.supports(algorithm) && !candidate.supports(SigningAlgorithm::Hs256));
            let verifies = candidate.verify(algorithm, jws.signing_input(), jws.signature());
            assert!(!verifies || published(key), "another key verifies a genuine token");
            assert!(!candidate.verify(algorithm, jws.signing_input(), &[1; 64]));
            assert!(!candidate.verify(algorithm, b"another message", jws.signature()));
        }
    }
}
