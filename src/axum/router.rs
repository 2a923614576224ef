//! The routes, and what they are made of.

use std::sync::Arc;

use ::axum::Router;
use ::axum::extract::{Path, Request, State};
use ::axum::response::{IntoResponse as _, Response};
use ::axum::routing::{any, get, post};
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use url::{Host, Url};

use super::body::{field, read_form};
use super::changes::Changes;
use super::cookies::SignInCookies;
use super::hooks::SignInHooks;
use super::pages;
use super::problem::accepts_html;
use super::return_path::checked_return_path;
use super::same_origin::check_same_origin;
use super::status;
use super::streams::Streams;
use super::visit::{Visit, redirect};
use crate::client::Client;
use crate::error::{ConfigurationProblem, Error, ErrorKind, Misuse, ProblemDetails, ProblemType, SessionProblem};
use crate::logout::Receiver as LogoutReceiver;
use crate::ping;
use crate::poller::{AcceptedSignIn, Poller};
use crate::store::ProcessId;

mod logout;

use logout::{AddRoutes, BACKCHANNEL_LOGOUT, LOGOUT};

/// The prefix of the routes, unless the application sets another one.
const PREFIX: &str = "/sign-in";

/// The routes of sign-ins through one client. [`build`](Self::build) returns a [`Router`] to
/// [merge](Router::merge) into that of the application. The [module](super) lists the routes and what they protect.
///
/// For several OPs build one router for each client, with redirect URIs and [prefixes](Self::prefix) of their own and the
/// same [`SignInCookies`].
pub struct SignInRouter<H> {
    client: Client,
    poller: Poller,
    cookies: SignInCookies,
    hooks: H,
    prefix: String,
    pings: Option<(String, ping::Receiver)>,
    logout: Option<AddRoutes<H>>,
    logout_receiver: LogoutReceiver,
}

impl<H: SignInHooks> SignInRouter<H> {
    /// Routes for users who sign in with `client`, which the `poller` must have too. The poller's keyring seals the
    /// cookies.
    pub fn new(client: Client, poller: Poller, hooks: H) -> Self {
        let cookies = SignInCookies::new(poller.keyring().clone());
        let logout_receiver = LogoutReceiver::new(client.clone());
        let prefix = PREFIX.to_owned();
        Self { client, poller, cookies, hooks, prefix, pings: None, logout: None, logout_receiver }
    }

    /// Sets other cookies: with another keyring, another [lifetime](SignInCookies::lifetime), or
    /// [without HTTPS](SignInCookies::insecure_loopback) in development. The default is [`SignInCookies::new`] with the
    /// poller's keyring.
    pub fn cookies(mut self, cookies: SignInCookies) -> Self {
        self.cookies = cookies;
        self
    }

    /// Sets where the routes begin. The default is `/sign-in`. The callback is always at the path of the client's
    /// redirect URI.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds the route for pings of the OP at `path`, which takes a [`Poller`] or another
    /// [`Receiver`](ping::Receiver). It is
    /// [`ping::axum::route`](crate::ping::axum::route).
    pub fn receives_pings_at(mut self, path: impl Into<String>, receiver: impl Into<ping::Receiver>) -> Self {
        self.pings = Some((path.into(), receiver.into()));
        self
    }

    /// Makes the routes. [Merge](Router::merge) them, and do not nest them, because their paths are absolute.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if
    ///
    /// - the client has no redirect URI, or one that is neither `https:` nor, with
    ///   [`insecure_loopback`](SignInCookies::insecure_loopback), `http:` at a loopback address;
    /// - the URI to return to after a logout has another origin than the redirect URI;
    /// - a path is not absolute, has characters besides letters, digits and `-._~/`, ends with `/`, or appears twice.
    pub fn build<S: Clone + Send + Sync + 'static>(self) -> Result<Router<S>, Error> {
        let (origin, callback) = self.place()?;
        let return_path = self.logout.map_or(Ok(None), |_| self.return_path(&origin))?;
        let of_logout = self.logout.map(|_| [LOGOUT, BACKCHANNEL_LOGOUT].map(|end| format!("{}{end}", self.prefix)));
        let pings = self.pings.as_ref().map(|(path, _)| path);
        let paths = [Some(&callback), Some(&self.prefix), pings, return_path.as_ref()];
        let paths: Vec<_> = paths.into_iter().flatten().chain(of_logout.iter().flatten()).collect();
        let is_repeated = |path: &&String| paths.iter().filter(|other| *other == path).count() > 1;
        if !paths.iter().all(|path| is_path(path)) || paths.iter().any(is_repeated) || self.prefix == "/" {
            let problem = "the prefix and the paths of the redirect URI, of pings and of logouts must be different \
                           absolute paths";
            return Err(setting("prefix", problem));
        }
        let Self { client, poller, cookies, hooks, prefix, pings, logout, logout_receiver } = self;
        let of = |path: &str| format!("{prefix}/{{id}}{path}");
        let mut router = Router::new()
            .route(&prefix, get(start_page::<H>).post(login::<H>))
            .route(&of(""), get(show::<H>))
            .route(&of("/events"), get(events::<H>))
            .route(&of("/cancel"), post(cancel::<H>))
            .route(&of("/finish"), post(finish::<H>))
            .route(&of("/dismiss"), post(dismiss::<H>))
            .route(&callback, any(take_response::<H>));
        if let Some((path, receiver)) = pings {
            router = router.route(&path, ping::axum::route(receiver));
        }
        if let Some(add_routes) = logout {
            router = add_routes(router, &prefix, return_path.as_deref());
        }
        let (hooks, streams) = (Arc::new(hooks), Streams::default());
        Ok(router.with_state(Arc::new(App {
            client,
            poller,
            cookies,
            hooks,
            prefix,
            origin,
            streams,
            logout_receiver,
        })))
    }

    /// The path at which users come back from a logout at the OP, if there is one.
    fn return_path(&self, origin: &str) -> Result<Option<String>, Error> {
        let Some(url) = self.client.post_logout_redirect_uri().and_then(|uri| Url::parse(uri).ok()) else {
            return Ok(None);
        };
        match url.origin().ascii_serialization() == origin {
            true => Ok(Some(url.path().to_owned())),
            false => Err(setting("post_logout_redirect_uri", "the routes need it at the origin of the redirect URI")),
        }
    }

    /// The origin of the application, and the path of its callback.
    fn place(&self) -> Result<(String, String), Error> {
        let url = self.client.redirect_uri().and_then(|uri| Url::parse(uri).ok());
        let url = url.ok_or_else(|| setting("redirect_uri", "set the registered one on the client"))?;
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match (self.cookies.is_insecure(), url.scheme()) {
            (false, "https") => {}
            (true, "http") if is_loopback => {}
            (false, _) => {
                let problem =
                    "the routes need HTTPS; for development on this machine, set `insecure_loopback()` on the cookies";
                return Err(setting("redirect_uri", problem));
            }
            (true, _) => {
                let problem = "it is only for a redirect URI with `http:` and a loopback address; remove it";
                return Err(setting("insecure_loopback", problem));
            }
        }
        Ok((url.origin().ascii_serialization(), url.path().to_owned()))
    }
}

fn setting(setting: &'static str, problem: &'static str) -> Error {
    ConfigurationProblem::Setting { setting, problem }.into()
}

/// Whether a router takes the path as it is. Otherwise it would panic.
fn is_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.starts_with('/') && path.bytes().all(is_plain) && !path.contains("//") && (path == "/" || !path.ends_with('/'))
}

/// What every route has.
struct App<H> {
    client: Client,
    poller: Poller,
    cookies: SignInCookies,
    hooks: Arc<H>,
    prefix: String,
    /// That of the application.
    origin: String,
    streams: Streams,
    logout_receiver: LogoutReceiver,
}

type Shared<H> = State<Arc<App<H>>>;

impl<H: SignInHooks> App<H> {
    fn visit(&self, parts: Parts) -> Visit {
        Visit { parts, form: String::new(), prefix: self.prefix.clone(), return_path: None, context: Vec::new() }
    }

    fn refuse(&self, problem: impl Into<ProblemDetails>, visit: &Visit) -> Response {
        self.hooks.problem(problem.into(), None, visit)
    }

    fn fail(&self, error: &Error, visit: &Visit) -> Response {
        self.hooks.problem(error.problem(), Some(error), visit)
    }

    /// A form of a page of this application. `Err` has the answer to any other request.
    async fn form(&self, request: Request) -> Result<Visit, Response> {
        let (parts, body) = request.into_parts();
        let mut visit = self.visit(parts);
        if let Err(problem) = check_same_origin(&visit.parts.headers, &self.origin) {
            return Err(self.refuse(problem, &visit));
        }
        visit.form = read_form(body, self.poller.clock()).await.map_err(StatusCode::into_response)?;
        visit.return_path = field(&visit.form, "return_to").as_deref().and_then(checked_return_path);
        Ok(visit)
    }

    /// The sign-in with this identifier, if this browser started it. To other browsers it does not exist.
    fn own(&self, id: &str, visit: &Visit) -> Option<ProcessId> {
        id.parse().ok().filter(|id| self.cookies.sign_ins(&visit.parts.headers).contains(*id))
    }

    /// The redirect to the OP.
    async fn start(&self, visit: &Visit) -> Result<Response, Response> {
        let mut request = self.hooks.request(self.client.authorize(), visit).await?;
        if let Some(path) = &visit.return_path {
            request = request.session_data(path.as_str());
        }
        let (url, session) = request.start().await.map_err(|error| self.fail(&error, visit))?;
        let cookie = self.cookies.start(&self.client, &session);
        let cookies = cookie.and_then(|cookie| {
            let mut cookies = self.cookies.make_room(&visit.parts.headers)?;
            cookies.push(cookie);
            Ok(cookies)
        });
        Ok(with_cookies(redirect(url.as_str()), cookies.map_err(|error| self.fail(&error, visit))?))
    }

    /// Takes the response of the OP. `response` is the path with the parameters.
    async fn take(&self, response: &str, mut visit: Visit) -> Response {
        let headers = visit.parts.headers.clone();
        let Some(name) = self.client.cookie_name_for(response) else {
            return self.fail(&SessionProblem::Missing.into(), &visit);
        };
        let session = match self.cookies.session(&headers, &name) {
            Ok(session) => session,
            Err(error) => {
                // A callback that is reloaded after its first answer.
                return match self.cookies.sign_in_of(&headers, &name) {
                    Some(id) if error.kind() == &ErrorKind::Session(SessionProblem::Missing) => {
                        self.hooks.waiting(id, &visit).await
                    }
                    _ => with_cookies(self.fail(&error, &visit), self.cookies.end(&name).ok()),
                };
            }
        };
        visit.return_path = std::str::from_utf8(session.data()).ok().and_then(checked_return_path);
        visit.context = session.context().to_vec();
        let (id, answer) = match self.poller.authorization_response(response, session).await {
            Ok(AcceptedSignIn::Complete(authentication)) => (None, self.hooks.complete(authentication, &visit).await),
            Ok(AcceptedSignIn::Deferred(id) | AcceptedSignIn::Ended(id)) => {
                (Some(id), self.hooks.waiting(id, &visit).await)
            }
            Err(error) => {
                let answer = self.fail(&error, &visit);
                let deleted = self.cookies.end(&name).ok().filter(|_| !error.keeps_session());
                return with_cookies(answer, deleted);
            }
        };
        let path = visit.return_path.clone();
        let remembered = id.map(|id| self.cookies.remember_with(&headers, id, &name, path)).transpose();
        match remembered {
            Ok(remembered) => {
                let answer = with_cookies(answer, remembered.unwrap_or_default());
                with_cookies(answer, self.cookies.end(&name).ok())
            }
            // The session stays. When the page is reloaded, the poller names the same sign-in.
            Err(error) => self.fail(&error, &visit),
        }
    }
}

async fn start_page<H: SignInHooks>(State(app): Shared<H>, request: Request) -> Response {
    let visit = app.visit(request.into_parts().0);
    app.hooks.start_page(app.cookies.sign_ins(&visit.parts.headers), &visit).await
}

async fn login<H: SignInHooks>(State(app): Shared<H>, request: Request) -> Response {
    match app.form(request).await {
        Ok(visit) => app.start(&visit).await.unwrap_or_else(|answer| answer),
        Err(answer) => answer,
    }
}

/// The callback. It is a request from another site, so only the cookie with the session protects it.
async fn take_response<H: SignInHooks>(State(app): Shared<H>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let response = match parts.method {
        Method::GET => Ok(format!("{path}?{}", parts.uri.query().unwrap_or_default())),
        Method::POST => read_form(body, app.poller.clock()).await.map(|form| format!("{path}?{form}")),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    };
    match response {
        Ok(response) => app.take(&response, app.visit(parts)).await,
        Err(status) => status.into_response(),
    }
}

async fn show<H: SignInHooks>(State(app): Shared<H>, Path(id): Path<String>, request: Request) -> Response {
    let visit = app.visit(request.into_parts().0);
    let Some(id) = app.own(&id, &visit) else { return app.refuse(ProblemType::NotFound, &visit) };
    match app.poller.status(id).await {
        Ok(status) if accepts_html(&visit.parts.headers) => app.hooks.page(id, status, &visit).await,
        Ok(status) => {
            let body = status::json_of(&*app.hooks, id, status.as_ref()).await;
            pages::private("application/json", body.to_string())
        }
        Err(error) => app.fail(&error, &visit),
    }
}

async fn events<H: SignInHooks>(State(app): Shared<H>, Path(id): Path<String>, request: Request) -> Response {
    let visit = app.visit(request.into_parts().0);
    let Some(id) = app.own(&id, &visit) else { return app.refuse(ProblemType::NotFound, &visit) };
    if visit.parts.headers.get("last-event-id").is_some_and(|last| last == status::LAST) {
        return status::nothing_more();
    }
    match app.streams.open(id) {
        Some(open) => status::events(app.hooks.clone(), Changes::of(&app.poller, id), id, open),
        None => app.refuse(ProblemType::Busy, &visit),
    }
}

async fn cancel<H: SignInHooks>(State(app): Shared<H>, Path(id): Path<String>, request: Request) -> Response {
    let visit = match app.form(request).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    let Some(id) = app.own(&id, &visit) else { return app.refuse(ProblemType::NotFound, &visit) };
    match app.poller.cancel(id).await {
        Ok(_) => app.hooks.waiting(id, &visit).await,
        // The page says that the sign-in is over.
        Err(error) if error.kind() == &ErrorKind::Misuse(Misuse::UnknownProcess) => app.hooks.waiting(id, &visit).await,
        Err(error) => app.fail(&error, &visit),
    }
}

async fn finish<H: SignInHooks>(State(app): Shared<H>, Path(id): Path<String>, request: Request) -> Response {
    let mut visit = match app.form(request).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    let Some(id) = app.own(&id, &visit) else { return app.refuse(ProblemType::NotFound, &visit) };
    if visit.return_path.is_none() {
        let sign_ins = app.cookies.sign_ins(&visit.parts.headers);
        visit.return_path = sign_ins.return_path(id).and_then(checked_return_path);
    }
    let Some(answer) = app.hooks.finish(id, &visit).await else {
        return app.refuse(ProblemType::NotApproved, &visit);
    };
    let is_done = answer.status().as_u16() < 400;
    let forgotten = app.cookies.forget(&visit.parts.headers, id).ok().flatten();
    with_cookies(answer, forgotten.filter(|_| is_done))
}

/// The user has seen how a sign-in ended, and does not want to see it again.
async fn dismiss<H: SignInHooks>(State(app): Shared<H>, Path(id): Path<String>, request: Request) -> Response {
    let visit = match app.form(request).await {
        Ok(visit) => visit,
        Err(answer) => return answer,
    };
    let Some(id) = app.own(&id, &visit) else { return app.refuse(ProblemType::NotFound, &visit) };
    match app.poller.status(id).await {
        Ok(status) if pages::has_ended(status.as_ref()) => {
            let forgotten = app.cookies.forget(&visit.parts.headers, id).ok().flatten();
            with_cookies(redirect(visit.return_path()), forgotten)
        }
        // Without the cookie, nobody could come for the outcome.
        Ok(_) => app.hooks.waiting(id, &visit).await,
        Err(error) => app.fail(&error, &visit),
    }
}

/// Adds cookies after those of the application.
fn with_cookies(mut response: Response, cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

impl<H> std::fmt::Debug for SignInRouter<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SignInRouter")
            .field("client", &self.client)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
