//! The processing of one authorization response or token request: stores a row, sends the request, and stores the answer.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{SemaphorePermit, oneshot};
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::event::Event;
use super::job::schedule_text;
use super::record::{Attached, Record, Stage};
use super::shared::{COMMIT_PAUSE, LONGEST_COMMIT_PAUSE, Shared};
use super::store_clock::StoreClock;
use super::tenant::Tenant;
use crate::client::{Exchanged, Granted, InitialRequest};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Misuse};
use crate::pending::{PendingAuthentication, validation_pause};
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
/// Like [`CALLER_PATIENCE`], for a request that ends without a delivery.
const ENDED_PATIENCE: Duration = Duration::from_secs(2);

/// What became of a request.
pub(super) enum Accepted {
    Deferred(ProcessId),
    Complete(Granted),
    /// The sign-in of this session, or the request with this key, has ended before.
    Ended(ProcessId),
}

/// Stores and sends a request. `lateness` is the reason why it must not be sent, if there is one.
pub(super) async fn accept(
    shared: &Arc<Shared>,
    tenant: Arc<Tenant>,
    request: InitialRequest,
    sessions: Vec<[u8; 32]>,
    lateness: Option<Error>,
) -> Result<Accepted, Error> {
    let (sender, receiver) = oneshot::channel();
    let acceptance = Acceptance {
        id: ProcessId::mint(&*shared.random)?,
        attached: Attached {
            context: Zeroizing::new(request.context().to_vec()),
            trace_parent: request.trace_parent().cloned(),
        },
        sessions: sessions.into_iter().map(Fingerprint).collect(),
        references: request.reference().map_or_else(Vec::new, |reference| shared.references(reference.expose())),
        shared: shared.clone(),
        tenant,
        may_be_sent: Arc::default(),
        caller: Mutex::new(Some(sender)),
    };
    let (may_be_sent, step) = (acceptance.may_be_sent.clone(), request.step());
    let task = Box::pin(async move {
        let span = acceptance.span();
        let answer = acceptance.run(request, lateness).instrument(span).await;
        acceptance.answer(answer);
    });
    if !shared.run(task) {
        return Err(Misuse::ShutDown.into());
    }
    // At shutdown, the engine drops background tasks that do not finish in time.
    receiver.await.unwrap_or_else(|_| match may_be_sent.load(Ordering::Acquire) {
        true => Err(Error::new(ErrorKind::OutcomeUnknown).in_step(step)),
        false => Err(Misuse::ShutDown.into()),
    })
}

/// The processing of one authorization response or token request.
struct Acceptance {
    id: ProcessId,
    attached: Attached,
    /// What a second response of the same session, or a repetition of the same request, is recognised by.
    sessions: Vec<Fingerprint>,
    /// What the application finds the sign-in by.
    references: Vec<Fingerprint>,
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
        let span = tracing::info_span!(
            "openid_deferred.exchange",
            process = %self.id,
            issuer = client.issuer(),
            client_id = client.client_id(),
            result = tracing::field::Empty,
        );
        self.shared.continue_trace(&span, self.attached.trace_parent.as_ref());
        span
    }

    /// Records the result of the exchange, for logs and metrics.
    fn exchanged(&self, result: &'static str) {
        self.tenant.measure.exchanged(result);
        tracing::Span::current().record("result", result);
    }

    /// Answers the caller, unless it was answered already. If the caller was dropped, a pending request is still in the
    /// store. Tokens that came at once are not; they are revoked.
    fn answer(&self, answer: Result<Accepted, Error>) {
        let caller = self.caller.lock().unwrap_or_else(PoisonError::into_inner).take();
        let unheard = caller.and_then(|caller| caller.send(answer).err());
        if let Some(Ok(Accepted::Complete(granted))) = unheard {
            let client = self.tenant.client.clone();
            tracing::warn!(process = %self.id, "the caller was dropped before the OP's answer arrived; the tokens are revoked");
            // After a shutdown the tokens are not revoked, and expire.
            self.shared.run(Box::pin(async move { client.revoke_granted(&granted).await }));
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
                return self.conclude(self.forget(), Err(refusal)).await;
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
                self.verify_interim(pending).await;
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
                self.exchanged(request.unspent_result(&error));
                // The code is unspent, so the same response may be tried again.
                self.conclude(self.forget(), Err(error)).await
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

    /// Removes the row, however long that takes, so that the request may be tried again.
    async fn forget(&self) {
        let mut pause = COMMIT_PAUSE;
        while let Err(error) = self.shared.store.forget(self.id).await {
            self.shared.store_failed(error, "the row of a request that was not processed cannot be removed yet");
            self.shared.clock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_COMMIT_PAUSE);
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
            let existing = match store.insert(self.exchanging()?).await? {
                Insertion::Inserted { now } => return Ok(ControlFlow::Continue(StoreClock::new(now, began))),
                Insertion::Exists(existing) => existing,
            };
            let process = store.load(existing).await?;
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
            references: self.references.clone(),
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
    /// If storing takes long, the caller is answered first. The store contains the row of the exchange, so an outcome
    /// follows in any case, even if this replica dies.
    async fn store(&self, settlement: Settlement) {
        let _committing = Committing::new(&self.shared, self.id);
        let mut stored = pin!(self.shared.settle(settlement));
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

    /// Stores that nothing will be delivered, and answers the caller.
    async fn end(&self, answer: Result<Accepted, Error>) -> Result<Accepted, Error> {
        self.conclude(self.shared.settle(self.ended()), answer).await
    }

    /// Answers the caller when the end of the request is stored or, if that takes too long, before.
    async fn conclude(
        &self,
        stored: impl Future<Output = ()>,
        answer: Result<Accepted, Error>,
    ) -> Result<Accepted, Error> {
        let _committing = Committing::new(&self.shared, self.id);
        let mut stored = pin!(stored);
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
    async fn verify_interim(&self, mut pending: PendingAuthentication) {
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
        let record = Record::new(self.attached.clone(), stage);
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
