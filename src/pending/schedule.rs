//! The schedule of polls: the pure state machine of one sign-in.
//!
//! It is total (every answer of an OP or a network has a transition) and does no I/O: its input is what happened and
//! the time, and its output is the next due time or the end. The stateless client and the durable poller both use it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::answer::{Answer, End, Standing};
use super::trouble::Trouble;
use crate::clock::{Moment, saturating_add};
use crate::dialect::Times;
use crate::error::Verdict;
use crate::sealed;
use due::{Due, moved};

mod due;
mod plan;
mod queued;
#[cfg(test)]
mod tests;

pub(crate) use plan::Plan;
pub(crate) use queued::Taken;

/// DTR §Token Request Error Response: with `slow_down` "the interval between requests MUST be increased by at least
/// 5 seconds".
const SLOW_DOWN_STEP: Duration = Duration::from_secs(5);
/// The shortest interval, whatever the OP says.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two requests, even for the poll before the end.
const SHORTEST_GAP: Duration = Duration::from_secs(1);
/// The shortest interval without an `interval` from the OP. It grows with the age of the sign-in, up to
/// [`LONGEST_DEFAULT_INTERVAL`].
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const LONGEST_DEFAULT_INTERVAL: Duration = Duration::from_secs(300);
/// The longest backoff after errors, unless the interval is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);
/// After its deadline the OP gets this time to answer `expired_token` itself.
const DEADLINE_GRACE: Duration = Duration::from_secs(60);
/// An abandoned request may be held this long, by a network or a slow OP, and be answered after a later one.
const LONGEST_HELD: Duration = Duration::from_secs(300);
/// How long before its end a sign-in is polled one last time.
pub(crate) const FINAL_POLL_MARGIN: Duration = Duration::from_secs(5);
/// Jitter adds at most a tenth of the wait, and at most this.
const LONGEST_JITTER: Duration = Duration::from_secs(30);
/// The wall clock counts as set if it differs by more than this from the time that the monotonic clock implies.
const CLOCK_NOISE: Duration = Duration::from_secs(1);
/// The first pause between two cancellation requests. It doubles up to [`LONGEST_CANCELLATION_PAUSE`].
pub(crate) const CANCELLATION_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_CANCELLATION_PAUSE: Duration = Duration::from_secs(3600);
/// Without a deadline, an operator is alerted if the OP has been silent about a sign-in for this long.
const STALE: Duration = Duration::from_secs(90 * 86_400);

/// The schedule of one sign-in: what is known of its past, and when it is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// The OP's interval. Without one, a default applies that grows with age.
    #[serde(
        rename = "int",
        with = "sealed::optional_duration_milliseconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    interval: Option<Duration>,
    /// The number of `slow_down` answers; each adds five seconds until the end.
    #[serde(rename = "slow", default, skip_serializing_if = "is_zero")]
    slow_downs: u32,
    /// When the exchange was sent, which is the earliest start of the OP's `expires_in`.
    #[serde(rename = "sent", with = "sealed::seconds")]
    exchange_sent_at: SystemTime,
    /// When its response arrived, which is the latest start of the OP's `expires_in`.
    #[serde(rename = "recv", with = "sealed::seconds")]
    exchange_answered_at: SystemTime,
    #[serde(
        rename = "exp",
        with = "sealed::optional_duration_milliseconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    expires_in: Option<Duration>,
    /// How long before the expiration the final poll is sent; `None` for no such poll.
    #[serde(
        rename = "fin",
        with = "sealed::optional_duration_milliseconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    final_margin: Option<Duration>,
    due: Due,
    /// The end of the time for which `Retry-After` forbids polls.
    #[serde(rename = "nb", default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Due>,
    /// Polls in a row without a usable answer.
    #[serde(rename = "trb", default, skip_serializing_if = "is_zero")]
    troubles: u32,
    /// The last of them, for operators. An older release drops it.
    #[serde(rename = "lt", default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<Trouble>,
    /// Whether the next poll is the final one shortly before the expiration, which need not be a whole interval after
    /// the previous poll.
    #[serde(rename = "fdue", default, skip_serializing_if = "is_false")]
    final_poll_due: bool,
    /// Whether the poll shortly before the expiration, or one after it, was sent.
    #[serde(rename = "fdone", default, skip_serializing_if = "is_false")]
    final_poll_made: bool,
    /// Whether a request was sent after the deadline, and the OP has not answered since that the sign-in is pending.
    #[serde(rename = "ldone", default, skip_serializing_if = "is_false")]
    late_poll_made: bool,
    /// Whether a request was sent whose answer has not been seen.
    #[serde(rename = "fly", default, skip_serializing_if = "is_false")]
    in_flight: bool,
    /// Whether [`in_flight`](Self::in_flight) was set in advance, for a stored copy. This program knows that the
    /// request was not sent yet.
    #[serde(skip)]
    announced: bool,
    /// Whether the answer to an earlier request was lost. It may have been the success, which the OP gives only once.
    #[serde(rename = "lost", default, skip_serializing_if = "is_false")]
    answer_lost: bool,
    /// Until when the request without an answer may still be in flight.
    #[serde(rename = "held", default, skip_serializing_if = "Option::is_none")]
    held_until: Option<Due>,
    /// Whether a ping brought the last request forward. Then no ping can do so again before a scheduled request.
    #[serde(rename = "png", default, skip_serializing_if = "is_false")]
    ping_spent: bool,
    /// Polls in a row that the OP answered without having decided, since the last one that a ping brought forward.
    #[serde(rename = "und", default, skip_serializing_if = "is_zero")]
    undecided: u32,
    /// When the OP last answered that it has not decided; initially the time of the exchange.
    #[serde(rename = "hrd", with = "sealed::optional_seconds", default, skip_serializing_if = "Option::is_none")]
    heard_at: Option<SystemTime>,
    /// Whether the current silence was reported.
    #[serde(rename = "stl", default, skip_serializing_if = "is_false")]
    stale_reported: bool,
    /// The cancellation requests that the OP has not confirmed.
    #[serde(rename = "cnl", default, skip_serializing_if = "Option::is_none")]
    cancelling: Option<Cancelling>,
    /// Both clocks as this program first saw them, or when the wall clock was last set.
    #[serde(skip)]
    seen: Option<Moment>,
}

/// How often the OP was asked to cancel, and when it may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Cancelling {
    #[serde(rename = "n")]
    requests: u32,
    #[serde(rename = "nxt")]
    next: Due,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, for this long.
    Wait(Duration),
    /// Send a request. Call [`Schedule::sending`] first.
    Ask,
    /// The sign-in has ended without another poll.
    End(End),
}

impl Cancelling {
    fn with(self, change: impl FnOnce(Due) -> Due) -> Self {
        Self { next: change(self.next), ..self }
    }
}

impl Schedule {
    /// Creates the schedule of a sign-in whose exchange was just answered. The first poll is due one interval later.
    pub(crate) fn new(
        times: Times,
        exchange_sent_at: SystemTime,
        answered: Moment,
        final_margin: Option<Duration>,
        pace: Pace,
    ) -> Self {
        let mut schedule = Self {
            interval: times.interval.map(|interval| interval.max(SHORTEST_INTERVAL)),
            slow_downs: 0,
            exchange_sent_at,
            exchange_answered_at: answered.wall,
            expires_in: times.expires_in,
            final_margin,
            due: Due::after(Duration::ZERO, answered),
            not_before: None,
            troubles: 0,
            trouble: None,
            final_poll_due: false,
            final_poll_made: false,
            late_poll_made: false,
            in_flight: false,
            announced: false,
            answer_lost: false,
            held_until: None,
            ping_spent: false,
            undecided: 0,
            heard_at: None,
            stale_reported: false,
            cancelling: None,
            seen: Some(answered),
        };
        schedule.plan(answered, pace, None);
        schedule
    }

    /// The current interval: the OP's, or the default for a sign-in of this age, plus five seconds for every
    /// `slow_down`.
    pub(crate) fn interval(&self, now: Moment) -> Duration {
        self.interval_at(now.wall)
    }

    fn interval_at(&self, now: SystemTime) -> Duration {
        let given = self.interval.unwrap_or_else(|| {
            let age = now.duration_since(self.exchange_answered_at).unwrap_or(Duration::ZERO);
            (age / 100).clamp(DEFAULT_INTERVAL, LONGEST_DEFAULT_INTERVAL)
        });
        // A value from a store is neither checked nor sealed.
        given.max(SHORTEST_INTERVAL).saturating_add(SLOW_DOWN_STEP.saturating_mul(self.slow_downs))
    }

    /// When the sign-in expires, counted from the sending of the exchange; `None` if the OP set no limit.
    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        self.expires_in.map(|lifetime| saturating_add(self.exchange_sent_at, lifetime))
    }

    /// The time until it expires; zero if that is past.
    pub(crate) fn expires_in(&self, now: Moment) -> Option<Duration> {
        Some(self.expires_at()?.duration_since(now.wall).unwrap_or_default())
    }

    /// When the response to the exchange arrived.
    pub(crate) fn exchange_answered_at(&self) -> SystemTime {
        self.exchange_answered_at
    }

    /// When the next request is due, by the wall clock.
    pub(crate) fn due_at(&self) -> SystemTime {
        self.not_before.map_or(self.due.wall, |not_before| not_before.wall.max(self.due.wall))
    }

    /// When there is something to do, by the wall clock: a request, or the end if that comes first.
    pub(crate) fn acts_at(&self) -> SystemTime {
        self.deadline().filter(|_| self.awaits_end()).unwrap_or_else(|| self.due_at())
    }

    /// Whether the one request after the deadline was not answered, so that only the end is left.
    ///
    /// If the OP answers that the sign-in is pending, further requests follow. Earlier releases ignored that answer.
    fn awaits_end(&self) -> bool {
        self.late_poll_made && (self.in_flight || self.troubles > 0)
    }

    /// Adapts to a wall clock that was set while this program runs. The monotonic clock shows how much time has passed,
    /// so the stored times move along.
    fn follow(&mut self, now: Moment) {
        let Some(seen) = self.seen else {
            self.seen = Some(now);
            return;
        };
        let expected = seen.plus(now.monotonic.saturating_sub(seen.monotonic)).wall;
        let apart = now.wall.duration_since(expected).unwrap_or_else(|behind| behind.duration());
        if apart > CLOCK_NOISE {
            self.move_times(expected, now.wall);
            self.due = self.due.moved(expected, now.wall);
            self.not_before = self.not_before.map(|due| due.moved(expected, now.wall));
            self.held_until = self.held_until.map(|due| due.moved(expected, now.wall));
            self.cancelling = self.cancelling.map(|sent| sent.with(|due| due.moved(expected, now.wall)));
            self.seen = Some(now);
        }
    }

    /// Moves past times to another wall clock.
    fn move_times(&mut self, from: SystemTime, to: SystemTime) {
        self.exchange_sent_at = moved(self.exchange_sent_at, from, to);
        self.exchange_answered_at = moved(self.exchange_answered_at, from, to);
        self.heard_at = self.heard_at.map(|time| moved(time, from, to));
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now: Moment) -> Step {
        self.follow(now);
        self.step_at(now)
    }

    fn step_at(&mut self, now: Moment) -> Step {
        let remaining = self.until_due_at(now);
        if self.awaits_end() {
            return match self.until_deadline(now) {
                Some(left) if !left.is_zero() => Step::Wait(left),
                _ => Step::End(self.unconfirmed_end()),
            };
        }
        if remaining.is_zero() { Step::Ask } else { Step::Wait(remaining) }
    }

    /// The time until something is due: a request or, after a success response, the next attempt to validate it.
    pub(crate) fn until_due(&mut self, now: Moment) -> Duration {
        self.follow(now);
        self.until_due_at(now)
    }

    fn until_due_at(&mut self, now: Moment) -> Duration {
        self.due.anchor(now);
        if let Some(not_before) = &mut self.not_before {
            not_before.anchor(now);
        }
        let held = self.not_before.map_or(Duration::ZERO, |not_before| not_before.remaining(now));
        self.due.remaining(now).max(held)
    }

    /// Sets the time of the next attempt to validate a success response.
    pub(crate) fn postpone(&mut self, wait: Duration, now: Moment) {
        self.not_before = None;
        self.due = Due::after(wait, now);
    }

    /// Records, ahead of [`sending`](Self::sending), that a request will be sent. If this program then crashes, a copy
    /// stored now counts the request as sent.
    pub(crate) fn announce(&mut self) {
        self.announced |= !self.in_flight;
        self.in_flight = true;
    }

    /// Records that a request is about to be sent. The interval counts from now. If [`answered`](Self::answered) is not
    /// called afterwards, the answer counts as lost.
    pub(crate) fn sending(&mut self, now: Moment) {
        self.follow(now);
        if self.in_flight && !self.announced {
            self.lose_answer(now);
        }
        self.held_until = self.held_until.filter(|held_until| !held_until.remaining(now).is_zero());
        self.in_flight = true;
        self.announced = false;
        self.not_before = None;
        // Decided by the due time, because after the wall clock was set back the final poll would otherwise be sent
        // twice.
        self.final_poll_made |= self.final_poll_due && self.due.remaining(now).is_zero();
        self.final_poll_due = false;
        self.late_poll_made = self.until_deadline(now).is_some_and(|left| left.is_zero());
        if self.expires_in.is_some() {
            // Clock readings are inexact, and a second request right after this one would add nothing.
            let soon = saturating_add(now.wall, SHORTEST_GAP);
            self.final_poll_made |= self.final_at().is_some_and(|final_at| soon > final_at);
        }
        self.due = Due::after(self.interval(now), now);
    }

    /// Processes the answer to the request that was recorded by [`sending`](Self::sending), and plans the next one.
    pub(crate) fn answered(&mut self, answer: &Answer, now: Moment, pace: Pace) -> Standing {
        self.follow(now);
        let lost_before = self.answer_lost;
        self.in_flight = false;
        self.announced = false;
        let Some(verdict) = answer.verdict() else {
            // No further request is needed. The validation is due at once.
            self.postpone(Duration::ZERO, now);
            return Standing::Succeeded;
        };
        match End::of(verdict) {
            Some(End::Expired { .. } | End::Failed) if lost_before => return Standing::Ended(End::Unknown),
            Some(end) => return Standing::Ended(end),
            None => {}
        }
        match verdict {
            Verdict::Pending | Verdict::SlowDown => {
                // The sign-in is pending, so no earlier request has fetched its success. A request that is still in
                // flight may do so.
                self.answer_lost &= self.held_until.is_some();
                self.troubles = 0;
                self.trouble = None;
                // The OP's answer takes precedence over the local deadline.
                self.late_poll_made = false;
                self.heard_at = Some(now.wall);
                self.stale_reported = false;
                // After a ping, earlier undecided answers do not lengthen the wait for the next poll.
                self.undecided = if self.ping_spent { 0 } else { self.undecided.saturating_add(1) };
                if verdict == Verdict::SlowDown {
                    self.slow_downs = self.slow_downs.saturating_add(1);
                }
            }
            Verdict::ClientRefused | Verdict::ScopeRefused => {
                self.troubles = self.troubles.saturating_add(1);
                // The OP said nothing about the sign-in, so it can still be polled.
                self.late_poll_made = false;
            }
            // A transient error of the OP or the network.
            _ => {
                if verdict == Verdict::MayBeLost {
                    self.lose_answer(now);
                }
                self.troubles = self.troubles.saturating_add(1);
                if pace.give_up_after.is_some_and(|patience| self.silence(now) >= patience) {
                    return Standing::Ended(self.unconfirmed_end());
                }
            }
        }
        self.plan(now, pace, answer.retry_after());
        Standing::Open
    }

    /// The duration of the OP's silence about a sign-in without a deadline, once it is long enough for an alert. It is
    /// returned once for each silence.
    pub(crate) fn newly_stale(&mut self, now: Moment) -> Option<Duration> {
        let silence = self.silence(now);
        let is_news = self.expires_in.is_none() && !self.stale_reported && silence >= STALE;
        self.stale_reported |= is_news;
        is_news.then_some(silence)
    }

    /// The time since the OP last answered that it has not decided, initially since the exchange.
    fn silence(&self, now: Moment) -> Duration {
        let since = self.heard_at.unwrap_or(self.exchange_answered_at);
        now.wall.duration_since(since).unwrap_or(Duration::ZERO)
    }

    fn lose_answer(&mut self, now: Moment) {
        self.answer_lost = true;
        self.held_until = Some(Due::after(LONGEST_HELD, now));
    }

    /// Whether the answer of an earlier request may have been the success.
    pub(crate) fn answer_lost(&self) -> bool {
        self.answer_lost || self.in_flight
    }

    /// Sets the next due time, counted from `now`. `Retry-After` postpones it, but not beyond the final poll shortly
    /// before the expiration, because later polls would be useless.
    fn plan(&mut self, now: Moment, pace: Pace, retry_after: Option<Duration>) {
        let interval = self.interval(now);
        let doubled = |times: u32, longest| interval.saturating_mul(1 << times.min(31)).min(interval.max(longest));
        let undecided = pace.longest_wait.map_or(interval, |longest| doubled(self.undecided, longest));
        let backoff = doubled(self.troubles.saturating_sub(1), LONGEST_BACKOFF);
        let wait = undecided.max(backoff);
        let mut wait = wait.saturating_add(pace.jitter.of(wait));
        let held = retry_after.unwrap_or(Duration::ZERO);
        let final_wait = self.until_final_poll(now).filter(|final_wait| *final_wait < wait.max(held));
        self.final_poll_due = final_wait.is_some();
        if let Some(final_wait) = final_wait {
            // DTR §Design Considerations for Poll and Ping: one request slightly before the required interval, as
            // close as possible to the expiration.
            wait = final_wait;
        }
        if let (Some(expires_at), Some(left)) = (self.expires_at(), self.until_deadline(now)) {
            let after_the_end = now.plus(wait).wall >= expires_at;
            let is_open = self.troubles == 0 && self.heard_at.is_some();
            // If the OP has not answered that the sign-in is pending, one poll is sent after the expiration. Its answer
            // is most useful when the OP's own grace period is over too.
            if after_the_end && !is_open && !left.is_zero() {
                // Only the first request after the expiration may come before the interval is over. `due` is still the
                // interval's end as of the last request.
                let is_first = self.due.wall < saturating_add(expires_at, interval);
                wait = left.max(if is_first { SHORTEST_GAP } else { interval });
            }
        }
        self.not_before = retry_after.map(|held| Due::after(final_wait.map_or(held, |latest| held.min(latest)), now));
        self.due = Due::after(wait, now);
    }

    /// The time until the final poll shortly before the expiration, regardless of the interval and the backoff.
    fn until_final_poll(&self, now: Moment) -> Option<Duration> {
        if self.final_poll_made {
            return None;
        }
        let expires_at = self.expires_at()?;
        let until_end = expires_at.duration_since(now.wall).ok()?;
        let until_final = self.final_at()?.duration_since(now.wall).unwrap_or(Duration::ZERO);
        let wait = until_final.max(SHORTEST_GAP);
        (wait < until_end).then_some(wait)
    }

    fn final_at(&self) -> Option<SystemTime> {
        let expires_at = self.expires_at()?;
        Some(expires_at.checked_sub(self.final_margin?).unwrap_or(self.exchange_sent_at))
    }

    /// When the sign-in counts as expired if the OP does not answer. After an answer that it is pending, the deadline
    /// leaves time for another poll, and for one more if that is not answered.
    fn deadline(&self) -> Option<SystemTime> {
        let lifetime = self.expires_in?.saturating_add(DEADLINE_GRACE);
        let deadline = saturating_add(self.exchange_answered_at, lifetime);
        let Some(heard_at) = self.heard_at else { return Some(deadline) };
        let interval = self.interval_at(heard_at).saturating_mul(2);
        Some(deadline.max(saturating_add(heard_at, interval.saturating_add(DEADLINE_GRACE))))
    }

    fn until_deadline(&self, now: Moment) -> Option<Duration> {
        Some(self.deadline()?.duration_since(now.wall).unwrap_or(Duration::ZERO))
    }

    fn unconfirmed_end(&self) -> End {
        if self.answer_lost || (self.in_flight && !self.announced) {
            End::Unknown
        } else {
            End::Expired { confirmed: false }
        }
    }
}

/// The client's own pace of polls, beyond what the OP and the draft require.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) jitter: Jitter,
    /// The wait doubles with every answer that the OP has not decided, up to this; `None` keeps to the OP's interval.
    pub(crate) longest_wait: Option<Duration>,
    /// Polling stops after this time without an answer of the OP; `None` polls until the sign-in ends.
    pub(crate) give_up_after: Option<Duration>,
}

/// A random share of a wait, which spreads requests that would otherwise be sent together. It only ever lengthens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jitter(pub(crate) u16);

impl Jitter {
    fn of(self, wait: Duration) -> Duration {
        (wait / 10).min(LONGEST_JITTER).saturating_mul(u32::from(self.0)) / u32::from(u16::MAX)
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}
