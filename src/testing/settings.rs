//! The settings of a provider.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::client::{TestClient, TestUser};
use super::dialect::Dialects;
use super::editor::Editor;

/// The settings, which stay the same while a provider exists.
pub(super) struct Settings {
    /// Without a slash at the end.
    pub(super) issuer: String,
    pub(super) dialects: Dialects,
    pub(super) ietf: IetfSettings,
    pub(super) backchannel: BackchannelSettings,
    pub(super) edit_metadata: Vec<Editor<Map<String, Value>>>,
    pub(super) interval: Option<Duration>,
    pub(super) expires_in: Option<Duration>,
    pub(super) long_polling: Duration,
    pub(super) answers_with_code: bool,
    pub(super) interim: InterimToken,
    pub(super) interim_claims: Map<String, Value>,
    pub(super) early_access_token: bool,
    pub(super) opaque_values: bool,
    pub(super) nonces: NoncePolicy,
    pub(super) challenge_as_401: bool,
    pub(super) requires_dpop: bool,
    pub(super) supports_dpop: bool,
    pub(super) allows_key_reuse: bool,
    pub(super) requires_pkce: bool,
    pub(super) sends_iss: bool,
    pub(super) cancellation_in_json: bool,
    pub(super) assertions_for_token_endpoint: bool,
    pub(super) refresh_tokens: bool,
    pub(super) rotates_refresh_tokens: bool,
    pub(super) discovery: DiscoveryForm,
    pub(super) mutual_tls: bool,
    pub(super) requires_pushed: bool,
    pub(super) requires_signed: bool,
    pub(super) fapi: bool,
    pub(super) request_uri_lifetime: Duration,
    pub(super) registration: RegistrationSettings,
}

/// Which requests for a grant need a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProofNeed {
    Always,
    /// Those for a grant that is bound to a key.
    IfBound,
}

impl Settings {
    /// Which token requests of this client need a DPoP proof.
    pub(super) fn proof_need(&self, client: &TestClient) -> ProofNeed {
        match client.requires_dpop || self.requires_dpop || (self.fapi && !client.certificate_bound) {
            true => ProofNeed::Always,
            false => ProofNeed::IfBound,
        }
    }

    /// The signature algorithms among these that the provider accepts and uses.
    pub(super) fn allowed<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.allows(name)).collect()
    }

    /// FAPI 2.0 Security Profile §5.4.
    pub(super) fn allows(&self, algorithm: &str) -> bool {
        !self.fapi || ["PS256", "ES256", "EdDSA"].contains(&algorithm)
    }
}

/// Who decides a sign-in, when, and how.
///
/// ```
/// use std::time::Duration;
/// use openid_deferred::testing::DecisionPolicy;
///
/// let after_a_while = DecisionPolicy::after_polls(3);
/// let after_three_weeks = DecisionPolicy::after(Duration::from_secs(21 * 86_400)).deny();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionPolicy {
    pub(super) when: When,
    pub(super) denies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Scripted,
    Polls(usize),
    Time(Duration),
}

impl Default for DecisionPolicy {
    fn default() -> Self {
        Self::immediately()
    }
}

impl DecisionPolicy {
    /// The first poll returns the result. This is the default.
    pub fn immediately() -> Self {
        Self::after_polls(0)
    }

    /// Answers this number of polls with `authorization_pending` first.
    pub fn after_polls(polls: usize) -> Self {
        Self { when: When::Polls(polls), denies: false }
    }

    /// Decides this long after the exchange, on the provider's clock.
    ///
    /// A provider with a socket sends the Ping Callback at that moment. A provider in process sends it while
    /// [`TestProvider::decide_on_time`](super::TestProvider::decide_on_time) is awaited, or else with the next request
    /// that arrives.
    pub fn after(duration: Duration) -> Self {
        Self { when: When::Time(duration), denies: false }
    }

    /// The test decides, through [`TestProcess`](super::TestProcess). Until then the sign-in is pending.
    pub fn scripted() -> Self {
        Self { when: When::Scripted, denies: false }
    }

    /// Denies instead of approving.
    pub fn deny(self) -> Self {
        Self { denies: true, ..self }
    }
}

/// The name of the interim ID Token in exchange responses. The two texts of the draft differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InterimToken {
    /// There is none.
    Absent,
    /// `id_token`, as in the older text.
    IdToken,
    /// `interim_id_token`, as in the newer text.
    #[default]
    InterimIdToken,
    /// The same token under both names.
    Both,
}

/// The requirements for DPoP nonces (RFC 9449 §8 and §9). The authorization server's endpoints and the resources have
/// separate nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoncePolicy {
    /// Nonces are neither sent nor checked.
    #[default]
    Off,
    /// A proof needs the current nonce, which is valid until
    /// [`TestProvider::rotate_nonces`](super::TestProvider::rotate_nonces).
    Required,
    /// Every response has a new nonce, and only the newest one is valid.
    RotateEveryRequest,
}

/// Where the metadata is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiscoveryForm {
    /// `{issuer}/.well-known/openid-configuration` (OpenID Connect Discovery).
    #[default]
    OpenId,
    /// `/.well-known/oauth-authorization-server{path}` (RFC 8414).
    OAuth,
    /// `/.well-known/openid-configuration{path}` (RFC 8414 §5).
    OpenIdInfix,
}

/// How the provider behaves in the IETF dialect.
#[derive(Default)]
pub(super) struct IetfSettings {
    pub(super) answers_at_once: bool,
    /// The largest amount that is granted at once.
    pub(super) limit: Option<u64>,
    pub(super) requires_interaction: bool,
    pub(super) repeats_members: bool,
    pub(super) cannot_revoke_codes: bool,
    /// Issues refresh tokens for grants without a user too.
    pub(super) refreshes_all_grants: bool,
    pub(super) is_the_demo: bool,
}

/// How the provider behaves in CIBA.
#[derive(Default)]
pub(super) struct BackchannelSettings {
    /// The users by their `login_hint`. If there are none, every hint names the provider's user.
    pub(super) users: BTreeMap<String, TestUser>,
    pub(super) user_code: Option<String>,
}

/// How the provider registers clients, if it does.
#[derive(Default)]
pub(super) struct RegistrationSettings {
    pub(super) is_offered: bool,
    pub(super) initial_access_tokens: Vec<String>,
    pub(super) software_statements: Vec<String>,
    pub(super) edits: Vec<Editor<Map<String, Value>>>,
    pub(super) has_no_management: bool,
    pub(super) keeps_access_tokens: bool,
    pub(super) secret_lifetime: Option<Duration>,
}

impl RegistrationSettings {
    pub(super) fn is_offered(&self) -> bool {
        self.is_offered
    }
}
