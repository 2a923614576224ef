//! The limits of lateness: the next step of each sign-in, the time since which nothing has delayed it, and the bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openid_deferred::store::{NewProcess, Next, ProcessId, Settlement};

use crate::world::HOUR;

/// How late a poll may be, on top of [`Quiet::leisure`]. A replica whose store answers slowly returns rows a few times
/// before it has found out how many it can handle.
const LATE_POLL: Duration = Duration::from_secs(120);
/// How long a stored success may wait for its verification: as long as for a poll, plus the time to fetch keys again,
/// which is a minute, or more after a failure.
const LATE_VERIFICATION: Duration = Duration::from_secs(5 * 60);
/// How long an outcome may wait for its first delivery: the leases of two hanging streams that claimed it before, of
/// five minutes each, and a slow store.
const LATE_DELIVERY: Duration = Duration::from_secs(12 * 60);
/// How long an outcome may wait that was held by a replica which was shut down in an orderly way.
const LATE_RELEASE: Duration = Duration::from_secs(60);
/// The time after trouble within which new due times may be spread over an interval, together with the overdue ones.
const SPREADS: Duration = Duration::from_secs(120);
/// The time after which a tripped circuit breaker lets a probe through.
const LONGEST_PROBE: Duration = HOUR;
/// `Retry-After` applies to the sign-in whose poll was answered with it. The pause of its client is limited to some
/// minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// The time between a failed probe in a pause and the next one.
const PAUSE_STEP: Duration = Duration::from_secs(5 * 60);
/// The number of suspicious ends in a row, which point to a mistake of the client, that trips the breaker.
const SUSPICIOUS_ENDS: u32 = 3;
/// The limit to which leases are cut after the store's clock was set.
const LONGEST_LEASE: Duration = Duration::from_secs(15 * 60);
/// The time after a failed request for the OP's metadata during which polls may fail at once.
const METADATA_PAUSE: Duration = Duration::from_secs(60);
/// A consumer that takes the next outcome within this time counts as having waited all the while.
const TAKES_ON: Duration = Duration::from_secs(30);

/// A write to a row: a settlement or its insertion.
#[derive(Debug, Clone, Copy)]
pub struct Settling {
    pub id: ProcessId,
    pub next: Next,
    pub by_claim: bool,
    pub due_in: Duration,
    ping_in: Option<Duration>,
    interval: Duration,
}

impl Settling {
    pub fn of(settlement: &Settlement) -> Self {
        let Settlement { id, next, due_in, ping_in, interval, .. } = *settlement;
        Self { id, next, by_claim: settlement.epoch.is_some(), due_in, ping_in, interval }
    }

    pub fn inserted(process: &NewProcess) -> Self {
        let NewProcess { id, due_in, ping_in, interval, .. } = *process;
        Self { id, next: Next::Waiting, by_claim: false, due_in, ping_in, interval }
    }
}

/// The next step of a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum What {
    #[default]
    Nothing,
    Poll,
    Verification,
    Delivery,
}

/// What is due for one sign-in.
#[derive(Debug, Default)]
pub struct Owed {
    pub what: What,
    /// The time at which it became or becomes due.
    due: Duration,
    /// The time at which that was planned.
    planned_at: Duration,
    interval: Duration,
    /// The earliest time to which a ping may bring a poll forward.
    ping_from: Option<Duration>,
    is_pinged: bool,
    lease: Option<(Duration, Duration)>,
    /// An earlier claim that had no result.
    lost_lease: Option<(Duration, Duration)>,
    was_asked: bool,
    /// The replica that holds the outcome, and when a replica released it in an orderly way.
    pub held_by: Option<u32>,
    pub held_at: Option<Duration>,
    pub released_at: Option<Duration>,
    /// The end of the last trouble before it was decided.
    pub quiet_since: Duration,
}

impl Owed {
    /// `failed_at` is the time of the last failed request of its client.
    pub fn settled(&mut self, now: Duration, settling: &Settling, failed_at: Duration) {
        let before = std::mem::replace(
            &mut self.what,
            match settling.next {
                Next::Waiting => What::Poll,
                Next::Answered => What::Verification,
                Next::Decided { .. } => What::Delivery,
                Next::Ended => What::Nothing,
            },
        );
        self.ping_from = settling.ping_in.map(|wait| now + wait);
        let mut due = now.saturating_add(settling.due_in);
        if let (true, Some(from)) = (self.is_pinged, self.ping_from) {
            due = due.min(from);
        }
        // A row that was returned without a poll is as late as before. Without the OP's metadata a poll fails before it
        // is sent.
        let has_failed = self.lease.is_some_and(|(from, _)| from <= failed_at + METADATA_PAUSE);
        let was_asked = std::mem::take(&mut self.was_asked) || has_failed;
        let is_asked = was_asked || before != What::Poll || self.what != What::Poll;
        match is_asked {
            true => (self.due, self.planned_at, self.lost_lease) = (due, now, None),
            false => {
                self.due = due.min(self.due);
                self.lost_lease = self.lost_lease.or(self.lease);
            }
        }
        (self.interval, self.lease, self.is_pinged) = (settling.interval, None, false);
        (self.held_by, self.released_at) = (None, None);
    }

    pub fn claimed(&mut self, now: Duration, lease: Duration) {
        self.lost_lease = self.lease.replace((now, now + lease)).or(self.lost_lease);
        self.is_pinged = false;
    }

    pub fn pinged(&mut self, now: Duration) {
        match (self.lease, self.ping_from) {
            (Some((_, end)), _) if now < end => self.is_pinged = true,
            (_, Some(from)) if self.what == What::Poll => self.due = self.due.min(from.max(now)),
            _ => {}
        }
    }

    /// A poll is sent. Without a settlement the row becomes due again when its lease ends.
    pub fn polled(&mut self, now: Duration) {
        let end = self.lease.map_or(now, |(_, end)| end);
        self.lost_lease = None;
        (self.due, self.was_asked) = (end.max(now) + self.interval, true);
    }

    /// The latest time at which it must be done.
    pub fn latest(&self, quiet: &Quiet, client: usize, now: Duration) -> Option<Duration> {
        match self.what {
            What::Nothing => None,
            What::Poll => Some(self.latest_poll(quiet, client, now)),
            What::Verification => {
                let from = self.due.max(quiet.for_verifications(client, now));
                Some(from + LATE_VERIFICATION + quiet.leisure + self.back_in(quiet) + self.after_jump(quiet))
            }
            What::Delivery => {
                let taken = quiet.taking_since()?;
                let from = self.due.max(quiet.all(now)).max(taken);
                if let Some(released_at) = self.released_at {
                    return Some(from.max(released_at) + LATE_RELEASE + quiet.leisure);
                }
                Some(from + LATE_DELIVERY + quiet.leisure + self.after_jump(quiet))
            }
        }
    }

    fn latest_poll(&self, quiet: &Quiet, client: usize, now: Duration) -> Duration {
        let since = quiet.for_polls(client, now);
        let spread = if self.due <= since + SPREADS { self.interval } else { Duration::ZERO };
        self.due.max(since) + LATE_POLL + quiet.leisure + spread + self.back_in(quiet) + self.after_jump(quiet)
    }

    /// The time after which a row becomes due again if its holder was lost in the last trouble.
    fn back_in(&self, quiet: &Quiet) -> Duration {
        let is_lost = |(from, _): &(Duration, Duration)| *from <= quiet.all + SPREADS;
        let lost = [self.lease, self.lost_lease].into_iter().flatten().find(is_lost);
        lost.map_or(Duration::ZERO, |(from, end)| end - from + self.interval)
    }

    /// The error of due times after the store's clock was set, however they are corrected.
    fn after_jump(&self, quiet: &Quiet) -> Duration {
        match quiet.clock_set_at.max(quiet.corrected_at) {
            Some(at) if at >= self.planned_at => LONGEST_LEASE + self.interval * 2 + quiet.unnoticed(),
            _ => Duration::ZERO,
        }
    }

    pub fn story(&self) -> String {
        let Self { what, due, interval, lease, .. } = self;
        format!("{what:?} due at {:.3} s, interval {interval:?}, lease {lease:?}", due.as_secs_f64())
    }
}

/// The times since which nothing has delayed what is due.
#[derive(Debug, Default)]
pub struct Quiet {
    /// The additional delay of everything in this world: stores are queried rarely, and queues are long.
    pub leisure: Duration,
    all: Duration,
    polls: BTreeMap<usize, Duration>,
    /// The last failure of a request for a poll or for its prerequisites.
    failed: BTreeMap<usize, Duration>,
    keys: BTreeMap<usize, Duration>,
    suspicious: BTreeMap<(u32, usize), u32>,
    /// The circuit breakers that may be tripped.
    breakers: BTreeSet<(u32, usize)>,
    /// The clients that pause because the OP has requested it.
    paused: BTreeSet<(u32, usize)>,
    /// The replicas that poll.
    pollers: Vec<u32>,
    /// The replicas that are suspended.
    asleep: Vec<u32>,
    /// The time since which each consumer has been waiting for an outcome, or until which it did.
    takers: BTreeMap<(u32, u64), Taker>,
    /// When the store's clock was last set.
    pub clock_set_at: Option<Duration>,
    /// When due times were last corrected, including those that were planned since the clock was set.
    pub corrected_at: Option<Duration>,
    /// The time by which the clock was set back since then.
    pub set_back: Duration,
    /// When each replica first got an answer from the store, and so knew the time of its clock.
    pub heard: BTreeMap<u32, Duration>,
}

#[derive(Debug)]
struct Taker {
    since: Duration,
    left_at: Option<Duration>,
}

impl Quiet {
    /// The time by which the store's clock was set back unnoticed: all replicas that poll now began afterwards.
    fn unnoticed(&self) -> Duration {
        let knew = |at| move |life| self.heard.get(life).is_some_and(|heard| *heard < at);
        match self.clock_set_at {
            Some(at) if !self.pollers.iter().any(knew(at)) => self.set_back,
            _ => Duration::ZERO,
        }
    }

    pub fn met_trouble(&mut self, now: Duration) {
        self.all = self.all.max(now);
    }

    pub fn polls_met_trouble(&mut self, until: Duration, client: usize) {
        let known = self.polls.entry(client).or_default();
        *known = until.max(*known);
    }

    pub fn request_failed(&mut self, now: Duration, client: usize) {
        self.failed.insert(client, now);
        let may_pause = self.paused.iter().any(|(_, of)| *of == client);
        self.polls_met_trouble(if may_pause { now + PAUSE_STEP } else { now }, client);
    }

    pub fn failed_at(&self, client: usize) -> Duration {
        self.failed.get(&client).copied().unwrap_or_default()
    }

    pub fn keys_met_trouble(&mut self, now: Duration, client: usize) {
        self.keys.insert(client, now);
    }

    /// The OP refuses the client, or may do so.
    pub fn breaker_may_trip(&mut self, now: Duration, life: u32, client: usize) {
        self.polls_met_trouble(now, client);
        self.breakers.insert((life, client));
    }

    /// The end of one sign-in suggests that this replica makes mistakes.
    pub fn looks_suspicious(&mut self, now: Duration, life: u32, client: usize) {
        if self.breakers.contains(&(life, client)) {
            // It was a probe, and does not reset the breaker.
            self.polls_met_trouble(now, client);
        }
        self.paused.remove(&(life, client));
        let count = self.suspicious.entry((life, client)).or_default();
        *count += 1;
        if *count >= SUSPICIOUS_ENDS {
            self.breaker_may_trip(now, life, client);
        }
    }

    pub fn looks_well(&mut self, now: Duration, life: u32, client: usize) {
        self.suspicious.remove(&(life, client));
        self.paused.remove(&(life, client));
        if self.breakers.remove(&(life, client)) {
            // Until then, polls waited for this answer.
            self.polls_met_trouble(now, client);
        }
    }

    pub fn is_told_to_wait(&mut self, now: Duration, life: u32, client: usize, wait: Duration) {
        self.paused.insert((life, client));
        self.polls_met_trouble(now + wait.min(LONGEST_PAUSE), client);
    }

    pub fn starts_polling(&mut self, now: Duration, life: u32) {
        self.met_trouble(now);
        self.pollers.push(life);
    }

    pub fn stops_polling(&mut self, now: Duration, life: u32) {
        self.met_trouble(now);
        self.pollers.retain(|known| *known != life);
        self.breakers.retain(|(known, _)| *known != life);
        self.paused.retain(|(known, _)| *known != life);
    }

    pub fn falls_asleep(&mut self, now: Duration, life: u32) {
        self.met_trouble(now);
        self.asleep.push(life);
    }

    pub fn wakes(&mut self, now: Duration, life: u32) {
        self.met_trouble(now);
        self.asleep.retain(|known| *known != life);
        let of_life = self.takers.iter_mut().filter(|((known, _), _)| *known == life);
        of_life.for_each(|(_, taker)| taker.since = now);
    }

    pub fn takes(&mut self, now: Duration, life: u32, consumer: u64) {
        let taker = self.takers.entry((life, consumer)).or_insert(Taker { since: now, left_at: None });
        if taker.left_at.take().is_some_and(|left_at| now > left_at + TAKES_ON) {
            taker.since = now;
        }
    }

    pub fn took(&mut self, now: Duration, life: u32, consumer: u64) {
        if let Some(taker) = self.takers.get_mut(&(life, consumer)) {
            taker.left_at = Some(now);
        }
    }

    pub fn takes_no_more(&mut self, life: u32) {
        self.takers.retain(|(known, _), _| *known != life);
    }

    /// The time since which a consumer has been taking outcomes.
    fn taking_since(&self) -> Option<Duration> {
        let takes = |((life, _), taker): &(&(u32, u64), &Taker)| taker.left_at.is_none() && !self.asleep.contains(life);
        self.takers.iter().filter(takes).map(|(_, taker)| taker.since).min()
    }

    fn all(&self, now: Duration) -> Duration {
        let polls = self.pollers.iter().any(|life| !self.asleep.contains(life));
        if polls { self.all } else { now }
    }

    pub fn for_polls(&self, client: usize, now: Duration) -> Duration {
        let quiet = self.all(now).max(self.polls.get(&client).copied().unwrap_or_default());
        let may_be_tripped = self.breakers.iter().any(|(_, of)| *of == client);
        quiet + if may_be_tripped { LONGEST_PROBE } else { Duration::ZERO }
    }

    fn for_verifications(&self, client: usize, now: Duration) -> Duration {
        self.all(now).max(self.keys.get(&client).copied().unwrap_or_default())
    }
}

/// The limit of cancellation requests for one sign-in: the first is sent at once, and each later one after twice the
/// pause.
#[derive(Debug, Default)]
pub struct Cancellations {
    last: Option<Duration>,
    count: u32,
    first: Duration,
    /// The last request was answered with a challenge, so it is repeated.
    pub was_challenged: bool,
    /// The application's own call is in flight.
    pub asked_for: bool,
}

/// The least time between two requests for cancellation. A pause is a minute, and counts from the decision to send a
/// request. The first request of a new replica then still waits for the OP's metadata.
const CANCELLATION_PAUSE: Duration = Duration::from_secs(60 - 30);
/// The number of requests before their pauses have grown to [`LONGEST_CANCELLATION_PAUSE`].
const QUICK_CANCELLATIONS: u32 = 8;
const LONGEST_CANCELLATION_PAUSE: Duration = Duration::from_secs(30 * 60);

impl Cancellations {
    /// Whether a request may be sent now.
    pub fn judge(&mut self, now: Duration) -> Result<(), String> {
        if std::mem::take(&mut self.was_challenged) || self.asked_for {
            return Ok(());
        }
        let Some(at) = self.last.replace(now) else {
            (self.first, self.count) = (now, 1);
            return Ok(());
        };
        self.count += 1;
        if now < at + CANCELLATION_PAUSE {
            return Err(format!("its cancellation is asked for again after {:?}", now - at));
        }
        let time = now - self.first;
        let most = QUICK_CANCELLATIONS + (time.as_secs() / LONGEST_CANCELLATION_PAUSE.as_secs()) as u32;
        if self.count > most {
            return Err(format!("its cancellation was asked for {} times in {time:?}", self.count));
        }
        Ok(())
    }
}
