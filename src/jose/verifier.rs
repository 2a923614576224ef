//! A public key prepared for one signature algorithm.
//!
//! It uses OpenSSL directly, because keeping a context saves a sixth of the time of each verification. Ed25519 is the
//! exception: the library that `openidconnect` depends on verifies it in a third of the time.

use std::sync::{Mutex, PoisonError};

use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::md::{Md, MdRef};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::RsaPssSaltlen;

use super::algorithm::{HashFunction, SigningAlgorithm};
use super::digest;
use super::key_kind::KeyKind;

/// A public key in the form that verification needs.
#[derive(Clone)]
pub(super) enum PublicKey {
    Rsa(PKey<Public>),
    Ec(PKey<Public>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl PublicKey {
    /// Makes a key from modulus and exponent.
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let key = Rsa::from_public_components(BigNum::from_slice(n).ok()?, BigNum::from_slice(e).ok()?).ok()?;
        Some(Self::Rsa(PKey::from_rsa(key).ok()?))
    }

    /// Makes a key from coordinates. `None` if they are not a point of the curve.
    pub(super) fn ec(kind: KeyKind, x: &[u8], y: &[u8]) -> Option<Self> {
        let curve = match kind {
            KeyKind::P256 => Nid::X9_62_PRIME256V1,
            KeyKind::P384 => Nid::SECP384R1,
            KeyKind::P521 => Nid::SECP521R1,
            KeyKind::Secp256k1 => Nid::SECP256K1,
            KeyKind::Rsa | KeyKind::Ed25519 | KeyKind::Secret => return None,
        };
        let (x, y) = (BigNum::from_slice(x).ok()?, BigNum::from_slice(y).ok()?);
        let group = EcGroup::from_curve_name(curve).ok()?;
        let key = EcKey::from_public_key_affine_coordinates(&group, &x, &y).ok()?;
        key.check_key().ok()?;
        Some(Self::Ec(PKey::from_ec_key(key).ok()?))
    }

    /// Makes a key from the encoded point. `None` if it is not a point of the curve, or is one of the eight points of
    /// small order. With such a point, one signature can be valid for almost every message.
    pub(super) fn ed25519(x: &[u8]) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::try_from(x).ok()?;
        (!key.is_weak()).then(|| Self::Ed25519(Box::new(key)))
    }
}

/// Verifies signatures of one algorithm with one key.
pub(super) struct Verifier {
    algorithm: SigningAlgorithm,
    key: PublicKey,
    /// A prepared context that is not in use. A concurrent verification makes another one.
    spare: Mutex<Option<PkeyCtx<Public>>>,
}

impl Verifier {
    /// Prepares a key. The algorithm must be one of the key's kind.
    pub(super) fn new(algorithm: SigningAlgorithm, key: PublicKey) -> Self {
        Self { algorithm, key, spare: Mutex::new(None) }
    }

    pub(super) fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Whether this is a signature over the message. The result of any failure is `false`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            PublicKey::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| ed25519_dalek::Verifier::verify(&**key, message, &signature).is_ok()),
            PublicKey::Rsa(key) => self.verify_by(key, message, signature).unwrap_or(false),
            PublicKey::Ec(key) => {
                der(signature).is_ok_and(|signature| self.verify_by(key, message, &signature).unwrap_or(false))
            }
        }
    }

    fn verify_by(&self, key: &PKey<Public>, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = spare().take();
        let mut context = match kept {
            Some(context) => context,
            None => self.context(key)?,
        };
        let verified = context.verify(&digest::hash(self.algorithm.hash(), message), signature)?;
        // A context that failed is not used again, so that no failure can affect the next signature.
        if verified {
            *spare() = Some(context);
        }
        Ok(verified)
    }

    fn context(&self, key: &PKey<Public>) -> Result<PkeyCtx<Public>, ErrorStack> {
        use SigningAlgorithm as A;
        let hash = match self.algorithm.hash() {
            HashFunction::Sha256 => Md::sha256(),
            HashFunction::Sha384 => Md::sha384(),
            HashFunction::Sha512 => Md::sha512(),
        };
        let mut context = PkeyCtx::new(key)?;
        context.verify_init()?;
        context.set_signature_md(hash)?;
        match self.algorithm {
            A::Rs256 | A::Rs384 | A::Rs512 => context.set_rsa_padding(Padding::PKCS1)?,
            A::Ps256 | A::Ps384 | A::Ps512 => set_pss(&mut context, hash)?,
            _ => {}
        }
        Ok(context)
    }
}

/// RFC 7518 §3.5: "always using the same hash function for both the RSASSA-PSS hash function and the MGF1 hash
/// function. The size of the salt value is the same size as the hash function output."
fn set_pss(context: &mut PkeyCtx<Public>, hash: &MdRef) -> Result<(), ErrorStack> {
    context.set_rsa_padding(Padding::PKCS1_PSS)?;
    context.set_rsa_mgf1_md(hash)?;
    context.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
}

/// Converts an ECDSA signature to the form that OpenSSL takes. In a JWS it is the two numbers at full length (RFC 7518
/// §3.4).
fn der(signature: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let (r, s) = signature.split_at(signature.len() / 2);
    EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.to_der()
}
