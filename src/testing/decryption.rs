//! Decrypts request objects with `aws-lc-rs`, a library that the crate itself does not use.

use aws_lc_rs::cipher::{DecryptingKey, DecryptionContext};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::{aead, agreement, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::encryption::{cipher_key, curve_algorithm, derive, key_length, public_octets, rsa_modulus, text};

/// The provider's keys that clients encrypt their requests for.
pub(super) struct DecryptionKeys {
    rsa: OaepPrivateDecryptingKey,
    rsa_modulus: Vec<u8>,
    p256: agreement::PrivateKey,
}

impl DecryptionKeys {
    pub(super) fn generate() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("aws-lc generates RSA keys");
        let rsa = PrivateDecryptingKey::from_pkcs8(pair.serialized_der()).expect("it reads its own keys");
        Self {
            rsa: OaepPrivateDecryptingKey::new(rsa).expect("the key is an RSA key"),
            rsa_modulus: rsa_modulus(rcgen::PublicKeyData::der_bytes(&pair)),
            p256: agreement::PrivateKey::generate(&agreement::ECDH_P256).expect("aws-lc generates keys"),
        }
    }

    /// The public keys that the provider publishes.
    pub(super) fn public_jwks(&self) -> [Value; 2] {
        let point = self.p256.compute_public_key().expect("a private key has a public one");
        // An uncompressed point: 4, then both coordinates.
        let (x, y) = point.as_ref()[1..].split_at(32);
        [
            json!({ "kty": "RSA", "use": "enc", "kid": "enc-rsa", "n": text(&self.rsa_modulus), "e": "AQAB" }),
            json!({ "kty": "EC", "use": "enc", "kid": "enc-ec", "crv": "P-256", "x": text(x), "y": text(y) }),
        ]
    }

    /// Decrypts a token that was encrypted for one of the keys with these algorithms.
    pub(super) fn decrypt(&self, token: &str, alg: &str, enc: &str) -> Result<String, &'static str> {
        let segments: Vec<_> = token.split('.').collect();
        let [aad, encrypted_key, iv, ciphertext, tag] = *segments else { return Err("it is not encrypted") };
        let octets = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "a segment is not base64url");
        let header: Value = serde_json::from_slice(&octets(aad)?).map_err(|_| "the header is not JSON")?;
        if header["alg"] != alg || header["enc"] != enc {
            return Err("it is not encrypted with the registered algorithms");
        }
        if header["cty"] != "JWT" {
            return Err("`cty` does not say that a JWT is inside (RFC 7519 §5.2)");
        }
        let kid = if alg.starts_with("RSA") { "enc-rsa" } else { "enc-ec" };
        if header["kid"] != kid {
            return Err("`kid` is not the one of the key for this algorithm");
        }
        let content_key = self.content_key(&header, alg, enc, &octets(encrypted_key)?).ok_or("the key is wrong")?;
        let plaintext = opened(enc, &content_key, aad.as_bytes(), &octets(iv)?, octets(ciphertext)?, &octets(tag)?);
        String::from_utf8(plaintext.ok_or("the content does not verify")?).map_err(|_| "the content is not text")
    }

    fn content_key(&self, header: &Value, alg: &str, enc: &str, encrypted: &[u8]) -> Option<Vec<u8>> {
        let length = key_length(enc);
        if alg.starts_with("RSA") {
            let hash = if alg == "RSA-OAEP" { &OAEP_SHA1_MGF1SHA1 } else { &OAEP_SHA256_MGF1SHA256 };
            let mut key = vec![0; self.rsa.min_output_size()];
            let key = self.rsa.decrypt(hash, encrypted, &mut key, None).ok()?.to_vec();
            return (key.len() == length).then_some(key);
        }
        if header["epk"]["crv"] != "P-256" {
            return None;
        }
        let peer = agreement::UnparsedPublicKey::new(curve_algorithm("P-256"), public_octets(&header["epk"]));
        let shared = agreement::agree(&self.p256, peer, (), |shared| Ok(shared.to_vec())).ok()?;
        let wrapping = match alg {
            "ECDH-ES+A128KW" => 16,
            "ECDH-ES+A192KW" => 24,
            "ECDH-ES+A256KW" => 32,
            _ => return encrypted.is_empty().then(|| derive(&shared, enc, length)),
        };
        unwrap(&derive(&shared, alg, wrapping), encrypted).filter(|key| key.len() == length)
    }
}

/// RFC 3394 §2.2.2.
fn unwrap(wrapping_key: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let cipher = DecryptingKey::ecb(cipher_key(wrapping_key)).expect("the key has a length of AES");
    let mut blocks: Vec<[u8; 8]> = wrapped.chunks(8).map(TryInto::try_into).collect::<Result<_, _>>().ok()?;
    if blocks.len() < 3 {
        return None;
    }
    let mut register = blocks.remove(0);
    for round in (0..6_u64).rev() {
        let count = blocks.len() as u64;
        for (index, block) in blocks.iter_mut().enumerate().rev() {
            let counted = (u64::from_be_bytes(register) ^ (count * round + index as u64 + 1)).to_be_bytes();
            let mut both = [counted, *block].concat();
            cipher.decrypt(&mut both, DecryptionContext::None).expect("one block is decrypted");
            let (left, right) = both.split_at(8);
            register.copy_from_slice(left);
            block.copy_from_slice(right);
        }
    }
    (register == [0xa6; 8]).then(|| blocks.concat())
}

/// RFC 7518 §5.
fn opened(enc: &str, key: &[u8], aad: &[u8], iv: &[u8], mut ciphertext: Vec<u8>, tag: &[u8]) -> Option<Vec<u8>> {
    let (hash, half) = match enc {
        "A128GCM" => return opened_gcm(&aead::AES_128_GCM, key, aad, iv, ciphertext, tag),
        "A192GCM" => return opened_gcm(&aead::AES_192_GCM, key, aad, iv, ciphertext, tag),
        "A256GCM" => return opened_gcm(&aead::AES_256_GCM, key, aad, iv, ciphertext, tag),
        "A128CBC-HS256" => (hmac::HMAC_SHA256, 16),
        "A192CBC-HS384" => (hmac::HMAC_SHA384, 24),
        _ => (hmac::HMAC_SHA512, 32),
    };
    let bits = (aad.len() as u64 * 8).to_be_bytes();
    let mac = hmac::sign(&hmac::Key::new(hash, &key[..half]), &[aad, iv, &ciphertext, &bits].concat());
    if mac.as_ref()[..half] != *tag {
        return None;
    }
    let cipher = DecryptingKey::cbc(cipher_key(&key[half..])).expect("the key has a length of AES");
    let context = DecryptionContext::Iv128(<&[u8; 16]>::try_from(iv).ok()?.into());
    let padded = cipher.decrypt(&mut ciphertext, context).ok()?;
    let padding = usize::from(*padded.last()?);
    padded.len().checked_sub(padding).map(|length| padded[..length].to_vec())
}

fn opened_gcm(
    algorithm: &'static aead::Algorithm,
    key: &[u8],
    aad: &[u8],
    iv: &[u8],
    mut ciphertext: Vec<u8>,
    tag: &[u8],
) -> Option<Vec<u8>> {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).ok()?);
    let nonce = aead::Nonce::try_assume_unique_for_key(iv).ok()?;
    ciphertext.extend(tag);
    key.open_in_place(nonce, aead::Aad::from(aad), &mut ciphertext).ok().map(|plaintext| plaintext.to_vec())
}
