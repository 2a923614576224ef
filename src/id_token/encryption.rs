//! OpenID Connect Core 1.0 §3.1.3.7, 1, and §5.3.2: the encryption around a signed token.

use zeroize::Zeroizing;

use crate::error::{Document, Rule, Violation};
use crate::jose::{CompactJwe, ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm, Undecryptable};
use crate::secret::Secret;

/// The registered encryption of one kind of document. Unset means unknown, not "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RegisteredEncryption {
    pub(crate) alg: Option<KeyManagementAlgorithm>,
    pub(crate) enc: Option<ContentEncryptionAlgorithm>,
}

/// The decrypted content of a document, or the document itself if it is not encrypted. Decryption does not authenticate
/// it, because any party with the client's public key can encrypt.
///
/// [`Rule::NoDecryptionKey`] may be temporary, because the client's keys may be incomplete for a while: during a
/// rotation, or in a deployment whose settings lack one.
pub(crate) fn decrypted(
    text: &str,
    document: Document,
    registered: RegisteredEncryption,
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
        return match registered.alg {
            Some(_) => Err(violation(Rule::NotEncrypted)),
            None => Ok(Secret::new(text)),
        };
    }
    let jwe = CompactJwe::parse(text).map_err(refused)?;
    let as_registered = registered.alg.is_none_or(|alg| alg == jwe.algorithm())
        && registered.enc.is_none_or(|enc| enc == jwe.content_encryption());
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
