//! What an ID Token is held against.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::claims::Claims;
use super::interim_fingerprint::InterimFingerprint;
use crate::clock::unix_seconds;
use crate::jose::SigningAlgorithm;
use crate::secret::Secret;

/// What the client knows about itself, its request and the moment of receipt.
pub(crate) struct Expectations<'a> {
    /// The OP's issuer, compared byte by byte.
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    /// Audiences in addition to this client that the application trusts.
    pub(crate) trusted_audiences: &'a [String],
    /// The algorithms that the client accepts. An HMAC counts only if it is listed here.
    pub(crate) algorithms: &'a [SigningAlgorithm],
    /// The client secret, as the key of an HMAC.
    pub(crate) hmac_secret: Option<Arc<Secret>>,
    /// The `nonce` of the request; `None` where the request had none (CIBA), and for a refresh.
    pub(crate) nonce: Option<&'a str>,
    /// `max_age` of the request, and when the request was sent.
    pub(crate) max_age: Option<(Duration, SystemTime)>,
    /// Whether `auth_time` has to be there: it was asked for as an essential claim, or registered as required.
    pub(crate) require_auth_time: bool,
    /// Whether `acr` was asked for as an essential claim.
    pub(crate) require_acr: bool,
    /// The values of `acr` that were asked for as essential; empty where any one will do.
    pub(crate) essential_acr: &'a [String],
    /// The access token that came in the same response.
    pub(crate) access_token: Option<&'a Secret>,
    /// The code that a `c_hash` would be about.
    pub(crate) code: Option<&'a Secret>,
    /// By how much the OP's clock may differ from ours.
    pub(crate) leeway: Duration,
    /// When the response came in.
    pub(crate) received_at: SystemTime,
    /// By what the interim ID Token is recognised, where there was one.
    pub(crate) interim_fingerprint: Option<&'a InterimFingerprint>,
    /// The claims of the interim ID Token, where it was verified.
    pub(crate) interim_claims: Option<&'a Claims>,
    /// The `sub` of the interim ID Token, where it must be the same.
    pub(crate) interim_subject: Option<&'a str>,
    /// The `sub` of the ID Token that named the user to the OP.
    pub(crate) hinted_subject: Option<&'a str>,
}

impl Expectations<'_> {
    /// The earliest that the OP's clock may have shown at receipt, in seconds since 1970.
    pub(super) fn earliest(&self) -> u64 {
        unix_seconds(self.received_at).saturating_sub(self.leeway.as_secs())
    }

    /// The latest that the OP's clock may have shown at receipt, in seconds since 1970.
    pub(super) fn latest(&self) -> u64 {
        unix_seconds(self.received_at).saturating_add(self.leeway.as_secs())
    }
}
