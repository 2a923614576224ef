//! The application: users start here, are sent to the OP, come back, and wait.

use std::time::Duration;

use axum::Router;
use axum::extract::{Form, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum_extra::extract::CookieJar;
use openid_deferred::poller::SignIn;
use openid_deferred::{AuthorizationSession, Client, Error, Keyring, Poller, ping};
use serde::Deserialize;

use super::browser::{self, cookie, random_text, recognise, welcome};
use super::ending::Ending;
use super::guard::guard;
use super::ledger::{Booking, Browser, Ledger};
use super::{live, pages, shell};

/// The longest time of a user at the OP: the default of the client's `session_lifetime`.
const AT_THE_OP: Duration = Duration::from_secs(3600);

#[derive(Clone)]
pub struct App {
    pub client: Client,
    pub poller: Poller,
    pub keyring: Keyring,
    pub ledger: Ledger,
}

impl App {
    pub fn router(self, pings: bool) -> Router {
        let poller = self.poller.clone();
        let router = Router::new()
            .route("/", get(home))
            .route("/book", post(book))
            .route("/callback", get(callback))
            .route("/booking/{id}", get(booking))
            .route("/booking/{id}/live", get(live::stream))
            .route("/booking/{id}/cancel", post(cancel))
            .route("/booking/{id}/enter", post(enter))
            .route("/account", get(account))
            .route("/sign-out", post(sign_out))
            .fallback(async || Problem::NotFound)
            .with_state(self)
            .merge(shell::assets())
            .layer(from_fn(guard));
        match pings {
            // The notification endpoint that is registered at the OP. It checks a token of its own instead of the
            // guard.
            true => router.route("/deferred/ping", ping::axum::route(poller)),
            false => router,
        }
    }

    /// Finds a booking for the browser that made it.
    pub async fn booking(&self, jar: &CookieJar, id: &str) -> Result<(Browser, Booking), Problem> {
        let browser = recognise(&self.ledger, jar).await?.ok_or(Problem::NotFound)?;
        let booking = self.ledger.booking(id, browser.id).await?.ok_or(Problem::NotFound)?;
        Ok((browser, booking))
    }
}

async fn home(State(app): State<App>, jar: CookieJar) -> Result<Response, Problem> {
    let browser = recognise(&app.ledger, &jar).await?;
    let bookings = match &browser {
        Some(browser) => app.ledger.bookings(browser.id).await?,
        None => Vec::new(),
    };
    // The form leads to the OP, so it cannot be sent while the OP's address is unknown.
    let op = app.client.provider_metadata().await.ok();
    let op = op.and_then(|metadata| Some(metadata.authorization_endpoint()?.origin().ascii_serialization()));
    Ok(pages::home(browser.and_then(|browser| browser.person).as_ref(), &bookings, op).into_response())
}

#[derive(Deserialize)]
struct Order {
    boat: String,
}

/// Sends the user to the OP. First it stores the booking that they come back for, with the browser that they use.
async fn book(
    State(app): State<App>,
    jar: CookieJar,
    Form(order): Form<Order>,
) -> Result<(CookieJar, Redirect), Problem> {
    let boat = pages::BOATS.iter().find(|boat| boat.name == order.boat).ok_or(Problem::NotFound)?;
    let (browser, jar) = welcome(&app.ledger, jar).await?;
    let id = random_text()?;
    // The outcome will name this booking, whichever of the browser's tabs returns.
    let request = app.client.authorize().scopes(["profile", "email"]).context(id.as_str());
    let (url, session) = request.start().await?;
    // Each sign-in has its own cookie, so that several tabs do not interfere.
    let name = session.cookie_name();
    app.ledger.book(&id, browser.id, boat.name, name.clone()).await?;
    let jar = jar.add(cookie(&name, &session.seal(&app.keyring)?, AT_THE_OP)?);
    Ok((jar, Redirect::to(url.as_str())))
}

/// Handles the user's return. The poller does the rest.
async fn callback(
    State(app): State<App>,
    jar: CookieJar,
    RawQuery(query): RawQuery,
) -> Result<(CookieJar, Redirect), Problem> {
    let query = query.unwrap_or_default();
    // The response must come from the browser that started the sign-in. The application's own session and the cookie
    // prove that. Otherwise an attacker could finish their own sign-in in the browser of a victim.
    let name = AuthorizationSession::cookie_name_for(&query).ok_or(Problem::OtherBrowser)?;
    let browser = recognise(&app.ledger, &jar).await?.ok_or(Problem::OtherBrowser)?;
    let booking = app.ledger.booking_by_cookie(&name, browser.id).await?.ok_or(Problem::OtherBrowser)?;
    let page = Redirect::to(&format!("/booking/{}", booking.id));
    let Some(sealed) = jar.get(&name) else {
        // The first return removed the cookie. This is the same return, reloaded.
        let is_known = booking.process.is_some() || booking.ending.is_some();
        return if is_known { Ok((jar, page)) } else { Err(Problem::OtherBrowser) };
    };
    let session = AuthorizationSession::open(&app.keyring, sealed.value())?;
    match app.poller.authorization_response(&query, session).await {
        // The ledger contains an ended sign-in, unless this application died before it stored the outcome. The
        // booking's page handles both cases.
        Ok(SignIn::Deferred(process) | SignIn::Ended(process)) => app.ledger.set_process(&booking.id, process).await?,
        Ok(SignIn::Complete(authentication)) => app.ledger.end(&booking.id, (&authentication).into()).await?,
        Ok(_) => app.ledger.end(&booking.id, Ending::Unknown).await?,
        // A transient error before the code was sent, such as an unavailable store or a poller that was shut down. The
        // cookie stays, and the user may reload. An error code in the response is the OP's final answer.
        Err(error) if error.is_transient() && error.error_response().is_none() => return Err(error.into()),
        Err(error) => app.ledger.end(&booking.id, never_began(&error)).await?,
    }
    Ok((jar.remove(cookie(&name, "", Duration::ZERO)?), page))
}

/// The ending of a sign-in that has no process.
fn never_began(error: &Error) -> Ending {
    if error.error_response().is_some_and(|response| response.code() == "access_denied") {
        return Ending::Declined;
    }
    eprintln!("a sign-in failed: {error}");
    Ending::Failed
}

async fn booking(State(app): State<App>, jar: CookieJar, Path(id): Path<String>) -> Result<Response, Problem> {
    let (browser, booking) = app.booking(&jar, &id).await?;
    let view = live::View::of(&app, booking).await?;
    Ok(pages::booking(browser.person.as_ref(), &view).into_response())
}

/// Cancels a booking. The OP decides what happens, and its answer arrives like any other outcome.
async fn cancel(State(app): State<App>, jar: CookieJar, Path(id): Path<String>) -> Result<Redirect, Problem> {
    let (_, booking) = app.booking(&jar, &id).await?;
    match booking.process {
        Some(process) if booking.ending.is_none() => {
            app.poller.cancel(process).await?;
        }
        _ => {}
    }
    Ok(Redirect::to(&format!("/booking/{id}")))
}

/// Signs the user in, in the browser that made the booking and at the user's request.
async fn enter(
    State(app): State<App>,
    jar: CookieJar,
    Path(id): Path<String>,
) -> Result<(CookieJar, Redirect), Problem> {
    let (browser, _) = app.booking(&jar, &id).await?;
    let (is_in, jar) = browser::sign_in(&app.ledger, jar, &browser, &id).await?;
    Ok((jar, Redirect::to(if is_in || browser.person.is_some() { "/account" } else { "/" })))
}

async fn account(State(app): State<App>, jar: CookieJar) -> Result<Response, Problem> {
    let browser = recognise(&app.ledger, &jar).await?;
    let Some(Browser { id, person: Some(person) }) = browser else { return Ok(Redirect::to("/").into_response()) };
    let bookings = app.ledger.bookings(id).await?;
    Ok(pages::account(&person, &bookings).into_response())
}

async fn sign_out(State(app): State<App>, jar: CookieJar) -> Result<(CookieJar, Redirect), Problem> {
    let jar = match recognise(&app.ledger, &jar).await? {
        Some(browser) => browser::sign_out(&app.ledger, jar, &browser).await?,
        None => jar,
    };
    Ok((jar, Redirect::to("/")))
}

/// The errors that a user can see.
pub enum Problem {
    NotFound,
    /// A response from the OP to a sign-in that this browser did not start.
    OtherBrowser,
    /// A transient error.
    TryAgain,
    Ours,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        // Errors of the crate contain no secrets, so they can be logged.
        eprintln!("error: {error}");
        if error.is_transient() { Self::TryAgain } else { Self::Ours }
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        eprintln!("error: {error:#}");
        Self::Ours
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "Page not found",
                "The page does not exist, or it belongs to another browser. Bookings can be seen only in the browser \
                 in which they were made.",
            ),
            Self::OtherBrowser => (
                StatusCode::FORBIDDEN,
                "This sign-in was started in another browser",
                "Nothing was done. If it was you, open the link in the browser in which you began, or begin again \
                 here. If somebody sent you the link, close this page.",
            ),
            Self::TryAgain => (
                StatusCode::SERVICE_UNAVAILABLE,
                "This does not work right now",
                "A service that we need does not respond. Please reload this page in a minute.",
            ),
            Self::Ours => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong on our side",
                "The error was logged. Please start again.",
            ),
        };
        let mut page = pages::problem(title, text);
        page.status = status;
        page.into_response()
    }
}
