//! DTR §Token Request using the Authentication Request ID: polls once.

use std::borrow::Cow;
use std::error::Error as _;
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use super::Client;
use super::options::PollCredential;
use super::outcome::{Denial, Expiration, Outcome};
use super::token_response::TOKEN_RESPONSE_LIMIT;
use super::token_response::{ReceivedTokens, final_violation};
use crate::clock::Moment;
use crate::dialect::Dialect;
use crate::dpop::DpopKey;
use crate::endpoint::{Answer as Sent, EndpointRequest, ErrorAnswer, Failure};
use crate::error::{Document, Error, ErrorResponse, Misuse, Rule, TransportProblem, Verdict, Violation};
use crate::pending::{
    Answer, End, PendingAuthentication, Phase, Polled, Standing, Step, SuccessBody, is_given_up, is_known_error,
    validation_pause,
};
use crate::provider::ProviderMetadata;
use crate::secret::Secret;
use crate::task::Task;
use crate::trace_parent::TraceParent;
use zeroize::Zeroizing;

/// The result of one poll.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "a poll may return the outcome, which the OP sends only once"]
pub enum Poll {
    /// Nothing is due, so nothing was sent. Either the interval has not passed, or it is too early to validate a stored
    /// answer again. Poll again after `due_in`.
    NotDue {
        /// The time until the next poll is due.
        due_in: Duration,
    },
    /// The OP has not decided. [`progress`](PendingAuthentication::progress) may contain more details.
    Pending,
    /// The OP has not decided and asks for fewer polls: the interval grew by five seconds.
    SlowDown,
    /// The sign-in has ended.
    Finished(Outcome),
}

const STEP: &str = "polling";

impl Client {
    /// Polls the OP once if the interval has passed. Otherwise it sends nothing and returns the time until the next
    /// poll.
    ///
    /// It is for job systems of your own; [`wait`](Self::wait) calls it in a loop.
    ///
    /// `pending` records what happened and stays usable after any result. If it is stored, seal it again after each
    /// call, especially after an error: it keeps a success response that could not be validated yet, which the OP sends
    /// only once. Delete the stored value once the outcome is stored: an older copy would poll again and find the
    /// sign-in ended.
    ///
    /// If the future is dropped while a request is in flight, the request continues, and the next call *with this
    /// value* waits for its answer instead of sending another one. A copy that is opened from storage does not know
    /// about that request. It sends a second one, possibly in parallel. If the first one returns the success, that
    /// answer is lost, and the second one ends the sign-in as [`Outcome::Failed`]. Do not let a job system's timeout
    /// drop the call: spawn it, or keep `pending` for the next try.
    ///
    /// If the call may be dropped or the program may crash, store `pending` between
    /// [`announce_poll`](PendingAuthentication::announce_poll) and this call. A sign-in whose success may have been
    /// lost then ends as [`Outcome::Unknown`]: let the user start again.
    ///
    /// # Errors
    ///
    /// No error ends the sign-in.
    ///
    /// - [`is_transient`](Error::is_transient) errors pass: the next poll is scheduled with exponential backoff.
    /// - [`ErrorResponse`](crate::ErrorKind::ErrorResponse) with a code such as `invalid_client` means that our own
    ///   credentials or registration are wrong. Correct them and continue.
    /// - [`Misuse`](crate::ErrorKind::Misuse) if the sign-in has ended or belongs to another client.
    pub async fn poll(&self, pending: &mut PendingAuthentication) -> Result<Poll, Error> {
        match self.ask(pending).await? {
            Some(poll) => Ok(poll),
            None => self.judge_answer(pending).await,
        }
    }

    /// The first half of [`poll`](Self::poll). Returns `None` if `pending` now has a success response, which must be
    /// validated.
    pub(super) async fn ask(&self, pending: &mut PendingAuthentication) -> Result<Option<Poll>, Error> {
        self.check_ownership(&pending.0.issuer, &pending.0.client_id)?;
        match &pending.0.phase {
            Phase::Ended => return Err(Misuse::NothingToPoll.into()),
            Phase::Answered(_) => {
                return Ok(match pending.0.schedule.until_due(self.now()) {
                    Duration::ZERO => None,
                    due_in => Some(Poll::NotDue { due_in }),
                });
            }
            Phase::Waiting => {}
        }
        if pending.0.in_flight.is_none() {
            match pending.0.schedule.step(self.now()) {
                Step::Wait(due_in) => return Ok(Some(Poll::NotDue { due_in })),
                Step::End(end) => return Ok(Some(Poll::Finished(finish(pending, end, None)))),
                Step::Ask => {}
            }
            let metadata = self.0.provider.metadata().await;
            pending.0.schedule.sending(self.now());
            let (client, polled) = (self.clone(), self.poll_once(pending, metadata));
            let dpop_key = pending.0.dpop_key.clone();
            pending.0.in_flight = Some(Task::spawn(async move {
                let polled = polled.await;
                if let Some(SuccessBody(tokens)) = &polled.unwanted {
                    client.revoke_quietly(tokens, dpop_key.as_ref()).await;
                }
                polled
            }));
        }
        // The OP sends the success only once, so neither the request nor its answer may depend on this future.
        if let Some(task) = &pending.0.in_flight {
            task.finish().await;
        }
        let polled = pending.0.in_flight.take().and_then(Task::into_result);
        let Polled { answer, error: trouble, at, .. } = polled.unwrap_or_else(|| self.poll_cut_off());
        let response = answer.error_response().cloned();
        let standing = pending.answered(answer, at, self.pace());
        match (standing, trouble) {
            (Standing::Succeeded, _) => Ok(None),
            (Standing::Ended(end), _) => Ok(Some(Poll::Finished(finish(pending, end, response)))),
            (Standing::Open, Some(error)) => Err(error.in_step(STEP)),
            (Standing::Open, None) => Ok(Some(match response {
                Some(response) if response.code() == "slow_down" => Poll::SlowDown,
                _ => Poll::Pending,
            })),
        }
    }

    /// The second half of [`poll`](Self::poll): validates the stored success response.
    pub(super) async fn judge_answer(&self, pending: &mut PendingAuthentication) -> Result<Poll, Error> {
        self.conclude(pending, None).await.map_err(|error| error.in_step("validating the OP's final answer"))
    }

    /// Prepares one poll, whatever the schedule says, for a caller that has its own schedule. The returned future
    /// borrows neither this client nor `pending`.
    pub(crate) async fn poll_now(
        &self,
        pending: &PendingAuthentication,
    ) -> impl Future<Output = Polled> + Send + use<> {
        let metadata = self.0.provider.metadata().await;
        let polled = self.poll_once(pending, metadata);
        async move {
            let polled = polled.await;
            Polled { error: polled.error.map(|error| error.in_step(STEP)), ..polled }
        }
    }

    /// Sends a poll and classifies its result.
    fn poll_once(
        &self,
        pending: &PendingAuthentication,
        metadata: Result<ProviderMetadata, Error>,
    ) -> impl Future<Output = Polled> + Send + use<> {
        let request = PollRequest {
            client: self.clone(),
            dialect: pending.0.dialect,
            identifier: pending.0.identifier.clone(),
            dpop_key: pending.0.dpop_key.clone(),
            access_token: pending.0.access_token.clone(),
            trace_parent: self.sent_trace_parent(pending.0.trace_parent.as_ref()),
        };
        async move {
            let sent = request.send(metadata).await;
            let at = request.client.now();
            match sent {
                Ok(answer) => request.client.judge(request.dialect, answer, at),
                Err(Failure { error, may_have_been_sent }) => {
                    let answer = Answer::Unusable { unanswered: may_have_been_sent, retry_after: error.retry_after() };
                    Polled { answer, error: Some(error), at, unwanted: None }
                }
            }
        }
    }

    /// The result of a poll whose runtime was shut down.
    fn poll_cut_off(&self) -> Polled {
        let answer = Answer::Unusable { unanswered: true, retry_after: None };
        Polled { answer, error: Some(TransportProblem::Broken.into()), at: self.now(), unwanted: None }
    }

    /// Validates the stored success response as of the time of its receipt. `process` is the name of the sign-in in the
    /// log, if it has one.
    pub(crate) async fn conclude(
        &self,
        pending: &mut PendingAuthentication,
        process: Option<&(dyn Display + Sync)>,
    ) -> Result<Poll, Error> {
        if pending.0.unverified_interim.is_some() {
            // The interim token is needed only for the comparison with the final one. Its failure is not a failure of
            // the final token.
            if let Err(error) = self.verify_interim(pending).await {
                tracing::debug!(error = %error, "the interim ID Token cannot be verified yet");
            }
        }
        let body = &mut *pending.0;
        let Phase::Answered(answered) = &mut body.phase else {
            return Err(Misuse::NothingToPoll.into());
        };
        let received = ReceivedTokens {
            body: &answered.body,
            received_at: answered.received_at,
            dpop_key: body.dpop_key.as_ref(),
            interim: &body.interim,
            interim_fingerprint: body.interim_fingerprint.as_ref(),
            patience: Duration::ZERO,
            code: None,
        };
        let violation = match self.granted(body.checks.as_ref(), received).await {
            Ok(Ok(granted)) => {
                body.phase = Phase::Ended;
                let outcome = granted.with_context(body.context.clone()).into_outcome();
                return Ok(Poll::Finished(if body.cancelled { outcome.after_cancellation() } else { outcome }));
            }
            Ok(Err(violation)) => violation,
            Err(error) => {
                let waited = self.0.clock.now().duration_since(answered.received_at).unwrap_or(Duration::ZERO);
                let pause = validation_pause(answered.attempts, error.retry_after());
                let is_first = answered.attempts == 0;
                answered.attempts = answered.attempts.saturating_add(1);
                body.schedule.postpone(pause, self.now());
                if !is_given_up(waited, answered.attempts) {
                    self.log_waiting(process, &error, pause, is_first);
                    return Err(error);
                }
                final_violation(&error)
            }
        };
        tracing::warn!(
            process = process.map(tracing::field::display),
            issuer = self.issuer(),
            client_id = self.client_id(),
            rule = violation.rule().code(),
            "the final token response is not valid"
        );
        self.revoke_quietly(&answered.body, body.dpop_key.as_ref()).await;
        body.phase = Phase::Ended;
        Ok(Poll::Finished(Outcome::Invalid(violation)))
    }

    /// Logs one warning for each sign-in: if the OP's keys are unavailable, all sign-ins are delayed, and each is tried
    /// many times.
    fn log_waiting(
        &self,
        process: Option<&(dyn Display + Sync)>,
        error: &Error,
        next_try_in: Duration,
        is_first: bool,
    ) {
        let process = process.map(tracing::field::display);
        let (issuer, client_id, reason) =
            (self.issuer(), self.client_id(), error.source().map(tracing::field::display));
        // `tracing` needs a constant level.
        macro_rules! waits {
            ($level:ident) => {
                tracing::$level!(
                    process,
                    issuer,
                    client_id,
                    %error,
                    reason,
                    ?next_try_in,
                    "the OP's success response cannot be validated yet; it is kept and validated later"
                )
            };
        }
        if error.rule() == Some(Rule::NoDecryptionKey) {
            tracing::error!(
                process,
                issuer,
                client_id,
                "a final ID Token is encrypted for a key that this client does not have; it is kept for a day"
            );
        } else if is_first {
            waits!(warn)
        } else {
            waits!(debug)
        }
    }
}

/// DTR §Token Request using the Authentication Request ID. It owns everything that the request needs, so that it can
/// outlive the call that started it.
struct PollRequest {
    client: Client,
    dialect: Dialect,
    identifier: Secret,
    dpop_key: Option<DpopKey>,
    access_token: Option<Secret>,
    trace_parent: Option<TraceParent>,
}

impl PollRequest {
    async fn send(&self, metadata: Result<ProviderMetadata, Error>) -> Result<Sent, Failure> {
        let not_sent = |error| Failure { error, may_have_been_sent: false };
        let options = &self.client.0.options;
        let metadata = metadata.map_err(not_sent)?;
        let client = self.client.identity_at(&metadata).map_err(not_sent)?;
        let protocol = self.dialect.protocol();
        let access_token = match options.poll_credential {
            PollCredential::AccessToken if protocol.has_early_access_token() => {
                let token = self.access_token.as_ref();
                Some(token.ok_or_else(|| not_sent(Misuse::NoAccessToken.into()))?)
            }
            PollCredential::AccessToken | PollCredential::ClientAuthentication => None,
        };
        let form = vec![
            ("grant_type", Cow::Borrowed(protocol.grant_type())),
            (protocol.identifier(), self.identifier.expose().into()),
        ];
        let request = EndpointRequest {
            url: self.client.endpoints(&metadata, client).token().map_err(not_sent)?,
            document: Document::TokenResponse,
            form,
            client,
            assertion_audience: self.client.assertion_audience(&metadata),
            dpop: self.dpop_key.as_ref(),
            access_token,
            trace_parent: self.trace_parent.as_ref(),
            timeout: options.poll_timeout,
            body_limit: TOKEN_RESPONSE_LIMIT,
        };
        self.client.0.endpoints.post(request).await
    }
}

impl Client {
    /// The trace to name in a request, if this client sends traces to the OP.
    pub(super) fn sent_trace_parent(&self, trace_parent: Option<&TraceParent>) -> Option<TraceParent> {
        trace_parent.filter(|_| self.0.options.send_trace_parent).cloned()
    }

    /// Classifies the answer of the token endpoint.
    fn judge(&self, dialect: Dialect, sent: Sent, at: Moment) -> Polled {
        let polled = |answer, error| Polled { answer, error, at, unwanted: None };
        match sent {
            Sent::Success { body, .. } => match is_token_response(&body) {
                true => polled(Answer::Success(SuccessBody(body)), None),
                // The JSON of a proxy or captive portal must not end a sign-in that took three weeks.
                false => {
                    let violation = Violation::new(Rule::NoIdToken).in_document(Document::TokenResponse);
                    let error = Error::new(violation).transient();
                    polled(Answer::Unusable { unanswered: true, retry_after: None }, Some(error))
                }
            },
            Sent::Error(answer) => self.judge_error(dialect, answer, at),
            Sent::Unusable { violation, verdict, retry_after, tokens, .. } => {
                let unanswered = verdict == Verdict::MayBeLost;
                let error = Error::new(violation).transient().with_retry_after(retry_after);
                let unwanted = tokens.filter(|_| !dialect.protocol().has_early_access_token()).map(SuccessBody);
                Polled { answer: Answer::Unusable { unanswered, retry_after }, error: Some(error), at, unwanted }
            }
        }
    }

    fn judge_error(&self, dialect: Dialect, answer: ErrorAnswer, at: Moment) -> Polled {
        let (protocol, retry_after) = (dialect.protocol(), answer.retry_after);
        let interaction = protocol.interaction(answer.response.code(), &answer.body);
        let unwanted = answer.tokens().map(|tokens| SuccessBody(Zeroizing::new(tokens.to_vec())));
        let response = match protocol.is_pending(answer.response.code()) {
            true => answer.response.into_pending(),
            false => answer.response,
        };
        let code = response.code();
        if !is_known_error(&response) {
            tracing::warn!(code, "the OP answered a poll with an unknown error code; polling continues");
        }
        let verdict = response.verdict();
        let waiting = matches!(verdict, Verdict::Pending | Verdict::SlowDown);
        let error = (!waiting).then(|| {
            let error = if is_known_error(&response) {
                Error::new(response.clone())
            } else {
                let violation = Violation::new(Rule::UnknownError).in_document(Document::TokenResponse);
                Error::new(violation).transient().with_source(Error::new(response.clone()))
            };
            error.with_retry_after(retry_after)
        });
        // Until the end, an early access token is still needed.
        let unwanted = unwanted.filter(|_| verdict.is_end() || !protocol.has_early_access_token());
        let interaction = self.checked_interaction(interaction);
        Polled { answer: Answer::Error { response, retry_after, interaction }, error, at, unwanted }
    }
}

/// Whether a document with a success status is a token response. Missing or wrong members are left to the validation,
/// after the response was stored.
fn is_token_response(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Members {
        access_token: Option<serde::de::IgnoredAny>,
        id_token: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Members>(body)
        .map_or(true, |found| found.access_token.is_some() || found.id_token.is_some())
}

/// The outcome of a sign-in that ended without tokens, with the OP's answer if one ended it.
pub(crate) fn finish(pending: &mut PendingAuthentication, end: End, response: Option<ErrorResponse>) -> Outcome {
    pending.0.phase = Phase::Ended;
    // Without an answer the schedule ends a sign-in only at its own deadline, or because an answer may have been
    // lost. All other ends have a `response`.
    let response = response.unwrap_or_else(|| ErrorResponse::new("", None, None));
    let outcome = match end {
        End::Denied => Outcome::Denied(Denial::new(response)),
        End::Expired { confirmed } => Outcome::Expired(Expiration { confirmed }),
        End::Failed => Outcome::Failed(response),
        End::Unknown => Outcome::Unknown,
    };
    if pending.0.cancelled { outcome.after_cancellation() } else { outcome }
}
