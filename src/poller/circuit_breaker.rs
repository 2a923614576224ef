//! Circuit breakers: while the OP refuses a client, its sign-ins are not polled, because the mistake is the client's and
//! not the users'.

use std::time::Duration;

use crate::error::{ErrorResponse, REFUSALS_OF_CLIENTS, Verdict};
use crate::pending::Answer;

/// The breaker trips after this number of sign-ins in a row ended in a way that suggests a mistake of the client.
const SUSPICIOUS_ENDS: u32 = 3;
const FIRST_PROBE: Duration = Duration::from_secs(60);
const LONGEST_PROBE: Duration = Duration::from_secs(3600);

/// The circuit breaker of one partition, on the monotonic clock of this replica.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    tripped: Option<Tripped>,
    suspicious_ends: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tripped {
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

/// The states of a tripped breaker before and after a probe.
#[derive(Debug)]
pub(super) struct BreakerProbe {
    before: Tripped,
    after: Tripped,
}

/// How an answer changes a breaker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BreakerChange {
    Nothing,
    Trips {
        probe_in: Duration,
    },
    /// It stays tripped, and another probe may pass at once.
    ProbesAgain,
    Resets,
}

impl CircuitBreaker {
    /// Returns how many of `free` polls may be sent now, and if none may, the time until the next probe.
    pub(super) fn admits(&self, free: usize, now: Duration) -> (usize, Option<Duration>) {
        match self.tripped.as_ref().map(|tripped| tripped.probe_at.saturating_sub(now)) {
            None => (free, None),
            Some(Duration::ZERO) => (free.min(1), None),
            Some(wait) => (0, Some(wait)),
        }
    }

    /// Records that a probe passes a tripped breaker, and sets the time of the next probe. The result is for
    /// [`take_back`](Self::take_back).
    pub(super) fn probes(&mut self, now: Duration) -> Option<BreakerProbe> {
        let tripped = self.tripped.as_mut()?;
        let before = *tripped;
        tripped.step = tripped.step.saturating_mul(2).min(LONGEST_PROBE);
        tripped.probe_at = now.saturating_add(tripped.step);
        Some(BreakerProbe { before, after: *tripped })
    }

    /// Undoes a probe that was not sent, so that another poll can be the probe. Returns `false` if the breaker has changed
    /// since.
    pub(super) fn take_back(&mut self, probe: &BreakerProbe) -> bool {
        let is_last = self.tripped == Some(probe.after);
        if is_last {
            self.tripped = Some(probe.before);
        }
        is_last
    }

    /// Processes the OP's answer to a poll.
    pub(super) fn answered(&mut self, answer: &Answer, grant: GrantState, now: Duration) -> BreakerChange {
        match answer {
            Answer::Error { response, .. } => match response.verdict() {
                Verdict::ClientRefused | Verdict::ScopeRefused if refuses_the_client(response) => {
                    self.trip(Cause::Client, now)
                }
                // A transient error says nothing about the client, and neither does another demand for a DPoP nonce.
                Verdict::NotProcessed | Verdict::MayBeLost | Verdict::OtherwiseRefused | Verdict::ClientRefused => {
                    BreakerChange::Nothing
                }
                Verdict::GrantRefused => self.grant_refused(grant, now),
                _ => self.reset(),
            },
            Answer::Unusable { .. } => BreakerChange::Nothing,
            Answer::Success(_) => self.reset(),
        }
    }

    fn grant_refused(&mut self, grant: GrantState, now: Duration) -> BreakerChange {
        if self.tripped.is_some_and(|tripped| tripped.cause == Cause::Client) {
            // The OP checks a grant only after it has accepted the client.
            return self.reset();
        }
        if grant == GrantState::MayBeGone {
            return self.probe_again(now);
        }
        self.suspicious_ends = self.suspicious_ends.saturating_add(1);
        if self.suspicious_ends >= SUSPICIOUS_ENDS { self.trip(Cause::Grants, now) } else { BreakerChange::Nothing }
    }

    /// Ignores the answer to a probe that says nothing about the client. Otherwise sign-ins that expire behind a tripped
    /// breaker would use up its probes, and it would never be reset.
    fn probe_again(&mut self, now: Duration) -> BreakerChange {
        let Some(tripped) = &mut self.tripped else { return BreakerChange::Nothing };
        tripped.step = (tripped.step / 2).max(FIRST_PROBE);
        tripped.probe_at = tripped.probe_at.min(now);
        BreakerChange::ProbesAgain
    }

    /// Resets the breaker, by hand or because an answer shows that the client is accepted.
    pub(super) fn reset(&mut self) -> BreakerChange {
        self.suspicious_ends = 0;
        match self.tripped.take() {
            Some(_) => BreakerChange::Resets,
            None => BreakerChange::Nothing,
        }
    }

    pub(super) fn is_tripped(&self) -> bool {
        self.tripped.is_some()
    }

    fn trip(&mut self, cause: Cause, now: Duration) -> BreakerChange {
        if self.tripped.is_some() {
            return BreakerChange::Nothing;
        }
        self.tripped = Some(Tripped { probe_at: now.saturating_add(FIRST_PROBE), step: FIRST_PROBE, cause });
        BreakerChange::Trips { probe_in: FIRST_PROBE }
    }
}

fn refuses_the_client(response: &ErrorResponse) -> bool {
    REFUSALS_OF_CLIENTS.contains(&response.code())
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
    fn answered(breaker: &mut CircuitBreaker, code: &str, now: Duration) -> BreakerChange {
        breaker.answered(&error(code), GrantState::Valid, now)
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn a_refused_client_trips_its_breaker_at_once_and_is_probed_less_and_less_often() {
        let mut breaker = CircuitBreaker::default();
        assert_eq!(breaker.admits(64, NOW), (64, None));
        assert_eq!(answered(&mut breaker, "invalid_client", NOW), BreakerChange::Trips { probe_in: minutes(1) });
        assert_eq!(answered(&mut breaker, "invalid_client", NOW), BreakerChange::Nothing, "one alert is enough");
        let mut now = NOW;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(breaker.admits(64, now), (0, Some(minutes(wait))));
            now += minutes(wait);
            assert_eq!(breaker.admits(64, now), (1, None));
            breaker.probes(now);
        }
        assert_eq!(answered(&mut breaker, "authorization_pending", now), BreakerChange::Resets);
        assert_eq!(breaker.admits(64, now), (64, None));
    }

    #[test]
    fn a_probe_that_sends_no_request_is_returned() {
        let mut breaker = CircuitBreaker::default();
        answered(&mut breaker, "invalid_client", NOW);
        let now = NOW + minutes(1);
        let probe = breaker.probes(now).unwrap();
        assert_eq!(breaker.admits(64, now), (0, Some(minutes(2))));
        assert!(breaker.take_back(&probe));
        assert_eq!(breaker.admits(64, now), (1, None));
        let (first, second) = (breaker.probes(now).unwrap(), breaker.probes(now).unwrap());
        assert!(!breaker.take_back(&first), "another probe is in flight");
        assert!(breaker.take_back(&second));
        breaker.reset();
        assert!(!breaker.take_back(&first) && !breaker.is_tripped());
    }

    #[test]
    fn every_error_of_the_client_trips_the_breaker() {
        for code in REFUSALS_OF_CLIENTS {
            let mut breaker = CircuitBreaker::default();
            assert_eq!(answered(&mut breaker, code, NOW), BreakerChange::Trips { probe_in: minutes(1) }, "{code}");
            assert_eq!(answered(&mut breaker, code, NOW + minutes(1)), BreakerChange::Nothing, "{code} at the probe");
            assert!(breaker.is_tripped(), "{code}");
        }
    }

    #[test]
    fn a_transient_error_at_a_probe_does_not_reset_the_breaker() {
        let mut breaker = CircuitBreaker::default();
        answered(&mut breaker, "invalid_client", NOW);
        for code in ["server_error", "temporarily_unavailable", "a_code_that_no_specification_knows", "use_dpop_nonce"]
        {
            assert_eq!(answered(&mut breaker, code, NOW), BreakerChange::Nothing, "{code}");
            assert!(breaker.is_tripped(), "{code}");
        }
        assert_eq!(answered(&mut breaker, "access_denied", NOW), BreakerChange::Resets);
    }

    #[test]
    fn only_three_consecutive_suspicious_ends_trip_the_breaker() {
        let mut breaker = CircuitBreaker::default();
        for code in ["invalid_request", "invalid_grant", "authorization_pending", "invalid_grant", "invalid_grant"] {
            assert_eq!(answered(&mut breaker, code, NOW), BreakerChange::Nothing);
        }
        assert_eq!(answered(&mut breaker, "invalid_request", NOW), BreakerChange::Trips { probe_in: minutes(1) });
    }

    #[test]
    fn invalid_grant_for_grants_that_may_be_gone_does_not_trip_the_breaker() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..10 {
            assert_eq!(breaker.answered(&error("invalid_grant"), GrantState::MayBeGone, NOW), BreakerChange::Nothing);
        }
        assert!(!breaker.is_tripped());
        for trips in [false, false, true] {
            answered(&mut breaker, "invalid_grant", NOW);
            assert_eq!(breaker.is_tripped(), trips);
        }
        breaker.answered(&error("invalid_grant"), GrantState::MayBeGone, NOW);
        assert!(breaker.is_tripped(), "it stays tripped");
    }

    #[test]
    fn a_probe_whose_grant_may_be_gone_is_followed_by_another_one_and_does_not_lengthen_the_pause() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..3 {
            answered(&mut breaker, "invalid_grant", NOW);
        }
        let mut now = NOW + minutes(1);
        for _ in 0..10 {
            assert_eq!(breaker.admits(64, now), (1, None));
            breaker.probes(now);
            assert_eq!(breaker.admits(64, now), (0, Some(minutes(2))), "one probe at a time");
            now += Duration::from_secs(1);
            assert_eq!(
                breaker.answered(&error("invalid_grant"), GrantState::MayBeGone, now),
                BreakerChange::ProbesAgain
            );
        }
        breaker.probes(now);
        assert_eq!(answered(&mut breaker, "invalid_grant", now), BreakerChange::Nothing);
        assert_eq!(breaker.admits(64, now), (0, Some(minutes(2))));
    }

    #[test]
    fn an_error_about_the_grant_resets_the_breaker() {
        for grant in [GrantState::Valid, GrantState::MayBeGone] {
            let mut breaker = CircuitBreaker::default();
            answered(&mut breaker, "invalid_client", NOW);
            assert_eq!(breaker.answered(&error("invalid_grant"), grant, NOW), BreakerChange::Resets);
        }
    }
}
