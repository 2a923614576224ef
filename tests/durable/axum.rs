//! The receiver as a route of axum, over a socket.

use std::io::{Read as _, Write as _};

use openid_deferred::ping;

use crate::support::world;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_route_answers_every_method_with_a_status_and_no_redirect() {
    let world = world().await;
    let app: axum::Router = axum::Router::new().route("/deferred/ping", ping::axum::route(world.poller.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::select! {
        biased;
        () = ask(address) => {}
        served = axum::serve(listener, app) => panic!("{served:?}"),
    }
}

async fn ask(address: std::net::SocketAddr) {
    let large = "x".repeat(ping::BODY_LIMIT + 1);
    let requests = [("GET", "", "405"), ("PUT", "{}", "405"), ("POST", "{}", "401"), ("POST", large.as_str(), "413")];
    for (method, body, status) in requests {
        let request = format!(
            "{method} /deferred/ping HTTP/1.1\r\nHost: rp.test\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method}: {answer}");
    }
}
