//! The web server: users start sign-ins and return, and the OP sends pings.

use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use openid_deferred::ciba::UserHint;
use openid_deferred::poller::{AcceptedSignIn, AcceptedTokenRequest};
use openid_deferred::store::ProcessId;
use openid_deferred::{AuthorizationSession, Client, Error, Grant, Keyring, Poller, ping};
use serde_json::json;
use tokio::net::TcpListener;

use crate::settings::Clients;

/// The web server, if this worker has one.
pub struct WebServer(Option<(TcpListener, Router)>);

#[derive(Clone)]
struct App {
    client: Client,
    poller: Poller,
    keyring: Keyring,
}

impl WebServer {
    pub async fn open(
        address: Option<SocketAddr>,
        clients: Clients,
        poller: &Poller,
        keyring: Keyring,
    ) -> anyhow::Result<Self> {
        let Some(address) = address else { return Ok(Self(None)) };
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
        let app = |client| App { client, poller: poller.clone(), keyring: keyring.clone() };
        let mut router = Router::new()
            .route("/start/{user}", get(start))
            .route("/callback", get(callback))
            .route("/status/{id}", get(status))
            .with_state(app(clients.main));
        if let Some(client) = clients.ietf {
            let routes =
                Router::new().route("/ietf/start/{user}", get(start)).route("/ietf/order/{order}", post(order));
            router = router.merge(routes.with_state(app(client)));
        }
        if let Some(client) = clients.ciba {
            let routes = Router::new().route("/ciba/ask/{user}", post(ask));
            router = router.merge(routes.with_state(app(client)));
        }
        let router = router
            // The notification endpoint that is registered at the OP. Pings only bring polls forward.
            .route("/ping", ping::axum::route(poller.clone()));
        Ok(Self(Some((listener, router))))
    }

    /// Serves requests. It never ends.
    pub async fn serve(self) -> anyhow::Result<()> {
        match self.0 {
            None => std::future::pending().await,
            Some((listener, router)) => axum::serve(listener, router).await.context("the server failed"),
        }
    }
}

/// Sends a user to the OP. A cookie keeps the sealed session until they return. The user's number is sealed into it, so
/// the outcome belongs to this user, whatever the browser does meanwhile. A real application knows its user from its
/// own login.
async fn start(State(app): State<App>, Path(user): Path<u32>) -> Result<Response, Refusal> {
    let (url, session) = app.client.authorize().context(user.to_string()).start().await?;
    let cookie = format!(
        "{}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=3600",
        session.cookie_name(),
        session.seal(&app.keyring)?
    );
    let headers = [(LOCATION, url.as_str().to_owned()), (SET_COOKIE, cookie)];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// Handles a returning user, who can then leave: the poller does the rest.
async fn callback(State(app): State<App>, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let Some(sealed) = AuthorizationSession::cookie_name_for(&query).and_then(|name| cookie(&headers, &name)) else {
        return Err(Refusal(StatusCode::BAD_REQUEST, "this browser has not started a sign-in".to_owned()));
    };
    let session = AuthorizationSession::open(&app.keyring, sealed)?;
    Ok(match app.poller.authorization_response(&query, session).await? {
        AcceptedSignIn::Deferred(id) => (StatusCode::ACCEPTED, format!("{id}\n")),
        AcceptedSignIn::Complete(authentication) => {
            (StatusCode::OK, format!("{}\n", authentication.claims().subject()))
        }
        AcceptedSignIn::Ended(id) => (StatusCode::GONE, format!("{id} has ended; start again\n")),
        _ => (StatusCode::NOT_IMPLEMENTED, "this example does not know this variant\n".to_owned()),
    }
    .into_response())
}

/// Requests a token for an order, which somebody may have to approve. No user is here: the outcome is the answer.
async fn order(State(app): State<App>, Path(order): Path<u32>) -> Result<Response, Refusal> {
    let details = json!([{ "type": "order", "identifier": order.to_string() }]);
    let request = app.client.token_request(Grant::client_credentials()).authorization_details(details);
    Ok(match app.poller.request_tokens(request.context(order.to_string())).await? {
        AcceptedTokenRequest::Deferred(id) => (StatusCode::ACCEPTED, format!("{id}\n")),
        AcceptedTokenRequest::Complete(_) => (StatusCode::OK, "the order needs no approval\n".to_owned()),
        _ => (StatusCode::NOT_IMPLEMENTED, "this example does not know this variant\n".to_owned()),
    }
    .into_response())
}

/// Has the OP ask a user on their phone. The outcome is the answer. If the request is repeated, the user is asked once.
async fn ask(State(app): State<App>, Path(user): Path<u32>) -> Result<Response, Refusal> {
    let request = app.client.backchannel_authentication(UserHint::login_hint(format!("user-{user}")));
    let request = request.context(user.to_string()).idempotency_key(user.to_string());
    Ok(match app.poller.request_authentication(request).await? {
        AcceptedSignIn::Deferred(id) => (StatusCode::ACCEPTED, format!("{id}\n")),
        AcceptedSignIn::Ended(id) => (StatusCode::GONE, format!("{id} has ended\n")),
        _ => (StatusCode::NOT_IMPLEMENTED, "this example does not know this variant\n".to_owned()),
    }
    .into_response())
}

/// Shows the state of a sign-in, for the page that the user sees meanwhile.
async fn status(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let not_found = || Refusal(StatusCode::NOT_FOUND, "there is no such sign-in".to_owned());
    let id: ProcessId = id.parse().map_err(|_| not_found())?;
    let status = app.poller.status(id).await?.ok_or_else(not_found)?;
    let progress = status.progress().unwrap_or("no progress is known yet");
    // The OP's text is sent as plain text. In HTML it would have to be escaped.
    Ok(format!("{:?}: {progress}\n", status.state()).into_response())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs = cookies.flat_map(|header| header.split("; ")).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The error that a user sees. Errors of this crate contain no secrets, so they can be shown.
struct Refusal(StatusCode, String);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        // The user may reload after a transient error. A spent code is not sent again.
        let status = if error.is_transient() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}
