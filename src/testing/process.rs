//! One sign-in in the provider.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::client::TestUser;
use super::settings::{DecisionPolicy, When};
use super::wire::Parameters;

pub(super) const DEFERRED_GRANT: &str = "urn:openid:params:grant-type:deferred";

/// All data of one sign-in.
pub(super) struct Process {
    pub(super) client_id: String,
    /// The authorization request.
    pub(super) request: Parameters,
    pub(super) redirect_uri: String,
    pub(super) authenticated_at: SystemTime,
    pub(super) user: TestUser,
    pub(super) interim_claims: Map<String, Value>,
    pub(super) code: Code,
    pub(super) deferred_auth_id: Option<String>,
    /// The thumbprint of the key that signed the proof of the exchange.
    pub(super) key: Option<String>,
    pub(super) notification_token: Option<String>,
    pub(super) policy: DecisionPolicy,
    pub(super) decision: Option<Decision>,
    pub(super) progress: Option<String>,
    pub(super) slow_down_next: bool,
    pub(super) exchanged_at: Duration,
    pub(super) deadline: Option<Duration>,
    pub(super) interval: Duration,
    pub(super) pace: Pace,
    pub(super) polls: usize,
    pub(super) redeemed: bool,
    pub(super) cancelled: bool,
}

/// The code that was issued to the browser.
pub(super) struct Code {
    pub(super) is_deferred: bool,
    pub(super) issued_at: Duration,
    pub(super) used: bool,
}

/// How a sign-in ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    Approved,
    Denied(String),
    Expired,
}

/// The times of the polls of one sign-in and of their answers.
#[derive(Default)]
pub(super) struct Pace {
    pub(super) last_answer: Duration,
    /// The last answer asked for no polls before this time.
    pub(super) retry_after: Duration,
    pub(super) in_flight: bool,
    /// The latest time for the answer to the poll in flight.
    pub(super) held_until: Duration,
    /// A ping was sent since the last poll, so the next poll may be early.
    pub(super) pinged: bool,
    /// The number of challenges in a row. The client retries at once after each of them.
    pub(super) challenges: usize,
    /// The one permitted early poll just before the end was made.
    pub(super) made_last_call: bool,
    /// The client has received the final answer.
    pub(super) told: bool,
}

impl Process {
    /// Makes the decision that is due, if none was made yet. Returns whether one was made.
    pub(super) fn decide(&mut self, now: Duration) -> bool {
        if self.decision.is_some() || self.deferred_auth_id.is_none() {
            return false;
        }
        let is_due = match self.policy.when {
            When::Scripted => false,
            When::Polls(polls) => self.polls > polls,
            When::Time(after) => now >= self.exchanged_at + after,
        };
        self.decision = match (self.has_expired(now), is_due, self.policy.denies) {
            (true, _, _) => Some(Decision::Expired),
            (false, true, false) => Some(Decision::Approved),
            (false, true, true) => Some(Decision::Denied("the identity could not be attested".into())),
            (false, false, _) => None,
        };
        self.decision.is_some()
    }

    /// Whether the `expires_in` of the `deferred_auth_id` has passed, whatever was decided.
    pub(super) fn has_expired(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// When the policy or the deadline decides automatically.
    pub(super) fn next_decision(&self) -> Option<Duration> {
        let scheduled = match self.policy.when {
            When::Time(after) => Some(self.exchanged_at + after),
            _ => None,
        };
        scheduled.into_iter().chain(self.deadline).min()
    }
}
