//! The invariants that must hold under all failures. The oracle observes the network, the store and the application,
//! and knows the OP's decisions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::store::{Acknowledged, Next, Pinged, ProcessId};

use crate::life::Life;
use crate::op::{Plan, Said};
pub use crate::punctual::Settling;
use crate::punctual::{Quiet, What};
use crate::watched::{CLOCK_ERROR, Claim, Flight, Last, Terminal, Watched};

mod application;
mod trouble;

/// The time for which an abandoned request may still be in flight. Its answer is not received.
const LONGEST_HELD: Duration = Duration::from_secs(300);

struct Claimed {
    at: Duration,
    by: u32,
}

#[derive(Default)]
pub struct Counts {
    pub processes: u64,
    pub requests: u64,
    pub polls: u64,
    pub deliveries: u64,
    pub crashes: u64,
    pub pings: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
pub struct Oracle {
    watched: Vec<Watched>,
    labels: BTreeMap<ProcessId, usize>,
    /// The last claim on each row, even if the row's sign-in is not known yet.
    claims: BTreeMap<ProcessId, Claimed>,
    /// The times at which each replica last learned from the store that it holds an outcome: of the execution there and
    /// of the answer here.
    holds: BTreeMap<(u32, ProcessId), (Duration, Duration)>,
    acknowledged: BTreeMap<ProcessId, Duration>,
    /// The deliveries in hand: the replica, its number of store faults at the time, and since when.
    hands: Vec<(ProcessId, Arc<Life>, u32, Duration)>,
    next_flight: u64,
    /// The periods in which the OP's keys are unavailable, in order.
    pub keys_away: Vec<Range<Duration>>,
    pub quiet: Quiet,
    pub backs_off: bool,
    pub counts: Counts,
    pub genuine_pings: u64,
    pub store_pings: u64,
    pub violation: Option<String>,
    pub is_traced: bool,
    /// A hash of all events in their order.
    pub digest: u64,
}

impl Oracle {
    pub fn say(&mut self, now: Duration, what: impl FnOnce() -> String) {
        let line = what();
        for byte in line.bytes().chain(now.as_millis().to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.is_traced {
            println!("{:>12.3} {line}", now.as_secs_f64());
        }
    }

    pub fn must(&mut self, now: Duration, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            let what = what();
            self.say(now, || format!("VIOLATION: {what}"));
            self.violation = Some(format!("at {:.3} s: {what}", now.as_secs_f64()));
        }
    }

    pub fn expects(&mut self, plan: Plan, client: usize) {
        self.counts.processes += 1;
        self.watched.push(Watched::new(plan, client));
    }

    // The network.

    pub fn exchange_sent(&mut self, now: Duration, life: &Arc<Life>, label: usize, id: Option<ProcessId>) -> u64 {
        self.say(now, || format!("replica {} sends the code of {label}", life.number));
        if let Some(id) = id {
            self.is_row_of(id, label);
        }
        let watched = &mut self.watched[label];
        let again = watched.exchange.sent_at.is_some() && !watched.exchange.may_repeat;
        if !(watched.exchange.was_challenged && watched.exchange.ended_at == now) {
            watched.exchange.sent_at = Some(now);
        }
        watched.exchange.may_repeat = false;
        self.must(now, !again, || format!("the code of {label} is sent twice"));
        self.fly(life, label)
    }

    pub fn poll_sent(&mut self, now: Duration, life: &Arc<Life>, label: usize) -> u64 {
        self.counts.polls += 1;
        self.say(now, || format!("replica {} polls {label}", life.number));
        self.check_lateness_of(now, label);
        self.watched[label].owed.polled(now);
        let cannot_know = self.cannot_know(life);
        let verdict = self.watched[label].judge_poll(now, life, cannot_know);
        if let Err(problem) = verdict {
            self.must(now, false, || format!("process {label}: {problem}"));
        }
        self.fly(life, label)
    }

    fn fly(&mut self, life: &Arc<Life>, label: usize) -> u64 {
        self.next_flight += 1;
        let flight = Flight {
            number: self.next_flight,
            life: life.clone(),
            dead: false,
            on_the_wire: true,
            lease_may_have_ended: false,
        };
        self.watched[label].flights.push(flight);
        self.next_flight
    }

    /// No part of the request is in the network any more.
    pub fn off_the_wire(&mut self, label: usize, flight: u64) {
        for known in &mut self.watched[label].flights {
            known.on_the_wire &= known.number != flight;
        }
        self.watched[label].flights.retain(|flight| flight.on_the_wire || !flight.dead);
    }

    pub fn exchange_ended(&mut self, now: Duration, label: usize, flight: u64, said: Option<Said>, sent: bool) {
        self.say(now, || format!("the exchange of {label} ends: {said:?}"));
        let watched = &mut self.watched[label];
        watched.flights.retain(|known| known.number != flight);
        watched.exchange.ended_at = now;
        watched.exchange.was_challenged = matches!(said, Some(Said::Challenge | Said::WrongClock));
        watched.exchange.may_repeat = !sent || matches!(said, Some(Said::Challenge | Said::WrongClock | Said::Refused));
        if said == Some(Said::Exchanged) {
            watched.exchange.answered_at = Some(now);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that one can know of an answer")]
    pub fn poll_ended(
        &mut self,
        now: Duration,
        life: &Arc<Life>,
        label: usize,
        flight: u64,
        sent_at: Duration,
        said: Option<Said>,
        sent: bool,
        retry_after: Option<Duration>,
    ) {
        self.say(now, || format!("the poll of {label} ends: {said:?}"));
        let client = self.watched[label].client;
        match said {
            Some(Said::Refused) => self.quiet.breaker_may_trip(now, life.number, client),
            Some(Said::InvalidGrant | Said::InvalidRequest) => self.quiet.looks_suspicious(now, life.number, client),
            Some(Said::Pending | Said::SlowDown | Said::Success | Said::Denied | Said::Expired) => {
                self.quiet.looks_well(now, life.number, client);
            }
            _ => {}
        }
        if let Some(wait) = retry_after {
            self.quiet.is_told_to_wait(now, life.number, client, wait);
        }
        let watched = &mut self.watched[label];
        watched.flights.retain(|known| known.number != flight);
        let first = watched.last.as_ref().filter(|last| {
            let asks_for_more = matches!(last.said, Some(Said::Challenge | Said::WrongClock));
            asks_for_more && !last.committed && last.life.number == life.number
        });
        let began_at = first.map_or(sent_at, |first| first.began_at);
        watched.end_poll_is_open = false;
        watched.last =
            Some(Last { life: life.clone(), sent_at, began_at, ended_at: now, said, retry_after, committed: false });
        if sent && matches!(said, None | Some(Said::Nonsense)) {
            watched.lost_at = Some(now);
        }
        // A success that a living replica has yet to store takes precedence over any later answer.
        let is_held = |terminal: &Terminal| terminal.said == Said::Success && terminal.life.is_alive();
        let has_success = watched.terminal.as_ref().is_some_and(is_held);
        if let Some(said) = said.filter(|said| said.is_terminal() && !has_success) {
            let store_faults = life.store_faults();
            watched.terminal = Some(Terminal { said, at: now, life: life.clone(), committed: false, store_faults });
        }
    }

    pub fn died(&mut self, now: Duration, life: &Arc<Life>) {
        self.counts.crashes += 1;
        self.say(now, || format!("replica {} dies", life.number));
        self.quiet.stops_polling(now, life.number);
        self.quiet.takes_no_more(life.number);
        self.lose_flights(now, life);
    }

    fn lose_flights(&mut self, now: Duration, life: &Arc<Life>) {
        for watched in &mut self.watched {
            for flight in &mut watched.flights {
                if flight.life.number != life.number || flight.dead {
                    continue;
                }
                flight.dead = true;
                watched.lost_at = Some(now);
            }
            watched.flights.retain(|flight| flight.on_the_wire || !flight.dead);
        }
    }

    pub fn clock_set(&mut self, now: Duration, life: &Arc<Life>, ahead: i64) {
        self.say(now, || format!("the clock of replica {} is now {ahead} ms ahead", life.number));
        for watched in &mut self.watched {
            let exchanging = watched.exchange.sent_at.is_some() && watched.last.is_none();
            watched.exchange.clock_was_set |= exchanging;
        }
    }

    // The store.

    fn is_row_of(&mut self, id: ProcessId, label: usize) {
        self.is_named(id, label);
        self.watched[label].id = Some(id);
        self.watched[label].has_failed = false;
    }

    /// Returns the sign-in that this row was attributed to before.
    fn is_named(&mut self, id: ProcessId, label: usize) -> Option<usize> {
        let known = self.labels.insert(id, label);
        if let (None, Some(claimed)) = (known, self.claims.get(&id)) {
            self.watched[label].claimed_at = claimed.at;
        }
        known
    }

    /// A sign-in from elsewhere is in the store.
    pub fn tracked(&mut self, now: Duration, id: ProcessId, label: usize, settling: &Settling) {
        self.say(now, || format!("{label} is tracked"));
        self.is_row_of(id, label);
        self.watched[label].exchange.stored_at = Some(now);
        let failed_at = self.quiet.failed_at(self.watched[label].client);
        self.watched[label].owed.settled(now, settling, failed_at);
    }

    pub fn claimed(&mut self, now: Duration, life: &Arc<Life>, id: ProcessId, orphaned: bool, lease: Duration) {
        self.claims.insert(id, Claimed { at: now, by: life.number });
        let orphan = if orphaned { ", orphaned" } else { "" };
        let Some(&label) = self.labels.get(&id) else {
            // Nothing was sent for it yet, so nothing is lost.
            return self.say(now, || format!("{id} is claimed by {}{orphan}", life.number));
        };
        self.say(now, || format!("{label} is claimed by {}{orphan}", life.number));
        let watched = &mut self.watched[label];
        watched.claimed_at = now;
        watched.owed.claimed(now, lease);
        let had_ended = watched.terminal.as_ref().is_some_and(|terminal| terminal.committed);
        watched.claims.insert(life.number, Claim { at: now, lease, had_ended });
        if orphaned {
            watched.lost_at = Some(now);
        }
    }

    pub fn settled(&mut self, now: Duration, life: &Arc<Life>, settling: &Settling) {
        let Settling { id, next, by_claim, due_in, .. } = *settling;
        let holder = self.claims.get(&id).map(|claimed| claimed.by);
        self.must(now, !by_claim || holder == Some(life.number), || {
            format!("{id} is settled by {} on a claim, but was last claimed by {holder:?}", life.number)
        });
        let Some(&label) = self.labels.get(&id) else { return };
        self.say(now, || format!("{label} is settled by {}: {next:?} in {due_in:?}", life.number));
        let quiet_since = self.quiet.for_polls(self.watched[label].client, now);
        let failed_at = self.quiet.failed_at(self.watched[label].client);
        let watched = &mut self.watched[label];
        watched.owed.settled(now, settling, failed_at);
        if watched.owed.what == What::Delivery {
            watched.owed.quiet_since = quiet_since;
        }
        watched.in_store |= next == Next::Waiting;
        watched.exchange.stored_at.get_or_insert(now);
        watched.has_failed |= next == Next::Ended;
        let Some(last) = watched.last.as_mut().filter(|last| last.life.number == life.number && !last.committed) else {
            return;
        };
        last.committed = true;
        if matches!(last.said, Some(Said::Pending | Said::SlowDown)) {
            let asked_at = last.began_at;
            // After the clock was set, the time for which a request may be held is unknown.
            let is_held = |lost_at: &Duration| asked_at < *lost_at + LONGEST_HELD + CLOCK_ERROR;
            let clock_was_set = watched.exchange.clock_was_set;
            watched.lost_at = watched.lost_at.filter(|lost_at| clock_was_set || is_held(lost_at));
            watched.slow_downs += u32::from(last.said == Some(Said::SlowDown));
        }
        // An end that was too late to be stored is not stored by a later poll of the same replica.
        let is_end = |terminal: &&mut Terminal| terminal.life.number == life.number && next != Next::Waiting;
        if let Some(terminal) = watched.terminal.as_mut().filter(is_end) {
            terminal.committed = true;
        }
    }

    /// The OP did not look at its code, so it may come back as if it were new.
    pub fn erased(&mut self, now: Duration, id: ProcessId) {
        let Some(&label) = self.labels.get(&id) else { return };
        self.say(now, || format!("{label} is erased"));
        self.watched[label].has_failed = true;
        self.watched[label].owed.what = What::Nothing;
    }

    pub fn pinged(&mut self, now: Duration, pinged: Pinged) {
        self.store_pings += 1;
        let Pinged::Recorded { id, .. } = pinged else { return };
        let Some(&label) = self.labels.get(&id) else { return };
        self.say(now, || format!("{label} is pinged"));
        self.watched[label].pinged_at = Some(now);
        // After its end, a ping is no reason for an early poll.
        if !self.watched[label].has_ended(now) {
            self.watched[label].owed.pinged(now);
        }
    }

    pub fn held(&mut self, life: &Arc<Life>, id: ProcessId, executed: Duration, answered: Duration) {
        self.holds.insert((life.number, id), (executed, answered));
    }

    pub fn acknowledgement(&mut self, now: Duration, id: ProcessId, acknowledged: Acknowledged) {
        if acknowledged != Acknowledged::Done {
            return;
        }
        let first = self.acknowledged.insert(id, now).is_none();
        self.must(now, first, || format!("{id} is acknowledged twice"));
        if let Some(&label) = self.labels.get(&id) {
            self.say(now, || format!("{label} is acknowledged"));
            self.watched[label].acknowledged += 1;
            self.watched[label].acknowledged_at = Some(now);
        }
    }
}
