//! OpenID Connect Core 1.0 §3.1.3.7, 1, and §5.3.2: the encryption around a signed token.

use zeroize::Zeroizing;

use crate::error::{Document, Rule, Violation};
use crate::jose::{CompactJwe, ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm, Undecryptable};
use crate::secret::Secret;

/// How one kind of document is encrypted: the algorithm for its key, and optionally the one for its content.
///
/// A [`KeyManagementAlgorithm`] alone is accepted wherever an `Encryption` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it does nothing until it is part of `ClientAlgorithms`"]
pub struct Encryption {
    pub(crate) alg: KeyManagementAlgorithm,
    pub(crate) enc: Option<ContentEncryptionAlgorithm>,
}

impl Encryption {
    /// Sets how the key is encrypted (`alg`). Of what the OP sends, every [`ContentEncryptionAlgorithm`] is accepted. In
    /// a registration, OPs assume `A128CBC-HS256`.
    pub fn new(algorithm: KeyManagementAlgorithm) -> Self {
        Self { alg: algorithm, enc: None }
    }

    /// Sets how the content is encrypted (`enc`).
    pub fn content(mut self, algorithm: ContentEncryptionAlgorithm) -> Self {
        self.enc = Some(algorithm);
        self
    }
}

impl From<KeyManagementAlgorithm> for Encryption {
    fn from(algorithm: KeyManagementAlgorithm) -> Self {
        Self::new(algorithm)
    }
}

/// The decrypted content of a document, or the document itself if it is not encrypted. Decryption does not authenticate
/// it, because any party with the client's public key can encrypt.
///
/// [`Rule::NoDecryptionKey`] may be temporary, because the client's keys may be incomplete for a while: during a
/// rotation, or in a deployment whose settings lack one.
pub(crate) fn decrypted(
    text: &str,
    document: Document,
    registered: Option<Encryption>,
    keys: &[DecryptionKey],
) -> Result<Secret, Violation> {
    let violation = |rule| Violation::new(rule).in_document(document);
    let refused = |problem| {
        let rule = match problem {
            Undecryptable::Repeated(parameter) => return violation(Rule::RepeatedMember).at_member(parameter),
            Undecryptable::Malformed if document == Document::IdToken => Rule::IdTokenMalformed,
            Undecryptable::Malformed | Undecryptable::Failed => Rule::Decryption,
            Undecryptable::Header => Rule::EncryptionHeader,
            Undecryptable::NoKey => Rule::NoDecryptionKey,
        };
        violation(rule)
    };
    if !CompactJwe::is_one(text) {
        // "If encryption was negotiated with the OP at Registration time and the ID Token is not encrypted, the RP
        // SHOULD reject it."
        return match registered {
            Some(_) => Err(violation(Rule::NotEncrypted)),
            None => Ok(Secret::new(text)),
        };
    }
    let jwe = CompactJwe::parse(text).map_err(refused)?;
    let as_registered = registered.is_none_or(|Encryption { alg, enc }| {
        alg == jwe.algorithm() && enc.is_none_or(|enc| enc == jwe.content_encryption())
    });
    // RFC 7519 §5.2: a JWT in a JWT says so. Many forget it, and what is inside has to be one anyway.
    let is_for_us = match jwe.content_type().as_deref() {
        None | Some("jwt") => true,
        Some("json") => document == Document::UserInfo,
        Some(_) => false,
    };
    if !as_registered || !is_for_us {
        return Err(violation(Rule::EncryptionHeader));
    }
    let mut plaintext = jwe.decrypt(keys).map_err(refused)?;
    // Taken and not copied, so that no copy is left behind.
    String::from_utf8(std::mem::take(&mut *plaintext)).map(Secret::from).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        violation(Rule::Decryption)
    })
}
