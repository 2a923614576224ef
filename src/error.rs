//! What an error is about.
//!
//! Every call that can fail returns an [`Error`]. [`Error::kind`](crate::Error::kind) returns an [`ErrorKind`]. These
//! kinds have a value of this module:
//!
//! | kind | value |
//! |---|---|
//! | [`Configuration`](crate::ErrorKind::Configuration) | [`ConfigurationProblem`] |
//! | [`Misuse`](crate::ErrorKind::Misuse) | [`Misuse`] |
//! | [`Session`](crate::ErrorKind::Session) | [`SessionProblem`] |
//! | [`ErrorResponse`](crate::ErrorKind::ErrorResponse) | [`ErrorResponse`], at the root of the crate |
//! | [`Protocol`](crate::ErrorKind::Protocol) | [`Violation`] of a [`Rule`] in a [`Document`], perhaps at a [`Position`] |
//! | [`Transport`](crate::ErrorKind::Transport) | [`TransportProblem`] |
//!
//! Most applications need only [`Error::is_transient`](crate::Error::is_transient) to decide whether to try again,
//! [`Error::problem`](crate::Error::problem) for the page that the user gets, and
//! [`Error::advice`](crate::Error::advice) for the log.

mod advice;
pub(crate) mod kind;
mod problem;
mod problem_details;
pub(crate) mod response;
mod rule;
mod verdict;

pub use problem::{ConfigurationProblem, Misuse, SessionProblem, TransportProblem};
pub use problem_details::{ProblemDetails, ProblemType};
pub use rule::{Document, Position, Rule, Violation};

pub(crate) use kind::{Error, ErrorKind};
pub(crate) use response::ErrorResponse;
pub(crate) use verdict::{REFUSALS_OF_CLIENTS, Verdict};
