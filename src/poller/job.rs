//! The work on one claimed row: one poll, one verification, or the end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::Instrument as _;

use super::circuit_breaker::GrantState;
use super::event::{Event, ProgressText};
use super::measure;
use super::record::{Attached, Record, Stage};
use super::shared::Shared;
use super::store_clock::StoreClock;
use super::tenant::Tenant;
use crate::client::{self, Outcome, Poll};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, ErrorResponse};
use crate::pending::{
    self, Answer, End, PendingAuthentication, Polled, Schedule, Standing, Step, SuccessBody, Taken, Trouble,
    validation_pause,
};
use crate::sealed;
use crate::secret::Secret;
use crate::store::{Cancellation, Claimed, Next, ProcessId, SealedBody, Settlement, State};
use crate::trace_parent::TraceParent;

/// How long to wait for a poll after the end of its lease. With an HTTP client that respects its timeouts, no poll
/// takes that long.
const LATE_ANSWER: Duration = Duration::from_secs(600);

/// When a row that is given back may be claimed again.
#[derive(Debug, Clone, Copy)]
pub(super) enum GiveBack {
    /// After this time.
    For(Duration),
    /// The store's clock was set forward by this much, so the row may not be due yet. A whole interval or `Retry-After`
    /// is never too early.
    ByClock { ahead: Duration },
}

/// One claimed row, with everything that the work on it needs.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) claimed: Claimed,
    pub(super) store_clock: StoreClock,
    /// The start of the claim, on the monotonic clock.
    pub(super) began: Duration,
    /// How long after `began` the poll may be sent.
    pub(super) window: Duration,
    pub(super) lease: Duration,
    /// Whether its poll was sent.
    pub(super) was_sent: Arc<AtomicBool>,
}

/// The result of the work on a row.
#[derive(Clone)]
pub(super) struct Report {
    pub(super) settlement: Settlement,
    /// To be emitted once the settlement is stored, because a listener may read the status at once.
    pub(super) events: Vec<Event>,
}

impl From<Settlement> for Report {
    fn from(settlement: Settlement) -> Self {
        Self { settlement, events: Vec::new() }
    }
}

impl Job {
    /// Works on the row. `None` if there is nothing to settle; then the lease expires.
    pub(super) async fn run(self) -> Option<Report> {
        let worked = match Record::open(&self.shared.keyring, self.claimed.id, &self.claimed.body) {
            Ok(record) => {
                let span = self.span(record.trace_parent.as_ref());
                self.work(record).instrument(span).await
            }
            Err(error) => Err(error),
        };
        match worked {
            Ok(report) => report,
            Err(error) => {
                let consequence = "a sign-in cannot be read and is not polled by this replica";
                self.shared.unreadable(self.claimed.id, consequence, Some(&error));
                None
            }
        }
    }

    /// The span around the work on the row.
    fn span(&self, trace_parent: Option<&TraceParent>) -> tracing::Span {
        let client = &self.tenant.client;
        let span = tracing::debug_span!(
            "openid_deferred.process",
            process = %self.claimed.id,
            issuer = client.issuer(),
            client_id = client.client_id(),
            state = ?self.claimed.state,
            attempt = self.claimed.attempts,
            orphaned = self.claimed.orphaned,
            answer = tracing::field::Empty,
            outcome = tracing::field::Empty,
        );
        self.shared.continue_trace(&span, trace_parent);
        span
    }

    /// Gives the row back without a request.
    pub(super) fn give_back(self, give_back: GiveBack) -> Option<Settlement> {
        if self.claimed.state != State::Waiting {
            return Some(self.settlement(state_again(self.claimed.state)?, Duration::ZERO));
        }
        let schedule: Schedule = sealed::from_json(self.claimed.schedule.as_bytes()).ok()?;
        let now = self.store_clock.moment(&*self.shared.clock);
        let Claimed { pinged, orphaned, .. } = self.claimed;
        // The due time was set before the clock jumped.
        let at = match give_back {
            GiveBack::For(_) => self.store_clock.reading(),
            GiveBack::ByClock { ahead } => self.store_clock.reading().checked_sub(ahead)?,
        };
        let schedule = schedule.taken_and_given_back(now, Taken { at, pinged, orphaned });
        let (interval, due_in) = match give_back {
            GiveBack::For(wait) => (schedule.held_back(now), wait),
            GiveBack::ByClock { ahead } => {
                let interval = schedule.held_back_anew(now);
                (interval, ahead.min(interval))
            }
        };
        let expires_in = schedule.expires_in(now);
        let schedule = schedule_text(&schedule).ok()?;
        Some(Settlement { interval, expires_in, schedule, ..self.settlement(Next::Waiting, due_in) })
    }

    async fn work(&self, record: Record) -> Result<Option<Report>, Error> {
        let (attached, stage) = record.into_parts();
        match (self.claimed.state, stage) {
            // The replica that exchanged the code has died, and the code is never sent again.
            (State::Exchanging, _) => Ok(Some(self.decided(Outcome::Unknown, attached)?.into())),
            (State::Answered, Stage::Process(pending)) => Ok(self.verify(pending, attached).await?.map(Report::from)),
            (State::Waiting, Stage::Process(pending)) => self.ask(pending, attached).await.map(Some),
            _ => Err(Error::new(ErrorKind::Sealed)),
        }
    }

    async fn ask(&self, mut pending: PendingAuthentication, attached: Attached) -> Result<Report, Error> {
        if pending.is_answered() {
            // It was started elsewhere and already contains the response.
            return self.answered(pending, attached).map(Report::from);
        }
        let mut schedule: Schedule = sealed::from_json(self.claimed.schedule.as_bytes())?;
        let now = self.store_clock.moment(&*self.shared.clock);
        if self.claimed.cancellation == Cancellation::Requested {
            self.request_cancellation(&pending, &mut schedule, now)?;
        }
        let mut untouched = schedule.clone();
        if self.claimed.orphaned {
            untouched.orphaned(now);
        }
        let late = now.wall.duration_since(schedule.due_at()).unwrap_or_default();
        let grant = if untouched.answer_lost() { GrantState::MayBeGone } else { GrantState::Valid };
        let Claimed { pinged, orphaned, .. } = self.claimed;
        let step = schedule.claimed(now, Taken { at: self.store_clock.reading(), pinged, orphaned });
        pending.0.schedule = schedule;
        match step {
            Step::Wait(wait) => return self.waiting(pending, now, wait, None).map(Report::from),
            Step::End(end) => {
                let outcome = client::finish(&mut pending, end, None);
                return self.decided(outcome, attached).map(Report::from);
            }
            Step::Ask => {}
        }
        pending.0.schedule.sending(now);
        self.tenant.measure.poll_sent(late);
        self.poll(pending, attached, untouched, grant).await
    }

    /// Sends the poll that the schedule has recorded. If it is not sent in time, the schedule becomes `untouched`.
    async fn poll(
        &self,
        mut pending: PendingAuthentication,
        attached: Attached,
        untouched: Schedule,
        grant: GrantState,
    ) -> Result<Report, Error> {
        let clock = &*self.shared.clock;
        let sent_at = clock.monotonic();
        let poll = tokio::select! {
            biased;
            poll = self.tenant.client.poll_now(&pending) => Some(poll),
            () = clock.sleep(self.left()) => None,
        };
        let is_in_time = || clock.monotonic().saturating_sub(self.began) <= self.window;
        let Some(poll) = poll.filter(|_| is_in_time()) else {
            self.shared.note_unsent(&self.tenant, clock.monotonic().saturating_sub(sent_at));
            pending.0.schedule = pending.0.schedule.given_back(untouched);
            let now = self.store_clock.moment(clock);
            return self.waiting(pending, now, self.tenant.give_back(), None).map(Report::from);
        };
        self.was_sent.store(true, Ordering::Relaxed);
        self.tenant.sent_in_time();
        let mut poll = Box::pin(poll);
        let polled = tokio::select! {
            biased;
            polled = &mut poll => Some(polled),
            // The lease ends here, and with it the right to poll.
            () = clock.sleep(self.left()) => None,
        };
        let (answer, error, unwanted) = match polled {
            Some(Polled { answer, error, at: _, unwanted }) => (answer, error, unwanted),
            None => {
                self.await_late_answer(poll, &pending, &attached)?;
                (Answer::Unusable { unanswered: true, retry_after: None }, None, None)
            }
        };
        self.tenant.measure.polled(&answer, clock.monotonic().saturating_sub(sent_at));
        tracing::Span::current().record("answer", measure::answer_name(&answer));
        self.shared.answered(&self.tenant, &answer, self.grant_by_now(grant, &pending.0.schedule));
        self.shared.note_reachability(&self.tenant, &answer, error.as_ref());
        self.revoke(unwanted, &pending);
        // The answer came within the lease. If this machine was suspended since, it is processed late.
        let late = clock.monotonic().saturating_sub(sent_at).saturating_sub(self.lease);
        self.apply(pending, attached, answer, error, late)
    }

    /// What is known of the grant when the answer to its poll has arrived. An OP may forget sign-ins that have expired or
    /// were cancelled.
    fn grant_by_now(&self, before: GrantState, schedule: &Schedule) -> GrantState {
        let now = self.store_clock.moment(&*self.shared.clock);
        let is_over = schedule.expires_in(now) == Some(Duration::ZERO);
        if is_over || self.claimed.cancellation != Cancellation::None { GrantState::MayBeGone } else { before }
    }

    /// Revokes tokens that came with an answer that ends the sign-in. After a shutdown they are not revoked, and expire.
    fn revoke(&self, unwanted: Option<SuccessBody>, pending: &PendingAuthentication) {
        let Some(SuccessBody(tokens)) = unwanted else { return };
        let (client, key) = (self.tenant.client.clone(), pending.dpop_key().cloned());
        self.shared.run(Box::pin(async move { client.revoke_quietly(&tokens, key.as_ref()).await }));
    }

    /// The remaining time of the lease.
    fn left(&self) -> Duration {
        self.lease.saturating_sub(self.shared.clock.monotonic().saturating_sub(self.began))
    }

    /// Continues to wait for a request after the end of its lease. Then only a success counts, which the OP gives only
    /// once: it is stored regardless of the current holder of the row.
    fn await_late_answer(
        &self,
        poll: impl Future<Output = Polled> + Send + 'static,
        pending: &PendingAuthentication,
        attached: &Attached,
    ) -> Result<(), Error> {
        let job = self.clone();
        let (mut pending, attached) = (pending.duplicate()?, attached.clone());
        let task = async move {
            let polled = tokio::select! {
                biased;
                polled = poll => polled,
                () = job.shared.clock.sleep(LATE_ANSWER) => return,
            };
            let Answer::Success(_) = &polled.answer else { return };
            let now = job.store_clock.moment(&*job.shared.clock);
            let _ = pending.answered(polled.answer, now, job.tenant.client.pace());
            pending.received_at(polled.at.wall);
            let Ok(settlement) = job.answered(pending, attached) else { return };
            job.shared.settle(settlement).await;
            job.shared.wake(job.tenant.partition, Duration::ZERO);
        };
        // A poller that is shutting down does not wait for it.
        self.shared.run(Box::pin(task));
        Ok(())
    }

    /// Applies the OP's answer, which is read `late` after its arrival.
    fn apply(
        &self,
        mut pending: PendingAuthentication,
        attached: Attached,
        answer: Answer,
        error: Option<Error>,
        late: Duration,
    ) -> Result<Report, Error> {
        let id = self.claimed.id;
        let response = answer.error_response().cloned();
        let trouble = Trouble::of(&answer, error.as_ref(), self.store_clock.moment(&*self.shared.clock).wall);
        let progress = pending.progress().map(str::to_owned);
        let interaction = pending.interaction_uri().cloned();
        let now = self.store_clock.moment(&*self.shared.clock);
        let pace = self.tenant.client.pace();
        match pending.answered(answer, now, pace) {
            Standing::Succeeded => {
                let now = self.tenant.client.clock().now();
                pending.received_at(now.checked_sub(late).unwrap_or(now));
                self.answered(pending, attached).map(Report::from)
            }
            Standing::Ended(end) => self.ended(pending, attached, end, response).map(Report::from),
            Standing::Open => {
                let progressed = pending.progress() != progress.as_deref();
                let redirected = pending.interaction_uri() != interaction.as_ref();
                pending.0.schedule.trouble = trouble;
                self.emit_answer(id, response.as_ref(), error);
                let text = pending.progress().filter(|_| progressed);
                let mut events = Vec::new();
                events.extend(text.map(|text| Event::Progress { id, text: ProgressText(text.into()) }));
                events.extend(redirected.then(|| match pending.interaction_uri() {
                    Some(uri) => Event::InteractionRequired { id, uri: uri.clone() },
                    None => Event::InteractionBegun { id },
                }));
                self.emit_stale(pending.0.schedule.newly_stale(now));
                let due_in = pending.0.schedule.due_in(now);
                let body = (progressed || redirected).then_some(attached);
                events.push(Event::Pending { id, due_in });
                Ok(Report { settlement: self.waiting(pending, now, due_in, body)?, events })
            }
        }
    }

    fn emit_answer(&self, id: ProcessId, response: Option<&ErrorResponse>, error: Option<Error>) {
        if response.is_some_and(|response| response.code() == "slow_down") {
            self.shared.emit(Event::SlowDown { id });
        }
        if let Some(response) = response.filter(|response| !pending::is_known_error(response)) {
            self.shared.unknown_error(&self.tenant, id, response.code());
        }
        if let Some(error) = error {
            tracing::debug!(process = %id, error = %error, "a poll failed with a transient error");
            self.shared.emit(Event::TransientError { id, error: Arc::new(error) });
        }
    }

    fn emit_stale(&self, silence: Option<Duration>) {
        let Some(silence) = silence else { return };
        let (id, days) = (self.claimed.id, silence.as_secs() / 86_400);
        tracing::error!(process = %id, days, "the OP has not answered polls of a sign-in without a deadline for a long time");
        self.shared.emit(Event::Stale { id, silence });
    }

    /// Verifies the success response as of its time of receipt.
    async fn verify(
        &self,
        mut pending: PendingAuthentication,
        attached: Attached,
    ) -> Result<Option<Settlement>, Error> {
        pending.tried(self.claimed.attempts.saturating_sub(1));
        // An invalid response is kept for analysis, because the OP gives it only once.
        let response = pending.success_response();
        let concluded = tokio::select! {
            biased;
            concluded = self.tenant.client.conclude(&mut pending, Some(&self.claimed.id)) => concluded,
            () = self.shared.clock.sleep(self.left()) => return Ok(None),
        };
        match concluded {
            Ok(Poll::Finished(outcome)) => {
                let keeps = self.shared.settings.keeps_rejected && matches!(outcome, Outcome::Invalid(_));
                let rejected = response.filter(|_| keeps);
                self.decided_on(outcome, attached, rejected).map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) => {
                let pause = validation_pause(self.claimed.attempts.saturating_sub(1), error.retry_after());
                let trouble = Trouble::of_error(&error, self.store_clock.moment(&*self.shared.clock).wall);
                self.shared.emit(Event::TransientError { id: self.claimed.id, error: Arc::new(error) });
                let schedule = trouble.recorded_in(&self.claimed.schedule);
                Ok(Some(Settlement { schedule, ..self.settlement(Next::Answered, pause) }))
            }
        }
    }

    fn waiting(
        &self,
        pending: PendingAuthentication,
        now: Moment,
        due_in: Duration,
        attached: Option<Attached>,
    ) -> Result<Settlement, Error> {
        let schedule = &pending.0.schedule;
        let mut settlement = Settlement {
            ping_in: schedule.ping_in(now),
            interval: schedule.held_back(now),
            expires_in: schedule.expires_in(now),
            schedule: schedule_text(schedule)?,
            ..self.settlement(Next::Waiting, due_in)
        };
        if let Some(attached) = attached {
            settlement.body = Some(self.seal(Record::new(attached, Stage::Process(pending)))?);
        }
        Ok(settlement)
    }

    /// Stores the success response before it is verified. It applies regardless of the lease.
    fn answered(&self, pending: PendingAuthentication, attached: Attached) -> Result<Settlement, Error> {
        let body = self.seal(Record::new(attached, Stage::Process(pending)))?;
        Ok(Settlement { epoch: None, body: Some(body), ..self.settlement(Next::Answered, Duration::ZERO) })
    }

    fn ended(
        &self,
        mut pending: PendingAuthentication,
        attached: Attached,
        end: End,
        response: Option<ErrorResponse>,
    ) -> Result<Settlement, Error> {
        let outcome = client::finish(&mut pending, end, response);
        self.decided(outcome, attached)
    }

    fn decided(&self, outcome: Outcome, attached: Attached) -> Result<Settlement, Error> {
        self.decided_on(outcome, attached, None)
    }

    fn decided_on(&self, outcome: Outcome, attached: Attached, rejected: Option<Secret>) -> Result<Settlement, Error> {
        self.tenant.measure.decided(&outcome);
        tracing::Span::current().record("outcome", outcome.name());
        let provisional = matches!(outcome, Outcome::Unknown | Outcome::Failed(_));
        let body = self.seal(Record { rejected, ..Record::new(attached, Stage::Outcome(outcome.into())) })?;
        Ok(Settlement { body: Some(body), ..self.settlement(Next::Decided { provisional }, Duration::ZERO) })
    }

    fn seal(&self, record: Record) -> Result<SealedBody, Error> {
        record.seal(&self.shared.keyring, &*self.shared.random, self.claimed.id)
    }

    fn settlement(&self, next: Next, due_in: Duration) -> Settlement {
        Settlement {
            epoch: Some(self.claimed.epoch),
            due_in,
            schedule: self.claimed.schedule.clone(),
            ..Settlement::new(self.claimed.id, next)
        }
    }
}

/// The settlement that leaves a row as it is if it is not waiting. For an interrupted exchange there is none: its lease
/// expires.
fn state_again(state: State) -> Option<Next> {
    (state == State::Answered).then_some(Next::Answered)
}

/// The schedule in the form for the store. It contains no secret.
pub(super) fn schedule_text(schedule: &Schedule) -> Result<String, Error> {
    serde_json::to_string(schedule).map_err(|_| Error::new(ErrorKind::Sealed))
}
