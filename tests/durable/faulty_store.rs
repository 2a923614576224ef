//! A store that counts its calls. A test can make it unavailable, slow or broken, and set its clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use openid_deferred::poller::{AcceptedSignIn, PollerBuilder};
use openid_deferred::store::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, ClientNote, CorrectionProgress, CorrectionStep,
    HeldOutcome, Insertion, KeyStats, KnownClient, Listing, MemoryStore, NewProcess, OutcomeBatch, OutcomeClaim, Page,
    Partition, PartitionStats, Pinged, Process, ProcessId, Reseal, Settlement, Store, StoreError, StoreProblem, Work,
};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, RecordedRequest, SeededRandom, TestClock, TestProvider, TestProviderBuilder,
};
use openid_deferred::{AuthorizationSession, Client, ClientBuilder, Clock, Outcome, Poller};

use crate::support::{client_of, keyring, provider};

/// How far the store's clock starts ahead of the test's, so that it can be set back.
const AHEAD: Duration = Duration::from_secs(30 * 86_400);
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct FaultyStore(Arc<Faults>);

#[derive(Debug)]
struct Faults {
    store: MemoryStore,
    clock: StoreClock,
    is_down: AtomicBool,
    /// The duration of a call of `settle_and_claim`.
    delay: Mutex<Duration>,
    /// The additional duration for each row that it settles or claims.
    delay_of_row: Mutex<Duration>,
    /// The time between the effect of a call and its answer, for other methods.
    delays: Mutex<BTreeMap<&'static str, Duration>>,
    /// The methods that fail.
    failing: Mutex<BTreeSet<&'static str>>,
    check_interval: Mutex<Duration>,
    /// While it is true, calls hang. They are executed when it becomes false, also those that were given up.
    hanging: tokio::sync::watch::Sender<bool>,
    late: Mutex<tokio::task::JoinSet<()>>,
    /// The number of calls of `settle_and_claim` that will panic.
    panics: AtomicUsize,
    /// The number of calls of `changed` that will panic.
    panics_in_changed: AtomicUsize,
    calls: Mutex<Vec<&'static str>>,
    /// How many calls of each method have begun and are not over, whether or not anybody drives them.
    in_flight: Mutex<BTreeMap<&'static str, usize>>,
    works: Mutex<Vec<WorkCall>>,
}

/// One completed call of `settle_and_claim`.
#[derive(Debug, Clone, Copy)]
pub struct WorkCall {
    pub settled: usize,
    pub quotas: usize,
    pub claimed: usize,
}

/// The clock of the store's machine.
#[derive(Debug, Clone)]
struct StoreClock {
    clock: TestClock,
    ahead: Arc<Mutex<Duration>>,
}

impl Clock for StoreClock {
    fn now(&self) -> SystemTime {
        self.clock.now() + *self.ahead.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + *self.ahead.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }
}

impl FaultyStore {
    pub fn on(clock: &TestClock) -> Self {
        let clock = StoreClock { clock: clock.clone(), ahead: Arc::new(Mutex::new(AHEAD)) };
        Self(Arc::new(Faults {
            store: MemoryStore::with_clock(Arc::new(clock.clone())),
            clock,
            is_down: AtomicBool::new(false),
            delay: Mutex::default(),
            delay_of_row: Mutex::default(),
            delays: Mutex::default(),
            failing: Mutex::default(),
            check_interval: Mutex::new(CHECK_INTERVAL),
            hanging: tokio::sync::watch::Sender::new(false),
            late: Mutex::default(),
            panics: AtomicUsize::new(0),
            panics_in_changed: AtomicUsize::new(0),
            calls: Mutex::default(),
            in_flight: Mutex::default(),
            works: Mutex::default(),
        }))
    }

    pub fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Lets calls hang, as on a disk that does not answer. They are carried out late, when this is over, also those whose
    /// callers have given them up.
    pub fn set_hanging(&self, is_hanging: bool) {
        self.0.hanging.send_replace(is_hanging);
    }

    /// Carries a call out, late if the store hangs.
    async fn carry_out<T: Send + 'static>(
        &self,
        call: impl FnOnce(Self) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let mut hanging = self.0.hanging.subscribe();
        if !*hanging.borrow() {
            return call(store).await;
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.0.late.lock().unwrap().spawn(async move {
            hanging.wait_for(|is_hanging| !is_hanging).await.unwrap();
            let _ = sender.send(call(store).await);
        });
        receiver.await.unwrap()
    }

    /// Sets the clock of the store's machine forward.
    pub fn jump_forward(&self, by: Duration) {
        *self.0.clock.ahead.lock().unwrap() += by;
    }

    /// Sets the clock of the store's machine back.
    pub fn jump_back(&self, by: Duration) {
        *self.0.clock.ahead.lock().unwrap() -= by;
    }

    /// Sets the duration of each call of `settle_and_claim`, and the additional duration for each row that it settles or claims.
    pub fn set_delay(&self, of_call: Duration, of_row: Duration) {
        *self.0.delay.lock().unwrap() = of_call;
        *self.0.delay_of_row.lock().unwrap() = of_row;
    }

    /// Delays the answer, but not the effect, of each call of this method. It does not work for `settle_and_claim`.
    pub fn delay(&self, method: &'static str, delay: Duration) {
        self.0.delays.lock().unwrap().insert(method, delay);
    }

    /// Makes each call of this method fail.
    pub fn fail(&self, method: &'static str) {
        self.0.failing.lock().unwrap().insert(method);
    }

    /// Makes no call of this method fail any more.
    pub fn succeed(&self, method: &'static str) {
        self.0.failing.lock().unwrap().remove(method);
    }

    /// Sets how often a poller queries the store without a notification, instead of every ten seconds.
    pub fn set_check_interval(&self, check_interval: Duration) {
        *self.0.check_interval.lock().unwrap() = check_interval;
    }

    /// Makes the next calls of `settle_and_claim` panic.
    pub fn panic_next(&self, calls: usize) {
        self.0.panics.store(calls, Ordering::Relaxed);
    }

    /// Makes the next calls of `changed` panic.
    pub fn panic_in_changed(&self, calls: usize) {
        self.0.panics_in_changed.store(calls, Ordering::Relaxed);
    }

    pub fn panics_left(&self) -> usize {
        self.0.panics.load(Ordering::Relaxed) + self.0.panics_in_changed.load(Ordering::Relaxed)
    }

    /// The number of calls of a method.
    pub fn count(&self, method: &str) -> usize {
        self.0.calls.lock().unwrap().iter().filter(|call| **call == method).count()
    }

    /// The number of calls of a method since the last call of this function.
    pub fn take_calls(&self, method: &str) -> usize {
        let mut calls = self.0.calls.lock().unwrap();
        let before = calls.len();
        calls.retain(|call| *call != method);
        before - calls.len()
    }

    /// The number of calls of this method that have not ended.
    pub fn in_flight(&self, method: &str) -> usize {
        self.0.in_flight.lock().unwrap().get(method).copied().unwrap_or_default()
    }

    /// The number of calls of all methods.
    pub fn calls(&self) -> usize {
        self.0.calls.lock().unwrap().len()
    }

    pub fn forget_calls(&self) {
        self.0.calls.lock().unwrap().clear();
        self.0.works.lock().unwrap().clear();
    }

    pub fn works(&self) -> Vec<WorkCall> {
        self.0.works.lock().unwrap().clone()
    }

    fn fails(&self, call: &'static str) -> Result<(), StoreError> {
        self.0.calls.lock().unwrap().push(call);
        match self.0.is_down.load(Ordering::Relaxed) || self.0.failing.lock().unwrap().contains(call) {
            true => Err(StoreError::new(StoreProblem::Unavailable)),
            false => Ok(()),
        }
    }
}

/// A call that has not ended.
struct CallInFlight<'a>(&'a FaultyStore, &'static str);

impl<'a> CallInFlight<'a> {
    fn new(store: &'a FaultyStore, method: &'static str) -> Self {
        *store.0.in_flight.lock().unwrap().entry(method).or_default() += 1;
        Self(store, method)
    }
}

impl Drop for CallInFlight<'_> {
    fn drop(&mut self) {
        *self.0.0.in_flight.lock().unwrap().entry(self.1).or_default() -= 1;
    }
}

/// Panics if panics are left.
fn may_panic(panics: &AtomicUsize) {
    let panics = panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    assert!(panics.is_err(), "the store has a mistake");
}

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {$(
        fn $method(&self, $($name: $type),*) -> BoxFuture<'_, Result<$answer, StoreError>> {
            Box::pin(async move {
                let method = stringify!($method);
                let _call = CallInFlight::new(self, method);
                let answer = match self.fails(method) {
                    Ok(()) => {
                        self.carry_out(move |store| Box::pin(async move { store.0.store.$method($($name),*).await })).await
                    }
                    Err(error) => Err(error),
                };
                let delay = self.0.delays.lock().unwrap().get(method).copied();
                if let Some(delay) = delay {
                    self.0.clock.sleep(delay).await;
                }
                answer
            })
        }
    )*};
}

impl Store for FaultyStore {
    forward! {
        insert(process: NewProcess) -> Insertion;
        load(id: ProcessId) -> Option<Process>;
        ping(ping: openid_deferred::store::Ping) -> Pinged;
        cancel(id: ProcessId, to: Cancellation) -> Option<Cancellation>;
        claim_outcomes(claim: OutcomeClaim) -> OutcomeBatch;
        extend_outcomes(held: Vec<HeldOutcome>, due_in: Duration) -> Vec<bool>;
        acknowledge(acknowledgements: Vec<Acknowledgement>) -> Vec<Acknowledged>;
        forget(id: ProcessId) -> bool;
        purge(limit: usize) -> usize;
        expire_outcomes(decided_for: Duration, keep: Duration, limit: usize) -> Vec<ProcessId>;
        spread(partition: Partition, overdue_for: Duration, limit: usize) -> usize;
        correct_due_times(step: CorrectionStep) -> CorrectionProgress;
        not_sealed_with(key: [u8; 4], after: Option<ProcessId>, limit: usize) -> Vec<Process>;
        reseal(reseals: Vec<Reseal>) -> Vec<bool>;
        keys() -> Vec<KeyStats>;
        stats() -> Vec<PartitionStats>;
        list(listing: Listing) -> Page;
        note_clients(clients: Vec<ClientNote>) -> ();
        known_clients(partitions: Vec<Partition>) -> Vec<KnownClient>;
    }

    fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<Claim>,
    ) -> BoxFuture<'_, Result<Work, StoreError>> {
        Box::pin(async move {
            self.fails("work")?;
            may_panic(&self.0.panics);
            let settled = settlements.len();
            let quotas = claim.as_ref().map_or(0, |claim| claim.quotas.len());
            let delay = *self.0.delay.lock().unwrap();
            let delay_of_row = *self.0.delay_of_row.lock().unwrap();
            self.0.clock.sleep(delay / 2).await;
            let call = move |store: Self| -> BoxFuture<'static, _> {
                Box::pin(async move { store.0.store.settle_and_claim(settlements, claim).await })
            };
            let work = self.carry_out(call).await?;
            let claimed = work.claimed.len();
            self.0.clock.sleep(delay / 2 + delay_of_row * u32::try_from(settled + claimed).unwrap()).await;
            self.0.works.lock().unwrap().push(WorkCall { settled, quotas, claimed });
            Ok(work)
        })
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        may_panic(&self.0.panics_in_changed);
        self.0.store.changed()
    }

    fn check_interval(&self) -> Duration {
        *self.0.check_interval.lock().unwrap()
    }
}

/// A relying party and its provider in one program, on such a store.
pub struct World {
    pub op: TestProvider,
    pub clock: TestClock,
    pub client: Client,
    pub store: FaultyStore,
    pub poller: Poller,
}

pub async fn world(decisions: DecisionPolicy) -> World {
    world_with(|op| op.decisions(decisions), |client| client).await
}

/// The same with other settings of the provider and the client.
pub async fn world_with(
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let clock = TestClock::automatic();
    let op = op(provider(&clock)).start().unwrap();
    let client = client(client_of(&op, &clock)).build().unwrap();
    let store = FaultyStore::on(&clock);
    let poller = poller_on(&store, &clock, 3).client(client.clone()).start().await.unwrap();
    World { op, clock, client, store, poller }
}

/// A poller on such a store, before it starts.
pub fn poller_on(store: &FaultyStore, clock: &TestClock, seed: u64) -> PollerBuilder {
    let (clock, random) = (Arc::new(clock.clone()), Arc::new(SeededRandom::new(seed)));
    Poller::builder(store.clone(), keyring()).receives_pings().clock(clock).random(random)
}

impl World {
    pub async fn user_returns(&self) -> (String, AuthorizationSession) {
        let (url, session) = self.client.authorize().start().await.unwrap();
        (self.op.visit(url).query(), session)
    }

    pub async fn waiting(&self) -> ProcessId {
        let (query, session) = self.user_returns().await;
        match self.poller.authorization_response(&query, session).await {
            Ok(AcceptedSignIn::Deferred(id)) => id,
            other => panic!("expected a deferral, got {other:?}"),
        }
    }

    /// Starts another poller on the same store.
    pub async fn replica(&self, seed: u64) -> Poller {
        let random = Arc::new(SeededRandom::new(1_000 + seed));
        let client = client_of(&self.op, &self.clock).random(random).build().unwrap();
        poller_on(&self.store, &self.clock, seed).client(client).start().await.unwrap()
    }

    /// Kills the poller, and starts another one.
    pub async fn restart(&mut self) {
        self.poller.shutdown(Duration::ZERO).await;
        self.poller = self.replica(4).await;
    }

    pub async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    pub fn polls(&self) -> usize {
        self.op.requests_to(Endpoint::Poll).len()
    }

    /// The times of all polls of each sign-in that the provider answered with `expired_token`.
    fn polls_of_expired(&self) -> Vec<Vec<Duration>> {
        let polls = self.op.requests_to(Endpoint::Poll);
        let id = |poll: &RecordedRequest| poll.parameter("deferred_auth_id").map(str::to_owned);
        let expired = polls.iter().filter(|poll| poll.error().as_deref() == Some("expired_token"));
        let times = |expired: &RecordedRequest| {
            polls.iter().filter(|poll| id(poll) == id(expired)).map(|poll| poll.arrived).collect()
        };
        expired.map(times).collect()
    }

    /// Takes this many outcomes within this time. Each must be an approval.
    pub async fn approvals(&self, count: usize, within: Duration) {
        let mut outcomes = self.poller.outcomes();
        let all = async {
            for _ in 0..count {
                let delivery = outcomes.next().await.expect("the poller runs");
                let is_approved = matches!(delivery.outcome(), Outcome::Approved(_));
                assert!(is_approved, "{delivery:?}; {:?}", self.polls_of_expired());
                delivery.acknowledge().await.unwrap();
            }
        };
        tokio::select! {
            biased;
            () = all => {}
            () = self.sleep(within) => panic!("not all approvals came within {within:?}; {} polls", self.polls()),
        }
    }
}
