//! Shared secrets, certificates and pushed requests, as the provider judges them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use openid_deferred::testing::{Endpoint, RequestRule, TestCertificate, TestClient};
use openid_deferred::transport::ClientCertificate;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::{Value, json};
use url::Url;

use crate::rp::{DEFERRED, Key, REDIRECT, Rp, VERIFIER, request, rp};

const SECRET: &str = "a client secret of sixty-four bytes, which is enough for HS512 !";
const NAME: &str = "client.rp.test";

/// A JWT with an HMAC by OpenSSL; the provider verifies with aws-lc.
fn with_hmac(digest: MessageDigest, secret: &str, header: &Value, claims: &Value) -> String {
    let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", segment(header), segment(claims));
    let key = PKey::hmac(secret.as_bytes()).unwrap();
    let mac = Signer::new(digest, &key).unwrap().sign_oneshot_to_vec(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
}

async fn asserted(rp: &mut Rp, assertion: &str) -> String {
    let url = format!("{}/token", rp.op.issuer());
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", DEFERRED)
        .append_pair("deferred_auth_id", "unknown")
        .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        .append_pair("client_assertion", assertion)
        .finish();
    let response = rp.send(Method::POST, &url, &[], body).await;
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    answer["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_that_shares_a_secret_signs_with_each_hmac_and_with_nothing_else() {
    let mut rp = rp(|op| op.client(TestClient::secret_jwt("sharer", SECRET).redirect_uri(REDIRECT)));
    let now = rp.now();
    let claims =
        |jti: &str| json!({ "iss": "sharer", "sub": "sharer", "aud": "https://op.test", "jti": jti, "exp": now + 60 });
    let hmacs =
        [("HS256", MessageDigest::sha256()), ("HS384", MessageDigest::sha384()), ("HS512", MessageDigest::sha512())];
    for (name, digest) in hmacs {
        let assertion = with_hmac(digest, SECRET, &json!({ "alg": name }), &claims(name));
        // The client is authenticated, but its request names an unknown identifier.
        assert_eq!(asserted(&mut rp, &assertion).await, "invalid_grant");
        assert_eq!(rp.broken_rules(), [RequestRule::UnknownDeferredAuthId]);
        rp.op.forgive();
        assert_eq!(asserted(&mut rp, &assertion).await, "invalid_client", "it was used before");
        assert_eq!(rp.broken_rules(), [RequestRule::AssertionReplayed]);
        rp.op.forgive();
    }
    let sha256 = MessageDigest::sha256();
    let wrong = [
        with_hmac(sha256, "another secret of at least thirty-two bytes", &json!({ "alg": "HS256" }), &claims("a")),
        with_hmac(sha256, SECRET, &json!({ "alg": "HS512" }), &claims("b")),
        with_hmac(sha256, SECRET, &json!({ "alg": "ES256" }), &claims("c")),
        with_hmac(sha256, SECRET, &json!({ "alg": "none" }), &claims("d")),
        Key::generate().sign(&json!({ "alg": "ES256" }), &claims("e")),
    ];
    for assertion in wrong {
        assert_eq!(asserted(&mut rp, &assertion).await, "invalid_client");
    }
    assert_eq!(rp.broken_rules(), [RequestRule::AssertionInvalid; 5]);
}

impl Rp {
    /// Pushes an authorization request with these changes and headers.
    async fn push(&mut self, changes: &[(&str, &str)], headers: &[(&str, String)]) -> (u16, Value) {
        let parameters: Url = self.authorization_url(changes).parse().unwrap();
        let parameters: Vec<(String, String)> = parameters.query_pairs().into_owned().collect();
        // `client_id` is added to every form.
        let parameters = parameters.iter().filter(|(name, _)| name != "client_id" || self.basic.is_some());
        let parameters: Vec<_> = parameters.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let url = format!("{}/par", self.op.issuer());
        self.post(&url, &parameters, headers).await
    }

    fn pushed_url(&self, request_uri: &str, client_id: &str) -> String {
        let mut url = Url::parse(&format!("{}/authorize", self.op.issuer())).unwrap();
        url.query_pairs_mut().append_pair("client_id", client_id).append_pair("request_uri", request_uri);
        url.into()
    }

    async fn pushed(&mut self) -> String {
        let (status, answer) = self.push(&[], &[]).await;
        assert_eq!((status, &answer["expires_in"]), (201, &json!(60)), "{answer}");
        answer["request_uri"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_pushed_request_is_used_once_and_in_time() {
    let mut rp = rp(|op| op.require_pushed_authorization_requests());
    let request_uri = rp.pushed().await;
    let back = rp.op.visit(rp.pushed_url(&request_uri, "app"));
    let code = back.parameter("deferred_code").unwrap().to_owned();
    assert_eq!(rp.exchange(&code).await.0, 200);
    rp.op.assert_clean();

    let again = rp.op.visit(rp.pushed_url(&request_uri, "app"));
    assert_eq!((again.parameter("error"), again.parameter("state")), (Some("invalid_request_uri"), Some("the-state")));
    assert_eq!(rp.broken_rules(), [RequestRule::UnknownRequestUri]);
    rp.op.forgive();

    let late = rp.pushed().await;
    rp.clock.advance(std::time::Duration::from_secs(60));
    let back = rp.op.visit(rp.pushed_url(&late, "app"));
    assert_eq!(back.parameter("error"), Some("invalid_request_uri"));
    rp.op.assert_clean();

    let plain = rp.op.visit(rp.authorization_url(&[]));
    assert_eq!(plain.parameter("error"), Some("invalid_request"));
    assert_eq!(rp.broken_rules(), [RequestRule::NotPushed]);
}

#[tokio::test]
#[should_panic(expected = "the user sees an error page with status 400 Bad Request")]
async fn a_pushed_request_of_another_client_is_unknown() {
    let mut rp = rp(|op| op);
    let request_uri = rp.pushed().await;
    rp.op.visit(rp.pushed_url(&request_uri, "server"));
}

#[tokio::test]
async fn an_invalid_request_is_refused_when_it_is_pushed() {
    let mut rp = rp(|op| op);
    let cases = [
        ("response_type", "token", "unsupported_response_type", RequestRule::WrongResponseType),
        ("scope", "profile", "invalid_scope", RequestRule::NoOpenidScope),
        ("redirect_uri", "https://evil.test/", "invalid_request", RequestRule::WrongRedirectUri),
        ("request_uri", "urn:x:y", "invalid_request", RequestRule::InvalidParameter),
        ("authorization_details", "{}", "invalid_authorization_details", RequestRule::InvalidParameter),
    ];
    for (name, value, error, rule) in cases {
        let (status, answer) = rp.push(&[(name, value)], &[]).await;
        assert_eq!((status, &answer["error"]), (400, &json!(error)), "{name}");
        assert_eq!(rp.broken_rules(), [rule]);
        rp.op.forgive();
    }
    let request_uri = rp.pushed().await;
    let url = format!("{}&scope=openid", rp.pushed_url(&request_uri, "app"));
    assert!(rp.op.visit(url).parameter("deferred_code").is_some());
    assert_eq!(rp.broken_rules(), [RequestRule::ParameterBesideRequestUri]);
}

#[tokio::test]
async fn a_pushed_request_is_bound_to_the_key_of_its_proof() {
    let mut rp = rp(|op| op);
    let url = format!("{}/par", rp.op.issuer());
    // Without `dpop_jkt` the proof alone binds it.
    let proof = rp.proof("POST", &url, None);
    let (_, answer) = rp.push(&[("dpop_jkt", "")], &[("dpop", proof)]).await;
    let back = rp.op.visit(rp.pushed_url(answer["request_uri"].as_str().unwrap(), "app"));
    let code = back.parameter("deferred_code").unwrap().to_owned();
    let key = std::mem::replace(&mut rp.key, Key::generate());
    assert_eq!(rp.exchange(&code).await.1["error"], "invalid_dpop_proof");
    assert_eq!(rp.broken_rules(), [RequestRule::DpopKeyChanged]);
    rp.op.forgive();
    rp.key = key;
    assert_eq!(rp.exchange(&code).await.0, 200);
    // A proof with another key than the announced one is refused.
    let announced = Key::generate().thumbprint();
    let proof = rp.proof("POST", &url, None);
    assert_eq!(rp.push(&[("dpop_jkt", &announced)], &[("dpop", proof)]).await.1["error"], "invalid_dpop_proof");
    assert_eq!(rp.broken_rules(), [RequestRule::DpopKeyChanged]);
}

/// Sends a request of a client with this certificate. Returns the status and the answer.
async fn presented(rp: &Rp, url: &str, form: &[(&str, &str)], files: Option<&TestCertificate>) -> (u16, Value) {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut request = request(Method::POST, url, &[], body);
    request.client_certificate =
        files.map(|files| ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap().current());
    let response = rp.http.send(request).await.unwrap();
    (response.status.as_u16(), serde_json::from_slice(&response.body).unwrap_or_default())
}

#[tokio::test]
async fn a_certificate_is_accepted_if_the_authority_issued_it_and_its_subject_is_registered() {
    let rp = rp(|op| op.mutual_tls().client(TestClient::tls_client_auth("bank", NAME).redirect_uri(REDIRECT)));
    let url = format!("{}/token", rp.op.issuer());
    let form = [("client_id", "bank"), ("grant_type", DEFERRED), ("deferred_auth_id", "unknown")];
    let (_, answer) = presented(&rp, &url, &form, Some(&rp.op.client_certificate(NAME))).await;
    assert_eq!(answer["error"], "invalid_grant", "the client is believed");
    rp.op.forgive();
    let wrong = [
        Some(rp.op.client_certificate("other.rp.test")),
        Some(rp.op.expired_client_certificate(NAME)),
        Some(TestCertificate::self_signed(NAME)),
        None,
    ];
    for files in &wrong {
        assert_eq!(presented(&rp, &url, &form, files.as_ref()).await.1["error"], "invalid_client");
    }
    assert_eq!(rp.broken_rules(), [RequestRule::ClientAuthentication; 4]);
    let presented: Vec<_> =
        rp.op.requests_to(Endpoint::Poll).iter().map(|poll| poll.client_certificate.is_some()).collect();
    assert_eq!(presented, [true, true, true, true, false]);
}

#[tokio::test]
async fn clients_with_certificates_must_use_the_aliases_and_others_must_not() {
    let rp =
        rp(|op| op.mtls_endpoint_aliases().client(TestClient::tls_client_auth("bank", NAME).redirect_uri(REDIRECT)));
    let files = rp.op.client_certificate(NAME);
    let form = [("client_id", "bank"), ("grant_type", DEFERRED), ("deferred_auth_id", "unknown")];
    let (own, alias) = ("https://op.test/token", "https://mtls.op.test/token");
    presented(&rp, alias, &form, Some(&files)).await;
    assert_eq!(rp.broken_rules(), [RequestRule::UnknownDeferredAuthId]);
    rp.op.forgive();
    presented(&rp, own, &form, Some(&files)).await;
    assert_eq!(rp.broken_rules(), [RequestRule::AliasIgnored, RequestRule::UnknownDeferredAuthId]);
    rp.op.forgive();
    let public = [("client_id", "app"), form[1], form[2]];
    presented(&rp, alias, &public, None).await;
    assert_eq!(rp.broken_rules(), [RequestRule::AliasWithoutCertificate, RequestRule::UnknownDeferredAuthId]);
}

#[tokio::test]
async fn bound_tokens_need_a_certificate_and_no_proof() {
    let client = TestClient::public("bound").redirect_uri(REDIRECT).certificate_bound_access_tokens();
    let mut rp = rp(|op| op.mutual_tls().client(client));
    let url = format!("{}/token", rp.op.issuer());
    let code = |rp: &Rp| {
        let back = rp.op.visit(rp.authorization_url(&[("client_id", "bound"), ("dpop_jkt", "")]));
        back.parameter("deferred_code").unwrap().to_owned()
    };
    let code = code(&rp);
    let form =
        [("client_id", "bound"), ("grant_type", DEFERRED), ("deferred_code", &code), ("code_verifier", VERIFIER)];
    assert_eq!(presented(&rp, &url, &form, None).await.1["error"], "invalid_request");
    assert_eq!(rp.broken_rules(), [RequestRule::CertificateMissing]);
    rp.op.forgive();
    let files = TestCertificate::self_signed(NAME);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let proof = rp.proof("POST", &url, None);
    let mut both = request(Method::POST, &url, &[("dpop", proof)], body);
    let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem()).unwrap();
    both.client_certificate = Some(certificate.current());
    assert_eq!(rp.http.send(both).await.unwrap().status, 200);
    assert_eq!(rp.broken_rules(), [RequestRule::DpopWithCertificate]);
}
