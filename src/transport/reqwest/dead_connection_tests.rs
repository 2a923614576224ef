//! Connections that are still open and carry nothing any more, as behind a proxy or a firewall that has forgotten them.
#![expect(clippy::disallowed_methods, reason = "servers are tasks that end with the test, and the deadlines are real")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::{HeaderMap, Method, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::*;

/// A request may be held for this long, so nothing but a ping can find out sooner that its connection is dead.
const LONG_POLL: Duration = Duration::from_secs(90);

/// A proxy that, when it is told to, reads what comes over its connections and passes nothing on. Connections that are
/// opened later work.
#[derive(Clone)]
struct Proxy(Arc<State>);

struct State {
    address: SocketAddr,
    opened: AtomicUsize,
    /// So many of them, the oldest, are dead.
    dead: AtomicUsize,
}

impl Proxy {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self(Arc::new(State { address, opened: AtomicUsize::new(0), dead: AtomicUsize::new(0) }));
        let state = proxy.0.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = state.opened.fetch_add(1, Ordering::Relaxed);
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = TcpStream::connect(server).await.unwrap().into_split();
                tokio::spawn(pass(near_read, far_write, state.clone(), number));
                tokio::spawn(pass(far_read, near_write, state.clone(), number));
            }
        });
        proxy
    }

    fn swallow(&self) {
        self.0.dead.store(self.opened(), Ordering::Relaxed);
    }

    fn opened(&self) -> usize {
        self.0.opened.load(Ordering::Relaxed)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>, number: usize) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if number >= state.dead.load(Ordering::Relaxed) && to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
}

/// An HTTP server that answers each request with an empty object, after `pause`.
async fn server(version: Version, pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match version {
                Version::HTTP_2 => drop(tokio::spawn(serve_http2(stream, pause))),
                _ => drop(tokio::spawn(serve_http1(stream, pause))),
            }
        }
    });
    address
}

async fn serve_http2(stream: TcpStream, pause: Duration) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"{}"), true).unwrap();
        });
    }
}

async fn serve_http1(mut stream: TcpStream, pause: Duration) {
    let mut received = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        received.push(byte);
        if received.ends_with(b"code=secret") {
            received.clear();
            tokio::time::sleep(pause).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        }
    }
}

fn client(version: Version) -> ReqwestClient {
    let urls = UrlPolicy { allow_insecure_loopback: true, ..UrlPolicy::default() };
    let policy = TransportPolicy { urls, connect_timeout: Duration::from_secs(5) };
    let loopback = move || {
        let builder = with_rules(with_defaults(Client::builder(), policy)).no_proxy();
        build(if version == Version::HTTP_2 { builder.http2_prior_knowledge() } else { builder })
    };
    let loopback = Some(Arc::new(Connections::new(loopback).unwrap()));
    ReqwestClient { loopback, ..ReqwestClient::new(policy, None).unwrap() }
}

fn post(proxy: &Proxy, timeout: Duration) -> HttpRequest {
    HttpRequest {
        method: Method::POST,
        url: Url::parse(&format!("http://{}/token", proxy.0.address)).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"code=secret"),
        timeout,
        body_limit: 1_000,
        document: Document::TokenResponse,
        client_certificate: None,
    }
}

async fn world(version: Version, pause: Duration) -> (ReqwestClient, Proxy) {
    (client(version), Proxy::before(server(version, pause).await).await)
}

#[tokio::test]
async fn a_dead_http2_connection_is_replaced_within_20_seconds_however_long_a_request_may_be_held() {
    let (client, proxy) = world(Version::HTTP_2, Duration::ZERO).await;
    client.send(post(&proxy, LONG_POLL)).await.unwrap();
    proxy.swallow();
    let began = Instant::now();
    let lost = client.send(post(&proxy, LONG_POLL)).await.map(drop).unwrap_err();
    assert!(lost.is_timeout_of_a_connection(), "{lost:?}");
    client.send(post(&proxy, LONG_POLL)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(proxy.opened(), 2);
}

#[tokio::test]
async fn an_http2_connection_that_dies_while_idle_fails_no_request() {
    let (client, proxy) = world(Version::HTTP_2, Duration::ZERO).await;
    client.send(post(&proxy, LONG_POLL)).await.unwrap();
    proxy.swallow();
    tokio::time::sleep(PING_INTERVAL + PING_TIMEOUT + Duration::from_secs(1)).await;
    client.send(post(&proxy, Duration::from_secs(2))).await.unwrap();
    assert_eq!(proxy.opened(), 2);
}

#[tokio::test]
async fn a_request_that_times_out_retires_its_http2_connection() {
    let (client, proxy) = world(Version::HTTP_2, Duration::ZERO).await;
    client.send(post(&proxy, LONG_POLL)).await.unwrap();
    proxy.swallow();
    let lost = client.send(post(&proxy, Duration::from_millis(200))).await.map(drop).unwrap_err();
    assert!(lost.is_timeout_of_a_connection(), "{lost:?}");
    client.send(post(&proxy, Duration::from_secs(5))).await.unwrap();
    assert_eq!(proxy.opened(), 2);
}

#[tokio::test]
async fn a_request_that_times_out_retires_all_idle_http1_connections() {
    let (client, proxy) = world(Version::HTTP_11, Duration::from_millis(100)).await;
    let three = [(); 3].map(|()| client.send(post(&proxy, LONG_POLL)));
    for sent in futures_util::future::join_all(three).await {
        sent.unwrap();
    }
    assert_eq!(proxy.opened(), 3);
    proxy.swallow();
    let lost = client.send(post(&proxy, Duration::from_millis(400))).await.map(drop).unwrap_err();
    assert!(lost.is_timeout_of_a_connection(), "{lost:?}");
    client.send(post(&proxy, Duration::from_secs(5))).await.unwrap();
    assert_eq!(proxy.opened(), 4);
}

#[tokio::test]
async fn a_request_in_flight_ends_on_its_connection_when_another_one_retires_it() {
    let (client, proxy) = world(Version::HTTP_2, Duration::from_secs(1)).await;
    let in_flight = client.send(post(&proxy, LONG_POLL));
    let impatient = async {
        let lost = client.send(post(&proxy, Duration::from_millis(200))).await.map(drop).unwrap_err();
        assert!(lost.is_timeout_of_a_connection(), "{lost:?}");
        client.send(post(&proxy, LONG_POLL)).await.unwrap();
    };
    let (answered, ()) = tokio::join!(in_flight, impatient);
    assert_eq!(&answered.unwrap().body[..], b"{}");
    assert_eq!(proxy.opened(), 2);
}
