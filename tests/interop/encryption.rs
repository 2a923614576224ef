//! Encrypted ID Tokens and UserInfo responses (OpenID Connect Core 1.0 §10.2).

use openid_deferred::{ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm};
use serde_json::json;

use crate::support::{registration, with, world};

use ContentEncryptionAlgorithm as Enc;
use KeyManagementAlgorithm as Alg;

#[tokio::test]
async fn id_tokens_and_userinfo_are_decrypted() {
    for (alg, enc) in [
        (Alg::RsaOaep, Enc::A128Gcm),
        (Alg::RsaOaep256, Enc::A256Gcm),
        (Alg::EcdhEs, Enc::A128CbcHs256),
        (Alg::EcdhEsA128Kw, Enc::A256CbcHs512),
        (Alg::EcdhEsA256Kw, Enc::A256Gcm),
    ] {
        let key = DecryptionKey::generate(alg).unwrap();
        let registered = json!({
            "jwks": { "keys": [key.public_jwk()] },
            "id_token_encrypted_response_alg": alg.as_str(),
            "id_token_encrypted_response_enc": enc.as_str(),
            "userinfo_encrypted_response_alg": alg.as_str(),
            "userinfo_encrypted_response_enc": enc.as_str(),
            // This provider encrypts only what it has signed.
            "userinfo_signed_response_alg": "ES256",
        });
        let decrypting = world(json!({}), with(registration(), registered), |client| {
            client
                .decryption_key(key)
                .id_token_encrypted_response_alg(alg)
                .id_token_encrypted_response_enc(enc)
                .userinfo_encrypted_response_alg(alg)
                .userinfo_encrypted_response_enc(enc)
        });
        let Some(world) = decrypting.await else { return };
        let mut authentication = world.sign_in().await;
        assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1", "{alg:?}");
        world.client.refresh(&mut authentication).await.unwrap();
        assert_eq!(authentication.refreshed_id_token().unwrap().claims().subject(), "user-1", "{alg:?}");
    }
}
