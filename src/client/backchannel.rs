//! CIBA §7: the client names a user, whom the OP asks on another device.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use super::Client;
use super::exchange::Exchanged;
use super::initial_request::InitialRequest;
use super::request_values::{check_context, check_details, check_extra, check_reference};
use super::setting::setting;
use crate::dialect::Dialect;
use crate::error::{Document, Error, Rule, Violation};
use crate::pending::{Checks, PendingAuthentication};
use crate::secret::Secret;
use crate::trace_parent::TraceParent;

mod checks;
mod hint;
mod refusal;

pub use hint::UserHint;
pub use refusal::AuthenticationRefusal;

/// Parameters that have a method of their own, belong to the protocol, or authenticate the client.
const RESERVED: [&str; 21] = [
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "request",
    "request_uri",
    "scope",
    "client_notification_token",
    "acr_values",
    "login_hint",
    "login_hint_token",
    "id_token_hint",
    "binding_message",
    "user_code",
    "requested_expiry",
    "authorization_details",
    "resource",
    "grant_type",
    "auth_req_id",
    "nonce",
    "redirect_uri",
];

/// A backchannel authentication request that is being built (CIBA §7.1). Finish with [`send`](Self::send), or with
/// [`Poller::request_authentication`](crate::Poller::request_authentication).
#[must_use = "a backchannel authentication request has no effect until it is sent"]
pub struct AuthenticationRequest<'a> {
    client: &'a Client,
    hint: UserHint,
    scopes: Vec<String>,
    acr_values: Vec<String>,
    binding_message: Option<String>,
    user_code: Option<Secret>,
    requested_expiry: Option<Duration>,
    details: Option<Value>,
    resources: Vec<String>,
    extra: Vec<(String, String)>,
    context: Zeroizing<Vec<u8>>,
    reference: Option<Secret>,
    trace_parent: Option<TraceParent>,
    notification_token: Option<Secret>,
    idempotency_key: Option<Secret>,
    signed: bool,
}

impl Client {
    /// Starts a backchannel authentication request: the OP asks this user on another device, such as their phone, and
    /// no browser of this application is involved (OpenID Connect Client-Initiated Backchannel Authentication Flow Core
    /// 1.0). By default it asks for the scope `openid`.
    ///
    /// The outcome is that of any other sign-in, [`Outcome::Approved`](crate::Outcome::Approved) with an
    /// [`Authentication`](crate::Authentication). With DPoP, the polls and the tokens are bound to a new key. The client
    /// must be confidential.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client) -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::Outcome;
    /// use openid_deferred::ciba::UserHint;
    ///
    /// let request = client
    ///     .backchannel_authentication(UserHint::login_hint("+49 30 901820"))
    ///     .binding_message("W4SCT");
    /// let mut pending = request.send().await?;
    /// match client.wait(&mut pending).await? {
    ///     Outcome::Approved(authentication) => println!("{}", authentication.claims().subject()),
    ///     outcome => println!("{outcome:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn backchannel_authentication(&self, hint: UserHint) -> AuthenticationRequest<'_> {
        AuthenticationRequest {
            client: self,
            hint,
            scopes: vec!["openid".to_owned()],
            acr_values: Vec::new(),
            binding_message: None,
            user_code: None,
            requested_expiry: None,
            details: None,
            resources: Vec::new(),
            extra: Vec::new(),
            context: Zeroizing::default(),
            reference: None,
            trace_parent: None,
            notification_token: None,
            idempotency_key: None,
            signed: self.0.options.signed_backchannel_requests,
        }
    }
}

impl AuthenticationRequest<'_> {
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

    /// Sets the preferred authentication context classes, the preferred one first. The OP may ignore them;
    /// [`Claims::acr`](crate::Claims::acr) says what was done.
    pub fn acr_values<S: Into<String>>(mut self, values: impl IntoIterator<Item = S>) -> Self {
        self.acr_values = values.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a text that the OP shows to the user, so that they recognise this request: a few words or a code that the
    /// application shows too. It must not be empty or have control characters. OPs refuse a text that is too long for
    /// their device ([`AuthenticationRefusal::InvalidBindingMessage`]).
    pub fn binding_message(mut self, message: impl Into<String>) -> Self {
        self.binding_message = Some(message.into());
        self
    }

    /// Sets the code that only the user and the OP know. It keeps other people from starting requests to the user. The
    /// user enters it in the application, which must not store it.
    pub fn user_code(mut self, code: impl Into<Secret>) -> Self {
        self.user_code = Some(code.into());
        self
    }

    /// Asks the OP for this lifetime of the request, in whole seconds. The OP may choose another one;
    /// [`PendingAuthentication::expires_at`] says which.
    pub fn requested_expiry(mut self, lifetime: Duration) -> Self {
        self.requested_expiry = Some(lifetime);
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
        self.resources.push(resource.into());
        self
    }

    /// Adds a parameter that this crate does not interpret. [`send`](Self::send) refuses one that the crate sets itself:
    /// [`Misuse::ReservedParameter`].
    ///
    /// [`Misuse::ReservedParameter`]: crate::error::Misuse::ReservedParameter
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Attaches data of the application to this sign-in, such as the key of an order: at most 256 bytes. It is returned
    /// with the outcome, and is not sent to the OP.
    pub fn context(mut self, context: impl Into<Vec<u8>>) -> Self {
        self.context = Zeroizing::new(context.into());
        self
    }

    /// Names whom or what this sign-in is for, such as an account number: 1 to 128 bytes.
    /// [`Poller::find`](crate::Poller::find) finds all sign-ins and requests with this reference, and so everything that
    /// is to be erased with an account. Several may have the same. Otherwise it has no effect. The store keeps a keyed
    /// hash of it. It is not sent to the OP.
    pub fn reference(mut self, reference: impl Into<Secret>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// Continues a trace: the value of a header `traceparent` (W3C Trace Context §3.2), such as that of the span of this
    /// request. It is kept sealed with the sign-in until its outcome, through restarts:
    /// [`PendingAuthentication::trace_parent`](crate::PendingAuthentication::trace_parent),
    /// [`Delivery::trace_parent`](crate::Delivery::trace_parent), and
    /// [`PollerBuilder::continue_traces`](crate::poller::PollerBuilder::continue_traces) for the spans of this crate.
    ///
    /// Anything but a `traceparent` of version 00 is left out without an error. It is not sent to the OP unless the client
    /// is [set to](super::ClientBuilder::send_trace_parent).
    pub fn trace_parent(mut self, trace_parent: impl AsRef<str>) -> Self {
        self.trace_parent = TraceParent::parse(trace_parent.as_ref());
        self
    }

    /// Sets the bearer token that the OP is to present in the ping about this request, for
    /// [`DeliveryMode::Ping`](super::DeliveryMode::Ping): at least 128 bits of randomness, at most 1,024 characters of
    /// RFC 6750 §2.1. A poller that [receives pings](crate::poller::PollerBuilder::receives_pings) makes one itself.
    pub fn notification_token(mut self, token: impl Into<Secret>) -> Self {
        self.notification_token = Some(token.into());
        self
    }

    /// Sends the parameters as claims of a JWT that the client's key signs (CIBA §7.1.1). The key is that of
    /// [`request_object_signing_key`](super::ClientBuilder::request_object_signing_key), or else that of client
    /// assertions. [`signed_backchannel_authentication_requests`](super::ClientBuilder::signed_backchannel_authentication_requests)
    /// signs all of them.
    pub fn signed(mut self) -> Self {
        self.signed = true;
        self
    }

    /// Sets a key, such as an order number, by which the poller recognises a repetition of this request after a crash, so
    /// that the user is not asked twice. The key is not sent to the OP.
    ///
    /// [`Poller::request_authentication`](crate::Poller::request_authentication) sends one request for each key of a
    /// client, and returns the id of the first one to later callers, for as long as its row is kept
    /// ([`keep_tombstones`](crate::poller::PollerBuilder::keep_tombstones)) and the keyring has the sealing key that was
    /// primary then. A request that the OP refused frees the key. To ask again after a denial or an unknown outcome, use
    /// another key. [`send`](Self::send) ignores the key.
    pub fn idempotency_key(mut self, key: impl Into<Secret>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Sends the request, and returns the pending sign-in: [wait](Client::wait) for the outcome, or store it and
    /// [poll](Client::poll).
    ///
    /// Do not drop the future: the request continues and the OP asks the user, but its answer would be lost.
    /// [`Poller::request_authentication`](crate::Poller::request_authentication) does not have this problem.
    ///
    /// # Errors
    ///
    /// - [`ErrorResponse`](crate::ErrorKind::ErrorResponse) if the OP refused (CIBA §13). Then the OP has not asked the
    ///   user, and a corrected request can be sent. [`AuthenticationRefusal::of`] says what a page can show.
    /// - [`Configuration`](crate::ErrorKind::Configuration) for parameters that cannot be sent, for a public client, for
    ///   push mode, and if the OP's metadata lacks what the request needs.
    /// - [`Misuse::ReservedParameter`], [`Misuse::ContextTooLong`], and [`Misuse::WrongClient`] for a hint of another
    ///   client.
    /// - [`Signer`](crate::ErrorKind::Signer) and [`Transport`](crate::ErrorKind::Transport) if nothing was sent.
    /// - [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if the request was sent and no usable answer arrived. The
    ///   OP may ask the user, but the user's decision is lost.
    /// - [`Protocol`](crate::ErrorKind::Protocol) if the answer broke a rule.
    ///
    /// [`Misuse::ReservedParameter`]: crate::error::Misuse::ReservedParameter
    /// [`Misuse::ContextTooLong`]: crate::error::Misuse::ContextTooLong
    /// [`Misuse::WrongClient`]: crate::error::Misuse::WrongClient
    pub async fn send(self) -> Result<PendingAuthentication, Error> {
        let client = self.client;
        let mut request = self.prepare().await?;
        match client.request_tokens(&mut request).await? {
            Exchanged::Deferred(pending) => Ok(pending),
            // The endpoint issues no tokens, so an answer that is not a deferral was refused.
            Exchanged::Complete(_) => Err(no_auth_req_id()),
        }
    }

    /// Identifies a repetition of this request.
    pub(crate) fn key(&self) -> Option<&Secret> {
        self.idempotency_key.as_ref()
    }

    /// The client that sends it.
    pub(crate) fn client(&self) -> &Client {
        self.client
    }

    /// Checks the parameters, and makes the request with its DPoP key.
    pub(crate) async fn prepare(self) -> Result<InitialRequest, Error> {
        self.prepared().await.map_err(|error| error.in_step("preparing the backchannel authentication request"))
    }

    async fn prepared(self) -> Result<InitialRequest, Error> {
        let client = self.client;
        self.check_parameters()?;
        let metadata = client.0.provider.metadata().await?;
        client.check_backchannel(&metadata)?;
        if self.signed {
            client.check_backchannel_signature(&metadata)?;
        }
        if self.user_code.is_some() {
            client.check_user_code(&metadata)?;
        }
        client.check_id_token_support(&metadata)?;
        let options = &client.0.options;
        let checks = Checks {
            nonce: None,
            requested_at: client.0.clock.now(),
            max_age: options.default_max_age.map(|max_age| max_age.as_secs()),
            require_auth_time: options.require_auth_time,
            require_acr: false,
            essential_acr: Vec::new(),
            subject: self.hint.subject().map(str::to_owned),
        };
        let form = self.form();
        Ok(InitialRequest {
            signed: self.signed,
            dpop_key: client.new_dpop_key(&metadata).await?,
            context: self.context,
            reference: self.reference,
            trace_parent: self.trace_parent,
            checks: Some(checks),
            notification_token: self.notification_token,
            ..InitialRequest::new(client, Dialect::Ciba, form)
        })
    }

    /// Refuses what is wrong whatever the OP supports.
    fn check_parameters(&self) -> Result<(), Error> {
        check_extra(&self.extra, &RESERVED)?;
        if self.signed {
            self.client.check_request_object_parameters(&self.extra)?;
        }
        check_context(&self.context)?;
        check_reference(self.reference.as_ref())?;
        check_details(self.details.as_ref())?;
        self.hint.check(self.client)?;
        if self.binding_message.as_ref().is_some_and(|text| text.is_empty() || text.chars().any(char::is_control)) {
            return Err(setting("binding_message", "it is empty or has control characters, which no device shows"));
        }
        if self.user_code.as_ref().is_some_and(|code| code.expose().is_empty()) {
            return Err(setting("user_code", "it is empty; leave it out, or let the user enter it"));
        }
        if self.requested_expiry.is_some_and(|lifetime| lifetime.as_secs() == 0) {
            return Err(setting("requested_expiry", "it is shorter than one second (CIBA §7.1)"));
        }
        match &self.notification_token {
            Some(token) => self.client.check_notification_token(token),
            None => Ok(()),
        }
    }

    /// The parameters of CIBA §7.1, without the notification token.
    fn form(&self) -> Vec<(Cow<'static, str>, Secret)> {
        let mut form: Vec<(Cow<'static, str>, Secret)> = Vec::new();
        let mut set = |name: &'static str, value: Secret| form.push((name.into(), value));
        set("scope", Secret::new(self.scopes.join(" ")));
        let (name, hint) = self.hint.parameter();
        set(name, hint.clone());
        if !self.acr_values.is_empty() {
            set("acr_values", Secret::new(self.acr_values.join(" ")));
        }
        if let Some(message) = &self.binding_message {
            set("binding_message", Secret::new(message.as_str()));
        }
        if let Some(code) = &self.user_code {
            set("user_code", code.clone());
        }
        if let Some(lifetime) = self.requested_expiry {
            set("requested_expiry", Secret::new(lifetime.as_secs().to_string()));
        }
        if let Some(details) = &self.details {
            set("authorization_details", Secret::new(details.to_string()));
        }
        for resource in &self.resources {
            set("resource", Secret::new(resource.as_str()));
        }
        form.extend(self.extra.iter().map(|(name, value)| (name.clone().into(), Secret::new(value.as_str()))));
        form
    }
}

pub(crate) fn no_auth_req_id() -> Error {
    Violation::new(Rule::NoAuthReqId).in_document(Document::BackchannelAuthenticationResponse).into()
}

impl Client {
    /// The form to send: the parameters, or the JWT that has them as claims (CIBA §7.1.1).
    pub(super) async fn backchannel_form(
        &self,
        form: Vec<(Cow<'static, str>, Secret)>,
        request: &InitialRequest,
    ) -> Result<Vec<(Cow<'static, str>, Secret)>, Error> {
        let token = form.iter().find(|(name, _)| name == Dialect::Ciba.protocol().notification_token());
        self.check_is_notified(token.map(|(_, token)| token))?;
        if !request.signed {
            return Ok(form);
        }
        let parameters: Vec<_> = form.iter().map(|(name, value)| (&**name, value.expose().to_owned())).collect();
        Ok(vec![("request".into(), self.signed_request(&parameters).await?.token)])
    }
}

/// Leaves out the parameters, because they name the user and contain credentials.
impl fmt::Debug for AuthenticationRequest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthenticationRequest")
            .field("issuer", &self.client.issuer())
            .field("client_id", &self.client.client_id())
            .field("hint", &self.hint)
            .field("scopes", &self.scopes)
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}
