//! OpenID Connect Back-Channel Logout 1.0 §2.6: which logout tokens are accepted.

use std::time::UNIX_EPOCH;

use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, KeyManagementAlgorithm};
use openid_deferred::error::{Document, Rule};
use openid_deferred::logout::LogoutToken;
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, TestClient, TestProcess};
use openid_deferred::{Authentication, ClientBuilder, Clock as _, Error, ErrorKind, SigningAlgorithm};
use serde_json::{Map, Value, json};

use crate::steps::{claims_of, header_of};
use crate::support::{CLIENT_ID, CLIENT_SECRET, DAY, REDIRECT_URI, World, seconds, world_with};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// No server listens here.
const URI: &str = "http://127.0.0.1:1/backchannel-logout";

fn registered() -> TestClient {
    TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .backchannel_logout_uri(URI)
        .signing_algorithm("ES256")
}

/// A world with a user who is signed in.
async fn signed_in() -> (World, Authentication, TestProcess) {
    signed_in_with(registered(), |client| client).await
}

async fn signed_in_with(
    at_op: TestClient,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> (World, Authentication, TestProcess) {
    let world = world_with(|op| op.client(at_op), client).await;
    let user = world.approved().await;
    let process = world.op.last_process();
    (world, user, process)
}

/// In seconds since 1970.
fn now(world: &World) -> u64 {
    world.clock.now().duration_since(UNIX_EPOCH).expect("it is later").as_secs()
}

/// The rule that a token breaks, and the claim or parameter.
#[track_caller]
fn broken(verified: Result<LogoutToken, Error>) -> (Rule, Option<&'static str>) {
    let error = verified.expect_err("the token is accepted");
    assert_eq!(error.step(), Some("verifying the logout token"));
    assert!(!error.is_transient(), "{error}");
    match error.kind() {
        ErrorKind::Protocol(violation) => {
            assert_eq!(violation.document(), Some(Document::LogoutToken), "{error}");
            (violation.rule(), violation.member())
        }
        other => panic!("{other:?}"),
    }
}

type Edit = Box<dyn Fn(&mut Map<String, Value>) + Send + Sync>;

fn set(name: &'static str, value: Value) -> Edit {
    Box::new(move |members| drop(members.insert(name.to_owned(), value.clone())))
}

fn without(name: &'static str) -> Edit {
    Box::new(move |members| drop(members.shift_remove(name)))
}

#[tokio::test]
async fn a_logout_token_names_the_session_of_a_sign_in() {
    let (world, user, process) = signed_in().await;
    let sid = user.claims().sid().expect("the ID Token names the session");
    assert_eq!(sid, process.sid());
    let sent = process.logout_token();
    assert_eq!(header_of(&sent)["typ"], "logout+jwt");
    let token = world.client.logout_token(&sent).await.unwrap();
    assert_eq!((token.sid(), token.subject()), (Some(sid), Some(user.claims().subject())));
    assert_eq!(token.issuer(), user.claims().issuer());
    let claims = claims_of(&sent);
    assert_eq!(token.jti(), claims["jti"]);
    let issued_at = UNIX_EPOCH + seconds(now(&world));
    assert_eq!((token.issued_at(), token.expires_at()), (issued_at, issued_at + seconds(120)));
    assert_eq!(token.usable_until(), issued_at + seconds(180));
    assert_eq!(token.get("events"), Some(&json!({ EVENT: {} })));
    let shown = format!("{token:?}");
    assert!(!shown.contains(sid) && !shown.contains("user-1") && !shown.contains(token.jti()), "{shown}");
    // The client remembers nothing: who calls it does.
    world.client.logout_token(&sent).await.unwrap();
    world.op.assert_clean();
}

#[tokio::test]
async fn optional_variations_of_logout_tokens_are_accepted() {
    let (world, _, process) = signed_in().await;
    let accepted: Vec<(&str, Edit)> = vec![
        ("a session alone", without("sub")),
        ("a user alone", without("sid")),
        ("a null is nothing", set("sid", json!(null))),
        ("an array of one audience", set("aud", json!([CLIENT_ID]))),
        ("an event of the OP beside it", set("events", json!({ EVENT: {}, "revoke_offline_access": true }))),
        ("an event with members", set("events", json!({ EVENT: { "reason": "expiry" } }))),
        ("other claims", set("trace_id", json!("a"))),
        ("a time with a fraction", set("exp", json!(now(&world) as f64 + 60.5))),
        ("a null nbf", set("nbf", json!(null))),
    ];
    for (what, edit) in accepted {
        let token = process.forged_logout_token(IdTokenForgery::claims(edit));
        assert!(world.client.logout_token(&token).await.is_ok(), "{what}");
    }
    for kind in [json!("LOGOUT+JWT"), json!("application/logout+jwt"), json!("JWT"), json!(""), json!(null)] {
        let token = process.forged_logout_token(IdTokenForgery::header(set("typ", kind.clone())));
        assert!(world.client.logout_token(&token).await.is_ok(), "{kind}");
    }
    let untyped = process.forged_logout_token(IdTokenForgery::header(without("typ")));
    assert!(world.client.logout_token(&untyped).await.is_ok());
}

#[tokio::test]
async fn claims_that_break_a_rule_are_refused() {
    let (world, _, process) = signed_in().await;
    let now = now(&world);
    let day = 86_400;
    let long = json!("x".repeat(256));
    let refused: Vec<(Rule, &'static str, Edit)> = vec![
        (Rule::LogoutTokenIssuer, "iss", set("iss", json!("https://evil.test"))),
        (Rule::LogoutTokenIssuer, "iss", without("iss")),
        (Rule::LogoutTokenAudience, "aud", set("aud", json!("other"))),
        (Rule::LogoutTokenAudience, "aud", set("aud", json!([CLIENT_ID, "other"]))),
        (Rule::LogoutTokenAudience, "aud", set("aud", json!([]))),
        (Rule::LogoutTokenAudience, "aud", set("aud", json!([CLIENT_ID, 7]))),
        (Rule::LogoutTokenAudience, "aud", without("aud")),
        (Rule::LogoutTokenNonce, "nonce", set("nonce", json!("abc"))),
        (Rule::LogoutTokenNonce, "nonce", set("nonce", json!(null))),
        (Rule::LogoutTokenEvents, "events", without("events")),
        (Rule::LogoutTokenEvents, "events", set("events", json!({}))),
        (Rule::LogoutTokenEvents, "events", set("events", json!([EVENT]))),
        (Rule::LogoutTokenEvents, "events", set("events", json!({ EVENT: null }))),
        (Rule::LogoutTokenEvents, "events", set("events", json!({ EVENT: true }))),
        (
            Rule::LogoutTokenEvents,
            "events",
            set("events", json!({ "https://schemas.openid.net/event/backchannel-logout": {} })),
        ),
        (Rule::LogoutTokenSubject, "sub", Box::new(|claims| claims.retain(|name, _| name != "sub" && name != "sid"))),
        (Rule::LogoutTokenSubject, "sub", set("sub", json!(""))),
        (Rule::LogoutTokenSubject, "sub", set("sub", json!(7))),
        (Rule::LogoutTokenSubject, "sub", set("sub", long.clone())),
        (Rule::LogoutTokenSubject, "sid", set("sid", json!(""))),
        (Rule::LogoutTokenSubject, "sid", set("sid", json!(["a"]))),
        (Rule::LogoutTokenSubject, "sid", set("sid", long.clone())),
        (Rule::LogoutTokenId, "jti", without("jti")),
        (Rule::LogoutTokenId, "jti", set("jti", json!(null))),
        (Rule::LogoutTokenId, "jti", set("jti", json!(""))),
        (Rule::LogoutTokenId, "jti", set("jti", json!(7))),
        (Rule::LogoutTokenId, "jti", set("jti", long)),
        (Rule::LogoutTokenIssuedAt, "iat", without("iat")),
        (Rule::LogoutTokenIssuedAt, "iat", set("iat", json!(null))),
        (Rule::LogoutTokenIssuedAt, "iat", set("iat", json!(now.to_string()))),
        (Rule::LogoutTokenIssuedAt, "iat", set("iat", json!(now + 61))),
        (Rule::LogoutTokenIssuedAt, "iat", set("iat", json!(now - day - 61))),
        (Rule::LogoutTokenIssuedAt, "nbf", set("nbf", json!(now + 61))),
        (Rule::LogoutTokenIssuedAt, "nbf", set("nbf", json!("now"))),
        (Rule::LogoutTokenExpired, "exp", without("exp")),
        (Rule::LogoutTokenExpired, "exp", set("exp", json!(null))),
        (Rule::LogoutTokenExpired, "exp", set("exp", json!("never"))),
        (Rule::LogoutTokenExpired, "exp", set("exp", json!(now - 60))),
        (Rule::LogoutTokenExpired, "exp", set("exp", json!(now + day + 61))),
        (Rule::LogoutTokenExpired, "exp", set("exp", json!(1e300))),
        (Rule::LogoutTokenExpired, "exp", set("exp", json!(-1))),
    ];
    for (rule, claim, edit) in refused {
        let token = process.forged_logout_token(IdTokenForgery::claims(edit));
        let shown = claims_of(&token);
        assert_eq!(broken(world.client.logout_token(&token).await), (rule, Some(claim)), "{shown}");
    }
}

#[tokio::test]
async fn times_count_to_the_second_and_no_claim_is_ambiguous() {
    let (world, _, process) = signed_in().await;
    let (now, day) = (now(&world), 86_400);
    for (name, value) in [("iat", now + 60), ("iat", now - day - 60), ("exp", now - 59), ("exp", now + day + 60)] {
        let token = process.forged_logout_token(IdTokenForgery::claims(set(name, json!(value))));
        assert!(world.client.logout_token(&token).await.is_ok(), "{name}");
    }
    let repeated = IdTokenForgery::claims_text(|claims| claims.insert_str(1, r#""sub":"somebody else","#));
    let token = process.forged_logout_token(repeated);
    assert_eq!(broken(world.client.logout_token(&token).await), (Rule::RepeatedMember, Some("sub")));
}

#[tokio::test]
async fn other_jwts_of_the_op_are_refused_as_logout_tokens() {
    let (world, user, process) = signed_in().await;
    let id_token = user.id_token().token().expose();
    assert_eq!(broken(world.client.logout_token(id_token).await).0, Rule::LogoutTokenNonce);
    for kind in ["at+jwt", "dpop+jwt", "oauth-authz-req+jwt", "secevent+jwt", "logout", "jwt+logout"] {
        let token = process.forged_logout_token(IdTokenForgery::header(set("typ", json!(kind))));
        assert_eq!(broken(world.client.logout_token(&token).await), (Rule::LogoutTokenHeader, Some("typ")), "{kind}");
    }
    let critical = process.forged_logout_token(IdTokenForgery::header(set("crit", json!(["exp"]))));
    assert_eq!(broken(world.client.logout_token(&critical).await), (Rule::LogoutTokenHeader, Some("crit")));
    for text in ["", "a", "a.b", "a.b.c", "e30.e30.", &"x".repeat(300_000)] {
        assert_eq!(broken(world.client.logout_token(text).await).0, Rule::LogoutTokenMalformed);
    }
}

#[tokio::test]
async fn a_token_that_the_op_did_not_sign_is_refused() {
    let (world, _, process) = signed_in().await;
    for (forgery, rule) in [
        (IdTokenForgery::algorithm_none(), Rule::LogoutTokenAlgorithm),
        (IdTokenForgery::hmac_with_public_key(), Rule::LogoutTokenAlgorithm),
        (IdTokenForgery::foreign_key(), Rule::LogoutTokenSignature),
        (IdTokenForgery::broken_signature(), Rule::LogoutTokenSignature),
        (IdTokenForgery::header(set("kid", json!("unknown"))), Rule::LogoutTokenNoKey),
    ] {
        let token = process.forged_logout_token(forgery);
        assert_eq!(broken(world.client.logout_token(&token).await).0, rule);
        // Only a few fetches in a row are made for what anybody can send.
        world.clock.sleep(DAY).await;
    }
}

#[tokio::test]
async fn only_a_token_for_this_client_causes_a_fetch() {
    let (world, _, process) = signed_in().await;
    let fetches = || world.op.requests_to(Endpoint::Keys).len() + world.op.requests_to(Endpoint::Metadata).len();
    let before = fetches();
    let forged = process.forged_logout_token(IdTokenForgery::claims(set("aud", json!("other"))));
    let (message, _) = forged.rsplit_once('.').unwrap();
    assert_eq!(broken(world.client.logout_token(&format!("{message}.AAAA")).await).0, Rule::LogoutTokenAudience);
    assert_eq!(fetches(), before);
    let forged = process.forged_logout_token(IdTokenForgery::foreign_key());
    assert_eq!(broken(world.client.logout_token(&forged).await).0, Rule::LogoutTokenSignature);
    assert_eq!(fetches(), before + 1);
}

#[tokio::test]
async fn a_key_that_the_op_has_rotated_to_verifies_the_token() {
    let (world, _, process) = signed_in().await;
    for _ in 0..3 {
        world.op.replace_keys();
        world.client.logout_token(&process.logout_token()).await.unwrap();
        world.clock.sleep(DAY).await;
    }
    assert_eq!(world.op.requests_to(Endpoint::Keys).len(), 4);
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_a_transient_error() {
    let (world, _, process) = signed_in().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let error = world.client.logout_token(&process.logout_token()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.rule(), Some(Rule::KeysUnavailable));
    world.op.behave();
    world.clock.sleep(seconds(60)).await;
    world.client.logout_token(&process.logout_token()).await.unwrap();
}

#[tokio::test]
async fn the_algorithm_is_that_of_id_tokens() {
    // Registered, so every other one is refused, also if the OP lists it.
    let pinned = |client: ClientBuilder| {
        client.algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
    };
    let (world, _, process) = signed_in_with(registered(), pinned).await;
    world.client.logout_token(&process.logout_token()).await.unwrap();
    world.op.register(registered().signing_algorithm("PS256"));
    assert_eq!(broken(world.client.logout_token(&process.logout_token()).await).0, Rule::LogoutTokenAlgorithm);

    // The OP may start to use another one.
    let (world, _, process) = signed_in().await;
    world.op.register(registered().signing_algorithm("PS256"));
    world.client.logout_token(&process.logout_token()).await.unwrap();

    // An HMAC counts if it is registered.
    let secret = "a secret of the client that is long enough for it";
    let at_op = TestClient::secret_basic(CLIENT_ID, secret).redirect_uri(REDIRECT_URI).backchannel_logout_uri(URI);
    let with_secret = |client: ClientBuilder| {
        client.authentication(openid_deferred::ClientAuthentication::client_secret_basic(secret))
    };
    let (world, _, process) = signed_in_with(at_op.signing_algorithm("HS256"), |client| {
        with_secret(client).algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Hs256))
    })
    .await;
    world.client.logout_token(&process.logout_token()).await.unwrap();
    let forged = process.forged_logout_token(IdTokenForgery::foreign_key());
    assert_eq!(broken(world.client.logout_token(&forged).await).0, Rule::LogoutTokenSignature);
}

#[tokio::test]
async fn a_token_is_encrypted_if_id_tokens_are() {
    const ALG: KeyManagementAlgorithm = KeyManagementAlgorithm::EcdhEsA256Kw;
    let key = DecryptionKey::generate(ALG).unwrap();
    let jwks = json!({ "keys": [key.public_jwk()] });
    let at_op = registered().jwks(&jwks).encrypted_id_token(ALG.as_str(), "A256GCM");
    let (world, user, process) = signed_in_with(at_op, |client| {
        client.decryption_key(key).algorithms(ClientAlgorithms::new().id_token_encrypted_response(ALG))
    })
    .await;
    let sent = process.logout_token();
    assert_eq!(sent.split('.').count(), 5);
    let token = world.client.logout_token(&sent).await.unwrap();
    assert_eq!(token.sid(), user.claims().sid());
    // Without encryption it is refused, and what is encrypted must be signed.
    world.op.register(registered());
    assert_eq!(broken(world.client.logout_token(&process.logout_token()).await).0, Rule::NotEncrypted);
    world.op.register(registered().jwks(&jwks).encrypted_id_token(ALG.as_str(), "A256GCM"));
    let unsigned = process.forged_logout_token(IdTokenForgery::algorithm_none());
    assert_eq!(broken(world.client.logout_token(&unsigned).await).0, Rule::LogoutTokenAlgorithm);
}

#[tokio::test]
async fn a_trusted_audience_may_be_named_too() {
    let (world, _, process) =
        signed_in_with(registered(), |client| client.trusted_audiences(["https://api.test"])).await;
    let both = IdTokenForgery::claims(set("aud", json!(["https://api.test", CLIENT_ID])));
    world.client.logout_token(&process.forged_logout_token(both)).await.unwrap();
    let without_us = IdTokenForgery::claims(set("aud", json!(["https://api.test"])));
    let token = process.forged_logout_token(without_us);
    assert_eq!(broken(world.client.logout_token(&token).await).0, Rule::LogoutTokenAudience);
}
