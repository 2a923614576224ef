//! Sealing again under the primary key, so that an older one can be retired.

use super::Poller;
use super::record::Record;
use super::shared::store_error;
use crate::error::Error;
use crate::store::{KeyStats, Reseal};

/// How many rows are read at once.
const BATCH: usize = 200;

/// What a rotation came to.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotation {
    /// So many rows were sealed again.
    pub resealed: usize,
    /// So many rows changed at that moment. Whoever changed them sealed them with the key that was primary there.
    pub changed_meanwhile: usize,
    /// So many rows cannot be opened: their key is not in the keyring.
    pub unreadable: usize,
    /// What each key is still needed for: those of the keyring, and those that it lacks but the store's rows need. The
    /// primary key is the first.
    pub keys: Vec<KeyUse>,
}

/// What one key is needed for after a rotation, as far as the store can tell.
///
/// Keep it in the keyring while [`is_needed`](Self::is_needed), and for as long as authorization sessions live (an hour,
/// unless the client is set otherwise) after it was the primary key anywhere: those are in browsers, where nobody can
/// count them.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The identifier of the key, as the `Debug` output of a [`SealingKey`](crate::SealingKey) shows it.
    pub key_id: String,
    /// Whether the keyring has the key.
    pub is_known: bool,
    /// Whether it is the key that seals.
    pub is_primary: bool,
    /// So many rows are sealed with it.
    pub sealed: u64,
    /// So many processes began under it and wait. The tokens of their pings and the hashes by which they are found
    /// verify with it alone.
    pub waiting: u64,
}

impl KeyUse {
    /// Whether anything in the store is lost, or any ping refused, without it.
    pub fn is_needed(&self) -> bool {
        self.is_primary || self.sealed > 0 || self.waiting > 0
    }
}

impl Poller {
    /// Seals everything in the store again that the primary key of the keyring has not sealed, and says what each key is
    /// still needed for. Do so when every replica has the new primary key.
    ///
    /// An older key that sealed nothing any more is still needed while processes wait that began under it: OPs hold their
    /// notification tokens. Call again later; it is retired by taking it out of the keyring once it
    /// [is not needed](KeyUse::is_needed).
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store), with some rows done. Call again.
    pub async fn rotate(&self) -> Result<Rotation, Error> {
        let shared = self.shared();
        let primary = shared.keyring.primary_id();
        let (mut rotation, mut after) = (Rotation::default(), None);
        loop {
            let rows = shared.store.sealed_otherwise(primary, after, BATCH).await.map_err(store_error)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            let mut reseals = Vec::with_capacity(rows.len());
            for row in &rows {
                match row.body.as_ref().map(|body| Record::open(&shared.keyring, row.id, body)) {
                    Some(Ok(record)) => {
                        let body = record.seal(&shared.keyring, &*shared.random, row.id)?;
                        reseals.push(Reseal { id: row.id, revision: row.revision, body });
                    }
                    Some(Err(_)) => rotation.unreadable += 1,
                    None => {}
                }
            }
            let tried = reseals.len();
            let done = shared.store.reseal(reseals).await.map_err(store_error)?;
            let resealed = done.into_iter().filter(|done| *done).count();
            rotation.resealed += resealed;
            rotation.changed_meanwhile += tried.saturating_sub(resealed);
        }
        rotation.keys = key_uses(&shared.keyring.ids(), &shared.store.keys().await.map_err(store_error)?);
        Ok(rotation)
    }
}

fn key_uses(known: &[[u8; 4]], stats: &[KeyStats]) -> Vec<KeyUse> {
    let strange = stats.iter().map(|stats| stats.key).filter(|key| !known.contains(key));
    let key_use = |key: [u8; 4]| {
        let of_key = || stats.iter().filter(|stats| stats.key == key);
        KeyUse {
            key_id: format!("{:08x}", u32::from_be_bytes(key)),
            is_known: known.contains(&key),
            is_primary: known.first() == Some(&key),
            sealed: of_key().map(|stats| stats.bodies).sum(),
            waiting: of_key().map(|stats| stats.waiting).sum(),
        }
    };
    let mut keys: Vec<[u8; 4]> = Vec::new();
    for key in known.iter().copied().chain(strange) {
        // A keyring may hold one key twice.
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(key_use).collect()
}
