//! The connections to the OP: certificates, addresses, and an HTTP client of your own.
//!
//! Requests go through reqwest, and most applications need nothing from this module.
//!
//! - For mutual TLS, load a [`ClientCertificate`] and give it to
//!   [`ClientBuilder::client_certificate`](crate::ClientBuilder::client_certificate).
//! - If users can name the OP, call
//!   [`ClientBuilder::refuse_private_addresses`](crate::ClientBuilder::refuse_private_addresses). [`PublicAddresses`]
//!   makes a DNS resolver of your own safe for that.
//! - To send requests in another way, implement [`HttpClient`] and give it to
//!   [`ClientBuilder::http_client`](crate::ClientBuilder::http_client).
//!
//! No other module opens connections to an OP.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::error::{Document, Error, ErrorKind, TransportProblem};

mod address;
mod client_certificate;
mod public_addresses;
mod reqwest;

pub use client_certificate::{ClientCertificate, PresentedCertificate};
pub use public_addresses::PublicAddresses;

pub(crate) use address::{PrivateAddresses, UrlPolicy, UrlProblem};
pub(crate) use reqwest::{Configure, ReqwestClient, TransportPolicy};

/// How requests reach the OP.
///
/// The default implementation uses reqwest. An implementation of your own must:
///
/// - follow no redirects, and never repeat a request by itself;
/// - stop reading at [`body_limit`](HttpRequest::body_limit), and stop at [`timeout`](HttpRequest::timeout);
/// - send a request with a [`client_certificate`](HttpRequest::client_certificate) over a connection on which that
///   certificate is presented.
///
/// It should not reuse a connection on which a request timed out, because proxies and firewalls forget connections
/// without closing them.
pub trait HttpClient: fmt::Debug + Send + Sync {
    /// Sends one request and reads the whole response.
    ///
    /// # Errors
    ///
    /// [`HttpError`], whose [`may_have_been_sent`](HttpError::may_have_been_sent) decides whether a request that may
    /// be processed only once can be sent again.
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>>;

    /// Whether it presents the [`client_certificate`](HttpRequest::client_certificate) of a request; by default
    /// `false`. Building a client that needs one returns an error if this is `false`.
    fn presents_client_certificates(&self) -> bool {
        false
    }
}

/// One request.
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// The headers, `Content-Type` included. `Authorization` and `DPoP` are marked as sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The timeout, from connecting to the last byte of the response.
    pub timeout: Duration,
    /// The maximal size of the response's body in bytes, after decompression.
    pub body_limit: usize,
    /// The expected document, for errors.
    pub document: Document,
    /// The certificate to present in the TLS handshake (RFC 8705). Do not share connections between requests with
    /// different certificates, or with and without one.
    pub client_certificate: Option<PresentedCertificate>,
}

/// One response.
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body, decompressed.
    pub body: Bytes,
}

/// A request without a response.
#[derive(Debug)]
pub struct HttpError {
    error: Error,
    may_have_been_sent: bool,
}

impl HttpError {
    /// The request was not sent, so the server cannot have processed it.
    pub fn not_sent(error: impl Into<Error>) -> Self {
        Self { error: error.into(), may_have_been_sent: false }
    }

    /// The request may have reached the server.
    pub fn maybe_sent(error: impl Into<Error>) -> Self {
        Self { error: error.into(), may_have_been_sent: true }
    }

    /// Adds the error of the layer below. It must not contain parts of the request or the response.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.error = self.error.with_source(source);
        self
    }

    /// Whether the server may have received the request.
    pub fn may_have_been_sent(&self) -> bool {
        self.may_have_been_sent
    }

    /// Whether there was a connection, and the response timed out on it.
    pub(crate) fn is_timeout_of_a_connection(&self) -> bool {
        self.may_have_been_sent && self.error.kind() == &ErrorKind::Transport(TransportProblem::Timeout)
    }

    /// Whether the connection failed, so that the URL may be outdated.
    pub(crate) fn is_without_connection(&self) -> bool {
        self.error.kind() == &ErrorKind::Transport(TransportProblem::Connect)
    }

    /// What went wrong.
    pub fn into_error(self) -> Error {
        self.error
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

// Headers, query and bodies carry credentials and tokens, so `Debug` shows none of them.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .field("path", &self.url.path())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("body_length", &self.body.len())
            .finish_non_exhaustive()
    }
}
