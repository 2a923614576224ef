//! Sign users in through the OpenID Connect Deferred Token Response flow (DTR): the user finishes with the browser in a
//! minute, the OpenID Provider (OP) finishes checking in an hour or in three weeks, and the application gets exactly one
//! outcome.
//!
//! # The steps
//!
//! Each step takes and returns values; nothing is kept behind your back.
//!
//! | step | call | gives |
//! |---|---|---|
//! | register, where nobody did it by hand | [`Registrar::register`], [`Registration::client`] | a [`Registration`] to store, and a [`ClientBuilder`] |
//! | know the OP | [`Client::builder`], [`discover`](ClientBuilder::discover) | [`Client`] |
//! | send the user out | [`Client::authorize`], [`start`](AuthorizationRequest::start) | a URL and an [`AuthorizationSession`] for the browser's cookie |
//! | the user comes back | [`Client::authorization_response`] | [`SignIn::Deferred`] with a [`PendingAuthentication`], or [`SignIn::Complete`] |
//! | wait | [`Client::wait`], or [`Client::poll`] from a job system of your own | an [`Outcome`] |
//! | go on | [`Authentication::claims`], [`Claims::verified_claims`], [`Client::userinfo`], [`Client::resource`] | who the user is, and calls to APIs |
//! | keep going | [`Client::refresh`], [`Client::introspect`], [`Client::revoke`] | new tokens, what is left of them, and their end |
//!
//! This whole example runs, against the OP of the [`testing`] module:
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//! use openid_deferred::testing::{DecisionPolicy, TestClient, TestClock, TestProvider, TestUser};
//! use openid_deferred::{Client, ClientAuthentication, Keyring, Outcome, PendingAuthentication, SealingKey, SignIn};
//!
//! // An OP that takes three weeks, and a clock that runs through them in a moment.
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
//! // Hours or weeks pass; the process may restart in between.
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
//! # Two floors
//!
//! ```text
//!   your application
//!      │ authorize   │ authorization_response   │ wait, poll       │ outcomes, status, cancel
//!      ▼             ▼                          ▼                  ▼
//! ┌─────────────────────────── Client ────────────────────┐  ┌── Poller ─────────────────────────┐
//! │ protocol floor: values in, values out, no state       │◀─│ durable floor: any number of      │
//! │ session ─▶ grant ─▶ PendingAuthentication ─▶ Outcome  │  │ clients, processes and replicas   │
//! └───────────────┬───────────────────────────────────────┘  └──────┬──────────────────▲─────────┘
//!                 │ HTTPS, a DPoP proof for each request            │ sealed rows      │ pings
//!                 ▼                                                 ▼                  │
//!          OpenID Provider ─────────────────────────────────────▶ Store        ping::Receiver
//! ```
//!
//! The steps above are the protocol floor: values that the application keeps and polls itself. On it stands the durable
//! floor, which keeps and polls many processes, on several machines, and sees that every outcome arrives.
//!
//! | | protocol floor | durable floor |
//! |---|---|---|
//! | in one type | [`Client`] | [`Poller`], which has one client or many |
//! | a process is | a [`PendingAuthentication`], to be sealed and stored | a [`ProcessId`](store::ProcessId) and a sealed row in a [`Store`](store::Store) |
//! | the user comes back | [`Client::authorization_response`] | [`Poller::authorization_response`] |
//! | it ends with | [`Client::wait`] or [`Client::poll`], an [`Outcome`] | [`Poller::outcomes`], each [`Delivery`] until it is [acknowledged](Delivery::acknowledge) |
//! | a crash | loses what was not sealed and stored before | loses no process; where the OP's answer was lost with it, the outcome is [`Outcome::Unknown`] |
//! | no longer wanted | [`Client::cancel`] | [`Poller::cancel`] |
//! | Ping Callbacks | your endpoint | [`ping::Receiver`] |
//!
//! The user is sent out by [`Client::authorize`] on both. [`Poller::track`] takes a process from the first floor to the
//! second. Rows live in a PostgreSQL database ([`PostgresStore`]), in a file ([`SqliteStore`]), in memory
//! ([`MemoryStore`](store::MemoryStore)), or wherever a store of your own keeps them.
//!
//! # Outcomes and errors
//!
//! How a process ends is an [`Outcome`]: approved, denied, expired, failed, invalid, cancelled, or unknown, where the
//! OP's answer was lost on its way. An [`Error`] is something that went wrong on the way there. It never ends a
//! process that is waited for (a failed exchange does end the sign-in, because there is no process yet), and
//! [`Error::kind`] tells the OP's answer, the OP breaking a [`Rule`], the network, the configuration, the store and
//! the application's own use of the crate apart. Neither contains a token, a code, a key or a response body, so both
//! may be logged, and so may the `Debug` output of every type here.
//!
//! # Seams
//!
//! Time, chance and the network are traits ([`Clock`], [`Random`], [`HttpClient`]), and private keys may live outside
//! of the process ([`Signer`]). Applications rarely replace the first three; their tests do. The
//! [`Store`](store::Store) of the durable floor is one too. A client certificate is a handle ([`ClientCertificate`]):
//! it is renewed while users wait.
//!
//! # Features
//!
//! - `rustls` (default) or `native-tls`: TLS of the HTTP client.
//! - `axum`: the ping receiver as a route of axum, `ping::axum::route`.
//! - `sqlite`: [`SqliteStore`], waiting processes in a file. SQLite is compiled in, and a program can
//!   hold it once only, so other uses of `rusqlite` in it have to be of the same release.
//! - `postgres`: [`PostgresStore`], waiting processes in a PostgreSQL database.
//! - `metrics`: what the poller does, as counters, gauges and histograms of the `metrics` facade.
//! - `testing`: the module [`testing`], with an OP and a clock for tests, and `store::contract`, the tests for stores.
#![cfg_attr(not(feature = "testing"), doc = "", doc = "[`testing`]: https://docs.rs/openid-deferred")]
#![cfg_attr(feature = "sqlite", doc = "", doc = "[`SqliteStore`]: store::SqliteStore")]
#![cfg_attr(feature = "postgres", doc = "", doc = "[`PostgresStore`]: store::PostgresStore")]
#![cfg_attr(not(feature = "sqlite"), doc = "", doc = "[`SqliteStore`]: https://docs.rs/openid-deferred")]
#![cfg_attr(not(feature = "postgres"), doc = "", doc = "[`PostgresStore`]: https://docs.rs/openid-deferred")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(unreachable_pub)]
// Code that must keep a million waiting users must not panic on what a stranger sends. The test double is exempt.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

mod client;
mod clock;
mod dpop;
mod endpoint;
mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod id_token;
mod jose;
mod json;
mod keyring;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod measured;
mod pending;
pub mod ping;
pub mod poller;
mod provider;
mod random;
mod secret;
pub mod store;
mod task;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod text;
mod transport;

pub use client::{
    ApplicationType, AssertionAudience, Authentication, AuthorizationGrant, AuthorizationRequest, AuthorizationSession,
    Backoff, Cancelled, CertificateSubject, ClaimRequest, ClaimsRequest, Client, ClientBuilder, ClientMetadata, Denial,
    DifferenceEffect, DpopMode, EvidenceRequest, Expiry, GrantedScope, Introspection, Outcome, Poll, PollCredential,
    Registrar, RegistrarBuilder, Registration, RegistrationDifference, RegistrationRefusal, RegistrationRequest,
    ResponseMode, ResponseType, SignIn, SubjectType, TokenTypeHint, UserInfo, VerifiedClaimsRequest, Wait, WaitEvent,
};
pub use clock::{Clock, SystemClock};
pub use dpop::DpopKey;
pub use endpoint::ClientAuthentication;
pub use error::{
    ConfigurationProblem, Document, Error, ErrorKind, ErrorResponse, Misuse, Rule, SessionProblem, TransportProblem,
    Violation,
};
pub use id_token::{
    Address, AssuranceProcess, Claims, DocumentEvidence, ElectronicRecordEvidence, ElectronicSignatureEvidence,
    Evidence, EvidenceCheck, IdToken, InterimIdToken, InterimState, MalformedVerifiedClaims, OtherEvidence,
    Verification, VerifiedClaims, VerifiedClaimsProblem, VerifiedClaimsSet, VouchEvidence,
};
pub use jose::{
    ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm, Signer, SigningAlgorithm, SigningKey,
};
pub use keyring::{Keyring, SealingKey};
pub use pending::PendingAuthentication;
pub use poller::{Accepted, Delivery, Poller};
pub use provider::ProviderMetadata;
pub use random::{Random, SystemRandom};
pub use secret::Secret;
pub use transport::{
    ClientCertificate, HttpClient, HttpError, HttpRequest, HttpResponse, PresentedCertificate, PublicAddresses,
};

/// The code in README.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So does the code in the guides.
macro_rules! guides {
    ($($guide:ident = $file:literal;)*) => {$(
        #[cfg(all(doctest, feature = "axum", feature = "postgres", feature = "testing"))]
        #[doc = include_str!($file)]
        struct $guide;
    )*};
}

guides! {
    ExtendingGuide = "../docs/extending.md";
    FirstSignInGuide = "../docs/first-sign-in.md";
    InteroperabilityGuide = "../docs/interoperability.md";
    MigratingGuide = "../docs/migrating.md";
    ProductionGuide = "../docs/production.md";
    RegistrationGuide = "../docs/registration.md";
    SecurityGuide = "../docs/security.md";
    TestingGuide = "../docs/testing.md";
    VerifiedClaimsGuide = "../docs/verified-claims.md";
}
