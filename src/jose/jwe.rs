//! A strict parser of the compact serialization of an encrypted token (RFC 7516 §7.1), with decryption by OpenSSL.
//!
//! josekit encrypts tokens, but does not decrypt them here. Version 0.10.3 panics on empty IVs and short wrapped keys,
//! accepts AES-GCM tags of one byte, and inflates `zip` without limit. It also removes the padding of AES-CBC before it
//! checks the MAC. Here every length in a token is checked before a private key is used. Every later failure is the
//! same error, so that the sender of forged tokens learns nothing from it (RFC 7516 §11.5).
//!
//! A successful decryption does not show who made the token, because the encrypting keys are public. The content must
//! be signed.

mod algorithm;
mod content;
mod decryption_key;
mod encryption_key;
mod ephemeral_key;
mod header;
mod key_agreement;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

pub use algorithm::{ContentEncryptionAlgorithm, KeyManagementAlgorithm};
pub use decryption_key::DecryptionKey;

pub(super) use encryption_key::EncryptionKey;

use header::Header;

/// The length of the longest token that is parsed. It can contain a signed token of the maximum length.
const LENGTH_LIMIT: usize = 384 * 1024;

/// A parsed encrypted token with correct lengths. Nothing in it is authenticated.
pub(crate) struct CompactJwe<'a> {
    header: Header,
    /// The encoded header, which the content encryption authenticates.
    aad: &'a str,
    encrypted_key: Vec<u8>,
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: Vec<u8>,
}

/// Why an encrypted token was not decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undecryptable {
    /// Too long, not five segments, not canonical base64url, or without a header that is a JSON object.
    Malformed,
    /// The header has an unsupported algorithm, or a parameter that no token of this flow may have.
    Header,
    /// This header parameter is repeated with another value.
    Repeated(&'static str),
    /// The token is not encrypted for any of the keys.
    NoKey,
    /// Any other failure. It is unspecific on purpose.
    Failed,
}

impl<'a> CompactJwe<'a> {
    /// Whether a text has the five segments of an encrypted token. It may still be invalid.
    pub(crate) fn is_one(token: &str) -> bool {
        token.bytes().filter(|&byte| byte == b'.').count() == 4
    }

    /// Parses a token without using a key.
    pub(crate) fn parse(token: &'a str) -> Result<Self, Undecryptable> {
        if token.len() > LENGTH_LIMIT || !Self::is_one(token) {
            return Err(Undecryptable::Malformed);
        }
        let mut segments = token.split('.');
        let mut next = || segments.next().ok_or(Undecryptable::Malformed);
        let aad = next()?;
        let (encrypted_key, iv, ciphertext, tag) = (next()?, next()?, next()?, next()?);
        let header = Header::parse(&segment(aad)?)?;
        let jwe = Self {
            header,
            aad,
            encrypted_key: segment(encrypted_key)?,
            iv: segment(iv)?,
            ciphertext: segment(ciphertext)?,
            tag: segment(tag)?,
        };
        if jwe.is_measured() { Ok(jwe) } else { Err(Undecryptable::Failed) }
    }

    /// How its content encryption key is protected.
    pub(crate) fn algorithm(&self) -> KeyManagementAlgorithm {
        self.header.alg
    }

    /// How its content is encrypted.
    pub(crate) fn content_encryption(&self) -> ContentEncryptionAlgorithm {
        self.header.enc
    }

    /// The declared type of its content, if any, in the short form without `application/` (RFC 7515 §4.1.10).
    pub(crate) fn content_type(&self) -> Option<String> {
        let media_type = self.header.cty.as_ref()?.split(';').next()?.trim().to_ascii_lowercase();
        Some(media_type.strip_prefix("application/").map(str::to_owned).unwrap_or(media_type))
    }

    /// Decrypts with the key that the token names. If it names none, the keys for its algorithm are tried in order.
    pub(crate) fn decrypt(&self, keys: &[DecryptionKey]) -> Result<Zeroizing<Vec<u8>>, Undecryptable> {
        let named = |key: &&DecryptionKey| self.header.kid.as_ref().is_none_or(|kid| key.key_id() == kid);
        let mut candidates = keys.iter().filter(named).filter(|key| key.algorithm() == self.header.alg).peekable();
        if candidates.peek().is_none() {
            return Err(Undecryptable::NoKey);
        }
        candidates.find_map(|key| self.open(key)).ok_or(Undecryptable::Failed)
    }

    fn open(&self, key: &DecryptionKey) -> Option<Zeroizing<Vec<u8>>> {
        let content_key = key.content_key(&self.header, &self.encrypted_key)?;
        let (aad, enc) = (self.aad.as_bytes(), self.header.enc);
        content::decrypt(enc, &content_key, aad, &self.iv, &self.ciphertext, &self.tag)
    }

    /// Whether every segment has the length that the algorithms require. The length of a key that RSA encrypted depends
    /// on the modulus, and is checked by the code that has the key.
    fn is_measured(&self) -> bool {
        let Header { alg, enc, .. } = &self.header;
        let key_fits = match alg.wraps_key() {
            _ if alg.is_rsa() => true,
            // RFC 3394 §2.2.1: eight bytes more than the key.
            Some(_) => self.encrypted_key.len() == enc.key_length() + 8,
            // RFC 7518 §4.6: "the JWE Encrypted Key value is the empty octet sequence".
            None => self.encrypted_key.is_empty(),
        };
        let content_fits = !enc.is_cbc() || (!self.ciphertext.is_empty() && self.ciphertext.len().is_multiple_of(16));
        key_fits && content_fits && self.iv.len() == enc.iv_length() && self.tag.len() == enc.tag_length()
    }
}

/// Decodes unpadded base64url. The engine refuses padding and stray bits at the end, so that one token has only one
/// encoding.
fn segment(encoded: &str) -> Result<Vec<u8>, Undecryptable> {
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Undecryptable::Malformed)
}
