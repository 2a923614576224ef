//! The example `web_app` in real browsers: two programs on loopback ports, and Chromium.
//!
//! The tests need Debian's packages `chromium` and `chromium-driver`, which `scripts/test` installs. With
//! `WEB_SCREENSHOTS=docs/images` they draw the pictures of the documentation again.

mod browser;
mod live_page;
mod pictures;
mod service;
mod trouble;

use browser::{Browser, Chromedriver};
use service::{Mode, Services};
use thirtyfour::common::cookie::SameSite;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Two tests run at a time, because each needs several browsers.
static PERMITS: Semaphore = Semaphore::const_new(2);

/// An OP, an application, the browser of a reviewer, and users with browsers of their own.
struct World {
    services: Services,
    reviewer: Browser,
    chromedriver: Chromedriver,
    _permit: SemaphorePermit<'static>,
}

impl World {
    async fn new(mode: Mode) -> Self {
        let permit = PERMITS.acquire().await.expect("it is never closed");
        let (services, chromedriver) = (Services::start(mode).await, Chromedriver::start());
        let reviewer = Browser::open(&chromedriver).await;
        reviewer.goto(&format!("{}/desk", services.op_url)).await;
        Self { services, reviewer, chromedriver, _permit: permit }
    }

    async fn user(&self) -> Browser {
        Browser::open(&self.chromedriver).await
    }

    /// Books a boat and shows a passport. The user is then on the page on which they wait.
    async fn book(&self, user: &Browser, boat: &str, name: &str) {
        self.begin(user, boat).await;
        user.fill("#name", name).await;
        user.submit("#continue").await;
        user.sees("h1", "Your provider is checking who you are").await;
    }

    /// Books a boat. The user is then at the OP.
    async fn begin(&self, user: &Browser, boat: &str) {
        user.goto(&self.services.app_url).await;
        user.click(&format!("input[value={boat}]")).await;
        user.submit("form[action='/book'] button").await;
        user.sees("h1", "wants to know who you are").await;
    }

    /// The reviewer presses a button in the case with this number, as soon as the application has asked for the result.
    async fn decides(&self, decision: &str, case: usize) {
        self.reviewer.sees(&format!("#case-{case}"), "the application has asked").await;
        self.reviewer.submit(&format!("#{decision}-{case}")).await;
    }
}

#[tokio::test]
async fn a_page_shows_the_reviewers_progress_without_a_reload() {
    let mut world = World::new(Mode::Polls).await;
    let user = world.user().await;
    world.book(&user, "Puffin", "Jane Doe").await;
    user.mark_page().await;
    user.sees("#unverified .badge", "not verified").await;
    user.sees("#unverified dd", "Jane Doe").await;
    assert!(user.text("#verified").await.is_none());

    // The OP's text is shown as text, even if it looks like markup.
    world.reviewer.fill("#text-0", "Comparing <b>the photo</b>").await;
    world.decides("progress", 0).await;
    user.sees("#progress", "Comparing <b>the photo</b>").await;

    world.decides("approve", 0).await;
    user.sees("h1", "Your identity is verified").await;
    user.sees("#verified", "somebody@example.com").await;
    assert!(user.text("#unverified").await.is_none());
    assert!(user.is_marked().await, "the page was not loaded again");
    assert_eq!(user.script("return document.title").await, "Your identity is verified – Fairwater Boats");

    // An outcome alone signs no user in.
    user.sees("nav", "Not signed in").await;
    user.goto(&format!("{}/account", world.services.app_url)).await;
    user.sees("h1", "Take a boat out").await;
    user.sees("#bookings + ul", "verified").await;
    user.click("#bookings + ul a").await;
    let page = user.url().await;
    assert_eq!(session_cookies(&user).await, 0);
    user.submit("#enter").await;
    user.sees("h1", "Welcome aboard, Jane Doe").await;
    assert_eq!(session_cookies(&user).await, 1);

    user.submit("form[action='/sign-out'] button").await;
    user.sees("nav", "Not signed in").await;
    assert_eq!(session_cookies(&user).await, 0);
    // The browser has forgotten the sign-in.
    assert!(user.text("#bookings + ul").await.is_none());
    user.goto(&page).await;
    user.sees("h1", "There is no such sign-in in this browser").await;
    world.services.assert_clean();
}

#[tokio::test]
async fn with_pings_a_denial_arrives_long_before_the_next_poll() {
    let mut world = World::new(Mode::Pings).await;
    let user = world.user().await;
    world.book(&user, "Marlin", "Jane Doe").await;
    world.reviewer.fill("#text-0", "This is a picture of a cat").await;
    world.decides("refuse", 0).await;
    user.sees("h1", "Your provider could not confirm who you are").await;
    user.sees("#reason", "This is a picture of a cat").await;
    assert!(user.text("#enter").await.is_none());
    // It is shown until the user does not want to see it any more.
    user.goto(&world.services.app_url).await;
    user.sees("#bookings + ul", "refused").await;
    user.click("#bookings + ul a").await;
    user.submit("#dismiss").await;
    user.sees("h1", "Take a boat out").await;
    assert!(user.text("#bookings + ul").await.is_none());
    assert!(user.cookies().await.is_empty());
    world.services.assert_clean();
}

#[tokio::test]
async fn with_pings_an_approval_arrives_long_before_the_next_poll() {
    let mut world = World::new(Mode::Pings).await;
    let user = world.user().await;
    world.book(&user, "Marlin", "Jane Doe").await;
    world.decides("approve", 0).await;
    user.sees("h1", "Your identity is verified").await;
    world.services.assert_clean();
}

#[tokio::test]
async fn a_page_reconnects_after_a_restart_of_the_application() {
    let mut world = World::new(Mode::Polls).await;
    let user = world.user().await;
    world.begin(&user, "Otter").await;
    world.services.kill_application();
    world.services.restart_application().await;
    user.submit("#continue").await;
    user.sees("h1", "Your provider is checking who you are").await;
    user.mark_page().await;

    world.services.kill_application();
    user.sees("#offline", "The connection was lost").await;
    world.decides("approve", 0).await;
    world.services.restart_application().await;
    user.sees("h1", "Your identity is verified").await;
    assert!(user.is_marked().await, "the page was not loaded again");
    assert_eq!(user.text("#offline").await.as_deref(), Some(""), "it is hidden again");

    // A user who had closed the page finds it again.
    user.goto(&world.services.app_url).await;
    user.sees("#bookings + ul", "Otter").await;
}

#[tokio::test]
async fn each_browser_sees_only_its_own_bookings() {
    let mut world = World::new(Mode::Polls).await;
    let (jane, john) = (world.user().await, world.user().await);
    world.book(&jane, "Puffin", "Jane Doe").await;
    world.book(&john, "Marlin", "John Roe").await;
    world.decides("approve", 0).await;
    world.decides("refuse", 1).await;
    jane.sees("h1", "Your identity is verified").await;
    jane.sees("#verified", "Jane Doe").await;
    john.sees("h1", "Your provider could not confirm who you are").await;

    let page_of_jane = jane.url().await;
    john.goto(&page_of_jane).await;
    john.sees("h1", "There is no such sign-in in this browser").await;
    john.goto(&world.services.app_url).await;
    john.sees("#bookings + ul", "Marlin").await;
    assert!(!john.text("#bookings + ul").await.unwrap_or_default().contains("Puffin"));
    world.services.assert_clean();
}

#[tokio::test]
async fn each_tab_waits_for_its_own_decision() {
    let mut world = World::new(Mode::Polls).await;
    let user = world.user().await;
    // The user is at the OP in both tabs before coming back in either.
    world.begin(&user, "Puffin").await;
    user.new_tab().await;
    world.begin(&user, "Otter").await;
    for tab in [0, 1] {
        user.switch_to_tab(tab).await;
        user.submit("#continue").await;
        user.sees("h1", "Your provider is checking who you are").await;
    }
    world.decides("refuse", 1).await;
    world.decides("approve", 0).await;
    user.sees("h1", "Your provider could not confirm who you are").await;
    user.sees("#booking", "Otter").await;
    user.switch_to_tab(0).await;
    user.sees("h1", "Your identity is verified").await;
    user.sees("#booking", "Puffin").await;
    world.services.assert_clean();
}

#[tokio::test]
async fn a_user_whose_interaction_is_required_continues_at_the_interaction_uri() {
    let mut world = World::new(Mode::Ietf).await;
    let user = world.user().await;
    world.begin(&user, "Otter").await;
    user.submit("#continue").await;
    user.sees("h1", "Your provider needs something from you").await;
    user.mark_page().await;
    user.sees("#interaction", "Continue at your provider").await;
    let attributes = "const link = document.getElementById('interaction'); \
                      return [link.rel, link.referrerPolicy, link.target].join()";
    assert_eq!(user.script(attributes).await, "noopener noreferrer,no-referrer,_blank");

    user.click("#interaction").await;
    user.switch_to_tab(1).await;
    user.sees("body", "asks for your approval").await;
    assert_eq!(user.script("return document.referrer").await, "");
    assert_eq!(user.script("return window.opener === null").await, true);
    // The link works once, so it is no longer shown.
    user.switch_to_tab(0).await;
    user.sees("h1", "Your provider is checking who you are").await;
    assert!(user.text("#interaction").await.is_none());

    user.switch_to_tab(1).await;
    user.submit("button[value=approve]").await;
    user.sees("body", "You approved").await;
    user.switch_to_tab(0).await;
    user.sees("h1", "Your identity is verified").await;
    assert!(user.is_marked().await, "the page was not loaded again");
    world.services.assert_clean();
}

#[tokio::test]
async fn a_user_cancels_a_check() {
    let mut world = World::new(Mode::Polls).await;
    let user = world.user().await;
    world.book(&user, "Otter", "Jane Doe").await;
    user.submit("#cancel").await;
    user.sees("h1", "You cancelled the check").await;
    world.reviewer.sees("#case-0", "cancelled by the application").await;
    world.services.assert_clean();
}

#[tokio::test]
async fn cookies_are_host_only_and_http_only() {
    let world = World::new(Mode::Polls).await;
    let user = world.user().await;
    world.begin(&user, "Puffin").await;
    // Cookies ignore ports, so this page shows those of the application.
    let cookies = user.cookies().await;
    assert_eq!(cookies.len(), 1, "one for the sign-in that is under way");
    for cookie in &cookies {
        // The demonstration has no HTTPS. `tests/sign_in_routes` tests the cookies of other applications.
        assert!(cookie.name.starts_with("deferred-"), "{}", cookie.name);
        assert_eq!((cookie.secure, cookie.path.as_deref()), (Some(false), Some("/")), "{}", cookie.name);
        assert!(matches!(cookie.same_site, Some(SameSite::Lax)), "{}", cookie.name);
    }
    assert_eq!(user.script("return document.cookie").await, "", "no script reads them");
    user.submit("#continue").await;
    user.sees("h1", "Your provider is checking who you are").await;
    let cookies = user.cookies().await;
    assert_eq!(cookies.len(), 1, "the first one has done its work");
    assert!(cookies[0].name.starts_with("sign-in-"), "{}", cookies[0].name);
    assert_eq!(user.script("return document.cookie").await, "", "no script reads it");
}

/// How many cookies the browser has with a session of the application.
async fn session_cookies(user: &Browser) -> usize {
    user.cookies().await.iter().filter(|cookie| cookie.name == "__Host-fairwater").count()
}
