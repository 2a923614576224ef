//! DTR §Authentication Request: makes the URL that the browser is sent to.

use serde_json::Value;
use std::fmt;
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

use super::Client;
use super::claims_request::ClaimsRequest;
use super::response_mode::ResponseMode;
use super::session::AuthorizationSession;
use crate::dialect::ResponseType;
use crate::error::Error;
use crate::secret::Secret;
use crate::trace_parent::TraceParent;

mod prepare;

/// An authorization request that is being built. Finish with [`start`](Self::start).
#[must_use = "an authorization request has no effect until `start` returns its URL"]
pub struct AuthorizationRequest<'a> {
    client: &'a Client,
    response_type: ResponseType,
    response_mode: Option<ResponseMode>,
    redirect_uri: Option<String>,
    scopes: Vec<String>,
    max_age: Option<u64>,
    claims: Option<ClaimsRequest>,
    details: Option<Value>,
    parameters: Vec<(&'static str, String)>,
    extra: Vec<(String, String)>,
    context: Zeroizing<Vec<u8>>,
    reference: Option<Secret>,
    trace_parent: Option<TraceParent>,
    session_data: Zeroizing<Vec<u8>>,
    pushed: bool,
    signed: bool,
}

impl Client {
    /// Starts an authorization request (DTR §Authentication Request). By default it asks for the scope `openid` and the
    /// client's [response type](super::ClientBuilder::response_type), with PKCE and a new DPoP key.
    pub fn authorize(&self) -> AuthorizationRequest<'_> {
        AuthorizationRequest {
            client: self,
            response_type: self.0.options.response_type,
            response_mode: None,
            redirect_uri: None,
            scopes: vec!["openid".to_owned()],
            max_age: None,
            claims: None,
            details: None,
            parameters: Vec::new(),
            extra: Vec::new(),
            context: Zeroizing::default(),
            reference: None,
            trace_parent: None,
            session_data: Zeroizing::default(),
            pushed: false,
            signed: false,
        }
    }
}

impl AuthorizationRequest<'_> {
    /// Sets which codes the OP may answer with. The default is the client's [response
    /// type](super::ClientBuilder::response_type).
    pub fn response_type(mut self, response_type: ResponseType) -> Self {
        self.response_type = response_type;
        self
    }

    /// Sets how the response is returned. The default is the client's [response
    /// mode](super::ClientBuilder::response_mode).
    pub fn response_mode(mut self, response_mode: ResponseMode) -> Self {
        self.response_mode = Some(response_mode);
        self
    }

    /// Uses this registered redirect URI instead of the client's.
    pub fn redirect_uri(mut self, redirect_uri: impl Into<String>) -> Self {
        self.redirect_uri = Some(redirect_uri.into());
        self
    }

    /// Requests these scopes in addition to `openid`.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        for scope in scopes {
            let scope = scope.into();
            if !self.scopes.contains(&scope) {
                self.scopes.push(scope);
            }
        }
        self
    }

    /// Sets the longest time since the user last authenticated, in whole seconds. The final ID Token must then carry
    /// `auth_time` (OpenID Connect Core 1.0 §3.1.2.1). This overrides [what was
    /// registered](super::ClientBuilder::default_max_age).
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age.as_secs());
        self
    }

    /// Sets the requested authentication context classes, in order of preference. The OP may ignore them. To have the
    /// final ID Token checked, request `acr` as an essential claim with [`claims`](Self::claims).
    pub fn acr_values<S: AsRef<str>>(self, values: impl IntoIterator<Item = S>) -> Self {
        self.joined("acr_values", values)
    }

    /// Sets the prompts: `none`, `login`, `consent`, `select_account` or `create`.
    pub fn prompt<S: AsRef<str>>(self, values: impl IntoIterator<Item = S>) -> Self {
        self.joined("prompt", values)
    }

    /// Sets a hint about who is signing in, such as an e-mail address.
    pub fn login_hint(self, hint: impl Into<String>) -> Self {
        self.set("login_hint", hint.into())
    }

    /// Sets the user's languages as BCP 47 tags, the preferred one first.
    pub fn ui_locales<S: AsRef<str>>(self, locales: impl IntoIterator<Item = S>) -> Self {
        self.joined("ui_locales", locales)
    }

    /// Sets the `claims` parameter (OpenID Connect Core 1.0 §5.5): a [`ClaimsRequest`], or JSON in the form of the
    /// specification. A later call replaces an earlier one.
    ///
    /// If it requests `id_token.acr` as essential, the final ID Token must have one of the requested values, or any
    /// value if none is given. If it requests `id_token.auth_time` as essential, the final ID Token must have one.
    ///
    /// ```
    /// # fn example(client: &openid_deferred::Client) {
    /// use openid_deferred::claims::{ClaimRequest, ClaimsRequest};
    /// use openid_deferred::identity_assurance::VerifiedClaimsRequest;
    ///
    /// let adult = VerifiedClaimsRequest::under("de_aml").claim("birthdate", ClaimRequest::essential());
    /// let request = client.authorize().claims(ClaimsRequest::new().verified_in_id_token(adult));
    /// # }
    /// ```
    pub fn claims(mut self, claims: impl Into<ClaimsRequest>) -> Self {
        self.claims = Some(claims.into());
        self
    }

    /// Sets the `authorization_details` parameter (RFC 9396): an array of objects that each have a `type`.
    /// [`Authentication::authorization_details`](super::Authentication::authorization_details) says what the OP
    /// granted.
    pub fn authorization_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Adds a resource that the access token is for (RFC 8707).
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.parameters.push(("resource", resource.into()));
        self
    }

    /// Adds a parameter that this crate does not interpret.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Attaches data of the application to this sign-in, such as the key of an order: at most 256 bytes.
    ///
    /// It is returned with the outcome ([`Delivery::context`](crate::Delivery::context),
    /// [`PendingAuthentication::context`](crate::PendingAuthentication::context),
    /// [`Authentication::context`](super::Authentication::context)). It is sealed into the [`AuthorizationSession`], so
    /// neither the browser nor the code that handles the response can change it. An outcome therefore always belongs to
    /// the sign-in that it was requested for. The context is not sent to the OP.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// # use openid_deferred::Client;
    /// # let op = TestProvider::builder().in_process().client(TestClient::public("my-client")).start()?;
    /// # let client = Client::builder(op.issuer(), "my-client")
    /// #     .redirect_uri("https://rp.example/callback").http_client(op.http_client()).discover().await?;
    /// let (url, session) = client.authorize().context("order 4711").start().await?;
    /// assert_eq!(session.context(), b"order 4711");
    /// # let _ = op.visit(url);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn context(mut self, context: impl Into<Vec<u8>>) -> Self {
        self.context = Zeroizing::new(context.into());
        self
    }

    /// Names whom or what this sign-in is for, such as an account number: 1 to 128 bytes.
    /// [`Poller::find`](crate::Poller::find) finds all sign-ins and requests with this reference, for example to erase
    /// everything that belongs to an account. Several may have the same. Otherwise it has no effect. The store keeps a
    /// keyed hash of it. It is not sent to the OP, and the browser cannot change it, because it is sealed into the
    /// [`AuthorizationSession`].
    pub fn reference(mut self, reference: impl Into<Secret>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// Continues a trace: the value of a header `traceparent` (W3C Trace Context §3.2), such as that of the span of this
    /// request. It is kept sealed with the sign-in until its outcome, through restarts:
    /// [`AuthorizationSession::trace_parent`](AuthorizationSession::trace_parent),
    /// [`Delivery::trace_parent`](crate::Delivery::trace_parent), and
    /// [`PollerBuilder::continue_traces`](crate::poller::PollerBuilder::continue_traces) for the spans of this crate.
    ///
    /// Anything but a `traceparent` of version 00 is left out without an error. It is not sent to the OP unless the client
    /// is [set to](super::ClientBuilder::send_trace_parent).
    pub fn trace_parent(mut self, trace_parent: impl AsRef<str>) -> Self {
        self.trace_parent = TraceParent::parse(trace_parent.as_ref());
        self
    }

    /// Attaches data of the application to the [`AuthorizationSession`], such as the page to return to: at most 256
    /// bytes. [`AuthorizationSession::data`] returns it when the user comes back.
    ///
    /// It is sealed into the session, so the browser can neither read nor change it. Unlike the
    /// [`context`](Self::context), it is not stored with a pending sign-in and does not come with the outcome. It is not
    /// sent to the OP. The routes of `openid_deferred::axum` keep the path to return to in it.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client) -> Result<(), openid_deferred::Error> {
    /// let (url, session) = client.authorize().session_data("/orders/4711").start().await?;
    /// assert_eq!(session.data(), b"/orders/4711");
    /// # Ok(())
    /// # }
    /// ```
    pub fn session_data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.session_data = Zeroizing::new(data.into());
        self
    }

    /// Pushes this request to the OP and gives the browser a reference to it (RFC 9126).
    ///
    /// All requests are pushed if the OP requires it or if the client is [configured for
    /// it](super::ClientBuilder::pushed_authorization_requests). The URL of [`start`](Self::start) then works once, and
    /// [for a short time](AuthorizationSession::url_expires_at).
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// # use openid_deferred::Client;
    /// # let op = TestProvider::builder().in_process().client(TestClient::public("my-client")).start()?;
    /// # let client = Client::builder(op.issuer(), "my-client")
    /// #     .redirect_uri("https://rp.example/callback").http_client(op.http_client()).discover().await?;
    /// let (url, session) = client.authorize().scopes(["profile"]).pushed().start().await?;
    /// assert!(url.query_pairs().all(|(name, _)| name == "client_id" || name == "request_uri"));
    /// # let _ = op.visit(url);
    /// # op.assert_clean();
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn pushed(mut self) -> Self {
        self.pushed = true;
        self
    }

    /// Signs this request (RFC 9101).
    ///
    /// All its parameters go into a JWT that the client's key signs. The URL, or the [pushed](Self::pushed) request,
    /// then carries only `client_id` and `request`. All requests are signed if the OP requires it or if the client is
    /// [configured for it](super::ClientBuilder::require_signed_request_object). The OP accepts the request for ten
    /// minutes ([`AuthorizationSession::url_expires_at`]).
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// # use openid_deferred::{Client, ClientAuthentication, SigningAlgorithm, SigningKey};
    /// # let key = SigningKey::generate(SigningAlgorithm::Es256)?;
    /// # let jwk = serde_json::to_string(&key.public_jwk())?;
    /// # let op = TestProvider::builder().in_process().client(TestClient::private_key_jwt("my-client", &jwk)).start()?;
    /// # let client = Client::builder(op.issuer(), "my-client").authentication(ClientAuthentication::private_key_jwt(key))
    /// #     .redirect_uri("https://rp.example/callback").http_client(op.http_client()).discover().await?;
    /// let (url, session) = client.authorize().scopes(["profile"]).signed().start().await?;
    /// assert!(url.query_pairs().all(|(name, _)| name == "client_id" || name == "request"));
    /// # let _ = op.visit(url);
    /// # op.assert_clean();
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn signed(mut self) -> Self {
        self.signed = true;
        self
    }

    /// Returns the URL to send the browser to, and the session to keep until the browser returns.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](crate::ErrorKind::Configuration) or [`Misuse`](crate::ErrorKind::Misuse) for parameters that
    ///   cannot be sent, and [`Misuse::ContextTooLong`] for a context that is too long.
    /// - The errors of [`Client::provider_metadata`] if the OP's metadata has not been fetched yet.
    /// - For a pushed request: [`ErrorResponse`](crate::ErrorKind::ErrorResponse) if the OP refuses it,
    ///   [`Protocol`](crate::ErrorKind::Protocol) if the answer breaks a rule, and
    ///   [`Transport`](crate::ErrorKind::Transport) if none arrived.
    /// - For a signed request: [`Signer`](crate::ErrorKind::Signer), [`Misuse::RequestTooLong`] if it should be pushed,
    ///   and errors about the OP's keys if it is encrypted.
    ///
    /// No error uses anything up: call `start` on a new request.
    ///
    /// [`Misuse::ContextTooLong`]: crate::error::Misuse::ContextTooLong
    /// [`Misuse::RequestTooLong`]: crate::error::Misuse::RequestTooLong
    pub async fn start(self) -> Result<(Url, AuthorizationSession), Error> {
        self.prepare().await.map_err(|error| error.in_step("starting the authorization request"))
    }

    fn set(mut self, name: &'static str, value: String) -> Self {
        self.parameters.retain(|(existing, _)| *existing != name);
        self.parameters.push((name, value));
        self
    }

    fn joined<S: AsRef<str>>(self, name: &'static str, values: impl IntoIterator<Item = S>) -> Self {
        let mut joined = String::new();
        for value in values {
            if !joined.is_empty() {
                joined.push(' ');
            }
            joined.push_str(value.as_ref());
        }
        self.set(name, joined)
    }
}

/// Leaves out the parameters, because they may be about the user.
impl fmt::Debug for AuthorizationRequest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthorizationRequest")
            .field("issuer", &self.client.issuer())
            .field("client_id", &self.client.client_id())
            .field("response_type", &self.response_type)
            .field("response_mode", &self.response_mode)
            .field("scopes", &self.scopes)
            .field("pushed", &self.pushed)
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}
