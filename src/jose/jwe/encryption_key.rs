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
/// Encrypting is left to josekit, which is sound there: it chooses every length itself, and what it makes is decrypted
/// by this crate, by the test provider's other library and by `oidc-provider`. It sees nothing of the OP's JWK but
/// canonical parameters.
pub(crate) struct EncryptionKey {
    kid: Option<String>,
    /// The one algorithm that the key is for, where it says so.
    algorithm: Option<KeyManagementAlgorithm>,
    is_rsa: bool,
    jwk: Jwk,
}

impl EncryptionKey {
    /// The key in a JWK.
    ///
    /// # Errors
    ///
    /// Why nothing can be encrypted for it: it is for something else, of an unknown kind, malformed, weak, or so large
    /// that it would be a burden.
    pub(in crate::jose) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, String> {
        const ALGORITHM: &str = "its `alg` is not a supported encryption algorithm for this key type";
        KeyUse::Encrypt.check(jwk)?;
        let algorithm = match jwk::text(jwk, "alg")? {
            Some(name) => Some(KeyManagementAlgorithm::from_name(name).ok_or(ALGORITHM)?),
            None => None,
        };
        // A key that does not say what it is for may be one for signatures, unless its algorithm says it.
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
        // Only OpenSSL knows whether a point is on its curve.
        let any = if is_rsa { KeyManagementAlgorithm::RsaOaep256 } else { KeyManagementAlgorithm::EcdhEs };
        match key.encrypter(any) {
            Some(_) => Ok(key),
            None => Err(malformed()),
        }
    }

    /// Whether something can be encrypted for this key with that algorithm.
    pub(crate) fn supports(&self, algorithm: KeyManagementAlgorithm) -> bool {
        self.is_rsa == algorithm.is_rsa() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Encrypts a signed token: a nested JWT (RFC 7519 §5.2 and §11.2).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cryptography`] where josekit or OpenSSL refuse, or where the key is for another algorithm.
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

/// The public parameters, spelled canonically and measured. This is the guard in front of josekit.
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
