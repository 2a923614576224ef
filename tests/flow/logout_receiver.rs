//! OpenID Connect Back-Channel Logout 1.0 §2.5 to §2.8: what the receiver of logout tokens answers, without any
//! framework.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request, Response, StatusCode};
use openid_deferred::Clock as _;
use openid_deferred::logout::{BODY_LIMIT, BODY_TIMEOUT, LogoutToken, Receiver, SessionsEnded};
use openid_deferred::testing::{Endpoint, Fault, TestClient, TestProcess};
use serde_json::Value;

use crate::support::{CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, seconds, world_with};

const FORM: &str = "application/x-www-form-urlencoded";

/// A world with a user who is signed in.
async fn signed_in() -> (World, TestProcess) {
    let registered = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI);
    // No server listens here.
    let registered = registered.backchannel_logout_uri("http://127.0.0.1:1/backchannel-logout");
    let world = world_with(|op| op.client(registered.signing_algorithm("ES256")), |client| client).await;
    world.approved().await;
    let process = world.op.last_process();
    (world, process)
}

fn form(token: &str) -> String {
    format!("logout_token={token}")
}

fn request(method: Method, kind: &str, body: &str) -> Request<String> {
    Request::builder().method(method).header("content-type", kind).body(body.to_owned()).unwrap()
}

fn post(body: &str) -> Request<String> {
    request(Method::POST, FORM, body)
}

async fn done(_: LogoutToken) -> SessionsEnded {
    SessionsEnded::Done
}

async fn nothing_to_end(token: LogoutToken) -> SessionsEnded {
    panic!("{token:?}")
}

/// The reason that the OP is told.
#[track_caller]
fn refusal(response: &Response<String>) -> String {
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(body["error"], "invalid_request");
    body["error_description"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_ends_sessions_once_in_all_clones_of_a_receiver() {
    let (world, process) = signed_in().await;
    let (receiver, token) = (Receiver::new(world.client.clone()), process.logout_token());
    let calls = AtomicUsize::new(0);
    let end = async |arrived: LogoutToken| {
        calls.fetch_add(1, Ordering::Relaxed);
        assert_eq!(arrived.sid(), Some(&*process.sid()));
        SessionsEnded::Done
    };
    let answer = receiver.receive(post(&form(&token)), end).await;
    assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::OK, ""));
    assert_eq!(answer.headers()["cache-control"], "no-store");
    for copy in [receiver.clone(), receiver] {
        let again = copy.receive(post(&form(&token)), nothing_to_end).await;
        assert!(refusal(&again).contains("[logout_token_replayed]"));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    // Another receiver has a memory of its own. What its application has stored counts.
    let other = Receiver::new(world.client.clone());
    let again = other.receive(post(&form(&token)), async |_| SessionsEnded::Already).await;
    assert!(refusal(&again).contains("[logout_token_replayed]"));
    world.op.assert_clean();
}

#[tokio::test]
async fn requests_that_are_no_forms_with_one_token_end_nothing() {
    let (world, process) = signed_in().await;
    let (receiver, token) = (Receiver::new(world.client.clone()), process.logout_token());
    let valid = form(&token);
    for (kind, body, reason) in [
        ("application/json", valid.as_str(), "Content-Type"),
        ("text/plain", &valid, "Content-Type"),
        ("", &valid, "Content-Type"),
        (FORM, "", "no `logout_token`"),
        (FORM, "token=a", "no `logout_token`"),
        (FORM, &format!("{valid}&{valid}"), "more than one"),
        (FORM, &format!("{valid}&logout%5Ftoken="), "more than one"),
        (FORM, "logout_token=abc", "[logout_token_malformed]"),
        (FORM, "logout_token", "[logout_token_malformed]"),
    ] {
        let answer = receiver.receive(request(Method::POST, kind, body), nothing_to_end).await;
        let stated = refusal(&answer);
        assert!(stated.contains(reason) && !stated.contains(['"', '\\']), "{kind} {body}: {stated}");
    }
    let two_types = Request::post("/").header("content-type", FORM).header("content-type", FORM);
    let answer = receiver.receive(two_types.body(valid.clone()).unwrap(), nothing_to_end).await;
    assert!(refusal(&answer).contains("Content-Type"));
    let bytes =
        Request::post("/").header("content-type", FORM).body(http_body_util::Full::new(&b"logout_token=\xff"[..]));
    assert!(refusal(&receiver.receive(bytes.unwrap(), nothing_to_end).await).contains("UTF-8"));

    for method in [Method::GET, Method::PUT, Method::HEAD] {
        let answer = receiver.receive(request(method, FORM, &valid), nothing_to_end).await;
        assert_eq!(
            (answer.status(), &answer.headers()["allow"]),
            (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
        );
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
    let large = format!("{valid}&a={}", "x".repeat(BODY_LIMIT));
    let answer = receiver.receive(post(&large), nothing_to_end).await;
    assert_eq!(
        (answer.status(), &answer.headers()["cache-control"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"no-store".parse().unwrap())
    );
    // The token was not used up, parameters of the type do not matter, and other fields are ignored.
    let genuine = request(Method::POST, "Application/X-WWW-Form-URLencoded; charset=UTF-8", &format!("a=b&{valid}"));
    assert_eq!(receiver.receive(genuine, done).await.status(), StatusCode::OK);
}

/// A body that never arrives.
struct Stalled;

impl http_body::Body for Stalled {
    type Data = &'static [u8];
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let (world, _) = signed_in().await;
    let (receiver, began) = (Receiver::new(world.client.clone()), world.clock.monotonic());
    let stalled = Request::post("/").header("content-type", FORM).body(Stalled).unwrap();
    let answer = receiver.receive(stalled, nothing_to_end).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(world.clock.monotonic() - began, BODY_TIMEOUT);
}

#[tokio::test]
async fn an_application_that_hangs_leaves_the_token_unused_and_the_op_may_try_again() {
    let (world, process) = signed_in().await;
    let token = process.logout_token();
    for (receiver, limit) in [
        (Receiver::new(world.client.clone()), seconds(10)),
        (Receiver::new(world.client.clone()).end_sessions_within(seconds(2)), seconds(2)),
    ] {
        let began = world.clock.monotonic();
        let answer = receiver.receive(post(&form(&token)), async |_| pending().await).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            (&answer.headers()["retry-after"], &answer.headers()["cache-control"]),
            (&"5".parse().unwrap(), &"no-store".parse().unwrap())
        );
        assert_eq!(world.clock.monotonic() - began, limit);
        let answer = receiver.receive(post(&form(&token)), done).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_verified_or_used_yet_can_be_sent_again() {
    let (world, process) = signed_in().await;
    let receiver = Receiver::new(world.client.clone());
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let token = process.logout_token();
    let answer = receiver.receive(post(&form(&token)), nothing_to_end).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.op.behave();
    world.clock.sleep(seconds(60)).await;
    let answer = receiver.receive(post(&form(&token)), async |_| SessionsEnded::Failed).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    // A copy that arrives while the first is being processed.
    let first = receiver.receive(post(&form(&token)), async |_| {
        let copy = receiver.receive(post(&form(&token)), nothing_to_end).await;
        assert_eq!(copy.status(), StatusCode::SERVICE_UNAVAILABLE);
        SessionsEnded::Done
    });
    assert_eq!(first.await.status(), StatusCode::OK);
}
