//! Re-seals rows under the primary key, so that an older key can be retired.

use super::handle::Poller;
use super::record::Record;
use crate::error::Error;
use crate::keyring::{Keyring, key_name};
use crate::random::{Random, SystemRandom};
use crate::store::{KeyStats, Reseal, Store};

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
/// cannot be counted. If you use [idempotency keys](crate::TokenRequest::idempotency_key), also keep it for
/// [`keep_tombstones`](super::PollerBuilder::keep_tombstones) after the requests of that time were acknowledged: a
/// repetition is recognised only with it.
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

/// How far a rotation is.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationProgress {
    /// The processed rows, of those that were not sealed with the primary key.
    pub done: u64,
    /// The number of such rows when the rotation began. Replicas that still seal with another key add to them.
    pub total: u64,
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
        reseal_all(&*shared.store, &shared.keyring, &*shared.random, |_| {}).await
    }
}

/// Does what [`Poller::rotate`] does, without a poller, also while pollers run, and reports its progress after each
/// batch of rows. For tools: `openid-deferred rotate` calls it.
///
/// ```
/// # async fn example(keyring: openid_deferred::Keyring) -> Result<(), openid_deferred::Error> {
/// use openid_deferred::poller;
/// use openid_deferred::store::MemoryStore;
///
/// let store = MemoryStore::new();
/// let rotation = poller::rotate(&store, &keyring, |progress| eprintln!("{progress:?}")).await?;
/// assert_eq!(rotation.unreadable, 0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Poller::rotate`].
pub async fn rotate(
    store: &dyn Store,
    keyring: &Keyring,
    progress: impl FnMut(RotationProgress),
) -> Result<Rotation, Error> {
    reseal_all(store, keyring, &SystemRandom, progress).await
}

async fn reseal_all(
    store: &dyn Store,
    keyring: &Keyring,
    random: &dyn Random,
    mut progress: impl FnMut(RotationProgress),
) -> Result<Rotation, Error> {
    let primary = keyring.primary_id();
    let keys = store.keys().await?;
    let total = keys.iter().filter(|stats| stats.key != primary).map(|stats| stats.bodies).sum();
    let mut now = RotationProgress { done: 0, total };
    progress(now);
    let (mut rotation, mut after) = (Rotation::default(), None);
    loop {
        let rows = store.not_sealed_with(primary, after, BATCH).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.id);
        let mut reseals = Vec::with_capacity(rows.len());
        for row in &rows {
            match row.body.as_ref().map(|body| Record::open(keyring, row.id, body)) {
                Some(Ok(record)) => {
                    let body = record.seal(keyring, random, row.id)?;
                    reseals.push(Reseal { id: row.id, revision: row.revision, body });
                }
                Some(Err(_)) => rotation.unreadable += 1,
                None => {}
            }
        }
        let tried = reseals.len();
        let done = store.reseal(reseals).await?;
        let resealed = done.into_iter().filter(|done| *done).count();
        rotation.resealed += resealed;
        rotation.changed_meanwhile += tried.saturating_sub(resealed);
        now.done = now.done.saturating_add(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        now.total = now.total.max(now.done);
        progress(now);
    }
    rotation.keys = key_uses(&keyring.ids(), &store.keys().await?);
    Ok(rotation)
}

/// The uses of the keys of a keyring and of those that it lacks.
pub(super) fn key_uses(known: &[[u8; 4]], stats: &[KeyStats]) -> Vec<KeyUse> {
    let strange = stats.iter().map(|stats| stats.key).filter(|key| !known.contains(key));
    let key_use = |key: [u8; 4]| {
        let of_key = || stats.iter().filter(|stats| stats.key == key);
        KeyUse {
            key_id: key_name(key),
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
