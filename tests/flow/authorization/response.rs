//! DTR §Authentication Request Acknowledgment Validation, and forgeries.

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
    for state in ["another", "%00"] {
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
    for issuer in ["https://evil.test", "https://op.test/"] {
        let error = refusal(&world, move |response| replace(response, "iss", issuer)).await;
        assert_eq!(error.rule(), Some(Rule::IssMismatch), "{issuer}");
    }
}

#[tokio::test]
async fn iss_is_required_if_the_op_advertises_it() {
    let error = refusal(&world().await, |response| remove(response, "iss")).await;
    assert_eq!(error.rule(), Some(Rule::IssMissing));
}

#[tokio::test]
async fn iss_may_be_missing_if_the_op_does_not_advertise_it() {
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
async fn both_codes_together_are_refused_if_either_was_requested() {
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
async fn an_ordinary_code_is_refused_if_a_deferred_code_was_requested() {
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
async fn texts_of_an_error_are_bounded_and_cleaned() {
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
async fn a_repeated_parameter_is_refused() {
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
    for code in ["x".repeat(4 * 1024 + 1), "tab\there".to_owned(), "ümlaut".to_owned()] {
        let error = refusal(&world, move |response| replace(response, "deferred_code", &code)).await;
        assert_eq!(error.rule(), Some(Rule::InvalidCode));
    }
}

#[tokio::test]
async fn a_parameter_without_a_value_counts_as_omitted() {
    let world = world().await;
    for name in ["error", "error_description", "code", "id_token", "access_token", "state", "iss", "response"] {
        let (query, mut session) = world.user_returns().await;
        for query in [format!("{query}&{name}="), format!("{name}=&{query}&{name}")] {
            let checked = world.client.check_authorization_response(&query, &mut session).await;
            assert!(checked.is_ok_and(|grant| grant.is_deferred()), "{query}");
            assert_eq!(AuthorizationSession::cookie_name_for(&query), Some(session.cookie_name()), "{query}");
            session = reopened(&session);
        }
    }
    for (name, rule) in [("state", Rule::StateMissing), ("iss", Rule::IssMissing), ("deferred_code", Rule::NoCode)] {
        let error = refusal(&world, move |response| replace(response, name, "")).await;
        assert_eq!(error.rule(), Some(rule));
    }
}

#[tokio::test]
async fn an_empty_deferred_code_beside_a_code_counts_as_omitted() {
    let world = world_with(|op| op.answer_with_code(), |client| client).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let (url, mut session) = started(request).await;
    let query = format!("{}&deferred_code=", world.op.visit(url).query());
    let grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    assert!(!grant.is_deferred());
}

fn reopened(session: &AuthorizationSession) -> AuthorizationSession {
    let keyring = crate::support::keyring();
    AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap()
}

#[tokio::test]
async fn an_oversized_response_is_refused() {
    let error = refusal(&world().await, |response| replace(response, "junk", &"x".repeat(64 * 1024))).await;
    assert_eq!(error.rule(), Some(Rule::OversizedResponse));
}

#[tokio::test]
async fn a_code_is_opaque_and_is_sent_back_unchanged() {
    const CODE: &str = "a+b/c==&d=%41 ~\"{}'";
    let world = world().await;
    world.op.misbehave(Fault::authorization_response(|response| replace(response, "deferred_code", CODE)));
    let error = world.sign_in().await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_grant"));
    assert_eq!(world.exchanges()[0].parameter("deferred_code"), Some(CODE));
}

#[tokio::test]
async fn the_complete_url_is_accepted_instead_of_its_query() {
    let world = world().await;
    let (query, mut session) = world.user_returns().await;
    let url = format!("{REDIRECT_URI}?{query}#_=_");
    assert!(world.client.check_authorization_response(&url, &mut session).await.is_ok());
}

#[tokio::test]
async fn the_query_may_begin_with_a_question_mark() {
    let world = world().await;
    let (query, mut session) = world.user_returns().await;
    let grant = world.client.check_authorization_response(&format!("?{query}"), &mut session).await.unwrap();
    assert!(grant.is_deferred() && !grant.is_spent());
    world.assert_nothing_sent();
}

#[tokio::test]
async fn a_malformed_response_is_refused() {
    let world = world().await;
    for junk in ["", "?", "&&&===", "%zz=%", "\u{0}", "{\"state\":1}", "state", "state=&state="] {
        let (_, mut session) = world.user_returns().await;
        let error = world.client.check_authorization_response(junk, &mut session).await.unwrap_err();
        assert!(error.rule().is_some(), "{junk}: {error:?}");
    }
    world.assert_nothing_sent();
}

#[tokio::test]
async fn a_code_arrives_by_form_post() {
    let world = world().await;
    let (url, session) = started(world.client.authorize().response_mode(ResponseMode::FormPost)).await;
    assert_eq!(parameters(&url, "response_mode"), ["form_post"]);
    let form = world.op.visit(url).form();
    let signed_in = world.client.authorization_response(&form, session).await.unwrap();
    assert!(matches!(signed_in, SignIn::Deferred(_)));
    world.op.assert_clean();
}

#[tokio::test]
async fn tokens_in_a_form_post_are_refused() {
    let world = world().await;
    for name in ["id_token", "access_token"] {
        let (url, session) = started(world.client.authorize().response_mode(ResponseMode::FormPost)).await;
        world.op.misbehave(Fault::authorization_response(move |response| replace(response, name, "a.b.c")));
        let form = world.op.visit(url).form();
        let error = world.client.authorization_response(&form, session).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::UnrequestedToken), "{name}");
    }
    world.assert_nothing_sent();
}

#[tokio::test]
async fn an_error_arrives_by_form_post() {
    let world = world().await;
    let request = world.client.authorize().response_mode(ResponseMode::FormPost).prompt(["none"]);
    let (url, session) = started(request).await;
    let form = world.op.visit(url).form();
    let error = world.client.authorization_response(&form, session).await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("login_required"));
    world.assert_nothing_sent();
}

#[tokio::test]
async fn the_request_line_and_the_url_of_a_native_application_are_accepted() {
    for (redirect_uri, arrival) in [
        ("https://rp.test/callback", "/callback"),
        ("https://rp.test/auth/callback", "/auth/callback"),
        ("https://rp.test/auth/callback", "/callback"),
        ("https://rp.test/auth/callback", "/"),
        ("com.example.app:/cb", "com.example.app:/cb"),
        ("com.example.app://cb", "com.example.app://cb"),
        ("com.example.app:cb", "com.example.app:cb"),
        ("http://127.0.0.1/callback", "http://127.0.0.1/callback"),
    ] {
        let at_op = TestClient::secret_basic(CLIENT_ID, crate::support::CLIENT_SECRET);
        let world =
            world_with(|op| op.client(at_op.redirect_uri(redirect_uri)), |client| client.redirect_uri(redirect_uri))
                .await;
        let (url, session) = started(world.client.authorize()).await;
        let response = format!("{arrival}?{}", world.op.visit(url).query());
        assert_eq!(AuthorizationSession::cookie_name_for(&response), Some(session.cookie_name()), "{response}");
        let taken = world.client.authorization_response(&response, session).await;
        assert!(matches!(taken, Ok(SignIn::Deferred(_))), "{response}: {taken:?}");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_response_that_came_to_another_redirect_uri_is_refused() {
    let world = world().await;
    for elsewhere in [
        "https://rp.test/other",
        "https://other.test/callback",
        "https://rp.test:8443/callback",
        "/other",
        "/callback/more",
        "com.example.app:/callback",
    ] {
        let (url, session) = started(world.client.authorize()).await;
        let query = world.op.visit(url).query();
        let error = world.client.authorization_response(&format!("{elsewhere}?{query}"), session).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::WrongRedirectUri), "{elsewhere}");
        assert!(Rule::WrongRedirectUri.is_forgery());
    }
    assert!(world.op.requests_to(Endpoint::Exchange).is_empty());
    let (url, session) = started(world.client.authorize()).await;
    let query = world.op.visit(url).query();
    let here = format!("{REDIRECT_URI}?{query}#fragment");
    assert!(matches!(world.client.authorization_response(&here, session).await.unwrap(), SignIn::Deferred(_)));
    world.op.assert_clean();
}

/// A test provider on this host with a client that has this redirect URI. Its responses have no `iss`.
async fn unnamed_op(host: &str, redirect_uri: &str) -> World {
    let at_op = TestClient::secret_basic(CLIENT_ID, crate::support::CLIENT_SECRET).redirect_uri(redirect_uri);
    world_with(|op| op.without_iss().host(host).client(at_op), |client| client.redirect_uri(redirect_uri)).await
}

#[tokio::test]
async fn the_response_of_another_op_whose_redirect_uri_ends_like_this_one_is_refused() {
    let hostile = unnamed_op("hostile.test", "https://rp.test/a/callback").await;
    let honest = unnamed_op("honest.test", "https://rp.test/callback").await;
    for arrival in ["/callback", "/", "https://rp.test/callback"] {
        let (url_there, session) = started(hostile.client.authorize()).await;
        // The hostile OP redirects the browser to the honest one, with the state of the session.
        let mut url = started(honest.client.authorize()).await.0;
        let state = parameters(&url_there, "state").remove(0);
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        url.query_pairs_mut().clear().extend_pairs(pairs.into_iter().map(|(name, value)| {
            let value = if name == "state" { state.clone() } else { value };
            (name, value)
        }));
        let response = format!("{arrival}?{}", honest.op.visit(url).query());
        let error = hostile.client.authorization_response(&response, session).await.unwrap_err();
        let rule = if arrival.starts_with('/') { Rule::PathSuffix } else { Rule::WrongRedirectUri };
        assert_eq!(error.rule(), Some(rule), "{arrival}");
        assert!(rule.is_forgery());
        hostile.assert_nothing_sent();
    }
}

#[tokio::test]
async fn without_iss_only_the_complete_path_or_the_query_alone_is_accepted() {
    let world = unnamed_op("op.test", "https://rp.test/a/callback").await;
    let (url, mut session) = started(world.client.authorize()).await;
    let query = world.op.visit(url).query();
    let stripped = format!("/callback?{query}");
    let error = world.client.check_authorization_response(&stripped, &mut session).await.unwrap_err();
    assert!(error.to_string().contains("OriginalUri") && !session.is_spent(), "{error}");
    for response in [format!("/a/callback?{query}"), format!("https://rp.test/a/callback?{query}"), query] {
        let checked = world.client.check_authorization_response(&response, &mut reopened(&session)).await;
        assert!(checked.is_ok(), "{response}: {checked:?}");
    }
}
