//! The provider's behaviour towards a client that keeps the rules.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use openid_deferred::Clock;
use openid_deferred::testing::{
    DecisionPolicy, DiscoveryForm, InterimToken, RequestRule, SeededRandom, TestClient, TestClock, TestProcess,
    TestProvider, TestProviderBuilder, TestUser,
};
use openid_deferred::transport::HttpRequest;
use openssl::sha::sha256;
use serde_json::{Value, json};
use url::Url;

use crate::rp::{DEFERRED, Key, REDIRECT, Rp, VERIFIER, provider, request, rp};

#[tokio::test]
async fn a_correct_client_gets_its_tokens_without_a_violation() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::after_polls(2)).interim_claim("email_verified", false));
    let code = rp.deferred_code();
    let (_, exchange) = rp.exchange(&code).await;
    let id = exchange["deferred_auth_id"].as_str().unwrap().to_owned();
    assert_eq!((&exchange["interval"], &exchange["expires_in"]), (&json!(5), &json!(1_814_400)));
    let interim = rp.verified(&exchange["interim_id_token"]).await;
    assert_eq!((&interim["nonce"], &interim["email_verified"]), (&json!("the-nonce"), &json!(false)));

    for _ in 0..2 {
        let (status, pending) = rp.poll_in_time(&id).await;
        assert_eq!((status, &pending["error"]), (400, &json!("authorization_pending")));
    }
    let (status, tokens) = rp.poll_in_time(&id).await;
    assert_eq!((status, &tokens["token_type"]), (200, &json!("DPoP")));
    let claims = rp.verified(&tokens["id_token"]).await;
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("https://op.test"), &json!("app")));
    let access_token = tokens["access_token"].as_str().unwrap();
    assert_eq!(claims["at_hash"], URL_SAFE_NO_PAD.encode(&sha256(access_token.as_bytes())[..16]));
    rp.op.assert_clean();

    let (status, after) = rp.poll_in_time(&id).await;
    assert_eq!((status, &after["error"]), (400, &json!("invalid_grant")));
    assert_eq!(rp.broken_rules(), [RequestRule::PolledAfterEnd]);
}

#[tokio::test]
async fn the_same_flow_runs_over_http_and_over_https() {
    for https in [false, true] {
        let clock = TestClock::new();
        let builder = TestProvider::builder().client(TestClient::public("app").signing_algorithm("EdDSA"));
        let builder = builder.clock(Arc::new(clock.clone())).allow_missing_pkce().path("/tenant");
        let op = if https { builder.https() } else { builder }.start().unwrap();
        let mut client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = op.ca_certificate_pem() {
            client = client.tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()]);
        }
        let client = client.build().unwrap();

        let metadata = client.get(format!("{}/.well-known/openid-configuration", op.issuer())).send().await.unwrap();
        assert_eq!(metadata.status(), 200);
        let metadata: Value = serde_json::from_slice(&metadata.bytes().await.unwrap()).unwrap();
        assert_eq!(metadata["issuer"], op.issuer());

        let mut url = Url::parse(metadata["authorization_endpoint"].as_str().unwrap()).unwrap();
        url.set_query(Some(
            "response_type=deferred_code&client_id=app&redirect_uri=https://rp.test/&scope=openid&state=1&nonce=2",
        ));
        let redirect = client.get(url).send().await.unwrap();
        assert_eq!(redirect.status(), 303);
        let target = Url::parse(redirect.headers()["location"].to_str().unwrap()).unwrap();
        let code = target.query_pairs().find(|(name, _)| name == "deferred_code").unwrap().1.into_owned();

        let form = |pairs: &[(&str, &str)]| {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            client
                .post(metadata["token_endpoint"].as_str().unwrap())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body)
                .send()
        };
        let exchange = form(&[("grant_type", DEFERRED), ("client_id", "app"), ("deferred_code", &code)]).await.unwrap();
        assert_eq!(exchange.status(), 200);
        let exchange: Value = serde_json::from_slice(&exchange.bytes().await.unwrap()).unwrap();
        let id = exchange["deferred_auth_id"].as_str().unwrap();
        clock.advance(Duration::from_secs(5));
        let tokens = form(&[("grant_type", DEFERRED), ("client_id", "app"), ("deferred_auth_id", id)]).await.unwrap();
        assert_eq!(tokens.status(), 200);
        let tokens: Value = serde_json::from_slice(&tokens.bytes().await.unwrap()).unwrap();
        assert_eq!(tokens["token_type"], "Bearer");
        op.assert_clean();
    }
}

#[tokio::test]
async fn form_post_gives_a_page_that_posts_itself() {
    let mut rp = rp(|op| op);
    let url = rp.authorization_url(&[("response_mode", "form_post"), ("state", "a\"<b>&c")]);
    let page = rp.send(Method::GET, &url, &[], String::new()).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("action=\"https://rp.test/callback\""));
    assert!(page.contains("name=\"state\" value=\"a&quot;&lt;b&gt;&amp;c\""));
}

#[tokio::test]
async fn deferred_code_code_can_be_answered_with_an_ordinary_code() {
    let mut rp = rp(TestProviderBuilder::answer_with_code);
    let back = rp.op.visit(rp.authorization_url(&[("response_type", "code deferred_code")]));
    let code = back.parameter("code").unwrap();
    assert_eq!(back.parameter("deferred_code"), None);
    let form =
        [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT), ("code_verifier", VERIFIER)];
    let (status, tokens) = rp.token(&form).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(rp.verified(&tokens["id_token"]).await["nonce"], "the-nonce");
    rp.op.assert_clean();
}

#[tokio::test]
async fn each_decision_has_its_error_code() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    type Decide = fn(&TestProcess);
    let cases: [(Decide, &str); 2] = [(TestProcess::deny, "access_denied"), (TestProcess::expire, "expired_token")];
    for (decide, error) in cases {
        rp.key = Key::generate();
        let id = rp.started().await;
        rp.op.process(&id).progress("step 2 of 3");
        let (_, pending) = rp.poll_in_time(&id).await;
        assert_eq!(pending["error_description"], "step 2 of 3");
        decide(&rp.op.process(&id));
        assert_eq!(rp.poll_in_time(&id).await.1["error"], error);
    }
    rp.key = Key::generate();
    let id = rp.started().await;
    rp.op.process(&id).approve_with(json!({ "name": "John" }));
    let (_, tokens) = rp.poll_in_time(&id).await;
    assert_eq!(rp.verified(&tokens["id_token"]).await["name"], "John");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_result_that_is_not_collected_in_time_expires() {
    let mut rp = rp(|op| op.expires_in(Duration::from_secs(60)).decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.op.process(&id).approve();
    rp.clock.advance(Duration::from_secs(60));
    assert_eq!(rp.poll(&id).await.1["error"], "expired_token");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_long_poll_is_answered_at_the_decision() {
    let clock = TestClock::automatic();
    let hour = Duration::from_secs(3_600);
    let op = provider(&clock).long_polling(2 * hour).decisions(DecisionPolicy::after(hour)).start().unwrap();
    let http = op.http_client();
    let mut rp = Rp { op, http, clock, key: Key::generate(), nonce: None, basic: None, proofs: 0 };
    let id = rp.started().await;
    rp.clock.sleep(Duration::from_secs(5)).await;
    let url = format!("{}/token", rp.op.issuer());
    let proof = rp.proof("POST", &url, None);
    let body = format!("grant_type={DEFERRED}&deferred_auth_id={id}&client_id=app");
    let patient = HttpRequest { timeout: 3 * hour, ..request(Method::POST, &url, &[("dpop", proof)], body) };
    let response = rp.http.send(patient).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(rp.clock.monotonic(), hour);
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_cancelled_process_is_denied_and_the_answer_is_the_same_for_an_unknown_one() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    let url = rp.op.cancellation_endpoint();
    let proof = rp.proof("POST", &url, None);
    assert_eq!(rp.post(&url, &[("deferred_auth_id", &id)], &[("dpop", proof)]).await.0, 200);
    assert!(rp.op.process(&id).is_cancelled());
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "access_denied");
    rp.op.assert_clean();
    assert_eq!(rp.post(&url, &[("deferred_auth_id", "unknown")], &[]).await.0, 200);
    assert_eq!(rp.broken_rules(), [RequestRule::UnknownDeferredAuthId]);
}

#[tokio::test]
async fn access_tokens_are_bound_refreshed_and_revoked() {
    let mut rp = rp(|op| op);
    let id = rp.started().await;
    let (_, tokens) = rp.poll_in_time(&id).await;
    let refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
    let (_, fresh) = rp.token(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await;
    let token = fresh["access_token"].as_str().unwrap().to_owned();
    let url = rp.op.resource();
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("PUT", &url, Some(&token)))];
    let echo = rp.send(Method::PUT, &format!("{url}?a=1"), &headers, "body".into()).await;
    let echo: Value = serde_json::from_slice(&echo.body).unwrap();
    assert_eq!((&echo["method"], &echo["query"], &echo["body"]), (&json!("PUT"), &json!("a=1"), &json!("body")));
    rp.op.assert_clean();

    let bearer = [("authorization", format!("Bearer {token}"))];
    assert_eq!(rp.send(Method::GET, &url, &bearer, String::new()).await.status, 401);
    let revoke = format!("{}/revoke", rp.op.issuer());
    assert_eq!(rp.post(&revoke, &[("token", &token)], &[]).await.0, 200);
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    assert_eq!(rp.send(Method::GET, &url, &headers, String::new()).await.status, 401);
    let (_, again) = rp.token(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await;
    assert_eq!(again["error"], "invalid_grant");
    let rules = [RequestRule::AccessTokenScheme, RequestRule::AccessTokenInvalid, RequestRule::RefreshTokenReplayed];
    assert_eq!(rp.broken_rules(), rules);
}

#[tokio::test]
async fn an_early_access_token_can_authenticate_polls() {
    let mut rp = rp(|op| op.early_access_token().interim_token(InterimToken::IdToken));
    rp.basic = Some(("server", "s3cret: %+"));
    let code = rp.deferred_code();
    let (_, exchange) = rp.exchange(&code).await;
    assert!(exchange["id_token"].is_string() && exchange["interim_id_token"].is_null());
    let token = exchange["access_token"].as_str().unwrap().to_owned();
    rp.clock.advance(Duration::from_secs(5));
    let url = format!("{}/token", rp.op.issuer());
    let body = format!("grant_type={DEFERRED}&deferred_auth_id={}", exchange["deferred_auth_id"].as_str().unwrap());
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("POST", &url, Some(&token)))];
    assert_eq!(rp.send(Method::POST, &url, &headers, body).await.status, 200);
    rp.op.assert_clean();
}

#[tokio::test]
async fn keys_rotate_with_and_without_the_old_ones() {
    let mut rp = rp(|op| op);
    let kids = async |rp: &mut Rp| {
        let response = rp.send(Method::GET, "https://op.test/jwks", &[], String::new()).await;
        let keys: Value = serde_json::from_slice(&response.body).unwrap();
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kids(&mut rp).await, ["key-1"]);
    rp.op.rotate_keys();
    assert_eq!(kids(&mut rp).await, ["key-1", "key-2"]);
    rp.op.replace_keys();
    assert_eq!(kids(&mut rp).await, ["key-3"]);
}

#[tokio::test]
async fn metadata_is_served_only_at_the_chosen_location() {
    let urls = [
        "https://op.test/tenant/.well-known/openid-configuration",
        "https://op.test/.well-known/openid-configuration/tenant",
        "https://op.test/.well-known/oauth-authorization-server/tenant",
    ];
    let forms = [DiscoveryForm::OpenId, DiscoveryForm::OpenIdInfix, DiscoveryForm::OAuth];
    for (served, form) in forms.into_iter().enumerate() {
        let mut rp = rp(|op| op.path("/tenant").discovery(form));
        for (asked, url) in urls.into_iter().enumerate() {
            let status = rp.send(Method::GET, url, &[], String::new()).await.status;
            assert_eq!(status == 200, asked == served, "{form:?} {url}");
        }
        rp.op.assert_clean();
    }
}

#[tokio::test]
async fn an_op_without_dpop_issues_bearer_tokens() {
    let mut rp = rp(TestProviderBuilder::without_dpop);
    let id = rp.started().await;
    assert_eq!(rp.poll_in_time(&id).await.1["token_type"], "Bearer");
    rp.op.assert_clean();
}

#[tokio::test]
async fn userinfo_can_be_signed() {
    let client = TestClient::public("app").signing_algorithm("ES256").signed_userinfo();
    let mut rp = rp(|op| op.client(client));
    let id = rp.started().await;
    let (_, tokens) = rp.poll_in_time(&id).await;
    let (url, token) = (format!("{}/userinfo", rp.op.issuer()), tokens["access_token"].as_str().unwrap().to_owned());
    let headers = [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    let response = rp.send(Method::GET, &url, &headers, String::new()).await;
    assert_eq!(response.headers["content-type"], "application/jwt");
    let claims = rp.verified(&json!(std::str::from_utf8(&response.body).unwrap())).await;
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("248289761001"), &json!("app")));
}

#[tokio::test]
async fn several_providers_share_one_network() {
    let (one, two) = (rp(|op| op.host("one.test")), rp(|op| op.host("two.test")));
    let network = TestProvider::network([&one.op, &two.op]);
    for issuer in ["https://one.test", "https://two.test"] {
        let url = format!("{issuer}/.well-known/openid-configuration");
        let response = network.send(request(Method::GET, &url, &[], String::new())).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&response.body).unwrap()["issuer"], issuer);
    }
}

#[test]
fn the_same_seed_gives_the_same_behaviour() {
    let code = || rp(|op| op.random(Arc::new(SeededRandom::new(5)))).deferred_code();
    assert_eq!(code(), code());
}

#[tokio::test]
async fn users_differ_and_may_decline() {
    let mut rp = rp(|op| op);
    let back = rp.op.visit_and_decline(rp.authorization_url(&[]));
    assert_eq!(back.parameter("error"), Some("access_denied"));
    rp.op.set_user(TestUser::new("another"));
    rp.op.set_decisions(DecisionPolicy::immediately().deny());
    let code = rp.deferred_code();
    let (_, exchange) = rp.exchange(&code).await;
    assert_eq!(rp.verified(&exchange["interim_id_token"]).await["sub"], "another");
    assert_eq!(rp.poll_in_time(exchange["deferred_auth_id"].as_str().unwrap()).await.1["error"], "access_denied");
    rp.op.assert_clean();
}

#[tokio::test]
async fn recorded_requests_can_be_limited_to_the_last_ones() {
    let mut rp = rp(|op| op.keep_requests(2).decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    for _ in 0..3 {
        rp.poll_in_time(&id).await;
    }
    assert_eq!(rp.op.requests().iter().map(|request| request.number).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(rp.op.requests()[1].error().as_deref(), Some("authorization_pending"));
    rp.op.assert_clean();
}
