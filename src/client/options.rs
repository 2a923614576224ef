//! The choices of a client, with the defaults that this crate recommends.

use std::time::{Duration, SystemTime};

use super::response_mode::ResponseMode;
use super::response_type::ResponseType;
use crate::dpop::DpopKey;
use crate::id_token::RegisteredEncryption;
use crate::jose::{DecryptionKey, SigningAlgorithm};
use crate::pending::FINAL_POLL_MARGIN;
use crate::secret::Secret;

/// Everything that can be chosen beyond who the client is and whom it talks to. Each has a setter on the builder.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) response_type: ResponseType,
    pub(crate) response_mode: Option<ResponseMode>,
    pub(crate) authorization_signed_response_alg: Option<SigningAlgorithm>,
    pub(crate) authorization_response_encryption: RegisteredEncryption,
    pub(crate) request_timeout: Duration,
    pub(crate) poll_timeout: Duration,
    pub(crate) leeway: Duration,
    pub(crate) session_lifetime: Duration,
    pub(crate) id_token_signed_response_alg: Option<Vec<SigningAlgorithm>>,
    pub(crate) id_token_encryption: RegisteredEncryption,
    pub(crate) userinfo_signed_response_alg: Option<SigningAlgorithm>,
    pub(crate) userinfo_encryption: RegisteredEncryption,
    pub(crate) decryption_keys: Vec<DecryptionKey>,
    pub(crate) trusted_audiences: Vec<String>,
    pub(crate) default_max_age: Option<Duration>,
    pub(crate) require_auth_time: bool,
    pub(crate) notification_token: Option<Secret>,
    /// `None` where nothing was said.
    pub(crate) dpop: Option<DpopMode>,
    pub(crate) certificate_bound_access_tokens: bool,
    pub(crate) pushed_authorization_requests: bool,
    pub(crate) require_signed_request_object: bool,
    pub(crate) request_object_encryption: RegisteredEncryption,
    pub(crate) poll_credential: PollCredential,
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
    /// Where the client was made from a registration that says so.
    pub(crate) secret_expires_at: Option<SystemTime>,
    pub(crate) fapi: Option<FapiProfile>,
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// An OP may hold a poll open until something happens, which is why it has a timeout of its own.
const POLL_TIMEOUT: Duration = Duration::from_secs(90);
const LEEWAY: Duration = Duration::from_secs(60);
const SESSION_LIFETIME: Duration = Duration::from_secs(60 * 60);

impl Default for Options {
    fn default() -> Self {
        Self {
            response_type: ResponseType::default(),
            request_timeout: REQUEST_TIMEOUT,
            poll_timeout: POLL_TIMEOUT,
            leeway: LEEWAY,
            session_lifetime: SESSION_LIFETIME,
            response_mode: None,
            authorization_signed_response_alg: None,
            authorization_response_encryption: RegisteredEncryption::default(),
            id_token_signed_response_alg: None,
            id_token_encryption: RegisteredEncryption::default(),
            userinfo_signed_response_alg: None,
            userinfo_encryption: RegisteredEncryption::default(),
            decryption_keys: Vec::new(),
            trusted_audiences: Vec::new(),
            default_max_age: None,
            require_auth_time: false,
            notification_token: None,
            dpop: None,
            certificate_bound_access_tokens: false,
            pushed_authorization_requests: false,
            require_signed_request_object: false,
            request_object_encryption: RegisteredEncryption::default(),
            poll_credential: PollCredential::ClientAuthentication,
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
        }
    }
}

impl Options {
    /// Which DPoP keys are used. Where tokens are bound to the client certificate there are none: an OP that sees both
    /// may use up a grant and refuse.
    pub(crate) fn dpop(&self) -> &DpopMode {
        match &self.dpop {
            Some(mode) => mode,
            None if self.certificate_bound_access_tokens => &DpopMode::Off,
            None => &DpopMode::PerProcess,
        }
    }

    /// Whether authorization requests are signed. Only what is signed is encrypted.
    pub(crate) fn signs_requests(&self) -> bool {
        self.require_signed_request_object || self.request_object_encryption.alg.is_some()
    }
}

/// Which DPoP keys a client uses (RFC 9449; DTR §Deferred Code Exchange Request).
#[non_exhaustive]
#[derive(Debug, Clone, Default)]
pub enum DpopMode {
    /// A fresh key for every authentication process, as the draft recommends: "the RP SHOULD ensure that a public key
    /// is not reused across different Authentication Processes".
    #[default]
    PerProcess,
    /// The same key for all processes of the client, for OPs that want to know it beforehand. Whoever gets hold of it
    /// can use the tokens of all users.
    Shared(DpopKey),
    /// No DPoP at all, for OPs that refuse requests with a proof. Nothing then binds the tokens to this application.
    Off,
}

/// What a poll presents besides its DPoP proof.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PollCredential {
    /// The client's registered authentication method, as in every other request to the token endpoint
    /// (DTR §Token Request Validation, 2026-02).
    #[default]
    ClientAuthentication,
    /// The access token of the exchange response, DPoP-bound, to the letter of the base draft: "this request MUST use
    /// the DPoP-secured Access Token". It excludes `client_secret_basic`, since a request has one `Authorization`
    /// header, and DPoP cannot be off.
    AccessToken,
}

/// How long the OP is left alone after it has said that it has not decided (DTR §Design Considerations for Poll and
/// Ping). The OP's interval is the shortest wait in any case, a poll shortly before the end of the process is made in
/// any case, and trouble has a backoff of its own.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backoff {
    /// For one interval, as the OP asked.
    #[default]
    Fixed,
    /// For one interval at first, then for twice as long each time, up to a limit. It suits OPs that ping: a ping
    /// brings the next poll forward, and the wait after that is one interval again.
    Growing {
        /// No wait is longer, unless the OP's interval is.
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

/// Whom a client assertion is for (RFC 7523 §3; OpenID Connect Core 1.0 §9).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AssertionAudience {
    /// The OP's issuer identifier as a single string, at every endpoint: what current profiles demand, since it
    /// cannot be replayed elsewhere.
    #[default]
    Issuer,
    /// The URL of the token endpoint, at every endpoint, for OPs of before 2025. It is the `token_endpoint` of the OP's
    /// metadata, also where a client with a certificate calls its alias for mutual TLS: the OP's name for the endpoint
    /// does not depend on the way there.
    TokenEndpoint,
    /// The URL of the endpoint to which the assertion is sent, another one at each endpoint, for OPs that compare it with
    /// their own URL there: token, pushed authorization request, revocation, introspection and cancellation endpoint.
    Endpoint,
}

/// Which FAPI 2.0 profile a client keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FapiProfile {
    /// FAPI 2.0 Security Profile.
    Security,
    /// The same with signed requests and responses.
    MessageSigning,
}
