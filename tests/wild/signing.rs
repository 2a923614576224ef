//! JWTs of the OP.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwk::Jwk;
use josekit::jws::{ES256, ES384, ES512, EdDSA, HS256, JwsSigner, PS256, RS256};
use serde_json::{Map, Value, json};

use crate::relying_party::CLIENT_SECRET;
use crate::table::{Sign, read};

const ANOTHER_SECRET: &str = "a key of the realm that no client knows of";

/// A JWT with this payload, which need not be valid JSON.
pub fn jwt(sign: &Sign, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(sign.header.to_string()), URL_SAFE_NO_PAD.encode(payload));
    let signature = match sign.alg.as_str() {
        "none" => Vec::new(),
        _ => signer(sign).sign(message.as_bytes()).expect("the key signs"),
    };
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn signer(sign: &Sign) -> Box<dyn JwsSigner> {
    let key = || private_key(&sign.key);
    let problem = "the key fits its algorithm";
    match sign.alg.as_str() {
        "RS256" => Box::new(RS256.signer_from_jwk(&key()).expect(problem)),
        "PS256" => Box::new(PS256.signer_from_jwk(&key()).expect(problem)),
        "ES256" => Box::new(ES256.signer_from_jwk(&key()).expect(problem)),
        "ES384" => Box::new(ES384.signer_from_jwk(&key()).expect(problem)),
        "ES512" => Box::new(ES512.signer_from_jwk(&key()).expect(problem)),
        "EdDSA" => Box::new(EdDSA.signer_from_jwk(&key()).expect(problem)),
        "HS256" => {
            let secret = if sign.key == "secret" { CLIENT_SECRET } else { ANOTHER_SECRET };
            Box::new(HS256.signer_from_bytes(secret).expect(problem))
        }
        other => panic!("no signer for {other}"),
    }
}

fn private_keys() -> Map<String, Value> {
    serde_json::from_str(&read("private_keys.json")).expect("the file is an object of JWKs")
}

fn private_key(name: &str) -> Jwk {
    let key = private_keys().get(name).and_then(Value::as_object).cloned();
    Jwk::from_map(key.unwrap_or_else(|| panic!("no key is called {name}"))).expect("the key is a JWK")
}

/// The key set of an OP without oddities. The `kid` of a key is its name and `-1`.
pub fn usual_keys() -> Value {
    let keys: Vec<_> = ["rsa", "ec", "p384", "ed"]
        .into_iter()
        .map(|name| {
            let mut key = private_keys()[name].clone();
            let members = key.as_object_mut().expect("a JWK is an object");
            members.retain(|member, _| matches!(member.as_str(), "kty" | "crv" | "n" | "e" | "x" | "y"));
            members.insert("kid".into(), json!(format!("{name}-1")));
            members.insert("use".into(), json!("sig"));
            key
        })
        .collect();
    json!({ "keys": keys })
}
