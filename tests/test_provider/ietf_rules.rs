//! The rules of the IETF draft, each broken once.

use std::time::Duration;

use openid_deferred::testing::{DecisionPolicy, Endpoint, RequestRule, TestClient, TestProviderBuilder};
use openid_deferred::testing::{PingForgery, TestClock};
use openid_deferred::transport::ClientCertificate;
use serde_json::{Value, json};

use crate::rp::{IETF, Key, REDIRECT, Rp, TOKEN_EXCHANGE, VERIFIER, ietf, request, rp};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const CODE_TYPE: &str = "urn:ietf:params:oauth:token-type:deferral-code";
const DEFERRED: (&str, &str) = ("completion_mode", "deferred");

/// The rules that were broken since the last call.
fn broken(rp: &Rp) -> Vec<RequestRule> {
    let rules = rp.broken_rules();
    rp.op.forgive();
    rules
}

fn scripted(op: TestProviderBuilder) -> TestProviderBuilder {
    op.decisions(DecisionPolicy::scripted())
}

#[tokio::test]
async fn a_poll_has_no_parameter_of_the_initial_request() {
    let mut rp = ietf(scripted);
    let id = rp.deferred().await;
    for (name, value) in
        [DEFERRED, ("client_notification_token", "0123456789abcdefghijkl"), ("code_verifier", VERIFIER), ("code", "x")]
    {
        rp.clock.advance(Duration::from_secs(5));
        let (_, answer) = rp.token(&[("grant_type", IETF), ("deferral_code", &id), (name, value)]).await;
        assert_eq!(answer["error"], "authorization_pending", "{name}");
        assert_eq!(broken(&rp), [RequestRule::InitialParameterOnPoll], "{name}");
    }
}

#[tokio::test]
async fn a_client_that_sends_the_hint_must_opt_in() {
    for way in ["plain", "pushed", "signed"] {
        let mut rp = ietf(|op| op);
        let code = match way {
            "plain" => rp.code(&[DEFERRED]),
            "pushed" => pushed_code(&mut rp).await,
            _ => signed_code(&mut rp),
        };
        assert_eq!(rp.redeem(&code, &[]).await.1["error"], "invalid_request");
        assert_eq!(broken(&rp), [RequestRule::HintDropped]);
        assert_eq!(rp.redeem(&code, &[DEFERRED]).await.1["error"], "authorization_pending");
        rp.op.assert_clean();
    }
}

async fn pushed_code(rp: &mut Rp) -> String {
    let url = url::Url::parse(&rp.authorization_url(&[("response_type", "code"), DEFERRED])).unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| name != "client_id").collect();
    let form: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (_, pushed) = rp.post(&format!("{}/par", rp.op.issuer()), &form, &[]).await;
    let mut url = url::Url::parse(&format!("{}/authorize?client_id=app", rp.op.issuer())).unwrap();
    url.query_pairs_mut().append_pair("request_uri", pushed["request_uri"].as_str().unwrap());
    rp.op.visit(url).parameter("code").unwrap().to_owned()
}

fn signed_code(rp: &mut Rp) -> String {
    let signer = Key::generate();
    let client = TestClient::public("app").redirect_uri(REDIRECT).jwks(&json!({ "keys": [signer.jwk()] }));
    rp.op.register(client);
    let url = url::Url::parse(&rp.authorization_url(&[("response_type", "code"), DEFERRED])).unwrap();
    let mut claims: Value = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    for (name, value) in [
        ("iss", json!("app")),
        ("aud", json!(rp.op.issuer())),
        ("nbf", json!(rp.now())),
        ("exp", json!(rp.now() + 60)),
        ("jti", json!("1")),
    ] {
        claims[name] = value;
    }
    let object = signer.sign(&json!({ "alg": "ES256", "typ": "oauth-authz-req+jwt" }), &claims);
    let mut url = url::Url::parse(&format!("{}/authorize?client_id=app", rp.op.issuer())).unwrap();
    url.query_pairs_mut().append_pair("request", &object);
    rp.op.visit(url).parameter("code").unwrap().to_owned()
}

#[tokio::test]
async fn the_only_completion_mode_is_deferred() {
    let mut rp = ietf(|op| op);
    for modes in ["immediate", "deferred immediate", "Deferred", "deferred  deferred"] {
        let mode = ("completion_mode", modes);
        let back = rp.op.visit(rp.authorization_url(&[("response_type", "code"), mode]));
        assert_eq!(back.parameter("error"), Some("invalid_request"), "{modes}");
        assert_eq!(broken(&rp), [RequestRule::CompletionMode], "{modes}");
        let code = rp.code(&[]);
        assert_eq!(rp.redeem(&code, &[mode]).await.1["error"], "invalid_request", "{modes}");
        assert_eq!(broken(&rp), [RequestRule::CompletionMode], "{modes}");
        assert_eq!(rp.redeem(&code, &[DEFERRED]).await.1["error"], "authorization_pending", "the code is unspent");
        rp.key = Key::generate();
    }
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_notification_token_is_long_fresh_and_has_only_characters_of_a_header() {
    let mut rp = ietf(|op| op.allow_dpop_key_reuse());
    for (token, rules) in [
        ("0123456789abcdefghijkl", &[] as &[_]),
        ("0123456789abcdefghijkl", &[RequestRule::NotificationToken]),
        ("0123456789abcdefghijk", &[RequestRule::NotificationToken]),
        ("0123456789abcdefghijk=", &[RequestRule::NotificationToken]),
        ("two words of 128 bits and more", &[RequestRule::NotificationToken]),
        ("another-token-that-is-long-enough==", &[]),
    ] {
        let code = rp.code(&[]);
        let (_, answer) = rp.redeem(&code, &[DEFERRED, ("client_notification_token", token)]).await;
        assert_eq!(answer["error"], "authorization_pending", "{token}");
        assert_eq!(broken(&rp), rules, "{token}");
    }
    let back = rp.op.visit(rp.authorization_url(&[("response_type", "code"), ("client_notification_token", "x")]));
    assert_eq!(back.parameter("error"), Some("invalid_request"));
    assert_eq!(broken(&rp), [RequestRule::TokenInQuery]);
}

#[tokio::test]
async fn a_challenge_for_a_nonce_uses_up_neither_notification_token_nor_jwt() {
    let mut rp = ietf(|op| op.dpop_nonces(openid_deferred::testing::NoncePolicy::Required));
    let assertion = rp.op.assertion("jane");
    let further = [DEFERRED, ("client_notification_token", "0123456789abcdefghijkl")];
    assert_eq!(rp.bearer(&assertion, &further).await.1["error"], "use_dpop_nonce");
    assert_eq!(rp.bearer(&assertion, &further).await.1["error"], "authorization_pending");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_public_client_opts_in_with_a_proof() {
    let mut rp = ietf(|op| op);
    let code = rp.code(&[("dpop_jkt", "")]);
    let url = format!("{}/token", rp.op.issuer());
    let form = |code| {
        [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
            DEFERRED,
        ]
    };
    assert_eq!(rp.post(&url, &form(&code), &[]).await.1["error"], "invalid_dpop_proof");
    assert_eq!(broken(&rp), [RequestRule::DpopMissing]);
    assert_eq!(rp.post(&url, &form(&code)[..4], &[]).await.0, 200, "without the opt-in none is needed");
    rp.authenticate();
    let code = rp.code(&[("dpop_jkt", "")]);
    assert_eq!(rp.post(&url, &form(&code), &[]).await.1["error"], "authorization_pending", "a secret is enough");
    let id = rp.op.last_process().deferral_code().unwrap();
    rp.clock.advance(Duration::from_secs(5));
    let (_, tokens) = rp.post(&url, &[("grant_type", IETF), ("deferral_code", &id)], &[]).await;
    assert_eq!(tokens["token_type"], "Bearer");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_bound_process_is_polled_with_its_key_and_its_token_is_bound_to_it() {
    let mut rp = ietf(|op| op);
    let id = rp.deferred().await;
    assert_eq!(rp.op.process(&id).dpop_key(), Some(rp.key.thumbprint()));
    let own = std::mem::replace(&mut rp.key, Key::generate());
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "invalid_dpop_proof");
    assert_eq!(broken(&rp), [RequestRule::DpopKeyChanged]);
    rp.key = own;
    let url = format!("{}/token", rp.op.issuer());
    rp.clock.advance(Duration::from_secs(5));
    let (_, answer) = rp.post(&url, &[("grant_type", IETF), ("deferral_code", &id)], &[]).await;
    assert_eq!(answer["error"], "invalid_dpop_proof");
    assert_eq!(broken(&rp), [RequestRule::DpopMissing]);

    let (_, tokens) = rp.poll_code_in_time(&id).await;
    let token = tokens["access_token"].as_str().unwrap().to_owned();
    let url = rp.op.resource();
    let headers =
        |rp: &mut Rp| [("authorization", format!("DPoP {token}")), ("dpop", rp.proof("GET", &url, Some(&token)))];
    let good = headers(&mut rp);
    assert_eq!(rp.send(http::Method::GET, &url, &good, String::new()).await.status, 200);
    rp.op.assert_clean();
    rp.key = Key::generate();
    let foreign = headers(&mut rp);
    assert_eq!(rp.send(http::Method::GET, &url, &foreign, String::new()).await.status, 401);
    assert_eq!(broken(&rp), [RequestRule::DpopKeyChanged]);
}

#[tokio::test]
async fn a_poll_of_another_client_is_refused() {
    let mut rp = ietf(|op| op);
    let id = rp.deferred().await;
    rp.authenticate();
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "invalid_grant");
    assert_eq!(broken(&rp), [RequestRule::ForeignGrant]);
}

#[tokio::test]
async fn a_code_that_was_not_issued_is_refused() {
    let mut rp = ietf(|op| op);
    assert_eq!(rp.poll_code("x").await.1["error"], "invalid_grant");
    assert_eq!(broken(&rp), [RequestRule::UnknownDeferralCode]);
    assert_eq!(rp.token(&[("grant_type", IETF)]).await.1["error"], "invalid_request");
    assert_eq!(broken(&rp), [RequestRule::MissingParameter]);
    assert_eq!(rp.op.requests_to(Endpoint::Poll).len(), 2);
}

#[tokio::test]
async fn a_certificate_that_binds_is_the_same_at_every_poll() {
    let clock = TestClock::new();
    let client = TestClient::tls_client_auth("mtls", "client.rp.test").certificate_bound_access_tokens();
    let op = scripted(crate::rp::provider(&clock).ietf().mutual_tls().client(client)).start().unwrap();
    let certificate = |op: &openid_deferred::testing::TestProvider| {
        let files = op.client_certificate("client.rp.test");
        ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap()
    };
    let (first, second) = (certificate(&op), certificate(&op));
    let send = async |form: &str, certificate: &ClientCertificate| {
        clock.advance(Duration::from_secs(5));
        let url = format!("{}/token", op.issuer());
        let mut request = request(http::Method::POST, &url, &[], format!("{form}&client_id=mtls"));
        request.client_certificate = Some(certificate.current());
        let response = op.http_client().send(request).await.unwrap();
        serde_json::from_slice::<Value>(&response.body).unwrap()
    };
    let deferred = send("grant_type=client_credentials&completion_mode=deferred", &first).await;
    let poll = format!("grant_type={IETF}&deferral_code={}", deferred["deferral_code"].as_str().unwrap());
    assert_eq!(send(&poll, &first).await["error"], "authorization_pending");
    op.assert_clean();
    assert_eq!(send(&poll, &second).await["error"], "invalid_grant");
    assert_eq!(op.violations()[0].rule, RequestRule::CertificateChanged);
}

#[tokio::test]
async fn a_poll_before_the_interval_is_a_violation() {
    let minute = Duration::from_secs(60);
    let mut rp = ietf(|op| scripted(op).interval(minute).expires_in(4 * minute).on_ping(|_| 204));
    let id = rp.deferred().await;
    rp.clock.advance(Duration::from_secs(59));
    assert_eq!(rp.poll_code(&id).await.1["error"], "slow_down");
    assert_eq!(broken(&rp), [RequestRule::PolledTooEarly]);
    assert_eq!(rp.op.process(&id).interval(), Duration::from_secs(65));
    rp.clock.advance(Duration::from_secs(65));
    assert_eq!(rp.poll_code(&id).await.1["error"], "authorization_pending");
    rp.op.process(&id).send_ping(PingForgery::Genuine);
    assert_eq!(rp.poll_code(&id).await.1["error"], "authorization_pending", "after a callback");
    rp.poll_code_in_time(&id).await;
    rp.clock.advance(Duration::from_secs(30));
    assert_eq!(rp.poll_code(&id).await.1["error"], "authorization_pending", "shortly before the end");
    rp.op.assert_clean();
    rp.poll_code(&id).await;
    assert_eq!(broken(&rp), [RequestRule::PolledTooEarly]);
}

#[tokio::test]
async fn a_key_is_for_one_process_unless_it_may_be_used_again() {
    for (allowed, rules) in [(false, &[RequestRule::DpopKeyReused] as &[_]), (true, &[])] {
        let mut rp = ietf(|op| if allowed { op.allow_dpop_key_reuse() } else { op });
        rp.deferred().await;
        rp.deferred().await;
        assert_eq!(broken(&rp), rules);
    }
}

#[tokio::test]
async fn a_revoked_code_is_cancelled_once_and_polls_are_denied() {
    let mut rp = ietf(|op| scripted(op).on_ping(|_| 204));
    let id = rp.deferred().await;
    for _ in 0..2 {
        assert_eq!(rp.revoke_code(&id, &[("token_type_hint", CODE_TYPE)]).await.0, 200);
    }
    assert!(rp.op.process(&id).is_cancelled());
    assert_eq!(rp.op.pings().len(), 1);
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "access_denied");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_cancellation_suppresses_a_success_that_was_not_delivered() {
    let mut rp = ietf(|op| scripted(op).allow_dpop_key_reuse());
    let id = rp.deferred().await;
    rp.op.process(&id).approve();
    assert_eq!(rp.revoke_code(&id, &[]).await.0, 200, "the hint is only recommended");
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "access_denied");

    let id = rp.deferred().await;
    rp.op.process(&id).approve();
    assert_eq!(rp.poll_code_in_time(&id).await.0, 200);
    assert_eq!(rp.revoke_code(&id, &[]).await.0, 200);
    assert!(!rp.op.process(&id).is_cancelled(), "it was delivered");
    rp.op.assert_clean();
}

#[tokio::test]
async fn a_code_is_revoked_by_its_client_with_its_key_and_the_correct_hint() {
    let mut rp = ietf(scripted);
    let id = rp.deferred().await;
    let url = format!("{}/revoke", rp.op.issuer());
    assert_eq!(rp.post(&url, &[("token", &id)], &[]).await.1["error"], "invalid_dpop_proof");
    assert_eq!(broken(&rp), [RequestRule::DpopMissing]);
    let own = std::mem::replace(&mut rp.key, Key::generate());
    assert_eq!(rp.revoke_code(&id, &[]).await.1["error"], "invalid_dpop_proof");
    assert_eq!(broken(&rp), [RequestRule::DpopKeyChanged]);
    rp.key = own;
    rp.authenticate();
    assert_eq!(rp.revoke_code(&id, &[]).await.1["error"], "invalid_grant");
    assert_eq!(broken(&rp), [RequestRule::ForeignGrant]);
    rp.basic = Some(("server", "wrong"));
    assert_eq!(rp.revoke_code(&id, &[]).await.1["error"], "invalid_client");
    assert_eq!(broken(&rp), [RequestRule::ClientAuthentication]);
    rp.basic = None;
    assert!(!rp.op.process(&id).is_decided());
    assert_eq!(rp.revoke_code("x", &[("token_type_hint", CODE_TYPE)]).await.0, 200);
    assert_eq!(broken(&rp), [RequestRule::UnknownDeferralCode]);
    assert_eq!(rp.revoke_code(&id, &[("token_type_hint", "access_token")]).await.0, 200);
    assert_eq!(broken(&rp), [RequestRule::InvalidParameter]);
    assert!(rp.op.process(&id).is_cancelled());
}

#[tokio::test]
async fn a_server_without_revocation_of_codes_ignores_one() {
    let mut rp = ietf(TestProviderBuilder::without_deferral_code_revocation);
    let id = rp.deferred().await;
    assert_eq!(rp.revoke_code(&id, &[("token_type_hint", CODE_TYPE)]).await.0, 200);
    assert_eq!(broken(&rp), [RequestRule::CodeRevocationUnlisted]);
    assert_eq!(rp.poll_code_in_time(&id).await.0, 200);
}

#[tokio::test]
async fn tokens_are_revoked_as_before() {
    let mut rp = ietf(|op| op);
    let id = rp.deferred().await;
    let (_, tokens) = rp.poll_code_in_time(&id).await;
    let refresh = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(rp.revoke_code(refresh, &[("token_type_hint", CODE_TYPE)]).await.0, 200);
    assert_eq!(broken(&rp), [RequestRule::InvalidParameter]);
    assert_eq!(
        rp.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await.1["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn a_public_client_gets_no_token_for_itself() {
    let mut rp = ietf(|op| op);
    assert_eq!(rp.token(&[("grant_type", "client_credentials")]).await.1["error"], "unauthorized_client");
    assert_eq!(broken(&rp), [RequestRule::ClientNotConfidential]);
}

#[tokio::test]
async fn resources_and_audiences_must_be_well_formed() {
    let mut rp = ietf(|op| op);
    rp.authenticate();
    for (name, value, error) in [
        ("scope", "a \"b\"", "invalid_scope"),
        ("resource", "/relative", "invalid_target"),
        ("authorization_details", "{}", "invalid_authorization_details"),
    ] {
        let (_, answer) = rp.token(&[("grant_type", "client_credentials"), (name, value)]).await;
        assert_eq!(answer["error"], error, "{name}");
        assert_eq!(broken(&rp), [RequestRule::InvalidParameter], "{name}");
    }
}

#[tokio::test]
async fn a_token_exchange_has_tokens_with_their_types() {
    let mut rp = ietf(|op| op);
    rp.authenticate();
    let subject = rp.op.subject_token("jane");
    let subject = ("subject_token", &*subject);
    let kind = ("subject_token_type", ACCESS_TOKEN);
    for (form, rule) in [
        (vec![kind], RequestRule::MissingParameter),
        (vec![subject], RequestRule::MissingParameter),
        (vec![("subject_token", "x"), kind], RequestRule::SubjectTokenInvalid),
        (
            vec![subject, ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")],
            RequestRule::SubjectTokenInvalid,
        ),
        (vec![subject, kind, ("actor_token", "x")], RequestRule::MissingParameter),
        (vec![subject, kind, ("actor_token_type", ACCESS_TOKEN)], RequestRule::MissingParameter),
        (
            vec![subject, kind, ("actor_token", "x"), ("actor_token_type", ACCESS_TOKEN)],
            RequestRule::SubjectTokenInvalid,
        ),
        (
            vec![subject, kind, ("requested_token_type", "urn:ietf:params:oauth:token-type:saml2")],
            RequestRule::InvalidParameter,
        ),
        (vec![subject, kind, ("scope", "a"), ("scope", "b")], RequestRule::RepeatedParameter),
    ] {
        let (_, answer) = rp.token(&[&[("grant_type", TOKEN_EXCHANGE)], &form[..]].concat()).await;
        assert_eq!(answer["error"], "invalid_request", "{form:?}");
        assert_eq!(broken(&rp), [rule], "{form:?}");
    }
    let repeated = [("grant_type", "client_credentials"), ("audience", "one"), ("audience", "two")];
    assert_eq!(rp.token(&repeated).await.1["error"], "invalid_request", "only a token exchange repeats it");
}

#[tokio::test]
async fn every_claim_of_a_jwt_bearer_assertion_is_checked() {
    let mut rp = ietf(|op| op);
    rp.authenticate();
    let genuine = rp.op.assertion("jane");
    for (assertion, what) in [
        (Key::generate().sign(&json!({ "alg": "ES256" }), &claims(&genuine)), "the key"),
        ("x.y".to_owned(), "the form"),
        (genuine.replace('.', ".A"), "the signature"),
    ] {
        assert_eq!(rp.bearer(&assertion, &[]).await.1["error"], "invalid_grant", "{what}");
        assert_eq!(broken(&rp), [RequestRule::GrantAssertionInvalid], "{what}");
    }
    assert_eq!(rp.bearer(&genuine, &[]).await.0, 200);
    assert_eq!(rp.bearer(&genuine, &[]).await.1["error"], "invalid_grant");
    assert_eq!(broken(&rp), [RequestRule::GrantAssertionReplayed]);
    let old = rp.op.assertion("jane");
    rp.clock.advance(Duration::from_secs(300));
    assert_eq!(rp.bearer(&old, &[]).await.1["error"], "invalid_grant");
    assert_eq!(broken(&rp), [RequestRule::GrantAssertionInvalid]);
    let now = rp.now();
    for changes in [
        json!({ "iss": "https://other.test" }),
        json!({ "sub": null }),
        json!({ "aud": "https://other.test" }),
        json!({ "aud": null }),
        json!({ "exp": null }),
        json!({ "exp": now }),
        json!({ "exp": now + 3_600 }),
        json!({ "nbf": now + 1 }),
        json!({ "iat": "today" }),
        json!({ "jti": null }),
    ] {
        let assertion = rp.op.assertion_with("jane", changes.clone());
        assert_eq!(rp.bearer(&assertion, &[]).await.1["error"], "invalid_grant", "{changes}");
        assert_eq!(broken(&rp), [RequestRule::GrantAssertionInvalid], "{changes}");
    }
    let token_endpoint = format!("{}/token", rp.op.issuer());
    for audience in [json!(token_endpoint), json!(["https://other.test", token_endpoint])] {
        let assertion = rp.op.assertion_with("jane", json!({ "aud": audience }));
        assert_eq!(rp.bearer(&assertion, &[]).await.0, 200, "{audience}");
    }
    // Another provider's JWT is for another audience, and this one does not know its keys.
    let foreign = self::rp(|op| op.ietf().host("other.test")).op.assertion("jane");
    assert_eq!(rp.bearer(&foreign, &[]).await.1["error"], "invalid_grant");
    assert_eq!(broken(&rp), [RequestRule::GrantAssertionInvalid]);
    assert_eq!(rp.token(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")]).await.0, 400);
    assert_eq!(broken(&rp), [RequestRule::MissingParameter]);
}

fn claims(jwt: &str) -> Value {
    josekit::jwt::decode_header(jwt).unwrap();
    let payload = jwt.split('.').nth(1).unwrap();
    use base64::Engine as _;
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}
