//! The OP's registration endpoint, and the configuration endpoints of the registered clients.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value};
use url::Url;

use super::request::RegistrationRequest;
use super::response::ClientInformation;
use super::{Body, Registration};
use crate::client::connection::{Connection, ConnectionSettings};
use crate::client::options::REQUEST_TIMEOUT;
use crate::clock::Clock;
use crate::endpoint::{Answer, Failure, RegistrationCall};
use crate::error::{ConfigurationProblem, Document, Error, ErrorKind, Misuse, Rule, Violation};
use crate::random::Random;
use crate::sealed::Sealable as _;
use crate::secret::Secret;
use crate::transport::{ClientCertificate, HttpClient, PrivateAddresses, UrlProblem};

/// The longest answer in bytes: client metadata with a key set, and possibly certificates.
const CLIENT_INFORMATION_LIMIT: usize = 256 * 1024;

/// Registers clients at one OP, and manages their registrations.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use openid_deferred::registration::{Registrar, Registration, RegistrationRequest};
/// # use openid_deferred::testing::TestProvider;
/// # use openid_deferred::{Keyring, SealingKey};
/// # let keyring = Keyring::new(SealingKey::from_base64("CVh2hmGkm7dpPYHCxQeQWzB4jLYHG8xQbD3c3bqFUZc=")?);
/// # let op = TestProvider::builder().in_process().registration().initial_access_token("let-me-in").start()?;
/// # let network = op.http_client();
///
/// let registrar = Registrar::builder(op.issuer())
///     .initial_access_token("let-me-in")
/// #   .http_client(network.clone())
///     .build()?;
/// let request = RegistrationRequest::new("https://rp.example/callback").client_name("Example");
/// let mut registration = registrar.register(request).await?;
/// let stored = registration.seal(&keyring)?; // before it is used
///
/// let client = registration.client()?
/// #   .http_client(network)
///     .discover()
///     .await?;
/// # assert_eq!(client.client_id(), registration.client_id());
///
/// let renamed = registration.metadata().to_request().client_name("Another Example");
/// registrar.update(&mut registration, renamed).await?;
/// let stored = registration.seal(&keyring)?; // again: the OP may have replaced the token
///
/// registrar.delete(&Registration::open(&keyring, &stored)?).await?;
/// # op.assert_clean();
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Registrar(Arc<Inner>);

struct Inner {
    connection: Connection,
    certificate: Option<ClientCertificate>,
    request_timeout: Duration,
    initial_access_token: Option<Secret>,
}

/// Settings of a [`Registrar`]. Finish with [`build`](Self::build).
#[must_use = "a builder has no effect until `build`"]
pub struct RegistrarBuilder {
    connection: ConnectionSettings,
    client_certificate: Option<ClientCertificate>,
    request_timeout: Duration,
    initial_access_token: Option<Secret>,
}

impl Registrar {
    /// Starts building a registrar of the OP at `issuer`. The issuer must equal the one in the OP's documents exactly.
    pub fn builder(issuer: impl Into<String>) -> RegistrarBuilder {
        RegistrarBuilder {
            connection: ConnectionSettings::new(issuer.into()),
            client_certificate: None,
            request_timeout: REQUEST_TIMEOUT,
            initial_access_token: None,
        }
    }

    /// The OP's issuer identifier.
    pub fn issuer(&self) -> &str {
        self.0.connection.issuer.as_str()
    }

    /// Registers a client (RFC 7591 §3.1). The request is checked first, and sent once.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration) for an invalid request, and if the OP has no registration
    ///   endpoint.
    /// - [`ErrorResponse`](ErrorKind::ErrorResponse) if the OP refused;
    ///   [`RegistrationRefusal`](super::RegistrationRefusal) states why.
    /// - [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if the request may have arrived but no answer did.
    /// - [`Protocol`](ErrorKind::Protocol) for an answer that cannot be used.
    ///
    /// After the last two the OP may have registered a client whose secret is lost. Each attempt registers another
    /// client.
    pub async fn register(&self, request: RegistrationRequest) -> Result<Registration, Error> {
        self.request_registration(request).await.map_err(|error| error.in_step("registering the client"))
    }

    /// Reads the registration (RFC 7592 §2.1) and adopts what the OP has changed: metadata, a new secret, a new
    /// registration access token. Store the registration again afterwards.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration) if the OP gave no means to manage the registration.
    /// - [`ErrorResponse`](ErrorKind::ErrorResponse) or [`Protocol`](ErrorKind::Protocol) if the OP refused (see
    ///   [`RegistrationRefusal`](super::RegistrationRefusal)), or if its answer cannot be used.
    /// - [`Misuse`](ErrorKind::Misuse) for a registration at another OP.
    /// - [`Transport`](ErrorKind::Transport) if no answer arrived.
    ///
    /// After an error the registration is unchanged.
    ///
    /// Some OPs replace the registration access token when it is used. Such an OP may have done so before its answer
    /// was lost, or before this future was dropped. If the next call is then refused because of the token, ask the OP's
    /// operator for help.
    pub async fn read(&self, registration: &mut Registration) -> Result<(), Error> {
        let information = self.manage(registration, Method::GET, None).await;
        let information = information.map_err(|error| error.in_step("reading the registration"))?;
        registration.take_over(information);
        Ok(())
    }

    /// Replaces the whole registration with `request` (RFC 7592 §2.2), except for the identifier and the secret.
    ///
    /// Start the request with [`ClientMetadata::to_request`](super::ClientMetadata::to_request), because an update
    /// deletes every member that it does not contain. Store the registration again afterwards, and check
    /// [`Registration::differences`].
    ///
    /// # Errors
    ///
    /// The errors of [`read`](Self::read), and [`Configuration`](ErrorKind::Configuration) for an invalid request. An
    /// update can be repeated.
    pub async fn update(&self, registration: &mut Registration, request: RegistrationRequest) -> Result<(), Error> {
        let update = async {
            request.check()?;
            let requested = request.metadata().clone();
            let mut members = requested.as_json().clone();
            members.insert("client_id".to_owned(), registration.client_id().into());
            if let Some(secret) = registration.client_secret() {
                // "If the client includes the "client_secret" field in the request, the value of this field MUST match
                // the currently issued client secret". Without it, the OP could delete the secret.
                members.insert("client_secret".to_owned(), secret.expose().into());
            }
            Ok((self.manage(registration, Method::PUT, Some(&members)).await?, requested))
        };
        let (information, requested) =
            update.await.map_err(|error: Error| error.in_step("updating the registration"))?;
        registration.take_over(information);
        registration.0.requested = requested;
        Ok(())
    }

    /// Deletes the client at the OP (RFC 7592 §2.3), with all its tokens and pending sign-ins. The registration cannot
    /// be used afterwards.
    ///
    /// # Errors
    ///
    /// The errors of [`read`](Self::read). An OP also answers
    /// [`RegistrationRefusal::AccessToken`](super::RegistrationRefusal::AccessToken) if the client no longer exists,
    /// for example after a deletion whose answer was lost.
    pub async fn delete(&self, registration: &Registration) -> Result<(), Error> {
        let deleted = async {
            match self.call_configuration_endpoint(registration, Method::DELETE, None).await? {
                // 204 has no body, and some OPs answer with 200 and an empty one.
                Answer::Success { .. } | Answer::Unusable { status: 200 | 204, .. } => Ok(()),
                answer => refused(answer),
            }
        };
        deleted.await.map_err(|error| error.in_step("deleting the registration"))
    }

    async fn request_registration(&self, request: RegistrationRequest) -> Result<Registration, Error> {
        request.check()?;
        let metadata = self.0.connection.provider.metadata().await?;
        let certificate = self.0.certificate.as_ref();
        let endpoints = if certificate.is_some() { metadata.mtls_endpoints() } else { metadata.endpoints() };
        let url = endpoints.registration()?;
        let call = RegistrationCall {
            method: Method::POST,
            url,
            metadata: Some(request.metadata().as_json()),
            access_token: self.0.initial_access_token.as_ref(),
            certificate,
            document: Document::ClientInformation,
            timeout: self.0.request_timeout,
            body_limit: CLIENT_INFORMATION_LIMIT,
        };
        let body = match self.0.connection.endpoints.registration(call).await {
            Ok(Answer::Success { body, .. }) => body,
            Ok(answer) => return refused(answer),
            Err(Failure { error, may_have_been_sent: true }) => {
                return Err(Error::new(ErrorKind::OutcomeUnknown).with_source(error));
            }
            Err(Failure { error, .. }) => return Err(error),
        };
        // The OP keeps what it has registered, so the same request would register another client.
        let information = self.parse(&body).map_err(|violation| Error::from(violation).permanent())?;
        let endpoint =
            information.configuration_endpoint.transpose().map_err(|violation| Error::from(violation).permanent())?;
        if endpoint.is_some() != information.access_token.is_some() {
            tracing::warn!(
                "the OP sent only one of the registration access token and its URI; the registration cannot be managed"
            );
        }
        tracing::info!(issuer = self.issuer(), client_id = information.client_id, "the client was registered");
        Ok(Registration(Box::new(Body {
            version: Body::VERSION,
            issuer: self.issuer().to_owned(),
            client_id: information.client_id,
            client_secret: information.client_secret,
            issued_at: information.issued_at,
            secret_expires_at: information.secret_expires_at,
            configuration_endpoint: endpoint,
            access_token: information.access_token,
            requested: request.metadata().clone(),
            registered: information.metadata,
        })))
    }

    /// Sends a request to the configuration endpoint that is answered with the client's information.
    async fn manage(
        &self,
        registration: &Registration,
        method: Method,
        metadata: Option<&Map<String, Value>>,
    ) -> Result<ClientInformation, Error> {
        let body = match self.call_configuration_endpoint(registration, method, metadata).await? {
            Answer::Success { body, .. } => body,
            answer => return refused(answer),
        };
        let information = self.parse(&body)?;
        // RFC 7592 §2.2: the identifier of an update "MUST be the same as its currently issued client identifier".
        if information.client_id != registration.client_id() {
            let violation = Violation::new(Rule::InvalidMember).at_member("client_id");
            return Err(violation.in_document(Document::ClientInformation).into());
        }
        Ok(information)
    }

    async fn call_configuration_endpoint(
        &self,
        registration: &Registration,
        method: Method,
        metadata: Option<&Map<String, Value>>,
    ) -> Result<Answer, Error> {
        if registration.issuer() != self.issuer() {
            return Err(Misuse::WrongClient.into());
        }
        let (Some(url), Some(access_token)) =
            (registration.registration_client_uri(), registration.registration_access_token())
        else {
            return Err(ConfigurationProblem::NoEndpoint("registration_client_uri").into());
        };
        let call = RegistrationCall {
            method,
            url: self.allowed(url)?,
            metadata,
            access_token: Some(access_token),
            certificate: self.0.certificate.as_ref(),
            document: Document::ClientInformation,
            timeout: self.0.request_timeout,
            body_limit: CLIENT_INFORMATION_LIMIT,
        };
        self.0.connection.endpoints.registration(call).await.map_err(|failure| failure.error)
    }

    /// Checks the URL again, because a stored registration may have been made under other settings.
    fn allowed<'a>(&self, url: &'a Url) -> Result<&'a Url, Error> {
        let judged = self.judge(url).map_err(|problem| problem.of_setting("registration_client_uri"));
        judged.map(|()| url).map_err(Error::from)
    }

    /// Whether a URL that the OP named may be called.
    fn judge(&self, url: &Url) -> Result<(), UrlProblem> {
        let Connection { issuer, urls, .. } = &self.0.connection;
        urls.check_named_by(issuer.url(), url)
    }

    fn parse(&self, body: &[u8]) -> Result<ClientInformation, Violation> {
        ClientInformation::parse(body, |url| self.judge(url).map_err(UrlProblem::rule))
    }
}

impl Registration {
    /// Adopts what the OP says now. Secrets and the means to manage the registration stay if the OP does not repeat
    /// them.
    fn take_over(&mut self, information: ClientInformation) {
        let body = &mut self.0;
        if let Some(secret) = information.client_secret {
            body.client_secret = Some(secret);
            body.secret_expires_at = information.secret_expires_at;
        } else if !information.metadata.needs_secret() {
            // The next update would otherwise present a secret that is no longer the client's.
            body.client_secret = None;
            body.secret_expires_at = None;
        } else if information.secret_expires_at.is_some() {
            body.secret_expires_at = information.secret_expires_at;
        }
        body.issued_at = information.issued_at.or(body.issued_at);
        if let Some(token) = information.access_token {
            body.access_token = Some(token);
        }
        match information.configuration_endpoint {
            Some(Ok(url)) => body.configuration_endpoint = Some(url),
            // The new token has already been issued, and would be lost with an error.
            Some(Err(violation)) => {
                tracing::warn!(%violation, "the OP sent an invalid `registration_client_uri`; the old one stays in use");
            }
            None => {}
        }
        body.registered = information.metadata;
    }
}

/// The error for an unsuccessful answer.
fn refused<T>(answer: Answer) -> Result<T, Error> {
    Err(match answer {
        Answer::Error(answer) => Error::new(answer.response).with_retry_after(answer.retry_after),
        Answer::Unusable { violation, retry_after, .. } => Error::new(violation).with_retry_after(retry_after),
        Answer::Success { .. } => {
            Violation::new(Rule::UnexpectedStatus).in_document(Document::ClientInformation).into()
        }
    })
}

impl RegistrarBuilder {
    /// Sets the token that permits a registration, if the OP restricts who may register (RFC 7591 §3).
    pub fn initial_access_token(mut self, token: impl Into<Secret>) -> Self {
        self.initial_access_token = Some(token.into());
        self
    }

    /// Sets the certificate to present, if the OP requires one for a registration. It is presented at the OP's alias
    /// for mutual TLS if there is one.
    pub fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.client_certificate = Some(certificate);
        self
    }

    /// Permits plain HTTP to loopback addresses, for development and tests.
    pub fn allow_insecure_loopback(mut self) -> Self {
        self.connection.urls.allow_insecure_loopback = true;
        self
    }

    /// Lets the OP name endpoints in private networks, as [`ClientBuilder::allow_private_addresses`](crate::ClientBuilder::allow_private_addresses) does.
    pub fn allow_private_addresses(mut self) -> Self {
        self.connection.urls.private_addresses = PrivateAddresses::Allowed;
        self
    }

    /// Connects to public addresses only, as [`ClientBuilder::refuse_private_addresses`](crate::ClientBuilder::refuse_private_addresses) does.
    pub fn refuse_private_addresses(mut self) -> Self {
        self.connection.urls.private_addresses = PrivateAddresses::Refused;
        self
    }

    /// Adjusts the reqwest client, as [`ClientBuilder::configure_http`](crate::ClientBuilder::configure_http) does.
    pub fn configure_http(
        mut self,
        configure: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.connection.configure_http = Some(Box::new(configure));
        self
    }

    /// Sends requests through this HTTP client instead of reqwest.
    pub fn http_client(mut self, http_client: Arc<dyn HttpClient>) -> Self {
        self.connection.http_client = Some(http_client);
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

    /// Sets how long a request may take, from connecting to the last byte of its response; 30 s unless set.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Returns the registrar without a request to the OP; its metadata is fetched when it is first needed.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) for settings that cannot work.
    pub fn build(self) -> Result<Registrar, Error> {
        Ok(Registrar(Arc::new(Inner {
            connection: self.connection.connect(self.client_certificate.as_ref())?,
            certificate: self.client_certificate,
            request_timeout: self.request_timeout,
            initial_access_token: self.initial_access_token,
        })))
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Registrar").field("issuer", &self.issuer()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RegistrarBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RegistrarBuilder").field("issuer", &self.connection.issuer).finish_non_exhaustive()
    }
}
