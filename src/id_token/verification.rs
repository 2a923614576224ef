//! The checks, in the order of OpenID Connect Core 1.0 §3.1.3.7.

use openidconnect::core::CoreGenderClaim;
use openidconnect::{
    ClaimsVerificationError, ClientId, EmptyAdditionalClaims, IdToken as OpenIdToken, IdTokenVerifier, IssuerUrl,
    JsonWebKeySet, Nonce, SignatureVerificationError,
};
use serde_json::{Map, Value};

use super::claims::{Claims, Times};
use super::expectations::Expectations;
use super::protocol_claims::ProtocolClaims;
use super::standard_claims::warn_about_malformed;
use super::violation::{at, violation};
use super::{IdToken, InterimIdToken, InterimMember, own_checks};
use crate::clock::from_unix_seconds;
use crate::error::{Document, Rule, Violation};
use crate::jose::{
    CompactJws, Header, KeyOfToken, KeySet, NoEncryption, OpenIdAlgorithm, SigningAlgorithm, Unreadable,
};
use crate::json::{Members, Object};
use crate::secret::Secret;

/// Verifies the ID Token of a final response.
pub(crate) fn verify_final(token: &str, keys: &KeySet, e: &Expectations<'_>) -> Result<IdToken, Violation> {
    let (claims, algorithm) = verify(token, keys, e)?;
    own_checks::of_final(token, &claims, e)?;
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
    own_checks::not_interim(token, &claims, e)?;
    own_checks::of_refreshed(&claims, nonce(token)?, original.claims(), nonce(original.token.expose())?)?;
    Ok(IdToken { claims, token: Secret::new(token), algorithm })
}

/// The `nonce` of a token, which verified claims no longer have.
fn nonce(token: &str) -> Result<Option<Value>, Violation> {
    Ok(members(take_apart(token)?.payload(), None)?.shift_remove("nonce").filter(|nonce| !nonce.is_null()))
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
    let members = members(jws.payload(), Some(e))?;
    let deciding = ProtocolClaims::of(&members, e)?;
    authenticate(&jws, &deciding, algorithm, keys, e)?;
    let times = Times { issued_at: deciding.iat, expires_at: deciding.exp, auth_time: deciding.auth_time };
    let claims = Claims::new(members, times);
    own_checks::of_both(&claims, algorithm, e)?;
    warn_about_malformed(Document::IdToken, claims.malformed());
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
const CHECKED: [&str; 11] = ["iss", "sub", "aud", "exp", "iat", "nbf", "nonce", "azp", "at_hash", "c_hash", "jti"];

/// The claims as they stand. RFC 7519 §4: "The Claim Names within a JWT Claims Set MUST be unique; JWT parsers MUST either
/// reject JWTs with duplicate Claim Names or use a JSON parser that returns only the lexically last duplicate member name".
fn members(payload: &[u8], e: Option<&Expectations<'_>>) -> Result<Map<String, Value>, Violation> {
    let object = Object::parse(payload).map_err(|_| violation(Rule::IdTokenMalformed))?;
    let asked_for = [
        ("auth_time", e.is_some_and(|e| e.require_auth_time || e.max_age.is_some())),
        ("acr", e.is_some_and(|e| e.require_acr || !e.essential_acr.is_empty())),
    ];
    let asked_for = asked_for.iter().filter(|(_, is_checked)| *is_checked).map(|(name, _)| *name);
    object
        .needing(&CHECKED.into_iter().chain(asked_for).collect::<Vec<_>>())
        .map(Members::into_map)
        .map_err(|flaw| flaw.rule(Rule::IdTokenMalformed))
        .map_err(|(rule, claim)| at(rule, claim))
}

/// An ID Token as `openidconnect` reads it.
type Token = OpenIdToken<EmptyAdditionalClaims, CoreGenderClaim, NoEncryption, OpenIdAlgorithm>;

/// The part that `openidconnect` checks: `typ`, `cty`, `iss`, `aud`, the algorithm, the signature, `exp` and `nonce`.
fn authenticate(
    jws: &CompactJws<'_>,
    claims: &ProtocolClaims<'_>,
    algorithm: SigningAlgorithm,
    keys: &KeySet,
    e: &Expectations<'_>,
) -> Result<(), Violation> {
    let issuer = IssuerUrl::new(e.issuer.to_owned()).map_err(|_| at(Rule::IdTokenIssuer, "iss"))?;
    let token = claims.reduced_token(jws.header(), jws.signature())?;
    let token: Token = token.parse().map_err(|_| violation(Rule::IdTokenHeader))?;
    let by_secret = if algorithm.is_symmetric() { Some(secret_key(algorithm, e)?) } else { None };
    let mut failure = violation(Rule::IdTokenNoKey);
    // Several keys fit where tokens have no `kid` or two keys share one. `openidconnect` would call that ambiguous.
    for key in by_secret.as_ref().unwrap_or(keys).candidates(algorithm, jws.header().kid.as_deref()) {
        match with_key(&token, KeyOfToken::new(key, jws), issuer.clone(), algorithm, e) {
            Ok(()) => return Ok(()),
            Err(error) => failure = rule_of(&error),
        }
        if failure.rule() != Rule::IdTokenSignature {
            break;
        }
    }
    Err(failure)
}

/// The client secret as the key of an HMAC. RFC 7518 §3.2: "A key of the same size as the hash output [...] or larger MUST
/// be used with this algorithm."
fn secret_key(algorithm: SigningAlgorithm, e: &Expectations<'_>) -> Result<KeySet, Violation> {
    let secret = e.hmac_secret.as_deref().filter(|secret| secret.expose().len() >= algorithm.hash().length());
    secret.map(KeySet::of_secret).ok_or_else(|| violation(Rule::IdTokenAlgorithm))
}

fn with_key(
    token: &Token,
    key: KeyOfToken,
    issuer: IssuerUrl,
    algorithm: SigningAlgorithm,
    e: &Expectations<'_>,
) -> Result<(), ClaimsVerificationError> {
    let keys = JsonWebKeySet::new(vec![key]);
    // Captured by value: the verifier wants its own lifetime for what it borrows.
    let (trusted, earliest) = (e.trusted_audiences.to_vec(), from_unix_seconds(e.earliest()));
    let verifier = IdTokenVerifier::new_public_client(ClientId::new(e.client_id.to_owned()), issuer, keys)
        .set_allowed_algs([OpenIdAlgorithm(algorithm)])
        .set_other_audience_verifier_fn(move |audience| trusted.contains(audience))
        .set_time_fn(move || earliest.into());
    let claims = match e.nonce {
        Some(nonce) => token.claims(&verifier, &Nonce::new(nonce.to_owned())),
        None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())),
    };
    claims.map(|_| ())
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
