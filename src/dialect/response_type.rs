//! The response types of sign-ins.

use serde::{Deserialize, Serialize};

/// Whether the OP may defer its answer to a sign-in (DTR §Deferred Code Response Type; OpenID Connect Core 1.0 §3.1).
///
/// The names are those of the OpenID dialect. In the [IETF dialect](super::Dialect::Ietf) the request has the response
/// type `code` and, with the first two of these, `completion_mode=deferred`. The OP may then always answer at once.
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
    pub(crate) const ALL: [Self; 3] = [Self::DeferredCode, Self::DeferredCodeOrCode, Self::Code];

    /// Whether the OP may defer its answer.
    pub(crate) fn may_defer(self) -> bool {
        self != Self::Code
    }
}
