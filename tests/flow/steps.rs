//! Single steps of a sign-in, for tests that stop or interfere in the middle of one.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_core::future::BoxFuture;
use openid_deferred::error::TransportProblem;
use openid_deferred::testing::{Endpoint, RecordedRequest, jwk_thumbprint};
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use openid_deferred::{AuthorizationGrant, Error};
use url::Url;

use crate::support::World;

impl World {
    /// The checked return of a user whose code has not been exchanged.
    pub(crate) async fn grant(&self) -> AuthorizationGrant {
        let (query, mut session) = self.user_returns().await;
        self.client.check_authorization_response(&query, &mut session).await.expect("the response is genuine")
    }

    pub(crate) fn exchanges(&self) -> Vec<RecordedRequest> {
        self.op.requests_to(Endpoint::Exchange)
    }

    /// Asserts that no code, token or credential has left the client.
    #[track_caller]
    pub(crate) fn assert_nothing_sent(&self) {
        let sent = self.op.requests_to(Endpoint::Token);
        assert!(sent.is_empty(), "the token endpoint was called {} times", sent.len());
        self.op.assert_clean();
    }
}

/// The source of an error.
#[track_caller]
pub(crate) fn cause(error: &Error) -> &Error {
    error.source().and_then(|source| source.downcast_ref()).expect("an error of the crate lies below")
}

/// All values of a parameter in a URL.
pub(crate) fn parameters(url: &Url, name: &str) -> Vec<String> {
    url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

/// The unverified claims of a JWT.
pub(crate) fn claims_of(jwt: &str) -> serde_json::Value {
    part_of(jwt, 1)
}

/// The unverified header of a JWT.
pub(crate) fn header_of(jwt: &str) -> serde_json::Value {
    part_of(jwt, 0)
}

/// The thumbprint of the key that the proof of a request shows.
pub(crate) fn proven_key(request: &RecordedRequest) -> Option<String> {
    jwk_thumbprint(&header_of(request.header("dpop")?)["jwk"].to_string())
}

fn part_of(jwt: &str, index: usize) -> serde_json::Value {
    use base64::Engine as _;
    let part = jwt.split('.').nth(index).expect("a JWT has three parts");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("its parts are base64url");
    serde_json::from_slice(&json).expect("its header and payload are JSON")
}

/// A network that refuses the first connections to the token endpoint and counts all of them.
#[derive(Debug)]
pub(crate) struct RefusingNetwork {
    behind: Arc<dyn HttpClient>,
    refusals_left: AtomicUsize,
    pub(crate) connections: AtomicUsize,
}

impl RefusingNetwork {
    pub(crate) fn new(behind: Arc<dyn HttpClient>, refusals: usize) -> Arc<Self> {
        Arc::new(Self { behind, refusals_left: AtomicUsize::new(refusals), connections: AtomicUsize::new(0) })
    }
}

impl HttpClient for RefusingNetwork {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        if request.url.path().ends_with("/token") {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let left =
                self.refusals_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() {
                return Box::pin(async { Err(HttpError::not_sent(TransportProblem::Connect)) });
            }
        }
        self.behind.send(request)
    }
}
