//! Settings that cannot work, alone or with an OP, and the key set to publish.

use openid_deferred::encryption::{ClientAlgorithms, Encryption};
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::testing::TestClock;
use openid_deferred::{Client, ClientAuthentication, ErrorKind, Signer as _, SigningAlgorithm, SigningKey};

use super::*;
use crate::support::provider;

fn built(settings: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, &'static str> {
    let builder = Client::builder("https://op.test", "app")
        .authentication(ClientAuthentication::client_secret_basic("s3cret"))
        .redirect_uri(REDIRECT_URI);
    settings(builder).build().map_err(|error| match error.kind() {
        ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) => *setting,
        kind => panic!("{kind:?}"),
    })
}

#[test]
fn settings_about_encryption_that_cannot_work_are_refused() {
    let key = key();
    let refused = [
        (
            "id_token_encrypted_response_alg",
            built(|client| client.algorithms(ClientAlgorithms::new().id_token_encrypted_response(ALG))),
        ),
        (
            "userinfo_encrypted_response_alg",
            built(|client| client.algorithms(ClientAlgorithms::new().userinfo_encrypted_response(ALG))),
        ),
        (
            "id_token_encrypted_response_alg",
            built(|client| {
                let other = KeyManagementAlgorithm::EcdhEs;
                client
                    .decryption_key(key.clone())
                    .algorithms(ClientAlgorithms::new().id_token_encrypted_response(other))
            }),
        ),
        (
            "userinfo_signed_response_alg",
            built(|client| {
                client.algorithms(ClientAlgorithms::new().userinfo_signed_response_alg(SigningAlgorithm::Hs256))
            }),
        ),
        ("decryption_key", built(|client| client.decryption_key(key.clone()).decryption_key(key.clone()))),
        ("decryption_key", built(|client| (0..17).fold(client, |client, _| client.decryption_key(super::key())))),
    ];
    for (setting, result) in refused {
        assert_eq!(result.err(), Some(setting));
    }
    // A later call does not undo an earlier one.
    let decrypts = |client: ClientBuilder| {
        let encrypted = ClientAlgorithms::new().id_token_encrypted_response(ALG);
        client.algorithms(encrypted).algorithms(ClientAlgorithms::new())
    };
    assert_eq!(built(decrypts).err(), Some("id_token_encrypted_response_alg"));
    assert!(
        built(|client| client
            .decryption_key(key.clone())
            .algorithms(ClientAlgorithms::new().id_token_encrypted_response(ALG)))
        .is_ok()
    );
}

#[test]
fn decryption_keys_that_the_settings_need_cannot_be_removed() {
    let key = key();
    let client = built(|client| {
        client.decryption_key(key.clone()).algorithms(ClientAlgorithms::new().id_token_encrypted_response(ALG))
    })
    .expect("it works");
    assert!(client.replace_decryption_keys([]).is_err());
    assert_eq!(client.jwks()["keys"][0]["kid"], key.key_id(), "the old ones stay");
}

#[test]
fn the_key_set_to_publish_has_every_public_key_and_nothing_else() {
    let empty = built(|client| client).unwrap();
    assert_eq!(empty.jwks(), json!({ "keys": [] }));

    let (ours, rsa) = (key(), DecryptionKey::generate(KeyManagementAlgorithm::RsaOaep256).unwrap());
    let signing = Arc::new(SigningKey::generate(SigningAlgorithm::Es256).unwrap());
    let client = built(|client| {
        client
            .authentication(ClientAuthentication::private_key_jwt(Arc::clone(&signing)))
            .decryption_key(ours.clone())
            .decryption_key(rsa.clone())
    });
    let jwks = client.unwrap().jwks();
    let keys = jwks["keys"].as_array().unwrap();
    let uses: Vec<_> = keys.iter().map(|key| (key["use"].as_str().unwrap(), key["alg"].as_str().unwrap())).collect();
    assert_eq!(uses, [("enc", "ECDH-ES+A256KW"), ("enc", "RSA-OAEP-256"), ("sig", "ES256")]);
    assert_eq!(keys[2]["x"], signing.verification_jwk().unwrap()["x"]);
    for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
        assert!(keys.iter().all(|key| key.get(private).is_none()), "{private}");
    }
}

const LISTS: [&str; 5] = [
    "id_token_encryption_alg_values_supported",
    "id_token_encryption_enc_values_supported",
    "userinfo_signing_alg_values_supported",
    "userinfo_encryption_alg_values_supported",
    "userinfo_encryption_enc_values_supported",
];

/// A client that registered everything, at an OP that lists these values instead.
async fn discovered(
    member: &'static str,
    listed: Option<Value>,
    lenient: bool,
) -> Result<Client, openid_deferred::Error> {
    let clock = TestClock::automatic();
    let op = provider(&clock).metadata(move |members| {
        members.remove(member);
        if let Some(listed) = &listed {
            members.insert(member.to_owned(), listed.clone());
        }
    });
    let op = op.start().unwrap();
    let mut client = client_of(&op, &clock).decryption_key(key()).algorithms(
        ClientAlgorithms::new()
            .id_token_encrypted_response(Encryption::new(ALG).content(ContentEncryptionAlgorithm::A256Gcm))
            .userinfo_signed_response_alg(SigningAlgorithm::Es256)
            .userinfo_encrypted_response(Encryption::new(ALG).content(ContentEncryptionAlgorithm::A128CbcHs256)),
    );
    if lenient {
        client = client.allow_unadvertised();
    }
    client.discover().await
}

#[tokio::test]
async fn registered_encryption_that_the_op_does_not_list_is_a_configuration_error() {
    for member in LISTS {
        let error = discovered(member, Some(json!(["something else"])), false).await.unwrap_err();
        let ErrorKind::Configuration(ConfigurationProblem::NotAdvertised { member: named, .. }) = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!(*named, member);
        discovered(member, Some(json!(["something else"])), true).await.unwrap();
    }
}

#[tokio::test]
async fn an_op_may_encrypt_without_listing_algorithms() {
    for member in LISTS {
        discovered(member, None, false).await.unwrap();
    }
}

#[test]
fn one_key_for_signatures_and_encryption_is_refused_in_every_setting() {
    let pem = |key: openssl::pkey::PKey<openssl::pkey::Private>| {
        String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    };
    let rsa = pem(openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap());
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let ec = pem(openssl::pkey::PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap());
    for (pem, signing, encryption) in [
        (&rsa, SigningAlgorithm::Ps256, KeyManagementAlgorithm::RsaOaep256),
        (&rsa, SigningAlgorithm::Rs256, KeyManagementAlgorithm::RsaOaep),
        (&ec, SigningAlgorithm::Es256, KeyManagementAlgorithm::EcdhEs),
    ] {
        let signer = || SigningKey::from_pem(signing, pem, Some("signs".into())).unwrap();
        let shared = DecryptionKey::from_pem(encryption, pem, Some("decrypts".into())).unwrap();
        let named = |client: ClientBuilder| client.authentication(ClientAuthentication::private_key_jwt(signer()));
        assert_eq!(built(|client| named(client).decryption_key(shared.clone())).unwrap_err(), "decryption_key");
        let unnamed = || Client::builder("https://op.test", "app").redirect_uri(REDIRECT_URI).signing_key(signer());
        assert!(unnamed().decryption_key(shared.clone()).build().is_err());
        assert!(unnamed().decryption_key(key()).build().is_ok());
        let client = built(|client| named(client).decryption_key(key())).unwrap();
        let error = client.replace_decryption_keys([key(), shared]).unwrap_err();
        assert!(error.to_string().contains("client assertions"), "{error}");
    }
}
