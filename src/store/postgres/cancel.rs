//! Cancels a statement that runs in the server.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::future::BoxFuture;
use postgres_openssl::{TlsConnector, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{self, ChannelBinding, TlsConnect};

use super::settings::Target;

/// Sends the request and waits until the other side has closed the connection, as libpq does.
/// `CancelToken::cancel_query` closes it at once, which crashes PgBouncer 1.18.
///
/// `address` is the address that the connection with the statement leads to; `None` for a Unix socket.
pub(super) async fn cancel(
    token: &CancelToken,
    target: &Target,
    address: Option<IpAddr>,
    tls: TlsConnector,
) -> io::Result<()> {
    let tls = UntilEnd(tls);
    let sent = match address {
        Some(address) => token.cancel_query_raw(UntilEnd(TcpStream::connect((address, target.port)).await?), tls).await,
        None => cancel_at_socket(token, target, tls).await?,
    };
    sent.map_err(io::Error::other)
}

type Sent = Result<(), tokio_postgres::Error>;

#[cfg(unix)]
async fn cancel_at_socket(token: &CancelToken, target: &Target, tls: UntilEnd<TlsConnector>) -> io::Result<Sent> {
    let path = std::path::Path::new(&target.host).join(format!(".s.PGSQL.{}", target.port));
    Ok(token.cancel_query_raw(UntilEnd(tokio::net::UnixStream::connect(path).await?), tls).await)
}

#[cfg(not(unix))]
async fn cancel_at_socket(_: &CancelToken, _: &Target, _: UntilEnd<TlsConnector>) -> io::Result<Sent> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A stream that is not shut down before the other side has closed it, or a connector of such streams.
struct UntilEnd<T>(T);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for UntilEnd<TlsConnector> {
    type Stream = UntilEnd<TlsStream<S>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.0.connect(stream).await.map(UntilEnd) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for UntilEnd<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for UntilEnd<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for UntilEnd<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut buffer = [0; 64];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
