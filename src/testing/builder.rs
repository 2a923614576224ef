//! How a provider is set up.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use url::Url;

use super::certificate::ClientAuthority;
use super::client::{TestClient, TestUser};
use super::editor::Editor;
use super::op::Op;
use super::ping::{Ping, PingHook};
use super::provider::TestProvider;
use super::server::{Listener, Server, Tls};
use super::settings::{DecisionPolicy, DiscoveryForm, InterimToken, NoncePolicy, RegistrationSettings, Settings};
use super::state::State;
use crate::clock::{Clock, SystemClock};
use crate::random::{Random, SystemRandom};

/// Sets up a [`TestProvider`]; see [`TestProvider::builder`]. [`start`](Self::start) is the last call.
#[must_use = "nothing happens until `start`"]
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
    insists_on_certificates: bool,
    pub(super) settings: Settings,
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Http,
    Https,
    InProcess,
}

impl TestProvider {
    /// Sets up a provider. As it stands it serves plain HTTP on a loopback port, has no client, approves at once and
    /// follows the machine's clock.
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
            insists_on_certificates: false,
        }
    }

    /// Serves HTTPS on loopback instead of plain HTTP, with a certificate by
    /// [`TestProvider::ca_certificate_pem`].
    pub fn https(mut self) -> Self {
        self.transport = Transport::Https;
        self
    }

    /// Asks clients for certificates (RFC 8705), without insisting on them, and takes them for `tls_client_auth`,
    /// `self_signed_tls_client_auth` and certificate-bound access tokens. It needs [`https`](Self::https) or
    /// [`in_process`](Self::in_process).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use openid_deferred::testing::{TestClient, TestProvider};
    /// use openid_deferred::{Client, ClientCertificate};
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

    /// The same, with a second address for clients with certificates, which the metadata names in
    /// `mtls_endpoint_aliases` (RFC 8705 §5). [`metadata`](Self::metadata) can remove single ones.
    pub fn mtls_endpoint_aliases(mut self) -> Self {
        self.mtls_endpoint_aliases = true;
        self.mutual_tls()
    }

    /// The same, and at that address TLS itself ends with everybody who has no valid certificate by the provider's
    /// [authority](TestProvider::client_certificate), as many servers are set up. It needs [`https`](Self::https).
    pub fn insist_on_certificates(mut self) -> Self {
        self.insists_on_certificates = true;
        self.mtls_endpoint_aliases()
    }

    /// Opens no socket: requests arrive through [`TestProvider::http_client`] alone, and the issuer is
    /// `https://op.test`. With a [`TestClock`](super::TestClock) a run is deterministic.
    pub fn in_process(mut self) -> Self {
        self.transport = Transport::InProcess;
        self
    }

    /// The host of a provider in process, instead of `op.test`: two of them need two names.
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

    /// The provider's clock. The default is the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Lets the provider's wall clock be wrong by so many seconds: positive is ahead.
    pub fn clock_offset(mut self, seconds: i64) -> Self {
        self.clock_offset = seconds;
        self
    }

    /// Where the provider takes codes, identifiers, tokens and nonces from.
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

    /// The `interval` that exchange responses name and that polls have to keep; whole seconds. The default is 5 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = Some(interval);
        self
    }

    /// Names no `interval`; polls have to keep 5 s all the same.
    pub fn no_interval(mut self) -> Self {
        self.settings.interval = None;
        self
    }

    /// How long a `deferred_auth_id` lives; whole seconds. The default is three weeks.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.settings.expires_in = Some(lifetime);
        self
    }

    /// Lets a `deferred_auth_id` live for ever and names no `expires_in`.
    pub fn no_expiry(mut self) -> Self {
        self.settings.expires_in = None;
        self
    }

    /// Holds the answer to a poll for up to this long while the process is pending (long polling).
    pub fn long_polling(mut self, up_to: Duration) -> Self {
        self.settings.long_polling = up_to;
        self
    }

    /// Who decides, and when. The default is [`DecisionPolicy::immediately`].
    pub fn decisions(mut self, policy: DecisionPolicy) -> Self {
        self.decisions = policy;
        self
    }

    /// Answers `deferred_code code` requests with `code`: the user was authenticated at once.
    pub fn answer_with_code(mut self) -> Self {
        self.settings.answers_with_code = true;
        self
    }

    /// Under which name exchange responses carry an interim ID Token.
    pub fn interim_token(mut self, interim: InterimToken) -> Self {
        self.settings.interim = interim;
        self
    }

    /// Adds a claim to interim ID Tokens. Of the user's claims they have only `sub`.
    pub fn interim_claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.settings.interim_claims.insert(name.to_owned(), value.into());
        self
    }

    /// Puts an access token into exchange responses, as in the older text of the draft. Polls may then authenticate
    /// with it, bound to their DPoP key, instead of with the client's own method.
    pub fn early_access_token(mut self) -> Self {
        self.settings.early_access_token = true;
        self
    }

    /// Puts every character into codes, `deferred_auth_id`s, `request_uri`s, tokens and nonces that their specifications
    /// allow, and that forms, URLs or JSON have to escape: `+ / = & %`, and in codes, identifiers and refresh tokens also
    /// a space, quotes and backslashes. They are opaque to a client, and many a provider has such values. Without this
    /// they are base64url.
    pub fn opaque_values(mut self) -> Self {
        self.settings.opaque_values = true;
        self
    }

    /// The user who signs in.
    pub fn user(mut self, user: TestUser) -> Self {
        self.user = user;
        self
    }

    /// What is asked of DPoP nonces. The default is [`NoncePolicy::Off`].
    pub fn dpop_nonces(mut self, policy: NoncePolicy) -> Self {
        self.settings.nonces = policy;
        self
    }

    /// Challenges for a nonce at the token endpoint with 401 and `WWW-Authenticate` instead of 400 and JSON alone.
    pub fn challenge_with_unauthorized(mut self) -> Self {
        self.settings.challenge_as_401 = true;
        self
    }

    /// Refuses token requests without a DPoP proof, of every client.
    pub fn require_dpop(mut self, required: bool) -> Self {
        self.settings.requires_dpop = required;
        self
    }

    /// Knows nothing of DPoP: proofs are ignored, tokens are `Bearer`.
    pub fn without_dpop(mut self) -> Self {
        self.settings.supports_dpop = false;
        self
    }

    /// Does not mind one DPoP key for several processes. The draft says that it SHOULD NOT be reused.
    pub fn allow_dpop_key_reuse(mut self) -> Self {
        self.settings.allows_key_reuse = true;
        self
    }

    /// Whether authorization requests need PKCE with `S256`. They do by default.
    pub fn require_pkce(mut self, required: bool) -> Self {
        self.settings.requires_pkce = required;
        self
    }

    /// Takes authorization requests only if they were pushed, of every client (RFC 9126 §5).
    pub fn require_pushed_authorization_requests(mut self) -> Self {
        self.settings.requires_pushed = true;
        self
    }

    /// Holds every client to the rules of the FAPI 2.0 Security Profile: requests are pushed, clients authenticate with
    /// `private_key_jwt` or a certificate, tokens are bound to a DPoP key or the certificate, and signatures are by PS256,
    /// ES256 or EdDSA. Together with [`require_signed_request_object`](Self::require_signed_request_object) and a client
    /// that asks for responses as JWTs these are the rules of FAPI 2.0 Message Signing. ID Tokens need a
    /// [`signing_algorithm`](TestClient::signing_algorithm) out of these.
    pub fn fapi2(mut self) -> Self {
        self.settings.fapi = true;
        self.require_pushed_authorization_requests()
    }

    /// Takes authorization requests only if they are signed, of every client (RFC 9101 §10.5).
    pub fn require_signed_request_object(mut self) -> Self {
        self.settings.requires_signed = true;
        self
    }

    /// How long a pushed request can be used; whole seconds. The default is one minute.
    pub fn request_uri_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.request_uri_lifetime = lifetime;
        self
    }

    /// Sends no `iss` in authorization responses and does not advertise it (RFC 9207).
    pub fn without_iss(mut self) -> Self {
        self.settings.sends_iss = false;
        self
    }

    /// Takes client assertions only for the URL of the token endpoint, at every endpoint, as OPs of before 2025 do; not for
    /// the issuer. The client then needs
    /// [`AssertionAudience::TokenEndpoint`](crate::AssertionAudience::TokenEndpoint).
    pub fn assertions_for_token_endpoint(mut self) -> Self {
        self.settings.assertions_for_token_endpoint = true;
        self
    }

    /// Takes cancellation requests in JSON, as the draft's example shows them, and answers forms with 415.
    pub fn cancellation_in_json(mut self) -> Self {
        self.settings.cancellation_in_json = true;
        self
    }

    /// Issues no refresh tokens.
    pub fn without_refresh_tokens(mut self) -> Self {
        self.settings.refresh_tokens = false;
        self
    }

    /// Lets refresh tokens be used again. By default each is replaced when it is used, and whoever presents a replaced
    /// one has all tokens of its process revoked (RFC 9700 §4.14.2).
    pub fn without_refresh_rotation(mut self) -> Self {
        self.settings.rotates_refresh_tokens = false;
        self
    }

    /// Remembers only the last `requests` requests, for simulations that send millions. All are kept by default.
    pub fn keep_requests(mut self, requests: usize) -> Self {
        self.keep_requests = Some(requests);
        self
    }

    /// Where the metadata is served.
    pub fn discovery(mut self, form: DiscoveryForm) -> Self {
        self.settings.discovery = form;
        self
    }

    /// Hands Ping Callbacks to this function instead of sending them over the network. It answers with the status that
    /// the client's endpoint would give.
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

    /// Starts the provider. It serves until the last clone of the [`TestProvider`] is dropped, from a thread of its
    /// own, so it works under every runtime and under none.
    ///
    /// # Errors
    ///
    /// If no loopback socket can be opened. In process it cannot fail.
    ///
    /// # Panics
    ///
    /// If client certificates were asked for over plain HTTP, which has none.
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
            Some(tls) if self.insists_on_certificates => Some(tls.insisting_on(authority.own_certificates())),
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
