//! The receiver of logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.5 to §2.8).

use std::fmt;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use serde_json::json;

use super::used_tokens::{Arrived, UsedTokens};
use crate::client::{Client, LogoutToken};
use crate::error::{Document, Error, ErrorKind, Rule, Violation};
use crate::request_body;

/// The maximum size of the body of a request with a logout token, in bytes.
pub const BODY_LIMIT: usize = 16 * 1024;

/// The time for the body of a request with a logout token to arrive after its head.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the application may take to end sessions, unless it sets another time.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// When the OP may try again, in seconds.
const RETRY_DELAY: u64 = 5;

/// Receives logout tokens: it takes a request and returns the response. Serve it under the registered
/// [`backchannel_logout_uri`](crate::registration::RegistrationRequest::backchannel_logout_uri), with any web framework;
/// `SignInRouter::logout` (feature `axum`) has a route for axum. Call [`receive`](Self::receive) for each request.
///
/// | status | when |
/// |---|---|
/// | 200 | the sessions are ended |
/// | 400 | the request is not a form with exactly one `logout_token`, or the token breaks a rule or was used before; the body has `error` and `error_description` as JSON (§2.8) |
/// | 405 | the method is not `POST`; `Allow` says so |
/// | 408 | the body did not arrive within [`BODY_TIMEOUT`] |
/// | 413 | the body is larger than [`BODY_LIMIT`] |
/// | 503 | the token cannot be verified yet, or the application could not end the sessions [in time](Self::end_sessions_within); the OP may send the token again (§2.5) |
///
/// Every response has `Cache-Control: no-store` (§2.8).
///
/// Make one receiver for each client, and keep it for as long as the program runs. It remembers used tokens, 10,000 at
/// most, until they expire (§2.6, 8). Clones share this memory. Other replicas and a restarted program do not: see
/// [`SessionsEnded::Already`].
///
/// Everybody can send requests to this endpoint. A forged token ends nothing. Limit the rate of requests all the same.
#[derive(Clone)]
pub struct Receiver {
    client: Client,
    used: UsedTokens,
    time_limit: Duration,
}

/// What the application did about a logout token, and so the answer to the OP (§2.8).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsEnded {
    /// The sessions are ended, or there were none: 200.
    Done,
    /// The token was used before, perhaps in another replica: 400 (§2.6, 8). With several replicas, insert
    /// [`LogoutToken::jti`] into a table with a unique index in the transaction that ends the sessions, and return this
    /// if it is there. Delete it after [`LogoutToken::usable_until`].
    Already,
    /// The sessions could not be ended, because a store is unavailable: 503, so that the OP may try again with the same
    /// token (§2.5). The specification has 400 here too, with which no OP could tell the two apart.
    Failed,
}

impl Receiver {
    /// Creates a receiver for the logout tokens of the client's OP.
    pub fn new(client: Client) -> Self {
        Self { client, used: UsedTokens::default(), time_limit: TIME_LIMIT }
    }

    /// Sets how long the application may take to end the sessions of one token. The default is 10 s. After that the
    /// future is dropped and the OP gets 503. The token is not used up, so the OP may send it again.
    pub fn end_sessions_within(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Takes one request and returns the response to send. It checks the head, reads the form within its bounds,
    /// verifies the token as [`Client::logout_token`] does, and calls `end_sessions` if the token was not used before.
    /// The body can be any [`http_body::Body`]: that of hyper, axum or warp, or a `String` if the server has already
    /// read the request.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use openid_deferred::logout::{Receiver, SessionsEnded};
    ///
    /// /// The sessions of the application, in its database.
    /// trait Sessions {
    ///     /// Ends those with this `sid`, if there is one, and with this subject, if there is one.
    ///     async fn end(&self, sid: Option<&str>, subject: Option<&str>) -> Result<(), std::io::Error>;
    /// }
    ///
    /// async fn logged_out(
    ///     receiver: &Receiver,
    ///     sessions: &impl Sessions,
    ///     request: Request<hyper::body::Incoming>,
    /// ) -> Response<String> {
    ///     let end = async |token: openid_deferred::logout::LogoutToken| {
    ///         match sessions.end(token.sid(), token.subject()).await {
    ///             Ok(()) => SessionsEnded::Done,
    ///             Err(_) => SessionsEnded::Failed,
    ///         }
    ///     };
    ///     receiver.receive(request, end).await
    /// }
    /// ```
    pub async fn receive<B: Body>(
        &self,
        request: Request<B>,
        end_sessions: impl AsyncFnOnce(LogoutToken) -> SessionsEnded,
    ) -> Response<String> {
        let mut response = match self.token_of(request).await {
            Ok(token) => self.end(token, end_sessions).await,
            Err(refusal) => refusal,
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The verified token of a request. `Err` has the answer to any other request.
    async fn token_of<B: Body>(&self, request: Request<B>) -> Result<LogoutToken, Response<String>> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED);
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Err(refusal);
        }
        if !is_form(&head.headers) {
            return Err(refused("the `Content-Type` is not `application/x-www-form-urlencoded`"));
        }
        let timeout = self.client.clock().sleep(BODY_TIMEOUT);
        let form = match request_body::read(body, BODY_LIMIT, timeout).await {
            Ok(form) => form,
            Err(StatusCode::BAD_REQUEST) => return Err(refused("the body is incomplete")),
            Err(status) => return Err(answer(status)),
        };
        let token = token_in(&form).map_err(refused)?;
        self.client.logout_token(&token).await.map_err(|error| {
            tracing::warn!(%error, advice = error.advice(), "a logout token was not accepted");
            answer_to(&error)
        })
    }

    /// Lets the application end the sessions that a token names, if it was not used before.
    async fn end(
        &self,
        token: LogoutToken,
        end_sessions: impl AsyncFnOnce(LogoutToken) -> SessionsEnded,
    ) -> Response<String> {
        let replayed =
            || answer_to(&Violation::new(Rule::LogoutTokenReplayed).in_document(Document::LogoutToken).into());
        let clock = self.client.clock();
        let use_of_it = match self.used.begin(&token, clock.now()) {
            Arrived::New(use_of_it) => use_of_it,
            Arrived::InUse => return failed(),
            Arrived::Used => return replayed(),
        };
        let ended = tokio::select! {
            biased;
            ended = end_sessions(token) => ended,
            () = clock.sleep(self.time_limit) => {
                let seconds = self.time_limit.as_secs();
                tracing::error!(seconds, "the sessions of a logout token were not ended in time; the OP got 503");
                return failed();
            }
        };
        match ended {
            SessionsEnded::Done => {
                use_of_it.done();
                answer(StatusCode::OK)
            }
            SessionsEnded::Already => {
                use_of_it.done();
                replayed()
            }
            SessionsEnded::Failed => {
                tracing::error!("the sessions of a logout token could not be ended; the OP got 503");
                failed()
            }
        }
    }
}

/// The only token of a form, or what is wrong with the form. "The POST body MAY contain other values in addition to
/// logout_token. Values that are not understood by the implementation MUST be ignored" (§2.5).
fn token_in(form: &[u8]) -> Result<String, &'static str> {
    if std::str::from_utf8(form).is_err() {
        return Err("the body is not UTF-8");
    }
    let mut tokens = form_urlencoded::parse(form).filter(|(name, _)| name == "logout_token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(token.into_owned()),
        (None, _) => Err("the request has no `logout_token`"),
        (Some(_), Some(_)) => Err("the request has more than one `logout_token`"),
    }
}

/// §2.5: "using the application/x-www-form-urlencoded encoding".
fn is_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(Ok(value)), None) = (values.next().map(HeaderValue::to_str), values.next()) else { return false };
    let kind = value.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The answer to a token that was not accepted.
fn answer_to(error: &Error) -> Response<String> {
    match error.kind() {
        ErrorKind::Protocol(violation) if !error.is_transient() => refused(&violation.to_string()),
        _ => failed(),
    }
}

/// §2.8: "a JSON object with error and error_description parameters". The description must not have quotation marks
/// (RFC 6749 §5.2), and ours have none.
fn refused(description: &str) -> Response<String> {
    let mut response = answer(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = json!({ "error": "invalid_request", "error_description": description }).to_string();
    response
}

/// The OP may try again.
fn failed() -> Response<String> {
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_DELAY));
    response
}

fn answer(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Receiver")
            .field("client", &self.client)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}
