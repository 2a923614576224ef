//! JSON objects of an OP, in which a member may be repeated.
//!
//! RFC 8259 §4 leaves open which of two members with one name counts, and RFC 7519 §4 lets a reader refuse both or take
//! the last. OPs do repeat members, with equal values: then they are one. Where the values differ, the last one counts,
//! unless a check needs the member: then two readers could be made to see two documents, and it is refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Document, Rule, Violation};

/// The members of one JSON object, with the names of those that contradict themselves.
#[derive(Debug)]
pub(crate) struct Object {
    members: Map<String, Value>,
    contradictions: Contradictions,
}

/// The places of members that are repeated with different values: names and array indices from the outermost object
/// inwards, as far as [`DEPTH`].
type Contradictions = BTreeSet<Vec<String>>;

/// How far inwards a contradiction is located. What lies deeper counts for the member that it lies in. Three levels name
/// a member of a key in a key set.
const DEPTH: usize = 3;
/// So many places are kept. A document with more is contradictory everywhere.
const PLACES: usize = 100;

impl Object {
    /// Reads one JSON object.
    ///
    /// # Errors
    ///
    /// Where it is none. The error may quote the document: use nothing of it but its line and column.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let Self { members, mut contradictions } = serde_json::from_slice(json)?;
        // Most headers and claims are flat, and then everything has been looked at. Names are looked at before values,
        // which are worth the trouble only where a name is repeated.
        if members.values().any(holds_object) && serde_json::from_slice::<Unrepeated>(json).is_err() {
            let mut path = Vec::new();
            let search = Search { path: &mut path, found: &mut contradictions };
            search.deserialize(&mut serde_json::Deserializer::from_slice(json))?;
        }
        Ok(Self { members, contradictions })
    }

    /// Reads a document of the OP of which some members are needed by a check. A byte order mark at its start is no part
    /// of it (RFC 8259 §8.1).
    ///
    /// # Errors
    ///
    /// [`Rule::MalformedJson`], and [`Rule::RepeatedMember`] with the name of the member.
    pub(crate) fn read(
        body: &[u8],
        document: Document,
        needed: &[&'static str],
    ) -> Result<Map<String, Value>, Violation> {
        Self::document(body, document)?.needing(needed).map_err(|name| repeated(document, name))
    }

    /// The same, before it is known which members are needed.
    ///
    /// # Errors
    ///
    /// [`Rule::MalformedJson`].
    pub(crate) fn document(body: &[u8], document: Document) -> Result<Self, Violation> {
        Self::parse_body(body).map_err(|error| Violation::malformed_json(document, &error))
    }

    /// Reads the body of an HTTP message: one JSON object, perhaps after a byte order mark.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse).
    pub(crate) fn parse_body(body: &[u8]) -> Result<Self, serde_json::Error> {
        Self::parse(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
    }

    /// The members, where none of these names is repeated with different values; otherwise the name.
    pub(crate) fn needing(self, names: &[&'static str]) -> Result<Map<String, Value>, &'static str> {
        match names.iter().find(|name| self.contradicts_itself(&[name])) {
            Some(name) => Err(name),
            None => Ok(self.members),
        }
    }

    /// Whether a member, named by its place, is repeated with different values or holds one that is.
    pub(crate) fn contradicts_itself(&self, place: &[&str]) -> bool {
        self.contradictions.len() >= PLACES
            || self.contradictions.iter().any(|found| place.iter().zip(found).all(|(name, found)| name == found))
    }

    /// Whether a member is itself repeated with different values, whatever it holds.
    pub(crate) fn is_repeated(&self, place: &[&str]) -> bool {
        self.contradictions.len() >= PLACES || self.contradictions.iter().any(|found| found == place)
    }

    /// All members. Of those that are repeated, the last one counts.
    pub(crate) fn members(&self) -> &Map<String, Value> {
        &self.members
    }
}

/// The error about a needed member that is repeated with different values.
pub(crate) fn repeated(document: Document, member: &'static str) -> Violation {
    Violation::new(Rule::RepeatedMember).in_document(document).at_member(member)
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

/// The outermost object. The values of its members are left to serde_json: how it hands out a number depends on features
/// that any crate of the program can switch on (`arbitrary_precision`).
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
        let mut members = Map::with_capacity(USUAL_MEMBERS);
        let mut contradictions = Contradictions::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if members.get(&name).is_some_and(|earlier| *earlier != value) && contradictions.len() < PLACES {
                contradictions.insert(vec![name.clone()]);
            }
            members.insert(name, value);
        }
        Ok(Object { members, contradictions })
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

    fn visit_unit<E: de::Error>(self) -> Result<Unrepeated, E> {
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
                return Err(de::Error::custom("a member name is repeated"));
            }
        }
        Ok(Unrepeated)
    }
}

/// A member name, borrowed unless something in it is escaped.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A value, for comparison only.
#[derive(PartialEq)]
enum Shape {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Array(Vec<Shape>),
    Object(BTreeMap<String, Shape>),
}

/// Looks through a value for members that are repeated with different values.
struct Search<'a> {
    path: &'a mut Vec<String>,
    found: &'a mut Contradictions,
}

impl Search<'_> {
    /// The same search one level further inwards.
    fn inside(&mut self) -> Search<'_> {
        Search { path: self.path, found: self.found }
    }

    fn note(&mut self, name: &str) {
        if self.found.len() < PLACES {
            let place = self.path.iter().map(String::as_str).chain([name]).take(DEPTH);
            self.found.insert(place.map(str::to_owned).collect());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Integer(i128::from(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Integer(i128::from(value)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Shape, E> {
        Ok(Shape::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Text(value.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Shape, A::Error> {
        let mut shapes = Vec::new();
        loop {
            self.path.push(shapes.len().to_string());
            let element = elements.next_element_seed(self.inside())?;
            self.path.pop();
            match element {
                Some(shape) => shapes.push(shape),
                None => return Ok(Shape::Array(shapes)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Shape, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = entries.next_key::<String>()? {
            self.path.push(name.clone());
            let shape = entries.next_value_seed(self.inside())?;
            self.path.pop();
            if members.get(&name).is_some_and(|earlier| *earlier != shape) {
                self.note(&name);
            }
            members.insert(name, shape);
        }
        Ok(Shape::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Object {
        Object::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn an_ordinary_object_is_read_as_it_stands() {
        let json = r#"{"a":null,"b":[true,-1,2.5,-1.5e30,"x",{"a":18446744073709551616}],"c":{"a":1}}"#;
        let object = parse(json);
        assert_eq!(Value::Object(object.members().clone()), serde_json::from_str::<Value>(json).unwrap());
        assert!(object.needing(&["a", "b", "c"]).is_ok());
    }

    #[test]
    fn json_that_is_nested_too_deep_is_refused_and_costs_no_stack() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            Object::parse(format!(r#"{{"b":{{"a":1,"a":2}},"a":{open}{close}}}"#).as_bytes())
        };
        assert!(nested(126).is_ok());
        assert!(nested(128).is_err());
        assert!(nested(400_000).is_err());
    }

    #[test]
    fn members_that_are_repeated_with_equal_values_are_one_at_any_depth() {
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
            assert_eq!(object.needing(&["x", "a"]), Err("a"), "{json}");
        }
    }

    #[test]
    fn a_document_with_more_contradictions_than_are_kept_contradicts_itself_everywhere() {
        let pair = |number: usize| format!(r#""m{number}":1,"m{number}":2"#);
        let document = |pairs: usize| format!("{{{}}}", (0..pairs).map(pair).collect::<Vec<_>>().join(","));
        assert!(parse(&document(PLACES - 1)).needing(&["x"]).is_ok());
        assert_eq!(parse(&document(PLACES)).needing(&["x"]), Err("x"));
        assert_eq!(parse(&document(10 * PLACES)).contradictions.len(), PLACES);
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
    fn a_document_is_read_with_its_byte_order_mark_and_errors_say_what_is_wrong() {
        let read = |body: &str| Object::read(body.as_bytes(), Document::KeySet, &["keys"]);
        assert!(read("\u{feff}{\"keys\":[]}").is_ok());
        let violation = read("{\n\"keys\": x}").unwrap_err();
        assert_eq!((violation.rule(), violation.position()), (Rule::MalformedJson, Some((2, 9))));
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
