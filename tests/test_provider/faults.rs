//! The faults that the provider commits when it is told to.

use std::error::Error as _;
use std::time::Duration;

use http::Method;
use openid_deferred::error::TransportProblem;
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, IdTokenForgery, RequestRule, TestClient, TestProvider,
};
use openid_deferred::transport::HttpError;
use openid_deferred::{Clock, ErrorKind};
use serde_json::{Value, json};

use crate::rp::{DEFERRED, Rp, request, rp};

/// The network problem of a request.
fn problem(error: HttpError) -> (TransportProblem, bool) {
    let sent = error.may_have_been_sent();
    match error.into_error().kind() {
        ErrorKind::Transport(problem) => (*problem, sent),
        other => panic!("{other}"),
    }
}

async fn poll_in_trouble(rp: &mut Rp, id: &str) -> (TransportProblem, bool) {
    rp.clock.advance(rp.op.process(id).interval());
    let url = format!("{}/token", rp.op.issuer());
    let proof = rp.proof("POST", &url, None);
    let body = format!("grant_type={DEFERRED}&deferred_auth_id={id}&client_id=app");
    let sent = rp.http.send(request(Method::POST, &url, &[("dpop", proof)], body));
    let clock = rp.clock.clone();
    let passing = async {
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance_to_next_timer();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        result = sent => problem(result.err().unwrap()),
        () = passing => unreachable!(),
    }
}

#[tokio::test]
async fn a_fault_before_processing_changes_no_state_and_counts_its_requests() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "7").skip(1).times(2));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        rp.clock.advance(Duration::from_secs(7));
        statuses.push(rp.poll(&id).await.0);
    }
    assert_eq!(statuses, [400, 503, 503, 400]);
    assert_eq!(rp.op.process(&id).polls(), 2);
    let recorded = &rp.op.requests_to(Endpoint::Token)[2];
    assert_eq!((recorded.fault.as_deref(), recorded.status), (Some("status 503"), Some(503)));
    assert_eq!(recorded.response_headers["retry-after"], "7");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_lost_answer_redeems_the_process_without_a_violation() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::after_polls(1)));
    let id = rp.started().await;
    rp.op.misbehave(Fault::reset(Endpoint::Poll).after_success());
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "authorization_pending");
    assert_eq!(poll_in_trouble(&mut rp, &id).await, (TransportProblem::Broken, true));
    assert!(rp.op.process(&id).is_redeemed());
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "invalid_grant");
    rp.op.assert_clean();
}

#[tokio::test]
async fn network_faults_in_process_are_the_same_as_over_a_socket() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    let document = openid_deferred::error::Document::TokenResponse;
    let cases = [
        (Fault::reset(Endpoint::Poll), TransportProblem::Broken),
        (Fault::cut_body(Endpoint::Poll), TransportProblem::Broken),
        (Fault::stall(Endpoint::Poll), TransportProblem::Timeout),
        (Fault::stall(Endpoint::Poll).after_processing(), TransportProblem::Timeout),
        (Fault::delay(Endpoint::Poll, Duration::from_secs(31)), TransportProblem::Timeout),
        (Fault::endless_body(Endpoint::Poll), TransportProblem::BodyTooLarge(document)),
        (Fault::huge_body(Endpoint::Poll, 100_001), TransportProblem::BodyTooLarge(document)),
        (Fault::gzip_bomb(Endpoint::Poll, 50_000_000), TransportProblem::BodyTooLarge(document)),
    ];
    for (fault, expected) in cases {
        rp.op.misbehave(fault);
        assert_eq!(poll_in_trouble(&mut rp, &id).await, (expected, true));
        assert_eq!(rp.op.faults_left(), 0);
    }
    let elsewhere = request(Method::GET, "https://other.test/", &[], String::new());
    assert_eq!(problem(rp.http.send(elsewhere).await.err().unwrap()), (TransportProblem::Connect, false));
    rp.op.assert_clean();
}

#[tokio::test]
async fn over_a_socket_a_reset_is_a_reset_and_a_cut_body_is_cut() {
    for https in [false, true] {
        let builder = TestProvider::builder().client(TestClient::public("app").signing_algorithm("ES256"));
        let op = if https { builder.https() } else { builder }.start().unwrap();
        let url = format!("{}/jwks", op.issuer());
        let pem = op.ca_certificate_pem().map(str::to_owned);
        let client = || {
            let mut client = reqwest::Client::builder();
            if let Some(pem) = &pem {
                client = client.tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()]);
            }
            client.build().unwrap()
        };
        op.misbehave(Fault::reset(Endpoint::Keys));
        let mut chain = String::new();
        let error = client().get(&url).send().await.unwrap_err();
        let mut layer = error.source();
        while let Some(error) = layer {
            chain += &error.to_string();
            layer = error.source();
        }
        assert!(chain.contains("reset"), "{chain}");

        op.misbehave(Fault::cut_body(Endpoint::Keys));
        let response = client().get(&url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap_err();

        op.misbehave(Fault::endless_body(Endpoint::Keys));
        let mut response = client().get(&url).send().await.unwrap();
        let mut received = 0;
        while received < 1_000_000 {
            received += response.chunk().await.unwrap().unwrap().len();
        }
        drop(response);

        op.misbehave(Fault::gzip_bomb(Endpoint::Keys, 1_000_000));
        let bomb = client().get(&url).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(bomb.len(), 1_000_002);
        assert_eq!(client().get(&url).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn answers_can_be_edited_and_replaced() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::after_polls(1)));
    rp.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("interval".into(), json!("7.5"));
        members.remove("expires_in");
    }));
    let code = rp.deferred_code();
    let (_, exchange) = rp.exchange(&code).await;
    assert_eq!((&exchange["interval"], &exchange["expires_in"]), (&json!("7.5"), &Value::Null));
    let id = exchange["deferred_auth_id"].as_str().unwrap().to_owned();

    rp.op.misbehave(Fault::edit_json(Endpoint::Poll, |members| {
        members.insert("token_type".into(), json!("dpop"));
    }));
    assert_eq!(rp.poll_in_time(&id).await.1["error"], "authorization_pending", "errors pass and do not count");
    assert_eq!(rp.poll_in_time(&id).await.1["token_type"], "dpop");

    rp.op.misbehave(Fault::edit_json(Endpoint::Metadata, |members| {
        members.insert("issuer".into(), json!("https://evil.test"));
    }));
    rp.op.misbehave(Fault::truncated_json(Endpoint::Metadata).skip(1));
    let url = format!("{}/.well-known/openid-configuration", rp.op.issuer());
    let mut fetch = async || rp.send(Method::GET, &url, &[], String::new()).await.body;
    assert_eq!(serde_json::from_slice::<Value>(&fetch().await).unwrap()["issuer"], "https://evil.test");
    serde_json::from_slice::<Value>(&fetch().await).unwrap_err();
    assert_eq!(serde_json::from_slice::<Value>(&fetch().await).unwrap()["issuer"], "https://op.test");
}

#[tokio::test]
async fn any_oauth_error_can_come_from_any_endpoint() {
    let mut rp = rp(|op| op);
    let id = rp.started().await;
    rp.op.misbehave(Fault::error_with_status(Endpoint::Poll, 401, "invalid_client"));
    rp.op.misbehave(Fault::redirect(Endpoint::Poll, "https://evil.test/"));
    assert_eq!(rp.poll_in_time(&id).await, (401, json!({ "error": "invalid_client" })));
    assert_eq!(rp.poll_in_time(&id).await.0, 302);
    rp.op.misbehave(Fault::error(Endpoint::Poll, "temporarily_unavailable").always());
    for _ in 0..3 {
        assert_eq!(rp.poll_in_time(&id).await.1["error"], "temporarily_unavailable");
    }
    rp.op.behave();
    assert_eq!(rp.poll_in_time(&id).await.0, 200);
}

#[tokio::test]
async fn nonces_can_expire_between_a_request_and_its_retry() {
    let mut rp = rp(|op| op.dpop_nonces(openid_deferred::testing::NoncePolicy::Required));
    let code = rp.deferred_code();
    rp.exchange(&code).await;
    rp.op.misbehave(Fault::forget_nonces(Endpoint::Exchange).times(2));
    assert_eq!(rp.exchange(&code).await.1["error"], "use_dpop_nonce");
    assert_eq!(rp.exchange(&code).await.1["error"], "use_dpop_nonce");
    assert_eq!(rp.exchange(&code).await.0, 200);
}

#[test]
fn the_authorization_response_can_be_forged() {
    let rp = rp(|op| op);
    rp.op.misbehave(Fault::authorization_response(|parameters| {
        parameters.retain(|(name, _)| name != "iss");
        parameters.push(("state".into(), "again".into()));
    }));
    let back = rp.op.visit(rp.authorization_url(&[]));
    assert!(back.query().ends_with("&state=the-state&state=again"), "{}", back.query());
    assert_eq!(rp.op.visit(rp.authorization_url(&[])).parameter("iss"), Some("https://op.test"));
}

#[tokio::test]
async fn id_tokens_can_be_forged_in_every_way() {
    let forgeries = [
        (IdTokenForgery::algorithm_none(), "none", false),
        (IdTokenForgery::hmac_with_public_key(), "HS256", false),
        (IdTokenForgery::foreign_key(), "ES256", false),
        (IdTokenForgery::broken_signature(), "ES256", false),
        (IdTokenForgery::claims(|claims| drop(claims.remove("nonce"))), "ES256", true),
        (IdTokenForgery::header(|header| drop(header.insert("typ".into(), json!("at+jwt")))), "ES256", true),
    ];
    let mut rp = rp(|op| op);
    for (forgery, algorithm, verifies) in forgeries {
        rp.key = crate::rp::Key::generate();
        let id = rp.started().await;
        rp.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
        let (_, tokens) = rp.poll_in_time(&id).await;
        let token = tokens["id_token"].as_str().unwrap();
        assert_eq!(josekit::jwt::decode_header(token).unwrap().claim("alg").unwrap(), algorithm);
        let jwks = rp.send(Method::GET, "https://op.test/jwks", &[], String::new()).await;
        let jwks: Value = serde_json::from_slice(&jwks.body).unwrap();
        let jwk = josekit::jwk::Jwk::from_map(jwks["keys"][0].as_object().unwrap().clone()).unwrap();
        let verifier = josekit::jws::ES256.verifier_from_jwk(&jwk).unwrap();
        assert_eq!(josekit::jwt::decode_with_verifier(token, &verifier).is_ok(), verifies, "{algorithm}");
    }
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_poll_before_retry_after_is_a_violation() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    let in_a_minute = httpdate::fmt_http_date(rp.clock.now() + Duration::from_secs(65));
    for value in ["60", &in_a_minute] {
        rp.op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", value));
        assert_eq!(rp.poll_in_time(&id).await.0, 503);
        assert_eq!(rp.poll_in_time(&id).await.0, 400);
        let rules: Vec<_> = rp.op.violations().iter().map(|violation| violation.rule).collect();
        assert_eq!(rules, [RequestRule::RetryAfterIgnored]);
        rp.op.forgive();
    }
}

#[tokio::test]
async fn a_poll_after_invalid_request_is_a_violation() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.op.misbehave(Fault::error(Endpoint::Poll, "invalid_request"));
    rp.poll_in_time(&id).await;
    rp.op.assert_clean();
    rp.poll_in_time(&id).await;
    assert_eq!(rp.op.violations()[0].rule, RequestRule::PolledAfterEnd);
}

#[tokio::test]
async fn endless_challenges_do_not_permit_endless_requests() {
    let mut rp = rp(|op| op.decisions(DecisionPolicy::scripted()));
    let id = rp.started().await;
    rp.op.misbehave(Fault::error(Endpoint::Poll, "use_dpop_nonce").always());
    rp.poll_in_time(&id).await;
    rp.poll(&id).await;
    rp.poll(&id).await;
    rp.op.assert_clean();
    rp.poll(&id).await;
    assert_eq!(rp.op.violations()[0].rule, RequestRule::PolledTooEarly);
}
