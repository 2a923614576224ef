//! DTR §Exchanging the Deferred Code to obtain Deferred Authentication ID; and the ordinary code flow, where the OP
//! signed the user in at once.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroize as _;

use super::Client;
use super::authorization_response::{AuthorizationGrant, SignIn};
use super::code_answer::{CodeAnswer, CodeResponse, Received};
use super::response_parameters::Code;
use super::response_type::{CODE_GRANT, DEFERRED_GRANT};
use super::token_response::{self, KEYS_PATIENCE, ReceivedTokens, TOKEN_RESPONSE_LIMIT};
use crate::dpop::DpopKey;
use crate::endpoint::{Answer, ClientIdentity, EndpointRequest, Failure};
use crate::error::{Document, Error, ErrorKind, Misuse, Rule, TransportProblem, Verdict, Violation};
use crate::id_token::{self, InterimFingerprint, InterimMember, InterimState};
use crate::jose::{KeySet, SigningAlgorithm};
use crate::json::{self, Object};
use crate::pending::{Answered, Opened, PendingAuthentication, Phase, Schedule, Times, UnverifiedInterim};
use crate::secret::Secret;
use crate::task::Task;
use futures_core::future::BoxFuture;
use url::Url;

/// If the connection fails, the code is unspent and the user is waiting, so there are a few quick attempts.
const CONNECTION_ATTEMPTS: u32 = 3;
const CONNECTION_PAUSE: Duration = Duration::from_millis(500);
const CONNECTION_PATIENCE: Duration = Duration::from_secs(10);
/// How long a successful exchange waits for the OP's keys.
const INTERIM_PATIENCE: Duration = Duration::from_secs(3);
impl Client {
    /// Exchanges the code of a checked authorization response.
    ///
    /// A deferred code returns a [`PendingAuthentication`], whatever its interim ID Token contains, because the code is
    /// spent. Two different interim ID Tokens are both [rejected](InterimState::Rejected). An ordinary code returns the
    /// verified [`Authentication`](super::Authentication).
    ///
    /// The code is sent once. If the connection fails, there are three attempts, and `grant` stays usable. It also
    /// stays usable if the OP has not processed the code: it refuses the client's credentials or DPoP proof, requires a
    /// DPoP nonce without sending one, redirects, or refuses the request with a page (401, 403) or with a status such
    /// as 404, 405, 413 or 429. In every other case the code is spent. Final tokens that cannot be validated yet,
    /// because the OP's keys are unavailable or a decryption key is missing, stay in the grant: exchange it again
    /// later, and nothing is sent.
    ///
    /// If the future is dropped, for example because a browser disconnects, the request continues. Exchange the same
    /// grant again to get its answer. If the grant is dropped too, final tokens in the answer are revoked.
    ///
    /// # Errors
    ///
    /// [`is_spent`](AuthorizationGrant::is_spent) states whether the grant can be exchanged again, whatever the error
    /// is. [`Transport`](ErrorKind::Transport) if nothing was sent; [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if
    /// the code was sent and no usable answer came; [`ErrorResponse`](ErrorKind::ErrorResponse) if the OP refused;
    /// [`Protocol`](ErrorKind::Protocol) if its answer broke a rule; [`Misuse`](ErrorKind::Misuse) for a grant that was
    /// spent or belongs to another client.
    pub async fn exchange(&self, grant: &mut AuthorizationGrant) -> Result<SignIn, Error> {
        if grant.deferred.is_none() {
            match self.exchange_driven(grant, Task::spawn).await? {
                SignIn::Deferred(pending) => grant.deferred = Some(pending),
                complete @ SignIn::Complete(_) => return Ok(complete),
            }
        }
        self.check_grant(grant)?;
        // The pending sign-in stays in the grant while this future can be dropped.
        if let Some(pending) = &mut grant.deferred {
            self.try_to_verify_interim(pending).await;
        }
        grant.deferred.take().map(SignIn::Deferred).ok_or_else(|| Misuse::CodeSpent.into())
    }

    /// Verifies the interim ID Token if that can be done soon. Nothing may fail any more: the code is spent and the
    /// process lives. Nor may it take long, because the web request that brought the user back may be given up.
    pub(crate) async fn try_to_verify_interim(&self, pending: &mut PendingAuthentication) {
        tokio::select! {
            biased;
            verified = self.verify_interim(pending) => if let Err(error) = verified {
                tracing::warn!(%error, "the interim ID Token cannot be verified yet");
            },
            () = self.0.clock.sleep(INTERIM_PATIENCE) => {
                tracing::warn!("fetching the OP's keys took too long; the interim ID Token is verified later");
            }
        }
    }

    /// The exchange without a look at the interim ID Token, for a caller that stores the process first and is not
    /// dropped.
    pub(crate) async fn exchange_unverified(&self, grant: &mut AuthorizationGrant) -> Result<SignIn, Error> {
        self.exchange_driven(grant, Task::held).await
    }

    async fn exchange_driven(&self, grant: &mut AuthorizationGrant, drive: Drive) -> Result<SignIn, Error> {
        self.check_grant(grant)?;
        let exchanged = match &grant.code {
            _ if grant.received.is_some() => self.complete(grant).await,
            Code::Deferred(_) => self.exchange_deferred_code(grant, drive).await,
            Code::Authorization(_) => self.exchange_authorization_code(grant, drive).await,
        };
        exchanged.map_err(|error| {
            // What passes for a request does not for this call: its code is gone.
            let is_over = grant.spent && !grant.keeps_answer();
            let error = if is_over { error.that_stays() } else { error };
            error.in_step("exchanging the code")
        })
    }

    async fn exchange_deferred_code(&self, grant: &mut AuthorizationGrant, drive: Drive) -> Result<SignIn, Error> {
        let CodeAnswer { response, sent_at, answered_at: answered, .. } = self.send_code(grant, drive).await?;
        let response = response?;
        let Exchanged { deferred_auth_id, times, interim, access_token } =
            match Exchanged::parse(response.body(), self.0.options.strict_times) {
                Ok(exchanged) => exchanged,
                Err(violation) if violation.rule() == Rule::NoDeferredAuthId && self.0.options.immediate_answers => {
                    grant.received = Some(Received { response, at: answered.wall });
                    return self.complete(grant).await;
                }
                Err(violation) => {
                    self.revoke_quietly(&response.take(), grant.session.dpop_key.as_ref()).await;
                    return Err(violation.into());
                }
            };
        drop(response.take());
        let schedule = Schedule::new(times, sent_at, answered, self.0.options.final_poll_margin, self.pace());
        let mut pending = self.opened(grant, deferred_auth_id, access_token, schedule);
        pending.0.interim_fingerprint = interim.fingerprint();
        (pending.0.interim, pending.0.unverified_interim) = match interim.judged() {
            None => (InterimState::Absent, None),
            Some(Ok(token)) => (InterimState::NotYetVerifiable, Some(token)),
            Some(Err(rule)) => {
                tracing::warn!(rule = rule.code(), "the interim ID Token was rejected");
                (InterimState::Rejected(rule), None)
            }
        };
        tracing::debug!(issuer = self.issuer(), client_id = self.client_id(), "a deferred code was exchanged");
        Ok(SignIn::Deferred(pending))
    }

    fn opened(
        &self,
        grant: &AuthorizationGrant,
        deferred_auth_id: Secret,
        access_token: Option<Secret>,
        schedule: Schedule,
    ) -> PendingAuthentication {
        let session = &grant.session;
        PendingAuthentication::new(Opened {
            issuer: session.issuer.clone(),
            client_id: session.client_id.clone(),
            deferred_auth_id,
            dpop_key: session.dpop_key.clone(),
            notification_token: grant.notification_token.clone().or(self.0.options.notification_token.clone()),
            access_token,
            context: session.context.clone(),
            checks: session.checks.clone(),
            schedule,
        })
    }

    /// Final tokens that came at once and cannot be validated yet, as a process that has its answer, for a keeper that
    /// goes on trying.
    pub(crate) fn keep_answer(&self, grant: &mut AuthorizationGrant) -> Option<PendingAuthentication> {
        let received = grant.received.take()?;
        let now = self.now();
        let schedule = Schedule::new(Times::default(), received.at, now, None, self.pace());
        // Nobody will ever ask, so there is nothing to ask by.
        let mut pending = self.opened(grant, Secret::default(), None, schedule);
        pending.0.phase =
            Phase::Answered(Answered { body: received.response.take(), received_at: received.at, attempts: 0 });
        Some(pending)
    }

    /// Sends the code, or waits for the request with it that is under way. The answer is taken out of the grant.
    async fn send_code(&self, grant: &mut AuthorizationGrant, drive: Drive) -> Result<CodeAnswer, Error> {
        if grant.in_flight.is_none() {
            let metadata = self.0.provider.metadata().await?;
            let identity = self.identity_at(&metadata)?.clone();
            let request = CodeRequest {
                url: self.endpoints(&metadata, &identity).token()?.clone(),
                assertion_audience: self.assertion_audience(&metadata).map(str::to_owned),
                identity,
                form: self.code_form(grant),
                dpop_key: grant.session.dpop_key.clone(),
                client: self.clone(),
            };
            grant.in_flight = Some(drive(Box::pin(request.send())));
            // From here on the code may be spent.
            grant.spent = true;
        }
        if let Some(task) = &grant.in_flight {
            task.finish().await;
        }
        // Nothing is known of a request whose runtime was shut down.
        let answer = grant.in_flight.take().and_then(Task::into_result);
        let answer = answer.ok_or_else(|| Error::new(ErrorKind::OutcomeUnknown))?;
        grant.spent = answer.spent;
        Ok(answer)
    }

    fn code_form(&self, grant: &AuthorizationGrant) -> Vec<(&'static str, Secret)> {
        let session = &grant.session;
        let mut form = Vec::with_capacity(6);
        match &grant.code {
            Code::Deferred(code) => {
                form.push(("grant_type", Secret::new(DEFERRED_GRANT)));
                form.push(("deferred_code", code.clone()));
                if let Some(token) = grant.notification_token.as_ref().or(self.0.options.notification_token.as_ref()) {
                    form.push(("deferred_notification_token", token.clone()));
                }
            }
            Code::Authorization(code) => {
                form.push(("grant_type", Secret::new(CODE_GRANT)));
                form.push(("code", code.clone()));
            }
        }
        // RFC 6749 §4.1.3 requires it for `code`; the base draft shows it for `deferred_code`.
        if self.0.options.redirect_uri_in_exchange || !grant.is_deferred() {
            form.push(("redirect_uri", Secret::new(session.redirect_uri.as_str())));
        }
        if let Some(verifier) = &session.code_verifier {
            form.push(("code_verifier", verifier.clone()));
        }
        form
    }

    /// OpenID Connect Core 1.0 §3.1.3, where `code` came back.
    async fn exchange_authorization_code(&self, grant: &mut AuthorizationGrant, drive: Drive) -> Result<SignIn, Error> {
        let answer = self.send_code(grant, drive).await?;
        grant.received = Some(Received { response: answer.response?, at: answer.answered_at.wall });
        self.complete(grant).await
    }

    /// Verifies final tokens that came without waiting. Tokens that are not believed are given back.
    async fn complete(&self, grant: &mut AuthorizationGrant) -> Result<SignIn, Error> {
        let AuthorizationGrant { session, received: Some(received), .. } = &*grant else {
            return Err(Misuse::CodeSpent.into());
        };
        let tokens = ReceivedTokens {
            body: received.response.body(),
            received_at: received.at,
            checks: &session.checks,
            dpop_key: session.dpop_key.as_ref(),
            interim: &InterimState::Absent,
            interim_fingerprint: None,
            patience: KEYS_PATIENCE,
            code: match &grant.code {
                Code::Authorization(code) => Some(code),
                Code::Deferred(_) => None,
            },
        };
        let judged = self.authenticate(tokens).await?;
        if judged.is_err() {
            self.revoke_quietly(received.response.body(), session.dpop_key.as_ref()).await;
        }
        let context = session.context.clone();
        // Its tokens are handed over or revoked by now.
        grant.received.take().map(|received| received.response.take());
        Ok(SignIn::Complete(judged?.with_context(context)))
    }

    /// Tries to verify an interim ID Token that could not be verified before because the OP's keys were out of reach,
    /// or a decryption key was missing; [`PendingAuthentication::interim`] has the result. Does nothing in any other
    /// state.
    ///
    /// # Errors
    ///
    /// When the keys are still out of reach or missing. The process itself is not touched.
    pub async fn verify_interim(&self, pending: &mut PendingAuthentication) -> Result<(), Error> {
        self.check_ownership(&pending.0.issuer, &pending.0.client_id)?;
        let Some(UnverifiedInterim { token, member }) = &pending.0.unverified_interim else {
            return Ok(());
        };
        let decrypted = match self.decrypted_id_token(token) {
            // Another instance of the application may have the key.
            Err(violation) if violation.rule() == Rule::NoDecryptionKey => return Err(Error::new(violation)),
            decrypted => decrypted,
        };
        // Before anything can fail: the final ID Token is compared with this one whether or not it can be verified.
        let fingerprint = &mut pending.0.interim_fingerprint;
        let fingerprint = fingerprint.get_or_insert_with(|| InterimFingerprint::new(token.expose()));
        if let Ok(decrypted) = &decrypted {
            fingerprint.add(decrypted.expose());
        }
        let body = &pending.0;
        let received_at = body.schedule.exchange_answered_at();
        let verified = match decrypted {
            Err(violation) => Err(violation),
            Ok(token) => {
                let check = |token: &str, keys: &KeySet, algorithms: &[SigningAlgorithm]| {
                    let expectations =
                        self.expectations(&body.checks, algorithms, body.access_token.as_ref(), received_at);
                    id_token::verify_interim(token, *member, keys, &expectations)
                };
                self.verify_signed_id_token(token.expose(), received_at, Duration::ZERO, check).await?
            }
        };
        pending.0.unverified_interim = None;
        pending.0.interim = match verified {
            Ok(token) => InterimState::Verified(token),
            Err(violation) => {
                tracing::warn!(rule = violation.rule().code(), "the interim ID Token was rejected");
                InterimState::Rejected(violation.rule())
            }
        };
        Ok(())
    }
}

/// Who drives the request with the code.
type Drive = fn(BoxFuture<'static, CodeAnswer>) -> Task<CodeAnswer>;

/// The request with a code, which is the same for both kinds: everything that it needs, so that it can outlive the call
/// that began it.
struct CodeRequest {
    client: Client,
    url: Url,
    identity: ClientIdentity,
    assertion_audience: Option<String>,
    form: Vec<(&'static str, Secret)>,
    dpop_key: Option<DpopKey>,
}

impl CodeRequest {
    async fn send(self) -> CodeAnswer {
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
                clock.sleep(CONNECTION_PAUSE * attempt).await;
                attempt += 1;
                continue;
            }
            return CodeAnswer { response, spent, sent_at, answered_at: self.client.now() };
        }
    }

    /// Whether the connection failed and the code may be sent again.
    fn may_be_repeated(&self, error: &Error, attempt: u32, started: Duration) -> bool {
        let waited = self.client.0.clock.monotonic().saturating_sub(started);
        let enough = attempt == CONNECTION_ATTEMPTS || waited >= CONNECTION_PATIENCE;
        let refused = error.kind() == &ErrorKind::Transport(TransportProblem::Refused);
        !enough && !refused && matches!(error.kind(), ErrorKind::Transport(_))
    }

    /// One request: a successful response, and whether the OP may have used the code up.
    async fn send_once(&self) -> (Result<CodeResponse, Error>, bool) {
        let request = EndpointRequest {
            url: &self.url,
            document: Document::ExchangeResponse,
            form: self.form.iter().map(|(name, value)| (*name, Cow::Borrowed(value.expose()))).collect(),
            client: &self.identity,
            assertion_audience: self.assertion_audience.as_deref(),
            dpop: self.dpop_key.as_ref(),
            access_token: None,
            timeout: self.client.0.options.request_timeout,
            body_limit: TOKEN_RESPONSE_LIMIT,
        };
        match self.client.0.endpoints.post(request).await {
            Ok(Answer::Success { body, .. }) => {
                (Ok(CodeResponse::new(body, self.client.clone(), self.dpop_key.clone())), true)
            }
            Ok(Answer::Error(answer)) => {
                let verdict = answer.response.verdict();
                if let Some(tokens) = &answer.tokens {
                    self.client.revoke_quietly(tokens, self.dpop_key.as_ref()).await;
                }
                refused(verdict, Error::new(answer.response), answer.retry_after)
            }
            Ok(Answer::Unusable { violation, verdict, retry_after, .. }) => {
                refused(verdict, Error::new(violation), retry_after)
            }
            Err(Failure { error, may_have_been_sent: true }) => (Err(unknown(error)), true),
            Err(Failure { error, may_have_been_sent: false }) => (Err(error), false),
        }
    }
}

/// What an answer without a success comes to, and whether the code is spent.
fn refused<T>(verdict: Verdict, error: Error, retry_after: Option<Duration>) -> (Result<T, Error>, bool) {
    let error = if verdict == Verdict::MayBeLost { unknown(error) } else { error };
    (Err(error.with_retry_after(retry_after)), !verdict.leaves_the_grant())
}

fn unknown(error: Error) -> Error {
    Error::new(ErrorKind::OutcomeUnknown).with_source(error)
}

/// How long after the first try to connect the last one begins at the latest.
pub(super) fn longest_connecting() -> Duration {
    CONNECTION_PATIENCE.saturating_add(CONNECTION_PAUSE * (CONNECTION_ATTEMPTS - 1))
}

/// A Successful Deferred Code Exchange Response, made sense of.
struct Exchanged {
    deferred_auth_id: Secret,
    times: Times,
    interim: InterimMembers,
    access_token: Option<Secret>,
}

/// What stands in the place of the interim ID Token.
#[derive(Default)]
struct InterimMembers {
    /// The different tokens of each member.
    interim_id_token: Vec<Secret>,
    id_token: Vec<Secret>,
    /// There is a value that is no token.
    has_others: bool,
}

impl InterimMembers {
    /// The base draft calls the early token `id_token`, the text of February 2026 `interim_id_token`.
    fn read(object: &Object) -> Self {
        let mut members = Self::default();
        for (name, tokens) in [("interim_id_token", &mut members.interim_id_token), ("id_token", &mut members.id_token)]
        {
            for value in object.values(name) {
                match value {
                    Value::Null => {}
                    Value::String(text) if !text.is_empty() => {
                        let token = Secret::new(text.as_str());
                        if !tokens.contains(&token) {
                            tokens.push(token);
                        }
                    }
                    _ => members.has_others = true,
                }
            }
        }
        members
    }

    /// None of them may become the final one.
    fn fingerprint(&self) -> Option<InterimFingerprint> {
        let mut tokens = self.interim_id_token.iter().chain(&self.id_token);
        let mut fingerprint = InterimFingerprint::new(tokens.next()?.expose());
        tokens.for_each(|token| fingerprint.add(token.expose()));
        Some(fingerprint)
    }

    /// The one token, or the rule that rejects what came. The code is spent, so nothing about it may end the process.
    fn judged(self) -> Option<Result<UnverifiedInterim, Rule>> {
        let one = |token: &Secret, member| Some(Ok(UnverifiedInterim { token: token.clone(), member }));
        match (&*self.interim_id_token, &*self.id_token) {
            ([], []) if self.has_others => Some(Err(Rule::IdTokenMalformed)),
            ([], []) => None,
            ([token], []) => one(token, InterimMember::InterimIdToken),
            ([], [token]) => one(token, InterimMember::IdToken),
            ([token], [other]) if token == other => one(token, InterimMember::InterimIdToken),
            ([_], [_]) => Some(Err(Rule::TwoInterimIdTokens)),
            _ => Some(Err(Rule::RepeatedMember)),
        }
    }
}

impl Exchanged {
    fn parse(body: &[u8], strict: bool) -> Result<Self, Violation> {
        const DOCUMENT: Document = Document::ExchangeResponse;
        let object = Object::document(body, DOCUMENT)?;
        let interim = InterimMembers::read(&object);
        // "Clients MUST ignore unrecognized response parameters."
        let mut members = object.needing(&["deferred_auth_id"]).map_err(|flaw| json::flawed(DOCUMENT, flaw))?;
        // Secrets are moved out or overwritten, never left behind in memory.
        for name in ["interim_id_token", "id_token"] {
            if let Some(Value::String(mut token)) = members.shift_remove(name) {
                token.zeroize();
            }
        }
        let deferred_auth_id = match members.shift_remove("deferred_auth_id") {
            // DTR §Deferred Code Exchange Response Validation: "Ensure that the `deferred_auth_id` parameter is
            // present."
            None | Some(Value::Null) => return Err(Violation::new(Rule::NoDeferredAuthId).in_document(DOCUMENT)),
            Some(Value::String(id)) if !id.is_empty() => Secret::new(id),
            Some(_) => {
                return Err(Violation::new(Rule::InvalidMember).in_document(DOCUMENT).at_member("deferred_auth_id"));
            }
        };
        let access_token = match members.shift_remove("access_token") {
            Some(Value::String(token)) if !token.is_empty() => Some(Secret::new(token)),
            _ => None,
        };
        let member = |name: &str| members.get(name).filter(|value| !value.is_null());
        let times = Times {
            interval: token_response::duration(member("interval"), "interval", true, strict)?,
            expires_in: token_response::duration(member("expires_in"), "expires_in", false, strict)?,
        };
        Ok(Self { deferred_auth_id, times, interim, access_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Exchanged, Violation> {
        Exchanged::parse(json.as_bytes(), false)
    }

    #[test]
    fn an_exchange_response_without_deferred_auth_id_is_refused() {
        let violation = parse(r#"{"id_token": "a.b.c"}"#).err().unwrap();
        assert_eq!(violation.rule(), Rule::NoDeferredAuthId);
    }

    #[test]
    fn a_deferred_auth_id_that_is_no_string_is_refused() {
        for value in ["7", "\"\"", "{}", "[\"a\"]"] {
            let error = parse(&format!(r#"{{"deferred_auth_id": {value}}}"#)).err().unwrap();
            assert_eq!(error.rule(), Rule::InvalidMember, "{value}");
        }
    }

    #[test]
    fn a_member_that_stands_twice_with_different_values_is_refused() {
        let error = parse(r#"{"deferred_auth_id": "a", "deferred_auth_id": "b"}"#).err().unwrap();
        assert_eq!((error.rule(), error.member()), (Rule::RepeatedMember, Some("deferred_auth_id")));
        assert!(parse(r#"{"deferred_auth_id": "a", "deferred_auth_id": "a"}"#).is_ok());
    }

    fn interim(members: &str) -> Option<Result<(String, &'static str), Rule>> {
        let exchanged = parse(&format!(r#"{{"deferred_auth_id": "a", {members}}}"#)).ok().unwrap();
        let judged = exchanged.interim.judged()?;
        Some(judged.map(|interim| (interim.token.expose().to_owned(), interim.member.as_str())))
    }

    #[test]
    fn the_interim_token_is_read_under_either_name() {
        for (members, name) in [
            (r#""id_token": "x""#, "id_token"),
            (r#""interim_id_token": "x""#, "interim_id_token"),
            (r#""id_token": "x", "interim_id_token": "x""#, "interim_id_token"),
            (r#""id_token": "x", "interim_id_token": false"#, "id_token"),
            (r#""id_token": "", "interim_id_token": "x""#, "interim_id_token"),
            (r#""id_token": "x", "id_token": null"#, "id_token"),
        ] {
            assert_eq!(interim(members), Some(Ok(("x".to_owned(), name))), "{members}");
        }
    }

    #[test]
    fn what_is_no_interim_token_or_more_than_one_is_rejected_and_null_is_absent() {
        for (members, expected) in [
            (r#""id_token": null, "interim_id_token": null"#, None),
            (r#""id_token": """#, Some(Err(Rule::IdTokenMalformed))),
            (r#""interim_id_token": {}"#, Some(Err(Rule::IdTokenMalformed))),
            (r#""id_token": "x", "interim_id_token": "y""#, Some(Err(Rule::TwoInterimIdTokens))),
            (r#""id_token": "x", "id_token": "y""#, Some(Err(Rule::RepeatedMember))),
        ] {
            assert_eq!(interim(members), expected, "{members}");
        }
    }
}
