//! Authorization responses as JWTs (JARM), signed and encrypted.

use std::time::Duration;

use openid_deferred::encryption::{
    ClientAlgorithms, ContentEncryptionAlgorithm, DecryptionKey, Encryption, KeyManagementAlgorithm,
};
use openid_deferred::error::{ConfigurationProblem, Document, Misuse, Rule};
use openid_deferred::testing::{
    BrowserReturn, EncryptionForgery, Endpoint, Fault, IdTokenForgery, TestClient, TestProviderBuilder,
};
use openid_deferred::{
    AuthorizationSession, Client, ClientBuilder, Error, ErrorKind, ResponseMode, ResponseType, SignIn, SigningAlgorithm,
};
use serde_json::{Map, Value, json};

use crate::steps::{claims_of, parameters};
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, assert_approved, client_of, keyring, provider, world, world_with,
};

fn registered() -> TestClient {
    TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI).signing_algorithm("ES256")
}

/// A client whose responses must all be JWTs in the query.
async fn jwt_world() -> World {
    world_with(|op| op, |client| client.response_mode(ResponseMode::QueryJwt)).await
}

async fn world_for(at_op: TestClient, client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    world_with(|op| op.client(at_op), |builder| client(builder.response_mode(ResponseMode::QueryJwt))).await
}

async fn returns(world: &World) -> (BrowserReturn, AuthorizationSession) {
    let (url, session) = world.client.authorize().start().await.unwrap();
    (world.op.visit(url), session)
}

/// Asserts that the response is refused and does not spend the session. Returns the rule and the member.
async fn is_refused(world: &World, fault: Fault) -> (Rule, Option<&'static str>) {
    world.op.misbehave(fault);
    let (back, mut session) = returns(world).await;
    assert_eq!(world.op.faults_left(), 0, "the response was forged");
    refusal(&world.client, &back.query(), &mut session).await
}

async fn refusal(client: &Client, query: &str, session: &mut AuthorizationSession) -> (Rule, Option<&'static str>) {
    let error = client.check_authorization_response(query, session).await.unwrap_err();
    assert!(!session.is_spent(), "{error}");
    assert_eq!(error.step(), Some("checking the authorization response"));
    match error.kind() {
        ErrorKind::Protocol(violation) => {
            assert_eq!(violation.document(), Some(Document::AuthorizationResponse), "{error}");
            (violation.rule(), violation.member())
        }
        other => panic!("{other:?}"),
    }
}

fn claims(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Fault {
    Fault::jwt_response(IdTokenForgery::claims(edit))
}

fn with(name: &'static str, value: Value) -> Fault {
    claims(move |claims| drop(claims.insert(name.to_owned(), value.clone())))
}

fn without(name: &'static str) -> Fault {
    claims(move |claims| drop(claims.shift_remove(name)))
}

// Accepted responses.

#[tokio::test]
async fn a_response_jwt_is_the_only_parameter_and_signs_the_user_in() {
    let world = jwt_world().await;
    let (url, session) = world.client.authorize().start().await.unwrap();
    assert_eq!(parameters(&url, "response_mode"), ["query.jwt"]);
    let back = world.op.visit(url);
    let names: Vec<_> = back.parameters().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["response"]);
    let inside = claims_of(back.parameter("response").unwrap());
    assert!(inside["deferred_code"].is_string());
    assert_eq!(inside["state"], session.state().expose());
    let signed_in = world.client.authorization_response(&back.url(), session).await.unwrap();
    let SignIn::Deferred(mut pending) = signed_in else { panic!("{signed_in:?}") };
    assert_approved(&world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_signed_response_arrives_by_form_post() {
    let world = world_with(|op| op, |client| client.response_mode(ResponseMode::FormPostJwt)).await;
    let (url, session) = world.client.authorize().start().await.unwrap();
    assert_eq!(parameters(&url, "response_mode"), ["form_post.jwt"]);
    let body = world.op.visit(url).form();
    assert!(matches!(world.client.authorization_response(&body, session).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

/// An OP that lists only these modes.
fn modes(listed: &'static [&'static str]) -> impl Fn(&mut Map<String, Value>) + Send + Sync + 'static {
    move |metadata| drop(metadata.insert("response_modes_supported".into(), json!(listed)))
}

#[tokio::test]
async fn the_shorthand_response_mode_is_used_if_the_op_lists_no_other() {
    for (listed, sent) in [
        (&["query", "jwt"][..], "jwt"),
        (&["jwt", "form_post.jwt"], "jwt"),
        (&["jwt", "query.jwt"], "query.jwt"),
        (&["query.jwt"], "query.jwt"),
    ] {
        for response_type in [ResponseType::DeferredCode, ResponseType::Code] {
            let world =
                world_with(|op| op.metadata(modes(listed)), |client| client.response_mode(ResponseMode::QueryJwt))
                    .await;
            let (url, session) = world.client.authorize().response_type(response_type).start().await.unwrap();
            assert_eq!(parameters(&url, "response_mode"), [sent], "{listed:?}");
            let back = world.op.visit(url);
            assert_eq!(back.parameters().len(), 1);
            assert!(world.client.authorization_response(&back.url(), session).await.is_ok());
            world.op.assert_clean();
        }
    }
}

#[tokio::test]
async fn the_shorthand_response_mode_works_in_plain_pushed_and_signed_requests() {
    let key = openid_deferred::SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let at_op = registered().jwks(&json!({ "keys": [key.public_jwk()] }));
    let settings = |client: ClientBuilder| client.response_mode(ResponseMode::Jwt).request_object_signing_key(key);
    let world = world_with(|op| op.client(at_op), settings).await;
    for (pushed, signed) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut request = world.client.authorize();
        if pushed {
            request = request.pushed();
        }
        if signed {
            request = request.signed();
        }
        let (url, session) = request.start().await.unwrap();
        if !pushed && !signed {
            assert_eq!(parameters(&url, "response_mode"), ["jwt"]);
        }
        let back = world.op.visit(url);
        assert!(back.parameter("response").is_some(), "{pushed} {signed}");
        let taken = world.client.authorization_response(&back.url(), session).await;
        assert!(matches!(taken, Ok(SignIn::Deferred(_))), "{taken:?}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn the_shorthand_response_mode_is_refused_if_it_means_the_fragment_or_is_not_listed() {
    let world = world_with(|op| op, |client| client.response_mode(ResponseMode::Jwt)).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let error = request.start().await.unwrap_err();
    let ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!(*setting, "response_mode");
    world.assert_nothing_sent();

    let plain = || modes(&["query", "query.jwt"]);
    let error = discovered(plain(), |client| client.response_mode(ResponseMode::Jwt)).await.unwrap_err();
    assert_eq!(unlisted(&error), ("response_modes_supported", "jwt"));
    discovered(plain(), |client| client.response_mode(ResponseMode::Jwt).allow_unadvertised()).await.unwrap();
    let shorthand = || modes(&["jwt"]);
    let either = |client: ClientBuilder| client.response_type(ResponseType::DeferredCodeOrCode);
    assert_eq!(unlisted(&discovered(shorthand(), either).await.unwrap_err()).1, "query.jwt");
}

#[tokio::test]
async fn a_single_request_can_override_the_clients_response_mode() {
    let world = world().await;
    let (url, session) = world.client.authorize().response_mode(ResponseMode::QueryJwt).start().await.unwrap();
    let query = world.op.visit(url).query();
    assert!(query.starts_with("response=") && !query.contains('&'));
    assert!(world.client.authorization_response(&query, session).await.is_ok());

    let world = jwt_world().await;
    let (url, session) = world.client.authorize().response_mode(ResponseMode::Query).start().await.unwrap();
    let query = world.op.visit(url).query();
    assert!(world.client.authorization_response(&query, session).await.is_ok());
    world.op.assert_clean();
}

#[tokio::test]
async fn responses_are_verified_with_every_algorithm_that_the_op_has() {
    use SigningAlgorithm as A;
    for algorithm in [A::Es256, A::Es384, A::EdDsa, A::Ps256, A::Rs256] {
        let at_op = registered().authorization_signed_response_alg(algorithm.as_str());
        for pinned in [true, false] {
            let world = world_for(at_op.clone(), |client| match pinned {
                true => client.algorithms(ClientAlgorithms::new().authorization_signed_response_alg(algorithm)),
                false => client,
            })
            .await;
            let (back, session) = returns(&world).await;
            assert!(world.client.authorization_response(&back.query(), session).await.is_ok(), "{algorithm:?}");
        }
    }
}

#[tokio::test]
async fn an_encrypted_response_is_decrypted_with_every_combination_of_algorithms() {
    use ContentEncryptionAlgorithm as Enc;
    use KeyManagementAlgorithm as Alg;
    for (alg, enc) in [
        (Alg::RsaOaep, Enc::A128Gcm),
        (Alg::RsaOaep256, Enc::A256CbcHs512),
        (Alg::EcdhEs, Enc::A128CbcHs256),
        (Alg::EcdhEsA128Kw, Enc::A192Gcm),
        (Alg::EcdhEsA192Kw, Enc::A192CbcHs384),
        (Alg::EcdhEsA256Kw, Enc::A256Gcm),
    ] {
        let (world, _) = encrypted_world(alg, enc).await;
        let (back, session) = returns(&world).await;
        assert_eq!(back.parameter("response").unwrap().matches('.').count(), 4);
        let signed_in = world.client.authorization_response(&back.query(), session).await;
        assert!(matches!(signed_in, Ok(SignIn::Deferred(_))), "{alg:?} {enc:?}: {signed_in:?}");
        world.op.assert_clean();
    }
}

async fn encrypted_world(alg: KeyManagementAlgorithm, enc: ContentEncryptionAlgorithm) -> (World, DecryptionKey) {
    let key = DecryptionKey::generate(alg).unwrap();
    let at_op = registered()
        .jwks(&json!({ "keys": [key.public_jwk()] }))
        .encrypted_authorization_response(alg.as_str(), enc.as_str());
    let world = world_for(at_op, |client| {
        client
            .decryption_key(key.clone())
            .algorithms(ClientAlgorithms::new().authorization_encrypted_response(Encryption::new(alg).content(enc)))
    })
    .await;
    (world, key)
}

const ALG: KeyManagementAlgorithm = KeyManagementAlgorithm::EcdhEsA256Kw;

#[tokio::test]
async fn an_ordinary_code_arrives_in_a_jwt() {
    let world = world_with(|op| op.answer_with_code(), |client| client.response_mode(ResponseMode::QueryJwt)).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await.unwrap();
    assert_eq!(parameters(&url, "response_mode"), ["query.jwt"]);
    let query = world.op.visit(url).query();
    assert!(matches!(world.client.authorization_response(&query, session).await, Ok(SignIn::Complete(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_error_in_a_response_jwt_is_the_ops_error() {
    let world = jwt_world().await;
    let (url, mut session) = world.client.authorize().start().await.unwrap();
    let back = world.op.visit_and_decline(url);
    assert!(back.parameter("error").is_none(), "it is inside");
    let error = world.client.check_authorization_response(&back.query(), &mut session).await.unwrap_err();
    let response = error.error_response().unwrap();
    assert_eq!((response.code(), response.description()), ("access_denied", Some("the user declined")));
    assert!(session.is_spent());
    world.assert_nothing_sent();
}

#[tokio::test]
async fn an_unsigned_error_is_not_reported_as_the_ops_error() {
    let world = jwt_world().await;
    world.op.misbehave(Fault::jwt_response(IdTokenForgery::foreign_key()));
    let (url, mut session) = world.client.authorize().start().await.unwrap();
    let query = world.op.visit_and_decline(url).query();
    assert_eq!(refusal(&world.client, &query, &mut session).await, (Rule::JwtResponseSignature, Some("response")));
}

#[tokio::test]
async fn parameters_outside_the_response_jwt_are_ignored() {
    let world = jwt_world().await;
    let (back, session) = returns(&world).await;
    let query =
        format!("code=x&deferred_code=y&state=z&error=access_denied&iss=https%3A%2F%2Fother.test&{}", back.query());
    let signed_in = world.client.authorization_response(&format!("{query}&state=q&iss=w"), session).await;
    assert!(matches!(signed_in, Ok(SignIn::Deferred(_))), "{signed_in:?}");
    let sent = world.op.requests_to(Endpoint::Exchange)[0].parameter("deferred_code").map(str::to_owned);
    assert_eq!(sent.as_deref(), claims_of(back.parameter("response").unwrap())["deferred_code"].as_str());
}

#[tokio::test]
async fn the_state_in_the_jwt_names_the_cookie_of_the_session() {
    let world = jwt_world().await;
    let (back, session) = returns(&world).await;
    let name = Some(session.cookie_name());
    assert_eq!(AuthorizationSession::cookie_name_for(&back.query()), name);
    assert_eq!(AuthorizationSession::cookie_name_for(&format!("?state=x&{}", back.query())), name);
    assert_eq!(world.client.cookie_name_for(&back.query()), name);
    assert_eq!(AuthorizationSession::cookie_name_for("response=junk"), None);
    assert_eq!(world.client.cookie_name_for("response=a.b.c.d.e"), None);

    let (world, _) = encrypted_world(ALG, ContentEncryptionAlgorithm::A256Gcm).await;
    let (back, session) = returns(&world).await;
    assert_eq!(AuthorizationSession::cookie_name_for(&back.query()), None, "only the client has the key");
    assert_eq!(world.client.cookie_name_for(&back.query()), Some(session.cookie_name()));
}

#[tokio::test]
async fn a_reopened_session_still_requires_a_response_jwt() {
    let world = jwt_world().await;
    let keyring = keyring();
    let (back, session) = returns(&world).await;
    let mut session = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    let plain = format!("deferred_code=x&state={}&iss={}", session.state().expose(), world.op.issuer());
    assert_eq!(refusal(&world.client, &plain, &mut session).await, (Rule::ResponseNotJwt, Some("response")));
    assert!(world.client.check_authorization_response(&back.query(), &mut session).await.is_ok());
}

#[tokio::test]
async fn a_response_jwt_needs_no_iss_parameter() {
    let world =
        world_with(TestProviderBuilder::without_iss, |client| client.response_mode(ResponseMode::QueryJwt)).await;
    let (back, session) = returns(&world).await;
    assert!(world.client.authorization_response(&back.query(), session).await.is_ok());
}

#[tokio::test]
async fn an_audience_may_be_an_array_of_this_client_alone() {
    let world = jwt_world().await;
    world.op.misbehave(with("aud", json!([CLIENT_ID])));
    let (back, session) = returns(&world).await;
    assert!(world.client.authorization_response(&back.query(), session).await.is_ok());
}

#[tokio::test]
async fn claims_without_a_value_count_as_absent() {
    let world = jwt_world().await;
    for name in ["code", "error", "error_description", "id_token", "access_token"] {
        for value in [json!(null), json!("")] {
            world.op.misbehave(with(name, value.clone()));
            let (back, session) = returns(&world).await;
            let signed_in = world.client.authorization_response(&back.query(), session).await;
            assert!(matches!(signed_in, Ok(SignIn::Deferred(_))), "{name} {value}: {signed_in:?}");
        }
    }
    for name in ["nbf", "iat"] {
        world.op.misbehave(with(name, json!(null)));
        let (back, session) = returns(&world).await;
        assert!(world.client.authorization_response(&back.query(), session).await.is_ok(), "{name}");
    }
    for value in [json!(null), json!("")] {
        for (name, rule) in [
            ("state", Rule::StateMissing),
            ("iss", Rule::JwtResponseIssuer),
            ("aud", Rule::JwtResponseAudience),
            ("exp", Rule::JwtResponseExpired),
            ("deferred_code", Rule::NoCode),
        ] {
            assert_eq!(is_refused(&world, with(name, value.clone())).await, (rule, Some(name)), "{value}");
        }
    }
}

#[tokio::test]
async fn a_response_may_be_good_for_hours() {
    let world = jwt_world().await;
    world.op.misbehave(claims(|claims| {
        let exp = claims["exp"].as_u64().unwrap();
        claims.insert("exp".into(), json!(exp + 12 * 3_600));
    }));
    let (back, session) = returns(&world).await;
    assert!(world.client.authorization_response(&back.query(), session).await.is_ok());
}

// Refused responses.

#[tokio::test]
async fn a_plain_response_is_refused_if_a_jwt_was_requested_and_the_session_stays_valid() {
    let world = jwt_world().await;
    let (back, mut session) = returns(&world).await;
    let inside = claims_of(back.parameter("response").unwrap());
    let mut plain = form_urlencoded::Serializer::new(String::new());
    for name in ["deferred_code", "state", "iss"] {
        plain.append_pair(name, inside[name].as_str().unwrap());
    }
    let not_jwt = (Rule::ResponseNotJwt, Some("response"));
    assert_eq!(refusal(&world.client, &plain.finish(), &mut session).await, not_jwt);
    let error = format!("error=access_denied&state={}", session.state().expose());
    assert_eq!(refusal(&world.client, &error, &mut session).await, not_jwt);
    assert_eq!(refusal(&world.client, "", &mut session).await, not_jwt);
    world.assert_nothing_sent();
    assert!(world.client.check_authorization_response(&back.query(), &mut session).await.is_ok());
}

#[tokio::test]
async fn a_response_jwt_that_was_not_requested_is_refused() {
    let asking = world().await;
    let (_, mut session) = asking.user_returns().await;
    let (back, _) = returns(&jwt_world().await).await;
    let unrequested = (Rule::UnrequestedJwt, Some("response"));
    assert_eq!(refusal(&asking.client, &back.query(), &mut session).await, unrequested);
    // Beside a plain response it is an unknown parameter.
    let (query, session) = asking.user_returns().await;
    let signed_in = asking.client.authorization_response(&format!("response=x&{query}&response=y"), session).await;
    assert!(matches!(signed_in, Ok(SignIn::Deferred(_))), "{signed_in:?}");
}

#[tokio::test]
async fn a_response_that_the_op_did_not_sign_is_refused() {
    let world = jwt_world().await;
    let at = Some("response");
    for (forgery, rule) in [
        (IdTokenForgery::algorithm_none(), Rule::JwtResponseAlgorithm),
        (IdTokenForgery::hmac_with_public_key(), Rule::JwtResponseAlgorithm),
        (IdTokenForgery::foreign_key(), Rule::JwtResponseSignature),
        (IdTokenForgery::broken_signature(), Rule::JwtResponseSignature),
        (
            IdTokenForgery::header(|header| drop(header.insert("alg".into(), json!("XS256")))),
            Rule::JwtResponseAlgorithm,
        ),
        (IdTokenForgery::header(|header| drop(header.insert("crit".into(), json!(["x"])))), Rule::JwtResponseHeader),
        (IdTokenForgery::raw("junk"), Rule::JwtResponseMalformed),
        (IdTokenForgery::raw("e30.e30.e30"), Rule::JwtResponseMalformed),
        (IdTokenForgery::raw(&"a".repeat(10_000)), Rule::JwtResponseMalformed),
    ] {
        assert_eq!(is_refused(&world, Fault::jwt_response(forgery)).await, (rule, at), "{rule:?}");
        // The next one is not looked at in the same minute.
        world.clock.advance(Duration::from_secs(61));
    }
    world.assert_nothing_sent();
}

#[tokio::test]
async fn a_response_by_an_unknown_key_causes_one_fetch_and_is_refused() {
    let world = jwt_world().await;
    let unknown = IdTokenForgery::header(|header| drop(header.insert("kid".into(), json!("another"))));
    let fetched = world.op.requests_to(Endpoint::Keys).len();
    let refused = is_refused(&world, Fault::jwt_response(unknown)).await;
    assert_eq!(refused, (Rule::JwtResponseNoKey, Some("response")));
    assert_eq!(world.op.requests_to(Endpoint::Keys).len(), fetched + 1);
}

#[tokio::test]
async fn a_response_of_another_op_or_for_another_client_is_refused() {
    let world = jwt_world().await;
    for fault in [without("iss"), with("iss", json!("https://other.test"))] {
        assert_eq!(is_refused(&world, fault).await, (Rule::JwtResponseIssuer, Some("iss")));
    }
    for aud in [json!("another"), json!([]), json!([CLIENT_ID, "another"]), json!(7), json!({}), json!([7])] {
        assert_eq!(is_refused(&world, with("aud", aud)).await, (Rule::JwtResponseAudience, Some("aud")));
    }
    assert_eq!(is_refused(&world, without("aud")).await, (Rule::JwtResponseAudience, Some("aud")));
    world.assert_nothing_sent();
}

#[tokio::test]
async fn a_response_that_has_expired_or_lives_for_days_is_refused() {
    let world = jwt_world().await;
    let now = openid_deferred::Clock::now(&world.clock).duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for exp in [json!(now - 61), json!(0), json!(now + 86_500), json!("soon"), json!(null), json!(1e30), json!(-1)] {
        let expired = (Rule::JwtResponseExpired, Some("exp"));
        assert_eq!(is_refused(&world, with("exp", exp.clone())).await, expired, "{exp}");
    }
    assert_eq!(is_refused(&world, without("exp")).await, (Rule::JwtResponseExpired, Some("exp")));
    for name in ["nbf", "iat"] {
        let refused = (Rule::JwtResponseClaims, Some(name));
        assert_eq!(is_refused(&world, with(name, json!(now + 120))).await, refused);
        assert_eq!(is_refused(&world, with(name, json!("now"))).await, refused);
    }
    // The user stays away for longer than the JWT is valid.
    let (back, mut session) = returns(&world).await;
    world.clock.advance(Duration::from_secs(661));
    assert_eq!(refusal(&world.client, &back.query(), &mut session).await, (Rule::JwtResponseExpired, Some("exp")));
}

#[tokio::test]
async fn a_state_of_another_session_is_refused_before_anything_is_fetched() {
    let world = jwt_world().await;
    world.op.replace_keys();
    let fetched = world.op.requests_to(Endpoint::Keys).len();
    assert_eq!(is_refused(&world, with("state", json!("another"))).await, (Rule::StateMismatch, Some("state")));
    assert_eq!(is_refused(&world, without("state")).await, (Rule::StateMissing, Some("state")));
    let (back, _) = returns(&world).await;
    let (_, mut session) = returns(&world).await;
    assert_eq!(refusal(&world.client, &back.query(), &mut session).await, (Rule::StateMismatch, Some("state")));
    assert_eq!(world.op.requests_to(Endpoint::Keys).len(), fetched);
}

#[tokio::test]
async fn a_response_jwt_follows_the_parameter_rules_of_plain_responses() {
    let world = jwt_world().await;
    assert_eq!(is_refused(&world, with("code", json!("x"))).await, (Rule::BothCodes, Some("deferred_code")));
    assert_eq!(is_refused(&world, without("deferred_code")).await, (Rule::NoCode, Some("deferred_code")));
    assert_eq!(is_refused(&world, with("error", json!("x"))).await, (Rule::CodeAndError, Some("error")));
    assert_eq!(is_refused(&world, with("id_token", json!("x"))).await, (Rule::UnrequestedToken, Some("id_token")));
    assert_eq!(is_refused(&world, with("deferred_code", json!(""))).await, (Rule::NoCode, Some("deferred_code")));
    for name in ["deferred_code", "state", "error", "iss"] {
        assert_eq!(is_refused(&world, with(name, json!(["x"]))).await, (Rule::JwtResponseClaims, Some(name)));
    }
    world.assert_nothing_sent();
}

#[tokio::test]
async fn two_jwts_in_one_response_are_refused() {
    let world = jwt_world().await;
    let (back, mut session) = returns(&world).await;
    let twice = format!("{0}&{0}", back.query());
    assert_eq!(refusal(&world.client, &twice, &mut session).await, (Rule::RepeatedParameter, Some("response")));
}

#[tokio::test]
async fn an_algorithm_other_than_the_registered_one_is_refused() {
    let at_op = registered().authorization_signed_response_alg("RS256");
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = provider(&clock).client(at_op).start().unwrap();
    let client = client_of(&op, &clock)
        .response_mode(ResponseMode::QueryJwt)
        .algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Es256))
        .allow_unadvertised()
        .discover()
        .await
        .unwrap();
    let (url, mut session) = client.authorize().start().await.unwrap();
    let query = op.visit(url).query();
    assert_eq!(refusal(&client, &query, &mut session).await, (Rule::JwtResponseAlgorithm, Some("response")));
}

#[tokio::test]
async fn an_hmac_is_accepted_only_if_it_was_registered() {
    // The JWT is signed with the client secret, as an OP does that has `HS256` registered for this client.
    let secret = "a secret of at least thirty-two bytes";
    let world = world_with(
        |op| op.client(TestClient::secret_basic(CLIENT_ID, secret).redirect_uri(REDIRECT_URI)),
        |client| {
            client
                .authentication(openid_deferred::ClientAuthentication::client_secret_basic(secret))
                .response_mode(ResponseMode::QueryJwt)
        },
    )
    .await;
    let (back, session) = returns(&world).await;
    let claims = claims_of(back.parameter("response").unwrap());
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let query = format!("response={token}");
    let keyring = keyring();
    let sealed = session.seal(&keyring).unwrap();
    let open = || AuthorizationSession::open(&keyring, &sealed).unwrap();
    assert_eq!(refusal(&world.client, &query, &mut open()).await, (Rule::JwtResponseAlgorithm, Some("response")));
    let registered = client_of(&world.op, &world.clock)
        .authentication(openid_deferred::ClientAuthentication::client_secret_basic(secret))
        .algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Hs256))
        .build()
        .unwrap();
    assert!(registered.check_authorization_response(&query, &mut open()).await.is_ok());
}

#[tokio::test]
async fn the_session_stays_valid_while_keys_are_unavailable() {
    let world = jwt_world().await;
    world.op.rotate_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let (back, mut session) = returns(&world).await;
    for _ in 0..2 {
        let error = world.client.check_authorization_response(&back.query(), &mut session).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::KeysUnavailable), "{error}");
        assert!(error.is_transient() && error.retry_after().is_some() && !session.is_spent());
    }
    world.assert_nothing_sent();
    world.op.behave();
    world.clock.advance(Duration::from_secs(60));
    let mut grant = world.client.check_authorization_response(&back.query(), &mut session).await.unwrap();
    assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
    let error = world.client.check_authorization_response(&back.query(), &mut session).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::SessionAlreadyUsed));
}

#[tokio::test]
async fn a_key_that_was_rotated_while_the_user_was_away_verifies_the_response() {
    let world = jwt_world().await;
    world.op.rotate_keys();
    let (back, session) = returns(&world).await;
    assert!(world.client.authorization_response(&back.query(), session).await.is_ok());
}

#[tokio::test]
async fn the_session_stays_valid_if_discovery_has_not_succeeded() {
    let mut world = jwt_world().await;
    let (back, mut session) = returns(&world).await;
    world.client = client_of(&world.op, &world.clock).response_mode(ResponseMode::QueryJwt).build().unwrap();
    world.op.misbehave(Fault::status(Endpoint::Metadata, 503).always());
    let error = world.client.check_authorization_response(&back.query(), &mut session).await.unwrap_err();
    assert!(error.is_transient() && !session.is_spent(), "{error}");
    world.op.behave();
    world.clock.advance(Duration::from_secs(60));
    assert!(world.client.check_authorization_response(&back.query(), &mut session).await.is_ok());
}

#[tokio::test]
async fn a_response_that_is_not_encrypted_as_registered_is_refused() {
    let (world, key) = encrypted_world(ALG, ContentEncryptionAlgorithm::A256Gcm).await;
    for (forgery, rule) in [
        (EncryptionForgery::in_clear(), Rule::NotEncrypted),
        (EncryptionForgery::unsigned(), Rule::JwtResponseMalformed),
        (EncryptionForgery::twice(), Rule::JwtResponseMalformed),
        (EncryptionForgery::foreign_key(), Rule::Decryption),
        (EncryptionForgery::unknown_key_id(), Rule::NoDecryptionKey),
        (EncryptionForgery::compressed(), Rule::EncryptionHeader),
        (EncryptionForgery::cut_tag(1), Rule::Decryption),
        (EncryptionForgery::broken_ciphertext(), Rule::Decryption),
        (EncryptionForgery::raw("a.b.c.d.e"), Rule::Decryption),
    ] {
        let (refused, _) = is_refused(&world, Fault::encryption(Endpoint::Authorization, forgery)).await;
        assert_eq!(refused, rule);
    }
    // An attacker with the client's public key can encrypt, but not sign.
    let foreign = Fault::jwt_response(IdTokenForgery::foreign_key());
    assert_eq!(is_refused(&world, foreign).await.0, Rule::JwtResponseSignature);

    // The key may not have reached this instance yet.
    let (back, mut session) = returns(&world).await;
    let other = DecryptionKey::generate(ALG).unwrap();
    world.client.replace_decryption_keys([other]).unwrap();
    assert_eq!(refusal(&world.client, &back.query(), &mut session).await.0, Rule::NoDecryptionKey);
    world.client.replace_decryption_keys([key]).unwrap();
    assert!(world.client.check_authorization_response(&back.query(), &mut session).await.is_ok());
    world.assert_nothing_sent();
}

// Settings.

async fn discovered(
    edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, Error> {
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = provider(&clock).metadata(edit).start().unwrap();
    client(client_of(&op, &clock).response_mode(ResponseMode::QueryJwt)).discover().await
}

fn unlisted(error: &Error) -> (&'static str, &str) {
    match error.kind() {
        ErrorKind::Configuration(ConfigurationProblem::NotAdvertised { member, value }) => (member, value),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_op_without_the_response_mode_or_its_algorithm_is_refused_at_discovery() {
    let plain = |metadata: &mut Map<String, Value>| {
        metadata.insert("response_modes_supported".into(), json!(["query", "form_post.jwt"]));
    };
    let error = discovered(plain, |client| client).await.unwrap_err();
    assert_eq!(unlisted(&error), ("response_modes_supported", "query.jwt"));
    let error = discovered(plain, |client| client.response_mode(ResponseMode::FormPost)).await.unwrap_err();
    assert_eq!(unlisted(&error), ("response_modes_supported", "form_post"));
    discovered(plain, |client| client.response_mode(ResponseMode::FormPostJwt)).await.unwrap();
    discovered(plain, ClientBuilder::allow_unadvertised).await.unwrap();

    let error = discovered(
        |_| {},
        |client| client.algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Ps256)),
    )
    .await;
    assert_eq!(unlisted(&error.unwrap_err()), ("authorization_signing_alg_values_supported", "PS256"));
    let symmetric = |metadata: &mut Map<String, Value>| {
        metadata.insert("authorization_signing_alg_values_supported".into(), json!(["HS256", "none"]));
    };
    let error = discovered(symmetric, |client| client).await.unwrap_err();
    assert_eq!(unlisted(&error).0, "authorization_signing_alg_values_supported");
}

#[tokio::test]
async fn an_op_that_lists_no_algorithms_signs_with_rs256() {
    let silent = |metadata: &mut Map<String, Value>| {
        metadata.shift_remove("authorization_signing_alg_values_supported");
    };
    for (algorithm, is_fine) in [("RS256", true), ("ES256", false)] {
        let at_op = registered().authorization_signed_response_alg(algorithm);
        let world =
            world_with(|op| op.client(at_op).metadata(silent), |client| client.response_mode(ResponseMode::QueryJwt))
                .await;
        let (back, session) = returns(&world).await;
        let taken = world.client.authorization_response(&back.query(), session).await;
        assert_eq!(taken.is_ok(), is_fine, "{algorithm}: {taken:?}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let base = || Client::builder("https://op.test", CLIENT_ID).redirect_uri(REDIRECT_URI);
    let setting = |builder: ClientBuilder| match builder.build().unwrap_err().kind() {
        ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) => *setting,
        other => panic!("{other:?}"),
    };
    let hmac = base().algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Hs256));
    assert_eq!(setting(hmac), "authorization_signed_response_alg");
    assert_eq!(
        setting(base().algorithms(ClientAlgorithms::new().authorization_encrypted_response(ALG))),
        "authorization_encrypted_response_alg"
    );
}

#[test]
fn forged_jwts_are_refused_without_a_panic() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let world = runtime.block_on(jwt_world());
    let (_, session) = runtime.block_on(returns(&world));
    let state = session.state().expose().to_owned();
    let value = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
    ];
    let session = std::cell::RefCell::new(session);
    let names =
        ["state", "iss", "aud", "exp", "nbf", "iat", "code", "deferred_code", "error", "error_description", "x"];
    let strange = (prop::sample::select(names.to_vec()), value);
    proptest!(|(
        header in prop_oneof![Just(r#"{"alg":"ES256"}"#.to_owned()), Just(r#"{"alg":"none"}"#.to_owned()), ".{0,40}"],
        odd in prop::collection::vec(strange, 0..4),
        signature in prop::collection::vec(any::<u8>(), 0..80),
        junk in "[ -~]{0,200}",
    )| {
        let mut claims = json!({
            "state": state, "iss": world.op.issuer(), "aud": CLIENT_ID, "deferred_code": "x", "exp": 4_000_000_000_u64,
        });
        for (name, value) in odd {
            claims[name] = value;
        }
        let [header, claims] = [header, claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let token = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature));
        for response in [token, junk] {
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("response", &response).finish();
            let _ = world.client.cookie_name_for(&query);
            let taken = runtime.block_on(world.client.check_authorization_response(&query, &mut session.borrow_mut()));
            prop_assert!(taken.is_err() && !session.borrow().is_spent());
        }
    });
}
