//! The transmission of an initial request, and its repetition while the OP has not processed it.

use std::borrow::Cow;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use super::Client;
use super::initial_answer::{InitialAnswer, InitialResponse};
use super::token_response::TOKEN_RESPONSE_LIMIT;
use crate::dialect::{Dialect, InitialEndpoint};
use crate::dpop::DpopKey;
use crate::endpoint::{Answer, ClientIdentity, EndpointRequest, Failure};
use crate::error::{Document, Error, ErrorKind, Rule, TransportProblem, Verdict};
use crate::secret::Secret;
use crate::trace_parent::TraceParent;

/// If the connection fails, or the OP rejects two DPoP nonces, the grant is unspent and the user may be waiting, so there
/// are a few quick attempts.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// An [`InitialRequest`](super::initial_request::InitialRequest) on its way to the OP. It owns everything that it needs,
/// so that it can outlive the call that started it.
pub(super) struct InitialTransmission {
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) identity: ClientIdentity,
    pub(super) assertion_audience: Option<String>,
    pub(super) form: Vec<(Cow<'static, str>, Secret)>,
    /// The key that the request proves, if it does.
    pub(super) dpop_key: Option<DpopKey>,
    pub(super) dialect: Dialect,
    /// Whether the OP may defer its answer.
    pub(super) may_defer: bool,
    pub(super) trace_parent: Option<TraceParent>,
}

impl InitialTransmission {
    pub(super) async fn send(self) -> InitialAnswer {
        let clock = &*self.client.0.clock;
        let started = clock.monotonic();
        let mut attempt = 1;
        loop {
            let sent_at = clock.now();
            let (response, spent) = self.send_once().await;
            if let Err(error) = &response
                && !spent
                && self.may_be_repeated(error, attempt, started)
            {
                clock.sleep(PAUSE * attempt).await;
                attempt += 1;
                continue;
            }
            return InitialAnswer { response, spent, sent_at, answered_at: self.client.now() };
        }
    }

    /// Whether the OP has not seen the grant, and a repetition may help.
    fn may_be_repeated(&self, error: &Error, attempt: u32, started: Duration) -> bool {
        let waited = self.client.0.clock.monotonic().saturating_sub(started);
        let enough = attempt == ATTEMPTS || waited >= PATIENCE;
        let is_disconnected = match error.kind() {
            ErrorKind::Transport(problem) => *problem != TransportProblem::Refused,
            _ => false,
        };
        // The next attempt has the nonce of the last challenge.
        let is_challenged = error.rule() == Some(Rule::SecondNonceChallenge) && error.retry_after().is_none();
        !enough && (is_disconnected || is_challenged)
    }

    /// Sends one request. Returns a successful response, and whether the OP may have used the grant up.
    async fn send_once(&self) -> (Result<InitialResponse, Error>, bool) {
        let request = EndpointRequest {
            url: &self.url,
            document: self.document(),
            form: self.form.iter().map(|(name, value)| (&**name, Cow::Borrowed(value.expose()))).collect(),
            client: &self.identity,
            assertion_audience: self.assertion_audience.as_deref(),
            dpop: self.dpop_key.as_ref(),
            access_token: None,
            trace_parent: self.trace_parent.as_ref(),
            timeout: self.client.0.options.request_timeout,
            body_limit: TOKEN_RESPONSE_LIMIT,
        };
        match self.client.0.endpoints.post(request).await {
            Ok(Answer::Success { body, .. }) => (Ok(self.response(body, None)), true),
            Ok(Answer::Error(answer)) if self.defers(Some(answer.response.code())) => {
                (Ok(self.response(answer.body, Some(answer.response.code()))), true)
            }
            Ok(Answer::Error(answer)) => {
                let verdict = answer.response.verdict();
                if let Some(tokens) = answer.tokens() {
                    self.client.revoke_quietly(tokens, self.dpop_key.as_ref()).await;
                }
                self.refused(verdict, Error::new(answer.response), answer.retry_after)
            }
            Ok(Answer::Unusable { violation, verdict, retry_after, tokens, .. }) => {
                // Revokes them when it is dropped.
                drop(tokens.map(|body| self.response(body, None)));
                self.refused(verdict, Error::new(violation), retry_after)
            }
            Err(Failure { error, may_have_been_sent: true }) => (Err(unknown(error)), true),
            Err(Failure { error, may_have_been_sent: false }) => (Err(error), false),
        }
    }

    /// The name of the answer in errors.
    fn document(&self) -> Document {
        match self.dialect.protocol().initial_endpoint() {
            InitialEndpoint::BackchannelAuthentication => Document::BackchannelAuthenticationResponse,
            InitialEndpoint::Token if self.defers(None) => Document::ExchangeResponse,
            InitialEndpoint::Token => Document::TokenResponse,
        }
    }

    /// Whether an answer defers the tokens: a success, or an error with this code.
    fn defers(&self, error: Option<&str>) -> bool {
        self.may_defer && self.dialect.protocol().defers(error)
    }

    /// The error for an unsuccessful answer, and whether the request is spent.
    fn refused<T>(&self, verdict: Verdict, error: Error, retry_after: Option<Duration>) -> (Result<T, Error>, bool) {
        let is_unknown = verdict == Verdict::MayBeLost;
        let error = if is_unknown { unknown(error) } else { error };
        let spent = match self.dialect.protocol().initial_endpoint() {
            InitialEndpoint::Token => !verdict.keeps_the_grant(),
            // It used nothing up, but the OP may ask the user.
            InitialEndpoint::BackchannelAuthentication => is_unknown,
        };
        (Err(error.with_retry_after(retry_after)), spent)
    }

    fn response(&self, body: Zeroizing<Vec<u8>>, error: Option<&str>) -> InitialResponse {
        // An OP may send the identifier without the error code that belongs to it. It is given only once.
        let is_bare = error.is_none() && self.may_defer && self.dialect.has_only_an_identifier(&body);
        InitialResponse {
            body,
            is_deferral: self.defers(error) || is_bare,
            dialect: self.dialect,
            client: self.client.clone(),
            dpop_key: self.dpop_key.clone(),
        }
    }
}

fn unknown(error: Error) -> Error {
    Error::new(ErrorKind::OutcomeUnknown).with_source(error)
}

/// The longest time from the start of the first attempt to that of the last one.
pub(super) fn longest_repeating() -> Duration {
    PATIENCE.saturating_add(PAUSE * (ATTEMPTS - 1))
}
