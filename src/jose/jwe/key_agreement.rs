//! ECDH-ES (RFC 7518 §4.6): derives the key of the content from the sender's ephemeral key and our own.

use openssl::cipher::Cipher;
use openssl::cipher_ctx::{CipherCtx, CipherCtxFlags};
use openssl::derive::Deriver;
use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private, Public};
use openssl::sha::Sha256;
use zeroize::Zeroizing;

use super::ephemeral_key::{Agreement, Curve};
use super::header::Header;

/// Returns the content's key. `None` after any failure.
pub(super) fn content_key(
    key: &PKeyRef<Private>,
    curve: Curve,
    header: &Header,
    encrypted_key: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let agreement = header.agreement.as_ref().filter(|agreement| agreement.ephemeral.curve == curve)?;
    let ephemeral = agreement.ephemeral.to_public_key().ok()?;
    let shared = shared_secret(key, &ephemeral).ok()?;
    match header.alg.wraps_key() {
        None => Some(concat_kdf(&shared, header.enc.as_str(), agreement, header.enc.key_length())),
        Some(length) => {
            let wrapping_key = concat_kdf(&shared, header.alg.as_str(), agreement, length);
            unwrap(&wrapping_key, encrypted_key).ok().filter(|key| key.len() == header.enc.key_length())
        }
    }
}

/// On X25519, OpenSSL refuses points of low order, with which anyone could know the result.
fn shared_secret(key: &PKeyRef<Private>, peer: &PKeyRef<Public>) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    let mut deriver = Deriver::new(key)?;
    deriver.set_peer(peer)?;
    deriver.derive_to_vec().map(Zeroizing::new)
}

/// The Concat KDF with SHA-256 (NIST SP 800-56A §5.8.1 as RFC 7518 §4.6.2 uses it) for a key of `length` bytes.
pub(super) fn concat_kdf(shared: &[u8], algorithm: &str, agreement: &Agreement, length: usize) -> Zeroizing<Vec<u8>> {
    // The length of the header limits all of these numbers.
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let mut derived = Zeroizing::new(Vec::with_capacity(length.next_multiple_of(32)));
    for round in 1.. {
        let mut hash = Sha256::new();
        hash.update(&number(round));
        hash.update(shared);
        for part in [algorithm.as_bytes(), &agreement.apu, &agreement.apv] {
            hash.update(&number(part.len()));
            hash.update(part);
        }
        hash.update(&number(length * 8));
        derived.extend_from_slice(&hash.finish());
        if derived.len() >= length {
            break;
        }
    }
    derived.truncate(length);
    derived
}

/// AES Key Wrap (RFC 3394 §2.2.2), which its initial value authenticates.
fn unwrap(wrapping_key: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    let cipher = match wrapping_key.len() {
        16 => Cipher::aes_128_wrap(),
        24 => Cipher::aes_192_wrap(),
        _ => Cipher::aes_256_wrap(),
    };
    let mut context = CipherCtx::new()?;
    context.set_flags(CipherCtxFlags::FLAG_WRAP_ALLOW);
    context.decrypt_init(Some(cipher), Some(wrapping_key), None)?;
    // OpenSSL's binding panics if the buffer is smaller than the input and one block.
    let mut key = Zeroizing::new(vec![0; wrapped.len() + 16]);
    let written = context.cipher_update(wrapped, Some(&mut key))?;
    key.truncate(written);
    Ok(key)
}
