//! Maintenance besides polling.
//!
//! Each chore is a task of its own, so that no poll waits for it: the correction of due times after a jump of the
//! clock, the spreading of rows that are overdue after an outage, the renewal of deliveries' claims, the erasure of
//! tombstones, the count of rows, and the notes about clients.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::task::JoinSet;

use super::pace::LONGEST_SEND_WINDOW;
use crate::poller::event::Event;
use crate::poller::measure;
use crate::poller::shared::Shared;
use crate::poller::watch::WATCH_EVERY;
use crate::store::{CorrectionProgress, CorrectionStep, Noticed, Partition, PartitionStats};
use crate::task::{Panicked, catch_panic};

/// A row that has been due for longer than this has waited for the end of an outage, together with many others. These
/// rows are spread over one interval, the load that the OP asked for.
pub(super) const OUTAGE: Duration = Duration::from_secs(60);
/// How many rows one call spreads. Pings and settlements are served in between.
const SPREAD_BATCH: usize = 1_000;
/// How many rows one step of `correct_due_times` processes.
const CORRECTION_BATCH: usize = 1_000;
/// How long to wait while another replica executes a step of correcting due times.
pub(super) const CORRECTION_PAUSE: Duration = Duration::from_secs(1);
/// The maximum duration of a lease, including that of an exchange whose answer waits for the store. Only the lease of a
/// poll can be longer, if the client has a long poll timeout.
const LONGEST_LEASE: Duration = Duration::from_secs(15 * 60);
/// How often expired tombstones, and outcomes that were kept long enough, are erased.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const PURGE_BATCH: usize = 1_000;
/// The pause before a chore that failed or panicked is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    /// Corrects due times after a jump of the store's clock. Nothing is claimed meanwhile.
    CorrectDueTimes,
    /// Spreads rows that are overdue after an outage.
    Spread,
    /// Renews the claims of deliveries.
    Renew,
    /// Erases tombstones and outcomes that were kept long enough.
    Purge,
    /// Counts rows that operators should be alerted to.
    Count,
    /// Notes clients in the store, for operators.
    Note,
}

/// The result of a chore: whether it must run again at once.
pub(super) type Done = (Chore, Result<bool, Panicked>);

pub(super) struct Chores {
    tasks: JoinSet<Done>,
    running: BTreeSet<Chore>,
    polls: bool,
    /// When to spread rows that may have become overdue during an outage.
    spread_at: Option<Duration>,
    renew_at: Duration,
    purge_at: Duration,
    watch_at: Duration,
    /// The jump for which due times are being corrected.
    noticed: Option<Noticed>,
}

impl Chores {
    pub(super) fn new(shared: &Shared, now: Duration) -> Self {
        Self {
            tasks: JoinSet::new(),
            running: BTreeSet::new(),
            polls: shared.settings.polls,
            spread_at: shared.settings.polls.then_some(now),
            renew_at: now.saturating_add(shared.settings.delivery_lease / 3),
            purge_at: now,
            watch_at: now,
            noticed: None,
        }
    }

    /// Starts the chores that are due.
    pub(super) fn begin(&mut self, shared: &Arc<Shared>, now: Duration) {
        if self.spread_at.is_some_and(|at| now >= at) && !self.is_running(Chore::Spread) {
            self.spread_at = None;
            self.spawn(Chore::Spread, Box::pin(spread(shared.clone())));
        }
        if now >= self.renew_at && !self.is_running(Chore::Renew) {
            self.renew_at = now.saturating_add(shared.settings.delivery_lease / 3);
            self.spawn(Chore::Renew, Box::pin(renew(shared.clone())));
        }
        if now >= self.purge_at && !self.is_running(Chore::Purge) {
            self.purge_at = now.saturating_add(PURGE_EVERY);
            self.spawn(Chore::Purge, Box::pin(purge(shared.clone())));
        }
        if now >= self.watch_at {
            self.watch_at = now.saturating_add(WATCH_EVERY);
            shared.watch();
            if !self.is_running(Chore::Count) {
                self.spawn(Chore::Count, Box::pin(count(shared.clone())));
            }
            if !self.is_running(Chore::Note) {
                self.spawn(Chore::Note, Box::pin(note(shared.clone())));
            }
        }
    }

    /// When the next chore is due.
    pub(super) fn next_at(&self) -> Duration {
        let at = |chore, at: Duration| if self.is_running(chore) { Duration::MAX } else { at };
        let spread_at = at(Chore::Spread, self.spread_at.unwrap_or(Duration::MAX));
        let upkeep_at = at(Chore::Renew, self.renew_at).min(at(Chore::Purge, self.purge_at));
        upkeep_at.min(self.watch_at).min(spread_at)
    }

    pub(super) fn any(&self) -> bool {
        !self.tasks.is_empty()
    }

    pub(super) fn is_running(&self, chore: Chore) -> bool {
        self.running.contains(&chore)
    }

    /// Waits for the next chore to end.
    pub(super) async fn ended(&mut self) -> Option<Done> {
        self.tasks.join_next().await.and_then(Result::ok)
    }

    /// Processes the result of a chore.
    pub(super) fn take(&mut self, shared: &Arc<Shared>, done: Option<Done>) {
        let Some((chore, result)) = done else { return };
        self.running.remove(&chore);
        let again = result.unwrap_or_else(|Panicked| {
            measure::panicked();
            tracing::error!(?chore, "maintenance of the store panicked; it is retried");
            shared.emit(Event::Panicked { id: None });
            true
        });
        let soon = shared.clock.monotonic().saturating_add(RETRY_PAUSE);
        match chore {
            Chore::Spread if again => self.spread_at = Some(soon),
            Chore::Purge if again => self.purge_at = soon,
            Chore::CorrectDueTimes if again => {
                let noticed = self.noticed.take();
                self.begin_correction(shared, noticed, RETRY_PAUSE);
            }
            _ => {}
        }
    }

    /// Corrects due times, after a jump of the store's clock or because another replica has started to.
    pub(super) fn correct_due_times(&mut self, shared: &Arc<Shared>, noticed: Option<Noticed>) {
        if self.polls && !self.is_running(Chore::CorrectDueTimes) {
            self.begin_correction(shared, noticed, Duration::ZERO);
        }
    }

    fn begin_correction(&mut self, shared: &Arc<Shared>, noticed: Option<Noticed>, pause: Duration) {
        self.noticed = noticed;
        self.spawn(Chore::CorrectDueTimes, Box::pin(correct_due_times(shared.clone(), noticed, pause)));
    }

    /// Spreads rows that became overdue during an outage.
    pub(super) fn spread_soon(&mut self) {
        if self.polls {
            self.spread_at = Some(Duration::ZERO);
        }
    }

    /// Records how long a sleep took. If it took much longer than planned, this machine had an outage, such as a
    /// suspend.
    pub(super) fn note_sleep(&mut self, before: Duration, wait: Duration, now: Duration) {
        if now.saturating_sub(before) > wait.saturating_add(OUTAGE) {
            self.spread_soon();
        }
    }

    /// Stops all chores.
    pub(super) fn stop(&mut self) {
        self.tasks.abort_all();
    }

    fn spawn(&mut self, chore: Chore, work: BoxFuture<'static, bool>) {
        self.running.insert(chore);
        self.tasks.spawn(async move { (chore, catch_panic(work).await) });
    }
}

/// Spreads rows that are long overdue after an outage of this machine or of the store, so that their polls are not all
/// sent at once. The store may need time to count; meanwhile the first polls are sent. Returns whether it failed.
async fn spread(shared: Arc<Shared>) -> bool {
    for partition in overdue_partitions(&shared).await {
        loop {
            match shared.store.spread(partition, OUTAGE, SPREAD_BATCH).await {
                Ok(SPREAD_BATCH) => {}
                Ok(_) => break,
                Err(error) => {
                    shared.store_failed(
                        error,
                        "polls that are overdue after an outage could not be spread; this is retried",
                    );
                    return true;
                }
            }
        }
    }
    false
}

/// The clients with long overdue rows; all clients if the store is too large to be counted in time.
async fn overdue_partitions(shared: &Shared) -> Vec<Partition> {
    let Ok(stats) = shared.store.stats().await else {
        return shared.tenants().values().map(|tenant| tenant.partition).collect();
    };
    let is_late = |stats: &PartitionStats| stats.overdue.is_some_and(|overdue| overdue >= OUTAGE);
    let late = stats.into_iter().filter(is_late).map(|stats| stats.partition);
    late.filter(|partition| shared.tenant(*partition).is_some()).collect()
}

/// Executes a run of correcting due times. Returns whether it must continue.
async fn correct_due_times(shared: Arc<Shared>, noticed: Option<Noticed>, pause: Duration) -> bool {
    let longest = LONGEST_LEASE.max(LONGEST_SEND_WINDOW.saturating_add(shared.longest_attempt()));
    shared.clock.sleep(pause).await;
    loop {
        match shared.store.correct_due_times(CorrectionStep { noticed, longest, limit: CORRECTION_BATCH }).await {
            Ok(CorrectionProgress::More) => {}
            Ok(CorrectionProgress::Done) => return false,
            Ok(CorrectionProgress::Busy) => shared.clock.sleep(CORRECTION_PAUSE).await,
            Err(error) => {
                shared.store_failed(error, "no poll is sent until due times are corrected after a jump of its clock");
                shared.clock.sleep(CORRECTION_PAUSE).await;
            }
        }
    }
}

async fn renew(shared: Arc<Shared>) -> bool {
    shared.renew_deliveries().await;
    false
}

async fn count(shared: Arc<Shared>) -> bool {
    shared.count_rows().await;
    false
}

async fn note(shared: Arc<Shared>) -> bool {
    shared.note_clients().await;
    false
}

/// Erases a batch of tombstones, and a batch of outcomes that were kept long enough. Returns whether there are more.
async fn purge(shared: Arc<Shared>) -> bool {
    let purged = match shared.store.purge(PURGE_BATCH).await {
        Ok(purged) => purged,
        Err(error) => {
            shared.store_failed(error, "expired tombstones are deleted later");
            return false;
        }
    };
    let Some(keep) = shared.settings.keep_outcomes else { return purged == PURGE_BATCH };
    match shared.store.expire_outcomes(keep, shared.settings.keep_tombstones, PURGE_BATCH).await {
        Ok(expired) => {
            for id in &expired {
                tracing::error!(process = %id, "an unacknowledged outcome was erased");
                shared.emit(Event::OutcomeExpired { id: *id });
            }
            purged == PURGE_BATCH || expired.len() == PURGE_BATCH
        }
        Err(error) => {
            shared.store_failed(error, "old unacknowledged outcomes are erased later");
            false
        }
    }
}
