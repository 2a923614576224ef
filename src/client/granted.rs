//! What a valid token response grants: the identity of a user with tokens, or tokens alone.

use zeroize::Zeroizing;

use super::Client;
use super::authentication::Authentication;
use super::issued_tokens::IssuedTokens;
use super::outcome::Outcome;
use super::token_response::ReceivedTokens;
use crate::error::{Document, Error, Misuse, Rule, Violation};
use crate::pending::Checks;

/// A validated token response.
pub(crate) enum Granted {
    SignedIn(Authentication),
    Issued(IssuedTokens),
}

impl Granted {
    /// The identity, for a request that asked for one.
    pub(crate) fn into_authentication(self) -> Result<Authentication, Error> {
        match self {
            Self::SignedIn(authentication) => Ok(authentication),
            Self::Issued(_) => Err(Violation::new(Rule::NoIdToken).in_document(Document::TokenResponse).into()),
        }
    }

    /// The tokens, for a request that asked for nothing else.
    pub(crate) fn into_tokens(self) -> Result<IssuedTokens, Error> {
        match self {
            Self::Issued(tokens) => Ok(tokens),
            Self::SignedIn(_) => Err(Misuse::WrongClient.into()),
        }
    }

    pub(super) fn with_context(self, context: Zeroizing<Vec<u8>>) -> Self {
        match self {
            Self::SignedIn(authentication) => Self::SignedIn(authentication.with_context(context)),
            Self::Issued(tokens) => Self::Issued(tokens.with_context(context)),
        }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::SignedIn(authentication) => Outcome::Approved(authentication),
            Self::Issued(tokens) => Outcome::Issued(tokens),
        }
    }
}

impl Client {
    /// Validates a token response: against these requirements, or without an ID Token. The outer error is transient,
    /// such as unavailable keys. The inner one is a response that will never be valid.
    pub(super) async fn granted(
        &self,
        checks: Option<&Checks>,
        received: ReceivedTokens<'_>,
    ) -> Result<Result<Granted, Violation>, Error> {
        match checks {
            Some(checks) => Ok(self.authenticate(checks, received).await?.map(Granted::SignedIn)),
            None => {
                let ReceivedTokens { body, received_at, dpop_key, .. } = received;
                Ok(self.issued(body, received_at, dpop_key).map(Granted::Issued))
            }
        }
    }
}
