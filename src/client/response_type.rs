//! The response types, and the grant types that go with their codes.

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
    /// `deferred_code code`: the OP signs the user in at once where it can and defers where it must.
    #[serde(rename = "dc")]
    DeferredCodeOrCode,
    /// `code`: the ordinary code flow, in which the OP never defers. For OPs without the deferred flow, so that one
    /// client does for them too.
    #[serde(rename = "c")]
    Code,
}

impl ResponseType {
    /// The response types that this crate has.
    pub(super) const ALL: [Self; 3] = [Self::DeferredCode, Self::DeferredCodeOrCode, Self::Code];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DeferredCode => "deferred_code",
            Self::DeferredCodeOrCode => "deferred_code code",
            Self::Code => "code",
        }
    }

    /// The grant type that the flow cannot do without.
    pub(super) fn grant_type(self) -> &'static str {
        match self {
            Self::DeferredCode | Self::DeferredCodeOrCode => DEFERRED_GRANT,
            Self::Code => CODE_GRANT,
        }
    }

    /// Whether this grant type has to be registered with it (RFC 7591 §2.1; DTR §Deferred Code Response Type).
    pub(super) fn needs(self, grant_type: &str) -> bool {
        let (deferred, code) = (grant_type == DEFERRED_GRANT, grant_type == CODE_GRANT);
        match self {
            Self::DeferredCode => deferred,
            Self::DeferredCodeOrCode => deferred || code,
            Self::Code => code,
        }
    }
}
