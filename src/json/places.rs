//! Places in a JSON document, such as those of members with contradictory values.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The number of levels of a place. Anything deeper counts for the member that contains it. Three levels identify a
/// member of a key in a key set.
pub(super) const DEPTH: usize = 3;
/// The maximum number of places that are kept. A document with more counts as contradictory everywhere.
pub(super) const PLACES: usize = 100;

/// Places in a document: names and array indices from the outermost object inwards, up to [`DEPTH`] levels.
pub(super) type Places = BTreeSet<Vec<String>>;

/// Whether one of the places is this one, is inside it, or contains it.
pub(super) fn lies_in(places: &Places, place: &[&str]) -> bool {
    places.len() >= PLACES || places.iter().any(|found| place.iter().zip(found).all(|(name, found)| name == found))
}

/// Finds where two readings of one document differ.
pub(super) fn note_differences(
    one: &Map<String, Value>,
    other: &Map<String, Value>,
    path: &mut Vec<String>,
    found: &mut Places,
) {
    let missing = other.iter().filter(|(name, _)| !one.contains_key(*name)).map(|(name, value)| (name, value, None));
    for (name, value, same) in one.iter().map(|(name, value)| (name, value, other.get(name))).chain(missing) {
        path.push(name.clone());
        note_difference(value, same, path, found);
        path.pop();
    }
}

fn note_difference(one: &Value, other: Option<&Value>, path: &mut Vec<String>, found: &mut Places) {
    match (one, other) {
        _ if found.len() >= PLACES => {}
        (Value::Object(one), Some(Value::Object(other))) if path.len() < DEPTH => {
            note_differences(one, other, path, found);
        }
        (Value::Array(one), Some(Value::Array(other))) if path.len() < DEPTH => {
            for (number, element) in one.iter().enumerate() {
                path.push(number.to_string());
                note_difference(element, other.get(number), path, found);
                path.pop();
            }
        }
        (one, other) if other != Some(one) => drop(found.insert(path.clone())),
        _ => {}
    }
}
