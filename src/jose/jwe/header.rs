//! The header of an encrypted token (RFC 7516 §4), parsed before any key is used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Undecryptable;
use super::algorithm::{ContentEncryptionAlgorithm, KeyManagementAlgorithm};
use super::ephemeral_key::{Agreement, Curve, EphemeralKey};
use crate::jose::jwk;
use crate::json::{Flaw, Object};

/// The header parameters that this crate uses. Keys in the header (`jwk`, `jku`, `x5u`, `x5c`) are ignored.
pub(super) struct Header {
    pub(super) alg: KeyManagementAlgorithm,
    pub(super) enc: ContentEncryptionAlgorithm,
    pub(super) kid: Option<String>,
    pub(super) cty: Option<String>,
    /// Present if and only if the algorithm uses key agreement.
    pub(super) agreement: Option<Agreement>,
}

/// Parameters that no token may have here. `zip` can make a small token huge. No `crit` parameter is supported (RFC
/// 7516 §4.1.13). The others let a sender choose how long the derivation of a key from a password takes.
const REFUSED: [&str; 4] = ["zip", "crit", "p2c", "p2s"];

/// All parameters that are read.
const PARAMETERS: [&str; 11] = ["alg", "enc", "kid", "cty", "epk", "apu", "apv", "zip", "crit", "p2c", "p2s"];

/// The longest `apu` or `apv` in bytes. They contain names and nonces, which are hashed.
const PARTY_LIMIT: usize = 1024;

impl Header {
    pub(super) fn parse(json: &[u8]) -> Result<Self, Undecryptable> {
        let object = Object::parse(json).map_err(|_| Undecryptable::Malformed)?;
        let members = object.needing(&PARAMETERS).map_err(|flaw| match flaw {
            Flaw::Repeated(parameter) => Undecryptable::Repeated(parameter),
            Flaw::Unclear(_) => Undecryptable::Malformed,
        })?;
        // `null` counts as absent.
        if REFUSED.iter().any(|&name| members.get(name).is_some_and(|value| !value.is_null())) {
            return Err(Undecryptable::Header);
        }
        let alg = text(&members, "alg")?.and_then(KeyManagementAlgorithm::from_name).ok_or(Undecryptable::Header)?;
        let enc = text(&members, "enc")?.and_then(ContentEncryptionAlgorithm::from_name);
        Ok(Self {
            alg,
            enc: enc.ok_or(Undecryptable::Header)?,
            kid: text(&members, "kid")?.map(str::to_owned),
            cty: text(&members, "cty")?.map(str::to_owned),
            agreement: if alg.is_rsa() { None } else { Some(agreement(&members)?) },
        })
    }
}

/// RFC 7518 §4.6.1.
fn agreement(members: &Map<String, Value>) -> Result<Agreement, Undecryptable> {
    let key = members.get("epk").and_then(Value::as_object).ok_or(Undecryptable::Header)?;
    let party = |name| match text(members, name)? {
        None => Ok(Vec::new()),
        Some(text) => octets(text, PARTY_LIMIT),
    };
    Ok(Agreement { ephemeral: ephemeral_key(key)?, apu: party("apu")?, apv: party("apv")? })
}

fn ephemeral_key(jwk: &Map<String, Value>) -> Result<EphemeralKey, Undecryptable> {
    let curve = match (text(jwk, "kty")?, text(jwk, "crv")?) {
        (Some("EC"), Some("P-256")) => Curve::P256,
        (Some("EC"), Some("P-384")) => Curve::P384,
        (Some("EC"), Some("P-521")) => Curve::P521,
        (Some("OKP"), Some("X25519")) => Curve::X25519,
        _ => return Err(Undecryptable::Header),
    };
    let read = if curve == Curve::X25519 { jwk::octets } else { jwk::coordinate };
    let coordinate = |name| read(jwk, name, curve.width()).map_err(|_| Undecryptable::Header);
    let y = if curve == Curve::X25519 { Vec::new() } else { coordinate("y")? };
    Ok(EphemeralKey { curve, x: coordinate("x")?, y })
}

/// `null` and empty texts count as absent, as in the header of a signed token.
fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Undecryptable> {
    let value = members.get(name).filter(|value| !value.is_null());
    let text = value.map(|value| value.as_str().ok_or(Undecryptable::Header)).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

fn octets(text: &str, limit: usize) -> Result<Vec<u8>, Undecryptable> {
    let octets = URL_SAFE_NO_PAD.decode(text).map_err(|_| Undecryptable::Header)?;
    if octets.len() <= limit { Ok(octets) } else { Err(Undecryptable::Header) }
}
