//! The application's view of a sign-in, and its end.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::store::ProcessId;
use openid_deferred::{Delivery, Outcome};

use super::Oracle;
use crate::life::Life;
use crate::op::Op;
use crate::punctual::What;
use crate::watched::{Accepted, Undisturbed};
use crate::world::HOUR;

/// The longest time for which a consumer may hold a delivery. After that, others get it.
const LONGEST_DELIVERY: Duration = HOUR;
/// The duration of a claim on an outcome.
const DELIVERY_LEASE: Duration = Duration::from_secs(300);

impl Oracle {
    pub fn accepted(&mut self, now: Duration, label: usize, accepted: Accepted) {
        self.say(now, || format!("{label} is accepted: {accepted:?}"));
        let watched = &mut self.watched[label];
        let other =
            watched.accepted.iter().find(|before| matches!(before, Accepted::Deferred(_)) && **before != accepted);
        let other = other.copied().filter(|_| matches!(accepted, Accepted::Deferred(_)));
        watched.accepted.push(accepted);
        if let Accepted::Deferred(id) = accepted {
            // The row may have been made by a replica that never sent the code.
            watched.adrift |= watched.id != Some(id);
            self.is_named(id, label);
        }
        self.must(now, other.is_none(), || format!("{label} has two names: {other:?} and {accepted:?}"));
    }

    /// Whether the store can attribute its ping.
    pub fn is_in_store(&self, label: usize) -> bool {
        self.watched[label].in_store && !self.watched[label].forgotten
    }

    pub fn cancelled(&mut self, now: Duration, label: usize) {
        self.say(now, || format!("{label} is cancelled"));
        self.watched[label].cancelled = true;
    }

    pub fn forgotten(&mut self, now: Duration, label: usize) {
        self.say(now, || format!("{label} is forgotten"));
        self.watched[label].forgotten = true;
    }

    pub fn delivered(&mut self, now: Duration, life: &Arc<Life>, delivery: &Delivery, op: &Op) {
        self.counts.deliveries += 1;
        let id = delivery.id();
        let label: usize = String::from_utf8_lossy(delivery.context()).parse().expect("the context is a label");
        let name = name(delivery.outcome());
        self.say(now, || format!("{label} is delivered to {}: {name}, attempt {}", life.number, delivery.attempt()));
        let known = self.is_named(id, label);
        self.must(now, known.is_none_or(|known| known == label), || format!("{id} has the context of {label}"));
        let hold = self.holds.get(&(life.number, id)).copied();
        let is_current = |(executed, answered)| {
            answered == now || (life.has_slept_since(answered) && now < executed + DELIVERY_LEASE)
        };
        self.must(now, hold.is_some_and(is_current), || {
            format!("{label} is delivered by {} on a claim that was not looked at again", life.number)
        });
        if let (Some((executed, _)), Some(&acknowledged)) = (hold, self.acknowledged.get(&id)) {
            self.must(now, executed < acknowledged, || format!("{label} is delivered after its acknowledgement"));
        }
        let in_hand = self.hands.iter().find(|(other, holder, store_faults, since)| {
            let holds = holder.is_alive() && holder.store_faults() == *store_faults;
            *other == id && holds && now < *since + LONGEST_DELIVERY
        });
        let in_hand = in_hand.map(|(_, holder, ..)| holder.number);
        self.hands.push((id, life.clone(), life.store_faults(), now));
        let answered_at = self.watched[label].terminal.as_ref().map(|terminal| terminal.at);
        let keys_away = answered_at.map_or(Duration::ZERO, |at| self.keys_away_within(at..now));
        let watched = &mut self.watched[label];
        let before = watched.delivered.replace((name.to_owned(), matches!(name, "unknown" | "failed")));
        let is_new = before.as_ref().is_none_or(|(before, _)| before != name);
        let changed = before.filter(|(before, provisional)| before != name && !(*provisional && name == "approved"));
        watched.owed.what = What::Nothing;
        let (since, leisure) = (watched.owed.quiet_since, self.quiet.leisure);
        let quiet = Undisturbed { since, leisure, backs_off: self.backs_off };
        let judged = watched.judge_outcome(now, label, delivery.outcome(), op, keys_away);
        let expired = watched.judge_expiry(delivery.outcome(), &op.processes[label], &quiet);
        self.must(now, is_new || in_hand.is_none(), || format!("{label} is delivered although {in_hand:?} has it"));
        self.must(now, changed.is_none(), || format!("{label} was {changed:?} and is {name}"));
        if let Err(problem) = expired {
            self.must(now, false, || format!("{label} is {name}, but {problem}"));
        }
        if let Err(problem) = judged {
            self.must(now, false, || format!("{label} is {name}, but {problem}"));
        }
    }

    fn keys_away_within(&self, time: Range<Duration>) -> Duration {
        let mut seen = time.start;
        let mut away = Duration::ZERO;
        for outage in &self.keys_away {
            let to = outage.end.min(time.end);
            away += to.saturating_sub(outage.start.max(seen));
            seen = seen.max(to);
        }
        away
    }

    /// The application has dropped a delivery, or says when it should be repeated.
    pub fn put_down(&mut self, life: &Arc<Life>, id: ProcessId) {
        self.hands.retain(|(other, holder, ..)| *other != id || holder.number != life.number);
    }

    /// Whether all sign-ins that wait have been served.
    pub fn is_finished(&self) -> bool {
        self.watched.iter().all(|watched| watched.forgotten || watched.acknowledged > 0 || !watched.is_owed())
    }

    pub fn finish(&mut self, now: Duration) {
        for label in 0..self.watched.len() {
            let watched = &self.watched[label];
            let (owed, forgotten) = (watched.is_owed(), watched.forgotten);
            let (acknowledged, outcome) = (watched.acknowledged, watched.delivered.clone());
            let story = format!("accepted {:?}, delivered {outcome:?}, acknowledged {acknowledged}", watched.accepted);
            self.must(now, acknowledged <= 1, || format!("{label} has several outcomes: {story}"));
            self.must(now, !owed || forgotten || acknowledged == 1, || format!("{label} has no outcome: {story}"));
            if let Some((outcome, _)) = outcome {
                let name = OUTCOMES.into_iter().find(|name| *name == outcome).unwrap_or("other");
                *self.counts.outcomes.entry(name).or_default() += 1;
            }
        }
        let (store, genuine) = (self.store_pings, self.genuine_pings);
        self.must(now, store <= genuine, || {
            format!("the store heard of {store} pings, of which {genuine} are genuine")
        });
    }
}

const OUTCOMES: [&str; 7] = ["approved", "denied", "expired", "failed", "invalid", "unknown", "cancelled"];

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Approved(_) => "approved",
        Outcome::Denied(_) => "denied",
        Outcome::Expired(_) => "expired",
        Outcome::Failed(_) => "failed",
        Outcome::Invalid(_) => "invalid",
        Outcome::Unknown => "unknown",
        Outcome::Cancelled => "cancelled",
        _ => "other",
    }
}
