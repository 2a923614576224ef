//! Public keys of the OP that requests are encrypted for.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwe::alg::ecdh_es::EcdhEsJweAlgorithm;
use josekit::jwe::alg::rsaes::RsaesJweAlgorithm;
use josekit::jwe::{JweEncrypter, JweHeader, serialize_compact};
use josekit::jwk::Jwk;
use serde_json::{Map, Value, json};

use super::algorithm::{ContentEncryptionAlgorithm, KeyManagementAlgorithm};
use crate::error::{Error, ErrorKind};
use crate::jose::jwk;
use crate::jose::key_use::KeyUse;

/// A key of the OP's set that is for encryption (RFC 7517 §4.2).
///
/// josekit encrypts, because it is reliable in that: it chooses every length itself. This crate, the other library of
/// the test provider, and `oidc-provider` decrypt its tokens. Of the OP's JWK it only gets canonical parameters.
pub(crate) struct EncryptionKey {
    kid: Option<String>,
    /// The only algorithm that the key is for, if the JWK names one.
    algorithm: Option<KeyManagementAlgorithm>,
    is_rsa: bool,
    jwk: Jwk,
}

impl EncryptionKey {
    /// The key in a JWK.
    ///
    /// # Errors
    ///
    /// The reason why the key cannot be used for encryption: it is for another purpose, of an unknown kind, malformed,
    /// weak, or so large that it would cost too much.
    pub(in crate::jose) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, String> {
        const ALGORITHM: &str = "its `alg` is not a supported encryption algorithm for this key type";
        KeyUse::Encrypt.check(jwk)?;
        let algorithm = match jwk::text(jwk, "alg")? {
            Some(name) => Some(KeyManagementAlgorithm::from_name(name).ok_or(ALGORITHM)?),
            None => None,
        };
        // A key without `use` may be one for signatures, unless its algorithm is one for encryption.
        if jwk::text(jwk, "use")?.is_none() && algorithm.is_none() {
            return Err("neither its `use` nor its `alg` says that it is for encryption".to_owned());
        }
        let parameters = public_parameters(jwk)?;
        let is_rsa = parameters.get("kty").is_some_and(|kty| kty == "RSA");
        if algorithm.is_some_and(|algorithm| algorithm.is_rsa() != is_rsa) {
            return Err(ALGORITHM.to_owned());
        }
        let kid = jwk::text(jwk, "kid")?.map(str::to_owned);
        let malformed = || "its parameters are not a valid key".to_owned();
        let key = Self { kid, algorithm, is_rsa, jwk: Jwk::from_map(parameters).map_err(|_| malformed())? };
        // Only OpenSSL can check that a point is on its curve.
        let any = if is_rsa { KeyManagementAlgorithm::RsaOaep256 } else { KeyManagementAlgorithm::EcdhEs };
        match key.encrypter(any) {
            Some(_) => Ok(key),
            None => Err(malformed()),
        }
    }

    /// Whether this key can be used with that algorithm.
    pub(crate) fn supports(&self, algorithm: KeyManagementAlgorithm) -> bool {
        self.is_rsa == algorithm.is_rsa() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Encrypts a signed token as a nested JWT (RFC 7519 §5.2 and §11.2).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cryptography`] if josekit or OpenSSL fails, or the key is for another algorithm.
    pub(crate) fn encrypt(
        &self,
        alg: KeyManagementAlgorithm,
        enc: ContentEncryptionAlgorithm,
        token: &str,
    ) -> Result<String, Error> {
        let failed = || Error::new(ErrorKind::Cryptography);
        let encrypter = self.encrypter(alg).filter(|_| self.supports(alg)).ok_or_else(failed)?;
        let mut header = JweHeader::new();
        header.set_content_encryption(enc.as_str());
        header.set_content_type("JWT");
        if let Some(kid) = &self.kid {
            header.set_key_id(kid);
        }
        serialize_compact(token.as_bytes(), &header, &*encrypter).map_err(|_| failed())
    }

    fn encrypter(&self, algorithm: KeyManagementAlgorithm) -> Option<Box<dyn JweEncrypter>> {
        use KeyManagementAlgorithm as A;
        let rsa = |algorithm: RsaesJweAlgorithm| {
            let encrypter = algorithm.encrypter_from_jwk(&self.jwk).ok()?;
            Some(Box::new(encrypter) as Box<dyn JweEncrypter>)
        };
        let ecdh = |algorithm: EcdhEsJweAlgorithm| {
            let encrypter = algorithm.encrypter_from_jwk(&self.jwk).ok()?;
            Some(Box::new(encrypter) as Box<dyn JweEncrypter>)
        };
        match algorithm {
            A::RsaOaep => rsa(RsaesJweAlgorithm::RsaOaep),
            A::RsaOaep256 => rsa(RsaesJweAlgorithm::RsaOaep256),
            A::EcdhEs => ecdh(EcdhEsJweAlgorithm::EcdhEs),
            A::EcdhEsA128Kw => ecdh(EcdhEsJweAlgorithm::EcdhEsA128kw),
            A::EcdhEsA192Kw => ecdh(EcdhEsJweAlgorithm::EcdhEsA192kw),
            A::EcdhEsA256Kw => ecdh(EcdhEsJweAlgorithm::EcdhEsA256kw),
        }
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("EncryptionKey");
        shown.field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The public parameters after a check, in their canonical encoding. josekit gets no other input.
fn public_parameters(jwk: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let spelled = |octets: Vec<u8>| URL_SAFE_NO_PAD.encode(octets);
    let point = |name, length| jwk::coordinate(jwk, name, length).map(spelled);
    let key_type = jwk::text(jwk, "kty")?.ok_or("it has no `kty`")?;
    let parameters = match (key_type, jwk::text(jwk, "crv")?) {
        ("RSA", _) => {
            json!({ "kty": "RSA", "n": spelled(jwk::rsa_modulus(jwk)?), "e": spelled(jwk::rsa_exponent(jwk)?) })
        }
        ("EC", Some(curve)) => {
            let length = match curve {
                "P-256" => 32,
                "P-384" => 48,
                "P-521" => 66,
                _ => return Err("its `crv` is not supported".to_owned()),
            };
            json!({ "kty": "EC", "crv": curve, "x": point("x", length)?, "y": point("y", length)? })
        }
        ("OKP", Some("X25519")) => {
            json!({ "kty": "OKP", "crv": "X25519", "x": jwk::octets(jwk, "x", 32).map(spelled)? })
        }
        _ => return Err("its `kty` or `crv` is not supported".to_owned()),
    };
    match parameters {
        Value::Object(parameters) => Ok(parameters),
        _ => Err("it is not a JSON object".to_owned()),
    }
}
