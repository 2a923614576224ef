//! Keys and signatures of the test provider, all made with `jsonwebtoken`, a library that the crate itself does not
//! use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, aws_lc};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Map, Value, json};

/// Set explicitly, so that another crate's features cannot leave `jsonwebtoken` without a provider.
const CRYPTO: &CryptoProvider = &aws_lc::DEFAULT_PROVIDER;

/// A key pair of the provider, or a secret that it shares with a client.
#[derive(Clone)]
pub(super) struct ProviderKey {
    /// Empty for a secret.
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) published: bool,
    private: EncodingKey,
    public: Map<String, Value>,
    public_pem: String,
}

impl ProviderKey {
    pub(super) fn generate(algorithm: Algorithm, kid: String) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = rcgen::KeyPair::generate_for(kind).expect("aws-lc generates keys of these kinds");
        let private = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(pair.serialized_der()),
            Algorithm::EdDSA => EncodingKey::from_ed_der(pair.serialized_der()),
            // This function parses PKCS#8; `from_rsa_der` needs PKCS#1.
            _ => EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("the key is an RSA key"),
        };
        let mut public = public_members(algorithm, &pair, &private);
        public.insert("kid".into(), json!(kid));
        public.insert("use".into(), json!("sig"));
        public.insert("alg".into(), json!(name(algorithm)));
        Self { kid, algorithm, published: true, private, public, public_pem: pair.public_key_pem() }
    }

    /// A client secret as the key of an HMAC. It is never published.
    pub(super) fn of_secret(algorithm: Algorithm, secret: &str) -> Self {
        let private = EncodingKey::from_secret(secret.as_bytes());
        let (kid, public, public_pem) = (String::new(), Map::new(), String::new());
        Self { kid, algorithm, published: false, private, public, public_pem }
    }

    /// Another party's key of the same kind under the same `kid`.
    pub(super) fn foreign(&self) -> Self {
        match self.kid.is_empty() {
            true => Self::of_secret(self.algorithm, "the secret of somebody else, which is as long as one has to be"),
            false => Self::generate(self.algorithm, self.kid.clone()),
        }
    }

    /// The header of tokens that this key signs.
    pub(super) fn header(&self) -> Value {
        let mut header = json!({ "alg": name(self.algorithm) });
        if !self.kid.is_empty() {
            header["kid"] = json!(self.kid);
        }
        header
    }

    pub(super) fn public_jwk(&self) -> Value {
        Value::Object(self.public.clone())
    }

    /// The HMAC key of an attacker in an algorithm confusion.
    pub(super) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// Signs a JWT with this key. The header is not changed, including its `alg`.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(header, &claims.to_string())
    }

    /// The same with claims that are already JSON.
    pub(super) fn sign_text(&self, header: &Value, claims: &str) -> String {
        sign(self.algorithm, &self.private, header, claims)
    }
}

/// The members of the public JWK that are the key material.
fn public_members(algorithm: Algorithm, pair: &rcgen::KeyPair, private: &EncodingKey) -> Map<String, Value> {
    let raw = pair.public_key_raw();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let members = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => {
            // An uncompressed point: 4, then both coordinates.
            let (x, y) = raw[1..].split_at(raw.len() / 2);
            let curve = if algorithm == Algorithm::ES256 { "P-256" } else { "P-384" };
            json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
        }
        Algorithm::EdDSA => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(raw) }),
        _ => {
            let components = CRYPTO.key_utils.rsa_pub_components_from_private_key;
            let (n, e) = components(private.as_bytes()).expect("the key is an RSA key");
            json!({ "kty": "RSA", "n": text(&n), "e": text(&e) })
        }
    };
    let Value::Object(members) = members else { unreachable!("the members are an object") };
    members
}

/// Signs a JWT with a shared secret.
pub(super) fn sign_with_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(secret), header, &claims.to_string())
}

/// Makes a JWT with an empty signature, as for `alg: none`.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}.", segment(header), segment(claims))
}

fn sign(algorithm: Algorithm, key: &EncodingKey, header: &Value, claims: &str) -> String {
    let message = format!("{}.{}", segment(header), URL_SAFE_NO_PAD.encode(claims));
    let signer = (CRYPTO.signer_factory)(&algorithm, key).expect("the key fits its algorithm");
    let signature = jsonwebtoken::signature::Signer::try_sign(&*signer, message.as_bytes()).expect("the key signs");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn segment(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A parsed JWT, whose signature is not yet verified.
pub(super) struct Jwt<'a> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let object =
            |segment: &str| serde_json::from_slice::<Map<String, Value>>(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok();
        let (header, claims) = (object(header)?, object(claims)?);
        if header.contains_key("crit") {
            // RFC 7515 §4.1.11: no listed extension is supported here.
            return None;
        }
        Some(Self { header, claims, message, signature: URL_SAFE_NO_PAD.decode(signature).ok()? })
    }

    /// The signature algorithm, if it is an asymmetric one that the provider supports.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        let name = self.header.get("alg")?.as_str()?;
        let algorithm: Algorithm = name.parse().ok()?;
        (!name.starts_with("HS")).then_some(algorithm)
    }

    /// Whether this key made the signature and may be used for it: its algorithm, use and `kid` must be the registered
    /// ones (RFC 7517 §4).
    pub(super) fn verifies(&self, jwk: &Value) -> bool {
        let Some(algorithm) = self.algorithm() else { return false };
        let same = |left: Option<&Value>, right: Option<&Value>| left.is_none() || right.is_none() || left == right;
        let is_meant = same(jwk.get("alg"), self.header.get("alg"))
            && same(jwk.get("kid"), self.header.get("kid"))
            && same(jwk.get("use"), Some(&json!("sig")));
        if !is_meant {
            return false;
        }
        let Some(key) = serde_json::from_value::<Jwk>(jwk.clone()).ok() else { return false };
        let Ok(key) = DecodingKey::from_jwk(&key) else { return false };
        let Ok(verifier) = (CRYPTO.verifier_factory)(&algorithm, &key) else { return false };
        let message = self.message.as_bytes();
        jsonwebtoken::signature::Verifier::verify(&*verifier, message, &self.signature).is_ok()
    }

    /// Whether the signature is an HMAC by this secret. "A key of the same size as the hash output [...] or larger MUST
    /// be used with this algorithm" (RFC 7518 §3.2).
    pub(super) fn verifies_with_secret(&self, secret: &[u8]) -> bool {
        let name = self.header.get("alg").and_then(Value::as_str).unwrap_or_default();
        let (algorithm, length) = match name {
            "HS256" => (Algorithm::HS256, 32),
            "HS384" => (Algorithm::HS384, 48),
            "HS512" => (Algorithm::HS512, 64),
            _ => return false,
        };
        if secret.len() < length {
            return false;
        }
        let key = DecodingKey::from_secret(secret);
        let Ok(verifier) = (CRYPTO.verifier_factory)(&algorithm, &key) else { return false };
        let message = self.message.as_bytes();
        jsonwebtoken::signature::Verifier::verify(&*verifier, message, &self.signature).is_ok()
    }

    pub(super) fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }
}

/// Whether a JWK has members of a private or symmetric key (RFC 7518 §6).
pub(super) fn is_private(jwk: &Value) -> bool {
    ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|member| jwk.get(member).is_some())
}

/// The RFC 7638 thumbprint of a public key.
pub(super) fn thumbprint(jwk: &Value) -> Option<String> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let canonical = match member("kty")? {
        "EC" => json!({"crv": member("crv")?, "kty": "EC", "x": member("x")?, "y": member("y")?}),
        "OKP" => json!({"crv": member("crv")?, "kty": "OKP", "x": member("x")?}),
        "RSA" => json!({"e": member("e")?, "kty": "RSA", "n": member("n")?}),
        _ => return None,
    };
    // The members above are in alphabetical order, and `serde_json` keeps it in either configuration.
    Some(sha256(canonical.to_string().as_bytes()))
}

/// The thumbprint of a JWK, for tests that compare it with `dpop_jkt`.
///
/// ```
/// let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
/// let thumbprint = openid_deferred::testing::jwk_thumbprint(jwk).unwrap();
/// assert_eq!(thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
/// ```
pub fn jwk_thumbprint(jwk: &str) -> Option<String> {
    thumbprint(&serde_json::from_str(jwk).ok()?)
}

/// SHA-256 as unpadded base64url.
pub(super) fn sha256(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(data, ThumbprintHash::SHA256))
}

/// The left half of an algorithm's hash, for `at_hash` and `c_hash` (OpenID Connect Core §3.1.3.6).
pub(super) fn half_hash(algorithm: Algorithm, data: &str) -> String {
    let hash = match algorithm {
        Algorithm::ES384 | Algorithm::RS384 | Algorithm::PS384 | Algorithm::HS384 => ThumbprintHash::SHA384,
        Algorithm::EdDSA | Algorithm::RS512 | Algorithm::PS512 | Algorithm::HS512 => ThumbprintHash::SHA512,
        _ => ThumbprintHash::SHA256,
    };
    let digest = digest(data.as_bytes(), hash);
    URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2])
}

fn digest(data: &[u8], hash: ThumbprintHash) -> Vec<u8> {
    (CRYPTO.key_utils.compute_digest)(data, hash).expect("aws-lc has the SHA-2 family")
}

/// The name of an algorithm in `alg`.
pub(super) fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_signs_verifies_with_its_public_key_and_with_no_other() {
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::PS256, Algorithm::RS256] {
            let (key, other) =
                (ProviderKey::generate(algorithm, "1".into()), ProviderKey::generate(algorithm, "2".into()));
            let token = key.sign(&json!({"alg": name(algorithm)}), &json!({"sub": "a"}));
            let jwt = Jwt::parse(&token).unwrap();
            assert!(jwt.verifies(&key.public_jwk()));
            assert!(!jwt.verifies(&other.public_jwk()));
        }
    }

    #[test]
    fn the_thumbprint_is_the_one_of_rfc_7638() {
        let jwk = json!({"kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"});
        assert_eq!(thumbprint(&jwk).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
