//! The types that `openidconnect` needs to verify tokens with our keys.

use std::fmt;
use std::sync::Arc;

use openidconnect::{
    JsonWebKey, JsonWebKeyAlgorithm, JsonWebKeyId, JsonWebKeyType, JsonWebKeyUse, JweContentEncryptionAlgorithm,
    JwsSigningAlgorithm, SignatureVerificationError,
};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};

use super::algorithm::SigningAlgorithm;
use super::compact::CompactJws;
use super::digest;
use super::key_kind::KeyKind;
use super::verification_key::VerificationKey;

/// A [`SigningAlgorithm`] for `openidconnect`. It is a separate type so that the traits are not part of this crate's
/// interface.
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

    /// Always `false`: the key of an HMAC is passed like any other key.
    fn uses_shared_secret(&self) -> bool {
        false
    }

    fn rsa_sha_256() -> Self {
        Self(SigningAlgorithm::Rs256)
    }
}

impl JsonWebKeyType for KeyKind {}

/// A type without values, because encrypted tokens are decrypted before `openidconnect` sees them.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) enum NoEncryption {}

impl JweContentEncryptionAlgorithm for NoEncryption {
    type KeyType = KeyKind;

    fn key_type(&self) -> Result<KeyKind, String> {
        match *self {}
    }
}

/// The use of every key that [`VerificationKey::from_jwk`] accepts.
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

/// A key together with the one token that it verifies.
///
/// `openidconnect` only gets the claims that matter for the checks. The signature covers all claims, so it is verified
/// over the original token, whatever bytes `openidconnect` passes.
#[derive(Clone)]
pub(crate) struct KeyOfToken {
    key: VerificationKey,
    signing_input: Arc<[u8]>,
    signature: Arc<[u8]>,
}

impl KeyOfToken {
    pub(crate) fn new(key: &VerificationKey, token: &CompactJws<'_>) -> Self {
        Self { key: key.clone(), signing_input: token.signing_input().into(), signature: token.signature().into() }
    }
}

impl JsonWebKey for KeyOfToken {
    type KeyUse = SignatureUse;
    type SigningAlgorithm = OpenIdAlgorithm;

    fn key_id(&self) -> Option<&JsonWebKeyId> {
        self.key.kid.as_ref()
    }

    fn key_type(&self) -> &KeyKind {
        self.key.kind()
    }

    fn key_use(&self) -> Option<&SignatureUse> {
        None
    }

    fn signing_alg(&self) -> JsonWebKeyAlgorithm<&OpenIdAlgorithm> {
        // `verify_signature` refuses algorithms that the key is not for.
        JsonWebKeyAlgorithm::Unspecified
    }

    /// Not called, because of [`OpenIdAlgorithm::uses_shared_secret`]. The result verifies nothing.
    fn new_symmetric(key: Vec<u8>) -> Self {
        Self { key: VerificationKey::from_secret(key), signing_input: Arc::default(), signature: Arc::default() }
    }

    fn verify_signature(
        &self,
        algorithm: &OpenIdAlgorithm,
        _reduced: &[u8],
        _signature: &[u8],
    ) -> Result<(), SignatureVerificationError> {
        if self.key.verify(algorithm.0, &self.signing_input, &self.signature) {
            Ok(())
        } else {
            Err(SignatureVerificationError::CryptoError("the signature does not verify".to_owned()))
        }
    }

    fn hash_bytes(&self, bytes: &[u8], algorithm: &OpenIdAlgorithm) -> Result<Vec<u8>, String> {
        Ok(digest::hash(algorithm.0.hash(), bytes))
    }
}

impl fmt::Debug for KeyOfToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(formatter)
    }
}

// `JsonWebKey` requires both. They are not called.
impl Serialize for KeyOfToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.key.to_jwk().ok_or_else(|| S::Error::custom("a secret is not serialized"))?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyOfToken {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("a key without its token"))
    }
}
