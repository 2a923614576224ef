//! Classification of responses from endpoints that answer like the token endpoint.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{challenge, retry_after};
use crate::error::{Document, ErrorResponse, Rule, Verdict, Violation};
use crate::json::Object;
use crate::transport::HttpResponse;

/// A classified response.
pub(crate) enum Answer {
    /// A JSON object without an error, with a success status. A byte order mark is removed, because it is not part of
    /// the JSON text and older releases cannot read it.
    Success {
        body: Zeroizing<Vec<u8>>,
        retry_after: Option<Duration>,
    },
    Error(ErrorAnswer),
    /// A response that cannot come from this endpoint: a redirect, an HTML page, a broken document.
    Unusable {
        violation: Violation,
        status: u16,
        /// What it means for the grant all the same.
        verdict: Verdict,
        retry_after: Option<Duration>,
        /// The body, if it has tokens. They are not used and should be revoked.
        tokens: Option<Zeroizing<Vec<u8>>>,
    },
}

/// An error that the OP stated (RFC 6749 §5.2), whatever its status.
pub(crate) struct ErrorAnswer {
    pub(crate) response: ErrorResponse,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Zeroizing<Vec<u8>>,
    has_tokens: bool,
}

impl ErrorAnswer {
    /// The body, if tokens came with the error. They are not used and should be revoked.
    pub(crate) fn tokens(&self) -> Option<&[u8]> {
        self.has_tokens.then_some(&**self.body)
    }
}

impl Answer {
    pub(super) fn of(mut response: HttpResponse, document: Document, now: SystemTime) -> Self {
        let retry_after = retry_after::retry_after(&response.headers, now);
        let status = response.status;
        response.body = without_byte_order_mark(response.body);
        let judged = if document == Document::RevocationResponse && status.is_success() {
            // RFC 7009 §2.2: "The content of the response body is ignored by the client as all necessary information is
            // conveyed in the response code."
            Ok(None)
        } else if is_success(status) {
            success(&response, document)
        } else if status.is_client_error() || status.is_server_error() {
            error(&response, document).map(Some)
        } else if status.is_redirection() {
            Err(Violation::new(Rule::UnexpectedRedirect))
        } else {
            Err(Violation::new(Rule::UnexpectedStatus))
        };
        match judged {
            Ok(None) => Self::Success { body: Zeroizing::new(response.body.into()), retry_after },
            Ok(Some(Stated { response: stated, has_tokens })) => {
                let body = Zeroizing::new(response.body.into());
                Self::Error(ErrorAnswer { response: stated, retry_after, body, has_tokens })
            }
            Err(violation) => {
                let (violation, status) = (violation.in_document(document), status.as_u16());
                let verdict = Verdict::of(status, None);
                let has_tokens =
                    Object::document(&response.body, document).is_ok_and(|body| has_tokens(body.members()));
                let tokens = has_tokens.then(|| Zeroizing::new(response.body.into()));
                Self::Unusable { violation: violation.with_status(status), status, verdict, retry_after, tokens }
            }
        }
    }

    /// The error code for which the request may be repeated at once. `None` for a gateway's answer, because the OP may
    /// have processed the request.
    pub(super) fn refusal_of_the_proof(&self) -> Option<&str> {
        match self {
            Self::Error(answer) if answer.response.verdict() == Verdict::ClientRefused => Some(answer.response.code()),
            _ => None,
        }
    }

    /// The same response as a broken rule of nonces. The OP did not process anything else in the request.
    pub(super) fn into_failed_challenge(self, violation: Violation) -> Self {
        let (status, retry_after) = match self {
            Self::Success { retry_after, .. } => (StatusCode::OK.as_u16(), retry_after),
            Self::Error(answer) => (answer.response.status().unwrap_or_default(), answer.retry_after),
            Self::Unusable { status, retry_after, .. } => (status, retry_after),
        };
        let violation = violation.with_status(status);
        Self::Unusable { violation, status, verdict: Verdict::NotProcessed, retry_after, tokens: None }
    }
}

// The body of a success contains tokens.
impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success { retry_after, .. } => {
                formatter.debug_struct("Success").field("retry_after", retry_after).finish_non_exhaustive()
            }
            Self::Error(answer) => answer.fmt(formatter),
            Self::Unusable { violation, verdict, retry_after, .. } => formatter
                .debug_struct("Unusable")
                .field("violation", violation)
                .field("verdict", verdict)
                .field("retry_after", retry_after)
                .finish_non_exhaustive(),
        }
    }
}

impl fmt::Debug for ErrorAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ErrorAnswer")
            .field("response", &self.response)
            .field("retry_after", &self.retry_after)
            .field("has_tokens", &self.has_tokens)
            .finish_non_exhaustive()
    }
}

/// The members that distinguish an error from a success.
struct Members {
    error: Option<Value>,
    error_description: Option<Value>,
    has_tokens: bool,
}

/// An error that a response states.
struct Stated {
    response: ErrorResponse,
    has_tokens: bool,
}

impl Members {
    fn read(body: &[u8], document: Document) -> Result<Self, Violation> {
        // serde would accept an array as the members in their order.
        if body.trim_ascii_start().first().is_some_and(|&first| first != b'{') {
            return Err(Violation::new(Rule::MalformedJson).at_position(1, 1));
        }
        let mut members = Object::read(body, document, &["error"])?;
        let has_tokens = has_tokens(&members);
        let mut member = |name| members.shift_remove(name).filter(|value| !value.is_null());
        Ok(Self { error: member("error"), error_description: member("error_description"), has_tokens })
    }

    /// The error, if there is one. Some serializers write an absent error as null or as an empty value.
    fn stated(&self, status: StatusCode) -> Result<Option<Stated>, Violation> {
        match self.error.as_ref().filter(|error| !is_empty(error)) {
            None => Ok(None),
            Some(Value::String(code)) => {
                let description = self.error_description.as_ref().and_then(Value::as_str);
                let response = ErrorResponse::new(code, description, Some(status.as_u16()));
                Ok(Some(Stated { response, has_tokens: self.has_tokens }))
            }
            Some(_) => Err(Violation::new(Rule::InvalidMember).at_member("error")),
        }
    }
}

/// Whether one of the members is a token or the identifier of a deferred response.
fn has_tokens(members: &Map<String, Value>) -> bool {
    let is_token = |value: &Value| value.as_str().is_some_and(|token| !token.is_empty());
    let names = ["deferred_auth_id", "access_token", "refresh_token", "id_token"];
    names.iter().any(|name| members.get(*name).is_some_and(is_token))
}

/// Whether a value is null or empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// The statuses of a complete success. Most endpoints have one specified status (RFC 6749 §5.1: 200; RFC 9126 §2.2 and
/// RFC 7591 §3.2.1: 201). But the OP gives the answer only once, so a complete answer with another of these statuses is
/// accepted. 204, 205 and 206 mean that the body is not complete.
fn is_success(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=203)
}

/// The error of a response that is not the success that its status claims.
fn success(response: &HttpResponse, document: Document) -> Result<Option<Stated>, Violation> {
    if !is_json(&response.headers) {
        // The OP gives the answer only once, so a complete answer is accepted under another media type.
        if !response.body.trim_ascii_start().starts_with(b"{") {
            return Err(Violation::new(Rule::UnexpectedContentType));
        }
        tracing::warn!(%document, "the OP's response is JSON under another media type; it is accepted");
    }
    let stated = Members::read(&response.body, document)?.stated(response.status)?;
    match stated {
        // A terminal error counts. Any other error contradicts the tokens, and it is unknown which of the two is right.
        Some(Stated { response, has_tokens: true }) if !response.verdict().is_end() => {
            tracing::warn!(%document, code = response.code(), "the OP's response has both tokens and an error; the tokens are not used");
            Err(Violation::new(Rule::ErrorResponseWithSuccessStatus).at_member("error"))
        }
        stated => Ok(stated),
    }
}

fn error(response: &HttpResponse, document: Document) -> Result<Stated, Violation> {
    let status = response.status;
    let challenged = |schemes: &[&str]| {
        let code = (status == StatusCode::UNAUTHORIZED).then(|| challenge::error(&response.headers, schemes))?;
        let response = code.map(|code| ErrorResponse::new(&code, None, Some(status.as_u16())));
        response.map(|response| Stated { response, has_tokens: false })
    };
    // A server may state the error only in the header, or put another kind of error into the body.
    if let Some(challenge) = challenged(&["DPoP"]).filter(|stated| stated.response.code() == "use_dpop_nonce") {
        return Ok(challenge);
    }
    let stated = if is_json(&response.headers) || response.body.trim_ascii_start().starts_with(b"{") {
        Members::read(&response.body, document)
            .and_then(|members| members.stated(status))
            .and_then(|stated| stated.ok_or_else(|| Violation::new(Rule::MissingMember).at_member("error")))
    } else {
        Err(Violation::new(Rule::UnexpectedStatus))
    };
    stated.or_else(|violation| challenged(&["DPoP", "Bearer"]).ok_or(violation))
}

/// RFC 8259 §8.1: "implementations that parse JSON texts MAY ignore the presence of a byte order mark".
pub(crate) fn without_byte_order_mark(body: Bytes) -> Bytes {
    match body.starts_with(b"\xef\xbb\xbf") {
        true => body.slice(3..),
        false => body,
    }
}

/// Whether the media type is `application/json` or a type built on it, with any parameters.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}
