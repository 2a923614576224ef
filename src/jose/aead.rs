//! AES-256-GCM, for values that this crate seals for itself.

use std::cell::Cell;

use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};

const TAG_LENGTH: usize = 16;

thread_local! {
    /// The context of the last call in this thread. To set up a new one, OpenSSL 3 looks up the cipher by name under a
    /// lock. That takes a fifth of the time of opening a record, and more when threads compete.
    static CONTEXT: Cell<Option<CipherCtx>> = const { Cell::new(None) };
}

/// Encrypts `plaintext` and authenticates it together with `aad`. The result ends with the 16 bytes of the tag. A nonce
/// must never be used twice with one key.
///
/// # Errors
///
/// [`ErrorKind::Cryptography`] if OpenSSL fails.
pub(crate) fn seal(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
    let sealed = with_context(|context| {
        context.encrypt_init(None, Some(key), Some(nonce))?;
        context.cipher_update(aad, None)?;
        let mut sealed = vec![0; plaintext.len() + TAG_LENGTH];
        let written = context.cipher_update(plaintext, Some(&mut sealed))?;
        context.cipher_final(&mut [0; TAG_LENGTH])?;
        sealed.truncate(written);
        let mut tag = [0; TAG_LENGTH];
        context.tag(&mut tag)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    });
    sealed.map_err(|error| Error::new(ErrorKind::Cryptography).with_source(error))
}

/// The reverse of [`seal`].
///
/// # Errors
///
/// [`ErrorKind::Sealed`], which does not reveal whether the key, nonce, `aad` or `sealed` is wrong.
pub(crate) fn open(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    // OpenSSL would also accept a shorter tag, so the split fixes its length.
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LENGTH>().ok_or_else(|| Error::new(ErrorKind::Sealed))?;
    let opened = with_context(|context| decrypt(context, key, nonce, aad, ciphertext, tag));
    opened.map_err(|_| Error::new(ErrorKind::Sealed))
}

/// Runs `work` with a context for AES-256-GCM that has no key.
fn with_context<T>(work: impl FnOnce(&mut CipherCtx) -> Result<T, ErrorStack>) -> Result<T, ErrorStack> {
    const NO_KEY: [u8; 32] = [0; 32];
    let mut context = match CONTEXT.try_with(Cell::take) {
        Ok(Some(context)) => context,
        // The first call in this thread, or a call while the thread ends.
        Ok(None) | Err(_) => context_for(Cipher::aes_256_gcm())?,
    };
    let result = work(&mut context);
    // Remove the key. After an error the context is not used again, and OpenSSL erases it when it frees it.
    if result.is_ok() && context.encrypt_init(None, Some(&NO_KEY), None).is_ok() {
        let _ = CONTEXT.try_with(|last| last.set(Some(context)));
    }
    result
}

/// Creates a context for a cipher, without a key.
pub(super) fn context_for(cipher: &CipherRef) -> Result<CipherCtx, ErrorStack> {
    let mut context = CipherCtx::new()?;
    context.encrypt_init(Some(cipher), None, None)?;
    Ok(context)
}

/// AES-GCM with a key of the length of the context's cipher and a nonce of 12 bytes.
pub(super) fn decrypt(
    context: &mut CipherCtx,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_LENGTH],
) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    context.decrypt_init(None, Some(key), Some(nonce))?;
    context.cipher_update(aad, None)?;
    // `decrypt_aead` would leave the plaintext in freed memory if the tag is wrong.
    let mut plaintext = Zeroizing::new(vec![0; ciphertext.len()]);
    let written = context.cipher_update(ciphertext, Some(&mut plaintext))?;
    context.set_tag(tag)?;
    // GCM has no padding, so this returns no data and only checks the tag.
    context.cipher_final(&mut [0; TAG_LENGTH])?;
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
    fn a_ciphertext_opens_only_with_the_same_key_nonce_and_context() {
        let sealed = seal(&KEY, &NONCE, b"context", b"plaintext").unwrap();
        assert_eq!(sealed.len(), 9 + TAG_LENGTH);
        assert_eq!(*open(&KEY, &NONCE, b"context", &sealed).unwrap(), b"plaintext");
        assert_eq!(open(&[8; 32], &NONCE, b"context", &sealed).unwrap_err().kind(), &ErrorKind::Sealed);
        assert_eq!(open(&KEY, &[8; 12], b"context", &sealed).unwrap_err().kind(), &ErrorKind::Sealed);
        assert_eq!(open(&KEY, &NONCE, b"other", &sealed).unwrap_err().kind(), &ErrorKind::Sealed);
    }

    #[test]
    fn ciphertexts_equal_the_vectors_of_the_gcm_specification() {
        // Test case 14 of the GCM specification: all-zero key, nonce and plaintext block.
        let sealed = seal(&[0; 32], &[0; 12], b"", &[0; 16]).unwrap();
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    }

    #[test]
    fn a_reused_cipher_context_keeps_no_state() {
        let (one, two) = (seal(&KEY, &NONCE, b"aad", b"one").unwrap(), seal(&[8; 32], &[1; 12], b"", b"two").unwrap());
        for _ in 0..3 {
            assert_eq!(*open(&KEY, &NONCE, b"aad", &one).unwrap(), b"one");
            assert!(open(&KEY, &NONCE, b"", &one).is_err());
            assert_eq!(*open(&[8; 32], &[1; 12], b"", &two).unwrap(), b"two");
            assert_eq!(seal(&KEY, &NONCE, b"aad", b"one").unwrap(), one);
            // Without data, and without additional authenticated data.
            let nothing = seal(&KEY, &NONCE, b"", b"").unwrap();
            assert_eq!((nothing.len(), open(&KEY, &NONCE, b"", &nothing).unwrap().len()), (TAG_LENGTH, 0));
        }
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
        fn any_plaintext_is_restored_and_any_flipped_bit_is_detected(
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
