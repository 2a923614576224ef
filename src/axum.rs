//! Sign-in routes for [axum](https://docs.rs/axum): login, callback, status, cancellation and pings.
//!
//! [`SignInRouter`] brings all routes over a [`Client`](crate::Client), a [`Poller`](crate::Poller) and
//! [`SignInCookies`]. The application implements [`SignInHooks`]: what to do when a user is signed in, and which pages to
//! show. This is a complete application:
//!
//! ```no_run
//! use std::{collections::HashMap, sync::Arc, sync::Mutex};
//!
//! use axum::response::{IntoResponse, Response};
//! use openid_deferred::axum::{SignInHooks, SignInRouter, Visit};
//! use openid_deferred::store::{MemoryStore, ProcessId};
//! use openid_deferred::{Authentication, Client, ClientAuthentication, Keyring, Poller};
//!
//! /// Who the OP has approved: in production, a table of the application.
//! #[derive(Clone, Default)]
//! struct Shop(Arc<Mutex<HashMap<ProcessId, String>>>);
//!
//! impl SignInHooks for Shop {
//!     /// The OP answered at once. Start a session of your own here.
//!     async fn complete(&self, authentication: Authentication, _: &Visit) -> Response {
//!         format!("Welcome, {}", authentication.claims().subject()).into_response()
//!     }
//!
//!     /// The user comes for the outcome. Start the session here too.
//!     async fn finish(&self, id: ProcessId, _: &Visit) -> Option<Response> {
//!         // It stays for a second click on the button. In production, let it be used again for two minutes.
//!         let user = self.0.lock().expect("no holder panics").get(&id).cloned()?;
//!         Some(format!("Welcome, {user}").into_response())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::builder("https://op.example", "my-client")
//!         .authentication(ClientAuthentication::client_secret_basic("the secret that the OP gave you"))
//!         .redirect_uri("https://rp.example/callback")
//!         .build()?;
//!     // For production: a store in a database, and a keyring of your own.
//!     let poller = Poller::builder(MemoryStore::new(), Keyring::ephemeral()?).client(client.clone()).start().await?;
//!     let shop = Shop::default();
//!     let app = SignInRouter::new(client, poller.clone(), shop.clone()).build()?;
//!     tokio::spawn(poller.outcomes().handle_each(async move |delivery| {
//!         if let Some(user) = delivery.outcome().approved() {
//!             shop.0.lock().expect("no holder panics").insert(delivery.id(), user.claims().subject().to_owned());
//!         }
//!         Ok(())
//!     }));
//!     Ok(axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?)
//! }
//! ```
//!
//! Serve it behind HTTPS. For development on this machine, use a redirect URI such as `http://127.0.0.1:8080/callback` and
//! [`insecure_loopback`](SignInCookies::insecure_loopback), and for an OP on this machine
//! [`allow_insecure_loopback`](crate::ClientBuilder::allow_insecure_loopback).
//!
//! Event streams end when [`Poller::shutdown`](crate::Poller::shutdown) begins. Call it when the server is told to stop,
//! not after it has stopped: axum's graceful shutdown waits for open streams.
//!
//! # The routes
//!
//! | route | what it does |
//! |---|---|
//! | `GET /sign-in` | the [page](SignInHooks::start_page) at which sign-ins start, with those of this browser |
//! | `POST /sign-in` | starts a sign-in, and redirects to the OP; the form field `return_to` is a path of this application, which [`complete`](SignInHooks::complete) and [`finish`](SignInHooks::finish) get as [`Visit::return_path`] |
//! | `GET` and `POST` of the redirect URI | takes the response of the OP, as a query or as `form_post` |
//! | `GET /sign-in/{id}` | the status: as the [page](SignInHooks::page) if `Accept` names `text/html`, as a browser does, and otherwise as JSON |
//! | `GET /sign-in/{id}/events` | the status after each change, as server-sent events |
//! | `POST /sign-in/{id}/cancel` | asks the OP to cancel, if the client knows how: in the OpenID dialect by [`cancellation_endpoint`](crate::ClientBuilder::cancellation_endpoint), which no metadata has. Otherwise the sign-in waits for the OP's decision |
//! | `POST /sign-in/{id}/finish` | lets the application sign the user in, after an outcome |
//! | `POST /sign-in/{id}/dismiss` | lets this browser forget a sign-in that has ended, such as a refusal that the user has seen; then redirects to the form field `return_to`, or to `/`. A sign-in that has not ended stays |
//! | the path of [`receives_pings_at`](SignInRouter::receives_pings_at) | takes pings of the OP |
//!
//! [`SignInRouter::logout`] adds the routes of logouts, for applications that implement [`LogoutHooks`] too.
//!
//! The JSON has the members of [`Status`](crate::poller::Status) and two more: `interaction_uri`, the link for the user
//! if the OP needs something from them, and `ending`, which [`SignInHooks::ending`] returns. `has_ended` says whether
//! anything more can come, and `cancellation` whether the OP knows that the user has cancelled: `accepted`,
//! `requested`, or `locally_only` if it cannot be told. It is null again when the OP has decided, while `is_cancelled`
//! stays `true`. For a sign-in that the poller no longer has, `has_ended` is `true` and what the poller knew is null.
//!
//! Every event of the stream is a `status` with the same JSON, without `due_in_seconds`. The last one has `has_ended`.
//! A stream lasts ten minutes at most; `EventSource` connects again by itself. A sign-in has ten streams at the same
//! time at most, and a router 1,000. Another one is answered with 503.
//!
//! # From the outcome to a signed-in user
//!
//! An outcome says who a person is, and not which browser they use. So an outcome of
//! [`Poller::outcomes`](crate::Poller::outcomes) does not sign a user in. Store it under the identifier of its
//! delivery, and then acknowledge it. When the user asks for it, in the browser that started the sign-in, `POST
//! /sign-in/{id}/finish` calls [`SignInHooks::finish`], which looks the outcome up and starts a session. That also
//! makes the browser forget the sign-in. A user who clicks twice calls it twice: let an approval be used again for two
//! minutes, and let the new session replace the first. After any other outcome, give the user a button that posts to
//! `/sign-in/{id}/dismiss`; otherwise the browser shows the sign-in until its cookie expires.
//!
//! # What the routes protect
//!
//! - **The response of the OP** is taken only from the browser that started the sign-in, and once
//!   ([`SignInCookies::start`]). Reloading the callback leads to the sign-in that it started.
//! - **A sign-in** is shown, cancelled, finished and dismissed only in the browser that started it
//!   ([`BrowserSignIns`]). To other browsers it does not exist.
//! - **Forms of other sites** are refused ([`check_same_origin`]).
//! - **Logout tokens** of the OP are verified, and each is used once by one replica
//!   ([`end_sessions`](LogoutHooks::end_sessions) says how several replicas share that).
//! - **Redirects** lead to the OP, or to a path of this application ([`checked_return_path`]).
//! - **Everything is bounded**: bodies, cookies, sign-ins of a browser, and event streams ([limits]).
//!
//! They do not protect the rest of the application. Add `Content-Security-Policy`, `Strict-Transport-Security` and
//! limits for the number of requests yourself. If the policy has `form-action`, allow the origin of the OP's
//! authorization endpoint, because the form leads there, and that of its end-session endpoint if users log out. Give
//! the browser a new session token when a user is signed in.
//!
//! # The parts alone
//!
//! [`SignInCookies`] makes and reads the cookies, [`BrowserSignIns`] is an extractor, [`Changes`] waits for changes of a
//! sign-in, and [`check_same_origin`] and [`checked_return_path`] are functions. [`ProblemDetails`] and [`ping::axum`] are
//! used by the routes too, and can be used without them.
//!
//! [limits]: https://github.com/openid-deferred/openid-deferred/blob/main/docs/limits.md
//! [`ping::axum`]: crate::ping::axum
//! [`ProblemDetails`]: crate::error::ProblemDetails

mod body;
mod changes;
mod cookies;
mod extractor;
mod hooks;
mod logout_hooks;
mod pages;
mod problem;
mod return_path;
mod router;
mod same_origin;
mod sign_ins;
mod status;
mod streams;
mod visit;

pub use changes::Changes;
pub use cookies::SignInCookies;
pub use hooks::SignInHooks;
pub use logout_hooks::LogoutHooks;
pub use return_path::checked_return_path;
pub use router::SignInRouter;
pub use same_origin::check_same_origin;
pub use sign_ins::BrowserSignIns;
pub use visit::Visit;
