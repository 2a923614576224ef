//! The settings of a client, and the construction of the client.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, SystemTime};

use url::Url;

mod backchannel;
mod connections;
mod signing;
mod tokens;

use super::connection::{Connection, ConnectionSettings};
use super::fapi;
use super::identity::{Credentials, RegisteredMethod};
use super::options::{AssertionAudience, Backoff, DpopMode, Options, PollCredential};
use super::refresh::Flights;
use super::setting::{check_post_logout_redirect_uri, check_redirect_uri, setting};
use super::{Client, Inner, encryption};
use crate::dialect::{Dialect, ResponseType};
use crate::endpoint::ClientAuthentication;
use crate::error::Error;
use crate::jose::Signer;
use crate::secret::{Secret, SharedSecret};
use crate::transport::ClientCertificate;

/// Settings of a [`Client`]. Finish with [`discover`](Self::discover), or with [`build`](Self::build) if the OP may be
/// unreachable at startup.
#[must_use = "settings do nothing until `discover` or `build` makes a client of them"]
pub struct ClientBuilder {
    connection: ConnectionSettings,
    client_id: String,
    credentials: Credentials,
    assertion_audience: AssertionAudience,
    redirect_uri: Option<String>,
    options: Options,
}

impl ClientBuilder {
    pub(super) fn new(issuer: String, client_id: String) -> Self {
        Self {
            connection: ConnectionSettings::new(issuer),
            client_id,
            credentials: Credentials::default(),
            assertion_audience: AssertionAudience::Issuer,
            redirect_uri: None,
            options: Options::default(),
        }
    }

    /// Sets how the client authenticates: the method that was registered as `token_endpoint_auth_method`, with its
    /// credentials. Discovery refuses a method that the OP does not list.
    ///
    /// Without this setting the method is chosen once the OP's metadata is available. The choice depends on
    /// [`client_certificate`](Self::client_certificate), [`signing_key`](Self::signing_key) and
    /// [`client_secret`](Self::client_secret). It is the first of these methods that they allow and that the OP lists:
    /// `tls_client_auth` or `self_signed_tls_client_auth`, `private_key_jwt`, `client_secret_jwt`,
    /// `client_secret_basic`, `client_secret_post`. [`Client::authentication_method`] returns the chosen method. A
    /// client without any of these credentials is public.
    pub fn authentication(mut self, authentication: ClientAuthentication) -> Self {
        self.credentials.named = Some(authentication);
        self
    }

    /// Sets the client secret. Unless [`authentication`](Self::authentication) is set, it authenticates the client with
    /// the strongest method that the OP lists. If it is set, the secret is only the key of ID Tokens that are signed
    /// with an HMAC.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// # use openid_deferred::Client;
    /// # const SECRET: &str = "a secret of at least thirty-two bytes";
    /// # let op = TestProvider::builder().in_process().client(TestClient::secret_jwt("my-client", SECRET)).start()?;
    /// # let network = op.http_client();
    /// let client = Client::builder(op.issuer(), "my-client")
    ///     .client_secret(SECRET)
    ///     .redirect_uri("https://rp.example/callback")
    /// #   .http_client(network)
    ///     .discover()
    ///     .await?;
    /// assert_eq!(client.authentication_method(), Some("client_secret_jwt"));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn client_secret(mut self, secret: impl Into<Secret>) -> Self {
        self.credentials.given.secret = Some(secret.into().into());
        self
    }

    /// Sets the key of client assertions, in memory or behind any [`Signer`]. It is used for `private_key_jwt` if the
    /// OP lists that.
    pub fn signing_key(mut self, signer: impl Signer + 'static) -> Self {
        self.credentials.set_signer(signer);
        self
    }

    /// Sets the certificate of the client. It is used for `tls_client_auth` if the OP lists that, or for
    /// `self_signed_tls_client_auth` if the certificate is self-signed. It is also used for
    /// [`certificate_bound_access_tokens`](Self::certificate_bound_access_tokens).
    pub fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.credentials.given.certificate = Some(certificate);
        self
    }

    /// Declares that the client was registered with `tls_client_certificate_bound_access_tokens`: the OP binds its
    /// tokens to the certificate (RFC 8705 §3).
    ///
    /// The client then does not use DPoP, because an OP that gets both may invalidate the grant and refuse the request.
    /// [`dpop`](Self::dpop) must not ask for it.
    pub fn certificate_bound_access_tokens(mut self) -> Self {
        self.options.certificate_bound_access_tokens = true;
        self
    }

    /// Sets the URI that the OP sends the user back to, exactly as registered. Every client that signs users in needs
    /// one. An authorization request can set [another one](crate::AuthorizationRequest::redirect_uri).
    pub fn redirect_uri(mut self, redirect_uri: impl Into<String>) -> Self {
        self.redirect_uri = Some(redirect_uri.into());
        self
    }

    /// Sets the registered URI that the OP sends the user back to after a [logout](Client::end_session) (OpenID Connect
    /// RP-Initiated Logout 1.0 §3). Unless set, users end on a page of the OP. A logout request can set
    /// [another one](crate::logout::EndSessionRequest::post_logout_redirect_uri).
    pub fn post_logout_redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.options.post_logout_redirect_uri = Some(uri.into());
        self
    }

    /// Declares that this client signs no users in with a browser. It only makes
    /// [token requests](Client::token_request) for grants without a user, and
    /// [backchannel authentication requests](Client::backchannel_authentication). It needs no redirect URI, and the OP's
    /// metadata needs no authorization endpoint and, without backchannel authentication, no keys.
    pub fn without_redirect_uri(mut self) -> Self {
        self.options.without_redirect_uri = true;
        self
    }

    /// Sets the dialect of sign-ins. Unless set, the OP's metadata decides; see [`Client::dialect`]. Set it if the
    /// metadata advertises both drafts and the [IETF dialect](Dialect::Ietf) is wanted, or if it advertises neither
    /// although the OP speaks one. [`Dialect::Ciba`] is an error here, because it has no sign-ins in a browser.
    ///
    /// Sign-ins that have started keep their dialect. [Token requests](Client::token_request) do not depend on this
    /// setting, nor do [backchannel authentication requests](Client::backchannel_authentication).
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.options.dialect = Some(dialect);
        self
    }

    /// Omits the hint that the OP may defer its answer (`completion_mode`, IETF DTR §Client Opt-In Signaling) from
    /// authorization requests of the [IETF dialect](Dialect::Ietf), for OPs that refuse unknown parameters there. The
    /// token request still has the parameter. The setting has no effect in the OpenID dialect.
    pub fn without_deferral_hint(mut self) -> Self {
        self.options.without_deferral_hint = true;
        self
    }

    /// Sets the response type of authorization requests; `deferred_code` unless set. [`discover`](Self::discover) returns
    /// an error if the OP's metadata does not list it. In the [IETF dialect](Dialect::Ietf) the request has `code`
    /// instead, and [`ResponseType`] says what that means. With [`ResponseType::Code`] the client works with OPs that do
    /// not support the deferred flow.
    pub fn response_type(mut self, response_type: ResponseType) -> Self {
        self.options.response_type = response_type;
        self
    }

    /// Sets the audience of client assertions; the issuer unless set.
    pub fn assertion_audience(mut self, audience: AssertionAudience) -> Self {
        self.assertion_audience = audience;
        self
    }

    /// Sets how long a request may take, from connecting to the last byte of its response; 30 s unless set. Polls have
    /// [`poll_timeout`](Self::poll_timeout).
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self
    }

    /// Sets how long one poll may take; 90 s unless set, because an OP may hold it open until it has decided.
    pub fn poll_timeout(mut self, timeout: Duration) -> Self {
        self.options.poll_timeout = timeout;
        self
    }

    /// Sets how far the OP's clock and ours may differ when tokens are checked; 60 s unless set.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.options.leeway = leeway;
        self
    }

    /// Sets how long the user may take from the start of the sign-in until the response arrives; one hour unless set.
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.options.session_lifetime = lifetime;
        self
    }

    /// Sets audiences that an ID Token may name in addition to this client.
    pub fn trusted_audiences<S: Into<String>>(mut self, audiences: impl IntoIterator<Item = S>) -> Self {
        self.options.trusted_audiences = audiences.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a bearer token that the OP is to send in its Ping Callbacks, the same for all pending sign-ins of this
    /// client (`deferred_notification_token`, DTR §Deferred Code Exchange Request).
    ///
    /// Unless set, none is sent. A poller that [receives pings](crate::poller::PollerBuilder::receives_pings) sends a
    /// new one for each sign-in instead. The [IETF dialect](Dialect::Ietf) requires a new one for each request (IETF DTR
    /// §Client Opt-In Signaling), so sign-ins with this setting are a configuration error there, and
    /// [token requests](super::Client::token_request) do not send it.
    pub fn notification_token(mut self, token: impl Into<Secret>) -> Self {
        self.options.notification_token = Some(token.into());
        self
    }

    /// Sets the OP's Authentication Cancellation Endpoint (DTR §Authentication Cancellation Request). The draft defines
    /// no metadata for it, so it cannot be discovered. Without this setting [`Client::cancel`] only marks a pending
    /// sign-in, and the OP continues it. The [IETF dialect](Dialect::Ietf) cancels at the OP's revocation endpoint and
    /// needs no setting.
    pub fn cancellation_endpoint(mut self, url: impl Into<String>) -> Self {
        self.options.cancellation_endpoint = Some(url.into());
        self
    }

    /// Sets which DPoP keys are used; a new one for every sign-in unless set.
    pub fn dpop(mut self, mode: DpopMode) -> Self {
        self.options.dpop = Some(mode);
        self
    }

    /// Sets the credential that a poll presents; the client's authentication unless set.
    pub fn poll_credential(mut self, credential: PollCredential) -> Self {
        self.options.poll_credential = credential;
        self
    }

    /// Pushes every authorization request to the OP and gives the browser a reference to it (RFC 9126). Then the
    /// browser and its user can neither read nor change the request.
    ///
    /// If the OP requires it, requests are pushed without this setting.
    /// [`AuthorizationRequest::pushed`](super::AuthorizationRequest::pushed) is for a single request.
    pub fn pushed_authorization_requests(mut self) -> Self {
        self.options.pushed_authorization_requests = true;
        self
    }

    /// Sends no PKCE parameters (RFC 7636), for OPs that refuse unknown parameters.
    pub fn without_pkce(mut self) -> Self {
        self.options.without_pkce = true;
        self
    }

    /// Omits `redirect_uri` from the exchange of a deferred code. The draft does not require it there. RFC 6749 §4.1.3
    /// requires it for ordinary codes, with which it is always sent.
    pub fn without_redirect_uri_in_exchange(mut self) -> Self {
        self.options.without_redirect_uri_in_exchange = true;
        self
    }

    /// Accepts a final ID Token whose `sub` differs from that of the interim one. Use it only for OPs that document
    /// this: by default the change is treated as a mix-up of users.
    pub fn allow_changed_subject(mut self) -> Self {
        self.options.allow_changed_subject = true;
        self
    }

    /// Refuses a deferral whose `expires_in` or `interval` is not a positive integer. By default such values are
    /// interpreted as far as possible, because refusing the response loses the user's code. A missing value is accepted
    /// in either case.
    pub fn strict_times(mut self) -> Self {
        self.options.strict_times = true;
        self
    }

    /// Sets the pause between polls while the OP has not decided. Unless set, it is the OP's interval. With an OP that
    /// sends pings, [`Backoff::Growing`] avoids most polls.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.options.backoff = backoff;
        self
    }

    /// Ends a pending sign-in if its polls had no usable answer for this long.
    ///
    /// It ends as expired (not [confirmed](super::Expiration::is_confirmed)), or as unknown if an answer may have been
    /// lost. By default the OP is polled until the sign-in expires, because even a long outage is no reason to send a
    /// user away.
    pub fn give_up_after(mut self, silence: Duration) -> Self {
        self.options.give_up_after = Some(silence);
        self
    }

    /// Sets how long before the end of a pending sign-in the OP is polled once more, whatever the interval is; 5 s
    /// unless set. `None` turns it off (DTR §Design Considerations for Poll and Ping).
    pub fn final_poll_margin(mut self, margin: impl Into<Option<Duration>>) -> Self {
        self.options.final_poll_margin = margin.into();
        self
    }

    /// Refuses an OP whose metadata lists `deferred_code` only in combinations other than the response type of this
    /// client, such as only `deferred_code code`. By default that is a warning. The order of the values never matters.
    pub fn strict_response_types(mut self) -> Self {
        self.options.strict_response_types = true;
        self
    }

    /// Accepts an OP whose metadata does not list the response type or grant type of this flow.
    pub fn allow_unadvertised(mut self) -> Self {
        self.options.allow_unadvertised = true;
        self
    }

    /// Accepts an OP that answers the exchange of a deferred code with the final tokens at once.
    pub fn allow_immediate_answer(mut self) -> Self {
        self.options.allow_immediate_answer = true;
        self
    }

    /// Delivers the identity without the tokens if the OP returns `Bearer` tokens although a proof was sent. By default
    /// the tokens are delivered, and [`is_sender_constrained`](super::Authentication::is_sender_constrained) shows that
    /// they are not bound. The tokens of a [grant without a user](Client::token_request) are refused with
    /// [`Rule::UnknownTokenType`](crate::error::Rule::UnknownTokenType), because nothing else is left.
    pub fn drop_unbound_tokens(mut self) -> Self {
        self.options.drop_unbound_tokens = true;
        self
    }

    /// Fetches the OP's metadata and keys, checks that the OP offers what these settings need, and returns the client.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](crate::ErrorKind::Configuration) for settings that cannot work, alone or with this OP.
    /// - [`Protocol`](crate::ErrorKind::Protocol) if the OP's documents break a rule.
    /// - [`Transport`](crate::ErrorKind::Transport) if the OP cannot be reached.
    pub async fn discover(self) -> Result<Client, Error> {
        let client = self.build()?;
        client.check_provider().await.map_err(|error| error.in_step("discovering the OP"))?;
        Ok(client)
    }

    /// Returns the client without a request to the OP; discovery happens when it is first needed. So an application can
    /// start while the OP is down, and everything that does not need the OP works.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) for settings that cannot work, and without a
    /// [redirect URI](Self::redirect_uri), unless the client [needs none](Self::without_redirect_uri).
    pub fn build(mut self) -> Result<Client, Error> {
        self.credentials.settle_registered()?;
        let settings = fapi::Settings {
            options: &self.options,
            credentials: &self.credentials,
            assertion_audience: self.assertion_audience,
            allow_insecure_loopback: self.connection.urls.allow_insecure_loopback,
            redirect_uri: self.redirect_uri.as_deref(),
        };
        settings.check()?;
        self.options.apply_fapi();
        if self.client_id.is_empty() {
            return Err(setting("client_id", "it is empty; take the one that the OP registered"));
        }
        if let Some(redirect_uri) = &self.redirect_uri {
            check_redirect_uri(redirect_uri)?;
        }
        if let Some(uri) = &self.options.post_logout_redirect_uri {
            check_post_logout_redirect_uri(uri)?;
        }
        let cancellation_endpoint = self.cancellation_url()?;
        self.check_combinations()?;
        let needs_redirect_uri = self.check_need_of_redirect_uri();
        let Connection { issuer, urls, provider, endpoints, clock, random } =
            self.connection.connect(self.credentials.certificate())?;
        // A setting with a wrong value is reported before one that is missing.
        needs_redirect_uri?;
        let inner = Inner {
            assertion_audience: self.assertion_audience,
            issuer,
            client_id: self.client_id,
            credentials: self.credentials,
            identity: OnceLock::new(),
            redirect_uri: self.redirect_uri,
            urls,
            provider,
            endpoints,
            clock,
            random,
            cancellation_endpoint,
            refreshes: Flights::default(),
            decryption_keys: RwLock::new(self.options.decryption_keys.as_slice().into()),
            secret_is_replaced: AtomicBool::new(false),
            options: self.options,
        };
        // The OP's metadata does not change a method that was named. Setting it now lets everything work that does not
        // need the OP.
        if let Some(named) = inner.credentials.named.clone().filter(ClientAuthentication::is_settled) {
            inner.identity.get_or_init(|| inner.identity_with(named));
        }
        Ok(Client(Arc::new(inner)))
    }

    /// Sets how the client was registered to authenticate, with a key that is set later.
    pub(super) fn registered_method(mut self, method: RegisteredMethod) -> Self {
        self.credentials.registered = Some(method);
        self
    }

    /// Sets when the client secret expires.
    pub(super) fn secret_expires_at(mut self, expiry: SystemTime) -> Self {
        self.options.secret_expires_at = Some(expiry);
        self
    }

    fn cancellation_url(&self) -> Result<Option<Url>, Error> {
        let Some(url) = &self.options.cancellation_endpoint else { return Ok(None) };
        let url = Url::parse(url).map_err(|_| setting("cancellation_endpoint", "it is not an absolute URL"))?;
        self.connection.urls.check_own(&url).map_err(|problem| problem.of_setting("cancellation_endpoint"))?;
        Ok(Some(url))
    }

    fn check_need_of_redirect_uri(&self) -> Result<(), Error> {
        match (&self.redirect_uri, self.options.without_redirect_uri) {
            (Some(_), false) | (None, true) => Ok(()),
            (Some(_), true) => Err(setting("without_redirect_uri", "`redirect_uri` is set too; remove one of them")),
            (None, false) => Err(setting(
                "redirect_uri",
                "it is missing; set the one that is registered for this client, or `without_redirect_uri` if it signs \
                 no users in",
            )),
        }
    }

    fn check_combinations(&self) -> Result<(), Error> {
        self.credentials.check(&self.options)?;
        if self.options.dialect == Some(Dialect::Ciba) {
            let problem = "CIBA has no sign-ins in a browser; remove it, and call `backchannel_authentication`";
            return Err(setting("dialect", problem));
        }
        if let Some(named) = &self.credentials.named {
            check_poll_credential(&self.options, named)?;
        }
        if self.options.poll_credential == PollCredential::AccessToken && matches!(self.options.dpop(), DpopMode::Off) {
            return Err(setting("poll_credential", "`AccessToken` is DPoP-bound; do not turn DPoP off"));
        }
        encryption::check_settings(&self.options, &self.credentials)?;
        let secret = self.credentials.secret().map(SharedSecret::current);
        self.options.check_hmac_secret(secret.as_deref())
    }
}

/// Refuses settings that need two `Authorization` headers in one request.
pub(super) fn check_poll_credential(options: &Options, authentication: &ClientAuthentication) -> Result<(), Error> {
    if options.poll_credential == PollCredential::AccessToken && authentication.method() == "client_secret_basic" {
        return Err(setting(
            "poll_credential",
            "`AccessToken` and `client_secret_basic` both need the `Authorization` header; use another method",
        ));
    }
    Ok(())
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientBuilder")
            .field("issuer", &self.connection.issuer)
            .field("client_id", &self.client_id)
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}
