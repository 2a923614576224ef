//! Problems as responses, and as a page for users.

use ::axum::body::Body;
use ::axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::pages::{POLICY, document};
use crate::error::ProblemDetails;

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        self.to_response().map(Body::from)
    }
}

/// Whether the sender of a request is a browser that shows a page, rather than a script.
pub(super) fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok()).is_some_and(|types| types.contains("text/html"))
}

/// A small page for browsers, and JSON for everything else.
pub(super) fn page(problem: ProblemDetails, headers: &HeaderMap) -> Response {
    let mut response = problem.into_response();
    if !accepts_html(headers) {
        return response;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    // The texts are constants without markup.
    let (title, detail) = (problem.title(), problem.detail());
    let body = format!("<p>{detail}</p><p><a href=\"/\">To the start page</a></p>");
    *response.body_mut() = Body::from(document(title, "", &body));
    response
}
