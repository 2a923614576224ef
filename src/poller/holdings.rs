//! This replica's claims on outcomes: those in the buffers of streams, and those that the application holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::{HeldOutcome, ProcessId};

/// The pause before an outcome is delivered again that the application has dropped. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The maximum of that pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The maximum number of outcomes whose drops are counted.
const DROPPED: usize = 65_536;

/// The identity of a claim: its row and its epoch.
type Key = (ProcessId, i64);

/// The claims on outcomes of one replica.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Outcomes in the buffers of streams. Their claims are not renewed.
    buffered: BTreeSet<Key>,
    /// Outcomes that the application holds, with the time of their delivery. Their claims are renewed.
    handed_out: BTreeMap<Key, Duration>,
    /// The outcomes that the application has dropped without an acknowledgement.
    dropped: BTreeMap<ProcessId, Dropped>,
    /// Whether the poller was shut down. Then nothing is delivered any more.
    is_closed: bool,
}

#[derive(Debug)]
struct Dropped {
    times: u32,
    at: Duration,
}

impl Holdings {
    /// Records claims of a stream. Returns `false` after the shutdown: the caller must release them.
    pub(super) fn buffer(&mut self, claims: impl IntoIterator<Item = HeldOutcome>) -> bool {
        if !self.is_closed {
            self.buffered.extend(claims.into_iter().map(key));
        }
        !self.is_closed
    }

    /// Moves a claim from a buffer to the application. Returns `false` if it was released meanwhile.
    pub(super) fn hand_out(&mut self, claim: HeldOutcome, now: Duration) -> bool {
        let is_ours = self.buffered.remove(&key(claim)) && !self.is_closed;
        if is_ours {
            self.handed_out.insert(key(claim), now);
        }
        is_ours
    }

    /// Removes a claim.
    pub(super) fn release(&mut self, claim: HeldOutcome) {
        self.buffered.remove(&key(claim));
        self.handed_out.remove(&key(claim));
    }

    /// Records that the application dropped a delivery. Returns the pause before the next delivery.
    ///
    /// Claims whose outcome the application did not receive, because they were given back or their replica died, do not
    /// lengthen the pause.
    pub(super) fn drop_delivery(&mut self, claim: HeldOutcome, now: Duration) -> Duration {
        self.release(claim);
        if self.dropped.len() >= DROPPED {
            // These were delivered again since, here or by another replica.
            self.dropped.retain(|_, dropped| now.saturating_sub(dropped.at) < LONGEST_PAUSE.saturating_mul(2));
        }
        if self.dropped.len() >= DROPPED {
            self.dropped.clear();
        }
        let dropped = self.dropped.entry(claim.id).or_insert(Dropped { times: 0, at: now });
        let pause = FIRST_PAUSE.saturating_mul(1 << dropped.times.min(16)).min(LONGEST_PAUSE);
        (dropped.times, dropped.at) = (dropped.times.saturating_add(1), now);
        pause
    }

    /// Records that the application acknowledged a delivery.
    pub(super) fn acknowledged(&mut self, claim: HeldOutcome) {
        self.release(claim);
        self.dropped.remove(&claim.id);
    }

    /// Removes claims from the buffers. Returns those that were there: the caller must release them.
    pub(super) fn unbuffer(&mut self, claims: Vec<HeldOutcome>) -> Vec<HeldOutcome> {
        claims.into_iter().filter(|claim| self.buffered.remove(&key(*claim))).collect()
    }

    /// Removes all claims from the buffers, at shutdown. The caller must release them.
    pub(super) fn close(&mut self) -> Vec<HeldOutcome> {
        self.is_closed = true;
        std::mem::take(&mut self.buffered).into_iter().map(claim).collect()
    }

    /// Returns the claims to renew.
    pub(super) fn handed_out(&self) -> Vec<HeldOutcome> {
        self.handed_out.keys().copied().map(claim).collect()
    }

    /// Removes the claims on outcomes that the application has held for longer than `longest`. Returns for how long it
    /// has held each.
    pub(super) fn overdue(&mut self, longest: Duration, now: Duration) -> Vec<(ProcessId, Duration)> {
        let mut overdue = Vec::new();
        self.handed_out.retain(|(id, _), since| {
            let held_for = now.saturating_sub(*since);
            let is_overdue = held_for >= longest;
            if is_overdue {
                overdue.push((*id, held_for));
            }
            !is_overdue
        });
        overdue
    }
}

fn key(claim: HeldOutcome) -> Key {
    (claim.id, claim.epoch)
}

fn claim((id, epoch): Key) -> HeldOutcome {
    HeldOutcome { id, epoch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_and_restart_after_an_acknowledgement() {
        let mut holdings = Holdings::default();
        let claim = HeldOutcome { id: ProcessId::from_bytes([1; 16]), epoch: 1 };
        let mut pauses = || (0..9).map(|_| holdings.drop_delivery(claim, Duration::ZERO).as_secs()).collect::<Vec<_>>();
        assert_eq!(pauses(), [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        holdings.acknowledged(claim);
        assert_eq!(holdings.drop_delivery(claim, Duration::ZERO), FIRST_PAUSE);
    }

    #[test]
    fn dropped_deliveries_are_recorded_for_a_limited_number_of_outcomes() {
        let mut holdings = Holdings::default();
        let claim = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            HeldOutcome { id: ProcessId::from_bytes(bytes), epoch: 1 }
        };
        for number in 0..DROPPED as u32 {
            holdings.drop_delivery(claim(number), Duration::from_secs(u64::from(number)));
        }
        let now = Duration::from_secs(DROPPED as u64);
        assert_eq!(holdings.drop_delivery(claim(DROPPED as u32 - 1), now), 2 * FIRST_PAUSE, "it was dropped lately");
        assert!(holdings.dropped.len() <= 7_201, "{}", holdings.dropped.len());
    }
}
