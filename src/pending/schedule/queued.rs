//! The schedule of a sign-in in a queue: it is due by the queue's clock, and pings may change the due time.

use super::*;

/// The maximum uncertainty about the queue's clock. It is as large as the delay of the queue's answer, and after a
/// longer delay nothing is sent.
const CLOCK_ERROR: Duration = Duration::from_secs(5);
/// The maximum time after a request with a lost answer until the sign-in is due again, besides the interval.
const LOST_REQUEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;

/// How a sign-in was taken from the queue because it is due there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// The time of the queue's clock at that moment.
    pub(crate) at: SystemTime,
    /// Whether a ping arrived since the previous time.
    pub(crate) pinged: bool,
    /// Whether the result of the previous time's poll is unknown.
    pub(crate) orphaned: bool,
}

impl Schedule {
    /// Records that the previous holder of the sign-in died. It may have sent a request whose answer is lost.
    pub(crate) fn orphaned(&mut self, now: Moment) {
        self.lose_answer(now);
    }

    /// Returns what to do with a sign-in that was taken from the queue. `now` is the latest time that the queue's clock
    /// may show by now.
    ///
    /// A sign-in that was taken before its due time was either brought forward by a ping, and then no further ping
    /// counts in this interval; or its end has come, which is no reason to poll before the OP's interval is over. Only
    /// the client's own backoff may last beyond the deadline, and it does not delay such a poll. The due time may have
    /// passed meanwhile, because the queue's answer takes a while; the ping is still used up. The due time of an
    /// orphaned sign-in is not known here, so a ping counts as having brought it forward.
    pub(crate) fn claimed(&mut self, now: Moment, taken: Taken) -> Step {
        let Taken { at: taken_at, pinged, orphaned } = taken;
        if orphaned {
            self.orphaned(now);
        }
        self.follow(now);
        let is_premature = taken_at < self.due_at();
        self.ping_spent = (is_premature && (pinged || self.ping_spent)) || (orphaned && pinged);
        self.final_poll_due &= !(is_premature && pinged);
        let ended_at = self.deadline().filter(|_| self.until_deadline(now).is_some_and(|left| left <= CLOCK_ERROR));
        if let (true, Some(ended_at)) = (is_premature, ended_at) {
            // `now` may be ahead of the queue's clock by the delay of its answer, so the poll could be too early.
            let taken = Moment { wall: taken_at, ..now };
            if pinged {
                self.due = Due::after(Duration::ZERO, taken);
            } else if self.due.wall > ended_at {
                self.due = self.due.at_most(self.interval(taken));
            }
            return self.step_at(taken);
        }
        self.due = Due::after(Duration::ZERO, now);
        self.not_before = None;
        self.step(now)
    }

    /// Undoes [`claimed`](Self::claimed) after nothing was sent. Only the use of the ping is kept.
    pub(crate) fn given_back(&self, before: Self) -> Self {
        Self { ping_spent: self.ping_spent, ..before }
    }

    /// Records that a sign-in was taken from the queue and is given back at once, without a request.
    pub(crate) fn taken_and_given_back(&self, now: Moment, taken: Taken) -> Self {
        let (mut claimed, mut untouched) = (self.clone(), self.clone());
        if taken.orphaned {
            untouched.orphaned(now);
        }
        claimed.claimed(now, taken);
        claimed.given_back(untouched)
    }

    /// Whether a cancellation request may be sent: none was sent before, or the last one was long enough ago.
    pub(crate) fn may_cancel(&self, now: Moment) -> bool {
        self.cancelling.is_none_or(|sent| sent.next.remaining(now).is_zero())
    }

    /// Records a cancellation request at this time. The pause until the next one grows. Recording an older request
    /// after a newer one does not shorten the pause.
    pub(crate) fn cancellation_sent(&mut self, now: Moment) {
        let requests = self.cancelling.map_or(0, |sent| sent.requests);
        let pause = CANCELLATION_PAUSE.saturating_mul(1 << requests.min(16)).min(LONGEST_CANCELLATION_PAUSE);
        let next = Due::after(pause, now);
        let next = self.cancelling.map(|sent| sent.next).filter(|before| before.wall > next.wall).unwrap_or(next);
        self.cancelling = Some(Cancelling { requests: requests.saturating_add(1), next });
    }

    /// The shortest time after `now` to which a ping may bring the next request forward; `None` if no ping may.
    ///
    /// The first ping since the last scheduled request brings a request forward, regardless of the client's own
    /// backoff, but never into the time for which `Retry-After` forbids polls. After a `slow_down`, pings have no
    /// effect. Neither do they after the one request after the deadline.
    pub(crate) fn ping_in(&self, now: Moment) -> Option<Duration> {
        if self.slow_downs > 0 || self.ping_spent || self.late_poll_made {
            return None;
        }
        let held = self.not_before.map_or(Duration::ZERO, |not_before| not_before.remaining(now));
        Some(held.max(SHORTEST_GAP))
    }

    /// How long the queue waits before the next poll if it cannot trust its clock, and after a request whose answer is
    /// lost: the interval, or the rest of a longer `Retry-After`. A long `Retry-After` is shortened, so that a lost
    /// request does not use up the rest of the sign-in's lifetime.
    pub(crate) fn held_back(&self, now: Moment) -> Duration {
        let Some(not_before) = &self.not_before else { return self.interval(now) };
        self.longer(not_before.remaining(now), now)
    }

    /// The same if it is unknown how much of `Retry-After` is over.
    pub(crate) fn held_back_anew(&self, now: Moment) -> Duration {
        let Some(not_before) = &self.not_before else { return self.interval(now) };
        self.longer(not_before.wait, now)
    }

    fn longer(&self, held: Duration, now: Moment) -> Duration {
        let left = self.expires_in(now).map(|left| left.saturating_sub(held).saturating_sub(LOST_REQUEST));
        self.interval(now).max(left.map_or(held, |left| held.min(left)))
    }

    /// The time until there is something to do, for a queue.
    pub(crate) fn due_in(&mut self, now: Moment) -> Duration {
        match self.step(now) {
            Step::Wait(wait) => wait,
            Step::Ask | Step::End(_) => Duration::ZERO,
        }
    }

    /// Moves all times from this program's clocks, which show `from`, to another wall clock, which shows `to` now. The
    /// remaining waits do not change, even if the wall clock was set meanwhile.
    pub(crate) fn move_to_clock(&mut self, from: Moment, to: SystemTime) {
        self.follow(from);
        let waiting = |due: Due| Due { wall: saturating_add(to, due.remaining(from)), wait: due.wait, monotonic: None };
        self.move_times(from.wall, to);
        self.due = waiting(self.due);
        self.not_before = self.not_before.map(waiting);
        self.held_until = self.held_until.map(waiting);
        self.cancelling = self.cancelling.map(|sent| sent.with(waiting));
        self.seen = None;
    }
}
