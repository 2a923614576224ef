//! The types of the calls to a store and of their answers.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, Serializer};

use super::ProcessId;

/// One client at one OP: a hash of issuer and client identifier that is the same in every release and replica.
///
/// It serializes as text, because JSON parsers round large numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i64);

impl Serialize for Partition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A keyed hash to find a row by. Without the keyring it reveals nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Fingerprint(..)")
    }
}

/// The sealed data of a sign-in, from the application and the OP.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBody {
    /// The version of the plaintext. A release does not process rows with a newer format than it knows.
    pub format: u8,
    /// The identifier of the key that sealed it.
    pub key: [u8; 4],
    /// The envelope.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for SealedBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SealedBody")
            .field("format", &self.format)
            .field("key", &format_args!("{:08x}", u32::from_be_bytes(self.key)))
            .field("length", &self.bytes.len())
            .finish()
    }
}

/// The state of a sign-in, and of its row. Stores keep the numbers. It serializes as its name in snake case.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Its code is being exchanged.
    Exchanging = 0,
    /// The OP has not decided.
    Waiting = 1,
    /// The OP has approved. Its success response is in the body and has yet to be verified.
    Answered = 2,
    /// The outcome is known. It is in the body and has yet to be acknowledged.
    Decided = 3,
    /// A tombstone without a body: the outcome was acknowledged, or none is delivered.
    Acknowledged = 4,
}

impl State {
    /// Returns the state with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Exchanging, Self::Waiting, Self::Answered, Self::Decided, Self::Acknowledged]
            .into_iter()
            .find(|state| *state as u8 == number)
    }
}

/// Whether the application has cancelled a sign-in. Stores keep the numbers. It serializes as its name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Cancellation {
    /// The application has not cancelled it.
    #[default]
    None = 0,
    /// The application has cancelled it, and the OP has not been told yet.
    Requested = 1,
    /// The application has cancelled it, and the OP was told or cannot be told.
    Told = 2,
}

impl Cancellation {
    /// Returns the cancellation with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Requested, Self::Told].into_iter().find(|cancellation| *cancellation as u8 == number)
    }
}

/// A row to add.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct NewProcess {
    /// Its identifier.
    pub id: ProcessId,
    /// Its client.
    pub partition: Partition,
    /// [`State::Exchanging`] or [`State::Waiting`].
    pub state: State,
    /// Fingerprints of the authorization session, one for each key of the keyring. The store keeps the first, and
    /// searches for all of them.
    pub sessions: Vec<Fingerprint>,
    /// Fingerprints of the `deferred_auth_id`, treated in the same way.
    pub lookups: Vec<Fingerprint>,
    /// Fingerprints of the reference that the application gave, one for each key of the keyring. The store keeps the
    /// first, to [list](super::Store::list) rows by. Several rows may have the same.
    pub references: Vec<Fingerprint>,
    /// The time until the row is due.
    pub due_in: Duration,
    /// The earliest time at which a ping may make the row due, from now; `None` if pings have no effect.
    pub ping_in: Option<Duration>,
    /// See [`Settlement::interval`].
    pub interval: Duration,
    /// See [`Settlement::expires_in`].
    pub expires_in: Option<Duration>,
    /// See [`Settlement::schedule`].
    pub schedule: String,
    /// The sealed body.
    pub body: SealedBody,
}

/// The result of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// The row exists.
    Inserted {
        /// The store's time.
        now: SystemTime,
    },
    /// A row for the same session or `deferred_auth_id` existed before.
    Exists(ProcessId),
}

/// The result of work on one row.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The row.
    pub id: ProcessId,
    /// The epoch of the claim. `None` if the settlement carries an answer that the OP gives only once: such a
    /// settlement applies regardless of the lease.
    pub epoch: Option<i64>,
    /// The next state of the row.
    pub next: Next,
    /// The time until the row is due. For [`Next::Ended`]: the time until the tombstone is erased.
    pub due_in: Duration,
    /// The earliest time at which a ping may make the row due, from now; `None` if pings have no effect.
    pub ping_in: Option<Duration>,
    /// The time from now during which the OP must not be polled: the current interval, or the rest of a longer
    /// `Retry-After`.
    pub interval: Duration,
    /// The time until the sign-in expires at the OP; `None` if the OP set no limit. A poll is not postponed beyond it.
    pub expires_in: Option<Duration>,
    /// Text to keep and to return with the next claim.
    pub schedule: String,
    /// The fingerprint of the `deferred_auth_id`, if it has just become known.
    pub lookup: Option<Fingerprint>,
    /// The new body, if it has changed.
    pub body: Option<SealedBody>,
}

/// The next state of a settled row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// [`State::Waiting`].
    Waiting,
    /// [`State::Answered`].
    Answered,
    /// [`State::Decided`].
    Decided {
        /// Whether a success that arrives later replaces the outcome.
        provisional: bool,
    },
    /// [`State::Acknowledged`]: no outcome is delivered.
    Ended,
}

/// The result of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was applied.
    Done,
    /// The row has changed since or does not exist, and the settlement changed nothing.
    Stale,
}

/// The rows to claim.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Claim {
    /// The partitions to claim rows of, and how many of each. Each partition occurs at most once.
    pub quotas: Vec<ClaimQuota>,
    /// The maximum number of rows of all partitions together.
    pub limit: usize,
    /// The duration of the claims.
    pub lease: Duration,
    /// The newest body format that the caller can read.
    pub format: u8,
    /// The keys that the caller can open bodies with.
    pub keys: Vec<[u8; 4]>,
}

/// The part of a claim for one partition.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimQuota {
    /// The partition.
    pub partition: Partition,
    /// The maximum number of rows in [`State::Waiting`].
    pub polls: usize,
    /// The maximum number of rows in [`State::Exchanging`] or [`State::Answered`].
    pub verifications: usize,
}

/// The answer to [`Store::settle_and_claim`](super::Store::settle_and_claim).
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Work {
    /// The store's time.
    pub now: SystemTime,
    /// The results of the settlements, in the same order.
    pub settled: Vec<Settled>,
    /// The claimed rows: `Exchanging` and `Answered` first, and the earliest of each partition first.
    pub claimed: Vec<Claimed>,
    /// When to claim again if nothing changes, for each quota in the same order.
    pub due: Vec<NextDue>,
    /// Rows that the claim found without a body. They do not become due again; see [`Store`](super::Store#a-row).
    pub set_aside: Vec<ProcessId>,
    /// Due times are being corrected, so nothing was claimed; see
    /// [`Store::correct_due_times`](super::Store::correct_due_times).
    pub correcting: bool,
    /// The sum of all jumps of the store's clock for which a run of
    /// [`correct_due_times`](super::Store::correct_due_times) has started. It shows a caller that noticed a jump whether
    /// another replica was faster.
    pub corrected: ClockJump,
}

/// When the next rows of one partition are due. Zero means that the claim's limits left behind rows that are due now.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextDue {
    /// The time until the earliest row in [`State::Waiting`] is due; `None` if there is no such row.
    pub polls_in: Option<Duration>,
    /// The time until the earliest row in [`State::Exchanging`] or [`State::Answered`] is due; `None` if there is no
    /// such row.
    pub verifications_in: Option<Duration>,
}

impl NextDue {
    /// Returns the earlier of the two.
    pub fn earliest(self) -> Option<Duration> {
        [self.polls_in, self.verifications_in].into_iter().flatten().min()
    }
}

/// One step of correcting due times; see [`Store::correct_due_times`](super::Store::correct_due_times).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorrectionStep {
    /// The jump that the caller noticed. `None` from a caller that noticed nothing and only continues a run.
    pub noticed: Option<Noticed>,
    /// The maximum duration of a lease.
    pub longest: Duration,
    /// The number of rows to process.
    pub limit: usize,
}

/// A jump of the store's clock that a caller noticed.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noticed {
    /// The size and the direction of the jump.
    pub jump: ClockJump,
    /// [`Work::corrected`] of the answer that showed the jump.
    pub corrected: ClockJump,
}

/// A jump of a clock, in microseconds. It is positive if the clock was set forward, and negative if it was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ClockJump(pub i64);

impl ClockJump {
    /// The jump of a clock that shows `shown` instead of `expected`.
    pub fn between(expected: SystemTime, shown: SystemTime) -> Self {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        match shown.duration_since(expected) {
            Ok(ahead) => Self(micros(ahead)),
            Err(behind) => Self(-micros(behind.duration())),
        }
    }

    /// The size of a jump in either direction.
    pub fn size(self) -> Duration {
        Duration::from_micros(self.0.unsigned_abs())
    }

    /// The size of a jump forward; zero if the clock was set back.
    pub fn forward(self) -> Duration {
        Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }

    /// The sum of two jumps.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The result of a step of correcting due times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorrectionProgress {
    /// The run has not finished: call again.
    More,
    /// No run is in progress, and none is needed.
    Done,
    /// Another replica is executing a step. Call again in a second.
    Busy,
}

/// What may have changed; see [`Store::changed`](super::Store::changed).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Rows may have become due for [`Store::settle_and_claim`](super::Store::settle_and_claim).
    pub work: bool,
    /// Outcomes may have become due for [`Store::claim_outcomes`](super::Store::claim_outcomes).
    pub outcomes: bool,
}

impl Changed {
    /// Anything may have changed.
    pub const ALL: Self = Self { work: true, outcomes: true };
    /// Only work may have become due.
    pub const WORK: Self = Self { work: true, outcomes: false };
    /// Only outcomes may have become due.
    pub const OUTCOMES: Self = Self { work: false, outcomes: true };
    /// Nothing has changed.
    pub const NOTHING: Self = Self { work: false, outcomes: false };

    /// Returns which waiters a call of [`Store::settle_and_claim`](super::Store::settle_and_claim) must wake. A call
    /// that claims already gets the due times of the rows that it settles.
    pub(super) fn after(settlements: &[Settlement], claim: Option<&Claim>) -> Self {
        Self {
            work: !settlements.is_empty() && claim.is_none(),
            outcomes: settlements.iter().any(|settlement| matches!(settlement.next, Next::Decided { .. })),
        }
    }
}

/// A claimed row.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its identifier.
    pub id: ProcessId,
    /// Its client.
    pub partition: Partition,
    /// [`State::Exchanging`], [`State::Waiting`] or [`State::Answered`].
    pub state: State,
    /// The epoch of the claim, for the settlement.
    pub epoch: i64,
    /// Whether its previous holder never settled it. The answer to a request of that holder may be lost.
    pub orphaned: bool,
    /// Whether a ping was noted since the previous claim, so that the row may be due earlier than was settled.
    pub pinged: bool,
    /// The number of claims in this state, including this one.
    pub attempts: u32,
    /// Whether the application has cancelled it.
    pub cancellation: Cancellation,
    /// See [`Settlement::schedule`].
    pub schedule: String,
    /// The sealed body.
    pub body: SealedBody,
}

/// The current data of a row.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Process {
    /// Its identifier.
    pub id: ProcessId,
    /// Its client.
    pub partition: Partition,
    /// Its state.
    pub state: State,
    /// The number of claims.
    pub epoch: i64,
    /// Whether a success that arrives later replaces the outcome.
    pub provisional: bool,
    /// Whether the application has cancelled it.
    pub cancellation: Cancellation,
    /// The time until `due_at`; zero if that is past.
    pub due_in: Duration,
    /// Whether its lease is set and has not expired.
    pub leased: bool,
    /// See [`Settlement::schedule`].
    pub schedule: String,
    /// The sealed body; `None` for a tombstone.
    pub body: Option<SealedBody>,
    /// The number of changes of the body.
    pub revision: i64,
}

/// A Ping Callback with a genuine bearer token.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Ping {
    /// The sign-in that the token names; `None` if one token serves all sign-ins.
    pub id: Option<ProcessId>,
    /// Fingerprints of the `deferred_auth_id` in the body, one for each key of the keyring.
    pub lookups: Vec<Fingerprint>,
}

/// The result of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinged {
    /// It was recorded.
    Recorded {
        /// The sign-in.
        id: ProcessId,
        /// Its partition.
        partition: Partition,
    },
    /// This sign-in is no longer polled, so pings have no effect.
    Ended(ProcessId),
    /// The `deferred_auth_id` does not belong to the sign-in that the token names.
    Mismatch,
    /// There is no such sign-in, or no longer.
    NotFound,
}

/// The outcomes to claim.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct OutcomeClaim {
    /// The maximum number of outcomes.
    pub limit: usize,
    /// Where to start if more than `limit` outcomes are due. Partitions are then served by round robin, starting after
    /// this one: the partition of the last outcome of the previous claim.
    pub after: Option<Partition>,
    /// The duration of the claims.
    pub lease: Duration,
    /// The newest body format that the caller can read.
    pub format: u8,
    /// The keys that the caller can open bodies with.
    pub keys: Vec<[u8; 4]>,
}

/// The answer to [`Store::claim_outcomes`](super::Store::claim_outcomes).
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct OutcomeBatch {
    /// The claimed outcomes, from the partitions by round robin, and the earliest of each partition first.
    pub claimed: Vec<ClaimedOutcome>,
    /// Rows that the claim found without a body. They do not become due again.
    pub set_aside: Vec<ProcessId>,
    /// When to claim again if nothing changes; `None` if no outcome is waiting.
    pub next_in: Option<Duration>,
}

/// A claimed outcome.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct ClaimedOutcome {
    /// Its identifier and epoch.
    pub held: HeldOutcome,
    /// Its client.
    pub partition: Partition,
    /// The number of claims, including this one.
    pub attempts: u32,
    /// Whether a success that arrives later replaces it.
    pub provisional: bool,
    /// Whether the application had cancelled the sign-in.
    pub cancellation: Cancellation,
    /// The sealed body.
    pub body: SealedBody,
}

/// A claim on an outcome.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldOutcome {
    /// The row.
    pub id: ProcessId,
    /// The epoch of the claim.
    pub epoch: i64,
}

/// An acknowledgement of an outcome.
#[non_exhaustive]
#[derive(Debug, Clone, Copy)]
pub struct Acknowledgement {
    /// The row.
    pub id: ProcessId,
    /// Which of its outcomes: the provisional one, or its replacement.
    pub provisional: bool,
    /// The time until the tombstone is erased.
    pub keep: Duration,
}

/// The result of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// It was applied.
    Done,
    /// The outcome was acknowledged before, or the row does not exist.
    Already,
    /// Another outcome has replaced the acknowledged one, and will be delivered.
    Replaced,
}

/// A body that was sealed again.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Reseal {
    /// The row.
    pub id: ProcessId,
    /// The revision that was read.
    pub revision: i64,
    /// The same body, sealed with another key.
    pub body: SealedBody,
}

/// The result of releasing a row; see [`Store::requeue`](super::Store::requeue).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// It is due now.
    Done {
        /// Its partition.
        partition: Partition,
        /// Its state.
        state: State,
    },
    /// A request for it may be in flight. It is due again by itself when its lease has ended.
    InUse {
        /// The time until its lease ends.
        ends_in: Duration,
    },
    /// Its body is missing. Restore the body, or [forget](super::Store::forget) the row.
    NoBody,
    /// It is not claimed, and is due by itself.
    Free,
    /// There is no such row, or it is a tombstone.
    NotFound,
}

impl Requeued {
    /// What the call has changed for others.
    pub(super) fn changed(self) -> Changed {
        match self {
            Self::Done { state: State::Decided, .. } => Changed::OUTCOMES,
            Self::Done { .. } => Changed::WORK,
            _ => Changed::NOTHING,
        }
    }
}

/// The result of erasing a row; see [`Store::erase`](super::Store::erase).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Erased {
    /// The number of entries in all tables that belonged to the row.
    pub erased: u64,
    /// How many of them were left when the store looked again.
    pub left: u64,
}
