//! DTR §Authentication Request and §Authentication Request Acknowledgment Validation.

use std::time::Duration;

use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, TestClient};
use openid_deferred::{
    AuthorizationRequest, AuthorizationSession, ConfigurationProblem, Error, ErrorKind, Keyring, Misuse, ResponseMode,
    ResponseType, Rule, SealingKey, SessionProblem, SignIn,
};
use serde_json::json;
use url::Url;

use crate::steps::parameters;
use crate::support::{CLIENT_ID, REDIRECT_URI, World, client_of, world, world_with};

async fn started(request: AuthorizationRequest<'_>) -> (Url, AuthorizationSession) {
    request.start().await.expect("the request can be made")
}

/// What the client says to a response that was changed on its way; nothing may have been sent.
async fn refusal(world: &World, edit: impl Fn(&mut Vec<(String, String)>) + Send + Sync + 'static) -> Error {
    world.op.misbehave(Fault::authorization_response(edit));
    let error = world.sign_in().await.expect_err("such a response is refused");
    world.assert_nothing_sent();
    error
}

fn replace(parameters: &mut Vec<(String, String)>, name: &str, value: &str) {
    remove(parameters, name);
    parameters.push((name.to_owned(), value.to_owned()));
}

fn remove(parameters: &mut Vec<(String, String)>, name: &str) {
    parameters.retain(|(existing, _)| existing != name);
}

mod request {
    use super::*;

    #[tokio::test]
    async fn the_request_has_exactly_what_the_flow_needs() {
        let world = world().await;
        let (url, session) = started(world.client.authorize()).await;
        let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        let expected = [
            "response_type",
            "client_id",
            "redirect_uri",
            "scope",
            "state",
            "nonce",
            "code_challenge",
            "code_challenge_method",
            "dpop_jkt",
        ];
        assert_eq!(names, expected);
        assert_eq!(parameters(&url, "response_type"), ["deferred_code"]);
        assert_eq!(parameters(&url, "client_id"), [CLIENT_ID]);
        assert_eq!(parameters(&url, "redirect_uri"), [REDIRECT_URI]);
        assert_eq!(parameters(&url, "scope"), ["openid"]);
        assert_eq!(parameters(&url, "state"), [session.state().expose()]);
        assert_eq!(parameters(&url, "code_challenge_method"), ["S256"]);
    }

    #[tokio::test]
    async fn nothing_secret_repeats_from_one_request_to_the_next() {
        let world = world().await;
        let (one, _) = started(world.client.authorize()).await;
        let (other, _) = started(world.client.authorize()).await;
        for name in ["state", "nonce", "code_challenge", "dpop_jkt"] {
            assert_ne!(parameters(&one, name), parameters(&other, name), "{name}");
        }
    }

    #[tokio::test]
    async fn deferred_code_code_asks_for_the_query_by_name() {
        let world = world().await;
        let (url, _) = started(world.client.authorize().response_type(ResponseType::DeferredCodeOrCode)).await;
        assert_eq!(parameters(&url, "response_type"), ["deferred_code code"]);
        assert_eq!(parameters(&url, "response_mode"), ["query"]);
    }

    #[tokio::test]
    async fn every_parameter_arrives_as_it_was_given() {
        let world = world().await;
        let claims = json!({ "id_token": { "acr": { "essential": true, "values": ["urn:high", "urn:low"] } } });
        let details = json!([{ "type": "payment", "amount": "100 € & more" }]);
        let request = world
            .client
            .authorize()
            .scopes(["profile", "email", "profile", "openid"])
            .max_age(Duration::from_millis(90_999))
            .acr_values(["urn:high", "urn:low"])
            .prompt(["login", "consent"])
            .login_hint("jané+doe@example.com & co")
            .ui_locales(["de-CH", "fr"])
            .claims(claims.clone())
            .authorization_details(details.clone())
            .parameter("tenant hint", "a=b&c");
        let (url, _) = started(request).await;
        let _ = world.op.visit(&url);
        let process = world.op.last_process();
        let arrived = |name: &str| process.authorization_parameter(name).unwrap_or_default();
        assert_eq!(arrived("scope"), "openid profile email");
        assert_eq!(arrived("max_age"), "90");
        assert_eq!(arrived("acr_values"), "urn:high urn:low");
        assert_eq!(arrived("prompt"), "login consent");
        assert_eq!(arrived("login_hint"), "jané+doe@example.com & co");
        assert_eq!(arrived("ui_locales"), "de-CH fr");
        assert_eq!(arrived("claims"), claims.to_string());
        assert_eq!(arrived("authorization_details"), details.to_string());
        assert_eq!(arrived("tenant hint"), "a=b&c");
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn several_resources_are_several_parameters() {
        let world = world().await;
        let request = world.client.authorize().resource("https://a.example/").resource("https://b.example/?x=1");
        let (url, _) = started(request).await;
        assert_eq!(parameters(&url, "resource"), ["https://a.example/", "https://b.example/?x=1"]);
        let _ = world.op.visit(&url);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_parameter_that_is_set_twice_is_sent_once() {
        let world = world().await;
        let request =
            world.client.authorize().login_hint("jane").login_hint("john").prompt(["login"]).prompt(["create"]);
        let (url, _) = started(request).await;
        assert_eq!(parameters(&url, "login_hint"), ["john"]);
        assert_eq!(parameters(&url, "prompt"), ["create"]);
    }

    #[tokio::test]
    async fn a_parameter_of_the_flow_cannot_be_given_as_an_extra() {
        let world = world().await;
        for name in [
            "response_type",
            "client_id",
            "redirect_uri",
            "scope",
            "state",
            "nonce",
            "code_challenge",
            "code_challenge_method",
            "dpop_jkt",
            "response_mode",
            "max_age",
            "acr_values",
            "prompt",
            "login_hint",
            "ui_locales",
            "claims",
            "authorization_details",
            "resource",
            "request",
            "request_uri",
        ] {
            let error = world.client.authorize().parameter(name, "x").start().await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::ReservedParameter(name.to_owned())));
        }
    }

    #[tokio::test]
    async fn an_authorization_endpoint_with_a_query_keeps_it() {
        let world = world_with(
            |op| {
                op.metadata(|members| {
                    members.insert("authorization_endpoint".into(), json!("https://op.test/authorize?tenant=7"));
                })
            },
            |client| client,
        )
        .await;
        let (url, _) = started(world.client.authorize()).await;
        assert_eq!(parameters(&url, "tenant"), ["7"]);
        assert_eq!(parameters(&url, "client_id"), [CLIENT_ID]);
    }

    #[tokio::test]
    async fn a_request_can_return_to_another_registered_uri() {
        const OTHER: &str = "https://rp.test/other?x=1";
        let world = world().await;
        world.op.register(TestClient::secret_basic(CLIENT_ID, crate::support::CLIENT_SECRET).redirect_uri(OTHER));
        let (url, session) = started(world.client.authorize().redirect_uri(OTHER)).await;
        let response = world.op.visit(url);
        assert_eq!((response.redirect_uri(), session.redirect_uri()), (OTHER, OTHER));
        let signed_in = world.client.authorization_response(&response.query(), session).await.unwrap();
        assert!(matches!(signed_in, SignIn::Deferred(_)));
        assert_eq!(world.exchanges()[0].parameter("redirect_uri"), Some(OTHER));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_redirect_uri_that_cannot_be_registered_is_refused() {
        let world = world().await;
        for uri in ["/callback", "https://rp.test/callback#fragment", ""] {
            let error = world.client.authorize().redirect_uri(uri).start().await.unwrap_err();
            let ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) = error.kind() else {
                panic!("{error:?}")
            };
            assert_eq!(*setting, "redirect_uri");
        }
    }

    #[tokio::test]
    async fn the_thumbprint_in_the_request_is_the_key_of_every_proof() {
        let world = world().await;
        let pending = world.pending().await;
        let process = world.op.last_process();
        let announced = process.authorization_parameter("dpop_jkt");
        assert!(announced.is_some());
        assert_eq!(announced, process.dpop_key());
        assert_eq!(announced.as_deref(), pending.dpop_key().map(|key| key.thumbprint()));
        world.op.assert_clean();
    }
}

mod response {
    use super::*;

    #[tokio::test]
    async fn a_response_without_state_is_refused() {
        let error = refusal(&world().await, |response| remove(response, "state")).await;
        assert_eq!(error.rule(), Some(Rule::StateMissing));
        assert!(Rule::StateMissing.is_forgery());
    }

    #[tokio::test]
    async fn a_response_with_another_state_is_refused() {
        let world = world().await;
        for state in ["", "another", "%00"] {
            let error = refusal(&world, move |response| replace(response, "state", state)).await;
            assert_eq!(error.rule(), Some(Rule::StateMismatch), "{state}");
        }
        assert!(Rule::StateMismatch.is_forgery());
    }

    #[tokio::test]
    async fn an_attackers_response_does_not_fit_the_session_of_the_victims_browser() {
        let world = world().await;
        let (attackers_response, _) = world.user_returns().await;
        let (_, victims_session) = world.user_returns().await;
        let error = world.client.authorization_response(&attackers_response, victims_session).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::StateMismatch));
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn a_response_of_another_issuer_is_refused() {
        let world = world().await;
        for issuer in ["https://evil.test", "https://op.test/", ""] {
            let error = refusal(&world, move |response| replace(response, "iss", issuer)).await;
            assert_eq!(error.rule(), Some(Rule::IssMismatch), "{issuer}");
        }
    }

    #[tokio::test]
    async fn iss_is_required_where_the_op_advertises_it() {
        let error = refusal(&world().await, |response| remove(response, "iss")).await;
        assert_eq!(error.rule(), Some(Rule::IssMissing));
    }

    #[tokio::test]
    async fn iss_may_be_missing_where_the_op_does_not_advertise_it() {
        let world = world_with(|op| op.without_iss(), |client| client).await;
        let _ = world.pending().await;
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_wrong_iss_is_refused_although_the_op_does_not_advertise_it() {
        let world = world_with(|op| op.without_iss(), |client| client).await;
        let error = refusal(&world, |response| replace(response, "iss", "https://evil.test")).await;
        assert_eq!(error.rule(), Some(Rule::IssMismatch));
    }

    #[tokio::test]
    async fn both_codes_together_are_refused_and_neither_is_exchanged() {
        let error = refusal(&world().await, |response| replace(response, "code", "abc")).await;
        assert_eq!(error.rule(), Some(Rule::BothCodes));
    }

    #[tokio::test]
    async fn both_codes_together_are_refused_even_where_either_was_asked_for() {
        let world = world().await;
        world.op.misbehave(Fault::authorization_response(|response| replace(response, "code", "abc")));
        let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
        let (url, session) = started(request).await;
        let query = world.op.visit(url).query();
        let error = world.client.authorization_response(&query, session).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::BothCodes));
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn a_response_with_neither_code_nor_error_is_refused() {
        let error = refusal(&world().await, |response| remove(response, "deferred_code")).await;
        assert_eq!(error.rule(), Some(Rule::NoCode));
    }

    #[tokio::test]
    async fn a_code_where_only_a_deferred_code_was_asked_for_is_refused() {
        let world = world().await;
        let error = refusal(&world, |response| {
            remove(response, "deferred_code");
            replace(response, "code", "abc");
        })
        .await;
        assert_eq!(error.rule(), Some(Rule::UnrequestedCode));
    }

    #[tokio::test]
    async fn tokens_in_the_response_are_refused() {
        let world = world().await;
        for name in ["id_token", "access_token"] {
            let error = refusal(&world, move |response| replace(response, name, "a.b.c")).await;
            assert_eq!(error.rule(), Some(Rule::UnrequestedToken), "{name}");
        }
    }

    #[tokio::test]
    async fn an_error_of_the_op_is_an_error_with_its_code() {
        let world = world().await;
        let (url, session) = started(world.client.authorize().prompt(["none"])).await;
        let query = world.op.visit(url).query();
        let error = world.client.authorization_response(&query, session).await.unwrap_err();
        let response = error.error_response().expect("the OP's error");
        assert_eq!((response.code(), response.status()), ("login_required", None));
        assert_eq!(response.description(), Some("the user is not signed in"));
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn an_error_with_a_foreign_state_is_a_forgery_and_not_the_ops_error() {
        let world = world().await;
        for state in [Some("another"), None] {
            let error = refusal(&world, move |response| {
                remove(response, "deferred_code");
                remove(response, "state");
                replace(response, "error", "access_denied");
                response.extend(state.map(|state| ("state".to_owned(), state.to_owned())));
            })
            .await;
            assert!(error.rule().is_some_and(Rule::is_forgery), "{error:?}");
            assert_eq!(error.error_response(), None);
        }
    }

    #[tokio::test]
    async fn an_error_of_another_issuer_is_a_forgery_and_not_the_ops_error() {
        let error = refusal(&world().await, |response| {
            remove(response, "deferred_code");
            replace(response, "error", "access_denied");
            replace(response, "iss", "https://evil.test");
        })
        .await;
        assert_eq!(error.rule(), Some(Rule::IssMismatch));
    }

    #[tokio::test]
    async fn an_error_together_with_a_code_is_refused() {
        let error = refusal(&world().await, |response| replace(response, "error", "server_error")).await;
        assert_eq!(error.rule(), Some(Rule::CodeAndError));
    }

    #[tokio::test]
    async fn what_an_error_says_is_bounded_and_cleaned() {
        let error = refusal(&world().await, |response| {
            remove(response, "deferred_code");
            replace(response, "error", &"e".repeat(4_000));
            replace(response, "error_description", &format!("no\u{202e}pe\n{}", "x".repeat(4_000)));
        })
        .await;
        let response = error.error_response().expect("the OP's error");
        assert!(response.code().len() <= 64);
        let description = response.description().expect("a description");
        assert!(description.chars().count() <= 1_000 && !description.contains(['\u{202e}', '\n']), "{description}");
    }

    #[tokio::test]
    async fn unknown_parameters_are_ignored() {
        let world = world().await;
        world.op.misbehave(Fault::authorization_response(|response| {
            response.push(("session_state".to_owned(), "x".to_owned()));
            response.push(("session_state".to_owned(), "y".to_owned()));
            response.push(("response".to_owned(), "a.b.c".to_owned()));
            response.insert(0, (String::new(), "\u{0}".to_owned()));
        }));
        let _ = world.pending().await;
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_parameter_that_stands_twice_is_refused() {
        let world = world().await;
        for name in ["state", "iss", "deferred_code", "error"] {
            let error = refusal(&world, move |response| {
                let (first, second) = ((name.to_owned(), "x".to_owned()), (name.to_owned(), "x".to_owned()));
                response.extend([first, second]);
            })
            .await;
            assert_eq!(error.rule(), Some(Rule::RepeatedParameter), "{name}");
        }
    }

    #[tokio::test]
    async fn a_forged_response_is_a_forgery_whatever_else_is_wrong_with_it() {
        let world = world().await;
        let error = refusal(&world, |response| {
            replace(response, "state", "forged");
            response.push(("deferred_code".to_owned(), "another".to_owned()));
        })
        .await;
        assert_eq!(error.rule(), Some(Rule::StateMismatch));
    }

    #[tokio::test]
    async fn codes_that_no_op_issues_are_refused() {
        let world = world().await;
        for code in [String::new(), "x".repeat(4 * 1024 + 1), "tab\there".to_owned(), "ümlaut".to_owned()] {
            let error = refusal(&world, move |response| replace(response, "deferred_code", &code)).await;
            assert_eq!(error.rule(), Some(Rule::InvalidCode));
        }
    }

    #[tokio::test]
    async fn an_oversized_response_is_refused() {
        let error = refusal(&world().await, |response| replace(response, "junk", &"x".repeat(64 * 1024))).await;
        assert_eq!(error.rule(), Some(Rule::OversizedResponse));
    }

    #[tokio::test]
    async fn a_code_is_opaque_and_goes_back_to_the_op_as_it_came() {
        const CODE: &str = "a+b/c==&d=%41 ~\"{}'";
        let world = world().await;
        world.op.misbehave(Fault::authorization_response(|response| replace(response, "deferred_code", CODE)));
        let error = world.sign_in().await.unwrap_err();
        assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_grant"));
        assert_eq!(world.exchanges()[0].parameter("deferred_code"), Some(CODE));
    }

    #[tokio::test]
    async fn the_query_may_come_with_its_question_mark() {
        let world = world().await;
        let (query, session) = world.user_returns().await;
        let grant = world.client.check_authorization_response(&format!("?{query}"), session).unwrap();
        assert!(grant.is_deferred() && !grant.is_spent());
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn junk_in_place_of_a_response_is_refused() {
        let world = world().await;
        for junk in ["", "?", "&&&===", "%zz=%", "\u{0}", "{\"state\":1}", "state", "state=&state="] {
            let (_, session) = world.user_returns().await;
            let error = world.client.check_authorization_response(junk, session).unwrap_err();
            assert!(error.rule().is_some(), "{junk}: {error:?}");
        }
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn form_post_brings_a_code() {
        let world = world().await;
        let (url, session) = started(world.client.authorize().response_mode(ResponseMode::FormPost)).await;
        assert_eq!(parameters(&url, "response_mode"), ["form_post"]);
        let form = world.op.visit(url).form();
        let signed_in = world.client.authorization_response(&form, session).await.unwrap();
        assert!(matches!(signed_in, SignIn::Deferred(_)));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn form_post_brings_an_error() {
        let world = world().await;
        let request = world.client.authorize().response_mode(ResponseMode::FormPost).prompt(["none"]);
        let (url, session) = started(request).await;
        let form = world.op.visit(url).form();
        let error = world.client.authorization_response(&form, session).await.unwrap_err();
        assert_eq!(error.error_response().map(|response| response.code()), Some("login_required"));
        world.assert_nothing_sent();
    }
}

/// `deferred_code code`: the OP chooses.
mod either_code {
    use super::*;

    async fn sign_in(world: &World) -> Result<SignIn, Error> {
        let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
        let (url, session) = started(request).await;
        world.client.authorization_response(&world.op.visit(url).query(), session).await
    }

    async fn answering_at_once() -> World {
        world_with(|op| op.answer_with_code(), |client| client).await
    }

    #[tokio::test]
    async fn a_code_signs_the_user_in_at_once() {
        let world = answering_at_once().await;
        let SignIn::Complete(authentication) = sign_in(&world).await.unwrap() else { panic!("not complete") };
        assert_eq!(authentication.claims().subject(), "user-1");
        assert!(authentication.is_sender_constrained());
        let request = &world.op.requests_to(Endpoint::Code)[0];
        assert_eq!(request.parameter("grant_type"), Some("authorization_code"));
        assert_eq!(request.parameter("redirect_uri"), Some(REDIRECT_URI));
        assert!(request.parameter("code_verifier").is_some());
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_deferred_code_defers() {
        let world = world().await;
        assert!(matches!(sign_in(&world).await.unwrap(), SignIn::Deferred(_)));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_code_brings_an_id_token_that_is_fully_validated() {
        let world = answering_at_once().await;
        let wrong = |name: &'static str, value: serde_json::Value| {
            IdTokenForgery::claims(move |claims| {
                claims.insert(name.into(), value.clone());
            })
        };
        for (forgery, rule) in [
            (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
            (IdTokenForgery::hmac_with_public_key(), Rule::IdTokenAlgorithm),
            (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
            (wrong("iss", json!("https://evil.test")), Rule::IdTokenIssuer),
            (wrong("aud", json!("another-app")), Rule::IdTokenAudience),
            (wrong("nonce", json!("another")), Rule::IdTokenNonce),
            (wrong("exp", json!(1)), Rule::IdTokenExpired),
            (wrong("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), Rule::IdTokenAccessTokenHash),
            (wrong("sub", json!("")), Rule::IdTokenSubject),
        ] {
            world.op.misbehave(Fault::id_token(Endpoint::Code, forgery));
            let error = sign_in(&world).await.unwrap_err();
            assert_eq!(error.rule(), Some(rule));
        }
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn tokens_that_came_with_an_invalid_id_token_are_revoked() {
        let world = answering_at_once().await;
        world.op.misbehave(Fault::id_token(Endpoint::Code, IdTokenForgery::broken_signature()));
        let error = sign_in(&world).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::IdTokenSignature));
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
        world.op.assert_clean();
    }
}

mod session {
    use super::*;

    /// Compiles only while none of these can be copied: each may be used once.
    #[expect(dead_code, reason = "the compiler is the test")]
    fn a_session_and_what_follows_from_it_are_used_once() {
        trait AmbiguousForClones<Marker> {
            fn check() {}
        }
        impl<T> AmbiguousForClones<()> for T {}
        impl<T: Clone> AmbiguousForClones<u8> for T {}
        <AuthorizationSession as AmbiguousForClones<_>>::check();
        <openid_deferred::AuthorizationGrant as AmbiguousForClones<_>>::check();
        <openid_deferred::PendingAuthentication as AmbiguousForClones<_>>::check();
    }

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_bytes(std::array::from_fn(|index| byte + index as u8)).expect("32 different bytes are a key")
    }

    #[tokio::test]
    async fn the_return_may_arrive_at_another_instance_with_a_rotated_keyring() {
        let world = world().await;
        let (url, session) = started(world.client.authorize()).await;
        let sealed = session.seal(&Keyring::new(key(1))).unwrap();
        drop(session);
        let response = world.op.visit(url);

        let another = client_of(&world.op, &world.clock).build().unwrap();
        let keyring = Keyring::new(key(100)).also_opens(key(1));
        let session = AuthorizationSession::open(&keyring, &sealed).unwrap();
        let signed_in = another.authorization_response(&response.query(), session).await.unwrap();
        let SignIn::Deferred(mut pending) = signed_in else { panic!("not deferred") };
        assert!(matches!(another.wait(&mut pending).await, Ok(openid_deferred::Outcome::Approved(_))));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_sealed_session_opens_unaltered_and_with_the_right_key_only() {
        let world = world().await;
        let (_, session) = started(world.client.authorize()).await;
        let sealed = session.seal(&Keyring::new(key(1))).unwrap();
        let mut altered = sealed.clone();
        altered.replace_range(60..61, if &sealed[60..61] == "A" { "B" } else { "A" });
        let longer = "A".repeat(100_000);
        let attempts =
            [(1, altered.as_str()), (100, &sealed), (1, &sealed[..sealed.len() / 2]), (1, ""), (1, "ü"), (1, &longer)];
        for (byte, sealed) in attempts {
            let error = AuthorizationSession::open(&Keyring::new(key(byte)), sealed).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Unreadable));
        }
    }

    #[tokio::test]
    async fn a_session_of_a_full_request_fits_a_cookie() {
        let redirect_uri = format!("https://rp.test/{}", "x".repeat(200));
        let world =
            world_with(|op| op.path(&format!("/{}", "tenant".repeat(20))), |client| client.redirect_uri(redirect_uri))
                .await;
        let acr =
            json!({ "essential": true, "values": ["urn:mace:incommon:iap:silver", "urn:mace:incommon:iap:gold"] });
        let request = world
            .client
            .authorize()
            .response_type(ResponseType::DeferredCodeOrCode)
            .scopes((0..50).map(|number| format!("scope-{number}")))
            .max_age(Duration::from_secs(3_600))
            .acr_values(["urn:mace:incommon:iap:silver"])
            .login_hint("jane".repeat(100))
            .authorization_details(json!([{ "type": "payment", "note": "x".repeat(1_000) }]))
            .claims(json!({ "id_token": { "acr": acr, "auth_time": { "essential": true } } }));
        let (_, session) = started(request).await;
        let sealed = session.seal(&Keyring::new(key(1))).unwrap();
        assert!(sealed.len() <= 2_000, "{} bytes", sealed.len());
        assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    }

    #[tokio::test]
    async fn a_session_fits_a_cookie_whatever_kind_of_dpop_key_the_op_wants() {
        for algorithm in ["ES256", "EdDSA", "PS256"] {
            let world = world_with(
                |op| {
                    op.metadata(move |members| {
                        members.insert("dpop_signing_alg_values_supported".into(), json!([algorithm]));
                    })
                },
                |client| client,
            )
            .await;
            let (url, session) = started(world.client.authorize()).await;
            let sealed = session.seal(&Keyring::new(key(1))).unwrap_or_else(|error| panic!("{algorithm}: {error}"));
            let session = AuthorizationSession::open(&Keyring::new(key(1)), &sealed).unwrap();
            let query = world.op.visit(url).query();
            assert!(matches!(world.client.authorization_response(&query, session).await, Ok(SignIn::Deferred(_))));
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn a_session_that_does_not_fit_a_cookie_is_refused() {
        let world = world().await;
        let values: Vec<_> = (0..200).map(|number| format!("urn:class:{number}")).collect();
        let claims = json!({ "id_token": { "acr": { "essential": true, "values": values } } });
        let (_, session) = started(world.client.authorize().claims(claims)).await;
        let error = session.seal(&Keyring::new(key(1))).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Misuse(Misuse::SealedTooLarge { actual: 2_001.., limit: 2_000 })));
    }

    #[tokio::test]
    async fn the_response_names_the_cookie_of_its_session() {
        let world = world().await;
        let (url, session) = started(world.client.authorize()).await;
        let response = world.op.visit(url);
        let name = session.cookie_name();
        assert!(name.starts_with("__Host-"));
        assert!(!name.contains(session.state().expose()));
        assert_eq!(AuthorizationSession::cookie_name_for(&response.query()), Some(name.clone()));
        assert_eq!(AuthorizationSession::cookie_name_for(&format!("?{}", response.query())), Some(name.clone()));
        assert_eq!(AuthorizationSession::cookie_name_for("deferred_code=abc"), None);
        let (_, other) = started(world.client.authorize()).await;
        assert_ne!(other.cookie_name(), name);
    }

    #[tokio::test]
    async fn a_session_lives_for_an_hour_and_not_longer() {
        let world = world().await;
        let (query, session) = world.user_returns().await;
        world.clock.advance(Duration::from_secs(3_600));
        let _ = world.client.check_authorization_response(&query, session).unwrap();
        let (query, session) = world.user_returns().await;
        world.clock.advance(Duration::from_secs(3_601));
        let error = world.client.authorization_response(&query, session).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Expired));
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn the_lifetime_of_sessions_can_be_set() {
        let world = world_with(|op| op, |client| client.session_lifetime(Duration::from_secs(60))).await;
        let (query, session) = world.user_returns().await;
        world.clock.advance(Duration::from_secs(61));
        let error = world.client.authorization_response(&query, session).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Expired));
    }

    #[tokio::test]
    async fn a_session_of_another_client_is_refused() {
        let world = world().await;
        let (query, session) = world.user_returns().await;
        let another = openid_deferred::Client::builder(world.op.issuer(), "another-app")
            .redirect_uri(REDIRECT_URI)
            .http_client(world.op.http_client())
            .build()
            .unwrap();
        let error = another.authorization_response(&query, session).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Foreign));
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn a_session_of_another_op_is_refused() {
        let world = world().await;
        let (query, session) = world.user_returns().await;
        let another = openid_deferred::Client::builder("https://other.test", CLIENT_ID)
            .http_client(world.op.http_client())
            .build()
            .unwrap();
        let error = another.authorization_response(&query, session).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Foreign));
        world.assert_nothing_sent();
    }

    #[tokio::test]
    async fn a_grant_of_another_client_is_refused_and_stays_usable() {
        let world = world().await;
        let mut grant = world.grant().await;
        let another = openid_deferred::Client::builder("https://other.test", CLIENT_ID)
            .http_client(world.op.http_client())
            .build()
            .unwrap();
        let error = another.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::ForeignValue));
        world.assert_nothing_sent();
        assert!(world.client.exchange(&mut grant).await.is_ok());
    }
}
