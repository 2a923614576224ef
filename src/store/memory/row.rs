//! A row of a store in memory, and its changes by the calls of the contract.

use std::time::Duration;

use crate::store::rules::{Times, due_if_orphaned};
use crate::store::{
    Cancellation, Claimed, ClaimedOutcome, Fingerprint, HeldOutcome, NewProcess, Next, Partition, Pinged, Process,
    ProcessId, SealedBody, Settlement, State,
};

/// The due time of a row that is set aside: later than every other.
pub(super) const SET_ASIDE: Duration = Duration::from_secs(u64::MAX);
/// The latest due time of other rows.
const LATEST: Duration = Duration::from_secs(u64::MAX - 1);

/// The kind of call that takes a row when it is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Queue {
    /// `Exchanging` and `Answered`.
    Verifications(Partition),
    /// `Waiting`.
    Polls(Partition),
    Outcomes(Partition),
    Tombstones,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) partition: Partition,
    pub(super) state: State,
    pub(super) session: Option<Fingerprint>,
    pub(super) lookup: Option<Fingerprint>,
    pub(super) reference: Option<Fingerprint>,
    pub(super) started_at: Option<Duration>,
    pub(super) due_at: Duration,
    pub(super) leased_until: Option<Duration>,
    pub(super) not_before: Option<Duration>,
    pub(super) pinged_at: Option<Duration>,
    pub(super) interval: Duration,
    pub(super) expires_at: Option<Duration>,
    pub(super) is_spread: bool,
    pub(super) decided_at: Option<Duration>,
    pub(super) epoch: i64,
    pub(super) attempts: u32,
    pub(super) provisional: bool,
    pub(super) cancellation: Cancellation,
    pub(super) schedule: String,
    pub(super) first_key: [u8; 4],
    /// The format of the body, kept when the body is erased.
    pub(super) format: u8,
    pub(super) key: [u8; 4],
    pub(super) body: Option<Vec<u8>>,
    pub(super) revision: i64,
}

impl Row {
    pub(super) fn new(process: NewProcess, now: Duration) -> Self {
        let due_at = later(now, process.due_in);
        Self {
            partition: process.partition,
            state: process.state,
            session: process.sessions.first().copied(),
            lookup: process.lookups.first().copied(),
            reference: process.references.first().copied(),
            started_at: Some(now),
            due_at,
            leased_until: (process.state == State::Exchanging).then_some(due_at),
            not_before: process.ping_in.map(|wait| later(now, wait)),
            pinged_at: None,
            interval: process.interval,
            expires_at: process.expires_in.map(|left| later(now, left)),
            is_spread: false,
            decided_at: None,
            epoch: 0,
            attempts: 0,
            provisional: false,
            cancellation: Cancellation::None,
            schedule: process.schedule,
            first_key: process.body.key,
            format: process.body.format,
            key: process.body.key,
            body: Some(process.body.bytes),
            revision: 0,
        }
    }

    pub(super) fn queue(&self) -> Queue {
        match self.state {
            State::Exchanging | State::Answered => Queue::Verifications(self.partition),
            State::Waiting => Queue::Polls(self.partition),
            State::Decided => Queue::Outcomes(self.partition),
            State::Acknowledged => Queue::Tombstones,
        }
    }

    /// Changes the times that depend on each other.
    pub(super) fn move_times(&mut self, change: impl FnOnce(&mut Times)) {
        let mut times = Times {
            state: self.state,
            due_at: self.due_at,
            leased_until: self.leased_until,
            not_before: self.not_before,
            expires_at: self.expires_at,
            interval: self.interval,
        };
        change(&mut times);
        self.due_at = times.due_at.min(LATEST);
        (self.leased_until, self.not_before) = (times.leased_until, times.not_before);
    }

    pub(super) fn settle(&mut self, settlement: Settlement, now: Duration) {
        let (state, provisional) = match settlement.next {
            Next::Waiting => (State::Waiting, false),
            Next::Answered => (State::Answered, false),
            Next::Decided { provisional } => (State::Decided, provisional),
            Next::Ended => (State::Acknowledged, false),
        };
        if settlement.epoch.is_none() {
            self.epoch += 1;
        }
        if state != self.state {
            self.attempts = 0;
        }
        (self.state, self.provisional, self.leased_until) = (state, provisional, None);
        (self.schedule, self.interval, self.is_spread) = (settlement.schedule, settlement.interval, false);
        self.expires_at = settlement.expires_in.map(|left| later(now, left));
        self.not_before = settlement.ping_in.map(|wait| later(now, wait));
        self.due_at = later(now, settlement.due_in);
        if state == State::Decided {
            self.decided_at = Some(now);
        }
        if state == State::Waiting
            && self.pinged_at.is_some()
            && let Some(not_before) = self.not_before
        {
            self.due_at = self.due_at.min(not_before);
        }
        self.lookup = settlement.lookup.or(self.lookup);
        if let Some(body) = settlement.body {
            self.take_body(body);
        }
        if state == State::Acknowledged {
            self.end(self.due_at);
        }
    }

    pub(super) fn take_body(&mut self, body: SealedBody) {
        (self.format, self.key, self.body) = (body.format, body.key, Some(body.bytes));
        self.revision += 1;
    }

    pub(super) fn sealed_body(&self) -> Option<SealedBody> {
        self.body.clone().map(|bytes| SealedBody { format: self.format, key: self.key, bytes })
    }

    /// Claims the row. A row without a body is set aside, and the result is `None`.
    pub(super) fn claim(&mut self, id: ProcessId, now: Duration, lease: Duration) -> Option<Claimed> {
        let orphaned = self.leased_until.is_some();
        let Some(body) = self.sealed_body() else {
            (self.leased_until, self.due_at) = (None, SET_ASIDE);
            return None;
        };
        let leased_until = later(now, lease);
        self.leased_until = Some(leased_until);
        self.due_at = due_if_orphaned(leased_until, self.interval, self.expires_at).min(LATEST);
        self.epoch += 1;
        self.attempts = self.attempts.saturating_add(1);
        let pinged = self.pinged_at.take().is_some();
        self.not_before = self.not_before.filter(|_| !pinged);
        Some(Claimed {
            id,
            partition: self.partition,
            state: self.state,
            epoch: self.epoch,
            orphaned,
            pinged,
            attempts: self.attempts,
            cancellation: self.cancellation,
            schedule: self.schedule.clone(),
            body,
        })
    }

    pub(super) fn ping(&mut self, id: ProcessId, lookups: &[Fingerprint], now: Duration) -> Pinged {
        if self.lookup.is_some_and(|lookup| !lookups.contains(&lookup)) {
            return Pinged::Mismatch;
        }
        if self.state > State::Waiting {
            return Pinged::Ended(id);
        }
        self.pinged_at = Some(now);
        let is_leased = self.leased_until.is_some_and(|until| until > now);
        if let Some(not_before) = self.not_before.filter(|_| !is_leased) {
            self.due_at = self.due_at.min(now.max(not_before));
        }
        Pinged::Recorded { id, partition: self.partition }
    }

    /// Claims the row. A row without a body is set aside, and the result is `None`.
    pub(super) fn claim_outcome(&mut self, id: ProcessId, now: Duration, lease: Duration) -> Option<ClaimedOutcome> {
        let Some(body) = self.sealed_body() else {
            self.due_at = SET_ASIDE;
            return None;
        };
        self.due_at = later(now, lease);
        self.epoch += 1;
        self.attempts = self.attempts.saturating_add(1);
        Some(ClaimedOutcome {
            held: HeldOutcome { id, epoch: self.epoch },
            partition: self.partition,
            attempts: self.attempts,
            provisional: self.provisional,
            cancellation: self.cancellation,
            body,
        })
    }

    pub(super) fn end(&mut self, purge_at: Duration) {
        self.state = State::Acknowledged;
        self.provisional = false;
        self.due_at = purge_at;
        self.body = None;
    }

    pub(super) fn process(&self, id: ProcessId, now: Duration) -> Process {
        Process {
            id,
            partition: self.partition,
            state: self.state,
            epoch: self.epoch,
            provisional: self.provisional,
            cancellation: self.cancellation,
            due_in: self.due_at.saturating_sub(now),
            leased: self.leased_until.is_some_and(|until| until > now),
            schedule: self.schedule.clone(),
            body: self.sealed_body(),
            revision: self.revision,
        }
    }
}

/// Returns a due time for a row that is not set aside.
pub(super) fn later(now: Duration, wait: Duration) -> Duration {
    now.saturating_add(wait).min(LATEST)
}
