//! A row with all of its columns, for moving it to another store.

use std::time::{Duration, SystemTime};

use super::ProcessId;
use super::row::{Cancellation, Fingerprint, Partition, State};

/// A row with all of its columns, as [`Store::export`](super::Store::export) returns it and
/// [`Store::import`](super::Store::import) takes it. The columns are those of [`Store`](super::Store#a-row).
///
/// Times are those of the store's clock, to the microsecond.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Its identifier.
    pub id: ProcessId,
    /// Its client.
    pub partition: Partition,
    /// Its state.
    pub state: State,
    /// The fingerprint of the authorization session.
    pub session: Option<Fingerprint>,
    /// The fingerprint of the `deferred_auth_id`.
    pub lookup: Option<Fingerprint>,
    /// The fingerprint of the application's reference.
    pub reference: Option<Fingerprint>,
    /// When it was inserted.
    pub started_at: Option<SystemTime>,
    /// When it is due; `None` if it was set aside.
    pub due_at: Option<SystemTime>,
    /// The end of the lease of its current claim.
    pub leased_until: Option<SystemTime>,
    /// The earliest moment to which a ping may move `due_at`.
    pub not_before: Option<SystemTime>,
    /// When the last ping arrived that no claim has followed.
    pub pinged_at: Option<SystemTime>,
    /// See [`Settlement::interval`](super::Settlement::interval).
    pub interval: Duration,
    /// When the sign-in expires at the OP.
    pub expires_at: Option<SystemTime>,
    /// Whether it was spread since its last settlement.
    pub spread: bool,
    /// When the current outcome was decided.
    pub decided_at: Option<SystemTime>,
    /// The number of claims.
    pub epoch: i64,
    /// The number of claims in this state.
    pub attempts: u32,
    /// Whether a success that arrives later replaces the outcome.
    pub provisional: bool,
    /// Whether the application has cancelled it.
    pub cancellation: Cancellation,
    /// See [`Settlement::schedule`](super::Settlement::schedule).
    pub schedule: String,
    /// The key that it was inserted with.
    pub first_key: [u8; 4],
    /// The key that sealed the body.
    pub key: [u8; 4],
    /// The format of the body.
    pub format: u8,
    /// The number of changes of the body.
    pub revision: i64,
    /// The envelope; `None` for a tombstone.
    pub body: Option<Vec<u8>>,
}

impl StoredRow {
    /// Creates a row without a body that was never claimed and is due at this time.
    pub fn new(id: ProcessId, partition: Partition, state: State, due_at: SystemTime) -> Self {
        Self {
            id,
            partition,
            state,
            session: None,
            lookup: None,
            reference: None,
            started_at: None,
            due_at: Some(due_at),
            leased_until: None,
            not_before: None,
            pinged_at: None,
            interval: Duration::ZERO,
            expires_at: None,
            spread: false,
            decided_at: None,
            epoch: 0,
            attempts: 0,
            provisional: false,
            cancellation: Cancellation::None,
            schedule: String::new(),
            first_key: [0; 4],
            key: [0; 4],
            format: 1,
            revision: 0,
            body: None,
        }
    }
}

/// What became of a row that was to be imported.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It was added.
    Added,
    /// The store already has a row with this `id`. It was not changed.
    Present,
    /// The store has another row, with this `id`, for the same authorization session. Nothing was added.
    Conflict(ProcessId),
}
