//! Differences between the requested and the registered metadata. RFC 7591 §3.2.1: "The authorization server MAY reject
//! or replace any of the client's requested metadata values submitted during the registration and substitute them with
//! suitable values."

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::metadata::{ClientMetadata, DEFAULT_METHOD, words};
use super::request::SUBJECTS;
use crate::dialect::{CODE_GRANT, Dialect, ResponseType};
use crate::jose::{ContentEncryptionAlgorithm, KeyManagementAlgorithm, SigningAlgorithm};

/// One member of the client metadata that differs from the request.
///
/// `Debug` shows the name of the member and the effect of the difference, and no values.
#[derive(Clone, PartialEq)]
pub struct RegistrationDifference {
    member: String,
    requested: Option<Value>,
    registered: Option<Value>,
    effect: DifferenceEffect,
    problem: &'static str,
}

/// The effect of a [`RegistrationDifference`] on the client.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DifferenceEffect {
    /// The client works as intended. A client that is made from the registration follows the OP.
    Harmless,
    /// The client works, but lacks something that protects it or its users, or receives no pings. Check it before users
    /// sign in.
    Weakens,
    /// The client would be refused, or could not read an answer. No client is made from such a registration.
    Breaks,
}

use DifferenceEffect::{Breaks, Harmless, Weakens};

impl RegistrationDifference {
    /// The name of the member, with its language tag if it has one.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// The requested value. `None` if there was none and the OP requires something of the client.
    pub fn requested(&self) -> Option<&Value> {
        self.requested.as_ref()
    }

    /// The registered value. `None` if the OP does not mention the member.
    pub fn registered(&self) -> Option<&Value> {
        self.registered.as_ref()
    }

    /// The effect on the client.
    pub fn effect(&self) -> DifferenceEffect {
        self.effect
    }

    /// The meaning for the client, in a few words.
    pub fn problem(&self) -> &'static str {
        self.problem
    }
}

impl fmt::Display for RegistrationDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`: {}", self.member, self.problem)
    }
}

impl fmt::Debug for RegistrationDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RegistrationDifference")
            .field("member", &self.member)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

/// The members that an OP may set without a request, so that the client has to act accordingly.
const DEMANDS: [&str; 13] = [
    "token_endpoint_auth_method",
    "id_token_signed_response_alg",
    "id_token_encrypted_response_alg",
    "id_token_encrypted_response_enc",
    "userinfo_signed_response_alg",
    "userinfo_encrypted_response_alg",
    "userinfo_encrypted_response_enc",
    "dpop_bound_access_tokens",
    "tls_client_certificate_bound_access_tokens",
    "require_pushed_authorization_requests",
    "require_signed_request_object",
    "authorization_encrypted_response_alg",
    "backchannel_authentication_request_signing_alg",
];

/// All differences, the worst first.
pub(super) fn differences(requested: &ClientMetadata, registered: &ClientMetadata) -> Vec<RegistrationDifference> {
    let asked = requested.as_json().iter();
    let asked = asked.filter(|(_, value)| !is_nothing(value)).map(|(name, value)| (name.as_str(), Some(value)));
    let is_new = |name: &&str| requested.get(name).is_none_or(is_nothing);
    let demanded = DEMANDS.into_iter().filter(is_new).map(|name| (name, None));
    let mut differences: Vec<_> = asked
        .chain(demanded)
        .filter_map(|(name, value)| {
            let answer = registered.get(name);
            if is_same(name, value, answer) {
                return None;
            }
            let (effect, problem) = effect(name, value, requested, registered)?;
            let (requested, registered) = (value.cloned(), answer.cloned());
            Some(RegistrationDifference { member: name.to_owned(), requested, registered, effect, problem })
        })
        .collect();
    // The sort is stable: members stay in the order of the request.
    differences.sort_by_key(|difference| std::cmp::Reverse(difference.effect));
    differences
}

/// Whether a value means the same as an absent member.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

fn is_same(name: &str, requested: Option<&Value>, registered: Option<&Value>) -> bool {
    match (requested, registered) {
        (None, None) => true,
        (None, Some(value)) => is_nothing(value),
        // RFC 7591 §2 defines defaults, which some OPs do not repeat.
        (Some(value), None) => match name {
            "token_endpoint_auth_method" => value == DEFAULT_METHOD,
            "id_token_signed_response_alg" => value == "RS256",
            "application_type" => value == "web",
            "backchannel_token_delivery_mode" => value == "poll",
            "response_types" => set(value) == BTreeSet::from(["code".to_owned()]),
            "grant_types" => set(value) == BTreeSet::from([CODE_GRANT.to_owned()]),
            _ => false,
        },
        (Some(Value::String(left)), Some(Value::String(right))) if name == "scope" => words(left) == words(right),
        (Some(left), Some(right)) if name == "jwks" => public_keys(left) == public_keys(right),
        // `default_acr_values` is the one list with an order.
        (Some(left @ Value::Array(_)), Some(right @ Value::Array(_))) if name != "default_acr_values" => {
            set(left) == set(right)
        }
        (Some(left), Some(right)) => left == right,
    }
}

/// A list without regard to order and repetitions, and each value without regard to the order of its words.
fn set(value: &Value) -> BTreeSet<String> {
    let normal = |value: &Value| match value.as_str() {
        Some(text) => words(text).into_iter().collect::<Vec<_>>().join(" "),
        None => value.to_string(),
    };
    value.as_array().into_iter().flatten().map(normal).collect()
}

/// The key material, without the other members.
fn public_keys(jwks: &Value) -> BTreeSet<String> {
    const MATERIAL: [&str; 6] = ["kty", "crv", "x", "y", "n", "e"];
    let keys = jwks.get("keys").and_then(Value::as_array);
    let material = |key: &Value| {
        let members = MATERIAL.iter().filter_map(|&name| Some((name.to_owned(), key.get(name)?.clone())));
        Value::Object(members.collect::<Map<_, _>>()).to_string()
    };
    keys.into_iter().flatten().map(material).collect()
}

/// The effect of a difference and its description. `None` if it is no difference after all.
fn effect(
    name: &str,
    asked: Option<&Value>,
    requested: &ClientMetadata,
    registered: &ClientMetadata,
) -> Option<(DifferenceEffect, &'static str)> {
    let answer = registered.get(name);
    let text = answer.and_then(Value::as_str);
    Some(match name {
        "redirect_uris" => redirect_uris(requested, registered),
        "response_types" => response_types(requested, registered),
        "grant_types" => grant_types(requested, registered),
        "token_endpoint_auth_method" if asked.is_none() => match text {
            Some(method) if METHODS.contains(&method) => return None,
            _ => (Breaks, "the OP expects an authentication method that this crate does not support"),
        },
        "token_endpoint_auth_method" => (Breaks, "the OP refuses the client's authentication method"),
        "token_endpoint_auth_signing_alg" if answer.is_none() => {
            (Harmless, "the OP accepts any algorithm that it lists")
        }
        "token_endpoint_auth_signing_alg" | "request_object_signing_alg" => {
            (Breaks, "the client signs with another algorithm, which the OP refuses")
        }
        "id_token_signed_response_alg" | "userinfo_signed_response_alg" | "authorization_signed_response_alg" => {
            match signature(asked, answer) {
                // ID Tokens are always signed, and without a request the OP has to choose.
                (Harmless, _) if asked.is_none() && name == "id_token_signed_response_alg" => return None,
                effect => effect,
            }
        }
        "authorization_encrypted_response_alg" if asked.is_none() => {
            (Harmless, "authorization responses that are JWTs are encrypted; the client needs a decryption key")
        }
        "id_token_encrypted_response_alg"
        | "userinfo_encrypted_response_alg"
        | "authorization_encrypted_response_alg" => key_management(text),
        "id_token_encrypted_response_enc"
        | "userinfo_encrypted_response_enc"
        | "authorization_encrypted_response_enc" => content_encryption(text),
        "post_logout_redirect_uris" => post_logout_redirect_uris(requested, registered),
        "backchannel_logout_uri" => (Weakens, "the OP does not tell the client when it ends a session"),
        "backchannel_logout_session_required" => (Weakens, "logout tokens may end all sessions of a user"),
        name if name.starts_with("backchannel_") => backchannel(name, asked, answer),
        "require_signed_request_object" if asked.is_none() => {
            (Weakens, "the OP accepts only signed authorization requests, so the client must sign them")
        }
        "dpop_bound_access_tokens"
        | "tls_client_certificate_bound_access_tokens"
        | "require_pushed_authorization_requests"
        | "require_signed_request_object" => match asked {
            None => (Harmless, "the OP requires it, although this was not requested"),
            Some(_) => (Weakens, "the OP does not enforce it, so only the client ensures it"),
        },
        "jwks" | "jwks_uri" => match answer {
            None => (Weakens, "the OP does not confirm that it knows the client's keys"),
            Some(_) => (Breaks, "the OP registered other keys for the client"),
        },
        "deferred_client_notification_endpoint" => (Weakens, NO_PINGS),
        "subject_type" | "sector_identifier_uri" => (Weakens, "the `sub` of users is of another kind"),
        "default_max_age" | "require_auth_time" => (Weakens, "ID Tokens may not state when users authenticated"),
        "scope" => match registered.scope().is_some_and(|scopes| !scopes.contains(&"openid")) {
            true => (Breaks, "`openid` is missing, so there are no ID Tokens"),
            false => (Harmless, "the client may request other scopes"),
        },
        name if SUBJECTS.contains(&name) => (Breaks, "the OP does not recognise the client's certificate"),
        _ => (Harmless, "the OP registered another value"),
    })
}

fn key_management(registered: Option<&str>) -> (DifferenceEffect, &'static str) {
    match registered.map(KeyManagementAlgorithm::from_name) {
        None => (Weakens, "encryption was requested, but is not used"),
        Some(None) => (Breaks, "it is encrypted with an algorithm that this crate does not support"),
        Some(Some(_)) => (Harmless, "it is encrypted with another algorithm, for which the client needs a key"),
    }
}

fn content_encryption(registered: Option<&str>) -> (DifferenceEffect, &'static str) {
    match registered.map(ContentEncryptionAlgorithm::from_name) {
        Some(None) => (Breaks, "it is encrypted with an algorithm that this crate does not support"),
        Some(Some(_)) | None => (Harmless, "its content is encrypted with another algorithm"),
    }
}

const NO_PINGS: &str = "the OP sends no pings; only polls find the outcome";

/// The members of CIBA (§4).
fn backchannel(name: &str, asked: Option<&Value>, answer: Option<&Value>) -> (DifferenceEffect, &'static str) {
    match name {
        "backchannel_token_delivery_mode" => delivery_mode(answer.and_then(Value::as_str)),
        "backchannel_authentication_request_signing_alg" => backchannel_signature(asked, answer),
        "backchannel_client_notification_endpoint" => (Weakens, NO_PINGS),
        _ => (Harmless, "the OP registered another value"),
    }
}

fn delivery_mode(text: Option<&str>) -> (DifferenceEffect, &'static str) {
    match text {
        Some("push") => (Breaks, "the OP pushes tokens, which this crate does not support"),
        Some("ping") => (Harmless, "the OP sends pings, and requests need a notification token"),
        _ => (Weakens, NO_PINGS),
    }
}

fn backchannel_signature(asked: Option<&Value>, answer: Option<&Value>) -> (DifferenceEffect, &'static str) {
    match (asked, answer) {
        (None, _) => {
            (Weakens, "the OP accepts only signed backchannel authentication requests, so the client must sign them")
        }
        (Some(_), None) => (Weakens, "the OP does not enforce signed requests, so only the client ensures them"),
        (Some(_), Some(_)) => (Breaks, "the client signs with another algorithm, which the OP refuses"),
    }
}

/// The methods that this crate supports.
pub(super) const METHODS: [&str; 7] = [
    "none",
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
];

fn redirect_uris(requested: &ClientMetadata, registered: &ClientMetadata) -> (DifferenceEffect, &'static str) {
    let registered = registered.redirect_uris();
    match requested.redirect_uris().iter().all(|uri| registered.contains(uri)) {
        true => (Weakens, "the OP also accepts redirect URIs that were not requested"),
        false => (Breaks, "a redirect URI is missing, and the OP refuses requests with it"),
    }
}

fn post_logout_redirect_uris(
    requested: &ClientMetadata,
    registered: &ClientMetadata,
) -> (DifferenceEffect, &'static str) {
    let registered = registered.post_logout_redirect_uris();
    match requested.post_logout_redirect_uris().iter().all(|uri| registered.contains(uri)) {
        true => (Harmless, "the OP also accepts other URIs after a logout"),
        false => (Weakens, "a URI is missing, and the OP refuses logouts that return to it"),
    }
}

fn response_types(requested: &ClientMetadata, registered: &ClientMetadata) -> (DifferenceEffect, &'static str) {
    let asked = || ResponseType::ALL.into_iter().filter(|kind| requested.allows_response_type(*kind));
    let left = || asked().filter(|kind| registered.allows_response_type(*kind));
    let deferred = ResponseType::may_defer;
    if left().next().is_none() || (asked().any(deferred) && !left().any(deferred)) {
        return (Breaks, "the OP refuses every authorization request of the flow");
    }
    (Harmless, "the client may use other response types")
}

fn grant_types(requested: &ClientMetadata, registered: &ClientMetadata) -> (DifferenceEffect, &'static str) {
    let (asked, left) = (requested.grant_types(), registered.grant_types());
    let missing = |grant: &str| asked.contains(&grant) && !left.contains(&grant);
    if Dialect::ALL.into_iter().any(|dialect| missing(dialect.protocol().grant_type())) {
        return (Breaks, "the deferred grant is missing, and the client cannot poll");
    }
    if missing(CODE_GRANT) {
        return (Breaks, "the code grant is missing, and no code can be exchanged");
    }
    if missing("refresh_token") {
        return (Weakens, "there are no refresh tokens");
    }
    (Harmless, "the client may use other grant types")
}

/// With an HMAC that was not requested, any party that knows the client secret could sign ID Tokens.
fn signature(asked: Option<&Value>, answer: Option<&Value>) -> (DifferenceEffect, &'static str) {
    let Some(answer) = answer else {
        return (Weakens, "the OP does not confirm the requested signature algorithm");
    };
    let algorithm = |value: Option<&Value>| value.and_then(Value::as_str).and_then(SigningAlgorithm::from_name);
    let asked_for_hmac = algorithm(asked).is_some_and(SigningAlgorithm::is_symmetric);
    match algorithm(Some(answer)) {
        None => (Breaks, "it is unsigned, or signed with an algorithm that this crate does not support"),
        Some(registered) if registered.is_symmetric() && !asked_for_hmac => {
            (Breaks, "it is signed with an HMAC, which is accepted only if it was requested")
        }
        Some(_) => (Harmless, "it is signed with another algorithm"),
    }
}
