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
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

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
    let key = SigningKey::generate(SigningAlgorithm::Rs256).unwrap();
    let registered = json!({ "grant_types": ["authorization_code", "refresh_token", JWT_BEARER], "jwks": key_set(key.public_jwk()) });
    let Some(world) = world_at(op, registered, |client| client).await else { return };
    let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap();
    let claims = json!({
        "iss": world.client_id,
        "sub": world.client_id,
        "aud": world.site.issuer,
        "iat": now.as_secs(),
        "exp": (now + Duration::from_secs(300)).as_secs(),
    });
    let segment = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", segment(json!({ "alg": "RS256", "typ": "JWT" })), segment(claims));
    let signature = key.sign(message.as_bytes()).await.unwrap();
    let assertion = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    let tokens = answered(world.client.token_request(Grant::jwt_bearer(assertion)).scopes(["openid"])).await;
    assert_eq!(tokens.token_type(), Some("Bearer"));
}
