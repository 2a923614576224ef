//! ID Tokens: unchanged inputs, and claims with a signature that only a genuine OP can make.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::world::{ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, CODE, FIXED, ISSUER, NONCE, NOW, PLANT, check_time, keys};
use crate::clock::from_unix_seconds;
use crate::error::{Rule, Violation};
use crate::id_token::{
    Claims, Expectations, IdToken, InterimFingerprint, InterimMember, header, verify_final, verify_interim,
    verify_refreshed,
};
use crate::jose::{KeySet, SigningAlgorithm, hmac_sha256};
use crate::json::Object;
use crate::secret::Secret;

const LEEWAY: u64 = 60;

/// The first byte selects how the rest becomes a token. It is used unchanged, or its first line is the header and the
/// rest are the claims, authenticated with the client secret like a token of the OP.
pub fn id_token(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    match choice % 2 {
        0 => as_it_stands(&String::from_utf8_lossy(rest), choice & 2 != 0),
        _ => {
            let mut parts = rest.splitn(2, |&byte| byte == b'\n');
            let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            let mac = hmac_sha256(CLIENT_SECRET.as_bytes(), &[message.as_bytes()]);
            authentic(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac)), header, claims, choice & 2 != 0);
        }
    }
}

fn key_set() -> &'static KeySet {
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(&keys()).unwrap());
    &KEYS
}

fn expecting<T>(is_strict: bool, then: impl FnOnce(&Expectations<'_>) -> T) -> T {
    let (secret, access_token, code) = (Secret::new(CLIENT_SECRET), Secret::new(ACCESS_TOKEN), Secret::new(CODE));
    let acr = if is_strict { vec!["high".to_owned()] } else { Vec::new() };
    then(&Expectations {
        issuer: ISSUER,
        client_id: CLIENT_ID,
        trusted_audiences: &["other".to_owned()],
        algorithms: &[
            SigningAlgorithm::Es256,
            SigningAlgorithm::EdDsa,
            SigningAlgorithm::Rs256,
            SigningAlgorithm::Ps256,
            SigningAlgorithm::Hs256,
        ],
        hmac_secret: Some(Arc::new(secret)),
        nonce: Some(NONCE),
        max_age: is_strict.then(|| (Duration::from_secs(3_600), from_unix_seconds(NOW))),
        require_auth_time: is_strict,
        require_acr: is_strict,
        essential_acr: &acr,
        access_token: Some(&access_token),
        code: Some(&code),
        leeway: Duration::from_secs(LEEWAY),
        received_at: from_unix_seconds(NOW),
        interim_fingerprint: None,
        interim_claims: None,
        interim_subject: is_strict.then_some("user-1"),
        hinted_subject: is_strict.then_some("user-1"),
    })
}

/// Every token that verifies is exactly one of the genuine tokens.
fn as_it_stands(token: &str, is_strict: bool) {
    let is_genuine = FIXED["tokens"].as_object().unwrap().values().any(|genuine| genuine == token);
    let judged = verified(token, is_strict);
    assert_eq!(judged.is_ok(), is_genuine, "{token}: {judged:?}");
}

/// Verifies a token as each of the three kinds.
fn verified(token: &str, is_strict: bool) -> Result<IdToken, Violation> {
    let named = header(token);
    let verified = expecting(is_strict, |e| verify_final(token, key_set(), e));
    let interim = expecting(is_strict, |e| verify_interim(token, InterimMember::IdToken, key_set(), e));
    match &verified {
        Ok(verified) => {
            assert_eq!(named.unwrap().0, verified.algorithm());
            // An interim token may lack members of a final one, but not the reverse.
            assert_eq!(interim.unwrap().claims().as_json(), verified.claims().as_json());
            let refreshed = expecting(is_strict, |e| verify_refreshed(token, verified, key_set(), e));
            assert!(refreshed.is_ok(), "a token contradicts itself");
            let interim = InterimFingerprint::new(token);
            let again = expecting(is_strict, |e| {
                verify_final(
                    token,
                    key_set(),
                    &Expectations { interim_fingerprint: Some(&interim), hmac_secret: e.hmac_secret.clone(), ..*e },
                )
            });
            assert_eq!(again.unwrap_err().rule(), Rule::InterimIdTokenAsFinal);
            read(verified);
        }
        Err(violation) => assert!(!format!("{violation} {violation:?}").contains(PLANT)),
    }
    verified
}

/// The stored form has the same claims, and all of them can be read.
fn read(token: &IdToken) {
    let stored = serde_json::to_vec(&token.to_stored()).unwrap();
    let opened = IdToken::from_stored(&serde_json::from_slice(&stored).unwrap()).unwrap();
    assert_eq!((opened.claims().as_json(), opened.algorithm()), (token.claims().as_json(), token.algorithm()));
    let claims: &Claims = opened.claims();
    check_time(claims.issued_at());
    check_time(claims.expires_at());
    claims.auth_time().into_iter().chain(claims.updated_at()).for_each(check_time);
    let _ = (claims.amr(), claims.email_verified(), claims.phone_number_verified(), claims.azp(), claims.name());
    let _ = claims.address().map(|address| (address.formatted().is_some(), format!("{address:?}")));
    for name in claims.malformed() {
        assert!(!claims.as_json()[name].is_null());
    }
    let _ = (
        claims.in_languages("name").count(),
        claims.deserialize::<Map<String, Value>>().unwrap(),
        format!("{token:?}"),
    );
}

/// The token is authentic, so it must be accepted exactly if its header and its claims are valid.
fn authentic(token: &str, header: &[u8], claims: &[u8], is_strict: bool) {
    let Ok(token) = verified(token, is_strict) else { return };
    assert_eq!(token.algorithm(), SigningAlgorithm::Hs256);
    let object = |json: &[u8]| Object::parse(json).unwrap().members().clone();
    let (header, claims) = (object(header), object(claims));
    assert!(header["alg"] == "HS256" && header.get("crit").is_none_or(Value::is_null));
    assert!(claims["iss"] == ISSUER && claims["nonce"] == NONCE);
    let audiences = token.claims().audience();
    assert!(audiences.contains(&CLIENT_ID) && audiences.iter().all(|one| [CLIENT_ID, "other"].contains(one)));
    assert!(audiences.iter().all(|one| *one == CLIENT_ID) || claims["azp"] == CLIENT_ID);
    assert!((1..=255).contains(&token.claims().subject().chars().count()));
    assert!(token.claims().expires_at() > from_unix_seconds(NOW - LEEWAY));
    assert!(token.claims().issued_at() <= from_unix_seconds(NOW + LEEWAY));
    assert!(claims["exp"].is_number() && claims["iat"].is_number());
    // Compare the unparsed numbers again, independently of the library that parses them.
    for (name, is_good) in [
        ("exp", (|time| time > (NOW - LEEWAY - 1) as f64) as fn(f64) -> bool),
        ("iat", |time| time < (NOW + LEEWAY + 1) as f64),
        ("nbf", |time| time < (NOW + LEEWAY + 1) as f64),
    ] {
        if let Some(time) = claims.get(name).and_then(Value::as_f64) {
            assert!(is_good(time), "{name}: {time}");
        }
    }
    if is_strict {
        assert!(claims["acr"] == "high" && claims["sub"] == "user-1");
        let auth_time = token.claims().auth_time().unwrap();
        assert!(auth_time >= from_unix_seconds(NOW - 3_600 - LEEWAY) && auth_time <= from_unix_seconds(NOW + LEEWAY));
    }
    for name in ["at_hash", "c_hash"] {
        let right = [("at_hash", "RIzsLESY7kXJPNj5_uOeEA"), ("c_hash", "WizquLxBGN5FWNFPaRbDtA")];
        let right = right.iter().find(|(known, _)| *known == name).map(|(_, hash)| *hash);
        assert!(claims.get(name).is_none_or(|hash| hash.is_null() || hash == "" || hash.as_str() == right), "{name}");
    }
}
