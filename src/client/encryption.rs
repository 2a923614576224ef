//! OpenID Connect Core 1.0 §10: the client's own keys, and what it registered about encryption.

use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};

use super::Client;
use super::identity::Credentials;
use super::options::Options;
use super::setting::setting;
use crate::error::{ConfigurationProblem, Document, Error, Violation};
use crate::id_token::{self, Encryption};
use crate::jose::DecryptionKey;
use crate::provider::ProviderMetadata;
use crate::secret::Secret;

/// If a token names no key, each of them may be tried.
const KEY_LIMIT: usize = 16;

impl Client {
    /// The client's public keys as a JWK Set, to be served as `application/json` at the client's `jwks_uri` or
    /// registered as `jwks`.
    ///
    /// It contains the public halves of the [decryption keys](super::ClientBuilder::decryption_key) (`use` `enc`), and
    /// the keys of `private_key_jwt` and of signed requests (`use` `sig`), if their [`Signer`](crate::Signer) provides
    /// them.
    ///
    /// ```
    /// use openid_deferred::encryption::{DecryptionKey, KeyManagementAlgorithm};
    /// use openid_deferred::Client;
    ///
    /// let client = Client::builder("https://op.example", "my-client")
    ///     .redirect_uri("https://rp.example/callback")
    ///     .decryption_key(DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs)?)
    ///     .build()?;
    /// let served = client.jwks().to_string();
    /// assert!(served.contains(r#""alg":"ECDH-ES""#) && !served.contains(r#""d""#));
    /// # Ok::<(), openid_deferred::Error>(())
    /// ```
    pub fn jwks(&self) -> Value {
        let decryption_keys = self.decryption_keys();
        let encryption = decryption_keys.iter().map(DecryptionKey::public_jwk);
        let credentials = &self.0.credentials;
        let of_requests = credentials.request_object_signer.as_ref().and_then(|signer| signer.verification_jwk());
        let of_assertions = credentials.public_jwk().filter(|jwk| Some(jwk) != of_requests.as_ref());
        let signature = of_assertions.into_iter().chain(of_requests).map(|mut jwk: Map<String, Value>| {
            jwk.insert("use".to_owned(), "sig".into());
            jwk
        });
        json!({ "keys": encryption.chain(signature).collect::<Vec<_>>() })
    }

    /// Replaces the decryption keys of the client and all its clones while they are in use. [`jwks`](Self::jwks)
    /// changes accordingly.
    ///
    /// Some tokens may still arrive that were encrypted for the old keys. Include the old keys for as long as the OP
    /// may have them in its cache.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) for keys that do not fit the other settings. The old keys
    /// then stay.
    pub fn replace_decryption_keys(&self, keys: impl IntoIterator<Item = DecryptionKey>) -> Result<(), Error> {
        let keys: Arc<[DecryptionKey]> = keys.into_iter().collect();
        check_keys(&self.0.options, self.0.credentials.public_jwk().as_ref(), &keys)?;
        *self.0.decryption_keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn decryption_keys(&self) -> Arc<[DecryptionKey]> {
        self.0.decryption_keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The signed token inside an encrypted ID Token, or the ID Token itself if it is not encrypted. Nothing about it
    /// is verified.
    pub(super) fn decrypted_id_token(&self, token: &Secret) -> Result<Secret, Violation> {
        self.decrypted(token.expose(), Document::IdToken, self.0.options.algorithms.id_token_encryption)
    }

    /// The same for a UserInfo response of type `application/jwt`.
    pub(super) fn decrypted_userinfo(&self, token: &str) -> Result<Secret, Violation> {
        self.decrypted(token, Document::UserInfo, self.0.options.algorithms.userinfo_encryption)
    }

    /// Decrypts a document and checks its encryption against the registered one.
    pub(super) fn decrypted(
        &self,
        text: &str,
        document: Document,
        registered: Option<Encryption>,
    ) -> Result<Secret, Violation> {
        id_token::decrypted(text, document, registered, &self.decryption_keys())
    }

    /// Checks that the OP lists what was registered. An OP that lists nothing may still support it.
    pub(super) fn check_encryption(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        let Options { algorithms, allow_unadvertised, .. } = &self.0.options;
        let encryption = |registered: Option<Encryption>| {
            let enc = registered.and_then(|registered| registered.enc);
            (registered.map(|registered| registered.alg.as_str()), enc.map(|enc| enc.as_str()))
        };
        let (id_token_alg, id_token_enc) = encryption(algorithms.id_token_encryption);
        let (userinfo_alg, userinfo_enc) = encryption(algorithms.userinfo_encryption);
        let (request_alg, request_enc) = encryption(algorithms.request_object_encryption);
        let (response_alg, response_enc) = encryption(algorithms.authorization_encryption);
        let userinfo_signature = algorithms.userinfo_signature.map(|algorithm| algorithm.as_str());
        for (member, value) in [
            ("id_token_encryption_alg_values_supported", id_token_alg),
            ("id_token_encryption_enc_values_supported", id_token_enc),
            ("userinfo_signing_alg_values_supported", userinfo_signature),
            ("userinfo_encryption_alg_values_supported", userinfo_alg),
            ("userinfo_encryption_enc_values_supported", userinfo_enc),
            ("authorization_encryption_alg_values_supported", response_alg),
            ("authorization_encryption_enc_values_supported", response_enc),
            ("request_object_encryption_alg_values_supported", request_alg),
            ("request_object_encryption_enc_values_supported", request_enc),
        ] {
            let Some(value) = value else { continue };
            match metadata.extra(member) {
                Some(Value::Array(listed)) if listed.iter().any(|listed| listed == value) => {}
                Some(Value::Array(_)) if !allow_unadvertised => {
                    return Err(ConfigurationProblem::NotAdvertised { member, value: value.to_owned() }.into());
                }
                _ => tracing::warn!(
                    issuer = self.issuer(),
                    member,
                    value,
                    "the OP's metadata does not list this feature"
                ),
            }
        }
        Ok(())
    }
}

/// Checks that the decryption keys fit the other settings.
pub(super) fn check_settings(options: &Options, credentials: &Credentials) -> Result<(), Error> {
    check_keys(options, credentials.public_jwk().as_ref(), &options.decryption_keys)
}

fn check_keys(options: &Options, signing: Option<&Map<String, Value>>, keys: &[DecryptionKey]) -> Result<(), Error> {
    // NIST SP 800-57 part 1, §5.2: "In general, a single key shall be used for only one purpose".
    if keys.iter().any(|key| signing.is_some_and(|jwk| key.is_the_key_of(jwk))) {
        return Err(setting("decryption_key", "it is also the key of client assertions; use separate keys"));
    }
    if keys.len() > KEY_LIMIT {
        return Err(setting("decryption_key", "there are more than 16; remove those that were replaced long ago"));
    }
    for (number, key) in keys.iter().enumerate() {
        let is_same = |other: &DecryptionKey| other.key_id() == key.key_id() && other.algorithm() == key.algorithm();
        if keys.iter().take(number).any(is_same) {
            return Err(setting("decryption_key", "two keys for one algorithm have the same `kid`"));
        }
    }
    for (name, registered) in [
        ("id_token_encrypted_response_alg", options.algorithms.id_token_encryption),
        ("userinfo_encrypted_response_alg", options.algorithms.userinfo_encryption),
        ("authorization_encrypted_response_alg", options.algorithms.authorization_encryption),
    ] {
        if registered.is_some_and(|Encryption { alg, .. }| keys.iter().all(|key| key.algorithm() != alg)) {
            return Err(setting(name, "there is no `decryption_key` for this algorithm"));
        }
    }
    Ok(())
}
