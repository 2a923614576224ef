//! Chromium, controlled as a user would use it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use thirtyfour::{By, ChromiumLikeCapabilities as _, Cookie, DesiredCapabilities, WebDriver, WebElement};

use super::service::{eventually, http_client};

const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
];

/// A `chromedriver` on a free port. All browsers that it started end with it.
pub struct Chromedriver {
    child: Child,
    url: String,
}

impl Chromedriver {
    pub fn start() -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A process group of its own, so that everything that it starts can be ended.
        let mut child = command.process_group(0).spawn().unwrap_or_else(|error| {
            panic!("chromedriver cannot be started ({error}): apt-get install chromium chromium-driver")
        });
        let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let url = format!("http://127.0.0.1:{}", port.expect("chromedriver says its port"));
        // The rest of its output is read and discarded, because a full pipe would block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// A user's browser, with cookies of its own.
pub struct Browser {
    driver: WebDriver,
    _profile: TempDir,
}

impl Browser {
    pub async fn open(chromedriver: &Chromedriver) -> Self {
        let profile = tempfile::tempdir().expect("there is room for a folder");
        let mut capabilities = DesiredCapabilities::chrome();
        let folder = format!("--user-data-dir={}", profile.path().display());
        for flag in FLAGS.into_iter().chain([folder.as_str(), "--window-size=900,1000"]) {
            capabilities.add_arg(flag).expect("it is a flag");
        }
        let driver = WebDriver::builder(&chromedriver.url, capabilities).client(http_client()).await;
        let driver = driver.expect("the browser starts");
        // The browser ends with its chromedriver, even if the test fails. Otherwise, dropping the driver would try to
        // close the session, and block the runtime that must carry that request.
        driver.clone().leak().expect("it was only just started");
        Self { driver, _profile: profile }
    }

    pub async fn goto(&self, url: &str) {
        self.driver.goto(url).await.expect("the page loads");
    }

    pub async fn url(&self) -> String {
        self.driver.current_url().await.expect("there is a page").to_string()
    }

    /// Opens another tab in front.
    pub async fn new_tab(&self) {
        let tab = self.driver.new_tab().await.expect("there is room for a tab");
        self.driver.switch_to_window(tab).await.expect("it opens");
    }

    /// Brings a tab to the front. Tabs are numbered from 0 in the order in which they were opened.
    pub async fn switch_to_tab(&self, number: usize) {
        let open = async || self.driver.windows().await.ok()?.get(number).cloned();
        let tab = eventually("the tab", open).await;
        self.driver.switch_to_window(tab).await.expect("it is still there");
    }

    /// Waits until the element contains this text.
    pub async fn sees(&self, css: &str, text: &str) {
        let what = format!("{text:?} in {css}");
        eventually(&what, async || self.text(css).await.filter(|found| found.contains(text))).await;
    }

    /// The visible text of the first such element, if there is one now.
    pub async fn text(&self, css: &str) -> Option<String> {
        self.driver.find(By::Css(css)).await.ok()?.text().await.ok()
    }

    pub async fn click(&self, css: &str) {
        eventually(css, async || self.find(css).await?.click().await.ok()).await;
    }

    /// Presses a button, and waits until another page has loaded.
    pub async fn submit(&self, css: &str) {
        let gone = "return document.documentElement.dataset.left === undefined";
        self.script("document.documentElement.dataset.left = ''; return null").await;
        self.click(css).await;
        eventually("the next page", async || {
            let is_gone = self.driver.execute(gone, Vec::new()).await.ok()?.json().as_bool()?;
            (is_gone && self.find("body").await.is_some()).then_some(())
        })
        .await;
    }

    pub async fn fill(&self, css: &str, text: &str) {
        eventually(css, async || {
            let field = self.find(css).await?;
            field.clear().await.ok()?;
            field.send_keys(text).await.ok()
        })
        .await;
    }

    pub async fn choose_file(&self, css: &str, file: &Path) {
        let field = self.find(css).await.expect("there is such a field");
        field.send_keys(file.display().to_string()).await.expect("it takes files");
    }

    /// Sets a mark that a reload would remove.
    pub async fn mark_page(&self) {
        self.script("window.isMarked = true; return null").await;
    }

    pub async fn is_marked(&self) -> bool {
        self.script("return window.isMarked === true").await == serde_json::Value::Bool(true)
    }

    pub async fn cookies(&self) -> Vec<Cookie> {
        self.driver.get_all_cookies().await.expect("there are cookies")
    }

    pub async fn resize(&self, width: u32, height: u32) {
        self.driver.set_window_rect(0, 0, width, height).await.expect("the window changes");
    }

    /// The page as a PNG, cut off where its content ends.
    pub async fn screenshot(&self, width: u32) -> Vec<u8> {
        self.resize(width, 400).await;
        let height = self.script("return document.documentElement.scrollHeight").await;
        let height = u32::try_from(height.as_u64().expect("it has a height")).expect("it is no tower");
        let chrome = self.script("return window.outerHeight - window.innerHeight").await.as_u64().unwrap_or_default();
        self.resize(width, height + u32::try_from(chrome).expect("it is small")).await;
        self.driver.screenshot_as_png().await.expect("it can be drawn")
    }

    async fn find(&self, css: &str) -> Option<WebElement> {
        self.driver.find(By::Css(css)).await.ok()
    }

    pub async fn script(&self, script: &str) -> serde_json::Value {
        self.driver.execute(script, Vec::new()).await.expect("the script runs").json().clone()
    }
}
