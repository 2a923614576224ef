//! Substitutes for values that JSON's grammar allows but that cannot be represented.
//!
//! RFC 8259 §8.2: the grammar "allows member names and string values to contain bit sequences that cannot encode
//! Unicode characters; for example, "\uDEAD" (a single unpaired UTF-16 surrogate)". Servers that count in UTF-16 units
//! send one if they truncate a text in the middle of an emoji. §6 does not limit numbers, and this crate reads those
//! that a double can represent.

use serde::de::IgnoredAny;
use serde_json::Value;
use zeroize::Zeroizing;

/// The substitutes. A substitute is never longer than the original, so all positions stay the same.
pub(super) struct Substitutes {
    /// For an unpaired surrogate: the four digits of another escape.
    pub(super) surrogate: [u8; 4],
    /// For a number out of range: a literal.
    pub(super) number: [u8; 4],
}

/// The length of `\uXXXX`.
const ESCAPE: usize = 6;

/// Returns the text with substitutes, in one pass; `None` if it needs none. Other bytes do not change, even if the text
/// is not JSON.
pub(super) fn repaired(json: &[u8], substitutes: &Substitutes) -> Option<Zeroizing<Vec<u8>>> {
    let mut repaired = None;
    let mut substitute = |at: usize, length: usize, by: &[u8]| {
        let text = repaired.get_or_insert_with(|| Zeroizing::new(json.to_vec()));
        let place = text.get_mut(at..at.saturating_add(length)).unwrap_or_default();
        let padded = by.iter().copied().chain(std::iter::repeat(b' '));
        place.iter_mut().zip(padded).for_each(|(byte, new)| *byte = new);
    };
    let (mut at, mut in_string) = (0, false);
    while let Some((&byte, rest)) = json.get(at..).and_then(<[u8]>::split_first) {
        at += match byte {
            b'"' => {
                in_string = !in_string;
                1
            }
            b'\\' if in_string => match (escaped(json, at), escaped(json, at + ESCAPE)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 2 * ESCAPE,
                (Some(0xd800..=0xdfff), _) => {
                    substitute(at + 2, 4, &substitutes.surrogate);
                    ESCAPE
                }
                _ => 2,
            },
            b'-' | b'0'..=b'9' if !in_string => {
                let length = 1 + rest.iter().take_while(|byte| is_of_number(**byte)).count();
                if json.get(at..at + length).is_some_and(is_out_of_range) {
                    substitute(at, length, &substitutes.number);
                }
                length
            }
            _ => 1,
        };
    }
    repaired
}

/// The UTF-16 code unit that is escaped at this position, if there is one.
fn escaped(json: &[u8], at: usize) -> Option<u32> {
    let digits = json.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether this is a number by the grammar, and only its size is the problem.
fn is_out_of_range(number: &[u8]) -> bool {
    serde_json::from_slice::<Value>(number).is_err() && serde_json::from_slice::<IgnoredAny>(number).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair(json: &str) -> Option<String> {
        let repaired = repaired(json.as_bytes(), &Substitutes { surrogate: *b"fffd", number: *b"null" })?;
        Some(String::from_utf8(repaired.to_vec()).unwrap())
    }

    #[test]
    fn unpaired_surrogates_and_numbers_out_of_range_are_substituted() {
        for (json, expected) in [
            (r#"{"a":"Jo \ud83d"}"#, r#"{"a":"Jo \ufffd"}"#),
            (r#"{"\uDFFF":"\uD800\uD83D\uDE00\uDE00"}"#, r#"{"\ufffd":"\ufffd\uD83D\uDE00\ufffd"}"#),
            (r#"["\ud83d\n","\ud83d\\ude00"]"#, r#"["\ufffd\n","\ufffd\\ude00"]"#),
            ("[1e400,-1E+999,1]", "[null ,null   ,1]"),
            (r#"{"a":9e999}"#, r#"{"a":null }"#),
        ] {
            assert_eq!(repair(json).as_deref(), Some(expected), "{json}");
        }
        let digits = "9".repeat(400);
        assert_eq!(repair(&digits).unwrap().trim_end(), "null");
    }

    #[test]
    fn all_other_values_stay_unchanged() {
        for json in [
            r#"{"a":"\ud83d\ude00","b":"\\ud83d","c":"1e400","d":1e308,"e":-1e-400}"#,
            r#""\ud83""#,
            r#""\"#,
            r#""\u"#,
            r"\ud83d",
            "01e400",
            "1e400e",
            "1.e400",
            "-",
            "",
        ] {
            assert_eq!(repair(json), None, "{json}");
        }
    }

    proptest::proptest! {
        #[test]
        fn readable_json_is_not_changed(text: String, number: f64) {
            let json = serde_json::json!({ text.as_str(): [text.as_str(), number] }).to_string();
            proptest::prop_assert_eq!(repair(&json), None);
        }

        #[test]
        fn a_repair_keeps_the_length(json in r#"([{}\[\]:,"\\]|\\ud[89a-f]..|[0-9e]{1,6}){0,20}"#) {
            proptest::prop_assert!(repair(&json).is_none_or(|repaired| repaired.len() == json.len()));
        }
    }
}
