//! One authentication process inside the provider.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::builder::{DecisionPolicy, When};
use super::client::TestUser;
use super::pace::Pace;
use super::wire::Parameters;

/// Everything about one authentication process.
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
    /// The thumbprint of the key that the exchange was proven with.
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

/// The code that the browser brought.
pub(super) struct Code {
    pub(super) is_deferred: bool,
    pub(super) issued_at: Duration,
    pub(super) used: bool,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    Approved,
    Denied(String),
    Expired,
}

impl Process {
    /// Takes the decision that is due by now, if none was taken yet. `true` if one was taken.
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

    /// Whether the `deferred_auth_id` has outlived its `expires_in`, whatever was decided.
    pub(super) fn has_expired(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// When the policy or the deadline will decide by itself.
    pub(super) fn next_decision(&self) -> Option<Duration> {
        let scheduled = match self.policy.when {
            When::Time(after) => Some(self.exchanged_at + after),
            _ => None,
        };
        scheduled.into_iter().chain(self.deadline).min()
    }
}
