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
    /// The body of an answer that is not a success but contains tokens, which are revoked.
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
    Unusable {
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
    /// What an answer without tokens means for the sign-in. `None` for a success.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Success(_) => None,
            Self::Error { response, .. } => Some(response.verdict()),
            Self::Unusable { unanswered: true, .. } => Some(Verdict::MayBeLost),
            Self::Unusable { unanswered: false, .. } => Some(Verdict::NotProcessed),
        }
    }

    /// The OAuth error response, if it is one.
    pub(crate) fn error_response(&self) -> Option<&ErrorResponse> {
        match self {
            Self::Error { response, .. } => Some(response),
            Self::Success(_) | Self::Unusable { .. } => None,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Success(_) => None,
            Self::Error { retry_after, .. } | Self::Unusable { retry_after, .. } => *retry_after,
        }
    }
}

impl End {
    /// The end that an answer with this verdict is, if it ends the sign-in (DTR §Token Request Error Response, with
    /// RFC 6749 §5.2, RFC 8628 §3.5 and RFC 9449 §5).
    pub(crate) fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Denied => Some(Self::Denied),
            // "The Client MUST stop polling with this `deferred_auth_id`."
            Verdict::Expired => Some(Self::Expired { confirmed: true }),
            // "If a Client receives an `invalid_request` error, it MUST not make any further requests for the same
            // `deferred_auth_id`."
            Verdict::GrantRefused => Some(Self::Failed),
            Verdict::Pending | Verdict::SlowDown => None,
            // Our registration, credentials or clock are wrong, which is not the user's fault.
            Verdict::ClientRefused | Verdict::ScopeRefused => None,
            // `temporarily_unavailable`, `server_error`, unknown codes, and failures on the way.
            Verdict::OtherwiseRefused | Verdict::NotProcessed | Verdict::MayBeLost => None,
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

    fn verdict(code: &str, status: u16) -> Verdict {
        ErrorResponse::new(code, None, Some(status)).verdict()
    }

    fn end(code: &str, status: u16) -> Option<End> {
        End::of(verdict(code, status))
    }

    #[test]
    fn terminal_codes_end_the_sign_in() {
        assert_eq!(end("access_denied", 400), Some(End::Denied));
        assert_eq!(end("access_denied", 403), Some(End::Denied));
        assert_eq!(end("expired_token", 400), Some(End::Expired { confirmed: true }));
        assert_eq!(end("invalid_grant", 400), Some(End::Failed));
        assert_eq!(end("invalid_request", 400), Some(End::Failed));
    }

    #[test]
    fn a_terminal_code_counts_with_every_status_that_gateways_do_not_generate() {
        for status in [200, 401, 403, 404, 428, 429, 500] {
            assert_eq!(end("access_denied", status), Some(End::Denied), "{status}");
            assert_eq!(end("invalid_grant", status), Some(End::Failed), "{status}");
        }
        for status in [408, 502, 503, 504] {
            assert_eq!(end("access_denied", status), None, "{status}");
            assert_eq!(verdict("access_denied", status), Verdict::MayBeLost, "{status}");
        }
    }

    #[test]
    fn an_error_of_a_gateway_may_hide_the_answer() {
        for (status, may_be_lost) in [(404, false), (405, false), (429, false), (408, true), (500, true), (504, true)] {
            assert_eq!(end("gateway_trouble", status), None, "{status}");
            assert_eq!(verdict("gateway_trouble", status) == Verdict::MayBeLost, may_be_lost, "{status}");
        }
    }

    #[test]
    fn pending_and_slow_down_count_with_every_status() {
        for status in [200, 400, 403, 404, 428, 429, 500, 503] {
            assert_eq!(verdict("authorization_pending", status), Verdict::Pending, "{status}");
            assert_eq!(verdict("slow_down", status), Verdict::SlowDown, "{status}");
        }
    }

    #[test]
    fn a_refusal_of_the_client_does_not_end_the_sign_in() {
        for code in
            ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_dpop_proof"]
        {
            for status in [400, 401] {
                assert_eq!(end(code, status), None, "{code} {status}");
                assert!(matches!(verdict(code, status), Verdict::ClientRefused | Verdict::ScopeRefused), "{code}");
            }
        }
    }

    #[test]
    fn an_unknown_code_does_not_end_the_sign_in() {
        assert_eq!(end("interaction_required_by_committee", 400), None);
        assert_eq!(verdict("interaction_required_by_committee", 400), Verdict::OtherwiseRefused);
        assert!(!is_known_code("interaction_required_by_committee"));
    }

    #[test]
    fn a_poll_without_an_answer_has_the_verdict_of_an_equivalent_response() {
        let verdict = |unanswered| Answer::Unusable { unanswered, retry_after: None }.verdict();
        assert_eq!((verdict(true), verdict(false)), (Some(Verdict::MayBeLost), Some(Verdict::NotProcessed)));
    }
}
