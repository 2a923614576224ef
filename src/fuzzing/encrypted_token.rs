//! Encrypted tokens, parsed and decrypted with keys of every kind.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::world::{FIXED, fixed};
use crate::error::Document;
use crate::id_token::{Encryption, decrypted};
use crate::jose::{CompactJwe, ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm, aead};

/// One key of each kind, with the `kid` that the genuine tokens name.
pub(super) fn decryption_keys() -> &'static [DecryptionKey] {
    static KEYS: LazyLock<Vec<DecryptionKey>> = LazyLock::new(|| {
        let keys = FIXED["decryption_keys"].as_array().unwrap().iter().map(|key| {
            let text = |name: &str| key[name].as_str().unwrap();
            let algorithm = KeyManagementAlgorithm::from_name(text("alg")).unwrap();
            DecryptionKey::from_pem(algorithm, text("pem"), Some(text("kid").to_owned())).unwrap()
        });
        keys.collect()
    });
    &KEYS
}

/// The first byte selects how the rest becomes a token. It is used unchanged. Or it is combined from a header and four
/// segments, so that mutations need no base64. Or it is encrypted here, so that it passes the authentication.
pub fn encrypted_token(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    match choice % 3 {
        0 => check(&String::from_utf8_lossy(rest), None),
        1 => {
            let mut parts = rest.splitn(2, |&byte| byte == b'\n');
            let (header, mut rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let mut segments = vec![URL_SAFE_NO_PAD.encode(header)];
            for _ in 0..3 {
                let Some((&length, after)) = rest.split_first() else { break };
                let (segment, after) = after.split_at(usize::from(length).min(after.len()));
                segments.push(URL_SAFE_NO_PAD.encode(segment));
                rest = after;
            }
            segments.resize(4, String::new());
            segments.push(URL_SAFE_NO_PAD.encode(rest));
            // The ciphertext is the longest segment and is last in an input.
            segments.swap(3, 4);
            check(&segments.join("."), None);
        }
        _ => {
            let mut parts = rest.splitn(2, |&byte| byte == b'\n');
            let (header, plaintext) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            // An empty header is replaced with that of the known key.
            let known = fixed("/known_content_key/header").as_bytes();
            let header = URL_SAFE_NO_PAD.encode(if header.is_empty() { known } else { header });
            let key = URL_SAFE_NO_PAD.decode(fixed("/known_content_key/content_key")).unwrap();
            let nonce = [7; 12];
            let sealed = aead::seal(key.first_chunk().unwrap(), &nonce, header.as_bytes(), plaintext).unwrap();
            let (ciphertext, tag) = sealed.split_at(sealed.len() - 16);
            let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            check(&format!("{header}..{}.{}.{}", encode(&nonce), encode(ciphertext), encode(tag)), Some(plaintext));
        }
    }
}

/// A token can only be decrypted if it is one of the genuine ones, or was made here of `plaintext`.
fn check(token: &str, plaintext: Option<&[u8]>) {
    let keys = decryption_keys();
    let parsed = CompactJwe::parse(token);
    if let Ok(jwe) = &parsed {
        assert!(CompactJwe::is_one(token));
        let _ = jwe.content_type();
        // The private operation of RSA takes as long as everything else together.
        let opened = jwe.decrypt(keys);
        assert!(jwe.decrypt(&[]).is_err());
        if let Ok(opened) = &opened {
            assert!(opened.len() <= token.len(), "a token grew");
            match plaintext {
                Some(plaintext) => assert_eq!(opened.as_slice(), plaintext),
                None => {
                    let genuine = FIXED["encrypted_tokens"].as_array().unwrap();
                    assert!(genuine.iter().filter_map(Value::as_str).any(|genuine| genuine == token), "{token}");
                    assert_eq!(opened.as_slice(), fixed("/tokens/es256").as_bytes());
                }
            }
        }
    }
    for registered in
        [None, Some(Encryption::new(KeyManagementAlgorithm::EcdhEs).content(ContentEncryptionAlgorithm::A256Gcm))]
    {
        let keys = if parsed.is_ok() && registered.is_none() { &keys[2..] } else { keys };
        match decrypted(token, Document::IdToken, registered, keys) {
            Ok(inside) if !CompactJwe::is_one(token) => assert!(inside.expose() == token && registered.is_none()),
            Ok(inside) => {
                let genuine = fixed("/tokens/es256");
                assert!(plaintext.map_or(genuine.as_bytes(), |plaintext| plaintext) == inside.expose().as_bytes());
                let jwe = parsed.as_ref().ok().unwrap();
                assert!(registered.is_none_or(|registered| registered.alg == jwe.algorithm()));
            }
            Err(violation) => assert!(!format!("{violation} {violation:?}").contains(super::world::PLANT)),
        }
    }
}
