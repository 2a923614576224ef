//! The pace of polls: when they come, and when they should.

use std::time::Duration;

use http::StatusCode;

use super::op::Op;
use super::record::{Endpoint, RequestRule};
use super::wire::{Parameters, Reply};

impl Op {
    /// Notes that a poll has arrived, whatever becomes of it, and whether it came in time.
    pub(super) fn poll_arrives(
        &self,
        endpoint: Endpoint,
        parameters: &Parameters,
        number: usize,
    ) -> Option<PollInFlight<'_>> {
        if endpoint != Endpoint::Poll {
            return None;
        }
        let now = self.clock.monotonic();
        let mut state = self.state();
        let process = state.process_by_id(parameters.get("deferred_auth_id")?)?;
        if state.processes[process].pace.in_flight {
            state.violate(RequestRule::PolledInParallel, number, endpoint, String::new());
        }
        let due = state.processes[process].pace.last_answer + state.processes[process].interval;
        let early = state.processes[process].poll_arrives(now);
        if early {
            let detail = format!("{:?} early", due.saturating_sub(now));
            state.violate(RequestRule::PolledTooEarly, number, endpoint, detail);
        }
        Some(PollInFlight { op: self, process, arrived: now, early, is_answered: false })
    }
}

/// A poll that has arrived. However it ends, the next interval begins.
pub(super) struct PollInFlight<'a> {
    op: &'a Op,
    process: usize,
    arrived: Duration,
    pub(super) early: bool,
    is_answered: bool,
}

impl PollInFlight<'_> {
    pub(super) fn answered(mut self, retry_expected: bool) {
        self.is_answered = true;
        let now = self.op.clock.monotonic();
        let mut state = self.op.state();
        let pace = &mut state.processes[self.process].pace;
        pace.last_answer = now;
        pace.retry_expected = retry_expected;
    }
}

impl Drop for PollInFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.op.state();
        let pace = &mut state.processes[self.process].pace;
        pace.in_flight = false;
        if !self.is_answered {
            // The client hung up. It knows when; we do not, so its next interval counts from its arrival.
            pace.last_answer = self.arrived;
        }
    }
}

/// Answers after which the client repeats its request at once: it was asked for a nonce, or its clock was wrong.
pub(super) fn is_challenge(reply: &Reply) -> bool {
    let is_error = reply.status == StatusCode::BAD_REQUEST || reply.status == StatusCode::UNAUTHORIZED;
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    is_error && (body["error"] == "use_dpop_nonce" || body["error"] == "invalid_dpop_proof")
}
