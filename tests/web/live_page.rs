//! The page that updates itself in docs/first-sign-in.md: its policy, HTML and script as they stand there, in Chromium.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use openid_deferred::axum::{SignInCookies, SignInHooks, SignInRouter, Visit};
use openid_deferred::poller::Status;
use openid_deferred::store::{MemoryStore, ProcessId};
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
use openid_deferred::{Authentication, Client, ClientAuthentication, Delivery, Keyring, Poller};
use tokio::net::TcpListener;

use super::PERMITS;
use super::browser::{Browser, Chromedriver};

const GUIDE: &str = include_str!("../../docs/first-sign-in.md");

/// The first block of this kind in the section about the page.
fn sample(kind: &str) -> &'static str {
    let (_, section) = GUIDE.split_once("#### A page that updates itself\n").expect("there is such a section");
    let (_, block) = section.split_once(&format!("```{kind}\n")).expect("it has such a block");
    block.split("```").next().expect("a split has a first part")
}

/// How sign-ins ended.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<HashMap<ProcessId, &'static str>>>);

impl Shop {
    fn record(&self, delivery: &Delivery) {
        let ending = delivery.outcome().approved().map_or("not approved", |_| "approved");
        self.0.lock().expect("no test panics with it").insert(delivery.id(), ending);
    }
}

impl SignInHooks for Shop {
    async fn complete(&self, _: Authentication, _: &Visit) -> Response {
        panic!("the OP does not answer at once")
    }

    async fn page(&self, id: ProcessId, _: Option<Status>, visit: &Visit) -> Response {
        let policy = sample("text").trim().strip_prefix("Content-Security-Policy: ").expect("it is this header");
        let html = sample("html").replace("PATH", &visit.status_path(id));
        ([(CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
    }

    async fn ending(&self, id: ProcessId) -> Option<serde_json::Value> {
        self.0.lock().expect("no test panics with it").get(&id).map(|ending| serde_json::json!(ending))
    }

    async fn finish(&self, _: ProcessId, _: &Visit) -> Option<Response> {
        Some(Html("<h1>Welcome</h1>").into_response())
    }
}

#[tokio::test]
async fn the_page_of_the_guide_updates_itself_under_its_policy() {
    let _turn = PERMITS.acquire().await.expect("it is never closed");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let app_url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let redirect_uri = format!("{app_url}/callback");
    let op = TestProvider::builder()
        .client(TestClient::secret_basic("shop", "secret").redirect_uri(&redirect_uri))
        .interval(std::time::Duration::from_secs(1))
        .decisions(DecisionPolicy::scripted())
        .start()
        .expect("the OP starts");
    let client = Client::builder(op.issuer(), "shop")
        .authentication(ClientAuthentication::client_secret_basic("secret"))
        .redirect_uri(&redirect_uri)
        .allow_insecure_loopback()
        .build()
        .expect("the settings work");
    let keyring = Keyring::ephemeral().expect("a key");
    let poller = Poller::builder(MemoryStore::new(), keyring.clone()).client(client.clone());
    let poller = poller.start().await.expect("the poller starts");
    let shop = Shop::default();
    let sign_in = SignInRouter::new(client, poller.clone(), shop.clone());
    let sign_in = sign_in.cookies(SignInCookies::new(keyring).insecure_loopback()).build().expect("the paths differ");
    let script = async || ([(CONTENT_TYPE, "text/javascript")], sample("js"));
    let app = sign_in.route("/live.js", get(script));
    let used = async {
        let chromedriver = Chromedriver::start();
        let user = Browser::open(&chromedriver).await;
        user.goto(&format!("{app_url}/sign-in")).await;
        user.submit("form button").await;
        user.sees("h1", "Your provider is checking who you are").await;
        user.mark_page().await;
        for form in ["#finish", "#dismiss"] {
            assert_eq!(user.text(form).await.as_deref(), Some(""), "it is hidden");
        }
        op.last_process().progress("Comparing <b>the photo</b>");
        user.sees("#progress", "Comparing <b>the photo</b>").await;
        op.last_process().approve();
        user.sees("h1", "Your provider has approved").await;
        assert!(user.is_marked().await, "the page was not loaded again");
        assert_eq!(user.text("#dismiss").await.as_deref(), Some(""), "it is hidden");
        user.submit("#finish button").await;
        user.sees("h1", "Welcome").await;
        assert!(user.cookies().await.is_empty());

        user.goto(&format!("{app_url}/sign-in")).await;
        user.submit("form button").await;
        user.sees("h1", "Your provider is checking who you are").await;
        op.last_process().deny();
        user.sees("h1", "You are not signed in").await;
        assert_eq!(user.text("#finish").await.as_deref(), Some(""), "nothing can be finished");
        user.sees("#dismiss", "To the start page").await;
    };
    tokio::select! {
        () = used => {}
        served = axum::serve(listener, app) => panic!("{served:?}"),
        () = poller.outcomes().handle_each(async |delivery| {
            shop.record(delivery);
            Ok(())
        }) => panic!("the poller has stopped"),
    }
    op.assert_clean();
}
