//! The initial inputs of the fuzzer: the messages of the flow as in the drafts, with variations.
//!
//! `FUZZ_SEEDS=1 cargo test --all-features --lib fuzzing::seeds` writes them to `fuzz/corpus`, under readable names.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::replay::fuzz;
use super::stored;
use super::world::{
    FIXED, METADATA, NONCE, NOW, authentication_json, fixed, keyring, pending_ciba_json, pending_ietf_json,
    pending_json, sealed, session_json,
};
use crate::keyring::Purpose;

struct Seeds(Vec<(&'static str, String, Vec<u8>)>);

impl Seeds {
    /// One seed of a target: the byte that selects, and the rest.
    fn add(&mut self, target: &'static str, name: &str, choice: &str, rest: impl AsRef<[u8]>) {
        let input = [choice.as_bytes(), rest.as_ref()].concat();
        self.0.push((target, format!("seed-{name}"), input));
    }

    /// An answer in JSON with status 200.
    fn json(&mut self, target: &'static str, name: &str, choice: &str, body: &Value) {
        self.add(target, name, choice, format!("200 application/json\n\n{body}"));
    }
}

fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Seeds(Vec::new());
    browser(&mut seeds);
    provider(&mut seeds);
    exchange(&mut seeds);
    poll(&mut seeds);
    headers(&mut seeds);
    signed(&mut seeds);
    encrypted(&mut seeds);
    logout(&mut seeds);
    endpoints(&mut seeds);
    ping(&mut seeds);
    sealed_values(&mut seeds);
    stored_values(&mut seeds);
    stored_schedules(&mut seeds);
    seeds.0
}

fn browser(seeds: &mut Seeds) {
    let mut add = |name, choice, response: &str| seeds.add("authorization_response", name, choice, response);
    add("deferred", "0", "deferred_code=SplxlOBeZQQYbYS6WxSbIA&state=pl4nt-state");
    add("deferred-iss", "4", "?deferred_code=x%2Dy&iss=https%3A%2F%2Fop.example&state=pl4nt-state&session_state=a");
    add("code", "2", "code=SplxlOBeZQQYbYS6WxSbIA&state=pl4nt-state&iss=https://op.example");
    add("either", "1", "code=a&state=pl4nt-state");
    add("both", "1", "code=a&deferred_code=b&state=pl4nt-state");
    add(
        "error",
        "0",
        "error=access_denied&error_description=no+thanks&error_uri=https://op.example/e&state=pl4nt-state",
    );
    add("url", "0", "https://rp.example/callback?deferred_code=a&state=pl4nt-state#_=_");
    add("elsewhere", "0", "https://rp.example/other?deferred_code=a&state=pl4nt-state");
    add("repeated", "0", "deferred_code=a&state=pl4nt-state&state=pl4nt-state");
    add("implicit", "0", "id_token=a.b.c&access_token=d&state=pl4nt-state");
    add("broken", "0", "state=%F0%9F%92%A9&%00&&=&deferred_code=%");
}

fn provider(seeds: &mut Seeds) {
    let metadata = |choice, name, edit: fn(&mut Value), seeds: &mut Seeds| {
        let mut metadata: Value = serde_json::from_str(METADATA).unwrap();
        edit(&mut metadata);
        seeds.json("discovery", name, choice, &metadata);
    };
    metadata("0", "plain", |_| {}, seeds);
    metadata(
        "0",
        "lists",
        |metadata| {
            metadata["scopes_supported"] = json!(["openid", 7]);
            metadata["dpop_signing_alg_values_supported"] = json!(["ES256", "EdDSA"]);
            metadata["id_token_signing_alg_values_supported"] = json!(["RS256", "ES256", "HS256", "none"]);
            metadata["code_challenge_methods_supported"] = json!(["S256"]);
            metadata["authorization_response_iss_parameter_supported"] = json!("true");
            metadata["mtls_endpoint_aliases"] = json!({ "token_endpoint": "https://mtls.op.example/token" });
        },
        seeds,
    );
    metadata("2", "pushed", |metadata| metadata["require_pushed_authorization_requests"] = json!(true), seeds);
    metadata("0", "other-issuer", |metadata| metadata["issuer"] = json!("https://op.example/"), seeds);
    metadata("0", "insecure", |metadata| metadata["jwks_uri"] = json!("http://user:pw@op.example/#a"), seeds);
    metadata(
        "1",
        "endpoint-with-query",
        |metadata| {
            metadata["authorization_endpoint"] = json!("https://op.example/authorize?tenant=1&state=x");
        },
        seeds,
    );
    seeds.add(
        "discovery",
        "second-place",
        "0",
        format!("404 text/html\n\n<html>\n%%\n200 application/json\n\n{METADATA}"),
    );
    seeds.add("discovery", "redirect", "0", "302\nLocation: https://evil.example\n\n");
    seeds.add(
        "discovery",
        "repeated",
        "0",
        "200 application/json\nCache-Control: max-age=60\n\n{\"issuer\":\"https://op.example\",\"issuer\":\"\"}",
    );

    seeds.json("key_set", "genuine", "", &FIXED["signing_keys"]);
    let mut keys = FIXED["signing_keys"].clone();
    keys["keys"][0]["use"] = json!("enc");
    keys["keys"][1]["alg"] = json!("EdDSA");
    keys["keys"][2]["key_ops"] = json!(["verify"]);
    keys["keys"].as_array_mut().unwrap().push(json!({ "kty": "oct", "k": "c2VjcmV0" }));
    seeds.json("key_set", "mixed", "", &keys);
    let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    let keys = json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "x": x, "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "alg": "ES256" },
        { "kty": "EC", "crv": "secp256k1", "x": x, "y": x }, { "kty": "OKP", "crv": "Ed448", "x": x }, 7, null,
        { "kty": "RSA", "n": "AQAB", "e": "AQ" }, { "kty": "EC", "crv": "P-521", "x": "A".repeat(88), "y": "B".repeat(88) },
    ] });
    seeds.json("key_set", "odd", "", &keys);
    seeds.json("key_set", "empty", "", &json!({ "keys": [] }));
}

fn exchange(seeds: &mut Seeds) {
    let draft = json!({ "deferred_auth_id": "f4oirNBUlM", "expires_in": 86_400, "interval": 3_600 });
    seeds.json("exchange", "draft", "0", &draft);
    let interim = json!({ "deferred_auth_id": "a", "expires_in": "60", "interval": 5.5, "id_token": "%T", "access_token": "pl4nt-a" });
    seeds.json("exchange", "interim", "0", &interim);
    seeds.json(
        "exchange",
        "two-interims",
        "2",
        &json!({ "deferred_auth_id": "a", "id_token": "%T", "interim_id_token": "x.y.z" }),
    );
    seeds.json("exchange", "times", "0", &json!({ "deferred_auth_id": "a", "expires_in": 1e300, "interval": -1 }));
    let tokens = json!({ "access_token": "pl4nt-token", "token_type": "DPoP", "id_token": "%T", "refresh_token": "pl4nt-refresh", "expires_in": 3_600, "scope": "openid" });
    seeds.json("exchange", "immediate", "4", &tokens);
    seeds.json("exchange", "code", "1", &tokens);
    seeds.json("exchange", "unbound", "9", &json!({ "access_token": "a", "token_type": "bearer", "id_token": "%T" }));
    seeds.add("exchange", "nonce", "0", format!("400 application/json\nDPoP-Nonce: n-1\n\n{{\"error\":\"use_dpop_nonce\"}}\n%%\n200 application/json\nDPoP-Nonce: n-2\n\n{draft}"));
    seeds.add("exchange", "clock", "0", format!("400 application/json\nDate: Fri, 15 Jan 2027 09:00:00 GMT\n\n{{\"error\":\"invalid_dpop_proof\"}}\n%%\n200 application/json\n\n{draft}"));
    seeds.add("exchange", "not-sent", "0", format!("!\n%%\n!\n%%\n200 application/json\n\n{draft}"));
    seeds.add("exchange", "lost", "0", "?");
    seeds.add("exchange", "refused", "1", "401 application/json\nWWW-Authenticate: Basic realm=\"a\"\nRetry-After: 60\n\n{\"error\":\"invalid_client\",\"error_description\":\"pl4nt\"}");
    seeds.add("exchange", "page", "0", "502 text/html\n\n<html>pl4nt</html>");
    let deferred = "400 application/json\n\n{\"error\":\"interaction_required\",\"deferral_code\":\"pl4nt-code\",\"expires_in\":600,\"interval\":4,\"interaction_uri\":\"https://op.example/pl4nt\"}";
    seeds.add("exchange", "ietf-deferred", "p", deferred);
    seeds.add("exchange", "ietf-grant-deferred", "q", deferred);
    seeds.add("exchange", "ietf-codeless", "p", "400 application/json\n\n{\"error\":\"authorization_pending\"}");
    seeds.json("exchange", "ietf-complete", "p", &tokens);
    let issued = json!({ "access_token": "pl4nt-token", "token_type": "N_A", "issued_token_type": "urn:ietf:params:oauth:token-type:saml2", "id_token": "a.b.c" });
    seeds.json("exchange", "ietf-grant-complete", "q", &issued);
    let asked = json!({ "auth_req_id": "pl4nt-request", "expires_in": 120, "interval": 2 });
    seeds.json("exchange", "ciba", "a", &asked);
    seeds.json("exchange", "ciba-nameless", "c", &json!({ "expires_in": "soon", "interval": 1e300 }));
    seeds.add("exchange", "ciba-refused", "a", "403 application/json\n\n{\"error\":\"access_denied\"}");
}

fn poll(seeds: &mut Seeds) {
    let pending = "400 application/json\n\n{\"error\":\"authorization_pending\",\"error_description\":\"step 2 of 3\"}";
    let slow = "400 application/json\nRetry-After: 120\n\n{\"error\":\"slow_down\"}";
    let tokens = "200 application/json\nCache-Control: no-store\n\n{\"access_token\":\"pl4nt-token\",\"token_type\":\"DPoP\",\"id_token\":\"%T\",\"expires_in\":3600,\"authorization_details\":[{\"type\":\"a\"}]}";
    seeds.add("poll", "approved", "0", format!("{pending}\n%%\n{slow}\n%%\n{tokens}"));
    seeds.add("poll", "approved-dpop", "p", format!("{pending}\n%%\n{tokens}"));
    seeds.add("poll", "restarts", "<", format!("{pending}\n%%\n{pending}\n%%\n{tokens}"));
    let at = |uri: &str| {
        format!("400 application/json\n\n{{\"error\":\"interaction_required\",\"interaction_uri\":\"{uri}\"}}")
    };
    let (required, fragment, script) =
        (at("https://op.example/pl4nt"), at("https://op.example/#a"), at("javascript:a"));
    let opened = "400 application/json\n\n{\"error\":\"interaction_pending\"}";
    let issued = "200 application/json\n\n{\"access_token\":\"pl4nt-token\",\"token_type\":\"Bearer\"}";
    seeds.add("poll", "ietf", "(", format!("{required}\n%%\n{opened}\n%%\n{fragment}\n%%\n{script}\n%%\n{issued}"));
    seeds.add("poll", "ciba", "P", format!("{pending}\n%%\n{slow}\n%%\n{tokens}"));
    for code in ["access_denied", "expired_token", "invalid_grant", "invalid_request", "invalid_client", "odd"] {
        let error =
            format!("{pending}\n%%\n400 application/json\n\n{{\"error\":\"{code}\",\"error_description\":\"pl4nt\"}}");
        seeds.add("poll", code, "1", error);
    }
    seeds.add(
        "poll",
        "lost",
        "4",
        format!("?\n%%\n{pending}\n%%\n?\n%%\n400 application/json\n\n{{\"error\":\"invalid_grant\"}}"),
    );
    seeds.add("poll", "troubles", "1", format!("!\n%%\n503 text/html\nRetry-After: Fri, 15 Jan 2027 09:00:00 GMT\n\n\n%%\n302\nLocation: /\n\n\n%%\n{tokens}"));
    seeds.add("poll", "forged", "2", "200 application/json\n\n{\"access_token\":\"a\",\"token_type\":\"Bearer\",\"id_token\":\"eyJhbGciOiJub25lIn0.e30.\"}\n%%\n200 application/json\n\n{}");
    seeds.add("poll", "nonces", "p", "401 application/json\nDPoP-Nonce: a\n\n{\"error\":\"use_dpop_nonce\"}\n%%\n401 application/json\nDPoP-Nonce: b\n\n{\"error\":\"use_dpop_nonce\"}");
    seeds.add(
        "poll",
        "error-with-200",
        "0",
        "200 application/json\n\n{\"error\":\"authorization_pending\"}\n%%\n200 application/json\n\n{\"login\":true}",
    );
}

fn headers(seeds: &mut Seeds) {
    let mut add = |name, choice, answers: &str| seeds.add("response_headers", name, choice, answers);
    add("seconds", "0", "503 text/html\nRetry-After: 120\n\n");
    add(
        "date",
        "0",
        "503 application/json\nRetry-After: Fri, 15 Jan 2027 09:00:00 GMT\nDate: Friday, 15-Jan-27 08:00:00 GMT\n\n{\"error\":\"server_error\"}",
    );
    add("asctime", "0", "429 application/json\nRetry-After: Fri Jan 15 08:00:00 2027\n\n{}");
    add(
        "challenge",
        "0",
        "401 text/plain\nWWW-Authenticate: Bearer realm=\"a\\\"b\", DPoP algs=\"ES256 PS256\", error=\"use_dpop_nonce\"\nDPoP-Nonce: eyJ7S_zG.eyJH0-Z.HX4w-7v\n\n\n%%\n200 application/json\n\n{}",
    );
    add(
        "clock",
        "0",
        "400 application/json\nDate: Fri, 15 Jan 2027 20:00:00 GMT\n\n{\"error\":\"invalid_dpop_proof\"}\n%%\n200 application/json\n\n{}",
    );
    add(
        "resource",
        "1",
        "401\nWWW-Authenticate: DPoP error=\"use_dpop_nonce\", error_description=\"a\"\nDPoP-Nonce: n\n\n\n%%\n403\nWWW-Authenticate: Bearer error=insufficient_scope, scope=\"a b\", error_description=\"more\"\n\n",
    );
    add(
        "resource-clock",
        "1",
        "401\nWWW-Authenticate: DPoP error=\"invalid_dpop_proof\"\nDate: Fri, 15 Jan 2027 07:00:00 GMT\n\n\n%%\n200 application/json\n\n{}",
    );
    add("two-nonces", "0", "400 application/json\nDPoP-Nonce: a\nDPoP-Nonce: b\n\n{\"error\":\"use_dpop_nonce\"}");
}

fn claims() -> Value {
    json!({
        "iss": "https://op.example", "sub": "user-1", "aud": "app", "exp": NOW + 3_600, "iat": NOW - 10, "nonce": NONCE,
        "auth_time": NOW - 600, "acr": "high", "amr": ["pwd"], "azp": "app", "nbf": NOW - 10, "name": "Jane Doe",
        "email_verified": true, "updated_at": NOW - 86_400, "address": { "country": "DE" },
        "at_hash": "RIzsLESY7kXJPNj5_uOeEA", "c_hash": "WizquLxBGN5FWNFPaRbDtA",
    })
}

fn signed(seeds: &mut Seeds) {
    for (name, token) in FIXED["tokens"].as_object().unwrap() {
        seeds.add("id_token", name, "0", token.as_str().unwrap());
    }
    seeds.add("id_token", "none", "2", "eyJhbGciOiJub25lIn0.e30.");
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let mut add = |name, choice, edit: fn(&mut Value)| {
        let mut claims = claims();
        edit(&mut claims);
        seeds.add("id_token", name, choice, format!("{header}\n{claims}"));
    };
    add("claims", "3", |_| {});
    add("audiences", "1", |claims| claims["aud"] = json!(["other", "app"]));
    add("expired", "1", |claims| claims["exp"] = json!(NOW - 61));
    add("texts", "1", |claims| {
        claims["updated_at"] = json!("2027-01-14T08:00:00Z");
        claims["email_verified"] = json!("true");
    });
    add("text-times", "1", |claims| claims["exp"] = json!("2027-01-15T09:00:00+00:00"));
    add("odd-types", "1", |claims| {
        claims["amr"] = json!("pwd");
        claims["address"] = json!([]);
        claims["given_name#ja"] = json!({ "jti": 1 });
        claims["updated_at"] = json!("");
        claims["jti"] = json!(7);
    });
    add("floats", "1", |claims| {
        claims["exp"] = json!(1e300);
        claims["iat"] = json!(-1.5);
    });
    add("address", "1", |claims| claims["address"] = json!({ "formatted": "a\nb", "street_address": "c" }));
    seeds.add("id_token", "critical", "1", format!("{}\n{}", r#"{"alg":"HS256","crit":["exp"]}"#, claims()));
    seeds.add("id_token", "repeated", "1", format!("{header}\n{}", r#"{"iss":"https://op.example","iss":"x"}"#));
}

fn encrypted(seeds: &mut Seeds) {
    for (number, token) in FIXED["encrypted_tokens"].as_array().unwrap().iter().enumerate() {
        let token = token.as_str().unwrap();
        seeds.add("encrypted_token", &format!("{number}"), "0", token);
        // The same token in segments, with the ciphertext last.
        let segments: Vec<_> = token.split('.').map(|segment| URL_SAFE_NO_PAD.decode(segment).unwrap()).collect();
        let [header, key, iv, ciphertext, tag] = segments.try_into().unwrap();
        let counted = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)], bytes].concat();
        let key = if key.len() > 255 { Vec::new() } else { key };
        let parts = [header, b"\n".to_vec(), counted(&key), counted(&iv), counted(&tag), ciphertext].concat();
        seeds.add("encrypted_token", &format!("{number}-in-segments"), "1", parts);
    }
    seeds.add("encrypted_token", "known-key", "2", format!("\n{}", fixed("/tokens/es256")));
    let mut header: Value = serde_json::from_str(fixed("/known_content_key/header")).unwrap();
    header["cty"] = json!("json");
    seeds.add("encrypted_token", "known-key-other-header", "2", format!("{header}\n{{}}"));
    seeds.add("encrypted_token", "not-encrypted", "0", fixed("/tokens/es256"));
    seeds.add("encrypted_token", "zip", "1", "{\"alg\":\"ECDH-ES\",\"enc\":\"A128GCM\",\"zip\":\"DEF\",\"epk\":{}}\n");
}

fn logout(seeds: &mut Seeds) {
    const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
    seeds.add("logout_token", "id-token", "0", fixed("/tokens/hs256"));
    seeds.add("logout_token", "none", "0", "eyJhbGciOiJub25lIn0.e30.");
    seeds.add("logout_token", "encrypted", "0", FIXED["encrypted_tokens"][0].as_str().unwrap());
    let mut add = |name, header: &str, edit: fn(&mut Value)| {
        let mut claims = json!({
            "iss": "https://op.example", "sub": "user-1", "aud": "app", "iat": NOW, "exp": NOW + 120, "jti": "j",
            "sid": "s", "events": { EVENT: {} },
        });
        edit(&mut claims);
        seeds.add("logout_token", name, "1", format!("{header}\n{claims}"));
    };
    let typed = r#"{"alg":"HS256","typ":"logout+jwt"}"#;
    add("claims", typed, |_| {});
    add("untyped", r#"{"alg":"HS256"}"#, |claims| claims["aud"] = json!(["app"]));
    add("other-type", r#"{"alg":"HS256","typ":"at+jwt"}"#, |_| {});
    add("nonce", typed, |claims| claims["nonce"] = json!("n"));
    add("nobody", typed, |claims| {
        claims["sub"] = json!(null);
        claims["sid"] = json!("");
    });
    add("times", typed, |claims| {
        claims["exp"] = json!(1e300);
        claims["iat"] = json!(-1.5);
        claims["nbf"] = json!(NOW);
    });
    add("events", typed, |claims| claims["events"] = json!({ EVENT: [], "other": {} }));
}

fn endpoints(seeds: &mut Seeds) {
    seeds.json(
        "userinfo",
        "plain",
        "0",
        &json!({ "sub": "user-1", "name": "Jane Doe", "address": { "country": "DE" } }),
    );
    seeds.json("userinfo", "other-subject", "0", &json!({ "sub": "user-2" }));
    seeds.add("userinfo", "signed", "1", "200 application/jwt\n\n%T");
    seeds.add(
        "userinfo",
        "encrypted",
        "2",
        format!("200 application/jwt\n\n{}", FIXED["encrypted_tokens"][2].as_str().unwrap()),
    );
    seeds.add(
        "userinfo",
        "refused",
        "0",
        "401\nWWW-Authenticate: DPoP error=\"invalid_token\", error_description=\"pl4nt\"\n\n",
    );
    seeds.add("userinfo", "nonce", "0", "401\nWWW-Authenticate: DPoP error=\"use_dpop_nonce\"\nDPoP-Nonce: n\n\n\n%%\n200 application/json\n\n{\"sub\":\"user-1\"}");

    let active = json!({ "active": true, "scope": "a b", "client_id": "app", "username": "jane", "token_type": "DPoP", "exp": NOW, "iat": 1.5, "nbf": 0, "sub": "user-1", "aud": ["a"], "iss": "https://op.example", "jti": "j", "cnf": { "jkt": "t" } });
    seeds.json("introspection", "active", "", &active);
    seeds.json("introspection", "inactive", "", &json!({ "active": false, "sub": "x" }));
    seeds.json("introspection", "odd", "", &json!({ "active": true, "exp": 1e300, "aud": 7, "sub": null }));
    seeds.add("introspection", "refused", "", "401 application/json\n\n{\"error\":\"invalid_client\"}");

    let pushed = "201 application/json\n\n{\"request_uri\":\"urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c\",\"expires_in\":60}";
    seeds.add("pushed_request", "rfc-9126", "", pushed);
    seeds.add(
        "pushed_request",
        "nonce",
        "",
        format!("400 application/json\nDPoP-Nonce: n\n\n{{\"error\":\"use_dpop_nonce\"}}\n%%\n{pushed}"),
    );
    seeds.add(
        "pushed_request",
        "times",
        "",
        "201 application/json\n\n{\"request_uri\":\"https://op.example/r?a=b&c\",\"expires_in\":1e99}",
    );
    seeds.add(
        "pushed_request",
        "refused",
        "",
        "400 application/json\n\n{\"error\":\"invalid_request\",\"error_description\":\"pl4nt\"}",
    );
    seeds.add("pushed_request", "ok", "", "200 application/json\n\n{\"request_uri\":\"urn:a\",\"expires_in\":\"90\"}");
}

fn ping(seeds: &mut Seeds) {
    let mut add = |name, choice, request: &str| seeds.add("ping", name, choice, request);
    let genuine = "POST\nAuthorization: Bearer %P\nContent-Type: application/json\n\n";
    add("genuine", "0", &format!("{genuine}{{\"deferred_auth_id\":\"pl4nt-deferred-auth-id\"}}"));
    add("other-process", "0", &format!("{genuine}{{\"deferred_auth_id\":\"another\",\"x\":[1,{{}}]}}"));
    add("escaped", "0", &format!("{genuine}{{\"deferred_auth_id\":\"pl4nt-deferred\\u002dauth-id\"}}"));
    add("repeated", "0", &format!("{genuine}{{\"deferred_auth_id\":\"a\",\"deferred_auth_id\":\"b\"}}"));
    add("ietf", "0", &format!("{genuine}{{\"deferral_code\":\"pl4nt-deferred-auth-id\"}}"));
    add("ciba", "0", &format!("{genuine}{{\"auth_req_id\":\"pl4nt-deferred-auth-id\"}}"));
    add("both", "0", &format!("{genuine}{{\"deferral_code\":\"a\",\"deferred_auth_id\":\"b\"}}"));
    add("null", "0", &format!("{genuine}{{\"deferral_code\":null,\"deferred_auth_id\":\"b\"}}"));
    add("array", "0", &format!("{genuine}[\"pl4nt-deferred-auth-id\"]"));
    add(
        "other-client",
        "0",
        "POST\nAuthorization: bearer %C\nContent-Type: application/json; charset=utf-8\n\n{\"deferred_auth_id\":\"a\"}",
    );
    add(
        "other-key",
        "0",
        "POST\nAuthorization: Bearer %K\nContent-Type: application/json\n\n{\"deferred_auth_id\":\"a\"}",
    );
    add(
        "two-tokens",
        "0",
        "POST\nAuthorization: Bearer %P\nAuthorization: Bearer %P\nContent-Type: application/json\n\n{}",
    );
    add(
        "static",
        "1",
        "POST\nAuthorization: Bearer pl4nt-static-token\nContent-Type: application/json\n\n{\"deferred_auth_id\":\"a\"}",
    );
    add("get", "0", "GET\nAuthorization: Bearer %P\n\n");
    add("form", "0", "POST\nContent-Type: application/x-www-form-urlencoded\n\na=b");
}

fn sealed_values(seeds: &mut Seeds) {
    let (pending, tokens, session) = (pending_json(), authentication_json(), session_json());
    let record = stored::record_json();
    let row = stored::ROW;
    let seal = |purpose, context: &[u8], value: &Value| sealed(purpose, context, value.to_string().as_bytes());
    seeds.add("sealed_value", "process", "0", seal(Purpose::PendingAuthentication, &[], &pending));
    seeds.add("sealed_value", "authentication", "1", seal(Purpose::Authentication, &[], &tokens));
    seeds.add(
        "sealed_value",
        "session",
        "2",
        URL_SAFE_NO_PAD.encode(seal(Purpose::AuthorizationSession, &[], &session)),
    );
    seeds.add("sealed_value", "row", "3", seal(Purpose::Process, &row, &record));
    let token = keyring().notification_token(&super::world::Chance::default(), 7, row, "issuer", "client").unwrap();
    seeds.add("sealed_value", "notification-token", "4", token.expose());
    seeds.add("sealed_value", "other-purpose", "0", seal(Purpose::Authentication, &[], &pending));
}

/// The first byte of an input that selects this kind of stored value. The byte `0` is 48, and the target takes the
/// remainder.
fn choice(wanted: u8) -> String {
    let number = (0..10).find(|number| (48 + number) % 5 == wanted).unwrap();
    char::from(b'0' + number).to_string()
}

fn stored_values(seeds: &mut Seeds) {
    let (pending, tokens, session) = (pending_json(), authentication_json(), session_json());
    let record = stored::record_json();
    seeds.add("stored", "process", &choice(0), pending.to_string());
    let mut rich = pending.clone();
    rich["raw"] = json!({ "j": fixed("/tokens/hs256"), "m": "InterimIdToken" });
    rich["int"] = json!({ "Verified": {
        "members": claims(), "member": "IdToken",
        "times": { "issued_at": NOW, "expires_at": NOW, "auth_time": null, "updated_at": 7 },
    } });
    rich["itf"] = json!({ "t": ["RIzsLESY7kXJPNj5_uOeEA"], "j": "WizquLxBGN5FWNFPaRbDtA" });
    rich["chk"]["ra"] = json!(true);
    rich["prg"] = json!("step 2 of 3");
    rich["cnl"] = json!(true);
    rich["ans"] = json!({ "a": { "b": "e30", "t": NOW, "n": 3 } });
    seeds.add("stored", "process-answered", &choice(0), rich.to_string());
    let ietf = pending_ietf_json();
    seeds.add("stored", "process-ietf", &choice(0), ietf.to_string());
    seeds.add("stored", "row-process-ietf", &choice(3), json!({ "ctx": "", "is": { "p": ietf } }).to_string());
    let ciba = pending_ciba_json();
    seeds.add("stored", "process-ciba", &choice(0), ciba.to_string());
    seeds.add("stored", "row-process-ciba", &choice(3), json!({ "ctx": "", "is": { "p": ciba } }).to_string());
    let issued =
        json!({ "v": 1, "iss": "i", "cid": "c", "t": NOW, "at": "pl4nt", "tt": "d", "itt": "urn:a", "ctx": "e30" });
    seeds.add("stored", "row-issued", &choice(3), json!({ "ctx": "", "is": { "o": { "t": issued } } }).to_string());
    seeds.add("stored", "authentication", &choice(1), tokens.to_string());
    let mut more = tokens.clone();
    more["rid"] = tokens["idt"].clone();
    more["rfr"] = json!({ "b": "e30", "t": NOW });
    more["exp"] = json!({ "secs": 3_600, "nanos": 0 });
    more["scp"] = json!("openid");
    more["ad"] = json!([{ "type": "a" }]);
    more["ext"] = json!({ "a": 1 });
    seeds.add("stored", "authentication-refreshed", &choice(1), more.to_string());
    seeds.add("stored", "session", &choice(2), session.to_string());
    seeds.add("stored", "row-process", &choice(3), record.to_string());
    for (name, outcome) in [
        ("row-exchanging", json!("x")),
        ("row-approved", json!({ "o": { "a": tokens } })),
        ("row-denied", json!({ "o": { "d": { "c": "access_denied", "d": "no", "s": 400 } } })),
        ("row-invalid", json!({ "o": { "i": { "rule": "no_id_token", "in_id_token": false } } })),
        ("row-expired", json!({ "o": { "e": { "confirmed": true } } })),
        ("row-unknown", json!({ "o": "u" })),
    ] {
        seeds.add("stored", name, &choice(3), json!({ "ctx": "", "is": outcome, "rej": "pl4nt" }).to_string());
    }
}

fn stored_schedules(seeds: &mut Seeds) {
    let pending = pending_json();
    let schedule = &pending["sch"];
    let events = b"\x0a\x40\x04\x00\x05\x04\x00\x06\x0f\x00\x04\x00\x06\x04\x0b\x05\x0d\x00\x0f\x00\x0c\x00\x04\x00\x08\x0c\x00\x10\x04\x00\x07\x02";
    let mut with_events = format!("{schedule}\n").into_bytes();
    with_events.extend_from_slice(events);
    seeds.add("stored", "schedule", &choice(4), with_events);
    let mut odd = schedule.clone();
    odd["int"] = json!(0);
    odd["exp"] = json!(u64::MAX);
    odd["slow"] = json!(u32::MAX);
    odd["trb"] = json!(u32::MAX);
    odd["und"] = json!(u32::MAX);
    odd["nb"] = json!({ "at": u64::MAX, "of": u64::MAX });
    odd["held"] = json!({ "at": 0, "of": 0 });
    odd["hrd"] = json!(u64::MAX);
    let mut with_events = format!("{odd}\n").into_bytes();
    with_events.extend_from_slice(events);
    seeds.add("stored", "schedule-odd", &choice(4), with_events);
}

#[test]
fn the_generated_seeds_are_the_committed_ones() {
    let Some(fuzz) = fuzz() else { return };
    for (target, name, input) in seeds() {
        let path = fuzz.join("corpus").join(target).join(name);
        if std::env::var_os("FUZZ_SEEDS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &input).unwrap();
        }
        let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(committed == input, "{} is another one; FUZZ_SEEDS=1 writes it", path.display());
    }
}
