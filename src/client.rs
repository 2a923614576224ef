//! The stateless client: every step of the flow is a method that takes and returns values.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::endpoint::{ClientIdentity, Endpoints, REQUESTS_AT_MOST, SIGNER_TIMEOUT};
use crate::error::{Error, Misuse};
use crate::id_token::Expectations;
use crate::jose::{self, DecryptionKey, SigningAlgorithm};
use crate::pending::{Checks, Jitter, Pace};
use crate::provider::{Issuer, LONGEST_FETCH, Provider, ProviderMetadata};
use crate::random::{self, Random};
use crate::secret::Secret;
use crate::transport::UrlPolicy;
use url::Url;

mod algorithms;
mod arrival;
mod authentication;
mod authorization_response;
mod authorize;
mod backchannel;
mod builder;
mod cancel;
mod claims_request;
mod connection;
mod delivery_mode;
mod dialect;
mod discovery;
mod dpop_key;
mod encryption;
mod end_session;
mod exchange;
mod fapi;
mod granted;
mod identity;
mod initial_answer;
mod initial_request;
mod initial_transmission;
mod interaction;
mod introspect;
mod issued_tokens;
mod jwt_response;
mod logout_session;
mod logout_token;
mod options;
mod outcome;
mod poll;
mod pushed;
mod refresh;
mod refreshed;
mod registration;
mod request_object;
mod request_values;
mod resource;
mod response_mode;
mod response_parameters;
mod revoke;
mod session;
mod setting;
mod signing_algorithms;
mod stored;
mod token_holder;
mod token_request;
mod token_response;
mod userinfo;
mod wait;

pub use algorithms::ClientAlgorithms;
pub use authentication::{Authentication, GrantedScope};
pub use authorization_response::{AuthorizationGrant, SignIn};
pub use authorize::AuthorizationRequest;
pub use backchannel::{AuthenticationRefusal, AuthenticationRequest, UserHint};
pub use builder::ClientBuilder;
pub use cancel::Cancelled;
pub use claims_request::{ClaimRequest, ClaimsRequest, EvidenceRequest, VerifiedClaimsRequest};
pub use delivery_mode::DeliveryMode;
pub use end_session::EndSessionRequest;
pub use introspect::Introspection;
pub use issued_tokens::IssuedTokens;
pub use logout_session::LogoutSession;
pub use logout_token::LogoutToken;
pub use options::{AssertionAudience, Backoff, DpopMode, PollCredential};
pub use outcome::{Denial, Expiration, Outcome};
pub use poll::Poll;
pub use registration::{
    ApplicationType, CertificateSubject, ClientMetadata, DifferenceEffect, Registrar, RegistrarBuilder, Registration,
    RegistrationDifference, RegistrationRefusal, RegistrationRequest, SubjectType,
};
pub use response_mode::ResponseMode;
pub use revoke::TokenTypeHint;
pub use session::AuthorizationSession;
pub use token_holder::TokenHolder;
pub use token_request::{Grant, TokenAnswer, TokenRequest};
pub use userinfo::UserInfo;
pub use wait::{Wait, WaitEvent};

pub(crate) use arrival::ArrivalPlace;
#[cfg(test)]
pub(crate) use arrival::can_be_confused;
pub(crate) use backchannel::no_auth_req_id;
pub(crate) use exchange::Exchanged;
pub(crate) use granted::Granted;
pub(crate) use initial_request::InitialRequest;
pub(crate) use poll::finish;
pub(crate) use stored::StoredOutcome;

use identity::Credentials;
use options::Options;
use refresh::Flights;

/// The stateless client: a relying party at one OP.
///
/// It keeps no state of any user. Each step returns the values that a later step needs, and the application stores
/// them:
///
/// 1. [`authorize`](Self::authorize) returns the URL for the browser and an [`AuthorizationSession`];
/// 2. [`authorization_response`](Self::authorization_response) takes the response from the browser and exchanges the
///    code: either the user is signed in, or the result is a [`PendingAuthentication`](crate::PendingAuthentication);
/// 3. [`wait`](Self::wait) waits for the [`Outcome`], or [`poll`](Self::poll) polls once.
///
/// Cloning is cheap. Clones share caches: the OP's DPoP nonces, and its metadata and keys, which are refreshed for as
/// long as the client exists.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    issuer: Issuer,
    client_id: String,
    credentials: Credentials,
    assertion_audience: AssertionAudience,
    /// Set by the builder if the method was named, otherwise from the first metadata.
    identity: OnceLock<ClientIdentity>,
    redirect_uri: Option<String>,
    urls: UrlPolicy,
    provider: Provider,
    endpoints: Arc<Endpoints>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    cancellation_endpoint: Option<Url>,
    refreshes: Flights,
    /// Behind a lock because keys rotate while the application runs.
    decryption_keys: RwLock<Arc<[DecryptionKey]>>,
    /// Whether to ignore the expiry time of the registered secret, because the secret was replaced.
    secret_is_replaced: AtomicBool,
    options: Options,
}

impl Client {
    /// Starts building a client of the OP at `issuer`, with the `client_id` that the OP registered. The issuer must
    /// equal the one in the OP's documents exactly.
    pub fn builder(issuer: impl Into<String>, client_id: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(issuer.into(), client_id.into())
    }

    /// The OP's issuer identifier.
    pub fn issuer(&self) -> &str {
        self.0.issuer.as_str()
    }

    /// The client identifier.
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// The OP's metadata, from the cache or newly fetched.
    ///
    /// # Errors
    ///
    /// Returns an error if no metadata has been fetched yet and the OP cannot be reached or its document breaks a rule.
    pub async fn provider_metadata(&self) -> Result<ProviderMetadata, Error> {
        self.0.provider.metadata().await
    }

    /// The OP, for the fuzzer.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn provider(&self) -> &Provider {
        &self.0.provider
    }

    /// The redirect URI of sign-ins that do not choose another one.
    pub(crate) fn redirect_uri(&self) -> Option<&str> {
        self.0.redirect_uri.as_deref()
    }

    /// The URI to return to after logouts that do not choose another one.
    #[cfg(feature = "axum")]
    pub(crate) fn post_logout_redirect_uri(&self) -> Option<&str> {
        self.0.options.post_logout_redirect_uri.as_deref()
    }

    /// How long an authorization session lives.
    #[cfg(feature = "axum")]
    pub(crate) fn session_lifetime(&self) -> Duration {
        self.0.options.session_lifetime
    }

    /// Whether the OP's metadata is cached and shows that its responses do not name their issuer (RFC 9207). A JWT
    /// always does.
    pub(crate) fn is_known_to_lack_iss(&self) -> bool {
        if self.0.options.response_mode.is_some_and(ResponseMode::is_jwt) {
            return false;
        }
        let metadata = self.0.provider.known_metadata();
        metadata.is_some_and(|metadata| !metadata.authorization_response_iss_parameter_supported())
    }

    /// A stable number for this client at this OP. It is the same in every release and for all settings.
    pub(crate) fn partition(&self) -> i64 {
        Self::partition_of(self.issuer(), self.client_id())
    }

    /// The [`partition`](Self::partition) of a client that need not exist here.
    pub(crate) fn partition_of(issuer: &str, client_id: &str) -> i64 {
        let issuer = issuer.as_bytes();
        let message = [&(issuer.len() as u64).to_be_bytes(), issuer, client_id.as_bytes()].concat();
        let [a, b, c, d, e, f, g, h, ..] = jose::sha256(&message);
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// The longest time that one poll can take after it may be sent. A nonce challenge and a wrong clock each cost one
    /// more request, and each request may need a client assertion.
    pub(crate) fn longest_poll(&self) -> Duration {
        self.longest_request(self.0.options.poll_timeout)
    }

    /// The longest time that an exchange can take, with fetching the OP's metadata and its repetitions.
    pub(crate) fn longest_exchange(&self) -> Duration {
        let request = self.longest_request(self.0.options.request_timeout);
        request.saturating_add(LONGEST_FETCH).saturating_add(initial_transmission::longest_repeating())
    }

    /// The longest time that a request can take with its repetitions.
    fn longest_request(&self, timeout: Duration) -> Duration {
        let signing = match self.0.credentials.assertion_signer() {
            Some(_) => timeout.min(SIGNER_TIMEOUT),
            None => Duration::ZERO,
        };
        timeout.saturating_add(signing).saturating_mul(REQUESTS_AT_MOST)
    }

    fn now(&self) -> Moment {
        Moment::of(&*self.0.clock)
    }

    /// How fast to poll. If the source of randomness fails, polls have no jitter: jitter is not secret, and polling
    /// must continue.
    pub(crate) fn pace(&self) -> Pace {
        let jitter = Jitter(random::bytes(&*self.0.random).map_or(0, u16::from_be_bytes));
        Pace {
            jitter,
            longest_wait: self.0.options.backoff.longest_wait(),
            give_up_after: self.0.options.give_up_after,
        }
    }

    /// Refuses a value that another client made, because its credentials would be sent to the wrong OP.
    fn check_ownership(&self, issuer: &str, client_id: &str) -> Result<(), Error> {
        if issuer == self.issuer() && client_id == self.client_id() {
            return Ok(());
        }
        Err(Misuse::WrongClient.into())
    }

    /// The values that an ID Token is checked against.
    fn expectations<'a>(
        &'a self,
        checks: &'a Checks,
        algorithms: &'a [SigningAlgorithm],
        access_token: Option<&'a Secret>,
        received_at: std::time::SystemTime,
    ) -> Expectations<'a> {
        Expectations {
            issuer: self.issuer(),
            client_id: self.client_id(),
            trusted_audiences: &self.0.options.trusted_audiences,
            algorithms,
            hmac_secret: self.client_secret(),
            nonce: checks.nonce.as_deref(),
            max_age: checks.max_age(),
            require_auth_time: checks.require_auth_time,
            require_acr: checks.require_acr,
            essential_acr: &checks.essential_acr,
            access_token,
            code: None,
            leeway: self.0.options.leeway,
            received_at,
            interim_fingerprint: None,
            interim_claims: None,
            interim_subject: None,
            hinted_subject: checks.subject.as_deref(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("issuer", &self.issuer())
            .field("client_id", &self.client_id())
            .finish_non_exhaustive()
    }
}
