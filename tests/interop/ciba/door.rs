//! The Backchannel Client Notification Endpoint of a test, over HTTPS.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use openid_deferred::ping::Receiver;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::certificates::Identity;

/// A socket with a certificate, at which nothing answers yet.
pub(super) struct Door {
    socket: TcpListener,
    acceptor: TlsAcceptor,
}

/// The statuses of the answers to pings.
#[derive(Clone, Default)]
pub(super) struct Pings(Arc<Mutex<Vec<u16>>>);

impl Door {
    pub(super) async fn open(authority: &Identity) -> Self {
        let host = Identity::host("localhost", Some(authority));
        let certificate = CertificateDer::from_pem_slice(host.certificate_pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(host.key_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self { socket, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}/ciba/ping", self.socket.local_addr().unwrap().port())
    }

    /// Answers pings until the test ends.
    pub(super) fn serve(self, receiver: Receiver) -> Pings {
        let pings = Pings::default();
        let answered = pings.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.socket.accept().await {
                let (acceptor, receiver, pings) = (self.acceptor.clone(), receiver.clone(), pings.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| notified(receiver.clone(), pings.clone(), request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        answered
    }
}

async fn notified(
    receiver: Receiver,
    pings: Pings,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let response = receiver.receive(request).await;
    pings.0.lock().unwrap().push(response.status().as_u16());
    Ok(response.map(|()| Empty::new()))
}

impl Pings {
    pub(super) fn statuses(&self) -> Vec<u16> {
        self.0.lock().unwrap().clone()
    }
}
