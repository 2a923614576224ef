//! What an endpoint that answers like the token endpoint said.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{challenge, retry_after};
use crate::error::{Document, ErrorResponse, Rule, Violation};
use crate::json::Object;
use crate::transport::HttpResponse;

/// A response, classified. Every response has its place here.
pub(crate) enum Answer {
    /// A JSON object that is not an error, with status 200 or the one that the endpoint has for success.
    Success {
        body: Zeroizing<Vec<u8>>,
        retry_after: Option<Duration>,
    },
    Error(ErrorAnswer),
    /// Anything that this endpoint cannot have meant: a redirect, a page for humans, a broken document.
    Unusable {
        violation: Violation,
        status: u16,
        retry_after: Option<Duration>,
    },
}

/// An error that the OP stated (RFC 6749 §5.2), whatever its status of failure.
#[derive(Debug)]
pub(crate) struct ErrorAnswer {
    pub(crate) response: ErrorResponse,
    pub(crate) retry_after: Option<Duration>,
}

impl Answer {
    pub(super) fn of(response: HttpResponse, document: Document, now: SystemTime) -> Self {
        let retry_after = retry_after::retry_after(&response.headers, now);
        let status = response.status;
        let judged = if is_success(status, document) {
            success(&response, document).map(|()| None)
        } else if status.is_client_error() || status.is_server_error() {
            error(&response, document).map(Some)
        } else if status.is_redirection() {
            Err(Violation::new(Rule::UnexpectedRedirect))
        } else {
            Err(Violation::new(Rule::UnexpectedStatus))
        };
        match judged {
            Ok(None) => Self::Success { body: Zeroizing::new(response.body.into()), retry_after },
            Ok(Some(response)) => Self::Error(ErrorAnswer { response, retry_after }),
            Err(violation) => {
                let (violation, status) = (violation.in_document(document), status.as_u16());
                Self::Unusable { violation: violation.with_status(status), status, retry_after }
            }
        }
    }

    pub(super) fn error_code(&self) -> Option<&str> {
        match self {
            Self::Error(answer) => Some(answer.response.code()),
            _ => None,
        }
    }

    /// The same response, seen as one that broke a rule.
    pub(super) fn into_unusable(self, violation: Violation) -> Self {
        let (status, retry_after) = match self {
            Self::Success { retry_after, .. } => (StatusCode::OK.as_u16(), retry_after),
            Self::Error(answer) => (answer.response.status().unwrap_or_default(), answer.retry_after),
            Self::Unusable { status, retry_after, .. } => (status, retry_after),
        };
        Self::Unusable { violation: violation.with_status(status), status, retry_after }
    }
}

// The body of a success holds tokens.
impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success { retry_after, .. } => {
                formatter.debug_struct("Success").field("retry_after", retry_after).finish_non_exhaustive()
            }
            Self::Error(answer) => answer.fmt(formatter),
            Self::Unusable { violation, retry_after, .. } => formatter
                .debug_struct("Unusable")
                .field("violation", violation)
                .field("retry_after", retry_after)
                .finish_non_exhaustive(),
        }
    }
}

/// The members that tell an error from a success.
struct Members {
    error: Option<Value>,
    error_description: Option<Value>,
}

impl Members {
    fn read(body: &[u8], document: Document) -> Result<Self, Violation> {
        // serde would take an array for the members in their order.
        if body.trim_ascii_start().first().is_some_and(|&first| first != b'{') {
            return Err(Violation::new(Rule::MalformedJson).at_position(1, 1));
        }
        let mut members = Object::read(body, document, &["error"])?;
        let mut member = |name| members.shift_remove(name).filter(|value| !value.is_null());
        Ok(Self { error: member("error"), error_description: member("error_description") })
    }
}

fn is_success(status: StatusCode, document: Document) -> bool {
    match document {
        // RFC 9126 §2.2: "the server generates a request URI and provides it in the response with a 201 HTTP status
        // code".
        Document::PushedAuthorizationResponse => status == StatusCode::CREATED,
        // RFC 7591 §3.2.1 has 201 for a registration and RFC 7592 §3 has 200 for the rest. What a registration brings
        // comes once only, so the other of the two is no reason to throw it away.
        Document::ClientInformation => status == StatusCode::CREATED || status == StatusCode::OK,
        _ => status == StatusCode::OK,
    }
}

fn success(response: &HttpResponse, document: Document) -> Result<(), Violation> {
    if !is_json(&response.headers) {
        // The answer is given once only, so one that is whole is not thrown away for its label.
        if !response.body.trim_ascii_start().starts_with(b"{") {
            return Err(Violation::new(Rule::UnexpectedContentType));
        }
        tracing::warn!(%document, "the OP's answer is JSON under another media type");
    }
    match Members::read(&response.body, document)?.error {
        Some(_) => Err(Violation::new(Rule::ErrorResponseWithSuccessStatus)),
        None => Ok(()),
    }
}

fn error(response: &HttpResponse, document: Document) -> Result<ErrorResponse, Violation> {
    let status = response.status;
    let challenged = |schemes: &[&str]| {
        let code = (status == StatusCode::UNAUTHORIZED).then(|| challenge::error(&response.headers, schemes))?;
        code.map(|code| ErrorResponse::new(&code, None, Some(status.as_u16())))
    };
    // A server may say it in the header only, or put an error of another kind into the body.
    if let Some(challenge) = challenged(&["DPoP"]).filter(|challenge| challenge.code() == "use_dpop_nonce") {
        return Ok(challenge);
    }
    let stated = if is_json(&response.headers) || response.body.trim_ascii_start().starts_with(b"{") {
        Members::read(&response.body, document).and_then(|members| match &members.error {
            Some(Value::String(code)) => {
                let description = members.error_description.as_ref().and_then(Value::as_str);
                Ok(ErrorResponse::new(code, description, Some(status.as_u16())))
            }
            Some(_) => Err(Violation::new(Rule::InvalidMember).at_member("error")),
            None => Err(Violation::new(Rule::MissingMember).at_member("error")),
        })
    } else {
        Err(Violation::new(Rule::UnexpectedStatus))
    };
    stated.or_else(|violation| challenged(&["DPoP", "Bearer"]).ok_or(violation))
}

/// Whether the media type is `application/json` or a type built on it, with any parameters.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}
