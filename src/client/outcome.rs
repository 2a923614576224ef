//! How a sign-in ends.

use super::authentication::Authentication;
use super::issued_tokens::IssuedTokens;
use crate::error::{ErrorResponse, Violation};

/// How a sign-in or a token request ended. Polling has stopped. With a
/// [`Poller`](crate::Poller), a late success of the OP can replace [`Unknown`](Self::Unknown) and
/// [`Failed`](Self::Failed), and no other outcome.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "the outcome is the result of the sign-in"]
pub enum Outcome {
    /// The OP approved, and its answer was verified. Sign the user in, unless the approval
    /// [came after a cancellation](Authentication::is_after_cancellation) and the user's decision should count.
    Approved(Authentication),
    /// The OP approved a request without a user, such as [`Grant::client_credentials`](super::Grant::client_credentials),
    /// and issued tokens.
    Issued(IssuedTokens),
    /// The OP denied the request (`access_denied`).
    Denied(Denial),
    /// Time ran out before the OP decided. The user may start again.
    Expired(Expiration),
    /// The OP ended the sign-in with `invalid_grant` or `invalid_request`, after which the draft forbids further polls.
    /// This says nothing about the user. If it happens often, check the registration and the clock. A [`Delivery`] of it
    /// may be followed by one of a late success, which replaces it: [`Approved`](Self::Approved),
    /// [`Issued`](Self::Issued), or [`Invalid`](Self::Invalid) if it breaks a rule.
    ///
    /// [`Delivery`]: crate::Delivery
    Failed(ErrorResponse),
    /// The OP approved, but its answer broke a rule. Do not sign the user in. Its tokens were revoked as far as the OP
    /// allows.
    Invalid(Violation),
    /// The OP's answer, which it gives only once, may have been lost. This is neither an approval nor a denial: let the
    /// user start again, or ask the OP by other means. A [`Delivery`](crate::Delivery) of it may be followed by one of a
    /// late success, which replaces it: [`Approved`](Self::Approved), [`Issued`](Self::Issued), or
    /// [`Invalid`](Self::Invalid) if it breaks a rule.
    Unknown,
    /// The application had cancelled the sign-in, and the OP ended it. A denial shortly before the cancellation looks
    /// the same.
    Cancelled,
}

impl Outcome {
    /// The identity that the OP approved, unless the user has cancelled before: an approval that
    /// [came after a cancellation](Authentication::is_after_cancellation) is left out, and so is every other outcome. Sign
    /// this user in. The [`name`](Self::name) of an approval that is left out is `approved` all the same.
    pub fn approved(&self) -> Option<&Authentication> {
        match self {
            Self::Approved(authentication) if !authentication.is_after_cancellation() => Some(authentication),
            _ => None,
        }
    }

    /// A stable name for tables, logs and metrics, such as `approved`.
    ///
    /// It names what the OP decided. An approval that came after a cancellation is `approved` too, although
    /// [`approved`](Self::approved) returns `None` for it. Do not offer to sign a user in because of the name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approved(_) => "approved",
            Self::Issued(_) => "issued",
            Self::Denied(_) => "denied",
            Self::Expired(_) => "expired",
            Self::Failed(_) => "failed",
            Self::Invalid(_) => "invalid",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }

    /// Converts the outcome of a sign-in that the application had cancelled.
    pub(crate) fn after_cancellation(self) -> Self {
        match self {
            Self::Denied(_) => Self::Cancelled,
            // An OP that forgets cancelled sign-ins answers `invalid_grant`.
            Self::Failed(response) if response.code() == "invalid_grant" => Self::Cancelled,
            Self::Approved(mut authentication) => {
                authentication.came_after_cancellation();
                Self::Approved(authentication)
            }
            Self::Issued(mut tokens) => {
                tokens.came_after_cancellation();
                Self::Issued(tokens)
            }
            other => other,
        }
    }
}

/// Why the OP did not approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    response: ErrorResponse,
}

impl Denial {
    pub(super) fn new(response: ErrorResponse) -> Self {
        Self { response }
    }

    pub(super) fn response(&self) -> &ErrorResponse {
        &self.response
    }

    /// The OP's reason, if it gave one: untrusted, cleaned and truncated. Escape it before you show it.
    pub fn description(&self) -> Option<&str> {
        self.response.description()
    }
}

/// How the expiry was determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiration {
    pub(super) confirmed: bool,
}

impl Expiration {
    /// Whether the OP confirmed it (`expired_token`). Otherwise the client ended the sign-in, because the OP had not
    /// decided within its `expires_in` and a minute, or within two intervals and a minute after its last answer, or
    /// because [`give_up_after`](super::ClientBuilder::give_up_after) had passed without a usable answer.
    pub fn is_confirmed(self) -> bool {
        self.confirmed
    }
}
