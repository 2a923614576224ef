//! Recognises an interim ID Token if it is repeated as the final one.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::jose::sha256;
use crate::json::Object;

/// Hashes of an interim ID Token and of its `jti`. They are kept until the sign-in ends, whether the token was
/// verified, rejected or cannot be verified yet. The OP may not have verified its claims, so it must never become the
/// final token. The token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterimFingerprint {
    /// Of what the token says, and of what the signed token inside says where it came encrypted. Of every one where
    /// several came.
    #[serde(rename = "t")]
    tokens: Vec<String>,
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

impl InterimFingerprint {
    /// Of a token as it came.
    pub(crate) fn new(token: &str) -> Self {
        let spelled = Spelled::of(token);
        Self { tokens: vec![spelled.hash()], jti: spelled.jti().as_ref().and_then(hash_of_jti) }
    }

    /// Adds the decrypted content, or another token of the same response.
    pub(crate) fn add(&mut self, token: &str) {
        let spelled = Spelled::of(token);
        let hash = spelled.hash();
        if !self.tokens.contains(&hash) {
            self.tokens.push(hash);
            self.jti = spelled.jti().as_ref().and_then(hash_of_jti).or(self.jti.take());
        }
    }

    /// Whether this is that token, as it came or decrypted.
    pub(crate) fn is_of(&self, token: &str) -> bool {
        self.tokens.contains(&Spelled::of(token).hash())
    }

    /// Whether that token had this `jti`.
    pub(super) fn has_jti(&self, jti: Option<&Value>) -> bool {
        self.jti.is_some() && self.jti == jti.and_then(hash_of_jti)
    }
}

/// The content of a token, independent of its encoding. A token that is rejected for white space, padding, or the wrong
/// base64 alphabet is still the same token, whose claims may be repeated in a valid encoding.
struct Spelled {
    /// The claims of a signed token.
    payload: Option<Zeroizing<Vec<u8>>>,
    /// All that is authenticated, for an encrypted token and for what is no token.
    authenticated: Zeroizing<String>,
}

/// Takes last digits with bits that do not count.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

impl Spelled {
    fn of(token: &str) -> Self {
        let digit = |character| match character {
            '+' => Some('-'),
            '/' => Some('_'),
            '.' | '-' | '_' => Some(character),
            _ => Some(character).filter(char::is_ascii_alphanumeric),
        };
        // With all of its capacity from the start, because a text that moves leaves what it held behind.
        let mut digits = Zeroizing::new(String::with_capacity(token.len()));
        digits.extend(token.chars().filter_map(digit));
        let segments: Vec<_> = digits.split('.').filter(|segment| !segment.is_empty()).collect();
        // The first segment is the header. Those behind it are no JSON where the token is encrypted.
        let decoded = segments.iter().skip(1).filter_map(|segment| LENIENT.decode(segment).ok().map(Zeroizing::new));
        let payload = decoded.into_iter().find(|decoded| decoded.trim_ascii_start().starts_with(b"{"));
        // Without the signature, because there can be more than one over the same claims: from one ECDSA
        // signature anyone can compute a second valid one.
        let authenticated = segments.split_last().map_or_else(String::new, |(last, others)| match others {
            [] => (*last).to_owned(),
            others => others.join("."),
        });
        Self { payload, authenticated: Zeroizing::new(authenticated) }
    }

    fn hash(&self) -> String {
        let said = self.payload.as_ref().map_or(self.authenticated.as_bytes(), |payload| payload);
        URL_SAFE_NO_PAD.encode(sha256(said))
    }

    /// Nothing is verified: what a rejected token calls itself counts too.
    fn jti(&self) -> Option<Value> {
        Object::parse(self.payload.as_ref()?).ok()?.members().get("jti").cloned()
    }
}

/// RFC 7519 §4.1.7: a string. Numbers occur. Anything else, and an empty string, identifies no token.
fn hash_of_jti(jti: &Value) -> Option<String> {
    let text = match jti {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(URL_SAFE_NO_PAD.encode(sha256(text.as_bytes())))
}
