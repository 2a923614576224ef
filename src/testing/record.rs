//! The recorded requests, and the rules that they broke.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

/// The endpoints of a [`TestProvider`](super::TestProvider), as recorded and as targets of a [`Fault`](super::Fault).
///
/// Token requests are distinguished by kind; [`Token`](Self::Token) stands for all of them.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// The metadata documents.
    Metadata,
    /// The key set.
    Keys,
    /// The authorization endpoint.
    Authorization,
    /// Every request to the token endpoint. In a record, a token request of unknown kind.
    Token,
    /// A Deferred Code Exchange Request.
    Exchange,
    /// A Token Request with a `deferred_auth_id`, with a `deferral_code` in the IETF dialect, or with an `auth_req_id` in
    /// CIBA.
    Poll,
    /// A Token Request with an ordinary `code`. In the IETF dialect it may be deferred.
    Code,
    /// A token request of a client for itself (IETF dialect). It may be deferred.
    ClientCredentials,
    /// A token exchange (RFC 8693; IETF dialect). It may be deferred.
    TokenExchange,
    /// A token request with a JWT as its grant (RFC 7523; IETF dialect). It may be deferred.
    JwtBearer,
    /// A Token Request with a refresh token.
    Refresh,
    /// The Authentication Cancellation Endpoint.
    Cancellation,
    /// The UserInfo endpoint.
    UserInfo,
    /// A protected resource that returns the request.
    Resource,
    /// The revocation endpoint.
    Revocation,
    /// The introspection endpoint.
    Introspection,
    /// The pushed authorization request endpoint (RFC 9126).
    PushedAuthorization,
    /// The backchannel authentication endpoint (CIBA).
    BackchannelAuthentication,
    /// The client registration endpoint (RFC 7591).
    Registration,
    /// The configuration endpoint of a client that registered itself (RFC 7592).
    ClientConfiguration,
    /// The pages for users of `interaction_uri` (IETF dialect).
    Interaction,
    /// The end-session endpoint (OpenID Connect RP-Initiated Logout 1.0).
    EndSession,
    /// Anything else.
    Unknown,
}

impl Endpoint {
    pub(super) fn covers(self, other: Self) -> bool {
        self == other || (self == Self::Token && other.is_token())
    }

    /// Whether it is a kind of token request.
    pub(super) fn is_token(self) -> bool {
        matches!(self, Self::Token | Self::Exchange | Self::Poll | Self::Code | Self::Refresh)
            || matches!(self, Self::ClientCredentials | Self::TokenExchange | Self::JwtBearer)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Metadata => "metadata",
            Self::Keys => "key set",
            Self::Authorization => "authorization",
            Self::Token => "token",
            Self::Exchange => "deferred code exchange",
            Self::Poll => "poll",
            Self::Code => "code exchange",
            Self::ClientCredentials => "client credentials",
            Self::TokenExchange => "token exchange",
            Self::JwtBearer => "JWT bearer",
            Self::Refresh => "refresh",
            Self::Cancellation => "cancellation",
            Self::UserInfo => "UserInfo",
            Self::Resource => "resource",
            Self::Revocation => "revocation",
            Self::Introspection => "introspection",
            Self::PushedAuthorization => "pushed authorization request",
            Self::BackchannelAuthentication => "backchannel authentication",
            Self::Registration => "registration",
            Self::ClientConfiguration => "client configuration",
            Self::Interaction => "interaction",
            Self::EndSession => "end session",
            Self::Unknown => "unknown",
        })
    }
}

/// One request and its answer. It contains every secret that was sent.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// Counts from 1 in the order of arrival.
    pub number: usize,
    /// The endpoint that it was sent to.
    pub endpoint: Endpoint,
    /// The time of arrival by the provider's wall clock.
    pub at: SystemTime,
    /// The time of arrival by the provider's monotonic clock.
    pub arrived: Duration,
    /// The method.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The parameters of the query, or of the form in the body, in order.
    pub parameters: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The client certificate of the connection in DER, if one was presented.
    pub client_certificate: Option<Bytes>,
    /// The status of the response. `None` if there is none yet, or if the connection was reset or stalled.
    pub status: Option<u16>,
    /// The headers of the response.
    pub response_headers: HeaderMap,
    /// The body of the response, or the beginning of an endless one.
    pub response_body: Bytes,
    /// The name of the fault that the test requested, if any.
    pub fault: Option<String>,
}

impl RecordedRequest {
    /// A parameter of the request.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header of the request, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The response as JSON; `null` if it is not JSON.
    pub fn response_json(&self) -> Value {
        serde_json::from_slice(&self.response_body).unwrap_or_default()
    }

    /// The OAuth error code of the response, if it has one.
    pub fn error(&self) -> Option<String> {
        Some(self.response_json().get("error")?.as_str()?.to_owned())
    }
}

/// The requests so far, or the last ones up to the limit.
#[derive(Default)]
pub(super) struct Log {
    kept: VecDeque<RecordedRequest>,
    forgotten: usize,
    limit: Option<usize>,
}

impl Log {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn next_number(&self) -> usize {
        self.forgotten + self.kept.len() + 1
    }

    pub(super) fn push(&mut self, request: RecordedRequest) {
        self.kept.push_back(request);
        while self.limit.is_some_and(|limit| self.kept.len() > limit) {
            self.kept.pop_front();
            self.forgotten += 1;
        }
    }

    pub(super) fn get(&self, number: usize) -> Option<&RecordedRequest> {
        self.kept.get(number.checked_sub(self.forgotten + 1)?)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut RecordedRequest> {
        self.kept.get_mut(number.checked_sub(self.forgotten + 1)?)
    }

    pub(super) fn all(&self) -> Vec<RecordedRequest> {
        self.kept.iter().cloned().collect()
    }
}

/// Declares [`RequestRule`] together with its texts.
macro_rules! rules {
    ($($rule:ident = $text:literal, $section:literal;)*) => {
        /// A rule that a request to the provider can break.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RequestRule {
            $(#[doc = concat!($text, ": ", $section, ".")] $rule,)*
        }

        impl RequestRule {
            /// The section that defines the rule.
            pub fn section(self) -> &'static str {
                match self { $(Self::$rule => $section,)* }
            }

            fn text(self) -> &'static str {
                match self { $(Self::$rule => $text,)* }
            }
        }
    };
}

rules! {
    UnknownEndpoint = "nothing is served at this URL", "RFC 8414 §2";
    WrongMethod = "the endpoint does not allow this method", "RFC 6749 §3.2";
    WrongContentType = "the body is not a form", "RFC 6749 §3.2";
    RepeatedParameter = "a parameter occurs more than once in the request", "RFC 6749 §3.2";
    MissingParameter = "a required parameter is missing", "RFC 6749 §5.2";
    InvalidParameter = "a parameter has an invalid value", "RFC 6749 §5.2";
    UnsupportedGrantType = "the grant type is unknown", "RFC 6749 §5.2";
    TokenInQuery = "the URL contains a credential", "RFC 6749 §2.3.1; RFC 6750 §5.3";
    UnneededCredential = "a credential was sent to an endpoint that needs none", "OpenID Connect Discovery 1.0 §4.1";

    UnknownClient = "the client is not registered", "RFC 6749 §2.2";
    WrongRedirectUri = "the redirect URI is not registered", "OpenID Connect Core 1.0 §3.1.2.1";
    WrongResponseType = "the metadata does not list the response type", "DTR §Authentication Request; RFC 6749 §3.1.1";
    NoOpenidScope = "`openid` is not in the scope", "OpenID Connect Core 1.0 §3.1.2.1";
    NoPkce = "there is no PKCE challenge with `S256`", "RFC 9700 §2.1.1";
    WrongVerifier = "the `code_verifier` does not match the challenge", "RFC 7636 §4.6";

    ClientAuthentication = "the client authentication is invalid or not the registered one", "OpenID Connect Core 1.0 §9";
    SeveralAuthentications = "the client authenticates in more than one way", "RFC 6749 §2.3";
    AssertionInvalid = "the client assertion is invalid", "RFC 7523 §3";
    AssertionReplayed = "the client assertion's `jti` was used before", "OpenID Connect Core 1.0 §9";

    FapiAuthentication = "the client authenticates with a method that FAPI 2.0 does not allow", "FAPI 2.0 Security Profile §5.3.2";
    FapiAlgorithm = "a signature uses an algorithm that FAPI 2.0 does not allow", "FAPI 2.0 Security Profile §5.4";

    CertificateMissing = "no client certificate was presented", "RFC 8705 §3";
    CertificateChanged = "the client certificate is not the one that the access token is bound to", "RFC 8705 §3";
    DpopWithCertificate = "there is a DPoP proof although the client's tokens are bound to its certificate", "RFC 8705 §3; RFC 9449 §5";
    AliasIgnored = "a client with a certificate called an endpoint that has an mTLS alias under its other URL", "RFC 8705 §5";
    AliasWithoutCertificate = "an mTLS alias was called without a client certificate", "RFC 8705 §5";

    NotPushed = "the authorization request was not pushed, although the client must push it", "RFC 9126 §5";
    UnknownRequestUri = "the `request_uri` is unknown, was used before, has expired or belongs to another client", "RFC 9126 §4";
    ParameterBesideRequestUri = "the authorization request has more than `client_id` and `request_uri`", "RFC 9126 §4";

    NotSigned = "the authorization or backchannel authentication request is not signed, although the client must sign it", "RFC 9101 §10.5; CIBA §7.1.1";
    RequestObjectInvalid = "the request object is invalid", "RFC 9101 §6; FAPI 2.0 Message Signing §5.3.1";
    RequestObjectReplayed = "the request object's `jti` was used before", "RFC 7519 §4.1.7";
    ParameterBesideRequest = "the request has parameters beside the request object and the client's authentication", "RFC 9101 §5; RFC 9126 §3; CIBA §7.1.1";

    UnknownCode = "the code was never issued", "DTR §Deferred Code Exchange Request Validation";
    CodeReplayed = "the code was used before", "DTR §Deferred Code Exchange Request Validation";
    ForeignGrant = "the grant was issued to another client", "DTR §Deferred Code Exchange Request Validation";
    RedirectUriChanged = "the `redirect_uri` is not the one of the authorization request", "RFC 6749 §4.1.3";
    UnknownDeferredAuthId = "the `deferred_auth_id` was never issued", "DTR §Token Request Validation";
    PolledTooEarly = "the poll came before the interval had passed", "DTR §Successful Deferred Code Exchange Response";
    RetryAfterIgnored = "the poll came before the end of the pause in `Retry-After`", "RFC 9110 §10.2.3";
    PolledInParallel = "two polls for one sign-in were in flight at the same time", "DTR §Successful Deferred Code Exchange Response";
    PolledAfterEnd = "the sign-in had already ended, and the client had been told", "DTR §Token Request Error Response";
    CompletionMode = "`completion_mode` has another value than `deferred`", "IETF DTR §Client Opt-In Signaling";
    HintDropped = "the authorization request has `completion_mode`, and the token request does not", "IETF DTR §Client Opt-In Signaling";
    NotificationToken = "the `client_notification_token` is no bearer token of 128 bits or more, or was used before", "IETF DTR §Client Opt-In Signaling";
    InitialParameterOnPoll = "a poll has a parameter that belongs to the initial request", "IETF DTR §Token Endpoint — Polling";
    UnknownDeferralCode = "the `deferral_code` was never issued", "IETF DTR §Token Endpoint — Polling";
    CodeRevocationUnlisted = "a deferral code was revoked, and the metadata does not list its type", "IETF DTR §Cancellation";
    UnknownInteraction = "the interaction URI was never issued", "IETF DTR §Token Endpoint — Deferred Response";
    ClientNotConfidential = "a client that does not authenticate asks for a token for itself, or names a user", "RFC 6749 §4.4; CIBA §7";
    SubjectTokenInvalid = "the subject token or actor token is unknown, or of another type", "RFC 8693 §2.1";
    GrantAssertionInvalid = "the JWT that is the grant is invalid", "RFC 7523 §3";
    GrantAssertionReplayed = "the `jti` of the JWT that is the grant was used before", "RFC 7523 §3";

    NotOneHint = "the backchannel authentication request has no hint or several", "CIBA §7.1";
    ClientNotificationToken = "the `client_notification_token` is no bearer token of 128 bits or more, or the client is in poll mode", "CIBA §7.1";
    UnknownAuthReqId = "the `auth_req_id` was never issued", "CIBA §11";

    IdTokenHint = "the `id_token_hint` is no ID Token of this provider, or one of another client", "OpenID Connect RP-Initiated Logout 1.0 §2";
    WrongPostLogoutRedirectUri = "the `post_logout_redirect_uri` is not registered", "OpenID Connect RP-Initiated Logout 1.0 §3";

    UnknownRefreshToken = "the refresh token is unknown or revoked", "RFC 6749 §6";
    RefreshTokenReplayed = "the refresh token was used before, and has been replaced", "RFC 9700 §4.14.2";

    DpopMissing = "a required DPoP proof is missing", "RFC 9449 §5; DTR §Token Request Validation";
    DpopInvalid = "the DPoP proof is invalid", "RFC 9449 §4.3";
    DpopReplayed = "the DPoP proof's `jti` was used before", "RFC 9449 §11.1";
    DpopPrivateKey = "the DPoP proof contains a private key", "RFC 9449 §4.2";
    DpopKeyChanged = "the DPoP key is not the one that the grant or token is bound to", "DTR §Token Request Validation";
    DpopKeyReused = "the DPoP key was already used for another sign-in", "DTR §Deferred Code Exchange Request";
    DpopNonceUnknown = "the DPoP nonce is not from this provider", "RFC 9449 §8";
    DpopNonceOfOtherRole = "the DPoP nonce is from the other role of this provider", "RFC 9449 §9";

    ClientMetadata = "the client metadata cannot be registered", "RFC 7591 §2; DTR §Client Registration Metadata";
    InitialAccessToken = "the initial access token is missing or unknown", "RFC 7591 §3";
    RegistrationAccessToken = "the registration access token is missing or not the client's", "RFC 7592 §2";
    RegistrationAccessTokenReplaced = "the registration access token had been replaced by a newer one", "RFC 7592 §3";
    NotRegisteredForThis = "the client is not registered for this response type or grant type", "RFC 7591 §2";
    ClientSecretExpired = "the client secret has expired", "RFC 7591 §3.2.1";

    AccessTokenInvalid = "the access token is missing, unknown, expired or revoked", "RFC 6750 §3.1";
    AccessTokenScheme = "the access token has the wrong authorization scheme", "RFC 9449 §7.1";
}

impl fmt::Display for RequestRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

/// A [`RequestRule`] that a request broke.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestViolation {
    /// The rule.
    pub rule: RequestRule,
    /// The [number](RecordedRequest::number) of the request.
    pub request: usize,
    /// The endpoint of the request.
    pub endpoint: Endpoint,
    /// The exact problem.
    pub detail: String,
}

impl fmt::Display for RequestViolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "request {} ({}): {}", self.request, self.endpoint, self.rule)?;
        if !self.detail.is_empty() {
            write!(formatter, ": {}", self.detail)?;
        }
        write!(formatter, " [{}]", self.rule.section())
    }
}
