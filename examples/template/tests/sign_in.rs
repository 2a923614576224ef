//! Whole sign-ins over HTTP: the application on every database, an OP, and browsers.

use std::collections::BTreeMap;
use std::time::Duration;

use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider, TestUser};
use openid_deferred::{ClientAuthentication, Keyring, SealingKey, SigningAlgorithm, SystemRandom};
use reqwest::header::{LOCATION, SET_COOKIE};
use reqwest::{Method, Response, StatusCode};
use sign_in_application::Application;
use sign_in_application::settings::{Place, Settings};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

mod support;

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_user_waits_for_the_provider_and_is_signed_in_once() {
    for (place, _folder) in support::places().await {
        let world = World::start(place).await;
        let mut user = world.browser();
        assert!(user.page("/").await.contains("Sign in"));
        let path = user.starts().await;
        assert!(user.page(&path).await.contains("Your provider is checking who you are"));
        let answer = user.post(&format!("{path}/finish")).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT, "the provider has not decided");

        world.op.last_process().approve();
        assert_eq!(user.ending(&path).await, "approved");
        assert!(user.page(&path).await.contains("Your provider has approved"));
        let answer = user.post(&format!("{path}/finish")).await;
        assert_eq!((answer.status(), &answer.headers()[LOCATION]), (StatusCode::SEE_OTHER, &"/".parse().unwrap()));
        assert!(user.page("/").await.contains("Welcome, Jane Doe"));

        let again = user.post(&format!("{path}/finish")).await;
        assert_eq!(again.status(), StatusCode::NOT_FOUND, "the sign-in is used up");
        user.post("/sign-out").await;
        assert!(user.page("/").await.contains("Sign in"));
        world.op.assert_clean();
        world.stop().await;
    }
}

#[tokio::test]
async fn a_sign_in_survives_a_restart_of_the_application() {
    for (place, _folder) in support::places().await {
        let world = World::start(place).await;
        let mut user = world.browser();
        let path = user.starts().await;
        let world = world.restart(|op| op.last_process().approve()).await;
        assert_eq!(user.ending(&path).await, "approved");
        user.post(&format!("{path}/finish")).await;
        assert!(user.page("/").await.contains("Welcome, Jane Doe"));
        world.op.assert_clean();
        world.stop().await;
    }
}

#[tokio::test]
async fn a_denial_signs_no_user_in_and_is_not_visible_to_another_browser() {
    for (place, _folder) in support::places().await {
        let world = World::start(place).await;
        let mut user = world.browser();
        let path = user.starts().await;
        assert_eq!(world.browser().get(&path).await.status(), StatusCode::NOT_FOUND);
        world.op.last_process().deny();
        assert_eq!(user.ending(&path).await, "denied");
        assert!(user.page(&path).await.contains("Your provider has refused"));
        assert_eq!(user.post(&format!("{path}/finish")).await.status(), StatusCode::CONFLICT);
        assert!(user.page("/").await.contains(&path));
        // The user has seen it.
        assert_eq!(user.post(&format!("{path}/dismiss")).await.headers()[LOCATION], "/");
        let home = user.page("/").await;
        assert!(home.contains("Sign in") && !home.contains(&path));
        world.op.assert_clean();
        world.stop().await;
    }
}

#[tokio::test]
async fn pages_are_protected_and_the_health_check_answers() {
    for (place, _folder) in support::places().await {
        let world = World::start(place).await;
        let mut user = world.browser();
        let answer = user.get("/").await;
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains(&format!("form-action 'self' {};", world.op.issuer())), "{policy}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let forged = user.send(Method::POST, "/sign-in", &[("sec-fetch-site", "cross-site")]).await;
        assert_eq!(forged.status(), StatusCode::FORBIDDEN);
        let forged = user.send(Method::POST, "/sign-out", &[("origin", "https://attacker.example")]).await;
        assert_eq!(forged.status(), StatusCode::FORBIDDEN);
        assert_eq!(user.get("/health").await.status(), StatusCode::OK);
        world.stop().await;
    }
}

/// The application behind a socket, and its OP.
struct World {
    op: TestProvider,
    settings: Settings,
    running: Running,
}

struct Running {
    stop: oneshot::Sender<()>,
    served: JoinHandle<anyhow::Result<()>>,
}

impl World {
    async fn start(place: Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let listen = listener.local_addr().expect("it has an address");
        let url = format!("http://{listen}");
        let op = TestProvider::builder()
            .client(TestClient::secret_basic("application", "secret").redirect_uri(&format!("{url}/callback")))
            .user(TestUser::new("jane").claim("name", "Jane Doe"))
            .interval(Duration::from_secs(1))
            .decisions(DecisionPolicy::scripted())
            .start()
            .expect("the provider starts");
        let settings = Settings {
            listen,
            metrics_listen: None,
            public_url: url.parse().expect("it is a URL"),
            place,
            keyring: Keyring::new(SealingKey::generate(&SystemRandom).expect("randomness")),
            issuer: op.issuer().to_owned(),
            client_id: "application".to_owned(),
            authentication: ClientAuthentication::client_secret_basic("secret"),
            id_token_algorithm: SigningAlgorithm::Rs256,
            pings: false,
        };
        let running = Running::start(&settings, listener).await;
        Self { op, settings, running }
    }

    /// Stops the application, and starts it again after this has happened.
    async fn restart(self, meanwhile: impl FnOnce(&TestProvider)) -> Self {
        let Self { op, settings, running } = self;
        running.stop().await;
        meanwhile(&op);
        let listener = TcpListener::bind(settings.listen).await.expect("the port is free again");
        let running = Running::start(&settings, listener).await;
        Self { op, settings, running }
    }

    async fn stop(self) {
        self.running.stop().await;
    }

    fn browser(&self) -> Browser {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE);
        Browser {
            origin: self.settings.origin(),
            op: self.op.clone(),
            http: http.build().expect("a client"),
            cookies: BTreeMap::new(),
        }
    }
}

impl Running {
    async fn start(settings: &Settings, listener: TcpListener) -> Self {
        let client = settings.client().build().expect("the settings work");
        let application = Application::start(settings, client).await.expect("the application starts");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(application.serve(listener, async {
            let _ = stopped.await;
        }));
        Self { stop, served }
    }

    async fn stop(self) {
        self.stop.send(()).expect("the application runs");
        let served = tokio::time::timeout(DEADLINE, self.served).await;
        served.expect("it stops in time").expect("it does not panic").expect("it stops well");
    }
}

/// A browser with its cookies.
struct Browser {
    origin: String,
    op: TestProvider,
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.origin));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header("cookie", cookies.join("; ")).send().await.expect("there is an answer");
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").expect("it has attributes");
            assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Lax"), "{attributes}");
            let (name, value) = pair.split_once('=').expect("it is a pair");
            match attributes.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        answer
    }

    async fn get(&mut self, path: &str) -> Response {
        self.send(Method::GET, path, &[]).await
    }

    /// The text of a page.
    async fn page(&mut self, path: &str) -> String {
        let answer = self.send(Method::GET, path, &[("accept", "text/html")]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.expect("it is text")
    }

    /// Sends a form of a page of the application.
    async fn post(&mut self, path: &str) -> Response {
        let origin = self.origin.clone();
        self.send(Method::POST, path, &[("origin", &origin)]).await
    }

    /// Goes to the OP and comes back. Returns the path of the sign-in.
    async fn starts(&mut self) -> String {
        let answer = self.post("/sign-in").await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let response = self.op.visit(answer.headers()[LOCATION].to_str().unwrap()).query();
        let answer = self.get(&format!("/callback?{response}")).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        answer.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    /// Waits until the application has the outcome.
    async fn ending(&mut self, path: &str) -> String {
        let ended = async {
            loop {
                let status = self.get(path).await.text().await.expect("it is text");
                let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
                if let Some(ending) = status["ending"].as_str() {
                    return ending.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.expect("the outcome arrives in time")
    }
}
