//! DPoP proofs (RFC 9449 §4.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use url::{Position, Url};

use crate::error::{Error, ErrorKind};
use crate::jose::{KeyPair, SigningAlgorithm, sha256};

/// What a proof says about one request.
pub(crate) struct ProofParts<'a> {
    /// `htm`, the method of the request.
    pub(crate) method: &'a http::Method,
    /// Where `htu` comes from: the URL of the request, as it is sent.
    pub(crate) url: &'a Url,
    /// `iat`, in seconds since 1970, by the clock that the server is believed to have.
    pub(crate) issued_at: u64,
    /// `jti`, never used before.
    pub(crate) id: &'a str,
    /// `nonce`, if this server has given one.
    pub(crate) nonce: Option<&'a str>,
    /// The access token that goes with the request, of which `ath` is the hash.
    pub(crate) access_token: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

/// An RSA signature of 256 bytes in base64url, and the two dots.
const LONGEST_SIGNATURE: usize = 344;

/// The encoded header, which is the same for all proofs of one key.
pub(super) fn header(algorithm: SigningAlgorithm, public_jwk: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"dpop+jwt","alg":"{}","jwk":{public_jwk}}}"#, algorithm.as_str()))
}

/// Puts the claims behind the header and signs both.
pub(super) fn sign(key: &KeyPair, header: &str, parts: &ProofParts<'_>) -> Result<String, Error> {
    let claims = Claims {
        jti: parts.id,
        htm: parts.method.as_str(),
        htu: &target(parts.url),
        iat: parts.issued_at,
        // RFC 9449 §4.2: "the base64url encoding of the SHA-256 hash of the ASCII encoding of the associated access
        // token's value".
        ath: parts.access_token.map(|token| URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()))),
        nonce: parts.nonce,
    };
    let claims = serde_json::to_vec(&claims).map_err(|error| Error::new(ErrorKind::Cryptography).with_source(error))?;
    let mut proof = String::with_capacity(header.len() + 2 * claims.len() + LONGEST_SIGNATURE);
    proof.push_str(header);
    proof.push('.');
    URL_SAFE_NO_PAD.encode_string(&claims, &mut proof);
    let signature = key.sign(proof.as_bytes())?;
    proof.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut proof);
    Ok(proof)
}

/// RFC 9449 §4.2: `htu` is "the HTTP target URI of the request to which the JWT is attached, without query and
/// fragment parts". A user name or password in the URL becomes a header of the request and is no part of its target.
fn target(url: &Url) -> String {
    [&url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPath]].concat()
}
