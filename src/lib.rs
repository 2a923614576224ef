//! Sign-in through the OpenID Connect Deferred Token Response flow (DTR): the user finishes with the browser in a
//! minute, the OpenID Provider (OP) decides hours or weeks later, and the application gets the outcome.
//!
//! Two drafts define this flow: the OpenID draft (DTR) and a draft of the IETF (IETF DTR). The client supports both,
//! and chooses by the OP's metadata: see [`Dialect`]. With the IETF draft, an OP may also defer its answer to a token
//! request without a user. A third protocol, CIBA, needs no browser: the application names the user, and the OP asks
//! them on another device; see [`ciba`].
//!
//! # The steps
//!
//! Each step takes and returns values. The client keeps no state of a sign-in.
//!
//! | step | call | result |
//! |---|---|---|
//! | register, unless that was done manually | [`Registrar::register`](registration::Registrar::register), [`Registration::client`](registration::Registration::client) | a [`Registration`](registration::Registration) to store, and a [`ClientBuilder`] |
//! | discover the OP | [`Client::builder`], [`discover`](ClientBuilder::discover) | [`Client`] |
//! | redirect the user | [`Client::authorize`], [`start`](AuthorizationRequest::start) | a URL and an [`AuthorizationSession`] for the browser's cookie |
//! | handle the callback | [`Client::authorization_response`] | [`SignIn::Deferred`] with a [`PendingAuthentication`], or [`SignIn::Complete`] |
//! | or request tokens without a user | [`Client::token_request`], [`send`](TokenRequest::send) | [`TokenAnswer::Deferred`] with a [`PendingAuthentication`], or [`TokenAnswer::Complete`] |
//! | or have a user asked on another device | [`Client::backchannel_authentication`], [`send`](ciba::AuthenticationRequest::send) | a [`PendingAuthentication`] |
//! | wait | [`Client::wait`], or [`Client::poll`] from a job system of your own | an [`Outcome`] |
//! | use the result | [`Authentication::claims`], [`Claims::verified_claims`], [`Client::userinfo`], [`Client::resource`] | claims about the user, and calls to APIs |
//! | manage tokens | [`Client::refresh`], [`Client::introspect`], [`Client::revoke`] | new tokens, their state, and their revocation |
//!
//! This example runs as it is, against the OP of the [`testing`] module:
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//! use openid_deferred::testing::{DecisionPolicy, TestClient, TestClock, TestProvider, TestUser};
//! use openid_deferred::{Client, ClientAuthentication, Keyring, Outcome, PendingAuthentication, SealingKey, SignIn};
//!
//! // An OP that takes three weeks to decide, and a clock that simulates them.
//! let clock = TestClock::automatic();
//! let op = TestProvider::builder()
//!     .in_process()
//!     .clock(Arc::new(clock.clone()))
//!     .client(TestClient::secret_basic("my-client", "secret").redirect_uri("https://rp.example/callback"))
//!     .user(TestUser::new("jane").claim("name", "Jane Doe"))
//!     .decisions(DecisionPolicy::after(Duration::from_secs(20 * 86_400)))
//!     .interval(Duration::from_secs(3600))
//!     .start()?;
//!
//! let client = Client::builder(op.issuer(), "my-client")
//!     .authentication(ClientAuthentication::client_secret_basic("secret"))
//!     .redirect_uri("https://rp.example/callback")
//!     .http_client(op.http_client()) // these two lines
//!     .clock(Arc::new(clock))        // are for the test only
//!     .discover()
//!     .await?;
//!
//! let (url, session) = client.authorize().scopes(["profile"]).start().await?;
//! let query = op.visit(url).query(); // the user's browser goes there and comes back
//!
//! let SignIn::Deferred(pending) = client.authorization_response(&query, session).await? else {
//!     return Err("the OP answered at once".into());
//! };
//!
//! // Hours or weeks pass; the program may restart in between.
//! let keyring = Keyring::new(SealingKey::from_base64("CVh2hmGkm7dpPYHCxQeQWzB4jLYHG8xQbD3c3bqFUZc=")?);
//! let stored: Vec<u8> = pending.seal(&keyring)?;
//! let mut pending = PendingAuthentication::open(&keyring, &stored)?;
//!
//! let Outcome::Approved(authentication) = client.wait(&mut pending).await? else {
//!     return Err("not approved".into());
//! };
//! assert_eq!(authentication.claims().name(), Some("Jane Doe"));
//! op.assert_clean(); // not one request broke a rule
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! ```
//!
//! # Two APIs
//!
//! ```text
//!   your application
//!      │ authorize   │ authorization_response   │ wait, poll       │ outcomes, status, cancel
//!      ▼             ▼                          ▼                  ▼
//! ┌─────────────────────────── Client ────────────────────┐  ┌── Poller ─────────────────────────┐
//! │ stateless client: values in, values out, no state     │◀─│ durable poller: any number of     │
//! │ session ─▶ grant ─▶ PendingAuthentication ─▶ Outcome  │  │ clients, sign-ins and replicas    │
//! └───────────────┬───────────────────────────────────────┘  └──────┬──────────────────▲─────────┘
//!                 │ HTTPS, a DPoP proof for each request            │ sealed rows      │ pings
//!                 ▼                                                 ▼                  │
//!          OpenID Provider ─────────────────────────────────────▶ Store        ping::Receiver
//! ```
//!
//! The steps above use the stateless client: the application stores and polls the values itself. The durable poller
//! builds on it: it stores and polls many pending sign-ins, on several machines, and delivers every outcome.
//!
//! | | stateless client | durable poller |
//! |---|---|---|
//! | type | [`Client`] | [`Poller`], with one client or many |
//! | a pending sign-in is | a [`PendingAuthentication`], to be sealed and stored | a [`ProcessId`](store::ProcessId) and a sealed row in a [`Store`](store::Store) |
//! | the user comes back | [`Client::authorization_response`], a [`SignIn`] | [`Poller::authorization_response`], a [`poller::AcceptedSignIn`] |
//! | tokens without a user | [`Client::token_request`], a [`TokenAnswer`] | [`Poller::request_tokens`], a [`poller::AcceptedTokenRequest`] |
//! | backchannel authentication | [`Client::backchannel_authentication`], a [`PendingAuthentication`] | [`Poller::request_authentication`], a [`poller::AcceptedSignIn`] |
//! | the outcome comes from | [`Client::wait`] or [`Client::poll`], an [`Outcome`] | [`Poller::outcomes`], each [`Delivery`] until it is [acknowledged](Delivery::acknowledge) |
//! | a crash | loses what was not sealed and stored before | loses no sign-in; if the OP's answer was lost, the outcome is [`Outcome::Unknown`] |
//! | cancel with | [`Client::cancel`], a [`Cancelled`] | [`Poller::cancel`], a [`poller::CancellationStatus`] |
//! | Ping Callbacks | your endpoint | [`ping::Receiver`] |
//!
//! Both redirect the user with [`Client::authorize`]. [`Poller::track`] moves a pending sign-in from the stateless
//! client to the durable poller. Rows are stored in a PostgreSQL database ([`PostgresStore`]), in a file
//! ([`SqliteStore`]), in memory ([`MemoryStore`](store::MemoryStore)), or in a store of your own.
//!
//! # Outcomes and errors
//!
//! A sign-in ends with an [`Outcome`]: approved (or issued, without a user), denied, expired, failed, invalid,
//! cancelled, or unknown if the OP's answer was lost. An [`Error`] does not end a pending
//! sign-in. If an exchange fails after its code was sent, there is no pending sign-in, and the user must start again.
//! [`Error::kind`] distinguishes the OP's error responses, broken [rules](error::Rule), the network, the configuration,
//! the store and misuse of the crate. The `Display` and `Debug` output of errors, and the `Debug` output of every type
//! here, contains no token, code, key or response body, so it may be logged.
//!
//! # Extension points
//!
//! Time, randomness and the network are traits ([`Clock`], [`Random`], [`HttpClient`](transport::HttpClient)), mainly
//! for tests. Private keys may be outside of the program ([`Signer`]). The durable poller's [`Store`](store::Store) is a
//! trait too. A client certificate is a handle ([`ClientCertificate`](transport::ClientCertificate)) that can be renewed
//! while sign-ins are pending.
//!
//! # Modules
//!
//! The names at the root are those that most applications use. Each of these modules is about one subject, and its page
//! says what to call first:
//!
//! | module | for |
//! |---|---|
//! | [`axum`] | the routes and cookies of a sign-in, for web applications |
//! | [`ciba`] | backchannel authentication: the OP asks a user whom the application names |
//! | [`claims`] | requests for single claims |
//! | [`compatibility`] | settings for OPs that deviate from the specifications |
//! | [`encryption`] | encrypted tokens, requests and responses |
//! | [`error`](mod@error) | what an [`Error`] is about |
//! | [`identity_assurance`] | verified claims with their evidence |
//! | [`logout`] | logout at the OP, and logout tokens of the OP |
//! | [`operations`] | what operators do with a store: list, show, repair, erase |
//! | [`ping`] | the receiver of Ping Callbacks |
//! | [`poller`] | the settings, events and statuses of the durable poller |
//! | [`registration`] | dynamic client registration |
//! | [`store`] | the stores of the durable poller, and the contract of a store of your own |
//! | [`testing`] | an OP and a clock for tests |
//! | [`tokens`] | what tokens grant, their introspection and their revocation |
//! | [`transport`] | client certificates, public addresses, and an HTTP client of your own |
//!
//! # Features
//!
//! - `rustls` (default) or `native-tls`: TLS of the HTTP client.
//! - `axum`: the module `axum` with the routes of a sign-in, and the ping receiver as a route, `ping::axum::route`.
//! - `sqlite`: [`SqliteStore`], which stores pending sign-ins in a file. SQLite is compiled in. A program can link
//!   only one version of `libsqlite3-sys`, so every crate in it that uses SQLite must need the same one.
//! - `postgres`: [`PostgresStore`], which stores pending sign-ins in a PostgreSQL database.
//! - `metrics`: counters, gauges and histograms of the poller, through the `metrics` facade.
//! - `cli`: the program `openid-deferred`, with which operators look into a store; brings `sqlite` and `postgres`.
//! - `testing`: the module [`testing`], with an OP and a clock for tests, and `store::contract`, the tests for stores.
#![cfg_attr(not(feature = "testing"), doc = "", doc = "[`testing`]: https://docs.rs/openid-deferred")]
#![cfg_attr(not(feature = "axum"), doc = "", doc = "[`axum`]: https://docs.rs/openid-deferred")]
#![cfg_attr(feature = "sqlite", doc = "", doc = "[`SqliteStore`]: store::SqliteStore")]
#![cfg_attr(feature = "postgres", doc = "", doc = "[`PostgresStore`]: store::PostgresStore")]
#![cfg_attr(not(feature = "sqlite"), doc = "", doc = "[`SqliteStore`]: https://docs.rs/openid-deferred")]
#![cfg_attr(not(feature = "postgres"), doc = "", doc = "[`PostgresStore`]: https://docs.rs/openid-deferred")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(unreachable_pub)]
// Untrusted input must not cause a panic. Test code is exempt.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub mod axum;
pub mod ciba;
pub mod claims;
mod client;
mod clock;
pub mod compatibility;
mod dialect;
mod dpop;
pub mod encryption;
mod endpoint;
pub mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod id_token;
pub mod identity_assurance;
mod jose;
mod json;
mod keyring;
pub mod logout;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod measured;
pub mod operations;
mod pending;
pub mod ping;
pub mod poller;
mod provider;
mod random;
pub mod registration;
mod request_body;
mod sealed;
mod secret;
pub mod store;
mod task;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod text;
pub mod tokens;
mod trace_parent;
pub mod transport;

pub use client::{
    Authentication, AuthorizationGrant, AuthorizationRequest, AuthorizationSession, Backoff, Cancelled, Client,
    ClientBuilder, Denial, DpopMode, Expiration, Grant, IssuedTokens, Outcome, Poll, ResponseMode, SignIn, TokenAnswer,
    TokenRequest, UserInfo, Wait, WaitEvent,
};
pub use clock::{Clock, SystemClock};
pub use dialect::{Dialect, ResponseType};
pub use dpop::DpopKey;
pub use endpoint::ClientAuthentication;
pub use error::kind::{Error, ErrorKind};
pub use error::response::ErrorResponse;
pub use id_token::{Claims, IdToken, InterimIdToken, InterimState};
pub use jose::{Signer, SigningAlgorithm, SigningKey};
pub use keyring::{Keyring, SealingKey};
pub use pending::PendingAuthentication;
pub use poller::delivery::Delivery;
pub use poller::handle::Poller;
pub use provider::ProviderMetadata;
pub use random::{Random, SystemRandom};
pub use secret::Secret;

/// The code in README.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The code in the guides compiles.
macro_rules! guides {
    ($($guide:ident = $file:literal;)*) => {$(
        #[cfg(all(doctest, feature = "axum", feature = "postgres", feature = "testing"))]
        #[doc = include_str!($file)]
        struct $guide;
    )*};
}

guides! {
    CibaGuide = "../docs/ciba.md";
    DialectsGuide = "../docs/dialects.md";
    ExtendingGuide = "../docs/extending.md";
    FirstSignInGuide = "../docs/first-sign-in.md";
    InteroperabilityGuide = "../docs/interoperability.md";
    LogoutGuide = "../docs/logout.md";
    MigratingGuide = "../docs/migrating.md";
    ProductionGuide = "../docs/production.md";
    RegistrationGuide = "../docs/registration.md";
    SecurityGuide = "../docs/security.md";
    TestingGuide = "../docs/testing.md";
    VerifiedClaimsGuide = "../docs/verified-claims.md";
}
