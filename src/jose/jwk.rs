//! Reads the members of a public JWK (RFC 7517 §4, RFC 7518 §6) in any encoding with only one possible meaning.
//!
//! OPs write `null` or nothing for unset members, pad their base64 or use its standard alphabet, and omit or add
//! leading zeros of numbers. The key stays the same, so none of this is a reason to refuse it.

use std::error::Error as StdError;
use std::fmt;

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use serde_json::{Map, Value};

/// The permitted sizes of RSA moduli: large enough to be secure, and small enough to limit the cost.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const RSA_EXPONENT_BITS: u32 = 33;
/// The most surplus leading zero bytes of a coordinate.
const SPARE_ZEROS: usize = 8;
/// The longest `kid` in logs, in characters. The rest is cut off.
const SHOWN_KEY_ID: usize = 64;

/// The URL-safe alphabet, with or without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key of an OP that cannot be used, and why. It contains no part of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(super) key_id: Option<String>,
    pub(super) reason: String,
}

impl LeftOut {
    pub(super) fn new(jwk: &Map<String, Value>, reason: String) -> Self {
        let key_id = jwk.get("kid").and_then(Value::as_str);
        Self { key_id: key_id.map(|key_id| key_id.chars().take(SHOWN_KEY_ID).collect()), reason }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key_id {
            Some(key_id) => write!(formatter, "the key with the `kid` {key_id:?} is skipped: {}", self.reason),
            None => write!(formatter, "a key without `kid` is skipped: {}", self.reason),
        }
    }
}

impl StdError for LeftOut {}

/// An optional text. `null` and an empty text count as absent.
pub(super) fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("its `{name}` is not a string")),
    }
}

/// The modulus of an RSA key without leading zeros.
pub(super) fn rsa_modulus(jwk: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let modulus = number(jwk, "n", RSA_BITS.end() / 8 + 1)?;
    let leading_zeros = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    let is_odd = modulus.last().is_some_and(|last| last & 1 == 1);
    match is_odd && RSA_BITS.contains(&(modulus.len() * 8).saturating_sub(leading_zeros)) {
        true => Ok(modulus),
        false => Err("its `n` is not an odd number of 2048 to 8192 bits".to_owned()),
    }
}

/// The public exponent of an RSA key without leading zeros.
pub(super) fn rsa_exponent(jwk: &Map<String, Value>) -> Result<Vec<u8>, String> {
    let exponent = number(jwk, "e", 8)?;
    let value = exponent.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    let bits = u64::BITS - value.leading_zeros();
    match value > 2 && value & 1 == 1 && bits <= RSA_EXPONENT_BITS {
        true => Ok(exponent),
        false => Err("its `e` is not an odd number above 2 of at most 33 bits".to_owned()),
    }
}

/// A coordinate on a curve of this many bytes, at its full length (RFC 7518 §6.2.1.2). It is a number, so leading zeros
/// do not matter.
pub(super) fn coordinate(jwk: &Map<String, Value>, name: &str, length: usize) -> Result<Vec<u8>, String> {
    let number = number(jwk, name, length + SPARE_ZEROS)?;
    match length.checked_sub(number.len()) {
        Some(zeros) => Ok([vec![0; zeros], number].concat()),
        None => Err(format!("its `{name}` is too large for its curve")),
    }
}

/// The public key of RFC 8037 §2: a string of this many bytes, which is not a number.
pub(super) fn octets(jwk: &Map<String, Value>, name: &str, length: usize) -> Result<Vec<u8>, String> {
    let octets = binary(jwk, name, length)?;
    if octets.len() == length { Ok(octets) } else { Err(format!("its `{name}` does not have {length} bytes")) }
}

/// A `Base64urlUInt` (RFC 7518 §2) of at most `limit` bytes, without leading zeros.
fn number(jwk: &Map<String, Value>, name: &str, limit: usize) -> Result<Vec<u8>, String> {
    let bytes = binary(jwk, name, limit)?;
    Ok(bytes.into_iter().skip_while(|&byte| byte == 0).collect())
}

fn binary(jwk: &Map<String, Value>, name: &str, limit: usize) -> Result<Vec<u8>, String> {
    let text = text(jwk, name)?.ok_or_else(|| format!("it has no `{name}`"))?;
    let too_long = || format!("its `{name}` has more than {limit} bytes");
    // Limit the length before decoding, because a key set may contain a hundred oversized keys. The exact length is
    // checked afterwards.
    if text.len() > limit.div_ceil(3) * 4 {
        return Err(too_long());
    }
    let url_safe = text.replace('+', "-").replace('/', "_");
    let bytes = BASE64URL.decode(url_safe).map_err(|_| format!("its `{name}` is not base64url"))?;
    if bytes.len() <= limit { Ok(bytes) } else { Err(too_long()) }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    fn with(value: Value) -> Map<String, Value> {
        Map::from_iter([("x".to_owned(), value)])
    }

    #[test]
    fn bytes_are_read_in_either_alphabet_with_and_without_padding() {
        // Both characters that differ between the alphabets, and an end that needs padding.
        let bytes = [0xfb, 0xff, 0xbf, 0x3e, 0xff];
        for text in [
            URL_SAFE_NO_PAD.encode(bytes),
            URL_SAFE.encode(bytes),
            STANDARD.encode(bytes),
            STANDARD_NO_PAD.encode(bytes),
        ] {
            assert_eq!(octets(&with(json!(text)), "x", 5).unwrap(), bytes, "{text}");
        }
        for text in ["-_-", "-_-_P", "-_ -_", "-_-_Pv8=A", "=", "-_-_Pv9"] {
            assert!(octets(&with(json!(text)), "x", 5).is_err(), "{text}");
        }
    }

    #[test]
    fn leading_zeros_of_a_coordinate_do_not_matter() {
        let written = |bytes: &[u8]| coordinate(&with(json!(URL_SAFE_NO_PAD.encode(bytes))), "x", 4);
        for bytes in [&[1, 2, 3][..], &[0, 1, 2, 3], &[0, 0, 1, 2, 3], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]] {
            assert_eq!(written(bytes).unwrap(), [0, 1, 2, 3], "{bytes:?}");
        }
        assert_eq!(written(&[0; 12]).unwrap(), [0; 4]);
        assert!(written(&[1, 2, 3, 4, 5]).unwrap_err().contains("`x`"));
        assert!(written(&[0; 13]).unwrap_err().contains("`x`"));
        // A key of RFC 8037 is not a number.
        assert!(octets(&with(json!(URL_SAFE_NO_PAD.encode([0, 1, 2, 3, 4]))), "x", 4).is_err());
        assert!(octets(&with(json!(URL_SAFE_NO_PAD.encode([1, 2, 3]))), "x", 4).is_err());
    }

    #[test]
    fn null_and_empty_texts_are_absent_and_other_types_are_named() {
        for value in [json!(null), json!("")] {
            assert_eq!(text(&with(value), "x"), Ok(None));
        }
        assert_eq!(text(&Map::new(), "x"), Ok(None));
        assert!(text(&with(json!(7)), "x").unwrap_err().contains("`x`"));
        assert!(octets(&Map::new(), "x", 4).unwrap_err().contains("no `x`"));
    }

    #[test]
    fn a_key_that_is_left_out_is_named_in_a_short_line_of_printable_characters() {
        let jwk = Map::from_iter([("kid".to_owned(), json!(format!("a\n\u{1b}{}", "b".repeat(1_000))))]);
        let shown = LeftOut::new(&jwk, "its `x` is not base64url".to_owned()).to_string();
        assert!(shown.len() < 200 && !shown.chars().any(char::is_control) && shown.contains("`x`"), "{shown}");
    }
}
