//! How an authentication process ends.

use super::authentication::Authentication;
use crate::error::{ErrorResponse, Violation};

/// How an authentication process ended. There is exactly one, and nothing is asked about the process any more.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "this is what the user has been waiting for"]
pub enum Outcome {
    /// The OP approved, and everything about its answer was verified. Sign the user in.
    Approved(Authentication),
    /// The OP could not attest what was asked for (`access_denied`).
    Denied(Denial),
    /// Time ran out before the OP decided. The user may start again.
    Expired(Expiry),
    /// The OP ended the process with `invalid_grant` or `invalid_request`, after which the draft forbids asking again.
    /// It says nothing about the user. If it happens often, look at the registration and the clock.
    Failed(ErrorResponse),
    /// The OP approved, but its answer broke a rule, so nobody may be signed in by it. Its tokens were revoked as far
    /// as the OP lets them be.
    Invalid(Violation),
    /// The OP's answer may have been lost on its way, and it gives a success once only. Neither an approval nor a
    /// denial: let the user start again, or ask the OP by other means.
    Unknown,
    /// The application had cancelled the process, and the OP ended it. A denial that the OP had decided on just before
    /// looks the same.
    Cancelled,
}

impl Outcome {
    /// What it means in a process that the application had cancelled.
    pub(crate) fn after_cancellation(self) -> Self {
        match self {
            Self::Denied(_) => Self::Cancelled,
            // To an OP that forgets what was cancelled, the identifier is no longer a grant.
            Self::Failed(response) if response.code() == "invalid_grant" => Self::Cancelled,
            Self::Approved(mut authentication) => {
                authentication.came_after_cancellation();
                Self::Approved(authentication)
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

    /// The OP's reason, if it gave one: untrusted text, cleaned and cut. Escape it before you show it.
    pub fn description(&self) -> Option<&str> {
        self.response.description()
    }
}

/// How it is known that time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    confirmed: bool,
}

impl Expiry {
    pub(super) fn new(confirmed: bool) -> Self {
        Self { confirmed }
    }

    /// Whether the OP said so (`expired_token`). Otherwise its own `expires_in` and a minute more have passed, and its
    /// last answer was that it had not decided, or it could not be asked.
    pub fn is_confirmed(self) -> bool {
        self.confirmed
    }
}
