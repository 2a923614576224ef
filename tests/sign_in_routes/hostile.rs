//! Forged, replayed and oversized requests, other browsers, other sites, and an OP in trouble.

use openid_deferred::testing::{Endpoint, Fault};
use reqwest::{Method, StatusCode};

use crate::support::{ORIGIN, world, world_with};

#[tokio::test]
async fn a_response_is_taken_only_from_the_browser_that_started() {
    let world = world().await;
    let (mut user, mut other) = (world.browser(), world.browser());
    let callback = user.returns("").await;
    other.begin("").await;
    let answer = other.get(&callback).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_REQUEST, "session_lost"));
    assert_eq!(other.cookies.len(), 1, "its own sign-in goes on");
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 0);
    // The attempt did not spend the code.
    assert!(user.get(&callback).await.location().starts_with("/sign-in/"));
}

#[tokio::test]
async fn a_response_with_another_state_is_refused_and_the_session_stays_valid() {
    let world = world().await;
    let mut user = world.browser();
    let callback = user.returns("").await;
    for forged in
        [callback.replace("state=", "state=x"), "/callback".to_owned(), "/callback?error=access_denied".to_owned()]
    {
        let answer = user.get(&forged).await;
        assert_eq!(answer.problem(), "session_lost", "{forged}");
    }
    let twice = format!("{callback}&iss=https%3A%2F%2Fevil.example");
    assert_eq!(user.cookies.len(), 1);
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 0);
    assert_eq!(user.get(&twice).await.problem(), "response_refused");
    assert!(user.cookies.is_empty(), "the sign-in is over");
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 0);
}

#[tokio::test]
async fn a_callback_that_is_reloaded_leads_to_the_same_sign_in_and_sends_nothing() {
    let world = world().await;
    let mut user = world.browser();
    let callback = user.returns("").await;
    let before = user.clone();
    let page = user.get(&callback).await.location().to_owned();
    assert_eq!(user.get(&callback).await.location(), page);
    // A browser that did not get the first answer still has the session.
    let mut without_answer = before;
    assert_eq!(without_answer.get(&callback).await.location(), page);
    assert_eq!(without_answer.cookies.len(), 1);
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1);
    // After `finish` it is a response without a session.
    world.op.last_process().approve();
    let id = page.strip_prefix("/sign-in/").unwrap().parse().unwrap();
    user.ended(id).await;
    user.post(&format!("{page}/finish"), "").await;
    assert_eq!(user.get(&callback).await.problem(), "session_lost");
    world.op.assert_clean();
}

#[tokio::test]
async fn sign_ins_of_other_browsers_are_not_found() {
    let world = world().await;
    let (mut user, mut other) = (world.browser(), world.browser());
    let id = user.waits("").await;
    other.waits("").await;
    for path in [format!("/sign-in/{id}"), format!("/sign-in/{id}/events"), "/sign-in/nonsense".to_owned()] {
        let answer = other.get(&path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::NOT_FOUND, "not_found"), "{path}");
    }
    for path in ["cancel", "finish", "dismiss"].map(|action| format!("/sign-in/{id}/{action}")) {
        assert_eq!(other.post(&path, "").await.problem(), "not_found", "{path}");
    }
    assert!(world.op.processes().iter().all(|process| !process.is_cancelled()));
    // A cookie under another name, and an altered one.
    let (name, value) = user.cookies.iter().next().map(|(name, value)| (name.clone(), value.clone())).unwrap();
    let its_own = other.cookies.keys().next().unwrap().clone();
    other.cookies.insert(its_own, value.clone());
    assert_eq!(other.get(&format!("/sign-in/{id}")).await.problem(), "not_found");
    user.cookies.insert(name, value.replacen(&value[50..52], if &value[50..52] == "AA" { "BB" } else { "AA" }, 1));
    assert_eq!(user.get(&format!("/sign-in/{id}")).await.problem(), "not_found");
}

#[tokio::test]
async fn cross_site_forms_have_no_effect() {
    let world = world().await;
    let mut user = world.browser();
    let id = user.waits("").await;
    let before = user.cookies.clone();
    let actions = ["/cancel", "/finish", "/dismiss"].map(|action| format!("/sign-in/{id}{action}"));
    for path in ["/sign-in".to_owned()].iter().chain(&actions) {
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("sec-fetch-site", "cross-site"), ("origin", ORIGIN)],
            &[],
        ] {
            let answer = user.send(Method::POST, path, headers, "").await;
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (StatusCode::FORBIDDEN, "cross_site"),
                "{headers:?}"
            );
            assert!(answer.cookies_set().is_empty());
        }
    }
    for path in &actions {
        assert_eq!(user.get(path).await.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert_eq!(user.cookies, before);
    assert!(!world.op.last_process().is_cancelled());
    // Browsers without `Sec-Fetch-Site` send their origin.
    let answer = user.send(Method::POST, &format!("/sign-in/{id}/cancel"), &[("origin", ORIGIN)], "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn no_return_path_leads_to_another_site() {
    let world = world_with(
        |op| op.answer_with_code(),
        |client| client.response_type(openid_deferred::ResponseType::DeferredCodeOrCode),
    )
    .await;
    for hostile in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/.//evil.example",
        "/\t/evil.example",
        "/\r\nSet-Cookie: shop=evil",
        "javascript:alert(1)",
        "",
        // It would not fit into the session.
        &format!("/{}", "a".repeat(300)),
    ] {
        let mut user = world.browser();
        let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("return_to", hostile).finish();
        let callback = user.returns(&form).await;
        let answer = user.get(&callback).await;
        assert_eq!(answer.location(), "/", "{hostile:?}");
        assert_eq!(user.cookies["shop"], "jane", "{hostile:?}");
    }
}

#[tokio::test]
async fn the_number_and_size_of_what_a_browser_sends_is_bounded() {
    let world = world().await;
    let mut user = world.browser();
    for _ in 0..12 {
        user.begin("").await;
    }
    assert_eq!(user.cookies.len(), 3, "the oldest sessions are dropped");
    let size: usize = user.cookies.iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    assert!(size < 6_200, "{size}");
    let long = format!("order={}", "x".repeat(17_000));
    assert_eq!(user.post("/sign-in", &long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer = user.send(Method::POST, "/callback", &[], &long).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(user.get(&format!("/callback?state={}", "x".repeat(20_000))).await.problem(), "session_lost");
    // A context that does not fit is an error of the application, and starts nothing.
    let answer = user.post("/sign-in", &format!("order={}", "x".repeat(300))).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    assert!(answer.cookies_set().is_empty());
    // Sessions that cannot be opened are dropped first.
    let mut junk = world.browser();
    for number in 0..10 {
        junk.cookies.insert(format!("__Host-deferred-AAAAAAAAAAAAAAA{number}"), "A".repeat(300));
    }
    junk.begin("").await;
    assert_eq!(junk.cookies.len(), 3);
    assert_eq!(junk.post("/sign-in", "").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_session_that_was_altered_is_refused_and_deleted() {
    let world = world().await;
    let mut user = world.browser();
    let callback = user.returns("").await;
    let value = user.cookies.values_mut().next().unwrap();
    let other = if value.as_bytes()[100] == b'A' { "B" } else { "A" };
    value.replace_range(100..101, other);
    let answer = user.get(&callback).await;
    assert_eq!(answer.problem(), "session_lost");
    assert!(user.cookies.is_empty());
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 0);
}

#[tokio::test]
async fn a_user_who_declined_gets_an_error_and_may_start_again() {
    let world = world().await;
    let mut user = world.browser();
    let url = user.begin("").await;
    let callback = format!("/callback?{}", world.op.visit_and_decline(url).query());
    let answer = user.get(&callback).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::FORBIDDEN, "declined"));
    assert!(user.cookies.is_empty());
    user.waits("").await;
}

#[tokio::test]
async fn a_user_may_reload_only_after_a_transient_error() {
    let world = world().await;
    let mut user = world.browser();
    let callback = user.returns("").await;
    world.op.misbehave(Fault::error_with_status(Endpoint::Exchange, 429, "rate_limit").header("retry-after", "7"));
    let answer = user.get(&callback).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable"));
    assert_eq!(answer.headers["retry-after"], "7");
    assert_eq!(user.cookies.len(), 1, "the session stays");
    assert!(user.get(&callback).await.location().starts_with("/sign-in/"));

    let callback = user.returns("").await;
    world.op.misbehave(Fault::error(Endpoint::Exchange, "invalid_grant"));
    let answer = user.get(&callback).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::CONFLICT, "already_used"));
    assert_eq!(user.cookies.len(), 1, "only the other sign-in is left");
    assert_eq!(user.get(&callback).await.problem(), "session_lost");
}

#[tokio::test]
async fn users_can_reload_while_the_application_shuts_down() {
    let world = world().await;
    let mut user = world.browser();
    let callback = user.returns("").await;
    world.poller.shutdown(std::time::Duration::ZERO).await;
    let answer = user.get(&callback).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert_eq!(user.cookies.len(), 1);
}
