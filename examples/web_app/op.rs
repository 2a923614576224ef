//! The OP: a `TestProvider` for the protocol, and pages for users and for reviewers in front of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProcess, TestProvider};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::guard::protect;
use super::{op_desk, op_user, settings, shell, stop};

pub const CLIENT_ID: &str = "fairwater";
pub const CLIENT_SECRET: &str = "a secret of the demo application";

#[derive(clap::Args)]
pub struct OpSettings {
    /// The URL of the application, such as http://127.0.0.1:8080.
    #[arg(long)]
    pub app: String,
    /// The address of the OP's pages; any free port unless set.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    pub listen: SocketAddr,
    /// Notify the application of decisions at its /deferred/ping. It then polls less often.
    #[arg(long)]
    pub pings: bool,
    /// Speak the IETF draft, and require each user once more, at a link with buttons to approve and to deny.
    #[arg(long)]
    pub ietf: bool,
    /// The polling interval of the application in seconds; 2, or 15 with pings, unless set.
    #[arg(long)]
    pub interval: Option<u64>,
}

/// Runs the OP until it is told to stop.
pub async fn run(settings: OpSettings) -> anyhow::Result<()> {
    let (front, listener) = open(&settings).await?;
    // For the program that starts the application; see `Urls` in tests/web.
    println!("issuer {}", front.op.issuer());
    println!("cancellation {}", front.op.cancellation_endpoint());
    println!("pages {}", front.base);
    eprintln!("Start the application with {}='{CLIENT_SECRET}' and", settings::SECRET_VARIABLE);
    eprintln!("web_app run --listen … {}", front.application_arguments(settings.pings).join(" "));
    let op = front.op.clone();
    tokio::select! {
        served = serve(front, listener) => served,
        stopped = stop::requested() => {
            report(&op);
            stopped
        }
    }
}

/// Prints the requests that broke a rule, including early polls.
pub fn report(op: &TestProvider) {
    for violation in op.violations() {
        println!("the OP noted: {violation}");
    }
}

/// Starts a strict OP on a loopback port. One of our pages is its authorization endpoint.
pub async fn open(settings: &OpSettings) -> anyhow::Result<(Front, TcpListener)> {
    let listener = TcpListener::bind(settings.listen).await.context("the OP cannot listen")?;
    let base = format!("http://{}", listener.local_addr()?);
    let redirect_uri = format!("{}/callback", settings.app);
    let mut client =
        TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(&redirect_uri).signing_algorithm("ES256");
    if settings.pings {
        client = client.notification_endpoint(&format!("{}/deferred/ping", settings.app));
    }
    let authorization_endpoint = format!("{base}/authorize");
    let mut op = TestProvider::builder();
    if settings.ietf {
        op = op.ietf().requires_interaction();
    }
    let op = op
        .client(client)
        .interval(Duration::from_secs(settings.interval.unwrap_or(if settings.pings { 15 } else { 2 })))
        .decisions(DecisionPolicy::scripted())
        .metadata(move |members| {
            members.insert("authorization_endpoint".into(), authorization_endpoint.clone().into());
        })
        .start()?;
    let cases = Arc::default();
    Ok((Front { op, base, redirect_uri, cases, changed: watch::Sender::new(()) }, listener))
}

/// Serves the OP's pages. It never ends.
pub async fn serve(front: Front, listener: TcpListener) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/authorize", get(op_user::ask).post(op_user::answer))
        .route("/desk", get(op_desk::desk))
        .route("/desk/live", get(op_desk::stream))
        .route("/desk/{case}", post(op_desk::decide))
        .route("/desk/{case}/picture", get(op_desk::picture))
        .with_state(front)
        .merge(shell::assets())
        .layer(from_fn(from_our_pages))
        .layer(map_response(protect));
    axum::serve(listener, router).await.context("the OP's pages cannot be served")
}

/// Refuses forms of other sites. Browsers send `Sec-Fetch-Site` only to HTTPS and loopback addresses.
async fn from_our_pages(request: Request, next: Next) -> Response {
    let is_ours = request.headers().get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    match request.method().is_safe() || is_ours {
        true => next.run(request).await,
        false => (StatusCode::FORBIDDEN, "This form was not sent from a page of ours.\n").into_response(),
    }
}

/// The data that the pages share. Clones share it too.
#[derive(Clone)]
pub struct Front {
    pub op: TestProvider,
    /// The base URL of the pages.
    pub base: String,
    pub redirect_uri: String,
    cases: Arc<Mutex<Vec<Case>>>,
    /// Wakes the reviewers' page.
    pub changed: watch::Sender<()>,
}

/// A user whose identity is being verified.
#[derive(Clone)]
pub struct Case {
    pub process: TestProcess,
    pub name: String,
    pub birthdate: String,
    pub picture: Picture,
    /// The latest progress text of the reviewers.
    pub progress: Option<String>,
    /// The decision of the reviewers.
    pub verdict: Option<&'static str>,
}

impl Case {
    /// What the application polls with, in either draft. `None` until it has exchanged its code.
    pub fn identifier(&self) -> Option<String> {
        self.process.deferred_auth_id().or_else(|| self.process.deferral_code())
    }
}

#[derive(Clone)]
pub struct Picture {
    pub media_type: &'static str,
    pub bytes: Bytes,
}

impl Front {
    /// The cases in the order of their arrival. The lock blocks other users, so release it soon.
    pub fn cases(&self) -> MutexGuard<'_, Vec<Case>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The arguments for starting the application.
    pub fn application_arguments(&self, pings: bool) -> Vec<String> {
        let mut arguments = vec!["--issuer".to_owned(), self.op.issuer().to_owned()];
        arguments.extend(["--cancellation-endpoint".to_owned(), self.op.cancellation_endpoint()]);
        arguments.extend(pings.then(|| "--pings".to_owned()));
        arguments
    }
}
