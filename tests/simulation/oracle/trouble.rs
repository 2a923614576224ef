//! Lateness, and its excuses.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::store::{CorrectionProgress, ProcessId};

use super::Oracle;
use crate::life::Life;

impl Oracle {
    /// Checks that nothing is later than allowed.
    pub fn check_lateness(&mut self, now: Duration) {
        (0..self.watched.len()).for_each(|label| self.check_lateness_of(now, label));
    }

    pub(super) fn check_lateness_of(&mut self, now: Duration, label: usize) {
        let watched = &self.watched[label];
        if watched.forgotten || watched.acknowledged > 0 {
            return;
        }
        let latest = watched.owed.latest(&self.quiet, watched.client, now);
        if latest.is_some_and(|latest| now > latest) {
            let story = watched.owed.story();
            let latest = latest.unwrap_or_default().as_secs_f64();
            self.must(now, false, || format!("{label} is late: {story}, expected until {latest:.3} s"));
        }
    }

    /// A consumer waits for the next outcome.
    pub fn takes(&mut self, now: Duration, life: &Life, consumer: u64) {
        // It may have killed its machine a moment ago.
        if life.is_alive() {
            self.say(now, || format!("consumer {consumer} of replica {} waits", life.number));
            self.quiet.takes(now, life.number, consumer);
        }
    }

    pub fn took(&mut self, now: Duration, life: &Life, consumer: u64) {
        self.quiet.took(now, life.number, consumer);
    }

    pub fn cancellation_sent(&mut self, now: Duration, life: &Arc<Life>, label: usize) {
        self.say(now, || format!("replica {} asks for the cancellation of {label}", life.number));
        if let Err(problem) = self.watched[label].cancellations.judge(now) {
            self.must(now, false, || format!("process {label}: {problem}"));
        }
    }

    pub fn cancellation_challenged(&mut self, label: usize) {
        self.watched[label].cancellations.was_challenged = true;
    }

    /// The application's own call begins or ends.
    pub fn cancels(&mut self, label: usize, begins: bool) {
        self.watched[label].cancellations.asked_for = begins;
    }

    /// A machine stops for a while, so its state may be stale when it goes on.
    pub fn suspended(&mut self, now: Duration, life: &Arc<Life>) {
        self.say(now, || format!("replica {} is suspended", life.number));
        self.quiet.falls_asleep(now, life.number);
        self.lose_flights(now, life);
    }

    pub fn goes_on(&mut self, now: Duration, life: &Arc<Life>) {
        self.say(now, || format!("replica {} goes on", life.number));
        self.quiet.wakes(now, life.number);
    }

    pub fn store_clock_set(&mut self, now: Duration, by: i64) {
        self.say(now, || format!("the store's clock is set by {by} ms"));
        self.quiet.met_trouble(now);
        self.quiet.clock_set_at = Some(now);
        if by < 0 {
            self.quiet.set_back += Duration::from_millis(by.unsigned_abs());
        }
        // Leases may have expired by the new time.
        self.hands.clear();
        for watched in &mut self.watched {
            watched.exchange.clock_was_set |= watched.exchange.sent_at.is_some();
            watched.store_clock_was_set = true;
            watched.flights.iter_mut().for_each(|flight| flight.lease_may_have_ended = true);
        }
    }

    /// The replica has an answer from the store, and so knows what the store's clock shows.
    pub fn heard(&mut self, now: Duration, life: &Arc<Life>) {
        self.quiet.heard.entry(life.number).or_insert(now);
    }

    pub fn corrected(&mut self, now: Duration, life: &Arc<Life>, progress: CorrectionProgress) {
        self.say(now, || format!("replica {} puts due times right: {progress:?}", life.number));
        if progress == CorrectionProgress::Done {
            self.quiet.corrected_at = Some(now);
            self.quiet.set_back = Duration::ZERO;
        }
    }

    /// Whether this replica cannot know that the store's clock was set forward: it began afterwards, and no earlier
    /// replica has noticed yet.
    pub(super) fn cannot_know(&self, life: &Arc<Life>) -> bool {
        self.quiet.clock_set_at.is_some_and(|at| {
            let began_after = self.quiet.heard.get(&life.number).is_none_or(|heard| *heard >= at);
            began_after && self.quiet.corrected_at.is_none_or(|corrected_at| corrected_at < at)
        })
    }

    /// The replica was shut down in an orderly way: other replicas may deliver the outcomes that it held.
    pub fn released(&mut self, now: Duration, life: &Arc<Life>) {
        self.say(now, || format!("replica {} has given back its outcomes", life.number));
        for watched in &mut self.watched {
            // A claim whose answer was lost ends with its lease.
            let heard = |id| self.holds.get(&(life.number, id)).map(|(executed, _)| *executed);
            let knows = watched.id.and_then(heard) >= watched.owed.held_at;
            if watched.owed.held_by == Some(life.number) && knows {
                watched.owed.released_at = Some(now);
            }
        }
    }

    pub fn outcomes_claimed(&mut self, now: Duration, life: &Arc<Life>, ids: impl Iterator<Item = ProcessId>) {
        for id in ids {
            let Some(&label) = self.labels.get(&id) else { continue };
            self.say(now, || format!("the outcome of {label} is claimed by {}", life.number));
            let owed = &mut self.watched[label].owed;
            (owed.held_by, owed.held_at, owed.released_at) = (Some(life.number), Some(now), None);
        }
    }
}
