//! The claims that every check needs, and the token of these alone that `openidconnect` judges.
//!
//! Only a claim that a check needs can make a token invalid. All others are data: whatever type they have, the application
//! gets them as they are.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::expectations::Expectations;
use super::numeric_date::numeric_date;
use super::violation::{at, violation};
use crate::error::{Rule, Violation};
use crate::jose::Header;

/// OpenID Connect Core 1.0 §2: `sub` "MUST NOT exceed 255 ASCII characters in length". Other characters occur, so
/// characters are counted and not bytes.
const SUBJECT_LIMIT: usize = 255;

/// The claims that decide, each of the type that it must have.
#[derive(Serialize)]
pub(super) struct ProtocolClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a Value,
    pub(super) exp: u64,
    pub(super) iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip)]
    pub(super) auth_time: Option<u64>,
}

/// The header parameters that decide. The key is chosen beforehand, so its `kid` is not among them.
#[derive(Serialize)]
struct ProtocolHeader<'a> {
    alg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cty: Option<&'a str>,
}

impl<'a> ProtocolClaims<'a> {
    /// Takes them out of all claims, so that one that is missing or malformed is reported by its name.
    pub(super) fn of(members: &'a Map<String, Value>, e: &Expectations<'_>) -> Result<Self, Violation> {
        // OpenID Connect Core 1.0 §3.1.3.7, 2: "The Issuer Identifier for the OpenID Provider [...] MUST exactly match
        // the value of the iss (issuer) Claim."
        let iss = members.get("iss").and_then(Value::as_str).filter(|issuer| *issuer == e.issuer);
        let sub = members.get("sub").and_then(Value::as_str);
        let sub = sub.filter(|subject| (1..=SUBJECT_LIMIT).contains(&subject.chars().count()));
        let aud = members.get("aud").filter(|audience| match audience {
            Value::String(_) => true,
            Value::Array(audiences) => audiences.iter().all(Value::is_string),
            _ => false,
        });
        let time = |name: &str| members.get(name).and_then(numeric_date);
        let claims = Self {
            iss: iss.ok_or_else(|| at(Rule::IdTokenIssuer, "iss"))?,
            sub: sub.ok_or_else(|| at(Rule::IdTokenSubject, "sub"))?,
            aud: aud.ok_or_else(|| at(Rule::IdTokenAudience, "aud"))?,
            exp: time("exp").ok_or_else(|| at(Rule::IdTokenExpired, "exp"))?,
            iat: time("iat").ok_or_else(|| at(Rule::IdTokenIssuedAt, "iat"))?,
            nonce: members.get("nonce").and_then(Value::as_str),
            auth_time: time("auth_time"),
        };
        for (name, rule, is_checked) in [
            ("nonce", Rule::IdTokenNonce, e.nonce.is_some()),
            ("azp", Rule::IdTokenAuthorizedParty, true),
            ("at_hash", Rule::IdTokenAccessTokenHash, e.access_token.is_some()),
            ("c_hash", Rule::IdTokenCodeHash, e.code.is_some()),
        ] {
            if is_checked && !matches!(members.get(name), None | Some(Value::Null | Value::String(_))) {
                return Err(at(rule, name));
            }
        }
        Ok(claims)
    }

    /// A token of these claims in the form that `openidconnect` reads, with the signature that the whole token has. It
    /// is for a [`KeyOfToken`](crate::jose::KeyOfToken), which verifies that signature over the whole token.
    pub(super) fn reduced_token(&self, header: &Header, signature: &[u8]) -> Result<String, Violation> {
        let header = ProtocolHeader { alg: &header.alg, typ: header.typ.as_deref(), cty: header.cty.as_deref() };
        let (header, claims) = serde_json::to_vec(&header)
            .and_then(|header| Ok((header, serde_json::to_vec(self)?)))
            .map_err(|_| violation(Rule::IdTokenClaims))?;
        let mut token = String::with_capacity(2 * (header.len() + claims.len() + signature.len()));
        for (number, part) in [header.as_slice(), claims.as_slice(), signature].into_iter().enumerate() {
            if number > 0 {
                token.push('.');
            }
            URL_SAFE_NO_PAD.encode_string(part, &mut token);
        }
        Ok(token)
    }
}
