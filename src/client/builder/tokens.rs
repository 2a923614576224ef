//! Settings about how tokens and UserInfo responses are signed and encrypted, and what ID Tokens must carry.

use std::time::Duration;

use super::ClientBuilder;
use crate::jose::{ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm, SigningAlgorithm};

impl ClientBuilder {
    /// The algorithm that was registered as `id_token_signed_response_alg`; ID Tokens signed with another one are
    /// refused. Unless set, the asymmetric algorithms that the OP lists are accepted. An HMAC algorithm is only ever
    /// accepted when it is named here, and needs a client secret that is at least as long as its hash.
    #[must_use]
    pub fn id_token_signed_response_alg(mut self, algorithm: SigningAlgorithm) -> Self {
        self.options.id_token_signed_response_alg = Some(vec![algorithm]);
        self
    }

    /// The algorithm that was registered as `id_token_encrypted_response_alg`: ID Tokens, interim and final, that are in
    /// clear or encrypted in another way are refused. It needs a [`decryption_key`](Self::decryption_key).
    ///
    /// Unless set, ID Tokens may be in clear, or encrypted for one of the decryption keys.
    #[must_use]
    pub fn id_token_encrypted_response_alg(mut self, algorithm: KeyManagementAlgorithm) -> Self {
        self.options.id_token_encryption.alg = Some(algorithm);
        self
    }

    /// The algorithm that was registered as `id_token_encrypted_response_enc`. Unless set, every
    /// [`ContentEncryptionAlgorithm`] is accepted.
    #[must_use]
    pub fn id_token_encrypted_response_enc(mut self, algorithm: ContentEncryptionAlgorithm) -> Self {
        self.options.id_token_encryption.enc = Some(algorithm);
        self
    }

    /// The algorithm that was registered as `userinfo_signed_response_alg`: UserInfo responses that are not signed, or
    /// with another one, are refused. An HMAC algorithm needs a client secret that is at least as long as its hash.
    ///
    /// Unless set, they may be plain JSON, or signed by one of the OP's keys.
    #[must_use]
    pub fn userinfo_signed_response_alg(mut self, algorithm: SigningAlgorithm) -> Self {
        self.options.userinfo_signed_response_alg = Some(algorithm);
        self
    }

    /// The algorithm that was registered as `userinfo_encrypted_response_alg`: UserInfo responses that are in clear or
    /// encrypted in another way are refused. It needs a [`decryption_key`](Self::decryption_key).
    ///
    /// Encryption alone says nothing about who made a response, so demand a
    /// [signature](Self::userinfo_signed_response_alg) too where more than TLS is to vouch for it.
    #[must_use]
    pub fn userinfo_encrypted_response_alg(mut self, algorithm: KeyManagementAlgorithm) -> Self {
        self.options.userinfo_encryption.alg = Some(algorithm);
        self
    }

    /// The algorithm that was registered as `userinfo_encrypted_response_enc`. Unless set, every
    /// [`ContentEncryptionAlgorithm`] is accepted.
    #[must_use]
    pub fn userinfo_encrypted_response_enc(mut self, algorithm: ContentEncryptionAlgorithm) -> Self {
        self.options.userinfo_encryption.enc = Some(algorithm);
        self
    }

    /// What was registered as `default_max_age`: the user must have authenticated at most this long before a request that
    /// has no [`max_age`](crate::AuthorizationRequest::max_age) of its own; whole seconds. The OP knows it from the
    /// registration, so it is not sent; the final ID Token is held to it, and must carry `auth_time` (OpenID Connect Core
    /// 1.0 §2; OpenID Connect Dynamic Client Registration 1.0 §2).
    #[must_use]
    pub fn default_max_age(mut self, max_age: Duration) -> Self {
        self.options.default_max_age = Some(max_age);
        self
    }

    /// The client was registered with `require_auth_time`: every final ID Token must carry `auth_time` (OpenID Connect
    /// Dynamic Client Registration 1.0 §2).
    #[must_use]
    pub fn require_auth_time(mut self) -> Self {
        self.options.require_auth_time = true;
        self
    }

    /// A private key that the OP may encrypt ID Tokens, UserInfo and authorization responses for, beside those that were given before;
    /// [`Client::jwks`](crate::Client::jwks) is what to publish. While keys rotate there are two: the new one first, then the old one. Keys
    /// can be [replaced](crate::Client::replace_decryption_keys) later.
    ///
    /// ```no_run
    /// use openid_deferred::{Client, DecryptionKey, KeyManagementAlgorithm, SigningAlgorithm};
    ///
    /// # async fn example(new_pem: &str, old_pem: &str) -> Result<(), openid_deferred::Error> {
    /// let algorithm = KeyManagementAlgorithm::EcdhEsA256Kw;
    /// let client = Client::builder("https://op.example", "my-client")
    ///     .redirect_uri("https://rp.example/callback")
    ///     .decryption_key(DecryptionKey::from_pem(algorithm, new_pem, None)?)
    ///     .decryption_key(DecryptionKey::from_pem(algorithm, old_pem, None)?)
    ///     .id_token_signed_response_alg(SigningAlgorithm::Es256)
    ///     .id_token_encrypted_response_alg(algorithm)
    ///     .discover()
    ///     .await?;
    /// println!("serve this at the jwks_uri: {}", client.jwks());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn decryption_key(mut self, key: DecryptionKey) -> Self {
        self.options.decryption_keys.push(key);
        self
    }
}
