//! Token requests for grants without a user: client credentials (RFC 6749 §4.4), token exchange (RFC 8693) and JWT bearer
//! (RFC 7523). The OP may defer its answer (IETF DTR §Client Opt-In Signaling).

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use super::Client;
use super::exchange::Exchanged;
use super::initial_request::InitialRequest;
use super::issued_tokens::IssuedTokens;
use super::request_values::{check_context, check_details, check_extra, check_reference};
use super::setting::setting;
use crate::dialect::Dialect;
use crate::dpop::DpopKey;
use crate::error::Error;
use crate::pending::PendingAuthentication;
use crate::secret::Secret;
use crate::trace_parent::TraceParent;

/// Parameters that have a method of their own, belong to the protocol of deferral, or authenticate the client.
const RESERVED: [&str; 18] = [
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "scope",
    "resource",
    "audience",
    "authorization_details",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "assertion",
    "completion_mode",
    "client_notification_token",
    "deferral_code",
];

/// What a token request without a user presents to the OP. Pass it to [`Client::token_request`].
#[derive(Clone)]
#[must_use = "a grant has no effect until it is requested with `Client::token_request`"]
pub struct Grant {
    grant_type: &'static str,
    parameters: Vec<(&'static str, Secret)>,
}

impl Grant {
    /// The client itself asks for a token (RFC 6749 §4.4). It must be a confidential client.
    pub fn client_credentials() -> Self {
        Self { grant_type: "client_credentials", parameters: Vec::new() }
    }

    /// Exchanges a token (RFC 8693 §2.1). The type is a URI such as
    /// `urn:ietf:params:oauth:token-type:access_token`.
    pub fn token_exchange(subject_token: impl Into<Secret>, subject_token_type: impl Into<String>) -> Self {
        Self {
            grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
            parameters: vec![
                ("subject_token", subject_token.into()),
                ("subject_token_type", Secret::new(subject_token_type.into())),
            ],
        }
    }

    /// Presents a JWT that another party issued (RFC 7523 §2.1), such as an Identity Assertion Authorization Grant.
    pub fn jwt_bearer(assertion: impl Into<Secret>) -> Self {
        Self {
            grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer",
            parameters: vec![("assertion", assertion.into())],
        }
    }

    /// Adds the token of the party that acts for the subject of a token exchange (RFC 8693 §2.1).
    pub fn actor_token(mut self, actor_token: impl Into<Secret>, actor_token_type: impl Into<String>) -> Self {
        self.parameters.push(("actor_token", actor_token.into()));
        self.parameters.push(("actor_token_type", Secret::new(actor_token_type.into())));
        self
    }

    /// Sets the type of token that a token exchange should issue (RFC 8693 §2.1).
    pub fn requested_token_type(mut self, requested_token_type: impl Into<String>) -> Self {
        self.parameters.push(("requested_token_type", Secret::new(requested_token_type.into())));
        self
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Grant").field("grant_type", &self.grant_type).finish_non_exhaustive()
    }
}

/// A token request that is being built. Finish with [`send`](Self::send), or with
/// [`Poller::request_tokens`](crate::Poller::request_tokens).
#[must_use = "a token request has no effect until it is sent"]
pub struct TokenRequest<'a> {
    client: &'a Client,
    grant: Grant,
    scopes: Vec<String>,
    details: Option<Value>,
    parameters: Vec<(&'static str, String)>,
    extra: Vec<(String, String)>,
    context: Zeroizing<Vec<u8>>,
    reference: Option<Secret>,
    trace_parent: Option<TraceParent>,
    dpop_key: Option<DpopKey>,
    idempotency_key: Option<Secret>,
    may_defer: bool,
}

/// The answer to a token request.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "it contains tokens, or the pending request"]
pub enum TokenAnswer {
    /// The OP issued the tokens at once.
    Complete(IssuedTokens),
    /// The OP defers its answer. [Wait](Client::wait) for the outcome, or store it and [poll](Client::poll). The outcome
    /// is [`Issued`](super::Outcome::Issued).
    Deferred(PendingAuthentication),
}

impl Client {
    /// Starts a token request for a grant without a user. The application gets tokens, and no identity.
    ///
    /// The request allows the OP to defer its answer (`completion_mode`, IETF DTR §Client Opt-In Signaling), whatever
    /// dialect the client uses for sign-ins. An OP that does not know the parameter ignores it and answers at once. With
    /// DPoP the request, its polls and the tokens are bound to a new key.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client) -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::{Grant, Outcome, TokenAnswer};
    ///
    /// let tokens = match client.token_request(Grant::client_credentials()).scopes(["payments"]).send().await? {
    ///     TokenAnswer::Complete(tokens) => tokens,
    ///     TokenAnswer::Deferred(mut pending) => match client.wait(&mut pending).await? {
    ///         Outcome::Issued(tokens) => tokens,
    ///         outcome => panic!("no tokens: {outcome:?}"),
    ///     },
    ///     answer => panic!("unknown answer: {answer:?}"),
    /// };
    /// println!("a token of type {:?}", tokens.token_type());
    /// # Ok(())
    /// # }
    /// ```
    pub fn token_request(&self, grant: Grant) -> TokenRequest<'_> {
        TokenRequest {
            client: self,
            grant,
            scopes: Vec::new(),
            details: None,
            parameters: Vec::new(),
            extra: Vec::new(),
            context: Zeroizing::default(),
            reference: None,
            trace_parent: None,
            dpop_key: None,
            idempotency_key: None,
            may_defer: true,
        }
    }
}

impl TokenRequest<'_> {
    /// Requests these scopes.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Adds a resource that the access token is for (RFC 8707).
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.parameters.push(("resource", resource.into()));
        self
    }

    /// Adds the logical name of a service that the token is for (RFC 8693 §2.1).
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.parameters.push(("audience", audience.into()));
        self
    }

    /// Sets the `authorization_details` parameter (RFC 9396 §2): an array of objects that each have a `type`.
    /// [`IssuedTokens::authorization_details`] says what the OP granted.
    pub fn authorization_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Adds a parameter that this crate does not interpret. [`send`](Self::send) refuses one that the crate sets
    /// itself: [`Misuse::ReservedParameter`].
    ///
    /// [`Misuse::ReservedParameter`]: crate::error::Misuse::ReservedParameter
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Attaches data of the application to this request, such as the key of an order: at most 256 bytes. It is returned
    /// with the outcome, and is not sent to the OP.
    pub fn context(mut self, context: impl Into<Vec<u8>>) -> Self {
        self.context = Zeroizing::new(context.into());
        self
    }

    /// Names whom or what this request is for, such as an account number: 1 to 128 bytes.
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

    /// Binds the request, its polls and the tokens to this key instead of a new one (RFC 9449 §5). Some OPs exchange a
    /// token that is bound to a key only for a proof with the same key: pass
    /// [`Authentication::dpop_key`](super::Authentication::dpop_key) of the subject token.
    pub fn dpop_key(mut self, key: DpopKey) -> Self {
        self.dpop_key = Some(key);
        self
    }

    /// Sets a key, such as an order number, by which the poller recognises a repetition of this request after a crash. The
    /// key is not sent to the OP.
    ///
    /// [`Poller::request_tokens`](crate::Poller::request_tokens) sends one request for each key of a client, and returns
    /// the id of the first one to later callers, for as long as its row is kept
    /// ([`keep_tombstones`](crate::poller::PollerBuilder::keep_tombstones)) and the keyring has the sealing key that was
    /// primary then. To ask again after a denial or an unknown outcome, use another key. [`send`](Self::send) ignores the
    /// key.
    pub fn idempotency_key(mut self, key: impl Into<Secret>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Does not allow the OP to defer its answer: it answers at once or refuses (IETF DTR §Client Opt-In Signaling).
    pub fn without_deferral(mut self) -> Self {
        self.may_defer = false;
        self
    }

    /// Sends the request.
    ///
    /// Do not drop the future: the request continues, but its answer would be lost. Tokens that arrive afterwards are
    /// revoked. [`Poller::request_tokens`](crate::Poller::request_tokens) does not have this problem.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](crate::ErrorKind::Configuration) for parameters that cannot be sent, for client credentials of
    ///   a public client and, if the OP may defer its answer, for a public client without DPoP (IETF DTR
    ///   §Sender-Constraint Requirements).
    /// - [`Misuse::ReservedParameter`] and [`Misuse::ContextTooLong`].
    /// - [`ErrorResponse`](crate::ErrorKind::ErrorResponse) if the OP refused.
    /// - [`Transport`](crate::ErrorKind::Transport) if nothing was sent.
    /// - [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if the request was sent and no usable answer arrived.
    /// - [`Protocol`](crate::ErrorKind::Protocol) if the answer broke a rule.
    ///
    /// [`Misuse::ReservedParameter`]: crate::error::Misuse::ReservedParameter
    /// [`Misuse::ContextTooLong`]: crate::error::Misuse::ContextTooLong
    pub async fn send(self) -> Result<TokenAnswer, Error> {
        let client = self.client;
        let mut request = self.prepare().await?;
        match client.request_tokens(&mut request).await? {
            Exchanged::Complete(granted) => granted.into_tokens().map(TokenAnswer::Complete),
            Exchanged::Deferred(pending) => Ok(TokenAnswer::Deferred(pending)),
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
        self.prepared().await.map_err(|error| error.in_step("preparing the token request"))
    }

    async fn prepared(self) -> Result<InitialRequest, Error> {
        let client = self.client;
        check_extra(&self.extra, &RESERVED)?;
        check_context(&self.context)?;
        check_reference(self.reference.as_ref())?;
        check_details(self.details.as_ref())?;
        let metadata = client.0.provider.metadata().await?;
        let identity = client.identity_at(&metadata)?;
        if self.grant.grant_type == "client_credentials" && identity.authentication.method() == "none" {
            let problem = "the client credentials grant needs a confidential client (RFC 6749 §4.4)";
            return Err(setting("authentication", problem));
        }
        if self.may_defer {
            client.check_binding(Dialect::Ietf, &identity.authentication)?;
        }
        let mut form: Vec<(Cow<'static, str>, Secret)> =
            vec![("grant_type".into(), Secret::new(self.grant.grant_type))];
        form.extend(self.grant.parameters.into_iter().map(|(name, value)| (name.into(), value)));
        if !self.scopes.is_empty() {
            form.push(("scope".into(), Secret::new(self.scopes.join(" "))));
        }
        if let Some(details) = &self.details {
            form.push(("authorization_details".into(), Secret::new(details.to_string())));
        }
        form.extend(self.parameters.into_iter().map(|(name, value)| (name.into(), Secret::new(value))));
        form.extend(self.extra.into_iter().map(|(name, value)| (name.into(), Secret::new(value))));
        Ok(InitialRequest {
            may_defer: self.may_defer,
            dpop_key: match self.dpop_key {
                Some(key) => Some(key),
                None => client.new_dpop_key(&metadata).await?,
            },
            context: self.context,
            reference: self.reference,
            trace_parent: self.trace_parent,
            ..InitialRequest::new(client, Dialect::Ietf, form)
        })
    }
}

/// Leaves out the parameters, because they contain credentials.
impl fmt::Debug for TokenRequest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TokenRequest")
            .field("issuer", &self.client.issuer())
            .field("client_id", &self.client.client_id())
            .field("grant", &self.grant)
            .field("scopes", &self.scopes)
            .field("may_defer", &self.may_defer)
            .finish_non_exhaustive()
    }
}
