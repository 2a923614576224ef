//! Encrypted final ID Tokens, and replicas that do not have the key yet.

use openid_deferred::Outcome;
use openid_deferred::encryption::{DecryptionKey, KeyManagementAlgorithm};
use openid_deferred::error::Rule;
use openid_deferred::store::State;
use openid_deferred::testing::{DecisionPolicy, EncryptionForgery, Endpoint, Fault, TestClient, TestProviderBuilder};
use serde_json::json;

use crate::support::{CLIENT_ID, CLIENT_SECRET, HOUR, REDIRECT_URI, SECOND, World, next, world_of, world_with};

fn key() -> DecryptionKey {
    DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).expect("keys can be generated")
}

fn encrypting(key: &DecryptionKey) -> impl FnOnce(TestProviderBuilder) -> TestProviderBuilder {
    let client = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .jwks(&json!({ "keys": [key.public_jwk()] }))
        .encrypted_id_token("ECDH-ES", "A256GCM");
    |op| op.client(client).decisions(DecisionPolicy::immediately())
}

#[tokio::test]
async fn an_encrypted_token_is_decrypted_and_the_signed_one_inside_is_delivered() {
    let key = key();
    let world = world_with(encrypting(&key), |client| client.decryption_key(key.clone()), |poller| poller).await;
    let id = world.waiting().await;
    let status = world.poller.status(id).await.unwrap().unwrap();
    assert_eq!(status.interim().verified().map(|interim| interim.claims().subject()), Some("user-1"));
    let delivery = world.outcome().await;
    let Outcome::Approved(authentication) = delivery.outcome() else { panic!("{delivery:?}") };
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert_eq!(authentication.id_token().token().expose().matches('.').count(), 2);
    world.op.assert_clean();
}

/// The answer is in the store, and no replica has the key.
async fn answered_without_the_key(key: &DecryptionKey) -> World {
    let world = world_of(encrypting(key)).await;
    let id = world.waiting().await;
    world.sleep(HOUR).await;
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Answered);
    world
}

#[tokio::test]
async fn an_answer_is_kept_until_its_decryption_key_is_deployed() {
    let key = key();
    let world = answered_without_the_key(&key).await;
    world.client.replace_decryption_keys([key]).unwrap();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(world.polls().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_key_that_is_missing_for_a_day_makes_the_answer_invalid() {
    let world = answered_without_the_key(&key()).await;
    let mut outcomes = world.poller.outcomes();
    tokio::select! {
        biased;
        delivery = next(&mut outcomes) => panic!("too early: {delivery:?}"),
        () = world.sleep(HOUR * 22) => {}
    }
    let delivery = next(&mut outcomes).await;
    let Outcome::Invalid(violation) = delivery.outcome() else { panic!("{delivery:?}") };
    assert_eq!(violation.rule(), Rule::NoDecryptionKey);
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_decrypted_is_invalid_at_once() {
    let key = key();
    let world = world_with(encrypting(&key), |client| client.decryption_key(key.clone()), |poller| poller).await;
    world.op.misbehave(Fault::encryption(Endpoint::Poll, EncryptionForgery::cut_tag(1)));
    world.waiting().await;
    let mut outcomes = world.poller.outcomes();
    let delivery = tokio::select! {
        biased;
        delivery = next(&mut outcomes) => delivery,
        () = world.sleep(SECOND * 60) => panic!("too late"),
    };
    let Outcome::Invalid(violation) = delivery.outcome() else { panic!("{delivery:?}") };
    assert_eq!(violation.rule(), Rule::Decryption);
}
