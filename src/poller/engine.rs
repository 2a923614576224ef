//! The one task behind a poller: it settles and claims in batches, owns every job and errand, and keeps claims alive.

use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::event::Event;
use super::job::{Job, SEND_WINDOW};
use super::record::FORMAT;
use super::shared::{Shared, StoreClock, store_error};
use crate::store::{Claim, Claimed, Lane, Settlement, Work};

/// How long a delivery's claim lasts without being renewed.
pub(super) const OUTCOME_LEASE: Duration = Duration::from_secs(300);
const RENEW_EVERY: Duration = Duration::from_secs(100);
const FIRST_STORE_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(30);
/// How often tombstones are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const PURGE_BATCH: usize = 1_000;

pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) errands: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    pub(super) stop: watch::Receiver<Option<Duration>>,
    pub(super) jobs: JoinSet<Option<Settlement>>,
    /// Results that are not in the store yet.
    pub(super) results: Vec<Settlement>,
    pub(super) store_pause: Option<Duration>,
    pub(super) renew_at: Duration,
    pub(super) purge_at: Duration,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        errands: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Self {
        let now = shared.clock.monotonic();
        Self {
            shared,
            errands,
            stop,
            jobs: JoinSet::new(),
            results: Vec::new(),
            store_pause: None,
            renew_at: now.saturating_add(RENEW_EVERY),
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
        let (lanes, gates_in) = self.lanes();
        let mut wait = shared.store.look_every();
        if self.results.is_empty() && lanes.is_empty() {
            return gates_in.map_or(wait, |gate| gate.min(wait));
        }
        let lease = SEND_WINDOW + self.longest_attempt();
        let claim = (!lanes.is_empty()).then(|| Claim { lanes, lease, format: FORMAT, keys: shared.keyring.ids() });
        let began = shared.clock.monotonic();
        match shared.store.work(self.results.clone(), claim).await {
            Ok(work) => {
                self.store_pause = None;
                self.results.clear();
                wait = wait.min(work.next_in.unwrap_or(Duration::MAX));
                self.start(work, began, lease);
            }
            Err(error) => {
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

    fn start(&mut self, work: Work, began: Duration, lease: Duration) {
        let store_clock = StoreClock::new(work.now, began);
        for claimed in work.claimed {
            self.start_one(claimed, store_clock, began, lease);
        }
    }

    fn start_one(&mut self, claimed: Claimed, store_clock: StoreClock, began: Duration, lease: Duration) {
        let Some(tenant) = self.shared.tenant(claimed.partition) else { return };
        tenant.gate().probes(began);
        let in_flight = tenant.enter();
        let job = Job { shared: self.shared.clone(), tenant, claimed, store_clock, began, lease };
        self.jobs.spawn(async move {
            let settlement = job.run().await;
            drop(in_flight);
            settlement
        });
    }

    /// Waits for whatever comes first.
    async fn rest(&mut self, changed: BoxFuture<'static, ()>, wait: Duration) {
        let now = self.shared.clock.monotonic();
        let chores = self.renew_at.min(self.purge_at).saturating_sub(now);
        let is_failing = self.store_pause.is_some();
        let shared = self.shared.clone();
        tokio::select! {
            biased;
            _ = self.stop.changed() => {}
            Some(errand) = self.errands.recv() => self.start_errand(errand),
            Some(joined) = self.jobs.join_next(), if !self.jobs.is_empty() && !is_failing => {
                self.results.extend(joined.ok().flatten());
            }
            () = shared.nudge.notified() => {}
            () = changed, if self.shared.settings.polls && !is_failing => {}
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
            self.results.extend(joined.ok().flatten());
        }
    }

    /// For whom there is room, and when a closed gate has to be looked at again.
    fn lanes(&self) -> (Vec<Lane>, Option<Duration>) {
        let (mut lanes, mut gates_in) = (Vec::new(), None);
        if !self.shared.settings.polls {
            return (lanes, gates_in);
        }
        let now = self.shared.clock.monotonic();
        for tenant in self.shared.tenants().values() {
            let room = self.shared.settings.in_flight.saturating_sub(tenant.in_flight());
            let (limit, wait) = tenant.gate().admits(room, now);
            gates_in = [gates_in, wait].into_iter().flatten().min();
            if limit > 0 {
                lanes.push(Lane { partition: tenant.partition, limit });
            }
        }
        (lanes, gates_in)
    }

    fn longest_attempt(&self) -> Duration {
        self.shared.tenants().values().map(|tenant| tenant.client.longest_poll()).max().unwrap_or_default()
    }

    /// Renews the claims of deliveries, and clears tombstones away. What fails is tried again the next time.
    async fn upkeep(&mut self) {
        let shared = self.shared.clone();
        let now = shared.clock.monotonic();
        if now >= self.renew_at {
            self.renew_at = now.saturating_add(RENEW_EVERY);
            let held: Vec<_> = shared.held().values().copied().collect();
            if !held.is_empty()
                && let Err(error) = shared.store.hold_outcomes(held, OUTCOME_LEASE).await
            {
                tracing::warn!(error = %error, "the claims of deliveries could not be renewed");
            }
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
