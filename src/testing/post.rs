//! Requests of the provider to its clients.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use url::{Position, Url};

/// How long a client has for its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Posts a body over plain HTTP. Redirects are not followed.
#[expect(clippy::disallowed_methods, reason = "a connection has one task")]
pub(super) async fn post(
    url: &Url,
    content_type: &str,
    authorization: Option<&str>,
    body: String,
) -> io::Result<Response<Incoming>> {
    let address = url.socket_addrs(|| None)?.into_iter().next();
    let address = address.ok_or_else(|| io::Error::other("the URL has no address"))?;
    let mut request = Request::post(&url[Position::BeforePath..Position::AfterQuery])
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, content_type);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
    let stream = tokio::net::TcpStream::connect(address).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}
