//! What a poller tells those who watch it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::store::ProcessId;

/// Something that happened, for logs, metrics and live pages. It may be missed; outcomes come by
/// [`Poller::outcomes`](crate::Poller::outcomes) alone.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub enum Event {
    /// A process was accepted: its code was exchanged, or it was tracked.
    Accepted {
        /// The process.
        id: ProcessId,
    },
    /// The OP was asked and has not decided.
    Polled {
        /// The process.
        id: ProcessId,
        /// When it is asked next, pings aside.
        next_in: Duration,
    },
    /// The OP says something new about how far it is.
    Progress {
        /// The process.
        id: ProcessId,
        /// What it says.
        text: ProgressText,
    },
    /// The OP wants to be asked less often.
    SlowedDown {
        /// The process.
        id: ProcessId,
    },
    /// A request met trouble that passes. It is repeated.
    Trouble {
        /// The process.
        id: ProcessId,
        /// What went wrong.
        error: Arc<Error>,
    },
    /// The OP answered with an error code that no specification of this flow knows. It is taken for trouble that passes.
    /// Alert somebody: the OP means something by it.
    UnknownError {
        /// The process.
        id: ProcessId,
        /// The code.
        code: Arc<str>,
    },
    /// The OP has given no answer about a process for 90 days, and set no time at which it ends. It is still asked
    /// about. Alert somebody: ask the OP by other means, or [forget](crate::Poller::forget) the process.
    Stale {
        /// The process.
        id: ProcessId,
        /// For how long the OP has been silent.
        silence: Duration,
    },
    /// A Ping Callback was taken.
    Pinged {
        /// The process.
        id: ProcessId,
    },
    /// The outcome is in the store, on its way to whoever takes outcomes.
    Decided {
        /// The process.
        id: ProcessId,
    },
    /// An outcome was acknowledged.
    Acknowledged {
        /// The process.
        id: ProcessId,
    },
    /// The application has had a delivery in hand for longer than
    /// [`longest_delivery`](crate::poller::PollerBuilder::longest_delivery). It is not held any more, and is delivered again.
    /// Alert somebody: the consumer of outcomes hangs, or takes very long.
    DeliveryOverdue {
        /// The process.
        id: ProcessId,
        /// For how long it has been in hand.
        held_for: Duration,
    },
    /// A client is not asked about until a probe succeeds or [`Poller::resume`](crate::Poller::resume): the OP refuses
    /// it, or ended several processes in a row in a way that points to a mistake of ours. Alert somebody.
    GateClosed {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// The OP's last error code.
        code: Arc<str>,
        /// When one process is asked about as a probe.
        probe_in: Duration,
    },
    /// A client is asked about again.
    GateOpened {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
    },
    /// An OP has asked with `Retry-After` to be left alone, so the whole client pauses, for five minutes at most. Then one
    /// poll goes out as a probe, and the client pauses again where that is turned away too. The pending sign-in whose
    /// poll was turned away waits for as long as the OP has said. [`Poller::resume`](crate::Poller::resume) ends the pause.
    Paused {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// When one pending sign-in is asked about as a probe.
        probe_in: Duration,
        /// How long the OP asked to be left alone.
        retry_after: Duration,
    },
    /// A client that had paused polls again.
    Resumed {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
    },
    /// The store's clock has jumped against this machine's monotonic one. What it said was due is put off by an
    /// interval. Alert somebody.
    ClockJumped {
        /// By how much, in whichever direction.
        by: Duration,
    },
    /// The store did not do its part. What needs it waits until it does. Alert somebody.
    StoreTrouble {
        /// What went wrong.
        error: Arc<Error>,
    },
    /// The store holds processes of clients that this poller does not have: they were removed, or never added. Their rows
    /// are left alone. It is looked for once a minute and repeated once an hour. Alert somebody, or
    /// [add](crate::Poller::add_client) the clients.
    UnknownClient {
        /// How many clients.
        clients: usize,
        /// How many processes they have together.
        processes: u64,
    },
    /// Code panicked while it worked for the poller: a `Store`, `Signer` or `HttpClient` of the application, or this
    /// crate. Nothing is lost and the others go on: the poll of this process is repeated when its lease has run out, and
    /// what the poller does for all of them begins again after a pause. Alert somebody: the panic message says where the
    /// mistake is.
    Panicked {
        /// The process whose poll or verification panicked; `None` where it was something else.
        id: Option<ProcessId>,
    },
    /// The store holds rows that are sealed with a key which the keyring lacks. No claim of this replica takes them, so
    /// nothing is asked about them and no outcome of theirs is delivered here. It is looked for once a minute and repeated
    /// once an hour. Alert somebody: give the keyring the key.
    MissingKey {
        /// The identifier of the key, as the `Debug` output of a [`SealingKey`](crate::SealingKey) shows it.
        key_id: Arc<str>,
        /// How many rows.
        rows: u64,
    },
    /// The store holds rows that only a newer release can read. They are left to replicas of that release. It is looked for
    /// once a minute and repeated once an hour. Alert somebody, unless the newer release is being rolled out.
    NewerFormat {
        /// The format.
        format: u8,
        /// How many rows.
        rows: u64,
    },
    /// An OP has given no usable answer for a minute or longer, although three polls or more were tried: it cannot be
    /// reached, is overloaded, or answers with errors that are meant to pass. The pending sign-ins wait, and nothing is lost.
    /// It is repeated once an hour while polls are tried. Alert somebody.
    OpUnreachable {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// How long ago the first poll failed that no usable answer has followed.
        silence: Duration,
        /// How many polls have failed since then, in this replica.
        polls: u64,
        /// What the last of them met, in words.
        cause: Arc<str>,
    },
    /// An OP gives usable answers again after [`OpUnreachable`](Self::OpUnreachable).
    OpRecovered {
        /// The OP.
        issuer: Arc<str>,
        /// The client.
        client_id: Arc<str>,
        /// For how long it had given none.
        silence: Duration,
    },
    /// A row cannot be opened or read. It is left alone. Alert somebody.
    Unreadable {
        /// The process.
        id: ProcessId,
    },
}

impl Event {
    /// What an event is called in the count of alerts, if operators should be alerted to it.
    pub(super) fn alert(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnknownError { .. } => "unknown_error",
            Self::Stale { .. } => "stale",
            Self::DeliveryOverdue { .. } => "delivery_overdue",
            Self::GateClosed { .. } => "gate_closed",
            Self::ClockJumped { .. } => "clock_jumped",
            Self::StoreTrouble { .. } => "store_trouble",
            Self::UnknownClient { .. } => "unknown_client",
            Self::MissingKey { .. } => "missing_key",
            Self::NewerFormat { .. } => "newer_format",
            Self::OpUnreachable { .. } => "op_unreachable",
            Self::Unreadable { .. } => "unreadable",
            Self::Panicked { .. } => "panicked",
            Self::Accepted { .. }
            | Self::Polled { .. }
            | Self::Progress { .. }
            | Self::SlowedDown { .. }
            | Self::Trouble { .. }
            | Self::Pinged { .. }
            | Self::Decided { .. }
            | Self::Acknowledged { .. }
            | Self::GateOpened { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::OpRecovered { .. } => return None,
        })
    }
}

/// What the OP says of its progress: untrusted text, cleaned and cut. Escape it before you show it; `Debug` does not.
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
