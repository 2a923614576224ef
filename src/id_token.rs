//! Verification of final and interim ID Tokens. Only this module creates the verified types.
//!
//! A token is checked against its time of receipt, so that a stored response can be validated later. Final and interim
//! tokens have different requirements and uses, and nothing converts one into the other.

mod address;
mod claims;
mod encryption;
mod expectations;
mod interim_fingerprint;
mod numeric_date;
mod own_checks;
mod protocol_claims;
mod rfc_3339;
mod standard_claims;
mod stored;
mod verification;
mod verified_claims;
mod violation;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::error::Rule;
use crate::jose::SigningAlgorithm;
use crate::secret::Secret;

pub use address::Address;
pub use claims::Claims;
pub use encryption::Encryption;
pub use verified_claims::{
    AssuranceProcess, DocumentEvidence, ElectronicRecordEvidence, ElectronicSignatureEvidence, Evidence, EvidenceCheck,
    MalformedVerifiedClaims, OtherEvidence, Verification, VerifiedClaims, VerifiedClaimsProblem, VerifiedClaimsSet,
    VouchEvidence,
};

pub(crate) use encryption::decrypted;
pub(crate) use expectations::Expectations;
pub(crate) use interim_fingerprint::InterimFingerprint;
pub(crate) use numeric_date::numeric_date;
pub(crate) use standard_claims::{
    ClaimType, ClaimTypes, STANDARD, claim_accessor, claim_accessors, flag, in_languages, malformed_claims,
    standard_claims, time_or_text, warn_about_malformed,
};
pub(crate) use stored::{StoredIdToken, StoredInterim};
pub(crate) use verification::{header, verify_final, verify_interim, verify_refreshed};

/// The verified final ID Token: the OP's statement about the user (OpenID Connect Core 1.0 §2).
///
/// Only this crate's validation creates it. Start with [`claims`](Self::claims).
#[derive(Clone)]
pub struct IdToken {
    claims: Claims,
    token: Secret,
    algorithm: SigningAlgorithm,
}

impl IdToken {
    /// The OP's claims about the user and the authentication.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The token as received, for an `id_token_hint` (OpenID Connect Core 1.0 §3.1.2.1). Of an encrypted token it is
    /// the decrypted signed token. It contains personal data and must not be logged.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// The algorithm of its signature.
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }
}

impl fmt::Debug for IdToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("IdToken");
        shown.field("claims", &self.claims).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// An interim ID Token (DTR §Interim ID Tokens): early claims, while the OP is still checking.
///
/// The OP signed it for this client and this request, but it may not have verified any of the claims yet. The final ID
/// Token may differ or never arrive. Use it to greet the user or to prepare data, not to grant access. It is a separate
/// type that nothing converts into an [`IdToken`], and it does not return the raw token, which must not be used as an
/// ID Token elsewhere.
#[derive(Clone)]
pub struct InterimIdToken {
    claims: Claims,
    member: InterimMember,
}

impl InterimIdToken {
    /// The OP's claims so far.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The member of the exchange response that contained it: `id_token` or `interim_id_token`. The drafts differ.
    pub fn member(&self) -> &'static str {
        self.member.as_str()
    }
}

impl fmt::Debug for InterimIdToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("InterimIdToken");
        shown.field("claims", &self.claims).field("member", &self.member()).finish()
    }
}

/// The state of the interim ID Token of an exchange. In every state the exchange succeeded, and the sign-in is pending.
#[derive(Debug, Clone)]
pub enum InterimState {
    /// The OP sent none.
    Absent,
    /// It is authentic and belongs to this request.
    Verified(InterimIdToken),
    /// It broke this rule and was refused.
    Rejected(Rule),
    /// It cannot be verified yet, because the OP's keys could not be fetched or the decryption key is missing.
    NotYetVerifiable,
}

impl InterimState {
    /// The verified token, if there is one.
    pub fn verified(&self) -> Option<&InterimIdToken> {
        match self {
            Self::Verified(token) => Some(token),
            Self::Absent | Self::Rejected(_) | Self::NotYetVerifiable => None,
        }
    }
}

/// The two names that the drafts have for the member with the interim ID Token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum InterimMember {
    IdToken,
    InterimIdToken,
}

impl InterimMember {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::IdToken => "id_token",
            Self::InterimIdToken => "interim_id_token",
        }
    }
}
