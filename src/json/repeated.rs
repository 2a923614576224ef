//! Searches a JSON document for members that are repeated with different values, at any depth.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::places::{DEPTH, PLACES, Places};

/// Whether an object in the document repeats a member name. This compares no values.
pub(super) fn has_repeated_names(json: &[u8]) -> bool {
    serde_json::from_slice::<Unrepeated>(json).is_err()
}

/// Finds the places of members that are repeated with different values.
pub(super) fn find_contradictions(json: &[u8], found: &mut Places) -> Result<(), serde_json::Error> {
    let mut path = Vec::new();
    let search = Search { path: &mut path, found };
    search.deserialize(&mut serde_json::Deserializer::from_slice(json)).map(drop)
}

/// Any JSON value without repeated member names. serde_json limits its depth.
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
        // A tree, because most objects have few members: it needs less memory than a hash table, and no hashing.
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

/// Searches a value for members that are repeated with different values.
struct Search<'a> {
    path: &'a mut Vec<String>,
    found: &'a mut Places,
}

impl Search<'_> {
    /// Returns the same search, one level further inwards.
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
