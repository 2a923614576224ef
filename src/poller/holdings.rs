//! This replica's claims on outcomes: those in the buffers of streams, and those that the application holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::{HeldOutcome, ProcessId};

/// The identity of a claim: its row and its epoch.
type Key = (ProcessId, i64);

/// The claims on outcomes of one replica.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Outcomes in the buffers of streams. Their claims are not renewed.
    buffered: BTreeSet<Key>,
    /// Outcomes that the application holds, with the time of their delivery. Their claims are renewed.
    handed_out: BTreeMap<Key, Duration>,
    /// Whether the poller was shut down. Then nothing is delivered any more.
    is_closed: bool,
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
    pub(super) fn let_go(&mut self, claim: HeldOutcome) {
        self.buffered.remove(&key(claim));
        self.handed_out.remove(&key(claim));
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
