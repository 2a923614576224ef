//! The events of a poller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::secret::Secret;
use crate::store::ProcessId;

/// Something that happened, for logs, metrics and live pages. A slow receiver may miss events; outcomes come only from
/// [`Poller::outcomes`](crate::Poller::outcomes).
#[non_exhaustive]
#[derive(Debug, Clone)]
pub enum Event {
    /// A sign-in or token request was accepted: the OP deferred its answer, or it was tracked.
    Accepted {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
    /// The OP was polled and has not decided.
    Pending {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
        /// The time until the next poll, unless a ping brings it forward.
        due_in: Duration,
    },
    /// The OP sent a new progress text.
    Progress {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
        /// The text.
        text: ProgressText,
    },
    /// The OP needs something from the user, at a new URI (IETF DTR §Token Endpoint — Polling). Show it only to the
    /// user of this request, because it is as sensitive as a token. A receiver may miss this event, but
    /// [`Status::interaction_uri`](super::Status::interaction_uri) always has the current URI.
    InteractionRequired {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
        /// The URI, which works once.
        uri: Secret,
    },
    /// The user has opened the URI of the last [`InteractionRequired`](Self::InteractionRequired). It works once, so do
    /// not show it any more. The OP has not decided.
    InteractionBegun {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
    /// The OP answered `slow_down`.
    SlowDown {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
    /// A request failed with a transient error. It is repeated.
    TransientError {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
        /// What went wrong.
        error: Arc<Error>,
    },
    /// The OP answered with an unknown error code, which is treated as transient. Each code is reported at most
    /// once an hour. Alert an operator: ask the OP what it means.
    UnknownError {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
        /// The code.
        code: Arc<str>,
    },
    /// The OP has given no answer about a sign-in for 90 days, and has set no deadline. Polling continues.
    /// Alert an operator: ask the OP by other means, or [forget](crate::Poller::forget) the sign-in.
    Stale {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
        /// The duration of the OP's silence.
        silence: Duration,
    },
    /// A Ping Callback was received.
    Pinged {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
    /// The outcome is stored and will be delivered.
    Decided {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
    /// An outcome was acknowledged.
    Acknowledged {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
    /// The application has held a delivery for longer than
    /// [`longest_delivery`](crate::poller::PollerBuilder::longest_delivery). Its claim is no longer renewed, so the
    /// outcome is delivered again. Alert an operator: the consumer of outcomes hangs, or takes very long.
    DeliveryOverdue {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
        /// How long it has been held.
        held_for: Duration,
    },
    /// An outcome was erased, because it was not acknowledged within the time that
    /// [`keep_outcomes`](crate::poller::PollerBuilder::keep_outcomes) sets. Alert an operator: the consumer of
    /// outcomes does not work, and this user has to sign in again.
    OutcomeExpired {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
    /// A client's sign-ins are not polled until a probe succeeds or [`Poller::resume`](crate::Poller::resume) is
    /// called: the OP refuses the client, or several sign-ins in a row ended in a way that suggests a mistake of the
    /// client. Alert an operator.
    ClientRefused {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// The OP's last error code.
        code: Arc<str>,
        /// The time until one sign-in is polled as a probe.
        probe_in: Duration,
    },
    /// A client's sign-ins are polled again.
    ClientAccepted {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
    },
    /// An OP answered with `Retry-After`, so the whole client pauses, for five minutes at most. Then one poll is sent
    /// as a probe, and the client pauses again if that is refused too. The sign-in whose poll was refused waits for the
    /// whole time. [`Poller::resume`](crate::Poller::resume) ends the pause. Pauses of one client are reported at most
    /// once in five minutes.
    Paused {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// The time until one sign-in is polled as a probe.
        probe_in: Duration,
        /// The OP's `Retry-After`.
        retry_after: Duration,
    },
    /// A client polls again after a reported pause.
    Resumed {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
    },
    /// The store's clock jumped against this machine's monotonic clock. Due times are corrected before polling
    /// continues, so no poll is sent before the OP's interval is over. After a jump back, polls are late by its size, and by a quarter of an hour and two
    /// intervals at most. Alert an operator.
    ClockJumped {
        /// The size of the jump, in either direction.
        by: Duration,
    },
    /// A store operation failed, or was not answered within a minute. Everything that needs the store waits. While
    /// failures last, one a minute is reported.
    /// Alert an operator.
    StoreFailed {
        /// What went wrong.
        error: Arc<Error>,
    },
    /// The store contains sign-ins of clients that this poller does not have: they were removed, or never added. They
    /// are not polled. This is checked once a minute and reported again once an hour. Alert an operator, or
    /// [add](crate::Poller::add_client) the clients.
    UnknownClient {
        /// The number of clients.
        clients: usize,
        /// The number of their sign-ins.
        processes: u64,
    },
    /// Code that the poller runs panicked: a `Store`, `Signer` or `HttpClient` of the application, or this crate.
    /// Nothing is lost, and other sign-ins continue. The poll of this sign-in is repeated one interval after its
    /// lease expires, and shared tasks restart after a pause. Alert an operator: the panic message names the fault.
    Panicked {
        /// The sign-in whose poll or verification panicked; `None` for anything else.
        id: Option<ProcessId>,
    },
    /// The store contains rows sealed with a key that the keyring lacks. This replica neither polls nor delivers them.
    /// This is checked once a minute and reported again once an hour. Alert an operator: add the key to the keyring.
    MissingKey {
        /// The identifier of the key, as the `Debug` output of a [`SealingKey`](crate::SealingKey) shows it.
        key_id: Arc<str>,
        /// How many rows.
        rows: u64,
    },
    /// The store contains rows that only a newer release can read. Only replicas of that release process them. This is
    /// checked once a minute and reported again once an hour. Alert an operator, unless the newer release is being
    /// rolled out.
    NewerFormat {
        /// The format.
        format: u8,
        /// How many rows.
        rows: u64,
    },
    /// An OP has given no usable answer for a minute or longer, in three polls or more: it cannot be reached, is
    /// overloaded, or answers with transient errors. The sign-ins stay pending, and nothing is lost. This is reported
    /// again once an hour while polls are tried. Alert an operator.
    OpUnreachable {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// The time since the first of these failed polls.
        silence: Duration,
        /// The number of failed polls since then, in this replica.
        polls: u64,
        /// The error of the last of them, as text.
        cause: Arc<str>,
    },
    /// An OP gives usable answers again after [`OpUnreachable`](Self::OpUnreachable).
    OpRecovered {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// How long it had given no usable answer.
        silence: Duration,
    },
    /// This stream was too slow and missed events. Others may have received them.
    Missed {
        /// How many.
        events: u64,
    },
    /// A row cannot be opened or read, and is not processed. This is reported again once an hour, and for 16 rows an hour
    /// at most. Alert an operator.
    Unreadable {
        /// The identifier of the sign-in or token request.
        id: ProcessId,
    },
}

impl Event {
    /// The name of the event in the metric of alerts, if operators should be alerted.
    pub(super) fn alert(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnknownError { .. } => "unknown_error",
            Self::Stale { .. } => "stale",
            Self::DeliveryOverdue { .. } => "delivery_overdue",
            Self::OutcomeExpired { .. } => "outcome_expired",
            Self::ClientRefused { .. } => "client_refused",
            Self::ClockJumped { .. } => "clock_jumped",
            Self::StoreFailed { .. } => "store_failed",
            Self::UnknownClient { .. } => "unknown_client",
            Self::MissingKey { .. } => "missing_key",
            Self::NewerFormat { .. } => "newer_format",
            Self::OpUnreachable { .. } => "op_unreachable",
            Self::Unreadable { .. } => "unreadable",
            Self::Panicked { .. } => "panicked",
            Self::Accepted { .. }
            | Self::Pending { .. }
            | Self::Progress { .. }
            | Self::InteractionRequired { .. }
            | Self::InteractionBegun { .. }
            | Self::SlowDown { .. }
            | Self::TransientError { .. }
            | Self::Pinged { .. }
            | Self::Decided { .. }
            | Self::Acknowledged { .. }
            | Self::ClientAccepted { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::OpRecovered { .. }
            | Self::Missed { .. } => return None,
        })
    }
}

/// The OP's progress text: untrusted, cleaned and truncated. Escape it before you show it. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProgressText(pub(super) Arc<str>);

impl ProgressText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProgressText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProgressText(..)")
    }
}
