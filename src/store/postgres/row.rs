//! Conversions of columns to the contract's types, and of lists to parameters.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::problem::Refusal;
use super::session::value;
use crate::store::column::{key_number, key_of};
use crate::store::{Cancellation, Fingerprint, Partition, ProcessId, SealedBody, State, StoreError};

/// When a row is due. While the row is claimed, `due_at` alone does not determine that. See
/// [`due_if_orphaned`](crate::store::rules::due_if_orphaned).
pub(super) const DUE_AT: &str = "
    (CASE WHEN lease_ends_at > due_at
          THEN GREATEST(lease_ends_at, LEAST(lease_ends_at + poll_interval, expires_at - interval '5 seconds'))
          ELSE due_at END)";

pub(super) fn id_in(row: &Row) -> Result<ProcessId, StoreError> {
    let bytes: &[u8] = value(row, "id")?;
    Ok(bytes.try_into().map(ProcessId::from_bytes).map_err(|_| Refusal::Row("id"))?)
}

pub(super) fn partition_in(row: &Row) -> Result<Partition, StoreError> {
    value(row, "partition").map(Partition)
}

pub(super) fn state_in(row: &Row) -> Result<State, StoreError> {
    let number = u8::try_from(value::<i16>(row, "state")?).ok();
    Ok(number.and_then(State::from_number).ok_or(Refusal::Row("state"))?)
}

pub(super) fn cancellation_in(row: &Row) -> Result<Cancellation, StoreError> {
    let number = u8::try_from(value::<i16>(row, "cancellation")?).ok();
    Ok(number.and_then(Cancellation::from_number).ok_or(Refusal::Row("cancellation"))?)
}

pub(super) fn lookup_in(row: &Row) -> Result<Option<Fingerprint>, StoreError> {
    let Some(bytes) = value::<Option<&[u8]>>(row, "lookup")? else { return Ok(None) };
    Ok(Some(bytes.try_into().map(Fingerprint).map_err(|_| Refusal::Row("lookup"))?))
}

pub(super) fn attempts_in(row: &Row) -> Result<u32, StoreError> {
    Ok(u32::try_from(value::<i64>(row, "attempts")?).unwrap_or(u32::MAX))
}

/// Combines a body with the format and key in the row.
pub(super) fn body_in(row: &Row, bytes: Vec<u8>) -> Result<SealedBody, StoreError> {
    Ok(SealedBody { format: format_in(row)?, key: key_in(row)?, bytes })
}

pub(super) fn format_in(row: &Row) -> Result<u8, StoreError> {
    Ok(u8::try_from(value::<i16>(row, "format")?).map_err(|_| Refusal::Row("format"))?)
}

pub(super) fn key_in(row: &Row) -> Result<[u8; 4], StoreError> {
    Ok(key_of(value(row, "key")?).ok_or(Refusal::Row("key"))?)
}

/// The time from `now` until the moment in this column; zero if it is past.
pub(super) fn until(row: &Row, column: &str, now: SystemTime) -> Result<Option<Duration>, StoreError> {
    let then: Option<SystemTime> = value(row, column)?;
    Ok(then.map(|then| then.duration_since(now).unwrap_or_default()))
}

pub(super) fn bytes_of(ids: impl IntoIterator<Item = ProcessId>) -> Vec<Vec<u8>> {
    ids.into_iter().map(|id| id.to_bytes().to_vec()).collect()
}

pub(super) fn bytes_of_all(fingerprints: &[Fingerprint]) -> Vec<&[u8]> {
    fingerprints.iter().map(|fingerprint| fingerprint.0.as_slice()).collect()
}

pub(super) fn numbers_of(keys: &[[u8; 4]]) -> Vec<i64> {
    keys.iter().map(|key| key_number(*key)).collect()
}

/// Splits items into rounds in which no row occurs twice, because one statement changes a row only once. The items of a
/// row stay in order. Nearly always there is one round. Each item comes with its index.
pub(super) fn rounds<T>(items: &[T], id: impl Fn(&T) -> ProcessId) -> Vec<Vec<(usize, &T)>> {
    let mut seen: BTreeMap<ProcessId, usize> = BTreeMap::new();
    let mut rounds: Vec<Vec<(usize, &T)>> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let round = seen.entry(id(item)).or_default();
        match rounds.get_mut(*round) {
            Some(items) => items.push((place, item)),
            None => rounds.push(vec![(place, item)]),
        }
        *round += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_named_twice_is_changed_in_a_second_round() {
        let items = [1, 2, 1, 3, 1].map(|number| ProcessId::from_bytes([number; 16]));
        let rounds = rounds(&items, |id| *id);
        let places: Vec<Vec<_>> = rounds.iter().map(|round| round.iter().map(|(place, _)| *place).collect()).collect();
        assert_eq!(places, [vec![0, 1, 3], vec![2], vec![4]]);
    }
}
