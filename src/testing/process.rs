//! One sign-in in the provider.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::client::TestUser;
use super::dialect::Dialect;
use super::settings::{DecisionPolicy, When};
use super::wire::Parameters;

/// All data of one sign-in, or of another grant.
pub(super) struct Process {
    pub(super) client_id: String,
    pub(super) grant: Grant,
    /// The draft that it is deferred by; `OpenId` until then.
    pub(super) dialect: Dialect,
    /// The authorization request, or the token request of a grant without a browser.
    pub(super) request: Parameters,
    pub(super) redirect_uri: String,
    pub(super) authenticated_at: SystemTime,
    pub(super) user: TestUser,
    pub(super) interim_claims: Map<String, Value>,
    /// `None` for a grant without a browser.
    pub(super) code: Option<Code>,
    /// The `deferred_auth_id`, `deferral_code` or `auth_req_id`.
    pub(super) identifier: Option<String>,
    /// The thumbprint of the key that signed the proof of the exchange.
    pub(super) key: Option<String>,
    /// The thumbprint of the certificate of the initial request, if it is bound to it (IETF draft).
    pub(super) certificate: Option<String>,
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
    pub(super) interaction: Interaction,
    /// The response with the identifier was given to the connection.
    pub(super) is_announced: bool,
}

/// The grant of the originating token request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Grant {
    /// A code of either draft.
    Code,
    ClientCredentials,
    TokenExchange,
    JwtBearer,
    /// A user whom the client named (CIBA).
    Backchannel,
}

impl Grant {
    /// Whether a user signs in.
    pub(super) fn signs_in(self) -> bool {
        matches!(self, Self::Code | Self::Backchannel)
    }
}

/// What the user has to do before the decision (IETF DTR §Token Endpoint — Polling).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Interaction {
    None,
    /// The user has not opened this URI yet.
    Required(String),
    /// The user has opened this URI, and nothing is decided.
    Opened(String),
}

/// The code that was issued to the browser.
#[derive(Clone, Copy)]
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
        if self.decision.is_some() || self.identifier.is_none() {
            return false;
        }
        let is_due = match self.policy.when {
            // The user decides, or nobody does before the user has done their part.
            _ if self.interaction != Interaction::None => false,
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

    /// Whether the `expires_in` of the identifier has passed, whatever was decided.
    pub(super) fn has_expired(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// When the policy or the deadline decides automatically.
    pub(super) fn next_decision(&self) -> Option<Duration> {
        let scheduled = match self.policy.when {
            When::Time(after) if self.interaction == Interaction::None => Some(self.exchanged_at + after),
            _ => None,
        };
        scheduled.into_iter().chain(self.deadline).min()
    }
}
