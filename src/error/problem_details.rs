//! Errors for the browser: an HTTP status, a text that a page can show, and problem details.

use std::fmt;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::{Document, Error, ErrorKind, ErrorResponse, Misuse, SessionProblem, Violation};

/// Where the documentation of each [`ProblemType`] is.
const DOCUMENTATION: &str = "https://docs.rs/openid-deferred/latest/openid_deferred/error/enum.ProblemType.html";

/// How long a browser waits before it tries again, if the OP has stated no time.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The longest time that `Retry-After` states.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(3600);

impl Error {
    /// Whether the browser keeps the cookie of its [authorization session](crate::AuthorizationSession), after
    /// `authorization_response` of a [`Client`](crate::Client::authorization_response) or a
    /// [`Poller`](crate::Poller::authorization_response) returned this error.
    ///
    /// If `true`, the code was not sent or the OP has not processed it: keep the cookie, and let the user reload. If
    /// `false`, delete the cookie in the answer to the browser, as after a success, and let the user start again.
    ///
    /// It is true for errors that [are transient](Self::is_transient), with one exception: an error code in the
    /// authorization response is the OP's final answer to this sign-in, even if the code is `temporarily_unavailable`
    /// (RFC 6749 §4.1.2.1).
    ///
    /// [`problem`](Self::problem) is the page that the user gets.
    pub fn keeps_session(&self) -> bool {
        // An error response without a status came through the browser.
        self.is_transient() && self.error_response().is_none_or(|response| response.status().is_some())
    }

    /// The error as an HTTP response: a status, a title and a text for a page, and problem details (RFC 9457).
    ///
    /// Log the error itself: the problem does not repeat it. It contains no secret and no text of the OP.
    ///
    /// ```
    /// # fn example(error: openid_deferred::Error) -> http::Response<String> {
    /// eprintln!("{error}. {}", error.advice());
    /// error.problem().to_response()
    /// # }
    /// ```
    pub fn problem(&self) -> ProblemDetails {
        let problem = ProblemDetails::new(ProblemType::of(self.kind(), self.is_transient()));
        ProblemDetails { retry_after: self.retry_after(), ..problem }
    }
}

/// Declares [`ProblemType`] together with its texts, so that none can be forgotten.
macro_rules! problem_types {
    ($($(#[$attribute:meta])* $name:ident = $code:literal, $status:ident, $title:literal, $detail:literal;)*) => {
        /// The kinds of [`ProblemDetails`].
        ///
        /// | type | status | the user | errors |
        /// |---|---|---|---|
        /// | [`Declined`](Self::Declined) | 403 | may start again | `access_denied`, `login_required`, `consent_required`, `interaction_required` or `account_selection_required` |
        /// | [`ProviderRefused`](Self::ProviderRefused) | 502 | starts again | any other error code of the OP that is not transient |
        /// | [`ProviderUnavailable`](Self::ProviderUnavailable) | 503 | tries again | transient error codes, [`Transport`](crate::ErrorKind::Transport), and transient broken [rules](super::Rule) such as unavailable keys |
        /// | [`InvalidAnswer`](Self::InvalidAnswer) | 502 | starts again | a broken rule in an answer of the OP to the application |
        /// | [`ResponseRefused`](Self::ResponseRefused) | 400 | starts again | a broken rule in the response that the browser brought |
        /// | [`SessionLost`](Self::SessionLost) | 400 | starts again | [`Session`](crate::ErrorKind::Session): missing, unreadable, or of another client |
        /// | [`SessionExpired`](Self::SessionExpired) | 400 | starts again | [`SessionProblem::Expired`] |
        /// | [`AlreadyUsed`](Self::AlreadyUsed) | 409 | starts again | [`Misuse::SessionAlreadyUsed`], [`Misuse::GrantAlreadyUsed`], `invalid_grant` |
        /// | [`OutcomeUnknown`](Self::OutcomeUnknown) | 502 | starts again | [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) |
        /// | [`Busy`](Self::Busy) | 503 | reloads | [`Busy`](crate::ErrorKind::Busy) |
        /// | [`Unavailable`](Self::Unavailable) | 503 | reloads | [`Store`](crate::ErrorKind::Store), [`Signer`](crate::ErrorKind::Signer), [`Randomness`](crate::ErrorKind::Randomness), [`Misuse::ShutDown`] |
        /// | [`Internal`](Self::Internal) | 500 | starts again | everything else |
        /// | [`CrossSite`](Self::CrossSite) | 403 | uses the form | none: a form of another site |
        /// | [`NotFound`](Self::NotFound) | 404 | uses the browser that started | none: no sign-in of this browser |
        /// | [`NotApproved`](Self::NotApproved) | 409 | waits, or starts again | none: the sign-in has no approval, or its approval was used |
        /// | [`LogoutNotFound`](Self::LogoutNotFound) | 400 | is logged out, if it was them | none: no logout of this browser |
        ///
        /// Problems with the status 503 have a `Retry-After`: that of the OP, at most an hour, or 5 s.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemType {
            $(
                #[doc = concat!($title, ": ", $detail)]
                $(#[$attribute])*
                $name,
            )*
        }

        impl ProblemType {
            /// Every type, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A stable code for logs and scripts, such as `session_expired`.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// A headline for the user, in English.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What happened and what the user can do, in English sentences.
            pub fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail,)* }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

problem_types! {
    Declined = "declined", FORBIDDEN, "The sign-in was declined",
        "You or your provider stopped the sign-in, and nothing was sent to us. Start again if you want to.";
    ProviderRefused = "provider_refused", BAD_GATEWAY, "The provider refused the sign-in",
        "The provider did not accept our request. The error was logged. Start again, or try another way to sign in.";
    ProviderUnavailable = "provider_unavailable", SERVICE_UNAVAILABLE, "The provider does not respond",
        "The provider cannot be reached right now. Try again in a minute.";
    InvalidAnswer = "invalid_answer", BAD_GATEWAY, "The provider's answer is not valid",
        "We did not use the answer, and the error was logged. Start again.";
    ResponseRefused = "response_refused", BAD_REQUEST, "This response does not belong to your sign-in",
        "We did not use it. If you signed in yourself, start again. If somebody sent you the link, close this page.";
    SessionLost = "session_lost", BAD_REQUEST, "This sign-in was not started in this browser",
        "If it was you, continue in the browser in which you started, or start again here. If somebody sent you the link, close this page.";
    SessionExpired = "session_expired", BAD_REQUEST, "The sign-in took too long",
        "The time for this sign-in is over. Start again.";
    AlreadyUsed = "already_used", CONFLICT, "This sign-in was already used",
        "A response of the provider works once. Start again.";
    OutcomeUnknown = "outcome_unknown", BAD_GATEWAY, "The provider's answer was lost",
        "The provider may have answered, but the answer did not reach us. Start again.";
    Busy = "busy", SERVICE_UNAVAILABLE, "Too many sign-ins at the moment",
        "Nothing is lost. Reload this page in a few seconds.";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "This does not work right now",
        "A service that we need does not respond. Nothing is lost. Reload this page in a minute.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong on our side",
        "The error was logged. Start again.";
    CrossSite = "cross_site", FORBIDDEN, "This form was not sent from a page of ours",
        "Nothing was done. Open our page and use the form there.";
    NotFound = "not_found", NOT_FOUND, "There is no such sign-in in this browser",
        "It does not exist, or it was started in another browser.";
    NotApproved = "not_approved", CONFLICT, "This sign-in cannot be finished",
        "It was not approved, or it was finished already. If your provider is still checking, come back later in this \
         browser. Otherwise start again.";
    LogoutNotFound = "logout_not_found", BAD_REQUEST, "This logout was not started in this browser",
        "If it was you, you are logged out where you started. If somebody sent you the link, close this page.";
}

impl ProblemType {
    fn of(kind: &ErrorKind, is_transient: bool) -> Self {
        match kind {
            ErrorKind::ErrorResponse(response) => Self::of_response(response, is_transient),
            ErrorKind::Session(SessionProblem::Expired) => Self::SessionExpired,
            ErrorKind::Session(_) => Self::SessionLost,
            ErrorKind::Misuse(Misuse::SessionAlreadyUsed | Misuse::GrantAlreadyUsed) => Self::AlreadyUsed,
            ErrorKind::OutcomeUnknown => Self::OutcomeUnknown,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::Store | ErrorKind::Signer | ErrorKind::Randomness | ErrorKind::Misuse(Misuse::ShutDown) => {
                Self::Unavailable
            }
            ErrorKind::Transport(_) if is_transient => Self::ProviderUnavailable,
            ErrorKind::Protocol(_) if is_transient => Self::ProviderUnavailable,
            ErrorKind::Protocol(violation) if is_of_the_browser(violation) => Self::ResponseRefused,
            ErrorKind::Transport(_) | ErrorKind::Protocol(_) => Self::InvalidAnswer,
            ErrorKind::Configuration(_) | ErrorKind::Misuse(_) | ErrorKind::Sealed | ErrorKind::Cryptography => {
                Self::Internal
            }
        }
    }

    fn of_response(response: &ErrorResponse, is_transient: bool) -> Self {
        match response.code() {
            "access_denied"
            | "login_required"
            | "consent_required"
            | "interaction_required"
            | "account_selection_required" => Self::Declined,
            "invalid_grant" => Self::AlreadyUsed,
            _ if is_transient => Self::ProviderUnavailable,
            _ => Self::ProviderRefused,
        }
    }

    /// The `type` of the problem details: a URL of this documentation (RFC 9457 §3.1.1).
    pub fn uri(self) -> String {
        format!("{DOCUMENTATION}#variant.{}", self.name())
    }
}

fn is_of_the_browser(violation: &Violation) -> bool {
    let of_browser = [Document::AuthorizationResponse, Document::LogoutResponse];
    violation.document().is_some_and(|document| of_browser.contains(&document)) || violation.rule().is_forgery()
}

/// A problem that a user of the application has, as an HTTP response (RFC 9457). [`Error::problem`] makes one of an
/// error, and `ProblemDetails::from` one of a [`ProblemType`].
///
/// Its texts are constants of this crate. Show them, or words of your own for each [`kind`](Self::kind). With the
/// feature `axum` it can be returned from a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemDetails {
    kind: ProblemType,
    retry_after: Option<Duration>,
}

impl ProblemDetails {
    fn new(kind: ProblemType) -> Self {
        Self { kind, retry_after: None }
    }

    /// The kind of problem.
    pub fn kind(&self) -> ProblemType {
        self.kind
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// A headline for the user, in English.
    pub fn title(&self) -> &'static str {
        self.kind.title()
    }

    /// What happened and what the user can do, in English sentences.
    pub fn detail(&self) -> &'static str {
        self.kind.detail()
    }

    /// How long the user should wait before they try again, for problems with the status 503: what the OP asked for, at
    /// most an hour, or 5 s.
    pub fn retry_after(&self) -> Option<Duration> {
        let is_passing = self.status() == StatusCode::SERVICE_UNAVAILABLE;
        is_passing.then(|| self.retry_after.unwrap_or(RETRY_DELAY).min(LONGEST_RETRY_DELAY))
    }

    /// The problem details (RFC 9457 §3.1): a JSON object with `type`, `title`, `status` and `detail`, and with
    /// [`code`](ProblemType::code) as an extension member (§3.2).
    pub fn to_json(&self) -> String {
        let Self { kind, .. } = self;
        json!({
            "type": kind.uri(),
            "title": kind.title(),
            "status": kind.status().as_u16(),
            "detail": kind.detail(),
            "code": kind.code(),
        })
        .to_string()
    }

    /// The whole response: status, `Content-Type: application/problem+json`, `Cache-Control: no-store`, `Retry-After`
    /// with the status 503, and the problem details as the body.
    pub fn to_response(&self) -> Response<String> {
        let mut response = Response::new(self.to_json());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(retry_after) = self.retry_after() {
            headers.insert(RETRY_AFTER, retry_after_header(retry_after));
        }
        response
    }
}

/// In whole seconds, rounded up (RFC 9110 §10.2.3).
pub(crate) fn retry_after_header(delay: Duration) -> HeaderValue {
    HeaderValue::from(delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0)))
}

impl From<ProblemType> for ProblemDetails {
    fn from(kind: ProblemType) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for ProblemDetails {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}. {}", self.title(), self.detail())
    }
}

#[cfg(test)]
mod tests;
