//! The polls and verifications in progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::circuit_breaker::BreakerProbe;
use super::pause::PauseProbe;
use super::shared::Shared;
use super::tenant::Tenant;

/// What is done with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobKind {
    Poll,
    Verification,
}

/// One poll or verification in progress. It counts until it is dropped.
pub(super) struct InFlight {
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    kind: JobKind,
    /// Whether its request was sent.
    was_sent: Arc<AtomicBool>,
    /// The tripped breaker and the pause that it is a probe of.
    breaker_probe: Option<BreakerProbe>,
    pause_probe: Option<PauseProbe>,
}

impl Tenant {
    /// Records the start of a poll or verification. It counts as in progress until the returned value is dropped. If a
    /// poll ends before `was_sent` is set, nothing was sent, so it was not a probe.
    pub(super) fn enter(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        kind: JobKind,
        was_sent: Arc<AtomicBool>,
        now: Duration,
    ) -> InFlight {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let (shared, tenant) = (shared.clone(), self.clone());
        let mut in_flight = InFlight { shared, tenant, kind, was_sent, breaker_probe: None, pause_probe: None };
        if kind == JobKind::Poll {
            in_flight.breaker_probe = self.breaker().probes(now);
            in_flight.pause_probe = self.pause().probes(now);
            self.meter().takes(self.limits.rate, now);
            let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
            self.measure.in_flight(before + 1);
        } else {
            self.verifying.fetch_add(1, Ordering::Relaxed);
        }
        in_flight
    }

    /// Undoes the records of a poll that was not sent. Returns whether another poll can be the probe instead.
    fn take_back(&self, in_flight: &InFlight) -> bool {
        self.meter().takes_back(self.limits.rate);
        let breaker = in_flight.breaker_probe.as_ref().is_some_and(|probe| self.breaker().take_back(probe));
        let pause = in_flight.pause_probe.as_ref().is_some_and(|probe| self.pause().take_back(probe));
        breaker || pause
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.kind == JobKind::Poll {
            let before = self.tenant.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.tenant.measure.in_flight(before.saturating_sub(1));
            if !self.was_sent.load(Ordering::Relaxed) && self.tenant.take_back(self) {
                self.shared.wake(self.tenant.partition, Duration::ZERO);
            }
        } else {
            self.tenant.verifying.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
