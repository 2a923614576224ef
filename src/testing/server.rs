//! Access to the provider over a loopback socket.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Frame, Incoming as HyperBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, ServerConfig};
use url::Url;

use super::op::Op;
use super::wire::{Delivery, Incoming, Reply};

/// The longest request in bytes. No request to an OP is larger.
const REQUEST_LIMIT: usize = 1024 * 1024;

/// A bound socket, with the certificate for HTTPS.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

#[derive(Clone)]
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    ca_pem: String,
    chain: Vec<CertificateDer<'static>>,
    private: Arc<PrivateKeyDer<'static>>,
}

impl Listener {
    pub(super) fn bind(tls: Option<Tls>) -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, tls })
    }

    pub(super) fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

impl Tls {
    /// Makes a new certificate authority, and a certificate of it for loopback. `clients` verifies the certificates of
    /// clients, if they are requested.
    pub(super) fn for_loopback(
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut authority = rcgen::CertificateParams::new(Vec::new())?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "openid-deferred test CA");
        let issuer_key = rcgen::KeyPair::generate()?;
        let ca_pem = authority.self_signed(&issuer_key)?.pem();
        let issuer = rcgen::Issuer::new(authority, issuer_key);

        let names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let chain = vec![certificate.der().clone()];
        let acceptor = acceptor(&chain, &private, clients)?;
        Ok(Self { acceptor, ca_pem, chain, private: Arc::new(private) })
    }

    /// The same server, which only accepts clients whose certificates this verifier accepts.
    pub(super) fn requiring(&self, clients: Arc<dyn ClientCertVerifier>) -> Self {
        let acceptor = acceptor(&self.chain, &self.private, Some(clients)).expect("the certificate was good before");
        Self { acceptor, ..self.clone() }
    }
}

fn acceptor(
    chain: &[CertificateDer<'static>],
    private: &PrivateKeyDer<'static>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = match clients {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(chain.to_vec(), private.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The serving thread. Dropping it stops the thread and closes all connections.
pub(super) struct Server {
    pub(super) ca_pem: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the thread. The first listener is for all clients, a second one for clients with certificates.
    pub(super) fn start(listeners: Vec<Listener>, op: Arc<Op>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let ca_pem = listeners.first().and_then(|listener| listener.tls.as_ref()).map(|tls| tls.ca_pem.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("test-provider".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    () = op.decide_on_time() => {}
                    () = accept_all(listeners, Arc::clone(&op)) => {}
                }
            });
        })?;
        Ok(Self { ca_pem, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there has already been printed.
            let _ = thread.join();
        }
    }
}

async fn accept_all(listeners: Vec<Listener>, op: Arc<Op>) {
    let bases = [Some(op.base.clone()), op.alias_base.clone()];
    let mut listeners = listeners.into_iter().zip(bases.into_iter().flatten());
    match (listeners.next(), listeners.next()) {
        (Some((first, base)), Some((second, alias))) => {
            tokio::join!(accept(first, Origin::new(&op, base)), accept(second, Origin::new(&op, alias)));
        }
        (Some((only, base)), None) => accept(only, Origin::new(&op, base)).await,
        (None, _) => {}
    }
}

/// The address that a request arrived at, and the certificates of its connection.
#[derive(Clone)]
struct Origin {
    op: Arc<Op>,
    base: Url,
    certificates: Vec<CertificateDer<'static>>,
}

impl Origin {
    fn new(op: &Arc<Op>, base: Url) -> Self {
        Self { op: Arc::clone(op), base, certificates: Vec::new() }
    }
}

#[expect(clippy::disallowed_methods, reason = "each connection is a task that ends with the server's runtime")]
async fn accept(listener: Listener, origin: Origin) {
    let socket = tokio::net::TcpListener::from_std(listener.socket).expect("the socket is a listening one");
    let acceptor = listener.tls.map(|tls| tls.acceptor);
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(stream, acceptor.clone(), origin.clone()));
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, origin: Origin) {
    // A second handle of the socket, to change how it closes while TLS or hyper own the first.
    let Ok((stream, handle)) = duplicate(stream) else { return };
    let reset = Arc::new(Notify::new());
    let is_reset = tokio::select! {
        biased;
        () = reset.notified() => true,
        () = serve_either(stream, acceptor, origin, &reset) => false,
    };
    if is_reset {
        // With a linger time of zero, closing sends RST instead of FIN. This is the last open handle.
        let _ = socket2::SockRef::from(&handle).set_linger(Some(Duration::ZERO));
    }
}

fn duplicate(stream: TcpStream) -> io::Result<(TcpStream, std::net::TcpStream)> {
    let stream = stream.into_std()?;
    let handle = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, handle))
}

async fn serve_either(stream: TcpStream, acceptor: Option<TlsAcceptor>, mut origin: Origin, reset: &Arc<Notify>) {
    match acceptor {
        None => serve(stream, origin, reset).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
                origin.certificates = presented.iter().cloned().map(CertificateDer::into_owned).collect();
                serve(stream, origin, reset).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, origin: Origin, reset: &Arc<Notify>) {
    let service = service_fn(move |request| answer(request, origin.clone(), Arc::clone(reset)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    // It is normal that a client disconnects.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<HyperBody>,
    Origin { op, base: mut url, certificates }: Origin,
    reset: Arc<Notify>,
) -> Result<Response<BoxBody<Bytes, io::Error>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_LIMIT).collect().await else {
        return Ok(response(Reply::new(413, "", ""), Tail::None));
    };
    url.set_path(head.uri.path());
    url.set_query(head.uri.query());
    let body = body.to_bytes();
    let incoming = Incoming { method: head.method, url, headers: head.headers, body, certificates };
    let delivery = op.handle(incoming).await;
    op.send_due_pings();
    op.announce();
    match delivery {
        Delivery::Whole(reply) => Ok(response(reply, Tail::None)),
        Delivery::Endless(reply) => Ok(response(reply, Tail::Endless)),
        Delivery::Cut(reply) => Ok(response(reply, Tail::Broken)),
        Delivery::Reset | Delivery::Stall => {
            reset.notify_one();
            std::future::pending().await
        }
    }
}

/// What follows the body.
#[derive(Clone, Copy, PartialEq)]
enum Tail {
    None,
    Endless,
    Broken,
}

fn response(reply: Reply, tail: Tail) -> Response<BoxBody<Bytes, io::Error>> {
    let body = match tail {
        Tail::None => Full::new(reply.body).map_err(|never| match never {}).boxed(),
        Tail::Endless => TailedBody { first: Some(reply.body), tail, is_flushed: false }.boxed(),
        Tail::Broken => {
            let half = reply.body.slice(..reply.body.len() / 2);
            TailedBody { first: Some(half), tail, is_flushed: false }.boxed()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// A body that never ends, or breaks.
struct TailedBody {
    first: Option<Bytes>,
    tail: Tail,
    is_flushed: bool,
}

impl Body for TailedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        static PADDING: [u8; 16 * 1024] = [b'a'; 16 * 1024];
        Poll::Ready(match (self.first.take(), self.tail) {
            (Some(first), _) => Some(Ok(Frame::data(first))),
            (None, Tail::Endless) => Some(Ok(Frame::data(Bytes::from_static(&PADDING)))),
            (None, Tail::Broken) if !self.is_flushed => {
                // hyper sends its buffer while it waits for the body. An error now would discard the headers too.
                self.is_flushed = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            (None, Tail::Broken) => Some(Err(io::ErrorKind::ConnectionReset.into())),
            (None, Tail::None) => None,
        })
    }
}
