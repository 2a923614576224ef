//! The ping receiver as an axum route, over a socket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use openid_deferred::testing::{DecisionPolicy, TestClock};
use openid_deferred::{Clock as _, SystemClock, ping};

use crate::support::{HOUR, SECOND, World, world_with};

/// Longer than any answer takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Builds a world with a pending sign-in whose clock moves only when it is told to, the parts of its genuine ping, and
/// the address of the route. `client` runs on a thread of its own.
///
/// Everything else runs on the thread of the test, with tokio's current-thread runtime. The clock must be held before
/// other threads work: it does not see their tasks, and would let hours pass.
async fn served<T: Send + 'static>(client: impl FnOnce(Caller) -> T + Send + 'static) -> T {
    let world = world_with(
        |op| op.interval(HOUR).decisions(DecisionPolicy::scripted()).on_ping(|_| 204),
        |client| client,
        |poller| poller.receives_pings(),
    )
    .await;
    world.waiting().await;
    let _still = world.clock.hold();
    let app: axum::Router = axum::Router::new().route("/deferred/ping", ping::axum::route(world.poller.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::new(&world, listener.local_addr().unwrap());
    tokio::select! {
        biased;
        result = tokio::task::spawn_blocking(move || client(caller)) => result.unwrap(),
        served = axum::serve(listener, app) => panic!("{served:?}"),
    }
}

struct Caller {
    address: SocketAddr,
    clock: TestClock,
    token: String,
    body: String,
}

impl Caller {
    fn new(world: &World, address: SocketAddr) -> Self {
        let process = world.op.last_process();
        let (token, id) = (process.notification_token().unwrap(), process.deferred_auth_id().unwrap());
        Self { address, clock: world.clock.clone(), token, body: format!("{{\"deferred_auth_id\":\"{id}\"}}") }
    }

    fn forged(&self) -> String {
        let other = if &self.token[90..91] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &self.token[..90], &self.token[91..])
    }

    /// Opens a connection and sends the head of a request. `authorization` is a whole line or empty.
    fn started(&self, method: &str, authorization: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "{method} /deferred/ping HTTP/1.1\r\nHost: rp.test\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n{authorization}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    fn asked(&self, method: &str, authorization: &str, body: &str) -> String {
        let mut stream = self.started(method, authorization, body.len());
        // The answer may arrive and the connection end before the whole body has been sent.
        let _ = stream.write_all(body.as_bytes());
        answer(stream)
    }
}

/// The answer up to the end of the connection, or what arrived before the connection broke.
fn answer(mut stream: TcpStream) -> String {
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no answer came: {error}"),
        }
    }
    String::from_utf8(answer).unwrap().to_ascii_lowercase()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn the_route_answers_every_method_with_a_status_and_no_redirect() {
    served(|caller| {
        let genuine = bearer(&caller.token);
        let large = "x".repeat(ping::BODY_LIMIT + 1);
        for (method, body, status) in
            [("GET", "", "405"), ("PUT", "{}", "405"), ("POST", "{}", "400"), ("POST", large.as_str(), "413")]
        {
            let answer = caller.asked(method, &genuine, body);
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{method}: {answer}");
        }
        let answer = caller.asked("POST", &genuine, &caller.body);
        assert!(answer.starts_with("http/1.1 204 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_names_the_allowed_method_and_the_required_credentials() {
    served(|caller| {
        let answer = caller.asked("GET", &bearer(&caller.token), "");
        assert!(answer.contains("\r\nallow: post\r\n"), "{answer}");
        for unauthenticated in ["", "Authorization: Basic YTpi\r\n"] {
            let answer = caller.asked("POST", unauthenticated, &caller.body);
            assert!(answer.starts_with("http/1.1 401 "), "{answer}");
            assert!(answer.contains("\r\nwww-authenticate: bearer realm=\"ping\"\r\n"), "{answer}");
        }
        let answer = caller.asked("POST", &bearer(&caller.forged()), &caller.body);
        assert!(answer.starts_with("http/1.1 401 "), "{answer}");
        assert!(
            answer.contains("\r\nwww-authenticate: bearer realm=\"ping\", error=\"invalid_token\"\r\n"),
            "{answer}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_forged_ping_is_refused_before_its_body_arrives() {
    served(|caller| {
        let stream = caller.started("POST", &bearer(&caller.forged()), 100);
        let answer = answer(stream);
        assert!(answer.starts_with("http/1.1 401 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_body_announced_as_too_large_is_refused_at_once() {
    served(|caller| {
        let stream = caller.started("POST", &bearer(&caller.token), ping::BODY_LIMIT + 1);
        let answer = answer(stream);
        assert!(answer.starts_with("http/1.1 413 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_genuine_ping_with_a_slow_body_is_refused() {
    served(|caller| {
        let mut stream = caller.started("POST", &bearer(&caller.token), 10_000);
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (started, mut first) = (SystemClock.monotonic(), [0; 12]);
        let status = loop {
            assert!(SystemClock.monotonic() - started < DEADLINE, "the route still waits for the body");
            // The route does not read this after it has answered.
            let _ = stream.write_all(b" ");
            caller.clock.advance(SECOND);
            match stream.read_exact(&mut first) {
                Ok(()) => break first,
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
                Err(error) => panic!("no answer came: {error}"),
            }
        };
        assert_eq!(&status, b"HTTP/1.1 408");
    })
    .await;
}
