//! The pages, and what the application does in the routes of a sign-in.

use std::time::Duration;

use axum::Router;
use axum::extract::{self, FromRef};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};
use openid_deferred::axum::{BrowserSignIns, SignInCookies, SignInHooks, SignInRouter, Visit, check_same_origin};
use openid_deferred::error::ProblemType;
use openid_deferred::poller::{CancellationStatus, Status};
use openid_deferred::store::ProcessId;
use openid_deferred::{Authentication, AuthorizationRequest, Client, Poller};
use tokio::time::timeout;

use crate::health;
use crate::outcomes::Person;
use crate::session::{SessionCookie, Token};
use crate::settings::Settings;
use crate::tables::Tables;

/// Permits only our own style sheet and forms, and no framing.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// How long the start page waits for the OP's metadata, which is fetched once.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct App {
    client: Client,
    cookies: SignInCookies,
    session: SessionCookie,
    tables: Tables,
    origin: String,
}

impl FromRef<App> for SignInCookies {
    fn from_ref(app: &App) -> Self {
        app.cookies.clone()
    }
}

impl FromRef<App> for Tables {
    fn from_ref(app: &App) -> Self {
        app.tables.clone()
    }
}

pub fn router(settings: &Settings, client: Client, poller: Poller, tables: Tables) -> anyhow::Result<Router> {
    let mut cookies = SignInCookies::new(settings.keyring.clone());
    if settings.is_insecure() {
        cookies = cookies.insecure_loopback();
    }
    let session = SessionCookie { is_insecure: settings.is_insecure() };
    let app = App { client: client.clone(), cookies: cookies.clone(), session, tables, origin: settings.origin() };
    let mut sign_in = SignInRouter::new(client, poller.clone(), app.clone()).cookies(cookies);
    if settings.pings {
        sign_in = sign_in.receives_pings_at("/deferred/ping", poller);
    }
    let router = Router::new()
        .route("/", get(home))
        .route("/sign-out", post(sign_out))
        .route("/style.css", get(async || ([(CONTENT_TYPE, "text/css")], include_str!("style.css"))))
        .route("/health", get(health::answer))
        .with_state(app)
        .merge(sign_in.build()?);
    let is_insecure = settings.is_insecure();
    Ok(router.layer(map_response(move |response| async move { with_headers(response, is_insecure) })))
}

impl SignInHooks for App {
    /// Say here what the sign-in is for, such as the number of an account or an order. It comes back with the outcome.
    async fn request<'a>(
        &self,
        request: AuthorizationRequest<'a>,
        _: &Visit,
    ) -> Result<AuthorizationRequest<'a>, Response> {
        Ok(request.scopes(["profile", "email"]).context("sign-in"))
    }

    /// The OP has approved at once.
    async fn complete(&self, authentication: Authentication, visit: &Visit) -> Response {
        let signed_in = async {
            let token = Token::new()?;
            self.tables.begin_session(&authentication.claims().into(), &token.hash()).await?;
            anyhow::Ok((self.session.begin(token), Redirect::to(visit.return_path())).into_response())
        };
        signed_in.await.unwrap_or_else(ours)
    }

    /// The page of a sign-in, for the browser that started it.
    async fn page(&self, id: ProcessId, status: Option<Status>, visit: &Visit) -> Response {
        let path = visit.status_path(id);
        let waits = status.filter(|status| !status.has_ended());
        match (self.tables.ending(id).await, waits) {
            (Ok(Some(ending)), _) => ended(&path, &ending).into_response(),
            (Ok(None), Some(status)) => waiting(&path, &status).into_response(),
            // Outcomes are kept before they are acknowledged, so there is none to come.
            (Ok(None), None) => ended(&path, "unknown").into_response(),
            (Err(error), _) => ours(error),
        }
    }

    /// The member `ending` of the status as JSON.
    async fn ending(&self, id: ProcessId) -> Option<serde_json::Value> {
        self.tables.ending(id).await.ok().flatten().map(Into::into)
    }

    /// Signs the user in, in the browser that started the sign-in and at the user's request.
    async fn finish(&self, id: ProcessId, _: &Visit) -> Option<Response> {
        let finished = async {
            let token = Token::new()?;
            let is_approved = self.tables.use_outcome(id, &token.hash()).await?;
            anyhow::Ok(is_approved.then(|| (self.session.begin(token), Redirect::to("/")).into_response()))
        };
        finished.await.unwrap_or_else(|error| Some(ours(error)))
    }
}

async fn home(extract::State(app): extract::State<App>, headers: HeaderMap, sign_ins: BrowserSignIns) -> Response {
    let person = match app.session.hash_of(&headers) {
        Some(token) => app.tables.person(&token).await,
        None => Ok(None),
    };
    let person = match person {
        Ok(person) => person,
        Err(error) => return ours(error),
    };
    let mut response = home_page(person.as_ref(), &sign_ins).into_response();
    // The form leads to the OP, and browsers apply `form-action` to redirects too. While the OP's address is unknown,
    // nobody can sign in.
    let op = timeout(PATIENCE, app.client.provider_metadata()).await.ok().and_then(Result::ok);
    let op = op.and_then(|metadata| Some(metadata.authorization_endpoint()?.origin().ascii_serialization()));
    let policy = op.map(|op| POLICY.replace("form-action 'self'", &format!("form-action 'self' {op}")));
    if let Some(Ok(policy)) = policy.map(HeaderValue::try_from) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn sign_out(extract::State(app): extract::State<App>, headers: HeaderMap) -> Response {
    if let Err(problem) = check_same_origin(&headers, &app.origin) {
        return problem.into_response();
    }
    if let Some(token) = app.session.hash_of(&headers)
        && let Err(error) = app.tables.end_session(&token).await
    {
        return ours(error);
    }
    (app.session.end(&headers), Redirect::to("/")).into_response()
}

/// Adds the headers that protect pages, unless a page has its own.
fn with_headers(mut response: Response, is_insecure: bool) -> Response {
    let own = [
        (CONTENT_SECURITY_POLICY, POLICY),
        // The redirect URI contains a code. Forms of this origin still state where they come from.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let https = (STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    for (name, value) in own.into_iter().chain((!is_insecure).then_some(https)) {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// An error of the application's own.
fn ours(error: anyhow::Error) -> Response {
    tracing::error!(error = format!("{error:#}"), "a request failed");
    let problem = ProblemType::Internal;
    (problem.status(), page(problem.title(), false, html! { p { (problem.detail()) } })).into_response()
}

/// A whole page. `maud` escapes everything that is inserted, so no text of a user or an OP becomes HTML.
fn page(title: &str, reloads: bool, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if reloads { meta http-equiv="refresh" content="5"; }
                title { (title) }
                link rel="stylesheet" href="/style.css";
            }
            body { main { h1 { (title) } (body) } }
        }
    }
}

fn home_page(person: Option<&Person>, sign_ins: &BrowserSignIns) -> Markup {
    let body = html! {
        @if let Some(person) = person {
            p { "Welcome, " (person.name.as_deref().unwrap_or(&person.subject)) "." }
            form method="post" action="/sign-out" { button { "Sign out" } }
        } @else {
            form method="post" action="/sign-in" { button { "Sign in" } }
        }
        @for id in sign_ins.ids() {
            p { a href={ "/sign-in/" (id) } { "A sign-in that you started" } }
        }
    };
    page("Your application", false, body)
}

fn waiting(path: &str, status: &Status) -> Markup {
    let body = html! {
        p { "This can take minutes or days. You may close this page and come back with this browser." }
        @if let Some(progress) = status.progress() { p { "Your provider says: " (progress) } }
        @if status.is_cancelled() {
            p { "You have cancelled this sign-in." }
            @if status.cancellation() == Some(CancellationStatus::LocallyOnly) {
                p { "Your provider cannot be told, so it may still contact you." }
            }
        } @else {
            form method="post" action={ (path) "/cancel" } { button { "Cancel" } }
        }
    };
    page("Your provider is checking who you are", true, body)
}

fn ended(path: &str, ending: &str) -> Markup {
    let (title, text) = match ending {
        "approved" => ("Your provider has approved", "Continue to be signed in."),
        "denied" => ("Your provider has refused", "Ask your provider for the reason."),
        "expired" => ("Time ran out", "Your provider did not decide in time."),
        "cancelled" => ("The sign-in was cancelled", "Nobody is signed in."),
        _ => ("The sign-in failed", "This says nothing about you. Please start again."),
    };
    let body = html! {
        p { (text) }
        @if ending == "approved" {
            form method="post" action={ (path) "/finish" } { button { "Continue" } }
        } @else {
            form method="post" action={ (path) "/dismiss" } { button { "Back to the start" } }
        }
    };
    page(title, false, body)
}
