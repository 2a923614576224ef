//! Verified claims: what the OP verified about the user, by which rules and with which evidence (OpenID Connect for
//! Identity Assurance 1.0).
//!
//! To request them, build a [`VerifiedClaimsRequest`], optionally with [`EvidenceRequest`]s, and add it to a
//! [`ClaimsRequest`](crate::claims::ClaimsRequest).
//!
//! To read them, start with [`Claims::verified_claims`](crate::Claims::verified_claims) or
//! [`UserInfo::verified_claims`](crate::UserInfo::verified_claims). Both return a [`VerifiedClaimsSet`]. Select elements
//! by their trust framework with [`VerifiedClaimsSet::under`]. Each [`VerifiedClaims`] has claims and a
//! [`Verification`], which has the [`Evidence`].

pub use crate::client::{EvidenceRequest, VerifiedClaimsRequest};
pub use crate::id_token::{
    AssuranceProcess, DocumentEvidence, ElectronicRecordEvidence, ElectronicSignatureEvidence, Evidence, EvidenceCheck,
    MalformedVerifiedClaims, OtherEvidence, Verification, VerifiedClaims, VerifiedClaimsProblem, VerifiedClaimsSet,
    VouchEvidence,
};
