//! Many simultaneous pings, half of them forged.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openid_deferred::Outcome;
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::testing::Endpoint;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::service::Service;
use crate::{ALONE, memory};

const PROCESSES: usize = 500;
const PINGS: usize = 50_000;
const CONNECTIONS: usize = 64;
/// The maximum growth. Nothing is kept of a ping once it is answered.
const MOST_MEMORY: u64 = 50;

/// One ping and the answer that it must get.
struct Ping {
    bearer: Option<String>,
    body: String,
    status: u16,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_pings_half_of_them_forged_cause_one_poll_per_process() {
    let _alone = ALONE.lock().await;
    let service = Service::start(|poller| poller.receives_pings()).await;
    for _ in 0..PROCESSES {
        let (query, cookie) = service.user_returns().await;
        let session = service.open(&cookie);
        let accepted = service.poller.authorization_response(&query, session).await;
        assert!(matches!(accepted, Ok(AcceptedSignIn::Deferred(_))), "{accepted:?}");
    }
    let processes = service.op.processes();
    processes.iter().for_each(|process| process.approve());
    let id = |number: usize| processes[number % PROCESSES].deferred_auth_id().expect("it was exchanged");
    let token = |number: usize| processes[number % PROCESSES].notification_token().expect("pings are taken");
    let pings: Vec<_> = (0..2 * PROCESSES)
        .map(|number| {
            let body = format!("{{\"deferred_auth_id\":\"{}\"}}", id(number / 2));
            let genuine = token(number / 2);
            let forged = match number / 2 % 5 {
                0 => None,
                1 => Some("let me in".to_owned()),
                2 => Some(token(number / 2 + 1)),
                3 => Some(genuine[..genuine.len() - 1].to_owned()),
                _ => Some(with_another_end(&genuine)),
            };
            match number % 2 {
                0 => Ping { bearer: Some(genuine), body, status: 204 },
                _ => Ping { bearer: forged, body, status: 401 },
            }
        })
        .collect();
    let address = serve(&service).await;

    let (refused, grown) = memory::growth_during(burst(address, pings)).await;
    println!("{PINGS} pings in a burst: {grown} MiB more memory at the most");
    assert_eq!(refused, PINGS / 2);

    let mut outcomes = service.poller.outcomes();
    for _ in 0..PROCESSES {
        let delivery = outcomes.next().await.expect("the poller runs");
        assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{:?}", delivery.outcome());
        delivery.acknowledge().await.expect("the store is there");
    }
    assert_eq!(service.op.requests_to(Endpoint::Poll).len(), PROCESSES, "each was asked about once");
    service.op.assert_clean();
    assert!(grown < MOST_MEMORY, "{grown} MiB");
}

/// The same token with another end, which is part of the checksum.
fn with_another_end(token: &str) -> String {
    let (start, end) = token.split_at(token.len() - 2);
    format!("{start}{}", if end == "AA" { "BB" } else { "AA" })
}

async fn serve(service: &Service) -> SocketAddr {
    let app = axum::Router::new().route("/ping", openid_deferred::ping::axum::route(service.poller.clone()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    #[expect(clippy::disallowed_methods, reason = "the server ends with the runtime of the test")]
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Sends all pings repeatedly, and returns how many were refused.
async fn burst(address: SocketAddr, pings: Vec<Ping>) -> usize {
    let (pings, next, refused) = (Arc::new(pings), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
    let url = format!("http://{address}/ping");
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (pings, next, refused) = (pings.clone(), next.clone(), refused.clone());
        let (http, url) = (http.clone(), url.clone());
        connections.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= PINGS {
                    return;
                }
                let ping = &pings[number % pings.len()];
                let mut request = http.post(&url).header("content-type", "application/json").body(ping.body.clone());
                if let Some(bearer) = &ping.bearer {
                    request = request.bearer_auth(bearer);
                }
                let status = request.send().await.expect("the server answers").status().as_u16();
                assert_eq!(status, ping.status, "ping {number}");
                refused.fetch_add(usize::from(status == 401), Ordering::Relaxed);
            }
        });
    }
    while let Some(connection) = connections.join_next().await {
        connection.expect("every ping is answered as it has to be");
    }
    refused.load(Ordering::Relaxed)
}
