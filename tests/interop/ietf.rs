//! The IETF dialect against a strict authorization server that was written from the text of the draft alone, without
//! any code of this crate (`ietf/server.mjs`, Node.js). It records each rule that a client breaks; every test ends
//! without any.
#![expect(clippy::disallowed_methods, reason = "the server runs in real time")]

mod grants;
#[cfg(all(feature = "axum", feature = "sqlite", feature = "testing"))]
mod poller;
mod sign_in;

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use openid_deferred::{Client, ClientAuthentication, ClientBuilder, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};
use url::Url;

use crate::browser::{Browser, Decision, certificate, http};
use crate::certificates::Identity;
use crate::installation::installed;
use crate::process::{Process, source};
use crate::support::{CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, key_set, with};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The longest wait for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs until this is dropped.
struct Strict {
    process: Mutex<Process>,
    issuer: String,
    /// The URL of a protected resource.
    resource: String,
    authority: Identity,
}

impl Strict {
    /// Starts a server with these settings (see `ietf/app.mjs`) and one client, which authenticates with its secret
    /// unless these members of its registration say otherwise. Returns `None` if it cannot run here.
    fn start(settings: Value, registered: Value) -> Option<Self> {
        Self::start_with(Identity::authority(), settings, registered)
    }

    /// The same with an authority that has signed the certificate of the client's notification endpoint.
    fn start_with(authority: Identity, settings: Value, registered: Value) -> Option<Self> {
        installed("ietf")?;
        let host = Identity::host("localhost", Some(&authority));
        let client = json!({
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "token_endpoint_auth_method": "client_secret_basic",
            "redirect_uris": [REDIRECT_URI],
        });
        let tls = json!({
            "authority": authority.certificate_pem(),
            "certificate": host.certificate_pem(),
            "key": host.key_pem(),
        });
        let settings = with(json!({ "tls": tls, "clients": [with(client, registered)] }), settings);
        let mut command = Command::new("node");
        let (process, said) = Process::start("ietf", command.arg(source("ietf/server.mjs")), &settings);
        let text = |name: &str| said[name].as_str().expect("it is text").to_owned();
        Some(Self { process: Mutex::new(process), issuer: text("issuer"), resource: text("resource"), authority })
    }

    /// Gives the server a command (see `COMMANDS` in `ietf/app.mjs`).
    fn tell(&self, command: &Value) -> Value {
        self.process.lock().expect("no test panics here").ask(command)
    }

    /// Moves the first process on (see `step` in `ietf/deferral.mjs`).
    fn decide(&self, to: &str) {
        self.tell(&json!({ "do": "decide", "id": 1, "to": to }));
    }

    fn processes(&self) -> Vec<Value> {
        self.tell(&json!({ "do": "processes" }))["processes"].as_array().expect("it is a list").clone()
    }

    /// The errors of the polls of the first process, and `success`.
    fn answers(&self) -> Vec<String> {
        let polls = self.processes()[0]["polls"].as_array().expect("it is a list").clone();
        polls.iter().map(|poll| poll["answer"].as_str().expect("it is text").to_owned()).collect()
    }

    /// Waits until the processes fulfil a condition.
    async fn until(&self, wanted: &str, condition: impl Fn(&[Value]) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !condition(&self.processes()) {
            assert!(tokio::time::Instant::now() < deadline, "not {wanted}: {:?}", self.processes());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the provider has received this many polls for the first process.
    #[cfg(all(feature = "axum", feature = "sqlite", feature = "testing"))]
    async fn polled(&self, times: usize) {
        let polls = |processes: &[Value]| processes[0]["polls"].as_array().is_some_and(|polls| polls.len() >= times);
        self.until("polled", polls).await;
    }

    /// Waits until a poll of the first process is answered like this.
    async fn answers_with(&self, answer: &str) {
        let last = |processes: &[Value]| {
            let polls = processes[0]["polls"].as_array();
            polls.and_then(|polls| polls.last()).is_some_and(|poll| poll["answer"] == answer)
        };
        self.until(answer, last).await;
    }

    /// Requires that the client has broken no rule.
    fn is_satisfied(&self) {
        let said = self.tell(&json!({ "do": "violations" }));
        assert_eq!(said["violations"], json!([]), "the client has broken rules");
    }

    /// The user opens a page of the server.
    async fn open(&self, uri: &str) {
        let answer = http(&self.authority.certificate_pem()).get(uri).send().await.expect("the server answers");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// The user goes to the server and comes back with the URL that this returns.
    async fn visit(&self, url: Url) -> String {
        let mut browser = Browser::new(&self.authority.certificate_pem(), None);
        browser.visit(url, REDIRECT_URI, |_, _| None, Decision::SignsIn).await
    }

    /// A client without a redirect URI and without an authentication method.
    fn bare_client(&self) -> ClientBuilder {
        let authority = certificate(&self.authority.certificate_pem());
        Client::builder(&self.issuer, CLIENT_ID)
            .configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]))
    }

    /// A client for grants without a user, which authenticates with its secret.
    async fn machine(&self) -> Client {
        self.discovered(with_secret(self.bare_client()).without_redirect_uri()).await
    }

    /// A client for sign-ins, which authenticates with its secret.
    async fn client(&self) -> Client {
        self.discovered(with_secret(self.bare_client()).redirect_uri(REDIRECT_URI)).await
    }

    async fn discovered(&self, client: ClientBuilder) -> Client {
        client.discover().await.unwrap_or_else(|error| panic!("{}", crate::support::chain(&error)))
    }
}

fn with_secret(client: ClientBuilder) -> ClientBuilder {
    client.authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
}

/// Every method of client authentication, with what is registered for it.
fn methods() -> [(Value, ClientAuthentication); 4] {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let registered = |method: &str| json!({ "token_endpoint_auth_method": method });
    [
        (registered("none"), ClientAuthentication::none()),
        (registered("client_secret_basic"), ClientAuthentication::client_secret_basic(CLIENT_SECRET)),
        (registered("client_secret_post"), ClientAuthentication::client_secret_post(CLIENT_SECRET)),
        (
            with(registered("private_key_jwt"), json!({ "jwks": key_set(key.public_jwk()) })),
            ClientAuthentication::private_key_jwt(key),
        ),
    ]
}
