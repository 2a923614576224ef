//! The protocols that the provider speaks, and the names that they use.

/// The grant type of polls in the OpenID draft, and of its exchange.
pub(super) const OPENID_GRANT: &str = "urn:openid:params:grant-type:deferred";

/// The grant type of polls in the IETF draft.
pub(super) const IETF_GRANT: &str = "urn:ietf:params:oauth:grant-type:deferred";

/// The grant type of polls in CIBA (§10.1).
pub(super) const CIBA_GRANT: &str = "urn:openid:params:grant-type:ciba";

/// RFC 8693 §2.1.
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// RFC 7523 §2.1.
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// IETF DTR §Client Opt-In Signaling: the parameter and its only value.
pub(super) const COMPLETION_MODE: &str = "completion_mode";
pub(super) const DEFERRED: &str = "deferred";

/// IETF DTR §Client Opt-In Signaling; CIBA §7.1: the bearer token for callbacks.
pub(super) const NOTIFICATION_TOKEN: &str = "client_notification_token";

/// IETF DTR §Cancellation: the hint for the revocation of a deferral code.
pub(super) const CODE_TYPE: &str = "urn:ietf:params:oauth:token-type:deferral-code";

/// IETF DTR §Client Opt-In Signaling: the metadata that announces support.
pub(super) const SUPPORTED: &str = "deferred_token_response_supported";

/// IETF DTR §Cancellation: the metadata that lists what can be revoked.
pub(super) const REVOCABLE: &str = "revocation_endpoint_token_type_values_supported";

/// IETF DTR §Token Endpoint — Deferred Response, and the pending code that the working group has added since.
pub(super) const INTERACTION_REQUIRED: &str = "interaction_required";
pub(super) const INTERACTION_PENDING: &str = "interaction_pending";
pub(super) const INTERACTION_URI: &str = "interaction_uri";

/// The protocol that a process follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenID Connect Deferred Token Response Flow.
    OpenId,
    /// OAuth 2.0 Deferred Token Response.
    Ietf,
    /// Client-Initiated Backchannel Authentication.
    Ciba,
}

impl Dialect {
    /// The protocol whose polls have this grant type.
    pub(super) fn of_grant(grant_type: &str) -> Option<Self> {
        match grant_type {
            OPENID_GRANT => Some(Self::OpenId),
            IETF_GRANT => Some(Self::Ietf),
            CIBA_GRANT => Some(Self::Ciba),
            _ => None,
        }
    }

    /// The name of the identifier that polls have.
    pub(super) fn identifier(self) -> &'static str {
        match self {
            Self::OpenId => "deferred_auth_id",
            Self::Ietf => "deferral_code",
            Self::Ciba => "auth_req_id",
        }
    }
}

/// The protocols that a provider speaks; at least one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialects {
    pub(super) openid: bool,
    pub(super) ietf: bool,
    pub(super) ciba: bool,
}

impl Dialects {
    pub(super) fn response_types(self) -> &'static [&'static str] {
        match self.openid {
            true => &["code", "deferred_code", "deferred_code code"],
            false => &["code"],
        }
    }

    pub(super) fn grant_types(self) -> Vec<&'static str> {
        let openid: &[_] = if self.openid { &["authorization_code", "refresh_token", OPENID_GRANT] } else { &[] };
        let ietf: &[_] = if self.ietf { &IETF_GRANTS } else { &[] };
        let mut grants = openid.to_vec();
        grants.extend(ietf.iter().filter(|grant| !openid.contains(grant)));
        grants.extend(self.ciba.then_some(CIBA_GRANT));
        grants
    }
}

const IETF_GRANTS: [&str; 6] =
    [IETF_GRANT, "authorization_code", "client_credentials", TOKEN_EXCHANGE, JWT_BEARER, "refresh_token"];
