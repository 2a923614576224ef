//! Sign users in through the OpenID Connect Deferred Token Response flow.
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
mod id_token;
mod jose;
mod keyring;
mod pending;
mod provider;
mod random;
mod secret;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod text;
mod transport;

pub use client::{
    AssertionAudience, Authentication, AuthorizationGrant, AuthorizationRequest, AuthorizationSession, Client,
    ClientBuilder, Denial, DpopMode, Expiry, Outcome, Poll, PollCredential, ResponseMode, ResponseType, SignIn,
    UserInfo, Wait, WaitEvent,
};
pub use clock::{Clock, SystemClock};
pub use dpop::DpopKey;
pub use endpoint::ClientAuthentication;
pub use error::{
    ConfigurationProblem, Document, Error, ErrorKind, ErrorResponse, Misuse, Rule, SessionProblem, TransportProblem,
    Violation,
};
pub use id_token::{Address, Claims, IdToken, InterimIdToken, InterimState};
pub use jose::{Signer, SigningAlgorithm, SigningKey};
pub use keyring::{Keyring, SealingKey};
pub use pending::PendingAuthentication;
pub use provider::ProviderMetadata;
pub use random::{Random, SystemRandom};
pub use secret::Secret;
pub use transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
