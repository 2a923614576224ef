//! AES-256-GCM, for values that this crate seals for itself.

use openssl::symm::{Cipher, Crypter, Mode, encrypt_aead};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};

const TAG_LENGTH: usize = 16;

/// Encrypts `plaintext` and authenticates it together with `aad`. The 16 bytes of the tag stand at the end. A nonce
/// must never be used twice with one key.
///
/// # Errors
///
/// [`ErrorKind::Cryptography`] where OpenSSL refuses.
pub(crate) fn seal(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
    let mut tag = [0; TAG_LENGTH];
    let mut sealed = encrypt_aead(Cipher::aes_256_gcm(), key, Some(nonce), aad, plaintext, &mut tag)
        .map_err(|error| Error::new(ErrorKind::Cryptography).with_source(error))?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// The reverse of [`seal`].
///
/// # Errors
///
/// [`ErrorKind::Sealed`], without saying which part of key, nonce, `aad` and `sealed` does not fit.
pub(crate) fn open(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    // OpenSSL would also accept a shorter tag, so the split leaves it no choice.
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LENGTH>().ok_or_else(|| Error::new(ErrorKind::Sealed))?;
    decrypt(Cipher::aes_256_gcm(), key, nonce, aad, ciphertext, tag).map_err(|_| Error::new(ErrorKind::Sealed))
}

/// AES-GCM with a key of the cipher's length and a nonce of 12 bytes.
pub(super) fn decrypt(
    cipher: Cipher,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_LENGTH],
) -> Result<Zeroizing<Vec<u8>>, openssl::error::ErrorStack> {
    let mut crypter = Crypter::new(cipher, Mode::Decrypt, key, Some(nonce))?;
    crypter.aad_update(aad)?;
    // `decrypt_aead` would leave what it decrypted in freed memory when the tag turns out to be wrong.
    let mut plaintext = Zeroizing::new(vec![0; ciphertext.len() + cipher.block_size()]);
    let written = crypter.update(ciphertext, &mut plaintext)?;
    crypter.set_tag(tag)?;
    // GCM has no padding: nothing comes out at the end, only the tag is checked.
    crypter.finalize(&mut [0; TAG_LENGTH])?;
    plaintext.truncate(written);
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NONCE: [u8; 12] = [9; 12];

    #[test]
    fn what_was_sealed_opens_with_the_same_key_nonce_and_context_only() {
        let sealed = seal(&KEY, &NONCE, b"context", b"plaintext").unwrap();
        assert_eq!(sealed.len(), 9 + TAG_LENGTH);
        assert_eq!(*open(&KEY, &NONCE, b"context", &sealed).unwrap(), b"plaintext");
        assert_eq!(open(&[8; 32], &NONCE, b"context", &sealed).unwrap_err().kind(), &ErrorKind::Sealed);
        assert_eq!(open(&KEY, &[8; 12], b"context", &sealed).unwrap_err().kind(), &ErrorKind::Sealed);
        assert_eq!(open(&KEY, &NONCE, b"other", &sealed).unwrap_err().kind(), &ErrorKind::Sealed);
    }

    #[test]
    fn it_is_the_aes_256_gcm_of_the_gcm_specification() {
        // Test case 14 of the GCM specification: all-zero key, nonce and plaintext block.
        let sealed = seal(&[0; 32], &[0; 12], b"", &[0; 16]).unwrap();
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    }

    #[test]
    fn a_shortened_tag_does_not_open() {
        let sealed = seal(&KEY, &NONCE, b"", b"plaintext").unwrap();
        for length in 0..sealed.len() {
            assert!(open(&KEY, &NONCE, b"", &sealed[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_plaintext_opens_again_and_any_flipped_bit_is_noticed(
            plaintext: Vec<u8>, aad: Vec<u8>, position: prop::sample::Index, bit in 0_u8..8,
        ) {
            let mut sealed = seal(&KEY, &NONCE, &aad, &plaintext).unwrap();
            prop_assert_eq!(&*open(&KEY, &NONCE, &aad, &sealed).unwrap(), &plaintext);
            let position = position.index(sealed.len());
            sealed[position] ^= 1 << bit;
            prop_assert!(open(&KEY, &NONCE, &aad, &sealed).is_err());
        }
    }
}
