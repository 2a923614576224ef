//! A proxy in front of the OP forgets its connections without closing them; new connections work.
#![expect(clippy::disallowed_methods, reason = "sockets and the timeouts of requests are real")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openid_deferred::error::TransportProblem;
use openid_deferred::testing::{DecisionPolicy, TestClient, TestClock, TestProvider, TestUser};
use openid_deferred::transport::ClientCertificate;
use openid_deferred::{Client, DpopMode, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::steps::cause;
use crate::support::{CLIENT_ID, REDIRECT_URI, World};

/// The timeout of a request over a dead connection. A request over a working connection needs much less.
const PATIENCE: Duration = Duration::from_secs(3);

type Configure = fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder;

const LIBRARIES: [Configure; 2] =
    [reqwest::ClientBuilder::tls_backend_rustls, reqwest::ClientBuilder::tls_backend_native];
const VERSIONS: [Configure; 2] = [|http| http, reqwest::ClientBuilder::http1_only];

/// An HTTP proxy for tunnels (RFC 9110 §9.3.6).
#[derive(Default)]
struct Tunnels {
    opened: AtomicUsize,
    /// The number of dead tunnels, the oldest ones, which carry no more data.
    dead: AtomicUsize,
}

impl Tunnels {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let tunnels = Arc::new(Self::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = tunnels.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(tunnel(near, state.clone()));
            }
        });
        (tunnels, address)
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    fn swallow(&self) {
        self.dead.store(self.opened(), Ordering::Relaxed);
    }
}

async fn tunnel(mut near: TcpStream, tunnels: Arc<Tunnels>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = near.read_u8().await else { return };
        request.push(byte);
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
    let far = TcpStream::connect(target).await.unwrap();
    let number = tunnels.opened.fetch_add(1, Ordering::Relaxed);
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(pass(near_read, far_write, &tunnels, number), pass(far_read, near_write, &tunnels, number));
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, tunnels: &Tunnels, number: usize) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let is_dead = number < tunnels.dead.load(Ordering::Relaxed);
        if !is_dead && to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn a_timeout_frees_the_client(library: Configure, version: Configure, with_certificate: bool) {
    let clock = TestClock::automatic();
    let registered = match with_certificate {
        true => TestClient::tls_client_auth(CLIENT_ID, "client.rp.test"),
        false => TestClient::public(CLIENT_ID),
    };
    let op = TestProvider::builder()
        .https()
        .mutual_tls()
        .clock(Arc::new(clock.clone()))
        .client(registered.redirect_uri(REDIRECT_URI))
        .user(TestUser::new("user-1"))
        .decisions(DecisionPolicy::scripted())
        .start()
        .unwrap();
    let (tunnels, address) = Tunnels::start().await;
    let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap().as_bytes()).unwrap();
    let proxy = reqwest::Proxy::https(format!("http://{address}")).unwrap();
    let mut client = Client::builder(op.issuer(), CLIENT_ID)
        .redirect_uri(REDIRECT_URI)
        .clock(Arc::new(clock.clone()))
        .dpop(DpopMode::Off)
        .request_timeout(PATIENCE)
        .configure_http(move |http| {
            let http = version(library(http.no_proxy().proxy(proxy.clone())));
            http.tls_certs_only([authority.clone()])
        });
    if with_certificate {
        let files = op.client_certificate("client.rp.test");
        client =
            client.client_certificate(ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap());
    }
    let world = World { client: client.discover().await.unwrap(), op, clock };
    world.pending().await;

    let before = tunnels.opened();
    tunnels.swallow();
    let lost = world.sign_in().await.unwrap_err();
    assert_eq!(*lost.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(*cause(&lost).kind(), ErrorKind::Transport(TransportProblem::Timeout));
    assert_eq!(tunnels.opened(), before, "the dead connection was used");
    world.pending().await;
    world.op.assert_clean();
}

#[tokio::test]
async fn a_timeout_retires_the_connection_with_every_tls_library_and_version() {
    let combinations = LIBRARIES.iter().flat_map(|library| {
        let versions = VERSIONS.iter();
        versions.flat_map(move |version| [false, true].map(|certificate| (*library, *version, certificate)))
    });
    let trials =
        combinations.map(|(library, version, certificate)| a_timeout_frees_the_client(library, version, certificate));
    futures_util::future::join_all(trials).await;
}
