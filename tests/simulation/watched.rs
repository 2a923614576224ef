//! The observations of one sign-in, and the rules for its requests and outcomes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::error::Rule;
use openid_deferred::store::ProcessId;
use openid_deferred::{Authentication, Outcome};

use crate::life::Life;
use crate::op::{Decision, Dialect, Op, Plan, Process, Said};
use crate::punctual::{Cancellations, Owed};

/// Schedules are stored in milliseconds, and the age of a sign-in in seconds.
const TOLERANCE: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
/// The store's clock is known only as precisely as its answers are fast.
pub const CLOCK_ERROR: Duration = Duration::from_secs(5);
const FINAL_MARGIN: Duration = Duration::from_secs(5);
const DEADLINE_GRACE: Duration = Duration::from_secs(60);
/// The longest duration of a poll. A lease is longer by the time within which the poll must be sent.
const LONGEST_POLL: Duration = Duration::from_secs(270);
const SLOW_DOWN_STEP: Duration = Duration::from_secs(5);
/// An answer may be given up after a hundred attempts without keys, which take sixteen hours. Between two outages a few
/// of them may fail for other reasons.
const KEYS_AWAY: Duration = Duration::from_secs(14 * 3600);

/// The longest time from the due time of an undisturbed poll to its answer.
const PROMPT: Duration = Duration::from_secs(15);
/// A wait is extended at random by up to a tenth of it, and at most by this.
const LONGEST_JITTER: Duration = Duration::from_secs(30);

/// The time since which polls of this client have been undisturbed, when an outcome was decided.
pub struct Undisturbed {
    pub since: Duration,
    pub leisure: Duration,
    /// Some client backs off for up to a day from polls that bring nothing new.
    pub backs_off: bool,
}

/// All observations of one sign-in.
pub struct Watched {
    pub plan: Plan,
    pub client: usize,
    pub id: Option<ProcessId>,
    pub exchange: Exchange,
    pub flights: Vec<Flight>,
    pub last: Option<Last>,
    /// Those that are in the store.
    pub slow_downs: u32,
    pub pinged_at: Option<Duration>,
    pub claimed_at: Duration,
    /// The last claim of each replica.
    pub claims: BTreeMap<u32, Claim>,
    /// The claim that the last poll belonged to.
    pub polled_from: Duration,
    /// The last poll came early because of a ping.
    pub was_early: bool,
    pub end_polls: u32,
    /// The last poll near the end was begun, and its replica has died since or is still waiting.
    pub end_poll_is_open: bool,
    /// The store's clock was set while it was pending. The times in its schedule stay as the old clock had them until
    /// the next answer, so one ping may count twice, or one more poll may be sent near the end.
    pub store_clock_was_set: bool,
    /// The number of repetitions of the last poll after challenges.
    pub repeats: u32,
    /// When an answer was last lost, unless a later answer shows that it was not the success.
    pub lost_at: Option<Duration>,
    pub terminal: Option<Terminal>,
    pub cancelled: bool,
    pub forgotten: bool,
    /// With its `deferred_auth_id`.
    pub in_store: bool,
    /// Its exchange has failed for good.
    pub has_failed: bool,
    pub accepted: Vec<Accepted>,
    /// The delivered outcome, and whether it may still be replaced.
    pub delivered: Option<(String, bool)>,
    pub acknowledged: u32,
    pub acknowledged_at: Option<Duration>,
    /// A row with a code that may never have been sent.
    pub adrift: bool,
    pub owed: Owed,
    pub cancellations: Cancellations,
}

#[derive(Default)]
pub struct Exchange {
    pub sent_at: Option<Duration>,
    pub answered_at: Option<Duration>,
    /// When its row first existed. The answer was read between the two times, and a suspension can put them far apart.
    pub stored_at: Option<Duration>,
    pub ended_at: Duration,
    pub was_challenged: bool,
    /// The code may be sent again, because the OP did not look at it the last time.
    pub may_repeat: bool,
    /// The clock was set meanwhile.
    pub clock_was_set: bool,
}

pub struct Flight {
    pub number: u64,
    pub life: Arc<Life>,
    /// The answer is not awaited any more, because the machine is dead.
    pub dead: bool,
    pub on_the_wire: bool,
    /// The store's clock was set meanwhile, so the lease may have expired by the new time.
    pub lease_may_have_ended: bool,
}

pub struct Last {
    pub life: Arc<Life>,
    pub sent_at: Duration,
    /// When its poll began. This counts for a request that is repeated with a nonce or the OP's time.
    pub began_at: Duration,
    pub ended_at: Duration,
    pub said: Option<Said>,
    pub retry_after: Option<Duration>,
    /// Its answer is in the store.
    pub committed: bool,
}

pub struct Claim {
    pub at: Duration,
    pub lease: Duration,
    /// Its end was in the store.
    pub had_ended: bool,
}

pub struct Terminal {
    pub said: Said,
    pub at: Duration,
    pub life: Arc<Life>,
    pub committed: bool,
    pub store_faults: u32,
}

/// The application's result when the user came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    Deferred(ProcessId),
    Complete,
    Error,
    /// The replica died, or the browser hung up.
    Nothing,
}

impl Watched {
    pub fn new(plan: Plan, client: usize) -> Self {
        Self {
            plan,
            client,
            id: None,
            exchange: Exchange::default(),
            flights: Vec::new(),
            last: None,
            slow_downs: 0,
            pinged_at: None,
            claimed_at: Duration::ZERO,
            claims: BTreeMap::new(),
            polled_from: Duration::ZERO,
            was_early: false,
            end_polls: 0,
            end_poll_is_open: false,
            store_clock_was_set: false,
            repeats: 0,
            lost_at: None,
            terminal: None,
            cancelled: false,
            forgotten: false,
            in_store: false,
            has_failed: false,
            accepted: Vec::new(),
            delivered: None,
            acknowledged: 0,
            acknowledged_at: None,
            adrift: false,
            owed: Owed::default(),
            cancellations: Cancellations::default(),
        }
    }

    /// Whether an outcome must come.
    pub fn is_owed(&self) -> bool {
        if self.has_failed {
            return false;
        }
        let told_otherwise = |accepted: &Accepted| matches!(accepted, Accepted::Error | Accepted::Complete);
        if self.accepted.iter().any(|accepted| matches!(accepted, Accepted::Deferred(_))) {
            return true;
        }
        // If the user got no result, an outcome is owed once the code has been sent.
        self.id.is_some() && self.exchange.sent_at.is_some() && !self.accepted.iter().any(told_otherwise)
    }

    pub fn judge_poll(&mut self, now: Duration, life: &Arc<Life>, cannot_know: bool) -> Result<(), String> {
        let claimed_at = self.claims.get(&life.number).map(|claim| claim.at);
        let again = self.last.as_ref().is_some_and(|last| {
            matches!(last.said, Some(Said::Challenge | Said::WrongClock))
                && last.life.number == life.number
                && last.ended_at == now
                && claimed_at.is_none_or(|at| at <= last.sent_at)
        });
        if again {
            self.repeats += 1;
            return if self.repeats <= 2 { Ok(()) } else { Err("it is repeated a third time".to_owned()) };
        }
        self.repeats = 0;
        if self.flights.iter().any(|flight| !flight.lease_may_have_ended) {
            return Err("two requests are in flight".to_owned());
        }
        let claim = self.claims.get(&life.number);
        if claim.is_some_and(|claim| now + LONGEST_POLL > claim.at + claim.lease + TOLERANCE) {
            return Err("its claim was too long ago".to_owned());
        }
        if let Some(terminal) = &self.terminal {
            let safe = terminal.life.is_alive() && terminal.life.store_faults() == terminal.store_faults;
            // A replica that claimed it before cannot know.
            let could_know = claim.is_none_or(|claim| claim.had_ended);
            if (terminal.committed && could_know) || safe {
                return Err(format!("it is asked again after {:?}", terminal.said));
            }
        }
        if self.acknowledged_at.is_some_and(|at| at < self.claimed_at) {
            return Err("it is asked again after its acknowledgement".to_owned());
        }
        // A replica that began after the clock was set forward trusts the store's due times.
        let gap = self.judge_gap(now);
        if cannot_know { Ok(()) } else { gap }
    }

    fn judge_gap(&mut self, now: Duration) -> Result<(), String> {
        let Some(answered) = self.exchange.answered_at else { return Err("it is asked before it began".to_owned()) };
        let from = match &self.last {
            None => answered,
            Some(last) if last.committed => last.ended_at,
            Some(last) => last.sent_at,
        };
        let gap = now.saturating_sub(from) + TOLERANCE;
        // If the store's clock was set forward by more than `Retry-After`, the pause seems to be over when a ping
        // comes.
        let is_excused = self.exchange.clock_was_set && self.pinged_at.is_some_and(|at| at >= self.polled_from);
        if let Some(last) = self.last.as_ref().filter(|last| last.committed)
            && last.retry_after.is_some_and(|wait| gap < wait)
            && !self.is_end_poll(now)
            && !is_excused
        {
            return Err(format!("it is asked {gap:?} after `Retry-After: {:?}`", last.retry_after));
        }
        // The default interval grows with age, and the age is unknown after the clock was set.
        let read_at = self.exchange.stored_at.unwrap_or(answered);
        let age = if self.exchange.clock_was_set { Duration::ZERO } else { from.saturating_sub(read_at) };
        let default = (age / 100).clamp(Duration::from_secs(5), Duration::from_secs(300));
        let interval = self.plan.interval.unwrap_or(default);
        let interval = interval + SLOW_DOWN_STEP * self.slow_downs;
        let was_early = std::mem::replace(&mut self.was_early, false);
        let polled_from = std::mem::replace(&mut self.polled_from, self.claimed_at);
        if gap >= interval {
            return Ok(());
        }
        let pinged = self.pinged_at.is_some_and(|at| at >= polled_from);
        if pinged && !was_early && self.slow_downs == 0 && gap >= SECOND {
            self.was_early = true;
            self.pinged_at = None;
            return Ok(());
        }
        if gap >= SECOND && self.is_end_poll(now) {
            self.end_polls += 1;
            self.end_poll_is_open = true;
            return Ok(());
        }
        if gap >= SECOND && std::mem::take(&mut self.store_clock_was_set) && (pinged || self.plan.expires_in.is_some())
        {
            return Ok(());
        }
        Err(format!(
            "it is asked after {gap:?}, but the interval is {interval:?} (pinged {pinged}, early before {was_early}, \
             {} polls near its end)",
            self.end_polls
        ))
    }

    /// Whether the sign-in may have expired by any of the clocks.
    pub fn has_ended(&self, now: Duration) -> bool {
        let Some(lifetime) = self.plan.expires_in else { return false };
        self.exchange.clock_was_set || now + CLOCK_ERROR * 2 >= self.exchange.sent_at.unwrap_or_default() + lifetime
    }

    /// Whether this may be a poll near the end. One is allowed slightly before the end, and one after it if the one
    /// before was not answered. One more is allowed for each answer that was lost with its replica, because the end
    /// comes before an interval has passed since the end of the lease.
    fn is_end_poll(&self, now: Duration) -> bool {
        let Some(lifetime) = self.plan.expires_in else { return false };
        let Exchange { sent_at, answered_at, clock_was_set, .. } = &self.exchange;
        let final_at = (sent_at.unwrap_or_default() + lifetime).saturating_sub(FINAL_MARGIN + CLOCK_ERROR);
        let deadline = answered_at.unwrap_or_default() + lifetime + DEADLINE_GRACE;
        let answered = self
            .last
            .as_ref()
            .is_some_and(|last| last.committed && matches!(last.said, Some(Said::Pending | Said::SlowDown)));
        match self.end_polls {
            0 => *clock_was_set || now >= final_at,
            1 if !answered && (*clock_was_set || now + CLOCK_ERROR >= deadline) => true,
            // Nobody knows the answer to a poll that was cut off.
            _ => {
                let is_unknown = self.end_poll_is_open || self.last.as_ref().is_some_and(|last| !last.committed);
                is_unknown && (*clock_was_set || now >= final_at)
            }
        }
    }

    /// Checks that an approval which the OP had when the last permitted poll was due does not end as expired.
    pub fn judge_expiry(&self, outcome: &Outcome, process: &Process, quiet: &Undisturbed) -> Result<(), String> {
        let (Some(lifetime), Some(answered_at), Some(sent_at)) =
            (self.plan.expires_in, self.exchange.answered_at, self.exchange.sent_at)
        else {
            return Ok(());
        };
        let was_approved = self.plan.decision == Decision::Approve && !process.cancelled;
        let told_to_wait = self.last.as_ref().is_some_and(|last| last.retry_after.is_some());
        if !matches!(outcome, Outcome::Expired(_)) || !was_approved || told_to_wait || self.exchange.clock_was_set {
            return Ok(());
        }
        let last_poll = (sent_at + lifetime).saturating_sub(FINAL_MARGIN);
        let approved_at = answered_at + self.plan.decides_after;
        // The one poll before the end may wait in a queue, but then the polls at the interval are early enough.
        let interval = self.plan.interval.unwrap_or(Duration::from_secs(300)) + SLOW_DOWN_STEP * self.slow_downs;
        let by_interval = interval + (interval / 10).min(LONGEST_JITTER) + quiet.leisure;
        let is_prompt = quiet.leisure <= PROMPT;
        if !is_prompt && quiet.backs_off {
            return Ok(());
        }
        let needed = if is_prompt { PROMPT * 2 } else { by_interval + PROMPT };
        let missed = approved_at + needed <= last_poll && quiet.since + PROMPT * 8 + quiet.leisure <= last_poll;
        match missed {
            true => Err(format!(
                "the OP had approved at {:.3} s, and the last poll before its end was due at {:.3} s",
                approved_at.as_secs_f64(),
                last_poll.as_secs_f64()
            )),
            false => Ok(()),
        }
    }

    fn judge_authentication(&self, label: usize, authentication: &Authentication) -> Result<(), String> {
        if authentication.claims().subject() != format!("user-{label}") {
            return Err("it is another user".to_owned());
        }
        match authentication.is_after_cancellation() && !self.cancelled {
            true => Err("it was not cancelled".to_owned()),
            false => Ok(()),
        }
    }

    pub fn judge_outcome(
        &self,
        now: Duration,
        label: usize,
        outcome: &Outcome,
        op: &Op,
        keys_away: Duration,
    ) -> Result<(), String> {
        let process = &op.processes[label];
        let said = self.terminal.as_ref().map(|terminal| terminal.said);
        let told = |expected: &[Said]| match said.is_some_and(|said| expected.contains(&said)) {
            true => Ok(()),
            false => Err(format!("the OP said {said:?}")),
        };
        let is_unread = |outcome: &Outcome| matches!(outcome, Outcome::Invalid(violation) if violation.rule() == Rule::KeysUnavailable);
        if is_unread(outcome) && keys_away >= KEYS_AWAY {
            return told(&[Said::Success]);
        }
        if said == Some(Said::Success) && self.terminal.as_ref().is_some_and(|terminal| terminal.committed) {
            let fits = match outcome {
                Outcome::Approved(_) => !process.plan.forged,
                Outcome::Invalid(_) => process.plan.forged,
                _ => false,
            };
            if !fits {
                return Err("its success is in the store".to_owned());
            }
        }
        match outcome {
            Outcome::Approved(_) if process.plan.forged => Err("its token is forged".to_owned()),
            Outcome::Approved(authentication) => {
                self.judge_authentication(label, authentication)?;
                told(&[Said::Success])
            }
            Outcome::Invalid(violation) if process.plan.forged => {
                let forged =
                    if op.dialect_of(label) == Dialect::Ciba { Rule::IdTokenAudience } else { Rule::IdTokenNonce };
                match violation.rule() {
                    rule if rule == forged => told(&[Said::Success]),
                    rule => Err(format!("by another rule: {rule:?}")),
                }
            }
            Outcome::Invalid(violation) => Err(format!("its token is good: {violation}")),
            Outcome::Denied(_) => told(&[Said::Denied]),
            Outcome::Expired(expiry) if expiry.is_confirmed() => told(&[Said::Expired]),
            Outcome::Expired(_) => {
                let lifetime = self.plan.expires_in.ok_or("it does not expire")?;
                let deadline = self.exchange.answered_at.unwrap_or_default() + lifetime + DEADLINE_GRACE;
                if process.served {
                    Err("the success was lost".to_owned())
                } else if now + CLOCK_ERROR < deadline && !self.exchange.clock_was_set {
                    Err("its time is not over".to_owned())
                } else {
                    Ok(())
                }
            }
            Outcome::Failed(_) if process.served => Err("the success was lost".to_owned()),
            Outcome::Failed(_) => told(&[Said::InvalidGrant, Said::InvalidRequest]),
            Outcome::Unknown => {
                let known = self.exchange.answered_at.is_some() && self.lost_at.is_none() && !self.adrift;
                let began = self.last.is_some();
                if known && began { Err("no answer was lost".to_owned()) } else { Ok(()) }
            }
            Outcome::Cancelled if !self.cancelled => Err("it was not cancelled".to_owned()),
            Outcome::Cancelled => told(&[Said::Denied, Said::InvalidGrant]),
            _ => Err("its outcome is of an unknown kind".to_owned()),
        }
    }
}
