//! Logout tokens: unchanged inputs, and claims with a signature that only a genuine OP can make.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::world::{CLIENT_ID, CLIENT_SECRET, ISSUER, NOW, Site, World, check_debug, check_error, check_time, run};
use crate::clock::from_unix_seconds;
use crate::jose::hmac_sha256;
use crate::json::Object;

const LEEWAY: u64 = 60;
const DAY: u64 = 86_400;

/// The first byte selects how the rest becomes a token. It is used unchanged, or its first line is the header and the
/// rest are the claims, authenticated with the client secret like a token of the OP.
pub fn logout_token(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let world = World::new(Site::new(VecDeque::new()));
    let client = World::client(world.with_secret());
    if choice % 2 == 0 {
        // The genuine tokens of the fuzzer are ID Tokens, and nobody else can make one.
        check_error(&run(client.logout_token(&String::from_utf8_lossy(rest))).expect_err("nobody signed it"));
        return;
    }
    let mut parts = rest.splitn(2, |&byte| byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mac = hmac_sha256(CLIENT_SECRET.as_bytes(), &[message.as_bytes()]);
    match run(client.logout_token(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac)))) {
        Err(error) => check_error(&error),
        Ok(token) => {
            check_debug(&token);
            let times = [token.issued_at(), token.expires_at(), token.usable_until()];
            times.into_iter().for_each(check_time);
            assert!(token.usable_until() > from_unix_seconds(NOW));
            let text = |value: Option<&str>| value.is_none_or(|text| (1..=255).contains(&text.chars().count()));
            assert!(text(token.subject()) && text(token.sid()) && text(Some(token.jti())));
            accepted(header, claims);
        }
    }
    assert_eq!(world.site.requests(), 0);
}

/// Looks at an accepted token again, independently of the code that parses claims.
fn accepted(header: &[u8], claims: &[u8]) {
    let object = |json: &[u8]| Object::parse(json).unwrap().members().clone();
    let (header, claims) = (object(header), Value::Object(object(claims)));
    assert!(header["alg"] == "HS256" && header.get("crit").is_none_or(Value::is_null));
    let kind = header.get("typ").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    assert!(["", "jwt", "logout+jwt", "application/jwt", "application/logout+jwt"].contains(&&*kind), "{kind}");
    assert_eq!(claims["iss"], ISSUER);
    assert!(claims["aud"] == CLIENT_ID || claims["aud"].as_array().unwrap().iter().all(|one| one == CLIENT_ID));
    assert!(claims["events"]["http://schemas.openid.net/event/backchannel-logout"].is_object());
    assert!(claims["sub"].is_string() || claims["sid"].is_string());
    assert!(claims["jti"].is_string() && claims.get("nonce").is_none());
    let time = |name: &str| claims[name].as_f64().unwrap();
    assert!(time("exp") > (NOW - LEEWAY) as f64 && time("exp") < (NOW + DAY + LEEWAY + 1) as f64);
    assert!(time("iat") >= (NOW - DAY - LEEWAY) as f64 && time("iat") < (NOW + LEEWAY + 1) as f64);
}
