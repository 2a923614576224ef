//! Settings about connections: permitted addresses, the HTTP client, the clock and the source of randomness.

use std::sync::Arc;

use super::ClientBuilder;
use crate::client::Client;
use crate::client::connection::SharedConnections;
use crate::clock::Clock;
use crate::random::Random;
use crate::transport::{HttpClient, PrivateAddresses};

impl ClientBuilder {
    /// Sends the [trace](crate::AuthorizationRequest::trace_parent) of a sign-in or token request to the OP, in the header
    /// `traceparent` of its exchange and its polls (W3C Trace Context §3.2). By default nothing is sent.
    ///
    /// The OP can then continue the trace, if it shares your tracing system. The identifier of the trace lets it link all
    /// requests of a sign-in, and whatever else has the same trace. It also holds for sign-ins that have already started.
    pub fn send_trace_parent(mut self) -> Self {
        self.options.send_trace_parent = true;
        self
    }

    /// Permits plain HTTP to loopback addresses and `localhost`, for development and tests, and permits them in an OP's
    /// metadata. All other connections still use HTTPS.
    pub fn allow_insecure_loopback(mut self) -> Self {
        self.connection.urls.allow_insecure_loopback = true;
        self
    }

    /// Lets the OP's metadata name endpoints at addresses of private networks and of this machine. This is for an OP in
    /// your own network whose endpoints are written as addresses. All of them still need HTTPS.
    ///
    /// By default such metadata is refused ([`Rule::PrivateEndpoint`](crate::error::Rule::PrivateEndpoint)), because
    /// its author could make this client connect to hosts that only this client can reach. This concerns addresses (in
    /// any spelling, and any IPv6 address that stands for an IPv4 one) and `localhost`. Names may resolve to private
    /// addresses: `https://op.corp.example` needs no setting. The host of the issuer needs none either, because you
    /// chose it.
    pub fn allow_private_addresses(mut self) -> Self {
        self.connection.urls.private_addresses = PrivateAddresses::Allowed;
        self
    }

    /// Connects to public addresses only, whether an OP's metadata, this builder, or a call to
    /// [`Client::resource`](crate::Client::resource) names them.
    ///
    /// This is for applications whose issuers are chosen by people who must not reach the application's own network,
    /// such as the customers of a service.
    ///
    /// Names are resolved first, and connections go only to those of their addresses that are public, so DNS
    /// rebinding has no effect. A name without a public address is a
    /// [`TransportProblem::PrivateAddress`](crate::error::TransportProblem::PrivateAddress).
    ///
    /// Proxies of the environment are not used, because a proxy resolves names where this crate cannot check them. A
    /// proxy that [`configure_http`](Self::configure_http) sets is used, and must then refuse private addresses itself.
    /// If its own address is private, configure it by address. A resolver set there replaces that of this crate: wrap
    /// it in [`PublicAddresses`](crate::transport::PublicAddresses). A [custom HTTP client](Self::http_client) must
    /// check addresses itself, because this crate then sees only addresses that are part of URLs.
    ///
    /// [`allow_insecure_loopback`](Self::allow_insecure_loopback) still permits this machine. If both this setting and
    /// [`allow_private_addresses`](Self::allow_private_addresses) are called, the later one counts.
    pub fn refuse_private_addresses(mut self) -> Self {
        self.connection.urls.private_addresses = PrivateAddresses::Refused;
        self
    }

    /// Adjusts the reqwest client: proxies, root certificates, connect timeout, DNS.
    ///
    /// Whatever is set here, redirects stay off, plain HTTP stays refused, bodies stay bounded and HTTP/2 connections
    /// are pinged. It has no effect if [`http_client`](Self::http_client) is set.
    ///
    /// It is called for each reqwest client that is built: the first one, and one for each
    /// [`ClientCertificate`](crate::transport::ClientCertificate) and each renewal of it. Each client is replaced every
    /// five minutes, and after a request that timed out. So no connection is used forever, and a changed DNS entry is
    /// noticed. Later calls of this function run on a thread for blocking work.
    pub fn configure_http(
        mut self,
        configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.connection.configure_http = Some(Box::new(configure));
        self
    }

    /// Sends requests through this HTTP client instead of reqwest. If the client has a certificate, the HTTP client has
    /// to present it; see [`HttpClient::presents_client_certificates`].
    pub fn http_client(mut self, http_client: Arc<dyn HttpClient>) -> Self {
        self.connection.http_client = Some(http_client);
        self
    }

    /// Sends requests over the connections of another client instead of opening new ones.
    ///
    /// Otherwise each client has its own connection pool and TLS settings. Share them among the clients of a service
    /// that serves thousands of customers: build one client, and pass it to the builder of each other client. The
    /// clients may be registered at the same OP or at different ones. They share nothing else.
    ///
    /// The settings of the connections are those of `client`: its [`configure_http`](Self::configure_http) or
    /// [`http_client`](Self::http_client).
    ///
    /// [`build`](Self::build) and [`discover`](Self::discover) return an error in these cases:
    ///
    /// - This builder sets one of those two as well.
    /// - This builder does not treat private addresses and the loopback interface as `client` does.
    /// - This builder has a [`client_certificate`](Self::client_certificate), which needs its own connections.
    pub fn share_connections(mut self, client: &Client) -> Self {
        let http_client = client.0.endpoints.http_client().clone();
        self.connection.share_connections = Some(SharedConnections { http_client, urls: client.0.urls });
        self
    }

    /// Takes the time from this clock instead of the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.connection.clock = clock;
        self
    }

    /// Takes randomness from this source instead of the operating system. For simulations only.
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.connection.random = random;
        self
    }
}
