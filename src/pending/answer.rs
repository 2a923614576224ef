//! The meaning of an answer to a poll, for everything that an OP or a network can return.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::dialect::Interaction;
use crate::error::{Error, ErrorResponse, Verdict};

/// The result of one poll, with its time.
#[derive(Debug)]
pub(crate) struct Polled {
    pub(crate) answer: Answer,
    /// The error for the caller, if the answer is not just "pending".
    pub(crate) error: Option<Error>,
    pub(crate) at: Moment,
    /// The body of an answer that ends the sign-in but contains tokens, which are revoked.
    pub(crate) unwanted: Option<SuccessBody>,
}

/// The answer to one poll.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The Successful Token Response, as received.
    Success(SuccessBody),
    /// An OAuth error response.
    Error {
        response: ErrorResponse,
        retry_after: Option<Duration>,
        /// What it says about the interaction of the user, with a URI that has been checked.
        interaction: Interaction,
    },
    /// Not an OAuth answer: a network error, a proxy's page, a broken document.
    Trouble {
        /// Whether the OP may have processed the request, so that its answer is lost.
        unanswered: bool,
        retry_after: Option<Duration>,
    },
}

/// A response body that contains tokens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SuccessBody(pub(crate) Zeroizing<Vec<u8>>);

impl std::fmt::Debug for SuccessBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The meaning of an [`Answer`] for the sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Success,
    Pending,
    SlowDown,
    /// The sign-in has ended.
    End(End),
    /// A transient error of the OP or the network; the sign-in continues.
    Trouble {
        unanswered: bool,
    },
    /// The client's registration, credentials or clock are wrong; the sign-in continues.
    OurMistake,
}

/// How a sign-in ends without tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// `access_denied`.
    Denied,
    /// `expired_token` (confirmed), or the local deadline.
    Expired { confirmed: bool },
    /// `invalid_grant` or `invalid_request`, after which the draft forbids further polls.
    Failed,
    /// The answer with the outcome may have been lost.
    Unknown,
}

/// The state of the sign-in after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Open,
    Succeeded,
    Ended(End),
}

impl Answer {
    pub(crate) fn reading(&self) -> Reading {
        match self {
            Self::Success(_) => Reading::Success,
            Self::Trouble { unanswered, .. } => Reading::Trouble { unanswered: *unanswered },
            Self::Error { response, .. } => reading_of(response),
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Success(_) => None,
            Self::Error { retry_after, .. } | Self::Trouble { retry_after, .. } => *retry_after,
        }
    }
}

/// DTR §Token Request Error Response, with RFC 6749 §5.2, RFC 8628 §3.5 and RFC 9449 §5.
fn reading_of(response: &ErrorResponse) -> Reading {
    match response.verdict() {
        Verdict::Pending => Reading::Pending,
        Verdict::SlowDown => Reading::SlowDown,
        Verdict::Denied => Reading::End(End::Denied),
        // "The Client MUST stop polling with this `deferred_auth_id`."
        Verdict::Expired => Reading::End(End::Expired { confirmed: true }),
        // "If a Client receives an `invalid_request` error, it MUST not make any further requests for the same
        // `deferred_auth_id`."
        Verdict::GrantRefused => Reading::End(End::Failed),
        Verdict::ClientRefused | Verdict::ScopeRefused => Reading::OurMistake,
        // `temporarily_unavailable`, `server_error`, and unknown codes.
        verdict @ (Verdict::OtherwiseRefused | Verdict::TurnedAway | Verdict::MayBeLost) => {
            Reading::Trouble { unanswered: verdict == Verdict::MayBeLost }
        }
    }
}

/// Whether the specifications of this flow define the code of an answer; other codes cause an alert.
pub(crate) fn is_known_error(response: &ErrorResponse) -> bool {
    response.verdict() == Verdict::Pending || is_known_code(response.code())
}

fn is_known_code(code: &str) -> bool {
    matches!(
        code,
        "authorization_pending"
            | "slow_down"
            | "access_denied"
            | "expired_token"
            | "invalid_grant"
            | "invalid_request"
            | "invalid_client"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_dpop_proof"
            | "use_dpop_nonce"
            | "temporarily_unavailable"
            | "server_error"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(code: &str, status: u16) -> Reading {
        reading_of(&ErrorResponse::new(code, None, Some(status)))
    }

    #[test]
    fn terminal_codes_end_the_process() {
        assert_eq!(reading("access_denied", 400), Reading::End(End::Denied));
        assert_eq!(reading("access_denied", 403), Reading::End(End::Denied));
        assert_eq!(reading("expired_token", 400), Reading::End(End::Expired { confirmed: true }));
        assert_eq!(reading("invalid_grant", 400), Reading::End(End::Failed));
        assert_eq!(reading("invalid_request", 400), Reading::End(End::Failed));
    }

    #[test]
    fn a_terminal_code_counts_with_every_status_that_gateways_do_not_make() {
        for status in [200, 401, 403, 404, 428, 429, 500] {
            assert_eq!(reading("access_denied", status), Reading::End(End::Denied), "{status}");
            assert_eq!(reading("invalid_grant", status), Reading::End(End::Failed), "{status}");
        }
        for status in [408, 502, 503, 504] {
            assert_eq!(reading("access_denied", status), Reading::Trouble { unanswered: true }, "{status}");
        }
    }

    #[test]
    fn behind_a_gateway_in_trouble_the_answer_may_have_been_lost() {
        for (status, unanswered) in [(404, false), (405, false), (429, false), (408, true), (500, true), (504, true)] {
            assert_eq!(reading("gateway_trouble", status), Reading::Trouble { unanswered }, "{status}");
        }
    }

    #[test]
    fn pending_and_slow_down_count_with_every_status() {
        for status in [200, 400, 403, 404, 428, 429, 500, 503] {
            assert_eq!(reading("authorization_pending", status), Reading::Pending, "{status}");
            assert_eq!(reading("slow_down", status), Reading::SlowDown, "{status}");
        }
    }

    #[test]
    fn our_own_mistakes_end_nobodys_process() {
        for code in
            ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_dpop_proof"]
        {
            assert_eq!(reading(code, 400), Reading::OurMistake, "{code}");
            assert_eq!(reading(code, 401), Reading::OurMistake, "{code}");
        }
    }

    #[test]
    fn codes_that_nobody_knows_are_trouble() {
        assert_eq!(reading("interaction_required_by_committee", 400), Reading::Trouble { unanswered: false });
        assert!(!is_known_code("interaction_required_by_committee"));
    }
}
