//! The settings of a client, with the defaults that this crate recommends.

use std::time::{Duration, SystemTime};

use super::algorithms::ClientAlgorithms;
use super::delivery_mode::DeliveryMode;
use super::response_mode::ResponseMode;
use super::setting::setting;
use crate::dialect::{Dialect, InvalidTimes, ResponseType};
use crate::dpop::DpopKey;
use crate::error::Error;
use crate::jose::DecryptionKey;
use crate::pending::FINAL_POLL_MARGIN;
use crate::secret::Secret;

/// All settings except the identity of the client and of the OP. Each has a setter on the builder.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `None` if the OP's metadata decides.
    pub(crate) dialect: Option<Dialect>,
    pub(crate) without_deferral_hint: bool,
    /// The client signs no user in.
    pub(crate) without_redirect_uri: bool,
    pub(crate) response_type: ResponseType,
    pub(crate) response_mode: Option<ResponseMode>,
    pub(crate) algorithms: ClientAlgorithms,
    pub(crate) request_timeout: Duration,
    pub(crate) poll_timeout: Duration,
    pub(crate) leeway: Duration,
    pub(crate) session_lifetime: Duration,
    pub(crate) post_logout_redirect_uri: Option<String>,
    pub(crate) decryption_keys: Vec<DecryptionKey>,
    pub(crate) trusted_audiences: Vec<String>,
    pub(crate) default_max_age: Option<Duration>,
    pub(crate) require_auth_time: bool,
    pub(crate) notification_token: Option<Secret>,
    /// `None` if it was not set.
    pub(crate) dpop: Option<DpopMode>,
    pub(crate) certificate_bound_access_tokens: bool,
    pub(crate) pushed_authorization_requests: bool,
    pub(crate) require_signed_request_object: bool,
    pub(crate) poll_credential: PollCredential,
    pub(crate) send_trace_parent: bool,
    pub(crate) without_pkce: bool,
    pub(crate) without_redirect_uri_in_exchange: bool,
    pub(crate) allow_changed_subject: bool,
    pub(crate) strict_times: bool,
    pub(crate) backoff: Backoff,
    pub(crate) give_up_after: Option<Duration>,
    pub(crate) final_poll_margin: Option<Duration>,
    pub(crate) allow_unadvertised: bool,
    pub(crate) strict_response_types: bool,
    pub(crate) allow_immediate_answer: bool,
    pub(crate) cancellation_endpoint: Option<String>,
    pub(crate) drop_unbound_tokens: bool,
    /// Set if the client was made from a registration that contains it.
    pub(crate) secret_expires_at: Option<SystemTime>,
    pub(crate) fapi: Option<FapiProfile>,
    /// `None` if it was not set, which means `poll` (CIBA §4).
    pub(crate) backchannel_delivery: Option<DeliveryMode>,
    pub(crate) signed_backchannel_requests: bool,
    /// The rules of FAPI-CIBA for backchannel authentication.
    pub(crate) fapi_ciba: bool,
}

pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A poll has its own timeout because an OP may hold it open until something happens.
const POLL_TIMEOUT: Duration = Duration::from_secs(90);
const LEEWAY: Duration = Duration::from_secs(60);
const SESSION_LIFETIME: Duration = Duration::from_secs(60 * 60);

impl Default for Options {
    fn default() -> Self {
        Self {
            dialect: None,
            without_deferral_hint: false,
            without_redirect_uri: false,
            response_type: ResponseType::default(),
            request_timeout: REQUEST_TIMEOUT,
            poll_timeout: POLL_TIMEOUT,
            leeway: LEEWAY,
            session_lifetime: SESSION_LIFETIME,
            post_logout_redirect_uri: None,
            response_mode: None,
            algorithms: ClientAlgorithms::new(),
            decryption_keys: Vec::new(),
            trusted_audiences: Vec::new(),
            default_max_age: None,
            require_auth_time: false,
            notification_token: None,
            dpop: None,
            certificate_bound_access_tokens: false,
            pushed_authorization_requests: false,
            require_signed_request_object: false,
            poll_credential: PollCredential::ClientAuthentication,
            send_trace_parent: false,
            without_pkce: false,
            without_redirect_uri_in_exchange: false,
            allow_changed_subject: false,
            strict_times: false,
            backoff: Backoff::Fixed,
            give_up_after: None,
            final_poll_margin: Some(FINAL_POLL_MARGIN),
            allow_unadvertised: false,
            strict_response_types: false,
            allow_immediate_answer: false,
            cancellation_endpoint: None,
            drop_unbound_tokens: false,
            secret_expires_at: None,
            fapi: None,
            backchannel_delivery: None,
            signed_backchannel_requests: false,
            fapi_ciba: false,
        }
    }
}

impl Options {
    /// Which DPoP keys are used. If tokens are bound to the client certificate there are none: an OP that sees both may
    /// use up a grant and refuse the request.
    pub(crate) fn dpop(&self) -> &DpopMode {
        match &self.dpop {
            Some(mode) => mode,
            None if self.certificate_bound_access_tokens => &DpopMode::Off,
            None => &DpopMode::PerProcess,
        }
    }

    /// Refuses a client secret that is too short to be the key of a chosen HMAC.
    pub(super) fn check_hmac_secret(&self, secret: Option<&Secret>) -> Result<(), Error> {
        for (name, algorithm) in self.algorithms.signatures().filter(|(_, algorithm)| algorithm.is_symmetric()) {
            // OpenID Connect Core 1.0 §16.19: a secret used as an HMAC key must have at least as many octets as the
            // hash.
            if secret.is_none_or(|secret| secret.expose().len() < algorithm.hash().length()) {
                return Err(setting(name, "HMAC needs a client secret that is at least as long as its hash"));
            }
        }
        Ok(())
    }

    /// What happens to an answer whose times are invalid.
    pub(crate) fn invalid_times(&self) -> InvalidTimes {
        if self.strict_times { InvalidTimes::Refused } else { InvalidTimes::Tolerated }
    }

    /// Whether authorization requests are signed. Encryption requires a signature.
    pub(crate) fn signs_requests(&self) -> bool {
        self.require_signed_request_object || self.algorithms.request_object_encryption.is_some()
    }
}

/// Which DPoP keys a client uses (RFC 9449; DTR §Deferred Code Exchange Request).
#[non_exhaustive]
#[derive(Debug, Clone, Default)]
pub enum DpopMode {
    /// A new key for every sign-in, as the draft recommends: "the RP SHOULD ensure that a public key is not reused
    /// across different Authentication Processes".
    #[default]
    PerProcess,
    /// The same key for all sign-ins of the client, for OPs that must know it in advance. Anyone who gets this key can
    /// use the tokens of all users.
    Shared(DpopKey),
    /// No DPoP, for OPs that refuse requests with a proof. Tokens are then not bound to this application.
    Off,
}

/// The credential that a poll presents besides its DPoP proof.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PollCredential {
    /// The client's registered authentication method, as in every other request to the token endpoint
    /// (DTR §Token Request Validation, 2026-02).
    #[default]
    ClientAuthentication,
    /// The DPoP-bound access token of the exchange response, which the base draft requires literally: "this request
    /// MUST use the DPoP-secured Access Token". It cannot be combined with `client_secret_basic`, because a request has
    /// one `Authorization` header. DPoP must be on. Polls of the [IETF dialect](Dialect::Ietf), which has no such token,
    /// present the client's authentication.
    AccessToken,
}

/// The pause after an answer that the OP has not decided (DTR §Design Considerations for Poll and Ping).
///
/// A pause is never shorter than the OP's interval. One poll is always sent shortly before the end of the sign-in.
/// Failed polls have their own backoff.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backoff {
    /// One interval, as the OP requested.
    #[default]
    Fixed,
    /// One interval at first, then twice as long each time, up to a limit. It suits OPs that send pings: a ping brings
    /// the next poll forward, and the pause after that is one interval again.
    Growing {
        /// The longest pause, unless the OP's interval is longer.
        up_to: Duration,
    },
}

impl Backoff {
    pub(crate) fn longest_wait(self) -> Option<Duration> {
        match self {
            Self::Fixed => None,
            Self::Growing { up_to } => Some(up_to),
        }
    }
}

/// The audience of client assertions (RFC 7523 §3; OpenID Connect Core 1.0 §9).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AssertionAudience {
    /// The OP's issuer identifier as a single string, at every endpoint. Current profiles require it, because the
    /// assertion cannot be replayed elsewhere.
    #[default]
    Issuer,
    /// The URL of the token endpoint, at every endpoint, for OPs from before 2025. It is the `token_endpoint` of the
    /// OP's metadata, even if a client with a certificate calls its alias for mutual TLS. The name of the endpoint does
    /// not depend on the connection.
    TokenEndpoint,
    /// The URL of the endpoint that the assertion is sent to, for OPs that compare it with their own URL there. It
    /// differs at each endpoint: token, pushed authorization request, revocation, introspection and cancellation
    /// endpoint.
    Endpoint,
}

/// The FAPI 2.0 profile that a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FapiProfile {
    /// FAPI 2.0 Security Profile.
    Security,
    /// The Security Profile with signed requests and responses.
    MessageSigning,
}
