//! Why a sign-in waits, for operators: the last failure, in the schedule that a store keeps as readable text.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Answer;
use crate::error::{Error, ErrorKind, ErrorResponse, REFUSALS_OF_CLIENTS, TransportProblem, Verdict};
use crate::sealed;

/// The last poll or verification without a usable answer. It contains no secret and no text of the OP except its error
/// code, whose length and characters are limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    #[serde(rename = "k")]
    pub(crate) kind: TroubleKind,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    #[serde(rename = "t", with = "sealed::seconds")]
    pub(crate) at: SystemTime,
}

/// The kinds of failure. It serializes as its name in snake case.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// The OP answered with an OAuth error code that does not end the sign-in.
    ErrorResponse,
    /// An answer broke a rule of the specifications. The code is that of the [`Rule`](crate::error::Rule).
    Rule,
    /// The request or its response failed in the network. The code says how: `connect`, `timeout`, `broken`,
    /// `body_too_large`, `private_address` or `refused`.
    Network,
    /// It failed on our side: `configuration`, `signer`, `cryptography`, or `other`.
    Local,
    /// A newer release recorded a kind that this one does not know.
    #[serde(other)]
    Unknown,
}

impl Trouble {
    /// The failure that an answer to a poll is, with the error for the caller. `None` for a usable answer.
    pub(crate) fn of(answer: &Answer, error: Option<&Error>, at: SystemTime) -> Option<Self> {
        match (answer, error) {
            (Answer::Error { response, .. }, Some(_)) => Some(Self::stated(response, at)),
            (_, Some(error)) => Some(Self::of_error(error, at)),
            // The lease ended before the answer came.
            (Answer::Unusable { .. }, None) => Some(Self::new(TroubleKind::Network, "timeout", at)),
            (_, None) => None,
        }
    }

    pub(crate) fn of_error(error: &Error, at: SystemTime) -> Self {
        let local = |code| Self::new(TroubleKind::Local, code, at);
        match error.kind() {
            ErrorKind::ErrorResponse(response) => Self::stated(response, at),
            ErrorKind::Protocol(violation) => {
                let trouble = Self::new(TroubleKind::Rule, violation.rule().code(), at);
                Self { status: violation.status(), ..trouble }
            }
            ErrorKind::Transport(problem) => Self::new(TroubleKind::Network, network_code(problem), at),
            ErrorKind::Configuration(_) | ErrorKind::Misuse(_) => local("configuration"),
            ErrorKind::Signer => local("signer"),
            ErrorKind::Cryptography | ErrorKind::Randomness => local("cryptography"),
            _ => local("other"),
        }
    }

    fn stated(response: &ErrorResponse, at: SystemTime) -> Self {
        let trouble = Self::new(TroubleKind::ErrorResponse, response.code(), at);
        Self { status: response.status(), ..trouble }
    }

    fn new(kind: TroubleKind, code: &str, at: SystemTime) -> Self {
        Self { kind, status: None, code: Some(code.to_owned()), at }
    }

    /// Whether the OP refused the client, and not only this sign-in.
    pub(crate) fn is_refusal_of_client(&self) -> bool {
        let Some(code) = self.code.as_deref().filter(|_| self.kind == TroubleKind::ErrorResponse) else { return false };
        let verdict = Verdict::of(self.status.unwrap_or(400), Some(code));
        matches!(verdict, Verdict::ClientRefused | Verdict::ScopeRefused) && REFUSALS_OF_CLIENTS.contains(&code)
    }

    /// Records the failure in a stored schedule. The text of a row without a schedule is empty.
    pub(crate) fn recorded_in(&self, schedule: &str) -> String {
        let text = if schedule.is_empty() { "{}" } else { schedule };
        let recorded = || {
            let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
            members.insert("lt".to_owned(), serde_json::to_value(self).ok()?);
            serde_json::to_string(&members).ok()
        };
        recorded().unwrap_or_else(|| schedule.to_owned())
    }
}

fn network_code(problem: &TransportProblem) -> &'static str {
    match problem {
        TransportProblem::Connect => "connect",
        TransportProblem::Timeout => "timeout",
        TransportProblem::Broken => "broken",
        TransportProblem::BodyTooLarge(_) => "body_too_large",
        TransportProblem::PrivateAddress => "private_address",
        TransportProblem::Refused => "refused",
    }
}

/// What the stored schedule of a row says to an operator, in any state of the row.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Known {
    /// When the OP last answered that it has not decided.
    #[serde(rename = "hrd", with = "sealed::optional_seconds")]
    pub(crate) heard_at: Option<SystemTime>,
    /// When the sign-in became pending.
    #[serde(rename = "recv", with = "sealed::optional_seconds")]
    pub(crate) pending_since: Option<SystemTime>,
    /// Polls in a row without a usable answer.
    #[serde(rename = "trb")]
    pub(crate) troubles: u32,
    #[serde(rename = "lt")]
    pub(crate) trouble: Option<Trouble>,
    /// The number of `slow_down` answers.
    #[serde(rename = "slow")]
    pub(crate) slow_downs: u32,
    /// Whether the answer to an earlier request was lost.
    #[serde(rename = "lost")]
    pub(crate) answer_lost: bool,
}

impl Known {
    /// Reads the text of a row. What cannot be read is unknown.
    pub(crate) fn read(schedule: &str) -> Self {
        serde_json::from_str(schedule).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::{Rule, Violation};

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn the_latest_error_is_recorded_with_and_without_a_schedule() {
        let unusable = Error::from(Violation::new(Rule::UnexpectedStatus).with_status(502));
        let later = AT + Duration::from_secs(7);
        let first = Trouble::of_error(&Error::from(TransportProblem::Connect), AT).recorded_in("");
        let first: serde_json::Value = serde_json::from_str(&first).unwrap();
        assert_eq!(first, serde_json::json!({"lt": {"k": "network", "c": "connect", "t": 0}}));
        let second = Trouble::of_error(&unusable, later).recorded_in(r#"{"trb":2,"hrd":5,"lt":{"k":"local","t":1}}"#);
        let known = Known::read(&second);
        assert_eq!((known.troubles, known.heard_at), (2, Some(AT + Duration::from_secs(5))));
        let trouble = known.trouble.unwrap();
        assert_eq!((trouble.kind, trouble.status, trouble.at), (TroubleKind::Rule, Some(502), later));
        assert_eq!(trouble.code.as_deref(), Some(Rule::UnexpectedStatus.code()));
    }

    #[test]
    fn unknown_members_of_a_stored_schedule_are_ignored() {
        let known = Known::read(r#"{"lt":{"k":"of_a_newer_release","t":1},"new":[]}"#);
        assert_eq!(known.trouble.unwrap().kind, TroubleKind::Unknown);
        assert_eq!(Known::read("opaque").troubles, 0);
        assert_eq!(Trouble::of_error(&Error::new(ErrorKind::Signer), AT).recorded_in("opaque"), "opaque");
    }

    #[test]
    fn a_pending_answer_is_not_recorded_as_an_error() {
        let response = ErrorResponse::new("authorization_pending", None, Some(400));
        let answer = |response| Answer::Error {
            response,
            retry_after: None,
            interaction: crate::dialect::Interaction::Unmentioned,
        };
        assert_eq!(Trouble::of(&answer(response), None, AT), None);
        let refused = ErrorResponse::new("invalid_client", None, Some(401));
        let trouble = Trouble::of(&answer(refused.clone()), Some(&Error::new(refused)), AT).unwrap();
        assert_eq!((trouble.kind, trouble.status), (TroubleKind::ErrorResponse, Some(401)));
        assert!(trouble.is_refusal_of_client());
        let of_gateway = Trouble { status: Some(502), ..trouble };
        assert!(!of_gateway.is_refusal_of_client());
        let nonce = ErrorResponse::new("use_dpop_nonce", None, Some(401));
        assert!(!Trouble::of_error(&Error::new(nonce), AT).is_refusal_of_client());
        let cut_off = Answer::Unusable { unanswered: true, retry_after: None };
        assert_eq!(Trouble::of(&cut_off, None, AT).unwrap().code.as_deref(), Some("timeout"));
    }
}
