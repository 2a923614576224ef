//! Failures and attacks.

use reqwest::StatusCode;

use super::World;
use super::service::{Mode, http_client};

#[tokio::test]
async fn a_response_opened_in_another_browser_is_refused_and_uses_nothing_up() {
    let world = World::new(Mode::Polls).await;
    let (user, other) = (world.user().await, world.user().await);
    world.begin(&user, "Puffin").await;
    // Both users have visited before, and the other one is signing in as well.
    world.begin(&other, "Marlin").await;

    let url = user.url().await;
    let field = |(name, value)| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let fields = [("name", "Jane Doe"), ("birthdate", "1990-04-12"), ("answer", "continue")];
    let request = http_client()
        .post(&url)
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(fields.map(field).concat() + "--x--\r\n");
    let answer = request.send().await.expect("the OP answers");
    let back = answer.headers()["location"].to_str().expect("it is a URL").to_owned();
    assert!(back.contains("deferred_code="), "{back}");

    other.goto(&back).await;
    other.sees("h1", "This sign-in was not started in this browser").await;
    // The attempt did not spend the code.
    user.goto(&back).await;
    user.sees("h1", "Your provider is checking who you are").await;
    let page = user.url().await;
    // The same return again, as the back button sends it, leads to the same page.
    user.goto(&back).await;
    assert_eq!(user.url().await, page);
}

#[tokio::test]
async fn a_user_whose_first_answer_is_lost_continues_again_and_the_first_session_ends() {
    let mut world = World::new(Mode::Polls).await;
    let user = world.user().await;
    world.book(&user, "Puffin", "Jane Doe").await;
    world.decides("approve", 0).await;
    user.sees("h1", "Your identity is verified").await;
    let cookies: Vec<_> =
        user.cookies().await.into_iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
    let lost = http_client()
        .post(format!("{}/finish", user.url().await))
        .header("sec-fetch-site", "same-origin")
        .header("cookie", cookies.join("; "))
        .send();
    let lost = lost.await.expect("the application answers");
    let set = lost.headers().get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok());
    let first =
        set.filter_map(|cookie| cookie.split(';').next()).find(|cookie| cookie.starts_with("__Host-fairwater="));
    let first = first.expect("it is a session").to_owned();
    let account = format!("{}/account", world.services.app_url);
    let with_first = async || {
        let request = http_client().get(&account).header("cookie", &first);
        request.send().await.expect("the application answers").status()
    };
    assert_eq!(with_first().await, StatusCode::OK);

    user.submit("#enter").await;
    user.sees("h1", "Welcome aboard, Jane Doe").await;
    assert_eq!(with_first().await, StatusCode::SEE_OTHER, "the new session replaces it");
    world.services.assert_clean();
}

#[tokio::test]
async fn a_user_who_declines_at_the_op_is_told_that_nothing_was_sent() {
    let world = World::new(Mode::Polls).await;
    let user = world.user().await;
    world.begin(&user, "Puffin").await;
    user.submit("#decline").await;
    user.sees("h1", "The sign-in was declined").await;
}

#[tokio::test]
async fn only_pictures_are_accepted_as_passports() {
    let world = World::new(Mode::Polls).await;
    let user = world.user().await;
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let (picture, program) = (folder.path().join("picture.png"), folder.path().join("program.png"));
    std::fs::write(&program, "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
        .expect("it fits");
    std::fs::write(&picture, user.screenshot(500).await).expect("it fits");

    world.begin(&user, "Puffin").await;
    user.choose_file("#picture", &program).await;
    user.submit("#continue").await;
    user.sees("h1", "We could not read that").await;

    world.begin(&user, "Puffin").await;
    user.choose_file("#picture", &picture).await;
    user.submit("#continue").await;
    user.sees("h1", "Your provider is checking who you are").await;
    world.reviewer.sees("#name-0", "Jane Doe").await;
    let url = format!("{}/desk/0/picture", world.services.op_url);
    let answer = http_client().get(&url).send().await.expect("there is an answer");
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert!(answer.headers()["content-security-policy"].to_str().is_ok_and(|policy| policy.contains("sandbox")));
    assert_eq!(answer.bytes().await.expect("it comes").to_vec(), std::fs::read(&picture).expect("it is there"));
}

#[tokio::test]
async fn each_failure_has_a_page_with_advice() {
    let world = World::new(Mode::Polls).await;
    let user = world.user().await;
    let ways = [
        ("expire", "Time ran out"),
        ("forge", "The answer was not valid"),
        ("lose", "The answer was lost"),
        ("forget", "The check failed"),
    ];
    for (case, (decision, headline)) in ways.into_iter().enumerate() {
        world.book(&user, "Puffin", "Jane Doe").await;
        world.reviewer.click(&format!("#trouble-{case} summary")).await;
        world.decides(decision, case).await;
        user.sees("h1", headline).await;
        user.sees("#again", "Start again").await;
        assert!(user.text("#enter").await.is_none() && user.text("#verified").await.is_none());
    }
}

#[tokio::test]
async fn cross_site_forms_are_refused() {
    let world = World::new(Mode::Polls).await;
    let (client, app, op) = (http_client(), &world.services.app_url, &world.services.op_url);
    for url in [format!("{app}/book"), format!("{app}/sign-out"), format!("{op}/desk/0"), format!("{op}/authorize")] {
        for site in [None, Some("cross-site"), Some("same-site"), Some("none")] {
            let mut request = client.post(&url).header("content-type", "application/x-www-form-urlencoded");
            if let Some(site) = site {
                request = request.header("sec-fetch-site", site);
            }
            let answer = request.body("boat=Puffin&decision=approve").send().await.expect("there is an answer");
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{url} {site:?}");
            assert!(!answer.headers().contains_key("set-cookie"));
        }
    }
}

#[tokio::test]
async fn pages_may_not_be_framed_cached_or_given_scripts() {
    let world = World::new(Mode::Polls).await;
    let (app, op) = (&world.services.app_url, &world.services.op_url);
    for url in [format!("{app}/"), format!("{app}/nothing"), format!("{op}/desk"), format!("{op}/authorize")] {
        let answer = http_client().get(&url).send().await.expect("there is an answer");
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{url} {policy}");
        assert!(!policy.contains("unsafe"), "{url} {policy}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{url}");
        assert_eq!(header("cache-control"), "no-store", "{url}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{url}");
    }
}
