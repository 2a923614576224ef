//! One public key of the OP, taken from a JWK (RFC 7517) that nobody has checked yet.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwk::Jwk;
use josekit::jws::{ES256, ES256K, ES384, ES512, EdDSA, JwsVerifier, PS256, PS384, PS512, RS256, RS384, RS512};
use openidconnect::JsonWebKeyId;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::algorithm::SigningAlgorithm;
use super::digest;
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
        verifiers: Vec<LazyVerifier>,
    },
    /// The bytes of a client secret. Never from a JWK.
    Secret(Zeroizing<Vec<u8>>),
}

/// josekit's verifier, built at first use: building one costs as much as a few verifications.
pub(super) struct LazyVerifier {
    algorithm: SigningAlgorithm,
    verifier: OnceLock<Option<Box<dyn JwsVerifier>>>,
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
        if !is_for_signatures(jwk)? {
            return None;
        }
        let (kind, parameters) = public_parameters(jwk)?;
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
        let verifiers =
            algorithms.into_iter().map(|algorithm| LazyVerifier { algorithm, verifier: OnceLock::new() }).collect();
        let key = Self { kid, material: Arc::new(Material::Public { kind, jwk: parameters, verifiers }) };
        // Only OpenSSL knows whether a point is on its curve. An RSA key has nothing of that sort and up to six
        // algorithms, so there it can wait.
        let usable =
            kind == KeyKind::Rsa || kind.algorithms().first().is_some_and(|&first| key.verifier(first).is_some());
        usable.then_some(key)
    }

    /// The key for HS256, HS384 and HS512.
    pub(super) fn from_secret(secret: Vec<u8>) -> Self {
        Self { kid: None, material: Arc::new(Material::Secret(Zeroizing::new(secret))) }
    }

    /// The same key under the `kid` of a token. Key sets of one key often leave it without a `kid`.
    pub(crate) fn with_kid(&self, kid: Option<&str>) -> Self {
        Self { kid: kid.map(|kid| JsonWebKeyId::new(kid.to_owned())), material: Arc::clone(&self.material) }
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
            Material::Public { verifiers, .. } => verifiers.iter().any(|lazy| lazy.algorithm == algorithm),
            Material::Secret(_) => algorithm.is_symmetric(),
        }
    }

    /// Whether `signature` is one of `algorithm` over `message` by this key. Anything odd is a no.
    pub(crate) fn verify(&self, algorithm: SigningAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if algorithm.signature_length().is_some_and(|length| length != signature.len()) {
            return false;
        }
        match &*self.material {
            Material::Public { .. } => {
                self.verifier(algorithm).is_some_and(|verifier| verifier.verify(message, signature).is_ok())
            }
            // josekit compares with `==`, so HMAC does not go through it.
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
            jwk.insert("alg".to_owned(), only.algorithm.as_str().into());
        }
        Some(jwk)
    }

    fn verifier(&self, algorithm: SigningAlgorithm) -> Option<&dyn JwsVerifier> {
        let Material::Public { jwk, verifiers, .. } = &*self.material else {
            return None;
        };
        let lazy = verifiers.iter().find(|lazy| lazy.algorithm == algorithm)?;
        lazy.verifier.get_or_init(|| build_verifier(algorithm, jwk)).as_deref()
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

/// Whether `use` and `key_ops` allow to verify signatures; `None` where they are malformed (RFC 7517 §4.2 and §4.3).
fn is_for_signatures(jwk: &Map<String, Value>) -> Option<bool> {
    let by_use = optional_text(jwk, "use")?.is_none_or(|purpose| purpose == "sig");
    let by_operations = match jwk.get("key_ops") {
        None => true,
        Some(operations) => operations.as_array()?.iter().any(|operation| operation == "verify"),
    };
    Some(by_use && by_operations)
}

/// The kind of key and its public parameters, spelled canonically. This is the guard in front of josekit: it sees
/// nothing of the JWK but this.
fn public_parameters(jwk: &Map<String, Value>) -> Option<(KeyKind, Map<String, Value>)> {
    let (kind, parameters) = match (jwk.get("kty")?.as_str()?, optional_text(jwk, "crv")?) {
        ("RSA", _) => {
            let (n, e) = (rsa_modulus(jwk)?, rsa_exponent(jwk)?);
            (KeyKind::Rsa, json!({"kty": "RSA", "n": n, "e": e}))
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
            (kind, json!({"kty": "EC", "crv": curve, "x": x, "y": y}))
        }
        ("OKP", Some("Ed25519")) => {
            let x = coordinate(jwk, "x", 32)?;
            (KeyKind::Ed25519, json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
        }
        _ => return None,
    };
    match parameters {
        Value::Object(parameters) => Some((kind, parameters)),
        _ => None,
    }
}

pub(super) fn rsa_modulus(jwk: &Map<String, Value>) -> Option<String> {
    let modulus = unsigned_integer(jwk, "n", RSA_BITS.end() / 8 + 1)?;
    let leading_zeros = modulus.first()?.leading_zeros() as usize;
    let odd = modulus.last()? & 1 == 1;
    (odd && RSA_BITS.contains(&(modulus.len() * 8 - leading_zeros))).then(|| URL_SAFE_NO_PAD.encode(modulus))
}

pub(super) fn rsa_exponent(jwk: &Map<String, Value>) -> Option<String> {
    let exponent = unsigned_integer(jwk, "e", 8)?;
    let value = exponent.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    let bits = u64::BITS - value.leading_zeros();
    (value > 2 && value & 1 == 1 && bits <= RSA_EXPONENT_BITS).then(|| URL_SAFE_NO_PAD.encode(exponent))
}

/// A `Base64urlUInt` (RFC 7518 §2) of at most `limit` bytes. Leading zeros are wrong but common, so they are dropped.
fn unsigned_integer(jwk: &Map<String, Value>, name: &str, limit: usize) -> Option<Vec<u8>> {
    let bytes = binary(jwk, name, limit)?;
    Some(bytes.into_iter().skip_while(|&byte| byte == 0).collect())
}

/// A coordinate, which has all its leading zeros (RFC 7518 §6.2.1.2, RFC 8037 §2).
pub(super) fn coordinate(jwk: &Map<String, Value>, name: &str, length: usize) -> Option<String> {
    let bytes = binary(jwk, name, length)?;
    (bytes.len() == length).then(|| URL_SAFE_NO_PAD.encode(bytes))
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

fn build_verifier(algorithm: SigningAlgorithm, parameters: &Map<String, Value>) -> Option<Box<dyn JwsVerifier>> {
    use SigningAlgorithm as A;
    let jwk = &Jwk::from_map(parameters.clone()).ok()?;
    Some(match algorithm {
        A::Rs256 => Box::new(RS256.verifier_from_jwk(jwk).ok()?),
        A::Rs384 => Box::new(RS384.verifier_from_jwk(jwk).ok()?),
        A::Rs512 => Box::new(RS512.verifier_from_jwk(jwk).ok()?),
        A::Ps256 => Box::new(PS256.verifier_from_jwk(jwk).ok()?),
        A::Ps384 => Box::new(PS384.verifier_from_jwk(jwk).ok()?),
        A::Ps512 => Box::new(PS512.verifier_from_jwk(jwk).ok()?),
        A::Es256 => Box::new(ES256.verifier_from_jwk(jwk).ok()?),
        A::Es384 => Box::new(ES384.verifier_from_jwk(jwk).ok()?),
        A::Es512 => Box::new(ES512.verifier_from_jwk(jwk).ok()?),
        A::Es256k => Box::new(ES256K.verifier_from_jwk(jwk).ok()?),
        A::EdDsa | A::Ed25519 => Box::new(EdDSA.verifier_from_jwk(jwk).ok()?),
        A::Hs256 | A::Hs384 | A::Hs512 => return None,
    })
}

#[cfg(test)]
mod tests;
