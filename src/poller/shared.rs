//! The state that the handle, the engine, its jobs and the deliveries share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tracing::Span;

use super::circuit_breaker::{BreakerChange, GrantState};
use super::event::Event;
use super::holdings::Holdings;
use super::limits::Limits;
use super::measure;
use super::pause::PauseChange;
use super::reminders::{Cause, Reminders};
use super::tenant::Tenant;
use super::tenants::Tenants;
use super::watch_memory::WatchMemory;
use crate::client::{AuthorizationGrant, Client};
use crate::clock::Clock;
use crate::error::{Error, Misuse};
use crate::keyring::Keyring;
use crate::pending::Answer;
use crate::random::Random;
use crate::store::{Changed, Partition, ProcessId, Settlement, Store, StoreError};
use crate::task::{Panicked, catch_panic};
use crate::trace_parent::TraceParent;

/// How many events a slow listener may lag behind before it misses some.
const EVENTS: usize = 4_096;
/// The first pause between two attempts to store an answer of the OP.
pub(super) const COMMIT_PAUSE: Duration = Duration::from_millis(200);
pub(super) const LONGEST_COMMIT_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Keyring,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) settings: Settings,
    pub(super) continue_trace: Option<ContinueTrace>,
    pub(super) tenants: Mutex<Tenants>,
    /// The clients whose last poll got no usable answer.
    pub(super) failing: Mutex<BTreeSet<Partition>>,
    pub(super) watch: tokio::sync::Mutex<WatchMemory>,
    /// This replica's claims on outcomes.
    pub(super) holdings: Mutex<Holdings>,
    /// Created for the first listener, because its buffer is large.
    pub(super) events: OnceLock<broadcast::Sender<Event>>,
    /// The alerts that were reported a short time ago.
    pub(super) reminders: Mutex<Reminders>,
    /// Work that the engine owns, so that it continues if its caller is dropped.
    pub(super) background_tasks: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    /// Clients for which this replica knows that something will be due, and when, on the monotonic clock.
    pub(super) woken: Mutex<BTreeMap<Partition, Duration>>,
    /// Notified after an insertion into `woken`.
    pub(super) wake_up: Notify,
    /// Polls and verifications in progress.
    pub(super) in_flight: AtomicUsize,
    /// Answers of OPs that are being stored outside the engine.
    pub(super) settling: AtomicUsize,
    /// The exchanges whose answers are being stored.
    pub(super) committing: Mutex<BTreeSet<ProcessId>>,
    /// The maximum duration of a poll of any client, in milliseconds.
    pub(super) longest_attempt: AtomicU64,
    pub(super) stop: watch::Sender<Option<Duration>>,
    /// Whether the shutdown has ended.
    pub(super) has_stopped: watch::Sender<bool>,
}

/// The application's function that joins a span to a trace.
pub(super) type ContinueTrace = Arc<dyn Fn(&Span, &str) + Send + Sync>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) polls: bool,
    /// The maximum number of polls and verifications in progress, of all clients together.
    pub(super) in_flight: usize,
    /// The limits of clients without limits of their own.
    pub(super) limits: Limits,
    pub(super) prefetch: usize,
    pub(super) delivery_lease: Duration,
    pub(super) longest_delivery: Duration,
    pub(super) keep_tombstones: Duration,
    /// How long an outcome may stay unacknowledged; `None` for ever.
    pub(super) keep_outcomes: Option<Duration>,
    /// Whether an invalid success response is kept beside its outcome.
    pub(super) keeps_rejected: bool,
    pub(super) pings: bool,
}

impl Shared {
    pub(super) fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failing(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn committing(&self) -> MutexGuard<'_, BTreeSet<ProcessId>> {
        self.committing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tenant(&self, partition: Partition) -> Option<Arc<Tenant>> {
        self.tenants().get(partition).cloned()
    }

    pub(super) fn tenant_of(&self, issuer: &str, client_id: &str) -> Result<Arc<Tenant>, Error> {
        let tenant = self.tenant(Partition(Client::partition_of(issuer, client_id)));
        tenant.filter(|tenant| tenant.is_of(issuer, client_id)).ok_or_else(|| Misuse::UnknownClient.into())
    }

    /// Checks a response that has arrived. The metadata of the OPs may have been unknown when the clients were added.
    /// See [`Tenants::check_mix_up`].
    pub(super) fn check_mix_up(&self, tenant: &Tenant, grant: &AuthorizationGrant) -> Result<(), Error> {
        match grant.redirect_uri_that_tells() {
            Some(redirect_uri) => self.tenants().check_mix_up(&tenant.client, redirect_uri),
            None => Ok(()),
        }
    }

    /// Tells the engine that something will be due for a client after `due_in`.
    pub(super) fn wake(&self, partition: Partition, due_in: Duration) {
        let at = self.clock.monotonic().saturating_add(due_in);
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.entry(partition).and_modify(|before| *before = at.min(*before)).or_insert(at);
        drop(woken);
        self.wake_up.notify_one();
    }

    pub(super) fn take_woken(&self) -> BTreeMap<Partition, Duration> {
        std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of polls and verifications in progress.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether an answer of an OP is being stored outside the engine.
    pub(super) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Relaxed) > 0
    }

    /// The maximum duration of a poll of any client.
    pub(super) fn longest_attempt(&self) -> Duration {
        Duration::from_millis(self.longest_attempt.load(Ordering::Relaxed))
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.get_or_init(|| broadcast::Sender::new(EVENTS)).subscribe()
    }

    /// Reports that a store operation failed, with the consequence. All failures are counted. While they last, one
    /// alert a minute is sent.
    pub(super) fn store_failed(&self, error: StoreError, consequence: &'static str) {
        measure::store_failed();
        let error = Error::from(error);
        if self.is_due(Cause::Store) {
            tracing::error!(error = %error, "a store operation failed; {consequence}");
            self.emit(Event::StoreFailed { error: Arc::new(error) });
        } else {
            tracing::debug!(error = %error, "a store operation failed again; {consequence}");
        }
    }

    /// Records that a row cannot be opened or read. It is reported once an hour, however often it is claimed.
    pub(super) fn unreadable(&self, id: ProcessId, consequence: &'static str, error: Option<&Error>) {
        let error = error.map(tracing::field::display);
        if self.is_due(Cause::Unreadable(id)) {
            tracing::error!(process = %id, error, "{consequence}");
            self.emit(Event::Unreadable { id });
        } else {
            tracing::debug!(process = %id, error, "{consequence}");
        }
    }

    /// Records that the OP of a client answered with an error code that no specification defines.
    pub(super) fn unknown_error(&self, tenant: &Tenant, id: ProcessId, code: &str) {
        let code: Arc<str> = code.into();
        if self.is_due(Cause::UnknownError(tenant.partition, code.clone())) {
            let (issuer, client_id) = (tenant.client.issuer(), tenant.client.client_id());
            tracing::warn!(process = %id, issuer, client_id, code = &*code, "the OP answers with an unknown error code");
            self.emit(Event::UnknownError { id, code });
        }
    }

    /// Lets the application join a new span to the trace of its sign-in.
    pub(super) fn continue_trace(&self, span: &Span, trace_parent: Option<&TraceParent>) {
        if let (Some(continue_trace), Some(trace_parent)) = (&self.continue_trace, trace_parent) {
            continue_trace(span, trace_parent.as_str());
        }
    }

    /// Whether a report of a cause is due. If so, it counts as reported.
    pub(super) fn is_due(&self, cause: Cause) -> bool {
        let now = self.clock.monotonic();
        self.reminders().is_due(cause, now)
    }

    pub(super) fn reminders(&self) -> MutexGuard<'_, Reminders> {
        self.reminders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn emit(&self, event: Event) {
        if let Some(alert) = event.alert() {
            measure::alerted(alert);
        }
        // There may be no listener.
        if let Some(events) = self.events.get() {
            let _ = events.send(event);
        }
    }

    /// Lets the engine run a task to its end. The task must return its result itself. Returns `false` after the
    /// shutdown.
    pub(super) fn run(&self, task: BoxFuture<'static, ()>) -> bool {
        self.stop.borrow().is_none() && self.background_tasks.send(task).is_ok()
    }

    /// Stores an answer that the OP gives only once, however long the store is unavailable.
    pub(super) async fn settle(&self, settlement: Settlement) {
        let _settling = Counted::new(&self.settling);
        let mut pause = COMMIT_PAUSE;
        loop {
            match catch_panic(self.store.settle_and_claim(vec![settlement.clone()], None)).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => self.store_failed(error, "an answer of the OP cannot be stored yet"),
                Err(Panicked) => {
                    measure::panicked();
                    tracing::error!("the store panicked; an answer of the OP cannot be stored yet");
                    self.emit(Event::Panicked { id: None });
                }
            }
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_COMMIT_PAUSE);
        }
    }

    /// Applies an answer to a poll to the breaker and the pause of its client.
    pub(super) fn answered(&self, tenant: &Tenant, answer: &Answer, grant: GrantState) {
        let now = self.clock.monotonic();
        let mut breaker = tenant.breaker();
        if tenant.is_retired() {
            return;
        }
        let breaker_change = breaker.answered(answer, grant, now);
        drop(breaker);
        let change = tenant.pause().answered(answer, now);
        self.emit_pause(tenant, change);
        let code = match answer {
            Answer::Error { response, .. } => response.code(),
            _ => "",
        };
        self.emit_breaker(tenant, breaker_change, code);
    }

    pub(super) fn emit_pause(&self, tenant: &Tenant, change: PauseChange) {
        let (issuer, client_id) = (tenant.client.issuer(), tenant.client.client_id());
        match change {
            PauseChange::Nothing => {}
            PauseChange::Begins { probe_in, retry_after } => {
                tenant.measure.set_paused(true);
                let seconds = probe_in.as_secs();
                // An OP may ask for a second with each answer.
                if self.is_due(Cause::Paused(tenant.partition)) {
                    tenant.pause_emitted.store(true, Ordering::Relaxed);
                    tracing::warn!(issuer, client_id, seconds, "the OP sent `Retry-After`; the client pauses");
                    let (issuer, client_id) = (issuer.into(), client_id.into());
                    self.emit(Event::Paused { issuer, client_id, probe_in, retry_after });
                } else {
                    tracing::debug!(issuer, client_id, seconds, "the OP sent `Retry-After` again; the client pauses");
                }
            }
            PauseChange::Ends => {
                tenant.measure.set_paused(false);
                if tenant.pause_emitted.swap(false, Ordering::Relaxed) {
                    tracing::info!(issuer, client_id, "the client polls again after a pause");
                    self.emit(Event::Resumed { issuer: issuer.into(), client_id: client_id.into() });
                }
                self.wake(tenant.partition, Duration::ZERO);
            }
        }
    }

    pub(super) fn emit_breaker(&self, tenant: &Tenant, breaker_change: BreakerChange, code: &str) {
        self.note_change(tenant, &breaker_change);
        let (issuer, client_id) = (tenant.client.issuer().into(), tenant.client.client_id().into());
        match breaker_change {
            BreakerChange::Nothing => {}
            BreakerChange::ProbesAgain => self.wake(tenant.partition, Duration::ZERO),
            BreakerChange::Trips { probe_in } => {
                tenant.measure.set_refused(true);
                tracing::error!(
                    issuer = tenant.client.issuer(),
                    client_id = tenant.client.client_id(),
                    code,
                    "the OP refuses this client; its sign-ins are not polled"
                );
                self.emit(Event::ClientRefused { issuer, client_id, code: code.into(), probe_in });
            }
            BreakerChange::Resets => {
                tenant.measure.set_refused(false);
                tracing::info!(
                    issuer = tenant.client.issuer(),
                    client_id = tenant.client.client_id(),
                    "the OP accepts this client again"
                );
                self.emit(Event::ClientAccepted { issuer, client_id });
                self.wake(tenant.partition, Duration::ZERO);
            }
        }
    }
}

/// Counts as one until it is dropped.
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

/// Waits for a change that concerns the caller. `changed` must have been requested before the caller checked the store.
pub(super) async fn until_changed(
    shared: &Shared,
    mut changed: BoxFuture<'static, Changed>,
    concerns: impl Fn(Changed) -> bool,
) {
    loop {
        // Requested before the other one completes, so that no change in between is missed.
        let next = shared.store.changed();
        if concerns(changed.await) {
            return;
        }
        changed = next;
    }
}
