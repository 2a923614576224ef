//! The checks of DPoP proofs (RFC 9449 §4.3).

use std::time::UNIX_EPOCH;

use http::header;
use serde_json::Value;
use url::Url;

use super::keys::{self, Jwt};
use super::op::Handler;
use super::record::RequestRule;
use super::settings::{NoncePolicy, ProofNeed};
use super::state::Role;
use super::wire::Rejection;

/// The largest difference between a proof's `iat` and the provider's clock, in seconds.
const WINDOW: u64 = 60;

impl Handler<'_> {
    /// The thumbprint of the key that signed the proof. `None` without a proof.
    pub(super) fn proof(&mut self, role: Role, access_token: Option<&str>) -> Result<Option<String>, Rejection> {
        if !self.op.settings.supports_dpop {
            return Ok(None);
        }
        let mut proofs = self.request.headers.get_all("dpop").iter();
        let Some(proof) = proofs.next() else { return Ok(None) };
        if proofs.next().is_some() {
            return Err(invalid(role, "there is more than one `DPoP` header"));
        }
        let proof = proof.to_str().map_err(|_| invalid(role, "the header is not text"))?;
        let jwt = Jwt::parse(proof).ok_or_else(|| invalid(role, "not a JWT"))?;
        let thumbprint = self.proven_key(role, &jwt)?;
        self.proof_claims(role, &jwt, access_token)?;
        self.nonce(role, &jwt)?;
        let jti = jwt.claim("jti").filter(|jti| !jti.is_empty()).ok_or_else(|| invalid(role, "`jti`"))?;
        if !self.state.seen_ids.insert(format!("proof {jti}")) {
            return Err(rejection(role, "invalid_dpop_proof", Some(RequestRule::DpopReplayed), "`jti`"));
        }
        Ok(Some(thumbprint))
    }

    fn proven_key(&self, role: Role, jwt: &Jwt<'_>) -> Result<String, Rejection> {
        if jwt.header.get("typ").and_then(Value::as_str) != Some("dpop+jwt") {
            return Err(invalid(role, "`typ` is not `dpop+jwt`"));
        }
        let algorithm = jwt.header.get("alg").and_then(Value::as_str).unwrap_or_default();
        if !["ES256", "EdDSA", "PS256"].contains(&algorithm) {
            return Err(invalid(role, "`alg` is none of those advertised"));
        }
        let Some(jwk) = jwt.header.get("jwk").filter(|jwk| jwk.is_object()) else {
            return Err(invalid(role, "`jwk` is missing"));
        };
        if keys::is_private(jwk) {
            return Err(rejection(role, "invalid_dpop_proof", Some(RequestRule::DpopPrivateKey), ""));
        }
        if !jwt.verifies(jwk) {
            return Err(invalid(role, "the signature does not verify"));
        }
        keys::thumbprint(jwk).ok_or_else(|| invalid(role, "`jwk` has no thumbprint"))
    }

    fn proof_claims(&self, role: Role, jwt: &Jwt<'_>, access_token: Option<&str>) -> Result<(), Rejection> {
        if jwt.claim("htm") != Some(self.request.method.as_str()) {
            return Err(invalid(role, "`htm` is not the method"));
        }
        let mut here = self.request.url.clone();
        here.set_query(None);
        here.set_fragment(None);
        if jwt.claim("htu").and_then(|htu| Url::parse(htu).ok()) != Some(here) {
            return Err(invalid(role, "`htu` is not the URL without query and fragment"));
        }
        let now = self.op.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let issued_at = jwt.claims.get("iat").and_then(Value::as_u64);
        if issued_at.is_none_or(|issued| issued.abs_diff(now) > WINDOW) {
            // A client with a wrong clock breaks no rule: it learns the time from `Date`.
            return Err(rejection(role, "invalid_dpop_proof", None, "`iat` is missing or outside of the window"));
        }
        match (access_token, jwt.claim("ath")) {
            (Some(token), Some(ath)) if ath == keys::sha256(token.as_bytes()) => Ok(()),
            (None, None) => Ok(()),
            (Some(_), _) => Err(invalid(role, "`ath` is not the access token's hash")),
            (None, Some(_)) => Err(invalid(role, "`ath` stands in a proof without access token")),
        }
    }

    fn nonce(&mut self, role: Role, jwt: &Jwt<'_>) -> Result<(), Rejection> {
        if self.op.settings.nonces == NoncePolicy::Off {
            return Ok(());
        }
        let presented = jwt.claim("nonce");
        let is_current = presented.is_some() && presented == self.state.nonces[role as usize].current.as_deref();
        if is_current {
            return Ok(());
        }
        if let Some(nonce) = presented {
            let other = if role == Role::Resource { Role::AuthorizationServer } else { Role::Resource };
            if self.state.nonces[other as usize].issued.contains(nonce) {
                self.violate(RequestRule::DpopNonceOfOtherRole, "");
            } else if !self.state.nonces[role as usize].issued.contains(nonce) {
                self.violate(RequestRule::DpopNonceUnknown, "");
            }
        }
        let challenge = rejection(role, "use_dpop_nonce", None, "this server wants a nonce in the proof");
        match role == Role::AuthorizationServer && self.op.settings.challenge_as_401 {
            true => Err(Rejection { status: 401, ..challenge }
                .header(header::WWW_AUTHENTICATE, "DPoP error=\"use_dpop_nonce\"")),
            false => Err(challenge),
        }
    }

    /// Checks the proof of a request for a grant, which may be bound to a key.
    pub(super) fn grant_proof(&mut self, need: ProofNeed, bound_to: Option<&str>) -> Result<Option<String>, Rejection> {
        let role = Role::AuthorizationServer;
        let proven = self.proof(role, None)?;
        self.check_binding(role, proven, need, bound_to)
    }

    /// Checks the proof of a request that needs none. A proof must be valid, and its key must be the one that the token
    /// is bound to.
    pub(super) fn optional_proof(&mut self, bound_to: Option<&str>) -> Result<Option<String>, Rejection> {
        let has_proof = self.request.headers.contains_key("dpop");
        self.grant_proof(ProofNeed::IfBound, bound_to.filter(|_| has_proof))
    }

    pub(super) fn check_binding(
        &self,
        role: Role,
        proven: Option<String>,
        need: ProofNeed,
        bound_to: Option<&str>,
    ) -> Result<Option<String>, Rejection> {
        let supported = self.op.settings.supports_dpop;
        match (&proven, bound_to) {
            (None, _) if supported && (need == ProofNeed::Always || bound_to.is_some()) => {
                Err(rejection(role, "invalid_dpop_proof", Some(RequestRule::DpopMissing), "there is no proof"))
            }
            (Some(key), Some(bound)) if key != bound => {
                Err(rejection(role, "invalid_dpop_proof", Some(RequestRule::DpopKeyChanged), "another key"))
            }
            _ => Ok(proven),
        }
    }
}

fn invalid(role: Role, detail: &str) -> Rejection {
    rejection(role, "invalid_dpop_proof", Some(RequestRule::DpopInvalid), detail)
}

/// An authorization server answers 400 with JSON (RFC 9449 §5 and §8), a resource answers 401 with a challenge (§7.1
/// and §9).
fn rejection(role: Role, error: &'static str, violation: Option<RequestRule>, detail: &str) -> Rejection {
    let rejection = Rejection { violation, ..Rejection::innocent(error, detail) };
    match role {
        Role::AuthorizationServer => rejection,
        Role::Resource => Rejection { status: 401, ..rejection }
            .header(header::WWW_AUTHENTICATE, &format!("DPoP error=\"{error}\", algs=\"ES256 EdDSA PS256\"")),
    }
}
