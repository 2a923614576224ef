//! The error of a call, and its kinds.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::problem::{ConfigurationProblem, Misuse, SessionProblem, TransportProblem};
use super::response::ErrorResponse;
use super::rule::{Rule, Violation};

/// What went wrong, in which step, and why.
///
/// Pending, denied, expired and cancelled sign-ins are values, not errors. The [kind](ErrorKind) of an `Error`
/// distinguishes the OP's error responses, broken rules, the network, the configuration, the message that the browser
/// carried, and misuse of the crate.
///
/// `Display` names the step and the kind. [`source`](StdError::source) has the layer below, so print the whole chain.
/// No response body, token, code, `state` or key is part of an error, in `Display` or in `Debug`.
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    step: Option<&'static str>,
    retry_after: Option<Duration>,
    /// Whether the same call can succeed later, if that does not follow from the kind.
    passes: Option<bool>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// The settings of the client are invalid, or do not work with this OP. Change them and start again.
    #[error("invalid configuration: {0}")]
    Configuration(ConfigurationProblem),
    /// An invalid call. Change the calling code. Only [`Misuse::ShutDown`] is normal, when the application stops.
    #[error("{0}")]
    Misuse(Misuse),
    /// The authorization session for the response cannot be used. Start a new sign-in.
    #[error("the authorization session cannot be used: {0}")]
    Session(SessionProblem),
    /// The OP answered with an OAuth error code.
    #[error("the OP answered with {0}")]
    ErrorResponse(ErrorResponse),
    /// A message broke a rule of the specifications and was refused.
    #[error("{0}")]
    Protocol(Violation),
    /// A request or its response failed in the network.
    #[error("{0}")]
    Transport(TransportProblem),
    /// A code or a refresh token was sent, but no readable response came, so it is unknown whether the OP processed it.
    /// The code may be spent and is never sent again: start a new sign-in. A refresh may be repeated; see
    /// [`Client::refresh`](crate::Client::refresh). After a [registration](crate::registration::Registrar::register)
    /// the OP may have a client whose secret is lost.
    #[error("the request was sent but no usable response came, so it is unknown whether the OP processed it")]
    OutcomeUnknown,
    /// A [`Signer`](crate::Signer), such as a key management service, failed.
    #[error("the signer failed")]
    Signer,
    /// An operation of the durable poller's store failed; the source states why. Nothing was sent without a record in
    /// the store.
    #[error("an operation of the store failed")]
    Store,
    /// The exchange timed out waiting for a free slot, because too many exchanges of this client are in flight in this
    /// replica. Nothing was sent: let the user reload. See [`Limits::exchanges`](crate::poller::Limits::exchanges).
    #[error("timed out waiting for a free exchange slot; nothing was sent")]
    Busy,
    /// A sealed value cannot be opened: it was altered, it was sealed for another purpose, or the keyring lacks its
    /// key.
    #[error("the sealed value cannot be opened: it was altered, is not of this kind, or its key is not in the keyring")]
    Sealed,
    /// The source of randomness failed.
    #[error("the source of randomness failed")]
    Randomness,
    /// The cryptographic library failed with one of the crate's own keys.
    #[error("the cryptographic library failed")]
    Cryptography,
}

impl Error {
    pub(crate) fn new(kind: impl Into<ErrorKind>) -> Self {
        Self(Box::new(Inner { kind: kind.into(), step: None, retry_after: None, passes: None, source: None }))
    }

    /// For a [`Signer`](crate::Signer) of your own that failed for this reason. The error is transient, so the
    /// operation is retried.
    pub fn signer(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Signer).with_source(source)
    }

    /// For a [`Random`](crate::Random) of your own that failed for this reason. The error is transient.
    pub fn randomness(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Randomness).with_source(source)
    }

    /// Names the step in which it happened, as a gerund: "exchanging the deferred code". The innermost name stays.
    pub(crate) fn in_step(mut self, step: &'static str) -> Self {
        self.0.step.get_or_insert(step);
        self
    }

    /// Marks the error as transient although its kind is not, such as one broken answer to a poll of a sign-in that
    /// stays pending.
    pub(crate) fn transient(mut self) -> Self {
        self.0.passes = Some(true);
        self
    }

    /// Marks the error as permanent although its kind is transient.
    pub(crate) fn permanent(mut self) -> Self {
        self.0.passes = Some(false);
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// The same error for another caller that waited for the same operation.
    pub(crate) fn to_shared(&self) -> Self {
        Self(self.0.clone())
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    /// The kind of error.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What the crate was doing, such as "exchanging the deferred code".
    pub fn step(&self) -> Option<&'static str> {
        self.0.step
    }

    /// Whether the same call can succeed later without a change: after network errors, or with an overloaded OP, keys
    /// that cannot be fetched, or a signer that does not answer. After [`Misuse::ShutDown`] it can succeed in another
    /// replica, or in the restarted application.
    ///
    /// It is never true for an exchange whose code may have reached the OP, because a code must not be sent twice.
    pub fn is_transient(&self) -> bool {
        let kind_passes = match &self.0.kind {
            // Refused by our own rules, which do not change.
            ErrorKind::Transport(TransportProblem::Refused) => false,
            ErrorKind::Transport(_)
            | ErrorKind::Signer
            | ErrorKind::Randomness
            | ErrorKind::Store
            | ErrorKind::Busy
            | ErrorKind::Misuse(Misuse::ShutDown) => true,
            ErrorKind::ErrorResponse(response) => response.is_transient(),
            ErrorKind::Protocol(violation) => violation.is_transient(),
            _ => false,
        };
        self.0.passes.unwrap_or(kind_passes)
    }

    /// How long the OP asked to wait before the next request (`Retry-After`, RFC 9110 §10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The OP's error response, if the error is one.
    pub fn error_response(&self) -> Option<&ErrorResponse> {
        match &self.0.kind {
            ErrorKind::ErrorResponse(response) => Some(response),
            _ => None,
        }
    }

    /// The rule that a message broke, if the error is about one.
    pub fn rule(&self) -> Option<Rule> {
        match &self.0.kind {
            ErrorKind::Protocol(violation) => Some(violation.rule()),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.step {
            Some(step) => write!(formatter, "{step}: {}", self.0.kind),
            None => self.0.kind.fmt(formatter),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Error");
        shown.field("kind", &self.0.kind);
        if let Some(step) = self.0.step {
            shown.field("step", &step);
        }
        if let Some(retry_after) = self.0.retry_after {
            shown.field("retry_after", &retry_after);
        }
        if let Some(source) = &self.0.source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

macro_rules! kinds_from {
    ($($from:ty => $kind:ident),* $(,)?) => {$(
        impl From<$from> for ErrorKind {
            fn from(value: $from) -> Self {
                Self::$kind(value)
            }
        }

        impl From<$from> for Error {
            fn from(value: $from) -> Self {
                Self::new(value)
            }
        }
    )*};
}

kinds_from! {
    ConfigurationProblem => Configuration,
    Misuse => Misuse,
    SessionProblem => Session,
    ErrorResponse => ErrorResponse,
    Violation => Protocol,
    TransportProblem => Transport,
}

impl From<Rule> for Error {
    fn from(rule: Rule) -> Self {
        Self::new(Violation::new(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_the_step_and_its_own_layer_only() {
        let error = Error::new(TransportProblem::Timeout)
            .in_step("polling")
            .with_source(std::io::Error::other("the layer below"));
        assert_eq!(error.to_string(), "polling: the request timed out");
        assert_eq!(error.source().unwrap().to_string(), "the layer below");
    }

    #[test]
    fn the_innermost_step_is_kept() {
        let error = Error::from(Misuse::NothingToPoll).in_step("polling").in_step("waiting");
        assert_eq!(error.step(), Some("polling"));
    }

    #[test]
    fn network_errors_are_transient_and_violations_are_not() {
        assert!(Error::from(TransportProblem::Connect).is_transient());
        assert!(Error::from(Rule::KeysUnavailable).is_transient());
        assert!(!Error::from(Rule::IssuerMismatch).is_transient());
    }
}
