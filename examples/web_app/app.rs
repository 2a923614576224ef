//! The application: what it does in the routes of a sign-in, and its own pages.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use openid_deferred::axum::{BrowserSignIns, SignInCookies, SignInHooks, SignInRouter, Visit, check_same_origin};
use openid_deferred::error::{ProblemDetails, ProblemType};
use openid_deferred::poller::Status;
use openid_deferred::store::ProcessId;
use openid_deferred::{Authentication, AuthorizationRequest, Client, Error, Poller};

use super::guard::protect;
use super::ledger::{Booking, Ledger};
use super::{pages, session, shell};

#[derive(Clone)]
pub struct App {
    pub client: Client,
    pub poller: Poller,
    pub cookies: SignInCookies,
    pub ledger: Ledger,
    pub origin: String,
}

impl App {
    pub fn router(self, pings: bool) -> Result<Router, Error> {
        // `POST /book` starts a booking, and `/book/{id}` shows it.
        let sign_in = SignInRouter::new(self.client.clone(), self.poller.clone(), self.clone());
        let mut sign_in = sign_in.cookies(self.cookies.clone()).prefix("/book");
        if pings {
            sign_in = sign_in.receives_pings_at("/deferred/ping", self.poller.clone());
        }
        Ok(Router::new()
            .route("/", get(home))
            .route("/account", get(account))
            .route("/sign-out", post(sign_out))
            .fallback(async || pages::problem(ProblemType::NotFound.into()))
            .with_state(self)
            .merge(sign_in.build()?)
            .merge(shell::assets())
            .layer(map_response(protect)))
    }
}

impl SignInHooks for App {
    /// The status and the outcome will name the boat.
    async fn request<'a>(
        &self,
        request: AuthorizationRequest<'a>,
        visit: &Visit,
    ) -> Result<AuthorizationRequest<'a>, Response> {
        let boat = visit.field("boat").and_then(|name| pages::BOATS.iter().find(|boat| boat.name == name));
        let boat = boat.ok_or_else(|| pages::problem(ProblemType::NotFound.into()).into_response())?;
        Ok(request.scopes(["profile", "email"]).context(boat.name))
    }

    async fn complete(&self, authentication: Authentication, _: &Visit) -> Response {
        session::begin(&self.ledger, authentication.claims().into()).await.unwrap_or_else(ours)
    }

    async fn start_page(&self, _: BrowserSignIns, _: &Visit) -> Response {
        Redirect::to("/").into_response()
    }

    async fn page(&self, id: ProcessId, status: Option<Status>, visit: &Visit) -> Response {
        let page = async {
            let person = session::person(&self.ledger, &visit.parts().headers).await?;
            let booking = self.ledger.booking(id, status).await?;
            anyhow::Ok(pages::booking(person.as_ref(), &booking).into_response())
        };
        page.await.unwrap_or_else(ours)
    }

    /// Signs the user in, in the browser that made the booking and at the user's request.
    async fn finish(&self, id: ProcessId, _: &Visit) -> Option<Response> {
        session::enter(&self.ledger, id).await.unwrap_or_else(|error| Some(ours(error)))
    }

    fn problem(&self, problem: ProblemDetails, error: Option<&Error>, _: &Visit) -> Response {
        // Errors of the crate contain no secrets, so they can be logged.
        if let Some(error) = error {
            eprintln!("error: {error}. {}", error.advice());
        }
        pages::problem(problem).into_response()
    }
}

/// An error of the application's own.
fn ours(error: anyhow::Error) -> Response {
    eprintln!("error: {error:#}");
    pages::problem(ProblemType::Internal.into()).into_response()
}

async fn home(State(app): State<App>, headers: HeaderMap) -> Response {
    let page = async {
        let person = session::person(&app.ledger, &headers).await?;
        let mut bookings: Vec<Booking> = Vec::new();
        for id in app.cookies.sign_ins(&headers).ids() {
            bookings.push(app.ledger.booking(id, app.poller.status(id).await?).await?);
        }
        // The form leads to the OP, so it cannot be sent while the OP's address is unknown.
        let op = app.client.provider_metadata().await.ok();
        let op = op.and_then(|metadata| Some(metadata.authorization_endpoint()?.origin().ascii_serialization()));
        anyhow::Ok(pages::home(person.as_ref(), &bookings, op).into_response())
    };
    page.await.unwrap_or_else(ours)
}

async fn account(State(app): State<App>, headers: HeaderMap) -> Response {
    match session::person(&app.ledger, &headers).await {
        Ok(Some(person)) => pages::account(&person).into_response(),
        Ok(None) => Redirect::to("/").into_response(),
        Err(error) => ours(error),
    }
}

async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Response {
    match check_same_origin(&headers, &app.origin) {
        Ok(()) => session::end(&app.ledger, &headers).await.unwrap_or_else(ours),
        Err(problem) => pages::problem(problem).into_response(),
    }
}
