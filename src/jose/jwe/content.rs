//! Content encryption (RFC 7518 §5). The callers have checked all lengths.

use openssl::cipher;
use openssl::error::ErrorStack;
use openssl::symm::{Cipher, Crypter, Mode};
use zeroize::Zeroizing;

use super::algorithm::ContentEncryptionAlgorithm;
use crate::jose::aead;
use crate::jose::algorithm::HashFunction;
use crate::jose::digest;
use crate::secret::constant_time_eq;

/// Returns the plaintext. `None` after any failure.
pub(super) fn decrypt(
    enc: ContentEncryptionAlgorithm,
    key: &[u8],
    aad: &[u8],
    iv: &[u8],
    ciphertext: &[u8],
    tag: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    use ContentEncryptionAlgorithm as A;
    let cbc = |cipher, hash| decrypt_cbc(cipher, hash, key, aad, iv, ciphertext, tag);
    let gcm = |cipher| {
        let mut context = aead::context_for(cipher).ok()?;
        aead::decrypt(&mut context, key, iv, aad, ciphertext, tag.first_chunk()?).ok()
    };
    match enc {
        A::A128Gcm => gcm(cipher::Cipher::aes_128_gcm()),
        A::A192Gcm => gcm(cipher::Cipher::aes_192_gcm()),
        A::A256Gcm => gcm(cipher::Cipher::aes_256_gcm()),
        A::A128CbcHs256 => cbc(Cipher::aes_128_cbc(), HashFunction::Sha256),
        A::A192CbcHs384 => cbc(Cipher::aes_192_cbc(), HashFunction::Sha384),
        A::A256CbcHs512 => cbc(Cipher::aes_256_cbc(), HashFunction::Sha512),
    }
}

/// RFC 7518 §5.2.2.2. The MAC is checked first and in constant time, so that the padding is only processed in authentic
/// tokens.
fn decrypt_cbc(
    cipher: Cipher,
    hash: HashFunction,
    key: &[u8],
    aad: &[u8],
    iv: &[u8],
    ciphertext: &[u8],
    tag: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (mac_key, cipher_key) = key.split_at_checked(key.len() / 2)?;
    let aad_bits = (aad.len() as u64).checked_mul(8)?.to_be_bytes();
    let mac = digest::hmac(hash, mac_key, &[aad, iv, ciphertext, &aad_bits]).ok()?;
    let (expected, _) = mac.split_at_checked(mac.len() / 2)?;
    if !constant_time_eq(expected, tag) {
        return None;
    }
    unpadded(cipher, cipher_key, iv, ciphertext).ok()
}

fn unpadded(cipher: Cipher, key: &[u8], iv: &[u8], ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    let mut crypter = Crypter::new(cipher, Mode::Decrypt, key, Some(iv))?;
    let mut plaintext = Zeroizing::new(vec![0; ciphertext.len() + cipher.block_size()]);
    let written = crypter.update(ciphertext, &mut plaintext)?;
    let rest = plaintext.get_mut(written..).ok_or_else(ErrorStack::get)?;
    let written = written + crypter.finalize(rest)?;
    plaintext.truncate(written);
    Ok(plaintext)
}
