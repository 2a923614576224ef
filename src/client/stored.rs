//! An outcome in the form that is sealed until it is acknowledged.

use serde::{Deserialize, Serialize};

use super::authentication::{self, Authentication};
use super::issued_tokens::{self, IssuedTokens};
use super::outcome::{Denial, Expiration, Outcome};
use crate::error::{Document, ErrorResponse, Rule, Violation};

/// An [`Outcome`] in storage. It counts as verified, so it may only be stored sealed.
#[derive(Serialize, Deserialize)]
pub(crate) enum StoredOutcome {
    #[serde(rename = "a")]
    Approved(Box<authentication::Body>),
    #[serde(rename = "t")]
    Issued(Box<issued_tokens::Body>),
    #[serde(rename = "d")]
    Denied(StoredResponse),
    #[serde(rename = "e")]
    Expired { confirmed: bool },
    #[serde(rename = "f")]
    Failed(StoredResponse),
    #[serde(rename = "i")]
    Invalid { rule: String, in_id_token: bool },
    #[serde(rename = "u")]
    Unknown,
    #[serde(rename = "c")]
    Cancelled,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredResponse {
    #[serde(rename = "c")]
    code: String,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl StoredOutcome {
    /// Whether it needs the newer format of rows, because releases that write the older one cannot read it.
    pub(crate) fn needs_newer_format(&self) -> bool {
        matches!(self, Self::Issued(_))
    }
}

impl From<Outcome> for StoredOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Approved(authentication) => Self::Approved(authentication.into_body()),
            Outcome::Issued(tokens) => Self::Issued(tokens.into_body()),
            Outcome::Denied(denial) => Self::Denied(denial.response().into()),
            Outcome::Expired(expiry) => Self::Expired { confirmed: expiry.is_confirmed() },
            Outcome::Failed(response) => Self::Failed((&response).into()),
            Outcome::Invalid(violation) => Self::Invalid {
                rule: violation.rule().code().to_owned(),
                in_id_token: violation.document() == Some(Document::IdToken),
            },
            Outcome::Unknown => Self::Unknown,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

impl From<StoredOutcome> for Outcome {
    fn from(stored: StoredOutcome) -> Self {
        match stored {
            StoredOutcome::Approved(body) => Self::Approved(Authentication::from_body(body)),
            StoredOutcome::Issued(body) => Self::Issued(IssuedTokens::from_body(body)),
            StoredOutcome::Denied(response) => Self::Denied(Denial::new(response.into())),
            StoredOutcome::Expired { confirmed } => Self::Expired(Expiration { confirmed }),
            StoredOutcome::Failed(response) => Self::Failed(response.into()),
            StoredOutcome::Invalid { rule, in_id_token } => {
                // A newer release may know more rules. What matters is that a rule was broken.
                let rule = Rule::ALL.iter().copied().find(|known| known.code() == rule);
                let violation = Violation::new(rule.unwrap_or(Rule::IdTokenMalformed));
                let document = if in_id_token { Document::IdToken } else { Document::TokenResponse };
                Self::Invalid(violation.in_document(document))
            }
            StoredOutcome::Unknown => Self::Unknown,
            StoredOutcome::Cancelled => Self::Cancelled,
        }
    }
}

impl From<&ErrorResponse> for StoredResponse {
    fn from(response: &ErrorResponse) -> Self {
        Self {
            code: response.code().to_owned(),
            description: response.description().map(str::to_owned),
            status: response.status(),
        }
    }
}

impl From<StoredResponse> for ErrorResponse {
    fn from(stored: StoredResponse) -> Self {
        Self::new(&stored.code, stored.description.as_deref(), stored.status)
    }
}
