//! The result of an approved sign-in.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::refreshed::Refreshed;
use crate::clock::saturating_add;
use crate::dpop::DpopKey;
use crate::error::Error;
use crate::id_token::{Claims, IdToken, InterimFingerprint};
use crate::keyring::{Keyring, Purpose};
use crate::random::SystemRandom;
use crate::sealed::{self, Sealable};
use crate::secret::Secret;

/// A user whom the OP has authenticated, with the tokens of this sign-in.
///
/// All of it was verified. [`claims`](Self::claims) says who the user is, and `Client::userinfo` fetches further
/// claims. `Client::resource` calls an API with the access token and the key that it is bound to, and `Client::refresh`
/// gets a new access token. [Seal](Self::seal) it if the tokens are needed later: that includes the key that they are
/// bound to.
pub struct Authentication(Box<Body>);

#[derive(Serialize, Deserialize)]
pub(crate) struct Body {
    #[serde(rename = "v")]
    pub(super) version: u8,
    #[serde(rename = "iss")]
    pub(super) issuer: String,
    #[serde(rename = "cid")]
    pub(super) client_id: String,
    #[serde(rename = "t", with = "sealed::seconds")]
    pub(super) received_at: SystemTime,
    #[serde(rename = "idt", with = "sealed::id_token")]
    pub(super) id_token: IdToken,
    #[serde(rename = "at", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(super) access_token: Option<Secret>,
    #[serde(rename = "tt")]
    pub(super) token_type: TokenType,
    #[serde(rename = "rt", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<Secret>,
    #[serde(rename = "exp", default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_in: Option<Duration>,
    #[serde(rename = "scp", default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
    /// The OP sent a scope that cannot be read.
    #[serde(rename = "scu", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) scope_unknown: bool,
    #[serde(rename = "ad", default, skip_serializing_if = "Option::is_none")]
    pub(super) authorization_details: Option<Value>,
    #[serde(rename = "ext", default, skip_serializing_if = "Map::is_empty")]
    pub(super) extra: Map<String, Value>,
    #[serde(rename = "key", with = "sealed::dpop_key", default, skip_serializing_if = "Option::is_none")]
    pub(super) dpop_key: Option<DpopKey>,
    /// The client was registered for tokens that are bound to its certificate.
    #[serde(rename = "crt", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) certificate_bound: bool,
    #[serde(rename = "cnl", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) after_cancellation: bool,
    #[serde(rename = "ctx", with = "sealed::secret_bytes", default, skip_serializing_if = "sealed::no_bytes")]
    pub(super) context: Zeroizing<Vec<u8>>,
    /// The newest ID Token from a refresh. That of the sign-in is kept, because later ones are compared with it.
    #[serde(rename = "rid", with = "sealed::optional_id_token", default, skip_serializing_if = "Option::is_none")]
    pub(super) refreshed_id_token: Option<IdToken>,
    /// Recognises the interim ID Token if a refresh returns it. Values that version 0.1.0 sealed have none.
    #[serde(rename = "ifp", default, skip_serializing_if = "Option::is_none")]
    pub(super) interim_fingerprint: Option<InterimFingerprint>,
    /// The answer to a refresh that cannot be validated yet. The OP may send it only once.
    #[serde(rename = "rfr", default, skip_serializing_if = "Option::is_none")]
    pub(super) refreshed: Option<Refreshed>,
}

impl Sealable for Body {
    const PURPOSE: Purpose = Purpose::Authentication;
    const VERSION: u8 = 1;

    fn version(&self) -> u8 {
        self.version
    }
}

/// What an OP said about the scopes that it granted.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantedScope<'a> {
    /// It said nothing, so all requested scopes were granted (RFC 6749 §5.1).
    AsRequested,
    /// These scopes, separated by spaces. An array of strings is accepted too.
    Listed(&'a str),
    /// It sent a scope that names none: an empty text, an empty array or a number. Do not count on any scope.
    Unknown,
}

/// How an access token is presented (RFC 6749 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TokenType {
    #[serde(rename = "d")]
    Dpop,
    #[serde(rename = "b")]
    Bearer,
}

impl TokenType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Dpop => "DPoP",
            Self::Bearer => "Bearer",
        }
    }
}

impl<'a> GrantedScope<'a> {
    /// What a token response said, by its member `scope`.
    pub(super) fn of(listed: Option<&'a str>) -> Self {
        match listed {
            Some(scope) => Self::Listed(scope),
            None => Self::AsRequested,
        }
    }
}

impl Authentication {
    pub(super) fn new(body: Body) -> Self {
        Self(Box::new(body))
    }

    pub(super) fn into_body(self) -> Box<Body> {
        self.0
    }

    pub(super) fn from_body(body: Box<Body>) -> Self {
        Self(body)
    }

    pub(super) fn body(&self) -> &Body {
        &self.0
    }

    #[cfg(any(fuzzing, test))]
    pub(crate) fn body_for_fuzzing(&self) -> &Body {
        &self.0
    }

    pub(super) fn body_mut(&mut self) -> &mut Body {
        &mut self.0
    }

    /// Sets the context that the application gave when the sign-in was started.
    pub(crate) fn with_context(mut self, context: Zeroizing<Vec<u8>>) -> Self {
        self.0.context = context;
        self
    }

    /// What the application gave to [`context`](super::AuthorizationRequest::context) when the sign-in was started.
    pub fn context(&self) -> &[u8] {
        &self.0.context
    }

    /// The verified claims of the final ID Token.
    pub fn claims(&self) -> &Claims {
        self.0.id_token.claims()
    }

    /// The final ID Token of the sign-in.
    pub fn id_token(&self) -> &IdToken {
        &self.0.id_token
    }

    /// The ID Token of the latest [refresh](super::Client::refresh) that returned one. It is about the same user and
    /// the same authentication as [`id_token`](Self::id_token). Its other claims are newer, and there may be fewer of
    /// them.
    pub fn refreshed_id_token(&self) -> Option<&IdToken> {
        self.0.refreshed_id_token.as_ref()
    }

    /// The access token.
    ///
    /// It is `None` if the OP sent none, if its `token_type` is missing or unknown (RFC 6749 §7.1 forbids using such a
    /// token), and if it is not sender-constrained and the client is set to drop such tokens.
    pub fn access_token(&self) -> Option<&Secret> {
        self.0.access_token.as_ref()
    }

    /// The refresh token, if the OP gave one.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.0.refresh_token.as_ref()
    }

    /// When the tokens were received: with the sign-in, or with the latest refresh.
    pub fn received_at(&self) -> SystemTime {
        self.0.received_at
    }

    /// When the access token expires, if the OP said so.
    pub fn access_token_expires_at(&self) -> Option<SystemTime> {
        self.0.expires_in.map(|lifetime| saturating_add(self.0.received_at, lifetime))
    }

    /// The scopes that the OP listed as granted, separated by spaces. `None` does not tell whether the requested scopes
    /// were granted; [`granted_scope`](Self::granted_scope) does.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope.as_deref()
    }

    /// What the OP said about the scopes that it granted (RFC 6749 §5.1), with the sign-in or with the latest refresh
    /// that said something about them.
    pub fn granted_scope(&self) -> GrantedScope<'_> {
        match self.0.scope_unknown {
            true => GrantedScope::Unknown,
            false => GrantedScope::of(self.0.scope.as_deref()),
        }
    }

    /// The type of the access token (RFC 6749 §7.1): `DPoP` or `Bearer`, in this spelling. `None` if there is no
    /// [`access_token`](Self::access_token).
    ///
    /// A token of type `DPoP` without a [`dpop_key`](Self::dpop_key) means that the OP was sent no proof and answered
    /// as if it had received one. The identity is valid, but the token cannot be used:
    /// [`Client::resource`](super::Client::resource) and [`Client::userinfo`](super::Client::userinfo) refuse it with
    /// [`Misuse::NoDpopKey`](crate::error::Misuse::NoDpopKey).
    pub fn token_type(&self) -> Option<&'static str> {
        self.0.access_token.as_ref().map(|_| self.0.token_type.as_str())
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
    /// was [registered](crate::ClientBuilder::certificate_bound_access_tokens) (RFC 8705 §3). A thief of such a token
    /// cannot use it without the key. If `false`, it is a bearer token, or a token of [type](Self::token_type) `DPoP`
    /// that is bound to no key of this application.
    pub fn is_sender_constrained(&self) -> bool {
        let key_bound = self.0.token_type == TokenType::Dpop && self.0.dpop_key.is_some();
        self.0.access_token.is_some() && (key_bound || self.0.certificate_bound)
    }

    /// The key that this sign-in was bound to from its first request.
    pub fn dpop_key(&self) -> Option<&DpopKey> {
        self.0.dpop_key.as_ref()
    }

    /// Whether the OP approved the sign-in after the application had cancelled it, because the two messages crossed.
    pub fn is_after_cancellation(&self) -> bool {
        self.0.after_cancellation
    }

    pub(super) fn came_after_cancellation(&mut self) {
        self.0.after_cancellation = true;
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

impl fmt::Debug for Authentication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Authentication")
            .field("id_token", &self.0.id_token)
            .field("received_at", &self.0.received_at)
            .field("is_sender_constrained", &self.is_sender_constrained())
            .field("has_refresh_token", &self.0.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}
