//! What `openidconnect` needs to verify with our keys.

use openidconnect::{
    JsonWebKey, JsonWebKeyAlgorithm, JsonWebKeyId, JsonWebKeyType, JsonWebKeyUse, JweContentEncryptionAlgorithm,
    JwsSigningAlgorithm, SignatureVerificationError,
};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::{Map, Value};

use super::algorithm::SigningAlgorithm;
use super::digest;
use super::verification_key::{KeyKind, VerificationKey};

/// A [`SigningAlgorithm`] for `openidconnect`, apart from it so that its traits are no part of this crate's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OpenIdAlgorithm(pub(crate) SigningAlgorithm);

impl<'de> Deserialize<'de> for OpenIdAlgorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        SigningAlgorithm::from_name(&name).map(Self).ok_or_else(|| D::Error::custom("unknown signature algorithm"))
    }
}

impl Serialize for OpenIdAlgorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl JwsSigningAlgorithm for OpenIdAlgorithm {
    type KeyType = KeyKind;

    fn key_type(&self) -> Option<KeyKind> {
        Some(KeyKind::of(self.0))
    }

    fn uses_shared_secret(&self) -> bool {
        self.0.is_symmetric()
    }

    fn rsa_sha_256() -> Self {
        Self(SigningAlgorithm::Rs256)
    }
}

impl JsonWebKeyType for KeyKind {}

/// No content encryption: a type without values, because encrypted tokens never get as far as `openidconnect`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) enum NoEncryption {}

impl JweContentEncryptionAlgorithm for NoEncryption {
    type KeyType = KeyKind;

    fn key_type(&self) -> Result<KeyKind, String> {
        match *self {}
    }
}

/// The use of every key that got past [`VerificationKey::from_jwk`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SignatureUse;

impl JsonWebKeyUse for SignatureUse {
    fn allows_signature(&self) -> bool {
        true
    }

    fn allows_encryption(&self) -> bool {
        false
    }
}

impl JsonWebKey for VerificationKey {
    type KeyUse = SignatureUse;
    type SigningAlgorithm = OpenIdAlgorithm;

    fn key_id(&self) -> Option<&JsonWebKeyId> {
        self.kid.as_ref()
    }

    fn key_type(&self) -> &KeyKind {
        self.kind()
    }

    fn key_use(&self) -> Option<&SignatureUse> {
        None
    }

    fn signing_alg(&self) -> JsonWebKeyAlgorithm<&OpenIdAlgorithm> {
        // `verify_signature` refuses the algorithms that the key is not for.
        JsonWebKeyAlgorithm::Unspecified
    }

    fn new_symmetric(key: Vec<u8>) -> Self {
        Self::from_secret(key)
    }

    fn verify_signature(
        &self,
        algorithm: &OpenIdAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureVerificationError> {
        if self.verify(algorithm.0, message, signature) {
            Ok(())
        } else {
            Err(SignatureVerificationError::CryptoError("the signature does not verify".to_owned()))
        }
    }

    fn hash_bytes(&self, bytes: &[u8], algorithm: &OpenIdAlgorithm) -> Result<Vec<u8>, String> {
        Ok(digest::hash(algorithm.0.hash(), bytes))
    }
}

// `JsonWebKey` asks for both; nothing here calls them.
impl Serialize for VerificationKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_jwk().ok_or_else(|| S::Error::custom("a secret is not serialized"))?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for VerificationKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let jwk = Map::<String, Value>::deserialize(deserializer)?;
        Self::from_jwk(&jwk).ok_or_else(|| D::Error::custom("not a key that verifies signatures"))
    }
}
