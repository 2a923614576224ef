//! The routes of logouts (OpenID Connect RP-Initiated Logout 1.0; OpenID Connect Back-Channel Logout 1.0).

use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::{Request, State};
use ::axum::response::Response;
use ::axum::routing::{any, get, post};
use http::HeaderMap;

use super::{App, Shared, SignInRouter, with_cookies};
use crate::axum::hooks::SignInHooks;
use crate::axum::logout_hooks::LogoutHooks;
use crate::axum::return_path::checked_return_path;
use crate::axum::visit::{Visit, redirect};
use crate::client::EndSessionRequest;
use crate::error::{Error, ProblemType};

/// The end of the path at which users log out.
pub(super) const LOGOUT: &str = "/logout";
/// The end of the path at which the OP says that sessions have ended.
pub(super) const BACKCHANNEL_LOGOUT: &str = "/backchannel-logout";

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
    /// The last one is a [`logout::Receiver`](crate::logout::Receiver), whose documentation lists the answers to the
    /// OP. Everybody can post to it, so limit the rate of requests.
    pub fn logout(mut self) -> Self {
        self.logout = Some(add_routes::<H>);
        self
    }

    /// Sets how long [`LogoutHooks::end_sessions`] may take, as
    /// [`Receiver::end_sessions_within`](crate::logout::Receiver::end_sessions_within). The default is 10 s.
    pub fn end_sessions_within(mut self, limit: Duration) -> Self {
        self.logout_receiver = self.logout_receiver.end_sessions_within(limit);
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
        .route(&format!("{prefix}{BACKCHANNEL_LOGOUT}"), any(end_sessions::<H>));
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
    app.logout_receiver.receive(request, async |token| app.hooks.end_sessions(&token).await).await.map(Body::from)
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
