//! The calls of the contract as SQL. Each runs inside a transaction that the thread begins and ends.
//!
//! Statements contain `LIMIT :limit + 0`, because SQLite compiles a statement with a bare parameter there again for
//! each new value.

mod claim;
mod clients;
mod due_times;
mod operators;
mod outcomes;
mod transfer;
mod upkeep;
mod work;

pub(super) use clients::{known_clients, note_clients};
pub(super) use due_times::{correct_due_times, spread};
pub(super) use operators::{bring_forward, erase, list, requeue};
pub(super) use outcomes::{acknowledge, claim_outcomes, expire_outcomes, hold};
pub(super) use transfer::{export, import};
pub(super) use upkeep::{cancel, forget, keys, load, not_sealed_with, purge, reseal, stats};
pub(super) use work::{insert, ping, work};

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row, RowIndex};

use crate::store::column::{key_number, key_of};
use crate::store::{Cancellation, Fingerprint, Partition, ProcessId, SealedBody, State};

/// Replaces `:keys` in a statement. As part of the text the keys cost nothing at run time. The keys of a program do not
/// change, so the statement stays compiled.
fn with_keys(sql: &str, keys: &[[u8; 4]]) -> String {
    let numbers: Vec<_> = keys.iter().map(|key| key_number(*key).to_string()).collect();
    sql.replace(":keys", &numbers.join(", "))
}

fn id_in(row: &Row<'_>, column: &str) -> rusqlite::Result<ProcessId> {
    row.get(column).map(ProcessId::from_bytes)
}

fn partition_in(row: &Row<'_>) -> rusqlite::Result<Partition> {
    row.get("partition").map(Partition)
}

fn state_in(row: &Row<'_>) -> rusqlite::Result<State> {
    state_at(row, "state")
}

fn state_at(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<State> {
    let number = row.get(column)?;
    State::from_number(number).ok_or_else(|| unknown(number))
}

fn cancellation_in(row: &Row<'_>) -> rusqlite::Result<Cancellation> {
    cancellation_at(row, "cancellation")
}

fn cancellation_at(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Cancellation> {
    let number = row.get(column)?;
    Cancellation::from_number(number).ok_or_else(|| unknown(number))
}

fn lookup_in(row: &Row<'_>) -> rusqlite::Result<Option<Fingerprint>> {
    Ok(row.get::<_, Option<_>>("lookup")?.map(Fingerprint))
}

/// The body, if the row was joined with one.
fn body_in(row: &Row<'_>) -> rusqlite::Result<Option<SealedBody>> {
    let Some(bytes) = row.get("body")? else { return Ok(None) };
    Ok(Some(SealedBody { format: row.get("format")?, key: key_in(row)?, bytes }))
}

fn key_in(row: &Row<'_>) -> rusqlite::Result<[u8; 4]> {
    key_at(row, "key")
}

fn key_at(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<[u8; 4]> {
    let number: i64 = row.get(column)?;
    key_of(number).ok_or(FromSqlError::OutOfRange(number)).map_err(conversion)
}

/// The due time of a row that is set aside: later than every other.
const SET_ASIDE: i64 = i64::MAX;

fn unknown(number: u8) -> rusqlite::Error {
    conversion(FromSqlError::OutOfRange(number.into()))
}

fn conversion(error: FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Integer, Box::new(error))
}
