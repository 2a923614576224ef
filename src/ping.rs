//! DTR §Ping Callback: the OP says that it has something to say.
//!
//! An OP that pings calls the Deferred Client Notification Endpoint that was registered for the client, as soon as it has
//! decided. A [`Receiver`] stands there. It needs a [`Poller`] that [gives the OP a token for
//! it](crate::poller::PollerBuilder::receives_pings), on the same store as those that poll; which replica a ping reaches
//! does not matter. With a `Client` alone, serve an endpoint of your own and call
//! [`Client::poll`](crate::Client::poll) when its interval allows.
//!
//! With pings, [`Backoff::Growing`](crate::Backoff::Growing) spares the OP most polls. A ping that is lost costs time only:
//! polling finishes the job. One ping counts for each interval: of an OP that pings for progress as well, the ping with
//! the decision may have to wait for the scheduled poll.

use std::fmt;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;

use crate::client::Client;
use crate::error::{ConfigurationProblem, Error};
use crate::keyring::NotificationToken;
use crate::poller::Poller;
use crate::secret::{Secret, constant_time_eq};

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub mod axum;

/// A Ping Callback names one identifier. Whatever is larger is none.
pub const BODY_LIMIT: usize = 16 * 1024;

/// Takes Ping Callbacks: the parts of a request in, the status of the answer out. Serve it under the Deferred Client
/// Notification Endpoint that the OP has registered, with any web framework; `ping::axum` (feature `axum`) does so
/// for that one.
///
/// A ping changes when the OP is asked, never what is believed: the answer to the poll that follows decides. It is
/// answered before that poll.
///
/// | status | when |
/// |---|---|
/// | 204 | the ping is genuine, whether or not it is of any use |
/// | 400 | the body is not JSON with a `deferred_auth_id` that is a string |
/// | 401 | the bearer token is missing or wrong, or not the one of this `deferred_auth_id` |
/// | 405 | the method is not `POST` |
/// | 413 | the body is larger than [`BODY_LIMIT`] |
/// | 415 | the body is not said to be JSON |
/// | 503 | the store is out of reach; the OP may try again |
#[derive(Clone)]
pub struct Receiver {
    poller: Poller,
    mode: Mode,
}

/// How the OP shows that a ping is genuine.
#[derive(Clone)]
enum Mode {
    /// By the token of the process, which the poller made.
    PerProcess,
    /// By one token for all processes of a client.
    Static { client: Client, token: Secret },
    /// By means that are not visible here, such as a client certificate.
    Elsewhere { client: Client },
}

impl Receiver {
    /// A receiver for pings with the token of each process, which the poller gives to the OP when it was set up with
    /// [`receives_pings`](crate::poller::PollerBuilder::receives_pings). A forged token is refused before the store
    /// hears of it.
    pub fn new(poller: Poller) -> Self {
        Self { poller, mode: Mode::PerProcess }
    }

    /// A receiver for the pings of one client whose OP presents the same token for all processes: the
    /// [`notification_token`](crate::ClientBuilder::notification_token) of the client, or one that was registered.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::Misuse::UnknownClient);
    /// [`Configuration`](crate::ErrorKind::Configuration) for a token that a header cannot carry (RFC 6750 §2.1) or that
    /// is empty.
    pub fn with_static_token(
        poller: Poller,
        issuer: &str,
        client_id: &str,
        token: impl Into<Secret>,
    ) -> Result<Self, Error> {
        let (client, token) = (poller.client_named(issuer, client_id)?, token.into());
        if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "it is empty or has characters that no `Authorization` header carries";
            return Err(ConfigurationProblem::Setting { setting: "token", problem }.into());
        }
        Ok(Self { poller, mode: Mode::Static { client, token } })
    }

    /// A receiver for the pings of one client that were authenticated before they get here, for instance by mutual TLS
    /// in a reverse proxy. Whoever reaches it is believed to be the OP.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::Misuse::UnknownClient).
    pub fn authenticated_elsewhere(poller: Poller, issuer: &str, client_id: &str) -> Result<Self, Error> {
        let client = poller.client_named(issuer, client_id)?;
        Ok(Self { poller, mode: Mode::Elsewhere { client } })
    }

    /// Takes one request and gives the status to answer with; the answer has no body. Read no more of the request's
    /// body than [`BODY_LIMIT`] and one byte.
    pub async fn receive(&self, method: &Method, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let status = self.answer(method, headers, body).await;
        self.poller.count_ping(status.as_u16());
        status
    }

    async fn answer(&self, method: &Method, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        if method != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED;
        }
        if !is_json(headers) {
            return StatusCode::UNSUPPORTED_MEDIA_TYPE;
        }
        if body.len() > BODY_LIMIT {
            return StatusCode::PAYLOAD_TOO_LARGE;
        }
        let Some((client, process)) = self.authenticate(headers) else { return StatusCode::UNAUTHORIZED };
        let Some(callback) = Callback::read(body) else { return StatusCode::BAD_REQUEST };
        match self.poller.pinged(&client, process, &callback.deferred_auth_id).await {
            Ok(true) => StatusCode::NO_CONTENT,
            Ok(false) => StatusCode::UNAUTHORIZED,
            Err(error) => {
                tracing::error!(error = %error, "a ping could not be noted");
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// DTR §Ping Callback: an OP that was given a `deferred_notification_token` presents it as a bearer token, and what
    /// does not is refused. Gives the client, and the process if the token names one.
    fn authenticate(&self, headers: &HeaderMap) -> Option<(Client, Option<[u8; 16]>)> {
        match &self.mode {
            Mode::PerProcess => {
                let token = NotificationToken::parse(bearer(headers)?)?;
                let client = self.poller.client_numbered(token.client)?;
                let is_genuine = self.poller.keyring().verifies(&token, client.issuer(), client.client_id());
                is_genuine.then_some((client, Some(token.process)))
            }
            Mode::Static { client, token } => {
                let is_genuine = constant_time_eq(bearer(headers)?.as_bytes(), token.expose().as_bytes());
                is_genuine.then(|| (client.clone(), None))
            }
            Mode::Elsewhere { client } => Some((client.clone(), None)),
        }
    }
}

impl From<Poller> for Receiver {
    fn from(poller: Poller) -> Self {
        Self::new(poller)
    }
}

/// DTR §Ping Callback. Unknown members are ignored.
#[derive(Deserialize)]
struct Callback<'a> {
    #[serde(borrow)]
    deferred_auth_id: std::borrow::Cow<'a, str>,
}

impl<'a> Callback<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        // serde would take an array for the members in their order.
        let is_object = body.trim_ascii_start().starts_with(b"{");
        is_object.then(|| serde_json::from_slice(body).ok())?
    }
}

/// The one bearer token (RFC 6750 §2.1). The scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_matches(' '))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receiver").field("poller", &self.poller).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[(http::HeaderName, &str)]) -> HeaderMap {
        values.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn one_bearer_token_is_read_under_any_case_of_its_scheme() {
        assert_eq!(bearer(&headers(&[(AUTHORIZATION, "bEARER abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[(AUTHORIZATION, "Basic abc")])), None);
        assert_eq!(bearer(&headers(&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer a")])), None);
        assert_eq!(bearer(&headers(&[])), None);
    }

    #[test]
    fn an_array_with_an_identifier_in_it_is_no_callback() {
        assert_eq!(Callback::read(br#" {"deferred_auth_id":"a"}"#).unwrap().deferred_auth_id, "a");
        for body in [r#"["a"]"#, r#" ["a"]"#, r#""a""#, "{}", r#"{"deferred_auth_id":7}"#, ""] {
            assert!(Callback::read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn the_media_type_is_json_with_any_parameters() {
        assert!(is_json(&headers(&[(CONTENT_TYPE, "Application/JSON; charset=utf-8")])));
        assert!(!is_json(&headers(&[(CONTENT_TYPE, "application/x-www-form-urlencoded")])));
        assert!(!is_json(&headers(&[])));
    }
}
