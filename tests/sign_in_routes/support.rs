//! An application on the routes of `openid_deferred::axum`, an OP, and browsers with cookies of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use openid_deferred::axum::{BrowserSignIns, LogoutHooks, SignInCookies, SignInHooks, SignInRouter, Visit};
use openid_deferred::logout::{EndSessionRequest, LogoutToken, SessionsEnded};
use openid_deferred::store::{MemoryStore, ProcessId};
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider, TestProviderBuilder, TestUser};
use openid_deferred::{
    Authentication, AuthorizationRequest, Client, ClientAuthentication, ClientBuilder, Clock, Keyring, Outcome, Poller,
    Secret, SystemClock,
};
use reqwest::header::{HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

pub const REDIRECT_URI: &str = "https://rp.test/callback";
pub const LOGGED_OUT_URI: &str = "https://rp.test/logged-out";
pub const ORIGIN: &str = "https://rp.test";
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What the application knows about outcomes.
type Records = Arc<Mutex<BTreeMap<ProcessId, String>>>;

/// The sessions of the application.
#[derive(Default)]
pub struct Sessions {
    pub open: Vec<Session>,
    /// What the store does when the OP ends sessions, instead of ending them.
    pub broken: Option<SessionsEnded>,
    /// Whether the store does not answer.
    pub hangs: bool,
}

/// A signed-in user.
pub struct Session {
    pub subject: String,
    pub sid: Option<String>,
    pub id_token: Secret,
}

/// The application: it keeps the outcomes in a map, and says in its pages what it was told.
#[derive(Clone, Default)]
pub struct Shop(pub Records, pub Arc<Mutex<Sessions>>);

impl SignInHooks for Shop {
    async fn request<'a>(
        &self,
        request: AuthorizationRequest<'a>,
        visit: &Visit,
    ) -> Result<AuthorizationRequest<'a>, Response> {
        if visit.field("order").as_deref() == Some("sold out") {
            return Err((StatusCode::GONE, "sold out").into_response());
        }
        Ok(request.scopes(["profile"]).context(visit.field("order").unwrap_or_default()))
    }

    async fn complete(&self, authentication: Authentication, visit: &Visit) -> Response {
        assert_eq!(authentication.context(), visit.context());
        let mut response = Redirect::to(visit.return_path()).into_response();
        let subject = authentication.claims().subject();
        self.1.lock().expect("no test panics with it").open.push(Session {
            subject: subject.to_owned(),
            sid: authentication.claims().sid().map(str::to_owned),
            id_token: authentication.id_token().token().clone(),
        });
        let session = HeaderValue::from_str(&format!("shop={subject}; Secure; HttpOnly")).expect("a header");
        response.headers_mut().append(SET_COOKIE, session);
        response
    }

    async fn ending(&self, id: ProcessId) -> Option<Value> {
        self.0.lock().expect("no test panics with it").get(&id).map(|ending| Value::String(ending.clone()))
    }

    async fn finish(&self, id: ProcessId, visit: &Visit) -> Option<Response> {
        let ending = self.ending(id).await?;
        let is_approved = ending.as_str().is_some_and(|ending| ending.starts_with("approved"));
        let path = if visit.return_path() == "/" { "/account" } else { visit.return_path() };
        is_approved.then(|| Redirect::to(path).into_response())
    }
}

impl LogoutHooks for Shop {
    async fn log_out<'a>(
        &self,
        request: EndSessionRequest<'a>,
        visit: &Visit,
    ) -> Result<(EndSessionRequest<'a>, HeaderMap), Response> {
        let cookies = visit.parts().headers.get("cookie").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let subject = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("shop="));
        let Some(subject) = subject else { return Ok((request, HeaderMap::new())) };
        if visit.field("store").as_deref() == Some("down") {
            return Err(StatusCode::SERVICE_UNAVAILABLE.into_response());
        }
        let mut sessions = self.1.lock().expect("no test panics with it");
        let position = sessions.open.iter().position(|session| session.subject == subject);
        let request = match position.map(|position| sessions.open.remove(position)) {
            Some(session) => request.id_token_hint(session.id_token),
            None => request,
        };
        let deletion = HeaderValue::from_static("shop=; Max-Age=0");
        Ok((request, HeaderMap::from_iter([(SET_COOKIE, deletion)])))
    }

    async fn end_sessions(&self, token: &LogoutToken) -> SessionsEnded {
        if self.1.lock().expect("no test panics with it").hangs {
            return std::future::pending().await;
        }
        let mut sessions = self.1.lock().expect("no test panics with it");
        if let Some(broken) = sessions.broken {
            return broken;
        }
        let is_named = |session: &Session| {
            token.sid().is_none_or(|sid| session.sid.as_deref() == Some(sid))
                && token.subject().is_none_or(|subject| session.subject == subject)
        };
        sessions.open.retain(|session| !is_named(session));
        SessionsEnded::Done
    }
}

/// An application behind a real socket, with its OP.
pub struct World {
    pub shop: Shop,
    pub op: TestProvider,
    pub client: Client,
    pub poller: Poller,
    pub cookies: SignInCookies,
    pub url: String,
    http: reqwest::Client,
    /// The server and the consumer of outcomes, which end with the test.
    _tasks: JoinSet<()>,
}

/// What most tests leave as it is.
pub struct Setup {
    /// Whether the client knows the OP's cancellation endpoint.
    pub is_cancellable: bool,
    pub clock: Arc<dyn Clock>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { is_cancellable: true, clock: Arc::new(SystemClock) }
    }
}

pub async fn world() -> World {
    world_with(|op| op, |client| client).await
}

pub async fn world_with(
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    world_of(Setup::default(), op, client).await
}

pub async fn world_of(
    setup: Setup,
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let registered = TestClient::secret_basic("shop", "secret")
        .redirect_uri(REDIRECT_URI)
        .post_logout_redirect_uri(LOGGED_OUT_URI)
        .backchannel_logout_uri(&format!("{url}/sign-in/backchannel-logout"));
    let provider = TestProvider::builder()
        .in_process()
        .clock(setup.clock.clone())
        .client(registered)
        .user(TestUser::new("jane").claim("name", "Jane Doe"))
        .interval(Duration::from_secs(1))
        .decisions(DecisionPolicy::scripted());
    let op = op(provider).start().expect("the OP starts");
    let mut builder = Client::builder(op.issuer(), "shop")
        .authentication(ClientAuthentication::client_secret_basic("secret"))
        .redirect_uri(REDIRECT_URI)
        .post_logout_redirect_uri(LOGGED_OUT_URI)
        .clock(setup.clock.clone())
        .http_client(op.http_client());
    if setup.is_cancellable {
        builder = builder.cancellation_endpoint(op.cancellation_endpoint());
    }
    let client = client(builder).build().expect("the settings work");
    let keyring = Keyring::ephemeral().expect("a key");
    let store = MemoryStore::with_clock(setup.clock.clone());
    let poller = Poller::builder(store, keyring.clone()).clock(setup.clock).client(client.clone()).receives_pings();
    let poller = poller.start().await.expect("the poller starts");
    let (cookies, shop) = (SignInCookies::new(keyring), Shop::default());
    let routes = SignInRouter::new(client.clone(), poller.clone(), shop.clone())
        .receives_pings_at("/deferred/ping", poller.clone())
        .logout()
        // Only an application that hangs takes any time.
        .end_sessions_within(Duration::from_millis(100))
        .build()
        .expect("the paths differ");
    let home = async |sign_ins: BrowserSignIns| Json(sign_ins.ids().collect::<Vec<_>>());
    let app = Router::new().route("/", get(home)).with_state(cookies.clone()).merge(routes);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
    tasks.spawn(record(poller.clone(), shop.0.clone()));
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE);
    World { shop, op, client, poller, cookies, url, http: http.build().expect("a client"), _tasks: tasks }
}

/// Stores each outcome, then acknowledges it.
async fn record(poller: Poller, records: Records) {
    let mut outcomes = poller.outcomes();
    while let Some(delivery) = outcomes.next().await {
        let context = String::from_utf8_lossy(delivery.context()).into_owned();
        let ending = match delivery.outcome() {
            Outcome::Approved(user) => format!("approved {} {context}", user.claims().subject()),
            Outcome::Denied(_) => "denied".to_owned(),
            Outcome::Cancelled => "cancelled".to_owned(),
            other => format!("{other:?}"),
        };
        records.lock().expect("no test panics with it").insert(delivery.id(), ending);
        delivery.acknowledge().await.expect("the store is in memory");
    }
}

/// A browser with its cookies.
#[derive(Clone)]
pub struct Browser<'a> {
    world: &'a World,
    pub cookies: BTreeMap<String, String>,
}

/// An answer, with its body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{self:?}");
        self.headers[LOCATION].to_str().expect("it is text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem that it states, which must agree with its status.
    pub fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        problem["code"].as_str().expect("it has a code").to_owned()
    }

    /// Every `Set-Cookie`.
    pub fn cookies_set(&self) -> Vec<&str> {
        self.headers.get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().expect("it is text")).collect()
    }
}

impl World {
    pub fn browser(&self) -> Browser<'_> {
        Browser { world: self, cookies: BTreeMap::new() }
    }
}

impl Browser<'_> {
    /// A request with the cookies of this browser.
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.world.http.request(method, format!("{}{path}", self.world.url));
        if self.cookies.is_empty() {
            return request;
        }
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.header("cookie", cookies.join("; "))
    }

    /// Begins to read a page that need not end.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        self.request(Method::GET, path).send().await.expect("there is an answer")
    }

    pub async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.request(method, path).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("there is an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, body: response.text().await.expect("it is text") };
        for cookie in answer.cookies_set() {
            let (pair, attributes) = cookie.split_once("; ").expect("it has attributes");
            let (name, value) = pair.split_once('=').expect("it is a pair");
            match attributes.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// Loads a page.
    pub async fn page(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", "text/html,application/xhtml+xml")], "").await
    }

    /// Sends a form of a page of the application.
    pub async fn post(&mut self, path: &str, form: &str) -> Answer {
        self.send(Method::POST, path, &[("sec-fetch-site", "same-origin")], form).await
    }

    /// Starts a sign-in. Returns the URL at the OP.
    pub async fn begin(&mut self, form: &str) -> String {
        self.post("/sign-in", form).await.location().to_owned()
    }

    /// Starts a sign-in and finishes at the OP. Returns the path with the response.
    pub async fn returns(&mut self, form: &str) -> String {
        let url = self.begin(form).await;
        format!("/callback?{}", self.world.op.visit(url).query())
    }

    /// Starts a sign-in that waits for the OP.
    pub async fn waits(&mut self, form: &str) -> ProcessId {
        let callback = self.returns(form).await;
        let answer = self.get(&callback).await;
        let path = answer.location().strip_prefix("/sign-in/").expect("it is the page of a sign-in");
        path.parse().expect("it is an id")
    }

    pub async fn status(&mut self, id: ProcessId) -> Value {
        self.get(&format!("/sign-in/{id}")).await.json()
    }

    /// Waits until the sign-in has ended.
    pub async fn ended(&mut self, id: ProcessId) -> Value {
        let end = SystemClock.monotonic() + DEADLINE;
        loop {
            let status = self.status(id).await;
            if status["has_ended"] == true {
                return status;
            }
            assert!(SystemClock.monotonic() < end, "{status}");
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The sign-ins that the application recognises.
    pub async fn known(&mut self) -> Vec<ProcessId> {
        serde_json::from_value(self.get("/").await.json()).expect("they are ids")
    }
}
