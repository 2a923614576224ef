//! Adds sign-ins to the store, from an authorization response or from elsewhere.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{SemaphorePermit, oneshot};
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::event::Event;
use super::handle::Poller;
use super::job::schedule_text;
use super::record::{Record, Stage};
use super::shared::{COMMIT_PAUSE, LONGEST_COMMIT_PAUSE, Shared, store_error};
use super::store_clock::StoreClock;
use super::tenant::Tenant;
use crate::client::{
    Authentication, AuthorizationSession, Exchanged, Granted, InitialRequest, IssuedTokens, TokenRequest,
};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Misuse};
use crate::pending::{PendingAuthentication, Standing, validation_pause};
use crate::store::{
    Fingerprint, Insertion, NewProcess, Next, Process, ProcessId, Reseal, SealedBody, Settlement, State,
};

/// How long an exchange waits for a free slot.
const QUEUE_PATIENCE: Duration = Duration::from_secs(30);
/// How long an exchange waits for an unavailable store before other replicas treat the sign-in as lost.
const COMMIT_PATIENCE: Duration = Duration::from_secs(600);
/// The time after the longest exchange for removing the row of a failed one.
const FORGET_PATIENCE: Duration = Duration::from_secs(10);
/// How long a caller waits until the OP's answer is stored. Afterwards the poller still tries to store it.
const CALLER_PATIENCE: Duration = Duration::from_secs(10);
/// The same if nothing is delivered afterwards.
const ENDED_PATIENCE: Duration = Duration::from_secs(2);

/// The state of a sign-in in the durable poller after the user returned. [`Client`](crate::Client) has
/// [a type of its own](crate::SignIn), because with it the application stores the pending sign-in.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "it may contain the user's authentication, or the id of the sign-in to wait for"]
pub enum SignIn {
    /// The OP has not decided, or its answer cannot be verified yet because its keys are unavailable. One
    /// [`Delivery`](crate::Delivery) with this id follows after the decision. For a second response of the same
    /// session, this is the id of the sign-in of the first response.
    ///
    /// If the OP's answer cannot be stored within 10 s, this is returned before it is stored, and the poller keeps trying
    /// to store it for as long as it runs. If the poller ends before that, the outcome is
    /// [`Unknown`](crate::Outcome::Unknown).
    Deferred(ProcessId),
    /// The OP answered at once. The user is signed in, and nothing will be delivered.
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
pub enum TokenAnswer {
    /// The OP issued the tokens at once, and nothing will be delivered.
    Complete(IssuedTokens),
    /// The OP has not decided. One [`Delivery`](crate::Delivery) with this id follows after the decision.
    ///
    /// If the OP's answer cannot be stored within 10 s, this is returned before it is stored, as with
    /// [`SignIn::Deferred`]. For a repetition of a request with an
    /// [idempotency key](crate::TokenRequest::idempotency_key), this is the id of the first one.
    Deferred(ProcessId),
    /// A repetition of a request whose process, with this id, has ended: its outcome was acknowledged, it failed, or the
    /// OP had answered at once. Nothing was sent, and nothing will be delivered.
    Ended(ProcessId),
}

/// What became of a request.
enum Accepted {
    Deferred(ProcessId),
    Complete(Granted),
    /// The sign-in of this session, or the request with this key, has ended before.
    Ended(ProcessId),
}

impl Poller {
    /// Takes the authorization response together with the session of the browser, like
    /// [`Client::authorization_response`](crate::Client::authorization_response). It stores the sign-in, exchanges the
    /// code, stores the answer, and polls. The outcome comes with the [`context`](crate::AuthorizationRequest::context)
    /// that was fixed when the user was redirected.
    ///
    /// A second response for one session sends nothing. Once the first one's exchange is answered, the id of its
    /// sign-in is returned, as [`SignIn::Deferred`] or, if it has ended, [`SignIn::Ended`]. If the first exchange
    /// failed before the OP processed the code, the second response takes its place.
    ///
    /// The exchange continues if this future is dropped, for example because the browser disconnected. After the
    /// exchange, this method waits at most 10 s for a store that fails; see [`SignIn::Deferred`].
    ///
    /// # Errors
    ///
    /// After an error nothing will be delivered, with one exception: if this machine or the store fails, or the time of
    /// a [`shutdown`](Self::shutdown) ends, before the failure is stored, [`Outcome::Unknown`](crate::Outcome::Unknown)
    /// is delivered.
    ///
    /// If an error is [transient](Error::is_transient) and is not the OP's [answer](Error::error_response), the code
    /// was not sent: keep the cookie, and let the user reload. These errors are
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
    /// shows which OP sent it. In these two cases nothing was sent. Otherwise the errors of
    /// [`Client::authorization_response`](crate::Client::authorization_response).
    pub async fn authorization_response(&self, response: &str, session: AuthorizationSession) -> Result<SignIn, Error> {
        let shared = self.shared().clone();
        let (issuer, client_id) = session.owner();
        let tenant = shared.tenant_of(issuer, client_id)?;
        let grant = tenant.client.check_late_response(response, &session).await?;
        shared.check_mix_up(&tenant, &grant)?;
        let lateness = grant.lateness();
        let parts = [issuer.as_bytes(), client_id.as_bytes(), grant.state().expose().as_bytes()];
        let sessions = shared.keyring.fingerprints("session", &parts);
        match self.accept(tenant, grant.into_request(), sessions, lateness).await? {
            Accepted::Deferred(id) => Ok(SignIn::Deferred(id)),
            Accepted::Complete(granted) => granted.into_authentication().map(SignIn::Complete),
            Accepted::Ended(id) => Ok(SignIn::Ended(id)),
        }
    }

    /// Sends a [token request](crate::Client::token_request) for a grant without a user. It stores the request, sends it,
    /// stores the answer, and polls if the OP defers its answer. The outcome comes with the
    /// [`context`](crate::TokenRequest::context) of the request.
    ///
    /// The request continues if this future is dropped. After the OP's answer, this method waits at most 10 s for a store
    /// that fails; see [`TokenAnswer::Deferred`].
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, poller: &openid_deferred::Poller)
    /// # -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::{Grant, poller::TokenAnswer};
    ///
    /// let request = client.token_request(Grant::client_credentials()).scopes(["payments"]).context("order 4711");
    /// match poller.request_tokens(request).await? {
    ///     TokenAnswer::Complete(tokens) => println!("a token of type {:?}", tokens.token_type()),
    ///     TokenAnswer::Deferred(id) => println!("{id} is pending; its outcome comes from `Poller::outcomes`"),
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
    pub async fn request_tokens(&self, request: TokenRequest<'_>) -> Result<TokenAnswer, Error> {
        let client = request.client();
        let tenant = self.shared().tenant_of(client.issuer(), client.client_id())?;
        let parts = |key| [client.issuer().as_bytes(), client.client_id().as_bytes(), key];
        let fingerprints = |key| self.shared().keyring.fingerprints("token request", &parts(key));
        let keys = request.key().map(|key| fingerprints(key.expose().as_bytes())).unwrap_or_default();
        let request = request.prepare().await?;
        match self.accept(tenant, request, keys, None).await? {
            Accepted::Deferred(id) => Ok(TokenAnswer::Deferred(id)),
            Accepted::Ended(id) => Ok(TokenAnswer::Ended(id)),
            Accepted::Complete(granted) => granted.into_tokens().map(TokenAnswer::Complete),
        }
    }

    /// Stores and sends a request. `lateness` is the reason why it must not be sent, if there is one.
    async fn accept(
        &self,
        tenant: Arc<Tenant>,
        request: InitialRequest,
        sessions: Vec<[u8; 32]>,
        lateness: Option<Error>,
    ) -> Result<Accepted, Error> {
        let shared = self.shared().clone();
        let (sender, receiver) = oneshot::channel();
        let acceptance = Acceptance {
            id: ProcessId::mint(&*shared.random)?,
            context: Zeroizing::new(request.context().to_vec()),
            sessions: sessions.into_iter().map(Fingerprint).collect(),
            shared: shared.clone(),
            tenant,
            may_be_sent: Arc::default(),
            caller: Mutex::new(Some(sender)),
        };
        let (may_be_sent, step) = (acceptance.may_be_sent.clone(), request.step());
        let errand = Box::pin(async move {
            let span = acceptance.span();
            let answer = acceptance.run(request, lateness).instrument(span).await;
            acceptance.answer(answer);
        });
        if !shared.run(errand) {
            return Err(Misuse::ShutDown.into());
        }
        // At shutdown, the engine drops errands that do not finish in time.
        receiver.await.unwrap_or_else(|_| match may_be_sent.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::OutcomeUnknown).in_step(step)),
            false => Err(Misuse::ShutDown.into()),
        })
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
        let now = shared.store.work(Vec::new(), None).await.map_err(store_error)?.now;
        let store_clock = StoreClock::new(now, began);
        let moment = store_clock.moment(&*shared.clock);
        pending.0.schedule.move_to_clock(Moment::of(&**tenant.client.clock()), moment.wall);
        let lookups = shared.lookups(&tenant, pending.identifier().expose())?;
        let process = NewProcess {
            id,
            partition: tenant.partition,
            state: State::Waiting,
            sessions: Vec::new(),
            lookups,
            due_in: pending.0.schedule.due_in(moment),
            ping_in: pending.0.schedule.ping_in(moment),
            interval: pending.0.schedule.held_back(moment),
            expires_in: pending.0.schedule.expires_in(moment),
            schedule: schedule_text(&pending.0.schedule)?,
            body: Record::new(pending.0.context.clone(), Stage::Process(pending)).seal(
                &shared.keyring,
                &*shared.random,
                id,
            )?,
        };
        let due_in = process.due_in;
        match shared.store.insert(process).await.map_err(store_error)? {
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
    let polled = task.look(|polled| polled.map(|polled| (polled.answer.clone(), polled.at))).await;
    let Some((answer, at)) = polled else { return Ok(copy) };
    match copy.answered(answer, at, tenant.client.pace()) {
        Standing::Open | Standing::Succeeded => Ok(copy),
        Standing::Ended(_) => Err(Misuse::NothingToPoll.into()),
    }
}

/// The processing of one authorization response or token request.
struct Acceptance {
    id: ProcessId,
    context: Zeroizing<Vec<u8>>,
    /// What a second response of the same session, or a repetition of the same request, is recognised by.
    sessions: Vec<Fingerprint>,
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    /// Whether the OP may have the code. It is read after this value is dropped.
    may_be_sent: Arc<AtomicBool>,
    /// The caller, until it gets its answer.
    caller: Mutex<Option<oneshot::Sender<Result<Accepted, Error>>>>,
}

impl Acceptance {
    fn span(&self) -> tracing::Span {
        let client = &self.tenant.client;
        tracing::info_span!(
            "openid_deferred.exchange",
            process = %self.id,
            issuer = client.issuer(),
            client_id = client.client_id(),
            result = tracing::field::Empty,
        )
    }

    /// Records the result of the exchange, for logs and metrics.
    fn exchanged(&self, result: &'static str) {
        self.tenant.measure.exchanged(result);
        tracing::Span::current().record("result", result);
    }

    /// Answers the caller, unless it has its answer. If the caller was dropped, the result is still in the store.
    fn answer(&self, answer: Result<Accepted, Error>) {
        let caller = self.caller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(caller) = caller {
            let _ = caller.send(answer);
        }
    }

    async fn run(&self, mut request: InitialRequest, lateness: Option<Error>) -> Result<Accepted, Error> {
        let (shared, client) = (&self.shared, &self.tenant.client);
        if shared.settings.pings {
            let (partition, id) = (self.tenant.partition.0, self.id.to_bytes());
            let (issuer, client_id) = (client.issuer(), client.client_id());
            let token = shared.keyring.notification_token(&*shared.random, partition, id, issuer, client_id)?;
            request.set_notification_token(token);
        }
        let store_clock = match self.begin().await? {
            ControlFlow::Continue(store_clock) => store_clock,
            ControlFlow::Break(accepted) => return Ok(accepted),
        };
        let slot = self.slot().await.and_then(|slot| lateness.map_or(Ok(slot), Err));
        let slot = match slot {
            Ok(slot) => slot,
            Err(refusal) => {
                self.exchanged("unsent");
                self.forget().await;
                return Err(refusal);
            }
        };
        self.may_be_sent.store(true, Ordering::Release);
        let exchanged = client.exchange_unverified(&mut request).await;
        self.may_be_sent.store(exchanged.is_ok() || request.is_spent(), Ordering::Release);
        // The next exchange can begin. This one may wait for the store for minutes.
        drop(slot);
        match exchanged {
            Ok(Exchanged::Deferred(pending)) => {
                self.exchanged("deferred");
                let pending = self.commit(pending, store_clock).await?;
                shared.emit(Event::Accepted { id: self.id });
                if let Some(uri) = pending.interaction_uri() {
                    shared.emit(Event::InteractionRequired { id: self.id, uri: uri.clone() });
                }
                self.look_at_interim(pending).await;
                Ok(Accepted::Deferred(self.id))
            }
            Ok(Exchanged::Complete(granted)) => {
                self.exchanged("complete");
                self.end(Ok(Accepted::Complete(granted))).await
            }
            Err(error) if request.is_spent() => {
                if let Some(pending) = client.keep_answer(&mut request) {
                    self.exchanged("kept");
                    return self.keep(pending, error).await;
                }
                let is_unknown = error.kind() == &ErrorKind::OutcomeUnknown;
                self.exchanged(if is_unknown { "unknown" } else { "refused" });
                self.end(Err(error)).await
            }
            Err(error) => {
                self.exchanged("unsent");
                // The code is unspent, so the same response may be tried again.
                self.forget().await;
                Err(error)
            }
        }
    }

    /// Waits for a free slot for the exchange, unless that takes too long or the poller stops. The row exists already,
    /// so that a second response of this session waits for this one and does not take another slot.
    async fn slot(&self) -> Result<SemaphorePermit<'_>, Error> {
        let mut stop = self.shared.stop.subscribe();
        tokio::select! {
            biased;
            slot = self.tenant.exchanges.acquire() => slot.map_err(|_| Error::new(ErrorKind::Busy)),
            // The row is removed in the remaining time, so that another replica can handle the response.
            _ = stop.wait_for(Option::is_some) => Err(Misuse::ShutDown.into()),
            () = self.shared.clock.sleep(QUEUE_PATIENCE) => Err(Error::new(ErrorKind::Busy)),
        }
    }

    async fn forget(&self) {
        if let Err(problem) = self.shared.store.forget(self.id).await {
            tracing::warn!(error = %problem, "the row of a failed sign-in could not be removed");
        }
    }

    /// Inserts the row of the session. Another exchange may have inserted it. Its id is returned only when that
    /// exchange can no longer fail without effect, because after such a failure the row is removed and no outcome
    /// follows.
    async fn begin(&self) -> Result<ControlFlow<Accepted, StoreClock>, Error> {
        let (store, clock) = (&self.shared.store, &self.shared.clock);
        let mut pause = COMMIT_PAUSE;
        loop {
            let began = clock.monotonic();
            let existing = match store.insert(self.exchanging()?).await.map_err(store_error)? {
                Insertion::Inserted { now } => return Ok(ControlFlow::Continue(StoreClock::new(now, began))),
                Insertion::Exists(existing) => existing,
            };
            let process = store.load(existing).await.map_err(store_error)?;
            if process.as_ref().is_some_and(|process| process.state == State::Acknowledged) {
                return Ok(ControlFlow::Break(Accepted::Ended(existing)));
            }
            let has_begun = |process: Process| {
                process.state != State::Exchanging || process.due_in.saturating_add(FORGET_PATIENCE) < COMMIT_PATIENCE
            };
            if process.is_some_and(has_begun) {
                return Ok(ControlFlow::Break(Accepted::Deferred(existing)));
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_COMMIT_PAUSE);
        }
    }

    /// The row that is written before anything is sent, so that a crash of this process is noticed.
    fn exchanging(&self) -> Result<NewProcess, Error> {
        let client = &self.tenant.client;
        let (body, _) = self.seal(Stage::Exchanging)?;
        Ok(NewProcess {
            sessions: self.sessions.clone(),
            due_in: client.longest_exchange().saturating_add(QUEUE_PATIENCE).saturating_add(COMMIT_PATIENCE),
            ..NewProcess::new(self.id, self.tenant.partition, State::Exchanging, body)
        })
    }

    /// Stores the answer before it is examined further.
    async fn commit(
        &self,
        mut pending: PendingAuthentication,
        store_clock: StoreClock,
    ) -> Result<PendingAuthentication, Error> {
        let shared = &self.shared;
        let local = Moment::of(&**self.tenant.client.clock());
        let moment = store_clock.moment(&*shared.clock);
        let schedule = &mut pending.0.schedule;
        schedule.move_to_clock(local, moment.wall);
        let mut settlement = Settlement {
            next: Next::Waiting,
            due_in: schedule.due_in(moment),
            ping_in: schedule.ping_in(moment),
            interval: schedule.held_back(moment),
            expires_in: schedule.expires_in(moment),
            schedule: schedule_text(schedule)?,
            ..self.ended()
        };
        settlement.lookup = shared.lookups(&self.tenant, pending.identifier().expose())?.into_iter().next();
        let (body, stage) = self.seal(Stage::Process(pending))?;
        settlement.body = Some(body);
        let due_in = settlement.due_in;
        self.store(settlement).await;
        self.shared.wake(self.tenant.partition, due_in);
        match stage {
            Stage::Process(pending) => Ok(pending),
            Stage::Exchanging | Stage::Outcome(_) => Err(Misuse::NothingToPoll.into()),
        }
    }

    /// Stores an answer that the OP gives only once, however long that takes.
    ///
    /// If that takes long, the caller gets its answer before. The store contains the row of the exchange, so an outcome
    /// follows in any case, even if this replica dies.
    async fn store(&self, settlement: Settlement) {
        let _committing = Committing::new(&self.shared, self.id);
        let mut stored = pin!(self.shared.settle(settlement, Duration::MAX));
        let is_late = tokio::select! {
            biased;
            () = &mut stored => false,
            () = self.shared.clock.sleep(CALLER_PATIENCE) => true,
        };
        if is_late {
            tracing::warn!(process = %self.id, "the OP's answer to the code cannot be stored yet; the caller does not wait");
            self.answer(Ok(Accepted::Deferred(self.id)));
            stored.await;
        }
    }

    /// Stores that nothing will be delivered, and answers the caller. If that takes too long, the row is left to its
    /// lease.
    async fn end(&self, answer: Result<Accepted, Error>) -> Result<Accepted, Error> {
        let mut stored = pin!(self.shared.settle(self.ended(), COMMIT_PATIENCE));
        tokio::select! {
            biased;
            () = &mut stored => return answer,
            () = self.shared.clock.sleep(ENDED_PATIENCE) => {}
        }
        self.answer(answer);
        stored.await;
        // The caller has its answer.
        Ok(Accepted::Ended(self.id))
    }

    /// Stores an immediate answer of the OP that cannot be verified now, like any other success response.
    async fn keep(&self, pending: PendingAuthentication, error: Error) -> Result<Accepted, Error> {
        tracing::warn!(process = %self.id, error = %error, "the OP's answer cannot be verified yet; it is kept and verified later");
        let (body, _) = self.seal(Stage::Process(pending))?;
        let due_in = validation_pause(0, error.retry_after());
        let settlement = Settlement { next: Next::Answered, due_in, body: Some(body), ..self.ended() };
        self.store(settlement).await;
        self.shared.emit(Event::Accepted { id: self.id });
        self.shared.wake(self.tenant.partition, due_in);
        Ok(Accepted::Deferred(self.id))
    }

    /// Verifies the interim ID Token, for [`Poller::status`]. If that fails now, it is tried again at the end of the
    /// sign-in.
    async fn look_at_interim(&self, mut pending: PendingAuthentication) {
        if pending.0.unverified_interim.is_none() {
            return;
        }
        self.tenant.client.try_to_verify_interim(&mut pending).await;
        // Written only if the row has not changed since, because the next poll may have been faster.
        if let Ok((body, _)) = self.seal(Stage::Process(pending)) {
            let reseal = Reseal { id: self.id, revision: 1, body };
            if let Err(error) = self.shared.store.reseal(vec![reseal]).await {
                tracing::warn!(error = %error, "the verified interim ID Token could not be stored");
            }
        }
    }

    fn ended(&self) -> Settlement {
        Settlement { due_in: self.shared.settings.keep_tombstones, ..Settlement::new(self.id, Next::Ended) }
    }

    fn seal(&self, stage: Stage) -> Result<(SealedBody, Stage), Error> {
        let record = Record::new(self.context.clone(), stage);
        let body = record.seal(&self.shared.keyring, &*self.shared.random, self.id)?;
        Ok((body, record.stage))
    }
}

/// While it exists, the engine does not treat the exchange as dead.
struct Committing<'a>(&'a Shared, ProcessId);

impl<'a> Committing<'a> {
    fn new(shared: &'a Shared, id: ProcessId) -> Self {
        shared.committing().insert(id);
        Self(shared, id)
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.0.committing().remove(&self.1);
    }
}

impl Shared {
    /// The fingerprints to find a sign-in by its identifier, in any dialect.
    pub(super) fn lookups(&self, tenant: &Tenant, identifier: &str) -> Result<Vec<Fingerprint>, Error> {
        let (issuer, client_id) = (tenant.client.issuer(), tenant.client.client_id());
        let parts = [issuer.as_bytes(), client_id.as_bytes(), identifier.as_bytes()];
        Ok(self.keyring.fingerprints("deferred_auth_id", &parts).into_iter().map(Fingerprint).collect())
    }
}
