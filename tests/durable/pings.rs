//! DTR §Ping Callback.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use openid_deferred::ping::{BODY_LIMIT, BODY_TIMEOUT, Receiver};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, Ping, PingForgery, TestClock, TestProviderBuilder};
use openid_deferred::{Clock as _, Outcome};

use crate::support::{CLIENT_ID, HOUR, SECOND, World, next, ping_request, world_with};

/// A world whose OP decides late and pings. The pings wait until the test delivers them.
struct Pinged {
    world: World,
    pings: Arc<Mutex<Vec<Ping>>>,
    receiver: Receiver,
}

async fn pinged() -> Pinged {
    pinged_by(|op| op).await
}

async fn pinged_by(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> Pinged {
    let pings = Arc::new(Mutex::new(Vec::new()));
    let sent = pings.clone();
    let world = world_with(
        |builder| {
            op(builder).interval(HOUR).decisions(DecisionPolicy::scripted()).on_ping(move |ping| {
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

    /// Sends the ping of the last sign-in.
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

pub async fn deliver(receiver: &Receiver, ping: &Ping) -> StatusCode {
    receiver.receive(ping_request(Method::POST, &headers(ping.bearer.as_deref()), &*ping.body)).await.status()
}

#[tokio::test]
async fn a_genuine_ping_is_answered_before_its_poll() {
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
async fn a_ping_finds_the_process_by_an_opaque_identifier() {
    let pinged = pinged_by(TestProviderBuilder::opaque_values).await;
    pinged.world.waiting().await;
    pinged.world.sleep(60 * SECOND).await;
    pinged.world.op.last_process().approve();
    let ping = pinged.pings.lock().unwrap().pop().unwrap();
    assert!(ping.body.contains(r#"\""#), "{}", ping.body);
    assert_eq!(pinged.deliver(&ping).await, StatusCode::NO_CONTENT);
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
async fn after_a_slow_down_pings_advance_no_poll() {
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
async fn a_ping_during_a_poll_causes_one_more_poll_after_it() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.op.misbehave(Fault::delay(Endpoint::Poll, 20 * SECOND).after_processing());
    while pinged.polls() == 0 {
        pinged.world.sleep(10 * SECOND).await;
    }
    // The ping arrives at another replica than the one that polls.
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
async fn a_ping_before_the_exchange_response_is_recorded() {
    let pinged = pinged().await;
    let (query, session) = pinged.world.user_returns().await;
    pinged.world.op.last_process().approve();
    pinged.world.op.misbehave(Fault::delay(Endpoint::Exchange, 5 * SECOND).after_processing());
    let overtaking = async {
        pinged.world.sleep(SECOND).await;
        let token = pinged.world.op.last_process().notification_token().expect("the exchange was received");
        let id = pinged.world.op.last_process().deferred_auth_id().unwrap();
        let body = format!("{{\"deferred_auth_id\":\"{id}\",\"unknown\":1}}");
        pinged.receiver.receive(ping_request(Method::POST, &headers(Some(&token)), body)).await.status()
    };
    let (accepted, status) = tokio::join!(pinged.world.poller.authorization_response(&query, session), overtaking);
    assert!(accepted.is_ok(), "{accepted:?}");
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(matches!(pinged.world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(pinged.world.gaps()[0] < 60.0, "{:?}", pinged.world.gaps());
}

#[tokio::test]
async fn a_ping_after_the_end_is_accepted_without_effect() {
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
async fn requests_that_are_not_pings_get_the_matching_status() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let ping = pinged.ping(PingForgery::Genuine);
    let genuine = headers(ping.bearer.as_deref());
    let receive = async |method: Method, headers: &HeaderMap, body: &str| {
        pinged.receiver.receive(ping_request(method, headers, body)).await.status().as_u16()
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
async fn a_ping_may_begin_with_a_byte_order_mark_and_repeat_its_identifier() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let genuine = pinged.ping(PingForgery::Genuine);
    let members = genuine.body.trim().strip_prefix('{').unwrap().strip_suffix('}').unwrap();
    for body in [format!("\u{feff}{}", genuine.body), format!("{{{members},{members}}}")] {
        let ping = ping_request(Method::POST, &headers(genuine.bearer.as_deref()), &*body);
        assert_eq!(pinged.receiver.receive(ping).await.status(), StatusCode::NO_CONTENT, "{body}");
    }
}

#[tokio::test]
async fn a_static_token_serves_all_processes_of_a_client() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let receiver =
        Receiver::with_static_token(pinged.world.poller.clone(), pinged.world.op.issuer(), CLIENT_ID, "static")
            .unwrap();
    pinged.world.op.last_process().approve();
    let mut genuine = Ping::clone(&pinged.pings.lock().unwrap().pop().unwrap());
    assert_eq!(deliver(&receiver, &genuine).await, StatusCode::UNAUTHORIZED);
    genuine.bearer = Some("static".into());
    assert_eq!(deliver(&receiver, &genuine).await, StatusCode::NO_CONTENT);
    assert!(matches!(pinged.world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(pinged.world.gaps()[0] < 60.0);
    assert!(
        Receiver::authenticated_elsewhere(pinged.world.poller.clone(), "https://other.example", CLIENT_ID).is_err()
    );
}

#[tokio::test]
async fn a_lost_ping_only_delays_the_outcome() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    pinged.world.op.last_process().approve();
    assert!(matches!(pinged.world.outcome().await.outcome(), Outcome::Approved(_)));
    assert!(pinged.world.gaps()[0] >= 3600.0);
}

#[tokio::test]
async fn an_empty_or_malformed_static_token_is_refused() {
    let world = world_with(|op| op, |client| client, |poller| poller).await;
    for token in ["", "two words", "line\nend"] {
        let receiver = Receiver::with_static_token(world.poller.clone(), world.op.issuer(), CLIENT_ID, token);
        assert!(receiver.unwrap_err().to_string().contains("token"), "{token:?}");
    }
}

fn head(response: &Response<()>, name: http::HeaderName) -> Option<&str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_refusal_has_the_headers_allow_and_www_authenticate() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let ping = pinged.ping(PingForgery::Genuine);
    let receive = async |method: Method, headers: &HeaderMap| {
        pinged.receiver.receive(ping_request(method, headers, &*ping.body)).await
    };
    let genuine = headers(ping.bearer.as_deref());
    let refusal = receive(Method::DELETE, &genuine).await;
    assert_eq!((refusal.status(), head(&refusal, ALLOW)), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));

    let mut by_password = headers(None);
    by_password.insert(AUTHORIZATION, "Basic YTpi".parse().unwrap());
    for unauthenticated in [headers(None), by_password] {
        let refusal = receive(Method::POST, &unauthenticated).await;
        assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(head(&refusal, WWW_AUTHENTICATE), Some("Bearer realm=\"ping\""));
    }

    let mut twice = genuine.clone();
    twice.append(AUTHORIZATION, genuine[AUTHORIZATION].clone());
    let other = pinged.world.op.last_process().deferred_auth_id().unwrap();
    pinged.world.waiting().await;
    let mut refusals = Vec::new();
    for wrong in [headers(Some("x")), headers(Some("")), twice] {
        refusals.push(receive(Method::POST, &wrong).await);
    }
    // The token of another sign-in than the one that the body names.
    let foreign = pinged.ping(PingForgery::DeferredAuthId(other));
    let foreign = ping_request(Method::POST, &headers(foreign.bearer.as_deref()), foreign.body);
    refusals.push(pinged.receiver.receive(foreign).await);
    for refusal in refusals {
        assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(head(&refusal, WWW_AUTHENTICATE), Some("Bearer realm=\"ping\", error=\"invalid_token\""));
    }
}

/// A body that yields one byte now and then without end, and records whether it was read.
struct Trickle {
    clock: TestClock,
    pause: Duration,
    sleep: Option<BoxFuture<'static, ()>>,
    was_read: Arc<Mutex<bool>>,
}

impl Trickle {
    fn new(clock: &TestClock, pause: Duration) -> Self {
        Self { clock: clock.clone(), pause, sleep: None, was_read: Arc::default() }
    }
}

impl Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        *self.was_read.lock().unwrap() = true;
        let (clock, pause) = (self.clock.clone(), self.pause);
        let sleep = self.sleep.get_or_insert_with(|| clock.sleep(pause));
        std::task::ready!(sleep.as_mut().poll(context));
        self.sleep = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

fn trickling(headers: HeaderMap, body: Trickle) -> Request<Trickle> {
    let mut request = Request::post("/").body(body).unwrap();
    *request.headers_mut() = headers;
    request
}

#[tokio::test]
async fn a_genuine_ping_whose_body_does_not_arrive_in_time_is_refused() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let ping = pinged.ping(PingForgery::Genuine);
    for pause in [Duration::from_millis(300), HOUR] {
        let started = pinged.world.clock.monotonic();
        let body = Trickle::new(&pinged.world.clock, pause);
        let response = pinged.receiver.receive(trickling(headers(ping.bearer.as_deref()), body)).await;
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(pinged.world.clock.monotonic() - started, BODY_TIMEOUT, "{pause:?}");
    }
    assert_eq!(pinged.deliver(&ping).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_body_of_a_request_refused_by_its_headers_is_not_read() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let ping = pinged.ping(PingForgery::Genuine);
    let mut announced = headers(ping.bearer.as_deref());
    announced.insert(CONTENT_LENGTH, (BODY_LIMIT + 1).into());
    let mut as_text = headers(ping.bearer.as_deref());
    as_text.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
    for (headers, status) in [(headers(None), 401), (headers(Some("forged")), 401), (announced, 413), (as_text, 415)] {
        let body = Trickle::new(&pinged.world.clock, SECOND);
        let was_read = body.was_read.clone();
        let response = pinged.receiver.receive(trickling(headers, body)).await;
        assert_eq!((response.status().as_u16(), *was_read.lock().unwrap()), (status, false));
    }
}

#[tokio::test]
async fn a_server_with_its_own_body_type_checks_the_headers_before_it_reads() {
    let pinged = pinged().await;
    pinged.world.waiting().await;
    let ping = pinged.ping(PingForgery::Genuine);
    let refusal = pinged.receiver.authenticate(&Method::POST, &headers(Some("forged"))).err().unwrap();
    assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
    let authenticated = || pinged.receiver.authenticate(&Method::POST, &headers(ping.bearer.as_deref())).unwrap();
    assert_eq!(authenticated().receive(b"{}").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(authenticated().timed_out().status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(authenticated().receive(&[b' '; BODY_LIMIT + 1]).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(authenticated().receive(ping.body.as_bytes()).await.status(), StatusCode::NO_CONTENT);
}
