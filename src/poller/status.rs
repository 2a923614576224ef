//! Where a process stands.

use std::fmt;
use std::time::Duration;

use crate::pending::InterimState;
use crate::store::{ProcessId, State};

/// Where a process stands, from [`Poller::status`](super::Poller::status): for the page that the user looks at.
#[derive(Clone)]
pub struct Status {
    pub(super) id: ProcessId,
    pub(super) phase: ProcessPhase,
    pub(super) progress: Option<String>,
    pub(super) due_in: Option<Duration>,
    pub(super) interim: InterimState,
    pub(super) is_cancelled: bool,
}

/// How far a process has come.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessPhase {
    /// Its code is being exchanged.
    Exchanging,
    /// The OP has not decided.
    Waiting,
    /// The OP has approved; its answer is being verified.
    Verifying,
    /// The outcome is there and is being delivered.
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
    /// Whose status it is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// How far it has come.
    pub fn phase(&self) -> ProcessPhase {
        self.phase
    }

    /// What the OP last said about its progress: untrusted text, cleaned and cut. Escape it before you show it.
    pub fn progress(&self) -> Option<&str> {
        self.progress.as_deref()
    }

    /// How long until the OP is asked again, while the process waits.
    pub fn due_in(&self) -> Option<Duration> {
        self.due_in
    }

    /// What came early, while the process waits: the interim ID Token's claims, which the OP may not have verified yet
    /// (DTR §Interim ID Tokens). Show them as unverified, and give nobody access by them.
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
