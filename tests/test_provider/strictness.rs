//! Mistakes that a lenient provider would overlook, at each endpoint.

use http::{HeaderMap, Method, header};
use openid_deferred::testing::{DecisionPolicy, Endpoint, RequestRule, TestClient};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::rp::{DEFERRED, Key, REDIRECT, Rp, VERIFIER, basic, request, rp};

/// The tokens of an approved sign-in.
async fn tokens(rp: &mut Rp) -> Value {
    let id = rp.started().await;
    let (status, tokens) = rp.poll_in_time(&id).await;
    assert_eq!(status, 200, "{tokens}");
    rp.op.assert_clean();
    tokens
}

/// The rules that were broken since the last call.
fn broken(rp: &Rp) -> Vec<RequestRule> {
    let rules = rp.broken_rules();
    rp.op.forgive();
    rules
}

#[tokio::test]
async fn an_authorization_request_needs_state_and_nonce() {
    let rp = rp(|op| op);
    for missing in ["state", "nonce"] {
        let back = rp.op.visit(rp.authorization_url(&[(missing, "")]));
        assert_eq!(back.parameter("error"), Some("invalid_request"), "{missing}");
        assert_eq!(broken(&rp), [RequestRule::MissingParameter], "{missing}");
    }
}

#[tokio::test]
async fn a_pushed_request_needs_state_and_nonce() {
    let mut rp = rp(|op| op);
    let url = format!("{}/par", rp.op.issuer());
    let request = url::Url::parse(&rp.authorization_url(&[("state", "")])).unwrap();
    let pairs: Vec<_> = request.query_pairs().into_owned().filter(|(name, _)| name != "client_id").collect();
    let form: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (status, answer) = rp.post(&url, &form, &[]).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
    assert_eq!(broken(&rp), [RequestRule::MissingParameter]);
}

#[tokio::test]
async fn invalid_values_in_an_authorization_request_are_violations() {
    let rp = rp(|op| op);
    for (name, value, error, rule) in [
        ("prompt", "none login", "invalid_request", RequestRule::InvalidParameter),
        ("scope", "openid \"profile\"", "invalid_scope", RequestRule::InvalidParameter),
        ("resource", "/relative", "invalid_target", RequestRule::InvalidParameter),
        ("resource", "https://api.test/#part", "invalid_target", RequestRule::InvalidParameter),
        ("code_challenge", "a challenge that has 43 characters, but not", "invalid_request", RequestRule::NoPkce),
        ("dpop_jkt", "a thumbprint of 43 characters, but it isn't", "invalid_request", RequestRule::InvalidParameter),
        ("code_verifier", VERIFIER, "invalid_request", RequestRule::TokenInQuery),
        ("client_secret", "s3cret", "invalid_request", RequestRule::TokenInQuery),
    ] {
        let back = rp.op.visit(rp.authorization_url(&[(name, value)]));
        assert_eq!(back.parameter("error"), Some(error), "{name}={value}");
        assert_eq!(broken(&rp), [rule], "{name}={value}");
    }
}

#[tokio::test]
async fn an_invalid_proof_is_a_violation_at_every_endpoint() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    rp.basic = Some(("server", "s3cret: %+"));
    let id = rp.started().await;
    let issuer = rp.op.issuer().to_owned();
    let garbage = [("dpop", "garbage".to_owned())];
    let authorization = url::Url::parse(&rp.authorization_url(&[])).unwrap();
    let authorization: Vec<_> = authorization.query_pairs().into_owned().collect();
    let authorization: Vec<_> = authorization.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for (path, form) in [
        ("/revoke", vec![("token", "unknown")]),
        ("/introspect", vec![("token", "unknown")]),
        ("/par", authorization),
        ("/cancel", vec![("deferred_auth_id", &*id)]),
    ] {
        let (status, answer) = rp.post(&format!("{issuer}{path}"), &form, &garbage).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_dpop_proof")), "{path}");
        assert_eq!(broken(&rp), [RequestRule::DpopInvalid], "{path}");
    }
}

#[tokio::test]
async fn a_revocation_has_a_proof_by_the_tokens_key_or_none() {
    let mut rp = rp(|op| op);
    let tokens = tokens(&mut rp).await;
    let url = format!("{}/revoke", rp.op.issuer());
    let form = [("token", tokens["access_token"].as_str().unwrap())];
    let own = std::mem::replace(&mut rp.key, Key::generate());
    let proof = rp.proof("POST", &url, None);
    assert_eq!(rp.post(&url, &form, &[("dpop", proof)]).await.1["error"], "invalid_dpop_proof");
    assert_eq!(broken(&rp), [RequestRule::DpopKeyChanged]);
    rp.key = own;
    let proof = rp.proof("POST", &url, None);
    assert_eq!(rp.post(&url, &form, &[("dpop", proof)]).await.0, 200);
    assert_eq!(rp.post(&url, &form, &[]).await.0, 200);
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_wrong_token_type_hint_is_a_violation() {
    let mut rp = rp(|op| op);
    rp.basic = Some(("server", "s3cret: %+"));
    let tokens = tokens(&mut rp).await;
    let access_token = tokens["access_token"].as_str().unwrap();
    for path in ["/introspect", "/revoke"] {
        let url = format!("{}{path}", rp.op.issuer());
        for hint in ["refresh_token", "id_token"] {
            assert_eq!(rp.post(&url, &[("token", access_token), ("token_type_hint", hint)], &[]).await.0, 200);
            assert_eq!(broken(&rp), [RequestRule::InvalidParameter], "{path} {hint}");
            if path == "/revoke" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn introspection_needs_authentication() {
    let mut rp = rp(|op| op);
    let url = format!("{}/introspect", rp.op.issuer());
    assert_eq!(rp.post(&url, &[("token", "unknown")], &[]).await.0, 401);
    assert_eq!(broken(&rp), [RequestRule::ClientAuthentication]);
}

#[tokio::test]
async fn an_access_token_is_sent_once_and_a_bearer_token_without_a_proof() {
    let mut rp = rp(|op| op);
    let tokens = tokens(&mut rp).await;
    let bound = tokens["access_token"].as_str().unwrap().to_owned();
    let url = format!("{}/userinfo", rp.op.issuer());
    let headers =
        |rp: &mut Rp| vec![("authorization", format!("DPoP {bound}")), ("dpop", rp.proof("GET", &url, Some(&bound)))];

    let mut twice = headers(&mut rp);
    twice.push(("authorization", format!("DPoP {bound}")));
    assert_eq!(rp.send(Method::GET, &url, &twice, String::new()).await.status, 400);
    assert_eq!(broken(&rp), [RequestRule::SeveralAuthentications]);

    let (in_header, in_query) = (headers(&mut rp), format!("{url}?access_token={bound}"));
    assert_eq!(rp.send(Method::GET, &in_query, &in_header, String::new()).await.status, 400);
    assert_eq!(broken(&rp), [RequestRule::TokenInQuery]);

    let in_header = headers(&mut rp);
    let refused = rp.send(Method::DELETE, &url, &in_header, String::new()).await;
    assert_eq!((refused.status.as_u16(), &refused.headers[header::ALLOW]), (405, &"GET, POST".parse().unwrap()));
    assert_eq!(broken(&rp), [RequestRule::WrongMethod]);

    let bearer = bearer_token(&mut rp).await;
    let headers = [("authorization", format!("Bearer {bearer}")), ("dpop", rp.proof("GET", &url, Some(&bearer)))];
    assert_eq!(rp.send(Method::GET, &url, &headers, String::new()).await.status, 200);
    assert_eq!(broken(&rp), [RequestRule::AccessTokenScheme]);
}

/// An access token of a sign-in without DPoP.
async fn bearer_token(rp: &mut Rp) -> String {
    let code = rp.op.visit(rp.authorization_url(&[("dpop_jkt", "")])).parameter("deferred_code").unwrap().to_owned();
    let url = format!("{}/token", rp.op.issuer());
    let form = [("grant_type", DEFERRED), ("deferred_code", &*code), ("code_verifier", VERIFIER)];
    let (_, exchange) = rp.post(&url, &form, &[]).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap();
    rp.clock.advance(rp.op.process(id).interval());
    let (status, tokens) = rp.post(&url, &[("grant_type", DEFERRED), ("deferred_auth_id", id)], &[]).await;
    assert_eq!((status, &tokens["token_type"]), (200, &json!("Bearer")));
    rp.op.assert_clean();
    tokens["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_sends_one_authorization_header_and_an_assertion_with_its_type() {
    let mut rp = rp(|op| op);
    let url = format!("{}/token", rp.op.issuer());
    let credentials = || ("authorization", basic("server", "s3cret: %+"));
    let body = format!("grant_type={DEFERRED}&deferred_auth_id=x");
    let refused = rp.send(Method::POST, &url, &[credentials(), credentials()], body.clone()).await;
    assert_eq!(refused.status, 400);
    assert_eq!(broken(&rp), [RequestRule::SeveralAuthentications]);
    let form = [
        ("grant_type", DEFERRED),
        ("deferred_auth_id", "x"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
    ];
    assert_eq!(rp.post(&url, &form, &[]).await.1["error"], "invalid_client");
    assert_eq!(broken(&rp), [RequestRule::ClientAuthentication]);
}

#[tokio::test]
async fn a_body_that_only_a_lenient_parser_reads_is_refused() {
    let mut rp = rp(|op| op);
    let url = format!("{}/token", rp.op.issuer());
    for body in ["grant_type=a b&client_id=app", "grant_type=%zz&client_id=app", "grant_type=ü&client_id=app", "a=%2"]
    {
        assert_eq!(rp.send(Method::POST, &url, &[], body.into()).await.status, 400, "{body}");
        assert_eq!(broken(&rp), [RequestRule::WrongContentType], "{body}");
    }
}

#[tokio::test]
async fn every_refusal_of_a_method_names_those_that_are_allowed() {
    let mut rp = rp(|op| op.cancellation_in_json().registration());
    let issuer = rp.op.issuer().to_owned();
    for (path, method, allowed) in [
        ("/.well-known/openid-configuration", Method::POST, "GET"),
        ("/jwks", Method::PUT, "GET"),
        ("/authorize", Method::PUT, "GET, POST"),
        ("/token", Method::GET, "POST"),
        ("/par", Method::GET, "POST"),
        ("/revoke", Method::DELETE, "POST"),
        ("/introspect", Method::GET, "POST"),
        ("/cancel", Method::PUT, "POST"),
        ("/register", Method::GET, "POST"),
    ] {
        let as_json = [("content-type", "application/json".to_owned())];
        let headers: &[_] = if path == "/cancel" { &as_json } else { &[] };
        let answer = rp.send(method, &format!("{issuer}{path}"), headers, "{}".into()).await;
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.headers.get(header::ALLOW).map(|value| value.to_str().unwrap()), Some(allowed), "{path}");
        assert_eq!(broken(&rp), [RequestRule::WrongMethod], "{path}");
    }
}

#[tokio::test]
async fn the_media_type_of_json_must_be_exact() {
    let rp = rp(|op| op.cancellation_in_json().registration());
    let issuer = rp.op.issuer().to_owned();
    for path in ["/cancel", "/register"] {
        let mut asked = request(Method::POST, &format!("{issuer}{path}"), &[], "{}".into());
        asked.headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/jsonx".parse().unwrap())]);
        assert_eq!(rp.http.send(asked).await.unwrap().status, 415, "{path}");
        assert_eq!(broken(&rp), [RequestRule::WrongContentType], "{path}");
    }
    let key = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "p": "AQAB" });
    let metadata = json!({ "redirect_uris": [REDIRECT], "jwks": { "keys": [key] } }).to_string();
    let mut asked = request(Method::POST, &format!("{issuer}/register"), &[], metadata);
    asked.headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
    assert_eq!(rp.http.send(asked).await.unwrap().status, 400);
    assert_eq!(broken(&rp), [RequestRule::ClientMetadata], "a part of a private key");
}

#[tokio::test]
async fn credentials_at_an_endpoint_without_authentication_are_a_violation() {
    let mut rp = rp(|op| op);
    let issuer = rp.op.issuer().to_owned();
    for path in ["/.well-known/openid-configuration", "/jwks"] {
        for (name, value) in [("authorization", basic("server", "s3cret: %+")), ("dpop", "x".to_owned())] {
            rp.send(Method::GET, &format!("{issuer}{path}"), &[(name, value)], String::new()).await;
            assert_eq!(broken(&rp), [RequestRule::UnneededCredential], "{path} {name}");
        }
    }
}

#[tokio::test]
async fn a_refresh_asks_for_no_more_than_was_granted() {
    let mut rp = rp(|op| op);
    let tokens = tokens(&mut rp).await;
    let refresh_token = tokens["refresh_token"].as_str().unwrap();
    let form = |scope| [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("scope", scope)];
    assert_eq!(rp.token(&form("openid email")).await.1["error"], "invalid_scope");
    assert_eq!(broken(&rp), [RequestRule::InvalidParameter]);
    assert_eq!(rp.token(&form("openid")).await.0, 200);
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_notification_token_has_only_characters_of_a_header() {
    let mut rp = rp(|op| op);
    let code = rp.deferred_code();
    let form = [
        ("grant_type", DEFERRED),
        ("deferred_code", &*code),
        ("code_verifier", VERIFIER),
        ("deferred_notification_token", "two words"),
    ];
    assert_eq!(rp.token(&form).await.0, 200);
    assert_eq!(broken(&rp), [RequestRule::InvalidParameter]);
}

/// Sends a client assertion to the token endpoint. Returns the error and the rules that it broke.
async fn asserted(rp: &mut Rp, assertion: &str) -> (String, Vec<RequestRule>) {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", DEFERRED)
        .append_pair("deferred_auth_id", "unknown")
        .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        .append_pair("client_assertion", assertion)
        .finish();
    let response = rp.send(Method::POST, &format!("{}/token", rp.op.issuer()), &[], body).await;
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    (answer["error"].as_str().unwrap().to_owned(), broken(rp))
}

#[tokio::test]
async fn a_client_assertion_uses_the_registered_key_and_method() {
    let key = Key::generate();
    let registered = |changes: Value| {
        let mut jwk = key.jwk();
        jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        TestClient::private_key_jwt("signer", &jwk.to_string()).redirect_uri(REDIRECT)
    };
    let mut rp = rp(|op| op);
    let claims = |rp: &Rp, jti: &str| json!({ "iss": "signer", "sub": "signer", "aud": rp.op.issuer(), "jti": jti, "exp": rp.now() + 60 });
    let refused = ("invalid_client".to_owned(), vec![RequestRule::AssertionInvalid]);
    let taken = ("invalid_grant".to_owned(), vec![RequestRule::UnknownDeferredAuthId]);
    let plain = json!({ "alg": "ES256" });
    let cases = [
        ("good", json!({ "use": "sig", "alg": "ES256", "kid": "1" }), json!({ "alg": "ES256", "kid": "1" }), &taken),
        ("no `kid`", json!({ "kid": "1" }), plain.clone(), &taken),
        ("another `kid`", json!({ "kid": "1" }), json!({ "alg": "ES256", "kid": "2" }), &refused),
        ("a key for encryption", json!({ "use": "enc" }), plain.clone(), &refused),
        ("a key for ES384", json!({ "alg": "ES384" }), plain.clone(), &refused),
        ("`crit`", json!({}), json!({ "alg": "ES256", "crit": ["x"], "x": 1 }), &refused),
    ];
    for (case, key_members, header, expected) in cases {
        rp.op.register(registered(key_members));
        let assertion = key.sign(&header, &claims(&rp, case));
        assert_eq!(asserted(&mut rp, &assertion).await, *expected, "{case}");
    }
    rp.op.register(registered(json!({})));
    let mut later = claims(&rp, "later");
    later["nbf"] = json!(rp.now() + 100);
    assert_eq!(asserted(&mut rp, &key.sign(&plain, &later)).await, refused, "`nbf` in the future");
}

#[tokio::test]
async fn a_client_assertion_is_signed_by_an_algorithm_that_the_metadata_lists() {
    let rsa = Rsa::generate(2048).unwrap();
    let number = |number: &openssl::bn::BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
    let jwk = json!({ "kty": "RSA", "n": number(rsa.n()), "e": number(rsa.e()) }).to_string();
    let key = PKey::from_rsa(rsa).unwrap();
    let mut rp = rp(|op| op.client(TestClient::private_key_jwt("signer", &jwk).redirect_uri(REDIRECT)));
    let mut outcomes = Vec::new();
    for (alg, digest) in [("RS256", MessageDigest::sha256()), ("RS512", MessageDigest::sha512())] {
        let claims =
            json!({ "iss": "signer", "sub": "signer", "aud": rp.op.issuer(), "jti": alg, "exp": rp.now() + 60 });
        let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", segment(&json!({ "alg": alg })), segment(&claims));
        let mut signer = Signer::new(digest, &key).unwrap();
        let signature = signer.sign_oneshot_to_vec(message.as_bytes()).unwrap();
        outcomes.push(asserted(&mut rp, &format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))).await);
    }
    let taken = ("invalid_grant".to_owned(), vec![RequestRule::UnknownDeferredAuthId]);
    assert_eq!(outcomes, [taken, ("invalid_client".to_owned(), vec![RequestRule::AssertionInvalid])]);
    assert_eq!(rp.op.requests_to(Endpoint::Poll).len(), 2);
}
