//! Private keys that the OP encrypts tokens for.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwk::alg::{ec::EcKeyPair, ecx::EcxKeyPair, rsa::RsaKeyPair};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::encrypt::Decrypter;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rand::rand_bytes;
use openssl::rsa::{Padding, Rsa};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::algorithm::KeyManagementAlgorithm;
use super::ephemeral_key::Curve;
use super::header::Header;
use super::key_agreement;
use crate::error::{ConfigurationProblem, Error, ErrorKind};
use crate::jose::digest::sha256;
use crate::jose::key_use::KeyUse;
use crate::jose::private_jwk::PrivateJwk;

/// The permitted sizes of RSA keys: the minimum of RFC 7518 §4.3, and a maximum that limits the cost.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// A private key of the client that the OP encrypts ID Tokens or UserInfo responses for.
///
/// Pass it to [`ClientBuilder::decryption_key`](crate::ClientBuilder::decryption_key), and publish the public key:
/// [`Client::jwks`](crate::Client::jwks) is the key set to serve at the client's `jwks_uri`. A key is for one algorithm
/// and has a `kid`, by which tokens name it. To rotate, add the new key before the old one. Remove the old key when no
/// OP can have it in its cache, and when every sign-in whose answer was encrypted for it has been delivered.
///
/// ```
/// use openid_deferred::encryption::{DecryptionKey, KeyManagementAlgorithm};
///
/// let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEsA256Kw)?;
/// assert_eq!(key.public_jwk()["use"], "enc");
/// assert_eq!(key.public_jwk()["kid"], key.key_id());
/// assert!(!format!("{key:?}").contains("\"d\""));
/// # Ok::<(), openid_deferred::Error>(())
/// ```
///
/// Cloning is cheap. `Debug` shows only its algorithm and its `kid`, and it cannot be serialized.
#[derive(Clone)]
pub struct DecryptionKey(Arc<Inner>);

struct Inner {
    algorithm: KeyManagementAlgorithm,
    key_id: String,
    private: PKey<Private>,
    /// `None` for RSA.
    curve: Option<Curve>,
    /// The key itself, without `use`, `alg` and `kid`.
    public: Map<String, Value>,
}

impl DecryptionKey {
    /// Reads a private key from PEM: PKCS#8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`),
    /// not encrypted. `key_id` is its `kid`. The default is the key's thumbprint (RFC 7638).
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Key`] if the PEM cannot be read, the key does not fit the algorithm, or an RSA key has
    /// fewer than 2048 bits.
    pub fn from_pem(algorithm: KeyManagementAlgorithm, pem: &str, key_id: Option<String>) -> Result<Self, Error> {
        // Without the callback OpenSSL asks for the passphrase of an encrypted key on the terminal.
        let key = PKey::private_key_from_pem_callback(pem.as_bytes(), |_| Ok(0))
            .map_err(|_| problem("it is not an unencrypted private key in PEM"))?;
        Self::new(algorithm, key, key_id)
    }

    /// Reads a private key from a JWK (RFC 7517) with its `alg`. Without a `kid`, its thumbprint (RFC 7638) is used.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Key`] if the JWK cannot be read, has no private part, names no encryption algorithm in
    /// `alg`, or is for another purpose according to its `use` or `key_ops`. Also if it is an RSA key of fewer than
    /// 2048 bits.
    pub fn from_jwk(json: &str) -> Result<Self, Error> {
        let malformed = || problem("it is not a private key as a JWK");
        let members = PrivateJwk::read(json).ok_or_else(malformed)?;
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let algorithm = text("alg")
            .and_then(KeyManagementAlgorithm::from_name)
            .ok_or_else(|| problem("the JWK has no `alg` that names a supported algorithm for encryption"))?;
        if KeyUse::Decrypt.check(&members).is_err() {
            return Err(problem("the JWK's `use` or `key_ops` does not allow decryption"));
        }
        let key_id = text("kid").map(str::to_owned);
        let der = members.with_josekit(|jwk| match text("kty") {
            Some("RSA") => RsaKeyPair::from_jwk(jwk).map(|pair| pair.to_der_private_key()).ok(),
            Some("EC") => EcKeyPair::from_jwk(jwk).map(|pair| pair.to_der_private_key()).ok(),
            Some("OKP") => EcxKeyPair::from_jwk(jwk).map(|pair| pair.to_der_private_key()).ok(),
            _ => None,
        });
        let der = Zeroizing::new(der.ok_or_else(malformed)?);
        let key = PKey::private_key_from_der(&der).map_err(|_| malformed())?;
        Self::new(algorithm, key, key_id)
    }

    /// Generates a new key: an RSA key of 2048 bits, or a key on P-256, according to the algorithm. Its `kid` is its
    /// thumbprint (RFC 7638).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cryptography`] if OpenSSL fails.
    pub fn generate(algorithm: KeyManagementAlgorithm) -> Result<Self, Error> {
        let key = match algorithm.is_rsa() {
            true => Rsa::generate(*RSA_BITS.start()).and_then(PKey::from_rsa),
            false => EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
                .and_then(|group| EcKey::generate(&group))
                .and_then(PKey::from_ec_key),
        };
        Self::new(algorithm, key.map_err(failed)?, None)
    }

    /// The algorithm that the key is for.
    pub fn algorithm(&self) -> KeyManagementAlgorithm {
        self.0.algorithm
    }

    /// The `kid` by which tokens name it.
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }

    /// The public key as a JWK with its `use`, `alg` and `kid`, which the OP encrypts for.
    pub fn public_jwk(&self) -> Map<String, Value> {
        let mut jwk = self.0.public.clone();
        jwk.insert("use".to_owned(), "enc".into());
        jwk.insert("alg".to_owned(), self.0.algorithm.as_str().into());
        jwk.insert("kid".to_owned(), self.0.key_id.as_str().into());
        jwk
    }

    /// Whether a public JWK, for whatever purpose, is the public half of this key.
    pub(crate) fn is_the_key_of(&self, jwk: &Map<String, Value>) -> bool {
        self.0.public.iter().all(|(name, value)| jwk.get(name) == Some(value))
    }

    fn new(algorithm: KeyManagementAlgorithm, private: PKey<Private>, key_id: Option<String>) -> Result<Self, Error> {
        let unfit = || problem("it is not a valid key for this algorithm, or it is an RSA key of fewer than 2048 bits");
        let (curve, public) = if algorithm.is_rsa() {
            let rsa = private.rsa().map_err(|_| unfit())?;
            if !RSA_BITS.contains(&private.bits()) || !rsa.check_key().is_ok_and(|consistent| consistent) {
                return Err(unfit());
            }
            (None, rsa_jwk(&rsa))
        } else {
            let curve = Curve::of(&private).ok_or_else(unfit)?;
            (Some(curve), curve_jwk(curve, &private).map_err(|_| unfit())?)
        };
        let key_id = key_id.unwrap_or_else(|| thumbprint(&public));
        let Value::Object(public) = public else { return Err(unfit()) };
        Ok(Self(Arc::new(Inner { algorithm, key_id, private, curve, public })))
    }

    /// The key of a token's content. `None` if it cannot be one for this key.
    pub(super) fn content_key(&self, header: &Header, encrypted_key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let Inner { private, curve, .. } = &*self.0;
        if let Some(curve) = curve {
            return key_agreement::content_key(private, *curve, header, encrypted_key);
        }
        if encrypted_key.len() != private.size() {
            return None;
        }
        let digest = match header.alg {
            KeyManagementAlgorithm::RsaOaep256 => MessageDigest::sha256(),
            _ => MessageDigest::sha1(),
        };
        let length = header.enc.key_length();
        // RFC 7516 §11.5: "It is strongly recommended, in the event of receiving an improperly formatted key, that the
        // recipient substitute a randomly generated CEK and proceed to the next step, to mitigate timing attacks."
        let mut substitute = Zeroizing::new(vec![0; length]);
        rand_bytes(&mut substitute).ok()?;
        match decrypt_oaep(private, digest, encrypted_key) {
            Ok(key) if key.len() == length => Some(key),
            _ => Some(substitute),
        }
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("DecryptionKey");
        shown.field("algorithm", &self.0.algorithm).field("key_id", &self.0.key_id).finish_non_exhaustive()
    }
}

/// RFC 7518 §4.3: both hash functions are the same.
fn decrypt_oaep(
    key: &PKey<Private>,
    digest: MessageDigest,
    encrypted: &[u8],
) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
    let mut decrypter = Decrypter::new(key)?;
    decrypter.set_rsa_padding(Padding::PKCS1_OAEP)?;
    decrypter.set_rsa_oaep_md(digest)?;
    decrypter.set_rsa_mgf1_md(digest)?;
    let mut decrypted = Zeroizing::new(vec![0; key.size()]);
    let written = decrypter.decrypt(encrypted, &mut decrypted)?;
    decrypted.truncate(written);
    Ok(decrypted)
}

fn rsa_jwk(key: &Rsa<Private>) -> Value {
    let number = |number: &openssl::bn::BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
    json!({ "kty": "RSA", "n": number(key.n()), "e": number(key.e()) })
}

fn curve_jwk(curve: Curve, key: &PKey<Private>) -> Result<Value, ErrorStack> {
    let name = match curve {
        Curve::P256 => "P-256",
        Curve::P384 => "P-384",
        Curve::P521 => "P-521",
        Curve::X25519 => {
            let x = URL_SAFE_NO_PAD.encode(key.raw_public_key()?);
            return Ok(json!({ "kty": "OKP", "crv": "X25519", "x": x }));
        }
    };
    let key = key.ec_key()?;
    key.check_key()?;
    let (mut x, mut y, mut context) = (BigNum::new()?, BigNum::new()?, BigNumContext::new()?);
    key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context)?;
    // No curve has coordinates of such a length.
    let width = i32::try_from(curve.width()).unwrap_or_default();
    let text = |number: &BigNum| number.to_vec_padded(width).map(|octets| URL_SAFE_NO_PAD.encode(octets));
    Ok(json!({ "kty": "EC", "crv": name, "x": text(&x)?, "y": text(&y)? }))
}

/// RFC 7638 §3: the hash of the required members in alphabetical order.
fn thumbprint(jwk: &Value) -> String {
    let members: std::collections::BTreeMap<_, _> = jwk.as_object().into_iter().flatten().collect();
    URL_SAFE_NO_PAD.encode(sha256(json!(members).to_string().as_bytes()))
}

fn problem(what: &'static str) -> Error {
    ConfigurationProblem::Key(what).into()
}

fn failed(error: ErrorStack) -> Error {
    Error::new(ErrorKind::Cryptography).with_source(error)
}
