//! The settings of a provider.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use url::Url;

use super::certificate::ClientAuthority;
use super::client::{TestClient, TestUser};
use super::dialect::Dialects;
use super::editor::Editor;
use super::op::Op;
use super::ping::{Ping, PingHook};
use super::provider::TestProvider;
use super::server::{Listener, Server, Tls};
use super::settings::{
    BackchannelSettings, DecisionPolicy, DiscoveryForm, IetfSettings, InterimToken, NoncePolicy, RegistrationSettings,
    Settings,
};
use super::state::State;
use crate::clock::{Clock, SystemClock};
use crate::random::{Random, SystemRandom};

/// Settings of a [`TestProvider`]; see [`TestProvider::builder`]. Finish with [`start`](Self::start).
#[must_use = "a builder has no effect until `start`"]
pub struct TestProviderBuilder {
    transport: Transport,
    host: String,
    path: String,
    clients: Vec<TestClient>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    ping_hook: Option<PingHook>,
    user: TestUser,
    decisions: DecisionPolicy,
    keep_requests: Option<usize>,
    clock_offset: i64,
    mtls_endpoint_aliases: bool,
    requires_client_certificates: bool,
    pub(super) settings: Settings,
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Http,
    Https,
    InProcess,
}

impl TestProvider {
    /// Starts building a provider. By default it serves plain HTTP on a loopback port, has no client, approves at once
    /// and uses the machine's clock.
    pub fn builder() -> TestProviderBuilder {
        TestProviderBuilder::new()
    }
}

impl TestProviderBuilder {
    fn new() -> Self {
        Self {
            transport: Transport::Http,
            host: "op.test".to_owned(),
            path: String::new(),
            clients: Vec::new(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            ping_hook: None,
            user: TestUser::default(),
            decisions: DecisionPolicy::default(),
            keep_requests: None,
            clock_offset: 0,
            settings: Settings {
                issuer: String::new(),
                dialects: Dialects { openid: true, ietf: false, ciba: false },
                ietf: IetfSettings::default(),
                backchannel: BackchannelSettings::default(),
                edit_metadata: Vec::new(),
                interval: Some(Duration::from_secs(5)),
                expires_in: Some(Duration::from_secs(21 * 86_400)),
                long_polling: Duration::ZERO,
                answers_with_code: false,
                interim: InterimToken::default(),
                interim_claims: Map::new(),
                early_access_token: false,
                opaque_values: false,
                nonces: NoncePolicy::default(),
                challenge_as_401: false,
                requires_dpop: false,
                supports_dpop: true,
                allows_key_reuse: false,
                requires_pkce: true,
                sends_iss: true,
                cancellation_in_json: false,
                assertions_for_token_endpoint: false,
                refresh_tokens: true,
                rotates_refresh_tokens: true,
                discovery: DiscoveryForm::default(),
                mutual_tls: false,
                requires_pushed: false,
                requires_signed: false,
                fapi: false,
                request_uri_lifetime: Duration::from_secs(60),
                registration: RegistrationSettings::default(),
            },
            mtls_endpoint_aliases: false,
            requires_client_certificates: false,
        }
    }

    /// Serves HTTPS on loopback instead of plain HTTP, with a certificate of [`TestProvider::ca_certificate_pem`].
    pub fn https(mut self) -> Self {
        self.transport = Transport::Https;
        self
    }

    /// Requests client certificates (RFC 8705), without requiring them. They are accepted for `tls_client_auth`,
    /// `self_signed_tls_client_auth` and certificate-bound access tokens. This needs [`https`](Self::https) or
    /// [`in_process`](Self::in_process).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use openid_deferred::testing::{TestClient, TestProvider};
    /// use openid_deferred::transport::ClientCertificate;
    /// use openid_deferred::Client;
    ///
    /// let op = TestProvider::builder()
    ///     .https()
    ///     .mutual_tls()
    ///     .client(TestClient::tls_client_auth("my-client", "client.rp.test"))
    ///     .start()?;
    /// let files = op.client_certificate("client.rp.test");
    /// let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap_or_default().as_bytes())?;
    ///
    /// let client = Client::builder(op.issuer(), "my-client")
    ///     .client_certificate(ClientCertificate::from_pem(files.certificate_pem(), files.key_pem())?)
    ///     .redirect_uri("https://rp.test/callback")
    ///     .configure_http(move |http| http.tls_certs_only([authority.clone()]))
    ///     .discover()
    ///     .await?;
    /// assert_eq!(client.authentication_method(), Some("tls_client_auth"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn mutual_tls(mut self) -> Self {
        self.settings.mutual_tls = true;
        self
    }

    /// Like [`mutual_tls`](Self::mutual_tls), with a second address for clients with certificates. The metadata names
    /// it in `mtls_endpoint_aliases` (RFC 8705 §5). [`metadata`](Self::metadata) can remove single aliases.
    pub fn mtls_endpoint_aliases(mut self) -> Self {
        self.mtls_endpoint_aliases = true;
        self.mutual_tls()
    }

    /// Like [`mtls_endpoint_aliases`](Self::mtls_endpoint_aliases), and requires a valid certificate of the provider's
    /// [authority](TestProvider::client_certificate) in the TLS handshake at that address. Many servers are configured like this.
    /// This needs [`https`](Self::https).
    pub fn require_client_certificates(mut self) -> Self {
        self.requires_client_certificates = true;
        self.mtls_endpoint_aliases()
    }

    /// Opens no socket. Requests only arrive through [`TestProvider::http_client`], and the issuer is
    /// `https://op.test`. With a [`TestClock`](super::TestClock) a run is deterministic.
    pub fn in_process(mut self) -> Self {
        self.transport = Transport::InProcess;
        self
    }

    /// Sets the host of a provider in process, instead of `op.test`. Two such providers need different hosts.
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// Gives the issuer a path, such as `/tenant`.
    ///
    /// # Panics
    ///
    /// If the path does not begin with a slash or ends with one.
    pub fn path(mut self, path: &str) -> Self {
        assert!(path.starts_with('/') && !path.ends_with('/'), "a path begins with a slash and ends without one");
        self.path = path.to_owned();
        self
    }

    /// Sets the provider's clock. The default is the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets an error of the provider's wall clock, in seconds. A positive value means that it is ahead.
    pub fn clock_offset(mut self, seconds: i64) -> Self {
        self.clock_offset = seconds;
        self
    }

    /// Sets the source of randomness for codes, identifiers, tokens and nonces.
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// Registers a client.
    pub fn client(mut self, client: TestClient) -> Self {
        self.clients.push(client);
        self
    }

    /// Edits the metadata before it is served.
    ///
    /// ```
    /// use openid_deferred::testing::TestProvider;
    ///
    /// let builder = TestProvider::builder().metadata(|members| {
    ///     members.remove("revocation_endpoint");
    /// });
    /// ```
    pub fn metadata(mut self, edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        self.settings.edit_metadata.push(Editor(Arc::new(edit)));
        self
    }

    /// Sets the `interval` in exchange responses, which polls have to obey; whole seconds. The default is 5 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = Some(interval);
        self
    }

    /// Sends no `interval`. Polls still have to be 5 s apart.
    pub fn no_interval(mut self) -> Self {
        self.settings.interval = None;
        self
    }

    /// Sets the lifetime of a `deferred_auth_id`; whole seconds. The default is three weeks.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.settings.expires_in = Some(lifetime);
        self
    }

    /// Lets a `deferred_auth_id` never expire, and sends no `expires_in`.
    pub fn no_expiry(mut self) -> Self {
        self.settings.expires_in = None;
        self
    }

    /// Delays the answer to a poll for up to this long while the sign-in is pending (long polling).
    pub fn long_polling(mut self, up_to: Duration) -> Self {
        self.settings.long_polling = up_to;
        self
    }

    /// Sets the decision and its time. The default is [`DecisionPolicy::immediately`].
    pub fn decisions(mut self, policy: DecisionPolicy) -> Self {
        self.decisions = policy;
        self
    }

    /// Answers `deferred_code code` requests with `code`, as if the user was authenticated at once.
    pub fn answer_with_code(mut self) -> Self {
        self.settings.answers_with_code = true;
        self
    }

    /// Sets the name under which exchange responses carry an interim ID Token.
    pub fn interim_token(mut self, interim: InterimToken) -> Self {
        self.settings.interim = interim;
        self
    }

    /// Adds a claim to interim ID Tokens. They contain only `sub` of the user's claims.
    pub fn interim_claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.settings.interim_claims.insert(name.to_owned(), value.into());
        self
    }

    /// Includes an access token in exchange responses, as in the older text of the draft. Polls may then authenticate
    /// with it, bound to their DPoP key, instead of with the client's own method.
    pub fn early_access_token(mut self) -> Self {
        self.settings.early_access_token = true;
        self
    }

    /// Generates codes, `deferred_auth_id`s, `request_uri`s, tokens and nonces with all characters that their
    /// specifications allow.
    ///
    /// Forms, URLs or JSON have to escape some of them: `+ / = & %`, and in codes, identifiers and refresh tokens also
    /// a space, quotes and backslashes. The values are opaque to a client, and many providers use such characters. By
    /// default the values are base64url.
    pub fn opaque_values(mut self) -> Self {
        self.settings.opaque_values = true;
        self
    }

    /// Sets the user who signs in.
    pub fn user(mut self, user: TestUser) -> Self {
        self.user = user;
        self
    }

    /// Sets the requirements for DPoP nonces. The default is [`NoncePolicy::Off`].
    pub fn dpop_nonces(mut self, policy: NoncePolicy) -> Self {
        self.settings.nonces = policy;
        self
    }

    /// Challenges for a nonce at the token endpoint with 401 and `WWW-Authenticate`, instead of only 400 and JSON.
    pub fn challenge_with_unauthorized(mut self) -> Self {
        self.settings.challenge_as_401 = true;
        self
    }

    /// Refuses token requests without a DPoP proof, for all clients.
    pub fn require_dpop(mut self) -> Self {
        self.settings.requires_dpop = true;
        self
    }

    /// Does not support DPoP: proofs are ignored, and tokens are `Bearer`.
    pub fn without_dpop(mut self) -> Self {
        self.settings.supports_dpop = false;
        self
    }

    /// Accepts one DPoP key for several sign-ins. The draft says that it SHOULD NOT be reused.
    pub fn allow_dpop_key_reuse(mut self) -> Self {
        self.settings.allows_key_reuse = true;
        self
    }

    /// Accepts authorization requests without PKCE. By default they need it, with `S256`.
    pub fn allow_missing_pkce(mut self) -> Self {
        self.settings.requires_pkce = false;
        self
    }

    /// Accepts only pushed authorization requests, for all clients (RFC 9126 §5).
    pub fn require_pushed_authorization_requests(mut self) -> Self {
        self.settings.requires_pushed = true;
        self
    }

    /// Holds every client to the rules of the FAPI 2.0 Security Profile.
    ///
    /// Requests are pushed, clients authenticate with `private_key_jwt` or a certificate, tokens are bound to a DPoP
    /// key or the certificate, and signatures use PS256, ES256 or EdDSA. Add
    /// [`require_signed_request_object`](Self::require_signed_request_object) and a client that requests JWT responses
    /// for the rules of FAPI 2.0 Message Signing. ID Tokens need one of these algorithms as their
    /// [`signing_algorithm`](TestClient::signing_algorithm).
    pub fn fapi2(mut self) -> Self {
        self.settings.fapi = true;
        self.require_pushed_authorization_requests()
    }

    /// Accepts only signed authorization requests, for all clients (RFC 9101 §10.5).
    pub fn require_signed_request_object(mut self) -> Self {
        self.settings.requires_signed = true;
        self
    }

    /// Sets how long a pushed request can be used; whole seconds. The default is one minute.
    pub fn request_uri_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.request_uri_lifetime = lifetime;
        self
    }

    /// Sends no `iss` in authorization responses, and does not advertise it (RFC 9207).
    pub fn without_iss(mut self) -> Self {
        self.settings.sends_iss = false;
        self
    }

    /// Accepts client assertions only for the URL of the token endpoint, at every endpoint, and not for the issuer, as
    /// OPs from before 2025 do. The client then needs
    /// [`AssertionAudience::TokenEndpoint`](crate::compatibility::AssertionAudience::TokenEndpoint).
    pub fn assertions_for_token_endpoint(mut self) -> Self {
        self.settings.assertions_for_token_endpoint = true;
        self
    }

    /// Accepts cancellation requests in JSON, as in the draft's example, and answers forms with 415.
    pub fn cancellation_in_json(mut self) -> Self {
        self.settings.cancellation_in_json = true;
        self
    }

    /// Issues no refresh tokens.
    pub fn without_refresh_tokens(mut self) -> Self {
        self.settings.refresh_tokens = false;
        self
    }

    /// Permits repeated use of refresh tokens. By default each is replaced when it is used, and the use of a replaced
    /// one revokes all tokens of its sign-in (RFC 9700 §4.14.2).
    pub fn without_refresh_rotation(mut self) -> Self {
        self.settings.rotates_refresh_tokens = false;
        self
    }

    /// Keeps only the last `requests` requests, for simulations that send millions. All are kept by default.
    pub fn keep_requests(mut self, requests: usize) -> Self {
        self.keep_requests = Some(requests);
        self
    }

    /// Sets where the metadata is served.
    pub fn discovery(mut self, form: DiscoveryForm) -> Self {
        self.settings.discovery = form;
        self
    }

    /// Passes Ping Callbacks to this function instead of sending them over the network. It returns the status of the
    /// client's endpoint.
    ///
    /// ```
    /// use openid_deferred::testing::TestProvider;
    ///
    /// let builder = TestProvider::builder().in_process().on_ping(|ping| {
    ///     assert!(ping.body.contains(&ping.deferred_auth_id));
    ///     204
    /// });
    /// ```
    pub fn on_ping(mut self, hook: impl Fn(&Ping) -> u16 + Send + Sync + 'static) -> Self {
        self.ping_hook = Some(PingHook(Arc::new(hook)));
        self
    }

    /// Starts the provider. It serves until the last clone of the [`TestProvider`] is dropped. It has its own thread,
    /// so it works under every runtime and without one.
    ///
    /// # Errors
    ///
    /// Returns an error if no loopback socket can be opened. In process it cannot fail.
    ///
    /// # Panics
    ///
    /// Panics if client certificates are requested over plain HTTP, which does not support them.
    pub fn start(self) -> io::Result<TestProvider> {
        let (has_tls, mutual_tls) = (self.transport != Transport::Http, self.settings.mutual_tls);
        assert!(has_tls || !mutual_tls, "client certificates need `https` or `in_process`");
        let authority = ClientAuthority::new();
        let tls = match self.transport {
            Transport::Https => Some(Tls::for_loopback(mutual_tls.then(|| authority.any_certificate()))),
            Transport::Http | Transport::InProcess => None,
        };
        let tls = tls.transpose().map_err(io::Error::other)?;
        let listener = match self.transport {
            Transport::InProcess => None,
            _ => Some(Listener::bind(tls.clone())?),
        };
        let alias_tls = match &tls {
            Some(tls) if self.requires_client_certificates => Some(tls.requiring(authority.own_certificates())),
            tls => tls.clone(),
        };
        let alias_listener = match self.transport {
            Transport::Https if self.mtls_endpoint_aliases => Some(Listener::bind(alias_tls)?),
            _ => None,
        };
        let origin = listener.as_ref().map_or_else(|| format!("https://{}", self.host), Listener::origin);
        let alias_origin = self
            .mtls_endpoint_aliases
            .then(|| alias_listener.as_ref().map_or_else(|| format!("https://mtls.{}", self.host), Listener::origin));
        let path = &self.path;
        let alias_base = alias_origin.map(|origin| format!("{origin}{path}").parse().expect("the alias is a URL"));
        let settings = Settings { issuer: format!("{origin}{}", self.path), ..self.settings };
        let base = Url::parse(&settings.issuer).expect("the issuer is a URL");
        let op = Arc::new(Op {
            state: Mutex::new(State::new(self.clients, self.user, self.decisions, self.keep_requests)),
            settings,
            base,
            alias_base,
            authority,
            clock: self.clock,
            random: self.random,
            ping_hook: self.ping_hook,
            clock_offset: self.clock_offset.into(),
            changed: Notify::new(),
        });
        let listeners: Vec<_> = listener.into_iter().chain(alias_listener).collect();
        let server = if listeners.is_empty() { None } else { Some(Server::start(listeners, Arc::clone(&op))?) };
        Ok(TestProvider::new(op, server))
    }
}

impl fmt::Debug for TestProviderBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestProviderBuilder").field("clients", &self.clients).finish_non_exhaustive()
    }
}
