//! Pauses: after a `Retry-After` of the OP the whole client stops polling, for minutes at most.

use std::time::Duration;

use crate::error::Verdict;
use crate::pending::Answer;

/// The maximum pause before one poll is sent as a probe.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The minimum pause.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause of one client, on the monotonic clock of this replica.
#[derive(Debug, Default)]
pub(super) struct Pause(Option<Paused>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Paused {
    /// When the next probe may be sent.
    until: Duration,
    /// The time between two probes.
    step: Duration,
    /// Whether a probe was sent since the OP's last `Retry-After`.
    is_probed: bool,
}

/// The states of a pause before and after a probe.
#[derive(Debug)]
pub(super) struct PauseProbe {
    before: Paused,
    after: Paused,
}

/// How an answer changes a pause.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PauseChange {
    Nothing,
    Begins { probe_in: Duration, retry_after: Duration },
    Ends,
}

impl Pause {
    /// Returns how many of `free` polls may be sent now, and if none may, the time until the next probe.
    pub(super) fn admits(&self, free: usize, now: Duration) -> (usize, Option<Duration>) {
        match (&self.0, self.probe_in(now)) {
            (None, _) => (free, None),
            (Some(_), None) => (free.min(1), None),
            (Some(_), Some(wait)) => (0, Some(wait)),
        }
    }

    /// Records that a poll is sent. In a pause it is the probe, and the time of the next probe is set. The result is
    /// for [`take_back`](Self::take_back).
    pub(super) fn probes(&mut self, now: Duration) -> Option<PauseProbe> {
        let paused = self.0.as_mut()?;
        let before = *paused;
        paused.until = now.saturating_add(paused.step);
        paused.is_probed = true;
        Some(PauseProbe { before, after: *paused })
    }

    /// Undoes a probe that was not sent, so that another poll can be the probe. Returns `false` if the pause has
    /// changed since.
    pub(super) fn take_back(&mut self, probe: &PauseProbe) -> bool {
        let is_last = self.0 == Some(probe.after);
        if is_last {
            self.0 = Some(probe.before);
        }
        is_last
    }

    /// Processes the OP's answer to a poll. The answer to a poll from before the pause does not end it.
    pub(super) fn answered(&mut self, answer: &Answer, now: Duration) -> PauseChange {
        match (not_processed(answer), &self.0) {
            (Some(Some(retry_after)), before) => {
                let step = retry_after.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                let until = now.saturating_add(step).max(before.as_ref().map_or(Duration::ZERO, |paused| paused.until));
                let begins = before.is_none();
                self.0 = Some(Paused { until, step, is_probed: false });
                if begins { PauseChange::Begins { probe_in: step, retry_after } } else { PauseChange::Nothing }
            }
            (None, Some(paused)) if paused.is_probed => self.end(),
            _ => PauseChange::Nothing,
        }
    }

    /// Ends the pause, by hand or because an answer shows that the OP accepts polls.
    pub(super) fn end(&mut self) -> PauseChange {
        match self.0.take() {
            Some(_) => PauseChange::Ends,
            None => PauseChange::Nothing,
        }
    }

    /// The time until the next probe, if the client pauses and none may be sent now.
    pub(super) fn probe_in(&self, now: Duration) -> Option<Duration> {
        self.0.as_ref().map(|paused| paused.until.saturating_sub(now)).filter(|wait| !wait.is_zero())
    }
}

/// `Some` if the OP did not process the poll, with its `Retry-After` if it sent one.
fn not_processed(answer: &Answer) -> Option<Option<Duration>> {
    match answer {
        Answer::Unusable { retry_after, .. } => Some(*retry_after),
        Answer::Error { response, retry_after, .. } => match response.verdict() {
            Verdict::NotProcessed | Verdict::MayBeLost | Verdict::OtherwiseRefused | Verdict::ClientRefused => {
                Some(*retry_after)
            }
            _ => None,
        },
        Answer::Success(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorResponse;

    const NOW: Duration = Duration::from_secs(1_000);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn busy(retry_after: Option<u64>) -> Answer {
        Answer::Unusable { unanswered: false, retry_after: retry_after.map(seconds) }
    }

    fn pending() -> Answer {
        Answer::Error {
            response: ErrorResponse::new("authorization_pending", None, Some(400)),
            retry_after: None,
            interaction: crate::dialect::Interaction::Unmentioned,
        }
    }

    #[test]
    fn a_client_pauses_for_five_minutes_at_most_and_then_sends_one_probe() {
        let mut pause = Pause::default();
        let begins = PauseChange::Begins { probe_in: seconds(300), retry_after: seconds(86_400) };
        assert_eq!(pause.answered(&busy(Some(86_400)), NOW), begins);
        assert_eq!(pause.answered(&busy(Some(86_400)), NOW), PauseChange::Nothing, "one event is enough");
        assert_eq!(pause.admits(64, NOW + seconds(100)), (0, Some(seconds(200))));
        let probe_at = NOW + seconds(300);
        assert_eq!(pause.admits(64, probe_at), (1, None));
        pause.probes(probe_at);
        assert_eq!(pause.admits(64, probe_at), (0, Some(seconds(300))), "one probe is enough");
        assert_eq!(pause.answered(&pending(), probe_at + seconds(1)), PauseChange::Ends);
        assert_eq!(pause.admits(64, probe_at + seconds(1)), (64, None));
    }

    #[test]
    fn a_probe_with_a_transient_error_leaves_the_client_paused() {
        let mut pause = Pause::default();
        pause.answered(&busy(Some(120)), NOW);
        pause.probes(NOW + seconds(120));
        assert_eq!(pause.answered(&busy(None), NOW + seconds(125)), PauseChange::Nothing);
        assert_eq!(pause.admits(64, NOW + seconds(125)), (0, Some(seconds(115))));
    }

    #[test]
    fn a_probe_that_sends_no_request_is_returned() {
        let mut pause = Pause::default();
        pause.answered(&busy(Some(120)), NOW);
        let probe = pause.probes(NOW + seconds(120)).unwrap();
        assert!(pause.take_back(&probe));
        assert_eq!(pause.admits(64, NOW + seconds(120)), (1, None));
        assert_eq!(
            pause.answered(&pending(), NOW + seconds(121)),
            PauseChange::Nothing,
            "the answer is to an earlier poll"
        );
        let probe = pause.probes(NOW + seconds(120)).unwrap();
        pause.answered(&busy(Some(200)), NOW + seconds(121));
        assert!(!pause.take_back(&probe), "the OP asks for another pause");
    }

    #[test]
    fn an_answer_to_a_poll_from_before_the_pause_does_not_end_it() {
        let mut pause = Pause::default();
        pause.answered(&busy(Some(120)), NOW);
        assert_eq!(pause.answered(&pending(), NOW + seconds(1)), PauseChange::Nothing);
        assert!(pause.probe_in(NOW + seconds(1)).is_some());
        assert_eq!(pause.end(), PauseChange::Ends);
        assert_eq!(pause.admits(64, NOW + seconds(1)), (64, None));
    }

    #[test]
    fn transient_errors_without_retry_after_pause_no_client() {
        let mut pause = Pause::default();
        assert_eq!(pause.answered(&busy(None), NOW), PauseChange::Nothing);
        assert_eq!(pause.admits(64, NOW), (64, None));
    }
}
