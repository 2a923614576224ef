//! An OP that begins to sign with another algorithm while clients keep its metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::Rule;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery, TestClient, TestProviderBuilder};
use openid_deferred::{ClientBuilder, Clock as _, InterimState, ResponseMode, SigningAlgorithm};
use serde_json::json;

use crate::id_token::{ended_with, header};
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, assert_approved, broken_rule, seconds, world_with,
};

fn registered(algorithm: &str) -> TestClient {
    TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI).signing_algorithm(algorithm)
}

/// An OP that lists and uses RS256 until it migrates.
struct Migration {
    world: World,
    has_migrated: Arc<AtomicBool>,
}

impl Migration {
    async fn new(
        op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
        client: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Self {
        let has_migrated = Arc::new(AtomicBool::new(false));
        let migrated = has_migrated.clone();
        let listing = move |metadata: &mut serde_json::Map<String, serde_json::Value>| {
            let listed = match migrated.load(Ordering::Relaxed) {
                true => json!(["RS256", "ES256"]),
                false => json!(["RS256"]),
            };
            metadata.insert("id_token_signing_alg_values_supported".to_owned(), listed.clone());
            metadata.insert("authorization_signing_alg_values_supported".to_owned(), listed);
        };
        // The keys of both algorithms are published from the start.
        let op = |settings| op(settings).client(registered("ES256")).metadata(listing);
        let world = world_with(op, client).await;
        world.op.register(registered("RS256"));
        Self { world, has_migrated }
    }

    /// From now on the OP signs with ES256, and lists it.
    fn migrate(&self) {
        self.has_migrated.store(true, Ordering::Relaxed);
        self.world.op.register(registered("ES256"));
    }
}

fn metadata_fetches(world: &World) -> usize {
    world.op.requests_to(Endpoint::Metadata).len()
}

#[tokio::test]
async fn an_op_that_migrates_its_signing_algorithm_loses_no_sign_in() {
    let migration = Migration::new(|op| op.decisions(DecisionPolicy::after_polls(2)), |client| client).await;
    let world = &migration.world;
    let mut pending = world.pending().await;
    migration.migrate();
    assert_approved(&world.wait(&mut pending).await);
    let fetched = metadata_fetches(world);
    for _ in 0..5 {
        let mut pending = world.pending().await;
        assert!(matches!(pending.interim(), InterimState::Verified(_)), "{:?}", pending.interim());
        assert_approved(&world.wait(&mut pending).await);
    }
    assert_eq!((fetched, metadata_fetches(world)), (2, 2), "one fetch serves all sign-ins");
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
}

#[tokio::test]
async fn a_refresh_after_a_migration_of_the_signing_algorithm_keeps_the_session() {
    let migration = Migration::new(|op| op, |client| client).await;
    let mut authentication = migration.world.approved().await;
    migration.migrate();
    migration.world.client.refresh(&mut authentication).await.unwrap();
    migration.world.client.refresh(&mut authentication).await.unwrap();
    assert!(migration.world.op.requests_to(Endpoint::Revocation).is_empty());
}

#[tokio::test]
async fn a_response_jwt_after_a_migration_of_the_signing_algorithm_is_verified() {
    let migration = Migration::new(|op| op, |client| client.response_mode(ResponseMode::QueryJwt)).await;
    let (query, mut session) = migration.world.user_returns().await;
    migration.world.client.check_authorization_response(&query, &mut session).await.unwrap();
    migration.migrate();
    for _ in 0..3 {
        let (query, mut session) = migration.world.user_returns().await;
        migration.world.client.check_authorization_response(&query, &mut session).await.unwrap();
    }
    assert_eq!(metadata_fetches(&migration.world), 2);
}

#[tokio::test]
async fn an_algorithm_that_newer_metadata_does_not_list_is_refused_permanently() {
    let migration = Migration::new(|op| op, |client| client).await;
    let world = &migration.world;
    // The OP signs with ES256 and still does not list it.
    world.op.register(registered("ES256"));
    let pending = world.pending().await;
    let interim = pending.interim();
    assert!(matches!(interim, InterimState::Rejected(Rule::IdTokenAlgorithm)), "{interim:?}");
    assert_eq!(metadata_fetches(world), 2);
    let began = world.clock.monotonic();
    for _ in 0..50 {
        assert_eq!(broken_rule(&world.outcome().await), Some(Rule::IdTokenAlgorithm));
    }
    let minutes = (world.clock.monotonic() - began).as_secs() / 60 + 1;
    let fetched = metadata_fetches(world) as u64;
    assert!(fetched <= 10 + minutes, "{fetched} fetches in {minutes} minutes");
}

#[tokio::test]
async fn an_unlisted_algorithm_is_not_refused_while_metadata_is_unavailable() {
    let migration = Migration::new(|op| op.decisions(DecisionPolicy::immediately()), |client| client).await;
    let world = &migration.world;
    let mut pending = world.pending().await;
    migration.migrate();
    world.op.misbehave(Fault::status(Endpoint::Metadata, 503).always());
    let error = world.poll_when_due(&mut pending).await.unwrap_err();
    assert!(error.is_transient() && error.rule() == Some(Rule::MetadataOutdated), "{error:?}");
    assert!(error.retry_after().is_some_and(|wait| wait <= seconds(4)), "{error:?}");
    world.op.behave();
    assert_approved(&world.wait(&mut pending).await);
    assert_eq!(world.polls().len(), 1, "the OP gives the tokens once");
}

#[tokio::test]
async fn a_caller_with_a_deadline_gets_an_error_if_the_fetch_of_metadata_hangs() {
    let migration = Migration::new(|op| op, |client| client).await;
    let world = &migration.world;
    let mut authentication = world.approved().await;
    migration.migrate();
    world.op.misbehave(Fault::stall(Endpoint::Metadata).always());
    for _ in 0..3 {
        let began = world.clock.monotonic();
        let error = world.client.refresh(&mut authentication).await.unwrap_err();
        assert!(error.is_transient() && error.rule() == Some(Rule::MetadataOutdated), "{error:?}");
        assert!(error.retry_after().is_some() && world.clock.monotonic() - began <= seconds(8), "{error:?}");
    }
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1, "the answer is kept");
    world.op.behave();
    world.clock.sleep(seconds(60)).await;
    world.client.refresh(&mut authentication).await.unwrap();
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
}

#[tokio::test]
async fn an_algorithm_that_is_never_accepted_causes_no_fetch_of_metadata() {
    for forgery in [
        IdTokenForgery::algorithm_none,
        IdTokenForgery::hmac_with_public_key,
        || header("alg", json!("XS256")),
        || header("alg", json!("HS512")),
    ] {
        let migration = Migration::new(|op| op, |client| client).await;
        assert_eq!(broken_rule(&ended_with(&migration.world, forgery()).await), Some(Rule::IdTokenAlgorithm));
        assert_eq!(metadata_fetches(&migration.world), 1);
    }
}

#[tokio::test]
async fn an_algorithm_that_differs_from_the_registered_one_causes_no_fetch_of_metadata() {
    let pinned = |client: ClientBuilder| {
        client.algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Rs256))
    };
    let migration = Migration::new(|op| op, pinned).await;
    let mut pending = migration.world.pending().await;
    migration.migrate();
    assert_eq!(broken_rule(&migration.world.wait(&mut pending).await), Some(Rule::IdTokenAlgorithm));
    let pinned = |client: ClientBuilder| {
        let client = client.response_mode(ResponseMode::QueryJwt);
        client.algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Rs256))
    };
    let responses = Migration::new(|op| op, pinned).await;
    responses.migrate();
    let (query, mut session) = responses.world.user_returns().await;
    let refused = responses.world.client.check_authorization_response(&query, &mut session).await.unwrap_err();
    assert_eq!(refused.rule(), Some(Rule::JwtResponseAlgorithm));
    assert_eq!((metadata_fetches(&migration.world), metadata_fetches(&responses.world)), (1, 1));
}

#[tokio::test]
async fn forged_tokens_cause_a_bounded_number_of_metadata_fetches_and_delay_no_sign_in() {
    let migration = Migration::new(|op| op, |client| client.response_mode(ResponseMode::QueryJwt)).await;
    let world = &migration.world;
    let began = world.clock.monotonic();
    while world.clock.monotonic() - began < seconds(600) {
        world.op.misbehave(Fault::jwt_response(header("alg", json!("ES384"))));
        let (query, mut session) = world.user_returns().await;
        let refused = world.client.check_authorization_response(&query, &mut session).await.unwrap_err();
        assert_eq!(refused.rule(), Some(Rule::JwtResponseAlgorithm));
        world.clock.sleep(seconds(1)).await;
    }
    assert!(metadata_fetches(world) <= 101, "{} fetches in ten minutes", metadata_fetches(world));
    migration.migrate();
    for _ in 0..3 {
        let (query, mut session) = world.user_returns().await;
        world.client.check_authorization_response(&query, &mut session).await.unwrap();
    }
}
