//! Many users at once, and one slow provider.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::poller::{AcceptedSignIn, Limits};
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, RecordedRequest, TestClient, TestClock, TestProvider};
use openid_deferred::{AuthorizationSession, Clock as _, Error, ErrorKind};
use tokio::task::JoinSet;

use crate::support::{
    CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, SECOND, World, client_of, keyring, poller_of, provider, world_with,
};

/// Lets this many users return at the same moment. Returns their results in the order of completion.
async fn return_together(world: &World, users: usize) -> Vec<Result<AcceptedSignIn, Error>> {
    let mut crowd = JoinSet::new();
    for _ in 0..users {
        let (query, session) = world.user_returns().await;
        let poller = world.poller.clone();
        crowd.spawn(async move { poller.authorization_response(&query, session).await });
    }
    let mut told = Vec::new();
    while let Some(user) = crowd.join_next().await {
        told.push(user.expect("no task panics"));
    }
    told
}

#[tokio::test]
async fn exchanges_in_flight_do_not_exceed_the_limit() {
    let limits = Limits::new().exchanges(10);
    let world = world_with(|op| op, |client| client, |poller| poller.limits(limits)).await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, SECOND).always());
    let told = return_together(&world, 100).await;
    let ids: BTreeSet<_> = told
        .into_iter()
        .map(|told| match told {
            Ok(AcceptedSignIn::Deferred(id)) => id.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 100);
    let arrived: Vec<_> = world.op.requests_to(Endpoint::Exchange).iter().map(|request| request.arrived).collect();
    assert_eq!(arrived.len(), 100);
    assert!(arrived.windows(11).all(|eleven| eleven[10] - eleven[0] >= SECOND), "{arrived:?}");
    assert!(arrived[99] - arrived[0] < 12 * SECOND, "the limit is used");
    world.op.assert_clean();
}

#[tokio::test]
async fn an_exchange_without_a_free_slot_fails_and_keeps_the_code() {
    let limits = Limits::new().exchanges(1);
    let world = world_with(|op| op, |client| client, |poller| poller.limits(limits)).await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, 20 * SECOND).times(2));
    let (query, session) = world.user_returns().await;
    let sealed = session.seal(&keyring()).unwrap();
    let first = return_together(&world, 2);
    let last = async {
        // After the two others.
        world.sleep(SECOND).await;
        world.poller.authorization_response(&query, session).await
    };
    let (first, last) = tokio::join!(first, last);
    assert!(first.iter().all(|told| matches!(told, Ok(AcceptedSignIn::Deferred(_)))), "{first:?}");
    let error = last.expect_err("the two others take 40 s");
    assert_eq!((error.kind(), error.is_transient()), (&ErrorKind::Busy, true));
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 2);

    // The same cookie again.
    world.sleep(20 * SECOND).await;
    let session = AuthorizationSession::open(&keyring(), &sealed).unwrap();
    let told = world.poller.authorization_response(&query, session).await;
    assert!(matches!(told, Ok(AcceptedSignIn::Deferred(_))), "{told:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_slow_provider_does_not_delay_users_of_another_one() {
    const PROCESSES: usize = 250;
    const INTERVAL: Duration = Duration::from_secs(30);
    let clock = TestClock::automatic();
    let provider = |host: &str| {
        let op = provider(&clock).host(host).interval(INTERVAL).decisions(DecisionPolicy::scripted());
        op.start().expect("a provider in process starts")
    };
    let (slow, fast) = (provider("slow.test"), provider("fast.test"));
    slow.misbehave(Fault::delay(Endpoint::Poll, 10 * SECOND).always());
    let clients = [&slow, &fast].map(|op| {
        let redirect_uri = format!("https://rp.test/callback?op={}", op.issuer());
        op.register(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(&redirect_uri));
        client_of(op, &clock).redirect_uri(redirect_uri).build().expect("the settings work")
    });
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let builder = poller_of(&store, &clock, 3).client(clients[0].clone()).client(clients[1].clone());
    let poller = builder.start().await.expect("the poller starts");
    for (op, client) in [&slow, &fast].into_iter().zip(&clients) {
        for _ in 0..PROCESSES {
            let (url, session) = client.authorize().start().await.expect("the request can be made");
            let accepted = poller.authorization_response(&op.visit(url).query(), session).await;
            assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
        }
    }

    // 64 polls of 10 s each at a time are 192 in an interval, of 250 that are due.
    let (mut most, end) = (0, clock.monotonic() + 10 * INTERVAL);
    while clock.monotonic() < end {
        most = most.max(poller.stats().await.unwrap().iter().map(|client| client.in_flight).max().unwrap_or_default());
        clock.sleep(SECOND).await;
    }
    assert_eq!(most, 64, "what is due beyond it waits in the store");
    let asked_slow = slow.requests_to(Endpoint::Poll);
    assert!((1_500..=2_000).contains(&asked_slow.len()), "{}", asked_slow.len());
    assert_eq!(gaps(&slow, end).len(), PROCESSES, "no sign-in at the slow provider starves");
    let fast_gaps = gaps(&fast, end);
    assert_eq!(fast_gaps.len(), PROCESSES);
    // Jitter adds a tenth.
    let longest = fast_gaps.values().max().unwrap();
    assert!(*longest < INTERVAL + INTERVAL / 5, "a user of the fast provider had to wait for {longest:?}");
    slow.assert_clean();
    fast.assert_clean();
}

#[tokio::test]
async fn many_slow_providers_do_not_delay_a_fast_one() {
    const INTERVAL: Duration = Duration::from_secs(30);
    const SLOW: usize = 20;
    let clock = TestClock::automatic();
    let provider = |host: String| {
        let op = provider(&clock).host(&host).interval(INTERVAL).decisions(DecisionPolicy::scripted());
        op.start().expect("a provider in process starts")
    };
    let mut ops: Vec<_> = (0..SLOW).map(|number| provider(format!("slow-{number}.test"))).collect();
    for slow in &ops {
        slow.misbehave(Fault::delay(Endpoint::Poll, 80 * SECOND).always());
    }
    ops.push(provider("fast.test".to_owned()));
    // All slow providers together could have 80 polls in progress.
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let builder = poller_of(&store, &clock, 3).in_flight(64).limits(Limits::new().in_flight(4));
    let poller = builder.start().await.expect("the poller starts");
    for op in &ops {
        let redirect_uri = format!("https://rp.test/callback?op={}", op.issuer());
        op.register(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(&redirect_uri));
        let client = client_of(op, &clock).redirect_uri(redirect_uri).build().expect("the settings work");
        poller.add_client(client.clone()).expect("the clients are different");
        for _ in 0..20 {
            let (url, session) = client.authorize().start().await.expect("the request can be made");
            let accepted = poller.authorization_response(&op.visit(url).query(), session).await;
            assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
        }
    }
    let fast = ops.pop().expect("it is the last one");
    let end = clock.monotonic() + 20 * INTERVAL;
    let mut most = 0;
    while clock.monotonic() < end {
        most = most.max(poller.stats().await.unwrap().iter().map(|client| client.in_flight).sum::<usize>());
        clock.sleep(SECOND).await;
    }
    assert!((50..=64).contains(&most), "{most} polls under way at most");
    let gaps = gaps(&fast, end);
    assert_eq!(gaps.len(), 20);
    let longest = gaps.values().max().unwrap();
    assert!(*longest < INTERVAL + INTERVAL / 5, "a user of the fast provider had to wait for {longest:?}");
    for op in ops.iter().chain([&fast]) {
        op.assert_clean();
    }
}

/// For each sign-in that was polled, the longest time without a poll, from the exchange to `end`.
fn gaps(op: &TestProvider, end: Duration) -> BTreeMap<String, Duration> {
    let of_exchange = |exchange: &RecordedRequest| {
        let id = exchange.response_json()["deferred_auth_id"].as_str().expect("it succeeded").to_owned();
        (id, exchange.arrived)
    };
    let mut last: BTreeMap<_, _> = op.requests_to(Endpoint::Exchange).iter().map(of_exchange).collect();
    let mut longest: BTreeMap<String, Duration> = BTreeMap::new();
    for poll in op.requests_to(Endpoint::Poll) {
        let id = poll.parameter("deferred_auth_id").expect("a poll has one");
        let before = last.insert(id.to_owned(), poll.arrived).expect("it was exchanged");
        let gap = longest.entry(id.to_owned()).or_default();
        *gap = (*gap).max(poll.arrived - before);
    }
    for (id, gap) in &mut longest {
        *gap = (*gap).max(end.saturating_sub(last[id]));
    }
    longest
}

#[tokio::test]
async fn polls_in_flight_of_all_clients_do_not_exceed_the_limit() {
    let world = world_with(|op| op.interval(30 * SECOND), |client| client, |poller| poller.in_flight(5)).await;
    world.op.misbehave(Fault::delay(Endpoint::Poll, SECOND).always());
    for _ in 0..50 {
        world.waiting().await;
    }
    let mut most = 0;
    while world.polls().len() < 100 {
        most = most.max(world.poller.stats().await.unwrap()[0].in_flight);
        world.sleep(SECOND / 4).await;
    }
    assert_eq!(most, 5);
    world.op.assert_clean();
}

/// This many clients of one provider, in one poller on a store that counts calls.
async fn many_clients(clients: usize) -> (crate::faulty_store::World, Vec<openid_deferred::Client>) {
    let world = crate::faulty_store::world_with(
        |op| op.decisions(DecisionPolicy::scripted()).no_expiry(),
        |client| client.final_poll_margin(None),
    )
    .await;
    let mut all = Vec::new();
    for number in 0..clients {
        let id = format!("client-{number}");
        world.op.register(TestClient::secret_basic(&id, CLIENT_SECRET).redirect_uri(REDIRECT_URI));
        let client = openid_deferred::Client::builder(world.op.issuer(), &id)
            .authentication(openid_deferred::ClientAuthentication::client_secret_basic(CLIENT_SECRET))
            .redirect_uri(REDIRECT_URI)
            .http_client(world.op.http_client())
            .clock(Arc::new(world.clock.clone()))
            .build()
            .expect("the settings work");
        world.poller.add_client(client.clone()).expect("it is new");
        all.push(client);
    }
    (world, all)
}

#[tokio::test]
async fn idle_clients_do_not_delay_a_busy_one() {
    const CLIENTS: usize = 1_000;
    let (world, _) = many_clients(CLIENTS).await;
    for _ in 0..50 {
        world.waiting().await;
        world.sleep(SECOND / 10).await;
    }
    world.sleep(60 * SECOND).await;
    let polls = world.polls();
    world.store.forget_calls();
    world.sleep(200 * SECOND).await;
    let (polls, works) = (world.polls() - polls, world.store.works());
    assert!(polls > 1_500, "{polls}");
    let (most, quotas) = works.iter().fold((0, 0), |(most, all), work| (work.quotas.max(most), work.quotas + all));
    assert!(most <= 256, "{most} clients in one call");
    // Each idle client is queried once in four times ten seconds.
    assert!(quotas <= 2 * polls + CLIENTS * 200 / 40 * 11 / 10, "{quotas} in {} calls for {polls} polls", works.len());
}

#[tokio::test]
async fn a_sign_in_accepted_by_another_replica_for_an_idle_client_is_polled_soon() {
    let (world, clients) = many_clients(300).await;
    world.sleep(120 * SECOND).await;
    // A replica that only takes users and notifies no other replica.
    let front = crate::faulty_store::poller_on(&world.store, &world.clock, 77).client(clients[123].clone());
    let front = front.connect().await.expect("it connects");
    let (url, session) = clients[123].authorize().start().await.expect("the request can be made");
    let accepted = front.authorization_response(&world.op.visit(url).query(), session).await;
    assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
    let began = world.clock.monotonic();
    while world.polls() == 0 {
        world.sleep(SECOND / 4).await;
    }
    assert!(world.clock.monotonic() - began <= 6 * SECOND, "{:?}", world.clock.monotonic() - began);
}
