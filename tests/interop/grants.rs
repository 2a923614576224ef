//! Token requests without a user. These OPs do not know that an answer may be deferred, and answer at once.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openid_deferred::{
    Clock as _, Error, Grant, IssuedTokens, Signer as _, SigningAlgorithm, SigningKey, SystemClock, TokenAnswer,
    TokenRequest,
};
use serde_json::json;

use crate::op::Op;
use crate::support::{chain, key_set, world_at};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const KEY_ID: &str = "the issuer's key";

async fn answered(request: TokenRequest<'_>) -> IssuedTokens {
    let sent = request.send().await;
    let reason = |error: &Error| error.error_response().and_then(|answer| answer.description().map(str::to_owned));
    match sent.unwrap_or_else(|error| panic!("{}: {:?}", chain(&error), reason(&error))) {
        TokenAnswer::Complete(tokens) => tokens,
        other => panic!("expected tokens, got {other:?}"),
    }
}

pub(crate) async fn the_clients_own_tokens_come_at_once(op: &impl Op) {
    let registered = json!({ "grant_types": ["authorization_code", "refresh_token", "client_credentials"] });
    let Some(world) = world_at(op, registered, |client| client).await else { return };
    let tokens = answered(world.client.token_request(Grant::client_credentials()).scopes(["openid"])).await;
    assert!(tokens.token_type().is_some() && tokens.extra("id_token").is_none());
    assert_eq!(tokens.token_type() == Some("DPoP"), tokens.is_sender_constrained());
}

pub(crate) async fn a_token_is_exchanged(op: &impl Op) {
    let registered = json!({ "grant_types": ["authorization_code", "refresh_token", TOKEN_EXCHANGE] });
    let Some(world) = world_at(op, registered, |client| client).await else { return };
    let signed_in = world.sign_in().await;
    let subject_token = signed_in.access_token().expect("there is one").expose();
    let grant = Grant::token_exchange(subject_token, ACCESS_TOKEN).requested_token_type(ACCESS_TOKEN);
    let request = world.client.token_request(grant).scopes(["openid"]);
    // The subject token may be bound to it.
    let request = signed_in.dpop_key().into_iter().fold(request, |request, key| request.dpop_key(key.clone()));
    let tokens = answered(request).await;
    assert_eq!(tokens.issued_token_type(), Some(ACCESS_TOKEN));
    assert!(!tokens.access_token().expose().is_empty());
}

pub(crate) async fn an_assertion_is_exchanged(op: &impl Op) {
    let generate = || SigningKey::generate(SigningAlgorithm::Rs256).unwrap();
    let (key, other) = (generate(), generate());
    let mut public = key.public_jwk();
    public.insert("kid".to_owned(), KEY_ID.into());
    let keys = key_set(public);
    let registered = json!({ "grant_types": ["authorization_code", "refresh_token", JWT_BEARER], "jwks": keys });
    let Some(world) = world_at(op, registered, |client| client).await else { return };
    // Some OPs need the consent of the user whom the assertion is about.
    world.sign_in().await;
    let (issuer, subject) = op.trusted_issuer(&world.client_id, keys).await;
    let request = |assertion| world.client.token_request(Grant::jwt_bearer(assertion)).scopes(["openid"]);

    let tokens = answered(request(assertion(&key, &issuer, &subject, &world.site.issuer).await)).await;
    assert!(tokens.token_type().is_some() && tokens.refresh_token().is_none());
    assert_eq!(tokens.token_type() == Some("DPoP"), tokens.is_sender_constrained());

    let forged = request(assertion(&other, &issuer, &subject, &world.site.issuer).await).send().await;
    let refused = forged.expect_err("another key has signed it");
    assert!(refused.error_response().is_some(), "{}", chain(&refused));
}

/// An assertion about a user or a client (RFC 7523 §3), which works once.
async fn assertion(key: &SigningKey, issuer: &str, subject: &str, audience: &str) -> String {
    let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap();
    let claims = json!({
        "iss": issuer,
        "sub": subject,
        "aud": audience,
        "jti": format!("{}", now.as_nanos()),
        "iat": now.as_secs(),
        "exp": (now + Duration::from_secs(200)).as_secs(),
    });
    let segment = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID });
    let message = format!("{}.{}", segment(header), segment(claims));
    let signature = key.sign(message.as_bytes()).await.unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
