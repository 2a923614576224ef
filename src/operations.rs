//! Inspecting and repairing a store, for operators, while replicas run.
//!
//! [`Operations`] needs a [`Store`] and nothing else: no client, no network, and a keyring only to [find sign-ins that
//! need another key](Operations::with_keyring). Nothing that it returns is a secret, so all of it may be printed and
//! logged. The command-line tool uses it. An application can use it too:
//! [`Poller::operations`](crate::Poller::operations).
//!
//! | question or task | method |
//! |---|---|
//! | Which sign-ins are there, which are late, which are stuck? | [`Operations::list`] with a [`Filter`] |
//! | Why does this one wait? | [`Operations::show`], an [`Overview`] |
//! | How many are there? | [`Operations::stats`] |
//! | Which sealing keys are needed? | [`Operations::keys`], and [`Filter::key_id`] for the sign-ins that need one |
//! | Ask the OP sooner. | [`Operations::poll_now`] |
//! | Release an outcome whose consumer hangs. | [`Operations::requeue`] |
//! | Cancel a sign-in. | [`Operations::cancel`] |
//! | Erase a sign-in, and check that nothing is left. | [`Operations::forget`] |
//! | Move all sign-ins to another database. | [`Operations::export`], [`Operations::import`] |
//!
//! ```
//! use openid_deferred::operations::{Filter, Operations};
//! use openid_deferred::store::MemoryStore;
//!
//! # async fn example() -> Result<(), openid_deferred::Error> {
//! let operations = Operations::new(MemoryStore::new());
//! let stuck = operations.list(Filter::new().stuck()).await?;
//! for sign_in in &stuck.sign_ins {
//!     println!("{} has waited since {:?}: {:?}", sign_in.id, sign_in.started_at, sign_in.stuck);
//! }
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::keyring::Keyring;
use crate::store::{
    Among, Cancellation, Fingerprint, KeyStats, Listing, Pinged, ProcessId, Requeued, RowOverview, State, Store,
};

mod answers;
mod clients;
mod filter;
mod overview;
mod transfer;

pub use crate::pending::TroubleKind;
pub use answers::{Cancel, Forgotten, PollNow, Requeue};
pub use clients::ClientRows;
pub(crate) use clients::Clients;
pub use filter::{Filter, SignIns};
use overview::Context;
pub(crate) use overview::held_by_retry_after;
pub use overview::{Overview, Stuck, Trouble, WaitsFor};
pub use transfer::{Exported, ImportReport, TransferError};

/// The number of rows that are read at once if most of them may not be wanted.
const ROWS: usize = 1_000;
/// The number of reads for one page. Together they take a second or two.
const READS: usize = 20;

/// What operators do with a store; see the [module](self).
///
/// Cloning is cheap. Everything works beside running replicas, which see the changes at once or within the time of
/// [`Store::check_interval`].
#[derive(Debug, Clone)]
pub struct Operations {
    store: Arc<dyn Store>,
    /// The keys to compare sign-ins with.
    keys: Option<Arc<[[u8; 4]]>>,
}

impl Operations {
    /// Creates a handle to this store.
    pub fn new(store: impl Store + 'static) -> Self {
        Self { store: Arc::new(store), keys: None }
    }

    /// Compares sign-ins with the keys that replicas have: [`list`](Self::list) and [`show`](Self::show) then say which
    /// need another one ([`Stuck::KeyMissing`]). Nothing is opened with the keys.
    /// [`Poller::operations`](crate::Poller::operations) has the keyring of the poller.
    #[must_use]
    pub fn with_keyring(self, keyring: &Keyring) -> Self {
        Self { keys: Some(keyring.ids().into()), ..self }
    }

    /// Returns a page of the sign-ins that the filter describes. [`SignIns::next`] leads to the next page.
    ///
    /// One call reads a few ten thousand rows at most, so a page may be short although more follow.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn list(&self, filter: Filter) -> Result<SignIns, Error> {
        self.list_among(Among::All, filter).await
    }

    /// The same for sign-ins with one of these references.
    pub(crate) async fn list_referenced(&self, references: Vec<Fingerprint>, filter: Filter) -> Result<SignIns, Error> {
        self.list_among(Among::References(references), filter).await
    }

    async fn list_among(&self, among: Among, filter: Filter) -> Result<SignIns, Error> {
        let limit = filter.limit;
        let mut found = SignIns { sign_ins: Vec::new(), next: filter.after };
        let mut clients = Clients::of(&*self.store);
        for _ in 0..READS {
            let wanted = if filter.is_stuck { ROWS } else { limit.saturating_sub(found.sign_ins.len()) };
            let listing = Listing {
                among: among.clone(),
                states: filter.states.clone(),
                partition: filter.partition,
                keys: filter.keys.clone(),
                started_for: filter.older_than,
                overdue_for: filter.overdue_for,
                after: found.next,
                limit: wanted,
            };
            let page = self.store.list(listing).await?;
            clients.look_up(page.rows.iter().map(|row| row.partition)).await;
            for row in page.rows {
                let place = row.place;
                let overview = self.overview(row, page.now, &clients);
                if filter.is_stuck && overview.stuck.is_none() {
                    continue;
                }
                found.sign_ins.push(overview);
                if found.sign_ins.len() >= limit {
                    found.next = Some(place);
                    return Ok(found);
                }
            }
            found.next = page.next;
            if found.next.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Returns everything that the store says about a sign-in; `None` if it does not have it (any more).
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn show(&self, id: ProcessId) -> Result<Option<Overview>, Error> {
        let listing = Listing { among: Among::Ids(vec![id]), ..Listing::new(1) };
        let page = self.store.list(listing).await?;
        let mut clients = Clients::of(&*self.store);
        clients.look_up(page.rows.iter().map(|row| row.partition)).await;
        Ok(page.rows.into_iter().next().map(|row| self.overview(row, page.now, &clients)))
    }

    fn overview(&self, row: RowOverview, now: SystemTime, clients: &Clients<'_>) -> Overview {
        let context = Context { now, client: clients.get(row.partition), keys: self.keys.as_deref() };
        Overview::of(row, context)
    }

    /// Returns the number of sign-ins of each client in each state, and the age of the oldest ones that are due. With
    /// millions of rows it takes a while.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn stats(&self) -> Result<Vec<ClientRows>, Error> {
        let stats = self.store.stats().await?;
        let mut clients = Clients::of(&*self.store);
        clients.look_up(stats.iter().map(|stats| stats.partition)).await;
        Ok(clients.with_names(stats))
    }

    /// Returns how many sign-ins need each sealing key. [`Poller::rotate`](crate::Poller::rotate) re-seals them with
    /// the primary key. With millions of rows it takes a while.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn keys(&self) -> Result<Vec<KeyStats>, Error> {
        Ok(self.store.keys().await?)
    }

    /// Brings the next poll of a sign-in forward as far as the OP's interval and `Retry-After` allow. It only skips the
    /// client's own backoff, so the OP is never polled faster than it permits. After `slow_down` it has no effect, and
    /// a sign-in without its body stays as it is. Call [`show`](Self::show) next: a sign-in that is
    /// [stuck](Overview::stuck) may not be polled although it is due.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn poll_now(&self, id: ProcessId) -> Result<PollNow, Error> {
        let page = self.store.list(Listing { among: Among::Ids(vec![id]), ..Listing::new(1) }).await?;
        // Replicas would claim it, find no body and set it aside again.
        if page.rows.iter().any(|row| row.state <= State::Waiting && overview::is_set_aside(row)) {
            return Ok(PollNow::NoBody);
        }
        match self.store.bring_forward(id).await? {
            Pinged::Recorded { .. } => {}
            Pinged::Ended(_) => return Ok(PollNow::TooLate),
            Pinged::Mismatch | Pinged::NotFound => return Ok(PollNow::NotFound),
        }
        let row = self.store.load(id).await?;
        Ok(row.map_or(PollNow::NotFound, |row| match row.leased {
            true => PollNow::InFlight,
            false => PollNow::Scheduled { due_in: row.due_in },
        }))
    }

    /// Releases an outcome whose consumer hangs, so that it is delivered again, and its holder cannot keep it. Also
    /// releases a verification that hangs, and a sign-in that was set aside and has its body back.
    ///
    /// It does not release a poll or an exchange in flight, because there must not be two: their leases end by
    /// themselves after some minutes.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn requeue(&self, id: ProcessId) -> Result<Requeue, Error> {
        Ok(match self.store.requeue(id).await? {
            Requeued::Done { state, .. } => Requeue::Done { state },
            Requeued::InUse { ends_in } => Requeue::InUse { ends_in },
            Requeued::NoBody => Requeue::NoBody,
            Requeued::Free => Requeue::Free,
            Requeued::NotFound => Requeue::NotFound,
        })
    }

    /// Marks a sign-in as cancelled. A replica tells the OP at the next poll, if the client is set to do so. The
    /// sign-in continues until the OP ends it, and its outcome is delivered.
    /// [`Poller::cancel`](crate::Poller::cancel) tells the OP at once.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn cancel(&self, id: ProcessId) -> Result<Cancel, Error> {
        Ok(match self.store.cancel(id, Cancellation::Requested).await? {
            Some(Cancellation::Requested) => Cancel::Requested,
            Some(Cancellation::Told) => Cancel::Told,
            Some(Cancellation::None) => Cancel::TooLate,
            None => Cancel::NotFound,
        })
    }

    /// Erases a sign-in in any state, counts what was erased, and looks again in a transaction of its own. The sign-in
    /// is no longer polled, and nothing is delivered.
    ///
    /// Copies of the database remain: backups, standbys, exports and, in PostgreSQL, the log of changes and dead rows
    /// until the database cleans up. With SQLite, the write-ahead log is emptied too.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn forget(&self, id: ProcessId) -> Result<Forgotten, Error> {
        let erased = self.store.erase(id).await?;
        let is_log_empty = self.store.scrub().await?;
        let is_listed = self.show(id).await?.is_some();
        Ok(Forgotten { id, erased: erased.erased, left: erased.left.max(u64::from(is_listed)), is_log_empty })
    }
}

/// Serializes a duration as whole seconds.
fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}
