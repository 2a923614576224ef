//! How the OP is reached: what a client and a registrar have in common.

use std::sync::Arc;
use std::time::Duration;

use super::setting::setting;
use crate::clock::{Clock, SystemClock};
use crate::endpoint::Endpoints;
use crate::error::Error;
use crate::provider::{Issuer, Provider};
use crate::random::{Random, SystemRandom};
use crate::transport::{ClientCertificate, Configure, HttpClient, ReqwestClient, TransportPolicy, UrlPolicy};

/// The timeout unless `configure_http` sets another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An OP, and the means to send requests to it.
pub(super) struct Connection {
    pub(super) issuer: Issuer,
    pub(super) urls: UrlPolicy,
    pub(super) provider: Provider,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
}

/// The settings of a [`Connection`]. The builders have a method of the same name for each.
pub(super) struct ConnectionSettings {
    pub(super) issuer: String,
    pub(super) urls: UrlPolicy,
    pub(super) http_client: Option<Arc<dyn HttpClient>>,
    pub(super) configure_http: Option<Box<Configure>>,
    pub(super) share_connections: Option<SharedConnections>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
}

/// The connections of another client, with the URL rules that they were created with.
pub(super) struct SharedConnections {
    pub(super) http_client: Arc<dyn HttpClient>,
    pub(super) urls: UrlPolicy,
}

impl ConnectionSettings {
    pub(super) fn new(issuer: String) -> Self {
        Self {
            issuer,
            urls: UrlPolicy::default(),
            http_client: None,
            configure_http: None,
            share_connections: None,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        }
    }

    /// Makes the connection, which presents this certificate if there is one. Sends nothing.
    pub(super) fn connect(mut self, certificate: Option<&ClientCertificate>) -> Result<Connection, Error> {
        let issuer = Issuer::new(&self.issuer, self.urls)?;
        let http_client = self.http_client(certificate)?;
        let endpoints = Arc::new(Endpoints::new(http_client, self.clock.clone(), self.random.clone()));
        let provider = Provider::new(issuer.clone(), endpoints.clone(), self.urls, self.clock.clone());
        Ok(Connection { issuer, urls: self.urls, provider, endpoints, clock: self.clock, random: self.random })
    }

    fn http_client(&mut self, certificate: Option<&ClientCertificate>) -> Result<Arc<dyn HttpClient>, Error> {
        if let Some(shared) = self.share_connections.take() {
            return self.shared(shared, certificate);
        }
        if let Some(http_client) = self.http_client.take() {
            if certificate.is_some() && !http_client.presents_client_certificates() {
                return Err(setting(
                    "http_client",
                    "it does not present client certificates; implement `presents_client_certificates`, and send \
                     each request that has a `client_certificate` over a connection with that certificate",
                ));
            }
            return Ok(http_client);
        }
        let policy = TransportPolicy { urls: self.urls, connect_timeout: CONNECT_TIMEOUT };
        let client = ReqwestClient::new(policy, self.configure_http.take())?;
        if let Some(certificate) = certificate {
            client.prepare(&certificate.current())?;
        }
        Ok(Arc::new(client))
    }

    fn shared(
        &self,
        shared: SharedConnections,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Arc<dyn HttpClient>, Error> {
        let problem = if self.http_client.is_some() || self.configure_http.is_some() {
            "`http_client` and `configure_http` have no effect on shared connections; set them on the client that \
             owns the connections"
        } else if self.urls != shared.urls {
            "call `allow_insecure_loopback`, `allow_private_addresses` and `refuse_private_addresses` on both builders \
             or on neither"
        } else if certificate.is_some() {
            "a client with a certificate needs connections of its own; remove this setting"
        } else {
            return Ok(shared.http_client);
        };
        Err(setting("share_connections", problem))
    }
}
