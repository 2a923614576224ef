//! The status of a sign-in.

use std::fmt;
use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::pending::InterimState;
use crate::secret::Secret;
use crate::store::{ProcessId, State};

/// The status of a sign-in, from [`Poller::status`](super::Poller::status), for the user's status page.
///
/// It serializes as an object with the members `id`, `state`, `has_ended`, `progress`, `needs_interaction`,
/// `due_in_seconds`, `interim`, `is_cancelled` and `cancellation`. `needs_interaction` is whether there is an
/// [`interaction_uri`](Self::interaction_uri), which is left out because it is a secret. `interim` names the state of
/// the interim ID Token (`absent`, `verified`, `rejected` or `not_yet_verifiable`); its claims are left out, because
/// the OP may not have verified them.
///
/// ```
/// # async fn example(poller: openid_deferred::Poller, id: openid_deferred::store::ProcessId)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let body = serde_json::to_string(&poller.status(id).await?)?;
/// // {"id":"AAECAwQFBgcICQoLDA0ODw","state":"waiting","has_ended":false,"progress":null,…}
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Status {
    pub(super) id: ProcessId,
    pub(super) state: State,
    pub(super) context: Vec<u8>,
    pub(super) progress: Option<String>,
    pub(super) interaction_uri: Option<Secret>,
    pub(super) due_in: Option<Duration>,
    pub(super) interim: InterimState,
    pub(super) is_cancelled: bool,
    pub(super) cancellation: Option<CancellationStatus>,
}

/// What the OP knows of a cancellation, from [`Poller::cancel`](super::Poller::cancel) and [`Status::cancellation`]. It
/// serializes as its name in snake case.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CancellationStatus {
    /// The OP was told. It accepted the cancellation request, or it has refused it for good, which
    /// [`Event::TransientError`](super::Event::TransientError) reported.
    Accepted,
    /// The cancellation is stored, but the request to the OP has not succeeded yet and is repeated.
    Requested,
    /// The sign-in already had its outcome, which is delivered unchanged.
    TooLate,
    /// The OP does not know of the cancellation: no cancellation endpoint is configured or, in the [IETF
    /// dialect](crate::Dialect::Ietf), the OP's metadata does not say that a deferral code can be revoked.
    /// [CIBA](crate::Dialect::Ciba) defines no cancellation.
    LocallyOnly,
}

impl Status {
    /// The identifier of the sign-in.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it has ended: the application has [acknowledged](crate::Delivery::acknowledge) its outcome, or none is
    /// delivered. Then nothing more can come, and a page or a job can stop asking. While this is `false`, the outcome
    /// may have arrived already; the application gets it from [`Poller::outcomes`](super::Poller::outcomes).
    pub fn has_ended(&self) -> bool {
        match self.state {
            State::Exchanging | State::Waiting | State::Answered | State::Decided => false,
            State::Acknowledged => true,
        }
    }

    /// The value that the application passed to [`context`](crate::AuthorizationRequest::context): what the sign-in is
    /// for. It is empty when the sign-in has ended. It is not serialized.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// The OP's latest progress text: untrusted, cleaned and truncated. Escape it before you show it.
    pub fn progress(&self) -> Option<&str> {
        self.progress.as_deref()
    }

    /// The URI that the user should open, if the OP needs something from the user (IETF DTR §Token Endpoint —
    /// Polling). It works once and is as sensitive as a token: show it only to the user whom the request is about, and
    /// do not log it.
    pub fn interaction_uri(&self) -> Option<&Secret> {
        self.interaction_uri.as_ref()
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

    /// Whether the OP has been told of the cancellation, for the page of a user who has cancelled. `None` if the sign-in
    /// was not cancelled, or if the OP has already decided, because then the outcome matters. The OP decides before the
    /// sign-in [has ended](Self::has_ended). [`is_cancelled`](Self::is_cancelled) stays `true`, so choose the heading of
    /// the page by it, and use this method for details.
    ///
    /// With [`CancellationStatus::LocallyOnly`] the OP cannot be told. It goes on, and its decision arrives as for any
    /// other sign-in; an approval [comes after the cancellation](crate::Authentication::is_after_cancellation).
    pub fn cancellation(&self) -> Option<CancellationStatus> {
        self.cancellation
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let interim = match &self.interim {
            InterimState::Absent => "absent",
            InterimState::Verified(_) => "verified",
            InterimState::Rejected(_) => "rejected",
            InterimState::NotYetVerifiable => "not_yet_verifiable",
        };
        let mut members = serializer.serialize_struct("Status", 9)?;
        members.serialize_field("id", &self.id)?;
        members.serialize_field("state", &self.state)?;
        members.serialize_field("has_ended", &self.has_ended())?;
        members.serialize_field("progress", &self.progress)?;
        members.serialize_field("needs_interaction", &self.interaction_uri.is_some())?;
        members.serialize_field("due_in_seconds", &self.due_in.map(|due_in| due_in.as_secs()))?;
        members.serialize_field("interim", interim)?;
        members.serialize_field("is_cancelled", &self.is_cancelled)?;
        members.serialize_field("cancellation", &self.cancellation)?;
        members.end()
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Status")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("is_cancelled", &self.is_cancelled)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(state: State) -> Status {
        Status {
            id: ProcessId::from_bytes([0; 16]),
            state,
            context: b"order 4711".to_vec(),
            progress: Some("The documents are being checked".to_owned()),
            interaction_uri: Some(Secret::new("https://op.example/interact/secret")),
            due_in: Some(Duration::from_millis(1_500)),
            interim: InterimState::NotYetVerifiable,
            is_cancelled: true,
            cancellation: Some(CancellationStatus::LocallyOnly),
        }
    }

    #[test]
    fn a_sign_in_has_ended_when_its_outcome_was_acknowledged() {
        let all = (0..).map_while(State::from_number);
        let ended: Vec<_> = all.filter(|state| status(*state).has_ended()).collect();
        assert_eq!(ended, [State::Acknowledged]);
    }

    #[test]
    fn a_status_is_serialized_without_claims_and_with_whole_seconds() {
        let status = status(State::Waiting);
        let expected = json!({
            "id": "AAAAAAAAAAAAAAAAAAAAAA",
            "state": "waiting",
            "has_ended": false,
            "progress": "The documents are being checked",
            "needs_interaction": true,
            "due_in_seconds": 1,
            "interim": "not_yet_verifiable",
            "is_cancelled": true,
            "cancellation": "locally_only",
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
        assert_eq!(serde_json::from_value::<ProcessId>(expected["id"].clone()).unwrap(), status.id());
        assert_eq!(serde_json::from_value::<State>(expected["state"].clone()).unwrap(), status.state());
        assert!(serde_json::from_value::<ProcessId>(json!("not an id")).is_err());
    }
}
