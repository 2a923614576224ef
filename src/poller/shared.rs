//! What the handle, the engine, its jobs and the deliveries have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, watch};

use super::cancel::Cancellations;
use super::event::Event;
use super::gate::{Gate, GateProbe, Turn};
use super::holdings::Holdings;
use super::limits::{Limits, Meter};
use super::measure::{self, Measure};
use super::pause::{Pause, PauseChange, PauseProbe};
use super::reach::Reach;
use super::tenants::Tenants;
use super::watch::Watch;
use crate::client::{AuthorizationGrant, Client};
use crate::clock::{Clock, Moment, saturating_add};
use crate::error::{Error, ErrorKind, Misuse};
use crate::keyring::Keyring;
use crate::pending::Answer;
use crate::random::Random;
use crate::store::{Changed, Partition, Settlement, Store, StoreError};

/// How many events a slow listener may be behind before it misses some.
const EVENTS: usize = 4_096;
/// Before a row is claimed again whose poll had become too late to leave, at first. It doubles while that goes on.
const FIRST_LATE_PAUSE: Duration = Duration::from_millis(250);
/// The same, at most.
const LONGEST_LATE_PAUSE: Duration = Duration::from_secs(60);
/// Between two tries to store what the OP has given.
pub(super) const COMMIT_PAUSE: Duration = Duration::from_millis(200);
pub(super) const LONGEST_COMMIT_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Keyring,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) settings: Settings,
    pub(super) tenants: Mutex<Tenants>,
    /// Those whose OP has given no usable answer to the last poll.
    pub(super) troubled: Mutex<BTreeSet<Partition>>,
    pub(super) watch: tokio::sync::Mutex<Watch>,
    /// The claims on outcomes that this replica has.
    pub(super) holdings: Mutex<Holdings>,
    /// Made for the first who listens: it has room for thousands.
    pub(super) events: OnceLock<broadcast::Sender<Event>>,
    /// Work for the engine to own, so that it outlives whoever asked for it.
    pub(super) errands: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    /// Clients for which something will be due, and when, on the monotonic clock: what this replica knows before it looks.
    pub(super) woken: Mutex<BTreeMap<Partition, Duration>>,
    /// Something was put there.
    pub(super) nudge: Notify,
    /// Polls and verifications under way.
    pub(super) under_way: AtomicUsize,
    /// Answers of OPs that are being stored apart from the engine.
    pub(super) settling: AtomicUsize,
    /// How long one poll of any client can take at the longest, in milliseconds.
    pub(super) longest_attempt: AtomicU64,
    pub(super) stop: watch::Sender<Option<Duration>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) polls: bool,
    /// How many polls and verifications may be under way, of all clients together.
    pub(super) in_flight: usize,
    /// For clients without limits of their own.
    pub(super) limits: Limits,
    pub(super) prefetch: usize,
    pub(super) delivery_lease: Duration,
    pub(super) longest_delivery: Duration,
    pub(super) keep_tombstones: Duration,
    pub(super) pings: bool,
}

/// One client and how it fares. What counts for the client rather than for its present settings is shared with the tenant
/// that takes the place of this one.
pub(super) struct Tenant {
    pub(super) client: Client,
    pub(super) partition: Partition,
    pub(super) measure: Measure,
    limits: Limits,
    meter: Arc<Mutex<Meter>>,
    gate: Arc<Mutex<Gate>>,
    pause: Arc<Mutex<Pause>>,
    reach: Arc<Mutex<Reach>>,
    in_flight: Arc<AtomicUsize>,
    verifying: Arc<AtomicUsize>,
    /// Polls in a row that were given back because they had become too late to leave.
    late: Arc<AtomicU32>,
    /// What exchanges need, one for each. Those who wait for one are served in their order.
    pub(super) exchanges: Arc<Semaphore>,
    pub(super) cancellations: Arc<Cancellations>,
    /// Another tenant has taken its place. What its polls are answered says nothing about that one.
    is_replaced: AtomicBool,
}

/// One poll or verification under way; it counts until it is dropped.
pub(super) struct UnderWay {
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    is_poll: bool,
    /// Whether its request has left.
    has_left: Arc<AtomicBool>,
    /// What it is the probe of.
    gate_probe: Option<GateProbe>,
    pause_probe: Option<PauseProbe>,
}

impl Tenant {
    pub(super) fn new(client: Client, limits: Limits) -> Self {
        let partition = Partition(client.partition());
        let exchanges = Arc::new(Semaphore::new(limits.exchanges.min(Semaphore::MAX_PERMITS)));
        let measure = Measure::of(&client);
        measure.all_is_well();
        Self {
            client,
            partition,
            measure,
            limits,
            meter: Arc::default(),
            gate: Arc::default(),
            pause: Arc::default(),
            reach: Arc::default(),
            in_flight: Arc::default(),
            verifying: Arc::default(),
            late: Arc::default(),
            exchanges,
            cancellations: Arc::default(),
            is_replaced: AtomicBool::new(false),
        }
    }

    /// The same client with other settings.
    pub(super) fn with_client(&self, client: Client) -> Self {
        Self {
            measure: Measure::of(&client),
            client,
            partition: self.partition,
            limits: self.limits,
            meter: self.meter.clone(),
            gate: self.gate.clone(),
            pause: self.pause.clone(),
            reach: self.reach.clone(),
            in_flight: self.in_flight.clone(),
            verifying: self.verifying.clone(),
            late: self.late.clone(),
            exchanges: self.exchanges.clone(),
            cancellations: self.cancellations.clone(),
            is_replaced: AtomicBool::new(false),
        }
    }

    pub(super) fn is_of(&self, issuer: &str, client_id: &str) -> bool {
        self.client.issuer() == issuer && self.client.client_id() == client_id
    }

    /// Notes that another tenant has taken its place, and opens the gate for that one.
    pub(super) fn replaced(&self) -> Turn {
        self.is_replaced.store(true, Ordering::Release);
        self.gate().open()
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }

    /// How many more polls may begin now, and if that may change by itself, when.
    pub(super) fn admits(&self, now: Duration) -> (usize, Option<Duration>) {
        let room = self.limits.in_flight.saturating_sub(self.in_flight());
        let (room, metered) = self.meter().admits(self.limits.ceiling, room, now);
        let (room, gated) = self.gate().admits(room, now);
        let (room, paused) = self.pause().admits(room, now);
        (room, gated.max(metered).max(paused))
    }

    /// How many more verifications may begin now. What the OP has given passes no gate, pause or ceiling: nothing is asked
    /// of the OP for it but keys.
    pub(super) fn room_for_verifications(&self) -> usize {
        self.limits.in_flight.saturating_sub(self.verifying.load(Ordering::Relaxed))
    }

    /// A poll or a verification begins; it counts as under way until what is returned is dropped. A poll that ends before
    /// `has_left` is set has asked nothing of the OP, so it was no probe either.
    pub(super) fn enter(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        is_poll: bool,
        has_left: Arc<AtomicBool>,
        now: Duration,
    ) -> UnderWay {
        shared.under_way.fetch_add(1, Ordering::Relaxed);
        let (shared, tenant) = (shared.clone(), self.clone());
        let mut under_way = UnderWay { shared, tenant, is_poll, has_left, gate_probe: None, pause_probe: None };
        if is_poll {
            under_way.gate_probe = self.gate().probes(now);
            under_way.pause_probe = self.pause().probes(now);
            self.meter().takes(self.limits.ceiling, now);
            let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
            self.measure.in_flight(before + 1);
        } else {
            self.verifying.fetch_add(1, Ordering::Relaxed);
        }
        under_way
    }

    /// Notes that a poll which has ended asked nothing of the OP. Says whether another may take its place as a probe.
    fn take_back(&self, under_way: &UnderWay) -> bool {
        self.meter().takes_back(self.limits.ceiling);
        let gate = under_way.gate_probe.as_ref().is_some_and(|probe| self.gate().take_back(probe));
        let pause = under_way.pause_probe.as_ref().is_some_and(|probe| self.pause().take_back(probe));
        gate || pause
    }

    /// A poll was given back because it had become too late for it to leave. Says when it may be claimed again: what made
    /// it late may last.
    pub(super) fn give_back(&self) -> Duration {
        let before = self.late.fetch_add(1, Ordering::Relaxed);
        FIRST_LATE_PAUSE.saturating_mul(1 << before.min(16)).min(LONGEST_LATE_PAUSE)
    }

    /// A poll left in time.
    pub(super) fn leaves_in_time(&self) {
        self.late.store(0, Ordering::Relaxed);
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.is_poll {
            let before = self.tenant.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.tenant.measure.in_flight(before.saturating_sub(1));
            if !self.has_left.load(Ordering::Relaxed) && self.tenant.take_back(self) {
                self.shared.wake(self.tenant.partition, Duration::ZERO);
            }
        } else {
            self.tenant.verifying.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The store's clock, carried on by this process's monotonic one.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreClock {
    now: SystemTime,
    at: Duration,
}

impl StoreClock {
    /// The store said `now` in answer to a call that began at `at` on the monotonic clock.
    pub(super) fn new(now: SystemTime, at: Duration) -> Self {
        Self { now, at }
    }

    /// What the store's clock showed when it carried the call out.
    pub(super) fn said(&self) -> SystemTime {
        self.now
    }

    /// By how much the two clocks have moved apart between two readings.
    pub(super) fn apart(&self, later: &Self) -> Duration {
        let expected = saturating_add(self.now, later.at.saturating_sub(self.at));
        match later.now.duration_since(expected) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        }
    }

    pub(super) fn moment(&self, clock: &dyn Clock) -> Moment {
        let monotonic = clock.monotonic();
        Moment { wall: self.now, monotonic: self.at }.plus(monotonic.saturating_sub(self.at))
    }
}

impl Shared {
    pub(super) fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn troubled(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tenant(&self, partition: Partition) -> Option<Arc<Tenant>> {
        self.tenants().get(partition).cloned()
    }

    pub(super) fn tenant_of(&self, issuer: &str, client_id: &str) -> Result<Arc<Tenant>, Error> {
        let tenant = self.tenant(Partition(Client::partition_of(issuer, client_id)));
        tenant.filter(|tenant| tenant.is_of(issuer, client_id)).ok_or_else(|| Misuse::UnknownClient.into())
    }

    /// For a response that has come, when perhaps nothing was known of the OPs before. See [`Tenants::check_mix_up`].
    pub(super) fn check_mix_up(&self, tenant: &Tenant, grant: &AuthorizationGrant) -> Result<(), Error> {
        match grant.redirect_uri_that_tells() {
            Some(redirect_uri) => self.tenants().check_mix_up(&tenant.client, redirect_uri),
            None => Ok(()),
        }
    }

    /// Tells the engine that something will be due for a client so soon.
    pub(super) fn wake(&self, partition: Partition, due_in: Duration) {
        let at = self.clock.monotonic().saturating_add(due_in);
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.entry(partition).and_modify(|before| *before = at.min(*before)).or_insert(at);
        drop(woken);
        self.nudge.notify_one();
    }

    pub(super) fn take_woken(&self) -> BTreeMap<Partition, Duration> {
        std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many polls and verifications are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether something that an OP has given is on its way into the store apart from the engine.
    pub(super) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Relaxed) > 0
    }

    /// How long one poll of any client can take at the longest.
    pub(super) fn longest_attempt(&self) -> Duration {
        Duration::from_millis(self.longest_attempt.load(Ordering::Relaxed))
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.get_or_init(|| broadcast::Sender::new(EVENTS)).subscribe()
    }

    pub(super) fn tell(&self, event: Event) {
        if matches!(event, Event::StoreTrouble { .. }) {
            measure::store_failed();
        }
        if let Some(alert) = event.alert() {
            measure::alerted(alert);
        }
        // Nobody has to listen.
        if let Some(events) = self.events.get() {
            let _ = events.send(event);
        }
    }

    /// Lets the engine see an errand through. It comes back by other means; `false` after the shutdown.
    pub(super) fn run(&self, errand: BoxFuture<'static, ()>) -> bool {
        self.stop.borrow().is_none() && self.errands.send(errand).is_ok()
    }

    /// Stores what the OP has given and gives no second time, however long the store is out of reach. `patience` is for
    /// what can be left to the lease of its row instead.
    pub(super) async fn settle(&self, settlement: Settlement, patience: Duration) {
        let _settling = Counted::new(&self.settling);
        let mut pause = COMMIT_PAUSE;
        let end = self.clock.monotonic().saturating_add(patience);
        while let Err(error) = self.store.work(vec![settlement.clone()], None).await {
            let error = store_error(error);
            tracing::error!(error = %error, "an answer of the OP cannot be stored yet");
            self.tell(Event::StoreTrouble { error: Arc::new(error) });
            if self.clock.monotonic() >= end {
                return;
            }
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_COMMIT_PAUSE);
        }
    }

    /// Takes an answer to a poll to the gate of its client, and to its pause.
    pub(super) fn answered(&self, tenant: &Tenant, answer: &Answer) {
        let now = self.clock.monotonic();
        let mut gate = tenant.gate();
        if tenant.is_replaced() {
            return;
        }
        let turn = gate.answered(answer, now);
        drop(gate);
        let change = tenant.pause().answered(answer, now);
        self.emit_pause(tenant, change);
        let code = match answer {
            Answer::Error { response, .. } => response.code(),
            _ => "",
        };
        self.tell_turn(tenant, turn, code);
    }

    pub(super) fn emit_pause(&self, tenant: &Tenant, change: PauseChange) {
        let (issuer, client_id) = (tenant.client.issuer(), tenant.client.client_id());
        match change {
            PauseChange::Nothing => {}
            PauseChange::Begins { probe_in, retry_after } => {
                tenant.measure.paused(true);
                let seconds = probe_in.as_secs();
                tracing::warn!(issuer, client_id, seconds, "the OP sent `Retry-After`; the client pauses");
                let (issuer, client_id) = (issuer.into(), client_id.into());
                self.tell(Event::Paused { issuer, client_id, probe_in, retry_after });
            }
            PauseChange::Ends => {
                tenant.measure.paused(false);
                tracing::info!(issuer, client_id, "the client polls again after a pause");
                self.tell(Event::Resumed { issuer: issuer.into(), client_id: client_id.into() });
                self.wake(tenant.partition, Duration::ZERO);
            }
        }
    }

    pub(super) fn tell_turn(&self, tenant: &Tenant, turn: Turn, code: &str) {
        let (issuer, client_id) = (tenant.client.issuer().into(), tenant.client.client_id().into());
        match turn {
            Turn::Stays => {}
            Turn::Closes { probe_in } => {
                tenant.measure.gate(true);
                tracing::error!(
                    issuer = tenant.client.issuer(),
                    client_id = tenant.client.client_id(),
                    code,
                    "the OP refuses this client; its processes wait"
                );
                self.tell(Event::GateClosed { issuer, client_id, code: code.into(), probe_in });
            }
            Turn::Opens => {
                tenant.measure.gate(false);
                tracing::info!(
                    issuer = tenant.client.issuer(),
                    client_id = tenant.client.client_id(),
                    "the OP accepts this client again"
                );
                self.tell(Event::GateOpened { issuer, client_id });
                self.wake(tenant.partition, Duration::ZERO);
            }
        }
    }
}

/// Counts while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn store_error(error: StoreError) -> Error {
    Error::new(ErrorKind::Store).with_source(error)
}

/// Waits for a change that concerns the caller. `changed` was asked for before the caller looked.
pub(super) async fn until_changed(
    shared: &Shared,
    mut changed: BoxFuture<'static, Changed>,
    concerns: impl Fn(Changed) -> bool,
) {
    loop {
        // Asked for before the other one completes, so that nothing is missed between the two.
        let next = shared.store.changed();
        if concerns(changed.await) {
            return;
        }
        changed = next;
    }
}
