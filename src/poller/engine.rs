//! The one task of a poller. It settles and claims rows in batches, owns every job and background task, and renews claims.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::event::Event;
use super::job::Report;
use super::measure;
use super::shared::Shared;
use super::store_clock::ClockWatch;
use crate::store::{Changed, Next, Partition, ProcessId, Settlement};
use crate::task::catch_panic;

use agenda::Agenda;
use call::Call;
use chores::{Chore, Chores, Done};
use pace::Pace;

mod agenda;
mod call;
mod chores;
mod pace;

/// How long results and due rows wait for others after a call to the store. One transaction settles and claims all of
/// them, so they share its cost.
const LINGER: Duration = Duration::from_millis(5);
/// How long a pending result waits for the next claim if nothing is due now. Its durations still count from the OP's
/// answer.
const RESULT_LINGER: Duration = Duration::from_millis(250);
/// The number of results at which the store is called without further waiting. It is more than the polls of one client
/// in flight by default. With half of it, one transaction would settle one half while the other half is polled, and
/// there would be twice as many transactions.
const BATCH: usize = 128;
/// How long the engine tries to store the OP's answers after the grace period of a shutdown.
const LAST_SETTLEMENT: Duration = Duration::from_secs(1);
/// The part of the slots for polls and verifications that clients share: a client takes no more of them than it leaves
/// free. Otherwise many clients with slow OPs would take all slots.
const SHARED_PART: usize = 4;
/// How long a client waits that has taken its share, unless one of its polls or verifications ends.
const SHARE_PAUSE: Duration = Duration::from_millis(250);
/// The pause between the engine's first panic and its restart.
const FIRST_RESTART_PAUSE: Duration = Duration::from_secs(1);
/// The maximum pause, if panics follow each other.
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Engine {
    shared: Arc<Shared>,
    background_tasks: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    stop: watch::Receiver<Option<Duration>>,
    /// Polls, verifications and background tasks.
    jobs: JoinSet<Ended>,
    chores: Chores,
    agenda: Agenda,
    /// The epochs of the polls in flight.
    polls: BTreeMap<ProcessId, i64>,
    /// Rows that this replica has claimed again although their polls are still in flight here, with the epochs of the
    /// new claims. This happens if their leases expire while this machine is suspended.
    retaken: BTreeMap<ProcessId, i64>,
    /// Results that are not in the store yet.
    results: Vec<Kept>,
    /// The current call to settle and claim.
    call: Option<Call>,
    changed: Option<BoxFuture<'static, Changed>>,
    pace: Pace,
    /// When the store was last called to settle and claim.
    called_at: Option<Duration>,
    /// Whether something happened that should not wait for others, such as a ping.
    is_urgent: bool,
    store_pause: Option<Duration>,
    /// The store is not called again before this time.
    call_at: Duration,
    /// Since when the store has been failing.
    failing_since: Option<Duration>,
    /// Detects jumps of the store's clock.
    store_clock: ClockWatch,
}

/// The result of a poll or a verification, until it is in the store.
#[derive(Clone)]
struct Kept {
    partition: Partition,
    settlement: Settlement,
    /// To be emitted once the settlement is stored.
    events: Vec<Event>,
    /// The time from which its durations count.
    since: Duration,
}

/// A task that has ended.
enum Ended {
    Job { partition: Partition, id: ProcessId, epoch: i64, report: Option<Box<Report>> },
    BackgroundTask,
}

impl Kept {
    /// Whether it carries an answer of the OP, or others wait for it.
    fn is_urgent(&self) -> bool {
        self.settlement.next != Next::Waiting
    }

    /// The settlement for a call that begins now. The time since the result is subtracted from its durations.
    fn settlement(&self, now: Duration) -> Settlement {
        let waited = now.saturating_sub(self.since);
        let left = |duration: Duration| duration.saturating_sub(waited);
        let settlement = self.settlement.clone();
        match settlement.next {
            Next::Waiting | Next::Answered => Settlement {
                due_in: left(settlement.due_in),
                ping_in: settlement.ping_in.map(left),
                expires_in: settlement.expires_in.map(left),
                ..settlement
            },
            Next::Decided { .. } | Next::Ended => settlement,
        }
    }
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        background_tasks: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Self {
        let now = shared.clock.monotonic();
        let pace = Pace::new(shared.settings.in_flight);
        Self {
            chores: Chores::new(&shared, now),
            shared,
            background_tasks,
            stop,
            jobs: JoinSet::new(),
            agenda: Agenda::default(),
            polls: BTreeMap::new(),
            retaken: BTreeMap::new(),
            results: Vec::new(),
            call: None,
            changed: None,
            pace,
            called_at: None,
            is_urgent: false,
            store_pause: None,
            call_at: now,
            failing_since: None,
            store_clock: ClockWatch::default(),
        }
    }

    /// Runs until the poller is shut down. After a panic, for example of the store, it restarts without losing its
    /// state.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_RESTART_PAUSE;
        while self.stop.borrow().is_none() {
            let began = self.shared.clock.monotonic();
            if catch_panic(self.run_until_stopped()).await.is_ok() {
                break;
            }
            let now = self.shared.clock.monotonic();
            if now.saturating_sub(began) > LONGEST_RESTART_PAUSE {
                pause = FIRST_RESTART_PAUSE;
            }
            self.panicked(pause);
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                _ = self.stop.changed() => {}
                () = shared.clock.sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_RESTART_PAUSE);
        }
        if catch_panic(self.drain()).await.is_err() {
            self.panicked(Duration::ZERO);
        }
    }

    fn panicked(&mut self, pause: Duration) {
        measure::panicked();
        tracing::error!(pause = ?pause, "the poller's task panicked; it restarts after a pause");
        self.shared.emit(Event::Panicked { id: None });
        // Either of these may have panicked.
        self.changed = None;
        self.abandon_call();
    }

    async fn run_until_stopped(&mut self) {
        while self.stop.borrow().is_none() {
            let wait = self.run_once();
            self.wait_for_event(wait).await;
        }
    }

    /// Starts everything that is due. Returns the time until something else is due.
    fn run_once(&mut self) -> Duration {
        let shared = self.shared.clone();
        let now = shared.clock.monotonic();
        self.collect_results();
        self.chores.begin(&shared, now);
        let mut wait = self.chores.next_at().saturating_sub(now);
        if shared.settings.polls {
            if self.changed.is_none() {
                self.changed = Some(shared.store.changed());
            }
            for (partition, at) in shared.take_woken() {
                self.is_urgent |= at <= now;
                self.agenda.bring_forward(partition, at);
            }
            self.agenda.check(shared.tenants().by_partition(), now, shared.store.check_interval());
            wait = wait.min(self.agenda.next_check_at().saturating_sub(now));
        }
        match self.call_in(now) {
            None => {}
            Some(Duration::ZERO) => self.start_call(now),
            Some(call_in) => wait = wait.min(call_in),
        }
        wait
    }

    /// The time until the next call to the store, as far as is known now.
    fn call_in(&self, now: Duration) -> Option<Duration> {
        if self.call.is_some() {
            return None;
        }
        let claims = self.claims() && self.free_slots() > 0;
        let due_in = self.agenda.next_at().filter(|_| claims).map(|at| at.saturating_sub(now));
        let results_since = self.results.first().map(|first| first.since);
        let wait = match (due_in, results_since) {
            (None, None) => return None,
            (_, Some(_)) if self.has_enough_results() => Duration::ZERO,
            (Some(Duration::ZERO), None) => self.linger(self.called_at, now),
            // More jobs may end in a moment.
            (Some(Duration::ZERO), Some(since)) if !self.jobs.is_empty() => left(since, LINGER, now),
            (Some(Duration::ZERO), Some(_)) => self.linger(self.called_at, now),
            (Some(due_in), None) => due_in,
            (due_in, Some(since)) => left(since, RESULT_LINGER, now).min(due_in.unwrap_or(Duration::MAX)),
        };
        Some(wait.max(self.call_at.saturating_sub(now)))
    }

    /// How long to wait for more due rows after the last call. With little load, nothing waits.
    fn linger(&self, called_at: Option<Duration>, now: Duration) -> Duration {
        called_at.filter(|_| !self.is_urgent).map_or(Duration::ZERO, |at| left(at, LINGER, now))
    }

    fn has_enough_results(&self) -> bool {
        self.is_urgent || self.results.len() >= BATCH || self.results.iter().any(Kept::is_urgent)
    }

    /// Whether rows may be claimed now.
    fn claims(&self) -> bool {
        self.shared.settings.polls && self.stop.borrow().is_none() && !self.chores.is_running(Chore::CorrectDueTimes)
    }

    /// How many more polls and verifications this replica may start.
    fn free_slots(&self) -> usize {
        self.shared.settings.in_flight.saturating_sub(self.shared.in_flight())
    }

    /// The number of polls, or of verifications, that a client may start in addition to its `in_flight` ones.
    fn share(&self, in_flight: usize) -> usize {
        let (free, shared_slots) = (self.free_slots(), self.shared_slots());
        if free > shared_slots { free } else { free.saturating_sub(in_flight).div_ceil(2) }
    }

    /// The number of polls and verifications of all clients that may start at once.
    fn share_of_all(&self) -> usize {
        let (free, shared_slots) = (self.free_slots(), self.shared_slots());
        free.saturating_sub(shared_slots).max(free.div_ceil(2))
    }

    /// The number of slots that clients share. A single client shares none.
    fn shared_slots(&self) -> usize {
        let is_single = self.shared.tenants().by_partition().len() <= 1;
        if is_single { 0 } else { self.shared.settings.in_flight / SHARED_PART }
    }

    /// Waits for the first event and handles it.
    async fn wait_for_event(&mut self, wait: Duration) {
        let shared = self.shared.clone();
        let before = shared.clock.monotonic();
        tokio::select! {
            biased;
            _ = self.stop.changed() => {}
            answer = call::answer(&mut self.call) => self.apply_answer(answer),
            Some(task) = self.background_tasks.recv() => self.start_background_task(task),
            Some(ended) = self.jobs.join_next(), if !self.jobs.is_empty() => self.keep_result(ended.ok()),
            chore = self.chores.ended(), if self.chores.any() => self.finish_chore(chore),
            () = shared.wake_up.notified() => {}
            changed = call::changed(&mut self.changed) => {
                // Subscribed again before anything is checked, so that no change in between is missed.
                self.changed = None;
                self.changed = Some(shared.store.changed());
                if changed.work {
                    self.agenda.check_soon(shared.tenants().by_partition().len());
                }
            }
            () = shared.clock.sleep(wait) => self.chores.note_sleep(before, wait, shared.clock.monotonic()),
        }
        // Background tasks come in bursts, and the next step costs a call to the store.
        while let Ok(task) = self.background_tasks.try_recv() {
            self.start_background_task(task);
        }
    }

    fn finish_chore(&mut self, done: Option<Done>) {
        // The due times from earlier claims are no longer correct.
        if matches!(done, Some((Chore::CorrectDueTimes, Ok(false)))) {
            self.agenda.check_soon(self.shared.tenants().by_partition().len());
        }
        self.chores.take(&self.shared, done);
    }

    fn start_background_task(&mut self, task: BoxFuture<'static, ()>) {
        let shared = self.shared.clone();
        self.jobs.spawn(async move {
            if catch_panic(task).await.is_err() {
                measure::panicked();
                tracing::error!("a background task of the poller panicked");
                shared.emit(Event::Panicked { id: None });
            }
            Ended::BackgroundTask
        });
    }

    fn collect_results(&mut self) {
        while let Some(ended) = self.jobs.try_join_next() {
            self.keep_result(ended.ok());
        }
    }

    /// Keeps the result of a job until it is settled.
    fn keep_result(&mut self, ended: Option<Ended>) {
        let Some(Ended::Job { partition, id, epoch, report }) = ended else { return };
        let mut report = report.map(|report| *report);
        let now = self.shared.clock.monotonic();
        if self.polls.get(&id) == Some(&epoch) {
            self.polls.remove(&id);
            let retaken = self.retaken.remove(&id);
            let epoch = report.as_mut().and_then(|report| report.settlement.epoch.as_mut());
            if let (Some(retaken), Some(epoch)) = (retaken, epoch) {
                *epoch = retaken;
            }
        }
        self.agenda.freed(partition, now);
        self.keep(partition, report, now);
    }

    fn keep(&mut self, partition: Partition, report: Option<Report>, now: Duration) {
        self.results.extend(report.map(|Report { settlement, events }| Kept {
            partition,
            settlement,
            events,
            since: now,
        }));
    }

    /// Stops claiming, waits for the running jobs, and settles their results. The leases of interrupted jobs expire.
    async fn drain(&mut self) {
        let grace = self.stop.borrow().unwrap_or_default();
        let end = self.shared.clock.monotonic().saturating_add(grace);
        self.chores.stop();
        self.start_background_task(Box::pin(self.shared.clone().give_back_buffered()));
        self.drain_until(end, |engine| engine.jobs.is_empty() && engine.call.is_none() && engine.results.is_empty())
            .await;
        // The OP gives its answers only once.
        self.call_at = Duration::ZERO;
        if self.call.as_ref().is_some_and(|call| !call.settles()) {
            self.abandon_call();
        }
        let end = self.shared.clock.monotonic().saturating_add(LAST_SETTLEMENT);
        let is_done = |engine: &Self| {
            let settles = engine.call.as_ref().is_some_and(Call::settles);
            !settles && engine.results.is_empty() && !engine.shared.is_settling()
        };
        self.drain_until(end, is_done).await;
    }

    async fn drain_until(&mut self, end: Duration, is_done: impl Fn(&Self) -> bool) {
        let shared = self.shared.clone();
        loop {
            self.collect_results();
            while let Ok(task) = self.background_tasks.try_recv() {
                self.start_background_task(task);
            }
            let now = shared.clock.monotonic();
            if is_done(self) {
                return;
            }
            let mut wait = end.saturating_sub(now);
            if self.call.is_none() && !self.results.is_empty() {
                match self.call_at.saturating_sub(now) {
                    Duration::ZERO => self.start_call(now),
                    call_in => wait = wait.min(call_in),
                }
            }
            tokio::select! {
                biased;
                answer = call::answer(&mut self.call) => self.apply_answer(answer),
                Some(ended) = self.jobs.join_next(), if !self.jobs.is_empty() => self.keep_result(ended.ok()),
                Some(task) = self.background_tasks.recv() => self.start_background_task(task),
                () = shared.clock.sleep(wait) => if shared.clock.monotonic() >= end { return },
            }
        }
    }

    /// The partitions of results.
    fn partitions_of(results: &[Kept]) -> BTreeSet<Partition> {
        results.iter().map(|kept| kept.partition).collect()
    }
}

/// The rest of a period that began at `since`.
fn left(since: Duration, time: Duration, now: Duration) -> Duration {
    time.saturating_sub(now.saturating_sub(since))
}
