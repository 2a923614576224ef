//! The one task behind a poller: it settles and claims in batches, owns every job and errand, and keeps claims alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::event::Event;
use super::job::{Job, SEND_WINDOW};
use super::record::FORMAT;
use super::shared::{Shared, StoreClock, store_error, until_changed};
use crate::store::{Changed, Claim, ClaimQuota, Clamp, Clamped, Next, NextDue, Settled, Settlement, State, Work};

const FIRST_STORE_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(30);
/// What has been due for longer has been waiting for an outage to end, with many others. It is spread over an interval,
/// which is the load that the OP has asked for.
const OUTAGE: Duration = Duration::from_secs(60);
/// So many rows are spread in one call, for pings and settlements to get their turn.
const SPREAD_BATCH: usize = 1_000;
/// So many rows of one client that wait to be verified are claimed in one call.
const VERIFICATIONS: usize = 16;
/// So many rows are looked at in one step of putting due times right.
const CLAMP_BATCH: usize = 1_000;
/// How long to leave a step of putting due times right to another replica.
const CLAMP_PAUSE: Duration = Duration::from_secs(1);
/// The store's clock may be corrected by this much at once.
const LARGEST_DRIFT: Duration = Duration::from_secs(5);
/// No lease is meant to be longer, not even that of an exchange whose answer waits for the store; only that of a poll can
/// be, where the client has a long poll timeout.
const LONGEST_LEASE: Duration = Duration::from_secs(15 * 60);
/// For so long the result of a poll waits for others, and what is due for more that is, when the store was called just
/// now: what a transaction costs is shared by all that is settled and claimed in it.
const LINGER: Duration = Duration::from_millis(5);
/// So many results are enough. More than are under way for one client by default: with half of them a transaction would
/// settle the one half while the other is asked about, and there would be twice as many.
const BATCH: usize = 128;
/// How often tombstones are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const PURGE_BATCH: usize = 1_000;

pub(super) struct Engine {
    shared: Arc<Shared>,
    errands: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    stop: watch::Receiver<Option<Duration>>,
    jobs: JoinSet<Option<Settlement>>,
    /// Results that are not in the store yet.
    results: Vec<Settlement>,
    /// When the first of them came.
    results_since: Duration,
    /// When the store was last called to settle and claim.
    called_at: Option<Duration>,
    /// Whether something has come that should not wait for others, such as a ping.
    is_nudged: bool,
    /// Whether more was due than there was room for.
    is_behind: bool,
    store_pause: Option<Duration>,
    /// Since when the store has been failing.
    failing_since: Option<Duration>,
    /// What the store's clock and the monotonic one last showed.
    last_seen: Option<StoreClock>,
    /// When the two last agreed, on the monotonic clock.
    last_seen_right: Option<Duration>,
    /// Whether rows may have become overdue while nobody looked.
    spread_due: Arc<AtomicBool>,
    /// Not before this: a store that is gone fails at once, and the end of a count wakes the engine.
    spread_at: Duration,
    /// Whether due times are being put right from here; nothing is claimed meanwhile.
    is_clamping: Arc<AtomicBool>,
    renew_at: Duration,
    purge_at: Duration,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        errands: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Self {
        let now = shared.clock.monotonic();
        let renew_at = now.saturating_add(shared.settings.delivery_lease / 3);
        Self {
            shared,
            errands,
            stop,
            jobs: JoinSet::new(),
            results: Vec::new(),
            results_since: now,
            called_at: None,
            is_nudged: false,
            is_behind: false,
            store_pause: None,
            failing_since: None,
            last_seen: None,
            last_seen_right: None,
            spread_due: Arc::new(AtomicBool::new(true)),
            spread_at: now,
            is_clamping: Arc::new(AtomicBool::new(false)),
            renew_at,
            purge_at: now,
        }
    }

    pub(super) async fn run(mut self) {
        while self.stop.borrow().is_none() {
            let changed = self.shared.store.changed();
            let wait = self.turn().await;
            self.rest(changed, wait).await;
        }
        self.wind_up().await;
    }

    /// Settles what has come in and claims what there is room for. Says how long nothing else is to be done.
    async fn turn(&mut self) -> Duration {
        let shared = self.shared.clone();
        self.upkeep().await;
        self.gather();
        if let Some(left) = self.lingers() {
            return left;
        }
        let (quotas, gates_in) = self.quotas();
        let mut wait = shared.store.look_every();
        if self.results.is_empty() && quotas.is_empty() {
            return gates_in.map_or(wait, |gate| gate.min(wait));
        }
        let lease = SEND_WINDOW.saturating_add(self.longest_attempt());
        let claim = (!quotas.is_empty()).then(|| Claim {
            quotas: quotas.clone(),
            limit: usize::MAX,
            lease,
            format: FORMAT,
            keys: shared.keyring.ids(),
        });
        let began = shared.clock.monotonic();
        (self.called_at, self.is_nudged) = (Some(began), false);
        match shared.store.work(self.results.clone(), claim).await {
            Ok(work) => {
                self.store_pause = None;
                let failing_since = self.failing_since.take();
                if failing_since.is_some_and(|since| began.saturating_sub(since) >= OUTAGE) {
                    self.spread_due.store(true, Ordering::Relaxed);
                }
                self.tell_decided(&work.settled);
                self.results.clear();
                if !quotas.is_empty() {
                    self.is_behind = next_in(&quotas, &work.due).is_zero();
                }
                wait = wait.min(if work.clamping { CLAMP_PAUSE } else { next_in(&quotas, &work.due) });
                if work.clamping {
                    // Whoever began it may have died.
                    self.clamp(None);
                }
                self.start(work, began, lease);
            }
            Err(error) => {
                self.failing_since.get_or_insert(began);
                let pause = self.store_pause.map_or(FIRST_STORE_PAUSE, |pause| (pause * 2).min(LONGEST_STORE_PAUSE));
                let error = store_error(error);
                tracing::error!(error = %error, "the store did not do its part; nothing is asked until it does");
                shared.tell(Event::StoreTrouble { error: Arc::new(error) });
                self.store_pause = Some(pause);
                return pause;
            }
        }
        gates_in.map_or(wait, |gate| gate.min(wait))
    }

    /// How long to wait for more to settle and to claim, if that is worth it. Where little is going on, nothing waits, nor
    /// where there is more to do than there is room for.
    fn lingers(&self) -> Option<Duration> {
        let is_urgent = |settlement: &Settlement| settlement.next != Next::Waiting;
        if self.results.len() >= BATCH || self.results.iter().any(is_urgent) {
            return None;
        }
        let since = match self.results.is_empty() || self.jobs.is_empty() {
            true if self.is_nudged || self.is_behind => return None,
            true => self.called_at?,
            false => self.results_since,
        };
        let waited = self.shared.clock.monotonic().saturating_sub(since);
        LINGER.checked_sub(waited).filter(|left| !left.is_zero())
    }

    /// Keeps what came of a job until it is settled.
    fn keep(&mut self, settlement: Option<Settlement>) {
        if self.results.is_empty() {
            self.results_since = self.shared.clock.monotonic();
        }
        self.results.extend(settlement);
    }

    fn tell_decided(&self, settled: &[Settled]) {
        for (settlement, settled) in self.results.iter().zip(settled) {
            if matches!((settlement.next, settled), (Next::Decided { .. }, Settled::Done)) {
                self.shared.tell(Event::Decided { id: settlement.id });
            }
        }
    }

    fn start(&mut self, work: Work, began: Duration, lease: Duration) {
        let store_clock = StoreClock::new(work.now, began);
        // The store read its clock at some moment of the call, so a slow call says little.
        let uncertain = self.shared.clock.monotonic().saturating_sub(began);
        let jump = self.last_seen.map(|last| last.apart(&store_clock));
        let has_jumped = jump.is_some_and(|jump| jump > LARGEST_DRIFT.saturating_add(uncertain));
        if has_jumped || self.last_seen.is_none() || uncertain < LARGEST_DRIFT / 5 {
            self.last_seen = Some(store_clock);
        }
        if let Some(by) = jump.filter(|_| has_jumped) {
            tracing::error!(seconds = by.as_secs(), "the store's clock has jumped; what it says is due is put off");
            self.shared.tell(Event::ClockJumped { by });
            let last_right = self.last_seen_right.replace(began).unwrap_or(began);
            self.clamp(Some(last_right));
        } else {
            self.last_seen_right = Some(began);
        }
        for id in work.set_aside {
            tracing::error!(process = %id, "the body of a process is missing from the store; it is put aside");
            self.shared.tell(Event::Unreadable { id });
        }
        for claimed in work.claimed {
            let Some(tenant) = self.shared.tenant(claimed.partition) else { continue };
            let job = Job { shared: self.shared.clone(), tenant, claimed, store_clock, began, lease };
            match has_jumped {
                true => self.results.extend(job.put_off()),
                false => self.start_one(job),
            }
        }
    }

    fn start_one(&mut self, job: Job) {
        let is_poll = job.claimed.state == State::Waiting;
        let in_flight = is_poll.then(|| job.tenant.enter(job.began));
        self.jobs.spawn(async move {
            let settlement = job.run().await;
            drop(in_flight);
            settlement
        });
    }

    /// Waits for whatever comes first.
    async fn rest(&mut self, changed: BoxFuture<'static, Changed>, wait: Duration) {
        let now = self.shared.clock.monotonic();
        let spreads = self.shared.settings.polls && self.spread_due.load(Ordering::Relaxed);
        let spread_at = if spreads { self.spread_at } else { Duration::MAX };
        let chores = self.renew_at.min(self.purge_at).min(spread_at).saturating_sub(now);
        let is_failing = self.store_pause.is_some();
        let shared = self.shared.clone();
        tokio::select! {
            biased;
            _ = self.stop.changed() => {}
            Some(errand) = self.errands.recv() => {
                self.start_errand(errand);
                // They come in crowds, and what follows here costs a call to the store.
                while let Ok(errand) = self.errands.try_recv() {
                    self.start_errand(errand);
                }
            }
            Some(joined) = self.jobs.join_next(), if !self.jobs.is_empty() && !is_failing => {
                self.keep(joined.ok().flatten());
            }
            () = shared.nudge.notified() => self.is_nudged = true,
            () = until_changed(&shared, changed, |changed| changed.work), if self.shared.settings.polls && !is_failing => {}
            () = shared.clock.sleep(wait.min(chores)) => {}
        }
    }

    fn start_errand(&mut self, errand: BoxFuture<'static, ()>) {
        self.jobs.spawn(async move {
            errand.await;
            None
        });
    }

    fn gather(&mut self) {
        while let Some(joined) = self.jobs.try_join_next() {
            self.keep(joined.ok().flatten());
        }
    }

    /// For whom there is room, and when there may be room again for those without.
    fn quotas(&self) -> (Vec<ClaimQuota>, Option<Duration>) {
        let (mut quotas, mut gates_in) = (Vec::new(), None);
        if !self.shared.settings.polls || self.is_clamping.load(Ordering::Relaxed) {
            return (quotas, gates_in);
        }
        let now = self.shared.clock.monotonic();
        for tenant in self.shared.tenants().values() {
            let (polls, wait) = tenant.admits(now);
            gates_in = [gates_in, wait].into_iter().flatten().min();
            quotas.push(ClaimQuota { partition: tenant.partition, polls, verifications: VERIFICATIONS });
        }
        (quotas, gates_in)
    }

    /// Puts due times right beside the polls, after a jump of the store's clock or because another replica has begun to.
    /// `last_right` is when the clock was last seen right.
    fn clamp(&mut self, last_right: Option<Duration>) {
        if self.is_clamping.swap(true, Ordering::Relaxed) {
            return;
        }
        let (shared, is_clamping) = (self.shared.clone(), self.is_clamping.clone());
        let longest = LONGEST_LEASE.max(SEND_WINDOW.saturating_add(self.longest_attempt()));
        self.jobs.spawn(async move {
            while shared.stop.borrow().is_none() {
                let noticed = last_right.map(|last_right| shared.clock.monotonic().saturating_sub(last_right));
                match shared.store.clamp_due_times(Clamp { noticed, longest, limit: CLAMP_BATCH }).await {
                    Ok(Clamped::More) => {}
                    Ok(Clamped::Done) => break,
                    Ok(Clamped::Busy) => shared.clock.sleep(CLAMP_PAUSE).await,
                    Err(error) => {
                        tracing::warn!(error = %error, "due times could not be put right after a jump of the clock");
                        shared.clock.sleep(CLAMP_PAUSE).await;
                    }
                }
            }
            is_clamping.store(false, Ordering::Relaxed);
            None
        });
    }

    fn longest_attempt(&self) -> Duration {
        self.shared.tenants().values().map(|tenant| tenant.client.longest_poll()).max().unwrap_or_default()
    }

    /// After an outage, ours or the store's: what is long overdue does not all go out at once. A store takes its time to
    /// count, during which the first polls go out.
    fn spread(&mut self) {
        let (shared, spread_due) = (self.shared.clone(), self.spread_due.clone());
        self.jobs.spawn(async move {
            let Ok(stats) = shared.store.stats().await else {
                spread_due.store(true, Ordering::Relaxed);
                return None;
            };
            for stats in stats {
                let is_late = stats.overdue.is_some_and(|overdue| overdue >= OUTAGE);
                let processes = stats.open();
                if shared.tenant(stats.partition).is_none() && processes > 0 {
                    tracing::warn!(processes, "the store holds processes of a client that this poller does not have");
                    shared.tell(Event::UnknownClient { processes });
                } else if is_late {
                    // If this fails the rest goes out as it comes, a few at a time.
                    while matches!(shared.store.spread(stats.partition, OUTAGE, SPREAD_BATCH).await, Ok(SPREAD_BATCH)) {
                    }
                }
            }
            None
        });
    }

    /// Renews the claims of deliveries, and clears tombstones away. What fails is tried again the next time.
    async fn upkeep(&mut self) {
        let shared = self.shared.clone();
        let now = shared.clock.monotonic();
        if shared.settings.polls && now >= self.spread_at && self.spread_due.swap(false, Ordering::Relaxed) {
            self.spread_at = now.saturating_add(FIRST_STORE_PAUSE);
            self.spread();
        }
        if now >= self.renew_at {
            self.renew_at = now.saturating_add(shared.settings.delivery_lease / 3);
            self.start_errand(Box::pin(shared.clone().renew_deliveries()));
        }
        if now >= self.purge_at {
            self.purge_at = now.saturating_add(PURGE_EVERY);
            match shared.store.purge(PURGE_BATCH).await {
                Ok(PURGE_BATCH) => self.purge_at = now,
                Ok(_) => {}
                Err(error) => tracing::warn!(error = %error, "tombstones could not be cleared away"),
            }
        }
    }

    /// Claims no more, waits for what is under way, and settles it. What is cut off leaves its lease.
    async fn wind_up(mut self) {
        let grace = self.stop.borrow().unwrap_or_default();
        let shared = self.shared.clone();
        let end = shared.clock.monotonic().saturating_add(grace);
        self.start_errand(Box::pin(shared.clone().give_back_buffered()));
        loop {
            self.gather();
            while let Ok(errand) = self.errands.try_recv() {
                self.start_errand(errand);
            }
            if !self.results.is_empty() && shared.store.work(self.results.clone(), None).await.is_ok() {
                self.results.clear();
            }
            let left = end.saturating_sub(shared.clock.monotonic());
            if left.is_zero() || (self.jobs.is_empty() && self.results.is_empty()) {
                return;
            }
            let wait = if self.jobs.is_empty() { left.min(FIRST_STORE_PAUSE) } else { left };
            tokio::select! {
                biased;
                Some(joined) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    self.results.extend(joined.ok().flatten());
                }
                () = shared.clock.sleep(wait) => {}
            }
        }
    }
}

/// When to come again, if nothing changes. Polls that there was no room for wait until there is.
fn next_in(quotas: &[ClaimQuota], due: &[NextDue]) -> Duration {
    let next_in = |(quota, due): (&ClaimQuota, &NextDue)| {
        let polls_in = due.polls_in.filter(|_| quota.polls > 0);
        [polls_in, due.verifications_in].into_iter().flatten().min()
    };
    quotas.iter().zip(due).filter_map(next_in).min().unwrap_or(Duration::MAX)
}
