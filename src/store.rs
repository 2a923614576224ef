//! Where waiting processes live: a small contract over opaque bodies and a schedule.

use std::fmt;
use std::time::Duration;

use futures_core::future::BoxFuture;

mod changes;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod column;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod contract;
mod error;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod process_id;
mod row;
mod rules;
mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::{StoreError, StoreProblem};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use postgres::{PostgresStore, PostgresStoreBuilder};
pub use process_id::{ParseProcessIdError, ProcessId};
pub use row::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClaimQuota, Claimed, ClaimedOutcome, Clamp, Clamped,
    Fingerprint, HeldOutcome, Insertion, KeyStats, NewProcess, Next, NextDue, OutcomeClaim, Outcomes, Partition,
    PartitionStats, Ping, Pinged, Process, Reseal, SealedBody, Settled, Settlement, State, Work,
};
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use sqlite::{SqliteStore, SqliteStoreBuilder};

/// A place for the processes of a [`Poller`](crate::Poller), shared by all of its replicas.
///
/// The store is the queue: replicas exchange no messages, they claim rows. It knows nothing of OAuth. A row has a body
/// that only the keyring opens, a [schedule](Settlement::schedule) that it keeps as text without reading it, and
/// columns that the database itself works on. [`MemoryStore`] is the smallest complete implementation, and
/// `store::contract` (feature `testing`) is the test suite that every implementation has to pass.
///
/// # A row
///
/// | column | meaning |
/// |---|---|
/// | `id` | minted before the exchange; primary key |
/// | `partition` | the client at its OP; claims name the partitions that they are for |
/// | `state` | [`State`] |
/// | `session` | a [`Fingerprint`], unique where it is not null |
/// | `lookup` | a [`Fingerprint`] of the `deferred_auth_id`, indexed, null before the exchange was answered |
/// | `due_at` | when somebody has to look at the row again |
/// | `leased_until` | a claim is being worked on; null if none is |
/// | `not_before` | the earliest moment to which a ping may move `due_at`; null if no ping may move it |
/// | `pinged_at` | when a ping came that no claim has followed yet |
/// | `interval` | what a claim adds to its lease in `due_at`, so that a row whose holder died is not asked about early, unless it would expire meanwhile |
/// | `expires_at` | when the OP's answer expires; null if the OP gave no end |
/// | `spread` | whether [`spread`](Self::spread) has moved the row since its last settlement |
/// | `decided_at` | when the present outcome was decided |
/// | `epoch` | counts claims |
/// | `attempts` | counts claims in the present state |
/// | `provisional` | the outcome gives way to a success that still comes |
/// | `cancellation` | [`Cancellation`] |
/// | `schedule` | text of some hundred bytes, opaque, not secret |
/// | `format`, `key` | of the body; claims name those that they can open |
/// | `first_key` | the `key` that the row was inserted with; it does not change |
///
/// The body, about a kilobyte, belongs in a table of its own beside a `revision` that counts its changes: most
/// settlements do not touch it.
///
/// Beside the rows, a store keeps how far [`clamp_due_times`](Self::clamp_due_times) has come: when the last run began,
/// whether it is under way, and the last `id` that it has looked at.
///
/// A row can lose its body, by a mistake of an operator or a partial restore. It must not fail the calls for other rows:
/// a claim **sets it aside**, which makes its due time later than every other, names it in the answer, and leaves its
/// state as it is, so that [`load`](Self::load), [`forget`](Self::forget) and [`stats`](Self::stats) see it.
///
/// # Time
///
/// All time is the store's own: the database's clock, or for a store within one process the injected clock. Methods
/// take durations, which count from the moment the store carries the call out, and answer with the moment where a
/// caller needs it. Resolution is a millisecond or better. A duration that the column cannot hold ends at the latest
/// time it can.
///
/// # Atomicity
///
/// Each call is one transaction: after an error nothing of it has happened, or all of it, where the commit's answer was
/// lost. Every method can therefore be called again. What a call has answered survives the machine's crash. Calls on
/// one row take effect one after the other. Claims skip rows that another claim is taking at the same moment.
pub trait Store: fmt::Debug + Send + Sync {
    /// Adds a process, unless one with one of its `sessions` or `lookups` is there: then nothing changes, and that one
    /// is named. Of several, `sessions` counts first. A row with the same `id` counts as the insertion having
    /// succeeded before.
    ///
    /// The row gets `epoch` 0, no ping and no cancellation, the first of `sessions` and of `lookups`, and
    /// `due_at = now + due_in` and `expires_at = now + expires_in`. [`State::Exchanging`] is leased from the start:
    /// `leased_until = due_at`.
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>>;

    /// Carries out the settlements in their order, then takes the claim, in one transaction.
    ///
    /// **A settlement** with an `epoch` applies to a row in the state [`Exchanging`](State::Exchanging),
    /// [`Waiting`](State::Waiting) or [`Answered`](State::Answered) whose epoch is that one. Without an `epoch` it
    /// carries an answer that the OP gives once only, and applies to `Exchanging`, `Waiting`, and `Decided` while
    /// `provisional`; the row's epoch then grows by one, so that the holder of a lease finds itself overtaken. One with a
    /// `lookup` applies only to a row without: it carries the answer to the exchange, which is settled again if it is not
    /// known to have been stored, and must not take back what has become of the process since. Anything else is
    /// [`Settled::Stale`] and changes nothing. Applied, it sets
    ///
    /// - `state` as [`Next`] says, `provisional`, `leased_until = null`, `schedule`, `interval`, and that the row is not
    ///   `spread`;
    /// - `attempts = 0` where the state changes, and `decided_at = now` for [`Next::Decided`];
    /// - `expires_at = now + expires_in`, or null without one;
    /// - `not_before = now + ping_in`, or null without one;
    /// - `due_at = now + due_in`; for [`Next::Waiting`] with a ping noted and a `ping_in`, the earlier of that and
    ///   `now + ping_in`;
    /// - `lookup`, the body (with its `format`, `key` and `revision + 1`) where they are given;
    /// - for [`Next::Ended`] the body is erased, as by an acknowledgement.
    ///
    /// **The claim** takes rows of the partitions that it names with `due_at <= now`, whose `format` is at most the
    /// claim's and whose `key` is one of its keys: for each [`ClaimQuota`], up to `polls` rows in `Waiting` and up to
    /// `verifications` rows in `Exchanging` and `Answered`, earliest `due_at` first. Where that comes to more than
    /// `limit`, `Exchanging` and `Answered` come first, and then the earliest of all partitions. Each gets
    /// `leased_until = now + lease`, `due_at = leased_until + interval` or, where that is earlier, the later of
    /// `leased_until` and `expires_at - 5 s`, `epoch + 1`, `attempts + 1`,
    /// `pinged_at = null`, and `not_before = null` where there was a ping, for a poll that a ping
    /// has brought forward is not followed by another such poll. A row that still had a `leased_until` is [`orphaned`](Claimed::orphaned). Rows without a body
    /// are set aside and named in [`Work::set_aside`]; they may count towards the limits.
    ///
    /// While a run of [`clamp_due_times`](Self::clamp_due_times) is under way, nothing is claimed and [`Work::clamping`]
    /// is set.
    ///
    /// [`Work::due`] says for each quota how long it is from now until the earliest `due_at` of the rows that the claim
    /// could take if its limits allowed, those just claimed included; zero if the limits left due rows behind.
    fn work(&self, settlements: Vec<Settlement>, claim: Option<Claim>) -> BoxFuture<'_, Result<Work, StoreError>>;

    /// A row as it is.
    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>>;

    /// Notes a ping. It is meant for the row with [`Ping::id`] or, without one, for the row whose `lookup` is among
    /// [`Ping::lookups`].
    ///
    /// - No such row: [`Pinged::NotFound`].
    /// - The row has a `lookup` that is not among [`Ping::lookups`]: [`Pinged::Foreign`], and nothing changes. A row
    ///   without `lookup` takes any.
    /// - The row is beyond `Waiting`: [`Pinged::Ended`], and nothing changes.
    /// - Otherwise [`Pinged::Noted`]: `pinged_at = now`, and `due_at` becomes the later of `now` and `not_before`, unless
    ///   it is earlier already. It stays where `not_before` is null, and where a lease is set that has not run out
    ///   (`leased_until > now`). The holder of a lease that has run out has died, and its row is brought forward.
    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>>;

    /// Moves `cancellation` forward, never back, and answers with what it is then. Rows that are beyond `Waiting` keep
    /// what they have. `None` if there is no row. Nothing else changes.
    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>>;

    /// Claims outcomes: up to `limit` rows in the state [`Decided`](State::Decided), of all partitions, with
    /// `due_at <= now`, a `format` and a `key` that the claim can open. Where more are due, partitions are served in
    /// turn, in their order and beginning after `after`: one row of each, then the next of each, the earliest `due_at`
    /// of a partition first. So a partition with a million outcomes does not hold up the others. Each row gets
    /// `due_at = now + lease`, `epoch + 1`, `attempts + 1`. Rows without a body are set aside.
    ///
    /// [`Outcomes::next_in`] is the time from now until the earliest `due_at` of the outcomes that the claim could take,
    /// those just claimed included; zero if the limit left due outcomes behind.
    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<Outcomes, StoreError>>;

    /// Holds claimed outcomes for longer, or lets go of them: `due_at = now + due_in` for each whose row is `Decided`
    /// with the same `epoch`. Answers for each whether that was so, in the same order.
    fn hold_outcomes(&self, held: Vec<HeldOutcome>, due_in: Duration) -> BoxFuture<'_, Result<Vec<bool>, StoreError>>;

    /// Acknowledges outcomes, whatever their epoch. A row that is `Decided` with the same `provisional` becomes
    /// [`State::Acknowledged`] with `due_at = now + keep`, and its body is erased: [`Acknowledged::Done`]. Answers in
    /// the same order.
    fn acknowledge(
        &self,
        acknowledgements: Vec<Acknowledgement>,
    ) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>>;

    /// Erases a row in whatever state, body and all, and says whether there was one.
    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Erases up to `limit` rows that are `Acknowledged` with `due_at <= now`, and says how many.
    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Spreads rows of a partition after an outage: up to `limit` rows in `Waiting` that are not leased, have been due for
    /// `overdue_for` or longer, and are not `spread` since their last settlement, earliest `due_at` first. They are
    /// marked as `spread`, and `due_at = now + x * y`. Here `x` is the first four bytes of the `id` as a fraction (big
    /// endian, divided by 2³²), and `y` is the row's `interval`, or the time from now until 5 s before `expires_at`
    /// where that is shorter. A row without time left stays due.
    ///
    /// Says how many rows were marked. There may be a million of them, and other calls have to be served between two
    /// steps: call again while the answer is `limit`.
    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// One step of putting due times right after the store's clock has jumped in either direction. It looks at the next
    /// `limit` rows in the order of their `id`, in one short transaction. Steps are repeated until the answer is
    /// [`Clamped::Done`].
    ///
    /// **Runs.** A caller that noticed a jump ([`Clamp::noticed`]) starts a run, unless one began after the caller last
    /// saw the clock right, that is between `now - noticed` and `now`. Such a run is continued if it is under way, and
    /// nothing is to be done if it has finished. Therefore one jump causes one run, however many replicas notice it. A run that began
    /// before that, or that seems to have begun in the future, is of an earlier jump, and the new run begins with the first row.
    /// A caller that noticed nothing continues a run that is under way. Any replica may, so a run outlives the replica
    /// that began it. While another replica is carrying out a step, the answer is [`Clamped::Busy`].
    ///
    /// **Rules**, for rows that are not `Acknowledged` and not set aside, with `x` as in [`spread`](Self::spread):
    ///
    /// - In `Exchanging`, `Waiting` and `Answered`, a `leased_until` becomes `now + longest`. Its holder may be at work,
    ///   and nothing says for how long. Then `due_at = leased_until + interval * (1 + x)`.
    /// - Otherwise, a `due_at` later than `now + longest + interval * (1 + x)` becomes that. Its clock was set back.
    /// - Otherwise, in `Waiting`, a `due_at` earlier than `now + interval` becomes `now + interval * (1 + x)`, so that no
    ///   poll is early if the clock was set forward. Where `expires_at` lies between now and that, it becomes the later
    ///   of `now + 1 s` and `expires_at - 5 s` instead, unless `due_at` is later already.
    /// - A `not_before` later than the new `due_at` becomes that. So does, under the rule before this one, a `not_before`
    ///   later than now: the OP has asked to be left alone, and the clock does not say for how long it still has to be.
    fn clamp_due_times(&self, clamp: Clamp) -> BoxFuture<'_, Result<Clamped, StoreError>>;

    /// Up to `limit` rows with bodies that another key than `key` sealed, in the order of their `id` and beginning
    /// after `after`, for sealing them again.
    fn sealed_otherwise(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>>;

    /// Replaces bodies whose `revision` is still the given one. Says for each whether it was, in the same order.
    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>>;

    /// Which rows need which key, the keys that none needs left out. It may take a while, and counts each row as it was at
    /// some moment of it. A key that the keyring lacks, or
    /// a format newer than this release reads, stands for rows that no claim takes.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>>;

    /// How many rows there are of each partition, those without rows left out. It may take a while where there are
    /// millions, and need not be of one moment.
    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>>;

    /// Completes when something may have become due or decided since this was *called* (not since it was first
    /// polled), by anyone who shares the store, and says what. Both fields cover everything until it completes.
    ///
    /// It is a hint: it may come too often or, where the store cannot know, never;
    /// [`look_every`](Self::look_every) then bounds what that costs. It need not come for what the answer to a call says
    /// itself, such as the due times of rows that a call of [`work`](Self::work) settles that also claims.
    fn changed(&self) -> BoxFuture<'static, Changed>;

    /// How long to trust [`changed`](Self::changed) before looking all the same.
    fn look_every(&self) -> Duration;

    /// Whether what was stored is gone when this process ends, so that keys that end with it are good enough.
    fn is_ephemeral(&self) -> bool {
        false
    }
}
