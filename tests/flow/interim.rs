//! DTR §Interim ID Tokens.

use std::sync::{Arc, Mutex};

use openid_deferred::encryption::{DecryptionKey, KeyManagementAlgorithm};
use openid_deferred::error::{Document, Rule};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, IdTokenForgery, InterimToken, TestClient};
use openid_deferred::{Authentication, Clock as _, InterimState, Outcome, PendingAuthentication, SignIn};
use serde_json::{Value, json};

use crate::id_token::{claim, moved, without};
use crate::keys::without_keys;
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, DAY, HOUR, REDIRECT_URI, World, broken_rule, keyring, reopened, world, world_with,
};

#[tokio::test]
async fn an_interim_token_that_is_not_a_string_is_rejected_and_the_sign_in_continues() {
    let world = world().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.insert("interim_id_token".into(), serde_json::json!({ "sub": "user-1" }));
    }));
    let pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::Rejected(_)), "{:?}", pending.interim());
}

#[tokio::test]
async fn an_exchange_without_interim_token_is_absent() {
    let world = world_with(|op| op.interim_token(InterimToken::Absent), |client| client).await;
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::Absent));
    assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
}

#[tokio::test]
async fn an_interim_token_is_verified_under_either_name() {
    for (interim, member) in [
        (InterimToken::IdToken, "id_token"),
        (InterimToken::InterimIdToken, "interim_id_token"),
        (InterimToken::Both, "interim_id_token"),
    ] {
        let world = world_with(|op| op.interim_token(interim).interim_claim("given_name", "Jane"), |c| c).await;
        let pending = world.pending().await;
        let verified = pending.interim().verified().expect("it is verified");
        assert_eq!((verified.member(), verified.claims().given_name()), (member, Some("Jane")));
    }
}

#[tokio::test]
async fn an_interim_token_may_lack_acr_auth_time_and_at_hash_that_the_final_one_needs() {
    let world = world().await;
    let forgery = IdTokenForgery::claims(|claims| claims.retain(|name, _| name != "acr" && name != "auth_time"));
    world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
    let essential = json!({ "id_token": { "acr": { "essential": true, "value": "loa3" } } });
    let (url, session) = world.client.authorize().max_age(HOUR).claims(essential).start().await.unwrap();
    let query = world.op.visit(url).query();
    let Ok(SignIn::Deferred(mut pending)) = world.client.authorization_response(&query, session).await else {
        panic!("not deferred")
    };
    assert!(pending.interim().verified().is_some(), "{:?}", pending.interim());
    assert_eq!(broken_rule(&world.wait(&mut pending).await), None);
}

#[tokio::test]
async fn an_invalid_interim_token_is_rejected_and_the_sign_in_continues() {
    for (forgery, rule) in [
        (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
        (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
        (without("nonce"), Rule::IdTokenNonce),
        (claim("iss", json!("https://evil.test")), Rule::IdTokenIssuer),
        (claim("aud", json!("another-app")), Rule::IdTokenAudience),
        (moved("exp", -700), Rule::IdTokenExpired),
        (IdTokenForgery::raw("junk"), Rule::IdTokenMalformed),
    ] {
        let world = world().await;
        world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
        let mut pending = world.pending().await;
        assert!(matches!(pending.interim(), InterimState::Rejected(broken) if *broken == rule), "{rule:?}");
        assert_eq!(broken_rule(&world.wait(&mut pending).await), None, "{rule:?}");
    }
}

#[tokio::test]
async fn an_interim_token_may_expire_before_the_final_one_arrives() {
    let world = world_with(|op| op.interval(HOUR).decisions(DecisionPolicy::after(DAY * 20)), |client| client).await;
    assert_eq!(broken_rule(&world.outcome().await), None);
}

#[tokio::test]
async fn an_interim_token_is_verified_later_if_the_keys_are_unavailable() {
    let world = without_keys().await;
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    let error = world.client.verify_interim(&mut pending).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    world.op.behave();
    // Its ten minutes are over by then. The time of its arrival counts.
    world.clock.sleep(HOUR).await;
    world.client.verify_interim(&mut pending).await.unwrap();
    assert_eq!(pending.interim().verified().unwrap().claims().subject(), "user-1");
}

#[tokio::test]
async fn a_final_token_about_another_subject_than_the_interim_one_is_refused() {
    let world = world().await;
    let mut pending = world.pending().await;
    world.op.last_process().change_subject("user-2");
    let outcome = world.wait(&mut pending).await;
    assert_eq!(broken_rule(&outcome), Some(Rule::SubjectChanged));
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_final_token_about_another_subject_is_refused_if_the_interim_one_was_verified_late() {
    let world = without_keys().await;
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
    world.op.behave();
    let process = world.op.last_process();
    process.change_subject("user-2");
    process.approve();
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::SubjectChanged));
}

#[tokio::test]
async fn a_changed_subject_is_accepted_if_the_client_allows_it() {
    let world = world_with(|op| op, |client| client.allow_changed_subject()).await;
    let mut pending = world.pending().await;
    world.op.last_process().change_subject("user-2");
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert_eq!(authentication.claims().subject(), "user-2");
}

#[tokio::test]
async fn a_rejected_interim_token_is_not_compared_with_the_final_one() {
    let world = world().await;
    let forgery = IdTokenForgery::claims(|claims| {
        claims.insert("sub".into(), json!("user-2"));
        claims.insert("aud".into(), json!("another-app"));
    });
    world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
    assert_eq!(broken_rule(&world.outcome().await), None);
}

// The interim token as the final one.

/// The interim ID Token of the latest exchange, as it came.
fn interim_token(world: &World) -> String {
    let response = world.op.requests_to(Endpoint::Exchange).last().expect("there was an exchange").response_json();
    ["id_token", "interim_id_token"].iter().find_map(|name| response[name].as_str()).expect("it has one").to_owned()
}

/// The OP's next final response contains this as the ID Token.
fn final_token(world: &World, token: String) {
    world.op.misbehave(
        Fault::edit_json(Endpoint::Poll, move |members| {
            members.insert("id_token".into(), json!(token));
        })
        .after_success(),
    );
}

#[tokio::test]
async fn the_interim_token_is_refused_as_the_final_one_and_its_tokens_are_revoked() {
    let world = world().await;
    let mut pending = world.pending().await;
    assert!(pending.interim().verified().is_some());
    final_token(&world, interim_token(&world));
    let Outcome::Invalid(violation) = world.wait(&mut pending).await else { panic!("it is accepted") };
    assert_eq!((violation.rule(), violation.document()), (Rule::InterimIdTokenAsFinal, Some(Document::IdToken)));
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_interim_token_is_recognised_after_a_restart_in_every_state() {
    let unverifiable = without_keys().await;
    let rejected = world().await;
    rejected.op.misbehave(Fault::id_token(Endpoint::Exchange, claim("aud", json!("another-app"))));
    for world in [world().await, unverifiable, rejected] {
        let pending = world.pending().await;
        world.op.behave();
        final_token(&world, interim_token(&world));
        world.op.last_process().approve();
        let mut pending = reopened(pending, &keyring());
        assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::InterimIdTokenAsFinal));
    }
}

#[tokio::test]
async fn a_final_token_with_the_jti_of_the_interim_one_is_refused() {
    for (interim, last, accepted) in [
        (json!("one"), json!("one"), false),
        (json!(7), json!(7), false),
        (json!("one"), json!("two"), true),
        (json!("one"), Value::Null, true),
        (Value::Null, json!("one"), true),
        // Values that do not identify a token.
        (json!(""), json!(""), true),
        (json!({}), json!({}), true),
    ] {
        let world = world().await;
        world.op.misbehave(Fault::id_token(Endpoint::Exchange, claim("jti", interim.clone())));
        world.op.misbehave(Fault::id_token(Endpoint::Poll, claim("jti", last.clone())));
        let expected = (!accepted).then_some(Rule::InterimIdTokenAsFinal);
        assert_eq!(broken_rule(&world.outcome().await), expected, "{interim} {last}");
    }
}

#[tokio::test]
async fn the_jti_of_a_rejected_interim_token_is_refused_in_the_final_one() {
    let world = world().await;
    let forgery = IdTokenForgery::claims(|claims| {
        claims.insert("jti".into(), json!("one"));
        claims.insert("aud".into(), json!("another-app"));
    });
    world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
    world.op.misbehave(Fault::id_token(Endpoint::Poll, claim("jti", json!("one"))));
    assert_eq!(broken_rule(&world.outcome().await), Some(Rule::InterimIdTokenAsFinal));
}

#[tokio::test]
async fn an_encrypted_interim_token_is_recognised_encrypted_and_decrypted() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let registered = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI);
    let registered = registered.jwks(&json!({ "keys": [key.public_jwk()] }));
    let encrypting = registered.clone().encrypted_id_token("ECDH-ES", "A256GCM");

    // As it came, before this client could decrypt it.
    let world = world_with(|op| op.client(encrypting.clone()), |client| client).await;
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable), "{:?}", pending.interim());
    final_token(&world, interim_token(&world));
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::InterimIdTokenAsFinal));

    // The signed token arrived unencrypted the first time, and encrypted the second time.
    let world = world_with(|op| op.client(registered), |client| client.decryption_key(key.clone())).await;
    let mut pending = world.pending().await;
    world.op.register(encrypting.clone());
    world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::raw(&interim_token(&world))));
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::InterimIdTokenAsFinal));

    // The inner token can be read only when the final token has arrived.
    let world = world_with(|op| op.client(encrypting), |client| client).await;
    world.op.misbehave(Fault::id_token(Endpoint::Token, claim("jti", json!("one"))).always());
    let mut pending = world.pending().await;
    assert!(matches!(pending.interim(), InterimState::NotYetVerifiable), "{:?}", pending.interim());
    world.client.replace_decryption_keys([key]).unwrap();
    assert_eq!(broken_rule(&world.wait(&mut pending).await), Some(Rule::InterimIdTokenAsFinal));
}

/// The OP's next exchange delivers the interim ID Token in another encoding. Returns the token as it was signed.
async fn misspelled(world: &World, spell: fn(&str) -> String) -> (PendingAuthentication, String) {
    let signed: Arc<Mutex<Option<String>>> = Arc::default();
    let kept = signed.clone();
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, move |members| {
        let token = members["interim_id_token"].as_str().expect("it has one").to_owned();
        members.insert("interim_id_token".into(), json!(spell(&token)));
        *kept.lock().unwrap() = Some(token);
    }));
    let pending = world.pending().await;
    let signed = signed.lock().unwrap().take().expect("the exchange was edited");
    (pending, signed)
}

#[tokio::test]
async fn the_interim_token_is_recognised_in_another_encoding() {
    let spellings: [fn(&str) -> String; 8] = [
        |token| format!(" {token}"),
        |token| format!("\n{token}\r\n"),
        |token| token.replace('.', " . "),
        |token| token.replace('.', "=."),
        |token| token.replace('-', "+").replace('_', "/") + "==",
        |token| format!("{token}."),
        |token| format!("{token}.{token}"),
        |token| token.rsplit_once('.').unwrap().0.to_owned(),
    ];
    for (number, spell) in spellings.into_iter().enumerate() {
        let world = world().await;
        let (pending, signed) = misspelled(&world, spell).await;
        final_token(&world, signed);
        let mut pending = reopened(pending, &keyring());
        let outcome = world.wait(&mut pending).await;
        assert_eq!(broken_rule(&outcome), Some(Rule::InterimIdTokenAsFinal), "spelling {number}");
    }
}

#[tokio::test]
async fn the_jti_of_an_interim_token_is_recognised_in_another_encoding_of_the_token() {
    let world = world().await;
    world.op.misbehave(Fault::id_token(Endpoint::Token, claim("jti", json!("one"))).always());
    let (mut pending, _) = misspelled(&world, |token| format!("\t{token}")).await;
    let Outcome::Invalid(violation) = world.wait(&mut pending).await else { panic!("it is accepted") };
    assert_eq!((violation.rule(), violation.member()), (Rule::InterimIdTokenAsFinal, Some("jti")));
}

#[tokio::test]
async fn the_interim_token_in_a_refresh_is_refused_and_its_tokens_are_revoked() {
    for jti_only in [false, true] {
        let world = world_with(|op| op.interim_claim("email", "unverified@example.com"), |client| client).await;
        world.op.misbehave(Fault::id_token(Endpoint::Exchange, claim("jti", json!("one"))));
        let authentication = world.approved().await;
        let interim = interim_token(&world);
        let keyring = keyring();
        let mut authentication = Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap();
        world.op.misbehave(match jti_only {
            true => Fault::id_token(Endpoint::Refresh, claim("jti", json!("one"))),
            false => Fault::edit_json(Endpoint::Refresh, move |members| {
                members.insert("id_token".into(), json!(interim));
            }),
        });
        let error = world.client.refresh(&mut authentication).await.unwrap_err();
        assert_eq!((error.rule(), error.is_transient()), (Some(Rule::InterimIdTokenAsFinal), false));
        assert!(authentication.refreshed_id_token().is_none());
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    }
}

// Members of the exchange response that are not an interim ID Token.

/// Adds a member in front of the others in the exchange response.
fn preceded(world: &World, member: &'static str) {
    world.op.misbehave(Fault::edit_body(Endpoint::Exchange, move |body| body.insert_str(1, &format!("{member},"))));
}

#[tokio::test]
async fn an_empty_member_beside_the_interim_token_counts_as_absent() {
    for (interim, other) in [(InterimToken::InterimIdToken, "id_token"), (InterimToken::IdToken, "interim_id_token")] {
        for value in [r#""""#, "null", "false", "0", "[]", "{}"] {
            let world = world_with(|op| op.interim_token(interim), |client| client).await;
            let member = format!(r#""{other}":{value},"#);
            world.op.misbehave(Fault::edit_body(Endpoint::Exchange, move |body| body.insert_str(1, &member)));
            let mut pending = world.pending().await;
            assert!(pending.interim().verified().is_some(), "{other} {value}: {:?}", pending.interim());
            assert_eq!(broken_rule(&world.wait(&mut pending).await), None, "{other} {value}");
        }
    }
}

#[tokio::test]
async fn contradictory_interim_tokens_are_rejected_and_the_sign_in_continues() {
    for (member, rule) in
        [(r#""id_token":"x.y.z""#, Rule::TwoInterimIdTokens), (r#""interim_id_token":"x.y.z""#, Rule::RepeatedMember)]
    {
        let world = world().await;
        preceded(&world, member);
        let mut pending = world.pending().await;
        assert!(matches!(pending.interim(), InterimState::Rejected(broken) if *broken == rule), "{rule:?}");
        world.client.verify_interim(&mut pending).await.unwrap();
        assert_eq!(broken_rule(&world.wait(&mut pending).await), None, "{rule:?}");
    }
}

#[tokio::test]
async fn each_of_two_interim_tokens_is_refused_as_the_final_one() {
    for name in ["id_token", "interim_id_token"] {
        for is_first in [true, false] {
            let world = world().await;
            let kept: Arc<Mutex<Option<String>>> = Arc::default();
            let signed = kept.clone();
            world.op.misbehave(Fault::edit_body(Endpoint::Exchange, move |body| {
                let members: Value = serde_json::from_str(body).unwrap();
                *signed.lock().unwrap() = members["interim_id_token"].as_str().map(str::to_owned);
                match is_first {
                    true => body.insert_str(body.len() - 1, &format!(r#","{name}":"x.y.z""#)),
                    false => body.insert_str(1, &format!(r#""{name}":"x.y.z","#)),
                }
            }));
            let mut pending = world.pending().await;
            final_token(&world, kept.lock().unwrap().take().unwrap());
            let outcome = world.wait(&mut pending).await;
            assert_eq!(broken_rule(&outcome), Some(Rule::InterimIdTokenAsFinal), "{name} {is_first}");
        }
    }
}
