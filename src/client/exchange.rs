//! DTR §Exchanging the Deferred Code to obtain Deferred Authentication ID, and the ordinary code flow if the OP signed
//! the user in at once.

use std::time::Duration;

use futures_core::future::BoxFuture;

use super::Client;
use super::authorization_response::{AuthorizationGrant, SignIn};
use super::code_answer::{CodeAnswer, Received};
use super::code_request::CodeRequest;
use super::exchange_response::Exchanged;
use super::response_parameters::Code;
use super::response_type::{CODE_GRANT, DEFERRED_GRANT};
use super::token_response::{KEYS_PATIENCE, ReceivedTokens};
use crate::error::{Error, ErrorKind, Misuse, Rule};
use crate::id_token::{self, InterimFingerprint, InterimState};
use crate::jose::{KeySet, SigningAlgorithm};
use crate::pending::{Answered, Opened, PendingAuthentication, Phase, Schedule, Times, UnverifiedInterim};
use crate::secret::Secret;
use crate::task::Task;

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
    /// stays usable if the OP has not processed the code:
    ///
    /// - the OP refuses the client's credentials or DPoP proof;
    /// - it requires a DPoP nonce without sending one;
    /// - it redirects;
    /// - it refuses the request with a page (401, 403) or with a status such as 404, 405, 413 or 429.
    ///
    /// In every other case the code is spent. Final tokens that cannot be validated yet, because the OP's keys are
    /// unavailable or a decryption key is missing, stay in the grant. Exchange it again later: nothing is sent then.
    ///
    /// If the future is dropped, for example because a browser disconnects, the request continues. Exchange the same
    /// grant again to get its answer. If the grant is dropped too, final tokens in the answer are revoked.
    ///
    /// # Errors
    ///
    /// [`is_spent`](AuthorizationGrant::is_spent) states whether the grant can be exchanged again, whatever the error
    /// is.
    ///
    /// - [`Transport`](ErrorKind::Transport) if nothing was sent.
    /// - [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if the code was sent and no usable answer arrived.
    /// - [`ErrorResponse`](ErrorKind::ErrorResponse) if the OP refused.
    /// - [`Protocol`](ErrorKind::Protocol) if its answer broke a rule.
    /// - [`Misuse`](ErrorKind::Misuse) for a grant that was spent or belongs to another client.
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

    /// Verifies the interim ID Token if that is quickly possible. It must not fail, because the code is spent and the
    /// sign-in continues. It must not take long, because the browser may give up the web request that it belongs to.
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

    /// Exchanges the code without verifying the interim ID Token. For a caller that stores the pending sign-in first
    /// and is not dropped.
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
            // An error that is transient for a request is not transient for this call if its code is spent.
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
                Err(violation)
                    if violation.rule() == Rule::NoDeferredAuthId && self.0.options.allow_immediate_answer =>
                {
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

    /// Converts final tokens that arrived at once and cannot be validated yet into a pending sign-in that already has
    /// its answer. The caller keeps it and tries again.
    pub(crate) fn keep_answer(&self, grant: &mut AuthorizationGrant) -> Option<PendingAuthentication> {
        let received = grant.received.take()?;
        let now = self.now();
        let schedule = Schedule::new(Times::default(), received.at, now, None, self.pace());
        // The OP is not polled, so there is no `deferred_auth_id`.
        let mut pending = self.opened(grant, Secret::default(), None, schedule);
        pending.0.phase =
            Phase::Answered(Answered { body: received.response.take(), received_at: received.at, attempts: 0 });
        Some(pending)
    }

    /// Sends the code, or waits for the request with it that is already in flight. The answer is taken out of the
    /// grant.
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
        // If the runtime of the request was shut down, its result is unknown.
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
        if !self.0.options.without_redirect_uri_in_exchange || !grant.is_deferred() {
            form.push(("redirect_uri", Secret::new(session.redirect_uri.as_str())));
        }
        if let Some(verifier) = &session.code_verifier {
            form.push(("code_verifier", verifier.clone()));
        }
        form
    }

    /// OpenID Connect Core 1.0 §3.1.3, for a response with `code`.
    async fn exchange_authorization_code(&self, grant: &mut AuthorizationGrant, drive: Drive) -> Result<SignIn, Error> {
        let answer = self.send_code(grant, drive).await?;
        grant.received = Some(Received { response: answer.response?, at: answer.answered_at.wall });
        self.complete(grant).await
    }

    /// Validates final tokens that arrived without waiting. Tokens that are refused are revoked.
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
        // Its tokens were returned or revoked by now.
        grant.received.take().map(|received| received.response.take());
        Ok(SignIn::Complete(judged?.with_context(context)))
    }

    /// Tries to verify an interim ID Token that could not be verified before, because the OP's keys were unavailable or
    /// a decryption key was missing. [`PendingAuthentication::interim`] has the result. Does nothing in any other
    /// state.
    ///
    /// # Errors
    ///
    /// Returns an error if the keys are still unavailable or missing. The sign-in itself is unaffected.
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
        // Before anything can fail: the final ID Token is compared with this one, whether or not this one can be
        // verified.
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

/// How the request with the code is run.
type Drive = fn(BoxFuture<'static, CodeAnswer>) -> Task<CodeAnswer>;
