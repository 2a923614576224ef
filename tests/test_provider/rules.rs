//! The requests that the provider refuses and records.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use openid_deferred::Clock;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, NoncePolicy, PingForgery, RequestRule, TestClient};
use serde_json::{Value, json};

use crate::rp::{DEFERRED, Key, REDIRECT, request, rp};

#[tokio::test]
async fn an_invalid_authorization_request_returns_an_error_with_state_and_iss() {
    let rp = rp(|op| op);
    let cases = [
        ("response_type", "token", "unsupported_response_type", RequestRule::WrongResponseType),
        ("scope", "profile", "invalid_scope", RequestRule::NoOpenidScope),
        ("code_challenge_method", "plain", "invalid_request", RequestRule::NoPkce),
        ("dpop_jkt", "short", "invalid_request", RequestRule::InvalidParameter),
        ("max_age", "-1", "invalid_request", RequestRule::InvalidParameter),
        ("claims", "{", "invalid_request", RequestRule::InvalidParameter),
    ];
    for (name, value, error, rule) in cases {
        let back = rp.op.visit(rp.authorization_url(&[(name, value)]));
        assert_eq!(back.parameter("error"), Some(error), "{name}");
        assert_eq!((back.parameter("state"), back.parameter("iss")), (Some("the-state"), Some(rp.op.issuer())));
        assert_eq!(rp.broken_rules(), [rule]);
        rp.op.forgive();
    }
}

#[test]
#[should_panic(expected = "the user sees an error page with status 400 Bad Request")]
fn a_redirect_uri_that_is_not_registered_is_never_redirected_to() {
    let rp = rp(|op| op);
    rp.op.visit(rp.authorization_url(&[("redirect_uri", "https://evil.test/")]));
}

#[tokio::test]
async fn an_invalid_exchange_is_refused_and_leaves_the_code_unspent() {
    let mut rp = rp(|op| op);
    let code = rp.deferred_code();
    let other = URL_SAFE_NO_PAD.encode([7; 32]);
    let cases = [
        (vec![("deferred_code", "unknown")], "invalid_grant", RequestRule::UnknownCode),
        (vec![("deferred_code", &code), ("code_verifier", &other)], "invalid_grant", RequestRule::WrongVerifier),
        (vec![("deferred_code", &code)], "invalid_grant", RequestRule::WrongVerifier),
        (
            vec![("deferred_code", &code), ("redirect_uri", "https://rp.test/")],
            "invalid_grant",
            RequestRule::RedirectUriChanged,
        ),
        (vec![("deferred_code", &code), ("deferred_code", &code)], "invalid_request", RequestRule::RepeatedParameter),
        (vec![("deferred_code", &code), ("deferred_auth_id", "x")], "invalid_request", RequestRule::InvalidParameter),
    ];
    for (mut form, error, rule) in cases {
        form.push(("grant_type", DEFERRED));
        let (status, answer) = rp.token(&form).await;
        assert_eq!((status, &answer["error"]), (400, &json!(error)), "{rule:?}");
        assert_eq!(rp.broken_rules(), [rule]);
        rp.op.forgive();
    }
    assert_eq!(rp.exchange(&code).await.0, 200);
    let (_, again) = rp.exchange(&code).await;
    assert_eq!(again["error"], "invalid_grant");
    assert_eq!(rp.broken_rules(), [RequestRule::CodeReplayed]);
}

#[tokio::test]
async fn client_authentication_is_exactly_the_registered_one() {
    let mut rp = rp(|op| op);
    rp.basic = Some(("server", "s3cret: %+"));
    let id = rp.started().await;
    assert_eq!(rp.poll_in_time(&id).await.0, 200);
    rp.op.assert_clean();

    rp.basic = Some(("server", "wrong"));
    let url = format!("{}/token", rp.op.issuer());
    let form = [("grant_type", DEFERRED), ("deferred_code", "x")];
    let response = rp.post_raw(&url, &form, &[]).await;
    assert_eq!(response.status, 401);
    assert!(response.headers["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let (_, several) = rp.post(&url, &[form[0], form[1], ("client_secret", "s3cret: %+")], &[]).await;
    assert_eq!(several["error"], "invalid_request");
    rp.basic = None;
    let (status, answer) = rp.post(&url, &[form[0], form[1], ("client_id", "server")], &[]).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")), "`client_id` is there twice");
    let rules =
        [RequestRule::ClientAuthentication, RequestRule::SeveralAuthentications, RequestRule::RepeatedParameter];
    assert_eq!(rp.broken_rules(), rules);
}

#[tokio::test]
async fn a_client_assertion_is_accepted_once_and_only_for_this_issuer() {
    let key = Key::generate();
    let client = TestClient::private_key_jwt("signer", &key.jwk().to_string()).redirect_uri(REDIRECT);
    let mut rp = rp(|op| op.client(client));
    let url = format!("{}/token", rp.op.issuer());
    let now = rp.now();
    let good = json!({ "iss": "signer", "sub": "signer", "aud": "https://op.test", "jti": "1", "exp": now + 60 });
    let mut send = async |claims: &Value, key: &Key| {
        let assertion = key.sign(&json!({ "alg": "ES256" }), claims);
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", DEFERRED)
            .append_pair("deferred_auth_id", "unknown")
            .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .append_pair("client_assertion", &assertion)
            .finish();
        let response = rp.send(Method::POST, &url, &[], body).await;
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        let rules = rp.broken_rules();
        rp.op.forgive();
        (answer["error"].as_str().unwrap().to_owned(), rules)
    };
    let invalid = ("invalid_client".to_owned(), vec![RequestRule::AssertionInvalid]);
    for (name, value) in [
        ("aud", json!(["https://op.test"])),
        ("aud", json!("https://op.test/token")),
        ("iss", json!("another")),
        ("exp", json!(now)),
        ("exp", json!(now + 86_400)),
        ("jti", Value::Null),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        assert_eq!(send(&claims, &key).await, invalid, "{name}");
    }
    assert_eq!(send(&good, &Key::generate()).await, invalid);
    assert_eq!(send(&good, &key).await, ("invalid_grant".to_owned(), vec![RequestRule::UnknownDeferredAuthId]));
    assert_eq!(send(&good, &key).await, ("invalid_client".to_owned(), vec![RequestRule::AssertionReplayed]));
}

#[tokio::test]
async fn every_claim_of_a_dpop_proof_is_checked() {
    let mut rp = rp(|op| op);
    let id = rp.started().await;
    let url = format!("{}/token", rp.op.issuer());
    let jwk = rp.key.jwk();
    let mut private = jwk.clone();
    private["d"] = json!("AAAA");
    let (header, now) = (json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk }), rp.now());
    let claims = json!({ "jti": "fresh", "htm": "POST", "htu": url, "iat": now });
    let with = |value: &Value, name: &str, changed: Value| {
        let mut value = value.clone();
        value[name] = changed;
        value
    };
    let mut other = Key::generate();
    let mut cases = vec![
        (with(&header, "typ", json!("JWT")), claims.clone(), RequestRule::DpopInvalid),
        (with(&header, "alg", json!("none")), claims.clone(), RequestRule::DpopInvalid),
        (with(&header, "jwk", private), claims.clone(), RequestRule::DpopPrivateKey),
        (with(&header, "jwk", other.jwk()), claims.clone(), RequestRule::DpopInvalid),
    ];
    for (name, value) in
        [("htm", json!("GET")), ("htu", json!("https://op.test/")), ("jti", json!("")), ("ath", json!("AAAA"))]
    {
        cases.push((header.clone(), with(&claims, name, value), RequestRule::DpopInvalid));
    }
    cases.push((header.clone(), with(&claims, "jti", json!("jti-1")), RequestRule::DpopReplayed));
    for (header, claims, rule) in cases {
        rp.clock.advance(Duration::from_secs(5));
        let mut claims = claims;
        claims["iat"] = json!(rp.now());
        let proof = rp.key.sign(&header, &claims);
        let (status, answer) =
            rp.post(&url, &[("grant_type", DEFERRED), ("deferred_auth_id", &id)], &[("dpop", proof)]).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_dpop_proof")), "{rule:?} {claims}");
        assert_eq!(rp.broken_rules(), [rule], "{claims}");
        rp.op.forgive();
    }
    rp.clock.advance(Duration::from_secs(5));
    let (_, missing) = rp.post(&url, &[("grant_type", DEFERRED), ("deferred_auth_id", &id)], &[]).await;
    std::mem::swap(&mut rp.key, &mut other);
    rp.clock.advance(Duration::from_secs(5));
    let (_, changed) = rp.poll(&id).await;
    assert_eq!((&missing["error"], &changed["error"]), (&json!("invalid_dpop_proof"), &json!("invalid_dpop_proof")));
    assert_eq!(rp.broken_rules(), [RequestRule::DpopMissing, RequestRule::DpopKeyChanged]);
}

#[tokio::test]
async fn a_proof_with_a_wrong_time_is_refused_without_a_violation_and_the_date_header_has_the_time() {
    let mut rp = rp(|op| op.clock_offset(3_600));
    let code = rp.deferred_code();
    let (status, answer) = rp.exchange(&code).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_dpop_proof")));
    let date = rp.op.requests_to(Endpoint::Exchange)[0].response_headers["date"].to_str().unwrap().to_owned();
    assert_eq!(httpdate::parse_http_date(&date).unwrap(), rp.clock.now() + Duration::from_secs(3_600));
    rp.op.assert_clean();
}

#[tokio::test]
async fn nonces_are_required_and_separate_for_each_role() {
    let mut rp = rp(|op| op.dpop_nonces(NoncePolicy::Required));
    let code = rp.deferred_code();
    let (status, challenge) = rp.exchange(&code).await;
    assert_eq!((status, &challenge["error"]), (400, &json!("use_dpop_nonce")));
    let (_, exchange) = rp.exchange(&code).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap().to_owned();
    let (_, tokens) = rp.poll_in_time(&id).await;
    rp.op.assert_clean();

    let url = format!("{}/userinfo", rp.op.issuer());
    let token = tokens["access_token"].as_str().unwrap().to_owned();
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    let refused = rp.send(Method::GET, &url, &headers, String::new()).await;
    assert_eq!(refused.status, 401);
    assert!(refused.headers["www-authenticate"].to_str().unwrap().contains("use_dpop_nonce"));
    assert_eq!(rp.broken_rules(), [RequestRule::DpopNonceOfOtherRole]);
    rp.nonce = Some(refused.headers["dpop-nonce"].to_str().unwrap().to_owned());
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    assert_eq!(rp.send(Method::GET, &url, &headers, String::new()).await.status, 200);
}

#[tokio::test]
async fn each_poll_may_be_repeated_after_a_nonce_challenge() {
    let mut rp = rp(|op| op.dpop_nonces(NoncePolicy::Required).decisions(DecisionPolicy::scripted()));
    let code = rp.deferred_code();
    rp.exchange(&code).await;
    let id = rp.exchange(&code).await.1["deferred_auth_id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        rp.op.misbehave(Fault::forget_nonces(Endpoint::Poll).times(2));
        assert_eq!(rp.poll_in_time(&id).await.1["error"], "use_dpop_nonce");
        assert_eq!(rp.poll(&id).await.1["error"], "use_dpop_nonce", "the client gives up");
    }
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "authorization_pending");
    rp.op.assert_clean();
    rp.op.misbehave(Fault::forget_nonces(Endpoint::Poll).times(4));
    rp.poll_in_time(&id).await;
    for _ in 0..3 {
        rp.poll(&id).await;
    }
    assert_eq!(rp.broken_rules(), [RequestRule::PolledTooEarly], "no client repeats a request that often");
}

#[tokio::test]
async fn a_nonce_that_rotates_with_every_response_is_valid_for_one_request() {
    let mut rp = rp(|op| op.dpop_nonces(NoncePolicy::RotateEveryRequest).decisions(DecisionPolicy::scripted()));
    let code = rp.deferred_code();
    rp.exchange(&code).await;
    let (_, exchange) = rp.exchange(&code).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap().to_owned();
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "authorization_pending");
    rp.op.rotate_nonces();
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "use_dpop_nonce");
    assert_eq!(rp.poll(&id).await.1["error"], "authorization_pending", "the retry need not wait");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_poll_before_its_time_is_a_violation_and_lengthens_the_interval() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.clock.advance(Duration::from_millis(4_999));
    assert_eq!(rp.poll(&id).await.1["error"], "slow_down");
    assert_eq!(rp.broken_rules(), [RequestRule::PolledTooEarly]);
    assert_eq!(rp.op.process(&id).interval(), Duration::from_secs(10));
    rp.op.forgive();
    rp.op.process(&id).slow_down_next();
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "slow_down");
    assert_eq!(rp.op.process(&id).interval(), Duration::from_secs(15));
    rp.op.assert_clean();
}

#[tokio::test]
async fn one_poll_after_a_ping_and_one_before_the_end_may_be_early() {
    let minute = Duration::from_secs(60);
    let mut rp =
        rp(|op| op.decisions(DecisionPolicy::scripted()).interval(minute).expires_in(2 * minute).on_ping(|_| 204));
    let id = rp.started().await;
    rp.op.process(&id).send_ping(PingForgery::Genuine);
    assert_eq!(rp.poll(&id).await.1["error"], "authorization_pending");
    rp.poll_in_time(&id).await;
    rp.clock.advance(Duration::from_secs(55));
    assert_eq!(rp.poll(&id).await.1["error"], "authorization_pending");
    rp.op.assert_clean();
    rp.poll(&id).await;
    assert_eq!(rp.broken_rules(), [RequestRule::PolledTooEarly]);
}

#[tokio::test]
async fn a_token_request_is_a_post_with_a_form_and_nothing_in_the_url() {
    let mut rp = rp(|op| op);
    let url = format!("{}/token", rp.op.issuer());
    let json = [("content-type", "application/json".to_owned())];
    let mut statuses = Vec::new();
    for (method, url, headers) in [
        (Method::GET, url.clone(), &[] as &[_]),
        (Method::PUT, url.clone(), &json),
        (Method::POST, format!("{url}?client_id=app"), &[]),
        (Method::POST, url.clone(), &[]),
    ] {
        statuses.push(rp.send(method, &url, headers, "grant_type=other&client_id=app".into()).await.status.as_u16());
    }
    let mut with_json = request(Method::POST, &url, &[], "{}".into());
    with_json.headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    statuses.push(rp.http.send(with_json).await.unwrap().status.as_u16());
    assert_eq!(statuses, [405, 405, 400, 400, 415]);
    let rules = [
        RequestRule::WrongMethod,
        RequestRule::WrongMethod,
        RequestRule::TokenInQuery,
        RequestRule::UnsupportedGrantType,
        RequestRule::WrongContentType,
    ];
    assert_eq!(rp.broken_rules(), rules);
}

#[tokio::test]
async fn a_grant_of_another_client_is_refused_by_the_provider() {
    let mut rp = rp(|op| op);
    let (code, id) = (rp.deferred_code(), rp.started().await);
    rp.basic = Some(("server", "s3cret: %+"));
    assert_eq!(rp.exchange(&code).await.1["error"], "invalid_grant");
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "invalid_grant");
    assert_eq!(rp.broken_rules(), [RequestRule::ForeignGrant, RequestRule::ForeignGrant]);
}

#[tokio::test]
async fn dpop_can_be_required_and_a_key_is_for_one_process() {
    let mut rp = rp(|op| op.require_dpop());
    let code = rp.deferred_code();
    let url = format!("{}/token", rp.op.issuer());
    let form = [("grant_type", DEFERRED), ("deferred_code", &code), ("code_verifier", crate::rp::VERIFIER)];
    assert_eq!(rp.post(&url, &form, &[]).await.1["error"], "invalid_dpop_proof");
    assert_eq!(rp.broken_rules(), [RequestRule::DpopMissing]);
    rp.op.forgive();
    assert_eq!(rp.exchange(&code).await.0, 200);
    rp.op.assert_clean();
    let code = rp.deferred_code();
    assert_eq!(rp.exchange(&code).await.0, 200, "the draft only says SHOULD NOT");
    assert_eq!(rp.broken_rules(), [RequestRule::DpopKeyReused]);
}

#[tokio::test]
async fn the_exchange_must_use_the_key_of_dpop_jkt() {
    let mut rp = rp(|op| op);
    let code = rp.deferred_code();
    rp.key = Key::generate();
    assert_eq!(rp.exchange(&code).await.1["error"], "invalid_dpop_proof");
    assert_eq!(rp.broken_rules(), [RequestRule::DpopKeyChanged]);
}

#[tokio::test]
async fn concurrent_polls_are_a_violation() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.op.misbehave(Fault::stall(Endpoint::Poll));
    rp.clock.advance(Duration::from_secs(5));
    let url = format!("{}/token", rp.op.issuer());
    let proof = rp.proof("POST", &url, None);
    let body = format!("grant_type={DEFERRED}&deferred_auth_id={id}&client_id=app");
    let http = std::sync::Arc::clone(&rp.http);
    let stalled = http.send(request(Method::POST, &url, &[("dpop", proof)], body));
    tokio::select! {
        biased;
        _ = stalled => unreachable!("it is stalled"),
        _ = rp.poll(&id) => {}
    }
    assert_eq!(rp.broken_rules(), [RequestRule::PolledInParallel]);
}

#[tokio::test]
async fn a_challenge_can_come_as_401() {
    let mut rp = rp(|op| op.dpop_nonces(NoncePolicy::Required).challenge_with_unauthorized());
    let code = rp.deferred_code();
    let (status, answer) = rp.exchange(&code).await;
    assert_eq!((status, &answer["error"]), (401, &json!("use_dpop_nonce")));
    let headers = &rp.op.requests_to(Endpoint::Exchange)[0].response_headers;
    assert_eq!(headers["www-authenticate"], "DPoP error=\"use_dpop_nonce\"");
    assert_eq!(rp.exchange(&code).await.0, 200);
}
