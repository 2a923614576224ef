//! The pace of polls: whether they arrive too early, in parallel, or after the end.

use std::time::Duration;

use http::{StatusCode, header};
use serde_json::Value;

use super::op::Op;
use super::process::Process;
use super::record::{Endpoint, RequestRule};
use super::wire::{Delivery, Parameters, Reply};

/// The time before the end of a sign-in in which one more poll is permitted, whatever the interval (DTR §Design
/// Considerations for Poll and Ping).
const LAST_CALL: Duration = Duration::from_secs(30);

/// The longest `Retry-After` that is enforced.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// A nonce and a corrected clock. No honest client needs more retries in a row.
const MOST_RETRIES: usize = 2;

impl Op {
    /// Records that a poll has arrived, whatever its result is, and whether it was early.
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
        let process = state.polled(parameters)?;
        let broken = state.processes[process].poll_arrives(now);
        if let Some((rule, detail)) = &broken {
            state.violate(*rule, number, endpoint, detail.clone());
        }
        let early = broken.is_some_and(|(rule, _)| rule == RequestRule::PolledTooEarly);
        Some(PollInFlight { op: self, process, arrived: now, early, is_answered: false })
    }
}

impl Process {
    /// Counts the arrival of a poll. Returns the rule that its time breaks, if any.
    fn poll_arrives(&mut self, now: Duration) -> Option<(RequestRule, String)> {
        if self.pace.told {
            return Some((RequestRule::PolledAfterEnd, String::new()));
        }
        if std::mem::replace(&mut self.pace.in_flight, true) {
            return Some((RequestRule::PolledInParallel, String::new()));
        }
        let due = self.pace.last_answer + self.interval;
        if now >= due {
            // It is no retry of a challenged poll, but the next one.
            self.pace.challenges = 0;
        }
        if (1..=MOST_RETRIES).contains(&self.pace.challenges) {
            return None;
        }
        let was_pinged = std::mem::take(&mut self.pace.pinged);
        let is_last_call = self.deadline.is_some_and(|deadline| now + LAST_CALL >= deadline);
        let too_early = |rule, due: Duration| Some((rule, format!("{:?} early", due.saturating_sub(now))));
        if now < due && !was_pinged {
            let may_call = is_last_call && !std::mem::replace(&mut self.pace.made_last_call, true);
            return if may_call { None } else { too_early(RequestRule::PolledTooEarly, due) };
        }
        match now < self.pace.retry_after && !is_last_call {
            true => too_early(RequestRule::RetryAfterIgnored, self.pace.retry_after),
            false => None,
        }
    }

    /// Whether this answer to a poll is the final one.
    fn is_ended_by(&self, reply: &Reply) -> bool {
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        match reply.status {
            StatusCode::OK => self.redeemed && body.get("access_token").or(body.get("id_token")).is_some(),
            // RFC 6749 §5.2. An error with another status comes from a gateway in front of the provider.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => matches!(
                body["error"].as_str(),
                Some("access_denied" | "expired_token" | "invalid_grant" | "invalid_request")
            ),
            _ => false,
        }
    }
}

/// A poll that has arrived. The next interval begins whatever its result is.
pub(super) struct PollInFlight<'a> {
    op: &'a Op,
    process: usize,
    arrived: Duration,
    pub(super) early: bool,
    is_answered: bool,
}

impl PollInFlight<'_> {
    pub(super) fn answered(mut self, delivery: &Delivery) {
        self.is_answered = true;
        let now = self.op.clock.monotonic();
        let mut state = self.op.state();
        let process = &mut state.processes[self.process];
        process.pace.last_answer = now;
        let Delivery::Whole(reply) = delivery else { return };
        process.pace.told |= process.is_ended_by(reply);
        process.pace.challenges = if is_challenge(reply) { process.pace.challenges + 1 } else { 0 };
        process.pace.retry_after = retry_after(reply, self.op).map_or(Duration::ZERO, |wait| now + wait);
    }
}

impl Drop for PollInFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.op.state();
        let pace = &mut state.processes[self.process].pace;
        pace.in_flight = false;
        if !self.is_answered {
            // The client disconnected at a time that only the client knows, so its next interval counts from the
            // arrival.
            pace.last_answer = self.arrived;
        }
    }
}

/// Whether the client repeats its request at once after this answer: a nonce was required, or its clock was wrong.
fn is_challenge(reply: &Reply) -> bool {
    let is_error = reply.status == StatusCode::BAD_REQUEST || reply.status == StatusCode::UNAUTHORIZED;
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    is_error && matches!(body["error"].as_str(), Some("use_dpop_nonce" | "invalid_dpop_proof"))
}

/// RFC 9110 §10.2.3: seconds or a date.
fn retry_after(reply: &Reply, op: &Op) -> Option<Duration> {
    let value = reply.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(op.now()).ok()?,
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}
