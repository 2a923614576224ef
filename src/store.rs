//! The stores of pending sign-ins, and the contract of a store of your own.
//!
//! A [`Poller`](crate::Poller) keeps its sign-ins in a [`Store`]: in memory ([`MemoryStore`]), in an SQLite file
//! (`SqliteStore`, feature `sqlite`), or in a PostgreSQL database (`PostgresStore`, feature `postgres`). A
//! [`ProcessId`] identifies one sign-in or token request, which the drafts call a process. Applications need no more than
//! that. Everything else here is for a store of your own: start with [`Store`].

use std::fmt;
use std::time::Duration;

use futures_core::future::BoxFuture;

mod changes;
mod client_note;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod column;
mod constructors;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod contract;
mod error;
mod finding;
mod listing;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod process_id;
mod row;
mod rules;
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod stored_row;

pub use client_note::{Acceptance, ClientNote, KnownClient};
pub use error::{StoreError, StoreProblem};
pub use finding::{Finding, Severity};
pub use listing::{Among, Listing, Page, ParsePlaceError, Place, RowOverview};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use postgres::{PostgresStore, PostgresStoreBuilder};
pub use process_id::{ParseProcessIdError, ProcessId};
pub use row::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClaimQuota, Claimed, ClaimedOutcome, ClockJump,
    CorrectionProgress, CorrectionStep, Erased, Fingerprint, HeldOutcome, Insertion, NewProcess, Next, NextDue,
    Noticed, OutcomeBatch, OutcomeClaim, Partition, Ping, Pinged, Process, Requeued, Reseal, SealedBody, Settled,
    Settlement, State, Work,
};
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use sqlite::{Backup, SqliteStore, SqliteStoreBuilder};
pub(crate) use stats::whole_seconds;
pub use stats::{KeyStats, PartitionStats};
pub use stored_row::{Imported, StoredRow};

/// Stores the sign-ins of a [`Poller`](crate::Poller), shared by all of its replicas.
///
/// It is a queue of rows with due times and leases. Its methods are:
///
/// | for | methods |
/// |---|---|
/// | the life of a row | [`insert`](Self::insert), [`load`](Self::load), [`ping`](Self::ping), [`cancel`](Self::cancel), [`forget`](Self::forget), [`purge`](Self::purge) |
/// | polling | [`settle_and_claim`](Self::settle_and_claim) settles rows and claims others |
/// | delivery | [`claim_outcomes`](Self::claim_outcomes), [`extend_outcomes`](Self::extend_outcomes), [`release_outcomes`](Self::release_outcomes), [`acknowledge`](Self::acknowledge), [`expire_outcomes`](Self::expire_outcomes) |
/// | outages and clocks | [`spread`](Self::spread), [`correct_due_times`](Self::correct_due_times) |
/// | sealing keys | [`not_sealed_with`](Self::not_sealed_with), [`reseal`](Self::reseal), [`keys`](Self::keys) |
/// | names of clients | [`note_clients`](Self::note_clients), [`known_clients`](Self::known_clients) |
/// | operators | [`stats`](Self::stats), [`list`](Self::list), [`bring_forward`](Self::bring_forward), [`requeue`](Self::requeue), [`erase`](Self::erase), [`scrub`](Self::scrub) |
/// | moving to another database | [`export`](Self::export), [`import`](Self::import) |
/// | waking replicas | [`changed`](Self::changed), [`check_interval`](Self::check_interval) |
/// | what it is | [`is_ephemeral`](Self::is_ephemeral) |
///
/// The structs of the calls may get more fields, so they have constructors, and a new method will have a default
/// implementation. Run the test suite again after an update: it tests what is new.
///
/// The store is the queue: replicas exchange no messages, they claim rows. The store knows nothing about OAuth. Each
/// row holds one sign-in. It has a body that only the keyring can open, a [schedule](Settlement::schedule) that the
/// store keeps as opaque text, and columns that the database works on. [`MemoryStore`] is the smallest complete
/// implementation, and `store::contract` (feature `testing`) is the test suite that every implementation has to pass.
///
/// # A row
///
/// | column | meaning |
/// |---|---|
/// | `id` | created before the exchange; primary key |
/// | `partition` | the client at its OP; a claim names the partitions to take rows from |
/// | `state` | [`State`] |
/// | `session` | a [`Fingerprint`], unique where it is not null |
/// | `lookup` | a [`Fingerprint`] of the `deferred_auth_id`, indexed, null until the exchange is answered |
/// | `reference` | a [`Fingerprint`] of the application's reference, indexed, may be null; it does not change |
/// | `started_at` | when the row was inserted; it does not change |
/// | `due_at` | when the row must be processed again |
/// | `leased_until` | when the lease of the current claim ends; null if the row is not claimed |
/// | `not_before` | the earliest moment to which a ping may move `due_at`; null if no ping may move it. In `Decided`: the `due_at` that the last release set, for operators |
/// | `pinged_at` | when the last ping arrived; null if there was none, or a claim has followed it |
/// | `interval` | added to the end of the lease to get `due_at`, so that the OP is not polled too early after the holder of a claim died; a row that would expire first is due before it expires |
/// | `expires_at` | when the sign-in expires at the OP; null if the OP set no limit |
/// | `spread` | whether [`spread`](Self::spread) has moved the row since its last settlement |
/// | `decided_at` | when the current outcome was decided |
/// | `epoch` | counts claims |
/// | `attempts` | counts claims in the current state |
/// | `provisional` | a success that arrives later replaces the outcome |
/// | `cancellation` | [`Cancellation`] |
/// | `schedule` | opaque text of a few hundred bytes, not secret |
/// | `format`, `key` | the format of the body and the key that sealed it; a claim names those that it can open |
/// | `first_key` | the `key` that the row was inserted with; it does not change |
///
/// Store the body (about a kilobyte) in a table of its own, because most settlements do not change it. A `revision`
/// counts its changes.
///
/// Besides the rows, a store records the progress of [`correct_due_times`](Self::correct_due_times): the jump of the
/// last run, whether it is still running, the last `id` that it processed, and the sum of the jumps of all runs. And it
/// keeps the [names of clients](Self::note_clients), for operators.
///
/// A row can lose its body through an operator's mistake or a partial restore. Such a row must not make calls for other
/// rows fail. A claim **sets it aside**: it gives the row a due time later than any other and names the row in its
/// answer. The state does not change, so [`load`](Self::load), [`forget`](Self::forget) and [`stats`](Self::stats)
/// still see the row.
///
/// # Time
///
/// All times come from the store's own clock: the database's clock, or the injected clock of a store within one
/// process. Methods take durations, counted from the moment at which the store executes the call. They return that
/// moment if the caller needs it. The resolution is a millisecond or better. A duration that is too long for the column
/// ends at the latest time that the column can hold.
///
/// # Atomicity
///
/// Each call is one transaction. After an error, either none of it has happened or, if the answer to the commit was
/// lost, all of it. Every method can therefore be called again. The effects of an answered call survive a crash of the
/// machine. Calls on one row take effect one after the other. A claim skips rows that another claim is taking at the
/// same moment.
pub trait Store: fmt::Debug + Send + Sync {
    /// Adds a row, unless a row with one of its `sessions` or `lookups` exists.
    ///
    /// If one exists, nothing changes, and its `id` is returned. `sessions` are compared before `lookups`. If a row
    /// with the same `id` exists, an earlier call of this insertion succeeded.
    ///
    /// The row gets `epoch` 0, no ping, no cancellation, the first of `sessions`, of `lookups` and of `references`,
    /// `started_at = now`, `due_at = now + due_in`, and `expires_at = now + expires_in`. A row in [`State::Exchanging`] is leased from the
    /// start: `leased_until = due_at`.
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>>;

    /// Applies the settlements in order and then makes the claim, in one transaction.
    ///
    /// **A settlement** with an `epoch` applies to a row in the state [`Exchanging`](State::Exchanging),
    /// [`Waiting`](State::Waiting) or [`Answered`](State::Answered) and with the same epoch. A settlement without an
    /// `epoch` carries an answer that the OP gives only once. It applies to `Exchanging`, `Waiting`, and `Decided`
    /// while `provisional`, and increments the row's epoch, so that a later settlement by the holder of a lease is
    /// stale. A settlement with a `lookup` carries the answer to the exchange, and applies only to a row without a
    /// `lookup`. The caller repeats it if it does not know whether the answer was stored, and the repetition must not
    /// undo later changes of the row. Any other settlement is [`Settled::Stale`] and changes nothing. A settlement that
    /// applies sets
    ///
    /// - `state` and `provisional` as [`Next`] says, `leased_until = null`, `spread = false`, `schedule`, and
    ///   `interval`;
    /// - `attempts = 0` if the state changes, and `decided_at = now` for [`Next::Decided`];
    /// - `expires_at = now + expires_in`, or null without `expires_in`;
    /// - `not_before = now + ping_in`, or null without `ping_in`;
    /// - `due_at = now + due_in`; for [`Next::Waiting`], if a ping was noted and there is a `ping_in`, the earlier of
    ///   `now + due_in` and `now + ping_in`;
    /// - `lookup` and the body (with its `format` and `key`, and `revision + 1`), if they are given;
    /// - no body for [`Next::Ended`]: it is erased, as by an acknowledgement.
    ///
    /// **The claim** takes rows of the partitions that it names with `due_at <= now`, a `format` of at most the
    /// claim's, and one of the claim's keys as `key`. For each [`ClaimQuota`] it takes up to `polls` rows in `Waiting`,
    /// and up to `verifications` rows in `Exchanging` and `Answered`, earliest `due_at` first. If there are more than
    /// `limit` such rows, rows in `Exchanging` and `Answered` come first, and then the earliest rows of all partitions.
    ///
    /// A claimed row gets
    ///
    /// - `leased_until = now + lease`;
    /// - `due_at = leased_until + interval` or, if that is earlier, the later of `leased_until` and `expires_at - 5 s`;
    /// - `epoch + 1` and `attempts + 1`;
    /// - `pinged_at = null`, and after a ping `not_before = null`, because pings must not bring two polls in a row
    ///   forward.
    ///
    /// A row whose `leased_until` was still set is [`orphaned`](Claimed::orphaned). Rows without a body are set aside
    /// and named in [`Work::set_aside`]; they may count towards the limits.
    ///
    /// During a run of [`correct_due_times`](Self::correct_due_times), nothing is claimed and [`Work::correcting`] is
    /// set.
    ///
    /// For each quota, [`Work::due`] holds the time from now until the earliest `due_at` of the rows that the claim
    /// could take without its limits, including the rows just claimed. It is zero if the limits left due rows behind.
    fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<Claim>,
    ) -> BoxFuture<'_, Result<Work, StoreError>>;

    /// Returns the current row.
    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>>;

    /// Records a ping. It concerns the row with [`Ping::id`] or, without an `id`, the row whose `lookup` is among
    /// [`Ping::lookups`].
    ///
    /// - No such row: [`Pinged::NotFound`].
    /// - The row has a `lookup` that is not among [`Ping::lookups`]: [`Pinged::Mismatch`], and nothing changes. A row
    ///   without a `lookup` accepts any.
    /// - The row is in a state after `Waiting`: [`Pinged::Ended`], and nothing changes.
    /// - Otherwise [`Pinged::Recorded`]: `pinged_at = now`, and `due_at` becomes the later of `now` and `not_before`,
    ///   unless it is already earlier. `due_at` does not change if `not_before` is null, or if the row has a lease that
    ///   has not expired (`leased_until > now`). If its lease has expired, its holder has died, and the row becomes
    ///   due earlier.
    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>>;

    /// Moves `cancellation` forward, never back, and returns its value after the call. In a state after `Waiting` it
    /// does not change. Returns `None` if there is no row. Nothing else changes.
    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>>;

    /// Claims outcomes: up to `limit` rows of all partitions in the state [`Decided`](State::Decided), with
    /// `due_at <= now` and a `format` and `key` that the claim can open.
    ///
    /// If more rows are due, the claim takes them from the partitions by round robin, in the order of the partitions
    /// and starting after `after`: first one row of each partition, then the next row of each, the earliest `due_at` of
    /// a partition first. So a partition with a million outcomes does not delay the others. Each row gets
    /// `due_at = now + lease`, `epoch + 1`, and `attempts + 1`. Rows without a body are set aside.
    ///
    /// [`OutcomeBatch::next_in`] is the time from now until the earliest `due_at` of the outcomes that the claim could
    /// take, including those just claimed. It is zero if the limit left due outcomes behind.
    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<OutcomeBatch, StoreError>>;

    /// Extends claims on outcomes: `due_at = now + due_in` for each row that is `Decided` with the same
    /// `epoch`. Returns whether that was the case for each of them, in the same order.
    fn extend_outcomes(&self, held: Vec<HeldOutcome>, due_in: Duration)
    -> BoxFuture<'_, Result<Vec<bool>, StoreError>>;

    /// Releases claims on outcomes that were not acknowledged, for a delivery after `due_in`: like
    /// [`extend_outcomes`](Self::extend_outcomes), but also sets `not_before` to the new `due_at`. An outcome whose
    /// `not_before` equals its `due_at` waits for its next delivery, and no consumer has it in hand.
    fn release_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.extend_outcomes(held, due_in)
    }

    /// Acknowledges outcomes, regardless of their epoch. A row that is `Decided` with the same `provisional` becomes
    /// [`State::Acknowledged`] with `due_at = now + keep`, and its body is erased: [`Acknowledged::Done`]. The results
    /// are in the same order.
    fn acknowledge(
        &self,
        acknowledgements: Vec<Acknowledgement>,
    ) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>>;

    /// Erases a row in any state, including its body, and returns whether there was one.
    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Erases up to `limit` rows that are `Acknowledged` with `due_at <= now`, and returns their number.
    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Erases the bodies of up to `limit` unacknowledged outcomes that were decided at least `decided_for` ago, whether
    /// they are claimed or not: rows that are `Decided` with `decided_at <= now - decided_for`. They become
    /// [`State::Acknowledged`] with `due_at = now + keep`. Returns their identifiers.
    fn expire_outcomes(
        &self,
        decided_for: Duration,
        keep: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ProcessId>, StoreError>>;

    /// Spreads overdue rows of a partition over time after an outage.
    ///
    /// It takes up to `limit` rows in `Waiting` that are not leased, have been due for `overdue_for` or longer, and
    /// have not been `spread` since their last settlement, earliest `due_at` first. It marks them as `spread` and sets
    /// `due_at = now + x * y`. Here `x` is the first four bytes of the `id` as a fraction (big endian, divided by 2³²).
    /// `y` is the row's `interval` or, if that is shorter, the time from now until 5 s before `expires_at`. If no such
    /// time is left, `due_at` does not change.
    ///
    /// Returns the number of rows that were marked. Call again while it is `limit`. There may be a million rows, and
    /// other calls must be served between two steps.
    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Corrects due times after a jump of the store's clock in either direction, in steps.
    ///
    /// Each step processes the next `limit` rows in the order of their `id`, in one short transaction. Call it until
    /// the answer is [`CorrectionProgress::Done`].
    ///
    /// **Runs.** The store records the jump of the last run, and the sum of the jumps of all runs, which
    /// [`Work::corrected`] returns. A caller that noticed a jump ([`CorrectionStep::noticed`]) starts a run for it if the sum is
    /// still [`Noticed::corrected`], and the jump is added to the sum. Otherwise another replica has started the run.
    /// Therefore each jump is corrected once, however many replicas notice it. If a run for an earlier jump is not
    /// finished, it is continued first, and the answer is [`CorrectionProgress::More`].
    ///
    /// A caller that noticed nothing, or whose jump another replica corrects, continues the current run. Any replica can
    /// do that, so a run survives the replica that started it. While another replica executes a step, the answer is
    /// [`CorrectionProgress::Busy`].
    ///
    /// **Rules**, for rows that are not `Acknowledged` and not set aside. `x` is defined as in [`spread`](Self::spread).
    /// `shift` is the jump of the run, or zero if the clock was set back. Rows move to a later time by it.
    ///
    /// - In `Exchanging`, `Waiting` and `Answered`, a `leased_until` that is set moves by `shift`, to
    ///   `now + longest` at most. `due_at` moves by `shift` too, to `now + longest + interval * (1 + x)` at most.
    /// - Otherwise, a `due_at` later than `now + longest + interval * (1 + x)` becomes that time. The clock was set
    ///   back.
    /// - Otherwise, in `Waiting`, a `due_at` earlier than `now + interval` moves by `shift`, to
    ///   `now + interval * (1 + x)` at most. If `expires_at` is later than now, it moves to the later of `now + 1 s` and
    ///   `expires_at - 5 s` at most. So no poll is too early, and repeated jumps delay a poll by their sum at most.
    /// - A `not_before` moves by `shift`, to the new `due_at` at most. It stays if it would be in the past.
    fn correct_due_times(&self, step: CorrectionStep) -> BoxFuture<'_, Result<CorrectionProgress, StoreError>>;

    /// Returns rows to seal again: up to `limit` rows whose bodies were sealed with another key than `key`, in the
    /// order of their `id` and starting after `after`.
    fn not_sealed_with(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>>;

    /// Replaces each body whose `revision` is still the given one. Returns whether it was for each of them, in the same
    /// order.
    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>>;

    /// Returns how many rows need each key. Keys that no row needs are omitted.
    ///
    /// The call may take a while, and counts each row in its state at some moment during the call. No claim takes rows
    /// whose key is missing from the keyring, or whose format is newer than this release can read.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>>;

    /// Returns the number of rows of each partition. Partitions without rows are omitted.
    ///
    /// With millions of rows the call may take a while, and the numbers need not be of one moment.
    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>>;

    /// Records the issuers and client identifiers of partitions, and which clients their OPs refuse, for operators.
    ///
    /// The first name of a partition stays, also when it has no rows any more. Issuers and client identifiers are
    /// public, and are no personal data. [`Acceptance::Refused`] also records the time, for
    /// [`KnownClient::refused_ago`], and [`Acceptance::Accepted`] removes it. Nothing that replicas do depends on the
    /// notes. A store that keeps none has nothing to do.
    fn note_clients(&self, clients: Vec<ClientNote>) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = clients;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns what is known of these partitions, in any order. Those without a note are omitted.
    fn known_clients(&self, partitions: Vec<Partition>) -> BoxFuture<'_, Result<Vec<KnownClient>, StoreError>> {
        let _ = partitions;
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Returns a page of rows for an operator, in the order of their `id` or, with
    /// [`overdue_for`](Listing::overdue_for), in the order in which they became due.
    ///
    /// A call reads a few thousand rows at most, whatever the size of the store, and does not delay claims. Therefore a
    /// page may have fewer rows than its limit although more follow: go on while there is a [`next`](Page::next) page.
    /// Rows that do not change meanwhile are listed once. [`Listing::takes`] is the rule for the conditions.
    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, StoreError>> {
        let _ = listing;
        unsupported("list rows")
    }

    /// Brings the next poll of a row forward for an operator. Unlike a [ping](Self::ping), this does not come from the OP,
    /// so the interval counts.
    ///
    /// - No row: [`Pinged::NotFound`]. A state after `Waiting`: [`Pinged::Ended`].
    /// - Otherwise [`Pinged::Recorded`]. If the row has no lease (`leased_until` is null) and a `not_before`,
    ///   `pinged_at = now`, and `due_at` becomes the later of `now` and `not_before + interval`, unless it is already
    ///   earlier. Otherwise nothing changes.
    fn bring_forward(&self, id: ProcessId) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        let _ = id;
        unsupported("bring a row forward")
    }

    /// Releases a row whose claim hangs, or which was set aside.
    ///
    /// - No row, or a tombstone: [`Requeued::NotFound`]. A row without a body: [`Requeued::NoBody`].
    /// - `Decided`: `due_at = now` and `epoch + 1`, so that the holder cannot extend its claim. If `due_at` is already
    ///   past, [`Requeued::Free`].
    /// - A row that was set aside: `due_at = now` and `epoch + 1`. Its body is back, and it was due when it was set aside.
    /// - `Answered` with a lease that has not expired: `due_at = now`, `leased_until = null` and `epoch + 1`, so that
    ///   the holder's settlement is stale. No poll is sent in this state.
    /// - `Exchanging` or `Waiting` with a lease that has not expired: [`Requeued::InUse`], because a request may be in
    ///   flight, and there must not be two.
    /// - Otherwise [`Requeued::Free`]. Nothing changes except where it says so.
    fn requeue(&self, id: ProcessId) -> BoxFuture<'_, Result<Requeued, StoreError>> {
        let _ = id;
        unsupported("requeue a row")
    }

    /// Erases a row like [`forget`](Self::forget), and counts its entries in all tables before and after that.
    fn erase(&self, id: ProcessId) -> BoxFuture<'_, Result<Erased, StoreError>> {
        Box::pin(async move {
            let erased = u64::from(self.forget(id).await?);
            Ok(Erased { erased, left: u64::from(self.load(id).await?.is_some()) })
        })
    }

    /// Removes what erased rows have left outside of the tables, in a log, and returns whether nothing is left there. A
    /// store that cannot do that returns `false`.
    fn scrub(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Returns up to `limit` rows with all of their columns, in the order of their `id` and starting after `after`.
    fn export(&self, after: Option<ProcessId>, limit: usize) -> BoxFuture<'_, Result<Vec<StoredRow>, StoreError>> {
        let _ = (after, limit);
        unsupported("export rows")
    }

    /// Adds rows that another store has exported, with all of their columns as they are. A row whose `id` or session
    /// exists is not added and changes nothing. The results are in the same order.
    fn import(&self, rows: Vec<StoredRow>) -> BoxFuture<'_, Result<Vec<Imported>, StoreError>> {
        let _ = rows;
        unsupported("import rows")
    }

    /// Completes when a row may have become due, or an outcome may have been decided, through any replica since this
    /// method was *called* (not since the future was first polled). Both fields cover everything until the future completes.
    ///
    /// It is a hint. It may complete too often or, if the store cannot know, never; [`check_interval`](Self::check_interval)
    /// bounds the delay in that case. It need not complete for changes that the answer to a call already reports, such
    /// as the due times of rows settled by a call of [`settle_and_claim`](Self::settle_and_claim) that also claims.
    fn changed(&self) -> BoxFuture<'static, Changed>;

    /// How long to wait for [`changed`](Self::changed) before checking the store anyway.
    fn check_interval(&self) -> Duration;

    /// Whether the stored data is lost when this process ends. If so, ephemeral keys suffice.
    fn is_ephemeral(&self) -> bool {
        false
    }
}

/// The answer of a store that does not implement a method.
fn unsupported<T>(what: &str) -> BoxFuture<'static, Result<T, StoreError>>
where
    T: Send + 'static,
{
    let error = StoreError::new(StoreProblem::Unsupported).with_source(format!("it cannot {what}"));
    Box::pin(std::future::ready(Err(error)))
}
