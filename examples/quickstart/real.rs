//! A sign-in at a real provider, with the user's own browser and a redirect to this machine.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use clap::Parser;
use futures_util::future::BoxFuture;
use openid_deferred::{Claims, Client, ClientAuthentication, ProviderMetadata};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;

use super::{Browser, Progress, sign_in};

/// Signs one user in through the Deferred Token Response flow and prints the verified claims as JSON.
///
/// Without OPENID_DEFERRED_ISSUER it runs a demonstration without further requirements. With OPENID_DEFERRED_ISSUER,
/// OPENID_DEFERRED_CLIENT_ID and, for a confidential client, OPENID_DEFERRED_CLIENT_SECRET it signs in at that OpenID
/// Provider; register http://127.0.0.1:<port>/cb as the redirect URI. The exit code is 0 after a sign-in, 1 if there
/// was none, and 2 for unknown arguments.
#[derive(Parser)]
struct Arguments {
    /// The loopback port that the provider sends the browser back to [default: 8765].
    #[arg(long)]
    redirect_port: Option<u16>,
}

const DEFAULT_PORT: u16 = 8765;

pub struct Settings {
    issuer: String,
    client_id: String,
    secret: Option<String>,
    redirect_port: u16,
}

impl Settings {
    /// `None` if no variable names a provider, which means the demonstration.
    pub fn from_environment() -> anyhow::Result<Option<Self>> {
        let Arguments { redirect_port } = Arguments::parse();
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(issuer) = variable("OPENID_DEFERRED_ISSUER") else {
            // A misspelt variable must not lead to the made-up claims of the demonstration.
            let others = std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("OPENID_DEFERRED_"));
            if others || redirect_port.is_some() {
                bail!("OPENID_DEFERRED_ISSUER is not set; the demonstration takes no settings");
            }
            return Ok(None);
        };
        let redirect_port = redirect_port.unwrap_or(DEFAULT_PORT);
        let client_id = variable("OPENID_DEFERRED_CLIENT_ID")
            .context("set OPENID_DEFERRED_CLIENT_ID to the client identifier that the provider registered")?;
        Ok(Some(Self { issuer, client_id, secret: variable("OPENID_DEFERRED_CLIENT_SECRET"), redirect_port }))
    }
}

pub async fn run(settings: Settings) -> anyhow::Result<Claims> {
    // Listen first, so that the redirect cannot arrive too early.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.redirect_port))
        .await
        .with_context(|| format!("cannot listen on port {}; choose another --redirect-port", settings.redirect_port))?;
    let redirect_uri = format!("http://127.0.0.1:{}/cb", listener.local_addr()?.port());
    let progress = Progress::new(Vec::new);

    let builder = || {
        let builder = Client::builder(&settings.issuer, &settings.client_id).redirect_uri(&redirect_uri);
        // It permits plain HTTP only to loopback addresses, so it is harmless with any other provider.
        builder.allow_insecure_loopback()
    };
    let asked = async { builder().build()?.provider_metadata().await };
    let metadata = asked.await.with_context(|| format!("cannot discover the provider {}", settings.issuer))?;
    let client = builder().authentication(authentication(&settings, &metadata)).discover().await?;
    progress.step("Discover the provider", client.issuer());

    let mut browser = RealBrowser { scopes: scopes(&metadata), listener: Some(listener) };
    sign_in(&client, &mut browser, &progress).await
}

/// Uses the header, unless the provider accepts the secret only in the body.
fn authentication(settings: &Settings, metadata: &ProviderMetadata) -> ClientAuthentication {
    let Some(secret) = &settings.secret else { return ClientAuthentication::none() };
    let methods = metadata.token_endpoint_auth_methods_supported();
    let lists = |method: &str| methods.iter().any(|listed| listed == method);
    if lists("client_secret_post") && !lists("client_secret_basic") {
        ClientAuthentication::client_secret_post(secret.as_str())
    } else {
        ClientAuthentication::client_secret_basic(secret.as_str())
    }
}

/// The scopes that the provider offers of those that this example can use.
fn scopes(metadata: &ProviderMetadata) -> Vec<String> {
    let offered = metadata.scopes_supported();
    let is_offered = |ours: &&str| offered.is_empty() || offered.iter().any(|scope| scope == ours);
    ["profile", "email"].into_iter().filter(is_offered).map(str::to_owned).collect()
}

struct RealBrowser {
    scopes: Vec<String>,
    listener: Option<TcpListener>,
}

impl Browser for RealBrowser {
    fn scopes(&self) -> Vec<String> {
        self.scopes.clone()
    }

    fn visit<'a>(&'a mut self, url: &'a str) -> BoxFuture<'a, anyhow::Result<String>> {
        Box::pin(async move {
            let listener = self.listener.take().context("the browser has already been sent")?;
            // Any page can make the browser call our address. Only the response with our `state` is for us. The library
            // checks this again.
            let state = Url::parse(url)?.query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into());
            let (sender, mut receiver) = mpsc::channel(1);
            let waiting = Arc::new(Waiting { state: state.context("the URL has a state")?, sender });
            let router = Router::new().route("/cb", get(callback)).with_state(waiting);
            eprintln!("\nOpen this in a browser on this machine:\n\n{url}\n");
            let server = axum::serve(listener, router);
            tokio::select! {
                stopped = async { server.await } => {
                    stopped?;
                    anyhow::bail!("the listener for the redirect stopped")
                }
                query = receiver.recv() => query.context("no redirect arrived"),
            }
        })
    }
}

/// What the handler of the redirect needs.
struct Waiting {
    state: String,
    sender: mpsc::Sender<String>,
}

/// Handles the redirect URI. A web application would open the session from the browser's cookie here.
async fn callback(State(waiting): State<Arc<Waiting>>, RawQuery(query): RawQuery) -> (StatusCode, Html<&'static str>) {
    let query = query.unwrap_or_default();
    let is_ours =
        form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "state" && value == waiting.state);
    if !is_ours {
        return (StatusCode::BAD_REQUEST, Html("<!doctype html><title>Not for us</title><p>This is not the answer."));
    }
    // A second visit, such as a reload, changes nothing.
    let _ = waiting.sender.try_send(query);
    (StatusCode::OK, Html("<!doctype html><title>Back</title><p>You can close this page; the terminal has the rest."))
}
