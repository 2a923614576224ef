//! One public key of the OP, taken from a JWK (RFC 7517) that nobody has checked yet.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::JsonWebKeyId;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::algorithm::SigningAlgorithm;
use super::digest;
use super::key_use::KeyUse;
use super::verifier::{PublicKey, Verifier};
use crate::secret::constant_time_eq;

/// The sizes of RSA moduli that are worth anything and do not cost too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const RSA_EXPONENT_BITS: u32 = 33;

/// A key that verifies signatures. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct VerificationKey {
    pub(super) kid: Option<JsonWebKeyId>,
    pub(super) material: Arc<Material>,
}

/// What a key is made of, with its verifiers.
pub(super) enum Material {
    Public {
        kind: KeyKind,
        /// `kty` and the public parameters, in their canonical spelling, and nothing else.
        jwk: Map<String, Value>,
        /// One for each algorithm that the key may be used with.
        verifiers: Vec<Verifier>,
    },
    /// The bytes of a client secret. Never from a JWK.
    Secret(Zeroizing<Vec<u8>>),
}

/// The type of a key with its curve, so that each signature algorithm fits exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Secp256k1,
    Ed25519,
    Secret,
}

impl VerificationKey {
    /// The key in a JWK, or `None` where it cannot verify signatures: of an unknown kind, meant for something else,
    /// malformed, weak, or so large that it would be a burden.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        if !KeyUse::Verify.is_allowed_by(jwk)? {
            return None;
        }
        let (kind, parameters, public) = public_parts(jwk)?;
        let algorithms = match optional_text(jwk, "alg")? {
            None => kind.algorithms().to_vec(),
            Some(name) => {
                let only = SigningAlgorithm::from_name(name)?;
                if !kind.algorithms().contains(&only) {
                    return None;
                }
                // For the other kinds there is one algorithm, if under two names on Ed25519.
                if kind == KeyKind::Rsa { vec![only] } else { kind.algorithms().to_vec() }
            }
        };
        let kid = optional_text(jwk, "kid")?.map(|kid| JsonWebKeyId::new(kid.to_owned()));
        let verifiers = algorithms.into_iter().map(|algorithm| Verifier::new(algorithm, public.clone())).collect();
        Some(Self { kid, material: Arc::new(Material::Public { kind, jwk: parameters, verifiers }) })
    }

    /// The key for HS256, HS384 and HS512.
    pub(super) fn from_secret(secret: Vec<u8>) -> Self {
        Self { kid: None, material: Arc::new(Material::Secret(Zeroizing::new(secret))) }
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_ref().map(|kid| kid.as_str())
    }

    pub(super) fn kind(&self) -> &KeyKind {
        match &*self.material {
            Material::Public { kind, .. } => kind,
            Material::Secret(_) => &KeyKind::Secret,
        }
    }

    /// Whether signatures of this algorithm can be verified with this key.
    pub(crate) fn supports(&self, algorithm: SigningAlgorithm) -> bool {
        match &*self.material {
            Material::Public { verifiers, .. } => verifiers.iter().any(|verifier| verifier.algorithm() == algorithm),
            Material::Secret(_) => algorithm.is_symmetric(),
        }
    }

    /// Whether `signature` is one of `algorithm` over `message` by this key. Anything odd is a no.
    pub(crate) fn verify(&self, algorithm: SigningAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if algorithm.signature_length().is_some_and(|length| length != signature.len()) {
            return false;
        }
        match &*self.material {
            Material::Public { verifiers, .. } => verifiers
                .iter()
                .find(|verifier| verifier.algorithm() == algorithm)
                .is_some_and(|verifier| verifier.verify(message, signature)),
            // In constant time: here the expected value is a secret.
            Material::Secret(secret) => {
                algorithm.is_symmetric()
                    && digest::hmac(algorithm.hash(), secret, &[message])
                        .is_ok_and(|expected| constant_time_eq(&expected, signature))
            }
        }
    }

    /// The JWK in a compact form: the public parameters, `kid`, and `alg` where there is only one.
    pub(super) fn to_jwk(&self) -> Option<Map<String, Value>> {
        let Material::Public { kind, jwk, verifiers } = &*self.material else {
            return None;
        };
        let mut jwk = jwk.clone();
        if let Some(kid) = self.kid() {
            jwk.insert("kid".to_owned(), kid.into());
        }
        if let ([only], KeyKind::Rsa) = (verifiers.as_slice(), kind) {
            jwk.insert("alg".to_owned(), only.algorithm().as_str().into());
        }
        Some(jwk)
    }
}

impl KeyKind {
    pub(super) fn of(algorithm: SigningAlgorithm) -> Self {
        use SigningAlgorithm as A;
        match algorithm {
            A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512 => Self::Rsa,
            A::Es256 => Self::P256,
            A::Es384 => Self::P384,
            A::Es512 => Self::P521,
            A::Es256k => Self::Secp256k1,
            A::EdDsa | A::Ed25519 => Self::Ed25519,
            A::Hs256 | A::Hs384 | A::Hs512 => Self::Secret,
        }
    }

    fn algorithms(self) -> &'static [SigningAlgorithm] {
        use SigningAlgorithm as A;
        match self {
            Self::Rsa => &[A::Rs256, A::Rs384, A::Rs512, A::Ps256, A::Ps384, A::Ps512],
            Self::P256 => &[A::Es256],
            Self::P384 => &[A::Es384],
            Self::P521 => &[A::Es512],
            Self::Secp256k1 => &[A::Es256k],
            Self::Ed25519 => &[A::EdDsa, A::Ed25519],
            Self::Secret => &[A::Hs256, A::Hs384, A::Hs512],
        }
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("VerificationKey");
        shown.field("kid", &self.kid()).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// The kind of key, its public parameters in their canonical spelling, and the key that they make. This is the guard in
/// front of the cryptographic libraries: they see nothing of the JWK but this.
fn public_parts(jwk: &Map<String, Value>) -> Option<(KeyKind, Map<String, Value>, PublicKey)> {
    let spelled = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let (kind, parameters, public) = match (jwk.get("kty")?.as_str()?, optional_text(jwk, "crv")?) {
        ("RSA", _) => {
            let (n, e) = (rsa_modulus(jwk)?, rsa_exponent(jwk)?);
            let parameters = json!({"kty": "RSA", "n": spelled(&n), "e": spelled(&e)});
            (KeyKind::Rsa, parameters, PublicKey::rsa(&n, &e)?)
        }
        ("EC", Some(curve)) => {
            let (kind, length) = match curve {
                "P-256" => (KeyKind::P256, 32),
                "P-384" => (KeyKind::P384, 48),
                "P-521" => (KeyKind::P521, 66),
                "secp256k1" => (KeyKind::Secp256k1, 32),
                _ => return None,
            };
            let (x, y) = (coordinate(jwk, "x", length)?, coordinate(jwk, "y", length)?);
            let parameters = json!({"kty": "EC", "crv": curve, "x": spelled(&x), "y": spelled(&y)});
            (kind, parameters, PublicKey::ec(kind, &x, &y)?)
        }
        ("OKP", Some("Ed25519")) => {
            let x = coordinate(jwk, "x", 32)?;
            let parameters = json!({"kty": "OKP", "crv": "Ed25519", "x": spelled(&x)});
            (KeyKind::Ed25519, parameters, PublicKey::ed25519(&x)?)
        }
        _ => return None,
    };
    match parameters {
        Value::Object(parameters) => Some((kind, parameters, public)),
        _ => None,
    }
}

pub(super) fn rsa_modulus(jwk: &Map<String, Value>) -> Option<Vec<u8>> {
    let modulus = unsigned_integer(jwk, "n", RSA_BITS.end() / 8 + 1)?;
    let leading_zeros = modulus.first()?.leading_zeros() as usize;
    let odd = modulus.last()? & 1 == 1;
    (odd && RSA_BITS.contains(&(modulus.len() * 8 - leading_zeros))).then_some(modulus)
}

pub(super) fn rsa_exponent(jwk: &Map<String, Value>) -> Option<Vec<u8>> {
    let exponent = unsigned_integer(jwk, "e", 8)?;
    let value = exponent.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    let bits = u64::BITS - value.leading_zeros();
    (value > 2 && value & 1 == 1 && bits <= RSA_EXPONENT_BITS).then_some(exponent)
}

/// A `Base64urlUInt` (RFC 7518 §2) of at most `limit` bytes. Leading zeros are wrong but common, so they are dropped.
fn unsigned_integer(jwk: &Map<String, Value>, name: &str, limit: usize) -> Option<Vec<u8>> {
    let bytes = binary(jwk, name, limit)?;
    Some(bytes.into_iter().skip_while(|&byte| byte == 0).collect())
}

/// A coordinate, which has all its leading zeros (RFC 7518 §6.2.1.2, RFC 8037 §2).
pub(super) fn coordinate(jwk: &Map<String, Value>, name: &str, length: usize) -> Option<Vec<u8>> {
    binary(jwk, name, length).filter(|bytes| bytes.len() == length)
}

fn binary(jwk: &Map<String, Value>, name: &str, limit: usize) -> Option<Vec<u8>> {
    let text = jwk.get(name)?.as_str()?;
    // Measured before decoding, as a key set may hold a hundred oversized keys, and after it to the byte.
    let bytes = (text.len() <= limit.div_ceil(3) * 4).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
    (bytes.len() <= limit).then_some(bytes)
}

/// An optional text; the outer `None` says that it is there and not a text.
pub(super) fn optional_text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<Option<&'a str>> {
    match jwk.get(name) {
        None => Some(None),
        Some(value) => value.as_str().map(Some),
    }
}

#[cfg(test)]
mod tests;
