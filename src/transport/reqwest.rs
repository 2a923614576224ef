//! [`HttpClient`] on reqwest.

use std::error::Error as _;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::reqwest::{Client, ClientBuilder, Response, redirect, retry};
use bytes::Bytes;
use futures_core::future::BoxFuture;

use super::address::UrlProblem;
use super::public_addresses::OnlyPrivateAddresses;
use super::{
    HttpClient, HttpError, HttpRequest, HttpResponse, PresentedCertificate, PrivateAddresses, PublicAddresses,
    UrlPolicy,
};
use crate::error::{ConfigurationProblem, Document, Error, TransportProblem};
use crate::secret::SecretBuffer;

mod connections;
mod identity;

use connections::Connections;

/// The caller's settings for connections, apart from the configuration of reqwest itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransportPolicy {
    /// Which URLs may be called.
    pub(crate) urls: UrlPolicy,
    /// The timeout of name resolution, TCP and TLS together, unless the caller's configuration sets one.
    pub(crate) connect_timeout: Duration,
}

/// The default [`HttpClient`].
pub(crate) struct ReqwestClient {
    policy: TransportPolicy,
    configure: Option<Arc<Configure>>,
    https: Arc<Connections>,
    /// The connections of each client certificate, the latest last, because reqwest binds a certificate to a client and
    /// its connections.
    certified: Mutex<Vec<(PresentedCertificate, Arc<Connections>)>>,
    /// For plain HTTP to this machine. It uses no proxy, because a proxy of the environment would receive credentials
    /// in clear text.
    loopback: Option<Arc<Connections>>,
}

/// The caller's configuration of a reqwest client, called for each client that is built.
pub(crate) type Configure = dyn Fn(ClientBuilder) -> ClientBuilder + Send + Sync;

/// After a renewal, requests in flight still use the previous certificate.
const CERTIFICATES_KEPT: usize = 2;
/// Idle connections to one server. Further connections are closed after their request.
const IDLE_CONNECTIONS: usize = 256;
/// An idle connection is closed after this time. Most servers and load balancers keep one for a minute or longer, so
/// few requests are sent at the moment when the server closes the connection.
const IDLE_LIFE: Duration = Duration::from_secs(30);
/// A connection whose peer has not acknowledged anything for this long is closed. If a proxy acknowledges data without
/// forwarding it, only HTTP/2 PINGs or the timeout of a request detect that.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
/// An idle TCP connection is probed after this time, and then at this interval.
const TCP_PROBE: Duration = Duration::from_secs(10);
/// An HTTP/2 connection that is silent for this long gets a PING.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Without a reply to the PING for this long, the connection is closed, and its requests fail.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The memory reserved for the body of a response before any of it arrives.
const FIRST_CAPACITY: usize = 64 * 1024;

impl ReqwestClient {
    /// Builds the client. `configure` is for proxies, certificates, timeouts and default headers of HTTPS connections.
    /// Settings that the crate depends on are applied after it.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::HttpClient`] with reqwest's error as source.
    pub(crate) fn new(policy: TransportPolicy, configure: Option<Box<Configure>>) -> Result<Self, Error> {
        let configure: Option<Arc<Configure>> = configure.map(Arc::from);
        let configured = configure.clone();
        let loopback = || {
            let build = move || build(only_loopback(with_rules(with_defaults(Client::builder(), policy))));
            Connections::new(build).map(Arc::new)
        };
        Ok(Self {
            https: Arc::new(Connections::new(move || build(https(policy, configured.as_deref())))?),
            loopback: policy.urls.allow_insecure_loopback.then(loopback).transpose()?,
            certified: Mutex::new(Vec::new()),
            policy,
            configure,
        })
    }

    /// Checks whether the TLS library accepts the certificate, without opening a connection.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Certificate`] if the TLS library refuses it.
    pub(crate) fn prepare(&self, certificate: &PresentedCertificate) -> Result<(), Error> {
        self.certified(certificate).map(drop)
    }

    /// The connections of one certificate. Building their client blocks for a few milliseconds, once per renewal of the
    /// certificate.
    fn certified(&self, certificate: &PresentedCertificate) -> Result<Arc<Connections>, Error> {
        let mut all = self.certified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connections)) = all.iter().find(|(present, _)| present == certificate) {
            return Ok(connections.clone());
        }
        let (policy, configure, presented) = (self.policy, self.configure.clone(), certificate.clone());
        let build = move || identity::build(&presented, || https(policy, configure.as_deref()));
        let connections = Arc::new(Connections::new(build)?);
        if all.len() == CERTIFICATES_KEPT {
            all.remove(0);
        }
        all.push((certificate.clone(), connections.clone()));
        Ok(connections)
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let connections = self.connections_for(&request)?;
        let leased = connections.lease().await;
        let sent = send_over(&leased.client, request).await;
        if sent.as_ref().is_err_and(HttpError::is_timeout_of_a_connection) {
            connections.retire(leased.generation());
        }
        sent
    }

    fn connections_for(&self, request: &HttpRequest) -> Result<Arc<Connections>, HttpError> {
        self.policy.urls.check_own(&request.url).map_err(|problem| {
            HttpError::not_sent(match problem {
                UrlProblem::Insecure => TransportProblem::Refused,
                UrlProblem::Private => TransportProblem::PrivateAddress,
            })
        })?;
        match (&self.loopback, &request.client_certificate) {
            // Without TLS no certificate is presented, and the request would arrive unauthenticated.
            (Some(_), Some(_)) if request.url.scheme() == "http" => Err(HttpError::not_sent(TransportProblem::Refused)),
            (Some(loopback), None) if request.url.scheme() == "http" => Ok(loopback.clone()),
            (_, Some(certificate)) => self.certified(certificate).map_err(HttpError::not_sent),
            (_, None) => Ok(self.https.clone()),
        }
    }
}

impl HttpClient for ReqwestClient {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(self.exchange(request))
    }

    fn presents_client_certificates(&self) -> bool {
        true
    }
}

// reqwest's own `Debug` shows default headers and proxies, which may contain credentials.
impl fmt::Debug for ReqwestClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ReqwestClient")
            .field("allow_insecure_loopback", &self.loopback.is_some())
            .finish_non_exhaustive()
    }
}

/// Sends one request and reads the whole response.
async fn send_over(client: &Client, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let HttpRequest { method, url, headers, body, timeout, body_limit, document, client_certificate: _ } = request;
    let mut outgoing = ::reqwest::Request::new(method, url);
    *outgoing.headers_mut() = headers;
    *outgoing.timeout_mut() = Some(timeout);
    if !body.is_empty() {
        *outgoing.body_mut() = Some(body.into());
    }
    let mut response = client.execute(outgoing).await.map_err(before_response)?;
    let body = read(&mut response, body_limit, document).await?;
    Ok(HttpResponse { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
}

/// The builder of the client for everything except plain HTTP.
fn https(policy: TransportPolicy, configure: Option<&Configure>) -> ClientBuilder {
    let builder = with_defaults(Client::builder(), policy);
    let builder = match configure {
        Some(configure) => configure(builder),
        None => builder,
    };
    with_rules(builder).https_only(true)
}

/// What the caller may change.
fn with_defaults(builder: ClientBuilder, policy: TransportPolicy) -> ClientBuilder {
    let builder = builder
        .connect_timeout(policy.connect_timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_LIFE)
        .tcp_keepalive(TCP_PROBE)
        .tcp_keepalive_interval(TCP_PROBE)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
    // A proxy would resolve names without a check of the addresses.
    let builder = match policy.urls.private_addresses {
        PrivateAddresses::Refused => {
            let public = PublicAddresses::of_system();
            let permitted = if policy.urls.allow_insecure_loopback { public.and_localhost() } else { public };
            builder.no_proxy().dns_resolver(permitted)
        }
        PrivateAddresses::RefusedInDocuments | PrivateAddresses::Allowed => builder,
    };
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let builder = builder.tcp_user_timeout(UNACKNOWLEDGED);
    // Otherwise the operating system's library may use TLS 1.0 (RFC 9325 §3.1.1).
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    let builder = builder.tls_version_min(::reqwest::tls::Version::TLS_1_2);
    builder
}

/// What the caller may not change.
fn with_rules(builder: ClientBuilder) -> ClientBuilder {
    let builder = builder
        // A redirect would send codes and credentials to a server that the OP's metadata does not name.
        .redirect(redirect::Policy::none())
        .referer(false)
        // A code may be sent once. Only the caller of this client knows which requests may be repeated.
        .retry(retry::never())
        // It would write whole requests, credentials included, to the log.
        .connection_verbose(false)
        // Otherwise every further request would be lost on a connection that a proxy or a firewall silently dropped.
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .gzip(true)
        // Other crates of the program can enable these features of reqwest.
        .no_brotli()
        .no_zstd()
        .no_deflate();
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    let builder = builder.tls_danger_accept_invalid_certs(false).tls_danger_accept_invalid_hostnames(false);
    builder
}

/// Restricts a client to this machine, even if the environment sets a proxy or `localhost` resolves to another machine.
fn only_loopback(builder: ClientBuilder) -> ClientBuilder {
    // The port 0 stands for the one in the URL.
    let addresses = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    builder.no_proxy().resolve_to_addrs("localhost", &addresses)
}

fn build(builder: ClientBuilder) -> Result<Client, Error> {
    builder.build().map_err(|error| Error::new(ConfigurationProblem::HttpClient).with_source(error.without_url()))
}

/// Reads the body, and closes the connection as soon as it is too large, counted after decompression. The body may
/// contain tokens, so it is overwritten in memory when it is dropped.
async fn read(response: &mut Response, limit: usize, document: Document) -> Result<Bytes, HttpError> {
    let too_large = || HttpError::maybe_sent(TransportProblem::BodyTooLarge(document));
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(too_large());
    }
    // An announced length reserves little memory.
    let expected = usize::try_from(announced).unwrap_or(limit).min(FIRST_CAPACITY);
    let mut body = SecretBuffer::with_capacity(expected);
    while let Some(chunk) = response.chunk().await.map_err(after_response)? {
        if chunk.len() > limit - body.len() {
            return Err(too_large());
        }
        body.extend(&chunk);
    }
    Ok(Bytes::from_owner(body.into_bytes()))
}

/// Classifies an error. If it is unknown whether the request was sent, it counts as sent.
fn before_response(error: ::reqwest::Error) -> HttpError {
    let not_sent = if sources(&error).any(|error| error.is::<OnlyPrivateAddresses>()) {
        TransportProblem::PrivateAddress
    } else if error.is_connect() {
        TransportProblem::Connect
    } else if error.is_builder() {
        TransportProblem::Refused
    } else if h2_error(&error).is_some_and(is_unprocessed) || never_started(&error) || certificate_refused(&error) {
        TransportProblem::Broken
    } else {
        return after_response(error);
    };
    HttpError::not_sent(not_sent).with_source(harmless(error))
}

fn after_response(error: ::reqwest::Error) -> HttpError {
    let problem = if error.is_timeout() { TransportProblem::Timeout } else { TransportProblem::Broken };
    HttpError::maybe_sent(problem).with_source(harmless(error))
}

/// Whether the connection ended before the request was written: hyper reports exactly these requests as canceled.
fn never_started(error: &::reqwest::Error) -> bool {
    sources(error).any(|error| error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled))
}

/// Whether the server ended the handshake because of the client certificate. In TLS 1.3 the client learns that only
/// after it has sent the request, which the server then does not process (RFC 8446 §4.4.2.4 and §6.2).
///
/// The TLS libraries report this in different texts, and not every layer keeps their error types.
fn certificate_refused(error: &::reqwest::Error) -> bool {
    const ALERTS: [&str; 8] = [
        "badcertificate",
        "unsupportedcertificate",
        "certificaterevoked",
        "certificateexpired",
        "certificateunknown",
        "certificaterequired",
        "unknownca",
        "accessdenied",
    ];
    sources(error).any(|error| {
        let text: String = error.to_string().chars().filter(char::is_ascii_alphabetic).collect();
        let text = text.to_ascii_lowercase();
        text.split_once("alert").is_some_and(|(_, alert)| ALERTS.iter().any(|known| alert.starts_with(known)))
    })
}

fn sources(error: &::reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

fn h2_error(error: &::reqwest::Error) -> Option<&h2::Error> {
    sources(error).find_map(|error| error.downcast_ref())
}

/// Whether an HTTP/2 server stated that it did not process the request (RFC 9113 §8.7): it reset the stream with
/// `REFUSED_STREAM`, or shut the connection down gracefully and named a last stream before this one. For streams that a
/// `GOAWAY` still covers, h2 reports the end of the connection instead.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote()
        && match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
            Some(h2::Reason::NO_ERROR) => error.is_go_away(),
            _ => false,
        }
}

/// The error as a source, without the URL, whose query can contain a token, and without the text that a server may
/// attach to a `GOAWAY`. RFC 9113 §6.8: "Debug information could contain security- or privacy-sensitive data."
fn harmless(error: ::reqwest::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match h2_error(&error).filter(|error| error.is_go_away()).and_then(h2::Error::reason) {
        Some(reason) => format!("HTTP/2 GOAWAY: {reason}").into(),
        None => error.without_url().into(),
    }
}

#[cfg(test)]
mod address_tests;
#[cfg(test)]
mod dead_connection_tests;
#[cfg(test)]
mod http2_tests;
#[cfg(test)]
mod tests;
