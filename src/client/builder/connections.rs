//! Settings about connections: where they may go, what they go through, and what this crate otherwise takes from the machine.

use std::sync::Arc;
use std::time::Duration;

use super::{ClientBuilder, setting};
use crate::client::Client;
use crate::clock::Clock;
use crate::error::Error;
use crate::random::Random;
use crate::transport::{Configure, HttpClient, PrivateAddresses, ReqwestClient, TransportPolicy, UrlPolicy};

/// Unless `configure_http` sets another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct ConfigureHttp(Box<Configure>);

/// The connections of another client, with the rules about URLs that they were made under.
pub(super) struct SharedConnections {
    http_client: Arc<dyn HttpClient>,
    urls: UrlPolicy,
}

impl ClientBuilder {
    /// Permits plain HTTP to loopback addresses and `localhost`, for development and tests, and an OP's metadata to name
    /// them. Everything else stays HTTPS.
    #[must_use]
    pub fn allow_insecure_loopback(mut self) -> Self {
        self.urls.allow_insecure_loopback = true;
        self
    }

    /// Lets the OP's metadata name endpoints at addresses of private networks and of this machine: for an OP in your own
    /// network whose endpoints are written as addresses. All of them still need HTTPS.
    ///
    /// By default such metadata is refused ([`Rule::PrivateEndpoint`](crate::Rule::PrivateEndpoint)), because whoever
    /// writes it could make this client connect to what only this client reaches. That is about addresses (in any
    /// spelling, and in any IPv6 address that stands for an IPv4 one) and about `localhost`. Names may mean private
    /// addresses: `https://op.corp.example` needs no setting. Nor does the host of the issuer, which you chose.
    #[must_use]
    pub fn allow_private_addresses(mut self) -> Self {
        self.urls.private_addresses = PrivateAddresses::Allowed;
        self
    }

    /// Connects to public addresses only, whoever names them: an OP's metadata, this builder, or a call to
    /// [`Client::resource`](crate::Client::resource). For applications whose issuers come from people who must not reach into the network that
    /// the application runs in, such as the customers of a service.
    ///
    /// Names are resolved first, and connections go to those of their addresses that were found to be public, so a name
    /// server that changes its answer (DNS rebinding) gains nothing. A name without a public address is a
    /// [`TransportProblem::PrivateAddress`](crate::TransportProblem::PrivateAddress).
    ///
    /// Proxies of the environment are not used, because a proxy resolves names where this crate cannot look. A proxy
    /// that [`configure_http`](Self::configure_http) sets is used, and then has to refuse private addresses itself; it is
    /// named by its address if that is private. A resolver set there replaces the one of this crate: wrap it into
    /// [`PublicAddresses`](crate::PublicAddresses). An [own HTTP client](Self::http_client) has to look at addresses
    /// itself; this crate then sees only those that stand in URLs.
    ///
    /// [`allow_insecure_loopback`](Self::allow_insecure_loopback) still allows this machine. Of this setting and
    /// [`allow_private_addresses`](Self::allow_private_addresses) the later one counts.
    #[must_use]
    pub fn refuse_private_addresses(mut self) -> Self {
        self.urls.private_addresses = PrivateAddresses::Refused;
        self
    }

    /// Adjusts the reqwest client: proxies, root certificates, connect timeout, DNS. Redirects stay off, plain HTTP
    /// stays refused, bodies stay bounded and HTTP/2 connections are pinged whatever is set here. It has no effect beside
    /// [`http_client`](Self::http_client).
    ///
    /// It is called for each reqwest client that is built: the first one, and one for each
    /// [`ClientCertificate`](crate::ClientCertificate) and each renewal of it. Each of them is replaced every five minutes,
    /// and after a request that timed out, so that no connection is used for ever and a name that has moved is noticed.
    /// Later calls run on a thread for blocking work.
    #[must_use]
    pub fn configure_http(
        mut self,
        configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.configure_http = Some(ConfigureHttp(Box::new(configure)));
        self
    }

    /// Sends requests through this instead of reqwest. If the client has a certificate, this has to present it; see
    /// [`HttpClient::presents_client_certificates`].
    #[must_use]
    pub fn http_client(mut self, http_client: Arc<dyn HttpClient>) -> Self {
        self.http_client = Some(http_client);
        self
    }

    /// Sends requests over the connections of another client instead of opening new ones.
    ///
    /// Otherwise each client has a connection pool and TLS settings of its own. Share them among the clients of a
    /// service that serves thousands of customers: build one client, and give it to the builder of each other one. The
    /// clients may be registered at the same OP or at different ones. They share nothing else.
    ///
    /// The settings of the connections are those of `client`: what was given to its
    /// [`configure_http`](Self::configure_http) or [`http_client`](Self::http_client).
    ///
    /// [`build`](Self::build) and [`discover`](Self::discover) return an error if this builder sets one of those two as
    /// well, if it does not treat private addresses and the loopback interface as `client` does, or if it has a
    /// [`client_certificate`](Self::client_certificate), which belongs to connections of its own.
    #[must_use]
    pub fn share_connections(mut self, client: &Client) -> Self {
        let http_client = client.0.endpoints.http_client().clone();
        self.shared_connections = Some(SharedConnections { http_client, urls: client.0.urls });
        self
    }

    /// Takes the time from this instead of the machine's clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes randomness from this instead of the operating system. For simulations only.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// What requests are sent through, as the settings say.
    pub(super) fn connections(&mut self) -> Result<Arc<dyn HttpClient>, Error> {
        if let Some(shared) = self.shared_connections.take() {
            return self.shared(shared);
        }
        if let Some(http_client) = self.http_client.take() {
            if self.credentials.certificate().is_some() && !http_client.presents_client_certificates() {
                return Err(setting(
                    "http_client",
                    "it does not present client certificates; implement `presents_client_certificates`, and send \
                     requests with a `client_certificate` over connections with that one",
                ));
            }
            return Ok(http_client);
        }
        let policy = TransportPolicy { urls: self.urls, connect_timeout: CONNECT_TIMEOUT };
        let client = ReqwestClient::new(policy, self.configure_http.take().map(|configure| configure.0))?;
        if let Some(certificate) = self.credentials.certificate() {
            client.prepare(&certificate.current())?;
        }
        Ok(Arc::new(client))
    }

    fn shared(&self, shared: SharedConnections) -> Result<Arc<dyn HttpClient>, Error> {
        let problem = if self.http_client.is_some() || self.configure_http.is_some() {
            "`http_client` and `configure_http` have no effect on shared connections; set them on the client that the \
             connections belong to"
        } else if self.urls != shared.urls {
            "call `allow_insecure_loopback`, `allow_private_addresses` and `refuse_private_addresses` on both builders \
             or on neither"
        } else if self.credentials.certificate().is_some() {
            "a client with a certificate needs connections of its own; remove this setting"
        } else {
            return Ok(shared.http_client);
        };
        Err(setting("share_connections", problem))
    }
}
