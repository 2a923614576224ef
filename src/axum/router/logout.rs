//! The routes of logouts (OpenID Connect RP-Initiated Logout 1.0; OpenID Connect Back-Channel Logout 1.0).

use std::sync::Arc;

use ::axum::Router;
use ::axum::extract::{Request, State};
use ::axum::response::{IntoResponse as _, Response};
use ::axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::{App, Shared, SignInRouter, with_cookies};
use crate::axum::body::{fields, read_form};
use crate::axum::hooks::SignInHooks;
use crate::axum::logout_hooks::{LogoutHooks, SessionsEnded};
use crate::axum::return_path::checked_return_path;
use crate::axum::used_tokens::Arrived;
use crate::axum::visit::{Visit, redirect};
use crate::client::{EndSessionRequest, LogoutToken};
use crate::error::{Document, Error, ErrorKind, ProblemType, Rule, Violation};

/// The end of the path at which users log out.
pub(super) const LOGOUT: &str = "/logout";
/// The end of the path at which the OP says that sessions have ended.
pub(super) const BACKCHANNEL_LOGOUT: &str = "/backchannel-logout";

/// When the OP may try again, in seconds.
const RETRY_DELAY: u64 = 5;

/// Adds the routes for a router with this prefix, and with this path for the return from the OP.
pub(super) type AddRoutes<H> = fn(Router<Arc<App<H>>>, &str, Option<&str>) -> Router<Arc<App<H>>>;

impl<H: LogoutHooks> SignInRouter<H> {
    /// Adds the routes of logouts, below the [prefix](Self::prefix):
    ///
    /// | route | what it does |
    /// |---|---|
    /// | `POST /sign-in/logout` | ends the application's session, and redirects to the OP; the form field `return_to` is a path of this application |
    /// | `GET` of the client's [`post_logout_redirect_uri`](crate::ClientBuilder::post_logout_redirect_uri) | checks that this browser comes back from its logout; without that URI, users end on a page of the OP |
    /// | `POST /sign-in/backchannel-logout` | takes logout tokens; register its URL as [`backchannel_logout_uri`](crate::registration::RegistrationRequest::backchannel_logout_uri) |
    ///
    /// Everybody can post to the last one, so limit the rate of requests to it. It answers 200 after the sessions have
    /// ended, 400 with `error` and `error_description` as JSON for a token that is not valid or was used before, and 503
    /// if the token cannot be verified yet or the application could not end the sessions. Bodies have at most 16 KiB.
    pub fn logout(mut self) -> Self {
        self.logout = Some(add_routes::<H>);
        self
    }
}

fn add_routes<H: LogoutHooks>(
    router: Router<Arc<App<H>>>,
    prefix: &str,
    return_path: Option<&str>,
) -> Router<Arc<App<H>>> {
    let router = router
        .route(&format!("{prefix}{LOGOUT}"), post(log_out::<H>))
        .route(&format!("{prefix}{BACKCHANNEL_LOGOUT}"), post(end_sessions::<H>));
    match return_path {
        Some(path) => router.route(path, get(logged_out::<H>)),
        None => router,
    }
}

/// The user logs out here.
async fn log_out<H: LogoutHooks>(State(app): Shared<H>, request: Request) -> Response {
    let visit = match app.form(request).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    let (request, headers) = match app.hooks.log_out(app.client.end_session(), &visit).await {
        Ok(prepared) => prepared,
        Err(answer) => return answer,
    };
    let answer = match app.leave(request, &visit).await {
        Ok(answer) => answer,
        // The session of the application has ended.
        Err(error) => {
            tracing::warn!(%error, advice = error.advice(), "a user has logged out here, but not at the OP");
            app.hooks.logged_out(&visit).await
        }
    };
    with_headers(answer, headers)
}

impl<H: SignInHooks> App<H> {
    /// The redirect to the OP.
    async fn leave(&self, request: EndSessionRequest<'_>, visit: &Visit) -> Result<Response, Error> {
        let request = match &visit.return_path {
            Some(path) => request.session_data(path.as_str()),
            None => request,
        };
        let (url, session) = request.start().await?;
        let cookie = session.map(|session| self.cookies.start_logout(&self.client, &session)).transpose()?;
        Ok(with_cookies(redirect(url.as_str()), cookie))
    }
}

/// The browser comes back. It is a request from another site, so only the cookie protects it.
async fn logged_out<H: LogoutHooks>(State(app): Shared<H>, request: Request) -> Response {
    let mut visit = app.visit(request.into_parts().0);
    let uri = &visit.parts.uri;
    let response = format!("{}?{}", uri.path(), uri.query().unwrap_or_default());
    let session = app.cookies.logout_session(&visit.parts.headers);
    let checked = session.and_then(|session| {
        app.client.end_session_response(&response, &session)?;
        Ok(session)
    });
    match checked {
        Ok(session) => {
            visit.return_path = std::str::from_utf8(session.data()).ok().and_then(checked_return_path);
            with_cookies(app.hooks.logged_out(&visit).await, app.cookies.end_logout().ok())
        }
        // The cookie stays, because the request may come from another site.
        Err(error) => app.hooks.problem(ProblemType::LogoutNotFound.into(), Some(&error), &visit),
    }
}

/// The OP has ended sessions (OpenID Connect Back-Channel Logout 1.0 §2.5 to §2.8).
async fn end_sessions<H: LogoutHooks>(State(app): Shared<H>, request: Request) -> Response {
    let form = match read_form(request.into_body(), app.poller.clock()).await {
        Ok(form) => form,
        Err(status) => return uncached(status.into_response()),
    };
    // "The POST body MAY contain other values in addition to logout_token. Values that are not understood by the
    // implementation MUST be ignored."
    let mut tokens = fields(&form, "logout_token");
    let token = match (tokens.next(), tokens.next()) {
        (Some(token), None) => token,
        (None, _) => return refused("the request has no `logout_token`"),
        (Some(_), Some(_)) => return refused("the request has more than one `logout_token`"),
    };
    match app.client.logout_token(&token).await {
        Ok(token) => app.ended(&token).await,
        Err(error) => {
            tracing::warn!(%error, advice = error.advice(), "a logout token was not accepted");
            answer_to(&error)
        }
    }
}

impl<H: LogoutHooks> App<H> {
    /// Lets the application end the sessions that a token names, if it was not used before.
    async fn ended(&self, token: &LogoutToken) -> Response {
        let replayed =
            || answer_to(&Violation::new(Rule::LogoutTokenReplayed).in_document(Document::LogoutToken).into());
        let use_of_it = match self.used_tokens.begin(token, self.poller.clock().now()) {
            Arrived::New(use_of_it) => use_of_it,
            Arrived::InUse => return failed(),
            Arrived::Used => return replayed(),
        };
        match self.hooks.end_sessions(token).await {
            SessionsEnded::Done => {
                use_of_it.done();
                uncached(StatusCode::OK.into_response())
            }
            SessionsEnded::Already => {
                use_of_it.done();
                replayed()
            }
            SessionsEnded::Failed => {
                tracing::error!("the sessions of a logout token could not be ended; the OP got 503");
                failed()
            }
        }
    }
}

/// The answer to a token that was not accepted.
fn answer_to(error: &Error) -> Response {
    match error.kind() {
        ErrorKind::Protocol(violation) if !error.is_transient() => refused(&violation.to_string()),
        _ => failed(),
    }
}

/// §2.8: "a JSON object with error and error_description parameters". The description must not have quotation marks (RFC
/// 6749 §5.2), and ours have none.
fn refused(description: &str) -> Response {
    let body = json!({ "error": "invalid_request", "error_description": description }).to_string();
    let mut response = (StatusCode::BAD_REQUEST, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    uncached(response)
}

/// The OP may try again.
fn failed() -> Response {
    let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_DELAY));
    uncached(response)
}

/// §2.8: the response "SHOULD include the Cache-Control HTTP response header field with a no-store value".
fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Adds the headers of the application.
fn with_headers(mut response: Response, headers: HeaderMap) -> Response {
    let mut last = None;
    for (name, value) in headers {
        last = name.or(last);
        if let Some(name) = &last {
            response.headers_mut().append(name.clone(), value);
        }
    }
    response
}
