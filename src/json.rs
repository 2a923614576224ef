//! JSON objects from an OP, in which members may be repeated or unclear.
//!
//! RFC 8259 §4 does not define which of two members with the same name counts. RFC 7519 §4 lets a reader reject both or
//! take the last. Some OPs repeat members with equal values; these count as one. If the values differ, the last one
//! counts, unless a check needs the member. In that case the document is refused, because an attacker could make two
//! readers see different values.
//!
//! The same applies to values that the grammar allows but that readers treat differently. An unpaired surrogate in a
//! string (§8.2) is read as U+FFFD, and a number that a double cannot represent (§6) as `null`, unless a check needs
//! the member.

use std::{fmt, mem};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Document, Rule, Violation};

mod members;
mod places;
mod repair;
mod repeated;
pub(crate) mod seconds;

pub(crate) use members::Members;

use members::erase;
use places::{PLACES, Places, lies_in, note_differences};
use repair::Substitutes;

/// The members of one JSON object, with the names of those that have contradictory or unclear values.
#[derive(Debug)]
pub(crate) struct Object {
    members: Members,
    /// The places of members that are repeated with different values.
    contradictions: Places,
    /// The places of values that were substituted, because the original cannot be represented.
    unclear: Places,
    /// The values of outermost members that later values have replaced.
    earlier: Vec<(String, Value)>,
}

/// Why a needed member cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// This member is repeated with different values.
    Repeated(&'static str),
    /// This member has an unpaired surrogate or a number out of range.
    Unclear(&'static str),
}

impl Flaw {
    /// Returns the violated rule and the member. `malformed` is the rule for documents that cannot be read.
    pub(crate) fn rule(self, malformed: Rule) -> (Rule, &'static str) {
        match self {
            Self::Repeated(member) => (Rule::RepeatedMember, member),
            Self::Unclear(member) => (malformed, member),
        }
    }
}

/// The maximum nesting of arrays and objects. A stored value contains documents of the OP in a few levels of its own,
/// and serde_json, which reads it again, stops at 128.
const NESTING: usize = 100;

impl Object {
    /// Reads one JSON object.
    ///
    /// # Errors
    ///
    /// If it is not a JSON object. The error may quote the document: use only its line and column.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        Self::parse_clear(json).or_else(|error| Self::parse_unclear(json).ok_or(error))
    }

    fn parse_clear(json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut object: Self = serde_json::from_slice(json)?;
        if object.members.values().any(|value| is_deeper(value, NESTING - 1)) {
            return Err(de::Error::custom("nested too deep"));
        }
        // Most headers and claims are flat, and then nothing is left to check. Names are checked first, because values
        // must be compared only if a name is repeated.
        if object.members.values().any(holds_object) && repeated::has_repeated_names(json) {
            repeated::find_contradictions(json, &mut object.contradictions)?;
        }
        Ok(object)
    }

    /// Reads the document twice, with different substitutes for values that cannot be represented. Values that differ
    /// are unclear.
    fn parse_unclear(json: &[u8]) -> Option<Self> {
        let read = |substitutes: Substitutes| Self::parse_clear(&repair::repaired(json, &substitutes)?).ok();
        let mut object = read(Substitutes { surrogate: *b"fffd", number: *b"null" })?;
        let mut other = read(Substitutes { surrogate: *b"fffe", number: *b"true" })?;
        object.contradictions.append(&mut other.contradictions);
        note_differences(&object.members, &other.members, &mut Vec::new(), &mut object.unclear);
        Some(object)
    }

    /// Reads a document of the OP, some members of which are needed by a check. A byte order mark at its start is
    /// ignored (RFC 8259 §8.1).
    ///
    /// # Errors
    ///
    /// [`Rule::MalformedJson`], with the name of the member if a needed one is unclear; [`Rule::RepeatedMember`],
    /// with the name of the member.
    pub(crate) fn read(body: &[u8], document: Document, needed: &[&'static str]) -> Result<Members, Violation> {
        Self::document(body, document)?.needing(needed).map_err(|flaw| flawed(document, flaw))
    }

    /// The same, for callers that do not know yet which members are needed.
    ///
    /// # Errors
    ///
    /// [`Rule::MalformedJson`].
    pub(crate) fn document(body: &[u8], document: Document) -> Result<Self, Violation> {
        Self::parse_body(body).map_err(|error| Violation::malformed_json(document, &error))
    }

    /// Reads the body of an HTTP message: one JSON object, optionally after a byte order mark.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse).
    pub(crate) fn parse_body(body: &[u8]) -> Result<Self, serde_json::Error> {
        Self::parse(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
    }

    /// Returns the members, if none of the named ones is unclear or repeated with different values.
    pub(crate) fn needing(mut self, names: &[&'static str]) -> Result<Members, Flaw> {
        let flaw = |name| match name {
            _ if self.contradicts_itself(&[name]) => Some(Flaw::Repeated(name)),
            _ if lies_in(&self.unclear, &[name]) => Some(Flaw::Unclear(name)),
            _ => None,
        };
        match names.iter().find_map(|name| flaw(name)) {
            Some(flaw) => Err(flaw),
            None => Ok(mem::take(&mut self.members)),
        }
    }

    /// Whether the member at this place is repeated with different values, or contains one that is.
    pub(crate) fn contradicts_itself(&self, place: &[&str]) -> bool {
        lies_in(&self.contradictions, place)
    }

    /// Whether the member at this place is itself repeated with different values, regardless of its contents.
    pub(crate) fn is_repeated(&self, place: &[&str]) -> bool {
        self.contradictions.len() >= PLACES || self.contradictions.iter().any(|found| found == place)
    }

    /// Returns all members. For repeated members, the last value counts.
    pub(crate) fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// Returns every value of an outermost member. If it has more values than are kept, it [contradicts
    /// itself](Self::contradicts_itself).
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        let earlier = self.earlier.iter().filter(move |(earlier, _)| earlier == name).map(|(_, value)| value);
        earlier.chain(self.members.get(name))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.earlier.iter_mut().for_each(|(_, value)| erase(value));
    }
}

/// The error for a needed member that cannot be used.
pub(crate) fn flawed(document: Document, flaw: Flaw) -> Violation {
    let (rule, member) = flaw.rule(Rule::MalformedJson);
    Violation::new(rule).in_document(document).at_member(member)
}

fn holds_object(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(elements) => elements.iter().any(holds_object),
        _ => false,
    }
}

/// Whether arrays and objects in a value are nested more than `levels` deep.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(left) = levels.checked_sub(1) else { return value.is_array() || value.is_object() };
    match value {
        Value::Array(elements) => elements.iter().any(|element| is_deeper(element, left)),
        Value::Object(members) => members.values().any(|member| is_deeper(member, left)),
        _ => false,
    }
}

/// The initial capacity for members, which suffices for most tokens.
const USUAL_MEMBERS: usize = 20;

/// Deserializes the outermost object. serde_json reads the values of its members, because its representation of numbers
/// depends on features that any crate in the program can enable (`arbitrary_precision`).
impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
        let mut members = Members::from(Map::with_capacity(USUAL_MEMBERS));
        let (mut contradictions, mut earlier) = (Places::new(), Vec::new());
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if members.get(&name).is_none_or(|earlier| *earlier == value) {
                members.insert(name, value).iter_mut().for_each(erase);
                continue;
            }
            if contradictions.len() < PLACES {
                contradictions.insert(vec![name.clone()]);
            }
            let replaced = members.insert(name.clone(), value);
            earlier.extend(replaced.map(|replaced| (name, replaced)).filter(|_| earlier.len() < PLACES));
        }
        Ok(Object { members, contradictions, unclear: Places::new(), earlier })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Object {
        Object::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn an_ordinary_object_is_read_unchanged() {
        let json = r#"{"a":null,"b":[true,-1,2.5,-1.5e30,"x",{"a":18446744073709551616}],"c":{"a":1}}"#;
        let object = parse(json);
        assert_eq!(Value::Object(object.members().clone()), serde_json::from_str::<Value>(json).unwrap());
        assert!(object.needing(&["a", "b", "c"]).is_ok());
    }

    #[test]
    fn json_that_is_nested_too_deep_is_refused_without_a_stack_overflow() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            Object::parse(format!(r#"{{"b":{{"a":1,"a":2}},"a":{open}{close}}}"#).as_bytes())
        };
        assert!(nested(NESTING - 1).is_ok());
        for depth in [NESTING, 126, 127, 128] {
            assert!(nested(depth).is_err(), "{depth}");
        }
        assert!(nested(400_000).is_err());
    }

    #[test]
    fn members_repeated_with_equal_values_are_accepted_at_any_depth() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"a":{"b":[1,{"c":2.5}],"b":[1,{"c":2.5}]}}"#,
            r#"{"a":[{"b":null,"b":null}],"a":[{"b":null}]}"#,
            r#"{"a":{"b":1,"c":2},"a":{"c":2,"b":1}}"#,
        ] {
            let object = parse(json);
            assert!(object.contradictions.is_empty(), "{json}: {object:?}");
            assert!(object.needing(&["a"]).is_ok());
        }
    }

    #[test]
    fn a_member_that_is_repeated_with_another_value_is_named_and_the_last_one_counts_elsewhere() {
        for (json, place) in [
            (r#"{"x":0,"a":1,"a":2}"#, &["a"][..]),
            (r#"{"a":1,"x":0,"a":null}"#, &["a"]),
            (r#"{"a":1,"\u0061":2,"x":0}"#, &["a"]),
            (r#"{"a":1,"a":1.0,"x":0}"#, &["a"]),
            (r#"{"a":{"b":1,"b":2},"x":0}"#, &["a", "b"]),
            (r#"{"a":[0,{"b":1,"b":"1"}],"x":0}"#, &["a", "1", "b"]),
            (r#"{"a":[0,[0,{"b":{"c":1,"c":2}}]],"x":{}}"#, &["a", "1", "1"]),
        ] {
            let object = parse(json);
            assert_eq!(object.contradictions.first().unwrap(), place, "{json}");
            assert!(object.contradicts_itself(place) && !object.contradicts_itself(&["x"]), "{json}");
            let last = serde_json::from_str::<Value>(json).unwrap();
            assert_eq!(Value::Object(object.members().clone()), last, "{json}");
            assert!(parse(json).needing(&["x"]).is_ok());
            assert_eq!(object.needing(&["x", "a"]), Err(Flaw::Repeated("a")), "{json}");
        }
    }

    #[test]
    fn a_document_with_too_many_contradictions_counts_as_contradictory_everywhere() {
        let pair = |number: usize| format!(r#""m{number}":1,"m{number}":2"#);
        let document = |pairs: usize| format!("{{{}}}", (0..pairs).map(pair).collect::<Vec<_>>().join(","));
        assert!(parse(&document(PLACES - 1)).needing(&["x"]).is_ok());
        assert_eq!(parse(&document(PLACES)).needing(&["x"]), Err(Flaw::Repeated("x")));
        assert_eq!(parse(&document(10 * PLACES)).contradictions.len(), PLACES);
    }

    #[test]
    fn unrepresentable_values_are_substituted_and_named_if_they_are_needed() {
        for (json, unclear) in [
            (r#"{"a":"\ud83d","x":0}"#, &["a"][..]),
            (r#"{"a":1e400,"x":0}"#, &["a"]),
            (r#"{"a":["b","\udc00"],"x":0}"#, &["a", "1"]),
            (r#"{"a":{"b":[0,{"c":-1e400}]},"x":0}"#, &["a", "b", "1"]),
            (r#"{"a":{"\ud83d":1},"x":0}"#, &["a", "\u{fffd}"]),
            (r#"{"a":"\ud83d","a":"\ud83e","x":0}"#, &["a"]),
        ] {
            let object = parse(json);
            assert_eq!(object.unclear.first().unwrap(), unclear, "{json}");
            assert!(parse(json).needing(&["x"]).is_ok(), "{json}");
            assert_eq!(object.needing(&["x", "a"]), Err(Flaw::Unclear("a")), "{json}");
        }
        let object = parse(r#"{"a":["\ud83d","\ud83d\ude00"],"b":1e400,"c":[1e400]}"#);
        let expected = serde_json::json!({ "a": ["\u{fffd}", "\u{1f600}"], "b": null, "c": [null] });
        assert_eq!(Value::Object(object.members().clone()), expected);
    }

    #[test]
    fn values_that_are_equal_only_after_substitution_are_contradictory() {
        for json in [r#"{"a":"\ud83d","a":"\ufffd"}"#, r#"{"a":1e400,"a":null}"#] {
            assert_eq!(parse(json).needing(&["a"]), Err(Flaw::Repeated("a")), "{json}");
        }
    }

    #[test]
    fn every_value_of_a_repeated_member_can_be_read() {
        let object = parse(r#"{"a":1,"b":0,"a":2,"a":2,"a":3}"#);
        assert_eq!(object.values("a").collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(object.values("b").count(), 1);
        assert_eq!(object.values("c").count(), 0);
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        let deep = "[".repeat(100_000);
        for json in
            ["", "1", "null", "[]", "\"a\"", "{", "{} {}", "{}x", "\u{feff}{}", &deep, &format!("{{\"a\":{deep}")]
        {
            assert!(Object::parse(json.as_bytes()).is_err());
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_byte_order_mark_is_accepted_and_errors_name_their_position() {
        let read = |body: &str| Object::read(body.as_bytes(), Document::KeySet, &["keys"]);
        assert!(read("\u{feff}{\"keys\":[]}").is_ok());
        let violation = read("{\n\"keys\": x}").unwrap_err();
        assert_eq!(
            (violation.rule(), violation.position().map(|at| (at.line, at.column))),
            (Rule::MalformedJson, Some((2, 9)))
        );
        let violation = read(r#"{"keys":[],"keys":{}}"#).unwrap_err();
        assert_eq!((violation.rule(), violation.member()), (Rule::RepeatedMember, Some("keys")));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            let _ = Object::parse(&body);
        }
    }
}
