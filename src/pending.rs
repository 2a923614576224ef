//! One pending sign-in as a value.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::dialect::{Dialect, Interaction};
use crate::dpop::DpopKey;
use crate::error::{Error, ErrorResponse, Verdict};
use crate::id_token::{InterimFingerprint, InterimMember};
use crate::keyring::{Keyring, Purpose};
use crate::random::{Random, SystemRandom};
use crate::sealed::{self, Sealable};
use crate::secret::Secret;
use crate::task::Task;
use crate::trace_parent::TraceParent;

mod answer;
mod checks;
mod schedule;
mod trouble;
mod validation;

pub(crate) use crate::id_token::InterimState;
pub(crate) use answer::{Answer, End, Polled, Standing, SuccessBody, is_known_error};
pub(crate) use checks::Checks;
pub(crate) use schedule::{CANCELLATION_PAUSE, FINAL_POLL_MARGIN, Jitter, Pace, Plan, Schedule, Step, Taken};
pub use trouble::TroubleKind;
pub(crate) use trouble::{Known, Trouble};
pub(crate) use validation::{is_given_up, validation_pause};

/// One pending sign-in or token request, which the OP has not decided yet: the identifier that the OP gave it, the DPoP
/// key that it is bound to, the requirements for the final ID Token, and the schedule of polls.
///
/// It is called so after sign-ins, which most applications defer. A pending grant without a user has the same type; its
/// outcome is `Outcome::Issued`.
///
/// The exchange of a code returns it, or a token request without a user. Pass it to `Client::wait`, or to
/// `Client::poll` from a job system of your own. Both leave it usable after an error, after their future is dropped
/// during a request, and after a restart if it was [sealed](Self::seal). A request that was sent continues if the
/// future is dropped, and the next call takes its answer. The OP's interval is kept in all of these cases. It is not
/// `Clone`, because two copies would poll at the same time.
pub struct PendingAuthentication(pub(crate) Box<Body>);

/// The parts, as used by the client and as sealed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Body {
    /// The version of this form.
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "iss")]
    pub(crate) issuer: String,
    #[serde(rename = "cid")]
    pub(crate) client_id: String,
    /// Omitted for the OpenID dialect, which older releases know.
    #[serde(rename = "dl", default, skip_serializing_if = "Dialect::is_default")]
    pub(crate) dialect: Dialect,
    #[serde(rename = "id", with = "sealed::secret")]
    pub(crate) identifier: Secret,
    #[serde(rename = "key", with = "sealed::dpop_key", default, skip_serializing_if = "Option::is_none")]
    pub(crate) dpop_key: Option<DpopKey>,
    #[serde(rename = "nt", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(crate) notification_token: Option<Secret>,
    #[serde(rename = "at", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(crate) access_token: Option<Secret>,
    #[serde(rename = "ctx", with = "sealed::secret_bytes", default, skip_serializing_if = "sealed::no_bytes")]
    pub(crate) context: Zeroizing<Vec<u8>>,
    /// The trace that it belongs to.
    #[serde(
        rename = "tp",
        deserialize_with = "TraceParent::deserialize",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) trace_parent: Option<TraceParent>,
    /// `None` if no ID Token is expected, because no user signs in.
    #[serde(rename = "chk", default, skip_serializing_if = "Option::is_none")]
    pub(crate) checks: Option<Checks>,
    #[serde(rename = "int", with = "sealed::interim")]
    pub(crate) interim: InterimState,
    #[serde(rename = "raw", default, skip_serializing_if = "Option::is_none")]
    pub(crate) unverified_interim: Option<UnverifiedInterim>,
    /// Recognises the interim ID Token, whether or not it was verified. Sign-ins that were stored by 0.1.0 have none.
    #[serde(rename = "itf", default, skip_serializing_if = "Option::is_none")]
    pub(crate) interim_fingerprint: Option<InterimFingerprint>,
    #[serde(rename = "prg", default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<String>,
    /// Where the user should go, if the OP said so.
    #[serde(rename = "iu", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(crate) interaction_uri: Option<Secret>,
    #[serde(rename = "sch")]
    pub(crate) schedule: Schedule,
    #[serde(rename = "ans", default, skip_serializing_if = "Phase::is_waiting")]
    pub(crate) phase: Phase,
    /// Whether the application has cancelled it.
    #[serde(rename = "cnl", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cancelled: bool,
    /// The poll in flight, or its result. It is not stored: a sealed copy counts its answer as lost.
    #[serde(skip)]
    pub(crate) in_flight: Option<Task<Polled>>,
}

impl Sealable for Body {
    const PURPOSE: Purpose = Purpose::PendingAuthentication;
    const VERSION: u8 = 2;
    const OLDEST: u8 = 1;

    fn version(&self) -> u8 {
        self.version
    }
}

/// The phase of a sign-in.
#[derive(Default, Serialize, Deserialize)]
pub(crate) enum Phase {
    #[default]
    #[serde(rename = "w")]
    Waiting,
    /// The success response, which the OP gives only once, has arrived and is not validated yet.
    #[serde(rename = "a")]
    Answered(Answered),
    #[serde(rename = "e")]
    Ended,
}

impl Phase {
    fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }
}

/// A success response and its time of receipt, by which it is validated however much later that happens.
#[derive(Serialize, Deserialize)]
pub(crate) struct Answered {
    #[serde(rename = "b", with = "sealed::secret_bytes")]
    pub(crate) body: Zeroizing<Vec<u8>>,
    #[serde(rename = "t", with = "sealed::seconds")]
    pub(crate) received_at: SystemTime,
    /// Failed attempts to validate it because keys were unavailable.
    #[serde(rename = "n", default)]
    pub(crate) attempts: u32,
}

/// The received interim ID Token, while it cannot be verified because the OP's keys are unavailable.
#[derive(Serialize, Deserialize)]
pub(crate) struct UnverifiedInterim {
    #[serde(rename = "j", with = "sealed::secret")]
    pub(crate) token: Secret,
    #[serde(rename = "m")]
    pub(crate) member: InterimMember,
}

/// The result of a token request whose answer the OP defers.
pub(crate) struct Opened {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) dialect: Dialect,
    pub(crate) identifier: Secret,
    pub(crate) dpop_key: Option<DpopKey>,
    pub(crate) notification_token: Option<Secret>,
    pub(crate) access_token: Option<Secret>,
    pub(crate) context: Zeroizing<Vec<u8>>,
    pub(crate) trace_parent: Option<TraceParent>,
    pub(crate) checks: Option<Checks>,
    pub(crate) schedule: Schedule,
}

impl PendingAuthentication {
    pub(crate) fn new(opened: Opened) -> Self {
        Self(Box::new(Body {
            version: opened.dialect.protocol().stored_version(),
            issuer: opened.issuer,
            client_id: opened.client_id,
            dialect: opened.dialect,
            identifier: opened.identifier,
            dpop_key: opened.dpop_key,
            notification_token: opened.notification_token,
            access_token: opened.access_token,
            context: opened.context,
            trace_parent: opened.trace_parent,
            checks: opened.checks,
            interim: InterimState::Absent,
            unverified_interim: None,
            interim_fingerprint: None,
            progress: None,
            interaction_uri: None,
            schedule: opened.schedule,
            phase: Phase::Waiting,
            cancelled: false,
            in_flight: None,
        }))
    }

    /// The protocol by which the OP deferred its answer.
    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// The identifier that polls and callbacks contain: the `deferred_auth_id` (DTR §Successful Deferred Code Exchange
    /// Response), or the `deferral_code` (IETF DTR §Token Endpoint — Deferred Response). It is opaque. Treat it as a
    /// secret: keep it out of logs and URLs.
    pub fn identifier(&self) -> &Secret {
        &self.0.identifier
    }

    /// The OP's issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The client identifier.
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// The interim ID Token, whose claims the OP may not have verified yet (DTR §Interim ID Tokens). The IETF dialect
    /// has none.
    pub fn interim(&self) -> &InterimState {
        &self.0.interim
    }

    /// The access token of the exchange response, if there is one (only in the OpenID dialect). It is for resources
    /// that the OP serves before its decision; the tokens of the outcome replace it.
    pub fn access_token(&self) -> Option<&Secret> {
        self.0.access_token.as_ref()
    }

    /// The value that the application passed to `AuthorizationRequest::context` or `TokenRequest::context`: what this
    /// request is for.
    pub fn context(&self) -> &[u8] {
        &self.0.context
    }

    /// The trace that the application passed to `AuthorizationRequest::trace_parent` or `TokenRequest::trace_parent`, as
    /// the value of a header `traceparent`.
    pub fn trace_parent(&self) -> Option<&str> {
        self.0.trace_parent.as_ref().map(TraceParent::as_str)
    }

    /// The key that this request is bound to (RFC 9449; DTR §Token Request using the Authentication Request ID; IETF
    /// DTR §Sender-Constraint Requirements).
    pub fn dpop_key(&self) -> Option<&DpopKey> {
        self.0.dpop_key.as_ref()
    }

    /// The bearer token that the OP got for its callback, if one was sent (DTR §Ping Callback; IETF DTR §Callback
    /// Notification).
    pub fn notification_token(&self) -> Option<&Secret> {
        self.0.notification_token.as_ref()
    }

    /// The OP's latest progress text: untrusted, with control, bidirectional and zero-width characters removed, at most
    /// 1,000 characters. Escape it before you show it; do not log it (DTR §Context on the Progress of Incomplete
    /// Authentication Processes).
    pub fn progress(&self) -> Option<&str> {
        self.0.progress.as_deref()
    }

    /// The URI that the user should open, if the OP needs something from the user (IETF DTR §Token Endpoint — Deferred
    /// Response). It is the OP's latest one. It works once and is as sensitive as a token: show it only to the user whom
    /// this request is about, and do not log it. Polling continues meanwhile. `None` once the OP has decided.
    pub fn interaction_uri(&self) -> Option<&Secret> {
        self.0.interaction_uri.as_ref().filter(|_| self.0.phase.is_waiting())
    }

    /// When the sign-in expires, if the OP set a limit (`expires_in`, counted from when the token request was sent).
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.schedule.expires_at()
    }

    /// When `Client::poll` is due next, by the wall clock: to poll the OP, to retry the validation of a success
    /// response, or to return the end of the sign-in if that comes before the next poll. Earlier calls do nothing.
    pub fn due_at(&self) -> SystemTime {
        match self.0.phase {
            Phase::Waiting => self.0.schedule.acts_at(),
            Phase::Answered(_) | Phase::Ended => self.0.schedule.due_at(),
        }
    }

    /// Records that a poll is about to be sent. Seal and store the value after this call and before `Client::poll`. If
    /// the program crashes during the poll and the OP then answers `invalid_grant`, its success may have been lost with
    /// the crash, so the outcome is `Outcome::Unknown` instead of a failure.
    ///
    /// `Client::wait` does this by itself and reports it with `WaitEvent::Asking`.
    pub fn announce_poll(&mut self) {
        if matches!(self.0.phase, Phase::Waiting) && self.0.in_flight.is_none() {
            self.0.schedule.announce();
        }
    }

    /// Whether a request would be sent now.
    pub(crate) fn is_due(&mut self, now: Moment) -> bool {
        let is_waiting = matches!(self.0.phase, Phase::Waiting) && self.0.in_flight.is_none();
        is_waiting && self.0.schedule.step(now) == Step::Ask
    }

    /// Whether the sign-in has ended, so that nothing is left to poll.
    pub fn has_ended(&self) -> bool {
        matches!(self.0.phase, Phase::Ended)
    }

    /// Seals everything into bytes that can be stored anywhere: encrypted, authenticated, and useless without the
    /// keyring. [`open`](Self::open) reverses it. Seal again after every poll, because the schedule changes, and
    /// because a success response, which the OP gives only once, is part of the value. The answer to a poll in flight
    /// is not part of it: if a future of `Client::poll` or `Client::wait` was dropped during a request, call the method
    /// again before you seal. Otherwise the copy counts the answer as lost.
    ///
    /// # Errors
    ///
    /// Only if randomness or the cryptographic library fails.
    pub fn seal(&self, keyring: &Keyring) -> Result<Vec<u8>, Error> {
        self.seal_with(keyring, &SystemRandom)
    }

    pub(crate) fn seal_with(&self, keyring: &Keyring, random: &dyn Random) -> Result<Vec<u8>, Error> {
        sealed::seal(keyring, random, &[], &*self.0)
    }

    /// Opens a value that [`seal`](Self::seal) sealed, in this program or another one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`](crate::ErrorKind::Sealed) if the bytes were altered, are of another kind or a newer
    /// format, or were sealed with a key that the keyring does not have.
    pub fn open(keyring: &Keyring, sealed: &[u8]) -> Result<Self, Error> {
        Ok(Self(Box::new(sealed::open(keyring, &[], sealed)?)))
    }

    /// The version of its stored form.
    pub(crate) fn stored_version(&self) -> u8 {
        self.0.version
    }

    /// Whether `Client::cancel` was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled
    }

    /// Whether the success response has arrived and is not validated yet.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.0.phase, Phase::Answered(_))
    }

    /// Processes the answer to a poll: updates the schedule, and keeps progress or a success response.
    pub(crate) fn answered(&mut self, answer: Answer, now: Moment, pace: Pace) -> Standing {
        let standing = self.0.schedule.answered(&answer, now, pace);
        match standing {
            Standing::Open => {
                if let Answer::Error { response, interaction, .. } = answer {
                    self.take_progress(&response);
                    self.take_interaction(interaction);
                }
            }
            Standing::Succeeded => {
                if let Answer::Success(SuccessBody(body)) = answer {
                    self.0.phase = Phase::Answered(Answered { body, received_at: now.wall, attempts: 0 });
                }
            }
            Standing::Ended(_) => self.0.phase = Phase::Ended,
        }
        standing
    }

    /// The number of attempts to validate the success response, for a caller that counts them itself.
    pub(crate) fn tried(&mut self, attempts: u32) {
        if let Phase::Answered(answered) = &mut self.0.phase {
            answered.attempts = attempts;
        }
    }

    /// The success response that is not validated yet, as text.
    pub(crate) fn success_response(&self) -> Option<Secret> {
        match &self.0.phase {
            Phase::Answered(answered) => Some(Secret::new(String::from_utf8_lossy(&answered.body))),
            Phase::Waiting | Phase::Ended => None,
        }
    }

    /// A second value, for a caller that takes this one over.
    pub(crate) fn duplicate(&self) -> Result<Self, Error> {
        Ok(Self(Box::new(sealed::from_json(&sealed::to_json(&self.0)?)?)))
    }

    /// The clock of the time of receipt of the success response.
    pub(crate) fn received_at(&mut self, time: SystemTime) {
        if let Phase::Answered(answered) = &mut self.0.phase {
            answered.received_at = time;
        }
    }

    /// Remembers where the user should go. The URI has been checked.
    pub(crate) fn take_interaction(&mut self, interaction: Interaction) {
        match interaction {
            Interaction::Unmentioned => {}
            Interaction::At(uri) => self.0.interaction_uri = Some(uri),
            Interaction::Begun => self.0.interaction_uri = None,
        }
    }

    /// Only pending answers describe progress; other descriptions are for developers.
    fn take_progress(&mut self, response: &ErrorResponse) {
        if matches!(response.verdict(), Verdict::Pending | Verdict::SlowDown)
            && let Some(description) = response.description()
        {
            self.0.progress = Some(description.to_owned());
        }
    }
}

impl fmt::Debug for PendingAuthentication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PendingAuthentication")
            .field("issuer", &self.0.issuer)
            .field("client_id", &self.0.client_id)
            .field("due_at", &self.due_at())
            .field("expires_at", &self.expires_at())
            .field("has_ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}
