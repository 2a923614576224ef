//! Which clients may have something due, and when.
//!
//! A poller may have ten thousand clients, two of which are busy. The work for those two must not depend on the number
//! of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::store::Partition;

/// The maximum number of clients in one claim.
pub(super) const QUOTAS: usize = 128;
/// How many clients are checked in a second for changes by other replicas, if one claim cannot contain all of them.
const CHECKS_PER_SECOND: usize = 1_000;
/// If one claim cannot contain all clients, each client is checked once in this many periods.
const CHECK_PERIODS: u32 = 4;

/// When each client may have something due, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    clients: BTreeMap<Partition, Entry>,
    /// The clients with a time, the earliest first.
    order: BTreeSet<(Duration, Partition)>,
    checks: Checks,
}

#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    at: Option<Duration>,
    slots: Slots,
}

/// Whether a client can take what is due.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slots {
    #[default]
    Suffice,
    /// Something is due that exceeds its limits. The end of a poll or verification frees a slot.
    Exhausted,
}

/// The rounds of checks of all clients.
#[derive(Debug, Default)]
struct Checks {
    /// The last client of the last check.
    after: Option<Partition>,
    next_at: Duration,
    last_at: Duration,
    /// How many clients are left in the round that a change has started.
    urgent: usize,
}

impl Agenda {
    /// Records that something may be due for a client at this time.
    pub(super) fn bring_forward(&mut self, partition: Partition, at: Duration) {
        let before = self.clients.get(&partition).and_then(|entry| entry.at);
        if before.is_none_or(|before| at < before) {
            self.set(partition, Some(at), Slots::Suffice);
        }
    }

    /// Records the answer of a claim for a client: when something is due next, unless an earlier time was recorded
    /// meanwhile, and whether the client can take it.
    pub(super) fn note(&mut self, partition: Partition, at: Option<Duration>, slots: Slots) {
        let before = self.clients.get(&partition).and_then(|entry| entry.at);
        self.set(partition, [before, at].into_iter().flatten().min(), slots);
    }

    /// Removes the due time of a client, because a claim includes it.
    pub(super) fn take(&mut self, partition: Partition) {
        self.set(partition, None, Slots::Suffice);
    }

    fn set(&mut self, partition: Partition, at: Option<Duration>, slots: Slots) {
        let before = self.clients.insert(partition, Entry { at, slots });
        if let Some(before) = before.and_then(|entry| entry.at) {
            self.order.remove(&(before, partition));
        }
        if let Some(at) = at {
            self.order.insert((at, partition));
        }
    }

    /// Records that a poll or verification of a client has ended.
    pub(super) fn freed(&mut self, partition: Partition, now: Duration) {
        if self.clients.get(&partition).is_some_and(|entry| entry.slots == Slots::Exhausted) {
            self.set(partition, Some(now), Slots::Suffice);
        }
    }

    /// Forgets a client that this poller no longer has.
    pub(super) fn remove(&mut self, partition: Partition) {
        self.set(partition, None, Slots::Suffice);
        self.clients.remove(&partition);
    }

    /// Takes the clients with something due from the agenda, the longest overdue first. The claim adds them again.
    pub(super) fn take_due(&mut self, now: Duration, limit: usize) -> Vec<Partition> {
        let due: Vec<_> = self.order.iter().take_while(|(at, _)| *at <= now).take(limit).copied().collect();
        for (_, partition) in &due {
            self.take(*partition);
        }
        due.into_iter().map(|(_, partition)| partition).collect()
    }

    /// When the earliest client has something due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// When the next clients are checked for changes by other replicas.
    pub(super) fn next_check_at(&self) -> Duration {
        self.checks.next_at
    }

    /// Records a change of an unknown client. All clients are checked: at once if one claim can contain them, and
    /// otherwise in a quick round.
    pub(super) fn check_soon(&mut self, clients: usize) {
        self.checks.urgent = clients;
        let soon = self.checks.last_at.saturating_add(urgent_period(clients));
        self.checks.next_at = self.checks.next_at.min(soon);
    }

    /// Records that something may be due for the next clients of the round, if a check is due.
    pub(super) fn check<T>(&mut self, tenants: &BTreeMap<Partition, T>, now: Duration, check_interval: Duration) {
        if now < self.checks.next_at {
            return;
        }
        let after = self.checks.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut seen: Vec<_> = tenants.range((after, Bound::Unbounded)).map(|(key, _)| *key).take(QUOTAS).collect();
        if seen.len() < QUOTAS && self.checks.after.is_some() {
            let rest = QUOTAS - seen.len();
            let begin = tenants.keys().copied().take(rest);
            seen.extend(begin.take_while(|key| self.checks.after.is_some_and(|after| *key <= after)));
        }
        self.checks.after = seen.last().copied().filter(|_| tenants.len() > QUOTAS);
        self.checks.urgent = self.checks.urgent.saturating_sub(seen.len());
        self.checks.last_at = now;
        let period = match (tenants.len() > QUOTAS, self.checks.urgent > 0) {
            (false, _) => check_interval,
            (true, true) => urgent_period(tenants.len()),
            (true, false) => {
                let round = check_interval.saturating_mul(CHECK_PERIODS).max(quickest_round(tenants.len()));
                round.saturating_mul(QUOTAS as u32) / u32::try_from(tenants.len()).unwrap_or(u32::MAX)
            }
        };
        self.checks.next_at = now.saturating_add(period);
        for partition in seen {
            self.bring_forward(partition, now);
        }
    }
}

/// The minimum duration of a round.
fn quickest_round(clients: usize) -> Duration {
    Duration::from_millis(clients.saturating_mul(1_000 / CHECKS_PER_SECOND) as u64)
}

/// The pause between two checks after a change of an unknown client.
fn urgent_period(clients: usize) -> Duration {
    match clients > QUOTAS {
        true => quickest_round(QUOTAS),
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tenants(count: i64) -> BTreeMap<Partition, ()> {
        (0..count).map(|number| (Partition(number), ())).collect()
    }

    #[test]
    fn clients_are_taken_when_something_is_due_the_longest_overdue_first() {
        let mut agenda = Agenda::default();
        for (number, at) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
            agenda.note(Partition(number), Some(at * SECOND), Slots::Suffice);
        }
        agenda.bring_forward(Partition(4), 15 * SECOND);
        agenda.bring_forward(Partition(2), 50 * SECOND);
        assert_eq!(agenda.next_at(), Some(10 * SECOND));
        assert_eq!(agenda.take_due(20 * SECOND, 2), [Partition(2), Partition(4)]);
        assert_eq!(agenda.take_due(20 * SECOND, 2), [Partition(3)]);
        assert_eq!((agenda.take_due(20 * SECOND, 2), agenda.next_at()), (vec![], Some(30 * SECOND)));
    }

    #[test]
    fn a_due_time_noted_during_a_claim_is_not_lost() {
        let mut agenda = Agenda::default();
        agenda.bring_forward(Partition(1), SECOND);
        assert_eq!(agenda.take_due(SECOND, 9), [Partition(1)]);
        agenda.bring_forward(Partition(1), 2 * SECOND);
        agenda.note(Partition(1), Some(60 * SECOND), Slots::Suffice);
        assert_eq!(agenda.next_at(), Some(2 * SECOND));
    }

    #[test]
    fn a_client_without_free_slots_waits_for_the_end_of_one_of_its_polls() {
        let mut agenda = Agenda::default();
        agenda.note(Partition(1), None, Slots::Exhausted);
        agenda.note(Partition(2), None, Slots::Suffice);
        for number in [1, 2, 3] {
            agenda.freed(Partition(number), SECOND);
        }
        assert_eq!(agenda.take_due(SECOND, 9), [Partition(1)]);
    }

    #[test]
    fn a_few_clients_are_all_checked_in_each_period_and_after_each_change() {
        let (mut agenda, tenants) = (Agenda::default(), tenants(3));
        agenda.check(&tenants, SECOND, 5 * SECOND);
        assert_eq!(agenda.take_due(SECOND, 9).len(), 3);
        agenda.check(&tenants, 5 * SECOND, 5 * SECOND);
        assert_eq!((agenda.take_due(5 * SECOND, 9).len(), agenda.next_check_at()), (0, 6 * SECOND));
        agenda.check_soon(3);
        agenda.check(&tenants, 5 * SECOND, 5 * SECOND);
        assert_eq!(agenda.take_due(5 * SECOND, 9).len(), 3);
    }

    #[test]
    fn each_of_many_clients_is_checked_once_in_a_round() {
        for (count, check_interval, round) in [(1_000, SECOND, 4 * SECOND), (10_000, SECOND / 10, 10 * SECOND)] {
            let (mut agenda, tenants) = (Agenda::default(), tenants(count));
            let (mut now, mut seen) = (SECOND, Vec::new());
            while seen.len() < count as usize {
                agenda.check(&tenants, now, check_interval);
                seen.extend(agenda.take_due(now, usize::MAX));
                now = agenda.next_check_at();
            }
            assert!(now - SECOND <= round + round / 10, "{count} clients took {:?}", now - SECOND);
            assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), count as usize);
        }
    }

    #[test]
    fn after_a_change_many_clients_are_checked_sooner_and_not_all_at_once() {
        let (mut agenda, tenants) = (Agenda::default(), tenants(1_000));
        let mut now = SECOND;
        agenda.check(&tenants, now, 3_600 * SECOND);
        agenda.take_due(now, usize::MAX);
        agenda.check_soon(1_000);
        let mut seen = 0;
        while seen < 1_000 {
            assert!(agenda.next_check_at() > now);
            now = agenda.next_check_at();
            agenda.check(&tenants, now, 3_600 * SECOND);
            seen += agenda.take_due(now, usize::MAX).len();
        }
        assert!(now < 3 * SECOND, "{now:?}");
    }
}
