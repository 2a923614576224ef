//! One client of a poller.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::cancellations::Cancellations;
use super::circuit_breaker::{BreakerChange, CircuitBreaker};
use super::limits::{Limits, Meter};
use super::measure::Measure;
use super::pause::Pause;
use super::reachability::Reachability;
use crate::client::Client;
use crate::store::{Acceptance, ClientNote, Partition};

/// The first pause before a row is claimed again whose poll was too late to be sent. It doubles while that continues.
const FIRST_LATE_PAUSE: Duration = Duration::from_millis(250);
/// The maximum of that pause.
const LONGEST_LATE_PAUSE: Duration = Duration::from_secs(60);

/// One client with its state. State that does not depend on the client's settings is shared with the tenant that
/// replaces this one.
pub(super) struct Tenant {
    pub(super) client: Client,
    pub(super) partition: Partition,
    pub(super) measure: Measure,
    pub(super) limits: Limits,
    meter: Arc<Mutex<Meter>>,
    breaker: Arc<Mutex<CircuitBreaker>>,
    pause: Arc<Mutex<Pause>>,
    /// Whether the current pause was reported.
    pub(super) pause_emitted: Arc<AtomicBool>,
    reachability: Arc<Mutex<Reachability>>,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) verifying: Arc<AtomicUsize>,
    /// The number of polls in a row that were given back because they were too late to be sent.
    late: Arc<AtomicU32>,
    /// The slots for exchanges. They are granted in the order of the requests.
    pub(super) exchanges: Arc<Semaphore>,
    pub(super) cancellations: Arc<Cancellations>,
    /// Whether the store has its name.
    is_noted: Arc<AtomicBool>,
    /// Whether it was removed or replaced by another tenant. The answers to its polls no longer count.
    is_retired: AtomicBool,
}

impl Tenant {
    pub(super) fn new(client: Client, limits: Limits) -> Self {
        let partition = Partition(client.partition());
        let exchanges = Arc::new(Semaphore::new(limits.exchanges.min(Semaphore::MAX_PERMITS)));
        let measure = Measure::of(&client);
        measure.reset(partition);
        // Rows have only this number.
        tracing::info!(
            issuer = client.issuer(),
            client_id = client.client_id(),
            number = partition.0,
            "the poller has this client"
        );
        Self {
            client,
            partition,
            measure,
            limits,
            meter: Arc::default(),
            breaker: Arc::default(),
            pause: Arc::default(),
            pause_emitted: Arc::default(),
            reachability: Arc::default(),
            in_flight: Arc::default(),
            verifying: Arc::default(),
            late: Arc::default(),
            exchanges,
            cancellations: Arc::default(),
            is_noted: Arc::default(),
            is_retired: AtomicBool::new(false),
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
            breaker: self.breaker.clone(),
            pause: self.pause.clone(),
            pause_emitted: self.pause_emitted.clone(),
            reachability: self.reachability.clone(),
            in_flight: self.in_flight.clone(),
            verifying: self.verifying.clone(),
            late: self.late.clone(),
            exchanges: self.exchanges.clone(),
            cancellations: self.cancellations.clone(),
            is_noted: self.is_noted.clone(),
            is_retired: AtomicBool::new(false),
        }
    }

    /// What the store is told about it.
    pub(super) fn note(&self, acceptance: Acceptance) -> ClientNote {
        ClientNote::new(self.partition, self.client.issuer(), self.client.client_id()).acceptance(acceptance)
    }

    /// What the store has yet to be told: its name, or that the OP still refuses it.
    pub(super) fn pending_note(&self) -> Option<ClientNote> {
        if self.breaker().is_tripped() {
            return Some(self.note(Acceptance::Refused));
        }
        (!self.is_noted.load(Ordering::Relaxed)).then(|| self.note(Acceptance::Unchanged))
    }

    /// Records that the store has its name.
    pub(super) fn set_noted(&self) {
        self.is_noted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_of(&self, issuer: &str, client_id: &str) -> bool {
        self.client.issuer() == issuer && self.client.client_id() == client_id
    }

    /// Records that another tenant has replaced it, and resets the breaker for that one.
    pub(super) fn replaced(&self) -> BreakerChange {
        self.is_retired.store(true, Ordering::Release);
        self.breaker().reset()
    }

    /// Records that the client was removed.
    pub(super) fn removed(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.measure.reset(self.partition);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Returns how many more polls may begin now, and the time until that changes by itself, if it does.
    pub(super) fn admits(&self, now: Duration) -> (usize, Option<Duration>) {
        let free = self.limits.in_flight.saturating_sub(self.in_flight());
        let (free, metered) = self.meter().admits(self.limits.rate, free, now);
        let (free, refused) = self.breaker().admits(free, now);
        let (free, paused) = self.pause().admits(free, now);
        (free, refused.max(metered).max(paused))
    }

    /// How many more verifications may begin now. The breaker, the pause and the rate limit do not apply, because a
    /// verification requests only keys from the OP.
    pub(super) fn free_verification_slots(&self) -> usize {
        self.limits.in_flight.saturating_sub(self.verifying())
    }

    /// Records a poll that was given back because it was too late to be sent. Returns the time until it may be claimed
    /// again, because the cause may last.
    pub(super) fn give_back(&self) -> Duration {
        let before = self.late.fetch_add(1, Ordering::Relaxed);
        FIRST_LATE_PAUSE.saturating_mul(1 << before.min(16)).min(LONGEST_LATE_PAUSE)
    }

    /// Records a poll that was sent in time.
    pub(super) fn sent_in_time(&self) {
        self.late.store(0, Ordering::Relaxed);
    }

    pub(super) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reachability(&self) -> MutexGuard<'_, Reachability> {
        self.reachability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn verifying(&self) -> usize {
        self.verifying.load(Ordering::Relaxed)
    }
}
