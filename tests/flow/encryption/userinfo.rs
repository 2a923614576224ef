//! Signed and encrypted UserInfo responses (OpenID Connect Core 1.0 §5.3.2).

use openid_deferred::encryption::{ClientAlgorithms, Encryption};
use openid_deferred::{Client, Error, ErrorKind, SigningAlgorithm, UserInfo};

use super::*;

async fn asked(world: &World, fault: Option<Fault>) -> Result<UserInfo, Error> {
    let authentication = world.approved().await;
    if let Some(fault) = fault {
        world.op.misbehave(fault);
    }
    let userinfo = world.client.userinfo(&authentication).await;
    assert_eq!(world.op.faults_left(), 0, "the fault struck");
    userinfo
}

#[track_caller]
fn assert_refused(userinfo: Result<UserInfo, Error>, rule: Rule) {
    let error = userinfo.unwrap_err();
    let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
    assert_eq!((violation.rule(), violation.document()), (rule, Some(Document::UserInfo)));
}

fn forged(forgery: EncryptionForgery) -> Option<Fault> {
    Some(Fault::encryption(Endpoint::UserInfo, forgery))
}

/// Responses are signed and then encrypted, and the client requires both.
async fn strict_world() -> World {
    let key = key();
    let at_op = registered(&key).signed_userinfo().encrypted_userinfo(ALG.as_str(), "A256GCM");
    world_for(at_op, |client| {
        client.decryption_key(key).algorithms(
            ClientAlgorithms::new()
                .userinfo_signed_response_alg(SigningAlgorithm::Es256)
                .userinfo_encrypted_response(Encryption::new(ALG).content(ContentEncryptionAlgorithm::A256Gcm)),
        )
    })
    .await
}

#[tokio::test]
async fn userinfo_signed_and_encrypted_as_registered_is_accepted() {
    let world = strict_world().await;
    let userinfo = asked(&world, None).await.unwrap();
    assert_eq!((userinfo.subject(), userinfo.claim("name")), ("user-1", Some(&json!("Jane Doe"))));
    world.op.assert_clean();
}

#[tokio::test]
async fn userinfo_that_is_only_encrypted_is_read_if_no_signature_was_registered() {
    for enc in ["A128GCM", "A128CBC-HS256"] {
        let key = key();
        let at_op = registered(&key).encrypted_userinfo(ALG.as_str(), enc);
        let world = world_for(at_op, |client| {
            client.decryption_key(key).algorithms(ClientAlgorithms::new().userinfo_encrypted_response(ALG))
        })
        .await;
        assert_eq!(asked(&world, None).await.unwrap().subject(), "user-1");
    }
}

#[tokio::test]
async fn unencrypted_userinfo_is_refused_if_encryption_is_registered() {
    let world = strict_world().await;
    assert_refused(asked(&world, forged(EncryptionForgery::in_clear())).await, Rule::NotEncrypted);
    let json = Fault::response(Endpoint::UserInfo, 200, "application/json", r#"{"sub":"user-1"}"#);
    assert_refused(asked(&world, Some(json)).await, Rule::NotEncrypted);
}

/// Responses are as `at_op` says, and the client registered a signature.
async fn signature_demanded(at_op: impl FnOnce(TestClient) -> TestClient, algorithm: SigningAlgorithm) -> World {
    let key = key();
    let at_op = at_op(registered(&key));
    world_for(at_op, |client| {
        client.decryption_key(key).algorithms(ClientAlgorithms::new().userinfo_signed_response_alg(algorithm))
    })
    .await
}

#[tokio::test]
async fn unsigned_userinfo_is_refused_if_a_signature_is_registered() {
    let plain = signature_demanded(|client| client, SigningAlgorithm::Es256).await;
    assert_refused(asked(&plain, None).await, Rule::UserInfoUnsigned);
    let encrypted = |client: TestClient| client.encrypted_userinfo(ALG.as_str(), "A256GCM");
    let encrypted = signature_demanded(encrypted, SigningAlgorithm::Es256).await;
    assert_refused(asked(&encrypted, None).await, Rule::UserInfoUnsigned);
    let world = strict_world().await;
    assert_refused(asked(&world, forged(EncryptionForgery::unsigned())).await, Rule::UserInfoUnsigned);
}

#[tokio::test]
async fn userinfo_must_be_signed_with_the_registered_algorithm() {
    let good = signature_demanded(TestClient::signed_userinfo, SigningAlgorithm::Es256).await;
    assert_eq!(asked(&good, None).await.unwrap().subject(), "user-1");
    let other = signature_demanded(TestClient::signed_userinfo, SigningAlgorithm::Rs256).await;
    assert_refused(asked(&other, None).await, Rule::UserInfoSigned);
}

#[tokio::test]
async fn signed_userinfo_that_has_expired_is_refused() {
    let world = signature_demanded(TestClient::signed_userinfo, SigningAlgorithm::Es256).await;
    let authentication = world.approved().await;
    world.op.last_process().approve_with(json!({ "exp": 1_000 }));
    assert_refused(world.client.userinfo(&authentication).await, Rule::UserInfoSigned);
}

#[tokio::test]
async fn a_wrong_claim_of_signed_userinfo_is_named_and_a_null_one_counts_as_absent() {
    let world = signature_demanded(TestClient::signed_userinfo, SigningAlgorithm::Es256).await;
    let authentication = world.approved().await;
    for (name, value) in [
        ("exp", json!("2033-05-18T03:33:20Z")),
        ("exp", json!("4000000000")),
        ("iss", json!("https://evil.test")),
        ("iss", json!([])),
        ("aud", json!(["another-app"])),
        ("aud", json!(7)),
    ] {
        let mut claims = json!({ "iss": null, "aud": null, "exp": null });
        claims[name] = value.clone();
        world.op.last_process().approve_with(claims);
        let error = world.client.userinfo(&authentication).await.unwrap_err();
        let ErrorKind::Protocol(violation) = error.kind() else { panic!("{name} {value}: {error:?}") };
        assert_eq!((violation.rule(), violation.member()), (Rule::UserInfoSigned, Some(name)), "{value}");
    }
    world.op.last_process().approve_with(json!({ "iss": null, "aud": null, "exp": null, "iat": "now" }));
    world.client.userinfo(&authentication).await.unwrap();
}

#[tokio::test]
async fn encrypted_userinfo_that_was_tampered_with_is_refused() {
    let world = strict_world().await;
    for forgery in [
        EncryptionForgery::cut_tag(1),
        EncryptionForgery::empty_iv(),
        EncryptionForgery::broken_ciphertext(),
        EncryptionForgery::foreign_key(),
        EncryptionForgery::raw("a.b.c.d.e"),
    ] {
        assert_refused(asked(&world, forged(forgery)).await, Rule::Decryption);
    }
    for forgery in [EncryptionForgery::compressed(), header("crit", json!(["exp"]))] {
        assert_refused(asked(&world, forged(forgery)).await, Rule::EncryptionHeader);
    }
    assert_refused(asked(&world, forged(EncryptionForgery::twice())).await, Rule::UserInfoSigned);
}

#[tokio::test]
async fn userinfo_encrypted_with_unregistered_algorithms_is_refused() {
    let key = key();
    let at_op = registered(&key).encrypted_userinfo(ALG.as_str(), "A128GCM");
    let world = world_for(at_op, |client| {
        let encryption = Encryption::new(ALG).content(ContentEncryptionAlgorithm::A256Gcm);
        client.decryption_key(key).algorithms(ClientAlgorithms::new().userinfo_encrypted_response(encryption))
    });
    assert_refused(asked(&world.await, None).await, Rule::EncryptionHeader);
}

#[tokio::test]
async fn encrypted_userinfo_can_be_requested_again_when_the_key_is_available() {
    let key = key();
    let at_op = registered(&key).encrypted_userinfo(ALG.as_str(), "A256GCM");
    let world = world_for(at_op, |client| client).await;
    let authentication = world.approved().await;
    assert_refused(world.client.userinfo(&authentication).await, Rule::NoDecryptionKey);
    world.client.replace_decryption_keys([key]).unwrap();
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn encrypted_userinfo_about_another_user_is_refused() {
    let world = strict_world().await;
    let authentication = world.approved().await;
    world.op.last_process().change_subject("user-2");
    assert_refused(world.client.userinfo(&authentication).await, Rule::UserInfoSubject);
}

#[tokio::test]
async fn tokens_and_userinfo_may_be_authenticated_with_a_client_secret_that_is_long_enough() {
    const SECRET: &str = "a client secret that has more than the thirty-two bytes of SHA-256";
    let key = key();
    let registered = |secret: &str| {
        let client = TestClient::secret_basic(CLIENT_ID, secret).redirect_uri(REDIRECT_URI).signing_algorithm("HS256");
        let jwks = json!({ "keys": [key.public_jwk()] });
        client.jwks(&jwks).encrypted_id_token(ALG.as_str(), "A256GCM").signed_userinfo()
    };
    let world = world_for(registered(SECRET), |client| {
        client
            .authentication(openid_deferred::ClientAuthentication::client_secret_basic(SECRET))
            .decryption_key(key.clone())
            .algorithms(
                ClientAlgorithms::new()
                    .id_token_signed_response_alg(SigningAlgorithm::Hs256)
                    .userinfo_signed_response_alg(SigningAlgorithm::Hs256),
            )
    })
    .await;
    let authentication = world.approved().await;
    assert_eq!(authentication.id_token().algorithm(), SigningAlgorithm::Hs256);
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");

    let mut pending = world.pending().await;
    world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::foreign_key()));
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::IdTokenSignature));

    // An HMAC does not count as a signature unless it was registered.
    let unregistered: Client = client_of(&world.op, &world.clock)
        .authentication(openid_deferred::ClientAuthentication::client_secret_basic(SECRET))
        .build()
        .unwrap();
    assert_refused(unregistered.userinfo(&authentication).await, Rule::UserInfoSigned);
    world.op.assert_clean();
}
