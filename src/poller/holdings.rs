//! The outcomes that this replica holds claims on: those that a stream has taken in advance, and those that the
//! application has in hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::{HeldOutcome, ProcessId};

/// A claim is known by its row and its epoch.
type Key = (ProcessId, i64);

/// The claims on outcomes of one replica.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// In the buffer of a stream. Their claims are not renewed.
    buffered: BTreeSet<Key>,
    /// In the application's hands, with the time at which they got there. Their claims are renewed.
    handed_out: BTreeMap<Key, Duration>,
    /// The poller has been shut down: nothing is handed out any more.
    is_closed: bool,
}

impl Holdings {
    /// Notes claims of a stream. `false` after the shutdown: the caller has to release them.
    pub(super) fn buffer(&mut self, claims: impl IntoIterator<Item = HeldOutcome>) -> bool {
        if !self.is_closed {
            self.buffered.extend(claims.into_iter().map(key));
        }
        !self.is_closed
    }

    /// Moves a claim from a buffer into the application's hands. `false` if it was released meanwhile.
    pub(super) fn hand_out(&mut self, claim: HeldOutcome, now: Duration) -> bool {
        let is_ours = self.buffered.remove(&key(claim)) && !self.is_closed;
        if is_ours {
            self.handed_out.insert(key(claim), now);
        }
        is_ours
    }

    /// Takes a claim out, wherever it is.
    pub(super) fn let_go(&mut self, claim: HeldOutcome) {
        self.buffered.remove(&key(claim));
        self.handed_out.remove(&key(claim));
    }

    /// Takes these out of the buffers, and answers with those that were there: they are to be released.
    pub(super) fn unbuffer(&mut self, claims: Vec<HeldOutcome>) -> Vec<HeldOutcome> {
        claims.into_iter().filter(|claim| self.buffered.remove(&key(*claim))).collect()
    }

    /// Takes everything out of the buffers for good. It is to be released.
    pub(super) fn close(&mut self) -> Vec<HeldOutcome> {
        self.is_closed = true;
        std::mem::take(&mut self.buffered).into_iter().map(claim).collect()
    }

    /// The claims to renew.
    pub(super) fn handed_out(&self) -> Vec<HeldOutcome> {
        self.handed_out.keys().copied().map(claim).collect()
    }

    /// Takes out what the application has had in hand for longer than `longest`, and says for how long it has.
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
