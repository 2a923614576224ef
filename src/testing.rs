//! An OpenID Provider for the tests of your application, and a clock that the test controls.
//!
//! Few OpenID Providers support the Deferred Token Response flow yet, and a test suite cannot wait three weeks for a
//! decision. [`TestProvider`] starts at once, over HTTP, over HTTPS or without any socket. It is stricter than a
//! production OP: it verifies client authentication, PKCE, DPoP and the pace of polls, and records every rule that a
//! request broke.
//!
//! It uses another JOSE library than the crate for its proofs and tokens, so that the two check each other.
//!
//! A test of an application whose sign-in is refused after two weeks, during which the OP is down for a day:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, TestClient, TestClock, TestProvider};
//! use openid_deferred::{Client, ClientAuthentication, Outcome, SignIn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const DAY: Duration = Duration::from_secs(86_400);
//!
//! let clock = TestClock::automatic();
//! let op = TestProvider::builder()
//!     .in_process()
//!     .clock(Arc::new(clock.clone()))
//!     .client(TestClient::secret_basic("my-app", "s3cret").redirect_uri("https://rp.test/callback"))
//!     .interval(Duration::from_secs(600))
//!     .decisions(DecisionPolicy::after(14 * DAY).deny())
//!     .start()?;
//! // This is what the application makes its client from; the last two lines are for the test.
//! let client = Client::builder(op.issuer(), "my-app")
//!     .authentication(ClientAuthentication::client_secret_basic("s3cret"))
//!     .redirect_uri("https://rp.test/callback")
//!     .http_client(op.http_client())
//!     .clock(Arc::new(clock.clone()))
//!     .discover()
//!     .await?;
//!
//! let (url, session) = client.authorize().start().await?;
//! let query = op.visit(url).query(); // in place of a user with a browser
//! let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await? else {
//!     panic!("the OP should take its time");
//! };
//!
//! // Down for a day: a fault that lasts until the clock says otherwise.
//! let back = op.requests().last().map(|request| request.arrived + DAY).unwrap_or_default();
//! let down = Fault::status(Endpoint::Poll, 503).always().when(move |request| request.arrived < back);
//! op.misbehave(down);
//!
//! let outcome = client.wait(&mut pending).await?;
//! assert!(matches!(outcome, Outcome::Denied(_)));
//! op.assert_clean(); // not one request broke a rule
//! # Ok(())
//! # }
//! ```
//!
//! - The decision and its time: [`DecisionPolicy`], or [`TestProvider::process`] step by step.
//! - CIBA, which begins without a browser: [`TestProviderBuilder::ciba`].
//! - The IETF draft instead of the OpenID draft, or both: [`TestProviderBuilder::ietf`].
//! - Failures: [`Fault`], before or after a request is processed.
//! - Requirements for clients: [`TestClient`] for one of them, such as signed requests or encrypted responses;
//!   [`TestProviderBuilder::fapi2`] for all.
//! - The received requests: [`TestProvider::requests`].
//! - Logout: [`TestProvider::visit_end_session`], and logout tokens by [`TestProcess::log_out`].
//! - Weeks in a moment: [`TestClock`].
// In a test a panic is the right answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)]

mod authorization;
mod backchannel;
mod browser;
mod builder;
mod cancellation;
mod certificate;
mod client;
mod client_authentication;
mod clock;
mod decryption;
mod deferral;
mod dialect;
mod discovery;
mod dpop;
mod editor;
mod encryption;
mod fault;
mod grants;
mod id_token;
mod identity_assurance;
mod ietf;
mod in_process;
mod interaction;
mod introspection;
mod jwt_response;
mod keys;
mod logout;
mod logout_token;
mod mutual_tls;
mod notification;
mod op;
mod pace;
mod ping;
mod post;
mod process;
mod provider;
mod pushed;
mod random;
mod record;
mod registration;
mod request_object;
mod resource;
mod revocation;
mod server;
mod settings;
mod state;
mod token;
mod wire;

pub use browser::BrowserReturn;
pub use builder::TestProviderBuilder;
pub use certificate::TestCertificate;
pub use client::{TestClient, TestUser};
pub use clock::{ClockHold, TestClock};
pub use encryption::EncryptionForgery;
pub use fault::{Fault, IdTokenForgery};
pub use keys::jwk_thumbprint;
pub use logout_token::SentLogoutToken;
pub use ping::{Ping, PingForgery, SentPing};
pub use provider::{TestProcess, TestProvider};
pub use random::SeededRandom;
pub use record::{Endpoint, RecordedRequest, RequestRule, RequestViolation};
pub use settings::{DecisionPolicy, DiscoveryForm, InterimToken, NoncePolicy};
