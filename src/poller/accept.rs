//! Adds sign-ins to the store, from an authorization response or from elsewhere.

use super::acceptance::{Accepted, accept};
use super::event::Event;
use super::handle::Poller;
use super::job::schedule_text;
use super::record::{Attached, Record, Stage};
use super::shared::Shared;
use super::store_clock::StoreClock;
use super::tenant::Tenant;
use crate::client::{
    Authentication, AuthenticationRequest, AuthorizationSession, Client, IssuedTokens, TokenRequest, no_auth_req_id,
};
use crate::clock::Moment;
use crate::error::{Error, Misuse};
use crate::pending::{PendingAuthentication, Standing};
use crate::secret::Secret;
use crate::store::{Fingerprint, Insertion, NewProcess, ProcessId, State};

/// The state of a sign-in in the durable poller after the user returned. [`Client`](crate::Client) has
/// [a type of its own](crate::SignIn), because with it the application stores the pending sign-in.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "it may contain the user's authentication, or the id of the sign-in to wait for"]
pub enum AcceptedSignIn {
    /// The OP has not decided, or its answer cannot be verified yet because its keys are unavailable. One
    /// [`Delivery`](crate::Delivery) with this id follows after the decision. For a second response of the same
    /// session, this is the id of the sign-in of the first response.
    ///
    /// If the OP's answer cannot be stored within 10 s, this is returned before it is stored, and the poller keeps trying
    /// to store it for as long as it runs. If the poller ends before that, the outcome is
    /// [`Unknown`](crate::Outcome::Unknown).
    Deferred(ProcessId),
    /// The OP answered at once. The user is signed in, and nothing will be delivered, with the exception that
    /// [`Poller::authorization_response`] names.
    Complete(Authentication),
    /// A second response of a session whose sign-in, with this id, has ended: its outcome was acknowledged, its
    /// exchange failed, or the OP had answered at once. Nothing was sent, and nothing will be delivered. If your own
    /// records have no outcome with this id, let the user start again.
    Ended(ProcessId),
}

/// The answer to [`Poller::request_tokens`]. [`Client`](crate::Client) has [a type of its own](crate::TokenAnswer).
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "it may contain tokens, or the id of the request to wait for"]
pub enum AcceptedTokenRequest {
    /// The OP issued the tokens at once, and nothing will be delivered, with the exception that
    /// [`Poller::authorization_response`] names.
    Complete(IssuedTokens),
    /// The OP has not decided. One [`Delivery`](crate::Delivery) with this id follows after the decision.
    ///
    /// If the OP's answer cannot be stored within 10 s, this is returned before it is stored, as with
    /// [`AcceptedSignIn::Deferred`]. For a repetition of a request with an
    /// [idempotency key](crate::TokenRequest::idempotency_key), this is the id of the first one.
    Deferred(ProcessId),
    /// A repetition of a request whose process, with this id, has ended: its outcome was acknowledged, it failed, or the
    /// OP had answered at once. Nothing was sent, and nothing will be delivered.
    Ended(ProcessId),
}

impl Poller {
    /// Takes the authorization response together with the session of the browser, like
    /// [`Client::authorization_response`](crate::Client::authorization_response). It stores the sign-in, exchanges the
    /// code, stores the answer, and polls. The outcome comes with the [`context`](crate::AuthorizationRequest::context)
    /// that was fixed when the user was redirected.
    ///
    /// A second response for one session sends nothing. Once the first one's exchange is answered, the id of its
    /// sign-in is returned, as [`AcceptedSignIn::Deferred`] or, if it has ended, [`AcceptedSignIn::Ended`]. If the first exchange
    /// failed before the OP processed the code, the second response takes its place.
    ///
    /// The exchange continues if this future is dropped, for example because the browser disconnected. The tokens of
    /// [`AcceptedSignIn::Complete`] are then revoked. After the exchange, this method waits at most 10 s for a store that fails;
    /// see [`AcceptedSignIn::Deferred`].
    ///
    /// # Errors
    ///
    /// After an error or a complete answer nothing will be delivered, with one exception: if this machine fails, or the
    /// time of a [`shutdown`](Self::shutdown) ends, before that is stored,
    /// [`Outcome::Unknown`](crate::Outcome::Unknown) is delivered. It is also delivered if the store fails for more than
    /// ten minutes and another replica reads it first afterwards.
    ///
    /// If an error [keeps the session](Error::keeps_session), the code was not sent or the OP has not processed it: keep
    /// the cookie, and let the user reload. Most of these errors are
    ///
    /// - [`Store`](crate::ErrorKind::Store): the store is unavailable;
    /// - [`Busy`](crate::ErrorKind::Busy): the exchange timed out waiting for a free slot, see
    ///   [`Limits::exchanges`](super::Limits::exchanges);
    /// - [`Misuse::ShutDown`]: this poller was [shut down](Self::shutdown), and another replica or the restarted
    ///   application can handle the response;
    /// - [`Rule::KeysUnavailable`](crate::error::Rule::KeysUnavailable): the response is a JWT, and the OP's keys are
    ///   unavailable;
    /// - [`Transport`](crate::ErrorKind::Transport): the connection to the OP failed.
    ///
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown): the code was sent, and no answer came, or a shutdown did
    /// not wait for it. The user must start again.
    ///
    /// [`Misuse::UnknownClient`] for a session of a client that this poller does not have, and
    /// [`SharedRedirectUri`](crate::error::ConfigurationProblem::SharedRedirectUri) if neither the response nor its URL
    /// shows which OP sent it. In these two cases nothing was sent. All other errors are those of
    /// [`Client::authorization_response`](crate::Client::authorization_response).
    pub async fn authorization_response(
        &self,
        response: &str,
        session: AuthorizationSession,
    ) -> Result<AcceptedSignIn, Error> {
        let shared = self.shared().clone();
        let (issuer, client_id) = session.owner();
        let tenant = shared.tenant_of(issuer, client_id)?;
        let grant = tenant.client.check_late_response(response, &session).await?;
        shared.check_mix_up(&tenant, &grant)?;
        let lateness = grant.lateness();
        let parts = [issuer.as_bytes(), client_id.as_bytes(), grant.state().expose().as_bytes()];
        let sessions = shared.keyring.fingerprints("session", &parts);
        match accept(self.shared(), tenant, grant.into_request(), sessions, lateness).await? {
            Accepted::Deferred(id) => Ok(AcceptedSignIn::Deferred(id)),
            Accepted::Complete(granted) => granted.into_authentication().map(AcceptedSignIn::Complete),
            Accepted::Ended(id) => Ok(AcceptedSignIn::Ended(id)),
        }
    }

    /// Sends a [token request](crate::Client::token_request) for a grant without a user. It stores the request, sends it,
    /// stores the answer, and polls if the OP defers its answer. The outcome comes with the
    /// [`context`](crate::TokenRequest::context) of the request.
    ///
    /// The request continues if this future is dropped. Tokens that the OP issues at once are then revoked. After the
    /// OP's answer, this method waits at most 10 s for a store that fails; see [`AcceptedTokenRequest::Deferred`].
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, poller: &openid_deferred::Poller)
    /// # -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::{Grant, poller::AcceptedTokenRequest};
    ///
    /// let request = client.token_request(Grant::client_credentials()).scopes(["payments"]).context("order 4711");
    /// match poller.request_tokens(request).await? {
    ///     AcceptedTokenRequest::Complete(tokens) => println!("a token of type {:?}", tokens.token_type()),
    ///     AcceptedTokenRequest::Deferred(id) => println!("{id} is pending; its outcome comes from `Poller::outcomes`"),
    ///     answer => println!("{answer:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After an error nothing will be delivered, with the exception that
    /// [`authorization_response`](Self::authorization_response) names.
    ///
    /// - The errors of [`TokenRequest::send`](crate::TokenRequest::send).
    /// - [`Store`](crate::ErrorKind::Store), [`Busy`](crate::ErrorKind::Busy) and [`Misuse::ShutDown`], as for
    ///   [`authorization_response`](Self::authorization_response): nothing was sent.
    /// - [`Misuse::UnknownClient`] if this poller does not have the client of the request.
    pub async fn request_tokens(&self, request: TokenRequest<'_>) -> Result<AcceptedTokenRequest, Error> {
        let client = request.client();
        let tenant = self.shared().tenant_of(client.issuer(), client.client_id())?;
        let keys = self.shared().repetitions("token request", client, request.key());
        let request = request.prepare().await?;
        match accept(self.shared(), tenant, request, keys, None).await? {
            Accepted::Deferred(id) => Ok(AcceptedTokenRequest::Deferred(id)),
            Accepted::Ended(id) => Ok(AcceptedTokenRequest::Ended(id)),
            Accepted::Complete(granted) => granted.into_tokens().map(AcceptedTokenRequest::Complete),
        }
    }

    /// Sends a [backchannel authentication request](crate::Client::backchannel_authentication) (CIBA §7). It stores the
    /// request, sends it, stores the answer, and polls. The outcome comes with the
    /// [`context`](crate::ciba::AuthenticationRequest::context) of the request. The result is [`AcceptedSignIn::Deferred`] or,
    /// for a repetition of a request with an
    /// [idempotency key](crate::ciba::AuthenticationRequest::idempotency_key) that has ended, [`AcceptedSignIn::Ended`].
    ///
    /// The request continues if this future is dropped. After the OP's answer, this method waits at most 10 s for a store
    /// that fails; see [`AcceptedSignIn::Deferred`].
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, poller: &openid_deferred::Poller)
    /// # -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::ciba::UserHint;
    /// use openid_deferred::poller::AcceptedSignIn;
    ///
    /// let request = client
    ///     .backchannel_authentication(UserHint::login_hint("account 12345678"))
    ///     .binding_message("Change of address, W4SCT")
    ///     .context("order 4711")
    ///     .idempotency_key("order 4711");
    /// match poller.request_authentication(request).await? {
    ///     AcceptedSignIn::Deferred(id) => println!("{id} is pending; its outcome comes from `Poller::outcomes`"),
    ///     answer => println!("{answer:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After an error nothing will be delivered, with the exception that
    /// [`authorization_response`](Self::authorization_response) names.
    ///
    /// - The errors of [`AuthenticationRequest::send`](crate::ciba::AuthenticationRequest::send). If the OP refused the
    ///   request, the same request can be sent again with the same idempotency key.
    /// - [`Store`](crate::ErrorKind::Store), [`Busy`](crate::ErrorKind::Busy) and [`Misuse::ShutDown`], as for
    ///   [`authorization_response`](Self::authorization_response): nothing was sent.
    /// - [`Misuse::UnknownClient`] if this poller does not have the client of the request.
    pub async fn request_authentication(&self, request: AuthenticationRequest<'_>) -> Result<AcceptedSignIn, Error> {
        let client = request.client();
        let tenant = self.shared().tenant_of(client.issuer(), client.client_id())?;
        let keys = self.shared().repetitions("authentication request", client, request.key());
        let request = request.prepare().await?;
        match accept(self.shared(), tenant, request, keys, None).await? {
            Accepted::Deferred(id) => Ok(AcceptedSignIn::Deferred(id)),
            Accepted::Ended(id) => Ok(AcceptedSignIn::Ended(id)),
            // The endpoint issues no tokens.
            Accepted::Complete(_) => Err(no_auth_req_id()),
        }
    }

    /// Takes over a sign-in or token request that was started elsewhere, such as with a [`Client`](crate::Client) of
    /// your own. Its outcome comes with the [`context`](PendingAuthentication::context) of `pending`. Afterwards drop
    /// `pending` and all sealed copies, because only this poller may poll it. If the store already has the sign-in, its
    /// id is returned.
    ///
    /// If a future of [`Client::poll`](crate::Client::poll) or [`Client::wait`](crate::Client::wait) was dropped during
    /// a request, this method waits for the answer to that request, and includes it.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`], [`Misuse::NothingToPoll`] for a sign-in that has ended (if a request in flight ended
    /// it, [`Client::poll`](crate::Client::poll) returns the outcome), [`Misuse::ShutDown`] after
    /// [`shutdown`](Self::shutdown), [`Store`](crate::ErrorKind::Store).
    pub async fn track(&self, pending: &PendingAuthentication) -> Result<ProcessId, Error> {
        let shared = self.shared();
        if pending.has_ended() {
            return Err(Misuse::NothingToPoll.into());
        }
        if shared.stop.borrow().is_some() {
            return Err(Misuse::ShutDown.into());
        }
        let tenant = shared.tenant_of(pending.issuer(), pending.client_id())?;
        let mut pending = with_late_answer(pending, &tenant).await?;
        let id = ProcessId::mint(&*shared.random)?;
        let began = shared.clock.monotonic();
        let now = shared.store.settle_and_claim(Vec::new(), None).await?.now;
        let store_clock = StoreClock::new(now, began);
        let moment = store_clock.moment(&*shared.clock);
        pending.0.schedule.move_to_clock(Moment::of(&**tenant.client.clock()), moment.wall);
        let lookups = shared.lookups(&tenant, pending.identifier().expose())?;
        let (context, trace_parent) = (pending.0.context.clone(), pending.0.trace_parent.clone());
        let attached = Attached { context, trace_parent };
        let process = NewProcess {
            id,
            partition: tenant.partition,
            state: State::Waiting,
            sessions: Vec::new(),
            lookups,
            references: Vec::new(),
            due_in: pending.0.schedule.due_in(moment),
            ping_in: pending.0.schedule.ping_in(moment),
            interval: pending.0.schedule.held_back(moment),
            expires_in: pending.0.schedule.expires_in(moment),
            schedule: schedule_text(&pending.0.schedule)?,
            body: Record::new(attached, Stage::Process(pending)).seal(&shared.keyring, &*shared.random, id)?,
        };
        let due_in = process.due_in;
        match shared.store.insert(process).await? {
            Insertion::Exists(existing) => Ok(existing),
            Insertion::Inserted { .. } => {
                shared.emit(Event::Accepted { id });
                shared.wake(tenant.partition, due_in);
                Ok(id)
            }
        }
    }
}

/// Returns a copy of a sign-in that includes the answer to its poll in flight. Two polls are never in flight at a time,
/// and the answer may be the success.
async fn with_late_answer(pending: &PendingAuthentication, tenant: &Tenant) -> Result<PendingAuthentication, Error> {
    let mut copy = pending.duplicate()?;
    // The stored form does not contain the monotonic clock.
    copy.0.schedule = pending.0.schedule.clone();
    let Some(task) = &pending.0.in_flight else { return Ok(copy) };
    let polled = task.inspect(|polled| polled.map(|polled| (polled.answer.clone(), polled.at))).await;
    let Some((answer, at)) = polled else { return Ok(copy) };
    match copy.answered(answer, at, tenant.client.pace()) {
        Standing::Open | Standing::Succeeded => Ok(copy),
        Standing::Ended(_) => Err(Misuse::NothingToPoll.into()),
    }
}

impl Shared {
    /// The fingerprints of a request with an idempotency key, by which a repetition is recognised.
    fn repetitions(&self, purpose: &'static str, client: &Client, key: Option<&Secret>) -> Vec<[u8; 32]> {
        let Some(key) = key else { return Vec::new() };
        let parts = [client.issuer().as_bytes(), client.client_id().as_bytes(), key.expose().as_bytes()];
        self.keyring.fingerprints(purpose, &parts)
    }

    /// The fingerprints to find sign-ins by a reference of the application, whatever their client.
    pub(super) fn references(&self, reference: &str) -> Vec<Fingerprint> {
        self.keyring.fingerprints("reference", &[reference.as_bytes()]).into_iter().map(Fingerprint).collect()
    }

    /// The fingerprints to find a sign-in by its identifier, in any dialect.
    pub(super) fn lookups(&self, tenant: &Tenant, identifier: &str) -> Result<Vec<Fingerprint>, Error> {
        let (issuer, client_id) = (tenant.client.issuer(), tenant.client.client_id());
        let parts = [issuer.as_bytes(), client_id.as_bytes(), identifier.as_bytes()];
        Ok(self.keyring.fingerprints("deferred_auth_id", &parts).into_iter().map(Fingerprint).collect())
    }
}
