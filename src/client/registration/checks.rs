//! Checks of a registration request before it is sent.

use std::collections::BTreeSet;

use serde_json::Value;
use url::Url;

use super::metadata::{ClientMetadata, DEFAULT_METHOD};
use super::request::SUBJECTS;
use crate::client::delivery_mode::DeliveryMode;
use crate::client::setting::{check_post_logout_redirect_uri, check_redirect_uri, setting};
use crate::dialect::{Dialect, ResponseType};
use crate::error::{Error, Misuse};

/// Members of a JWK that only the owner of the key may have (RFC 7518 §6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The members that describe encryption, in pairs.
const ENCRYPTION: [(&str, &str); 4] = [
    ("id_token_encrypted_response_alg", "id_token_encrypted_response_enc"),
    ("userinfo_encrypted_response_alg", "userinfo_encrypted_response_enc"),
    ("authorization_encrypted_response_alg", "authorization_encrypted_response_enc"),
    ("request_object_encryption_alg", "request_object_encryption_enc"),
];

impl super::RegistrationRequest {
    /// Checks that this request can be sent.
    pub(super) fn check(&self) -> Result<(), Error> {
        if let Some(name) = &self.reserved {
            return Err(Misuse::ReservedParameter(name.clone()).into());
        }
        let metadata = self.metadata();
        redirect_uris(metadata)?;
        urls(metadata)?;
        logout(metadata)?;
        grants(metadata)?;
        backchannel(metadata)?;
        keys(metadata)?;
        authentication(metadata)?;
        encryption(metadata)?;
        sector(metadata)?;
        languages(metadata)?;
        if metadata.dpop_bound_access_tokens() && metadata.tls_client_certificate_bound_access_tokens() {
            return Err(setting(
                "dpop_bound_access_tokens",
                "access tokens can be bound to a DPoP key or to the client certificate, not to both; choose one",
            ));
        }
        Ok(())
    }
}

fn redirect_uris(metadata: &ClientMetadata) -> Result<(), Error> {
    if metadata.redirect_uris().is_empty() && !is_without_browser(metadata) {
        return Err(setting("redirect_uri", "there is none; register at least one"));
    }
    metadata.redirect_uris().into_iter().try_for_each(check_redirect_uri)
}

fn urls(metadata: &ClientMetadata) -> Result<(), Error> {
    // DTR §Client Registration Metadata: "It MUST be an HTTPS URL." OpenID Connect Dynamic Client Registration 1.0 §2
    // requires the same of the others, and OpenID Connect Back-Channel Logout 1.0 §2.2 recommends it.
    for name in [
        "deferred_client_notification_endpoint",
        "backchannel_client_notification_endpoint",
        "backchannel_logout_uri",
        "jwks_uri",
        "sector_identifier_uri",
        "initiate_login_uri",
    ] {
        let Some(value) = metadata.get(name) else { continue };
        if !url(value).is_some_and(|url| url.scheme() == "https" && url.fragment().is_none() && is_anonymous(&url)) {
            return Err(setting(name, "it must be an absolute `https:` URL, without a user name and a fragment"));
        }
    }
    for name in ["client_uri", "logo_uri", "policy_uri", "tos_uri"] {
        let shown = |text: &str| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
        if !metadata.in_languages(name).all(|(_, text)| shown(text)) {
            return Err(setting(name, "it must be the absolute URL of a web page or a picture"));
        }
    }
    Ok(())
}

/// OpenID Connect RP-Initiated Logout 1.0 §3.1; OpenID Connect Back-Channel Logout 1.0 §2.2.
fn logout(metadata: &ClientMetadata) -> Result<(), Error> {
    metadata.post_logout_redirect_uris().into_iter().try_for_each(check_post_logout_redirect_uri)?;
    match metadata.backchannel_logout_session_required() && metadata.backchannel_logout_uri().is_none() {
        true => Err(setting("backchannel_logout_session_required", "it needs a `backchannel_logout_uri`")),
        false => Ok(()),
    }
}

/// RFC 7591 §2.1: an OP "SHOULD take steps to ensure that a client cannot register itself into an inconsistent state".
fn grants(metadata: &ClientMetadata) -> Result<(), Error> {
    if metadata.response_types().is_empty() && !is_without_browser(metadata) {
        return Err(setting("response_types", "there is none; register at least one"));
    }
    let grants = metadata.grant_types();
    for kind in ResponseType::ALL.into_iter().filter(|kind| metadata.allows_response_type(*kind)) {
        let needed = Dialect::OpenId.protocol().grant_types(kind);
        if !needed.iter().all(|needed| grants.contains(needed)) {
            return Err(setting("grant_types", "a response type needs a grant type that is missing"));
        }
    }
    Ok(())
}

/// Whether no user comes back through a browser: the only purpose is backchannel authentication.
fn is_without_browser(metadata: &ClientMetadata) -> bool {
    metadata.is_for_backchannel() && metadata.response_types().is_empty()
}

/// CIBA §4.
fn backchannel(metadata: &ClientMetadata) -> Result<(), Error> {
    match metadata.backchannel_token_delivery_mode() {
        Some(mode) if mode == DeliveryMode::Push.as_str() => {
            Err(setting("backchannel_token_delivery_mode", "push mode is not supported; request `poll` or `ping`"))
        }
        // "REQUIRED if the token delivery mode is set to ping or push."
        Some(mode)
            if mode == DeliveryMode::Ping.as_str() && metadata.backchannel_client_notification_endpoint().is_none() =>
        {
            Err(setting("backchannel_client_notification_endpoint", "ping mode needs it (CIBA §4)"))
        }
        _ => Ok(()),
    }
}

fn keys(metadata: &ClientMetadata) -> Result<(), Error> {
    let Some(jwks) = metadata.get("jwks") else { return Ok(()) };
    // RFC 7591 §2: "The "jwks_uri" and "jwks" parameters MUST NOT both be present in the same request or response."
    if metadata.jwks_uri().is_some() {
        return Err(setting("jwks", "`jwks` and `jwks_uri` exclude each other; set one of them"));
    }
    let Some(keys) = jwks.get("keys").and_then(Value::as_array) else {
        return Err(setting("jwks", "it is not a JWK Set, which is an object with an array `keys`"));
    };
    if keys.iter().any(|key| !key.is_object() || PRIVATE.iter().any(|&member| key.get(member).is_some())) {
        return Err(setting("jwks", "it contains a private or symmetric key; register public keys only"));
    }
    Ok(())
}

fn authentication(metadata: &ClientMetadata) -> Result<(), Error> {
    let method = metadata.token_endpoint_auth_method().unwrap_or(DEFAULT_METHOD);
    let has_keys = metadata.jwks().is_some() || metadata.jwks_uri().is_some();
    if matches!(method, "private_key_jwt" | "self_signed_tls_client_auth") && !has_keys {
        return Err(setting("token_endpoint_auth_method", "the OP must know the public key; set `jwks` or `jwks_uri`"));
    }
    // RFC 8705 §2.1.2: "A client using the "tls_client_auth" authentication method MUST use exactly one of the below
    // metadata parameters".
    let subjects = SUBJECTS.iter().filter(|&&name| metadata.get(name).is_some()).count();
    if method == "tls_client_auth" && subjects != 1 {
        return Err(setting("tls_client_auth", "the OP must know exactly one name of the certificate"));
    }
    if metadata.get("token_endpoint_auth_signing_alg").is_some_and(|algorithm| algorithm == "none") {
        return Err(setting("token_endpoint_auth_signing_alg", "an assertion must be signed"));
    }
    Ok(())
}

fn encryption(metadata: &ClientMetadata) -> Result<(), Error> {
    let has_keys = metadata.jwks().is_some() || metadata.jwks_uri().is_some();
    for (alg, enc) in ENCRYPTION {
        // OpenID Connect Dynamic Client Registration 1.0 §2: "When id_token_encrypted_response_enc is included,
        // id_token_encrypted_response_alg MUST also be provided."
        if metadata.get(enc).is_some() && metadata.get(alg).is_none() {
            return Err(setting(enc, "it needs an algorithm for the key; set that too"));
        }
        // What a client encrypts, it encrypts for a key of the OP.
        if metadata.get(alg).is_some() && alg != "request_object_encryption_alg" && !has_keys {
            return Err(setting(
                alg,
                "the OP must know a public key to encrypt for; set `decryption_key` or `jwks_uri`",
            ));
        }
    }
    Ok(())
}

/// OpenID Connect Core 1.0 §8.1: "If there are multiple hostnames in the registered redirect_uris, the Client MUST
/// register a sector_identifier_uri."
fn sector(metadata: &ClientMetadata) -> Result<(), Error> {
    if metadata.subject_type() != Some("pairwise") || metadata.sector_identifier_uri().is_some() {
        return Ok(());
    }
    let hosts: BTreeSet<_> = metadata
        .redirect_uris()
        .into_iter()
        .filter_map(|uri| Url::parse(uri).ok()?.host_str().map(str::to_owned))
        .collect();
    match hosts.len() {
        0 | 1 => Ok(()),
        _ => Err(setting("sector_identifier_uri", "pairwise subjects need it if redirect URIs have several hosts")),
    }
}

/// RFC 7591 §2.2: names can have a BCP 47 language tag after a `#`.
fn languages(metadata: &ClientMetadata) -> Result<(), Error> {
    let is_tag = |tag: &str| {
        let is_subtag =
            |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        tag.split('-').all(is_subtag)
    };
    if metadata.as_json().keys().filter_map(|name| name.split_once('#')).all(|(_, tag)| is_tag(tag)) {
        return Ok(());
    }
    Err(setting("language", "it is not a BCP 47 language tag such as `de` or `zh-Hant`"))
}

fn url(value: &Value) -> Option<Url> {
    Url::parse(value.as_str()?).ok().filter(Url::has_host)
}

fn is_anonymous(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}
