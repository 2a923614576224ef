//! The pictures in the documentation, drawn if `WEB_SCREENSHOTS` names a folder for them.

use std::path::PathBuf;

use super::World;
use super::browser::Browser;
use super::service::Mode;

const WIDTH: u32 = 820;

#[tokio::test]
async fn pages_fit_the_screens_of_phones_and_desktops() {
    let world = World::new(Mode::Polls).await;
    let (user, reviewer) = (world.user().await, &world.reviewer);
    let folder = std::env::var_os("WEB_SCREENSHOTS").map(PathBuf::from);
    let fits = async |browser: &Browser| {
        // Chromium may make the window wider than requested.
        browser.resize(360, 740).await;
        let overflow = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
        assert_eq!(browser.script(overflow).await, false, "{} has to be scrolled sideways", browser.url().await);
    };
    let picture = async |browser: &Browser, name: &str| {
        fits(browser).await;
        if let Some(folder) = &folder {
            let png = browser.screenshot(WIDTH).await;
            std::fs::write(folder.join(name), png).expect("the picture is written");
        }
    };
    user.goto(&world.services.app_url).await;
    picture(&user, "start.png").await;
    world.begin(&user, "Puffin").await;
    fits(&user).await;
    user.submit("#continue").await;
    reviewer.fill("#text-0", "The photo is being compared with your passport.").await;
    world.decides("progress", 0).await;
    user.sees("#progress", "The photo is being compared").await;
    picture(&user, "waiting.png").await;

    let other = world.user().await;
    world.book(&other, "Marlin", "John Roe").await;
    world.decides("refuse", 1).await;
    other.sees("h1", "could not confirm").await;
    fits(&other).await;
    reviewer.goto(&reviewer.url().await).await;
    reviewer.sees("#case-1", "refused").await;
    picture(reviewer, "desk.png").await;

    world.decides("approve", 0).await;
    user.sees("h1", "Your identity is verified").await;
    picture(&user, "approved.png").await;
}
