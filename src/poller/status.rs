//! The status of a sign-in.

use std::fmt;
use std::time::Duration;

use crate::pending::InterimState;
use crate::store::{ProcessId, State};

/// The status of a sign-in, from [`Poller::status`](super::Poller::status), for the user's status page.
#[derive(Clone)]
pub struct Status {
    pub(super) id: ProcessId,
    pub(super) phase: ProcessPhase,
    pub(super) progress: Option<String>,
    pub(super) due_in: Option<Duration>,
    pub(super) interim: InterimState,
    pub(super) is_cancelled: bool,
}

/// The phase of a sign-in.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessPhase {
    /// Its code is being exchanged.
    Exchanging,
    /// The OP has not decided.
    Waiting,
    /// The OP has approved; its answer is being verified.
    Verifying,
    /// The outcome is known and is being delivered.
    Decided,
    /// The outcome was acknowledged.
    Acknowledged,
}

impl From<State> for ProcessPhase {
    fn from(state: State) -> Self {
        match state {
            State::Exchanging => Self::Exchanging,
            State::Waiting => Self::Waiting,
            State::Answered => Self::Verifying,
            State::Decided => Self::Decided,
            State::Acknowledged => Self::Acknowledged,
        }
    }
}

impl Status {
    /// The identifier of the sign-in.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// The phase.
    pub fn phase(&self) -> ProcessPhase {
        self.phase
    }

    /// The OP's latest progress text: untrusted, cleaned and truncated. Escape it before you show it.
    pub fn progress(&self) -> Option<&str> {
        self.progress.as_deref()
    }

    /// The time until the next poll, while the sign-in is pending.
    pub fn due_in(&self) -> Option<Duration> {
        self.due_in
    }

    /// The interim ID Token while the sign-in is pending. The OP may not have verified its claims yet (DTR §Interim ID
    /// Tokens): label them as unverified, and grant no access because of them.
    pub fn interim(&self) -> &InterimState {
        &self.interim
    }

    /// Whether the application has cancelled it.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Status")
            .field("id", &self.id)
            .field("phase", &self.phase)
            .field("is_cancelled", &self.is_cancelled)
            .finish_non_exhaustive()
    }
}
