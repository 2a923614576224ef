//! The schedule of a process that waits in a queue: the queue's clock says when it is due, and pings may move that.

use super::*;

/// The queue's clock is known as well as its answers are fast. Who gets one later than this sends nothing.
const CLOCK_ERROR: Duration = Duration::from_secs(5);
/// A request whose answer is lost takes this long at most, until the process is due again but for its interval.
const LOST_REQUEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;

impl Schedule {
    /// Whoever had the process before never came back, so a request may have been sent whose answer is lost.
    pub(crate) fn orphaned(&mut self, now: Moment) {
        self.lose_answer(now);
    }

    /// What to do with a process that was taken from the queue because it is due there. `taken_at` is what the queue's
    /// clock showed then, `now` what it may show by now at the latest, `pinged` whether a ping had come since the time
    /// before, and `orphaned` whether the outcome of that time's poll is unknown.
    ///
    /// Taken before its time, it was brought forward by a ping, which uses the pings of this interval up; or its end has
    /// come, which is no reason to ask early. Its time may have come by now, for the queue's answer takes a while: that
    /// gives no ping back. The time of an orphaned process is not known here, so a ping counts as having brought it
    /// forward.
    pub(crate) fn claimed(&mut self, now: Moment, taken_at: SystemTime, pinged: bool, orphaned: bool) -> Step {
        if orphaned {
            self.orphaned(now);
        }
        self.follow(now);
        let is_premature = taken_at < self.due_at();
        self.ping_spent = (is_premature && (pinged || self.ping_spent)) || (orphaned && pinged);
        self.final_poll_due &= !(is_premature && pinged);
        let has_ended = self.until_deadline(now).is_some_and(|left| left <= CLOCK_ERROR);
        if is_premature && has_ended {
            // `now` may be ahead of the queue's clock by as long as its answer took, and would ask early.
            return self.step_at(Moment { wall: taken_at, ..now });
        }
        self.due = Due::after(Duration::ZERO, now);
        self.not_before = None;
        self.step(now)
    }

    /// Nothing was sent after it was [taken](Self::claimed): all is as `before`, but for the ping that it was taken for.
    pub(crate) fn given_back(&self, before: Self) -> Self {
        Self { ping_spent: self.ping_spent, ..before }
    }

    /// Whether the OP may be asked to cancel: it was not asked before, or long enough ago.
    pub(crate) fn may_cancel(&self, now: Moment) -> bool {
        self.cancelling.is_none_or(|sent| sent.next.remaining(now).is_zero())
    }

    /// Notes that the OP is asked to cancel at this time. The pause until it may be asked again grows. A request that is
    /// noted after a later one shortens nothing.
    pub(crate) fn cancellation_sent(&mut self, now: Moment) {
        let requests = self.cancelling.map_or(0, |sent| sent.requests);
        let pause = CANCELLATION_PAUSE.saturating_mul(1 << requests.min(16)).min(LONGEST_CANCELLATION_PAUSE);
        let next = Due::after(pause, now);
        let next = self.cancelling.map(|sent| sent.next).filter(|before| before.wall > next.wall).unwrap_or(next);
        self.cancelling = Some(Cancelling { requests: requests.saturating_add(1), next });
    }

    /// How soon after `now` a ping may bring the next request forward; `None` if it may not.
    ///
    /// The first ping since the last scheduled request brings one forward, whatever our own backoff, but never what
    /// `Retry-After` forbids. An OP that has said `slow_down` is asked at its interval alone, and a process that has
    /// had the one request after its end is not asked again.
    pub(crate) fn ping_in(&self, now: Moment) -> Option<Duration> {
        if self.slow_downs > 0 || self.ping_spent || self.late_poll_made {
            return None;
        }
        let held = self.not_before.map_or(Duration::ZERO, |not_before| not_before.remaining(now));
        Some(held.max(SHORTEST_GAP))
    }

    /// For how long the queue keeps the process back where it cannot trust its own clock, and after a request whose answer
    /// is lost: for the interval, or for what is left of a longer `Retry-After`. A lost request never costs the rest of the
    /// life of the process.
    pub(crate) fn held_back(&self, now: Moment) -> Duration {
        let Some(not_before) = &self.not_before else { return self.interval(now) };
        self.longer(not_before.remaining(now), now)
    }

    /// The same where nothing says how much of `Retry-After` is over.
    pub(crate) fn held_back_anew(&self, now: Moment) -> Duration {
        let Some(not_before) = &self.not_before else { return self.interval(now) };
        self.longer(not_before.wait, now)
    }

    fn longer(&self, held: Duration, now: Moment) -> Duration {
        let left = self.expires_in(now).map(|left| left.saturating_sub(held).saturating_sub(LOST_REQUEST));
        self.interval(now).max(left.map_or(held, |left| held.min(left)))
    }

    /// How long until there is something to do, for a queue.
    pub(crate) fn due_in(&mut self, now: Moment) -> Duration {
        match self.step(now) {
            Step::Wait(wait) => wait,
            Step::Ask | Step::End(_) => Duration::ZERO,
        }
    }

    /// Moves everything from the clocks of this process, as of `from`, to another wall clock, which shows `to` now. How
    /// long is left to wait is not touched by a wall clock that was set meanwhile.
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
