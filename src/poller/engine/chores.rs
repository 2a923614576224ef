//! What is done beside polling, each thing by a task of its own so that no poll waits for it: putting due times right after
//! a jump of the clock, spreading what an outage has left overdue, renewing the claims of deliveries, erasing tombstones.

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
use crate::store::{Clamp, Clamped, Partition, PartitionStats};
use crate::task::{Panicked, catch_panic};

/// What has been due for longer has been waiting for an outage to end, with many others. It is spread over an interval,
/// which is the load that the OP has asked for.
pub(super) const OUTAGE: Duration = Duration::from_secs(60);
/// How many rows one call spreads, so that pings and settlements are served in between.
const SPREAD_BATCH: usize = 1_000;
/// How many rows one step of `clamp_due_times` looks at.
const CLAMP_BATCH: usize = 1_000;
/// How long to leave a step of putting due times right to another replica.
pub(super) const CLAMP_PAUSE: Duration = Duration::from_secs(1);
/// No lease is meant to be longer, not even that of an exchange whose answer waits for the store; only that of a poll can
/// be, where the client has a long poll timeout.
const LONGEST_LEASE: Duration = Duration::from_secs(15 * 60);
/// How often tombstones are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const PURGE_BATCH: usize = 1_000;
/// Before a chore that failed or panicked is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    /// Due times are put right after a jump of the store's clock; nothing is claimed meanwhile.
    Clamp,
    /// What has been overdue since an outage is spread.
    Spread,
    /// The claims of deliveries are renewed.
    Renew,
    /// Tombstones are erased.
    Purge,
    /// Rows that operators should hear of are looked for.
    Count,
}

/// What has come of a chore: whether there is more to do at once.
pub(super) type Done = (Chore, Result<bool, Panicked>);

pub(super) struct Chores {
    tasks: JoinSet<Done>,
    running: BTreeSet<Chore>,
    polls: bool,
    /// When rows may have become overdue while nobody looked, they are spread at this time.
    spread_at: Option<Duration>,
    renew_at: Duration,
    purge_at: Duration,
    watch_at: Duration,
    /// When the clock was last seen right before the jump after which due times still have to be put right.
    clamp_since: Option<Duration>,
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
            clamp_since: None,
        }
    }

    /// Begins what is due.
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
        }
    }

    /// When the next one is due.
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

    /// The next one that has ended.
    pub(super) async fn ended(&mut self) -> Option<Done> {
        self.tasks.join_next().await.and_then(Result::ok)
    }

    /// Takes in what came of one.
    pub(super) fn take(&mut self, shared: &Arc<Shared>, done: Option<Done>) {
        let Some((chore, result)) = done else { return };
        self.running.remove(&chore);
        let again = result.unwrap_or_else(|Panicked| {
            measure::panicked();
            tracing::error!(?chore, "maintenance of the store panicked; it is retried");
            shared.tell(Event::Panicked { id: None });
            true
        });
        let soon = shared.clock.monotonic().saturating_add(RETRY_PAUSE);
        match chore {
            Chore::Spread if again => self.spread_at = Some(soon),
            Chore::Purge if again => self.purge_at = soon,
            Chore::Clamp if again => {
                let since = self.clamp_since.take();
                self.begin_clamp(shared, since, RETRY_PAUSE);
            }
            _ => {}
        }
    }

    /// Puts due times right, after a jump of the store's clock or because another replica has begun to. `last_right` is
    /// when the clock was last seen right.
    pub(super) fn clamp(&mut self, shared: &Arc<Shared>, last_right: Option<Duration>) {
        if self.polls && !self.is_running(Chore::Clamp) {
            self.begin_clamp(shared, last_right, Duration::ZERO);
        }
    }

    fn begin_clamp(&mut self, shared: &Arc<Shared>, last_right: Option<Duration>, pause: Duration) {
        self.clamp_since = last_right;
        self.spawn(Chore::Clamp, Box::pin(clamp(shared.clone(), last_right, pause)));
    }

    /// Spreads what has become overdue in an outage of the store.
    pub(super) fn spread_soon(&mut self) {
        if self.polls {
            self.spread_at = Some(Duration::ZERO);
        }
    }

    /// Notes how long a sleep took. One that took much longer was an outage of this machine, such as a suspend.
    pub(super) fn note_sleep(&mut self, before: Duration, wait: Duration, now: Duration) {
        if now.saturating_sub(before) > wait.saturating_add(OUTAGE) {
            self.spread_soon();
        }
    }

    /// Drops all of them.
    pub(super) fn stop(&mut self) {
        self.tasks.abort_all();
    }

    fn spawn(&mut self, chore: Chore, work: BoxFuture<'static, bool>) {
        self.running.insert(chore);
        self.tasks.spawn(async move { (chore, catch_panic(work).await) });
    }
}

/// After an outage, ours or the store's: what is long overdue does not all go out at once. A store takes its time to count,
/// during which the first polls go out. Says whether it failed.
async fn spread(shared: Arc<Shared>) -> bool {
    for partition in overdue_partitions(&shared).await {
        loop {
            match shared.store.spread(partition, OUTAGE, SPREAD_BATCH).await {
                Ok(SPREAD_BATCH) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = %error, "polls that an outage left overdue could not be spread; this is retried");
                    return true;
                }
            }
        }
    }
    false
}

/// The clients with long overdue rows; all of them if the store is too large to be counted in time.
async fn overdue_partitions(shared: &Shared) -> Vec<Partition> {
    let Ok(stats) = shared.store.stats().await else {
        return shared.tenants().values().map(|tenant| tenant.partition).collect();
    };
    let is_late = |stats: &PartitionStats| stats.overdue.is_some_and(|overdue| overdue >= OUTAGE);
    let late = stats.into_iter().filter(is_late).map(|stats| stats.partition);
    late.filter(|partition| shared.tenant(*partition).is_some()).collect()
}

/// Says whether it has to go on.
async fn clamp(shared: Arc<Shared>, last_right: Option<Duration>, pause: Duration) -> bool {
    let longest = LONGEST_LEASE.max(LONGEST_SEND_WINDOW.saturating_add(shared.longest_attempt()));
    shared.clock.sleep(pause).await;
    loop {
        let noticed = last_right.map(|last_right| shared.clock.monotonic().saturating_sub(last_right));
        match shared.store.clamp_due_times(Clamp { noticed, longest, limit: CLAMP_BATCH }).await {
            Ok(Clamped::More) => {}
            Ok(Clamped::Done) => return false,
            Ok(Clamped::Busy) => shared.clock.sleep(CLAMP_PAUSE).await,
            Err(error) => {
                shared.store_failed(error, "no poll goes out until due times are corrected after a jump of its clock");
                shared.clock.sleep(CLAMP_PAUSE).await;
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

/// Says whether there are more of them.
async fn purge(shared: Arc<Shared>) -> bool {
    match shared.store.purge(PURGE_BATCH).await {
        Ok(purged) => purged == PURGE_BATCH,
        Err(error) => {
            tracing::warn!(error = %error, "expired tombstones could not be deleted");
            false
        }
    }
}
