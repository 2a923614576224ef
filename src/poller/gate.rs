//! Gates: while the OP refuses a client, its sign-ins are not polled, because the mistake is the client's and not the
//! users'.

use std::time::Duration;

use crate::error::{ErrorResponse, Verdict};
use crate::pending::Answer;

/// The gate closes after this number of sign-ins in a row ended in a way that suggests a mistake of the client.
const SUSPICIOUS_ENDS: u32 = 3;
const FIRST_PROBE: Duration = Duration::from_secs(60);
const LONGEST_PROBE: Duration = Duration::from_secs(3600);

/// The gate of one partition, on the monotonic clock of this replica.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: Option<Closed>,
    suspicious_ends: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closed {
    probe_at: Duration,
    step: Duration,
    cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The OP refused the client itself.
    Client,
    /// The OP refused the grants of several sign-ins in a row.
    Grants,
}

/// What is known of the grant of a sign-in when the OP answers a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrantState {
    Valid,
    /// The OP may have removed it: the answer to an earlier poll may have been the success, or the sign-in has expired or
    /// was cancelled. If the OP refuses it then, that says nothing about the client.
    MayBeGone,
}

/// The states of a closed gate before and after a probe.
#[derive(Debug)]
pub(super) struct GateProbe {
    before: Closed,
    after: Closed,
}

/// How an answer changes a gate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GateChange {
    Nothing,
    Closes {
        probe_in: Duration,
    },
    /// It stays closed, and another probe may pass at once.
    ProbesAgain,
    Opens,
}

impl Gate {
    /// Returns how many of `free` polls may be sent now, and if none may, the time until the next probe.
    pub(super) fn admits(&self, free: usize, now: Duration) -> (usize, Option<Duration>) {
        match self.closed.as_ref().map(|closed| closed.probe_at.saturating_sub(now)) {
            None => (free, None),
            Some(Duration::ZERO) => (free.min(1), None),
            Some(wait) => (0, Some(wait)),
        }
    }

    /// Records that a probe passes a closed gate, and sets the time of the next probe. The result is for
    /// [`take_back`](Self::take_back).
    pub(super) fn probes(&mut self, now: Duration) -> Option<GateProbe> {
        let closed = self.closed.as_mut()?;
        let before = *closed;
        closed.step = closed.step.saturating_mul(2).min(LONGEST_PROBE);
        closed.probe_at = now.saturating_add(closed.step);
        Some(GateProbe { before, after: *closed })
    }

    /// Undoes a probe that was not sent, so that another poll can be the probe. Returns `false` if the gate has changed
    /// since.
    pub(super) fn take_back(&mut self, probe: &GateProbe) -> bool {
        let is_last = self.closed == Some(probe.after);
        if is_last {
            self.closed = Some(probe.before);
        }
        is_last
    }

    /// Processes the OP's answer to a poll.
    pub(super) fn answered(&mut self, answer: &Answer, grant: GrantState, now: Duration) -> GateChange {
        match answer {
            Answer::Error { response, .. } => match response.verdict() {
                Verdict::ClientRefused | Verdict::ScopeRefused if refuses_the_client(response) => {
                    self.close(Cause::Client, now)
                }
                // A transient error says nothing about the client, and neither does another demand for a DPoP nonce.
                Verdict::TurnedAway | Verdict::MayBeLost | Verdict::OtherwiseRefused | Verdict::ClientRefused => {
                    GateChange::Nothing
                }
                Verdict::GrantRefused => self.grant_refused(grant, now),
                _ => self.open(),
            },
            Answer::Trouble { .. } => GateChange::Nothing,
            Answer::Success(_) => self.open(),
        }
    }

    fn grant_refused(&mut self, grant: GrantState, now: Duration) -> GateChange {
        if self.closed.is_some_and(|closed| closed.cause == Cause::Client) {
            // The OP checks a grant only after it has accepted the client.
            return self.open();
        }
        if grant == GrantState::MayBeGone {
            return self.probe_again(now);
        }
        self.suspicious_ends = self.suspicious_ends.saturating_add(1);
        if self.suspicious_ends >= SUSPICIOUS_ENDS { self.close(Cause::Grants, now) } else { GateChange::Nothing }
    }

    /// Ignores the answer to a probe that says nothing about the client. Otherwise sign-ins that expire behind a closed
    /// gate would use up its probes, and it would never open.
    fn probe_again(&mut self, now: Duration) -> GateChange {
        let Some(closed) = &mut self.closed else { return GateChange::Nothing };
        closed.step = (closed.step / 2).max(FIRST_PROBE);
        closed.probe_at = closed.probe_at.min(now);
        GateChange::ProbesAgain
    }

    /// Opens the gate, by hand or because an answer shows that the client is accepted.
    pub(super) fn open(&mut self) -> GateChange {
        self.suspicious_ends = 0;
        match self.closed.take() {
            Some(_) => GateChange::Opens,
            None => GateChange::Nothing,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    fn close(&mut self, cause: Cause, now: Duration) -> GateChange {
        if self.closed.is_some() {
            return GateChange::Nothing;
        }
        self.closed = Some(Closed { probe_at: now.saturating_add(FIRST_PROBE), step: FIRST_PROBE, cause });
        GateChange::Closes { probe_in: FIRST_PROBE }
    }
}

fn refuses_the_client(response: &ErrorResponse) -> bool {
    matches!(
        response.code(),
        "invalid_client" | "unauthorized_client" | "unsupported_grant_type" | "invalid_scope" | "invalid_dpop_proof"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn error(code: &str) -> Answer {
        Answer::Error {
            response: ErrorResponse::new(code, None, Some(400)),
            retry_after: None,
            interaction: crate::dialect::Interaction::Unmentioned,
        }
    }

    /// Of a sign-in that the OP should know.
    fn answered(gate: &mut Gate, code: &str, now: Duration) -> GateChange {
        gate.answered(&error(code), GrantState::Valid, now)
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn a_refused_client_closes_its_gate_at_once_and_probes_ever_more_seldom() {
        let mut gate = Gate::default();
        assert_eq!(gate.admits(64, NOW), (64, None));
        assert_eq!(answered(&mut gate, "invalid_client", NOW), GateChange::Closes { probe_in: minutes(1) });
        assert_eq!(answered(&mut gate, "invalid_client", NOW), GateChange::Nothing, "one alert is enough");
        let mut now = NOW;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(gate.admits(64, now), (0, Some(minutes(wait))));
            now += minutes(wait);
            assert_eq!(gate.admits(64, now), (1, None));
            gate.probes(now);
        }
        assert_eq!(answered(&mut gate, "authorization_pending", now), GateChange::Opens);
        assert_eq!(gate.admits(64, now), (64, None));
    }

    #[test]
    fn a_probe_that_asks_nothing_is_taken_back() {
        let mut gate = Gate::default();
        answered(&mut gate, "invalid_client", NOW);
        let now = NOW + minutes(1);
        let probe = gate.probes(now).unwrap();
        assert_eq!(gate.admits(64, now), (0, Some(minutes(2))));
        assert!(gate.take_back(&probe));
        assert_eq!(gate.admits(64, now), (1, None));
        let (first, second) = (gate.probes(now).unwrap(), gate.probes(now).unwrap());
        assert!(!gate.take_back(&first), "another probe is in flight");
        assert!(gate.take_back(&second));
        gate.open();
        assert!(!gate.take_back(&first) && !gate.is_closed());
    }

    #[test]
    fn every_mistake_of_ours_closes_the_gate() {
        for code in
            ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_dpop_proof"]
        {
            let mut gate = Gate::default();
            assert_eq!(answered(&mut gate, code, NOW), GateChange::Closes { probe_in: minutes(1) }, "{code}");
            assert_eq!(answered(&mut gate, code, NOW + minutes(1)), GateChange::Nothing, "{code} at the probe");
            assert!(gate.is_closed(), "{code}");
        }
    }

    #[test]
    fn trouble_at_a_probe_does_not_open_the_gate() {
        let mut gate = Gate::default();
        answered(&mut gate, "invalid_client", NOW);
        for code in ["server_error", "temporarily_unavailable", "a_code_that_no_specification_knows", "use_dpop_nonce"]
        {
            assert_eq!(answered(&mut gate, code, NOW), GateChange::Nothing, "{code}");
            assert!(gate.is_closed(), "{code}");
        }
        assert_eq!(answered(&mut gate, "access_denied", NOW), GateChange::Opens);
    }

    #[test]
    fn three_suspicious_ends_in_a_row_close_the_gate_and_anything_else_between_does_not() {
        let mut gate = Gate::default();
        for code in ["invalid_request", "invalid_grant", "authorization_pending", "invalid_grant", "invalid_grant"] {
            assert_eq!(answered(&mut gate, code, NOW), GateChange::Nothing);
        }
        assert_eq!(answered(&mut gate, "invalid_request", NOW), GateChange::Closes { probe_in: minutes(1) });
    }

    #[test]
    fn grants_that_may_be_gone_do_not_close_the_gate() {
        let mut gate = Gate::default();
        for _ in 0..10 {
            assert_eq!(gate.answered(&error("invalid_grant"), GrantState::MayBeGone, NOW), GateChange::Nothing);
        }
        assert!(!gate.is_closed());
        for closes in [false, false, true] {
            answered(&mut gate, "invalid_grant", NOW);
            assert_eq!(gate.is_closed(), closes);
        }
        gate.answered(&error("invalid_grant"), GrantState::MayBeGone, NOW);
        assert!(gate.is_closed(), "it stays closed");
    }

    #[test]
    fn a_probe_whose_grant_may_be_gone_is_followed_by_another_one_and_does_not_lengthen_the_pause() {
        let mut gate = Gate::default();
        for _ in 0..3 {
            answered(&mut gate, "invalid_grant", NOW);
        }
        let mut now = NOW + minutes(1);
        for _ in 0..10 {
            assert_eq!(gate.admits(64, now), (1, None));
            gate.probes(now);
            assert_eq!(gate.admits(64, now), (0, Some(minutes(2))), "one probe at a time");
            now += Duration::from_secs(1);
            assert_eq!(gate.answered(&error("invalid_grant"), GrantState::MayBeGone, now), GateChange::ProbesAgain);
        }
        gate.probes(now);
        assert_eq!(answered(&mut gate, "invalid_grant", now), GateChange::Nothing);
        assert_eq!(gate.admits(64, now), (0, Some(minutes(2))));
    }

    #[test]
    fn an_op_that_looks_at_the_grant_has_accepted_the_client() {
        for grant in [GrantState::Valid, GrantState::MayBeGone] {
            let mut gate = Gate::default();
            answered(&mut gate, "invalid_client", NOW);
            assert_eq!(gate.answered(&error("invalid_grant"), grant, NOW), GateChange::Opens);
        }
    }
}
