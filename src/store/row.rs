//! What goes into a store and comes out of it.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::ProcessId;

/// One client at one OP, as a stable hash of issuer and client identifier: the same in every release and replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i64);

/// A keyed hash by which a row is found. Without the keyring it says nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Fingerprint(..)")
    }
}

/// What the application and the OP have put into a process, sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBody {
    /// The version of the plaintext. Older releases leave newer ones alone.
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

/// How far a process has come. The numbers are what stores keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Its code is being exchanged.
    Exchanging = 0,
    /// The OP has not decided.
    Waiting = 1,
    /// The OP's success response is in the body and waits to be verified.
    Answered = 2,
    /// The outcome is in the body and waits to be acknowledged.
    Decided = 3,
    /// A tombstone without a body: the outcome was delivered.
    Acknowledged = 4,
}

impl State {
    /// The state with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Exchanging, Self::Waiting, Self::Answered, Self::Decided, Self::Acknowledged]
            .into_iter()
            .find(|state| *state as u8 == number)
    }
}

/// Whether the application wants a process to end. The numbers are what stores keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Cancellation {
    /// It does not.
    #[default]
    None = 0,
    /// It does, and the OP does not know yet.
    Requested = 1,
    /// It does, and the OP knows or cannot be told.
    Told = 2,
}

impl Cancellation {
    /// The cancellation with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Requested, Self::Told].into_iter().find(|cancellation| *cancellation as u8 == number)
    }
}

/// A process to add.
#[derive(Debug, Clone)]
pub struct NewProcess {
    /// Its name.
    pub id: ProcessId,
    /// Whose it is.
    pub partition: Partition,
    /// [`State::Exchanging`] or [`State::Waiting`].
    pub state: State,
    /// Fingerprints of the authorization session, one for each key of the keyring. The first is kept; the others are
    /// only looked for.
    pub sessions: Vec<Fingerprint>,
    /// Fingerprints of the `deferred_auth_id`, likewise.
    pub lookups: Vec<Fingerprint>,
    /// When to look at it again.
    pub due_in: Duration,
    /// How soon a ping may bring that forward.
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

/// What came of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// The row is there.
    Inserted {
        /// The store's time.
        now: SystemTime,
    },
    /// One for the same session or `deferred_auth_id` was there before.
    Exists(ProcessId),
}

/// The result of work on one row.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which row.
    pub id: ProcessId,
    /// The epoch of the claim. `None` where the settlement carries an answer that cannot be had again, which therefore
    /// counts whoever holds the lease.
    pub epoch: Option<i64>,
    /// What becomes of the row.
    pub next: Next,
    /// When to look at it again. For [`Next::Ended`]: how long to keep the tombstone.
    pub due_in: Duration,
    /// How soon a ping may bring that forward; `None` if it may not.
    pub ping_in: Option<Duration>,
    /// For how long the OP is to be left alone from now on: the interval in force, or what is left of a longer
    /// `Retry-After`.
    pub interval: Duration,
    /// How long until the OP's answer expires; `None` where the OP gave no end. A poll that is put off is not put off
    /// beyond this end.
    pub expires_in: Option<Duration>,
    /// Text to keep and give back with the next claim.
    pub schedule: String,
    /// The fingerprint of the `deferred_auth_id`, where it has just become known.
    pub lookup: Option<Fingerprint>,
    /// The new body, where it has changed.
    pub body: Option<SealedBody>,
}

/// What a settlement makes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// [`State::Waiting`].
    Waiting,
    /// [`State::Answered`].
    Answered,
    /// [`State::Decided`].
    Decided {
        /// A success that still comes takes its place.
        provisional: bool,
    },
    /// [`State::Acknowledged`]: nobody has to be told.
    Ended,
}

/// What came of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It applies.
    Done,
    /// The row has moved on or is gone, and nothing changed.
    Stale,
}

/// What to claim.
#[derive(Debug, Clone)]
pub struct Claim {
    /// For which partitions, and how many rows of each. No two are for the same partition.
    pub quotas: Vec<ClaimQuota>,
    /// How many rows at most, of all partitions together.
    pub limit: usize,
    /// For how long.
    pub lease: Duration,
    /// The newest body format that the caller can read.
    pub format: u8,
    /// The keys that the caller can open bodies with.
    pub keys: Vec<[u8; 4]>,
}

/// The part of a claim that is for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimQuota {
    /// The partition.
    pub partition: Partition,
    /// How many rows in [`State::Waiting`] at most.
    pub polls: usize,
    /// How many rows in [`State::Exchanging`] or [`State::Answered`] at most.
    pub verifications: usize,
}

/// The answer to [`Store::work`](super::Store::work).
#[derive(Debug, Clone)]
pub struct Work {
    /// The store's time.
    pub now: SystemTime,
    /// One for each settlement, in the same order.
    pub settled: Vec<Settled>,
    /// What was claimed: `Exchanging` and `Answered` first, and each partition's earliest first.
    pub claimed: Vec<Claimed>,
    /// When to come again, if nothing changes: one for each quota, in the same order.
    pub due: Vec<NextDue>,
    /// Rows that the claim found without a body. They are not due again by themselves; see
    /// [`Store::work`](super::Store::work).
    pub set_aside: Vec<ProcessId>,
    /// Due times are being put right, and nothing was claimed; see
    /// [`Store::clamp_due_times`](super::Store::clamp_due_times).
    pub clamping: bool,
}

/// When the rows of one partition are due next. Zero means that the claim's limits left rows behind that are due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextDue {
    /// Until the earliest row in [`State::Waiting`] is due; `None` if there is no such row.
    pub polls_in: Option<Duration>,
    /// Until the earliest row in [`State::Exchanging`] or [`State::Answered`] is due; `None` if there is no such row.
    pub verifications_in: Option<Duration>,
}

impl NextDue {
    /// The earlier of the two.
    pub fn earliest(self) -> Option<Duration> {
        [self.polls_in, self.verifications_in].into_iter().flatten().min()
    }
}

/// One step of putting due times right; see [`Store::clamp_due_times`](super::Store::clamp_due_times).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clamp {
    /// How long ago the caller last saw the store's clock right, before it noticed that the clock had jumped. `None` from
    /// a caller that noticed nothing and only continues a run that is under way.
    pub noticed: Option<Duration>,
    /// No lease is meant to be longer.
    pub longest: Duration,
    /// How many rows to look at.
    pub limit: usize,
}

/// What came of a step of putting due times right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamped {
    /// The run is under way: call again.
    More,
    /// No run is under way, and none is needed.
    Done,
    /// Another replica is carrying out a step at this moment. Look again in a second.
    Busy,
}

/// What may have changed; see [`Store::changed`](super::Store::changed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Rows may have become due for [`Store::work`](super::Store::work).
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

    /// What a call of [`Store::work`](super::Store::work) changes for others. A call that claims learns the due times of what it
    /// settles from its answer.
    pub(super) fn after(settlements: &[Settlement], claim: Option<&Claim>) -> Self {
        Self {
            work: !settlements.is_empty() && claim.is_none(),
            outcomes: settlements.iter().any(|settlement| matches!(settlement.next, Next::Decided { .. })),
        }
    }
}

/// A claimed row.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its name.
    pub id: ProcessId,
    /// Whose it is.
    pub partition: Partition,
    /// [`State::Exchanging`], [`State::Waiting`] or [`State::Answered`].
    pub state: State,
    /// For settling it.
    pub epoch: i64,
    /// Its former holder never settled, so a request may have been sent whose answer is lost.
    pub orphaned: bool,
    /// A ping was noted since the claim before, so it may be due earlier than was settled.
    pub pinged: bool,
    /// How often it was claimed in this state, this time included.
    pub attempts: u32,
    /// Whether the application wants it to end.
    pub cancellation: Cancellation,
    /// See [`Settlement::schedule`].
    pub schedule: String,
    /// The sealed body.
    pub body: SealedBody,
}

/// A row as it is.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its name.
    pub id: ProcessId,
    /// Whose it is.
    pub partition: Partition,
    /// How far it has come.
    pub state: State,
    /// How many claims there were.
    pub epoch: i64,
    /// The outcome gives way to a success that still comes.
    pub provisional: bool,
    /// Whether the application wants it to end.
    pub cancellation: Cancellation,
    /// Until `due_at`; zero if that is past.
    pub due_in: Duration,
    /// Whether somebody works on it: its lease is set and has not run out.
    pub leased: bool,
    /// See [`Settlement::schedule`].
    pub schedule: String,
    /// The sealed body; `None` for a tombstone.
    pub body: Option<SealedBody>,
    /// Counts the changes of the body.
    pub revision: i64,
}

/// A Ping Callback whose bearer token is genuine.
#[derive(Debug, Clone)]
pub struct Ping {
    /// The process that the token names; `None` where one token serves all processes.
    pub id: Option<ProcessId>,
    /// Fingerprints of the `deferred_auth_id` in the body, one for each key of the keyring.
    pub lookups: Vec<Fingerprint>,
}

/// What came of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinged {
    /// It was noted.
    Noted {
        /// For this process.
        id: ProcessId,
        /// Its partition.
        partition: Partition,
    },
    /// This process needs no pings any more.
    Ended(ProcessId),
    /// The `deferred_auth_id` is not the one of the process that the token names.
    Foreign,
    /// There is no such process, or no longer.
    NotFound,
}

/// Which outcomes to claim.
#[derive(Debug, Clone)]
pub struct OutcomeClaim {
    /// How many at most.
    pub limit: usize,
    /// Where partitions have more than `limit` outcomes due, they are served in turn, beginning after this one: the
    /// partition of the last outcome of the claim before.
    pub after: Option<Partition>,
    /// For how long.
    pub lease: Duration,
    /// The newest body format that the caller can read.
    pub format: u8,
    /// The keys that the caller can open bodies with.
    pub keys: Vec<[u8; 4]>,
}

/// The answer to [`Store::claim_outcomes`](super::Store::claim_outcomes).
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// What was claimed: one of each partition in turn, and each partition's earliest first.
    pub claimed: Vec<ClaimedOutcome>,
    /// Rows that the claim found without a body. They are not due again by themselves.
    pub set_aside: Vec<ProcessId>,
    /// When to come again, if nothing changes; `None` if there is nothing to come for.
    pub next_in: Option<Duration>,
}

/// A claimed outcome.
#[derive(Debug, Clone)]
pub struct ClaimedOutcome {
    /// Its name and epoch.
    pub held: HeldOutcome,
    /// Whose it is.
    pub partition: Partition,
    /// How often it was claimed, this time included.
    pub attempts: u32,
    /// It gives way to a success that still comes.
    pub provisional: bool,
    /// Whether the application had wanted the process to end.
    pub cancellation: Cancellation,
    /// The sealed body.
    pub body: SealedBody,
}

/// A claim on an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldOutcome {
    /// Which row.
    pub id: ProcessId,
    /// The epoch of the claim.
    pub epoch: i64,
}

/// An acknowledgement of an outcome.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledgement {
    /// Which row.
    pub id: ProcessId,
    /// Which of its outcomes: the provisional one, or the one that took its place.
    pub provisional: bool,
    /// How long to keep the tombstone.
    pub keep: Duration,
}

/// What came of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// It applies.
    Done,
    /// It was acknowledged before, or is gone.
    Already,
    /// Another outcome took the place of the one that was acknowledged, and is going to be delivered.
    Replaced,
}

/// A body sealed again.
#[derive(Debug, Clone)]
pub struct Reseal {
    /// Which row.
    pub id: ProcessId,
    /// The revision that was read.
    pub revision: i64,
    /// The same body under another key.
    pub body: SealedBody,
}

/// How many rows need a key. There is one for each pair of a key and a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStats {
    /// The key.
    pub key: [u8; 4],
    /// The format of the bodies.
    pub format: u8,
    /// Rows with a body of this format that the key sealed.
    pub bodies: u64,
    /// Rows in [`State::Exchanging`] or [`State::Waiting`] that were inserted under it (`first_key`): what was made with
    /// them, such as their fingerprints and the tokens of their pings, is verified with it.
    pub waiting: u64,
}

/// How the rows of a partition stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStats {
    /// The partition.
    pub partition: Partition,
    /// Rows in [`State::Exchanging`].
    pub exchanging: u64,
    /// Rows in [`State::Waiting`].
    pub waiting: u64,
    /// Rows in [`State::Answered`].
    pub answered: u64,
    /// Rows in [`State::Decided`].
    pub decided: u64,
    /// Rows in [`State::Acknowledged`].
    pub acknowledged: u64,
    /// How long the oldest row in `Exchanging`, `Waiting` or `Answered` has been due and not leased.
    pub overdue: Option<Duration>,
    /// How long ago the oldest outcome was decided that is not acknowledged, whether it is claimed or not.
    pub undelivered: Option<Duration>,
}

impl PartitionStats {
    /// A partition without rows.
    pub fn empty(partition: Partition) -> Self {
        Self {
            partition,
            exchanging: 0,
            waiting: 0,
            answered: 0,
            decided: 0,
            acknowledged: 0,
            overdue: None,
            undelivered: None,
        }
    }

    /// Adds those of other rows of the partition.
    #[cfg(feature = "postgres")]
    pub(super) fn add(&mut self, other: &Self) {
        self.exchanging += other.exchanging;
        self.waiting += other.waiting;
        self.answered += other.answered;
        self.decided += other.decided;
        self.acknowledged += other.acknowledged;
        self.overdue = self.overdue.max(other.overdue);
        self.undelivered = self.undelivered.max(other.undelivered);
    }

    /// Rows whose outcome is not decided.
    pub fn open(&self) -> u64 {
        self.exchanging + self.waiting + self.answered
    }
}
