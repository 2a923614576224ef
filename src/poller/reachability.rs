//! Tracks whether an OP gives usable answers to polls, and when operators must be alerted.

use std::sync::Arc;
use std::time::Duration;

use super::reminders::REMIND_EVERY;

/// The minimum silence after which an OP counts as unreachable.
const SILENCE: Duration = Duration::from_secs(60);
/// The minimum number of failed polls during that silence.
const TRIED_POLLS: u64 = 3;

/// The results of the polls of one client, on the monotonic clock of this replica.
#[derive(Debug, Default)]
pub(super) struct Reachability(Option<Silence>);

/// The time since the last usable answer.
#[derive(Debug)]
struct Silence {
    /// When the first poll without a usable answer ended.
    since: Duration,
    /// The number of polls without a usable answer since then.
    polls: u64,
    /// The error of the last of them.
    cause: Arc<str>,
    reported: Option<Reported>,
}

#[derive(Debug)]
struct Reported {
    at: Duration,
    polls: u64,
}

/// A report about an OP that gives no usable answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreachable {
    /// The time since the first of the failed polls.
    pub(super) silence: Duration,
    /// The number of failed polls.
    pub(super) polls: u64,
    /// The error of the last of them.
    pub(super) cause: Arc<str>,
}

impl Reachability {
    /// Records a poll without a usable answer.
    pub(super) fn failed(&mut self, cause: impl Into<Arc<str>>, now: Duration) {
        let cause = cause.into();
        let first = || Silence { since: now, polls: 0, cause: cause.clone(), reported: None };
        let silence = self.0.get_or_insert_with(first);
        silence.polls = silence.polls.saturating_add(1);
        silence.cause = cause;
    }

    /// Records a usable answer. Returns how long the OP was unreachable, if that was reported.
    pub(super) fn answered(&mut self, now: Duration) -> Option<Duration> {
        let silence = self.0.take()?;
        silence.reported.map(|_| now.saturating_sub(silence.since))
    }

    /// Returns the report that is due now, if there is one: first after a minute, then once an hour while polls are
    /// tried.
    pub(super) fn report(&mut self, now: Duration) -> Option<Unreachable> {
        let silence = self.0.as_mut()?;
        let lasted = now.saturating_sub(silence.since);
        let is_due = match &silence.reported {
            None => lasted >= SILENCE && silence.polls >= TRIED_POLLS,
            Some(last) => now.saturating_sub(last.at) >= REMIND_EVERY && silence.polls > last.polls,
        };
        is_due.then(|| {
            silence.reported = Some(Reported { at: now, polls: silence.polls });
            Unreachable { silence: lasted, polls: silence.polls, cause: silence.cause.clone() }
        })
    }

    /// Forgets everything about the OP.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Returns how long the OP has been unreachable, once that was reported.
    pub(super) fn unreachable_for(&self, now: Duration) -> Option<Duration> {
        let silence = self.0.as_ref().filter(|silence| silence.reported.is_some())?;
        Some(now.saturating_sub(silence.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_op_is_unreachable_after_a_minute_and_three_polls_without_a_usable_answer() {
        let mut reachability = Reachability::default();
        reachability.failed("HTTP status 503", seconds(100));
        reachability.failed("HTTP status 503", seconds(120));
        assert_eq!(reachability.report(seconds(161)), None, "two polls are not enough");
        reachability.failed("no connection", seconds(161));
        let report = reachability.report(seconds(161)).unwrap();
        assert_eq!((report.silence, report.polls, &*report.cause), (seconds(61), 3, "no connection"));
        assert_eq!(reachability.unreachable_for(seconds(200)), Some(seconds(100)));
        assert_eq!(reachability.answered(seconds(400)), Some(seconds(300)));
        assert_eq!(reachability.unreachable_for(seconds(400)), None);
    }

    #[test]
    fn many_failures_within_a_minute_are_not_enough() {
        let mut reachability = Reachability::default();
        (0..1_000).for_each(|_| reachability.failed("no connection", seconds(100)));
        assert_eq!(reachability.report(seconds(159)), None);
        assert_eq!(reachability.answered(seconds(159)), None, "no outage was reported");
    }

    #[test]
    fn an_outage_is_reported_once_an_hour_while_polls_are_attempted() {
        let mut reachability = Reachability::default();
        let mut reports = Vec::new();
        for second in (0..7_300).step_by(10) {
            reachability.failed("no connection", seconds(second));
            reports.extend(reachability.report(seconds(second)).map(|_| second));
        }
        assert_eq!(reports, [60, 3_660, 7_260]);
        assert_eq!(
            reachability.report(seconds(100_000)).map(|report| report.polls),
            Some(730),
            "polls have failed since then"
        );
        assert_eq!(reachability.report(seconds(200_000)), None, "nothing was tried since then");
    }
}
