//! Rows with all of their columns, for moving them to another store.

use std::ops::Bound;
use std::time::{Duration, SystemTime};

use super::Table;
use crate::clock::saturating_add;
use crate::store::memory::row::{Row, SET_ASIDE};
use crate::store::{Imported, ProcessId, StoredRow};

impl Table {
    /// `origin` is the wall clock at zero of the monotonic clock.
    pub(in crate::store::memory) fn export(
        &self,
        after: Option<ProcessId>,
        limit: usize,
        origin: SystemTime,
    ) -> Vec<StoredRow> {
        let rows = self.rows.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        rows.take(limit).map(|(id, row)| row.stored(*id, origin)).collect()
    }

    pub(in crate::store::memory) fn import(&mut self, row: StoredRow, origin: SystemTime) -> Imported {
        let id = row.id;
        if self.rows.contains_key(&id) {
            return Imported::Present;
        }
        if let Some(other) = row.session.and_then(|session| self.sessions.get(&session)) {
            return Imported::Conflict(*other);
        }
        self.put(id, Row::of_stored(row, origin));
        Imported::Added
    }
}

impl Row {
    fn stored(&self, id: ProcessId, origin: SystemTime) -> StoredRow {
        let time = |at: Duration| saturating_add(origin, at);
        StoredRow {
            id,
            partition: self.partition,
            state: self.state,
            session: self.session,
            lookup: self.lookup,
            reference: self.reference,
            started_at: self.started_at.map(time),
            due_at: Some(self.due_at).filter(|due_at| *due_at != SET_ASIDE).map(time),
            leased_until: self.leased_until.map(time),
            not_before: self.not_before.map(time),
            pinged_at: self.pinged_at.map(time),
            interval: self.interval,
            expires_at: self.expires_at.map(time),
            spread: self.is_spread,
            decided_at: self.decided_at.map(time),
            epoch: self.epoch,
            attempts: self.attempts,
            provisional: self.provisional,
            cancellation: self.cancellation,
            schedule: self.schedule.clone(),
            first_key: self.first_key,
            key: self.key,
            format: self.format,
            revision: self.revision,
            body: self.body.clone(),
        }
    }

    fn of_stored(row: StoredRow, origin: SystemTime) -> Self {
        let time = |at: SystemTime| at.duration_since(origin).unwrap_or_default();
        Self {
            partition: row.partition,
            state: row.state,
            session: row.session,
            lookup: row.lookup,
            reference: row.reference,
            started_at: row.started_at.map(time),
            due_at: row.due_at.map_or(SET_ASIDE, time),
            leased_until: row.leased_until.map(time),
            not_before: row.not_before.map(time),
            pinged_at: row.pinged_at.map(time),
            interval: row.interval,
            expires_at: row.expires_at.map(time),
            is_spread: row.spread,
            decided_at: row.decided_at.map(time),
            epoch: row.epoch,
            attempts: row.attempts,
            provisional: row.provisional,
            cancellation: row.cancellation,
            schedule: row.schedule,
            first_key: row.first_key,
            format: row.format,
            key: row.key,
            body: row.body,
            revision: row.revision,
        }
    }
}
