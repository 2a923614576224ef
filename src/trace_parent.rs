//! The trace that a sign-in belongs to (W3C Trace Context).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The value of a header `traceparent` of version 00 (W3C Trace Context §3.2): 55 characters.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct TraceParent(String);

impl TraceParent {
    /// `None` if the text is anything else. A trace is never worth an error.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.splitn(5, '-').collect();
        let [version, trace_id, parent_id, flags] = <[&str; 4]>::try_from(parts).ok()?;
        let is_valid = version == "00" && is_id(trace_id, 32) && is_id(parent_id, 16) && is_hex(flags, 2);
        is_valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a stored value. What a newer release may have stored is left out.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.as_deref().and_then(Self::parse))
    }
}

/// An identifier of only zeros is invalid.
fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|byte| byte != b'0')
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_parent_of_version_00_is_kept_as_it_is() {
        for text in [VALID, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"] {
            assert_eq!(TraceParent::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn other_trace_parents_are_dropped() {
        let others = [
            String::new(),
            VALID.to_uppercase(),
            VALID.replace("00-0a", "01-0a"),
            VALID.replace("00-0a", "ff-0a"),
            VALID.replace('-', "_"),
            format!("{VALID}-extra"),
            format!("{VALID} "),
            format!("{VALID}\r\nauthorization: x"),
            VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            VALID.replace("b7ad", "b7aü"),
            VALID.replace("b7ad", "b7adb7ad"),
            "-".repeat(1_000_000),
        ];
        for other in others {
            assert_eq!(TraceParent::parse(&other), None, "{other:.80}");
        }
    }

    #[test]
    fn a_stored_value_of_a_newer_release_is_left_out() {
        let read = |json: &str| TraceParent::deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap();
        let stored = serde_json::to_string(&TraceParent::parse(VALID).unwrap()).unwrap();
        assert_eq!(read(&stored).unwrap().as_str(), VALID);
        assert_eq!(read(&stored.replace("00-", "01-")), None);
    }
}
