//! Settings about how tokens and UserInfo responses are signed and encrypted, and what ID Tokens must contain.

use std::time::Duration;

use super::ClientBuilder;
use crate::jose::{ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm, SigningAlgorithm};

impl ClientBuilder {
    /// Sets the algorithm that was registered as `id_token_signed_response_alg`. ID Tokens signed with another one are
    /// refused.
    ///
    /// Unless set, the asymmetric algorithms that the OP lists are accepted. An HMAC algorithm is only accepted if it
    /// is named here. It needs a client secret that is at least as long as its hash.
    #[must_use]
    pub fn id_token_signed_response_alg(mut self, algorithm: SigningAlgorithm) -> Self {
        self.options.id_token_signed_response_alg = Some(vec![algorithm]);
        self
    }

    /// Sets the algorithm that was registered as `id_token_encrypted_response_alg`. ID Tokens, interim and final, that
    /// are not encrypted, or encrypted in another way, are refused. It needs a
    /// [`decryption_key`](Self::decryption_key).
    ///
    /// Unless set, ID Tokens may be unencrypted, or encrypted for one of the decryption keys.
    #[must_use]
    pub fn id_token_encrypted_response_alg(mut self, algorithm: KeyManagementAlgorithm) -> Self {
        self.options.id_token_encryption.alg = Some(algorithm);
        self
    }

    /// Sets the algorithm that was registered as `id_token_encrypted_response_enc`. Unless set, every
    /// [`ContentEncryptionAlgorithm`] is accepted.
    #[must_use]
    pub fn id_token_encrypted_response_enc(mut self, algorithm: ContentEncryptionAlgorithm) -> Self {
        self.options.id_token_encryption.enc = Some(algorithm);
        self
    }

    /// Sets the algorithm that was registered as `userinfo_signed_response_alg`. UserInfo responses that are not
    /// signed, or signed with another one, are refused. An HMAC algorithm needs a client secret that is at least as
    /// long as its hash.
    ///
    /// Unless set, they may be plain JSON, or signed by one of the OP's keys.
    #[must_use]
    pub fn userinfo_signed_response_alg(mut self, algorithm: SigningAlgorithm) -> Self {
        self.options.userinfo_signed_response_alg = Some(algorithm);
        self
    }

    /// Sets the algorithm that was registered as `userinfo_encrypted_response_alg`. UserInfo responses that are not
    /// encrypted, or encrypted in another way, are refused. It needs a [`decryption_key`](Self::decryption_key).
    ///
    /// Encryption alone does not show who made a response. Require a [signature](Self::userinfo_signed_response_alg)
    /// too if more than TLS is to protect it.
    #[must_use]
    pub fn userinfo_encrypted_response_alg(mut self, algorithm: KeyManagementAlgorithm) -> Self {
        self.options.userinfo_encryption.alg = Some(algorithm);
        self
    }

    /// Sets the algorithm that was registered as `userinfo_encrypted_response_enc`. Unless set, every
    /// [`ContentEncryptionAlgorithm`] is accepted.
    #[must_use]
    pub fn userinfo_encrypted_response_enc(mut self, algorithm: ContentEncryptionAlgorithm) -> Self {
        self.options.userinfo_encryption.enc = Some(algorithm);
        self
    }

    /// Sets the value that was registered as `default_max_age`, in whole seconds: the longest time since the user last
    /// authenticated. It applies to requests without their own [`max_age`](crate::AuthorizationRequest::max_age).
    ///
    /// The OP knows it from the registration, so it is not sent. The final ID Token is checked against it and must
    /// carry `auth_time` (OpenID Connect Core 1.0 §2; OpenID Connect Dynamic Client Registration 1.0 §2).
    #[must_use]
    pub fn default_max_age(mut self, max_age: Duration) -> Self {
        self.options.default_max_age = Some(max_age);
        self
    }

    /// Declares that the client was registered with `require_auth_time`: every final ID Token must carry `auth_time`
    /// (OpenID Connect Dynamic Client Registration 1.0 §2).
    #[must_use]
    pub fn require_auth_time(mut self) -> Self {
        self.options.require_auth_time = true;
        self
    }

    /// Adds a private key that the OP may encrypt ID Tokens, UserInfo and authorization responses for.
    ///
    /// [`Client::jwks`](crate::Client::jwks) is what to publish. During a key rotation there are two: add the new one
    /// first, then the old one. Keys can be [replaced](crate::Client::replace_decryption_keys) later.
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
