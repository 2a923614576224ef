//! Settings about how tokens and UserInfo responses are signed and encrypted, and what ID Tokens must contain.

use std::time::Duration;

use super::ClientBuilder;
use crate::client::algorithms::ClientAlgorithms;
use crate::jose::DecryptionKey;

impl ClientBuilder {
    /// Sets the algorithms that the client was registered with: of ID Tokens, UserInfo, and authorization requests and
    /// responses. What does not match them is refused. Discovery refuses algorithms that the OP does not list.
    ///
    /// Later calls add to earlier ones, and override what both set. A client that is made from a
    /// [registration](crate::registration::Registration::client) already has them.
    ///
    /// ```
    /// use openid_deferred::encryption::ClientAlgorithms;
    /// use openid_deferred::{Client, SigningAlgorithm};
    ///
    /// let client = Client::builder("https://op.example", "my-client")
    ///     .redirect_uri("https://rp.example/callback")
    ///     .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
    ///     .build()?;
    /// # Ok::<(), openid_deferred::Error>(())
    /// ```
    pub fn algorithms(mut self, algorithms: ClientAlgorithms) -> Self {
        self.options.algorithms = self.options.algorithms.and(algorithms);
        self
    }

    /// Sets the value that was registered as `default_max_age`, in whole seconds: the longest time since the user last
    /// authenticated. It applies to requests without their own [`max_age`](crate::AuthorizationRequest::max_age).
    ///
    /// The OP knows it from the registration, so it is not sent. The final ID Token is checked against it and must
    /// carry `auth_time` (OpenID Connect Core 1.0 §2; OpenID Connect Dynamic Client Registration 1.0 §2).
    pub fn default_max_age(mut self, max_age: Duration) -> Self {
        self.options.default_max_age = Some(max_age);
        self
    }

    /// Declares that the client was registered with `require_auth_time`: every final ID Token must carry `auth_time`
    /// (OpenID Connect Dynamic Client Registration 1.0 §2).
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
    /// use openid_deferred::Client;
    /// use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, KeyManagementAlgorithm};
    ///
    /// # async fn example(new_pem: &str, old_pem: &str) -> Result<(), openid_deferred::Error> {
    /// let algorithm = KeyManagementAlgorithm::EcdhEsA256Kw;
    /// let client = Client::builder("https://op.example", "my-client")
    ///     .redirect_uri("https://rp.example/callback")
    ///     .decryption_key(DecryptionKey::from_pem(algorithm, new_pem, None)?)
    ///     .decryption_key(DecryptionKey::from_pem(algorithm, old_pem, None)?)
    ///     .algorithms(ClientAlgorithms::new().id_token_encrypted_response(algorithm))
    ///     .discover()
    ///     .await?;
    /// println!("serve this at the jwks_uri: {}", client.jwks());
    /// # Ok(())
    /// # }
    /// ```
    pub fn decryption_key(mut self, key: DecryptionKey) -> Self {
        self.options.decryption_keys.push(key);
        self
    }
}
