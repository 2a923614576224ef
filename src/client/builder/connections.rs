//! Settings about connections: where they may go, what they go through, and what this crate otherwise takes from the machine.

use std::sync::Arc;

use super::{ClientBuilder, ConfigureHttp};
use crate::clock::Clock;
use crate::random::Random;
use crate::transport::{HttpClient, PrivateAddresses};

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
}
