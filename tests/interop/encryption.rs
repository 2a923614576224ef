//! Encrypted ID Tokens and UserInfo responses (OpenID Connect Core 1.0 §10.2).

use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, Encryption};
use serde_json::json;

use crate::op::Op;
use crate::support::{chain, key_set, world_at};

pub(crate) async fn id_tokens_and_userinfo_are_decrypted<O: Op>(op: &O) {
    for (alg, enc) in O::ABILITIES.encryption.iter().copied() {
        let key = DecryptionKey::generate(alg).unwrap();
        let registered = json!({
            "jwks": key_set(key.public_jwk()),
            "id_token_encrypted_response_alg": alg.as_str(),
            "id_token_encrypted_response_enc": enc.as_str(),
            "userinfo_encrypted_response_alg": alg.as_str(),
            "userinfo_encrypted_response_enc": enc.as_str(),
            // Some OPs encrypt only signed responses.
            "userinfo_signed_response_alg": "ES256",
        });
        let decrypting = world_at(op, registered, |client| {
            client.decryption_key(key).algorithms(
                ClientAlgorithms::new()
                    .id_token_encrypted_response(Encryption::new(alg).content(enc))
                    .userinfo_encrypted_response(Encryption::new(alg).content(enc)),
            )
        });
        let Some(world) = decrypting.await else { return };
        let mut authentication = world.sign_in().await;
        let userinfo = world.client.userinfo(&authentication).await;
        let userinfo = userinfo.unwrap_or_else(|error| panic!("{alg:?}: {}", chain(&error)));
        assert_eq!(userinfo.claim("email"), Some(&json!("jane@example.com")), "{alg:?}");
        let refreshed = world.client.refresh(&mut authentication).await;
        refreshed.unwrap_or_else(|error| panic!("{alg:?}: {}", chain(&error)));
        // Not every OP issues one (OpenID Connect Core 1.0 §12.2).
        if let Some(refreshed) = authentication.refreshed_id_token() {
            assert_eq!(refreshed.claims().subject(), authentication.claims().subject(), "{alg:?}");
        }
    }
}
