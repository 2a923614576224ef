//! Encrypted ID Tokens, interim and final (OpenID Connect Core 1.0 §3.1.3.7, 1, and §10.2).

use std::sync::Arc;

use openid_deferred::encryption::{
    ClientAlgorithms, ContentEncryptionAlgorithm, DecryptionKey, Encryption, KeyManagementAlgorithm,
};
use openid_deferred::error::{Document, Rule};
use openid_deferred::testing::{DecisionPolicy, EncryptionForgery, Endpoint, Fault, IdTokenForgery, TestClient};
use openid_deferred::{
    ClientBuilder, Clock as _, InterimState, Outcome, PendingAuthentication, Poll, ResponseType, SignIn,
};
use serde_json::{Value, json};

use crate::support::{
    CLIENT_ID, CLIENT_SECRET, DAY, HOUR, REDIRECT_URI, World, assert_approved, broken_rule, client_of, keyring,
    reopened, world_with,
};

mod settings;
mod userinfo;

const ALG: KeyManagementAlgorithm = KeyManagementAlgorithm::EcdhEsA256Kw;

fn key() -> DecryptionKey {
    DecryptionKey::generate(ALG).expect("keys can be generated")
}

/// The client as it is registered at the OP.
fn registered(key: &DecryptionKey) -> TestClient {
    TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("ES256")
        .jwks(&json!({ "keys": [key.public_jwk()] }))
}

fn encrypting(key: &DecryptionKey) -> TestClient {
    registered(key).encrypted_id_token(key.algorithm().as_str(), "A256GCM")
}

/// A world in which ID Tokens are encrypted for this key, the OP decides at the first poll, and the client has these
/// settings.
async fn world_for(client_at_op: TestClient, client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    world_with(|op| op.client(client_at_op).decisions(DecisionPolicy::immediately()), client).await
}

/// A client that registered encryption and has the key.
async fn encrypted_world() -> World {
    let key = key();
    world_for(encrypting(&key), |client| {
        client.decryption_key(key).algorithms(ClientAlgorithms::new().id_token_encrypted_response(ALG))
    })
    .await
}

async fn ended_with(world: &World, forgery: EncryptionForgery) -> Outcome {
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::encryption(Endpoint::Poll, forgery));
    let outcome = world.wait(&mut pending).await;
    assert_eq!(world.op.faults_left(), 0, "the encryption was forged");
    outcome
}

/// Asserts that the final ID Token is refused at once.
async fn is_refused(world: &World, rule: Rule, forgery: EncryptionForgery) {
    let started = world.clock.monotonic();
    let outcome = ended_with(world, forgery).await;
    let Outcome::Invalid(violation) = outcome else { panic!("{rule:?}: {outcome:?}") };
    assert_eq!((violation.rule(), violation.document()), (rule, Some(Document::IdToken)));
    assert!(world.clock.monotonic() - started < HOUR, "{rule:?}");
}

fn header(name: &'static str, value: Value) -> EncryptionForgery {
    EncryptionForgery::header(move |header| {
        header.insert(name.to_owned(), value.clone());
    })
}

// Accepted tokens.

#[tokio::test]
async fn encrypted_tokens_sign_a_user_in_with_every_combination_of_algorithms() {
    use ContentEncryptionAlgorithm as Enc;
    use KeyManagementAlgorithm as Alg;
    let encs = [Enc::A128Gcm, Enc::A192Gcm, Enc::A256Gcm, Enc::A128CbcHs256, Enc::A192CbcHs384, Enc::A256CbcHs512];
    for alg in [Alg::RsaOaep, Alg::RsaOaep256, Alg::EcdhEs, Alg::EcdhEsA128Kw, Alg::EcdhEsA192Kw, Alg::EcdhEsA256Kw] {
        let key = DecryptionKey::generate(alg).unwrap();
        for enc in encs {
            let at_op = registered(&key).encrypted_id_token(alg.as_str(), enc.as_str());
            let world = world_for(at_op, |client| {
                client
                    .decryption_key(key.clone())
                    .algorithms(ClientAlgorithms::new().id_token_encrypted_response(Encryption::new(alg).content(enc)))
            })
            .await;
            let mut pending = world.pending().await;
            assert!(pending.interim().verified().is_some(), "{alg:?} {enc:?}: {:?}", pending.interim());
            assert_approved(&world.wait(&mut pending).await);
            world.op.assert_clean();
        }
    }
}

/// Keys that `generate` does not make.
const OTHER_CURVES: [&str; 3] = [
    // RFC 7520 §5.4.
    r#"{"kty":"EC","crv":"P-384","alg":"ECDH-ES","x":"YU4rRUzdmVqmRtWOs2OpDE_T5fsNIodcG8G5FWPrTPMyxpzsSOGaQLpe2FpxBmu2","y":"A8-yxCHxkfBz3hKZfI1jUYMjUhsEveZ9THuwFjH2sCNdtksRJU7D5-SkgaFL1ETP","d":"iTx2pk7wW-GqJkHcEkFQb2EFyYcO7RugmaW3mRrQVAOUiPommT0IdnYK2xDlZh-j"}"#,
    // RFC 7520 §3.2.
    r#"{"kty":"EC","crv":"P-521","alg":"ECDH-ES","x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt","y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1","d":"AAhRON2r9cqXX1hg-RoI6R1tX5p2rUAYdmpHZoC1XNM56KtscrX6zbKipQrCW9CGZH3T4ubpnoTKLDYJ_fF3_rJt"}"#,
    // RFC 7748 §6.1.
    r#"{"kty":"OKP","crv":"X25519","alg":"ECDH-ES","d":"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo","x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}"#,
];

#[tokio::test]
async fn encrypted_tokens_sign_a_user_in_with_keys_on_every_curve() {
    for jwk in OTHER_CURVES {
        let key = DecryptionKey::from_jwk(jwk).unwrap();
        let world = world_for(encrypting(&key), |client| client.decryption_key(key.clone())).await;
        assert_approved(&world.outcome().await);
    }
}

#[tokio::test]
async fn the_application_gets_the_signed_token_inside_the_encrypted_one() {
    let world = encrypted_world().await;
    let authentication = world.approved().await;
    let sent = world.polls().last().unwrap().response_json();
    let sent = sent["id_token"].as_str().unwrap();
    let hint = authentication.id_token().token().expose();
    assert_eq!((sent.matches('.').count(), hint.matches('.').count()), (4, 2));
}

#[tokio::test]
async fn an_immediate_answer_may_have_an_encrypted_token() {
    let key = key();
    let at_op = encrypting(&key);
    let world = world_with(|op| op.client(at_op).answer_with_code(), |client| client.decryption_key(key)).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await.unwrap();
    let query = world.op.visit(url).query();
    let signed_in = world.client.authorization_response(&query, session).await.unwrap();
    assert!(matches!(signed_in, SignIn::Complete(_)), "{signed_in:?}");
}

#[tokio::test]
async fn without_a_registered_algorithm_tokens_may_be_encrypted_or_not() {
    let key = key();
    let world = world_for(encrypting(&key), |client| client.decryption_key(key)).await;
    assert_approved(&world.outcome().await);
    assert_approved(&ended_with(&world, EncryptionForgery::in_clear()).await);
}

#[tokio::test]
async fn a_token_without_kid_and_cty_is_decrypted() {
    let world = encrypted_world().await;
    let forgery = EncryptionForgery::header(|header| {
        header.remove("kid");
        header.remove("cty");
    });
    assert_approved(&ended_with(&world, forgery).await);
}

// Rotation.

#[tokio::test]
async fn decryption_keys_rotate_while_sign_ins_are_pending() {
    let (old, new) = (key(), key());
    let world = world_for(encrypting(&old), |client| {
        client.decryption_key(old.clone()).algorithms(ClientAlgorithms::new().id_token_encrypted_response(ALG))
    })
    .await;
    let mut before = world.pending().await;
    world.client.replace_decryption_keys([new.clone(), old.clone()]).unwrap();
    let published = world.client.clone().jwks();
    let published: Vec<_> = published["keys"].as_array().unwrap().iter().map(|jwk| jwk["kid"].clone()).collect();
    assert_eq!(published, [new.key_id(), old.key_id()]);

    // The OP has not fetched the new keys yet.
    assert_approved(&world.wait(&mut before).await);
    let mut between = world.pending().await;
    world.op.register(encrypting(&new).jwks(&world.client.jwks()));
    assert_approved(&world.wait(&mut between).await);
    world.client.replace_decryption_keys([new]).unwrap();
    assert_approved(&world.outcome().await);
    world.op.assert_clean();
}

// A missing key.

#[tokio::test]
async fn a_token_for_a_key_that_the_client_does_not_have_is_kept_for_a_day_and_then_invalid() {
    let world = encrypted_world().await;
    let started = world.clock.monotonic();
    let outcome = ended_with(&world, EncryptionForgery::unknown_key_id()).await;
    let Outcome::Invalid(violation) = outcome else { panic!("{outcome:?}") };
    assert_eq!((violation.rule(), violation.document()), (Rule::NoDecryptionKey, Some(Document::IdToken)));
    assert!(world.clock.monotonic() - started >= DAY);
    assert_eq!(world.polls().len(), 1, "it is never asked for again");
}

#[tokio::test]
async fn an_encrypted_token_is_kept_for_a_day_by_a_client_without_any_key() {
    let world = world_for(encrypting(&key()), |client| client).await;
    let started = world.clock.monotonic();
    assert_eq!(broken_rule(&world.outcome().await), Some(Rule::NoDecryptionKey));
    assert!(world.clock.monotonic() - started >= DAY);
}

/// A sign-in whose final answer has arrived and waits for a key.
async fn answered_without_the_key(key: &DecryptionKey) -> (World, PendingAuthentication) {
    let world = world_for(encrypting(key), |client| client).await;
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable), "{:?}", pending.interim());
    let error = world.poll_when_due(&mut pending).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::NoDecryptionKey));
    (world, pending)
}

#[tokio::test]
async fn a_key_added_within_a_day_decrypts_the_kept_token() {
    let key = key();
    let (world, mut pending) = answered_without_the_key(&key).await;
    world.clock.sleep(HOUR * 20).await;
    world.client.replace_decryption_keys([key]).unwrap();
    let outcome = world.wait(&mut pending).await;
    let Outcome::Approved(authentication) = outcome else { panic!("{outcome:?}") };
    assert!(authentication.claims().expires_at() < world.clock.now(), "it is judged by the time of its receipt");
    assert_eq!(world.polls().len(), 1, "it is not asked for again");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_restart_with_the_key_decrypts_the_kept_token() {
    let key = key();
    let (world, pending) = answered_without_the_key(&key).await;
    let mut pending = reopened(pending, &keyring());
    let client = client_of(&world.op, &world.clock).decryption_key(key).build().unwrap();
    assert_approved(&client.wait(&mut pending).await.unwrap());
    assert_eq!(world.polls().len(), 1);
}

#[tokio::test]
async fn an_interim_token_is_verified_when_its_decryption_key_is_available() {
    let key = key();
    let world = world_with(|op| op.client(encrypting(&key)).decisions(DecisionPolicy::scripted()), |client| client);
    let world = world.await;
    let mut pending = world.pending().await;
    let error = world.client.verify_interim(&mut pending).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::NoDecryptionKey));
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    world.client.replace_decryption_keys([key]).unwrap();
    world.client.verify_interim(&mut pending).await.unwrap();
    assert_eq!(pending.interim().verified().unwrap().claims().subject(), "user-1");
}

// Refused tokens.

#[tokio::test]
async fn an_unencrypted_token_is_refused_if_encryption_is_registered() {
    let world = encrypted_world().await;
    is_refused(&world, Rule::NotEncrypted, EncryptionForgery::in_clear()).await;

    world.op.misbehave(Fault::encryption(Endpoint::Exchange, EncryptionForgery::in_clear()));
    let pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::Rejected(Rule::NotEncrypted)), "{:?}", pending.interim());
}

#[tokio::test]
async fn a_token_encrypted_with_unregistered_algorithms_is_refused() {
    let (key, rsa) = (key(), DecryptionKey::generate(KeyManagementAlgorithm::RsaOaep256).unwrap());
    let both = |client: ClientBuilder| client.decryption_key(key.clone()).decryption_key(rsa.clone());
    let at_op = registered(&rsa).encrypted_id_token("RSA-OAEP-256", "A256GCM");
    let world =
        world_for(at_op, |client| both(client).algorithms(ClientAlgorithms::new().id_token_encrypted_response(ALG)))
            .await;
    assert_eq!(broken_rule(&world.outcome().await), Some(Rule::EncryptionHeader));

    let with_enc = |client: ClientBuilder| {
        let encryption = Encryption::new(ALG).content(ContentEncryptionAlgorithm::A256CbcHs512);
        both(client).algorithms(ClientAlgorithms::new().id_token_encrypted_response(encryption))
    };
    let world = world_for(encrypting(&key), with_enc).await;
    assert_eq!(broken_rule(&world.outcome().await), Some(Rule::EncryptionHeader));
}

#[tokio::test]
async fn insecure_algorithms_and_parameters_are_refused() {
    let rsa = DecryptionKey::generate(KeyManagementAlgorithm::RsaOaep).unwrap();
    let world = world_for(encrypting(&rsa), |client| client.decryption_key(rsa.clone())).await;
    for forgery in [
        EncryptionForgery::rsa1_5(),
        EncryptionForgery::compressed(),
        header("crit", json!(["exp"])),
        header("p2c", json!(1_000_000_000)),
        header("alg", json!("dir")),
        header("alg", json!("PBES2-HS512+A256KW")),
        header("enc", json!("none")),
        header("cty", json!("logout+jwt")),
        header("cty", json!("json")),
        EncryptionForgery::header(|header| drop(header.remove("enc"))),
    ] {
        is_refused(&world, Rule::EncryptionHeader, forgery).await;
    }
}

#[tokio::test]
async fn a_token_that_was_tampered_with_is_refused_at_once_and_always_for_the_same_reason() {
    for enc in ["A256GCM", "A128CBC-HS256"] {
        for alg in [ALG, KeyManagementAlgorithm::EcdhEs, KeyManagementAlgorithm::RsaOaep256] {
            let key = DecryptionKey::generate(alg).unwrap();
            let at_op = registered(&key).encrypted_id_token(alg.as_str(), enc);
            let world = world_for(at_op, |client| client.decryption_key(key)).await;
            let cut = [0, 1, 4, 8, 12, 15].map(EncryptionForgery::cut_tag);
            let others = [
                EncryptionForgery::empty_iv(),
                EncryptionForgery::broken_ciphertext(),
                EncryptionForgery::foreign_key(),
            ];
            for forgery in cut.into_iter().chain(others) {
                is_refused(&world, Rule::Decryption, forgery).await;
            }
        }
    }
}

#[tokio::test]
async fn a_wrapped_key_of_a_few_bytes_is_refused() {
    let world = encrypted_world().await;
    let genuine = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&genuine);
    world.op.misbehave(Fault::edit_json(Endpoint::Poll, move |members| {
        let token = members["id_token"].as_str().unwrap().to_owned();
        let mut segments: Vec<_> = token.split('.').collect();
        segments[1] = "AAAA";
        members.insert("id_token".into(), segments.join(".").into());
        *seen.lock().unwrap() = Some(token);
    }));
    assert_eq!(broken_rule(&world.outcome().await), Some(Rule::Decryption));
    assert!(genuine.lock().unwrap().is_some());
}

#[tokio::test]
async fn an_encrypted_token_needs_a_valid_signed_token_inside() {
    let world = encrypted_world().await;
    is_refused(&world, Rule::IdTokenMalformed, EncryptionForgery::unsigned()).await;
    is_refused(&world, Rule::IdTokenMalformed, EncryptionForgery::twice()).await;
    for (forgery, rule) in [
        (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::hmac_with_public_key(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (IdTokenForgery::foreign_key(), Rule::IdTokenSignature),
        (IdTokenForgery::claims(|claims| drop(claims.insert("nonce".into(), "x".into()))), Rule::IdTokenNonce),
        (IdTokenForgery::raw(""), Rule::IdTokenMalformed),
        (IdTokenForgery::raw("\u{0}"), Rule::IdTokenMalformed),
    ] {
        let mut pending = world.pending().await;
        world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
        assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(rule));
    }
}

#[tokio::test]
async fn a_malformed_encrypted_token_is_refused() {
    let world = encrypted_world().await;
    for (raw, rule) in [
        ("....", Rule::IdTokenMalformed),
        ("a.b.c.d.e", Rule::IdTokenMalformed),
        ("e30.e30.e30.e30.e30", Rule::EncryptionHeader),
        ("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AAAA.AAAA.AAAA.AAAA", Rule::Decryption),
        ("", Rule::NotEncrypted),
        ("a.b.c.d.e.f", Rule::NotEncrypted),
    ] {
        // An empty token is refused earlier.
        let rule = if raw.is_empty() { Rule::NoIdToken } else { rule };
        let outcome = ended_with(&world, EncryptionForgery::raw(raw)).await;
        assert_eq!(broken_rule(&outcome), Some(rule), "{raw:?}");
    }
}

#[tokio::test]
async fn an_interim_token_that_cannot_be_decrypted_ends_no_sign_in() {
    let world = encrypted_world().await;
    for (forgery, rule) in [
        (EncryptionForgery::cut_tag(1), Rule::Decryption),
        (EncryptionForgery::compressed(), Rule::EncryptionHeader),
        (EncryptionForgery::unsigned(), Rule::IdTokenMalformed),
    ] {
        world.op.misbehave(Fault::encryption(Endpoint::Exchange, forgery));
        let mut pending = world.pending().await;
        let InterimState::Rejected(broken) = pending.interim() else { panic!("{:?}", pending.interim()) };
        assert_eq!(*broken, rule);
        assert_approved(&world.wait(&mut pending).await);
    }
}

#[tokio::test]
async fn neither_key_nor_claims_show_in_debug_output_or_errors() {
    let key = DecryptionKey::from_jwk(OTHER_CURVES[2]).unwrap();
    let world = world_for(encrypting(&key), |client| client.decryption_key(key.clone())).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::encryption(Endpoint::Poll, EncryptionForgery::cut_tag(1)));
    let Ok(Poll::Finished(outcome)) = world.poll_when_due(&mut pending).await else { panic!("not finished") };
    let shown = format!("{key:?} {:?} {pending:?} {outcome:?}", world.client);
    for secret in ["dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo", "user-1", "eyJ"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
