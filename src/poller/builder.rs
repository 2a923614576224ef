//! Setting a poller up.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::engine::Engine;
use super::limits::Limits;
use super::measure;
use super::record::Record;
use super::shared::{Settings, Shared, store_error};
use super::{Handle, Poller};
use crate::client::Client;
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigurationProblem, Error};
use crate::keyring::Keyring;
use crate::random::{Random, SystemRandom};
use crate::store::Store;

/// How long a delivery's claim lasts without being renewed, unless set.
const DELIVERY_LEASE: Duration = Duration::from_secs(300);
/// How long the application may have a delivery in hand, unless set.
const LONGEST_DELIVERY: Duration = Duration::from_secs(3600);
/// How many polls and verifications may be under way, of all clients together, unless set.
const IN_FLIGHT: usize = 1_024;
/// How many rows are tried with the keyring at start.
const TRIED_ROWS: usize = 16;

/// Settings of a [`Poller`]. Finish with [`start`](Self::start), or with [`connect`](Self::connect) where another
/// replica polls.
pub struct PollerBuilder {
    store: Arc<dyn Store>,
    keyring: Keyring,
    clients: Vec<(Client, Option<Limits>)>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    settings: Settings,
}

impl PollerBuilder {
    pub(super) fn new(store: Arc<dyn Store>, keyring: Keyring) -> Self {
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
                pings: false,
            },
        }
    }

    /// Adds a client. [`Poller::add_client`] does so later.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.push((client, None));
        self
    }

    /// Adds a client with limits of its own. [`Poller::add_client_with`] does so later.
    #[must_use]
    pub fn client_with(mut self, client: Client, limits: Limits) -> Self {
        self.clients.push((client, Some(limits)));
        self
    }

    /// How hard this replica leans on the OP of each client: with 64 polls under way and no ceiling unless set.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How many polls and verifications may be under way in this replica, of all clients together; 1,024 unless set, and at
    /// least one. Each holds a request, and some kilobytes of memory. What is due beyond it waits in the store: stored
    /// successes are served first, then what is longest overdue. [`Limits::in_flight`] bounds each client.
    #[must_use]
    pub fn in_flight(mut self, polls: usize) -> Self {
        self.settings.in_flight = polls.max(1);
        self
    }

    /// How many outcomes each stream takes at once; 64 unless set, and at least one.
    #[must_use]
    pub fn prefetch(mut self, outcomes: usize) -> Self {
        self.settings.prefetch = outcomes.max(1);
        self
    }

    /// How soon the outcomes that a replica held come to another one after it has died; 5 minutes unless set, and at
    /// least a second. A replica that lives renews its claim on them three times in that time.
    #[must_use]
    pub fn delivery_lease(mut self, time: Duration) -> Self {
        self.settings.delivery_lease = time.max(Duration::from_secs(1));
        self
    }

    /// How long the application may have one [`Delivery`](super::Delivery) in hand; an hour unless set. After that its claim
    /// is not renewed any more, [`Event::DeliveryOverdue`](super::Event::DeliveryOverdue) and a warning name the sign-in, and
    /// within the [lease](Self::delivery_lease) its outcome is delivered again: to another stream, if this one's consumer
    /// hangs.
    #[must_use]
    pub fn longest_delivery(mut self, time: Duration) -> Self {
        self.settings.longest_delivery = time;
        self
    }

    /// How long it is remembered that an outcome was acknowledged; 7 days unless set. For as long a second
    /// authorization response of the same session is recognised.
    #[must_use]
    pub fn keep_tombstones(mut self, time: Duration) -> Self {
        self.settings.keep_tombstones = time;
        self
    }

    /// Gives the OP a notification token for each process, so that it can ping (DTR §Ping Callback). Set it where a
    /// [`ping::Receiver`](crate::ping::Receiver) is served at the client's registered notification endpoint.
    #[must_use]
    pub fn receives_pings(mut self) -> Self {
        self.settings.pings = true;
        self
    }

    /// Takes the time from this instead of the machine's clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes randomness from this instead of the operating system. For simulations only.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// Starts a poller that does everything: it takes authorization responses and pings, polls, and delivers.
    /// It needs a tokio runtime. No OP is asked for this.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) where the keyring does not open what the store holds, two
    /// clients are the same, or clients of two OPs share a redirect URI although one of the OPs is known not to name
    /// itself in its responses; [`Store`](crate::ErrorKind::Store) where the store is out of reach.
    pub async fn start(self) -> Result<Poller, Error> {
        self.build().await
    }

    /// Starts a poller that polls nothing: for replicas that take authorization responses and pings, and may deliver
    /// outcomes, while others poll.
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
        reason = "the poller's one task; the handle owns it, and awaits it at shutdown"
    )]
    async fn build(self) -> Result<Poller, Error> {
        check_keyring(&*self.store, &self.keyring).await.map_err(|error| error.in_step("starting the poller"))?;
        let (errands, receiver) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(None);
        let shared = Arc::new(Shared {
            store: self.store,
            keyring: self.keyring,
            clock: self.clock,
            random: self.random,
            settings: self.settings,
            tenants: Mutex::default(),
            troubled: Mutex::default(),
            watch: tokio::sync::Mutex::default(),
            store_failed_at: Mutex::default(),
            holdings: Mutex::default(),
            events: OnceLock::new(),
            errands,
            woken: Mutex::default(),
            nudge: Notify::new(),
            under_way: AtomicUsize::new(0),
            settling: AtomicUsize::new(0),
            longest_attempt: AtomicU64::new(0),
            stop,
        });
        measure::describe();
        let engine = Engine::new(shared.clone(), receiver, stopped);
        for (client, limits) in self.clients {
            shared.add(client, limits.unwrap_or(self.settings.limits))?;
        }
        let task = tokio::spawn(engine.run());
        Ok(Poller(Arc::new(Handle { shared, task: tokio::sync::Mutex::new(Some(task)) })))
    }
}

/// One clear error now instead of rows that nobody can open later.
async fn check_keyring(store: &dyn Store, keyring: &Keyring) -> Result<(), Error> {
    let keyring_problem = |problem| ConfigurationProblem::Setting { setting: "keyring", problem };
    if keyring.is_ephemeral() && !store.is_ephemeral() {
        return Err(
            keyring_problem("an ephemeral one would lose what the store keeps; give it a key that stays").into()
        );
    }
    // Not those that the primary key did not seal: where that one sealed a million, a store looks through all of them.
    let hardly_any_key = keyring.primary_id().map(|byte| !byte);
    let rows = store.sealed_otherwise(hardly_any_key, None, TRIED_ROWS).await.map_err(store_error)?;
    let bodies = || rows.iter().filter_map(|row| Some((row.id, row.body.as_ref()?)));
    let opens = bodies().any(|(id, body)| Record::open(keyring, id, body).is_ok());
    if bodies().next().is_some() && !opens {
        return Err(keyring_problem("it opens nothing of what the store holds; is it the right one?").into());
    }
    Ok(())
}

impl fmt::Debug for PollerBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PollerBuilder")
            .field("store", &self.store)
            .field("keyring", &self.keyring)
            .field("clients", &self.clients.iter().map(|(client, _)| client).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
