//! DPoP (RFC 9449): the key of a sign-in and its proofs.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::error::{ConfigurationProblem, Error, ErrorKind};
use crate::jose::{KeyPair, KeyPairType, SigningAlgorithm, sha256};

mod jwk;
mod proof;
#[cfg(test)]
mod tests;

pub(crate) use proof::ProofParts;

/// The DPoP key of one sign-in.
///
/// DTR §Token Request Using the Authentication Request ID: "Public keys SHOULD NOT be reused across different
/// Authentication Processes", so a client generates one key for each sign-in, proves possession of it in the exchange,
/// in every poll and in a cancellation, and returns it with the tokens that are bound to it. It cannot be exported;
/// sealed values contain it. Clones share one key.
///
/// `Debug` shows the thumbprint, which is public.
#[derive(Clone)]
pub struct DpopKey(Arc<Inner>);

struct Inner {
    algorithm: SigningAlgorithm,
    key: KeyPair,
    public_jwk: String,
    /// Computed on demand. Polls do not need it.
    thumbprint: OnceLock<String>,
    /// The first segment of every proof of this key: its `typ`, `alg` and `jwk` never change.
    header: String,
}

impl DpopKey {
    /// A new key for `ES256`, `EdDSA`, `Ed25519` (the same under the name of RFC 9864) or `PS256` (RSA with 2048 bits).
    ///
    /// All except the last take some microseconds. An RSA key takes tens to hundreds of milliseconds of CPU time,
    /// during which this call blocks. On an asynchronous runtime, call it for `PS256` on a thread that may block.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Setting`] for any other algorithm; [`ErrorKind::Cryptography`] if OpenSSL fails.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, Error> {
        let key_type = key_type(algorithm).ok_or(ConfigurationProblem::Setting {
            setting: "DpopKey::generate",
            problem: "DPoP keys support only ES256, EdDSA, Ed25519 and PS256",
        })?;
        Ok(Self::new(algorithm, KeyPair::generate(key_type)?))
    }

    /// The algorithm of the proofs.
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.0.algorithm
    }

    /// The JWK thumbprint with SHA-256 in base64url (RFC 7638), which is `dpop_jkt` in an authorization request
    /// (RFC 9449 §10) and `cnf.jkt` in an access token.
    pub fn thumbprint(&self) -> &str {
        self.0.thumbprint.get_or_init(|| URL_SAFE_NO_PAD.encode(sha256(self.0.public_jwk.as_bytes())))
    }

    /// The public key as a JWK, in the canonical JSON of RFC 7638 §3.
    pub fn public_jwk(&self) -> &str {
        &self.0.public_jwk
    }

    /// The private key for a sealed value: one byte for the algorithm, then the raw key.
    pub(crate) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.0.key.to_bytes()?;
        Ok(Zeroizing::new([&[code(self.0.algorithm)], key.as_slice()].concat()))
    }

    /// The key from [`to_bytes`](Self::to_bytes). Returns [`ErrorKind::Sealed`] for anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let restore = || {
            let (&first, key) = bytes.split_first()?;
            let algorithm = ALGORITHMS.into_iter().find(|&algorithm| code(algorithm) == first)?;
            Some(Self::new(algorithm, KeyPair::from_bytes(key_type(algorithm)?, key)?))
        };
        restore().ok_or_else(|| Error::new(ErrorKind::Sealed))
    }

    /// A proof for one request (RFC 9449 §4.2), the value of its `DPoP` header.
    pub(crate) fn proof(&self, parts: &ProofParts<'_>) -> Result<String, Error> {
        proof::sign(&self.0.key, &self.0.header, parts)
    }

    fn new(algorithm: SigningAlgorithm, key: KeyPair) -> Self {
        let public_jwk = jwk::canonical(key.public_parts());
        let header = proof::header(algorithm, &public_jwk);
        Self(Arc::new(Inner { algorithm, key, public_jwk, thumbprint: OnceLock::new(), header }))
    }
}

impl fmt::Debug for DpopKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DpopKey").field("thumbprint", &self.thumbprint()).finish_non_exhaustive()
    }
}

const ALGORITHMS: [SigningAlgorithm; 4] =
    [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Ps256, SigningAlgorithm::Ed25519];

fn key_type(algorithm: SigningAlgorithm) -> Option<KeyPairType> {
    match algorithm {
        SigningAlgorithm::Es256 => Some(KeyPairType::P256),
        SigningAlgorithm::EdDsa | SigningAlgorithm::Ed25519 => Some(KeyPairType::Ed25519),
        SigningAlgorithm::Ps256 => Some(KeyPairType::Rsa2048),
        _ => None,
    }
}

/// The first byte of a stored key. Stored keys outlive releases: these numbers never change.
fn code(algorithm: SigningAlgorithm) -> u8 {
    match algorithm {
        SigningAlgorithm::Es256 => 1,
        SigningAlgorithm::EdDsa => 2,
        SigningAlgorithm::Ps256 => 3,
        SigningAlgorithm::Ed25519 => 4,
        _ => 0,
    }
}
