//! Sealing again under the primary key, so that an older one can be retired.

use super::Poller;
use super::record::Record;
use super::shared::store_error;
use crate::error::Error;
use crate::store::Reseal;

/// How many rows are read at once.
const BATCH: usize = 200;

/// What a rotation came to.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotation {
    /// So many rows were sealed again.
    pub resealed: usize,
    /// So many rows changed at that moment. Whoever changed them sealed them with the key that was primary there.
    pub changed_meanwhile: usize,
    /// So many rows cannot be opened: their key is not in the keyring.
    pub unreadable: usize,
}

impl Poller {
    /// Seals everything in the store again that the primary key of the keyring has not sealed. Do so when every replica
    /// has the new primary key; with nothing [unreadable](Rotation::unreadable) and nothing left to reseal on a second
    /// run, no row needs an older key any more.
    ///
    /// An older key may still be needed for what is not in the store: the authorization sessions in browsers, for an
    /// hour, and the notification tokens that OPs hold, for as long as processes from before the rotation wait.
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
            let Some(last) = rows.last() else { return Ok(rotation) };
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
    }
}
