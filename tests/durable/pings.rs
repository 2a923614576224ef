//! DTR §Ping Callback.

use std::sync::{Arc, Mutex};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use openid_deferred::Outcome;
use openid_deferred::ping::{BODY_LIMIT, Receiver};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, Ping, PingForgery};

use crate::support::{CLIENT_ID, HOUR, SECOND, World, next, world_with};

/// A world whose OP takes its time and pings; the pings wait until the test delivers them.
struct Pinged {
    world: World,
    pings: Arc<Mutex<Vec<Ping>>>,
    receiver: Receiver,
}

async fn pinged() -> Pinged {
    let pings = Arc::new(Mutex::new(Vec::new()));
    let sent = pings.clone();
    let world = world_with(
        |op| {
            op.interval(HOUR).decisions(DecisionPolicy::scripted()).on_ping(move |ping| {
                sent.lock().unwrap().push(ping.clone());
                204
            })
        },
        |client| client,
        |poller| poller.receives_pings(),
    )
    .await;
    let receiver = Receiver::new(world.poller.clone());
    Pinged { world, pings, receiver }
}

impl Pinged {
    fn ping(&self, forgery: PingForgery) -> Ping {
        self.world.op.last_process().send_ping(forgery);
        self.pings.lock().unwrap().pop().expect("a ping was sent")
    }

    async fn deliver(&self, ping: &Ping) -> StatusCode {
        deliver(&self.receiver, ping).await
    }

    /// Sends the last process's ping.
    async fn send(&self, forgery: PingForgery) -> StatusCode {
        self.deliver(&self.ping(forgery)).await
    }

    fn polls(&self) -> usize {
        self.world.polls().len()
    }
}

fn headers(bearer: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    if let Some(bearer) = bearer {
        headers.insert(AUTHORIZATION, format!("Bearer {bearer}").parse().unwrap());
    }
    headers
}

async fn deliver(receiver: &Receiver, ping: &Ping) -> StatusCode {
    receiver.receive(&Method::POST, &headers(ping.bearer.as_deref()), ping.body.as_bytes()).await
}

#[tokio::test]
async fn a_genuine_ping_is_answered_before_the_one_poll_that_it_brings_forward() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.sleep(60 * SECOND).await;
    pinged.world.op.last_process().approve();
    let ping = pinged.pings.lock().unwrap().pop().unwrap();
    assert_eq!(pinged.deliver(&ping).await, StatusCode::NO_CONTENT);
    assert_eq!(pinged.polls(), 0, "the answer does not wait for the poll");
    assert!(matches!(pinged.world.outcome().await.outcome(), Outcome::Approved(_)));
    assert_eq!(pinged.world.gaps(), [60.0]);
    pinged.world.op.assert_clean();
}

#[tokio::test]
async fn a_ping_with_another_token_or_none_is_refused_and_polls_nothing() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let token = pinged.world.op.last_process().notification_token().unwrap();
    assert!(token.len() < 128);
    let mut forged = token.clone();
    forged.replace_range(60..61, if &token[60..61] == "A" { "B" } else { "A" });
    for forgery in [PingForgery::NoBearer, PingForgery::Bearer("x".into()), PingForgery::Bearer(forged)] {
        assert_eq!(pinged.send(forgery).await, StatusCode::UNAUTHORIZED);
    }
    pinged.world.sleep(60 * SECOND).await;
    assert_eq!(pinged.polls(), 0);
}

#[tokio::test]
async fn the_token_of_one_process_with_the_id_of_another_is_refused_and_polls_neither() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let other = pinged.world.op.last_process().deferred_auth_id().unwrap();
    pinged.world.waiting().await;
    assert_eq!(pinged.send(PingForgery::DeferredAuthId(other)).await, StatusCode::UNAUTHORIZED);
    pinged.world.sleep(60 * SECOND).await;
    assert_eq!(pinged.polls(), 0);
}

#[tokio::test]
async fn a_ping_without_a_decision_changes_nothing_but_one_poll() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    for _ in 0..1_000 {
        assert_eq!(pinged.send(PingForgery::Genuine).await, StatusCode::NO_CONTENT);
        pinged.world.sleep(SECOND).await;
    }
    assert_eq!(pinged.polls(), 1, "a thousand pings in an interval bring one poll forward");
    pinged.world.sleep(2 * HOUR).await;
    let polls = pinged.polls();
    assert!(polls >= 2, "polling goes on");
    assert_eq!(pinged.send(PingForgery::Genuine).await, StatusCode::NO_CONTENT);
    pinged.world.sleep(2 * SECOND).await;
    assert_eq!(pinged.polls(), polls + 1, "after a scheduled poll a ping counts again");
    pinged.world.op.assert_clean();
}

#[tokio::test]
async fn after_a_slow_down_pings_bring_nothing_forward() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.op.last_process().slow_down_next();
    pinged.send(PingForgery::Genuine).await;
    pinged.world.sleep(10 * SECOND).await;
    assert_eq!(pinged.polls(), 1);
    pinged.world.sleep(HOUR + HOUR / 2).await;
    let polls = pinged.polls();
    assert_eq!(pinged.send(PingForgery::Genuine).await, StatusCode::NO_CONTENT);
    pinged.world.sleep(60 * SECOND).await;
    assert_eq!(pinged.polls(), polls);
    assert!(pinged.world.gaps()[1] >= 3605.0);
}

#[tokio::test]
async fn a_ping_never_brings_a_poll_before_the_time_that_the_op_asked_for() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "7200"));
    pinged.world.sleep(HOUR + 600 * SECOND).await;
    assert_eq!(pinged.polls(), 1);
    pinged.send(PingForgery::Genuine).await;
    pinged.world.sleep(HOUR).await;
    assert_eq!(pinged.polls(), 1);
    pinged.world.sleep(HOUR).await;
    assert_eq!(pinged.polls(), 2);
    pinged.world.op.assert_clean();
}

#[tokio::test]
async fn a_ping_during_a_poll_is_remembered_for_one_more_after_it() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.op.misbehave(Fault::delay(Endpoint::Poll, 20 * SECOND).after_processing());
    while pinged.polls() == 0 {
        pinged.world.sleep(10 * SECOND).await;
    }
    // On another replica than the one that polls.
    let replica = pinged.world.replica(9).await;
    pinged.world.op.last_process().approve();
    let ping = pinged.pings.lock().unwrap().pop().unwrap();
    assert_eq!(deliver(&Receiver::new(replica.clone()), &ping).await, StatusCode::NO_CONTENT);
    let delivery = next(&mut replica.outcomes()).await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!(pinged.polls(), 2);
    assert!(pinged.world.gaps()[1] < 60.0, "{:?}", pinged.world.gaps());
    pinged.world.op.assert_clean();
}

#[tokio::test]
async fn a_ping_that_overtakes_the_exchange_response_is_remembered() {
    let pinged = pinged().await;
    let (query, session) = pinged.world.user_returns().await;
    pinged.world.op.last_process().approve();
    pinged.world.op.misbehave(Fault::delay(Endpoint::Exchange, 5 * SECOND).after_processing());
    let overtaking = async {
        pinged.world.sleep(SECOND).await;
        let token = pinged.world.op.last_process().notification_token().expect("the exchange was received");
        let id = pinged.world.op.last_process().deferred_auth_id().unwrap();
        let body = format!("{{\"deferred_auth_id\":\"{id}\",\"unknown\":1}}");
        pinged.receiver.receive(&Method::POST, &headers(Some(&token)), body.as_bytes()).await
    };
    let (accepted, status) = tokio::join!(pinged.world.poller.authorization_response(&query, session, ""), overtaking);
    assert!(accepted.is_ok(), "{accepted:?}");
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(matches!(pinged.world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(pinged.world.gaps()[0] < 60.0, "{:?}", pinged.world.gaps());
}

#[tokio::test]
async fn a_ping_after_the_end_is_welcome_and_useless() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.op.last_process().deny();
    let ping = pinged.pings.lock().unwrap().pop().unwrap();
    pinged.deliver(&ping).await;
    let delivery = pinged.world.outcome().await;
    let polls = pinged.polls();
    assert_eq!(pinged.deliver(&ping).await, StatusCode::NO_CONTENT);
    delivery.acknowledge().await.unwrap();
    assert_eq!(pinged.deliver(&ping).await, StatusCode::NO_CONTENT);
    pinged.world.poller.forget(delivery.id()).await.unwrap();
    assert_eq!(pinged.deliver(&ping).await, StatusCode::NO_CONTENT);
    pinged.world.sleep(2 * HOUR).await;
    assert_eq!(pinged.polls(), polls);
}

#[tokio::test]
async fn requests_that_are_no_pings_get_the_status_that_says_why() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let ping = pinged.ping(PingForgery::Genuine);
    let genuine = headers(ping.bearer.as_deref());
    let receive = async |method: Method, headers: &HeaderMap, body: &str| {
        pinged.receiver.receive(&method, headers, body.as_bytes()).await.as_u16()
    };
    assert_eq!(receive(Method::GET, &genuine, "").await, 405);
    let mut form = genuine.clone();
    form.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
    assert_eq!(receive(Method::POST, &form, &ping.body).await, 415);
    assert_eq!(receive(Method::POST, &genuine, &" ".repeat(BODY_LIMIT + 1)).await, 413);
    for body in
        ["", "{", "[]", "{\"deferred_auth_id\":7}", "{}", "{\"deferred_auth_id\":\"a\",\"deferred_auth_id\":\"b\"}"]
    {
        assert_eq!(receive(Method::POST, &genuine, body).await, 400, "{body}");
    }
    assert_eq!(receive(Method::POST, &genuine, &ping.body).await, 204);
}

#[tokio::test]
async fn a_static_token_serves_all_processes_of_a_client() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let receiver =
        Receiver::with_static_token(pinged.world.poller.clone(), pinged.world.op.issuer(), CLIENT_ID, "static")
            .unwrap();
    pinged.world.op.last_process().approve();
    let genuine = Ping::clone(&pinged.pings.lock().unwrap().pop().unwrap());
    assert_eq!(deliver(&receiver, &genuine).await, StatusCode::UNAUTHORIZED);
    let body = genuine.body.as_bytes();
    assert_eq!(receiver.receive(&Method::POST, &headers(Some("static")), body).await, StatusCode::NO_CONTENT);
    assert!(matches!(pinged.world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(pinged.world.gaps()[0] < 60.0);
    assert!(
        Receiver::authenticated_elsewhere(pinged.world.poller.clone(), "https://other.example", CLIENT_ID).is_err()
    );
}

#[tokio::test]
async fn a_lost_ping_costs_time_and_nothing_else() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.op.last_process().approve();
    assert!(matches!(pinged.world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(pinged.world.gaps()[0] >= 3600.0);
}

#[tokio::test]
async fn a_static_token_that_anybody_could_present_is_refused() {
    let world = world_with(|op| op, |client| client, |poller| poller).await;
    for token in ["", "two words", "line\nend"] {
        let receiver = Receiver::with_static_token(world.poller.clone(), world.op.issuer(), CLIENT_ID, token);
        assert!(receiver.unwrap_err().to_string().contains("token"), "{token:?}");
    }
}
