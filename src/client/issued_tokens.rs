//! The result of a token request without a user.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Client;
use super::authentication::{GrantedScope, TokenType};
use super::token_response::{Binding, Scope, Tokens};
use crate::clock::saturating_add;
use crate::dpop::DpopKey;
use crate::error::{Document, Error, Rule, Violation};
use crate::keyring::{Keyring, Purpose};
use crate::random::SystemRandom;
use crate::sealed::{self, Sealable};
use crate::secret::Secret;

/// Tokens that the OP issued for a grant without a user, such as client credentials, a token exchange or an assertion.
///
/// There is no ID Token, because no user signed in. An ID Token in the response is ignored.
/// `Client::resource` calls an API with the access token and the key that it is bound to, and `Client::revoke` revokes
/// the tokens. `Client::refresh` gets a new access token if there is a [refresh token](Self::refresh_token). Most OPs give
/// none for these grants; repeat the request when the access token has expired. [Seal](Self::seal) the value if the
/// tokens are needed later: that includes the key that they are bound to.
pub struct IssuedTokens(Box<Body>);

#[derive(Serialize, Deserialize)]
pub(crate) struct Body {
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "iss")]
    pub(super) issuer: String,
    #[serde(rename = "cid")]
    pub(super) client_id: String,
    #[serde(rename = "t", with = "sealed::seconds")]
    received_at: SystemTime,
    #[serde(rename = "at", with = "sealed::secret")]
    pub(super) access_token: Secret,
    /// `None` if it is not an access token.
    #[serde(rename = "tt", default, skip_serializing_if = "Option::is_none")]
    pub(super) token_type: Option<TokenType>,
    #[serde(rename = "rt", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<Secret>,
    #[serde(rename = "exp", default, skip_serializing_if = "Option::is_none")]
    expires_in: Option<Duration>,
    #[serde(rename = "scp", default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// The OP sent a scope that cannot be read.
    #[serde(rename = "scu", default, skip_serializing_if = "std::ops::Not::not")]
    scope_unknown: bool,
    #[serde(rename = "itt", default, skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<String>,
    #[serde(rename = "ad", default, skip_serializing_if = "Option::is_none")]
    authorization_details: Option<Value>,
    #[serde(rename = "ext", default, skip_serializing_if = "Map::is_empty")]
    extra: Map<String, Value>,
    #[serde(rename = "key", with = "sealed::dpop_key", default, skip_serializing_if = "Option::is_none")]
    pub(super) dpop_key: Option<DpopKey>,
    /// The client was registered for tokens that are bound to its certificate.
    #[serde(rename = "crt", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) certificate_bound: bool,
    #[serde(rename = "cnl", default, skip_serializing_if = "std::ops::Not::not")]
    after_cancellation: bool,
    #[serde(rename = "ctx", with = "sealed::secret_bytes", default, skip_serializing_if = "sealed::no_bytes")]
    context: Zeroizing<Vec<u8>>,
}

impl Sealable for Body {
    const PURPOSE: Purpose = Purpose::IssuedTokens;
    const VERSION: u8 = 1;

    fn version(&self) -> u8 {
        self.version
    }
}

impl Client {
    /// Reads a token response that needs no ID Token.
    pub(super) fn issued(
        &self,
        body: &[u8],
        received_at: SystemTime,
        dpop_key: Option<&DpopKey>,
    ) -> Result<IssuedTokens, Violation> {
        let mut tokens = Tokens::parse_without_id_token(body)?;
        if !tokens.is_no_access_token {
            tokens = tokens.with_usable_access_token()?;
        }
        let violation = |rule, member| Violation::new(rule).in_document(Document::TokenResponse).at_member(member);
        let access_token = tokens.access_token.take().ok_or(violation(Rule::NoAccessToken, "access_token"))?;
        let Binding { certificate_bound, is_kept } = self.binding(&tokens, dpop_key);
        if !is_kept && !tokens.is_no_access_token {
            // Without the tokens nothing is left.
            return Err(violation(Rule::UnknownTokenType, "token_type"));
        }
        let issued_token_type = match tokens.rest.shift_remove("issued_token_type") {
            Some(Value::String(name)) if !name.is_empty() => Some(name),
            _ => None,
        };
        Ok(IssuedTokens(Box::new(Body {
            version: Body::VERSION,
            issuer: self.issuer().to_owned(),
            client_id: self.client_id().to_owned(),
            received_at,
            access_token,
            token_type: tokens.token_type,
            refresh_token: tokens.refresh_token,
            expires_in: tokens.expires_in,
            scope_unknown: tokens.scope == Scope::Unknown,
            scope: tokens.scope.listed(),
            issued_token_type,
            authorization_details: tokens.authorization_details,
            extra: tokens.rest,
            dpop_key: dpop_key.cloned(),
            certificate_bound,
            after_cancellation: false,
            context: Zeroizing::default(),
        })))
    }
}

impl Body {
    /// Takes the tokens of a refresh (RFC 6749 §6). What its answer leaves out stays as it was.
    pub(super) fn renew(&mut self, IssuedTokens(renewed): IssuedTokens) {
        let mut renewed = *renewed;
        renewed.refresh_token = renewed.refresh_token.or(self.refresh_token.take());
        if renewed.scope.is_none() && !renewed.scope_unknown {
            (renewed.scope, renewed.scope_unknown) = (self.scope.take(), self.scope_unknown);
        }
        renewed.issued_token_type = renewed.issued_token_type.or(self.issued_token_type.take());
        renewed.authorization_details = renewed.authorization_details.or(self.authorization_details.take());
        renewed.after_cancellation = self.after_cancellation;
        renewed.context = std::mem::take(&mut self.context);
        *self = renewed;
    }
}

impl IssuedTokens {
    pub(super) fn into_body(self) -> Box<Body> {
        self.0
    }

    pub(super) fn from_body(body: Box<Body>) -> Self {
        Self(body)
    }

    pub(super) fn body(&self) -> &Body {
        &self.0
    }

    pub(super) fn body_mut(&mut self) -> &mut Body {
        &mut self.0
    }

    /// Sets the context that the application gave with the request.
    pub(crate) fn with_context(mut self, context: Zeroizing<Vec<u8>>) -> Self {
        self.0.context = context;
        self
    }

    pub(super) fn came_after_cancellation(&mut self) {
        self.0.after_cancellation = true;
    }

    /// What the application gave to [`context`](super::TokenRequest::context) with the request.
    pub fn context(&self) -> &[u8] {
        &self.0.context
    }

    /// The access token or, after a token exchange, the token of the [issued type](Self::issued_token_type)
    /// (RFC 8693 §2.2.1).
    pub fn access_token(&self) -> &Secret {
        &self.0.access_token
    }

    /// The type of the access token (RFC 6749 §7.1): `DPoP` or `Bearer`, in this spelling. `None` for an issued token
    /// that is not an access token (`N_A`, RFC 8693 §2.2.1), which `Client::resource` refuses to send.
    pub fn token_type(&self) -> Option<&'static str> {
        self.0.token_type.map(TokenType::as_str)
    }

    /// The type of the issued token, from a token exchange (RFC 8693 §2.2.1), such as
    /// `urn:ietf:params:oauth:token-type:access_token`.
    pub fn issued_token_type(&self) -> Option<&str> {
        self.0.issued_token_type.as_deref()
    }

    /// The refresh token, if the OP gave one. RFC 6749 §4.4.3 advises against it for client credentials.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.0.refresh_token.as_ref()
    }

    /// When the tokens were received: with the answer to the grant, or with the latest refresh.
    pub fn received_at(&self) -> SystemTime {
        self.0.received_at
    }

    /// When the access token expires, if the OP said so.
    pub fn access_token_expires_at(&self) -> Option<SystemTime> {
        self.0.expires_in.map(|lifetime| saturating_add(self.0.received_at, lifetime))
    }

    /// What the OP said about the scopes that it granted (RFC 6749 §5.1).
    pub fn granted_scope(&self) -> GrantedScope<'_> {
        match self.0.scope_unknown {
            true => GrantedScope::Unknown,
            false => GrantedScope::of(self.0.scope.as_deref()),
        }
    }

    /// The authorization details that were granted (RFC 9396 §7), as an array. The OP may grant less than was
    /// requested, or add to it. `None` if it sent none.
    pub fn authorization_details(&self) -> Option<&Value> {
        self.0.authorization_details.as_ref()
    }

    /// A member of the token response that this crate does not interpret.
    pub fn extra(&self, name: &str) -> Option<&Value> {
        self.0.extra.get(name)
    }

    /// Whether the access token is bound to [`dpop_key`](Self::dpop_key) (RFC 9449 §5), or to the client certificate as
    /// was [registered](crate::ClientBuilder::certificate_bound_access_tokens) (RFC 8705 §3).
    pub fn is_sender_constrained(&self) -> bool {
        self.0.certificate_bound || (self.0.token_type == Some(TokenType::Dpop) && self.0.dpop_key.is_some())
    }

    /// The key that the request was bound to from its beginning.
    pub fn dpop_key(&self) -> Option<&DpopKey> {
        self.0.dpop_key.as_ref()
    }

    /// Whether the OP issued the tokens after the application had cancelled the request, because the two messages
    /// crossed.
    pub fn is_after_cancellation(&self) -> bool {
        self.0.after_cancellation
    }

    /// Seals everything into bytes that can be stored anywhere. [`open`](Self::open) reverses it.
    ///
    /// # Errors
    ///
    /// Fails only if randomness or the cryptographic library fails.
    pub fn seal(&self, keyring: &Keyring) -> Result<Vec<u8>, Error> {
        sealed::seal(keyring, &SystemRandom, &[], &*self.0)
    }

    /// Opens what [`seal`](Self::seal) made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`](crate::ErrorKind::Sealed) if the bytes were altered, are of another kind or a newer
    /// format, or were sealed with a key that the keyring does not have.
    pub fn open(keyring: &Keyring, sealed: &[u8]) -> Result<Self, Error> {
        Ok(Self(Box::new(sealed::open(keyring, &[], sealed)?)))
    }
}

impl fmt::Debug for IssuedTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("IssuedTokens")
            .field("issuer", &self.0.issuer)
            .field("client_id", &self.0.client_id)
            .field("received_at", &self.0.received_at)
            .field("issued_token_type", &self.0.issued_token_type)
            .field("is_sender_constrained", &self.is_sender_constrained())
            .finish_non_exhaustive()
    }
}
