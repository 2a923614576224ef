//! JSON in which no object names a member twice.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Parses a JSON object and refuses repeated member names at any depth: readers disagree about which of the two
/// counts, and a signature covers both (RFC 7515 §4, RFC 7519 §4). `None` for anything else that is not one JSON
/// object.
pub(crate) fn strict_object(json: &[u8]) -> Option<Map<String, Value>> {
    let StrictObject(members) = serde_json::from_slice(json).ok()?;
    // Most headers and claims are flat, and then everything has been looked at.
    if members.values().any(holds_object) {
        serde_json::from_slice::<Unrepeated>(json).ok()?;
    }
    Some(members)
}

fn holds_object(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(elements) => elements.iter().any(holds_object),
        _ => false,
    }
}

/// How many members there is room for at first, which is enough for most tokens.
const USUAL_MEMBERS: usize = 20;

/// An object whose own members are not repeated. Their values are left to serde_json: how it hands out a number depends on
/// features that any crate of the program can switch on (`arbitrary_precision`).
struct StrictObject(Map<String, Value>);

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StrictObjectVisitor)
    }
}

struct StrictObjectVisitor;

impl<'de> Visitor<'de> for StrictObjectVisitor {
    type Value = StrictObject;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object without repeated member names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<StrictObject, A::Error> {
        let mut unrepeated = Map::with_capacity(USUAL_MEMBERS);
        while let Some((name, value)) = members.next_entry()? {
            if unrepeated.insert(name, value).is_some() {
                return Err(repeated());
            }
        }
        Ok(StrictObject(unrepeated))
    }
}

/// Any JSON value without repeated member names. serde_json bounds its depth.
struct Unrepeated;

impl<'de> Deserialize<'de> for Unrepeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnrepeatedVisitor)
    }
}

struct UnrepeatedVisitor;

impl<'de> Visitor<'de> for UnrepeatedVisitor {
    type Value = Unrepeated;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON without repeated member names")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Unrepeated, A::Error> {
        while elements.next_element::<Unrepeated>()?.is_some() {}
        Ok(Unrepeated)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unrepeated, A::Error> {
        // A tree, as most objects have few members: it takes less memory than a table and hashes nothing.
        let mut names = BTreeSet::new();
        while let Some((Name(name), Unrepeated)) = members.next_entry()? {
            if !names.insert(name) {
                return Err(repeated());
            }
        }
        Ok(Unrepeated)
    }
}

fn repeated<E: de::Error>() -> E {
    E::custom("a member name is repeated")
}

/// A member name, borrowed unless something in it is escaped.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_object_is_read_as_it_stands() {
        let json = br#"{"a":null,"b":[true,-1,2.5,-1.5e30,"x",{"a":18446744073709551616}],"c":{"a":1}}"#;
        assert_eq!(Value::Object(strict_object(json).unwrap()), serde_json::from_slice::<Value>(json).unwrap());
    }

    #[test]
    fn json_that_is_nested_too_deep_is_refused_and_costs_no_stack() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            strict_object(format!(r#"{{"a":{open}{close}}}"#).as_bytes())
        };
        assert!(nested(126).is_some());
        assert!(nested(128).is_none());
        assert!(nested(400_000).is_none());
    }

    #[test]
    fn a_repeated_member_is_refused_at_any_depth_and_in_any_spelling() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"a":null}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1,"b":[[],["c",{"d":{"e":1,"e":2}}]],"f":2}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert!(strict_object(json.as_bytes()).is_none(), "{json}");
        }
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        let deep = "[".repeat(100_000);
        for json in
            ["", "1", "null", "[]", "\"a\"", "{", "{} {}", "{}x", "\u{feff}{}", &deep, &format!("{{\"a\":{deep}")]
        {
            assert!(strict_object(json.as_bytes()).is_none());
        }
        assert!(strict_object(b"{\"a\":\"\xff\"}").is_none());
    }
}
