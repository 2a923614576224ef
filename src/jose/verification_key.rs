//! One public key of the OP, from a JWK (RFC 7517) that has not been checked yet.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::JsonWebKeyId;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::algorithm::SigningAlgorithm;
use super::digest;
use super::jwk;
use super::key_kind::KeyKind;
use super::key_use::KeyUse;
use super::verifier::{PublicKey, Verifier};
use crate::secret::constant_time_eq;

/// A key that verifies signatures. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct VerificationKey {
    pub(super) kid: Option<JsonWebKeyId>,
    pub(super) material: Arc<Material>,
}

/// The key material and its verifiers.
pub(super) enum Material {
    Public {
        kind: KeyKind,
        /// Only `kty` and the public parameters, in their canonical encoding.
        jwk: Map<String, Value>,
        /// One verifier for each algorithm that the key may be used with.
        verifiers: Vec<Verifier>,
    },
    /// The bytes of a client secret. They never come from a JWK.
    Secret(Zeroizing<Vec<u8>>),
}

impl VerificationKey {
    /// The key in a JWK.
    ///
    /// # Errors
    ///
    /// The reason why the key cannot verify signatures: it is of an unknown kind, for another purpose, malformed, weak,
    /// or so large that it would cost too much.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, String> {
        KeyUse::Verify.check(jwk)?;
        let (kind, parameters, public) = public_parts(jwk)?;
        let algorithms = match jwk::text(jwk, "alg")? {
            None => kind.algorithms().to_vec(),
            Some(name) => {
                let only = SigningAlgorithm::from_name(name).filter(|only| kind.algorithms().contains(only));
                let only = only.ok_or("its `alg` is not a signature algorithm for this key type")?;
                // The other kinds have one algorithm each, which has two names on Ed25519.
                if kind == KeyKind::Rsa { vec![only] } else { kind.algorithms().to_vec() }
            }
        };
        let kid = jwk::text(jwk, "kid")?.map(|kid| JsonWebKeyId::new(kid.to_owned()));
        let verifiers = algorithms.into_iter().map(|algorithm| Verifier::new(algorithm, public.clone())).collect();
        Ok(Self { kid, material: Arc::new(Material::Public { kind, jwk: parameters, verifiers }) })
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

    /// Whether this key can verify signatures of this algorithm.
    pub(crate) fn supports(&self, algorithm: SigningAlgorithm) -> bool {
        match &*self.material {
            Material::Public { verifiers, .. } => verifiers.iter().any(|verifier| verifier.algorithm() == algorithm),
            Material::Secret(_) => algorithm.is_symmetric(),
        }
    }

    /// Whether `signature` is a signature of `algorithm` over `message` by this key. The result of any failure is
    /// `false`.
    pub(crate) fn verify(&self, algorithm: SigningAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if algorithm.signature_length().is_some_and(|length| length != signature.len()) {
            return false;
        }
        match &*self.material {
            Material::Public { verifiers, .. } => verifiers
                .iter()
                .find(|verifier| verifier.algorithm() == algorithm)
                .is_some_and(|verifier| verifier.verify(message, signature)),
            // In constant time, because the expected value is secret.
            Material::Secret(secret) => {
                algorithm.is_symmetric()
                    && digest::hmac(algorithm.hash(), secret, &[message])
                        .is_ok_and(|expected| constant_time_eq(&expected, signature))
            }
        }
    }

    /// The JWK in a compact form: the public parameters, `kid`, and `alg` if there is only one.
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

impl fmt::Debug for VerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("VerificationKey");
        shown.field("kid", &self.kid()).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

/// The kind of key, its public parameters in their canonical encoding, and the resulting key. The cryptographic
/// libraries get no other input from the JWK.
fn public_parts(jwk: &Map<String, Value>) -> Result<(KeyKind, Map<String, Value>, PublicKey), String> {
    const NO_POINT: &str = "its coordinates are not a point of its curve that is suitable for signatures";
    let spelled = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let key_type = jwk::text(jwk, "kty")?.ok_or("it has no `kty`")?;
    let (kind, parameters, public) = match (key_type, jwk::text(jwk, "crv")?) {
        ("RSA", _) => {
            let (n, e) = (jwk::rsa_modulus(jwk)?, jwk::rsa_exponent(jwk)?);
            let parameters = json!({"kty": "RSA", "n": spelled(&n), "e": spelled(&e)});
            (KeyKind::Rsa, parameters, PublicKey::rsa(&n, &e).ok_or("its `n` and `e` are not a valid key")?)
        }
        ("EC", Some(curve)) => {
            let (kind, length) = match curve {
                "P-256" => (KeyKind::P256, 32),
                "P-384" => (KeyKind::P384, 48),
                "P-521" => (KeyKind::P521, 66),
                "secp256k1" => (KeyKind::Secp256k1, 32),
                _ => return Err("its `crv` is not supported".to_owned()),
            };
            let (x, y) = (jwk::coordinate(jwk, "x", length)?, jwk::coordinate(jwk, "y", length)?);
            let parameters = json!({"kty": "EC", "crv": curve, "x": spelled(&x), "y": spelled(&y)});
            (kind, parameters, PublicKey::ec(kind, &x, &y).ok_or(NO_POINT)?)
        }
        ("OKP", Some("Ed25519")) => {
            let x = jwk::octets(jwk, "x", 32)?;
            let parameters = json!({"kty": "OKP", "crv": "Ed25519", "x": spelled(&x)});
            (KeyKind::Ed25519, parameters, PublicKey::ed25519(&x).ok_or(NO_POINT)?)
        }
        ("EC" | "OKP", _) => return Err("its `crv` is missing or not supported".to_owned()),
        _ => return Err("its `kty` is not supported".to_owned()),
    };
    match parameters {
        Value::Object(parameters) => Ok((kind, parameters, public)),
        _ => Err("it is not a JSON object".to_owned()),
    }
}

#[cfg(test)]
mod tests;
