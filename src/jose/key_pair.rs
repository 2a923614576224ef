//! Private keys for DPoP, directly on OpenSSL: one per sign-in, stored in a few bytes, restored for each poll.
//!
//! A general JOSE library takes twenty times as long to restore a key as to sign with it. So these three kinds are
//! built from their raw parts.

use std::fmt;
use std::sync::LazyLock;

use openssl::bn::{BigNum, BigNumContext, BigNumRef};
use openssl::ec::{EcGroup, EcGroupRef, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::{Padding, Rsa, RsaPrivateKeyBuilder};
use openssl::sign::{RsaPssSaltlen, Signer};
use zeroize::Zeroizing;

use super::digest::sha256;
use crate::error::{Error, ErrorKind};

/// The kinds of key that sign DPoP proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyPairType {
    /// ECDSA on P-256 with SHA-256 (`ES256`).
    P256,
    /// Ed25519 (`EdDSA`).
    Ed25519,
    /// RSASSA-PSS of 2048 bits with SHA-256 (`PS256`).
    Rsa2048,
}

/// A private key with its public half.
pub(crate) struct KeyPair {
    private: PrivateHalf,
    public: PublicParts,
}

enum PrivateHalf {
    P256(EcKey<Private>),
    Ed25519(PKey<Private>),
    Rsa2048(PKey<Private>),
}

/// The public half of a [`KeyPair`]: the octets that a JWK encodes (RFC 7518 §6.2 and §6.3, RFC 8037 §2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicParts {
    P256 { x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

/// The length of a P-256 scalar or coordinate and of either half of an Ed25519 key.
const WIDTH: usize = 32;
/// The same length in the type that OpenSSL takes.
const PADDED: i32 = 32;
const RSA_BITS: i32 = 2048;
/// The length of either prime of an RSA key.
const PRIME_WIDTH: usize = 128;
/// The same length in the type that OpenSSL takes.
const PRIME_PADDED: i32 = 128;
/// The public exponent of keys that OpenSSL generates.
const RSA_EXPONENT: u32 = 65_537;

impl KeyPair {
    /// Generates a key. P-256 and Ed25519 take microseconds, RSA takes tens to hundreds of milliseconds.
    pub(crate) fn generate(key_type: KeyPairType) -> Result<Self, Error> {
        match key_type {
            KeyPairType::P256 => p256().and_then(EcKey::generate).and_then(Self::of_p256),
            KeyPairType::Ed25519 => PKey::generate_ed25519().and_then(Self::of_ed25519),
            KeyPairType::Rsa2048 => Rsa::generate(RSA_BITS.cast_unsigned()).and_then(Self::of_rsa),
        }
        .map_err(failed)
    }

    /// Restores the key that [`to_bytes`](Self::to_bytes) wrote. `None` for bytes that are not exactly such a key.
    ///
    /// It does not check that the halves of a P-256 or RSA key belong together. The bytes come from a sealed value, and
    /// computing the point again takes 10 to 15 µs, half as long as a signature, for each poll. With a wrong point, the
    /// OP would refuse the proof, and the proof reveals nothing.
    pub(crate) fn from_bytes(key_type: KeyPairType, bytes: &[u8]) -> Option<Self> {
        match key_type {
            KeyPairType::P256 => restore_p256(bytes),
            KeyPairType::Ed25519 => restore_ed25519(bytes),
            KeyPairType::Rsa2048 => restore_rsa(bytes),
        }
    }

    /// Writes the key. P-256: scalar, x and y. Ed25519: seed and public key. RSA: the two primes, because the 1,200
    /// bytes of a whole key would take up all of a cookie.
    pub(crate) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let private = match &self.private {
            PrivateHalf::P256(key) => key.private_key().to_vec_padded(PADDED),
            PrivateHalf::Ed25519(key) => key.raw_private_key(),
            PrivateHalf::Rsa2048(key) => key.rsa().and_then(|rsa| primes(&rsa)),
        };
        let private = private.map(Zeroizing::new).map_err(failed)?;
        // `concat` allocates once. A growing vector would leave copies of the key in memory.
        Ok(Zeroizing::new(match &self.public {
            PublicParts::P256 { x, y } => [private.as_slice(), x, y].concat(),
            PublicParts::Ed25519 { x } => [private.as_slice(), x].concat(),
            PublicParts::Rsa { .. } => return Ok(private),
        }))
    }

    /// The public half.
    pub(crate) fn public_parts(&self) -> &PublicParts {
        &self.public
    }

    /// Makes a JWS signature over `message`. For P-256 it has r and s in 64 bytes (RFC 7518 §3.4), not DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.private {
            PrivateHalf::P256(key) => sign_p256(key, message),
            PrivateHalf::Ed25519(key) => sign_ed25519(key, message),
            PrivateHalf::Rsa2048(key) => sign_pss(key, message),
        }
        .map_err(failed)
    }

    fn of_p256(key: EcKey<Private>) -> Result<Self, ErrorStack> {
        let (mut x, mut y, mut context) = (BigNum::new()?, BigNum::new()?, BigNumContext::new()?);
        key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context)?;
        let public = PublicParts::P256 { x: x.to_vec_padded(PADDED)?, y: y.to_vec_padded(PADDED)? };
        Ok(Self { private: PrivateHalf::P256(key), public })
    }

    fn of_ed25519(key: PKey<Private>) -> Result<Self, ErrorStack> {
        let public = PublicParts::Ed25519 { x: key.raw_public_key()? };
        Ok(Self { private: PrivateHalf::Ed25519(key), public })
    }

    fn of_rsa(key: Rsa<Private>) -> Result<Self, ErrorStack> {
        let public = PublicParts::Rsa { n: key.n().to_vec(), e: key.e().to_vec() };
        Ok(Self { private: PrivateHalf::Rsa2048(PKey::from_rsa(key)?), public })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("KeyPair").field(&self.public).finish()
    }
}

/// The curve. It is built once, because that takes half as long as a signature.
fn p256() -> Result<&'static EcGroupRef, ErrorStack> {
    static P256: LazyLock<Result<EcGroup, ErrorStack>> =
        LazyLock::new(|| EcGroup::from_curve_name(Nid::X9_62_PRIME256V1));
    P256.as_deref().map_err(Clone::clone)
}

/// The order of the curve. Every private key is below it.
fn p256_order() -> Result<&'static BigNumRef, ErrorStack> {
    static ORDER: LazyLock<Result<BigNum, ErrorStack>> = LazyLock::new(|| {
        let mut order = BigNum::new()?;
        p256()?.order(&mut order, &mut *BigNumContext::new()?)?;
        Ok(order)
    });
    ORDER.as_deref().map_err(Clone::clone)
}

fn restore_p256(bytes: &[u8]) -> Option<KeyPair> {
    let (scalar, public) = bytes.split_at_checked(WIDTH)?;
    let (x, y) = public.split_at_checked(WIDTH).filter(|(_, y)| y.len() == WIDTH)?;
    let mut scalar = BigNum::from_slice(scalar).ok()?;
    let key = build_p256(&scalar, x, y);
    // OpenSSL clears its own copy when the key is dropped, but not this number.
    scalar.clear();
    Some(KeyPair { private: PrivateHalf::P256(key.ok()??), public: PublicParts::P256 { x: x.to_vec(), y: y.to_vec() } })
}

/// `None` if the scalar is zero or not below the order of the group.
fn build_p256(scalar: &BigNumRef, x: &[u8], y: &[u8]) -> Result<Option<EcKey<Private>>, ErrorStack> {
    let (group, mut context) = (p256()?, BigNumContext::new()?);
    if scalar.num_bits() == 0 || *scalar >= *p256_order()? {
        return Ok(None);
    }
    let (x, y, mut public) = (BigNum::from_slice(x)?, BigNum::from_slice(y)?, EcPoint::new(group)?);
    // Fails if it is not a point of the curve, or if a coordinate is not below the field's prime.
    public.set_affine_coordinates(group, &x, &y, &mut context)?;
    EcKey::from_private_components(group, scalar, &public).map(Some)
}

fn restore_ed25519(bytes: &[u8]) -> Option<KeyPair> {
    let (seed, public) = bytes.split_at_checked(WIDTH)?;
    let key = PKey::private_key_from_raw_bytes(seed, Id::ED25519).and_then(KeyPair::of_ed25519).ok()?;
    // OpenSSL has already computed the public half, so the comparison is free.
    matches!(&key.public, PublicParts::Ed25519 { x } if x == public).then_some(key)
}

fn restore_rsa(bytes: &[u8]) -> Option<KeyPair> {
    let (p, q) = bytes.split_at_checked(PRIME_WIDTH).filter(|(_, q)| q.len() == PRIME_WIDTH)?;
    let key = build_rsa(p, q).ok().filter(|key| key.n().num_bits() == RSA_BITS)?;
    KeyPair::of_rsa(key).ok()
}

/// RFC 8017 §3.2. It takes a quarter of the time of one signature (measured).
fn build_rsa(p: &[u8], q: &[u8]) -> Result<Rsa<Private>, ErrorStack> {
    let number = || -> Result<BigNum, ErrorStack> {
        let mut number = BigNum::new()?;
        number.set_const_time();
        Ok(number)
    };
    let (mut n, mut d, mut dp, mut dq, mut q_inverse) = (BigNum::new()?, number()?, number()?, number()?, number()?);
    let (mut p_less_one, mut q_less_one, mut totient) = (number()?, number()?, number()?);
    let (mut p, mut q, e) = (BigNum::from_slice(p)?, BigNum::from_slice(q)?, BigNum::from_u32(RSA_EXPONENT)?);
    let (one, mut context) = (BigNum::from_u32(1)?, BigNumContext::new_secure()?);
    p.set_const_time();
    q.set_const_time();
    n.checked_mul(&p, &q, &mut context)?;
    p_less_one.checked_sub(&p, &one)?;
    q_less_one.checked_sub(&q, &one)?;
    totient.checked_mul(&p_less_one, &q_less_one, &mut context)?;
    d.mod_inverse(&e, &totient, &mut context)?;
    dp.checked_rem(&d, &p_less_one, &mut context)?;
    dq.checked_rem(&d, &q_less_one, &mut context)?;
    q_inverse.mod_inverse(&q, &p, &mut context)?;
    // OpenSSL clears numbers that become part of the key, but not these.
    for number in [&mut p_less_one, &mut q_less_one, &mut totient] {
        number.clear();
    }
    Ok(RsaPrivateKeyBuilder::new(n, e, d)?.set_factors(p, q)?.set_crt_params(dp, dq, q_inverse)?.build())
}

fn primes(key: &Rsa<Private>) -> Result<Vec<u8>, ErrorStack> {
    let (Some(p), Some(q)) = (key.p(), key.q()) else { return Err(ErrorStack::get()) };
    let prime = |prime: &BigNumRef| prime.to_vec_padded(PRIME_PADDED).map(Zeroizing::new);
    Ok([prime(p)?.as_slice(), prime(q)?.as_slice()].concat())
}

fn sign_p256(key: &EcKey<Private>, message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let signature = EcdsaSig::sign(&sha256(message), key)?;
    Ok([signature.r().to_vec_padded(PADDED)?, signature.s().to_vec_padded(PADDED)?].concat())
}

fn sign_ed25519(key: &PKey<Private>, message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    Signer::new_without_digest(key)?.sign_oneshot_to_vec(message)
}

/// RFC 7518 §3.5: "The size of the salt value is the same size as the hash function output."
fn sign_pss(key: &PKey<Private>, message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    signer.set_rsa_padding(Padding::PKCS1_PSS)?;
    signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    signer.set_rsa_mgf1_md(MessageDigest::sha256())?;
    signer.sign_oneshot_to_vec(message)
}

fn failed(error: ErrorStack) -> Error {
    Error::new(ErrorKind::Cryptography).with_source(error)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use openssl::ec::PointConversionForm;
    use openssl::pkey::Public;
    use openssl::sign::Verifier;
    use proptest::prelude::*;

    use super::*;

    const ALL: [KeyPairType; 3] = [KeyPairType::P256, KeyPairType::Ed25519, KeyPairType::Rsa2048];

    /// Verifies with only the public parts.
    fn verifies(public: &PublicParts, message: &[u8], signature: &[u8]) -> bool {
        let number = |bytes: &[u8]| BigNum::from_slice(bytes).unwrap();
        match public {
            PublicParts::P256 { x, y } => {
                let key = EcKey::from_public_key_affine_coordinates(p256().unwrap(), &number(x), &number(y)).unwrap();
                let (r, s) = signature.split_at(WIDTH);
                let signature = EcdsaSig::from_private_components(number(r), number(s)).unwrap();
                signature.verify(&sha256(message), &key).unwrap()
            }
            PublicParts::Ed25519 { x } => {
                let key = PKey::public_key_from_raw_bytes(x, Id::ED25519).unwrap();
                Verifier::new_without_digest(&key).unwrap().verify_oneshot(signature, message).unwrap()
            }
            PublicParts::Rsa { n, e } => {
                let key: Rsa<Public> = Rsa::from_public_components(number(n), number(e)).unwrap();
                let key = PKey::from_rsa(key).unwrap();
                let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
                verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
                verifier.verify_oneshot(signature, message).unwrap()
            }
        }
    }

    /// x and y of P-256's generator (SEC 2 §2.4.2).
    fn generator() -> Vec<u8> {
        let (group, mut context) = (p256().unwrap(), BigNumContext::new().unwrap());
        let point = group.generator_opt().unwrap();
        point.to_bytes(group, PointConversionForm::UNCOMPRESSED, &mut context).unwrap().split_off(1)
    }

    #[test]
    fn a_restored_key_is_the_same_key() {
        for key_type in ALL {
            let key = KeyPair::generate(key_type).unwrap();
            let restored = KeyPair::from_bytes(key_type, &key.to_bytes().unwrap()).unwrap();
            assert_eq!(restored.public_parts(), key.public_parts());
            let signature = restored.sign(b"a message").unwrap();
            assert!(verifies(key.public_parts(), b"a message", &signature));
            assert!(!verifies(key.public_parts(), b"another message", &signature));
        }
    }

    #[test]
    fn numbers_with_leading_zeros_keep_their_width() {
        // The point is the generator, so the scalar is one.
        let bytes = [&[0; 31], [1].as_slice(), &generator()].concat();
        let key = KeyPair::from_bytes(KeyPairType::P256, &bytes).unwrap();
        assert_eq!(*key.to_bytes().unwrap(), bytes);
        assert!(verifies(key.public_parts(), b"a message", &key.sign(b"a message").unwrap()));
    }

    #[test]
    fn a_scalar_outside_of_the_group_is_refused() {
        let mut order = BigNum::new().unwrap();
        p256().unwrap().order(&mut order, &mut BigNumContext::new().unwrap()).unwrap();
        for scalar in [vec![0; 32], order.to_vec(), vec![0xff; 32]] {
            assert!(KeyPair::from_bytes(KeyPairType::P256, &[scalar, generator()].concat()).is_none());
        }
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_is_refused() {
        for (x, y) in [([0; 32], [0; 32]), ([1; 32], [2; 32]), ([0xff; 32], [0xff; 32])] {
            assert!(KeyPair::from_bytes(KeyPairType::P256, &[[7; 32], x, y].concat()).is_none());
        }
    }

    #[test]
    fn an_ed25519_key_whose_halves_do_not_belong_together_is_refused() {
        let one = KeyPair::generate(KeyPairType::Ed25519).unwrap().to_bytes().unwrap();
        let other = KeyPair::generate(KeyPairType::Ed25519).unwrap().to_bytes().unwrap();
        let mixed = [&one[..WIDTH], &other[WIDTH..]].concat();
        assert!(KeyPair::from_bytes(KeyPairType::Ed25519, &mixed).is_none());
    }

    #[test]
    fn an_rsa_key_of_another_size_or_with_bytes_after_it_is_refused() {
        let short = primes(&Rsa::generate(1024).unwrap()).unwrap();
        assert!(KeyPair::from_bytes(KeyPairType::Rsa2048, &short).is_none());
        let key = KeyPair::generate(KeyPairType::Rsa2048).unwrap().to_bytes().unwrap();
        assert_eq!(key.len(), 2 * PRIME_WIDTH);
        assert!(KeyPair::from_bytes(KeyPairType::Rsa2048, &key[1..]).is_none());
        assert!(KeyPair::from_bytes(KeyPairType::Rsa2048, &[key.as_slice(), &[0]].concat()).is_none());
    }

    #[test]
    fn numbers_that_make_no_rsa_key_are_refused_or_sign_nothing_that_verifies() {
        for (p, q) in [([0; PRIME_WIDTH], [0; PRIME_WIDTH]), ([0xff; PRIME_WIDTH], [0xff; PRIME_WIDTH])] {
            assert!(KeyPair::from_bytes(KeyPairType::Rsa2048, &[p, q].concat()).is_none());
        }
        for (p, q) in [([0xfe; PRIME_WIDTH], [0xfd; PRIME_WIDTH]), ([0xfd; PRIME_WIDTH], [0xf1; PRIME_WIDTH])] {
            let Some(key) = KeyPair::from_bytes(KeyPairType::Rsa2048, &[p, q].concat()) else { continue };
            let signed = key.sign(b"a message");
            assert!(!signed.is_ok_and(|signature| verifies(key.public_parts(), b"a message", &signature)));
        }
    }

    /// RFC 8037 appendix A. Ed25519 signatures are deterministic, so the vector is a whole signature.
    #[test]
    fn ed25519_gives_the_signature_of_rfc_8037() {
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let seed = decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
        let public = decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let key = KeyPair::from_bytes(KeyPairType::Ed25519, &[seed, public].concat()).unwrap();
        let signature = key.sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc").unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(signature),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    #[test]
    fn debug_output_has_the_public_half_only() {
        for key_type in [KeyPairType::P256, KeyPairType::Ed25519] {
            let key = KeyPair::generate(key_type).unwrap();
            let shown = format!("{key:?}");
            let private = format!("{:?}", &key.to_bytes().unwrap()[..WIDTH]);
            assert!(!shown.contains(private.trim_matches(['[', ']'])), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for key_type in ALL {
                let _ = KeyPair::from_bytes(key_type, &bytes);
            }
        }
    }
}
