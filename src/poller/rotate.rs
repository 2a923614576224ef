//! Re-seals rows under the primary key, so that an older key can be retired.

use super::handle::Poller;
use super::record::Record;
use super::shared::store_error;
use crate::error::Error;
use crate::store::{KeyStats, Reseal};

/// The number of rows that are read at once.
const BATCH: usize = 200;

/// The result of a rotation.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Rotation {
    /// The number of rows that were re-sealed.
    pub resealed: usize,
    /// The number of rows that another replica changed at the same time, sealed with its primary key.
    pub changed_meanwhile: usize,
    /// The number of rows that cannot be opened, because their key is not in the keyring.
    pub unreadable: usize,
    /// The remaining uses of each key: those of the keyring, and those that it lacks but the store's rows need. The
    /// primary key is the first.
    pub keys: Vec<KeyUse>,
}

/// The remaining uses of one key after a rotation, as far as the store knows.
///
/// Keep the key in the keyring while [`is_needed`](Self::is_needed). Also keep it for the lifetime of authorization
/// sessions (an hour by default) after it was the primary key of any replica, because sessions are in browsers and
/// cannot be counted.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyUse {
    /// The identifier of the key, as the `Debug` output of a [`SealingKey`](crate::SealingKey) shows it.
    pub key_id: String,
    /// Whether the keyring has the key.
    pub is_known: bool,
    /// Whether it is the key that seals.
    pub is_primary: bool,
    /// The number of rows sealed with it.
    pub sealed: u64,
    /// The number of pending sign-ins that began under it. Their notification tokens and lookup hashes verify only with
    /// it.
    pub waiting: u64,
}

impl KeyUse {
    /// Whether a row would be lost, or a ping refused, without it.
    pub fn is_needed(&self) -> bool {
        self.is_primary || self.sealed > 0 || self.waiting > 0
    }
}

impl Poller {
    /// Re-seals every row that is not sealed with the primary key, and reports what each key is still needed for. Call
    /// it when every replica has the new primary key.
    ///
    /// An older key without rows is still needed while sign-ins are pending that began under it, because OPs have their
    /// notification tokens. Call this method again later, and remove the key from the keyring once it [is not
    /// needed](KeyUse::is_needed).
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
        // A keyring may contain a key twice.
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(key_use).collect()
}
