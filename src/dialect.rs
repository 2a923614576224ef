//! The protocols by which an OP defers its answer, and everything in which they differ.
//!
//! Each protocol has one file with its names, its first answer and its peculiarities. The rest of the crate asks the
//! [`Dialect`] and knows none of these.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Document, Rule, Violation};
use crate::json::seconds::{Rounding, check_seconds, seconds};
use crate::secret::Secret;

mod ciba;
mod ietf;
mod interim;
mod openid;
mod response_type;

pub(crate) use interim::InterimMembers;
pub use response_type::ResponseType;

/// The grant type of an authorization code (RFC 6749 §4.1.3).
pub(crate) const CODE_GRANT: &str = "authorization_code";

/// The protocol by which an OP defers its answer.
///
/// All work the same way: the client gets an identifier, polls the token endpoint with it, and may be notified. The
/// names differ, and so does what can be deferred. For sign-ins in a browser, a [`Client`](crate::Client) chooses between
/// the two drafts by the OP's metadata, unless [`ClientBuilder::dialect`](crate::ClientBuilder::dialect) sets the
/// dialect. An application that only signs users in needs no code of its own for either. [`Ciba`](Self::Ciba) begins
/// without a browser, with [`Client::backchannel_authentication`](crate::Client::backchannel_authentication).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Dialect {
    /// OpenID Connect Deferred Token Response (cited as DTR): the OP issues a `deferred_code` at the authorization
    /// endpoint, so only sign-ins can be deferred.
    #[default]
    #[serde(rename = "openid")]
    OpenId,
    /// OAuth 2.0 Deferred Token Response (draft-ietf-oauth-deferred-token-response-01, cited as IETF DTR): the OP
    /// answers a token request of any grant with a `deferral_code`. During the wait it may need the user again, at an
    /// [`interaction_uri`](crate::PendingAuthentication::interaction_uri).
    #[serde(rename = "ietf")]
    Ietf,
    /// OpenID Connect Client-Initiated Backchannel Authentication Flow Core 1.0 (cited as CIBA): the client names the
    /// user to the OP, which asks them on another device, such as their phone. The OP issues an `auth_req_id` at its
    /// backchannel authentication endpoint.
    #[serde(rename = "ciba")]
    Ciba,
}

impl Dialect {
    pub(crate) const ALL: [Self; 3] = [Self::OpenId, Self::Ietf, Self::Ciba];

    /// The dialects of sign-ins that begin in a browser, in the order in which they are preferred if an OP advertises
    /// several.
    pub(crate) const OF_BROWSERS: [Self; 2] = [Self::OpenId, Self::Ietf];

    /// The rules of this dialect.
    pub(crate) fn protocol(self) -> &'static dyn Protocol {
        match self {
            Self::OpenId => &openid::OpenId,
            Self::Ietf => &ietf::Ietf,
            Self::Ciba => &ciba::Ciba,
        }
    }

    /// The first dialect that the OP's metadata advertises.
    pub(crate) fn advertised(metadata: &Map<String, Value>) -> Option<Self> {
        Self::OF_BROWSERS.into_iter().find(|dialect| dialect.protocol().is_advertised(metadata))
    }

    /// Whether the OpenID dialect applies, which stored values do not name.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The rules in which a dialect differs from the others. A dialect says nothing about what it does not have: a method with
/// a body describes a dialect without that feature.
pub(crate) trait Protocol: Sync {
    /// The grant type of polls.
    fn grant_type(&self) -> &'static str;

    /// The name of the identifier of a pending sign-in: a member of the first answer and of callbacks, and a parameter
    /// of polls.
    fn identifier(&self) -> &'static str;

    /// The parameter with the bearer token that the OP is to present in callbacks.
    fn notification_token(&self) -> &'static str;

    /// Where a request begins that the OP may defer.
    fn initial_endpoint(&self) -> InitialEndpoint {
        InitialEndpoint::Token
    }

    /// Whether the OP's metadata advertises the dialect for sign-ins in a browser.
    fn is_advertised(&self, metadata: &Map<String, Value>) -> bool;

    /// The value of the parameter `response_type`.
    fn response_type(&self, kind: ResponseType) -> &'static str;

    /// The response type whose codes the authorization response may have.
    fn codes(&self, kind: ResponseType) -> ResponseType;

    /// The grant type that the OP's metadata must list for a response type.
    fn required_grant_type(&self, kind: ResponseType) -> &'static str;

    /// The grant types that must be registered with a response type (RFC 7591 §2.1).
    fn grant_types(&self, kind: ResponseType) -> &'static [&'static str];

    /// The parameter by which a request allows the OP to defer its answer.
    fn opt_in(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// Whether an answer to the first token request defers the tokens: a success, or an error with this code.
    fn defers(&self, error: Option<&str>) -> bool;

    /// Reads an answer that [defers](Self::defers) the tokens.
    fn deferral(&self, body: &[u8], invalid_times: InvalidTimes) -> Result<Deferral, Violation>;

    /// Whether the first answer may have an early access token, which polls can present.
    fn has_early_access_token(&self) -> bool {
        false
    }

    /// Whether this error code of a poll means that the OP has not decided, besides `authorization_pending` and
    /// `slow_down`.
    fn is_pending(&self, _code: &str) -> bool {
        false
    }

    /// What a pending answer says about the interaction of the user.
    fn interaction(&self, _code: &str, _body: &[u8]) -> Interaction {
        Interaction::Unmentioned
    }

    /// Whether each request needs a notification token of its own.
    fn needs_fresh_notification_tokens(&self) -> bool {
        false
    }

    /// Whether a client that authenticates with this method must bind its requests to a DPoP key.
    fn binding(&self, _method: &str) -> Binding {
        Binding::Optional
    }

    /// How the client tells the OP that the outcome is no longer wanted.
    fn cancellation(&self) -> Cancellation;

    /// The version of stored values of this dialect. Older releases, which do not know the dialect, must not open them.
    fn stored_version(&self) -> u8;
}

/// The first answer to a token request that the OP defers.
pub(crate) struct Deferral {
    pub(crate) identifier: Secret,
    pub(crate) times: Times,
    /// Empty in dialects without interim ID Tokens.
    pub(crate) interim: InterimMembers,
    /// The early access token, if there is one.
    pub(crate) access_token: Option<Secret>,
    pub(crate) interaction: Interaction,
}

/// The parsed times of the first answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) interval: Option<Duration>,
    pub(crate) expires_in: Option<Duration>,
}

/// What happens to an answer whose times are not positive integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidTimes {
    /// They count as absent where they cannot be interpreted, because refusing the answer would lose the identifier.
    Tolerated,
    /// The answer is refused.
    Refused,
}

impl Times {
    /// Reads `interval` and `expires_in`.
    fn read(members: &Map<String, Value>, invalid_times: InvalidTimes, document: Document) -> Result<Self, Violation> {
        let member = |name: &str| members.get(name).filter(|value| !value.is_null());
        let (interval, expires_in) = (member("interval"), member("expires_in"));
        if invalid_times == InvalidTimes::Refused {
            check_seconds(interval, "interval", document)?;
            check_seconds(expires_in, "expires_in", document)?;
        }
        Ok(Self {
            interval: seconds(interval, "interval", Rounding::Up),
            expires_in: seconds(expires_in, "expires_in", Rounding::Down),
        })
    }
}

/// Removes the identifier from a deferred response. `missing` is the rule that a response without one breaks.
fn take_identifier(
    members: &mut Map<String, Value>,
    name: &'static str,
    missing: Rule,
    document: Document,
) -> Result<Secret, Violation> {
    match members.shift_remove(name) {
        None | Some(Value::Null) => Err(Violation::new(missing).in_document(document)),
        Some(Value::String(identifier)) if !identifier.is_empty() => Ok(Secret::new(identifier)),
        Some(_) => Err(Violation::new(Rule::InvalidMember).in_document(document).at_member(name)),
    }
}

/// What an answer says about the interaction of the user with the OP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interaction {
    /// Nothing. An earlier URI stays valid.
    Unmentioned,
    /// The user should open this URI. It has not been checked.
    At(Secret),
    /// The user has opened the URI, which works once.
    Begun,
}

/// Whether requests are bound to a DPoP key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    Required,
    Recommended,
    Optional,
}

/// The endpoint of a request that the OP may defer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitialEndpoint {
    /// The request presents a grant, such as a code.
    Token,
    /// The request names a user. It presents nothing that can be used up (CIBA §7).
    BackchannelAuthentication,
}

/// How a pending sign-in is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancellation {
    /// Not at all.
    Undefined,
    /// At an endpoint without a metadata name, which has to be configured. The request has the identifier.
    AtEndpoint,
    /// By revocation of the identifier as a token of this type (RFC 7009), if the metadata lists the type.
    ByRevocation { token_type: &'static str },
}

/// The names of the members of a body, of which nothing else is copied.
type Names<'a> = BTreeMap<Cow<'a, str>, IgnoredAny>;

impl Dialect {
    /// Whether the body of a success has the identifier and no access token.
    pub(crate) fn has_only_an_identifier(self, body: &[u8]) -> bool {
        let has_only_it =
            |names: Names| names.contains_key(self.protocol().identifier()) && !names.contains_key("access_token");
        serde_json::from_slice::<Names>(body).is_ok_and(has_only_it)
    }
}

/// Whether the body of a token response defers the tokens, in any dialect. An unreadable body counts as one, because
/// nothing in it can be revoked.
pub(crate) fn is_deferral(body: &[u8]) -> bool {
    let has_identifier =
        |names: &Names| Dialect::ALL.into_iter().any(|dialect| names.contains_key(dialect.protocol().identifier()));
    serde_json::from_slice::<Names>(body).map_or(true, |names| has_identifier(&names))
}
