//! The table of a store in memory: rows with their indexes, and the rules of the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::row::{Queue, Row, SET_ASIDE, later};
use crate::store::rules::{Held, Hold, Run};
use crate::store::{
    Acknowledged, Acknowledgement, Cancellation, Claim, ClaimQuota, Claimed, ClockJump, CorrectionProgress,
    CorrectionStep, Fingerprint, HeldOutcome, KeyStats, NewProcess, NextDue, OutcomeBatch, OutcomeClaim, Partition,
    PartitionStats, Ping, Pinged, Process, ProcessId, Reseal, Settled, Settlement, State,
};

mod clients;
mod operators;
mod transfer;

#[derive(Default)]
pub(super) struct Table {
    rows: BTreeMap<ProcessId, Row>,
    /// By queue and due time.
    due: BTreeSet<(Queue, Duration, ProcessId)>,
    sessions: BTreeMap<Fingerprint, ProcessId>,
    lookups: BTreeSet<(Fingerprint, ProcessId)>,
    references: BTreeSet<(Fingerprint, ProcessId)>,
    /// The last run of correcting due times.
    run: Run,
    clients: BTreeMap<Partition, clients::Noted>,
}

/// The answer to a claim.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) claimed: Vec<Claimed>,
    pub(super) due: Vec<NextDue>,
    pub(super) set_aside: Vec<ProcessId>,
    pub(super) correcting: bool,
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
        let id = process.id;
        self.put(id, Row::new(process, now));
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

    pub(super) fn claim(&mut self, claim: &Claim, now: Duration) -> Claims {
        let mut claims = Claims { correcting: self.run.is_running, ..Claims::default() };
        if !claims.correcting {
            let mut due: Vec<_> = claim.quotas.iter().flat_map(|quota| self.due_of(claim, quota, now)).collect();
            due.sort();
            due.truncate(claim.limit);
            for (_, _, id) in due {
                match self.update(id, |row| row.claim(id, now, claim.lease)) {
                    Some(Some(claimed)) => claims.claimed.push(claimed),
                    _ => claims.set_aside.push(id),
                }
            }
        }
        let next = |queue| self.next_in([queue].into_iter(), now, claim.format, &claim.keys);
        let due = claim.quotas.iter().map(|quota| NextDue {
            polls_in: next(Queue::Polls(quota.partition)),
            verifications_in: next(Queue::Verifications(quota.partition)),
        });
        claims.due = due.collect();
        claims
    }

    /// The rows that a claim can take within a quota, in the order of claims.
    fn due_of(&self, claim: &Claim, quota: &ClaimQuota, now: Duration) -> Vec<(bool, Duration, ProcessId)> {
        let of = |queue, is_poll, most: usize| {
            let due = self.due_in_queue(queue).take_while(move |(due_at, _)| *due_at <= now);
            let readable = due.filter(|(_, id)| self.is_readable(*id, claim.format, &claim.keys));
            readable.map(move |(due_at, id)| (is_poll, due_at, id)).take(most.min(claim.limit))
        };
        let verifications = of(Queue::Verifications(quota.partition), false, quota.verifications);
        verifications.chain(of(Queue::Polls(quota.partition), true, quota.polls)).collect()
    }

    pub(super) fn ping(&mut self, ping: &Ping, now: Duration) -> Pinged {
        let id = ping.id.or_else(|| ping.lookups.iter().find_map(|lookup| self.with_lookup(lookup)));
        let noted = id.and_then(|id| self.update(id, |row| row.ping(id, &ping.lookups, now)));
        noted.unwrap_or(Pinged::NotFound)
    }

    pub(super) fn claim_outcomes(&mut self, claim: &OutcomeClaim, now: Duration) -> OutcomeBatch {
        let mut due: Vec<_> = Vec::new();
        for queue in self.outcome_queues() {
            let of_queue = self.due_in_queue(queue).take_while(|(due_at, _)| *due_at <= now);
            let readable = of_queue.filter(|(_, id)| self.is_readable(*id, claim.format, &claim.keys));
            let comes_later = claim.after.is_some_and(|after| queue <= Queue::Outcomes(after));
            // Sorted by the place within the partition, and then by the order of partitions.
            due.extend(readable.take(claim.limit).enumerate().map(|(place, (_, id))| (place, comes_later, queue, id)));
        }
        due.sort();
        let (mut claimed, mut set_aside) = (Vec::new(), Vec::new());
        for (.., id) in due.into_iter().take(claim.limit) {
            match self.update(id, |row| row.claim_outcome(id, now, claim.lease)) {
                Some(Some(outcome)) => claimed.push(outcome),
                _ => set_aside.push(id),
            }
        }
        let next_in = self.next_in(self.outcome_queues(), now, claim.format, &claim.keys);
        OutcomeBatch { claimed, set_aside, next_in }
    }

    /// The queues of outcomes that are not empty.
    fn outcome_queues(&self) -> impl Iterator<Item = Queue> + '_ {
        let first = (Queue::Outcomes(Partition(i64::MIN)), Duration::ZERO, ProcessId::from_bytes([0; 16]));
        let mut next = self.due.range(first..).next().map(|(queue, ..)| *queue);
        std::iter::from_fn(move || {
            let queue = next.filter(|queue| matches!(queue, Queue::Outcomes(_)))?;
            let last = (queue, Duration::MAX, ProcessId::from_bytes([0xff; 16]));
            next = self.due.range((Bound::Excluded(last), Bound::Unbounded)).next().map(|(queue, ..)| *queue);
            Some(queue)
        })
    }

    pub(super) fn hold(&mut self, held: &HeldOutcome, now: Duration, due_in: Duration, hold: Hold) -> Held {
        let change = |row: &mut Row| {
            if row.state != State::Decided || row.epoch != held.epoch {
                return Held::NoLonger;
            }
            let before = std::mem::replace(&mut row.due_at, later(now, due_in));
            if hold == Hold::Released {
                row.not_before = Some(row.due_at);
            }
            if row.due_at < before { Held::Sooner } else { Held::Later }
        };
        self.update(held.id, change).unwrap_or(Held::NoLonger)
    }

    pub(super) fn acknowledge(&mut self, acknowledgement: &Acknowledgement, now: Duration) -> Acknowledged {
        let acknowledge = |row: &mut Row| match row.state {
            State::Acknowledged => Acknowledged::Already,
            State::Decided if row.provisional == acknowledgement.provisional => {
                row.end(later(now, acknowledgement.keep));
                Acknowledged::Done
            }
            _ => Acknowledged::Replaced,
        };
        self.update(acknowledgement.id, acknowledge).unwrap_or(Acknowledged::Already)
    }

    pub(super) fn spread(&mut self, partition: Partition, overdue_for: Duration, limit: usize, now: Duration) -> usize {
        let Some(latest) = now.checked_sub(overdue_for) else { return 0 };
        let due = self.due_in_queue(Queue::Polls(partition)).take_while(|(due_at, _)| *due_at <= latest);
        let affected =
            due.filter(|(_, id)| self.rows.get(id).is_some_and(|row| row.leased_until.is_none() && !row.is_spread));
        let ids: Vec<_> = affected.map(|(_, id)| id).take(limit).collect();
        for id in &ids {
            self.update(*id, |row| {
                row.is_spread = true;
                row.move_times(|times| times.spread(*id, now));
            });
        }
        ids.len()
    }

    pub(super) fn correct_due_times(&mut self, step: &CorrectionStep, now: Duration) -> CorrectionProgress {
        let run = match self.run.begin_step(step) {
            Ok(run) => run,
            Err(nothing_to_do) => return nothing_to_do,
        };
        let limit = step.limit.max(1);
        let first = run.up_to.map_or(Bound::Unbounded, Bound::Excluded);
        let ids: Vec<_> = self.rows.range((first, Bound::Unbounded)).map(|(id, _)| *id).take(limit).collect();
        for id in &ids {
            self.update(*id, |row| {
                if row.due_at != SET_ASIDE {
                    row.move_times(|times| times.correct(*id, step.longest, run.jump, now));
                }
            });
        }
        let (run, progress) = run.end_step(step, ids.last().copied().filter(|_| ids.len() == limit));
        self.run = run;
        progress
    }

    /// See [`Work::corrected`](crate::store::Work::corrected).
    pub(super) fn corrected(&self) -> ClockJump {
        self.run.corrected
    }

    pub(super) fn reseal(&mut self, reseal: Reseal) -> bool {
        let Some(row) = self.rows.get_mut(&reseal.id) else { return false };
        let is_current = row.body.is_some() && row.revision == reseal.revision;
        if is_current {
            row.take_body(reseal.body);
        }
        is_current
    }

    pub(super) fn keys(&self) -> Vec<KeyStats> {
        let mut keys: BTreeMap<([u8; 4], u8), KeyStats> = BTreeMap::new();
        let mut of = |key, format, bodies, waiting| {
            let stats = keys.entry((key, format)).or_insert(KeyStats { key, format, bodies: 0, waiting: 0 });
            stats.bodies += bodies;
            stats.waiting += waiting;
        };
        for row in self.rows.values() {
            if row.body.is_some() {
                of(row.key, row.format, 1, 0);
            }
            if row.state <= State::Waiting {
                of(row.first_key, row.format, 0, 1);
            }
        }
        keys.into_values().collect()
    }

    pub(super) fn stats(&self, now: Duration) -> Vec<PartitionStats> {
        let mut partitions: BTreeMap<Partition, PartitionStats> = BTreeMap::new();
        for row in self.rows.values() {
            let stats = partitions.entry(row.partition).or_insert_with(|| PartitionStats::empty(row.partition));
            *match row.state {
                State::Exchanging => &mut stats.exchanging,
                State::Waiting => &mut stats.waiting,
                State::Answered => &mut stats.answered,
                State::Decided => &mut stats.decided,
                State::Acknowledged => &mut stats.acknowledged,
            } += 1;
            stats.set_aside += u64::from(row.state != State::Acknowledged && row.due_at == SET_ASIDE);
            let is_leased = row.leased_until.is_some_and(|until| until > now);
            match row.state {
                State::Exchanging | State::Waiting | State::Answered if !is_leased => {
                    stats.overdue = stats.overdue.max(now.checked_sub(row.due_at));
                }
                State::Decided => {
                    stats.undelivered = stats.undelivered.max(row.decided_at.map(|at| now.saturating_sub(at)));
                }
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

    pub(super) fn expire_outcomes(
        &mut self,
        decided_for: Duration,
        keep: Duration,
        limit: usize,
        now: Duration,
    ) -> Vec<ProcessId> {
        let is_old = |row: &Row| {
            let age = row.decided_at.map(|at| now.saturating_sub(at));
            row.state == State::Decided && age.is_some_and(|age| age >= decided_for)
        };
        let ids: Vec<_> = self.rows.iter().filter(|(_, row)| is_old(row)).map(|(id, _)| *id).take(limit).collect();
        for id in &ids {
            self.update(*id, |row| row.end(later(now, keep)));
        }
        ids
    }

    pub(super) fn not_sealed_with(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
        now: Duration,
    ) -> Vec<Process> {
        let is_wanted = |(id, row): &(&ProcessId, &Row)| {
            after.is_none_or(|after| after < **id) && row.body.is_some() && row.key != key
        };
        let rows = self.rows.iter().filter(is_wanted);
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
        let next = queues.filter_map(earliest).min().filter(|due_at| *due_at != SET_ASIDE);
        next.map(|due_at| due_at.saturating_sub(now))
    }

    fn is_readable(&self, id: ProcessId, format: u8, keys: &[[u8; 4]]) -> bool {
        self.rows.get(&id).is_some_and(|row| row.format <= format && keys.contains(&row.key))
    }

    /// Deletes a body, like an operator's mistake.
    #[cfg(all(test, feature = "testing"))]
    pub(super) fn lose_body(&mut self, id: ProcessId) {
        self.update(id, |row| row.body = None);
    }

    /// Changes a row and updates the indexes.
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
        if let Some(reference) = row.reference {
            self.references.insert((reference, id));
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
        if let Some(reference) = row.reference {
            self.references.remove(&(reference, id));
        }
        Some(row)
    }

    pub(super) fn remove(&mut self, id: ProcessId) -> bool {
        self.take(id).is_some()
    }
}
