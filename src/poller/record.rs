//! The sealed contents of a row.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::client::StoredOutcome;
use crate::error::{Error, ErrorKind};
use crate::keyring::{Keyring, Purpose};
use crate::pending::PendingAuthentication;
use crate::random::Random;
use crate::sealed::{self, Sealable};
use crate::secret::Secret;
use crate::store::{ProcessId, SealedBody};
use crate::trace_parent::TraceParent;

/// The newest format of the plaintext. Stores do not return newer formats to older releases.
pub(super) const FORMAT: u8 = 2;
/// The format of rows that all releases can process.
const OLDEST_FORMAT: u8 = 1;

/// What the application attached to a request. It is kept in every stage of the sign-in.
#[derive(Clone)]
pub(super) struct Attached {
    pub(super) context: Zeroizing<Vec<u8>>,
    pub(super) trace_parent: Option<TraceParent>,
}

/// The plaintext of a row's body.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// The application's context from when the user was redirected, in every stage of the sign-in.
    #[serde(rename = "ctx", with = "sealed::secret_bytes")]
    pub(super) context: Zeroizing<Vec<u8>>,
    /// The trace that the sign-in belongs to.
    #[serde(
        rename = "tp",
        deserialize_with = "TraceParent::deserialize",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) trace_parent: Option<TraceParent>,
    #[serde(rename = "is")]
    pub(super) stage: Stage,
    /// The OP's success response if it was invalid, kept for analysis.
    #[serde(rename = "rej", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(super) rejected: Option<Secret>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Stage {
    /// The code may have been sent. It is not kept, because it is never sent again.
    #[serde(rename = "x")]
    Exchanging,
    /// Waiting, or with a success response to verify. The schedule in it is outdated; use that of the row.
    #[serde(rename = "p")]
    Process(#[serde(with = "process")] PendingAuthentication),
    #[serde(rename = "o")]
    Outcome(StoredOutcome),
}

impl Sealable for Record {
    const PURPOSE: Purpose = Purpose::Process;
    const VERSION: u8 = FORMAT;
    const OLDEST: u8 = OLDEST_FORMAT;

    /// The store keeps it beside the body.
    fn version(&self) -> u8 {
        match &self.stage {
            Stage::Exchanging => OLDEST_FORMAT,
            Stage::Process(pending) => pending.stored_version(),
            Stage::Outcome(outcome) if outcome.needs_newer_format() => FORMAT,
            Stage::Outcome(_) => OLDEST_FORMAT,
        }
    }
}

impl Record {
    pub(super) fn new(attached: Attached, mut stage: Stage) -> Self {
        let Attached { context, trace_parent } = attached;
        if let Stage::Process(pending) = &mut stage {
            // The record already contains them.
            pending.0.context = Zeroizing::default();
            pending.0.trace_parent = None;
        }
        Self { context, trace_parent, stage, rejected: None }
    }

    /// The parts, for work on the sign-in.
    pub(super) fn into_parts(self) -> (Attached, Stage) {
        let Self { context, trace_parent, mut stage, rejected: _ } = self;
        if let Stage::Process(pending) = &mut stage {
            // Polls may name it.
            pending.0.trace_parent.clone_from(&trace_parent);
        }
        (Attached { context, trace_parent }, stage)
    }

    /// Seals the record for the row with this id only.
    pub(super) fn seal(&self, keyring: &Keyring, random: &dyn Random, id: ProcessId) -> Result<SealedBody, Error> {
        let bytes = sealed::seal(keyring, random, &id.to_bytes(), self)?;
        Ok(SealedBody { format: self.version(), key: keyring.primary_id(), bytes })
    }

    pub(super) fn open(keyring: &Keyring, id: ProcessId, body: &SealedBody) -> Result<Self, Error> {
        if !(OLDEST_FORMAT..=FORMAT).contains(&body.format) {
            return Err(Error::new(ErrorKind::Sealed));
        }
        sealed::open(keyring, &id.to_bytes(), &body.bytes)
    }
}

mod process {
    use serde::{Deserializer, Serializer};

    use super::*;
    use crate::pending::Body;

    pub(super) fn serialize<S: Serializer>(pending: &PendingAuthentication, serializer: S) -> Result<S::Ok, S::Error> {
        pending.0.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PendingAuthentication, D::Error> {
        Ok(PendingAuthentication(Box::new(Body::deserialize(deserializer)?)))
    }
}
