//! The checks, in the order of OpenID Connect Core 1.0 §3.1.3.7.

use openidconnect::core::CoreGenderClaim;
use openidconnect::{
    ClaimsVerificationError, ClientId, ClientSecret, EmptyAdditionalClaims, IdToken as OpenIdToken, IdTokenClaims,
    IdTokenVerifier, IssuerUrl, JsonWebKeySet, Nonce, SignatureVerificationError,
};
use serde_json::{Map, Value};

use super::claims::{Claims, Times};
use super::expectations::Expectations;
use super::{IdToken, InterimIdToken, InterimMember, own_checks};
use crate::clock::from_unix_seconds;
use crate::error::{Document, Rule, Violation};
use crate::jose::{
    CompactJws, Header, KeySet, NoEncryption, OpenIdAlgorithm, SigningAlgorithm, Unreadable, VerificationKey,
};
use crate::json::Object;
use crate::secret::Secret;

/// Verifies the ID Token of a final response.
pub(crate) fn verify_final(token: &str, keys: &KeySet, e: &Expectations<'_>) -> Result<IdToken, Violation> {
    let (claims, algorithm) = verify(token, keys, e)?;
    own_checks::of_final(&claims, e)?;
    Ok(IdToken { claims, token: Secret::new(token), algorithm })
}

/// Verifies an interim ID Token. It needs a `nonce`; `acr`, `auth_time` and `at_hash` may still be missing.
pub(crate) fn verify_interim(
    token: &str,
    member: InterimMember,
    keys: &KeySet,
    e: &Expectations<'_>,
) -> Result<InterimIdToken, Violation> {
    // Without one there is nothing that ties the token to this request.
    if e.nonce.is_none() {
        return Err(at(Rule::IdTokenNonce, "nonce"));
    }
    let (claims, _) = verify(token, keys, e)?;
    Ok(InterimIdToken { claims, member })
}

/// Verifies the ID Token of a refresh, which continues the authentication that `original` is about.
pub(crate) fn verify_refreshed(
    token: &str,
    original: &IdToken,
    keys: &KeySet,
    e: &Expectations<'_>,
) -> Result<IdToken, Violation> {
    let (claims, algorithm) = verify(token, keys, e)?;
    own_checks::of_refreshed(&claims, nonce(token)?, original.claims(), nonce(original.token.expose())?)?;
    Ok(IdToken { claims, token: Secret::new(token), algorithm })
}

/// The `nonce` of a token, which verified claims no longer have.
fn nonce(token: &str) -> Result<Option<Value>, Violation> {
    Ok(members(take_apart(token)?.payload())?.shift_remove("nonce").filter(|nonce| !nonce.is_null()))
}

/// What a token's header says about the key that signed it, so that the key can be fetched. Nothing is verified.
pub(crate) fn header(token: &str) -> Result<(SigningAlgorithm, Option<String>), Violation> {
    let header = Header::of(token).map_err(unreadable)?;
    Ok((algorithm(&header)?, header.kid))
}

/// What both kinds of tokens have in common.
fn verify(token: &str, keys: &KeySet, e: &Expectations<'_>) -> Result<(Claims, SigningAlgorithm), Violation> {
    let jws = take_apart(token)?;
    let algorithm = algorithm(jws.header())?;
    if !e.algorithms.contains(&algorithm) {
        return Err(violation(Rule::IdTokenAlgorithm));
    }
    let members = members(jws.payload())?;
    own_checks::of_shape(&members, e)?;
    // Strict about the type of every standard claim.
    let token = token.parse().map_err(|_| violation(Rule::IdTokenClaims))?;
    let times = authenticate(&token, jws.header().kid.as_deref(), algorithm, keys, e)?;
    let claims = Claims::new(members, times);
    own_checks::of_both(&claims, algorithm, e)?;
    Ok((claims, algorithm))
}

fn take_apart(token: &str) -> Result<CompactJws<'_>, Violation> {
    CompactJws::parse(token).map_err(unreadable)
}

fn unreadable(problem: Unreadable) -> Violation {
    match problem {
        Unreadable::Malformed => violation(Rule::IdTokenMalformed),
        Unreadable::Critical => violation(Rule::IdTokenHeader),
        Unreadable::Repeated(parameter) => at(Rule::RepeatedMember, parameter),
    }
}

/// `none` and every unknown name end here.
fn algorithm(header: &Header) -> Result<SigningAlgorithm, Violation> {
    SigningAlgorithm::from_name(&header.alg).ok_or_else(|| violation(Rule::IdTokenAlgorithm))
}

/// The claims that checks need.
const CHECKED: [&str; 13] =
    ["iss", "sub", "aud", "exp", "iat", "nbf", "nonce", "azp", "at_hash", "c_hash", "auth_time", "acr", "jti"];

/// The claims as they stand. RFC 7519 §4: "The Claim Names within a JWT Claims Set MUST be unique; JWT parsers MUST either
/// reject JWTs with duplicate Claim Names or use a JSON parser that returns only the lexically last duplicate member name".
fn members(payload: &[u8]) -> Result<Map<String, Value>, Violation> {
    let object = Object::parse(payload).map_err(|_| violation(Rule::IdTokenMalformed))?;
    object.needing(&CHECKED).map_err(|name| at(Rule::RepeatedMember, name))
}

/// The part that `openidconnect` checks: `typ`, `cty`, `iss`, `aud`, the algorithm, the signature, `exp` and `nonce`.
fn authenticate(
    token: &OpenIdToken<EmptyAdditionalClaims, CoreGenderClaim, NoEncryption, OpenIdAlgorithm>,
    kid: Option<&str>,
    algorithm: SigningAlgorithm,
    keys: &KeySet,
    e: &Expectations<'_>,
) -> Result<Times, Violation> {
    let issuer = IssuerUrl::new(e.issuer.to_owned()).map_err(|_| at(Rule::IdTokenIssuer, "iss"))?;
    let client_id = ClientId::new(e.client_id.to_owned());
    if algorithm.is_symmetric() {
        // RFC 7518 §3.2: "A key of the same size as the hash output [...] or larger MUST be used with this algorithm."
        let secret = e
            .hmac_secret
            .filter(|secret| secret.expose().len() >= algorithm.hash().length())
            .ok_or_else(|| violation(Rule::IdTokenAlgorithm))?;
        let secret = ClientSecret::new(secret.expose().to_owned());
        let no_keys = JsonWebKeySet::new(Vec::new());
        let verifier = IdTokenVerifier::new_confidential_client(client_id, secret, issuer, no_keys);
        return with_verifier(token, verifier, algorithm, e).map_err(|error| rule_of(&error));
    }
    let mut failure = violation(Rule::IdTokenNoKey);
    // Several keys fit where tokens have no `kid` or two keys share one. `openidconnect` would call that ambiguous.
    for key in keys.candidates(algorithm, kid) {
        let keys = JsonWebKeySet::new(vec![key.with_kid(kid)]);
        let verifier = IdTokenVerifier::new_public_client(client_id.clone(), issuer.clone(), keys);
        match with_verifier(token, verifier, algorithm, e) {
            Ok(times) => return Ok(times),
            Err(error) => failure = rule_of(&error),
        }
        if failure.rule() != Rule::IdTokenSignature {
            break;
        }
    }
    Err(failure)
}

fn with_verifier(
    token: &OpenIdToken<EmptyAdditionalClaims, CoreGenderClaim, NoEncryption, OpenIdAlgorithm>,
    verifier: IdTokenVerifier<'_, VerificationKey>,
    algorithm: SigningAlgorithm,
    e: &Expectations<'_>,
) -> Result<Times, ClaimsVerificationError> {
    // Captured by value: the verifier wants its own lifetime for what it borrows.
    let (trusted, earliest) = (e.trusted_audiences.to_vec(), from_unix_seconds(e.earliest()));
    let verifier = verifier
        .set_allowed_algs([OpenIdAlgorithm(algorithm)])
        .set_other_audience_verifier_fn(move |audience| trusted.contains(audience))
        .set_time_fn(move || earliest.into());
    let claims = match e.nonce {
        Some(nonce) => token.claims(&verifier, &Nonce::new(nonce.to_owned())),
        None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())),
    };
    claims.map(times)
}

fn rule_of(error: &ClaimsVerificationError) -> Violation {
    use ClaimsVerificationError as E;
    use SignatureVerificationError as S;
    match error {
        E::Unsupported(_) => violation(Rule::IdTokenHeader),
        E::InvalidIssuer(_) => at(Rule::IdTokenIssuer, "iss"),
        E::InvalidAudience(_) => at(Rule::IdTokenAudience, "aud"),
        E::Expired(_) => at(Rule::IdTokenExpired, "exp"),
        E::InvalidNonce(_) => at(Rule::IdTokenNonce, "nonce"),
        E::InvalidSubject(_) => at(Rule::IdTokenSubject, "sub"),
        E::InvalidAuthContext(_) => at(Rule::IdTokenAcr, "acr"),
        E::InvalidAuthTime(_) => at(Rule::IdTokenAuthTime, "auth_time"),
        E::SignatureVerification(S::DisallowedAlg(_) | S::NoSignature | S::UnsupportedAlg(_)) => {
            violation(Rule::IdTokenAlgorithm)
        }
        E::SignatureVerification(S::NoMatchingKey | S::InvalidKey(_) | S::AmbiguousKeyId(_)) => {
            violation(Rule::IdTokenNoKey)
        }
        E::SignatureVerification(_) => violation(Rule::IdTokenSignature),
        _ => violation(Rule::IdTokenClaims),
    }
}

fn times(claims: &IdTokenClaims<EmptyAdditionalClaims, CoreGenderClaim>) -> Times {
    // Before 1970 is as good as 1970: too early for every check.
    let seconds = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    Times {
        issued_at: seconds(claims.issue_time().timestamp()),
        expires_at: seconds(claims.expiration().timestamp()),
        auth_time: claims.auth_time().map(|time| seconds(time.timestamp())),
        updated_at: claims.updated_at().map(|time| seconds(time.timestamp())),
    }
}

pub(super) fn violation(rule: Rule) -> Violation {
    Violation::new(rule).in_document(Document::IdToken)
}

pub(super) fn at(rule: Rule, claim: &'static str) -> Violation {
    violation(rule).at_member(claim)
}
