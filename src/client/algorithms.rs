//! The algorithms that a client is registered with.

use crate::id_token::Encryption;
use crate::jose::SigningAlgorithm;

/// The algorithms with which the OP protects what it sends to a client, and the client its requests, as the client is
/// registered with them (OpenID Connect Dynamic Client Registration 1.0 §2, JARM §3).
///
/// [`ClientBuilder::algorithms`](super::ClientBuilder::algorithms) makes the client enforce them.
/// [`RegistrationRequest::algorithms`](super::RegistrationRequest::algorithms) asks the OP to use them. Each method is
/// named after its member of the client metadata.
///
/// ```
/// use openid_deferred::SigningAlgorithm;
/// use openid_deferred::encryption::{ClientAlgorithms, ContentEncryptionAlgorithm, Encryption, KeyManagementAlgorithm};
///
/// let algorithms = ClientAlgorithms::new()
///     .id_token_signed_response_alg(SigningAlgorithm::Es256)
///     .id_token_encrypted_response(KeyManagementAlgorithm::EcdhEsA256Kw)
///     .userinfo_encrypted_response(
///         Encryption::new(KeyManagementAlgorithm::EcdhEsA256Kw).content(ContentEncryptionAlgorithm::A256Gcm),
///     );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "algorithms do nothing until they are given to a client or a registration request"]
pub struct ClientAlgorithms {
    pub(crate) id_token_signature: Option<SigningAlgorithm>,
    pub(crate) id_token_encryption: Option<Encryption>,
    pub(crate) userinfo_signature: Option<SigningAlgorithm>,
    pub(crate) userinfo_encryption: Option<Encryption>,
    pub(crate) authorization_signature: Option<SigningAlgorithm>,
    pub(crate) authorization_encryption: Option<Encryption>,
    pub(crate) request_object_encryption: Option<Encryption>,
}

impl ClientAlgorithms {
    /// Creates a value that sets nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the algorithm of ID Tokens. ID Tokens signed with another one are refused.
    ///
    /// Unless set, the asymmetric algorithms that the OP lists are accepted, and OPs assume `RS256` at the
    /// registration. An HMAC algorithm is only accepted if it is named here. It needs a client secret that is at least
    /// as long as its hash.
    pub fn id_token_signed_response_alg(mut self, algorithm: SigningAlgorithm) -> Self {
        self.id_token_signature = Some(algorithm);
        self
    }

    /// Sets the encryption of ID Tokens, interim and final (`id_token_encrypted_response_alg` and `_enc`). ID Tokens
    /// that are not encrypted, or encrypted in another way, are refused. It needs a
    /// [`decryption_key`](super::ClientBuilder::decryption_key).
    ///
    /// Unless set, ID Tokens may be unencrypted, or encrypted for one of the decryption keys.
    pub fn id_token_encrypted_response(mut self, encryption: impl Into<Encryption>) -> Self {
        self.id_token_encryption = Some(encryption.into());
        self
    }

    /// Sets the algorithm of UserInfo responses. Responses that are not signed, or signed with another one, are
    /// refused. An HMAC algorithm needs a client secret that is at least as long as its hash.
    ///
    /// Unless set, they may be plain JSON, or signed by one of the OP's keys.
    pub fn userinfo_signed_response_alg(mut self, algorithm: SigningAlgorithm) -> Self {
        self.userinfo_signature = Some(algorithm);
        self
    }

    /// Sets the encryption of UserInfo responses (`userinfo_encrypted_response_alg` and `_enc`). Responses that are not
    /// encrypted, or encrypted in another way, are refused. It needs a
    /// [`decryption_key`](super::ClientBuilder::decryption_key).
    ///
    /// Encryption alone does not show who made a response. Require a [signature](Self::userinfo_signed_response_alg)
    /// too if more than TLS is to protect it.
    pub fn userinfo_encrypted_response(mut self, encryption: impl Into<Encryption>) -> Self {
        self.userinfo_encryption = Some(encryption.into());
        self
    }

    /// Sets the algorithm of authorization responses that are JWTs (JARM §3). Responses that are signed with another
    /// one are refused.
    ///
    /// Unless set, the asymmetric algorithms that the OP lists are accepted, or RS256 if it lists none. An HMAC
    /// algorithm is only accepted if it is named here. It needs a client secret that is at least as long as its hash.
    pub fn authorization_signed_response_alg(mut self, algorithm: SigningAlgorithm) -> Self {
        self.authorization_signature = Some(algorithm);
        self
    }

    /// Sets the encryption of authorization responses that are JWTs (`authorization_encrypted_response_alg` and `_enc`,
    /// JARM §3). Responses that are not encrypted, or encrypted in another way, are refused. It needs a
    /// [`decryption_key`](super::ClientBuilder::decryption_key). [`Client::cookie_name_for`] finds the cookie of the
    /// session.
    ///
    /// Unless set, they may be unencrypted, or encrypted for one of the decryption keys.
    ///
    /// [`Client::cookie_name_for`]: crate::Client::cookie_name_for
    pub fn authorization_encrypted_response(mut self, encryption: impl Into<Encryption>) -> Self {
        self.authorization_encryption = Some(encryption.into());
        self
    }

    /// Sets the encryption of authorization requests (`request_object_encryption_alg` and `_enc`). They are signed and
    /// then encrypted for a key of the OP, so that the browser and anything that logs URLs cannot read them. Discovery
    /// refuses an OP that publishes no such key. The content is encrypted with `A128CBC-HS256` unless set, the default
    /// of the registration.
    pub fn request_object_encryption(mut self, encryption: impl Into<Encryption>) -> Self {
        self.request_object_encryption = Some(encryption.into());
        self
    }

    /// Adds what `other` sets, which wins.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            id_token_signature: other.id_token_signature.or(self.id_token_signature),
            id_token_encryption: other.id_token_encryption.or(self.id_token_encryption),
            userinfo_signature: other.userinfo_signature.or(self.userinfo_signature),
            userinfo_encryption: other.userinfo_encryption.or(self.userinfo_encryption),
            authorization_signature: other.authorization_signature.or(self.authorization_signature),
            authorization_encryption: other.authorization_encryption.or(self.authorization_encryption),
            request_object_encryption: other.request_object_encryption.or(self.request_object_encryption),
        }
    }

    /// The signature algorithms that are set, each with its member of the client metadata.
    pub(super) fn signatures(&self) -> impl Iterator<Item = (&'static str, SigningAlgorithm)> {
        let signatures = [
            ("id_token_signed_response_alg", self.id_token_signature),
            ("userinfo_signed_response_alg", self.userinfo_signature),
            ("authorization_signed_response_alg", self.authorization_signature),
        ];
        signatures.into_iter().filter_map(|(name, algorithm)| Some((name, algorithm?)))
    }
}
