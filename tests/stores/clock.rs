//! The wall clock, which `SqliteStore` relies on, is set while sign-ins wait.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::SqliteStore;
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, SeededRandom, TestClient, TestClock, TestProcess, TestProvider, TestUser,
};
use openid_deferred::{Client, ClientAuthentication, Clock as _, Keyring, Outcome, Poller, SealingKey};

use crate::timed::Timed;

const SECRET: &str = "a secret of the client";
const REDIRECT_URI: &str = "https://rp.test/callback";
const INTERVAL: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const USERS: usize = 8;

#[tokio::test]
async fn a_wall_clock_set_forward_by_hours_advances_no_poll_and_ends_no_sign_in() {
    while_waiting(|clock| clock.jump_wall_forward(5 * HOUR), 5).await;
}

#[tokio::test]
async fn a_wall_clock_set_back_by_hours_delays_polls_by_15_minutes_and_ends_no_sign_in() {
    // Due times are on that clock, so all of them have to be corrected.
    while_waiting(|clock| clock.jump_wall_back(5 * HOUR), 2).await;
}

fn provider(clock: &TestClock) -> TestProvider {
    TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(1)))
        .client(TestClient::secret_basic("the-app", SECRET).redirect_uri(REDIRECT_URI))
        .user(TestUser::new("user-1"))
        .interval(INTERVAL)
        .expires_in(24 * HOUR)
        .decisions(DecisionPolicy::scripted())
        .start()
        .unwrap()
}

/// Some users wait, the clock is set, and some time later the users are approved.
async fn while_waiting(set: impl Fn(&TestClock), least: usize) {
    let clock = TestClock::automatic();
    let op = provider(&clock);
    let client = Client::builder(op.issuer(), "the-app")
        .authentication(ClientAuthentication::client_secret_basic(SECRET))
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
        .leeway(6 * HOUR)
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pending.db");
    let store = SqliteStore::builder(path).clock(Arc::new(clock.clone())).open().await.unwrap();
    let store = Timed::around(Arc::new(store), &clock, Box::new(|| Box::pin(std::future::ready(()))));
    let keyring = Keyring::new(SealingKey::generate(&SeededRandom::new(7)).unwrap());
    let poller = Poller::builder(store, keyring).client(client.clone()).clock(Arc::new(clock.clone()));
    let poller = poller.start().await.unwrap();
    let mut processes = Vec::new();
    for _ in 0..USERS {
        let (url, session) = client.authorize().start().await.unwrap();
        let query = op.visit(url).query();
        let accepted = poller.authorization_response(&query, session).await;
        assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
        processes.push(op.last_process());
        clock.sleep(7 * Duration::from_secs(1)).await;
    }
    clock.sleep(10 * MINUTE).await;
    assert!(processes.iter().all(|process| process.polls() >= 5), "all sign-ins are polled");

    set(&clock);
    let polls: Vec<_> = processes.iter().map(TestProcess::polls).collect();
    clock.sleep(20 * MINUTE).await;
    for (process, before) in processes.iter().zip(polls) {
        assert!((least..=21).contains(&(process.polls() - before)), "{} polls in 20 min", process.polls() - before);
    }

    processes.iter().for_each(TestProcess::approve);
    let mut outcomes = poller.outcomes();
    for _ in 0..USERS {
        let delivery = outcomes.next().await.unwrap();
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
        delivery.acknowledge().await.unwrap();
    }
    for process in &processes {
        let id = process.deferred_auth_id().unwrap();
        let polls = op.requests_to(Endpoint::Poll).into_iter();
        let times: Vec<_> = polls.filter(|poll| poll.parameter("deferred_auth_id") == Some(&*id)).collect();
        let gaps = times.windows(2).map(|pair| pair[1].arrived - pair[0].arrived);
        assert!(gaps.into_iter().all(|gap| gap >= INTERVAL), "a sign-in was polled early");
    }
    op.assert_clean();
    poller.shutdown(MINUTE).await;
}
