//! The routes of `openid_deferred::axum` over real connections, with a strict OP and hostile browsers.

mod hostile;
mod logout;
mod settings;
mod streams;
mod support;

use std::time::Duration;

use openid_deferred::ResponseMode;
use openid_deferred::testing::Endpoint;
use reqwest::{Method, StatusCode};
use serde_json::json;

use support::{Setup, world, world_of, world_with};

#[tokio::test]
async fn a_user_waits_sees_the_outcome_and_is_signed_in() {
    let world = world().await;
    let mut user = world.browser();
    let id = user.waits("order=4711").await;
    assert_eq!(user.cookies.len(), 1, "the session's cookie has done its work: {:?}", user.cookies.keys());
    let status = user.status(id).await;
    assert_eq!(
        (&status["state"], &status["has_ended"], &status["ending"]),
        (&json!("waiting"), &json!(false), &json!(null))
    );
    assert_eq!(user.known().await, [id]);
    assert_eq!(user.post(&format!("/sign-in/{id}/finish"), "").await.problem(), "not_approved", "not decided yet");

    world.op.last_process().approve();
    let status = user.ended(id).await;
    assert_eq!(status["ending"], "approved jane 4711");
    let mut second_click = user.clone();
    let answer = user.post(&format!("/sign-in/{id}/finish"), "").await;
    assert_eq!(answer.location(), "/account");
    assert!(user.cookies.is_empty(), "the sign-in is used up");
    assert_eq!(user.post(&format!("/sign-in/{id}/finish"), "").await.problem(), "not_found");
    // The request of a second click has the cookie too, and its answer is the one that the browser keeps.
    assert_eq!(second_click.post(&format!("/sign-in/{id}/finish"), "").await.location(), "/account");
    assert!(second_click.cookies.is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_user_whom_the_op_signs_in_at_once_returns_to_the_page_they_came_from() {
    let world = world_with(
        |op| op.answer_with_code(),
        |client| client.response_type(openid_deferred::ResponseType::DeferredCodeOrCode),
    )
    .await;
    let mut user = world.browser();
    let callback = user.returns("order=4711&return_to=%2Forders%2F7%3Fa%3Db").await;
    let answer = user.get(&callback).await;
    assert_eq!(answer.location(), "/orders/7?a=b");
    assert_eq!(user.cookies.keys().collect::<Vec<_>>(), ["shop"], "only the application's own session is left");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_user_who_has_waited_returns_to_the_page_they_came_from() {
    let world = world().await;
    let mut user = world.browser();
    for (finished_with, expected) in [
        ("", "/orders/7?a=b"),
        ("return_to=%2Fbasket", "/basket"),
        ("return_to=https%3A%2F%2Fevil.example%2F", "/orders/7?a=b"),
    ] {
        let id = user.waits("order=4711&return_to=%2Forders%2F7%3Fa%3Db").await;
        world.op.last_process().approve();
        user.ended(id).await;
        let answer = user.post(&format!("/sign-in/{id}/finish"), finished_with).await;
        assert_eq!(answer.location(), expected, "{finished_with}");
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn an_erased_sign_in_is_over_for_pages_scripts_and_cancellations() {
    let world = world().await;
    let mut user = world.browser();
    let id = user.waits("").await;
    let members = |status: &serde_json::Value| -> Vec<_> { status.as_object().unwrap().keys().cloned().collect() };
    let before = user.status(id).await;
    world.poller.forget(id).await.unwrap();
    let status = user.status(id).await;
    assert_eq!(members(&status), members(&before));
    assert_eq!((&status["has_ended"], &status["cancellation"]), (&json!(true), &json!(null)));
    let answer = user.post(&format!("/sign-in/{id}/cancel"), "").await;
    assert_eq!(answer.location(), format!("/sign-in/{id}"));
    assert!(user.page(answer.location()).await.body.contains("This sign-in is over"));
}

#[tokio::test]
async fn cookies_are_host_only_and_http_only() {
    let world = world().await;
    let mut user = world.browser();
    let answer = user.post("/sign-in", "").await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let cookies = answer.cookies_set();
    assert_eq!(cookies.len(), 1);
    let attributes: std::collections::BTreeSet<_> = cookies[0].split("; ").skip(1).collect();
    assert_eq!(
        attributes.into_iter().collect::<Vec<_>>(),
        ["HttpOnly", "Max-Age=3600", "Path=/", "SameSite=Lax", "Secure"]
    );
    assert!(cookies[0].starts_with("__Host-deferred-"));
    let callback = format!("/callback?{}", world.op.visit(answer.location()).query());
    let answer = user.get(&callback).await;
    let deleted = answer.cookies_set().into_iter().filter(|cookie| cookie.contains("Max-Age=0")).count();
    assert_eq!((answer.cookies_set().len(), deleted), (2, 1));
}

#[tokio::test]
async fn a_response_may_arrive_as_a_form_from_the_page_of_the_op() {
    let world = world_with(|op| op, |client| client.response_mode(ResponseMode::FormPost)).await;
    let mut user = world.browser();
    let answer = user.post("/sign-in", "").await;
    assert!(answer.cookies_set()[0].contains("SameSite=None; Secure"), "{:?}", answer.cookies_set());
    let form = world.op.visit(answer.location()).form();
    let answer = user.send(Method::POST, "/callback", &[("sec-fetch-site", "cross-site")], &form).await;
    assert!(answer.location().starts_with("/sign-in/"));
    assert_eq!(user.known().await.len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn two_tabs_do_not_interfere() {
    let world = world().await;
    let mut user = world.browser();
    let (first, second) = (user.begin("order=1").await, user.begin("order=2").await);
    assert_eq!(user.cookies.len(), 2);
    for url in [&second, &first] {
        let callback = format!("/callback?{}", world.op.visit(url).query());
        assert!(user.get(&callback).await.location().starts_with("/sign-in/"));
    }
    let known = user.known().await;
    assert_eq!(known.len(), 2);
    for process in world.op.processes() {
        process.approve();
    }
    let mut endings = Vec::new();
    for id in known {
        endings.push(user.ended(id).await["ending"].as_str().unwrap().to_owned());
    }
    endings.sort();
    assert_eq!(endings, ["approved jane 1", "approved jane 2"]);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_page_follows_the_events_and_a_browser_that_connects_again_is_told_to_stop() {
    let world = world().await;
    let mut user = world.browser();
    let id = user.waits("").await;
    let path = format!("/sign-in/{id}/events");
    world.op.last_process().approve();
    // The stream ends with the sign-in.
    let answer = user.get(&path).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let events: Vec<_> = answer.body.split("\n\n").filter(|event| event.starts_with("event: status")).collect();
    assert!(events[0].contains("retry: 1000"), "{}", answer.body);
    let data = |event: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    };
    assert!(events.len() >= 2, "{}", answer.body);
    assert_eq!(data(events[0])["state"], "waiting");
    let last = events.last().unwrap();
    assert_eq!(data(last)["ending"], "approved jane ");
    assert!(last.contains("id: ended"), "{last}");
    let again = user.send(Method::GET, &path, &[("last-event-id", "ended")], "").await;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::NO_CONTENT, ""));
}

#[tokio::test]
async fn a_user_cancels() {
    let world = world().await;
    let mut user = world.browser();
    let id = user.waits("").await;
    let answer = user.post(&format!("/sign-in/{id}/cancel"), "").await;
    assert_eq!(answer.location(), format!("/sign-in/{id}"));
    assert!(world.op.last_process().is_cancelled());
    assert_eq!(user.ended(id).await["ending"], "cancelled");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_user_who_has_cancelled_sees_whether_the_op_knows_it() {
    let cannot_tell = Setup { is_cancellable: false, ..Setup::default() };
    for (setup, expected, shown) in [
        (Setup::default(), "accepted", "Your provider knows"),
        (cannot_tell, "locally_only", "Your provider cannot be told"),
    ] {
        // The next poll, which would end the sign-in, is far away.
        let world = world_of(setup, |op| op.interval(Duration::from_secs(3_600)), |client| client).await;
        let mut user = world.browser();
        let id = user.waits("").await;
        assert_eq!(user.status(id).await["cancellation"], json!(null));
        user.post(&format!("/sign-in/{id}/cancel"), "").await;
        let status = user.status(id).await;
        assert_eq!((&status["is_cancelled"], &status["cancellation"]), (&json!(true), &json!(expected)));
        let page = user.page(&format!("/sign-in/{id}")).await;
        assert!(page.body.contains(shown), "{}", page.body);
    }
}

#[tokio::test]
async fn a_browser_gets_pages_and_a_script_gets_json() {
    let world = world().await;
    let mut user = world.browser();
    let id = user.waits("").await;
    let page = user.page(&format!("/sign-in/{id}")).await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.body.contains("Your provider is checking") && page.body.contains(&format!("/sign-in/{id}/cancel")));
    let missing = world.browser().page(&format!("/sign-in/{id}")).await;
    assert_eq!(
        (missing.status, &missing.headers["content-type"]),
        (StatusCode::NOT_FOUND, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(missing.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    world.op.last_process().approve();
    user.ended(id).await;
    let page = user.page(&format!("/sign-in/{id}")).await;
    for action in ["finish", "dismiss"] {
        assert!(page.body.contains(&format!("/sign-in/{id}/{action}")), "{}", page.body);
    }
}

#[tokio::test]
async fn the_start_page_has_a_button_and_the_sign_ins_of_this_browser() {
    let world = world().await;
    let (mut user, mut other) = (world.browser(), world.browser());
    let id = user.waits("").await;
    let page = user.page("/sign-in").await;
    assert_eq!((page.status, &page.headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
    assert!(page.body.contains("<form method=\"post\" action=\"/sign-in\">"), "{}", page.body);
    assert!(page.body.contains(&format!("href=\"/sign-in/{id}\"")), "{}", page.body);
    assert!(!other.page("/sign-in").await.body.contains("href"));
    // The form leads to the OP, and browsers apply `form-action` to redirects.
    assert!(!page.headers["content-security-policy"].to_str().unwrap().contains("form-action"));
}

#[tokio::test]
async fn a_refusal_that_the_user_has_seen_is_dismissed_and_a_sign_in_that_waits_is_not() {
    let world = world().await;
    let mut user = world.browser();
    let (id, dismissed) = (user.waits("").await, "return_to=%2Fbye%3Fa%3Db");
    let (path, waiting) = (format!("/sign-in/{id}/dismiss"), user.waits("").await);
    let before = user.cookies.clone();
    assert_eq!(user.post(&path, dismissed).await.location(), format!("/sign-in/{id}"));
    assert_eq!(user.cookies, before);

    world.op.processes()[0].deny();
    assert_eq!(user.ended(id).await["ending"], "denied");
    assert_eq!(user.post(&format!("/sign-in/{id}/finish"), "").await.problem(), "not_approved");
    assert_eq!(user.known().await.len(), 2, "it is shown until it is dismissed");
    assert_eq!(user.post(&path, dismissed).await.location(), "/bye?a=b");
    assert_eq!(user.known().await, [waiting]);
    assert_eq!(user.post(&path, dismissed).await.problem(), "not_found");

    // Not even an erased sign-in stays, and no redirect leads to another site.
    world.poller.forget(waiting).await.unwrap();
    assert_eq!(user.status(waiting).await["has_ended"], true);
    let answer = user.post(&format!("/sign-in/{waiting}/dismiss"), "return_to=%2F%2Fevil.example").await;
    assert_eq!(answer.location(), "/");
    assert!(user.cookies.is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn the_application_may_refuse_to_begin() {
    let world = world().await;
    let mut user = world.browser();
    let answer = user.post("/sign-in", "order=sold+out").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::GONE, "sold out"));
    assert!(answer.cookies_set().is_empty());
}

#[tokio::test]
async fn pings_arrive_at_their_path() {
    let world = world().await;
    let mut user = world.browser();
    let id = user.waits("").await;
    let process = world.op.last_process();
    let (token, identifier) = (process.notification_token().unwrap(), process.deferred_auth_id().unwrap());
    process.approve();
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = json!({ "deferred_auth_id": identifier }).to_string();
    let answer = world.browser().send(Method::POST, "/deferred/ping", &headers, &body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(user.ended(id).await["ending"], "approved jane ");
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1);
}
