//! DTR §Exchanging the Deferred Code to obtain Deferred Authentication ID, and the ordinary code flow if the OP signed
//! the user in at once.

use std::borrow::Cow;
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::Client;
use super::authorization_response::{AuthorizationGrant, SignIn};
use super::granted::Granted;
use super::initial_answer::{InitialAnswer, Received};
use super::initial_request::InitialRequest;
use super::initial_transmission::InitialTransmission;
use super::token_response::{KEYS_PATIENCE, ReceivedTokens};
use crate::dialect::{Deferral, InitialEndpoint, Times};
use crate::error::{Error, ErrorKind, Misuse, Rule};
use crate::id_token::{self, InterimFingerprint, InterimState};
use crate::jose::{KeySet, SigningAlgorithm};
use crate::pending::{Answered, Opened, PendingAuthentication, Phase, Schedule, UnverifiedInterim};
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
    /// The code is sent once. If the connection fails, or the OP answers with two DPoP nonce challenges in a row, there are
    /// three attempts, and `grant` stays usable. It also stays usable if the OP has not processed the code:
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
        match self.request_tokens(&mut grant.request).await? {
            Exchanged::Complete(granted) => granted.into_authentication().map(SignIn::Complete),
            Exchanged::Deferred(pending) => Ok(SignIn::Deferred(pending)),
        }
    }

    /// Sends the request and takes its answer, for a caller that may be dropped.
    pub(super) async fn request_tokens(&self, request: &mut InitialRequest) -> Result<Exchanged, Error> {
        if request.deferred.is_none() {
            match self.exchange_driven(request, Task::spawn).await? {
                Exchanged::Deferred(pending) => request.deferred = Some(pending),
                complete @ Exchanged::Complete(_) => return Ok(complete),
            }
        }
        self.check_request(request)?;
        // The pending sign-in stays in the request while this future can be dropped.
        if let Some(pending) = &mut request.deferred {
            self.try_to_verify_interim(pending).await;
        }
        request.deferred.take().map(Exchanged::Deferred).ok_or_else(|| Misuse::GrantAlreadyUsed.into())
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

    /// Sends the request and takes its answer without verifying the interim ID Token. For a caller that stores the
    /// pending sign-in first and is not dropped.
    pub(crate) async fn exchange_unverified(&self, request: &mut InitialRequest) -> Result<Exchanged, Error> {
        self.exchange_driven(request, Task::held).await
    }

    async fn exchange_driven(&self, request: &mut InitialRequest, drive: Drive) -> Result<Exchanged, Error> {
        self.check_request(request)?;
        let exchanged = self.exchanged(request, drive).await;
        exchanged.map_err(|error| {
            // An error that is transient for a request is not transient for this call if its code is spent.
            let is_over = request.spent && !request.keeps_answer();
            let error = if is_over { error.permanent() } else { error };
            error.in_step(request.step())
        })
    }

    async fn exchanged(&self, request: &mut InitialRequest, drive: Drive) -> Result<Exchanged, Error> {
        if request.received.is_some() {
            return self.complete(request).await.map(Exchanged::Complete);
        }
        let InitialAnswer { response, sent_at, answered_at: answered, .. } = self.send_request(request, drive).await?;
        let response = response?;
        let deferral = match response.is_deferral {
            true => request.dialect.protocol().deferral(&response.body, self.0.options.invalid_times()).map(Some),
            false => Ok(None),
        };
        match deferral {
            Ok(Some(deferral)) => {
                // Tokens beside it are revoked, unless the dialect has an early access token.
                drop(response);
                let schedule =
                    Schedule::new(deferral.times, sent_at, answered, self.0.options.final_poll_margin, self.pace());
                Ok(Exchanged::Deferred(self.deferred(request, deferral, schedule)))
            }
            Err(violation) if violation.rule() != Rule::NoDeferredAuthId || !self.0.options.allow_immediate_answer => {
                self.revoke_quietly(&response.take(), request.dpop_key.as_ref()).await;
                Err(violation.into())
            }
            Ok(None) | Err(_) => {
                request.received = Some(Received { response, at: answered.wall });
                self.complete(request).await.map(Exchanged::Complete)
            }
        }
    }

    /// Makes a pending sign-in of an answer that defers the tokens.
    fn deferred(&self, request: &InitialRequest, deferral: Deferral, schedule: Schedule) -> PendingAuthentication {
        let Deferral { identifier, times: _, interim, access_token, interaction } = deferral;
        let mut pending = self.opened(request, identifier, access_token, schedule);
        pending.take_interaction(self.checked_interaction(interaction));
        pending.0.interim_fingerprint = interim.fingerprint();
        (pending.0.interim, pending.0.unverified_interim) = match interim.judged() {
            None => (InterimState::Absent, None),
            Some(Ok((token, member))) => (InterimState::NotYetVerifiable, Some(UnverifiedInterim { token, member })),
            Some(Err(rule)) => {
                tracing::warn!(rule = rule.code(), "the interim ID Token was rejected");
                (InterimState::Rejected(rule), None)
            }
        };
        tracing::debug!(issuer = self.issuer(), client_id = self.client_id(), "the OP deferred its answer");
        pending
    }

    fn opened(
        &self,
        request: &InitialRequest,
        identifier: Secret,
        access_token: Option<Secret>,
        schedule: Schedule,
    ) -> PendingAuthentication {
        PendingAuthentication::new(Opened {
            issuer: request.issuer.clone(),
            client_id: request.client_id.clone(),
            dialect: request.dialect,
            identifier,
            dpop_key: request.dpop_key.clone(),
            notification_token: self.notification_token(request).cloned(),
            access_token,
            context: request.context.clone(),
            trace_parent: request.trace_parent.clone(),
            checks: request.checks.clone(),
            schedule,
        })
    }

    /// Converts final tokens that arrived at once and cannot be validated yet into a pending sign-in that already has
    /// its answer. The caller keeps it and tries again.
    pub(crate) fn keep_answer(&self, request: &mut InitialRequest) -> Option<PendingAuthentication> {
        let received = request.received.take()?;
        let now = self.now();
        let schedule = Schedule::new(Times::default(), received.at, now, None, self.pace());
        // The OP is not polled, so there is no identifier.
        let mut pending = self.opened(request, Secret::default(), None, schedule);
        pending.0.phase =
            Phase::Answered(Answered { body: received.response.take(), received_at: received.at, attempts: 0 });
        Some(pending)
    }

    /// Sends the request, or waits for the one that is already in flight. The answer is taken out of `request`.
    async fn send_request(&self, request: &mut InitialRequest, drive: Drive) -> Result<InitialAnswer, Error> {
        if request.in_flight.is_none() {
            let metadata = self.0.provider.metadata().await?;
            let identity = self.identity_at(&metadata)?.clone();
            let endpoints = self.endpoints(&metadata, &identity);
            let (url, dpop_key) = match request.dialect.protocol().initial_endpoint() {
                InitialEndpoint::Token => (endpoints.token()?.clone(), request.dpop_key.clone()),
                // No tokens are issued there. The first poll shows the key.
                InitialEndpoint::BackchannelAuthentication => (endpoints.backchannel_authentication()?.clone(), None),
            };
            let sent = InitialTransmission {
                url,
                assertion_audience: self.assertion_audience(&metadata).map(str::to_owned),
                identity,
                form: self.form(request).await?,
                dpop_key,
                dialect: request.dialect,
                may_defer: request.may_defer,
                trace_parent: self.sent_trace_parent(request.trace_parent.as_ref()),
                client: self.clone(),
            };
            request.in_flight = Some(drive(Box::pin(sent.send())));
            // From here on the code may be spent.
            request.spent = true;
        }
        if let Some(task) = &request.in_flight {
            task.finish().await;
        }
        // If the runtime of the request was shut down, its result is unknown.
        let answer = request.in_flight.take().and_then(Task::into_result);
        let answer = answer.ok_or_else(|| Error::new(ErrorKind::OutcomeUnknown))?;
        request.spent = answer.spent;
        Ok(answer)
    }

    /// The parameters, with those of the dialect.
    async fn form(&self, request: &InitialRequest) -> Result<Vec<(Cow<'static, str>, Secret)>, Error> {
        let mut form = request.form.clone();
        if !request.may_defer {
            return Ok(form);
        }
        let protocol = request.dialect.protocol();
        form.extend(protocol.opt_in().map(|(name, value)| (name.into(), Secret::new(value))));
        let token = self.notification_token(request).cloned();
        form.extend(token.map(|token| (protocol.notification_token().into(), token)));
        if protocol.initial_endpoint() == InitialEndpoint::BackchannelAuthentication {
            return self.backchannel_form(form, request).await;
        }
        Ok(form)
    }

    fn notification_token<'a>(&'a self, request: &'a InitialRequest) -> Option<&'a Secret> {
        if !self.is_notified(request.dialect) {
            return None;
        }
        // One token for all requests is of no use where each of them needs its own.
        let needs_fresh = request.dialect.protocol().needs_fresh_notification_tokens();
        let shared = self.0.options.notification_token.as_ref().filter(|_| !needs_fresh);
        request.notification_token.as_ref().or(shared)
    }

    /// Validates final tokens that arrived without waiting. Tokens that are refused are revoked.
    async fn complete(&self, request: &mut InitialRequest) -> Result<Granted, Error> {
        let InitialRequest { received: Some(received), .. } = &*request else {
            return Err(Misuse::GrantAlreadyUsed.into());
        };
        let tokens = ReceivedTokens {
            body: &received.response.body,
            received_at: received.at,
            dpop_key: request.dpop_key.as_ref(),
            interim: &InterimState::Absent,
            interim_fingerprint: None,
            patience: KEYS_PATIENCE,
            code: request.code.as_ref(),
        };
        let judged = self.granted(request.checks.as_ref(), tokens).await?;
        if judged.is_err() {
            self.revoke_quietly(&received.response.body, request.dpop_key.as_ref()).await;
        }
        let context = request.context.clone();
        // Its tokens were returned or revoked by now.
        request.received.take().map(|received| received.response.take());
        Ok(judged?.with_context(context))
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
        let Some(checks) = &body.checks else { return Ok(()) };
        let received_at = body.schedule.exchange_answered_at();
        let verified = match decrypted {
            Err(violation) => Err(violation),
            Ok(token) => {
                let check = |token: &str, keys: &KeySet, algorithms: &[SigningAlgorithm]| {
                    let expectations = self.expectations(checks, algorithms, body.access_token.as_ref(), received_at);
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

/// The answer to a token request that was sent.
pub(crate) enum Exchanged {
    /// Tokens, which are valid.
    Complete(Granted),
    Deferred(PendingAuthentication),
}

/// How the request is run.
type Drive = fn(BoxFuture<'static, InitialAnswer>) -> Task<InitialAnswer>;
