//! The calls for operators: listing, bringing forward, releasing, erasing with a proof.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use super::Table;
use crate::clock::saturating_add;
use crate::store::listing::{Look, ROWS_PER_SCAN, page};
use crate::store::memory::row::{Queue, Row, SET_ASIDE, later};
use crate::store::{Among, Erased, Listing, Page, Pinged, Place, ProcessId, Requeued, RowOverview, State};

impl Table {
    /// `origin` is the wall clock at zero of the monotonic clock.
    pub(in crate::store::memory) fn list(&self, listing: &Listing, now: Duration, origin: SystemTime) -> Page {
        let look = match (&listing.among, listing.overdue_for) {
            (Among::All, Some(overdue_for)) => self.scan_due(listing, now.checked_sub(overdue_for), origin),
            (Among::All, None) => {
                let after = listing.after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.id));
                let rows = self.rows.range((after, Bound::Unbounded)).map(|(id, row)| (0, *id, row));
                self.look(rows, listing, origin)
            }
            (Among::Ids(ids), _) => self.look_at(ids.iter().copied().collect(), listing, origin),
            (Among::References(references), _) => {
                let ids = references.iter().flat_map(|reference| {
                    let first = (*reference, ProcessId::from_bytes([0; 16]));
                    self.references.range(first..).take_while(move |(found, _)| found == reference).map(|(_, id)| *id)
                });
                self.look_at(ids.collect(), listing, origin)
            }
        };
        page(listing, vec![look], saturating_add(origin, now))
    }

    fn look_at(&self, ids: BTreeSet<ProcessId>, listing: &Listing, origin: SystemTime) -> Look {
        let after = listing.after.map(|after| after.id);
        let ids = ids.into_iter().filter(|id| after.is_none_or(|after| after < *id));
        self.look(ids.filter_map(|id| Some((0, id, self.rows.get(&id)?))), listing, origin)
    }

    /// Looks at the rows that have been due since `latest`, in the order in which they became due.
    fn scan_due(&self, listing: &Listing, latest: Option<Duration>, origin: SystemTime) -> Look {
        let due = self
            .due
            .iter()
            .filter(|(queue, due_at, _)| *queue != Queue::Tombstones && latest.is_some_and(|latest| *due_at <= latest));
        let mut due: Vec<_> = due.map(|(_, due_at, id)| (order(*due_at), *id)).collect();
        due.sort_unstable();
        let after =
            |(order, id): &(i64, ProcessId)| listing.after.is_none_or(|after| after < Place { order: *order, id: *id });
        let due = due.into_iter().filter(after);
        self.look(due.filter_map(|(order, id)| Some((order, id, self.rows.get(&id)?))), listing, origin)
    }

    fn look<'a>(
        &self,
        rows: impl Iterator<Item = (i64, ProcessId, &'a Row)>,
        listing: &Listing,
        origin: SystemTime,
    ) -> Look {
        let limit = ROWS_PER_SCAN.max(listing.limit);
        let rows = rows.take(limit).map(|(order, id, row)| row.overview(Place { order, id }, origin));
        Look::limited(rows.collect(), limit)
    }

    pub(in crate::store::memory) fn bring_forward(&mut self, id: ProcessId, now: Duration) -> Pinged {
        self.update(id, |row| row.bring_forward(id, now)).unwrap_or(Pinged::NotFound)
    }

    pub(in crate::store::memory) fn requeue(&mut self, id: ProcessId, now: Duration) -> Requeued {
        self.update(id, |row| row.requeue(now)).unwrap_or(Requeued::NotFound)
    }

    pub(in crate::store::memory) fn erase(&mut self, id: ProcessId) -> Erased {
        let entries = |table: &Self| {
            let row = table.rows.get(&id);
            u64::from(row.is_some()) + u64::from(row.is_some_and(|row| row.body.is_some()))
        };
        let erased = entries(self);
        self.remove(id);
        let of_indexes = self.due.iter().filter(|(.., found)| *found == id).count()
            + self.sessions.values().filter(|found| **found == id).count()
            + self.lookups.iter().chain(&self.references).filter(|(_, found)| *found == id).count();
        Erased { erased, left: entries(self) + of_indexes as u64 }
    }
}

/// The position of a due time in a listing of overdue rows.
fn order(due_at: Duration) -> i64 {
    i64::try_from(due_at.as_micros()).unwrap_or(i64::MAX)
}

impl Row {
    fn overview(&self, place: Place, origin: SystemTime) -> RowOverview {
        let time = |at: Duration| saturating_add(origin, at);
        RowOverview {
            id: place.id,
            place,
            partition: self.partition,
            state: self.state,
            provisional: self.provisional,
            cancellation: self.cancellation,
            started_at: self.started_at.map(time),
            expires_at: self.expires_at.map(time),
            decided_at: self.decided_at.map(time),
            due_at: Some(self.due_at).filter(|due_at| *due_at != SET_ASIDE).map(time),
            leased_until: self.leased_until.map(time),
            not_before: self.not_before.map(time),
            pinged_at: self.pinged_at.map(time),
            epoch: self.epoch,
            attempts: self.attempts,
            schedule: self.schedule.clone(),
            format: self.format,
            key: self.key,
            has_body: self.body.is_some(),
        }
    }

    fn bring_forward(&mut self, id: ProcessId, now: Duration) -> Pinged {
        if self.state > State::Waiting {
            return Pinged::Ended(id);
        }
        if let (None, Some(not_before)) = (self.leased_until, self.not_before) {
            self.pinged_at = Some(now);
            self.due_at = self.due_at.min(later(not_before, self.interval).max(now));
        }
        Pinged::Recorded { id, partition: self.partition }
    }

    fn requeue(&mut self, now: Duration) -> Requeued {
        let lease = self.leased_until.filter(|until| *until > now);
        match (self.state, lease) {
            (State::Acknowledged, _) => return Requeued::NotFound,
            _ if self.body.is_none() => return Requeued::NoBody,
            (State::Exchanging | State::Waiting, Some(until)) => {
                return Requeued::InUse { ends_in: until.saturating_sub(now) };
            }
            (State::Answered, Some(_)) => {}
            (State::Decided, _) if self.due_at > now => {}
            _ if self.due_at == SET_ASIDE => {}
            _ => return Requeued::Free,
        }
        (self.due_at, self.leased_until) = (now, None);
        self.epoch += 1;
        Requeued::Done { partition: self.partition, state: self.state }
    }
}
