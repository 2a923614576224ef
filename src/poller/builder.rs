//! The settings of a poller.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::bounded::{BoundedStore, CALL_TIMEOUT, within};
use super::engine::Engine;
use super::handle::{Handle, Poller};
use super::limits::{LimitedClient, Limits};
use super::measure;
use super::record::{FORMAT, Record};
use super::shared::{ContinueTrace, Settings, Shared};
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigurationProblem, Error};
use crate::keyring::Keyring;
use crate::random::{Random, SystemRandom};
use crate::store::{ProcessId, SealedBody, Store};

/// The default duration of a delivery's claim without renewal.
const DELIVERY_LEASE: Duration = Duration::from_secs(300);
/// The default time for which the application may hold a delivery.
const LONGEST_DELIVERY: Duration = Duration::from_secs(3600);
/// The least time for which an outcome is kept. A shorter time is probably in the wrong unit.
const SHORTEST_RETENTION: Duration = Duration::from_secs(86_400);
/// The default maximum number of polls and verifications in progress, of all clients together.
const IN_FLIGHT: usize = 1_024;
/// How many rows are tried with the keyring at startup. It is enough to open one of them.
const TRIED_ROWS: usize = 16;

/// Settings of a [`Poller`]. Finish with [`start`](Self::start), or with [`connect`](Self::connect) if another replica
/// polls.
#[must_use = "settings do nothing until `start` or `connect` makes a poller of them"]
pub struct PollerBuilder {
    store: Arc<dyn Store>,
    keyring: Keyring,
    clients: Vec<LimitedClient>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    settings: Settings,
    continue_trace: Option<ContinueTrace>,
}

impl Poller {
    /// Returns a builder for a new poller.
    pub fn builder(store: impl Store + 'static, keyring: Keyring) -> PollerBuilder {
        PollerBuilder::new(Arc::new(store), keyring)
    }
}

impl PollerBuilder {
    fn new(store: Arc<dyn Store>, keyring: Keyring) -> Self {
        Self {
            store,
            keyring,
            clients: Vec::new(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            settings: Settings {
                polls: true,
                in_flight: IN_FLIGHT,
                limits: Limits::new(),
                prefetch: 64,
                delivery_lease: DELIVERY_LEASE,
                longest_delivery: LONGEST_DELIVERY,
                keep_tombstones: Duration::from_secs(7 * 86_400),
                keep_outcomes: None,
                keeps_rejected: true,
                pings: false,
            },
            continue_trace: None,
        }
    }

    /// Adds a client, or a [`LimitedClient`] with limits of its own. To add one later, use [`Poller::add_client`].
    pub fn client(mut self, client: impl Into<LimitedClient>) -> Self {
        self.clients.push(client.into());
        self
    }

    /// Sets the limits of this replica's load on the OP of each client. By default these are 64 polls and 256 exchanges
    /// in flight, and no limit on the rate.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sets the maximum number of polls and verifications in progress in this replica, of all clients together; 1,024
    /// by default, and at least one.
    ///
    /// Each uses a request and a few kilobytes of memory. Further due rows wait in the store: stored successes come
    /// first, then the longest overdue rows. [`Limits::in_flight`] bounds each client. With several clients, the last
    /// quarter of the slots is shared: once no others are free, a client starts polls only until it has as many in
    /// flight as slots are free. A few clients with slow OPs therefore cannot occupy all slots.
    pub fn in_flight(mut self, polls: usize) -> Self {
        self.settings.in_flight = polls.max(1);
        self
    }

    /// Sets how many outcomes each stream takes at once; 64 by default, and at least one.
    pub fn prefetch(mut self, outcomes: usize) -> Self {
        self.settings.prefetch = outcomes.max(1);
        self
    }

    /// Sets how long outcomes stay claimed after their replica has died, before another replica can deliver them; 5
    /// minutes by default, and at least a second. A running replica renews its claims three times per lease.
    pub fn delivery_lease(mut self, time: Duration) -> Self {
        self.settings.delivery_lease = time.max(Duration::from_secs(1));
        self
    }

    /// Sets how long the application may hold one [`Delivery`](crate::Delivery); an hour by default.
    ///
    /// After that time its claim is no longer renewed, and [`Event::DeliveryOverdue`](super::Event::DeliveryOverdue)
    /// and a warning name the sign-in. The outcome is delivered again within the [lease](Self::delivery_lease), to
    /// another stream if the consumer of this one hangs.
    pub fn longest_delivery(mut self, time: Duration) -> Self {
        self.settings.longest_delivery = time;
        self
    }

    /// Sets how long an outcome may stay in the store without an acknowledgement. By default there is no limit, because
    /// an outcome is never lost silently.
    ///
    /// After that time, counted from the decision, any replica with this setting erases the outcome with its tokens and
    /// context, even if the application holds it, and emits [`Event::OutcomeExpired`](super::Event::OutcomeExpired). The
    /// user has to sign in again. Set it where data protection requires a limit, well above the longest outage of your
    /// consumer of outcomes: at least a day.
    pub fn keep_outcomes(mut self, time: Duration) -> Self {
        self.settings.keep_outcomes = Some(time.max(SHORTEST_RETENTION));
        self
    }

    /// Does not keep the OP's success response if it is invalid. By default it is kept beside its outcome until the
    /// acknowledgement, so that [`Delivery::rejected_response`](crate::Delivery::rejected_response) returns it for
    /// analysis. It may contain tokens and claims.
    pub fn without_rejected_responses(mut self) -> Self {
        self.settings.keeps_rejected = false;
        self
    }

    /// Sets how long the poller remembers that an outcome was acknowledged; 7 days by default. During that time it
    /// recognises a second authorization response of the same session.
    pub fn keep_tombstones(mut self, time: Duration) -> Self {
        self.settings.keep_tombstones = time;
        self
    }

    /// Sends the OP a new notification token for each sign-in and token request, so that it can ping (DTR §Ping
    /// Callback; IETF DTR §Callback Notification). Set it if a [`ping::Receiver`](crate::ping::Receiver) is served at
    /// the client's registered notification endpoint.
    pub fn receives_pings(mut self) -> Self {
        self.settings.pings = true;
        self
    }

    /// Calls this function for each new span `openid_deferred.exchange` and `openid_deferred.process` of a sign-in that
    /// has a [trace](crate::AuthorizationRequest::trace_parent), with the value of its header `traceparent`, before the
    /// span is entered. The function makes the span a child of the trace, or adds a link to it. It must be fast. By
    /// default spans are not joined to traces.
    ///
    /// With `tracing-opentelemetry`:
    ///
    /// ```
    /// # use openid_deferred::poller::PollerBuilder;
    /// use opentelemetry::propagation::TextMapPropagator;
    /// use opentelemetry_sdk::propagation::TraceContextPropagator;
    /// use tracing_opentelemetry::OpenTelemetrySpanExt;
    ///
    /// fn with_traces(poller: PollerBuilder) -> PollerBuilder {
    ///     poller.continue_traces(|span, trace_parent| {
    ///         let headers = std::collections::HashMap::from([("traceparent".to_owned(), trace_parent.to_owned())]);
    ///         let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
    ///     })
    /// }
    /// ```
    pub fn continue_traces(mut self, function: impl Fn(&tracing::Span, &str) + Send + Sync + 'static) -> Self {
        self.continue_trace = Some(Arc::new(function));
        self
    }

    /// Sets the clock to use instead of the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of randomness to use instead of the operating system's. For simulations only.
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// Starts a poller that does everything: it accepts authorization responses and pings, polls, and delivers
    /// outcomes. It needs a tokio runtime. It sends no request to an OP.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if the keyring cannot open the rows in the store, two clients
    /// are the same, or clients of two OPs share a redirect URI although one of the OPs is known not to name itself in
    /// its responses; [`Store`](crate::ErrorKind::Store) if the store is unavailable.
    pub async fn start(self) -> Result<Poller, Error> {
        self.build().await
    }

    /// Starts a poller that does not poll. Use it for replicas that accept authorization responses and pings, and may
    /// deliver outcomes, while others poll.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start).
    pub async fn connect(mut self) -> Result<Poller, Error> {
        self.settings.polls = false;
        self.build().await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the poller's only task; the handle owns it, and awaits it at shutdown"
    )]
    async fn build(self) -> Result<Poller, Error> {
        let check = check_keyring(&*self.store, &self.keyring, &*self.clock).await;
        check.map_err(|error| error.in_step("starting the poller"))?;
        let (background_tasks, receiver) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(None);
        let shared = Arc::new(Shared {
            store: Arc::new(BoundedStore::new(self.store, self.clock.clone())),
            keyring: self.keyring,
            clock: self.clock,
            random: self.random,
            settings: self.settings,
            continue_trace: self.continue_trace,
            tenants: Mutex::default(),
            failing: Mutex::default(),
            watch: tokio::sync::Mutex::default(),
            reminders: Mutex::default(),
            holdings: Mutex::default(),
            events: OnceLock::new(),
            background_tasks,
            woken: Mutex::default(),
            wake_up: Notify::new(),
            in_flight: AtomicUsize::new(0),
            settling: AtomicUsize::new(0),
            committing: Mutex::default(),
            longest_attempt: AtomicU64::new(0),
            stop,
            has_stopped: watch::Sender::new(false),
        });
        measure::describe();
        let engine = Engine::new(shared.clone(), receiver, stopped);
        if self.clients.is_empty() {
            tracing::warn!("the poller has no client and polls nothing until `Poller::add_client` adds one");
        }
        for client in self.clients {
            shared.add(client)?;
        }
        let task = tokio::spawn(engine.run());
        Ok(Poller(Arc::new(Handle { shared, task: tokio::sync::Mutex::new(Some(task)) })))
    }
}

/// Checks the keyring, so that a wrong one is an error now and does not leave unreadable rows later.
async fn check_keyring(store: &dyn Store, keyring: &Keyring, clock: &dyn Clock) -> Result<(), Error> {
    let keyring_problem = |problem| ConfigurationProblem::Setting { setting: "keyring", problem };
    if keyring.is_ephemeral() && !store.is_ephemeral() {
        return Err(
            keyring_problem("an ephemeral keyring would lose the sign-ins in the store; use a permanent key").into()
        );
    }
    // A query for rows that the primary key did not seal could scan a million rows that it did seal. An unlikely key
    // avoids that.
    let unlikely_key = keyring.primary_id().map(|byte| !byte);
    let rows = store.not_sealed_with(unlikely_key, None, TRIED_ROWS);
    let rows = within(clock, CALL_TIMEOUT, rows).await?;
    let bodies = || rows.iter().filter_map(|row| Some((row.id, row.body.as_ref()?)));
    // A row of a newer release cannot be opened, but names the key that sealed it.
    let opens = |(id, body): (ProcessId, &SealedBody)| match body.format > FORMAT {
        true => keyring.ids().contains(&body.key),
        false => Record::open(keyring, id, body).is_ok(),
    };
    if bodies().next().is_some() && !bodies().any(opens) {
        return Err(keyring_problem("it cannot open any row of the store; use the keyring that sealed the rows").into());
    }
    Ok(())
}

impl fmt::Debug for PollerBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PollerBuilder")
            .field("store", &self.store)
            .field("keyring", &self.keyring)
            .field("clients", &self.clients.iter().map(|client| &client.client).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
