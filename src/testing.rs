//! An OpenID Provider for the tests of your application, and a clock that the test owns.
//!
//! Hardly any OpenID Provider speaks the Deferred Token Response flow yet, and one that takes three weeks to decide is
//! no partner for a test suite. [`TestProvider`] is one that starts in a moment, over HTTP, over HTTPS or without any
//! socket, and that is stricter than production: it verifies client authentication, PKCE, DPoP and the pace of polls,
//! and remembers every rule that a request broke.
//!
//! Its proofs and tokens are verified and signed by another JOSE library than the one in the crate, so that the two
//! check each other.
//!
//! ```
//! use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
//!
//! # fn main() -> std::io::Result<()> {
//! let op = TestProvider::builder()
//!     .client(TestClient::secret_basic("my-app", "s3cret").redirect_uri("https://rp.test/callback"))
//!     .decisions(DecisionPolicy::after_polls(2))
//!     .start()?;
//!
//! // Point your application at `op.issuer()`, send its authorization URL through `op.visit(..)` in place of a user
//! // with a browser, and end the test with:
//! op.assert_clean();
//! # Ok(())
//! # }
//! ```
//!
//! - Who decides, and when: [`DecisionPolicy`], or [`TestProvider::process`] step by step.
//! - What goes wrong: [`Fault`], before or after a request is processed.
//! - What went over the wire: [`TestProvider::requests`].
//! - Weeks in a moment: [`TestClock`].
// In a test a panic is the right answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)]

mod authorization;
mod browser;
mod builder;
mod cancellation;
mod client;
mod client_authentication;
mod clock;
mod discovery;
mod dpop;
mod fault;
mod id_token;
mod in_process;
mod keys;
mod op;
mod pace;
mod ping;
mod process;
mod provider;
mod random;
mod record;
mod resource;
mod revocation;
mod server;
mod token;
mod wire;

pub use browser::BrowserReturn;
pub use builder::{DecisionPolicy, DiscoveryForm, InterimToken, NoncePolicy, TestProviderBuilder};
pub use client::{TestClient, TestUser};
pub use clock::{ClockHold, TestClock};
pub use fault::{Fault, IdTokenForgery};
pub use keys::jwk_thumbprint;
pub use ping::{Ping, PingForgery, SentPing};
pub use provider::{TestProcess, TestProvider};
pub use random::SeededRandom;
pub use record::{Endpoint, RecordedRequest, RequestRule, RequestViolation};
