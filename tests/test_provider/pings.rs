//! Ping Callbacks, by hook and over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openid_deferred::Clock;
use openid_deferred::testing::{DecisionPolicy, Fault, Ping, PingForgery, TestClient};

use crate::rp::{DEFERRED, REDIRECT, VERIFIER, rp};

#[tokio::test]
async fn a_decision_pings_with_the_token_of_the_exchange_and_an_expiry_does_not() {
    let pings = Arc::new(Mutex::new(Vec::<Ping>::new()));
    let seen = Arc::clone(&pings);
    let mut rp = rp(|op| {
        op.decisions(DecisionPolicy::scripted()).on_ping(move |ping| {
            seen.lock().unwrap().push(ping.clone());
            204
        })
    });
    let code = rp.deferred_code();
    let form = [
        ("grant_type", DEFERRED),
        ("deferred_code", &code),
        ("code_verifier", VERIFIER),
        ("deferred_notification_token", "the-token"),
    ];
    let (_, exchange) = rp.token(&form).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap();
    rp.op.process(id).approve();
    let ping = pings.lock().unwrap().pop().unwrap();
    assert_eq!((ping.deferred_auth_id.as_str(), ping.bearer.as_deref()), (id, Some("the-token")));
    assert_eq!(rp.op.pings()[0].status, Some(204));

    rp.op.process(id).send_ping(PingForgery::Bearer("forged".into()));
    rp.op.process(id).send_ping(PingForgery::NoBearer);
    rp.op.process(id).send_ping(PingForgery::DeferredAuthId("another".into()));
    let forged: Vec<_> = pings.lock().unwrap().drain(..).map(|ping| (ping.bearer, ping.deferred_auth_id)).collect();
    assert_eq!(forged[0].0.as_deref(), Some("forged"));
    assert_eq!(forged[1].0, None);
    assert_eq!(forged[2].1, "another");

    rp.key = crate::rp::Key::generate();
    let id = rp.started().await;
    rp.op.process(&id).expire();
    assert!(pings.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_decision_that_is_due_by_time_pings_when_it_is_due() {
    let clock = openid_deferred::testing::TestClock::automatic();
    let day = Duration::from_secs(86_400);
    let (pinged, pings) = tokio::sync::oneshot::channel();
    let pinged = Mutex::new(Some((pinged, clock.clone())));
    let op = crate::rp::provider(&clock)
        .decisions(DecisionPolicy::after(day))
        .on_ping(move |_| {
            let (pinged, clock) = pinged.lock().unwrap().take().unwrap();
            pinged.send(clock.monotonic()).unwrap();
            204
        })
        .start()
        .unwrap();
    let mut rp = rp(|op| op);
    rp.http = op.http_client();
    rp.op = op;
    rp.clock = clock;
    rp.started().await;
    tokio::select! {
        biased;
        at = pings => assert_eq!(at.unwrap(), day),
        () = rp.op.decide_on_time() => unreachable!(),
    }
}

#[tokio::test]
async fn a_ping_goes_over_http_to_the_registered_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/deferred/ping", listener.local_addr().unwrap());
    let client = TestClient::public("app").redirect_uri(REDIRECT).notification_endpoint(&endpoint);
    let mut rp = rp(|op| op.client(client.signing_algorithm("ES256")).decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.op.process(&id).deny();

    let (mut stream, _) = listener.accept().unwrap();
    let mut request = String::new();
    let mut buffer = [0; 1024];
    while !request.contains('}') {
        let read = stream.read(&mut buffer).unwrap();
        request += std::str::from_utf8(&buffer[..read]).unwrap();
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert!(request.starts_with("POST /deferred/ping HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/json") && !request.contains("authorization"), "{request}");
    assert!(request.ends_with(&format!("{{\"deferred_auth_id\":\"{id}\"}}")), "{request}");
    while rp.op.pings()[0].status.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(rp.op.pings()[0].status, Some(204));
}

#[tokio::test]
async fn a_ping_can_overtake_the_exchange_response() {
    let pings = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&pings);
    let mut rp = rp(|op| {
        op.decisions(DecisionPolicy::scripted()).on_ping(move |_| {
            *seen.lock().unwrap() += 1;
            204
        })
    });
    let code = rp.deferred_code();
    rp.op.last_process().approve();
    assert_eq!(*pings.lock().unwrap(), 0, "the `deferred_auth_id` is still unknown");
    rp.op.misbehave(Fault::edit_headers(openid_deferred::testing::Endpoint::Exchange, |_| {}));
    rp.exchange(&code).await;
    assert_eq!(*pings.lock().unwrap(), 1);
}
