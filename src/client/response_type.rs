//! The response types, and the grant types of their codes.

use serde::{Deserialize, Serialize};

/// DTR §Deferred Code Exchange Request.
pub(super) const DEFERRED_GRANT: &str = "urn:openid:params:grant-type:deferred";
/// RFC 6749 §4.1.3.
pub(super) const CODE_GRANT: &str = "authorization_code";

/// Which codes the OP may answer with (DTR §Deferred Code Response Type; OpenID Connect Core 1.0 §3.1).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ResponseType {
    /// `deferred_code`: the OP always defers.
    #[default]
    #[serde(rename = "d")]
    DeferredCode,
    /// `deferred_code code`: the OP signs the user in at once if it can, and defers otherwise.
    #[serde(rename = "dc")]
    DeferredCodeOrCode,
    /// `code`: the ordinary code flow, in which the OP never defers. With it one client type also serves OPs without
    /// the deferred flow.
    #[serde(rename = "c")]
    Code,
}

impl ResponseType {
    /// The response types that this crate supports.
    pub(super) const ALL: [Self; 3] = [Self::DeferredCode, Self::DeferredCodeOrCode, Self::Code];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DeferredCode => "deferred_code",
            Self::DeferredCodeOrCode => "deferred_code code",
            Self::Code => "code",
        }
    }

    /// The grant type that the flow requires.
    pub(super) fn grant_type(self) -> &'static str {
        match self {
            Self::DeferredCode | Self::DeferredCodeOrCode => DEFERRED_GRANT,
            Self::Code => CODE_GRANT,
        }
    }

    /// Whether this grant type must be registered with the response type (RFC 7591 §2.1; DTR §Deferred Code Response
    /// Type).
    pub(super) fn needs(self, grant_type: &str) -> bool {
        let (deferred, code) = (grant_type == DEFERRED_GRANT, grant_type == CODE_GRANT);
        match self {
            Self::DeferredCode => deferred,
            Self::DeferredCodeOrCode => deferred || code,
            Self::Code => code,
        }
    }
}
