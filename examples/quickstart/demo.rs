//! The demonstration: a provider in this program, a user without a browser, and a reviewer who takes some seconds.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use openid_deferred::testing::{DecisionPolicy, NoncePolicy, RecordedRequest, TestClient, TestProvider, TestUser};
use openid_deferred::{Claims, Client, ClientAuthentication, Clock, SystemClock};
use serde_json::Value;

use super::{Browser, Progress, sign_in};

const REDIRECT_URI: &str = "https://rp.example/callback";

pub async fn run() -> anyhow::Result<Claims> {
    // A strict provider on a loopback port. Your own tests can use it the same way.
    let op = TestProvider::builder()
        .client(TestClient::secret_basic("demo-app", "a secret of the demo app").redirect_uri(REDIRECT_URI))
        .user(TestUser::new("248289761001").claim("name", "Jane Doe").claim("email", "jane@example.com"))
        .interim_claim("name", "Jane Doe")
        .dpop_nonces(NoncePolicy::Required)
        .interval(Duration::from_secs(1))
        .expires_in(Duration::from_secs(3 * 7 * 24 * 3600))
        .decisions(DecisionPolicy::scripted())
        .start()?;
    let progress = Progress::new(wire_log(&op));
    eprintln!("An OpenID Provider is running at {}.", op.issuer());

    let client = Client::builder(op.issuer(), "demo-app")
        .authentication(ClientAuthentication::client_secret_basic("a secret of the demo app"))
        .redirect_uri(REDIRECT_URI)
        // The demonstration's provider uses plain HTTP on this machine. Omit this everywhere else.
        .allow_insecure_loopback()
        .discover()
        .await?;
    progress.step("Discover the provider", "its metadata and its keys, checked against the issuer");

    let mut browser = DemoBrowser { op: op.clone() };
    let (claims, ()) = tokio::try_join!(sign_in(&client, &mut browser, &progress), review(&op))?;
    // The provider records every request that breaks a rule, including early polls.
    op.assert_clean();
    Ok(claims)
}

/// Plays the reviewer at the provider while the application waits.
async fn review(op: &TestProvider) -> anyhow::Result<()> {
    let a_moment = || SystemClock.sleep(Duration::from_millis(50));
    let process = loop {
        if let Some(process) = op.processes().into_iter().find(|process| process.deferred_auth_id().is_some()) {
            break process;
        }
        a_moment().await;
    };
    let polled = async |polls: usize| {
        while process.polls() < polls {
            a_moment().await;
        }
    };
    process.progress("step 1 of 2: the picture is being compared with the passport");
    polled(2).await;
    process.progress("step 2 of 2: a person is looking at the passport");
    polled(3).await;
    process.slow_down_next();
    polled(4).await;
    process.approve();
    Ok(())
}

struct DemoBrowser {
    op: TestProvider,
}

impl Browser for DemoBrowser {
    fn scopes(&self) -> Vec<String> {
        vec!["profile".to_owned(), "email".to_owned()]
    }

    fn visit<'a>(&'a mut self, url: &'a str) -> BoxFuture<'a, anyhow::Result<String>> {
        Box::pin(async move { Ok(self.op.visit(url).query()) })
    }
}

/// Lists the requests since the last call.
fn wire_log(op: &TestProvider) -> impl Fn() -> Vec<String> + Send + Sync + use<> {
    let op = op.clone();
    let seen = Mutex::new(0);
    move || {
        let mut seen = seen.lock().expect("no holder of the lock panics");
        let answered: Vec<_> =
            op.requests().into_iter().skip(*seen).take_while(|request| request.status.is_some()).collect();
        *seen += answered.len();
        answered.iter().flat_map(show).collect()
    }
}

/// The most members of a response that are shown. The metadata has dozens.
const SHOWN_MEMBERS: usize = 5;
const LINE: usize = 110;

fn show(request: &RecordedRequest) -> Vec<String> {
    let headers = ["authorization", "dpop"].iter().filter_map(|name| Some((*name, request.header(name)?)));
    let headers = headers.map(|(name, value)| format!("{name}: {}", shortened(value)));
    let parameters = request.parameters.iter().map(|(name, value)| format!("{name}={}", shortened(value)));
    let path = request.url.split('?').next().unwrap_or_default();
    let mut lines = wrapped(format!("→ {} {path}", request.method), headers.chain(parameters));

    let response = request.response_json();
    let members = response.as_object().into_iter().flatten();
    let hidden = members.clone().count().saturating_sub(SHOWN_MEMBERS);
    let members = members.take(SHOWN_MEMBERS).map(|(name, value)| match value {
        Value::String(text) => format!("{name}={}", shortened(text)),
        Value::Number(number) => format!("{name}={number}"),
        _ => format!("{name}=…"),
    });
    let more = (hidden > 0).then(|| format!("and {hidden} more"));
    lines.extend(wrapped(format!("← {}", request.status.unwrap_or_default()), members.chain(more)));
    lines
}

/// Appends `parts` to `start`, on as many lines as necessary.
fn wrapped(start: String, parts: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines = vec![start];
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.chars().count() + 2 <= LINE => {
                line.push_str("  ");
                line.push_str(&part);
            }
            _ => lines.push(format!("    {part}")),
        }
    }
    lines
}

/// The values are secret, or nearly so. Their beginning is enough to recognise them in later steps.
fn shortened(value: &str) -> String {
    const SHOWN: usize = 12;
    let readable =
        value.starts_with("http") || value.starts_with("urn:") || value.contains(' ') && !value.starts_with("Basic");
    if readable || value.chars().count() <= 2 * SHOWN {
        return value.to_owned();
    }
    format!("{}…", value.chars().take(SHOWN).collect::<String>())
}
