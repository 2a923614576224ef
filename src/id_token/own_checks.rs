//! The checks that `openidconnect` leaves to its caller.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::claims::Claims;
use super::expectations::Expectations;
use super::violation::{at, violation};
use crate::clock::unix_seconds;
use crate::error::{Rule, Violation};
use crate::jose::{self, HashFunction, SigningAlgorithm};
use crate::secret::{Secret, constant_time_eq};

/// `azp`, `iat`, `nbf`, `at_hash` and `c_hash`.
pub(super) fn of_both(claims: &Claims, algorithm: SigningAlgorithm, e: &Expectations<'_>) -> Result<(), Violation> {
    authorized_party(claims, e)?;
    if claims.times().issued_at > e.latest() {
        return Err(at(Rule::IdTokenIssuedAt, "iat"));
    }
    not_before(claims, e)?;
    let hash_fits = |name, hashed| hash_fits(claims.get(name), hashed, algorithm);
    // §3.1.3.6: "Its value is the base64url encoding of the left-most half of the hash of the octets of the ASCII
    // representation of the access_token value". Optional, so it is checked where it is there.
    if !hash_fits("at_hash", e.access_token) {
        return Err(at(Rule::IdTokenAccessTokenHash, "at_hash"));
    }
    if !hash_fits("c_hash", e.code) {
        return Err(at(Rule::IdTokenCodeHash, "c_hash"));
    }
    Ok(())
}

/// That it is not the interim ID Token; `acr`, `auth_time`, and the subject: that of the interim ID Token, and that of
/// the hint.
pub(super) fn of_final(token: &str, claims: &Claims, e: &Expectations<'_>) -> Result<(), Violation> {
    // Processes that were stored by 0.1.0 have no fingerprint, but the claims of a verified token.
    let has_its_claims = e.interim_claims.is_some_and(|interim| interim.as_json() == claims.as_json());
    if has_its_claims {
        return Err(violation(Rule::InterimIdTokenAsFinal));
    }
    not_interim(token, claims, e)?;
    authentication_context(claims, e)?;
    authentication_time(claims, e)?;
    if e.interim_subject.is_some_and(|interim| interim != claims.subject()) {
        return Err(at(Rule::SubjectChanged, "sub"));
    }
    if e.hinted_subject.is_some_and(|hinted| hinted != claims.subject()) {
        return Err(at(Rule::HintedSubject, "sub"));
    }
    Ok(())
}

/// That a token is not the interim ID Token, whose claims the OP may not have verified.
pub(super) fn not_interim(token: &str, claims: &Claims, e: &Expectations<'_>) -> Result<(), Violation> {
    let Some(interim) = e.interim_fingerprint else { return Ok(()) };
    if interim.is_of(token) {
        return Err(violation(Rule::InterimIdTokenAsFinal));
    }
    match interim.has_jti(claims.get("jti")) {
        true => Err(at(Rule::InterimIdTokenAsFinal, "jti")),
        false => Ok(()),
    }
}

/// OpenID Connect Core 1.0 §12.2: what the ID Token of a refresh has in common with that of the authentication. `iss`
/// has been compared already.
pub(super) fn of_refreshed(
    claims: &Claims,
    nonce: Option<Value>,
    original: &Claims,
    original_nonce: Option<Value>,
) -> Result<(), Violation> {
    let contradiction = |claim| Err(at(Rule::RefreshedIdToken, claim));
    if claims.subject() != original.subject() {
        return contradiction("sub");
    }
    // "its aud Claim Value MUST be the same as in the ID Token issued when the original authentication occurred"; it is
    // a set.
    let audience = |claims: &Claims| claims.audience().into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    if audience(claims) != audience(original) {
        return contradiction("aud");
    }
    // "if the ID Token contains an auth_time Claim, its value MUST represent the time of the original authentication"
    let (time, original_time) = (claims.times().auth_time, original.times().auth_time);
    if time.is_some() && original_time.is_some() && time != original_time {
        return contradiction("auth_time");
    }
    // "it SHOULD NOT have a nonce Claim [...]; however, if it is present, its value MUST be the same"
    if nonce.is_some() && nonce != original_nonce {
        return contradiction("nonce");
    }
    // "its azp Claim Value MUST be the same [...]; if no azp Claim was present in the original ID Token, one MUST NOT be
    // present in the new ID Token"
    if authorized_party_of(claims) != authorized_party_of(original) {
        return contradiction("azp");
    }
    Ok(())
}

/// §3.1.3.7: "If the ID Token contains multiple audiences, the Client SHOULD verify that an azp Claim is present. If an
/// azp (authorized party) Claim is present, the Client SHOULD verify that its client_id is the Claim Value."
fn authorized_party(claims: &Claims, e: &Expectations<'_>) -> Result<(), Violation> {
    let fits = match authorized_party_of(claims) {
        Some(party) => party == e.client_id,
        None => claims.audience().iter().all(|audience| *audience == e.client_id),
    };
    if fits { Ok(()) } else { Err(at(Rule::IdTokenAuthorizedParty, "azp")) }
}

/// The `azp` that is there. An empty one names no party, so it counts as absent, and what is absent has to meet the
/// stricter rule: the token is for this client alone.
fn authorized_party_of(claims: &Claims) -> Option<&str> {
    claims.azp().filter(|party| !party.is_empty())
}

/// RFC 7519 §4.1.5: "The "nbf" (not before) claim identifies the time before which the JWT MUST NOT be accepted for
/// processing."
fn not_before(claims: &Claims, e: &Expectations<'_>) -> Result<(), Violation> {
    let fits = match claims.get("nbf") {
        None | Some(Value::Null) => true,
        Some(time) => time.as_f64().is_some_and(|time| time <= e.latest() as f64),
    };
    if fits { Ok(()) } else { Err(at(Rule::IdTokenNotBefore, "nbf")) }
}

/// §5.5.1.1: "If the Claim is requested as an Essential Claim [...] and the requirement cannot be met, then the
/// Authorization Server MUST treat that outcome as a failed authentication attempt." Without values in the request it has
/// to be there.
fn authentication_context(claims: &Claims, e: &Expectations<'_>) -> Result<(), Violation> {
    let is_wanted = |acr: &str| e.essential_acr.is_empty() || e.essential_acr.iter().any(|asked| asked == acr);
    let is_essential = e.require_acr || !e.essential_acr.is_empty();
    if is_essential && !claims.acr().is_some_and(|acr| !acr.is_empty() && is_wanted(acr)) {
        return Err(at(Rule::IdTokenAcr, "acr"));
    }
    Ok(())
}

/// `max_age` counts from the request: the user was away while the OP was checking, for days perhaps, so the time of
/// receipt says nothing about how fresh the authentication was when it was asked for.
fn authentication_time(claims: &Claims, e: &Expectations<'_>) -> Result<(), Violation> {
    if e.max_age.is_none() && !e.require_auth_time {
        return Ok(());
    }
    let oldest = e.max_age.map_or(0, |(max_age, requested_at)| {
        unix_seconds(requested_at).saturating_sub(max_age.as_secs()).saturating_sub(e.leeway.as_secs())
    });
    match claims.times().auth_time {
        Some(time) if (oldest..=e.latest()).contains(&time) => Ok(()),
        _ => Err(at(Rule::IdTokenAuthTime, "auth_time")),
    }
}

/// Whether a hash claim is the left half of the hash of what came with it; true where one of the two is missing. An empty
/// hash counts as missing: it binds nothing and contradicts nothing, and the OP that signed it could have left it out.
fn hash_fits(claim: Option<&Value>, hashed: Option<&Secret>, algorithm: SigningAlgorithm) -> bool {
    let (Some(claim), Some(hashed)) = (claim.and_then(Value::as_str).filter(|hash| !hash.is_empty()), hashed) else {
        return true;
    };
    let fits = |function| {
        let mut hash = jose::hash(function, hashed.expose().as_bytes());
        hash.truncate(hash.len() / 2);
        // Some OPs pad the hash; it is the same hash.
        constant_time_eq(URL_SAFE_NO_PAD.encode(hash).as_bytes(), claim.trim_end_matches('=').as_bytes())
    };
    // The name of this algorithm has no hash function in it, and some OPs take SHA-256.
    let is_eddsa = matches!(algorithm, SigningAlgorithm::EdDsa | SigningAlgorithm::Ed25519);
    fits(algorithm.hash()) || (is_eddsa && fits(HashFunction::Sha256))
}
