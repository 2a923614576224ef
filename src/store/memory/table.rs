//! The table of a store in memory: rows with their indexes, and the rules of the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::{
    Acknowledged, Acknowledgement, Cancellation, Claim, Claimed, ClaimedOutcome, Fingerprint, HeldOutcome, KeyStats,
    NewProcess, Next, OutcomeClaim, Outcomes, Partition, PartitionStats, Ping, Pinged, Process, ProcessId, Reseal,
    SealedBody, Settled, Settlement, State,
};

#[derive(Default)]
pub(super) struct Table {
    rows: BTreeMap<ProcessId, Row>,
    /// By queue and due time.
    due: BTreeSet<(Queue, Duration, ProcessId)>,
    sessions: BTreeMap<Fingerprint, ProcessId>,
    lookups: BTreeSet<(Fingerprint, ProcessId)>,
}

/// Who looks for a row when it is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Queue {
    Work(Partition),
    Outcomes,
    Tombstones,
}

#[derive(Clone)]
struct Row {
    partition: Partition,
    state: State,
    session: Option<Fingerprint>,
    lookup: Option<Fingerprint>,
    due_at: Duration,
    leased_until: Option<Duration>,
    not_before: Option<Duration>,
    pinged_at: Option<Duration>,
    interval: Duration,
    epoch: i64,
    attempts: u32,
    provisional: bool,
    cancellation: Cancellation,
    schedule: String,
    first_key: [u8; 4],
    body: Option<SealedBody>,
    revision: i64,
}

impl Table {
    pub(super) fn existing(&self, process: &NewProcess) -> Option<ProcessId> {
        let with_session = process.sessions.iter().find_map(|session| self.sessions.get(session)).copied();
        with_session
            .or_else(|| process.lookups.iter().find_map(|lookup| self.with_lookup(lookup)))
            .or_else(|| self.rows.contains_key(&process.id).then_some(process.id))
    }

    fn with_lookup(&self, lookup: &Fingerprint) -> Option<ProcessId> {
        let first = (*lookup, ProcessId::from_bytes([0; 16]));
        self.lookups.range(first..).next().filter(|(found, _)| found == lookup).map(|(_, id)| *id)
    }

    pub(super) fn insert(&mut self, process: NewProcess, now: Duration) {
        let due_at = now.saturating_add(process.due_in);
        let row = Row {
            partition: process.partition,
            state: process.state,
            session: process.sessions.first().copied(),
            lookup: process.lookups.first().copied(),
            due_at,
            leased_until: (process.state == State::Exchanging).then_some(due_at),
            not_before: process.ping_in.map(|wait| now.saturating_add(wait)),
            pinged_at: None,
            interval: process.interval,
            epoch: 0,
            attempts: 0,
            provisional: false,
            cancellation: Cancellation::None,
            schedule: process.schedule,
            first_key: process.body.key,
            body: Some(process.body),
            revision: 0,
        };
        self.put(process.id, row);
    }

    pub(super) fn settle(&mut self, settlement: Settlement, now: Duration) -> Settled {
        let Some(row) = self.rows.get(&settlement.id) else { return Settled::Stale };
        let applies = match settlement.epoch {
            Some(epoch) => row.state <= State::Answered && row.epoch == epoch,
            None => row.state <= State::Waiting || (row.state == State::Decided && row.provisional),
        };
        let is_known = settlement.lookup.is_some() && row.lookup.is_some();
        if !applies || is_known {
            return Settled::Stale;
        }
        self.update(settlement.id, |row| row.settle(settlement, now));
        Settled::Done
    }

    pub(super) fn claim(&mut self, claim: &Claim, now: Duration) -> (Vec<Claimed>, Option<Duration>) {
        let mut claimed = Vec::new();
        for lane in &claim.lanes {
            let due = self.due_in_queue(Queue::Work(lane.partition)).take_while(|(due_at, _)| *due_at <= now);
            let readable = due.filter(|(_, id)| self.is_readable(*id, claim.format, &claim.keys));
            let ids: Vec<_> = readable.map(|(_, id)| id).take(lane.limit).collect();
            for id in ids {
                claimed.extend(self.update(id, |row| row.claim(id, now, claim.lease)).flatten());
            }
        }
        let queues = claim.lanes.iter().map(|lane| Queue::Work(lane.partition));
        (claimed, self.next_in(queues, now, claim.format, &claim.keys))
    }

    pub(super) fn ping(&mut self, ping: &Ping, now: Duration) -> Pinged {
        let id = ping.id.or_else(|| ping.lookups.iter().find_map(|lookup| self.with_lookup(lookup)));
        let noted = id.and_then(|id| self.update(id, |row| row.ping(id, &ping.lookups, now)));
        noted.unwrap_or(Pinged::NotFound)
    }

    pub(super) fn claim_outcomes(&mut self, claim: &OutcomeClaim, now: Duration) -> Outcomes {
        let due = self.due_in_queue(Queue::Outcomes).take_while(|(due_at, _)| *due_at <= now);
        let readable = due.filter(|(_, id)| self.is_readable(*id, claim.format, &claim.keys));
        let ids: Vec<_> = readable.map(|(_, id)| id).take(claim.limit).collect();
        let claim_one = |id| self.update(id, |row| row.claim_outcome(id, now, claim.lease)).flatten();
        let claimed = ids.into_iter().filter_map(claim_one).collect();
        Outcomes { claimed, next_in: self.next_in([Queue::Outcomes].into_iter(), now, claim.format, &claim.keys) }
    }

    pub(super) fn hold(&mut self, held: &HeldOutcome, now: Duration, due_in: Duration) -> bool {
        let hold = |row: &mut Row| {
            let holds = row.state == State::Decided && row.epoch == held.epoch;
            if holds {
                row.due_at = now.saturating_add(due_in);
            }
            holds
        };
        self.update(held.id, hold).unwrap_or(false)
    }

    pub(super) fn acknowledge(&mut self, acknowledgement: &Acknowledgement, now: Duration) -> Acknowledged {
        let acknowledge = |row: &mut Row| match row.state {
            State::Acknowledged => Acknowledged::Already,
            State::Decided if row.provisional == acknowledgement.provisional => {
                row.end(now.saturating_add(acknowledgement.keep));
                Acknowledged::Done
            }
            _ => Acknowledged::Replaced,
        };
        self.update(acknowledgement.id, acknowledge).unwrap_or(Acknowledged::Already)
    }

    pub(super) fn spread(&mut self, partition: Partition, limit: usize, now: Duration) -> usize {
        let due = self.due_in_queue(Queue::Work(partition)).take_while(|(due_at, _)| *due_at <= now);
        let waiting = due.filter(|(_, id)| {
            self.rows.get(id).is_some_and(|row| row.state == State::Waiting && row.leased_until.is_none())
        });
        let ids: Vec<_> = waiting.map(|(_, id)| id).take(limit).collect();
        for id in &ids {
            self.update(*id, |row| row.due_at = now.saturating_add(row.share_of_interval(*id)));
        }
        ids.len()
    }

    pub(super) fn hasten(&mut self, longest: Duration, now: Duration) -> usize {
        let ids: Vec<_> = self.rows.keys().copied().collect();
        ids.into_iter().filter(|id| self.update(*id, |row| row.hasten(*id, longest, now)) == Some(true)).count()
    }

    pub(super) fn reseal(&mut self, reseal: Reseal) -> bool {
        let Some(row) = self.rows.get_mut(&reseal.id) else { return false };
        let is_current = row.body.is_some() && row.revision == reseal.revision;
        if is_current {
            row.body = Some(reseal.body);
            row.revision += 1;
        }
        is_current
    }

    pub(super) fn keys(&self) -> Vec<KeyStats> {
        let mut keys: BTreeMap<[u8; 4], KeyStats> = BTreeMap::new();
        let mut of = |key, bodies, waiting| {
            let stats = keys.entry(key).or_insert(KeyStats { key, bodies: 0, waiting: 0 });
            stats.bodies += bodies;
            stats.waiting += waiting;
        };
        for row in self.rows.values() {
            if let Some(body) = &row.body {
                of(body.key, 1, 0);
            }
            if row.state <= State::Waiting {
                of(row.first_key, 0, 1);
            }
        }
        keys.into_values().collect()
    }

    pub(super) fn stats(&self, now: Duration) -> Vec<PartitionStats> {
        let mut partitions: BTreeMap<Partition, PartitionStats> = BTreeMap::new();
        for row in self.rows.values() {
            let empty = PartitionStats { partition: row.partition, states: [0; 5], overdue: None, undelivered: None };
            let stats = partitions.entry(row.partition).or_insert(empty);
            if let Some(count) = stats.states.get_mut(row.state as usize) {
                *count += 1;
            }
            let age = now.checked_sub(row.due_at);
            let is_leased = row.leased_until.is_some_and(|until| until > now);
            match row.state {
                State::Exchanging | State::Waiting | State::Answered if !is_leased => {
                    stats.overdue = stats.overdue.max(age);
                }
                State::Decided => stats.undelivered = stats.undelivered.max(age),
                _ => {}
            }
        }
        partitions.into_values().collect()
    }

    pub(super) fn load(&self, id: ProcessId, now: Duration) -> Option<Process> {
        self.rows.get(&id).map(|row| row.process(id, now))
    }

    pub(super) fn cancel(&mut self, id: ProcessId, to: Cancellation) -> Option<Cancellation> {
        self.rows.get_mut(&id).map(|row| {
            if row.state <= State::Waiting {
                row.cancellation = row.cancellation.max(to);
            }
            row.cancellation
        })
    }

    pub(super) fn purge(&mut self, limit: usize, now: Duration) -> usize {
        let due = self.due_in_queue(Queue::Tombstones);
        let ids: Vec<_> = due.take_while(|(due_at, _)| *due_at <= now).map(|(_, id)| id).take(limit).collect();
        ids.iter().filter(|id| self.remove(**id)).count()
    }

    pub(super) fn sealed_otherwise(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
        now: Duration,
    ) -> Vec<Process> {
        let rows = self.rows.iter().filter(|(id, row)| {
            after.is_none_or(|after| after < **id) && row.body.as_ref().is_some_and(|body| body.key != key)
        });
        rows.take(limit).map(|(id, row)| row.process(*id, now)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn due_in_queue(&self, queue: Queue) -> impl Iterator<Item = (Duration, ProcessId)> + '_ {
        let first = (queue, Duration::ZERO, ProcessId::from_bytes([0; 16]));
        let of_queue = self.due.range(first..).take_while(move |(found, ..)| *found == queue);
        of_queue.map(|(_, due_at, id)| (*due_at, *id))
    }

    fn next_in(
        &self,
        queues: impl Iterator<Item = Queue>,
        now: Duration,
        format: u8,
        keys: &[[u8; 4]],
    ) -> Option<Duration> {
        let earliest =
            |queue| self.due_in_queue(queue).find(|(_, id)| self.is_readable(*id, format, keys)).map(|(due, _)| due);
        queues.filter_map(earliest).min().map(|due_at| due_at.saturating_sub(now))
    }

    fn is_readable(&self, id: ProcessId, format: u8, keys: &[[u8; 4]]) -> bool {
        let body = self.rows.get(&id).and_then(|row| row.body.as_ref());
        body.is_some_and(|body| body.format <= format && keys.contains(&body.key))
    }

    /// Changes a row and keeps the indexes right.
    fn update<T>(&mut self, id: ProcessId, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        let mut row = self.take(id)?;
        let answer = change(&mut row);
        self.put(id, row);
        Some(answer)
    }

    fn put(&mut self, id: ProcessId, row: Row) {
        self.due.insert((row.queue(), row.due_at, id));
        if let Some(session) = row.session {
            self.sessions.insert(session, id);
        }
        if let Some(lookup) = row.lookup {
            self.lookups.insert((lookup, id));
        }
        self.rows.insert(id, row);
    }

    fn take(&mut self, id: ProcessId) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        self.due.remove(&(row.queue(), row.due_at, id));
        if let Some(session) = &row.session {
            self.sessions.remove(session);
        }
        if let Some(lookup) = row.lookup {
            self.lookups.remove(&(lookup, id));
        }
        Some(row)
    }

    pub(super) fn remove(&mut self, id: ProcessId) -> bool {
        self.take(id).is_some()
    }
}

impl Row {
    fn queue(&self) -> Queue {
        match self.state {
            State::Exchanging | State::Waiting | State::Answered => Queue::Work(self.partition),
            State::Decided => Queue::Outcomes,
            State::Acknowledged => Queue::Tombstones,
        }
    }

    fn share_of_interval(&self, id: ProcessId) -> Duration {
        let [a, b, c, d, ..] = id.to_bytes();
        self.interval.mul_f64(f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0))
    }

    fn hasten(&mut self, id: ProcessId, longest: Duration, now: Duration) -> bool {
        let lease_end = now.saturating_add(longest);
        let due_at = lease_end.saturating_add(self.interval).saturating_add(self.share_of_interval(id));
        let before = (self.due_at, self.leased_until);
        if self.state != State::Acknowledged {
            self.due_at = self.due_at.min(due_at);
            self.leased_until = self.leased_until.map(|until| until.min(lease_end));
        }
        before != (self.due_at, self.leased_until)
    }

    fn settle(&mut self, settlement: Settlement, now: Duration) {
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
        (self.schedule, self.interval) = (settlement.schedule, settlement.interval);
        self.not_before = settlement.ping_in.map(|wait| now.saturating_add(wait));
        self.due_at = now.saturating_add(settlement.due_in);
        if state == State::Waiting
            && self.pinged_at.is_some()
            && let Some(not_before) = self.not_before
        {
            self.due_at = self.due_at.min(not_before);
        }
        self.lookup = settlement.lookup.or(self.lookup);
        if let Some(body) = settlement.body {
            self.body = Some(body);
            self.revision += 1;
        }
        if settlement.cancellation_told && self.cancellation == Cancellation::Requested {
            self.cancellation = Cancellation::Told;
        }
        if state == State::Acknowledged {
            self.end(self.due_at);
        }
    }

    fn claim(&mut self, id: ProcessId, now: Duration, lease: Duration) -> Option<Claimed> {
        let orphaned = self.leased_until.is_some();
        let leased_until = now.saturating_add(lease);
        self.leased_until = Some(leased_until);
        self.due_at = leased_until.saturating_add(self.interval);
        self.epoch += 1;
        self.attempts = self.attempts.saturating_add(1);
        let pinged = self.pinged_at.take().is_some();
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
            body: self.body.clone()?,
        })
    }

    fn ping(&mut self, id: ProcessId, lookups: &[Fingerprint], now: Duration) -> Pinged {
        if self.lookup.is_some_and(|lookup| !lookups.contains(&lookup)) {
            return Pinged::Foreign;
        }
        if self.state > State::Waiting {
            return Pinged::Ended(id);
        }
        self.pinged_at = Some(now);
        if let (None, Some(not_before)) = (self.leased_until, self.not_before) {
            self.due_at = self.due_at.min(now.max(not_before));
        }
        Pinged::Noted(id)
    }

    fn claim_outcome(&mut self, id: ProcessId, now: Duration, lease: Duration) -> Option<ClaimedOutcome> {
        self.due_at = now.saturating_add(lease);
        self.epoch += 1;
        self.attempts = self.attempts.saturating_add(1);
        Some(ClaimedOutcome {
            held: HeldOutcome { id, epoch: self.epoch },
            partition: self.partition,
            attempts: self.attempts,
            provisional: self.provisional,
            cancellation: self.cancellation,
            body: self.body.clone()?,
        })
    }

    fn end(&mut self, purge_at: Duration) {
        self.state = State::Acknowledged;
        self.provisional = false;
        self.due_at = purge_at;
        self.body = None;
    }

    fn process(&self, id: ProcessId, now: Duration) -> Process {
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
            body: self.body.clone(),
            revision: self.revision,
        }
    }
}
