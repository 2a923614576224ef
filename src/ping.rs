//! Ping Callbacks (DTR §Ping Callback; IETF DTR §Callback Notification; CIBA §10.2): the OP announces that a poll is
//! worthwhile.
//!
//! An OP that supports pings calls the client's registered Deferred Client Notification Endpoint, or the Backchannel
//! Client Notification Endpoint of CIBA, as soon as it has decided. Serve a [`Receiver`] there; one URL can serve both.
//! It needs a [`Poller`] that [sends the OP a token for it](crate::poller::PollerBuilder::receives_pings), on the same
//! store as the pollers that poll. Any replica can receive a ping. With the stateless client, serve an endpoint of your
//! own and call [`Client::poll`](crate::Client::poll) when its interval allows.
//!
//! With pings, [`Backoff::Growing`](crate::Backoff::Growing) saves most polls. A lost ping only costs time, because
//! polling continues. One ping per interval brings a poll forward. If an OP also pings for progress, the ping with the
//! decision may have to wait for the scheduled poll.

use std::fmt;
use std::time::Duration;

use http::header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;

use crate::client::Client;
use crate::dialect::Dialect;
use crate::error::{ConfigurationProblem, Error};
use crate::json::Object;
use crate::keyring::NotificationToken;
use crate::poller::Poller;
use crate::request_body;
use crate::secret::{Secret, constant_time_eq};

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub mod axum;

/// The maximum size of the body of a Ping Callback in bytes. A genuine body contains one identifier.
pub const BODY_LIMIT: usize = 16 * 1024;

/// The time for the body of a genuine ping to arrive after its head.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// RFC 6750 §3: the scheme "MUST be followed by one or more auth-param values".
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"ping\"");
const INVALID_TOKEN: HeaderValue = HeaderValue::from_static("Bearer realm=\"ping\", error=\"invalid_token\"");

/// Receives Ping Callbacks: it takes a request and returns a response without a body. Serve it under the registered
/// Deferred Client Notification Endpoint, with any web framework; `ping::axum` (feature `axum`) is a route for axum.
///
/// A ping changes when the OP is polled, never the result: the answer to the following poll decides. The ping is
/// answered before that poll.
///
/// | status | when |
/// |---|---|
/// | 204 | the ping is genuine, whether or not it has an effect |
/// | 400 | the body is not JSON with one identifier (`deferred_auth_id`, `deferral_code` or `auth_req_id`) that is a string, or it is incomplete |
/// | 401 | the bearer token is missing or wrong, or belongs to another identifier; `WWW-Authenticate` states what is required (RFC 6750 §3) |
/// | 405 | the method is not `POST`; `Allow` says so |
/// | 408 | the body did not arrive within [`BODY_TIMEOUT`] |
/// | 413 | the body is larger than [`BODY_LIMIT`] |
/// | 415 | the `Content-Type` is not JSON |
/// | 503 | the store is unavailable; the OP may try again |
///
/// The head of a request is checked first. The body of an unauthenticated request is not read.
#[derive(Clone)]
pub struct Receiver {
    poller: Poller,
    mode: Mode,
}

/// How a ping is authenticated.
#[derive(Clone)]
enum Mode {
    /// By the token of the sign-in, which the poller created.
    PerProcess,
    /// By one token for all sign-ins of a client.
    Static { client: Client, token: Secret },
    /// By means that are not visible here, such as a client certificate.
    Elsewhere { client: Client },
}

/// A Ping Callback whose head is valid and whose sender is the OP. Its body has not been read yet: pass it to
/// [`receive`](Self::receive). Created by [`Receiver::authenticate`].
#[must_use = "the ping has no effect until its body is received"]
pub struct AuthenticatedPing {
    poller: Poller,
    client: Client,
    /// The sign-in, if the token names one.
    process: Option<[u8; 16]>,
}

impl Receiver {
    /// Creates a receiver for pings with a token for each sign-in, which a poller with
    /// [`receives_pings`](crate::poller::PollerBuilder::receives_pings) sends to the OP. A forged token is refused
    /// without a call to the store.
    pub fn new(poller: Poller) -> Self {
        Self { poller, mode: Mode::PerProcess }
    }

    /// Creates a receiver for the pings of one client whose OP presents the same token for all sign-ins: the
    /// [`notification_token`](crate::ClientBuilder::notification_token) of the client, or a registered one.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::error::Misuse::UnknownClient);
    /// [`Configuration`](crate::ErrorKind::Configuration) for a token that is empty, or that a header cannot contain
    /// (RFC 6750 §2.1).
    pub fn with_static_token(
        poller: Poller,
        issuer: &str,
        client_id: &str,
        token: impl Into<Secret>,
    ) -> Result<Self, Error> {
        let (client, token) = (poller.client_named(issuer, client_id)?, token.into());
        if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "it is empty or has characters that are invalid in an `Authorization` header";
            return Err(ConfigurationProblem::Setting { setting: "token", problem }.into());
        }
        Ok(Self { poller, mode: Mode::Static { client, token } })
    }

    /// Creates a receiver for the callbacks of one client whose OP sends no token (IETF DTR §Callback Notification).
    /// For an OP that presents the token of each request, use [`new`](Self::new).
    ///
    /// The receiver does not authenticate callers. A callback with a known identifier only makes the poller poll once,
    /// earlier, and at most once per interval of the OP. Limit the rate of requests to this endpoint, because each one
    /// costs a query of the store.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::error::Misuse::UnknownClient).
    pub fn unauthenticated(poller: Poller, issuer: &str, client_id: &str) -> Result<Self, Error> {
        Self::authenticated_elsewhere(poller, issuer, client_id)
    }

    /// Creates a receiver for the pings of one client that were already authenticated, for example by mutual TLS in a
    /// reverse proxy. The receiver itself does not authenticate callers.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::error::Misuse::UnknownClient).
    pub fn authenticated_elsewhere(poller: Poller, issuer: &str, client_id: &str) -> Result<Self, Error> {
        let client = poller.client_named(issuer, client_id)?;
        Ok(Self { poller, mode: Mode::Elsewhere { client } })
    }

    /// Takes one request and returns the response to send. It checks the head, then reads at most [`BODY_LIMIT`] bytes
    /// of the body for at most [`BODY_TIMEOUT`], by the poller's clock. The body can be any [`http_body::Body`]: that
    /// of hyper, axum or warp, or a `String` if the server has already read the request.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use openid_deferred::ping::Receiver;
    ///
    /// async fn notified(receiver: &Receiver, request: Request<hyper::body::Incoming>) -> Response<String> {
    ///     receiver.receive(request).await.map(|()| String::new())
    /// }
    /// ```
    ///
    /// [`authenticate`](Self::authenticate) is for servers with other types of bodies.
    pub async fn receive<B: Body>(&self, request: Request<B>) -> Response<()> {
        let (head, body) = request.into_parts();
        match self.authenticate(&head.method, &head.headers) {
            Ok(ping) => ping.read(body).await,
            Err(refusal) => refusal,
        }
    }

    /// Checks the head of a request: method, bearer token, type and announced length of the body. Then read at most
    /// [`BODY_LIMIT`] bytes and one more, and pass them to [`AuthenticatedPing::receive`]. If that takes longer than
    /// [`BODY_TIMEOUT`], answer with [`AuthenticatedPing::timed_out`].
    ///
    /// # Errors
    ///
    /// The response to send instead. Do not read the body.
    pub fn authenticate(&self, method: &Method, headers: &HeaderMap) -> Result<AuthenticatedPing, Response<()>> {
        let refused = |refusal: Response<()>| {
            self.poller.count_ping(refusal.status().as_u16());
            refusal
        };
        self.judge(method, headers).map_err(refused)
    }

    fn judge(&self, method: &Method, headers: &HeaderMap) -> Result<AuthenticatedPing, Response<()>> {
        if method != Method::POST {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED);
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Err(refusal);
        }
        let Some((client, process)) = self.sender(headers) else { return Err(unauthorized(headers)) };
        if !is_json(headers) {
            return Err(response(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > BODY_LIMIT) {
            return Err(response(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Ok(AuthenticatedPing { poller: self.poller.clone(), client, process })
    }

    /// DTR §Ping Callback: an OP with a `deferred_notification_token` presents it as a bearer token; other requests are
    /// refused. Returns the client, and the sign-in if the token names one.
    fn sender(&self, headers: &HeaderMap) -> Option<(Client, Option<[u8; 16]>)> {
        match &self.mode {
            Mode::PerProcess => {
                let token = NotificationToken::parse(bearer(headers)?)?;
                let client = self.poller.client_of_partition(token.client)?;
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

impl AuthenticatedPing {
    /// Takes the body and returns the response to send.
    pub async fn receive(self, body: &[u8]) -> Response<()> {
        let response = self.answer(body).await;
        self.poller.count_ping(response.status().as_u16());
        response
    }

    /// Returns the response to send, 408, if the body did not arrive within [`BODY_TIMEOUT`]. The metric counts it like
    /// any other.
    pub fn timed_out(self) -> Response<()> {
        self.refused(StatusCode::REQUEST_TIMEOUT)
    }

    fn refused(&self, status: StatusCode) -> Response<()> {
        self.poller.count_ping(status.as_u16());
        response(status)
    }

    /// Reads the body within its bounds, and processes it.
    async fn read<B: Body>(self, body: B) -> Response<()> {
        let timeout = self.poller.clock().sleep(BODY_TIMEOUT);
        match request_body::read(body, BODY_LIMIT, timeout).await {
            Ok(body) => self.receive(&body).await,
            Err(status) => self.refused(status),
        }
    }

    async fn answer(&self, body: &[u8]) -> Response<()> {
        if body.len() > BODY_LIMIT {
            return response(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let Some(callback) = Callback::read(body) else { return response(StatusCode::BAD_REQUEST) };
        match self.poller.pinged(&self.client, self.process, &callback.identifier).await {
            Ok(true) => response(StatusCode::NO_CONTENT),
            Ok(false) => challenged(INVALID_TOKEN),
            Err(error) => {
                tracing::error!(error = %error, "a ping could not be stored; the OP got 503");
                response(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

fn response(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

/// RFC 6750 §3.1: "If the request lacks any authentication information [...], the resource server SHOULD NOT include an
/// error code".
fn unauthorized(headers: &HeaderMap) -> Response<()> {
    let has_token = headers.get_all(AUTHORIZATION).iter().any(|value| value.to_str().is_ok_and(is_bearer));
    challenged(if has_token { INVALID_TOKEN } else { CHALLENGE })
}

fn challenged(challenge: HeaderValue) -> Response<()> {
    let mut response = response(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

impl From<Poller> for Receiver {
    fn from(poller: Poller) -> Self {
        Self::new(poller)
    }
}

/// DTR §Ping Callback, IETF DTR §Callback Notification and CIBA §10.2. Unknown members are ignored.
struct Callback {
    identifier: String,
}

impl Callback {
    /// Parses it by the rules for all JSON of the OP: after a byte order mark, and with members that are repeated with
    /// equal values.
    fn read(body: &[u8]) -> Option<Self> {
        let names = Dialect::ALL.map(|dialect| dialect.protocol().identifier());
        let members = Object::parse_body(body).ok()?.needing(&names).ok()?;
        let mut named = names.into_iter().filter_map(|name| members.get(name)).filter(|value| !value.is_null());
        let identifier = named.next()?.as_str()?.to_owned();
        // With two different ones it would be unclear which is meant.
        named.all(|other| *other == identifier).then_some(Self { identifier })
    }
}

/// The one bearer token (RFC 6750 §2.1). The scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let value = value.to_str().ok().filter(|value| is_bearer(value))?;
    value.split_once(' ').map(|(_, token)| token.trim_matches(' '))
}

fn is_bearer(credentials: &str) -> bool {
    credentials.split(' ').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer"))
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

impl fmt::Debug for AuthenticatedPing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuthenticatedPing").field("client_id", &self.client.client_id()).finish_non_exhaustive()
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
    fn an_array_with_an_identifier_is_not_a_callback() {
        for body in [r#" {"deferred_auth_id":"a"}"#, "\u{feff}{\"deferred_auth_id\":\"a\",\"deferred_auth_id\":\"a\"}"]
        {
            assert_eq!(Callback::read(body.as_bytes()).unwrap().identifier, "a");
        }
        for body in [
            r#"{"deferral_code":"a"}"#,
            r#"{"auth_req_id":"a"}"#,
            r#"{"deferral_code":"a","deferred_auth_id":"a","auth_req_id":"a"}"#,
        ] {
            assert_eq!(Callback::read(body.as_bytes()).unwrap().identifier, "a");
        }
        assert!(Callback::read(br#"{"deferral_code":"a","deferred_auth_id":"b"}"#).is_none());
        assert!(Callback::read(br#"{"auth_req_id":"a","deferred_auth_id":"b"}"#).is_none());
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
