//! Constructors for stores and their tests outside this crate. The structs may get more fields, so only this crate can
//! list all of them. Every field can be set afterwards.

use std::time::{Duration, SystemTime};

use super::ProcessId;
use super::row::{
    Acknowledgement, Cancellation, Claim, ClaimQuota, Claimed, ClaimedOutcome, ClockJump, CorrectionStep, Erased,
    Fingerprint, HeldOutcome, NewProcess, Next, Noticed, OutcomeBatch, OutcomeClaim, Partition, Ping, Process, Reseal,
    SealedBody, Settlement, State, Work,
};
use super::stats::KeyStats;

impl SealedBody {
    /// Creates a body from its parts.
    pub fn new(format: u8, key: [u8; 4], bytes: Vec<u8>) -> Self {
        Self { format, key, bytes }
    }
}

impl NewProcess {
    /// Creates a row that is due at once, without fingerprints, schedule and end.
    pub fn new(id: ProcessId, partition: Partition, state: State, body: SealedBody) -> Self {
        Self {
            id,
            partition,
            state,
            sessions: Vec::new(),
            lookups: Vec::new(),
            references: Vec::new(),
            due_in: Duration::ZERO,
            ping_in: None,
            interval: Duration::ZERO,
            expires_in: None,
            schedule: String::new(),
            body,
        }
    }
}

impl Settlement {
    /// Creates a settlement without an epoch, after which the row is due at once. The body does not change.
    pub fn new(id: ProcessId, next: Next) -> Self {
        Self {
            id,
            epoch: None,
            next,
            due_in: Duration::ZERO,
            ping_in: None,
            interval: Duration::ZERO,
            expires_in: None,
            schedule: String::new(),
            lookup: None,
            body: None,
        }
    }
}

impl Claim {
    /// Creates a claim without a common limit, whose lease ends at once.
    pub fn new(quotas: Vec<ClaimQuota>, format: u8, keys: Vec<[u8; 4]>) -> Self {
        Self { quotas, limit: usize::MAX, lease: Duration::ZERO, format, keys }
    }
}

impl ClaimQuota {
    /// Creates the quota of a partition.
    pub fn new(partition: Partition, polls: usize, verifications: usize) -> Self {
        Self { partition, polls, verifications }
    }
}

impl Work {
    /// Creates the answer to a call without settlements and without a claim, at this time of the store.
    pub fn new(now: SystemTime) -> Self {
        Self {
            now,
            settled: Vec::new(),
            claimed: Vec::new(),
            due: Vec::new(),
            set_aside: Vec::new(),
            correcting: false,
            corrected: ClockJump::default(),
        }
    }
}

impl CorrectionStep {
    /// Creates a step that only continues a run.
    pub fn new(longest: Duration, limit: usize) -> Self {
        Self { noticed: None, longest, limit }
    }
}

impl Claimed {
    /// Creates a row that is claimed for the first time in its state.
    pub fn new(id: ProcessId, partition: Partition, state: State, epoch: i64, body: SealedBody) -> Self {
        Self {
            id,
            partition,
            state,
            epoch,
            orphaned: false,
            pinged: false,
            attempts: 1,
            cancellation: Cancellation::None,
            schedule: String::new(),
            body,
        }
    }
}

impl Process {
    /// Creates the data of a row that was never claimed and has no body.
    pub fn new(id: ProcessId, partition: Partition, state: State) -> Self {
        Self {
            id,
            partition,
            state,
            epoch: 0,
            provisional: false,
            cancellation: Cancellation::None,
            due_in: Duration::ZERO,
            leased: false,
            schedule: String::new(),
            body: None,
            revision: 0,
        }
    }
}

impl Ping {
    /// Creates a ping for the sign-in that its token names, if it names one.
    pub fn new(id: Option<ProcessId>, lookups: Vec<Fingerprint>) -> Self {
        Self { id, lookups }
    }
}

impl OutcomeClaim {
    /// Creates a claim that starts with the first partition.
    pub fn new(limit: usize, lease: Duration, format: u8, keys: Vec<[u8; 4]>) -> Self {
        Self { limit, after: None, lease, format, keys }
    }
}

impl OutcomeBatch {
    /// Creates the answer to a claim of outcomes after which none is waiting.
    pub fn new(claimed: Vec<ClaimedOutcome>) -> Self {
        Self { claimed, set_aside: Vec::new(), next_in: None }
    }
}

impl ClaimedOutcome {
    /// Creates a final outcome that is claimed for the first time.
    pub fn new(held: HeldOutcome, partition: Partition, body: SealedBody) -> Self {
        Self { held, partition, attempts: 1, provisional: false, cancellation: Cancellation::None, body }
    }
}

impl HeldOutcome {
    /// Creates the claim with this epoch on an outcome.
    pub fn new(id: ProcessId, epoch: i64) -> Self {
        Self { id, epoch }
    }
}

impl Acknowledgement {
    /// Creates the acknowledgement of a final outcome.
    pub fn new(id: ProcessId, keep: Duration) -> Self {
        Self { id, provisional: false, keep }
    }
}

impl Reseal {
    /// Creates the replacement of the body with this revision.
    pub fn new(id: ProcessId, revision: i64, body: SealedBody) -> Self {
        Self { id, revision, body }
    }
}

impl KeyStats {
    /// Creates the statistics of a key that no row needs.
    pub fn new(key: [u8; 4], format: u8) -> Self {
        Self { key, format, bodies: 0, waiting: 0 }
    }
}

impl Erased {
    /// Creates the result of erasing a row with this number of entries, of which this number was left.
    pub fn new(erased: u64, left: u64) -> Self {
        Self { erased, left }
    }
}

impl Noticed {
    /// Creates a jump that the caller noticed in an answer with this [`Work::corrected`].
    pub fn new(jump: ClockJump, corrected: ClockJump) -> Self {
        Self { jump, corrected }
    }
}
