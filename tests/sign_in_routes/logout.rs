//! Logout in this browser and at the OP, and sessions that the OP ends.

use openid_deferred::ResponseType;
use openid_deferred::logout::SessionsEnded;
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, SentLogoutToken, TestProviderBuilder};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use crate::support::{Answer, Browser, LOGGED_OUT_URI, ORIGIN, World, world_with};

const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];

/// A world whose OP signs users in at once.
async fn world() -> World {
    world_of(|op| op).await
}

async fn world_of(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    world_with(|at_op| op(at_op.answer_with_code()), |client| client.response_type(ResponseType::DeferredCodeOrCode))
        .await
}

/// A browser in which a user is signed in.
async fn signed_in(world: &World) -> Browser<'_> {
    let mut user = world.browser();
    let callback = user.returns("").await;
    user.get(&callback).await;
    assert_eq!(user.cookies.keys().collect::<Vec<_>>(), ["shop"]);
    user
}

impl World {
    fn sessions(&self) -> usize {
        self.shop.1.lock().unwrap().open.len()
    }

    fn store_answers(&self, broken: Option<SessionsEnded>) {
        self.shop.1.lock().unwrap().broken = broken;
    }
}

/// A parameter of a URL to which the browser is sent.
fn parameter(location: &str, name: &str) -> Option<String> {
    let url = Url::parse(location).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The path with which the browser comes back from the OP.
fn back(world: &World, answer: &Answer) -> String {
    let back = world.op.visit_end_session(answer.location()).unwrap();
    assert_eq!(back.redirect_uri(), LOGGED_OUT_URI);
    format!("/logged-out?{}", back.query())
}

#[tokio::test]
async fn a_user_logs_out_of_the_application_and_of_the_op_and_returns() {
    let world = world().await;
    let mut user = signed_in(&world).await;
    let id_token = world.shop.1.lock().unwrap().open[0].id_token.clone();
    let answer = user.post("/sign-in/logout", "return_to=%2Fbye%3Fa%3Db").await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(parameter(answer.location(), "id_token_hint").as_deref(), Some(id_token.expose()));
    assert_eq!(parameter(answer.location(), "post_logout_redirect_uri").as_deref(), Some(LOGGED_OUT_URI));
    assert_eq!(user.cookies.keys().collect::<Vec<_>>(), ["__Host-logout"], "its own session has ended");
    assert_eq!(world.sessions(), 0);
    let cookie = answer.cookies_set().into_iter().find(|cookie| cookie.starts_with("__Host-logout")).unwrap();
    let attributes: std::collections::BTreeSet<_> = cookie.split("; ").skip(1).collect();
    assert_eq!(
        attributes.into_iter().collect::<Vec<_>>(),
        ["HttpOnly", "Max-Age=3600", "Path=/", "SameSite=Lax", "Secure"]
    );

    let path = back(&world, &answer);
    let before = user.clone();
    assert_eq!(user.get(&path).await.location(), "/bye?a=b");
    assert!(user.cookies.is_empty());
    // A reloaded page is no return from a logout of this browser.
    assert_eq!(user.get(&path).await.problem(), "logout_not_found");
    assert!(before.cookies.len() == 1 && world.op.requests_to(Endpoint::EndSession).len() == 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_browser_without_a_session_may_log_out_at_the_op_too() {
    let world = world().await;
    let mut user = world.browser();
    let answer = user.post("/sign-in/logout", "return_to=https%3A%2F%2Fevil.example%2F").await;
    assert_eq!(parameter(answer.location(), "id_token_hint"), None);
    assert_eq!(parameter(answer.location(), "client_id").as_deref(), Some("shop"));
    assert_eq!(user.get(&back(&world, &answer)).await.location(), "/");
    world.op.assert_clean();
}

#[tokio::test]
async fn cross_site_forms_do_not_log_users_out() {
    let world = world().await;
    let mut user = signed_in(&world).await;
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("sec-fetch-site", "cross-site"), ("origin", ORIGIN)],
        &[],
    ] {
        let answer = user.send(Method::POST, "/sign-in/logout", headers, "").await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::FORBIDDEN, "cross_site"), "{headers:?}");
    }
    assert_eq!(user.get("/sign-in/logout").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!((world.sessions(), user.cookies.len()), (1, 1));
    let large = "a=".to_owned() + &"x".repeat(16 * 1024);
    assert_eq!(user.post("/sign-in/logout", &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(user.post("/sign-in/logout", "store=down").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((world.sessions(), user.cookies.len()), (1, 1));
}

#[tokio::test]
async fn a_return_from_a_logout_is_accepted_only_in_its_browser_and_with_its_state() {
    let world = world().await;
    let (mut user, mut other) = (signed_in(&world).await, world.browser());
    let answer = user.post("/sign-in/logout", "return_to=%2Fbye").await;
    let path = back(&world, &answer);
    other.post("/sign-in/logout", "").await;
    for forged in ["/logged-out".to_owned(), path.replace("state=", "state=x"), format!("{path}&state=x")] {
        let answer = user.get(&forged).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (StatusCode::BAD_REQUEST, "logout_not_found"),
            "{forged}"
        );
    }
    for browser in [&mut other, &mut world.browser()] {
        assert_eq!(browser.get(&path).await.problem(), "logout_not_found");
    }
    assert_eq!(user.cookies.len(), 1, "another site cannot delete the cookie");
    let html = &[("accept", "text/html")];
    let page = world.browser().send(Method::GET, &path, html, "").await;
    assert!(page.body.contains("This logout was not started in this browser"), "{}", page.body);
    assert_eq!(user.get(&path).await.location(), "/bye");
}

#[tokio::test]
async fn a_user_is_logged_out_of_the_application_if_the_op_has_no_endpoint() {
    let world = world_of(|op| op.metadata(|members| drop(members.shift_remove("end_session_endpoint")))).await;
    let mut user = signed_in(&world).await;
    let answer = user.post("/sign-in/logout", "return_to=%2Fbye").await;
    assert_eq!(answer.location(), "/bye");
    assert!(user.cookies.is_empty() && world.sessions() == 0);
}

/// Asserts that an answer is a refusal that the OP can read.
#[track_caller]
fn assert_refused(sent: &SentLogoutToken, code: &str) {
    assert_eq!((sent.status, sent.cache_control.as_deref()), (Some(400), Some("no-store")), "{sent:?}");
    let body: Value = serde_json::from_str(&sent.body).unwrap();
    assert_eq!(body["error"], "invalid_request");
    let description = sent.error_description().unwrap();
    assert!(description.contains(code) && !description.contains(['"', '\\']), "{description}");
}

#[tokio::test]
async fn a_logout_token_ends_its_session_and_is_accepted_once() {
    let world = world().await;
    let _user = signed_in(&world).await;
    let first = world.op.last_process();
    let _user = signed_in(&world).await;
    let token = first.logout_token();
    let sent = first.send_logout_token(&token).await;
    assert_eq!((sent.status, sent.cache_control.as_deref(), sent.body.as_str()), (Some(200), Some("no-store"), ""));
    let left: Vec<_> = world.shop.1.lock().unwrap().open.iter().map(|session| session.sid.clone()).collect();
    assert_eq!(left, [Some(world.op.last_process().sid())], "the other session of the user goes on");
    assert_refused(&first.send_logout_token(&token).await, "[logout_token_replayed]");
    // Another token for a session that has ended.
    assert_eq!(first.log_out().await.status, Some(200));
    assert_eq!(world.sessions(), 1);
    assert_eq!(world.op.logout_tokens().len(), 3);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_token_for_all_sessions_of_a_user_ends_them() {
    let world = world().await;
    let _users = (signed_in(&world).await, signed_in(&world).await);
    assert_eq!(world.sessions(), 2);
    let without_sid = IdTokenForgery::claims(|claims| drop(claims.shift_remove("sid")));
    let process = world.op.last_process();
    assert_eq!(process.send_logout_token(&process.forged_logout_token(without_sid)).await.status, Some(200));
    assert_eq!(world.sessions(), 0);
}

#[tokio::test]
async fn invalid_logout_tokens_end_no_session() {
    let world = world().await;
    let _user = signed_in(&world).await;
    let process = world.op.last_process();
    let claim = |name: &'static str, value: &'static str| {
        IdTokenForgery::claims(move |claims| drop(claims.insert(name.to_owned(), value.into())))
    };
    for (forgery, code) in [
        (claim("nonce", "abc"), "[logout_token_nonce]"),
        (claim("iss", "https://evil.example"), "[logout_token_iss]"),
        (claim("aud", "other"), "[logout_token_aud]"),
        (claim("exp", "never"), "[logout_token_exp]"),
        (IdTokenForgery::claims(|claims| drop(claims.insert("iat".to_owned(), 7.into()))), "[logout_token_iat]"),
        (IdTokenForgery::claims(|claims| drop(claims.shift_remove("events"))), "[logout_token_events]"),
        (IdTokenForgery::claims(|claims| drop(claims.shift_remove("jti"))), "[logout_token_jti]"),
        (
            IdTokenForgery::header(|header| drop(header.insert("typ".to_owned(), "at+jwt".into()))),
            "[logout_token_header]",
        ),
        (IdTokenForgery::algorithm_none(), "[logout_token_algorithm]"),
        (IdTokenForgery::foreign_key(), "[logout_token_signature]"),
        (IdTokenForgery::raw("abc"), "[logout_token_malformed]"),
    ] {
        assert_refused(&process.send_logout_token(&process.forged_logout_token(forgery)).await, code);
    }
    assert_eq!(world.sessions(), 1);
    assert_eq!(process.log_out().await.status, Some(200), "the genuine one still does");
    assert_eq!(world.sessions(), 0);
}

#[tokio::test]
async fn a_token_whose_sessions_could_not_be_ended_can_be_sent_again() {
    let world = world().await;
    let _user = signed_in(&world).await;
    let process = world.op.last_process();
    let token = process.logout_token();
    world.store_answers(Some(SessionsEnded::Failed));
    for _ in 0..2 {
        let sent = process.send_logout_token(&token).await;
        assert_eq!((sent.status, sent.cache_control.as_deref()), (Some(503), Some("no-store")), "{sent:?}");
    }
    world.store_answers(None);
    assert_eq!(process.send_logout_token(&token).await.status, Some(200));
    assert_eq!(world.sessions(), 0);
    // Another replica has used a token.
    world.store_answers(Some(SessionsEnded::Already));
    assert_refused(&process.log_out().await, "[logout_token_replayed]");
}

#[tokio::test]
async fn an_application_that_hangs_does_not_hold_the_request_of_the_op() {
    let world = world().await;
    let _user = signed_in(&world).await;
    let process = world.op.last_process();
    let token = process.logout_token();
    world.shop.1.lock().unwrap().hangs = true;
    let sent = process.send_logout_token(&token).await;
    assert_eq!((sent.status, sent.cache_control.as_deref()), (Some(503), Some("no-store")), "{sent:?}");
    world.shop.1.lock().unwrap().hangs = false;
    assert_eq!(process.send_logout_token(&token).await.status, Some(200));
    assert_eq!(world.sessions(), 0);
}

#[tokio::test]
async fn while_keys_are_unavailable_the_op_may_try_again() {
    let world = world().await;
    let _user = signed_in(&world).await;
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let process = world.op.last_process();
    let token = process.logout_token();
    let sent = process.send_logout_token(&token).await;
    assert_eq!((sent.status, sent.cache_control.as_deref()), (Some(503), Some("no-store")), "{sent:?}");
    assert_eq!(world.sessions(), 1);
}

#[tokio::test]
async fn requests_without_exactly_one_logout_token_are_refused_and_bodies_are_bounded() {
    let world = world().await;
    let _user = signed_in(&world).await;
    let token = world.op.last_process().logout_token();
    let mut op = world.browser();
    let path = "/sign-in/backchannel-logout";
    let form = format!("logout_token={token}");
    for form in ["", "logout_token", "token=abc", &format!("{form}&{form}")] {
        let answer = op.send(Method::POST, path, FORM, form).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (StatusCode::BAD_REQUEST, &"invalid_request".into()),
            "{form}"
        );
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let large = format!("{form}&padding={}", "x".repeat(16 * 1024));
    assert_eq!(op.send(Method::POST, path, FORM, &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(op.send(Method::POST, path, &[], &form).await.status, StatusCode::BAD_REQUEST, "it is no form");
    let answer = op.get(path).await;
    assert_eq!(
        (answer.status, &answer.headers["cache-control"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"no-store".parse().unwrap())
    );
    assert_eq!(world.sessions(), 1);
    // Unknown fields are ignored, and the request needs no origin.
    let answer = op.send(Method::POST, path, FORM, &format!("a=b&{form}")).await;
    assert_eq!((answer.status, world.sessions()), (StatusCode::OK, 0));
}
