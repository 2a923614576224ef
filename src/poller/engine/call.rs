//! One call to the store: it settles results and claims rows.

use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::agenda::{QUOTAS, Slots};
use super::{Engine, Kept, SHARE_PAUSE};
use crate::poller::event::Event;
use crate::poller::in_flight::JobKind;
use crate::poller::job::{GiveBack, Job, Report};
use crate::poller::measure;
use crate::poller::record::FORMAT;
use crate::poller::reminders::Cause;
use crate::poller::store_clock::StoreClock;
use crate::poller::tenant::Tenant;
use crate::store::{
    Changed, Claim, ClaimQuota, Claimed, ClockJump, Next, NextDue, Partition, Settled, State, StoreError, Work,
};
use crate::task::{Panicked, catch_panic};

use super::Ended;
use super::chores::{CORRECTION_PAUSE, OUTAGE};

/// The pause before the next call after an error of the store, at first.
const FIRST_STORE_PAUSE: Duration = Duration::from_millis(250);
/// The maximum of that pause.
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(30);

type Answer = Result<Result<Work, StoreError>, Panicked>;

/// A call in progress.
pub(super) struct Call {
    settling: Vec<Kept>,
    quotas: Vec<ClaimQuota>,
    /// The clients that it claims for. They may be removed from the poller meanwhile.
    tenants: Vec<Arc<Tenant>>,
    began: Duration,
    /// How long after the start of the call a poll of a claimed row may be sent.
    window: Duration,
    lease: Duration,
    answer: BoxFuture<'static, Answer>,
}

impl Call {
    /// Whether it contains settlements.
    pub(super) fn settles(&self) -> bool {
        !self.settling.is_empty()
    }
}

/// Waits for the answer to the current call, if there is one. Dropping the future loses nothing.
pub(super) async fn answer(call: &mut Option<Call>) -> Answer {
    match call {
        Some(call) => (&mut call.answer).await,
        None => std::future::pending().await,
    }
}

/// Waits for a change in the store, if there is a subscription.
pub(super) async fn changed(changed: &mut Option<BoxFuture<'static, Changed>>) -> Changed {
    match changed {
        Some(changed) => changed.await,
        None => std::future::pending().await,
    }
}

impl Engine {
    /// Starts a call to the store. It contains as many results as the store can handle in time, and a claim for the
    /// clients that may have something due. [`answer`] drives the call.
    pub(super) fn start_call(&mut self, now: Duration) {
        let shared = self.shared.clone();
        let (window, batch) = (self.pace.send_window(), self.pace.batch());
        let settling = self.take_results(batch);
        let quotas = if self.claims() { self.quotas(&settling, batch, now) } else { Vec::new() };
        let limit = batch.min(self.share_of_all());
        let tenants: Vec<_> = quotas.iter().filter_map(|quota| shared.tenant(quota.partition)).collect();
        let attempt = tenants.iter().map(|tenant| tenant.client.longest_poll());
        let lease = window.saturating_add(attempt.max().unwrap_or_default());
        let claim = (!quotas.is_empty()).then(|| Claim {
            quotas: quotas.clone(),
            limit,
            lease,
            format: FORMAT,
            keys: shared.keyring.ids(),
        });
        let settlements = settling.iter().map(|kept| kept.settlement(now)).collect();
        (self.called_at, self.is_urgent) = (Some(now), false);
        let answer = Box::pin(catch_panic(async move { shared.store.settle_and_claim(settlements, claim).await }));
        self.call = Some(Call { settling, quotas, tenants, began: now, window, lease, answer });
    }

    /// Takes up to `batch` results, the urgent ones first.
    fn take_results(&mut self, batch: usize) -> Vec<Kept> {
        if self.results.len() > batch {
            self.results.sort_by_key(|kept| !kept.is_urgent());
        }
        self.results.drain(..self.results.len().min(batch)).collect()
    }

    /// The clients to claim for, and how many rows of each: the clients of the settled results, so that the answer
    /// contains their next due times, and the clients with something due.
    fn quotas(&mut self, settling: &[Kept], batch: usize, now: Duration) -> Vec<ClaimQuota> {
        let mut partitions = Self::partitions_of(settling);
        for partition in &partitions {
            self.agenda.take(*partition);
        }
        partitions.extend(self.agenda.take_due(now, QUOTAS));
        let mut quotas = Vec::new();
        for partition in partitions {
            let Some(tenant) = self.shared.tenant(partition) else {
                self.agenda.remove(partition);
                continue;
            };
            let polls = tenant.admits(now).0.min(self.share(tenant.in_flight()));
            let verifications = tenant.free_verification_slots().min(self.share(tenant.verifying()));
            quotas.push(ClaimQuota { partition, polls: polls.min(batch), verifications: verifications.min(batch) });
        }
        quotas
    }

    /// Processes the answer to the call.
    pub(super) fn apply_answer(&mut self, answer: Answer) {
        let Some(call) = self.call.take() else { return };
        let now = self.shared.clock.monotonic();
        self.pace.took(now.saturating_sub(call.began));
        match answer {
            Ok(Ok(work)) => self.take_work(call, work, now),
            Ok(Err(error)) => {
                self.shared.store_failed(error, "no poll is sent until the store answers");
                self.retry(call, now);
            }
            Err(Panicked) => {
                measure::panicked();
                tracing::error!("the store panicked; no poll is sent until it answers");
                self.shared.emit(Event::Panicked { id: None });
                self.retry(call, now);
            }
        }
    }

    /// Drops the current call, and keeps its results and clients for the next one.
    pub(super) fn abandon_call(&mut self) {
        let now = self.shared.clock.monotonic();
        if let Some(call) = self.call.take() {
            self.keep_for_later(call, now);
        }
    }

    fn retry(&mut self, call: Call, now: Duration) {
        self.failing_since.get_or_insert(call.began);
        let pause = self.store_pause.map_or(FIRST_STORE_PAUSE, |pause| (pause * 2).min(LONGEST_STORE_PAUSE));
        (self.store_pause, self.call_at) = (Some(pause), now.saturating_add(pause));
        self.keep_for_later(call, now);
    }

    fn keep_for_later(&mut self, call: Call, now: Duration) {
        self.results.splice(..0, call.settling);
        for quota in call.quotas {
            self.agenda.bring_forward(quota.partition, now);
        }
    }

    fn take_work(&mut self, call: Call, work: Work, now: Duration) {
        self.store_pause = None;
        let outage = self.failing_since.take().map(|since| call.began.saturating_sub(since));
        if outage.is_some_and(|outage| outage >= OUTAGE) {
            self.chores.spread_soon();
        }
        self.emit_stored(call.settling, &work.settled);
        for id in work.set_aside {
            self.shared.unreadable(id, "the body of a sign-in is missing from the store; the row is set aside", None);
        }
        let store_clock = StoreClock::new(work.now, call.began);
        let ahead = self.check_clock(store_clock, now.saturating_sub(call.began), work.corrected);
        if work.correcting {
            // The replica that began the run may have died.
            self.chores.correct_due_times(&self.shared, None);
        }
        for claimed in work.claimed {
            let of_call = || call.tenants.iter().find(|tenant| tenant.partition == claimed.partition).cloned();
            let Some(tenant) = self.shared.tenant(claimed.partition).or_else(of_call) else { continue };
            let (shared, began) = (self.shared.clone(), call.began);
            let (window, lease) = (call.window, call.lease);
            let was_sent = Arc::default();
            let job = Job { shared, tenant, claimed, store_clock, began, window, lease, was_sent };
            self.begin(job, ahead, now);
        }
        for (quota, due) in call.quotas.iter().zip(work.due) {
            self.note_due(quota, due, work.correcting, now);
        }
    }

    fn emit_stored(&self, settling: Vec<Kept>, settled: &[Settled]) {
        for (kept, _) in settling.into_iter().zip(settled).filter(|(_, settled)| **settled == Settled::Done) {
            kept.events.into_iter().for_each(|event| self.shared.emit(event));
            if let Next::Decided { .. } = kept.settlement.next {
                self.shared.emit(Event::Decided { id: kept.settlement.id });
            }
        }
    }

    /// Checks whether the store's clock was set since it was last read. If so, due times are corrected, and nothing is
    /// claimed until that is done. Returns the size of a jump forward that is not corrected yet.
    fn check_clock(&mut self, store_clock: StoreClock, took: Duration, corrected: ClockJump) -> Option<Duration> {
        if let Some(jump) = self.store_clock.read(store_clock, took, corrected) {
            let (by, seconds) = (jump.size(), jump.0 / 1_000_000);
            tracing::error!(seconds, "the store's clock jumped; due times are corrected before polling continues");
            self.shared.emit(Event::ClockJumped { by });
        }
        let uncorrected = self.store_clock.uncorrected()?;
        self.chores.correct_due_times(&self.shared, Some(uncorrected));
        Some(uncorrected.jump.forward()).filter(|ahead| !ahead.is_zero())
    }

    /// Starts a job, or gives its row back. A row is given back after a jump of the clock forward, when it may not be due
    /// yet; after a call that took too long, when its poll must no longer be sent; and while the poller stops.
    fn begin(&mut self, job: Job, ahead: Option<Duration>, now: Duration) {
        let partition = job.claimed.partition;
        if self.is_retaken(&job.claimed) {
            return;
        }
        let is_late = now.saturating_sub(job.began) > job.window;
        let give_back = match (job.claimed.state, ahead) {
            (State::Waiting, Some(ahead)) => Some(GiveBack::ByClock { ahead }),
            (State::Waiting, None) if is_late => Some(GiveBack::For(job.tenant.give_back())),
            (State::Exchanging, Some(_)) => return,
            // This replica has the answer to the exchange, and is storing it.
            (State::Exchanging, None) if self.shared.committing().contains(&job.claimed.id) => return,
            _ if self.stop.borrow().is_some() => Some(GiveBack::For(Duration::ZERO)),
            // The client was removed during the claim. A lease that runs out would look like a lost answer.
            _ if self.shared.tenant(partition).is_none() => Some(GiveBack::For(Duration::ZERO)),
            _ => None,
        };
        if let Some(give_back) = give_back {
            let report = job.give_back(give_back).map(Report::from);
            return self.keep(partition, report, now);
        }
        self.spawn(job, partition);
    }

    /// Whether this replica's own poll from the previous claim is still in flight, or its result is not stored yet.
    /// Then that poll settles the row with the new epoch. That is the case only if no other replica has claimed the row
    /// in between.
    fn is_retaken(&mut self, claimed: &Claimed) -> bool {
        if !claimed.orphaned {
            return false;
        }
        let before = claimed.epoch.checked_sub(1);
        let is_of_claim_before = |kept: &&mut Kept| {
            kept.settlement.id == claimed.id && kept.settlement.epoch.is_some() && kept.settlement.epoch == before
        };
        if let Some(kept) = self.results.iter_mut().find(is_of_claim_before) {
            kept.settlement.epoch = Some(claimed.epoch);
            return true;
        }
        let is_in_flight = self.polls.get(&claimed.id).copied().is_some_and(|epoch| Some(epoch) == before);
        if is_in_flight {
            self.retaken.insert(claimed.id, claimed.epoch);
        }
        is_in_flight
    }

    fn spawn(&mut self, job: Job, partition: Partition) {
        let kind = if job.claimed.state == State::Waiting { JobKind::Poll } else { JobKind::Verification };
        let (id, epoch) = (job.claimed.id, job.claimed.epoch);
        if kind == JobKind::Poll {
            self.polls.insert(id, epoch);
        }
        let in_flight = job.tenant.enter(&job.shared, kind, job.was_sent.clone(), job.began);
        let shared = job.shared.clone();
        self.jobs.spawn(async move {
            let report = catch_panic(job.run()).await.unwrap_or_else(|Panicked| {
                measure::panicked();
                tracing::error!(process = %id, "a poll or verification panicked; it is repeated after its lease");
                if shared.is_due(Cause::Panicked(id)) {
                    shared.emit(Event::Panicked { id: Some(id) });
                }
                None
            });
            drop(in_flight);
            Ended::Job { partition, id, epoch, report: report.map(Box::new) }
        });
    }

    /// Adds a client to the agenda again.
    fn note_due(&mut self, quota: &ClaimQuota, due: NextDue, is_correcting: bool, now: Duration) {
        let partition = quota.partition;
        if is_correcting {
            return self.agenda.note(partition, Some(now.saturating_add(CORRECTION_PAUSE)), Slots::Suffice);
        }
        let Some(tenant) = self.shared.tenant(partition) else { return self.agenda.remove(partition) };
        let mut slots = Slots::Suffice;
        let mut at = |due_in: Option<Duration>, (free, wait): (usize, Option<Duration>), share: usize| {
            let waits_for_share = free > 0 && share == 0;
            let (free, wait) = if waits_for_share { (0, Some(SHARE_PAUSE)) } else { (free, wait) };
            match due_in {
                Some(due_in) if free == 0 && due_in <= wait.unwrap_or_default() => {
                    if waits_for_share || wait.is_none() {
                        slots = Slots::Exhausted;
                    }
                    wait
                }
                due_in => due_in,
            }
        };
        let polls_in = at(due.polls_in, tenant.admits(now), self.share(tenant.in_flight()));
        let verifications = (tenant.free_verification_slots(), None);
        let verifications_in = at(due.verifications_in, verifications, self.share(tenant.verifying()));
        let next_in = [polls_in, verifications_in].into_iter().flatten().min();
        self.agenda.note(partition, next_in.map(|next_in| now.saturating_add(next_in)), slots);
    }
}
