//! The application: what it does in the routes of a sign-in, and its own pages.

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::HeaderMap;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use openid_deferred::axum::{BrowserSignIns, SignInCookies, SignInHooks, SignInRouter, Visit};
use openid_deferred::error::{ProblemDetails, ProblemType};
use openid_deferred::poller::Status;
use openid_deferred::store::{ProcessId, State as Progress};
use openid_deferred::{Authentication, AuthorizationRequest, Client, Error, Poller, ping};

use super::ending::Ending;
use super::guard::guard;
use super::ledger::{Booking, Ledger};
use super::{pages, session, shell};

#[derive(Clone)]
pub struct App {
    pub client: Client,
    pub poller: Poller,
    pub cookies: SignInCookies,
    pub ledger: Ledger,
}

impl App {
    pub fn router(self, pings: bool) -> Result<Router, Error> {
        let poller = self.poller.clone();
        // `POST /book` starts a booking, and `/book/{id}` shows it.
        let sign_in = SignInRouter::new(self.client.clone(), poller.clone(), self.clone());
        let sign_in = sign_in.cookies(self.cookies.clone());
        let router = Router::new()
            .route("/", get(home))
            .route("/account", get(account))
            .route("/sign-out", post(sign_out))
            .fallback(async || pages::problem(ProblemType::NotFound.into()))
            .with_state(self)
            .merge(sign_in.prefix("/book").build()?)
            .merge(shell::assets())
            .layer(from_fn(guard));
        // The OP with its pings is no browser, so the guard does not apply to them.
        Ok(if pings { router.route("/deferred/ping", ping::axum::route(poller)) } else { router })
    }
}

impl FromRef<App> for SignInCookies {
    fn from_ref(app: &App) -> Self {
        app.cookies.clone()
    }
}

impl SignInHooks for App {
    /// The outcome will name the boat.
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

    /// There is a context when the user comes back from the OP, and none after a reload.
    async fn waiting(&self, id: ProcessId, visit: &Visit) -> Response {
        let boat = String::from_utf8_lossy(visit.context()).into_owned();
        match boat.is_empty() {
            false => self.ledger.book(id, boat).await,
            true => Ok(()),
        }
        .map_or_else(ours, |()| Redirect::to(&visit.status_path(id)).into_response())
    }

    async fn page(&self, id: ProcessId, status: Option<Status>, visit: &Visit) -> Response {
        let page = async {
            let person = session::person(&self.ledger, &visit.parts().headers).await?;
            let booking = self.ledger.booking(id).await?;
            let stage = Stage::of(&booking, status);
            anyhow::Ok(pages::booking(person.as_ref(), &booking, &stage).into_response())
        };
        page.await.unwrap_or_else(ours)
    }

    /// Signs the user in, in the browser that made the booking and at the user's request.
    async fn finish(&self, id: ProcessId, _: &Visit) -> Option<Response> {
        match self.ledger.enter(id).await {
            Ok(person) => Some(session::begin(&self.ledger, person?).await.unwrap_or_else(ours)),
            Err(error) => Some(ours(error)),
        }
    }

    fn problem(&self, problem: ProblemDetails, error: Option<&Error>, _: &Visit) -> Response {
        // Errors of the crate contain no secrets, so they can be logged.
        if let Some(error) = error {
            eprintln!("error: {error}. {}", error.advice());
        }
        pages::problem(problem).into_response()
    }
}

/// The state of a booking.
pub enum Stage {
    /// The OP has not decided yet.
    Waiting(Status),
    /// The OP has decided; its answer is being verified and stored.
    Arriving,
    Ended(Ending),
}

impl Stage {
    /// Outcomes are stored before they are acknowledged. If an ended sign-in has none, this application was killed before
    /// it stored that the sign-in had failed.
    fn of(booking: &Booking, status: Option<Status>) -> Self {
        match (&booking.ending, status) {
            (Some(ending), _) => Self::Ended(ending.clone()),
            (None, Some(status)) => match status.state() {
                Progress::Exchanging | Progress::Waiting => Self::Waiting(status),
                Progress::Acknowledged => Self::Ended(Ending::Failed),
                _ => Self::Arriving,
            },
            (None, None) => Self::Ended(Ending::Failed),
        }
    }
}

/// An error of the application's own.
fn ours(error: anyhow::Error) -> Response {
    eprintln!("error: {error:#}");
    pages::problem(ProblemType::Internal.into()).into_response()
}

async fn home(State(app): State<App>, headers: HeaderMap, sign_ins: BrowserSignIns) -> Response {
    let page = async {
        let person = session::person(&app.ledger, &headers).await?;
        let bookings = app.ledger.bookings(sign_ins.ids()).await?;
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
    session::end(&app.ledger, &headers).await.unwrap_or_else(ours)
}
