//! The IETF draft: what is deferred, how polls go, and what comes out.

use std::time::Duration;

use http::Method;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, RequestRule, TestProviderBuilder};
use serde_json::{Value, json};

use crate::rp::{DEFERRED, IETF, REDIRECT, Rp, TOKEN_EXCHANGE, ietf, rp};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

#[tokio::test]
async fn the_metadata_is_that_of_the_draft() {
    let mut rp = ietf(|op| op);
    let metadata = metadata(&mut rp, "/.well-known/openid-configuration").await;
    assert_eq!(metadata["deferred_token_response_supported"], true);
    assert_eq!(metadata["response_types_supported"], json!(["code"]));
    let grants = [
        IETF,
        "authorization_code",
        "client_credentials",
        TOKEN_EXCHANGE,
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "refresh_token",
    ];
    assert_eq!(metadata["grant_types_supported"], json!(grants));
    assert_eq!(metadata["revocation_endpoint"], "https://op.test/revoke");
    let revocable = metadata["revocation_endpoint_token_type_values_supported"].as_array().unwrap();
    assert!(revocable.contains(&json!("urn:ietf:params:oauth:token-type:deferral-code")), "{revocable:?}");

    let mut without = ietf(TestProviderBuilder::without_deferral_code_revocation);
    let metadata = self::metadata(&mut without, "/.well-known/openid-configuration").await;
    assert_eq!(metadata["revocation_endpoint_token_type_values_supported"], json!(["access_token", "refresh_token"]));
}

async fn metadata(rp: &mut Rp, path: &str) -> Value {
    let url = format!("{}{path}", rp.op.issuer());
    let response = rp.send(Method::GET, &url, &[], String::new()).await;
    assert_eq!(response.status, 200);
    serde_json::from_slice(&response.body).unwrap()
}

#[tokio::test]
async fn a_code_is_deferred_and_polled_until_its_tokens_come_once() {
    let mut rp = ietf(|op| op.decisions(DecisionPolicy::after_polls(2)));
    let code = rp.code(&[]);
    let (status, deferred) = rp.redeem(&code, &[("completion_mode", "deferred")]).await;
    let id = deferred["deferral_code"].as_str().unwrap().to_owned();
    assert_eq!(
        (status, deferred),
        (400, json!({ "error": "authorization_pending", "deferral_code": id, "expires_in": 1_814_400, "interval": 5 }))
    );
    for _ in 0..2 {
        assert_eq!(rp.poll_code_in_time(&id).await, (400, json!({ "error": "authorization_pending" })));
    }
    let (status, tokens) = rp.poll_code_in_time(&id).await;
    assert_eq!((status, &tokens["token_type"]), (200, &json!("DPoP")));
    assert_eq!(rp.verified(&tokens["id_token"]).await["nonce"], "the-nonce");
    assert!(tokens["refresh_token"].is_string());
    rp.op.assert_clean();
    assert!(rp.op.process(&id).is_redeemed());
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "invalid_grant");
    assert_eq!(rp.broken_rules(), [RequestRule::PolledAfterEnd]);
}

#[tokio::test]
async fn every_answer_with_a_code_or_token_is_not_to_be_stored() {
    let mut rp = ietf(|op| op.requires_interaction());
    let id = rp.deferred().await;
    rp.poll_code_in_time(&id).await;
    rp.op.process(&id).approve();
    rp.poll_code_in_time(&id).await;
    let requests = rp.op.requests_to(Endpoint::Token);
    assert_eq!(requests.iter().map(|request| request.status.unwrap()).collect::<Vec<_>>(), [400, 400, 200]);
    assert!(requests.iter().all(|request| request.response_headers["cache-control"] == "no-store"));
}

#[tokio::test]
async fn a_token_request_that_does_not_opt_in_is_answered_at_once() {
    let mut rp = ietf(|op| op);
    let code = rp.code(&[]);
    assert_eq!(rp.redeem(&code, &[]).await.0, 200);
    rp.authenticate();
    assert_eq!(rp.token(&[("grant_type", "client_credentials")]).await.0, 200);
    rp.op.assert_clean();
}

#[tokio::test]
async fn an_openid_provider_ignores_the_opt_in_and_does_not_know_the_grants() {
    let mut rp = rp(|op| op);
    let code = rp.op.visit(rp.authorization_url(&[("response_type", "code"), ("completion_mode", "deferred")]));
    let code = code.parameter("code").unwrap().to_owned();
    assert_eq!(rp.redeem(&code, &[]).await.0, 200);
    let code = rp.code(&[]);
    assert_eq!(rp.redeem(&code, &[("completion_mode", "other")]).await.0, 200);
    rp.op.assert_clean();
    rp.authenticate();
    for grant in ["client_credentials", TOKEN_EXCHANGE, IETF] {
        assert_eq!(rp.token(&[("grant_type", grant)]).await.1["error"], "unsupported_grant_type", "{grant}");
    }
    assert!(rp.op.requests_to(Endpoint::Poll).is_empty());
}

#[tokio::test]
async fn an_ietf_provider_does_not_know_the_openid_draft() {
    let mut rp = ietf(|op| op);
    let back = rp.op.visit(rp.authorization_url(&[]));
    assert_eq!(back.parameter("error"), Some("unsupported_response_type"));
    let (_, answer) = rp.token(&[("grant_type", DEFERRED), ("deferred_auth_id", "x")]).await;
    assert_eq!(answer["error"], "unsupported_grant_type");
    let cancellation = rp.op.cancellation_endpoint();
    assert_eq!(rp.post(&cancellation, &[("deferred_auth_id", "x")], &[]).await.0, 404);
    let rules = [RequestRule::WrongResponseType, RequestRule::UnsupportedGrantType, RequestRule::UnknownEndpoint];
    assert_eq!(rp.broken_rules(), rules);
}

#[tokio::test]
async fn both_dialects_can_be_enabled_and_their_identifiers_are_separate() {
    let mut rp = rp(|op| op.both_dialects().allow_dpop_key_reuse().decisions(DecisionPolicy::scripted()));
    let metadata = metadata(&mut rp, "/.well-known/openid-configuration").await;
    assert_eq!(metadata["response_types_supported"], json!(["code", "deferred_code", "deferred_code code"]));
    let grants = metadata["grant_types_supported"].as_array().unwrap();
    assert!([DEFERRED, IETF].iter().all(|&grant| grants.contains(&json!(grant))), "{grants:?}");

    let (openid, ietf) = (rp.started().await, rp.deferred().await);
    assert_eq!(rp.op.process(&openid).deferred_auth_id().as_deref(), Some(&*openid));
    assert_eq!(rp.op.process(&ietf).deferral_code().as_deref(), Some(&*ietf));
    assert_eq!((rp.op.process(&openid).deferral_code(), rp.op.process(&ietf).deferred_auth_id()), (None, None));
    assert_eq!(rp.poll_in_time(&openid).await.1["error"], "authorization_pending");
    assert_eq!(rp.poll_code_in_time(&ietf).await.1["error"], "authorization_pending");
    rp.op.assert_clean();
    assert_eq!(rp.poll_code_in_time(&openid).await.1["error"], "invalid_grant");
    assert_eq!(rp.poll_in_time(&ietf).await.1["error"], "invalid_grant");
    assert_eq!(rp.broken_rules(), [RequestRule::UnknownDeferralCode, RequestRule::UnknownDeferredAuthId]);
}

#[tokio::test]
async fn an_authorization_request_without_openid_gives_no_id_token() {
    let mut rp = ietf(|op| op);
    let code = rp.code(&[("scope", "read write"), ("nonce", "")]);
    let (_, deferred) = rp.redeem(&code, &[("completion_mode", "deferred")]).await;
    let (status, tokens) = rp.poll_code_in_time(deferred["deferral_code"].as_str().unwrap()).await;
    assert_eq!((status, &tokens["id_token"], &tokens["scope"]), (200, &Value::Null, &json!("read write")));
    rp.op.assert_clean();
    let back = rp.op.visit(rp.authorization_url(&[("response_type", "code"), ("nonce", "")]));
    assert_eq!(back.parameter("error"), Some("invalid_request"), "with `openid` it is a sign-in");
}

#[tokio::test]
async fn client_credentials_are_deferred_and_give_neither_id_token_nor_refresh_token() {
    let mut rp = ietf(|op| op);
    rp.authenticate();
    let details = r#"[{"type":"payment"}]"#;
    let form = [
        ("grant_type", "client_credentials"),
        ("completion_mode", "deferred"),
        ("scope", "openid pay"),
        ("authorization_details", details),
    ];
    let (status, deferred) = rp.token(&form).await;
    assert_eq!((status, &deferred["error"]), (400, &json!("authorization_pending")));
    let id = deferred["deferral_code"].as_str().unwrap();
    assert_eq!(rp.op.process(id).authorization_parameter("scope").as_deref(), Some("openid pay"));
    let (status, tokens) = rp.poll_code_in_time(id).await;
    let members: Vec<_> = tokens.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        (status, members),
        (200, vec!["access_token", "token_type", "expires_in", "scope", "authorization_details"])
    );
    assert_eq!(introspected(&mut rp, &tokens).await["sub"], "server");
    rp.op.assert_clean();
    let endpoints: Vec<_> = rp.op.requests_to(Endpoint::Token).iter().map(|request| request.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::ClientCredentials, Endpoint::Poll]);
}

async fn introspected(rp: &mut Rp, tokens: &Value) -> Value {
    let url = format!("{}/introspect", rp.op.issuer());
    rp.post(&url, &[("token", tokens["access_token"].as_str().unwrap())], &[]).await.1
}

#[tokio::test]
async fn a_token_exchange_is_deferred_and_says_what_type_it_issued() {
    let mut rp = ietf(|op| op);
    rp.authenticate();
    let (subject, actor) = (rp.op.subject_token("jane"), rp.op.subject_token("robot"));
    let form = [
        ("grant_type", TOKEN_EXCHANGE),
        ("completion_mode", "deferred"),
        ("subject_token", &*subject),
        ("subject_token_type", ACCESS_TOKEN),
        ("actor_token", &actor),
        ("actor_token_type", ACCESS_TOKEN),
        ("requested_token_type", ACCESS_TOKEN),
        ("audience", "one"),
        ("audience", "two"),
        ("resource", "https://api.test/"),
        ("scope", "openid read"),
    ];
    let (_, deferred) = rp.token(&form).await;
    let (status, tokens) = rp.poll_code_in_time(deferred["deferral_code"].as_str().unwrap()).await;
    assert_eq!((status, &tokens["issued_token_type"]), (200, &json!(ACCESS_TOKEN)));
    assert_eq!((&tokens["id_token"], &tokens["refresh_token"]), (&Value::Null, &Value::Null));
    assert_eq!(introspected(&mut rp, &tokens).await["sub"], "jane");

    // The issued token is good for another exchange.
    let form = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", tokens["access_token"].as_str().unwrap()),
        ("subject_token_type", ACCESS_TOKEN),
    ];
    let (status, tokens) = rp.token(&form).await;
    assert_eq!((status, &tokens["issued_token_type"]), (200, &json!(ACCESS_TOKEN)));
    assert_eq!(introspected(&mut rp, &tokens).await["sub"], "jane");
    rp.op.assert_clean();
    assert_eq!(rp.op.requests_to(Endpoint::TokenExchange).len(), 2);
}

#[tokio::test]
async fn a_jwt_as_a_grant_is_deferred() {
    let mut rp = ietf(|op| op);
    rp.authenticate();
    let assertion = rp.op.assertion("jane");
    let (_, deferred) = rp.bearer(&assertion, &[("completion_mode", "deferred")]).await;
    let (status, tokens) = rp.poll_code_in_time(deferred["deferral_code"].as_str().unwrap()).await;
    assert_eq!((status, &tokens["id_token"], &tokens["refresh_token"]), (200, &Value::Null, &Value::Null));
    assert_eq!(introspected(&mut rp, &tokens).await["sub"], "jane");
    rp.op.assert_clean();
    assert_eq!(rp.op.requests_to(Endpoint::JwtBearer).len(), 1);
}

#[tokio::test]
async fn the_server_may_always_answer_at_once() {
    let mut rp = ietf(TestProviderBuilder::answers_at_once);
    let code = rp.code(&[("completion_mode", "deferred")]);
    assert_eq!(rp.redeem(&code, &[("completion_mode", "deferred")]).await.0, 200);
    rp.op.assert_clean();
}

#[tokio::test]
async fn amounts_above_a_limit_are_deferred_and_others_are_not() {
    let mut rp = ietf(|op| op.defers_above(100).allow_dpop_key_reuse());
    rp.authenticate();
    for (amount, status) in [
        (json!("100.00"), 200),
        (json!(100), 200),
        (json!("100.01"), 400),
        (json!(101), 400),
        (json!("much"), 400),
        (Value::Null, 400),
    ] {
        let details = json!([{ "type": "payment", "instructedAmount": { "amount": amount, "currency": "EUR" } }]);
        let details = details.to_string();
        let form = [
            ("grant_type", "client_credentials"),
            ("completion_mode", "deferred"),
            ("authorization_details", &*details),
        ];
        assert_eq!(rp.token(&form).await.0, status, "{amount}");
        rp.basic = None;
        let code = rp.code(&[("authorization_details", &details)]);
        assert_eq!(rp.redeem(&code, &[("completion_mode", "deferred")]).await.0, status, "{amount}");
        rp.authenticate();
    }
    rp.op.assert_clean();
}

#[tokio::test]
async fn decisions_are_scripted_as_in_the_openid_draft() {
    let mut rp = ietf(|op| op.decisions(DecisionPolicy::scripted()).allow_dpop_key_reuse());
    let id = rp.deferred().await;
    rp.op.process(&id).progress("step-2");
    let pending = json!({ "error": "authorization_pending", "error_description": "step-2" });
    assert_eq!(rp.poll_code_in_time(&id).await, (400, pending));
    rp.op.process(&id).slow_down_next();
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "slow_down");
    assert_eq!(rp.op.process(&id).interval(), Duration::from_secs(10));
    rp.op.process(&id).deny();
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "access_denied");
    let id = rp.deferred().await;
    rp.op.process(&id).expire();
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "expired_token");
    let id = rp.deferred().await;
    rp.op.process(&id).approve_with(json!({ "name": "Somebody" }));
    let (_, tokens) = rp.poll_code_in_time(&id).await;
    assert_eq!(rp.verified(&tokens["id_token"]).await["name"], "Somebody");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_result_that_is_not_collected_in_time_expires() {
    let mut rp = ietf(|op| op.expires_in(Duration::from_secs(60)).decisions(DecisionPolicy::scripted()));
    let id = rp.deferred().await;
    rp.op.process(&id).approve();
    rp.clock.advance(Duration::from_secs(60));
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "expired_token");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_decision_before_the_token_request_is_answered_at_once() {
    for approves in [true, false] {
        let mut rp = ietf(|op| op.decisions(DecisionPolicy::scripted()));
        let code = rp.code(&[]);
        let process = rp.op.last_process();
        if approves {
            process.approve()
        } else {
            process.deny()
        }
        let (status, answer) = rp.redeem(&code, &[("completion_mode", "deferred")]).await;
        assert_eq!(status == 200, approves, "{answer}");
        assert_eq!(answer.get("error"), (!approves).then(|| json!("access_denied")).as_ref());
        assert_eq!(process.deferral_code(), None);
    }
}

#[tokio::test]
async fn some_servers_repeat_code_and_interval_and_the_lifetime_that_is_left() {
    let mut rp =
        ietf(|op| op.repeats_members().expires_in(Duration::from_secs(60)).decisions(DecisionPolicy::scripted()));
    let id = rp.deferred().await;
    rp.op.process(&id).slow_down_next();
    assert_eq!(rp.poll_code_in_time(&id).await.1, json!({ "error": "slow_down" }));
    let pending = json!({ "error": "authorization_pending", "deferral_code": id, "interval": 10, "expires_in": 45 });
    assert_eq!(rp.poll_code_in_time(&id).await.1, pending);
}

#[tokio::test]
async fn faults_can_apply_to_polls_or_to_initial_requests_only() {
    let mut rp = ietf(|op| op.decisions(DecisionPolicy::scripted()));
    rp.op.misbehave(Fault::status(Endpoint::Poll, 503));
    rp.op.misbehave(Fault::edit_any_json(Endpoint::Code, |members| {
        members.insert("interval".into(), json!(7));
    }));
    let code = rp.code(&[]);
    let (_, deferred) = rp.redeem(&code, &[("completion_mode", "deferred")]).await;
    assert_eq!(deferred["interval"], 7);
    let id = deferred["deferral_code"].as_str().unwrap();
    assert_eq!(rp.poll_code_in_time(id).await.0, 503);
    assert_eq!(rp.poll_code_in_time(id).await.1["error"], "authorization_pending");
    assert_eq!(rp.op.faults_left(), 0);
}

#[tokio::test]
async fn codes_with_every_allowed_character_are_understood() {
    let mut rp = ietf(|op| op.opaque_values().requires_interaction());
    let id = rp.deferred().await;
    let uri = rp.op.process(&id).interaction_uri().unwrap();
    rp.op.open_interaction(&uri).approve();
    assert_eq!(rp.poll_code_in_time(&id).await.0, 200);
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_registered_client_may_be_deferred_if_it_registered_for_it() {
    let clock = openid_deferred::testing::TestClock::new();
    let op = crate::rp::provider(&clock).ietf().registration().start().unwrap();
    for (grants, allowed) in [(json!(["client_credentials", IETF]), true), (json!(["client_credentials"]), false)] {
        let body = json!({ "redirect_uris": [REDIRECT], "grant_types": grants, "response_types": [] }).to_string();
        let mut request = crate::rp::request(Method::POST, &format!("{}/register", op.issuer()), &[], body);
        request.headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        let response = op.http_client().send(request).await.unwrap();
        let client: Value = serde_json::from_slice(&response.body).unwrap();
        let credentials =
            crate::rp::basic(client["client_id"].as_str().unwrap(), client["client_secret"].as_str().unwrap());
        let send = async |body: String| {
            let headers = [("authorization", credentials.clone())];
            let request = crate::rp::request(Method::POST, &format!("{}/token", op.issuer()), &headers, body);
            let response = op.http_client().send(request).await.unwrap();
            serde_json::from_slice::<Value>(&response.body).unwrap()
        };
        let deferred = send("grant_type=client_credentials&completion_mode=deferred".into()).await;
        clock.advance(Duration::from_secs(5));
        let code = deferred["deferral_code"].as_str().unwrap();
        let answer = send(format!("grant_type={IETF}&deferral_code={code}")).await;
        assert_eq!(answer["access_token"].is_string(), allowed, "{answer}");
    }
}

#[tokio::test]
async fn the_demo_deviates_from_the_draft() {
    let mut rp = rp(|op| op.like_the_demo().defers_above(100).allow_dpop_key_reuse());
    let metadata = metadata(&mut rp, "/.well-known/oauth-authorization-server").await;
    assert_eq!((metadata.get("jwks_uri"), metadata.get("authorization_endpoint")), (None, None));
    let openid = format!("{}/.well-known/openid-configuration", rp.op.issuer());
    assert_eq!(rp.send(Method::GET, &openid, &[], String::new()).await.status, 404);

    rp.basic = Some(("server", "wrong"));
    let plain = [("grant_type", "client_credentials"), ("completion_mode", "deferred")];
    let (status, answer) = rp.token(&plain).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
    assert_eq!(rp.broken_rules(), [RequestRule::ClientAuthentication]);
    rp.op.forgive();

    rp.authenticate();
    assert_eq!(rp.token(&plain).await.0, 200, "without details nothing is deferred");
    for (amount, status) in [(100, 200), (101, 400)] {
        let details = format!(r#"[{{"type":"payment","instructedAmount":{{"amount":"{amount}"}}}}]"#);
        let (found, answer) = rp.token(&[plain[0], plain[1], ("authorization_details", &details)]).await;
        assert_eq!(found, status);
        if found == 400 {
            assert_eq!((&answer["interval"], &answer["expires_in"]), (&json!(4), &json!(600)));
        }
    }
    rp.op.assert_clean();
}

#[tokio::test]
async fn the_demo_begins_a_jwt_grant_with_an_interaction() {
    let mut rp = rp(|op| op.like_the_demo().decisions(DecisionPolicy::scripted()));
    rp.authenticate();
    let assertion = rp.op.assertion("jane");
    let (_, first) = rp.bearer(&assertion, &[("completion_mode", "deferred")]).await;
    let id = first["deferral_code"].as_str().unwrap().to_owned();
    let uri = first["interaction_uri"].as_str().unwrap().to_owned();
    let expected = json!({
        "error": "interaction_required", "deferral_code": id, "expires_in": 600, "interval": 4, "interaction_uri": uri,
    });
    assert_eq!(first, expected);
    let mut repeated = expected;
    repeated["expires_in"] = json!(596);
    assert_eq!(rp.poll_code_in_time(&id).await.1, repeated);
    rp.op.open_interaction(&uri);
    assert_eq!(rp.poll_code_in_time(&id).await.1, json!({ "error": "interaction_pending" }));
    rp.op.process(&id).approve();
    assert_eq!(rp.poll(&id).await.1["error"], "unsupported_grant_type");
    assert_eq!(rp.poll_code_in_time(&id).await.0, 200);
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn the_demo_checks_in_its_own_order() {
    let errors = async |demo: bool| {
        let mut rp = rp(|op| if demo { op.like_the_demo() } else { op.ietf().expires_in(Duration::from_secs(600)) });
        rp.op.set_decisions(DecisionPolicy::scripted());
        let id = rp.deferred().await;
        rp.op.process(&id).approve();
        let early = rp.poll_code(&id).await.1["error"].clone();
        rp.clock.advance(Duration::from_secs(600));
        rp.op.process(&id).slow_down_next();
        (early, rp.poll_code(&id).await.1["error"].clone())
    };
    assert_eq!(errors(true).await, (json!("slow_down"), json!("expired_token")));
    assert_eq!(errors(false).await.0, Value::Null, "a result that is there is given");
}

#[tokio::test]
async fn the_hint_has_no_effect_on_an_exchange_of_the_openid_draft() {
    let mut rp = rp(TestProviderBuilder::both_dialects);
    let back = rp.op.visit(rp.authorization_url(&[("completion_mode", "deferred")]));
    let code = back.parameter("deferred_code").unwrap();
    assert_eq!(rp.exchange(code).await.0, 200);
    rp.op.assert_clean();
}

/// The default stays the OpenID draft.
#[tokio::test]
async fn the_ietf_draft_is_off_by_default() {
    let mut rp = rp(|op| op);
    let metadata = metadata(&mut rp, "/.well-known/openid-configuration").await;
    for member in ["deferred_token_response_supported", "revocation_endpoint_token_type_values_supported"] {
        assert_eq!(metadata.get(member), None);
    }
    assert_eq!(metadata["grant_types_supported"], json!(["authorization_code", "refresh_token", DEFERRED]));
    let url = format!("{}/interact/x", rp.op.issuer());
    assert_eq!(rp.send(Method::GET, &url, &[], String::new()).await.status, 404);
    assert_eq!(rp.broken_rules(), [RequestRule::UnknownEndpoint]);
}
